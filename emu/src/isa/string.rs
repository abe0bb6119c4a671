//! String instructions.
//!
//! A repeated one ends its block. It works through whole pages at a time and can stop between two
//! elements, with its progress in the registers and EIP still on it, when an interrupt waits or it
//! has run long enough.

use std::marker::PhantomData as P;

use super::decode::{Insn, Rep};
use super::lower::{Builder, Choice};
use super::port;
use crate::Cpu;
use crate::cpu::SegName;
use crate::cpu::flags::{DF, RF};
use crate::cpu::regs::{Int, Reg, gpr};
use crate::dispatch::{Flow, Op, Step, Stop, Uop, step};
use crate::exception::Result;

/// Elements after which a repeated instruction lets the driver look around.
const MOST_ELEMENTS: u32 = 1 << 16;

const ES: u8 = SegName::ES as u8;

/// One string instruction: what an element is, and perhaps how to do many at once.
pub(super) trait Element: 'static {
    /// REPE and REPNE end at an unequal or equal element.
    const COMPARES: bool = false;
    /// What is checked even if the count is zero.
    fn check(_: &mut Cpu) -> Result<()> {
        Ok(())
    }
    /// One element.
    fn one(cpu: &mut Cpu, u: &Uop) -> Result<()>;
    /// There is a way for what the TLB has.
    const QUICK: bool = true;
    /// One element that way, or nothing.
    fn quick(_: &mut Cpu, _: &Uop) -> core::result::Result<(), Stop> {
        Err(Stop::Slow)
    }
    /// Up to `count` elements at once, `count` not 0; how many it did, 0 if it cannot. What compares stops
    /// after the first element that ends the repetition.
    fn many(_: &mut Cpu, _: &Uop, _count: u32, _: Until) -> u32 {
        0
    }
}

/// Repetition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The count is spent.
    Count,
    /// ... or ZF is clear (REPE).
    Unequal,
    /// ... or ZF is set (REPNE).
    Equal,
}

const COUNT: u8 = Until::Count as u8;
const UNEQUAL: u8 = Until::Unequal as u8;
const EQUAL: u8 = Until::Equal as u8;

/// The constants as what they stand for.
const fn until(constant: u8) -> Until {
    match constant {
        UNEQUAL => Until::Unequal,
        EQUAL => Until::Equal,
        _ => Until::Count,
    }
}

/// Without repetition.
pub(super) struct Once<E>(P<E>);

impl<E: Element> Op for Once<E> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        if SLOW {
            E::one(cpu, u).map_err(|e| cpu.stop(e))?
        } else {
            E::quick(cpu, u)?
        }
        Ok(Flow::Next)
    }
}

struct Repeated<E, const UNTIL: u8>(P<E>);

impl<E: Element, const UNTIL: u8> Op for Repeated<E, UNTIL> {
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        // The fast path is left alone: there is nothing that a jump table could save here.
        if !SLOW {
            return Err(Stop::Slow);
        }
        let finished = repeat::<E, UNTIL>(cpu, u).map_err(|e| cpu.stop(e))?;
        if finished {
            cpu.eip = cpu.eip.wrapping_add(u.imm);
            return Ok(Flow::Link(1));
        }
        cpu.eip = cpu.this_eip(u);
        // What comes between two elements saves RF, so that a breakpoint here is not met again.
        cpu.flags.system |= RF;
        cpu.attention = true;
        Ok(Flow::Jump)
    }
}

// In a frame of its own, so that the handler can end in a jump.
#[inline(never)]
fn repeat<E: Element, const UNTIL: u8>(cpu: &mut Cpu, u: &Uop) -> Result<bool> {
    let before = cpu.flags;
    let finished = elements::<E, UNTIL>(cpu, u);
    // What a comparison says is not seen before all of it is done: a fault or an interrupt between two elements
    // finds the flags as they were (SDM volume 2, REP), and only the registers have moved on.
    if E::COMPARES && !matches!(finished, Ok(true)) {
        cpu.flags.set_arith(before.arith());
    }
    finished
}

