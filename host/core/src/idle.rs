//! How long a guest that only waits may be left asleep.
//!
//! A kernel that ticks wakes its host for each tick: 250 times a second with Debian's, each time into
//! caches that have gone cold meanwhile, for a look at the time. A timer that the guest starts anew in
//! each of its interrupts loses nothing when one comes late, since the handler reads the time. So a
//! guest that has done nothing else for a while is woken a few milliseconds late, for several ticks at
//! once, and one that goes on like that still later, step by step. Input wakes it as before.

use env86_emu::cpu::Stats;

/// From so many wakes in a row for nothing but a tick on, the guest is woken late by at most so many ns. With Debian's
/// kernel it has been quiet for 32 ms then, for a seventh of a second, and for 1.4 s.
const STEPS: [(u32, u64); 3] = [(8, 12_000_000), (16, 48_000_000), (40, 96_000_000)];
/// Instructions that the interrupt of a clock takes at most.
const TICK: u64 = 20_000;
/// Instructions of what a kernel does for itself now and then, as counting its pages: it is no reason to wake it
/// exactly, nor one to wake it later.
const CHORE: u64 = 200_000;

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
        let executed = stats.instructions.saturating_sub(self.instructions);
        let is_program = stats.user_entries != self.user_entries;
        // A guest that has executed nothing was not woken, only asked.
        if is_program && executed > 0 {
            // A program that has slept for long sleeps for long again: only one that does not is woken exactly.
            self.quiet_wakes = if self.quiet_wakes >= STEPS[1].0 { STEPS[0].0 } else { 0 };
        } else if executed > CHORE {
            self.quiet_wakes = 0;
        } else if (1..=TICK).contains(&executed) {
            self.quiet_wakes = self.quiet_wakes.saturating_add(1);
        }
        (self.instructions, self.user_entries) = (stats.instructions, stats.user_entries);
        let step = STEPS.iter().rfind(|(wakes, _)| *wakes <= self.quiet_wakes);
        slack.min(step.map_or(0, |(_, lateness)| *lateness))
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
        let mut ticks = 0;
        for (wakes, lateness) in STEPS {
            let before = tick(&mut idleness, &mut stats, wakes - 1 - ticks, u64::MAX);
            assert!(before < lateness, "{wakes}");
            assert_eq!(tick(&mut idleness, &mut stats, 1, u64::MAX), lateness);
            ticks = wakes;
        }
        // Asked again, it has done nothing; a chore leaves it where it is.
        assert_eq!(idleness.halted(&stats, u64::MAX), STEPS[2].1);
        stats.instructions += CHORE;
        assert_eq!(idleness.halted(&stats, u64::MAX), STEPS[2].1);
        // A program ran that had slept for long, and again at once: the next waits are exact.
        for lateness in [STEPS[0].1, 0] {
            stats.user_entries += 1;
            assert_eq!(tick(&mut idleness, &mut stats, 1, u64::MAX), lateness);
        }
        assert_eq!(tick(&mut idleness, &mut stats, STEPS[0].0, u64::MAX), STEPS[0].1);
        // So they are after work in the kernel.
        stats.instructions += CHORE;
        assert_eq!(tick(&mut idleness, &mut stats, 1, u64::MAX), 0);
    }

    #[test]
    fn no_later_than_a_periodic_timer_allows() {
        let (mut idleness, mut stats) = (Idleness::default(), Stats::default());
        assert_eq!(tick(&mut idleness, &mut stats, STEPS[0].0, 500_000), 500_000);
        assert_eq!(tick(&mut idleness, &mut stats, 1, 0), 0);
    }
}
