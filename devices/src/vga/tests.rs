// A list of one range is meant.
#![allow(clippy::single_range_in_vec_init)]

use super::registers::attribute;
use super::*;
use core::ops::{Deref, DerefMut};

const RAM: u32 = 8 << 20;

/// A card and the memory that it has a part of.
pub(super) struct Card {
    pub(super) vga: Vga,
    pub(super) mem: Box<Memory>,
}

impl Deref for Card {
    type Target = Vga;

    fn deref(&self) -> &Vga {
        &self.vga
    }
}

impl DerefMut for Card {
    fn deref_mut(&mut self) -> &mut Vga {
        &mut self.vga
    }
}

impl Card {
    pub(super) fn new(size: u32) -> Self {
        let mut mem = Memory::new(1 << 20).unwrap();
        let vga = Vga::new(&mut mem, size);
        vga.map_framebuffer(&mut mem, Some(FRAMEBUFFER));
        Self { vga, mem }
    }

    pub(super) fn write(&mut self, port: u16, value: u8) {
        self.write_at(port, value, 0);
    }

    pub(super) fn write_at(&mut self, port: u16, value: u8, now: u64) {
        self.vga.write(&mut self.mem, port, value, now);
    }

    pub(super) fn write_vbe_port(&mut self, port: u16, value: u16) {
        self.vga.write_vbe_port(&mut self.mem, port, value);
    }

    pub(super) fn read_window(&mut self, offset: u32, width: Width) -> u32 {
        self.vga.read_window(&self.mem, offset, width)
    }

    pub(super) fn write_window(&mut self, offset: u32, width: Width, value: u32) {
        self.vga.write_window(&mut self.mem, offset, width, value);
    }

    pub(super) fn text(&self) -> Option<TextScreen> {
        self.vga.text(&self.mem)
    }

    pub(super) fn planes(&mut self) -> &mut [u8] {
        assert!(!self.vga.chained);
        self.mem.region_mut(self.vga.memory.planes, 0..4 * PLANE_SIZE as u32)
    }

    /// What the processor sees in the window without asking the card.
    fn mapped(&self, offset: u32) -> Option<u8> {
        self.mem.slice(WINDOW + offset, 1).map(|byte| byte[0])
    }

    fn changes(&mut self, seen: &mut Generation) -> Option<Changes> {
        self.vga.changes(&mut self.mem, seen)
    }
}

/// Sets dispi registers.
pub(super) fn set_vbe(vga: &mut Card, registers: &[(u16, u16)]) {
    for &(index, value) in registers {
        vga.write_vbe_port(VBE_INDEX, index);
        vga.write_vbe_port(VBE_DATA, value);
    }
}

pub(super) fn indexed(vga: &mut Card, port: u16, registers: &[(u8, u8)]) {
    for &(index, value) in registers {
        vga.write(port, index);
        vga.write(port + 1, value);
    }
}

pub(super) fn attributes(vga: &mut Card, registers: &[(u8, u8)]) {
    vga.read(INPUT_STATUS_1, 0);
    for &(index, value) in registers {
        vga.write(ATTRIBUTE_WRITE, index);
        vga.write(ATTRIBUTE_WRITE, value);
    }
    vga.write(ATTRIBUTE_WRITE, attribute::INDEX_PALETTE_SOURCE);
}

/// Text mode 3 with 400 lines, as a video BIOS sets it.
pub(super) fn text_mode() -> Card {
    let mut vga = Card::new(RAM);
    vga.write(MISCELLANEOUS_WRITE, 0x67);
    indexed(&mut vga, SEQUENCER_INDEX, &[(1, 0), (2, 3), (3, 0), (4, 2)]);
    let timing = [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c,
        0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ];
    for (index, value) in (0u8..).zip(timing) {
        indexed(&mut vga, CRTC_INDEX, &[(index, value)]);
    }
    indexed(&mut vga, GRAPHICS_INDEX, &[(5, 0x10), (6, 0x0e), (7, 0), (8, 0xff)]);
    attributes(&mut vga, &[(0x10, 0x0c), (0x12, 0x0f), (0x13, 8)]);
    vga
}

