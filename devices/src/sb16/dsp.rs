//! The card's processor: commands by bytes, of which some are followed by arguments.
//!
//! Source: Sound Blaster Series Hardware Programming Guide (Creative, 1996), chapter 6. What the test
//! commands answer is what cards do.

use super::playback::{LEAST_RATE, MOST_RATE, Purpose, Transfer};
use super::{NARROW, Sb16, WIDE};
use crate::dma::Dma;
use crate::sound::FRAME_RATE;
use env86_emu::Memory;
use std::collections::VecDeque;
use tracing::{debug, warn};

/// The version that is told: 4.05.
const VERSION: [u8; 2] = [4, 5];
/// What a reset answers.
const READY: u8 = 0xaa;
const COPYRIGHT: &[u8] = b"COPYRIGHT (C) CREATIVE TECHNOLOGY LTD, 1992.\0";
/// Arguments of a command at most.
pub const ARGUMENTS: usize = 3;
/// The identification by DMA: what its argument's bits add to the value, in turns, and what is added besides.
const IDENTIFY: [([i8; 8], i16); 4] = [
    ([0x01, -0x02, -0x04, 0x08, -0x10, 0x20, 0x40, -0x80], -106),
    ([-0x01, 0x02, -0x04, 0x08, 0x10, -0x20, 0x40, -0x80], 165),
    ([-0x01, 0x02, 0x04, -0x08, 0x10, -0x20, -0x40, -0x80], -151),
    ([0x01, -0x02, 0x04, -0x08, -0x10, 0x20, -0x40, -0x80], 90),
];
const IDENTIFY_START: u8 = 0xaa;

/// Bits of the commands Bxh and Cxh.
const COMMAND_RECORDS: u8 = 0x08;
const COMMAND_AUTO: u8 = 0x04;
/// Bits of the mode that follows them.
const MODE_SIGNED: u8 = 0x10;
const MODE_STEREO: u8 = 0x20;

/// The processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dsp {
    /// The guest holds it in reset.
    pub held: bool,
    /// The command that waits for arguments, if any are missing.
    pub command: u8,
    /// The arguments that have come.
    pub arguments: [u8; ARGUMENTS],
    /// How many those are.
    pub given: u8,
    /// Answers that wait.
    pub answers: VecDeque<u8>,
    /// The last answer that was read.
    pub last: u8,
    /// The speaker is on. It makes no difference to a card of this version.
    pub speaker: bool,
    /// The test register.
    pub test: u8,
    /// Samples in a second, of each side.
    pub rate: u32,
    /// The rate was given for both sides together.
    pub shared_rate: bool,
    /// Samples in a block of the older commands.
    pub block: u32,
    /// The identification's value.
    pub identity: u8,
    /// How often it was asked for.
    pub identified: u8,
    /// The signal processor's registers. There is none.
    pub asp: [u8; 256],
}

impl Default for Dsp {
    fn default() -> Self {
        let mut asp = [0; 256];
        (asp[5], asp[9]) = (0x01, 0xf8);
        Self {
            held: false,
            command: 0,
            arguments: [0; ARGUMENTS],
            given: 0,
            answers: VecDeque::new(),
            last: 0,
            speaker: false,
            test: 0,
            rate: 22_050,
            shared_rate: false,
            block: 1,
            identity: IDENTIFY_START,
            identified: 0,
            asp,
        }
    }
}

impl Dsp {
    /// Answers that wait at most.
    pub const LIMIT: usize = 64;

    /// The next answer; the last one again if there is none.
    pub fn read(&mut self) -> u8 {
        self.last = self.answers.pop_front().unwrap_or(self.last);
        self.last
    }

    fn answer(&mut self, bytes: &[u8]) {
        let room = Self::LIMIT.saturating_sub(self.answers.len());
        self.answers.extend(bytes.iter().take(room));
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.arguments[at], self.arguments[at + 1]])
    }
}

