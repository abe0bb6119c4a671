//! Disks and discs for guests to find.

/// Bytes of a hard disk's sector.
const SECTOR: usize = 512;
/// Bytes of a CD-ROM's.
const CD_SECTOR: usize = 2048;

/// A hard disk of zeros with a partition table: for each partition its sectors, the first of them
/// behind the table, the others one after the other.
///
/// # Panics
/// If there are more than four, or they do not fit.
#[must_use]
pub fn hard_disk(sectors: usize, partitions: &[u32]) -> Vec<u8> {
    const ENTRIES: usize = 446;
    const ENTRY: usize = 16;
    const LINUX: u8 = 0x83;
    /// Where addresses in cylinders, heads and sectors end: the others count.
    const NO_CHS: [u8; 3] = [0xfe, 0xff, 0xff];
    assert!(partitions.len() <= 4);
    let mut disk = vec![0; sectors * SECTOR];
    let mut start = 64;
    for (entry, length) in disk[ENTRIES..].chunks_exact_mut(ENTRY).zip(partitions) {
        entry[1..4].copy_from_slice(&NO_CHS);
        entry[4] = LINUX;
        entry[5..8].copy_from_slice(&NO_CHS);
        entry[8..12].copy_from_slice(&bytes_of(start));
        entry[12..].copy_from_slice(&bytes_of(*length));
        start += length;
    }
    assert!(start as usize <= sectors);
    disk[SECTOR - 2..SECTOR].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn bytes_of(sector: u32) -> [u8; 4] {
    sector.to_le_bytes()
}

/// A disc with these files in its only directory: ISO 9660 of level 1, whose names are like `A.TXT`
/// (ECMA-119).
///
/// # Panics
/// If there are more files than one sector can name.
#[must_use]
pub fn disc(files: &[(&str, &[u8])]) -> Vec<u8> {
    // The system area, the primary descriptor, the terminator, two tables of paths, the directory.
    const DESCRIPTOR: usize = 16;
    const PATHS: [usize; 2] = [18, 19];
    const ROOT: usize = 20;
    const DIRECTORY: u8 = 2;
    let mut contents = Vec::new();
    let mut directory =
        [record(ROOT, CD_SECTOR, DIRECTORY, &[0]), record(ROOT, CD_SECTOR, DIRECTORY, &[1])].concat();
    for (name, content) in files {
        let sector = ROOT + 1 + contents.len() / CD_SECTOR;
        directory.extend(record(sector, content.len(), 0, format!("{name};1").as_bytes()));
        contents.extend_from_slice(content);
        contents.resize(contents.len().next_multiple_of(CD_SECTOR), 0);
    }
    assert!(directory.len() <= CD_SECTOR);
    let sectors = ROOT + 1 + contents.len() / CD_SECTOR;
    let mut disc = vec![0; (ROOT + 1) * CD_SECTOR];
    let mut put = |sector: usize, at: usize, bytes: &[u8]| {
        disc[sector * CD_SECTOR + at..][..bytes.len()].copy_from_slice(bytes);
    };
    for (sector, kind) in [(DESCRIPTOR, 1), (DESCRIPTOR + 1, 255)] {
        put(sector, 0, &[&[kind][..], b"CD001", &[1]].concat());
    }
    put(DESCRIPTOR, 8, &[b' '; 64]); // system and volume
    put(DESCRIPTOR, 80, &both(sectors));
    put(DESCRIPTOR, 120, &both16(1)); // a set of one
    put(DESCRIPTOR, 124, &both16(1)); // the first of it
    put(DESCRIPTOR, 128, &both16(CD_SECTOR));
    put(DESCRIPTOR, 132, &both(10)); // bytes of a table of paths
    put(DESCRIPTOR, 140, &(PATHS[0] as u32).to_le_bytes());
    put(DESCRIPTOR, 148, &(PATHS[1] as u32).to_be_bytes());
    put(DESCRIPTOR, 156, &record(ROOT, CD_SECTOR, DIRECTORY, &[0]));
    put(DESCRIPTOR, 190, &[b' '; 623]); // names of people and files
    put(DESCRIPTOR, 813, &[b'0'; 68]); // times
    put(DESCRIPTOR, 881, &[1]);
    // Length of the name, where the directory is, its parent: itself.
    put(PATHS[0], 0, &[&[1, 0][..], &(ROOT as u32).to_le_bytes(), &[1, 0, 0]].concat());
    put(PATHS[1], 0, &[&[1, 0][..], &(ROOT as u32).to_be_bytes(), &[0, 1, 0]].concat());
    put(ROOT, 0, &directory);
    disc.extend(contents);
    disc
}

/// A directory record (9.1).
fn record(sector: usize, length: usize, flags: u8, name: &[u8]) -> Vec<u8> {
    const DATE: [u8; 7] = [125, 1, 1, 0, 0, 0, 0];
    let size = (33 + name.len()).next_multiple_of(2);
    let mut record = vec![size as u8, 0];
    record.extend([both(sector), both(length)].concat());
    record.extend(DATE);
    record.extend([flags, 0, 0]);
    record.extend(both16(1));
    record.push(name.len() as u8);
    record.extend(name);
    record.resize(size, 0);
    record
}

/// A number in both byte orders (7.3.3).
fn both(number: usize) -> [u8; 8] {
    let (little, big) = ((number as u32).to_le_bytes(), (number as u32).to_be_bytes());
    std::array::from_fn(|i| if i < 4 { little[i] } else { big[i - 4] })
}

/// The same with 16 bits (7.2.3).
fn both16(number: usize) -> [u8; 4] {
    let ([low, high], [top, bottom]) = ((number as u16).to_le_bytes(), (number as u16).to_be_bytes());
    [low, high, top, bottom]
}

/// Bytes that are the same each time and look like noise (xorshift).
#[must_use]
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
