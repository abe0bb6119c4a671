//! Far transfers of control (Intel SDM volume 3, 5.8; volume 2 for JMP, CALL, RET, IRET,
//! SYSENTER, SYSEXIT).
//!
//! All take and set `Cpu::eip` as the architectural EIP; on an exception nothing has changed.

use super::regs::gpr;
use super::segment::{Descriptor, PRESENT, SegName, is_null, null_segment, system};
use super::stack::Stack;
use super::task::Reason;
use super::{CR0_PE, Cpu, flags};
use crate::Segment;
use crate::exception::{Exception, Result};

/// How RETF and IRET differ.
struct Returned {
    wide: bool,
    /// Bytes of parameters that RETF releases, on both stacks.
    release: u32,
    /// The flags that IRET has taken from the stack.
    flags: Option<u32>,
}

impl Cpu {
    /// A target must lie inside the code segment.
    fn check_target(offset: u32, code: &Descriptor) -> Result<()> {
        if offset > code.limit() { Err(Exception::GP0) } else { Ok(()) }
    }

    /// JMP ptr16:16/32. `next` is the EIP after the instruction.
    pub(crate) fn far_jump(&mut self, selector: u16, offset: u32, next: u32) -> Result<()> {
        if self.real_segments() {
            return self.real_far_jump(selector, offset);
        }
        let mut d = self.code_or_gate(selector)?;
        let Some(kind) = d.system() else {
            self.check_direct(&d, selector)?;
            Self::check_target(offset, &d)?;
            self.mark_accessed(&mut d)?;
            self.load_code(&d, selector, self.cpl, offset);
            return Ok(());
        };
        self.check_gate(&d, selector)?;
        match kind {
            system::TSS16 | system::TSS32 => self.jump_to_task(selector, Reason::Jump, next),
            system::TASK_GATE => self.jump_to_task(d.gate_selector(), Reason::Jump, next),
            system::CALL_GATE16 | system::CALL_GATE32 => {
                let target = d.gate_selector();
                let mut code = self.gate_code(target)?;
                let privilege =
                    if code.is_conforming_code() { code.dpl() <= self.cpl } else { code.dpl() == self.cpl };
                if !privilege {
                    return Err(Exception::protection(target));
                }
                if !code.present() {
                    return Err(Exception::not_present(target));
                }
                let offset = d.gate_offset(kind == system::CALL_GATE32);
                Self::check_target(offset, &code)?;
                self.mark_accessed(&mut code)?;
                self.load_code(&code, target, self.cpl, offset);
                Ok(())
            }
            _ => Err(Exception::protection(selector)),
        }
    }

    /// CALL ptr16:16/32 at the given operand size.
    pub(crate) fn far_call(&mut self, selector: u16, offset: u32, next: u32, wide: bool) -> Result<()> {
        if self.real_segments() {
            if offset > self.segment(SegName::CS).limit {
                return Err(Exception::GP0);
            }
            let mut stack = self.stack();
            stack.push_sized(self, self.selector(SegName::CS).into(), wide)?;
            stack.push_sized(self, next, wide)?;
            self.real_far_jump(selector, offset)?;
            self.commit(&stack);
            return Ok(());
        }
        let mut d = self.code_or_gate(selector)?;
        let Some(kind) = d.system() else {
            self.check_direct(&d, selector)?;
            let mut stack = self.stack();
            stack.push_sized(self, self.selector(SegName::CS).into(), wide)?;
            stack.push_sized(self, next, wide)?;
            Self::check_target(offset, &d)?;
            self.mark_accessed(&mut d)?;
            self.load_code(&d, selector, self.cpl, offset);
            self.commit(&stack);
            return Ok(());
        };
        self.check_gate(&d, selector)?;
        match kind {
            system::TSS16 | system::TSS32 => self.jump_to_task(selector, Reason::Nested, next),
            system::TASK_GATE => self.jump_to_task(d.gate_selector(), Reason::Nested, next),
            system::CALL_GATE16 | system::CALL_GATE32 => {
                self.call_gate(&d, kind == system::CALL_GATE32, next)
            }
            _ => Err(Exception::protection(selector)),
        }
    }

