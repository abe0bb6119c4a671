//! Two instructions in a row, or one and the end of its block, executed by one handler for the registers that they write.
//!
//! Processors hand a value on from a store to a load at once if both are at a constant place, and not if the place is
//! found by number. So a handler is made for each register that is written; what is read is most often older, and may be
//! found by number where handlers for its particular registers would be too many.
//!
//! Compilers make two instructions of an operation with three operands: MOV, and the operation on the register that
//! MOV writes; what is computed in several steps is most often in one register, too. Such a handler stores that register
//! once, where two handlers store, load and store it.

use super::join::{
    AfterQuick, Compared, End, Kind, branching_on_low, choose, commonly_branching, kind, leaving, operations,
};
use super::{by_data_reg, by_octal, by_reg};
use crate::cpu::regs::{Int, Reg};
use crate::dispatch::{Alone, Handler, Op, Then, Uop, joined};
use crate::isa::alu::{Alu, One, Two, Unary};
use crate::isa::branch::{JmpTo, PcThunk};
use crate::isa::mov::{Extend, Lea, Mov};
use crate::isa::operand::{Addr, Based, Dest, DstMem, DstReg, Flat, Low, R, Source, SrcImm, SrcMem, SrcReg};
use crate::isa::shift::{ByImm, Shift};

/// An instruction that writes a register, whichever it is.
trait OnRegister: Op + 'static {
    /// Its second operand.
    type From: Source;
    /// The same for `D`, from `S` unless its second operand is an immediate.
    type On<D: Dest, S: Source>: Op;
}

impl<O: Alu, const FLAGS: bool> OnRegister for Two<O, u32, DstReg, SrcImm, FLAGS> {
    type From = SrcImm;
    type On<D: Dest, S: Source> = Two<O, u32, D, SrcImm, FLAGS>;
}

impl<O: Alu, const FLAGS: bool> OnRegister for Two<O, u32, DstReg, SrcReg, FLAGS> {
    type From = SrcReg;
    type On<D: Dest, S: Source> = Two<O, u32, D, S, FLAGS>;
}

impl<O: Unary, const FLAGS: bool> OnRegister for One<O, u32, DstReg, FLAGS> {
    type From = SrcImm;
    type On<D: Dest, S: Source> = One<O, u32, D, FLAGS>;
}

impl<O: Shift, const FLAGS: bool> OnRegister for ByImm<O, u32, DstReg, FLAGS> {
    type From = SrcImm;
    type On<D: Dest, S: Source> = ByImm<O, u32, D, FLAGS>;
}

impl OnRegister for PcThunk<DstReg> {
    type From = SrcImm;
    type On<D: Dest, S: Source> = PcThunk<D>;
}

impl<A: Addr> OnRegister for Lea<DstReg, A> {
    type From = SrcImm;
    type On<D: Dest, S: Source> = Lea<D, A>;
}

impl OnRegister for Mov<u32, DstReg, SrcImm> {
    type From = SrcImm;
    type On<D: Dest, S: Source> = Mov<u32, D, S>;
}

impl OnRegister for Mov<u32, DstReg, SrcReg> {
    type From = SrcReg;
    type On<D: Dest, S: Source> = Mov<u32, D, S>;
}

impl<A: Addr> OnRegister for Mov<u32, DstReg, SrcMem<A>> {
    type From = SrcMem<A>;
    type On<D: Dest, S: Source> = Mov<u32, D, S>;
}

impl<N: Int, A: Addr> OnRegister for Extend<u32, N, DstReg, SrcMem<A>, false> {
    type From = SrcMem<A>;
    type On<D: Dest, S: Source> = Extend<u32, N, D, S, false>;
}

impl<O: Alu, A: Addr, const FLAGS: bool> OnRegister for Two<O, u32, DstReg, SrcMem<A>, FLAGS> {
    type From = SrcMem<A>;
    type On<D: Dest, S: Source> = Two<O, u32, D, S, FLAGS>;
}

