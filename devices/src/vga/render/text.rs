//! Lines of text modes: characters and attributes lie side by side in the first two planes, fonts in
//! plane 2.

use super::super::registers::{attribute, crtc, sequencer};
use super::super::{PLANE_SIZE, Vga};
use super::{Colors, Phase, Pixel};
use crate::vga::text::cell_at;

/// Bytes of a character in a font.
const GLYPH: usize = 32;
/// Characters whose ninth dot repeats the eighth.
const LINE_DRAWING: core::ops::RangeInclusive<u8> = 0xc0..=0xdf;
const BLINKS: u8 = 1 << 7;
/// The attribute that chooses between the fonts.
const FONT_SELECT: u8 = 1 << 3;

/// Where the fonts of attributes without and with [`FONT_SELECT`] are in plane 2.
fn fonts(select: u8) -> [usize; 2] {
    let at = |low: u8, high: u8| usize::from(low & 3) * 0x4000 + usize::from(high & 1) * 0x2000;
    [at(select, select >> 4), at(select >> 2, select >> 5)]
}

/// Line `scan` of the characters from address `row` on has something that blinks: a character, or the cursor.
pub(super) fn blinks(vga: &Vga, planes: &[u8], row: u32, scan: u32, columns: u32) -> bool {
    let cursor = vga.crtc.cursor_location().wrapping_sub(row) & 0xffff;
    let characters = vga.attribute.registers[attribute::MODE_CONTROL] & attribute::MODE_BLINK != 0;
    let cells = (0..columns).map(|column| cell_at(planes, row.wrapping_add(column) as usize));
    cursor < columns && vga.cursor_lines().is_some_and(|lines| lines.contains(&scan))
        || characters && { cells }.any(|cell| cell.attribute & BLINKS != 0)
}

/// Draws line `scan` of the characters from address `row` on.
pub(super) fn line(
    vga: &Vga,
    planes: &[u8],
    colors: &Colors,
    phase: Phase,
    row: u32,
    scan: u32,
    columns: u32,
    out: &mut Vec<Pixel>,
) {
    let registers = &vga.crtc.registers;
    let mode = vga.attribute.registers[attribute::MODE_CONTROL];
    let fonts = fonts(vga.sequencer.registers[sequencer::CHARACTER_MAP_SELECT]);
    let plane_2 = &planes[2 * PLANE_SIZE..3 * PLANE_SIZE];
    let blink = mode & attribute::MODE_BLINK != 0;
    let nine = vga.character_width() == 9;
    let cursor = vga.cursor_lines().filter(|lines| phase.cursor && lines.contains(&scan)).is_some();
    let cursor = cursor.then(|| vga.crtc.cursor_location());
    let underlined = scan == u32::from(registers[crtc::UNDERLINE_LOCATION] & 0x1f);
    for column in 0..columns {
        let address = row.wrapping_add(column);
        let cell = cell_at(planes, address as usize);
        let (mut foreground, mut background) = (cell.attribute & 0xf, cell.attribute >> 4);
        let font = fonts[usize::from(cell.attribute & FONT_SELECT != 0)];
        let mut dots = plane_2[font + GLYPH * usize::from(cell.character) + scan as usize % GLYPH];
        let mut ninth = nine
            && dots & 1 != 0
            && mode & attribute::MODE_LINE_GRAPHICS != 0
            && LINE_DRAWING.contains(&cell.character);
        if underlined && cell.attribute & 0x77 == 1 {
            (dots, ninth) = (0xff, true);
        }
        if blink {
            background &= 7;
            if cell.attribute & BLINKS != 0 && !phase.text {
                foreground = background;
            }
        }
        if cursor == Some(address & 0xffff) {
            // The cursor has the colour of the character, blinking or not.
            (dots, ninth, foreground) = (0xff, true, cell.attribute & 0xf);
        }
        let (on, off) =
            (colors.attribute[usize::from(foreground)], colors.attribute[usize::from(background)]);
        out.extend((0..8).rev().map(|bit| if dots >> bit & 1 != 0 { on } else { off }));
        if nine {
            out.push(if ninth { on } else { off });
        }
    }
}
