//! The video card by guests: those in `video/` show scenes, one family of modes each, which are compared with the
//! pictures stored there, to the dot. What they show on the screen is in `target/tmp/system/video`, so that a
//! picture of a new or a mended scene can be taken from there, once somebody has looked at it.
//!
//! Needs GNU binutils (`as`, `ld`) and Debian's package seabios. `make video-beside` shows the same scenes in QEMU,
//! where they may differ as docs/SCREEN.md says and in nothing else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use env86_tests::{Guest, Result, binutil, bound_to_us, built, program, skipped, workspace};
use serde_json::{Value, json};

use crate::bios::seabios;

/// Generous: CI machines are small and shared.
const LIMIT: Duration = Duration::from_secs(240);
/// Less than one in so many pixels of a frame may differ that was drawn line by line: a third of the lines in which
/// the scene is another than without that.
const SHAKY: usize = 18;
/// A disk that a BIOS takes for one.
const DISK: usize = 1 << 20;

/// A guest, and its scenes in their order.
struct Family {
    guest: &'static str,
    scenes: &'static [&'static str],
}

const TEXT: Family = Family {
    guest: "text",
    scenes: &[
        "text-80x25",
        "text-8-dots",
        "text-bright",
        "text-blink",
        "text-cursor",
        "text-fonts",
        "text-80x50",
        "text-40x25",
        "text-underline",
        "text-132x25",
    ],
};
const SCROLL: Family = Family {
    guest: "scroll",
    scenes: &[
        "scroll-text",
        "scroll-split",
        "scroll-split-still",
        "scroll-planar",
        "scroll-planar-panned",
        "scroll-planar-wide",
        "scroll-planar-split",
    ],
};
const CGA: Family = Family { guest: "cga", scenes: &["cga-4", "cga-4-palette", "cga-4-grey", "cga-2"] };
const PLANAR: Family = Family {
    guest: "planar",
    scenes: &[
        "planar-640x480",
        "planar-planes",
        "planar-640x350",
        "planar-640x200",
        "planar-2",
        "planar-mono",
    ],
};
const PACKED: Family = Family {
    guest: "packed",
    scenes: &[
        "packed-13h",
        "packed-mask",
        "packed-start",
        "packed-panned",
        "packed-x",
        "packed-x-page",
        "packed-x-split",
        "packed-360x480",
    ],
};
const DAC: Family = Family { guest: "dac", scenes: &["dac-6", "dac-6-read", "dac-8"] };
const BEAM: Family = Family { guest: "beam", scenes: &["beam-bars", "beam-start"] };
const VBE: Family = Family {
    guest: "vbe",
    scenes: &[
        "vbe-8",
        "vbe-15",
        "vbe-16",
        "vbe-24",
        "vbe-32",
        "vbe-4",
        "vbe-4-banks",
        "vbe-virtual",
        "dispi-400x300",
        "dispi-offset",
        "dispi-text",
    ],
};
const FAMILIES: [Family; 8] = [TEXT, SCROLL, CGA, PLANAR, PACKED, DAC, BEAM, VBE];

/// Scenes in which something blinks: they have a second picture, with this behind their name, and both are to be
/// seen.
const BLINKING: [&str; 2] = ["text-blink", "text-cursor"];
const BLINKED: &str = "-off";
/// How often a scene is looked at: for as long as something blinks, and else to see that it stands still.
const LOOKS: [usize; 2] = [8, 3];
/// Time between looks in milliseconds, which is no multiple of a frame's.
const PAUSE: u64 = 51;

#[derive(PartialEq, Eq)]
pub struct Picture {
    pub size: (usize, usize),
    /// Red, green and blue of each pixel.
    pub pixels: Vec<u8>,
}

