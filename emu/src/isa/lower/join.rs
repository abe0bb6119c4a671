//! Instructions in a row that one handler executes, whatever registers they have.
//!
//! What is common in code that runs once and not in a loop is found by `make bench-dispatch`, and listed here. A
//! handler is put together of the semantics that the instructions have alone ([`Work`]), with their registers
//! taken from the uops: handlers for particular registers would be too many. Not on WebAssembly, where a
//! handler that is not in [`crate::isa::hot`] costs more than it saves.

use std::any::TypeId;
use std::marker::PhantomData;

use super::build::FallThrough;
use super::frames;
use super::pairs;
use super::{Builder, Effect};
use crate::cpu::regs::{Int, Reg};
use crate::dispatch::{
    Alone, Decision, Far, Fused, Handler, Op, Otherwise, Run, Then, Unfused, Uop, Work, joined, quick, step,
};
use crate::isa::alu::{Add, And, Cmp, Compare, CompareBranch, Dec, Inc, Not, One, Or, Sub, Test, Two, Xor};
use crate::isa::branch::{Branch, Call, CallEntry, Condition, EntryJmp, Jmp, PcThunk, Ret};
use crate::isa::mov::{Extend, Lea, Mov};
use crate::isa::operand::{
    Dest, DstMem, DstReg, Flat, FlatIndexed, Low, Segmented, Source, SrcDisp, SrcImm, SrcMem, SrcReg, SrcSum,
};
use crate::isa::shift::{ByImm, Rol, Ror, Sar, Shl, Shr};
use crate::isa::stack::{Pop, Push};
use crate::isa::string::{Lods, Once, Scas};

