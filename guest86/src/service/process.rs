//! Processes: each in a session of its own, with three pipes or a terminal.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;

use guest86::call::{self, Exec, Run, Size};
use rustix::process::{Pid, Signal, WaitStatus, ioctl_tiocsctty, kill_process, kill_process_group, setsid};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::tcsetwinsize;

use super::files::text;
use super::stream::{Kind, Stream, winsize};
use super::user::{self, User};

/// Where programs are looked for if nothing else is said.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The highest number of a signal on Linux.
const LAST_SIGNAL: i32 = 64;
/// The kind of terminal if nothing else is said.
const TERM: &str = "linux";

/// The environment of a program.
type Environment = BTreeMap<String, String>;

/// What is to be started.
struct Program<'a> {
    name: &'a str,
    args: &'a [String],
    env: Environment,
    dir: Option<&'a Path>,
    user: Option<User>,
    /// It has a terminal, of this size if that is known.
    terminal: Option<Option<Size>>,
}

/// A program as the Go service starts it.
pub fn run(run: &Run) -> Result<(u32, Stream), String> {
    let env = match &run.env {
        Some(list) => list.iter().map(|word| pair(word)).collect(),
        None => own_environment(),
    };
    let args = run.args.as_deref().unwrap_or_default();
    let dir = (!run.dir.is_empty()).then(|| Path::new(run.dir.as_str()));
    let terminal = run.pty.then_some(None);
    start(Kind::Run, &Program { name: &run.name, args, env, dir, user: None, terminal })
}

/// A program as this project's hosts start it.
pub fn exec(exec: &Exec) -> Result<(u32, Stream), String> {
    let user = user::find(exec.user.as_deref())?;
    let mut env = Environment::new();
    if !exec.env_clear {
        env.extend(own_environment());
        env.extend(user.environment());
        env.entry("PATH".into()).or_insert_with(|| PATH.into());
        if exec.terminal.is_some() {
            env.insert("TERM".into(), TERM.into());
        }
    }
    env.extend(exec.env.iter().cloned());
    let home = Path::new(&user.home);
    let home = if home.is_dir() { home } else { Path::new("/") };
    let dir = exec.dir.as_deref().map_or(home, Path::new);
    let switches = exec.user.is_some();
    let program = Program {
        name: &exec.program,
        args: &exec.args,
        env,
        dir: Some(dir),
        user: switches.then(|| user.clone()),
        terminal: exec.terminal.map(Some),
    };
    start(Kind::Exec, &program)
}

/// A shell at a terminal.
pub fn terminal() -> Result<Stream, String> {
    let env = own_environment();
    let program = Program { name: "/bin/sh", args: &[], env, dir: None, user: None, terminal: Some(None) };
    start(Kind::Terminal, &program).map(|(_, stream)| stream)
}

/// The service's own environment, as far as it is text.
fn own_environment() -> Environment {
    env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// `key=value`
fn pair(word: &str) -> (String, String) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    (key.into(), value.into())
}

