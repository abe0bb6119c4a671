//! A running machine, as a program holds it.
//!
//! The machine has a thread of its own. Commands go to it and events come from it over channels;
//! [`Machine`] is their other end.

mod boot;
mod clock;
mod disk;
mod guest;
mod idle;
mod mapped;
mod parts;
mod state;

mod runner;

use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use thiserror::Error;

pub use boot::Config;
pub use clock::HostClock;
pub use disk::DiskError;
pub use env86_devices::Script;
pub use state::StateFileError;

use crate::image::{BlobError, ImageError};

/// Memory in bytes where neither the image nor the user says.
pub const DEFAULT_MEMORY: u64 = 512 << 20;
/// Events that wait to be taken before the machine waits, too.
const EVENT_QUEUE: usize = 64;
/// Pieces of a line's input that wait for the guest.
const INPUT_QUEUE: usize = 256;

/// Why a machine could not be started, or ended otherwise than it should.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image's file system index.
    #[error("`{}` cannot be used; make the image again with `env86 create`", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        source: env86_devices::fs::FsJsonError,
    },
    /// A file given by the user.
    #[error("Cannot read the {what} `{}`; check the path", path.display())]
    Read {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that cannot be what it is said to be.
    #[error(
        "The {what} `{path}` is larger than the machine's memory of {} MiB; check the file, or give it more \
         with --memory",
        memory >> 20
    )]
    TooLarge {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: String,
        /// The machine's memory in bytes.
        memory: u64,
    },
    /// A kernel or RAM disk inside the image's file system.
    #[error("Cannot read `{path}` from the image; make it again with `env86 create`")]
    ReadInside {
        /// Its path in the guest.
        path: String,
        /// Why not.
        source: env86_devices::fs::FsError,
    },
    /// Nothing to start.
    #[error("Nothing to start: give an image, or --kernel FILE, or --bios FILE")]
    NothingToStart,
    /// The image has no kernel.
    #[error("`{}` has no kernel in / or /boot, and image.json names none; give --kernel FILE", .0.display())]
    NoKernel(PathBuf),
    /// The kernel or ROM cannot be started.
    #[error("Cannot start `{name}`")]
    Boot {
        /// The file.
        name: String,
        /// Why not.
        source: env86_bios::BootError,
    },
    /// The guest's memory cannot be made.
    #[error(transparent)]
    Memory(#[from] env86_emu::memory::MemoryError),
    /// The video card cannot have that much or that little.
    #[error(
        "Video memory of {0} bytes (vga_memory_size in image.json) is not possible; choose between 256 KiB and 256 MiB"
    )]
    VideoMemory(u64),
    /// File contents that the guest needs cannot be read.
    #[error("The guest's file system has lost a file")]
    Blob(#[from] BlobError),
    /// The guest's processor shut down, and the machine was not to restart.
    #[error("The guest's processor has shut down after a triple fault")]
    TripleFault,
    /// A disk image.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A saved state.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The machine has ended, and there is nothing to save any more.
    #[error("The machine has ended before it could be saved")]
    Gone,
    /// No thread for the machine.
    #[error("Cannot start a thread for the machine")]
    Thread(#[source] io::Error),
    /// The machine's thread panicked: a defect of env86.
    #[error("The machine's thread has panicked; please report this as a defect of env86")]
    Panicked,
}

/// How a machine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched the power off.
    PowerOff,
    /// The guest halted the processor with interrupts disabled, for good: what a system does that
    /// has shut down on a board without power management.
    Halted,
    /// The guest wrote this value to the debug exit port.
    DebugExit(u32),
    /// The guest reset the machine, which was not to restart.
    Reset,
    /// The program asked.
    Stopped,
}

/// What a machine did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// The processor's counts since power-on.
    pub cpu: env86_emu::cpu::Stats,
    /// Time from the first instruction to the end, pauses included.
    pub wall: Duration,
    /// The part of it in which the guest was executing, rather than halted or paused.
    pub busy: Duration,
    /// Restarts by the guest.
    pub resets: u32,
    /// A number that only machines in the same state share, at the end of a run by a script.
    pub digest: Option<u64>,
}

/// A stream of bytes between the guest and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The first serial port.
    Com1,
    /// A port of the virtio console, 0 to 3: Linux's `hvc0` to `hvc3`.
    Console(u8),
}

/// The number of lines.
const LINES: usize = Line::ALL.len();

impl Line {
    /// All lines.
    pub const ALL: [Self; 5] =
        [Self::Com1, Self::Console(0), Self::Console(1), Self::Console(2), Self::Console(3)];

    /// The event that tells of its output.
    fn event(self, bytes: Vec<u8>) -> Event {
        match self {
            Self::Com1 => Event::Serial(bytes),
            Self::Console(port) => Event::Console(port, bytes),
        }
    }
}

/// What a machine tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// COM1 has sent these bytes.
    Serial(Vec<u8>),
    /// A port of the virtio console has sent these bytes.
    Console(u8, Vec<u8>),
    /// The machine has been reset and starts again.
    Reset,
    /// The machine has stopped executing.
    Paused,
    /// The machine goes on.
    Resumed,
    /// The script is over, and the machine has stopped executing.
    ScriptOver,
}

