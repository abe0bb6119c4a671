//! Cases for the x87 unit.

use super::{Builder, Patterns, Prefixes};
use crate::layout::patch;
use crate::rng::Rng;
use crate::state::flag;

/// The status word's six exceptions.
const EXCEPTIONS: u16 = 0x3f;
/// Stack fault.
const SF: u16 = 1 << 6;
/// Exception summary, and the busy bit that copies it.
const ES: u16 = 1 << 7 | 1 << 15;
/// C0 to C3, and TOP.
const CODES: u16 = 0x7f00;

fn control(rng: &mut Rng) -> u16 {
    let masks = if rng.one_in(4) { rng.u32() as u16 & EXCEPTIONS } else { EXCEPTIONS };
    0x40 | masks | rng.u32() as u16 & 0x0f00 | if rng.one_in(8) { 0x1000 } else { 0 }
}

fn status(rng: &mut Rng, control: u16) -> u16 {
    let raised = match rng.below(4) {
        0 => rng.u32() as u16 & (EXCEPTIONS | SF),
        // Of those that would be pending, mostly none.
        1 => rng.u32() as u16 & control & EXCEPTIONS,
        _ => 0,
    };
    let summary = if raised & !control & EXCEPTIONS != 0 { ES } else { 0 };
    rng.u32() as u16 & CODES | raised | summary
}

fn valid(rng: &mut Rng) -> u8 {
    match rng.below(4) {
        0 => rng.u8(),
        1 => !(1 << rng.below(8)),
        _ => 0xff,
    }
}

/// A random state of the unit.
pub(super) fn state(b: &mut Builder) {
    let rng = &mut *b.rng;
    let fx = &mut b.regs.fx;
    fx.control = control(rng);
    fx.status = status(rng, fx.control);
    fx.valid = valid(rng);
    fx.opcode = rng.u32() as u16 & 0x7ff;
    (fx.ip, fx.dp) = (rng.u32(), rng.u32());
    for r in &mut fx.st {
        *r = rng.f80();
    }
    // Operands that are near each other make cancellations, comparisons and remainders interesting.
    if rng.one_in(4) {
        fx.st[1] = fx.st[0];
        fx.st[1].0 ^= u64::from(rng.below(4));
    } else if rng.one_in(4) {
        let near = fx.st[0].1 & 0x7fff;
        fx.st[1].1 = (rng.u32() & 0x8000) as u16 | near.saturating_sub(rng.below(70) as u16).max(1);
    }
}

/// The environment that FLDENV loads, and the registers behind it for FRSTOR.
fn environment(rng: &mut Rng, op16: bool) -> Vec<u8> {
    let control = control(rng) | (rng.u32() & 0xe0c0) as u16;
    let words = [
        control,
        status(rng, control),
        rng.u32() as u16,
        rng.u32() as u16,
        rng.u32() as u16,
        rng.u32() as u16,
        rng.u32() as u16,
    ];
    let mut bytes = Vec::new();
    for w in words {
        bytes.extend_from_slice(&w.to_le_bytes());
        if !op16 {
            bytes.extend_from_slice(&(rng.u32() as u16).to_le_bytes());
        }
    }
    for _ in 0..8 {
        let (significand, exponent) = rng.f80();
        bytes.extend_from_slice(&significand.to_le_bytes());
        bytes.extend_from_slice(&exponent.to_le_bytes());
    }
    bytes
}

/// An image for FXRSTOR. The control bits that only later processors have are left out.
pub(super) fn fxsave_image(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    let control = control(rng);
    bytes[0..2].copy_from_slice(&control.to_le_bytes());
    bytes[2..4].copy_from_slice(&status(rng, control).to_le_bytes());
    bytes[4] = rng.u8();
    bytes[6..8].copy_from_slice(&(rng.u32() as u16 & 0x7ff).to_le_bytes());
    bytes[8..12].copy_from_slice(&rng.u32().to_le_bytes());
    bytes[16..20].copy_from_slice(&rng.u32().to_le_bytes());
    let reserved = if rng.one_in(8) { rng.u32() & !(1 << 17) } else { 0 };
    bytes[24..28].copy_from_slice(&(rng.u32() & 0xffff | reserved).to_le_bytes());
    for i in 0..8 {
        let (significand, exponent) = rng.f80();
        bytes[32 + 16 * i..40 + 16 * i].copy_from_slice(&significand.to_le_bytes());
        bytes[40 + 16 * i..42 + 16 * i].copy_from_slice(&exponent.to_le_bytes());
    }
    bytes[160..288].fill_with(|| rng.u8());
    bytes
}

fn decimal(rng: &mut Rng) -> [u8; 10] {
    let mut bytes = [0; 10];
    let digits = rng.below(10) as usize;
    for byte in &mut bytes[..digits] {
        *byte = (rng.below(10) << 4 | rng.below(10)) as u8;
    }
    bytes[9] = rng.u8() & 0x80;
    bytes
}

fn prefixes(b: &mut Builder) -> Prefixes {
    let mut p = b.prefixes();
    p.lock = b.rng.one_in(32);
    p.rep = if b.rng.one_in(16) { Some(b.rng.pick(&[0xf2, 0xf3])) } else { None };
    p
}

/// An instruction with a memory operand.
pub(super) fn memory(b: &mut Builder, opcode: u8, reg: u8, patterns: &Patterns) {
    b.fill(&patterns.random);
    state(b);
    let p = prefixes(b);
    b.emit_prefixes(p);
    b.bytes.push(opcode);
    let mut at = b.address(p.addr16);
    // Where a 16-bit address wraps within an operand, processors differ.
    if p.addr16 && at > 0xffe0 {
        at -= 32;
    }
    let bytes = b.memory(reg, at, p.addr16);
    b.bytes.extend(bytes);
    let operand = match (opcode, reg) {
        (0xd9, 4 | 6) | (0xdd, 4 | 6) => environment(b.rng, p.op16),
        (0xd9, 5) => (control(b.rng) | (b.rng.u32() & 0xe0c0) as u16).to_le_bytes().to_vec(),
        (0xdb, 5 | 7) => {
            let (significand, exponent) = b.rng.f80();
            [&significand.to_le_bytes()[..], &exponent.to_le_bytes()].concat()
        }
        (0xdf, 4 | 6) => decimal(b.rng).to_vec(),
        (0xda | 0xdb | 0xde | 0xdf, _) => [b.rng.word().to_le_bytes(), b.rng.word().to_le_bytes()].concat(),
        (0xd8 | 0xd9, _) => b.rng.f32().to_le_bytes().to_vec(),
        _ => b.rng.f64().to_le_bytes().to_vec(),
    };
    patch(b.image, at, &operand);
    if is_store(opcode, reg) {
        // Which of an alignment check and another fault comes first, and what is written by then, differs.
        b.regs.eflags &= !flag::AC;
    }
    b.place();
}

/// Whether an instruction with a memory operand writes it.
fn is_store(opcode: u8, reg: u8) -> bool {
    match opcode {
        0xd9 => matches!(reg, 2 | 3 | 6 | 7),
        0xdb | 0xdd | 0xdf => matches!(reg, 1..=3 | 6 | 7),
        _ => false,
    }
}

/// An instruction on registers.
pub(super) fn register(b: &mut Builder, opcode: u8, modrm: u8, patterns: &Patterns) {
    b.fill(&patterns.random);
    state(b);
    let p = prefixes(b);
    b.emit_prefixes(p);
    b.bytes.extend([opcode, modrm]);
    b.place();
}
