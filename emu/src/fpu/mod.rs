//! The x87 floating-point unit, bit for bit (SDM volume 1, chapter 8; AMD64 manual volume 5).
//!
//! [`Fpu::execute`] runs one instruction. The arithmetic beneath it ([`arith`], [`convert`],
//! [`transcendental`]) knows neither stack nor memory: each operation takes a [`Context`], which
//! holds the control word and collects exceptions, and gives a value. Whether an unmasked exception
//! keeps that value from its register is decided here. Nothing is written before memory has been
//! accessed, so that a page fault leaves the unit as it was. `ordinary` is a shorter way for the
//! commonest instructions while all exceptions are masked.

pub mod arith;
pub mod convert;
mod environment;
pub mod f80;
pub(crate) mod ordinary;
pub mod round;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
pub mod transcendental;
mod wide;

use crate::exception::{Exception, Result};
use crate::state::FpuState;
use arith::Comparison;
pub use f80::F80;
pub use round::Context;
use round::{C0, C1, C2, C3, ES, IE, SF};

const TOP_SHIFT: u32 = 11;
const CONDITION_CODES: u16 = C0 | C1 | C2 | C3;

/// EFLAGS bits that FCMOVcc tests.
const CF: u32 = 0x01;
const PF: u32 = 0x04;
const ZF: u32 = 0x40;

/// One instruction as the decoder found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// The first opcode byte, D8h to DFh.
    pub opcode: u8,
    /// The ModR/M byte.
    pub modrm: u8,
    /// 32-bit operand size: decides the environment's layout.
    pub op32: bool,
    /// Protected mode and not virtual-8086: decides the environment's layout.
    pub protected: bool,
    /// Selector of the code segment, for the instruction pointer.
    pub cs: u16,
    /// Offset of the instruction's first byte (prefixes included).
    pub eip: u32,
    /// Selector of the memory operand's segment, for the data pointer.
    pub ds: u16,
    /// Effective address of the memory operand.
    pub dp: u32,
}

/// What an instruction touches outside the unit.
///
/// `load` and `store` act on the instruction's memory operand and may fault. Each instruction calls
/// at most one of them, once.
pub trait Operands {
    /// Reads the memory operand.
    fn load<const N: usize>(&mut self) -> Result<[u8; N]>;
    /// Writes the memory operand, wholly or not at all.
    fn store<const N: usize>(&mut self, bytes: [u8; N]) -> Result<()>;
    /// Raises what writing the memory operand would raise.
    fn probe_store<const N: usize>(&mut self) -> Result<()>;
    /// Writes AX.
    fn set_ax(&mut self, value: u16);
    /// EFLAGS, of which CF, PF and ZF matter.
    fn eflags(&self) -> u32;
    /// Sets ZF, PF and CF and clears OF, SF and AF, as FCOMI does.
    fn set_eflags(&mut self, zf: bool, pf: bool, cf: bool);
}

/// How an instruction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is complete and the unit is ready for the next.
    Done,
    /// It raised an unmasked exception: FERR# goes active now, and with CR0.NE set the next waiting
    /// instruction takes #MF.
    Pending,
}

/// Whether an instruction leaves its traces in the instruction and data pointers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It manages the unit: the pointers stay.
    Control,
    /// It computes or moves values.
    Operation,
}

/// The encoding means something; all others are #UD, whatever waits.
pub const fn is_valid(opcode: u8, modrm: u8) -> bool {
    match (opcode, modrm) {
        (0xd9, 0..0xc0) => modrm >> 3 & 7 != 1,
        (0xdb, 0..0xc0) => !matches!(modrm >> 3 & 7, 4 | 6),
        (0xdd, 0..0xc0) => modrm >> 3 & 7 != 5,
        (0xd9, _) => !matches!(modrm, 0xd1..=0xd7 | 0xe2 | 0xe3 | 0xe6 | 0xe7 | 0xef),
        (0xda, 0xe0..) => modrm == 0xe9,
        (0xdb, _) => !matches!(modrm, 0xe5..=0xe7 | 0xf8..),
        (0xdd, _) => modrm < 0xf0,
        (0xde, 0xd8..=0xdf) => modrm == 0xd9,
        (0xdf, _) => !matches!(modrm, 0xe1..=0xe7 | 0xf8..),
        _ => true,
    }
}

