//! The arithmetic that IEEE 754 defines, on register values: each operation is exact and then
//! rounded once (SDM volume 1, 8.3.3 to 8.3.6; NaNs: 4.8.3.5, table 4-7).

use core::cmp::Ordering;

use super::convert::from_i64;
use super::f80::{BIAS, Class, F80, INTEGER_BIT};
use super::round::{C0, C1, C2, C3, Context, IE, Rounding, ZE, integer_part, shift_right_sticky};

/// Deals with operands that are NaNs or unsupported: the result, if that settles it.
pub(super) fn nan_result(cx: &mut Context, a: F80, b: F80) -> Option<F80> {
    let (class_a, class_b) = (a.class(), b.class());
    if class_a == Class::Unsupported || class_b == Class::Unsupported {
        return Some(cx.invalid());
    }
    if !class_a.is_nan() && !class_b.is_nan() {
        return None;
    }
    let signaling = [class_a, class_b].map(|class| class == Class::SignalingNan);
    if signaling != [false; 2] {
        cx.raise(IE);
    }
    let (quiet_a, quiet_b) = (a.quieted(), b.quieted());
    Some(match (class_a.is_nan(), class_b.is_nan()) {
        (true, false) => quiet_a,
        (false, _) => quiet_b,
        _ if signaling == [true, false] => quiet_b,
        _ if signaling == [false, true] => quiet_a,
        _ if quiet_a.significand != quiet_b.significand => {
            if quiet_a.significand > quiet_b.significand {
                quiet_a
            } else {
                quiet_b
            }
        }
        // The same payload: the positive one.
        _ if quiet_a.is_negative() => quiet_b,
        _ => quiet_a,
    })
}

/// As [`nan_result`] for instructions with one operand.
pub(super) fn nan_operand(cx: &mut Context, a: F80) -> Option<F80> {
    match a.class() {
        Class::Unsupported => Some(cx.invalid()),
        Class::SignalingNan => {
            cx.raise(IE);
            Some(a.quieted())
        }
        Class::QuietNan => Some(a),
        _ => None,
    }
}

/// The operation may take its fast path: round to nearest, normal operands.
#[inline(always)]
fn is_fast(cx: &Context, a: F80, b: F80) -> bool {
    a.is_normal() & b.is_normal() & cx.is_nearest() & !cx.denormal_source
}

/// `a + b`.
#[inline(never)]
pub fn add(cx: &mut Context, a: F80, b: F80) -> F80 {
    if let Some(sum) = ordinary_add(cx, a, b) {
        return sum;
    }
    add_slow(cx, a, b, false)
}

/// `a - b`.
#[inline(never)]
pub fn sub(cx: &mut Context, a: F80, b: F80) -> F80 {
    if let Some(difference) = ordinary_add(cx, a, b.negated()) {
        return difference;
    }
    add_slow(cx, a, b, true)
}

/// `a + b` of normal numbers whose exponents are less than 64 apart, rounded to nearest; `None` for all others.
#[inline(always)]
pub(super) fn ordinary_add(cx: &mut Context, a: F80, b: F80) -> Option<F80> {
    if !is_fast(cx, a, b) {
        return None;
    }
    let (a, b) = if (a.exponent(), a.significand) >= (b.exponent(), b.significand) { (a, b) } else { (b, a) };
    let exponent = i32::from(a.exponent());
    let distance = u32::from(a.exponent() - b.exponent());
    if distance >= 64 {
        return None;
    }
    // The smaller one shifted into place, and the 64 bits below.
    let high = b.significand >> distance;
    let low = b.significand << 1 << (63 - distance);
    if a.is_negative() == b.is_negative() {
        let (sum, carry) = a.significand.overflowing_add(high);
        let magnitude = u128::from(sum) << 64 | u128::from(low);
        if carry {
            // The bit that goes lost is the lowest of 64 dropped ones: it stays as a sticky one.
            let magnitude = 1 << 127 | magnitude >> 1 | magnitude & 1;
            return cx.round_fast(a.is_negative(), exponent + 1, magnitude);
        }
        return cx.round_fast(a.is_negative(), exponent, magnitude);
    }
    let difference = (u128::from(a.significand) << 64) - (u128::from(high) << 64 | u128::from(low));
    if difference == 0 {
        return Some(F80::ZERO);
    }
    let shift = difference.leading_zeros();
    cx.round_fast(a.is_negative(), exponent - shift as i32, difference << shift)
}

