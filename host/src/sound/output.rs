//! What a machine plays from the host's loudspeakers.
//!
//! What comes from the machine waits in a queue until the host's device asks for it, from a thread of its
//! own. The queue is kept at a length that the machine's lateness needs, and no longer: its target grows
//! each time that the queue has run dry while the machine played, up to [`MOST`], and shrinks in calm. The
//! machine's clock and the device's differ, so that what is played is stretched or squeezed by up to half a
//! percent to stay near the target, which nobody hears. Where there is nothing to play, the last frame fades
//! out; and what comes after that fades in: no clicks.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, SampleFormat, SizedSample, Stream, StreamConfig};
use tracing::{debug, warn};

use super::{FRAME_RATE, Frame, Listener, Sound};

/// The least and the most that is kept waiting, in frames: 15 and 45 ms, beside what the device holds.
const LEAST: f64 = 720.0;
const MOST: f64 = 2160.0;
/// More than this is thrown away: 60 ms.
const LIMIT: usize = 2880;
/// By how much the target grows each time that the queue runs dry: 5 ms.
const GROWTH: f64 = 240.0;
/// What is left of the target's excess over the least after a second in which nothing happened.
const CALM: f64 = 0.95;
/// How far what is played is stretched or squeezed at most.
const STRETCH: f64 = 0.005;
/// Frames of a fade: 5 ms.
const FADE: f32 = 240.0;
/// What the device is asked to hold, in frames: 10 ms.
const DEVICE_FRAMES: u32 = 480;

/// The host's loudspeakers.
#[derive(Debug)]
pub struct Output;

impl Output {
    /// Opens the host's device. `None` if there is none, which is no error: the machine is silent.
    pub fn open() -> Option<Listener> {
        let (listener, sounds) = mpsc::channel();
        let (opened, is_open) = mpsc::channel();
        // A stream must stay in the thread that has made it.
        let play = move || {
            let (ended, end) = mpsc::channel();
            match open(sounds, ended) {
                Ok(stream) => {
                    let _ = opened.send(true);
                    // Until the machine is gone.
                    let _ = end.recv();
                    drop(stream);
                }
                Err(error) => {
                    debug!(target: "sound", %error, "no sound from this host");
                    let _ = opened.send(false);
                }
            }
        };
        thread::Builder::new().name("sound".into()).spawn(play).ok()?;
        is_open.recv().ok().filter(|open| *open).map(|_| listener)
    }
}

/// Opens the device. The sender is dropped when the machine is gone.
fn open(sounds: Receiver<Sound>, ended: mpsc::Sender<()>) -> Result<Stream, Box<dyn std::error::Error>> {
    let device = cpal::default_host().default_output_device().ok_or("there is no device")?;
    let supported = device.default_output_config()?;
    let mut config: StreamConfig = supported.config();
    config.buffer_size = BufferSize::Fixed(DEVICE_FRAMES);
    let player = Player::new(sounds, config.sample_rate, ended);
    let stream = match supported.sample_format() {
        SampleFormat::F32 => build::<f32>(&device, &config, player, |value| value),
        SampleFormat::I16 => build::<i16>(&device, &config, player, |value| (value * 32_767.0) as i16),
        SampleFormat::I32 => build::<i32>(&device, &config, player, |value| (value * 2_147_483_520.0) as i32),
        SampleFormat::U8 => build::<u8>(&device, &config, player, |value| (value * 127.0 + 128.0) as u8),
        other => return Err(format!("the device wants samples of {other}").into()),
    }?;
    stream.play()?;
    Ok(stream)
}

fn build<T: SizedSample + 'static>(
    device: &cpal::Device,
    config: &StreamConfig,
    mut player: Player,
    convert: fn(f32) -> T,
) -> Result<Stream, cpal::Error> {
    let channels = usize::from(config.channels).max(1);
    let fill = move |samples: &mut [T], _: &_| {
        player.receive();
        for frame in samples.chunks_mut(channels) {
            let [left, right] = player.frame();
            for (side, sample) in frame.iter_mut().enumerate() {
                *sample = convert(match (channels, side) {
                    (1, _) => (left + right) / 2.0,
                    (_, 0) => left,
                    (_, 1) => right,
                    _ => 0.0,
                });
            }
        }
    };
    device.build_output_stream(*config, fill, |error| warn!(target: "sound", %error), None)
}

/// What waits to be played, and how.
struct Player {
    sounds: Receiver<Sound>,
    /// Dropped when the machine is gone.
    ended: Option<mpsc::Sender<()>>,
    queue: VecDeque<Frame>,
    /// Frames of the machine to one of the device.
    ratio: f64,
    /// How many frames are to wait.
    target: f64,
    /// Where between the two frames the present one is.
    between: f64,
    frames: [[f32; 2]; 2],
    /// The queue is being played, not filled.
    plays: bool,
    /// How loud, from 0 to 1: for fades.
    volume: f32,
}

