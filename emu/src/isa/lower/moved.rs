//! Two instructions in a row that one handler executes, made for their particular registers.
//!
//! Compilers make two instructions of an operation with three operands: MOV, and the operation on the register
//! that MOV writes. One handler then stores that register once, where two store, load and store it.

use super::by_reg;
use super::join::{Kind, choose, kind, operations};
use crate::dispatch::{Alone, Handler, Op, Then, Uop, joined};
use crate::isa::alu::{Alu, Two};
use crate::isa::mov::Mov;
use crate::isa::operand::{Dest, DstReg, Source, SrcImm, SrcReg};
use crate::isa::shift::{ByImm, Shift};

/// An operation on a register, whichever it is.
trait OnRegister: Op + 'static {
    /// On `D`, with `S` if its second operand is a register.
    type On<D: Dest, S: Source>: Op;
}

impl<O: Alu> OnRegister for Two<O, u32, DstReg, SrcImm, false> {
    type On<D: Dest, S: Source> = Two<O, u32, D, SrcImm, false>;
}

impl<O: Alu> OnRegister for Two<O, u32, DstReg, SrcReg, false> {
    type On<D: Dest, S: Source> = Two<O, u32, D, S, false>;
}

impl<O: Shift> OnRegister for ByImm<O, u32, DstReg, false> {
    type On<D: Dest, S: Source> = ByImm<O, u32, D, false>;
}

/// The handler of `mov` between two registers and of `then`, an operation of this kind behind it, if there is one.
pub(super) fn moved(mov: &Uop, kind: Kind, then: &Uop) -> Option<Handler> {
    if then.dst != mov.dst {
        return None;
    }
    by_reg!(mov.dst.number(), D => by_reg!(mov.src.number(), S => computed::<D, S>(kind, then)))
}

fn computed<D: Dest, S: Source>(kind: Kind, then: &Uop) -> Option<Handler> {
    let by_immediate = operations!(kind, O in [
        AddImm SubImm AndImm OrImm XorImm ShlImm ShrImm SarImm RolImm RorImm
    ] => Some(both::<D, S, O, SrcReg>()));
    by_immediate.or_else(|| {
        operations!(kind, O in [AddReg SubReg AndReg OrReg XorReg] => {
            Some(by_reg!(then.src.number(), T => both::<D, S, O, T>()))
        })
    })
}

fn both<D: Dest, S: Source, O: OnRegister, T: Source>() -> Handler {
    joined::<Then<Mov<u32, D, S>, Mov<u32, DstReg, SrcReg>, Alone<O::On<D, T>, O>>>
}
