//! IEEE 754 arithmetic on bit patterns, in integers, as SSE does it: all four rounding modes,
//! tininess detected after rounding, DAZ and FTZ, x86's choice of NaN.
//!
//! Every operation takes and returns patterns, never a host `f32` or `f64`: hosts differ in the
//! NaNs they make. `float` puts the host's arithmetic in front where that is provably equal.

use core::cmp::Ordering;

use super::mxcsr::{DE, Env, IE, OE, PE, Rounding, UE, ZE};

/// A binary interchange format, held as its bits.
pub trait Float: Copy + PartialEq {
    /// Bits of the whole.
    const BITS: u32;
    /// Bits of the fraction.
    const FRACTION: u32;

    /// From the low bits of `bits`.
    fn from_bits(bits: u64) -> Self;
    /// Zero-extended.
    fn bits(self) -> u64;

    /// Lane `i` of a register.
    fn lane(register: &u128, i: usize) -> Self;
    /// Replaces lane `i` of a register.
    fn set_lane(self, register: &mut u128, i: usize);

    /// The host's addition, to nearest.
    fn host_add(self, other: Self) -> Self;
    /// The host's subtraction, to nearest.
    fn host_sub(self, other: Self) -> Self;
    /// The host's multiplication, to nearest.
    fn host_mul(self, other: Self) -> Self;
    /// The host's division, to nearest.
    fn host_div(self, other: Self) -> Self;
    /// The host's square root, to nearest.
    fn host_sqrt(self) -> Self;

    /// The sign bit.
    const SIGN: u64 = 1 << (Self::BITS - 1);
    /// The fraction's bits, and the distance between one exponent and the next.
    const FRACTION_MASK: u64 = (1 << Self::FRACTION) - 1;
    /// Set in the fraction of a quiet NaN.
    const QUIET: u64 = 1 << (Self::FRACTION - 1);
    /// Positive infinity; also the exponent's mask.
    const INFINITY: u64 = Self::SIGN - (1 << Self::FRACTION);
    /// The QNaN that invalid operations give.
    const DEFAULT_NAN: u64 = Self::SIGN | Self::INFINITY | Self::QUIET;
    /// The smallest positive normal number.
    const MIN_NORMAL: u64 = 1 << Self::FRACTION;
    /// The exponent of the largest finite numbers.
    const EXPONENT_MAX: i32 = (1 << (Self::BITS - Self::FRACTION - 2)) - 1;
    /// The exponent of the smallest normal numbers.
    const EXPONENT_MIN: i32 = 1 - Self::EXPONENT_MAX;

    /// Without the sign.
    #[inline]
    fn magnitude(self) -> u64 {
        self.bits() & !Self::SIGN
    }

    /// The sign bit is set.
    #[inline]
    fn negative(self) -> bool {
        self.bits() & Self::SIGN != 0
    }

    /// A NaN of either kind.
    #[inline]
    fn is_nan(self) -> bool {
        self.magnitude() > Self::INFINITY
    }

    /// A signaling NaN.
    #[inline]
    fn is_signaling(self) -> bool {
        self.is_nan() && self.bits() & Self::QUIET == 0
    }

    /// An infinity.
    #[inline]
    fn is_infinite(self) -> bool {
        self.magnitude() == Self::INFINITY
    }

    /// A zero.
    #[inline]
    fn is_zero(self) -> bool {
        self.magnitude() == 0
    }

    /// A nonzero number below the normal ones.
    #[inline]
    fn is_denormal(self) -> bool {
        self.magnitude().wrapping_sub(1) < Self::MIN_NORMAL - 1
    }

    /// Neither denormal nor zero, infinite or NaN.
    #[inline]
    fn is_normal(self) -> bool {
        (Self::MIN_NORMAL..Self::INFINITY).contains(&self.magnitude())
    }

    /// The same NaN, quiet.
    #[inline]
    fn quieted(self) -> Self {
        Self::from_bits(self.bits() | Self::QUIET)
    }

    /// A magnitude with a sign.
    #[inline]
    fn signed(negative: bool, magnitude: u64) -> Self {
        Self::from_bits(if negative { Self::SIGN | magnitude } else { magnitude })
    }

    /// A finite number as (significand, exponent): the magnitude is significand * 2^exponent.
    #[inline]
    fn unpack(self) -> (u64, i32) {
        let biased = (self.magnitude() >> Self::FRACTION) as i32;
        let fraction = self.bits() & Self::FRACTION_MASK;
        let significand = if biased == 0 { fraction } else { fraction | Self::MIN_NORMAL };
        (significand, biased.max(1) - Self::EXPONENT_MAX - Self::FRACTION as i32)
    }
}