/// The instruction waits for (and is interrupted by) pending exceptions: all but the FN forms.
pub const fn is_waiting(opcode: u8, modrm: u8) -> bool {
    let reg = modrm >> 3 & 7;
    match (opcode, modrm) {
        // FNSTENV and FNSTCW; FNSAVE and FNSTSW.
        (0xd9 | 0xdd, 0..0xc0) => reg != 6 && reg != 7,
        // FNENI, FNDISI, FNCLEX, FNINIT, FNSETPM; FNSTSW AX.
        (0xdb, 0xe0..=0xe4) | (0xdf, 0xe0) => false,
        _ => true,
    }
}

/// The x87 unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fpu {
    /// Physical registers, not in stack order: significands, which are also the MMX registers.
    significands: [u64; 8],
    /// Their signs and exponents. Two arrays, because a value that is written in two parts and read
    /// back at once as 16 bytes would stall the host's store forwarding.
    sign_exponents: [u16; 8],
    /// Bit i set: physical register i is empty.
    empty: u8,
    /// Physical register that is ST(0), 0 to 7.
    top: u8,
    control: u16,
    /// Status word without TOP.
    status: u16,
    ip: u32,
    cs: u16,
    dp: u32,
    ds: u16,
    opcode: u16,
}

impl Default for Fpu {
    /// The state after FNINIT.
    fn default() -> Self {
        Self::from(&FpuState::default())
    }
}

impl From<&FpuState> for Fpu {
    fn from(state: &FpuState) -> Self {
        let mut fpu = Self {
            significands: state.regs.map(|(significand, _)| significand),
            sign_exponents: state.regs.map(|(_, sign_exponent)| sign_exponent),
            empty: state.empty,
            top: 0,
            control: state.control,
            status: 0,
            ip: state.ip,
            cs: state.cs,
            dp: state.dp,
            ds: state.ds,
            opcode: state.opcode & 0x7ff,
        };
        fpu.set_status_word(state.status);
        fpu
    }
}

impl From<&Fpu> for FpuState {
    fn from(fpu: &Fpu) -> Self {
        Self {
            regs: core::array::from_fn(|i| (fpu.significands[i], fpu.sign_exponents[i])),
            empty: fpu.empty,
            control: fpu.control,
            status: fpu.status_word(),
            ip: fpu.ip,
            cs: fpu.cs,
            dp: fpu.dp,
            ds: fpu.ds,
            opcode: fpu.opcode,
        }
    }
}

impl Fpu {
    /// An unmasked exception waits for the next waiting instruction.
    #[inline]
    pub fn pending(&self) -> bool {
        self.status & ES != 0
    }

    /// Executes one instruction. Checks for CR0.EM, CR0.TS and [`Fpu::pending`] are the caller's.
    ///
    /// # Errors
    /// What the memory operand raises, and #UD for encodings that mean nothing. The unit is then as
    /// it was.
    #[inline]
    pub fn execute<M: Operands>(&mut self, insn: &Insn, m: &mut M) -> Result<Outcome> {
        if insn.modrm < 0xc0 {
            self.execute_form::<M, true>(insn, m)
        } else {
            self.execute_form::<M, false>(insn, m)
        }
    }

    /// As [`Fpu::execute`], for a caller that knows whether the operand is in `MEMORY`. All of it is
    /// inlined, so that little is left where the instruction is known.
    #[inline(always)]
    pub(crate) fn execute_form<M: Operands, const MEMORY: bool>(
        &mut self,
        insn: &Insn,
        m: &mut M,
    ) -> Result<Outcome> {
        let was_pending = self.pending();
        let kind = if MEMORY { self.execute_memory(insn, m)? } else { self.execute_register(insn, m)? };
        self.trace::<MEMORY>(kind, insn);
        Ok(if self.pending() && !was_pending { Outcome::Pending } else { Outcome::Done })
    }

