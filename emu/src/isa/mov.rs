//! Moves, conversions, exchanges.

use std::marker::PhantomData as P;

use super::decode::{Insn, Mem};
use super::lower::{
    AddrKind, Builder, Choice, Kind, Place, Prior, by_addr, by_base, by_low, by_operand, by_reg,
};
use super::operand::{
    Addr, Dest, DstMem, DstReg, Flat, FlatIndexed, Segmented, Source, SrcImm, SrcMem, SrcReg,
};
use super::stack::Push;
use crate::Cpu;
use crate::cpu::SegName;
use crate::cpu::regs::{Int, Reg, gpr};
use crate::dispatch::{Flow, Op, Step, Uop, pair, step};
use crate::exception::{Exception, Result};

pub(super) struct Mov<T, D, S>(P<(T, D, S)>);

impl<T: Int, D: Dest, S: Source> Op for Mov<T, D, S> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let v = S::get::<T, SLOW>(cpu, u)?;
        D::set::<T, SLOW>(cpu, u, v)?;
        Ok(Flow::Next)
    }
}

fn moves<T: Int, D: Dest, S: Source>() -> Choice {
    Choice::of::<Mov<T, D, S>, Mov<T, D::Plain, S::Plain>>()
}

/// The commonest instructions of all: handlers for each register.
fn mov_dword(b: &mut Builder, i: &Insn) {
    let (kind, base) = (b.addr_kind(i), i.mem.and_then(|m| m.base));
    let run = match (i.place(0), i.place(1)) {
        (Place::Reg(d), Place::Reg(s)) => by_reg!(d, D => by_reg!(s, S => moves::<u32, D, S>())),
        (Place::Reg(d), Place::Imm) => by_reg!(d, D => moves::<u32, D, SrcImm>()),
        (Place::Reg(d), Place::Mem) => {
            by_reg!(d, D => by_base!(kind, base, A => moves::<u32, D, SrcMem<A>>()))
        }
        (_, Place::Reg(s)) => by_reg!(s, S => by_base!(kind, base, A => moves::<u32, DstMem<A>, S>())),
        _ => by_base!(kind, base, A => moves::<u32, DstMem<A>, SrcImm>()),
    };
    // What a function does first: it saves a register and gives it a new value.
    if let (Prior::Push(m), Place::Reg(d), Place::Reg(s)) = (b.prior(), i.place(0), i.place(1))
        && m == d
    {
        b.pair(by_reg!(d, D => by_reg!(s, S => {
            pair::<Push<D>, Push<SrcReg>, Mov<u32, D, S>, Mov<u32, DstReg, SrcReg>>
        })));
    }
    b.emit_choice(i, run);
    if i.mem.is_some() {
        b.leaves();
    }
    if let (Place::Reg(d), Place::Mem, AddrKind::Flat) = (i.place(0), i.place(1), kind) {
        b.offer(Prior::Load(d));
    }
}

/// The commonest source of what is compared.
pub(super) type Load<D> = Mov<u32, D, SrcMem<Flat>>;

fn mov_word(b: &mut Builder, i: &Insn) {
    let kind = b.addr_kind(i);
    let run = match (i.place(0), i.place(1)) {
        (Place::Mem, Place::Imm) => by_addr!(kind, A => Choice::plain::<Mov<u16, DstMem<A>, SrcImm>>()),
        (Place::Mem, _) => by_addr!(kind, A => Choice::plain::<Mov<u16, DstMem<A>, SrcReg>>()),
        (_, Place::Mem) => by_addr!(kind, A => Choice::plain::<Mov<u16, DstReg, SrcMem<A>>>()),
        (_, Place::Imm) => Choice::plain::<Mov<u16, DstReg, SrcImm>>(),
        _ => Choice::plain::<Mov<u16, DstReg, SrcReg>>(),
    };
    b.emit_choice(i, run);
    if i.mem.is_some() {
        b.leaves();
    }
}

