//! Two- and one-operand integer arithmetic and logic.

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::lower::{
    AddrKind, Builder, Choice, Compared, Fuse, Kind, Place, Prior, Recovery, by_addr, by_low, by_reg,
};
use super::mov::{Load, by_condition};
use super::operand::{Addr, Dest, DstMem, DstReg, Flat, FlatIndexed, Source, SrcImm, SrcMem, SrcReg};
use crate::Cpu;
use crate::cpu::flags::Flags;
use crate::cpu::regs::Int;
use crate::dispatch::{Flow, Fused, Handler, Op, Step, Stop, Uop, fused, lead_fused, quick};

/// What an instruction computes from two operands.
pub(super) trait Alu: 'static {
    /// It reads CF.
    const CARRY_IN: bool = false;
    /// The destination is written.
    const WRITES: bool = true;
    /// How the first operand follows from the result and the second.
    const RECOVERY: Inverse = Inverse::None;
    /// The result; sets flags if `FLAGS`.
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, b: T) -> T;
}

/// What a finished operation's flags can be found from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Inverse {
    None,
    /// The result alone.
    Logic,
    /// Result minus second operand.
    Add,
    /// Result plus second operand.
    Sub,
}

#[inline(always)]
fn add_with<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, b: T, carry: u32) -> T {
    if FLAGS {
        return f.add(a, b, carry);
    }
    T::truncate(a.zext().wrapping_add(b.zext()).wrapping_add(carry))
}

#[inline(always)]
fn sub_with<T: Int, const FLAGS: bool>(f: &mut Flags, a: T, b: T, borrow: u32) -> T {
    if FLAGS {
        return f.sub(a, b, borrow);
    }
    T::truncate(a.zext().wrapping_sub(b.zext()).wrapping_sub(borrow))
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
    ($name:ident, $carry:expr, $writes:expr, $recovery:ident, |$f:ident, $a:ident, $b:ident| $e:expr) => {
        pub(super) struct $name;
        impl Alu for $name {
            const CARRY_IN: bool = $carry;
            const WRITES: bool = $writes;
            const RECOVERY: Inverse = Inverse::$recovery;
            #[inline(always)]
            fn apply<T: Int, const FLAGS: bool>($f: &mut Flags, $a: T, $b: T) -> T {
                $e
            }
        }
    };
}

alu!(Add, false, true, Add, |f, a, b| add_with::<T, FLAGS>(f, a, b, 0));
alu!(Adc, true, true, None, |f, a, b| {
    let carry = f.cf().into();
    add_with::<T, FLAGS>(f, a, b, carry)
});
alu!(Sub, false, true, Sub, |f, a, b| sub_with::<T, FLAGS>(f, a, b, 0));
alu!(Sbb, true, true, None, |f, a, b| {
    let borrow = f.cf().into();
    sub_with::<T, FLAGS>(f, a, b, borrow)
});
alu!(Cmp, false, false, None, |f, a, b| sub_with::<T, FLAGS>(f, a, b, 0));
alu!(And, false, true, Logic, |f, a, b| logic::<T, FLAGS>(f, a.zext() & b.zext()));
alu!(Or, false, true, Logic, |f, a, b| logic::<T, FLAGS>(f, a.zext() | b.zext()));
alu!(Xor, false, true, Logic, |f, a, b| logic::<T, FLAGS>(f, a.zext() ^ b.zext()));
alu!(Test, false, false, None, |f, a, b| logic::<T, FLAGS>(f, a.zext() & b.zext()));

/// `O` on a destination and a source.
pub(super) struct Two<O, T, D, S, const FLAGS: bool>(P<(O, T, D, S)>);

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

/// The condition that a fused comparison is to decide; what it computes from the operands equals
/// what Jcc would find in the flags.
pub(super) trait Compare: Alu {
    fn holds<T: Int, const CC: u8>(f: &Flags, a: T, b: T) -> bool;
}

