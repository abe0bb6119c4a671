//! Making an image from a directory tree, which is left as it is, or from a tar stream.
//!
//! A name either holds a whole image or nothing.

mod from_packages;
mod from_tar;
pub(super) mod index;
pub(super) mod store;
mod walk;

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

pub(super) use self::from_packages::{fill_with_packages, unpack as unpack_package};
pub(super) use self::from_tar::{INITS, SHELL, unpacked};
pub use self::from_tar::{Layer, from_layers, from_tar};
use self::index::{Entry, FORMAT_VERSION, Index};
use self::store::Stored;
pub use super::watch::Progress;

use super::modules::Chosen;
use super::service::GuestService;
use super::staging::{Staging, parent_of};
use super::tarball::TarError;
use super::watch::{NEVER, Watch};
use super::{BLOB_DIR, CONFIG_FILE, DEFAULT_CMDLINE, INDEX_FILE, ImageConfig};
use env86_core::kernel::{self, is_initrd, is_kernel};

/// Hexadecimal digits of a hash in a blob's name, as every tool of this format has it.
const HASH_DIGITS: usize = 8;

/// Why an image could not be made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// The target is taken.
    #[error("Image filepath already exists: `{}`; remove it or choose another name", .0.display())]
    Exists(PathBuf),
    /// The source is not a directory.
    #[error("`{}` is not a directory; --from-dir wants the root of a file tree", .0.display())]
    NotADirectory(PathBuf),
    /// The image would lie in its own source.
    #[error("The image `{}` would be inside the tree it is made from; choose a place outside", .0.display())]
    InsideSource(PathBuf),
    /// A file or directory of the tree cannot be read.
    #[error("Cannot read `{}`; run as a user who may, or remove it from the tree", path.display())]
    Read {
        /// What could not be read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A name or link target that fs.json cannot hold.
    #[error("The name of `{}` is not UTF-8, which fs.json cannot hold; rename it", .0.display())]
    NotUtf8(PathBuf),
    /// Directories are nested too deep.
    #[error("`{}` is nested too deep (more than {max} directories); move it up", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
    /// The image cannot be written.
    #[error("Cannot write `{}`; is the place writable and the disk not full?", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A tar stream cannot be read.
    #[error("{what} cannot be read as a tar archive")]
    Tar {
        /// What it is called.
        what: String,
        /// Why not.
        source: TarError,
    },
    /// Something in a tar archive has no place in an image.
    #[error("{what} has `{}`, and {why}", path.escape_debug())]
    Member {
        /// What the archive is called.
        what: String,
        /// The path in it.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A tar archive is compressed in another way.
    #[error("{what} is compressed; give what `{program} -dc` makes of it, by a pipe")]
    Compressed {
        /// What the archive is called.
        what: String,
        /// The program that unpacks it.
        program: &'static str,
    },
    /// A tar archive has too much in it.
    #[error("The files in {what} have more than {limit} bytes")]
    TooLarge {
        /// What the archive is called.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A layer is not the one that the container image is of.
    #[error("{what} has the SHA-256 {have} when it is unpacked, and not {want}")]
    Sum {
        /// What it is called.
        what: String,
        /// What it has.
        have: String,
        /// What it should have.
        want: String,
    },
    /// All places where guest86 could be are taken.
    #[error(
        "The tree has no place for guest86: there is something of that name in `/` and in its folders of programs"
    )]
    NoPlace,
    /// Asked to stop.
    #[error("Interrupted; no image was made")]
    Interrupted,
}

impl CreateError {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.into(), source }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.into(), source }
    }
}

/// How an image is made.
#[derive(Clone)]
pub struct Options<'a> {
    /// Told how far the work is.
    pub progress: &'a dyn Progress,
    /// Set to end the work with [`CreateError::Interrupted`].
    pub interrupt: &'a AtomicBool,
    /// Owner and group of every entry, instead of those of the source.
    pub owner: Option<(u32, u32)>,
    /// Bytes that the files of a tar archive may have.
    pub limit: u64,
    /// What is put into the image beside what is in its source.
    pub guest: Option<&'a GuestService>,
    /// Kernel modules that are put into the image, unless it is made from a directory, which can have them itself.
    pub modules: Option<&'a Chosen>,
    /// Digits in blob names; tests shorten them to see collisions.
    #[doc(hidden)]
    pub hash_digits: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            progress: &(),
            interrupt: &NEVER,
            owner: None,
            limit: u64::MAX,
            guest: None,
            modules: None,
            hash_digits: HASH_DIGITS,
        }
    }
}

impl<'a> Options<'a> {
    pub(super) fn watch(&self) -> Watch<'a> {
        Watch { progress: self.progress, interrupt: self.interrupt }
    }

    pub(super) fn check_interrupt(&self) -> Result<(), CreateError> {
        if self.interrupt.load(Ordering::Relaxed) { Err(CreateError::Interrupted) } else { Ok(()) }
    }
}

/// What went into an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries of the tree, without its root.
    pub entries: u64,
    /// Bytes of the tree, hard links counted once.
    pub bytes: u64,
    /// Different file contents stored.
    pub blobs: u64,
    /// Sockets, which have no place in an image.
    pub sockets_skipped: u64,
    /// Files whose extended attributes and access control lists were left out.
    pub attributes_skipped: u64,
}

