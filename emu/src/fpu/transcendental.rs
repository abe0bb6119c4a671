//! FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1 (SDM volume 1, 8.3.7 to 8.3.10; special
//! cases: the instructions' tables in volume 2).
//!
//! Arguments are reduced to where a power series converges fast, the series is summed in 128-bit
//! fixed point, and the result is rounded once, so that it is the correctly rounded one but for
//! about one case in 2^60. As on hardware, trigonometric arguments are reduced by a pi of 66 bits.

use super::arith::{nan_operand, nan_result};
use super::f80::{BIAS, Class, F80, INTEGER_BIT};
use super::round::{C1, Context, PE, UE, ZE};
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
        Angle::Finite => Some(sine_of(x).round_inexact(cx)),
    }
}

/// FCOS; `None` if the argument is out of range.
pub fn cos(cx: &mut Context, x: F80) -> Option<F80> {
    match examine_angle(cx, x) {
        Angle::OutOfRange => None,
        Angle::Nan(nan) => Some(nan),
        Angle::Zero => Some(F80::ONE),
        Angle::Finite => Some(cosine_of(x).round_inexact(cx)),
    }
}

/// FSINCOS: sine, then the cosine that is pushed on it; `None` if the argument is out of range.
pub fn sin_cos(cx: &mut Context, x: F80) -> Option<(F80, F80)> {
    match examine_angle(cx, x) {
        Angle::OutOfRange => None,
        Angle::Nan(nan) => Some((nan, nan)),
        Angle::Zero => Some((x, F80::ONE)),
        Angle::Finite => {
            let sine = sine_of(x).round_inexact(cx);
            // C1 is that of the later result.
            cx.flags &= !C1;
            Some((sine, cosine_of(x).round_inexact(cx)))
        }
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
            Some((value.round_inexact(cx), F80::ONE))
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
    Wide { negative: y.is_negative(), ..angle }.round_inexact(cx)
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
    (t * sum).round_inexact(cx)
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
        _ => y_times(cx, y, log2(Wide::from_f80(x))),
    }
}

