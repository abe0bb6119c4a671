//! Packed integer arithmetic on MMX (64-bit) and XMM (128-bit) registers alike.
//!
//! Each operation is written once over [`Packed`]. The signature is the table's: destination,
//! source, immediate.

/// A register as an array of lanes.
pub trait Packed: Copy {
    /// The low quadword, which is where shifts have their count.
    fn low(self) -> u64;
    /// Applies `f` to each pair of bytes.
    fn bytes(self, other: Self, f: impl Fn(u8, u8) -> u8) -> Self;
    /// Applies `f` to each pair of words.
    fn words(self, other: Self, f: impl Fn(u16, u16) -> u16) -> Self;
    /// Applies `f` to each pair of doublewords.
    fn dwords(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self;
    /// Applies `f` to each pair of quadwords.
    fn qwords(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self;
    /// Narrows the words of `self`, then those of `other`, to bytes.
    fn pack_words(self, other: Self, f: impl Fn(i16) -> u8) -> Self;
    /// Narrows the doublewords of `self`, then those of `other`, to words.
    fn pack_dwords(self, other: Self, f: impl Fn(i32) -> u16) -> Self;
    /// Alternates lanes of `LANE` bytes from the low (or high) halves of `self` and `other`.
    fn interleave<const LANE: usize, const HIGH: bool>(self, other: Self) -> Self;
}

macro_rules! packed {
    ($reg:ty, $bytes:literal) => {
        impl Packed for $reg {
            #[inline(always)]
            fn low(self) -> u64 {
                self as u64
            }
            packed!(lanes $reg, $bytes, bytes, u8, 1);
            packed!(lanes $reg, $bytes, words, u16, 2);
            packed!(lanes $reg, $bytes, dwords, u32, 4);
            packed!(lanes $reg, $bytes, qwords, u64, 8);

            #[inline(always)]
            fn pack_words(self, other: Self, f: impl Fn(i16) -> u8) -> Self {
                const HALF: usize = $bytes / 2;
                <$reg>::from_le_bytes(core::array::from_fn(|i| {
                    let (from, lane) = if i < HALF { (self, i) } else { (other, i - HALF) };
                    f((from >> (lane * 16)) as i16)
                }))
            }

            #[inline(always)]
            fn pack_dwords(self, other: Self, f: impl Fn(i32) -> u16) -> Self {
                const HALF: usize = $bytes / 4;
                let mut out = 0;
                for i in 0..HALF {
                    out |= <$reg>::from(f((self >> (i * 32)) as i32)) << (i * 16);
                    out |= <$reg>::from(f((other >> (i * 32)) as i32)) << ((i + HALF) * 16);
                }
                out
            }

            #[inline(always)]
            fn interleave<const LANE: usize, const HIGH: bool>(self, other: Self) -> Self {
                let (a, b) = (self.to_le_bytes(), other.to_le_bytes());
                let half = if HIGH { $bytes / 2 } else { 0 };
                <$reg>::from_le_bytes(core::array::from_fn(|i| {
                    let (lane, byte) = (i / LANE, i % LANE);
                    let at = half + lane / 2 * LANE + byte;
                    if lane % 2 == 0 { a[at] } else { b[at] }
                }))
            }
        }
    };
    (lanes $reg:ty, $bytes:literal, $name:ident, $lane:ty, $size:literal) => {
        #[inline(always)]
        fn $name(self, other: Self, f: impl Fn($lane, $lane) -> $lane) -> Self {
            let mut out = 0;
            for i in 0..$bytes / $size {
                let shift = i * $size * 8;
                out |= <$reg>::from(f((self >> shift) as $lane, (other >> shift) as $lane)) << shift;
            }
            out
        }
    };
}

packed!(u64, 8);
packed!(u128, 16);

/// Operations that treat each pair of lanes alike.
macro_rules! lanewise {
    ($($(#[$doc:meta])* $name:ident: $lanes:ident, $f:expr;)*) => {
        $($(#[$doc])*
        pub fn $name<V: Packed>(dst: V, src: V, _imm: u8) -> V {
            dst.$lanes(src, $f)
        })*
    };
}

lanewise! {
    /// Wrapping addition of bytes.
    paddb: bytes, u8::wrapping_add;
    /// Wrapping addition of words.
    paddw: words, u16::wrapping_add;
    /// Wrapping addition of doublewords.
    paddd: dwords, u32::wrapping_add;
    /// Wrapping addition of quadwords.
    paddq: qwords, u64::wrapping_add;
    /// Wrapping subtraction of bytes.
    psubb: bytes, u8::wrapping_sub;
    /// Wrapping subtraction of words.
    psubw: words, u16::wrapping_sub;
    /// Wrapping subtraction of doublewords.
    psubd: dwords, u32::wrapping_sub;
    /// Wrapping subtraction of quadwords.
    psubq: qwords, u64::wrapping_sub;
    /// Saturating addition of signed bytes.
    paddsb: bytes, |a, b| (a as i8).saturating_add(b as i8) as u8;
    /// Saturating addition of signed words.
    paddsw: words, |a, b| (a as i16).saturating_add(b as i16) as u16;
    /// Saturating addition of unsigned bytes.
    paddusb: bytes, u8::saturating_add;
    /// Saturating addition of unsigned words.
    paddusw: words, u16::saturating_add;
    /// Saturating subtraction of signed bytes.
    psubsb: bytes, |a, b| (a as i8).saturating_sub(b as i8) as u8;
    /// Saturating subtraction of signed words.
    psubsw: words, |a, b| (a as i16).saturating_sub(b as i16) as u16;
    /// Saturating subtraction of unsigned bytes.
    psubusb: bytes, u8::saturating_sub;
    /// Saturating subtraction of unsigned words.
    psubusw: words, u16::saturating_sub;
    /// The low halves of products of words.
    pmullw: words, u16::wrapping_mul;
    /// The high halves of products of signed words.
    pmulhw: words, |a, b| ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u16;
    /// The high halves of products of unsigned words.
    pmulhuw: words, |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16;
    /// Products of the even unsigned doublewords.
    pmuludq: qwords, |a, b| u64::from(a as u32) * u64::from(b as u32);
    /// Sums of two products of adjacent signed words.
    pmaddwd: dwords, |a, b| {
        let low = i32::from(a as i16) * i32::from(b as i16);
        let high = i32::from((a >> 16) as i16) * i32::from((b >> 16) as i16);
        low.wrapping_add(high) as u32
    };
    /// Rounded averages of unsigned bytes.
    pavgb: bytes, |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8;
    /// Rounded averages of unsigned words.
    pavgw: words, |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16;
    /// The smaller unsigned bytes.
    pminub: bytes, u8::min;
    /// The larger unsigned bytes.
    pmaxub: bytes, u8::max;
    /// The smaller signed words.
    pminsw: words, |a, b| (a as i16).min(b as i16) as u16;
    /// The larger signed words.
    pmaxsw: words, |a, b| (a as i16).max(b as i16) as u16;
    /// All ones where bytes are equal.
    pcmpeqb: bytes, |a, b| if a == b { !0 } else { 0 };
    /// All ones where words are equal.
    pcmpeqw: words, |a, b| if a == b { !0 } else { 0 };
    /// All ones where doublewords are equal.
    pcmpeqd: dwords, |a, b| if a == b { !0 } else { 0 };
    /// All ones where the destination's signed byte is greater.
    pcmpgtb: bytes, |a, b| if a as i8 > b as i8 { !0 } else { 0 };
    /// All ones where the destination's signed word is greater.
    pcmpgtw: words, |a, b| if a as i16 > b as i16 { !0 } else { 0 };
    /// All ones where the destination's signed doubleword is greater.
    pcmpgtd: dwords, |a, b| if a as i32 > b as i32 { !0 } else { 0 };
    /// Bitwise AND.
    pand: qwords, |a, b| a & b;
    /// Bitwise AND with the destination inverted.
    pandn: qwords, |a, b| !a & b;
    /// Bitwise OR.
    por: qwords, |a, b| a | b;
    /// Bitwise exclusive OR.
    pxor: qwords, |a, b| a ^ b;
    /// Sum of the absolute differences of eight unsigned bytes.
    psadbw: qwords, |a, b| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        a.iter().zip(b).map(|(&a, b)| u64::from(a.abs_diff(b))).sum()
    };
}

/// Shifts of each lane by the source's low quadword. Counts beyond the lane shift everything out.
macro_rules! shifts {
    ($($(#[$doc:meta])* $name:ident: $lanes:ident, $bits:literal, $f:expr, beyond $beyond:expr;)*) => {
        $($(#[$doc])*
        pub fn $name<V: Packed>(dst: V, src: V, _imm: u8) -> V {
            let count = src.low();
            if count < $bits {
                dst.$lanes(dst, |lane, _| $f(lane, count as u32))
            } else {
                dst.$lanes(dst, |lane, _| $beyond(lane))
            }
        })*
    };
}

shifts! {
    /// Logical right shift of words.
    psrlw: words, 16, |x, n| x >> n, beyond |_| 0;
    /// Logical right shift of doublewords.
    psrld: dwords, 32, |x, n| x >> n, beyond |_| 0;
    /// Logical right shift of quadwords.
    psrlq: qwords, 64, |x, n| x >> n, beyond |_| 0;
    /// Arithmetic right shift of words.
    psraw: words, 16, |x, n| (x as i16 >> n) as u16, beyond |x| (x as i16 >> 15) as u16;
    /// Arithmetic right shift of doublewords.
    psrad: dwords, 32, |x, n| (x as i32 >> n) as u32, beyond |x| (x as i32 >> 31) as u32;
    /// Left shift of words.
    psllw: words, 16, |x, n| x << n, beyond |_| 0;
    /// Left shift of doublewords.
    pslld: dwords, 32, |x, n| x << n, beyond |_| 0;
    /// Left shift of quadwords.
    psllq: qwords, 64, |x, n| x << n, beyond |_| 0;
}

/// Right shift of the whole register by bytes.
pub fn psrldq(dst: u128, src: u128, _imm: u8) -> u128 {
    if src < 16 { dst >> (src * 8) } else { 0 }
}

/// Left shift of the whole register by bytes.
pub fn pslldq(dst: u128, src: u128, _imm: u8) -> u128 {
    if src < 16 { dst << (src * 8) } else { 0 }
}

/// Words to signed bytes with saturation.
pub fn packsswb<V: Packed>(dst: V, src: V, _imm: u8) -> V {
    dst.pack_words(src, |word| word.clamp(-0x80, 0x7f) as u8)
}

/// Words to unsigned bytes with saturation.
pub fn packuswb<V: Packed>(dst: V, src: V, _imm: u8) -> V {
    dst.pack_words(src, |word| word.clamp(0, 0xff) as u8)
}

/// Doublewords to signed words with saturation.
pub fn packssdw<V: Packed>(dst: V, src: V, _imm: u8) -> V {
    dst.pack_dwords(src, |dword| dword.clamp(-0x8000, 0x7fff) as u16)
}

/// Interleaves the low halves, `LANE` bytes at a time (PUNPCKL*, UNPCKLP*).
pub fn unpack_low<V: Packed, const LANE: usize>(dst: V, src: V, _imm: u8) -> V {
    dst.interleave::<LANE, false>(src)
}

/// Interleaves the high halves, `LANE` bytes at a time (PUNPCKH*, UNPCKHP*).
pub fn unpack_high<V: Packed, const LANE: usize>(dst: V, src: V, _imm: u8) -> V {
    dst.interleave::<LANE, true>(src)
}
