//! Multiplication and division.

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::lower::{Builder, Choice, Place, by_addr, by_operand, by_reg};
use super::operand::{Dest, DstReg, Segmented, Source, SrcMem, SrcReg};
use crate::Cpu;
use crate::cpu::regs::{Int, Reg, gpr};
use crate::dispatch::{Flow, Op, Step, Uop};
use crate::exception::Exception;

const EAX: Reg = Reg::dword(gpr::EAX);
const EDX: Reg = Reg::dword(gpr::EDX);

/// The accumulator pair as one value: AX, DX:AX or EDX:EAX.
#[inline(always)]
fn dividend<T: Int>(cpu: &Cpu) -> u64 {
    if T::BITS == 8 {
        return cpu.regs.get::<u16>(EAX).into();
    }
    u64::from(cpu.regs.get::<T>(EDX).zext()) << T::BITS | u64::from(cpu.regs.get::<T>(EAX).zext())
}

/// Stores a low and a high part into the accumulator pair.
#[inline(always)]
fn set_pair<T: Int>(cpu: &mut Cpu, low: T, high: T) {
    if T::BITS == 8 {
        // At once, for AX is what is read next.
        cpu.regs.set(EAX, (high.zext() << 8 | low.zext()) as u16);
        return;
    }
    cpu.regs.set(EAX, low);
    cpu.regs.set(EDX, high);
}

/// MUL, and IMUL of one operand. It is the first of the instruction, so it is where others have a destination.
struct Multiply<T, D, const SIGNED: bool, const FLAGS: bool>(P<(T, D)>);

impl<T: Int, D: Dest, const SIGNED: bool, const FLAGS: bool> Op for Multiply<T, D, SIGNED, FLAGS> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let b = D::get::<T, SLOW>(cpu, u)?;
        let a = cpu.regs.get::<T>(EAX);
        let product = if SIGNED {
            (i64::from(a.sext() as i32) * i64::from(b.sext() as i32)) as u64
        } else {
            u64::from(a.zext()) * u64::from(b.zext())
        };
        let (low, high) = (T::truncate(product as u32), T::truncate((product >> T::BITS) as u32));
        set_pair(cpu, low, high);
        if FLAGS || SLOW {
            let over =
                if SIGNED { high.sext() != (low.sext() as i32 >> 31) as u32 } else { high.zext() != 0 };
            cpu.flags.set_result(low, over.into(), over);
        }
        Ok(Flow::Next)
    }
}

/// DIV and IDIV. The flags that they leave undefined stay.
struct Divide<T, D, const SIGNED: bool>(P<(T, D)>);

impl<T: Int, D: Dest, const SIGNED: bool> Op for Divide<T, D, SIGNED> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let b = D::get::<T, SLOW>(cpu, u)?;
        let Some((q, r)) = quotient::<T, SIGNED>(dividend::<T>(cpu), b) else {
            return Err(cpu.stop(Exception::DIVIDE_ERROR));
        };
        set_pair(cpu, q, r);
        Ok(Flow::Next)
    }
}

/// Quotient and remainder of a value of twice the width, if there is a quotient and it fits.
#[inline(always)]
fn quotient<T: Int, const SIGNED: bool>(a: u64, b: T) -> Option<(T, T)> {
    let (q, r, fits) = if SIGNED {
        let shift = 64 - 2 * T::BITS;
        let (a, b) = ((a << shift) as i64 >> shift, i64::from(b.sext() as i32));
        // The one quotient that overflows 64 bits is out of range as well.
        let q = a.checked_div(b)?;
        (q as u64, (a % b) as u64, i64::from(T::truncate(q as u32).sext() as i32) == q)
    } else {
        let b = u64::from(b.zext());
        let q = a.checked_div(b)?;
        (q, a % b, q >> T::BITS == 0)
    };
    fits.then_some((T::truncate(q as u32), T::truncate(r as u32)))
}

/// The last uop writes the accumulator pair.
fn writes_pair(b: &mut Builder, i: &Insn) {
    b.writes(gpr::EAX);
    if i.width(0) != 1 {
        b.writes(gpr::EDX);
    }
}

fn products<T: Int, D: Dest, const SIGNED: bool>() -> (Choice, Choice) {
    Choice::pair::<
        Multiply<T, D, SIGNED, true>,
        Multiply<T, D, SIGNED, false>,
        Multiply<T, D::Plain, SIGNED, true>,
    >()
}

