//! One machine that travels between env86 and the npm package v86, as states in a file.
//!
//! Needs Node, and from the environment: `ENV86_V86` (the package's folder, see tests/peers/v86),
//! `ENV86_PEER_KERNEL` and `ENV86_PEER_INITRD` (a Linux kernel, and a RAM disk whose /init starts a
//! shell on COM1 if the command line says `nobench`), `ENV86_PEER_BIOS` and `ENV86_PEER_VGABIOS`
//! (SeaBIOS). Without them there is nothing to test against, and the tests pass.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tempfile::TempDir;

const HOPS: usize = 10;
const CMDLINE: &str = "console=tty0 console=ttyS0 nobench tsc=reliable mitigations=off cryptomgr.notests";
/// The modules of the file system, in their order.
const MOUNT: &str = "for m in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci netfs fscache \
                     9pnet 9pnet_virtio 9p; do insmod /lib/modules/$m.ko; done; \
                     mount -t 9p -o trans=virtio,version=9p2000.L host9p /mnt; ";

struct Peer {
    dir: TempDir,
    v86: PathBuf,
    acpi: bool,
}

impl Peer {
    fn new(acpi: bool) -> Option<Self> {
        let Some(v86) = std::env::var_os("ENV86_V86") else {
            eprintln!("ENV86_V86 is not set: nothing to exchange states with");
            return None;
        };
        Some(Self { dir: tempfile::tempdir().unwrap(), v86: v86.into(), acpi })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs v86 to the end of `steps`; gives what COM1 has said.
    fn v86(&self, from: Option<&Path>, to: &Path, steps: serde_json::Value) -> String {
        let setting = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let plan = json!({
            "v86": self.v86,
            "bios": setting("ENV86_PEER_BIOS"),
            "vga_bios": setting("ENV86_PEER_VGABIOS"),
            "kernel": setting("ENV86_PEER_KERNEL"),
            "initrd": setting("ENV86_PEER_INITRD"),
            "cmdline": CMDLINE,
            "memory_mb": 128,
            "acpi": self.acpi,
            "state": from,
            "save": to,
            "steps": steps,
            "timeout_s": 300,
        });
        let path = self.path("plan.json");
        std::fs::write(&path, plan.to_string()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/v86/machine.mjs");
        let out = Command::new("node").arg(script).arg(path).output().unwrap();
        let (said, told) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "v86: {told}\n{said}");
        said.into_owned()
    }

    /// Runs env86 until COM1 has said `mark`.
    fn env86(&self, from: &Path, to: &Path, command: &str, mark: &str) -> String {
        let mut child = Command::new(env!("CARGO_BIN_EXE_env86"))
            .args(["boot", "--ttyS0", "--no-console", "--exit-on", mark, "--state"])
            .arg(from)
            .arg("--save-state")
            .arg(to)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(command.as_bytes()).unwrap();
        let mut said = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(out.status.success(), "env86: {}\n{said}", String::from_utf8_lossy(&out.stderr));
        said
    }
}

/// The lines that a command has printed between two marks.
fn lines<'a>(said: &'a str, hop: usize, part: &str) -> Vec<&'a str> {
    let (begin, end) = (format!("<{part}{hop}"), format!("{part}{hop}>"));
    let start = said.find(&begin).unwrap_or_else(|| panic!("no {begin} in {said}")) + begin.len();
    let length = said[start..].find(&end).unwrap_or_else(|| panic!("no {end} in {said}"));
    said[start..start + length].lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// Ticks of all timers.
fn ticks(lines: &[&str]) -> u64 {
    lines.iter().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

fn travels(acpi: bool) {
    let Some(peer) = Peer::new(acpi) else { return };
    // With ACPI, v86's Linux finds no PCI function but the bridges.
    let (mount, share) = if acpi { ("", "/tmp") } else { (MOUNT, "/mnt") };
    let load = format!(
        "(i=0; while :; do i=$((i+1)); echo $i >> {share}/log; md5sum /bin/busybox > /dev/null; done) &\n"
    );
    let mut state = peer.path("0.state");
    peer.v86(
        None,
        &state,
        json!([[null, "/ # "], [format!("{mount}n=0; echo RE\"\"ADY\n"), "READY"], [load, "/ # "],]),
    );
    let mut screen = String::new();
    for hop in 1..=HOPS {
        let command = format!(
            "n=$((n+1)); echo hop$n > {share}/hop$n; \
             echo \"<files$n\"; cat {share}/hop*; echo \"files$n>\"; \
             echo \"<before$n\"; md5sum < /dev/vcs; echo \"before$n>\"; echo line $n > /dev/tty0; \
             echo \"<after$n\"; md5sum < /dev/vcs; echo \"after$n>\"; \
             echo \"<rtc$n\"; cat /sys/class/rtc/rtc0/since_epoch; echo \"rtc$n>\"; \
             echo \"<ticks$n\"; grep -E 'timer|LOC' /proc/interrupts; echo \"ticks$n>\"; sleep 1; \
             echo \"<more$n\"; grep -E 'timer|LOC' /proc/interrupts; echo \"more$n>\"; \
             echo \"<log$n\"; mawk '$1!=NR{{print \"skip\",NR,$1}} END{{print NR>5}}' {share}/log; echo \"log$n>\"; \
             echo DONE\"\"$n.\n"
        );
        let (next, mark) = (peer.path(&format!("{hop}.state")), format!("DONE{hop}."));
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let said = match hop % 2 {
            1 => peer.env86(&state, &next, &command, &mark),
            _ => peer.v86(Some(&state), &next, json!([[command, mark]])),
        };
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut expected: Vec<_> = (1..=hop).map(|i| format!("hop{i}")).collect();
        expected.sort_by_key(|name| if name == "hop10" { "hop1~".into() } else { name.clone() });
        let mut files = lines(&said, hop, "files");
        files.sort_by_key(|name| if *name == "hop10" { "hop1~".to_owned() } else { (*name).to_owned() });
        assert_eq!(files, expected, "the files of hop {hop}");
        let seen = lines(&said, hop, "before").concat();
        assert!(screen.is_empty() || seen == screen, "the screen changed before hop {hop}");
        screen = lines(&said, hop, "after").concat();
        assert_ne!(screen, seen, "the screen does not change in hop {hop}");
        let rtc: u64 = lines(&said, hop, "rtc")[0].parse().unwrap();
        assert!(
            (before - 1..=after + 1).contains(&rtc),
            "RTC {rtc} in hop {hop}, and it was {before} to {after}"
        );
        let passed = ticks(&lines(&said, hop, "more")) - ticks(&lines(&said, hop, "ticks"));
        assert!((20..5000).contains(&passed), "{passed} timer ticks in a second of hop {hop}");
        assert_eq!(lines(&said, hop, "log"), ["1"], "the log in hop {hop}");
        std::fs::remove_file(&state).unwrap();
        state = next;
    }
}

#[test]
fn a_machine_travels_between_v86_and_env86() {
    travels(false);
}

#[test]
fn a_machine_with_acpi_travels_between_v86_and_env86() {
    travels(true);
}
