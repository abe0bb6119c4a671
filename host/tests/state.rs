//! Saving and resuming with the command line, and what happens to the file when it goes wrong. The
//! guest is a ROM of some instructions that echoes what COM1 receives.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use env86_tests::bound_to_us;
use env86_tests::roms::{self, ECHO};
use tempfile::TempDir;

/// A guest that answers each byte with a random one.
const DICE: [u8; 25] = [
    0xba, 0xfc, 0x03, // 00 mov dx, 3FCh
    0xb0, 0x03, //       03 mov al, 3
    0xee, //             05 out dx, al
    0xba, 0xfd, 0x03, // 06 mov dx, 3FDh
    0xec, //             09 in al, dx
    0xa8, 0x01, //       0A test al, 1
    0x74, 0xf8, //       0C jz 06h
    0xba, 0xf8, 0x03, // 0E mov dx, 3F8h
    0xec, //             11 in al, dx
    0x0f, 0xc7, 0xf0, // 12 rdrand ax
    0xee, //             15 out dx, al
    0xeb, 0xee, //       16 jmp 06h
    0xf4, //             18 hlt
];

struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self::with(&ECHO)
    }

    fn with(code: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("rom"), roms::rom(code)).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let mut command = bound_to_us(env!("CARGO_BIN_EXE_env86"));
        command.args(["boot", "--no-console", "--ttyS0"]).args(args).current_dir(self.0.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Types this and waits for the end.
    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.spawn(args);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        let out = child.wait_with_output().unwrap();
        drop(stdin);
        out
    }

    fn start(&self, to: &str) {
        let out =
            self.run(&["--bios", "rom", "--memory", "2M", "--save-state", to, "--exit-on", "b2"], b"ab");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.stdout, b"a1b2");
    }

    /// Whether a state resumes with the guest's count at two.
    fn resumes(&self, from: &str) -> Result<(), String> {
        let out = self.run(&["--state", from, "--exit-on", "c3"], b"c");
        match out.status.success() && out.stdout == b"c3" {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()),
        }
    }
}

/// No temporary file is left.
fn tidy(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().contains(".new-"))
}

#[test]
fn a_machine_goes_on_where_it_was_saved() {
    let desk = Desk::new();
    for name in ["plain.state", "packed.state.zst"] {
        desk.start(name);
        desk.resumes(name).unwrap();
        assert!(tidy(desk.0.path()));
    }
    let packed = fs::metadata(desk.path("packed.state.zst")).unwrap().len();
    assert!(packed < fs::metadata(desk.path("plain.state")).unwrap().len() / 10);
}

/// `data/answers.state.zst` was saved by env86 as of commit 4f3fb52, when the state of the guest
/// `data/answers.s` was: 2 MiB of memory, `--acpi`, a virtio console, a blank hard disk of 1 MiB, and two bytes
/// answered. What follows the count is from eight of its devices and registers.
#[test]
fn what_an_older_env86_saved_resumes() {
    let state = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/answers.state.zst");
    let out = Desk::new().run(&["--state", state, "--exit-on", "c3PURVAM1X"], b"c");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.stdout, b"c3PURVAM1X");
}

#[test]
fn an_image_keeps_its_machine() {
    let desk = Desk::new();
    roms::make_image(&desk.path("image"), &roms::rom(&ECHO)).unwrap();
    assert_eq!(desk.run(&["./image", "--save", "--exit-on", "a1"], b"a").stdout, b"a1");
    assert!(desk.path("image/initial.state").exists());
    assert_eq!(desk.run(&["./image", "--exit-on", "b2"], b"b").stdout, b"b2");
    // Ctrl-D saves, too; and without --save nothing is.
    assert_eq!(desk.run(&["./image", "--exit-on", "x2"], b"x").stdout, b"x2");
    assert_eq!(desk.run(&["./image", "--cold", "--exit-on", "b1"], b"b").stdout, b"b1");
    // What is there compressed stays so.
    let packed = zstd::encode_all(&*fs::read(desk.path("image/initial.state")).unwrap(), 1).unwrap();
    fs::write(desk.path("image/initial.state.zst"), packed).unwrap();
    fs::remove_file(desk.path("image/initial.state")).unwrap();
    assert_eq!(desk.run(&["./image", "--save", "--exit-on", "b2"], b"b").stdout, b"b2");
    assert!(!desk.path("image/initial.state").exists());
    assert_eq!(desk.run(&["./image", "--exit-on", "c3"], b"c").stdout, b"c3");
}

