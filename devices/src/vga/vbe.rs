//! The Bochs VBE extensions ("dispi"): a linear framebuffer set up through an index and a data port
//! (Bochs, vbe_display_api.txt).

use super::Vga;
use core::ops::Range;
use env86_emu::memory::{Memory, PAGE_SIZE};

const ID: u16 = 0;
const XRES: u16 = 1;
const YRES: u16 = 2;
const BPP: u16 = 3;
const ENABLE: u16 = 4;
const BANK: u16 = 5;
const VIRTUAL_WIDTH: u16 = 6;
const VIRTUAL_HEIGHT: u16 = 7;
const X_OFFSET: u16 = 8;
const Y_OFFSET: u16 = 9;
const VIDEO_MEMORY_64K: u16 = 10;

const FIRST_ID: u16 = 0xb0c0;
const LAST_ID: u16 = 0xb0c5;
const MAX_XRES: u16 = 2560;
const MAX_YRES: u16 = 1600;
const MAX_BPP: u16 = 32;
/// Bits per pixel of modes in planes, and the number of those.
const PLANES: u16 = 4;

const ENABLED: u16 = 0x01;
/// Resolution registers read the largest values possible.
const GET_CAPABILITIES: u16 = 0x02;
/// The palette has 8 bits a component.
const WIDE_DAC: u16 = 0x20;
/// Do not clear the memory.
const NO_CLEAR: u16 = 0x80;

/// The dispi registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vbe {
    /// The index port.
    pub index: u16,
    /// The interface version that the guest asked for.
    pub id: u16,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// Bits per pixel: 4, 8, 15, 16, 24 or 32.
    pub bpp: u16,
    /// The enable register as written.
    pub enable: u16,
    /// A mode is set: `enable` asked for one and it fits.
    pub active: bool,
    /// The 64 KiB bank in the window at A0000h.
    pub bank: u16,
    /// Width of a row in the memory, in pixels.
    pub virtual_width: u16,
    /// First column shown.
    pub x_offset: u16,
    /// First row shown.
    pub y_offset: u16,
}

impl Default for Vbe {
    fn default() -> Self {
        Self {
            index: 0,
            id: LAST_ID,
            width: 0,
            height: 0,
            bpp: 32,
            enable: 0,
            active: false,
            bank: 0,
            virtual_width: 0,
            x_offset: 0,
            y_offset: 0,
        }
    }
}

impl Vbe {
    /// There is a mode with this size, whose picture has room in so many bytes of memory.
    pub(crate) fn fits(&self, memory: u32) -> bool {
        let bytes = u64::from(self.height) * u64::from(self.row_bytes(self.width));
        self.width <= MAX_XRES && self.height <= MAX_YRES && (1..=u64::from(memory)).contains(&bytes)
    }

    /// The framebuffer offset of the window at A0000h while a mode of 8 bits or more is set.
    pub(super) fn window_bank(&self) -> Option<u32> {
        (self.active && !self.is_planar()).then(|| u32::from(self.bank) << 16)
    }

    /// What the window at A0000h begins with in each plane, while a mode of four planes is set.
    pub(super) fn plane_bank(&self) -> Option<u32> {
        (self.active && self.is_planar()).then(|| u32::from(self.bank) << 16)
    }

    /// A pixel has a bit in each of four planes, which are written through the VGA's registers. The byte of plane `p` at
    /// address `a` is the framebuffer's at `4 a + p`.
    pub(super) fn is_planar(&self) -> bool {
        self.bpp == PLANES
    }

    /// The palette has 8 bits a component.
    pub(super) fn wide_dac(&self) -> bool {
        self.enable & WIDE_DAC != 0
    }

    /// Bytes that so many pixels of a row take. In planes eight pixels are the least that an address has.
    pub fn row_bytes(&self, pixels: u16) -> u32 {
        match self.is_planar() {
            true => u32::from(pixels / 8) * u32::from(PLANES),
            false => u32::from(pixels) * u32::from(self.bpp).div_ceil(8),
        }
    }

