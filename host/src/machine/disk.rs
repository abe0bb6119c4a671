//! Disk images: files that are opened, and read only when the guest reads its disk. They have the bytes of the
//! disk as they are, or are qcow2 images.

use std::error::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::task::Poll;

use env86_core::{Drive, MediaStore};
use env86_devices::floppy;
use env86_devices::ide::{DiskImage, DiskImageError, Form, Medium, NoPlace, Units};
use env86_devices::state::{Slot, Source};
use env86_devices::virtio::block;
use thiserror::Error;
use tracing::warn;

use super::builder::MachineBuilder;
use super::overlay::Overlay;
use super::parts::Parts;
use super::qcow2::Qcow2;
use super::state::StateFile;
use super::threaded::Threaded;
use crate::image::{self, FileRef};
use crate::os::{read_exact_at, write_all_at, write_parts_at};

/// An image given by the user that has as many bytes is not put into states, as v86 does it with files.
const LAZY_FROM: u64 = 256 << 20;
/// An image that has as many fits into no state.
const STATE_LIMIT: u64 = 1 << 31;
/// The keys by which v86 reads an image in parts, and of how many bytes.
const USE_PARTS: &str = "use_parts";
const PART_SIZE: &str = "fixed_chunk_size";
/// The key by which a floppy disk is write-protected.
const READ_ONLY: &str = "read_only";
/// The name ending of images that v86 unpacks.
const COMPRESSED: &str = ".zst";

/// How images begin that the crate imago does not bring, or only with other files that they name; what they are.
const FOREIGN: [(&[u8], &str); 5] = [
    (b"KDMV", "a VMDK image"),
    (b"# Disk DescriptorFile", "a VMDK image"),
    (b"conectix", "a VHD image"),
    (b"vhdxfile", "a VHDX image"),
    (b"<<< ", "a VDI image"),
];

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
    /// Another machine writes to it, or reads it while it is to be written to.
    #[error("The disk image `{}` is in use by another machine", .0.display())]
    InUse(PathBuf),
    /// It cannot be written to.
    #[error("What is written to {slot} cannot be kept in `{}`, because the image is {what}", path.display())]
    NotKept {
        /// The drive.
        slot: &'static str,
        /// The image.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// An overlay is of another image, or none.
    #[error("`{}` is no overlay of a disk image of {size} bytes; each image needs its own", path.display())]
    OtherOverlay {
        /// The file.
        path: PathBuf,
        /// Bytes of the image at hand.
        size: u64,
    },
    /// There is no disk.
    #[error("There is no hard disk that could keep what the guest writes")]
    NothingToKeep,
    /// There is nothing in it.
    #[error("The disk image `{}` is empty; make one of some size, with `truncate -s 100M FILE` for example", .0.display())]
    Empty(PathBuf),
    /// It is no floppy disk.
    #[error("The disk image `{}` is no floppy disk", path.display())]
    Floppy {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: floppy::FloppyError,
    },
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
    /// It is a qcow2 image that cannot be read.
    #[error(
        "The qcow2 image `{}` is damaged, or of a kind that is not known here; `qemu-img check` says more, and \
         `qemu-img convert -O qcow2` copies it", path.display()
    )]
    Qcow2 {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a qcow2 image that is encrypted.
    #[error(
        "The qcow2 image `{}` is encrypted, which cannot be read here; `qemu-img convert -O qcow2` makes one of it \
         that is not", .0.display()
    )]
    Encrypted(PathBuf),
    /// It is a qcow2 image that has not all of the disk.
    #[error(
        "The qcow2 image `{}` has only a part of the disk, and the rest is in `{other}`; `qemu-img convert -O qcow2` \
         makes one image of both", path.display()
    )]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The other file, as the image names it.
        other: String,
    },
    /// It is an image of another program, in a form that is not known here.
    #[error(
        "The disk image `{}` is {kind}, which cannot be read here; `qemu-img convert -O qcow2` makes one of it that can",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A slave without a master.
    #[error("A second hard disk (hdb) needs a first one (hda)")]
    Slave,
    /// There are more drives than places.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
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

/// The bytes of a disk in a file, which is locked: several machines may read one, or one may write to it.
#[derive(Debug)]
pub(super) struct FileImage {
    // What is to be written when it is dropped is written before the lock ends.
    content: Content,
    size: u64,
    _lock: Option<Lock>,
}

/// How they lie in the file.
#[derive(Debug)]
enum Content {
    /// As they are, from a byte of the file on.
    Raw { file: File, start: u64 },
    /// In clusters, which tables lead to.
    Qcow2(Box<Qcow2>),
}

