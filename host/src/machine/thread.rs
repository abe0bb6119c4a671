//! The machine's thread: a shell around a [`Computer`] that carries input and output between it and the
//! handles, and sleeps while the guest does.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use env86_core::{Accepted, Computer, Ending, Input, Outside, Progress};
use tracing::debug;

use super::cable::Cable;
use super::files::LostFiles;
use super::ports::{Desk, Event, Line};
use super::{MachineError, Report};

/// Instructions between looks at what has come from outside: about a millisecond.
const BUDGET: u64 = 200_000;
/// The same for a guest whose instructions take long.
const LEAST_BUDGET: u64 = 1_000;
/// A run that takes longer is made shorter the next time, so that a command never waits for long.
const LONG_RUN: Duration = Duration::from_millis(4);

/// What a machine is told.
pub(super) enum Command {
    Input(Input),
    Pause,
    Resume,
    /// Something that wants the machine for itself.
    With(Box<dyn FnOnce(&mut Computer) + Send>),
    Stop,
}

/// Runs a machine to its end. A panic ends it, too, and no other machine of the process.
pub(super) fn run(
    computer: Computer,
    desk: &Desk,
    commands: Receiver<Command>,
    lost_files: LostFiles,
    cable: Option<Cable>,
) -> Result<Report, MachineError> {
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let (stopped, busy) = (false, Duration::ZERO);
        let shell = Shell { computer, desk, commands, lost_files, cable, stopped, busy };
        shell.run()
    }));
    desk.end();
    result.unwrap_or_else(|panic| Err(MachineError::Panicked(message(&*panic))))
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

struct Shell<'a> {
    computer: Computer,
    desk: &'a Desk,
    commands: Receiver<Command>,
    lost_files: LostFiles,
    cable: Option<Cable>,
    stopped: bool,
    busy: Duration,
}

/// Carries output to the handles, and frames to the network.
struct ToDesk<'a> {
    desk: &'a Desk,
    cable: Option<&'a Cable>,
}

impl Outside for ToDesk<'_> {
    fn serial(&mut self, port: u8, bytes: &[u8]) {
        self.desk.put_output(Line::Serial(port), bytes);
    }

    fn console(&mut self, port: u8, bytes: &[u8]) {
        self.desk.put_output(Line::Console(port), bytes);
    }

    fn frame(&mut self, frame: &[u8]) {
        self.cable.inspect(|cable| cable.send(frame));
    }

    fn debug(&mut self, bytes: &[u8]) {
        self.desk.put_output(Line::Debug, bytes);
    }

    fn reset(&mut self) {
        self.desk.tell(Event::Reset);
    }
}

impl Shell<'_> {
    fn run(mut self) -> Result<Report, MachineError> {
        let start = Instant::now();
        let (mut budget, mut was_over) = (BUDGET, false);
        let ending = loop {
            self.commands();
            if self.stopped {
                break Ending::Stopped;
            }
            self.give_input();
            if self.computer.is_paused() || self.desk.is_full() {
                // Whoever ends that unparks this thread afterwards.
                thread::park();
                continue;
            }
            let slice = Instant::now();
            let mut outside = ToDesk { desk: self.desk, cable: self.cable.as_ref() };
            let progress = self.computer.run(budget, &mut outside)?;
            let took = slice.elapsed();
            self.busy += took;
            budget = match took > LONG_RUN {
                true => (budget / 2).max(LEAST_BUDGET),
                false => (budget * 2).min(BUDGET),
            };
            for lost in self.lost_files.take() {
                self.desk.tell(Event::FileLost(Arc::new(lost)));
            }
            if self.computer.is_over() && !was_over {
                was_over = true;
                self.computer.pause();
                self.desk.tell(Event::Over);
            }
            match progress {
                Progress::More => {}
                Progress::Sleep { until, slack } => {
                    self.sleep(until.map(|until| until.saturating_add(slack)))
                }
                Progress::Ended(Ending::TripleFault) => return Err(MachineError::TripleFault),
                Progress::Ended(ending) => break ending,
            }
        };
        let repeats = self.computer.recording().is_some();
        let digest = if repeats { self.computer.digest().ok() } else { None };
        Ok(Report {
            ending,
            cpu: self.computer.stats(),
            wall: start.elapsed(),
            busy: self.busy,
            resets: self.computer.resets(),
            digest,
        })
    }

    /// Does what has been commanded; says whether there was anything.
    fn commands(&mut self) -> bool {
        let mut any = false;
        while !self.stopped {
            match self.commands.try_recv() {
                Ok(command) => self.command(command),
                Err(TryRecvError::Disconnected) => self.stopped = true,
                Err(TryRecvError::Empty) => return any,
            }
            any = true;
        }
        any
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Input(input) => {
                let accepted = self.computer.input(&input);
                debug!(target: "machine", ?input, ?accepted);
            }
            Command::Pause => {
                if self.computer.pause() {
                    self.desk.tell(Event::Paused);
                }
            }
            Command::Resume => {
                if self.computer.go_on() {
                    self.desk.tell(Event::Resumed);
                }
            }
            Command::With(act) => act(&mut self.computer),
            Command::Stop => self.stopped = true,
        }
    }

    /// Gives the machine what has been written to its lines, and frames. Says whether it took any.
    fn give_input(&mut self) -> bool {
        let computer = &mut self.computer;
        let frames = self.cable.as_mut().is_some_and(|cable| cable.give(computer));
        frames
            | self.desk.give_input(|line, bytes| {
                let input = match line {
                    Line::Serial(port) => Input::Serial { port, bytes: bytes.to_vec() },
                    Line::Console(port) => Input::Console { port, bytes: bytes.to_vec() },
                    Line::Debug => return bytes.len(),
                };
                match computer.input(&input) {
                    Accepted::All | Accepted::NoDevice => bytes.len(),
                    Accepted::Some(taken) => taken,
                }
            })
    }

    /// Sleeps until a guest time, or until something comes from outside.
    fn sleep(&mut self, until: Option<u64>) {
        // Input that the guest has no room for must not wake it again and again.
        while !self.commands() && !self.give_input() {
            // Whoever sends something unparks this thread afterwards. A channel's own wait would do,
            // but spins before it parks, which an idle guest pays for at each of its timer's ticks.
            match until.map(|until| until.saturating_sub(self.computer.time())) {
                Some(0) => return,
                Some(left) => thread::park_timeout(Duration::from_nanos(left)),
                None => thread::park(),
            }
        }
    }
}