#[test]
#[cfg(unix)]
fn a_signal_saves_the_machine() {
    use rustix::process::{Pid, Signal, kill_process};
    let desk = Desk::new();
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        desk.start("s");
        let mut child = desk.spawn(&["--state", "s", "--save-state", "s"]);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"x").unwrap();
        let mut answer = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!((child.wait().unwrap().code(), &answer), (Some(status), b"x3"));
        assert_eq!(desk.run(&["--state", "s", "--exit-on", "c4"], b"c").stdout, b"c4");
    }
}

#[test]
fn chance_is_fresh_after_a_restore() {
    let desk = Desk::with(&DICE);
    let throw = |args: &[&str]| {
        let mut child = desk.spawn(args);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&[b'?'; 16]).unwrap();
        let mut seen = [0; 16];
        child.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
        stdin.write_all(&[4]).unwrap();
        assert!(child.wait().unwrap().success());
        seen
    };
    throw(&["--bios", "rom", "--memory", "2M", "--save-state", "s"]);
    let (first, second) = (throw(&["--state", "s"]), throw(&["--state", "s"]));
    assert_ne!(first, second);
}

#[test]
fn an_archive_keeps_its_machine() {
    let desk = Desk::new();
    roms::make_image(&desk.path("image"), &roms::rom(&ECHO)).unwrap();
    let tar = |args: &[&str]| {
        let out = Command::new("tar").args(args).current_dir(desk.0.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    tar(&["-C", "image", "-czf", "image.tgz", "."]);
    for (typed, answer) in [("a", "a1"), ("b", "b2"), ("c", "c3")] {
        let out = desk.run(&["./image.tgz", "--save", "--exit-on", answer], typed.as_bytes());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.stdout == answer.as_bytes() && said.contains("saved in ./image.tgz"), "{said}");
    }
    assert_eq!(desk.run(&["./image.tgz", "--cold", "--exit-on", "b1"], b"b").stdout, b"b1");
    let names = tar(&["-tzf", "image.tgz"]);
    assert_eq!(names.lines().filter(|name| name.ends_with("initial.state")).count(), 1, "{names}");
    assert!(names.lines().any(|name| name == "./fs.json"), "{names}");
    assert!(tidy(desk.0.path()));
}

#[test]
fn a_damaged_state_is_refused_with_a_sentence() {
    let desk = Desk::new();
    desk.start("good");
    let good = fs::read(desk.path("good")).unwrap();
    type Harm = fn(&mut Vec<u8>);
    let damage: [(&str, Harm); 4] = [
        ("cut off", |bytes| bytes.truncate(bytes.len() / 2)),
        ("checksum", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("checksum", |bytes| bytes[200] ^= 4),
        ("no saved state", |bytes| bytes[0] = 0),
    ];
    for (word, harm) in damage {
        let mut bytes = good.clone();
        harm(&mut bytes);
        fs::write(desk.path("bad"), bytes).unwrap();
        let out = desk.run(&["--state", "bad"], b"");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(word) && said.contains("bad"), "{said}");
    }
}

/// `ENV86_KILLS` says how often.
#[test]
fn a_kill_at_any_moment_leaves_a_whole_state() {
    let kills = std::env::var("ENV86_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let desk = Desk::new();
    desk.start("s");
    let mut random = 88_172_645_463_325_252u64;
    for kill in 0..kills {
        let mut child = desk.spawn(&["--state", "s", "--save-state", "s"]);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&[4]).unwrap(); // Ctrl-D saves
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let start = Instant::now();
        let delay = Duration::from_micros(random % 60_000);
        while start.elapsed() < delay {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        let mut said = Vec::new();
        child.stderr.take().unwrap().read_to_end(&mut said).unwrap();
        child.wait().unwrap();
        desk.resumes("s").unwrap_or_else(|error| panic!("after kill {kill}: {error}"));
        if kill % 100 == 99 {
            println!("{} kills", kill + 1);
        }
    }
    // The next save sweeps up.
    desk.run(&["--state", "s", "--save-state", "s"], &[4]);
    assert!(tidy(desk.0.path()));
}
