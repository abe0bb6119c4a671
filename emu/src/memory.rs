//! Guest physical memory.

#![allow(unsafe_code)]

use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::slice;

use thiserror::Error;

/// Bytes in a page.
pub const PAGE_SIZE: u32 = 4096;
/// The window that video cards claim, which is never RAM.
pub const VGA_WINDOW: core::ops::Range<u32> = 0xa_0000..0xc_0000;
/// The alias of the first MiB below 4 GiB, present while a ROM image is fitted.
pub const ROM_ALIAS: u32 = 0xfff0_0000;
/// RAM comes in multiples of this many bytes, as v86 has it.
pub const GRANULARITY: u32 = 128 << 10;
/// The least RAM a PC can start with.
pub const MIN_SIZE: u32 = 1 << 20;
/// The most RAM that fits below the memory-mapped devices.
pub const MAX_SIZE: u32 = (2 << 30) - GRANULARITY;

/// Why memory could not be made.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// Outside what the board can carry.
    #[error("Memory of {0} bytes is not possible; choose between 1 MiB and 2047 MiB")]
    Size(u64),
}

/// The size in bytes of RAM that is to have at least `size` bytes.
///
/// # Errors
/// If no board can carry so much or so little.
pub fn rounded(size: u64) -> Result<u32, MemoryError> {
    let rounded = size.checked_next_multiple_of(GRANULARITY.into()).ok_or(MemoryError::Size(size))?;
    let possible = (MIN_SIZE.into()..=MAX_SIZE.into()).contains(&rounded);
    if possible { Ok(rounded as u32) } else { Err(MemoryError::Size(size)) }
}

/// Bytes of the host's that a guest has as RAM, such as pages of a file that are mapped.
///
/// # Safety
///
/// The bytes stay where they are for as long as the backing lives and wherever it is moved, and nothing
/// else reads or writes them: the processor keeps their addresses.
pub unsafe trait Backing: Send {
    /// The bytes. This is called once, before the guest starts.
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// Guest RAM, by physical address.
///
/// RAM covers 0 to `size`, less [`VGA_WINDOW`]. Accesses outside it read all ones and write
/// nothing, as a bus master on the real board would see.
///
/// Pages that the processor has decoded code from are marked, so that a write to one by anything
/// but the processor itself is noted for the block cache.
///
/// The processor keeps addresses of RAM's bytes, and devices get `&mut Memory`. So that safe code cannot
/// put another memory in the place of the one it was given (by `mem::swap`, say), the type has no
/// size known when compiling: its last field is a slice, an empty one. It is always in a [`Box`].
pub struct Memory<Unsized: ?Sized = [()]> {
    /// What RAM's bytes belong to. They are reached by their address alone.
    _owner: Box<dyn Send>,
    /// Host address of the first byte, with its provenance exposed; RAM never moves.
    base: usize,
    /// Bytes of RAM.
    len: usize,
    rom_alias: bool,
    /// One bit a page: blocks were decoded from it.
    code: Vec<u64>,
    /// Physical ranges in code pages that were written: first byte, length.
    code_writes: Vec<(u32, u32)>,
    _unsized: Unsized,
}

impl Memory {
    /// Zeroed RAM of `size` bytes, rounded up to [`GRANULARITY`].
    pub fn new(size: u64) -> Result<Box<Self>, MemoryError> {
        let mut bytes = vec![0; rounded(size)? as usize];
        let (base, len) = (bytes.as_mut_ptr().expose_provenance(), bytes.len());
        Ok(Self::at(base, len, Box::new(bytes)))
    }

    fn at(base: usize, len: usize, owner: Box<dyn Send>) -> Box<Self> {
        let pages = len / PAGE_SIZE as usize;
        Box::new(Memory {
            _owner: owner,
            base,
            len,
            rom_alias: false,
            code: vec![0; pages.div_ceil(64)],
            code_writes: Vec::new(),
            _unsized: [],
        })
    }

