//! A running machine, as a program holds it.
//!
//! The machine ([`Computer`]) has a thread of its own. [`Machine`] is its handle: what is written to its
//! lines and what it is told wait there until it looks, between two runs of about a millisecond.

mod builder;
mod cable;
mod clock;
mod controls;
mod disk;
mod files;
mod overlay;
mod parts;
pub(crate) mod ports;
mod qcow2;
pub(crate) mod shares;
mod state;
mod thread;
mod threaded;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;

pub use builder::MachineBuilder;
pub use clock::HostClock;
#[cfg(feature = "net")]
pub(crate) use clock::OsEntropy;
pub use controls::{ControlError, Controls, View, png};
pub use disk::DiskError;
pub use env86_core::keys::Layout;
pub use env86_core::{
    Button, Cell, Computer, Cursor, DEFAULT_MEMORY, Drive, Ending, Frame, Input, MediumError, NetDevice,
    Recorded, Recording, Screen, TextScreen,
};
pub use env86_devices::ide::{DiskImage, DiskImageError, Form, Medium};
pub use env86_devices::state::Slot;
pub(crate) use files::Blobs;
pub use ports::{Com, Event, Events, ExpectError, NoEvent, SerialPort};
pub use state::StateFileError;

use crate::image::{BlobFileError, Image, ImageError};
use cable::Network;
use ports::{Desk, Line};
use state::StateSource;
use thread::{Built, Command};

