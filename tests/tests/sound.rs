//! Linux's driver of the sound card plays a signal, which `--audio-file` records.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use env86_tests::{Failure, Result, bound_to_us, image, program, workspace};

#[path = "../sound/signal.rs"]
mod signal;
use signal::{RATE, SAMPLES, Signal};

/// Frames a second of the recording.
const RECORDED: u32 = 48_000;
/// Bytes of a WAV file before its samples.
const HEADER: usize = 44;
/// A frame or two at each end may be in silence.
const MARGIN: usize = 64;

const TEXT: &str = "over-and-out";
const MODULE: &str = "modprobe snd-sb16 isapnp=0 port=0x220 irq=5 dma8=1 dma16=5";

/// The guest's program, of two kilobytes.
fn player(folder: &Path) -> Result<Vec<u8>> {
    let to = folder.join("play");
    let options = ["link-self-contained=no", "default-linker-libraries=no", "linker=rust-lld"];
    let smaller = ["panic=abort", "opt-level=s", "relocation-model=static", "strip=symbols"];
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "--target", "i686-unknown-linux-musl"])
        .args(options.into_iter().chain(smaller).flat_map(|option| ["-C", option]))
        .arg(workspace().join("tests/sound/play.rs"))
        .arg("-o")
        .arg(&to)
        .output()?;
    if !compiled.status.success() {
        return Err(Failure::from(std::io::Error::other(
            String::from_utf8_lossy(&compiled.stderr).into_owned(),
        )));
    }
    Ok(fs::read(to)?)
}

/// Bytes as printf's escapes.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:03o}")).collect()
}

/// Boots the demo image with what is typed; gives what it said, and what it played.
fn recorded(input: &str, file: &Path) -> Result<(String, Vec<[i16; 2]>)> {
    let mut command = bound_to_us(program()?);
    command.arg("boot").arg(image()?).args(["--ttyS0", "--no-console", "--deterministic", "--cold"]);
    command.args(["--exit-on", TEXT, "--audio-file"]).arg(file);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let said = String::from_utf8_lossy(&child.wait_with_output()?.stdout).into_owned();
    let bytes = fs::read(file)?;
    let side = |at: &[u8]| i16::from_le_bytes([at[0], at[1]]);
    let frames = bytes.get(HEADER..).unwrap_or_default().chunks_exact(4);
    Ok((said, frames.map(|frame| [side(frame), side(&frame[2..])]).collect()))
}

/// The signal at the recording's rate.
fn expected() -> Vec<f64> {
    let mut signal = Signal::new();
    let samples: Vec<f64> = (0..SAMPLES).map(|_| f64::from(signal.sample())).collect();
    let frames = SAMPLES as u64 * u64::from(RECORDED) / u64::from(RATE) - 1;
    let at = |frame: u64| {
        let place = frame as f64 * f64::from(RATE) / f64::from(RECORDED);
        let (whole, part) = (place as usize, place.fract());
        samples[whole] + (samples[whole + 1] - samples[whole]) * part
    };
    (0..frames).map(at).collect()
}

/// How alike two signals are, from -1 to 1.
fn correlation(one: &[f64], other: &[f64]) -> f64 {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    product(one, other) / (product(one, one) * product(other, other)).sqrt()
}

#[test]
fn linux_plays_through_the_sound_blaster() -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sound");
    fs::create_dir_all(&folder)?;
    let mut input = String::from(": > /tmp/play\n");
    for piece in player(&folder)?.chunks(200) {
        input += &format!("printf '{}' >> /tmp/play\n", escaped(piece));
    }
    // The quotes keep the echo of the line from being the end.
    input +=
        &format!("chmod +x /tmp/play; {MODULE}; cat /proc/asound/cards; /tmp/play; echo \"sta\"tus=$?; ");
    input += "echo over-an''d-out\n";
    let (said, frames) = recorded(&input, &folder.join("sound.wav"))?;
    assert!(said.contains("Sound Blaster 16 at 0x220, irq 5, dma 1&5"), "{said}");
    assert!(said.contains("status=0"), "{said}");

    let wanted = expected();
    let side = |side: usize| frames.iter().map(|frame| f64::from(frame[side])).collect::<Vec<_>>();
    let (left, right) = (side(0), side(1));
    assert!(left.len() >= wanted.len(), "{} frames of {}", left.len(), wanted.len());
    // Where it begins in the recording, which starts with the piece of guest time that has the first sound: a gap
    // anywhere would put all that follows in the wrong place.
    let whole = MARGIN..wanted.len() - MARGIN;
    let alike =
        |offset: usize| correlation(&left[whole.start + offset..][..whole.len()], &wanted[whole.clone()]);
    let offset = (0..=left.len() - wanted.len()).max_by(|a, b| alike(*a).total_cmp(&alike(*b))).unwrap_or(0);
    assert!(alike(offset) > 0.99, "{} at {offset}", alike(offset));
    // And every tenth of a second by itself, on both sides.
    for start in whole.clone().step_by(RECORDED as usize / 10) {
        let end = (start + RECORDED as usize / 10).min(whole.end);
        let (one, wanted) = (&left[start + offset..end + offset], &wanted[start..end]);
        assert!(correlation(one, wanted) > 0.99, "at frame {start}");
        assert!(correlation(&right[start + offset..end + offset], wanted) < -0.99, "at frame {start}, right");
    }
    let loudest = left.iter().fold(0.0, |loudest: f64, value| loudest.max(*value));
    assert!(loudest > 15_000.0, "{loudest}");
    Ok(())
}
