//! What a machine plays as a WAV file, from the first sound on.

use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use hound::{SampleFormat, WavSpec, WavWriter};

use super::{FRAME_RATE, Listener, Sound};

const FORMAT: WavSpec =
    WavSpec { channels: 2, sample_rate: FRAME_RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };
/// Bytes of a frame.
const FRAME_BYTES: u64 = 4;
/// Frames that a WAV file can hold: its lengths have 32 bits, and its header takes some.
const LIMIT: u64 = (u32::MAX as u64 - 1024) / FRAME_BYTES;

/// A recording that is being made. It ends when every [`Listener`] of it is gone.
#[derive(Debug)]
pub struct Recorder(JoinHandle<io::Result<()>>);

impl Recorder {
    /// Makes a file, and a listener that writes to it.
    ///
    /// # Errors
    /// If the file cannot be made. One that cannot be written to is told by [`Recorder::end`].
    pub fn create(path: &Path) -> io::Result<(Self, Listener)> {
        let file = BufWriter::new(File::create(path)?);
        let (listener, sounds) = mpsc::channel();
        let record = move || record(file, sounds).map_err(plain);
        let thread = thread::Builder::new().name("sound file".into()).spawn(record)?;
        Ok((Self(thread), listener))
    }

    /// Waits for the file to be complete.
    pub fn end(self) -> io::Result<()> {
        self.0.join().unwrap_or_else(|_| Err(io::Error::other("the recording has panicked")))
    }
}

fn plain(error: hound::Error) -> io::Error {
    match error {
        hound::Error::IoError(error) => error,
        other => io::Error::other(other),
    }
}

/// Writes what comes. What was not played is silence, unless nothing has been played before.
fn record(file: BufWriter<File>, sounds: Receiver<Sound>) -> Result<(), hound::Error> {
    let mut file = WavWriter::new(file, FORMAT)?;
    let (mut next, mut written) = (None, 0);
    for sound in sounds {
        let silence = next.map_or(0, |next| sound.start.saturating_sub(next));
        next = Some(sound.start + sound.frames.len() as u64);
        written += silence + sound.frames.len() as u64;
        if written > LIMIT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a WAV file holds 6 hours").into());
        }
        for _ in 0..silence * 2 {
            file.write_sample(0i16)?;
        }
        for side in sound.frames.into_iter().flatten() {
            file.write_sample(side)?;
        }
    }
    file.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_between_sounds_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.wav");
        let (recorder, listener) = Recorder::create(&path).unwrap();
        listener.send(Sound { start: 1_000_000, frames: vec![[1, 2], [3, 4]] }).unwrap();
        listener.send(Sound { start: 1_000_003, frames: vec![[5, 6]] }).unwrap();
        drop(listener);
        recorder.end().unwrap();
        let file = hound::WavReader::open(&path).unwrap();
        assert_eq!(file.spec(), FORMAT);
        let samples: Vec<i16> = file.into_samples().map(Result::unwrap).collect();
        assert_eq!(samples, [1, 2, 3, 4, 0, 0, 5, 6]);
    }

    #[test]
    fn a_machine_without_sound_leaves_an_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.wav");
        let (recorder, listener) = Recorder::create(&path).unwrap();
        drop(listener);
        recorder.end().unwrap();
        assert_eq!(hound::WavReader::open(&path).unwrap().duration(), 0);
        assert!(Recorder::create(&folder.path().join("missing/sound.wav")).is_err());
    }
}