/// `A` on register `D`, with `S`, and `B` on it, with `T`.
fn both<D: Dest, A: OnRegister, S: Source, B: OnRegister, T: Source>() -> Handler {
    joined::<Then<A::On<D, S>, A, Alone<B::On<D, T>, B>>>
}

/// The handler of two instructions of these kinds, if there is one.
pub(super) fn pair(a: (Kind, &Uop), b: (Kind, &Uop)) -> Option<Handler> {
    on_one(a, b).or_else(|| on_two(a, b))
}

/// The handler of MOV to a register, a rotation or shift of it, and an operation on it with another, if there is one: hashes
/// are made of these.
pub(super) fn mix(a: (Kind, &Uop), b: (Kind, &Uop), c: (Kind, &Uop)) -> Option<Handler> {
    type Move = Mov<u32, DstReg, SrcReg>;
    let d = a.1.dst;
    if a.0 != Kind::Move || b.1.dst != d || c.1.dst != d || c.1.src == d {
        return None;
    }
    by_data_reg!(d.number(), D => operations!(b.0, B in [RorImm RolImm ShrImm ShlImm] => {
        operations!(c.0, C in [XorReg AddReg OrReg AndReg] => {
            Some(joined::<Then<Wrote<Move, D>, Move, Then<Wrote<B, D>, B, Alone<Wrote<C, D>, C>>>> as Handler)
        })
    }))
}

/// Two that write the same register.
fn on_one(a: (Kind, &Uop), b: (Kind, &Uop)) -> Option<Handler> {
    if a.1.dst != b.1.dst {
        return None;
    }
    by_data_reg!(a.1.dst.number(), D => match a.0 {
        Kind::Move => by_reg!(a.1.src.number(), S => moved::<D, S>(b)),
        Kind::Load if a.1.base == Reg::ZERO => None,
        Kind::Load => loaded::<D>(a.1, b.0),
        _ => computed::<D>(a.0, b.0),
    })
}

/// Two that are not computed in one register: the second reads the first's register in some places only, see [`of_that`].
fn on_two(a: (Kind, &Uop), b: (Kind, &Uop)) -> Option<Handler> {
    if a.0 == Kind::Store {
        return operations!(a.0, A in [Store] => then_load::<A, A>(b).or_else(|| then_store::<A, A>(b)));
    }
    if [b.1.src, b.1.base, b.1.index].contains(&a.1.dst) {
        return by_data_reg!(a.1.dst.number(), D => {
            operations!(a.0, A in [Load Move AddImm Address AddressIndexed] => of_that::<Wrote<A, D>, A, D>(a.1.dst, b))
        });
    }
    by_data_reg!(a.1.dst.number(), D => match a.0 {
        Kind::Load | Kind::Move => operations!(a.0, A in [Load Move] => {
            then_load::<Wrote<A, D>, A>(b)
                .or_else(|| then_address::<Wrote<A, D>, A>(b))
                .or_else(|| then_store::<Wrote<A, D>, A>(b))
        }),
        Kind::LoadByte => operations!(a.0, A in [LoadByte] => {
            then_load::<Wrote<A, D>, A>(b).or_else(|| then_store::<Wrote<A, D>, A>(b))
        }),
        _ => operations!(a.0, A in [AddImm MoveImm Address AddressIndexed] => {
            then_move::<Wrote<A, D>, A>(b)
                .or_else(|| then_address::<Wrote<A, D>, A>(b))
                .or_else(|| then_store::<Wrote<A, D>, A>(b))
        }),
    })
}

/// `A` that writes register `D`, its other operands found by number.
type Wrote<A, D> = <A as OnRegister>::On<D, <A as OnRegister>::From>;

/// The handler of `A` and of `B`, which writes the register of its uop `b`.
fn writes<A: Op, Plain: Op, B: OnRegister>(b: &Uop) -> Option<Handler> {
    by_data_reg!(b.dst.number(), D => Some(joined::<Then<A, Plain, Alone<Wrote<B, D>, B>>> as Handler))
}