/// Why a machine could not be started, or ended otherwise than it should.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image's file system index.
    #[error("`{}` cannot be used", path.display())]
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
    /// The image, or what the user gave beside it, has nothing that can be started.
    #[error("Cannot start anything from `{}`", path.display())]
    PowerOn {
        /// The image, or the file.
        path: PathBuf,
        /// Why not.
        source: env86_core::PowerOnError,
    },
    /// Nothing to start.
    #[error("Nothing to start: no image, no kernel and no BIOS")]
    NothingToStart,
    /// There are disks, and no BIOS to start them.
    #[error("There is no BIOS that could start the disks")]
    NoBios,
    /// Memory, ACPI or the network card were chosen for a machine that a saved state describes.
    #[error(
        "The saved state says what memory and which network card the machine has, and whether it has ACPI"
    )]
    StateDecides,
    /// The image at hand is not the one that the saved state is of.
    #[error("The saved state is of the image `{}`, and `{}` has other files", wanted, path.display())]
    OtherImage {
        /// Where the state's image was.
        wanted: String,
        /// The image at hand.
        path: PathBuf,
    },
    /// The image that the saved state is of is not where it was.
    #[error("The saved state needs the files of the image `{wanted}`, which is not there any more")]
    ImageGone {
        /// Where it was.
        wanted: String,
        /// Why it cannot be opened.
        source: ImageError,
    },
    /// The guest's memory cannot be made.
    #[error(transparent)]
    Memory(#[from] env86_emu::memory::MemoryError),
    /// The machine cannot be built, or not be loaded again.
    #[error(transparent)]
    Computer(#[from] env86_core::ComputerError),
    /// The image's kernel or RAM disk cannot be read.
    #[error("The image has lost a file")]
    Blob(#[from] BlobFileError),
    /// The guest's processor shut down, and the machine was not to restart.
    #[error("The guest's processor has shut down after a triple fault")]
    TripleFault,
    /// A disk image.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A medium has not been changed.
    #[error(transparent)]
    Medium(#[from] MediumError),
    /// A saved state.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// There is no network.
    #[cfg(feature = "net")]
    #[error(transparent)]
    Net(#[from] crate::net::NetError),
    /// A network was asked for, and the machine has nothing to plug it into.
    #[error("The machine has no network card")]
    NoNetworkCard,
    /// The machine has ended, and nothing can be asked of it any more.
    #[error("The machine has ended")]
    Gone,
    /// No thread for the machine.
    #[error("Cannot start a thread for the machine")]
    Thread(#[source] io::Error),
    /// The machine's thread panicked: a defect of env86.
    #[error("The machine's thread has panicked ({0}); please report this as a defect of env86")]
    Panicked(String),
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
    /// A number that only machines in the same state share, at the end of a run that repeats.
    pub digest: Option<u64>,
}

/// A machine that runs in a thread of its own. Dropping it stops it.
#[derive(Debug)]
pub struct Machine {
    desk: Arc<Desk>,
    controls: Controls,
    thread: Option<JoinHandle<Result<Report, MachineError>>>,
    /// It ends after the machine.
    #[cfg_attr(not(feature = "net"), expect(dead_code))]
    network: Option<Network>,
}

impl Machine {
    /// What the machine is to be.
    pub fn builder() -> MachineBuilder {
        MachineBuilder::default()
    }

    /// Gives a machine its thread.
    fn spawn(
        mut built: Built,
        first: Option<Event>,
        network: Option<cable::Prepared>,
    ) -> Result<Self, MachineError> {
        let computer = &mut built.computer;
        let desk = Arc::new(Desk::new(|line| match line {
            Line::Serial(port) => computer.has_serial(port),
            Line::Console(_) => computer.has_console(),
            Line::Debug | Line::Printer => true,
        }));
        first.into_iter().for_each(|event| desk.tell(event));
        let plugged =
            network.map(|network| cable::plug(computer, network, &desk, built.address)).transpose()?;
        let (network, cable) = plugged.unzip();
        let (commands, queue) = mpsc::channel();
        let source = built.source.clone();
        let thread = std::thread::Builder::new()
            .name("machine".into())
            .spawn({
                let desk = desk.clone();
                move || {
                    desk.runs_in(std::thread::current());
                    thread::run(built, &desk, queue, cable)
                }
            })
            .map_err(MachineError::Thread)?;
        desk.runs_in(thread.thread().clone());
        let controls = Controls::new(&desk, &commands, source);
        Ok(Self { desk, controls, thread: Some(thread), network })
    }

    /// A serial port. One that the board has not gives no bytes and takes none.
    pub fn serial(&self, com: Com) -> SerialPort {
        self.controls.serial(com)
    }

    /// A port of the virtio console, 0 to 2: Linux's `hvc0` to `hvc2`. `None` for other numbers; the fourth port
    /// is that of [`Machine::guest`]. On a machine without the console it gives no bytes and takes none.
    pub fn console(&self, port: u8) -> Option<SerialPort> {
        (port < 3).then(|| SerialPort::new(&self.desk, Line::Console(port)))
    }

    /// What the guest writes to the debug ports, if [`MachineBuilder::debug_console`] was asked for. It
    /// can only be read.
    pub fn debug_console(&self) -> SerialPort {
        SerialPort::new(&self.desk, Line::Debug)
    }

    /// What the guest prints, if [`MachineBuilder::printer`] was asked for. It can only be read.
    pub fn printer(&self) -> SerialPort {
        SerialPort::new(&self.desk, Line::Printer)
    }

    /// The ports of the host's that lead into the guest, as they are: a port 0 has become a free one.
    #[cfg(feature = "net")]
    pub fn forwards(&self) -> &[crate::net::Forward] {
        self.network.as_ref().map_or(&[], Network::forwards)
    }

    /// What the machine tells, until its end.
    pub fn events(&self) -> Events {
        Events::new(&self.desk)
    }

    /// Its screen, keyboard and mouse.
    pub fn controls(&self) -> Controls {
        self.controls.clone()
    }

    /// Gives the machine keys, a pointer's motion and such. What it has no device or no room for is lost;
    /// bytes for a serial line are better written to [`Machine::serial`], which waits.
    pub fn input(&self, input: Input) {
        self.controls.input(input);
    }

    /// Puts the disc in this file into a drive, or takes out what is there. A disc that the guest has locked
    /// stays, and the guest is told that someone wants it.
    pub fn change_medium(&self, drive: Drive, path: Option<&Path>) -> Result<(), MachineError> {
        self.controls.change_medium(drive, path)
    }

    /// Stops executing; guest time stands still.
    pub fn pause(&self) {
        self.controls.pause();
    }

    /// Goes on executing.
    pub fn resume(&self) {
        self.controls.resume();
    }

    /// Lets a function have the machine between two runs, in the machine's thread, and waits for it: to look
    /// at the screen, for example.
    pub fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Computer) -> T + Send + 'static,
    ) -> Result<T, MachineError> {
        self.controls.with(act)
    }

    /// Saves the machine to a file, whole or not at all, after which it goes on. Gives the size of the
    /// file in bytes. A name that ends in `.zst` asks for compression.
    pub fn save(&self, path: impl Into<PathBuf>) -> Result<u64, MachineError> {
        self.controls.save(&path.into())
    }

    /// Saves the machine to its image, to be resumed by the next start. Gives the size of the state in
    /// bytes.
    pub fn save_to(&self, image: &Image) -> Result<u64, MachineError> {
        self.controls.save_to(image)
    }

    /// Ends the machine as pulling the plug does, and waits for that.
    pub fn stop(self) -> Result<Report, MachineError> {
        self.controls.command(Command::Stop);
        self.wait()
    }

    /// Waits for the machine's end.
    pub fn wait(mut self) -> Result<Report, MachineError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            // What the thread does is caught there.
            Some(Err(_)) | None => Err(MachineError::Panicked("outside of the machine".into())),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.controls.command(Command::Stop);
            let _ = thread.join();
        }
    }
}

/// Saves a machine to a file.
fn save(computer: &mut Computer, path: &Path, source: Option<&StateSource>) -> Result<u64, MachineError> {
    let used = crate::os::touched(computer.memory().contents());
    let saved = computer.save(used.as_deref()).map_err(StateFileError::Save)?;
    Ok(state::write(path, &saved, source)?)
}
