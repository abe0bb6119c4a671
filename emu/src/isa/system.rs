//! System instructions.

use super::decode::Insn;
use super::lower::Builder;
use crate::Cpu;
use crate::cpu::debug::{DR6_BD, DR6_FIXED, DR7_FIXED, DR7_GD, DR7_VALID};
use crate::cpu::regs::{Int, Reg, gpr};
use crate::cpu::segment::{Descriptor, is_null, system as kind};
use crate::cpu::{CR0_ET, CR0_PE, CR0_TS, CR4_DE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_PCE, CR4_TSD, CpuConfig};
use crate::dispatch::Uop;
use crate::exception::{Exception, Result};
use crate::mmu::walk::{CR0_PG, CR0_WP, CR4_PAE, CR4_PGE, CR4_PSE, Paging};

/// Writable bits of CR0, ET aside.
const CR0_VALID: u32 = 0xe005_003f;
/// CR0.NW without CR0.CD is invalid.
const CR0_NW: u32 = 1 << 29;
const CR0_CD: u32 = 1 << 30;
/// CR4.VME and PVI are not offered; MCE is only remembered.
const CR4_MCE: u32 = 1 << 6;
const CR4_VALID: u32 =
    CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;

/// The model-specific registers that v86's processor has, and with it this one.
mod msr {
    pub const TSC: u32 = 0x10;
    pub const APIC_BASE: u32 = 0x1b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MISC_ENABLE: u32 = 0x1a0;
}

/// What RDPMC takes in ECX lies below this.
const PERFORMANCE_COUNTERS: u32 = 2;
/// IA32_APIC_BASE: the local APIC is there.
const APIC_ENABLE: u32 = 1 << 11;

pub(super) fn hlt(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        cpu.require_cpl0()?;
        cpu.eip = cpu.next_eip(u);
        cpu.halted = true;
        Ok(())
    });
}

fn require_protected(cpu: &Cpu) -> Result<()> {
    if cpu.protected() { Ok(()) } else { Err(Exception::INVALID_OPCODE) }
}

/// Stores a selector: 16 bits to memory, zero-extended to a register.
fn store_selector(cpu: &mut Cpu, u: &Uop, v: u16) -> Result<()> {
    if u.is_mem() {
        return cpu.write_mem(u, 0, v);
    }
    cpu.set_reg_sized(u.dst, v.into(), u.op16());
    Ok(())
}

pub(super) fn sldt(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        require_protected(cpu)?;
        store_selector(cpu, u, cpu.ldtr.selector)
    });
}

pub(super) fn str(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        require_protected(cpu)?;
        store_selector(cpu, u, cpu.tr.selector)
    });
}

pub(super) fn lldt(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        require_protected(cpu)?;
        cpu.require_cpl0()?;
        let selector = cpu.get_rm::<u16>(u)?;
        cpu.load_ldt(selector)
    });
}

pub(super) fn ltr(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        require_protected(cpu)?;
        cpu.require_cpl0()?;
        let selector = cpu.get_rm::<u16>(u)?;
        cpu.load_task_register(selector)
    });
}

/// The descriptor that LAR, LSL, VERR and VERW look at, if the selector may be looked at.
fn visible(cpu: &mut Cpu, selector: u16, allowed: fn(&Descriptor) -> bool) -> Result<Option<Descriptor>> {
    if is_null(selector) {
        return Ok(None);
    }
    let d = match cpu.descriptor(selector) {
        Ok(d) => d,
        Err(e) if e.vector == 14 => return Err(e),
        Err(_) => return Ok(None),
    };
    let rpl = (selector & 3) as u8;
    let privilege = d.is_conforming_code() || d.dpl() >= cpu.cpl && d.dpl() >= rpl;
    Ok((privilege && allowed(&d)).then_some(d))
}

pub(super) fn verr(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        require_protected(cpu)?;
        let selector = cpu.get_rm::<u16>(u)?;
        let ok = visible(cpu, selector, Descriptor::is_readable)?.is_some();
        cpu.flags.set_zf(ok);
        Ok(())
    });
}

pub(super) fn verw(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        require_protected(cpu)?;
        let selector = cpu.get_rm::<u16>(u)?;
        let ok = visible(cpu, selector, Descriptor::is_writable_data)?.is_some();
        cpu.flags.set_zf(ok);
        Ok(())
    });
}

pub(super) fn lar(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        require_protected(cpu)?;
        let selector = cpu.get_rm::<u16>(u)?;
        let d = visible(cpu, selector, |d| {
            matches!(
                d.system(),
                None | Some(
                    kind::TSS16
                        | kind::LDT
                        | kind::TSS16_BUSY
                        | kind::CALL_GATE16
                        | kind::TASK_GATE
                        | kind::TSS32
                        | kind::TSS32_BUSY
                        | kind::CALL_GATE32
                )
            )
        })?;
        cpu.flags.set_zf(d.is_some());
        if let Some(d) = d {
            cpu.set_reg_sized(u.src, d.high & 0x00ff_ff00, u.op16());
        }
        Ok(())
    });
}

