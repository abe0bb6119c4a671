//! The VGA with the Bochs VBE extensions: registers, 256 KiB of planes, a linear framebuffer.
//!
//! Both memories are regions of the machine's [`Memory`]. The framebuffer is mapped at its base
//! address register; the window at A0000h is mapped to what it shows where each byte of it is one byte
//! of a memory, and else every access goes through the registers. A mapped access costs what one to
//! RAM costs.
//!
//! Sources: IBM VGA Technical Reference (1992), Bochs' dispi interface. The card answers at the
//! monochrome and the colour addresses alike, as v86's does.

mod chain;
mod memory;
mod raster;
pub mod registers;
pub mod render;
mod text;
mod vbe;

use crate::pci::{COMMAND_IO, COMMAND_MEMORY, ConfigSpace, Function, devfn};
use core::ops::Range;
use env86_emu::Width;
use env86_emu::memory::{Generation, Memory, Placement, Region, Window};
use raster::{Raster, Register};
use registers::{Attribute, Crtc, Dac, GRAPHICS_MASKS, Indexed, SEQUENCER_MASKS, crtc, graphics, sequencer};
pub use render::{Frame, Screen};
pub use text::{Cell, Cursor, TextScreen, cp437};
pub use vbe::Vbe;

/// Physical address of the window that the processor reaches the planes through.
pub const WINDOW: u32 = 0xa_0000;
/// Bytes of the window.
pub const WINDOW_SIZE: u32 = 0x2_0000;
/// Physical address of the linear framebuffer after power-on.
pub const FRAMEBUFFER: u32 = 0xe000_0000;
/// The base address register of the linear framebuffer.
pub const FRAMEBUFFER_BAR: usize = 0;
/// Where the card is on the PCI bus.
pub const DEVFN: u8 = devfn(0x12, 0);
/// Physical address of the video BIOS ROM, where the board has one.
pub const ROM: u32 = 0xfeb0_0000;
/// Bytes of the ROM's place.
pub const ROM_SIZE: u32 = 0x1_0000;
/// Bytes of a plane.
pub const PLANE_SIZE: usize = 0x1_0000;
/// The least memory a framebuffer has.
pub const MIN_MEMORY: u32 = 256 << 10;
/// The most, so that it ends below the other memory-mapped devices.
pub const MAX_MEMORY: u32 = 256 << 20;

/// First and last of the VGA's ports at the monochrome addresses.
pub const MONO_PORTS: core::ops::RangeInclusive<u16> = 0x3b4..=0x3ba;
/// First and last of the VGA's ports.
pub const PORTS: core::ops::RangeInclusive<u16> = 0x3c0..=0x3df;
/// The dispi index port, 16 bits wide.
pub const VBE_INDEX: u16 = 0x1ce;
/// The dispi data port, 16 bits wide.
pub const VBE_DATA: u16 = 0x1cf;

const ATTRIBUTE_WRITE: u16 = 0x3c0;
const ATTRIBUTE_READ: u16 = 0x3c1;
/// Miscellaneous output when written, input status 0 when read.
const MISCELLANEOUS_WRITE: u16 = 0x3c2;
const ENABLE: u16 = 0x3c3;
const SEQUENCER_INDEX: u16 = 0x3c4;
const SEQUENCER_DATA: u16 = 0x3c5;
const DAC_MASK: u16 = 0x3c6;
/// Read index when written, state when read.
const DAC_READ_INDEX: u16 = 0x3c7;
const DAC_WRITE_INDEX: u16 = 0x3c8;
const DAC_DATA: u16 = 0x3c9;
const FEATURE_READ: u16 = 0x3ca;
const MISCELLANEOUS_READ: u16 = 0x3cc;
const GRAPHICS_INDEX: u16 = 0x3ce;
const GRAPHICS_DATA: u16 = 0x3cf;
const CRTC_INDEX: u16 = 0x3d4;
const CRTC_DATA: u16 = 0x3d5;
/// Input status 1 when read, feature control when written.
const INPUT_STATUS_1: u16 = 0x3da;
const MONO_CRTC_INDEX: u16 = 0x3b4;
const MONO_CRTC_DATA: u16 = 0x3b5;
const MONO_INPUT_STATUS_1: u16 = 0x3ba;

