//! Between register values and what memory holds: 32- and 64-bit reals, integers, packed decimals.

use super::f80::{BIAS, Class, EXPONENT_MAX, F80, INTEGER_BIT, QUIET_BIT};
use super::round::{C1, Context, IE, OE, PE, Rounding, UE, integer_part, shift_right_sticky};

/// A real format in memory.
#[derive(Clone, Copy, Debug)]
struct Format {
    /// Significand bits with the implicit one.
    precision: u32,
    /// The exponent field's bits.
    exponent_bits: u32,
}

const SINGLE: Format = Format { precision: 24, exponent_bits: 8 };
const DOUBLE: Format = Format { precision: 53, exponent_bits: 11 };

impl Format {
    const fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    const fn exponent_max(self) -> i32 {
        (1 << self.exponent_bits) - 1
    }

    /// Bits of the stored fraction.
    const fn fraction_bits(self) -> u32 {
        self.precision - 1
    }

    /// Exact widening. A denormal becomes a normal number and is marked in the context; a NaN keeps
    /// its payload and whether it signals.
    #[inline(always)]
    fn widen(self, cx: &mut Context, bits: u64) -> F80 {
        if let Some(value) = self.widen_normal(bits) {
            return value;
        }
        let (negative, field, fraction) = self.parts(bits);
        self.widen_special(cx, negative, field, fraction)
    }

    /// Exact widening of a normal number.
    #[inline(always)]
    fn widen_normal(self, bits: u64) -> Option<F80> {
        let (negative, field, fraction) = self.parts(bits);
        let normal = (field.wrapping_sub(1) as u32) < (self.exponent_max() - 1) as u32;
        normal.then(|| F80::new(negative, (field + BIAS - self.bias()) as u16, fraction | INTEGER_BIT))
    }

    /// Exact widening of a normal number or zero.
    #[inline(always)]
    fn widen_ordinary(self, bits: u64) -> Option<F80> {
        if let Some(value) = self.widen_normal(bits) {
            return Some(value);
        }
        let (negative, field, fraction) = self.parts(bits);
        (field == 0 && fraction == 0).then(|| F80::ZERO.with_sign(negative))
    }

    /// Sign, exponent field, and the fraction where a register has it.
    #[inline(always)]
    fn parts(self, bits: u64) -> (bool, i32, u64) {
        let negative = bits >> (self.exponent_bits + self.fraction_bits()) & 1 != 0;
        let field = (bits >> self.fraction_bits()) as i32 & self.exponent_max();
        (negative, field, bits << (64 - self.fraction_bits()) >> 1)
    }

    #[cold]
    #[inline(never)]
    fn widen_special(self, cx: &mut Context, negative: bool, field: i32, fraction: u64) -> F80 {
        match (field, fraction) {
            (0, 0) => F80::ZERO.with_sign(negative),
            (0, _) => {
                cx.denormal_source = true;
                let shift = fraction.leading_zeros();
                let exponent = 1 + BIAS - self.bias() - shift as i32;
                F80::new(negative, exponent as u16, fraction << shift)
            }
            _ => F80::new(negative, EXPONENT_MAX, fraction | INTEGER_BIT),
        }
    }

    /// Rounds a register value to this format's bits.
    #[inline(always)]
    fn narrow(self, cx: &mut Context, a: F80) -> u64 {
        if cx.is_nearest()
            && let Some(bits) = self.narrow_ordinary(cx, a)
        {
            return bits;
        }
        self.narrow_slow(cx, a)
    }

    /// Rounds to nearest, if this is a zero or a normal number that stays far enough from overflow.
    #[inline(always)]
    fn narrow_ordinary(self, cx: &mut Context, a: F80) -> Option<u64> {
        const HALF: u64 = 1 << 63;
        let sign = u64::from(a.is_negative()) << (self.exponent_bits + self.fraction_bits());
        let field = i32::from(a.exponent()) - BIAS + self.bias();
        if a.significand & INTEGER_BIT == 0
            || field.wrapping_sub(1) as u32 >= (self.exponent_max() - 2) as u32
        {
            return (a.exponent() == 0 && a.significand == 0).then_some(sign);
        }
        let (kept, dropped) = (a.significand >> (64 - self.precision), a.significand << self.precision);
        let up = (dropped > HALF) | ((dropped == HALF) & (kept & 1 != 0));
        cx.flags |= (u16::from(dropped != 0) * PE) | (u16::from(up) * C1);
        // The integer bit adds one to the exponent, and so does a fraction that becomes too large.
        let magnitude = (((field - 1) as u64) << self.fraction_bits()) + kept + u64::from(up);
        Some(sign | magnitude)
    }