macro_rules! float {
    ($(#[$doc:meta])* $name:ident, $bits:ty, $host:ty, $width:literal, $fraction:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $bits);

        impl $name {
            #[inline(always)]
            fn host(self) -> $host {
                <$host>::from_bits(self.0)
            }
        }

        impl Float for $name {
            const BITS: u32 = $width;
            const FRACTION: u32 = $fraction;

            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                Self(bits as $bits)
            }
            #[inline(always)]
            fn bits(self) -> u64 {
                self.0.into()
            }
            #[inline(always)]
            fn lane(register: &u128, i: usize) -> Self {
                let lanes: &[$bits; 128 / $width] = bytemuck::cast_ref(register);
                Self(lanes[i])
            }
            #[inline(always)]
            fn set_lane(self, register: &mut u128, i: usize) {
                let lanes: &mut [$bits; 128 / $width] = bytemuck::cast_mut(register);
                lanes[i] = self.0;
            }
            #[inline(always)]
            fn host_add(self, other: Self) -> Self {
                Self((self.host() + other.host()).to_bits())
            }
            #[inline(always)]
            fn host_sub(self, other: Self) -> Self {
                Self((self.host() - other.host()).to_bits())
            }
            #[inline(always)]
            fn host_mul(self, other: Self) -> Self {
                Self((self.host() * other.host()).to_bits())
            }
            #[inline(always)]
            fn host_div(self, other: Self) -> Self {
                Self((self.host() / other.host()).to_bits())
            }
            #[inline(always)]
            fn host_sqrt(self) -> Self {
                Self(self.host().sqrt().to_bits())
            }
        }
    };
}

float!(
    /// Binary32.
    Single, u32, f32, 32, 23
);
float!(
    /// Binary64.
    Double, u64, f64, 64, 52
);

/// Shifts right; bits that fall out leave a one in the lowest place, so that rounding still sees
/// that there was something.
fn shift_right_jam(value: u128, count: u32) -> u128 {
    if count == 0 {
        value
    } else if count < 128 {
        value >> count | u128::from(value << (128 - count) != 0)
    } else {
        u128::from(value != 0)
    }
}

/// Drops the low `drop` bits (at least one), rounded. The flag: something was lost.
fn round_off(significand: u64, drop: u32, negative: bool, mode: Rounding) -> (u64, bool) {
    let drop = drop.min(100);
    let wide = u128::from(significand);
    let kept = (wide >> drop) as u64;
    let rest = wide & ((1 << drop) - 1);
    let half = 1 << (drop - 1);
    let up = match mode {
        Rounding::Nearest => rest > half || rest == half && kept & 1 != 0,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
        Rounding::Zero => false,
    };
    (kept + u64::from(up), rest != 0)
}

/// The nearest number to significand * 2^exponent in the current rounding mode, with the flags
/// that finding it raises.
pub fn round<F: Float>(env: &mut Env, negative: bool, significand: u128, exponent: i32) -> F {
    if significand == 0 {
        return F::signed(negative, 0);
    }
    // 64 bits with the highest set; more would not matter beyond "there are some".
    let zeros = significand.leading_zeros();
    let top = shift_right_jam(significand << zeros, 64) as u64;
    let mut exponent = exponent + 127 - zeros as i32;
    let mode = env.rounding();
    let drop = 63 - F::FRACTION;

    let (mut kept, lost) = round_off(top, drop, negative, mode);
    let original = exponent;
    if kept >> (F::FRACTION + 1) != 0 {
        kept >>= 1;
        exponent += 1;
    }
    if exponent < F::EXPONENT_MIN {
        return round_tiny(env, negative, top, original, lost);
    }
    if exponent > F::EXPONENT_MAX {
        return overflow(env, negative, lost);
    }
    if lost {
        env.raise(PE);
    }
    F::signed(negative, kept + (((exponent - F::EXPONENT_MIN) as u64) << F::FRACTION))
}

/// [`round`] for results that are tiny even after rounding with an unbounded exponent.
fn round_tiny<F: Float>(
    env: &mut Env,
    negative: bool,
    top: u64,
    exponent: i32,
    lost_if_unbounded: bool,
) -> F {
    if !env.masked(UE) {
        env.raise(if lost_if_unbounded { UE | PE } else { UE });
        return F::signed(negative, 0);
    }
    if env.ftz() {
        env.raise(UE | PE);
        return F::signed(negative, 0);
    }
    let drop = 63 - F::FRACTION + (F::EXPONENT_MIN - exponent) as u32;
    let (kept, lost) = round_off(top, drop, negative, env.rounding());
    if lost {
        env.raise(UE | PE);
    }
    F::signed(negative, kept)
}