/// Input status 0: the monitor's sense line.
const SENSE: u8 = 1 << 4;
/// Input status 1: the beam is outside the picture.
const DISPLAY_DISABLED: u8 = 1 << 0;
/// Input status 1: vertical retrace.
const VERTICAL_RETRACE: u8 = 1 << 3;
/// Duration of a dot in picoseconds at 25.175 MHz and at 28.322 MHz.
const DOT_PS: [u64; 2] = [39_722, 35_308];
/// Fewer lines than this are no picture: the registers are not set up.
const LEAST_LINES: u32 = 100;

/// The card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vga {
    /// CRT controller.
    pub crtc: Crtc,
    /// Sequencer.
    pub sequencer: Indexed<{ sequencer::COUNT }>,
    /// Graphics controller.
    pub graphics: Indexed<{ graphics::COUNT }>,
    /// Attribute controller.
    pub attribute: Attribute,
    /// Palette DAC.
    pub dac: Dac,
    /// Miscellaneous output.
    pub miscellaneous: u8,
    /// Feature control.
    pub feature: u8,
    /// VGA enable: a bit that is remembered.
    pub enable: u8,
    /// The four latches, plane 0 in the low byte.
    pub latch: u32,
    /// The Bochs VBE extensions.
    pub vbe: Vbe,
    /// The card's memory.
    pub memory: VideoMemory,
    /// Chained bytes are in their own region.
    chained: bool,
    /// When a register that the picture depends on was changed last.
    pub changed: Generation,
    /// What was changed while the beam was in the picture.
    raster: Raster,
}

/// What the card has of the machine's memory. The default is none: a card that is on no board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VideoMemory {
    /// The four planes, one after the other; see the storage notes in this folder.
    pub planes: Region,
    /// Bytes of the planes, side by side.
    chained: Region,
    /// The linear framebuffer.
    pub framebuffer: Region,
    /// Where the framebuffer is.
    bar: Window,
    /// What the processor sees of a memory at [`WINDOW`].
    window: Window,
}

impl VideoMemory {
    fn new(mem: &mut Memory, size: u32) -> Self {
        Self {
            planes: mem.add_region(4 * PLANE_SIZE as u32),
            chained: mem.add_region(PLANE_SIZE as u32),
            framebuffer: mem.add_region(size),
            bar: mem.add_window(),
            window: mem.add_window(),
        }
    }
}

/// What a screen has to draw anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// A register changed that the picture depends on.
    pub registers: bool,
    /// Parts of the memory that is shown (the framebuffer in a VBE mode, else the planes) that were
    /// written, by offset, in whole pages, the lowest first.
    pub memory: Vec<Range<u32>>,
}

impl Vga {
    /// A card after power-on with `size` bytes of framebuffer, brought into
    /// [`MIN_MEMORY`]`..=`[`MAX_MEMORY`] and up to a power of two, in the machine's memory.
    pub fn new(mem: &mut Memory, size: u32) -> Self {
        let size = size.clamp(MIN_MEMORY, MAX_MEMORY).next_power_of_two();
        Self { memory: VideoMemory::new(mem, size), ..Self::default() }
    }

    /// What a reset does: registers as after power-on; the memory keeps its contents.
    pub fn reset(&mut self, mem: &mut Memory) {
        let (memory, chained) = (self.memory, self.chained);
        *self = Self { memory, chained, changed: mem.note_change(), ..Self::default() };
        self.map_window(mem);
    }

    /// Takes over the registers of a saved state, whose memory is in the planes and the framebuffer
    /// already. The windows are to be mapped anew.
    pub(crate) fn resume(&mut self, mem: &mut Memory, saved: Self) {
        *self = Self {
            memory: self.memory,
            chained: false,
            changed: mem.note_change(),
            raster: Raster::default(),
            ..saved
        };
    }

