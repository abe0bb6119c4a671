//! Jumps, calls, returns, software interrupts.

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::lower::{AddrKind, Builder, Callee, Choice, End, Place, Prior, by_addr, by_reg, raise_ud};
use super::mov::{Load, by_condition};
use super::operand::{Dest, DstReg, Flat, Segmented, Source, SrcMem, SrcReg};
use super::stack::{Leave, Pop};
use crate::Cpu;
use crate::cpu::interrupt::Source as InterruptSource;
use crate::cpu::regs::{Reg, gpr};
use crate::dispatch::{self, Far, Flow, Link, Op, Step, Stop, Then, Uop, joined, pair, step, step_far, trio};
use crate::exception::{Exception, Result};

/// The condition of a conditional branch.
pub(super) trait Decide: 'static {
    /// Whether it is taken. `&Uop` for the address size of LOOP and JCXZ.
    fn taken(cpu: &Cpu, u: &Uop) -> bool;
    /// What else the instruction does, once it cannot fault any more.
    fn commit(_: &mut Cpu, _: &Uop) {}
}

pub(super) struct Condition<const CC: u8>;

impl<const CC: u8> Decide for Condition<CC> {
    #[inline(always)]
    fn taken(cpu: &Cpu, _: &Uop) -> bool {
        cpu.flags.condition(CC)
    }
}

fn counter(cpu: &Cpu, u: &Uop) -> u32 {
    let ecx = cpu.regs.r32(gpr::ECX);
    if u.addr16() { ecx & 0xffff } else { ecx }
}

/// LOOP, LOOPE, LOOPNE: `ZF` is 0 for LOOPNE, 1 for LOOPE, anything else for LOOP.
struct Loop<const ZF: u8>;

impl<const ZF: u8> Decide for Loop<ZF> {
    fn taken(cpu: &Cpu, u: &Uop) -> bool {
        counter(cpu, u) != 1
            && match ZF {
                0 => !cpu.flags.zf(),
                1 => cpu.flags.zf(),
                _ => true,
            }
    }
    fn commit(cpu: &mut Cpu, u: &Uop) {
        let v = counter(cpu, u).wrapping_sub(1);
        cpu.set_reg_sized(Reg::dword(gpr::ECX), v, u.addr16());
    }
}

struct CounterZero;

impl Decide for CounterZero {
    fn taken(cpu: &Cpu, u: &Uop) -> bool {
        counter(cpu, u) == 0
    }
}

/// A conditional branch whose target is linked.
pub(super) struct Branch<D>(P<D>);

impl<D: Decide> Op for Branch<D> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let taken = D::taken(cpu, u);
        D::commit(cpu, u);
        Ok(if taken { Flow::Link(1) } else { Flow::Next })
    }
}

/// A conditional branch whose target may be beyond the code segment's limit or wrap at 64 KiB.
struct CheckedBranch<D>(P<D>);

impl<D: Decide> Op for CheckedBranch<D> {
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let target = if D::taken(cpu, u) { checked_target(cpu, u, u.imm)? } else { cpu.next_eip(u) };
        D::commit(cpu, u);
        cpu.eip = target;
        Ok(Flow::Jump)
    }
}

/// The target at a distance from the next instruction, wrapped and checked.
fn checked_target(cpu: &mut Cpu, u: &Uop, distance: u32) -> core::result::Result<u32, Stop> {
    let target = cpu.next_eip(u).wrapping_add(distance);
    near_target(cpu, u, target).map_err(|e| cpu.stop(e))
}

fn near_target(cpu: &Cpu, u: &Uop, target: u32) -> Result<u32> {
    let target = if u.op16() { target & 0xffff } else { target };
    if u64::from(target) < cpu.code_end() { Ok(target) } else { Err(Exception::GP0) }
}

fn conditional<D: Decide>(b: &mut Builder, i: &Insn) {
    branch::<D>(b, i, |b, i, run| b.emit(i, run));
}

