//! A machine running in the foreground: its serial line at standard input and output, and the ways
//! in which a person ends it.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use env86_core::Pattern;
use env86_core::keys::Layout;
use thiserror::Error;
use tracing::debug;

use super::log::Log;
#[cfg(feature = "net")]
use super::pages::{Listening, Pages, PagesError, Shown};
use super::record::Recorder;
use super::script::{Player, Script, ScriptError, Transcript};
use super::terminal::{self, Guard, Saved};
use super::tty;
#[cfg(feature = "window")]
use super::window::{Window, WindowError};
use crate::image::Image;
use crate::machine::{Com, ControlError, Controls, Ending, Event, Machine, MachineError, Report, SerialPort};
use crate::os::{self, Closer, Signals, StdinThread};
use crate::sound;

/// The byte that ends the machine when it comes from standard input: Ctrl-D, end of transmission.
const CTRL_D: u8 = 4;
/// How long an orderly way out may take after a signal.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(2);
/// The same where a state has to be saved on the way.
const SAVING_PATIENCE: Duration = Duration::from_secs(120);

/// How long a script may take to find that the machine has ended.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(2);

/// Where a machine is saved.
#[derive(Clone, Debug)]
pub enum SaveTo {
    /// A file.
    File(PathBuf),
    /// Its image, to be resumed by the next start.
    Image(Box<Image>),
}

/// What a session shows and waits for.
#[derive(Debug, Default)]
pub struct Options {
    /// COM1 is at standard output, ...
    pub serial: bool,
    /// ... and at standard input: not for a machine that runs by a recording.
    pub input: bool,
    /// The machine's screen is in the terminal at standard input and output, which it has for itself.
    pub screen: bool,
    /// What the guest takes the terminal's keyboard for.
    pub layout: Layout,
    /// What COM1 says is kept here.
    pub log: Option<Log>,
    /// The session ends when COM1 has sent this.
    pub exit_on: Option<Vec<u8>>,
    /// Where the machine is saved when a person or a signal ends the session, or that text does.
    pub save: Option<SaveTo>,
    /// Where the guest's debug ports go.
    pub debug: Option<WriteTo>,
    /// Where what the guest prints goes.
    pub printer: Option<WriteTo>,
    /// The screen at the end is written here, as PNG.
    pub screenshot: Option<PathBuf>,
    /// The screen is recorded here, as an animated GIF.
    pub record: Option<File>,
    /// A recording of the machine's sound, which is complete at its end.
    pub sound: Option<sound::Recorder>,
    /// Steps that are done at the machine, at whose end the session ends. Standard input is the script's
    /// then.
    pub script: Option<Script>,
    /// Pages that show the machine.
    #[cfg(feature = "net")]
    pub pages: Option<Pages>,
    /// A window to work in, whose closing ends the session. The session has to be run in the program's
    /// first thread then.
    #[cfg(feature = "window")]
    pub window: Option<Window>,
}

/// Where what the guest only writes goes.
#[derive(Debug)]
pub enum WriteTo {
    /// A file.
    File(File),
    /// Standard output.
    Stdout,
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
    /// The script has been done.
    Script,
    /// The window was closed.
    Window,
    /// The person has left the machine's screen in the terminal.
    Terminal,
    /// A signal to this process, by number.
    Signal(i32),
}

