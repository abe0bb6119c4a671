//! Saved states as files: opened, decompressed, replaced without ever losing the old one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use env86_devices::state::{Checksums, Container, Plan, Saved, StateError, is_compressed};
use env86_emu::Memory;
use thiserror::Error;
use tracing::debug;

use crate::os::{Lost, MappedFile, MappedRam};
use crate::replace::replace;

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
    #[error("Cannot read the saved state `{}`", path.display())]
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
    /// It was whole when it was opened, and is not any more.
    #[error(
        "The saved state `{}`, which is the machine's memory, has been cut off by another program, or cannot be \
         read any more", .0.display()
    )]
    CutOff(PathBuf),
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
    path: PathBuf,
    bytes: Arc<Bytes>,
    lost: Lost,
    /// Compares the checksums. `None` once that is done.
    check: Option<JoinHandle<Result<(), StateError>>>,
    /// What it says.
    pub plan: Plan,
}

impl StateFile {
    /// Opens a state that lies in one file, or in parts that follow each other. A thread begins to compare the
    /// checksums of its memory, which takes as long as to build the machine: [`Self::verify`] is to be called
    /// before the machine runs.
    pub fn open(paths: &[PathBuf]) -> Result<Self, StateFileError> {
        let (path, lost) = (paths.first().cloned().unwrap_or_default(), Lost::default());
        let bytes = match paths {
            [one] => open_one(one, &lost)?,
            _ => Bytes::Owned(join(paths)?),
        };
        let bytes = Arc::new(bytes);
        let plan = Container::open(bytes.get()).and_then(|(container, checksums)| {
            let check = compare(checksums, &bytes)?;
            Ok((check, Plan::read(&container)))
        });
        let content = |source| StateFileError::Content { path: path.clone(), source };
        match plan {
            // What is wrong with a state that is being cut off says nothing.
            _ if lost.is_set() => Err(StateFileError::CutOff(path)),
            Ok((check, Ok(plan))) => Ok(Self { path, bytes, lost, check, plan }),
            // That it is damaged says more than what is found wrong in it.
            Ok((check, Err(error))) => Err(content(check.map_or(Ok(()), joined).err().unwrap_or(error))),
            Err(error) => Err(content(error)),
        }
    }

    /// Waits until all checksums have been compared; an error if one is not right.
    pub fn verify(&mut self) -> Result<(), StateFileError> {
        let sound = self.check.take().map_or(Ok(()), joined);
        self.source().check()?;
        sound.map_err(|source| StateFileError::Content { path: self.path.clone(), source })
    }

    /// Whether the file is still whole, as far as it or memory of it has been read.
    pub fn source(&self) -> StateSource {
        StateSource { path: self.path.clone(), lost: self.lost.clone() }
    }

    /// The state's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// The state's file, if it lies in one that holds nothing else.
    pub fn file(&self) -> Option<&File> {
        match &*self.bytes {
            Bytes::Mapped(file, _) => Some(file),
            Bytes::Owned(_) => None,
        }
    }

    /// The name of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// RAM with the state's content: mapped where that can be, else copied.
    pub fn memory(&self) -> Result<Box<Memory>, env86_emu::memory::MemoryError> {
        if let Bytes::Mapped(file, _) = &*self.bytes {
            match MappedRam::new(file, self.plan.pages(), &self.lost) {
                Ok(ram) => return Memory::with_backing(Box::new(ram)),
                Err(error) => debug!(target: "state", %error, "Memory is copied, not mapped"),
            }
        }
        self.plan.pages().copy(self.bytes())
    }
}

/// Where a machine's memory comes from.
#[derive(Clone, Debug)]
pub struct StateSource {
    path: PathBuf,
    lost: Lost,
}

impl StateSource {
    /// An error if some of it could not be read: what has been read since the last call is not to be relied
    /// on.
    pub fn check(&self) -> Result<(), StateFileError> {
        if self.lost.is_set() { Err(StateFileError::CutOff(self.path.clone())) } else { Ok(()) }
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

/// Compares checksums in a thread, or at once where there can be none.
fn compare(
    sums: Checksums,
    bytes: &Arc<Bytes>,
) -> Result<Option<JoinHandle<Result<(), StateError>>>, StateError> {
    let sums = Arc::new(sums);
    let check = {
        let (sums, bytes) = (sums.clone(), bytes.clone());
        move || sums.check(bytes.get())
    };
    match thread::Builder::new().name("checksums".into()).spawn(check) {
        Ok(check) => Ok(Some(check)),
        Err(_) => sums.check(bytes.get()).map(|()| None),
    }
}

fn joined(check: JoinHandle<Result<(), StateError>>) -> Result<(), StateError> {
    check.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn open_one(path: &Path, lost: &Lost) -> Result<Bytes, StateFileError> {
    let wrong = |source| StateFileError::Read { path: path.into(), source };
    let file = File::open(path).map_err(wrong)?;
    let meta = file.metadata().map_err(wrong)?;
    if meta.len() > MAX_SIZE {
        return Err(StateFileError::TooLarge(path.into()));
    }
    if !meta.is_file() || meta.len() == 0 {
        return Ok(Bytes::Owned(read(path, &file)?));
    }
    match MappedFile::open(&file, meta.len() as usize, lost) {
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

/// Writes a state as [`replace()`] does, but not that of a machine whose own source has been cut off. A name
/// that ends in `.zst` asks for compression.
pub fn write(path: &Path, state: &Saved, source: Option<&StateSource>) -> Result<u64, StateFileError> {
    let check = || source.map_or(Ok(()), StateSource::check);
    check()?;
    let written = replace(path, |file| {
        if path.extension() == Some(OsStr::new(COMPRESSED)) {
            let mut encoder = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(state.len() as u64))?;
            state.pieces().try_for_each(|piece| encoder.write_all(piece))?;
            encoder.finish()?.flush()?;
        } else {
            write_pieces(file, state)?;
        }
        check().map_err(io::Error::other)
    });
    // A write from a page that is gone fails, too, and this says why.
    check()?;
    written.map_err(|source| StateFileError::Write { path: path.into(), source })
}

/// Writes a state plainly.
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
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use env86_devices::state::{Buffers, Value};
    use std::fs;

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

    /// One bit of a buffer is another one.
    #[test]
    fn damage_is_found_before_the_machine_runs() {
        let mut buffers = Buffers::default();
        let state = Value::List(vec![buffers.u8s(&[7; 5000])]);
        let mut bytes = Saved::new(&state, buffers, serde_json::Map::new()).unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, bytes).unwrap();
        // That it holds no machine is found, too, and says less.
        let Err(error) = StateFile::open(&[path]) else { panic!("opened") };
        let StateFileError::Content { source: StateError::Checksum(what), .. } = error else {
            panic!("{error}")
        };
        assert_eq!(what, "buffer 0");
    }
}
