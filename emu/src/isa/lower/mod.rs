//! From decoded instructions to the uops of a block.
//!
//! A family of instructions emits its uops through a [`Builder`]. [`select`] picks the instance of a handler
//! for an instruction's operands, [`fuse`] puts neighbours together, [`flags`] drops flags that nothing reads,
//! and [`build`] fetches and decodes the code and puts it all in a row.

mod build;
mod flags;
mod frames;
mod fuse;
mod join;
mod pairs;
mod select;
#[cfg(test)]
mod tests;

#[cfg(any(target_family = "wasm", test))]
pub(super) use build::FallThrough;
pub(super) use build::raise_ud;
pub(crate) use build::{Scratch, build};
use flags::Effect;
pub(crate) use flags::Recovery;
pub(crate) use fuse::{Fuse, Prior};
pub(crate) use join::{Choice, Compared, End, Kind};
pub(crate) use select::{AddrKind, by_addr, by_base, by_data_reg, by_low, by_octal, by_operand, by_reg};

use std::cell::Cell;

use super::branch;
use super::decode::{Insn, What};
use super::mov::Nop;
use super::table::Spec;
use crate::Cpu;
use crate::blocks::{filler, link_slot};
use crate::cpu::regs::Reg;
use crate::cpu::{SegName, mode};
use crate::dispatch::{self, Extent, Handler, Run, Uop, form, step};
use crate::exception;

const PAGE_SIZE: u32 = 0x1000;

/// Most conditional branches in a block.
const MAX_EXITS: u8 = 8;

/// Most instructions that a block may have when it goes back to some of them.
const MAX_REPEATED: u8 = 16;

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A general register, by number.
    Reg(u8),
    Mem,
    Imm,
}

/// What a CALL leads to, if it is short and common enough to be executed with the call.
#[derive(Clone, Copy)]
pub(crate) enum Callee {
    /// A function that only loads its return address into this register.
    PcThunk(u8),
    /// An entry of a procedure linkage table: JMP through memory, at an address or relative to EBX.
    LinkageEntry { base: Reg, disp: u32 },
}

impl Callee {
    /// How many instructions it has.
    fn instructions(self) -> u8 {
        match self {
            Self::PcThunk(_) => 2,
            Self::LinkageEntry { .. } => 1,
        }
    }
}

/// A block under construction.
pub(crate) struct Builder<'a> {
    uops: &'a mut Vec<Uop>,
    effects: &'a mut Vec<Effect>,
    /// See [`mode`].
    mode: u32,
    /// Number of instructions before the current one.
    n: u8,
    /// Offsets of the current instruction and of the next from the block's start.
    start: u32,
    next: u32,
    /// Bytes of code so far.
    len: u32,
    /// It has gone back once, to what it has already.
    repeats: bool,
    /// Offset of the block's start in its page.
    page_offset: u32,
    /// Bytes of code that can be decoded.
    reach: u32,
    /// Which uops are link slots, a bit each.
    links: u128,
    /// Conditional branches that the block goes on behind.
    exits: u8,
    /// The block ends with a uop that has the target.
    done: bool,
    /// The block ends, and execution runs on into the next.
    left_open: bool,
    prior: Prior,
    /// What the current instruction calls, if that is executed with it.
    callee: Option<Callee>,
    /// Instructions that the current one stands for besides itself.
    others: u8,
    /// The block is for one execution, outside the cache.
    alone: bool,
}

impl Insn {
    /// The condition of Jcc, SETcc, CMOVcc.
    pub(crate) fn condition(&self) -> u8 {
        self.opcode & 15
    }
}

