//! How one decoded instruction leads to the next.
//!
//! A block is a row of [`Uop`]s. Each holds the address of its handler, and a handler ends by
//! calling the next one. In optimised builds for x86-64 and 64-bit ARM that call is a jump (the compiler
//! turns a call in tail position with the same signature into one); elsewhere, where it would eat the
//! stack, the handler returns the next uop to a loop. What an instruction means is written once, as an
//! [`Op`] or as a plain function ([`call`]), and does not know which of the two runs it.
//!
//! Only those two are seen to jump: `tests/tests/assembly.rs` reads the program for Linux on x86-64, `make
//! cross-boot` those for Windows and for 64-bit ARM. 32-bit x86, for one, passes arguments on the stack and
//! calls. A profile that does not optimise must leave `debug-assertions` on, which is what selects the loop.
//!
//! Rules for handlers, which keep them jumps: no value with a destructor, no local whose address
//! escapes, no call in the hot path that is not the last thing done.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use crate::cpu::regs::Reg;
use crate::mmu::tlb::Selected;
use crate::{Cpu, exception};

/// What runs a uop. The third argument is the number of instructions that may still be executed
/// before the driver wants control back; it is counted down where blocks end. The fourth is which of the TLB's
/// entries are in use: handlers hand it on in a register, for most instructions would load it.
///
/// A device that panics ends the run of its processor and nothing else: a panic passes through
/// handlers, which have nothing to clean up.
pub(crate) type Handler = unsafe extern "C-unwind" fn(&mut Cpu, *const Uop, i32, Selected) -> Ret;

/// What a uop has its handler as.
#[cfg(not(target_family = "wasm"))]
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Run(pub Handler);
#[cfg(target_family = "wasm")]
pub(crate) use crate::isa::hot::Run;

#[cfg(not(target_family = "wasm"))]
impl Run {
    pub fn new(handler: Handler) -> Self {
        Self(handler)
    }
}

/// One decoded instruction.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Uop {
    /// A cell, because an instruction may write over the code that its own block was decoded from, which
    /// changes the handler of the block's first uop.
    pub run: Cell<Run>,
    /// Immediate operand; in a block's last uop the distance from the block's start to the target.
    pub imm: u32,
    /// Displacement of a memory operand.
    pub disp: u32,
    pub dst: Reg,
    pub src: Reg,
    pub base: Reg,
    pub index: Reg,
    /// Segment (bits 0-2), scale (6-7) and [`form`] bits of the memory operand.
    pub form: u8,
    /// Number of instructions in the block up to this one, itself included, and [`uop_mark`]s.
    pub n: u8,
    pub at: Extent,
}

/// Which bytes of its block an instruction is: in bits 0-10 the offset of the first, in 12-15 how many. A uop
/// knows by itself where its instruction ends, because what comes next may be one that does nothing and
/// has no uop.
#[derive(Clone, Copy)]
pub(crate) struct Extent(u16);

impl Extent {
    const START: u16 = 0x7ff;
    /// The slot before this one is not the uop of an instruction whose flags may be left alone.
    const FIRST: u16 = 1 << 11;

    /// An instruction of `len` bytes, 15 at most.
    pub const fn new(start: u32, len: u32) -> Self {
        Self(start as u16 & Self::START | (len as u16) << 12)
    }

    pub fn start(self) -> u32 {
        u32::from(self.0 & Self::START)
    }

    pub fn end(self) -> u32 {
        self.start() + u32::from(self.0 >> 12)
    }

    pub fn is_first(self) -> bool {
        self.0 & Self::FIRST != 0
    }

    pub fn set_first(&mut self) {
        self.0 |= Self::FIRST;
    }
}

/// Bits of [`Uop::form`] between segment and scale.
pub(crate) mod form {
    /// Offsets wrap at 64 KiB.
    pub const ADDR16: u8 = 1 << 3;
    /// The r/m operand is in memory.
    pub const MEM: u8 = 1 << 4;
    /// Operand size is 16 bits.
    pub const OP16: u8 = 1 << 5;
    /// Where the scale is: on top, so that it takes nothing but a shift to have it.
    pub const SCALE: u32 = 6;
}

