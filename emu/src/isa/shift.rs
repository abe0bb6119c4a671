//! Shifts and rotates.

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::lower::{Builder, Choice, Kind, Place, by_addr, by_reg};
use super::operand::{Dest, DstMem, DstReg, Segmented};
use crate::Cpu;
use crate::cpu::flags::Flags;
use crate::cpu::regs::{Int, Reg, gpr};
use crate::dispatch::{Flow, Op, Step, Uop, quick};
use crate::exception::Result;

/// What a shift computes. The count is not zero and has been masked to five bits.
pub(super) trait Shift: 'static {
    /// All arithmetic flags are overwritten (rotates touch CF and OF only).
    const ALL_FLAGS: bool;
    /// CF is read.
    const CARRY_IN: bool = false;
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T;
}

pub(super) struct Shl;
pub(super) struct Shr;
pub(super) struct Sar;
pub(super) struct Rol;
pub(super) struct Ror;
struct Rcl;
struct Rcr;

fn top<T: Int>(v: u32) -> bool {
    v >> (T::BITS - 1) & 1 != 0
}

impl Shift for Shl {
    const ALL_FLAGS: bool = true;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T {
        let wide = u64::from(a.zext()) << count;
        if FLAGS {
            f.set_shifted_left::<T>(wide);
        }
        T::truncate(wide as u32)
    }
}

impl Shift for Shr {
    const ALL_FLAGS: bool = true;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T {
        let x = a.zext();
        let r = x >> count;
        if FLAGS {
            f.set_result(T::truncate(r), x >> (count - 1), top::<T>(r ^ (r << 1)));
        }
        T::truncate(r)
    }
}

impl Shift for Sar {
    const ALL_FLAGS: bool = true;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T {
        let x = a.sext() as i32;
        let r = (x >> count) as u32;
        if FLAGS {
            f.set_result(T::truncate(r), (x >> (count - 1)) as u32, false);
        }
        T::truncate(r)
    }
}

impl Shift for Rol {
    const ALL_FLAGS: bool = false;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T {
        let r = a.repeated().rotate_left(count);
        if FLAGS {
            f.set_cf_of(r & 1 != 0, top::<T>(r) != (r & 1 != 0));
        }
        T::truncate(r)
    }
}

impl Shift for Ror {
    const ALL_FLAGS: bool = false;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T {
        let r = a.repeated().rotate_right(count);
        if FLAGS {
            f.set_cf_of(top::<T>(r), top::<T>(r ^ (r << 1)));
        }
        T::truncate(r)
    }
}

impl Shift for Rcl {
    const ALL_FLAGS: bool = false;
    const CARRY_IN: bool = true;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T {
        // A rotate of width + 1 bits, CF on top.
        let by = count % (T::BITS + 1);
        if by == 0 {
            // The count was not zero, but the rotation is: CF stays and OF follows from it.
            let cf = f.cf();
            f.set_cf_of(cf, top::<T>(a.zext()) != cf);
            return a;
        }
        let x = u64::from(a.zext()) | u64::from(f.cf()) << T::BITS;
        let all = x << by | x >> (T::BITS + 1 - by);
        let (r, cf) = (all as u32, all >> T::BITS & 1 != 0);
        f.set_cf_of(cf, top::<T>(r) != cf);
        T::truncate(r)
    }
}

impl Shift for Rcr {
    const ALL_FLAGS: bool = false;
    const CARRY_IN: bool = true;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T {
        let by = count % (T::BITS + 1);
        let old = a.zext();
        if by == 0 {
            let cf = f.cf();
            f.set_cf_of(cf, top::<T>(old ^ (old << 1)));
            return a;
        }
        let x = u64::from(old) | u64::from(f.cf()) << T::BITS;
        let all = x >> by | x << (T::BITS + 1 - by);
        let (r, cf) = (all as u32, all >> T::BITS & 1 != 0);
        f.set_cf_of(cf, top::<T>(r ^ (r << 1)));
        T::truncate(r)
    }
}

/// By an immediate that is not zero.
pub(super) struct ByImm<O, T, D, const FLAGS: bool>(P<(O, T, D)>);

impl<O: Shift, T: Int, D: Dest, const FLAGS: bool> Op for ByImm<O, T, D, FLAGS> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        D::modify::<T, SLOW>(cpu, u, |cpu, a| {
            if SLOW {
                O::apply::<T, true>(&mut cpu.flags, a, u.imm)
            } else {
                O::apply::<T, FLAGS>(&mut cpu.flags, a, u.imm)
            }
        })?;
        Ok(Flow::Next)
    }
}

/// By CL. A count of zero changes nothing, flags included, but still accesses memory.
pub(super) struct ByCl<O, T, D, const FLAGS: bool>(P<(O, T, D)>);

impl<O: Shift, T: Int, D: Dest, const FLAGS: bool> Op for ByCl<O, T, D, FLAGS> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let count = cpu.regs.r32(gpr::ECX) & 31;
        D::modify::<T, SLOW>(cpu, u, |cpu, a| match (count, SLOW) {
            (0, _) => a,
            (_, true) => O::apply::<T, true>(&mut cpu.flags, a, count),
            (_, false) => O::apply::<T, FLAGS>(&mut cpu.flags, a, count),
        })?;
        Ok(Flow::Next)
    }
}

fn imm_pair<O: Shift, T: Int, D: Dest>() -> (Choice, Choice) {
    let run = quick::<ByImm<O, T, D, false>, ByImm<O, T, D::Plain, true>>;
    (
        Choice::of::<ByImm<O, T, D, true>, ByImm<O, T, D::Plain, true>>(),
        Choice { run, kind: Kind::of::<ByImm<O, T, D::Plain, false>>() },
    )
}

