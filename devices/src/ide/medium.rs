//! What is in a drive: an image, and what the guest has written, which lies over it or goes into it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::task::{Poll, Waker, ready};
use thiserror::Error;

/// Bytes that a write keeps at least: v86's states have blocks of this size.
pub const BLOCK: usize = 256;

/// Why an image could not be read or written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct DiskImageError(pub String);

/// The content of a medium, wherever it is stored. It changes only by [`DiskImage::write`].
pub trait DiskImage: Debug + Send + Sync {
    /// Its bytes.
    fn size(&self) -> u64;

    /// Fills a buffer from byte `offset` on. All of it lies within the size.
    ///
    /// [`Poll::Pending`] says that the bytes have been asked for, wherever they come from, and will be
    /// there on a later call with the same arguments; the buffer's content has no meaning then. The drive
    /// stays busy until [`Board::media_arrived`](crate::Board::media_arrived) makes it ask again. A hard
    /// disk's first sector should be there from the start: the drive's geometry follows from it, and is the
    /// usual one else.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>>;

    /// Gives an image that answers [`Poll::Pending`] the one to be woken when the bytes have come. An
    /// image that is always there needs none.
    fn wake_by(&self, _waker: &Waker) {}

    /// Writes bytes from `offset` on. All of them lie within the size. Only the images of media that are
    /// [written through](Medium::written_through) are asked.
    fn write(&self, _offset: u64, _data: &[u8]) -> Result<(), DiskImageError> {
        Err(DiskImageError("the image cannot be written".into()))
    }

    /// Writes parts of whole [`BLOCK`]s one behind the other, as [`DiskImage::write`] does one.
    fn write_parts(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskImageError> {
        self.write(offset, &parts.concat())
    }

    /// Returns when all that was written is where it outlives the host.
    fn flush(&self) -> Result<(), DiskImageError> {
        Ok(())
    }
}

/// An image in memory.
impl DiskImage for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        let start = usize::try_from(offset).ok();
        let from = start.and_then(|start| self.get(start..start.checked_add(buf.len())?));
        buf.copy_from_slice(from.ok_or_else(|| DiskImageError("the image ends early".into()))?);
        Poll::Ready(Ok(()))
    }
}

/// What a saved state holds of a medium. v86 decides by how it got the image, and opens only states
/// that decide alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of it: the image was in memory.
    Whole,
    /// What the guest has written: the image was fetched piece by piece (`async`), and will be again.
    Written,
}

/// A medium.
#[derive(Clone, Debug)]
pub struct Medium {
    image: Arc<dyn DiskImage>,
    size: u64,
    form: Form,
    /// What the guest has written and the image has not, by offset in [`BLOCK`]s.
    written: BTreeMap<u64, Box<[u8; BLOCK]>>,
    through: bool,
}

impl Medium {
    /// A medium that the guest has not written to.
    pub fn new(image: impl DiskImage + 'static, form: Form) -> Self {
        let size = image.size();
        Self { image: Arc::new(image), size, form, written: BTreeMap::new(), through: false }
    }

    /// A medium whose image gets what the guest writes. A saved state has none of that, so that it fits the
    /// image only for as long as nothing more is written.
    pub fn written_through(image: impl DiskImage + 'static) -> Self {
        Self { through: true, ..Self::new(image, Form::Written) }
    }

    /// Gives the image the one to be woken when bytes have come that it was asked for.
    pub fn wake_by(&self, waker: &Waker) {
        self.image.wake_by(waker);
    }

