//! Decimal adjustment (SDM volume 2; undefined flags as hardware leaves them).

use super::decode::Insn;
use super::lower::Builder;
use crate::Cpu;
use crate::cpu::flags::{AF, CF};
use crate::cpu::regs::{Reg, gpr};
use crate::dispatch::Uop;
use crate::exception::{Exception, Result};

const AL: Reg = Reg::byte(gpr::EAX);
const AH: Reg = Reg::byte(4);
const AX: Reg = Reg::dword(gpr::EAX);

/// Sets AL with SF, ZF, PF of it, and CF and AF as given.
fn finish(cpu: &mut Cpu, al: u8, cf: bool, af: bool) {
    cpu.regs.set(AL, al);
    cpu.flags.set_logic(al);
    let rest = cpu.flags.arith() & !(CF | AF);
    cpu.flags.set_arith(rest | if cf { CF } else { 0 } | if af { AF } else { 0 });
}

fn adjust_packed(cpu: &mut Cpu, subtract: bool) -> Result<()> {
    let old = cpu.regs.get::<u8>(AL);
    let (old_cf, old_af) = (cpu.flags.cf(), cpu.flags.af());
    let mut al = old;
    let step = |al: u8, by: u8| if subtract { al.wrapping_sub(by) } else { al.wrapping_add(by) };
    let mut cf = false;
    let af = old & 15 > 9 || old_af;
    if af {
        al = step(al, 6);
        cf = old_cf || if subtract { old < 6 } else { old > 0xf9 };
    }
    if old > 0x99 || old_cf {
        al = step(al, 0x60);
        cf = true;
    }
    finish(cpu, al, cf, af);
    Ok(())
}

pub(super) fn daa(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| adjust_packed(cpu, false));
}

pub(super) fn das(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| adjust_packed(cpu, true));
}

fn adjust_unpacked(cpu: &mut Cpu, subtract: bool) -> Result<()> {
    let ax = cpu.regs.get::<u16>(AX);
    let adjust = ax & 15 > 9 || cpu.flags.af();
    let ax = match (adjust, subtract) {
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(0x106),
        (false, _) => ax,
    };
    cpu.regs.set(AX, ax & 0xff0f);
    finish(cpu, (ax & 0x0f) as u8, adjust, adjust);
    Ok(())
}

pub(super) fn aaa(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| adjust_unpacked(cpu, false));
}

pub(super) fn aas(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, _: &Uop| adjust_unpacked(cpu, true));
}

pub(super) fn aam(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let (al, base) = (cpu.regs.get::<u8>(AL), u.imm as u8);
        let quotient = al.checked_div(base).ok_or(Exception::DIVIDE_ERROR)?;
        cpu.regs.set(AH, quotient);
        finish(cpu, al % base, false, false);
        Ok(())
    });
}

pub(super) fn aad(b: &mut Builder, i: &Insn) {
    b.call(i, |cpu: &mut Cpu, u: &Uop| {
        let (al, ah) = (cpu.regs.get::<u8>(AL), cpu.regs.get::<u8>(AH));
        cpu.regs.set(AH, 0u8);
        finish(cpu, al.wrapping_add(ah.wrapping_mul(u.imm as u8)), false, false);
        Ok(())
    });
}
