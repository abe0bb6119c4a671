//! Hardware task switches (Intel SDM volume 3, chapter 7).

use super::debug::DR6_BT;
use super::segment::{Descriptor, PRESENT, is_null, null_segment, system};
use super::{CR0_TS, Cpu, SegName, flags};
use crate::exception::{Exception, Result};
use crate::mmu::walk::{Access, CR0_PG, CR4_PAE, Paging};

/// What a task switch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// JMP: the old task is left for good.
    Jump,
    /// CALL, an interrupt or an exception: the new task gets a back link and NT.
    Nested,
    /// IRET with NT set.
    Return,
}

/// Offsets in a 32-bit TSS.
mod tss32 {
    pub const CR3: u32 = 28;
    pub const EIP: u32 = 32;
    pub const EFLAGS: u32 = 36;
    pub const GPR: u32 = 40;
    pub const SEG: u32 = 72;
    pub const LDT: u32 = 96;
    pub const TRAP: u32 = 100;
    pub const MIN_LIMIT: u32 = 103;
}

/// Offsets in a 16-bit TSS.
mod tss16 {
    pub const IP: u32 = 14;
    pub const FLAGS: u32 = 16;
    pub const GPR: u32 = 18;
    pub const SEG: u32 = 34;
    pub const LDT: u32 = 42;
    pub const MIN_LIMIT: u32 = 43;
}

