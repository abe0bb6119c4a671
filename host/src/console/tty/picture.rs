//! What the terminal shows: characters with their colours.

use std::env;
use std::io::{self, Write};

use crossterm::cursor::{Hide, MoveTo, SetCursorStyle, Show};
use crossterm::queue;
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetColors};
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use env86_core::{Frame, TextScreen};

use crate::console::scale::Scaler;

/// Blinking characters, or a bright background.
const BLINK: u8 = 1 << 7;
/// The upper half of a cell in the foreground's colour, the lower in the background's.
const HALVES: char = '▀';
/// Colours of the terminal's own.
const PLAIN: (Color, Color) = (Color::Reset, Color::Reset);

/// How many colours a terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    /// Those of a cube of 6x6x6, and greys.
    Indexed,
    All,
}

impl Colors {
    /// What the terminal says in the environment.
    pub fn of_terminal() -> Self {
        let says = |name: &str| env::var(name).unwrap_or_default();
        match says("COLORTERM").as_str() {
            "truecolor" | "24bit" => Self::All,
            _ if says("TERM").ends_with("-direct") => Self::All,
            _ => Self::Indexed,
        }
    }

    fn of_pixel(self, pixel: u32) -> Color {
        let [_, red, green, blue] = pixel.to_be_bytes();
        match self {
            Self::All => Color::Rgb { r: red, g: green, b: blue },
            // xterm's levels are 0, 95, 135, ... 255.
            Self::Indexed => {
                let level = |value: u8| if value < 48 { 0 } else { (value.max(75) - 35) / 40 };
                let [red, green, blue] = [red, green, blue].map(level);
                Color::AnsiValue(16 + 36 * red + 6 * green + blue)
            }
        }
    }
}

/// A character in the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Glyph {
    character: char,
    /// Foreground and background.
    colors: (Color, Color),
    blinks: bool,
}

const BLANK: Glyph = Glyph { character: ' ', colors: PLAIN, blinks: false };

/// The cursor in the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    column: u16,
    row: u16,
    /// It is more than a line under the character.
    block: bool,
}

/// What the whole terminal shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Picture {
    columns: u16,
    glyphs: Vec<Glyph>,
    cursor: Option<Cursor>,
}

impl Picture {
    fn blank((columns, rows): (u16, u16)) -> Self {
        Self { columns, glyphs: vec![BLANK; usize::from(columns) * usize::from(rows)], cursor: None }
    }

    /// The part of a text screen that has room, with the cursor in it.
    pub fn of_text(text: &TextScreen, size: (u16, u16)) -> Self {
        let mut picture = Self::blank(size);
        let (columns, rows) = (usize::from(size.0), usize::from(size.1));
        let at = text.cursor.map_or((0, 0), |cursor| (cursor.column, cursor.row));
        let first = |at: usize, room: usize| (at + 1).saturating_sub(room);
        let (left, top) = (first(at.0, columns), first(at.1, rows));
        for (row, glyphs) in (top..).zip(picture.glyphs.chunks_mut(columns.max(1))) {
            for (glyph, cell) in glyphs.iter_mut().zip(text.row(row).iter().skip(left)) {
                let bright = if text.blink { 0 } else { cell.attribute >> 4 & 8 };
                let background = cell.attribute >> 4 & 7 | bright;
                *glyph = Glyph {
                    // Terminals leave a no-break space to the font.
                    character: Some(cell.to_char()).filter(|c| *c != '\u{a0}').unwrap_or(' '),
                    colors: (ansi(cell.attribute & 15), ansi(background)),
                    blinks: text.blink && cell.attribute & BLINK != 0,
                };
            }
        }
        let cursor = text.cursor.filter(|_| !picture.glyphs.is_empty());
        picture.cursor = cursor.map(|cursor| Cursor {
            column: (cursor.column - left) as u16,
            row: (cursor.row - top) as u16,
            block: cursor.end.saturating_sub(cursor.start) > 3,
        });
        picture
    }

    /// A picture as large as there is room for, two pixels in a character.
    pub fn of_graphics(frame: &Frame, size: (u16, u16), colors: Colors) -> Self {
        let mut picture = Self::blank(size);
        let window = (u32::from(size.0), 2 * u32::from(size.1));
        let across = usize::from(size.0).max(1);
        let mut pixels = vec![0; across * window.1 as usize];
        Scaler::default().draw(frame, 0..frame.height, window, false, &mut pixels);
        let rows = picture.glyphs.chunks_mut(across).zip(pixels.chunks(2 * across));
        for (glyphs, pixels) in rows {
            let (upper, lower) = pixels.split_at(across);
            for (glyph, pixels) in glyphs.iter_mut().zip(upper.iter().zip(lower)) {
                let colors = (colors.of_pixel(*pixels.0), colors.of_pixel(*pixels.1));
                *glyph = Glyph { character: HALVES, colors, blinks: false };
            }
        }
        picture
    }

