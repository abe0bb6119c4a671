//! The x87's transcendental functions against their true values, to 320 bits.

use astro_float::{BigFloat, Consts, RoundingMode, Sign};
use env86_conformance::guest::Guest;
use env86_conformance::layout::{BYTES, CODE, Image, patch};
use env86_conformance::rng::Rng;
use env86_conformance::state::Regs;

const SEED: u64 = 86;
/// Cases of each function. `ULP_CASES` in the environment asks for more.
const CASES: u32 = 500;
/// Bits that the true values have, at least; more than any cancellation takes away here.
const BITS: usize = 320;
const NEAREST: RoundingMode = RoundingMode::ToEven;
const BIAS: i32 = 16383;
/// Range reduction is by the 66 bits of pi that the hardware has (SDM volume 1, 8.3.8): pi/2 in units of 2^-65.
const HALF_PI: u128 = 0x3_243f_6a88_85a3_08d3;
const HALF_PI_UNIT: i32 = -65;

/// An extended real: significand, sign and exponent.
type Real = (u64, u16);

/// The reference's arithmetic.
struct Exact {
    consts: Consts,
}

impl Exact {
    /// An angle without the multiples of pi/2 in it, and how many those are, modulo 4.
    fn reduce(&self, x: Real) -> (BigFloat, u128) {
        let exponent = i32::from(x.1 & 0x7fff) - BIAS;
        if exponent < -2 {
            return (value((x.0, x.1 & 0x7fff)), 0);
        }
        // The significand's unit is 2^(exponent - 63).
        let fixed = u128::from(x.0) << (exponent - 63 - HALF_PI_UNIT);
        // What remains is within pi/4 of 0.
        let (quotient, rest) = (fixed / HALF_PI, fixed % HALF_PI);
        let (quotient, rest, sign) = if 2 * rest > HALF_PI {
            (quotient + 1, HALF_PI - rest, Sign::Neg)
        } else {
            (quotient, rest, Sign::Pos)
        };
        let shift = rest.leading_zeros();
        let normal = rest << shift;
        let words = [normal as u64, (normal >> 64) as u64];
        let exponent = 128 - shift as i32 + HALF_PI_UNIT;
        (BigFloat::from_words(&words, sign, exponent), quotient & 3)
    }

    fn sine(&mut self, x: Real, quarter: u128) -> BigFloat {
        let (rest, quadrant) = self.reduce(x);
        let quadrant = (quadrant + quarter) & 3;
        let v = if quadrant & 1 == 0 {
            rest.sin(BITS, NEAREST, &mut self.consts)
        } else {
            rest.cos(BITS, NEAREST, &mut self.consts)
        };
        // The cosine is even, the sine is odd.
        let negative = (quadrant & 2 != 0) != (x.1 & 0x8000 != 0 && quarter == 0);
        if negative { v.neg() } else { v }
    }

    fn tangent(&mut self, x: Real) -> BigFloat {
        self.sine(x, 0).div(&self.sine(x, 1), BITS, NEAREST)
    }

    /// 2^x - 1.
    fn power(&mut self, x: Real) -> BigFloat {
        let ln2 = self.consts.ln_2(BITS, NEAREST);
        let e = value(x).mul(&ln2, BITS, NEAREST).exp(BITS, NEAREST, &mut self.consts);
        e.sub(&BigFloat::from_word(1, BITS), BITS, NEAREST)
    }

    /// y * log2(x), or y * log2(x + 1).
    fn logarithm(&mut self, x: Real, y: Real, plus: u64) -> BigFloat {
        let mut x = value(x);
        if plus != 0 {
            x = x.add(&BigFloat::from_word(plus, BITS), BITS, NEAREST);
        }
        x.log2(BITS, NEAREST, &mut self.consts).mul(&value(y), BITS, NEAREST)
    }

    /// The angle of the point (x, y).
    fn arctangent(&mut self, x: Real, y: Real) -> BigFloat {
        let ratio = value((y.0, y.1 & 0x7fff)).div(&value((x.0, x.1 & 0x7fff)), BITS, NEAREST);
        let mut v = ratio.atan(BITS, NEAREST, &mut self.consts);
        if x.1 & 0x8000 != 0 {
            v = self.consts.pi(BITS, NEAREST).sub(&v, BITS, NEAREST);
        }
        if y.1 & 0x8000 != 0 { v.neg() } else { v }
    }
}

fn value((significand, exponent): Real) -> BigFloat {
    let sign = if exponent & 0x8000 != 0 { Sign::Neg } else { Sign::Pos };
    BigFloat::from_words(&[significand], sign, i32::from(exponent & 0x7fff) - BIAS + 1)
}

