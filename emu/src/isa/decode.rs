//! Bytes to instructions.

use super::lower::Place;
use super::table::{self, Attr, Map, Row, Spec};
use crate::cpu::SegName;
use crate::cpu::regs::gpr;
use crate::fpu;
use crate::simd;

/// The longest instruction, in bytes.
pub const MAX_LEN: usize = 15;

/// Why bytes are not an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// There are not enough bytes yet.
    Short,
    /// Longer than [`MAX_LEN`]: #GP(0).
    Long,
    /// No such instruction: #UD.
    Invalid,
}

/// A REP prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rep {
    /// F3h: REP, REPE.
    Equal,
    /// F2h: REPNE.
    NotEqual,
}

/// A memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// The segment, overrides applied.
    pub segment: SegName,
    /// Base register number.
    pub base: Option<u8>,
    /// Index register number.
    pub index: Option<u8>,
    /// The index is shifted left by this.
    pub scale: u8,
    /// Displacement, sign-extended.
    pub disp: u32,
}

/// What an instruction is: a row of the integer table or of the SIMD table.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Everything but MMX and SSE.
    Row(&'static Row),
    /// MMX and SSE, by index.
    Simd(u16),
}

/// One decoded instruction.
#[derive(Clone, Copy, Debug)]
pub struct Insn {
    /// What it is.
    pub what: What,
    /// Bytes.
    pub len: u8,
    /// The last opcode byte.
    pub opcode: u8,
    /// The ModR/M byte, if there is one.
    pub modrm: u8,
    /// The operand size is 16 bits.
    pub op16: bool,
    /// The address size is 16 bits.
    pub addr16: bool,
    /// LOCK.
    pub lock: bool,
    /// The last REP prefix.
    pub rep: Option<Rep>,
    /// The segment override, for operands that are not in [`Insn::mem`].
    pub segment: Option<SegName>,
    /// The memory operand.
    pub mem: Option<Mem>,
    /// First immediate, sign-extended where the instruction does that.
    pub imm: u32,
    /// Second immediate.
    pub imm2: u32,
    /// Where the first two operands are, and their bytes; not of MMX and SSE.
    places: [Place; 2],
    widths: [u8; 2],
}

impl Insn {
    /// CALL to a distance from the next instruction.
    pub(crate) fn is_near_call(&self) -> bool {
        self.opcode == 0xe8 && matches!(self.what, What::Row(_))
    }

    /// ModR/M's reg field.
    pub fn reg(&self) -> u8 {
        self.modrm >> 3 & 7
    }

    /// ModR/M's r/m field.
    pub fn rm(&self) -> u8 {
        self.modrm & 7
    }

    /// Where operand `i` of the first two is.
    pub(crate) fn place(&self, i: usize) -> Place {
        self.places[i]
    }

    /// Bytes of operand `i` of the first two.
    pub(crate) fn width(&self, i: usize) -> u32 {
        self.widths[i].into()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u8(&mut self) -> Result<u8, DecodeError> {
        if self.at >= MAX_LEN {
            return Err(DecodeError::Long);
        }
        let b = *self.bytes.get(self.at).ok_or(DecodeError::Short)?;
        self.at += 1;
        Ok(b)
    }

    fn u16(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from(self.u8()?) | u32::from(self.u8()?) << 8)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(self.u16()? | self.u16()? << 16)
    }

    fn i8(&mut self) -> Result<u32, DecodeError> {
        Ok(self.u8()? as i8 as u32)
    }

    fn sized(&mut self, word: bool) -> Result<u32, DecodeError> {
        if word { self.u16() } else { self.u32() }
    }
}

