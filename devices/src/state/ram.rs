//! Memory in a state: the pages that are not all zero, one after the other, and a bit for each page.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::container::Buffers;
use super::top;
use super::value::{Kind, Value};
use crate::board::BoardConfig;
use crate::pc::Pc;
use env86_emu::Memory;
use env86_emu::memory::{GRANULARITY, MAX_SIZE, MIN_SIZE, PAGE_SIZE, VGA_WINDOW};
use std::borrow::Cow;
use std::ops::Range;

const PAGE: usize = PAGE_SIZE as usize;
/// Zero pages that are stored where they part two others, because fewer, longer runs are mapped
/// faster than many short ones.
const MAX_GAP: usize = 8;

/// Pages that follow each other in the file as they do in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Physical address of the first byte.
    pub address: usize,
    /// Where that is in the file.
    pub offset: usize,
    /// Bytes: a multiple of the page size.
    pub len: usize,
}

/// The memory of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Bytes of RAM.
    pub size: u32,
    /// What of it is not zero, by address.
    pub runs: Vec<Run>,
}

pub(super) type Saved = Pages;

const SIZE: &str = "memory_size";
const PACKED: &str = "packed_memory";
const BITMAP: &str = "memory_bitmap";

impl Chip for Pages {
    /// Reads the bitmap and checks it against the pages.
    fn read(state: &State) -> Result<Self, StateError> {
        let top = &state.top;
        let size = top.u32(SIZE)?;
        if !size.is_multiple_of(GRANULARITY) || !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(StateError::Unsupported(format!(
                "{} says that the machine has {size} bytes of memory, and 1 MiB to 2047 MiB can be had",
                top::path(SIZE)
            )));
        }
        let pages = size as usize / PAGE;
        let bitmap = top.bytes(BITMAP, pages.div_ceil(8))?;
        let Range { start, end } = top.range(PACKED)?;
        let window = VGA_WINDOW.start as usize / PAGE..VGA_WINDOW.end as usize / PAGE;
        let mut runs: Vec<Run> = Vec::new();
        let mut offset = start;
        for page in (0..pages).filter(|page| bitmap[page / 8] >> (page % 8) & 1 != 0) {
            let (address, at) = (page * PAGE, offset);
            offset += PAGE;
            if offset > end {
                break;
            }
            if window.contains(&page) {
                continue; // never RAM
            }
            match runs.last_mut().filter(|run| run.address + run.len == address && run.offset + run.len == at)
            {
                Some(run) => run.len += PAGE,
                None => runs.push(Run { address, offset: at, len: PAGE }),
            }
        }
        if offset != end {
            let compared = if offset > end { "fewer" } else { "more" };
            let problem = format!("has {compared} pages than the bitmap of {}", top::path(BITMAP));
            return Err(top.wrong(PACKED, problem));
        }
        Ok(Self { size, runs })
    }

    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { memory_size: self.size, ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        same("memory", machine.cpu.mem().size().into(), self.size.into())
    }

    /// The machine was built with its memory.
    fn apply(self, _: &mut Pc, _: &Moment) {}

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        let memory = machine.cpu.mem();
        let (pages, bitmap) = write(memory, writer.touched, &mut writer.buffers);
        writer.set(SIZE, memory.size());
        writer.set(PACKED, pages);
        writer.set(BITMAP, bitmap);
        Ok(())
    }
}

impl Pages {
    /// Memory with this content, copied out of the file.
    pub fn copy(&self, file: &[u8]) -> Result<Box<Memory>, env86_emu::memory::MemoryError> {
        let mut memory = Memory::new(self.size.into())?;
        for run in &self.runs {
            if let Some(bytes) = file.get(run.offset..run.offset + run.len) {
                memory.load(run.address as u32, bytes);
            }
        }
        Ok(memory)
    }
}

/// Adds memory to a state; gives the values of the packed pages and of the bitmap.
fn write<'m>(
    memory: &'m Memory,
    touched: &dyn Fn(usize) -> bool,
    buffers: &mut Buffers<'m>,
) -> (Value, Value) {
    let bytes = memory.contents();
    let mut bitmap = vec![0; (bytes.len() / PAGE).div_ceil(8)];
    let mut parts: Vec<Cow<'m, [u8]>> = Vec::new();
    for run in runs(bytes, touched) {
        for page in run.clone() {
            bitmap[page / 8] |= 1 << (page % 8);
        }
        parts.push(bytes[run.start * PAGE..run.end * PAGE].into());
    }
    (buffers.add_parts(Kind::U8, parts), buffers.add(Kind::U8, bitmap))
}

/// The runs of pages, by number, that are to be stored.
fn runs(bytes: &[u8], touched: &dyn Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let window = VGA_WINDOW.start as usize / PAGE..VGA_WINDOW.end as usize / PAGE;
    for (page, content) in bytes.chunks_exact(PAGE).enumerate() {
        if window.contains(&page) || !touched(page) || is_zero(content) {
            continue;
        }
        let bridges = |run: &&mut Range<usize>| {
            let gap = run.end..page;
            gap.len() <= MAX_GAP && (gap.is_empty() || gap.end <= window.start || gap.start >= window.end)
        };
        match runs.last_mut().filter(bridges) {
            Some(run) => run.end = page + 1,
            None => runs.push(page..page + 1),
        }
    }
    runs
}

/// Whether a page is all zero: most that are not show it in their first bytes.
fn is_zero(page: &[u8]) -> bool {
    page.chunks_exact(64).all(|line| {
        let line: &[u8; 64] = line.try_into().unwrap_or(&[0; 64]);
        line.iter().fold(0, |all, byte| all | byte) == 0
    })
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            vec![Field {
                name: "bytes",
                get: |m| xxhash_rust::xxh3::xxh3_64(m.cpu.mem().contents()).to_string(),
                change: |m, random| {
                    let address = any::<u32>(random) % 0x9_0000;
                    m.cpu.mem_mut().write_u32(address, any(random));
                },
            }]
        }

        fn show(m: &mut Pc) -> String {
            m.cpu.mem().size().to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_gaps_are_stored() {
        let mut bytes = vec![0; 0x40 * PAGE];
        for page in [1, 2, 5, 15] {
            bytes[page * PAGE + 4095] = 1;
        }
        assert_eq!(runs(&bytes, &|_| true), [1..6, 15..16]);
    }

    #[test]
    fn the_window_is_never_stored() {
        let mut bytes = vec![0; 0x100 * PAGE];
        bytes[0x9f * PAGE..0xc1 * PAGE].fill(1);
        assert_eq!(runs(&bytes, &|_| true), [0x9f..0xa0, 0xc0..0xc1]);
    }
}
