//! Machines that a BIOS starts: from disks, from a kernel that it is given, and by its menu.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use env86_tests::{Guest, Result, binutil, bound_to_us, built, image, peers, program, skipped};

/// Generous: CI machines are small and shared.
const LIMIT: Duration = Duration::from_secs(240);

/// One of the files of Debian's package seabios: where `make peers` has put it, or installed.
pub fn seabios(name: &str) -> Option<PathBuf> {
    let folders = [peers().join("v86/seabios"), PathBuf::from("/usr/share/seabios")];
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.exists())
}

/// A hard disk that says how it is read, under a name of the test's own.
fn disk(name: &str) -> Result<String> {
    let [object, disk] = [".o", ".img"].map(|end| built(&format!("{name}{end}")));
    binutil("as", &["--32", "-o", &object, "bootsector.s"]);
    binutil("objcopy", &["-O", "binary", "-j", ".text", &object, &disk]);
    let mut content = fs::read(&disk)?;
    for text in ["by block\n\0", "by sector\n\0"] {
        content.extend(text.as_bytes());
        content.resize(content.len().next_multiple_of(512), 0);
    }
    content.resize(4 << 20, 0);
    fs::write(&disk, content)?;
    Ok(disk)
}

#[test]
fn a_bios_starts_what_is_on_the_first_disk() -> Result<()> {
    let disk = disk("bootsector")?;
    // The second is QEMU's default. With ACPI it looks for system management mode, which is not here.
    for rom in ["bios.bin", "bios-256k.bin"] {
        let Some(bios) = seabios(rom) else {
            skipped("a_bios_starts_what_is_on_the_first_disk", "there is no SeaBIOS (`make peers`)");
            return Ok(());
        };
        for flags in [&[][..], &["--acpi"]] {
            // A BIOS that does not start waits for ever.
            let mut command = bound_to_us("timeout");
            command.arg(LIMIT.as_secs().to_string()).arg(program()?);
            command.args(["boot", "--hda", &disk, "--ttyS0", "--no-console", "--debug-exit", "0xf4"]);
            command.arg("--no-reboot").args(flags).arg("--bios").arg(&bios).stdin(Stdio::null());
            let log = built("bios.log");
            let output = command.args(["--debug-console", &log]).output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!((output.status.code(), &*said), (Some(7), "by block\nby sector\n"), "{rom} {flags:?}");
            let log = fs::read_to_string(log)?;
            assert!(log.contains("QEMU fw_cfg DMA interface supported"), "{log}");
        }
    }
    Ok(())
}

/// DOS programs that look for upper memory write there, and must not find the BIOS.
#[test]
fn what_a_bios_makes_read_only_is_not_written() -> Result<()> {
    let [object, disk] = ["shadow.o", "shadow.img"].map(built);
    binutil("as", &["--32", "-o", &object, "shadow.s"]);
    binutil("objcopy", &["-O", "binary", "-j", ".text", &object, &disk]);
    let mut content = fs::read(&disk)?;
    content.resize(1 << 20, 0);
    fs::write(&disk, content)?;
    for rom in ["bios.bin", "bios-256k.bin"] {
        let Some(bios) = seabios(rom) else {
            skipped("what_a_bios_makes_read_only_is_not_written", "there is no SeaBIOS (`make peers`)");
            return Ok(());
        };
        let mut command = bound_to_us("timeout");
        command.arg(LIMIT.as_secs().to_string()).arg(program()?);
        command.args(["boot", "--hda", &disk, "--ttyS0", "--no-console", "--debug-exit", "0xf4"]);
        command.args(["--no-reboot", "--bios"]).arg(&bios).stdin(Stdio::null());
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<_> = said.lines().collect();
        let [left, writable, locked, read] = lines[..] else { panic!("{rom}: {output:?}") };
        // The video BIOS is at the beginning; at the end, below its own code, SeaBIOS keeps what its drivers write.
        assert!(left.starts_with("--") && left.ends_with("w----"), "{rom}: {left}");
        assert_eq!((writable, locked, read), ("wwwwwwwwwwwwwwww", "wwwwwwwwwwww----", "k"), "{rom}");
        assert_eq!(output.status.code(), Some(7));
    }
    Ok(())
}

