//! Registers that a guest changes while the beam is in the picture: bars of colour, split screens that
//! wave, more colours than the palette has.
//!
//! The card notes such changes with the line that the beam was in. A screen that is drawn while the next
//! frame is shown takes them at their lines. The cursor is not noted: it has no more than one place. The start
//! address counts as it was when the vertical retrace before the picture began, which is when the CRT controller
//! takes it over. In VBE modes, which have no lines of the CRT controller's, registers count as they are.

use super::registers::{attribute, crtc, graphics, sequencer};
use super::{
    ATTRIBUTE_WRITE, CRTC_DATA, DAC_DATA, DAC_MASK, GRAPHICS_DATA, MONO_CRTC_DATA, SEQUENCER_DATA, Vga,
};

/// Changes in a frame that are noted at most. A guest that makes more is not after lines.
const MOST: usize = 16 << 10;

/// A register that the picture depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Crtc(u8),
    Sequencer(u8),
    Graphics(u8),
    Attribute(u8),
    /// The attribute controller's index, with the palette source.
    AttributeIndex,
    Color(u8),
    DacMask,
}

/// What became of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    /// The first line that shows it.
    line: u32,
    register: Register,
    value: u32,
}

/// A frame in which registers changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The card as it was when the first of them did.
    start: Box<Vga>,
    changes: Vec<Change>,
}

/// Changes of the present frame and of the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Raster {
    number: u64,
    /// Duration of the frames in picoseconds that the number counts.
    frame_ps: u64,
    present: Option<Frame>,
    before: Option<Frame>,
    /// The last start addresses, and until when in nanoseconds they have been shown; the latest first. Times, because
    /// frames have other numbers when a mode is set.
    starts: [Option<(u64, u32)>; 2],
}

impl Raster {
    /// The frame before the one with this number, if registers changed in it.
    pub fn before(&self, number: u64, frame_ps: u64) -> Option<&Frame> {
        if frame_ps != self.frame_ps {
            return None;
        }
        match number.checked_sub(self.number)? {
            0 => self.before.as_ref(),
            1 => self.present.as_ref(),
            _ => None,
        }
    }

    fn note(&mut self, number: u64, frame_ps: u64, change: Change, start: impl FnOnce() -> Vga) {
        if (number, frame_ps) != (self.number, self.frame_ps) {
            let follows = (number.checked_sub(1), frame_ps) == (Some(self.number), self.frame_ps);
            self.before = self.present.take().filter(|_| follows);
            (self.number, self.frame_ps) = (number, frame_ps);
        }
        let frame =
            self.present.get_or_insert_with(|| Frame { start: Box::new(start()), changes: Vec::new() });
        if frame.changes.len() < MOST {
            frame.changes.push(change);
        }
    }
}

impl Frame {
    /// The card at the first line, and the changes that come.
    pub fn replay(&self) -> Replay<'_> {
        Replay { vga: (*self.start).clone(), changes: &self.changes }
    }
}

/// A frame that is drawn again.
pub(super) struct Replay<'f> {
    pub vga: Vga,
    changes: &'f [Change],
}

impl Replay<'_> {
    /// Makes the changes that `line` shows; says whether there was one.
    pub fn advance(&mut self, line: u32) -> bool {
        let due = self.changes.iter().take_while(|change| change.line <= line).count();
        let (now, later) = self.changes.split_at(due);
        now.iter().for_each(|change| change.register.set(&mut self.vga, change.value));
        self.changes = later;
        due > 0
    }
}

