//! The FM synthesizer: a Yamaha YMF262 (OPL3), which is also two YM3812 (OPL2) to software that knows no
//! better.
//!
//! 36 operators, each a sine or a part of one whose phase and loudness run by themselves, make 18 channels
//! of two, or up to six of four. The chip makes a sample every 288 cycles of 14.318 MHz; here they are
//! interpolated to [`FRAME_RATE`].
//!
//! Sources: YMF262 datasheet and application manual (Yamaha); YM3812 application manual for the rhythm
//! section and the timers.

mod operator;
mod tables;

use crate::sound::FRAME_RATE;
pub use operator::{Operator, Stage};
use operator::{Pitch, Settings, Tremolo, Vibrato};

/// The chip's samples in a second: 14.31818 MHz / 288.
const SAMPLE_RATE: u32 = 49_716;
/// Register arrays.
const BANKS: usize = 2;
/// Channels of an array.
const CHANNELS: usize = 9;
/// All operators: two of each channel, in the channels' order.
pub const OPERATORS: usize = 2 * CHANNELS * BANKS;

// Registers of both arrays.
const TIMER1: u8 = 0x02;
const TIMER2: u8 = 0x03;
/// Timer control; in the second array, which channels are joined to four operators.
const CONTROL_OR_FOUR: u8 = 0x04;
/// In the second array: OPL3 mode.
const NEW: u8 = 0x05;
const NOTE_SELECT: u8 = 0x08;
const F_NUMBER_LOW: u8 = 0xa0;
const KEY_BLOCK: u8 = 0xb0;
const KEY_BLOCK_LAST: u8 = KEY_BLOCK + CHANNELS as u8 - 1;
const RHYTHM: u8 = 0xbd;
const OUTPUT: u8 = 0xc0;

const CONTROL_RESET: u8 = 0x80;
/// Timer control: bit 6 masks timer 1 and bit 5 timer 2; ...
const CONTROL_MASKS: [u8; 2] = [0x40, 0x20];
/// ... bits 0 and 1 let them run.
const CONTROL_STARTS: [u8; 2] = [0x01, 0x02];
/// Status: a timer has run out.
const STATUS_ANY: u8 = 0x80;
const STATUS_TIMERS: [u8; 2] = [0x40, 0x20];
/// The steps of the timers in nanoseconds: 4 and 16 samples.
const TIMER_STEPS: [u64; 2] = [80_460, 321_840];

const NEW_MODE: u8 = 0x01;
const NOTE_SELECT_BIT: u8 = 0x40;
const KEY_ON: u8 = 0x20;
const RHYTHM_ON: u8 = 0x20;
const RHYTHM_VIBRATO_DEEP: u8 = 0x40;
const RHYTHM_TREMOLO_DEEP: u8 = 0x80;
const RHYTHM_BASS: u8 = 0x10;
const RHYTHM_SNARE: u8 = 0x08;
const RHYTHM_TOM: u8 = 0x04;
const RHYTHM_CYMBAL: u8 = 0x02;
const RHYTHM_HI_HAT: u8 = 0x01;
const OUTPUT_ADDS: u8 = 0x01;
const OUTPUT_LEFT: u8 = 0x10;
const OUTPUT_RIGHT: u8 = 0x20;

/// The channels of the rhythm section: bass drum; hi-hat and snare drum; tom-tom and cymbal.
const BASS: usize = 6;
const HI_HAT_SNARE: usize = 7;
const TOM_CYMBAL: usize = 8;

/// Bits of the noise generator.
const NOISE_BITS: u32 = 23;

/// One of the two timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// When it runs out, if it runs.
    pub due: Option<u64>,
    /// It has run out since the status was reset.
    pub over: bool,
}

/// The chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opl {
    /// The register that the data ports reach; 100h and up are the second array's.
    pub index: u16,
    /// The registers of both arrays.
    pub registers: [[u8; 256]; BANKS],
    /// The timers.
    pub timers: [Timer; 2],
    /// The operators.
    pub operators: [Operator; OPERATORS],
    /// Samples since the chip began to sound: tremolo, vibrato and envelopes go by it.
    pub clock: u32,
    /// The noise generator.
    pub noise: u32,
    /// How far the present frame is between two samples, of [`FRAME_RATE`].
    pub between: u32,
    /// The sample before, and the one behind, left and right.
    pub samples: [[i16; 2]; 2],
}