impl Compare for Cmp {
    #[inline(always)]
    fn holds<T: Int, const CC: u8>(f: &Flags, a: T, b: T) -> bool {
        let (x, y) = (a.zext(), b.zext());
        let (signed_x, signed_y) = (a.sext() as i32, b.sext() as i32);
        let v = match CC >> 1 {
            1 => x < y,
            2 => x == y,
            3 => x <= y,
            6 => signed_x < signed_y,
            7 => signed_x <= signed_y,
            _ => return f.condition(CC),
        };
        v != (CC & 1 != 0)
    }
}

impl Compare for Test {
    #[inline(always)]
    fn holds<T: Int, const CC: u8>(f: &Flags, a: T, b: T) -> bool {
        let r = T::truncate(a.zext() & b.zext()).sext() as i32;
        let v = match CC >> 1 {
            0 | 1 => false,
            2 | 3 => r == 0,
            4 | 6 => r < 0,
            7 => r <= 0,
            _ => return f.condition(CC),
        };
        v != (CC & 1 != 0)
    }
}

/// A comparison and the conditional branch behind it.
pub(super) struct CompareBranch<O, T, D, S, const CC: u8>(P<(O, T, D, S)>);

impl<O: Compare, T: Int, D: Dest, S: Source, const CC: u8> Fused for CompareBranch<O, T, D, S, CC> {
    type First = Two<O, T, D::Plain, S::Plain, true>;
    #[inline(always)]
    fn test(cpu: &mut Cpu, u: &Uop) -> Result<bool, Stop> {
        let b = S::get::<T, false>(cpu, u)?;
        let a = D::get::<T, false>(cpu, u)?;
        O::apply::<T, true>(&mut cpu.flags, a, b);
        Ok(O::holds::<T, CC>(&cpu.flags, a, b))
    }
}

fn fuse<O: Compare, T: Int, D: Dest, S: Source>(condition: u8) -> Handler {
    by_condition!(condition, CC => fused::<CompareBranch<O, T, D, S, CC>>)
}

/// How a comparison becomes one handler with a branch, and what it is to those before it.
type Fusable = (Fuse, Option<Compared>);

fn fusing<O: Compare, T: Int, D: Dest, S: Source>() -> Fusable {
    (fuse::<O, T, D, S>, Compared::of::<Plain<O, T, D, S, true>>())
}

/// An operation on a register and the conditional branch behind it.
pub(super) struct OpBranch<O, const CC: u8>(P<O>);

impl<O: Op, const CC: u8> Fused for OpBranch<O, CC> {
    type First = O;
    #[inline(always)]
    fn test(cpu: &mut Cpu, u: &Uop) -> Result<bool, Stop> {
        O::exec::<false>(cpu, u)?;
        Ok(cpu.flags.condition(CC))
    }
}

pub(super) fn fuse_op<O: Op>(condition: u8) -> Handler {
    by_condition!(condition, CC => fused::<OpBranch<O, CC>>)
}

fn fuse_loaded<O: Compare, D: Dest + Source, S: Source>(condition: u8) -> Handler {
    by_condition!(condition, CC => {
        lead_fused::<Load<D>, Load<DstReg>, CompareBranch<O, u32, D, S, CC>>
    })
}

/// Offers a comparison to the branch that may come next, together with the load of what is compared.
fn fusable<O: Compare>(b: &mut Builder, i: &Insn, prior: Prior) {
    let Some((fuse, compared)) = fuse_of::<O>(b, i) else { return };
    let loaded: Option<Fuse> = match (prior, i.place(0), i.place(1)) {
        _ if i.width(0) != 4 => None,
        (Prior::Load(r), Place::Reg(d), Place::Reg(s)) if r == d && r == s => {
            Some(by_reg!(d, D => fuse_loaded::<O, D, D>))
        }
        (Prior::Load(r), Place::Reg(d), Place::Imm) if r == d => {
            Some(by_reg!(d, D => fuse_loaded::<O, D, SrcImm>))
        }
        _ => None,
    };
    b.offer(Prior::Compare { fuse, loaded, compared });
}