    fn call_gate(&mut self, gate: &Descriptor, wide: bool, next: u32) -> Result<()> {
        let target = gate.gate_selector();
        let mut code = self.gate_code(target)?;
        if code.dpl() > self.cpl {
            return Err(Exception::protection(target));
        }
        if !code.present() {
            return Err(Exception::not_present(target));
        }
        let offset = gate.gate_offset(wide);
        if code.is_conforming_code() || code.dpl() == self.cpl {
            let mut stack = self.stack();
            stack.push_sized(self, self.selector(SegName::CS).into(), wide)?;
            stack.push_sized(self, next, wide)?;
            Self::check_target(offset, &code)?;
            self.mark_accessed(&mut code)?;
            self.load_code(&code, target, self.cpl, offset);
            self.commit(&stack);
            return Ok(());
        }
        let cpl = code.dpl();
        let (ss, esp) = self.inner_stack(cpl, 0)?;
        let parameters = gate.high & 0x1f;
        let bytes = if wide { 4 } else { 2 };
        let old = self.stack();
        let (old_ss, old_esp) = (self.selector(SegName::SS), self.regs.r32(gpr::ESP));
        let mut stack = Stack::new(ss, esp, cpl, Exception::stack(ss.selector));
        stack.push_sized(self, old_ss.into(), wide)?;
        stack.push_sized(self, old_esp, wide)?;
        for i in (0..parameters).rev() {
            let mut from = old;
            from.skip(i * bytes);
            let v = from.pop_sized(self, wide)?;
            stack.push_sized(self, v, wide)?;
        }
        stack.push_sized(self, self.selector(SegName::CS).into(), wide)?;
        stack.push_sized(self, next, wide)?;
        Self::check_target(offset, &code)?;
        self.mark_accessed(&mut code)?;
        self.set_segment(SegName::SS, ss);
        self.load_code(&code, target, cpl, offset);
        self.commit(&stack);
        Ok(())
    }

    /// RETF, releasing `release` bytes of parameters.
    pub(crate) fn far_return(&mut self, wide: bool, release: u32) -> Result<()> {
        let mut stack = self.stack();
        // Of two values that cannot be read the selector faults first.
        let mut above = stack;
        above.skip(if wide { 4 } else { 2 });
        let selector = above.pop_low(self, if wide { 4 } else { 2 })?;
        let offset = stack.pop_sized(self, wide)?;
        stack = above;
        if self.real_segments() {
            stack.skip(release);
            self.real_far_jump(selector, offset)?;
            self.commit(&stack);
            return Ok(());
        }
        stack.skip(release);
        self.return_far(stack, selector, offset, Returned { wide, release, flags: None })
    }

    /// The end of RETF and IRET in protected mode: to the same privilege level or an outer one, whose stack
    /// pointer is at the top of `stack`.
    fn return_far(&mut self, stack: Stack, selector: u16, offset: u32, how: Returned) -> Result<()> {
        let rpl = (selector & 3) as u8;
        let mut code = self.return_code(selector)?;
        let outer = if rpl == self.cpl { None } else { Some(self.outer_stack(stack, how.wide)?) };
        let ss = match outer {
            Some((_, ss)) => Some(self.stack_segment(ss, rpl, Exception::protection)?),
            None => None,
        };
        Self::check_target(offset, &code)?;
        self.mark_accessed(&mut code)?;
        if let Some(flags) = how.flags {
            self.set_returned_flags(flags, how.wide);
        }
        self.load_code(&code, selector, rpl, offset);
        let (Some((esp, _)), Some(ss)) = (outer, ss) else {
            self.commit(&stack);
            return Ok(());
        };
        self.set_segment(SegName::SS, ss);
        self.set_cpl(rpl);
        let mut stack = self.stack();
        stack.sp = esp;
        stack.skip(how.release);
        self.commit(&stack);
        self.drop_inner_segments();
        Ok(())
    }

    /// The outer stack's ESP and SS, which a return reads once the code selector is found good (SDM volume 2, RET).
    fn outer_stack(&mut self, mut stack: Stack, wide: bool) -> Result<(u32, u16)> {
        let mut above = stack;
        above.skip(if wide { 4 } else { 2 });
        let selector = above.pop_sized(self, wide)? as u16;
        Ok((stack.pop_sized(self, wide)?, selector))
    }

    /// IRET.
    pub(crate) fn interrupt_return(&mut self, wide: bool, next: u32) -> Result<()> {
        self.nmi_blocked = false;
        if self.cr0 & CR0_PE == 0 || self.vm86() {
            return self.real_interrupt_return(wide);
        }
        if self.flags.system & flags::NT != 0 {
            let selector = self.read_system::<u16>(self.tr.base)?;
            let tss = self.task_descriptor(selector, true)?;
            return self.switch_task(tss, selector, Reason::Return, next, self.flags.get());
        }
        let mut stack = self.stack();
        let size = if wide { 4 } else { 2 };
        let (mut second, mut third) = (stack, stack);
        second.skip(size);
        third.skip(2 * size);
        // Of three values that cannot be read the last faults first.
        let new_flags = third.pop_sized(self, wide)?;
        let selector = second.pop_sized(self, wide)? as u16;
        let offset = stack.pop_sized(self, wide)?;
        stack = third;
        if wide && new_flags & flags::VM != 0 && self.cpl == 0 {
            return self.return_to_vm86(stack, offset, selector, new_flags);
        }
        self.return_far(stack, selector, offset, Returned { wide, release: 0, flags: Some(new_flags) })
    }

