//! Which device answers at which port and which address.

use super::device::Widths;
use super::rows::Row;
use env86_emu::Width;
use thiserror::Error;

/// Why a board cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BoardError {
    /// Two devices claim a port.
    #[error("port {port:#x} cannot be given to the device {second}: it is one of {first}")]
    Port {
        /// The port.
        port: u16,
        /// The device that has it.
        first: &'static str,
        /// The device that wants it, too.
        second: &'static str,
    },
    /// Two devices claim an address.
    #[error("address {address:#x} cannot be given to the device {second}: it is one of {first}")]
    Address {
        /// The address.
        address: u32,
        /// The device that has it.
        first: &'static str,
        /// The device that wants it, too.
        second: &'static str,
    },
    /// A device claims ports above FFFFh, or there are too many claims.
    #[error("the device {device} cannot have {count} ports at {base:#x}")]
    Ports {
        /// The device.
        device: &'static str,
        /// Its first port.
        base: u16,
        /// How many they are.
        count: u16,
    },
}

/// Consecutive ports of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first port.
    pub base: u16,
    /// The device.
    pub row: Row,
    /// The number that the device knows them by.
    pub window: u8,
    /// Accesses that it takes in one piece.
    pub widths: Widths,
}

/// A table with an entry for each of the 65536 ports.
pub struct PortMap {
    /// For each port the number of a region, plus one; 0 for a port that no device claims.
    index: Box<[u8]>,
    regions: Vec<Region>,
}

impl Default for PortMap {
    fn default() -> Self {
        Self { index: vec![0; 0x1_0000].into_boxed_slice(), regions: Vec::new() }
    }
}

impl PortMap {
    /// Gives all ports back.
    pub fn clear(&mut self) {
        self.index.fill(0);
        self.regions.clear();
    }

    /// Gives `count` ports from `base` on to a device.
    pub fn claim(
        &mut self,
        row: Row,
        window: u8,
        base: u16,
        count: u16,
        widths: Widths,
    ) -> Result<(), BoardError> {
        let range = self.range(row, base, count)?;
        if let Some((port, first)) =
            range.clone().find_map(|port| Some((port as u16, self.find(port as u16)?)))
        {
            return Err(BoardError::Port { port, first: first.row.name(), second: row.name() });
        }
        let number = self.add(Region { base, row, window, widths });
        self.index[range].fill(number);
        Ok(())
    }

    /// Gives those of `count` ports from `base` on to a device that no other has: a guest can put a base
    /// address anywhere.
    pub fn claim_free(&mut self, row: Row, window: u8, base: u16, count: u16, widths: Widths) {
        let Ok(range) = self.range(row, base, count) else { return };
        let number = self.add(Region { base, row, window, widths });
        let (mut taken, wanted) = (0, range.len());
        for entry in &mut self.index[range] {
            if *entry == 0 {
                (*entry, taken) = (number, taken + 1);
            }
        }
        if taken < wanted {
            let device = row.name();
            tracing::debug!(target: "pci", device, base, "a base address lies over other devices' ports");
        }
    }

    /// The range of indices, if the ports exist and one more region can be numbered.
    fn range(&self, row: Row, base: u16, count: u16) -> Result<std::ops::Range<usize>, BoardError> {
        let range = usize::from(base)..usize::from(base) + usize::from(count);
        let fits = range.end <= self.index.len() && self.regions.len() < usize::from(u8::MAX);
        if fits { Ok(range) } else { Err(BoardError::Ports { device: row.name(), base, count }) }
    }

    fn add(&mut self, region: Region) -> u8 {
        self.regions.push(region);
        self.regions.len() as u8
    }

    /// Who answers at a port.
    #[inline]
    pub fn find(&self, port: u16) -> Option<Region> {
        let number = usize::from(self.index[usize::from(port)]);
        self.regions.get(number.wrapping_sub(1)).copied()
    }

    /// Where an access wider than a byte goes if one device takes it in one piece, or none takes any of it
    /// (`Ok(None)`). Else it is to be split.
    pub fn whole(&self, port: u16, width: Width) -> Result<Option<Region>, Split> {
        let region = self.find(port);
        let last = port.wrapping_add(width.bytes() as u16 - 1);
        let fits = match region {
            None => (1..width.bytes() as u16).all(|i| self.find(port.wrapping_add(i)).is_none()),
            Some(region) => match region.widths {
                Widths::Bytes => false,
                Widths::Words => width == Width::Word,
                Widths::Register => true,
                Widths::Within => self.find(last) == Some(region),
                Widths::Dwords => u32::from(port & 3) + width.bytes() <= 4,
            },
        };
        if fits { Ok(region) } else { Err(Split) }
    }
}

/// An access has to be made byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split;

/// Consecutive addresses of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The first address.
    pub base: u32,
    /// Bytes.
    pub size: u32,
    /// The device.
    pub row: Row,
    /// The number that the device knows them by.
    pub window: u8,
}

/// The addresses that devices answer at; there are few.
#[derive(Default)]
pub struct MemoryMap {
    regions: Vec<MemoryRegion>,
}

