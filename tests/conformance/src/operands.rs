//! The operands of one instruction as two decoders see them.

use env86_emu::isa::decode::{Insn, Mem, What};
use env86_emu::isa::table::{Attr, Row, Spec};
use env86_emu::simd::{self, Class, Dest};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// An explicit operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Any register.
    Register(Register),
    /// Memory.
    Memory {
        /// The segment register.
        segment: Register,
        /// The base register.
        base: Register,
        /// The index register and what it is multiplied by.
        index: Option<(Register, u32)>,
        /// The displacement.
        displacement: u32,
    },
    /// A constant, or where a branch goes.
    Immediate(u32),
    /// A far pointer: selector and offset.
    Far(u16, u32),
}

use Operand::{Far, Immediate};

const BYTE: [Register; 8] = {
    use Register::*;
    [AL, CL, DL, BL, AH, CH, DH, BH]
};

/// The operands of an instruction at address 0 by our decoder.
pub fn ours(i: &Insn) -> Vec<Operand> {
    match i.what {
        What::Simd(row) => simd_operands(i, &simd::TABLE[usize::from(row)]),
        What::Row(row) if row.name == "x87" => i.mem.map(|m| memory(i, m)).into_iter().collect(),
        What::Row(row) => {
            row.operands.iter().map(|&spec| operand(i, row, spec)).chain(segment_in_name(row)).collect()
        }
    }
}

/// The segment register that PUSH and POP have in their opcode.
fn segment_in_name(row: &Row) -> Option<Operand> {
    let (_, segment) = row.name.split_once(' ')?;
    let i = ["es", "cs", "ss", "ds", "fs", "gs"].iter().position(|s| *s == segment)?;
    Some(Operand::Register(Register::ES + i as u32))
}

fn memory(i: &Insn, m: Mem) -> Operand {
    let register = |r: u8| general(r, i.addr16);
    Operand::Memory {
        segment: Register::ES + m.segment as u32,
        base: m.base.map_or(Register::None, register),
        index: m.index.map(|r| (register(r), 1 << m.scale)),
        displacement: if i.addr16 { m.disp & 0xffff } else { m.disp },
    }
}

fn general(number: u8, word: bool) -> Register {
    let first = if word { Register::AX } else { Register::EAX };
    first + u32::from(number)
}

fn operand(i: &Insn, row: &Row, spec: Spec) -> Operand {
    use Spec::*;
    let byte = |n: u8| Operand::Register(BYTE[usize::from(n & 7)]);
    let sized = |n: u8| Operand::Register(general(n & 7, i.op16));
    let dword = |n: u8| Operand::Register(general(n & 7, false));
    let rm = |register: &dyn Fn(u8) -> Operand| i.mem.map_or_else(|| register(i.rm()), |m| memory(i, m));
    // Where only 16 bits of a register are used, the other decoder calls it by the operand's size.
    let selector = row.attr & Attr::SYSTEM != 0 || row.operands.contains(&Sw);
    let word = |n: u8| Operand::Register(general(n & 7, i.op16 || !selector));
    let cut = |v: u32| if i.op16 { v & 0xffff } else { v };
    match spec {
        Eb => rm(&byte),
        Ew => rm(&word),
        Ev => rm(&sized),
        Ed | Rd => rm(&dword),
        M | Mp | Ob | Ov => i.mem.map_or(Immediate(0), |m| memory(i, m)),
        Gb => byte(i.reg()),
        Gw => word(i.reg()),
        Gv => sized(i.reg()),
        Gd => dword(i.reg()),
        Zb => byte(i.opcode),
        Zv => sized(i.opcode),
        Al => byte(0),
        Ax => sized(0),
        Cl => byte(1),
        Dx => Operand::Register(Register::DX),
        One => Immediate(1),
        Ib | Iw | Iz => Immediate(i.imm),
        Ibs => Immediate(cut(i.imm)),
        Ib2 => Immediate(i.imm2),
        Jb | Jz => Immediate(cut(i.imm.wrapping_add(i.len.into()))),
        Ap => Far(i.imm2 as u16, i.imm),
        Sw => Operand::Register(Register::ES + u32::from(i.reg())),
        Cd => Operand::Register(Register::CR0 + u32::from(i.reg())),
        Dd => Operand::Register(Register::DR0 + u32::from(i.reg())),
    }
}

