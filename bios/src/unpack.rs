//! Unpacking of what a Linux kernel's build packs: the formats of its `lib/decompress.c`.

use core::ops::Range;
use std::io::{self, Read};

use thiserror::Error;

use crate::elf::u32_at;

/// The most that a payload may unpack to, in bytes.
const LIMIT: usize = 256 << 20;
/// The most memory that a decoder may take: an LZMA or Zstandard window, in bytes.
const WINDOW_LIMIT: u32 = 256 << 20;
/// What a block of the LZ4 legacy format unpacks to, at most (LZ4 frame format, 'Legacy frame').
const LZ4_BLOCK: usize = 8 << 20;

/// Why a payload can't be unpacked here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnpackError {
    /// No known magic number, or LZO.
    #[error("packed in a format that is not known here")]
    Format,
    /// The data is damaged or too large.
    #[error("{format}: {reason}")]
    Data {
        /// The format's name.
        format: &'static str,
        /// What the decoder found.
        reason: String,
    },
}

/// How a payload is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lz4,
    Zstd,
    None,
}

/// Magic numbers, as in the kernel's table of decompressors.
const FORMATS: [(&[u8], Format); 8] = [
    (&[0x1f, 0x8b], Format::Gzip),
    (&[0x1f, 0x9e], Format::Gzip),
    (b"BZh", Format::Bzip2),
    (&[0x5d, 0x00, 0x00], Format::Lzma),
    (b"\xfd7zXZ\0", Format::Xz),
    (&[0x02, 0x21, 0x4c, 0x18], Format::Lz4),
    (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
    (b"\x7fELF", Format::None),
];

/// A kernel's payload while it is unpacked. It is read to its end without an error only if nothing is amiss with it.
pub struct Unpacked<'a> {
    reader: Box<dyn Read + 'a>,
    format: Format,
    size: u64,
    read: u64,
}

impl<'a> Unpacked<'a> {
    /// The kernel's build appends the unpacked size, four bytes little-endian, to every format; gzip has
    /// it as part of its own trailer.
    pub fn new(payload: &'a [u8]) -> Result<Self, UnpackError> {
        let (_, format) =
            *FORMATS.iter().find(|(magic, _)| payload.starts_with(magic)).ok_or(UnpackError::Format)?;
        if format == Format::None {
            return Ok(Self { reader: Box::new(payload), format, size: payload.len() as u64, read: 0 });
        }
        let size_at = payload.len().saturating_sub(4);
        let size = u32_at(payload, size_at).unwrap_or(0) as usize;
        if size > LIMIT {
            return Err(format.damage(format!("unpacks to {size} bytes, more than any kernel")));
        }
        let packed = if format == Format::Gzip { payload } else { &payload[..size_at] };
        let reader = format.reader(packed, size).map_err(|error| format.damage(error.to_string()))?;
        Ok(Self { reader, format, size: size as u64, read: 0 })
    }

    /// What it unpacks to, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buf)?;
        self.read += n as u64;
        let (read, size) = (self.read, self.size);
        if read > size || n == 0 && !buf.is_empty() && read < size {
            let more = if read > size { "more" } else { "less" };
            let error = self.format.damage(format!("unpacks to {more} than {size} bytes"));
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(n)
    }
}

/// Unpacks a kernel's payload as a whole.
pub fn unpack(payload: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut reader = Unpacked::new(payload)?;
    let mut unpacked = Vec::with_capacity(reader.size as usize);
    match reader.read_to_end(&mut unpacked) {
        Ok(_) => Ok(unpacked),
        Err(error) => Err(reader.format.damage(error.to_string())),
    }
}

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Format::Gzip => "gzip",
            Format::Bzip2 => "bzip2",
            Format::Lzma => "LZMA",
            Format::Xz => "XZ",
            Format::Lz4 => "LZ4",
            Format::Zstd => "Zstandard",
            Format::None => "ELF",
        }
    }

    fn damage(self, reason: String) -> UnpackError {
        UnpackError::Data { format: self.name(), reason }
    }

    /// Unpacks something of `size` bytes.
    fn reader(self, packed: &[u8], size: usize) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Format::Gzip => Box::new(flate2::read::GzDecoder::new(packed)),
            Format::Bzip2 => Box::new(bzip2::read::BzDecoder::new(packed)),
            Format::Lzma => {
                Box::new(lzma_rust2::LzmaReader::new_mem_limit(packed, WINDOW_LIMIT >> 10, None)?)
            }
            Format::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(packed, false, WINDOW_LIMIT >> 10)),
            Format::Lz4 => Box::new(Lz4Legacy::new(packed, size)),
            Format::Zstd => {
                let window = u64::from(WINDOW_LIMIT);
                let reader = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(packed, window);
                Box::new(
                    reader.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?,
                )
            }
            Format::None => Box::new(packed),
        })
    }
}

