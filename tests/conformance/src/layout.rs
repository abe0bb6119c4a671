//! Where a case's memory is: the same linear addresses natively and in the guest.

/// Bytes in a page.
pub const PAGE: u32 = 0x1000;

/// Some pages. The pages around a region are not mapped unless another region says so.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// Linear address.
    pub linear: u32,
    /// Length in pages.
    pub pages: u32,
    /// User code may write.
    pub writable: bool,
}

const fn region(linear: u32, pages: u32, writable: bool) -> Region {
    Region { linear, pages, writable }
}

/// Two pages that 16-bit addresses reach.
pub const LOW: u32 = 0x8000;
/// The last page that 16-bit addresses reach.
pub const TOP: u32 = 0xf000;
/// The page of the instruction.
pub const CODE: u32 = 0x1000_0000;
/// Two pages of operands.
pub const DATA: u32 = 0x2000_0000;
/// A page of operands with [`READ_ONLY`] behind it.
pub const EDGE: u32 = 0x2001_0000;
/// A page that cannot be written.
pub const READ_ONLY: u32 = 0x2001_1000;
/// The page of the stack.
pub const STACK: u32 = 0x3000_0000;

/// All of a case's memory.
pub const REGIONS: [Region; 7] = [
    region(LOW, 2, true),
    region(TOP, 1, true),
    region(CODE, 1, true),
    region(DATA, 2, true),
    region(EDGE, 1, true),
    region(READ_ONLY, 1, false),
    region(STACK, 1, true),
];

/// Bytes in all regions together.
pub const BYTES: usize = {
    let mut pages = 0;
    let mut i = 0;
    while i < REGIONS.len() {
        pages += REGIONS[i].pages;
        i += 1;
    }
    (pages * PAGE) as usize
};

/// The contents of all regions, one after the other.
pub type Image = [u8; BYTES];

/// Where a linear address is in an [`Image`].
pub fn offset(linear: u32) -> Option<usize> {
    let mut start = 0;
    for r in REGIONS {
        let within = linear.wrapping_sub(r.linear);
        if within < r.pages * PAGE {
            return Some((start + within) as usize);
        }
        start += r.pages * PAGE;
    }
    None
}

/// The linear address of a place in an [`Image`].
pub fn linear(offset: usize) -> u32 {
    let mut rest = offset as u32;
    for r in REGIONS {
        if rest < r.pages * PAGE {
            return r.linear + rest;
        }
        rest -= r.pages * PAGE;
    }
    0
}

/// Writes what is mapped of some bytes.
pub fn patch(image: &mut Image, at: u32, bytes: &[u8]) {
    for (i, &b) in bytes.iter().enumerate() {
        if let Some(o) = offset(at.wrapping_add(i as u32)) {
            image[o] = b;
        }
    }
}
