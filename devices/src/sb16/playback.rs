//! The converters: samples that come by DMA or one by one, at their own rate.

use crate::sound::FRAME_RATE;

/// Rates of the converters in samples a second.
pub const LEAST_RATE: u32 = 4_000;
/// The same.
pub const MOST_RATE: u32 = 45_454;
/// The output stays where the last sample put it for so many frames, 20 ms, ...
const HOLD: u32 = 960;
/// ... and goes back to zero by this part of itself with each further one.
const FADE: i32 = 64;

/// What a transfer is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Samples are played.
    #[default]
    Play = 0,
    /// Samples are recorded; there is no microphone.
    Record = 1,
    /// Time passes in silence.
    Silence = 2,
    /// Compressed samples are fetched and not played.
    Skip = 3,
}

impl Purpose {
    /// The purpose with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Play, Self::Record, Self::Silence, Self::Skip].into_iter().find(|p| *p as u64 == number)
    }
}

/// A stream of samples by DMA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// What it is for.
    pub purpose: Purpose,
    /// Samples have 16 bits, else 8.
    pub wide: bool,
    /// Samples have a sign.
    pub signed: bool,
    /// Samples are of the left and the right side, in turns.
    pub stereo: bool,
    /// It begins again at its end.
    pub auto: bool,
    /// The guest has paused it.
    pub paused: bool,
    /// Samples from one interrupt to the next, both sides counted.
    pub length: u32,
    /// Samples up to the next interrupt.
    pub left: u32,
    /// Samples of each side in a second.
    pub rate: u32,
}

impl Transfer {
    /// Samples that are played at once.
    fn sides(&self) -> u32 {
        if self.stereo { 2 } else { 1 }
    }

    /// Bytes that are moved at once.
    fn bytes(&self) -> usize {
        (self.sides() as usize) << usize::from(self.wide)
    }

    /// The samples in bytes, left and right.
    fn decode(&self, bytes: [u8; 4]) -> [i16; 2] {
        let sign = if self.signed { 0 } else { i16::MIN };
        let [a, b, c, d] = bytes;
        let [left, right] = match self.wide {
            true => [i16::from_le_bytes([a, b]), i16::from_le_bytes([c, d])],
            false => [i16::from_le_bytes([0, a]), i16::from_le_bytes([0, b])],
        };
        let left = left ^ sign;
        [left, if self.stereo { right ^ sign } else { left }]
    }

    /// What silence is recorded as.
    fn nothing(&self) -> [u8; 4] {
        match (self.signed, self.wide) {
            (true, _) => [0; 4],
            (false, false) => [0x80; 4],
            (false, true) => [0, 0x80, 0, 0x80],
        }
    }
}

/// How a transfer reaches memory.
pub trait Channel {
    /// Fills a buffer from memory; false if the channel is not ready.
    fn fetch(&mut self, wide: bool, bytes: &mut [u8]) -> bool;

    /// Writes a buffer to memory; false if the channel is not ready.
    fn store(&mut self, wide: bool, bytes: &[u8]) -> bool;
}

/// The converters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Playback {
    /// The stream, if there is one.
    pub transfer: Option<Transfer>,
    /// How far the present frame is between two samples, of [`FRAME_RATE`].
    pub between: u32,
    /// The sample before, and the one behind, left and right.
    pub samples: [[i16; 2]; 2],
    /// Frames since a sample came.
    pub held: u32,
}

impl Playback {
    /// Something can be heard, or is to come.
    pub fn is_active(&self) -> bool {
        self.runs().is_some() || self.samples != [[0; 2]; 2]
    }

    /// The stream, unless it is paused.
    fn runs(&self) -> Option<&Transfer> {
        self.transfer.as_ref().filter(|transfer| !transfer.paused)
    }

    /// Begins a stream. The first sample is fetched for the next frame.
    pub fn start(&mut self, transfer: Transfer) {
        let rate = transfer.rate.clamp(1, FRAME_RATE);
        self.between = FRAME_RATE - rate;
        self.transfer = Some(Transfer { rate, left: transfer.length, ..transfer });
    }

    /// Plays one sample.
    pub fn put(&mut self, sample: [i16; 2]) {
        (self.samples, self.held) = ([sample; 2], 0);
    }

