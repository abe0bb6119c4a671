//! MXCSR, the control and status register of SSE (SDM volume 1, 10.2.3), and what one
//! floating-point instruction collects while it runs.

use crate::exception::{Exception, Result};

/// Invalid operation.
pub const IE: u32 = 1 << 0;
/// Denormal operand.
pub const DE: u32 = 1 << 1;
/// Divide by zero.
pub const ZE: u32 = 1 << 2;
/// Overflow.
pub const OE: u32 = 1 << 3;
/// Underflow.
pub const UE: u32 = 1 << 4;
/// Precision (inexact result).
pub const PE: u32 = 1 << 5;
/// Denormals are zeros: denormal sources count as zeros of their sign.
pub const DAZ: u32 = 1 << 6;
/// The mask of exception `x` is `x << MASK_SHIFT`.
pub const MASK_SHIFT: u32 = 7;
/// Rounding control is `mxcsr >> RC_SHIFT & 3`.
pub const RC_SHIFT: u32 = 13;
/// Flush to zero: tiny results become zeros of their sign (only while underflow is masked).
pub const FTZ: u32 = 1 << 15;

/// The bits that exist; LDMXCSR and FXRSTOR of any other raise #GP(0). FXSAVE stores this as
/// MXCSR_MASK.
pub const VALID: u32 = 0xffff;
/// The value after RESET: everything masked, round to nearest.
pub const DEFAULT: u32 = 0x1f80;

/// Those that are known before an operation is carried out. If one of them is unmasked in any
/// lane, the others (OE, UE, PE) are not looked for in any (SDM volume 1, 11.5.3.3).
const BEFORE_OPERATION: u32 = IE | DE | ZE;
const ALL: u32 = IE | DE | ZE | OE | UE | PE;

/// Rounding control, as encoded in MXCSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, ties to even.
    Nearest = 0,
    /// Toward negative infinity.
    Down = 1,
    /// Toward positive infinity.
    Up = 2,
    /// Toward zero.
    Zero = 3,
}

/// The floating-point environment of one instruction: MXCSR, and the exceptions raised so far.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// MXCSR; [`Env::finish`] adds the instruction's flags.
    pub mxcsr: u32,
    raised: u32,
}

impl Env {
    /// An environment at the start of an instruction.
    #[inline]
    pub const fn new(mxcsr: u32) -> Self {
        Self { mxcsr, raised: 0 }
    }

    /// Notes exceptions.
    #[inline]
    pub fn raise(&mut self, flags: u32) {
        self.raised |= flags;
    }

    /// The rounding mode.
    #[inline]
    pub const fn rounding(&self) -> Rounding {
        match self.mxcsr >> RC_SHIFT & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Down,
            2 => Rounding::Up,
            _ => Rounding::Zero,
        }
    }

    /// Denormal operands count as zero.
    #[inline]
    pub const fn daz(&self) -> bool {
        self.mxcsr & DAZ != 0
    }

    /// Tiny results become zero.
    #[inline]
    pub const fn ftz(&self) -> bool {
        self.mxcsr & FTZ != 0 && self.masked(UE)
    }

    /// Exception `flag` is masked.
    #[inline]
    pub const fn masked(&self, flag: u32) -> bool {
        self.mxcsr & flag << MASK_SHIFT != 0
    }

    /// One more inexact result would change nothing: PE is set already, and masked.
    #[inline]
    pub const fn precision_settled(&self) -> bool {
        const SETTLED: u32 = PE | PE << MASK_SHIFT;
        self.mxcsr & SETTLED == SETTLED
    }

    /// Ends the instruction: the raised flags go to MXCSR, and an unmasked one keeps the result
    /// from being written.
    #[inline]
    pub fn finish<T>(&mut self, value: T) -> Result<T> {
        let unmasked = self.raised & !(self.mxcsr >> MASK_SHIFT) & ALL;
        if unmasked & BEFORE_OPERATION != 0 {
            self.raised &= BEFORE_OPERATION;
        }
        self.mxcsr |= self.raised;
        self.raised = 0;
        if unmasked == 0 { Ok(value) } else { Err(Exception::SIMD_ERROR) }
    }
}
