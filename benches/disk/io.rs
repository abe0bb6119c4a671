//! Reads and writes a disk as `benches/disk/run` times it: io DISK read|write SIZE COUNT FIRST SPAN [random]
//!
//! COUNT requests of SIZE bytes each, past the guest's cache, from byte FIRST on, in their order or anywhere in
//! SPAN bytes. What is written is flushed at the end. Prints a sum of what was read, which must be the same
//! everywhere. A program of the guest's, compiled for it by the script.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Error};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

const O_DIRECT: i32 = 0o40000;
/// What O_DIRECT wants buffers to be aligned to.
const ALIGNMENT: usize = 4096;

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [disk, kind, numbers @ ..] = &words[..] else { return Err(Error::other("io DISK read|write ...")) };
    let random = numbers.get(4).is_some();
    let numbers: Vec<u64> = numbers.iter().take(4).filter_map(|number| number.parse().ok()).collect();
    let &[size, count, first, span] = &numbers[..] else { return Err(Error::other("SIZE COUNT FIRST SPAN")) };
    let write = kind == "write";

    let disk = OpenOptions::new().read(true).write(write).custom_flags(O_DIRECT).open(disk)?;
    let mut bytes = vec![0x5a; size as usize + ALIGNMENT];
    let start = bytes.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut bytes[start..start + size as usize];
    let (mut sum, mut chance) = (0u32, 1u64);
    for number in 0..count {
        // Knuth's linear congruential generator (MMIX).
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = if random { (chance >> 32) % (span / size) } else { number % (span / size) };
        let at = first + place * size;
        if write {
            buffer[..4].copy_from_slice(&(number as u32).to_le_bytes());
            disk.write_all_at(buffer, at)?;
        } else {
            disk.read_exact_at(buffer, at)?;
            let word = buffer.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
            sum = sum.rotate_left(1) ^ word;
        }
    }
    if write {
        disk.sync_all()?;
    }
    println!("{sum:08x}");
    Ok(())
}
