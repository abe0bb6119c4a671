//! Process 1 of a system that has no init of its own: a container's file system, or an initramfs.
//!
//! It starts programs, starts some of them again, takes the statuses of all that end, and shuts the system down. All
//! that may have to wait is done by others: the service and the devices have a process each, which is this program.
//! If process 1 ended, the kernel would stop.

pub mod modules;
mod mounts;
mod shutdown;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use rustix::system::{RebootCommand, reboot, sethostname};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};

use crate::service::link::Link;
use crate::service::process::{PATH, prepare};
use crate::service::user::{self, User};
use crate::service::{files::text, system};

/// What this program is called with to look after the devices.
pub const DEVICES: &str = "devices";
/// The program itself, as a process sees it.
const SELF: &str = "/proc/self/exe";
/// A variable of the environment, into which the kernel puts what its command line says of it: what is run at the
/// console instead of shells.
const COMMAND: &str = "GUEST86_COMMAND";
const SHELL: &str = "/bin/sh";
/// What the system is called that has no name.
const NAME: &str = "localhost";
const CONSOLE: &str = "/dev/console";
/// The signal of failing power, which `signal-hook` has no name for (signal(7)).
const SIGPWR: i32 = 30;
/// The seriousness of what is said, as the kernel numbers it. A quiet kernel shows errors alone.
pub const ERROR: u32 = 3;
pub const WARNING: u32 = 4;
/// A program that lived shorter is not started again at once, but after this time, which doubles up to the last.
const SHORT_LIFE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Events of keys and of the power button among them (linux/input-event-codes.h), and what the driver calls it.
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const POWER_BUTTON: &str = "Power Button";

/// Says something where the kernel says what it does.
pub fn say(level: u32, what: &str) {
    let line = format!("<{level}>guest86: {}\n", what.replace('\n', " "));
    let said =
        OpenOptions::new().write(true).open("/dev/kmsg").and_then(|mut file| file.write_all(line.as_bytes()));
    if said.is_err() {
        // Without one there is no place to say that, either.
        let _ = writeln!(io::stderr(), "guest86: {what}");
    }
}

/// Is process 1, for ever.
pub fn run() -> ! {
    panic::set_hook(Box::new(|info| {
        say(ERROR, &format!("process 1 has failed, and only what runs goes on: {info}"));
        // What has been started is served on.
        loop {
            if wait(WaitOptions::empty()).is_err() {
                thread::sleep(SHORT_LIFE);
            }
        }
    }));
    let signals = Signals::new();
    mounts::mount_missing();
    name_system();
    if let Err(error) = Link::new("lo").and_then(|link| link.up()) {
        say(WARNING, &format!("there is no loopback interface: {}", text(error)));
    }
    // Else the kernel restarts the machine without a word to process 1. Where that is not this one's affair, it says so.
    let _ = reboot(RebootCommand::CadOff);
    let (end, shells) = match &signals {
        Ok(signals) => Init::new(signals).run(),
        Err(error) => {
            say(ERROR, &format!("cannot listen to signals: {}", text(io::Error::from(error.kind()))));
            let none = Signals::none();
            Init::new(&none).run()
        }
    };
    shutdown::shut_down(end, &shells)
}

/// Loads what drivers there are, and sets up the network of the cards: what the process does that looks after the
/// devices.
pub fn devices() {
    modules::load_all();
    if let Err(error) = system::start_network() {
        say(WARNING, &format!("the network is not set up: {error}"));
    }
}

fn name_system() {
    let own = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = own.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    if let Err(error) = sethostname(name.unwrap_or(NAME).as_bytes()) {
        say(WARNING, &format!("the system gets no name: {}", text(error)));
    }
}

/// How the system ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    PowerOff,
    Restart,
    Halt,
}

/// The signals that process 1 heeds, as busybox's init does, whose `poweroff`, `reboot` and `halt` send them. Ctrl-Alt-Del
/// is the kernel's SIGINT.
const ENDS: [(i32, End); 5] = [
    (SIGTERM, End::Restart),
    (SIGINT, End::Restart),
    (SIGUSR1, End::Halt),
    (SIGUSR2, End::PowerOff),
    (SIGPWR, End::PowerOff),
];

