//! One operator: a phase, an envelope, and a waveform.

use super::tables::{POWER, SILENCE, SINE_LOSS};

/// The envelope's value at which nothing is heard, in 96/1024 dB.
const QUIET: u16 = 0x3ff;
/// From here on a note that fades out is over.
const OVER: i32 = 0x3f8;
/// The fastest rate.
const FASTEST: u8 = 63;
/// An attack from this rate on takes no time.
const INSTANT: u8 = 62;
/// Bits of the phase behind the 1024 positions of a cycle.
const PHASE_FRACTION: u32 = 9;

const FLAG_TREMOLO: u8 = 0x80;
const FLAG_VIBRATO: u8 = 0x40;
const FLAG_SUSTAINS: u8 = 0x20;
const FLAG_KEY_SCALE: u8 = 0x10;
const FLAG_MULTIPLE: u8 = 0x0f;

/// The factors of the frequency, doubled.
const MULTIPLES: [u32; 16] = [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 20, 24, 24, 30, 30];
/// Loss by the upper four bits of the f-number at the highest block, in 3/16 dB.
const KEY_LOSS: [i32; 16] = [0, 128, 160, 180, 192, 204, 212, 220, 224, 232, 236, 240, 244, 248, 252, 256];
/// Loss from one block to the next.
const BLOCK_LOSS: i32 = 32;
/// By how much that loss is shifted, by the register's two bits. The first is for none at all.
const KEY_LOSS_SHIFTS: [u32; 4] = [31, 1, 2, 0];

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pitch {
    f_number: u16,
    block: u8,
    /// Block and a bit of the f-number: what rates go by.
    key: u8,
}

impl Pitch {
    /// A note; `select` says which bit of the f-number rates go by (NTS).
    pub fn new(f_number: u16, block: u8, select: bool) -> Self {
        let bit = (f_number >> if select { 8 } else { 9 }) & 1;
        Self { f_number, block, key: block << 1 | bit as u8 }
    }

    /// What a channel loses at high notes, in 3/16 dB.
    fn loss(self) -> i32 {
        (KEY_LOSS[usize::from(self.f_number >> 6)] - BLOCK_LOSS * (8 - i32::from(self.block))).max(0)
    }
}

/// An operator's registers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tremolo, vibrato, kind of envelope, key scaling, multiple (20h).
    pub flags: u8,
    /// Key scaling of the level, and the level (40h).
    pub level: u8,
    /// Rates of attack and decay (60h).
    pub attack_decay: u8,
    /// Level of sustain and rate of release (80h).
    pub sustain_release: u8,
    /// Waveform (E0h).
    pub waveform: u8,
}

/// The loss of the tremolo, in 3/16 dB.
#[derive(Clone, Copy, Debug)]
pub struct Tremolo(i32);

impl Tremolo {
    /// A triangle of 3.7 Hz, of 4.8 or 1 dB.
    pub fn at(clock: u32, deep: bool) -> Self {
        let step = (clock >> 6) % 210;
        let height = if step < 105 { step } else { 210 - step };
        Self((height >> if deep { 2 } else { 4 }) as i32)
    }
}

/// Where the vibrato is.
#[derive(Clone, Copy, Debug)]
pub struct Vibrato {
    step: u32,
    deep: bool,
}

impl Vibrato {
    /// Eight steps of 6.1 Hz, of 14 or 7 cents.
    pub fn at(clock: u32, deep: bool) -> Self {
        Self { step: clock >> 10 & 7, deep }
    }

    /// By how much it changes an f-number.
    fn of(self, f_number: u16) -> i32 {
        let range = i32::from(f_number >> 7 & 7) >> u32::from(!self.deep);
        let size = match self.step & 3 {
            0 => 0,
            2 => range,
            _ => range >> 1,
        };
        if self.step & 4 != 0 { -size } else { size }
    }
}