    /// The image gets what the guest writes.
    pub fn is_written_through(&self) -> bool {
        self.through
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its sectors; a last one that is not whole counts.
    pub fn sectors(&self, sector_size: u64) -> u64 {
        self.size.div_ceil(sector_size)
    }

    /// What a saved state is to hold of it.
    pub fn form(&self) -> Form {
        self.form
    }

    /// What the guest has written and the image has not, by offset in [`BLOCK`]s.
    pub fn written(&self) -> impl Iterator<Item = (u64, &[u8; BLOCK])> {
        self.written.iter().map(|(number, block)| (*number, &**block))
    }

    /// Takes the place of all that was written, from a saved state. An image that is written through gets it,
    /// or it would be lost at the end.
    pub fn restore(&mut self, form: Form, written: BTreeMap<u64, Box<[u8; BLOCK]>>) {
        (self.form, self.written) = (form, written);
        if self.through {
            let (image, size) = (&self.image, self.size);
            self.written.retain(|number, block| {
                let at = number.saturating_mul(BLOCK as u64);
                let inside = size.saturating_sub(at).min(BLOCK as u64) as usize;
                // What it cannot take stays above it.
                image.write(at, &block[..inside]).is_err()
            });
        }
    }

    /// Fills a buffer from `offset`, a multiple of [`BLOCK`], on. Behind the end are zeros. The image is
    /// asked only if the guest has not written all of it.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        let first = offset / BLOCK as u64;
        let blocks = buf.len().div_ceil(BLOCK);
        let behind = first.saturating_add(blocks as u64);
        if self.written.range(first..behind).count() < blocks {
            let inside = self.size.saturating_sub(offset).min(buf.len() as u64) as usize;
            let (head, tail) = buf.split_at_mut(inside);
            tail.fill(0);
            if !head.is_empty() {
                ready!(self.image.read(offset, head))?;
            }
        }
        for (number, block) in self.written.range(first..behind) {
            let to = buf[(number - first) as usize * BLOCK..].iter_mut();
            to.zip(block.iter()).for_each(|(to, from)| *to = *from);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes whole [`BLOCK`]s from `offset`, a multiple of it, on. The caller has checked that they
    /// lie on the medium, which bounds what is kept.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskImageError> {
        let first = offset / BLOCK as u64;
        if self.through {
            let inside = self.size.saturating_sub(offset).min(data.len() as u64) as usize;
            self.image.write(offset, &data[..inside])?;
            self.forget(first, data.len());
            return Ok(());
        }
        let blocks = data.as_chunks::<BLOCK>().0;
        for (number, block) in (first..).zip(blocks) {
            match self.written.get_mut(&number) {
                Some(kept) => **kept = *block,
                None => _ = self.written.insert(number, Box::new(*block)),
            }
        }
        Ok(())
    }

    /// Writes parts, one behind the other, at once, if the medium is written through and has room for them: says whether
    /// it has done so. That is left to [`Medium::write`] unless each is whole [`BLOCK`]s.
    pub fn write_parts(&mut self, offset: u64, parts: &[&[u8]]) -> Result<bool, DiskImageError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let whole = parts.iter().all(|part| part.len().is_multiple_of(BLOCK));
        if !self.through || !whole || self.size < offset.saturating_add(len as u64) {
            return Ok(false);
        }
        self.image.write_parts(offset, parts)?;
        self.forget(offset / BLOCK as u64, len);
        Ok(true)
    }

    /// Forgets what a state has brought, and the image could not take then, of what it has got now.
    fn forget(&mut self, first: u64, len: usize) {
        let behind = first.saturating_add((len / BLOCK) as u64);
        if !self.written.is_empty() {
            self.written.retain(|number, _| !(first..behind).contains(number));
        }
    }

    /// Returns when what the image has got is where it outlives the host.
    pub fn flush(&self) -> Result<(), DiskImageError> {
        if self.through { self.image.flush() } else { Ok(()) }
    }

