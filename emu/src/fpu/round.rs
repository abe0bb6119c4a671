//! Rounding, and the exceptions that an operation collects (SDM volume 1, 4.8.4, 8.1.5 and 8.5).

use super::f80::{EXPONENT_MAX, F80, INTEGER_BIT};

/// Status word: invalid operation.
pub const IE: u16 = 0x01;
/// Status word: denormal operand.
pub const DE: u16 = 0x02;
/// Status word: division by zero.
pub const ZE: u16 = 0x04;
/// Status word: overflow.
pub const OE: u16 = 0x08;
/// Status word: underflow.
pub const UE: u16 = 0x10;
/// Status word: precision (inexact result).
pub const PE: u16 = 0x20;
/// Status word: the invalid operation is a stack overflow or underflow.
pub const SF: u16 = 0x40;
/// Status word: an unmasked exception is pending.
pub const ES: u16 = 0x80;
/// Status word: condition code 0.
pub const C0: u16 = 0x100;
/// Status word: condition code 1; after arithmetic, the result was rounded up in magnitude.
pub const C1: u16 = 0x200;
/// Status word: condition code 2; an incomplete reduction.
pub const C2: u16 = 0x400;
/// Status word: condition code 3.
pub const C3: u16 = 0x4000;
/// Status word: the 8087's busy bit, since then a copy of [`ES`].
pub const BUSY: u16 = 0x8000;

/// The six exceptions, at the same places in status and control word.
pub const EXCEPTIONS: u16 = 0x3f;

/// What unmasked overflow and underflow take off or add to the exponent (SDM volume 1, 8.5.4).
const EXPONENT_WRAP: i32 = 24576;

const CONTROL_PRECISION: u16 = 0x300;
/// The rounding control field of the control word; zero is to nearest.
pub(super) const CONTROL_ROUNDING: u16 = 0xc00;

/// The rounding control field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest value; a tie goes to the even one.
    Nearest,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// Toward zero.
    Truncate,
}

/// One operation's environment: the control word it runs under and the status bits it raises.
///
/// Nothing reaches the status word before the instruction is certain to complete.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    control: u16,
    /// Exceptions and condition codes for the status word.
    pub flags: u16,
    /// Condition codes that the operation sets or clears; the others keep what they were. C1 is
    /// among them but for a few instructions.
    pub determined: u16,
    /// An operand came from a denormal in memory: widened it no longer looks like one.
    pub denormal_source: bool,
}

/// A significand cut to fewer bits.
#[derive(Clone, Copy, Debug)]
pub struct Rounded {
    /// The kept bits, at the top; the dropped ones are zero.
    pub significand: u64,
    /// Rounding up went past the top bit: the true significand is 2^64.
    pub carry: bool,
    /// Bits that were not zero were dropped.
    pub inexact: bool,
    /// Rounded away from zero.
    pub up: bool,
}

impl Context {
    /// An operation under the given control word, with nothing raised.
    #[inline]
    pub const fn new(control: u16) -> Self {
        Self { control, flags: 0, determined: C1, denormal_source: false }
    }

    /// The same operation under another rounding control.
    pub const fn with_rounding(self, rounding: Rounding) -> Self {
        let field = match rounding {
            Rounding::Nearest => 0x000,
            Rounding::Down => 0x400,
            Rounding::Up => 0x800,
            Rounding::Truncate => 0xc00,
        };
        Self { control: self.control & !CONTROL_ROUNDING | field, ..self }
    }

    /// Raises exceptions. True if one of them is unmasked, so that there is no result to compute.
    #[inline]
    pub fn raise(&mut self, exceptions: u16) -> bool {
        self.flags |= exceptions;
        exceptions & EXCEPTIONS & !self.control != 0
    }

    /// Sets condition codes to `codes`, which is within `mask`.
    #[inline]
    pub fn determine(&mut self, mask: u16, codes: u16) {
        self.determined |= mask;
        self.flags |= codes;
    }

    /// The unmasked ones among the exceptions raised so far.
    #[inline]
    pub const fn unmasked(&self) -> u16 {
        self.flags & !self.control & EXCEPTIONS
    }