/// Bytes, with handlers of their own for the registers that most of them are in.
fn mov_byte(b: &mut Builder, i: &Insn) {
    let kind = b.addr_kind(i);
    let choice = match (i.place(0), i.place(1)) {
        (Place::Reg(d), Place::Reg(s)) => {
            by_low!(d, DstReg, D => by_low!(s, SrcReg, S => moves::<u8, D, S>()))
        }
        (Place::Reg(d), Place::Imm) => by_low!(d, DstReg, D => moves::<u8, D, SrcImm>()),
        (Place::Reg(d), Place::Mem) => {
            by_low!(d, DstReg, D => by_addr!(kind, A => moves::<u8, D, SrcMem<A>>()))
        }
        (_, Place::Reg(s)) => by_low!(s, SrcReg, S => by_addr!(kind, A => moves::<u8, DstMem<A>, S>())),
        _ => by_addr!(kind, A => moves::<u8, DstMem<A>, SrcImm>()),
    };
    b.emit_choice(i, choice);
    if i.mem.is_some() {
        b.leaves();
    }
}

/// Both operands are the same register.
fn is_of_itself(i: &Insn) -> bool {
    matches!((i.place(0), i.place(1)), (Place::Reg(d), Place::Reg(s)) if d == s)
}

pub(super) fn mov(b: &mut Builder, i: &Insn) {
    if is_of_itself(i) {
        return nop(b, i);
    }
    match i.width(0) {
        1 => mov_byte(b, i),
        2 => mov_word(b, i),
        _ => mov_dword(b, i),
    }
}

/// MOVZX and MOVSX from `N` to `W`.
pub(super) struct Extend<W, N, D, S, const SIGNED: bool>(P<(W, N, D, S)>);

impl<W: Int, N: Int, D: Dest, S: Source, const SIGNED: bool> Op for Extend<W, N, D, S, SIGNED> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let v = S::get::<N, SLOW>(cpu, u)?;
        let v = if SIGNED { v.sext() } else { v.zext() };
        D::set::<W, SLOW>(cpu, u, W::truncate(v))?;
        Ok(Flow::Next)
    }
}

fn extends<W: Int, N: Int, D: Dest, S: Source, const SIGNED: bool>() -> Choice {
    Choice::of::<Extend<W, N, D, S, SIGNED>, Extend<W, N, D::Plain, S::Plain, SIGNED>>()
}

fn extend<N: Int, const SIGNED: bool>(b: &mut Builder, i: &Insn) {
    let kind = b.addr_kind(i);
    let d = i.reg();
    let run = match (i.op16, i.place(1)) {
        (false, Place::Mem) => {
            by_reg!(d, D => by_addr!(kind, A => extends::<u32, N, D, SrcMem<A>, SIGNED>()))
        }
        (false, _) => by_reg!(d, D => by_low!(i.rm(), SrcReg, S => extends::<u32, N, D, S, SIGNED>())),
        (true, Place::Mem) => by_addr!(kind, A => extends::<u16, N, DstReg, SrcMem<A>, SIGNED>()),
        (true, _) => extends::<u16, N, DstReg, SrcReg, SIGNED>(),
    };
    b.emit_choice(i, run);
    if i.mem.is_some() {
        b.leaves();
    }
}

pub(super) fn movzx8(b: &mut Builder, i: &Insn) {
    extend::<u8, false>(b, i);
}
pub(super) fn movzx16(b: &mut Builder, i: &Insn) {
    extend::<u16, false>(b, i);
}
pub(super) fn movsx8(b: &mut Builder, i: &Insn) {
    extend::<u8, true>(b, i);
}
pub(super) fn movsx16(b: &mut Builder, i: &Insn) {
    extend::<u16, true>(b, i);
}

pub(super) struct Lea<D, A>(P<(D, A)>);

impl<D: Dest, A: Addr> Op for Lea<D, A> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let v = A::linear::<SLOW>(cpu, u, 1, false)?;
        D::set::<u32, SLOW>(cpu, u, v)?;
        Ok(Flow::Next)
    }
}

fn address<D: Dest, A: Addr>() -> Choice {
    Choice { run: step::<Lea<D, A>>, kind: Kind::of::<Lea<D::Plain, A::Plain>>() }
}

fn lea_any(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    let v = cpu.offset(u);
    cpu.set_reg_sized(u.src, v, u.op16());
    Ok(())
}

