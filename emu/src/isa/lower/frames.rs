//! How compiled functions begin and end, executed by one handler each.
//!
//! A function saves the registers that belong to its caller before it changes them, and restores them before it returns
//! (System V ABI, i386 supplement, "Function Calling Sequence": EBX, ESI, EDI and EBP). Compilers do so in one order, so
//! that there are few such rows, and their registers are constants. Between them are what makes the frame and what takes
//! the arguments that came in registers.

use super::flags::Effect;
use super::join::{Also, Before, End, Kind, Nothing, choose, kind, leaving, operations};
use crate::cpu::regs::{Reg, gpr};
use crate::dispatch::{Alone, Handler, Onward, Op, Then, Uop, joined};
use crate::isa::alu::{Add, Sub, Two};
use crate::isa::branch::Ret;
use crate::isa::mov::{Lea, Mov};
use crate::isa::operand::{Based, DstReg, R, SrcImm, SrcReg};
use crate::isa::stack::{Pop, Push};

/// What is left of a block.
#[derive(Clone, Copy)]
struct Rest<'a> {
    uops: &'a [Uop],
    effects: &'a [Effect],
    /// Instructions taken before.
    taken: u8,
}

impl<'a> Rest<'a> {
    /// The uop that is next, if it is an instruction of this kind that writes register `n`, or pushes it.
    fn next(&self, kind: Kind, n: u8) -> Option<&'a Uop> {
        let is = self.effects.first()?.kind == Some(kind) && self.uops[0].dst == Reg::dword(n);
        is.then(|| &self.uops[0])
    }

    fn behind(self, instructions: u8) -> Self {
        let n = usize::from(instructions);
        Self { uops: &self.uops[n..], effects: &self.effects[n..], taken: self.taken + instructions }
    }
}

/// A handler, and how many uops it executes.
type Found = Option<(u8, Handler)>;

/// The handler of a row that begins or ends a function, if the block goes on with one.
pub(super) fn find(uops: &[Uop], effects: &[Effect]) -> Found {
    let rest = Rest { uops, effects, taken: 0 };
    match effects.first()?.kind? {
        Kind::PushReg => push_ebp(rest),
        Kind::PopReg => pop_ebx::<Nothing>(rest),
        Kind::AddImm if rest.next(Kind::AddImm, gpr::ESP).is_some() => pop_ebx::<
            Also<Nothing, Two<Add, u32, R<{ gpr::ESP }>, SrcImm, false>, kind::AddImm>,
        >(rest.behind(1)),
        Kind::AddImmFlags if rest.next(Kind::AddImmFlags, gpr::ESP).is_some() => pop_ebx::<
            Also<Nothing, Two<Add, u32, R<{ gpr::ESP }>, SrcImm, true>, kind::AddImmFlags>,
        >(rest.behind(1)),
        Kind::Address if rest.next(Kind::Address, gpr::ESP)?.base == Reg::dword(gpr::EBP) => {
            pop_ebx::<Also<Nothing, Lea<R<{ gpr::ESP }>, Based<{ gpr::EBP }>>, kind::Address>>(rest.behind(1))
        }
        _ => None,
    }
}

/// The longest row that [`in_a_row`] has a handler for.
pub(super) const LONGEST: u8 = 7;

/// The handler of `n` PUSHes or POPs in a row, of any registers, and immediates among what is pushed: an operating system
/// saves and restores all registers, and a call has arguments.
pub(super) fn in_a_row(effects: &[Effect], n: u8) -> Option<Handler> {
    type One<O> = Alone<O, O>;
    type And<O, W> = Then<O, O, W>;
    type Four<O> = And<O, And<O, And<O, One<O>>>>;
    type Five<O> = And<O, Four<O>>;
    type Six<O> = And<O, Five<O>>;
    let row = effects.get(..n.into())?;
    let kind = row[0].general?;
    if row.iter().any(|e| e.general != Some(kind)) {
        return None;
    }
    operations!(kind, O in [PushAny PopReg] => Some(match n {
        4 => joined::<Four<O>> as Handler,
        5 => joined::<Five<O>>,
        6 => joined::<Six<O>>,
        LONGEST => joined::<And<O, Six<O>>>,
        _ => return None,
    }))
}