impl Default for Opl {
    fn default() -> Self {
        Self {
            index: 0,
            registers: [[0; 256]; BANKS],
            timers: Default::default(),
            operators: [Operator::default(); OPERATORS],
            clock: 0,
            noise: 1,
            between: 0,
            samples: [[0; 2]; 2],
        }
    }
}

/// Where the registers of a channel's first operator are; those of the second are three behind.
fn slot(channel: usize) -> usize {
    channel / 3 * 8 + channel % 3
}

impl Opl {
    /// The status register.
    pub fn status(&mut self, now: u64) -> u8 {
        self.run_timers(now);
        let timers = self.timers.iter().zip(STATUS_TIMERS).filter(|(timer, _)| timer.over);
        timers.fold(0, |status, (_, bit)| status | bit | STATUS_ANY)
    }

    /// Chooses a register of an array. Without OPL3 mode only the switch to that can be reached in the
    /// second.
    pub fn select(&mut self, bank: u8, register: u8) {
        let second = bank != 0 && (self.is_new() || register == NEW);
        self.index = u16::from(register) | if second { 0x100 } else { 0 };
    }

    /// Writes the chosen register.
    pub fn write(&mut self, value: u8, now: u64) {
        let (bank, register) = (usize::from(self.index >> 8 & 1), self.index as u8);
        if bank == 0 && register == CONTROL_OR_FOUR {
            return self.control_timers(value, now);
        }
        self.registers[bank][usize::from(register)] = value;
        match register {
            CONTROL_OR_FOUR | NEW | RHYTHM | KEY_BLOCK..=KEY_BLOCK_LAST => self.update_keys(),
            _ => {}
        }
    }

    fn control_timers(&mut self, value: u8, now: u64) {
        self.run_timers(now);
        if value & CONTROL_RESET != 0 {
            self.timers.iter_mut().for_each(|timer| timer.over = false);
            return;
        }
        self.registers[0][usize::from(CONTROL_OR_FOUR)] = value;
        for (number, start) in CONTROL_STARTS.into_iter().enumerate() {
            let due = self.timers[number].due.or_else(|| Some(now + self.period(number)));
            self.timers[number].due = due.filter(|_| value & start != 0);
        }
    }

    /// The nanoseconds that a timer takes.
    fn period(&self, number: usize) -> u64 {
        let count = self.registers[0][usize::from([TIMER1, TIMER2][number])];
        (256 - u64::from(count)) * TIMER_STEPS[number]
    }

    fn run_timers(&mut self, now: u64) {
        for (number, mask) in CONTROL_MASKS.into_iter().enumerate() {
            let Some(due) = self.timers[number].due.filter(|due| *due <= now) else { continue };
            let masked = self.registers[0][usize::from(CONTROL_OR_FOUR)] & mask != 0;
            self.timers[number].over |= !masked;
            let period = self.period(number);
            self.timers[number].due = Some(due + ((now - due) / period + 1) * period);
        }
    }

    fn is_new(&self) -> bool {
        self.registers[1][usize::from(NEW)] & NEW_MODE != 0
    }

    fn register(&self, bank: usize, base: u8, channel: usize) -> u8 {
        self.registers[bank][usize::from(base) + channel]
    }

    /// The rhythm section plays, in the first array.
    fn has_rhythm(&self, bank: usize) -> bool {
        bank == 0 && self.registers[0][usize::from(RHYTHM)] & RHYTHM_ON != 0
    }

    /// This channel and the one three behind are one of four operators.
    fn is_four(&self, bank: usize, channel: usize) -> bool {
        let joined = self.registers[1][usize::from(CONTROL_OR_FOUR)];
        channel < 3 && self.is_new() && joined & 1 << (3 * bank + channel) != 0
    }

    /// The channel whose note a channel plays.
    fn leader(&self, bank: usize, channel: usize) -> usize {
        match channel {
            3..6 if self.is_four(bank, channel - 3) => channel - 3,
            _ => channel,
        }
    }