    /// What an instruction leaves in the instruction and data pointers.
    #[inline(always)]
    pub(crate) fn trace<const MEMORY: bool>(&mut self, kind: Kind, insn: &Insn) {
        if kind == Kind::Control {
            return;
        }
        if MEMORY {
            (self.ds, self.dp) = (insn.ds, insn.dp);
        }
        (self.cs, self.ip) = (insn.cs, insn.eip);
        self.opcode = u16::from(insn.opcode & 7) << 8 | u16::from(insn.modrm);
    }

    /// Instructions with a memory operand: opcode by ModR/M's reg field.
    #[inline(always)]
    fn execute_memory<M: Operands>(&mut self, insn: &Insn, m: &mut M) -> Result<Kind> {
        let mut cx = self.context();
        match (insn.opcode & 7, insn.modrm >> 3 & 7) {
            // FADD FMUL FCOM FCOMP FSUB FSUBR FDIV FDIVR, on four operand types
            (0, op) => {
                let operand = convert::from_f32(&mut cx, m.load()?);
                self.arith_memory(cx, op, operand);
            }
            (4, op) => {
                let operand = convert::from_f64(&mut cx, m.load()?);
                self.arith_memory(cx, op, operand);
            }
            (2, op) => {
                let operand = convert::from_i64(i32::from_le_bytes(m.load()?).into());
                self.arith_memory(cx, op, operand);
            }
            (6, op) => {
                let operand = convert::from_i64(i16::from_le_bytes(m.load()?).into());
                self.arith_memory(cx, op, operand);
            }
            // FLD m32, m64, m80; FILD m16, m32, m64; FBLD
            (1, 0) => {
                let bytes = m.load()?;
                self.push_with(cx, |cx| {
                    let value = convert::from_f32(cx, bytes);
                    convert::load_checks(cx, value)
                });
            }
            (5, 0) => {
                let bytes = m.load()?;
                self.push_with(cx, |cx| {
                    let value = convert::from_f64(cx, bytes);
                    convert::load_checks(cx, value)
                });
            }
            (3, 5) => {
                let value = F80::from_bytes(m.load()?);
                self.push_with(cx, |_| value);
            }
            (7, 0) => {
                let value = convert::from_i64(i16::from_le_bytes(m.load()?).into());
                self.push_with(cx, |_| value);
            }
            (3, 0) => {
                let value = convert::from_i64(i32::from_le_bytes(m.load()?).into());
                self.push_with(cx, |_| value);
            }
            (7, 5) => {
                let value = convert::from_i64(i64::from_le_bytes(m.load()?));
                self.push_with(cx, |_| value);
            }
            (7, 4) => {
                let value = convert::from_decimal(m.load()?);
                self.push_with(cx, |_| value);
            }
            // FST m32, m64; FSTP m32, m64, m80; FBSTP
            (1, op @ (2 | 3)) => self.store_with(m, op == 3, convert::to_f32)?,
            (5, op @ (2 | 3)) => self.store_with(m, op == 3, convert::to_f64)?,
            (3, 7) => self.store_with(m, true, |_, value| value.to_bytes())?,
            (7, 6) => self.store_with(m, true, convert::to_decimal)?,
            // FIST, FISTP and FISTTP of 16, 32 and 64 bits
            (7, op @ (2 | 3)) => self.store_with(m, op == 3, |cx, value| {
                (convert::to_integer(cx, value, 16) as i16).to_le_bytes()
            })?,
            (3, op @ (2 | 3)) => self.store_with(m, op == 3, |cx, value| {
                (convert::to_integer(cx, value, 32) as i32).to_le_bytes()
            })?,
            (7, 7) => {
                self.store_with(m, true, |cx, value| convert::to_integer(cx, value, 64).to_le_bytes())?
            }
            (7, 1) => self.store_with(m, true, |cx, value| {
                (convert::to_integer_truncated(cx, value, 16) as i16).to_le_bytes()
            })?,
            (3, 1) => self.store_with(m, true, |cx, value| {
                (convert::to_integer_truncated(cx, value, 32) as i32).to_le_bytes()
            })?,
            (5, 1) => self.store_with(m, true, |cx, value| {
                convert::to_integer_truncated(cx, value, 64).to_le_bytes()
            })?,
            _ => {
                self.control_memory(insn, m)?;
                return Ok(Kind::Control);
            }
        }
        Ok(Kind::Operation)
    }