/// Planar graphics: mode 12h as far as the memory is concerned.
pub(super) fn planar() -> Card {
    let mut vga = text_mode();
    indexed(&mut vga, SEQUENCER_INDEX, &[(2, 0x0f), (4, 6)]);
    indexed(&mut vga, GRAPHICS_INDEX, &[(5, 0), (6, 5), (7, 0x0f)]);
    attributes(&mut vga, &[(0x10, 1)]);
    vga
}

fn plane(vga: &Card, number: usize, offset: usize) -> u8 {
    vga.vga.planes(&vga.mem).at(offset)[number]
}

fn put(vga: &mut Card, offset: u32, value: u32) {
    vga.write_window(offset, Width::Byte, value);
}

fn get(vga: &mut Card, offset: u32) -> u8 {
    vga.read_window(offset, Width::Byte) as u8
}

#[test]
fn text_is_stored_side_by_side() {
    let mut vga = text_mode();
    vga.write_window(0x1_8000, Width::Dword, 0x1f42_0741);
    assert_eq!(vga.planes()[..4], [0x41, 0x07, 0x42, 0x1f]);
    assert_eq!(vga.read_window(0x1_8002, Width::Word), 0x1f42);
    assert_eq!(vga.read_window(0, Width::Dword), u32::MAX, "outside the window");
}

#[test]
fn fonts_go_to_plane_2() {
    let mut vga = text_mode();
    indexed(&mut vga, SEQUENCER_INDEX, &[(2, 4), (4, 6)]);
    indexed(&mut vga, GRAPHICS_INDEX, &[(4, 2), (5, 0), (6, 4)]);
    put(&mut vga, 0x820, 0x3c);
    assert_eq!(plane(&vga, 2, 0x820), 0x3c);
    assert_eq!(get(&mut vga, 0x820), 0x3c);
}

#[test]
fn snapshot_of_the_screen() {
    let mut vga = text_mode();
    for (i, byte) in (0u32..).zip(*b"H\x0fi\x0f\x01\x8f") {
        put(&mut vga, 0x1_8000 + 160 + i, byte.into());
    }
    indexed(&mut vga, CRTC_INDEX, &[(0x0e, 0), (0x0f, 83)]);
    let screen = vga.text().unwrap();
    assert_eq!((screen.columns, screen.rows), (80, 25));
    assert_eq!(screen.line(1), "Hi☺");
    assert_eq!(screen.row(1)[2], Cell { character: 1, attribute: 0x8f });
    assert_eq!(screen.cursor, Some(Cursor { row: 1, column: 3, start: 13, end: 14 }));
    assert!(screen.blink && screen.row(25).is_empty());
    indexed(&mut vga, CRTC_INDEX, &[(0x0d, 80), (0x0a, 0x2d)]);
    let screen = vga.text().unwrap();
    assert_eq!(screen.line(0), "Hi☺");
    assert_eq!(screen.cursor, None);
}

#[test]
fn a_split_screen_starts_again_at_zero() {
    let mut vga = text_mode();
    put(&mut vga, 0x1_8000, b'0'.into());
    put(&mut vga, 0x1_8000 + 800, b'4'.into());
    // Start at cell 400, compare at line 15: one row of it, then address 0.
    indexed(
        &mut vga,
        CRTC_INDEX,
        &[(0x11, 0x0e), (0x0c, 1), (0x0d, 0x90), (0x18, 15), (0x07, 0x0f), (0x09, 0x0f)],
    );
    let screen = vga.text().unwrap();
    assert_eq!(screen.line(0), "4");
    assert_eq!(screen.line(1), "0");
}

#[test]
fn power_on_screen_is_blank() {
    let screen = Card::new(0).text().unwrap();
    assert_eq!((screen.columns, screen.rows), (80, 25));
    assert_eq!(screen.line(0), "");
}

