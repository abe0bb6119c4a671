//! The package for pages and Node: the demo image in it, and states that move between it and the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use env86_tests::{
    Result, bound_to_us, image, image_root, only_file, program, skipped, web_package, workspace,
};

/// What is typed for the first machine. The quotes keep the echo of a mark from being it.
const FIRST: &str =
    "echo = $(uname -s -m); mark=1; echo written > /root/from-guest; sync; echo first-do''ne\n";
const SECOND: &str = "mark=$mark-2; echo again > /root/from-guest; sync; echo second-do''ne\n";
const THIRD: &str = "echo = $mark-3 $(cat /root/from-page); echo third-do''ne\n";

/// Runs the package from a state, or from power-on; gives what COM1 has sent, and the guest's file.
fn web(package: &Path, from: Option<&Path>, to: &Path, input: &str, mark: &str) -> Result<(String, String)> {
    let mut node = bound_to_us("node");
    node.arg(workspace().join("tests/web/machine.mjs")).arg(package).arg(image()?);
    node.arg(from.unwrap_or(Path::new("-"))).args([input, mark]).arg(to).stdin(Stdio::null());
    let out = node.output()?;
    let (said, told) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{told}\n{said}");
    Ok((said.into_owned(), told.into_owned()))
}

/// Runs the program from a state.
fn native(from: &Path, to: &Path, input: &str, mark: &str) -> Result<String> {
    let mut command = bound_to_us(program()?);
    command.args(["boot", "--ttyS0", "--no-console", "--exit-on", mark]);
    command.arg("--state").arg(from).arg("--save-state").arg(to).arg(image()?);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take();
    if let Some(stdin) = &mut stdin {
        use std::io::Write;
        stdin.write_all(input.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    drop(stdin);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The package, if it was made and there is Node.
fn package(test: &str) -> Option<PathBuf> {
    let package = web_package();
    let node = Command::new("node").arg("--version").output().is_ok_and(|out| out.status.success());
    if node && package.with_file_name("env86.wasm").exists() {
        return Some(package);
    }
    skipped(test, &format!("there is no Node, or no {} (`make web`)", package.display()));
    None
}

#[test]
fn the_demo_image_moves_between_a_page_and_the_program() -> Result<()> {
    let name = "the_demo_image_moves_between_a_page_and_the_program";
    let Some(package) = package(name) else { return Ok(()) };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&dir)?;
    let [first, second, third] = ["first", "second", "third"].map(|name| dir.join(name));
    let (said, file) = web(&package, None, &first, FIRST, "first-done")?;
    assert!(said.contains("\n= Linux i686\r\n"), "{said}");
    assert_eq!(file.trim(), "written");
    native(&first, &second, SECOND, "second-done")?;
    let (said, file) = web(&package, Some(&second), &third, THIRD, "third-done")?;
    assert!(said.contains("\n= 1-2-3 made by the page\r\n"), "{said}");
    assert_eq!(file.trim(), "again");
    Ok(fs::remove_dir_all(dir)?)
}

#[test]
fn a_kernel_that_the_page_has_let_go_of_is_started_again() -> Result<()> {
    let Some(package) = package("a_kernel_that_the_page_has_let_go_of_is_started_again") else {
        return Ok(());
    };
    let boot = |prefix| only_file(&image_root()?.join("boot"), prefix);
    let mut node = bound_to_us("timeout");
    node.args(["240", "node"]).arg(workspace().join("tests/web/restart.mjs")).arg(package);
    node.arg(boot("vmlinuz")?).arg(boot("initramfs")?).args(["Linux version", "console=ttyS0 tsc=reliable"]);
    let out = node.stdin(Stdio::null()).output()?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}
