//! The unit's state in memory: FNSTENV/FLDENV, FNSAVE/FRSTOR (SDM volume 1, 8.1.10 and 8.1.11) and
//! the x87 part of FXSAVE/FXRSTOR (SDM volume 1, 10.5.1).

use super::f80::{Class, F80};
use super::round::{BUSY, ES, EXCEPTIONS};
use super::{Fpu, Insn, TOP_SHIFT};

/// Bytes of the environment with 16-bit operand size.
pub const ENVIRONMENT_16: usize = 14;
/// Bytes of the environment with 32-bit operand size.
pub const ENVIRONMENT_32: usize = 28;
/// Bytes of the register stack behind the environment.
const STACK: usize = 80;
/// Bytes of FNSAVE's image with 16-bit operand size.
pub const SAVE_16: usize = ENVIRONMENT_16 + STACK;
/// Bytes of FNSAVE's image with 32-bit operand size.
pub const SAVE_32: usize = ENVIRONMENT_32 + STACK;
/// Bytes of FXSAVE's image up to the XMM registers.
pub const FXSAVE: usize = 160;

const TAG_VALID: u16 = 0;
const TAG_ZERO: u16 = 1;
const TAG_SPECIAL: u16 = 2;
const TAG_EMPTY: u16 = 3;

/// Reserved upper halves are stored as ones.
const RESERVED: u32 = 0xffff_0000;

/// Bytes of an image, which is never shorter than what is asked of it.
fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |field| u16::from_le_bytes([field[0], field[1]]))
}

fn dword(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) | u32::from(word(bytes, at + 2)) << 16
}

/// The linear address that the real-mode layouts hold.
const fn linear(selector: u16, offset: u32) -> u32 {
    ((selector as u32) << 4).wrapping_add(offset)
}

impl Fpu {
    /// The status word with TOP in its place.
    #[inline]
    pub fn status_word(&self) -> u16 {
        self.status | u16::from(self.top) << TOP_SHIFT
    }

    pub(super) fn set_status_word(&mut self, value: u16) {
        self.top = (value >> TOP_SHIFT & 7) as u8;
        self.status = value & !(7 << TOP_SHIFT);
        self.update_summary();
    }

    /// The control word.
    pub fn control_word(&self) -> u16 {
        self.control
    }

    /// FLDCW: reserved bits keep their fixed values; unmasking a raised exception makes it pending.
    pub(super) fn set_control_word(&mut self, value: u16) {
        const WRITABLE: u16 = 0x1f3f;
        const ALWAYS_ONE: u16 = 0x40;
        self.control = value & WRITABLE | ALWAYS_ONE;
        self.update_summary();
    }

    /// ES and the busy bit follow from exceptions and masks.
    #[inline]
    pub(super) fn update_summary(&mut self) {
        if self.status & !self.control & EXCEPTIONS != 0 {
            self.status |= ES | BUSY;
        } else {
            self.status &= !(ES | BUSY);
        }
    }

    /// The tag word, two bits per physical register, computed from what the registers hold.
    pub fn tag_word(&self) -> u16 {
        (0..8).fold(0, |word, i| {
            let tag = match self.register(i).class() {
                _ if self.empty >> i & 1 != 0 => TAG_EMPTY,
                Class::Normal => TAG_VALID,
                Class::Zero => TAG_ZERO,
                _ => TAG_SPECIAL,
            };
            word | tag << (2 * i)
        })
    }

    /// Takes what a tag word says of emptiness; the rest of it follows from the registers.
    fn set_tag_word(&mut self, word: u16) {
        self.empty = (0..8).fold(0, |empty, i| empty | u8::from(word >> (2 * i) & 3 == TAG_EMPTY) << i);
    }

    /// FNSTENV's image with 16-bit operand size.
    pub(super) fn environment16(&self, insn: &Insn) -> [u8; ENVIRONMENT_16] {
        let (ip, dp) = (linear(self.cs, self.ip), linear(self.ds, self.dp));
        let pointers = if insn.protected {
            [self.ip as u16, self.cs, self.dp as u16, self.ds]
        } else {
            [ip as u16, (ip >> 16 << 12) as u16 | self.opcode, dp as u16, (dp >> 16 << 12) as u16]
        };
        let [a, b, c, d] = pointers;
        let mut image = [0; ENVIRONMENT_16];
        let words = [self.control, self.status_word(), self.tag_word(), a, b, c, d];
        for (field, value) in image.chunks_exact_mut(2).zip(words) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        image
    }

