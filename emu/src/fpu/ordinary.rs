//! The commonest instructions in the ordinary case: all exceptions are masked, results are rounded to nearest, no
//! register is empty that should not be or the other way round, operands are normal numbers (or zero, where nothing
//! is computed). Little is left to decide then.
//!
//! Each function answers `None` in any other case; nothing has changed then, and [`Fpu::execute`] does it. What an
//! instruction computes is in [`super::arith`] and [`super::convert`], as there.

use super::round::{C1, CONTROL_ROUNDING, EXCEPTIONS};
use super::{CONDITION_CODES, Context, F80, Fpu, Kind, Operands, arith, convert};

/// The instruction with these low three bits of its opcode and this reg field has its ordinary case here.
pub(crate) const fn covers(opcode: u8, reg: u8, memory: bool) -> bool {
    match (memory, opcode, reg) {
        // FADD, FMUL, FCOM, FCOMP, FSUB, FSUBR
        (true, 0 | 2 | 4 | 6, _) | (false, 0 | 4 | 6, _) => reg < 6,
        // FLD, FST, FSTP, FLDCW, FNSTCW
        (true, 1, 0 | 2 | 3 | 5 | 7) | (true, 5, 0 | 2 | 3) => true,
        // FILD
        (true, 3 | 7, 0) | (true, 7, 5) => true,
        // FLD, FXCH, FCHS to FXAM, FLD1 to FLDZ
        (false, 1, 0 | 1 | 4 | 5) => true,
        // FST, FSTP, FUCOM, FUCOMP, FUCOMPP, FUCOMI, FCOMI, FUCOMIP, FCOMIP, FNSTSW
        (false, 5, 2..=5) | (false, 2, 5) | (false, 3, 5 | 6) | (false, 7, 4..=6) => true,
        _ => false,
    }
}

impl Fpu {
    /// As [`Fpu::execute`], for an instruction that [`covers`] says yes to, with `i` in its ModR/M byte's low three
    /// bits. [`Fpu::trace`] is the caller's, with what it gives.
    #[inline(always)]
    pub(crate) fn execute_ordinary<M: Operands, const OPCODE: u8, const REG: u8, const MEMORY: bool>(
        &mut self,
        i: u8,
        m: &mut M,
    ) -> Option<Kind> {
        if MEMORY {
            self.ordinary_memory::<M, OPCODE, REG>(m)
        } else {
            self.ordinary_register::<M, OPCODE, REG>(i, m)
        }
    }

    #[inline(always)]
    fn ordinary_memory<M: Operands, const OPCODE: u8, const REG: u8>(&mut self, m: &mut M) -> Option<Kind> {
        match (OPCODE, REG) {
            // FLDCW, FNSTCW
            (1, 5) => {
                self.set_control_word(u16::from_le_bytes(m.load().ok()?));
                return Some(Kind::Control);
            }
            (1, 7) => {
                m.store(self.control.to_le_bytes()).ok()?;
                return Some(Kind::Control);
            }
            (0, op) => {
                let operand = convert::from_ordinary_f32(m.load().ok()?)?;
                self.ordinary_arith(op, operand, 0, false)?;
            }
            (4, op) => {
                let operand = convert::from_ordinary_f64(m.load().ok()?)?;
                self.ordinary_arith(op, operand, 0, false)?;
            }
            (2, op) => {
                let operand = convert::from_i64(i32::from_le_bytes(m.load().ok()?).into());
                self.ordinary_arith(op, operand, 0, false)?;
            }
            (6, op) => {
                let operand = convert::from_i64(i16::from_le_bytes(m.load().ok()?).into());
                self.ordinary_arith(op, operand, 0, false)?;
            }
            (1, 0) => self.ordinary_push(convert::from_ordinary_f32(m.load().ok()?)?)?,
            (5, 0) => self.ordinary_push(convert::from_ordinary_f64(m.load().ok()?)?)?,
            (3, 0) => self.ordinary_push(convert::from_i64(i32::from_le_bytes(m.load().ok()?).into()))?,
            (7, 0) => self.ordinary_push(convert::from_i64(i16::from_le_bytes(m.load().ok()?).into()))?,
            (7, 5) => self.ordinary_push(convert::from_i64(i64::from_le_bytes(m.load().ok()?)))?,
            (1, op) => self.ordinary_store(m, op == 3, convert::to_ordinary_f32)?,
            (5, op) => self.ordinary_store(m, op == 3, convert::to_ordinary_f64)?,
            _ => return None,
        }
        Some(Kind::Operation)
    }

