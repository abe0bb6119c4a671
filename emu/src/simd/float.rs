//! The floating-point instructions of SSE, SSE2 and SSE3: lanes over `softfloat`, with the host's
//! arithmetic in front.
//!
//! The fast path is taken to-nearest only, and only for results that are normal numbers from
//! operands that are normal: then the host's result is IEEE's, and precision is the one exception
//! that remains. Whether a result is exact is found by undoing the operation; that is not even
//! asked once MXCSR.PE is set.

use core::cmp::Ordering;

use super::mxcsr::{Env, PE, Rounding};
use super::softfloat::{self, Double, Float, Single};
use crate::exception::Result;

/// The low `LANES` lanes of `dst` become what `f` says of each; the others stay. Nothing is written
/// if one of them raises an unmasked exception.
#[inline(always)]
fn fill<F: Float, const LANES: usize>(
    env: &mut Env,
    dst: &mut u128,
    f: impl Fn(&mut Env, &u128, usize) -> F,
) -> Result<()> {
    let results: [F; LANES] = core::array::from_fn(|i| f(env, dst, i));
    env.finish(())?;
    for (i, result) in results.into_iter().enumerate() {
        result.set_lane(dst, i);
    }
    Ok(())
}

/// The low `LANES` lanes become `f` of both operands' lanes.
#[inline(always)]
fn each<F: Float, const LANES: usize>(
    env: &mut Env,
    dst: &mut u128,
    src: &u128,
    f: impl Fn(&mut Env, F, F) -> F,
) -> Result<()> {
    fill::<F, LANES>(env, dst, |env, dst, i| f(env, F::lane(dst, i), F::lane(src, i)))
}

/// The product of two normal numbers fits the format, exponent aside.
fn product_is_exact<F: Float>(a: F, b: F) -> bool {
    let odd = |x: F| {
        let (significand, _) = x.unpack();
        u128::from(significand >> significand.trailing_zeros())
    };
    (odd(a) * odd(b)) >> (F::FRACTION + 1) == 0
}

/// The host may compute: to nearest, `a` normal.
#[inline(always)]
fn plain<F: Float>(env: &Env, a: F) -> bool {
    env.rounding() == Rounding::Nearest && a.is_normal()
}

/// The host's result may stand: normal, and not the smallest one, to which tiny numbers round.
#[inline(always)]
fn safe<F: Float>(result: F) -> bool {
    result.is_normal() && result.magnitude() != F::MIN_NORMAL
}

/// Takes a safe result of the host, raising PE if it is not `exact`.
#[inline(always)]
fn accept<F: Float>(env: &mut Env, result: F, exact: impl Fn() -> bool) -> F {
    if !env.precision_settled() && !exact() {
        env.raise(PE);
    }
    result
}

/// a + b.
#[inline]
fn add<F: Float>(env: &mut Env, a: F, b: F) -> F {
    if plain(env, a) && b.is_normal() {
        let sum = a.host_add(b);
        if safe(sum) {
            // Taking the larger operand from the sum is exact, so it gives back the smaller one
            // if and only if nothing was lost.
            return accept(env, sum, || sum.host_sub(a) == b && sum.host_sub(b) == a);
        }
    }
    softfloat::add(env, a, b)
}

/// a - b.
#[inline]
fn sub<F: Float>(env: &mut Env, a: F, b: F) -> F {
    if plain(env, a) && b.is_normal() {
        let difference = a.host_sub(b);
        if safe(difference) {
            let exact = || difference.host_add(b) == a && a.host_sub(difference) == b;
            return accept(env, difference, exact);
        }
    }
    softfloat::sub(env, a, b)
}

/// a * b.
#[inline]
fn mul<F: Float>(env: &mut Env, a: F, b: F) -> F {
    if plain(env, a) && b.is_normal() {
        let product = a.host_mul(b);
        if safe(product) {
            return accept(env, product, || product_is_exact(a, b));
        }
    }
    softfloat::mul(env, a, b)
}

/// a / b.
#[inline]
fn div<F: Float>(env: &mut Env, a: F, b: F) -> F {
    if plain(env, a) && b.is_normal() {
        let quotient = a.host_div(b);
        if safe(quotient) {
            return accept(env, quotient, || quotient.host_mul(b) == a && product_is_exact(quotient, b));
        }
    }
    softfloat::div(env, a, b)
}

/// The square root of the source.
#[inline]
fn sqrt<F: Float>(env: &mut Env, _dst: F, a: F) -> F {
    if plain(env, a) && !a.negative() {
        let root = a.host_sqrt();
        return accept(env, root, || root.host_mul(root) == a && product_is_exact(root, root));
    }
    softfloat::sqrt(env, a)
}

/// The source, unless the destination compares as `wanted` with it. Any NaN is invalid, and the
/// source is what comes out.
fn select<F: Float>(env: &mut Env, a: F, b: F, wanted: Ordering) -> F {
    let chosen = if softfloat::compare(env, a, b, true) == Some(wanted) { a } else { b };
    if env.daz() && chosen.is_denormal() { F::signed(chosen.negative(), 0) } else { chosen }
}

