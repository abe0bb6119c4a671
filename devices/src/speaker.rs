//! The PC speaker: what counter 2 of the interval timer drives, where port 61h lets it.
//!
//! The cone is at one of two places. A frame's value is how long it was pushed out during that frame, so
//! that software which plays samples by the width of pulses is heard as it should be. What a speaker
//! cannot do, to stay pushed out, a high-pass filter takes away.

use crate::pit::{self, Counter};
use crate::sound::{self, Track, frame_at, time_of_frame};

/// From the one place of the cone to the other, in units of a frame.
const SWING: i64 = 8000;
/// The filter's value has so many bits behind the point, ...
const FILTER_BITS: u32 = 8;
/// ... and keeps this part of itself from frame to frame, of 65536: all below 20 Hz is lost.
const FILTER_KEEPS: i64 = 65_364;
/// The cone rests and the filter has settled after so many frames without a change: 100 ms. The slowest
/// tone of the timer changes every 28 ms.
const SETTLED: u32 = 4800;

/// The speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// Port 61h lets the timer through.
    pub enabled: bool,
    /// The timer's counter as it was set last.
    pub(crate) counter: Counter,
    /// Frames that have been played.
    pub(crate) played: u64,
    /// The timer's tick up to which `pushed` counts.
    pub(crate) tick: u64,
    /// Ticks of the present frame during which the cone was pushed out.
    pub pushed: u64,
    /// The last frame before the filter.
    pub input: i64,
    /// The last frame behind it.
    pub output: i64,
    /// Frames since the last change.
    pub rest: Rest,
    pub(crate) track: Track,
}

/// Frames since a change, as far as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest(pub u32);

impl Default for Rest {
    fn default() -> Self {
        Self(SETTLED)
    }
}

impl Speaker {
    /// It can be heard.
    pub fn sounds(&self) -> bool {
        self.rest.0 < SETTLED
    }

    /// When it must play next, if it can be heard.
    pub fn next_event(&self) -> Option<u64> {
        self.sounds().then(|| sound::next_piece(self.played))
    }

    /// What it has played.
    pub fn track(&mut self) -> &mut Track {
        &mut self.track
    }

    /// Plays up to a time.
    pub fn run(&mut self, now: u64) {
        let end = frame_at(now);
        let from = if self.sounds() { sound::resume_at(self.played, end) } else { end };
        if from > self.played {
            (self.played, self.tick, self.pushed) = (from, first_tick(from), 0);
        }
        while self.played < end && self.sounds() {
            let (first, behind) = (first_tick(self.played), first_tick(self.played + 1));
            self.count(behind);
            let input = self.pushed as i64 * SWING / (behind - first).max(1) as i64;
            self.pushed = 0;
            self.rest.0 = if input == self.input { self.rest.0.saturating_add(1).min(SETTLED) } else { 0 };
            self.output = self.output * FILTER_KEEPS / 65_536 + ((input - self.input) << FILTER_BITS);
            self.input = input;
            let value = (self.output >> FILTER_BITS) as i32;
            self.track.push(self.played, [value; 2]);
            self.played += 1;
        }
        if self.played < end {
            (self.played, self.tick, self.pushed) = (end, first_tick(end), 0);
        }
    }

    /// Plays up to a change of the timer or of port 61h that comes now.
    pub fn before_change(&mut self, now: u64) {
        self.run(now);
        self.count(pit::ticks(now));
    }

    /// Takes over the timer's counter after a change.
    pub fn after_change(&mut self, counter: &Counter) {
        self.counter = counter.clone();
        if self.enabled || self.input != 0 {
            self.rest.0 = 0;
        }
    }

    /// After this was put into a state of its own, at a time: goes on from there.
    pub fn resume(&mut self, counter: &Counter, now: u64) {
        self.counter = counter.clone();
        (self.played, self.tick) = (frame_at(now), pit::ticks(now));
        self.track = Track::default();
    }

    /// Counts how long the cone is pushed out up to a tick.
    fn count(&mut self, tick: u64) {
        if tick > self.tick {
            let high = self.counter.high_ticks(self.tick, tick);
            self.pushed += if self.enabled { high } else { 0 };
            self.tick = tick;
        }
    }
}

/// The first tick of the timer in a frame.
fn first_tick(frame: u64) -> u64 {
    pit::ticks(time_of_frame(frame))
}