/// Where an envelope is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The note is over.
    #[default]
    Off,
    /// It becomes louder.
    Attack,
    /// It becomes as loud as it is to stay.
    Decay,
    /// It stays, or fades while the key is down.
    Sustain,
    /// It fades out.
    Release,
}

/// An operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The key is down.
    pub pressed: bool,
    /// Where the envelope is.
    pub stage: Stage,
    /// Its loss, in 96/1024 dB.
    pub envelope: u16,
    /// The loss with all that is added to it.
    pub loss: u16,
    /// Where in its cycle the operator is, of 2^19.
    pub phase: u32,
    /// The last two values, the newer first.
    pub outputs: [i16; 2],
}

impl Default for Operator {
    fn default() -> Self {
        Self { pressed: false, stage: Stage::Off, envelope: QUIET, loss: QUIET, phase: 0, outputs: [0; 2] }
    }
}

impl Operator {
    /// The key goes down or up, or stays as it is.
    pub fn press(&mut self, pressed: bool, settings: &Settings, pitch: Pitch) {
        if pressed == self.pressed {
            return;
        }
        self.pressed = pressed;
        if pressed {
            (self.phase, self.stage) = (0, Stage::Attack);
            if rate(settings.attack_decay >> 4, settings, pitch) >= INSTANT {
                (self.envelope, self.stage) = (0, Stage::Decay);
            }
        } else if self.stage != Stage::Off {
            self.stage = Stage::Release;
        }
    }

    /// Goes on by a sample.
    pub fn advance(&mut self, clock: u32, s: &Settings, pitch: Pitch, tremolo: Tremolo, vibrato: Vibrato) {
        let change = if s.flags & FLAG_VIBRATO != 0 { vibrato.of(pitch.f_number) } else { 0 };
        let f_number = (i32::from(pitch.f_number) + change).max(0) as u32;
        let multiple = MULTIPLES[usize::from(s.flags & FLAG_MULTIPLE)];
        let step = ((f_number << pitch.block >> 1) * multiple) >> 1;
        self.phase = (self.phase + step) & ((1 << (10 + PHASE_FRACTION)) - 1);
        self.advance_envelope(clock, s, pitch);
        let scaled = pitch.loss() >> KEY_LOSS_SHIFTS[usize::from(s.level >> 6)];
        let tremolo = if s.flags & FLAG_TREMOLO != 0 { tremolo.0 } else { 0 };
        let loss = i32::from(self.envelope) + (i32::from(s.level & 0x3f) << 3) + ((scaled + tremolo) << 1);
        self.loss = loss.min(QUIET.into()) as u16;
    }

    fn advance_envelope(&mut self, clock: u32, s: &Settings, pitch: Pitch) {
        let register = match self.stage {
            Stage::Off => return,
            Stage::Attack => s.attack_decay >> 4,
            Stage::Decay => s.attack_decay & 0xf,
            Stage::Sustain if s.flags & FLAG_SUSTAINS != 0 => return,
            Stage::Sustain | Stage::Release => s.sustain_release & 0xf,
        };
        let steps = i32::from(steps(rate(register, s, pitch), clock));
        let mut envelope = i32::from(self.envelope);
        match self.stage {
            Stage::Attack => {
                envelope += (!envelope * steps) >> 4;
                if envelope <= 0 {
                    (envelope, self.stage) = (0, Stage::Decay);
                }
            }
            Stage::Decay if envelope >= sustain_level(s.sustain_release) => self.stage = Stage::Sustain,
            _ => envelope += steps,
        }
        if envelope >= OVER && self.stage != Stage::Attack {
            envelope = QUIET.into();
            if matches!(self.stage, Stage::Sustain | Stage::Release) {
                self.stage = Stage::Off;
            }
        }
        self.envelope = envelope.clamp(0, QUIET.into()) as u16;
    }

    /// Where in its cycle it is, of 1024.
    pub fn position(&self) -> u16 {
        (self.phase >> PHASE_FRACTION) as u16
    }

