//! Executables in ELF32 (System V ABI, chapter 5; Intel386 supplement).

use std::io::{self, Read};

use env86_emu::Memory;

use crate::{BoardInfo, BootError, fits};

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;
const DATA_LSB: u8 = 1;
const TYPE_EXEC: u16 = 2;
const MACHINE_386: u16 = 3;
const SEGMENT_LOAD: u32 = 1;
const HEADER_SIZE: usize = 52;
const PROGRAM_HEADER_SIZE: u64 = 32;
/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// The little-endian 16-bit value at an offset, if the bytes are there.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The little-endian 32-bit value at an offset, if the bytes are there.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// A segment to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it goes, physically.
    pub paddr: u32,
    /// Where it is linked to run.
    pub vaddr: u32,
    /// Where its initialised bytes are in the file.
    pub offset: u32,
    /// How many of those there are.
    pub file_size: u32,
    /// Its size in memory; what the file does not have of it is zero.
    pub size: u32,
}

/// An executable's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// The first instruction's physical address.
    pub entry: u32,
    /// The PT_LOAD segments that occupy memory.
    pub segments: Vec<Segment>,
}

/// Whether this is an ELF file, of any kind.
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(&MAGIC)
}

/// Whether this is a 64-bit ELF file.
pub fn is_elf64(file: &[u8]) -> bool {
    is_elf(file) && file.get(4) == Some(&CLASS_64)
}

impl Elf {
    /// Reads the headers of an i386 executable from its first bytes; the file has `len` in all.
    pub fn parse(file: &[u8], len: u64) -> Result<Self, BootError> {
        if !is_elf(file) {
            return Err(BootError::Elf("it has no ELF header"));
        }
        if is_elf64(file) {
            return Err(BootError::Kernel64);
        }
        if file.len() < HEADER_SIZE {
            return Err(truncated(file, HEADER_SIZE as u64));
        }
        let u16_at = |offset| u16_at(file, offset).unwrap_or(0);
        let u32_at = |offset| u32_at(file, offset).unwrap_or(0);
        if file[4] != CLASS_32 || file[5] != DATA_LSB || u16_at(18) != MACHINE_386 {
            return Err(BootError::Elf("it is for another processor"));
        }
        if u16_at(16) != TYPE_EXEC {
            return Err(BootError::Elf("it is not linked to a fixed address"));
        }
        let (table, entry_size, count) =
            (u64::from(u32_at(28)), u64::from(u16_at(42)), u64::from(u16_at(44)));
        if entry_size < PROGRAM_HEADER_SIZE || count == 0 {
            return Err(BootError::Elf("it has no program headers"));
        }
        let end = table + entry_size * count;
        if end > file.len() as u64 {
            return Err(truncated(file, end));
        }
        let mut segments = Vec::new();
        for i in 0..count {
            let header = (table + i * entry_size) as usize;
            let field = |n: usize| u32_at(header + 4 * n);
            let (kind, offset, vaddr, paddr, file_size, size) =
                (field(0), field(1), field(2), field(3), field(4), field(5));
            if kind != SEGMENT_LOAD || size == 0 {
                continue;
            }
            if file_size > size || paddr.checked_add(size).is_none() {
                return Err(BootError::Elf("a segment's sizes contradict each other"));
            }
            let end = u64::from(offset) + u64::from(file_size);
            if end > len {
                return Err(BootError::Truncated { what: "ELF file", have: len, need: end });
            }
            segments.push(Segment { paddr, vaddr, offset, file_size, size });
        }
        if segments.is_empty() {
            return Err(BootError::Elf("it has no segment to load"));
        }
        let entry = physical_entry(u32_at(24), &segments);
        Ok(Self { entry, segments })
    }

    /// The first and last + 1 physical address of all segments.
    pub fn range(&self) -> core::ops::Range<u32> {
        let start = self.segments.iter().map(|s| s.paddr).min().unwrap_or(0);
        let end = self.segments.iter().map(|s| s.paddr + s.size).max().unwrap_or(0);
        start..end
    }

    /// Says what is in the way if memory has no room for a segment.
    pub fn fits(&self, board: &BoardInfo, mem: &Memory) -> Result<(), BootError> {
        let room =
            |s: &Segment| fits("kernel", s.paddr.into(), u64::from(s.paddr) + u64::from(s.size), board, mem);
        self.segments.iter().try_for_each(room)
    }