#[test]
fn write_mode_0_rotates_sets_combines_and_masks() {
    let mut vga = planar();
    put(&mut vga, 0, 0xa5);
    assert_eq!([plane(&vga, 0, 0), plane(&vga, 3, 0)], [0xa5, 0xa5]);
    get(&mut vga, 0);
    // Rotate by 4, XOR with the latches, plane 1 from set/reset, only the high nibble.
    indexed(&mut vga, GRAPHICS_INDEX, &[(0, 2), (1, 2), (3, 0x1c), (8, 0xf0)]);
    put(&mut vga, 1, 0x0f);
    assert_eq!(plane(&vga, 0, 1), 0x55);
    assert_eq!(plane(&vga, 1, 1), 0x55, "FFh XOR A5h is 5Ah in the high nibble");
    indexed(&mut vga, SEQUENCER_INDEX, &[(2, 1)]);
    put(&mut vga, 2, 0);
    assert_eq!([plane(&vga, 0, 2), plane(&vga, 1, 2)], [0xa5, 0], "the map mask holds plane 1 off");
}

#[test]
fn write_modes_1_to_3() {
    let mut vga = planar();
    for number in 0..4 {
        vga.planes()[number * PLANE_SIZE] = 0x10 + number as u8;
    }
    get(&mut vga, 0);
    indexed(&mut vga, GRAPHICS_INDEX, &[(5, 1)]);
    put(&mut vga, 9, 0xff);
    assert_eq!([plane(&vga, 0, 9), plane(&vga, 3, 9)], [0x10, 0x13]);
    indexed(&mut vga, GRAPHICS_INDEX, &[(5, 2), (8, 0x0f)]);
    put(&mut vga, 10, 0b1000);
    assert_eq!([plane(&vga, 0, 10), plane(&vga, 3, 10)], [0x10, 0x1f]);
    indexed(&mut vga, GRAPHICS_INDEX, &[(0, 1), (5, 3), (8, 0x3f)]);
    put(&mut vga, 11, 0xf0);
    assert_eq!([plane(&vga, 0, 11), plane(&vga, 1, 11)], [0x30, 0x01]);
}

#[test]
fn read_modes() {
    let mut vga = planar();
    vga.planes()[0] = 0b1100;
    vga.planes()[PLANE_SIZE] = 0b1010;
    indexed(&mut vga, GRAPHICS_INDEX, &[(4, 1)]);
    assert_eq!(get(&mut vga, 0), 0b1010);
    indexed(&mut vga, GRAPHICS_INDEX, &[(5, 8), (2, 0b01), (7, 0b11)]);
    assert_eq!(get(&mut vga, 0), 0b0100);
    indexed(&mut vga, GRAPHICS_INDEX, &[(7, 0)]);
    assert_eq!(get(&mut vga, 0), 0xff);
}

#[test]
fn chained_and_odd_even_storage() {
    let mut vga = planar();
    indexed(&mut vga, SEQUENCER_INDEX, &[(4, 0x0e)]);
    vga.write_window(4, Width::Dword, 0x4433_2211);
    assert_eq!([plane(&vga, 0, 4), plane(&vga, 1, 4), plane(&vga, 3, 4)], [0x11, 0x22, 0x44]);
    assert_eq!(vga.read_window(4, Width::Dword), 0x4433_2211);
    indexed(&mut vga, SEQUENCER_INDEX, &[(4, 2)]);
    indexed(&mut vga, GRAPHICS_INDEX, &[(5, 0x10)]);
    vga.write_window(8, Width::Word, 0x6655);
    assert_eq!([plane(&vga, 0, 8), plane(&vga, 1, 8), plane(&vga, 2, 8)], [0x55, 0x66, 0x55]);
    assert_eq!(vga.read_window(8, Width::Word), 0x6655);
}

#[test]
fn dac_has_6_or_8_bits() {
    let mut vga = text_mode();
    vga.write(DAC_WRITE_INDEX, 255);
    for value in [63, 0, 1, 2] {
        vga.write(DAC_DATA, value);
    }
    assert_eq!(vga.dac.palette[255], 0xff_00_07);
    assert_eq!(vga.dac.palette[0], 0x08_00_00, "wraps");
    vga.write(DAC_READ_INDEX, 255);
    assert_eq!(vga.read(DAC_READ_INDEX, 0), 0);
    assert_eq!([vga.read(DAC_DATA, 0), vga.read(DAC_DATA, 0), vga.read(DAC_DATA, 0)], [63, 0, 1]);
    vga.write_vbe_port(VBE_INDEX, 4);
    vga.write_vbe_port(VBE_DATA, 0x20);
    vga.write(DAC_WRITE_INDEX, 1);
    vga.write(DAC_DATA, 0x81);
    assert_eq!(vga.dac.palette[1], 0x81_00_00);
}

