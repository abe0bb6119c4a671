//! What a user can give that is wrong: one message that names the file and the remedy, exit 1.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Runs `env86 boot` with arguments that cannot work; gives its one line of complaint.
fn complaint(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_env86"))
        .args(["boot", "--no-console"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(out.stdout.is_empty());
    assert!(text.starts_with("env86: ") && text.lines().count() == 1 && !text.contains("panicked"), "{text}");
    text
}

fn check(args: &[&str], parts: &[&str]) {
    let text = complaint(args);
    for part in parts {
        assert!(text.contains(part), "no {part} in: {text}");
    }
}

/// An image with a kernel of four bytes in /boot.
fn image() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("fs")).unwrap();
    write(&dir, "image.json", r#"{"cmdline":"rw"}"#);
    write(
        &dir,
        "fs.json",
        r#"{"fsroot":[["boot",0,0,16877,0,0,[["vmlinuz",4,0,33188,0,0,"abcd.bin"]]]],"size":4,"version":3}"#,
    );
    write(&dir, "fs/abcd.bin", "kern");
    dir
}

fn write(dir: &TempDir, name: &str, contents: impl AsRef<[u8]>) {
    fs::write(dir.path().join(name), contents).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_image_that_is_not_there() {
    check(&["./no/such"], &["`./no/such`", "env86 create"]);
    check(&["no-such-name"], &["no-such-name", "latest", "./no-such-name"]);
    // With nothing at all the machine tests itself.
    check(&["--boot", "c"], &["Nothing to start", "--kernel"]);
}

#[test]
fn an_image_with_parts_missing_or_malformed() {
    let dir = image();
    let path = text(dir.path());
    fs::remove_file(dir.path().join("fs.json")).unwrap();
    check(&[path], &["fs.json` is missing", "make it again"]);
    write(&dir, "fs.json", "[");
    check(&[path], &["fs.json", "make the image again"]);
    write(&dir, "fs.json", r#"{"fsroot":[],"version":2}"#);
    check(&[path], &["fs.json", "version 2"]);
    write(&dir, "image.json", "{\n\"memory_size\": \"512M\"}");
    check(&[path], &["image.json` is malformed", "line 2"]);
    fs::remove_file(dir.path().join("image.json")).unwrap();
    check(&[path], &["image.json` is missing"]);
    check(&[text(&dir.path().join("fs/abcd.bin"))], &["is a file", "no .tgz", "env86 create"]);
}

#[test]
fn disk_images_that_cannot_be() {
    let dir = image();
    let path = text(dir.path());
    check(&[path, "--hda", "/no/such/disk"], &["`/no/such/disk`", "check the path"]);
    check(&[path, "--cdrom", path], &["Cannot open the disk image"]);
    write(&dir, "disk", "");
    let disk = dir.path().join("disk");
    check(&[path, "--hda", text(&disk)], &["disk` is empty", "truncate"]);
    for (begin, kind) in [("KDMV", "VMDK"), ("conectix", "VHD"), ("vhdxfile", "VHDX"), ("<<< Oracle", "VDI")]
    {
        write(&dir, "foreign", begin);
        check(
            &[path, "--hda", text(&dir.path().join("foreign"))],
            &["foreign` is a", kind, "qemu-img convert"],
        );
    }
    write(&dir, "disk", "some");
    check(&[path, "--hdb", text(&disk)], &["hdb", "needs a first one (hda)"]);
    let disk_path = text(&disk);
    let all = [path, "--hdc", disk_path, "--hdd", disk_path, "--cdrom", disk_path];
    check(&all, &["no place for a CD-ROM drive", "leave out one"]);
    for (hda, parts) in [
        (r#"{"url":"./disk","size":512}"#, ["has 4 bytes", "says that it has 512"]),
        (r#"{"url":"./disk","use_parts":true}"#, ["hda", "use_parts"]),
        (r#"{"url":"./disk.zst"}"#, ["hda", "unpack it"]),
        (r#"{"url":"../disk"}"#, ["hda names `../disk`", "inside the image"]),
    ] {
        write(&dir, "image.json", format!(r#"{{"cmdline":"rw","hda":{hda}}}"#));
        check(&[path], &parts);
    }
}

#[test]
fn a_blob_that_is_missing_or_too_short() {
    let dir = image();
    write(&dir, "fs/abcd.bin", "ke");
    check(&[text(dir.path())], &["fs/abcd.bin` has 2 bytes where 4 are needed", "copy or make it again"]);
    fs::remove_file(dir.path().join("fs/abcd.bin")).unwrap();
    check(&[text(dir.path())], &["fs/abcd.bin` is missing", "copy or make it again"]);
}

#[test]
fn an_image_without_a_kernel() {
    let dir = image();
    write(&dir, "fs.json", r#"{"fsroot":[],"size":0,"version":3}"#);
    check(&[text(dir.path())], &["has no kernel", "--kernel FILE"]);
}

#[test]
fn a_kernel_that_is_none() {
    let dir = image();
    check(&[text(dir.path())], &["/boot/vmlinuz of", "not a Linux kernel"]);
    check(&["--kernel", "/no/such/kernel"], &["kernel `/no/such/kernel`", "check the path"]);
    check(&["--kernel", "/"], &["`/image.json` is missing"]);
    let elf64 = dir.path().join("elf64");
    fs::write(&elf64, [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 4096]].concat()).unwrap();
    check(&["--kernel", text(&elf64)], &["elf64", "64-bit", "i386"]);
    let bzimage = dir.path().join("bzimage");
    fs::write(&bzimage, wide_bzimage()).unwrap();
    check(&["--kernel", text(&bzimage)], &["bzimage", "64-bit", "i386"]);
}

/// The header of a kernel whose protected-mode part starts in long mode only.
fn wide_bzimage() -> Vec<u8> {
    let mut file = vec![0; 8192];
    file[0x1f1] = 1; // one sector of setup code
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x200..0x202].copy_from_slice(&[0xeb, 0x66]); // the header ends at 268h
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    file[0x211] = 1; // loaded high
    file[0x236] = 1; // XLF_KERNEL_64
    file
}

#[test]
fn memory_that_no_board_carries() {
    let dir = image();
    for size in ["0", "100G", "99999999999999G"] {
        check(&[text(dir.path()), "--memory", size], &["between 1 MiB and 2047 MiB"]);
    }
}

#[test]
fn a_rom_of_the_wrong_size() {
    let dir = image();
    check(&["--bios", text(&dir.path().join("fs/abcd.bin"))], &["abcd.bin", "64, 128 or 256 KiB"]);
}

#[test]
fn what_is_larger_than_the_machine() {
    let dir = image();
    let large = dir.path().join("large");
    fs::File::create(&large).unwrap().set_len(5 << 30).unwrap();
    for (flag, what) in [("--kernel", "kernel"), ("--bios", "BIOS")] {
        for file in [text(&large), "/dev/zero"] {
            check(
                &[flag, file, "--memory", "16M"],
                &[&format!("The {what} `{file}`"), "memory of 16 MiB", "--memory"],
            );
        }
    }
    check(&[text(dir.path()), "--initrd", text(&large)], &["initial RAM disk", "512 MiB"]);
    let index = |size: &str| {
        let entry = format!(r#"["vmlinuz",{size},0,33188,0,0,"abcd.bin"]"#);
        write(&dir, "fs.json", format!(r#"{{"fsroot":[{entry}],"size":4,"version":3}}"#));
    };
    for size in ["4000000000", "18446744073709551615", "1e308"] {
        index(size);
        check(&[text(dir.path())], &["`/vmlinuz` is larger", "check the file"]);
    }
    index("-1");
    check(&[text(dir.path())], &["/vmlinuz of", "not a Linux kernel"]);
}

#[test]
fn flags_with_values_that_cannot_be() {
    let out = |args: &[&str]| {
        let args = [&["boot", "im"], args].concat();
        let out = Command::new(env!("CARGO_BIN_EXE_env86")).args(args).output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        String::from_utf8(out.stderr).unwrap()
    };
    for port in ["0x10000", "65536", "-1", "f4", ""] {
        assert!(out(&[&format!("--debug-exit={port}")]).contains("--debug-exit <PORT>"), "{port}");
    }
    for size in ["12Q", "-5", "M", ""] {
        assert!(out(&[&format!("-memory={size}")]).contains("--memory <SIZE>"), "{size}");
    }
    assert!(out(&["--acpi=perhaps"]).contains("--acpi"));
    assert!(out(&["--bogus"]).contains("unexpected argument '--bogus'"));
}

#[cfg(feature = "window")]
#[test]
fn a_window_without_a_display() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "rom", [0xf4; 64 << 10]);
    let out = Command::new(env!("CARGO_BIN_EXE_env86"))
        .args(["boot", "--bios", text(&dir.path().join("rom"))])
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .env_remove("WAYLAND_SOCKET")
        .output()
        .unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no display") && text.contains("--no-console") && text.lines().count() == 1,
        "{text}"
    );
}