pub(super) fn lea(b: &mut Builder, i: &Insn) {
    if i.op16 || i.addr16 {
        b.call(i, lea_any);
        return;
    }
    let d = i.reg();
    // What assemblers fill up with.
    if matches!(i.mem, Some(Mem { index: None, base: Some(base), disp: 0, .. }) if base == d) {
        return nop(b, i);
    }
    let run = match i.mem {
        Some(Mem { index: None, base: Some(base), .. }) => {
            by_reg!(d, D => by_base!(AddrKind::Flat, Some(base), A => address::<D, A>()))
        }
        Some(Mem { index: None, .. }) => by_reg!(d, D => address::<D, Flat>()),
        _ => by_reg!(d, D => address::<D, FlatIndexed>()),
    };
    b.emit_choice(i, run);
}

/// CMOVcc. A memory source is read, and may fault, whatever the condition.
pub struct Cmov<T, D, S, const CC: u8>(P<(T, D, S)>);

impl<T: Int, D: Dest, S: Source, const CC: u8> Op for Cmov<T, D, S, CC> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let v = S::get::<T, SLOW>(cpu, u)?;
        if cpu.flags.condition(CC) {
            D::set::<T, SLOW>(cpu, u, v)?;
        }
        Ok(Flow::Next)
    }
}

/// SETcc.
pub(super) struct Set<D, const CC: u8>(P<D>);

impl<D: Dest, const CC: u8> Op for Set<D, CC> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let v = u8::from(cpu.flags.condition(CC));
        D::set::<u8, SLOW>(cpu, u, v)?;
        Ok(Flow::Next)
    }
}

/// Picks the instance of a handler for a condition: `by_condition!(cc, CC => expression)`.
macro_rules! by_condition {
    ($cc:expr, $CC:ident => $e:expr) => {
        $crate::isa::mov::by_condition!(@ $cc, $CC => $e, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $cc:expr, $CC:ident => $e:expr, $($n:literal)*) => {
        match $cc {
            $($n => { const $CC: u8 = $n; $e })*
            _ => { const $CC: u8 = 15; $e }
        }
    };
}
pub(super) use by_condition;

fn conditional<T: Int, D: Dest, S: Source>(condition: u8) -> Choice {
    by_condition!(condition, CC => Choice::of::<Cmov<T, D, S, CC>, Cmov<T, D::Plain, S::Plain, CC>>())
}

pub(super) fn cmov(b: &mut Builder, i: &Insn) {
    let cc = i.condition();
    let run = match (i.op16, i.place(1)) {
        (false, Place::Mem) => conditional::<u32, DstReg, SrcMem<Segmented>>(cc),
        (false, _) => by_reg!(i.reg(), D => conditional::<u32, D, SrcReg>(cc)),
        (true, Place::Mem) => conditional::<u16, DstReg, SrcMem<Segmented>>(cc),
        (true, _) => conditional::<u16, DstReg, SrcReg>(cc),
    };
    b.emit_choice(i, run);
    b.reads_flags();
    if i.mem.is_some() {
        b.leaves();
    }
}

pub(super) fn set(b: &mut Builder, i: &Insn) {
    let run = match i.place(0) {
        Place::Mem => by_condition!(i.condition(), CC => step::<Set<DstMem<Segmented>, CC>>),
        _ => by_low!(i.rm(), DstReg, D => by_condition!(i.condition(), CC => step::<Set<D, CC>>)),
    };
    b.emit(i, run);
    b.reads_flags();
    if i.mem.is_some() {
        b.leaves();
    }
}

/// XCHG with a register.
struct Xchg<T, D>(P<(T, D)>);

impl<T: Int, D: Dest> Op for Xchg<T, D> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let mut old = T::truncate(0);
        let new = cpu.regs.get(u.src);
        D::modify::<T, SLOW>(cpu, u, |_, v| {
            old = v;
            new
        })?;
        cpu.regs.set(u.src, old);
        Ok(Flow::Next)
    }
}

fn xchg_sized<T: Int>(b: &mut Builder, i: &Insn) {
    let run = match i.place(0) {
        Place::Mem => by_addr!(b.addr_kind(i), A => step::<Xchg<T, DstMem<A>>>),
        _ => step::<Xchg<T, DstReg>>,
    };
    b.emit(i, run);
    if let Place::Reg(n) = i.place(1) {
        b.writes(if T::BITS == 8 { n & 3 } else { n });
    }
    if i.mem.is_some() {
        b.leaves();
    }
}