    /// Maps the framebuffer at the address in its base address register, if that decodes.
    pub fn map_framebuffer(&self, mem: &mut Memory, address: Option<u32>) {
        let region = self.memory.framebuffer;
        let placement = |address| Placement { address, len: region.size(), region, offset: 0 };
        mem.place(self.memory.bar, address.map(placement));
    }

    /// Maps the window to what it shows, or not at all if the registers have a say in its accesses. To
    /// be called when they were changed.
    pub fn map_window(&mut self, mem: &mut Memory) {
        self.arrange(mem);
        mem.place(self.memory.window, self.linear_window());
    }

    /// What changed of the picture since generation `seen`, which becomes the present one; `None` if
    /// nothing did. The card does not remember who asks: any number of screens may, each with its own
    /// generation. The default generation is before all changes.
    pub fn changes(&self, mem: &mut Memory, seen: &mut Generation) -> Option<Changes> {
        let now = mem.end_generation();
        let since = std::mem::replace(seen, now);
        if now == since {
            return None;
        }
        let (region, part) = if self.vbe.active {
            (self.memory.framebuffer, self.vbe.shown())
        } else if self.chained {
            (self.memory.chained, 0..self.memory.chained.size())
        } else {
            (self.memory.planes, 0..self.memory.planes.size())
        };
        let memory = mem.changes(region, part, since).collect();
        let changes = Changes { registers: self.changed >= since, memory };
        (changes.registers || !changes.memory.is_empty()).then_some(changes)
    }
}

impl Default for Vga {
    /// A card after power-on that is on no board: it has no memory.
    fn default() -> Self {
        let mut crtc = Crtc::new([0; crtc::COUNT]);
        crtc.registers[crtc::CURSOR_START] = 14;
        crtc.registers[crtc::CURSOR_END] = 15;
        let mut sequencer = Indexed::new([0; sequencer::COUNT]);
        sequencer.registers[sequencer::MAP_MASK] = 0x0f;
        let mut graphics = Indexed::new([0; graphics::COUNT]);
        graphics.registers[graphics::BIT_MASK] = 0xff;
        Self {
            crtc,
            sequencer,
            graphics,
            attribute: Attribute::default(),
            dac: Dac::default(),
            miscellaneous: 0xff,
            feature: 0,
            enable: 1,
            latch: 0,
            vbe: Vbe::default(),
            memory: VideoMemory::default(),
            chained: false,
            changed: Generation::default(),
            raster: Raster::default(),
        }
    }
}

impl Vga {
    /// Graphics are shown, by VBE or by the VGA itself.
    pub fn graphics_shown(&self) -> bool {
        self.vbe.active || self.attribute.graphics()
    }

