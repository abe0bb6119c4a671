//! Text over the picture, in the machine's own font.

use env86_bios::font;
use env86_core::Frame;

/// Dots of a character, which are drawn side by side.
const WIDTH: usize = 8;
/// Dots between the box's edge and the text.
const MARGIN: usize = 12;
const INK: [u8; 4] = [0xff, 0xff, 0xff, 0xff];

/// Draws lines of ASCII text in a box in the middle of a picture, as far as there is room.
pub(super) fn draw(frame: &mut Frame, lines: &[String]) {
    let columns = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let (width, height) = (columns * WIDTH + 2 * MARGIN, lines.len() * font::HEIGHT + 2 * MARGIN);
    let left = frame.width.saturating_sub(width) / 2;
    let top = frame.height.saturating_sub(height) / 2;
    for y in top..(top + height).min(frame.height) {
        let row = &mut frame.pixels[y * frame.width..][..frame.width];
        for pixel in row.iter_mut().skip(left).take(width) {
            // The picture shows through.
            let [red, green, blue, _] = *pixel;
            *pixel = [red / 5, green / 5, blue / 5 + 0x30, 0xff];
        }
    }
    for (line, text) in lines.iter().enumerate() {
        for (column, character) in text.chars().enumerate() {
            let glyph = font::glyph(u8::try_from(character).unwrap_or(b'?'));
            for (row, dots) in glyph.into_iter().enumerate() {
                for dot in (0..WIDTH).filter(|dot| dots & 0x80 >> dot != 0) {
                    let x = left + MARGIN + column * WIDTH + dot;
                    let y = top + MARGIN + line * font::HEIGHT + row;
                    if x < frame.width && y < frame.height {
                        frame.pixels[y * frame.width + x] = INK;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_as_far_as_there_is_room() {
        let lines = ["Ctrl-Alt-H".to_owned(), "x".repeat(200)];
        for (width, height) in [(640, 400), (20, 20), (1, 1), (0, 0)] {
            let mut frame = Frame { width, height, pixels: vec![[0x80; 4]; width * height] };
            draw(&mut frame, &lines);
            assert_eq!(frame.pixels.contains(&INK), width > MARGIN, "{width}");
        }
    }
}