    /// Shows a line of text over the last row.
    pub fn tell(&mut self, text: &str) {
        let columns = usize::from(self.columns);
        let last = self.glyphs.len().saturating_sub(columns);
        let text = text.chars().chain(std::iter::repeat(' '));
        for (glyph, character) in self.glyphs[last..].iter_mut().zip(text) {
            *glyph = Glyph { character, colors: (Color::AnsiValue(0), Color::AnsiValue(7)), blinks: false };
        }
    }

    /// Draws what differs from what the terminal shows; a picture of another size says that it is not known.
    pub fn draw(&self, shown: &Self, out: &mut impl Write) -> io::Result<()> {
        let known = (shown.columns, shown.glyphs.len()) == (self.columns, self.glyphs.len());
        queue!(out, BeginSynchronizedUpdate, Hide)?;
        if !known {
            queue!(out, ResetColor, SetAttribute(Attribute::Reset), Clear(ClearType::All))?;
        }
        let mut pen = BLANK;
        let columns = usize::from(self.columns).max(1);
        let mut next = None;
        for (at, glyph) in self.glyphs.iter().enumerate() {
            if *glyph == if known { shown.glyphs[at] } else { BLANK } {
                continue;
            }
            let (row, column) = ((at / columns) as u16, (at % columns) as u16);
            // A terminal's cursor stays at the end of a line.
            if next != Some(at) || column == 0 {
                queue!(out, MoveTo(column, row))?;
            }
            if pen.blinks != glyph.blinks {
                let blinks = if glyph.blinks { Attribute::SlowBlink } else { Attribute::NoBlink };
                queue!(out, SetAttribute(blinks))?;
            }
            if pen.colors != glyph.colors {
                let (foreground, background) = glyph.colors;
                queue!(out, SetColors(crossterm::style::Colors::new(foreground, background)))?;
            }
            queue!(out, Print(glyph.character))?;
            pen = *glyph;
            next = Some(at + 1);
        }
        queue!(out, SetAttribute(Attribute::Reset), ResetColor)?;
        if let Some(Cursor { column, row, block }) = self.cursor {
            let style =
                if block { SetCursorStyle::BlinkingBlock } else { SetCursorStyle::BlinkingUnderScore };
            queue!(out, style, MoveTo(column, row), Show)?;
        }
        queue!(out, EndSynchronizedUpdate)
    }
}

/// A terminal's colour for one of the card's 16, whose red and blue are the other way round.
fn ansi(color: u8) -> Color {
    Color::AnsiValue(color & 0b1010 | (color & 1) << 2 | color >> 2 & 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use env86_core::Cell;

    fn screen() -> TextScreen {
        let cells = (0..12).map(|cell| Cell { character: b'a' + cell, attribute: 0x1e }).collect();
        let cursor = Some(env86_core::Cursor { row: 2, column: 3, start: 13, end: 14 });
        TextScreen { columns: 4, rows: 3, cells, cursor, blink: true }
    }

    fn text(picture: &Picture) -> String {
        picture.glyphs.iter().map(|glyph| glyph.character).collect()
    }

    #[test]
    fn text_is_shown_as_far_as_there_is_room() {
        let whole = Picture::of_text(&screen(), (5, 4));
        assert_eq!(text(&whole), "abcd efgh ijkl      ");
        assert_eq!(whole.glyphs[0].colors, (Color::AnsiValue(11), Color::AnsiValue(4)));
        assert_eq!(whole.cursor, Some(Cursor { column: 3, row: 2, block: false }));
        let part = Picture::of_text(&screen(), (2, 2));
        assert_eq!(text(&part), "ghkl");
        assert_eq!(part.cursor, Some(Cursor { column: 1, row: 1, block: false }));
        for size in [(0, 0), (0, 1), (1, 0)] {
            assert_eq!(text(&Picture::of_text(&screen(), size)), "");
            Picture::of_graphics(&Frame::default(), size, Colors::All).tell("x");
        }
    }

    #[test]
    fn only_what_differs_is_drawn() {
        let before = Picture::of_text(&screen(), (80, 25));
        let mut after = screen();
        after.cells[5].character = b'X';
        let after = Picture::of_text(&after, (80, 25));
        let drawn = |from: &Picture| {
            let mut out = Vec::new();
            after.draw(from, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let part = drawn(&before);
        assert!(part.contains("\x1b[2;2H") && part.contains('X') && !part.contains('a'), "{part:?}");
        let whole = drawn(&Picture::default());
        assert!(whole.contains("\x1b[2J") && whole.contains("abcd"), "{whole:?}");
    }

    #[test]
    fn graphics_are_half_blocks() {
        let pixels = vec![[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [8, 8, 8, 255]];
        let frame = Frame { width: 2, height: 2, pixels };
        let picture = Picture::of_graphics(&frame, (2, 1), Colors::Indexed);
        let colors: Vec<_> = picture.glyphs.iter().map(|glyph| glyph.colors).collect();
        let [red, green, blue, black] = [196, 46, 21, 16].map(Color::AnsiValue);
        assert_eq!((text(&picture).as_str(), &colors[..]), ("▀▀", &[(red, blue), (green, black)][..]));
        let picture = Picture::of_graphics(&frame, (2, 1), Colors::All);
        assert_eq!(picture.glyphs[1].colors.1, Color::Rgb { r: 8, g: 8, b: 8 });
    }
}
