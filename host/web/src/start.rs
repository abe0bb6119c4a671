//! From what the page asked for to a machine.

use std::error::Error;

use env86_bios::BootSource;
use env86_core::{
    Choice, Computer, ComputerError, Firmware, ImageConfig, LoadError, NamedFile, PowerOnError, Setup,
    choose, self_test,
};
use env86_devices::Entropy;
use env86_devices::board::Connected;
use env86_devices::floppy;
use env86_devices::fs::{Filesystem, FsJsonError};
use env86_devices::ide::{Form, Medium, NoPlace, Units};
use env86_devices::ne2k;
use env86_devices::state::{Container, ImageSource, Plan, Source, StateError, is_compressed};
use thiserror::Error;

use crate::host::{self, Blobs, FileError, HostClock, HostEntropy, Media};

/// The index of the file system.
const INDEX: &str = "fs.json";
/// The most bytes of a state, by its format.
const MAX_STATE: u64 = i32::MAX as u64;

/// Why there is no machine.
#[derive(Debug, Error)]
pub enum StartError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The index of the image's file system.
    #[error("The index of the file system (fs.json) cannot be used")]
    Index(#[from] FsJsonError),
    /// What is to be started.
    #[error(transparent)]
    PowerOn(#[from] PowerOnError),
    /// The drives.
    #[error(transparent)]
    Drives(#[from] NoPlace),
    /// The machine.
    #[error(transparent)]
    Computer(#[from] ComputerError),
    /// The saved state.
    #[error("The saved state cannot be used")]
    State(#[from] StateError),
    /// The saved state's compression.
    #[error("The saved state cannot be unpacked: {0}")]
    Unpack(String),
    /// A floppy disk.
    #[error("`{0}` is no floppy disk")]
    Floppy(&'static str, #[source] floppy::FloppyError),
}

impl StartError {
    /// The same can be tried again when more files have come.
    pub fn is_pending(&self) -> bool {
        match self {
            Self::File(FileError::Pending(_)) => true,
            Self::PowerOn(error) => power_on_is_pending(error),
            Self::Computer(error) => is_pending(error),
            _ => false,
        }
    }
}

/// The machine wants files that are on their way.
pub fn is_pending(error: &ComputerError) -> bool {
    match error {
        ComputerError::Firmware(error) => match error.downcast_ref::<StartError>() {
            Some(error) => error.is_pending(),
            None => false,
        },
        _ => false,
    }
}

fn power_on_is_pending(error: &PowerOnError) -> bool {
    match error {
        PowerOnError::Pending => true,
        PowerOnError::File(error) => matches!(error.downcast_ref(), Some(FileError::Pending(_))),
        _ => false,
    }
}

/// An error and what it comes from, in one line.
pub fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// What a machine is to be.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `image.json`, with what the page wants instead.
    pub config: ImageConfig,
    /// The drives whose images are not put into saved states, because they are fetched in pieces.
    pub lazy: Vec<String>,
    /// A BIOS is started although there is a kernel in the file system.
    pub rom: bool,
    /// Where the image is, for saved states; empty if there is none.
    pub place: String,
    /// A cable is in the network card.
    pub cable: bool,
}

impl Wanted {
    /// A machine after power-on. It starts what the one before did, if that is given: the page need not keep the files.
    pub fn power_on(&self, before: Option<Firmware>) -> Result<Computer, StartError> {
        let (filesystem, image) = self.filesystem()?;
        let world = Setup::new(Box::new(HostClock::start_at(0)), Box::new(HostEntropy));
        let setup = self.world(world).with_image(&self.config);
        let firmware = match before {
            // What tests the machine is told whether there is a cable.
            Some(before) if !self.names_nothing() => before,
            _ => {
                let (source, name) = self.firmware(&filesystem, setup.memory)?;
                Firmware::new(name, source)
            }
        };
        let setup = Setup {
            drives: Units::new(self.disk("hda")?, self.disk("hdb")?, self.disk("cdrom")?)
                .with_secondary(self.disk("hdc")?, self.disk("hdd")?)?,
            floppies: [self.floppy("fda")?, self.floppy("fdb")?],
            virtio_disk: self.disk("virtio_blk")?,
            filesystem,
            image,
            mac: address(),
            ..setup
        };
        Ok(Computer::power_on(setup, firmware)?)
    }

    /// The machine that a saved state is of. At a reset it starts what the one before did, if that is given.
    pub fn resume(&self, state: Vec<u8>, before: Option<Firmware>) -> Result<Computer, StartError> {
        let state = if is_compressed(&state) { unpack(&state)? } else { state };
        let plan = Plan::read(&Container::parse(&state)?)?;
        let world = Setup::new(Box::new(HostClock::start_at(plan.time)), Box::new(HostEntropy));
        let drives = plan.units(|slot, source| match source {
            Source::State(range) => Ok(Medium::new(state[range].to_vec(), Form::Whole)),
            Source::Base { .. } => host::disk(slot.name(), Form::Written),
        })?;
        let virtio_disk = plan.virtio_disk().map(|_| host::disk("virtio_blk", Form::Written)).transpose()?;
        let mem = plan.pages().copy(&state).map_err(ComputerError::from)?;
        let firmware = before.unwrap_or_else(|| {
            let later = self.clone();
            let memory = self.config.memory_size.unwrap_or(env86_core::DEFAULT_MEMORY);
            Firmware::later(move || {
                let started = later.filesystem().and_then(|(files, _)| later.firmware(&files, memory));
                started.map_err(LoadError::from)
            })
        });
        let setup = Setup { drives, virtio_disk, ..self.world(world) };
        Ok(Computer::resume(setup, plan, mem, &state, firmware)?)
    }

    /// What lies around the machine.
    fn world(&self, setup: Setup) -> Setup {
        Setup {
            blobs: Box::new(Blobs),
            media: Box::new(Media),
            connected: Connected { serial: [true; 4], network: self.cable, ..Connected::default() },
            ..setup
        }
    }

    /// The image's file system, if there is one, and which it is.
    fn filesystem(&self) -> Result<(Filesystem, Option<ImageSource>), StartError> {
        if self.place.is_empty() {
            return Ok((Filesystem::default(), None));
        }
        let index = host::whole(INDEX)?;
        Ok((Filesystem::from_json(&index)?, Some(ImageSource::new(&*self.place, &index))))
    }

    /// What is started, and its name.
    fn firmware(&self, filesystem: &Filesystem, memory: u64) -> Result<(BootSource, String), StartError> {
        let named = |key: &str| host::whole(key).map(|data| NamedFile { name: key.into(), data });
        let bios = if self.rom { Some(named("bios")?) } else { None };
        let mut file = |key: &'static str, _: &_| named(key).map_err(LoadError::from);
        let files = (filesystem, &mut Blobs as &mut _);
        match choose(Choice { bios, ..Choice::default() }, &self.config, files, &mut file, memory) {
            // A page that names nothing shows what the machine can do.
            Err(PowerOnError::NoKernel) if self.names_nothing() => Ok(self_test(self.cable, "")),
            chosen => Ok(chosen?),
        }
    }

    /// There is neither an image, nor a kernel, a BIOS or a medium.
    fn names_nothing(&self) -> bool {
        let ImageConfig { bios, bzimage, hda, hdb, hdc, hdd, fda, fdb, cdrom, virtio_blk, .. } = &self.config;
        self.place.is_empty()
            && [bios, bzimage, hda, hdb, hdc, hdd, fda, fdb, cdrom, virtio_blk]
                .iter()
                .all(|file| file.is_none())
    }

    fn disk(&self, slot: &'static str) -> Result<Option<Medium>, StartError> {
        let config = &self.config;
        let given = match slot {
            "hda" => &config.hda,
            "hdb" => &config.hdb,
            "hdc" => &config.hdc,
            "hdd" => &config.hdd,
            "fda" => &config.fda,
            "fdb" => &config.fdb,
            "virtio_blk" => &config.virtio_blk,
            _ => &config.cdrom,
        };
        let form = if self.lazy.iter().any(|lazy| lazy == slot) { Form::Written } else { Form::Whole };
        Ok(given.as_ref().map(|_| host::disk(slot, form)).transpose()?)
    }

    fn floppy(&self, slot: &'static str) -> Result<Option<floppy::Disk>, StartError> {
        let disk = self.disk(slot)?.map(floppy::Disk::of).transpose();
        disk.map_err(|error| StartError::Floppy(slot, error))
    }
}

/// A network card's address, as v86 gives them.
fn address() -> [u8; 6] {
    let [a, b, c] = ne2k::MAC_PREFIX;
    let [d, e, f, _] = HostEntropy.next_u32().to_le_bytes();
    [a, b, c, d, e, f]
}

/// Unpacks one Zstandard frame.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, StartError> {
    use std::io::Read;
    let failed = |error: &dyn Error| StartError::Unpack(error.to_string());
    let reader = ruzstd::decoding::StreamingDecoder::new(packed).map_err(|error| failed(&error))?;
    let mut state = Vec::new();
    reader.take(MAX_STATE).read_to_end(&mut state).map_err(|error| failed(&error))?;
    Ok(state)
}
