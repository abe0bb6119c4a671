//! A disk image whose changes lie in a file of their own, the overlay: the image itself is only read.
//!
//! The overlay has, one after the other, a header, a bit for each cluster of the image, and the clusters that
//! the guest has written, each at its own place: the rest of the file is a hole. A cluster counts when its bit
//! is in the file. Bits are written behind the clusters, at a flush and at the end, so that a host that fails
//! in between loses what was not flushed, as a disk with a cache does, and nothing else.
//!
//! | bytes | content |
//! |---|---|
//! | 0 to 7 | `env86ovl` |
//! | 8 to 15 | 1, the format's version |
//! | 16 to 23 | bytes of the image |
//! | 4096 on | the bits, the lowest first; up to a multiple of 4096 bytes |
//! | behind them | the clusters, of 4096 bytes |
//!
//! Numbers have 64 bits, the lowest byte first.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use env86_devices::ide::{DiskImage, DiskImageError};

use super::disk::{DiskError, FileImage, Lock};
use crate::os::{read_exact_at, write_all_at};

const MAGIC: &[u8; 8] = b"env86ovl";
const VERSION: u64 = 1;
/// Bytes of a cluster, and of the header.
const CLUSTER: u64 = 4096;

/// An image with its overlay.
#[derive(Debug)]
pub(super) struct Overlay {
    base: FileImage,
    file: File,
    bits: Mutex<Bits>,
    _lock: Lock,
}

#[derive(Debug)]
struct Bits {
    bytes: Vec<u8>,
    /// Some are not in the file yet.
    changed: bool,
}

impl Bits {
    fn has(&self, cluster: u64) -> bool {
        self.bytes.get((cluster / 8) as usize).is_some_and(|byte| byte & 1 << (cluster % 8) != 0)
    }

    fn set(&mut self, cluster: u64) {
        if let Some(byte) = self.bytes.get_mut((cluster / 8) as usize) {
            *byte |= 1 << (cluster % 8);
            self.changed = true;
        }
    }
}

impl Overlay {
    /// Opens an overlay of an image, or makes one.
    pub fn open(base: FileImage, path: &Path) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Open { path: path.into(), source };
        let (file, lock) =
            super::disk::open(path, File::options().read(true).write(true).create(true), true)?;
        let size = base.size();
        let header = [&MAGIC[..], &VERSION.to_le_bytes(), &size.to_le_bytes()].concat();
        let mut bytes = vec![0; bits_of(size) as usize];
        if file.metadata().map_err(failed)?.len() == 0 {
            write_all_at(&file, &header, 0).map_err(failed)?;
            file.set_len(CLUSTER + bits_of(size)).map_err(failed)?;
        } else {
            let mut own = vec![0; header.len()];
            let read = read_exact_at(&file, &mut own, 0);
            if read.is_err() || own != header || read_exact_at(&file, &mut bytes, CLUSTER).is_err() {
                return Err(DiskError::OtherOverlay { path: path.into(), size });
            }
        }
        Ok(Self { base, file, bits: Mutex::new(Bits { bytes, changed: false }), _lock: lock })
    }

    fn bits(&self) -> MutexGuard<'_, Bits> {
        self.bits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a byte of the image is in the overlay.
    fn place(&self, offset: u64) -> u64 {
        CLUSTER + bits_of(self.base.size()) + offset
    }

    /// Reads what lies in one cluster.
    fn read_piece(&self, bits: &Bits, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if bits.has(offset / CLUSTER) {
            read_exact_at(&self.file, buf, self.place(offset))
        } else {
            self.base.read_at(offset, buf)
        }
    }

    /// Writes what lies in one cluster. The first write brings the rest of the cluster along.
    fn write_piece(&self, bits: &mut Bits, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = offset - offset % CLUSTER;
        if bits.has(start / CLUSTER) {
            return write_all_at(&self.file, data, self.place(offset));
        }
        let mut cluster = vec![0; CLUSTER.min(self.base.size() - start) as usize];
        self.base.read_at(start, &mut cluster)?;
        cluster[(offset - start) as usize..][..data.len()].copy_from_slice(data);
        write_all_at(&self.file, &cluster, self.place(start))?;
        bits.set(start / CLUSTER);
        Ok(())
    }

    fn write_bits(&self) -> io::Result<()> {
        let mut bits = self.bits();
        if bits.changed {
            self.file.sync_data()?;
            write_all_at(&self.file, &bits.bytes, CLUSTER)?;
            bits.changed = false;
        }
        self.file.sync_data()
    }
}

