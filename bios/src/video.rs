//! The video card as its BIOS leaves it: text mode 3, 80 by 25 cells of 9 by 16 dots, in colour; or, for a kernel that is
//! to find graphics, mode 12h or one of Bochs' VBE extensions.
//!
//! Register values are those of modes 3 and 12h in the IBM VGA's technical reference, and of Bochs'
//! `vbe_display_api.txt`.

use env86_emu::{Memory, Width};

use crate::{board::Framebuffer, font, step::Step};

const MODE: u8 = 3;
const COLUMNS: u8 = 80;
const ROWS: u8 = 25;
const FONT_HEIGHT: u8 = 16;
/// Start and end scan line of the cursor, as INT 10h has it.
const CURSOR_SHAPE: u16 = 0x0d0e;

const TEXT_WINDOW: u32 = 0xb_8000;
const TEXT_SIZE: u32 = 0x8000;
const GRAPHICS_WINDOW: u32 = 0xa_0000;
/// Two blanks, light grey on black.
const BLANK: u32 = 0x0720_0720;

const MISC_OUTPUT: u16 = 0x3c2;
const ATTRIBUTE: u16 = 0x3c0;
const SEQUENCER: u16 = 0x3c4;
const DAC_MASK: u16 = 0x3c6;
const DAC_WRITE_INDEX: u16 = 0x3c8;
const DAC_DATA: u16 = 0x3c9;
const GRAPHICS: u16 = 0x3ce;
const CRTC: u16 = 0x3d4;
const STATUS_1: u16 = 0x3da;

/// Colour, RAM on, 28 MHz, 400 lines.
const MISC_VALUE: u8 = 0x67;
const SEQUENCER_VALUES: [u8; 5] = [0x03, 0x00, 0x03, 0x00, 0x02];
const CRTC_VALUES: [u8; 25] = [
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, // horizontal, total, overflow
    0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, // rows, cursor, start, position
    0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, // vertical, pitch, blank, mode
    0xff, // line compare
];
const CRTC_VERTICAL_RETRACE_END: u8 = 0x11;
const CRTC_UNPROTECT: u8 = 0x0e;
const GRAPHICS_VALUES: [u8; 9] = [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff];
const ATTRIBUTE_VALUES: [u8; 21] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, // the colours, brown and not dark yellow
    0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, // the bright ones
    0x0c, 0x00, 0x0f, 0x08, 0x00, // mode, overscan, planes, panning, colour select
];
/// Attribute index: the palette belongs to the screen again.
const PALETTE_ON: u8 = 0x20;

/// The steps that set the mode, with an empty screen, the font in plane 2 and the cursor home.
pub fn text_mode() -> Vec<Step> {
    let mut steps = registers(MISC_VALUE, SEQUENCER_VALUES, CRTC_VALUES, GRAPHICS_VALUES, ATTRIBUTE_VALUES);
    steps.extend(palette());
    steps.extend(load_font());
    steps.push(Step::Mmio { addr: TEXT_WINDOW, values: vec![BLANK; TEXT_SIZE as usize / 4] });
    steps
}

/// The steps that set the registers of a mode.
fn registers(
    misc: u8,
    sequencer: [u8; 5],
    crtc: [u8; 25],
    graphics: [u8; 9],
    attribute: [u8; 21],
) -> Vec<Step> {
    let mut steps = vec![Step::out(MISC_OUTPUT, misc)];
    steps.extend(indexed(SEQUENCER, &sequencer));
    steps.extend([Step::out(CRTC, CRTC_VERTICAL_RETRACE_END), Step::out(CRTC + 1, CRTC_UNPROTECT)]);
    steps.extend(indexed(CRTC, &crtc));
    steps.extend(indexed(GRAPHICS, &graphics));
    steps.push(Step::In(STATUS_1)); // the next attribute write is an index
    for (index, value) in (0..).zip(attribute) {
        steps.extend([Step::out(ATTRIBUTE, index), Step::out(ATTRIBUTE, value)]);
    }
    steps.push(Step::out(ATTRIBUTE, PALETTE_ON));
    steps
}

/// Writes to consecutive registers behind an index port.
fn indexed(port: u16, values: &[u8]) -> impl Iterator<Item = Step> {
    (0..).zip(values).flat_map(move |(index, &value)| [Step::out(port, index), Step::out(port + 1, value)])
}

