//! Disk images: files that are opened, and read only when the guest reads its disk.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::task::Poll;

use env86_devices::ide::{DiskImage, DiskImageError, Form, Medium, Units};
use env86_devices::state::{Slot, Source};
use thiserror::Error;
use tracing::warn;

use super::builder::MachineBuilder;
use super::parts::Parts;
use super::state::StateFile;
use crate::image::{self, FileRef};
use crate::os::read_exact_at;

/// An image given by the user that has as many bytes is not put into states, as v86 does it with files.
const LAZY_FROM: u64 = 256 << 20;
/// An image that has as many fits into no state.
const STATE_LIMIT: u64 = 1 << 31;
/// The keys by which v86 reads an image in parts, and of how many bytes.
const USE_PARTS: &str = "use_parts";
const PART_SIZE: &str = "fixed_chunk_size";
/// The name ending of images that v86 unpacks.
const COMPRESSED: &str = ".zst";

/// Why a disk image cannot be used.
#[derive(Debug, Error)]
pub enum DiskError {
    /// It cannot be opened.
    #[error("Cannot open the disk image `{}`; check the path", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("The disk image `{}` is empty; make one of some size, with `truncate -s 100M FILE` for example", .0.display())]
    Empty(PathBuf),
    /// It is shorter than it should be.
    #[error(
        "The disk image `{}` has {have} bytes, and image.json says that it has {want}; correct the size there, or \
         copy the file again", path.display()
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        have: u64,
        /// Those that it should have.
        want: u64,
    },
    /// It lies in parts, and nothing says in how many.
    #[error(
        "image.json: {slot} is to be read in parts (use_parts), which needs its `size` and the parts' \
         `fixed_chunk_size` in bytes; add them there"
    )]
    Parts {
        /// The drive.
        slot: &'static str,
    },
    /// Its parts cannot have that size.
    #[error(
        "image.json: the disk image `{}` cannot lie in parts of {part} bytes (fixed_chunk_size): it is not 0, and at \
         most 64 MiB for compressed parts", path.display()
    )]
    PartSize {
        /// The image.
        path: PathBuf,
        /// The size.
        part: u64,
    },
    /// A part is shorter than it should be.
    #[error("The part `{}` of a disk image has {have} bytes of {want}; copy it again", path.display())]
    ShortPart {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        have: u64,
        /// Those that it should have.
        want: u64,
    },
    /// It is compressed.
    #[error("image.json: {slot} is compressed, and a disk image cannot be; unpack it with `zstd -d`")]
    Compressed {
        /// The drive.
        slot: &'static str,
    },
    /// A slave without a master.
    #[error("A second hard disk (hdb) needs a first one (hda)")]
    Slave,
    /// The state has only the changes.
    #[error("The saved state has only what was written to {slot}, not the disk image that it was written to")]
    Missing {
        /// The drive.
        slot: &'static str,
    },
    /// The state is of another disk.
    #[error(
        "The saved state is of another {slot} than `{}`: it had {want} sectors, and this has {have}; use the image \
         that it was saved with", path.display()
    )]
    Other {
        /// The drive.
        slot: &'static str,
        /// The image.
        path: PathBuf,
        /// Its sectors.
        have: u64,
        /// Those that it should have.
        want: u64,
    },
}

/// Some bytes of a file that nobody changes.
#[derive(Debug)]
struct FileImage {
    file: File,
    start: u64,
    size: u64,
}

impl DiskImage for FileImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        let at = self.start.saturating_add(offset);
        let read = read_exact_at(&self.file, buf, at);
        Poll::Ready(read.map_err(|error| DiskImageError(error.to_string())))
    }
}

impl FileImage {
    fn open(path: &Path) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Open { path: path.into(), source };
        let mut file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        // A device has no length, but an end.
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if size == 0 { Err(DiskError::Empty(path.into())) } else { Ok(Self { file, start: 0, size }) }
    }
}

/// The user's image for a drive.
fn given(config: &MachineBuilder, slot: Slot) -> Option<&Path> {
    match slot {
        Slot::Hda => config.hda.as_deref(),
        Slot::Hdb => config.hdb.as_deref(),
        Slot::Cdrom => config.cdrom.as_deref(),
    }
}

