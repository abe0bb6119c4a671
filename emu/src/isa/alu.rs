//! Two- and one-operand integer arithmetic and logic.

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::lower::{Builder, Place, by_addr};
use super::operand::{Dest, DstMem, DstReg, Source, SrcImm, SrcMem, SrcReg};
use crate::Cpu;
use crate::cpu::flags::Flags;
use crate::cpu::regs::Int;
use crate::dispatch::{Flow, Handler, Op, Step, Uop, step};

/// What an instruction computes from two operands.
trait Alu: 'static {
    /// It reads CF.
    const CARRY_IN: bool = false;
    /// The destination is written.
    const WRITES: bool = true;
    /// The result; sets flags if `FLAGS`.
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, b: T) -> T;
}

#[inline(always)]
fn add_with<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, b: T, carry: u32) -> T {
    let (x, y) = (a.zext(), b.zext());
    let r = x.wrapping_add(y).wrapping_add(carry);
    if FLAGS {
        let carries = (x & y) | ((x | y) & !r);
        f.set_carries(T::truncate(r), T::truncate(carries));
    }
    T::truncate(r)
}

#[inline(always)]
fn sub_with<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, b: T, borrow: u32) -> T {
    let (x, y) = (a.zext(), b.zext());
    let r = x.wrapping_sub(y).wrapping_sub(borrow);
    if FLAGS {
        let borrows = (!x & y) | ((!x | y) & r);
        f.set_carries(T::truncate(r), T::truncate(borrows));
    }
    T::truncate(r)
}

#[inline(always)]
fn logic<T: Int, const FLAGS: bool>(f: &mut Flags, r: u32) -> T {
    let r = T::truncate(r);
    if FLAGS {
        f.set_logic(r);
    }
    r
}

macro_rules! alu {
    ($name:ident, $carry:expr, $writes:expr, |$f:ident, $a:ident, $b:ident| $e:expr) => {
        struct $name;
        impl Alu for $name {
            const CARRY_IN: bool = $carry;
            const WRITES: bool = $writes;
            #[inline(always)]
            fn apply<T: Int, const FLAGS: bool>($f: &mut Flags, $a: T, $b: T) -> T {
                $e
            }
        }
    };
}

alu!(Add, false, true, |f, a, b| add_with::<T, FLAGS>(f, a, b, 0));
alu!(Adc, true, true, |f, a, b| {
    let carry = f.cf().into();
    add_with::<T, FLAGS>(f, a, b, carry)
});
alu!(Sub, false, true, |f, a, b| sub_with::<T, FLAGS>(f, a, b, 0));
alu!(Sbb, true, true, |f, a, b| {
    let borrow = f.cf().into();
    sub_with::<T, FLAGS>(f, a, b, borrow)
});
alu!(Cmp, false, false, |f, a, b| sub_with::<T, FLAGS>(f, a, b, 0));
alu!(And, false, true, |f, a, b| logic::<T, FLAGS>(f, a.zext() & b.zext()));
alu!(Or, false, true, |f, a, b| logic::<T, FLAGS>(f, a.zext() | b.zext()));
alu!(Xor, false, true, |f, a, b| logic::<T, FLAGS>(f, a.zext() ^ b.zext()));
alu!(Test, false, false, |f, a, b| logic::<T, FLAGS>(f, a.zext() & b.zext()));

/// `O` on a destination and a source.
struct Two<O, T, D, S, const FLAGS: bool>(P<(O, T, D, S)>);

impl<O: Alu, T: Int, D: Dest, S: Source, const FLAGS: bool> Op for Two<O, T, D, S, FLAGS> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let b = S::get::<T, SLOW>(cpu, u)?;
        // The slow path may end in an exit, where all flags must be right.
        let apply = |cpu: &mut Cpu, a: T| {
            if SLOW {
                O::apply::<T, true>(&mut cpu.flags, a, b)
            } else {
                O::apply::<T, FLAGS>(&mut cpu.flags, a, b)
            }
        };
        if O::WRITES {
            D::modify::<T, SLOW>(cpu, u, apply)?;
        } else {
            let a = D::get::<T, SLOW>(cpu, u)?;
            apply(cpu, a);
        }
        Ok(Flow::Next)
    }
}

fn pair<O: Alu, T: Int, D: Dest, S: Source>() -> (Handler, Handler) {
    (step::<Two<O, T, D, S, true>>, step::<Two<O, T, D, S, false>>)
}

fn two_sized<O: Alu, T: Int>(b: &mut Builder, i: &Insn) {
    let kind = b.addr_kind(i);
    let (with, without) = match (i.place(0), i.place(1)) {
        (Place::Mem, Place::Imm) => by_addr!(kind, A => pair::<O, T, DstMem<A>, SrcImm>()),
        (Place::Mem, _) => by_addr!(kind, A => pair::<O, T, DstMem<A>, SrcReg>()),
        (_, Place::Mem) => by_addr!(kind, A => pair::<O, T, DstReg, SrcMem<A>>()),
        (_, Place::Imm) => pair::<O, T, DstReg, SrcImm>(),
        _ => pair::<O, T, DstReg, SrcReg>(),
    };
    b.emit(i, with);
    finish::<O>(b, i, without);
}

