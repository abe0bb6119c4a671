//! The indexed register files of the VGA and what they say together (IBM VGA Technical Reference,
//! chapter 4).

/// A file of registers behind an index port and a data port. `N` registers exist; the others read
/// zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed<const N: usize> {
    /// The index port.
    pub index: u8,
    /// The registers by number.
    pub registers: [u8; N],
}

impl<const N: usize> Indexed<N> {
    /// A file with the given contents.
    pub const fn new(registers: [u8; N]) -> Self {
        Self { index: 0, registers }
    }

    /// Reads the register that the index points to.
    pub fn read(&self) -> u8 {
        self.registers.get(usize::from(self.index)).copied().unwrap_or(0)
    }

    /// Writes the register that the index points to, as far as its bits exist.
    pub(super) fn write(&mut self, value: u8, masks: &[u8; N]) {
        if let Some(register) = self.registers.get_mut(usize::from(self.index)) {
            *register = value & masks[usize::from(self.index)];
        }
    }
}

/// Numbers of CRT controller registers.
pub mod crtc {
    /// Horizontal total, less 5, in characters.
    pub const HORIZONTAL_TOTAL: usize = 0x00;
    /// Horizontal display end: last character.
    pub const HORIZONTAL_DISPLAY_END: usize = 0x01;
    /// Horizontal blanking start.
    pub const HORIZONTAL_BLANK_START: usize = 0x02;
    /// Vertical total, less 2, in lines: low byte.
    pub const VERTICAL_TOTAL: usize = 0x06;
    /// Overflow: bits 8 and 9 of vertical registers.
    pub const OVERFLOW: usize = 0x07;
    /// Preset row scan.
    pub const PRESET_ROW_SCAN: usize = 0x08;
    /// Maximum scan line: height of a character less one; further overflow bits.
    pub const MAXIMUM_SCAN_LINE: usize = 0x09;
    /// Maximum scan line: each line is shown twice.
    pub const MAXIMUM_DOUBLE: u8 = 1 << 7;
    /// Cursor start line; bit 5 switches it off.
    pub const CURSOR_START: usize = 0x0a;
    /// Cursor end line.
    pub const CURSOR_END: usize = 0x0b;
    /// Start address, high byte.
    pub const START_ADDRESS_HIGH: usize = 0x0c;
    /// Start address, low byte.
    pub const START_ADDRESS_LOW: usize = 0x0d;
    /// Cursor location, high byte.
    pub const CURSOR_LOCATION_HIGH: usize = 0x0e;
    /// Cursor location, low byte.
    pub const CURSOR_LOCATION_LOW: usize = 0x0f;
    /// Vertical retrace start: low byte.
    pub const VERTICAL_RETRACE_START: usize = 0x10;
    /// Vertical retrace end; bit 7 protects registers 0 to 7.
    pub const VERTICAL_RETRACE_END: usize = 0x11;
    /// Vertical display end: low byte of the last line.
    pub const VERTICAL_DISPLAY_END: usize = 0x12;
    /// Offset: half the width of a row in the memory.
    pub const OFFSET: usize = 0x13;
    /// Underline location; doubleword mode.
    pub const UNDERLINE_LOCATION: usize = 0x14;
    /// Underline location: the address counts every fourth character.
    pub const UNDERLINE_COUNT_BY_4: u8 = 1 << 5;
    /// Underline location: an address is that of four bytes.
    pub const UNDERLINE_DOUBLEWORD: u8 = 1 << 6;
    /// Vertical blanking start: low byte.
    pub const VERTICAL_BLANK_START: usize = 0x15;
    /// Mode control.
    pub const MODE_CONTROL: usize = 0x17;
    /// Mode control: address bit 13 is that of the address, not of the line in the row, as CGA has it.
    pub const MODE_NOT_CGA: u8 = 1 << 0;
    /// Mode control: address bit 14 is that of the address, not of the line in the row.
    pub const MODE_NOT_HERCULES: u8 = 1 << 1;
    /// Mode control: the address counts every other character.
    pub const MODE_COUNT_BY_2: u8 = 1 << 3;
    /// Mode control: of word addresses bit 15, not bit 13, becomes bit 0.
    pub const MODE_ADDRESS_WRAP: u8 = 1 << 5;
    /// Mode control: an address is that of a byte, not of two.
    pub const MODE_BYTE: u8 = 1 << 6;
    /// Line compare: low byte.
    pub const LINE_COMPARE: usize = 0x18;
    /// How many there are.
    pub const COUNT: usize = 0x19;
}