    /// Reads a port of [`PORTS`] or [`MONO_PORTS`].
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        match port {
            ATTRIBUTE_WRITE => self.attribute.index,
            ATTRIBUTE_READ => self.attribute.read(),
            MISCELLANEOUS_WRITE => SENSE,
            ENABLE => self.enable,
            SEQUENCER_INDEX => self.sequencer.index,
            SEQUENCER_DATA => self.sequencer.read(),
            DAC_MASK => self.dac.mask,
            DAC_READ_INDEX => self.dac.state,
            DAC_WRITE_INDEX => self.dac.write_index(),
            DAC_DATA => self.dac.read(self.vbe.wide_dac()),
            FEATURE_READ => self.feature,
            MISCELLANEOUS_READ => self.miscellaneous,
            GRAPHICS_INDEX => self.graphics.index,
            GRAPHICS_DATA => self.graphics.read(),
            CRTC_INDEX | MONO_CRTC_INDEX => self.crtc.index,
            CRTC_DATA | MONO_CRTC_DATA => self.crtc.read(),
            INPUT_STATUS_1 | MONO_INPUT_STATUS_1 => {
                self.attribute.data_next = false;
                self.input_status_1(now)
            }
            _ => 0xff,
        }
    }

    /// Writes a port of [`PORTS`] or [`MONO_PORTS`] at guest time `now` in nanoseconds.
    pub fn write(&mut self, mem: &mut Memory, port: u16, value: u8, now: u64) {
        let before = self.shown_registers();
        let register = Register::of(self, port).map(|register| (register, register.value(self)));
        let start = self.crtc.start_address();
        match port {
            ATTRIBUTE_WRITE => self.attribute.write(value),
            MISCELLANEOUS_WRITE => self.miscellaneous = value,
            ENABLE => self.enable = value & 1,
            SEQUENCER_INDEX => self.sequencer.index = value,
            SEQUENCER_DATA => self.sequencer.write(value, &SEQUENCER_MASKS),
            DAC_MASK => self.dac.mask = value,
            DAC_READ_INDEX => self.dac.set_read_index(value),
            DAC_WRITE_INDEX => self.dac.set_write_index(value),
            DAC_DATA => self.dac.write(value, self.vbe.wide_dac()),
            GRAPHICS_INDEX => self.graphics.index = value,
            GRAPHICS_DATA => self.graphics.write(value, &GRAPHICS_MASKS),
            CRTC_INDEX | MONO_CRTC_INDEX => self.crtc.index = value,
            CRTC_DATA | MONO_CRTC_DATA => self.crtc.write_protected(value),
            INPUT_STATUS_1 | MONO_INPUT_STATUS_1 => self.feature = value,
            _ => {}
        }
        let register = register.filter(|(register, old)| register.value(self) != *old);
        if register.is_some() || self.shown_registers() != before {
            self.changed = mem.note_change();
        }
        if let Some((register, old)) = register {
            self.note_raster(register, old, now);
        }
        if self.crtc.start_address() != start {
            self.note_start(start, now);
        }
        self.map_window(mem);
    }

    /// The registers that the picture depends on, without the palette.
    fn shown_registers(&self) -> impl PartialEq + use<> {
        let sequencer = self.sequencer.registers;
        let graphics =
            [self.graphics.registers[graphics::MODE], self.graphics.registers[graphics::MISCELLANEOUS]];
        let clocking = [sequencer[sequencer::CLOCKING_MODE], sequencer[sequencer::CHARACTER_MAP_SELECT]];
        let memory_mode = sequencer[sequencer::MEMORY_MODE];
        let palette_source = self.attribute.index & registers::attribute::INDEX_PALETTE_SOURCE;
        let shown = (self.crtc.registers, self.attribute.registers, palette_source);
        (shown, graphics, clocking, memory_mode, self.dac.mask, self.miscellaneous)
    }

    /// Reads [`VBE_INDEX`] or [`VBE_DATA`].
    pub fn read_vbe(&self, port: u16) -> u16 {
        if port == VBE_INDEX { self.vbe.index } else { self.vbe.read(self.memory.framebuffer.size()) }
    }

    /// Writes [`VBE_INDEX`] or [`VBE_DATA`].
    pub fn write_vbe_port(&mut self, mem: &mut Memory, port: u16, value: u16) {
        if port == VBE_INDEX {
            self.vbe.index = value;
        } else {
            self.write_vbe(mem, value);
            self.map_window(mem);
        }
    }

    /// Reads the window at [`WINDOW`], by offset.
    pub fn read_window(&mut self, mem: &Memory, offset: u32, width: Width) -> u32 {
        let byte = |vga: &mut Self, i| u32::from(vga.window_read(mem, offset + i));
        (0..width.bytes()).rev().fold(0, |value, i| value << 8 | byte(self, i))
    }

    /// Writes the window at [`WINDOW`], by offset.
    pub fn write_window(&mut self, mem: &mut Memory, offset: u32, width: Width, value: u32) {
        for (i, byte) in (0..width.bytes()).zip(value.to_le_bytes()) {
            self.window_write(mem, offset + i, byte);
        }
    }

    /// The CRT controller's timing.
    fn timing(&self) -> Timing {
        let registers = &self.crtc.registers;
        let clocking = self.sequencer.registers[sequencer::CLOCKING_MODE];
        let dots = if clocking & sequencer::CLOCKING_8_DOTS != 0 { 8 } else { 9 };
        let dots = dots << u64::from(clocking & sequencer::CLOCKING_HALF != 0);
        let character_ps = dots * DOT_PS[usize::from(self.miscellaneous >> 2 & 1)];
        // Until a mode is set the beam moves as in text mode 3.
        if self.crtc.vertical_total() < LEAST_LINES {
            let retrace = 412..414;
            return Timing {
                character_ps,
                columns: 100,
                shown_columns: 80,
                lines: 449,
                shown_lines: 400,
                retrace,
            };
        }
        let retrace = self.crtc.vertical_retrace_start();
        // The end has the low four bits of the line after the retrace.
        let end = u32::from(registers[crtc::VERTICAL_RETRACE_END]) & 0xf;
        let length = end.wrapping_sub(retrace) & 0xf;
        Timing {
            character_ps,
            columns: u64::from(registers[crtc::HORIZONTAL_TOTAL]) + 5,
            shown_columns: u64::from(registers[crtc::HORIZONTAL_DISPLAY_END]) + 1,
            lines: self.crtc.vertical_total(),
            shown_lines: self.crtc.vertical_display_end() + 1,
            retrace: retrace..retrace + length.max(1),
        }
    }

    /// Where the beam is.
    fn input_status_1(&self, now: u64) -> u8 {
        let timing = self.timing();
        let (line, column) = timing.beam(now);
        let mut status = 0;
        if line >= timing.shown_lines || column >= timing.shown_columns {
            status |= DISPLAY_DISABLED;
        }
        if timing.retrace.contains(&line) {
            status |= DISPLAY_DISABLED | VERTICAL_RETRACE;
        }
        status
    }
}

