//! Bit tests, bit scans, byte swaps.

use std::marker::PhantomData as P;

use super::alu::fuse_op;
use super::decode::Insn;
use super::lower::{Builder, Choice, Place, by_addr, by_reg};
use super::operand::{Dest, DstMem, DstReg, Segmented, Source, SrcImm, SrcMem, SrcReg};
use crate::Cpu;
use crate::cpu::regs::Int;
use crate::dispatch::{Flow, Op, Step, Uop};
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

/// A value whose bit has been tested.
#[inline(always)]
fn changed<T: Int, const CHANGE: u8>(v: T, bit: u32) -> T {
    let (v, mask) = (v.zext(), 1 << bit);
    T::truncate(match CHANGE {
        NONE => v,
        SET => v | mask,
        RESET => v & !mask,
        _ => v ^ mask,
    })
}

/// BT, BTS, BTR, BTC. The bit's number is taken modulo the operand size. Flags but CF stay.
struct Test<T, D, S, const CHANGE: u8, const FLAGS: bool>(P<(T, D, S)>);

impl<T: Int, D: Dest, S: Source, const CHANGE: u8, const FLAGS: bool> Op for Test<T, D, S, CHANGE, FLAGS> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let bit = S::get::<T, SLOW>(cpu, u)?.zext() % T::BITS;
        let test = |cpu: &mut Cpu, v: T| {
            if FLAGS || SLOW {
                cpu.flags.set_cf(v.zext() >> bit & 1 != 0);
            }
            changed::<T, CHANGE>(v, bit)
        };
        if CHANGE == NONE {
            let v = D::get::<T, SLOW>(cpu, u)?;
            test(cpu, v);
        } else {
            D::modify::<T, SLOW>(cpu, u, test)?;
        }
        Ok(Flow::Next)
    }
}

/// The same of memory with a bit number from a register: a bit string that reaches 2 GiB either way.
fn test_string<T: Int, const CHANGE: u8>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let number = cpu.regs.get::<T>(u.src).sext();
    let bit = number % T::BITS;
    let unit = ((number as i32) >> T::BITS.trailing_zeros()) as u32;
    let offset = cpu.wrap_offset(u, unit.wrapping_mul(T::BYTES));
    let at = cpu.check_segment(u.form & 7, offset, T::BYTES, CHANGE != NONE)?;
    if CHANGE != NONE {
        cpu.probe_write(at, T::BYTES)?;
    }
    let old = cpu.read::<T>(at)?;
    if CHANGE != NONE {
        cpu.write(at, changed::<T, CHANGE>(old, bit))?;
    }
    cpu.flags.set_cf(old.zext() >> bit & 1 != 0);
    Ok(())
}

fn tests<T: Int, D: Dest, S: Source, const CHANGE: u8>() -> (Choice, Choice) {
    Choice::pair::<
        Test<T, D, S, CHANGE, true>,
        Test<T, D, S, CHANGE, false>,
        Test<T, D::Plain, S::Plain, CHANGE, true>,
    >()
}

fn lower<const CHANGE: u8>(b: &mut Builder, i: &Insn) {
    let kind = b.addr_kind(i);
    let (with, without) = match (i.op16, i.place(0), i.place(1)) {
        (false, Place::Reg(d), Place::Imm) => by_reg!(d, D => tests::<u32, D, SrcImm, CHANGE>()),
        (false, Place::Reg(d), _) => by_reg!(d, D => tests::<u32, D, SrcReg, CHANGE>()),
        (false, _, Place::Imm) => by_addr!(kind, A => tests::<u32, DstMem<A>, SrcImm, CHANGE>()),
        (true, Place::Reg(_), Place::Imm) => tests::<u16, DstReg, SrcImm, CHANGE>(),
        (true, Place::Reg(_), _) => tests::<u16, DstReg, SrcReg, CHANGE>(),
        (true, _, Place::Imm) => tests::<u16, DstMem<Segmented>, SrcImm, CHANGE>(),
        (op16, ..) => {
            if op16 {
                b.call(i, test_string::<u16, CHANGE>)
            } else {
                b.call(i, test_string::<u32, CHANGE>)
            };
            return;
        }
    };
    b.emit_choice(i, with);
    b.writes_flags(false, Some(without));
    if i.mem.is_some() {
        b.leaves();
    }
    match (i.op16, i.place(0), i.place(1)) {
        (false, Place::Reg(_), Place::Imm) if CHANGE == NONE => {
            b.fusable(Some(fuse_op::<Test<u32, DstReg, SrcImm, NONE, true>>));
        }
        (false, Place::Reg(_), Place::Reg(_)) if CHANGE == NONE => {
            b.fusable(Some(fuse_op::<Test<u32, DstReg, SrcReg, NONE, true>>));
        }
        _ => {}
    }
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
struct Scan<T, D, S, const REVERSE: bool, const FLAGS: bool>(P<(T, D, S)>);

impl<T: Int, D: Dest, S: Source, const REVERSE: bool, const FLAGS: bool> Op
    for Scan<T, D, S, REVERSE, FLAGS>
{
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let v = S::get::<T, SLOW>(cpu, u)?;
        if FLAGS || SLOW {
            cpu.flags.set_logic(v);
        }
        if v.zext() != 0 {
            let n = if REVERSE { 31 - v.zext().leading_zeros() } else { v.zext().trailing_zeros() };
            D::set::<T, SLOW>(cpu, u, T::truncate(n))?;
        }
        Ok(Flow::Next)
    }
}

fn scans<T: Int, D: Dest, S: Source, const REVERSE: bool>() -> (Choice, Choice) {
    Choice::pair::<
        Scan<T, D, S, REVERSE, true>,
        Scan<T, D, S, REVERSE, false>,
        Scan<T, D::Plain, S::Plain, REVERSE, true>,
    >()
}

fn scan<const REVERSE: bool>(b: &mut Builder, i: &Insn) {
    let (with, without) = match (i.op16, i.place(1)) {
        (false, Place::Mem) => by_addr!(b.addr_kind(i), A => scans::<u32, DstReg, SrcMem<A>, REVERSE>()),
        (false, _) => by_reg!(i.reg(), D => scans::<u32, D, SrcReg, REVERSE>()),
        (true, Place::Mem) => scans::<u16, DstReg, SrcMem<Segmented>, REVERSE>(),
        (true, _) => scans::<u16, DstReg, SrcReg, REVERSE>(),
    };
    b.emit_choice(i, with);
    b.writes_flags(true, Some(without));
    if i.mem.is_some() {
        b.leaves();
    }
}

pub(super) fn bsf(b: &mut Builder, i: &Insn) {
    scan::<false>(b, i);
}
pub(super) fn bsr(b: &mut Builder, i: &Insn) {
    scan::<true>(b, i);
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
struct Bswap<T, D>(P<(T, D)>);

impl<T: Int, D: Dest> Op for Bswap<T, D> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        // The bytes of a word are then in the upper half, which is cut off.
        D::modify::<T, SLOW>(cpu, u, |_, v| T::truncate(v.zext().swap_bytes()))?;
        Ok(Flow::Next)
    }
}

fn swaps<T: Int, D: Dest>() -> Choice {
    Choice::of::<Bswap<T, D>, Bswap<T, D::Plain>>()
}

pub(super) fn bswap(b: &mut Builder, i: &Insn) {
    let run = match i.place(0) {
        Place::Reg(n) if !i.op16 => by_reg!(n, D => swaps::<u32, D>()),
        _ => swaps::<u16, DstReg>(),
    };
    b.emit_choice(i, run);
}