/// Gives each of some operations a number and a name that stands for its type.
macro_rules! numbered {
    ($(#[$attr:meta])* $Enum:ident in $module:ident: $($Name:ident = $T:ty,)*) => {
        $(#[$attr])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $Enum { $($Name),* }

        pub(super) mod $module {
            use super::*;
            $(pub(in super::super) type $Name = $T;)*
        }

        impl $Enum {
            /// What `O` is, if it is listed.
            pub fn of<O: 'static>() -> Option<Self> {
                let id = TypeId::of::<O>();
                $(if id == TypeId::of::<$module::$Name>() {
                    return Some(Self::$Name);
                })*
                None
            }
        }
    };
}

numbered! {
    /// An instruction that may be joined with what is behind it.
    Kind in kind:
    Load = Mov<u32, DstReg, SrcMem<Flat>>,
    LoadIndexed = Mov<u32, DstReg, SrcMem<FlatIndexed>>,
    LoadSegmented = Mov<u32, DstReg, SrcMem<Segmented>>,
    Store = Mov<u32, DstMem<Flat>, SrcReg>,
    StoreImm = Mov<u32, DstMem<Flat>, SrcImm>,
    Move = Mov<u32, DstReg, SrcReg>,
    MoveImm = Mov<u32, DstReg, SrcImm>,
    Address = Lea<DstReg, Flat>,
    AddressIndexed = Lea<DstReg, FlatIndexed>,
    PushReg = Push<SrcReg>,
    PushImm = Push<SrcImm>,
    PushMem = Push<SrcMem<Flat>>,
    PopReg = Pop<DstReg>,
    LoadByte = Extend<u32, u8, DstReg, SrcMem<Flat>, false>,
    LoadByteIndexed = Extend<u32, u8, DstReg, SrcMem<FlatIndexed>, false>,
    AddReg = Two<Add, u32, DstReg, SrcReg, false>,
    AddRegFlags = Two<Add, u32, DstReg, SrcReg, true>,
    AddImm = Two<Add, u32, DstReg, SrcImm, false>,
    AddImmFlags = Two<Add, u32, DstReg, SrcImm, true>,
    AddMem = Two<Add, u32, DstReg, SrcMem<Flat>, false>,
    AddMemFlags = Two<Add, u32, DstReg, SrcMem<Flat>, true>,
    SubReg = Two<Sub, u32, DstReg, SrcReg, false>,
    SubRegFlags = Two<Sub, u32, DstReg, SrcReg, true>,
    SubImm = Two<Sub, u32, DstReg, SrcImm, false>,
    SubImmFlags = Two<Sub, u32, DstReg, SrcImm, true>,
    AndReg = Two<And, u32, DstReg, SrcReg, false>,
    AndRegFlags = Two<And, u32, DstReg, SrcReg, true>,
    AndImm = Two<And, u32, DstReg, SrcImm, false>,
    AndImmFlags = Two<And, u32, DstReg, SrcImm, true>,
    OrReg = Two<Or, u32, DstReg, SrcReg, false>,
    OrRegFlags = Two<Or, u32, DstReg, SrcReg, true>,
    OrImm = Two<Or, u32, DstReg, SrcImm, false>,
    XorReg = Two<Xor, u32, DstReg, SrcReg, false>,
    XorRegFlags = Two<Xor, u32, DstReg, SrcReg, true>,
    XorImm = Two<Xor, u32, DstReg, SrcImm, false>,
    NotReg = One<Not, u32, DstReg, true>,
    ShlImm = ByImm<Shl, u32, DstReg, false>,
    ShlImmFlags = ByImm<Shl, u32, DstReg, true>,
    ShrImm = ByImm<Shr, u32, DstReg, false>,
    ShrImmFlags = ByImm<Shr, u32, DstReg, true>,
    SarImm = ByImm<Sar, u32, DstReg, false>,
    RolImm = ByImm<Rol, u32, DstReg, false>,
    RolImmFlags = ByImm<Rol, u32, DstReg, true>,
    RorImm = ByImm<Ror, u32, DstReg, false>,
    RorImmFlags = ByImm<Ror, u32, DstReg, true>,
    IncReg = One<Inc, u32, DstReg, false>,
    LoadLow = Mov<u8, DstReg, SrcMem<Flat>>,
    StoreLow = Mov<u8, DstMem<Flat>, SrcReg>,
    SubSegmentedFlags = Two<Sub, u32, DstReg, SrcMem<Segmented>, true>,
    DecReg = One<Dec, u32, DstReg, false>,
    IncRegFlags = One<Inc, u32, DstReg, true>,
    DecRegFlags = One<Dec, u32, DstReg, true>,
    ExtendByte = Extend<u32, u8, DstReg, SrcReg, false>,
    LoadWord = Extend<u32, u16, DstReg, SrcMem<Flat>, false>,
    LoadWordIndexed = Extend<u32, u16, DstReg, SrcMem<FlatIndexed>, false>,
    LoadLowIndexed = Mov<u8, DstReg, SrcMem<FlatIndexed>>,
    StoreIndexed = Mov<u32, DstMem<FlatIndexed>, SrcReg>,
    StoreLowIndexed = Mov<u8, DstMem<FlatIndexed>, SrcReg>,
    StoreByteImm = Mov<u8, DstMem<Flat>, SrcImm>,
    ThunkCall = PcThunk<DstReg>,
    LodsByte = Once<Lods<u8>>,
    ScasByte = Once<Scas<u8>>,
    // What no instruction is, but several are in general.
    AddOwn = Two<Add, u32, DstReg, SrcDisp, false>,
    PushAny = Push<SrcSum>,
    StoreAny = Mov<u32, DstMem<Flat>, SrcSum>,
}

impl Kind {
    /// What an instruction is in general: MOV of a register or of an immediate is LEA, and so is what makes a register
    /// zero; INC, DEC and SUB of an immediate are ADD of one, if they set no flags; what is stored or pushed is the sum of a
    /// register and an immediate, of which one is zero. Handlers of several instructions are made for these, or there
    /// would be many times as many. The uop's operands are put where such handlers look for them, and stay where its own does.
    fn general(self, u: &mut Uop) -> Self {
        let (kind, base, disp) = match self {
            Self::Move => (Self::Address, u.src, 0),
            Self::MoveImm => (Self::Address, Reg::ZERO, u.imm),
            Self::XorReg | Self::SubReg if u.src == u.dst => (Self::Address, Reg::ZERO, 0),
            Self::AddImm => (Self::AddOwn, u.dst, u.imm),
            Self::SubImm => (Self::AddOwn, u.dst, u.imm.wrapping_neg()),
            Self::IncReg => (Self::AddOwn, u.dst, 1),
            Self::DecReg => (Self::AddOwn, u.dst, u32::MAX),
            Self::AddReg => {
                (u.base, u.index) = (u.dst, u.src);
                return Self::AddressIndexed;
            }
            Self::PushReg | Self::PushImm => return Self::PushAny,
            Self::Store | Self::StoreImm => return Self::StoreAny,
            other => return other,
        };
        (u.base, u.disp) = (base, disp);
        kind
    }

    /// The same for handlers that find registers by number, for which a sum with the own register is one as others are.
    fn by_number(self) -> Self {
        if self == Self::AddOwn { Self::Address } else { self }
    }
}

/// A comparison, whatever the condition that is asked of it.
trait Comparison: 'static {
    type Branch<const CC: u8>: Fused;
}