    /// Bytes from row to row.
    pub fn pitch(&self) -> u32 {
        self.row_bytes(self.virtual_width)
    }

    /// The part of the framebuffer that is shown, by offset. It may lie beyond its end.
    pub fn shown(&self) -> Range<u32> {
        let first = u32::from(self.y_offset).saturating_mul(self.pitch());
        let first = first.saturating_add(self.row_bytes(self.x_offset));
        let rows = u32::from(self.height.saturating_sub(1)).saturating_mul(self.pitch());
        let row = self.row_bytes(self.width);
        first..first.saturating_add(rows).saturating_add(row)
    }

    fn virtual_height(&self, memory: u32) -> u16 {
        memory.checked_div(self.pitch()).unwrap_or(0).min(0xffff) as u16
    }

    pub(super) fn read(&self, memory: u32) -> u16 {
        let capabilities = self.enable & GET_CAPABILITIES != 0;
        match self.index {
            ID => self.id,
            XRES if capabilities => MAX_XRES,
            YRES if capabilities => MAX_YRES,
            BPP if capabilities => MAX_BPP,
            XRES => self.width,
            YRES => self.height,
            BPP => self.bpp,
            ENABLE => self.enable,
            BANK => self.bank,
            // Video BIOSes divide by it.
            VIRTUAL_WIDTH => self.virtual_width.max(1),
            VIRTUAL_HEIGHT => self.virtual_height(memory),
            X_OFFSET => self.x_offset,
            Y_OFFSET => self.y_offset,
            VIDEO_MEMORY_64K => (memory >> 16) as u16,
            _ => 0xff,
        }
    }
}

impl Vga {
    /// Writes the dispi data port.
    pub(super) fn write_vbe(&mut self, mem: &mut Memory, value: u16) {
        let memory = u64::from(self.memory.framebuffer.size());
        let vbe = &mut self.vbe;
        if vbe.index != BANK {
            self.changed = mem.note_change();
        }
        match vbe.index {
            ID if (FIRST_ID..=LAST_ID).contains(&value) => vbe.id = value,
            XRES => vbe.width = value.min(MAX_XRES),
            YRES => vbe.height = value.min(MAX_YRES),
            BPP if matches!(value, PLANES | 8 | 15 | 16 | 24 | 32) => vbe.bpp = value,
            ENABLE => self.enable_vbe(mem, value),
            BANK if u64::from(value) << 16 < memory => vbe.bank = value,
            VIRTUAL_WIDTH => vbe.virtual_width = value.max(vbe.width),
            X_OFFSET => vbe.x_offset = value,
            Y_OFFSET => vbe.y_offset = value,
            _ => {}
        }
    }

    fn enable_vbe(&mut self, mem: &mut Memory, value: u16) {
        let memory = self.memory.framebuffer.size();
        let vbe = &mut self.vbe;
        vbe.enable = value;
        let was_active = vbe.active;
        vbe.active = value & ENABLED != 0 && vbe.fits(memory);
        if !vbe.active {
            vbe.bank = 0;
            return;
        }
        vbe.virtual_width = vbe.width;
        if !was_active {
            (vbe.x_offset, vbe.y_offset) = (0, 0);
        }
        if value & NO_CLEAR == 0 {
            self.clear(mem);
        }
    }

    /// Clears the framebuffer. Pages that are zero are left alone: the host need not have them.
    fn clear(&self, mem: &mut Memory) {
        let region = self.memory.framebuffer;
        for page in (0..region.size()).step_by(PAGE_SIZE as usize) {
            let part = page..page + PAGE_SIZE;
            if mem.region(region)[part.start as usize..part.end as usize].iter().any(|byte| *byte != 0) {
                mem.region_mut(region, part).fill(0);
            }
        }
    }
}