    /// An unmasked exception was found before there was a result: registers stay as they are.
    #[inline]
    pub const fn blocked(&self) -> bool {
        self.unmasked() & (IE | DE | ZE) != 0
    }

    /// An unmasked exception, other than an inexact result, keeps a store from memory.
    #[inline]
    pub const fn store_blocked(&self) -> bool {
        self.unmasked() & !PE != 0
    }

    /// Raises DE if an operand is denormal. True if that is unmasked.
    #[inline]
    pub fn check_denormal(&mut self, operands: &[F80]) -> bool {
        (self.denormal_source || operands.iter().any(|x| x.is_denormal())) && self.raise(DE)
    }

    /// The invalid-operation exception and its masked response.
    pub fn invalid(&mut self) -> F80 {
        self.raise(IE);
        F80::INDEFINITE
    }

    /// Rounding control.
    pub const fn rounding(&self) -> Rounding {
        match self.control & CONTROL_ROUNDING {
            0x000 => Rounding::Nearest,
            0x400 => Rounding::Down,
            0x800 => Rounding::Up,
            _ => Rounding::Truncate,
        }
    }

    /// Round to nearest, as all but a few programs compute.
    #[inline]
    pub const fn is_nearest(&self) -> bool {
        self.control & CONTROL_ROUNDING == 0
    }

    /// The significand bits that precision control keeps.
    pub const fn precision(&self) -> u32 {
        match self.control & CONTROL_PRECISION {
            0x000 => 24,
            0x200 => 53,
            _ => 64,
        }
    }

    /// The rounding decision for a magnitude whose dropped part is `fraction` with `half` the
    /// weight of half a unit in the last kept place.
    fn rounds_up(&self, negative: bool, odd: bool, fraction: u128, half: u128) -> bool {
        match self.rounding() {
            Rounding::Nearest => fraction > half || (fraction == half && odd),
            Rounding::Down => negative && fraction != 0,
            Rounding::Up => !negative && fraction != 0,
            Rounding::Truncate => false,
        }
    }

    /// Keeps the upper `bits` (0 to 64) of a 128-bit magnitude.
    pub fn cut(&self, negative: bool, magnitude: u128, bits: u32) -> Rounded {
        if bits == 0 {
            // Only the carry can survive; used by integers, where one half is the top bit.
            let up = self.rounds_up(negative, false, magnitude, 1 << 127);
            return Rounded { significand: 0, carry: up, inexact: magnitude != 0, up };
        }
        let dropped = 128 - bits;
        let unit = 1u128 << dropped;
        let fraction = magnitude & (unit - 1);
        let kept = magnitude & !(unit - 1);
        let up = self.rounds_up(negative, kept & unit != 0, fraction, unit >> 1);
        let (significand, carry) = if up { kept.overflowing_add(unit) } else { (kept, false) };
        Rounded { significand: (significand >> 64) as u64, carry, inexact: fraction != 0, up }
    }

    /// Rounds a magnitude (top bit set, worth 2^(`exponent` - bias)) to a register value of the
    /// precision that precision control asks for.
    pub fn round(&mut self, negative: bool, exponent: i32, magnitude: u128) -> F80 {
        self.round_to(negative, exponent, magnitude, self.precision())
    }

    /// As [`Context::round`] with all 64 bits: what instructions do that ignore precision control.
    pub fn round_full(&mut self, negative: bool, exponent: i32, magnitude: u128) -> F80 {
        self.round_to(negative, exponent, magnitude, 64)
    }

    fn round_to(&mut self, negative: bool, exponent: i32, magnitude: u128, bits: u32) -> F80 {
        let cut = self.cut(negative, magnitude, bits);
        let (rounded_exponent, significand) =
            if cut.carry { (exponent + 1, INTEGER_BIT) } else { (exponent, cut.significand) };
        if rounded_exponent >= i32::from(EXPONENT_MAX) {
            return self.overflow(negative, rounded_exponent, significand, cut, bits);
        }
        if rounded_exponent >= 1 {
            self.note(cut);
            return F80::new(negative, rounded_exponent as u16, significand);
        }
        if self.raise_unmasked(UE) {
            let wrapped = rounded_exponent + EXPONENT_WRAP;
            if wrapped < 1 {
                // Only FSCALE goes that far.
                self.flags |= PE;
                return F80::new(negative, 0, 0);
            }
            self.note(cut);
            return F80::new(negative, wrapped as u16, significand);
        }
        // Masked: the tiny result is denormalised first and rounded once, at the same place of the
        // register.
        let cut = self.cut(negative, shift_right_sticky(magnitude, (1 - exponent) as u32), bits);
        if cut.inexact {
            self.flags |= UE;
        }
        self.note(cut);
        let exponent = u16::from(cut.significand & INTEGER_BIT != 0);
        F80::new(negative, exponent, cut.significand)
    }

