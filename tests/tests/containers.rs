//! Container images with nothing but busybox, and with Debian's programs, made here into OCI's layout: with the demo image's
//! kernel they are machines.

#![cfg(unix)]

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use env86_tests::{BOOT_LIMIT, Guest, Result, bound_to_us, image, image_root, program};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What busybox's shell prints for root at home, where no one has set it a prompt.
const PROMPT: &str = "~ # ";
const SHORT: Duration = Duration::from_secs(60);

/// A scratch folder of this name, which was not there.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A tree as containers have it: programs, and the places where a system mounts what is its own.
pub fn tree(root: &Path) -> Result<()> {
    for folder in ["bin", "dev", "etc", "proc", "sbin", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(image_root()?.join("bin/busybox"), root.join("bin/busybox"))?;
    for applet in ["sh", "cat", "echo", "grep", "hostname", "id", "mount", "poweroff", "uname"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    Ok(())
}

/// Puts bytes among the blobs of a layout; gives their descriptor.
fn blob(layout: &Path, kind: &str, bytes: &[u8]) -> Result<Value> {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(layout.join("blobs/sha256").join(&digest), bytes)?;
    let kind = format!("application/vnd.oci.image.{kind}");
    Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
}

/// Makes OCI's layout of a tree, as one layer that is root's.
pub fn layout(tree: &Path, layout: &Path) -> Result<()> {
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    let tar = Command::new("tar").args(["-c", "--owner=0", "--group=0", "-C"]).arg(tree).arg(".").output()?;
    if !tar.status.success() {
        return Err(io::Error::other(format!("tar: {}", String::from_utf8_lossy(&tar.stderr))).into());
    }
    let layer = blob(layout, "layer.v1.tar", &tar.stdout)?;
    let config = json!({
        "architecture": "386", "os": "linux", "config": { "Cmd": ["/bin/sh"], "Env": ["FROM=layout"] },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(layout, "config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let manifest = blob(layout, "manifest.v1+json", manifest.to_string().as_bytes())?;
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// Makes an image of a tree, by way of a layout, with these flags.
fn made(folder: &Path, flags: &[&str]) -> Result<PathBuf> {
    layout(&folder.join("tree"), &folder.join("layout"))?;
    let made = folder.join("image");
    let output = Command::new(program()?)
        .args(["create", "--from-oci"])
        .arg(folder.join("layout"))
        .args(flags)
        .arg(&made)
        .output()?;
    match output.status.success() {
        true => Ok(made),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()).into()),
    }
}

/// Runs a command in a machine of a container, with the demo image's kernel: its status, and what it and the program say.
fn run(made: &Path, command: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut run = bound_to_us(program()?);
    let output = run.args(["run", "--kernel"]).arg(image()?).arg(made).args(command).output()?;
    let [said, told] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.code(), said, told))
}

#[test]
fn a_container_boots_to_its_shell_with_another_images_kernel() -> Result<()> {
    let folder = scratch("container")?;
    tree(&folder.join("tree"))?;
    let made = made(&folder, &["--no-guest"])?;
    let mut guest = Guest::boot(&made, ["--kernel".as_ref(), image()?.as_os_str()])?;
    guest.wait_for(PROMPT, BOOT_LIMIT)?;
    guest.line("echo $$ $(id -u) $(uname -m); grep ' / ' /proc/mounts")?;
    // Behind the echo of what was typed.
    guest.wait_for("mounts\r\n", SHORT)?;
    let said = guest.wait_for(PROMPT, SHORT)?;
    assert!(said.starts_with("1 0 i686\r\nhost9p / 9p rw"), "{said}");
    Ok(())
}

#[test]
fn commands_run_in_a_container_whose_init_starts_guest86() -> Result<()> {
    let folder = scratch("container-run")?;
    let root = folder.join("tree");
    tree(&root)?;
    symlink("../bin/busybox", root.join("sbin/init"))?;
    fs::copy(image_root()?.join("usr/bin/guest86"), root.join("sbin/guest86"))?;
    fs::write(root.join("etc/inittab"), "::respawn:/sbin/guest86\n")?;
    let made = made(&folder, &[])?;
    let config = made.join("image.json");
    let mut said: Value = serde_json::from_slice(&fs::read(&config)?).map_err(io::Error::from)?;
    said["has_guest_service"] = true.into();
    fs::write(&config, said.to_string())?;
    let (status, said, told) = run(&made, &["sh", "-c", "uname -m; id -u; exit 3"])?;
    assert_eq!((status, &*said), (Some(3), "i686\n0\n"), "{told}");
    Ok(())
}

#[test]
fn a_container_without_an_init_has_guest86_for_one() -> Result<()> {
    let folder = scratch("container-init")?;
    tree(&folder.join("tree"))?;
    fs::write(folder.join("tree/etc/hostname"), "box\n")?;
    let made = made(&folder, &["--with-guest"])?;
    let asked = "cat /proc/1/cmdline; echo; hostname; grep -c ' /dev/shm \\| /run ' /proc/mounts; exit 3";
    let (status, said, told) = run(&made, &["sh", "-c", asked])?;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((status, &lines[..]), (Some(3), &["/sbin/guest86\0", "box", "2"][..]), "{told}");

    // A shell at the console, which comes again, and a switch.
    let mut guest = Guest::boot(&made, ["--kernel".as_ref(), image()?.as_os_str()])?;
    guest.wait_for(PROMPT, BOOT_LIMIT)?;
    guest.line("exit")?;
    guest.wait_for(PROMPT, SHORT)?;
    guest.line("poweroff")?;
    let (status, said) = guest.wait_for_end(SHORT)?;
    assert!(status.success(), "{status} {said}");
    Ok(())
}

#[test]
fn a_container_runs_its_command_and_ends_with_it() -> Result<()> {
    let folder = scratch("container-command")?;
    tree(&folder.join("tree"))?;
    let made = made(&folder, &["--with-guest"])?;
    let command = r#"GUEST86_COMMAND="echo the $((40 + 2))nd""#;
    let guest = Guest::boot(
        &made,
        ["--kernel".as_ref(), image()?.as_os_str(), "--append".as_ref(), command.as_ref()],
    )?;
    let (status, said) = guest.wait_for_end(BOOT_LIMIT)?;
    assert!(status.success() && said.contains("the 42nd"), "{status} {said}");
    Ok(())
}

/// Debian's own programs: the demo image's tree without what makes it a machine.
#[test]
fn a_debian_container_boots_to_bash_with_guest86_for_its_init() -> Result<()> {
    let folder = scratch("container-debian")?;
    let tree = folder.join("tree");
    let copied = Command::new("cp").arg("-a").arg(image_root()?).arg(&tree).status()?;
    assert!(copied.success());
    for part in ["boot", "usr/lib/modules"] {
        fs::remove_dir_all(tree.join(part))?;
    }
    for file in ["usr/sbin/init", "usr/bin/guest86", "usr/bin/busybox", "etc/inittab", "etc/fstab"] {
        fs::remove_file(tree.join(file))?;
    }
    let made = made(&folder, &["--with-guest"])?;
    let asked = ". /etc/os-release; echo $ID $VERSION_CODENAME; tr '\\0' '\\n' < /proc/1/cmdline; exit 3";
    let (status, said, told) = run(&made, &["bash", "-c", asked])?;
    assert_eq!((status, &*said), (Some(3), "debian bookworm\n/usr/sbin/guest86\n"), "{told}");

    let mut guest = Guest::boot(&made, ["--kernel".as_ref(), image()?.as_os_str()])?;
    guest.wait_for("# ", BOOT_LIMIT)?;
    guest.line("tar --version | head -n 1; readlink /proc/$$/exe")?;
    guest.wait_for("(GNU tar)", SHORT)?;
    guest.wait_for("/usr/bin/bash\r\n", SHORT)?;
    Ok(())
}
