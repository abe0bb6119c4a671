//! What is in a floppy drive: a disk of one of the PC's formats, all of it in memory.

use std::fmt;

use thiserror::Error;

use crate::ide::{DiskImageError, Medium};

/// Bytes of a sector. Disks with other sizes are not to be had as plain images.
pub const SECTOR: usize = 512;
/// Bytes of the largest format.
pub const LARGEST: u64 = 2880 << 10;

/// A data rate, as the registers DSR and CCR select it (82077AA, table 2-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// 500 kbit/s: high density.
    Kbps500 = 0,
    /// 300 kbit/s: double density in a drive that turns faster.
    Kbps300 = 1,
    /// 250 kbit/s: double density.
    Kbps250 = 2,
    /// 1 Mbit/s: extra density.
    Kbps1000 = 3,
}

/// A drive, by its number in the setup memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriveKind {
    /// None.
    None = 0,
    /// 5.25 inches, 40 tracks.
    Kib360 = 1,
    /// 5.25 inches, 80 tracks.
    Kib1200 = 2,
    /// 3.5 inches, double density.
    Kib720 = 3,
    /// 3.5 inches, high density.
    #[default]
    Kib1440 = 4,
    /// 3.5 inches, extra density.
    Kib2880 = 5,
}

impl DriveKind {
    /// The drive with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Kib360, Self::Kib1200, Self::Kib720, Self::Kib1440, Self::Kib2880]
            .get(usize::from(number))
            .copied()
    }

    /// The last track that the head can reach: drives go a little beyond their formats.
    pub fn last_track(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Kib360 => 41,
            _ => 84,
        }
    }
}

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Tracks of a side.
    pub tracks: u8,
    /// Sides.
    pub heads: u8,
    /// Sectors of a track.
    pub sectors: u8,
    /// The drive that it was made for.
    pub drive: DriveKind,
}

const fn format(tracks: u8, heads: u8, sectors: u8, drive: DriveKind) -> Format {
    Format { tracks, heads, sectors, drive }
}

/// From the smallest to the largest.
const FORMATS: [Format; 15] = [
    format(40, 1, 8, DriveKind::Kib360),   // 160 KiB
    format(40, 1, 9, DriveKind::Kib360),   // 180 KiB
    format(40, 2, 8, DriveKind::Kib360),   // 320 KiB
    format(40, 2, 9, DriveKind::Kib360),   // 360 KiB
    format(80, 2, 8, DriveKind::Kib720),   // 640 KiB
    format(80, 2, 9, DriveKind::Kib720),   // 720 KiB
    format(80, 2, 10, DriveKind::Kib720),  // 800 KiB
    format(82, 2, 10, DriveKind::Kib720),  // 820 KiB
    format(80, 2, 15, DriveKind::Kib1200), // 1.2 MB
    format(80, 2, 18, DriveKind::Kib1440), // 1.44 MB
    format(80, 2, 20, DriveKind::Kib1440), // 1.6 MB
    format(80, 2, 21, DriveKind::Kib1440), // 1.68 MB, Microsoft's distribution format
    format(82, 2, 21, DriveKind::Kib1440), // 1.72 MB
    format(83, 2, 22, DriveKind::Kib1440), // 1.83 MB
    format(80, 2, 36, DriveKind::Kib2880), // 2.88 MB
];

impl Format {
    /// Bytes of the disk.
    pub fn bytes(&self) -> usize {
        usize::from(self.tracks) * usize::from(self.heads) * usize::from(self.sectors) * SECTOR
    }

    /// The smallest format that has room for so many bytes.
    pub fn for_bytes(bytes: u64) -> Option<Self> {
        FORMATS.into_iter().find(|format| format.bytes() as u64 >= bytes)
    }

    /// Whether the disk can be read at a data rate.
    pub fn has_rate(&self, rate: Rate) -> bool {
        match self.drive {
            // A 1.2 MB drive reads double density faster, because it turns faster.
            DriveKind::Kib360 | DriveKind::Kib720 => matches!(rate, Rate::Kbps250 | Rate::Kbps300),
            DriveKind::Kib2880 => rate == Rate::Kbps1000,
            _ => rate == Rate::Kbps500,
        }
    }
}