/// Elements until the repetition has ended, or must pause, which is false.
fn elements<E: Element, const UNTIL: u8>(cpu: &mut Cpu, u: &Uop) -> Result<bool> {
    E::check(cpu)?;
    // Single steps trap after each element.
    let mut left = if cpu.stepping { 1 } else { MOST_ELEMENTS };
    let mut wrote_code = false;
    let mut rounds = 0;
    let finished = loop {
        let ecx = cpu.regs.r32(gpr::ECX);
        let count = if u.addr16() { ecx & 0xffff } else { ecx };
        if count == 0 {
            break true;
        }
        if cpu.attention && cpu.dr6_pending == 0 && !cpu.debugger.has_hit() {
            // Writing over code, even its own, does not stop it; the board may.
            wrote_code = true;
            cpu.attention = false;
            cpu.with_bus(|_, _| ());
        }
        if left == 0 || cpu.attention {
            break false;
        }
        let mut done = E::many(cpu, u, count.min(left), until(UNTIL));
        if done == 0 {
            E::one(cpu, u)?;
            done = 1;
        }
        cpu.set_reg_sized(Reg::dword(gpr::ECX), count - done, u.addr16());
        left -= done;
        rounds += 1;
        if UNTIL != COUNT && cpu.flags.zf() != (UNTIL == UNEQUAL) {
            break true;
        }
    };
    cpu.attention |= wrote_code;
    cpu.rounds = rounds;
    Ok(finished)
}

fn lower<E: Element>(b: &mut Builder, i: &Insn) {
    let Some(rep) = i.rep else {
        if !E::QUICK {
            b.call(i, E::one);
            return;
        }
        b.emit_choice(i, Choice::plain::<Once<E>>());
        b.leaves();
        [gpr::EAX, gpr::ESI, gpr::EDI].into_iter().for_each(|n| b.writes(n));
        if E::COMPARES {
            b.writes_flags(true, None);
        }
        return;
    };
    let next = b.next_distance();
    let run = match (E::COMPARES, rep) {
        (false, _) => step::<Repeated<E, COUNT>>,
        (true, Rep::Equal) => step::<Repeated<E, UNEQUAL>>,
        (true, Rep::NotEqual) => step::<Repeated<E, EQUAL>>,
    };
    b.emit(i, run).imm = next;
    b.leaves();
    b.link(next);
}

#[inline(always)]
fn index(cpu: &Cpu, u: &Uop, r: u8) -> u32 {
    let v = cpu.regs.r32(r);
    if u.addr16() { v & 0xffff } else { v }
}

/// Moves an index register by a number of elements, in the direction of DF.
#[inline(always)]
fn advance<T: Int>(cpu: &mut Cpu, u: &Uop, r: u8, elements: u32) {
    let by = T::BYTES.wrapping_mul(elements);
    let old = cpu.regs.r32(r);
    let new = if cpu.flags.system & DF == 0 { old.wrapping_add(by) } else { old.wrapping_sub(by) };
    cpu.set_reg_sized(Reg::dword(r), new, u.addr16());
}

fn source<T: Int>(cpu: &mut Cpu, u: &Uop) -> Result<T> {
    let at = cpu.check_segment(u.form & 7, index(cpu, u, gpr::ESI), T::BYTES, false)?;
    cpu.read(at)
}

fn destination<T: Int>(cpu: &mut Cpu, u: &Uop, write: bool) -> Result<u32> {
    cpu.check_segment(ES, index(cpu, u, gpr::EDI), T::BYTES, write)
}

/// The element that an index register points to in a segment, as a linear address, if there is nothing to check.
#[inline(always)]
fn near<T: Int>(cpu: &Cpu, u: &Uop, seg: u8, r: u8, write: bool) -> core::result::Result<u32, Stop> {
    let (seg, offset) = (&cpu.seg[usize::from(seg) % 6], index(cpu, u, r));
    if seg.allows(offset, T::BYTES, write) { Ok(seg.arch.base.wrapping_add(offset)) } else { Err(Stop::Slow) }
}

#[inline(always)]
fn near_source<T: Int>(cpu: &mut Cpu, u: &Uop) -> core::result::Result<T, Stop> {
    let at = near::<T>(cpu, u, u.form & 7, gpr::ESI, false)?;
    cpu.load::<T, false>(at)
}

/// The linear address of up to `count` upward elements that stay within a page, the segment and
/// the address size; and how many.
fn run_of<T: Int>(cpu: &Cpu, u: &Uop, seg: u8, r: u8, count: u32, write: bool) -> Option<(u32, u32)> {
    if cpu.flags.system & DF != 0 {
        return None;
    }
    let offset = index(cpu, u, r);
    let linear = cpu.seg[usize::from(seg) % 6].arch.base.wrapping_add(offset);
    let in_page = (0x1000 - (linear & 0xfff)) / T::BYTES;
    let count = count.min(in_page);
    let bytes = count * T::BYTES;
    let wraps = u.addr16() && offset + bytes > 0x1_0000;
    let allowed = count > 1 && !wraps && cpu.seg[usize::from(seg) % 6].allows(offset, bytes, write);
    allowed.then_some((linear, count))
}

struct Movs<T>(P<T>);

