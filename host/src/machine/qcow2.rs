//! qcow2 images (QEMU, docs/interop/qcow2.txt), which the crate imago reads and writes: a file that has only
//! those clusters of the disk that were written.
//!
//! Another file is never opened because an image names it: a guest that can write to its disk could name any
//! file of the host's there.

use std::fs::File;
use std::io;
use std::path::Path;

use imago::file::File as Storage;
use imago::qcow2::Qcow2 as Format;
use imago::{FormatAccess, StorageOpenOptions};

use super::disk::DiskError;
use crate::os::read_exact_at;

/// The first bytes of an image.
const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Where the header says how the image is encrypted, in 32 bits, the highest byte first: 0 says not.
const CRYPT_METHOD: u64 = 32;

/// Where the header says where the table of reference counts is, in 64 bits, and of how many clusters, in 32.
const REFCOUNT_TABLE: u64 = 48;

/// An image. It is flushed when it is dropped.
#[derive(Debug)]
pub(super) struct Qcow2(FormatAccess<Storage>);

impl Qcow2 {
    /// Whether a file is one, by how it begins.
    pub fn is_in(file: &File) -> bool {
        let mut magic = [0; MAGIC.len()];
        read_exact_at(file, &mut magic, 0).is_ok() && magic == MAGIC
    }

    /// Opens the image in a file, to be written to or only read.
    pub fn open(file: File, path: &Path, write: bool) -> Result<Self, DiskError> {
        let broken = |source| DiskError::Qcow2 { path: path.into(), source };
        let mut crypt_method = [0; 4];
        read_exact_at(&file, &mut crypt_method, CRYPT_METHOD).map_err(broken)?;
        if crypt_method != [0; 4] {
            return Err(DiskError::Encrypted(path.into()));
        }
        if write && !counts_itself(&file) {
            let problem = "Its clusters are not counted";
            return Err(broken(io::Error::new(io::ErrorKind::InvalidData, problem)));
        }
        let options = StorageOpenOptions::new().write(write);
        let storage = Storage::from_open_file(file, options).map_err(broken)?;
        let mut image = Format::<Storage>::open_image(storage, write).map_err(broken)?;
        let data = image.requires_external_data_file().then(|| image.implicit_external_data_file());
        if let Some(other) = image.implicit_backing_file().map(Some).or(data) {
            let other = other.map_or_else(String::new, Clone::clone);
            return Err(DiskError::Incomplete { path: path.into(), other });
        }
        image.set_backing(None);
        image.set_data_file(None);
        Ok(Self(FormatAccess::new(image)))
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// Fills a buffer from byte `offset` of the disk on.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read(buf, offset)
    }

    /// Writes bytes from `offset` of the disk on.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(data, offset)
    }

    /// Returns when all that was written is where it outlives the host.
    pub fn flush(&self) -> io::Result<()> {
        self.0.flush()?;
        self.0.sync()
    }
}

/// Whether an image's reference counts count its first cluster, which the header is in. Imago looks for a free
/// cluster without end in one that is so damaged that they do not.
fn counts_itself(file: &File) -> bool {
    let (mut table, mut clusters, mut first) = ([0; 8], [0; 4], [0; 8]);
    let read = read_exact_at(file, &mut table, REFCOUNT_TABLE)
        .and_then(|()| read_exact_at(file, &mut clusters, REFCOUNT_TABLE + 8))
        .and_then(|()| read_exact_at(file, &mut first, u64::from_be_bytes(table)));
    read.is_ok() && table != [0; 8] && clusters != [0; 4] && first != [0; 8]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::task::Poll;

    use env86_devices::ide::DiskImage;
    use imago::{FormatCreateBuilder, StorageCreateOptions};

    use super::super::disk::FileImage;
    use super::*;

    const SIZE: u64 = 10 << 20;

    /// Makes an image of a disk of zeros.
    fn create(path: &Path, more: impl FnOnce(Builder) -> Builder) {
        use imago::Storage as _;
        let options = StorageCreateOptions::new().filename(path).overwrite(true);
        let builder = Format::<Storage>::create_builder(Storage::create_open(options).unwrap());
        more(builder.size(SIZE)).create().unwrap();
    }

    type Builder = imago::qcow2::Qcow2CreateBuilder<Storage>;

    fn read(image: &FileImage, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0xff; len];
        assert_eq!(image.read(offset, &mut buf), Poll::Ready(Ok(())));
        buf
    }

    #[test]
    fn what_is_written_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        // The name says nothing.
        let path = dir.path().join("disk.img");
        create(&path, |builder| builder);
        let image = FileImage::open(&path, true).unwrap();
        assert_eq!(image.size(), SIZE);
        assert!(matches!(FileImage::open(&path, false), Err(DiskError::InUse(_))));
        image.write(65_000, &[7; 1000]).unwrap();
        image.write(SIZE - 512, &[8; 512]).unwrap();
        image.flush().unwrap();
        // What a host finds after its failure.
        fs::copy(&path, dir.path().join("found")).unwrap();
        image.write(0, &[9; 512]).unwrap();
        drop(image);
        for (name, first) in [("found", 0), ("disk.img", 9)] {
            let image = FileImage::open(&dir.path().join(name), false).unwrap();
            assert_eq!(read(&image, 0, 513), [vec![first; 512], vec![0]].concat());
            assert_eq!(read(&image, 64_999, 1002), [vec![0], vec![7; 1000], vec![0]].concat());
            assert_eq!(read(&image, SIZE - 513, 513), [vec![0], vec![8; 512]].concat());
            assert!(image.write(0, &[1]).is_err());
        }
        assert!(fs::metadata(&path).unwrap().len() < SIZE / 2);
    }

    #[test]
    fn an_image_that_needs_more_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        create(&path, |builder| builder.backing("/etc/passwd".into(), "raw".into()));
        let error = FileImage::open(&path, false).unwrap_err();
        assert!(matches!(error, DiskError::Incomplete { other, .. } if other == "/etc/passwd"));
        create(&path, |builder| builder);
        let mut bytes = fs::read(&path).unwrap();
        bytes[CRYPT_METHOD as usize + 3] = 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(FileImage::open(&path, false), Err(DiskError::Encrypted(_))));
    }

    #[test]
    fn damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        create(&path, |builder| builder);
        FileImage::open(&path, true).unwrap().write(0, &[1; 512]).unwrap();
        let bytes = fs::read(&path).unwrap();
        for cut in [4, 40, 104, 1000, 70_000, bytes.len() / 2] {
            fs::write(&path, &bytes[..cut]).unwrap();
            if let Ok(image) = FileImage::open(&path, false) {
                let mut buf = [0; 512];
                _ = image.read(0, &mut buf);
            }
        }
        fs::write(&path, &bytes[..40]).unwrap();
        assert!(matches!(FileImage::open(&path, false), Err(DiskError::Qcow2 { .. })));
        // Whatever a byte of the header or the start of a table is, nothing worse than an error comes of it.
        let starts = (65_536..bytes.len()).step_by(65_536).flat_map(|table| table..table + 8);
        let places = (4..104).chain(starts).flat_map(|at| [(at, 0), (at, 1), (at, 0xff)]);
        for (at, value) in places {
            let mut damaged = bytes.clone();
            damaged[at] ^= if value == 0 { bytes[at] } else { value };
            fs::write(&path, &damaged).unwrap();
            if let Ok(image) = FileImage::open(&path, true) {
                let mut buf = [0; 4096];
                _ = image.read(0, &mut buf);
                _ = image.write(SIZE / 2, &buf);
                _ = image.flush();
            }
        }
    }
}
