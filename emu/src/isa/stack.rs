//! The stack: PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE.

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::lower::{Builder, Choice, Place, Prior, by_addr, by_reg};
use super::mov::load_numbered;
use super::operand::{Dest, DstReg, Source, SrcImm, SrcMem, SrcReg};
use crate::Cpu;
use crate::cpu::flags;
use crate::cpu::mode;
use crate::cpu::regs::{Int, Reg, gpr};
use crate::cpu::{CR0_PE, SegName};
use crate::dispatch::{Flow, Op, Step, Stop, Uop, pair, step};
use crate::exception::{Exception, Result};

/// PUSH of 32 bits on a flat stack.
pub(super) struct Push<S>(P<S>);

impl<S: Source> Op for Push<S> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let v = S::get::<u32, SLOW>(cpu, u)?;
        let esp = cpu.regs.r32(gpr::ESP).wrapping_sub(4);
        cpu.store::<u32, SLOW>(esp, v)?;
        cpu.regs.set_r32(gpr::ESP, esp);
        Ok(Flow::Next)
    }
}

/// POP of 32 bits from a flat stack into a register.
pub(super) struct Pop<D>(P<D>);

impl<D: Dest> Op for Pop<D> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let esp = cpu.regs.r32(gpr::ESP);
        let v = cpu.load::<u32, SLOW>(esp)?;
        // POP ESP ends with the value popped.
        cpu.regs.set_r32(gpr::ESP, esp.wrapping_add(4));
        D::set::<u32, SLOW>(cpu, u, v)?;
        Ok(Flow::Next)
    }
}

fn push_value(cpu: &mut Cpu, v: u32, wide: bool) -> Result<()> {
    let mut stack = cpu.stack();
    stack.push_sized(cpu, v, wide)?;
    cpu.commit(&stack);
    Ok(())
}

pub(super) fn push(b: &mut Builder, i: &Insn) {
    if b.flat_stack() && !i.op16 {
        let offer = match (b.prior(), i.place(0)) {
            (Prior::Push(m), Place::Reg(n)) => {
                b.pair(
                    by_reg!(m, A => by_reg!(n, B => pair::<Push<A>, Push<SrcReg>, Push<B>, Push<SrcReg>>)),
                );
                Prior::Nothing
            }
            (_, Place::Reg(n)) => Prior::Push(n),
            _ => Prior::Nothing,
        };
        let kind = b.addr_kind(i);
        let run = match i.place(0) {
            Place::Mem => by_addr!(kind, A => Choice::plain::<Push<SrcMem<A>>>()),
            Place::Imm => Choice::plain::<Push<SrcImm>>(),
            Place::Reg(n) => by_reg!(n, S => Choice::of::<Push<S>, Push<SrcReg>>()),
        };
        let u = b.emit_choice(i, run);
        u.src = u.dst;
        b.leaves();
        b.writes(gpr::ESP);
        b.offer(offer);
        return;
    }
    match i.place(0) {
        Place::Imm => b.call(i, |cpu: &mut Cpu, u: &Uop| push_value(cpu, u.imm, !u.op16())),
        place => {
            let u = b.call(i, |cpu: &mut Cpu, u: &Uop| {
                let wide = !u.op16();
                let v = if wide { cpu.get_rm::<u32>(u)? } else { cpu.get_rm::<u16>(u)?.into() };
                push_value(cpu, v, wide)
            });
            if let Place::Reg(n) = place {
                u.dst = Reg::dword(n);
            }
            u
        }
    };
}

pub(super) fn pop(b: &mut Builder, i: &Insn) {
    if b.flat_stack()
        && !i.op16
        && let Place::Reg(n) = i.place(0)
    {
        let offer = if let Prior::Pop(m) = b.prior() {
            b.pair(by_reg!(m, A => by_reg!(n, B => pair::<Pop<A>, Pop<DstReg>, Pop<B>, Pop<DstReg>>)));
            Prior::Pops(m, n)
        } else {
            Prior::Pop(n)
        };
        b.emit_choice(i, by_reg!(n, D => Choice::of::<Pop<D>, Pop<DstReg>>()));
        b.leaves();
        b.writes(gpr::ESP);
        b.offer(offer);
        return;
    }
    let u = b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let wide = !u.op16();
        let before = cpu.regs.r32(gpr::ESP);
        let mut stack = cpu.stack();
        let v = stack.pop_sized(cpu, wide)?;
        // An address with ESP in it uses ESP after the pop.
        cpu.commit(&stack);
        let done = if wide { cpu.set_rm::<u32>(u, v) } else { cpu.set_rm::<u16>(u, v as u16) };
        if done.is_err() {
            cpu.regs.set_r32(gpr::ESP, before);
        }
        done
    });
    if let Place::Reg(n) = i.place(0) {
        u.dst = Reg::dword(n);
    }
}