/// The exact sum of two finite numbers (a sticky bit standing for what lies far below), its top bit
/// set; or zero.
#[inline(always)]
fn add_magnitudes(
    a_negative: bool,
    a_exponent: i32,
    a: u64,
    b_negative: bool,
    b_exponent: i32,
    b: u64,
) -> (bool, i32, u128) {
    let swap = a_exponent < b_exponent;
    let (a, b) = if swap { (b, a) } else { (a, b) };
    let (exponent, low_exponent) = if swap { (b_exponent, a_exponent) } else { (a_exponent, b_exponent) };
    let negative = if swap { b_negative } else { a_negative };
    // One bit of headroom for the carry.
    let large = u128::from(a) << 63;
    let small = shift_right_sticky(u128::from(b) << 63, (exponent - low_exponent) as u32);
    let (negative, sum) = if a_negative == b_negative {
        (negative, large + small)
    } else if large >= small {
        (negative, large - small)
    } else {
        (!negative, small - large)
    };
    let shift = sum.leading_zeros();
    (negative, exponent + 1 - shift as i32, sum.wrapping_shl(shift))
}

#[cold]
#[inline(never)]
fn add_slow(cx: &mut Context, a: F80, b: F80, subtract: bool) -> F80 {
    if let Some(nan) = nan_result(cx, a, b) {
        return nan;
    }
    let b = if subtract { b.negated() } else { b };
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) if a != b => return cx.invalid(),
        (Class::Infinity, _) => {
            cx.check_denormal(&[b]);
            return a;
        }
        (_, Class::Infinity) => {
            cx.check_denormal(&[a]);
            return b;
        }
        (Class::Zero, Class::Zero) => return if a == b { a } else { zero_difference(cx) },
        _ => {}
    }
    if cx.check_denormal(&[a, b]) {
        return F80::INDEFINITE;
    }
    if a.class() == Class::Zero || b.class() == Class::Zero {
        // Still rounded: the other may have more bits than precision control allows.
        let x = if a.class() == Class::Zero { b } else { a };
        let (exponent, significand) = x.normalized();
        return cx.round(x.is_negative(), exponent, u128::from(significand) << 64);
    }
    let ((a_exponent, a_bits), (b_exponent, b_bits)) = (a.normalized(), b.normalized());
    let (negative, exponent, magnitude) =
        add_magnitudes(a.is_negative(), a_exponent, a_bits, b.is_negative(), b_exponent, b_bits);
    if magnitude == 0 {
        return zero_difference(cx);
    }
    cx.round(negative, exponent, magnitude)
}

/// The zero that is the difference of equal numbers.
fn zero_difference(cx: &Context) -> F80 {
    F80::ZERO.with_sign(cx.rounding() == Rounding::Down)
}

/// `a * b`.
#[inline(never)]
pub fn mul(cx: &mut Context, a: F80, b: F80) -> F80 {
    if let Some(product) = ordinary_mul(cx, a, b) {
        return product;
    }
    mul_slow(cx, a, b)
}

/// `a * b` of normal numbers, rounded to nearest; `None` for all others.
#[inline(always)]
pub(super) fn ordinary_mul(cx: &mut Context, a: F80, b: F80) -> Option<F80> {
    if !is_fast(cx, a, b) {
        return None;
    }
    let (exponent, magnitude) =
        mul_magnitudes(i32::from(a.exponent()), a.significand, i32::from(b.exponent()), b.significand);
    cx.round_fast(a.is_negative() != b.is_negative(), exponent, magnitude)
}

#[inline(always)]
fn mul_magnitudes(a_exponent: i32, a: u64, b_exponent: i32, b: u64) -> (i32, u128) {
    let product = u128::from(a) * u128::from(b);
    // Both have their top bits set.
    let shift = u32::from(product >> 127 == 0);
    (a_exponent + b_exponent - BIAS + 1 - shift as i32, product << shift)
}

