//! What the meaning of code depends on besides its bytes.

/// CS.D: 32-bit operands and addresses.
pub const CODE32: u32 = 1 << 0;
/// SS.B: ESP rather than SP.
pub const STACK32: u32 = 1 << 1;
/// DS, ES and SS cover all of linear memory, readable and writable.
pub const FLAT_DATA: u32 = 1 << 2;
/// CS covers all of linear memory.
pub const FLAT_CODE: u32 = 1 << 3;
