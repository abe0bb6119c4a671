//! Shifts and rotates.

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::lower::{Builder, Choice, Kind, Place, by_addr, by_reg};
use super::operand::{Dest, DstMem, DstReg, Segmented};
use crate::Cpu;
use crate::cpu::flags::Flags;
use crate::cpu::regs::{Int, gpr};
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

/// What RCL and RCR rotate: the operand with CF on top.
#[inline(always)]
fn with_carry<T: Int>(f: &Flags, a: T) -> u64 {
    u64::from(a.zext()) | u64::from(f.cf()) << T::BITS
}

/// By how many bits, of one more than the operand has. No count is as much as 33.
#[inline(always)]
fn turns<T: Int>(count: u32) -> u32 {
    if T::BITS == 32 { count } else { count % (T::BITS + 1) }
}

impl Shift for Rcl {
    const ALL_FLAGS: bool = false;
    const CARRY_IN: bool = true;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T {
        let x = with_carry(f, a);
        // If the count was not zero, but the rotation is, CF stays and OF follows from it.
        let by = turns::<T>(count);
        let all = x << by | x >> (T::BITS + 1 - by);
        let (r, cf) = (all as u32, all >> T::BITS & 1 != 0);
        if FLAGS {
            f.set_cf_of(cf, top::<T>(r) != cf);
        }
        T::truncate(r)
    }
}

impl Shift for Rcr {
    const ALL_FLAGS: bool = false;
    const CARRY_IN: bool = true;
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, count: u32) -> T {
        let x = with_carry(f, a);
        let by = turns::<T>(count);
        let all = x >> by | x << (T::BITS + 1 - by);
        let (r, cf) = (all as u32, all >> T::BITS & 1 != 0);
        if FLAGS {
            f.set_cf_of(cf, top::<T>(r ^ (r << 1)));
        }
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
    Choice::pair::<ByCl<O, T, D, true>, ByCl<O, T, D, false>, ByCl<O, T, D::Plain, true>>()
}

/// Handlers that set flags and that do not.
type Pair = (Choice, Choice);

/// Handlers for a register by number, by CL or by an immediate.
type ForRegister = fn(number: u8, by_cl: bool) -> Pair;

fn register<O: Shift, T: Int, D: Dest>(by_cl: bool) -> Pair {
    if by_cl { cl_pair::<O, T, D>() } else { imm_pair::<O, T, D>() }
}

/// The count of an instruction, if it is not in CL.
fn immediate(i: &Insn) -> Option<u32> {
    match i.opcode {
        0xd0 | 0xd1 => Some(1),
        0xd2 | 0xd3 => None,
        _ => Some(i.imm & 31),
    }
}

fn sized<O: Shift, T: Int>(b: &mut Builder, i: &Insn, for_register: ForRegister) {
    let count = immediate(i);
    let pair = match (i.place(0), count) {
        (Place::Reg(n), _) => for_register(n, count.is_none()),
        (_, Some(_)) => by_addr!(b.addr_kind(i), A => imm_pair::<O, T, DstMem<A>>()),
        (_, None) => cl_pair::<O, T, DstMem<Segmented>>(),
    };
    emit::<T>(b, i, count, O::ALL_FLAGS, pair);
    if O::CARRY_IN && count != Some(0) {
        b.reads_flags();
    }
}

/// Emits a shift by a count, or by CL, that overwrites `all_flags` or some.
fn emit<T: Int>(b: &mut Builder, i: &Insn, count: Option<u32>, all_flags: bool, (with, without): Pair) {
    if count == Some(0) {
        zero_count::<T>(b, i);
        return;
    }
    b.emit_choice(i, with).imm = count.unwrap_or(0);
    // CL may be zero, and then no flag is written.
    b.writes_flags(all_flags && count.is_some(), Some(without));
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
        1 => sized::<O, u8>(b, i, |_, by_cl| register::<O, u8, DstReg>(by_cl)),
        2 => sized::<O, u16>(b, i, |_, by_cl| register::<O, u16, DstReg>(by_cl)),
        _ => sized::<O, u32>(b, i, |n, by_cl| by_reg!(n, D => register::<O, u32, D>(by_cl))),
    }
}