/// A tree whose contents have been stored.
pub(super) struct Made {
    /// The entries of its root, without the names of their contents.
    pub entries: Vec<Entry>,
    /// Which of the contents each file has, in the order of the files.
    pub visits: Vec<usize>,
    /// The contents.
    pub blobs: Stored,
    /// Entries in all.
    pub count: u64,
    /// Sockets that were left out.
    pub sockets: u64,
    /// Files whose extended attributes were left out.
    pub attributes: u64,
    /// Added to the kernel's command line: which program is started first, where the kernel would find none.
    pub init: Option<&'static str>,
    /// That is guest86.
    pub has_guest: bool,
}

/// Makes the image directory `image` from the tree at `source`.
pub fn from_dir(source: &Path, image: &Path, options: &Options) -> Result<Summary, CreateError> {
    check_places(source, image)?;
    let mut tree = walk::walk(source, options)?;
    let guest = options.guest.map(|guest| tree.put(guest, options.owner).ok_or(CreateError::NoPlace));
    let init = guest.transpose()?;
    options.progress.total(tree.bytes_to_read());
    make(image, options, ImageConfig::default(), |dir| {
        let blobs = store::store(&tree.files, dir, options)?;
        let walk::Tree { entries, visits, count, sockets, .. } = tree;
        Ok(Made { entries, visits, blobs, count, sockets, attributes: 0, init, has_guest: init.is_some() })
    })
}

/// Makes an image of what `contents` puts into its folder of blobs, whole or not at all.
fn make(
    image: &Path,
    options: &Options,
    config: ImageConfig,
    contents: impl FnOnce(&Path) -> Result<Made, CreateError>,
) -> Result<Summary, CreateError> {
    staged(image, &options.watch(), |folder| fill(folder, config, contents))
}

/// Makes an image of what `fill` puts into its folder, whole or not at all.
pub(super) fn staged<T, E: From<CreateError>>(
    image: &Path,
    watch: &Watch,
    fill: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let staging = Staging::new(image).map_err(|(path, source)| CreateError::Write { path, source })?;
    let filled = fill(staging.path())?;
    watch.check().map_err(|_| CreateError::Interrupted)?;
    staging.publish(image).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CreateError::Exists(image.into()),
        _ => CreateError::write(image)(source),
    })?;
    Ok(filled)
}

/// Makes what is in an image's folder, of what `contents` puts into its folder of blobs.
pub(super) fn fill(
    folder: &Path,
    config: ImageConfig,
    contents: impl FnOnce(&Path) -> Result<Made, CreateError>,
) -> Result<Summary, CreateError> {
    let blob_dir = folder.join(BLOB_DIR);
    fs::create_dir(&blob_dir).map_err(CreateError::write(&blob_dir))?;
    let Made { mut entries, visits, blobs, count, sockets, attributes, init, has_guest } =
        contents(&blob_dir)?;
    let size = index::fill_in(&mut entries, &mut visits.iter().map(|&at| (at, &blobs.files[at])));

    let cmdline = config.cmdline.unwrap_or_else(|| DEFAULT_CMDLINE.into());
    let config = ImageConfig {
        cmdline: Some(match init {
            Some(init) => format!("{cmdline} {init}"),
            None => cmdline,
        }),
        has_guest_service: has_guest || config.has_guest_service,
        bzimage_initrd_from_filesystem: config.bzimage.is_none() && has_kernel(&entries),
        ..config
    };
    let json = serde_json::to_vec_pretty(&config).map_err(io::Error::from);
    write_file(&folder.join(CONFIG_FILE), |out| out.write_all(&json?))?;
    let summary = Summary {
        entries: count,
        bytes: size,
        blobs: blobs.distinct,
        sockets_skipped: sockets,
        attributes_skipped: attributes,
    };
    let index = Index { fsroot: entries, size, version: FORMAT_VERSION };
    write_file(&folder.join(INDEX_FILE), |out| {
        serde_json::to_writer(&mut *out, &index)?;
        out.write_all(b"\n")
    })?;
    Ok(summary)
}

/// Refuses an image that exists.
pub(super) fn new_place(image: &Path) -> Result<(), CreateError> {
    match fs::symlink_metadata(image) {
        Ok(_) => Err(CreateError::Exists(image.into())),
        Err(_) => Ok(()),
    }
}

/// Refuses a source that is no directory and an image that exists or would be part of the source.
fn check_places(source: &Path, image: &Path) -> Result<(), CreateError> {
    new_place(image)?;
    let meta = fs::metadata(source).map_err(CreateError::read(source))?;
    if !meta.is_dir() {
        return Err(CreateError::NotADirectory(source.into()));
    }
    let source = fs::canonicalize(source).map_err(CreateError::read(source))?;
    let parent = parent_of(image);
    let parent = fs::canonicalize(parent).map_err(CreateError::write(parent))?;
    if parent.starts_with(source) { Err(CreateError::InsideSource(image.into())) } else { Ok(()) }
}

/// Whether both a kernel and an initial RAM disk are in `/` or `/boot`.
pub(super) fn has_kernel(root: &[Entry]) -> bool {
    let boot = root.iter().find(|e| e.name == kernel::BOOT_DIR).and_then(Entry::children).unwrap_or_default();
    let any = |wanted: fn(&str) -> bool| root.iter().chain(boot).any(|e| e.is_loadable() && wanted(&e.name));
    any(is_kernel) && any(is_initrd)
}

fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<fs::File>) -> io::Result<()>,
) -> Result<(), CreateError> {
    let write = || {
        let mut out = BufWriter::new(fs::File::create(path)?);
        fill(&mut out)?;
        out.into_inner()?.sync_all()
    };
    write().map_err(CreateError::write(path))
}