fn multiply<const SIGNED: bool>(b: &mut Builder, i: &Insn) {
    let (with, without) = by_operand!(b, i, (T, D) => products::<T, D, SIGNED>());
    b.emit_choice(i, with);
    b.writes_flags(true, Some(without));
    writes_pair(b, i);
    if i.mem.is_some() {
        b.leaves();
    }
}

fn divide<const SIGNED: bool>(b: &mut Builder, i: &Insn) {
    let run = by_operand!(b, i, (T, D) => quotients::<T, D, SIGNED>());
    b.emit_choice(i, run);
    writes_pair(b, i);
    b.leaves();
}

fn quotients<T: Int, D: Dest, const SIGNED: bool>() -> Choice {
    Choice::of::<Divide<T, D, SIGNED>, Divide<T, D::Plain, SIGNED>>()
}

pub(super) fn mul(b: &mut Builder, i: &Insn) {
    multiply::<false>(b, i);
}
pub(super) fn imul(b: &mut Builder, i: &Insn) {
    multiply::<true>(b, i);
}
pub(super) fn div(b: &mut Builder, i: &Insn) {
    divide::<false>(b, i);
}
pub(super) fn idiv(b: &mut Builder, i: &Insn) {
    divide::<true>(b, i);
}

/// IMUL with an explicit destination: by `dst` itself, or by the immediate.
pub(super) struct Imul<T, D, S, const IMM: bool, const FLAGS: bool>(P<(T, D, S)>);

impl<T: Int, D: Dest, S: Source, const IMM: bool, const FLAGS: bool> Op for Imul<T, D, S, IMM, FLAGS> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let b = S::get::<T, SLOW>(cpu, u)?;
        let a = if IMM { T::truncate(u.imm) } else { D::get::<T, SLOW>(cpu, u)? };
        let product = i64::from(a.sext() as i32) * i64::from(b.sext() as i32);
        let r = T::truncate(product as u32);
        if FLAGS || SLOW {
            let over = i64::from(r.sext() as i32) != product;
            cpu.flags.set_result(r, over.into(), over);
        }
        D::set::<T, SLOW>(cpu, u, r)?;
        Ok(Flow::Next)
    }
}

fn imul_pair<T: Int, D: Dest, S: Source, const IMM: bool>() -> (Choice, Choice) {
    Choice::pair::<Imul<T, D, S, IMM, true>, Imul<T, D, S, IMM, false>, Imul<T, D::Plain, S::Plain, IMM, true>>(
    )
}

fn imul_emit(b: &mut Builder, i: &Insn, (with, without): (Choice, Choice)) {
    b.emit_choice(i, with);
    b.writes_flags(true, Some(without));
    if i.mem.is_some() {
        b.leaves();
    }
}

pub(super) fn imul2(b: &mut Builder, i: &Insn) {
    let (d, kind) = (i.reg(), b.addr_kind(i));
    let pair = match (i.op16, i.place(1)) {
        (false, Place::Reg(s)) => by_reg!(d, D => by_reg!(s, S => imul_pair::<u32, D, S, false>())),
        (false, _) => by_addr!(kind, A => imul_pair::<u32, DstReg, SrcMem<A>, false>()),
        (true, Place::Reg(_)) => imul_pair::<u16, DstReg, SrcReg, false>(),
        (true, _) => imul_pair::<u16, DstReg, SrcMem<Segmented>, false>(),
    };
    imul_emit(b, i, pair);
}

pub(super) fn imul3(b: &mut Builder, i: &Insn) {
    let (d, kind) = (i.reg(), b.addr_kind(i));
    let pair = match (i.op16, i.place(1)) {
        (false, Place::Reg(s)) if s == d => by_reg!(d, D => imul_pair::<u32, D, D, true>()),
        (false, Place::Reg(_)) => by_reg!(d, D => imul_pair::<u32, D, SrcReg, true>()),
        (false, _) => by_addr!(kind, A => imul_pair::<u32, DstReg, SrcMem<A>, true>()),
        (true, Place::Reg(_)) => imul_pair::<u16, DstReg, SrcReg, true>(),
        (true, _) => imul_pair::<u16, DstReg, SrcMem<Segmented>, true>(),
    };
    imul_emit(b, i, pair);
}