impl Event {
    /// The bytes that a line has sent.
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Serial(bytes) | Self::Console(_, bytes) => bytes,
            Self::Reset | Self::Paused | Self::Resumed | Self::ScriptOver => Vec::new(),
        }
    }
}

/// What a machine is told.
#[derive(Debug)]
enum Command {
    Pause,
    Resume,
    Keyboard(Vec<u8>),
    ConsoleSize(u16, u16),
    PowerButton,
    Save(PathBuf, Sender<Result<u64, MachineError>>),
    Stop,
}

/// A machine that runs in a thread of its own. Dropping it stops it.
#[derive(Debug)]
pub struct Machine {
    commands: Sender<Command>,
    /// In the order of [`Line::ALL`].
    input: [LineInput; LINES],
    /// `None` once nobody wants to hear any more.
    events: Receiver<Event>,
    thread: Option<JoinHandle<Result<Report, MachineError>>>,
}

impl Machine {
    /// Builds a machine and starts it.
    pub fn start(config: &Config) -> Result<Self, MachineError> {
        let guest = guest::PcGuest::new(config)?;
        Self::spawn(guest, config.restart)
    }

    fn spawn(guest: impl runner::Guest + 'static, restart: bool) -> Result<Self, MachineError> {
        let (commands, command_queue) = unbounded();
        let queues = Line::ALL.map(|_| bounded(INPUT_QUEUE));
        let (event_queue, events) = bounded(EVENT_QUEUE);
        let ends = runner::Ends {
            commands: command_queue,
            input: queues.clone().map(|(_, queue)| queue),
            events: event_queue,
        };
        let thread = thread::Builder::new()
            .name("machine".into())
            .spawn(move || runner::run(guest, &ends, restart))
            .map_err(MachineError::Thread)?;
        let input = queues.map(|(queue, _)| LineInput { queue, machine: thread.thread().clone() });
        Ok(Self { commands, input, events, thread: Some(thread) })
    }

    /// What the machine tells, until its end. A machine whose events are not taken waits when its
    /// queue is full.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// The receiving side of COM1.
    pub fn serial_input(&self) -> LineInput {
        self.input[0].clone()
    }

    /// The receiving side of a port of the virtio console, 0 to 3. On a machine without one it takes
    /// bytes until its queue is full.
    pub fn console_input(&self, port: u8) -> Option<LineInput> {
        let at = Line::ALL.iter().position(|line| *line == Line::Console(port))?;
        Some(self.input[at].clone())
    }

    /// Tells the guest the size of the virtio console's screen.
    pub fn set_console_size(&self, columns: u16, rows: u16) {
        self.command(Command::ConsoleSize(columns, rows));
    }

    /// Stops executing; guest time stands still.
    pub fn pause(&self) {
        self.command(Command::Pause);
    }

    /// Goes on executing.
    pub fn resume(&self) {
        self.command(Command::Resume);
    }

    /// Presses or releases keys: scan codes of set 1, taken all or, where too many wait, not at all.
    pub fn keyboard(&self, scancodes: impl Into<Vec<u8>>) {
        self.command(Command::Keyboard(scancodes.into()));
    }

    /// Presses the power button, which asks a guest with ACPI to shut down.
    pub fn press_power_button(&self) {
        self.command(Command::PowerButton);
    }

    /// Saves the machine to a file, whole or not at all, after which it goes on. The receiver gets
    /// the size of the file; events have to be taken until then. A name that ends in `.zst` asks
    /// for compression.
    pub fn save(&self, path: impl Into<PathBuf>) -> Receiver<Result<u64, MachineError>> {
        let (done, saved) = bounded(1);
        self.command(Command::Save(path.into(), done));
        saved
    }

    /// Ends the machine as pulling the plug does.
    pub fn stop(&self) {
        self.command(Command::Stop);
    }

    /// Waits for the machine's end.
    pub fn wait(mut self) -> Result<Report, MachineError> {
        // Nobody takes events any more, and the machine must not wait for that.
        self.events = bounded(0).1;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(MachineError::Panicked),
        }
    }

    /// A machine that has ended takes no commands, which is nobody's fault.
    fn command(&self, command: Command) {
        let _ = self.commands.send(command);
        self.thread.iter().for_each(|thread| thread.thread().unpark());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.command(Command::Stop);
            self.events = bounded(0).1;
            let _ = thread.join();
        }
    }
}

/// The receiving side of a guest's line. Bytes wait here until the guest takes them.
#[derive(Clone, Debug)]
pub struct LineInput {
    queue: Sender<Vec<u8>>,
    /// The thread that takes it, to be woken.
    machine: Thread,
}

impl LineInput {
    /// Sends bytes, waiting while too many wait already. Says whether the machine is still there.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let sent = self.queue.send(bytes.into()).is_ok();
        self.machine.unpark();
        sent
    }

    /// Sends bytes, or drops them where too many wait already. Says whether the machine is still
    /// there.
    pub fn offer(&self, bytes: &[u8]) -> bool {
        let sent = self.queue.try_send(bytes.into());
        self.machine.unpark();
        !matches!(sent, Err(TrySendError::Disconnected(_)))
    }
}