impl MemoryMap {
    /// Gives all addresses back.
    pub fn clear(&mut self) {
        self.regions.clear();
    }

    /// Gives `size` bytes at `base` to a device.
    pub fn claim(&mut self, row: Row, window: u8, base: u32, size: u32) -> Result<(), BoardError> {
        let end = |base: u32, size: u32| u64::from(base) + u64::from(size);
        let overlaps = |other: &&MemoryRegion| {
            u64::from(base) < end(other.base, other.size) && u64::from(other.base) < end(base, size)
        };
        if let Some(other) = self.regions.iter().find(overlaps) {
            let (address, first) = (base.max(other.base), other.row.name());
            return Err(BoardError::Address { address, first, second: row.name() });
        }
        self.regions.push(MemoryRegion { base, size, row, window });
        Ok(())
    }

    /// Who answers at an address, and the address's offset there.
    #[inline]
    pub fn find(&self, address: u32) -> Option<(MemoryRegion, u32)> {
        self.regions.iter().find_map(|region| {
            let offset = address.wrapping_sub(region.base);
            (offset < region.size).then_some((*region, offset))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_end_where_they_should_and_do_not_overlap() {
        let mut map = PortMap::default();
        map.claim(Row::uarts, 2, 0x3f8, 8, Widths::Bytes).unwrap();
        assert_eq!(map.find(0x3f7), None);
        let com1 = Region { base: 0x3f8, row: Row::uarts, window: 2, widths: Widths::Bytes };
        assert_eq!(map.find(0x3ff), Some(com1));
        assert_eq!(map.find(0x400), None);
        let error = BoardError::Port { port: 0x3f8, first: "uarts", second: "pit" };
        assert_eq!(map.claim(Row::pit, 0, 0x3f0, 9, Widths::Bytes), Err(error));
        assert_eq!(map.find(0x3f0), None, "nothing of a refused claim is left");
        let error = BoardError::Ports { device: "pit", base: 0xfffe, count: 3 };
        assert_eq!(map.claim(Row::pit, 0, 0xfffe, 3, Widths::Bytes), Err(error));
        map.claim(Row::pit, 0, 0xfffe, 2, Widths::Bytes).unwrap();
        map.clear();
        assert_eq!(map.find(0x3f9), None);
    }

    #[test]
    fn base_addresses_get_what_is_free() {
        let mut map = PortMap::default();
        map.claim(Row::pit, 0, 0x42, 1, Widths::Bytes).unwrap();
        map.claim_free(Row::p9, 3, 0x40, 4, Widths::Within);
        map.claim_free(Row::console, 0, 0x42, 4, Widths::Within);
        let rows = [0x40, 0x41, 0x42, 0x43, 0x44].map(|port| map.find(port).map(|region| region.row));
        assert_eq!(rows, [Row::p9, Row::p9, Row::pit, Row::p9, Row::console].map(Some));
        map.claim_free(Row::p9, 0, 0xffff, 4, Widths::Within);
        assert_eq!(map.find(0xffff), None);
        (0..1000).for_each(|_| map.claim_free(Row::p9, 0, 0x8000, 4, Widths::Within));
    }

    #[test]
    fn accesses_are_whole_where_the_device_takes_them() {
        let mut map = PortMap::default();
        for (base, count, widths) in [
            (0x10, 2, Widths::Bytes),
            (0x20, 2, Widths::Words),
            (0x30, 1, Widths::Register),
            (0x40, 4, Widths::Within),
            (0x50, 8, Widths::Dwords),
        ] {
            map.claim(Row::pit, 0, base, count, widths).unwrap();
        }
        let whole = |port, width| map.whole(port, width).is_ok();
        assert!(!whole(0x10, Width::Word));
        assert!(whole(0x21, Width::Word) && !whole(0x20, Width::Dword));
        assert!(whole(0x30, Width::Dword) && !whole(0x2f, Width::Word));
        assert!(whole(0x42, Width::Word) && !whole(0x41, Width::Dword));
        assert!(whole(0x54, Width::Dword) && !whole(0x53, Width::Word));
        assert_eq!(map.whole(0x60, Width::Dword), Ok(None));
    }

    #[test]
    fn memory_does_not_overlap() {
        let mut map = MemoryMap::default();
        map.claim(Row::vga, 1, 0xffff_0000, 0x1_0000).unwrap();
        let region = MemoryRegion { base: 0xffff_0000, size: 0x1_0000, row: Row::vga, window: 1 };
        assert_eq!(map.find(0xffff_ffff), Some((region, 0xffff)));
        assert_eq!(map.find(0xfffe_ffff), None);
        let error = BoardError::Address { address: 0xffff_0000, first: "vga", second: "interrupts" };
        assert_eq!(map.claim(Row::interrupts, 0, 0xfffe_0000, 0x1_0001), Err(error));
        map.claim(Row::interrupts, 0, 0xfffe_0000, 0x1_0000).unwrap();
    }
}