/// Bytes that the bits of an image have in the file.
fn bits_of(size: u64) -> u64 {
    size.div_ceil(CLUSTER).div_ceil(8).next_multiple_of(CLUSTER)
}

/// The lengths of the pieces of a buffer that lie in one cluster each.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let piece = ((CLUSTER - at % CLUSTER) as usize).min(len - done);
        let found = (piece > 0).then_some((at, done, piece));
        done += piece;
        found
    })
}

fn broken(error: io::Error) -> DiskImageError {
    DiskImageError(error.to_string())
}

impl DiskImage for Overlay {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        let bits = self.bits();
        let read = pieces(offset, buf.len())
            .try_for_each(|(at, from, len)| self.read_piece(&bits, at, &mut buf[from..from + len]));
        Poll::Ready(read.map_err(broken))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DiskImageError> {
        let mut bits = self.bits();
        pieces(offset, data.len())
            .try_for_each(|(at, from, len)| self.write_piece(&mut bits, at, &data[from..from + len]))
            .map_err(broken)
    }

    fn flush(&self) -> Result<(), DiskImageError> {
        self.write_bits().map_err(broken)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Err(error) = self.write_bits() {
            tracing::warn!(target: "ide", %error, "the end of an overlay cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SIZE: usize = 3 * 4096 + 1000;

    fn base(dir: &Path) -> FileImage {
        let path = dir.join("base");
        fs::write(&path, [1; SIZE]).unwrap();
        FileImage::open(&path, false).unwrap()
    }

    fn read(image: &Overlay, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        assert_eq!(image.read(offset, &mut buf), Poll::Ready(Ok(())));
        buf
    }

    #[test]
    fn changes_lie_in_the_overlay_and_stay_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("overlay");
        let image = Overlay::open(base(dir.path()), &path).unwrap();
        image.write(4000, &[2; 200]).unwrap();
        image.write(SIZE as u64 - 500, &[3; 500]).unwrap();
        let check = |image: &Overlay| {
            let all = read(image, 0, SIZE);
            assert_eq!([3999, 4000, 4199, 4200, 11787].map(|at| all[at]), [1, 2, 2, 1, 1]);
            assert_eq!([SIZE - 501, SIZE - 500, SIZE - 1].map(|at| all[at]), [1, 3, 3]);
        };
        check(&image);
        drop(image);
        check(&Overlay::open(base(dir.path()), &path).unwrap());
        assert!(fs::read(dir.path().join("base")).unwrap() == [1; SIZE]);
    }

    #[test]
    fn what_was_flushed_is_there_when_the_host_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("overlay");
        let image = Overlay::open(base(dir.path()), &path).unwrap();
        image.write(0, &[2; 512]).unwrap();
        image.flush().unwrap();
        image.write(8192, &[3; 512]).unwrap();
        // What a host finds after its failure.
        fs::copy(&path, dir.path().join("found")).unwrap();
        let found = Overlay::open(base(dir.path()), &dir.path().join("found")).unwrap();
        assert_eq!([0, 512, 8192].map(|at| read(&found, at, 1)[0]), [2, 1, 1]);
    }

    #[test]
    fn an_overlay_belongs_to_one_image_and_one_machine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("overlay");
        let first = Overlay::open(base(dir.path()), &path).unwrap();
        assert!(matches!(Overlay::open(base(dir.path()), &path), Err(DiskError::InUse(_))));
        drop(first);
        let other = dir.path().join("other");
        fs::write(&other, [1; 512]).unwrap();
        let open = || Overlay::open(FileImage::open(&other, false).unwrap(), &path);
        assert!(matches!(open(), Err(DiskError::OtherOverlay { size: 512, .. })));
        for content in [&b"text"[..], &[0; 9000]] {
            fs::write(&path, content).unwrap();
            assert!(matches!(open(), Err(DiskError::OtherOverlay { .. })));
        }
    }
}
