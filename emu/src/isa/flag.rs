//! Instructions on single flags.

use super::decode::Insn;
use super::lower::Builder;
use crate::Cpu;
use crate::cpu::flags::{self, AF, CF, PF, SF, ZF};
use crate::cpu::regs::{Reg, gpr};
use crate::dispatch::{Flow, Op, Step, Stop, Uop, step};
use crate::exception::Exception;

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

/// CLI.
struct Cli;
/// STI.
struct Sti;

impl Op for Cli {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, _: &Uop) -> Step {
        if !cpu.iopl_allows() {
            return Err(cpu.stop(Exception::GP0));
        }
        cpu.flags.system &= !flags::IF;
        Ok(Flow::Next)
    }
}

impl Op for Sti {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, _: &Uop) -> Step {
        if !cpu.iopl_allows() {
            return Err(cpu.stop(Exception::GP0));
        }
        if cpu.flags.system & flags::IF == 0 && cpu.pins.interrupt {
            // The interrupt that waits is taken after the next instruction. The slow path leaves the block.
            if !SLOW {
                return Err(Stop::Slow);
            }
            cpu.shadow = true;
            cpu.attention = true;
        }
        cpu.flags.system |= flags::IF;
        Ok(Flow::Next)
    }
}

pub(super) fn cli(b: &mut Builder, i: &Insn) {
    b.emit(i, step::<Cli>);
    b.leaves();
}

pub(super) fn sti(b: &mut Builder, i: &Insn) {
    b.emit(i, step::<Sti>);
    b.leaves();
}
