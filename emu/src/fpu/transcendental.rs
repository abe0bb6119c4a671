//! FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1 (SDM volume 1, 8.3.7 to 8.3.10; special
//! cases: the instructions' tables in volume 2).
//!
//! Arguments are reduced to where a power series converges fast, the series is summed in 128-bit
//! fixed point, and the result is rounded once, so that it is the correctly rounded one but for
//! about one case in 2^60. As on hardware, trigonometric arguments are reduced by a pi of 66 bits.

use super::arith::{nan_operand, nan_result};
use super::f80::{BIAS, Class, F80, INTEGER_BIT};
use super::round::{Context, PE, UE, ZE};
use super::wide::{Wide, mul_high};

/// One, in the units of 2^-127 that the series are summed in.
const UNIT: u128 = 1 << 127;

/// log2(e).
const LOG2_E: Wide =
    Wide { negative: false, exponent: 0, significand: 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89 };
/// ln(2).
const LN_2: Wide =
    Wide { negative: false, exponent: -1, significand: 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af };
/// pi.
const PI: Wide =
    Wide { negative: false, exponent: 1, significand: 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 };

/// pi/2 as range reduction takes it: 66 bits of pi (SDM volume 1, 8.3.8), in units of 2^-65.
const HALF_PI_66: u128 = 0x3_243f_6a88_85a3_08d3;
const HALF_PI_FRACTION: u32 = 65;

/// atan(k/8) in units of 2^-127.
const ARCTANGENTS: [u128; 9] = [
    0,
    0x0fea_dd4d_5617_b6e3_2c89_7989_f3e8_88ef,
    0x1f5b_75f9_2c80_dd62_adb8_f3de_bef4_42fd,
    0x2dec_3283_c9bd_e11c_e2a8_c848_b73f_9121,
    0x3b58_ce0a_c376_9ed1_5bf9_117b_2f0e_a341,
    0x4780_2eaf_7bfa_cfcd_ae41_af0b_32e2_1ba4,
    0x525e_3e8c_9a7b_8492_0cd4_3f95_22be_d64f,
    0x5c02_9f15_e118_cf39_e596_d2a9_0852_221f,
    0x6487_ed51_10b4_611a_6263_3145_c06e_0e69,
];

