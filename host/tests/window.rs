//! The window on a desktop without a screen: typed into and resized by a program, and looked at.
#![cfg(all(unix, feature = "window"))]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use env86_tests::roms;

/// Far more than anything here needs, on any machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A process that ends with its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A display and its server, if there is one to be had.
fn display() -> Option<(String, Owned)> {
    for program in ["Xvfb", "xdotool", "xwd", "xclip"] {
        if Command::new(program).arg("-help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("warning: not tested: there is no {program}");
            return None;
        }
    }
    // Without `-noreset` it begins anew when its last client leaves, and drops who connects at that moment.
    let mut server = Command::new("Xvfb")
        .args(["-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp", "-noreset"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut number = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
    let (display, server) = (format!(":{}", number.trim()), Owned(server));
    // It says its number before it answers everyone.
    wait_for("the display does not answer", || {
        let mut asked = Command::new("xdotool");
        asked.arg("getmouselocation").env("DISPLAY", &display).stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    });
    Some((display, server))
}

/// A picture's size and its pixels, 00RRGGBBh.
type Picture = ((usize, usize), Vec<u32>);

/// What `xwd` says of a window: a header of big-endian words, colours of 12 bytes, pixels of 4 here.
fn window_picture(dump: &[u8]) -> Picture {
    let word = |at: usize| u32::from_be_bytes(dump[4 * at..][..4].try_into().unwrap()) as usize;
    let (header, width, height, line, colors) = (word(0), word(4), word(5), word(12), word(19));
    assert_eq!(word(11), 32, "bits of a pixel");
    let little = word(7) == 0;
    let lines = dump[header + 12 * colors..].chunks_exact(line).take(height);
    let pixel = |bytes: &[u8]| {
        let bytes = bytes.try_into().unwrap();
        (if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }) & 0xff_ffff
    };
    ((width, height), lines.flat_map(|line| line[..4 * width].chunks_exact(4).map(pixel)).collect())
}

fn file_picture(path: &Path) -> Option<Picture> {
    let decoder = png::Decoder::new(BufReader::new(fs::File::open(path).ok()?));
    let mut reader = decoder.read_info().ok()?;
    let mut data = vec![0; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut data).ok()?;
    let pixels = data.chunks_exact(3).map(|rgb| u32::from_be_bytes([0, rgb[0], rgb[1], rgb[2]]));
    Some(((info.width as usize, info.height as usize), pixels.collect()))
}

/// Waits until something holds.
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_window_is_typed_and_pasted_into_and_resized() {
    let Some((display, _server)) = display() else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("keys"), roms::multiboot(&roms::SHOW_KEYS)).unwrap();
    let mut env86 = Command::new(env!("CARGO_BIN_EXE_env86"))
        .args(["boot", "--kernel", "keys", "--memory", "4M", "--layout", "de", "--script", "-"])
        .current_dir(dir.path())
        .env("DISPLAY", &display)
        .env_remove("WAYLAND_DISPLAY")
        .env_remove("WAYLAND_SOCKET")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut script = env86.stdin.take().unwrap();
    let mut env86 = Owned(env86);
    let run = |program: &str, words: &[&str]| {
        let out = Command::new(program).args(words).env("DISPLAY", &display).output().unwrap();
        out.status.success().then_some(out.stdout)
    };
    let xdotool = |words: &[&str]| {
        let out = run("xdotool", words)?;
        String::from_utf8(out).unwrap().lines().last().map(str::to_owned)
    };
    let mut window = None;
    wait_for("there is no window", || {
        window = xdotool(&["search", "--name", "^keys - env86"]);
        window.is_some()
    });
    let window = window.unwrap();
    let looks = || window_picture(&run("xwd", &["-silent", "-id", &window]).unwrap());

    // Text of 720x400 dots is as on a monitor, until dots are to be squares.
    wait_for("the window is not 4 to 3", || looks().0 == (720, 540));
    xdotool(&["windowfocus", "--sync", &window]);
    xdotool(&["key", "ctrl+alt+a"]);
    wait_for("the window is not of the picture's size", || looks().0 == (720, 400));

    // A key goes to the guest, and what that shows is in the window, dot for dot.
    xdotool(&["key", "a"]);
    script.write_all(b"wait-screen \"A\xe2\x94\xb4\" 120s\nscreenshot a.png\n").unwrap();
    wait_for("the window does not show the machine's screen", || {
        file_picture(&dir.path().join("a.png")) == Some(looks())
    });

    // A window that a person has chosen the size of is filled as far as the picture's proportions let it.
    xdotool(&["windowsize", "--sync", &window, "900", "700"]);
    wait_for("the window does not follow its size", || {
        let ((width, height), pixels) = looks();
        let lit: Vec<_> =
            (0..height).filter(|y| pixels[y * width..][..width].iter().any(|p| *p != 0)).collect();
        // The picture has 720x400 dots: 900x500 from line 100 on, with a row of characters in the first 20.
        (width, height) == (900, 700) && !lit.is_empty() && lit.iter().all(|y| (100..120).contains(y))
    });

    // A key that is held when another window gets the keyboard goes up.
    let root = xdotool(&["search", "--maxdepth", "0", ""]).unwrap();
    xdotool(&["keydown", "x"]);
    script.write_all(b"wait-screen \"A\xe2\x94\xb4P\" 120s\n").unwrap();
    xdotool(&["windowfocus", &root]);
    script.write_all(b"wait-screen \"\xe2\x95\xa8\" 120s\n").unwrap();

    // What is in the clipboard is typed on a German keyboard: z where the US have y, and what has no key is left out.
    let mut copied = Command::new("xclip");
    copied.args(["-selection", "clipboard"]).env("DISPLAY", &display).stdin(Stdio::piped());
    // It stays until something else is in the clipboard.
    let mut copied = copied.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    copied.stdin.take().unwrap().write_all("z\u{2603}\u{e4}".as_bytes()).unwrap();
    assert!(copied.wait().unwrap().success());
    xdotool(&["windowfocus", "--sync", &window]);
    xdotool(&["key", "ctrl+alt+v"]);
    script.write_all("wait-screen \"8\u{2555}K\u{2566}\" 120s\n".as_bytes()).unwrap();
    drop(script);
    assert!(env86.0.wait().unwrap().success());
}
