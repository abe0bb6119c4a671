//! The instruction set: one table ([`table`]), a decoder that reads it ([`decode`]), the lowering
//! of decoded instructions to uops ([`lower`]), and what the instructions do, by family.

pub mod decode;
pub(crate) mod lower;
pub mod table;

pub(crate) mod alu;
mod bits;
mod branch;
mod decimal;
mod flag;
mod float;
#[cfg(any(target_family = "wasm", test))]
pub(crate) mod hot;
mod mov;
mod muldiv;
mod operand;
mod port;
mod shift;
mod simd;
mod stack;
mod string;
mod system;
