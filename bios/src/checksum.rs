//! The checksum that all tables of firmware have: the sum of their bytes is zero.

/// Makes the sum of all bytes zero by setting the one at `at`.
pub fn set_checksum(table: &mut [u8], at: usize) {
    table[at] = 0;
    table[at] = table.iter().fold(0u8, |sum, &b| sum.wrapping_sub(b));
}