    /// Control instructions with a memory operand.
    #[inline(never)]
    fn control_memory<M: Operands>(&mut self, insn: &Insn, m: &mut M) -> Result<()> {
        match (insn.opcode & 7, insn.modrm >> 3 & 7) {
            // FLDENV, FLDCW, FNSTENV, FNSTCW
            (1, 4) if insn.op32 => {
                let image: [u8; environment::ENVIRONMENT_32] = m.load()?;
                self.load_environment32(insn, &image);
            }
            (1, 4) => {
                let image: [u8; environment::ENVIRONMENT_16] = m.load()?;
                self.load_environment16(insn, &image);
            }
            (1, 5) => self.set_control_word(u16::from_le_bytes(m.load()?)),
            (1, 6) => {
                if insn.op32 {
                    m.store(self.environment32(insn))?;
                } else {
                    m.store(self.environment16(insn))?;
                }
                self.set_control_word(self.control | round::EXCEPTIONS);
            }
            (1, 7) => m.store(self.control.to_le_bytes())?,
            // FRSTOR, FNSAVE, FNSTSW
            (5, 4) if insn.op32 => {
                let image: [u8; environment::SAVE_32] = m.load()?;
                self.load_environment32(insn, &image);
                self.load_stack(&image[environment::ENVIRONMENT_32..]);
            }
            (5, 4) => {
                let image: [u8; environment::SAVE_16] = m.load()?;
                self.load_environment16(insn, &image);
                self.load_stack(&image[environment::ENVIRONMENT_16..]);
            }
            (5, 6) => {
                if insn.op32 {
                    let mut image = [0; environment::SAVE_32];
                    let (environment, stack) = image.split_at_mut(environment::ENVIRONMENT_32);
                    environment.copy_from_slice(&self.environment32(insn));
                    self.stack_image(stack);
                    m.store(image)?;
                } else {
                    let mut image = [0; environment::SAVE_16];
                    let (environment, stack) = image.split_at_mut(environment::ENVIRONMENT_16);
                    environment.copy_from_slice(&self.environment16(insn));
                    self.stack_image(stack);
                    m.store(image)?;
                }
                self.init();
            }
            (5, 7) => m.store(self.status_word().to_le_bytes())?,
            _ => return Err(Exception::INVALID_OPCODE),
        }
        Ok(())
    }

    /// Instructions with register operands.
    #[inline(always)]
    fn execute_register<M: Operands>(&mut self, insn: &Insn, m: &mut M) -> Result<Kind> {
        let i = insn.modrm & 7;
        match (insn.opcode & 7, insn.modrm >> 3 & 7) {
            // FCOM, FCOMP and their aliases
            (0 | 4, 2) => self.compare_register(i, false, 0),
            (0 | 4, 3) | (6, 2) => self.compare_register(i, false, 1),
            // FADD FMUL FSUB FSUBR FDIV FDIVR to ST(0), to ST(i), and popping
            (0, op) => self.arith_register(op, i, 0, false),
            (4, op) => self.arith_register(op, i, i, false),
            (6, op) if op != 3 => self.arith_register(op, i, i, true),
            // FCOMPP
            (6, 3) if i == 1 => self.compare_register(1, false, 2),
            // FLD ST(i), FXCH and its aliases, FST, FSTP and their aliases
            (1, 0) => self.load_register(i),
            (1 | 5 | 7, 1) => self.exchange(i),
            (5, 2) => self.store_register(i, false),
            (5, 3) | (7, 2 | 3) => self.store_register(i, true),
            // FSTPNCE: FSTP that does not mind an empty ST(0)
            (1, 3) if self.is_empty(0) => {
                self.pop();
                self.status &= !C1;
            }
            (1, 3) => self.store_register(i, true),
            // FNOP
            (1, 2) if i == 0 => {}
            (1, 4..) => self.one_operand(insn.modrm)?,
            // FCMOVcc, and with the opposite condition
            (op @ (2 | 3), condition @ 0..=3) => {
                let mask = [CF, ZF, CF | ZF, PF][usize::from(condition)];
                let met = m.eflags() & mask != 0;
                self.conditional_move(i, met == (op == 2));
            }
            // FUCOM, FUCOMP, FUCOMPP
            (5, 4) => self.compare_register(i, true, 0),
            (5, 5) => self.compare_register(i, true, 1),
            (2, 5) if i == 1 => self.compare_register(1, true, 2),
            // FUCOMI, FCOMI, FUCOMIP, FCOMIP
            (op @ (3 | 7), test @ (5 | 6)) => self.compare_to_eflags(m, i, test == 5, op == 7),
            // FFREE, FFREEP
            (op @ (5 | 7), 0) => {
                self.empty |= 1 << self.physical(i);
                if op == 7 {
                    self.pop();
                }
                self.status &= !C1;
            }
            _ => return self.control_register(insn, m),
        }
        Ok(Kind::Operation)
    }

