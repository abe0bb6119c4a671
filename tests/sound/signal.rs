//! What the guest plays, and the test expects: 16-bit samples of one side, at 44,100 Hz.

/// Samples a second.
pub const RATE: u32 = 44_100;
/// Samples of it: a second and a half.
pub const SAMPLES: usize = 66_150;

/// A tone that climbs from some 200 to some 1600 Hz again and again, by integers alone: a triangle, rounded
/// by a parabola.
pub struct Signal {
    at: u32,
    phase: u32,
}

impl Signal {
    /// From the beginning.
    pub const fn new() -> Self {
        Self { at: 0, phase: 0 }
    }

    /// The next sample.
    pub fn sample(&mut self) -> i16 {
        // A cycle is 2^16 steps.
        self.phase = (self.phase + 300 + self.at % 20_000 / 10) & 0xffff;
        self.at += 1;
        let half = (self.phase & 0x7fff) as i32;
        // At most 2^28 where a half cycle is half over.
        let height = (half * (0x8000 - half)) >> 14;
        (if self.phase & 0x8000 != 0 { -height } else { height }) as i16
    }
}