impl Builder<'_> {
    /// Emits the uop of an instruction: operand 0 is `dst`, operand 1 is `src`.
    pub fn emit(&mut self, i: &Insn, run: Handler) -> &mut Uop {
        let mut u = self.uop(i, run);
        if let Place::Reg(n) = i.place(0) {
            u.dst = Reg::of_size(n, i.width(0));
        }
        if let Place::Reg(n) = i.place(1) {
            u.src = Reg::of_size(n, i.width(1));
        }
        self.push(u);
        if let Place::Reg(n) = i.place(0) {
            let n = if i.width(0) == 1 { n & 3 } else { n };
            self.writes(n);
        }
        self.last()
    }

    /// Emits the uop of an instruction whose r/m operand is to be `dst` and whose reg operand
    /// `src`, in whatever order it has them.
    pub fn emit_rm(&mut self, i: &Insn, run: Handler) -> &mut Uop {
        let mut u = self.uop(i, run);
        let operands = match i.what {
            What::Row(row) => row.operands,
            What::Simd(_) => &[],
        };
        for (n, spec) in operands.iter().enumerate().take(2) {
            use Spec::*;
            match (spec, i.place(n)) {
                (Eb | Ew | Ev | Ed | Rd, Place::Reg(r)) => u.dst = Reg::of_size(r, i.width(n)),
                (Gb | Gw | Gv | Gd, Place::Reg(r)) => u.src = Reg::of_size(r, i.width(n)),
                _ => {}
            }
        }
        self.push(u)
    }

    /// Emits an instruction written as a plain function, r/m as `dst` and reg as `src`.
    pub fn call<F>(&mut self, i: &Insn, f: F) -> &mut Uop
    where
        F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
    {
        self.emit_rm(i, dispatch::handler_of(f));
        self.opaque();
        self.last()
    }

    /// As `call`, for one that sets EIP and ends the block.
    pub fn call_last<F>(&mut self, i: &Insn, f: F) -> &mut Uop
    where
        F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
    {
        self.emit_last(i, dispatch::last_handler_of::<F, false>(f))
    }

    /// As `call_last`, for one after which the driver has nothing to do as a rule.
    pub fn call_jump<F>(&mut self, i: &Insn, f: F) -> &mut Uop
    where
        F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
    {
        self.emit_last(i, dispatch::last_handler_of::<F, true>(f))
    }

    fn emit_last(&mut self, i: &Insn, run: Handler) -> &mut Uop {
        self.emit_rm(i, run);
        self.opaque();
        self.done = true;
        self.last()
    }

    fn uop(&self, i: &Insn, run: Handler) -> Uop {
        let mut u =
            Uop { run: Cell::new(Run::new(run)), imm: i.imm, n: self.n + 1, at: self.extent(), ..filler() };
        if i.op16 {
            u.form |= form::OP16;
        }
        if i.addr16 {
            u.form |= form::ADDR16;
        }
        if let Some(m) = i.mem {
            u.disp = m.disp;
            u.base = m.base.map_or(Reg::ZERO, Reg::dword);
            u.index = m.index.map_or(Reg::ZERO, Reg::dword);
            u.form |= form::MEM | m.segment as u8 | m.scale << form::SCALE;
        } else {
            u.form |= i.segment.unwrap_or(SegName::DS) as u8;
        }
        u
    }

    /// Where the current instruction is.
    fn extent(&self) -> Extent {
        let mut at = Extent::new(self.start, self.next - self.start);
        // Flags are right at a conditional branch, and its link slot is no instruction's uop.
        if self.uops.len().checked_sub(1).is_some_and(|last| self.links >> last & 1 != 0) {
            at.set_first();
        }
        at
    }

    /// An instruction that does nothing is executed with the one behind it, or with the block's end: it counts
    /// among those before.
    pub fn elide(&mut self, i: &Insn) {
        if self.alone {
            self.emit(i, step::<Nop>);
        }
    }

    /// Goes on with the code at a distance from the block's start, if it is in reach: the jump there has no uop then,
    /// as an instruction that does nothing has none. A short loop that ends with a jump back is so had twice.
    pub fn skip_to(&mut self, distance: u32) -> bool {
        let back = distance < self.next;
        let may = if back { !self.repeats && self.n <= MAX_REPEATED } else { distance < self.reach };
        let in_reach = may && !self.alone;
        if in_reach {
            self.repeats |= back;
            self.next = distance;
        }
        in_reach
    }

    fn push(&mut self, u: Uop) -> &mut Uop {
        self.prior = Prior::Nothing;
        self.uops.push(u);
        self.effects.push(Effect::default());
        self.last()
    }

    /// The uop emitted last.
    pub fn last(&mut self) -> &mut Uop {
        let at = self.uops.len() - 1;
        &mut self.uops[at]
    }

    /// Emits the uop of an instruction that may be joined with its neighbours.
    pub fn emit_choice(&mut self, i: &Insn, choice: Choice) -> &mut Uop {
        self.emit(i, choice.run);
        self.effect().kind = choice.kind;
        self.last()
    }

    /// The block ends with the last uop, in this way.
    pub fn ends(&mut self, end: End) {
        self.effect().end = Some(end);
    }

    fn effect(&mut self) -> &mut Effect {
        let at = self.effects.len() - 1;
        &mut self.effects[at]
    }

    /// Whether branch targets need neither limit check nor wrapping, so that they can be linked.
    pub fn links_allowed(&self, i: &Insn) -> bool {
        self.mode & mode::FLAT_CODE != 0 && !i.op16
    }

    /// PUSH and POP at ESP in a flat stack segment.
    pub fn flat_stack(&self) -> bool {
        self.mode & (mode::FLAT_DATA | mode::STACK32) == mode::FLAT_DATA | mode::STACK32
    }

    /// What is called here, if the call is to stand for that, too.
    pub fn take_callee(&mut self) -> Option<Callee> {
        let callee = self.callee.take()?;
        self.others = callee.instructions();
        Some(callee)
    }

    /// The uop of the JMP in an entry of a procedure linkage table that is called. Whatever executes it has set EIP to the
    /// entry's address.
    pub fn jump_of_entry(&mut self, base: Reg, disp: u32, run: Handler) {
        let mut at = Extent::new(0, branch::LINKAGE_ENTRY as u32);
        at.set_first();
        let (n, form) = (self.n + 2, form::MEM | SegName::DS as u8);
        self.push(Uop { run: Cell::new(Run::new(run)), disp, base, form, n, at, ..filler() });
        self.effect().leaves = true;
        let call = self.effects.len() - 2;
        self.effects[call].uops = 2;
    }

    /// Distance from the block's start to the next instruction.
    pub fn next_distance(&self) -> u32 {
        self.next
    }

    /// Adds a link slot for a target at a distance from the block's start, and ends the block.
    pub fn link(&mut self, distance: u32) {
        let far = self.is_far(distance);
        self.slot(far);
        self.done = true;
    }

    /// Adds a link slot for a branch that may be taken to a distance from the block's start. The block goes on behind it, if
    /// it has not many exits: also where a loop ends, for otherwise its last round takes a dispatch more.
    pub fn exit(&mut self, distance: u32) {
        let far = self.is_far(distance);
        self.slot(far);
        self.exits += 1;
        self.left_open = self.exits == MAX_EXITS;
    }

    /// A target at a distance from the block's start is in another page.
    pub fn is_far(&self, distance: u32) -> bool {
        self.page_offset.wrapping_add(distance) >= PAGE_SIZE
    }

    /// Adds a link slot for where a jump that finds its target itself led the last time, and ends the block.
    pub fn link_jump(&mut self) {
        self.push_slot(dispatch::lead_elsewhere);
        self.done = true;
    }

    /// Adds a link slot for where a call returns to. Whatever happens in between, it must be checked.
    pub fn link_return(&mut self) {
        self.slot(true);
        self.done = true;
    }

    fn slot(&mut self, far: bool) {
        self.push_slot(if far { dispatch::resolve_far } else { dispatch::resolve });
    }

    fn push_slot(&mut self, run: Handler) {
        self.links |= 1 << self.uops.len();
        self.push(link_slot(run));
    }

    /// The block stays in the cache, so that pointers into it can be kept.
    pub fn kept(&self) -> bool {
        !self.alone
    }

    /// Ends the block after an instruction that finds its target itself.
    pub fn end(&mut self) {
        self.done = true;
    }
}
