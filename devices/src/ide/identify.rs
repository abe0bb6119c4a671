//! What drives say of themselves (ATA/ATAPI-6, 8.15 and 8.16).
//!
//! Names, numbers and sizes are those of v86's drives: a guest that moves from there, or back, looks
//! at them after the next reset and drops a disk that has become another one.

use super::ata::MAX_MULTIPLE;
use super::drive::{Drive, SECTOR};
use super::medium::Medium;

const MODEL_DISK: &str = "v86 ATA HD";
const MODEL_CDROM: &str = "v86 ATAPI CD-ROM";
const FIRMWARE: &str = "1.00";

/// Word 0 of a hard disk: not removable.
const FIXED_DISK: u16 = 0x0040;
/// Word 0 of a CD-ROM drive: ATAPI, type 5, removable, DRQ within 50 us of PACKET, packets of 12 bytes.
const REMOVABLE_CDROM: u16 = 0x85c0;
/// Word 49: LBA and DMA.
const LBA_AND_DMA: u16 = 0x0300;
/// Word 53: words 54 to 58 and 64 to 70 are valid.
const VALID: u16 = 0x0003;
/// Word 64: PIO modes 3 and 4.
const PIO_3_AND_4: u16 = 0x0003;
/// Words 65 to 68: 120 ns, the cycle of multiword DMA 2 and PIO 4.
const CYCLE_NS: u16 = 120;
/// Word 80: ATA-1 (bit 1) to ATA/ATAPI-6 (bit 6); an ATAPI drive from ATA/ATAPI-4 on.
const VERSIONS_ATA: u16 = 0x007e;
const VERSIONS_ATAPI: u16 = 0x0070;
/// Words 82 and 85 of a hard disk: NOP, power management.
const FEATURES_DISK: u16 = 0x4008;
/// A cache for writes, without which drivers flush none: on a disk that is written through.
const WRITE_CACHE: u16 = 0x0020;
/// Of a CD-ROM drive: NOP, DEVICE RESET, PACKET, power management.
const FEATURES_CDROM: u16 = 0x4218;
/// Words 83 and 86: 48-bit addresses, FLUSH CACHE, FLUSH CACHE EXT. Bit 14 says that the word is valid.
const FEATURES_2_DISK: u16 = 0x3400;
const WORD_VALID: u16 = 0x4000;
/// The most sectors that 28 bits can tell.
const LBA28_SECTORS: u64 = 0x0fff_ffff;

/// The 256 words.
struct Words([u16; SECTOR as usize / 2]);

impl Words {
    fn new() -> Self {
        Self([0; SECTOR as usize / 2])
    }

    /// Text of `len` words, filled up with blanks, the first letter of each pair in the high byte.
    fn text(&mut self, at: usize, len: usize, text: &str) {
        let mut bytes = text.bytes().chain(std::iter::repeat(b' '));
        for word in self.0.iter_mut().skip(at).take(len) {
            *word = u16::from_be_bytes([0; 2].map(|_: u8| bytes.next().unwrap_or(b' ')));
        }
    }

    /// A number in `len` words, the lowest first.
    fn number(&mut self, at: usize, len: usize, value: u64) {
        for (i, word) in self.0.iter_mut().skip(at).take(len).enumerate() {
            *word = (value >> (16 * i)) as u16;
        }
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_iter().flat_map(u16::to_le_bytes).collect()
    }
}

impl Drive {
    /// What both kinds say: names, how data move, versions and features.
    fn identify(&self, model: &str, serial: &str, features: u16, features_2: u16) -> Words {
        let mut words = Words::new();
        words.text(10, 10, serial);
        words.text(23, 4, FIRMWARE);
        words.text(27, 20, model);
        words.0[49] = LBA_AND_DMA;
        words.0[53] = VALID;
        // Multiword DMA 0 to 2, and which of them is set.
        let set = self.transfer_mode.checked_sub(0x20).filter(|mode| *mode <= 2);
        words.0[63] = 0x0007 | set.map_or(0, |mode| 0x100 << mode);
        words.0[64] = PIO_3_AND_4;
        words.0[65..69].fill(CYCLE_NS);
        words.0[82] = features;
        words.0[83] = features_2 | WORD_VALID;
        words.0[84] = WORD_VALID;
        words.0[85] = features;
        words.0[86] = features_2;
        words.0[87] = WORD_VALID;
        words
    }

    /// IDENTIFY DEVICE.
    pub(super) fn identify_disk(&self) -> Vec<u8> {
        let serial = self.serial();
        let cached = self.medium.as_ref().is_some_and(Medium::is_written_through);
        let features = FEATURES_DISK | if cached { WRITE_CACHE } else { 0 };
        let mut words = self.identify(MODEL_DISK, &serial, features, FEATURES_2_DISK);
        let (native, set, sectors) = (self.native, self.geometry, self.sectors());
        words.0[0] = FIXED_DISK;
        words.0[1] = native.cylinders;
        words.0[3] = native.heads.into();
        words.0[6] = native.sectors.into();
        words.0[47] = 0x8000 | u16::from(MAX_MULTIPLE);
        words.0[54] = set.cylinders;
        words.0[55] = set.heads.into();
        words.0[56] = set.sectors.into();
        let by_geometry = u64::from(set.cylinders) * u64::from(set.heads) * u64::from(set.sectors);
        words.number(57, 2, by_geometry);
        // Only what the host has set, or it takes the default for the BIOS's choice.
        words.0[59] = if self.multiple == 0 { 0 } else { 0x0100 | u16::from(self.multiple) };
        words.number(60, 2, sectors.min(LBA28_SECTORS));
        words.0[80] = VERSIONS_ATA;
        // The result of the last reset: device 0 or 1, detected, passed (word 93).
        words.0[93] = 0x6001;
        words.number(100, 4, sectors);
        words.bytes()
    }

    /// IDENTIFY PACKET DEVICE.
    pub(super) fn identify_cdrom(&self) -> Vec<u8> {
        let mut words = self.identify(MODEL_CDROM, &self.serial(), FEATURES_CDROM, 0);
        words.0[0] = REMOVABLE_CDROM;
        words.0[80] = VERSIONS_ATAPI;
        words.bytes()
    }

    fn serial(&self) -> String {
        format!("8086-86{}{}", self.place.0, self.place.1)
    }
}
