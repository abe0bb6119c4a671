//! MMX, SSE, SSE2 and SSE3.
//!
//! One [`table`](TABLE) holds every instruction: how it is encoded, where its operands are
//! ([`Form`]) and what it does to their values ([`Op`], a plain function). The decoder finds a row
//! with [`lookup`] and keeps its index; [`execute`] fetches the operands through [`Operands`],
//! calls the function and writes the result back. Which checks come before (`CR0.EM`, `CR0.TS`,
//! `CR4.OSFXSR`, a pending x87 exception) follows from [`Row::unit`] and [`Row::touches_mmx`].
//!
//! Not here: FXSAVE and FXRSTOR, which move the whole state, and PAUSE, which is a NOP.

pub mod float;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod host_test;
pub mod integer;
pub mod mxcsr;
pub mod shuffle;
pub mod softfloat;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use crate::exception::{Exception, Result};
pub use mxcsr::Env;
pub use table::TABLE;

/// The prefix that selects among the instructions of one opcode. F3 and F2 win over 66.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// None of the three.
    None,
    /// 66.
    P66,
    /// F3.
    F3,
    /// F2.
    F2,
    /// Whichever: the instruction does not care.
    Any,
}

/// The kind of register an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No register: for `reg`, the field extends the opcode (see [`Row::extension`]).
    None,
    /// As [`Class::None`], and the source is the immediate byte.
    Imm,
    /// XMM0 to XMM7, 128 bits.
    Xmm,
    /// MM0 to MM7, 64 bits.
    Mmx,
    /// A 32-bit general register.
    Gpr,
}

/// Which of the two operands is the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dest {
    /// The register in modrm.reg.
    Reg,
    /// The register or memory in modrm.rm: stores, and shifts by an immediate.
    Rm,
}

/// What modrm.rm may be; anything else is #UD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RmKind {
    /// A register or memory.
    Any,
    /// A register.
    Register,
    /// Memory.
    Memory,
    /// There is no modrm byte.
    None,
}

/// Where an instruction's operands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The operand in modrm.reg.
    pub reg: Class,
    /// The operand in modrm.rm when that is a register.
    pub rm: Class,
    /// What modrm.rm may be.
    pub rm_kind: RmKind,
    /// Size of the memory operand in bytes: 2, 4, 8 or 16.
    pub size: u8,
    /// A memory operand off a 16-byte boundary is #GP(0).
    pub aligned: bool,
    /// The destination. Every operation also gets its old value.
    pub dest: Dest,
    /// An immediate byte follows.
    pub imm: bool,
}

/// An operation on 128-bit values: destination (in place), source, immediate. Operands that are
/// narrower come zero-extended, results are cut.
pub type WideFn = fn(&mut u128, &u128, u8);
/// An operation on 64-bit values.
pub type MmxFn = fn(&mut u64, &u64, u8);
/// An operation that depends on MXCSR and may raise #XM, which leaves the destination as it was.
pub type FloatFn = fn(&mut Env, &mut u128, &u128, u8) -> Result<()>;
/// A comparison that gives the arithmetic flags of EFLAGS.
pub type CompareFn = fn(&mut Env, &u128, &u128) -> Result<u32>;

/// What an instruction does.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A move: the destination becomes the source, zero-extended.
    Copy,
    /// Any operand classes.
    Wide(WideFn),
    /// MMX registers and memory only.
    Mmx(MmxFn),
    /// Floating point.
    Float(FloatFn),
    /// COMISS, COMISD, UCOMISS, UCOMISD: the result is in EFLAGS.
    Compare(CompareFn),
    /// MASKMOVQ, MASKMOVDQU: the bytes of `reg` whose byte of `rm` is negative go to DS:EDI.
    MaskedStore,
    /// LDMXCSR.
    LoadMxcsr,
    /// STMXCSR.
    StoreMxcsr,
    /// EMMS.
    Emms,
    /// CLFLUSH: touches its line as a load would; there is no cache.
    Flush,
    /// Fences and prefetches. Prefetches never fault.
    Nothing,
}

/// The unit an instruction needs, which decides the checks before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// No checks.
    None,
    /// `CR0.EM`: #UD. `CR0.TS`: #NM.
    Mmx,
    /// `CR0.EM` or not `CR4.OSFXSR`: #UD. `CR0.TS`: #NM.
    Sse,
}

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The prefix that belongs to it.
    pub prefix: Prefix,
    /// The byte after 0F.
    pub opcode: u8,
    /// The value that modrm.reg must have.
    pub extension: Option<u8>,
    /// The mnemonic, lower case.
    pub name: &'static str,
    /// Operands.
    pub form: Form,
    /// Operation.
    pub op: Op,
}