pub(super) fn xchg(b: &mut Builder, i: &Insn) {
    if is_of_itself(i) {
        return nop(b, i);
    }
    match i.width(0) {
        1 => xchg_sized::<u8>(b, i),
        2 => xchg_sized::<u16>(b, i),
        _ => xchg_sized::<u32>(b, i),
    }
}

pub(super) struct Nop;

impl Op for Nop {
    #[inline(always)]
    fn exec<const SLOW: bool>(_: &mut Cpu, _: &Uop) -> Step {
        Ok(Flow::Next)
    }
}

pub(super) fn nop(b: &mut Builder, i: &Insn) {
    b.elide(i);
}

/// CBW and CWDE.
struct ExtendAccumulator<W, N>(P<(W, N)>);

impl<W: Int, N: Int> Op for ExtendAccumulator<W, N> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, _: &Uop) -> Step {
        let v = cpu.regs.get::<N>(Reg::dword(gpr::EAX)).sext();
        cpu.regs.set(Reg::dword(gpr::EAX), W::truncate(v));
        Ok(Flow::Next)
    }
}

pub(super) fn cbw(b: &mut Builder, i: &Insn) {
    b.emit(i, if i.op16 { step::<ExtendAccumulator<u16, u8>> } else { step::<ExtendAccumulator<u32, u16>> });
    b.writes(gpr::EAX);
}

/// CWD and CDQ.
struct SpreadSign<T>(P<T>);

impl<T: Int> Op for SpreadSign<T> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, _: &Uop) -> Step {
        let sign = cpu.regs.get::<T>(Reg::dword(gpr::EAX)).sext() as i32 >> 31;
        cpu.regs.set(Reg::dword(gpr::EDX), T::truncate(sign as u32));
        Ok(Flow::Next)
    }
}

pub(super) fn cwd(b: &mut Builder, i: &Insn) {
    b.emit(i, if i.op16 { step::<SpreadSign<u16>> } else { step::<SpreadSign<u32>> });
    b.writes(gpr::EDX);
}

pub(super) fn mov_from_segment(b: &mut Builder, i: &Insn) {
    fn run(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        let selector = cpu.seg[u.imm as usize % 6].arch.selector;
        if u.is_mem() {
            cpu.write_mem::<u16>(u, 0, selector)
        } else {
            cpu.set_reg_sized(u.dst, selector.into(), u.op16());
            Ok(())
        }
    }
    match SegName::from_number(i.reg()) {
        Some(_) => b.call(i, run).imm = i.reg().into(),
        None => super::branch::ud(b, i),
    }
}

pub(super) fn mov_to_segment(b: &mut Builder, i: &Insn) {
    fn run(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        let selector = cpu.get_rm::<u16>(u)?;
        load_numbered(cpu, u.imm as u8, selector)
    }
    match SegName::from_number(i.reg()) {
        None | Some(SegName::CS) => super::branch::ud(b, i),
        Some(_) => b.call(i, run).imm = i.reg().into(),
    }
}

/// Loads a segment register by number; SS starts an interrupt shadow.
pub(super) fn load_numbered(cpu: &mut Cpu, number: u8, selector: u16) -> Result<()> {
    let name = SegName::from_number(number).ok_or(Exception::INVALID_OPCODE)?;
    cpu.load_segment(name, selector)?;
    if name == SegName::SS {
        (cpu.shadow, cpu.hold_traps, cpu.stepping) = (true, true, false);
        cpu.attention = true;
    }
    Ok(())
}

fn load_far(cpu: &mut Cpu, u: &Uop, name: SegName) -> Result<()> {
    let (offset, selector) = if u.op16() {
        (cpu.read_mem::<u16>(u, 0)?.into(), cpu.read_mem::<u16>(u, 2)?)
    } else {
        (cpu.read_mem::<u32>(u, 0)?, cpu.read_mem::<u16>(u, 4)?)
    };
    cpu.load_segment(name, selector)?;
    cpu.set_reg_sized(u.src, offset, u.op16());
    Ok(())
}