impl<T: Int> Element for Movs<T> {
    fn one(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        let v = source::<T>(cpu, u)?;
        let at = destination::<T>(cpu, u, true)?;
        cpu.write(at, v)?;
        advance::<T>(cpu, u, gpr::ESI, 1);
        advance::<T>(cpu, u, gpr::EDI, 1);
        Ok(())
    }

    #[inline(always)]
    fn quick(cpu: &mut Cpu, u: &Uop) -> core::result::Result<(), Stop> {
        let v = near_source::<T>(cpu, u)?;
        let at = near::<T>(cpu, u, ES, gpr::EDI, true)?;
        cpu.store::<T, false>(at, v)?;
        advance::<T>(cpu, u, gpr::ESI, 1);
        advance::<T>(cpu, u, gpr::EDI, 1);
        Ok(())
    }

    fn many(cpu: &mut Cpu, u: &Uop, count: u32, _: Until) -> u32 {
        let Some((from, count)) = run_of::<T>(cpu, u, u.form & 7, gpr::ESI, count, false) else { return 0 };
        let Some((to, count)) = run_of::<T>(cpu, u, ES, gpr::EDI, count, true) else { return 0 };
        if !cpu.copy_in_pages(to, from, count * T::BYTES) {
            return 0;
        }
        advance::<T>(cpu, u, gpr::ESI, count);
        advance::<T>(cpu, u, gpr::EDI, count);
        count
    }
}

struct Stos<T>(P<T>);

impl<T: Int> Element for Stos<T> {
    fn one(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        let at = destination::<T>(cpu, u, true)?;
        cpu.write(at, cpu.regs.get::<T>(Reg::dword(gpr::EAX)))?;
        advance::<T>(cpu, u, gpr::EDI, 1);
        Ok(())
    }

    #[inline(always)]
    fn quick(cpu: &mut Cpu, u: &Uop) -> core::result::Result<(), Stop> {
        let at = near::<T>(cpu, u, ES, gpr::EDI, true)?;
        let v = cpu.regs.get::<T>(Reg::dword(gpr::EAX));
        cpu.store::<T, false>(at, v)?;
        advance::<T>(cpu, u, gpr::EDI, 1);
        Ok(())
    }

    fn many(cpu: &mut Cpu, u: &Uop, count: u32, _: Until) -> u32 {
        let Some((to, count)) = run_of::<T>(cpu, u, ES, gpr::EDI, count, true) else { return 0 };
        let v = cpu.regs.get::<T>(Reg::dword(gpr::EAX));
        if !cpu.fill_in_page(to, v, count) {
            return 0;
        }
        advance::<T>(cpu, u, gpr::EDI, count);
        count
    }
}

pub(super) struct Lods<T>(P<T>);

impl<T: Int> Element for Lods<T> {
    fn one(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        let v = source::<T>(cpu, u)?;
        cpu.regs.set(Reg::dword(gpr::EAX), v);
        advance::<T>(cpu, u, gpr::ESI, 1);
        Ok(())
    }

    #[inline(always)]
    fn quick(cpu: &mut Cpu, u: &Uop) -> core::result::Result<(), Stop> {
        let v = near_source::<T>(cpu, u)?;
        cpu.regs.set(Reg::dword(gpr::EAX), v);
        advance::<T>(cpu, u, gpr::ESI, 1);
        Ok(())
    }
}

struct Cmps<T>(P<T>);

impl<T: Int> Element for Cmps<T> {
    const COMPARES: bool = true;
    // The operand at EDI is read first.
    fn one(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        let at = destination::<T>(cpu, u, false)?;
        let b = cpu.read::<T>(at)?;
        let a = source::<T>(cpu, u)?;
        cpu.flags.sub(a, b, 0);
        advance::<T>(cpu, u, gpr::ESI, 1);
        advance::<T>(cpu, u, gpr::EDI, 1);
        Ok(())
    }

    #[inline(always)]
    fn quick(cpu: &mut Cpu, u: &Uop) -> core::result::Result<(), Stop> {
        let at = near::<T>(cpu, u, ES, gpr::EDI, false)?;
        let b = cpu.load::<T, false>(at)?;
        let a = near_source::<T>(cpu, u)?;
        cpu.flags.sub(a, b, 0);
        advance::<T>(cpu, u, gpr::ESI, 1);
        advance::<T>(cpu, u, gpr::EDI, 1);
        Ok(())
    }