impl<O: Compare, T: Int, D: Dest, S: Source> Comparison for Two<O, T, D, S, true> {
    type Branch<const CC: u8> = CompareBranch<O, T, D, S, CC>;
}

numbered! {
    /// A comparison that may be joined with what is before it, when it is fused with the branch behind it.
    Compared in compared:
    CmpReg = Two<Cmp, u32, DstReg, SrcReg, true>,
    CmpImm = Two<Cmp, u32, DstReg, SrcImm, true>,
    CmpMem = Two<Cmp, u32, DstReg, SrcMem<Flat>, true>,
    CmpMemReg = Two<Cmp, u32, DstMem<Flat>, SrcReg, true>,
    CmpMemImm = Two<Cmp, u32, DstMem<Flat>, SrcImm, true>,
    CmpByteImm = Two<Cmp, u8, DstReg, SrcImm, true>,
    CmpByteMem = Two<Cmp, u8, DstReg, SrcMem<Flat>, true>,
    CmpByteMemImm = Two<Cmp, u8, DstMem<Flat>, SrcImm, true>,
    CmpByteMemReg = Two<Cmp, u8, DstMem<Flat>, SrcReg, true>,
    CmpByteIndexedReg = Two<Cmp, u8, DstMem<FlatIndexed>, SrcReg, true>,
    CmpByteIndexedImm = Two<Cmp, u8, DstMem<FlatIndexed>, SrcImm, true>,
    TestReg = Two<Test, u32, DstReg, SrcReg, true>,
    TestByte = Two<Test, u8, DstReg, SrcReg, true>,
    TestByteImm = Two<Test, u8, DstReg, SrcImm, true>,
    TestByteMemImm = Two<Test, u8, DstMem<Flat>, SrcImm, true>,
}

/// The handler that lowering chooses for an instruction.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    pub run: Handler,
    /// What it may be joined with.
    pub kind: Option<Kind>,
}

impl Choice {
    /// For operation `O`, which is `Plain` for any registers.
    pub fn of<O: Op, Plain: Op + 'static>() -> Self {
        Self { run: quick::<O, Plain>, kind: Kind::of::<Plain>() }
    }

    /// For one that has no others for particular registers.
    pub fn plain<O: Op + 'static>() -> Self {
        Self { run: step::<O>, kind: Kind::of::<O>() }
    }

    /// For operations that set flags and that do not, of which neither is joined with anything. `Plain` sets them.
    pub fn pair<With: Op, Without: Op, Plain: Op>() -> (Self, Self) {
        let choice = |run| Self { run, kind: None };
        (choice(quick::<With, Plain>), choice(quick::<Without, Plain>))
    }
}

/// How a block ends: `far` to another page.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Return,
    Call {
        far: bool,
    },
    Jump {
        far: bool,
    },
    FallThrough {
        far: bool,
    },
    /// A call of an entry of a procedure linkage table, which is a jump.
    CallEntry,
    /// A jump to the address in a register.
    JumpTo,
    /// A branch on flags that are there.
    Condition(u8),
    /// A comparison and the branch behind it. Only the handlers made here know that it is far.
    Branch {
        compared: Compared,
        condition: u8,
        far: bool,
    },
}

/// What a handler does before it comes to the end of its block.
pub(super) trait Before: 'static {
    type And<W: Work>: Work;
}

pub(super) struct Nothing;

impl Before for Nothing {
    type And<W: Work> = W;
}

struct After<O>(PhantomData<O>);

impl<O: Op + 'static> Before for After<O> {
    type And<W: Work> = Then<O, O, W>;
}

struct AfterTwo<O, P>(PhantomData<(O, P)>);

impl<O: Op + 'static, P: Op + 'static> Before for AfterTwo<O, P> {
    type And<W: Work> = Then<O, O, Then<P, P, W>>;
}

/// As [`After`], for particular registers.
pub(super) struct AfterQuick<O, Plain>(PhantomData<(O, Plain)>);

impl<O: Op + 'static, Plain: Op + 'static> Before for AfterQuick<O, Plain> {
    type And<W: Work> = Then<O, Plain, W>;
}

