//! Arithmetic flags that nothing reads, and how they are had when a block is left early.

#![allow(unsafe_code)]

use super::{Builder, Choice, End, Kind};
use crate::Cpu;
use crate::dispatch::{Run, Uop, uop_mark};
use crate::isa::alu;

/// How arithmetic flags and registers pass through an instruction.
#[derive(Clone, Copy, Default)]
pub(super) struct Effect {
    /// All six flags are overwritten, whatever happens.
    pub(super) kills: bool,
    /// Some flags are read; or this is code that may look at anything.
    pub(super) reads: bool,
    /// The block can be left here, by a fault or for the driver's attention.
    pub(super) leaves: bool,
    /// The handler that leaves flags alone, for when no instruction reads them.
    pub(super) without: Option<Choice>,
    /// How flags that were left alone can be had from the operands afterwards.
    pub(super) recovery: Option<Recovery>,
    /// General registers written, a bit each.
    pub(super) writes: u8,
    /// What the instruction is to [`join`](super::join), if it does not end its block.
    pub(super) kind: Option<Kind>,
    /// The same where [`Kind::general`] takes several kinds as one.
    pub(super) general: Option<Kind>,
    /// How the block ends, from this uop on.
    pub(super) end: Option<End>,
    /// How many uops the handler executes, if more than one.
    pub(super) uops: u8,
    /// How many handlers it takes from here to the end of the block, in 256ths: see [`join`](super::join).
    pub(super) left: u16,
}

/// Flags as a function of registers after the instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// For [`super::alu::recover`]; fits the uop's `form`, which an instruction without a memory
    /// operand does not use.
    pub code: u8,
    /// The registers that must still be as the instruction left them, a bit each.
    pub registers: u8,
}

impl Effect {
    /// The instruction of this uop gets another handler.
    fn becomes(&mut self, u: &mut Uop, choice: Choice) {
        u.run.set(Run::new(choice.run));
        self.kind = choice.kind;
    }

    /// Its flags are left to [`Cpu::recover_flags`].
    fn owes(&self, u: &mut Uop, recovery: Recovery) {
        u.form = recovery.code;
        u.n = (u.n & !uop_mark::SETS_FLAGS) | uop_mark::OWES_FLAGS;
    }
}

impl Builder<'_> {
    /// The last uop may look at and change anything.
    pub fn opaque(&mut self) {
        let e = self.effect();
        (e.reads, e.leaves, e.writes) = (true, true, 0xff);
    }

    /// The last uop can leave the block: it reaches memory.
    pub fn leaves(&mut self) {
        self.effect().leaves = true;
    }

    /// The last uop reads arithmetic flags.
    pub fn reads_flags(&mut self) {
        self.effect().reads = true;
    }

    /// The last uop overwrites all arithmetic flags (or some, or perhaps none, if not `all`); the
    /// given handler does the same without.
    pub fn writes_flags(&mut self, all: bool, without: Option<Choice>) {
        let f = self.effect();
        f.kills = all;
        f.without = without;
    }

    /// The last uop's flags can be found again from registers.
    pub fn recoverable(&mut self, recovery: Option<Recovery>) {
        self.effect().recovery = recovery;
    }

    /// The last uop writes a general register that is not its first operand.
    pub fn writes(&mut self, n: u8) {
        self.effect().writes |= 1 << n;
    }

    /// Replaces handlers by those that leave flags alone where no instruction reads them.
    ///
    /// Where the block may be left between an instruction and the next that overwrites its flags,
    /// they are left alone only if they can be found again from registers that nothing in between
    /// has written; the uop is then marked, for [`Cpu::recover_flags`].
    pub(super) fn drop_dead_flags(&mut self) {
        // Going backwards: whether flags written here are read; whether the block can be left
        // before they are overwritten; registers written until the last point where it can.
        let (mut live, mut left, mut written) = (true, false, 0);
        for (u, e) in self.uops.iter_mut().zip(self.effects.iter_mut()).rev() {
            if e.kills {
                u.n |= uop_mark::SETS_FLAGS;
                match (live, left, e.without, e.recovery) {
                    (false, false, Some(without), _) => e.becomes(u, without),
                    (false, true, Some(without), Some(r)) if r.registers & written == 0 => {
                        e.becomes(u, without);
                        e.owes(u, r);
                    }
                    _ => {}
                }
                (live, left, written) = (e.reads, e.leaves, 0);
                continue;
            }
            match e.without {
                // Without reading flags either, it is as if it was not there.
                Some(without) if !live && !left && !e.leaves => e.becomes(u, without),
                // What it keeps must be there when the others are found again.
                Some(without)
                    if !live
                        && !e.leaves
                        && let Some(r) = e.recovery
                        && r.registers & written == 0 =>
                {
                    e.becomes(u, without);
                    e.owes(u, r);
                    (live, left, written) = (true, false, 0);
                }
                // It changes some and keeps others, which must be right for that.
                Some(_) => live = true,
                None => {}
            }
            live |= e.reads;
            left |= e.leaves;
            if left {
                written |= e.writes;
            }
        }
    }
}

impl Cpu {
    /// Sets the flags that an instruction before `u`, or `u` itself if it is `done`, has left
    /// alone because another would overwrite them.
    ///
    /// # Safety
    /// `u` is in a live block.
    pub(crate) unsafe fn recover_flags(&mut self, mut u: *const Uop, done: bool) {
        // SAFETY: the uops of a block's instructions are in a row; the walk ends at the first.
        unsafe {
            let mut look = done;
            loop {
                if look && (*u).n & uop_mark::SETS_FLAGS != 0 {
                    return;
                }
                if look && (*u).n & uop_mark::OWES_FLAGS != 0 {
                    return alu::recover(self, &*u);
                }
                if (*u).at.is_first() {
                    return;
                }
                look = true;
                u = u.sub(1);
            }
        }
    }
}
