//! What the card shows, as pixels.
//!
//! A [`Screen`] keeps a picture and brings it up to date when it is asked to. It knows the [`Generation`]
//! up to which it has looked, so that a picture that did not change costs a comparison of two numbers,
//! and any number of screens may look at one card.
//!
//! Pictures have the dots that the CRT controller makes, as a monitor would get them: a mode of 320
//! pixels has 640 dots a line, one of 200 lines 400. Overscan is left out.

mod graphics;
mod packed;
mod text;

use super::chain::Planes;
use super::registers::{attribute, crtc, graphics as gc, sequencer};
use super::{PLANE_SIZE, Vga};
use core::ops::Range;
use env86_emu::memory::{Generation, Memory};

/// A pixel: red, green, blue, and FFh for opaque.
pub type Pixel = [u8; 4];

const BLACK: Pixel = [0, 0, 0, 0xff];
/// The picture of a card that no mode has been set on.
const NO_MODE: (usize, usize) = (640, 400);
/// Frames for which the cursor is shown, and then is not (IBM VGA Technical Reference, 2-86).
const CURSOR_FRAMES: u64 = 8;
/// Frames for which blinking characters are shown, and then are not.
const BLINK_FRAMES: u64 = 16;

/// A register that is written in the middle of a frame changes the picture of the next one, too. Both are over after this
/// time, in ns, at 50 Hz and above.
const SETTLED_AFTER: u64 = 40_000_000;

/// A picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// All lines from the top, each from the left.
    pub pixels: Vec<Pixel>,
}

impl Frame {
    fn resize(&mut self, (width, height): (usize, usize)) -> bool {
        if (self.width, self.height) == (width, height) {
            return false;
        }
        (self.width, self.height) = (width, height);
        self.pixels.clear();
        self.pixels.resize(width * height, BLACK);
        true
    }

    /// The pixels of a line; none if there is no such line.
    pub fn line(&self, line: usize) -> &[Pixel] {
        let start = line.saturating_mul(self.width);
        self.pixels.get(start..start.saturating_add(self.width)).unwrap_or_default()
    }
}

/// What blinks is shown now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Phase {
    cursor: bool,
    text: bool,
}

/// Somebody who looks at a card.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    frame: Frame,
    seen: Generation,
    phase: Phase,
    /// The start address that the picture has.
    start: u32,
    /// The picture is that of a frame in which registers changed, and will be another when the next one
    /// is over.
    replayed: bool,
    /// A line that is being drawn. It may be longer than the picture is wide, for panning.
    line: Vec<Pixel>,
    /// Time in ns from the guest's last change until the cursor stays shown.
    steady_after: Option<u64>,
    /// Guest time in ns of that change, and of the last update.
    changed_at: u64,
    updated_at: u64,
    /// Something may blink.
    blinks: bool,
}

impl Screen {
    /// A screen whose cursor no longer blinks when the guest has changed nothing for this time, in ns, as terminals do
    /// it: the picture of a guest that sleeps then needs no more work.
    #[must_use]
    pub fn with_steady_cursor(after: u64) -> Self {
        Self { steady_after: Some(after), ..Self::default() }
    }

    /// The picture stays what it was at the last [`Screen::update`] until the guest does something.
    pub fn is_still(&self) -> bool {
        !self.blinks && self.updated_at.saturating_sub(self.changed_at) >= SETTLED_AFTER
    }

