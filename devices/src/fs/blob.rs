//! Where the bytes of the image's files come from.

use super::errno::{Errno, FsError, FsResult};
use std::task::Waker;
use thiserror::Error;
use tracing::warn;

/// How far a read of a blob got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// This many bytes are in the buffer; 0 is the blob's end.
    Ready(usize),
    /// The bytes were asked for and will be there on later calls with the same arguments, until those have
    /// been answered together: one request of the guest may need several pieces.
    Pending,
}

/// Why a blob could not be read.
#[derive(Debug, Error)]
pub enum BlobError {
    /// The image has no such blob.
    #[error("The image has no blob {0}")]
    Missing(String),
    /// The blob could not be read.
    #[error("Blob {blob} cannot be read: {reason}")]
    Unreadable {
        /// The name of the blob.
        blob: String,
        /// What went wrong, as the host puts it.
        reason: String,
    },
}

/// The storage of an image's file contents, by the blob names of its index.
pub trait BlobStore: Send {
    /// Reads bytes of a blob from `offset` on. Fewer than asked for may come.
    fn read(&mut self, blob: &str, offset: u64, buf: &mut [u8]) -> Result<Fetched, BlobError>;

    /// Gives a store that answers [`Fetched::Pending`] the one to be woken when the bytes have come. A store
    /// that is always there needs none.
    fn wake_by(&mut self, _waker: &Waker) {}
}

/// The storage of a filesystem that stands on no image.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBlobs;

impl BlobStore for NoBlobs {
    fn read(&mut self, blob: &str, _offset: u64, _buf: &mut [u8]) -> Result<Fetched, BlobError> {
        Err(BlobError::Missing(blob.to_owned()))
    }
}

/// Blobs held in memory, by name.
impl BlobStore for std::collections::BTreeMap<String, Vec<u8>> {
    fn read(&mut self, blob: &str, offset: u64, buf: &mut [u8]) -> Result<Fetched, BlobError> {
        let content = self.get(blob).ok_or_else(|| BlobError::Missing(blob.to_owned()))?;
        let rest = usize::try_from(offset).ok().and_then(|o| content.get(o..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(Fetched::Ready(n))
    }
}

/// Fills the buffer from a blob; a blob that ends early is an I/O error.
pub(super) fn fetch(store: &mut dyn BlobStore, blob: &str, offset: u64, buf: &mut [u8]) -> FsResult<()> {
    let mut done = 0;
    while done < buf.len() {
        match store.read(blob, offset + done as u64, &mut buf[done..]) {
            Ok(Fetched::Ready(0)) => {
                warn!(target: "fs", blob, offset, "Blob is shorter than the index says");
                return Err(Errno::EIO.into());
            }
            Ok(Fetched::Ready(n)) => done += n,
            Ok(Fetched::Pending) => return Err(FsError::Pending),
            Err(error) => {
                warn!(target: "fs", %error);
                return Err(Errno::EIO.into());
            }
        }
    }
    Ok(())
}
