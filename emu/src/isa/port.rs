//! IN and OUT.

use super::decode::Insn;
use super::lower::{Builder, Place};
use crate::Cpu;
use crate::bus::{HYPERVISOR_PORT, HypervisorCall, Width};
use crate::cpu::regs::{Reg, gpr};
use crate::dispatch::Uop;
use crate::exception::Result;

/// The board's name for a width in bytes.
pub(super) fn width(bytes: u32) -> Width {
    match bytes {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Dword,
    }
}

/// Reads a port, after the check of privilege.
pub(super) fn read(cpu: &mut Cpu, port: u16, bytes: u32) -> Result<u32> {
    cpu.check_io(port, bytes)?;
    let width = width(bytes);
    let v = cpu.with_bus(|bus, mem| bus.port_read(mem, port, width));
    cpu.watch_io(port, bytes);
    Ok(v & width.mask())
}

/// Writes a port, after the check of privilege.
pub(super) fn write(cpu: &mut Cpu, port: u16, bytes: u32, v: u32) -> Result<()> {
    cpu.check_io(port, bytes)?;
    let width = width(bytes);
    cpu.with_bus(|bus, mem| bus.port_write(mem, port, width, v & width.mask()));
    cpu.watch_io(port, bytes);
    Ok(())
}

/// Up to `count` values from a port to a page, at once: how many; 0 if that cannot be.
pub(super) fn read_many(cpu: &mut Cpu, port: u16, bytes: u32, to: u32, count: u32) -> u32 {
    if cpu.watch.io { 0 } else { cpu.input_in_page(port, width(bytes), to, count) }
}

/// The same from a page to a port.
pub(super) fn write_many(cpu: &mut Cpu, port: u16, bytes: u32, from: u32, count: u32) -> u32 {
    if cpu.watch.io { 0 } else { cpu.output_in_page(port, width(bytes), from, count) }
}

/// IN of a doubleword from the hypervisor's port, which takes and gives more registers than EAX.
fn call_hypervisor(cpu: &mut Cpu) -> Result<()> {
    cpu.check_io(HYPERVISOR_PORT, 4)?;
    let [eax, ebx, ecx, edx] = [gpr::EAX, gpr::EBX, gpr::ECX, gpr::EDX].map(|r| cpu.regs.r32(r));
    let mut call = HypervisorCall { eax, ebx, ecx, edx };
    cpu.with_bus(|bus, _| bus.hypervisor_call(&mut call));
    let HypervisorCall { eax, ebx, ecx, edx } = call;
    for (register, value) in [(gpr::EAX, eax), (gpr::EBX, ebx), (gpr::ECX, ecx), (gpr::EDX, edx)] {
        cpu.regs.set(Reg::dword(register), value);
    }
    cpu.watch_io(HYPERVISOR_PORT, 4);
    Ok(())
}

const EAX: Reg = Reg::dword(gpr::EAX);

fn input_sized<const BYTES: u32>(cpu: &mut Cpu, port: u16) -> Result<()> {
    if BYTES == 4 && port == HYPERVISOR_PORT {
        return call_hypervisor(cpu);
    }
    let v = read(cpu, port, BYTES)?;
    match BYTES {
        1 => cpu.regs.set(EAX, v as u8),
        2 => cpu.regs.set(EAX, v as u16),
        _ => cpu.regs.set(EAX, v),
    }
    Ok(())
}

fn dx(cpu: &Cpu) -> u16 {
    cpu.regs.r32(gpr::EDX) as u16
}

fn input_by<const BYTES: u32>(b: &mut Builder, i: &Insn) {
    if i.place(1) == Place::Imm {
        b.call(i, |cpu: &mut Cpu, u: &Uop| input_sized::<BYTES>(cpu, u.imm as u16));
    } else {
        b.call(i, |cpu: &mut Cpu, _: &Uop| input_sized::<BYTES>(cpu, dx(cpu)));
    }
}

fn output_by<const BYTES: u32>(b: &mut Builder, i: &Insn) {
    if i.place(0) == Place::Imm {
        b.call(i, |cpu: &mut Cpu, u: &Uop| write(cpu, u.imm as u16, BYTES, cpu.regs.get(EAX)));
    } else {
        b.call(i, |cpu: &mut Cpu, _: &Uop| write(cpu, dx(cpu), BYTES, cpu.regs.get(EAX)));
    }
}

fn bytes(i: &Insn) -> u32 {
    match (i.opcode & 1, i.op16) {
        (0, _) => 1,
        (_, true) => 2,
        (_, false) => 4,
    }
}

pub(super) fn input(b: &mut Builder, i: &Insn) {
    match bytes(i) {
        1 => input_by::<1>(b, i),
        2 => input_by::<2>(b, i),
        _ => input_by::<4>(b, i),
    }
}

pub(super) fn output(b: &mut Builder, i: &Insn) {
    match bytes(i) {
        1 => output_by::<1>(b, i),
        2 => output_by::<2>(b, i),
        _ => output_by::<4>(b, i),
    }
}
