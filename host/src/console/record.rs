//! The machine's screen as an animated GIF, ten frames a second of the host's time.
//!
//! A picture that stands is one frame that lasts, and a change is a frame of the lines that differ. The file has
//! the size of the first picture; later ones of another size are scaled to it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use env86_core::{Frame, Screen};
use gif::{DisposalMethod, Encoder, EncodingError, Repeat};

use super::scale::Scaler;
use crate::machine::Controls;

/// Time between frames.
const PERIOD: Duration = Duration::from_millis(100);
/// The same in GIF's unit of 10 ms.
const DELAY: u16 = 10;
/// How long the last picture stays before the first comes again, in periods.
const LAST: u32 = 20;
/// Colours of a frame at most.
const COLORS: usize = 256;
/// How roughly colours are chosen for a frame that has more, from 1 to 30.
const ROUGHNESS: i32 = 10;

/// A recording that is being made.
pub(super) struct Recorder {
    stop: Sender<()>,
    thread: JoinHandle<Result<(), EncodingError>>,
}

impl Recorder {
    /// Begins to record to a file.
    pub fn start(controls: Controls, file: File) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let record = move || {
            let mut film = Film::new(BufWriter::new(file));
            let start = Instant::now();
            let mut screen = Screen::default();
            for period in 0.. {
                let seen = controls.ask(move |computer| {
                    let changed = computer.show(&mut screen);
                    let frame = changed.is_some().then(|| screen.frame().clone());
                    (screen, frame)
                });
                // A machine that has ended shows its last picture.
                let Ok((looked, frame)) = seen else { break };
                screen = looked;
                film.show(frame.as_ref(), period)?;
                let next = PERIOD.saturating_mul(period + 1);
                match stopped.recv_timeout(next.saturating_sub(start.elapsed())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            let end = start.elapsed().as_millis() / PERIOD.as_millis();
            film.show(controls.picture().ok().as_ref(), u32::try_from(end).unwrap_or(u32::MAX))?;
            film.end()
        };
        Ok(Self { stop, thread: thread::Builder::new().name("record".into()).spawn(record)? })
    }

    /// Ends the recording; the machine may have ended before.
    pub fn end(self) -> io::Result<()> {
        // One who has stopped already was to be stopped.
        let _ = self.stop.send(());
        match self.thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(EncodingError::Io(error))) => Err(error),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::other("the recording has panicked")),
        }
    }
}

/// Lines of a picture that wait for the time at which others come.
struct Part {
    lines: Range<usize>,
    since: u32,
}

/// The file.
struct Film<W: Write> {
    /// Until the first picture says what size it has.
    out: Option<W>,
    encoder: Option<Encoder<W>>,
    /// Width and height.
    size: (u16, u16),
    scaler: Scaler,
    /// What the file shows at its present end, 00RRGGBBh.
    pixels: Vec<u32>,
    part: Part,
}

impl<W: Write> Film<W> {
    fn new(out: W) -> Self {
        let part = Part { lines: 0..0, since: 0 };
        let scaler = Scaler::default();
        Self { out: Some(out), encoder: None, size: (0, 0), scaler, pixels: Vec::new(), part }
    }

    /// The screen shows this from a period on; `None` if it goes on as before.
    fn show(&mut self, frame: Option<&Frame>, period: u32) -> Result<(), EncodingError> {
        let Some(frame) = frame else { return Ok(()) };
        if let Some(out) = self.out.take() {
            let side = |dots: usize| u16::try_from(dots).unwrap_or(u16::MAX);
            self.size = (side(frame.width), side(frame.height));
            let mut encoder = Encoder::new(out, self.size.0, self.size.1, &[])?;
            encoder.set_repeat(Repeat::Infinite)?;
            self.encoder = Some(encoder);
        }
        let across = usize::from(self.size.0).max(1);
        let mut pixels = vec![0; across * usize::from(self.size.1)];
        let window = (self.size.0.into(), self.size.1.into());
        self.scaler.draw(frame, 0..frame.height, window, false, &mut pixels);
        let mut both = self.pixels.chunks(across).zip(pixels.chunks(across));
        let differ = |(old, new): (&[u32], &[u32])| old != new;
        let lines = match (both.clone().position(differ), both.rposition(differ)) {
            (Some(first), Some(last)) => first..last + 1,
            _ if self.pixels.is_empty() => 0..usize::from(self.size.1),
            _ => return Ok(()),
        };
        self.flush(period)?;
        self.pixels = pixels;
        self.part = Part { lines, since: period };
        Ok(())
    }