pub(super) fn lsl(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        require_protected(cpu)?;
        let selector = cpu.get_rm::<u16>(u)?;
        let d = visible(cpu, selector, |d| {
            matches!(
                d.system(),
                None | Some(kind::TSS16 | kind::LDT | kind::TSS16_BUSY | kind::TSS32 | kind::TSS32_BUSY)
            )
        })?;
        cpu.flags.set_zf(d.is_some());
        if let Some(d) = d {
            cpu.set_reg_sized(u.src, d.limit(), u.op16());
        }
        Ok(())
    });
}

pub(super) fn arpl(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        require_protected(cpu)?;
        let (to, from) = (cpu.get_rm::<u16>(u)?, cpu.regs.get::<u16>(u.src));
        let raise = to & 3 < from & 3;
        if raise {
            cpu.set_rm(u, (to & !3) | (from & 3))?;
        }
        cpu.flags.set_zf(raise);
        Ok(())
    });
}

fn store_table(cpu: &mut Cpu, u: &Uop, base: u32, limit: u16) -> Result<()> {
    let at = cpu.linear(u, 6, true)?;
    cpu.probe_write(at, 6)?;
    cpu.write(at, limit)?;
    cpu.write(at.wrapping_add(2), base)
}

pub(super) fn sgdt(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| store_table(cpu, u, cpu.gdtr.base, cpu.gdtr.limit));
}

pub(super) fn sidt(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| store_table(cpu, u, cpu.idtr.base, cpu.idtr.limit));
}

fn load_table(cpu: &mut Cpu, u: &Uop) -> Result<(u32, u16)> {
    cpu.require_cpl0()?;
    let limit = cpu.read_mem::<u16>(u, 0)?;
    let base = cpu.read_mem::<u32>(u, 2)?;
    Ok((if u.op16() { base & 0x00ff_ffff } else { base }, limit))
}

pub(super) fn lgdt(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        (cpu.gdtr.base, cpu.gdtr.limit) = load_table(cpu, u)?;
        Ok(())
    });
}

pub(super) fn lidt(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        (cpu.idtr.base, cpu.idtr.limit) = load_table(cpu, u)?;
        Ok(())
    });
}

pub(super) fn smsw(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        if u.is_mem() {
            return cpu.write_mem(u, 0, cpu.cr0 as u16);
        }
        cpu.set_reg_sized(u.dst, cpu.cr0, u.op16());
        Ok(())
    });
}

pub(super) fn lmsw(b: &mut Builder, i: &Insn) {
    b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        cpu.require_cpl0()?;
        let v = u32::from(cpu.get_rm::<u16>(u)?);
        // PE can be set but not cleared.
        let cr0 = (cpu.cr0 & !0xe) | (v & 0xf);
        cpu.write_cr0(cr0)?;
        cpu.eip = cpu.next_eip(u);
        Ok(())
    });
}

pub(super) fn invlpg(b: &mut Builder, i: &Insn) {
    b.call_jump(i, |cpu: &mut Cpu, u: &Uop| {
        cpu.require_cpl0()?;
        let base = cpu.seg[usize::from(u.form & 7) % 6].arch.base;
        let linear = base.wrapping_add(cpu.offset(u));
        cpu.tlb.flush_page(linear);
        cpu.eip = cpu.next_eip(u);
        Ok(())
    });
}

pub(super) fn clts(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        cpu.require_cpl0()?;
        cpu.cr0 &= !CR0_TS;
        Ok(())
    });
}

/// INVD and WBINVD: there is no cache.
pub(super) fn invd(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| cpu.require_cpl0());
}

impl Cpu {
    fn write_cr0(&mut self, v: u32) -> Result<()> {
        let v = (v & CR0_VALID) | CR0_ET;
        let protected = v & CR0_PE != 0;
        if v & CR0_PG != 0 && !protected || v & CR0_NW != 0 && v & CR0_CD == 0 {
            return Err(Exception::GP0);
        }
        let changed = self.cr0 ^ v;
        if changed & v & CR0_PG != 0 && self.cr4 & CR4_PAE != 0 {
            self.pdpte = Paging::load_pdptes(self.cr3, &self.mem)?;
        }
        self.cr0 = v;
        if changed & (CR0_PG | CR0_WP | CR0_PE) != 0 {
            self.flush_tlb(true);
        }
        if changed & CR0_PE != 0 {
            if !protected {
                self.set_cpl(0);
            }
            self.refresh_segments();
        }
        self.refresh_watch();
        Ok(())
    }

