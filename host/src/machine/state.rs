//! Saved states as files: opened, decompressed, replaced without ever losing the old one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use env86_devices::state::{Container, PAGE, Plan, Saved, StateError, is_compressed};
use env86_emu::Memory;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use tracing::debug;

use super::mapped::{MappedFile, MappedRam};

/// The most bytes of a state, by its format.
const MAX_SIZE: u64 = i32::MAX as u64;
/// zstd's level for states: fast, and most of what there is to gain.
const LEVEL: i32 = 3;
/// The name ending of compressed states.
const COMPRESSED: &str = "zst";

/// Why a state's file cannot be used.
#[derive(Debug, Error)]
pub enum StateFileError {
    /// It cannot be read.
    #[error("Cannot read the saved state `{}`; check the path, or boot with --cold", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is too large to be one.
    #[error("`{}` has more than 2 GiB, which no saved state has; check the file", .0.display())]
    TooLarge(PathBuf),
    /// What is in it cannot be resumed.
    #[error("`{}`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: StateError,
    },
    /// The machine cannot be saved.
    #[error("The machine cannot be saved")]
    Save(#[from] StateError),
    /// The file cannot be written. An old one is still as it was.
    #[error("Cannot write the saved state `{}`; what was there before is still there", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What is in a state's file.
enum Bytes {
    Mapped(File, MappedFile),
    Owned(Vec<u8>),
}

/// A state that has been read and understood, and can be resumed.
pub struct StateFile {
    bytes: Bytes,
    /// What it says.
    pub plan: Plan,
}

impl StateFile {
    /// Opens a state that lies in one file, or in parts that follow each other.
    pub fn open(paths: &[PathBuf]) -> Result<Self, StateFileError> {
        let path = paths.first().cloned().unwrap_or_default();
        let bytes = match paths {
            [one] => open_one(one)?,
            _ => Bytes::Owned(join(paths)?),
        };
        let plan = {
            let container = Container::parse(bytes.get());
            container
                .and_then(|c| Plan::read(&c))
                .map_err(|source| StateFileError::Content { path, source })?
        };
        Ok(Self { bytes, plan })
    }

    /// The state's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// RAM with the state's content: mapped where that can be, else copied.
    pub fn memory(&self) -> Result<Memory, env86_emu::memory::MemoryError> {
        if let Bytes::Mapped(file, _) = &self.bytes {
            match MappedRam::new(file, &self.plan.pages) {
                Ok(ram) => return Memory::with_backing(Box::new(ram)),
                Err(error) => debug!(target: "state", %error, "Memory is copied, not mapped"),
            }
        }
        self.plan.pages.copy(self.bytes())
    }
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(_, file) => file.bytes(),
            Self::Owned(bytes) => bytes,
        }
    }
}

fn open_one(path: &Path) -> Result<Bytes, StateFileError> {
    let wrong = |source| StateFileError::Read { path: path.into(), source };
    let file = File::open(path).map_err(wrong)?;
    let meta = file.metadata().map_err(wrong)?;
    if meta.len() > MAX_SIZE {
        return Err(StateFileError::TooLarge(path.into()));
    }
    if !meta.is_file() || meta.len() == 0 {
        return Ok(Bytes::Owned(read(path, &file)?));
    }
    match MappedFile::open(&file, meta.len() as usize) {
        Ok(mapped) if is_compressed(mapped.bytes()) => Ok(Bytes::Owned(decompress(path, mapped.bytes())?)),
        Ok(mapped) => Ok(Bytes::Mapped(file, mapped)),
        // A file system that cannot map.
        Err(_) => {
            let bytes = read(path, &file)?;
            Ok(Bytes::Owned(if is_compressed(&bytes) { decompress(path, &bytes)? } else { bytes }))
        }
    }
}

fn read(path: &Path, file: impl Read) -> Result<Vec<u8>, StateFileError> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_SIZE + 1).read_to_end(&mut bytes);
    match read {
        Ok(len) if len as u64 > MAX_SIZE => Err(StateFileError::TooLarge(path.into())),
        Ok(_) => Ok(bytes),
        Err(source) => Err(StateFileError::Read { path: path.into(), source }),
    }
}

