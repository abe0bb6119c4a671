//! Images: directories that hold a machine's configuration and its file system, or gzipped tar archives
//! of such directories.
//!
//! ```text
//! image.json   the configuration
//! fs.json      the index of the root file system that the guest sees over 9p
//! fs/NAME.bin  file contents, named by hash
//! ```
//!
//! Opening an image reads `image.json` only; contents are read when the guest asks for them.

mod archive;
mod blobs;
pub mod build;
pub mod check;
pub mod container;
pub mod create;
pub mod debian;
pub mod docker;
pub mod global;
pub mod kernel;
mod locate;
mod lock;
pub mod modules;
#[cfg(feature = "pull")]
pub mod oci;
#[cfg(feature = "pull")]
pub mod pull;
pub mod room;
mod scratch;
pub mod service;
mod staging;
mod tarball;
mod transfer;
mod watch;
#[cfg(feature = "pull")]
mod web;

pub use blobs::{BlobDir, BlobFileError};
pub use env86_core::{DEFAULT_CMDLINE, FileRef, ImageConfig};
pub use locate::{find, global_root};
pub use scratch::sweep_temporary;
pub use transfer::{export, export_to, import};
pub use watch::{Progress, Watch};

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use archive::Archive;
use lock::Lock;

/// The configuration's file name.
const CONFIG_FILE: &str = "image.json";
/// The file system index's file name.
const INDEX_FILE: &str = "fs.json";
/// The folder of file contents.
const BLOB_DIR: &str = "fs";
/// A saved state's file name.
const STATE_FILE: &str = "initial.state";
/// The same, compressed; it counts if both are there.
const COMPRESSED_STATE_FILE: &str = "initial.state.zst";
/// The folder of a state in parts, as `env86 prepare` leaves it.
const STATE_PART_DIR: &str = "state";
/// Parts are of 10 MiB, and a state has less than 2 GiB.
const MAX_STATE_PARTS: u64 = 256;

/// Why an image cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A path argument that leads nowhere.
    #[error("No image at `{}`; give the path of an image directory, or make one with `env86 create`", .0.display())]
    NoSuchPath(PathBuf),
    /// A global image that does not exist.
    #[error("Global image not found: `{name}`{}; for a directory here, write ./{name}", looked_in(.looked))]
    NoSuchName {
        /// The name as given.
        name: String,
        /// The directories tried.
        looked: Vec<PathBuf>,
    },
    /// The image is a file of some other kind.
    #[error("`{}` is a file, but no .tgz of an image directory; make an image with `env86 create`", .0.display())]
    NotAnImage(PathBuf),
    /// The archive cannot be unpacked.
    #[error("Cannot unpack the image `{}`", path.display())]
    Unpack {
        /// The archive.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive cannot be written anew.
    #[error("Cannot write the image `{}`; what was there before is still there", path.display())]
    Pack {
        /// The archive.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that every image must have is not there.
    #[error(
        "`{}` is missing, so this is not a complete env86 image; make it again with `env86 create`",
        .0.display()
    )]
    Missing(PathBuf),
    /// A file of the image cannot be read.
    #[error("Cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the image does not hold what it should.
    #[error("`{}` is malformed; correct it, or make the image again with `env86 create`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: serde_json::Error,
    },
    /// `image.json` speaks of more parts of a state than there can be.
    #[error("`{}`: initial_state_parts is {parts}, and a state has at most 256 parts", config.display())]
    StateParts {
        /// The configuration file.
        config: PathBuf,
        /// What it says.
        parts: u64,
    },
    /// `image.json` names a file that is not inside the image.
    #[error("`{}`: {key} names `{url}`, which is not a file inside the image; use ./NAME", config.display())]
    Outside {
        /// The configuration file.
        config: PathBuf,
        /// The key.
        key: &'static str,
        /// What it names.
        url: String,
    },
}

fn looked_in(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    if paths.is_empty() { String::new() } else { format!(" (looked for {})", paths.join(" and ")) }
}