impl Picture {
    pub fn png(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut decoder = png::Decoder::new(BufReader::new(file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(|e| format!("{}: {e}", path.display()))?;
        let mut bytes = vec![0; reader.output_buffer_size().unwrap_or(0)];
        let info = reader.next_frame(&mut bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        let samples = info.color_type.samples();
        let pixels = bytes
            .chunks_exact(samples)
            .flat_map(|pixel| [pixel[0], pixel[1.min(samples - 1)], pixel[2.min(samples - 1)]]);
        Ok(Self { size: (info.width as usize, info.height as usize), pixels: pixels.collect() })
    }

    /// How many pixels of this differ from another's, of the same size.
    fn differing(&self, other: &Self) -> usize {
        self.pixels.chunks(3).zip(other.pixels.chunks(3)).filter(|(a, b)| a != b).count()
    }

    /// How this differs from another, if it does.
    pub fn differs(&self, other: &Self) -> Option<String> {
        if self.size != other.size {
            return Some(format!("its size is {:?}, not {:?}", self.size, other.size));
        }
        let mut pixels = self.pixels.chunks(3).zip(other.pixels.chunks(3));
        let first = pixels.position(|(a, b)| a != b)?;
        let (column, line) = (first % self.size.0, first / self.size.0);
        Some(format!("{} pixels differ, the first at ({column}, {line})", self.differing(other)))
    }
}

/// The stored pictures of a scene.
fn stored(scene: &str) -> Vec<PathBuf> {
    let blinked = BLINKING.contains(&scene).then(|| format!("{scene}{BLINKED}"));
    let names = [scene.to_owned()].into_iter().chain(blinked);
    names.map(|name| workspace().join(format!("tests/video/pictures/{name}.png"))).collect()
}

/// Where the looks at a scene are written.
fn looks(folder: &Path, scene: &str) -> Vec<PathBuf> {
    let count = LOOKS[usize::from(!BLINKING.contains(&scene))];
    (0..count).map(|look| folder.join(format!("{scene}.{look}.png"))).collect()
}

/// What is wrong with these looks at a scene, if something is.
fn compare(scene: &str, looks: &[PathBuf]) -> Result<(), String> {
    let stored: Vec<_> = stored(scene).iter().map(|path| Picture::png(path)).collect::<Result<_, _>>()?;
    let mut seen = vec![false; stored.len()];
    for path in looks {
        let look = Picture::png(path)?;
        match stored.iter().position(|picture| *picture == look) {
            Some(which) => seen[which] = true,
            None => {
                let differs = look.differs(&stored[0]).unwrap_or_default();
                return Err(format!("{}: {differs}", path.display()));
            }
        }
    }
    if seen.contains(&false) { Err(format!("{scene} does not blink")) } else { Ok(()) }
}

/// What is wrong with a look at a scene that is drawn line by line.
fn nearly(scene: &str, look: &Path) -> Result<(), String> {
    let (shown, wanted) = (Picture::png(look)?, Picture::png(&stored(scene)[0])?);
    match shown.differs(&wanted) {
        Some(how) if shown.size != wanted.size => Err(how),
        Some(how) if shown.differing(&wanted) * SHAKY >= wanted.pixels.len() / 3 => Err(how),
        _ => Ok(()),
    }
}

/// Builds a guest: a disk that it starts from, and an empty folder for what it shows, both for one test.
fn build(guest: &str, test: &str) -> Result<(String, PathBuf)> {
    let [object, disk] = ["o", "img"].map(|end| built(&format!("video-{test}-{guest}.{end}")));
    let source = workspace().join(format!("tests/video/{guest}.s"));
    let include = workspace().join("tests/video");
    binutil("as", &["--32", "-I", &include.to_string_lossy(), "-o", &object, &source.to_string_lossy()]);
    let flat = ["-m", "elf_i386", "-N", "-e", "start", "-Ttext", "0x7c00", "--oformat", "binary"];
    binutil("ld", &[&flat[..], &["-o", &disk, &object]].concat());
    let mut content = fs::read(&disk)?;
    content.resize(DISK, 0);
    fs::write(&disk, content)?;
    let folder = PathBuf::from(built("video")).join(test).join(guest);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok((disk, folder))
}

/// A process that ends with its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The BIOS and the video BIOS, if they are there.
pub fn roms() -> Option<[PathBuf; 2]> {
    let video = seabios("vgabios-stdvga.bin").or_else(|| seabios("vgabios.bin"))?;
    Some([seabios("bios-256k.bin")?, video])
}

/// A machine that starts from a disk and has no window.
fn boot([bios, video]: &[PathBuf; 2], disk: &str) -> Result<Command> {
    // A guest that waits for ever is ended.
    let mut command = bound_to_us("timeout");
    command.arg(LIMIT.as_secs().to_string()).arg(program()?);
    command.args(["boot", "--hda", disk, "--no-console", "--no-reboot", "--bios"]).arg(bios);
    command.arg("--vga-bios").arg(video);
    Ok(command)
}

/// Shows a family's scenes and compares each with its pictures.
fn shows(family: &Family) -> Result<()> {
    let Some(roms) = roms() else {
        skipped(&format!("video::{}", family.guest), "there is no SeaBIOS (`make peers`)");
        return Ok(());
    };
    let (disk, folder) = build(family.guest, "env86")?;
    let mut script = String::new();
    for scene in family.scenes {
        // Writing to a string does not fail.
        _ = writeln!(script, "wait-serial \"{scene}\\n\" 120s");
        for look in looks(&folder, scene) {
            _ = writeln!(script, "sleep {PAUSE}ms\nscreenshot {}", look.display());
        }
        script.push_str("send \".\"\n");
    }
    let steps = built(&format!("video-{}.script", family.guest));
    fs::write(&steps, script)?;
    let output = boot(&roms, &disk)?.arg("--script").arg(&steps).stdin(Stdio::null()).output()?;
    assert!(output.status.success(), "{}: {output:?}", family.guest);
    let wrong = family.scenes.iter().filter_map(|scene| compare(scene, &looks(&folder, scene)).err());
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn text_modes() -> Result<()> {
    shows(&TEXT)
}

#[test]
fn moved_and_split_pictures() -> Result<()> {
    shows(&SCROLL)
}

#[test]
fn cga_modes() -> Result<()> {
    shows(&CGA)
}

#[test]
fn planar_modes() -> Result<()> {
    shows(&PLANAR)
}

#[test]
fn modes_of_256_colors() -> Result<()> {
    shows(&PACKED)
}

#[test]
fn the_dac_in_6_and_8_bits() -> Result<()> {
    shows(&DAC)
}

/// A frame of the guest's is as it should be unless the host has interrupted it, and then there is another. On a busy
/// host a line more or less passes until it has seen one. That a start address does not count before the next retrace
/// is what the card's own test shows (`vga/render/tests.rs`): a look here may come when it counts anyway.
#[test]
fn changes_in_a_frame() -> Result<()> {
    let Some(roms) = roms() else {
        skipped("video::changes_in_a_frame", "there is no SeaBIOS (`make peers`)");
        return Ok(());
    };
    let (disk, folder) = build(BEAM.guest, "env86")?;
    let machine = boot(&roms, &disk)?.args(["--script", "-"]).stdin(Stdio::piped()).spawn()?;
    let mut machine = Owned(machine);
    let mut script = machine.0.stdin.take().expect("a pipe");
    let start = Instant::now();
    for scene in BEAM.scenes {
        writeln!(script, "wait-serial \"{scene}\\n\" 120s")?;
        for look in 0.. {
            let path = folder.join(format!("{scene}.{look}.png"));
            writeln!(script, "sleep {PAUSE}ms\nscreenshot {}", path.display())?;
            // It is there when its last byte is.
            while Picture::png(&path).is_err() && start.elapsed() < LIMIT {
                thread::sleep(Duration::from_millis(5));
            }
            match nearly(scene, &path) {
                Ok(()) => break,
                Err(how) => assert!(start.elapsed() < LIMIT, "{how}"),
            }
        }
        writeln!(script, "send \".\"")?;
    }
    drop(script);
    assert!(machine.0.wait()?.success());
    Ok(())
}

#[test]
fn vbe_modes() -> Result<()> {
    shows(&VBE)
}

/// A stored picture that no scene has is compared with nothing.
#[test]
fn every_picture_has_its_scene() -> Result<()> {
    let scenes = FAMILIES.iter().flat_map(|family| family.scenes);
    let expected: BTreeSet<_> = scenes.flat_map(|scene| stored(scene)).collect();
    let entries = fs::read_dir(workspace().join("tests/video/pictures"))?;
    let there: BTreeSet<_> = entries.flatten().map(|entry| entry.path()).collect();
    assert_eq!(there, expected);
    Ok(())
}

/// The scenes that the document says QEMU shows otherwise: in the first column of its last table, in
/// backquotes.
fn otherwise_in_qemu() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(workspace().join("docs/SCREEN.md"))?;
    let rows =
        text.lines().skip_while(|line| *line != "## Beside QEMU").filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    Ok(names.map(str::to_owned).collect())
}

/// QEMU's monitor, as far as it takes pictures.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(socket: &str) -> Result<Self> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => {
                    let mut monitor = Self(BufReader::new(stream));
                    monitor.ask(&json!({ "execute": "qmp_capabilities" }))?;
                    return Ok(monitor);
                }
                Err(error) if start.elapsed() > LIMIT => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Waits for the answer; what comes before it are greetings and events.
    fn ask(&mut self, question: &Value) -> Result<()> {
        writeln!(self.0.get_mut(), "{question}")?;
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line)? > 0, "QEMU has ended");
            let answer: Value = serde_json::from_str(&line).unwrap_or_default();
            assert!(answer.get("error").is_none(), "{question}: {line}");
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
    }
}