    fn write_cr3(&mut self, v: u32) -> Result<()> {
        if self.cr4 & CR4_PAE != 0 && self.paging_on() {
            self.pdpte = Paging::load_pdptes(v, &self.mem)?;
        }
        self.cr3 = v;
        self.flush_tlb(false);
        Ok(())
    }

    fn write_cr4(&mut self, v: u32) -> Result<()> {
        if v & !CR4_VALID != 0 {
            return Err(Exception::GP0);
        }
        let changed = self.cr4 ^ v;
        if changed & (CR4_PAE | CR4_PSE | CR4_PGE) != 0 {
            if v & CR4_PAE != 0 && self.paging_on() {
                self.pdpte = Paging::load_pdptes(self.cr3, &self.mem)?;
            }
            self.flush_tlb(true);
        }
        self.cr4 = v;
        self.refresh_watch();
        Ok(())
    }

    fn read_msr(&mut self, number: u32) -> u64 {
        match number {
            msr::TSC => self.tsc(),
            msr::APIC_BASE => self.with_bus(|bus, _| bus.apic_base()).into(),
            msr::PLATFORM_INFO => 1 << 8,
            msr::SYSENTER_CS => self.sysenter_cs.into(),
            msr::SYSENTER_ESP => self.sysenter_esp.into(),
            msr::SYSENTER_EIP => self.sysenter_eip.into(),
            msr::MISC_ENABLE => 1,
            // v86 does the same, so that a guest that moves between the two sees no difference: no MSR
            // faults.
            _ => 0,
        }
    }

    fn write_msr(&mut self, number: u32, v: u64) {
        match number {
            msr::TSC => {
                let now = self.tsc();
                self.tsc_offset = self.tsc_offset.wrapping_add(v.wrapping_sub(now));
            }
            msr::APIC_BASE => self.with_bus(|bus, _| bus.set_apic_base(v as u32)),
            msr::SYSENTER_CS => self.sysenter_cs = v as u32,
            msr::SYSENTER_ESP => self.sysenter_esp = v as u32,
            msr::SYSENTER_EIP => self.sysenter_eip = v as u32,
            _ => {}
        }
    }

    fn set_edx_eax(&mut self, v: u64) {
        self.regs.set_r32(gpr::EAX, v as u32);
        self.regs.set_r32(gpr::EDX, (v >> 32) as u32);
    }
}

pub(super) fn mov_from_cr(b: &mut Builder, i: &Insn) {
    if !matches!(i.reg(), 0 | 2..=4) {
        return super::branch::ud(b, i);
    }
    let u = b.call(i, |cpu: &mut Cpu, u: &Uop| {
        cpu.require_cpl0()?;
        let v = match u.imm {
            0 => cpu.cr0,
            2 => cpu.cr2,
            3 => cpu.cr3,
            _ => cpu.cr4,
        };
        cpu.regs.set(u.dst, v);
        Ok(())
    });
    u.dst = Reg::dword(i.rm());
    u.imm = i.reg().into();
}

pub(super) fn mov_to_cr(b: &mut Builder, i: &Insn) {
    if !matches!(i.reg(), 0 | 2..=4) {
        return super::branch::ud(b, i);
    }
    let u = b.call_jump(i, |cpu: &mut Cpu, u: &Uop| {
        cpu.require_cpl0()?;
        let v = cpu.regs.get::<u32>(u.dst);
        match u.imm {
            0 => cpu.write_cr0(v)?,
            2 => cpu.cr2 = v,
            3 => cpu.write_cr3(v)?,
            _ => cpu.write_cr4(v)?,
        }
        cpu.eip = cpu.next_eip(u);
        Ok(())
    });
    u.dst = Reg::dword(i.rm());
    u.imm = i.reg().into();
}

/// The debug register that an instruction names, after the checks for all of them.
fn debug_register(cpu: &mut Cpu, u: &Uop) -> Result<usize> {
    let n = u.imm as usize & 7;
    if matches!(n, 4 | 5) && cpu.cr4 & CR4_DE != 0 {
        return Err(Exception::INVALID_OPCODE);
    }
    cpu.require_cpl0()?;
    if cpu.dr[7] & DR7_GD != 0 {
        cpu.dr[6] |= DR6_BD;
        cpu.dr[7] &= !DR7_GD;
        return Err(Exception::DEBUG);
    }
    Ok(if matches!(n, 4 | 5) { n + 2 } else { n })
}

pub(super) fn mov_from_dr(b: &mut Builder, i: &Insn) {
    let u = b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let n = debug_register(cpu, u)?;
        cpu.regs.set(u.dst, cpu.dr[n]);
        Ok(())
    });
    u.dst = Reg::dword(i.rm());
    u.imm = i.reg().into();
}

