//! Guest time.

use std::time::{Instant, SystemTime};

use env86_devices::{Clock, Entropy};

/// The host's monotonic clock as guest time: nanoseconds since power-on, less the pauses.
#[derive(Debug)]
pub struct HostClock {
    started: Instant,
    /// Guest time at `started` in nanoseconds.
    origin: u64,
    /// Nanoseconds spent in pauses that are over.
    paused: u64,
}

impl HostClock {
    /// A clock that goes on from a guest time in nanoseconds.
    pub fn start_at(origin: u64) -> Self {
        Self { started: Instant::now(), origin, paused: 0 }
    }

    fn raw(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.origin.saturating_add(elapsed)
    }
}

impl Clock for HostClock {
    fn now(&mut self) -> u64 {
        self.raw().saturating_sub(self.paused)
    }

    fn unix_millis(&mut self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn continue_from(&mut self, now: u64) {
        self.paused = self.raw().saturating_sub(now);
    }
}

/// The host's random numbers.
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        // A host without random numbers would not have started this program.
        let _ = getrandom::fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_takes_no_guest_time() {
        const HOUR: u64 = 3_600_000_000_000;
        let mut clock = HostClock::start_at(2 * HOUR);
        let before = clock.now();
        // As if it had gone on for an hour.
        clock.continue_from(before - HOUR);
        assert!(clock.now() < before);
    }
}