/// The path of a program: as it is given, or from PATH.
fn find(program: &Program) -> Result<String, String> {
    if program.name.contains('/') {
        return Ok(program.name.into());
    }
    let own = env::var("PATH").ok();
    let path = program.env.get("PATH").or(own.as_ref()).map_or(PATH, String::as_str);
    let is_program = |path: &String| {
        let meta = std::fs::metadata(path);
        meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = path.split(':').map(|dir| format!("{dir}/{}", program.name)).find(is_program);
    found.ok_or_else(|| call::no_program(program.name))
}

fn start(kind: Kind, program: &Program) -> Result<(u32, Stream), String> {
    if let Some(dir) = program.dir
        && !dir.is_dir()
    {
        let why = std::fs::metadata(dir).err().map_or_else(|| "not a directory".into(), text);
        return Err(format!("chdir {}: {why}", dir.display()));
    }
    let path = find(program)?;
    let failed = |error: io::Error| call::cannot_start(&path, &text(error));
    let mut command = Command::new(&path);
    command.arg0(program.name).args(program.args).env_clear().envs(&program.env);
    if let Some(dir) = program.dir {
        command.current_dir(dir);
    }
    let mut stream = Stream::new(kind);
    match program.terminal {
        Some(size) => {
            let (host, guest) = open_terminal(size).map_err(failed)?;
            command.stdin(guest.try_clone().map_err(failed)?).stdout(guest.try_clone().map_err(failed)?);
            command.stderr(guest);
            (stream.sink, stream.sources[0]) = (Some(host.try_clone().map_err(failed)?), Some(host));
            stream.terminal = true;
        }
        None => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
    }
    prepare(&mut command, program.user.clone(), program.terminal.is_some());
    let mut child = command.spawn().map_err(failed)?;
    // The service takes its status: a `Child` that is dropped leaves that to others.
    let pid = child.id();
    stream.process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if program.terminal.is_none() {
        stream.sink = child.stdin.take().map(OwnedFd::from);
        stream.sources = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        for fd in stream.sink.iter().chain(stream.sources.iter().flatten()) {
            rustix::io::ioctl_fionbio(fd, true).map_err(text)?;
        }
    }
    Ok((pid, stream))
}

/// What the process does before it becomes the program: it heeds signals as any program does, and gets a session
/// of its own, its terminal, and its user's rights.
pub fn prepare(command: &mut Command, user: Option<User>, terminal: bool) {
    let act = move || -> io::Result<()> {
        default_signals();
        setsid()?;
        if terminal {
            ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if let Some(user) = &user {
            rustix::thread::set_thread_groups(&user.groups)?;
            rustix::thread::set_thread_gid(user.gid)?;
            rustix::thread::set_thread_uid(user.uid)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, and functions that may be called in a handler of
    // signals (signal-safety(7)); nothing is allocated.
    #[expect(unsafe_code, reason = "docs/ARCHITECTURE.md lists it")]
    unsafe {
        command.pre_exec(act);
    }
}

/// Ignores and holds back no signal. Both pass on to programs that are executed, and a shell without job control
/// has what it starts in the background ignore SIGINT and SIGQUIT: the service, it may be.
fn default_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: a default action is no code of this program's. Numbers of signals whose action is not
        // the program's to change are refused without harm.
        #[expect(unsafe_code, reason = "docs/ARCHITECTURE.md lists it")]
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` makes the set that `sigprocmask` reads. The process has only this thread after a fork.
    #[expect(unsafe_code, reason = "docs/ARCHITECTURE.md lists it")]
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Both ends of a terminal: the host's, which does not wait, and the process's.
fn open_terminal(size: Option<Size>) -> io::Result<(OwnedFd, OwnedFd)> {
    let host = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&host)?;
    unlockpt(&host)?;
    let guest = ioctl_tiocgptpeer(&host, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    if let Some(size) = size {
        tcsetwinsize(&host, winsize(size))?;
    }
    rustix::io::ioctl_fionbio(host.as_fd(), true)?;
    Ok((host, guest))
}

/// The status that a process gave, or the signal that ended it.
pub fn result(status: WaitStatus) -> Result<i32, i32> {
    match status.terminating_signal() {
        Some(signal) => Err(signal),
        None => Ok(status.exit_status().unwrap_or(-1)),
    }
}

fn signal_of(number: i32) -> Result<Signal, String> {
    Signal::from_named_raw(number).ok_or_else(|| format!("there is no signal {number}"))
}

/// Sends a signal to a process.
pub fn signal(pid: i32, number: i32) -> Result<(), String> {
    let pid =
        Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0).ok_or("there is no such process")?;
    kill_process(pid, signal_of(number)?).map_err(text)
}

/// Sends a signal to a process and the others of its group.
pub fn signal_group(pid: Pid, number: i32) -> Result<(), String> {
    kill_process_group(pid, signal_of(number)?).map_err(text)
}