fn branch<D: Decide>(
    b: &mut Builder,
    i: &Insn,
    emit: for<'a> fn(&'a mut Builder, &Insn, dispatch::Handler) -> &'a mut Uop,
) {
    if !b.links_allowed(i) {
        b.emit(i, step::<CheckedBranch<D>>);
        b.leaves();
        b.end();
        return;
    }
    let target = b.next_distance().wrapping_add(i.imm);
    let run = if b.is_far(target) && !cfg!(target_family = "wasm") {
        dispatch::branch::<Branch<D>, true>
    } else {
        dispatch::branch::<Branch<D>, false>
    };
    emit(b, i, run).imm = target;
    b.reads_flags();
    b.exit(target);
}

pub(super) fn jcc(b: &mut Builder, i: &Insn) {
    by_condition!(i.condition(), CC => branch::<Condition<CC>>(b, i, |b, i, run| b.emit_branch(i, run)));
}
pub(super) fn loopne(b: &mut Builder, i: &Insn) {
    conditional::<Loop<0>>(b, i);
}
pub(super) fn loope(b: &mut Builder, i: &Insn) {
    conditional::<Loop<1>>(b, i);
}
pub(super) fn loop_(b: &mut Builder, i: &Insn) {
    conditional::<Loop<2>>(b, i);
}
pub(super) fn jcxz(b: &mut Builder, i: &Insn) {
    conditional::<CounterZero>(b, i);
}

/// JMP to a linked target.
pub(super) struct Jmp;

impl Op for Jmp {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        cpu.eip = cpu.eip.wrapping_add(u.imm);
        Ok(Flow::Link(1))
    }
}

struct CheckedJmp;

impl Op for CheckedJmp {
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        cpu.eip = checked_target(cpu, u, u.imm)?;
        Ok(Flow::Jump)
    }
}

pub(super) fn jmp(b: &mut Builder, i: &Insn) {
    if !b.links_allowed(i) {
        b.emit(i, step::<CheckedJmp>);
        b.leaves();
        b.end();
        return;
    }
    let target = b.next_distance().wrapping_add(i.imm);
    if b.skip_to(target) {
        return;
    }
    let far = b.is_far(target);
    b.emit(i, if far { step_far::<Jmp> } else { step::<Jmp> }).imm = target;
    b.ends(End::Jump { far });
    b.link(target);
}

/// JMP to an address in a register or memory, in a flat code segment.
pub(super) struct JmpTo<S>(P<S>);

impl<S: Source> Op for JmpTo<S> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        cpu.eip = S::get::<u32, SLOW>(cpu, u)?;
        Ok(Flow::Jump)
    }
}

/// As [`JmpTo`], with a slot behind it for where it led the last time.
pub(super) struct JmpAgain<S>(P<S>);

impl<S: Source> Op for JmpAgain<S> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        cpu.eip = S::get::<u32, SLOW>(cpu, u)?;
        Ok(Flow::Link(1))
    }
}

fn target_operand(cpu: &mut Cpu, u: &Uop) -> Result<u32> {
    if u.op16() { cpu.get_rm::<u16>(u).map(u32::from) } else { cpu.get_rm::<u32>(u) }
}

pub(super) fn jmp_indirect(b: &mut Builder, i: &Insn) {
    if b.links_allowed(i) {
        let kind = b.addr_kind(i);
        // What is loaded from one place is the same each time as a rule; a table of cases is indexed.
        let again = kind == AddrKind::Flat && b.kept();
        let run = match i.place(0) {
            Place::Mem if again => step_far::<JmpAgain<SrcMem<Flat>>>,
            Place::Mem => by_addr!(kind, A => step::<JmpTo<SrcMem<A>>>),
            _ => step::<JmpTo<SrcReg>>,
        };
        let u = b.emit(i, run);
        u.src = u.dst;
        b.leaves();
        if i.mem.is_none() {
            b.ends(End::JumpTo);
        }
        if again {
            b.link_jump();
        } else {
            b.end();
        }
        return;
    }
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        let target = target_operand(cpu, u)?;
        cpu.eip = near_target(cpu, u, target)?;
        Ok(())
    });
}

/// CALL to a linked target, on a flat stack. In a block that is `KEPT` the slot after next leads to
/// where the call returns.
pub(super) struct Call<const KEPT: bool>;

impl<const KEPT: bool> Op for Call<KEPT> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let next = cpu.eip.wrapping_add(u.disp);
        push_return::<SLOW>(cpu, next)?;
        if KEPT {
            cpu.calls.push(next, cpu.mode, slot(u, 2));
        }
        cpu.eip = cpu.eip.wrapping_add(u.imm);
        Ok(Flow::Link(1))
    }
}

