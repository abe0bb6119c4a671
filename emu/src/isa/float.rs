//! x87, and the image of all that FXSAVE stores: what stands between the instruction and [`crate::fpu`].

use std::marker::PhantomData as P;

use super::decode::Insn;
use super::lower::{AddrKind, Builder, by_octal};
use super::operand::{Addr, Flat, FlatIndexed};
use crate::Cpu;
use crate::cpu::flags::{self, Flags};
use crate::cpu::regs::{Reg, RegFile, gpr};
use crate::cpu::{CR0_EM, CR0_MP, CR0_NE, CR0_TS, CR4_OSFXSR, SegName};
use crate::dispatch::{self, Flow, Op, Step, Stop, Uop, step};
use crate::exception::{Exception, Result};
use crate::fpu::{self, Outcome};
use crate::mmu::tlb::Tlb;
use crate::mmu::walk::Access;
use crate::simd::mxcsr;

/// Bytes of an FXSAVE image.
const FXSAVE: usize = 512;
/// Bytes of its x87 part, in front.
const FXSAVE_X87: usize = 160;

/// A waiting instruction with an x87 exception pending: #MF, or FERR and on.
pub(super) fn check_pending(cpu: &mut Cpu) -> Result<()> {
    if cpu.fpu.pending() {
        if cpu.cr0 & CR0_NE != 0 {
            return Err(Exception::FPU_ERROR);
        }
        cpu.with_bus(|bus, _| bus.fpu_error());
    }
    Ok(())
}

/// The processor as an x87 instruction sees it; the unit itself is taken out meanwhile.
struct X87<'a> {
    cpu: &'a mut Cpu,
    u: &'a Uop,
}

impl X87<'_> {
    /// The operand's address after its checks.
    fn linear(&mut self, bytes: usize, write: bool) -> Result<u32> {
        let user = self.cpu.cpl == 3;
        // What is made of parts: whatever is wrong with the first comes before the limit of the others.
        let first = match bytes {
            // An extended real's significand, as which it is aligned.
            10 => 8,
            11.. if bytes.is_multiple_of(4) => 4,
            11.. => 2,
            _ => return self.cpu.linear(self.u, bytes as u32, write),
        };
        let at = self.cpu.linear(self.u, first, write)?;
        self.cpu.check_alignment(at, first, user)?;
        if bytes > 10 {
            // Environments are tried at both ends.
            self.cpu.probe(at, first, Access { write, user })?;
            self.cpu.linear(self.u, bytes as u32, write)?;
            probe_end(self.cpu, self.u, bytes as u32, write)?;
        } else {
            self.cpu.linear(self.u, bytes as u32, write)?;
        }
        Ok(at)
    }
}

/// Raises what touching the last byte of a large operand would raise.
fn probe_end(cpu: &mut Cpu, u: &Uop, bytes: u32, write: bool) -> Result<()> {
    let last = cpu.check_segment(u.form & 7, cpu.wrap_offset(u, bytes - 1), 1, write)?;
    cpu.probe(last, 1, Access { write, user: cpu.cpl == 3 })
}

impl fpu::Operands for X87<'_> {
    fn load<const N: usize>(&mut self) -> Result<[u8; N]> {
        let at = self.linear(N, false)?;
        self.cpu.read_array(at)
    }
    fn store<const N: usize>(&mut self, bytes: [u8; N]) -> Result<()> {
        let at = self.linear(N, true)?;
        self.cpu.write_array(at, &bytes)
    }
    fn probe_store<const N: usize>(&mut self) -> Result<()> {
        let at = self.linear(N, true)?;
        self.cpu.probe_write(at, N as u32)
    }
    fn set_ax(&mut self, value: u16) {
        self.cpu.regs.set(Reg::dword(gpr::EAX), value);
    }
    fn eflags(&self) -> u32 {
        self.cpu.flags.arith()
    }
    fn set_eflags(&mut self, zf: bool, pf: bool, cf: bool) {
        set_compared(&mut self.cpu.flags, zf, pf, cf);
    }
}

#[inline(never)]
fn x87_run(cpu: &mut Cpu, u: &Uop) -> Result<()> {
    if cpu.cr0 & (CR0_EM | CR0_TS) != 0 {
        return Err(Exception::DEVICE_NOT_AVAILABLE);
    }
    let insn = x87_insn(cpu, u);
    if fpu::is_waiting(insn.opcode, insn.modrm) {
        check_pending(cpu)?;
    }
    let mut unit = std::mem::take(&mut cpu.fpu);
    let outcome = unit.execute(&insn, &mut X87 { cpu, u });
    cpu.fpu = unit;
    if outcome? == Outcome::Pending && cpu.cr0 & CR0_NE == 0 {
        cpu.with_bus(|bus, _| bus.fpu_error());
    }
    Ok(())
}

