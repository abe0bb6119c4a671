//! Bit tests, bit scans, byte swaps.

use super::decode::Insn;
use super::lower::{Builder, Place};
use crate::Cpu;
use crate::cpu::regs::Int;
use crate::dispatch::{Flow, Op, Step, Uop, form, step};
use crate::exception::Result;

/// What becomes of the tested bit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Set,
    Reset,
    Complement,
}

const NONE: u8 = Change::None as u8;
const SET: u8 = Change::Set as u8;
const RESET: u8 = Change::Reset as u8;

/// BT, BTS, BTR, BTC. With a bit number from a register, memory is a bit string that reaches 2 GiB
/// either way; with an immediate the number is taken modulo the operand size.
fn test<T: Int, const CHANGE: u8, const FROM_REG: bool>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let number = if FROM_REG { cpu.regs.get::<T>(u.src).sext() } else { u.imm };
    let bit = number % T::BITS;
    let unit = ((number as i32) >> T::BITS.trailing_zeros()) as u32;
    let delta = if FROM_REG { unit.wrapping_mul(T::BYTES) } else { 0 };
    let change = |v: u32| match CHANGE {
        SET => v | 1 << bit,
        RESET => v & !(1 << bit),
        _ => v ^ 1 << bit,
    };
    let old = if u.is_mem() {
        let offset = cpu.offset(u).wrapping_add(delta);
        let offset = if u.form & form::ADDR16 != 0 { offset & 0xffff } else { offset };
        let at = cpu.check_segment(u.form & 7, offset, T::BYTES, CHANGE != NONE)?;
        if CHANGE != NONE {
            cpu.probe_write(at, T::BYTES)?;
        }
        let old = cpu.read::<T>(at)?.zext();
        if CHANGE != NONE {
            cpu.write(at, T::truncate(change(old)))?;
        }
        old
    } else {
        let old = cpu.regs.get::<T>(u.dst).zext();
        if CHANGE != NONE {
            cpu.regs.set(u.dst, T::truncate(change(old)));
        }
        old
    };
    cpu.flags.set_cf(old >> bit & 1 != 0);
    Ok(())
}

fn lower<const CHANGE: u8>(b: &mut Builder, i: &Insn) {
    match (i.op16, i.place(1) == Place::Imm) {
        (false, false) => b.call(i, test::<u32, CHANGE, true>),
        (false, true) => b.call(i, test::<u32, CHANGE, false>),
        (true, false) => b.call(i, test::<u16, CHANGE, true>),
        (true, true) => b.call(i, test::<u16, CHANGE, false>),
    };
}

pub(super) fn bt(b: &mut Builder, i: &Insn) {
    lower::<NONE>(b, i);
}
pub(super) fn bts(b: &mut Builder, i: &Insn) {
    lower::<SET>(b, i);
}
pub(super) fn btr(b: &mut Builder, i: &Insn) {
    lower::<RESET>(b, i);
}
pub(super) fn btc(b: &mut Builder, i: &Insn) {
    lower::<{ Change::Complement as u8 }>(b, i);
}

/// BSF and BSR. Of zero only ZF is set and the destination stays, as all hardware has it. The
/// other flags are undefined; these are a logical operation's on the source.
fn scan<T: Int, const REVERSE: bool>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let v = cpu.get_rm::<T>(u)?;
    cpu.flags.set_logic(v);
    if v.zext() != 0 {
        let n = if REVERSE { 31 - v.zext().leading_zeros() } else { v.zext().trailing_zeros() };
        cpu.regs.set(u.src, T::truncate(n));
    }
    Ok(())
}

pub(super) fn bsf(b: &mut Builder, i: &Insn) {
    if i.op16 {
        b.call(i, scan::<u16, false>)
    } else {
        b.call(i, scan::<u32, false>)
    };
}

pub(super) fn bsr(b: &mut Builder, i: &Insn) {
    if i.op16 {
        b.call(i, scan::<u16, true>)
    } else {
        b.call(i, scan::<u32, true>)
    };
}

fn count<T: Int>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let v = cpu.get_rm::<T>(u)?.zext();
    cpu.regs.set(u.src, T::truncate(v.count_ones()));
    cpu.flags.set_arith(if v == 0 { crate::cpu::flags::ZF } else { 0 });
    Ok(())
}

pub(super) fn popcnt(b: &mut Builder, i: &Insn) {
    if i.op16 {
        b.call(i, count::<u16>)
    } else {
        b.call(i, count::<u32>)
    };
}

/// BSWAP. Of a 16-bit register it gives zero, which the manuals leave undefined.
struct Bswap<const WORD: bool>;

impl<const WORD: bool> Op for Bswap<WORD> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        if WORD {
            cpu.regs.set(u.dst, 0u16);
        } else {
            let v = cpu.regs.get::<u32>(u.dst);
            cpu.regs.set(u.dst, v.swap_bytes());
        }
        Ok(Flow::Next)
    }
}

pub(super) fn bswap(b: &mut Builder, i: &Insn) {
    b.emit(i, if i.op16 { step::<Bswap<true>> } else { step::<Bswap<false>> });
}