#[inline(always)]
fn push_return<const SLOW: bool>(cpu: &mut Cpu, next: u32) -> core::result::Result<(), Stop> {
    let esp = cpu.regs.r32(gpr::ESP).wrapping_sub(4);
    cpu.store::<u32, SLOW>(esp, next)?;
    cpu.regs.set_r32(gpr::ESP, esp);
    Ok(())
}

/// CALL of a function that does no more than load the address it returns to into a register: position-independent code
/// finds itself so. All of it is done at once if that is what is there still; otherwise it is a CALL.
pub(super) struct PcThunk<D>(P<D>);

impl<D: Dest> Op for PcThunk<D> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let (next, target) = (cpu.eip.wrapping_add(u.disp), cpu.eip.wrapping_add(u.imm));
        let esp = cpu.regs.r32(gpr::ESP).wrapping_sub(4);
        cpu.store::<u32, SLOW>(esp, next)?;
        if SLOW || cpu.tlb.load(target) != Some(pc_thunk(u.dst.number())) {
            cpu.regs.set_r32(gpr::ESP, esp);
            cpu.eip = target;
            return Ok(Flow::Jump);
        }
        D::set::<u32, SLOW>(cpu, u, next)?;
        Ok(Flow::Next)
    }
}

/// MOV from the top of the stack to a register, and RET.
pub(super) const fn pc_thunk(register: u8) -> [u8; 4] {
    [0x8b, 0x04 | register << 3, 0x24, 0xc3]
}

/// CALL of an entry of a procedure linkage table, which is a JMP through memory ([`JmpAgain`]) and has the uop behind this
/// one; if something else is there by now, it is a CALL. `disp` is that of the JMP.
pub(super) struct CallEntry;

impl Op for CallEntry {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let (next, target) = (cpu.next_eip(u), cpu.eip.wrapping_add(u.imm));
        push_return::<SLOW>(cpu, next)?;
        cpu.calls.push(next, cpu.mode, slot(u, 3));
        cpu.eip = target;
        let entry = linkage_entry(u.base, u.disp);
        // The load is of eight bytes, for entries are aligned so.
        let is_there = cpu.tlb.load(target).is_some_and(|code| u64::from_le_bytes(code) << 16 == entry << 16);
        Ok(if SLOW || !is_there { Flow::Jump } else { Flow::Next })
    }
}

/// What the entry consists of.
pub(super) type EntryJmp = JmpAgain<SrcMem<Flat>>;

/// Bytes of a JMP through memory.
pub(super) const LINKAGE_ENTRY: usize = 6;

/// The code of JMP through memory: relative to EBX in position-independent programs, at an address in others.
pub(super) fn linkage_entry(base: Reg, disp: u32) -> u64 {
    let modrm = if base == Reg::ZERO { 0x25 } else { 0xa3 };
    u64::from(disp) << 16 | modrm << 8 | 0xff
}

/// The `n`-th link slot behind a uop.
#[inline(always)]
fn slot(u: &Uop, n: usize) -> *const Link {
    (&raw const *u).wrapping_add(n).cast()
}

/// What is wrong with the stack is found before what is wrong with the target.
fn call_to(cpu: &mut Cpu, u: &Uop, target: u32) -> Result<()> {
    let mut stack = cpu.stack();
    stack.probe_push(cpu, if u.op16() { 2 } else { 4 })?;
    let target = near_target(cpu, u, target)?;
    stack.push_sized(cpu, cpu.next_eip(u), !u.op16())?;
    cpu.commit(&stack);
    cpu.eip = target;
    Ok(())
}

