//! Numbers with 128-bit significands, for what the transcendental instructions compute inside.
//!
//! Integer arithmetic alone: every host and wasm give the same bits. Operations truncate; each is
//! good to about 2^-126, far below what rounding to 64 bits can tell but for one case in 2^60.

use super::arith::divide_wide;
use super::f80::{BIAS, F80};
use super::round::Context;

/// `significand` * 2^(`exponent` - 127), negated if `negative`. The significand has its top bit set,
/// or is 0 for zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    /// Sign.
    pub negative: bool,
    /// The power of two that the significand's top bit stands for.
    pub exponent: i32,
    /// Normalised magnitude.
    pub significand: u128,
}

/// The upper half of a 256-bit product.
#[inline]
pub fn mul_high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let (cross1, cross2) = (a1 * b0, a0 * b1);
    let middle = ((a0 * b0) >> 64) + (cross1 & LOW) + (cross2 & LOW);
    a1 * b1 + (cross1 >> 64) + (cross2 >> 64) + (middle >> 64)
}

/// `numerator` * 2^128 / `divisor`, truncated; the divisor has its top bit set and is above the
/// numerator. Knuth's algorithm D with two digits of 64 bits.
pub fn divide_fraction(numerator: u128, divisor: u128) -> u128 {
    let (high, rest) = divide_digit(numerator, divisor);
    let (low, _) = divide_digit(rest, divisor);
    u128::from(high) << 64 | u128::from(low)
}

/// Quotient and remainder of `numerator` * 2^64 by a divisor above it.
fn divide_digit(numerator: u128, divisor: u128) -> (u64, u128) {
    let (d1, d0) = ((divisor >> 64) as u64, divisor as u64);
    let (n1, n0) = ((numerator >> 64) as u64, numerator as u64);
    // Never too small, and at most two too large.
    let mut digit = if n1 >= d1 { u64::MAX } else { divide_wide(n1, n0, d1).0 };
    let low_product = u128::from(digit) * u128::from(d0);
    let high_product = u128::from(digit) * u128::from(d1) + (low_product >> 64);
    let (low, borrow) = 0u64.overflowing_sub(low_product as u64);
    let (mut high, mut negative) = numerator.overflowing_sub(high_product + u128::from(borrow));
    let mut low = low;
    while negative {
        digit -= 1;
        let (sum, carry) = low.overflowing_add(d0);
        low = sum;
        let (sum, positive) = high.overflowing_add(u128::from(d1) + u128::from(carry));
        high = sum;
        negative = !positive;
    }
    (digit, high << 64 | u128::from(low))
}

impl Wide {
    /// Zero.
    pub const ZERO: Self = Self { negative: false, exponent: 0, significand: 0 };
    /// One.
    pub const ONE: Self = Self { negative: false, exponent: 0, significand: 1 << 127 };

    /// A finite register value.
    pub fn from_f80(x: F80) -> Self {
        if x.significand == 0 {
            return Self { negative: x.is_negative(), ..Self::ZERO };
        }
        let (exponent, significand) = x.normalized();
        Self {
            negative: x.is_negative(),
            exponent: exponent - BIAS,
            significand: u128::from(significand) << 64,
        }
    }

    /// `magnitude` * 2^-`fraction_bits`.
    pub fn from_fixed(negative: bool, magnitude: u128, fraction_bits: u32) -> Self {
        let shift = magnitude.leading_zeros();
        let exponent = 127 - shift as i32 - fraction_bits as i32;
        Self { negative, exponent, significand: magnitude.wrapping_shl(shift) }
    }

    /// An integer.
    pub fn from_integer(x: i32) -> Self {
        Self::from_fixed(x < 0, x.unsigned_abs().into(), 0)
    }

    /// Rounded to a register value: 64 bits whatever precision control says.
    pub fn round(self, cx: &mut Context) -> F80 {
        if self.significand == 0 {
            return F80::ZERO.with_sign(self.negative);
        }
        cx.round_full(self.negative, self.exponent + BIAS, self.significand)
    }

    /// As [`Wide::round`] for what cannot be exact, whatever bits happen to be zero.
    pub fn round_inexact(self, cx: &mut Context) -> F80 {
        let sticky = u128::from(!self.is_zero());
        Self { significand: self.significand | sticky, ..self }.round(cx)
    }

    /// It is zero.
    pub fn is_zero(self) -> bool {
        self.significand == 0
    }

    /// The number times a power of two.
    pub fn scaled(self, power: i32) -> Self {
        Self { exponent: self.exponent + power, ..self }
    }

    /// The magnitude as a fraction in units of 2^-`bits`; the number is below 2^(128 - `bits`).
    pub fn to_fixed(self, bits: u32) -> u128 {
        let shift = 127 - self.exponent - bits as i32;
        if shift >= 128 { 0 } else { self.significand >> shift.max(0) }
    }

    /// The square as a fraction in units of 2^-128; the number is below 1.
    pub fn square(self) -> u128 {
        let shift = -2 * self.exponent - 2;
        if shift >= 128 { 0 } else { mul_high(self.significand, self.significand) >> shift.max(0) }
    }
}

impl core::ops::Neg for Wide {
    type Output = Self;
    fn neg(self) -> Self {
        Self { negative: !self.negative, ..self }
    }
}

impl core::ops::Mul for Wide {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let negative = self.negative != other.negative;
        let product = mul_high(self.significand, other.significand);
        if product == 0 {
            return Self { negative, ..Self::ZERO };
        }
        let shift = product.leading_zeros();
        let exponent = self.exponent + other.exponent + 1 - shift as i32;
        Self { negative, exponent, significand: product << shift }
    }
}

impl core::ops::Div for Wide {
    type Output = Self;
    /// The divisor is not zero.
    fn div(self, other: Self) -> Self {
        let negative = self.negative != other.negative;
        if self.is_zero() {
            return Self { negative, ..Self::ZERO };
        }
        let below = self.significand < other.significand;
        let numerator = if below { self.significand } else { self.significand >> 1 };
        let significand = divide_fraction(numerator, other.significand);
        Self { negative, exponent: self.exponent - other.exponent - i32::from(below), significand }
    }
}

impl core::ops::Add for Wide {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        if other.is_zero() {
            return self;
        }
        let below = (self.exponent, self.significand) < (other.exponent, other.significand);
        if self.is_zero() || below {
            return if self.is_zero() { other } else { other + self };
        }
        let distance = (self.exponent - other.exponent) as u32;
        let small = other.significand.checked_shr(distance).unwrap_or(0);
        if self.negative == other.negative {
            let (sum, carry) = self.significand.overflowing_add(small);
            return match carry {
                false => Self { significand: sum, ..self },
                true => Self { exponent: self.exponent + 1, significand: sum >> 1 | 1 << 127, ..self },
            };
        }
        let difference = self.significand - small;
        if difference == 0 {
            return Self::ZERO;
        }
        let shift = difference.leading_zeros();
        Self { exponent: self.exponent - shift as i32, significand: difference << shift, ..self }
    }
}

impl core::ops::Sub for Wide {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}