#[cold]
#[inline(never)]
fn mul_slow(cx: &mut Context, a: F80, b: F80) -> F80 {
    if let Some(nan) = nan_result(cx, a, b) {
        return nan;
    }
    let negative = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => return cx.invalid(),
        (Class::Infinity, _) | (_, Class::Infinity) => {
            cx.check_denormal(&[a, b]);
            return F80::INFINITY.with_sign(negative);
        }
        (Class::Zero, _) | (_, Class::Zero) => {
            cx.check_denormal(&[a, b]);
            return F80::ZERO.with_sign(negative);
        }
        _ => {}
    }
    if cx.check_denormal(&[a, b]) {
        return F80::INDEFINITE;
    }
    let ((a_exponent, a_bits), (b_exponent, b_bits)) = (a.normalized(), b.normalized());
    let (exponent, magnitude) = mul_magnitudes(a_exponent, a_bits, b_exponent, b_bits);
    cx.round(negative, exponent, magnitude)
}

/// `a / b`.
#[inline(never)]
pub fn div(cx: &mut Context, a: F80, b: F80) -> F80 {
    if is_fast(cx, a, b) {
        let (exponent, magnitude) =
            div_magnitudes(i32::from(a.exponent()), a.significand, i32::from(b.exponent()), b.significand);
        if let Some(quotient) = cx.round_fast(a.is_negative() != b.is_negative(), exponent, magnitude) {
            return quotient;
        }
    }
    div_slow(cx, a, b)
}

#[inline(always)]
fn div_magnitudes(a_exponent: i32, a: u64, b_exponent: i32, b: u64) -> (i32, u128) {
    let below = a < b;
    let (high, low) = if below { (a, 0) } else { (a >> 1, a << 63) };
    let (quotient, remainder) = divide_wide(high, low, b);
    // 64 quotient bits are exact; what follows them is told by the remainder.
    let half = remainder >= b - remainder;
    let sticky = remainder != 0 && remainder != b - remainder;
    let rest = u64::from(half) << 63 | u64::from(sticky);
    (a_exponent - b_exponent + BIAS - i32::from(below), u128::from(quotient) << 64 | u128::from(rest))
}

/// Quotient and remainder of the 128-bit number `high:low` by a divisor that has its top bit set
/// and is above `high`: Knuth's algorithm D in base 2^32.
#[inline]
pub(super) fn divide_wide(high: u64, low: u64, divisor: u64) -> (u64, u64) {
    const BASE: u64 = 1 << 32;
    let (d1, d0) = (divisor >> 32, divisor & (BASE - 1));
    let digit = |upper: u64, next: u64| {
        let mut q = upper / d1;
        let mut rest = upper - q * d1;
        while q >= BASE || q * d0 > (rest << 32 | next) {
            q -= 1;
            rest += d1;
            if rest >= BASE {
                break;
            }
        }
        (q, (upper << 32 | next).wrapping_sub(q.wrapping_mul(divisor)))
    };
    let (q1, rest) = digit(high, low >> 32);
    let (q0, rest) = digit(rest, low & (BASE - 1));
    (q1 << 32 | q0, rest)
}

#[cold]
#[inline(never)]
fn div_slow(cx: &mut Context, a: F80, b: F80) -> F80 {
    if let Some(nan) = nan_result(cx, a, b) {
        return nan;
    }
    let negative = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => return cx.invalid(),
        (Class::Infinity, _) => {
            cx.check_denormal(&[b]);
            return F80::INFINITY.with_sign(negative);
        }
        (_, Class::Infinity) | (Class::Zero, _) => {
            cx.check_denormal(&[a, b]);
            return F80::ZERO.with_sign(negative);
        }
        (_, Class::Zero) => {
            cx.raise(ZE);
            return F80::INFINITY.with_sign(negative);
        }
        _ => {}
    }
    if cx.check_denormal(&[a, b]) {
        return F80::INDEFINITE;
    }
    let ((a_exponent, a_bits), (b_exponent, b_bits)) = (a.normalized(), b.normalized());
    let (exponent, magnitude) = div_magnitudes(a_exponent, a_bits, b_exponent, b_bits);
    cx.round(negative, exponent, magnitude)
}