#[test]
fn attribute_port_toggles_and_keeps_its_index() {
    let mut vga = text_mode();
    vga.read(INPUT_STATUS_1, 0);
    vga.write(ATTRIBUTE_WRITE, 0x11);
    vga.write(ATTRIBUTE_WRITE, 0x2a);
    vga.read(INPUT_STATUS_1, 0);
    assert_eq!(vga.read(ATTRIBUTE_READ, 0), 0x2a);
}

#[test]
fn crtc_protection() {
    let mut vga = text_mode();
    indexed(&mut vga, CRTC_INDEX, &[(0, 0xaa), (7, 0xff)]);
    assert_eq!(vga.crtc.registers[0], 0x5f);
    assert_eq!(vga.crtc.registers[7], 0x1f, "only the line compare bit, which was set");
    indexed(&mut vga, MONO_CRTC_INDEX, &[(0x11, 0x0e), (0, 0xaa)]);
    assert_eq!(vga.crtc.registers[0], 0xaa);
}

#[test]
fn retrace_comes_and_goes_70_times_a_second() {
    for mut vga in [text_mode(), Card::new(RAM)] {
        let mut edges = 0;
        let mut before = 0;
        for micros in (0..1_000_000u64).step_by(20) {
            let status = vga.read(INPUT_STATUS_1, micros * 1000) & VERTICAL_RETRACE;
            edges += u32::from(status != 0 && before == 0);
            before = status;
        }
        assert!((69..=71).contains(&edges), "{edges}");
    }
}

#[test]
fn vbe_modes() {
    let mut vga = text_mode();
    let set = |vga: &mut Card, index: u16, value: u16| set_vbe(vga, &[(index, value)]);
    let read = |vga: &mut Card, index: u16| {
        vga.write_vbe_port(VBE_INDEX, index);
        vga.read_vbe(VBE_DATA)
    };
    assert_eq!(read(&mut vga, 0), 0xb0c5);
    assert_eq!(read(&mut vga, 10), 128);
    set(&mut vga, 4, 2);
    assert_eq!([read(&mut vga, 1), read(&mut vga, 2), read(&mut vga, 3)], [2560, 1600, 32]);
    vga.mem.write_u8(FRAMEBUFFER, 1);
    for (index, value) in [(1, 1024), (2, 768), (3, 32), (4, 0x41)] {
        set(&mut vga, index, value);
    }
    assert!(vga.graphics_shown() && vga.text().is_none());
    assert_eq!(vga.mem.read_u8(FRAMEBUFFER), 0, "cleared");
    assert_eq!([read(&mut vga, 6), read(&mut vga, 7)], [1024, 2048]);
    vga.mem.write_u32(FRAMEBUFFER + 0x1_0004, 0x0403_0201);
    set(&mut vga, 5, 1);
    assert_eq!(vga.read_window(4, Width::Dword), 0x0403_0201);
    assert_eq!(vga.mem.read_u32(FRAMEBUFFER + RAM - 2), 0xffff_0000);
    set(&mut vga, 4, 0);
    assert!(vga.text().is_some());
    for (index, value) in [(1, 2560), (2, 1600), (3, 32), (4, 0x41)] {
        set(&mut vga, index, value);
    }
    assert!(!vga.vbe.active, "does not fit in 8 MiB");
}

