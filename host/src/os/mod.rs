//! What differs between operating systems: every other module of this crate is the same on all of them.
//!
//! A module for each has the same names. Windows maps no files (what is read of a state is copied), has no
//! owners and permissions to put into an image, and cannot wake a thread that reads standard input.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::*;

/// Says that a page of a mapped file could not be read, because the file has been cut off, or the disk has
/// failed: zeros are in its place.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<AtomicBool>);

impl Lost {
    #[cfg_attr(windows, allow(dead_code, reason = "Windows maps no files"))]
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// It has happened.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What an image's index holds of a file beside its name, size and content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Seconds since 1970.
    pub mtime: i64,
    /// Type and permissions, as Linux numbers them.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// What a file with several names is known by: a number of the device and one on it.
    pub link: Option<(u64, u64)>,
    /// What neither a file, nor a directory, nor a symbolic link is.
    pub special: Option<Special>,
}

/// Entries of a directory without a content.
#[cfg_attr(windows, allow(dead_code, reason = "Windows has none of them"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// A device, by its major and minor number.
    Device(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines of text.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn reads_at_any_offset_and_not_past_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        let file = File::open(&path).unwrap();
        let mut three = [0; 3];
        read_exact_at(&file, &mut three, 7).unwrap();
        assert_eq!(&three, b"789");
        let short = read_exact_at(&file, &mut three, 8).unwrap_err();
        assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_directory_and_a_file_have_their_types() {
        const TYPE: u32 = 0o170_000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let of = |path| attributes(&fs::symlink_metadata(path).unwrap());
        assert_eq!(of(dir.path()).mode & TYPE, 0o040_000);
        let file = of(&path);
        assert_eq!((file.mode & TYPE, file.link, file.special), (0o100_000, None, None));
        assert!(file.mtime > 1_600_000_000, "{}", file.mtime);
    }

    #[test]
    fn a_file_is_mapped_or_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "state").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(MappedFile::open(&file, 5, &Lost::default()).unwrap().bytes(), b"state");
    }
}
