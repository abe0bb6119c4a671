//! The times at which devices must be looked at.

use super::rows::Row;

/// The deadline of each device and the first of them. All times are guest time in ns; `u64::MAX` is
/// never.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    deadlines: [u64; Row::ALL.len()],
    next: u64,
    slice_end: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { deadlines: [u64::MAX; Row::ALL.len()], next: u64::MAX, slice_end: u64::MAX }
    }
}

impl Timers {
    /// The first deadline.
    pub fn next(&self) -> Option<u64> {
        (self.next != u64::MAX).then_some(self.next)
    }

    /// Some deadline has come.
    #[inline]
    pub fn any_due(&self, now: u64) -> bool {
        self.next <= now && self.next != u64::MAX
    }

    /// A device's deadline has come.
    pub fn due(&self, row: Row, now: u64) -> bool {
        self.deadlines[row as usize] <= now
    }

    /// The slice that runs will be over by then, and deadlines looked at.
    pub fn set_slice_end(&mut self, end: u64) {
        self.slice_end = end;
    }

    /// Sets a device's deadline. Gives true if it is now the first one, sooner than the one before,
    /// and comes before the slice's end.
    #[inline]
    pub fn set(&mut self, row: Row, deadline: Option<u64>) -> bool {
        let deadline = deadline.unwrap_or(u64::MAX);
        let before = std::mem::replace(&mut self.deadlines[row as usize], deadline);
        if deadline < self.next {
            self.next = deadline;
            return deadline < self.slice_end;
        }
        if before == self.next && deadline != before {
            self.next = self.deadlines.into_iter().fold(u64::MAX, u64::min);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_deadline_counts() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        assert!(!timers.any_due(u64::MAX));
        timers.set_slice_end(150);
        assert!(!timers.set(Row::rtc, Some(200)));
        assert!(timers.set(Row::pit, Some(100)));
        assert_eq!(timers.next(), Some(100));
        assert!(timers.due(Row::pit, 100) && !timers.due(Row::rtc, 100));
        assert!(timers.any_due(100) && !timers.any_due(99));
        timers.set(Row::pit, None);
        assert_eq!(timers.next(), Some(200));
        timers.set(Row::rtc, Some(300));
        assert_eq!(timers.next(), Some(300));
    }
}