#[test]
fn a_vbe_mode_of_planes_is_written_through_the_vga_s_registers() {
    let mut vga = planar();
    set_vbe(&mut vga, &[(1, 1024), (2, 768), (3, 4), (4, 0x41)]);
    assert!(vga.vbe.active && vga.mapped(0).is_none());
    indexed(&mut vga, SEQUENCER_INDEX, &[(2, 0b0101)]);
    vga.write_window(3, Width::Byte, 0x81);
    assert_eq!(vga.mem.read_u32(FRAMEBUFFER + 12), 0x0081_0081);
    // The second bank begins 65,536 bytes of each plane later; read map 2 is its third byte.
    set_vbe(&mut vga, &[(5, 1)]);
    vga.write_window(0xffff, Width::Byte, 0x42);
    indexed(&mut vga, GRAPHICS_INDEX, &[(4, 2)]);
    assert_eq!(vga.mem.read_u32(FRAMEBUFFER + 4 * 0x1_ffff), 0x0042_0042);
    assert_eq!(vga.read_window(0xffff, Width::Byte), 0x42);
    // A bit mask keeps the rest of what was read last.
    indexed(&mut vga, GRAPHICS_INDEX, &[(8, 0x0f)]);
    vga.write_window(0, Width::Byte, 0xff);
    assert_eq!(vga.mem.read_u32(FRAMEBUFFER + 4 * 0x1_0000), 0x004f_004f);
    // A bank beyond the memory reads as nothing, and takes nothing.
    set_vbe(&mut vga, &[(5, (RAM >> 16) as u16 - 1)]);
    vga.write_window(0, Width::Byte, 1);
    assert_eq!(vga.read_window(0, Width::Byte), 0xff);
    // Its picture has a row each 128 bytes of a plane, and begins at multiples of eight dots.
    set_vbe(&mut vga, &[(9, 1), (8, 17)]);
    assert_eq!(vga.vbe.shown().start, 4 * (128 + 2));
    assert_eq!(vga.vbe.pitch(), 512);
}

#[test]
fn any_access_is_harmless() {
    for mut vga in [text_mode(), planar(), Card::new(1 << 20)] {
        for port in PORTS.chain(MONO_PORTS) {
            for value in [0, 0x55, 0xff] {
                vga.write(port, value);
                vga.read(port, u64::MAX);
            }
        }
        for index in 0..20 {
            vga.write_vbe_port(VBE_INDEX, index);
            vga.write_vbe_port(VBE_DATA, 0xffff);
        }
        for offset in [0, 0x7fff, 0xffff, WINDOW_SIZE - 1] {
            vga.write_window(offset, Width::Dword, u32::MAX);
            vga.read_window(offset, Width::Dword);
        }
        vga.text();
    }
}

#[test]
fn reset_keeps_the_memory() {
    let mut vga = planar();
    put(&mut vga, 3, 7);
    vga.vga.reset(&mut vga.mem);
    assert_eq!(plane(&vga, 0, 3), 7);
    assert_eq!(vga.memory.framebuffer.size(), RAM);
    assert!(!vga.graphics_shown());
}

#[test]
fn identity_on_the_bus() {
    let space = Card::new(RAM).config_space();
    assert_eq!(space.read(0, Width::Dword), 0x1111_1234);
    assert_eq!(space.read(0x10, Width::Dword), 0xe000_0008);
    assert_eq!(space.bar(0), Some(FRAMEBUFFER));
    assert_eq!(Card::new(RAM).devfn(), 144);
}

#[test]
fn the_window_is_mapped_where_it_is_linear() {
    let mut vga = text_mode();
    vga.write_window(0x1_8002, Width::Byte, 0x42);
    assert_eq!((vga.mapped(0x1_8002), vga.mapped(0)), (Some(0x42), None));
    vga.mem.write_u8(WINDOW + 0x1_8000, 0x41);
    assert_eq!(vga.text().unwrap().line(0), "AB");
    // A font is loaded: the map mask has a say.
    indexed(&mut vga, SEQUENCER_INDEX, &[(2, 4)]);
    assert_eq!(vga.mapped(0x1_8002), None);
    indexed(&mut vga, SEQUENCER_INDEX, &[(2, 3)]);
    assert_eq!(vga.mapped(0x1_8002), Some(0x42));
    assert_eq!(planar().mapped(0), None);

    set_vbe(&mut vga, &[(1, 640), (2, 480), (3, 8), (4, 0x41)]);
    vga.mem.write_u8(FRAMEBUFFER + 0x2_0005, 7);
    assert_eq!((vga.mapped(5), vga.mapped(0x1_8002)), (Some(0), None));
    set_vbe(&mut vga, &[(5, 2)]);
    assert_eq!(vga.mapped(5), Some(7));
    vga.mem.write_u8(WINDOW + 6, 8);
    assert_eq!(vga.mem.read_u16(FRAMEBUFFER + 0x2_0005), 0x0807);
    vga.vga.reset(&mut vga.mem);
    assert_eq!(vga.mapped(5), Some(0), "text again, at the power-on window");
    assert_eq!(vga.mem.read_u16(FRAMEBUFFER + 0x2_0005), 0x0807);
}