    fn real_interrupt_return(&mut self, wide: bool) -> Result<()> {
        if self.vm86() && self.flags.iopl() < 3 {
            return Err(Exception::GP0);
        }
        let mut stack = self.stack();
        let offset = stack.pop_sized(self, wide)?;
        let selector = stack.pop_sized(self, wide)? as u16;
        let new_flags = stack.pop_sized(self, wide)?;
        if offset > self.segment(SegName::CS).limit {
            return Err(Exception::GP0);
        }
        self.set_returned_flags(new_flags, wide);
        self.load_real_segment(SegName::CS, selector);
        self.eip = offset;
        self.commit(&stack);
        Ok(())
    }

    fn return_to_vm86(&mut self, mut stack: Stack, offset: u32, cs: u16, new_flags: u32) -> Result<()> {
        let esp = stack.pop::<u32>(self)?;
        let mut selectors = [0; 5];
        for s in &mut selectors {
            *s = stack.pop::<u32>(self)? as u16;
        }
        if offset > 0xffff {
            return Err(Exception::GP0);
        }
        self.flags.set(new_flags);
        self.set_cpl(3);
        let order = [SegName::SS, SegName::ES, SegName::DS, SegName::FS, SegName::GS];
        for (name, selector) in order.into_iter().zip(selectors) {
            self.load_real_segment(name, selector);
        }
        self.load_real_segment(SegName::CS, cs);
        self.refresh_segments();
        self.regs.set_r32(gpr::ESP, esp);
        self.eip = offset;
        Ok(())
    }

    /// The flags that IRET may change at this privilege.
    fn set_returned_flags(&mut self, v: u32, wide: bool) {
        let mut mask = flags::ARITH | flags::TF | flags::DF | flags::NT;
        if wide {
            mask |= flags::RF | flags::AC | flags::ID;
        }
        if self.cr0 & CR0_PE == 0 {
            mask |= flags::IF | flags::IOPL;
        } else {
            if self.cpl == 0 {
                mask |= flags::IOPL;
                if wide {
                    mask |= flags::VIF | flags::VIP;
                }
            }
            if self.cpl <= self.flags.iopl() {
                mask |= flags::IF;
            }
            if self.vm86() {
                mask &= !flags::IOPL;
            }
        }
        self.merge_flags(v, mask);
    }

    /// Replaces the arithmetic flags and those in `mask`.
    pub(crate) fn merge_flags(&mut self, v: u32, mask: u32) {
        let old = self.flags.system;
        self.flags.set((old & !mask) | (v & (mask | flags::ARITH)));
        if (old ^ v) & mask & flags::AC != 0 {
            self.refresh_watch();
        }
    }

    /// SYSENTER.
    pub(crate) fn sysenter(&mut self) -> Result<()> {
        if self.cr0 & CR0_PE == 0 || is_null(self.sysenter_cs as u16) {
            return Err(Exception::GP0);
        }
        let selector = self.sysenter_cs as u16 & !3;
        self.flags.system &= !(flags::VM | flags::IF | flags::RF);
        self.set_cpl(0);
        self.set_segment(SegName::CS, Segment::flat(selector, 0x9b));
        self.set_segment(SegName::SS, Segment::flat(selector.wrapping_add(8), 0x93));
        self.regs.set_r32(gpr::ESP, self.sysenter_esp);
        self.eip = self.sysenter_eip;
        Ok(())
    }

    /// SYSEXIT.
    pub(crate) fn sysexit(&mut self) -> Result<()> {
        if self.cr0 & CR0_PE == 0 || self.cpl != 0 || is_null(self.sysenter_cs as u16) {
            return Err(Exception::GP0);
        }
        let selector = (self.sysenter_cs as u16 & !3).wrapping_add(16) | 3;
        self.set_cpl(3);
        self.set_segment(SegName::CS, Segment::flat(selector, 0xfb));
        self.set_segment(SegName::SS, Segment::flat(selector.wrapping_add(8), 0xf3));
        self.regs.set_r32(gpr::ESP, self.regs.r32(gpr::ECX));
        self.eip = self.regs.r32(gpr::EDX);
        Ok(())
    }

