//! The commands of a hard disk (ATA/ATAPI-6, chapter 8).

use super::drive::{ABRT, DRQ, Drive, IDNF, Phase, READY, SECTOR, Transfer, UNC};
use super::geometry::geometry;
use super::medium::Medium;
use crate::rtc::DiskGeometry;
use std::task::Poll;

// Commands. Where there are two of a kind, the second is the first's older form without retries.
const RECALIBRATE: u8 = 0x10;
const RECALIBRATE_LAST: u8 = 0x1f;
const READ_SECTORS: u8 = 0x20;
const READ_SECTORS_ONCE: u8 = 0x21;
const READ_SECTORS_EXT: u8 = 0x24;
const READ_DMA_EXT: u8 = 0x25;
const READ_NATIVE_MAX_EXT: u8 = 0x27;
const READ_MULTIPLE_EXT: u8 = 0x29;
const WRITE_SECTORS: u8 = 0x30;
const WRITE_SECTORS_ONCE: u8 = 0x31;
const WRITE_SECTORS_EXT: u8 = 0x34;
const WRITE_DMA_EXT: u8 = 0x35;
const WRITE_MULTIPLE_EXT: u8 = 0x39;
const READ_VERIFY: u8 = 0x40;
const READ_VERIFY_ONCE: u8 = 0x41;
const READ_VERIFY_EXT: u8 = 0x42;
const SEEK: u8 = 0x70;
const SEEK_LAST: u8 = 0x7f;
const INITIALIZE_DEVICE_PARAMETERS: u8 = 0x91;
const READ_MULTIPLE: u8 = 0xc4;
const WRITE_MULTIPLE: u8 = 0xc5;
const SET_MULTIPLE_MODE: u8 = 0xc6;
const READ_DMA: u8 = 0xc8;
const READ_DMA_ONCE: u8 = 0xc9;
const WRITE_DMA: u8 = 0xca;
const WRITE_DMA_ONCE: u8 = 0xcb;
const FLUSH_CACHE: u8 = 0xe7;
const FLUSH_CACHE_EXT: u8 = 0xea;
/// IDENTIFY DEVICE.
pub(super) const IDENTIFY_DEVICE: u8 = 0xec;
const READ_NATIVE_MAX: u8 = 0xf8;
// These are an ATAPI drive's, too.
/// EXECUTE DEVICE DIAGNOSTIC, which both drives of a channel take.
pub const EXECUTE_DEVICE_DIAGNOSTIC: u8 = 0x90;
/// SET FEATURES.
pub const SET_FEATURES: u8 = 0xef;

/// Power commands that change a mode that nothing depends on here: STANDBY and IDLE, at once or later,
/// and SLEEP, with their older codes.
const POWER: [u8; 10] = [0x94, 0x95, 0x96, 0x97, 0x99, 0xe0, 0xe1, 0xe2, 0xe3, 0xe6];
/// CHECK POWER MODE, with its older code.
const CHECK_POWER_MODE: [u8; 2] = [0x98, 0xe5];
/// The answer: active or idle.
const POWER_ACTIVE: u8 = 0xff;

// Features to set. Caches, look-ahead and reverting to defaults change nothing that could be seen.
const SET_TRANSFER_MODE: u8 = 0x03;
const HARMLESS_FEATURES: [u8; 8] = [0x02, 0x05, 0x55, 0x66, 0x82, 0x85, 0xaa, 0xcc];
/// Transfer mode: PIO as the drive likes it, without IORDY or with.
const PIO_DEFAULT_LAST: u8 = 0x01;
/// Transfer modes PIO 3 and 4; single-word DMA 0 to 2; multiword DMA 0 to 2.
const TRANSFER_MODES: [core::ops::RangeInclusive<u8>; 3] = [0x08..=0x0c, 0x10..=0x12, 0x20..=MULTIWORD_DMA_2];
/// The fastest transfer mode.
pub const MULTIWORD_DMA_2: u8 = 0x22;

/// Device register: the address is of a block.
const DEVICE_LBA: u8 = 0x40;
const DEVICE_HEAD: u8 = 0x0f;
/// Sectors in a DRQ block of the MULTIPLE commands at most, and as long as none are set.
pub const MAX_MULTIPLE: u8 = 128;

/// How a command moves sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Through the data port, a sector in a DRQ block.
    Single,
    /// Through the data port, some sectors in a DRQ block.
    Multiple,
    /// By the bus master.
    Dma,
    /// Not at all.
    Verify,
}

/// A command that reads or writes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub how: How,
    pub write: bool,
    /// The address has 48 bits, the count 16.
    pub ext: bool,
}

