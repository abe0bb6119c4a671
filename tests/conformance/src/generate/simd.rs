//! Cases for MMX and SSE.

use env86_emu::simd::{Class, Form, Op, Prefix, RmKind, Row};

use super::{Builder, Flavour, Patterns, x87};
use crate::layout::patch;
use crate::rng::Rng;
use crate::state::flag;

const EDI: usize = 7;
/// Accesses of 16 bytes at any address, and non-temporal ones.
const MAY_BE_UNALIGNED: [&str; 7] =
    ["movups", "movupd", "movdqu", "lddqu", "maskmovq", "maskmovdqu", "movntq"];

fn vector(rng: &mut Rng) -> u128 {
    match rng.below(4) {
        0 => (0..4).fold(0, |v, _| v << 32 | u128::from(rng.f32())),
        1 => u128::from(rng.f64()) << 64 | u128::from(rng.f64()),
        2 => (0..8).fold(0, |v, _| v << 16 | u128::from(rng.word() as u16)),
        _ => u128::from(rng.u64()) << 64 | u128::from(rng.u64()),
    }
}

pub(super) fn case(b: &mut Builder, row: &'static Row, patterns: &Patterns) {
    let Form { rm_kind, aligned, imm, .. } = row.form;
    let pattern = if b.rng.one_in(2) { &patterns.floats } else { &patterns.random };
    b.fill(pattern);
    for i in 0..8 {
        b.regs.fx.xmm[i] = vector(b.rng);
    }
    let fx = &mut b.regs.fx;
    fx.mxcsr = b.rng.u32() & 0xe03f | if b.rng.one_in(4) { b.rng.u32() & 0x1f80 } else { 0x1f80 };
    // One operand near the other.
    if b.rng.one_in(4) {
        let (from, to, bit) = (b.rng.below(8) as usize, b.rng.below(8) as usize, b.rng.below(128));
        b.regs.fx.xmm[to] = b.regs.fx.xmm[from] ^ 1 << bit;
    }
    if row.touches_mmx() || matches!(row.op, Op::Emms) || b.rng.one_in(8) {
        x87::state(b);
        if b.rng.one_in(2) {
            // Significands as MMX sees them.
            for r in &mut b.regs.fx.st {
                *r = (vector(b.rng) as u64, 0xffff);
            }
        }
        if !b.rng.one_in(4) {
            b.regs.fx.status &= !0x80ff;
        }
    }
    if aligned {
        b.flavour = Flavour::Aligned;
    }
    let mut p = b.prefixes();
    p.lock = b.rng.one_in(32);
    p.selects = row.prefix == Prefix::P66;
    if row.prefix != Prefix::Any {
        p.op16 = b.is_code16();
    }
    p.rep = match row.prefix {
        Prefix::F3 => Some(0xf3),
        Prefix::F2 => Some(0xf2),
        _ => None,
    };
    b.emit_prefixes(p);
    b.bytes.extend([0x0f, row.opcode]);
    if row.has_modrm() {
        let reg = row.extension.unwrap_or_else(|| b.rng.below(8) as u8);
        let memory = match rm_kind {
            RmKind::Memory => true,
            RmKind::Register => false,
            _ => b.rng.one_in(2),
        };
        if memory {
            let at = b.address(p.addr16);
            let bytes = b.memory(reg, at, p.addr16);
            b.bytes.extend(bytes);
            let operand = match row.op {
                Op::LoadMxcsr if !b.rng.one_in(4) => u128::from(b.rng.u32() & 0xffff),
                // Bit 17 is a control of some processors.
                Op::LoadMxcsr => u128::from(b.rng.u32() & !(1 << 17)),
                _ if row.form.rm == Class::Gpr => u128::from(b.rng.word()),
                _ => vector(b.rng),
            };
            patch(b.image, at, &operand.to_le_bytes()[..usize::from(row.form.size.clamp(4, 16))]);
        } else {
            b.bytes.push(0xc0 | reg << 3 | b.rng.below(8) as u8);
        }
    }
    if imm {
        let v = if b.rng.one_in(2) { b.rng.u8() } else { b.rng.below(70) as u8 };
        b.bytes.push(v);
    }
    if matches!(row.op, Op::MaskedStore) {
        // Not where a 16-bit address wraps within the operand.
        let at = b.address(p.addr16).min(if p.addr16 { 0xffe0 } else { u32::MAX });
        b.regs.gpr[EDI] = if p.addr16 { b.rng.u32() << 16 | at & 0xffff } else { at };
    }
    if !aligned && MAY_BE_UNALIGNED.contains(&row.name) {
        // "#AC may or may not be generated, depending on the processor" (SDM volume 3, interrupt 17).
        b.regs.eflags &= !flag::AC;
    }
    b.place();
}
