//! How long a guest that only waits may be left asleep.
//!
//! A kernel that ticks wakes its host for each tick: 250 times a second with Debian's, each time into
//! caches that have gone cold meanwhile, for a look at the time. A timer that the guest starts anew in
//! each of its interrupts loses nothing when one comes late, since the handler reads the time. So a
//! guest that has done nothing else for a while is woken a few milliseconds late, for several ticks at
//! once, and one that goes on like that still later. Input wakes it as before.

use env86_emu::cpu::Stats;

/// By how much a guest is woken late at most that has done nothing since [`QUIET_WAKES`], in ns, ...
const LATENESS: u64 = 12_000_000;
/// ... and one that has done nothing since [`STILL_WAKES`].
const STILL_LATENESS: u64 = 48_000_000;
/// Instructions that the interrupt of a clock takes at most.
const TICK: u64 = 20_000;
/// Wakes in a row for nothing but a tick, until lateness is allowed.
const QUIET_WAKES: u32 = 8;
/// As many, until more is: a seventh of a second with Debian's kernel, some of whose timers are due each second.
const STILL_WAKES: u32 = 16;

/// What a guest has done between its halts.
#[derive(Debug, Default)]
pub struct Idleness {
    quiet_wakes: u32,
    instructions: u64,
    user_entries: u64,
}

impl Idleness {
    /// The guest has halted, with these counts. Gives the ns that it may be woken late; `slack` is
    /// how late it can be without losing an interrupt.
    pub fn halted(&mut self, stats: &Stats, slack: u64) -> u64 {
        let ticked = stats.user_entries == self.user_entries
            && stats.instructions.saturating_sub(self.instructions) <= TICK;
        self.quiet_wakes = if ticked { self.quiet_wakes.saturating_add(1) } else { 0 };
        (self.instructions, self.user_entries) = (stats.instructions, stats.user_entries);
        slack.min(match self.quiet_wakes {
            ..QUIET_WAKES => 0,
            QUIET_WAKES..STILL_WAKES => LATENESS,
            STILL_WAKES.. => STILL_LATENESS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks of 5000 instructions; gives the lateness allowed after the last.
    fn tick(idleness: &mut Idleness, stats: &mut Stats, times: u32, slack: u64) -> u64 {
        let mut late = 0;
        for _ in 0..times {
            stats.instructions += 5000;
            late = idleness.halted(stats, slack);
        }
        late
    }

    #[test]
    fn only_a_guest_that_ticks_and_nothing_else_is_woken_late() {
        let (mut idleness, mut stats) = (Idleness::default(), Stats::default());
        assert_eq!(tick(&mut idleness, &mut stats, QUIET_WAKES - 1, u64::MAX), 0);
        assert_eq!(tick(&mut idleness, &mut stats, 1, u64::MAX), LATENESS);
        assert_eq!(tick(&mut idleness, &mut stats, STILL_WAKES - QUIET_WAKES - 1, u64::MAX), LATENESS);
        assert_eq!(tick(&mut idleness, &mut stats, 1, u64::MAX), STILL_LATENESS);
        // A program ran, however shortly: the next waits are exact.
        stats.user_entries += 1;
        assert_eq!(tick(&mut idleness, &mut stats, 1, u64::MAX), 0);
        assert_eq!(tick(&mut idleness, &mut stats, QUIET_WAKES, u64::MAX), LATENESS);
        // So they are after work in the kernel.
        stats.instructions += TICK;
        assert_eq!(tick(&mut idleness, &mut stats, 1, u64::MAX), 0);
    }

    #[test]
    fn no_later_than_a_periodic_timer_allows() {
        let (mut idleness, mut stats) = (Idleness::default(), Stats::default());
        assert_eq!(tick(&mut idleness, &mut stats, QUIET_WAKES, 500_000), 500_000);
        assert_eq!(tick(&mut idleness, &mut stats, 1, 0), 0);
    }
}
