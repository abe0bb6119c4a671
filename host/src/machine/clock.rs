//! Guest time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use env86_devices::Clock;

/// The host's monotonic clock as guest time: nanoseconds since power-on, less the pauses. Copies
/// show the same time.
#[derive(Clone, Debug)]
pub struct HostClock {
    started: Instant,
    /// Guest time at `started` in nanoseconds.
    origin: u64,
    /// Nanoseconds spent in pauses that are over.
    paused: Arc<AtomicU64>,
}

impl HostClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self::start_at(0)
    }

    /// A clock that goes on from a guest time in nanoseconds.
    pub fn start_at(origin: u64) -> Self {
        Self { started: Instant::now(), origin, paused: Arc::default() }
    }

    /// Guest time in nanoseconds.
    pub fn elapsed(&self) -> u64 {
        self.raw().saturating_sub(self.paused.load(Ordering::Relaxed))
    }

    /// Sets the clock back to `now`, at the end of a pause.
    pub fn continue_from(&self, now: u64) {
        self.paused.store(self.raw().saturating_sub(now), Ordering::Relaxed);
    }

    fn raw(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.origin.saturating_add(elapsed)
    }
}

impl Clock for HostClock {
    fn now(&mut self) -> u64 {
        self.elapsed()
    }

    fn unix_millis(&mut self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;
    use std::time::Duration;

    #[test]
    fn a_pause_takes_no_guest_time() {
        let clock = HostClock::start();
        let copy = clock.clone();
        let before = clock.elapsed();
        sleep(Duration::from_millis(50));
        clock.continue_from(before);
        let after = copy.elapsed();
        assert!(after >= before && after - before < 40_000_000, "{before} {after}");
    }
}