/// Signals that have come.
struct Signals {
    /// Readable when one may have come; not there if signals cannot be listened to.
    wake: Option<PipeReader>,
    came: Vec<(Arc<AtomicBool>, End)>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (wake, write) = io::pipe()?;
        rustix::io::ioctl_fionbio(&wake, true)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        let mut came = Vec::new();
        for (signal, end) in ENDS {
            let seen = Arc::new(AtomicBool::new(false));
            flag::register(signal, Arc::clone(&seen))?;
            low_level::pipe::register(signal, OwnedFd::from(write.try_clone()?))?;
            came.push((seen, end));
        }
        low_level::pipe::register(SIGCHLD, OwnedFd::from(write))?;
        Ok(Self { wake: Some(wake), came })
    }

    fn none() -> Self {
        Self { wake: None, came: Vec::new() }
    }

    /// The end that a signal has asked for.
    fn end(&self) -> Option<End> {
        if let Some(mut wake) = self.wake.as_ref() {
            while matches!(wake.read(&mut [0; 64]), Ok(64)) {}
        }
        self.came.iter().find(|(seen, _)| seen.load(Ordering::Relaxed)).map(|(_, end)| *end)
    }
}

/// What is started.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Service,
    Devices,
    /// A shell at this terminal.
    Shell(PathBuf),
    /// What the kernel's command line names, after whose end the system ends.
    Command(String),
}

impl What {
    fn shown(&self) -> String {
        match self {
            Self::Service => "the service".into(),
            Self::Devices => "the process for the devices".into(),
            Self::Shell(device) => format!("a shell at {}", device.display()),
            Self::Command(command) => format!("`{command}`"),
        }
    }

