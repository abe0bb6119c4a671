//! The stack as far transfers and interrupts use it: several values that all fit or none.

use super::{Cpu, SegName};
use crate::Segment;
use crate::cpu::mode;
use crate::cpu::regs::{Int, gpr};
use crate::exception::{Exception, Result};
use crate::mmu::walk::Access;

/// A stack pointer that has moved but is not yet in (E)SP.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    segment: Segment,
    pub sp: u32,
    mask: u32,
    /// Accesses have user privilege.
    user: bool,
    /// What a limit violation raises.
    pub error: Exception,
}

impl Stack {
    pub fn new(segment: Segment, sp: u32, cpl: u8, error: Exception) -> Self {
        let mask = if segment.big { u32::MAX } else { 0xffff };
        Self { segment, sp, mask, user: cpl == 3, error }
    }

    fn linear(&self, offset: u32, bytes: u32) -> Result<u32> {
        let s = &self.segment;
        let last = u64::from(offset) + u64::from(bytes) - 1;
        // On the way out of virtual-8086 mode this is the handler's segment; its own never expands down.
        let inside = if s.access & 0x0c == 0x04 {
            offset > s.limit && last <= self.mask.into()
        } else {
            last <= s.limit.into()
        };
        if inside { Ok(s.base.wrapping_add(offset)) } else { Err(self.error) }
    }

    pub fn push<T: Int>(&mut self, cpu: &mut Cpu, v: T) -> Result<()> {
        self.push_low(cpu, v, T::BYTES)
    }

    /// Makes room for `bytes` bytes and writes `v` to the first of them.
    pub fn push_low<T: Int>(&mut self, cpu: &mut Cpu, v: T, bytes: u32) -> Result<()> {
        let sp = self.sp.wrapping_sub(bytes) & self.mask;
        let at = self.linear(sp, T::BYTES)?;
        if self.user {
            cpu.write(at, v)?
        } else {
            cpu.write_system(at, v)?
        }
        self.sp = (self.sp & !self.mask) | sp;
        Ok(())
    }

    /// The fault that pushing `bytes` bytes would raise.
    pub fn probe_push(&self, cpu: &mut Cpu, bytes: u32) -> Result<()> {
        let at = self.linear(self.sp.wrapping_sub(bytes) & self.mask, bytes)?;
        cpu.probe(at, bytes, Access { write: true, user: self.user })
    }

    pub fn pop<T: Int>(&mut self, cpu: &mut Cpu) -> Result<T> {
        let at = self.linear(self.sp & self.mask, T::BYTES)?;
        let v = if self.user { cpu.read(at)? } else { cpu.read_system(at)? };
        self.skip(T::BYTES);
        Ok(v)
    }

    /// Reads the first of `bytes` bytes and removes all.
    pub fn pop_low<T: Int>(&mut self, cpu: &mut Cpu, bytes: u32) -> Result<T> {
        let before = *self;
        let v = self.pop(cpu)?;
        *self = before;
        self.skip(bytes);
        Ok(v)
    }

    /// Pushes at an operand size given at run time; a 16-bit push takes the low half.
    pub fn push_sized(&mut self, cpu: &mut Cpu, v: u32, wide: bool) -> Result<()> {
        if wide { self.push(cpu, v) } else { self.push(cpu, v as u16) }
    }

    /// Pops at an operand size given at run time, zero-extended.
    pub fn pop_sized(&mut self, cpu: &mut Cpu, wide: bool) -> Result<u32> {
        if wide { self.pop::<u32>(cpu) } else { self.pop::<u16>(cpu).map(u32::from) }
    }

    /// The pointer as an offset in the stack segment.
    pub fn offset(&self) -> u32 {
        self.sp & self.mask
    }

    /// Moves past `bytes` bytes.
    pub fn skip(&mut self, bytes: u32) {
        self.sp = (self.sp & !self.mask) | (self.sp.wrapping_add(bytes) & self.mask);
    }
}

impl Cpu {
    /// The current stack.
    pub(crate) fn stack(&self) -> Stack {
        Stack::new(*self.segment(SegName::SS), self.regs.r32(gpr::ESP), self.cpl, Exception::SS0)
    }

    /// (E)SP takes a stack's pointer.
    pub(crate) fn commit(&mut self, stack: &Stack) {
        self.set_sp(stack.sp);
    }

    pub(crate) fn set_sp(&mut self, sp: u32) {
        if self.mode & mode::STACK32 != 0 {
            self.regs.set_r32(gpr::ESP, sp);
        } else {
            let old = self.regs.r32(gpr::ESP);
            self.regs.set_r32(gpr::ESP, (old & 0xffff_0000) | (sp & 0xffff));
        }
    }
}
