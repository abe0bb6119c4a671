//! Multiboot kernels by the program: an ELF file, one with addresses in its header, and one that is
//! packed; with and without a module.

use std::fs;
use std::process::{Command, Stdio};

use env86_tests::{Result, binutil, bound_to_us, built, program};

/// Assembles `system/multiboot.s`; links it to run at an address.
fn kernel(name: &str, address: &str, options: &[&str]) -> String {
    let [object, elf] = ["o", "elf"].map(|ext| built(&format!("{name}.{ext}")));
    binutil("as", &[&["--32", "-o", &object, "multiboot.s"], options].concat());
    let link = ["-m", "elf_i386", "-N", "--no-warn-rwx-segments", "-Ttext", address, "-o", &elf, &object];
    binutil("ld", &link);
    elf
}

/// Boots a kernel; checks its verdict, and what it prints: its command line, and the module's name and
/// content.
fn boots(kernel: &str, module: Option<&str>) -> Result<()> {
    let mut command = bound_to_us(program()?);
    command.args(["boot", "--kernel", kernel, "--append", "one  two", "--ttyS0", "--no-console"]);
    command.args(["--debug-exit", "0xf4", "--no-reboot", "--memory", "48M"]);
    command.args(module.iter().flat_map(|module| ["--initrd", module]));
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{kernel}: {text}{complaint}");
    let expected = if module.is_some() { "one  two\nmodule\nits content" } else { "one  two\n" };
    assert_eq!(text, expected, "{kernel}");
    Ok(())
}

#[test]
fn kernels_of_every_form() -> Result<()> {
    let module = built("module");
    fs::write(&module, "its content")?;
    let elf = kernel("multiboot", "0x100000", &[]);
    let flat = built("multiboot-kludge.bin");
    let with_addresses = kernel("multiboot-kludge", "0x234560", &["--defsym", "KLUDGE=1"]);
    binutil("objcopy", &["-O", "binary", &with_addresses, &flat]);
    assert!(Command::new("gzip").args(["-kf", &elf]).status()?.success());
    for kernel in [&elf, &flat, &format!("{elf}.gz")] {
        boots(kernel, None)?;
        boots(kernel, Some(&module))?;
    }
    Ok(())
}
