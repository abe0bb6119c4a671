//! A machine running in the foreground: its serial line at standard input and output, and the ways
//! in which a person ends it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use env86_devices::Pattern;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;
use tracing::debug;

use super::stdin::StdinThread;
use super::terminal::{self, RawMode, Saved};
use crate::machine::{Ending, Event, LineInput, Machine, MachineError, Report};

/// The byte that ends the machine when it comes from standard input: Ctrl-D, end of transmission.
const CTRL_D: u8 = 4;
/// How long the guest goes on after the text that was waited for, so that the line can be finished.
const AFTER_PATTERN: Duration = Duration::from_millis(200);
/// How long an orderly way out may take after a signal.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(2);
/// The same where a state has to be saved on the way.
const SAVING_PATIENCE: Duration = Duration::from_secs(120);

/// What a session shows and waits for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// COM1 is at standard output, ...
    pub serial: bool,
    /// ... and at standard input: not for a machine that runs by a script.
    pub input: bool,
    /// The session ends when COM1 has sent this.
    pub exit_on: Option<Vec<u8>>,
    /// Where the machine is saved when a person or a signal ends the session, or that text does.
    pub save: Option<PathBuf>,
}

/// A session that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// What ended it.
    pub cause: Cause,
    /// What the machine did.
    pub report: Report,
    /// The size of the state that was saved, in bytes.
    pub saved: Option<u64>,
}

/// What ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The guest, or the machine itself.
    Machine(Ending),
    /// Ctrl-D at standard input.
    CtrlD,
    /// The text that was waited for.
    Pattern,
    /// A signal to this process, by number.
    Signal(i32),
}