impl DiskImage for FileImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        Poll::Ready(self.read_at(offset, buf).map_err(|error| DiskImageError(error.to_string())))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DiskImageError> {
        let written = match &self.content {
            Content::Raw { file, start } => write_all_at(file, data, start.saturating_add(offset)),
            Content::Qcow2(image) => image.write_at(offset, data),
        };
        written.map_err(|error| DiskImageError(error.to_string()))
    }

    fn write_parts(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskImageError> {
        let written = match &self.content {
            Content::Raw { file, start } => write_parts_at(file, parts, start.saturating_add(offset)),
            Content::Qcow2(image) => image.write_at(offset, &parts.concat()),
        };
        written.map_err(|error| DiskImageError(error.to_string()))
    }

    fn flush(&self) -> Result<(), DiskImageError> {
        let flushed = match &self.content {
            Content::Raw { file, .. } => file.sync_data(),
            Content::Qcow2(image) => image.flush(),
        };
        flushed.map_err(|error| DiskImageError(error.to_string()))
    }
}

/// A lock of a file. It ends with this and not with the file: a process that another thread of this program begins has
/// the file, too, until it is another program.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // The file system that would not lock it has nothing to unlock.
        let _ = self.0.unlock();
    }
}

/// Opens a file and locks it, so that one machine writes to it, or several read it.
pub(super) fn open(path: &Path, options: &OpenOptions, write: bool) -> Result<(File, Lock), DiskError> {
    let failed = |source| DiskError::Open { path: path.into(), source };
    let file = options.open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    match if write { file.try_lock() } else { file.try_lock_shared() } {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(DiskError::InUse(path.into())),
        Err(TryLockError::Error(source)) if write => return Err(failed(source)),
        // A file system without locks, where at least this machine does not write.
        Err(TryLockError::Error(_)) => {}
    }
    let lock = Lock(file.try_clone().map_err(failed)?);
    Ok((file, lock))
}

fn begins(file: &File, magic: &[u8]) -> bool {
    let mut bytes = vec![0; magic.len()];
    read_exact_at(file, &mut bytes, 0).is_ok() && bytes == magic
}

impl FileImage {
    /// Opens a file, to be written to or only read. How it begins tells a qcow2 image, and those that are not known
    /// here, from the plain bytes of a disk.
    pub fn open(path: &Path, write: bool) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Open { path: path.into(), source };
        let (mut file, lock) = open(path, File::options().read(true).write(write), write)?;
        let (content, size) = if Qcow2::is_in(&file) {
            let image = Qcow2::open(file, path, write)?;
            let size = image.size();
            (Content::Qcow2(image.into()), size)
        } else if let Some((_, kind)) = FOREIGN.iter().find(|(magic, _)| begins(&file, magic)) {
            return Err(DiskError::Foreign { path: path.into(), kind });
        } else {
            // A device has no length, but an end.
            let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
            (Content::Raw { file, start: 0 }, size)
        };
        if size == 0 {
            Err(DiskError::Empty(path.into()))
        } else {
            Ok(Self { content, size, _lock: Some(lock) })
        }
    }

    /// Fills a buffer from byte `offset` on.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.content {
            Content::Raw { file, start } => read_exact_at(file, buf, start.saturating_add(offset)),
            Content::Qcow2(image) => image.read_at(offset, buf),
        }
    }

    /// A medium of a user's file.
    fn medium(self) -> Medium {
        let form = if self.size >= LAZY_FROM { Form::Written } else { Form::Whole };
        Medium::new(self, form)
    }
}

/// The discs that are put into drives while the machine runs: files, by their paths.
pub(super) struct Files;

impl MediaStore for Files {
    fn open(&mut self, drive: Drive, name: &str) -> Result<Medium, Box<dyn Error + Send + Sync>> {
        match drive {
            Drive::Cdrom | Drive::Fda | Drive::Fdb => Ok(FileImage::open(Path::new(name), false)?.medium()),
        }
    }
}

/// The user's image for a drive.
fn given(config: &MachineBuilder, slot: Slot) -> Option<&Path> {
    match slot {
        Slot::Hda => config.hda.as_deref(),
        Slot::Hdb => config.hdb.as_deref(),
        Slot::Hdc => config.hdc.as_deref(),
        Slot::Hdd => config.hdd.as_deref(),
        Slot::Cdrom => config.cdrom.as_deref(),
        Slot::Fda => config.fda.as_deref(),
        Slot::Fdb => config.fdb.as_deref(),
        Slot::VirtioDisk => config.virtio_disk.as_deref(),
    }
}

/// The image's image for a drive.
fn named(image: &image::Image, slot: Slot) -> Option<&FileRef> {
    match slot {
        Slot::Hda => image.config.hda.as_ref(),
        Slot::Hdb => image.config.hdb.as_ref(),
        Slot::Hdc => image.config.hdc.as_ref(),
        Slot::Hdd => image.config.hdd.as_ref(),
        Slot::Cdrom => image.config.cdrom.as_ref(),
        Slot::Fda => image.config.fda.as_ref(),
        Slot::Fdb => image.config.fdb.as_ref(),
        Slot::VirtioDisk => image.config.virtio_blk.as_ref(),
    }
}