/// Bits of [`Uop::n`] above the count. No uop that ends a block has one.
pub(crate) mod uop_mark {
    /// All arithmetic flags are this instruction's own afterwards.
    pub const SETS_FLAGS: u8 = 1 << 6;
    /// They would be, but are left to [`Cpu::recover_flags`].
    pub const OWES_FLAGS: u8 = 1 << 7;
    /// The count.
    pub const COUNT: u8 = 0x3f;
}

impl Uop {
    /// Number of instructions in the block up to this one, itself included.
    pub fn count(&self) -> u8 {
        self.n & uop_mark::COUNT
    }

    pub fn is_mem(&self) -> bool {
        self.form & form::MEM != 0
    }

    pub fn op16(&self) -> bool {
        self.form & form::OP16 != 0
    }

    pub fn addr16(&self) -> bool {
        self.form & form::ADDR16 != 0
    }
}

/// A slot behind a uop that may leave its block: one way out.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Link {
    pub run: Run,
    /// Where control goes: the slot itself until the target is known, and for good if the target
    /// is in another page (the slot then checks that the page is still mapped there).
    pub target: *const Uop,
    /// The target block's first uop, once known.
    pub dest: *const Uop,
}

/// What stands before a block's first uop.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Header {
    /// Host address of the block's code.
    pub code: usize,
    /// Index of the block in the cache.
    pub block: u32,
}

/// A place in the block cache.
#[repr(C)]
pub(crate) union Slot {
    pub uop: ManuallyDrop<Uop>,
    pub link: Link,
    pub header: Header,
}

const _: () = assert!(size_of::<Slot>() == size_of::<Uop>());
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Uop>() == 24);

/// Where control goes after an instruction.
pub(crate) enum Flow {
    /// The next uop.
    Next,
    /// Through the link slot this many uops on; `Cpu::eip` is already the target.
    Link(usize),
    /// To whatever block is at `Cpu::eip`, found through the jump cache.
    Jump,
    /// Back to the block at `Cpu::eip`, most likely behind the last call.
    Return,
}

/// Why an instruction did not complete. Nothing of it has happened.
pub(crate) enum Stop {
    /// The fast path does not cover this access: run it again with `SLOW`.
    Slow,
    /// An exception, in `Cpu::fault`.
    Fault,
}

/// The result of one instruction.
pub(crate) type Step = Result<Flow, Stop>;

/// The semantics of an instruction.
pub(crate) trait Op {
    /// Executes it. With `SLOW` unset memory is reached through the TLB only; a miss, a page
    /// crossing or a device returns [`Stop::Slow`] with nothing changed.
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step;
}

/// Why the driver has control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The block at `eip` is wanted.
    Lookup,
    /// The block at `eip` is wanted and [`Cpu::exit_link`] leads to it.
    Resolve,
    /// As `Resolve`, and the target is in another page than the link.
    ResolveFar,
    /// The budget is spent.
    Budget,
    /// An exception in the instruction at `eip`.
    Fault,
    /// Something that the driver looks after may have changed: interrupts, modes, code.
    Attention,
}