/// How many arguments follow a command.
pub fn arguments(command: u8) -> u8 {
    match command {
        0x04 | 0x08 | 0x0f | 0x10 | 0x38 | 0x40 | 0xe0 | 0xe2 | 0xe4 | 0xf9 => 1,
        0x05 | 0x0e | 0x14..=0x17 | 0x24 | 0x41 | 0x42 | 0x48 | 0x74..=0x77 | 0x80 => 2,
        0xb0..=0xcf => 3,
        _ => 0,
    }
}

impl Sb16 {
    /// A write to the reset port.
    pub(super) fn reset_dsp(&mut self, value: u8) {
        let held = value & 1 != 0;
        if held {
            let kept = std::mem::take(&mut self.dsp);
            self.dsp = Dsp { asp: kept.asp, test: kept.test, held, ..Dsp::default() };
            self.playback.transfer = None;
            self.interrupts = Default::default();
        } else if std::mem::replace(&mut self.dsp.held, false) {
            self.dsp.answer(&[READY]);
        }
    }

    /// A write to the command port.
    pub(super) fn command(&mut self, value: u8, mem: &mut Memory, dma: &mut Dma) {
        let dsp = &mut self.dsp;
        if arguments(dsp.command) > dsp.given && dsp.command != 0 {
            dsp.arguments[usize::from(dsp.given)] = value;
            dsp.given += 1;
        } else {
            (dsp.command, dsp.given) = (value, 0);
        }
        if dsp.given == arguments(dsp.command) {
            let command = dsp.command;
            self.execute(command, mem, dma);
            (self.dsp.command, self.dsp.given) = (0, 0);
        }
    }

    fn execute(&mut self, command: u8, mem: &mut Memory, dma: &mut Dma) {
        let [first, second, _] = self.dsp.arguments;
        match command {
            // The signal processor: its registers are there, and nothing behind them.
            0x04 | 0x05 => {}
            0x08 => self.dsp.answer(&[0]),
            0x0e => self.dsp.asp[usize::from(first)] = second,
            0x0f => self.dsp.answer(&[self.dsp.asp[usize::from(first)]]),
            // A sample, out or in.
            0x10 => self.playback.put([i16::from_le_bytes([0, first ^ 0x80]); 2]),
            0x20 => self.dsp.answer(&[0x80]),
            // The Sound Blaster Pro's streams: one block, or block after block.
            0x14 | 0x15 | 0x91 => self.start_pro(Purpose::Play, false, 1, command == 0x91),
            0x1c | 0x90 => self.start_pro(Purpose::Play, true, 1, true),
            0x24 | 0x99 => self.start_pro(Purpose::Record, false, 1, command == 0x99),
            0x2c | 0x98 => self.start_pro(Purpose::Record, true, 1, true),
            // Compressed ones: of 2, 2.6 and 4 bits.
            0x16 | 0x17 => self.skip(false, 4),
            0x76 | 0x77 => self.skip(false, 3),
            0x74 | 0x75 => self.skip(false, 2),
            0x1f => self.skip(true, 4),
            0x7f => self.skip(true, 3),
            0x7d => self.skip(true, 2),
            0x80 => self.start_pro(Purpose::Silence, false, 1, false),
            0x40 => {
                self.dsp.rate = 1_000_000 / (256 - u32::from(first));
                self.dsp.shared_rate = true;
            }
            0x41 | 0x42 => {
                self.dsp.rate = u32::from(u16::from_be_bytes([first, second])).clamp(LEAST_RATE, MOST_RATE);
                self.dsp.shared_rate = false;
            }
            0x48 => self.dsp.block = u32::from(self.dsp.word(0)) + 1,
            0x45 | 0x47 => self.again(),
            0xb0..=0xcf => self.start(command),
            0xd0 | 0xd5 => self.pause(true),
            0xd4 | 0xd6 => self.pause(false),
            0xd1 | 0xd3 => self.dsp.speaker = command == 0xd1,
            0xd8 => self.dsp.answer(&[if self.dsp.speaker { 0xff } else { 0 }]),
            0xd9 | 0xda => {
                if let Some(transfer) = &mut self.playback.transfer {
                    transfer.auto = false;
                }
            }
            0xe0 => self.dsp.answer(&[!first]),
            0xe1 => self.dsp.answer(&VERSION),
            0xe2 => self.identify(first, mem, dma),
            0xe3 => self.dsp.answer(COPYRIGHT),
            0xe4 => self.dsp.test = first,
            0xe8 => self.dsp.answer(&[self.dsp.test]),
            0xf2 => self.interrupts[NARROW] = true,
            0xf3 => self.interrupts[WIDE] = true,
            0xf8 => self.dsp.answer(&[0]),
            // The processor's own memory: what drivers look at says that all is well.
            0xf9 => self.dsp.answer(&[match first {
                0x0e => 0xff,
                0x0f => 0x07,
                0x37 => 0x38,
                _ => 0,
            }]),
            0xfa..=0xfd => self.dsp.answer(&[0]),
            // MIDI, of which nothing comes.
            0x30..=0x38 => debug!(target: "sb16", command, "there is no MIDI instrument"),
            _ => debug!(target: "sb16", command, "the DSP does not know this"),
        }
    }