fn min<F: Float>(env: &mut Env, a: F, b: F) -> F {
    select(env, a, b, Ordering::Less)
}

fn max<F: Float>(env: &mut Env, a: F, b: F) -> F {
    select(env, a, b, Ordering::Greater)
}

/// CMPPS, CMPPD, CMPSS, CMPSD: all ones where predicate `imm` holds (SDM volume 2, CMPPS, table 3-1).
fn compare<F: Float>(env: &mut Env, a: F, b: F, imm: u8) -> F {
    let signal_quiet = matches!(imm & 3, 1 | 2);
    let order = softfloat::compare(env, a, b, signal_quiet);
    let holds = match imm & 3 {
        0 => order == Some(Ordering::Equal),
        1 => order == Some(Ordering::Less),
        2 => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        _ => order.is_none(),
    };
    let negated = imm & 4 != 0;
    F::from_bits(if holds != negated { u64::MAX } else { 0 })
}

/// An instruction in its packed and scalar forms, over a function of two lanes.
macro_rules! lanewise {
    ($($f:ident: $ps:ident $ss:ident $pd:ident $sd:ident;)*) => {
        $(
            lanewise!(one $f, $ps, Single, 4, "packed single precision");
            lanewise!(one $f, $ss, Single, 1, "scalar single precision");
            lanewise!(one $f, $pd, Double, 2, "packed double precision");
            lanewise!(one $f, $sd, Double, 1, "scalar double precision");
        )*
    };
    (one $f:ident, $name:ident, $format:ty, $lanes:literal, $kind:literal) => {
        #[doc = concat!("`", stringify!($f), "`, ", $kind, ".")]
        // In line, so that a register of which a lane was just stored is not read as a whole, which waits for the store.
        #[inline(always)]
        pub fn $name(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
            each::<$format, $lanes>(env, dst, src, $f)
        }
    };
}

lanewise! {
    add: addps addss addpd addsd;
    sub: subps subss subpd subsd;
    mul: mulps mulss mulpd mulsd;
    div: divps divss divpd divsd;
    sqrt: sqrtps sqrtss sqrtpd sqrtsd;
    min: minps minss minpd minsd;
    max: maxps maxss maxpd maxsd;
}

/// CMPccPS (`LANES` 4), CMPccSS (1).
pub fn cmp_single<const LANES: usize>(env: &mut Env, dst: &mut u128, src: &u128, imm: u8) -> Result<()> {
    each::<Single, LANES>(env, dst, src, |env, a, b| compare(env, a, b, imm))
}

/// CMPccPD (`LANES` 2), CMPccSD (1).
pub fn cmp_double<const LANES: usize>(env: &mut Env, dst: &mut u128, src: &u128, imm: u8) -> Result<()> {
    each::<Double, LANES>(env, dst, src, |env, a, b| compare(env, a, b, imm))
}

/// Subtracts in even lanes, adds in odd ones.
fn addsub<F: Float, const LANES: usize>(env: &mut Env, dst: &mut u128, src: &u128) -> Result<()> {
    fill::<F, LANES>(env, dst, |env, dst, i| {
        let operation = if i % 2 == 0 { sub } else { add };
        operation(env, F::lane(dst, i), F::lane(src, i))
    })
}

/// ADDSUBPS.
pub fn addsubps(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    addsub::<Single, 4>(env, dst, src)
}

/// ADDSUBPD.
pub fn addsubpd(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    addsub::<Double, 2>(env, dst, src)
}

/// `f` of the neighbours in the destination, then of those in the source.
#[inline(always)]
fn horizontal<F: Float, const LANES: usize>(
    env: &mut Env,
    dst: &mut u128,
    src: &u128,
    f: impl Fn(&mut Env, F, F) -> F,
) -> Result<()> {
    fill::<F, LANES>(env, dst, |env, dst, i| {
        let from = if i < LANES / 2 { dst } else { src };
        let left = i * 2 % LANES;
        f(env, F::lane(from, left), F::lane(from, left + 1))
    })
}

/// HADDPS.
pub fn haddps(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    horizontal::<Single, 4>(env, dst, src, add)
}

/// HADDPD.
pub fn haddpd(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    horizontal::<Double, 2>(env, dst, src, add)
}

/// HSUBPS.
pub fn hsubps(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    horizontal::<Single, 4>(env, dst, src, sub)
}

/// HSUBPD.
pub fn hsubpd(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    horizontal::<Double, 2>(env, dst, src, sub)
}