    /// Host address of RAM's first byte.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// RAM in a backing of the host's: its length is the size.
    pub fn with_backing(mut backing: Box<dyn Backing>) -> Result<Box<Self>, MemoryError> {
        let bytes = backing.bytes_mut();
        let (base, len) = (bytes.as_mut_ptr().expose_provenance(), bytes.len());
        let size = len as u64;
        if !size.is_multiple_of(GRANULARITY.into()) || !(MIN_SIZE.into()..=MAX_SIZE.into()).contains(&size) {
            return Err(MemoryError::Size(size));
        }
        Ok(Self::at(base, len, Box::new(backing)))
    }

    /// All of RAM by physical address, for a state to be saved. In the VGA window are zeros.
    pub fn contents(&self) -> &[u8] {
        // SAFETY: `base` is where `len` bytes are that `_owner` keeps and nothing else refers to.
        // What the processor reaches through the TLB it reaches while it has `self`, exclusively.
        unsafe { slice::from_raw_parts(with_exposed_provenance(self.base), self.len) }
    }

    fn contents_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `contents`; the borrow of `self` is exclusive.
        unsafe { slice::from_raw_parts_mut(with_exposed_provenance_mut(self.base), self.len) }
    }

    /// Puts bytes of a saved state into RAM; those outside it are dropped. The processor's state is
    /// to be set afterwards, which drops what was decoded from before.
    pub fn load(&mut self, addr: u32, data: &[u8]) {
        let start = addr as usize;
        if let Some(to) = self.contents_mut().get_mut(start..start.saturating_add(data.len())) {
            to.copy_from_slice(data);
        }
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u32 {
        self.len as u32
    }

    /// Fits or removes the alias of the first MiB at [`ROM_ALIAS`].
    pub fn set_rom_alias(&mut self, present: bool) {
        self.rom_alias = present;
    }

    /// Where the RAM behind a physical address is, if there is RAM.
    #[inline]
    pub fn offset(&self, addr: u32) -> Option<usize> {
        let addr = if self.rom_alias && addr >= ROM_ALIAS { addr - ROM_ALIAS } else { addr };
        (addr < self.size() && !VGA_WINDOW.contains(&addr)).then_some(addr as usize)
    }

    /// The bytes of a range that is RAM throughout.
    pub fn slice(&self, addr: u32, len: u32) -> Option<&[u8]> {
        let start = self.offset(addr)?;
        let last = self.offset(addr.checked_add(len.checked_sub(1)?)?)?;
        (last - start == len as usize - 1).then(|| &self.contents()[start..=last])
    }

    /// Reads bytes; those outside RAM are FFh.
    pub fn read(&self, addr: u32, buf: &mut [u8]) {
        if let Some(src) = self.slice(addr, buf.len() as u32) {
            return buf.copy_from_slice(src);
        }
        for (i, b) in buf.iter_mut().enumerate() {
            *b = self.offset(addr.wrapping_add(i as u32)).map_or(0xff, |o| self.contents()[o]);
        }
    }

    /// Writes bytes; those outside RAM are dropped.
    pub fn write(&mut self, addr: u32, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if let Some(first) = self.offset(addr)
            && let Some(last) = addr.checked_add(data.len() as u32 - 1).and_then(|a| self.offset(a))
            && last - first == data.len() - 1
        {
            self.note_write(first as u32, data.len() as u32);
            return self.contents_mut()[first..=last].copy_from_slice(data);
        }
        for (i, &b) in data.iter().enumerate() {
            if let Some(o) = self.offset(addr.wrapping_add(i as u32)) {
                self.note_write(o as u32, 1);
                self.contents_mut()[o] = b;
            }
        }
    }

    fn note_write(&mut self, offset: u32, len: u32) {
        let pages = offset / PAGE_SIZE..=(offset + len - 1) / PAGE_SIZE;
        if pages.into_iter().any(|p| self.is_code(p)) {
            self.code_writes.push((offset, len));
        }
    }

    /// Whether blocks were decoded from a page (by its number in RAM).
    pub(crate) fn is_code(&self, page: u32) -> bool {
        self.code.get(page as usize / 64).is_some_and(|w| w >> (page % 64) & 1 != 0)
    }

    /// Marks a page as one that blocks were decoded from, or no longer so.
    pub(crate) fn set_code(&mut self, page: u32, code: bool) {
        let bit = 1 << (page % 64);
        if let Some(word) = self.code.get_mut(page as usize / 64) {
            *word = if code { *word | bit } else { *word & !bit };
        }
    }

    /// Whether [`Memory::take_code_writes`] has something.
    pub(crate) fn has_code_writes(&self) -> bool {
        !self.code_writes.is_empty()
    }

    /// The ranges in code pages written since the last call.
    pub(crate) fn take_code_writes(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.code_writes)
    }

