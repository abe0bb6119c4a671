//! X in the image of `images/desktop`, by its drivers: what X says that it shows is what is on the screen, dot for dot.

use std::fmt::Write as _;
use std::process::Stdio;
use std::{env, fs};

use env86_tests::{PROMPT, Result, bound_to_us, built, program, skipped};
use sha2::{Digest, Sha256};

use crate::framebuffer::quoted;
use crate::video::{Picture, roms};

/// Lines at the top and at the bottom that are compared: X does not tell of the pointer, which is in the middle.
const LINES: usize = 250;

/// Waits until the programs of the session have their windows, and prints what the root window shows: its size, and
/// checksums of the dots of its first and last [`LINES`] lines, in hexadecimal digits, one a line. It does so early in a
/// minute, for there are clocks among the programs, and the screen is looked at some seconds later.
const LOOK: &str = "\
stty -echo
export DISPLAY=:0
until xwininfo -root -tree 2> /dev/null | grep -q xterm; do sleep 1; done
sleep 10
until [ $(date +%S) -lt 40 ]; do sleep 1; done
xwd -root -silent > /run/root.xwd
set -- $(xwininfo -root | sed -n 's/^ *\\(Width\\|Height\\): //p')
dots() { tail -c $(($1 * $2 * 4)) /run/root.xwd | $3 -c $((LINES * $1 * 4)) | od -An -v -tx4 -w4 | cut -c 4- | sha256sum; }
echo \"root: $1 by $2 $(dots $1 $2 head) $(dots $1 $2 tail)\" \"end\" of it
";

fn checksum(picture: &Picture, lines: std::ops::Range<usize>) -> String {
    let row = picture.size.0 * 3;
    let mut text = String::new();
    for dot in picture.pixels[lines.start * row..lines.end * row].chunks(3) {
        // Writing to a string does not fail.
        _ = writeln!(text, "{:02x}{:02x}{:02x}", dot[0], dot[1], dot[2]);
    }
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Starts X with these words for the kernel, and looks.
fn shows(test: &str, append: &str, bios: bool) -> Result<()> {
    let image = env::var("ENV86_DESKTOP_IMAGE").expect("ENV86_DESKTOP_IMAGE: `make test` sets it");
    let mut command = bound_to_us(program()?);
    command.args(["boot", &image, "--no-console", "--ttyS0", "--append", append]);
    if bios {
        let Some([bios, video]) = roms() else {
            skipped(&format!("desktop::{test}"), "there is no SeaBIOS (`make peers`)");
            return Ok(());
        };
        command.arg("--bios").arg(bios).arg("--vga-bios").arg(video);
    }
    let [steps, shot] = ["script", "png"].map(|file| built(&format!("desktop-{test}.{file}")));
    let script = format!(
        "wait-serial {} 240s\nsend {}\nsend {}\nwait-serial \"end of it\" 240s\nscreenshot {shot}\n",
        quoted(PROMPT),
        quoted(&format!("cat > /run/look << 'END'\nLINES={LINES}\n{LOOK}END\n")),
        quoted("sh /run/look\n"),
    );
    fs::write(&steps, script)?;
    let output = command.arg("--script").arg(&steps).stdin(Stdio::null()).output()?;
    assert!(output.status.success(), "{test}: {output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let picture = Picture::png(shot.as_ref()).expect("the screenshot is a picture");
    let (width, height) = picture.size;
    let [top, bottom] = [0..LINES, height - LINES..height].map(|lines| checksum(&picture, lines));
    let wanted = format!("root: {width} by {height} {top}  - {bottom}  - end of it");
    assert!(said.contains(&wanted), "{shot} is not {wanted:?}:\n{said}");
    Ok(())
}

#[test]
fn x_by_the_frame_buffer_of_bochs_drm() -> Result<()> {
    shows("bochs-drm", "", false)
}

#[test]
#[ignore = "as the first, by other drivers: make desktop-test"]
fn x_by_the_frame_buffer_of_vesafb() -> Result<()> {
    shows("vesafb", "vga=0x343", false)
}

#[test]
#[ignore = "as the first, by other drivers: make desktop-test"]
fn x_by_vesa() -> Result<()> {
    shows("vesa", "env86.x=vesa", true)
}
