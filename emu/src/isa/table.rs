//! The instruction table: every integer and system instruction, one row each, and one row for all of
//! the x87.
//!
//! MMX and SSE have a table of their own in [`crate::simd`], which is looked up first.

use super::decode::{Insn, Rep, What};
use super::lower::{Builder, Place};
use super::{alu, bits, branch, decimal, flag, float, mov, muldiv, port, shift, stack, string, system};
use crate::cpu::regs::gpr;
use crate::simd;

/// Operands in the notation of the SDM's opcode maps (volume 2, appendix A.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Spec {
    /// r/m: byte, word, operand size, 32 bits.
    Eb,
    Ew,
    Ev,
    Ed,
    /// ModR/M reg: byte, word, operand size, 32 bits.
    Gb,
    Gw,
    Gv,
    Gd,
    /// Register in the opcode's low three bits.
    Zb,
    Zv,
    /// The accumulator.
    Al,
    Ax,
    /// CL, DX, the constant 1.
    Cl,
    Dx,
    One,
    /// Immediates: byte zero-extended, byte sign-extended, a second byte, word, operand size (at
    /// most 32 bits).
    Ib,
    Ibs,
    Ib2,
    Iw,
    Iz,
    /// Branch distances.
    Jb,
    Jz,
    /// A far pointer in the instruction.
    Ap,
    /// Memory only: some number of bytes, a far pointer.
    M,
    Mp,
    /// Memory at an offset in the instruction.
    Ob,
    Ov,
    /// Segment register in ModR/M reg.
    Sw,
    /// Control and debug registers in ModR/M reg, general register in r/m.
    Cd,
    Dd,
    Rd,
}

/// An opcode map (SDM volume 2, appendix A.3): what comes before the opcode byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Nothing: one-byte opcodes.
    Base,
    /// 0F.
    Of0F,
    /// 0F 38.
    Of0F38,
    /// 0F 3A.
    Of0F3A,
}

impl Map {
    /// How many there are.
    const COUNT: usize = 4;

    /// The bytes before the opcode.
    pub const fn escape(self) -> &'static [u8] {
        match self {
            Self::Base => &[],
            Self::Of0F => &[0x0f],
            Self::Of0F38 => &[0x0f, 0x38],
            Self::Of0F3A => &[0x0f, 0x3a],
        }
    }

    /// The place of an opcode among those of all maps.
    const fn place(self, opcode: u8) -> usize {
        self as usize * 256 + opcode as usize
    }
}

/// Attributes of a row.
pub struct Attr;

impl Attr {
    /// LOCK is allowed if the destination is in memory.
    pub const LOCK: u16 = 1 << 0;
    /// r/m must be a register.
    pub const REG: u16 = 1 << 1;
    /// r/m must be memory.
    pub const MEM: u16 = 1 << 2;
    /// Eight opcodes, the register in the low three bits.
    pub const EIGHT: u16 = 1 << 3;
    /// Only with F3.
    pub const F3: u16 = 1 << 4;
    /// Needs CPL 0, or IOPL: not for user-mode tests.
    pub const SYSTEM: u16 = 1 << 5;
    /// Sixteen opcodes, a condition in the low four bits.
    pub const CONDITION: u16 = 1 << 6;
    /// Not with 66, which makes it another instruction.
    pub const NO_66: u16 = 1 << 7;
    /// Not with F2 or F3, which make it another instruction.
    pub const NO_REP: u16 = 1 << 8;
    /// Without prefixes that select instructions.
    pub const PLAIN: u16 = Self::NO_66 | Self::NO_REP;
}

pub(crate) type Lower = fn(&mut Builder, &Insn);

/// One instruction form.
pub struct Row {
    /// The opcode's map.
    pub map: Map,
    /// The (first) opcode byte, in its map.
    pub opcode: u8,
    /// The value that ModR/M's reg field must have.
    pub ext: Option<u8>,
    /// Mnemonic, lower case.
    pub name: &'static str,
    /// Explicit operands, destination first.
    pub operands: &'static [Spec],
    /// See [`Attr`].
    pub attr: u16,
    pub(crate) lower: Lower,
    /// Where the first two operands are found, and their sizes: what decoding would else ask of `operands` each time.
    holders: [Holder; 2],
    sizes: [Size; 2],
    /// Something of the operands is behind ModR/M, or they are not possible with each reg field.
    pub(crate) reads_on: bool,
}

/// What an operand is found by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// ModR/M's r/m field, if there is no memory operand.
    Rm,
    /// ModR/M's reg field.
    Reg,
    /// The opcode's low bits.
    Opcode,
    Accumulator,
    Count,
    Data,
    Memory,
    /// Anything else.
    Immediate,
}

/// Bytes of an operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Byte,
    Word,
    Dword,
    /// The operand size.
    Operand,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name)?;
        for byte in self.map.escape() {
            write!(f, " {byte:02x}")?;
        }
        write!(f, " {:02x}", self.opcode)?;
        self.ext.map_or(Ok(()), |e| write!(f, " /{e}"))
    }
}

