//! Packed integer arithmetic on MMX (64-bit) and XMM (128-bit) registers alike.
//!
//! Each operation is written once over [`Packed`]. The signature is the table's: destination (in
//! place), source, immediate. Registers are looked at as arrays in memory, because from there the
//! compiler makes vector instructions of these loops; of shifted integers it does not.

use bytemuck::{cast_mut, cast_ref};

#[cfg(target_endian = "big")]
compile_error!("lanes of registers are read as array elements, lowest first");

/// A register as an array of lanes.
pub trait Packed: Copy {
    /// The low quadword, which is where shifts have their count.
    fn low(&self) -> u64;
    /// Applies `f` to each pair of bytes.
    fn bytes(&mut self, other: &Self, f: impl Fn(u8, u8) -> u8);
    /// Applies `f` to each pair of words.
    fn words(&mut self, other: &Self, f: impl Fn(u16, u16) -> u16);
    /// Applies `f` to each pair of doublewords.
    fn dwords(&mut self, other: &Self, f: impl Fn(u32, u32) -> u32);
    /// Applies `f` to each pair of quadwords.
    fn qwords(&mut self, other: &Self, f: impl Fn(u64, u64) -> u64);
    /// Narrows the words of `self`, then those of `other`, to bytes.
    fn pack_words(&mut self, other: &Self, f: impl Fn(i16) -> u8);
    /// Narrows the doublewords of `self`, then those of `other`, to words.
    fn pack_dwords(&mut self, other: &Self, f: impl Fn(i32) -> u16);
    /// Alternates lanes of `LANE` bytes from the low (or high) halves of `self` and `other`.
    fn interleave<const LANE: usize, const HIGH: bool>(&mut self, other: &Self);
}

macro_rules! packed {
    ($reg:ty, $bytes:literal) => {
        impl Packed for $reg {
            #[inline(always)]
            fn low(&self) -> u64 {
                *self as u64
            }
            packed!(map $bytes, bytes, u8, 1);
            packed!(map $bytes, words, u16, 2);
            packed!(map $bytes, dwords, u32, 4);
            packed!(map $bytes, qwords, u64, 8);
            packed!(pack $bytes, pack_words, i16, u8, 2);
            packed!(pack $bytes, pack_dwords, i32, u16, 4);

            #[inline(always)]
            fn interleave<const LANE: usize, const HIGH: bool>(&mut self, other: &Self) {
                let half = if HIGH { $bytes / 2 } else { 0 };
                let dst: &mut [u8; $bytes] = cast_mut(self);
                let src: &[u8; $bytes] = cast_ref(other);
                let old = *dst;
                for i in 0..$bytes {
                    let (lane, byte) = (i / LANE, i % LANE);
                    let at = half + lane / 2 * LANE + byte;
                    dst[i] = if lane % 2 == 0 { old[at] } else { src[at] };
                }
            }
        }
    };
    (map $bytes:literal, $name:ident, $lane:ty, $size:literal) => {
        #[inline(always)]
        fn $name(&mut self, other: &Self, f: impl Fn($lane, $lane) -> $lane) {
            let dst: &mut [$lane; $bytes / $size] = cast_mut(self);
            let src: &[$lane; $bytes / $size] = cast_ref(other);
            for (a, b) in dst.iter_mut().zip(src) {
                *a = f(*a, *b);
            }
        }
    };
    (pack $bytes:literal, $name:ident, $from:ty, $to:ty, $size:literal) => {
        #[inline(always)]
        fn $name(&mut self, other: &Self, f: impl Fn($from) -> $to) {
            const LANES: usize = $bytes / $size;
            let low: [$from; LANES] = *cast_ref(self);
            let high: &[$from; LANES] = cast_ref(other);
            let dst: &mut [$to; LANES * 2] = cast_mut(self);
            for i in 0..LANES {
                dst[i] = f(low[i]);
                dst[i + LANES] = f(high[i]);
            }
        }
    };
}

packed!(u64, 8);
packed!(u128, 16);

/// Operations that treat each pair of lanes alike.
macro_rules! lanewise {
    ($($(#[$doc:meta])* $name:ident: $lanes:ident, $f:expr;)*) => {
        $($(#[$doc])*
        pub fn $name<V: Packed>(dst: &mut V, src: &V, _imm: u8) {
            dst.$lanes(src, $f);
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
        pub fn $name<V: Packed>(dst: &mut V, src: &V, _imm: u8) {
            let count = src.low();
            if count < $bits {
                dst.$lanes(src, |lane, _| $f(lane, count as u32));
            } else {
                dst.$lanes(src, |lane, _| $beyond(lane));
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
pub fn psrldq(dst: &mut u128, src: &u128, _imm: u8) {
    *dst = if *src < 16 { *dst >> (*src * 8) } else { 0 };
}

/// Left shift of the whole register by bytes.
pub fn pslldq(dst: &mut u128, src: &u128, _imm: u8) {
    *dst = if *src < 16 { *dst << (*src * 8) } else { 0 };
}

/// Words to signed bytes with saturation.
pub fn packsswb<V: Packed>(dst: &mut V, src: &V, _imm: u8) {
    dst.pack_words(src, |word| word.clamp(-0x80, 0x7f) as u8);
}

/// Words to unsigned bytes with saturation.
pub fn packuswb<V: Packed>(dst: &mut V, src: &V, _imm: u8) {
    dst.pack_words(src, |word| word.clamp(0, 0xff) as u8);
}

/// Doublewords to signed words with saturation.
pub fn packssdw<V: Packed>(dst: &mut V, src: &V, _imm: u8) {
    dst.pack_dwords(src, |dword| dword.clamp(-0x8000, 0x7fff) as u16);
}

/// Interleaves the low halves, `LANE` bytes at a time (PUNPCKL*, UNPCKLP*).
pub fn unpack_low<V: Packed, const LANE: usize>(dst: &mut V, src: &V, _imm: u8) {
    dst.interleave::<LANE, false>(src);
}

/// Interleaves the high halves, `LANE` bytes at a time (PUNPCKH*, UNPCKHP*).
pub fn unpack_high<V: Packed, const LANE: usize>(dst: &mut V, src: &V, _imm: u8) {
    dst.interleave::<LANE, true>(src);
}