/// What `B` says, and then an instruction with particular registers.
pub(super) struct Also<B, O, Plain>(PhantomData<(B, O, Plain)>);

impl<B: Before, O: Op + 'static, Plain: Op + 'static> Before for Also<B, O, Plain> {
    type And<W: Work> = B::And<Then<O, Plain, W>>;
}

/// `choose!(what, T in [Enum in module: Names] => expression with T)`: the expression for the operation that
/// `what` is, or nothing if it is none of those named.
macro_rules! choose {
    ($what:expr, $T:ident in [$Enum:ident in $module:ident: $($Name:ident)*] => $e:expr) => {
        match $what {
            $($Enum::$Name => { type $T = $module::$Name; $e })*
            #[allow(unreachable_patterns)]
            _ => None,
        }
    };
}

/// `conditions!(condition, CC in [numbers] => expression with CC)`, or nothing for another.
macro_rules! conditions {
    ($condition:expr, $CC:ident in [$($n:literal)*] => $e:expr) => {
        match $condition {
            $($n => { const $CC: u8 = $n; $e })*
            _ => None,
        }
    };
}

/// `operations!(kind, T in [Names] => expression with T)`: as [`choose`].
macro_rules! operations {
    ($kind:expr, $T:ident in [$($Name:ident)*] => $e:expr) => {
        choose!($kind, $T in [Kind in kind: $($Name)*] => $e)
    };
}
pub(super) use {choose, operations};

// The sets that are combined are what `make bench-dispatch` shows. All with all would be ten times as many.
//
// What writes a register is joined here with a block's end or with what is behind a branch, and nothing else but for POP:
// handlers for particular registers pass a value on to the next without delay, and those that find their registers by
// number do not. Its pairs are those of [`pairs`].

/// What is joined with anything.
macro_rules! common {
    ($kind:expr, $T:ident => $e:expr) => {
        operations!($kind, $T in [StoreAny PushAny] => $e)
    };
}

/// What is joined with what is common.
macro_rules! other {
    ($kind:expr, $T:ident => $e:expr) => {
        operations!($kind, $T in [StoreLow PushMem StoreIndexed StoreLowIndexed StoreByteImm] => $e)
    };
}

fn two(a: Kind, b: Kind) -> Option<Handler> {
    match common!(a, A => after::<A>(b)) {
        None => other!(a, A => common!(b, B => Some(pair::<A, B>()))),
        found => found,
    }
}

fn after<A: Op>(b: Kind) -> Option<Handler> {
    match common!(b, B => Some(pair::<A, B>())) {
        None => other!(b, B => Some(pair::<A, B>())),
        found => found,
    }
}

fn pair<A: Op, B: Op>() -> Handler {
    joined::<Then<A, A, Alone<B, B>>>
}

fn three(a: Kind, b: Kind, c: Kind) -> Option<Handler> {
    match (b, c) {
        (Kind::PopReg, Kind::PopReg) => {
            operations!(a, A in [Load PopReg] => {
                Some(joined::<Then<A, A, Then<Pop<DstReg>, Pop<DstReg>, Alone<Pop<DstReg>, Pop<DstReg>>>>> as Handler)
            })
        }
        _ => common!(a, A => {
            common!(b, B => {
                common!(c, C => {
                    Some(joined::<Then<A, A, Then<B, B, Alone<C, C>>>> as Handler)
                })
            })
        }),
    }
}

fn one_and_end(a: Kind, end: End) -> Option<Handler> {
    match end {
        End::Branch { compared, condition, far: true } => {
            operations!(a, A in [Load Address] => branching::<After<A>, true>(compared, condition))
        }
        End::Branch { compared, condition, far: false } => operations!(a, A in [
            Load LoadIndexed LoadSegmented LoadByte LoadLow StoreAny StoreLow Address AddressIndexed ExtendByte
        ] => branching::<After<A>, false>(compared, condition)),
        End::Condition(condition) => operations!(a, A in [ShrImmFlags SubSegmentedFlags ScasByte] => {
            conditions!(condition, CC in [2 3 4 5] => Some(joined::<Then<A, A, Jcc<CC>>> as Handler))
        }),
        _ => operations!(a, A in [
            Load LoadIndexed LoadSegmented LoadByte LoadLow StoreAny StoreLow StoreLowIndexed StoreByteImm
            Address AddressIndexed PushAny PushMem PopReg
            XorReg AddImmFlags IncRegFlags DecRegFlags AndImmFlags ShrImmFlags ExtendByte
        ] => leaving::<After<A>>(end)),
    }
}