/// The product that FYL2X and FYL2XP1 end with. To hardware it is inexact, and if tiny an underflow,
/// even where a power of two makes it exact.
fn y_times(cx: &mut Context, y: F80, logarithm: Wide) -> F80 {
    cx.raise(PE);
    let product = (Wide::from_f80(y) * logarithm).round(cx);
    if product.is_denormal() {
        cx.raise(UE);
    }
    product
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
    if x.is_negative() && i32::from(x.exponent()) >= BIAS {
        // The logarithm of zero or less: undefined, and hardware leaves the operand.
        cx.raise(PE);
        return x;
    }
    let wide = Wide::from_f80(x);
    let logarithm = if wide.exponent < -1 {
        log2_of_ratio(wide / (wide + Wide::ONE.scaled(1)))
    } else {
        log2(wide + Wide::ONE)
    };
    y_times(cx, y, logarithm)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Function, rounding control, x, y, result: correctly rounded from 400 bits.
    type Vector = (&'static str, u16, (u16, u64), (u16, u64), (u16, u64));

    const VECTORS: &[Vector] = &[
        (
            "exp2_minus_1",
            2,
            (0x3ffa, 0x979f_ffff_ffff_ffff),
            (0x4019, 0xd687_fb18_e89e_60bf),
            (0x3ff9, 0xd4ea_b31f_98c5_68ec),
        ),
        (
            "exp2_minus_1",
            1,
            (0x3ff3, 0xf5b9_4497_f02f_6000),
            (0xbfe2, 0x8000_0000_0000_0000),
            (0x3ff3, 0xaa59_b13e_7d75_42dd),
        ),
        (
            "exp2_minus_1",
            3,
            (0x3ff1, 0x8000_00ff_ffff_fffe),
            (0x3fee, 0xcf86_afff_ffff_ffff),
            (0x3ff0, 0xb173_0f59_8d2c_60de),
        ),
        (
            "exp2_minus_1",
            2,
            (0xbff3, 0x800f_8385_bd57_de89),
            (0x3fe9, 0xffff_93c5_45fd_835c),
            (0xbff2, 0xb183_c0d2_b466_2860),
        ),
        (
            "y_log2_x",
            1,
            (0x403c, 0xd5a9_6de6_6f15_bf82),
            (0xbff1, 0x8c36_97ff_ffff_ffff),
            (0xbff7, 0x8742_9bea_384d_b6b2),
        ),
        (
            "y_log2_x",
            1,
            (0x400b, 0xd942_8b1f_ef65_4fa8),
            (0xc026, 0x963a_a733_146d_b0c3),
            (0xc029, 0xefad_4fd3_194c_bf8c),
        ),
        (
            "y_log2_x",
            2,
            (0x401b, 0xfcb0_0b86_133f_88de),
            (0xbff8, 0xca56_4928_7ae0_baeb),
            (0xbffd, 0xb73f_c899_7e2c_63a3),
        ),
        (
            "y_log2_x",
            3,
            (0x3ffd, 0xffff_ffff_ffff_ffff),
            (0x4022, 0xffff_ffff_ffff_ffff),
            (0xc023, 0x8000_0000_0000_0000),
        ),
        (
            "tan",
            0,
            (0x4019, 0xf26d_bc83_f588_8fe0),
            (0xbfd9, 0xffff_ffff_ffff_ffff),
            (0xbffb, 0x9941_75ff_a0ae_66f8),
        ),
        (
            "tan",
            2,
            (0xc011, 0x8f97_ca14_cf15_5ddd),
            (0xbff3, 0xe60d_0000_0000_0000),
            (0xbffb, 0xe208_83c1_b51d_f808),
        ),
        (
            "tan",
            2,
            (0x403c, 0x9532_1df8_a0f3_ef0b),
            (0xbfd8, 0xe7ff_ffff_ffff_ffff),
            (0x3ffe, 0xd328_316f_174f_e602),
        ),
        (
            "tan",
            3,
            (0x3ff8, 0xb416_7699_9aea_71fa),
            (0xbfef, 0xe070_8760_0000_0000),
            (0x3ff8, 0xb418_51ed_42ab_873b),
        ),
        (
            "atan",
            1,
            (0xc024, 0xae09_2038_eddb_7608),
            (0x3ff8, 0xffff_ffff_ffff_ffff),
            (0x4000, 0xc90f_daa2_2162_dff0),
        ),
        (
            "atan",
            0,
            (0x4028, 0xcb07_999e_f21e_b000),
            (0x4023, 0x8000_007f_ffff_ffff),
            (0x3ff9, 0xa15f_cebf_d2c4_3e5f),
        ),
        (
            "atan",
            1,
            (0x400c, 0xffff_ffff_ffff_ffff),
            (0xc001, 0x8000_0000_0002_0000),
            (0xbff2, 0xffff_ffaa_aaae_dddf),
        ),
        (
            "atan",
            3,
            (0xc00e, 0x873a_cf61_6abf_ffff),
            (0x3ff4, 0xb541_15c9_c396_56a1),
            (0x4000, 0xc90f_da8c_af5d_1850),
        ),
        (
            "y_log2_x_plus_1",
            3,
            (0xbff1, 0xee06_8589_2da2_07ff),
            (0xbfe6, 0x8000_0000_0000_0000),
            (0x3fd9, 0xabb5_75f0_a0f4_042f),
        ),
        (
            "y_log2_x_plus_1",
            1,
            (0xbff2, 0xd362_afdc_09cc_385f),
            (0xc001, 0x9000_0000_0000_0000),
            (0x3ff5, 0xab8f_5bf6_0b05_88e7),
        ),
        (
            "y_log2_x_plus_1",
            0,
            (0x3ffa, 0xbbba_f0c9_b2d1_a671),
            (0xc00a, 0x8292_ed52_2d1c_6d8b),
            (0xc006, 0x8711_d676_dce4_033b),
        ),
        (
            "y_log2_x_plus_1",
            3,
            (0xbffa, 0x94e0_fce6_3dab_e541),
            (0xc021, 0x8000_0000_0000_4000),
            (0x401c, 0xdac9_99c9_484c_4a69),
        ),
        (
            "sin",
            3,
            (0xc023, 0xffff_ffff_ffff_ffff),
            (0x4026, 0xaa91_026f_ab4b_57fd),
            (0xbffd, 0xaafa_2b58_76f1_2bee),
        ),
        (
            "sin",
            0,
            (0x402b, 0xce18_35e9_3d6a_d408),
            (0xbfee, 0xbe0b_07f1_1661_f195),
            (0xbffe, 0xeba1_4eee_159c_cc2a),
        ),
        (
            "sin",
            2,
            (0x403c, 0x9b3b_56af_170f_ffff),
            (0x3fee, 0x8000_0000_0100_0000),
            (0xbffe, 0xc0a2_468e_fa7c_c996),
        ),
        (
            "sin",
            3,
            (0x3ff2, 0xd645_0c33_ac92_9716),
            (0x400d, 0x8000_0000_0000_0000),
            (0x3ff2, 0xd645_0c1a_a7fc_265c),
        ),
        (
            "cos",
            0,
            (0x3ff2, 0xffff_ffff_ffff_ffff),
            (0xbfda, 0x8e64_8109_8404_bc75),
            (0x3ffe, 0xffff_ff80_0000_0aab),
        ),
        (
            "cos",
            2,
            (0xc021, 0xdd90_ec38_d3ba_27ca),
            (0xc00e, 0xbc10_2e83_4a2d_7107),
            (0xbffd, 0x911b_b210_9223_eba7),
        ),
        (
            "cos",
            3,
            (0x400a, 0x8000_01ff_ffff_ffff),
            (0xbffc, 0xffff_ffff_ffff_ffff),
            (0x3ffe, 0xf32b_ccbd_ce6b_7a17),
        ),
        (
            "cos",
            2,
            (0x401d, 0xffff_ffff_ffff_ffff),
            (0xbfef, 0x8000_0800_0000_0000),
            (0x3ffc, 0xf386_16a6_b372_8c64),
        ),
    ];

    #[test]
    fn correctly_rounded() {
        let value = |(sign_exponent, significand)| F80 { significand, sign_exponent };
        for &(function, rounding, x, y, result) in VECTORS {
            let (x, y) = (value(x), value(y));
            let mut cx = Context::new(0x37f | rounding << 10);
            let ours = match function {
                "exp2_minus_1" => Some(exp2_minus_1(&mut cx, x)),
                "y_log2_x" => Some(y_log2_x(&mut cx, y, x)),
                "y_log2_x_plus_1" => Some(y_log2_x_plus_1(&mut cx, y, x)),
                "atan" => Some(atan(&mut cx, y, x)),
                "tan" => tan(&mut cx, x).map(|(tangent, _)| tangent),
                "sin" => sin(&mut cx, x),
                _ => cos(&mut cx, x),
            };
            assert_eq!(ours, Some(value(result)), "{function} {x:x?} {y:x?}");
        }
    }

    #[test]
    fn arguments_from_2_to_the_63rd_are_out_of_range() {
        let mut cx = Context::new(0x37f);
        let limit = F80::new(true, (BIAS + 63) as u16, INTEGER_BIT);
        assert_eq!(sin(&mut cx, limit), None);
        assert_eq!(tan(&mut cx, limit), None);
        assert!(cos(&mut cx, F80::new(false, (BIAS + 62) as u16, u64::MAX)).is_some());
    }
}