/// The 64 colours of the EGA: bits 0 to 2 are blue, green and red at two thirds, bits 3 to 5 the same
/// at one third.
fn palette() -> Vec<Step> {
    let mut steps = vec![Step::out(DAC_MASK, 0xff), Step::out(DAC_WRITE_INDEX, 0)];
    for colour in 0..=255u8 {
        for bit in [2, 1, 0] {
            let level = (colour >> bit & 1) * 0x2a + (colour >> (bit + 3) & 1) * 0x15;
            steps.push(Step::out(DAC_DATA, if colour < 64 { level } else { 0 }));
        }
    }
    steps
}

/// Opens plane 2 at A0000h, writes the glyphs (32 bytes each, half of them used), and closes it.
fn load_font() -> Vec<Step> {
    const BYTES_PER_GLYPH: usize = 32;
    let mut memory = vec![0; 256 * BYTES_PER_GLYPH];
    for (slot, code) in memory.chunks_exact_mut(BYTES_PER_GLYPH).zip(0..=255) {
        slot[..font::HEIGHT].copy_from_slice(&font::glyph(code));
    }
    let values = memory.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();

    // Map mask: plane 2. Memory mode: sequential. Graphics: read plane 2, no odd/even, A0000h.
    let open =
        [(SEQUENCER, 2, 0x04), (SEQUENCER, 4, 0x06), (GRAPHICS, 4, 2), (GRAPHICS, 5, 0), (GRAPHICS, 6, 4)];
    let close = open.map(|(port, index, _)| {
        let values = if port == SEQUENCER { &SEQUENCER_VALUES[..] } else { &GRAPHICS_VALUES[..] };
        (port, index, values[usize::from(index)])
    });
    let set = |(port, index, value)| [Step::out(port, index), Step::out(port + 1, value)];
    let mut steps: Vec<_> = open.into_iter().flat_map(set).collect();
    steps.push(Step::Mmio { addr: GRAPHICS_WINDOW, values });
    steps.extend(close.into_iter().flat_map(set));
    steps
}

/// The video fields of the BIOS data area at `bda`.
pub fn install_data(bda: u32, mem: &mut Memory) {
    mem.write_u8(bda + 0x49, MODE);
    mem.write_u16(bda + 0x4a, COLUMNS.into());
    mem.write_u16(bda + 0x4c, 0x1000); // bytes of a page
    mem.write_u16(bda + 0x60, CURSOR_SHAPE);
    mem.write_u16(bda + 0x63, CRTC);
    mem.write_u8(bda + 0x65, 0x29); // mode control: 80 columns, on, blinking
    mem.write_u8(bda + 0x66, 0x30); // colours
    mem.write_u8(bda + 0x84, ROWS - 1);
    mem.write_u16(bda + 0x85, FONT_HEIGHT.into());
    mem.write_u8(bda + 0x87, 0x60); // 256 KiB
    mem.write_u8(bda + 0x88, 0xf9); // switches: colour, 80 columns
    mem.write_u8(bda + 0x89, 0x51); // VGA, 400 lines
    mem.write_u8(bda + 0x8a, 0x08); // colour VGA
}

/// Linux' struct screen_info for this mode, as its real-mode code would fill it in. The cursor is
/// home.
pub fn screen_info(extended_kib: u32) -> [u8; 64] {
    const EGA_COLOR_256K: u16 = 0x0003; // INT 10h, AH=12h, BL=10h: BX
    const IS_VGA: u8 = 1;
    let mut info = [0; 64];
    info[0x02..0x04].copy_from_slice(&(extended_kib.min(0xffff) as u16).to_le_bytes());
    info[0x06] = MODE;
    info[0x07] = COLUMNS;
    info[0x0a..0x0c].copy_from_slice(&EGA_COLOR_256K.to_le_bytes());
    info[0x0e] = ROWS;
    info[0x0f] = IS_VGA;
    info[0x10..0x12].copy_from_slice(&u16::from(FONT_HEIGHT).to_le_bytes());
    info
}

/// A mode that is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graphics {
    /// The VGA's own mode 12h: 640 by 480 dots in four planes.
    Planar,
    /// One of VBE's.
    Linear(Linear),
}

/// A mode with a linear framebuffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    width: u16,
    height: u16,
    /// Bits of a pixel: 8, 15, 16, 24 or 32.
    bits: u8,
    framebuffer: Framebuffer,
}

/// The number of mode 12h, and its registers where they are not those of text.
const PLANAR_MODE: u8 = 0x12;
const PLANAR_MISC: u8 = 0xe3; // 25 MHz, 480 lines
const PLANAR_SEQUENCER: [u8; 5] = [0x03, 0x01, 0x0f, 0x00, 0x06];
const PLANAR_CRTC: [u8; 25] = [
    0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, // horizontal, total, overflow
    0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // rows, cursor, start, position
    0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, // vertical, pitch, blank, mode
    0xff, // line compare
];
const PLANAR_GRAPHICS: [u8; 9] = [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff];
/// Graphics, no panning.
const PLANAR_ATTRIBUTE_MODE: u8 = 0x01;
const GRAPHICS_SIZE: u32 = 0x1_0000;