    fn overflow(&mut self, negative: bool, exponent: i32, significand: u64, cut: Rounded, bits: u32) -> F80 {
        if self.raise_unmasked(OE) {
            let wrapped = exponent - EXPONENT_WRAP;
            if wrapped >= i32::from(EXPONENT_MAX) {
                self.flags |= PE | C1;
                return F80::INFINITY.with_sign(negative);
            }
            self.note(cut);
            return F80::new(negative, wrapped as u16, significand);
        }
        self.flags |= OE | PE;
        if self.overflows_to_infinity(negative) {
            self.flags |= C1;
            return F80::INFINITY.with_sign(negative);
        }
        F80::new(negative, EXPONENT_MAX - 1, u64::MAX << (64 - bits))
    }

    /// The masked response to overflow is infinity rather than the largest finite number.
    pub fn overflows_to_infinity(&self, negative: bool) -> bool {
        match self.rounding() {
            Rounding::Nearest => true,
            Rounding::Down => negative,
            Rounding::Up => !negative,
            Rounding::Truncate => false,
        }
    }

    /// Raises an exception if it is unmasked, and says so.
    pub fn raise_unmasked(&mut self, exception: u16) -> bool {
        let unmasked = self.control & exception == 0;
        if unmasked {
            self.flags |= exception;
        }
        unmasked
    }

    /// PE and C1 as a rounding left them.
    #[inline]
    pub fn note(&mut self, cut: Rounded) {
        if cut.inexact {
            self.flags |= PE;
        }
        if cut.up {
            self.flags |= C1;
        }
    }

    /// [`Context::round`] to nearest for results in the normal range; `None` sends the caller to the
    /// general path.
    #[inline(always)]
    pub fn round_fast(&mut self, negative: bool, exponent: i32, magnitude: u128) -> Option<F80> {
        const HALF: u64 = 1 << 63;
        let (high, low) = ((magnitude >> 64) as u64, magnitude as u64);
        let dropped = 64 - self.precision();
        let (kept, fraction) = match dropped {
            0 => (high, low),
            _ => (high >> dropped << dropped, high << (64 - dropped) | u64::from(low != 0)),
        };
        // No branch on what is as good as random.
        let up = (fraction > HALF) | ((fraction == HALF) & (kept >> dropped & 1 != 0));
        let (significand, carry) = kept.overflowing_add(u64::from(up) << dropped);
        let exponent = exponent + i32::from(carry);
        if !(1..i32::from(EXPONENT_MAX)).contains(&exponent) {
            return None;
        }
        self.flags |= (u16::from(fraction != 0) * PE) | (u16::from(up) * C1);
        Some(F80::new(negative, exponent as u16, significand | u64::from(carry) << 63))
    }
}

/// A right shift that leaves a trace of what it drops in the lowest bit.
#[inline]
pub fn shift_right_sticky(value: u128, shift: u32) -> u128 {
    match shift {
        0 => value,
        1..128 => value >> shift | u128::from(value << (128 - shift) != 0),
        _ => u128::from(value != 0),
    }
}

/// A finite number below 2^64 as a magnitude whose upper `bits` are the integer part: what
/// [`Context::cut`] rounds to an integer.
pub fn integer_part(a: F80, integer_bits: i32) -> (u32, u128) {
    let magnitude = u128::from(a.significand) << 64;
    if integer_bits > 0 {
        (integer_bits as u32, magnitude)
    } else {
        (0, shift_right_sticky(magnitude, integer_bits.unsigned_abs()))
    }
}
