//! Guest physical memory.

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

/// Guest RAM, by physical address.
///
/// RAM covers 0 to `size`, less [`VGA_WINDOW`]. Accesses outside it read all ones and write
/// nothing, as a bus master on the real board would see.
pub struct Memory {
    bytes: Vec<u8>,
    rom_alias: bool,
}

impl Memory {
    /// Zeroed RAM of `size` bytes, rounded up to [`GRANULARITY`].
    pub fn new(size: u64) -> Result<Self, MemoryError> {
        let rounded = size.checked_next_multiple_of(GRANULARITY.into()).ok_or(MemoryError::Size(size))?;
        if !(MIN_SIZE.into()..=MAX_SIZE.into()).contains(&rounded) {
            return Err(MemoryError::Size(size));
        }
        Ok(Self { bytes: vec![0; rounded as usize], rom_alias: false })
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Fits or removes the alias of the first MiB at [`ROM_ALIAS`].
    pub fn set_rom_alias(&mut self, present: bool) {
        self.rom_alias = present;
    }

    /// Where the RAM behind a physical address is, if there is RAM.
    pub fn offset(&self, addr: u32) -> Option<usize> {
        let addr = if self.rom_alias && addr >= ROM_ALIAS { addr - ROM_ALIAS } else { addr };
        (addr < self.size() && !VGA_WINDOW.contains(&addr)).then_some(addr as usize)
    }

    /// The bytes of a range that is RAM throughout.
    pub fn slice(&self, addr: u32, len: u32) -> Option<&[u8]> {
        let start = self.offset(addr)?;
        let last = self.offset(addr.checked_add(len.checked_sub(1)?)?)?;
        (last - start == len as usize - 1).then(|| &self.bytes[start..=last])
    }

    /// Reads bytes; those outside RAM are FFh.
    pub fn read(&self, addr: u32, buf: &mut [u8]) {
        if let Some(src) = self.slice(addr, buf.len() as u32) {
            return buf.copy_from_slice(src);
        }
        for (i, b) in buf.iter_mut().enumerate() {
            *b = self.offset(addr.wrapping_add(i as u32)).map_or(0xff, |o| self.bytes[o]);
        }
    }

    /// Writes bytes; those outside RAM are dropped.
    pub fn write(&mut self, addr: u32, data: &[u8]) {
        for (i, &b) in data.iter().enumerate() {
            if let Some(o) = self.offset(addr.wrapping_add(i as u32)) {
                self.bytes[o] = b;
            }
        }
    }

    /// Reads one byte.
    pub fn read_u8(&self, addr: u32) -> u8 {
        self.offset(addr).map_or(0xff, |o| self.bytes[o])
    }

    /// Reads a little-endian 16-bit value at any alignment.
    pub fn read_u16(&self, addr: u32) -> u16 {
        let mut b = [0; 2];
        self.read(addr, &mut b);
        u16::from_le_bytes(b)
    }

    /// Reads a little-endian 32-bit value at any alignment.
    pub fn read_u32(&self, addr: u32) -> u32 {
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
