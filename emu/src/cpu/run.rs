//! The driver: finds blocks, runs them, and delivers exceptions and interrupts between them.

#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::interrupt::TripleFault;
use super::{Cpu, Exit, flags};
use crate::bus::Bus;
use crate::dispatch::{self, Link, Run, Uop, Why, far_link};
use crate::exception::{Exception, Result};
use crate::isa::lower;

/// The vector of the non-maskable interrupt.
const NMI: u8 = 2;

/// Deliveries before the one instruction of a step, at most.
const STEP_BUDGET: i32 = 64;

impl Cpu {
    /// Executes about `budget` instructions (never more than one block beyond), or fewer if
    /// something else ends the run first. Pending interrupts are taken from `bus` as they become
    /// deliverable. The delivery of an exception or interrupt costs as much as an instruction, so that a
    /// guest that does nothing but fault uses its budget up, too.
    pub fn run(&mut self, bus: &mut dyn Bus, budget: u64) -> Exit {
        self.connected(bus, |cpu| cpu.drive(budget.min(i32::MAX as u64 / 2) as i32, false))
    }

    /// Executes exactly one instruction, wherever it is, after delivering what waits to be delivered
    /// before it. A repeated string instruction makes one element at a time, as under EFLAGS.TF. An
    /// instruction that raises an exception ends with EIP at the handler. Breakpoints are ignored.
    ///
    /// Gives [`Exit::Budget`] if that is what happened; [`Exit::Halted`] and [`Exit::Yield`] come instead of
    /// an instruction, the others as from [`Cpu::run`].
    pub fn step(&mut self, bus: &mut dyn Bus) -> Exit {
        self.debugger.forget();
        self.connected(bus, |cpu| cpu.drive(STEP_BUDGET, true))
    }

    /// Drives the processor with a board connected.
    fn connected(
        &mut self,
        bus: &mut dyn Bus,
        drive: impl FnOnce(&mut Self) -> core::result::Result<Exit, TripleFault>,
    ) -> Exit {
        /// Disconnects the board when the run ends, by a panic of the board's, too.
        struct Connected<'a>(&'a mut Cpu);