/// Where what the guest writes is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep<'a> {
    /// In memory, and in saved states.
    Nowhere,
    /// In the image.
    Itself,
    /// In this overlay.
    Overlay(&'a Path),
}

impl<'a> Keep<'a> {
    fn of(config: &'a MachineBuilder, slot: Slot) -> Self {
        match (slot, &config.overlay) {
            (Slot::Hda, Some(path)) => Self::Overlay(path),
            (Slot::Cdrom, _) => Self::Nowhere,
            _ if config.persist => Self::Itself,
            _ => Self::Nowhere,
        }
    }

    /// The medium of an image; `volatile` makes it where nothing is kept.
    fn medium(
        self,
        image: FileImage,
        volatile: impl FnOnce(FileImage) -> Medium,
    ) -> Result<Medium, DiskError> {
        Ok(match self {
            Self::Nowhere => volatile(image),
            Self::Itself => Medium::written_through(image),
            Self::Overlay(path) => Medium::written_through(Overlay::open(image, path)?),
        })
    }
}

/// What is to be in a drive, and where that is: what the user says, else what the image says.
fn medium(config: &MachineBuilder, slot: Slot) -> Result<Option<(Medium, PathBuf)>, super::MachineError> {
    if let Some((_, medium)) = config.media.iter().rfind(|(other, _)| *other == slot) {
        return Ok(Some((medium.clone(), slot.name().into())));
    }
    let keep = Keep::of(config, slot);
    if let Some(path) = given(config, slot) {
        let file = FileImage::open(path, keep == Keep::Itself)?;
        return Ok(Some((keep.medium(file, FileImage::medium)?, path.into())));
    }
    let Some((image, file)) = config.image.as_ref().and_then(|image| Some((image, named(image, slot)?)))
    else {
        return Ok(None);
    };
    let (path, slot) = (image.path_of_ref(slot.name(), file)?, slot.name());
    let not_kept = |what| DiskError::NotKept { slot, path: path.clone(), what };
    if keep == Keep::Itself && image.dir() != image.path() {
        return Err(not_kept("in an archive").into());
    }
    if file.other.get(USE_PARTS).is_some_and(|value| *value != false) {
        let part = file.other.get(PART_SIZE).and_then(serde_json::Value::as_u64);
        let (Some(size), Some(part)) = (file.size, part) else {
            return Err(DiskError::Parts { slot }.into());
        };
        if keep != Keep::Nowhere {
            return Err(not_kept("in parts").into());
        }
        let mut parts = Parts::open(&path, size, part)?;
        let image = Threaded::new(size, Box::new(move |offset, buf| parts.read(offset, buf)))
            .map_err(|source| DiskError::Open { path: path.clone(), source })?;
        return Ok(Some((Medium::new(image, Form::Written), path)));
    }
    if path.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes()) {
        return Err(DiskError::Compressed { slot }.into());
    }
    let mut content = FileImage::open(&path, keep == Keep::Itself)?;
    if let Some(want) = file.size {
        let have = content.size;
        if have < want {
            return Err(DiskError::Short { path, have, want }.into());
        }
        content.size = want;
    }
    let medium = keep.medium(content, |content| {
        // v86 has an image in memory unless it is told not to; one that is too large for that, nowhere.
        let lazy = file.lazy || content.size >= STATE_LIMIT;
        Medium::new(content, if lazy { Form::Written } else { Form::Whole })
    })?;
    Ok(Some((medium, path)))
}

/// The drives of a machine that is switched on.
pub(super) fn units(config: &MachineBuilder) -> Result<Units, super::MachineError> {
    let open = |slot| medium(config, slot).map(|found| found.map(|(medium, _)| medium));
    let (hda, hdb, cdrom) = (open(Slot::Hda)?, open(Slot::Hdb)?, open(Slot::Cdrom)?);
    let (hdc, hdd) = (open(Slot::Hdc)?, open(Slot::Hdd)?);
    if hda.is_none() && hdb.is_some() {
        return Err(DiskError::Slave.into());
    }
    let others = [Slot::Fda, Slot::Fdb, Slot::Hdc, Slot::Hdd, Slot::VirtioDisk];
    let other = others.into_iter().any(|slot| is_given(config, slot));
    if hda.is_none() && (config.persist && !other || config.overlay.is_some()) {
        return Err(DiskError::NothingToKeep.into());
    }
    Ok(Units::new(hda, hdb, cdrom).with_secondary(hdc, hdd).map_err(DiskError::from)?)
}