    fn real_far_jump(&mut self, selector: u16, offset: u32) -> Result<()> {
        if offset > self.segment(SegName::CS).limit {
            return Err(Exception::GP0);
        }
        self.load_real_segment(SegName::CS, selector);
        self.eip = offset;
        Ok(())
    }

    fn code_or_gate(&mut self, selector: u16) -> Result<Descriptor> {
        if is_null(selector) {
            return Err(Exception::GP0);
        }
        self.descriptor(selector)
    }

    /// A far jump or call straight to code.
    fn check_direct(&self, d: &Descriptor, selector: u16) -> Result<()> {
        let rpl = (selector & 3) as u8;
        let privilege =
            if d.is_conforming_code() { d.dpl() <= self.cpl } else { rpl <= self.cpl && d.dpl() == self.cpl };
        if !d.is_code() || !privilege {
            return Err(Exception::protection(selector));
        }
        if !d.present() {
            return Err(Exception::not_present(selector));
        }
        Ok(())
    }

    /// A gate or TSS as the target of a far jump or call.
    fn check_gate(&self, d: &Descriptor, selector: u16) -> Result<()> {
        let known = matches!(
            d.system(),
            Some(
                system::TSS16 | system::TSS32 | system::TASK_GATE | system::CALL_GATE16 | system::CALL_GATE32
            )
        );
        let rpl = (selector & 3) as u8;
        if !known || d.dpl() < self.cpl || d.dpl() < rpl {
            return Err(Exception::protection(selector));
        }
        if d.access() & PRESENT == 0 {
            return Err(Exception::not_present(selector));
        }
        Ok(())
    }

    /// The code segment that a call gate names.
    fn gate_code(&mut self, selector: u16) -> Result<Descriptor> {
        if is_null(selector) {
            return Err(Exception::GP0);
        }
        let d = self.descriptor(selector)?;
        if d.is_code() { Ok(d) } else { Err(Exception::protection(selector)) }
    }

    /// The code segment that a far return or IRET goes back to.
    fn return_code(&mut self, selector: u16) -> Result<Descriptor> {
        if is_null(selector) {
            return Err(Exception::GP0);
        }
        let d = self.descriptor(selector)?;
        let rpl = (selector & 3) as u8;
        let privilege = if d.is_conforming_code() { d.dpl() <= rpl } else { d.dpl() == rpl };
        if rpl < self.cpl || !d.is_code() || !privilege {
            return Err(Exception::protection(selector));
        }
        if !d.present() {
            return Err(Exception::not_present(selector));
        }
        Ok(d)
    }

    fn jump_to_task(&mut self, selector: u16, reason: Reason, next: u32) -> Result<()> {
        let tss = self.task_descriptor(selector, false)?;
        self.switch_task(tss, selector, reason, next, self.flags.get())
    }

    fn load_code(&mut self, d: &Descriptor, selector: u16, cpl: u8, offset: u32) {
        self.set_segment(SegName::CS, d.segment((selector & !3) | u16::from(cpl)));
        self.set_cpl(cpl);
        self.eip = offset;
    }

    /// LLDT.
    pub(crate) fn load_ldt(&mut self, selector: u16) -> Result<()> {
        if is_null(selector) {
            self.ldtr = null_segment(selector);
            return Ok(());
        }
        if selector & 4 != 0 {
            return Err(Exception::protection(selector));
        }
        let d = self.descriptor(selector)?;
        if d.system() != Some(system::LDT) {
            return Err(Exception::protection(selector));
        }
        if !d.present() {
            return Err(Exception::not_present(selector));
        }
        self.ldtr = d.segment(selector);
        Ok(())
    }

    /// LTR.
    pub(crate) fn load_task_register(&mut self, selector: u16) -> Result<()> {
        if is_null(selector) {
            return Err(Exception::GP0);
        }
        if selector & 4 != 0 {
            return Err(Exception::protection(selector));
        }
        let d = self.descriptor(selector)?;
        if !matches!(d.system(), Some(system::TSS16 | system::TSS32)) {
            return Err(Exception::protection(selector));
        }
        if !d.present() {
            return Err(Exception::not_present(selector));
        }
        let mut tr = d.segment(selector);
        tr.access |= system::BUSY;
        self.write_system(d.at.wrapping_add(5), tr.access)?;
        self.tr = tr;
        Ok(())
    }
}
