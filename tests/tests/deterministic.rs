//! `env86 boot --deterministic`: the same machine with the same input executes the same instructions and
//! ends in the same state, on every run and, under Node, as WebAssembly.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use env86_tests::{
    Failure, Result, bound_to_us, image, image_root, only_file, program, wasm_module, workspace,
};

const CMDLINE: &str = "console=ttyS0 quiet tsc=reliable mitigations=off cryptomgr.notests";
const MEMORY_MB: &str = "64";
const TEXT: &str = "over-and-out";
/// Time, chance and a line for the end; the quotes keep the echo of it from being the end.
const INPUT: &str = "cat /proc/uptime; od -N 8 -x /dev/urandom; date; echo over-an''d-out\n";

/// Runs a program to its end on some input.
fn run(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    if out.status.success() { Ok(out) } else { Err(Failure::from(std::io::Error::other(said))) }
}

/// The line with the number of instructions and the state's hash.
fn result(out: &Output) -> String {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    said.lines().find(|line| line.contains(" instructions, state ")).unwrap_or(&said).to_owned()
}

fn env86(flags: &[&str]) -> Result<Command> {
    let mut command = bound_to_us(program()?);
    command.args(["boot", "--ttyS0", "--no-console", "--deterministic", "--exit-on", TEXT]).args(flags);
    Ok(command)
}

/// The demo image's kernel and initial RAM disk, which ends in a shell where it is given no root.
fn kernel() -> Result<(PathBuf, PathBuf)> {
    let boot = image_root()?.join("boot");
    Ok((only_file(&boot, "vmlinuz")?, only_file(&boot, "initramfs")?))
}

fn native(input: &str) -> Result<Output> {
    let (kernel, initrd) = kernel()?;
    let mut command = env86(&["--append", CMDLINE, "--memory", &format!("{MEMORY_MB}M")])?;
    run(command.arg("--kernel").arg(kernel).arg("--initrd").arg(initrd), input)
}

#[test]
fn runs_repeat_here_and_as_webassembly() -> Result<()> {
    let first = native(INPUT)?;
    let second = native(INPUT)?;
    assert_eq!(result(&first), result(&second));
    assert!(first.stdout == second.stdout, "the output differs");
    assert_ne!(result(&native(&format!("\n{INPUT}"))?), result(&first), "the input does not matter");
    let module = wasm_module();
    if !module.exists() || Command::new("node").arg("--version").output().is_err() {
        // Past the test harness, which swallows what is printed by tests that pass.
        writeln!(
            std::io::stderr(),
            "\nSKIPPED: deterministic runs as WebAssembly: there is no Node, or no {} (`make wasm`)\n",
            module.display()
        )?;
        return Ok(());
    }
    let (kernel, initrd) = kernel()?;
    let mut node = bound_to_us("node");
    node.arg(workspace().join("benches/wasm/run.mjs")).arg(module).args([&kernel, &initrd]);
    let web = run(node.args([CMDLINE, MEMORY_MB, INPUT, TEXT]), "")?;
    assert!(web.stdout == first.stdout, "the output differs: {}", String::from_utf8_lossy(&web.stdout));
    assert_eq!(result(&web), result(&first));
    Ok(())
}

#[test]
fn a_restored_machine_repeats_too() -> Result<()> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deterministic");
    fs::create_dir_all(&dir)?;
    let state = dir.join("state");
    let boot = |flag: &str| -> Result<Output> {
        run(env86(&["--acpi", "--memory", "128M", flag])?.arg(&state).arg(image()?), INPUT)
    };
    let resume = || run(env86(&["--state"])?.arg(&state).arg(image()?), INPUT);
    boot("--save-state")?;
    let (first, second) = (resume()?, resume()?);
    assert_eq!(result(&first), result(&second));
    assert!(first.stdout == second.stdout, "the output differs");
    Ok(fs::remove_dir_all(dir)?)
}
