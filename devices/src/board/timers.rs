//! The times at which devices must be looked at.

/// A device with a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    Pit,
    Rtc,
    Apic,
    Acpi,
    Ps2,
}

impl Timer {
    pub const ALL: [Self; 5] = [Self::Pit, Self::Rtc, Self::Apic, Self::Acpi, Self::Ps2];
}

/// The deadline of each timer and the first of them. All times are guest time in ns; `u64::MAX` is
/// never.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    deadlines: [u64; Timer::ALL.len()],
    next: u64,
    slice_end: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { deadlines: [u64::MAX; Timer::ALL.len()], next: u64::MAX, slice_end: u64::MAX }
    }
}

impl Timers {
    /// The first deadline.
    pub fn next(&self) -> Option<u64> {
        (self.next != u64::MAX).then_some(self.next)
    }

    /// A timer's deadline has come.
    pub fn due(&self, timer: Timer, now: u64) -> bool {
        self.deadlines[timer as usize] <= now
    }

    /// The slice that runs will be over by then, and deadlines looked at.
    pub fn set_slice_end(&mut self, end: u64) {
        self.slice_end = end;
    }

    /// Sets a timer's deadline. Gives true if it is now the first one, sooner than the one before,
    /// and comes before the slice's end.
    pub fn set(&mut self, timer: Timer, deadline: Option<u64>) -> bool {
        let deadline = deadline.unwrap_or(u64::MAX);
        let sooner = deadline < self.next;
        self.deadlines[timer as usize] = deadline;
        self.next = self.deadlines.into_iter().fold(u64::MAX, u64::min);
        sooner && deadline < self.slice_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_deadline_counts() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set_slice_end(150);
        assert!(!timers.set(Timer::Rtc, Some(200)));
        assert!(timers.set(Timer::Pit, Some(100)));
        assert_eq!(timers.next(), Some(100));
        assert!(timers.due(Timer::Pit, 100) && !timers.due(Timer::Rtc, 100));
        timers.set(Timer::Pit, None);
        assert_eq!(timers.next(), Some(200));
    }
}