impl Row {
    /// The unit it needs.
    pub const fn unit(&self) -> Unit {
        let xmm = matches!(self.form.reg, Class::Xmm) || matches!(self.form.rm, Class::Xmm);
        match self.op {
            Op::Nothing | Op::Flush => Unit::None,
            Op::Float(_) | Op::Compare(_) | Op::LoadMxcsr | Op::StoreMxcsr => Unit::Sse,
            _ if xmm => Unit::Sse,
            Op::Emms | Op::Mmx(_) => Unit::Mmx,
            _ if self.touches_mmx() => Unit::Mmx,
            // MOVNTI.
            _ => Unit::None,
        }
    }

    /// It reads or writes an MMX register: a pending x87 exception comes first (#MF), and
    /// afterwards the x87 unit is in MMX mode.
    pub const fn touches_mmx(&self) -> bool {
        matches!(self.form.reg, Class::Mmx) || matches!(self.form.rm, Class::Mmx)
    }

    /// It does so with this kind of source. CVTPI2PS from memory leaves the x87 unit alone, CVTPI2PD
    /// does not.
    pub const fn uses_mmx(&self, memory: bool) -> bool {
        let spared = memory && matches!(self.prefix, Prefix::None) && self.opcode == CVTPI2PS;
        self.touches_mmx() && !spared
    }

    /// A modrm byte follows the opcode.
    pub const fn has_modrm(&self) -> bool {
        !matches!(self.form.rm_kind, RmKind::None)
    }

    fn fits(&self, prefix: Prefix, opcode: u8, reg: u8, memory: bool) -> bool {
        self.opcode == opcode
            && (self.prefix == prefix || self.prefix == Prefix::Any)
            && self.extension.is_none_or(|extension| extension == reg)
            && match self.form.rm_kind {
                RmKind::Any | RmKind::None => true,
                RmKind::Register => !memory,
                RmKind::Memory => memory,
            }
    }
}

const CVTPI2PS: u8 = 0x2a;

/// For each opcode, the first row that may be its own.
const FIRST: [u16; 256] = {
    let mut first = [0; 256];
    let mut opcode = 0;
    let mut row = 0;
    while opcode < first.len() {
        while row < TABLE.len() && (TABLE[row].opcode as usize) < opcode {
            row += 1;
        }
        first[opcode] = row as u16;
        opcode += 1;
    }
    first
};

/// Finds the row of 0F `opcode` and gives its index in [`TABLE`]. `reg` is modrm.reg, `memory`
/// says that modrm.rm is memory; both are ignored by instructions without a modrm byte (EMMS).
/// `None` means #UD, or an instruction that is not of this family.
pub fn lookup(prefix: Prefix, opcode: u8, reg: u8, memory: bool) -> Option<u16> {
    let first = FIRST[usize::from(opcode)];
    let rows = TABLE[usize::from(first)..].iter().take_while(|row| row.opcode == opcode);
    let found = rows.zip(first..).find(|(row, _)| row.fits(prefix, opcode, reg, memory));
    found.map(|(_, index)| index)
}

/// The index of the row with this mnemonic, which is one instruction's only.
pub const fn row(name: &str) -> usize {
    let mut row = 0;
    while !is_same(TABLE[row].name, name) {
        row += 1;
    }
    row
}

/// Equality, for constants.
const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// An instruction's variable parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insn {
    /// modrm.reg, 0 to 7.
    pub reg: u8,
    /// modrm.rm as a register, 0 to 7; ignored if `memory`.
    pub rm: u8,
    /// The immediate byte.
    pub imm: u8,
    /// modrm.rm is memory; its address is the [`Operands`]' business.
    pub memory: bool,
}

/// The processor as an instruction of this family sees it.
pub trait Operands {
    /// An XMM register, 0 to 7.
    fn xmm(&self, index: u8) -> u128;
    /// Writes an XMM register.
    fn set_xmm(&mut self, index: u8, value: u128);
    /// An MMX register, 0 to 7.
    fn mmx(&self, index: u8) -> u64;
    /// Writes an MMX register.
    fn set_mmx(&mut self, index: u8, value: u64);
    /// An instruction that uses MMX registers can no longer fault: TOP becomes 0 and all x87
    /// registers valid. [`Operands::set_mmx`] may follow.
    fn enter_mmx(&mut self);
    /// EMMS: all x87 registers become empty.
    fn leave_mmx(&mut self);
    /// A general register, 0 to 7.
    fn gpr(&self, index: u8) -> u32;
    /// Writes a general register.
    fn set_gpr(&mut self, index: u8, value: u32);
    /// Loads `size` bytes of the memory operand, zero-extended. If `aligned`, an address off a
    /// 16-byte boundary is #GP(0).
    fn load(&mut self, size: u8, aligned: bool) -> Result<u128>;
    /// Stores the low `size` bytes of `value`.
    fn store(&mut self, size: u8, value: u128, aligned: bool) -> Result<()>;
    /// Stores those of the low `size` bytes of `value` to DS:EDI (or DI, or another segment by
    /// prefix) whose bit is set in `mask`. With no bit set nothing need be accessed.
    fn store_masked(&mut self, size: u8, value: u128, mask: u16) -> Result<()>;
    /// Checks the memory operand as a byte load would, but for code that cannot be read (CLFLUSH).
    fn probe(&mut self) -> Result<()>;
    /// MXCSR.
    fn mxcsr(&self) -> u32;
    /// Writes MXCSR; `value` is within [`mxcsr::VALID`].
    fn set_mxcsr(&mut self, value: u32);
    /// Replaces OF, SF, ZF, AF, PF and CF of EFLAGS.
    fn set_arithmetic_flags(&mut self, flags: u32);
}