    fn pitch(&self, bank: usize, channel: usize) -> Pitch {
        let leader = self.leader(bank, channel);
        let block = self.register(bank, KEY_BLOCK, leader);
        let f_number = u16::from(block & 3) << 8 | u16::from(self.register(bank, F_NUMBER_LOW, leader));
        let select = self.registers[0][usize::from(NOTE_SELECT)] & NOTE_SELECT_BIT != 0;
        Pitch::new(f_number, block >> 2 & 7, select)
    }

    fn settings(&self, bank: usize, channel: usize, which: usize) -> Settings {
        let at = slot(channel) + 3 * which;
        let register = |base: usize| self.registers[bank][base + at];
        let waveforms = if self.is_new() { 7 } else { 3 };
        Settings {
            flags: register(0x20),
            level: register(0x40),
            attack_decay: register(0x60),
            sustain_release: register(0x80),
            waveform: register(0xe0) & waveforms,
        }
    }

    /// Presses and releases operators as the registers say.
    fn update_keys(&mut self) {
        let rhythm = self.registers[0][usize::from(RHYTHM)];
        for (number, bank, channel, which) in all() {
            let drums = match (channel, which) {
                (BASS, _) => RHYTHM_BASS,
                (HI_HAT_SNARE, 0) => RHYTHM_HI_HAT,
                (HI_HAT_SNARE, _) => RHYTHM_SNARE,
                (TOM_CYMBAL, 0) => RHYTHM_TOM,
                (TOM_CYMBAL, _) => RHYTHM_CYMBAL,
                _ => 0,
            };
            let key = self.register(bank, KEY_BLOCK, self.leader(bank, channel)) & KEY_ON != 0;
            let pressed = key || self.has_rhythm(bank) && rhythm & drums != 0;
            let (settings, pitch) = (self.settings(bank, channel, which), self.pitch(bank, channel));
            self.operators[number].press(pressed, &settings, pitch);
        }
    }

    /// Something can be heard.
    pub fn sounds(&self) -> bool {
        self.samples != [[0; 2]; 2] || self.operators.iter().any(|operator| operator.stage != Stage::Off)
    }

    /// The next frame, left and right.
    pub fn frame(&mut self) -> [i32; 2] {
        self.between += SAMPLE_RATE;
        while self.between >= FRAME_RATE {
            self.between -= FRAME_RATE;
            self.samples = [self.samples[1], self.sample()];
        }
        let [before, behind] = self.samples;
        core::array::from_fn(|side| {
            let (before, behind) = (i64::from(before[side]), i64::from(behind[side]));
            (before + (behind - before) * i64::from(self.between) / i64::from(FRAME_RATE)) as i32
        })
    }

    /// The chip's next sample.
    fn sample(&mut self) -> [i16; 2] {
        self.clock = self.clock.wrapping_add(1);
        let feedback = (self.noise ^ self.noise >> 14) & 1;
        self.noise = self.noise >> 1 | feedback << (NOISE_BITS - 1);
        let depths = self.registers[0][usize::from(RHYTHM)];
        let tremolo = Tremolo::at(self.clock, depths & RHYTHM_TREMOLO_DEEP != 0);
        let vibrato = Vibrato::at(self.clock, depths & RHYTHM_VIBRATO_DEEP != 0);
        for (number, bank, channel, which) in all() {
            // The phases of hi-hat and cymbal make those of other drums, too.
            let drum = self.has_rhythm(bank) && channel >= HI_HAT_SNARE;
            if self.operators[number].stage != Stage::Off || drum {
                let (settings, pitch) = (self.settings(bank, channel, which), self.pitch(bank, channel));
                self.operators[number].advance(self.clock, &settings, pitch, tremolo, vibrato);
            }
        }
        let mut sums = [0i32; 2];
        for bank in 0..BANKS {
            for channel in 0..CHANNELS {
                let value = match channel {
                    BASS if self.has_rhythm(bank) => 2 * self.bass_drum(),
                    HI_HAT_SNARE if self.has_rhythm(bank) => 2 * self.hi_hat_and_snare(),
                    TOM_CYMBAL if self.has_rhythm(bank) => 2 * self.tom_and_cymbal(),
                    _ if self.is_four(bank, channel) => self.four(bank, channel),
                    _ if self.leader(bank, channel) != channel => continue,
                    _ => self.two(bank, channel),
                };
                let output = self.register(bank, OUTPUT, channel);
                for (sum, side) in sums.iter_mut().zip([OUTPUT_LEFT, OUTPUT_RIGHT]) {
                    *sum += if !self.is_new() || output & side != 0 { value } else { 0 };
                }
            }
        }
        sums.map(crate::sound::saturated)
    }

