//! Real boots of the demo image by the `env86` program.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use env86_tests::{
    BOOT_LIMIT, Failure, Guest, PROMPT, Result, bound_to_us, image, image_root, pae_image, program,
};

const NO_FLAGS: [&str; 0] = [];
const SHORT: Duration = Duration::from_secs(60);

/// Boots to the shell and looks at what the kernel says of itself, its root and its board.
fn reaches_a_shell(image: &Path, acpi: bool, kernel: &str) -> Result<()> {
    let mut guest = Guest::shell(image, [format!("--acpi={acpi}")])?;
    let release = guest.run("uname -r", SHORT)?;
    assert!(release.trim_end().ends_with(kernel), "{release}");
    let root = guest.run("grep ' / ' /proc/mounts", SHORT)?;
    assert!(root.starts_with("host9p / 9p rw"), "{root}");
    let interrupts = guest.run("cat /proc/interrupts", SHORT)?;
    assert_eq!(interrupts.contains("IO-APIC"), acpi, "{interrupts}");
    let log = guest.check("kernel-log", SHORT)?;
    assert!(log.starts_with("PASS"), "{log}");
    Ok(())
}

#[test]
fn kernel_without_pae() -> Result<()> {
    reaches_a_shell(&image()?, false, "-686")
}

#[test]
fn kernel_without_pae_with_acpi() -> Result<()> {
    reaches_a_shell(&image()?, true, "-686")
}

#[test]
fn kernel_with_pae() -> Result<()> {
    reaches_a_shell(&pae_image()?, false, "-686-pae")
}

#[test]
fn kernel_with_pae_and_acpi() -> Result<()> {
    reaches_a_shell(&pae_image()?, true, "-686-pae")
}

#[test]
fn guest_sees_every_file_of_the_tree() -> Result<()> {
    fn count(folder: &Path) -> std::io::Result<usize> {
        let mut entries = 1;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            entries += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
        }
        Ok(entries)
    }
    let mut guest = Guest::shell(&image()?, NO_FLAGS)?;
    let seen = guest.run("find / -xdev | wc -l", BOOT_LIMIT)?;
    assert_eq!(seen.trim(), count(&image_root()?)?.to_string());
    Ok(())
}

#[test]
fn output_is_complete_without_a_terminal_and_power_off_ends_the_program() -> Result<()> {
    for acpi in ["--acpi=false", "--acpi=true"] {
        let mut guest = Guest::shell(&image()?, [acpi])?;
        guest.line("seq 1 3000; poweroff")?;
        guest.close_input();
        let (status, output) = guest.wait_for_end(BOOT_LIMIT)?;
        assert!(status.success(), "{acpi}: {status}\n{output}");
        let numbers: Vec<_> = output.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
        assert_eq!(numbers.len(), 3000, "{acpi}");
        assert!(output.contains("reboot: "), "{acpi}: the kernel's last words are missing:\n{output}");
    }
    Ok(())
}

#[test]
fn exit_on_ends_with_success_and_no_input_at_all() -> Result<()> {
    let output = bound_to_us(program()?)
        .arg("boot")
        .arg(image()?)
        .args(["--ttyS0", "--no-console", "--exit-on", PROMPT])
        .stdin(Stdio::null())
        .output()?;
    assert!(output.status.success(), "{}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains(PROMPT));
    Ok(())
}

#[test]
fn what_is_typed_ahead_reaches_the_shell() -> Result<()> {
    let mut guest = Guest::boot(&image()?, NO_FLAGS)?;
    guest.line("echo typed-$((40 + 2))")?;
    guest.wait_for("typed-42", BOOT_LIMIT).map(drop)
}

#[test]
fn debug_exit_gives_the_guest_s_value() -> Result<()> {
    let mut guest = Guest::shell(&image()?, ["--debug-exit", "0xf4"])?;
    guest.line("printf '\\007' | dd of=/dev/port bs=1 seek=$((0xf4)) conv=notrunc status=none")?;
    let (status, output) = guest.wait_for_end(SHORT)?;
    assert_eq!(status.code(), Some(7), "{output}");
    Ok(())
}

#[test]
fn reboot_starts_the_machine_again() -> Result<()> {
    let mut guest = Guest::shell(&image()?, NO_FLAGS)?;
    guest.line("reboot")?;
    guest.wait_for(PROMPT, BOOT_LIMIT)?;
    Ok(())
}

/// Processor time of a process in seconds, from the kernel's table.
#[cfg(target_os = "linux")]
fn processor_seconds(pid: u32) -> Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold blanks; user and system time are fields 14 and 15.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields[11..=12].iter().filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
    Ok(ticks / TICKS_PER_SECOND)
}

#[test]
#[cfg(target_os = "linux")]
fn idle_guest_sleeps() -> Result<()> {
    let mut guest = Guest::boot(&image()?, NO_FLAGS)?;
    guest.wait_for(PROMPT, BOOT_LIMIT)?;
    sleep(Duration::from_secs(3));
    let before = processor_seconds(guest.pid())?;
    sleep(Duration::from_secs(10));
    let share = (processor_seconds(guest.pid())? - before) / 10.0;
    // On a quiet host it is 2 %; this limit is for one whose caches and cores others use, too.
    println!("{:.1} % of a core at the prompt", share * 100.0);
    assert!(share < 0.15, "{:.1} % of a core at the prompt", share * 100.0);
    Ok(())
}

#[test]
fn unusable_kernel_is_one_clear_message() -> Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kernel = folder.join("not-a-kernel");
    fs::write(&kernel, "just text")?;
    for path in [kernel.as_path(), Path::new("/nonexistent/vmlinuz")] {
        let output =
            bound_to_us(program()?).arg("boot").arg("--kernel").arg(path).stdin(Stdio::null()).output()?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Failure::from(std::io::Error::other("name")))?;
        assert!(message.contains(name) && message.trim_end().lines().count() == 1, "{message}");
    }
    Ok(())
}