fn finish<O: Alu>(b: &mut Builder, i: &Insn, without: Handler) {
    b.writes_flags(true, Some(without));
    if O::CARRY_IN || i.mem.is_some() {
        b.reads_flags();
    }
}

fn two<O: Alu>(b: &mut Builder, i: &Insn) {
    match i.width(0) {
        1 => two_sized::<O, u8>(b, i),
        2 => two_sized::<O, u16>(b, i),
        _ => two_sized::<O, u32>(b, i),
    }
}

pub(super) fn add(b: &mut Builder, i: &Insn) {
    two::<Add>(b, i);
}
pub(super) fn or(b: &mut Builder, i: &Insn) {
    two::<Or>(b, i);
}
pub(super) fn adc(b: &mut Builder, i: &Insn) {
    two::<Adc>(b, i);
}
pub(super) fn sbb(b: &mut Builder, i: &Insn) {
    two::<Sbb>(b, i);
}
pub(super) fn and(b: &mut Builder, i: &Insn) {
    two::<And>(b, i);
}
pub(super) fn sub(b: &mut Builder, i: &Insn) {
    two::<Sub>(b, i);
}
pub(super) fn xor(b: &mut Builder, i: &Insn) {
    two::<Xor>(b, i);
}
pub(super) fn cmp(b: &mut Builder, i: &Insn) {
    two::<Cmp>(b, i);
}
pub(super) fn test(b: &mut Builder, i: &Insn) {
    two::<Test>(b, i);
}

/// What an instruction computes from one operand.
trait Unary: 'static {
    /// All arithmetic flags are overwritten.
    const ALL_FLAGS: bool;
    /// Some flags are written.
    const FLAGS: bool = true;
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T) -> T;
}

struct Inc;
struct Dec;
struct Neg;
struct Not;

impl Unary for Inc {
    const ALL_FLAGS: bool = false;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T) -> T {
        let r = a.zext().wrapping_add(1);
        if FLAGS {
            f.set_carries_keep_cf(T::truncate(r), T::truncate(a.zext() & !r));
        }
        T::truncate(r)
    }
}

impl Unary for Dec {
    const ALL_FLAGS: bool = false;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T) -> T {
        let r = a.zext().wrapping_sub(1);
        if FLAGS {
            // Borrows: from a zero bit on, up to the lowest one.
            f.set_carries_keep_cf(T::truncate(r), T::truncate(!a.zext() & r));
        }
        T::truncate(r)
    }
}

impl Unary for Neg {
    const ALL_FLAGS: bool = true;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T) -> T {
        sub_with::<T, FLAGS>(f, T::truncate(0), a, 0)
    }
}

impl Unary for Not {
    const ALL_FLAGS: bool = false;
    const FLAGS: bool = false;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(_: &mut Flags, a: T) -> T {
        T::truncate(!a.zext())
    }
}

struct One<O, T, D, const FLAGS: bool>(P<(O, T, D)>);

impl<O: Unary, T: Int, D: Dest, const FLAGS: bool> Op for One<O, T, D, FLAGS> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        D::modify::<T, SLOW>(cpu, u, |cpu, a| {
            if SLOW {
                O::apply::<T, true>(&mut cpu.flags, a)
            } else {
                O::apply::<T, FLAGS>(&mut cpu.flags, a)
            }
        })?;
        Ok(Flow::Next)
    }
}

fn one_pair<O: Unary, T: Int, D: Dest>() -> (Handler, Handler) {
    (step::<One<O, T, D, true>>, step::<One<O, T, D, false>>)
}

fn one_sized<O: Unary, T: Int>(b: &mut Builder, i: &Insn) {
    let kind = b.addr_kind(i);
    let (with, without) = match i.place(0) {
        Place::Mem => by_addr!(kind, A => one_pair::<O, T, DstMem<A>>()),
        _ => one_pair::<O, T, DstReg>(),
    };
    b.emit(i, with);
    if O::FLAGS {
        b.writes_flags(O::ALL_FLAGS, Some(without));
    }
    if i.mem.is_some() {
        b.barrier();
    }
}

fn one<O: Unary>(b: &mut Builder, i: &Insn) {
    match i.width(0) {
        1 => one_sized::<O, u8>(b, i),
        2 => one_sized::<O, u16>(b, i),
        _ => one_sized::<O, u32>(b, i),
    }
}

pub(super) fn inc(b: &mut Builder, i: &Insn) {
    one::<Inc>(b, i);
}
pub(super) fn dec(b: &mut Builder, i: &Insn) {
    one::<Dec>(b, i);
}
pub(super) fn neg(b: &mut Builder, i: &Insn) {
    one::<Neg>(b, i);
}
pub(super) fn not(b: &mut Builder, i: &Insn) {
    one::<Not>(b, i);
}