/// The square root.
pub fn sqrt(cx: &mut Context, a: F80) -> F80 {
    if let Some(nan) = nan_operand(cx, a) {
        return nan;
    }
    match a.class() {
        Class::Zero => return a,
        _ if a.is_negative() => return cx.invalid(),
        Class::Infinity => return a,
        _ => {}
    }
    if cx.check_denormal(&[a]) {
        return F80::INDEFINITE;
    }
    let (exponent, significand) = a.normalized();
    let unbiased = exponent - BIAS;
    let odd = unbiased & 1;
    let square = u128::from(significand) << (63 + odd);
    let root = square.isqrt();
    let remainder = square - root * root;
    // (root + 1/2)^2 = root^2 + root + 1/4, so a remainder above the root is above one half.
    let half = remainder > root;
    let rest = u128::from(half) << 63 | u128::from(remainder != 0);
    cx.round(false, ((unbiased - odd) >> 1) + BIAS, root << 64 | rest)
}

/// The low bits of a complete reduction's quotient go to the condition codes (SDM volume 2, FPREM).
fn set_quotient(cx: &mut Context, quotient: u128) {
    let bit = |n: u32, code: u16| if quotient >> n & 1 != 0 { code } else { 0 };
    cx.determine(C0 | C1 | C3, bit(0, C1) | bit(1, C3) | bit(2, C0));
}

/// FPREM (`nearest` false: the quotient is truncated) and FPREM1 (`nearest` true: IEEE remainder).
/// C2 is set if the reduction is incomplete, else C0, C3, C1 are the quotient's low bits.
pub fn remainder(cx: &mut Context, a: F80, b: F80, nearest: bool) -> F80 {
    if let Some(nan) = nan_result(cx, a, b) {
        return nan;
    }
    match (a.class(), b.class()) {
        (Class::Infinity, _) | (_, Class::Zero) => return cx.invalid(),
        _ => {}
    }
    if cx.check_denormal(&[a, b]) {
        return F80::INDEFINITE;
    }
    if a.class() == Class::Zero {
        set_quotient(cx, 0);
        return a;
    }
    // An infinite divisor works like any large one: its exponent is the highest.
    let ((a_exponent, a_bits), (b_exponent, b_bits)) = (a.normalized(), b.normalized());
    let (a_bits, b_bits) = (u128::from(a_bits), u128::from(b_bits));
    let difference = a_exponent - b_exponent;
    let mut negative = a.is_negative();
    // The remainder, and the exponent that belongs to it before it is normalised.
    let (exponent, rest) = match difference {
        ..-1 => {
            set_quotient(cx, 0);
            (a_exponent, a_bits)
        }
        -1 if nearest && a_bits > b_bits && b.class() != Class::Infinity => {
            negative = !negative;
            set_quotient(cx, 1);
            (a_exponent, (b_bits << 1) - a_bits)
        }
        -1 => {
            set_quotient(cx, 0);
            (a_exponent, a_bits)
        }
        0..64 => {
            let dividend = a_bits << difference;
            let (mut quotient, mut rest) = (dividend / b_bits, dividend % b_bits);
            if nearest && (rest << 1 > b_bits || (rest << 1 == b_bits && quotient & 1 != 0)) {
                rest = b_bits - rest;
                quotient += 1;
                negative = !negative;
            }
            set_quotient(cx, quotient);
            (b_exponent, rest)
        }
        _ => {
            // A partial reduction by 32 to 63 bits.
            let step = difference & 31 | 32;
            cx.determine(C0 | C2 | C3, C2);
            (b_exponent + difference - step, (a_bits << step) % b_bits)
        }
    };
    if rest == 0 {
        return F80::ZERO.with_sign(a.is_negative());
    }
    let shift = rest.leading_zeros();
    cx.round_full(negative, exponent + 64 - shift as i32, rest << shift)
}