/// The image's image for a drive.
fn named(image: &image::Image, slot: Slot) -> Option<&FileRef> {
    match slot {
        Slot::Hda => image.config.hda.as_ref(),
        Slot::Hdb => image.config.hdb.as_ref(),
        Slot::Cdrom => image.config.cdrom.as_ref(),
    }
}

/// What is to be in a drive, and where that is: what the user says, else what the image says.
fn medium(config: &MachineBuilder, slot: Slot) -> Result<Option<(Medium, PathBuf)>, super::MachineError> {
    if let Some(path) = given(config, slot) {
        let file = FileImage::open(path)?;
        let form = if file.size >= LAZY_FROM { Form::Written } else { Form::Whole };
        return Ok(Some((Medium::new(file, form), path.into())));
    }
    let Some((image, file)) = config.image.as_ref().and_then(|image| Some((image, named(image, slot)?)))
    else {
        return Ok(None);
    };
    let (path, slot) = (image.path_of_ref(slot.name(), file)?, slot.name());
    if file.other.get(USE_PARTS).is_some_and(|value| *value != false) {
        let part = file.other.get(PART_SIZE).and_then(serde_json::Value::as_u64);
        let (Some(size), Some(part)) = (file.size, part) else {
            return Err(DiskError::Parts { slot }.into());
        };
        return Ok(Some((Medium::new(Parts::open(&path, size, part)?, Form::Written), path)));
    }
    if path.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes()) {
        return Err(DiskError::Compressed { slot }.into());
    }
    let mut content = FileImage::open(&path)?;
    if let Some(want) = file.size {
        let have = content.size;
        if have < want {
            return Err(DiskError::Short { path, have, want }.into());
        }
        content.size = want;
    }
    // v86 has an image in memory unless it is told not to; one that is too large for that, nowhere.
    let lazy = file.lazy || content.size >= STATE_LIMIT;
    Ok(Some((Medium::new(content, if lazy { Form::Written } else { Form::Whole }), path)))
}

/// The drives of a machine that is switched on.
pub(super) fn units(config: &MachineBuilder) -> Result<Units, super::MachineError> {
    let open = |slot| medium(config, slot).map(|found| found.map(|(medium, _)| medium));
    let (hda, hdb, cdrom) = (open(Slot::Hda)?, open(Slot::Hdb)?, open(Slot::Cdrom)?);
    if hda.is_none() && hdb.is_some() {
        return Err(DiskError::Slave.into());
    }
    Ok(Units::new(hda, hdb, cdrom))
}

/// The drives of a machine that is resumed: of those that the state does not hold as a whole, the images
/// that it was saved with.
pub(super) fn saved_units(config: &MachineBuilder, state: &StateFile) -> Result<Units, super::MachineError> {
    let mut used = Vec::new();
    let units = state.plan.units(|slot, source| match source {
        Source::State(range) => Ok(match state.file() {
            Some(file) => {
                let failed = |source| DiskError::Open { path: state.path().into(), source };
                let (start, size) = (range.start as u64, range.len() as u64);
                let file = file.try_clone().map_err(failed)?;
                Medium::new(FileImage { file, start, size }, Form::Whole)
            }
            None => Medium::new(state.bytes()[range].to_vec(), Form::Whole),
        }),
        Source::Base { sectors: want, sector_size } => {
            used.push(slot);
            let slot_name = slot.name();
            let (medium, path) = medium(config, slot)?.ok_or(DiskError::Missing { slot: slot_name })?;
            let have = medium.sectors(sector_size);
            if have != want {
                return Err(DiskError::Other { slot: slot_name, path, have, want }.into());
            }
            Ok::<_, super::MachineError>(medium)
        }
    })?;
    for slot in [Slot::Hda, Slot::Hdb, Slot::Cdrom].into_iter().filter(|slot| !used.contains(slot)) {
        if let Some(path) = given(config, slot) {
            let (path, slot) = (path.display(), slot.name());
            warn!(target: "state", "`{path}` is not used: what is in {slot} is in the saved state");
        }
    }
    Ok(units)
}