fn then_load<A: Op, Plain: Op>((kind, b): (Kind, &Uop)) -> Option<Handler> {
    operations!(kind, B in [Load LoadIndexed Move LoadByte LoadByteIndexed LoadWordIndexed AddMem AddMemFlags] => {
        writes::<A, Plain, B>(b)
    })
}

fn then_move<A: Op, Plain: Op>((kind, b): (Kind, &Uop)) -> Option<Handler> {
    operations!(kind, B in [Load Move] => writes::<A, Plain, B>(b))
}

fn then_address<A: Op, Plain: Op>((kind, b): (Kind, &Uop)) -> Option<Handler> {
    operations!(kind, B in [Address AddressIndexed] => writes::<A, Plain, B>(b))
}

fn then_store<A: Op, Plain: Op>((kind, _): (Kind, &Uop)) -> Option<Handler> {
    operations!(kind, B in [Store] => Some(joined::<Then<A, Plain, Alone<B, B>>> as Handler))
}

/// `A`, which writes register `D`, and what reads it as `b`'s base or stores it.
fn of_that<A: Op, Plain: Op, D: Source + General>(d: Reg, (kind, b): (Kind, &Uop)) -> Option<Handler> {
    type Store<A, S> = Mov<u32, DstMem<A>, S>;
    match kind {
        Kind::Store if b.src == d && b.base != d => {
            Some(joined::<Then<A, Plain, Alone<Store<Flat, D>, Store<Flat, SrcReg>>>>)
        }
        Kind::Store if b.base == d && b.src != d => {
            Some(joined::<Then<A, Plain, Alone<Store<D::Base, SrcReg>, Store<Flat, SrcReg>>>>)
        }
        Kind::Load if b.base == d => by_data_reg!(b.dst.number(), E => {
            Some(joined::<Then<A, Plain, Alone<Mov<u32, E, SrcMem<D::Base>>, kind::Load>>> as Handler)
        }),
        Kind::Address if b.base == d => by_data_reg!(b.dst.number(), E => {
            Some(joined::<Then<A, Plain, Alone<Lea<E, D::Base>, kind::Address>>> as Handler)
        }),
        _ => None,
    }
}

/// A general register as the base of an address.
trait General {
    type Base: Addr;
}

impl<const N: u8> General for R<N> {
    type Base = Based<N>;
}

/// The handler of an instruction and of how the block ends behind it with `last`, if there is one.
pub(super) fn with_end(a: (Kind, &Uop), last: &Uop, end: End) -> Option<Handler> {
    let dst = a.1.dst;
    if let End::JumpTo = end {
        return operations!(a.0, A in [Load LoadIndexed AddReg AddRegFlags] => by_data_reg!(dst.number(), D => {
            let same = last.src == dst;
            same.then_some(joined::<Then<Wrote<A, D>, A, Alone<JmpTo<D>, JmpTo<SrcReg>>>> as Handler)
        }));
    }
    if let End::Branch { compared, condition, far: false } = end {
        if a.0 == Kind::LoadLow {
            return byte_and_branch(dst, last, compared, condition);
        }
        return operations!(a.0, A in [Load Move IncReg AddImm] => by_data_reg!(dst.number(), D => {
            commonly_branching::<AfterQuick<<A as OnRegister>::On<D, <A as OnRegister>::From>, A>>(compared, condition)
        }));
    }
    operations!(a.0, A in [Load Move] => by_data_reg!(dst.number(), D => {
        leaving::<AfterQuick<<A as OnRegister>::On<D, <A as OnRegister>::From>, A>>(end)
    }))
}