/// By the BIOS that is found where it is installed, with the flags that a user types.
#[test]
fn a_bios_starts_what_is_on_a_floppy_disk() -> Result<()> {
    let [object, disk] = ["bootfloppy.o", "bootfloppy.img"].map(built);
    binutil("as", &["--32", "-o", &object, "bootfloppy.s"]);
    binutil("objcopy", &["-O", "binary", "-j", ".text", &object, &disk]);
    let Some(bios) = seabios("bios-256k.bin") else {
        skipped("a_bios_starts_what_is_on_a_floppy_disk", "there is no SeaBIOS (`make peers`)");
        return Ok(());
    };
    let mut content = fs::read(&disk)?;
    content.resize(18 * 512, 0);
    content.extend(b"by head\n\0");
    content.resize(1440 << 10, 0);
    fs::write(&disk, &content)?;
    let hard_disk = built("nothing.img");
    fs::write(&hard_disk, vec![0; 1 << 20])?;
    for (flags, kept) in [(&["--boot", "ca"][..], false), (&["--persist"], true)] {
        let mut command = bound_to_us("timeout");
        command.arg(LIMIT.as_secs().to_string()).arg(program()?);
        command.args(["boot", "--fda", &disk, "--hda", &hard_disk, "--ttyS0", "--no-console"]);
        command.args(["--debug-exit", "0xf4", "--no-reboot"]).args(flags).arg("--bios").arg(&bios);
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((output.status.code(), &*said), (Some(7), "by head\n"), "{flags:?}");
        let last = (1440 << 10) - 512;
        assert_eq!(fs::read(&disk)?[last..last + 8] == *b"by head\n", kept, "{flags:?}");
    }
    Ok(())
}

/// The image's kernel by the BIOS' own way, through its real-mode code: with the image's RAM disk and command line, to
/// which a word is added.
#[test]
fn a_bios_starts_a_kernel() -> Result<()> {
    for rom in ["bios.bin", "bios-256k.bin"] {
        let Some(bios) = seabios(rom) else {
            skipped("a_bios_starts_a_kernel", "there is no SeaBIOS (`make peers`)");
            return Ok(());
        };
        let flags = ["--bios".into(), bios.display().to_string(), "--append".into(), "by.bios=1".into()];
        let mut guest = Guest::shell(&image()?, flags)?;
        assert_eq!(guest.run("grep -c by.bios=1 /proc/cmdline", LIMIT)?.trim_end(), "1");
        // What no machine has that starts without a BIOS.
        assert_eq!(guest.run("dmesg | grep -c 'SMBIOS 2'", LIMIT)?.trim_end(), "1", "{rom}");
    }
    Ok(())
}

/// Esc shows it; the second disk is started, though the first would be.
#[test]
fn a_bios_shows_its_menu() -> Result<()> {
    let video = seabios("vgabios.bin").or_else(|| seabios("vgabios-stdvga.bin"));
    let Some((bios, video)) = seabios("bios-256k.bin").zip(video) else {
        skipped("a_bios_shows_its_menu", "there is no SeaBIOS (`make peers`)");
        return Ok(());
    };
    let disk = disk("menu")?;
    let [other, script] = ["menu-other.img", "menu.script"].map(built);
    fs::write(&other, vec![0; 1 << 20])?;
    fs::write(
        &script,
        "wait-screen \"Press ESC for boot menu\"\nkey esc\nwait-screen \"Select boot device\"\ntype \"2\"\nsleep 60s\n",
    )?;
    let mut command = bound_to_us("timeout");
    command.arg(LIMIT.as_secs().to_string()).arg(program()?);
    command.args(["boot", "--hda", &other, "--hdb", &disk, "--ttyS0", "--no-console"]);
    command.args(["--debug-exit", "0xf4", "--script", &script, "--bios"]).arg(&bios);
    command.arg("--vga-bios").arg(&video);
    let output = command.stdin(Stdio::null()).output()?;
    // The script waits until the machine has ended: the first disk has nothing to start.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "by block\nby sector\n", "{output:?}");
    Ok(())
}