    /// The host address of `bytes` bytes at an offset in RAM.
    #[inline]
    fn host(&self, offset: usize, bytes: usize) -> usize {
        assert!(offset + bytes <= self.len, "inside RAM");
        self.base + offset
    }

    /// Reads 1, 2 or 4 bytes at an offset in RAM; they must not go over its end.
    #[inline]
    pub(crate) fn peek(&self, offset: u32, bytes: u32) -> u32 {
        let host = self.host(offset as usize, bytes as usize);
        // SAFETY: `host` has checked that the bytes are RAM, which `self` owns and never moves.
        unsafe {
            match bytes {
                1 => with_exposed_provenance::<u8>(host).read().into(),
                2 => u16::from_le(with_exposed_provenance::<u16>(host).read_unaligned()).into(),
                _ => u32::from_le(with_exposed_provenance::<u32>(host).read_unaligned()),
            }
        }
    }

    /// Writes 1, 2 or 4 bytes at an offset in RAM, for the processor, which does its own bookkeeping of
    /// code pages; they must not go over its end.
    #[inline]
    pub(crate) fn poke(&mut self, offset: u32, bytes: u32, value: u32) {
        let host = self.host(offset as usize, bytes as usize);
        // SAFETY: as in `peek`.
        unsafe {
            match bytes {
                1 => with_exposed_provenance_mut::<u8>(host).write(value as u8),
                2 => with_exposed_provenance_mut::<u16>(host).write_unaligned((value as u16).to_le()),
                _ => with_exposed_provenance_mut::<u32>(host).write_unaligned(value.to_le()),
            }
        }
    }

    /// Reads one byte.
    pub fn read_u8(&self, addr: u32) -> u8 {
        self.offset(addr).map_or(0xff, |o| self.contents()[o])
    }

    /// Reads a little-endian 16-bit value at any alignment.
    pub fn read_u16(&self, addr: u32) -> u16 {
        let mut b = [0; 2];
        self.read(addr, &mut b);
        u16::from_le_bytes(b)
    }

    /// Reads a little-endian 32-bit value at any alignment.
    #[inline]
    pub fn read_u32(&self, addr: u32) -> u32 {
        // What is RAM and what is not begins and ends with a page.
        if let (Some(offset), true) = (self.offset(addr), addr % PAGE_SIZE <= PAGE_SIZE - 4) {
            return self.peek(offset as u32, 4);
        }
        let mut b = [0; 4];
        self.read(addr, &mut b);
        u32::from_le_bytes(b)
    }

    /// Reads a little-endian 64-bit value at any alignment.
    pub fn read_u64(&self, addr: u32) -> u64 {
        let mut b = [0; 8];
        self.read(addr, &mut b);
        u64::from_le_bytes(b)
    }

    /// Writes one byte.
    pub fn write_u8(&mut self, addr: u32, value: u8) {
        self.write(addr, &[value]);
    }

    /// Writes a little-endian 16-bit value at any alignment.
    pub fn write_u16(&mut self, addr: u32, value: u16) {
        self.write(addr, &value.to_le_bytes());
    }

    /// Writes a little-endian 32-bit value at any alignment.
    pub fn write_u32(&mut self, addr: u32, value: u32) {
        self.write(addr, &value.to_le_bytes());
    }

    /// Writes a little-endian 64-bit value at any alignment.
    pub fn write_u64(&mut self, addr: u32, value: u64) {
        self.write(addr, &value.to_le_bytes());
    }
}
