//! The four planes and the path of the processor's accesses to them.
//!
//! Stored as v86 stores them, so that saved states fit: in text mode character and attribute lie
//! side by side from offset 0 and fonts in plane 2; chained and odd/even addresses keep their
//! place in the plane with the low bits cleared.

use super::registers::{graphics, sequencer};
use super::{PLANE_SIZE, Vga, WINDOW};
use env86_emu::memory::{Memory, Placement};

/// Where the window of each memory map select starts and ends, from A0000h.
const WINDOWS: [(u32, u32); 4] =
    [(0x0_0000, 0x2_0000), (0x0_0000, 0x1_0000), (0x1_0000, 0x1_8000), (0x1_8000, 0x2_0000)];
/// Map mask: the planes of characters and attributes.
const TEXT_PLANES: u8 = 0b0011;
/// Map mask: the plane of fonts.
const FONT_PLANE: u8 = 0b0100;
/// What an access outside the window, or the memory, reads.
const OPEN_BUS: u8 = 0xff;

impl Vga {
    /// What the window shows, where neither reads nor writes of it depend on more than their address:
    /// a bank of the framebuffer, characters and attributes, or chained bytes. A read through the mapped
    /// window does not load the latches, which no access in such a mode uses.
    pub(super) fn linear_window(&self) -> Option<Placement> {
        if let Some(offset) = self.vbe.window_bank() {
            let region = self.memory.framebuffer;
            return Some(Placement { address: WINDOW, len: PLANE_SIZE as u32, region, offset });
        }
        if self.vbe.plane_bank().is_some() {
            return None;
        }
        if self.chained {
            let address = WINDOW + self.window().0;
            let len = (self.window().1 - self.window().0).min(PLANE_SIZE as u32);
            return Some(Placement { address, len, region: self.memory.chained, offset: 0 });
        }
        let writes_text = self.sequencer.registers[sequencer::MAP_MASK] & TEXT_PLANES != 0;
        let reads_text = self.graphics.registers[graphics::READ_MAP_SELECT] & 3 == 0;
        if self.attribute.graphics() || !writes_text || !reads_text {
            return None;
        }
        let (start, end) = self.window();
        Some(Placement { address: WINDOW + start, len: end - start, region: self.memory.planes, offset: 0 })
    }

    /// Reads a byte of the window; `offset` counts from A0000h.
    pub(super) fn window_read(&mut self, mem: &Memory, offset: u32) -> u8 {
        if let Some(bank) = self.vbe.window_bank() {
            let framebuffer = mem.region(self.memory.framebuffer);
            return framebuffer.get((bank + (offset & 0xffff)) as usize).copied().unwrap_or(OPEN_BUS);
        }
        let Some(offset) = self.decode(offset) else { return OPEN_BUS };
        if !self.graphics_shown() {
            let plane = self.graphics.registers[graphics::READ_MAP_SELECT] & 3;
            self.load_latches(mem, offset & 0xffff);
            let at = (usize::from(plane) << 16 | offset as usize) & (4 * PLANE_SIZE - 1);
            return self.planes(mem).all().get(at).copied().unwrap_or(OPEN_BUS);
        }
        let mode = self.graphics.registers[graphics::MODE];
        let (plane, offset) = if self.chain_4() {
            (offset & 3, offset & !3)
        } else if mode & graphics::MODE_ODD_EVEN != 0 {
            let read_map = u32::from(self.graphics.registers[graphics::READ_MAP_SELECT]);
            (read_map & 2 | offset & 1, offset & !1)
        } else {
            (self.graphics.registers[graphics::READ_MAP_SELECT].into(), offset)
        };
        self.load_latches(mem, offset & 0xffff);
        if mode & graphics::MODE_READ_COMPARE != 0 {
            self.color_compare()
        } else {
            self.latch.to_le_bytes()[plane as usize & 3]
        }
    }