/// How to fuse a comparison with these operands, if there is a handler for them.
fn fuse_of<O: Compare>(b: &Builder, i: &Insn) -> Option<Fusable> {
    match i.width(0) {
        1 => fuse_low::<O>(i).or_else(|| fuse_sized::<O, u8>(b, i)),
        2 => fuse_sized::<O, u16>(b, i),
        4 => fuse_registers::<O>(i).or_else(|| fuse_sized::<O, u32>(b, i)),
        _ => None,
    }
}

/// Comparisons of 32-bit registers, by far the commonest.
fn fuse_registers<O: Compare>(i: &Insn) -> Option<Fusable> {
    match (i.place(0), i.place(1)) {
        (Place::Reg(d), Place::Reg(s)) if d == s => Some(by_reg!(d, D => fusing::<O, u32, D, D>())),
        (Place::Reg(d), Place::Reg(_)) => Some(by_reg!(d, D => fusing::<O, u32, D, SrcReg>())),
        (Place::Reg(d), Place::Imm) => Some(by_reg!(d, D => fusing::<O, u32, D, SrcImm>())),
        _ => None,
    }
}

/// Comparisons of the registers that most bytes are in.
fn fuse_low<O: Compare>(i: &Insn) -> Option<Fusable> {
    match (i.place(0), i.place(1)) {
        (Place::Reg(d), Place::Reg(s)) if d == s => {
            Some(by_low!(d, DstReg, D => by_low!(d, SrcReg, S => fusing::<O, u8, D, S>())))
        }
        (Place::Reg(d), Place::Imm) => Some(by_low!(d, DstReg, D => fusing::<O, u8, D, SrcImm>())),
        _ => None,
    }
}

fn fuse_sized<O: Compare, T: Int>(b: &Builder, i: &Insn) -> Option<Fusable> {
    match (i.place(0), i.place(1), b.addr_kind(i)) {
        (Place::Reg(_), Place::Reg(_), _) => Some(fusing::<O, T, DstReg, SrcReg>()),
        (Place::Reg(_), Place::Imm, _) => Some(fusing::<O, T, DstReg, SrcImm>()),
        (_, _, AddrKind::Flat) => fuse_memory::<O, T, Flat>(i),
        (_, _, AddrKind::Indexed) => fuse_memory::<O, T, FlatIndexed>(i),
        _ => None,
    }
}

fn fuse_memory<O: Compare, T: Int, A: Addr>(i: &Insn) -> Option<Fusable> {
    match (i.place(0), i.place(1)) {
        (Place::Reg(_), _) => Some(fusing::<O, T, DstReg, SrcMem<A>>()),
        (_, Place::Reg(_)) => Some(fusing::<O, T, DstMem<A>, SrcReg>()),
        _ => Some(fusing::<O, T, DstMem<A>, SrcImm>()),
    }
}

type Plain<O, T, D, S, const FLAGS: bool> = Two<O, T, <D as Dest>::Plain, <S as Source>::Plain, FLAGS>;

/// The handlers that set flags and that do not.
fn pair<O: Alu, T: Int, D: Dest, S: Source>() -> (Choice, Choice) {
    let run = quick::<Two<O, T, D, S, false>, Plain<O, T, D, S, true>>;
    (
        Choice::of::<Two<O, T, D, S, true>, Plain<O, T, D, S, true>>(),
        Choice { run, kind: Kind::of::<Plain<O, T, D, S, false>>() },
    )
}