#[inline(always)]
fn x87_insn(cpu: &Cpu, u: &Uop) -> fpu::Insn {
    fpu::Insn {
        opcode: (u.imm >> 8) as u8,
        modrm: u.imm as u8,
        op32: !u.op16(),
        protected: cpu.protected(),
        cs: cpu.segment(SegName::CS).selector,
        eip: cpu.this_eip(u),
        ds: cpu.operand_selector(u),
        dp: cpu.offset(u),
    }
}

/// The registers and the memory of an x87 instruction whose operand the TLB has. The slow path runs all
/// others.
struct Quick<'a> {
    tlb: &'a Tlb,
    regs: &'a mut RegFile,
    flags: &'a mut Flags,
    linear: u32,
}

/// Stands for [`Stop::Slow`] where an exception is asked for; the unit is as it was then.
pub(super) const NOT_NEAR: Exception = Exception::DEVICE_NOT_AVAILABLE;

impl fpu::Operands for Quick<'_> {
    #[inline(always)]
    fn load<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.tlb.load(self.linear).ok_or(NOT_NEAR)
    }
    #[inline(always)]
    fn store<const N: usize>(&mut self, bytes: [u8; N]) -> Result<()> {
        if self.tlb.store(self.linear, bytes) { Ok(()) } else { Err(NOT_NEAR) }
    }
    #[inline(always)]
    fn probe_store<const N: usize>(&mut self) -> Result<()> {
        Err(NOT_NEAR)
    }
    #[inline(always)]
    fn set_ax(&mut self, value: u16) {
        self.regs.set(Reg::dword(gpr::EAX), value);
    }
    #[inline(always)]
    fn eflags(&self) -> u32 {
        self.flags.arith()
    }
    #[inline(always)]
    fn set_eflags(&mut self, zf: bool, pf: bool, cf: bool) {
        set_compared(self.flags, zf, pf, cf);
    }
}

/// The flags that FCOMI sets; it clears the others.
fn set_compared(f: &mut Flags, zf: bool, pf: bool, cf: bool) {
    let bit = |on: bool, flag: u32| if on { flag } else { 0 };
    f.set_arith(bit(zf, flags::ZF) | bit(pf, flags::PF) | bit(cf, flags::CF));
}

/// An x87 instruction by its opcode's low three bits and ModR/M's reg field, on registers.
struct OnStack<const OPCODE: u8, const REG: u8>;
/// The same with an operand in memory.
struct OnMemory<A, const OPCODE: u8, const REG: u8>(P<A>);

/// Any x87 instruction, whatever it needs.
struct AnyX87;

impl Op for AnyX87 {
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        x87_run(cpu, u).map_err(|e| cpu.stop(e))?;
        Ok(Flow::Next)
    }
}

impl<const OPCODE: u8, const REG: u8> Op for OnStack<OPCODE, REG> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        x87_step::<OPCODE, REG, false, SLOW>(cpu, u, 0)
    }
}

impl<A: Addr, const OPCODE: u8, const REG: u8> Op for OnMemory<A, OPCODE, REG> {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        match A::linear::<false>(cpu, u, 1, false) {
            Ok(linear) => x87_step::<OPCODE, REG, true, SLOW>(cpu, u, linear),
            Err(_) if SLOW => AnyX87::exec::<true>(cpu, u),
            Err(stop) => Err(stop),
        }
    }
}

/// First the ordinary case alone, where there is one. What is `SLOW` is tried again with an operand that the TLB
/// has, and then with any.
#[inline(always)]
fn x87_step<const OPCODE: u8, const REG: u8, const MEMORY: bool, const SLOW: bool>(
    cpu: &mut Cpu,
    u: &Uop,
    linear: u32,
) -> Step {
    let ordinary = const { fpu::ordinary::covers(OPCODE, REG, MEMORY) };
    // The unit is there, nothing is pending, and what will be needs no interrupt (CR0.NE).
    let ready = cpu.cr0 & (CR0_EM | CR0_TS | CR0_NE) == CR0_NE && !cpu.fpu.pending();
    if !SLOW && ordinary {
        return if ready && run_ordinary::<OPCODE, REG, MEMORY>(cpu, u, linear) {
            Ok(Flow::Next)
        } else {
            Err(Stop::Slow)
        };
    }
    if (ordinary || !SLOW) && ready && run_quick::<OPCODE, REG, MEMORY>(cpu, u, linear) {
        return Ok(Flow::Next);
    }
    if SLOW { AnyX87::exec::<true>(cpu, u) } else { Err(Stop::Slow) }
}

/// Executes the instruction if it is an ordinary case, and says whether it did.
#[inline(always)]
fn run_ordinary<const OPCODE: u8, const REG: u8, const MEMORY: bool>(
    cpu: &mut Cpu,
    u: &Uop,
    linear: u32,
) -> bool {
    let i = u.imm as u8 & 7;
    let mut m = Quick { tlb: &cpu.tlb, regs: &mut cpu.regs, flags: &mut cpu.flags, linear };
    let Some(kind) = cpu.fpu.execute_ordinary::<_, OPCODE, REG, MEMORY>(i, &mut m) else { return false };
    let insn = known_insn::<OPCODE, REG>(cpu, u, linear);
    cpu.fpu.trace::<MEMORY>(kind, &insn);
    true
}

