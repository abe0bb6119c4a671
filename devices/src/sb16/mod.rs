//! A Sound Blaster 16: a DSP of version 4.05 with its converters, a CT1745 mixer, an OPL3 and an MPU-401.
//!
//! Sources: Sound Blaster Series Hardware Programming Guide (Creative, 1996); for the synthesizer see
//! [`crate::opl`].

mod dsp;
mod midi;
mod mixer;
mod playback;

pub use dsp::{ARGUMENTS, Dsp, arguments};
pub use midi::Midi;
pub use mixer::Mixer;
pub use playback::{Playback, Purpose, Transfer};

use crate::dma::Dma;
use crate::opl::Opl;
use crate::sound::{self, Track, frame_at, time_of_frame};
use env86_emu::Memory;

/// The first of the card's ports.
pub const PORT_BASE: u16 = 0x220;
/// How many it has there.
pub const PORT_COUNT: u16 = 16;
/// The first port of the MPU-401, which has two.
pub const PORT_MIDI: u16 = 0x330;
/// The first port of the synthesizer where an AdLib has it.
pub const PORT_OPL: u16 = 0x388;
/// How many it has there.
pub const PORT_OPL_COUNT: u16 = 4;

// Ports of the card, from its first.
const MIXER_INDEX: u16 = 0x4;
const MIXER_DATA: u16 = 0x5;
const RESET: u16 = 0x6;
/// The synthesizer's first array once more.
const OPL2: u16 = 0x8;
const OPL2_DATA: u16 = 0x9;
const READ: u16 = 0xa;
const COMMAND: u16 = 0xc;
/// Whether there is something to read; reading it acknowledges the interrupt of 8-bit samples.
const READ_STATUS: u16 = 0xe;
/// Reading this acknowledges the interrupt of 16-bit samples.
const ACKNOWLEDGE_WIDE: u16 = 0xf;

/// Command port: the DSP is busy; status port: there is something to read. The other bits read 1.
const STATUS_BIT: u8 = 0x80;
const STATUS_REST: u8 = 0x7f;

/// Interrupts of 8-bit samples and of MIDI.
const NARROW: usize = 0;
/// Interrupts of 16-bit samples.
const WIDE: usize = 1;
/// Sources of interrupts.
pub const INTERRUPTS: usize = 2;

/// The card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sb16 {
    /// Its processor.
    pub dsp: Dsp,
    /// Its converters.
    pub playback: Playback,
    /// Its mixer.
    pub mixer: Mixer,
    /// Its synthesizer.
    pub opl: Opl,
    /// Its MIDI interface.
    pub midi: Midi,
    /// Interrupts that wait to be acknowledged: of 8-bit samples, of 16-bit samples.
    pub interrupts: [bool; INTERRUPTS],
    /// Frames that have been played.
    pub(crate) played: u64,
    /// The line that was left high by the choice of another one.
    pub(crate) left_line: Option<u8>,
    pub(crate) track: Track,
}

/// A transfer's way to memory: the DMA channel that the mixer has chosen.
struct Wire<'a> {
    mem: &'a mut Memory,
    dma: &'a mut Dma,
    /// The channels of 8-bit and of 16-bit samples.
    channels: [Option<u8>; 2],
}

impl playback::Channel for Wire<'_> {
    fn fetch(&mut self, wide: bool, bytes: &mut [u8]) -> bool {
        let channel = self.channels[usize::from(wide)];
        channel
            .is_some_and(|channel| self.dma.transfer_from_memory(channel.into(), self.mem, bytes).bytes > 0)
    }

    fn store(&mut self, wide: bool, bytes: &[u8]) -> bool {
        let channel = self.channels[usize::from(wide)];
        channel.is_some_and(|channel| self.dma.transfer_to_memory(channel.into(), self.mem, bytes).bytes > 0)
    }
}

impl Sb16 {
    /// A reset of the machine.
    pub fn reset(&mut self) {
        *self = Self { played: self.played, ..Self::default() };
    }

    /// It can be heard, or a stream runs.
    pub fn sounds(&self) -> bool {
        self.playback.is_active() || self.opl.sounds()
    }

    /// When it must play next, if it can be heard; at the next interrupt at the latest.
    pub fn next_event(&self) -> Option<u64> {
        let interrupt = self.playback.frames_to_interrupt().map(|frames| time_of_frame(self.played + frames));
        let piece = self.sounds().then(|| sound::next_piece(self.played));
        interrupt.into_iter().chain(piece).min()
    }

