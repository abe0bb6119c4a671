//! A program in the guest at this process's standard streams, as if it ran here: its input, its output, the
//! terminal's size, and signals.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;

use super::terminal::{self, Guard};
use crate::guest::{Child, ChildStdin, ExitStatus, GuestError, Remote, Source};
use crate::os::{self, Closer, RESIZED, Signals, StdinThread};

/// Linux's numbers, which the guest has whatever the host is.
const SIGKILL: i32 = 9;
const SIGPIPE: i32 = 13;
const SIGTERM: i32 = 15;
/// How long a program has to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(2);

/// A program that can be attached: one in a machine of this process, or of another.
pub trait Program {
    /// Its standard input, which ends when this is dropped.
    type Input: Write + Send + 'static;
    /// What steers it from another thread.
    type Steering: Steering;

    /// What steers it from another thread.
    fn steering(&self) -> Self::Steering;

    /// Its standard input, the first time.
    fn take_input(&mut self) -> Option<Self::Input>;

    /// The next bytes that it writes; `None` at its end.
    fn next_output(&mut self) -> Result<Option<(Source, Vec<u8>)>, GuestError>;

    /// How it ended, once there is no more output.
    fn end(&self) -> Result<Option<ExitStatus>, GuestError>;
}

/// What steers a [`Program`] from another thread.
pub trait Steering: Clone + Send + 'static {
    /// Sends a signal, by Linux's number.
    fn signal(&self, number: i32) -> Result<(), GuestError>;

    /// Its terminal has another size.
    fn resize(&self, rows: u16, columns: u16) -> Result<(), GuestError>;

    /// Lets it go: it gets a hang-up, and nothing more comes from it.
    fn hang_up(&self);
}

impl Program for Child {
    type Input = ChildStdin;
    type Steering = Remote;

    fn steering(&self) -> Remote {
        self.remote()
    }

