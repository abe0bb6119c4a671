use super::*;
use crate::vga::tests::{Card, attributes, indexed, planar, set_vbe, text_mode};
use crate::vga::{ATTRIBUTE_WRITE, CRTC_INDEX, DAC_DATA, DAC_WRITE_INDEX, FRAMEBUFFER, GRAPHICS_INDEX};
use crate::vga::{INPUT_STATUS_1, MISCELLANEOUS_WRITE, SEQUENCER_INDEX, WINDOW};
use env86_emu::Width;

/// The index of a DAC register is the red component of its colour.
fn palette(card: &mut Card) {
    card.write(DAC_WRITE_INDEX, 0);
    for color in 0..=255u8 {
        card.vga.dac.palette[usize::from(color)] = u32::from(color) << 16;
    }
    card.write(DAC_DATA, 0);
}

/// Pixels of a part of a line, by the DAC register that they come from.
fn dots(screen: &Screen, line: usize, part: Range<usize>) -> Vec<u8> {
    screen.frame().line(line)[part].iter().map(|pixel| pixel[0]).collect()
}

fn update(screen: &mut Screen, card: &mut Card, now: u64) -> Option<Range<usize>> {
    screen.update(&card.vga, &mut card.mem, now)
}

/// In nanoseconds.
const QUIET_FRAME: u64 = 66_000_000;

fn shown(card: &mut Card) -> Screen {
    let mut screen = Screen::default();
    let (_, height) = card.vga.size();
    // A frame in which no registers are written, nor were in the one before.
    assert_eq!(update(&mut screen, card, QUIET_FRAME), Some(0..height));
    screen
}

/// The first sixteen registers of the attribute controller are the colours 0 to 15.
fn own_colors(card: &mut Card) {
    attributes(card, &core::array::from_fn::<_, 16, _>(|n| (n as u8, n as u8)));
    palette(card);
}

/// Text mode 3 whose characters 41h and C4h have a glyph: 41h a corner, C4h its ninth dot.
fn text() -> Card {
    let mut card = text_mode();
    own_colors(&mut card);
    let planes = card.planes();
    let font = &mut planes[2 * PLANE_SIZE..];
    font[32 * 0x41] = 0b1000_0001;
    font[32 * 0xc4] = 0b0000_0001;
    card
}

fn put(card: &mut Card, at: u32, cells: &[u8]) {
    for (i, byte) in (0..).zip(cells) {
        card.write_window(0x1_8000 + at + i, Width::Byte, (*byte).into());
    }
}

#[test]
fn text_has_nine_dots() {
    let mut card = text();
    put(&mut card, 0, &[0x41, 0x1e, 0xc4, 0x2f, 0x41, 0x0f]);
    let screen = shown(&mut card);
    assert_eq!((screen.frame().width, screen.frame().height), (720, 400));
    assert_eq!(dots(&screen, 0, 0..9), [14, 1, 1, 1, 1, 1, 1, 14, 1]);
    assert_eq!(dots(&screen, 0, 9..18), [2, 2, 2, 2, 2, 2, 2, 15, 15]);
    assert_eq!(dots(&screen, 1, 0..9), [1; 9]);
    // Eight dots, and no line drawing.
    indexed(&mut card, SEQUENCER_INDEX, &[(1, 1)]);
    attributes(&mut card, &[(0x13, 0)]);
    let screen = shown(&mut card);
    assert_eq!(screen.frame().width, 640);
    assert_eq!(dots(&screen, 0, 8..17), [2, 2, 2, 2, 2, 2, 2, 15, 15]);
    // Half the clock: each dot twice.
    indexed(&mut card, SEQUENCER_INDEX, &[(1, 9)]);
    let screen = shown(&mut card);
    assert_eq!(dots(&screen, 0, 0..6), [14, 14, 1, 1, 1, 1]);
}