    fn pack(self, negative: bool, field: i32, significand: u64) -> u64 {
        let fraction = significand << 1 >> (64 - self.fraction_bits());
        (u64::from(negative) << self.exponent_bits | field as u64) << self.fraction_bits() | fraction
    }

    #[inline(never)]
    fn narrow_slow(self, cx: &mut Context, a: F80) -> u64 {
        let negative = a.is_negative();
        match a.class() {
            Class::Unsupported => {
                let indefinite = cx.invalid();
                return self.pack(true, self.exponent_max(), indefinite.significand);
            }
            class if class.is_nan() => {
                if class == Class::SignalingNan {
                    cx.raise(IE);
                }
                return self.pack(negative, self.exponent_max(), a.significand | QUIET_BIT);
            }
            Class::Infinity => return self.pack(negative, self.exponent_max(), 0),
            Class::Zero => return self.pack(negative, 0, 0),
            _ => {}
        }
        let (exponent, significand) = a.normalized();
        let field = exponent - BIAS + self.bias();
        let magnitude = u128::from(significand) << 64;
        let cut = cx.cut(negative, magnitude, self.precision);
        let rounded_field = field + i32::from(cut.carry);
        if rounded_field >= self.exponent_max() {
            if cx.raise_unmasked(OE) {
                // Nothing will be stored, so nothing was rounded.
                return 0;
            }
            cx.flags |= OE | PE;
            if cx.overflows_to_infinity(negative) {
                cx.flags |= C1;
                return self.pack(negative, self.exponent_max(), 0);
            }
            return self.pack(negative, self.exponent_max() - 1, u64::MAX);
        }
        if rounded_field >= 1 {
            cx.note(cut);
            return self.pack(negative, rounded_field, cut.significand);
        }
        if cx.raise_unmasked(UE) {
            return 0;
        }
        let cut = cx.cut(negative, shift_right_sticky(magnitude, (1 - field) as u32), self.precision);
        if cut.inexact {
            cx.flags |= UE;
        }
        cx.note(cut);
        self.pack(negative, i32::from(cut.significand & INTEGER_BIT != 0), cut.significand)
    }
}

/// A single-precision operand, for arithmetic: signalling NaNs still signal.
#[inline]
pub fn from_f32(cx: &mut Context, bytes: [u8; 4]) -> F80 {
    SINGLE.widen(cx, u64::from(u32::from_le_bytes(bytes)))
}

/// A double-precision operand, for arithmetic: signalling NaNs still signal.
#[inline]
pub fn from_f64(cx: &mut Context, bytes: [u8; 8]) -> F80 {
    DOUBLE.widen(cx, u64::from_le_bytes(bytes))
}

/// As [`from_f32`], of a normal number or zero.
#[inline(always)]
pub(super) fn from_ordinary_f32(bytes: [u8; 4]) -> Option<F80> {
    SINGLE.widen_ordinary(u32::from_le_bytes(bytes).into())
}

/// As [`from_f64`], of a normal number or zero.
#[inline(always)]
pub(super) fn from_ordinary_f64(bytes: [u8; 8]) -> Option<F80> {
    DOUBLE.widen_ordinary(u64::from_le_bytes(bytes))
}

/// What FLD does beyond widening: raises DE and IE, quiets NaNs.
#[inline]
pub fn load_checks(cx: &mut Context, a: F80) -> F80 {
    cx.check_denormal(&[]);
    if a.exponent() == EXPONENT_MAX && a.class() == Class::SignalingNan {
        cx.raise(IE);
        return a.quieted();
    }
    a
}

/// FST m32.
#[inline]
pub fn to_f32(cx: &mut Context, a: F80) -> [u8; 4] {
    (SINGLE.narrow(cx, a) as u32).to_le_bytes()
}

/// FST m64.
#[inline]
pub fn to_f64(cx: &mut Context, a: F80) -> [u8; 8] {
    DOUBLE.narrow(cx, a).to_le_bytes()
}

