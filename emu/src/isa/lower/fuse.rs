//! Neighbouring instructions that one handler executes.

use super::{Builder, Compared, End};
use crate::dispatch::{Handler, Run, Uop};
use crate::isa::decode::Insn;

/// Gives the handler that fuses an instruction with a branch on a condition.
pub(crate) type Fuse = fn(condition: u8) -> Handler;

/// What the last uop offers to the next to be one handler with it.
#[derive(Clone, Copy, Default)]
pub(crate) enum Prior {
    #[default]
    Nothing,
    /// It sets flags for a conditional branch; so does, with the uop before it, `loaded`.
    Compare { fuse: Fuse, loaded: Option<Fuse>, compared: Option<Compared> },
    /// PUSH of a 32-bit register, on a flat stack.
    Push(u8),
    /// POP of a 32-bit register, from a flat stack.
    Pop(u8),
    /// Two of them, which one handler executes.
    Pops(u8, u8),
    /// LEAVE, on a flat stack.
    Leave,
    /// MOV from flat memory without an index to a 32-bit register.
    Load(u8),
}

impl Builder<'_> {
    /// What the last uop offered.
    pub fn prior(&self) -> Prior {
        self.prior
    }

    /// What the last uop offers the next.
    pub fn offer(&mut self, prior: Prior) {
        self.prior = prior;
    }

    /// The last uop can be fused with a conditional branch, if one comes next.
    pub fn fusable(&mut self, fuse: Option<Fuse>) {
        if let Some(fuse) = fuse {
            self.prior = Prior::Compare { fuse, loaded: None, compared: None };
        }
    }

    /// Runs the last uop, and the one about to be emitted, by one handler.
    pub fn pair(&mut self, run: Handler) {
        self.last().run.set(Run::new(run));
        self.effect().uops = 2;
    }

    /// Runs the last two uops, and the one about to be emitted, by one handler.
    pub fn trio(&mut self, run: Handler) {
        let first = self.uops.len() - 2;
        self.uops[first].run.set(Run::new(run));
        self.effects[first].uops = 3;
    }

    /// Emits a conditional branch, fused with the uop before it if that can be.
    pub fn emit_branch(&mut self, i: &Insn, run: Handler) -> &mut Uop {
        let prior = self.prior;
        let at = self.uops.len();
        self.emit(i, run);
        let (condition, far) = (i.condition(), self.is_far(self.next.wrapping_add(i.imm)));
        if !far {
            self.ends(End::Condition(condition));
        }
        if let Prior::Compare { fuse, loaded, compared } = prior {
            self.uops[at - 1].run.set(Run::new(fuse(i.condition())));
            self.effects[at - 1].uops = 2;
            self.effects[at - 1].kind = None;
            self.effects[at - 1].end = compared.map(|compared| End::Branch { compared, condition, far });
            if let Some(loaded) = loaded {
                self.uops[at - 2].run.set(Run::new(loaded(i.condition())));
                self.effects[at - 2].uops = 3;
            }
        }
        self.last()
    }
}