#[test]
fn chained_bytes_are_mapped_while_no_register_has_a_say() {
    let mut vga = planar();
    vga.planes()[PLANE_SIZE + 4] = 0x15;
    let chain = |vga: &mut Card| indexed(vga, SEQUENCER_INDEX, &[(4, 0x0e)]);
    chain(&mut vga);
    assert_eq!((vga.mapped(5), vga.mapped(0x1_0005)), (Some(0x15), None));
    vga.mem.write_u32(WINDOW + 0xfffc, 0x4433_2211);
    assert_eq!(vga.read_window(0xfffe, Width::Word), 0x4433);
    // A bit mask: the latches have a say, and find what was stored.
    indexed(&mut vga, GRAPHICS_INDEX, &[(8, 0x0f)]);
    assert_eq!(vga.mapped(5), None);
    assert_eq!((plane(&vga, 3, 0xfffc), get(&mut vga, 0xfffd)), (0x44, 0x22));
    put(&mut vga, 0xfffd, 0xff);
    indexed(&mut vga, GRAPHICS_INDEX, &[(8, 0xff)]);
    assert_eq!(vga.mapped(0xfffd), Some(0x2f));
    // What is not chained stays where it is; a reset and a saved state find all of it.
    assert_eq!(vga.mem.region(vga.memory.planes)[PLANE_SIZE + 4], 0x15);
    vga.mem.write_u8(WINDOW + 6, 0x66);
    vga.vga.settle(&mut vga.mem);
    assert_eq!(vga.mem.region(vga.memory.planes)[2 * PLANE_SIZE + 4], 0x66);
    vga.mem.write_u8(WINDOW + 6, 0x67);
    vga.vga.reset(&mut vga.mem);
    assert_eq!(vga.planes()[2 * PLANE_SIZE + 4], 0x67);
}

#[test]
fn every_screen_learns_what_changed_since_it_looked() {
    let mut vga = text_mode();
    let all = 0..4 * PLANE_SIZE as u32;
    let mut seen = Generation::default();
    let first = vga.changes(&mut seen).unwrap();
    assert_eq!((first.registers, first.memory), (true, vec![all]));
    let mut slow = seen;
    assert_eq!(vga.changes(&mut seen), None);
    vga.write(SEQUENCER_INDEX, 2);
    vga.read(INPUT_STATUS_1, 0);
    assert_eq!(vga.changes(&mut seen), None, "an index and a look at the beam");
    put(&mut vga, 0x1_8000, 0x41);
    vga.mem.write_u8(WINDOW + 0x1_9000, 0x41);
    let second = vga.changes(&mut seen).unwrap();
    assert_eq!((second.registers, second.memory), (false, vec![0..0x2000]));
    indexed(&mut vga, CRTC_INDEX, &[(0x0f, 9)]);
    let third = vga.changes(&mut seen).unwrap();
    assert_eq!((third.registers, third.memory), (true, vec![]));
    // Another screen, which has slept meanwhile.
    assert_eq!(vga.changes(&mut slow).unwrap().memory, [0..0x2000]);
    set_vbe(&mut vga, &[(1, 1024), (2, 4), (3, 32), (4, 0x41), (9, 2)]);
    assert!(vga.changes(&mut seen).unwrap().registers);
    vga.mem.write(FRAMEBUFFER, &[1; 0x8000]);
    let fourth = vga.changes(&mut seen).unwrap();
    assert_eq!((fourth.registers, fourth.memory), (false, vec![0x2000..0x6000]), "rows 2 to 5 are shown");
}

#[test]
fn a_window_beyond_the_memory_is_not_mapped() {
    let mut vga = Card::new(MIN_MEMORY);
    set_vbe(&mut vga, &[(1, 320), (2, 200), (3, 8), (4, 0x41)]);
    vga.vga.vbe.bank = 4;
    vga.vga.map_window(&mut vga.mem);
    assert_eq!((vga.mapped(0), vga.read_window(0, Width::Byte)), (None, 0xff));
}
