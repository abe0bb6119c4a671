//! Linux' drivers of frame buffers, each with the picture that `video/framebuffer.sh` draws: by the console, and by bytes
//! that it writes to the frame buffer. Both are known to the dot.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;

use env86_tests::{PROMPT, Result, bound_to_us, built, image, program, skipped, workspace};

use crate::video::{Picture, roms};

/// What Linux' consoles and frame buffers make of colours 0 to 7.
const PALETTE: [[u8; 3]; 8] = [
    [0, 0, 0],
    [0, 0, 0xaa],
    [0, 0xaa, 0],
    [0, 0xaa, 0xaa],
    [0xaa, 0, 0],
    [0xaa, 0, 0xaa],
    [0xaa, 0x55, 0],
    [0xaa, 0xaa, 0xaa],
];
/// Blue and red of these where a part has five bits.
const IN_FIVE_BITS: [[u8; 3]; 2] = [[0, 0, 0xad], [0xad, 0, 0]];
const BLUE: usize = 1;
const RED: usize = 4;
/// Dots of a side of a square, and of a character.
const SQUARE: usize = 32;
const CELL: usize = 16;

/// A way to a frame buffer.
struct Way {
    /// A name for files.
    test: &'static str,
    /// Words for the kernel's command line.
    append: &'static str,
    /// Whether a BIOS starts the kernel.
    bios: bool,
    /// What makes the frame buffer, in the guest.
    driver: &'static str,
    /// What Linux calls it.
    name: &'static str,
    size: (usize, usize),
    bits: u32,
}

impl Way {
    /// The picture that the console makes.
    fn console(&self) -> Picture {
        let blue_and_red =
            if self.bits == 16 { IN_FIVE_BITS } else { [BLUE, RED].map(|color| self.palette()[color]) };
        self.picture(|x, y| match x / CELL {
            cell @ 0..2 if y < CELL => blue_and_red[cell],
            _ => PALETTE[0],
        })
    }

    /// What the DAC makes of the palette: it keeps six bits, of which the last stands for the two that are left out, so
    /// that all are white. The video BIOS's keeps eight.
    fn palette(&self) -> [[u8; 3]; 8] {
        let narrow = self.bits <= 8 && !self.bios;
        PALETTE
            .map(|color| color.map(|part| if narrow { (part & 0xfc) | ((part >> 2 & 1) * 3) } else { part }))
    }

    /// The picture of squares.
    fn squares(&self) -> Picture {
        let palette = self.palette();
        self.picture(|x, y| {
            let color = (x / SQUARE + y / SQUARE * 3) % 8;
            if self.bits <= 8 {
                palette[color]
            } else {
                [4, 2, 1].map(|bit| u8::from(color & bit != 0) * 255)
            }
        })
    }

    fn picture(&self, color: impl Fn(usize, usize) -> [u8; 3]) -> Picture {
        let (width, height) = self.size;
        let pixels = (0..width * height).flat_map(|i| color(i % width, i / width));
        Picture { size: self.size, pixels: pixels.collect() }
    }
}

/// As a step of a script: text in double quotes.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn shows(way: &Way) -> Result<()> {
    let Way { test, append, driver, name, size: (width, height), bits, .. } = way;
    let mut command = bound_to_us(program()?);
    command.arg("boot").arg(image()?).args(["--no-console", "--append", append]);
    if way.bios {
        let Some([bios, video]) = roms() else {
            skipped(&format!("framebuffer::{test}"), "there is no SeaBIOS (`make peers`)");
            return Ok(());
        };
        command.arg("--bios").arg(bios).arg("--vga-bios").arg(video);
    }
    let guest = fs::read_to_string(workspace().join("tests/video/framebuffer.sh"))?;
    let [steps, console, squares] =
        ["script", "console.png", "squares.png"].map(|file| built(&format!("framebuffer-{test}.{file}")));
    let mut script = format!("wait-serial {} 240s\n", quoted(PROMPT));
    for text in [&format!("cat > /tmp/draw << 'END'\n{guest}\nEND\n"), &format!("{driver}; sh /tmp/draw\n")] {
        // Writing to a string does not fail.
        _ = writeln!(script, "send {}", quoted(text));
    }
    _ = writeln!(script, "wait-serial \"console on {name}, {width} by {height} with {bits} bits\" 120s");
    _ = writeln!(script, "sleep 200ms\nscreenshot {console}\nsend \"\\n\"");
    _ = writeln!(script, "wait-serial \"picture shown\" 240s\nsleep 200ms\nscreenshot {squares}");
    fs::write(&steps, script)?;
    let output = command.arg("--script").arg(&steps).stdin(Stdio::null()).output()?;
    assert!(output.status.success(), "{test}: {output:?}");
    for (file, wanted) in [(console, way.console()), (squares, way.squares())] {
        let differs = Picture::png(file.as_ref()).map(|shown| shown.differs(&wanted));
        assert_eq!(differs, Ok(None), "{file}");
    }
    Ok(())
}

#[test]
fn bochs_drm() -> Result<()> {
    shows(&Way {
        test: "bochs-drm",
        append: "",
        bios: false,
        driver: "modprobe bochs",
        name: "bochs-drmdrmfb",
        size: (1024, 768),
        bits: 32,
    })
}

#[test]
fn vga16fb() -> Result<()> {
    shows(&Way {
        test: "vga16fb",
        append: "vga=0x112",
        bios: false,
        driver: "modprobe vga16fb",
        name: "VGA16 VGA",
        size: (640, 480),
        bits: 4,
    })
}

/// A mode that stands in the kernel's command line as boot loaders take it.
fn vesafb(
    test: &'static str,
    append: &'static str,
    bios: bool,
    size: (usize, usize),
    bits: u32,
) -> Result<()> {
    shows(&Way { test, append, bios, driver: ":", name: "VESA VGA", size, bits })
}

#[test]
fn vesafb_with_a_palette() -> Result<()> {
    vesafb("vesafb-8", "vga=0x301", false, (640, 480), 8)
}

#[test]
fn vesafb_of_16_bits() -> Result<()> {
    vesafb("vesafb-16", "vga=791", false, (1024, 768), 16)
}

#[test]
fn vesafb_of_32_bits() -> Result<()> {
    vesafb("vesafb-32", "vga=0x345", false, (1280, 1024), 32)
}

#[test]
fn vesafb_by_the_bios() -> Result<()> {
    vesafb("vesafb-bios", "vga=0x315", true, (800, 600), 24)
}

#[test]
fn vesafb_with_a_palette_by_the_bios() -> Result<()> {
    vesafb("vesafb-bios-8", "vga=0x305", true, (1024, 768), 8)
}
