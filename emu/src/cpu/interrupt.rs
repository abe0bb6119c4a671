//! Delivery of exceptions and interrupts (Intel SDM volume 3, chapter 6).

use super::debug::DR7_GD;
use super::run::TripleFault;
use super::segment::{PRESENT, is_null, system};
use super::stack::Stack;
use super::task::Reason;
use super::{CR0_PE, Cpu, SegName, flags};
use crate::Segment;
use crate::exception::{Exception, Result};

/// What asks for a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// INTR.
    External,
    /// A fault; EIP is that of the instruction.
    Fault,
    /// #DB after an instruction.
    Trap,
    /// INT n, INT3, INTO, which the gate's DPL may forbid.
    Software,
}

impl Source {
    /// The EXT bit of error codes for trouble in delivery.
    fn ext(self) -> u16 {
        u16::from(self != Source::Software)
    }
}

/// How two exceptions combine (SDM volume 3, table 6-5).
fn is_double_fault(first: u8, second: u8) -> bool {
    let contributory = |v| matches!(v, 0 | 10..=13);
    contributory(first) && contributory(second) || first == 14 && (second == 14 || contributory(second))
}

impl Cpu {
    /// Delivers an exception raised by the instruction at EIP.
    pub(super) fn raise(&mut self, e: Exception) -> core::result::Result<(), TripleFault> {
        self.charge();
        self.deliver_nested(e, Source::Fault)
    }

    /// Delivers a trap after an instruction; EIP is that of the next one.
    pub(super) fn raise_trap(&mut self, e: Exception) -> core::result::Result<(), TripleFault> {
        self.charge();
        self.deliver_nested(e, Source::Trap)
    }

    /// Takes what a delivery costs from the budget: without that a guest whose handlers fault, or whose
    /// interrupt never goes away, would keep the processor for ever.
    fn charge(&mut self) {
        self.budget -= 1;
        self.stats.instructions += 1;
    }

    fn deliver_nested(&mut self, first: Exception, source: Source) -> core::result::Result<(), TripleFault> {
        let (mut e, mut source) = (first, source);
        loop {
            let Err(next) = self.deliver(e.vector, e.error, source) else { return Ok(()) };
            if e.vector == Exception::DOUBLE_FAULT.vector {
                tracing::debug!(target: "cpu", ?e, ?next, eip = self.eip, "triple fault");
                return Err(TripleFault);
            }
            e = if is_double_fault(e.vector, next.vector) { Exception::DOUBLE_FAULT } else { next };
            source = Source::Fault;
        }
    }

    /// Delivers an external or a non-maskable interrupt.
    pub(super) fn interrupt(&mut self, vector: u8) -> core::result::Result<(), TripleFault> {
        self.charge();
        match self.deliver(vector, None, Source::External) {
            Ok(()) => Ok(()),
            Err(e) => self.deliver_nested(e, Source::Fault),
        }
    }

    /// INT n and its kin; EIP is that of the next instruction.
    pub(crate) fn software_interrupt(&mut self, vector: u8, source: Source) -> Result<()> {
        self.deliver(vector, None, source)
    }

    fn deliver(&mut self, vector: u8, error: Option<u16>, source: Source) -> Result<()> {
        self.stats.interrupts += 1;
        tracing::trace!(target: "cpu", vector, ?error, ?source, eip = self.eip, cr2 = self.cr2, "interrupt");
        if self.cr0 & CR0_PE == 0 {
            self.deliver_real(vector)?;
        } else {
            self.deliver_protected(vector, error, source)?;
        }
        self.halted = false;
        if vector == Exception::DEBUG.vector && source != Source::Software {
            self.dr[7] &= !DR7_GD;
        }
        Ok(())
    }

    fn deliver_real(&mut self, vector: u8) -> Result<()> {
        let at = u32::from(vector) * 4;
        if at + 3 > self.idtr.limit.into() {
            return Err(Exception::GP0);
        }
        let entry = self.read_system::<u32>(self.idtr.base.wrapping_add(at))?;
        let mut stack = self.stack();
        stack.push(self, self.flags.get() as u16)?;
        stack.push(self, self.selector(SegName::CS))?;
        stack.push(self, self.eip as u16)?;
        self.commit(&stack);
        self.flags.system &= !(flags::IF | flags::TF | flags::AC | flags::RF);
        self.load_real_segment(SegName::CS, (entry >> 16) as u16);
        self.eip = entry & 0xffff;
        Ok(())
    }