    /// Writes a byte of the window; `offset` counts from A0000h.
    pub(super) fn window_write(&mut self, mem: &mut Memory, offset: u32, value: u8) {
        if let Some(bank) = self.vbe.window_bank() {
            let at = bank + (offset & 0xffff);
            return mem.region_mut(self.memory.framebuffer, at..at + 1).fill(value);
        }
        let Some(offset) = self.decode(offset) else { return };
        let map_mask = self.sequencer.registers[sequencer::MAP_MASK];
        if !self.graphics_shown() {
            return match map_mask {
                _ if map_mask & TEXT_PLANES != 0 => self.put(mem, offset >> 16, offset, value),
                _ if map_mask & FONT_PLANE != 0 => self.put(mem, 2, offset, value),
                _ => {}
            };
        }
        let data = self.written(value);
        let memory_mode = self.sequencer.registers[sequencer::MEMORY_MODE];
        let (select, offset) = if self.chain_4() {
            (1 << (offset & 3), offset & !3)
        } else if memory_mode & sequencer::MEMORY_SEQUENTIAL == 0 {
            (0b0101 << (offset & 1), offset & !1)
        } else {
            (0b1111, offset)
        };
        for (plane, byte) in (0..).zip(data.to_le_bytes()) {
            if select & map_mask & 1 << plane != 0 {
                self.put(mem, plane, offset, byte);
            }
        }
    }

    /// The offset in the window that the graphics controller decodes, if it does.
    fn decode(&self, offset: u32) -> Option<u32> {
        let (start, end) = self.window();
        (start..end).contains(&offset).then(|| offset - start)
    }

    /// The part of the window that the graphics controller decodes, from A0000h.
    fn window(&self) -> (u32, u32) {
        WINDOWS[usize::from(self.graphics.registers[graphics::MISCELLANEOUS] >> 2 & 3)]
    }

    fn chain_4(&self) -> bool {
        self.sequencer.registers[sequencer::MEMORY_MODE] & sequencer::MEMORY_CHAIN_4 != 0
    }

    fn load_latches(&mut self, mem: &Memory, offset: u32) {
        self.latch = u32::from_le_bytes(match self.vbe.plane_bank() {
            Some(bank) => {
                let at = (bank + offset) as usize * 4;
                let bytes = mem.region(self.memory.framebuffer).get(at..at + 4);
                bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or([OPEN_BUS; 4])
            }
            None => self.planes(mem).at(offset as usize),
        });
    }

    /// Read mode 1: a bit for each pixel whose colour is the one compared with.
    fn color_compare(&self) -> u8 {
        let compare = spread(self.graphics.registers[graphics::COLOR_COMPARE]);
        let care = spread(self.graphics.registers[graphics::COLOR_DONT_CARE]);
        let differs = ((self.latch ^ compare) & care).to_le_bytes();
        !differs.into_iter().fold(0, |all, plane| all | plane)
    }

    /// What the four planes would take, by write mode.
    fn written(&self, value: u8) -> u32 {
        let registers = &self.graphics.registers;
        let rotated = value.rotate_right(u32::from(registers[graphics::DATA_ROTATE] & 7));
        let bit_mask = registers[graphics::BIT_MASK];
        let set_reset = spread(registers[graphics::SET_RESET]);
        match registers[graphics::MODE] & graphics::MODE_WRITE {
            0 => {
                let enable = spread(registers[graphics::ENABLE_SET_RESET]);
                let data = repeat(rotated) & !enable | set_reset & enable;
                self.masked(self.combined(data), bit_mask)
            }
            1 => self.latch,
            2 => self.masked(self.combined(spread(value)), bit_mask),
            _ => self.masked(set_reset, bit_mask & rotated),
        }
    }

    /// The function select: data with the latches.
    fn combined(&self, data: u32) -> u32 {
        match self.graphics.registers[graphics::DATA_ROTATE] >> 3 & 3 {
            0 => data,
            1 => data & self.latch,
            2 => data | self.latch,
            _ => data ^ self.latch,
        }
    }

    /// Bits outside the mask come from the latches.
    fn masked(&self, data: u32, mask: u8) -> u32 {
        let mask = repeat(mask);
        data & mask | self.latch & !mask
    }
}

/// A byte for each plane.
fn repeat(byte: u8) -> u32 {
    u32::from_le_bytes([byte; 4])
}

/// A bit for each plane becomes a byte for each plane.
fn spread(bits: u8) -> u32 {
    u32::from_le_bytes(core::array::from_fn(|plane| if bits & 1 << plane != 0 { 0xff } else { 0 }))
}