    /// The picture as it was at the last [`Screen::update`].
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Draws what has changed by guest time `now` in nanoseconds; gives the lines that differ from
    /// before, or `None` if none does. After a change of the picture's size all lines differ.
    pub fn update(&mut self, vga: &Vga, mem: &mut Memory, now: u64) -> Option<Range<usize>> {
        let changes = vga.changes(mem, &mut self.seen);
        let resized = self.frame.resize(vga.size());
        let raster = vga.frame_before(now).filter(|_| !vga.vbe.active);
        let replayed = std::mem::replace(&mut self.replayed, raster.is_some()) || raster.is_some();
        let start = vga.shown_start(now, raster.is_some());
        let moved = std::mem::replace(&mut self.start, start) != start;
        let all = 0..self.frame.height;
        self.updated_at = now;
        let only_blinked = changes.is_none() && !(resized || moved || replayed);
        if !only_blinked {
            self.changed_at = now;
            self.blinks = !vga.graphics_shown();
        }
        let steady = self.steady_after.is_some_and(|after| now.saturating_sub(self.changed_at) >= after);
        let phase = Phase::at(vga, now, steady);
        let before = std::mem::replace(&mut self.phase, phase);
        let blinked = before != phase && self.blinks;
        let lines = match &changes {
            _ if resized || blinked || moved || replayed => all.clone(),
            Some(changes) if changes.registers || !vga.vbe.active => all.clone(),
            Some(changes) => {
                let first = changes.memory.first()?.start;
                let last = changes.memory.last()?.end;
                vga.vbe.lines(first..last)
            }
            None => return None,
        };
        let mut colors = Colors::of(vga);
        let changed = if vga.vbe.active {
            let memory = mem.region(vga.memory.framebuffer);
            self.draw(lines, |line, out| {
                packed::line(&vga.vbe, memory, &colors, line, out);
                true
            })
        } else if let Some(frame) = raster {
            let planes = vga.planes(mem);
            let mut replay = frame.replay();
            let mut beam = Beam::new(&replay.vga, start);
            colors = Colors::of(&replay.vga);
            self.draw(lines, |line, out| {
                if replay.advance(line as u32) {
                    colors = Colors::of(&replay.vga);
                }
                beam.draw(&replay.vga, planes, &colors, phase, out);
                beam.next_line(&replay.vga);
                true
            })
        } else {
            let planes = vga.planes(mem);
            let mut beam = Beam::new(vga, start);
            self.draw(lines, |_, out| {
                let drawn = !only_blinked || beam.blinks(vga, planes);
                if drawn {
                    beam.draw(vga, planes, &colors, phase, out);
                }
                beam.next_line(vga);
                drawn
            })
        };
        if only_blinked && before.text != phase.text {
            self.blinks = changed.is_some();
        }
        if resized { Some(all) } else { changed }
    }

    /// Draws lines and keeps those that differ; where `draw` gives false, a line stays as it is.
    fn draw(
        &mut self,
        lines: Range<usize>,
        mut draw: impl FnMut(usize, &mut Vec<Pixel>) -> bool,
    ) -> Option<Range<usize>> {
        let mut changed: Option<Range<usize>> = None;
        for line in lines {
            self.line.clear();
            if !draw(line, &mut self.line) {
                continue;
            }
            self.line.resize(self.frame.width, BLACK);
            let old = &mut self.frame.pixels[line * self.frame.width..][..self.frame.width];
            if old != self.line {
                old.copy_from_slice(&self.line);
                changed = Some(changed.map_or(line, |lines| lines.start)..line + 1);
            }
        }
        changed
    }
}

impl Phase {
    /// What is shown at a time, with a cursor that blinks or is steady. Where nothing blinks, it is always the same.
    fn at(vga: &Vga, now: u64, steady: bool) -> Self {
        if vga.graphics_shown() {
            return Self::default();
        }
        let frame = vga.frame_number(now);
        let shown = |frames: u64| (frame / frames).is_multiple_of(2);
        Self { cursor: steady || shown(CURSOR_FRAMES), text: shown(BLINK_FRAMES) }
    }
}

/// Colours as the registers have them.
struct Colors {
    /// Of the attribute controller, by the four bits of a pixel or a character's attribute.
    attribute: [Pixel; 16],
    /// Of the DAC, by the eight bits of a pixel.
    dac: [Pixel; 256],
}

impl Colors {
    fn of(vga: &Vga) -> Self {
        let dac = core::array::from_fn(|index| {
            let [blue, green, red, _] = vga.dac.palette[index & usize::from(vga.dac.mask)].to_le_bytes();
            [red, green, blue, 0xff]
        });
        let registers = &vga.attribute.registers;
        let select = registers[attribute::COLOR_SELECT];
        let mode = registers[attribute::MODE_CONTROL];
        let enabled = usize::from(registers[attribute::COLOR_PLANE_ENABLE] & 0xf);
        let attribute = core::array::from_fn(|index| {
            let internal = registers[index & enabled];
            let (low, middle) = if mode & attribute::MODE_PALETTE_BITS != 0 {
                (internal & 0x0f, select << 4 & 0x30)
            } else {
                (internal & 0x3f, 0)
            };
            dac[usize::from(low | middle | select << 4 & 0xc0)]
        });
        Self { attribute, dac }
    }
}

/// Where the CRT controller is in the memory while it goes down the picture.
struct Beam {
    /// Line of the picture.
    line: u32,
    /// Address of the row's first character.
    row: u32,
    /// Line in the row.
    scan: u32,
    /// The second of two equal lines is next.
    again: bool,
    /// The picture began anew at the line compare.
    split: bool,
}