    /// Plays up to a time.
    pub fn run(&mut self, mem: &mut Memory, dma: &mut Dma, now: u64) {
        let end = frame_at(now);
        if self.played >= end {
            return;
        }
        self.played = sound::resume_at(self.played, end);
        let channels = [false, true].map(|wide| self.mixer.dma_channel(wide));
        let (voice_gain, fm_gain) = (self.mixer.voice(), self.mixer.fm());
        let mut wire = Wire { mem, dma, channels };
        while self.played < end {
            let synthesizes = self.opl.sounds();
            if !synthesizes && !self.playback.is_active() {
                break;
            }
            let (voice, ended) = self.playback.frame(&mut wire);
            if let Some(wide) = ended {
                self.interrupts[usize::from(wide)] = true;
            }
            let fm = if synthesizes { self.opl.frame() } else { [0; 2] };
            let (voice, fm) = (mixer::amplified(voice, voice_gain), mixer::amplified(fm, fm_gain));
            self.track.push(self.played, [voice[0] + fm[0], voice[1] + fm[1]]);
            self.played += 1;
        }
        self.played = end;
    }

    /// After this was put into a state of its own, at a time: goes on from there.
    pub fn resume(&mut self, now: u64) {
        (self.played, self.track) = (frame_at(now), Track::default());
    }

    /// What it has played.
    pub fn track(&mut self) -> &mut Track {
        &mut self.track
    }

    /// The interrupt line, if one is chosen, and its level; and a line to let go of.
    pub fn irq(&mut self) -> (Option<(u8, bool)>, Option<u8>) {
        let level = self.interrupts.contains(&true);
        (self.mixer.irq().map(|irq| (irq, level)), self.left_line.take())
    }

    fn pending(&self) -> u8 {
        self.interrupts.iter().rev().fold(0, |bits, pending| bits << 1 | u8::from(*pending))
    }

    /// Reads a port of the card, of the MPU-401 or of the synthesizer.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        match port {
            PORT_MIDI => return self.midi.read(),
            0x331 => return self.midi.status(),
            PORT_OPL | 0x38a => return self.opl.status(now),
            _ => {}
        }
        match port.wrapping_sub(PORT_BASE) {
            0 | 2 | OPL2 => self.opl.status(now),
            MIXER_INDEX => self.mixer.index,
            MIXER_DATA => self.mixer.read(self.pending()),
            READ => self.dsp.read(),
            COMMAND => STATUS_REST,
            READ_STATUS => {
                self.interrupts[NARROW] = false;
                if self.dsp.answers.is_empty() { STATUS_REST } else { STATUS_BIT | STATUS_REST }
            }
            ACKNOWLEDGE_WIDE => {
                self.interrupts[WIDE] = false;
                0xff
            }
            _ => 0xff,
        }
    }

    /// Writes a port of the card, of the MPU-401 or of the synthesizer.
    pub fn write(&mut self, port: u16, value: u8, mem: &mut Memory, dma: &mut Dma, now: u64) {
        match port {
            PORT_MIDI => return tracing::trace!(target: "sb16", value, "MIDI"),
            0x331 => return self.midi.command(value),
            PORT_OPL..=0x38b => return self.write_opl(port - PORT_OPL, value, now),
            _ => {}
        }
        match port.wrapping_sub(PORT_BASE) {
            offset @ 0..4 => self.write_opl(offset, value, now),
            OPL2 => self.write_opl(0, value, now),
            OPL2_DATA => self.write_opl(1, value, now),
            MIXER_INDEX => self.mixer.index = value,
            MIXER_DATA => {
                let before = self.mixer.irq();
                self.mixer.write(value);
                if self.mixer.irq() != before {
                    self.left_line = before;
                }
            }
            RESET => self.reset_dsp(value),
            COMMAND => self.command(value, mem, dma),
            _ => {}
        }
    }

    /// Ports of the synthesizer: choose a register of an array, write it; the same for the second array.
    fn write_opl(&mut self, offset: u16, value: u8, now: u64) {
        match offset {
            0 => self.opl.select(0, value),
            2 => self.opl.select(1, value),
            _ => self.opl.write(value, now),
        }
    }
}

#[cfg(test)]
mod tests;