    fn deliver_protected(&mut self, vector: u8, error: Option<u16>, source: Source) -> Result<()> {
        let ext = source.ext();
        let number = u16::from(vector) * 8;
        let idt_error = |v| Exception { vector: v, error: Some(number | 2 | ext) };
        if number + 7 > self.idtr.limit {
            return Err(idt_error(13));
        }
        let at = self.idtr.base.wrapping_add(number.into());
        let low = self.read_system::<u32>(at)?;
        let high = self.read_system::<u32>(at.wrapping_add(4))?;
        let gate = super::segment::Descriptor { low, high, at };
        let (wide, clear_if) = match gate.system() {
            Some(system::TASK_GATE) => (true, false),
            Some(system::INTERRUPT_GATE16) => (false, true),
            Some(system::TRAP_GATE16) => (false, false),
            Some(system::INTERRUPT_GATE32) => (true, true),
            Some(system::TRAP_GATE32) => (true, false),
            _ => return Err(idt_error(13)),
        };
        if source == Source::Software && gate.dpl() < self.cpl {
            return Err(idt_error(13));
        }
        if gate.access() & PRESENT == 0 {
            return Err(idt_error(11));
        }
        let mut pushed_flags = self.flags.get();
        // A trap saves RF as it is: set between two elements of a repeated instruction (SDM volume 3,
        // 17.3.1.1), clear after any other.
        if source == Source::Fault {
            pushed_flags |= flags::RF;
        }
        if gate.system() == Some(system::TASK_GATE) {
            return self.interrupt_task(gate.gate_selector(), error, pushed_flags, ext);
        }

        let with_ext = |mut e: Exception| {
            e.error = e.error.map(|c| c | ext);
            e
        };
        let selector = gate.gate_selector();
        if is_null(selector) {
            return Err(with_ext(Exception::GP0));
        }
        let mut code = self.descriptor(selector).map_err(with_ext)?;
        if !code.is_code() || code.dpl() > self.cpl {
            return Err(with_ext(Exception::protection(selector)));
        }
        if !code.present() {
            return Err(with_ext(Exception::not_present(selector)));
        }
        let offset = gate.gate_offset(wide);
        let from_vm86 = self.vm86();
        let inner = code.dpl() < self.cpl && !code.is_conforming_code();
        if from_vm86 && (!inner || code.dpl() != 0) {
            return Err(with_ext(Exception::protection(selector)));
        }
        let new_cpl = if inner { code.dpl() } else { self.cpl };

        let (old_ss, old_esp) = (self.selector(SegName::SS), self.regs.r32(super::regs::gpr::ESP));
        let mut new_ss: Option<Segment> = None;
        let mut stack = if inner {
            let (ss, esp) = self.inner_stack(new_cpl, ext)?;
            new_ss = Some(ss);
            Stack::new(ss, esp, new_cpl, with_ext(Exception::stack(ss.selector)))
        } else {
            let mut stack = self.stack();
            stack.error = with_ext(Exception::SS0);
            stack
        };
        if inner {
            if from_vm86 {
                for name in [SegName::GS, SegName::FS, SegName::DS, SegName::ES] {
                    stack.push_sized(self, self.selector(name).into(), wide)?;
                }
            }
            stack.push_sized(self, old_ss.into(), wide)?;
            stack.push_sized(self, old_esp, wide)?;
        }
        stack.push_sized(self, pushed_flags, wide)?;
        stack.push_sized(self, self.selector(SegName::CS).into(), wide)?;
        stack.push_sized(self, self.eip, wide)?;
        if let Some(error) = error {
            stack.push_sized(self, error.into(), wide)?;
        }
        if u64::from(offset) > code.limit().into() {
            return Err(with_ext(Exception::GP0));
        }
        self.mark_accessed(&mut code)?;

        self.flags.system &= !(flags::TF | flags::NT | flags::RF | flags::VM);
        if clear_if {
            self.flags.system &= !flags::IF;
        }
        self.set_cpl(new_cpl);
        if from_vm86 {
            for name in [SegName::GS, SegName::FS, SegName::DS, SegName::ES] {
                self.set_segment(name, super::segment::null_segment(0));
            }
        }
        if let Some(ss) = new_ss {
            self.set_segment(SegName::SS, ss);
        }
        self.set_segment(SegName::CS, code.segment((selector & !3) | u16::from(new_cpl)));
        self.commit(&stack);
        self.eip = offset;
        Ok(())
    }

    /// Stack segment and pointer for an inner level, from the task state segment.
    pub(crate) fn inner_stack(&mut self, cpl: u8, ext: u16) -> Result<(Segment, u32)> {
        let wide = self.tr.access & 8 != 0;
        let offset = if wide { u32::from(cpl) * 8 + 4 } else { u32::from(cpl) * 4 + 2 };
        let bytes = if wide { 6 } else { 4 };
        let error = |s: u16| {
            let mut e = Exception::invalid_tss(s);
            e.error = e.error.map(|c| c | ext);
            e
        };
        if offset + bytes - 1 > self.tr.limit {
            return Err(error(self.tr.selector));
        }
        let at = self.tr.base.wrapping_add(offset);
        let (esp, ss) = if wide {
            (self.read_system::<u32>(at)?, self.read_system::<u16>(at.wrapping_add(4))?)
        } else {
            (self.read_system::<u16>(at)?.into(), self.read_system::<u16>(at.wrapping_add(2))?)
        };
        let segment = self.stack_segment(ss, cpl, Exception::invalid_tss).map_err(|mut e| {
            e.error = e.error.map(|c| if e.vector == 14 { c } else { c | ext });
            e
        })?;
        Ok((segment, esp))
    }

    fn interrupt_task(
        &mut self,
        selector: u16,
        error: Option<u16>,
        pushed_flags: u32,
        ext: u16,
    ) -> Result<()> {
        let tss = self.task_descriptor(selector, false).map_err(|mut e| {
            e.error = e.error.map(|c| c | ext);
            e
        })?;
        let wide = tss.access() & 8 != 0;
        self.switch_task(tss, selector, Reason::Nested, self.eip, pushed_flags)?;
        if let (Some(error), None) = (error, self.late_fault) {
            let mut stack = self.stack();
            match stack.push_sized(self, error.into(), wide) {
                Ok(()) => self.commit(&stack),
                Err(e) => self.late_fault = Some(e),
            }
        }
        Ok(())
    }
}