impl Register {
    /// The register that a write of a port is about to change.
    pub fn of(vga: &Vga, port: u16) -> Option<Self> {
        let Vga { crtc, sequencer, graphics, attribute, dac, .. } = vga;
        Some(match port {
            CRTC_DATA | MONO_CRTC_DATA => match usize::from(crtc.index) {
                crtc::START_ADDRESS_HIGH..=crtc::CURSOR_LOCATION_LOW | crtc::COUNT.. => return None,
                _ => Self::Crtc(crtc.index),
            },
            SEQUENCER_DATA => match usize::from(sequencer.index) {
                sequencer::CLOCKING_MODE | sequencer::CHARACTER_MAP_SELECT => {
                    Self::Sequencer(sequencer.index)
                }
                _ => return None,
            },
            GRAPHICS_DATA if usize::from(graphics.index) == graphics::MODE => Self::Graphics(graphics.index),
            ATTRIBUTE_WRITE if !attribute.data_next => Self::AttributeIndex,
            ATTRIBUTE_WRITE => match attribute.index & attribute::INDEX {
                index if usize::from(index) < attribute::COUNT => Self::Attribute(index),
                _ => return None,
            },
            DAC_DATA => Self::Color((dac.write_position / 3) as u8),
            DAC_MASK => Self::DacMask,
            _ => return None,
        })
    }

    pub fn value(self, vga: &Vga) -> u32 {
        let byte = match self {
            Self::Crtc(index) => vga.crtc.registers[usize::from(index)],
            Self::Sequencer(index) => vga.sequencer.registers[usize::from(index)],
            Self::Graphics(index) => vga.graphics.registers[usize::from(index)],
            Self::Attribute(index) => vga.attribute.registers[usize::from(index)],
            Self::AttributeIndex => vga.attribute.index & attribute::INDEX_PALETTE_SOURCE,
            Self::Color(index) => return vga.dac.palette[usize::from(index)],
            Self::DacMask => vga.dac.mask,
        };
        byte.into()
    }

    fn set(self, vga: &mut Vga, value: u32) {
        let byte = value as u8;
        match self {
            Self::Crtc(index) => vga.crtc.registers[usize::from(index)] = byte,
            Self::Sequencer(index) => vga.sequencer.registers[usize::from(index)] = byte,
            Self::Graphics(index) => vga.graphics.registers[usize::from(index)] = byte,
            Self::Attribute(index) => vga.attribute.registers[usize::from(index)] = byte,
            Self::AttributeIndex => vga.attribute.index = byte,
            Self::Color(index) => vga.dac.palette[usize::from(index)] = value,
            Self::DacMask => vga.dac.mask = byte,
        }
    }
}

impl Vga {
    /// The number of the frame that is shown at a time.
    pub(super) fn frame_number(&self, now: u64) -> u64 {
        (u128::from(now) * 1000 / u128::from(self.timing().frame_ps())) as u64
    }

    /// The frame before the one that is shown at a time, if registers changed in it.
    pub(super) fn frame_before(&self, now: u64) -> Option<&Frame> {
        self.raster.before(self.frame_number(now), self.timing().frame_ps())
    }

    /// Notes that the start address has changed from `old`.
    pub(super) fn note_start(&mut self, old: u32, now: u64) {
        let until = self.timing().next_retrace(now);
        let [last, _] = self.raster.starts;
        // What it was at the picture's beginning counts, however often it changes.
        if last.is_none_or(|(noted, _)| noted != until) {
            self.raster.starts = [Some((until, old)), last];
        }
    }

    /// The start address of the picture that is shown at a time, or of the one before, which is `replayed`.
    pub(super) fn shown_start(&self, now: u64, replayed: bool) -> u32 {
        if self.raster.starts == [None; 2] {
            return self.crtc.start_address();
        }
        let frame = self.timing().frame_ps() / 1000;
        let now = if replayed { now.saturating_sub(frame) } else { now };
        let noted = self.raster.starts.iter().flatten().take_while(|(until, _)| now < *until).last();
        noted.map_or_else(|| self.crtc.start_address(), |(_, start)| *start)
    }

    /// Notes that a register has changed from `old`, if the beam is in the picture.
    pub(super) fn note_raster(&mut self, register: Register, old: u32, now: u64) {
        let timing = self.timing();
        let (line, column) = timing.beam(now);
        if self.vbe.active || line >= timing.shown_lines {
            return;
        }
        let line = line + u32::from(column >= timing.shown_columns);
        let change = Change { line, register, value: register.value(self) };
        let number = self.frame_number(now);
        let mut raster = std::mem::take(&mut self.raster);
        raster.note(number, timing.frame_ps(), change, || {
            let mut start = self.clone();
            register.set(&mut start, old);
            start
        });
        self.raster = raster;
    }
}