const fn row(
    map: Map,
    opcode: u8,
    name: &'static str,
    operands: &'static [Spec],
    attr: u16,
    lower: Lower,
) -> Row {
    let (mut holders, mut sizes) = ([Holder::Immediate; 2], [Size::Operand; 2]);
    let mut reads_on = false;
    let mut i = 0;
    while i < operands.len() {
        if i < 2 {
            (holders[i], sizes[i]) = (operands[i].holder(), operands[i].size());
        }
        reads_on |= operands[i].reads_on();
        i += 1;
    }
    Row { map, opcode, ext: None, name, operands, attr, lower, holders, sizes, reads_on }
}

const fn base(opcode: u8, name: &'static str, operands: &'static [Spec], attr: u16, lower: Lower) -> Row {
    row(Map::Base, opcode, name, operands, attr, lower)
}

const fn of_0f(opcode: u8, name: &'static str, operands: &'static [Spec], attr: u16, lower: Lower) -> Row {
    row(Map::Of0F, opcode, name, operands, attr, lower)
}

impl Insn {
    /// Emits the uops of this instruction.
    pub(super) fn lower(&self, b: &mut Builder) {
        match self.what {
            What::Row(row) => (row.lower)(b, self),
            What::Simd(row) => super::simd::simd(b, self, row),
        }
    }
}

impl Row {
    const fn reg(mut self, ext: u8) -> Self {
        self.ext = Some(ext);
        self
    }
}

use Attr as A;
use Spec::*;

const L: u16 = A::LOCK;
const E: u16 = A::EIGHT;
const C: u16 = A::CONDITION;
const SYS: u16 = A::SYSTEM;