pub(super) fn shl(b: &mut Builder, i: &Insn) {
    shift::<Shl>(b, i);
}
pub(super) fn shr(b: &mut Builder, i: &Insn) {
    shift::<Shr>(b, i);
}
pub(super) fn sar(b: &mut Builder, i: &Insn) {
    shift::<Sar>(b, i);
}
pub(super) fn rol(b: &mut Builder, i: &Insn) {
    shift::<Rol>(b, i);
}
pub(super) fn ror(b: &mut Builder, i: &Insn) {
    shift::<Ror>(b, i);
}
pub(super) fn rcl(b: &mut Builder, i: &Insn) {
    shift::<Rcl>(b, i);
}
pub(super) fn rcr(b: &mut Builder, i: &Insn) {
    shift::<Rcr>(b, i);
}

/// SHLD and SHRD by a count that is not zero and has been masked to five bits. For 16-bit operands one above 16 is
/// undefined by the manuals; the bits that come in are then again those of the source, as AMD's processors have it.
#[inline(always)]
fn double<T: Int, const LEFT: bool, const FLAGS: bool>(f: &mut Flags, a: T, b: T, count: u32) -> T {
    let (a, b, n) = (u64::from(a.zext()), u64::from(b.zext()), T::BITS);
    let (r, carried) = if LEFT {
        let x = if n == 16 { a << 32 | b << 16 | b } else { a << 32 | b };
        (x << count >> 32, x >> (32 + n - count))
    } else {
        let x = if n == 16 { b << 32 | b << 16 | a } else { b << 32 | a };
        (x >> count, x >> (count - 1))
    };
    let r = T::truncate(r as u32);
    if FLAGS {
        // Counts past the width lose the carry; to the left OF no longer sees the result's sign.
        let cf = carried & 1 != 0 && count <= n;
        let of =
            if LEFT { cf != (count < n && top::<T>(r.zext())) } else { top::<T>(r.zext() ^ (r.zext() << 1)) };
        f.set_result(r, cf.into(), of);
    }
    r
}

/// SHLD and SHRD by an immediate that is not zero, or by CL.
struct Double<T, D, const LEFT: bool, const BY_CL: bool, const FLAGS: bool>(P<(T, D)>);

impl<T: Int, D: Dest, const LEFT: bool, const BY_CL: bool, const FLAGS: bool> Op
    for Double<T, D, LEFT, BY_CL, FLAGS>
{
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let count = if BY_CL { cpu.regs.r32(gpr::ECX) & 31 } else { u.imm };
        let b = cpu.regs.get::<T>(u.src);
        D::modify::<T, SLOW>(cpu, u, |cpu, a| {
            if BY_CL && count == 0 {
                a
            } else if SLOW {
                double::<T, LEFT, true>(&mut cpu.flags, a, b, count)
            } else {
                double::<T, LEFT, FLAGS>(&mut cpu.flags, a, b, count)
            }
        })?;
        Ok(Flow::Next)
    }
}

fn double_pair<T: Int, D: Dest, const LEFT: bool, const BY_CL: bool>() -> Pair {
    Choice::pair::<
        Double<T, D, LEFT, BY_CL, true>,
        Double<T, D, LEFT, BY_CL, false>,
        Double<T, D::Plain, LEFT, BY_CL, true>,
    >()
}

fn double_by<const LEFT: bool, const BY_CL: bool>(b: &mut Builder, i: &Insn) {
    let count = (!BY_CL).then_some(i.imm & 31);
    match (i.op16, i.place(0)) {
        (false, Place::Reg(n)) => {
            emit::<u32>(b, i, count, true, by_reg!(n, D => double_pair::<u32, D, LEFT, BY_CL>()));
        }
        (false, _) => emit::<u32>(b, i, count, true, double_pair::<u32, DstMem<Segmented>, LEFT, BY_CL>()),
        (true, Place::Reg(_)) => emit::<u16>(b, i, count, true, double_pair::<u16, DstReg, LEFT, BY_CL>()),
        (true, _) => emit::<u16>(b, i, count, true, double_pair::<u16, DstMem<Segmented>, LEFT, BY_CL>()),
    }
}

fn by_opcode<const LEFT: bool>(b: &mut Builder, i: &Insn) {
    if i.opcode & 1 == 0 { double_by::<LEFT, false>(b, i) } else { double_by::<LEFT, true>(b, i) }
}

pub(super) fn shld(b: &mut Builder, i: &Insn) {
    by_opcode::<true>(b, i);
}
pub(super) fn shrd(b: &mut Builder, i: &Insn) {
    by_opcode::<false>(b, i);
}