    /// Reads the segments into memory, which has room for them, and zeroes what the file leaves open. `read` gives the
    /// bytes of the file from an offset on; the offsets rise if no two segments share bytes.
    pub fn load(
        &self,
        mem: &mut Memory,
        mut read: impl FnMut(u32, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut segments = self.segments.clone();
        segments.sort_by_key(|s| s.offset);
        let mut chunk = vec![0; CHUNK];
        for s in segments {
            for at in (0..s.file_size).step_by(CHUNK) {
                let chunk = &mut chunk[..CHUNK.min((s.file_size - at) as usize)];
                read(s.offset + at, chunk)?;
                mem.write(s.paddr + at, chunk);
            }
            zero(s.paddr + s.file_size, s.paddr + s.size, mem);
        }
        Ok(())
    }

    /// Loads an executable that is there as a whole.
    pub fn load_file(&self, file: &[u8], board: &BoardInfo, mem: &mut Memory) -> Result<(), BootError> {
        self.fits(board, mem)?;
        let read =
            |offset: u32, chunk: &mut [u8]| file.get(offset as usize..).unwrap_or_default().read_exact(chunk);
        self.load(mem, read).map_err(|_| BootError::Elf("a segment lies outside the file"))
    }
}

/// Zeroes `[start, end)`.
pub fn zero(start: u32, end: u32, mem: &mut Memory) {
    const ZEROS: [u8; 4096] = [0; 4096];
    for addr in (start..end).step_by(ZEROS.len()) {
        mem.write(addr, &ZEROS[..ZEROS.len().min((end - addr) as usize)]);
    }
}

/// Kernels give their entry as a physical address or as a virtual one; paging is off either way.
fn physical_entry(entry: u32, segments: &[Segment]) -> u32 {
    let within = |start: u32, s: &Segment| entry.wrapping_sub(start) < s.size;
    if segments.iter().any(|s| within(s.paddr, s)) {
        return entry;
    }
    match segments.iter().find(|s| within(s.vaddr, s)) {
        Some(s) => entry - s.vaddr + s.paddr,
        None => entry,
    }
}

fn truncated(file: &[u8], need: u64) -> BootError {
    BootError::Truncated { what: "ELF file", have: file.len() as u64, need }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An executable of one segment: `code`, then zeros up to `size`.
    pub(crate) fn build(paddr: u32, vaddr: u32, entry: u32, code: &[u8], size: u32) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend(MAGIC);
        file.extend([CLASS_32, DATA_LSB, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for half in [TYPE_EXEC, MACHINE_386] {
            file.extend(half.to_le_bytes());
        }
        for word in [1, entry, HEADER_SIZE as u32, 0, 0] {
            file.extend(word.to_le_bytes());
        }
        for half in [HEADER_SIZE as u16, PROGRAM_HEADER_SIZE as u16, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let offset = HEADER_SIZE as u32 + PROGRAM_HEADER_SIZE as u32;
        for word in [SEGMENT_LOAD, offset, vaddr, paddr, code.len() as u32, size, 7, 4096] {
            file.extend(word.to_le_bytes());
        }
        file.extend(code);
        file
    }

    fn parse(file: &[u8]) -> Result<Elf, BootError> {
        Elf::parse(file, file.len() as u64)
    }

    #[test]
    fn segments_land_at_their_physical_addresses() {
        let file = build(0x20_0000, 0xc020_0000, 0xc020_0004, b"code", 0x2000);
        let elf = parse(&file).unwrap();
        assert_eq!(elf.entry, 0x20_0004);
        assert_eq!(elf.range(), 0x20_0000..0x20_2000);
        let mut mem = Memory::new(4 << 20).unwrap();
        mem.write(0x20_0000, &[0xff; 0x2001]);
        elf.load_file(&file, &BoardInfo::default(), &mut mem).unwrap();
        assert_eq!(mem.slice(0x20_0000, 6).unwrap(), b"code\0\0");
        assert_eq!(mem.read_u16(0x20_1fff), 0xff00);
    }

    #[test]
    fn damage_is_an_error_at_every_byte() {
        let good = build(0x10_0000, 0x10_0000, 0x10_0000, b"code", 0x1000);
        for len in 0..good.len() {
            assert!(parse(&good[..len]).is_err(), "cut to {len}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = !bad[at];
            if let Ok(elf) = parse(&bad) {
                let _ = elf.load_file(&bad, &BoardInfo::default(), &mut Memory::new(2 << 20).unwrap());
            }
        }
        let mut wide = good.clone();
        wide[4] = CLASS_64;
        assert_eq!(parse(&wide), Err(BootError::Kernel64));
    }

    #[test]
    fn too_little_memory_says_how_much_would_do() {
        let file = build(0x100_0000, 0, 0, b"x", 0x1000);
        let mut mem = Memory::new(8 << 20).unwrap();
        let error = parse(&file).unwrap().load_file(&file, &BoardInfo::default(), &mut mem).unwrap_err();
        assert!(error.to_string().contains("needs 17 MiB"), "{error}");
    }
}