/// The handler of a call with three to five PUSHes before it, or of a return with as many POPs of any registers: with fewer
/// they are joined as others are.
pub(super) fn call_or_return(effects: &[Effect]) -> Found {
    let kind = effects.first()?.general?;
    let row = effects.iter().take_while(|e| e.general == Some(kind)).count();
    let last = effects.get(row)?;
    let run = match (kind, last.end?) {
        (Kind::PushAny, end @ (End::Call { .. } | End::CallEntry)) => row_and_end::<kind::PushAny>(row, end),
        (Kind::PopReg, end @ End::Return) => row_and_end::<kind::PopReg>(row, end),
        _ => None,
    };
    Some((row as u8 + last.uops.max(1), run?))
}

fn row_and_end<O: Op + 'static>(row: usize, end: End) -> Option<Handler> {
    type And<B, O> = Also<B, O, O>;
    type Three<O> = And<And<And<Nothing, O>, O>, O>;
    match row {
        3 => leaving::<Three<O>>(end),
        4 => leaving::<And<Three<O>, O>>(end),
        5 => leaving::<And<And<Three<O>, O>, O>>(end),
        _ => None,
    }
}

/// Functions that each take the POP of one register, if it is next.
macro_rules! restored {
    ($($pop:ident = $n:expr, then $next:ident;)*) => {$(
        fn $pop<B: Before>(rest: Rest) -> Found {
            match rest.next(Kind::PopReg, $n) {
                Some(_) => $next::<Also<B, Pop<R<{ $n }>>, Pop<DstReg>>>(rest.behind(1)),
                None => $next::<B>(rest),
            }
        }
    )*};
}

restored! {
    pop_ebx = gpr::EBX, then pop_esi;
    pop_esi = gpr::ESI, then pop_edi;
    pop_edi = gpr::EDI, then pop_ebp;
    pop_ebp = gpr::EBP, then returns;
}

fn returns<B: Before>(rest: Rest) -> Found {
    match rest.effects.first()?.end {
        Some(End::Return) => Some((rest.taken + 1, joined::<B::And<Alone<Ret, Ret>>>)),
        _ => (rest.taken > 1).then_some((rest.taken, joined::<B::And<Onward>>)),
    }
}

/// `PUSH EBP`, and `MOV EBP, ESP` behind it where frames have a pointer.
fn push_ebp(rest: Rest) -> Found {
    type PushEbp = Also<Nothing, Push<R<{ gpr::EBP }>>, Push<SrcReg>>;
    type Pointer = Also<PushEbp, Mov<u32, R<{ gpr::EBP }>, R<{ gpr::ESP }>>, kind::Move>;
    if rest.next(Kind::PushReg, gpr::EBP).is_none() {
        return push_edi::<Nothing>(rest);
    }
    let behind = rest.behind(1);
    match behind.next(Kind::Move, gpr::EBP) {
        Some(u) if u.src == Reg::dword(gpr::ESP) => push_edi::<Pointer>(behind.behind(1)),
        _ => push_edi::<PushEbp>(behind),
    }
}

/// Functions that each take the PUSH of one register, if it is next, and the MOV to that register behind it.
macro_rules! saved {
    ($($push:ident = $n:expr, then $next:ident;)*) => {$(
        fn $push<B: Before>(rest: Rest) -> Found {
            if rest.next(Kind::PushReg, $n).is_none() {
                return $next::<B>(rest);
            }
            type After<B> = Also<B, Push<R<{ $n }>>, Push<SrcReg>>;
            let behind = rest.behind(1);
            match behind.next(Kind::Move, $n) {
                Some(_) => {
                    $next::<Also<After<B>, Mov<u32, R<{ $n }>, SrcReg>, kind::Move>>(behind.behind(1))
                }
                None => $next::<After<B>>(behind),
            }
        }
    )*};
}

saved! {
    push_edi = gpr::EDI, then push_esi;
    push_esi = gpr::ESI, then push_ebx;
    push_ebx = gpr::EBX, then room;
}

/// Room on the stack.
fn room<B: Before>(rest: Rest) -> Found {
    type Room<const FLAGS: bool> = Two<Sub, u32, R<{ gpr::ESP }>, SrcImm, FLAGS>;
    if rest.next(Kind::SubImm, gpr::ESP).is_some() {
        Some((rest.taken + 1, joined::<B::And<Alone<Room<false>, kind::SubImm>>>))
    } else if rest.next(Kind::SubImmFlags, gpr::ESP).is_some() {
        Some((rest.taken + 1, joined::<B::And<Alone<Room<true>, kind::SubImmFlags>>>))
    } else {
        (rest.taken > 1).then_some((rest.taken, joined::<B::And<Onward>>))
    }
}
