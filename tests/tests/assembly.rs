//! The dispatcher of release builds relies on the compiler to turn the call that ends each handler into
//! a jump. Stable Rust does not promise that, so the program itself is looked at. `make cross-boot` has the
//! programs for other hosts looked at: `ENV86_BIN` is one, `ENV86_OBJDUMP` reads it.

#![cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux"))]

use std::env;
use std::process::Command;

use env86_tests::{Result, program};

/// Fewer handlers than this would mean that the names were not recognised.
const AT_LEAST: usize = 500;

/// The function that a line of the disassembly begins: `0000000000001234 <name>:`.
fn header(line: &str) -> Option<&str> {
    line.strip_suffix(">:")?.split_once(" <").map(|(_, name)| name)
}

/// A call through a register (x86's `call *%rax`, ARM's `blr x8`) or through memory that is not a fixed
/// place (`call *0x1234(%rip)`).
fn is_indirect_call(line: &str) -> bool {
    if line.contains("\tblr\t") {
        return true;
    }
    line.split_once("call").is_some_and(|(_, operand)| {
        let operand = operand.trim_start_matches('q').trim();
        operand.starts_with('*') && !operand.contains("(%rip)")
    })
}

#[test]
fn every_handler_ends_in_a_jump() -> Result<()> {
    let objdump = env::var("ENV86_OBJDUMP").unwrap_or("objdump".into());
    let output = Command::new(objdump).args(["-d", "--no-show-raw-insn"]).arg(program()?).output()?;
    assert!(output.status.success(), "objdump, of package binutils, cannot read the program");
    let text = String::from_utf8_lossy(&output.stdout);
    let (mut handlers, mut inside, mut calls) = (0, None, Vec::new());
    for line in text.lines() {
        if let Some(name) = header(line) {
            // Bodies that `invoke` keeps in a frame of their own may call what they like.
            let handler = name.contains("9env86_emu8dispatch") && !name.contains("6invoke");
            inside = handler.then_some(name);
            handlers += usize::from(handler);
        } else if let Some(name) = inside
            && is_indirect_call(line)
        {
            calls.push(format!("{name}: {}", line.trim()));
        }
    }
    assert!(handlers > AT_LEAST, "only {handlers} handlers found");
    assert!(calls.is_empty(), "handlers that return instead of jumping on:\n{}", calls.join("\n"));
    Ok(())
}

#[test]
fn calls_are_told_apart() {
    assert!(is_indirect_call("  1f:\tcall   *%rax"));
    assert!(is_indirect_call("  1f:\tcall   *0x18(%rsi)"));
    assert!(!is_indirect_call("  1f:\tcall   *0x11ded5(%rip)        # 2eb268 <memmove>"));
    assert!(!is_indirect_call("  1f:\tjmp    *%rax"));
    assert!(!is_indirect_call("  1f:\tcall   1d0 <x>"));
    assert!(is_indirect_call("  1f:\tblr\tx8"));
    assert!(!is_indirect_call("  1f:\tbr\tx8"));
    assert!(!is_indirect_call("  1f:\tbl\t1d0 <x>"));
}