/// Shows a family's scenes in QEMU; those that are otherwise there, and why.
fn otherwise(family: &Family) -> Result<Vec<(&'static str, String)>> {
    let (disk, folder) = build(family.guest, "qemu")?;
    let socket = folder.join("monitor").to_string_lossy().into_owned();
    let mut qemu = bound_to_us("qemu-system-i386");
    qemu.args(["-M", "pc", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-vga", "std"]);
    qemu.args(["-drive", &format!("file={disk},format=raw,if=ide,snapshot=on"), "-serial", "stdio"]);
    qemu.args(["-qmp", &format!("unix:{socket},server=on,wait=off")]);
    let mut guest = Guest::start(qemu)?;
    let mut monitor = Monitor::connect(&socket)?;
    for scene in family.scenes {
        guest.wait_for(&format!("{scene}\n"), LIMIT)?;
        for look in looks(&folder, scene) {
            thread::sleep(Duration::from_millis(PAUSE));
            let arguments = json!({ "filename": look, "format": "png" });
            monitor.ask(&json!({ "execute": "screendump", "arguments": arguments }))?;
        }
        guest.line("")?;
    }
    Ok(family
        .scenes
        .iter()
        .filter_map(|scene| Some((*scene, compare(scene, &looks(&folder, scene)).err()?)))
        .collect())
}

#[test]
#[ignore = "compares with another program: make video-beside"]
fn beside_qemu() -> Result<()> {
    let mut differ = Vec::new();
    for family in &FAMILIES {
        differ.extend(otherwise(family)?);
    }
    let names: BTreeSet<_> = differ.iter().map(|(scene, _)| (*scene).to_owned()).collect();
    for (scene, how) in &differ {
        println!("{scene}: {how}");
    }
    let mut expected = otherwise_in_qemu()?;
    // What a moment decides may be right in all looks.
    expected.retain(|name| names.contains(name) || !BEAM.scenes.contains(&name.as_str()));
    assert_eq!(names, expected, "what differs from QEMU, and what docs/SCREEN.md lists");
    let scenes: usize = FAMILIES.iter().map(|family| family.scenes.len()).sum();
    println!("{} of {scenes} scenes are the same in QEMU to the dot", scenes - names.len());
    Ok(())
}
