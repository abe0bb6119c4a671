//! Instructions on single flags.

use super::decode::Insn;
use super::lower::Builder;
use crate::Cpu;
use crate::cpu::flags::{self, AF, CF, PF, SF, ZF};
use crate::cpu::regs::{Reg, gpr};
use crate::dispatch::Uop;
use crate::exception::{Exception, Result};

const AH: Reg = Reg::byte(4);

pub(super) fn sahf(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        let mask = SF | ZF | AF | PF | CF;
        let ah = u32::from(cpu.regs.get::<u8>(AH));
        let rest = cpu.flags.arith() & !mask;
        cpu.flags.set_arith(rest | (ah & mask));
        Ok(())
    });
}

pub(super) fn lahf(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        let v = cpu.flags.get() as u8;
        cpu.regs.set(AH, v);
        Ok(())
    });
}

pub(super) fn cmc(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        let cf = cpu.flags.cf();
        cpu.flags.set_cf(!cf);
        Ok(())
    });
}

pub(super) fn clc(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        cpu.flags.set_cf(false);
        Ok(())
    });
}

pub(super) fn stc(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        cpu.flags.set_cf(true);
        Ok(())
    });
}

pub(super) fn cld(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        cpu.flags.system &= !flags::DF;
        Ok(())
    });
}

pub(super) fn std(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        cpu.flags.system |= flags::DF;
        Ok(())
    });
}

/// SALC: AL is FFh if CF is set, else 0.
pub(super) fn salc(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        let v = if cpu.flags.cf() { 0xffu8 } else { 0 };
        cpu.regs.set(Reg::byte(gpr::EAX), v);
        Ok(())
    });
}

fn check_interrupt_flag(cpu: &Cpu) -> Result<()> {
    if cpu.iopl_allows() { Ok(()) } else { Err(Exception::GP0) }
}

pub(super) fn cli(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        check_interrupt_flag(cpu)?;
        cpu.flags.system &= !flags::IF;
        Ok(())
    });
}

pub(super) fn sti(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| {
        check_interrupt_flag(cpu)?;
        if cpu.flags.system & flags::IF == 0 {
            cpu.flags.system |= flags::IF;
            // An interrupt that waits is taken after the next instruction.
            if cpu.with_bus(|bus, _| bus.interrupt()) {
                cpu.shadow = true;
                cpu.attention = true;
            }
        }
        Ok(())
    });
}
