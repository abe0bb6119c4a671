//! The bytes of the planes, and where they are while they are chained.
//!
//! With chain 4 the byte at offset `o` of the window is in plane `o & 3` at `o & !3`, and so it is in saved
//! states. While the other registers leave accesses as they are (320x200 in 256 colours, as the BIOS sets
//! it), these bytes lie side by side in a region of their own instead, so that the window can be mapped
//! to it. They move when a register begins or ends that.

use super::registers::{graphics, sequencer};
use super::{PLANE_SIZE, Vga};
use env86_emu::Memory;

const OFFSETS: u32 = PLANE_SIZE as u32;

/// The planes, to be read.
#[derive(Clone, Copy)]
pub(super) struct Planes<'m> {
    planes: &'m [u8],
    /// Where the bytes at offsets that are multiples of four are instead.
    chained: Option<&'m [u8]>,
}

impl<'m> Planes<'m> {
    /// The byte of each plane at an offset; zeros where the card has no memory.
    pub fn at(self, offset: usize) -> [u8; 4] {
        let offset = offset % PLANE_SIZE;
        match self.chained {
            Some(chained) if offset.is_multiple_of(4) => {
                core::array::from_fn(|plane| byte(chained, offset + plane))
            }
            _ => core::array::from_fn(|plane| byte(self.planes, plane * PLANE_SIZE + offset)),
        }
    }

    /// All bytes, one plane after the other, which is where text is.
    pub fn all(self) -> &'m [u8] {
        self.planes
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

impl Vga {
    /// Chain 4 alone decides where bytes of the window go and come from.
    fn chains_only(&self) -> bool {
        let graphics = &self.graphics.registers;
        let sequencer = &self.sequencer.registers;
        let memory_mode = sequencer[sequencer::MEMORY_MODE];
        self.attribute.graphics()
            && !self.vbe.active
            && memory_mode & sequencer::MEMORY_CHAIN_4 != 0
            && sequencer[sequencer::MAP_MASK] == 0x0f
            && graphics[graphics::MODE] & (graphics::MODE_WRITE | graphics::MODE_READ_COMPARE) == 0
            && graphics[graphics::ENABLE_SET_RESET] == 0
            && graphics[graphics::DATA_ROTATE] == 0
            && graphics[graphics::BIT_MASK] == 0xff
    }

    /// Moves chained bytes to where the registers have them.
    pub(super) fn arrange(&mut self, mem: &mut Memory) {
        let chained = self.chains_only();
        if chained && !self.chained {
            let planes = self.planes(mem);
            let bytes: Vec<u8> = (0..PLANE_SIZE).step_by(4).flat_map(|offset| planes.at(offset)).collect();
            let to = mem.region_mut(self.memory.chained, 0..OFFSETS);
            to.copy_from_slice(&bytes[..to.len()]);
        } else if !chained {
            self.settle(mem);
        }
        self.chained = chained;
    }

    /// Writes chained bytes to the planes, too, where saved states have them.
    pub(crate) fn settle(&self, mem: &mut Memory) {
        if !self.chained {
            return;
        }
        let bytes = mem.region(self.memory.chained).to_vec();
        for plane in 0..4 {
            let first = plane * OFFSETS;
            let to = mem.region_mut(self.memory.planes, first..first + OFFSETS);
            for (to, from) in to.chunks_exact_mut(4).zip(bytes.chunks_exact(4)) {
                to[0] = from[plane as usize];
            }
        }
    }

    pub(super) fn planes<'m>(&self, mem: &'m Memory) -> Planes<'m> {
        let chained = self.chained.then(|| mem.region(self.memory.chained));
        Planes { planes: mem.region(self.memory.planes), chained }
    }

    /// Writes a byte of a plane.
    pub(super) fn put(&self, mem: &mut Memory, plane: u32, offset: u32, value: u8) {
        if let Some(bank) = self.vbe.plane_bank() {
            let at = (bank + offset % OFFSETS) * 4 + plane;
            if at < self.memory.framebuffer.size() {
                mem.region_mut(self.memory.framebuffer, at..at + 1).fill(value);
            }
            return;
        }
        let offset = offset % OFFSETS;
        let (region, at) = if self.chained && offset.is_multiple_of(4) {
            (self.memory.chained, offset + plane)
        } else {
            (self.memory.planes, plane * OFFSETS + offset)
        };
        mem.region_mut(region, at..at + 1).fill(value);
    }
}