/// Why a session failed.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The terminal cannot be made raw.
    #[error("Cannot set up the terminal")]
    Terminal(#[source] io::Error),
    /// Signals or threads could not be set up.
    #[error("Cannot listen to signals and standard input")]
    Setup(#[source] io::Error),
    /// Nobody reads the guest's output.
    #[error("Cannot write the guest's output")]
    Output(#[source] io::Error),
    /// The machine failed.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// Something that a person did.
enum Wish {
    CtrlD,
    Signal(i32),
}

/// Runs the machine in the foreground to its end.
pub fn run(machine: Machine, options: Options) -> Result<Ended, SessionError> {
    let is_terminal = terminal::stdin_is_terminal();
    let raw = match options.serial && options.input && is_terminal {
        true => Some(RawMode::enter().map_err(SessionError::Terminal)?),
        false => None,
    };
    let (wishes, wished) = bounded(4);
    let saved = raw.as_ref().map(RawMode::saved).unwrap_or_default();
    let patience = if options.save.is_some() { SAVING_PATIENCE } else { SIGNAL_PATIENCE };
    let _signals = SignalThread::spawn(wishes.clone(), saved, patience).map_err(SessionError::Setup)?;
    let input = if options.serial && options.input { Some(machine.serial_input()) } else { None };
    let stdin = StdinThread::spawn(on_stdin(input, is_terminal, wishes)).map_err(SessionError::Setup)?;

    let mut output = Output { show: options.serial, pattern: options.exit_on.map(Pattern::new) };
    let forwarded = output.forward(&machine, &wished);
    let saved = match (&options.save, &forwarded) {
        // A machine that has ended by itself has nothing to resume.
        (Some(path), Ok(Some(_))) => Some(output.save(&machine, path)),
        _ => None,
    };
    machine.stop();
    // Nobody reads what is left if nobody read what was before it.
    let forwarded = forwarded.and_then(|cause| output.drain(&machine).map(|()| cause));
    // The machine's end also frees the thread that feeds it.
    let ended = machine.wait();
    drop(stdin);
    drop(raw);
    let cause = forwarded?;
    let saved = saved.transpose()?;
    let report = ended?;
    Ok(Ended { cause: cause.unwrap_or(Cause::Machine(report.ending)), report, saved })
}

/// Where the guest's output goes.
struct Output {
    show: bool,
    pattern: Option<Pattern>,
}

impl Output {
    /// Passes output on until the machine ends, which gives `None`, or something else wants it to.
    fn forward(&mut self, machine: &Machine, wished: &Receiver<Wish>) -> Result<Option<Cause>, SessionError> {
        let mut deadline = never();
        loop {
            select! {
                recv(machine.events()) -> event => match event {
                    Ok(Event::ScriptOver) => return Ok(Some(Cause::Pattern)),
                    Ok(event) => {
                        if self.take(&event)? {
                            self.pattern = None;
                            deadline = after(AFTER_PATTERN);
                        }
                    }
                    Err(_) => return Ok(None),
                },
                recv(wished) -> wish => match wish {
                    Ok(Wish::CtrlD) => return Ok(Some(Cause::CtrlD)),
                    Ok(Wish::Signal(number)) => return Ok(Some(Cause::Signal(number))),
                    Err(_) => return Ok(None),
                },
                recv(deadline) -> _ => return Ok(Some(Cause::Pattern)),
            }
        }
    }

    /// Saves the machine, and passes on what it says until that is done.
    fn save(&mut self, machine: &Machine, path: &Path) -> Result<u64, SessionError> {
        let saved = machine.save(path);
        loop {
            select! {
                recv(machine.events()) -> event => match event {
                    Ok(event) => _ = self.take(&event)?,
                    Err(_) => return Err(MachineError::Gone.into()),
                },
                recv(saved) -> result => return Ok(result.unwrap_or(Err(MachineError::Gone))?),
            }
        }
    }

    /// Passes on what a machine that is about to end still has to say.
    fn drain(&mut self, machine: &Machine) -> Result<(), SessionError> {
        machine.events().iter().try_for_each(|event| self.take(&event).map(drop))
    }

    /// Passes an event on; says whether it completes the text that is waited for.
    fn take(&mut self, event: &Event) -> Result<bool, SessionError> {
        let Event::Serial(bytes) = event else {
            debug!(target: "session", ?event);
            return Ok(false);
        };
        if self.show {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush()).map_err(SessionError::Output)?;
        }
        Ok(self.pattern.as_mut().is_some_and(|p| p.found_in(bytes)))
    }
}

/// What is done with standard input: it goes to COM1, and Ctrl-D ends the machine. The end of a
/// terminal's input is a Ctrl-D too; that of a pipe or a file is only the end of what there is to
/// type.
fn on_stdin(
    input: Option<LineInput>,
    is_terminal: bool,
    wishes: Sender<Wish>,
) -> impl FnMut(&[u8]) -> bool + Send + 'static {
    move |bytes| {
        let ends = if bytes.is_empty() { is_terminal } else { input.is_some() && bytes.contains(&CTRL_D) };
        if ends {
            let _ = wishes.send(Wish::CtrlD);
            return false;
        }
        match &input {
            _ if bytes.is_empty() => false,
            // Nobody may be kept from typing Ctrl-D by a guest that does not read.
            Some(input) if is_terminal => input.offer(bytes),
            Some(input) => input.send(bytes),
            None => true,
        }
    }
}

/// Turns signals into an orderly way out, and into a quick one if that takes too long.
struct SignalThread {
    handle: signal_hook::iterator::Handle,
    done: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl SignalThread {
    fn spawn(wishes: Sender<Wish>, saved: Saved, patience: Duration) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        let handle = signals.handle();
        let (done, is_done) = mpsc::channel();
        let thread = thread::Builder::new().name("signals".into()).spawn(move || {
            let Some(number) = signals.forever().next() else { return };
            let _ = wishes.try_send(Wish::Signal(number));
            if is_done.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                saved.restore();
                std::process::exit(exit_status(number).into());
            }
        })?;
        Ok(Self { handle, done: Some(done), thread: Some(thread) })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        self.done = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The exit status of a program that a signal ended, as shells give it.
pub fn exit_status(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