#[cfg(test)]
mod tests {
    use crate::pit::{PORT_CONTROL, PORT_COUNTER2, Pit};
    use crate::sound::testing::{left, pitch};
    use crate::sound::{Sound, mix};

    const MS: u64 = 1_000_000;

    fn program(pit: &mut Pit, mode: u8, count: u16, now: u64) {
        pit.write(PORT_CONTROL, 0xb0 | mode << 1, now);
        count.to_le_bytes().into_iter().for_each(|byte| pit.write(PORT_COUNTER2, byte, now));
    }

    fn played(pit: &mut Pit, now: u64) -> Option<Sound> {
        pit.speaker.run(now);
        mix([pit.speaker.track()])
    }

    #[test]
    fn a_tone_has_the_timers_pitch() {
        for count in [298u16, 1193, 2712, 11_931] {
            let mut pit = Pit::default();
            program(&mut pit, 3, count, MS);
            pit.set_gate2(true, MS);
            pit.set_speaker(true, MS);
            let sound = played(&mut pit, 1001 * MS).unwrap();
            assert_eq!((sound.start, sound.frames.len()), (48, 48_000));
            let (heard, wanted) = (pitch(&left(&sound)), 3_579_545.0 / 3.0 / f64::from(count));
            assert!((heard / wanted - 1.0).abs() < 0.01, "{heard} instead of {wanted}");
        }
    }

    #[test]
    fn only_what_can_be_heard_costs_anything() {
        let mut pit = Pit::default();
        program(&mut pit, 3, 1193, 0);
        pit.set_gate2(true, 0);
        assert!(!pit.speaker.sounds(), "port 61h holds it back");
        pit.set_speaker(true, MS);
        assert_eq!(pit.speaker.next_event(), Some(10 * MS));
        assert!(played(&mut pit, 500 * MS).is_some());
        pit.set_speaker(false, 500 * MS);
        let sound = played(&mut pit, 1000 * MS).unwrap();
        assert!(sound.frames.len() <= 4801, "{}", sound.frames.len());
        assert_eq!(sound.frames.last(), Some(&[0, 0]));
        assert_eq!((pit.speaker.sounds(), pit.speaker.next_event()), (false, None));
        assert_eq!(played(&mut pit, 2000 * MS), None);
    }

    #[test]
    fn the_width_of_pulses_is_a_level() {
        let mut pit = Pit::default();
        pit.set_gate2(true, 0);
        pit.set_speaker(true, 0);
        // Every 100 us a pulse of mode 0, low for a time that follows a sine of 500 Hz.
        for number in 0..2000u32 {
            let angle = f64::from(number) * 0.1 * std::f64::consts::PI;
            pit.write(PORT_CONTROL, 0x90, u64::from(number) * 100_000);
            pit.write(PORT_COUNTER2, (60.0 + 50.0 * angle.sin()) as u8, u64::from(number) * 100_000);
        }
        let samples = left(&played(&mut pit, 200 * MS).unwrap());
        // Without the pulses themselves, which are at 10 kHz.
        let smooth: Vec<i16> = samples
            .windows(24)
            .map(|window| (window.iter().map(|value| i32::from(*value)).sum::<i32>() / 24) as i16)
            .skip(4800)
            .collect();
        let heard = pitch(&smooth);
        assert!((heard / 500.0 - 1.0).abs() < 0.01, "{heard}");
    }

    #[test]
    fn how_often_it_is_asked_makes_no_difference() {
        let tune = |step: u64| {
            let mut pit = Pit::default();
            let mut frames = Vec::new();
            for now in (0..300 * MS).step_by(step as usize) {
                match now {
                    0 => {
                        program(&mut pit, 3, 2000, now);
                        pit.set_gate2(true, now);
                        pit.set_speaker(true, now);
                    }
                    100_000_000 => program(&mut pit, 3, 777, now),
                    200_000_000 => pit.set_speaker(false, now),
                    _ => {}
                }
                frames.extend(played(&mut pit, now).map(|sound| sound.frames).unwrap_or_default());
            }
            frames
        };
        let often = tune(100_000);
        assert!(often.len() > 9000);
        let seldom = tune(50_000_000);
        assert_eq!(often[..seldom.len().min(often.len())], seldom[..seldom.len().min(often.len())]);
    }
}