fn overflow<F: Float>(env: &mut Env, negative: bool, lost: bool) -> F {
    if !env.masked(OE) {
        env.raise(if lost { OE | PE } else { OE });
        return F::signed(negative, F::INFINITY);
    }
    env.raise(OE | PE);
    let away = match env.rounding() {
        Rounding::Nearest => true,
        Rounding::Down => negative,
        Rounding::Up => !negative,
        Rounding::Zero => false,
    };
    F::signed(negative, if away { F::INFINITY } else { F::INFINITY - 1 })
}

fn invalid<F: Float>(env: &mut Env) -> F {
    env.raise(IE);
    F::from_bits(F::DEFAULT_NAN)
}

/// What NaN operands give: the first one, quiet.
fn propagate<F: Float>(env: &mut Env, a: F, b: F) -> Option<F> {
    if !a.is_nan() && !b.is_nan() {
        return None;
    }
    if a.is_signaling() || b.is_signaling() {
        env.raise(IE);
    }
    Some(if a.is_nan() { a.quieted() } else { b.quieted() })
}

/// A denormal operand raises DE, or is a zero under DAZ.
fn denormal_operand<F: Float>(env: &mut Env, a: F) -> F {
    if !a.is_denormal() {
        a
    } else if env.daz() {
        F::signed(a.negative(), 0)
    } else {
        env.raise(DE);
        a
    }
}

/// The sign of an exact zero that is the sum of two numbers of different sign.
fn cancelled<F: Float>(env: &Env) -> F {
    F::signed(env.rounding() == Rounding::Down, 0)
}

/// a + b.
pub fn add<F: Float>(env: &mut Env, a: F, b: F) -> F {
    if let Some(nan) = propagate(env, a, b) {
        return nan;
    }
    add_numbers(env, a, b)
}

/// a - b.
pub fn sub<F: Float>(env: &mut Env, a: F, b: F) -> F {
    if let Some(nan) = propagate(env, a, b) {
        return nan;
    }
    add_numbers(env, a, F::from_bits(b.bits() ^ F::SIGN))
}

fn add_numbers<F: Float>(env: &mut Env, a: F, b: F) -> F {
    match (a.is_infinite(), b.is_infinite()) {
        (true, true) if a.negative() != b.negative() => return invalid(env),
        (false, false) => {}
        (a_infinite, _) => {
            denormal_operand(env, a);
            denormal_operand(env, b);
            return if a_infinite { a } else { b };
        }
    }
    let (a, b) = (denormal_operand(env, a), denormal_operand(env, b));
    if a.is_zero() && b.is_zero() {
        return if a.negative() == b.negative() { a } else { cancelled(env) };
    }
    let (large, small) = if a.magnitude() >= b.magnitude() { (a, b) } else { (b, a) };
    let (large_significand, large_exponent) = large.unpack();
    let (small_significand, small_exponent) = small.unpack();
    // 64 more places below the larger one: what falls off the smaller one there is far below
    // anything that rounding looks at one by one.
    let distance = (large_exponent - small_exponent) as u32;
    let large_wide = u128::from(large_significand) << 64;
    let small_wide = shift_right_jam(u128::from(small_significand) << 64, distance);
    let sum =
        if large.negative() == small.negative() { large_wide + small_wide } else { large_wide - small_wide };
    if sum == 0 {
        return cancelled(env);
    }
    round(env, large.negative(), sum, large_exponent - 64)
}

/// a * b.
pub fn mul<F: Float>(env: &mut Env, a: F, b: F) -> F {
    if let Some(nan) = propagate(env, a, b) {
        return nan;
    }
    let negative = a.negative() != b.negative();
    let zero = |env: &Env, x: F| x.is_zero() || env.daz() && x.is_denormal();
    if a.is_infinite() && zero(env, b) || zero(env, a) && b.is_infinite() {
        return invalid(env);
    }
    let (a, b) = (denormal_operand(env, a), denormal_operand(env, b));
    if a.is_infinite() || b.is_infinite() {
        return F::signed(negative, F::INFINITY);
    }
    let ((a, a_exponent), (b, b_exponent)) = (a.unpack(), b.unpack());
    round(env, negative, u128::from(a) * u128::from(b), a_exponent + b_exponent)
}

