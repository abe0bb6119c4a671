//! COM1 at standard input and output, with a guest of 16 instructions: a ROM that says hello, then
//! echoes what it receives until `q`, which it answers with 42 at port F4h.

#![cfg(unix)]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use env86_tests::{bound_to_us, roms};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tempfile::TempDir;

const HELLO: &str = "hello, world\r\n";

/// The guest, at F000:0000.
const CODE: [u8; 0x2f] = [
    0xba, 0xfc, 0x03, // 00 mov dx, 3FCh          modem control:
    0xb0, 0x03, //       03 mov al, 3             DTR and RTS, ready to receive
    0xee, //             05 out dx, al
    0xba, 0xf8, 0x03, // 06 mov dx, 3F8h
    0xbe, 0x2f, 0x00, // 09 mov si, 2Fh
    0x2e, 0xac, //       0C lods byte [cs:si]
    0x84, 0xc0, //       0E test al, al
    0x74, 0x03, //       10 jz 15h
    0xee, //             12 out dx, al
    0xeb, 0xf7, //       13 jmp 0Ch
    0xba, 0xfd, 0x03, // 15 mov dx, 3FDh          line status:
    0xec, //             18 in al, dx
    0xa8, 0x01, //       19 test al, 1            data ready?
    0x74, 0xf8, //       1B jz 15h
    0xba, 0xf8, 0x03, // 1D mov dx, 3F8h
    0xec, //             20 in al, dx
    0x3c, b'q', //       21 cmp al, 'q'
    0x74, 0x03, //       23 jz 28h
    0xee, //             25 out dx, al
    0xeb, 0xed, //       26 jmp 15h
    0xb0, 0x2a, //       28 mov al, 42
    0xe6, 0xf4, //       2A out F4h, al
    0xf4, //             2C hlt
    0xeb, 0xfd, //       2D jmp 2Ch
];

/// A directory with the ROM, which goes away with it.
struct Rom(TempDir);

impl Rom {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rom = roms::rom(&[&CODE[..], HELLO.as_bytes()].concat());
        fs::write(dir.path().join("rom"), rom).unwrap();
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("rom")
    }

    fn boot(&self, args: &[&str]) -> Command {
        let mut command = bound_to_us(env!("CARGO_BIN_EXE_env86"));
        command.args(["boot", "--no-console", "-memory", "2M", "--bios"]).arg(self.path()).args(args);
        command
    }

    /// Runs to the end with this on standard input.
    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.boot(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let out = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        out
    }
}

#[test]
fn piped_input_reaches_the_guest_without_loss() {
    let rom = Rom::new();
    let text: Vec<u8> = (0..20_000).map(|i| b'0' + (i % 10) as u8).collect();
    let out = rom.run(&["-ttyS0", "-debug-exit", "0xf4"], &[&text[..], b"q"].concat());
    assert_eq!(out.status.code(), Some(42), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.stdout, [HELLO.as_bytes(), &text].concat());
}

#[test]
fn the_end_of_piped_input_is_not_the_end_of_the_machine() {
    let rom = Rom::new();
    let out = rom.run(&["-ttyS0", "-exit-on", "echo me"], b"please echo me");
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(out.stdout, [HELLO, "please echo me"].concat().as_bytes());
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "\r\nExit pattern detected. Exiting...\r\n");
}

#[test]
fn what_was_sent_behind_the_exit_pattern_is_shown() {
    // The greeting goes out in one run of the machine.
    let out = Rom::new().run(&["-ttyS0", "-exit-on", "hello"], b"");
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(out.stdout, HELLO.as_bytes());
}

#[test]
fn the_debug_ports_go_where_they_are_sent() {
    let rom = Rom::new();
    let mut bytes = fs::read(rom.path()).unwrap();
    // mov al, 'd'; out E9h, al; mov dx, 402h; out dx, al; mov al, 7; out F4h, al
    bytes[..11].copy_from_slice(&[0xb0, b'd', 0xe6, 0xe9, 0xba, 0x02, 0x04, 0xee, 0xb0, 0x07, 0xe6]);
    bytes[11] = 0xf4;
    fs::write(rom.path(), bytes).unwrap();
    let file = rom.0.path().join("debug");
    let boot = |to: &str| rom.run(&["-debug-exit", "0xf4", "--debug-console", to], b"");
    let out = boot(file.to_str().unwrap());
    assert_eq!((out.status.code(), &fs::read(&file).unwrap()[..]), (Some(7), &b"dd"[..]));
    let out = boot("-");
    assert_eq!((out.status.code(), &out.stdout[..]), (Some(7), &b"dd"[..]));
    let out = boot("/no/such/folder/file");
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8(out.stderr).unwrap().contains("/no/such/folder/file"));
}

#[test]
fn the_exit_pattern_works_without_showing_the_line() {
    let rom = Rom::new();
    let out = rom.run(&["-exit-on", "world"], b"");
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stdout.is_empty());
}

#[test]
fn ctrl_d_in_piped_input_ends_the_machine() {
    let rom = Rom::new();
    let out = rom.run(&["-ttyS0"], b"\x04");
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "\r\nCtrl-D detected. Exiting...\r\n");
}