/// Why a session failed.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The terminal cannot be made raw, or not be drawn on.
    #[error("Cannot use the terminal")]
    Terminal(#[source] io::Error),
    /// The machine's screen is to be in a terminal, and there is none.
    #[error("Standard input and output are no terminal for the machine's screen")]
    NoTerminal,
    /// Signals or threads could not be set up.
    #[error("Cannot listen to signals and standard input")]
    Setup(#[source] io::Error),
    /// The guest's output cannot be shown.
    #[error("Cannot write the guest's output")]
    Output(#[source] io::Error),
    /// The screen's last picture cannot be made.
    #[error(transparent)]
    Screen(#[from] ControlError),
    /// The screen's last picture cannot be written.
    #[error("Cannot write the screenshot `{}`", path.display())]
    Screenshot {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The recording cannot be written.
    #[error("Cannot write the recording")]
    Record(#[source] io::Error),
    /// The sound cannot be written.
    #[error("Cannot write the sound")]
    Sound(#[source] io::Error),
    /// The machine failed.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The script did not get to its end.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The window failed.
    #[cfg(feature = "window")]
    #[error(transparent)]
    Window(#[from] WindowError),
    /// Pages cannot show the machine.
    #[cfg(feature = "net")]
    #[error(transparent)]
    Pages(#[from] PagesError),
}

/// Something that ends the session.
enum Wish {
    CtrlD,
    Signal(i32),
    Pattern,
    /// The script is done, or has failed.
    Script,
    /// The window is closed.
    #[cfg(feature = "window")]
    Window,
    /// The terminal is left.
    Terminal,
    /// There is no one to show the output to.
    OutputFailed,
    /// The machine has ended by itself.
    Ended,
}

/// Runs the machine in the foreground to its end.
pub fn run(machine: Machine, options: Options) -> Result<Ended, SessionError> {
    let is_terminal = terminal::stdin_is_terminal();
    // A signal that comes while the terminal is taken waits until it can be given back.
    let signals = Signals::listen().map_err(SessionError::Setup)?;
    let taken = match options.screen {
        true if !is_terminal || !io::stdout().is_terminal() => return Err(SessionError::NoTerminal),
        true => Some(tty::take_terminal().map_err(SessionError::Terminal)?),
        false if options.serial && options.input && is_terminal => {
            Some(Guard::raw().map_err(SessionError::Terminal)?)
        }
        false => None,
    };
    let (wishes, wished) = mpsc::channel();
    let saved = taken.as_ref().map(Guard::saved).unwrap_or_default();
    let patience = if options.save.is_some() { SAVING_PATIENCE } else { SIGNAL_PATIENCE };
    let _signals =
        SignalThread::spawn(signals, wishes.clone(), saved, patience).map_err(SessionError::Setup)?;
    let mut threads = Vec::new();
    let pattern = options.exit_on.map(Pattern::new);
    let transcript = options.script.is_some().then(Transcript::default);
    #[cfg(feature = "net")]
    let in_pages = {
        let answered = options.serial && options.input && is_terminal;
        options.pages.map(|pages| pages.show(&machine, answered)).transpose()?
    };
    let listening = Listeners {
        log: options.log,
        transcript: transcript.clone(),
        #[cfg(feature = "net")]
        pages: in_pages.as_ref().map(Shown::listener),
    };
    if options.serial || listening.any() || pattern.is_some() {
        let to: Box<dyn Write + Send> =
            if options.serial { os::stdout().map_err(SessionError::Output)? } else { Box::new(io::sink()) };
        let to = Box::new(Tee { to, listening });
        threads.push(copy("output", machine.serial(Com::One), to, pattern, wishes.clone())?);
    }
    let script = match (options.script, transcript) {
        (Some(script), Some(transcript)) => Some(play(script, &machine, &transcript, wishes.clone())?),
        _ => None,
    };
    let only_written = [
        ("debug console", options.debug, machine.debug_console()),
        ("printer", options.printer, machine.printer()),
    ];
    for (name, to, from) in only_written {
        let to: Box<dyn Write + Send> = match to {
            None => continue,
            Some(WriteTo::File(file)) => Box::new(file),
            Some(WriteTo::Stdout) => os::stdout().map_err(SessionError::Output)?,
        };
        threads.push(copy(name, from, to, None, wishes.clone())?);
    }
    let controls = machine.controls();
    let recorder = options.record.map(|file| Recorder::start(controls.clone(), file));
    let recorder = recorder.transpose().map_err(SessionError::Setup)?;
    let events = listen(&machine, wishes.clone())?;
    let input = (options.serial && options.input).then(|| machine.serial(Com::One));
    // The terminal's input is the screen's. A person at a window may have started it in the background of a
    // terminal, which is not to be read then.
    #[cfg(feature = "window")]
    let at_screen = options.screen || options.window.is_some();
    #[cfg(not(feature = "window"))]
    let at_screen = options.screen;
    let stdin = match script {
        None if input.is_some() || !at_screen => Some(
            StdinThread::spawn(on_stdin(input, is_terminal, wishes.clone())).map_err(SessionError::Setup)?,
        ),
        _ => None,
    };

    let over = Arc::new(AtomicBool::new(false));
    let at_terminal = match options.screen {
        true => Some(in_terminal(&machine, options.layout, over.clone(), wishes.clone())?),
        false => None,
    };
    #[cfg(feature = "window")]
    let (wish, shown) = match options.window {
        Some(window) => in_window(window, &machine, wished, wishes)?,
        None => (wished.recv().ok(), Ok(())),
    };
    #[cfg(not(feature = "window"))]
    let wish = wished.recv().ok();
    let cause = match wish {
        #[cfg(feature = "window")]
        Some(Wish::Window) => Some(Cause::Window),
        Some(Wish::Terminal) => Some(Cause::Terminal),
        Some(Wish::CtrlD) => Some(Cause::CtrlD),
        Some(Wish::Signal(number)) => Some(Cause::Signal(number)),
        Some(Wish::Pattern) => Some(Cause::Pattern),
        Some(Wish::Script) => Some(Cause::Script),
        Some(Wish::OutputFailed | Wish::Ended) | None => None,
    };
    // A script that the machine's end has overtaken fails soon, if it had not got to its own. One that
    // waits for a line of standard input does not, and had nothing more to do.
    let played = match (script, cause) {
        (Some(played), Some(Cause::Script) | None) => played.recv_timeout(SCRIPT_PATIENCE).unwrap_or(Ok(())),
        _ => Ok(()),
    };
    let cause = cause.filter(|_| played.is_ok());
    let saved = match (options.save, cause) {
        (Some(SaveTo::File(path)), Some(_)) => Some(machine.save(path)),
        (Some(SaveTo::Image(image)), Some(_)) => Some(machine.save_to(&image)),
        // A machine that has ended by itself has nothing to resume.
        (None, _) | (_, None) => None,
    };
    // The machine's end also frees the threads that read and feed it, once they have passed on what it
    // has said.
    let ended = machine.stop();
    // A script that fails is when one wants to see the screen most.
    let pictured = options.screenshot.map(|path| keep_screen(&controls, path));
    let recorded = recorder.map_or(Ok(()), Recorder::end);
    let heard = options.sound.map_or(Ok(()), sound::Recorder::end);
    let copied: Result<(), io::Error> = threads.into_iter().try_for_each(join);
    // All that COM1 has said is there.
    #[cfg(feature = "net")]
    if let Some(in_pages) = in_pages {
        in_pages.end();
    }
    join(events).map_err(SessionError::Setup)?;
    drop(stdin);
    over.store(true, Ordering::Relaxed);
    let looked = at_terminal.map_or(Ok(()), join);
    drop(taken);
    copied.map_err(SessionError::Output)?;
    looked.map_err(SessionError::Terminal)?;
    played?;
    #[cfg(feature = "window")]
    shown?;
    recorded.map_err(SessionError::Record)?;
    heard.map_err(SessionError::Sound)?;
    let saved = saved.transpose()?;
    let report = ended?;
    pictured.transpose()?;
    Ok(Ended { cause: cause.unwrap_or(Cause::Machine(report.ending)), report, saved })
}

/// Writes the screen as PNG.
fn keep_screen(controls: &Controls, path: PathBuf) -> Result<(), SessionError> {
    fs::write(&path, controls.screenshot()?).map_err(|source| SessionError::Screenshot { path, source })
}

/// Waits for a thread's result.
fn join(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
}

/// Copies what a port sends, in a thread, until the machine has ended, and looks for a text in it.
fn copy(
    name: &str,
    mut from: SerialPort,
    mut to: Box<dyn Write + Send>,
    mut pattern: Option<Pattern>,
    wishes: Sender<Wish>,
) -> Result<JoinHandle<io::Result<()>>, SessionError> {
    let pass = move || -> io::Result<()> {
        let mut piece = [0; 4096];
        loop {
            let bytes = match from.read(&mut piece)? {
                0 => return Ok(()),
                len => &piece[..len],
            };
            to.write_all(bytes).and_then(|()| to.flush()).inspect_err(|_| {
                let _ = wishes.send(Wish::OutputFailed);
            })?;
            if pattern.as_mut().is_some_and(|pattern| pattern.found_in(bytes)) {
                pattern = None;
                let _ = wishes.send(Wish::Pattern);
            }
        }
    };
    thread::Builder::new().name(name.into()).spawn(pass).map_err(SessionError::Setup)
}

/// Shows the machine in a window until something ends the session; gives what that is, and how the window
/// fared.
#[cfg(feature = "window")]
fn in_window(
    window: Window,
    machine: &Machine,
    wished: Receiver<Wish>,
    wishes: Sender<Wish>,
) -> Result<(Option<Wish>, Result<(), WindowError>), SessionError> {
    let closer = window.closer();
    let wait = move || {
        let wish = wished.recv().ok();
        closer.close();
        wish
    };
    let waiter = thread::Builder::new().name("session".into()).spawn(wait).map_err(SessionError::Setup)?;
    let shown = window.run(machine.controls());
    let _ = wishes.send(Wish::Window);
    Ok((waiter.join().unwrap_or(None), shown))
}

/// Shows the machine in the terminal, in a thread, until the person or `over` ends that.
fn in_terminal(
    machine: &Machine,
    layout: Layout,
    over: Arc<AtomicBool>,
    wishes: Sender<Wish>,
) -> Result<JoinHandle<io::Result<()>>, SessionError> {
    let controls = machine.controls();
    let show = move || {
        let shown = tty::run(controls, layout, || over.load(Ordering::Relaxed));
        let _ = wishes.send(Wish::Terminal);
        shown
    };
    thread::Builder::new().name("terminal".into()).spawn(show).map_err(SessionError::Setup)
}

/// Does a script's steps, in a thread.
fn play(
    script: Script,
    machine: &Machine,
    transcript: &Transcript,
    wishes: Sender<Wish>,
) -> Result<Receiver<Result<(), ScriptError>>, SessionError> {
    let mut player = Player::new(machine, transcript);
    let (done, result) = mpsc::channel();
    let play = move || {
        let _ = done.send(script.run(&mut player));
        let _ = wishes.send(Wish::Script);
    };
    thread::Builder::new().name("script".into()).spawn(play).map_err(SessionError::Setup)?;
    Ok(result)
}

/// Who wants to know what COM1 says, beside standard output.
struct Listeners {
    log: Option<Log>,
    transcript: Option<Transcript>,
    #[cfg(feature = "net")]
    pages: Option<Listening>,
}

impl Listeners {
    fn any(&self) -> bool {
        let pages = false;
        #[cfg(feature = "net")]
        let pages = pages || self.pages.is_some();
        self.log.is_some() || self.transcript.is_some() || pages
    }
}

/// COM1's output, on its way to standard output and to others.
struct Tee {
    to: Box<dyn Write + Send>,
    listening: Listeners,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let to = &mut self.listening;
        to.transcript.iter().for_each(|transcript| transcript.put(bytes));
        #[cfg(feature = "net")]
        to.pages.iter().for_each(|pages| pages.put(bytes));
        // A log that cannot be written must not hold up the guest.
        if to.log.as_mut().is_some_and(|log| log.write_all(bytes).is_err()) {
            to.log = None;
        }
        self.to.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.listening.transcript.iter().for_each(Transcript::end);
    }
}

/// Hears what the machine tells, in a thread, until its end.
fn listen(machine: &Machine, wishes: Sender<Wish>) -> Result<JoinHandle<io::Result<()>>, SessionError> {
    let events = machine.events();
    let hear = move || {
        for event in events {
            debug!(target: "session", ?event);
            match event {
                Event::Over => _ = wishes.send(Wish::Pattern),
                // The terminal may be raw.
                Event::FileLost(error) => eprint!("env86: The guest got an I/O error: {error}\r\n"),
                Event::NoImage => eprint!(
                    "env86: The saved state does not say which image it is of; give the IMAGE, or the guest \
                     gets I/O errors for its files\r\n"
                ),
                Event::Reset | Event::Paused | Event::Resumed => {}
            }
        }
        let _ = wishes.send(Wish::Ended);
        Ok(())
    };
    thread::Builder::new().name("events".into()).spawn(hear).map_err(SessionError::Setup)
}

/// What is done with standard input: it goes to COM1, and Ctrl-D ends the machine. The end of a
/// terminal's input is a Ctrl-D too; that of a pipe or a file is only the end of what there is to
/// type.
fn on_stdin(
    mut input: Option<SerialPort>,
    is_terminal: bool,
    wishes: Sender<Wish>,
) -> impl FnMut(&[u8]) -> bool + Send + 'static {
    move |bytes| {
        let ends = if bytes.is_empty() { is_terminal } else { input.is_some() && bytes.contains(&CTRL_D) };
        if ends {
            let _ = wishes.send(Wish::CtrlD);
            return false;
        }
        match &mut input {
            _ if bytes.is_empty() => false,
            // A guest that does not read must not keep a person from typing Ctrl-D.
            Some(input) if is_terminal => input.try_write(bytes).is_ok(),
            Some(input) => input.write_all(bytes).is_ok(),
            None => true,
        }
    }
}

/// Turns signals into an orderly way out, and into a quick one if that takes too long.
struct SignalThread {
    closer: Closer,
    done: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl SignalThread {
    fn spawn(
        mut signals: Signals,
        wishes: Sender<Wish>,
        saved: Saved,
        patience: Duration,
    ) -> io::Result<Self> {
        let closer = signals.closer();
        let (done, is_done) = mpsc::channel();
        let thread = thread::Builder::new().name("signals".into()).spawn(move || {
            let Some(number) = signals.wait() else { return };
            let _ = wishes.send(Wish::Signal(number));
            if is_done.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                saved.restore();
                std::process::exit(exit_status(number).into());
            }
        })?;
        Ok(Self { closer, done: Some(done), thread: Some(thread) })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.closer.close();
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