    fn start(&self) -> io::Result<Pid> {
        let user = user::find(None).map_err(io::Error::other)?;
        let mut command = match self {
            Self::Service => this_program(None),
            Self::Devices => this_program(Some(DEVICES)),
            Self::Shell(device) => shell(&user, device)?,
            Self::Command(line) => configured(line),
        };
        if let Self::Command(_) | Self::Shell(_) = self {
            let home = Path::new(&user.home);
            command.envs(user.environment()).current_dir(if home.is_dir() { home } else { Path::new("/") });
            command.env_remove(COMMAND);
        }
        // What there may be is an initramfs's.
        command.env("PATH", PATH);
        let child = command.spawn()?;
        i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn this_program(word: Option<&str>) -> Command {
    // By its path, after which the process is called.
    let own = env::current_exe().ok().filter(|path| path.exists());
    let mut command = Command::new(own.as_deref().unwrap_or(Path::new(SELF)));
    command.arg0("guest86").args(word).stdin(Stdio::null());
    command
}

/// The user's shell at a terminal, as a login has it.
fn shell(user: &User, device: &Path) -> io::Result<Command> {
    let terminal = open_terminal(device)?;
    let program = if Path::new(&user.shell).exists() { &*user.shell } else { SHELL };
    let mut command = Command::new(program);
    let name = program.rsplit('/').next().unwrap_or(program);
    command.arg0(format!("-{name}"));
    let is_screen = device.file_name().is_some_and(|name| {
        let number = name.to_string_lossy();
        number.strip_prefix("tty").is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
    });
    command.env("TERM", if is_screen { "linux" } else { "vt220" });
    at_terminal(&mut command, terminal)?;
    Ok(command)
}

/// The command that is run at the console: by a shell, or word by word where there is none.
fn configured(line: &str) -> Command {
    let mut command = if Path::new(SHELL).exists() {
        let mut command = Command::new(SHELL);
        command.args(["-c", line]);
        command
    } else {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    };
    // Without one, it has what process 1 has.
    if open_terminal(Path::new(CONSOLE)).and_then(|terminal| at_terminal(&mut command, terminal)).is_err() {
        prepare(&mut command, None, false);
    }
    command
}

fn open_terminal(device: &Path) -> io::Result<File> {
    let flags = OFlags::NOCTTY.bits() as i32;
    let terminal = OpenOptions::new().read(true).write(true).custom_flags(flags).open(device)?;
    if rustix::termios::isatty(&terminal) { Ok(terminal) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn at_terminal(command: &mut Command, terminal: File) -> io::Result<()> {
    command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
    prepare(command, None, true);
    Ok(())
}

/// The terminals that the kernel was told to say things at: each gets a shell.
fn consoles() -> Vec<PathBuf> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let named = active.split_whitespace().map(|name| Path::new("/dev").join(name));
    let mut consoles: Vec<PathBuf> = named.filter(|device| device.exists()).collect();
    if consoles.is_empty() && Path::new(CONSOLE).exists() {
        consoles.push(CONSOLE.into());
    }
    consoles
}

/// A program that process 1 has started, or is to start.
struct Program {
    what: What,
    pid: Option<Pid>,
    /// When it was started, or is to be.
    when: Option<Instant>,
    pause: Duration,
}

impl Program {
    fn new(what: What) -> Self {
        Self { what, pid: None, when: Some(Instant::now()), pause: Duration::ZERO }
    }

    /// When it has to be started.
    fn due(&self) -> Option<Instant> {
        self.when.filter(|_| self.pid.is_none())
    }

    /// It has ended, or could not be started: it will be started after a pause that is the longer the shorter it lives.
    fn ended(&mut self, now: Instant) {
        let lived = self.when.map_or(Duration::ZERO, |when| now.saturating_duration_since(when));
        self.pause = match lived < SHORT_LIFE {
            true => (self.pause * 2).clamp(SHORT_LIFE, LONGEST_PAUSE),
            false => Duration::ZERO,
        };
        (self.pid, self.when) = (None, Some(now + self.pause));
    }
}

/// Process 1.
struct Init<'a> {
    signals: &'a Signals,
    programs: Vec<Program>,
    buttons: Vec<File>,
}

impl<'a> Init<'a> {
    fn new(signals: &'a Signals) -> Self {
        let mut programs = vec![Program::new(What::Service), Program::new(What::Devices)];
        match env::var(COMMAND) {
            Ok(command) if !command.trim().is_empty() => programs.push(Program::new(What::Command(command))),
            _ => programs.extend(consoles().into_iter().map(|device| Program::new(What::Shell(device)))),
        }
        Self { signals, programs, buttons: Vec::new() }
    }

    /// Runs the system until something asks for its end. Gives the shells that run, too.
    fn run(mut self) -> (End, Vec<Pid>) {
        let end = loop {
            self.start();
            if let Some(end) = self.reap().or_else(|| self.signals.end()) {
                break end;
            }
            if self.wait() {
                break End::PowerOff;
            }
        };
        let shells = self.programs.iter().filter(|program| matches!(program.what, What::Shell(_)));
        (end, shells.filter_map(|program| program.pid).collect())
    }

    /// Starts what is due.
    fn start(&mut self) {
        let now = Instant::now();
        for program in &mut self.programs {
            if program.due().is_none_or(|when| when > now) {
                continue;
            }
            program.when = Some(now);
            match program.what.start() {
                Ok(pid) => program.pid = Some(pid),
                Err(error) => {
                    say(ERROR, &format!("cannot start {}: {}", program.what.shown(), text(error)));
                    match program.what {
                        // It may be a program that is only missing for a while.
                        What::Service | What::Shell(_) => program.ended(now),
                        What::Devices | What::Command(_) => program.when = None,
                    }
                }
            }
        }
    }

    /// Takes the statuses of all processes that have ended, and says whether the system is to end.
    fn reap(&mut self) -> Option<End> {
        let mut end = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(program) = self.programs.iter_mut().find(|program| program.pid == Some(pid)) else {
                continue;
            };
            match &program.what {
                What::Service | What::Shell(_) => program.ended(Instant::now()),
                What::Devices => {
                    (program.pid, program.when) = (None, None);
                    self.buttons = buttons();
                }
                What::Command(command) => {
                    say(WARNING, &format!("`{command}` has ended{}", how(status)));
                    (program.pid, program.when) = (None, None);
                    end = Some(End::PowerOff);
                }
            }
        }
        end
    }

    /// Waits until there is something to do; says whether the power button was pressed.
    fn wait(&mut self) -> bool {
        let mut fds: Vec<PollFd> = self.buttons.iter().map(|file| PollFd::new(file, PollFlags::IN)).collect();
        let wake = self.signals.wake.as_ref();
        fds.extend(wake.map(|wake| PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN)));
        let due = self.programs.iter().filter_map(Program::due).min();
        let mut timeout =
            due.map(|due| due.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        if wake.is_none() {
            // Nothing tells of processes that end.
            timeout = Some(timeout.unwrap_or(SHORT_LIFE).min(SHORT_LIFE));
        }
        let limit =
            timeout.map(|time| Timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ });
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return false,
            // It would be the same the next time.
            Err(_) => thread::sleep(SHORT_LIFE),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut pressed = false;
        let mut ready = ready.into_iter();
        self.buttons.retain_mut(|button| {
            if ready.next() != Some(true) {
                return true;
            }
            let mut events = [0; 64 * EVENT];
            let len = button.read(&mut events);
            pressed |= len.as_ref().is_ok_and(|len| has_press(&events[..*len]));
            // One that is gone is ready for ever.
            len.is_ok()
        });
        pressed
    }
}