/// a / b.
pub fn div<F: Float>(env: &mut Env, a: F, b: F) -> F {
    if let Some(nan) = propagate(env, a, b) {
        return nan;
    }
    let negative = a.negative() != b.negative();
    let zero = |env: &Env, x: F| x.is_zero() || env.daz() && x.is_denormal();
    if a.is_infinite() && b.is_infinite() || zero(env, a) && zero(env, b) {
        return invalid(env);
    }
    if zero(env, b) && !a.is_infinite() {
        env.raise(ZE);
        return F::signed(negative, F::INFINITY);
    }
    let (a, b) = (denormal_operand(env, a), denormal_operand(env, b));
    if a.is_infinite() {
        return F::signed(negative, F::INFINITY);
    }
    if a.is_zero() || b.is_infinite() {
        return F::signed(negative, 0);
    }
    let ((a, a_exponent), (b, b_exponent)) = (a.unpack(), b.unpack());
    // The dividend's highest bit goes to bit 127, which leaves at least 75 bits of quotient.
    let shift = u128::from(a).leading_zeros();
    let (dividend, divisor) = (u128::from(a) << shift, u128::from(b));
    let inexact = dividend % divisor != 0;
    let quotient = (dividend / divisor) | u128::from(inexact);
    round(env, negative, quotient, a_exponent - shift as i32 - b_exponent)
}

/// The square root of `a`.
pub fn sqrt<F: Float>(env: &mut Env, a: F) -> F {
    if let Some(nan) = propagate(env, a, a) {
        return nan;
    }
    if a.is_zero() || env.daz() && a.is_denormal() {
        return F::signed(a.negative(), 0);
    }
    if a.negative() {
        return invalid(env);
    }
    let a = denormal_operand(env, a);
    if a.is_infinite() {
        return a;
    }
    let (significand, exponent) = a.unpack();
    // To the top of 128 bits, but so that the exponent is even: 64 bits of root.
    let mut shift = u128::from(significand).leading_zeros();
    shift -= (exponent - shift as i32).rem_euclid(2) as u32;
    let square = u128::from(significand) << shift;
    let root = square.isqrt();
    // One place more, for "not exact".
    let wide = root << 1 | u128::from(root * root != square);
    round(env, false, wide, (exponent - shift as i32) / 2 - 1)
}

/// How a compares with b; `None` when a NaN is involved, which raises IE if it is signaling, or
/// in any case if `signal_quiet`.
pub fn compare<F: Float>(env: &mut Env, a: F, b: F, signal_quiet: bool) -> Option<Ordering> {
    if a.is_nan() || b.is_nan() {
        if signal_quiet || a.is_signaling() || b.is_signaling() {
            env.raise(IE);
        }
        return None;
    }
    let (a, b) = (denormal_operand(env, a), denormal_operand(env, b));
    let key = |x: F| {
        let magnitude = x.magnitude() as i64;
        if x.negative() { -magnitude } else { magnitude }
    };
    Some(key(a).cmp(&key(b)))
}

/// To the other format.
pub fn convert<From: Float, To: Float>(env: &mut Env, a: From) -> To {
    if a.is_nan() {
        if a.is_signaling() {
            env.raise(IE);
        }
        // The payload keeps its highest bits.
        let fraction = a.quieted().bits() & From::FRACTION_MASK;
        let payload = if From::FRACTION > To::FRACTION {
            fraction >> (From::FRACTION - To::FRACTION)
        } else {
            fraction << (To::FRACTION - From::FRACTION)
        };
        return To::signed(a.negative(), To::INFINITY | payload);
    }
    if a.is_infinite() {
        return To::signed(a.negative(), To::INFINITY);
    }
    let a = denormal_operand(env, a);
    let (significand, exponent) = a.unpack();
    round(env, a.negative(), significand.into(), exponent)
}

/// From a signed 32-bit integer.
pub fn from_i32<F: Float>(env: &mut Env, value: i32) -> F {
    round(env, value < 0, value.unsigned_abs().into(), 0)
}

/// What a conversion to integer gives for NaNs and numbers that do not fit.
const INTEGER_INDEFINITE: i32 = i32::MIN;

/// To a signed 32-bit integer, rounded by `mode`.
pub fn to_i32<F: Float>(env: &mut Env, a: F, mode: Rounding) -> i32 {
    if a.is_nan() || a.is_infinite() {
        env.raise(IE);
        return INTEGER_INDEFINITE;
    }
    if a.is_zero() || env.daz() && a.is_denormal() {
        return 0;
    }
    let (significand, exponent) = a.unpack();
    let (whole, lost) = if exponent < 0 {
        round_off(significand, exponent.unsigned_abs(), a.negative(), mode)
    } else if exponent < 9 {
        (significand << exponent, false)
    } else {
        // The significand is that of a normal number here: 2^32 and more.
        (u64::MAX, false)
    };
    let limit = if a.negative() { 1 << 31 } else { (1 << 31) - 1 };
    if whole > limit {
        env.raise(IE);
        return INTEGER_INDEFINITE;
    }
    if lost {
        env.raise(PE);
    }
    if a.negative() { (whole as i32).wrapping_neg() } else { whole as i32 }
}