pub(super) fn call(b: &mut Builder, i: &Insn) {
    if b.links_allowed(i) && b.flat_stack() {
        let next = b.next_distance();
        let target = next.wrapping_add(i.imm);
        match b.take_callee() {
            Some(Callee::PcThunk(n)) => {
                let choice = by_reg!(n, D => Choice::of::<PcThunk<D>, PcThunk<DstReg>>());
                let u = b.emit_choice(i, choice);
                (u.disp, u.imm, u.dst) = (next, target, Reg::dword(n));
                b.writes(n);
                b.leaves();
                b.reads_flags();
                return;
            }
            Some(Callee::LinkageEntry { base, disp }) => {
                let both = if cfg!(target_family = "wasm") {
                    step::<CallEntry>
                } else {
                    joined::<Then<CallEntry, CallEntry, Far<EntryJmp>>>
                };
                let u = b.emit(i, both);
                (u.disp, u.imm, u.base) = (disp, target, base);
                b.leaves();
                b.ends(End::CallEntry);
                b.jump_of_entry(base, disp, step_far::<EntryJmp>);
                b.link_jump();
                b.link_return();
                return;
            }
            None => {}
        }
        let kept = b.kept();
        let run = match (kept, b.is_far(target)) {
            (true, true) => step_far::<Call<true>>,
            (true, false) => step::<Call<true>>,
            (false, _) => step::<Call<false>>,
        };
        let u = b.emit(i, run);
        (u.disp, u.imm) = (next, target);
        b.leaves();
        b.ends(End::Call { far: b.is_far(target) });
        b.link(target);
        if kept {
            b.link_return();
        }
        return;
    }
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| call_to(cpu, u, cpu.next_eip(u).wrapping_add(u.imm)));
}

/// CALL to an address in a register or memory, in a flat code segment, on a flat stack.
pub(super) struct CallTo<S, const KEPT: bool>(P<S>);

impl<S: Source, const KEPT: bool> Op for CallTo<S, KEPT> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let target = S::get::<u32, SLOW>(cpu, u)?;
        let next = cpu.eip.wrapping_add(u.imm);
        push_return::<SLOW>(cpu, next)?;
        if KEPT {
            cpu.calls.push(next, cpu.mode, slot(u, 1));
        }
        cpu.eip = target;
        Ok(Flow::Jump)
    }
}

pub(super) fn call_indirect(b: &mut Builder, i: &Insn) {
    if b.links_allowed(i) && b.flat_stack() {
        let (mem, kind) = (i.place(0) == Place::Mem, b.addr_kind(i));
        let next = b.next_distance();
        let run = match (mem, b.kept()) {
            (true, true) => by_addr!(kind, A => step::<CallTo<SrcMem<A>, true>>),
            (true, false) => step::<CallTo<SrcMem<Segmented>, false>>,
            (false, true) => step::<CallTo<SrcReg, true>>,
            (false, false) => step::<CallTo<SrcReg, false>>,
        };
        let u = b.emit(i, run);
        u.src = u.dst;
        u.imm = next;
        b.leaves();
        if b.kept() {
            b.link_return();
        } else {
            b.end();
        }
        return;
    }
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        let target = target_operand(cpu, u)?;
        call_to(cpu, u, target)
    });
}

/// RET in a flat code segment, from a flat stack.
pub(super) struct Ret;

impl Op for Ret {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let esp = cpu.regs.r32(gpr::ESP);
        cpu.eip = cpu.load::<u32, SLOW>(esp)?;
        cpu.regs.set_r32(gpr::ESP, esp.wrapping_add(4).wrapping_add(u.imm));
        Ok(Flow::Return)
    }
}

pub(super) fn ret(b: &mut Builder, i: &Insn) {
    if b.links_allowed(i) && b.flat_stack() {
        match b.prior() {
            Prior::Pop(n) => b.pair(by_reg!(n, D => pair::<Pop<D>, Pop<DstReg>, Ret, Ret>)),
            Prior::Pops(m, n) => b.trio(by_reg!(m, C => by_reg!(n, D => {
                trio::<Pop<C>, Pop<DstReg>, Pop<D>, Pop<DstReg>, Ret, Ret>
            }))),
            Prior::Load(n) => b.pair(by_reg!(n, D => pair::<Load<D>, Load<DstReg>, Ret, Ret>)),
            Prior::Leave => b.pair(pair::<Leave, Leave, Ret, Ret>),
            _ => {}
        }
        b.emit(i, step::<Ret>);
        b.leaves();
        b.ends(End::Return);
        b.end();
        return;
    }
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        let mut stack = cpu.stack();
        let target = stack.pop_sized(cpu, !u.op16())?;
        let target = near_target(cpu, u, target)?;
        stack.skip(u.imm);
        cpu.commit(&stack);
        cpu.eip = target;
        Ok(())
    });
}