impl Player {
    fn new(sounds: Receiver<Sound>, rate: u32, ended: mpsc::Sender<()>) -> Self {
        Self {
            sounds,
            ended: Some(ended),
            queue: VecDeque::new(),
            ratio: f64::from(FRAME_RATE) / f64::from(rate.max(1)),
            target: LEAST,
            between: 0.0,
            frames: [[0.0; 2]; 2],
            plays: false,
            volume: 0.0,
        }
    }

    /// Takes what has come from the machine.
    fn receive(&mut self) {
        loop {
            match self.sounds.try_recv() {
                Ok(sound) => self.queue.extend(sound.frames),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.ended = None;
                    break;
                }
            }
        }
        if self.queue.len() > LIMIT {
            // The machine has come late and brings all at once.
            let late = self.queue.len() - self.target as usize;
            self.queue.drain(..late);
            self.volume = 0.0;
        }
    }

    /// The next frame for the device.
    fn frame(&mut self) -> [f32; 2] {
        if !self.plays && self.queue.len() as f64 >= self.target {
            self.plays = true;
        }
        if self.plays {
            let error = (self.queue.len() as f64 - self.target) / self.target;
            self.between += self.ratio * (1.0 + error.clamp(-1.0, 1.0) * STRETCH);
            self.target = LEAST + (self.target - LEAST) * CALM.powf(self.ratio / f64::from(FRAME_RATE));
            while self.between >= 1.0 {
                let Some(frame) = self.queue.pop_front() else {
                    (self.plays, self.between) = (false, 0.0);
                    self.target = (self.target + GROWTH).min(MOST);
                    break;
                };
                self.between -= 1.0;
                self.frames = [self.frames[1], frame.map(|side| f32::from(side) / 32_768.0)];
            }
        }
        let goal = if self.plays { 1.0 } else { 0.0 };
        self.volume += (goal - self.volume).clamp(-1.0 / FADE, 1.0 / FADE);
        let [before, behind] = self.frames;
        let between = self.between as f32;
        core::array::from_fn(|side| (before[side] + (behind[side] - before[side]) * between) * self.volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A player, and the end at which the machine is.
    fn player(rate: u32) -> (Player, Listener) {
        let (listener, sounds) = mpsc::channel();
        (Player::new(sounds, rate, mpsc::channel().0), listener)
    }

    /// A stretch of a tone of 440 Hz.
    fn tone(start: u64, frames: u64) -> Sound {
        let side =
            |at: u64| (f64::from(at as u32) * 440.0 / 48_000.0 * std::f64::consts::TAU).sin() * 20_000.0;
        Sound { start, frames: (start..start + frames).map(|at| [side(at) as i16; 2]).collect() }
    }

    /// The largest step from one frame to the next.
    fn roughest(frames: &[f32]) -> f32 {
        frames.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
    }

    /// What is heard of a tone that comes in pieces, of which `late` says how late each is, in pieces.
    fn heard(rate: u32, pieces: u64, late: impl Fn(u64) -> u64) -> (Vec<f32>, usize) {
        let (mut player, listener) = player(rate);
        let (mut sent, mut heard, mut longest) = (0, Vec::new(), 0);
        for piece in 0..pieces {
            while sent + late(piece) <= piece {
                listener.send(tone(sent * 480, 480)).unwrap();
                sent += 1;
            }
            player.receive();
            longest = longest.max(player.queue.len());
            heard.extend((0..rate / 100).map(|_| player.frame()[0]));
        }
        (heard, longest)
    }

    #[test]
    fn a_steady_machine_is_heard_as_it_is() {
        for rate in [44_100, 48_000, 96_000] {
            let (heard, longest) = heard(rate, 300, |_| 0);
            assert!(longest <= LIMIT, "{longest}");
            let end = &heard[heard.len() / 2..];
            let crossings = end.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
            assert!((655..=665).contains(&crossings), "{rate}: {crossings}");
            assert!(end.iter().fold(0.0, |loudest: f32, value| loudest.max(*value)) > 0.58);
        }
    }

    #[test]
    fn lateness_makes_no_click() {
        // A step of the tone itself is 0.035.
        let (rough, longest) = heard(48_000, 400, |piece| if piece % 50 < 6 { 5 } else { 0 });
        assert!(roughest(&rough) < 0.06, "{}", roughest(&rough));
        assert!(longest <= LIMIT, "{longest}");
        let (rough, _) = heard(48_000, 400, |piece| if piece > 200 { 200 } else { 0 });
        assert!(roughest(&rough) < 0.06, "the end: {}", roughest(&rough));
        assert_eq!(rough.last(), Some(&0.0));
    }

    #[test]
    fn the_end_of_the_machine_is_seen() {
        let (listener, sounds) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        let mut player = Player::new(sounds, 48_000, ended);
        player.receive();
        assert_eq!(end.try_recv(), Err(TryRecvError::Empty));
        drop(listener);
        player.receive();
        assert_eq!(end.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(player.frame(), [0.0; 2]);
    }
}