/// Numbers of sequencer registers.
pub mod sequencer {
    /// Clocking mode.
    pub const CLOCKING_MODE: usize = 1;
    /// Map mask: planes that are written.
    pub const MAP_MASK: usize = 2;
    /// Character map select.
    pub const CHARACTER_MAP_SELECT: usize = 3;
    /// Memory mode.
    pub const MEMORY_MODE: usize = 4;
    /// How many there are.
    pub const COUNT: usize = 5;
    /// Clocking mode: characters are 8 dots wide, not 9.
    pub const CLOCKING_8_DOTS: u8 = 1 << 0;
    /// Clocking mode: the dot clock is halved.
    pub const CLOCKING_HALF: u8 = 1 << 3;
    /// Clocking mode: the screen is off.
    pub const CLOCKING_SCREEN_OFF: u8 = 1 << 5;
    /// Memory mode: addresses run through the planes, not even to even and odd to odd ones.
    pub const MEMORY_SEQUENTIAL: u8 = 1 << 2;
    /// Memory mode: the low two address bits choose the plane.
    pub const MEMORY_CHAIN_4: u8 = 1 << 3;
}

/// Numbers of graphics controller registers.
pub mod graphics {
    /// Set/reset.
    pub const SET_RESET: usize = 0;
    /// Enable set/reset.
    pub const ENABLE_SET_RESET: usize = 1;
    /// Colour compare.
    pub const COLOR_COMPARE: usize = 2;
    /// Data rotate and function select.
    pub const DATA_ROTATE: usize = 3;
    /// Read map select.
    pub const READ_MAP_SELECT: usize = 4;
    /// Graphics mode.
    pub const MODE: usize = 5;
    /// Miscellaneous.
    pub const MISCELLANEOUS: usize = 6;
    /// Colour don't care.
    pub const COLOR_DONT_CARE: usize = 7;
    /// Bit mask.
    pub const BIT_MASK: usize = 8;
    /// How many there are.
    pub const COUNT: usize = 9;
    /// Mode: the write mode.
    pub const MODE_WRITE: u8 = 3;
    /// Mode: read mode 1.
    pub const MODE_READ_COMPARE: u8 = 1 << 3;
    /// Mode: even addresses read even planes, odd ones odd planes.
    pub const MODE_ODD_EVEN: u8 = 1 << 4;
    /// Mode: a pixel is two bits side by side, as CGA has it.
    pub const MODE_INTERLEAVED: u8 = 1 << 5;
    /// Mode: a pixel is a byte.
    pub const MODE_256_COLORS: u8 = 1 << 6;
}

/// Numbers of attribute controller registers, after the 16 of the palette.
pub mod attribute {
    /// Mode control.
    pub const MODE_CONTROL: usize = 0x10;
    /// Overscan colour.
    pub const OVERSCAN: usize = 0x11;
    /// Colour plane enable.
    pub const COLOR_PLANE_ENABLE: usize = 0x12;
    /// Horizontal pixel panning.
    pub const HORIZONTAL_PANNING: usize = 0x13;
    /// Colour select.
    pub const COLOR_SELECT: usize = 0x14;
    /// How many there are, the palette included.
    pub const COUNT: usize = 0x15;
    /// Mode control: graphics, not text.
    pub const MODE_GRAPHICS: u8 = 1 << 0;
    /// Mode control: the ninth dot of line drawing characters is like the eighth.
    pub const MODE_LINE_GRAPHICS: u8 = 1 << 2;
    /// Mode control: bit 7 of text attributes blinks, and is not part of the background.
    pub const MODE_BLINK: u8 = 1 << 3;
    /// Mode control: below the line compare the picture is not panned.
    pub const MODE_PANNING_SPLIT: u8 = 1 << 5;
    /// Mode control: bits 4 and 5 of colours come from the colour select register.
    pub const MODE_PALETTE_BITS: u8 = 1 << 7;
    /// Index: the number of a register.
    pub const INDEX: u8 = 0x1f;
    /// Index: the palette is shown, and not being loaded.
    pub const INDEX_PALETTE_SOURCE: u8 = 1 << 5;
}