/// PUSH of a segment register writes the selector alone into a slot of the operand's size: the upper half
/// of a 32-bit slot stays as it was, on Intel's processors (SDM volume 2, PUSH).
fn push_segment<const NUMBER: u8>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let selector = cpu.seg[NUMBER as usize].arch.selector;
    let mut stack = cpu.stack();
    stack.push_low(cpu, selector, if u.op16() { 2 } else { 4 })?;
    cpu.commit(&stack);
    Ok(())
}

/// POP of a segment register reads the selector alone from a slot of the operand's size, so that the upper half of
/// a 32-bit slot may be beyond what can be read (SDM volume 3, architecture compatibility,
/// "Selector Pushes and Pops").
fn pop_segment<const NUMBER: u8>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let mut stack = cpu.stack();
    let selector = stack.pop_low(cpu, if u.op16() { 2 } else { 4 })?;
    // The stack pointer moves only if the load succeeds, and in the stack segment as it was.
    let before = cpu.mode & mode::STACK32;
    load_numbered(cpu, NUMBER, selector)?;
    let now = cpu.mode;
    cpu.mode = (now & !mode::STACK32) | before;
    cpu.commit(&stack);
    cpu.mode = now;
    Ok(())
}

macro_rules! segments {
    ($($push:ident $pop:ident $name:ident)*) => {
        $(pub(super) fn $push(b: &mut Builder, i: &Insn) {
            b.call(i, push_segment::<{ SegName::$name as u8 }>);
        }
        pub(super) fn $pop(b: &mut Builder, i: &Insn) {
            b.call(i, pop_segment::<{ SegName::$name as u8 }>);
        })*
    };
}
segments!(push_es pop_es ES  push_ss pop_ss SS  push_ds pop_ds DS  push_fs pop_fs FS  push_gs pop_gs GS);

pub(super) fn push_cs(b: &mut Builder, i: &Insn) {
    b.call(i, push_segment::<{ SegName::CS as u8 }>);
}

/// PUSHA. Where selectors are paragraphs, a stack pointer from which the eight values would wrap
/// round within one of them is #GP (SDM volume 2, PUSHA, real-address mode exceptions).
pub(super) fn pusha(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let mut stack = cpu.stack();
        if cpu.real_segments() && matches!(stack.offset(), 7 | 9 | 11 | 13 | 15) {
            return Err(Exception::GP0);
        }
        for v in cpu.regs.all() {
            stack.push_sized(cpu, v, !u.op16())?;
        }
        cpu.commit(&stack);
        Ok(())
    });
}

pub(super) fn popa(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let wide = !u.op16();
        let mut stack = cpu.stack();
        let mut values = [0; 8];
        for v in values.iter_mut().rev() {
            *v = stack.pop_sized(cpu, wide)?;
        }
        for (n, v) in (0..).zip(values) {
            if n != gpr::ESP {
                cpu.set_reg_sized(Reg::dword(n), v, !wide);
            }
        }
        cpu.commit(&stack);
        Ok(())
    });
}

fn check_vm86_iopl(cpu: &Cpu) -> Result<()> {
    if cpu.vm86() && cpu.flags.iopl() < 3 { Err(Exception::GP0) } else { Ok(()) }
}

/// What PUSHF pushes.
fn pushed_flags(cpu: &Cpu) -> Result<u32> {
    check_vm86_iopl(cpu)?;
    Ok(cpu.flags.get() & !(flags::VM | flags::RF))
}

/// The flags, for PUSHF.
struct SrcFlags;

impl Source for SrcFlags {
    type Plain = Self;
    #[inline(always)]
    fn get<T: Int, const SLOW: bool>(cpu: &mut Cpu, _: &Uop) -> core::result::Result<T, Stop> {
        pushed_flags(cpu).map(T::truncate).map_err(|e| cpu.stop(e))
    }
}

pub(super) fn pushf(b: &mut Builder, i: &Insn) {
    if b.flat_stack() && !i.op16 {
        b.emit(i, step::<Push<SrcFlags>>);
        b.reads_flags();
        b.leaves();
        b.writes(gpr::ESP);
        return;
    }
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let v = pushed_flags(cpu)?;
        push_value(cpu, v, !u.op16())
    });
}