/// What a task state segment holds.
struct TaskState {
    cr3: Option<u32>,
    eip: u32,
    eflags: u32,
    gpr: [u32; 8],
    /// ES CS SS DS FS GS.
    seg: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl Cpu {
    /// The descriptor of a task state segment to switch to; a busy one only for a return.
    pub(crate) fn task_descriptor(&mut self, selector: u16, returning: bool) -> Result<Descriptor> {
        let error = if returning { Exception::invalid_tss } else { Exception::protection };
        if selector & 4 != 0 || is_null(selector) {
            return Err(error(selector));
        }
        let d = self.descriptor(selector).map_err(|e| if e.vector == 13 { error(selector) } else { e })?;
        let fits = match d.system() {
            Some(system::TSS16 | system::TSS32) => !returning,
            Some(system::TSS16_BUSY | system::TSS32_BUSY) => returning,
            _ => false,
        };
        if !fits {
            return Err(error(selector));
        }
        if d.access() & PRESENT == 0 {
            return Err(Exception::not_present(selector));
        }
        Ok(d)
    }

    /// Switches to another task. `eip` and `eflags` are what the old task's TSS is to hold.
    pub(crate) fn switch_task(
        &mut self,
        new: Descriptor,
        selector: u16,
        reason: Reason,
        eip: u32,
        eflags: u32,
    ) -> Result<()> {
        let wide = new.access() & 8 != 0;
        let min = if wide { tss32::MIN_LIMIT } else { tss16::MIN_LIMIT };
        if new.limit() < min {
            return Err(Exception::invalid_tss(selector));
        }
        let old_wide = self.tr.access & 8 != 0;
        let old_size = if old_wide { tss32::MIN_LIMIT } else { tss16::MIN_LIMIT } + 1;
        // All of both segments is known to be accessible before anything changes.
        self.probe(self.tr.base, old_size, Access { write: true, user: false })?;
        self.probe(new.base(), min + 1, Access { write: false, user: false })?;
        if reason == Reason::Nested {
            self.probe(new.base(), 2, Access { write: true, user: false })?;
        }
        let state = self.read_task(new.base(), wide)?;

        let mut old_flags = eflags;
        if reason == Reason::Return {
            old_flags &= !flags::NT;
        }
        self.save_task(old_wide, eip, old_flags)?;
        if reason != Reason::Nested {
            let busy_at = self.gdtr.base.wrapping_add(u32::from(self.tr.selector & !7) + 5);
            let access = self.read_system::<u8>(busy_at)?;
            self.write_system(busy_at, access & !system::BUSY)?;
        }
        if reason == Reason::Nested {
            self.write_system(new.base(), self.tr.selector)?;
        }
        let mut tr = new.segment(selector);
        tr.access |= system::BUSY;
        if reason != Reason::Return {
            self.write_system(new.at.wrapping_add(5), tr.access)?;
        }
        self.tr = tr;
        self.cr0 |= CR0_TS;
        // The old task is left: what goes wrong from here on happens in the new one, before its
        // first instruction.
        self.late_fault = self.load_task(&state, wide, reason).err();
        Ok(())
    }

    fn read_task(&mut self, base: u32, wide: bool) -> Result<TaskState> {
        let mut gpr = [0; 8];
        let mut seg = [0; 6];
        if wide {
            for (i, r) in gpr.iter_mut().enumerate() {
                *r = self.read_system::<u32>(base.wrapping_add(tss32::GPR + 4 * i as u32))?;
            }
            for (i, s) in seg.iter_mut().enumerate() {
                *s = self.read_system::<u16>(base.wrapping_add(tss32::SEG + 4 * i as u32))?;
            }
            Ok(TaskState {
                cr3: Some(self.read_system(base.wrapping_add(tss32::CR3))?),
                eip: self.read_system(base.wrapping_add(tss32::EIP))?,
                eflags: self.read_system(base.wrapping_add(tss32::EFLAGS))?,
                gpr,
                seg,
                ldt: self.read_system(base.wrapping_add(tss32::LDT))?,
                trap: self.read_system::<u16>(base.wrapping_add(tss32::TRAP))? & 1 != 0,
            })
        } else {
            for (i, r) in gpr.iter_mut().enumerate() {
                let v = self.read_system::<u16>(base.wrapping_add(tss16::GPR + 2 * i as u32))?;
                *r = 0xffff_0000 | u32::from(v);
            }
            for (i, s) in seg.iter_mut().take(4).enumerate() {
                *s = self.read_system::<u16>(base.wrapping_add(tss16::SEG + 2 * i as u32))?;
            }
            Ok(TaskState {
                cr3: None,
                eip: self.read_system::<u16>(base.wrapping_add(tss16::IP))?.into(),
                eflags: self.read_system::<u16>(base.wrapping_add(tss16::FLAGS))?.into(),
                gpr,
                seg,
                ldt: self.read_system(base.wrapping_add(tss16::LDT))?,
                trap: false,
            })
        }
    }

    fn save_task(&mut self, wide: bool, eip: u32, eflags: u32) -> Result<()> {
        let base = self.tr.base;
        let gpr = self.regs.all();
        let seg = self.seg.map(|s| s.arch.selector);
        if wide {
            self.write_system(base.wrapping_add(tss32::EIP), eip)?;
            self.write_system(base.wrapping_add(tss32::EFLAGS), eflags)?;
            for (i, r) in gpr.into_iter().enumerate() {
                self.write_system(base.wrapping_add(tss32::GPR + 4 * i as u32), r)?;
            }
            for (i, s) in seg.into_iter().enumerate() {
                self.write_system(base.wrapping_add(tss32::SEG + 4 * i as u32), s)?;
            }
        } else {
            self.write_system(base.wrapping_add(tss16::IP), eip as u16)?;
            self.write_system(base.wrapping_add(tss16::FLAGS), eflags as u16)?;
            for (i, r) in gpr.into_iter().enumerate() {
                self.write_system(base.wrapping_add(tss16::GPR + 2 * i as u32), r as u16)?;
            }
            for (i, s) in seg.into_iter().take(4).enumerate() {
                self.write_system(base.wrapping_add(tss16::SEG + 2 * i as u32), s)?;
            }
        }
        Ok(())
    }

    fn load_task(&mut self, t: &TaskState, wide: bool, reason: Reason) -> Result<()> {
        if let Some(cr3) = t.cr3
            && self.cr0 & CR0_PG != 0
        {
            if self.cr4 & CR4_PAE != 0 {
                self.pdpte = Paging::load_pdptes(cr3, &self.mem)?;
            }
            self.cr3 = cr3;
            self.flush_tlb(false);
        }
        self.eip = t.eip;
        for (i, &r) in t.gpr.iter().enumerate() {
            self.regs.set_r32(i as u8, r);
        }
        let mut eflags = t.eflags;
        if reason == Reason::Nested {
            eflags |= flags::NT;
        }
        if !wide {
            eflags &= 0xffff;
        }
        self.flags.set(eflags);
        // Until each is loaded, a segment register holds its new selector and nothing usable.
        for (i, &selector) in t.seg.iter().enumerate() {
            let mut s = null_segment(selector);
            s.big = wide;
            self.seg[i].arch = s;
        }
        // Local breakpoints belong to the old task.
        self.dr[7] &= !0x155;
        // Faults from here on are the new task's, at its level.
        let cpl = if self.vm86() { 3 } else { (t.seg[SegName::CS as usize] & 3) as u8 };
        self.set_cpl(cpl);
        self.refresh_segments();
        self.load_ldt_for_task(t.ldt)?;
        if self.flags.system & flags::VM != 0 {
            for (i, name) in [SegName::ES, SegName::CS, SegName::SS, SegName::DS, SegName::FS, SegName::GS]
                .into_iter()
                .enumerate()
            {
                self.load_real_segment(name, t.seg[i]);
            }
            self.refresh_segments();
        } else {
            let cs = t.seg[SegName::CS as usize];
            let ss = self.stack_segment(t.seg[SegName::SS as usize], self.cpl, Exception::invalid_tss)?;
            self.set_segment(SegName::SS, ss);
            for name in [SegName::ES, SegName::DS, SegName::FS, SegName::GS] {
                self.load_segment(name, t.seg[name as usize]).map_err(|e| match e.vector {
                    13 => Exception::invalid_tss(t.seg[name as usize]),
                    _ => e,
                })?;
            }
            self.load_task_code(cs)?;
        }
        if u64::from(self.eip) >= self.code_end() {
            return Err(Exception::GP0);
        }
        if t.trap {
            self.dr6_pending |= DR6_BT;
            self.attention = true;
        }
        Ok(())
    }

    fn load_task_code(&mut self, cs: u16) -> Result<()> {
        if is_null(cs) {
            return Err(Exception::invalid_tss(0));
        }
        let mut d =
            self.descriptor(cs).map_err(|e| if e.vector == 13 { Exception::invalid_tss(cs) } else { e })?;
        let rpl = (cs & 3) as u8;
        let privilege = if d.is_conforming_code() { d.dpl() <= rpl } else { d.dpl() == rpl };
        if !d.is_code() || !privilege {
            return Err(Exception::invalid_tss(cs));
        }
        if !d.present() {
            return Err(Exception::not_present(cs));
        }
        self.mark_accessed(&mut d)?;
        self.set_segment(SegName::CS, d.segment(cs));
        Ok(())
    }

    fn load_ldt_for_task(&mut self, selector: u16) -> Result<()> {
        self.ldtr = null_segment(selector);
        if is_null(selector) {
            return Ok(());
        }
        let error = Exception::invalid_tss(selector);
        if selector & 4 != 0 {
            return Err(error);
        }
        let d = self.descriptor(selector).map_err(|e| if e.vector == 13 { error } else { e })?;
        if d.system() != Some(system::LDT) || !d.present() {
            return Err(error);
        }
        self.ldtr = d.segment(selector);
        Ok(())
    }
}