/// As [`two_operands`], with handlers of their own for 32-bit registers.
fn by_registers<O: Alu>(b: &mut Builder, i: &Insn) {
    let kind = b.addr_kind(i);
    let (with, without) = match (i.place(0), i.place(1)) {
        _ if i.width(0) != 4 => return two_operands::<O>(b, i),
        (Place::Reg(d), Place::Reg(s)) => by_reg!(d, D => by_reg!(s, S => pair::<O, u32, D, S>())),
        (Place::Reg(d), Place::Imm) => by_reg!(d, D => pair::<O, u32, D, SrcImm>()),
        (Place::Reg(d), Place::Mem) => by_reg!(d, D => by_addr!(kind, A => pair::<O, u32, D, SrcMem<A>>())),
        _ => return two_operands::<O>(b, i),
    };
    b.emit_choice(i, with);
    finish::<O>(b, i, without);
}

/// As [`by_registers`], and such an operation is fused with the branch that may come next.
fn common<O: Alu>(b: &mut Builder, i: &Insn) {
    by_registers::<O>(b, i);
    match (i.place(0), i.place(1)) {
        _ if i.width(0) != 4 => {}
        (Place::Reg(_), Place::Reg(_)) => b.fusable(Some(fuse_op::<Two<O, u32, DstReg, SrcReg, true>>)),
        (Place::Reg(_), Place::Imm) => b.fusable(Some(fuse_op::<Two<O, u32, DstReg, SrcImm, true>>)),
        _ => {}
    }
}

fn two_operands_sized<O: Alu, T: Int>(b: &mut Builder, i: &Insn) {
    let kind = b.addr_kind(i);
    let (with, without) = match (i.place(0), i.place(1)) {
        (Place::Mem, Place::Imm) => by_addr!(kind, A => pair::<O, T, DstMem<A>, SrcImm>()),
        (Place::Mem, _) => by_addr!(kind, A => pair::<O, T, DstMem<A>, SrcReg>()),
        (_, Place::Mem) => by_addr!(kind, A => pair::<O, T, DstReg, SrcMem<A>>()),
        (_, Place::Imm) => pair::<O, T, DstReg, SrcImm>(),
        _ => pair::<O, T, DstReg, SrcReg>(),
    };
    b.emit_choice(i, with);
    finish::<O>(b, i, without);
}

fn finish<O: Alu>(b: &mut Builder, i: &Insn, without: Choice) {
    b.writes_flags(true, Some(without));
    if O::CARRY_IN {
        b.reads_flags();
    }
    if i.mem.is_some() {
        b.leaves();
    }
    let recovery = recovery::<O>(i);
    b.recoverable(recovery);
}

/// How flags follow from registers after the instruction: bits 0-1 operand size, 2-4 one of these.
mod how {
    pub const LOGIC: u8 = 0;
    pub const ADD_REG: u8 = 1;
    pub const ADD_IMM: u8 = 2;
    pub const SUB_REG: u8 = 3;
    pub const SUB_IMM: u8 = 4;
    pub const INC: u8 = 5;
    pub const DEC: u8 = 6;
    pub const NEG: u8 = 7;
}

fn recovery<O: Alu>(i: &Insn) -> Option<Recovery> {
    let bit = |n: u8| register_bit(i, n);
    let (Place::Reg(dst), true) = (i.place(0), O::WRITES) else { return None };
    let (how, registers) = match (O::RECOVERY, i.place(1)) {
        (Inverse::Logic, Place::Reg(_) | Place::Imm) => (how::LOGIC, bit(dst)),
        // Of a register with itself: the difference is zero, the sum has lost a bit.
        (Inverse::Sub, Place::Reg(src)) if src == dst => (how::LOGIC, bit(dst)),
        (Inverse::Add, Place::Reg(src)) if bit(src) != bit(dst) => (how::ADD_REG, bit(dst) | bit(src)),
        (Inverse::Add, Place::Imm) => (how::ADD_IMM, bit(dst)),
        (Inverse::Sub, Place::Reg(src)) if bit(src) != bit(dst) => (how::SUB_REG, bit(dst) | bit(src)),
        (Inverse::Sub, Place::Imm) => (how::SUB_IMM, bit(dst)),
        _ => return None,
    };
    Some(recovery_by(i, how, registers))
}

