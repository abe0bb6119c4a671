//! The commonest handlers, inlined into the loop that runs uops on WebAssembly.
//!
//! There a call through a pointer checks the table's bounds and the function's type, and the callee
//! sets up a frame: more work than most instructions are. So a uop has a small number beside its
//! handler's address, and the loop branches on that; only the others are called. The list is what a
//! profile of a Linux guest had on top: 19 of 20 uops executed are in it. Leaving one out costs
//! speed and nothing else.
//!
//! What the loop does for each uop counts as much as what the uop does. It is one branch through one table, for which the
//! numbers are the patterns of one `match`, and there is no test for the end: to leave the loop is to run a uop, too.

#![allow(unsafe_code)]

use super::alu::{
    Add, And, Cmp, CompareBranch, Dec, Inc, Neg, Not, One, OpBranch, Or, Sbb, Sub, Test, Two, Xor,
};
use super::branch::{Branch, Call, CallEntry, CallTo, Condition, EntryJmp, Jmp, JmpTo, PcThunk, Ret};
use super::lower::FallThrough;
use super::mov::{Cmov, Extend, Lea, Load, Mov, Set};
use super::muldiv::Imul;
use super::operand::{
    self, Dest, DstMem, DstReg, Flat, FlatIndexed, Segmented, Source, SrcImm, SrcMem, SrcReg,
};
use super::shift::{ByCl, ByImm, Rol, Ror, Sar, Shl, Shr};
use super::stack::{Leave, Pop, Push};
#[cfg(target_family = "wasm")]
use crate::Cpu;
#[cfg(target_family = "wasm")]
use crate::dispatch::Uop;
use crate::dispatch::{
    Handler, branch, far_link, fused, guard_page, lead_fused, pair, quick, step, step_far, trio,
};

/// A general register of 32 bits.
#[cfg(target_family = "wasm")]
type R = operand::R<{ operand::ANY }>;
/// Elsewhere each register has handlers of its own. The test below looks for those of EAX.
#[cfg(not(target_family = "wasm"))]
type R = operand::R<0>;
/// As [`R`], and another where both are operands of a MOV: to itself it does nothing.
#[cfg(target_family = "wasm")]
type Other = R;
#[cfg(not(target_family = "wasm"))]
type Other = operand::R<1>;

/// The low byte or word of a register, read and written. Elsewhere those of the first four have handlers of their own.
#[cfg(target_family = "wasm")]
type LowSource = SrcReg;
#[cfg(target_family = "wasm")]
type LowDest = DstReg;
#[cfg(not(target_family = "wasm"))]
type LowSource = operand::Low<0>;
#[cfg(not(target_family = "wasm"))]
type LowDest = operand::Low<0>;

/// Functions that a module may have and every handler still be found; there are some 3600.
#[cfg(target_family = "wasm")]
const FUNCTIONS: usize = 8192;

/// What a uop has its handler as: a hot one's number, or a function's address, which on WebAssembly is its place in a
/// table, after these.
#[cfg(target_family = "wasm")]
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Run(u32);

#[cfg(target_family = "wasm")]
impl Run {
    /// Numbers of hot handlers are below it.
    const ADDRESSES: u32 = 256;

    pub fn new(handler: Handler) -> Self {
        Self(handler as usize as u32 + Self::ADDRESSES)
    }

    /// # Safety
    /// It is not a number.
    #[inline(always)]
    unsafe fn handler(self) -> Handler {
        // SAFETY: it was made of a handler.
        unsafe { std::mem::transmute::<usize, Handler>((self.0 - Self::ADDRESSES) as usize) }
    }
}

/// The numbers of the hot handlers by address, and where the loop ends. Part of the processor, so that what
/// leaves the loop need not be looked for.
#[cfg(target_family = "wasm")]
pub(crate) struct Hot {
    numbers: [u8; FUNCTIONS],
    exit: Uop,
}