    /// Writes the lines that wait, which are seen up to a period.
    fn flush(&mut self, until: u32) -> Result<(), EncodingError> {
        let Part { lines, since } = std::mem::replace(&mut self.part, Part { lines: 0..0, since: until });
        let Some(encoder) = self.encoder.as_mut().filter(|_| !lines.is_empty()) else { return Ok(()) };
        let across = usize::from(self.size.0);
        let pixels = &self.pixels[lines.start * across..lines.end * across];
        let height = lines.len() as u16;
        let mut frame = match indexed(pixels) {
            Some((palette, indices)) => gif::Frame {
                width: self.size.0,
                height,
                palette: Some(palette),
                buffer: Cow::Owned(indices),
                ..gif::Frame::default()
            },
            None => {
                let mut rgba: Vec<u8> =
                    pixels.iter().flat_map(|pixel| (pixel << 8 | 0xff).to_be_bytes()).collect();
                gif::Frame::from_rgba_speed(self.size.0, height, &mut rgba, ROUGHNESS)
            }
        };
        frame.top = lines.start as u16;
        frame.dispose = DisposalMethod::Keep;
        let periods = u16::try_from(until.saturating_sub(since)).unwrap_or(u16::MAX);
        frame.delay = periods.saturating_mul(DELAY);
        encoder.write_frame(&frame)
    }

    fn end(mut self) -> Result<(), EncodingError> {
        let until = self.part.since.saturating_add(LAST);
        self.flush(until)?;
        match self.encoder {
            Some(encoder) => Ok(encoder.into_inner()?.flush()?),
            None => Ok(()),
        }
    }
}

/// A palette of red, green and blue, and the pixels as places in it, unless there are too many colours.
pub(super) fn indexed(pixels: &[u32]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut places, mut palette) = (HashMap::new(), Vec::new());
    let mut indices = Vec::with_capacity(pixels.len());
    let mut last = None;
    for &pixel in pixels {
        let place = match last {
            Some((same, place)) if same == pixel => place,
            _ => *places.entry(pixel).or_insert_with(|| {
                palette.extend_from_slice(&pixel.to_be_bytes()[1..]);
                palette.len() / 3 - 1
            }),
        };
        last = Some((pixel, place));
        indices.push(u8::try_from(place).ok()?);
    }
    (palette.len() <= 3 * COLORS).then_some((palette, indices))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize, line: usize) -> Frame {
        let mut pixels = vec![[0, 0, 0, 255]; width * height];
        pixels[line * width] = [1, 2, 3, 255];
        Frame { width, height, pixels }
    }

    #[test]
    fn a_film_has_what_changed() {
        let mut file = Vec::new();
        let mut film = Film::new(&mut file);
        film.show(Some(&picture(20, 10, 0)), 0).unwrap();
        film.show(None, 3).unwrap();
        film.show(Some(&picture(20, 10, 0)), 4).unwrap();
        film.show(Some(&picture(20, 10, 5)), 7).unwrap();
        film.show(Some(&picture(40, 20, 19)), 8).unwrap();
        film.end().unwrap();
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(&file[..]).unwrap();
        assert_eq!((decoder.width(), decoder.height()), (20, 10));
        let mut frames = Vec::new();
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            frames.push((frame.top, frame.height, frame.delay, frame.buffer[..3].to_vec()));
        }
        let (lit, dark) = (vec![1, 2, 3], vec![0, 0, 0]);
        let wanted = [(0, 10, 70, lit), (0, 6, 10, dark.clone()), (5, 1, 200, dark)];
        assert_eq!(frames, wanted);
    }

    #[test]
    fn pictures_of_many_colors_have_fewer() {
        let pixels = (0..1000u32).map(|at| [(at % 256) as u8, (at / 4) as u8, 77, 255]).collect();
        let mut file = Vec::new();
        let mut film = Film::new(&mut file);
        film.show(Some(&Frame { width: 100, height: 10, pixels }), 0).unwrap();
        film.end().unwrap();
        assert!(gif::DecodeOptions::new().read_info(&file[..]).unwrap().read_next_frame().unwrap().is_some());
        assert_eq!(indexed(&[5, 5, 6]), Some((vec![0, 0, 5, 0, 0, 6], vec![0, 0, 1])));
        // Nothing was ever shown.
        Film::new(Vec::new()).end().unwrap();
    }
}