    fn take_input(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    fn next_output(&mut self) -> Result<Option<(Source, Vec<u8>)>, GuestError> {
        Self::next_output(self)
    }

    fn end(&self) -> Result<Option<ExitStatus>, GuestError> {
        self.try_wait()
    }
}

impl Steering for Remote {
    fn signal(&self, number: i32) -> Result<(), GuestError> {
        Self::signal(self, number)
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<(), GuestError> {
        Self::resize(self, rows, columns)
    }

    fn hang_up(&self) {
        Self::hang_up(self);
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Standard input is the program's; else it has none.
    pub input: bool,
    /// The program has a terminal: the one here becomes raw, if there is one.
    pub terminal: bool,
    /// The program is ended after that.
    pub limit: Option<Duration>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// By itself, or by a signal that was passed on to it.
    Ended(ExitStatus),
    /// The time was over.
    TimeOver,
    /// A second signal to this process, by number: the program was given up.
    Interrupted(i32),
    /// What it wrote could not be written here: the reader of a pipe has gone.
    NoReader,
}

/// Why a program could not be attached to its end.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The terminal cannot be made raw.
    #[error("Cannot set up the terminal")]
    Terminal(#[source] io::Error),
    /// Signals or threads could not be set up.
    #[error("Cannot listen to signals and standard input")]
    Setup(#[source] io::Error),
    /// The program's output cannot be written.
    #[error("Cannot write the program's output")]
    Output(#[source] io::Error),
    /// The guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// Carries a program's streams, and signals to it, until it ends. The first signal to this process is passed
/// on to the program; the second calls `give_up`, as the program's time does if it does not heed its signals:
/// that has to end the program's output.
pub fn attach(
    program: impl Program,
    give_up: impl Fn() + Clone + Send + 'static,
    options: Options,
) -> Result<Attached, AttachError> {
    let raw = match options.terminal && options.input && terminal::stdin_is_terminal() {
        true => Some(Guard::raw().map_err(AttachError::Terminal)?),
        false => None,
    };
    let attached = carry(program, give_up, options);
    drop(raw);
    attached
}

fn carry(
    mut program: impl Program,
    give_up: impl Fn() + Clone + Send + 'static,
    options: Options,
) -> Result<Attached, AttachError> {
    let why = Why::default();
    let signals = SignalThread::spawn(program.steering(), give_up.clone(), why.clone(), options.terminal)
        .map_err(AttachError::Setup)?;
    let timer = options.limit.map(|limit| Timer::spawn(limit, program.steering(), give_up, why.clone()));
    let timer = timer.transpose().map_err(AttachError::Setup)?;
    let stdin = program.take_input().filter(|_| options.input);
    let input = stdin.map(|stdin| {
        let mut stdin = Some(stdin);
        StdinThread::spawn(move |bytes| {
            if bytes.is_empty() {
                // Its input ends here, too.
                stdin = None;
            }
            stdin.as_mut().is_some_and(|stdin| stdin.write_all(bytes).is_ok())
        })
    });
    let input = input.transpose().map_err(AttachError::Setup)?;
    let written = write_output(&mut program);
    let status = match &written {
        Ok(()) => program.end(),
        Err(_) => Ok(None),
    };
    // The program has gone, so that nothing waits for room in its input.
    drop(program);
    drop(timer);
    drop(signals);
    drop(input);
    if let Some(why) = why.take() {
        return Ok(why);
    }
    match (written, status) {
        (Ok(()), Ok(Some(status))) => Ok(Attached::Ended(status)),
        (Ok(()), Ok(None)) => Err(GuestError::Closed.into()),
        (Ok(()), Err(error)) => Err(error.into()),
        (Err(AttachError::Output(error)), _) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(Attached::NoReader)
        }
        (Err(error), _) => Err(error),
    }
}

/// Writes what the program writes, in the same order, until its end.
fn write_output(program: &mut impl Program) -> Result<(), AttachError> {
    let (mut stdout, mut stderr) = (os::stdout().map_err(AttachError::Output)?, io::stderr());
    while let Some((source, bytes)) = program.next_output()? {
        let written = match source {
            Source::Stdout => stdout.write_all(&bytes).and_then(|()| stdout.flush()),
            Source::Stderr => stderr.write_all(&bytes),
        };
        if let Err(error) = written {
            // As a program here would be told. It may have ended in this moment.
            let steering = program.steering();
            let _ = steering.signal(SIGPIPE);
            steering.hang_up();
            return Err(AttachError::Output(error));
        }
    }
    Ok(())
}

/// What has ended the program, other than itself.
#[derive(Clone, Debug, Default)]
struct Why(Arc<Mutex<Option<Attached>>>);

impl Why {
    /// The first reason counts.
    fn set(&self, why: Attached) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    fn take(&self) -> Option<Attached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Passes signals on.
struct SignalThread {
    closer: Closer,
    thread: Option<JoinHandle<()>>,
}

impl SignalThread {
    fn spawn(
        program: impl Steering,
        give_up: impl Fn() + Send + 'static,
        why: Why,
        terminal: bool,
    ) -> io::Result<Self> {
        let mut signals = Signals::listen_for_resizes()?;
        let closer = signals.closer();
        let pass = move || {
            let told = AtomicBool::new(false);
            while let Some(number) = signals.wait() {
                if RESIZED == Some(number) {
                    if let Some(size) = terminal::size().filter(|_| terminal) {
                        // A program that has ended needs none.
                        let _ = program.resize(size.rows, size.columns);
                    }
                } else if told.swap(true, Ordering::Relaxed) || program.signal(number).is_err() {
                    why.set(Attached::Interrupted(number));
                    give_up();
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("signals".into()).spawn(pass)?;
        Ok(Self { closer, thread: Some(thread) })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Ends the program when its time is over.
struct Timer {
    done: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Timer {
    fn spawn(
        limit: Duration,
        program: impl Steering,
        give_up: impl Fn() + Send + 'static,
        why: Why,
    ) -> io::Result<Self> {
        let (done, is_done) = mpsc::channel::<()>();
        let act = move || {
            if is_done.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            why.set(Attached::TimeOver);
            for number in [SIGTERM, SIGKILL] {
                let told = program.signal(number);
                if told.is_err() || is_done.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
            give_up();
        };
        let thread = thread::Builder::new().name("limit".into()).spawn(act)?;
        Ok(Self { done: Some(done), thread: Some(thread) })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