/// What a command reads or writes, if it does.
pub(super) fn access(command: u8) -> Option<Access> {
    let (how, write, ext) = match command {
        READ_SECTORS | READ_SECTORS_ONCE => (How::Single, false, false),
        READ_SECTORS_EXT => (How::Single, false, true),
        READ_MULTIPLE => (How::Multiple, false, false),
        READ_MULTIPLE_EXT => (How::Multiple, false, true),
        READ_DMA | READ_DMA_ONCE => (How::Dma, false, false),
        READ_DMA_EXT => (How::Dma, false, true),
        READ_VERIFY | READ_VERIFY_ONCE => (How::Verify, false, false),
        READ_VERIFY_EXT => (How::Verify, false, true),
        WRITE_SECTORS | WRITE_SECTORS_ONCE => (How::Single, true, false),
        WRITE_SECTORS_EXT => (How::Single, true, true),
        WRITE_MULTIPLE => (How::Multiple, true, false),
        WRITE_MULTIPLE_EXT => (How::Multiple, true, true),
        WRITE_DMA | WRITE_DMA_ONCE => (How::Dma, true, false),
        WRITE_DMA_EXT => (How::Dma, true, true),
        _ => return None,
    };
    Some(Access { how, write, ext })
}

/// The geometry that a disk was made with. One whose first sector cannot be read, or is not there yet, has
/// the usual one.
pub(super) fn native_geometry(medium: &Medium) -> DiskGeometry {
    let mut first = [0; SECTOR as usize];
    _ = medium.read(0, &mut first);
    geometry(medium.sectors(SECTOR), &first)
}

impl Drive {
    /// A command to a hard disk.
    pub(super) fn ata_command(&mut self, command: u8) {
        if let Some(access) = access(command) {
            return self.begin(access);
        }
        match command {
            RECALIBRATE..=RECALIBRATE_LAST => {
                (self.registers.lba_mid, self.registers.lba_high) = (0, 0);
                self.succeed();
            }
            SEEK..=SEEK_LAST => match self.address(false) {
                Some(lba) if lba < self.sectors() => self.succeed(),
                _ => self.fail(IDNF),
            },
            INITIALIZE_DEVICE_PARAMETERS => self.set_geometry(),
            SET_MULTIPLE_MODE => self.set_multiple(),
            SET_FEATURES => self.set_features(),
            IDENTIFY_DEVICE => self.give(self.identify_disk(), SECTOR as usize),
            READ_NATIVE_MAX => self.native_max(false),
            READ_NATIVE_MAX_EXT => self.native_max(true),
            FLUSH_CACHE | FLUSH_CACHE_EXT => self.flush(),
            _ if POWER.contains(&command) => self.succeed(),
            _ if CHECK_POWER_MODE.contains(&command) => self.tell_power(),
            // What this disk has not; and NOP, which has no other outcome (8.28).
            _ => self.fail(ABRT),
        }
    }

    /// What has been written through is to outlive the host.
    fn flush(&mut self) {
        match self.medium.as_ref().map_or(Ok(()), Medium::flush) {
            Ok(()) => self.succeed(),
            Err(error) => {
                tracing::warn!(target: "ide", %error, "the disk's cache cannot be flushed");
                self.fail(ABRT);
            }
        }
    }

    pub(super) fn tell_power(&mut self) {
        self.registers.sector_count = POWER_ACTIVE.into();
        self.succeed();
    }

    /// Sectors that the registers ask for.
    fn count(&self, ext: bool) -> u64 {
        let count = self.registers.sector_count;
        match (ext, count) {
            (true, 0) => 0x1_0000,
            (true, count) => count.into(),
            (false, count) if count & 0xff == 0 => 0x100,
            (false, count) => (count & 0xff).into(),
        }
    }

    /// The sector that the registers name; no sector has the number 0 in CHS.
    fn address(&self, ext: bool) -> Option<u64> {
        let r = &self.registers;
        let low = |register: u16| u64::from(register & 0xff);
        let previous = |register: u16| u64::from(register >> 8);
        let lba24 = low(r.lba_low) | low(r.lba_mid) << 8 | low(r.lba_high) << 16;
        if ext {
            let high = previous(r.lba_low) | previous(r.lba_mid) << 8 | previous(r.lba_high) << 16;
            return Some(lba24 | high << 24);
        }
        let head = u64::from(r.device & DEVICE_HEAD);
        if r.device & DEVICE_LBA != 0 {
            return Some(lba24 | head << 24);
        }
        let (heads, sectors) = (u64::from(self.geometry.heads), u64::from(self.geometry.sectors));
        let (cylinder, sector) = (lba24 >> 8, low(r.lba_low));
        let there = head < heads && (1..=sectors).contains(&sector);
        there.then(|| (cylinder * heads + head) * sectors + sector - 1)
    }