/// Carries out `row`. On an error nothing has changed, except that #XM (which the caller turns into
/// #UD if `CR4.OSXMMEXCPT` is clear) leaves MXCSR's flags and MMX mode behind.
///
/// Where the row is a constant there is nothing left of the table.
#[inline(always)]
pub fn execute(row: &Row, insn: &Insn, m: &mut impl Operands) -> Result<()> {
    let form = &row.form;
    let value = match row.op {
        Op::Copy => fetch(form, insn, m)?.1,
        Op::Wide(f) => {
            let (mut dst, src) = fetch(form, insn, m)?;
            f(&mut dst, &src, insn.imm);
            dst
        }
        Op::Mmx(f) => {
            let (dst, src) = fetch(form, insn, m)?;
            let mut dst = dst as u64;
            f(&mut dst, &(src as u64), insn.imm);
            dst.into()
        }
        Op::Float(f) => {
            let (mut dst, src) = fetch(form, insn, m)?;
            if row.uses_mmx(insn.memory) {
                // Even if the operation faults, unlike a fault in memory.
                m.enter_mmx();
            }
            let mut env = Env::new(m.mxcsr());
            let result = f(&mut env, &mut dst, &src, insn.imm);
            m.set_mxcsr(env.mxcsr);
            result?;
            dst
        }
        Op::Compare(f) => {
            let (dst, src) = fetch(form, insn, m)?;
            let mut env = Env::new(m.mxcsr());
            let flags = f(&mut env, &dst, &src);
            m.set_mxcsr(env.mxcsr);
            m.set_arithmetic_flags(flags?);
            return Ok(());
        }
        Op::MaskedStore => return masked_store(form, insn, m),
        Op::LoadMxcsr => {
            let value = m.load(4, false)? as u32;
            if value & !mxcsr::VALID != 0 {
                return Err(Exception::GP0);
            }
            m.set_mxcsr(value);
            return Ok(());
        }
        Op::StoreMxcsr => m.mxcsr().into(),
        Op::Emms => {
            m.leave_mmx();
            return Ok(());
        }
        Op::Flush => return m.probe(),
        Op::Nothing => return Ok(()),
    };
    if form.dest == Dest::Rm && insn.memory {
        m.store(form.size, value, form.aligned)?;
    }
    if row.touches_mmx() && !matches!(row.op, Op::Float(_)) {
        m.enter_mmx();
    }
    match (form.dest, insn.memory) {
        (Dest::Reg, _) => write(form.reg, insn.reg, value, m),
        (Dest::Rm, false) => write(form.rm, insn.rm, value, m),
        (Dest::Rm, true) => {}
    }
    Ok(())
}

/// The operands' values: destination, source. A destination in memory is not read.
#[inline(always)]
fn fetch(form: &Form, insn: &Insn, m: &mut impl Operands) -> Result<(u128, u128)> {
    let reg = match form.reg {
        Class::Imm => insn.imm.into(),
        class => read(class, insn.reg, m),
    };
    let rm = match (insn.memory, form.dest) {
        (false, _) => read(form.rm, insn.rm, m),
        (true, Dest::Reg) => m.load(form.size, form.aligned)?,
        (true, Dest::Rm) => 0,
    };
    Ok(match form.dest {
        Dest::Reg => (reg, rm),
        Dest::Rm => (rm, reg),
    })
}

#[inline(always)]
fn read(class: Class, index: u8, m: &impl Operands) -> u128 {
    match class {
        Class::Xmm => m.xmm(index),
        Class::Mmx => m.mmx(index).into(),
        Class::Gpr => m.gpr(index).into(),
        Class::None | Class::Imm => 0,
    }
}

#[inline(always)]
fn write(class: Class, index: u8, value: u128, m: &mut impl Operands) {
    match class {
        Class::Xmm => m.set_xmm(index, value),
        Class::Mmx => m.set_mmx(index, value as u64),
        Class::Gpr => m.set_gpr(index, value as u32),
        Class::None | Class::Imm => {}
    }
}

fn masked_store(form: &Form, insn: &Insn, m: &mut impl Operands) -> Result<()> {
    let (value, bytes) = (read(form.reg, insn.reg, m), read(form.rm, insn.rm, m));
    // A quadword comes zero-extended, so the mask has no bits beyond it.
    let mut mask = 0;
    shuffle::byte_signs(&mut mask, &bytes, 0);
    m.store_masked(form.size, value, mask as u16)?;
    if form.rm == Class::Mmx {
        m.enter_mmx();
    }
    Ok(())
}