/// Why a medium is not a floppy disk.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FloppyError {
    /// It is larger than any.
    #[error("it has {0} bytes, and the largest floppy disk has {LARGEST}")]
    Size(u64),
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// It cannot be read, or its bytes are still on their way.
    #[error("it cannot be read")]
    Read(#[from] DiskImageError),
}

/// A floppy disk.
#[derive(Clone)]
pub struct Disk {
    format: Format,
    data: Vec<u8>,
    /// The medium whose image gets what is written.
    through: Option<Medium>,
    /// The notch is closed.
    pub write_protected: bool,
}

/// A disk's bytes are too many to be shown: their checksum tells disks apart.
impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, data, through, write_protected } = self;
        f.debug_struct("Disk")
            .field("format", format)
            .field("data", &xxhash_rust::xxh3::xxh3_64(data))
            .field("through", &through.is_some())
            .field("write_protected", write_protected)
            .finish()
    }
}

/// Two disks are the same if they have the same on them.
impl PartialEq for Disk {
    fn eq(&self, other: &Self) -> bool {
        (&self.data, self.write_protected) == (&other.data, other.write_protected)
    }
}

impl Eq for Disk {}

impl Disk {
    /// A disk with these bytes, and zeros up to the end of its format.
    pub fn new(mut data: Vec<u8>) -> Result<Self, FloppyError> {
        if data.is_empty() {
            return Err(FloppyError::Empty);
        }
        let size = data.len() as u64;
        let format = Format::for_bytes(size).ok_or(FloppyError::Size(size))?;
        data.resize(format.bytes(), 0);
        Ok(Self { format, data, through: None, write_protected: false })
    }

    /// The disk that a medium is, all of whose bytes have to be there. If its image gets what is written to
    /// it, it gets what the guest writes.
    pub fn of(medium: Medium) -> Result<Self, FloppyError> {
        let size = medium.size();
        if size > LARGEST {
            return Err(FloppyError::Size(size));
        }
        let data = medium.contents()?;
        Ok(Self { through: Some(medium).filter(Medium::is_written_through), ..Self::new(data)? })
    }

    /// Puts on the disk what is on another one, wherever this one's image keeps it. `None` if they are of
    /// different formats.
    pub fn copy(&mut self, other: &Self) -> Option<()> {
        if self.format != other.format {
            return None;
        }
        if let Some(medium) = &mut self.through {
            // What the image cannot take is in memory, as everything is.
            _ = medium.write(0, &other.data);
        }
        self.data.clone_from(&other.data);
        self.write_protected = other.write_protected;
        Some(())
    }

    /// How it is divided.
    pub fn format(&self) -> Format {
        self.format
    }

    /// All that is on it, sector by sector, the sides of a track behind each other.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Where a sector is. They are counted from 1.
    fn place(&self, track: u8, head: u8, sector: u8) -> Option<usize> {
        let Format { tracks, heads, sectors, .. } = self.format;
        if track >= tracks || head >= heads || !(1..=sectors).contains(&sector) {
            return None;
        }
        let side = usize::from(track) * usize::from(heads) + usize::from(head);
        Some((side * usize::from(sectors) + usize::from(sector) - 1) * SECTOR)
    }

    /// A sector.
    pub fn sector(&self, track: u8, head: u8, sector: u8) -> Option<&[u8; SECTOR]> {
        self.data[self.place(track, head, sector)?..].first_chunk()
    }

    /// Writes a sector that is there. Says whether it is where it has to be: in memory it always is.
    pub fn write(&mut self, track: u8, head: u8, sector: u8, data: &[u8; SECTOR]) -> bool {
        let Some(at) = self.place(track, head, sector) else { return false };
        if let Some(medium) = &mut self.through
            && medium.write(at as u64, data).is_err()
        {
            return false;
        }
        self.data[at..at + SECTOR].copy_from_slice(data);
        true
    }

    /// What was written is where it outlives the host.
    pub fn flush(&self) {
        // A drive has no way to tell that it failed, and each write has been checked.
        _ = self.through.as_ref().map(Medium::flush);
    }
}
