//! Short sequences of plain integer instructions: what single instructions cannot show is how
//! flags, fused operations and branches follow each other.

use env86_emu::isa::table::{Attr, Row, Spec, TABLE, has_modrm};

use super::{Builder, Patterns};
use crate::layout::{CODE, PAGE, patch};
use crate::state::flag;
use crate::undefined::{Count, Usage, condition, usage};

/// Most instructions in a sequence.
const LONGEST: u32 = 7;

/// Rows that cannot leave the page of code, and touch memory only through ModR/M.
fn rows() -> impl Iterator<Item = &'static Row> {
    const NAMES: [&str; 37] = [
        "add", "or", "adc", "sbb", "and", "sub", "xor", "cmp", "test", "inc", "dec", "not", "neg", "mov",
        "lea", "xchg", "movzx", "movsx", "cmov", "set", "cbw", "cwd", "cmpxchg", "xadd", "bswap", "bt",
        "bts", "btr", "btc", "rol", "ror", "rcl", "rcr", "push", "pop", "sahf", "lahf",
    ];
    const PLAIN: [&str; 8] = ["cmc", "clc", "stc", "cld", "std", "pushf", "salc", "popcnt"];
    TABLE.iter().filter(|row| {
        (NAMES.contains(&row.name) || PLAIN.contains(&row.name))
            && row.attr & Attr::SYSTEM == 0
            && !row.operands.contains(&Spec::Sw)
            && !row.operands.contains(&Spec::Ob)
            && !row.operands.contains(&Spec::Ov)
    })
}

pub(super) fn case(b: &mut Builder, patterns: &Patterns) {
    let rows: Vec<_> = rows().collect();
    let pattern = if b.rng.one_in(2) { &patterns.few } else { &patterns.random };
    b.fill(pattern);
    // Addresses that stay right while registers change: absolute, or by registers kept for them.
    b.keep = 0;
    let count = 1 + b.rng.below(LONGEST);
    for _ in 0..count {
        let row = b.rng.pick(&rows);
        let (bytes, undefined) = (b.bytes.len(), b.undefined);
        let usage = instruction(b, row);
        if usage.reads & undefined != 0 {
            // What it does is not defined here.
            b.bytes.truncate(bytes);
            continue;
        }
        b.uses_flags(usage);
    }
    let code = b.rng.below(16) as u8;
    if b.rng.one_in(2) && condition(code) & b.undefined == 0 {
        // A conditional branch over an instruction that shows whether it was taken.
        b.bytes.extend([0x70 | code, 5, 0xbb]);
        let word = b.rng.u32();
        b.bytes.extend_from_slice(&word.to_le_bytes());
    }
}

/// Bytes between the starts of a program's pieces.
const PIECE: u32 = 0x80;

/// A page of code in pieces of plain instructions, each ending in a branch to another.
pub(super) fn program(b: &mut Builder, patterns: &Patterns) {
    let rows: Vec<_> = rows().collect();
    b.fill(&patterns.random);
    b.regs.eflags &= !(flag::TF | flag::AC);
    for piece in 0..PAGE / PIECE {
        let start = CODE + piece * PIECE;
        b.bytes.clear();
        for _ in 0..1 + b.rng.below(8) {
            match b.rng.below(16) {
                // Stores to code: immediates, opcodes, whole instructions.
                0 => {
                    let at = CODE + b.rng.below(PAGE);
                    let (size, value) = (b.rng.pick(&[0xc6, 0xc7]), b.rng.u32());
                    b.bytes.extend([size, 5]);
                    b.bytes.extend_from_slice(&at.to_le_bytes());
                    b.bytes.extend_from_slice(&value.to_le_bytes()[..if size == 0xc6 { 1 } else { 4 }]);
                }
                // One that hits what comes next.
                1 => {
                    let next = start + b.bytes.len() as u32 + 7 + b.rng.below(12);
                    let value = b.rng.pick(&[0x40, 0x41, 0x90, 0xf8, 0xf9, 0x4b]);
                    b.bytes.extend([0xc6, 5]);
                    b.bytes.extend_from_slice(&next.to_le_bytes());
                    b.bytes.push(value);
                }
                2 => {
                    let byte = b.rng.u8();
                    b.bytes.push(byte);
                }
                3 => b.bytes.extend([0xf3, 0xa4 + b.rng.below(2) as u8]),
                _ => {
                    let row = b.rng.pick(&rows);
                    instruction(b, row);
                }
            }
            if b.bytes.len() as u32 > PIECE - 24 {
                break;
            }
        }
        branch(b, start);
        let bytes = std::mem::take(&mut b.bytes);
        patch(b.image, start, &bytes);
    }
    b.regs.eip = CODE;
    b.regs.gpr[1] = b.rng.below(40);
    for r in [6, 7] {
        b.regs.gpr[r] = b.address(false);
    }
}

