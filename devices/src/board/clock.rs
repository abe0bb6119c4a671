//! What the board takes from the world around it: time and chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Where a machine's time comes from.
pub trait Clock: Send {
    /// Nanoseconds of guest time since power-on. Never goes back.
    fn now(&mut self) -> u64;

    /// Wall time in milliseconds since 1970, UTC.
    fn unix_millis(&mut self) -> i64;

    /// The processor has executed so many instructions. A clock that counts them goes on.
    fn executed(&mut self, _instructions: u64) {}

    /// The processor is halted and nothing will happen before `until` (guest time) unless it comes
    /// from outside. A clock that needs not wait goes there and gives true.
    fn skip_to(&mut self, _until: u64) -> bool {
        false
    }

    /// A pause is over that began at `now` (guest time): a clock that went on meanwhile goes on from
    /// there.
    fn continue_from(&mut self, _now: u64) {}
}

/// A clock that stands until it is moved. Copies are the same clock.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now: Arc<AtomicU64>,
    unix_millis: Arc<AtomicI64>,
}

impl ManualClock {
    /// Moves the clock on, wall time with it.
    pub fn advance(&self, ns: u64) {
        let before = self.now.fetch_add(ns, Ordering::Relaxed);
        let millis = (before + ns) / 1_000_000 - before / 1_000_000;
        self.unix_millis.fetch_add(millis as i64, Ordering::Relaxed);
    }

    /// Sets wall time, in milliseconds since 1970.
    pub fn set_unix_millis(&self, millis: i64) {
        self.unix_millis.store(millis, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&mut self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn unix_millis(&mut self) -> i64 {
        self.unix_millis.load(Ordering::Relaxed)
    }
}

/// A clock that counts instructions and does not wait while the processor is halted: what a guest
/// does depends on nothing outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualClock {
    /// Guest time in nanoseconds.
    pub now: u64,
    /// Nanoseconds that an instruction takes.
    pub ns_per_instruction: u64,
    /// Wall time at power-on, in milliseconds since 1970.
    pub power_on_millis: i64,
}

impl VirtualClock {
    /// A clock at power-on.
    pub fn new(ns_per_instruction: u64, power_on_millis: i64) -> Self {
        Self { now: 0, ns_per_instruction, power_on_millis }
    }
}

impl Clock for VirtualClock {
    fn now(&mut self) -> u64 {
        self.now
    }

    fn unix_millis(&mut self) -> i64 {
        self.power_on_millis.saturating_add((self.now / 1_000_000) as i64)
    }

    fn executed(&mut self, instructions: u64) {
        self.now = self.now.saturating_add(instructions.saturating_mul(self.ns_per_instruction));
    }

    fn skip_to(&mut self, until: u64) -> bool {
        self.now = self.now.max(until);
        true
    }
}

/// Where RDRAND's numbers come from.
pub trait Entropy: Send {
    /// 32 random bits.
    fn next_u32(&mut self) -> u32;
}

/// Numbers that follow from a seed (SplitMix64): for tests and for runs that must repeat. Nothing
/// secret may be made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded(pub u64);

impl Entropy for Seeded {
    fn next_u32(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_wall_time_with_it() {
        let hand = ManualClock::default();
        let mut clock = hand.clone();
        hand.set_unix_millis(1000);
        hand.advance(1_500_000);
        hand.advance(500_000);
        assert_eq!((clock.now(), clock.unix_millis()), (2_000_000, 1002));
        assert!(!clock.skip_to(u64::MAX));
    }

    #[test]
    fn virtual_clock_counts_instructions_and_skips() {
        let mut clock = VirtualClock::new(2, 5);
        clock.executed(1_000_000);
        assert_eq!((clock.now(), clock.unix_millis()), (2_000_000, 7));
        assert!(clock.skip_to(3_000_000) && clock.skip_to(1));
        assert_eq!(clock.now(), 3_000_000);
    }

    #[test]
    fn seeds_repeat() {
        let (mut a, mut b) = (Seeded(1), Seeded(1));
        assert_eq!(a.next_u32(), b.next_u32());
        assert_ne!(a.next_u32(), Seeded(1).next_u32());
    }
}