/// Ports, registers and their bits, as `vbe_display_api.txt` names them.
mod dispi {
    pub const INDEX: u16 = 0x1ce;
    pub const DATA: u16 = 0x1cf;
    pub const XRES: u16 = 1;
    pub const YRES: u16 = 2;
    pub const BPP: u16 = 3;
    pub const ENABLE: u16 = 4;
    pub const DISABLED: u16 = 0;
    pub const ENABLED: u16 = 0x01;
    pub const LFB_ENABLED: u16 = 0x40;
}

/// Sizes that VESA has numbered, each with its numbers for 8, 15, 16, 24 and 32 bits a pixel, of which Bochs has added
/// the last. 0 stands for none.
const VBE_MODES: [(u16, u16, [u16; 5]); 6] = [
    (320, 200, [0x146, 0x10d, 0x10e, 0x10f, 0x140]),
    (640, 400, [0x100, 0, 0, 0, 0x141]),
    (640, 480, [0x101, 0x110, 0x111, 0x112, 0x142]),
    (800, 600, [0x103, 0x113, 0x114, 0x115, 0x143]),
    (1024, 768, [0x105, 0x116, 0x117, 0x118, 0x144]),
    (1280, 1024, [0x107, 0x119, 0x11a, 0x11b, 0x145]),
];
const VBE_BITS: [u8; 5] = [8, 15, 16, 24, 32];

impl Graphics {
    /// The BIOS's mode of a number, if it is the one that is here.
    pub fn bios(number: u16) -> Option<Self> {
        (number == u16::from(PLANAR_MODE)).then_some(Self::Planar)
    }

    /// VBE's mode of a number, if there is one that the framebuffer has room for.
    pub fn vbe(number: u16, framebuffer: Framebuffer) -> Option<Self> {
        let (width, height, bits) = VBE_MODES.into_iter().find_map(|(width, height, numbers)| {
            let which = numbers.iter().position(|of| *of == number && number != 0)?;
            Some((width, height, VBE_BITS[which]))
        })?;
        let mode = Linear { width, height, bits, framebuffer };
        (mode.bytes() <= framebuffer.size).then_some(Self::Linear(mode))
    }

    /// The steps that set the mode, when text mode is set, and clear the screen.
    pub fn steps(&self) -> Vec<Step> {
        match self {
            Self::Planar => {
                let mut attribute = ATTRIBUTE_VALUES;
                (attribute[0x10], attribute[0x13]) = (PLANAR_ATTRIBUTE_MODE, 0);
                let mut steps =
                    registers(PLANAR_MISC, PLANAR_SEQUENCER, PLANAR_CRTC, PLANAR_GRAPHICS, attribute);
                steps.push(Step::Mmio { addr: GRAPHICS_WINDOW, values: vec![0; GRAPHICS_SIZE as usize / 4] });
                steps
            }
            Self::Linear(mode) => mode.steps(),
        }
    }

    /// Linux' struct screen_info for this mode. The fields for text stay as the mode before has them.
    pub fn screen_info(&self, extended_kib: u32) -> [u8; 64] {
        /// Types of screens: a VGA in colour, and a linear framebuffer that VBE has set. Linux' own real-mode code says 1
        /// for a VGA in any mode of its own, but its driver for planes wants to be told which.
        const VIDEO_TYPE_VGAC: u8 = 0x22;
        const VIDEO_TYPE_VLFB: u8 = 0x23;
        let mut info = screen_info(extended_kib);
        match self {
            Self::Planar => (info[0x06], info[0x0f]) = (PLANAR_MODE, VIDEO_TYPE_VGAC),
            Self::Linear(mode) => {
                info[0x0f] = VIDEO_TYPE_VLFB;
                mode.fill_in(&mut info);
            }
        }
        info
    }
}

impl Linear {
    fn steps(self) -> Vec<Step> {
        let registers = [
            (dispi::ENABLE, dispi::DISABLED),
            (dispi::XRES, self.width),
            (dispi::YRES, self.height),
            (dispi::BPP, self.bits.into()),
            (dispi::ENABLE, dispi::ENABLED | dispi::LFB_ENABLED),
        ];
        let word = |port, value: u16| Step::Out { port, width: Width::Word, value: value.into() };
        let set = |(index, value)| [word(dispi::INDEX, index), word(dispi::DATA, value)];
        registers.into_iter().flat_map(set).collect()
    }

    fn pitch(self) -> u16 {
        self.width * u16::from(self.bits.div_ceil(8))
    }