/// Decodes the instruction at the start of `bytes`; `code32` is CS.D.
pub fn decode(bytes: &[u8], code32: bool) -> Result<Insn, DecodeError> {
    let mut r = Reader { bytes, at: 0 };
    let (mut op16, mut addr16) = (!code32, !code32);
    let (mut lock, mut rep, mut segment, mut prefix66) = (false, None, None, false);
    let mut opcode = loop {
        match r.u8()? {
            0x26 => segment = Some(SegName::ES),
            0x2e => segment = Some(SegName::CS),
            0x36 => segment = Some(SegName::SS),
            0x3e => segment = Some(SegName::DS),
            0x64 => segment = Some(SegName::FS),
            0x65 => segment = Some(SegName::GS),
            0x66 => (op16, prefix66) = (code32, true),
            0x67 => addr16 = code32,
            0xf0 => lock = true,
            0xf2 => rep = Some(Rep::NotEqual),
            0xf3 => rep = Some(Rep::Equal),
            b => break b,
        }
    };
    let mut map = Map::Base;
    if opcode == 0x0f {
        (map, opcode) = match r.u8()? {
            0x38 => (Map::Of0F38, r.u8()?),
            0x3a => (Map::Of0F3A, r.u8()?),
            opcode => (Map::Of0F, opcode),
        };
    }
    let mut modrm = 0;
    let mut mem = None;
    if table::has_modrm(map, opcode) {
        modrm = r.u8()?;
        // Moves to and from control and debug registers take any ModR/M as a register.
        let always_register = map == Map::Of0F && (0x20..0x24).contains(&opcode);
        if modrm < 0xc0 && !always_register {
            mem = Some(if addr16 { mem16(&mut r, modrm)? } else { mem32(&mut r, modrm)? });
        }
    }
    let (reg, is_mem) = (modrm >> 3 & 7, mem.is_some());
    let simd = if map == Map::Of0F {
        let prefix = match (rep, prefix66) {
            (Some(Rep::Equal), _) => simd::Prefix::F3,
            (Some(Rep::NotEqual), _) => simd::Prefix::F2,
            (None, true) => simd::Prefix::P66,
            (None, false) => simd::Prefix::None,
        };
        simd::lookup(prefix, opcode, reg, is_mem)
    } else {
        None
    };
    let mut insn = Insn {
        what: What::Simd(0),
        len: 0,
        opcode,
        modrm,
        op16,
        addr16,
        lock,
        rep,
        segment,
        mem,
        imm: 0,
        imm2: 0,
        places: [Place::Imm; 2],
        widths: [4; 2],
    };
    if let Some(row) = simd {
        insn.what = What::Simd(row);
        if simd::TABLE[row as usize].form.imm {
            insn.imm = r.u8()?.into();
        }
        if lock {
            return Err(DecodeError::Invalid);
        }
    } else {
        let row = table::find(map, opcode, reg, is_mem, rep).ok_or(DecodeError::Invalid)?;
        if map == Map::Base && matches!(opcode, 0xd8..=0xdf) && !fpu::is_valid(opcode, modrm) {
            return Err(DecodeError::Invalid);
        }
        if row.attr & Attr::NO_66 != 0 && prefix66 || row.attr & Attr::NO_REP != 0 && rep.is_some() {
            return Err(DecodeError::Invalid);
        }
        insn.what = What::Row(row);
        let registers = [modrm & 7, reg, opcode & 7];
        insn.places = [row.place(0, registers, is_mem), row.place(1, registers, is_mem)];
        insn.widths = [row.width(0, op16), row.width(1, op16)];
        let behind = if row.reads_on { row.operands } else { &[] };
        for spec in behind {
            match spec {
                Spec::Ib => insn.imm = r.u8()?.into(),
                Spec::Ibs => insn.imm = r.i8()?,
                Spec::Ib2 => insn.imm2 = r.u8()?.into(),
                Spec::Iw => insn.imm = r.u16()?,
                Spec::Iz => insn.imm = r.sized(op16)?,
                Spec::Jb => insn.imm = r.i8()?,
                Spec::Jz => insn.imm = if op16 { r.u16()? as u16 as i16 as u32 } else { r.u32()? },
                Spec::Ap => {
                    insn.imm = r.sized(op16)?;
                    insn.imm2 = r.u16()?;
                }
                Spec::Ob | Spec::Ov => {
                    let disp = r.sized(addr16)?;
                    insn.mem = Some(Mem { segment: SegName::DS, base: None, index: None, scale: 0, disp });
                }
                // Registers that there are not, and CS, which no MOV loads.
                Spec::Sw if reg > 5 || reg == 1 && row.operands[0] == Spec::Sw => {
                    return Err(DecodeError::Invalid);
                }
                Spec::Cd if !matches!(reg, 0 | 2..=4) => return Err(DecodeError::Invalid),
                _ => {}
            }
        }
        let lockable = row.attr & Attr::LOCK != 0 && insn.mem.is_some();
        if lock && !lockable {
            return Err(DecodeError::Invalid);
        }
    }
    if let (Some(m), Some(s)) = (&mut insn.mem, segment) {
        m.segment = s;
    }
    insn.len = r.at as u8;
    Ok(insn)
}

fn mem16(r: &mut Reader, modrm: u8) -> Result<Mem, DecodeError> {
    use gpr::{EBP, EBX, EDI, ESI};
    let mode = modrm >> 6;
    let (base, index) = match modrm & 7 {
        0 => (Some(EBX), Some(ESI)),
        1 => (Some(EBX), Some(EDI)),
        2 => (Some(EBP), Some(ESI)),
        3 => (Some(EBP), Some(EDI)),
        4 => (Some(ESI), None),
        5 => (Some(EDI), None),
        6 if mode == 0 => (None, None),
        6 => (Some(EBP), None),
        _ => (Some(EBX), None),
    };
    let disp = match mode {
        0 if base.is_none() => r.u16()?,
        0 => 0,
        1 => r.i8()?,
        _ => r.u16()?,
    };
    let segment = if base == Some(EBP) { SegName::SS } else { SegName::DS };
    Ok(Mem { segment, base, index, scale: 0, disp })
}

fn mem32(r: &mut Reader, modrm: u8) -> Result<Mem, DecodeError> {
    use gpr::{EBP, ESP};
    let mode = modrm >> 6;
    let (mut base, mut index, mut scale) = (Some(modrm & 7), None, 0);
    if modrm & 7 == ESP {
        let sib = r.u8()?;
        base = Some(sib & 7);
        scale = sib >> 6;
        index = (sib >> 3 & 7 != ESP).then_some(sib >> 3 & 7);
    }
    if base == Some(EBP) && mode == 0 {
        base = None;
    }
    let disp = match mode {
        0 if base.is_none() => r.u32()?,
        0 => 0,
        1 => r.i8()?,
        _ => r.u32()?,
    };
    let segment = if matches!(base, Some(ESP | EBP)) { SegName::SS } else { SegName::DS };
    Ok(Mem { segment, base, index, scale, disp })
}
