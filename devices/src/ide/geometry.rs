//! The cylinders, heads and sectors that a hard disk says it has.

use crate::rtc::DiskGeometry;

/// The most cylinders that IDENTIFY DEVICE can tell (ATA/ATAPI-6, 8.15.8).
const MAX_CYLINDERS: u64 = 16_383;
/// The most heads that the Device register can address.
const MAX_HEADS: u64 = 16;
/// Heads and sectors of a disk that nothing is known of.
const HEADS: u64 = MAX_HEADS;
const SECTORS: u64 = 63;
/// Cylinders that the BIOS can address without translation.
const BIOS_CYLINDERS: u64 = 1024;
/// The most heads times cylinders for the translation that older BIOSes call LARGE.
const LARGE_LIMIT: u64 = 131_072;

/// CMOS: the BIOS passes addresses through.
const TRANSLATE_NOT: u8 = 0;
/// CMOS: the BIOS makes blocks of its addresses.
const TRANSLATE_LBA: u8 = 1;
/// CMOS: the BIOS moves bits from cylinders to heads.
const TRANSLATE_LARGE: u8 = 2;

const SIGNATURE: usize = 510;
const PARTITIONS: usize = 446;
const PARTITION_SIZE: usize = 16;
const END_HEAD: usize = 5;
const END_SECTOR: usize = 6;
const LENGTH: usize = 12;

/// The geometry of a disk of so many sectors: the one that its partition table was made with, if a
/// drive can have that, else the usual one. The rules are v86's, whose states the disk has to fit.
pub fn geometry(sectors: u64, first: &[u8; 512]) -> DiskGeometry {
    let partitioned = from_partitions(sectors, first);
    if let Some((cylinders, heads, sectors)) = partitioned.filter(|(_, heads, _)| *heads <= MAX_HEADS) {
        return DiskGeometry {
            cylinders: cylinders as u16,
            heads: heads as u8,
            sectors: sectors as u8,
            translation: TRANSLATE_NOT,
        };
    }
    let cylinders = (sectors / (HEADS * SECTORS)).clamp(2, MAX_CYLINDERS);
    let translation = match partitioned {
        None if cylinders <= BIOS_CYLINDERS => TRANSLATE_NOT,
        Some(_) if HEADS * cylinders <= LARGE_LIMIT => TRANSLATE_LARGE,
        _ => TRANSLATE_LBA,
    };
    DiskGeometry { cylinders: cylinders as u16, heads: HEADS as u8, sectors: SECTORS as u8, translation }
}

/// Cylinders, heads and sectors as the end of a partition tells them.
fn from_partitions(sectors: u64, first: &[u8; 512]) -> Option<(u64, u64, u64)> {
    if first[SIGNATURE..] != [0x55, 0xaa] {
        return None;
    }
    first[PARTITIONS..SIGNATURE].chunks_exact(PARTITION_SIZE).find_map(|entry| {
        let (head, per_track) = (u64::from(entry[END_HEAD]), u64::from(entry[END_SECTOR] & 0x3f));
        if entry[LENGTH..] == [0; 4] || head == 0 || per_track == 0 {
            return None;
        }
        let cylinders = sectors / ((head + 1) * per_track);
        (1..=MAX_CYLINDERS).contains(&cylinders).then_some((cylinders, head + 1, per_track))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(end_head: u8, end_sector: u8) -> [u8; 512] {
        let mut first = [0; 512];
        first[SIGNATURE..].copy_from_slice(&[0x55, 0xaa]);
        first[PARTITIONS + END_HEAD] = end_head;
        first[PARTITIONS + END_SECTOR] = end_sector | 0xc0;
        first[PARTITIONS + LENGTH] = 1;
        first
    }

    fn of(sectors: u64, first: &[u8; 512]) -> (u16, u8, u8, u8) {
        let g = geometry(sectors, first);
        (g.cylinders, g.heads, g.sectors, g.translation)
    }

    #[test]
    fn a_blank_disk_has_the_usual_geometry() {
        assert_eq!(of(0, &[0; 512]), (2, 16, 63, 0));
        assert_eq!(of(100 * 1008 + 5, &[0; 512]), (100, 16, 63, 0));
        assert_eq!(of(2000 * 1008, &[0; 512]), (2000, 16, 63, 1));
        assert_eq!(of(u64::MAX, &[0; 512]), (16383, 16, 63, 1));
    }

    #[test]
    fn partitions_tell_what_the_disk_was_made_with() {
        assert_eq!(of(306 * 4 * 17, &table(3, 17)), (306, 4, 17, 0));
        // 255 heads are the BIOS's, not the drive's.
        assert_eq!(of(2000 * 1008, &table(254, 63)), (2000, 16, 63, 2));
        assert_eq!(of(16_383 * 1008, &table(254, 63)), (16383, 16, 63, 1));
        assert_eq!(of(100 * 1008, &table(0, 63)), (100, 16, 63, 0), "no head");
    }
}