/// Decompresses one frame; what is behind it is not looked at.
fn decompress(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, StateFileError> {
    let decoder = zstd::stream::read::Decoder::with_buffer(bytes)
        .map_err(|source| StateFileError::Read { path: path.into(), source })?;
    read(path, decoder.single_frame())
}

/// Reads the parts of a state.
fn join(paths: &[PathBuf]) -> Result<Vec<u8>, StateFileError> {
    let mut all = Vec::new();
    for path in paths {
        let file = File::open(path).map_err(|source| StateFileError::Read { path: path.clone(), source })?;
        all.extend(read(path, file)?);
        if all.len() as u64 > MAX_SIZE {
            return Err(StateFileError::TooLarge(path.clone()));
        }
    }
    if is_compressed(&all) { decompress(paths.first().map_or(Path::new(""), |p| p), &all) } else { Ok(all) }
}

/// Writes a state so that there is always a whole one: what was there before stays until the new
/// one is on the disk, whatever happens. A name that ends in `.zst` asks for compression.
pub fn write(path: &Path, state: &Saved) -> Result<u64, StateFileError> {
    replace(path, |file| {
        if path.extension() == Some(OsStr::new(COMPRESSED)) {
            let mut encoder = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(state.len() as u64))?;
            state.pieces().try_for_each(|piece| encoder.write_all(piece))?;
            encoder.finish()?.flush()
        } else {
            write_pieces(file, state)
        }
    })
    .map_err(|source| StateFileError::Write { path: path.into(), source })
}

/// Writes a state plainly. Pages of zeros become holes.
fn write_pieces(file: &File, state: &Saved) -> io::Result<()> {
    /// Pieces up to this size are gathered.
    const SMALL: usize = 64 << 10;
    let mut out = BufWriter::with_capacity(2 * SMALL, file);
    for piece in state.pieces() {
        if piece.len() <= SMALL {
            out.write_all(piece)?
        } else {
            out.flush().and_then(|()| (&*file).write_all(piece))?
        }
    }
    let _ = PAGE;
    out.flush()
}

/// Replaces a file by what `fill` writes; gives its size.
fn replace(path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<u64> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    sweep(dir, name);
    let (temporary, file) = create_temporary(dir, name)?;
    let written = fill(&file).and_then(|()| file.sync_all()).and_then(|()| {
        let size = file.metadata()?.len();
        fs::rename(&temporary, path)?;
        // The new name is on the disk when the directory is.
        File::open(dir)?.sync_all()?;
        Ok(size)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// What temporary files for `name` begin with.
fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".new-");
    prefix
}

/// Makes a file of its own beside the one to be replaced, locked as long as it is open.
fn create_temporary(dir: &Path, name: &OsStr) -> io::Result<(PathBuf, File)> {
    const ATTEMPTS: u32 = 100;
    for attempt in 0..ATTEMPTS {
        let mut temporary = prefix(name);
        temporary.push(format!("{}-{attempt}", std::process::id()));
        let path = dir.join(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                // A file system without locks leaves nothing worse than litter behind.
                let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                return Ok((path, file));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes what programs that were killed have left behind: files that nobody has locked.
fn sweep(dir: &Path, name: &OsStr) {
    let prefix = prefix(name);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            debug!(target: "state", path = %path.display(), "Removing an unfinished state");
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("initial.state");
        replace(&path, |mut file| file.write_all(b"old")).unwrap();
        let failed = replace(&path, |mut file| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn litter_of_the_dead_is_swept_and_that_of_the_living_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let name = OsStr::new("s");
        let (dead, file) = create_temporary(dir.path(), name).unwrap();
        drop(file);
        let (alive, _file) = create_temporary(dir.path(), name).unwrap();
        replace(&dir.path().join("s"), |mut file| file.write_all(b"new")).unwrap();
        assert!(!dead.exists() && alive.exists());
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for content in [&b""[..], b"text", &[0; 100], &[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3]] {
            fs::write(&path, content).unwrap();
            assert!(StateFile::open(std::slice::from_ref(&path)).is_err());
        }
        assert!(matches!(StateFile::open(&[dir.path().join("none")]), Err(StateFileError::Read { .. })));
    }
}