/// The register that is operand `n` of an instruction, as a bit.
fn register_bit(i: &Insn, n: u8) -> u8 {
    1 << if i.width(0) == 1 { n & 3 } else { n }
}

fn recovery_by(i: &Insn, how: u8, registers: u8) -> Recovery {
    Recovery { code: how << 2 | (i.width(0) as u8 >> 1), registers }
}

/// Sets the flags that a uop marked for it left alone, from its operands as they are now.
pub(crate) fn recover(cpu: &mut Cpu, u: &Uop) {
    match u.form & 3 {
        0 => recover_sized::<u8>(cpu, u),
        1 => recover_sized::<u16>(cpu, u),
        _ => recover_sized::<u32>(cpu, u),
    }
}

fn recover_sized<T: Int>(cpu: &mut Cpu, u: &Uop) {
    let r = cpu.regs.get::<T>(u.dst);
    let how = u.form >> 2;
    let b = match how {
        how::ADD_REG | how::SUB_REG => cpu.regs.get::<T>(u.src),
        _ => T::truncate(u.imm),
    };
    let f = &mut cpu.flags;
    match how {
        how::LOGIC => f.set_logic(r),
        how::INC => {
            Inc::apply::<T, true>(f, T::truncate(r.zext().wrapping_sub(1)));
        }
        how::DEC => {
            Dec::apply::<T, true>(f, T::truncate(r.zext().wrapping_add(1)));
        }
        how::NEG => {
            Neg::apply::<T, true>(f, T::truncate(r.zext().wrapping_neg()));
        }
        how::ADD_REG | how::ADD_IMM => {
            add_with::<T, true>(f, T::truncate(r.zext().wrapping_sub(b.zext())), b, 0);
        }
        _ => {
            sub_with::<T, true>(f, T::truncate(r.zext().wrapping_add(b.zext())), b, 0);
        }
    }
}

fn two_operands<O: Alu>(b: &mut Builder, i: &Insn) {
    match i.width(0) {
        1 => two_operands_sized::<O, u8>(b, i),
        2 => two_operands_sized::<O, u16>(b, i),
        _ => two_operands_sized::<O, u32>(b, i),
    }
}

pub(super) fn add(b: &mut Builder, i: &Insn) {
    common::<Add>(b, i);
}
pub(super) fn or(b: &mut Builder, i: &Insn) {
    common::<Or>(b, i);
}
pub(super) fn adc(b: &mut Builder, i: &Insn) {
    by_registers::<Adc>(b, i);
}
pub(super) fn sbb(b: &mut Builder, i: &Insn) {
    by_registers::<Sbb>(b, i);
}
pub(super) fn and(b: &mut Builder, i: &Insn) {
    common::<And>(b, i);
}
pub(super) fn sub(b: &mut Builder, i: &Insn) {
    common::<Sub>(b, i);
}
pub(super) fn xor(b: &mut Builder, i: &Insn) {
    common::<Xor>(b, i);
}
pub(super) fn cmp(b: &mut Builder, i: &Insn) {
    let prior = b.prior();
    two_operands::<Cmp>(b, i);
    fusable::<Cmp>(b, i, prior);
}
pub(super) fn test(b: &mut Builder, i: &Insn) {
    let prior = b.prior();
    two_operands::<Test>(b, i);
    fusable::<Test>(b, i, prior);
}

/// What an instruction computes from one operand.
pub(super) trait Unary: 'static {
    /// All arithmetic flags are overwritten.
    const ALL_FLAGS: bool;
    /// Some flags are written.
    const FLAGS: bool = true;
    /// How they follow from the result.
    const RECOVERY: Option<u8> = None;
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T) -> T;
}

pub(super) struct Inc;
pub(super) struct Dec;
pub struct Neg;
pub(super) struct Not;