/// How a process has ended, if not well.
fn how(status: WaitStatus) -> String {
    match (status.terminating_signal(), status.exit_status()) {
        (Some(signal), _) => format!(" by signal {signal}"),
        (None, None | Some(0)) => String::new(),
        (None, Some(status)) => format!(" with status {status}"),
    }
}

/// Bytes of an event: seconds and microseconds, as large as an address, then type, code and value.
const EVENT: usize = 2 * size_of::<usize>() + 8;

/// A press of the power button is among these events.
fn has_press(events: &[u8]) -> bool {
    let number = |bytes: &[u8]| u16::from_ne_bytes([bytes[0], bytes[1]]);
    events.chunks_exact(EVENT).any(|event| {
        let event = &event[EVENT - 8..];
        number(event) == EV_KEY && number(&event[2..]) == KEY_POWER && event[4..] == 1_i32.to_ne_bytes()
    })
}

/// The power buttons that there are.
fn buttons() -> Vec<File> {
    let entries = fs::read_dir("/sys/class/input").into_iter().flatten().flatten();
    let is_button = |path: &PathBuf| {
        fs::read_to_string(path.join("device/name")).is_ok_and(|name| name.trim() == POWER_BUTTON)
    };
    let named = entries.map(|entry| entry.path()).filter(is_button);
    let device = |path: PathBuf| Some(Path::new("/dev/input").join(path.file_name()?));
    let open =
        |path: PathBuf| OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path);
    named.filter_map(device).filter_map(|path| open(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_is_started_later_and_later() {
        let mut program = Program::new(What::Service);
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for lives in [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0] {
            program.when = Some(now);
            program.pid = Some(Pid::INIT);
            assert_eq!(program.due(), None);
            now += Duration::from_secs(lives);
            program.ended(now);
            pauses.push(program.due().unwrap().saturating_duration_since(now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_press_of_the_power_button_is_known() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = vec![7; EVENT - 8];
            bytes.extend(kind.to_ne_bytes().into_iter().chain(code.to_ne_bytes()));
            bytes.extend(value.to_ne_bytes());
            bytes
        };
        let pressed = event(EV_KEY, KEY_POWER, 1);
        assert!(has_press(&pressed) && has_press(&[event(0, 0, 0), pressed.clone()].concat()));
        for others in [event(EV_KEY, KEY_POWER, 0), event(EV_KEY, 30, 1), event(0, KEY_POWER, 1)] {
            assert!(!has_press(&others));
        }
        assert!(!has_press(&pressed[..EVENT - 1]) && !has_press(&[]));
    }
}