/// All rows. The order does not matter; no two rows may claim the same encoding.
#[rustfmt::skip]
pub static TABLE: &[Row] = &[
    // Arithmetic and logic, two operands.
    base(0x00, "add", &[Eb, Gb], L, alu::add), base(0x01, "add", &[Ev, Gv], L, alu::add),
    base(0x02, "add", &[Gb, Eb], 0, alu::add), base(0x03, "add", &[Gv, Ev], 0, alu::add),
    base(0x04, "add", &[Al, Ib], 0, alu::add), base(0x05, "add", &[Ax, Iz], 0, alu::add),
    base(0x08, "or",  &[Eb, Gb], L, alu::or),  base(0x09, "or",  &[Ev, Gv], L, alu::or),
    base(0x0a, "or",  &[Gb, Eb], 0, alu::or),  base(0x0b, "or",  &[Gv, Ev], 0, alu::or),
    base(0x0c, "or",  &[Al, Ib], 0, alu::or),  base(0x0d, "or",  &[Ax, Iz], 0, alu::or),
    base(0x10, "adc", &[Eb, Gb], L, alu::adc), base(0x11, "adc", &[Ev, Gv], L, alu::adc),
    base(0x12, "adc", &[Gb, Eb], 0, alu::adc), base(0x13, "adc", &[Gv, Ev], 0, alu::adc),
    base(0x14, "adc", &[Al, Ib], 0, alu::adc), base(0x15, "adc", &[Ax, Iz], 0, alu::adc),
    base(0x18, "sbb", &[Eb, Gb], L, alu::sbb), base(0x19, "sbb", &[Ev, Gv], L, alu::sbb),
    base(0x1a, "sbb", &[Gb, Eb], 0, alu::sbb), base(0x1b, "sbb", &[Gv, Ev], 0, alu::sbb),
    base(0x1c, "sbb", &[Al, Ib], 0, alu::sbb), base(0x1d, "sbb", &[Ax, Iz], 0, alu::sbb),
    base(0x20, "and", &[Eb, Gb], L, alu::and), base(0x21, "and", &[Ev, Gv], L, alu::and),
    base(0x22, "and", &[Gb, Eb], 0, alu::and), base(0x23, "and", &[Gv, Ev], 0, alu::and),
    base(0x24, "and", &[Al, Ib], 0, alu::and), base(0x25, "and", &[Ax, Iz], 0, alu::and),
    base(0x28, "sub", &[Eb, Gb], L, alu::sub), base(0x29, "sub", &[Ev, Gv], L, alu::sub),
    base(0x2a, "sub", &[Gb, Eb], 0, alu::sub), base(0x2b, "sub", &[Gv, Ev], 0, alu::sub),
    base(0x2c, "sub", &[Al, Ib], 0, alu::sub), base(0x2d, "sub", &[Ax, Iz], 0, alu::sub),
    base(0x30, "xor", &[Eb, Gb], L, alu::xor), base(0x31, "xor", &[Ev, Gv], L, alu::xor),
    base(0x32, "xor", &[Gb, Eb], 0, alu::xor), base(0x33, "xor", &[Gv, Ev], 0, alu::xor),
    base(0x34, "xor", &[Al, Ib], 0, alu::xor), base(0x35, "xor", &[Ax, Iz], 0, alu::xor),
    base(0x38, "cmp", &[Eb, Gb], 0, alu::cmp), base(0x39, "cmp", &[Ev, Gv], 0, alu::cmp),
    base(0x3a, "cmp", &[Gb, Eb], 0, alu::cmp), base(0x3b, "cmp", &[Gv, Ev], 0, alu::cmp),
    base(0x3c, "cmp", &[Al, Ib], 0, alu::cmp), base(0x3d, "cmp", &[Ax, Iz], 0, alu::cmp),
    base(0x80, "add", &[Eb, Ib], L, alu::add).reg(0), base(0x81, "add", &[Ev, Iz], L, alu::add).reg(0),
    base(0x80, "or",  &[Eb, Ib], L, alu::or ).reg(1), base(0x81, "or",  &[Ev, Iz], L, alu::or ).reg(1),
    base(0x80, "adc", &[Eb, Ib], L, alu::adc).reg(2), base(0x81, "adc", &[Ev, Iz], L, alu::adc).reg(2),
    base(0x80, "sbb", &[Eb, Ib], L, alu::sbb).reg(3), base(0x81, "sbb", &[Ev, Iz], L, alu::sbb).reg(3),
    base(0x80, "and", &[Eb, Ib], L, alu::and).reg(4), base(0x81, "and", &[Ev, Iz], L, alu::and).reg(4),
    base(0x80, "sub", &[Eb, Ib], L, alu::sub).reg(5), base(0x81, "sub", &[Ev, Iz], L, alu::sub).reg(5),
    base(0x80, "xor", &[Eb, Ib], L, alu::xor).reg(6), base(0x81, "xor", &[Ev, Iz], L, alu::xor).reg(6),
    base(0x80, "cmp", &[Eb, Ib], 0, alu::cmp).reg(7), base(0x81, "cmp", &[Ev, Iz], 0, alu::cmp).reg(7),
    base(0x82, "add", &[Eb, Ib], L, alu::add).reg(0), base(0x83, "add", &[Ev, Ibs], L, alu::add).reg(0),
    base(0x82, "or",  &[Eb, Ib], L, alu::or ).reg(1), base(0x83, "or",  &[Ev, Ibs], L, alu::or ).reg(1),
    base(0x82, "adc", &[Eb, Ib], L, alu::adc).reg(2), base(0x83, "adc", &[Ev, Ibs], L, alu::adc).reg(2),
    base(0x82, "sbb", &[Eb, Ib], L, alu::sbb).reg(3), base(0x83, "sbb", &[Ev, Ibs], L, alu::sbb).reg(3),
    base(0x82, "and", &[Eb, Ib], L, alu::and).reg(4), base(0x83, "and", &[Ev, Ibs], L, alu::and).reg(4),
    base(0x82, "sub", &[Eb, Ib], L, alu::sub).reg(5), base(0x83, "sub", &[Ev, Ibs], L, alu::sub).reg(5),
    base(0x82, "xor", &[Eb, Ib], L, alu::xor).reg(6), base(0x83, "xor", &[Ev, Ibs], L, alu::xor).reg(6),
    base(0x82, "cmp", &[Eb, Ib], 0, alu::cmp).reg(7), base(0x83, "cmp", &[Ev, Ibs], 0, alu::cmp).reg(7),
    base(0x84, "test", &[Eb, Gb], 0, alu::test), base(0x85, "test", &[Ev, Gv], 0, alu::test),
    base(0xa8, "test", &[Al, Ib], 0, alu::test), base(0xa9, "test", &[Ax, Iz], 0, alu::test),
    base(0xf6, "test", &[Eb, Ib], 0, alu::test).reg(0), base(0xf7, "test", &[Ev, Iz], 0, alu::test).reg(0),
    base(0xf6, "test", &[Eb, Ib], 0, alu::test).reg(1), base(0xf7, "test", &[Ev, Iz], 0, alu::test).reg(1),
    // Arithmetic and logic, one operand.
    base(0x40, "inc", &[Zv], E, alu::inc), base(0x48, "dec", &[Zv], E, alu::dec),
    base(0xfe, "inc", &[Eb], L, alu::inc).reg(0), base(0xff, "inc", &[Ev], L, alu::inc).reg(0),
    base(0xfe, "dec", &[Eb], L, alu::dec).reg(1), base(0xff, "dec", &[Ev], L, alu::dec).reg(1),
    base(0xf6, "not", &[Eb], L, alu::not).reg(2), base(0xf7, "not", &[Ev], L, alu::not).reg(2),
    base(0xf6, "neg", &[Eb], L, alu::neg).reg(3), base(0xf7, "neg", &[Ev], L, alu::neg).reg(3),
    // Multiplication and division.
    base(0xf6, "mul",  &[Eb], 0, muldiv::mul).reg(4),  base(0xf7, "mul",  &[Ev], 0, muldiv::mul).reg(4),
    base(0xf6, "imul", &[Eb], 0, muldiv::imul).reg(5), base(0xf7, "imul", &[Ev], 0, muldiv::imul).reg(5),
    base(0xf6, "div",  &[Eb], 0, muldiv::div).reg(6),  base(0xf7, "div",  &[Ev], 0, muldiv::div).reg(6),
    base(0xf6, "idiv", &[Eb], 0, muldiv::idiv).reg(7), base(0xf7, "idiv", &[Ev], 0, muldiv::idiv).reg(7),
    base(0x69, "imul", &[Gv, Ev, Iz], 0, muldiv::imul3), base(0x6b, "imul", &[Gv, Ev, Ibs], 0, muldiv::imul3),
    of_0f(0xaf, "imul", &[Gv, Ev], 0, muldiv::imul2),
    // Decimal adjustment.
    base(0x27, "daa", &[], 0, decimal::daa), base(0x2f, "das", &[], 0, decimal::das),
    base(0x37, "aaa", &[], 0, decimal::aaa), base(0x3f, "aas", &[], 0, decimal::aas),
    base(0xd4, "aam", &[Ib], 0, decimal::aam), base(0xd5, "aad", &[Ib], 0, decimal::aad),
    // Shifts and rotates.
    base(0xc0, "rol", &[Eb, Ib], 0, shift::rol).reg(0), base(0xc1, "rol", &[Ev, Ib], 0, shift::rol).reg(0),
    base(0xc0, "ror", &[Eb, Ib], 0, shift::ror).reg(1), base(0xc1, "ror", &[Ev, Ib], 0, shift::ror).reg(1),
    base(0xc0, "rcl", &[Eb, Ib], 0, shift::rcl).reg(2), base(0xc1, "rcl", &[Ev, Ib], 0, shift::rcl).reg(2),
    base(0xc0, "rcr", &[Eb, Ib], 0, shift::rcr).reg(3), base(0xc1, "rcr", &[Ev, Ib], 0, shift::rcr).reg(3),
    base(0xc0, "shl", &[Eb, Ib], 0, shift::shl).reg(4), base(0xc1, "shl", &[Ev, Ib], 0, shift::shl).reg(4),
    base(0xc0, "shr", &[Eb, Ib], 0, shift::shr).reg(5), base(0xc1, "shr", &[Ev, Ib], 0, shift::shr).reg(5),
    base(0xc0, "shl", &[Eb, Ib], 0, shift::shl).reg(6), base(0xc1, "shl", &[Ev, Ib], 0, shift::shl).reg(6),
    base(0xc0, "sar", &[Eb, Ib], 0, shift::sar).reg(7), base(0xc1, "sar", &[Ev, Ib], 0, shift::sar).reg(7),
    base(0xd0, "rol", &[Eb, One], 0, shift::rol).reg(0), base(0xd1, "rol", &[Ev, One], 0, shift::rol).reg(0),
    base(0xd0, "ror", &[Eb, One], 0, shift::ror).reg(1), base(0xd1, "ror", &[Ev, One], 0, shift::ror).reg(1),
    base(0xd0, "rcl", &[Eb, One], 0, shift::rcl).reg(2), base(0xd1, "rcl", &[Ev, One], 0, shift::rcl).reg(2),
    base(0xd0, "rcr", &[Eb, One], 0, shift::rcr).reg(3), base(0xd1, "rcr", &[Ev, One], 0, shift::rcr).reg(3),
    base(0xd0, "shl", &[Eb, One], 0, shift::shl).reg(4), base(0xd1, "shl", &[Ev, One], 0, shift::shl).reg(4),
    base(0xd0, "shr", &[Eb, One], 0, shift::shr).reg(5), base(0xd1, "shr", &[Ev, One], 0, shift::shr).reg(5),
    base(0xd0, "shl", &[Eb, One], 0, shift::shl).reg(6), base(0xd1, "shl", &[Ev, One], 0, shift::shl).reg(6),
    base(0xd0, "sar", &[Eb, One], 0, shift::sar).reg(7), base(0xd1, "sar", &[Ev, One], 0, shift::sar).reg(7),
    base(0xd2, "rol", &[Eb, Cl], 0, shift::rol).reg(0), base(0xd3, "rol", &[Ev, Cl], 0, shift::rol).reg(0),
    base(0xd2, "ror", &[Eb, Cl], 0, shift::ror).reg(1), base(0xd3, "ror", &[Ev, Cl], 0, shift::ror).reg(1),
    base(0xd2, "rcl", &[Eb, Cl], 0, shift::rcl).reg(2), base(0xd3, "rcl", &[Ev, Cl], 0, shift::rcl).reg(2),
    base(0xd2, "rcr", &[Eb, Cl], 0, shift::rcr).reg(3), base(0xd3, "rcr", &[Ev, Cl], 0, shift::rcr).reg(3),
    base(0xd2, "shl", &[Eb, Cl], 0, shift::shl).reg(4), base(0xd3, "shl", &[Ev, Cl], 0, shift::shl).reg(4),
    base(0xd2, "shr", &[Eb, Cl], 0, shift::shr).reg(5), base(0xd3, "shr", &[Ev, Cl], 0, shift::shr).reg(5),
    base(0xd2, "shl", &[Eb, Cl], 0, shift::shl).reg(6), base(0xd3, "shl", &[Ev, Cl], 0, shift::shl).reg(6),
    base(0xd2, "sar", &[Eb, Cl], 0, shift::sar).reg(7), base(0xd3, "sar", &[Ev, Cl], 0, shift::sar).reg(7),
    of_0f(0xa4, "shld", &[Ev, Gv, Ib], 0, shift::shld), of_0f(0xa5, "shld", &[Ev, Gv, Cl], 0, shift::shld),
    of_0f(0xac, "shrd", &[Ev, Gv, Ib], 0, shift::shrd), of_0f(0xad, "shrd", &[Ev, Gv, Cl], 0, shift::shrd),
    // Bits.
    of_0f(0xa3, "bt",  &[Ev, Gv], 0, bits::bt),  of_0f(0xba, "bt",  &[Ev, Ib], 0, bits::bt).reg(4),
    of_0f(0xab, "bts", &[Ev, Gv], L, bits::bts), of_0f(0xba, "bts", &[Ev, Ib], L, bits::bts).reg(5),
    of_0f(0xb3, "btr", &[Ev, Gv], L, bits::btr), of_0f(0xba, "btr", &[Ev, Ib], L, bits::btr).reg(6),
    of_0f(0xbb, "btc", &[Ev, Gv], L, bits::btc), of_0f(0xba, "btc", &[Ev, Ib], L, bits::btc).reg(7),
    of_0f(0xbc, "bsf", &[Gv, Ev], 0, bits::bsf), of_0f(0xbd, "bsr", &[Gv, Ev], 0, bits::bsr),
    of_0f(0xb8, "popcnt", &[Gv, Ev], A::F3, bits::popcnt),
    of_0f(0xc8, "bswap", &[Zv], E, bits::bswap),
    // Moves.
    base(0x88, "mov", &[Eb, Gb], 0, mov::mov), base(0x89, "mov", &[Ev, Gv], 0, mov::mov),
    base(0x8a, "mov", &[Gb, Eb], 0, mov::mov), base(0x8b, "mov", &[Gv, Ev], 0, mov::mov),
    base(0xa0, "mov", &[Al, Ob], 0, mov::mov), base(0xa1, "mov", &[Ax, Ov], 0, mov::mov),
    base(0xa2, "mov", &[Ob, Al], 0, mov::mov), base(0xa3, "mov", &[Ov, Ax], 0, mov::mov),
    base(0xb0, "mov", &[Zb, Ib], E, mov::mov), base(0xb8, "mov", &[Zv, Iz], E, mov::mov),
    base(0xc6, "mov", &[Eb, Ib], 0, mov::mov).reg(0), base(0xc7, "mov", &[Ev, Iz], 0, mov::mov).reg(0),
    base(0x8c, "mov", &[Ev, Sw], 0, mov::mov_from_segment), base(0x8e, "mov", &[Sw, Ew], 0, mov::mov_to_segment),
    base(0x8d, "lea", &[Gv, M], A::MEM, mov::lea),
    base(0x86, "xchg", &[Eb, Gb], L, mov::xchg), base(0x87, "xchg", &[Ev, Gv], L, mov::xchg),
    base(0x90, "xchg", &[Ax, Zv], E, mov::xchg),
    of_0f(0xb6, "movzx", &[Gv, Eb], 0, mov::movzx8), of_0f(0xb7, "movzx", &[Gv, Ew], 0, mov::movzx16),
    of_0f(0xbe, "movsx", &[Gv, Eb], 0, mov::movsx8), of_0f(0xbf, "movsx", &[Gv, Ew], 0, mov::movsx16),
    of_0f(0x40, "cmov", &[Gv, Ev], C, mov::cmov), of_0f(0x90, "set", &[Eb], C, mov::set),
    base(0x98, "cbw", &[], 0, mov::cbw), base(0x99, "cwd", &[], 0, mov::cwd),
    of_0f(0xb0, "cmpxchg", &[Eb, Gb], L, mov::cmpxchg), of_0f(0xb1, "cmpxchg", &[Ev, Gv], L, mov::cmpxchg),
    of_0f(0xc0, "xadd", &[Eb, Gb], L, mov::xadd), of_0f(0xc1, "xadd", &[Ev, Gv], L, mov::xadd),
    of_0f(0xc7, "cmpxchg8b", &[M], L | A::MEM, mov::cmpxchg8b).reg(1),
    base(0xd7, "xlat", &[], 0, mov::xlat),
    base(0xc4, "les", &[Gv, Mp], A::MEM, mov::les), base(0xc5, "lds", &[Gv, Mp], A::MEM, mov::lds),
    of_0f(0xb2, "lss", &[Gv, Mp], A::MEM, mov::lss), of_0f(0xb4, "lfs", &[Gv, Mp], A::MEM, mov::lfs),
    of_0f(0xb5, "lgs", &[Gv, Mp], A::MEM, mov::lgs),
    // The stack.
    base(0x50, "push", &[Zv], E, stack::push), base(0x58, "pop", &[Zv], E, stack::pop),
    base(0x68, "push", &[Iz], 0, stack::push), base(0x6a, "push", &[Ibs], 0, stack::push),
    base(0xff, "push", &[Ev], 0, stack::push).reg(6), base(0x8f, "pop", &[Ev], 0, stack::pop).reg(0),
    base(0x06, "push es", &[], 0, stack::push_es), base(0x07, "pop es", &[], 0, stack::pop_es),
    base(0x0e, "push cs", &[], 0, stack::push_cs),
    base(0x16, "push ss", &[], 0, stack::push_ss), base(0x17, "pop ss", &[], 0, stack::pop_ss),
    base(0x1e, "push ds", &[], 0, stack::push_ds), base(0x1f, "pop ds", &[], 0, stack::pop_ds),
    of_0f(0xa0, "push fs", &[], 0, stack::push_fs), of_0f(0xa1, "pop fs", &[], 0, stack::pop_fs),
    of_0f(0xa8, "push gs", &[], 0, stack::push_gs), of_0f(0xa9, "pop gs", &[], 0, stack::pop_gs),
    base(0x60, "pusha", &[], 0, stack::pusha), base(0x61, "popa", &[], 0, stack::popa),
    base(0x9c, "pushf", &[], 0, stack::pushf), base(0x9d, "popf", &[], 0, stack::popf),
    base(0xc8, "enter", &[Iw, Ib2], 0, stack::enter), base(0xc9, "leave", &[], 0, stack::leave),
    // Flags.
    base(0x9e, "sahf", &[], 0, flag::sahf), base(0x9f, "lahf", &[], 0, flag::lahf),
    base(0xf5, "cmc", &[], 0, flag::cmc), base(0xf8, "clc", &[], 0, flag::clc), base(0xf9, "stc", &[], 0, flag::stc),
    base(0xfa, "cli", &[], SYS, flag::cli), base(0xfb, "sti", &[], SYS, flag::sti),
    base(0xfc, "cld", &[], 0, flag::cld), base(0xfd, "std", &[], 0, flag::std),
    base(0xd6, "salc", &[], 0, flag::salc),
    // Control flow.
    base(0x70, "j", &[Jb], C, branch::jcc), of_0f(0x80, "j", &[Jz], C, branch::jcc),
    base(0xe0, "loopne", &[Jb], 0, branch::loopne), base(0xe1, "loope", &[Jb], 0, branch::loope),
    base(0xe2, "loop", &[Jb], 0, branch::loop_), base(0xe3, "jcxz", &[Jb], 0, branch::jcxz),
    base(0xe9, "jmp", &[Jz], 0, branch::jmp), base(0xeb, "jmp", &[Jb], 0, branch::jmp),
    base(0xff, "jmp", &[Ev], 0, branch::jmp_indirect).reg(4), base(0xe8, "call", &[Jz], 0, branch::call),
    base(0xff, "call", &[Ev], 0, branch::call_indirect).reg(2),
    base(0xc3, "ret", &[], 0, branch::ret), base(0xc2, "ret", &[Iw], 0, branch::ret),
    base(0xea, "jmp far", &[Ap], 0, branch::jmp_far), base(0x9a, "call far", &[Ap], 0, branch::call_far),
    base(0xff, "jmp far", &[Mp], A::MEM, branch::jmp_far_indirect).reg(5),
    base(0xff, "call far", &[Mp], A::MEM, branch::call_far_indirect).reg(3),
    base(0xcb, "retf", &[], 0, branch::retf), base(0xca, "retf", &[Iw], 0, branch::retf),
    base(0xcf, "iret", &[], 0, branch::iret),
    base(0xcc, "int3", &[], 0, branch::int3), base(0xcd, "int", &[Ib], 0, branch::int),
    base(0xce, "into", &[], 0, branch::into), base(0xf1, "int1", &[], 0, branch::int1),
    base(0x62, "bound", &[Gv, M], A::MEM, branch::bound),
    of_0f(0x34, "sysenter", &[], SYS, branch::sysenter), of_0f(0x35, "sysexit", &[], SYS, branch::sysexit),
    of_0f(0x0b, "ud2", &[], 0, branch::ud), of_0f(0xb9, "ud1", &[Gv, Ev], 0, branch::ud),
    of_0f(0xff, "ud0", &[Gv, Ev], 0, branch::ud),
    // Strings.
    base(0xa4, "movsb", &[], 0, string::movs), base(0xa5, "movs", &[], 0, string::movs),
    base(0xa6, "cmpsb", &[], 0, string::cmps), base(0xa7, "cmps", &[], 0, string::cmps),
    base(0xaa, "stosb", &[], 0, string::stos), base(0xab, "stos", &[], 0, string::stos),
    base(0xac, "lodsb", &[], 0, string::lods), base(0xad, "lods", &[], 0, string::lods),
    base(0xae, "scasb", &[], 0, string::scas), base(0xaf, "scas", &[], 0, string::scas),
    base(0x6c, "insb", &[], SYS, string::ins), base(0x6d, "ins", &[], SYS, string::ins),
    base(0x6e, "outsb", &[], SYS, string::outs), base(0x6f, "outs", &[], SYS, string::outs),
    // Ports.
    base(0xe4, "in", &[Al, Ib], SYS, port::input), base(0xe5, "in", &[Ax, Ib], SYS, port::input),
    base(0xec, "in", &[Al, Dx], SYS, port::input), base(0xed, "in", &[Ax, Dx], SYS, port::input),
    base(0xe6, "out", &[Ib, Al], SYS, port::output), base(0xe7, "out", &[Ib, Ax], SYS, port::output),
    base(0xee, "out", &[Dx, Al], SYS, port::output), base(0xef, "out", &[Dx, Ax], SYS, port::output),
    // System.
    base(0xf4, "hlt", &[], SYS, system::hlt), base(0x63, "arpl", &[Ew, Gw], SYS, system::arpl),
    of_0f(0x00, "sldt", &[Ev], SYS, system::sldt).reg(0), of_0f(0x00, "str", &[Ev], SYS, system::str).reg(1),
    of_0f(0x00, "lldt", &[Ew], SYS, system::lldt).reg(2), of_0f(0x00, "ltr", &[Ew], SYS, system::ltr).reg(3),
    of_0f(0x00, "verr", &[Ew], SYS, system::verr).reg(4), of_0f(0x00, "verw", &[Ew], SYS, system::verw).reg(5),
    of_0f(0x01, "sgdt", &[M], SYS | A::MEM, system::sgdt).reg(0), of_0f(0x01, "sidt", &[M], SYS | A::MEM, system::sidt).reg(1),
    of_0f(0x01, "lgdt", &[M], SYS | A::MEM, system::lgdt).reg(2), of_0f(0x01, "lidt", &[M], SYS | A::MEM, system::lidt).reg(3),
    of_0f(0x01, "smsw", &[Ev], SYS, system::smsw).reg(4), of_0f(0x01, "lmsw", &[Ew], SYS, system::lmsw).reg(6),
    of_0f(0x01, "invlpg", &[M], SYS | A::MEM, system::invlpg).reg(7),
    of_0f(0x02, "lar", &[Gv, Ew], SYS, system::lar), of_0f(0x03, "lsl", &[Gv, Ew], SYS, system::lsl),
    of_0f(0x06, "clts", &[], SYS, system::clts), of_0f(0x08, "invd", &[], SYS, system::invd),
    of_0f(0x09, "wbinvd", &[], SYS, system::invd),
    of_0f(0x20, "mov", &[Rd, Cd], SYS, system::mov_from_cr), of_0f(0x22, "mov", &[Cd, Rd], SYS, system::mov_to_cr),
    of_0f(0x21, "mov", &[Rd, Dd], SYS, system::mov_from_dr), of_0f(0x23, "mov", &[Dd, Rd], SYS, system::mov_to_dr),
    of_0f(0x30, "wrmsr", &[], SYS, system::wrmsr), of_0f(0x32, "rdmsr", &[], SYS, system::rdmsr),
    of_0f(0x31, "rdtsc", &[], SYS, system::rdtsc), of_0f(0x33, "rdpmc", &[], SYS, system::rdpmc),
    of_0f(0xa2, "cpuid", &[], SYS, system::cpuid),
    of_0f(0xc7, "rdrand", &[Ev], SYS | A::REG | A::NO_REP, system::rdrand).reg(6),
    of_0f(0x0d, "prefetchw", &[M], A::MEM, mov::nop),
    of_0f(0x19, "nop", &[Ev], 0, mov::nop), of_0f(0x1a, "nop", &[Ev], 0, mov::nop), of_0f(0x1b, "nop", &[Ev], 0, mov::nop),
    of_0f(0x1c, "nop", &[Ev], 0, mov::nop), of_0f(0x1d, "nop", &[Ev], 0, mov::nop), of_0f(0x1e, "nop", &[Ev], 0, mov::nop),
    of_0f(0x1f, "nop", &[Ev], 0, mov::nop),
    // Floating point.
    base(0x9b, "wait", &[], 0, float::wait),
    base(0xd8, "x87", &[M], E, float::x87),
    of_0f(0xae, "fxsave", &[M], A::MEM | A::PLAIN, float::fxsave).reg(0),
    of_0f(0xae, "fxrstor", &[M], A::MEM | A::PLAIN, float::fxrstor).reg(1),
];