    /// Control instructions without a memory operand.
    #[inline(always)]
    fn control_register<M: Operands>(&mut self, insn: &Insn, m: &mut M) -> Result<Kind> {
        match (insn.opcode, insn.modrm) {
            // FNENI, FNDISI and FNSETPM meant something to the 8087 and the 287.
            (0xdb, 0xe0 | 0xe1 | 0xe4) => {}
            // FNCLEX
            (0xdb, 0xe2) => {
                self.status &= CONDITION_CODES;
            }
            // FNINIT
            (0xdb, 0xe3) => self.init(),
            // FNSTSW AX
            (0xdf, 0xe0) => m.set_ax(self.status_word()),
            _ => return Err(Exception::INVALID_OPCODE),
        }
        Ok(Kind::Control)
    }

    /// FNINIT; the registers keep what they hold.
    #[inline(never)]
    fn init(&mut self) {
        let (significands, sign_exponents) = (self.significands, self.sign_exponents);
        *self = Self { significands, sign_exponents, ..Self::default() };
    }

    #[inline]
    fn context(&self) -> Context {
        Context::new(self.control)
    }

    /// The index of ST(i) among the physical registers.
    #[inline]
    fn physical(&self, i: u8) -> usize {
        usize::from(self.top.wrapping_add(i) & 7)
    }

    /// A physical register.
    #[inline]
    fn register(&self, i: usize) -> F80 {
        F80 { significand: self.significands[i & 7], sign_exponent: self.sign_exponents[i & 7] }
    }

    #[inline]
    fn set_register(&mut self, i: usize, value: F80) {
        self.significands[i & 7] = value.significand;
        self.sign_exponents[i & 7] = value.sign_exponent;
    }

    #[inline]
    fn st(&self, i: u8) -> F80 {
        self.register(self.physical(i))
    }

    #[inline]
    fn is_empty(&self, i: u8) -> bool {
        self.empty >> self.physical(i) & 1 != 0
    }

    #[inline]
    fn set_st(&mut self, i: u8, value: F80) {
        let physical = self.physical(i);
        self.set_register(physical, value);
        self.empty &= !(1 << physical);
    }

    #[inline]
    fn pop(&mut self) {
        self.empty |= 1 << self.physical(0);
        self.top = self.top.wrapping_add(1) & 7;
    }

