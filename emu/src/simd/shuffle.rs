//! Moves, shuffles, inserts and extracts: what carries bits from place to place unchanged.
//!
//! Operands narrower than 128 bits (MMX and general registers, small memory operands) arrive
//! zero-extended, and results are cut to the destination's width.

const LOW64: u128 = u64::MAX as u128;
const LOW32: u128 = u32::MAX as u128;

/// The source, whole (MOVAPS, MOVQ, MOVD and all loads, stores and non-temporal stores).
pub fn copy(_dst: u128, src: u128, _imm: u8) -> u128 {
    src
}

/// The same for MMX registers.
pub fn copy_mmx(_dst: u64, src: u64, _imm: u8) -> u64 {
    src
}

/// The low quadword, zero-extended (MOVQ between XMM registers).
pub fn copy_low(_dst: u128, src: u128, _imm: u8) -> u128 {
    src & LOW64
}

/// The high quadword (stores of MOVHPS and MOVHPD).
pub fn copy_high(_dst: u128, src: u128, _imm: u8) -> u128 {
    src >> 64
}

/// Replaces the low doubleword (MOVSS between registers).
pub fn merge32(dst: u128, src: u128, _imm: u8) -> u128 {
    dst & !LOW32 | src & LOW32
}

/// Replaces the low quadword (MOVSD between registers, loads of MOVLPS and MOVLPD).
pub fn merge64(dst: u128, src: u128, _imm: u8) -> u128 {
    dst & !LOW64 | src & LOW64
}

/// Replaces the high quadword with the source's low one (MOVLHPS, loads of MOVHPS and MOVHPD).
pub fn low_to_high(dst: u128, src: u128, _imm: u8) -> u128 {
    dst & LOW64 | src << 64
}

/// Replaces the low quadword with the source's high one.
pub fn movhlps(dst: u128, src: u128, _imm: u8) -> u128 {
    dst & !LOW64 | src >> 64
}

/// The low quadword twice.
pub fn movddup(_dst: u128, src: u128, _imm: u8) -> u128 {
    src << 64 | src & LOW64
}

/// The even doublewords twice.
pub fn movsldup(_dst: u128, src: u128, _imm: u8) -> u128 {
    pick_dwords(src, src, 0b10_10_00_00)
}

/// The odd doublewords twice.
pub fn movshdup(_dst: u128, src: u128, _imm: u8) -> u128 {
    pick_dwords(src, src, 0b11_11_01_01)
}

/// Two doublewords of `low`, two of `high`, chosen by two bits of `order` each.
fn pick_dwords(low: u128, high: u128, order: u8) -> u128 {
    let pick = |from: u128, field: u32| from >> ((order >> (field * 2) & 3) * 32) & LOW32;
    pick(low, 0) | pick(low, 1) << 32 | pick(high, 2) << 64 | pick(high, 3) << 96
}

/// Four words of a quadword, chosen by two bits of `order` each.
fn pick_words(from: u64, order: u8) -> u64 {
    let pick = |field: u32| (from >> ((order >> (field * 2) & 3) * 16) & 0xffff) << (field * 16);
    pick(0) | pick(1) | pick(2) | pick(3)
}

/// Two doublewords of the destination and two of the source.
pub fn shufps(dst: u128, src: u128, imm: u8) -> u128 {
    pick_dwords(dst, src, imm)
}

/// One quadword of the destination and one of the source.
pub fn shufpd(dst: u128, src: u128, imm: u8) -> u128 {
    let low = if imm & 1 == 0 { dst & LOW64 } else { dst >> 64 };
    let high = if imm & 2 == 0 { src & LOW64 } else { src >> 64 };
    high << 64 | low
}

/// Four doublewords of the source.
pub fn pshufd(_dst: u128, src: u128, imm: u8) -> u128 {
    pick_dwords(src, src, imm)
}

/// Four words of the source.
pub fn pshufw(_dst: u64, src: u64, imm: u8) -> u64 {
    pick_words(src, imm)
}

/// Four words of the source's low quadword; the high one is copied.
pub fn pshuflw(_dst: u128, src: u128, imm: u8) -> u128 {
    src & !LOW64 | u128::from(pick_words(src as u64, imm))
}

/// Four words of the source's high quadword; the low one is copied.
pub fn pshufhw(_dst: u128, src: u128, imm: u8) -> u128 {
    src & LOW64 | u128::from(pick_words((src >> 64) as u64, imm)) << 64
}

/// Replaces word `imm` of `WORDS`.
pub fn pinsrw<const WORDS: u8>(dst: u128, src: u128, imm: u8) -> u128 {
    let shift = imm % WORDS * 16;
    dst & !(0xffff << shift) | (src & 0xffff) << shift
}

/// Word `imm` of `WORDS`.
pub fn pextrw<const WORDS: u8>(_dst: u128, src: u128, imm: u8) -> u128 {
    src >> (imm % WORDS * 16) & 0xffff
}

/// The sign bits of lanes of `LANE` bits, of which a register has `LANES` (PMOVMSKB, MOVMSKPS,
/// MOVMSKPD, and the byte mask of MASKMOVQ and MASKMOVDQU).
pub fn sign_mask<const LANE: u32, const LANES: u32>(_dst: u128, src: u128, _imm: u8) -> u128 {
    (0..LANES).map(|i| (src >> (i * LANE + LANE - 1) & 1) << i).sum()
}