        impl Drop for Connected<'_> {
            fn drop(&mut self) {
                self.0.bus = None;
            }
        }

        let bus = NonNull::from(bus);
        // SAFETY: only the lifetime changes, and `Connected` drops the pointer before the borrow ends.
        let bus = unsafe { std::mem::transmute::<NonNull<dyn Bus + '_>, NonNull<dyn Bus + 'static>>(bus) };
        self.bus = Some(bus);
        let connected = Connected(self);
        match drive(connected.0) {
            Ok(exit) => exit,
            Err(TripleFault) => Exit::Shutdown,
        }
    }

    /// Runs until something ends the run: one instruction, if `single`.
    fn drive(&mut self, budget: i32, single: bool) -> core::result::Result<Exit, TripleFault> {
        self.budget = budget;
        // The one instruction was executed, or has faulted.
        let mut done = false;
        let mut link: Option<(*mut Link, bool)> = None;
        loop {
            self.attention = false;
            if let Some(e) = self.late_fault.take() {
                self.raise(e)?;
                continue;
            }
            if self.dr6_pending != 0 && !self.hold_traps {
                self.dr[6] |= std::mem::take(&mut self.dr6_pending);
                link = None;
                self.raise_trap(Exception::DEBUG)?;
                continue;
            }
            if let Some(hit) = self.debugger.take_hit() {
                return Ok(Exit::Watchpoint { linear: hit.linear, write: hit.write });
            }
            if done {
                return Ok(Exit::Budget);
            }
            // Looks at the pins, which sets `attention` again if there is work.
            self.with_bus(|_, _| ());
            if self.attention {
                self.attention = false;
                self.drain_code_writes();
                if self.with_bus(|bus, _| bus.yield_requested()) {
                    return Ok(Exit::Yield);
                }
                if !self.shadow && !self.nmi_blocked && self.with_bus(|bus, _| bus.nmi()) {
                    if self.budget <= 0 {
                        return Ok(Exit::Budget);
                    }
                    link = None;
                    self.halted = false;
                    self.nmi_blocked = true;
                    self.with_bus(|bus, _| bus.acknowledge_nmi());
                    self.interrupt(NMI)?;
                    continue;
                }
                if !self.shadow
                    && self.flags.system & flags::IF != 0
                    && self.with_bus(|bus, _| bus.interrupt())
                {
                    if self.budget <= 0 {
                        return Ok(Exit::Budget);
                    }
                    link = None;
                    self.halted = false;
                    let vector = self.with_bus(|bus, _| bus.acknowledge());
                    self.interrupt(vector)?;
                    continue;
                }
                self.attention = false;
            }
            if self.halted {
                return Ok(Exit::Halted);
            }
            if self.budget <= 0 {
                return Ok(Exit::Budget);
            }
            let linear = self.linear_eip();
            let mut passed = false;
            if self.debugger.has_breakpoint(linear) && !single {
                passed = self.debugger.passes(linear);
                if !passed {
                    self.debugger.report(linear);
                    return Ok(Exit::Breakpoint { linear });
                }
            }
            let trap_flag = self.flags.system & flags::TF != 0;
            self.stepping = trap_flag || single;
            let alone = self.shadow || self.stepping || self.watch.code || self.watch.data || passed;
            self.shadow = false;
            let held = std::mem::take(&mut self.hold_traps);
            if self.watch.code && !held && self.code_breakpoint() {
                // A fault, but one that leaves RF to its handler.
                self.raise_trap(Exception::DEBUG)?;
                continue;
            }
            self.flags.system &= !flags::RF;
            let entry = match self.entry(alone) {
                Ok((entry, kept)) => {
                    if let (Some((slot, far)), true) = (link.take(), kept) {
                        // SAFETY: the slot was left through just now, and the cache was not
                        // emptied since (`entry` clears `exit_link` if it had to).
                        unsafe { self.resolve(slot, entry, far) };
                    }
                    entry
                }
                Err(e) => {
                    (link, done) = (None, single);
                    self.raise(e)?;
                    continue;
                }
            };
            let before = self.budget;
            self.stats.exits += 1;
            done = single;
            // What is executed alone must not go on into a block that its target is known to be.
            let held_back = if alone { self.budget } else { 0 };
            self.budget -= held_back;
            // SAFETY: `entry` is the first uop of a live block.
            unsafe { dispatch::run(self, entry) };
            self.budget += held_back;
            self.budget -= std::mem::take(&mut self.rounds).min(self.budget.max(0) as u32) as i32;
            self.stats.instructions += i64::from(before - self.budget) as u64;
            match self.why {
                Why::Fault => {
                    let e = self.fault;
                    self.dr6_pending = 0;
                    self.debugger.take_hit();
                    self.raise(e)?;
                }
                why => {
                    if !alone && matches!(why, Why::Resolve | Why::ResolveFar) {
                        link = Some((self.exit_link, why == Why::ResolveFar));
                    }
                    if self.stepping && trap_flag {
                        self.dr6_pending |= super::debug::DR6_BS;
                    }
                }
            }
        }
    }

    /// # Safety
    /// `slot` is a link slot and `entry` a first uop, both live.
    unsafe fn resolve(&mut self, slot: *mut Link, entry: *const Uop, far: bool) {
        if self.exit_link != slot {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            if far {
                (*slot).dest = entry;
                (*slot).run = Run::new(far_link);
                #[cfg(target_family = "wasm")]
                {
                    (*slot).run = self.hot.numbered((*slot).run);
                }
            } else {
                (*slot).target = entry;
            }
        }
    }

    /// The first uop to run for EIP, and whether its block stays in the cache.
    fn entry(&mut self, alone: bool) -> Result<(*const Uop, bool)> {
        let linear = self.linear_eip();
        if u64::from(self.eip) >= self.code_end() {
            return Err(Exception::GP0);
        }
        // Not where a handler has asked for the block: it has been in the jump cache itself, or its link is to lead to the
        // block that is valid now.
        if !alone && matches!(self.why, Why::Attention | Why::Fault | Why::Budget) {
            // SAFETY: the jump cache holds only first uops of live blocks.
            let found = self.jumps.get(linear, self.mode).filter(|entry| unsafe { self.is_mapped(*entry) });
            if let Some(entry) = found {
                return Ok((entry, true));
            }
        }
        let page = self.fetch_page(linear)?;
        let Ok(page) = page else { return self.decode_alone() };
        if alone {
            return self.decode_alone();
        }
        self.stats.block_lookups += 1;
        let physical = page | (linear & 0xfff);
        if let Some(&block) = self.blocks.find(physical, self.mode) {
            if u64::from(self.eip) + u64::from(block.len) > self.code_end() {
                return self.decode_alone();
            }
            match block.page2 {
                None => {
                    self.jumps.set(linear, self.mode, block.entry);
                    return Ok((block.entry, true));
                }
                // The guard of such a block looks into the TLB, which alignment checks keep empty.
                Some(_) if self.watch.alignment => return self.decode_alone(),
                Some(second) => {
                    let next = (linear & !0xfff).wrapping_add(0x1000);
                    if self.fetch_page(next)? == Ok(second << 12) {
                        // Its guard looks into the TLB, which has no page whose reads are watched.
                        let seen = self.mapped_page(next) == Some(second);
                        return if seen { Ok((block.entry, true)) } else { self.decode_alone() };
                    }
                    self.code_written(physical, 1);
                    self.attention = false;
                }
            }
        }
        self.decode_block(physical)
    }

    fn decode_block(&mut self, physical: u32) -> Result<(*const Uop, bool)> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let built = lower::build(self, &mut scratch, false);
        let result = built.map(|b| {
            if !b.keep {
                return None;
            }
            if self.blocks.is_full(scratch.uops.len() + 1) {
                self.clear_blocks();
            }
            let page = physical >> 12;
            for page in [Some(page), b.page2].into_iter().flatten() {
                if !self.mem.is_code(page) {
                    self.mem.set_code(page, true);
                    self.protect_page(page);
                }
            }
            self.stats.blocks_decoded += 1;
            let host = self.host_page(page);
            let entry = self.blocks.insert(physical, self.mode, b.len, b.page2, host, &scratch.uops, b.links);
            #[cfg(target_family = "wasm")]
            // SAFETY: these are the uops of the block that was made just now.
            unsafe {
                self.hot.number(entry, scratch.uops.len(), b.links);
            }
            Some(entry)
        });
        self.scratch = scratch;
        match result? {
            Some(entry) => {
                self.jumps.set(self.linear_eip(), self.mode, entry);
                Ok((entry, true))
            }
            None => self.decode_alone(),
        }
    }

    /// Decodes one instruction for one execution.
    fn decode_alone(&mut self) -> Result<(*const Uop, bool)> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let built = lower::build(self, &mut scratch, true);
        self.scratch = scratch;
        let built = built?;
        let base = self.scratch.uops.as_mut_ptr();
        // SAFETY: `links` are the link slots among these uops. `scratch` is not touched again before the
        // instruction has run.
        unsafe { crate::blocks::init_links(base, built.links) };
        Ok((base, false))
    }
}
