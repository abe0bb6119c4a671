//! The machine's picture, and the parts of it that are sent to pages.
//!
//! A part is a rectangle, in one of two forms, and compressed: places in a palette of its own, or, where there are too
//! many colours, red, green and blue.

use std::io::Write;
use std::ops::Range;

use env86_core::Frame;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::super::record::indexed;

/// A part of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

impl Part {
    /// The smallest part that has both.
    pub fn with(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }
}

/// The newest picture.
#[derive(Debug, Default)]
pub(super) struct Picture {
    frame: Frame,
    /// Another number for another picture.
    version: u64,
    /// The part that was sent last, of which version, for the next page that wants the same.
    sent: Option<(u64, Part, Vec<u8>)>,
}

/// What a part has to be made of, without whoever has the picture waiting.
#[derive(Debug)]
pub(super) enum Cut {
    /// It is there.
    Made(Vec<u8>),
    /// It is to be made.
    Raw(Raw),
}

/// Pixels of a part.
#[derive(Debug)]
pub(super) struct Raw {
    version: u64,
    part: Part,
    size: (usize, usize),
    pixels: Vec<u32>,
}

impl Picture {
    /// All of it, if there is any.
    pub fn whole(&self) -> Option<Part> {
        let Frame { width, height, .. } = self.frame;
        (width > 0 && height > 0).then_some(Part { left: 0, top: 0, right: width, bottom: height })
    }

    /// Takes a newer picture, which differs in these lines at most; gives the part that differs.
    pub fn update(&mut self, newer: &Frame, lines: Range<usize>) -> Option<Part> {
        let resized = (newer.width, newer.height) != (self.frame.width, self.frame.height);
        let part = if resized {
            self.frame.clone_from(newer);
            self.whole()
        } else {
            self.copy(newer, lines)
        };
        self.version += u64::from(part.is_some());
        part
    }

    fn copy(&mut self, newer: &Frame, lines: Range<usize>) -> Option<Part> {
        let mut part = None;
        for line in lines.start..lines.end.min(newer.height) {
            let new = newer.line(line);
            let old = &mut self.frame.pixels[line * newer.width..][..newer.width];
            let mut both = old.iter().zip(new);
            let differ = |(old, new): (&[u8; 4], &[u8; 4])| old != new;
            let Some(left) = both.clone().position(differ) else { continue };
            let right = both.rposition(differ).map_or(left, |last| last) + 1;
            old[left..right].copy_from_slice(&new[left..right]);
            part = Some(Part { left, top: line, right, bottom: line + 1 }.with(part));
        }
        part
    }

    /// What a part is made of.
    pub fn cut(&self, part: Part) -> Cut {
        let Frame { width, height, .. } = self.frame;
        // The picture may have become smaller.
        let part = Part { right: part.right.min(width), bottom: part.bottom.min(height), ..part };
        match &self.sent {
            Some((version, sent, bytes)) if (*version, *sent) == (self.version, part) => {
                Cut::Made(bytes.clone())
            }
            _ => {
                let lines = (part.top..part.bottom).map(|line| self.frame.line(line));
                let dots = lines.flat_map(|line| line.get(part.left..part.right).unwrap_or_default());
                let pixels = dots.map(|&[red, green, blue, _]| u32::from_be_bytes([0, red, green, blue]));
                Cut::Raw(Raw { version: self.version, part, size: (width, height), pixels: pixels.collect() })
            }
        }
    }

    /// Keeps what was made of a part.
    pub fn keep(&mut self, made: &Raw, bytes: Vec<u8>) {
        self.sent = Some((made.version, made.part, bytes));
    }
}

/// The forms of a part's pixels.
const RGB: u8 = 0;
const PALETTE: u8 = 1;