impl Unary for Inc {
    const ALL_FLAGS: bool = false;
    const RECOVERY: Option<u8> = Some(how::INC);
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T) -> T {
        if FLAGS { f.inc(a) } else { T::truncate(a.zext().wrapping_add(1)) }
    }
}

impl Unary for Dec {
    const ALL_FLAGS: bool = false;
    const RECOVERY: Option<u8> = Some(how::DEC);
    #[inline(always)]
    fn apply<T: Int, const FLAGS: bool>(f: &mut Flags, a: T) -> T {
        if FLAGS { f.dec(a) } else { T::truncate(a.zext().wrapping_sub(1)) }
    }
}

impl Unary for Neg {
    const ALL_FLAGS: bool = true;
    const RECOVERY: Option<u8> = Some(how::NEG);
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

pub(super) struct One<O, T, D, const FLAGS: bool>(P<(O, T, D)>);

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

/// The handlers that set flags and that do not.
fn one_pair<O: Unary, T: Int, D: Dest>() -> (Choice, Choice) {
    let run = quick::<One<O, T, D, false>, One<O, T, D::Plain, true>>;
    (
        Choice::of::<One<O, T, D, true>, One<O, T, D::Plain, true>>(),
        Choice { run, kind: Kind::of::<One<O, T, D::Plain, false>>() },
    )
}

fn one_sized<O: Unary, T: Int>(b: &mut Builder, i: &Insn) {
    let kind = b.addr_kind(i);
    let pair = match i.place(0) {
        Place::Mem => by_addr!(kind, A => one_pair::<O, T, DstMem<A>>()),
        _ => one_pair::<O, T, DstReg>(),
    };
    emit_one::<O>(b, i, pair);
}

fn emit_one<O: Unary>(b: &mut Builder, i: &Insn, (with, without): (Choice, Choice)) {
    b.emit_choice(i, with);
    if O::FLAGS {
        b.writes_flags(O::ALL_FLAGS, Some(without));
    }
    if i.mem.is_some() {
        b.leaves();
    }
    if let (Place::Reg(dst), Some(how)) = (i.place(0), O::RECOVERY) {
        b.recoverable(Some(recovery_by(i, how, register_bit(i, dst))));
    }
}

/// As [`one_operand`], with handlers of their own for 32-bit registers.
fn by_register<O: Unary>(b: &mut Builder, i: &Insn) {
    match i.place(0) {
        Place::Reg(d) if i.width(0) == 4 => {
            emit_one::<O>(b, i, by_reg!(d, D => one_pair::<O, u32, D>()));
        }
        _ => one_operand::<O>(b, i),
    }
}

/// INC and DEC, which are fused with the branch that may come next.
fn count<O: Unary>(b: &mut Builder, i: &Insn) {
    by_register::<O>(b, i);
    match i.place(0) {
        Place::Reg(d) if i.width(0) == 4 => {
            b.fusable(Some(by_reg!(d, D => fuse_op::<One<O, u32, D, true>>)));
        }
        Place::Mem if i.width(0) == 4 && b.addr_kind(i) == AddrKind::Flat => {
            b.fusable(Some(fuse_op::<One<O, u32, DstMem<Flat>, true>>));
        }
        _ => {}
    }
}

fn one_operand<O: Unary>(b: &mut Builder, i: &Insn) {
    match i.width(0) {
        1 => one_sized::<O, u8>(b, i),
        2 => one_sized::<O, u16>(b, i),
        _ => one_sized::<O, u32>(b, i),
    }
}

pub(super) fn inc(b: &mut Builder, i: &Insn) {
    count::<Inc>(b, i);
}
pub(super) fn dec(b: &mut Builder, i: &Insn) {
    count::<Dec>(b, i);
}
pub(super) fn neg(b: &mut Builder, i: &Insn) {
    by_register::<Neg>(b, i);
}
pub(super) fn not(b: &mut Builder, i: &Insn) {
    by_register::<Not>(b, i);
}