    #[inline(always)]
    fn ordinary_register<M: Operands, const OPCODE: u8, const REG: u8>(
        &mut self,
        i: u8,
        m: &mut M,
    ) -> Option<Kind> {
        match (OPCODE, REG) {
            // FNSTSW AX
            (7, 4) => {
                if i != 0 {
                    return None;
                }
                m.set_ax(self.status_word());
                return Some(Kind::Control);
            }
            // FADD FMUL FCOM FCOMP FSUB FSUBR; FCOMPP
            (0, op) => self.ordinary_arith(op, self.full(i)?, 0, false)?,
            (4, 2 | 3) => self.ordinary_arith(REG, self.full(i)?, 0, false)?,
            (6, 2) => self.ordinary_arith(3, self.full(i)?, 0, false)?,
            (6, 3) => {
                if i != 1 {
                    return None;
                }
                let (less, equal) = self.ordinary_compare(self.full(1)?)?;
                self.finish_ordinary_compare(less, equal, 2);
            }
            (4, op) => self.ordinary_arith(op, self.full(i)?, i, false)?,
            (6, op) => self.ordinary_arith(op, self.full(i)?, i, true)?,
            // FLD ST(i), FXCH, FST, FSTP
            (1, 0) => self.ordinary_push(self.full(i)?)?,
            (1, 1) => {
                self.ordinary_control()?;
                let (a, b) = (self.full(0)?, self.full(i)?);
                self.set_register(self.physical(0), b);
                self.set_register(self.physical(i), a);
                self.status &= !C1;
            }
            (5, 2 | 3) => {
                self.ordinary_control()?;
                let value = self.full(0)?;
                self.set_st(i, value);
                if REG == 3 {
                    self.pop();
                }
                self.status &= !C1;
            }
            // FCHS, FABS, FTST
            (1, 4) => match i {
                0 | 1 => {
                    self.ordinary_control()?;
                    let value = self.full(0)?;
                    let changed = if i == 0 { value.negated() } else { value.with_sign(false) };
                    self.set_register(self.physical(0), changed);
                    self.status &= !C1;
                }
                4 => {
                    let (less, equal) = self.ordinary_compare(F80::ZERO)?;
                    self.finish_ordinary_compare(less, equal, 0);
                }
                _ => return None,
            },
            // FLD1 to FLDZ
            (1, 5) => {
                if i == 7 {
                    return None;
                }
                self.ordinary_push(arith::nearest_constant(i))?;
            }
            // FUCOM, FUCOMP, FUCOMPP
            (5, 4 | 5) | (2, 5) => {
                if OPCODE == 2 && i != 1 {
                    return None;
                }
                let pops = match (OPCODE, REG) {
                    (5, pops) => pops - 4,
                    _ => 2,
                };
                let (less, equal) = self.ordinary_compare(self.full(i)?)?;
                self.finish_ordinary_compare(less, equal, pops);
            }
            // FUCOMI, FCOMI, FUCOMIP, FCOMIP, for which ordinary numbers are all the same; they leave C1 alone
            (3 | 7, 5 | 6) => {
                let (less, equal) = self.ordinary_compare(self.full(i)?)?;
                m.set_eflags(equal, false, less);
                if OPCODE == 7 {
                    self.pop();
                }
            }
            _ => return None,
        }
        Some(Kind::Operation)
    }

    /// The control word is as nearly all programs have it; what was raised before is not pending then.
    #[inline(always)]
    fn ordinary_control(&self) -> Option<Context> {
        (self.control & (EXCEPTIONS | CONTROL_ROUNDING) == EXCEPTIONS).then(|| self.context())
    }

    /// ST(i), if it is not empty.
    #[inline(always)]
    fn full(&self, i: u8) -> Option<F80> {
        (!self.is_empty(i)).then(|| self.st(i))
    }

    #[inline(always)]
    fn ordinary_push(&mut self, value: F80) -> Option<()> {
        self.ordinary_control()?;
        if !self.is_empty(7) {
            return None;
        }
        self.push(value);
        self.status &= !C1;
        Some(())
    }

    #[inline(always)]
    fn ordinary_store<M: Operands, const N: usize>(
        &mut self,
        m: &mut M,
        pop: bool,
        convert: impl FnOnce(&mut Context, F80) -> Option<[u8; N]>,
    ) -> Option<()> {
        let mut cx = self.ordinary_control()?;
        let bytes = convert(&mut cx, self.full(0)?)?;
        m.store(bytes).ok()?;
        if pop {
            self.pop();
        }
        self.status = self.status & !C1 | cx.flags;
        Some(())
    }

    /// The operation that ModR/M's reg field selects, with the result in ST(`destination`).
    #[inline(always)]
    fn ordinary_arith(&mut self, op: u8, other: F80, destination: u8, pop: bool) -> Option<()> {
        if matches!(op, 2 | 3) {
            let (less, equal) = self.ordinary_compare(other)?;
            self.finish_ordinary_compare(less, equal, op - 2);
            return Some(());
        }
        let mut cx = self.ordinary_control()?;
        let st0 = self.full(0)?;
        let value = match op {
            0 => arith::ordinary_add(&mut cx, st0, other),
            1 => arith::ordinary_mul(&mut cx, st0, other),
            4 => arith::ordinary_add(&mut cx, st0, other.negated()),
            5 => arith::ordinary_add(&mut cx, other, st0.negated()),
            _ => None,
        }?;
        self.set_register(self.physical(destination), value);
        if pop {
            self.pop();
        }
        self.status = self.status & !C1 | cx.flags;
        Some(())
    }