pub(super) fn mov_to_dr(b: &mut Builder, i: &Insn) {
    let u = b.call_last(i, |cpu: &mut Cpu, u: &Uop| {
        let n = debug_register(cpu, u)?;
        let v = cpu.regs.get::<u32>(u.dst);
        cpu.dr[n] = match n {
            6 => (v & 0xe00f) | DR6_FIXED,
            7 => (v & DR7_VALID) | DR7_FIXED,
            _ => v,
        };
        cpu.refresh_watch();
        cpu.eip = cpu.next_eip(u);
        Ok(())
    });
    u.dst = Reg::dword(i.rm());
    u.imm = i.reg().into();
}

pub(super) fn rdmsr(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        cpu.require_cpl0()?;
        let v = cpu.read_msr(cpu.regs.r32(gpr::ECX));
        cpu.set_edx_eax(v);
        Ok(())
    });
}

pub(super) fn wrmsr(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        cpu.require_cpl0()?;
        let v = u64::from(cpu.regs.r32(gpr::EDX)) << 32 | u64::from(cpu.regs.r32(gpr::EAX));
        cpu.write_msr(cpu.regs.r32(gpr::ECX), v);
        Ok(())
    });
}

pub(super) fn rdtsc(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        if cpu.cr4 & CR4_TSD != 0 && cpu.cpl != 0 && cpu.cr0 & CR0_PE != 0 {
            return Err(Exception::GP0);
        }
        let v = cpu.tsc();
        cpu.set_edx_eax(v);
        Ok(())
    });
}

/// RDPMC: the two counters that every processor of family 6 has. Nothing makes them count.
pub(super) fn rdpmc(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        if cpu.cr4 & CR4_PCE == 0 && cpu.cpl != 0 && cpu.cr0 & CR0_PE != 0 {
            return Err(Exception::GP0);
        }
        if cpu.regs.r32(gpr::ECX) >= PERFORMANCE_COUNTERS {
            return Err(Exception::GP0);
        }
        cpu.set_edx_eax(0);
        Ok(())
    });
}

pub(super) fn rdrand(b: &mut Builder, i: &Insn) {
    fn run<T: Int>(cpu: &mut Cpu, u: &Uop) -> Result<()> {
        let v = cpu.with_bus(|bus, _| bus.random());
        cpu.regs.set(u.dst, T::truncate(v));
        cpu.flags.set_arith(crate::cpu::flags::CF);
        Ok(())
    }
    if i.op16 {
        b.call(i, run::<u16>)
    } else {
        b.call(i, run::<u32>)
    };
}

/// CPUID: the identity of the board's processor, the same as v86's, so that
/// a running guest can move both ways. EAX EBX ECX EDX by leaf and subleaf.
fn cpuid_leaf(config: &CpuConfig, apic_enabled: bool, leaf: u32, sub: u32) -> [u32; 4] {
    let text = |s: &[u8; 4]| u32::from_le_bytes(*s);
    let apic = if config.apic && apic_enabled { 1 << 9 } else { 0 };
    match (leaf, sub) {
        (0, _) => [config.cpuid_level, text(b"Genu"), text(b"ntel"), text(b"ineI")],
        (1, _) => [0x673, 0x0001_0800, 0xc080_0001, 0x0780_a979 | apic],
        (2, _) => [0x665b_5001, 0, 0, 0x007a_7000],
        (4, 0) => [0x121, 0x01c0_003f, 0x3f, 1],
        (4, 1) => [0x122, 0x01c0_003f, 0x3f, 1],
        (4, 2) => [0x143, 0x05c0_003f, 0xfff, 1],
        (5, _) => [0x40, 0x40, 3, 0x0014_2120],
        (7, 0) => [0, 1 << 9, 0, 0],
        (0x15, _) => [1, 1, 1_000_000_000, 0],
        (0x16, _) => [1000, 1000, 10, 0],
        (0x4000_0000, _) => [0, text(b"VMwa"), text(b"reVM"), text(b"ware")],
        (0x8000_0000, _) => [5, 0, 0, 0],
        _ => [0; 4],
    }
}

pub(super) fn cpuid(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        let apic = cpu.with_bus(|bus, _| bus.apic_base()) & APIC_ENABLE != 0;
        let [a, b, c, d] = cpuid_leaf(&cpu.config, apic, cpu.regs.r32(gpr::EAX), cpu.regs.r32(gpr::ECX));
        cpu.regs.set_r32(gpr::EAX, a);
        cpu.regs.set_r32(gpr::EBX, b);
        cpu.regs.set_r32(gpr::ECX, c);
        cpu.regs.set_r32(gpr::EDX, d);
        Ok(())
    });
}
