//! A PC at whose screen and keyboard a program sits: with the library, and by a script.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use env86::{ControlError, Machine};
use tempfile::TempDir;

/// Far more than anything here needs, on any machine.
const LIMIT: Duration = Duration::from_secs(120);

/// At F000:0000: shows each scan code, 23h higher, which makes `A` of the key that has it, and sends it to
/// COM1.
const SHOW_KEYS: [u8; 27] = [
    0xb8, 0x00, 0xa0, // 00 mov ax, A000h
    0x8e, 0xc0, //       03 mov es, ax
    0x31, 0xff, //       05 xor di, di
    0xe4, 0x64, //       07 in al, 64h
    0xa8, 0x01, //       09 test al, 1
    0x74, 0xfa, //       0B jz 07h
    0xe4, 0x60, //       0D in al, 60h
    0x04, 0x23, //       0F add al, 23h
    0xb4, 0x07, //       11 mov ah, 7
    0xab, //             13 stosw
    0xba, 0xf8, 0x03, // 14 mov dx, 3F8h
    0xee, //             17 out dx, al
    0xeb, 0xed, //       18 jmp 07h
    0xf4,
];

/// A directory with that guest as `rom`.
fn guest() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut rom = vec![0; 64 << 10];
    rom[..SHOW_KEYS.len()].copy_from_slice(&SHOW_KEYS);
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]); // jmp F000:0000
    fs::write(dir.path().join("rom"), rom).unwrap();
    dir
}

#[test]
fn keys_are_typed_and_the_screen_is_seen() {
    let dir = guest();
    let machine = Machine::builder().bios(dir.path().join("rom")).start().unwrap();
    let controls = machine.controls();
    controls.type_text("aA").unwrap();
    // Shift is 2Ah, its release AAh.
    let screen = controls.wait_screen("A┴MA┴═", LIMIT).unwrap();
    assert_eq!((screen.columns, screen.rows, screen.row(0)[0].attribute), (80, 25, 7));
    controls.keys("ctrl-a").unwrap();
    controls.wait_screen("═@A┴└", LIMIT).unwrap();
    let error = controls.wait_screen("never", Duration::ZERO).unwrap_err();
    assert!(matches!(&error, ControlError::NotShown { shown, .. } if shown.contains("A┴")), "{error}");
    assert!(matches!(controls.keys("hyper-a"), Err(ControlError::Key(_))));
    assert!(matches!(controls.type_text("ä"), Err(ControlError::Character(_))));
    assert!(matches!(controls.point_at(1, 1), Err(ControlError::NoPositions)));
    controls.move_mouse(3, -4).unwrap();
    let png = controls.screenshot().unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    machine.stop().unwrap();
    assert!(matches!(controls.text(), Err(ControlError::Gone)));
}

fn env86(dir: &Path, script: &str, flags: &[&str]) -> Output {
    fs::write(dir.join("script"), script).unwrap();
    Command::new(env!("CARGO_BIN_EXE_env86"))
        .args(["boot", "--bios", "rom", "--no-console", "--script", "script"])
        .args(flags)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_script_drives_the_machine() {
    let dir = guest();
    let script = "# what a person would do\n\
                  type \"a\"\n\
                  wait-screen \"A┴\" 120s\n\
                  wait-serial \"A\" 120s\n\
                  screenshot shot.png\n\
                  expect-screen shot.png\n\
                  save machine.state\n\
                  sleep 10ms\n";
    let output = env86(dir.path(), script, &["--screenshot", "end.png", "--record", "film.gif"]);
    assert!(output.status.success(), "{output:?}");
    assert!(dir.path().join("machine.state").exists());
    let begins = |name: &str, magic: &[u8]| fs::read(dir.path().join(name)).unwrap().starts_with(magic);
    assert!(begins("end.png", b"\x89PNG\r\n\x1a\n") && begins("film.gif", b"GIF89a"));
    // The steps may come one by one.
    let mut child = Command::new(env!("CARGO_BIN_EXE_env86"))
        .args(["boot", "--state", "machine.state", "--no-console", "--script", "-"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"key b\nwait-screen \"S\" 120s\n").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_script_that_fails_says_where_and_shows_the_screen() {
    let dir = guest();
    let script = "key a\nwait-screen \"A\" 120s\nwait-screen \"never\" 1ms\n";
    let output = env86(dir.path(), script, &["--screenshot", "failed.png"]);
    assert!(dir.path().join("failed.png").exists(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("Line 3 of the script failed: wait-screen \"never\" 1ms"), "{text}");
    assert!(text.contains("A┴"), "{text}");

    let output = env86(dir.path(), "key a\nfly away\n", &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("line 2, column 1: there is no step `fly`"), "{text}");
}
