//! Sound as it leaves the board: frames of 48 kHz, each at its guest time.
//!
//! A device plays up to the present whenever something about it changes, and every few milliseconds while
//! it can be heard. What it has played waits in its [`Track`] until the host takes it, mixed with the
//! others' ([`mix`]). A device that is silent has no deadline and plays nothing.

/// Frames in a second.
pub const FRAME_RATE: u32 = 48_000;
/// A device that can be heard plays up to the present so often, in frames: 10 ms.
const PIECE: u64 = 480;
/// Of what nobody takes, so much waits, in frames: a second.
const LIMIT: u64 = FRAME_RATE as u64;
/// So many frames ...
const CLOCK_FRAMES: u64 = 6;
/// ... take so many nanoseconds.
const CLOCK_NS: u64 = 125_000;

/// A moment of sound: left and right.
pub type Frame = [i16; 2];

/// Frames that have passed at a time in nanoseconds.
pub fn frame_at(now: u64) -> u64 {
    now / CLOCK_NS * CLOCK_FRAMES + now % CLOCK_NS * CLOCK_FRAMES / CLOCK_NS
}

/// The first nanosecond at which so many frames have passed.
pub fn time_of_frame(frame: u64) -> u64 {
    let rest = (frame % CLOCK_FRAMES * CLOCK_NS).div_ceil(CLOCK_FRAMES);
    (frame / CLOCK_FRAMES).saturating_mul(CLOCK_NS).saturating_add(rest)
}

/// When a device that has played up to a frame must play again, if it can be heard.
pub fn next_piece(played: u64) -> u64 {
    time_of_frame((played / PIECE + 1) * PIECE)
}

/// Where to begin to play what is heard up to `end`, of which all up to `played` has been: what a host
/// has slept through is not made up for.
pub fn resume_at(played: u64, end: u64) -> u64 {
    played.max(end.saturating_sub(LIMIT))
}

/// What a device has played and nobody has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// The first frame's number.
    start: u64,
    frames: Vec<[i32; 2]>,
}

impl Track {
    /// Adds the frame with this number, which is none before the last one. Between the two it is silent.
    pub fn push(&mut self, number: u64, frame: [i32; 2]) {
        let place = number.saturating_sub(self.start);
        if self.frames.is_empty() || place >= LIMIT {
            self.frames.clear();
            self.start = number;
        } else {
            self.frames.resize(place as usize, [0; 2]);
        }
        self.frames.push(frame);
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The number behind the last frame's.
    fn end(&self) -> u64 {
        self.start + self.frames.len() as u64
    }
}

/// A stretch of what the board plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sound {
    /// The number of the first frame: frames since the machine's power-on.
    pub start: u64,
    /// The frames.
    pub frames: Vec<Frame>,
}

/// Takes what waits in tracks, mixed. `None` if there is nothing.
pub fn mix<const N: usize>(tracks: [&mut Track; N]) -> Option<Sound> {
    let waiting = || tracks.iter().filter(|track| !track.is_empty());
    let start = waiting().map(|track| track.start).min()?;
    let end = waiting().map(|track| track.end()).max()?;
    let mut sums = vec![[0i32; 2]; (end - start) as usize];
    for track in tracks {
        let place = track.start.saturating_sub(start) as usize;
        for (sum, frame) in sums.iter_mut().skip(place).zip(track.frames.drain(..)) {
            *sum = [sum[0].saturating_add(frame[0]), sum[1].saturating_add(frame[1])];
        }
    }
    Some(Sound { start, frames: sums.into_iter().map(|sum| sum.map(saturated)).collect() })
}

/// The nearest that a frame can hold.
pub fn saturated(value: i32) -> i16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// The frequency in hertz of a steady tone, by its rising zero crossings.
    pub fn pitch(samples: &[i16]) -> f64 {
        let crossings: Vec<f64> = samples
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| pair[0] < 0 && pair[1] >= 0)
            .map(|(at, pair)| at as f64 + f64::from(pair[0]) / (f64::from(pair[0]) - f64::from(pair[1])))
            .collect();
        let (first, last) = (crossings[0], crossings[crossings.len() - 1]);
        (crossings.len() - 1) as f64 / (last - first) * f64::from(FRAME_RATE)
    }

    /// The left channel.
    pub fn left(sound: &Sound) -> Vec<i16> {
        sound.frames.iter().map(|frame| frame[0]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_begins_when_it_has_passed() {
        assert_eq!(frame_at(1_000_000_000), 48_000);
        for frame in [0, 1, 5, 6, 7, 47_999, 1 << 40] {
            assert_eq!(frame_at(time_of_frame(frame)), frame);
            assert!(frame == 0 || frame_at(time_of_frame(frame) - 1) == frame - 1);
        }
        assert_eq!(next_piece(479), time_of_frame(480));
        assert_eq!(next_piece(480), time_of_frame(960));
    }

    #[test]
    fn tracks_are_mixed_where_they_belong() {
        let (mut one, mut other) = (Track::default(), Track::default());
        assert_eq!(mix([&mut one, &mut other]), None);
        one.push(10, [1, 2]);
        one.push(12, [30_000, -30_000]);
        other.push(12, [30_000, -30_000]);
        other.push(13, [5, 6]);
        let frames = vec![[1, 2], [0, 0], [i16::MAX, i16::MIN], [5, 6]];
        assert_eq!(mix([&mut one, &mut other]), Some(Sound { start: 10, frames }));
        assert!(one.is_empty() && other.is_empty());
    }

    #[test]
    fn what_nobody_takes_does_not_pile_up() {
        let mut track = Track::default();
        (0..3 * LIMIT).for_each(|number| track.push(number, [1, 1]));
        assert!(track.frames.len() as u64 <= LIMIT);
        track.push(u64::MAX / 2, [7, 7]);
        assert_eq!(mix([&mut track]), Some(Sound { start: u64::MAX / 2, frames: vec![[7, 7]] }));
    }
}
