//! Disk images in parts: a file for every so many bytes, named by where they begin and end, as v86 fetches
//! them (`use_parts` and `fixed_chunk_size`).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use env86_devices::ide::DiskImageError;

use super::disk::DiskError;
use crate::os::read_exact_at;

/// The name ending of parts that are compressed, each by itself.
const COMPRESSED: &str = ".zst";
/// Bytes of a part at most, if it is compressed: it is unpacked as a whole.
const MAX_UNPACKED: u64 = 64 << 20;
/// Bytes of unpacked parts that are kept for the next read.
const KEPT: u64 = MAX_UNPACKED;

/// An image in parts.
#[derive(Debug)]
pub(super) struct Parts {
    dir: PathBuf,
    /// What the names of the parts begin with.
    stem: String,
    extension: String,
    size: u64,
    /// Bytes of a part; the last one may be shorter.
    part: u64,
    /// Unpacked parts by number, the last one used at the end.
    unpacked: VecDeque<(u64, Vec<u8>)>,
}

impl Parts {
    /// An image of `size` bytes in parts of `part` bytes, whose names are made from `path`. All of them have
    /// to be there.
    pub fn open(path: &Path, size: u64, part: u64) -> Result<Self, DiskError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (packed, ending) =
            name.strip_suffix(COMPRESSED).map_or((name, ""), |packed| (packed, COMPRESSED));
        let (stem, extension) = packed.split_at(packed.rfind('.').unwrap_or(packed.len()));
        let parts = Self {
            dir: path.parent().unwrap_or(Path::new("")).into(),
            stem: if stem.is_empty() { String::new() } else { format!("{stem}-") },
            extension: format!("{extension}{ending}"),
            size,
            part,
            unpacked: VecDeque::new(),
        };
        if size == 0 {
            return Err(DiskError::Empty(path.into()));
        }
        if part == 0 || parts.is_compressed() && part > MAX_UNPACKED {
            return Err(DiskError::PartSize { path: path.into(), part });
        }
        for number in 0..size.div_ceil(part) {
            let path = parts.path(number);
            let meta = path.metadata().map_err(|source| DiskError::Open { path: path.clone(), source })?;
            let (have, want) = (meta.len(), parts.bytes_of(number));
            if !parts.is_compressed() && have < want {
                return Err(DiskError::ShortPart { path, have, want });
            }
        }
        Ok(parts)
    }

    fn is_compressed(&self) -> bool {
        self.extension.ends_with(COMPRESSED)
    }

    fn path(&self, number: u64) -> PathBuf {
        let start = number * self.part;
        self.dir.join(format!("{}{start}-{}{}", self.stem, start + self.part, self.extension))
    }

    /// Bytes of the image in a part.
    fn bytes_of(&self, number: u64) -> u64 {
        self.part.min(self.size - number * self.part)
    }

    /// Fills a buffer from one part.
    fn read_part(&mut self, number: u64, within: u64, buf: &mut [u8]) -> Result<(), DiskImageError> {
        let path = self.path(number);
        let failed = |error: io::Error| DiskImageError(format!("`{}`: {error}", path.display()));
        if !self.is_compressed() {
            return File::open(&path).and_then(|file| read_exact_at(&file, buf, within)).map_err(failed);
        }
        let content = self.unpack(number, &path).map_err(failed)?;
        let from = content.get(within as usize..).and_then(|content| content.get(..buf.len()));
        let short = || DiskImageError(format!("`{}` is too short", path.display()));
        buf.copy_from_slice(from.ok_or_else(short)?);
        Ok(())
    }

    /// A compressed part's content.
    fn unpack(&mut self, number: u64, path: &Path) -> io::Result<&[u8]> {
        let kept = &mut self.unpacked;
        let found = kept.iter().position(|(other, _)| *other == number);
        let unpacked = match found.and_then(|at| kept.remove(at)) {
            Some(found) => found,
            None => {
                let mut content = Vec::new();
                let reader = zstd::stream::read::Decoder::new(File::open(path)?)?;
                reader.take(self.part).read_to_end(&mut content)?;
                (number, content)
            }
        };
        if kept.len() as u64 >= (KEPT / self.part).max(1) {
            kept.pop_front();
        }
        kept.push_back(unpacked);
        Ok(kept.back().map_or(&[], |(_, content)| content))
    }

    /// Fills a buffer from byte `offset` on. All of it lies within the size.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), DiskImageError> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (number, within) = (at / self.part, at % self.part);
            let len = (self.part - within).min(rest.len() as u64) as usize;
            let (piece, behind) = rest.split_at_mut(len);
            self.read_part(number, within, piece)?;
            (at, rest) = (at + len as u64, behind);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SIZE: usize = 2500;
    const PART: usize = 1024;

    fn content() -> Vec<u8> {
        (0..SIZE).map(|i| (i % 251) as u8).collect()
    }

    /// The image in parts in a folder, with names as v86 wants them; the last part may be padded.
    fn folder(stem: &str, ending: &str, padded: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (number, part) in content().chunks(PART).enumerate() {
            let mut part = part.to_vec();
            if padded {
                part.resize(PART, 0);
            }
            if ending.ends_with(COMPRESSED) {
                part = zstd::encode_all(&part[..], 3).unwrap();
            }
            let (start, end) = (number * PART, (number + 1) * PART);
            fs::write(dir.path().join(format!("{stem}{start}-{end}{ending}")), part).unwrap();
        }
        dir
    }

    #[test]
    fn parts_are_one_image() {
        for (name, stem, ending) in [
            ("disk.img", "disk-", ".img"),
            ("disk", "disk-", ""),
            (".img", "", ".img"),
            ("a.b.img.zst", "a.b-", ".img.zst"),
            ("disk.zst", "disk-", ".zst"),
        ] {
            for padded in [false, true] {
                let dir = folder(stem, ending, padded);
                let mut parts = Parts::open(&dir.path().join(name), SIZE as u64, PART as u64).unwrap();
                for (offset, len) in [(0, SIZE), (1000, 1000), (2047, 2), (2048, 452), (5, 0)] {
                    let mut buf = vec![0; len];
                    assert_eq!(parts.read(offset as u64, &mut buf), Ok(()), "{name}");
                    assert_eq!(buf, content()[offset..offset + len], "{name}");
                }
            }
        }
    }

    #[test]
    fn a_part_that_is_missing_or_short_is_named() {
        let dir = folder("disk-", ".img", false);
        let open = |part| Parts::open(&dir.path().join("disk.img"), SIZE as u64, part);
        assert!(matches!(open(0), Err(DiskError::PartSize { .. })));
        let path = dir.path().join("disk-1024-2048.img");
        fs::write(&path, [0; 1000]).unwrap();
        assert!(matches!(open(1024), Err(DiskError::ShortPart { have: 1000, want: 1024, .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(open(1024), Err(DiskError::Open { path: named, .. }) if named == path));
        // Later, it is the guest's disk that cannot be read.
        fs::write(&path, [0; 1024]).unwrap();
        let mut parts = open(1024).unwrap();
        fs::remove_file(&path).unwrap();
        let read = parts.read(1000, &mut [0; 100]);
        assert!(matches!(read, Err(DiskImageError(why)) if why.contains("disk-1024-2048.img")));
    }
}