    /// Frames until the stream's next interrupt, if nothing holds it up.
    pub fn frames_to_interrupt(&self) -> Option<u64> {
        let transfer = self.runs()?;
        let samples = u64::from(transfer.left.div_ceil(transfer.sides()).max(1));
        let way = (samples * u64::from(FRAME_RATE)).saturating_sub(self.between.into());
        Some(way.div_ceil(transfer.rate.max(1).into()))
    }

    /// The next frame. Gives besides whether it ended a block of 8-bit or of 16-bit samples.
    pub fn frame(&mut self, channel: &mut impl Channel) -> ([i32; 2], Option<bool>) {
        let mut ended = None;
        match self.runs().map(|transfer| transfer.rate) {
            Some(rate) => {
                self.between += rate;
                if self.between >= FRAME_RATE {
                    if let Some(end) = self.step(channel) {
                        self.between -= FRAME_RATE;
                        ended = end;
                    } else {
                        // The channel is not ready: the next frame tries again.
                        (self.between, self.samples[0]) = (FRAME_RATE - rate, self.samples[1]);
                        self.held = self.held.saturating_add(1);
                    }
                }
            }
            None => {
                self.samples[0] = self.samples[1];
                self.held = self.held.saturating_add(1);
            }
        }
        if self.held > HOLD {
            let fade = |value: i16| {
                value - (i32::from(value).signum() * (i32::from(value).abs() / FADE).max(1)) as i16
            };
            self.samples = [self.samples[1].map(|value| if value == 0 { 0 } else { fade(value) }); 2];
        }
        let [before, behind] = self.samples;
        let frame = core::array::from_fn(|side| {
            let (before, behind) = (i64::from(before[side]), i64::from(behind[side]));
            let between = i64::from(self.between.min(FRAME_RATE));
            (before + (behind - before) * between / i64::from(FRAME_RATE)) as i32
        });
        (frame, ended)
    }