impl Spec {
    /// Whether the operand is in a ModR/M byte.
    const fn needs_modrm(self) -> bool {
        matches!(self, Eb | Ew | Ev | Ed | Gb | Gw | Gv | Gd | M | Mp | Sw | Cd | Dd | Rd)
    }

    const fn holder(self) -> Holder {
        match self {
            Eb | Ew | Ev | Ed | M | Mp | Rd => Holder::Rm,
            Ob | Ov => Holder::Memory,
            Gb | Gw | Gv | Gd | Cd | Dd | Sw => Holder::Reg,
            Zb | Zv => Holder::Opcode,
            Al | Ax => Holder::Accumulator,
            Cl => Holder::Count,
            Dx => Holder::Data,
            One | Ib | Ibs | Ib2 | Iw | Iz | Jb | Jz | Ap => Holder::Immediate,
        }
    }

    const fn size(self) -> Size {
        match self {
            Eb | Gb | Zb | Al | Cl | Ib | Ob => Size::Byte,
            Ew | Gw | Iw | Sw | Dx => Size::Word,
            Ed | Gd | Rd | Cd | Dd => Size::Dword,
            _ => Size::Operand,
        }
    }

    /// Whether decoding has more to do for it than to look at ModR/M.
    const fn reads_on(self) -> bool {
        matches!(self, Ib | Ibs | Ib2 | Iw | Iz | Jb | Jz | Ap | Ob | Ov | Sw | Cd)
    }
}