pub(super) const SEQUENCER_MASKS: [u8; sequencer::COUNT] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];
pub(super) const GRAPHICS_MASKS: [u8; graphics::COUNT] =
    [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];
const CRTC_PROTECT: u8 = 1 << 7;
const OVERFLOW_LINE_COMPARE: u8 = 1 << 4;

/// The CRT controller.
pub type Crtc = Indexed<{ crtc::COUNT }>;

impl Crtc {
    /// Writes the register that the index points to.
    pub(super) fn write_protected(&mut self, value: u8) {
        let index = usize::from(self.index);
        let protected = self.registers[crtc::VERTICAL_RETRACE_END] & CRTC_PROTECT != 0;
        match self.registers.get_mut(index) {
            Some(overflow) if protected && index == crtc::OVERFLOW => {
                *overflow = *overflow & !OVERFLOW_LINE_COMPARE | value & OVERFLOW_LINE_COMPARE;
            }
            Some(_) if protected && index < crtc::OVERFLOW => {}
            Some(register) => *register = value,
            None => {}
        }
    }

    fn value(&self, register: usize) -> u32 {
        self.registers[register].into()
    }

    /// A vertical register with bits 8 and 9 from the given bits of the overflow register.
    fn vertical(&self, register: usize, bit8: u32, bit9: u32) -> u32 {
        let overflow = self.value(crtc::OVERFLOW);
        self.value(register) | (overflow >> bit8 & 1) << 8 | (overflow >> bit9 & 1) << 9
    }

    /// Vertical total in lines.
    pub fn vertical_total(&self) -> u32 {
        self.vertical(crtc::VERTICAL_TOTAL, 0, 5) + 2
    }

    /// Last line displayed.
    pub fn vertical_display_end(&self) -> u32 {
        self.vertical(crtc::VERTICAL_DISPLAY_END, 1, 6)
    }

    /// First line of the vertical retrace.
    pub fn vertical_retrace_start(&self) -> u32 {
        self.vertical(crtc::VERTICAL_RETRACE_START, 2, 7)
    }

    /// First line of vertical blanking.
    pub fn vertical_blank_start(&self) -> u32 {
        let bit9 = self.value(crtc::MAXIMUM_SCAN_LINE) >> 5 & 1;
        self.vertical(crtc::VERTICAL_BLANK_START, 3, 3) & 0x1ff | bit9 << 9
    }

    /// Characters in a line of the picture.
    pub fn columns(&self) -> u32 {
        let blank = self.value(crtc::HORIZONTAL_BLANK_START);
        shown(self.value(crtc::HORIZONTAL_DISPLAY_END), blank)
    }

    /// Lines of the picture.
    pub fn lines(&self) -> u32 {
        shown(self.vertical_display_end(), self.vertical_blank_start())
    }

    /// The line after which the display starts again at address 0.
    pub fn line_compare(&self) -> u32 {
        let bit9 = self.value(crtc::MAXIMUM_SCAN_LINE) >> 6 & 1;
        self.vertical(crtc::LINE_COMPARE, 4, 4) & 0x1ff | bit9 << 9
    }

    /// The address that the display starts at, in character cells or as the mode counts.
    pub fn start_address(&self) -> u32 {
        self.value(crtc::START_ADDRESS_HIGH) << 8 | self.value(crtc::START_ADDRESS_LOW)
    }

    /// The cursor's address, in character cells.
    pub fn cursor_location(&self) -> u32 {
        self.value(crtc::CURSOR_LOCATION_HIGH) << 8 | self.value(crtc::CURSOR_LOCATION_LOW)
    }

    /// The height of a character row in lines, doubled lines counted.
    pub fn character_height(&self) -> u32 {
        let scan = self.value(crtc::MAXIMUM_SCAN_LINE);
        ((scan & 0x1f) + 1) << (scan >> 7)
    }
}