#[test]
fn a_guest_that_halts_for_good_ends_the_machine() {
    // Without a debug exit port the guest goes on to its HLT; interrupts are disabled after a reset.
    let out = Rom::new().run(&["-ttyS0"], b"q");
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(out.stdout, HELLO.as_bytes());
}

#[test]
fn figures_are_printed_at_the_end() {
    let out = Rom::new().run(&["-ttyS0", "--stats", "-debug-exit=244"], b"q");
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(text.contains("instructions") && text.contains("guest MIPS"), "{text}");
}

#[test]
fn output_that_nobody_reads_ends_the_machine() {
    let rom = Rom::new();
    let endless = fs::File::open("/dev/zero").unwrap();
    let mut child =
        rom.boot(&["-ttyS0"]).stdin(endless).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8(out.stderr).unwrap().starts_with("env86: Cannot write the guest's output: "));
}

#[test]
fn a_triple_fault_is_an_error_where_the_machine_must_not_restart() {
    let rom = Rom::new();
    let mut bytes = fs::read(rom.path()).unwrap();
    // lidt [cs:20h], where a limit of 0 lies, and int3
    bytes[..7].copy_from_slice(&[0x2e, 0x0f, 0x01, 0x1e, 0x20, 0x00, 0xcc]);
    bytes[0x20..0x26].fill(0);
    fs::write(rom.path(), bytes).unwrap();
    let out = rom.run(&["-ttyS0", "-no-reboot"], b"");
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8(out.stderr).unwrap().contains("triple fault"));
}

/// A terminal, and the program on it.
struct Session {
    master: fs::File,
    slave: fs::File,
    before: Termios,
    child: Child,
    /// Keeps the guest.
    _dir: TempDir,
}

impl Session {
    fn start() -> Self {
        let rom = Rom::new();
        Self::of(rom.boot(&["-ttyS0"]), rom.0)
    }

    /// A machine whose screen is the terminal, and which shows its keys.
    fn at_screen() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("keys");
        fs::write(&kernel, roms::multiboot(&roms::SHOW_KEYS)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_env86"));
        command.args(["boot", "--tty", "--memory", "4M", "--kernel"]).arg(kernel);
        Self::of(command, dir)
    }

    fn of(mut command: Command, dir: TempDir) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = fs::File::options().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        // A setting of the user's own, to see that it comes back.
        let mut before = tcgetattr(&slave).unwrap();
        before.local_modes.remove(LocalModes::ECHOCTL);
        tcsetattr(&slave, OptionalActions::Now, &before).unwrap();
        before = tcgetattr(&slave).unwrap();
        let end = || Stdio::from(OwnedFd::from(slave.try_clone().unwrap()));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let master = fs::File::from(master);
        Self { master, slave, before, child, _dir: dir }
    }

    /// Reads what comes out of the terminal until it has this text.
    fn expect(&mut self, text: &str) {
        const LIMIT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut seen = Vec::new();
        let mut chunk = [0; 256];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let comes = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&LIMIT)).unwrap();
            let said = String::from_utf8_lossy(&seen);
            assert!(comes > 0, "no {text:?} after {said:?}; the program: {:?}", self.child.try_wait());
            let len = self.master.read(&mut chunk).unwrap();
            seen.extend(&chunk[..len]);
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits for the end and checks that the terminal is as it was.
    fn ends_with(mut self, status: i32) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let code = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status.code(),
                None if Instant::now() > deadline => panic!("the program does not end"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert_eq!(code, Some(status));
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ctrl_d_at_a_terminal_ends_the_machine_and_gives_it_back() {
    let mut session = Session::start();
    session.expect(HELLO);
    assert!(session.is_raw());
    session.master.write_all(b"typed").unwrap();
    session.expect("typed");
    session.master.write_all(b"\x04").unwrap();
    session.expect("Ctrl-D detected. Exiting...");
    session.ends_with(0);
}

#[test]
fn signals_give_the_terminal_back() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let mut session = Session::start();
        session.expect(HELLO);
        kill_process(Pid::from_child(&session.child), signal).unwrap();
        session.ends_with(status);
    }
}

#[test]
fn the_screen_is_in_the_terminal() {
    const LEAVES: &str = "\x1b[?1049l";
    let mut session = Session::at_screen();
    session.expect("\x1b[?1049h");
    // What the keys show, the release of the one before it: the cells that have changed are drawn.
    session.master.write_all(b"a").unwrap();
    session.expect("┴");
    session.master.write_all(b"\x1bOP").unwrap(); // F1 is 3Bh
    session.expect("^");
    assert!(session.is_raw());
    tcsetwinsize(&session.slave, Winsize { ws_row: 10, ws_col: 40, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    kill_process(Pid::from_child(&session.child), Signal::WINCH).unwrap();
    session.expect("A┴^");
    // Ctrl-] tells of its keys, of which `q` leaves.
    session.master.write_all(b"\x1d").unwrap();
    session.expect("ends");
    session.master.write_all(b"q").unwrap();
    session.expect(LEAVES);
    session.ends_with(0);

    let mut session = Session::at_screen();
    session.expect("\x1b[?1049h");
    kill_process(Pid::from_child(&session.child), Signal::TERM).unwrap();
    session.expect(LEAVES);
    session.ends_with(143);
}
