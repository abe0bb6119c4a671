//! The content of a regular file: a blob of the image under chunks that the guest has written.

use super::blob::{BlobStore, fetch};
use super::errno::{FsError, FsResult};
use std::collections::BTreeMap;

/// Bytes that are copied from the image when the guest first writes among them.
pub const CHUNK: u64 = 64 << 10;

/// The image's content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The blob's name.
    pub blob: Box<str>,
    /// The blob's size in bytes.
    pub size: u64,
}

/// The content of a regular file. Its size is the inode's; what lies below it and is neither in a
/// chunk nor in the image reads as zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileData {
    base: Option<Base>,
    /// How many bytes of the base still show: a file that was cut and grown again has zeros there.
    visible: u64,
    /// Written content by offset / [`CHUNK`]. A chunk hides the base behind it entirely, even where
    /// it is shorter than [`CHUNK`].
    chunks: BTreeMap<u64, Vec<u8>>,
}

impl FileData {
    /// The content of a file of the image.
    pub fn from_blob(blob: &str, size: u64) -> Self {
        let base = (size > 0).then(|| Base { blob: blob.into(), size });
        Self { base, visible: size, chunks: BTreeMap::new() }
    }

    /// Content that is in memory from the start.
    pub fn from_bytes(content: &[u8]) -> Self {
        let chunks = content.chunks(CHUNK as usize).map(<[u8]>::to_vec);
        Self { base: None, visible: 0, chunks: (0..).zip(chunks).collect() }
    }

    /// The image's content that still shows through, if any.
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// Whether a file of `size` bytes is still exactly its blob.
    pub fn is_pristine(&self, size: u64) -> bool {
        self.chunks.is_empty() && self.base.as_ref().is_some_and(|b| b.size == size && self.visible == size)
    }

    /// Bytes held in memory.
    pub fn memory(&self) -> u64 {
        self.chunks.values().map(|c| c.len() as u64).sum()
    }

    /// Reads from a file of `size` bytes; returns how many there were.
    pub fn read(&self, store: &mut dyn BlobStore, size: u64, offset: u64, buf: &mut [u8]) -> FsResult<usize> {
        let len = size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (mut done, mut pending) = (0, false);
        while done < len {
            let at = offset + done as u64;
            let rest = (len - done) as u64;
            let index = at / CHUNK;
            let span = match self.chunks.get(&index) {
                Some(chunk) => {
                    let span = (CHUNK - at % CHUNK).min(rest) as usize;
                    let held = chunk.get((at % CHUNK) as usize..).unwrap_or_default();
                    let n = held.len().min(span);
                    buf[done..done + n].copy_from_slice(&held[..n]);
                    buf[done + n..done + span].fill(0);
                    span
                }
                // Up to the next written chunk the image can be asked in one go.
                None => {
                    let next = self.chunks.range(index..).next().map_or(u64::MAX, |(&i, _)| i * CHUNK);
                    let span = (next - at).min(rest) as usize;
                    let n = self.visible.saturating_sub(at).min(span as u64) as usize;
                    if let Some(base) = self.base.as_ref().filter(|_| n > 0) {
                        // What is behind it is asked for, too, so that all of it comes at once.
                        match fetch(store, &base.blob, at, &mut buf[done..done + n]) {
                            Err(FsError::Pending) => pending = true,
                            fetched => fetched?,
                        }
                    }
                    buf[done + n..done + span].fill(0);
                    span
                }
            };
            done += span;
        }
        if pending { Err(FsError::Pending) } else { Ok(len) }
    }

    /// How many bytes of the image show in a chunk that has not been written.
    fn base_part(&self, index: u64) -> u64 {
        self.visible.saturating_sub(index * CHUNK).min(CHUNK)
    }

    /// Bytes of memory that a write would add.
    pub fn growth(&self, offset: u64, len: u64) -> u64 {
        spans(offset, len)
            .map(|(index, within, span)| match self.chunks.get(&index) {
                Some(chunk) => (within + span).saturating_sub(chunk.len() as u64),
                None => (within + span).max(self.base_part(index)),
            })
            .sum()
    }

    /// Writes bytes. After [`FsError::Pending`](super::FsError::Pending) the same write can be done again.
    pub fn write(&mut self, store: &mut dyn BlobStore, offset: u64, data: &[u8]) -> FsResult<()> {
        let mut done = 0;
        for (index, within, span) in spans(offset, data.len() as u64) {
            if !self.chunks.contains_key(&index) {
                let part = self.base_part(index);
                let mut chunk = vec![0; part as usize];
                let overwritten = within == 0 && span >= part;
                if let Some(base) = self.base.as_ref().filter(|_| part > 0 && !overwritten) {
                    fetch(store, &base.blob, index * CHUNK, &mut chunk)?;
                }
                self.chunks.insert(index, chunk);
            }
            let chunk = self.chunks.entry(index).or_default();
            let (within, span) = (within as usize, span as usize);
            if chunk.len() < within + span {
                chunk.resize(within + span, 0);
            }
            chunk[within..within + span].copy_from_slice(&data[done..done + span]);
            done += span;
        }
        Ok(())
    }