#[cfg(all(
    not(debug_assertions),
    not(feature = "observe"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod flavour {
    use super::*;

    /// Nothing is returned until the driver gets control.
    pub(crate) type Ret = ();

    #[inline(always)]
    pub(super) unsafe fn go(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
        // SAFETY: `u` is in a live block, whose handlers all follow this protocol.
        unsafe { (*u).run.get().0(cpu, u, budget, tlb) }
    }

    #[inline(always)]
    pub(super) fn leave(cpu: &mut Cpu, budget: i32, why: Why) -> Ret {
        cpu.budget = budget;
        cpu.why = why;
    }

    /// Goes on with the uop behind `u`.
    #[inline(always)]
    pub(super) unsafe fn next(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
        // SAFETY: as in `go`.
        unsafe { go(cpu, u.add(1), budget, tlb) }
    }

    /// Keeps the two ways of a conditional branch two branches, where the compiler would otherwise select a pointer
    /// and make everything wait for it.
    #[inline(always)]
    pub(super) fn keep_apart() {
        // SAFETY: no instruction, of which the compiler knows nothing.
        unsafe { std::arch::asm!("", options(nomem, nostack, preserves_flags)) };
    }

    /// Runs from `entry` until a handler gives control back; the reason is in `cpu.why`.
    pub(crate) unsafe fn run(cpu: &mut Cpu, entry: *const Uop) {
        let (budget, tlb) = (cpu.budget, cpu.tlb.selected());
        // SAFETY: the caller gives a live block's first uop.
        unsafe { go(cpu, entry, budget, tlb) }
    }
}

#[cfg(not(all(
    not(debug_assertions),
    not(feature = "observe"),
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod flavour {
    use super::*;

    /// The next uop, or null for the driver, on WebAssembly [`crate::isa::hot::Hot::exit`]; the budget travels in
    /// [`Cpu::budget`].
    pub(crate) type Ret = *const Uop;

    #[inline(always)]
    pub(super) unsafe fn go(cpu: &mut Cpu, u: *const Uop, budget: i32, _: Selected) -> Ret {
        cpu.budget = budget;
        u
    }

    #[inline(always)]
    pub(super) fn leave(cpu: &mut Cpu, budget: i32, why: Why) -> Ret {
        cpu.budget = budget;
        cpu.why = why;
        #[cfg(target_family = "wasm")]
        return cpu.hot.exit();
        #[cfg(not(target_family = "wasm"))]
        std::ptr::null()
    }

    /// Goes on with the uop behind `u`, whose handler was given the budget that the processor has.
    #[inline(always)]
    pub(super) unsafe fn next(_: &mut Cpu, u: *const Uop, _: i32, _: Selected) -> Ret {
        // SAFETY: the caller's promise: `u` is not the last uop of its block, so there is another.
        unsafe {
            let next = u.add(1);
            #[cfg(not(target_family = "wasm"))]
            std::hint::assert_unchecked(!next.is_null());
            next
        }
    }

    #[inline(always)]
    pub(super) fn keep_apart() {}

    /// On WebAssembly a call through a pointer costs as much as what it leads to.
    #[cfg(target_family = "wasm")]
    pub(crate) use crate::isa::hot::run;

    /// Runs from `entry` until a handler gives control back; the reason is in `cpu.why`.
    #[cfg(not(target_family = "wasm"))]
    #[inline(never)]
    pub(crate) unsafe fn run(cpu: &mut Cpu, entry: *const Uop) {
        let mut u = entry;
        while !u.is_null() {
            // SAFETY: `u` is in a live block: the caller's promise for the first, the handlers'
            // for the others.
            #[cfg(feature = "observe")]
            cpu.dispatched(unsafe { (*u).run.get() }.0 as usize);
            // SAFETY: as above.
            u = unsafe { (*u).run.get().0(cpu, u, cpu.budget, cpu.tlb.selected()) };
        }
    }
}

pub(crate) use flavour::{Ret, run};
use flavour::{go, keep_apart, leave, next};

/// The handler of an [`Op`].
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn step<O: Op>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: dispatch passes uops of live blocks, each of them to the handler that lowering chose for it.
    unsafe { quick::<O, O>(cpu, u, budget, tlb) }
}

/// As [`step`], for one that ends its block and has a link slot for another page: what [`far_link`] would do
/// is done at once where it can be.
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn step_far<O: Op>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`.
    unsafe { Far::<O>::run(cpu, u, budget, tlb) }
}

/// The handler of an [`Op`] for particular registers, with the one for any to take the slow path.
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn quick<O: Op, S: Op>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`.
    unsafe { Alone::<O, S>::run(cpu, u, budget, tlb) }
}