fn two_and_end(a: Kind, b: Kind, end: End) -> Option<Handler> {
    match end {
        // How strings are compared.
        End::Condition(5) if (a, b) == (Kind::LodsByte, Kind::ScasByte) => {
            Some(joined::<<AfterTwo<kind::LodsByte, kind::ScasByte> as Before>::And<Jcc<5>>>)
        }
        End::Branch { far: true, .. } | End::Condition(_) | End::FallThrough { .. } => None,
        End::Branch { compared, condition, far: false } => operations!(a, A in [Load Address StoreAny] => {
            operations!(b, B in [Load Address StoreAny] => match compared {
                Compared::TestReg | Compared::CmpReg => choose!(compared, C in [Compared in compared: TestReg CmpReg] => {
                    conditions!(condition, CC in [4 5] => Some(branch::<AfterTwo<A, B>, C, CC, false>()))
                }),
                _ => choose!(compared, C in [Compared in compared: CmpImm] => {
                    conditions!(condition, CC in [2 4 5 6 7] => Some(branch::<AfterTwo<A, B>, C, CC, false>()))
                }),
            })
        }),
        _ => operations!(a, A in [Load Address StoreAny PushAny] => {
            operations!(b, B in [Load Address StoreAny PushAny] => leaving::<AfterTwo<A, B>>(end))
        }),
    }
}

pub(super) fn leaving<B: Before>(end: End) -> Option<Handler> {
    Some(match end {
        End::Branch { .. } | End::Condition(_) | End::JumpTo => return None,
        End::Return => joined::<B::And<Alone<Ret, Ret>>> as Handler,
        End::CallEntry => joined::<B::And<Then<CallEntry, CallEntry, Far<EntryJmp>>>>,
        End::Call { far: false } => joined::<B::And<Alone<Call<true>, Call<true>>>>,
        End::Call { far: true } => joined::<B::And<Far<Call<true>>>>,
        End::Jump { far: false } => joined::<B::And<Alone<Jmp, Jmp>>>,
        End::Jump { far: true } => joined::<B::And<Far<Jmp>>>,
        End::FallThrough { far: false } => joined::<B::And<Alone<FallThrough, FallThrough>>>,
        End::FallThrough { far: true } => joined::<B::And<Far<FallThrough>>>,
    })
}

/// `branches!(compared, condition, B, FAR, [of CMP] [of TEST])`: what comes before a comparison that is listed and a branch
/// on one of these conditions; of the comparisons that are less common, on equality alone.
macro_rules! branches {
    ($compared:expr, $condition:expr, $B:ty, $FAR:expr, $cmp:tt $test:tt) => {
        match $compared {
            Compared::CmpReg | Compared::CmpImm => choose!($compared, C in [Compared in compared: CmpReg CmpImm] => {
                conditions!($condition, CC in $cmp => Some(branch::<$B, C, CC, { $FAR }>()))
            }),
            Compared::TestReg => choose!($compared, C in [Compared in compared: TestReg] => {
                conditions!($condition, CC in $test => Some(branch::<$B, C, CC, { $FAR }>()))
            }),
            Compared::TestByte => choose!($compared, C in [Compared in compared: TestByte] => {
                conditions!($condition, CC in [4 5 8 9 12 13] => Some(branch::<$B, C, CC, { $FAR }>()))
            }),
            _ => choose!($compared, C in [Compared in compared:
                CmpMem CmpMemReg CmpMemImm CmpByteImm CmpByteMem CmpByteMemImm CmpByteMemReg
                CmpByteIndexedReg CmpByteIndexedImm TestByteImm TestByteMemImm
            ] => conditions!($condition, CC in [4 5] => Some(branch::<$B, C, CC, { $FAR }>()))),
        }
    };
}

fn branching<B: Before, const FAR: bool>(compared: Compared, condition: u8) -> Option<Handler> {
    branches!(compared, condition, B, FAR, [2 3 4 5 6 7 12 13 14 15] [4 5 8 9 14 15])
}

/// As [`branching`], for the commonest conditions: there are eight times as many of these.
pub(super) fn commonly_branching<B: Before>(compared: Compared, condition: u8) -> Option<Handler> {
    branches!(compared, condition, B, false, [2 3 4 5 6 7] [4 5 8 9])
}