#[cfg(target_family = "wasm")]
impl Hot {
    /// No number.
    const NONE: u8 = u8::MAX;

    pub fn new() -> Self {
        let mut numbers = [Self::NONE; FUNCTIONS];
        for (number, &handler) in (0..).zip(HANDLERS) {
            // One beyond the end is called, as those that are not hot.
            if let Some(place) = numbers.get_mut(handler as usize) {
                *place = number;
            }
        }
        Self { numbers, exit: crate::blocks::filler() }
    }

    /// The same with its number, if it is hot.
    pub fn numbered(&self, run: Run) -> Run {
        let address = run.0.wrapping_sub(Run::ADDRESSES);
        match self.numbers.get(address as usize) {
            Some(&number) if number != Self::NONE => Run(number.into()),
            _ => run,
        }
    }

    /// Gives the uops of a block their handlers' numbers, but not its link slots, which are others' until they lead
    /// somewhere; those have a bit in `links`.
    ///
    /// # Safety
    /// `first` is the first of so many uops of a live block.
    pub unsafe fn number(&self, first: *const Uop, uops: usize, links: u128) {
        for at in (0..uops).filter(|at| *at >= 128 || links >> at & 1 == 0) {
            // SAFETY: the caller's promise.
            let run = unsafe { &(*first.add(at)).run };
            run.set(self.numbered(run.get()));
        }
    }

    /// What is run to leave the loop.
    #[inline(always)]
    pub fn exit(&self) -> *const Uop {
        &self.exit
    }
}

/// A number as a pattern.
#[cfg(target_family = "wasm")]
struct Number<const N: u32>;

#[cfg(target_family = "wasm")]
impl<const N: u32> Number<N> {
    const N: u32 = N;
}

/// What the handler of a number does: one branch through a table.
#[cfg(target_family = "wasm")]
macro_rules! choose {
    ($number:ident, $cpu:ident, $u:ident, $cold:expr, $n:expr, [$($arms:tt)*]) => {
        match $number {
            $($arms)*
            _ => $cold,
        }
    };
    ($number:ident, $cpu:ident, $u:ident, $cold:expr, $n:expr, [$($arms:tt)*] $handler:expr, $($rest:tt)*) => {
        choose!($number, $cpu, $u, $cold, $n + 1,
            [$($arms)* <Number<{ $n }>>::N => $handler($cpu, $u, $cpu.budget, $cpu.tlb.selected()),] $($rest)*)
    };
}

macro_rules! hot {
    ($($handler:expr,)*) => {
        const HANDLERS: &[Handler] = &[$($handler),*];
        const _: () = assert!(HANDLERS.len() < u8::MAX as usize);
        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($handler)),*];

        /// Runs from `entry` until a handler gives control back; the reason is in `cpu.why`.
        ///
        /// # Safety
        /// `entry` is in a live block.
        #[cfg(target_family = "wasm")]
        #[inline(never)]
        pub(crate) unsafe fn run(cpu: &mut Cpu, entry: *const Uop) {
            let mut u = entry;
            loop {
                // SAFETY: `u` is in a live block, or the exit: the caller's promise for the first, the handlers'
                // for the others. The number is that of the uop's own handler.
                unsafe {
                    let run = (*u).run.get();
                    let number = run.0;
                    u = choose!(number, cpu, u, {
                        if u == cpu.hot.exit() {
                            return;
                        }
                        run.handler()(cpu, u, cpu.budget, cpu.tlb.selected())
                    }, 0, [] $($handler,)*);
                }
            }
        }
    };
}