    /// Forgets everything from `size` on.
    pub fn truncate(&mut self, size: u64) {
        self.visible = self.visible.min(size);
        if self.visible == 0 {
            self.base = None;
        }
        self.chunks.split_off(&size.div_ceil(CHUNK));
        if let Some(last) = self.chunks.get_mut(&(size / CHUNK)) {
            last.truncate((size % CHUNK) as usize);
            last.shrink_to_fit();
        }
    }
}

/// The pieces of a range: chunk number, offset in the chunk, length.
fn spans(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let span = (CHUNK - at % CHUNK).min(end - at);
            let piece = (at / CHUNK, at % CHUNK, span);
            at += span;
            piece
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{BlobError, Fetched, NoBlobs};

    /// A blob whose byte at n is n mod 251, and which counts what is read of it.
    struct Pattern {
        fetched: u64,
        ready: bool,
    }

    impl BlobStore for Pattern {
        fn read(&mut self, _blob: &str, offset: u64, buf: &mut [u8]) -> Result<Fetched, BlobError> {
            if !self.ready {
                return Ok(Fetched::Pending);
            }
            self.fetched += buf.len() as u64;
            buf.iter_mut().enumerate().for_each(|(i, b)| *b = ((offset + i as u64) % 251) as u8);
            Ok(Fetched::Ready(buf.len()))
        }
    }

    #[test]
    fn a_write_into_a_large_file_loads_one_chunk() {
        let size = 1 << 30;
        let mut store = Pattern { fetched: 0, ready: true };
        let mut file = FileData::from_blob("x", size);
        assert!(file.is_pristine(size));
        assert_eq!(file.growth(500_000_000, 3), CHUNK);
        file.write(&mut store, 500_000_000, b"abc").unwrap();
        assert_eq!((store.fetched, file.memory()), (CHUNK, CHUNK));
        assert!(!file.is_pristine(size));
        let mut buf = [0; 5];
        assert_eq!(file.read(&mut store, size, 499_999_999, &mut buf), Ok(5));
        assert_eq!(buf, [(499_999_999 % 251) as u8, b'a', b'b', b'c', (500_000_003 % 251) as u8]);
    }

    #[test]
    fn whole_chunks_are_written_without_the_image() {
        let mut file = FileData::from_blob("x", CHUNK + 10);
        file.write(&mut NoBlobs, CHUNK, &[7; 10]).unwrap();
        file.write(&mut NoBlobs, 0, &[7; CHUNK as usize]).unwrap();
        let mut buf = vec![0; CHUNK as usize + 10];
        assert_eq!(file.read(&mut NoBlobs, CHUNK + 10, 0, &mut buf), Ok(buf.len()));
        assert!(buf.iter().all(|&b| b == 7));
    }

    #[test]
    fn cut_and_grown_content_is_zero() {
        let mut store = Pattern { fetched: 0, ready: true };
        let mut file = FileData::from_blob("x", 3 * CHUNK);
        file.write(&mut store, CHUNK, &[9; 100]).unwrap();
        file.truncate(CHUNK + 50);
        file.truncate(10);
        let mut buf = [1; 20];
        file.read(&mut store, 3 * CHUNK, 0, &mut buf).unwrap();
        assert_eq!(buf[..11], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
        file.read(&mut store, 3 * CHUNK, CHUNK, &mut buf).unwrap();
        assert_eq!(buf, [0; 20]);
        file.truncate(0);
        assert_eq!(file, FileData::default());
    }

    #[test]
    fn pending_content_changes_nothing() {
        let mut store = Pattern { fetched: 0, ready: false };
        let mut file = FileData::from_blob("x", CHUNK);
        assert_eq!(file.write(&mut store, 5, b"hello"), Err(FsError::Pending));
        assert!(file.is_pristine(CHUNK));
        store.ready = true;
        file.write(&mut store, 5, b"hello").unwrap();
        let mut buf = [0; 7];
        file.read(&mut store, CHUNK, 4, &mut buf).unwrap();
        assert_eq!(&buf, b"\x04hello\x0a");
    }

    #[test]
    fn all_pieces_of_a_read_are_asked_for_at_once() {
        struct Asked(Vec<u64>);
        impl BlobStore for Asked {
            fn read(&mut self, _blob: &str, offset: u64, _buf: &mut [u8]) -> Result<Fetched, BlobError> {
                self.0.push(offset / CHUNK);
                Ok(Fetched::Pending)
            }
        }
        let mut file = FileData::from_blob("x", 5 * CHUNK);
        file.write(&mut NoBlobs, CHUNK, &[1; CHUNK as usize]).unwrap();
        let (mut store, mut buf) = (Asked(Vec::new()), vec![0; 3 * CHUNK as usize]);
        assert_eq!(file.read(&mut store, 5 * CHUNK, 0, &mut buf), Err(FsError::Pending));
        assert_eq!(store.0, [0, 2]);
    }
}