    fn many(cpu: &mut Cpu, u: &Uop, count: u32, until: Until) -> u32 {
        let Some((at, count)) = run_of::<T>(cpu, u, u.form & 7, gpr::ESI, count, false) else { return 0 };
        let Some((with, count)) = run_of::<T>(cpu, u, ES, gpr::EDI, count, false) else { return 0 };
        let found = cpu.compare_in_pages::<T>(at, with, count, until == Until::Equal);
        let Some((done, a, b)) = found else { return 0 };
        cpu.flags.sub(a, b, 0);
        advance::<T>(cpu, u, gpr::ESI, done);
        advance::<T>(cpu, u, gpr::EDI, done);
        done
    }
}

pub(super) struct Scas<T>(P<T>);

impl<T: Int> Element for Scas<T> {
    const COMPARES: bool = true;
    fn one(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        let at = destination::<T>(cpu, u, false)?;
        let b = cpu.read::<T>(at)?;
        let a = cpu.regs.get::<T>(Reg::dword(gpr::EAX));
        cpu.flags.sub(a, b, 0);
        advance::<T>(cpu, u, gpr::EDI, 1);
        Ok(())
    }

    #[inline(always)]
    fn quick(cpu: &mut Cpu, u: &Uop) -> core::result::Result<(), Stop> {
        let at = near::<T>(cpu, u, ES, gpr::EDI, false)?;
        let b = cpu.load::<T, false>(at)?;
        let a = cpu.regs.get::<T>(Reg::dword(gpr::EAX));
        cpu.flags.sub(a, b, 0);
        advance::<T>(cpu, u, gpr::EDI, 1);
        Ok(())
    }

    fn many(cpu: &mut Cpu, u: &Uop, count: u32, until: Until) -> u32 {
        let Some((at, count)) = run_of::<T>(cpu, u, ES, gpr::EDI, count, false) else { return 0 };
        let a = cpu.regs.get::<T>(Reg::dword(gpr::EAX));
        let found = cpu.scan_in_page(at, count, a, until == Until::Equal);
        let Some((done, b)) = found else { return 0 };
        cpu.flags.sub(a, b, 0);
        advance::<T>(cpu, u, gpr::EDI, done);
        done
    }
}

fn dx(cpu: &Cpu) -> u16 {
    cpu.regs.r32(gpr::EDX) as u16
}

struct Ins<T>(P<T>);

impl<T: Int> Element for Ins<T> {
    const QUICK: bool = false;
    fn check(cpu: &mut Cpu) -> Result<()> {
        cpu.check_io(dx(cpu), T::BYTES)
    }
    fn one(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        cpu.check_io(dx(cpu), T::BYTES)?;
        let at = destination::<T>(cpu, u, true)?;
        // The device must not be read if memory cannot take it.
        cpu.probe_write(at, T::BYTES)?;
        let v = port::read(cpu, dx(cpu), T::BYTES)?;
        cpu.write(at, T::truncate(v))?;
        advance::<T>(cpu, u, gpr::EDI, 1);
        Ok(())
    }

    fn many(cpu: &mut Cpu, u: &Uop, count: u32, _: Until) -> u32 {
        let Some((to, count)) = run_of::<T>(cpu, u, ES, gpr::EDI, count, true) else { return 0 };
        let done = port::read_many(cpu, dx(cpu), T::BYTES, to, count);
        advance::<T>(cpu, u, gpr::EDI, done);
        done
    }
}

struct Outs<T>(P<T>);

impl<T: Int> Element for Outs<T> {
    const QUICK: bool = false;
    fn check(cpu: &mut Cpu) -> Result<()> {
        cpu.check_io(dx(cpu), T::BYTES)
    }
    fn one(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        cpu.check_io(dx(cpu), T::BYTES)?;
        let v = source::<T>(cpu, u)?;
        port::write(cpu, dx(cpu), T::BYTES, v.zext())?;
        advance::<T>(cpu, u, gpr::ESI, 1);
        Ok(())
    }

    fn many(cpu: &mut Cpu, u: &Uop, count: u32, _: Until) -> u32 {
        let Some((from, count)) = run_of::<T>(cpu, u, u.form & 7, gpr::ESI, count, false) else { return 0 };
        let done = port::write_many(cpu, dx(cpu), T::BYTES, from, count);
        advance::<T>(cpu, u, gpr::ESI, done);
        done
    }
}

macro_rules! strings {
    ($($name:ident $element:ident)*) => {
        $(pub(super) fn $name(b: &mut Builder, i: &Insn) {
            match (i.opcode & 1, i.op16) {
                (0, _) => lower::<$element<u8>>(b, i),
                (_, true) => lower::<$element<u16>>(b, i),
                (_, false) => lower::<$element<u32>>(b, i),
            }
        })*
    };
}
strings!(movs Movs  stos Stos  lods Lods  cmps Cmps  scas Scas  ins Ins  outs Outs);
