//! Instructions of several kinds by one piece of code: what it computes is in their uops.
//!
//! To be one handler, instructions in a row need code for just that row. With an operation of its own for each
//! instruction that is possible for few rows; with these it is possible for all that are short. They cost no more than
//! an operation of its own for any registers does.

use super::mov::{Extend, Mov};
use super::operand::{DstMem, DstReg, FlatIndexed, SrcMem, SrcSum};
use super::stack::Push;
use crate::Cpu;
use crate::dispatch::{Flow, Op, Step, Uop};

/// A register from the sum of `base`, `index` and `disp`, without flags: moves, LEA, ADD, SUB, INC, DEC.
pub(crate) struct Sum;

impl Op for Sum {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        let registers = cpu.regs.get::<u32>(u.base).wrapping_add(cpu.regs.get(u.index));
        cpu.regs.set(u.dst, registers.wrapping_add(u.disp));
        Ok(Flow::Next)
    }
}

/// A register from 32 bits of memory.
pub(crate) type Load = Mov<u32, DstReg, SrcMem<FlatIndexed>>;

/// A register from a byte of memory and zeros.
pub(crate) type Byte = Extend<u32, u8, DstReg, SrcMem<FlatIndexed>, false>;

/// 32 bits of memory from a register or a constant.
pub(crate) type Store = Mov<u32, DstMem<FlatIndexed>, SrcSum>;

/// PUSH of a register or a constant, on a flat stack.
pub(crate) type Pushed = Push<SrcSum>;