/// A comparison of byte register `N`, which was written just before, and the branch behind it.
pub(super) fn branching_on_low<B: Before, const N: u8>(compared: Compared, condition: u8) -> Option<Handler> {
    match compared {
        Compared::CmpByteImm => conditions!(condition, CC in [2 3 4 5 6 7] => {
            Some(joined::<B::And<Decision<CompareBranch<Cmp, u8, Low<N>, SrcImm, CC>, false>>> as Handler)
        }),
        Compared::TestByte => conditions!(condition, CC in [4 5 8 9] => {
            Some(joined::<B::And<Decision<CompareBranch<Test, u8, Low<N>, Low<N>, CC>, false>>> as Handler)
        }),
        _ => None,
    }
}

/// The handler of a comparison, the branch behind it and what is behind that.
pub(super) fn otherwise<W: Work + 'static>(compared: Compared, condition: u8) -> Option<Handler> {
    match compared {
        Compared::CmpReg | Compared::CmpImm => {
            choose!(compared, C in [Compared in compared: CmpReg CmpImm] => {
                conditions!(condition, CC in [2 3 4 5 6 7] => Some(conditional::<C, CC, W>()))
            })
        }
        Compared::TestReg | Compared::CmpByteImm => {
            choose!(compared, C in [Compared in compared: TestReg CmpByteImm] => {
                conditions!(condition, CC in [4 5 7 8 9] => Some(conditional::<C, CC, W>()))
            })
        }
        _ => choose!(compared, C in [Compared in compared:
            CmpMem CmpMemReg CmpMemImm CmpByteMemImm TestByte TestByteImm TestByteMemImm
        ] => conditions!(condition, CC in [4 5] => Some(conditional::<C, CC, W>()))),
    }
}

fn conditional<C: Comparison, const CC: u8, W: Work>() -> Handler {
    joined::<Otherwise<C::Branch<CC>, W>>
}

/// Two comparisons for equality in a row, each with its branch.
fn two_branches((a, on_a): (Compared, u8), (b, on_b): (Compared, u8)) -> Option<Handler> {
    choose!(a, A in [Compared in compared: CmpReg CmpImm CmpByteImm TestReg] => conditions!(on_a, CC in [4 5] => {
        choose!(b, B in [Compared in compared: CmpReg CmpImm CmpByteImm TestReg] => conditions!(on_b, DD in [4 5] => {
            Some(conditional::<A, CC, Decision<<B as Comparison>::Branch<DD>, false>>())
        }))
    }))
}

/// A comparison, its branch, and an instruction behind that.
fn branch_or(compared: Compared, condition: u8, next: Kind) -> Option<Handler> {
    operations!(next, B in [
        Load LoadByte Address StoreAny PushAny StoreLow StoreLowIndexed IncRegFlags XorRegFlags
    ] => otherwise::<Alone<B, B>>(compared, condition))
}

/// A comparison, its branch, and a jump or a call behind that.
fn branch_or_leave(compared: Compared, condition: u8, end: End) -> Option<Handler> {
    match end {
        End::Jump { far: false } => otherwise::<Alone<Jmp, Jmp>>(compared, condition),
        End::Jump { far: true } => otherwise::<Far<Jmp>>(compared, condition),
        End::Call { far: false } => otherwise::<Alone<Call<true>, Call<true>>>(compared, condition),
        End::Call { far: true } => otherwise::<Far<Call<true>>>(compared, condition),
        _ => None,
    }
}

/// A branch on flags that are there.
type Jcc<const CC: u8> = Unfused<Branch<Condition<CC>>, false>;

fn branch<B: Before, C: Comparison, const CC: u8, const FAR: bool>() -> Handler {
    joined::<B::And<Decision<C::Branch<CC>, FAR>>>
}

/// An instruction that may be joined with its neighbours.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub kind: Kind,
    /// See [`Kind::general`].
    pub general: Kind,
    pub uop: &'a Uop,
}

/// What a handler costs in [`Effect::left`].
const HANDLER: u16 = 256;

/// What is left of a cost behind a conditional branch, of which nothing is known: it is taken as often as not.
fn perhaps(cost: u16) -> u16 {
    cost / 2
}

/// What is best for a uop so far.
struct Best {
    /// See [`Effect::left`].
    left: u16,
    /// The handler for it, if it is not the uop's own.
    run: Option<Handler>,
}