/// The handler for operands of any registers, as lowering makes it.
macro_rules! two {
    ($O:ty, $T:ty, $D:ty, $S:ty, $FLAGS:literal) => {
        quick::<Two<$O, $T, $D, $S, $FLAGS>, Two<$O, $T, <$D as Dest>::Plain, <$S as Source>::Plain, true>>
    };
}
macro_rules! mov {
    ($T:ty, $D:ty, $S:ty) => {
        quick::<Mov<$T, $D, $S>, Mov<$T, <$D as Dest>::Plain, <$S as Source>::Plain>>
    };
}
macro_rules! zero_extend {
    ($N:ty, $S:ty) => {
        quick::<Extend<u32, $N, R, $S, false>, Extend<u32, $N, DstReg, <$S as Source>::Plain, false>>
    };
}
macro_rules! one {
    ($O:ty, $D:ty, $FLAGS:literal) => {
        quick::<One<$O, u32, $D, $FLAGS>, One<$O, u32, <$D as Dest>::Plain, true>>
    };
}
macro_rules! by_imm {
    ($O:ty, $FLAGS:literal) => {
        quick::<ByImm<$O, u32, R, $FLAGS>, ByImm<$O, u32, DstReg, true>>
    };
}
macro_rules! by_cl {
    ($O:ty, $FLAGS:literal) => {
        quick::<ByCl<$O, u32, R, $FLAGS>, ByCl<$O, u32, DstReg, true>>
    };
}
macro_rules! cmov {
    ($CC:literal) => {
        quick::<Cmov<u32, R, SrcReg, $CC>, Cmov<u32, DstReg, SrcReg, $CC>>
    };
}
macro_rules! compare_branch {
    ($O:ty, $T:ty, $D:ty, $S:ty, $CC:literal) => {
        fused::<CompareBranch<$O, $T, $D, $S, $CC>>
    };
}
macro_rules! load_compare_branch {
    ($O:ty, $S:ty, $CC:literal) => {
        lead_fused::<Load<R>, Load<DstReg>, CompareBranch<$O, u32, R, $S, $CC>>
    };
}
macro_rules! jcc {
    ($CC:literal) => {
        branch::<Branch<Condition<$CC>>, false>
    };
}