/// The attribute controller: index and data share a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The index with [`attribute::INDEX_PALETTE_SOURCE`].
    pub index: u8,
    /// The next write of the port is data.
    pub data_next: bool,
    /// The registers: 16 of the palette, then those of [`attribute`].
    pub registers: [u8; attribute::COUNT],
}

impl Default for Attribute {
    fn default() -> Self {
        Self { index: attribute::INDEX_PALETTE_SOURCE, data_next: false, registers: [0; attribute::COUNT] }
    }
}

impl Attribute {
    /// Reads the register that the index points to.
    pub fn read(&self) -> u8 {
        self.registers.get(usize::from(self.index & 0x1f)).copied().unwrap_or(0)
    }

    /// Writes the port.
    pub(super) fn write(&mut self, value: u8) {
        if !self.data_next {
            self.index = value & 0x3f;
        } else if let Some(register) = self.registers.get_mut(usize::from(self.index & 0x1f)) {
            let mask = match usize::from(self.index & 0x1f) {
                attribute::MODE_CONTROL => 0xef,
                attribute::OVERSCAN => 0xff,
                attribute::COLOR_PLANE_ENABLE => 0x3f,
                attribute::HORIZONTAL_PANNING | attribute::COLOR_SELECT => 0x0f,
                _ => 0x3f,
            };
            *register = value & mask;
        }
        self.data_next = !self.data_next;
    }

    /// Graphics are shown, not text.
    pub fn graphics(&self) -> bool {
        self.registers[attribute::MODE_CONTROL] & attribute::MODE_GRAPHICS != 0
    }
}

/// The palette DAC: 256 colours of three components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dac {
    /// The colours, 00RRGGBBh with 8 bits a component.
    pub palette: Box<[u32; 256]>,
    /// Pixel mask.
    pub mask: u8,
    /// Colour * 3 + component that is written next.
    pub write_position: u16,
    /// Colour * 3 + component that is read next.
    pub read_position: u16,
    /// The state register: 3 after a write index, 0 after a read index.
    pub state: u8,
}

impl Default for Dac {
    fn default() -> Self {
        Self { palette: Box::new([0; 256]), mask: 0xff, write_position: 0, read_position: 0, state: 0 }
    }
}

impl Dac {
    /// Components in the palette.
    const COMPONENTS: u16 = 3 * 256;

    pub(super) fn set_write_index(&mut self, index: u8) {
        self.write_position = 3 * u16::from(index);
        self.state = 3;
    }

    pub(super) fn set_read_index(&mut self, index: u8) {
        self.read_position = 3 * u16::from(index);
        self.state = 0;
    }

    pub(super) fn write_index(&self) -> u8 {
        (self.write_position / 3) as u8
    }

    /// Writes a component; without `wide` it has 6 bits.
    pub(super) fn write(&mut self, value: u8, wide: bool) {
        let (entry, shift) = Self::place(self.write_position);
        let value = if wide { value } else { ((value & 0x3f) << 2) | (3 * (value & 1)) };
        let color = &mut self.palette[entry];
        *color = *color & !(0xff << shift) | u32::from(value) << shift;
        self.write_position = (self.write_position + 1) % Self::COMPONENTS;
    }

    /// Reads a component.
    pub(super) fn read(&mut self, wide: bool) -> u8 {
        let (entry, shift) = Self::place(self.read_position);
        let value = (self.palette[entry] >> shift) as u8;
        self.read_position = (self.read_position + 1) % Self::COMPONENTS;
        if wide { value } else { value >> 2 }
    }

    /// The palette entry and the shift of a component in it.
    fn place(position: u16) -> (usize, u32) {
        (usize::from((position / 3) & 0xff), 16 - 8 * u32::from(position % 3))
    }
}

/// How many are shown until the last one that is displayed, when blanking starts with one. Linux' `vga16fb` has it start
/// with the last one of 640 by 480, and means all of them. Before a mode is set nothing is shown: both are 0.
fn shown(last: u32, blank: u32) -> u32 {
    if blank < last.max(1) { blank } else { last + 1 }
}
