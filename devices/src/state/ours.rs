//! Values in our additions. What is not understood leaves what v86's entries have said.

use serde_json::Value;

pub(super) fn take_bool(saved: &Value, to: &mut bool) {
    *to = saved.as_bool().unwrap_or(*to);
}

pub(super) fn take_u8(saved: &Value, to: &mut u8) {
    *to = saved.as_u64().and_then(|n| u8::try_from(n).ok()).unwrap_or(*to);
}

pub(super) fn take_u16(saved: &Value, to: &mut u16) {
    *to = saved.as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(*to);
}

/// Bytes as two hexadecimal digits each.
pub(super) fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    use std::fmt::Write;
    bytes.into_iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes from hexadecimal digits, up to the first that is none, and `most` at most.
pub(super) fn unhex(saved: &Value, most: usize) -> Vec<u8> {
    let digits = saved.as_str().unwrap_or_default().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).take(most).map_while(byte).collect()
}
