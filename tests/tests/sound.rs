//! Linux's driver of the sound card plays a signal, which `--audio-file` records; a state saved in the middle of it
//! plays the rest, here and in v86.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use env86_tests::{Failure, QUIET, Result, V86, bound_to_us, image, program, workspace};
use serde_json::json;

#[path = "../sound/signal.rs"]
mod signal;
use signal::{RATE, SAMPLES, Signal};

/// Frames a second of the recording.
const RECORDED: u32 = 48_000;
/// Bytes of a WAV file before its samples.
const HEADER: usize = 44;
/// A frame or two at each end may be in silence.
const MARGIN: usize = 64;

const END: &str = "over-and-out";
const MODULE: &str = "modprobe snd-sb16 isapnp=0 port=0x220 irq=5 dma8=1 dma16=5";

fn folder(name: &str) -> Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

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

/// What is typed to have the player in the guest and the card's driver loaded.
fn typed(folder: &Path) -> Result<String> {
    let mut input = String::from(": > /tmp/play\n");
    for piece in player(folder)?.chunks(200) {
        input += &format!("printf '{}' >> /tmp/play\n", escaped(piece));
    }
    Ok(input + &format!("chmod +x /tmp/play; {MODULE}; cat /proc/asound/cards\n"))
}

/// Boots the demo image with these flags and what is typed, until it says `end`; gives what it said, and what it
/// played.
fn recorded(flags: &[&OsStr], input: &str, end: &str, file: &Path) -> Result<(String, Vec<[i16; 2]>)> {
    let mut command = bound_to_us(program()?);
    command.arg("boot").arg(image()?).args(["--ttyS0", "--no-console", "--deterministic"]).args(flags);
    command.args(["--exit-on", end, "--audio-file"]).arg(file);
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

/// Samples of one side, at the card's rate.
fn signal() -> Vec<i16> {
    let mut signal = Signal::new();
    (0..SAMPLES).map(|_| signal.sample()).collect()
}

/// The signal at the recording's rate.
fn expected() -> Vec<f64> {
    let samples: Vec<f64> = signal().into_iter().map(f64::from).collect();
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

/// Fails if this is not the signal from its beginning to its end, without a gap, between silence.
fn assert_signal(frames: &[[i16; 2]]) {
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
}

#[test]
fn linux_plays_through_the_sound_blaster() -> Result<()> {
    let folder = folder("sound")?;
    // The quotes keep the echo of the line from being the end.
    let input = typed(&folder)? + "/tmp/play; echo \"sta\"tus=$?; echo over-an''d-out\n";
    let (said, frames) = recorded(&["--cold".as_ref()], &input, END, &folder.join("sound.wav"))?;
    assert!(said.contains("Sound Blaster 16 at 0x220, irq 5, dma 1&5"), "{said}");
    assert!(said.contains("status=0"), "{said}");
    assert_signal(&frames);
    Ok(())
}

#[test]
fn a_state_saved_in_the_middle_of_playing_goes_on_here_and_in_v86() -> Result<()> {
    const NAME: &str = "sound-state";
    const HALFWAY: &str = "here-is-half";
    let folder = folder(NAME)?;
    let [state, before, after, peer] =
        ["state", "before.wav", "after.wav", "v86.raw"].map(|name| folder.join(name));
    let play = "(/tmp/play; echo status=$?; echo over-and-out) & ";
    let input = typed(&folder)? + QUIET + play + "sleep 1; echo here-is-ha''lf\n";
    let memory = ["--memory".as_ref(), "128M".as_ref()];
    let flags = [&["--cold".as_ref(), "--save-state".as_ref(), state.as_os_str()][..], &memory].concat();
    let (said, mut frames) = recorded(&flags, &input, HALFWAY, &before)?;
    assert!(said.contains(HALFWAY) && !said.contains(END), "{said}");

    let (said, rest) = recorded(&["--state".as_ref(), state.as_os_str()], "", END, &after)?;
    assert!(said.contains("status=0"), "{said}");
    assert!(rest.len() > RECORDED as usize / 10, "{} frames were left", rest.len());
    frames.extend(rest);
    assert_signal(&frames);

    let Some(v86) = V86::for_test(NAME) else { return Ok(()) };
    let image = image()?;
    let plan = v86.plan(json!({
        "memory_mb": 128,
        "options": { "filesystem": {
            "basefs": image.join("fs.json"),
            "baseurl": format!("{}/", image.join("fs").display()),
        } },
        "state": state,
        "sound": peer,
        "steps": [[null, END]],
    }));
    let path = folder.join("plan.json");
    fs::write(&path, plan.to_string())?;
    let script = workspace().join("tests/peers/v86/machine.mjs");
    let out = bound_to_us("node").arg(script).arg(path).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("status=0"),
        "{said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    // v86 plays what the guest wrote, sample by sample.
    let bytes = fs::read(peer)?;
    let played: Vec<i16> = bytes.chunks_exact(2).map(|at| i16::from_le_bytes([at[0], at[1]])).collect();
    let wanted = signal();
    let start = played.get(..MARGIN).and_then(|start| wanted.windows(MARGIN).position(|at| at == start));
    let Some(start) = start else { panic!("{} samples, not of the signal", played.len()) };
    let rest = &wanted[start..];
    assert!((SAMPLES / 10..SAMPLES * 9 / 10).contains(&start), "it begins at {start}");
    let same = played.iter().zip(rest).take_while(|(played, wanted)| played == wanted).count();
    assert_eq!(same, rest.len(), "samples of the signal's rest, which begins at {start}");
    Ok(())
}