/// To the start of a piece, near by or far off.
fn branch(b: &mut Builder, start: u32) {
    let to = CODE + b.rng.below(PAGE / PIECE) * PIECE;
    let condition = b.rng.below(16) as u8;
    let distance = |from: u32| to.wrapping_sub(from).to_le_bytes();
    let here = start + b.bytes.len() as u32;
    match b.rng.below(8) {
        0..=3 => {
            b.bytes.extend([0x0f, 0x80 | condition]);
            b.bytes.extend(distance(here + 6));
        }
        4 => {
            b.bytes.push(0xe8);
            b.bytes.extend(distance(here + 5));
        }
        5 => b.bytes.push(0xc3),
        6 => {
            b.bytes.push(0xb8);
            b.bytes.extend(to.to_le_bytes());
            b.bytes.extend([0xff, 0xe0]);
        }
        _ => b.bytes.extend([0xe2, b.rng.u8() & 0x7f]),
    }
    let here = start + b.bytes.len() as u32;
    b.bytes.push(0xe9);
    b.bytes.extend(distance(here + 5));
}

/// Adds an instruction of a row, and tells what it does with the flags.
fn instruction(b: &mut Builder, row: &'static Row) -> Usage {
    let op16 = b.rng.one_in(5) && row.name != "bswap";
    if op16 {
        b.bytes.push(0x66);
    }
    if row.attr & Attr::F3 != 0 {
        b.bytes.push(0xf3);
    }
    if row.two {
        b.bytes.push(0x0f);
    }
    let spread = if row.attr & Attr::EIGHT != 0 {
        8
    } else if row.attr & Attr::CONDITION != 0 {
        16
    } else {
        1
    };
    let opcode = row.opcode + b.rng.below(spread) as u8;
    b.bytes.push(opcode);
    if has_modrm(row.two, row.opcode) {
        let reg = row.ext.unwrap_or_else(|| b.rng.below(8) as u8);
        let wild = row.name.starts_with('b') && row.opcode != 0xba;
        let memory = row.attr & Attr::MEM != 0 || !wild && b.rng.one_in(3);
        if memory {
            let at = b.address(false);
            b.bytes.push(reg << 3 | 5);
            b.bytes.extend_from_slice(&at.to_le_bytes());
        } else {
            b.bytes.push(0xc0 | reg << 3 | b.rng.below(8) as u8);
        }
    }
    for spec in row.operands {
        let word = b.rng.word();
        let size = match spec {
            Spec::Ib | Spec::Ibs => 1,
            Spec::Iz if op16 => 2,
            Spec::Iz => 4,
            _ => 0,
        };
        b.bytes.extend_from_slice(&word.to_le_bytes()[..size]);
    }
    let count = match row.operands.last() {
        Some(Spec::Ib) => Count::of(b.bytes.last().copied().unwrap_or(0)),
        Some(Spec::One) => Count::Known(1),
        _ => Count::Any,
    };
    usage(row.name, count, 32, opcode)
}