/// The coefficients 1/n! for n = first, first + step, ...
const fn inverse_factorials<const N: usize>(first: u128, step: u128) -> [u128; N] {
    let mut table = [0; N];
    let (mut value, mut n, mut i) = (UNIT, 1, 0);
    while i < N {
        while n <= first + step * i as u128 {
            value /= n;
            n += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
}

/// The coefficients 1, 1/3, 1/5, ...
const fn inverse_odds<const N: usize>() -> [u128; N] {
    let mut table = [0; N];
    let mut i = 0;
    while i < N {
        table[i] = UNIT / (2 * i as u128 + 1);
        i += 1;
    }
    table
}

// Each long enough for the largest argument that its function is reduced to.
const SINE: [u128; 17] = inverse_factorials(1, 2);
const COSINE: [u128; 17] = inverse_factorials(0, 2);
const EXPONENTIAL: [u128; 31] = inverse_factorials(1, 1);
const ARCTANGENT: [u128; 16] = inverse_odds();
const LOGARITHM: [u128; 26] = inverse_odds();

/// c0 + c1 x + c2 x^2 + ..., x in units of 2^-128.
fn series(coefficients: &[u128], x: u128) -> Wide {
    let sum = coefficients.iter().rev().fold(0, |sum, c| c + mul_high(sum, x));
    Wide::from_fixed(false, sum, 127)
}

/// c0 - c1 x + c2 x^2 - ... with falling terms. When c0 is 1 the sum stays below it however small
/// `x`: rounding has to know that the result is not exact.
fn alternating_series(coefficients: &[u128], x: u128) -> Wide {
    let sum = coefficients.iter().rev().fold(0, |sum, c| c - mul_high(sum, x));
    Wide::from_fixed(false, sum.min(UNIT - 1), 127)
}

/// An angle after range reduction.
struct Reduced {
    /// Multiples of pi/2 taken off the magnitude, modulo 4.
    quadrant: u32,
    /// What remains, within pi/4 of 0.
    rest: Wide,
}

/// Reduces the magnitude of a number below 2^63.
fn reduce(x: F80) -> Reduced {
    let (exponent, significand) = x.normalized();
    let power = exponent - BIAS;
    if power < -1 {
        return Reduced { quadrant: 0, rest: Wide::from_f80(x.with_sign(false)) };
    }
    // Exact: at most 128 bits.
    let shift = (power - 63 + HALF_PI_FRACTION as i32) as u32;
    let magnitude = u128::from(significand) << shift;
    let (quotient, rest) = (magnitude / HALF_PI_66, magnitude % HALF_PI_66);
    let quadrant = quotient as u32 & 3;
    if 2 * rest <= HALF_PI_66 {
        Reduced { quadrant, rest: Wide::from_fixed(false, rest, HALF_PI_FRACTION) }
    } else {
        let rest = Wide::from_fixed(true, HALF_PI_66 - rest, HALF_PI_FRACTION);
        Reduced { quadrant: (quadrant + 1) & 3, rest }
    }
}

/// Sine within pi/4 of 0.
fn sine(x: Wide) -> Wide {
    x * alternating_series(&SINE, x.square())
}

/// Cosine within pi/4 of 0.
fn cosine(x: Wide) -> Wide {
    alternating_series(&COSINE, x.square())
}

/// Tangent within pi/4 of 0.
fn tangent(x: Wide) -> Wide {
    if x.exponent < -50 {
        // x + x^3/3; above x even if the last bit alone can show it.
        let value = x * Wide::from_fixed(false, UNIT + x.square() / 6, 127);
        return Wide { significand: value.significand | 1, ..value };
    }
    sine(x) / cosine(x)
}

/// What a trigonometric instruction finds before it computes.
enum Angle {
    /// 2^63 or more: C2 is set and nothing else happens.
    OutOfRange,
    /// The result is this NaN.
    Nan(F80),
    /// Plus or minus zero.
    Zero,
    /// A number to compute with.
    Finite,
}

fn examine_angle(cx: &mut Context, x: F80) -> Angle {
    if let Some(nan) = nan_operand(cx, x) {
        return Angle::Nan(nan);
    }
    match x.class() {
        Class::Infinity => Angle::Nan(cx.invalid()),
        Class::Zero => Angle::Zero,
        _ if i32::from(x.exponent()) >= BIAS + 63 => Angle::OutOfRange,
        _ if cx.check_denormal(&[x]) => Angle::Nan(F80::INDEFINITE),
        _ => Angle::Finite,
    }
}

fn sine_of(x: F80) -> Wide {
    let Reduced { quadrant, rest } = reduce(x);
    let value = if quadrant & 1 == 0 { sine(rest) } else { cosine(rest) };
    if x.is_negative() != (quadrant & 2 != 0) { -value } else { value }
}

fn cosine_of(x: F80) -> Wide {
    let Reduced { quadrant, rest } = reduce(x);
    let value = if quadrant & 1 == 0 { cosine(rest) } else { sine(rest) };
    if matches!(quadrant, 1 | 2) { -value } else { value }
}

/// FSIN; `None` if the argument is out of range.
pub fn sin(cx: &mut Context, x: F80) -> Option<F80> {
    match examine_angle(cx, x) {
        Angle::OutOfRange => None,
        Angle::Nan(nan) => Some(nan),
        Angle::Zero => Some(x),
        Angle::Finite => Some(sine_of(x).round(cx)),
    }
}

/// FCOS; `None` if the argument is out of range.
pub fn cos(cx: &mut Context, x: F80) -> Option<F80> {
    match examine_angle(cx, x) {
        Angle::OutOfRange => None,
        Angle::Nan(nan) => Some(nan),
        Angle::Zero => Some(F80::ONE),
        Angle::Finite => Some(cosine_of(x).round(cx)),
    }
}

/// FSINCOS: sine, then the cosine that is pushed on it; `None` if the argument is out of range.
pub fn sin_cos(cx: &mut Context, x: F80) -> Option<(F80, F80)> {
    match examine_angle(cx, x) {
        Angle::OutOfRange => None,
        Angle::Nan(nan) => Some((nan, nan)),
        Angle::Zero => Some((x, F80::ONE)),
        Angle::Finite => Some((sine_of(x).round(cx), cosine_of(x).round(cx))),
    }
}

/// FPTAN: tangent, then the 1 that is pushed on it; `None` if the argument is out of range.
pub fn tan(cx: &mut Context, x: F80) -> Option<(F80, F80)> {
    match examine_angle(cx, x) {
        Angle::OutOfRange => None,
        Angle::Nan(nan) => Some((nan, nan)),
        Angle::Zero => Some((x, F80::ONE)),
        Angle::Finite => {
            let Reduced { quadrant, rest } = reduce(x);
            let value = if quadrant & 1 == 0 { tangent(rest) } else { -(cosine(rest) / sine(rest)) };
            let value = if x.is_negative() { -value } else { value };
            Some((value.round(cx), F80::ONE))
        }
    }
}

/// Arctangent of a number from 0 to 1.
fn arctangent(t: Wide) -> Wide {
    // The nearest eighth: atan(t) = atan(k/8) + atan((t - k/8) / (1 + t k/8)).
    let eighths = (t.to_fixed(127) >> 123) as usize;
    let k = eighths.div_ceil(2).min(8);
    let (base, u) = if k == 0 {
        (Wide::ZERO, t)
    } else {
        let c = Wide::from_fixed(false, k as u128, 3);
        (Wide::from_fixed(false, ARCTANGENTS[k], 127), (t - c) / (Wide::ONE + t * c))
    };
    base + u * alternating_series(&ARCTANGENT, u.square())
}

/// FPATAN: the angle of the point (`x`, `y`).
pub fn atan(cx: &mut Context, y: F80, x: F80) -> F80 {
    if let Some(nan) = nan_result(cx, y, x) {
        return nan;
    }
    if cx.check_denormal(&[y, x]) {
        return F80::INDEFINITE;
    }
    let angle = match (y.class(), x.class()) {
        (Class::Infinity, Class::Infinity) => PI.scaled(-2),
        (Class::Infinity, _) => PI.scaled(-1),
        (_, Class::Infinity) | (Class::Zero, _) => Wide::ZERO,
        (_, Class::Zero) => PI.scaled(-1),
        _ => {
            let (y, x) = (Wide::from_f80(y.with_sign(false)), Wide::from_f80(x.with_sign(false)));
            if (y.exponent, y.significand) <= (x.exponent, x.significand) {
                arctangent(y / x)
            } else {
                PI.scaled(-1) - arctangent(x / y)
            }
        }
    };
    let angle = if x.is_negative() { PI - angle } else { angle };
    Wide { negative: y.is_negative(), ..angle }.round(cx)
}

/// F2XM1: 2^x - 1.
pub fn exp2_minus_1(cx: &mut Context, x: F80) -> F80 {
    if let Some(nan) = nan_operand(cx, x) {
        return nan;
    }
    match x.class() {
        Class::Zero => return x,
        Class::Infinity if x.is_negative() => return F80::ONE.negated(),
        Class::Infinity => return x,
        _ => {}
    }
    if cx.check_denormal(&[x]) {
        return F80::INDEFINITE;
    }
    if i32::from(x.exponent()) >= BIAS {
        // Beyond 1 and -1, where the result is undefined, hardware leaves the operand.
        cx.raise(PE);
        let half = F80::new(true, (BIAS - 1) as u16, INTEGER_BIT);
        return if x == F80::ONE.negated() { half } else { x };
    }
    let t = Wide::from_f80(x) * LN_2;
    let terms = t.to_fixed(128);
    let sum =
        if x.is_negative() { alternating_series(&EXPONENTIAL, terms) } else { series(&EXPONENTIAL, terms) };
    (t * sum).round(cx)
}

/// log2((1 + s) / (1 - s)), s small.
fn log2_of_ratio(s: Wide) -> Wide {
    s * series(&LOGARITHM, s.square()) * LOG2_E.scaled(1)
}

/// log2 of a positive number.
fn log2(x: Wide) -> Wide {
    /// The square root of two.
    const SQRT_2: u128 = 0xb504_f333_f9de_6484 << 64;
    let above = x.significand > SQRT_2;
    let m = Wide { exponent: -i32::from(above), ..x };
    let fraction = log2_of_ratio((m - Wide::ONE) / (m + Wide::ONE));
    Wide::from_integer(x.exponent + i32::from(above)) + fraction
}

/// FYL2X: y log2(x).
pub fn y_log2_x(cx: &mut Context, y: F80, x: F80) -> F80 {
    if let Some(nan) = nan_result(cx, y, x) {
        return nan;
    }
    if x.is_negative() && x.class() != Class::Zero {
        return cx.invalid();
    }
    // Whether the logarithm is below zero.
    let negative = y.is_negative() != (i32::from(x.exponent()) < BIAS);
    match (y.class(), x.class()) {
        (Class::Zero, Class::Zero | Class::Infinity) => return cx.invalid(),
        (Class::Infinity, _) if x == F80::ONE => return cx.invalid(),
        (Class::Infinity, Class::Zero) => return F80::INFINITY.with_sign(!y.is_negative()),
        (_, Class::Zero) => {
            cx.raise(ZE);
            return F80::INFINITY.with_sign(!y.is_negative());
        }
        _ => {}
    }
    if cx.check_denormal(&[y, x]) {
        return F80::INDEFINITE;
    }
    match (y.class(), x.class()) {
        (Class::Infinity, _) | (_, Class::Infinity) => F80::INFINITY.with_sign(negative),
        (Class::Zero, _) => F80::ZERO.with_sign(negative),
        _ if x == F80::ONE => F80::ZERO.with_sign(y.is_negative()),
        _ => {
            // Inexact to hardware even where a power of two makes it exact.
            cx.raise(PE);
            let result = (Wide::from_f80(y) * log2(Wide::from_f80(x))).round(cx);
            if result.is_denormal() {
                cx.raise(UE);
            }
            result
        }
    }
}

/// FYL2XP1: y log2(x + 1).
pub fn y_log2_x_plus_1(cx: &mut Context, y: F80, x: F80) -> F80 {
    if let Some(nan) = nan_result(cx, y, x) {
        return nan;
    }
    let negative = y.is_negative() != x.is_negative();
    match (y.class(), x.class()) {
        (_, Class::Infinity) if x.is_negative() => return cx.invalid(),
        (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero) => return cx.invalid(),
        _ => {}
    }
    if cx.check_denormal(&[y, x]) {
        return F80::INDEFINITE;
    }
    match (y.class(), x.class()) {
        (Class::Infinity, _) | (_, Class::Infinity) => return F80::INFINITY.with_sign(negative),
        (Class::Zero, _) | (_, Class::Zero) => return F80::ZERO.with_sign(negative),
        _ => {}
    }
    cx.raise(PE);
    if x.is_negative() && i32::from(x.exponent()) >= BIAS {
        // The logarithm of zero or less: undefined, and hardware leaves the operand.
        return x;
    }
    let wide = Wide::from_f80(x);
    let logarithm = if wide.exponent < -1 {
        log2_of_ratio(wide / (wide + Wide::ONE.scaled(1)))
    } else {
        log2(wide + Wide::ONE)
    };
    (Wide::from_f80(y) * logarithm).round(cx)
}