/// Executes the instruction if the TLB has its operand, and says whether it did. It has a frame of its own,
/// because it passes the addresses of its locals on.
#[inline(never)]
fn run_quick<const OPCODE: u8, const REG: u8, const MEMORY: bool>(
    cpu: &mut Cpu,
    u: &Uop,
    linear: u32,
) -> bool {
    let insn = known_insn::<OPCODE, REG>(cpu, u, linear);
    let mut m = Quick { tlb: &cpu.tlb, regs: &mut cpu.regs, flags: &mut cpu.flags, linear };
    cpu.fpu.execute_form::<_, MEMORY>(&insn, &mut m).is_ok()
}

/// As [`x87_insn`], of an instruction that is known in part and whose operand is in a flat segment.
#[inline(always)]
fn known_insn<const OPCODE: u8, const REG: u8>(cpu: &Cpu, u: &Uop, linear: u32) -> fpu::Insn {
    let insn = x87_insn(cpu, u);
    fpu::Insn { opcode: 0xd8 + OPCODE, modrm: insn.modrm & !0x38 | REG << 3, dp: linear, ..insn }
}

pub(super) fn x87(b: &mut Builder, i: &Insn) {
    let (opcode, reg) = (i.opcode & 7, i.reg());
    let run = match (i.mem, b.addr_kind(i)) {
        (None, _) => by_octal!(opcode, OP => by_octal!(reg, REG => step::<OnStack<OP, REG>>)),
        (Some(_), AddrKind::Flat) => {
            by_octal!(opcode, OP => by_octal!(reg, REG => step::<OnMemory<Flat, OP, REG>>))
        }
        (Some(_), AddrKind::Indexed) => {
            by_octal!(opcode, OP => by_octal!(reg, REG => step::<OnMemory<FlatIndexed, OP, REG>>))
        }
        (Some(_), AddrKind::Segmented) => dispatch::handler_of(x87_run),
    };
    b.emit_rm(i, run).imm = u32::from(i.opcode) << 8 | u32::from(i.modrm);
    b.opaque();
}

pub(super) fn wait(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        if cpu.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS {
            return Err(Exception::DEVICE_NOT_AVAILABLE);
        }
        check_pending(cpu)
    });
}

fn check_fxsr(cpu: &mut Cpu, u: &Uop, write: bool) -> Result<u32> {
    if cpu.cr0 & CR0_EM != 0 {
        return Err(Exception::INVALID_OPCODE);
    }
    if cpu.cr0 & CR0_TS != 0 {
        return Err(Exception::DEVICE_NOT_AVAILABLE);
    }
    // Alignment comes before a limit that only the later parts exceed.
    let at = cpu.linear(u, 4, false)?;
    cpu.check_alignment(at, 4, cpu.cpl == 3)?;
    cpu.linear(u, 4, write)?;
    if at & 15 != 0 {
        return Err(Exception::GP0);
    }
    cpu.linear(u, FXSAVE as u32, write)?;
    probe_end(cpu, u, FXSAVE as u32, write)?;
    if write {
        cpu.probe_write(at, 1)?;
    }
    Ok(at)
}

pub(super) fn fxsave(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let at = check_fxsr(cpu, u, true)?;
        cpu.probe_write(at, FXSAVE as u32)?;
        // Bytes from 288 on are not written.
        let mut image = cpu.read_array::<FXSAVE>(at)?;
        image[..FXSAVE_X87].copy_from_slice(&cpu.fpu.fxsave_image());
        image[24..28].copy_from_slice(&cpu.mxcsr.to_le_bytes());
        image[28..32].copy_from_slice(&mxcsr::VALID.to_le_bytes());
        if cpu.cr4 & CR4_OSFXSR != 0 {
            for (to, xmm) in image[FXSAVE_X87..].chunks_exact_mut(16).zip(cpu.xmm) {
                to.copy_from_slice(&xmm.to_le_bytes());
            }
        }
        cpu.write_array(at, &image)
    });
}

pub(super) fn fxrstor(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let at = check_fxsr(cpu, u, false)?;
        let image = cpu.read_array::<FXSAVE>(at)?;
        let mut x87 = [0; FXSAVE_X87];
        x87.copy_from_slice(&image[..FXSAVE_X87]);
        if cpu.cr4 & CR4_OSFXSR != 0 {
            let value = u32::from_le_bytes([image[24], image[25], image[26], image[27]]);
            if value & !mxcsr::VALID != 0 {
                return Err(Exception::GP0);
            }
            cpu.mxcsr = value;
            for (xmm, from) in cpu.xmm.iter_mut().zip(image[FXSAVE_X87..].chunks_exact(16)) {
                let mut bytes = [0; 16];
                bytes.copy_from_slice(from);
                *xmm = u128::from_le_bytes(bytes);
            }
        }
        cpu.fpu.fxrstor_image(&x87);
        Ok(())
    });
}