/// What a handler does, from its uop on. Handlers of several instructions are made by putting these together,
/// and stand in the place of the first one's: one step less for the host's branch predictor. Each instruction
/// has its own uop still, for faults and for the slow path.
pub(crate) trait Work {
    /// # Safety
    /// `u` is in a live block, and what is behind it is what the type says.
    unsafe fn run(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret;
}

/// One instruction, with the slow path `S`.
pub(crate) struct Alone<O, S>(PhantomData<(O, S)>);
/// One that ends its block and has a link slot for another page, or for where it led the last time.
pub(crate) struct Far<O>(PhantomData<O>);
/// An instruction with the slow path `S`, and what is behind it, unless it jumps after all: what ends its block as a rule
/// is not put in front of anything.
pub(crate) struct Then<O, S, W>(PhantomData<(O, S, W)>);
/// Whatever the uop's own handler does.
pub(crate) struct Onward;
/// A conditional branch, whose target is in another page if `FAR`.
pub(crate) struct Unfused<O, const FAR: bool>(PhantomData<O>);
/// An instruction that sets flags and the conditional branch behind it, whose target is in another page if `FAR`.
pub(crate) struct Decision<F, const FAR: bool>(PhantomData<F>);
/// As [`Decision`], and what is behind the branch unless it is taken.
pub(crate) struct Otherwise<F, W>(PhantomData<(F, W)>);

/// Executes one uop. Returns from the caller what the slow path or the driver gives, if it is for them.
macro_rules! exec {
    ($O:ident, $S:ident, $cpu:ident, $u:ident, $budget:ident, $tlb:ident) => {{
        $cpu.tlb.has_selected($tlb);
        match $O::exec::<false>($cpu, &*$u) {
            Ok(flow) => flow,
            Err(Stop::Slow) => return slow::<$S>($cpu, $u, $budget, $tlb),
            Err(Stop::Fault) => return fault($cpu, $u, $budget),
        }
    }};
}

impl<O: Op, S: Op> Work for Alone<O, S> {
    #[inline(always)]
    unsafe fn run(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
        // SAFETY: dispatch only passes uops of live blocks, and a block ends in a uop that never
        // returns `Next`.
        unsafe {
            match exec!(O, S, cpu, u, budget, tlb) {
                Flow::Next => next(cpu, u, budget, tlb),
                Flow::Link(slot) => follow(cpu, u, budget, tlb, slot),
                Flow::Jump => jump(cpu, u, budget, tlb),
                Flow::Return => go_back(cpu, u, budget, tlb),
            }
        }
    }
}

impl<O: Op> Work for Far<O> {
    #[inline(always)]
    unsafe fn run(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
        // SAFETY: as for `Alone`.
        unsafe {
            match exec!(O, O, cpu, u, budget, tlb) {
                Flow::Link(slot) => follow_far(cpu, u, budget, tlb, slot),
                _ => jump(cpu, u, budget, tlb),
            }
        }
    }
}

impl<O: Op, S: Op, W: Work> Work for Then<O, S, W> {
    #[inline(always)]
    unsafe fn run(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
        // SAFETY: as for `Alone`; lowering puts together only uops that follow one another.
        unsafe {
            match exec!(O, S, cpu, u, budget, tlb) {
                Flow::Jump => jump(cpu, u, budget, tlb),
                _ => W::run(cpu, u.add(1), budget, tlb),
            }
        }
    }
}

impl Work for Onward {
    #[inline(always)]
    unsafe fn run(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
        // SAFETY: the caller's promise.
        unsafe { go(cpu, u, budget, tlb) }
    }
}

/// The handler of several instructions.
pub(crate) unsafe extern "C-unwind" fn joined<W: Work>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`.
    unsafe { W::run(cpu, u, budget, tlb) }
}

/// The handler of two instructions in a row.
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn pair<A, SlowA, B, SlowB>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret
where
    A: Op,
    SlowA: Op,
    B: Op,
    SlowB: Op,
{
    // SAFETY: as in `step`.
    unsafe { Then::<A, SlowA, Alone<B, SlowB>>::run(cpu, u, budget, tlb) }
}

/// As [`pair`], for three.
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn trio<A, SlowA, B, SlowB, C, SlowC>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret
where
    A: Op,
    SlowA: Op,
    B: Op,
    SlowB: Op,
    C: Op,
    SlowC: Op,
{
    // SAFETY: as in `step`.
    unsafe { Then::<A, SlowA, Then<B, SlowB, Alone<C, SlowC>>>::run(cpu, u, budget, tlb) }
}

/// As [`step`], for what the TLB could not answer.
#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn slow<O: Op>(cpu: &mut Cpu, u: *const Uop, budget: i32, _: Selected) -> Ret {
    // SAFETY: as in `step`.
    unsafe {
        let done = O::exec::<true>(cpu, &*u);
        let tlb = cpu.tlb.selected();
        match done {
            Ok(Flow::Next) if cpu.attention => after(cpu, u, budget),
            Ok(Flow::Next) => next(cpu, u, budget, tlb),
            Ok(_) if cpu.attention => leave(cpu, budget - cost(u), Why::Attention),
            Ok(Flow::Link(slot)) => follow(cpu, u, budget, tlb, slot),
            Ok(Flow::Jump | Flow::Return) => jump(cpu, u, budget, tlb),
            Err(_) => fault(cpu, u, budget),
        }
    }
}

/// Instructions executed in the block when `u` is done.
#[inline(always)]
unsafe fn cost(u: *const Uop) -> i32 {
    // SAFETY: as in `step`.
    unsafe { i32::from((*u).n) }
}

#[inline(always)]
unsafe fn follow(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected, slot: usize) -> Ret {
    // SAFETY: as in `step`; a uop that returns `Link(n)` has n slots behind it.
    unsafe {
        let budget = budget - cost(u);
        let link = u.add(slot).cast::<Link>();
        if budget < 0 { spent(cpu, budget) } else { go(cpu, (*link).target, budget, tlb) }
    }
}

/// As [`follow`], through a link to another page.
#[inline(always)]
unsafe fn follow_far(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected, slot: usize) -> Ret {
    // SAFETY: as in `follow`; a link's destination is null or a live block's first uop.
    unsafe {
        cpu.tlb.has_selected(tlb);
        let budget = budget - cost(u);
        let link = u.add(slot).cast::<Link>();
        let dest = (*link).dest;
        if budget < 0 {
            spent(cpu, budget)
        } else if !dest.is_null() && cpu.is_mapped(dest) {
            go(cpu, dest, budget, tlb)
        } else {
            go(cpu, (*link).target, budget, tlb)
        }
    }
}

/// A conditional branch that is taken.
#[inline(always)]
unsafe fn follow_taken(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
    keep_apart();
    // SAFETY: as in `step`; a conditional branch has a slot behind it.
    unsafe {
        cpu.eip = cpu.eip.wrapping_add((*u).imm);
        follow(cpu, u, budget, tlb, 1)
    }
}

/// Behind a conditional branch that is not taken, and behind its slot.
#[inline(always)]
unsafe fn not_taken(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
    // SAFETY: as in `step`; no block ends with a conditional branch.
    unsafe { next(cpu, u.add(1), budget, tlb) }
}

/// To the block behind the last call, if that is where `eip` is.
#[inline(always)]
unsafe fn go_back(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
    // SAFETY: as in `step`; the calls hold slots of live blocks, and a slot's destination is one.
    unsafe {
        let Some(slot) = cpu.calls.pop(cpu.linear_eip(), cpu.mode) else { return jump(cpu, u, budget, tlb) };
        cpu.tlb.has_selected(tlb);
        let budget = budget - cost(u);
        let dest = (*slot).dest;
        if budget < 0 {
            spent(cpu, budget)
        } else if dest.is_null() {
            resolve_far(cpu, slot.cast(), budget, tlb)
        } else if cpu.is_mapped(dest) {
            go(cpu, dest, budget, tlb)
        } else {
            missed_link(cpu, slot.cast(), budget, tlb)
        }
    }
}

#[inline(always)]
unsafe fn jump(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
    // SAFETY: as in `step`.
    unsafe {
        let budget = budget - cost(u);
        if budget < 0 { spent(cpu, budget) } else { look_up(cpu, budget, tlb, |_| {}) }
    }
}

/// To whatever block is at `eip`, of which `seen` is told if the jump cache has it.
#[inline(always)]
unsafe fn look_up(cpu: &mut Cpu, budget: i32, tlb: Selected, seen: impl FnOnce(*const Uop)) -> Ret {
    // SAFETY: as in `step`; the jump cache holds only first uops of live blocks.
    unsafe {
        cpu.tlb.has_selected(tlb);
        match cpu.jumps.get(cpu.linear_eip(), cpu.mode) {
            Some(entry) if cpu.is_mapped(entry) => {
                seen(entry);
                go(cpu, entry, budget, tlb)
            }
            Some(entry) => missed_jump(cpu, entry, budget, tlb),
            None => leave(cpu, budget, Why::Lookup),
        }
    }
}

/// To a block that the jump cache has, if it is there still and only the TLB has forgotten.
#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn missed_jump(cpu: &mut Cpu, entry: *const Uop, budget: i32, tlb: Selected) -> Ret {
    // SAFETY: as in `jump`.
    unsafe { if cpu.is_there(entry) { go(cpu, entry, budget, tlb) } else { leave(cpu, budget, Why::Lookup) } }
}

/// Through a link whose target is known, if it is there still and only the TLB has forgotten.
#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn missed_link(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
    // SAFETY: as in `step`; the caller has seen that the link has a destination.
    unsafe {
        let dest = (*u.cast::<Link>()).dest;
        if cpu.is_there(dest) { go(cpu, dest, budget, tlb) } else { resolve_far(cpu, u, budget, tlb) }
    }
}

/// Leaves with the budget spent.
#[cold]
#[inline(never)]
extern "C-unwind" fn spent(cpu: &mut Cpu, budget: i32) -> Ret {
    leave(cpu, budget, Why::Budget)
}

/// Leaves with an exception in the instruction `u`.
#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn fault(cpu: &mut Cpu, u: *const Uop, budget: i32) -> Ret {
    // SAFETY: as in `step`.
    unsafe {
        cpu.recover_flags(u, false);
        cpu.eip = cpu.eip.wrapping_add((*u).at.start());
        leave(cpu, budget - i32::from((*u).count()) + 1, Why::Fault)
    }
}

/// Leaves after the instruction `u`, which completed.
#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn after(cpu: &mut Cpu, u: *const Uop, budget: i32) -> Ret {
    // SAFETY: as in `step`.
    unsafe {
        cpu.recover_flags(u, true);
        cpu.eip = cpu.eip.wrapping_add((*u).at.end());
        leave(cpu, budget - i32::from((*u).count()), Why::Attention)
    }
}

/// As [`follow_taken`], to another page.
#[inline(always)]
unsafe fn follow_taken_far(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
    keep_apart();
    // SAFETY: as in `follow_taken`.
    unsafe {
        cpu.eip = cpu.eip.wrapping_add((*u).imm);
        follow_far(cpu, u, budget, tlb, 1)
    }
}

/// The handler of a conditional branch.
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn branch<O: Op, const FAR: bool>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`.
    unsafe { Unfused::<O, FAR>::run(cpu, u, budget, tlb) }
}