/// The jump to one of many cases: a distance is loaded from a table and added to where the code finds itself.
pub(super) fn switch(a: (Kind, &Uop), b: (Kind, &Uop), last: &Uop, end: End) -> Option<Handler> {
    let dst = a.1.dst;
    if !matches!(end, End::JumpTo) || b.1.dst != dst || last.src != dst || b.1.src == dst {
        return None;
    }
    operations!(a.0, A in [LoadIndexed] => operations!(b.0, B in [AddReg AddRegFlags] => by_data_reg!(dst.number(), D => {
        Some(joined::<Then<Wrote<A, D>, A, Then<Wrote<B, D>, B, Alone<JmpTo<D>, JmpTo<SrcReg>>>>> as Handler)
    })))
}

/// The load of a byte and a branch: AL, CL, DL and BL are read and written as the whole registers, see [`Low`].
fn byte_and_branch(dst: Reg, last: &Uop, compared: Compared, condition: u8) -> Option<Handler> {
    type Load<D> = Mov<u8, D, SrcMem<Flat>>;
    if !(0..4).any(|n| dst == Reg::byte(n)) {
        return None;
    }
    by_octal!(dst.number() & 3, N => {
        type B = AfterQuick<Load<Low<N>>, Load<DstReg>>;
        let same = last.dst == dst && (compared == Compared::CmpByteImm || last.src == dst);
        match same.then(|| branching_on_low::<B, N>(compared, condition)).flatten() {
            None => commonly_branching::<B>(compared, condition),
            found => found,
        }
    })
}

/// MOV to `D` from `S`, and `b` on `D`.
fn moved<D: Dest, S: Source>((kind, b): (Kind, &Uop)) -> Option<Handler> {
    type Move = Mov<u32, DstReg, SrcReg>;
    let by_immediate = operations!(kind, B in [
        AddImm SubImm AndImm OrImm XorImm ShlImm ShrImm SarImm RolImm RorImm NotReg AndImmFlags ShrImmFlags
    ] => Some(both::<D, Move, S, B, SrcReg>()));
    by_immediate.or_else(|| {
        operations!(kind, B in [AddReg SubReg AndReg OrReg XorReg] => {
            by_data_reg!(b.src.number(), T => Some(both::<D, Move, S, B, T>()))
        })
    })
}

/// The load of `D`, and an operation on it.
fn loaded<D: Dest>(a: &Uop, b: Kind) -> Option<Handler> {
    type Load = Mov<u32, DstReg, SrcMem<Flat>>;
    operations!(b, B in [
        AddReg SubReg AndReg OrReg XorReg AddImm SubImm AndImm ShlImm ShrImm
        AddRegFlags SubRegFlags AndRegFlags XorRegFlags AddImmFlags AndImmFlags ShrImmFlags
    ] => Some(by_octal!(a.base.number(), N => both::<D, Load, SrcMem<Based<N>>, B, SrcReg>())))
}

/// Two operations on `D`.
fn computed<D: Dest>(a: Kind, b: Kind) -> Option<Handler> {
    operations!(a, A in [
        AddReg SubReg AndReg OrReg XorReg AddImm AndImm ShlImm ShrImm SarImm RolImm RorImm NotReg
    ] => {
        operations!(b, B in [
            AddReg SubReg AndReg OrReg XorReg AddImm SubImm AndImm ShlImm ShrImm SarImm RolImm RorImm NotReg
            AddRegFlags SubRegFlags AndRegFlags OrRegFlags XorRegFlags AddImmFlags AndImmFlags ShlImmFlags
            ShrImmFlags
        ] => Some(both::<D, A, SrcReg, B, SrcReg>()))
    })
    .or_else(|| {
        operations!(a, A in [ThunkCall] => {
            operations!(b, B in [AddImm AddImmFlags] => Some(both::<D, A, SrcReg, B, SrcReg>()))
        })
    })
    .or_else(|| {
        // A rotation changes two flags, and leaves the others as an addition has made them.
        operations!(a, A in [AddRegFlags] => {
            operations!(b, B in [RolImmFlags RorImmFlags] => Some(both::<D, A, SrcReg, B, SrcReg>()))
        })
    })
}
