//! What a debugger on the host does with a processor: single steps, memory as the guest sees it,
//! breakpoints and watchpoints. The guest notices nothing: its own debug registers, accessed bits and CR2
//! stay as they are, and no device is asked.
//!
//! What is not set costs nothing. A breakpoint ends the blocks of code that would run over it, and a
//! block that begins at one starts with a check. A watchpoint keeps its page out of the TLB, so that
//! accesses to that page alone are slow.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use super::Cpu;
use crate::memory::PAGE_SIZE;
use crate::mmu::walk::Paging;

/// An address where the guest has no memory: its page is not mapped, or is a device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory {
    /// The linear address.
    pub linear: u32,
}

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "There is no memory at linear address {:08x}h", self.linear)
    }
}

impl Error for NoMemory {}

/// Which accesses a [`Watchpoint`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// Writes.
    Write,
    /// Reads.
    Read,
    /// Both.
    Access,
}

/// Bytes of linear memory whose accesses end a run, by instructions or by the processor itself (as when it
/// reads a descriptor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// Linear address of the first byte.
    pub linear: u32,
    /// Bytes, at least one; they must not go over the end of linear memory.
    pub len: u32,
    /// Which accesses.
    pub kind: WatchKind,
}

impl Watchpoint {
    fn last(&self) -> u32 {
        self.linear.saturating_add(self.len.max(1) - 1)
    }

    fn sees(&self, write: bool) -> bool {
        match self.kind {
            WatchKind::Write => write,
            WatchKind::Read => !write,
            WatchKind::Access => true,
        }
    }
}

/// An access that a watchpoint has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub linear: u32,
    pub write: bool,
}

/// What a debugger has asked for.
#[derive(Default)]
pub(crate) struct Debugger {
    breakpoints: BTreeSet<u32>,
    watchpoints: Vec<Watchpoint>,
    /// The breakpoint that ended the last run: the next one begins with the instruction there.
    passing: Option<u32>,
    /// What the current instruction has hit first.
    hit: Option<Hit>,
}

impl Debugger {
    /// Whether a block must not run over an instruction at this address. The same code may be mapped
    /// elsewhere, too, so what counts is the place in the page.
    pub fn ends_block(&self, linear: u32) -> bool {
        self.breakpoints.iter().any(|at| (at ^ linear).is_multiple_of(PAGE_SIZE))
    }

    pub fn has_breakpoint(&self, linear: u32) -> bool {
        self.breakpoints.contains(&linear)
    }

    /// Whether the instruction at this address is to be executed although there is a breakpoint, which has
    /// been reported.
    pub fn passes(&mut self, linear: u32) -> bool {
        self.passing.take() == Some(linear)
    }

    /// Notes which breakpoint ends the run.
    pub fn report(&mut self, linear: u32) {
        self.passing = Some(linear);
    }

    /// Forgets what belongs to the run before.
    pub fn forget(&mut self) {
        (self.passing, self.hit) = (None, None);
    }

    pub fn is_watching(&self) -> bool {
        !self.watchpoints.is_empty()
    }

    /// Whether reads and writes of this page are watched.
    pub fn watches_page(&self, linear: u32) -> (bool, bool) {
        let page = linear / PAGE_SIZE;
        let here = |w: &&Watchpoint| (w.linear / PAGE_SIZE..=w.last() / PAGE_SIZE).contains(&page);
        let on_page = || self.watchpoints.iter().filter(here);
        (on_page().any(|w| w.sees(false)), on_page().any(|w| w.sees(true)))
    }

    /// Takes what the last instruction has hit.
    pub fn take_hit(&mut self) -> Option<Hit> {
        self.hit.take()
    }

    pub fn has_hit(&self) -> bool {
        self.hit.is_some()
    }

    /// Notes the first watched byte of an access.
    pub fn note(&mut self, linear: u32, bytes: u32, write: bool) {
        let last = linear.saturating_add(bytes - 1);
        let met = |w: &&Watchpoint| w.sees(write) && w.linear <= last && linear <= w.last();
        if self.hit.is_none()
            && let Some(first) = self.watchpoints.iter().filter(met).map(|w| w.linear.max(linear)).min()
        {
            self.hit = Some(Hit { linear: first, write });
        }
    }
}

