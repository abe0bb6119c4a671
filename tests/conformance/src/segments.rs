//! The local descriptor table that cases have on both sides: what Linux lets a process put there.

use env86_emu::Segment;

use crate::layout::{CODE, STACK};

/// A descriptor by the fields of modify_ldt(2).
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The first byte's linear address.
    pub base: u32,
    /// The last byte's offset, or page.
    pub limit: u32,
    /// See [`bit`].
    pub flags: u32,
}

/// The bit field of `struct user_desc`.
pub mod bit {
    /// D or B.
    pub const WIDE: u32 = 1 << 0;
    /// Data that expands down, code that conforms.
    pub const DOWN: u32 = 1 << 1;
    /// Code.
    pub const CODE: u32 = 2 << 1;
    /// Data that cannot be written, code that cannot be read.
    pub const LESS: u32 = 1 << 3;
    /// The limit counts pages.
    pub const PAGES: u32 = 1 << 4;
    /// Not present.
    pub const ABSENT: u32 = 1 << 5;
    /// AVL.
    pub const AVAILABLE: u32 = 1 << 6;
}

const fn entry(base: u32, limit: u32, flags: u32) -> Entry {
    Entry { base, limit, flags }
}

/// The table. Bases are zero where that can be, so that flat addresses stay right up to the limits.
pub const LDT: [Entry; 13] = [
    // Ends after the first page of operands.
    entry(0, 0x2_0000, bit::WIDE | bit::PAGES),
    // Ends within what 16-bit addresses reach.
    entry(0, 0x8ffa, bit::WIDE),
    // Begins with the second page of operands.
    entry(0, 0x2_0000, bit::WIDE | bit::DOWN | bit::PAGES),
    entry(0, 0xf_ffff, bit::WIDE | bit::LESS | bit::PAGES | bit::AVAILABLE),
    // Not on a boundary of anything.
    entry(0x13, 0xf_ffff, bit::WIDE | bit::PAGES),
    entry(0, 0xf_ffff, bit::WIDE | bit::ABSENT | bit::PAGES),
    // Stacks: one that ends with its page, 16-bit ones.
    entry(0, 0x3_0000, bit::WIDE | bit::PAGES),
    entry(STACK, 0xfff, 0),
    entry(STACK, 0x5ff, bit::DOWN),
    // Code.
    entry(CODE, 0xfff, bit::CODE),
    entry(CODE, 0xbff, bit::CODE | bit::LESS | bit::WIDE),
    // Linux takes no conforming one that is present.
    entry(0, 0xf_ffff, bit::CODE | bit::DOWN | bit::ABSENT | bit::WIDE | bit::PAGES),
    entry(0, 0xf_ffff, bit::CODE | bit::ABSENT | bit::WIDE | bit::PAGES),
];

/// The selector of an entry.
pub const fn selector(index: usize) -> u16 {
    (index << 3 | 7) as u16
}

/// Segments that ES, DS, FS and GS can hold.
pub const DATA: [u16; 6] = [selector(0), selector(1), selector(2), selector(3), selector(4), selector(9)];
/// Segments that SS can hold.
pub const STACKS: [u16; 4] = [selector(6), selector(7), selector(8), selector(4)];
/// A 16-bit code segment that begins at the page of the instruction.
pub const CODE16: u16 = selector(9);
/// Segments that CS can hold and that begin at the page of the instruction.
pub const CODES: [u16; 2] = [CODE16, selector(10)];

impl Entry {
    /// Access rights, as in byte 5 of a descriptor. The accessed bit is always set.
    fn access(self) -> u8 {
        let kind = u8::from(self.flags & bit::LESS == 0) << 1 | ((self.flags >> 1 & 3) as u8) << 2 | 1;
        let present = if self.flags & bit::ABSENT == 0 { 0x80 } else { 0 };
        0x70 | present | kind
    }

    /// As the table in memory has it.
    pub fn descriptor(self) -> u64 {
        let Self { base, limit, flags } = self;
        let upper = (flags & bit::WIDE) << 22
            | (flags & bit::PAGES) << 19
            | (flags & bit::AVAILABLE) << 14
            | u32::from(self.access()) << 8
            | limit & 0xf_0000
            | base & 0xff00_0000
            | base >> 16 & 0xff;
        u64::from(upper) << 32 | u64::from(base << 16 | limit & 0xffff)
    }

    /// As a segment register holds it.
    pub fn segment(self, selector: u16) -> Segment {
        let pages = self.flags & bit::PAGES != 0;
        Segment {
            selector,
            base: self.base,
            limit: if pages { self.limit << 12 | 0xfff } else { self.limit },
            access: self.access(),
            big: self.flags & bit::WIDE != 0,
            null: false,
        }
    }
}
