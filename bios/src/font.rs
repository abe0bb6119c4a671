//! A font for text mode.

/// Scan lines of a glyph.
pub const HEIGHT: usize = 16;

/// The scan lines of a character of code page 437, from the top, leftmost dot in bit 7.
pub fn glyph(_code: u8) -> [u8; HEIGHT] {
    [0; HEIGHT]
}