impl Row {
    /// How many opcodes in a row it has.
    pub(crate) const fn opcodes(&self) -> usize {
        match self.attr & (Attr::EIGHT | Attr::CONDITION) {
            0 => 1,
            Attr::EIGHT => 8,
            _ => 16,
        }
    }

    /// Where operand `i` of the first two is. The registers are those of r/m, of reg and of the opcode's low bits.
    pub(crate) fn place(&self, i: usize, registers: [u8; 3], is_mem: bool) -> Place {
        let [rm, reg, opcode] = registers;
        // By number, as a choice of many ways would be one that a host's processor can't predict.
        let numbers = [rm, reg, opcode, gpr::EAX, gpr::ECX, gpr::EDX, 0, 0];
        let holder = self.holders[i];
        match holder {
            Holder::Immediate => Place::Imm,
            Holder::Memory => Place::Mem,
            Holder::Rm if is_mem => Place::Mem,
            _ => Place::Reg(numbers[holder as usize & 7]),
        }
    }

    /// Bytes of operand `i` of the first two.
    pub(crate) fn width(&self, i: usize, op16: bool) -> u8 {
        [1, 2, 4, if op16 { 2 } else { 4 }][self.sizes[i] as usize & 3]
    }

    const fn needs_modrm(&self) -> bool {
        let mut needs = self.ext.is_some();
        let mut i = 0;
        while i < self.operands.len() {
            needs |= self.operands[i].needs_modrm();
            i += 1;
        }
        needs
    }
}