/// As [`to_f32`], to nearest, of what is not near overflow or underflow.
#[inline(always)]
pub(super) fn to_ordinary_f32(cx: &mut Context, a: F80) -> Option<[u8; 4]> {
    SINGLE.narrow_ordinary(cx, a).map(|bits| (bits as u32).to_le_bytes())
}

/// As [`to_f64`], to nearest, of what is not near overflow or underflow.
#[inline(always)]
pub(super) fn to_ordinary_f64(cx: &mut Context, a: F80) -> Option<[u8; 8]> {
    DOUBLE.narrow_ordinary(cx, a).map(u64::to_le_bytes)
}

/// FILD: always exact.
#[inline(always)]
pub fn from_i64(value: i64) -> F80 {
    let magnitude = value.unsigned_abs();
    if magnitude == 0 {
        return F80::ZERO;
    }
    let shift = magnitude.leading_zeros();
    F80::new(value < 0, (BIAS + 63) as u16 - shift as u16, magnitude << shift)
}

/// The magnitude of `a` as an integer, rounded by `cx`; `None` if it is no number below 2^64.
fn to_magnitude(cx: &mut Context, a: F80) -> Option<u64> {
    if !matches!(a.class(), Class::Zero | Class::Denormal | Class::Normal) {
        return None;
    }
    let integer_bits = i32::from(a.exponent()) - BIAS + 1;
    if integer_bits > 64 {
        return None;
    }
    let (bits, magnitude) = integer_part(a, integer_bits);
    let cut = cx.cut(a.is_negative(), magnitude, bits);
    let integer = match bits {
        0 => u64::from(cut.carry),
        64 if cut.carry => return None,
        _ => (cut.significand >> (64 - bits)) + (u64::from(cut.carry) << (bits & 63)),
    };
    cx.note(cut);
    Some(integer)
}

/// FIST of `width` bits; the integer indefinite (the most negative one) with IE if it does not fit.
pub fn to_integer(cx: &mut Context, a: F80, width: u32) -> i64 {
    let saved = cx.flags;
    let limit = 1u64 << (width - 1);
    match to_magnitude(cx, a) {
        Some(magnitude) if magnitude < limit || (magnitude == limit && a.is_negative()) => {
            if a.is_negative() { (magnitude as i64).wrapping_neg() } else { magnitude as i64 }
        }
        _ => {
            cx.flags = saved | IE;
            (limit as i64).wrapping_neg()
        }
    }
}

/// FISTTP: as [`to_integer`], truncating whatever rounding control says.
pub fn to_integer_truncated(cx: &mut Context, a: F80, width: u32) -> i64 {
    let mut truncating = cx.with_rounding(Rounding::Truncate);
    let value = to_integer(&mut truncating, a, width);
    cx.flags = truncating.flags;
    value
}

/// Digits of a packed decimal.
const DECIMAL_DIGITS: usize = 18;
const DECIMAL_LIMIT: u64 = 1_000_000_000_000_000_000;
/// The packed decimal indefinite (SDM volume 1, table 4-9).
const DECIMAL_INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];

/// FBLD. Nibbles that are no digits are worth what they weigh, as hardware adds them up.
pub fn from_decimal(bytes: [u8; 10]) -> F80 {
    let magnitude = bytes[..DECIMAL_DIGITS / 2]
        .iter()
        .rev()
        .fold(0u64, |sum, byte| sum * 100 + u64::from(byte >> 4) * 10 + u64::from(byte & 15));
    from_i64(magnitude as i64).with_sign(bytes[9] & 0x80 != 0)
}

/// FBSTP.
pub fn to_decimal(cx: &mut Context, a: F80) -> [u8; 10] {
    let saved = cx.flags;
    let Some(mut magnitude) = to_magnitude(cx, a).filter(|&magnitude| magnitude < DECIMAL_LIMIT) else {
        cx.flags = saved | IE;
        return DECIMAL_INDEFINITE;
    };
    let mut bytes = [0; 10];
    for byte in &mut bytes[..DECIMAL_DIGITS / 2] {
        *byte = (((magnitude / 10 % 10) << 4) | (magnitude % 10)) as u8;
        magnitude /= 100;
    }
    bytes[9] = if a.is_negative() { 0x80 } else { 0 };
    bytes
}