    /// All of it. An image that is not all there yet is an error: it is to be tried again later.
    pub fn contents(&self) -> Result<Vec<u8>, DiskImageError> {
        let size = usize::try_from(self.size).map_err(|_| DiskImageError("the image is too large".into()))?;
        let mut bytes = vec![0; size];
        match self.read(0, &mut bytes) {
            Poll::Ready(read) => read.map(|()| bytes),
            Poll::Pending => Err(DiskImageError("the image is still on its way; try again later".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_stay_above_the_image() {
        let image: Vec<u8> = (0..2000).map(|i| i as u8).collect();
        let mut medium = Medium::new(image.clone(), Form::Written);
        assert_eq!((medium.sectors(512), medium.sectors(2048)), (4, 1));
        medium.write(512, &[7; 512]).unwrap();
        let mut buf = [0; 1024];
        assert_eq!(medium.read(256, &mut buf), Poll::Ready(Ok(())));
        assert_eq!(buf[..256], image[256..512]);
        assert_eq!(buf[256..768], [7; 512]);
        assert_eq!(buf[768..], image[1024..1280]);
        assert_eq!(medium.written().map(|(number, _)| number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(medium.contents().unwrap().len(), 2000);
    }

    #[test]
    fn behind_the_end_are_zeros_until_they_are_written() {
        let mut medium = Medium::new(vec![1; 300], Form::Whole);
        let mut buf = [9; 512];
        assert_eq!(medium.read(0, &mut buf), Poll::Ready(Ok(())));
        assert_eq!((buf[299], buf[300], buf[511]), (1, 0, 0));
        medium.write(0, &[5; 512]).unwrap();
        assert_eq!(medium.read(0, &mut buf), Poll::Ready(Ok(())));
        assert_eq!(buf, [5; 512]);
        assert_eq!(medium.contents().unwrap(), [5; 300]);
    }

    /// An image that never comes.
    #[derive(Debug)]
    struct Never;

    impl DiskImage for Never {
        fn size(&self) -> u64 {
            4096
        }

        fn read(&self, _offset: u64, _buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
            Poll::Pending
        }
    }

    #[test]
    fn what_the_guest_has_written_needs_no_image() {
        let mut medium = Medium::new(Never, Form::Written);
        medium.write(1024, &[3; 1024]).unwrap();
        let mut buf = [0; 1024];
        assert_eq!(medium.read(1024, &mut buf), Poll::Ready(Ok(())));
        assert_eq!(buf, [3; 1024]);
        assert_eq!(medium.read(768, &mut buf), Poll::Pending);
        assert!(medium.contents().is_err());
    }

    /// An image in memory that can be written.
    #[derive(Debug, Default)]
    struct Writable(std::sync::Mutex<Vec<u8>>);

    impl DiskImage for Writable {
        fn size(&self) -> u64 {
            self.0.lock().unwrap().size()
        }

        fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
            self.0.lock().unwrap().read(offset, buf)
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), DiskImageError> {
            self.0.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    #[test]
    fn an_image_gets_what_is_written_through() {
        let mut medium = Medium::written_through(Writable(vec![1; 1300].into()));
        medium.restore(Form::Written, [0, 2].map(|number| (number, Box::new([9; BLOCK]))).into());
        medium.write(512, &[5; 512]).unwrap();
        assert_eq!(medium.written().count(), 0);
        medium.write(1024, &[6; 512]).unwrap();
        let mut buf = [0; 1536];
        assert_eq!(medium.read(0, &mut buf), Poll::Ready(Ok(())));
        assert_eq!([0, 256, 512, 1024, 1299, 1300].map(|at| buf[at]), [9, 1, 5, 6, 6, 0]);
        // Several parts at once, if they are whole blocks and end on the medium.
        medium.restore(Form::Written, [(0, Box::new([9; BLOCK]))].into());
        assert_eq!(medium.write_parts(0, &[&[2; 512], &[3; 512]]), Ok(true));
        assert_eq!(medium.read(0, &mut buf), Poll::Ready(Ok(())));
        assert_eq!([0, 511, 512, 1023, 1024].map(|at| buf[at]), [2, 2, 3, 3, 6]);
        assert_eq!(medium.write_parts(0, &[&[4; 100], &[4; 412]]), Ok(false));
        assert_eq!(medium.write_parts(1024, &[&[4; 512]]), Ok(false));
        assert_eq!(Medium::new(vec![1; 512], Form::Whole).write_parts(0, &[&[4; 512]]), Ok(false));
        assert!(Medium::written_through(vec![1; 512]).write(0, &[0; 512]).is_err());
    }
}
