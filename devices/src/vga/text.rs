//! What the screen shows in text mode, as data.

use super::registers::{attribute, crtc};
use super::{PLANE_SIZE, Vga};
use core::ops::RangeInclusive;
use env86_emu::Memory;

/// A character and its attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The code in the font, usually code page 437.
    pub character: u8,
    /// Foreground in bits 0-3, background in 4-6, and bit 7 blinking or bright background.
    pub attribute: u8,
}

impl Cell {
    /// The character that code page 437 has for the code.
    pub fn to_char(self) -> char {
        cp437(self.character)
    }
}

/// The cursor, where it is on the screen and visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Row from the top, from 0.
    pub row: usize,
    /// Column from the left, from 0.
    pub column: usize,
    /// First scan line of the character cell.
    pub start: u8,
    /// Last scan line.
    pub end: u8,
}

/// A picture of a text screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextScreen {
    /// Characters in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// `rows` times `columns` cells.
    pub cells: Vec<Cell>,
    /// The cursor, unless it is off or elsewhere.
    pub cursor: Option<Cursor>,
    /// Bit 7 of attributes blinks.
    pub blink: bool,
}

impl TextScreen {
    /// The cells of a row; none if there is no such row.
    pub fn row(&self, row: usize) -> &[Cell] {
        let start = row.saturating_mul(self.columns);
        self.cells.get(start..start.saturating_add(self.columns)).unwrap_or_default()
    }

    /// The text of a row in Unicode, without blanks at its end.
    pub fn line(&self, row: usize) -> String {
        let line: String = self.row(row).iter().map(|cell| cell.to_char()).collect();
        line.trim_end().to_owned()
    }
}

impl core::fmt::Display for TextScreen {
    /// The rows as lines.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (0..self.rows).try_for_each(|row| writeln!(f, "{}", self.line(row)))
    }
}

/// Columns and rows before any were programmed.
const POWER_ON_SIZE: (usize, usize) = (80, 25);
const CURSOR_OFF: u8 = 1 << 5;

impl Vga {
    /// The text screen, or `None` while graphics are shown.
    pub fn text(&self, mem: &Memory) -> Option<TextScreen> {
        if self.graphics_shown() {
            return None;
        }
        let (columns, rows) = self.text_size();
        let planes = self.planes(mem).all();
        let registers = &self.crtc.registers;
        let pitch = columns.max(usize::from(registers[crtc::OFFSET]) * 2);
        let split =
            self.crtc.line_compare().saturating_add(1).div_ceil(self.crtc.character_height()) as usize;
        let start = self.crtc.start_address() as usize;
        let mut cells = Vec::with_capacity(columns * rows);
        let mut cursor = None;
        for row in 0..rows {
            let first = if row >= split { (row - split) * pitch } else { start + row * pitch };
            cells.extend((first..first + columns).map(|cell| cell_at(planes, cell)));
            let column = (self.crtc.cursor_location() as usize).wrapping_sub(first);
            if column < columns {
                cursor = Some((row, column));
            }
        }
        let cursor = cursor.zip(self.cursor_lines()).map(|((row, column), lines)| Cursor {
            row,
            column,
            start: *lines.start() as u8,
            end: *lines.end() as u8,
        });
        let blink = self.attribute.registers[attribute::MODE_CONTROL] & attribute::MODE_BLINK != 0;
        Some(TextScreen { columns, rows, cells, cursor, blink })
    }

    /// The lines of a character cell that the cursor covers, unless it is off.
    pub(super) fn cursor_lines(&self) -> Option<RangeInclusive<u32>> {
        let registers = &self.crtc.registers;
        let (start, end) = (registers[crtc::CURSOR_START], registers[crtc::CURSOR_END] & 0x1f);
        let lines = u32::from(start & 0x1f)..=u32::from(end);
        (start & CURSOR_OFF == 0 && !lines.is_empty()).then_some(lines)
    }

    /// Columns and rows of the text screen.
    fn text_size(&self) -> (usize, usize) {
        let columns = self.crtc.columns();
        let rows = self.crtc.lines() / self.crtc.character_height();
        if columns == 0 || rows == 0 { POWER_ON_SIZE } else { (columns as usize, rows as usize) }
    }
}

/// A cell by number; they lie side by side in the first two planes.
pub(super) fn cell_at(planes: &[u8], cell: usize) -> Cell {
    let at = cell * 2 % (2 * PLANE_SIZE);
    let byte = |at: usize| planes.get(at).copied().unwrap_or(0);
    Cell { character: byte(at), attribute: byte(at + 1) }
}

/// The character that code page 437 has for a code, as screens show it.
pub fn cp437(code: u8) -> char {
    const LOW: [char; 32] = [
        ' ', '☺', '☻', '♥', '♦', '♣', '♠', '•', '◘', '○', '◙', '♂', '♀', '♪', '♫', '☼', '►', '◄', '↕', '‼',
        '¶', '§', '▬', '↨', '↑', '↓', '→', '←', '∟', '↔', '▲', '▼',
    ];
    const HIGH: [char; 129] = [
        '⌂', 'Ç', 'ü', 'é', 'â', 'ä', 'à', 'å', 'ç', 'ê', 'ë', 'è', 'ï', 'î', 'ì', 'Ä', 'Å', 'É', 'æ', 'Æ',
        'ô', 'ö', 'ò', 'û', 'ù', 'ÿ', 'Ö', 'Ü', '¢', '£', '¥', '₧', 'ƒ', 'á', 'í', 'ó', 'ú', 'ñ', 'Ñ', 'ª',
        'º', '¿', '⌐', '¬', '½', '¼', '¡', '«', '»', '░', '▒', '▓', '│', '┤', '╡', '╢', '╖', '╕', '╣', '║',
        '╗', '╝', '╜', '╛', '┐', '└', '┴', '┬', '├', '─', '┼', '╞', '╟', '╚', '╔', '╩', '╦', '╠', '═', '╬',
        '╧', '╨', '╤', '╥', '╙', '╘', '╒', '╓', '╫', '╪', '┘', '┌', '█', '▄', '▌', '▐', '▀', 'α', 'ß', 'Γ',
        'π', 'Σ', 'σ', 'µ', 'τ', 'Φ', 'Θ', 'Ω', 'δ', '∞', 'φ', 'ε', '∩', '≡', '±', '≥', '≤', '⌠', '⌡', '÷',
        '≈', '°', '∙', '·', '√', 'ⁿ', '²', '■', '\u{a0}',
    ];
    match code {
        0..=0x1f => LOW[usize::from(code)],
        0x20..=0x7e => code.into(),
        _ => HIGH[usize::from(code - 0x7f)],
    }
}
