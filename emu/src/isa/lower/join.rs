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
use crate::cpu::regs::Int;
use crate::dispatch::{
    Alone, Decision, Far, Fused, Handler, Op, Run, Then, Unfused, Work, joined, quick, step,
};
use crate::isa::alu::{Add, And, Cmp, Compare, CompareBranch, Dec, Inc, Not, One, Or, Sub, Test, Two, Xor};
use crate::isa::branch::{Branch, Call, CallEntry, Condition, EntryJmp, Jmp, PcThunk, Ret};
use crate::isa::mov::{Extend, Lea, Mov};
use crate::isa::operand::{
    Dest, DstMem, DstReg, Flat, FlatIndexed, Low, Segmented, Source, SrcImm, SrcMem, SrcReg,
};
use crate::isa::shift::{ByImm, Rol, Ror, Sar, Shl, Shr};
use crate::isa::stack::{Pop, Push};
use crate::isa::string::{Once, Scas};

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
    ScasByte = Once<Scas<u8>>,
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
// What writes a register is joined here with a block's end and nothing else, but for POP: handlers for particular registers
// pass a value on to the next without delay, and those that find their registers by number do not. Its pairs are
// those of [`pairs`].

/// What is joined with anything.
macro_rules! common {
    ($kind:expr, $T:ident => $e:expr) => {
        operations!($kind, $T in [Store PushReg] => $e)
    };
}

/// What is joined with what is common.
macro_rules! other {
    ($kind:expr, $T:ident => $e:expr) => {
        operations!($kind, $T in [
            StoreLow StoreImm PushImm PushMem StoreIndexed StoreLowIndexed StoreByteImm
        ] => $e)
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
        _ => operations!(a, A in [Store PushReg] => {
            operations!(b, B in [Store PushReg] => {
                operations!(c, C in [Store PushReg] => {
                    Some(joined::<Then<A, A, Then<B, B, Alone<C, C>>>> as Handler)
                })
            })
        }),
    }
}

fn one_and_end(a: Kind, end: End) -> Option<Handler> {
    match end {
        End::Branch { compared, condition, far: true } => {
            operations!(a, A in [Load Move] => branching::<After<A>, true>(compared, condition))
        }
        End::Branch { compared, condition, far: false } => operations!(a, A in [
            Load LoadIndexed LoadSegmented LoadByte LoadLow Store Move MoveImm Address AddImm AddReg IncReg
            DecReg ExtendByte StoreLow
        ] => branching::<After<A>, false>(compared, condition)),
        End::Condition(condition) => operations!(a, A in [ShrImmFlags SubSegmentedFlags ScasByte] => {
            conditions!(condition, CC in [2 3 4 5] => Some(joined::<Then<A, A, Jcc<CC>>> as Handler))
        }),
        _ => operations!(a, A in [
            Load LoadIndexed LoadSegmented LoadByte LoadLow Store StoreLow StoreImm Move MoveImm Address
            PushReg PushImm PushMem PopReg
            AddImm SubImm XorReg AddImmFlags
            IncRegFlags DecRegFlags AndImmFlags ShrImmFlags ExtendByte StoreLowIndexed StoreByteImm
        ] => leaving::<After<A>>(end)),
    }
}

