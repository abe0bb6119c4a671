//! QEMU's firmware configuration device, through which SeaBIOS learns of the machine (QEMU,
//! docs/specs/fw_cfg.rst): byte by byte at a port, or as a whole by DMA.

use env86_emu::{Memory, Width};
use tracing::debug;

/// Selects an item: 16-bit write.
pub const PORT_SELECT: u16 = 0x510;
/// Reads the selected item byte by byte.
pub const PORT_DATA: u16 = 0x511;

/// The first port of the DMA interface: a big-endian address of 64 bits, of a [`Transfer`]. Writing its lower half
/// starts it.
pub const PORT_DMA: u16 = 0x514;
/// How many ports that is.
pub const PORT_DMA_COUNT: u16 = 8;

const SIGNATURE: u16 = 0x00;
const ID: u16 = 0x01;
const RAM_SIZE: u16 = 0x03;
const CPU_COUNT: u16 = 0x05;
const NUMA: u16 = 0x0d;
const BOOT_MENU: u16 = 0x0e;
const MAX_CPUS: u16 = 0x0f;
const FILE_DIRECTORY: u16 = 0x19;
/// Files are numbered from here, as v86 does.
const FIRST_FILE: u16 = 0xc000;
/// The file with the map of RAM: ranges by 64-bit address and length and a 32-bit type, as E820h has them.
const MEMORY_MAP: &str = "etc/e820";
/// The type of RAM in it.
const MAP_RAM: u32 = 1;
/// The file with the time in milliseconds for which SeaBIOS offers its boot menu: less than its own, because every
/// machine waits for it, and most have no one to press the key.
const MENU_WAIT: &str = "etc/boot-menu-wait";
const MENU_WAIT_MS: u64 = 1500;
/// [`ID`]: there are the ports for single bytes, and DMA.
const FEATURES: u32 = 1 << 0 | 1 << 1;
/// What the DMA ports read.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";
/// Bytes of a [`Transfer`] in memory.
const TRANSFER_SIZE: usize = 16;
/// A transfer moves so many bytes at once.
const PIECE: usize = 4096;
/// Bytes for a file's name in the directory, with its end.
const NAME_SIZE: usize = 56;

/// Bits of a transfer's control field.
mod control {
    /// Set by the device: it has failed.
    pub const ERROR: u32 = 1 << 0;
    /// To memory.
    pub const READ: u32 = 1 << 1;
    /// Over so many bytes.
    pub const SKIP: u32 = 1 << 2;
    /// First selects the item in the upper half.
    pub const SELECT: u32 = 1 << 3;
    /// From memory; no item here can be written.
    pub const WRITE: u32 = 1 << 4;
}

/// What the guest asks of the DMA interface; each of its numbers is big-endian in memory.
struct Transfer {
    control: u32,
    length: u32,
    address: u64,
}

impl Transfer {
    fn read(mem: &Memory, at: u32) -> Self {
        let mut bytes = [0; TRANSFER_SIZE];
        mem.read(at, &mut bytes);
        let number = u128::from_be_bytes(bytes);
        Self { control: (number >> 96) as u32, length: (number >> 64) as u32, address: number as u64 }
    }
}

/// A file for the firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name: at most 55 bytes.
    pub name: String,
    /// Its contents.
    pub data: Vec<u8>,
}

/// What a machine has for its firmware beside what every machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Items that have numbers, such as the parts of a kernel.
    pub items: Vec<(u16, Vec<u8>)>,
    /// Files.
    pub files: Vec<File>,
}

/// The device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FwCfg {
    /// The selected item's contents.
    pub value: Vec<u8>,
    /// Bytes of it read.
    pub position: usize,
    /// The upper half of the next transfer's address.
    pub dma_high: u32,
    memory_size: u32,
    contents: Contents,
}

impl FwCfg {
    /// A device that tells of `memory_size` bytes of RAM.
    pub fn new(memory_size: u32) -> Self {
        let mut fw_cfg = Self { memory_size, ..Self::default() };
        fw_cfg.provide(Contents::default());
        fw_cfg
    }

    /// What there is for the firmware from now on, beside what every machine has.
    pub fn provide(&mut self, mut contents: Contents) {
        let ram = [0, u64::from(self.memory_size)].map(u64::to_le_bytes).concat();
        let map = [&ram[..], &MAP_RAM.to_le_bytes()].concat();
        contents.files.push(File { name: MEMORY_MAP.into(), data: map });
        contents.files.push(File { name: MENU_WAIT.into(), data: MENU_WAIT_MS.to_le_bytes().to_vec() });
        self.contents = contents;
    }

    /// What a reset does.
    pub fn reset(&mut self) {
        self.value.clear();
        self.position = 0;
        self.dma_high = 0;
    }

