//! Zstandard for pages, which browsers do not have: a module of its own, because the machine's own program comes
//! packed, too, and because a module's memory never shrinks. `npm/unpack.mjs` calls it.

#![cfg(target_family = "wasm")]
// The names of exports are what `no_mangle` is for; the functions here do nothing unsafe.
#![allow(unsafe_code)]

use std::io::Read;

/// What comes in, and what goes out.
#[derive(Default)]
pub struct Work {
    packed: Vec<u8>,
    plain: Vec<u8>,
}

/// Nothing to do yet.
#[unsafe(no_mangle)]
pub extern "C" fn unpack_new() -> Box<Work> {
    Box::default()
}

/// Makes room for what is packed, and tells where.
#[unsafe(no_mangle)]
pub extern "C" fn unpack_room(work: &mut Work, bytes: usize) -> *mut u8 {
    work.packed = vec![0; bytes];
    work.packed.as_mut_ptr()
}

/// Unpacks it, and tells whether it was a Zstandard frame and whole.
#[unsafe(no_mangle)]
pub extern "C" fn unpack(work: &mut Work) -> bool {
    let packed = std::mem::take(&mut work.packed);
    work.plain = Vec::new();
    let decoder = ruzstd::decoding::StreamingDecoder::new(packed.as_slice());
    decoder.is_ok_and(|mut decoder| decoder.read_to_end(&mut work.plain).is_ok())
}

/// Where what came out is.
#[unsafe(no_mangle)]
pub extern "C" fn unpack_plain(work: &Work) -> *const u8 {
    work.plain.as_ptr()
}

/// How many bytes that is.
#[unsafe(no_mangle)]
pub extern "C" fn unpack_length(work: &Work) -> usize {
    work.plain.len()
}
