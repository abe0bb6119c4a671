//! The contents of an image's files: one host file each, opened when first read.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use crate::os;

/// How many files are kept open for the next read.
const OPEN_FILES: usize = 32;

/// Why contents could not be read.
#[derive(Debug, Error)]
pub enum BlobFileError {
    /// The index names a file that is not there.
    #[error("`{}` is missing; the image is incomplete, copy or make it again", .0.display())]
    Missing(PathBuf),
    /// A file is shorter than the index says.
    #[error(
        "`{}` has {have} bytes where {want} are needed; the image is damaged, copy or make it again",
        path.display()
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        have: u64,
        /// The end of the read in bytes.
        want: u64,
    },
    /// The index names something that is not a plain file name.
    #[error("`{0}` in fs.json is not the name of a file in fs/; the image is damaged, make it again")]
    Name(String),
    /// The host's file system gave an error.
    #[error("Cannot read `{}`; the image is damaged, copy or make it again", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The folder of an image that holds file contents.
#[derive(Debug)]
pub struct BlobDir {
    dir: PathBuf,
    /// Files read lately, the last one used at the end.
    open: Vec<(String, File)>,
}

impl BlobDir {
    /// The contents in the folder `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), open: Vec::new() }
    }

    /// Fills `buf` from a blob, starting at byte `offset`.
    pub fn read_exact_at(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), BlobFileError> {
        let path = self.path(name)?;
        let file = self.file(name, &path)?;
        match os::read_exact_at(file, buf, offset) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let have = file.metadata().map_or(0, |m| m.len());
                Err(BlobFileError::Short { path, have, want: offset.saturating_add(buf.len() as u64) })
            }
            Err(source) => Err(BlobFileError::Read { path, source }),
        }
    }

    /// Reads the first `size` bytes of a blob.
    pub fn read_all(&mut self, name: &str, size: u64) -> Result<Vec<u8>, BlobFileError> {
        // The size comes from the index: check it against the file before making room for it.
        let path = self.path(name)?;
        let have = match self.file(name, &path)?.metadata() {
            Ok(meta) => meta.len(),
            Err(source) => return Err(BlobFileError::Read { path, source }),
        };
        if have < size {
            return Err(BlobFileError::Short { path, have, want: size });
        }
        let mut bytes = vec![0; size as usize];
        self.read_exact_at(name, 0, &mut bytes)?;
        Ok(bytes)
    }

    fn path(&self, name: &str) -> Result<PathBuf, BlobFileError> {
        // Which characters part a path, and what stands for a drive, is the host's.
        let mut parts = Path::new(name).components();
        let plain =
            matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
        if !plain || name.contains('\0') {
            return Err(BlobFileError::Name(name.into()));
        }
        Ok(self.dir.join(name))
    }

    fn file(&mut self, name: &str, path: &Path) -> Result<&File, BlobFileError> {
        let entry = match self.open.iter().position(|(open, _)| open == name) {
            Some(at) => self.open.remove(at),
            None => {
                if self.open.len() == OPEN_FILES {
                    self.open.remove(0);
                }
                (name.into(), open(path)?)
            }
        };
        self.open.push(entry);
        Ok(&self.open[self.open.len() - 1].1)
    }
}

/// Opens a blob. A symbolic link is refused: an image from elsewhere must not reach the host's
/// files. Nor may a FIFO among the blobs make the machine wait.
fn open(path: &Path) -> Result<File, BlobFileError> {
    os::open_no_follow(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => BlobFileError::Missing(path.into()),
        _ => BlobFileError::Read { path: path.into(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn blobs() -> (tempfile::TempDir, BlobDir) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.bin"), "0123456789").unwrap();
        let blobs = BlobDir::new(dir.path());
        (dir, blobs)
    }

    #[test]
    fn reads_at_any_offset() {
        let (_dir, mut blobs) = blobs();
        let mut buf = [0; 3];
        blobs.read_exact_at("a.bin", 4, &mut buf).unwrap();
        assert_eq!(&buf, b"456");
        assert_eq!(blobs.read_all("a.bin", 10).unwrap(), b"0123456789");
    }

    #[test]
    fn a_missing_or_short_blob_is_named() {
        let (_dir, mut blobs) = blobs();
        let missing = blobs.read_all("b.bin", 1).unwrap_err();
        assert!(matches!(missing, BlobFileError::Missing(_)) && missing.to_string().contains("b.bin"));
        let short = blobs.read_exact_at("a.bin", 8, &mut [0; 4]).unwrap_err();
        assert!(matches!(short, BlobFileError::Short { have: 10, want: 12, .. }), "{short}");
        assert!(matches!(blobs.read_all("a.bin", u64::MAX), Err(BlobFileError::Short { .. })));
    }

    #[test]
    #[cfg(unix)]
    fn links_do_not_leave_the_folder() {
        let (dir, mut blobs) = blobs();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("l.bin")).unwrap();
        assert!(matches!(blobs.read_all("l.bin", 1), Err(BlobFileError::Read { .. })));
    }

    #[test]
    fn names_do_not_leave_the_folder() {
        let (_dir, mut blobs) = blobs();
        for name in ["", ".", "..", "../x", "/etc/passwd", "a.bin/", "./a.bin", "a.bin\0"] {
            assert!(matches!(blobs.read_all(name, 1), Err(BlobFileError::Name(_))), "{name}");
        }
    }

    #[test]
    fn more_blobs_than_open_files_can_be_read() {
        let (dir, mut blobs) = blobs();
        for round in 0..2 {
            for i in 0..OPEN_FILES + 5 {
                let name = format!("{i}.bin");
                if round == 0 {
                    fs::write(dir.path().join(&name), name.as_bytes()).unwrap();
                }
                assert_eq!(blobs.read_all(&name, name.len() as u64).unwrap(), name.as_bytes());
            }
        }
        assert_eq!(blobs.open.len(), OPEN_FILES);
    }
}