    #[inline]
    fn push(&mut self, value: F80) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.set_st(0, value);
    }

    /// Puts what an operation raised and determined into the status word.
    #[inline]
    fn finish(&mut self, cx: &Context) {
        self.status = self.status & !cx.determined | cx.flags;
        if cx.unmasked() != 0 {
            self.update_summary();
        }
    }

    /// Raises stack underflow if one of the registers is empty.
    #[inline]
    fn check_underflow(&self, cx: &mut Context, registers: &[u8]) -> bool {
        let underflow = registers.iter().any(|&i| self.is_empty(i));
        if underflow {
            cx.raise(IE | SF);
        }
        underflow
    }

    /// As [`Fpu::check_underflow`] for FCMOVcc and FCOMI, which leave C1 alone but for an underflow.
    fn check_underflow_only(&self, cx: &mut Context, registers: &[u8]) -> bool {
        let underflow = self.check_underflow(cx, registers);
        if !underflow {
            cx.determined = 0;
        }
        underflow
    }

    /// Pushes a value that is computed if there is room for it.
    #[inline]
    fn push_with(&mut self, mut cx: Context, value: impl FnOnce(&mut Context) -> F80) {
        let value = if self.is_empty(7) {
            value(&mut cx)
        } else {
            cx.raise(IE | SF | C1);
            F80::INDEFINITE
        };
        // A denormal is loaded even if that is unmasked.
        if cx.unmasked() & IE == 0 {
            self.push(value);
        }
        self.finish(&cx);
    }

    /// Stores ST(0), converted, in memory.
    #[inline]
    fn store_with<M: Operands, const N: usize>(
        &mut self,
        m: &mut M,
        pop: bool,
        convert: impl FnOnce(&mut Context, F80) -> [u8; N],
    ) -> Result<()> {
        let mut cx = self.context();
        let value = if self.check_underflow(&mut cx, &[0]) { F80::INDEFINITE } else { self.st(0) };
        let bytes = convert(&mut cx, value);
        if !cx.store_blocked() {
            m.store(bytes)?;
            if pop {
                self.pop();
            }
        } else {
            m.probe_store::<N>()?;
        }
        self.finish(&cx);
        Ok(())
    }

    #[inline(always)]
    fn arith_memory(&mut self, mut cx: Context, op: u8, operand: F80) {
        let underflow = self.check_underflow(&mut cx, &[0]);
        if matches!(op, 2 | 3) {
            let result = match underflow {
                true => Comparison::Unordered,
                false => arith::compare(&mut cx, self.st(0), operand, false),
            };
            self.finish_compare(cx, result, op - 2);
            return;
        }
        let value = match underflow {
            true => F80::INDEFINITE,
            false => operate(&mut cx, op, self.st(0), operand),
        };
        if !cx.blocked() {
            self.set_st(0, value);
        }
        self.finish(&cx);
    }

    #[inline(always)]
    fn arith_register(&mut self, op: u8, i: u8, destination: u8, pop: bool) {
        let mut cx = self.context();
        let value = match self.check_underflow(&mut cx, &[0, i]) {
            true => F80::INDEFINITE,
            false => operate(&mut cx, op, self.st(0), self.st(i)),
        };
        if !cx.blocked() {
            self.set_st(destination, value);
            if pop {
                self.pop();
            }
        }
        self.finish(&cx);
    }

    #[inline(always)]
    fn compare_register(&mut self, i: u8, quiet: bool, pops: u8) {
        let mut cx = self.context();
        let result = match self.check_underflow(&mut cx, &[0, i]) {
            true => Comparison::Unordered,
            false => arith::compare(&mut cx, self.st(0), self.st(i), quiet),
        };
        self.finish_compare(cx, result, pops);
    }

    #[inline(always)]
    fn finish_compare(&mut self, mut cx: Context, result: Comparison, pops: u8) {
        if !cx.blocked() {
            for _ in 0..pops {
                self.pop();
            }
        }
        cx.determine(CONDITION_CODES, result.codes());
        self.finish(&cx);
    }

    #[inline(always)]
    fn compare_to_eflags<M: Operands>(&mut self, m: &mut M, i: u8, quiet: bool, pop: bool) {
        let mut cx = self.context();
        let result = match self.check_underflow_only(&mut cx, &[0, i]) {
            true => Comparison::Unordered,
            false => arith::compare(&mut cx, self.st(0), self.st(i), quiet),
        };
        let codes = result.codes();
        m.set_eflags(codes & C3 != 0, codes & C2 != 0, codes & C0 != 0);
        if pop && !cx.blocked() {
            self.pop();
        }
        self.finish(&cx);
    }

    fn load_register(&mut self, i: u8) {
        let mut cx = self.context();
        if !self.check_underflow(&mut cx, &[i]) {
            let value = self.st(i);
            return self.push_with(cx, |_| value);
        }
        if !cx.blocked() {
            self.push(F80::INDEFINITE);
        }
        self.finish(&cx);
    }

    fn store_register(&mut self, i: u8, pop: bool) {
        let mut cx = self.context();
        let value = if self.check_underflow(&mut cx, &[0]) { F80::INDEFINITE } else { self.st(0) };
        if !cx.blocked() {
            self.set_st(i, value);
            if pop {
                self.pop();
            }
        }
        self.finish(&cx);
    }

    fn exchange(&mut self, i: u8) {
        let mut cx = self.context();
        self.check_underflow(&mut cx, &[0, i]);
        if !cx.blocked() {
            let [a, b] = [0, i].map(|i| if self.is_empty(i) { F80::INDEFINITE } else { self.st(i) });
            self.set_st(0, b);
            self.set_st(i, a);
        }
        self.finish(&cx);
    }

    fn conditional_move(&mut self, i: u8, condition: bool) {
        let mut cx = self.context();
        let underflow = self.check_underflow_only(&mut cx, &[0, i]);
        if !cx.blocked() {
            if underflow {
                self.set_st(0, F80::INDEFINITE);
            } else if condition {
                self.set_st(0, self.st(i));
            }
        }
        self.finish(&cx);
    }

    /// D9 E0 to D9 FF: instructions on ST(0), and on ST(0) and ST(1).
    fn one_operand(&mut self, modrm: u8) -> Result<()> {
        let mut cx = self.context();
        match modrm {
            // FCHS, FABS
            0xe0 => self.unary(|_, value| value.negated()),
            0xe1 => self.unary(|_, value| value.with_sign(false)),
            // FTST
            0xe4 => {
                let result = match self.check_underflow(&mut cx, &[0]) {
                    true => Comparison::Unordered,
                    false => arith::compare(&mut cx, self.st(0), F80::ZERO, false),
                };
                self.finish_compare(cx, result, 0);
            }
            // FXAM
            0xe5 => {
                cx.determine(CONDITION_CODES, arith::examine(self.st(0), self.is_empty(0)));
                self.finish(&cx);
            }
            // FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ
            0xe8..=0xee => {
                let value = arith::constant(&cx, modrm & 7);
                self.push_with(cx, |_| value);
            }
            // F2XM1, FYL2X, FPTAN, FPATAN, FXTRACT
            0xf0 => self.unary(transcendental::exp2_minus_1),
            0xf1 => self.binary_popping(transcendental::y_log2_x),
            0xf2 => self.angle_and_push(transcendental::tan),
            0xf3 => self.binary_popping(transcendental::atan),
            0xf4 => self.replace_and_push(cx, |cx, x| Some(arith::extract(cx, x))),
            // FPREM1, FPREM
            0xf5 | 0xf8 => {
                self.status &= !C2;
                self.binary(|cx, a, b| arith::remainder(cx, a, b, modrm == 0xf5));
            }
            // FDECSTP, FINCSTP
            0xf6 => {
                self.top = self.top.wrapping_sub(1) & 7;
                self.finish(&cx);
            }
            0xf7 => {
                self.top = self.top.wrapping_add(1) & 7;
                self.finish(&cx);
            }
            // FYL2XP1, FSQRT, FSINCOS, FRNDINT, FSCALE, FSIN, FCOS
            0xf9 => self.binary_popping(transcendental::y_log2_x_plus_1),
            0xfa => self.unary(arith::sqrt),
            0xfb => self.angle_and_push(transcendental::sin_cos),
            0xfc => self.unary(arith::round_to_integer),
            0xfd => self.binary(arith::scale),
            0xfe => self.angle(transcendental::sin),
            0xff => self.angle(transcendental::cos),
            _ => return Err(Exception::INVALID_OPCODE),
        }
        Ok(())
    }

    /// ST(0) := operation(ST(0)).
    fn unary(&mut self, operation: impl FnOnce(&mut Context, F80) -> F80) {
        let mut cx = self.context();
        let value = match self.check_underflow(&mut cx, &[0]) {
            true => F80::INDEFINITE,
            false => operation(&mut cx, self.st(0)),
        };
        if !cx.blocked() {
            self.set_st(0, value);
        }
        self.finish(&cx);
    }

    /// ST(0) := operation(ST(0), ST(1)).
    fn binary(&mut self, operation: impl FnOnce(&mut Context, F80, F80) -> F80) {
        let mut cx = self.context();
        let value = match self.check_underflow(&mut cx, &[0, 1]) {
            true => F80::INDEFINITE,
            false => operation(&mut cx, self.st(0), self.st(1)),
        };
        if !cx.blocked() {
            self.set_st(0, value);
        }
        self.finish(&cx);
    }

    /// ST(1) := operation(ST(1), ST(0)), and pops.
    fn binary_popping(&mut self, operation: impl FnOnce(&mut Context, F80, F80) -> F80) {
        let mut cx = self.context();
        let value = match self.check_underflow(&mut cx, &[0, 1]) {
            true => F80::INDEFINITE,
            false => operation(&mut cx, self.st(1), self.st(0)),
        };
        if !cx.blocked() {
            self.set_st(1, value);
            self.pop();
        }
        self.finish(&cx);
    }

    /// FSIN and FCOS. `None` from the operation is an argument out of range: C2 is set, no more.
    fn angle(&mut self, operation: impl FnOnce(&mut Context, F80) -> Option<F80>) {
        let mut cx = self.context();
        cx.determine(C2, 0);
        let value = match self.check_underflow(&mut cx, &[0]) {
            true => Some(F80::INDEFINITE),
            false => operation(&mut cx, self.st(0)),
        };
        match value {
            None => cx.determine(C2, C2),
            Some(value) if !cx.blocked() => self.set_st(0, value),
            Some(_) => {}
        }
        self.finish(&cx);
    }

    /// FPTAN and FSINCOS: as [`Fpu::angle`], with a second result.
    fn angle_and_push(&mut self, operation: impl FnOnce(&mut Context, F80) -> Option<(F80, F80)>) {
        let mut cx = self.context();
        cx.determine(C2, 0);
        self.replace_and_push(cx, operation);
    }

    /// Replaces ST(0) by the first result and pushes the second; or sets C2 if there is none.
    fn replace_and_push(
        &mut self,
        mut cx: Context,
        operation: impl FnOnce(&mut Context, F80) -> Option<(F80, F80)>,
    ) {
        let results = if self.check_underflow(&mut cx, &[0]) {
            Some((F80::INDEFINITE, F80::INDEFINITE))
        } else if self.is_empty(7) {
            operation(&mut cx, self.st(0))
        } else {
            cx.raise(IE | SF | C1);
            Some((F80::INDEFINITE, F80::INDEFINITE))
        };
        match results {
            None => cx.determine(C2, C2),
            Some((first, second)) if !cx.blocked() => {
                self.set_st(0, first);
                self.push(second);
            }
            Some(_) => {}
        }
        self.finish(&cx);
    }

    /// What every MMX instruction but EMMS does to the unit: TOP is 0, all registers are valid.
    #[inline]
    pub fn enter_mmx(&mut self) {
        self.top = 0;
        self.empty = 0;
    }

    /// MMX register `i`. The instruction that reads it also calls [`Fpu::enter_mmx`].
    #[inline]
    pub fn mmx(&self, i: u8) -> u64 {
        self.significands[usize::from(i & 7)]
    }

    /// Writes MMX register `i`, whose exponent and sign become ones.
    #[inline]
    pub fn set_mmx(&mut self, i: u8, value: u64) {
        self.enter_mmx();
        self.set_register(usize::from(i), F80 { significand: value, sign_exponent: 0xffff });
    }

    /// EMMS: TOP is 0, all registers are empty.
    #[inline]
    pub fn emms(&mut self) {
        self.top = 0;
        self.empty = 0xff;
    }
}

/// The arithmetic instruction that ModR/M's reg field selects, for ST(0) and another operand.
#[inline(always)]
fn operate(cx: &mut Context, op: u8, st0: F80, other: F80) -> F80 {
    match op {
        0 => arith::add(cx, st0, other),
        1 => arith::mul(cx, st0, other),
        4 => arith::sub(cx, st0, other),
        5 => arith::sub(cx, other, st0),
        6 => arith::div(cx, st0, other),
        _ => arith::div(cx, other, st0),
    }
}