impl Beam {
    fn new(vga: &Vga, start: u32) -> Self {
        let preset = vga.crtc.registers[crtc::PRESET_ROW_SCAN];
        Self {
            line: 0,
            row: start + u32::from(preset >> 5 & 3),
            scan: (preset & 0x1f).into(),
            again: false,
            split: false,
        }
    }

    fn draw(&self, vga: &Vga, planes: Planes, colors: &Colors, phase: Phase, out: &mut Vec<Pixel>) {
        if !vga.is_lit() || planes.all().len() < 4 * PLANE_SIZE {
            return;
        }
        // One character more, for what panning moves in.
        let columns = vga.columns() as u32 + 1;
        if vga.attribute.graphics() {
            graphics::line(vga, planes, colors, self.row, self.scan, columns, out);
        } else {
            text::line(vga, planes.all(), colors, phase, self.row, self.scan, columns, out);
        }
        let mode = vga.attribute.registers[attribute::MODE_CONTROL];
        let still = self.split && mode & attribute::MODE_PANNING_SPLIT != 0;
        let pan = if still { 0 } else { vga.panning() };
        if vga.sequencer.registers[sequencer::CLOCKING_MODE] & sequencer::CLOCKING_HALF != 0 {
            let dots = out.len();
            out.resize(2 * dots, BLACK);
            (0..2 * dots).rev().for_each(|dot| out[dot] = out[dot / 2]);
            out.drain(..(2 * pan).min(2 * dots));
        } else {
            out.drain(..pan.min(out.len()));
        }
    }

    /// The line has something that blinks.
    fn blinks(&self, vga: &Vga, planes: Planes) -> bool {
        !vga.attribute.graphics()
            && text::blinks(vga, planes.all(), self.row, self.scan, vga.columns() as u32 + 1)
    }

    fn next_line(&mut self, vga: &Vga) {
        let maximum = vga.crtc.registers[crtc::MAXIMUM_SCAN_LINE];
        if self.line == vga.crtc.line_compare() {
            (self.row, self.scan, self.again, self.split) = (0, 0, false, true);
        } else if maximum & crtc::MAXIMUM_DOUBLE != 0 && !self.again {
            self.again = true;
        } else {
            self.again = false;
            self.scan += 1;
            if self.scan > (maximum & 0x1f).into() {
                self.scan = 0;
                self.row += vga.row_pitch();
            }
        }
        self.line += 1;
    }
}

impl Vga {
    /// Dots in a line and lines of the picture.
    fn size(&self) -> (usize, usize) {
        if self.vbe.active {
            return (self.vbe.width.into(), self.vbe.height.into());
        }
        let lines = self.crtc.lines() as usize;
        let half = self.sequencer.registers[sequencer::CLOCKING_MODE] & sequencer::CLOCKING_HALF != 0;
        let width = (self.columns() * self.character_width()) << usize::from(half);
        if width == 0 || lines == 0 { NO_MODE } else { (width, lines) }
    }

    /// Characters in a line.
    fn columns(&self) -> usize {
        self.crtc.columns() as usize
    }

    /// Dots of a character. In graphics there is no ninth.
    fn character_width(&self) -> usize {
        let eight = self.sequencer.registers[sequencer::CLOCKING_MODE] & sequencer::CLOCKING_8_DOTS != 0;
        if eight || self.attribute.graphics() { 8 } else { 9 }
    }

    /// Addresses from row to row.
    fn row_pitch(&self) -> u32 {
        u32::from(self.crtc.registers[crtc::OFFSET]) * 2
    }

    /// Dots by which the attribute controller moves the picture to the left. With nine dots a character
    /// the register counts from 8 on.
    fn panning(&self) -> usize {
        let panning = usize::from(self.attribute.registers[attribute::HORIZONTAL_PANNING]);
        match self.character_width() {
            9 if panning >= 8 => 0,
            9 => panning + 1,
            _ if self.graphics.registers[gc::MODE] & gc::MODE_256_COLORS != 0 => panning & 6,
            _ => panning & 7,
        }
    }

    /// There is a picture: the screen is on, and the palette is not being loaded.
    fn is_lit(&self) -> bool {
        self.sequencer.registers[sequencer::CLOCKING_MODE] & sequencer::CLOCKING_SCREEN_OFF == 0
            && self.attribute.index & attribute::INDEX_PALETTE_SOURCE != 0
    }
}

#[cfg(test)]
mod tests;