impl Best {
    /// Takes what `find` gives, if it is better to have only `left`.
    fn consider(&mut self, left: u16, find: impl FnOnce() -> Option<Handler>) {
        if left < self.left
            && let Some(run) = find()
        {
            *self = Self { left, run: Some(run) };
        }
    }
}

impl Builder<'_> {
    /// Has neighbours executed by one handler where there is one for them, so that it takes as few handlers as
    /// can be from each instruction to the end of the block.
    pub(super) fn join(&mut self) {
        let any_far = self.effects.iter().any(is_far);
        for (u, e) in self.uops.iter_mut().zip(self.effects.iter_mut()) {
            e.general = e.kind.map(|kind| kind.general(u));
        }
        for at in (0..self.uops.len()).rev() {
            if self.links >> at & 1 != 0 {
                self.effects[at].left = perhaps(self.left(at + 1));
                continue;
            }
            let best = self.best(at, any_far);
            self.effects[at].left = best.left;
            if let Some(run) = best.run {
                self.uops[at].run.set(Run::new(run));
            }
        }
    }

    /// What it costs from a uop on.
    fn left(&self, at: usize) -> u16 {
        self.effects.get(at).map_or(0, |e| e.left)
    }

    /// Where what is behind a uop is known. `any_far`: some branch of the block leads to another page.
    fn best(&self, at: usize, any_far: bool) -> Best {
        let (u, effects) = (&self.uops[at..], &self.effects[at..]);
        let left = |uops: u8| HANDLER + self.left(at + usize::from(uops));
        let uops = effects[0].uops.max(1);
        // A branch to another page takes another handler to get there, unless its own is made here.
        let far = any_far && effects.iter().take(uops.into()).any(is_far);
        let mut best = Best { left: left(uops) + if far { perhaps(HANDLER) } else { 0 }, run: None };
        match effects[0].end {
            Some(End::Branch { compared, condition, far: true }) => {
                best.consider(left(uops), || branching::<Nothing, true>(compared, condition));
            }
            Some(End::Branch { compared, condition, far: false }) => {
                self.consider_behind(at, compared, condition, &mut best);
            }
            _ => {}
        }
        if effects[0].kind.is_none() {
            return best;
        }
        for (uops, run) in [frames::find(u, effects), frames::call_or_return(effects)].into_iter().flatten() {
            best.consider(left(uops), || Some(run));
        }
        for n in 4..=frames::LONGEST {
            best.consider(left(n), || frames::in_a_row(effects, n));
        }
        let candidate = |n: usize| {
            let e = effects.get(n)?;
            Some(Candidate { kind: e.kind?, general: e.general?, uop: &u[n] })
        };
        let end = |n: usize| effects.get(n).and_then(|e| Some((n as u8 + e.uops.max(1), e.end?)));
        let Some(a) = candidate(0) else { return best };
        if let Some(b) = candidate(1) {
            if let Some((uops, end)) = end(2) {
                best.consider(left(uops), || pairs::switch(a, b, &u[2], end));
                best.consider(left(uops), || two_and_end(a.general.by_number(), b.general.by_number(), end));
            }
            if let Some(c) = candidate(2) {
                best.consider(left(3), || three(a.general, b.general, c.general));
                best.consider(left(3), || pairs::mix(a, b, c));
            }
            best.consider(left(2), || pairs::pair(a, b));
            best.consider(left(2), || two(a.general, b.general));
        }
        if let Some((uops, end)) = end(1) {
            best.consider(left(uops), || pairs::with_end(a, &u[1], end));
            best.consider(left(uops), || one_and_end(a.general.by_number(), end));
        }
        best
    }

    /// What is behind a comparison, its branch, and the branch's slot.
    fn consider_behind(&self, at: usize, compared: Compared, condition: u8, best: &mut Best) {
        let Some(behind) = self.effects.get(at + 3) else { return };
        let left = |uops: usize| HANDLER + perhaps(self.left(at + uops));
        match (behind.general, behind.end) {
            (Some(next), _) => best.consider(left(4), || branch_or(compared, condition, next.by_number())),
            (_, Some(End::Branch { compared: second, condition: on, far: false })) => {
                best.consider(left(5), || two_branches((compared, condition), (second, on)));
            }
            (_, Some(end)) => best.consider(left(4), || branch_or_leave(compared, condition, end)),
            _ => {}
        }
    }
}

fn is_far(e: &Effect) -> bool {
    matches!(e.end, Some(End::Branch { far: true, .. }))
}
