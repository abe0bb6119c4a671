//! What a guest's clocks show after a machine was away: the board's clock and, in the demo image, Linux's
//! are right again, while nothing that counts has jumped.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use env86_tests::{BOOT_LIMIT, Guest, Result, image};

const SHORT: Duration = Duration::from_secs(60);
/// How long the machine is away.
const AWAY: Duration = Duration::from_secs(20);

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn number(guest: &mut Guest, command: &str) -> Result<f64> {
    Ok(guest.run(command, SHORT)?.trim().parse().unwrap_or(f64::NAN))
}

/// How far at least a clock of the guest's is behind the host's, in seconds: it was read some time between
/// the question and the answer.
fn behind(guest: &mut Guest, command: &str) -> Result<f64> {
    let before = seconds_since_1970();
    let shown = number(guest, command)?;
    Ok(shown.clamp(before, seconds_since_1970()) - shown)
}

const RTC: &str = "cat /sys/class/rtc/rtc0/since_epoch";
const LINUX: &str = "date +%s.%N";
const UPTIME: &str = "cut -d ' ' -f 1 /proc/uptime";
const TICKS: &str = "awk '/timer|LOC/ { n += $2 } END { print n }' /proc/interrupts";

/// Boots, saves at the shell, waits, resumes.
fn goes_away(acpi: bool) -> Result<()> {
    let state: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{acpi}.state"));
    let path = state.display().to_string();
    let mut guest = Guest::shell(&image()?, [format!("--acpi={acpi}"), "--save-state".into(), path.clone()])?;
    let (uptime, ticks) = (number(&mut guest, UPTIME)?, number(&mut guest, TICKS)?);
    let seen = Instant::now();
    guest.line("\u{4}")?;
    guest.wait_for_end(BOOT_LIMIT)?;
    let awake = seen.elapsed();
    sleep(AWAY);

    let resumed = Instant::now();
    let mut guest = Guest::boot(&image()?, ["--state".to_owned(), path])?;
    let late = behind(&mut guest, RTC)?;
    // It shows whole seconds.
    assert!((-0.1..1.0).contains(&late), "the board's clock is {late:.3} s behind");
    let gone = number(&mut guest, UPTIME)? - uptime;
    let awake = (awake + resumed.elapsed()).as_secs_f64();
    assert!((0.0..awake + 0.1).contains(&gone), "{gone} s of guest time have passed in {awake} s");
    // The image's service looks every three seconds, and sets the clock when the next one begins.
    sleep(Duration::from_secs(6));
    let late = behind(&mut guest, LINUX)?;
    assert!(late.abs() < 1.0, "Linux's clock is {late:.3} s behind");
    let passed = number(&mut guest, TICKS)? - ticks;
    assert!((10.0..10_000.0).contains(&passed), "{passed} timer interrupts");
    let complaints = guest.run("dmesg | grep -E 'rcu.*stall|lockup|unstable|BUG' || true", SHORT)?;
    assert_eq!(complaints, "");
    drop(guest);
    Ok(fs::remove_file(state)?)
}

#[test]
fn clocks_are_right_after_a_restore() -> Result<()> {
    goes_away(false)
}

#[test]
fn clocks_are_right_after_a_restore_with_acpi() -> Result<()> {
    goes_away(true)
}