    /// The modulation by itself, at one of the eight strengths: none to four half cycles.
    pub fn feedback(&self, strength: u8) -> i32 {
        match strength {
            0 => 0,
            _ => (i32::from(self.outputs[0]) + i32::from(self.outputs[1])) >> (9 - strength),
        }
    }

    /// Its next value, of 13 bits, with its phase moved.
    pub fn play(&mut self, waveform: u8, modulation: i32) -> i32 {
        let position = (i32::from(self.position()) + modulation) as u16 & 0x3ff;
        let (loss, negative) = wave(waveform, position);
        let loss = loss + (self.loss << 2);
        let size = (1024 + POWER[usize::from(!loss as u8)]) << 1;
        let size = size.checked_shr(u32::from(loss >> 8)).unwrap_or(0) as i16;
        self.outputs = [if negative { -size } else { size }, self.outputs[0]];
        self.outputs[0].into()
    }

    /// Its next value while it is off.
    pub fn rest(&mut self) -> i32 {
        self.outputs = [0, self.outputs[0]];
        0
    }
}

/// A rate of an envelope, from 0 to 63, from its register.
fn rate(register: u8, settings: &Settings, pitch: Pitch) -> u8 {
    let shift = if settings.flags & FLAG_KEY_SCALE != 0 { 0 } else { 2 };
    if register == 0 { 0 } else { (4 * register + (pitch.key >> shift)).min(FASTEST) }
}

/// The level at which an envelope stays.
fn sustain_level(register: u8) -> i32 {
    match register >> 4 {
        15 => 31 << 5,
        level => i32::from(level) << 5,
    }
}

/// By how many steps an envelope changes at a sample. Slow ones change at every 2^n-th sample; then as at
/// others, each second to each one of eight, as the lower two bits of the rate say.
fn steps(rate: u8, clock: u32) -> u8 {
    /// The steps that are made besides every second one of eight.
    const MORE: [u8; 4] = [0b0000_0000, 0b0001_0000, 0b0100_0100, 0b0101_0100];
    /// The steps that are doubled.
    const DOUBLE: [u8; 4] = [0b0000_0000, 0b1000_1000, 0b1010_1010, 0b1110_1110];
    let (octave, part) = (u32::from(rate >> 2), usize::from(rate & 3));
    if rate < 4 {
        return 0;
    }
    let bit = |pattern: u8, at: u32| pattern >> (at & 7) & 1;
    match octave {
        0..12 => {
            let every = 11 - octave;
            if clock & ((1 << every) - 1) != 0 {
                return 0;
            }
            bit(0b1010_1010 | MORE[part], clock >> every)
        }
        12..15 => (1 + bit(DOUBLE[part], clock)) << (octave - 12),
        _ => 8,
    }
}

/// The loss at a position of a waveform, in 1/256 of a factor of two, and whether the value is negative.
fn wave(waveform: u8, position: u16) -> (u16, bool) {
    let sine = |position: u16| {
        let (quarter, falls) = (position & 0xff, position & 0x100 != 0);
        SINE_LOSS[usize::from(if falls { 0xff - quarter } else { quarter })]
    };
    let (second_half, second_quarter) = (position & 0x200 != 0, position & 0x100 != 0);
    match waveform {
        0 => (sine(position), second_half),
        // Half a sine.
        1 if second_half => (SILENCE, false),
        1 | 2 => (sine(position), false),
        // The rising quarters.
        3 if second_quarter => (SILENCE, false),
        3 => (sine(position), false),
        // A whole sine, or its absolute value, in the first half.
        4 | 5 if second_half => (SILENCE, false),
        4 => (sine(position << 1), second_quarter),
        5 => (sine(position << 1), false),
        // A square.
        6 => (0, second_half),
        // What falls exponentially, and then mirrored.
        _ if second_half => ((!position & 0x1ff) << 3, true),
        _ => ((position & 0x1ff) << 3, false),
    }
}
