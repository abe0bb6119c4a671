//! The contents of an image's files, for the guest's file system.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use env86_devices::fs::{self as guest_fs, BlobStore, Fetched};

use crate::image::{BlobDir, BlobFileError};

/// An image's contents. The guest sees a failure as an I/O error; for the user, the first one of each
/// file is kept.
#[derive(Debug)]
pub struct Blobs {
    dir: BlobDir,
    told: HashSet<String>,
    lost: LostFiles,
}

/// The files of [`Blobs`] that could not be read.
#[derive(Clone, Debug, Default)]
pub struct LostFiles(Arc<Mutex<Vec<BlobFileError>>>);

impl Blobs {
    /// The contents in a folder.
    pub fn new(dir: BlobDir) -> Self {
        Self { dir, told: HashSet::new(), lost: LostFiles::default() }
    }

    /// Where lost files can be seen once the blobs have been given away.
    pub fn lost(&self) -> LostFiles {
        self.lost.clone()
    }
}

impl LostFiles {
    /// Takes those that were found since the last call.
    pub fn take(&self) -> Vec<BlobFileError> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl BlobStore for Blobs {
    fn read(&mut self, blob: &str, offset: u64, buf: &mut [u8]) -> Result<Fetched, guest_fs::BlobError> {
        // The index says how long every blob is, so that a blob that ends early is damage.
        match self.dir.read_exact_at(blob, offset, buf) {
            Ok(()) => Ok(Fetched::Ready(buf.len())),
            Err(error) => {
                let reason = error.to_string();
                if self.told.insert(blob.into()) {
                    self.lost.0.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                }
                Err(guest_fs::BlobError::Unreadable { blob: blob.into(), reason })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_file_is_an_error_for_the_guest_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("short"), "12").unwrap();
        let mut blobs = Blobs::new(BlobDir::new(dir.path()));
        let lost = blobs.lost();
        let mut buf = [0; 4];
        assert!(blobs.read("short", 0, &mut buf[..2]).is_ok());
        for _ in 0..3 {
            for name in ["short", "missing"] {
                assert!(matches!(
                    blobs.read(name, 0, &mut buf),
                    Err(guest_fs::BlobError::Unreadable { blob, .. }) if blob == name
                ));
            }
        }
        let told = lost.take();
        assert!(
            matches!(&told[..], [BlobFileError::Short { have: 2, want: 4, .. }, BlobFileError::Missing(_)]),
            "{told:?}"
        );
        assert!(lost.take().is_empty());
    }
}