/// The approximations raise nothing, take denormals for zeros and give no denormals, whatever
/// MXCSR says. Their result is only required to be within 1.5 * 2^-12; processors differ. Ours is
/// the correctly rounded one.
fn approximate(a: Single, f: impl Fn(f64) -> f64) -> Single {
    if a.is_nan() {
        return a.quieted();
    }
    let flushed = if a.is_denormal() { Single::signed(a.negative(), 0) } else { a };
    let result = f(f64::from(f32::from_bits(flushed.0))) as f32;
    let result = Single(result.to_bits());
    if result.is_nan() {
        Single(Single::DEFAULT_NAN as u32)
    } else if result.is_denormal() {
        Single::signed(result.negative(), 0)
    } else {
        result
    }
}

/// RCPPS (`LANES` 4), RCPSS (1).
pub fn rcp<const LANES: usize>(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    each::<Single, LANES>(env, dst, src, |_, _, a| approximate(a, |x| 1.0 / x))
}

/// RSQRTPS (`LANES` 4), RSQRTSS (1).
pub fn rsqrt<const LANES: usize>(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    each::<Single, LANES>(env, dst, src, |_, _, a| approximate(a, |x| 1.0 / x.sqrt()))
}

const CF: u32 = 1 << 0;
const PF: u32 = 1 << 2;
const ZF: u32 = 1 << 6;

fn comi<F: Float>(env: &mut Env, dst: &u128, src: &u128, signal_quiet: bool) -> Result<u32> {
    let flags = match softfloat::compare(env, F::lane(dst, 0), F::lane(src, 0), signal_quiet) {
        None => ZF | PF | CF,
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => CF,
        Some(Ordering::Equal) => ZF,
    };
    env.finish(flags)
}

/// COMISS: the six arithmetic flags.
pub fn comiss(env: &mut Env, dst: &u128, src: &u128) -> Result<u32> {
    comi::<Single>(env, dst, src, true)
}

/// COMISD: the six arithmetic flags.
pub fn comisd(env: &mut Env, dst: &u128, src: &u128) -> Result<u32> {
    comi::<Double>(env, dst, src, true)
}

/// UCOMISS: the six arithmetic flags.
pub fn ucomiss(env: &mut Env, dst: &u128, src: &u128) -> Result<u32> {
    comi::<Single>(env, dst, src, false)
}

/// UCOMISD: the six arithmetic flags.
pub fn ucomisd(env: &mut Env, dst: &u128, src: &u128) -> Result<u32> {
    comi::<Double>(env, dst, src, false)
}

/// The source's low `LANES` integers to floating point; above them the destination's lanes stay.
pub fn from_int<F: Float, const LANES: usize>(
    env: &mut Env,
    dst: &mut u128,
    src: &u128,
    _imm: u8,
) -> Result<()> {
    let source: &[i32; 4] = bytemuck::cast_ref(src);
    fill::<F, LANES>(env, dst, |env, _, i| softfloat::from_i32(env, source[i]))
}

/// The result replaces the whole destination, so that it is zero above `LANES` doublewords.
fn to_int<F: Float, const LANES: usize>(
    env: &mut Env,
    dst: &mut u128,
    src: &u128,
    mode: Rounding,
) -> Result<()> {
    let mut out = [0; 4];
    for (i, lane) in out.iter_mut().take(LANES).enumerate() {
        *lane = softfloat::to_i32(env, F::lane(src, i), mode);
    }
    env.finish(())?;
    *dst = bytemuck::cast(out);
    Ok(())
}

/// The source's low `LANES` numbers to integers, rounded as MXCSR says (CVT*2PI, CVT*2SI, CVT*2DQ).
pub fn round_int<F: Float, const LANES: usize>(
    env: &mut Env,
    dst: &mut u128,
    src: &u128,
    _imm: u8,
) -> Result<()> {
    let mode = env.rounding();
    to_int::<F, LANES>(env, dst, src, mode)
}

/// The source's low `LANES` numbers to integers, rounded toward zero (CVTT*).
pub fn truncate_int<F: Float, const LANES: usize>(
    env: &mut Env,
    dst: &mut u128,
    src: &u128,
    _imm: u8,
) -> Result<()> {
    to_int::<F, LANES>(env, dst, src, Rounding::Zero)
}

/// CVTPS2PD.
pub fn cvtps2pd(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    fill::<Double, 2>(env, dst, |env, _, i| softfloat::convert(env, Single::lane(src, i)))
}

/// CVTPD2PS: the high quadword becomes zero.
pub fn cvtpd2ps(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    fill::<Single, 4>(
        env,
        dst,
        |env, _, i| {
            if i < 2 { softfloat::convert(env, Double::lane(src, i)) } else { Single(0) }
        },
    )
}

/// CVTSS2SD.
#[inline(always)]
pub fn cvtss2sd(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    fill::<Double, 1>(env, dst, |env, _, _| softfloat::convert(env, Single::lane(src, 0)))
}

/// CVTSD2SS.
#[inline(always)]
pub fn cvtsd2ss(env: &mut Env, dst: &mut u128, src: &u128, _imm: u8) -> Result<()> {
    fill::<Single, 1>(env, dst, |env, _, _| softfloat::convert(env, Double::lane(src, 0)))
}