/// Something is to be in one of the drives.
pub(super) fn any(config: &MachineBuilder) -> bool {
    let hard_disks = [Slot::Hda, Slot::Hdb, Slot::Hdc, Slot::Hdd, Slot::VirtioDisk];
    let others = [Slot::Fda, Slot::Fdb, Slot::Cdrom];
    hard_disks.into_iter().chain(others).any(|slot| is_given(config, slot))
}

/// Something is to be in a drive.
fn is_given(config: &MachineBuilder, slot: Slot) -> bool {
    config.media.iter().any(|(other, _)| *other == slot)
        || given(config, slot).is_some()
        || config.image.as_ref().is_some_and(|image| named(image, slot).is_some())
}

/// What is in the floppy drives.
pub(super) fn floppies(config: &MachineBuilder) -> Result<[Option<floppy::Disk>; 2], super::MachineError> {
    let open = |slot| -> Result<_, super::MachineError> {
        let Some((medium, path)) = medium(config, slot)? else { return Ok(None) };
        let disk = floppy::Disk::of(medium);
        let mut disk = disk.map_err(|source| DiskError::Floppy { path, source })?;
        let named = config.image.as_ref().and_then(|image| named(image, slot));
        disk.write_protected = given(config, slot).is_none()
            && named.and_then(|file| file.other.get(READ_ONLY)).is_some_and(|value| *value == true);
        Ok(Some(disk))
    };
    Ok([open(Slot::Fda)?, open(Slot::Fdb)?])
}

/// The floppy drives of a machine that is resumed: what is in them is in its state. A file that keeps what is
/// written gets that.
pub(super) fn saved_floppies(
    config: &MachineBuilder,
) -> Result<[Option<floppy::Disk>; 2], super::MachineError> {
    if config.persist {
        return floppies(config);
    }
    for slot in [Slot::Fda, Slot::Fdb] {
        if let Some(path) = given(config, slot) {
            let (path, slot) = (path.display(), slot.name());
            warn!(target: "state", "`{path}` is not used: what is in {slot} is in the saved state");
        }
    }
    Ok([None, None])
}

/// What is in the virtio disk of a machine that is switched on.
pub(super) fn virtio_disk(config: &MachineBuilder) -> Result<Option<Medium>, super::MachineError> {
    Ok(medium(config, Slot::VirtioDisk)?.map(|(medium, _)| medium))
}

/// What is in the virtio disk of a machine that is resumed: the image that it was saved with.
pub(super) fn saved_virtio_disk(
    config: &MachineBuilder,
    state: &StateFile,
) -> Result<Option<Medium>, super::MachineError> {
    let slot = Slot::VirtioDisk.name();
    let Some(want) = state.plan.virtio_disk() else {
        if let Some(path) = given(config, Slot::VirtioDisk) {
            warn!(target: "state", "`{}` is not used: the saved machine has no virtio disk", path.display());
        }
        return Ok(None);
    };
    let (medium, path) = medium(config, Slot::VirtioDisk)?.ok_or(DiskError::Missing { slot })?;
    let have = medium.sectors(block::SECTOR);
    if have != want {
        return Err(DiskError::Other { slot, path, have, want }.into());
    }
    Ok(Some(medium))
}

/// The drives of a machine that is resumed: of those that the state does not hold as a whole, the images
/// that it was saved with.
pub(super) fn saved_units(config: &MachineBuilder, state: &StateFile) -> Result<Units, super::MachineError> {
    let mut used = Vec::new();
    let units = state.plan.units(|slot, source| match source {
        Source::State(_) if Keep::of(config, slot) != Keep::Nowhere => {
            let (path, what) = (state.path().into(), "in the saved state");
            Err(DiskError::NotKept { slot: slot.name(), path, what }.into())
        }
        Source::State(range) => Ok(match state.file() {
            Some(file) => {
                let failed = |source| DiskError::Open { path: state.path().into(), source };
                let (start, size) = (range.start as u64, range.len() as u64);
                let file = file.try_clone().map_err(failed)?;
                Medium::new(
                    FileImage { content: Content::Raw { file, start }, size, _lock: None },
                    Form::Whole,
                )
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
    let all = [Slot::Hda, Slot::Hdb, Slot::Hdc, Slot::Hdd, Slot::Cdrom];
    for slot in all.into_iter().filter(|slot| !used.contains(slot)) {
        if let Some(path) = given(config, slot) {
            let (path, slot) = (path.display(), slot.name());
            warn!(target: "state", "`{path}` is not used: what is in {slot} is in the saved state");
        }
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_although_another_process_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let open = || super::open(&path, File::options().write(true).create(true), true);
        let (file, lock) = open().unwrap();
        let inherited = file.try_clone().unwrap();
        drop((file, lock));
        assert!(open().is_ok());
        drop(inherited);
    }
}