    /// Starts a stream of the Sound Blaster Pro's commands. With a block of its own where it is not one of
    /// many.
    fn start_pro(&mut self, purpose: Purpose, auto: bool, part: u32, block: bool) {
        let stereo = self.mixer.pro_stereo() && purpose != Purpose::Silence;
        let sides = if self.dsp.shared_rate && stereo { 2 } else { 1 };
        let length = if block { self.dsp.block } else { u32::from(self.dsp.word(0)) + 1 };
        let rate = self.dsp.rate / sides / part;
        self.playback.start(Transfer { purpose, stereo, auto, length, rate, ..Transfer::default() });
    }

    /// Fetches compressed samples, of which a byte has some, and does not play them: the guest goes on.
    fn skip(&mut self, auto: bool, samples: u32) {
        warn!(target: "sb16", "the guest plays ADPCM samples, which stay silent here");
        self.start_pro(Purpose::Skip, auto, samples, auto);
    }

    /// Starts a stream of the commands Bxh (16 bits) and Cxh (8 bits).
    fn start(&mut self, command: u8) {
        let mode = self.dsp.arguments[0];
        let length = u32::from(self.dsp.word(1)) + 1;
        let stereo = mode & MODE_STEREO != 0;
        let sides = if self.dsp.shared_rate && stereo { 2 } else { 1 };
        let transfer = Transfer {
            purpose: if command & COMMAND_RECORDS != 0 { Purpose::Record } else { Purpose::Play },
            wide: command < 0xc0,
            signed: mode & MODE_SIGNED != 0,
            stereo,
            auto: command & COMMAND_AUTO != 0,
            length,
            rate: (self.dsp.rate / sides).min(FRAME_RATE),
            ..Transfer::default()
        };
        debug!(target: "sb16", ?transfer);
        self.playback.start(transfer);
    }

    /// A stream that was to end with its block goes on behind it.
    fn again(&mut self) {
        if let Some(transfer) = &mut self.playback.transfer {
            transfer.auto = true;
        }
    }

    fn pause(&mut self, paused: bool) {
        if let Some(transfer) = &mut self.playback.transfer {
            transfer.paused = paused;
        }
    }

    /// Writes a number to memory by which drivers know the card.
    fn identify(&mut self, argument: u8, mem: &mut Memory, dma: &mut Dma) {
        let (bits, besides) = IDENTIFY[usize::from(self.dsp.identified & 3)];
        let chosen = bits.into_iter().enumerate().filter(|(bit, _)| argument & 1 << bit != 0);
        let sum = chosen.fold(besides, |sum, (_, value)| sum + i16::from(value));
        self.dsp.identity = self.dsp.identity.wrapping_add(sum as u8);
        self.dsp.identified = self.dsp.identified.wrapping_add(1);
        if let Some(channel) = self.mixer.dma_channel(false) {
            dma.transfer_to_memory(channel.into(), mem, &[self.dsp.identity]);
        }
    }
}