impl Raw {
    /// The message for pages, behind its first byte: words of 16 bits, the lower byte first, for the picture's width and
    /// height and the part's left, top, width and height; the form; and the rest by zlib. Of [`RGB`] that is three bytes
    /// for each pixel; of [`PALETTE`] a byte, which is one less than the count of its colours, three bytes for each of those,
    /// and a byte for each pixel.
    pub fn message(&self, kind: u8) -> Vec<u8> {
        let Part { left, top, right, bottom } = self.part;
        let (width, height) = (right.saturating_sub(left), bottom.saturating_sub(top));
        let mut bytes = vec![kind];
        for word in [self.size.0, self.size.1, left, top, width, height] {
            bytes.extend(u16::try_from(word).unwrap_or(u16::MAX).to_le_bytes());
        }
        let (form, content) = match indexed(&self.pixels).filter(|(palette, _)| !palette.is_empty()) {
            Some((palette, indices)) => {
                (PALETTE, [&[(palette.len() / 3 - 1) as u8][..], &palette, &indices].concat())
            }
            None => (RGB, self.pixels.iter().flat_map(|pixel| pixel.to_be_bytes()[1..].to_vec()).collect()),
        };
        bytes.push(form);
        let mut packer = ZlibEncoder::new(bytes, Compression::fast());
        // Memory takes all bytes.
        let packed = packer.write_all(&content).and_then(|()| packer.finish());
        packed.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn frame(width: usize, height: usize, colors: u32) -> Frame {
        let pixel = |at: usize| {
            let [_, red, green, blue] = (at as u32 % colors * 0x0001_0203).to_be_bytes();
            [red, green, blue, 255]
        };
        Frame { width, height, pixels: (0..width * height).map(pixel).collect() }
    }

    fn cut(picture: &Picture, part: Part) -> Raw {
        match picture.cut(part) {
            Cut::Raw(raw) => raw,
            Cut::Made(_) => panic!("it was made before"),
        }
    }

    /// The words, the form and the content of a message.
    fn parsed(message: &[u8]) -> (Vec<u16>, u8, Vec<u8>) {
        let words = message[1..13].chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        let mut content = Vec::new();
        flate2::read::ZlibDecoder::new(&message[14..]).read_to_end(&mut content).unwrap();
        (words, message[13], content)
    }

    #[test]
    fn only_what_differs_is_a_part() {
        let mut picture = Picture::default();
        assert_eq!(picture.whole(), None);
        let mut newer = frame(20, 10, 5);
        assert_eq!(picture.update(&newer, 0..0), picture.whole());
        assert_eq!(picture.update(&newer, 0..10), None);
        newer.pixels[3 * 20 + 7] = [9, 9, 9, 255];
        newer.pixels[5 * 20 + 4] = [9, 9, 9, 255];
        let part = picture.update(&newer, 2..6).unwrap();
        assert_eq!(part, Part { left: 4, top: 3, right: 8, bottom: 6 });
        let message = cut(&picture, part).message(2);
        let (words, form, content) = parsed(&message);
        assert_eq!((message[0], words, form), (2, vec![20, 10, 4, 3, 4, 3], PALETTE));
        let colors = usize::from(content[0]) + 1;
        assert_eq!(content.len(), 1 + 3 * colors + 12);
        // The fourth pixel of its first line.
        let place = usize::from(content[1 + 3 * colors + 3]);
        assert_eq!(content[1 + 3 * place..][..3], [9, 9, 9]);
    }

    #[test]
    fn pictures_of_many_colors_are_plain() {
        let mut picture = Picture::default();
        let whole = picture.update(&frame(50, 20, 1000), 0..20).unwrap();
        let (_, form, content) = parsed(&cut(&picture, whole).message(2));
        assert_eq!((form, content.len()), (RGB, 3000));
        assert_eq!(content[..6], [0, 0, 0, 1, 2, 3]);
    }

    #[test]
    fn a_part_is_made_once() {
        let mut picture = Picture::default();
        let whole = picture.update(&frame(20, 10, 5), 0..10).unwrap();
        let raw = cut(&picture, whole);
        picture.keep(&raw, vec![1, 2, 3]);
        assert!(matches!(picture.cut(whole), Cut::Made(bytes) if bytes == [1, 2, 3]));
        // A smaller picture has no more than it has.
        picture.update(&frame(8, 4, 5), 0..4);
        assert_eq!(parsed(&cut(&picture, whole).message(2)).0, [8, 4, 0, 0, 8, 4]);
        assert_eq!(Part { left: 1, top: 2, right: 3, bottom: 4 }.with(None).left, 1);
    }
}