    /// The output of an operator whose phase is moved by `modulation`, of 1024 to a cycle.
    fn play(&mut self, bank: usize, channel: usize, which: usize, modulation: i32) -> i32 {
        let number = number(bank, channel, which);
        if self.operators[number].stage == Stage::Off {
            return self.operators[number].rest();
        }
        let waveform = self.settings(bank, channel, which).waveform;
        self.operators[number].play(waveform, modulation)
    }

    /// The first operator of a channel, which modulates itself.
    fn first(&mut self, bank: usize, channel: usize) -> i32 {
        let feedback = self.register(bank, OUTPUT, channel) >> 1 & 7;
        let modulation = self.operators[number(bank, channel, 0)].feedback(feedback);
        self.play(bank, channel, 0, modulation)
    }

    fn adds(&self, bank: usize, channel: usize) -> bool {
        self.register(bank, OUTPUT, channel) & OUTPUT_ADDS != 0
    }

    fn two(&mut self, bank: usize, channel: usize) -> i32 {
        let first = self.first(bank, channel);
        if self.adds(bank, channel) {
            first + self.play(bank, channel, 1, 0)
        } else {
            self.play(bank, channel, 1, first)
        }
    }

    /// Four operators in one of four connections.
    fn four(&mut self, bank: usize, channel: usize) -> i32 {
        let (near, far) = (self.adds(bank, channel), self.adds(bank, channel + 3));
        let one = self.first(bank, channel);
        let two = self.play(bank, channel, 1, if near { 0 } else { one });
        let three = self.play(bank, channel + 3, 0, if !near && far { 0 } else { two });
        let four = self.play(bank, channel + 3, 1, if near && far { 0 } else { three });
        match (near, far) {
            (false, false) => four,
            (false, true) => two + four,
            (true, false) => one + four,
            (true, true) => one + three + four,
        }
    }

    fn bass_drum(&mut self) -> i32 {
        let first = self.first(0, BASS);
        let modulation = if self.adds(0, BASS) { 0 } else { first };
        self.play(0, BASS, 1, modulation)
    }

    /// What the phases of hi-hat and cymbal have in common.
    fn metal(&self) -> bool {
        let hi_hat = self.operators[number(0, HI_HAT_SNARE, 0)].position();
        let cymbal = self.operators[number(0, TOM_CYMBAL, 1)].position();
        let bit = |value: u16, at: u32| value >> at & 1 != 0;
        (bit(hi_hat, 2) != bit(hi_hat, 7))
            || (bit(hi_hat, 3) != bit(cymbal, 5))
            || (bit(cymbal, 3) != bit(cymbal, 5))
    }

    fn drum(&mut self, channel: usize, which: usize, position: u16) -> i32 {
        let own = self.operators[number(0, channel, which)].position();
        self.play(0, channel, which, i32::from(position) - i32::from(own))
    }

    fn hi_hat_and_snare(&mut self) -> i32 {
        let (metal, noise) = (self.metal(), self.noise & 1 != 0);
        let high = self.operators[number(0, HI_HAT_SNARE, 0)].position() >> 8 & 1;
        let hi_hat = u16::from(metal) << 9 | if metal != noise { 0xd0 } else { 0x34 };
        let snare = high << 9 | (high ^ u16::from(noise)) << 8;
        self.drum(HI_HAT_SNARE, 0, hi_hat) + self.drum(HI_HAT_SNARE, 1, snare)
    }

    fn tom_and_cymbal(&mut self) -> i32 {
        let cymbal = u16::from(self.metal()) << 9 | 0x80;
        self.play(0, TOM_CYMBAL, 0, 0) + self.drum(TOM_CYMBAL, 1, cymbal)
    }
}

/// An operator's number.
fn number(bank: usize, channel: usize, which: usize) -> usize {
    (bank * CHANNELS + channel) * 2 + which
}

/// Every operator: number, array, channel, and which of the channel's it is.
fn all() -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..OPERATORS).map(|number| (number, number / 2 / CHANNELS, number / 2 % CHANNELS, number % 2))
}

#[cfg(test)]
mod tests;