/// The flags that POPF may change here.
#[inline(always)]
fn popped_mask(cpu: &Cpu, wide: bool) -> u32 {
    let mut mask = flags::ARITH | flags::TF | flags::DF | flags::NT;
    if wide {
        mask |= flags::AC | flags::ID;
    }
    if cpu.cr0 & CR0_PE == 0 || cpu.cpl == 0 {
        mask |= flags::IF | flags::IOPL;
    } else if cpu.cpl <= cpu.flags.iopl() {
        mask |= flags::IF;
    }
    mask
}

fn pop_flags(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    check_vm86_iopl(cpu)?;
    let wide = !u.op16();
    let mut stack = cpu.stack();
    let v = stack.pop_sized(cpu, wide)?;
    cpu.merge_flags(v, popped_mask(cpu, wide));
    cpu.flags.system &= !flags::RF;
    cpu.commit(&stack);
    // An interrupt may wait; a trap flag takes effect after the next instruction.
    cpu.attention |= cpu.is_called() || v & flags::TF != 0;
    Ok(())
}

/// POPF of 32 bits from a flat stack.
struct Popf;

impl Op for Popf {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        if SLOW {
            pop_flags(cpu, u).map_err(|e| cpu.stop(e))?;
            return Ok(Flow::Next);
        }
        let esp = cpu.regs.r32(gpr::ESP);
        let v = cpu.load::<u32, false>(esp)?;
        let (old, mask) = (cpu.flags.system, popped_mask(cpu, true));
        let new = old & !mask | v & mask;
        // TF is for the driver, as is an interrupt that waits; AC decides which of the TLB's entries are used.
        let interrupts = new & flags::IF != 0 && cpu.pins.interrupt;
        if (old | new) & (flags::TF | flags::VM) != 0 || (old ^ new) & flags::AC != 0 || interrupts {
            return Err(Stop::Slow);
        }
        cpu.regs.set_r32(gpr::ESP, esp.wrapping_add(4));
        cpu.flags.set(new);
        Ok(Flow::Next)
    }
}

pub(super) fn popf(b: &mut Builder, i: &Insn) {
    if b.flat_stack() && !i.op16 {
        b.emit(i, step::<Popf>);
        b.leaves();
        b.writes(gpr::ESP);
        b.writes_flags(true, None);
        return;
    }
    b.call(i, pop_flags);
}

pub(super) fn enter(b: &mut Builder, i: &Insn) {
    let level = i.imm2 & 31;
    let u = b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let (wide, size, level) = (!u.op16(), u.imm & 0xffff, u.disp);
        let bytes = if wide { 4 } else { 2 };
        let ebp = cpu.regs.r32(gpr::EBP);
        let mut stack = cpu.stack();
        stack.push_sized(cpu, ebp, wide)?;
        let frame = stack.sp;
        for n in 1..level {
            let mut from = cpu.stack();
            from.sp = ebp;
            from.skip(0u32.wrapping_sub(n * bytes));
            let v = from.pop_sized(cpu, wide)?;
            stack.push_sized(cpu, v, wide)?;
        }
        if level > 0 {
            stack.push_sized(cpu, frame, wide)?;
        }
        stack.skip(0u32.wrapping_sub(size));
        // The new top of stack must be writable.
        let at = cpu.check_segment(SegName::SS as u8, stack.offset(), bytes, true)?;
        cpu.probe_write(at, bytes)?;
        cpu.set_reg_sized(Reg::dword(gpr::EBP), frame, !wide);
        cpu.commit(&stack);
        Ok(())
    });
    u.disp = level;
}

pub(super) fn leave(b: &mut Builder, i: &Insn) {
    if b.flat_stack() && !i.op16 {
        b.emit(i, step::<Leave>);
        b.leaves();
        b.writes(gpr::EBP);
        b.writes(gpr::ESP);
        b.offer(Prior::Leave);
        return;
    }
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let wide = !u.op16();
        let mut stack = cpu.stack();
        stack.sp = cpu.regs.r32(gpr::EBP);
        let v = stack.pop_sized(cpu, wide)?;
        cpu.commit(&stack);
        cpu.set_reg_sized(Reg::dword(gpr::EBP), v, !wide);
        Ok(())
    });
}

/// LEAVE on a flat stack.
pub(super) struct Leave;

impl Op for Leave {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, _: &Uop) -> Step {
        let ebp = cpu.regs.r32(gpr::EBP);
        let v = cpu.load::<u32, SLOW>(ebp)?;
        cpu.regs.set_r32(gpr::ESP, ebp.wrapping_add(4));
        cpu.regs.set_r32(gpr::EBP, v);
        Ok(Flow::Next)
    }
}