fn cl_pair<O: Shift, T: Int, D: Dest>() -> (Choice, Choice) {
    let run = quick::<ByCl<O, T, D, false>, ByCl<O, T, D, true>>;
    (Choice::plain::<ByCl<O, T, D, true>>(), Choice { run, kind: None })
}

/// Handlers that set flags and that do not, for a register by number.
type ByRegister = fn(u8) -> (Choice, Choice);

fn sized<O: Shift, T: Int>(b: &mut Builder, i: &Insn, by_register: ByRegister) {
    // RCL and RCR read CF, so they are never without flags; keeping both variants is harmless.
    let count = match i.opcode {
        0xc0 | 0xc1 => Some(i.imm & 31),
        0xd0 | 0xd1 => Some(1),
        _ => None,
    };
    let (with, without) = match (count, i.place(0)) {
        (Some(_), Place::Reg(n)) => by_register(n),
        (Some(_), _) => by_addr!(b.addr_kind(i), A => imm_pair::<O, T, DstMem<A>>()),
        (None, Place::Reg(_)) => cl_pair::<O, T, DstReg>(),
        (None, _) => cl_pair::<O, T, DstMem<Segmented>>(),
    };
    if count == Some(0) {
        zero_count::<T>(b, i);
        return;
    }
    b.emit_choice(i, with).imm = count.unwrap_or(0);
    if O::CARRY_IN {
        b.reads_flags();
    } else {
        b.writes_flags(O::ALL_FLAGS && count.is_some(), Some(without));
    }
    if i.mem.is_some() {
        b.leaves();
    }
}

/// A shift by zero: only the memory access is left of it.
fn zero_count<T: Int>(b: &mut Builder, i: &Insn) {
    fn touch<T: Int>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        cpu.probe_rm::<T>(u)
    }
    if i.mem.is_some() {
        b.call(i, touch::<T>);
    } else {
        super::mov::nop(b, i);
    }
}

fn shift<O: Shift>(b: &mut Builder, i: &Insn) {
    match i.width(0) {
        1 => sized::<O, u8>(b, i, |_| imm_pair::<O, u8, DstReg>()),
        2 => sized::<O, u16>(b, i, |_| imm_pair::<O, u16, DstReg>()),
        _ => sized::<O, u32>(b, i, |_| imm_pair::<O, u32, DstReg>()),
    }
}

/// As [`shift`], with handlers of their own for 32-bit registers.
fn common<O: Shift>(b: &mut Builder, i: &Insn) {
    if i.width(0) == 4 {
        sized::<O, u32>(b, i, |n| by_reg!(n, D => imm_pair::<O, u32, D>()));
    } else {
        shift::<O>(b, i);
    }
}

pub(super) fn shl(b: &mut Builder, i: &Insn) {
    common::<Shl>(b, i);
}
pub(super) fn shr(b: &mut Builder, i: &Insn) {
    common::<Shr>(b, i);
}
pub(super) fn sar(b: &mut Builder, i: &Insn) {
    common::<Sar>(b, i);
}
pub(super) fn rol(b: &mut Builder, i: &Insn) {
    common::<Rol>(b, i);
}
pub(super) fn ror(b: &mut Builder, i: &Insn) {
    common::<Ror>(b, i);
}
pub(super) fn rcl(b: &mut Builder, i: &Insn) {
    shift::<Rcl>(b, i);
}
pub(super) fn rcr(b: &mut Builder, i: &Insn) {
    shift::<Rcr>(b, i);
}

/// SHLD and SHRD by `count`. For 16-bit operands a count above 16 is undefined by the manuals; the
/// bits that come in are then again those of the source, as AMD's processors have it.
fn double<T: Int, const LEFT: bool>(cpu: &mut Cpu, u: &Uop, count: u32) -> Result<()> {
    let count = count & 31;
    cpu.probe_rm::<T>(u)?;
    if count == 0 {
        return Ok(());
    }
    let (a, b) = (u64::from(cpu.get_rm::<T>(u)?.zext()), u64::from(cpu.regs.get::<T>(u.src).zext()));
    let n = T::BITS;
    let (r, cf) = if LEFT {
        let x = if n == 16 { a << 32 | b << 16 | b } else { a << 32 | b };
        let shifted = u128::from(x) << count;
        ((shifted >> 32) as u32, shifted >> (32 + n) & 1 != 0)
    } else {
        let x = if n == 16 { b << 32 | b << 16 | a } else { b << 32 | a };
        ((x >> count) as u32, x >> (count - 1) & 1 != 0)
    };
    let r = T::truncate(r);
    cpu.set_rm(u, r)?;
    // Counts past the width lose the carry; to the left OF no longer sees the result's sign.
    let cf = cf && count <= n;
    let of =
        if LEFT { cf != (count < n && top::<T>(r.zext())) } else { top::<T>(r.zext() ^ (r.zext() << 1)) };
    cpu.flags.set_result(r, cf.into(), of);
    Ok(())
}

fn double_by<T: Int, const LEFT: bool>(b: &mut Builder, i: &Insn) {
    if i.opcode & 1 == 0 {
        b.call(i, |cpu: &mut Cpu, u: &Uop| double::<T, LEFT>(cpu, u, u.imm));
    } else {
        b.call(i, |cpu: &mut Cpu, u: &Uop| {
            let count = cpu.regs.get::<u8>(Reg::byte(gpr::ECX));
            double::<T, LEFT>(cpu, u, count.into())
        });
    }
}

pub(super) fn shld(b: &mut Builder, i: &Insn) {
    if i.op16 { double_by::<u16, true>(b, i) } else { double_by::<u32, true>(b, i) }
}

pub(super) fn shrd(b: &mut Builder, i: &Insn) {
    if i.op16 { double_by::<u16, false>(b, i) } else { double_by::<u32, false>(b, i) }
}