/// The LZ4 legacy format: a magic number, then blocks with their packed size in front.
struct Lz4Legacy<'a> {
    packed: &'a [u8],
    /// What is still to be unpacked, in bytes.
    left: usize,
    /// Room for an unpacked block, and what of it has not been read.
    block: Vec<u8>,
    unread: Range<usize>,
}

impl<'a> Lz4Legacy<'a> {
    fn new(packed: &'a [u8], size: usize) -> Self {
        let packed = packed.get(4..).unwrap_or_default();
        Self { packed, left: size, block: vec![0; LZ4_BLOCK], unread: 0..0 }
    }

    fn next_block(&mut self) -> Result<(), String> {
        let mut word = [0; 4];
        self.packed.read_exact(&mut word).map_err(|error| error.to_string())?;
        let cut = self.packed.split_at_checked(u32::from_le_bytes(word) as usize);
        let (input, rest) = cut.ok_or("a block is cut short")?;
        let n =
            lz4_flex::block::decompress_into(input, &mut self.block).map_err(|error| error.to_string())?;
        if n == 0 {
            return Err("an empty block".into());
        }
        (self.packed, self.left, self.unread) = (rest, self.left.saturating_sub(n), 0..n);
        Ok(())
    }
}

impl Read for Lz4Legacy<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() && self.left > 0 {
            self.next_block().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        let n = self.block[self.unread.clone()].as_ref().read(buf)?;
        self.unread.start += n;
        Ok(n)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    /// Code-like bytes: CALLs to one place from many, which a BCJ filter rewrites.
    fn sample() -> Vec<u8> {
        let mut code = vec![0x7f, b'E', b'L', b'F'];
        for i in 0..40_000u32 {
            code.push(0xe8);
            code.extend((0x10_0000 - i * 7).to_le_bytes());
            code.extend([0x90, i as u8]);
        }
        code
    }

    fn sized(mut packed: Vec<u8>, size: usize) -> Vec<u8> {
        packed.extend((size as u32).to_le_bytes());
        packed
    }

    pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    fn packed_every_way(data: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(data).unwrap();

        let options = lzma_rust2::LzmaOptions::with_preset(1);
        let mut lzma = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
        lzma.write_all(data).unwrap();

        // What the kernel's build uses on x86: the BCJ filter before LZMA2, CRC32 as check.
        let mut options = lzma_rust2::XzOptions::with_preset(1);
        options.set_check_sum_type(lzma_rust2::CheckType::Crc32);
        options.prepend_pre_filter(lzma_rust2::filter::FilterType::BcjX86, 0);
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        xz.write_all(data).unwrap();

        let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
        for block in data.chunks(LZ4_BLOCK) {
            let block = lz4_flex::block::compress(block);
            lz4.extend((block.len() as u32).to_le_bytes());
            lz4.extend(block);
        }
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let size = data.len();
        vec![
            ("gzip", gzip(data)),
            ("bzip2", sized(bzip2.finish().unwrap(), size)),
            ("LZMA", sized(lzma.finish().unwrap(), size)),
            ("XZ", sized(xz.finish().unwrap(), size)),
            ("LZ4", sized(lz4, size)),
            ("Zstandard", sized(ruzstd::encoding::compress_to_vec(data, level), size)),
            ("ELF", data.to_vec()),
        ]
    }

    #[test]
    fn every_format_gives_back_what_went_in() {
        let data = sample();
        for (name, packed) in packed_every_way(&data) {
            assert!(unpack(&packed).unwrap() == data, "{name}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        let data = sample();
        for (name, packed) in packed_every_way(&data) {
            if name == "ELF" {
                continue;
            }
            assert!(unpack(&packed[..packed.len() / 2]).is_err(), "{name}, cut");
            let mut lying = packed.clone();
            let last = lying.len() - 3;
            lying[last] ^= 1;
            assert!(unpack(&lying).is_err(), "{name}, another size");
        }
        assert_eq!(unpack(b"\x89LZO and so on"), Err(UnpackError::Format));
        assert_eq!(unpack(b""), Err(UnpackError::Format));
    }
}