#[test]
fn two_fonts_are_chosen_by_the_attribute() {
    let mut card = text();
    card.planes()[2 * PLANE_SIZE + 0x2000 + 32 * 0x41] = 0xff;
    put(&mut card, 0, &[0x41, 0x01, 0x41, 0x09]);
    // The second font is number 4: 2000h.
    indexed(&mut card, SEQUENCER_INDEX, &[(3, 0x20)]);
    let screen = shown(&mut card);
    assert_eq!(dots(&screen, 0, 0..9), [1, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(dots(&screen, 0, 9..18), [9, 9, 9, 9, 9, 9, 9, 9, 0]);
}

#[test]
fn cursor_and_characters_blink_and_only_then_are_drawn() {
    let mut card = text();
    put(&mut card, 0, &[0x41, 0x8f]);
    indexed(&mut card, CRTC_INDEX, &[(0x0f, 1), (0x0a, 13), (0x0b, 14)]);
    put(&mut card, 2, &[0x20, 0x07]);
    let mut screen = shown(&mut card);
    assert_eq!(dots(&screen, 13, 9..18), [7; 9]);
    assert_eq!(dots(&screen, 15, 9..18), [0; 9]);
    assert_eq!(dots(&screen, 0, 0..1), [15]);
    let frame = card.vga.timing().frame_ps() / 1000 + 1;
    assert!((14_200_000..14_300_000).contains(&frame), "70 Hz: {frame}");
    assert_eq!(update(&mut screen, &mut card, 7 * frame), None);
    assert_eq!(update(&mut screen, &mut card, 8 * frame), Some(13..15));
    assert_eq!(dots(&screen, 13, 9..18), [0; 9]);
    assert_eq!(update(&mut screen, &mut card, 16 * frame), Some(0..15));
    assert_eq!(dots(&screen, 0, 0..1), [0], "a character without its foreground");
    // What is drawn of a blink alone is what is drawn anew, also behind a split.
    indexed(&mut card, CRTC_INDEX, &[(0x18, 100), (0x07, 0x0f), (0x09, 0x0f)]);
    for frames in 16..64 {
        update(&mut screen, &mut card, frames * frame);
        let mut anew = Screen::default();
        update(&mut anew, &mut card, frames * frame);
        assert!(screen.frame() == anew.frame(), "{frames}");
    }
    indexed(&mut card, CRTC_INDEX, &[(0x18, 0xff), (0x07, 0x1f), (0x09, 0x4f)]);
    // Bit 7 is a colour.
    attributes(&mut card, &[(0x10, 4)]);
    let screen = shown(&mut card);
    assert_eq!(dots(&screen, 0, 0..2), [15, 8]);
}

#[test]
fn a_cursor_that_is_steady_needs_no_more_looks() {
    const SECOND: u64 = 1_000_000_000;
    const STEP: u64 = SECOND / 20;
    let mut card = text();
    indexed(&mut card, CRTC_INDEX, &[(0x0f, 1), (0x0a, 13), (0x0b, 14)]);
    put(&mut card, 2, &[0x20, 0x07]);
    let mut screen = Screen::with_steady_cursor(2 * SECOND);
    let run = |screen: &mut Screen, card: &mut _, times: Range<u64>| -> (usize, bool) {
        let changed = times.step_by(STEP as usize).filter(|now| update(screen, card, *now).is_some()).count();
        (changed, screen.is_still())
    };
    let (changes, still) = run(&mut screen, &mut card, 0..2 * SECOND);
    assert!((14..22).contains(&changes) && !still, "{changes}");
    let (changes, still) = run(&mut screen, &mut card, 2 * SECOND..3 * SECOND);
    assert!(changes <= 1 && still, "{changes}");
    assert_eq!(dots(&screen, 13, 9..18), [7; 9], "it is shown");
    // The guest writes something: it blinks again, and so does a character.
    put(&mut card, 4, &[0x41, 0x8f]);
    let (_, still) = run(&mut screen, &mut card, 3 * SECOND..3 * SECOND + 1);
    assert!(!still);
    let (changes, still) = run(&mut screen, &mut card, 6 * SECOND..8 * SECOND);
    assert!((7..11).contains(&changes) && !still, "{changes}");
    // Without both, there is nothing to look at.
    indexed(&mut card, CRTC_INDEX, &[(0x0a, 0x20)]);
    put(&mut card, 4, &[0x41, 0x0f]);
    let (changes, still) = run(&mut screen, &mut card, 8 * SECOND..9 * SECOND);
    assert!(changes == 1 && still, "{changes}");
}

#[test]
fn what_is_written_is_drawn() {
    let mut card = text();
    indexed(&mut card, CRTC_INDEX, &[(0x0a, 0x20)]);
    let mut screen = shown(&mut card);
    assert_eq!(update(&mut screen, &mut card, 0), None);
    // As the processor does it, beside the card.
    card.mem.write(WINDOW + 0x1_8000 + 160, &[0x41, 0x0f]);
    assert_eq!(update(&mut screen, &mut card, 0), Some(16..17));
    assert_eq!(update(&mut screen, &mut card, 0), None);
    // A write of the same, and one that is not on the screen.
    card.mem.write(WINDOW + 0x1_8000 + 160, &[0x41, 0x0f]);
    card.mem.write(WINDOW + 0x1_8000 + 8000, &[0x41, 0x0f]);
    assert_eq!(update(&mut screen, &mut card, 0), None);
    let mut other = Screen::default();
    assert!(update(&mut other, &mut card, 0).is_some());
    assert_eq!(other.frame(), screen.frame());
}

#[test]
fn a_split_screen_is_panned_above_and_still_below() {
    let mut card = text();
    put(&mut card, 0, &[0x41, 0x01]);
    put(&mut card, 160, &[0x41, 0x02]);
    indexed(
        &mut card,
        CRTC_INDEX,
        &[(0x11, 0x0e), (0x0c, 0), (0x0d, 80), (0x18, 7), (0x07, 0x0f), (0x09, 0x0f), (0x0a, 0x20)],
    );
    // The picture moves by three dots; what is below the split does not.
    attributes(&mut card, &[(0x10, 0x2c), (0x13, 2)]);
    let screen = shown(&mut card);
    assert_eq!(dots(&screen, 0, 0..6), [0, 0, 0, 0, 2, 0]);
    assert_eq!(dots(&screen, 8, 0..9), [1, 0, 0, 0, 0, 0, 0, 1, 0]);
    // Both move.
    attributes(&mut card, &[(0x10, 0x0c)]);
    let screen = shown(&mut card);
    assert_eq!(dots(&screen, 8, 0..6), [0, 0, 0, 0, 1, 0]);
    // The first row begins in its midst.
    indexed(&mut card, CRTC_INDEX, &[(8, 15), (0x18, 0xff)]);
    attributes(&mut card, &[(0x13, 8)]);
    let screen = shown(&mut card);
    assert_eq!(dots(&screen, 0, 0..1), [0]);
}

#[test]
fn sixteen_colors_in_planes() {
    let mut card = planar();
    own_colors(&mut card);
    attributes(&mut card, &[(0x10, 1), (0x12, 0x0f), (0x13, 0)]);
    indexed(&mut card, SEQUENCER_INDEX, &[(1, 1)]);
    // One line a row, bytes side by side.
    indexed(&mut card, CRTC_INDEX, &[(9, 0x40), (0x17, 0xe3), (0x18, 0xff)]);
    let planes = card.planes();
    (planes[0], planes[PLANE_SIZE], planes[3 * PLANE_SIZE + 80]) = (0b1010_0000, 0b0110_0000, 1);
    let screen = shown(&mut card);
    assert_eq!((screen.frame().width, screen.frame().height), (640, 400));
    assert_eq!(dots(&screen, 0, 0..4), [1, 2, 3, 0]);
    assert_eq!(dots(&screen, 1, 6..9), [0, 8, 0]);
    attributes(&mut card, &[(0x12, 0x0d)]);
    assert_eq!(dots(&shown(&mut card), 0, 0..4), [1, 0, 1, 0], "plane 1 is not shown");
    // Another start, and three dots to the left.
    attributes(&mut card, &[(0x12, 0x0f), (0x13, 3)]);
    indexed(&mut card, CRTC_INDEX, &[(0x0d, 80)]);
    assert_eq!(dots(&shown(&mut card), 0, 3..6), [0, 8, 0]);
    // Colours from two registers: the palette has four bits of them.
    attributes(&mut card, &[(0x10, 0x81), (0x14, 0x0e)]);
    assert_eq!(dots(&shown(&mut card), 0, 4..5), [0xe8]);
}

#[test]
fn two_hundred_lines_are_drawn_twice() {
    let mut card = planar();
    own_colors(&mut card);
    attributes(&mut card, &[(0x10, 1), (0x13, 0)]);
    indexed(&mut card, SEQUENCER_INDEX, &[(1, 9)]);
    indexed(
        &mut card,
        CRTC_INDEX,
        &[(0x11, 0x0e), (1, 39), (2, 40), (9, 0xc0), (0x13, 20), (0x17, 0xe3), (0x18, 0xff)],
    );
    card.planes()[40] = 0x80;
    let screen = shown(&mut card);
    assert_eq!((screen.frame().width, screen.frame().height), (640, 400));
    for (line, color) in [(1, 0), (2, 1), (3, 1), (4, 0)] {
        assert_eq!(dots(&screen, line, 0..3), [color, color, 0]);
    }
}

/// CGA's modes 4 (four colours) and 6 (two), as the BIOS sets them.
#[test]
fn cga_has_even_and_odd_lines_apart() {
    let mut card = planar();
    own_colors(&mut card);
    attributes(&mut card, &[(0x10, 1), (0x12, 3), (0x13, 0)]);
    indexed(&mut card, SEQUENCER_INDEX, &[(1, 9), (2, 3), (4, 2)]);
    indexed(&mut card, GRAPHICS_INDEX, &[(5, 0x30), (6, 0x0f)]);
    indexed(
        &mut card,
        CRTC_INDEX,
        &[(0x11, 0x0e), (1, 39), (2, 40), (9, 0xc1), (0x13, 20), (0x17, 0xa2), (0x18, 0xff)],
    );
    put(&mut card, 0, &[0b00_01_10_11, 0b11_00_00_00]);
    put(&mut card, 0x2000, &[0b10_00_00_00]);
    let screen = shown(&mut card);
    assert_eq!((screen.frame().width, screen.frame().height), (640, 400));
    assert_eq!(dots(&screen, 1, 0..10), [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]);
    assert_eq!(dots(&screen, 2, 0..3), [2, 2, 0]);

    indexed(&mut card, SEQUENCER_INDEX, &[(1, 1), (2, 1), (4, 6)]);
    indexed(&mut card, GRAPHICS_INDEX, &[(5, 0), (6, 0x0d)]);
    indexed(&mut card, CRTC_INDEX, &[(1, 79), (2, 80), (0x13, 40), (0x17, 0xc2)]);
    attributes(&mut card, &[(0x12, 1)]);
    card.planes().fill(0);
    put(&mut card, 1, &[0x80]);
    put(&mut card, 0x2000, &[0x40]);
    let screen = shown(&mut card);
    assert_eq!(dots(&screen, 0, 7..10), [0, 1, 0]);
    assert_eq!(dots(&screen, 2, 0..3), [0, 1, 0]);
}

/// 320x200 in 256 colours: chained as the BIOS sets it, and not.
#[test]
fn a_byte_a_pixel() {
    let mut card = planar();
    palette(&mut card);
    attributes(&mut card, &[(0x10, 0x41), (0x13, 0)]);
    indexed(&mut card, SEQUENCER_INDEX, &[(1, 1), (4, 0x0e)]);
    indexed(&mut card, GRAPHICS_INDEX, &[(5, 0x40), (6, 5)]);
    indexed(
        &mut card,
        CRTC_INDEX,
        &[(0x11, 0x0e), (9, 0x41), (0x13, 40), (0x14, 0x40), (0x17, 0xa3), (0x18, 0xff)],
    );
    for (at, color) in [(0, 10), (1, 11), (4, 14), (319, 99), (320, 100), (63_999, 200)] {
        card.write_window(at, Width::Byte, color);
    }
    let screen = shown(&mut card);
    assert_eq!((screen.frame().width, screen.frame().height), (640, 400));
    assert_eq!(dots(&screen, 0, 0..10), [10, 10, 11, 11, 0, 0, 0, 0, 14, 14]);
    assert_eq!(dots(&screen, 1, 638..640), [99, 99]);
    assert_eq!((dots(&screen, 2, 0..2), dots(&screen, 399, 638..640)), (vec![100; 2], vec![200; 2]));
    assert_eq!(shown(&mut card).frame(), screen.frame());

    // Mode X: the planes one by one.
    indexed(&mut card, SEQUENCER_INDEX, &[(4, 6), (2, 2)]);
    indexed(&mut card, CRTC_INDEX, &[(0x14, 0), (0x17, 0xe3)]);
    card.planes().fill(0);
    card.write_window(80, Width::Byte, 77);
    card.write(SEQUENCER_INDEX, 4);
    assert_eq!(dots(&shown(&mut card), 2, 0..5), [0, 0, 77, 77, 0]);
    // Panning counts pixels by twos.
    attributes(&mut card, &[(0x13, 2)]);
    assert_eq!(dots(&shown(&mut card), 2, 0..3), [77, 77, 0]);
}

#[test]
fn an_unlit_screen_is_black() {
    let mut card = text();
    put(&mut card, 0, &[0x20, 0x77]);
    indexed(&mut card, SEQUENCER_INDEX, &[(1, 0x20)]);
    assert_eq!(dots(&shown(&mut card), 0, 0..1), [0]);
    indexed(&mut card, SEQUENCER_INDEX, &[(1, 0)]);
    assert_eq!(dots(&shown(&mut card), 0, 0..1), [7]);
    card.read(INPUT_STATUS_1, 0);
    card.write(ATTRIBUTE_WRITE, 0);
    assert_eq!(dots(&shown(&mut card), 0, 0..1), [0]);
    let screen = shown(&mut Card::new(0));
    assert_eq!((screen.frame().width, screen.frame().height), (640, 400));
}

#[test]
fn vbe_in_every_depth() {
    for (bpp, bytes, expected) in [
        (8, vec![0x12], [0x12, 0, 0, 0xff]),
        (15, vec![0xe3, 0x7d], [0xff, 0x7b, 0x18, 0xff]),
        (16, vec![0xe3, 0xfb], [0xff, 0x7d, 0x18, 0xff]),
        (24, vec![1, 2, 3], [3, 2, 1, 0xff]),
        (32, vec![1, 2, 3, 4], [3, 2, 1, 0xff]),
    ] {
        let mut card = text_mode();
        palette(&mut card);
        set_vbe(&mut card, &[(1, 40), (2, 30), (3, bpp), (4, 0x41), (6, 64), (8, 3), (9, 2)]);
        let pixel = (2 + 5) * 64 + 3 + 7;
        card.mem.write(FRAMEBUFFER + pixel * bytes.len() as u32, &bytes);
        let screen = shown(&mut card);
        assert_eq!((screen.frame().width, screen.frame().height), (40, 30));
        assert_eq!(screen.frame().line(5)[7], expected, "{bpp}");
        assert_eq!(screen.frame().pixels.iter().filter(|pixel| **pixel != BLACK).count(), 1);
    }
}

#[test]
fn only_lines_that_were_written_are_drawn() {
    let mut card = text_mode();
    set_vbe(&mut card, &[(1, 1024), (2, 768), (3, 32), (4, 0x41)]);
    let mut screen = shown(&mut card);
    assert_eq!(update(&mut screen, &mut card, 1 << 40), None);
    card.mem.write_u32(FRAMEBUFFER + 4096 * 100 + 8, 0x0102_0304);
    card.mem.write_u32(FRAMEBUFFER + 4096 * 200 + 8, 0x0102_0304);
    assert_eq!(update(&mut screen, &mut card, 0), Some(100..201));
    // Beyond the picture.
    card.mem.write_u32(FRAMEBUFFER + 4096 * 768, 1);
    assert_eq!(update(&mut screen, &mut card, 0), None);
    set_vbe(&mut card, &[(9, 100)]);
    assert_eq!(update(&mut screen, &mut card, 0), Some(0..669), "with the line that was below");
    assert_eq!(screen.frame().line(0)[2], [2, 3, 4, 0xff]);
    // Back to text, in another size.
    set_vbe(&mut card, &[(4, 0)]);
    assert_eq!(update(&mut screen, &mut card, 0), Some(0..400));
}

#[test]
fn pictures_outside_the_memory_are_black() {
    let mut card = text_mode();
    set_vbe(&mut card, &[(1, 64), (2, 64), (3, 32), (4, 0x41), (6, 0xffff), (8, 0xffff), (9, 0xffff)]);
    let screen = shown(&mut card);
    assert!(screen.frame().pixels.iter().all(|pixel| *pixel == BLACK));
}

#[test]
fn any_registers_make_a_picture() {
    let mut seed = 1u32;
    let mut random = || {
        seed = seed.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        (seed >> 16) as u8
    };
    for _ in 0..30 {
        let mut card = text();
        for index in 0..0x19 {
            indexed(&mut card, CRTC_INDEX, &[(0x11, 0), (index, random())]);
        }
        for index in 0..5 {
            indexed(&mut card, SEQUENCER_INDEX, &[(index, random())]);
        }
        for index in 0..9 {
            indexed(&mut card, GRAPHICS_INDEX, &[(index, random())]);
        }
        attributes(&mut card, &[(0x10, random()), (0x13, random()), (0x14, random())]);
        card.write(MISCELLANEOUS_WRITE, random());
        shown(&mut card);
    }
}

/// Nanoseconds at which a line of a frame begins.
fn time(card: &Card, frame: u64, line: u64) -> u64 {
    let timing = card.vga.timing();
    (timing.frame_ps() * frame + timing.line_ps() * line) / 1000 + 1
}

#[test]
fn registers_that_change_in_a_frame_are_seen_at_their_lines() {
    let mut card = text();
    indexed(&mut card, CRTC_INDEX, &[(0x0a, 0x20)]);
    let mut screen = shown(&mut card);
    let color_0 = |card: &mut Card, red: u8, now: u64| {
        for (port, value) in [(DAC_WRITE_INDEX, 0), (DAC_DATA, red >> 2), (DAC_DATA, 0), (DAC_DATA, 0)] {
            card.write_at(port, value, now);
        }
    };
    let left = |screen: &Screen| (0..400).map(|line| screen.frame().line(line)[0][0]).collect::<Vec<u8>>();
    let bars = |card: &mut Card, frame: u64| {
        let at = |card: &Card, line| time(card, frame, line);
        for (red, line) in [(0x20, 100), (0x40, 200), (0, 420)] {
            let now = at(card, line);
            color_0(card, red, now);
        }
    };
    for frame in 5..8 {
        bars(&mut card, frame);
        let now = time(&card, frame + 1, 50);
        let drawn = update(&mut screen, &mut card, now);
        assert_eq!(drawn, if frame == 5 { Some(100..400) } else { None }, "{frame}");
        let left = left(&screen);
        let is = |lines: Range<usize>, red| left[lines].iter().all(|dot| *dot == red);
        assert!(is(0..100, 0) && is(100..200, 0x20) && is(200..400, 0x40), "{left:?}");
    }
    // When it ends, the picture is whole again, and costs nothing.
    let now = time(&card, 9, 50);
    assert_eq!(update(&mut screen, &mut card, now), Some(100..400));
    assert!(left(&screen).iter().all(|dot| *dot == 0));
    assert_eq!(update(&mut screen, &mut card, now), None);
    assert!(!screen.replayed);

    // Line compare and panning, in the retrace of lines; the start address counts from the next frame.
    let change = |card: &mut Card, line: u64| {
        let timing = card.vga.timing();
        let now = time(card, 20, line) + timing.character_ps * timing.shown_columns / 1000;
        card.read(INPUT_STATUS_1, 0);
        card.write_at(ATTRIBUTE_WRITE, 0x33, now);
        card.write_at(ATTRIBUTE_WRITE, 2, now);
        card.write_at(CRTC_INDEX, 0x0d, now);
        card.write_at(CRTC_INDEX + 1, 80, now);
    };
    put(&mut card, 0, &[0x41, 0x02]);
    put(&mut card, 160, &[0x41, 0x03]);
    change(&mut card, 9);
    let now = time(&card, 21, 0);
    update(&mut screen, &mut card, now);
    assert_eq!(dots(&screen, 0, 0..8), [2, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(dots(&screen, 16, 0..5), [0, 0, 0, 0, 3]);
    let now = time(&card, 22, 0);
    update(&mut screen, &mut card, now);
    assert_eq!(dots(&screen, 0, 0..5), [0, 0, 0, 0, 3]);
}

#[test]
fn a_start_address_counts_from_the_next_vertical_retrace_on() {
    let mut card = text();
    indexed(&mut card, CRTC_INDEX, &[(0x0a, 0x20)]);
    put(&mut card, 0, &[0x41, 0x01]);
    put(&mut card, 160, &[0x41, 0x02]);
    let mut screen = shown(&mut card);
    let set = |card: &mut Card, start: u8, frame: u64, line: u64| {
        let now = time(card, frame, line);
        card.write_at(CRTC_INDEX, 0x0d, now);
        card.write_at(CRTC_INDEX + 1, start, now);
    };
    let mut first = |card: &mut Card, frame: u64, line: u64| {
        let now = time(card, frame, line);
        update(&mut screen, card, now);
        screen.frame().line(0)[0][0]
    };
    // It is another while the beam is in the picture, and as it was before the retrace.
    for frame in 5..8 {
        set(&mut card, 80, frame, 100);
        assert_eq!(first(&mut card, frame, 150), 1);
        set(&mut card, 0, frame, 300);
        assert_eq!(first(&mut card, frame, 350), 1);
    }
    // It stays.
    set(&mut card, 80, 9, 100);
    assert_eq!(first(&mut card, 9, 399), 1);
    assert_eq!(first(&mut card, 10, 0), 2);
    // In the retrace and behind it, it is too late for the next picture.
    set(&mut card, 0, 10, 430);
    assert_eq!(first(&mut card, 11, 200), 2);
    assert_eq!(first(&mut card, 12, 0), 1);
    assert_eq!(first(&mut card, 12, 1), 1);
}

#[test]
fn what_was_noted_counts_no_longer_after_another_mode_is_set() {
    let mut card = text();
    put(&mut card, 0, &[0x41, 0x01]);
    indexed(&mut card, CRTC_INDEX, &[(0x0a, 0x20)]);
    let mut screen = shown(&mut card);
    let line = |card: &Card, frame: u64| time(card, frame, 100);
    let now = line(&card, 100);
    for (port, value) in [(CRTC_INDEX, 0x0d), (CRTC_INDEX + 1, 80), (CRTC_INDEX + 1, 0)] {
        card.write_at(port, value, now);
    }
    for (port, value) in [(DAC_WRITE_INDEX, 0), (DAC_DATA, 0x3f), (DAC_WRITE_INDEX, 0), (DAC_DATA, 0)] {
        card.write_at(port, value, now);
    }
    // Half the clock: the frames have numbers again that they had.
    card.write_at(CRTC_INDEX + 1, 80, now);
    card.write_at(SEQUENCER_INDEX, 1, now);
    card.write_at(SEQUENCER_INDEX + 1, 8, now);
    for frame in 90..105 {
        let now = time(&card, frame, 300);
        update(&mut screen, &mut card, now);
        assert!(!screen.replayed, "{frame}");
        assert_eq!(screen.start, 80, "{frame}");
    }
}