    fn bytes(self) -> u32 {
        u32::from(self.pitch()) * u32::from(self.height)
    }

    fn fill_in(self, info: &mut [u8; 64]) {
        /// Mode attributes: supported, with BIOS output, colour, graphics, with a linear framebuffer.
        const ATTRIBUTES: u16 = 0x9f;
        let mut put = |at: usize, bytes: &[u8]| info[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x12, &self.width.to_le_bytes());
        put(0x14, &self.height.to_le_bytes());
        put(0x16, &u16::from(self.bits).to_le_bytes());
        put(0x18, &self.framebuffer.address.to_le_bytes());
        put(0x1c, &(self.framebuffer.size >> 16).to_le_bytes()); // in blocks of 64 KiB
        put(0x24, &self.pitch().to_le_bytes());
        // Size and position of red, green, blue and what is left.
        let colors: [u8; 8] = match self.bits {
            8 => [6, 0, 6, 0, 6, 0, 0, 0], // bits of the DAC
            15 => [5, 10, 5, 5, 5, 0, 1, 15],
            16 => [5, 11, 6, 5, 5, 0, 0, 0],
            24 => [8, 16, 8, 8, 8, 0, 0, 0],
            _ => [8, 16, 8, 8, 8, 0, 8, 24],
        };
        put(0x26, &colors);
        put(0x34, &ATTRIBUTES.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMEBUFFER: Framebuffer = Framebuffer { address: 0xe000_0000, size: 8 << 20 };

    #[test]
    fn modes_have_numbers_and_room() {
        let mode = Graphics::vbe(0x117, FRAMEBUFFER).unwrap();
        let word = |port, value| Step::Out { port, width: Width::Word, value };
        let steps = mode.steps();
        assert_eq!(steps[2..4], [word(0x1ce, 1), word(0x1cf, 1024)]);
        assert_eq!(steps[steps.len() - 2..], [word(0x1ce, 4), word(0x1cf, 0x41)]);
        let info = mode.screen_info(31 << 10);
        let field = |at: usize| u16::from_le_bytes([info[at], info[at + 1]]);
        assert_eq!((info[0x0f], field(0x12), field(0x14), field(0x16)), (0x23, 1024, 768, 16));
        assert_eq!((field(0x1a), field(0x1c), field(0x24)), (0xe000, 0x80, 2048));
        assert_eq!(info[0x26..0x2e], [5, 11, 6, 5, 5, 0, 0, 0]);
        for number in [0, 0xff, 0x104, 0x999] {
            assert_eq!(Graphics::vbe(number, FRAMEBUFFER), None);
        }
        let planar = Graphics::bios(0x12).unwrap();
        let info = planar.screen_info(31 << 10);
        assert_eq!((info[0x06], info[0x0f], Graphics::bios(0x13)), (0x12, 0x22, None));
        assert_eq!(planar.steps().first(), Some(&Step::out(MISC_OUTPUT, PLANAR_MISC)));
        let small = Framebuffer { size: 1 << 20, ..FRAMEBUFFER };
        assert!(Graphics::vbe(0x105, small).is_some() && Graphics::vbe(0x117, small).is_none());
    }

    #[test]
    fn the_mode_is_whole_after_the_font() {
        let steps = text_mode();
        let last = |port: u16, index: u8| {
            let set = steps.windows(2).filter(|w| w[0] == Step::out(port, index));
            set.filter_map(|w| match w[1] {
                Step::Out { port: p, value, .. } if p == port + 1 => Some(value as u8),
                _ => None,
            })
            .next_back()
            .unwrap()
        };
        for (index, value) in (0..).zip(SEQUENCER_VALUES) {
            assert_eq!(last(SEQUENCER, index), value);
        }
        for (index, value) in (0..).zip(GRAPHICS_VALUES) {
            assert_eq!(last(GRAPHICS, index), value);
        }
        for (index, value) in (0..).zip(CRTC_VALUES) {
            assert_eq!(last(CRTC, index), value);
        }
    }

    #[test]
    fn colours_are_the_egas() {
        let steps = palette();
        let rgb = |n: usize| [0, 1, 2].map(|c| steps[2 + 3 * n + c].clone());
        let want = |r, g, b| [r, g, b].map(|v| Step::out(DAC_DATA, v));
        assert_eq!(rgb(7), want(0x2a, 0x2a, 0x2a));
        assert_eq!(rgb(0x14), want(0x2a, 0x15, 0));
        assert_eq!(rgb(0x3f), want(0x3f, 0x3f, 0x3f));
        assert_eq!(steps.len(), 2 + 3 * 256);
    }
}