fn two_and_end(a: Kind, b: Kind, end: End) -> Option<Handler> {
    match end {
        End::Branch { far: true, .. } | End::Condition(_) | End::FallThrough { .. } | End::CallEntry => None,
        End::Branch { compared, condition, far: false } => operations!(a, A in [Load Move Store AddImm] => {
            operations!(b, B in [Load Move Store AddImm] => match compared {
                Compared::TestReg | Compared::CmpReg => choose!(compared, C in [Compared in compared: TestReg CmpReg] => {
                    conditions!(condition, CC in [4 5] => Some(branch::<AfterTwo<A, B>, C, CC, false>()))
                }),
                _ => choose!(compared, C in [Compared in compared: CmpImm] => {
                    conditions!(condition, CC in [2 4 5 6 7] => Some(branch::<AfterTwo<A, B>, C, CC, false>()))
                }),
            })
        }),
        _ => operations!(a, A in [Load Move Store PushReg Address MoveImm] => {
            operations!(b, B in [Load Move Store PushReg Address MoveImm] => leaving::<AfterTwo<A, B>>(end))
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
            _ => choose!($compared, C in [Compared in compared:
                CmpMem CmpMemReg CmpMemImm CmpByteImm CmpByteMem CmpByteMemImm CmpByteMemReg
                CmpByteIndexedReg CmpByteIndexedImm TestByte TestByteImm TestByteMemImm
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

/// A branch on flags that are there.
type Jcc<const CC: u8> = Unfused<Branch<Condition<CC>>, false>;

fn branch<B: Before, C: Comparison, const CC: u8, const FAR: bool>() -> Handler {
    joined::<B::And<Decision<C::Branch<CC>, FAR>>>
}

impl Builder<'_> {
    /// Has neighbours executed by one handler where there is one for them, so that it takes as few handlers as
    /// can be from each instruction to the end of the block.
    pub(super) fn join(&mut self) {
        let is_far = |e: &Effect| matches!(e.end, Some(End::Branch { far: true, .. }));
        let any_far = self.effects.iter().any(is_far);
        for at in (0..self.uops.len()).rev() {
            let effects = &self.effects[at..];
            let left = |uops: u8| 1 + effects.get(usize::from(uops)).map_or(0, |e| e.left);
            let uops = effects[0].uops.max(1);
            if effects[0].kind.is_none() && !any_far {
                self.effects[at].left = left(uops);
                continue;
            }
            // A branch to another page takes another handler to get there, unless its own is made here.
            let far = any_far && effects.iter().take(uops.into()).any(is_far);
            let mut best = (left(uops) + u8::from(far), None);
            let mut consider = |uops: u8, find: &dyn Fn() -> Option<Handler>| {
                if left(uops) < best.0
                    && let Some(run) = find()
                {
                    best = (left(uops), Some(run));
                }
            };
            if let Some(End::Branch { compared, condition, far: true }) = effects[0].end {
                consider(uops, &|| branching::<Nothing, true>(compared, condition));
            }
            if let Some((uops, run)) = frames::find(&self.uops[at..], effects) {
                consider(uops, &|| Some(run));
            }
            for n in 4..=frames::LONGEST {
                consider(n, &|| frames::in_a_row(effects, n));
            }
            if let [Effect { kind: Some(a), .. }, second, ..] = effects {
                if let Some(b) = second.kind {
                    if let Some(third) = effects.get(2) {
                        if let Some(end) = third.end {
                            let u = &self.uops[at..];
                            consider(2 + third.uops.max(1), &|| {
                                pairs::switch((*a, &u[0]), (b, &u[1]), &u[2], end)
                            });
                            consider(2 + third.uops.max(1), &|| two_and_end(*a, b, end));
                        }
                        if let Some(c) = third.kind {
                            consider(3, &|| three(*a, b, c));
                            let u = &self.uops[at..];
                            consider(3, &|| pairs::mix((*a, &u[0]), (b, &u[1]), (c, &u[2])));
                        }
                    }
                    consider(2, &|| pairs::pair((*a, &self.uops[at]), (b, &self.uops[at + 1])));
                    consider(2, &|| two(*a, b));
                }
                if let Some(end) = second.end {
                    let (first, last) = (&self.uops[at], &self.uops[at + 1]);
                    consider(1 + second.uops.max(1), &|| pairs::with_end((*a, first), last, end));
                    consider(1 + second.uops.max(1), &|| one_and_end(*a, end));
                }
            }
            self.effects[at].left = best.0;
            if let Some(run) = best.1 {
                self.uops[at].run.set(Run::new(run));
            }
        }
    }
}