/// How the beam moves.
struct Timing {
    /// Duration of a character in picoseconds.
    character_ps: u64,
    /// Characters in a line, and those of them that are shown.
    columns: u64,
    shown_columns: u64,
    /// Lines in a frame, and those of them that are shown.
    lines: u32,
    shown_lines: u32,
    /// Lines of the vertical retrace.
    retrace: Range<u32>,
}

impl Timing {
    fn line_ps(&self) -> u64 {
        self.columns * self.character_ps
    }

    fn frame_ps(&self) -> u64 {
        self.line_ps() * u64::from(self.lines)
    }

    /// When the next vertical retrace begins after `now`, in nanoseconds.
    fn next_retrace(&self, now: u64) -> u64 {
        let frame = u128::from(self.frame_ps());
        let begins = u128::from(self.retrace.start) * u128::from(self.line_ps()) % frame;
        let now = u128::from(now) * 1000;
        let passed = (now + frame - begins) % frame;
        ((now + frame - passed).div_ceil(1000)) as u64
    }

    /// The line and the character in it that the beam is at.
    fn beam(&self, now: u64) -> (u32, u64) {
        let in_frame = (u128::from(now) * 1000 % u128::from(self.frame_ps())) as u64;
        let line = (in_frame / self.line_ps()) as u32;
        (line, in_frame % self.line_ps() / self.character_ps)
    }
}

impl Function for Vga {
    fn devfn(&self) -> u8 {
        DEVFN
    }

    fn config_space(&self) -> ConfigSpace {
        ConfigSpace::new(0x1234, 0x1111, 0x03_0000, 0)
            .with_subsystem(0x1af4, 0x1100)
            .with_command(COMMAND_IO | COMMAND_MEMORY)
            .with_fixed_memory_bar(FRAMEBUFFER_BAR, FRAMEBUFFER, self.memory.framebuffer.size())
            .with_fixed_rom(ROM, ROM_SIZE)
    }
}

#[cfg(test)]
mod tests;