/// An image that has been opened: a directory, or a gzipped tar archive of one.
#[derive(Clone, Debug)]
pub struct Image {
    dir: PathBuf,
    /// The archive that `dir` was unpacked from, which goes with the last copy of this.
    archive: Option<Arc<Archive>>,
    users: Arc<Mutex<Users>>,
    /// What `image.json` says.
    pub config: ImageConfig,
}

impl Image {
    /// Opens the image that a command-line argument means: see [`find`].
    pub fn open_arg(arg: &str) -> Result<Self, ImageError> {
        Self::open(find(arg, global_root().as_deref())?)
    }

    /// Opens an image. An archive is unpacked to a folder of its own until it is closed.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let mut dir = dir.into();
        let mut archive = None;
        match fs::metadata(&dir) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                let unpacked = Archive::unpack(dir)?;
                dir = unpacked.dir().into();
                archive = Some(Arc::new(unpacked));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ImageError::NoSuchPath(dir)),
            Err(source) => return Err(ImageError::Read { path: dir, source }),
        }
        let path = dir.join(CONFIG_FILE);
        let text = read(&path)?;
        match serde_json::from_slice(&text) {
            Ok(config) => Ok(Self { dir, archive, users: Arc::default(), config }),
            Err(source) => Err(ImageError::Malformed { path, source }),
        }
    }

    /// Keeps others from removing the image, as long as what this gives is there: a machine needs the files.
    pub fn hold(&self) -> Result<Held, ImageError> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.count == 0 {
            users.lock = self.lock()?;
        }
        users.count += 1;
        Ok(Held(self.clone()))
    }

    fn lock(&self) -> Result<Option<Lock>, ImageError> {
        lock::shared(self.path()).map_err(|_| ImageError::NoSuchPath(self.path().into()))
    }

    /// What the user knows the image as: its directory or archive.
    pub fn path(&self) -> &Path {
        self.archive.as_ref().map_or(&self.dir, |archive| archive.path())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of the file system index, whether it exists or not.
    pub fn index_path(&self) -> PathBuf {
        self.dir.join(INDEX_FILE)
    }

    /// The file system index (`fs.json`) as text.
    pub fn read_index(&self) -> Result<Vec<u8>, ImageError> {
        read(&self.index_path())
    }

    /// The file contents.
    pub fn blobs(&self) -> BlobDir {
        BlobDir::new(self.dir.join(BLOB_DIR))
    }

    /// The files of the saved state to resume, in their order, if the image holds one.
    pub fn state_files(&self) -> Result<Option<Vec<PathBuf>>, ImageError> {
        let own = [COMPRESSED_STATE_FILE, STATE_FILE].map(|name| self.dir.join(name));
        if let Some(path) = own.into_iter().find(|path| path.exists()) {
            return Ok(Some(vec![path]));
        }
        if let Some(file) = &self.config.initial_state {
            return Ok(Some(vec![self.path_of_ref("initial_state", file)?]));
        }
        let parts = self.config.initial_state_parts.unwrap_or(0);
        if parts > MAX_STATE_PARTS {
            return Err(ImageError::StateParts { config: self.dir.join(CONFIG_FILE), parts });
        }
        let part = |i| self.dir.join(STATE_PART_DIR).join(format!("{STATE_FILE}.{i}"));
        Ok((parts > 0).then(|| (0..parts).map(part).collect()))
    }

    /// It holds a saved state.
    pub fn has_state(&self) -> bool {
        self.state_files().is_ok_and(|files| files.is_some())
    }

    /// Where the machine is saved: compressed if the state that is there is.
    pub fn state_to_write(&self) -> PathBuf {
        let compressed = self.dir.join(COMPRESSED_STATE_FILE);
        if compressed.exists() { compressed } else { self.dir.join(STATE_FILE) }
    }

    /// Keeps the state that was written to [`Image::state_to_write`]: an archive is written anew.
    pub fn keep_state(&self) -> Result<(), ImageError> {
        match &self.archive {
            Some(archive) => archive.replace_files(&[STATE_FILE, COMPRESSED_STATE_FILE])?,
            None => return Ok(()),
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.count > 0 {
            // The lock was that of the file that has been replaced.
            users.lock = self.lock()?;
        }
        Ok(())
    }

    /// Reads a file that the configuration names under `key`. Only files inside the image can be
    /// named: an image from elsewhere must not reach the host's files.
    pub fn read_ref(&self, key: &'static str, file: &FileRef) -> Result<Vec<u8>, ImageError> {
        read(&self.path_of_ref(key, file)?)
    }

    /// The path of a file that the configuration names under `key`.
    pub fn path_of_ref(&self, key: &'static str, file: &FileRef) -> Result<PathBuf, ImageError> {
        let url = file.url.as_deref().unwrap_or_default();
        let relative = url.strip_prefix("/image/").unwrap_or(url);
        let path = Path::new(relative);
        let inside = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if relative.is_empty() || relative.contains("://") || !inside {
            let config = self.dir.join(CONFIG_FILE);
            return Err(ImageError::Outside { config, key, url: url.into() });
        }
        Ok(self.dir.join(path))
    }

    /// The files that are what the configuration names under `key`: one, or those that a disk in parts lies in,
    /// `STEM-START-END.EXT` for `STEM.EXT`.
    pub fn files_of_ref(&self, key: &'static str, file: &FileRef) -> Result<Vec<PathBuf>, ImageError> {
        let path = self.path_of_ref(key, file)?;
        let mut files = Vec::new();
        if file.other.get("use_parts").is_some_and(|parts| *parts == true) {
            let dir = path.parent().unwrap_or(&self.dir);
            let wrong = |source| ImageError::Read { path: dir.into(), source };
            let stem = format!("{}-", path.file_stem().unwrap_or_default().to_string_lossy());
            for entry in fs::read_dir(dir).map_err(wrong)? {
                let name = entry.map_err(wrong)?.file_name();
                if name.to_string_lossy().starts_with(&stem) {
                    files.push(dir.join(name));
                }
            }
        } else if path.is_file() {
            files.push(path.clone());
        }
        if files.is_empty() { Err(ImageError::Missing(path)) } else { Ok(files) }
    }
}

/// The machines of this process that use an image, and the lock that tells other processes of them.
#[derive(Debug, Default)]
struct Users {
    count: usize,
    lock: Option<Lock>,
}

/// An image that is not removed as long as this is there.
#[derive(Debug)]
pub struct Held(Image);

impl Drop for Held {
    fn drop(&mut self) {
        let mut users = self.0.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.count -= 1;
        if users.count == 0 {
            users.lock = None;
        }
    }
}

/// Reads a file that the image must have.
fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ImageError::Missing(path.into()),
        _ => ImageError::Read { path: path.into(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(error: &ImageError) -> String {
        std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    }

    #[test]
    fn an_empty_directory_is_no_image() {
        let dir = tempfile::tempdir().unwrap();
        let error = Image::open(dir.path()).unwrap_err();
        assert!(message(&error).contains("image.json` is missing"), "{error}");
    }

    #[test]
    fn a_malformed_configuration_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image.json"), "{\n\"cmdline\": 5}").unwrap();
        let error = message(&Image::open(dir.path()).unwrap_err());
        assert!(error.contains("image.json") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_file_is_not_an_image() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Image::open(file.path()), Err(ImageError::NotAnImage(_))));
    }

    #[test]
    fn references_stay_inside_the_image() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image.json"), "{}").unwrap();
        fs::write(dir.path().join("k.bin"), "kernel").unwrap();
        let image = Image::open(dir.path()).unwrap();
        let named = |url: &str| FileRef { url: Some(url.into()), ..FileRef::default() };
        assert_eq!(image.read_ref("bzimage", &named("./k.bin")).unwrap(), b"kernel");
        assert_eq!(image.read_ref("bzimage", &named("/image/k.bin")).unwrap(), b"kernel");
        for url in ["", "/etc/passwd", "../x", "./a/../../x", "https://example.org/k"] {
            let error = image.read_ref("bzimage", &named(url)).unwrap_err();
            assert!(matches!(error, ImageError::Outside { .. }), "{url}: {error}");
        }
        assert!(matches!(image.read_ref("bzimage", &named("./none")), Err(ImageError::Missing(_))));
    }
}