fn simd_operands(i: &Insn, row: &simd::Row) -> Vec<Operand> {
    let register = |class: Class, number: u8| {
        let first = match class {
            Class::None | Class::Imm => return None,
            Class::Xmm => Register::XMM0,
            Class::Mmx => Register::MM0,
            Class::Gpr => Register::EAX,
        };
        Some(Operand::Register(first + u32::from(number)))
    };
    let reg = register(row.form.reg, i.reg());
    let rm = i.mem.map(|m| memory(i, m)).or_else(|| register(row.form.rm, i.rm()));
    let immediate = row.form.imm.then_some(Immediate(i.imm));
    let pair = if row.form.dest == Dest::Rm { [rm, reg] } else { [reg, rm] };
    pair.into_iter().chain([immediate]).flatten().collect()
}

/// The operands of an instruction at address 0 by the other decoder.
pub fn theirs(i: &Instruction) -> Vec<Operand> {
    (0..i.op_count()).filter_map(|n| their_operand(i, n)).collect()
}

fn their_operand(i: &Instruction, n: u32) -> Option<Operand> {
    Some(match i.op_kind(n) {
        OpKind::Register => Operand::Register(i.op_register(n)),
        OpKind::NearBranch16 => Immediate(i.near_branch16().into()),
        OpKind::NearBranch32 => Immediate(i.near_branch32()),
        OpKind::FarBranch16 => Far(i.far_branch_selector(), i.far_branch16().into()),
        OpKind::FarBranch32 => Far(i.far_branch_selector(), i.far_branch32()),
        OpKind::Immediate8 => Immediate(i.immediate8().into()),
        OpKind::Immediate8_2nd => Immediate(i.immediate8_2nd().into()),
        OpKind::Immediate16 => Immediate(i.immediate16().into()),
        OpKind::Immediate32 => Immediate(i.immediate32()),
        OpKind::Immediate8to16 => Immediate(i.immediate8to16() as u16 as u32),
        OpKind::Immediate8to32 => Immediate(i.immediate8to32() as u32),
        OpKind::Memory if i.mnemonic() != Mnemonic::Xlatb => Operand::Memory {
            segment: i.memory_segment(),
            base: i.memory_base(),
            index: (i.memory_index() != Register::None).then(|| (i.memory_index(), i.memory_index_scale())),
            displacement: i.memory_displacement32(),
        },
        // What string instructions and their kin imply.
        _ => return None,
    })
}

/// Whether the decoders see the same operands.
pub fn agree(our: &Insn, their: &Instruction) -> bool {
    let row = match our.what {
        What::Simd(row) if simd::TABLE[usize::from(row)].name == "prefetch" => return is_hint(our, their),
        What::Simd(_) => return ours(our) == theirs(their),
        What::Row(row) => row,
    };
    match row.name {
        // Theirs names the accumulator, DX or nothing; what counts is the memory.
        "movs" | "movsb" | "cmps" | "cmpsb" | "stos" | "stosb" | "lods" | "lodsb" | "scas" | "scasb"
        | "ins" | "insb" | "outs" | "outsb" => string_agrees(our, row, their),
        // Theirs has another operand order, and names for what we take for a NOP.
        "xchg" if our.opcode & 0xf8 == 0x90 => our.opcode == 0x90 || same_but_for_order(our, their),
        // Ours leaves the x87's registers to the x87.
        "x87" => ours(our).first() == theirs(their).iter().find(|o| matches!(o, Operand::Memory { .. })),
        "nop" => is_hint(our, their),
        _ => ours(our) == theirs(their),
    }
}

/// An instruction that does nothing has the operands that we know of, and may have more.
fn is_hint(our: &Insn, their: &Instruction) -> bool {
    let theirs = theirs(their);
    theirs.is_empty() || ours(our).iter().all(|o| theirs.contains(o))
}

fn same_but_for_order(our: &Insn, their: &Instruction) -> bool {
    let mut theirs = theirs(their);
    theirs.reverse();
    ours(our) == theirs
}

/// A string instruction's address and operand sizes, and its source's segment.
fn string_agrees(our: &Insn, row: &Row, their: &Instruction) -> bool {
    let size = match (row.name.ends_with('b'), our.op16) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 4,
    };
    let source = our.segment.map_or(Register::DS, |s| Register::ES + s as u32);
    let memory = (0..their.op_count()).all(|n| match their.op_kind(n) {
        OpKind::MemorySegSI => our.addr16 && their.memory_segment() == source,
        OpKind::MemorySegESI => !our.addr16 && their.memory_segment() == source,
        OpKind::MemoryESDI => our.addr16,
        OpKind::MemoryESEDI => !our.addr16,
        _ => true,
    });
    memory && their.memory_size().size() == size
}