/// `Op::exec` answers with `Next` for not taken and `Link(1)` for taken, and leaves `eip` alone. `imm` is the
/// distance to the target. The block goes on behind the branch's slot.
impl<O: Op, const FAR: bool> Work for Unfused<O, FAR> {
    #[inline(always)]
    unsafe fn run(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
        // SAFETY: as for `Alone`.
        unsafe {
            cpu.tlb.has_selected(tlb);
            match O::exec::<false>(cpu, &*u) {
                Ok(Flow::Next) => not_taken(cpu, u, budget, tlb),
                Ok(_) if FAR => follow_taken_far(cpu, u, budget, tlb),
                Ok(_) => follow_taken(cpu, u, budget, tlb),
                Err(Stop::Slow) => slow_branch::<O>(cpu, u, budget, tlb),
                Err(Stop::Fault) => fault(cpu, u, budget),
            }
        }
    }
}

/// An instruction that sets flags with the conditional branch behind it.
pub(crate) trait Fused {
    /// The first of the two alone, for the slow path.
    type First: Op;
    /// Executes it as [`Op::exec`] does without `SLOW`, flags included, and says whether the
    /// condition holds.
    fn test(cpu: &mut Cpu, u: &Uop) -> Result<bool, Stop>;
}

/// The handler of a fused pair. The branch's own uop stays where it is: it has the distances, and is run by
/// itself if the first needs the slow path.
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn fused<F: Fused>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`.
    unsafe { Decision::<F, false>::run(cpu, u, budget, tlb) }
}

/// The handler of an instruction and the fused pair behind it.
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn lead_fused<A, SlowA, F>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret
where
    A: Op,
    SlowA: Op,
    F: Fused,
{
    // SAFETY: as in `step`.
    unsafe { Then::<A, SlowA, Decision<F, false>>::run(cpu, u, budget, tlb) }
}

impl<F: Fused, const FAR: bool> Work for Decision<F, FAR> {
    #[inline(always)]
    unsafe fn run(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
        // SAFETY: as for `Alone`; lowering fuses only with a branch that is next.
        unsafe {
            let branch = u.add(1);
            cpu.tlb.has_selected(tlb);
            match F::test(cpu, &*u) {
                Ok(true) if FAR => follow_taken_far(cpu, branch, budget, tlb),
                Ok(true) => follow_taken(cpu, branch, budget, tlb),
                Ok(false) => not_taken(cpu, branch, budget, tlb),
                Err(_) => slow::<F::First>(cpu, u, budget, tlb),
            }
        }
    }
}

impl<F: Fused, W: Work> Work for Otherwise<F, W> {
    #[inline(always)]
    unsafe fn run(cpu: &mut Cpu, u: *const Uop, budget: i32, tlb: Selected) -> Ret {
        // SAFETY: as for `Decision`; what the branch is followed by is behind its slot.
        unsafe {
            let branch = u.add(1);
            cpu.tlb.has_selected(tlb);
            match F::test(cpu, &*u) {
                Ok(true) => follow_taken(cpu, branch, budget, tlb),
                Ok(false) => W::run(cpu, branch.add(2), budget, tlb),
                Err(_) => slow::<F::First>(cpu, u, budget, tlb),
            }
        }
    }
}

#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn slow_branch<O: Op>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    _: Selected,
) -> Ret {
    // SAFETY: as in `step`.
    unsafe {
        let done = O::exec::<true>(cpu, &*u);
        let tlb = cpu.tlb.selected();
        match done {
            Ok(Flow::Next) if cpu.attention => after(cpu, u, budget),
            Ok(Flow::Next) => not_taken(cpu, u, budget, tlb),
            Ok(_) => {
                cpu.eip = cpu.eip.wrapping_add((*u).imm);
                if cpu.attention {
                    return leave(cpu, budget - cost(u), Why::Attention);
                }
                follow(cpu, u, budget, tlb, 1)
            }
            Err(_) => fault(cpu, u, budget),
        }
    }
}

/// The function item of a type: it has no bytes, so that its type says all.
fn function_of<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "handlers are plain functions") }
    // SAFETY: reading zero bytes is sound at any aligned address, and a function item is inhabited.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

/// Runs a plain function's body in a frame of its own: its locals must be gone before the handler
/// ends in a jump.
#[inline(never)]
fn invoke<F>(cpu: &mut Cpu, u: &Uop) -> exception::Result<()>
where
    F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
{
    function_of::<F>()(cpu, u)
}

/// The handler of an instruction written as a plain function: the many that are not hot.
pub(crate) unsafe extern "C-unwind" fn call<F>(cpu: &mut Cpu, u: *const Uop, budget: i32, _: Selected) -> Ret
where
    F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
{
    // SAFETY: as in `step`.
    unsafe {
        match invoke::<F>(cpu, &*u) {
            Ok(()) if cpu.attention => after(cpu, u, budget),
            Ok(()) => {
                let tlb = cpu.tlb.selected();
                next(cpu, u, budget, tlb)
            }
            Err(e) => {
                cpu.fault = e;
                fault(cpu, u, budget)
            }
        }
    }
}

/// As [`call`], for an instruction that sets `Cpu::eip` itself and ends its block: far transfers, mode changes. With
/// `GOES_ON` the block at its target is next, if there is nothing that the driver would do before.
pub(crate) unsafe extern "C-unwind" fn call_last<F, const GOES_ON: bool>(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    _: Selected,
) -> Ret
where
    F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
{
    // SAFETY: as in `step`.
    unsafe {
        match invoke::<F>(cpu, &*u) {
            Ok(()) if GOES_ON && !cpu.wants_driver() => {
                let tlb = cpu.tlb.selected();
                jump(cpu, u, budget, tlb)
            }
            Ok(()) => leave(cpu, budget - cost(u), Why::Attention),
            Err(e) => {
                cpu.fault = e;
                fault(cpu, u, budget)
            }
        }
    }
}

/// The handler of type `F` for a function item.
pub(crate) fn handler_of<F>(_: F) -> Handler
where
    F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
{
    call::<F>
}

/// The block-ending handler of type `F` for a function item.
pub(crate) fn last_handler_of<F, const GOES_ON: bool>(_: F) -> Handler
where
    F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
{
    call_last::<F, GOES_ON>
}

/// A link slot whose target is not known yet.
pub(crate) unsafe extern "C-unwind" fn resolve(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    _: Selected,
) -> Ret {
    cpu.exit_link = u.cast::<Link>().cast_mut();
    leave(cpu, budget, Why::Resolve)
}

/// A link slot to another page whose target is not known yet.
pub(crate) unsafe extern "C-unwind" fn resolve_far(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    _: Selected,
) -> Ret {
    cpu.exit_link = u.cast::<Link>().cast_mut();
    leave(cpu, budget, Why::ResolveFar)
}

/// A link slot to another page: good as long as the page is mapped where it was.
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn far_link(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`; a far link has a destination.
    unsafe {
        cpu.tlb.has_selected(tlb);
        let dest = (*u.cast::<Link>()).dest;
        if cpu.is_mapped(dest) { go(cpu, dest, budget, tlb) } else { missed_link(cpu, u, budget, tlb) }
    }
}