/// FSCALE: `a` times two to the power of `b` truncated to an integer.
pub fn scale(cx: &mut Context, a: F80, b: F80) -> F80 {
    if let Some(nan) = nan_result(cx, a, b) {
        return nan;
    }
    let negative = a.is_negative();
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) if b.is_negative() => return cx.invalid(),
        (Class::Zero, Class::Infinity) if !b.is_negative() => return cx.invalid(),
        _ => {}
    }
    if cx.check_denormal(&[a, b]) {
        return F80::INDEFINITE;
    }
    match (a.class(), b.class()) {
        (Class::Infinity | Class::Zero, _) => return a,
        (_, Class::Infinity) if b.is_negative() => return F80::ZERO.with_sign(negative),
        (_, Class::Infinity) => return F80::INFINITY.with_sign(negative),
        _ => {}
    }
    let (exponent, significand) = a.normalized();
    cx.round_full(negative, exponent + clamped_integer(b), u128::from(significand) << 64)
}

/// A finite number truncated to an integer, no larger than any scaling can tell apart.
fn clamped_integer(x: F80) -> i32 {
    const LARGEST: i32 = 0x20000;
    let magnitude = match i32::from(x.exponent()) - BIAS {
        ..0 => 0,
        power @ 0..=16 => (x.significand >> (63 - power)) as i32,
        _ => LARGEST,
    };
    if x.is_negative() { -magnitude } else { magnitude }
}

/// FXTRACT: the exponent and the significand (as a number from 1 to 2) of `a`.
pub fn extract(cx: &mut Context, a: F80) -> (F80, F80) {
    if let Some(nan) = nan_operand(cx, a) {
        return (nan, nan);
    }
    match a.class() {
        Class::Zero => {
            cx.raise(ZE);
            return (F80::INFINITY.with_sign(true), a);
        }
        Class::Infinity => return (F80::INFINITY, a),
        _ => {}
    }
    if cx.check_denormal(&[a]) {
        return (F80::INDEFINITE, F80::INDEFINITE);
    }
    let (exponent, significand) = a.normalized();
    let exponent = from_i64(i64::from(exponent - BIAS));
    (exponent, F80::new(a.is_negative(), BIAS as u16, significand))
}

/// FRNDINT: rounded to an integer by rounding control.
pub fn round_to_integer(cx: &mut Context, a: F80) -> F80 {
    if let Some(nan) = nan_operand(cx, a) {
        return nan;
    }
    if matches!(a.class(), Class::Zero | Class::Infinity) || cx.check_denormal(&[a]) {
        return a;
    }
    let integer_bits = i32::from(a.exponent()) - BIAS + 1;
    if integer_bits >= 64 {
        return a;
    }
    let (bits, magnitude) = integer_part(a, integer_bits);
    let cut = cx.cut(a.is_negative(), magnitude, bits);
    cx.note(cut);
    if !cut.carry {
        let exponent = if cut.significand == 0 { 0 } else { a.exponent() };
        return F80::new(a.is_negative(), exponent, cut.significand);
    }
    // 1.11 to 10.0; or a fraction to 1.
    let exponent = if integer_bits > 0 { a.exponent() + 1 } else { BIAS as u16 };
    F80::new(a.is_negative(), exponent, INTEGER_BIT)
}

/// How two numbers compare, as C3, C2 and C0 say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The first is below the second.
    Less,
    /// They are equal; zeros of either sign are.
    Equal,
    /// The first is above the second.
    Greater,
    /// One is not a number.
    Unordered,
}

impl Comparison {
    /// The condition codes in the status word.
    pub const fn codes(self) -> u16 {
        match self {
            Comparison::Less => C0,
            Comparison::Equal => C3,
            Comparison::Greater => 0,
            Comparison::Unordered => C0 | C2 | C3,
        }
    }
}

/// Compares. FCOM and its variants raise IE for any NaN, FUCOM and its variants (`quiet`) not for quiet ones.
#[inline]
pub fn compare(cx: &mut Context, a: F80, b: F80, quiet: bool) -> Comparison {
    if (!(a.is_normal() && b.is_normal()) || cx.denormal_source)
        && let Some(settled) = compare_special(cx, a, b, quiet)
    {
        return settled;
    }
    compare_magnitudes(a, b)
}

