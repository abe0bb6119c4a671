//! A seeded generator of numbers and of values that instructions find interesting.

/// SplitMix64: small, fast, and every seed is as good as another.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        (self.u64() >> 32) as u32
    }

    /// 8 random bits.
    pub fn u8(&mut self) -> u8 {
        (self.u64() >> 56) as u8
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.u32()) * u64::from(n)) >> 32) as u32
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    /// One of some things.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }

    /// A general register's value: limits of the widths, small numbers, masks, anything.
    pub fn word(&mut self) -> u32 {
        match self.below(8) {
            0 => self.pick(&[0, 1, 2, 0x7f, 0x80, 0x81, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x1_0000]),
            1 => {
                self.pick(&[0x7fff_ffff, 0x8000_0000, 0x8000_0001, !0, !1, 0xffff_ff80, 0xffff_8000, 0xff00])
            }
            2 => self.below(64),
            3 => (self.below(64) as i32 - 32) as u32,
            4 => 1 << self.below(32),
            5 => !0 << self.below(32),
            _ => self.u32(),
        }
    }

    /// The bits of a single: zeros, denormals, ones, large, infinities, both kinds of NaN.
    pub fn f32(&mut self) -> u32 {
        let sign = self.u32() & 0x8000_0000;
        let fraction = match self.below(4) {
            0 => 0,
            1 => 0x7f_ffff,
            2 => 1 << self.below(23),
            _ => self.u32() & 0x7f_ffff,
        };
        let exponent = match self.below(8) {
            0 => 0,
            1 => 1,
            2 => 0xff,
            3 => 0xfe,
            4 => 0x7f,
            5 => 0x70 + self.below(0x40),
            _ => self.below(0x100),
        };
        sign | exponent << 23 | fraction
    }

    /// The bits of a double, as [`Rng::f32`].
    pub fn f64(&mut self) -> u64 {
        let sign = self.u64() & 1 << 63;
        let fraction = match self.below(5) {
            0 => 0,
            1 => (1 << 52) - 1,
            2 => 1 << self.below(52),
            3 => self.u64() & 0xf_ffff_e000_0000,
            _ => self.u64() & ((1 << 52) - 1),
        };
        let exponent = match self.below(8) {
            0 => 0,
            1 => 1,
            2 => 0x7ff,
            3 => 0x7fe,
            4 => 0x3ff,
            5 => 0x380 + u64::from(self.below(0x100)),
            6 => 0x3ff + u64::from(self.below(70)),
            _ => u64::from(self.below(0x800)),
        };
        sign | exponent << 52 | fraction
    }

    /// An extended real: significand, sign and exponent; formats the 80387 no longer makes too.
    pub fn f80(&mut self) -> (u64, u16) {
        let sign = (self.u32() & 0x8000) as u16;
        let mut significand = match self.below(6) {
            0 => 1 << 63,
            1 => !0,
            2 => 1 << 63 | 1 << self.below(63),
            3 => self.u64() & !0 << self.below(64),
            _ => self.u64(),
        };
        let exponent = match self.below(12) {
            0 => 0,
            1 => 1,
            2 => 0x7fff,
            3 => 0x7ffe,
            4 => 0x3fff,
            5 | 6 => 0x3fff + self.below(66),
            7 | 8 => 0x3ff0 + self.below(0x20),
            9 => 0x3c00 + self.below(0x800),
            10 => 0x3f80 + self.below(0x100),
            _ => self.below(0x8000),
        } as u16;
        // Mostly normal numbers: everything else is the exception it is in real life.
        significand = if exponent == 0 {
            if self.one_in(3) { 0 } else { significand & !(1 << 63) >> self.below(4) }
        } else if self.one_in(24) {
            significand
        } else {
            significand | 1 << 63
        };
        (significand, sign | exponent)
    }
}