hot! {
    // Moves.
    mov!(u32, R, SrcMem<Flat>), mov!(u32, R, Other), mov!(u32, DstMem<Flat>, R), mov!(u32, R, SrcImm),
    mov!(u32, R, SrcMem<FlatIndexed>), mov!(u32, DstMem<FlatIndexed>, R), mov!(u32, DstMem<Flat>, SrcImm),
    mov!(u32, R, SrcMem<Segmented>),
    mov!(u8, LowDest, SrcMem<Flat>), mov!(u8, LowDest, SrcMem<FlatIndexed>),
    mov!(u8, DstMem<Flat>, LowSource), mov!(u8, DstMem<FlatIndexed>, LowSource), mov!(u8, DstMem<Flat>, SrcImm),
    step::<Mov<u16, DstMem<Flat>, SrcReg>>, step::<Mov<u16, DstMem<FlatIndexed>, SrcReg>>,
    zero_extend!(u8, SrcMem<Flat>), zero_extend!(u8, SrcMem<FlatIndexed>), zero_extend!(u8, LowSource),
    zero_extend!(u16, SrcMem<Flat>), zero_extend!(u16, SrcMem<FlatIndexed>), zero_extend!(u16, LowSource),
    step::<Mov<u16, DstReg, SrcMem<FlatIndexed>>>,
    quick::<Extend<u32, u16, R, SrcMem<Flat>, true>, Extend<u32, u16, DstReg, SrcMem<Flat>, true>>,
    step::<Lea<R, Flat>>, step::<Lea<R, FlatIndexed>>,
    cmov!(2), cmov!(4), cmov!(5),
    quick::<Push<R>, Push<SrcReg>>, step::<Push<SrcImm>>, step::<Push<SrcMem<Flat>>>,
    quick::<Pop<R>, Pop<DstReg>>, step::<Leave>,
    pair::<Push<R>, Push<SrcReg>, Push<R>, Push<SrcReg>>, pair::<Pop<R>, Pop<DstReg>, Pop<R>, Pop<DstReg>>,
    pair::<Pop<R>, Pop<DstReg>, Ret, Ret>, trio::<Pop<R>, Pop<DstReg>, Pop<R>, Pop<DstReg>, Ret, Ret>,
    pair::<Push<R>, Push<SrcReg>, Mov<u32, R, Other>, Mov<u32, DstReg, SrcReg>>,
    pair::<Load<R>, Load<DstReg>, Ret, Ret>, pair::<Leave, Leave, Ret, Ret>,
    // Arithmetic.
    two!(Add, u32, R, R, true), two!(Add, u32, R, R, false),
    two!(Add, u32, R, SrcImm, true), two!(Add, u32, R, SrcImm, false),
    two!(Add, u32, R, SrcMem<Flat>, true), two!(Add, u32, R, SrcMem<Flat>, false),
    two!(Add, u32, R, SrcMem<FlatIndexed>, true), two!(Add, u32, R, SrcMem<FlatIndexed>, false),
    two!(Add, u32, DstMem<Flat>, SrcImm, true), two!(Add, u32, DstMem<Flat>, SrcReg, true),
    two!(Sub, u32, R, R, true), two!(Sub, u32, R, R, false),
    two!(Sub, u32, R, SrcImm, true), two!(Sub, u32, R, SrcImm, false),
    two!(Sub, u32, R, SrcMem<Flat>, true), two!(Sub, u32, R, SrcMem<Segmented>, true),
    two!(Sub, u32, DstMem<Flat>, SrcReg, false), two!(Sub, u32, DstMem<Flat>, SrcReg, true),
    two!(Sub, u32, DstMem<Flat>, SrcImm, true), two!(Add, u16, DstReg, SrcImm, false),
    two!(And, u32, R, R, true), two!(And, u32, R, R, false),
    two!(And, u32, R, SrcImm, true), two!(And, u32, R, SrcImm, false), two!(And, u32, R, SrcMem<Flat>, true),
    two!(Or, u32, R, R, true), two!(Or, u32, R, R, false), two!(Or, u32, R, SrcImm, true),
    two!(Or, u32, DstMem<Flat>, SrcReg, true),
    two!(Xor, u32, R, R, true), two!(Xor, u32, R, R, false),
    two!(Xor, u32, R, SrcMem<FlatIndexed>, true),
    two!(Sbb, u32, R, R, true), two!(Sbb, u32, R, R, false),
    two!(Test, u32, DstReg, SrcReg, true), two!(Test, u8, DstReg, SrcImm, true),
    two!(Cmp, u32, DstReg, SrcImm, true), two!(Cmp, u8, DstMem<Flat>, SrcImm, true),
    two!(Cmp, u32, DstMem<FlatIndexed>, SrcImm, true),
    two!(Cmp, u32, DstMem<Flat>, SrcReg, true), two!(Cmp, u32, DstMem<Flat>, SrcImm, true),
    two!(Cmp, u32, DstReg, SrcReg, true),
    one!(Inc, R, true), one!(Inc, R, false), one!(Dec, R, true), one!(Dec, R, false),
    one!(Dec, DstMem<Flat>, true), one!(Not, R, true), one!(Neg, R, true),
    one!(Inc, DstMem<Segmented>, true), one!(Dec, DstMem<Segmented>, true),
    by_imm!(Shl, true), by_imm!(Shl, false), by_imm!(Shr, true), by_imm!(Shr, false),
    by_imm!(Sar, true), by_imm!(Sar, false), by_imm!(Rol, true), by_imm!(Rol, false), by_imm!(Ror, false),
    by_imm!(Ror, true),
    by_cl!(Shl, true), by_cl!(Shl, false), by_cl!(Shr, true), by_cl!(Shr, false),
    quick::<Imul<u32, R, R, false, true>, Imul<u32, DstReg, SrcReg, false, true>>,
    // Branches.
    jcc!(2), jcc!(3), jcc!(4), jcc!(5), jcc!(6), jcc!(7), jcc!(8), jcc!(9), jcc!(12), jcc!(13), jcc!(14), jcc!(15),
    compare_branch!(Cmp, u32, R, SrcReg, 2), compare_branch!(Cmp, u32, R, SrcReg, 3),
    compare_branch!(Cmp, u32, R, SrcReg, 4), compare_branch!(Cmp, u32, R, SrcReg, 5),
    compare_branch!(Cmp, u32, R, SrcReg, 6), compare_branch!(Cmp, u32, R, SrcReg, 7),
    compare_branch!(Cmp, u32, R, SrcReg, 12), compare_branch!(Cmp, u32, R, SrcReg, 13),
    compare_branch!(Cmp, u32, R, SrcReg, 14), compare_branch!(Cmp, u32, R, SrcReg, 15),
    compare_branch!(Cmp, u32, R, SrcImm, 2), compare_branch!(Cmp, u32, R, SrcImm, 3),
    compare_branch!(Cmp, u32, R, SrcImm, 4), compare_branch!(Cmp, u32, R, SrcImm, 5),
    compare_branch!(Cmp, u32, R, SrcImm, 6), compare_branch!(Cmp, u32, R, SrcImm, 7),
    compare_branch!(Cmp, u32, R, SrcImm, 14), compare_branch!(Cmp, u32, R, SrcImm, 15),
    compare_branch!(Cmp, u32, DstReg, SrcMem<Flat>, 2), compare_branch!(Cmp, u32, DstReg, SrcMem<Flat>, 3),
    compare_branch!(Cmp, u32, DstReg, SrcMem<Flat>, 4), compare_branch!(Cmp, u32, DstReg, SrcMem<Flat>, 5),
    compare_branch!(Cmp, u32, DstMem<Flat>, SrcImm, 4), compare_branch!(Cmp, u32, DstMem<Flat>, SrcImm, 5),
    compare_branch!(Cmp, u32, DstMem<Flat>, SrcImm, 7),
    compare_branch!(Cmp, u32, DstMem<Flat>, SrcReg, 2), compare_branch!(Cmp, u32, DstMem<Flat>, SrcReg, 3),
    compare_branch!(Cmp, u32, DstMem<Flat>, SrcReg, 4), compare_branch!(Cmp, u32, DstMem<Flat>, SrcReg, 5),
    compare_branch!(Cmp, u32, DstMem<Flat>, SrcReg, 6), compare_branch!(Cmp, u32, DstMem<Flat>, SrcReg, 7),
    compare_branch!(Cmp, u32, DstMem<FlatIndexed>, SrcImm, 4), compare_branch!(Cmp, u32, DstMem<FlatIndexed>, SrcImm, 5),
    compare_branch!(Cmp, u8, DstMem<FlatIndexed>, SrcReg, 4), compare_branch!(Cmp, u8, DstMem<FlatIndexed>, SrcReg, 5),
    compare_branch!(Cmp, u8, LowDest, SrcImm, 4), compare_branch!(Cmp, u8, LowDest, SrcImm, 5),
    compare_branch!(Cmp, u8, LowDest, SrcImm, 7),
    compare_branch!(Cmp, u8, DstReg, SrcMem<Flat>, 5),
    compare_branch!(Cmp, u8, DstMem<Flat>, SrcImm, 4), compare_branch!(Cmp, u8, DstMem<Flat>, SrcImm, 5),
    compare_branch!(Test, u32, R, R, 4), compare_branch!(Test, u32, R, R, 5), compare_branch!(Test, u32, R, R, 8),
    compare_branch!(Test, u32, R, R, 9), compare_branch!(Test, u32, R, R, 14), compare_branch!(Test, u32, R, R, 15),
    compare_branch!(Test, u8, DstReg, SrcReg, 4), compare_branch!(Test, u8, DstReg, SrcReg, 5),
    compare_branch!(Test, u8, LowDest, SrcImm, 4), compare_branch!(Test, u8, LowDest, SrcImm, 5),
    compare_branch!(Test, u8, DstMem<Flat>, SrcImm, 4), compare_branch!(Test, u8, DstMem<Flat>, SrcImm, 5),
    compare_branch!(Test, u8, DstReg, SrcReg, 9),
    compare_branch!(Test, u32, R, SrcImm, 4), compare_branch!(Test, u32, R, SrcImm, 5),
    compare_branch!(Cmp, u16, DstReg, SrcImm, 3), compare_branch!(Cmp, u16, DstReg, SrcImm, 7),
    compare_branch!(Cmp, u16, DstMem<Flat>, SrcImm, 5),
    fused::<OpBranch<One<Dec, u32, R, true>, 5>>, fused::<OpBranch<Two<Add, u32, DstReg, SrcImm, true>, 5>>,
    fused::<OpBranch<Two<Sub, u32, DstReg, SrcImm, true>, 5>>,
    fused::<OpBranch<Two<And, u32, DstReg, SrcImm, true>, 4>>,
    fused::<OpBranch<Two<And, u32, DstReg, SrcImm, true>, 5>>,
    fused::<OpBranch<One<Dec, u32, DstMem<Flat>, true>, 5>>, fused::<OpBranch<One<Inc, u32, R, true>, 5>>,
    load_compare_branch!(Test, R, 4), load_compare_branch!(Test, R, 5),
    load_compare_branch!(Test, R, 8), load_compare_branch!(Test, R, 14),
    load_compare_branch!(Cmp, SrcImm, 4), load_compare_branch!(Cmp, SrcImm, 5),
    load_compare_branch!(Cmp, SrcImm, 6), load_compare_branch!(Cmp, SrcImm, 7),
    step::<Set<LowDest, 4>>, step::<Set<LowDest, 5>>,
    step::<Jmp>, step::<Call<true>>, step::<Ret>, step::<FallThrough>,
    quick::<PcThunk<R>, PcThunk<DstReg>>, step_far::<Jmp>, step_far::<Call<true>>, step_far::<FallThrough>,
    step::<CallEntry>, step::<JmpTo<SrcReg>>, step_far::<EntryJmp>, step::<JmpTo<SrcMem<FlatIndexed>>>,
    step::<CallTo<SrcReg, true>>, step::<CallTo<SrcMem<Flat>, true>>,
    far_link, guard_page,
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::Cpu;
    use crate::cpu::tests::flat;
    use crate::isa::decode::decode;
    use crate::isa::lower;
    use crate::isa::table::{Map, TABLE};

    /// mov eax, [12345678h]: what a comparison behind it is fused with.
    const LOAD: [u8; 6] = [0x8b, 0x05, 0x78, 0x56, 0x34, 0x12];
    /// cwde; xor ecx, ecx: no flag of what comes before it is read, and CWDE is joined with nothing.
    const OVERWRITE_FLAGS: [u8; 3] = [0x98, 0x31, 0xc9];
    const HLT: u8 = 0xf4;

    /// Decodes and lowers blocks, and notes the handlers.
    struct Lowering {
        cpu: Cpu,
        scratch: lower::Scratch,
        given: HashSet<usize>,
    }

    impl Lowering {
        /// Lowers the block that consists of these pieces, at this address.
        fn lower(&mut self, at: u32, pieces: &[&[u8]]) {
            self.cpu.eip = at;
            self.cpu.mem.write(at, &[&pieces.concat(), &[HLT][..]].concat());
            lower::build(&mut self.cpu, &mut self.scratch, false).unwrap();
            self.given.extend(self.scratch.uops.iter().map(|u| u.run.get().0 as usize));
        }

        /// Lowers an instruction by itself and with neighbours that flags and fusing depend on.
        fn among_neighbours(&mut self, insn: &[u8]) {
            self.lower(0x1000, &[insn]);
            self.lower(0x1000, &[insn, &OVERWRITE_FLAGS]);
            self.lower(0x1000, &[insn, insn]);
            // pop eax; ret
            self.lower(0x1000, &[insn, &[0x58, 0xc3]]);
            for condition in 0..16 {
                let branch = [0x70 + condition, 1];
                self.lower(0x1000, &[insn, &branch]);
                self.lower(0x1000, &[&LOAD, insn, &branch]);
            }
        }
    }

    /// Instructions of every row, with EAX or another register, or in memory by every kind of address.
    fn instructions() -> Vec<Vec<u8>> {
        // Register, displacement, index and displacement.
        let forms: [(u8, &[u8]); 4] = [(0xc0, &[]), (0xc1, &[]), (0x05, &[]), (0x04, &[0x0d])];
        let mut all = Vec::new();
        for row in TABLE.iter().filter(|row| matches!(row.map, Map::Base | Map::Of0F)) {
            for opcode in (0..=u8::MAX).skip(row.opcode.into()).take(row.opcodes()) {
                for reg in row.ext.map_or(0..2, |ext| ext..ext + 1) {
                    for (modrm, sib) in forms {
                        // The address or the immediate operand.
                        let mut bytes = [row.map.escape(), &[opcode, modrm | reg << 3], sib].concat();
                        bytes.extend([1; 8]);
                        for prefix in [&[][..], &[0x66], &[0x64]] {
                            let bytes = [prefix, &bytes].concat();
                            if let Ok(insn) = decode(&bytes, true) {
                                all.push(bytes[..insn.len.into()].to_vec());
                            }
                        }
                    }
                }
            }
        }
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn every_hot_handler_is_one_that_lowering_gives() {
        let mut lowering =
            Lowering { cpu: flat(&[]), scratch: lower::Scratch::default(), given: HashSet::new() };
        for insn in instructions() {
            lowering.among_neighbours(&insn);
        }
        // Over the end of a page: mov eax, 12345678h
        lowering.lower(0x1ffe, &[&[0xb8, 0x78, 0x56, 0x34, 0x12]]);
        // As many as fit into a block: nop
        lowering.lower(0x1000, &[&[0x90; 64]]);
        // call, to a place in the same page
        lowering.lower(0x1000, &[&[0xe8, 8, 0, 0, 0]]);
        // call, of: mov eax, [esp]; ret
        lowering.lower(0x1000, &[&[0xe8, 1, 0, 0, 0, HLT, 0x8b, 0x04, 0x24, 0xc3]]);
        // call, of: jmp [12345678h]
        lowering.lower(0x1000, &[&[0xe8, 1, 0, 0, 0, HLT, 0xff, 0x25, 0x78, 0x56, 0x34, 0x12]]);
        // jmp, back to a place in the same page
        lowering.lower(0x1100, &[&[0xeb, 0x80]]);
        // push eax; mov eax, ecx
        lowering.lower(0x1000, &[&[0x50, 0x89, 0xc8]]);
        // What returns: pop eax twice; a load; leave
        for last in [&[0x58, 0x58][..], &LOAD, &[0xc9]] {
            lowering.lower(0x1000, &[last, &[0xc3]]);
        }
        // Elsewhere than on WebAssembly it is executed with the jump behind it.
        lowering.given.insert(step::<CallEntry> as Handler as usize);
        // What a link to another page becomes, once its target is known.
        lowering.given.insert(far_link as Handler as usize);
        let missing = NAMES.iter().zip(HANDLERS);
        let missing = missing.filter(|(_, handler)| !lowering.given.contains(&(**handler as usize)));
        let missing: Vec<_> = missing.map(|(name, _)| name).collect();
        assert!(missing.is_empty(), "lowering never gives {missing:#?}");
    }
}
