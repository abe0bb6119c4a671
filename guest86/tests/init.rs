//! Process 1, in namespaces of its own: its processes, its name, its network and what it mounts are not this
//! machine's. The end of such a system is a signal that ends its process 1 (reboot(2)).

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

/// Makes a root file system that has this machine's programs and nothing else of it, and starts process 1 there.
/// Being root is being root of the namespaces: this machine's file systems cannot be remounted.
const SET_UP: &str = "
    set -e
    mount -t tmpfs root \"$1\" && cd \"$1\"
    mkdir usr dev proc sys tmp etc run
    mount --rbind /usr usr
    for folder in bin sbin lib lib64; do
        if [ -L /$folder ]; then cp -P /$folder .
        elif [ -d /$folder ]; then mkdir $folder && mount --rbind /$folder $folder
        fi
    done
    touch dev/null && mount --bind /dev/null dev/null
    echo box > etc/hostname
    cp \"$2\" guest86
    exec chroot . /guest86 init";
const NAMESPACES: [&str; 8] =
    ["--user", "--map-root-user", "--pid", "--fork", "--mount", "--uts", "--net", "--ipc"];
/// The signals that stand for its ends.
const RESTART: Option<i32> = Some(1);
const POWER_OFF: Option<i32> = Some(2);

/// Runs a system whose command is this script; `None` where no one may have namespaces.
fn system(name: &str, script: &str) -> Option<Output> {
    let able = Command::new("unshare").args(NAMESPACES).args(["mount", "-t", "tmpfs", "x", "/mnt"]).output();
    if !able.is_ok_and(|able| able.status.success()) {
        eprintln!("skipped: this machine lets no one have namespaces");
        return None;
    }
    let root = std::env::temp_dir().join(format!("guest86-init-{name}-{}", std::process::id()));
    fs::create_dir_all(&root).unwrap();
    let mut command = Command::new("unshare");
    command.args(NAMESPACES).args(["sh", "-c", SET_UP, "sh"]).arg(&root).arg(env!("CARGO_BIN_EXE_guest86"));
    let output = command.env("GUEST86_COMMAND", script).output().unwrap();
    fs::remove_dir(&root).unwrap();
    Some(output)
}

fn said(output: &Output) -> (&str, &str) {
    (std::str::from_utf8(&output.stdout).unwrap(), std::str::from_utf8(&output.stderr).unwrap())
}

#[test]
fn a_system_is_set_up_and_ends_with_its_command() {
    let script = "
        echo pid $PPID, name $(uname -n), home $HOME, shm $(stat -f -c %T /dev/shm), run $(stat -f -c %T /run)
        echo proc $(readlink /proc/self) is $$ | sed 's/[0-9][0-9]*/N/g'
        echo lo $(cat /sys/class/net/lo/operstate), fd $(readlink /dev/fd), \"${GUEST86_COMMAND-unset}\"
        # Whoever loses its parent is process 1's child, which takes its status.
        sh -c 'sleep 0.01 & echo $! > /tmp/orphan'
        while [ -d /proc/$(cat /tmp/orphan) ]; do sleep 0.05; done
        echo reaped
        exit 3";
    let Some(output) = system("command", script) else { return };
    let (out, err) = said(&output);
    let lines: Vec<&str> = out.lines().collect();
    let wanted = [
        "pid 1, name box, home /, shm tmpfs, run tmpfs",
        "proc N is N",
        "lo unknown, fd /proc/self/fd, unset",
        "reaped",
    ];
    assert_eq!(lines, wanted, "{err}");
    assert_eq!(output.status.signal(), POWER_OFF, "{err}");
}

#[test]
fn programs_are_asked_to_end_before_a_restart() {
    let script = "trap 'echo asked; exit' TERM; kill -TERM 1; while :; do sleep 0.05; done";
    let Some(output) = system("restart", script) else { return };
    assert_eq!((said(&output).0, output.status.signal()), ("asked\n", RESTART), "{output:?}");
}

#[test]
fn programs_that_do_not_end_are_made_to() {
    let script = "trap '' TERM HUP INT; kill -USR2 1; echo goes on; while :; do sleep 0.05; done";
    let Some(output) = system("kill", script) else { return };
    assert_eq!((said(&output).0, output.status.signal()), ("goes on\n", POWER_OFF), "{output:?}");
}

#[test]
fn only_process_1_is_init() {
    let output = Command::new(env!("CARGO_BIN_EXE_guest86")).arg("init").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("init=/sbin/guest86"));
}