/// The link slot of a jump that finds its target itself, when that is not where the slot leads: it leads there from now on.
pub(crate) unsafe extern "C-unwind" fn lead_elsewhere(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`; nothing refers to the slot, and the jump cache holds only what a destination may be.
    unsafe { look_up(cpu, budget, tlb, |entry| (*u.cast::<Link>().cast_mut()).dest = entry) }
}

/// The first uop of a block that is no longer valid.
pub(crate) unsafe extern "C-unwind" fn stale(cpu: &mut Cpu, _: *const Uop, budget: i32, _: Selected) -> Ret {
    leave(cpu, budget, Why::Lookup)
}

/// The first uop of an invalidated block that has a successor.
pub(crate) unsafe extern "C-unwind" fn forward(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`; a forwarder's `dest` is the successor's first uop.
    unsafe { go(cpu, (*u.cast::<Link>()).dest, budget, tlb) }
}

/// First uop of a block that runs over the end of its page: `imm` bytes from the start the next
/// page begins, and `disp` is the RAM page it must be.
#[cfg_attr(target_family = "wasm", inline(always))]
pub(crate) unsafe extern "C-unwind" fn guard_page(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`.
    unsafe {
        let linear = cpu.linear_eip().wrapping_add((*u).imm);
        if cpu.mapped_page(linear) == Some((*u).disp) {
            next(cpu, u, budget, tlb)
        } else {
            leave(cpu, budget, Why::Lookup)
        }
    }
}

/// First uop of a block in a code segment with a limit: the block has `imm` bytes.
pub(crate) unsafe extern "C-unwind" fn guard_limit(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`.
    unsafe {
        if u64::from(cpu.eip) + u64::from((*u).imm) <= cpu.code_end() {
            next(cpu, u, budget, tlb)
        } else {
            leave(cpu, budget, Why::Lookup)
        }
    }
}

/// First uop of a block that begins at a breakpoint of the host's, or where the same place of another page
/// has one.
pub(crate) unsafe extern "C-unwind" fn guard_breakpoint(
    cpu: &mut Cpu,
    u: *const Uop,
    budget: i32,
    tlb: Selected,
) -> Ret {
    // SAFETY: as in `step`.
    unsafe {
        if cpu.debugger.has_breakpoint(cpu.linear_eip()) {
            leave(cpu, budget, Why::Lookup)
        } else {
            next(cpu, u, budget, tlb)
        }
    }
}