    /// Moves a sample of each side, if the channel is ready. Gives of what width the block was that it ended.
    fn step(&mut self, channel: &mut impl Channel) -> Option<Option<bool>> {
        let transfer = self.transfer.as_mut()?;
        let mut bytes = [0; 4];
        let moved = &mut bytes[..transfer.bytes()];
        let ready = match transfer.purpose {
            Purpose::Play | Purpose::Skip => channel.fetch(transfer.wide, moved),
            Purpose::Record => channel.store(transfer.wide, &transfer.nothing()[..transfer.bytes()]),
            Purpose::Silence => true,
        };
        if !ready {
            return None;
        }
        let sample = if transfer.purpose == Purpose::Play { transfer.decode(bytes) } else { [0; 2] };
        (self.samples, self.held) = ([self.samples[1], sample], 0);
        transfer.left = transfer.left.saturating_sub(transfer.sides());
        if transfer.left > 0 {
            return Some(None);
        }
        let wide = transfer.wide;
        match transfer.auto {
            true => transfer.left = transfer.length,
            false => self.transfer = None,
        }
        Some(Some(wide))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of its own, and a channel that can be held up.
    struct Fake {
        bytes: Vec<u8>,
        at: usize,
        ready: bool,
        stored: Vec<u8>,
    }

    impl Fake {
        fn new(bytes: Vec<u8>) -> Self {
            Self { bytes, at: 0, ready: true, stored: Vec::new() }
        }
    }

    impl Channel for Fake {
        fn fetch(&mut self, _: bool, bytes: &mut [u8]) -> bool {
            if self.ready {
                bytes.copy_from_slice(&self.bytes[self.at..self.at + bytes.len()]);
                self.at = (self.at + bytes.len()) % self.bytes.len();
            }
            self.ready
        }

        fn store(&mut self, _: bool, bytes: &[u8]) -> bool {
            self.stored.extend(bytes);
            true
        }
    }

    fn mono(rate: u32, length: u32) -> Transfer {
        Transfer { rate, length, ..Transfer::default() }
    }

    /// Frames up to the end of a block, and those.
    fn block(playback: &mut Playback, channel: &mut Fake) -> (u64, Vec<[i32; 2]>) {
        let mut frames = Vec::new();
        loop {
            let (frame, ended) = playback.frame(channel);
            frames.push(frame);
            if ended.is_some() || frames.len() > 100_000 {
                return (frames.len() as u64, frames);
            }
        }
    }

    #[test]
    fn samples_of_every_kind_are_understood() {
        type Case = (bool, bool, bool, [u8; 4], [i16; 2]);
        let cases: [Case; 8] = [
            (false, false, false, [0xff, 0, 0, 0], [0x7f00, 0x7f00]),
            (false, false, true, [0x00, 0xc0, 0, 0], [-0x8000, 0x4000]),
            (false, true, false, [0x80, 0, 0, 0], [-0x8000, -0x8000]),
            (false, true, true, [0x7f, 0xff, 0, 0], [0x7f00, -0x0100]),
            (true, true, false, [0x34, 0x12, 0, 0], [0x1234, 0x1234]),
            (true, true, true, [0x34, 0x12, 0xff, 0xff], [0x1234, -1]),
            (true, false, false, [0x34, 0x92, 0, 0], [0x1234, 0x1234]),
            (true, false, true, [0x00, 0x80, 0x00, 0x00], [0, -0x8000]),
        ];
        for (wide, signed, stereo, bytes, wanted) in cases {
            let transfer = Transfer { wide, signed, stereo, ..mono(48_000, 1) };
            let mut playback = Playback::default();
            playback.start(transfer);
            let mut channel = Fake::new(bytes[..transfer.bytes()].to_vec());
            playback.frame(&mut channel);
            let (frame, _) = playback.frame(&mut channel);
            assert_eq!(frame, wanted.map(i32::from), "{transfer:?}");
        }
    }

    #[test]
    fn a_block_lasts_as_long_as_its_rate_says() {
        for rate in [LEAST_RATE, 8000, 11_025, 22_050, 44_100, MOST_RATE] {
            let mut playback = Playback::default();
            playback.start(Transfer { auto: true, ..mono(rate, 1000) });
            let mut channel = Fake::new(vec![0x80; 1000]);
            let mut sum = 0;
            for _ in 0..10 {
                let foreseen = playback.frames_to_interrupt();
                let (frames, _) = block(&mut playback, &mut channel);
                assert_eq!(foreseen, Some(frames), "{rate}");
                sum += frames;
            }
            let wanted = 10_000 * u64::from(FRAME_RATE) / u64::from(rate);
            assert!(sum.abs_diff(wanted) <= 12, "{rate}: {sum} instead of {wanted}");
        }
    }

    #[test]
    fn a_stereo_block_counts_both_sides() {
        let mut playback = Playback::default();
        playback.start(Transfer { stereo: true, ..mono(24_000, 100) });
        let (frames, _) = block(&mut playback, &mut Fake::new(vec![0x80; 200]));
        assert_eq!(frames, 99);
        assert_eq!(playback.transfer, None);
    }

    #[test]
    fn a_channel_that_is_not_ready_holds_it_up() {
        let mut playback = Playback::default();
        playback.start(mono(48_000, 3));
        let mut channel = Fake::new(vec![0xc0; 3]);
        playback.frame(&mut channel);
        channel.ready = false;
        for _ in 0..10 {
            assert_eq!(playback.frame(&mut channel), ([0x4000; 2], None));
        }
        channel.ready = true;
        assert_eq!(playback.frame(&mut channel).1, None);
        assert_eq!(playback.frame(&mut channel).1, Some(false));
    }

    #[test]
    fn an_end_makes_no_click() {
        let mut playback = Playback::default();
        playback.start(mono(48_000, 1));
        let mut channel = Fake::new(vec![0xff]);
        playback.frame(&mut channel);
        let mut before = 0x7f00;
        let mut frames = 0;
        while playback.is_active() {
            let ([frame, _], _) = playback.frame(&mut channel);
            assert!(before - frame <= 0x7f00 / FADE && frame <= before, "{before} {frame}");
            (before, frames) = (frame, frames + 1);
        }
        assert!(before == 0 && frames < 3000, "{frames}");
    }

    #[test]
    fn recording_gives_silence() {
        let mut playback = Playback::default();
        playback.start(Transfer { purpose: Purpose::Record, ..mono(48_000, 4) });
        let mut channel = Fake::new(Vec::new());
        block(&mut playback, &mut channel);
        assert_eq!(channel.stored, [0x80; 4]);
    }
}