pub(super) fn les(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| load_far(cpu, u, SegName::ES));
}
pub(super) fn lds(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| load_far(cpu, u, SegName::DS));
}
pub(super) fn lss(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| load_far(cpu, u, SegName::SS));
}
pub(super) fn lfs(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| load_far(cpu, u, SegName::FS));
}
pub(super) fn lgs(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| load_far(cpu, u, SegName::GS));
}

/// CMPXCHG.
struct CompareExchange<T, D>(P<(T, D)>);

impl<T: Int, D: Dest> Op for CompareExchange<T, D> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let accumulator = cpu.regs.get::<T>(Reg::dword(gpr::EAX));
        let new = cpu.regs.get::<T>(u.src);
        // The destination is written either way.
        D::modify::<T, SLOW>(cpu, u, |cpu, old| {
            cpu.flags.sub(accumulator, old, 0);
            if accumulator == old {
                return new;
            }
            cpu.regs.set(Reg::dword(gpr::EAX), old);
            old
        })?;
        Ok(Flow::Next)
    }
}

/// XADD.
struct ExchangeAdd<T, D>(P<(T, D)>);

impl<T: Int, D: Dest> Op for ExchangeAdd<T, D> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let added = cpu.regs.get::<T>(u.src);
        // With one register as both operands the sum is what stays: it is written last.
        D::modify::<T, SLOW>(cpu, u, |cpu, old| {
            cpu.regs.set(u.src, old);
            cpu.flags.add(old, added, 0)
        })?;
        Ok(Flow::Next)
    }
}

/// Emits CMPXCHG or XADD, which write the register `n`, too.
fn emit_exchange(b: &mut Builder, i: &Insn, run: Choice, n: u8) {
    b.emit_choice(i, run);
    b.writes_flags(true, None);
    b.writes(if i.width(0) == 1 { n & 3 } else { n });
    if i.mem.is_some() {
        b.leaves();
    }
}

fn compare_exchange<T: Int, D: Dest>() -> Choice {
    Choice::of::<CompareExchange<T, D>, CompareExchange<T, D::Plain>>()
}

fn exchange_add<T: Int, D: Dest>() -> Choice {
    Choice::of::<ExchangeAdd<T, D>, ExchangeAdd<T, D::Plain>>()
}

pub(super) fn cmpxchg(b: &mut Builder, i: &Insn) {
    let run = by_operand!(b, i, (T, D) => compare_exchange::<T, D>());
    emit_exchange(b, i, run, gpr::EAX);
}

pub(super) fn xadd(b: &mut Builder, i: &Insn) {
    let run = by_operand!(b, i, (T, D) => exchange_add::<T, D>());
    emit_exchange(b, i, run, i.reg());
}

pub(super) fn cmpxchg8b(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let at = cpu.linear(u, 8, true)?;
        cpu.probe_write(at, 8)?;
        let low = cpu.read::<u32>(at)?;
        let high = cpu.read::<u32>(at.wrapping_add(4))?;
        let equal = low == cpu.regs.r32(gpr::EAX) && high == cpu.regs.r32(gpr::EDX);
        let (new_low, new_high) =
            if equal { (cpu.regs.r32(gpr::EBX), cpu.regs.r32(gpr::ECX)) } else { (low, high) };
        cpu.write(at, new_low)?;
        cpu.write(at.wrapping_add(4), new_high)?;
        if !equal {
            cpu.regs.set_r32(gpr::EAX, low);
            cpu.regs.set_r32(gpr::EDX, high);
        }
        cpu.flags.set_zf(equal);
        Ok(())
    });
    b.reads_flags();
}

pub(super) fn xlat(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let al = u32::from(cpu.regs.r32(gpr::EAX) as u8);
        let sum = cpu.regs.r32(gpr::EBX).wrapping_add(al);
        let offset = if u.addr16() { sum & 0xffff } else { sum };
        let at = cpu.check_segment(u.form & 7, offset, 1, false)?;
        let v = cpu.read::<u8>(at)?;
        cpu.regs.set(Reg::byte(gpr::EAX), v);
        Ok(())
    });
}
