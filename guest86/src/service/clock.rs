//! Linux's clock in a machine that was saved and resumed.
//!
//! The kernel's clocks run on a counter that goes on where it stopped, so they are behind by the time that the machine was
//! away; the board's real-time clock is right. A host that speaks to this service tells it the time. Where there is none,
//! as in a page, this thread sees the difference between the two grow, and sets the clock. A clock that somebody has set
//! to another time on purpose stays so: it is the monotonic clock that is compared, which nobody sets.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Seconds since 1970, by the real-time clock.
const RTC: &str = "/sys/class/rtc/rtc0/since_epoch";
/// Time between looks. Each wakes a guest that would sleep else.
const LOOK: Duration = Duration::from_secs(3);
/// Time between looks for the moment at which a second of the real-time clock begins.
const SECOND_BEGINS: Duration = Duration::from_millis(10);
/// Looks for it, at most.
const LOOKS: usize = 300;
/// A larger difference, in seconds, is a pause: both clocks are read in whole seconds.
const APART: i64 = 1;

/// Looks after the clock for as long as there is a real-time clock.
pub fn keep() {
    let Some(mut before) = ahead(ClockId::Monotonic) else { return };
    loop {
        thread::sleep(LOOK);
        let Some(now) = ahead(ClockId::Monotonic) else { return };
        if (now - before).abs() > APART && ahead(ClockId::Realtime).is_some_and(|ahead| ahead.abs() > APART) {
            set();
        }
        before = now;
    }
}

/// By how many seconds the real-time clock is ahead of another.
fn ahead(clock: ClockId) -> Option<i64> {
    Some(rtc()? - clock_gettime(clock).tv_sec)
}

fn rtc() -> Option<i64> {
    fs::read_to_string(RTC).ok()?.trim().parse().ok()
}

/// Sets Linux's clock when a second begins.
fn set() {
    let first = rtc();
    let begins = (0..LOOKS).find_map(|_| {
        thread::sleep(SECOND_BEGINS);
        rtc().filter(|now| Some(*now) != first)
    });
    if let Some(seconds) = begins {
        // A service that is not root's cannot.
        let _ = clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: 0 });
    }
}