pub(super) fn jmp_far(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        let next = cpu.next_eip(u);
        cpu.far_jump(u.disp as u16, u.imm, next)
    })
    .disp = i.imm2;
}

pub(super) fn call_far(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        let next = cpu.next_eip(u);
        cpu.far_call(u.disp as u16, u.imm, next, !u.op16())
    })
    .disp = i.imm2;
}

fn far_operand(cpu: &mut Cpu, u: &Uop) -> Result<(u16, u32)> {
    if u.op16() {
        let offset = cpu.read_mem::<u16>(u, 0)?;
        Ok((cpu.read_mem(u, 2)?, offset.into()))
    } else {
        let offset = cpu.read_mem::<u32>(u, 0)?;
        Ok((cpu.read_mem(u, 4)?, offset))
    }
}

pub(super) fn jmp_far_indirect(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        let (selector, offset) = far_operand(cpu, u)?;
        let next = cpu.next_eip(u);
        cpu.far_jump(selector, offset, next)
    });
}

pub(super) fn call_far_indirect(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        let (selector, offset) = far_operand(cpu, u)?;
        let next = cpu.next_eip(u);
        cpu.far_call(selector, offset, next, !u.op16())
    });
}

pub(super) fn retf(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| cpu.far_return(!u.op16(), u.imm));
}

pub(super) fn iret(b: &mut Builder, i: &Insn) {
    b.call_jump(i, |cpu: &mut Cpu, u: &Uop| {
        let next = cpu.next_eip(u);
        cpu.interrupt_return(!u.op16(), next)
    });
}

/// A software interrupt saves the EIP of the next instruction, or, if it cannot be delivered,
/// faults at its own.
fn interrupt(cpu: &mut Cpu, u: &Uop, vector: u8, source: InterruptSource) -> Result<()> {
    let start = cpu.eip;
    cpu.eip = cpu.next_eip(u);
    let delivered = cpu.software_interrupt(vector, source);
    match delivered {
        // The handler runs with TF clear, from its first instruction on.
        Ok(()) => cpu.stepping = false,
        Err(_) => cpu.eip = start,
    }
    delivered
}

pub(super) fn int(b: &mut Builder, i: &Insn) {
    b.call_jump(i, |cpu: &mut Cpu, u: &Uop| {
        if cpu.vm86() && cpu.flags.iopl() < 3 {
            return Err(Exception::GP0);
        }
        interrupt(cpu, u, u.imm as u8, InterruptSource::Software)
    });
}

pub(super) fn int3(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        interrupt(cpu, u, Exception::BREAKPOINT.vector, InterruptSource::Software)
    });
}

/// INT1 does not check the gate's DPL.
pub(super) fn int1(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        interrupt(cpu, u, Exception::DEBUG.vector, InterruptSource::Trap)
    });
}

pub(super) fn into(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        if cpu.flags.of() {
            return interrupt(cpu, u, Exception::OVERFLOW.vector, InterruptSource::Software);
        }
        cpu.eip = cpu.next_eip(u);
        Ok(())
    });
}

pub(super) fn bound(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let (index, low, high) = if u.op16() {
            let (low, high) = (cpu.read_mem::<u16>(u, 0)?, cpu.read_mem::<u16>(u, 2)?);
            let index = cpu.regs.get::<u16>(u.src);
            (i32::from(index as i16), i32::from(low as i16), i32::from(high as i16))
        } else {
            let (low, high) = (cpu.read_mem::<u32>(u, 0)?, cpu.read_mem::<u32>(u, 4)?);
            (cpu.regs.get::<u32>(u.src) as i32, low as i32, high as i32)
        };
        if index < low || index > high { Err(Exception::BOUND) } else { Ok(()) }
    });
}

pub(super) fn sysenter(b: &mut Builder, i: &Insn) {
    b.call_jump(i, |cpu: &mut Cpu, _: &Uop| cpu.sysenter());
}

pub(super) fn sysexit(b: &mut Builder, i: &Insn) {
    b.call_jump(i, |cpu: &mut Cpu, _: &Uop| cpu.sysexit());
}

pub(super) fn ud(b: &mut Builder, i: &Insn) {
    b.call_last(i, raise_ud);
}
