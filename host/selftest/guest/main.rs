//! Puts the self-test together: a Multiboot kernel, written with an assembler that is a library.
//!
//! `guest` has what all tests share: texts, verdicts, screen and COM1, time. Each test is a function that says
//! in assembler what it does, appends what it has found out to the detail of its line, and ends with a verdict:
//! passed, if it comes to its end, or failed or absent with a reason. An exception is a failure.

mod disk;
mod frame;
mod guest;
mod memory;
mod network;
mod processor;
mod ps2;
mod serial;
mod sound;
mod timers;

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use guest::Test;

/// What is tested, in the order of the lines. The serial line comes first, because the guest listens on it
/// afterwards; the timers come before what measures time.
const TESTS: [Test; 12] = [
    ("serial", serial::test),
    ("processor", processor::integer),
    ("x87", processor::x87),
    ("SSE", processor::sse),
    ("timers", timers::test),
    ("memory", memory::test),
    ("keyboard", ps2::keyboard),
    ("mouse", ps2::mouse),
    ("disk", disk::test),
    ("sound card", sound::card),
    ("speaker", sound::speaker),
    ("network", network::test),
];

fn main() -> std::result::Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=guest");
    let folder = env::var_os("OUT_DIR").ok_or("cargo says where the kernel goes")?;
    fs::write(Path::new(&folder).join("selftest.bin"), frame::kernel(&TESTS)?)?;
    Ok(())
}