#[inline]
fn compare_magnitudes(a: F80, b: F80) -> Comparison {
    match order(a).cmp(&order(b)) {
        Ordering::Less => Comparison::Less,
        Ordering::Equal => Comparison::Equal,
        Ordering::Greater => Comparison::Greater,
    }
}

/// A number by which those that are not NaN can be compared: what is negative counts down from zero, and zeros are
/// the same.
#[inline(always)]
pub(super) fn order(a: F80) -> i128 {
    let magnitude = i128::from(a.exponent()) << 64 | i128::from(a.significand);
    let mask = -i128::from(a.is_negative() & (a.significand != 0));
    magnitude ^ mask
}

/// The condition codes in the status word of a comparison of numbers.
#[inline(always)]
pub(super) fn codes(less: bool, equal: bool) -> u16 {
    (u16::from(less) * C0) | (u16::from(equal) * C3)
}

#[cold]
#[inline(never)]
fn compare_special(cx: &mut Context, a: F80, b: F80, quiet: bool) -> Option<Comparison> {
    let classes = [a.class(), b.class()];
    if classes.iter().any(|&class| class.is_nan() || class == Class::Unsupported) {
        if !quiet || !classes.iter().all(|&class| !matches!(class, Class::SignalingNan | Class::Unsupported))
        {
            cx.raise(IE);
        }
        return Some(Comparison::Unordered);
    }
    cx.check_denormal(&[a, b]);
    // A pseudo-denormal is worth as much as the same significand with exponent 1.
    let canonical = |x: F80| match x {
        F80 { significand, .. } if x.exponent() == 0 && significand & INTEGER_BIT != 0 => {
            F80::new(x.is_negative(), 1, significand)
        }
        _ => x,
    };
    Some(compare_magnitudes(canonical(a), canonical(b)))
}

/// FXAM: class and sign in the condition codes. `empty` is the register's tag.
pub fn examine(a: F80, empty: bool) -> u16 {
    let class = match a.class() {
        _ if empty => C3 | C0,
        Class::Unsupported => 0,
        Class::QuietNan | Class::SignalingNan => C0,
        Class::Normal => C2,
        Class::Infinity => C2 | C0,
        Class::Zero => C3,
        Class::Denormal => C3 | C2,
    };
    class | if a.is_negative() { C1 } else { 0 }
}

/// The constants that FLD1 to FLDZ load, by the low three bits of their ModR/M byte. Those that are
/// not exact follow rounding control; SDM volume 1, table 8-9.
pub fn constant(cx: &Context, index: u8) -> F80 {
    rounded_constant(cx.rounding(), index)
}

/// As [`constant`], rounded to nearest.
#[inline(always)]
pub(super) fn nearest_constant(index: u8) -> F80 {
    const CONSTANTS: [F80; 8] = {
        let mut all = [F80::ZERO; 8];
        let mut i = 0;
        while i < all.len() {
            all[i] = rounded_constant(Rounding::Nearest, i as u8);
            i += 1;
        }
        all
    };
    CONSTANTS[usize::from(index & 7)]
}

const fn rounded_constant(rounding: Rounding, index: u8) -> F80 {
    /// A constant as truncated, and whether the nearest value is the next one.
    struct Constant(i32, u64, bool);
    let Constant(exponent, significand, nearest_is_up) = match index {
        0 => Constant(0, INTEGER_BIT, false),
        // log2(10), log2(e), pi, log10(2), ln(2)
        1 => Constant(1, 0xd49a_784b_cd1b_8afe, false),
        2 => Constant(0, 0xb8aa_3b29_5c17_f0bb, true),
        3 => Constant(1, 0xc90f_daa2_2168_c234, true),
        4 => Constant(-2, 0x9a20_9a84_fbcf_f798, true),
        5 => Constant(-1, 0xb172_17f7_d1cf_79ab, true),
        _ => return F80::ZERO,
    };
    let up = match rounding {
        Rounding::Nearest => nearest_is_up,
        Rounding::Up => index != 0,
        Rounding::Down | Rounding::Truncate => false,
    };
    F80::new(false, (BIAS + exponent) as u16, significand + up as u64)
}