    /// Writes the select port.
    pub fn select(&mut self, item: u16) {
        self.position = 0;
        self.value = match item {
            SIGNATURE => b"QEMU".to_vec(),
            ID => FEATURES.to_le_bytes().to_vec(),
            RAM_SIZE => u64::from(self.memory_size).to_le_bytes().to_vec(),
            CPU_COUNT | MAX_CPUS => 1u32.to_le_bytes().to_vec(),
            NUMA => vec![0; 16],
            BOOT_MENU => 1u16.to_le_bytes().to_vec(),
            FILE_DIRECTORY => self.directory(),
            _ => self.provided(item).map_or_else(|| vec![0; 4], <[u8]>::to_vec),
        };
    }

    fn provided(&self, item: u16) -> Option<&[u8]> {
        let Contents { items, files } = &self.contents;
        match item.checked_sub(FIRST_FILE) {
            Some(file) => files.get(usize::from(file)).map(|file| &*file.data),
            None => items.iter().find(|(number, _)| *number == item).map(|(_, data)| &**data),
        }
    }

    /// Reads the data port: the next byte, zero beyond the item's end.
    pub fn read(&mut self) -> u8 {
        let byte = self.value.get(self.position).copied().unwrap_or(0);
        self.position = self.position.saturating_add(1);
        byte
    }

    /// Reads the DMA ports, from the one at `offset` on.
    pub fn read_dma(&self, offset: u32, width: Width) -> u32 {
        let byte = |at: u32| DMA_SIGNATURE.get(at as usize).copied().unwrap_or(0);
        (offset..offset + width.bytes()).rev().fold(0, |value, at| value << 8 | u32::from(byte(at)))
    }

    /// Writes the DMA ports: halves of the address, with their bytes in the other order. The lower one starts the
    /// transfer, which is done when this returns.
    pub fn write_dma(&mut self, mem: &mut Memory, offset: u32, width: Width, value: u32) {
        match (offset, width) {
            (0, Width::Dword) => self.dma_high = value.swap_bytes(),
            (4, Width::Dword) => {
                let high = std::mem::take(&mut self.dma_high);
                self.transfer(mem, u64::from(high) << 32 | u64::from(value.swap_bytes()));
            }
            _ => debug!(target: "fw_cfg", offset, ?width, "not a half of a DMA address"),
        }
    }

    fn transfer(&mut self, mem: &mut Memory, at: u64) {
        // Its answer would not have a place, either.
        let Ok(at) = u32::try_from(at) else {
            return debug!(target: "fw_cfg", at, "a transfer beyond 4 GiB");
        };
        let Transfer { control, length, address } = Transfer::read(mem, at);
        if control & control::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = if control & control::READ != 0 {
            self.copy(mem, address, length)
        } else if control & control::SKIP != 0 {
            self.position = self.position.saturating_add(length as usize);
            true
        } else {
            control & control::WRITE == 0
        };
        mem.write_u32(at, if done { 0 } else { control::ERROR.to_be() });
    }

    /// Puts the item's next bytes into memory, zeros beyond its end; says whether that was memory.
    fn copy(&mut self, mem: &mut Memory, address: u64, length: u32) -> bool {
        if address + u64::from(length) > u64::from(mem.size()) {
            return false;
        }
        let (mut at, end) = (address as u32, address as u32 + length);
        while at < end {
            let mut piece = [0; PIECE];
            let piece = &mut piece[..PIECE.min((end - at) as usize)];
            let rest = self.value.get(self.position..).unwrap_or_default();
            let some = rest.len().min(piece.len());
            piece[..some].copy_from_slice(&rest[..some]);
            mem.write(at, piece);
            self.position = self.position.saturating_add(piece.len());
            at += piece.len() as u32;
        }
        true
    }