    /// FNSTENV's image with 32-bit operand size.
    pub(super) fn environment32(&self, insn: &Insn) -> [u8; ENVIRONMENT_32] {
        let (ip, dp) = (linear(self.cs, self.ip), linear(self.ds, self.dp));
        let opcode = u32::from(self.opcode);
        let pointers = if insn.protected {
            [self.ip, u32::from(self.cs) | opcode << 16, self.dp, u32::from(self.ds) | RESERVED]
        } else {
            [ip & 0xffff | RESERVED, ip >> 16 << 12 | opcode, dp & 0xffff | RESERVED, dp >> 16 << 12]
        };
        let [a, b, c, d] = pointers;
        let [control, status, tags] =
            [self.control, self.status_word(), self.tag_word()].map(|value| u32::from(value) | RESERVED);
        let mut image = [0; ENVIRONMENT_32];
        for (field, value) in image.chunks_exact_mut(4).zip([control, status, tags, a, b, c, d]) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        image
    }

    /// FLDENV with 16-bit operand size, from the start of an image.
    pub(super) fn load_environment16(&mut self, insn: &Insn, image: &[u8]) {
        let [ip, selector, dp, data_selector] = [6, 8, 10, 12].map(|at| word(image, at));
        (self.ip, self.dp) = (u32::from(ip), u32::from(dp));
        if insn.protected {
            (self.cs, self.ds, self.opcode) = (selector, data_selector, 0);
        } else {
            self.ip |= u32::from(selector >> 12) << 16;
            self.dp |= u32::from(data_selector >> 12) << 16;
            (self.cs, self.ds, self.opcode) = (0, 0, selector & 0x7ff);
        }
        self.load_words([0, 2, 4].map(|at| word(image, at)));
    }

    /// FLDENV with 32-bit operand size, from the start of an image.
    pub(super) fn load_environment32(&mut self, insn: &Insn, image: &[u8]) {
        let [ip, selector, dp, data_selector] = [12, 16, 20, 24].map(|at| dword(image, at));
        if insn.protected {
            (self.ip, self.dp) = (ip, dp);
            (self.cs, self.ds) = (selector as u16, data_selector as u16);
            self.opcode = (selector >> 16 & 0x7ff) as u16;
        } else {
            self.ip = ip & 0xffff | selector >> 12 << 16;
            self.dp = dp & 0xffff | data_selector >> 12 << 16;
            (self.cs, self.ds, self.opcode) = (0, 0, (selector & 0x7ff) as u16);
        }
        self.load_words([0, 4, 8].map(|at| word(image, at)));
    }

    fn load_words(&mut self, [control, status, tags]: [u16; 3]) {
        self.set_control_word(control);
        self.set_status_word(status);
        self.set_tag_word(tags);
    }

    /// The registers in stack order, as they follow the environment in FNSAVE's image.
    pub(super) fn stack_image(&self, image: &mut [u8]) {
        for (i, field) in image.chunks_exact_mut(10).enumerate() {
            field.copy_from_slice(&self.st(i as u8).to_bytes());
        }
    }

    /// Loads the registers from the part of FRSTOR's image behind the environment.
    pub(super) fn load_stack(&mut self, image: &[u8]) {
        for (i, field) in image.chunks_exact(10).take(8).enumerate() {
            let physical = self.physical(i as u8);
            self.set_register(physical, F80::from_bytes(core::array::from_fn(|at| field[at])));
        }
    }

    /// The first 160 bytes of FXSAVE's image. MXCSR and its mask (bytes 24 to 31) are left zero.
    pub fn fxsave_image(&self) -> [u8; FXSAVE] {
        let mut image = [0; FXSAVE];
        image[0..2].copy_from_slice(&self.control.to_le_bytes());
        image[2..4].copy_from_slice(&self.status_word().to_le_bytes());
        image[4] = !self.empty;
        image[6..8].copy_from_slice(&self.opcode.to_le_bytes());
        image[8..12].copy_from_slice(&self.ip.to_le_bytes());
        image[12..14].copy_from_slice(&self.cs.to_le_bytes());
        image[16..20].copy_from_slice(&self.dp.to_le_bytes());
        image[20..22].copy_from_slice(&self.ds.to_le_bytes());
        for (i, field) in image[32..].chunks_exact_mut(16).enumerate() {
            field[..10].copy_from_slice(&self.st(i as u8).to_bytes());
        }
        image
    }

    /// Loads the x87 part of an FXRSTOR image.
    pub fn fxrstor_image(&mut self, image: &[u8; FXSAVE]) {
        self.set_control_word(word(image, 0));
        self.set_status_word(word(image, 2));
        self.empty = !image[4];
        self.opcode = word(image, 6) & 0x7ff;
        (self.ip, self.cs) = (dword(image, 8), word(image, 12));
        (self.dp, self.ds) = (dword(image, 16), word(image, 20));
        for (i, field) in image[32..].chunks_exact(16).enumerate() {
            let physical = self.physical(i as u8);
            self.set_register(physical, F80::from_bytes(core::array::from_fn(|at| field[at])));
        }
    }
}