/// A bit for each opcode of each map: a ModR/M byte follows.
static MODRM: [u64; Map::COUNT * 4] = {
    let mut bits = [0; Map::COUNT * 4];
    let mut i = 0;
    while i < TABLE.len() {
        let row = &TABLE[i];
        let mut k = 0;
        while k < row.opcodes() && row.needs_modrm() {
            let at = row.map.place(row.opcode) + k;
            bits[at / 64] |= 1 << (at % 64);
            k += 1;
        }
        i += 1;
    }
    let mut i = 0;
    while i < simd::TABLE.len() {
        if simd::TABLE[i].has_modrm() {
            let at = Map::Of0F.place(simd::TABLE[i].opcode);
            bits[at / 64] |= 1 << (at % 64);
        }
        i += 1;
    }
    bits
};

/// Whether a ModR/M byte follows the opcode. Where there is no row, none is looked for.
pub fn has_modrm(map: Map, opcode: u8) -> bool {
    let at = map.place(opcode);
    MODRM[at / 64] >> (at % 64) & 1 != 0
}

const NONE: u16 = u16::MAX;

/// Row numbers by map and opcode, reg field, and whether r/m is memory.
static INDEX: [[[u16; 2]; 8]; Map::COUNT * 256] = {
    let mut index = [[[NONE; 2]; 8]; Map::COUNT * 256];
    let mut i = 0;
    while i < TABLE.len() {
        let row = &TABLE[i];
        let mut k = 0;
        while k < row.opcodes() {
            let opcode = row.map.place(row.opcode) + k;
            let mut reg = 0;
            while reg < 8 {
                let wanted = match row.ext {
                    Some(ext) => ext as usize == reg,
                    None => true,
                };
                if wanted {
                    if row.attr & Attr::MEM == 0 {
                        assert!(index[opcode][reg][0] == NONE, "two rows claim one encoding");
                        index[opcode][reg][0] = i as u16;
                    }
                    if row.attr & Attr::REG == 0 {
                        assert!(index[opcode][reg][1] == NONE, "two rows claim one encoding");
                        index[opcode][reg][1] = i as u16;
                    }
                }
                reg += 1;
            }
            k += 1;
        }
        i += 1;
    }
    index
};

/// The row of an encoding.
pub fn find(map: Map, opcode: u8, reg: u8, mem: bool, rep: Option<Rep>) -> Option<&'static Row> {
    let i = INDEX[map.place(opcode)][usize::from(reg & 7)][usize::from(mem)];
    let row = TABLE.get(usize::from(i))?;
    (row.attr & Attr::F3 == 0 || rep == Some(Rep::Equal)).then_some(row)
}
