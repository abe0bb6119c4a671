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
    AfterQuick, Candidate, Compared, End, Kind, branching_on_low, choose, commonly_branching, kind, leaving,
    operations,
};
use super::{by_data_reg, by_octal, by_reg};
use crate::cpu::regs::{Int, Reg, gpr};
use crate::dispatch::{Alone, Handler, Op, Then, Uop, joined};
use crate::isa::alu::{Alu, One, Two, Unary};
use crate::isa::branch::{JmpTo, PcThunk};
use crate::isa::mov::{Extend, Lea, Mov};
use crate::isa::operand::{
    Addr, Based, Dest, DstMem, DstReg, Flat, Low, R, Source, SrcDisp, SrcImm, SrcMem, SrcReg, SrcSum,
};
use crate::isa::shift::{ByImm, Shift};
use crate::isa::stack::Push;

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

impl<O: Alu, const FLAGS: bool> OnRegister for Two<O, u32, DstReg, SrcDisp, FLAGS> {
    type From = SrcDisp;
    type On<D: Dest, S: Source> = Two<O, u32, D, SrcDisp, FLAGS>;
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

impl<N: Int> OnRegister for Extend<u32, N, DstReg, SrcReg, false> {
    type From = SrcReg;
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
pub(super) fn pair(a: Candidate, b: Candidate) -> Option<Handler> {
    on_one(a, b).or_else(|| on_two(a, b))
}

/// The handler of MOV to a register, a rotation or shift of it, and an operation on it with another, if there is one: hashes
/// are made of these.
pub(super) fn mix(a: Candidate, b: Candidate, c: Candidate) -> Option<Handler> {
    type Move = Mov<u32, DstReg, SrcReg>;
    let d = a.uop.dst;
    if a.kind != Kind::Move || b.uop.dst != d || c.uop.dst != d || c.uop.src == d {
        return None;
    }
    by_data_reg!(d.number(), D => operations!(b.kind, B in [RorImm RolImm ShrImm ShlImm] => {
        operations!(c.kind, C in [XorReg AddReg OrReg AndReg] => {
            Some(joined::<Then<Wrote<Move, D>, Move, Then<Wrote<B, D>, B, Alone<Wrote<C, D>, C>>>> as Handler)
        })
    }))
}

/// Two that write the same register.
fn on_one(a: Candidate, b: Candidate) -> Option<Handler> {
    if a.uop.dst != b.uop.dst {
        return None;
    }
    by_data_reg!(a.uop.dst.number(), D => match a.kind {
        Kind::Move => by_reg!(a.uop.src.number(), S => moved::<D, S>(b)),
        Kind::Load if a.uop.base == Reg::ZERO => None,
        Kind::Load => loaded::<D>(a.uop, b.kind),
        _ => computed::<D>(a.kind, b.kind),
    })
}

/// Two that are not computed in one register: the second reads the first's register in some places only, see [`of_that`].
fn on_two(a: Candidate, b: Candidate) -> Option<Handler> {
    let dst = a.uop.dst;
    if matches!(a.general, Kind::StoreAny | Kind::PushAny) {
        return operations!(a.general, A in [StoreAny PushAny] => then_any::<A, A>(b));
    }
    if dst == Reg::dword(gpr::ESP) {
        return moved_stack(a, b);
    }
    if [b.uop.src, b.uop.base, b.uop.index].contains(&dst) {
        return by_data_reg!(dst.number(), D => {
            match a.general {
                Kind::LoadSegmented => operations!(a.general, A in [LoadSegmented] => stored::<Wrote<A, D>, A, D>(dst, b)),
                Kind::ExtendByte => operations!(a.general, A in [ExtendByte] => indexed::<Wrote<A, D>, A>(b)),
                _ => operations!(a.general, A in [Load Address AddOwn AddressIndexed] => {
                    of_that::<Wrote<A, D>, A, D>(dst, b).or_else(|| indexed::<Wrote<A, D>, A>(b))
                }),
            }
        });
    }
    by_data_reg!(dst.number(), D => operations!(a.general, A in [Load LoadByte Address AddOwn AddressIndexed] => {
        then_any::<Wrote<A, D>, A>(b)
    }))
}

/// What makes room on the stack or takes arguments from it, and any of the commonest.
fn moved_stack(a: Candidate, b: Candidate) -> Option<Handler> {
    type Esp = R<{ gpr::ESP }>;
    let of_that = if b.uop.base == a.uop.dst {
        operations!(a.general, A in [AddOwn] => of_that::<Wrote<A, Esp>, A, Esp>(a.uop.dst, b))
    } else {
        None
    };
    of_that.or_else(
        || operations!(a.general, A in [AddOwn AddImmFlags SubImmFlags] => then_any::<Wrote<A, Esp>, A>(b)),
    )
}

/// `A` that writes register `D`, its other operands found by number.
type Wrote<A, D> = <A as OnRegister>::On<D, <A as OnRegister>::From>;

/// The handler of `A` and of `B`, which writes the register of its uop `b`.
fn writes<A: Op, Plain: Op, B: OnRegister>(b: &Uop) -> Option<Handler> {
    by_data_reg!(b.dst.number(), D => Some(joined::<Then<A, Plain, Alone<Wrote<B, D>, B>>> as Handler))
}

/// `A`, and any of the commonest.
fn then_any<A: Op, Plain: Op>(b: Candidate) -> Option<Handler> {
    let written = operations!(b.general, B in [
        Load LoadIndexed LoadByte LoadByteIndexed LoadWordIndexed Address AddOwn AddressIndexed AddMem AddMemFlags
    ] => writes::<A, Plain, B>(b.uop));
    written.or_else(|| {
        operations!(b.general, B in [StoreAny PushAny PushMem] => {
            Some(joined::<Then<A, Plain, Alone<B, B>>> as Handler)
        })
    })
}

/// `A`, which writes register `D`, and what reads it as `b`'s base or stores it.
fn of_that<A: Op, Plain: Op, D: Source + General>(d: Reg, b: Candidate) -> Option<Handler> {
    type Store<A> = Mov<u32, DstMem<A>, SrcSum>;
    let (kind, u) = (b.general, b.uop);
    match kind {
        Kind::StoreAny if u.src == d => stored::<A, Plain, D>(d, b),
        Kind::StoreAny if u.base == d && u.src != d => {
            Some(joined::<Then<A, Plain, Alone<Store<D::Base>, Store<Flat>>>>)
        }
        Kind::PushAny => Some(joined::<Then<A, Plain, Alone<Push<D>, Push<SrcReg>>>>),
        Kind::Load if u.base == d => by_data_reg!(u.dst.number(), E => {
            Some(joined::<Then<A, Plain, Alone<Mov<u32, E, SrcMem<D::Base>>, kind::Load>>> as Handler)
        }),
        Kind::Address | Kind::AddOwn if u.base == d => by_data_reg!(u.dst.number(), E => {
            Some(joined::<Then<A, Plain, Alone<Lea<E, D::Base>, kind::Address>>> as Handler)
        }),
        _ => None,
    }
}

/// `A`, which writes register `D`, and what stores it.
fn stored<A: Op, Plain: Op, D: Source>(d: Reg, b: Candidate) -> Option<Handler> {
    let is_stored = b.general == Kind::StoreAny && b.uop.src == d && b.uop.base != d;
    is_stored.then_some(joined::<Then<A, Plain, Alone<Mov<u32, DstMem<Flat>, D>, kind::Store>>>)
}

/// `A`, and what makes an address with an index of that.
fn indexed<A: Op, Plain: Op>(b: Candidate) -> Option<Handler> {
    operations!(b.general, B in [AddressIndexed] => writes::<A, Plain, B>(b.uop))
}

/// A general register as the base of an address.
trait General {
    type Base: Addr;
}

impl<const N: u8> General for R<N> {
    type Base = Based<N>;
}

/// The handler of an instruction and of how the block ends behind it with `last`, if there is one.
pub(super) fn with_end(a: Candidate, last: &Uop, end: End) -> Option<Handler> {
    let dst = a.uop.dst;
    if let End::JumpTo = end {
        return operations!(a.kind, A in [Load LoadIndexed AddReg AddRegFlags] => by_data_reg!(dst.number(), D => {
            let same = last.src == dst;
            same.then_some(joined::<Then<Wrote<A, D>, A, Alone<JmpTo<D>, JmpTo<SrcReg>>>> as Handler)
        }));
    }
    if let End::Branch { compared, condition, far: false } = end {
        if a.kind == Kind::LoadLow {
            return byte_and_branch(dst, last, compared, condition);
        }
        return operations!(a.general, A in [Load Address AddOwn] => by_data_reg!(dst.number(), D => {
            commonly_branching::<AfterQuick<Wrote<A, D>, A>>(compared, condition)
        }));
    }
    operations!(a.general, A in [Load Address AddOwn] => by_data_reg!(dst.number(), D => {
        leaving::<AfterQuick<Wrote<A, D>, A>>(end)
    }))
}

/// The jump to one of many cases: a distance is loaded from a table and added to where the code finds itself.
pub(super) fn switch(a: Candidate, b: Candidate, last: &Uop, end: End) -> Option<Handler> {
    let dst = a.uop.dst;
    if !matches!(end, End::JumpTo) || b.uop.dst != dst || last.src != dst || b.uop.src == dst {
        return None;
    }
    operations!(a.kind, A in [LoadIndexed] => operations!(b.kind, B in [AddReg AddRegFlags] => by_data_reg!(dst.number(), D => {
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
fn moved<D: Dest, S: Source>(Candidate { kind, uop: b, .. }: Candidate) -> Option<Handler> {
    type Move = Mov<u32, DstReg, SrcReg>;
    match kind {
        Kind::SubReg | Kind::XorReg => operations!(kind, B in [SubReg XorReg] => {
            by_data_reg!(b.src.number(), T => Some(both::<D, Move, S, B, T>()))
        }),
        _ => operations!(kind, B in [
            AddImm SubImm AndImm OrImm XorImm ShlImm ShrImm SarImm RolImm RorImm NotReg AndImmFlags ShrImmFlags
            AddReg AndReg OrReg
        ] => Some(both::<D, Move, S, B, SrcReg>())),
    }
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
    common_operations::<D>(a, b).or_else(|| match (a, b) {
        // What hashes are made of.
        (Kind::AddReg | Kind::XorReg, Kind::RolImm | Kind::RorImm) => {
            operations!(a, A in [AddReg XorReg] => operations!(b, B in [RolImm RorImm] => both_on::<D, A, B>()))
        }
        (Kind::RolImm | Kind::RorImm, _) => operations!(a, A in [RolImm RorImm] => {
            operations!(b, B in [AddReg XorReg AddRegFlags] => both_on::<D, A, B>())
        }),
        (Kind::NotReg, _) => operations!(a, A in [NotReg] => {
            operations!(b, B in [AndReg OrReg AndImm AddRegFlags AndRegFlags] => both_on::<D, A, B>())
        }),
        (Kind::XorReg, _) => operations!(a, A in [XorReg] => operations!(b, B in [NotReg] => both_on::<D, A, B>())),
        // A rotation changes two flags, and leaves the others as an addition has made them.
        (Kind::AddRegFlags, _) => operations!(a, A in [AddRegFlags] => {
            operations!(b, B in [RolImmFlags RorImmFlags] => both_on::<D, A, B>())
        }),
        (Kind::SubReg, _) => operations!(a, A in [SubReg] => operations!(b, B in [SarImm] => both_on::<D, A, B>())),
        (Kind::ShrImm, _) => {
            operations!(a, A in [ShrImm] => operations!(b, B in [ExtendByte] => both_on::<D, A, B>()))
        }
        (Kind::ThunkCall, _) => operations!(a, A in [ThunkCall] => {
            operations!(b, B in [AddImm AddImmFlags] => both_on::<D, A, B>())
        }),
        _ => None,
    })
}

fn common_operations<D: Dest>(a: Kind, b: Kind) -> Option<Handler> {
    operations!(a, A in [AddReg SubReg AndReg OrReg XorReg AddImm AndImm ShlImm ShrImm] => {
        operations!(b, B in [
            AddReg SubReg AndReg OrReg XorReg AddImm SubImm AndImm ShlImm ShrImm
            AddRegFlags SubRegFlags AndRegFlags OrRegFlags XorRegFlags AddImmFlags AndImmFlags ShlImmFlags
            ShrImmFlags
        ] => both_on::<D, A, B>())
    })
}

/// Both on `D`, their other operands found by number.
fn both_on<D: Dest, A: OnRegister, B: OnRegister>() -> Option<Handler> {
    Some(both::<D, A, SrcReg, B, SrcReg>())
}
