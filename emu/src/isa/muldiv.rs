//! Multiplication and division.

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::lower::{Builder, Choice, Place, by_addr};
use super::operand::{Source, SrcMem, SrcReg};
use crate::Cpu;
use crate::cpu::regs::{Int, Reg, gpr};
use crate::dispatch::{Flow, Op, Step, Uop};
use crate::exception::{Exception, Result};

const EAX: Reg = Reg::dword(gpr::EAX);
const EDX: Reg = Reg::dword(gpr::EDX);
const AH: Reg = Reg::byte(4);

/// The accumulator pair as one value: AX, DX:AX or EDX:EAX.
fn dividend<T: Int>(cpu: &Cpu) -> u64 {
    if T::BITS == 8 {
        return cpu.regs.get::<u16>(EAX).into();
    }
    u64::from(cpu.regs.get::<T>(EDX).zext()) << T::BITS | u64::from(cpu.regs.get::<T>(EAX).zext())
}

/// Stores a low and a high part into the accumulator pair.
fn set_pair<T: Int>(cpu: &mut Cpu, low: T, high: T) {
    cpu.regs.set(EAX, low);
    cpu.regs.set(if T::BITS == 8 { AH } else { EDX }, high);
}

fn mul_sized<T: Int, const SIGNED: bool>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let b = cpu.get_rm::<T>(u)?;
    let a = cpu.regs.get::<T>(EAX);
    let product = if SIGNED {
        (i64::from(a.sext() as i32) * i64::from(b.sext() as i32)) as u64
    } else {
        u64::from(a.zext()) * u64::from(b.zext())
    };
    let (low, high) = (T::truncate(product as u32), T::truncate((product >> T::BITS) as u32));
    set_pair(cpu, low, high);
    let over = if SIGNED { high.sext() != (low.sext() as i32 >> 31) as u32 } else { high.zext() != 0 };
    cpu.flags.set_result(low, over.into(), over);
    Ok(())
}

fn div_sized<T: Int>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let b = u64::from(cpu.get_rm::<T>(u)?.zext());
    let a = dividend::<T>(cpu);
    let q = a.checked_div(b).ok_or(Exception::DIVIDE_ERROR)?;
    if q >> T::BITS != 0 {
        return Err(Exception::DIVIDE_ERROR);
    }
    set_pair(cpu, T::truncate(q as u32), T::truncate((a % b) as u32));
    Ok(())
}

fn idiv_sized<T: Int>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let b = i64::from(cpu.get_rm::<T>(u)?.sext() as i32);
    let shift = 64 - 2 * T::BITS;
    let a = (dividend::<T>(cpu) << shift) as i64 >> shift;
    // The one quotient that overflows 64 bits is out of range as well.
    let q = a.checked_div(b).ok_or(Exception::DIVIDE_ERROR)?;
    if i64::from(T::truncate(q as u32).sext() as i32) != q {
        return Err(Exception::DIVIDE_ERROR);
    }
    set_pair(cpu, T::truncate(q as u32), T::truncate((a % b) as u32));
    Ok(())
}

pub(super) fn mul(b: &mut Builder, i: &Insn) {
    match i.width(0) {
        1 => b.call(i, mul_sized::<u8, false>),
        2 => b.call(i, mul_sized::<u16, false>),
        _ => b.call(i, mul_sized::<u32, false>),
    };
}

pub(super) fn imul(b: &mut Builder, i: &Insn) {
    match i.width(0) {
        1 => b.call(i, mul_sized::<u8, true>),
        2 => b.call(i, mul_sized::<u16, true>),
        _ => b.call(i, mul_sized::<u32, true>),
    };
}

pub(super) fn div(b: &mut Builder, i: &Insn) {
    match i.width(0) {
        1 => b.call(i, div_sized::<u8>),
        2 => b.call(i, div_sized::<u16>),
        _ => b.call(i, div_sized::<u32>),
    };
}

pub(super) fn idiv(b: &mut Builder, i: &Insn) {
    match i.width(0) {
        1 => b.call(i, idiv_sized::<u8>),
        2 => b.call(i, idiv_sized::<u16>),
        _ => b.call(i, idiv_sized::<u32>),
    };
}

/// IMUL with an explicit destination: by `dst` itself, or by the immediate.
pub(super) struct Imul<T, S, const IMM: bool, const FLAGS: bool>(P<(T, S)>);

impl<T: Int, S: Source, const IMM: bool, const FLAGS: bool> Op for Imul<T, S, IMM, FLAGS> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let b = S::get::<T, SLOW>(cpu, u)?;
        let a = if IMM { T::truncate(u.imm) } else { cpu.regs.get::<T>(u.dst) };
        let product = i64::from(a.sext() as i32) * i64::from(b.sext() as i32);
        let r = T::truncate(product as u32);
        if FLAGS || SLOW {
            let over = i64::from(r.sext() as i32) != product;
            cpu.flags.set_result(r, over.into(), over);
        }
        cpu.regs.set(u.dst, r);
        Ok(Flow::Next)
    }
}

fn imul_sized<T: Int, const IMM: bool>(b: &mut Builder, i: &Insn) {
    let (with, without) = match i.place(1) {
        Place::Mem => by_addr!(b.addr_kind(i), A => {
            (Choice::plain::<Imul<T, SrcMem<A>, IMM, true>>(), Choice::plain::<Imul<T, SrcMem<A>, IMM, false>>())
        }),
        _ => (Choice::plain::<Imul<T, SrcReg, IMM, true>>(), Choice::plain::<Imul<T, SrcReg, IMM, false>>()),
    };
    b.emit_choice(i, with);
    b.writes_flags(true, Some(without));
    if i.mem.is_some() {
        b.leaves();
    }
}

pub(super) fn imul2(b: &mut Builder, i: &Insn) {
    if i.op16 { imul_sized::<u16, false>(b, i) } else { imul_sized::<u32, false>(b, i) }
}

pub(super) fn imul3(b: &mut Builder, i: &Insn) {
    if i.op16 { imul_sized::<u16, true>(b, i) } else { imul_sized::<u32, true>(b, i) }
}
