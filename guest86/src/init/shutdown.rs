//! The end of the system: programs first, then file systems, then the machine.

use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use rustix::system::{RebootCommand, reboot};

use super::{ERROR, End, mounts, say};
use crate::service::files::text;

/// How long programs may take to end when they are asked to, and when they are made to.
const GRACE: Duration = Duration::from_secs(5);
const LAST: Duration = Duration::from_secs(2);
/// Time between looks whether all have ended.
const LOOK: Duration = Duration::from_millis(20);

/// Ends all programs, these shells among them, writes all to the disks, and ends the machine.
pub fn shut_down(end: End, shells: &[Pid]) -> ! {
    signal_all(Signal::TERM);
    for shell in shells {
        // At a terminal they heed no SIGTERM. Others may be in the middle of what they do for one.
        let _ = kill_process(*shell, Signal::HUP);
    }
    // What is stopped heeds nothing until it goes on.
    signal_all(Signal::CONT);
    if !all_ended(GRACE) {
        signal_all(Signal::KILL);
        if !all_ended(LAST) {
            say(ERROR, "some processes cannot be ended, and what they write may be lost");
        }
    }
    rustix::fs::sync();
    mounts::leave();
    rustix::fs::sync();
    let command = match end {
        End::PowerOff => RebootCommand::PowerOff,
        End::Restart => RebootCommand::Restart,
        End::Halt => RebootCommand::Halt,
    };
    if let Err(error) = reboot(command) {
        say(ERROR, &format!("the machine does not end: {}", text(error)));
    }
    // A machine that has no power switch stays here.
    loop {
        thread::sleep(GRACE);
    }
}

/// Sends a signal to all processes but this one: the group of process 1 means that (kill(2), -1).
fn signal_all(signal: Signal) {
    // There may be no other.
    let _ = kill_process_group(Pid::INIT, signal);
}

/// Waits so long at most until no process is left, all of which are this one's in the end.
fn all_ended(limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Err(Errno::CHILD) => return true,
            Ok(None) | Err(_) if Instant::now() < end => thread::sleep(LOOK),
            Ok(None) | Err(_) => return false,
        }
    }
}