    /// Whether ST(0) is less than, and whether it equals, another number.
    #[inline(always)]
    fn ordinary_compare(&self, other: F80) -> Option<(bool, bool)> {
        self.ordinary_control()?;
        let st0 = self.full(0)?;
        let (a, b) = (arith::order(st0), arith::order(other));
        (st0.is_normal_or_zero() & other.is_normal_or_zero()).then_some((a < b, a == b))
    }

    #[inline(always)]
    fn finish_ordinary_compare(&mut self, less: bool, equal: bool, pops: u8) {
        for _ in 0..pops {
            self.pop();
        }
        let codes = arith::codes(less, equal);
        self.status = self.status & !CONDITION_CODES | codes;
    }
}

// Beside the tests against the host's x87, whose `World` it has.
#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::fpu::Insn;
    use crate::fpu::f80::{BIAS, INTEGER_BIT};
    use crate::fpu::tests::World;
    use crate::isa::lower::by_octal;
    use crate::state::FpuState;

    /// Numbers that are the same each time.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 ^ self.0 >> 29
        }

        /// Most often a number of a size that others are near, or else anything.
        fn value(&mut self) -> (u64, u16) {
            let (bits, sign) = (self.next(), (self.next() as u16) << 15);
            let exponent = BIAS as u16 - 70 + (self.next() % 140) as u16;
            match self.next() % 8 {
                0 => (0, sign),
                1 => (bits, self.next() as u16),
                2 => (INTEGER_BIT, sign | exponent),
                3 => (bits >> 40 << 40 | INTEGER_BIT, sign | exponent),
                _ => (bits | INTEGER_BIT, sign | exponent),
            }
        }

        fn unit(&mut self) -> Fpu {
            let status = self.next() as u16 & 0x7f3f;
            Fpu::from(&FpuState {
                regs: core::array::from_fn(|_| self.value()),
                empty: self.next() as u8 & self.next() as u8,
                control: [0x37f, 0x37f, 0x27f, 0x7f, 0xf7f, 0x35f][(self.next() % 6) as usize],
                status,
                ..FpuState::default()
            })
        }

        fn world(&mut self) -> World {
            let (significand, sign_exponent) = self.value();
            let exponent = u64::from(sign_exponent & 0x7fff).wrapping_sub(BIAS as u64);
            let sign = u64::from(sign_exponent >> 15);
            let memory = match self.next() % 4 {
                0 => self.next(),
                1 => 0,
                2 => sign << 63 | (exponent.wrapping_add(1023) & 0x7ff) << 52 | significand << 1 >> 12,
                _ => sign << 31 | (exponent.wrapping_add(127) & 0xff) << 23 | significand << 1 >> 41,
            };
            let mut world = World { memory: [0; _], ax: 0, flags: 0 };
            world.memory[..8].copy_from_slice(&memory.to_le_bytes());
            world
        }
    }

    /// Executes the instruction here and by [`Fpu::execute`], many times. Says in how many of 1,000 cases it is ordinary.
    fn compare<const OPCODE: u8, const REG: u8, const MEMORY: bool>() -> u32 {
        const CASES: u32 = if cfg!(miri) { 10 } else { 4000 };
        let mut numbers = Numbers((u64::from(OPCODE) << 4 | u64::from(REG)) << 1 | u64::from(MEMORY));
        let mut ordinary = 0;
        for _ in 0..CASES {
            let i = numbers.next() as u8 & 7;
            let modrm = if MEMORY { 0 } else { 0xc0 } | REG << 3 | i;
            let insn = Insn {
                opcode: 0xd8 + OPCODE,
                modrm,
                op32: true,
                protected: true,
                cs: 1,
                eip: 2,
                ds: 3,
                dp: 4,
            };
            let before = (numbers.unit(), numbers.world());
            let ((mut unit, mut world), (mut whole, mut whole_world)) = (before.clone(), before.clone());
            // Nobody asks while an exception is pending.
            if unit.pending() {
                continue;
            }
            match unit.execute_ordinary::<_, OPCODE, REG, MEMORY>(i, &mut world) {
                None => assert_eq!((unit, world), before, "{insn:x?}"),
                Some(kind) => {
                    ordinary += 1;
                    unit.trace::<MEMORY>(kind, &insn);
                    whole.execute(&insn, &mut whole_world).unwrap();
                    assert_eq!((unit, world), (whole, whole_world), "{insn:x?} {before:x?}");
                }
            }
        }
        ordinary * 1000 / CASES
    }

    #[test]
    fn ordinary_cases_end_as_all_others_do() {
        for opcode in 0..8 {
            for reg in 0..8 {
                for memory in [false, true] {
                    if !covers(opcode, reg, memory) {
                        continue;
                    }
                    let ordinary = by_octal!(opcode, OP => by_octal!(reg, REG => match memory {
                        false => compare::<OP, REG, false>(),
                        true => compare::<OP, REG, true>(),
                    }));
                    // FCOMPP, FUCOMPP and FNSTSW have one form each, among others that are none.
                    assert!(cfg!(miri) || ordinary > 10, "{opcode} {reg} {memory}: {ordinary}");
                }
            }
        }
    }
}