    /// Starts to read or write; or again, when data that it read have come.
    pub(super) fn begin(&mut self, access: Access) {
        let (address, count) = (self.address(access.ext), self.count(access.ext));
        let Some(lba) = address.filter(|lba| lba + count <= self.sectors()) else {
            return self.fail(IDNF);
        };
        let (start, bytes) = (lba * SECTOR, (count * SECTOR) as usize);
        if access.how == How::Verify {
            return self.succeed();
        }
        if access.write {
            let (phase, end) = match access.how {
                How::Dma => (Phase::DmaOut, bytes),
                _ => (Phase::PioOut, self.drq_block(access.how).min(bytes)),
            };
            let (block, data) = (self.drq_block(access.how), self.room(bytes));
            self.transfer = Transfer { phase, data, end, block, start, ..Transfer::default() };
            self.registers.status = READY | DRQ;
            return;
        }
        let mut data = self.room(bytes);
        self.asked = true;
        let read = match &self.medium {
            Some(medium) => medium.read(start, &mut data),
            None => Poll::Ready(Ok(())),
        };
        match (read, access.how) {
            (Poll::Pending, _) => self.wait(&[]),
            (Poll::Ready(Err(error)), _) => {
                tracing::warn!(target: "ide", %error, lba, "sectors cannot be read");
                self.fail(UNC);
            }
            (Poll::Ready(Ok(())), How::Dma) => self.give_by_dma(data),
            (Poll::Ready(Ok(())), how) => self.give(data, self.drq_block(how)),
        }
    }

    /// Bytes in a DRQ block.
    pub(super) fn drq_block(&self, how: How) -> usize {
        let sectors = match (how, self.multiple) {
            (How::Multiple, 0) => MAX_MULTIPLE,
            (How::Multiple, multiple) => multiple,
            _ => 1,
        };
        usize::from(sectors) * SECTOR as usize
    }

    fn set_geometry(&mut self) {
        let (heads, sectors) = (self.registers.device & DEVICE_HEAD, self.registers.sector_count as u8);
        if sectors == 0 {
            return self.fail(ABRT);
        }
        let per_cylinder = (u64::from(heads) + 1) * u64::from(sectors);
        let cylinders = (self.sectors() / per_cylinder).min(u16::MAX.into()) as u16;
        self.geometry = DiskGeometry { cylinders, heads: heads + 1, sectors, ..self.geometry };
        self.succeed();
    }

    fn set_multiple(&mut self) {
        match self.registers.sector_count as u8 {
            sectors if sectors > MAX_MULTIPLE || !(sectors == 0 || sectors.is_power_of_two()) => {
                self.fail(ABRT);
            }
            sectors => {
                self.multiple = sectors;
                self.succeed();
            }
        }
    }

    pub(super) fn set_features(&mut self) {
        let mode = self.registers.sector_count as u8;
        match self.registers.features as u8 {
            SET_TRANSFER_MODE if mode <= PIO_DEFAULT_LAST => self.succeed(),
            SET_TRANSFER_MODE if TRANSFER_MODES.iter().any(|modes| modes.contains(&mode)) => {
                self.transfer_mode = mode;
                self.succeed();
            }
            feature if HARMLESS_FEATURES.contains(&feature) => self.succeed(),
            _ => self.fail(ABRT),
        }
    }

    fn native_max(&mut self, ext: bool) {
        /// The most that 28 bits can name (8.32).
        const LBA28_LAST: u64 = 0x0fff_ffff;
        let last = self.sectors().saturating_sub(1);
        let last = if ext { last } else { last.min(LBA28_LAST) };
        let bytes = last.to_le_bytes();
        let pair = |low: u8, previous: u8| u16::from_le_bytes([low, previous]);
        let r = &mut self.registers;
        if ext {
            r.lba_low = pair(bytes[0], bytes[3]);
            r.lba_mid = pair(bytes[1], bytes[4]);
            r.lba_high = pair(bytes[2], bytes[5]);
        } else {
            (r.lba_low, r.lba_mid, r.lba_high) = (pair(bytes[0], 0), pair(bytes[1], 0), pair(bytes[2], 0));
            r.device = r.device & !DEVICE_HEAD | bytes[3];
        }
        self.succeed();
    }
}
