//! Instructions to read.

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

/// The instruction in Intel's syntax, by an independent disassembler.
pub fn disassemble(bytes: &[u8], eip: u32, code16: bool) -> String {
    let bits = if code16 { 16 } else { 32 };
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().max(16), 0xcc);
    let insn = Decoder::with_ip(bits, &padded, eip.into(), DecoderOptions::NONE).decode();
    let mut text = String::new();
    IntelFormatter::new().format(&insn, &mut text);
    text
}