impl Cpu {
    /// Reads linear memory as it is mapped now, whatever the rights of its pages, without any effect
    /// that the guest could see.
    ///
    /// # Errors
    /// With the first address that is not memory.
    pub fn peek(&self, linear: u32, bytes: &mut [u8]) -> Result<(), NoMemory> {
        let mut done = 0;
        for (physical, len) in self.pieces(linear, bytes.len())? {
            self.mem.read(physical, &mut bytes[done..done + len]);
            done += len;
        }
        Ok(())
    }

    /// Writes linear memory as it is mapped now, whatever the rights of its pages. Code that was decoded from
    /// there is decoded again. No accessed or dirty bit is set.
    ///
    /// # Errors
    /// With the first address that is not memory; then nothing is written.
    pub fn poke(&mut self, linear: u32, bytes: &[u8]) -> Result<(), NoMemory> {
        let pieces = self.pieces(linear, bytes.len())?;
        // What is read-only to the guest is not so to who looks at it.
        let read_only = self.mem.set_read_only(0);
        let mut done = 0;
        for (physical, len) in pieces {
            self.mem.write(physical, &bytes[done..done + len]);
            done += len;
        }
        self.mem.set_read_only(read_only);
        Ok(())
    }

    /// The physical addresses of some linear memory and how many bytes follow each, page by page.
    fn pieces(&self, linear: u32, len: usize) -> Result<Vec<(u32, usize)>, NoMemory> {
        let paging = Paging { cr0: self.cr0, cr3: self.cr3, cr4: self.cr4, pdpte: self.pdpte };
        let mut pieces = Vec::new();
        let (mut at, mut left) = (linear, len);
        while left > 0 {
            let here = left.min((PAGE_SIZE - at % PAGE_SIZE) as usize);
            let page = paging.look(&self.mem, at).filter(|page| self.mem.offset(*page).is_some());
            let page = page.ok_or(NoMemory { linear: at })?;
            pieces.push((page + at % PAGE_SIZE, here));
            at = at.wrapping_add(here as u32);
            left -= here;
        }
        Ok(pieces)
    }

    /// Sets a breakpoint at a linear address: a run ends with [`Exit::Breakpoint`] before an instruction
    /// that begins there. The next run begins with that instruction.
    ///
    /// [`Exit::Breakpoint`]: crate::Exit::Breakpoint
    pub fn set_breakpoint(&mut self, linear: u32) {
        if self.debugger.breakpoints.insert(linear) {
            self.clear_blocks();
        }
    }

    /// Removes a breakpoint; says whether it was set.
    pub fn clear_breakpoint(&mut self, linear: u32) -> bool {
        let was_set = self.debugger.breakpoints.remove(&linear);
        if was_set {
            self.clear_blocks();
        }
        was_set
    }

    /// Sets a watchpoint: a run ends with [`Exit::Watchpoint`] after an instruction that makes such an
    /// access.
    ///
    /// [`Exit::Watchpoint`]: crate::Exit::Watchpoint
    pub fn set_watchpoint(&mut self, watchpoint: Watchpoint) {
        if !self.debugger.watchpoints.contains(&watchpoint) {
            self.debugger.watchpoints.push(watchpoint);
            self.watchpoints_changed();
        }
    }

    /// Removes a watchpoint; says whether it was set.
    pub fn clear_watchpoint(&mut self, watchpoint: Watchpoint) -> bool {
        let before = self.debugger.watchpoints.len();
        self.debugger.watchpoints.retain(|w| *w != watchpoint);
        let was_set = self.debugger.watchpoints.len() != before;
        if was_set {
            self.watchpoints_changed();
        }
        was_set
    }

    fn watchpoints_changed(&mut self) {
        self.refresh_watch();
        self.flush_tlb(true);
    }
}

#[cfg(test)]
mod tests;