    /// The directory; its numbers are big-endian.
    fn directory(&self) -> Vec<u8> {
        let files = &self.contents.files;
        let mut bytes = (files.len() as u32).to_be_bytes().to_vec();
        for (item, file) in (FIRST_FILE..).zip(files) {
            bytes.extend((file.data.len() as u32).to_be_bytes());
            bytes.extend(item.to_be_bytes());
            bytes.extend([0; 2]);
            let mut name = file.name.clone().into_bytes();
            name.truncate(NAME_SIZE - 1);
            name.resize(NAME_SIZE, 0);
            bytes.extend(name);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(fw_cfg: &mut FwCfg, item: u16) -> [u8; N] {
        fw_cfg.select(item);
        core::array::from_fn(|_| fw_cfg.read())
    }

    #[test]
    fn items() {
        let mut fw_cfg = FwCfg::new(0x1000_0000);
        assert_eq!(read(&mut fw_cfg, SIGNATURE), *b"QEMU");
        assert_eq!(u64::from_le_bytes(read(&mut fw_cfg, RAM_SIZE)), 0x1000_0000);
        assert_eq!(read(&mut fw_cfg, CPU_COUNT), [1, 0]);
        assert_eq!(read(&mut fw_cfg, 0x8001), [0; 8]);
        assert_eq!(read(&mut fw_cfg, 0xffff), [0; 8]);
    }

    #[test]
    fn files_are_listed_and_read() {
        let file = File { name: "genroms/kernel.bin".to_owned(), data: vec![0x55, 0xaa, 1] };
        let mut fw_cfg = FwCfg::new(0x1000_0000);
        fw_cfg.provide(Contents { items: vec![(0x08, vec![7, 8])], files: vec![file] });
        let directory: [u8; 196] = read(&mut fw_cfg, FILE_DIRECTORY);
        assert_eq!(directory[..12], [0, 0, 0, 3, 0, 0, 0, 3, 0xc0, 0, 0, 0]);
        assert_eq!(&directory[12..31], b"genroms/kernel.bin\0");
        assert_eq!(directory[68..76], [0, 0, 0, 20, 0xc0, 1, 0, 0]);
        assert_eq!(&directory[76..85], b"etc/e820\0");
        assert_eq!(&directory[140..159], b"etc/boot-menu-wait\0");
        assert_eq!(read(&mut fw_cfg, 0xc000), [0x55, 0xaa, 1, 0]);
        let map: [u8; 20] = read(&mut fw_cfg, 0xc001);
        assert_eq!(
            (&map[..8], &map[8..16], &map[16..]),
            (&[0; 8][..], &0x1000_0000u64.to_le_bytes()[..], &[1, 0, 0, 0][..])
        );
        assert_eq!(read(&mut fw_cfg, 0x08), [7, 8, 0]);
    }

    /// Asks for a transfer that lies at this address; gives what its control field says afterwards.
    fn transfer(fw_cfg: &mut FwCfg, mem: &mut Memory, control: u32, length: u32, address: u64) -> u32 {
        const AT: u32 = 0x1234;
        mem.write_u32(AT, control.to_be());
        mem.write_u32(AT + 4, length.to_be());
        mem.write_u64(AT + 8, address.to_be());
        fw_cfg.write_dma(mem, 0, Width::Dword, 0);
        fw_cfg.write_dma(mem, 4, Width::Dword, AT.to_be());
        u32::from_be(mem.read_u32(AT))
    }

    #[test]
    fn a_transfer_moves_an_item_to_memory() {
        let data: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
        let mut fw_cfg = FwCfg::new(0);
        fw_cfg.provide(Contents { items: vec![(0x11, data.clone())], files: Vec::new() });
        let mut mem = Memory::new(1 << 20).unwrap();
        let size = mem.size();
        assert_eq!([0, 4].map(|at| fw_cfg.read_dma(at, Width::Dword)), [0x554d_4551, 0x4746_4320]);
        assert_eq!(read(&mut fw_cfg, ID), FEATURES.to_le_bytes());
        let select = control::SELECT | 0x11 << 16;
        mem.load(0x2_0000, &[0xff; 10_002]);
        assert_eq!(transfer(&mut fw_cfg, &mut mem, select | control::READ, 10_001, 0x2_0000), 0);
        assert_eq!(mem.slice(0x2_0000, 10_000).unwrap(), data);
        assert_eq!(mem.slice(0x2_0000 + 10_000, 2).unwrap(), [0, 0xff]);
        assert_eq!(transfer(&mut fw_cfg, &mut mem, select | control::SKIP, 5, 0), 0);
        assert_eq!(transfer(&mut fw_cfg, &mut mem, control::READ, 2, 0x3_0000), 0);
        assert_eq!(mem.slice(0x3_0000, 2).unwrap(), &data[5..7]);
        assert_eq!(fw_cfg.read(), data[7]);
        // Neither to nowhere nor into an item.
        for to in [u64::from(size) - 1, u64::from(u32::MAX), u64::from(u32::MAX) << 32] {
            assert_eq!(transfer(&mut fw_cfg, &mut mem, select | control::READ, 2, to), control::ERROR);
        }
        assert_eq!(transfer(&mut fw_cfg, &mut mem, select | control::WRITE, 2, 0), control::ERROR);
        fw_cfg.write_dma(&mut mem, 0, Width::Dword, 1);
        fw_cfg.write_dma(&mut mem, 4, Width::Dword, 0);
        fw_cfg.write_dma(&mut mem, 3, Width::Byte, 0);
    }
}