/// How far a result is from the true value, in units of its last place.
fn error(result: Real, truth: &BigFloat) -> f64 {
    let off = value(result).sub(truth, BITS, NEAREST);
    if off.is_zero() {
        return 0.0;
    }
    let Some((words, _, _, exponent, _)) = off.as_raw_parts() else { return f64::INFINITY };
    let fraction = words.last().map_or(0.0, |&w| w as f64 / 2f64.powi(64));
    let unit = i32::from(result.1 & 0x7fff) - BIAS - 63;
    fraction * 2f64.powi((exponent - unit).clamp(-1000, 1000))
}

/// A real with an exponent between two.
fn real(rng: &mut Rng, from: i32, to: i32, signed: bool) -> Real {
    let sign = if signed && rng.one_in(2) { 0x8000 } else { 0 };
    let exponent = (BIAS + from) as u32 + rng.below((to - from) as u32 + 1);
    let low = match rng.below(4) {
        0 => rng.u64() << 40,
        1 => !(rng.u64() >> 40),
        _ => rng.u64(),
    };
    (low | 1 << 63, exponent as u16 | sign)
}

/// The processor.
struct Unit {
    guest: Guest,
    image: Box<Image>,
}

impl Unit {
    /// The register stack after an instruction on ST0 and ST1.
    fn run(&mut self, code: [u8; 2], st0: Real, st1: Real) -> [Real; 8] {
        let mut regs = Regs { eip: CODE, ..Regs::default() };
        regs.fx.control = 0x37f;
        (regs.fx.st[0], regs.fx.st[1]) = (st0, st1);
        // A third of the stack in use, so that there is room for a push.
        (regs.fx.status, regs.fx.valid) = (3 << 11, 3 << 3);
        self.image.fill(0xcc);
        patch(&mut self.image, CODE, &code);
        self.guest.run(&regs, &mut self.image).regs.fx.st
    }
}

#[test]
fn results_are_within_one_unit_in_the_last_place() {
    let blank: Box<Image> = vec![0; BYTES].try_into().unwrap();
    let mut unit = Unit { guest: Guest::new(), image: blank };
    let mut exact = Exact { consts: Consts::new().unwrap() };
    let mut rng = Rng::new(SEED);
    let cases = std::env::var("ULP_CASES").map_or(CASES, |n| n.parse().unwrap());
    let mut worst = [
        ("f2xm1", 0f64),
        ("fyl2x", 0.0),
        ("fyl2xp1", 0.0),
        ("fptan", 0.0),
        ("fpatan", 0.0),
        ("fsin", 0.0),
        ("fcos", 0.0),
        ("fsincos", 0.0),
    ];
    for _ in 0..cases {
        let angle = real(&mut rng, -60, 62, true);
        let y = real(&mut rng, -1000, 1000, true);
        let small = real(&mut rng, -60, -3, true);
        let (x, z) = (real(&mut rng, -60, -1, true), real(&mut rng, -60, 60, true));
        let positive =
            if rng.one_in(2) { real(&mut rng, -1, 1, false) } else { real(&mut rng, -9000, 9000, false) };
        let mut check = |i: usize, result: Real, truth: BigFloat| {
            let off = error(result, &truth);
            assert!(off <= 1.0, "{}: {off} ulp of {result:x?}", worst[i].0);
            worst[i].1 = worst[i].1.max(off);
        };
        check(0, unit.run([0xd9, 0xf0], x, y)[0], exact.power(x));
        check(1, unit.run([0xd9, 0xf1], positive, y)[0], exact.logarithm(positive, y, 0));
        check(2, unit.run([0xd9, 0xf9], small, y)[0], exact.logarithm(small, y, 1));
        check(3, unit.run([0xd9, 0xf2], angle, y)[1], exact.tangent(angle));
        check(4, unit.run([0xd9, 0xf3], z, angle)[0], exact.arctangent(z, angle));
        check(5, unit.run([0xd9, 0xfe], angle, y)[0], exact.sine(angle, 0));
        check(6, unit.run([0xd9, 0xff], angle, y)[0], exact.sine(angle, 1));
        let both = unit.run([0xd9, 0xfb], angle, y);
        check(7, both[1], exact.sine(angle, 0));
        check(7, both[0], exact.sine(angle, 1));
    }
    for (name, error) in worst {
        println!("{name}: at most {error:.4} ulp in {cases} cases");
    }
}
