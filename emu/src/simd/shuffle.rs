//! Moves, shuffles, inserts and extracts: what carries bits from place to place unchanged.
//!
//! Operands narrower than 128 bits (MMX and general registers, small memory operands) arrive
//! zero-extended, and results are cut to the destination's width. A destination that is not all
//! replaced is written in part, for the same reason as in `integer`.

use bytemuck::{cast_mut, cast_ref};

const LOW64: u128 = u64::MAX as u128;

fn dwords(register: &u128) -> &[u32; 4] {
    cast_ref(register)
}

fn qwords(register: &u128) -> &[u64; 2] {
    cast_ref(register)
}

fn dwords_mut(register: &mut u128) -> &mut [u32; 4] {
    cast_mut(register)
}

fn qwords_mut(register: &mut u128) -> &mut [u64; 2] {
    cast_mut(register)
}

/// The source, whole (MOVAPS, MOVQ, MOVD and all loads, stores and non-temporal stores).
pub fn copy<V: Copy>(dst: &mut V, src: &V, _imm: u8) {
    *dst = *src;
}

/// The low quadword, zero-extended (MOVQ between XMM registers).
pub fn copy_low(dst: &mut u128, src: &u128, _imm: u8) {
    *dst = src & LOW64;
}

/// The high quadword (stores of MOVHPS and MOVHPD).
pub fn copy_high(dst: &mut u128, src: &u128, _imm: u8) {
    *dst = src >> 64;
}

/// Replaces the low doubleword (MOVSS between registers).
pub fn merge32(dst: &mut u128, src: &u128, _imm: u8) {
    dwords_mut(dst)[0] = dwords(src)[0];
}

/// Replaces the low quadword (MOVSD between registers, loads of MOVLPS and MOVLPD).
pub fn merge64(dst: &mut u128, src: &u128, _imm: u8) {
    qwords_mut(dst)[0] = qwords(src)[0];
}

/// Replaces the high quadword with the source's low one (MOVLHPS, loads of MOVHPS and MOVHPD).
pub fn low_to_high(dst: &mut u128, src: &u128, _imm: u8) {
    qwords_mut(dst)[1] = qwords(src)[0];
}

/// Replaces the low quadword with the source's high one.
pub fn movhlps(dst: &mut u128, src: &u128, _imm: u8) {
    qwords_mut(dst)[0] = qwords(src)[1];
}

/// The low quadword twice.
pub fn movddup(dst: &mut u128, src: &u128, _imm: u8) {
    *qwords_mut(dst) = [qwords(src)[0]; 2];
}

/// The even doublewords twice.
pub fn movsldup(dst: &mut u128, src: &u128, _imm: u8) {
    let [a, _, b, _] = *dwords(src);
    *dwords_mut(dst) = [a, a, b, b];
}

/// The odd doublewords twice.
pub fn movshdup(dst: &mut u128, src: &u128, _imm: u8) {
    let [_, a, _, b] = *dwords(src);
    *dwords_mut(dst) = [a, a, b, b];
}

/// The lane that a two-bit field of `order` names.
#[inline(always)]
fn pick<T: Copy>(from: &[T; 4], order: u8, field: u32) -> T {
    from[usize::from(order >> (field * 2) & 3)]
}

/// Four words, chosen by two bits of `order` each.
#[inline(always)]
fn pick_words(from: u64, order: u8) -> u64 {
    let words: &[u16; 4] = cast_ref(&from);
    bytemuck::cast([
        pick(words, order, 0),
        pick(words, order, 1),
        pick(words, order, 2),
        pick(words, order, 3),
    ])
}

/// Two doublewords of the destination and two of the source.
pub fn shufps(dst: &mut u128, src: &u128, imm: u8) {
    let (a, b) = (*dwords(dst), dwords(src));
    *dwords_mut(dst) = [pick(&a, imm, 0), pick(&a, imm, 1), pick(b, imm, 2), pick(b, imm, 3)];
}

/// One quadword of the destination and one of the source.
pub fn shufpd(dst: &mut u128, src: &u128, imm: u8) {
    let a = *qwords(dst);
    *qwords_mut(dst) = [a[usize::from(imm & 1)], qwords(src)[usize::from(imm >> 1 & 1)]];
}

/// Four doublewords of the source.
pub fn pshufd(dst: &mut u128, src: &u128, imm: u8) {
    let from = dwords(src);
    *dwords_mut(dst) = [pick(from, imm, 0), pick(from, imm, 1), pick(from, imm, 2), pick(from, imm, 3)];
}

/// Four words of the source.
pub fn pshufw(dst: &mut u64, src: &u64, imm: u8) {
    *dst = pick_words(*src, imm);
}

/// Four words of the source's low quadword; the high one is copied.
pub fn pshuflw(dst: &mut u128, src: &u128, imm: u8) {
    let [low, high] = *qwords(src);
    *qwords_mut(dst) = [pick_words(low, imm), high];
}

/// Four words of the source's high quadword; the low one is copied.
pub fn pshufhw(dst: &mut u128, src: &u128, imm: u8) {
    let [low, high] = *qwords(src);
    *qwords_mut(dst) = [low, pick_words(high, imm)];
}

/// Replaces word `imm` of `WORDS`.
pub fn pinsrw<const WORDS: u8>(dst: &mut u128, src: &u128, imm: u8) {
    let words: &mut [u16; 8] = cast_mut(dst);
    words[usize::from(imm % WORDS)] = *src as u16;
}

/// Word `imm` of `WORDS`.
pub fn pextrw<const WORDS: u8>(dst: &mut u128, src: &u128, imm: u8) {
    let words: &[u16; 8] = cast_ref(src);
    *dst = words[usize::from(imm % WORDS)].into();
}

/// The sign bits of bytes (PMOVMSKB, and the mask of MASKMOVQ and MASKMOVDQU).
pub fn byte_signs(dst: &mut u128, src: &u128, _imm: u8) {
    let [low, high] = qwords(src).map(gather_signs);
    *dst = u128::from(high << 8 | low);
}

/// The sign bits of eight bytes. The multiplication moves bit 8i to bit 56 + i: the terms of
/// 2^(56 - 7i) meet nowhere else, so nothing carries.
fn gather_signs(bytes: u64) -> u64 {
    (bytes >> 7 & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// MOVMSKPS.
pub fn movmskps(dst: &mut u128, src: &u128, _imm: u8) {
    let [a, b, c, d] = dwords(src).map(|lane| u128::from(lane >> 31));
    *dst = a | b << 1 | c << 2 | d << 3;
}

/// MOVMSKPD.
pub fn movmskpd(dst: &mut u128, src: &u128, _imm: u8) {
    let [low, high] = qwords(src).map(|lane| u128::from(lane >> 63));
    *dst = low | high << 1;
}
