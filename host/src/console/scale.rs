//! A picture in a window, or in a terminal: as large as it can be with its own proportions, and smooth where a
//! dot is no whole number of pixels.

use std::collections::VecDeque;
use std::ops::Range;

use env86_core::Frame;

/// Around the picture, as a pixel of the window, 00RRGGBBh.
const BORDER: u32 = 0;
/// The sum of the weights of a pixel that is all picture.
const WHOLE: u32 = 256;

/// The proportions of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// Its dots are squares.
    #[default]
    Square,
    /// It is as on a monitor, 4 to 3, which the VGA's own modes are made for, whatever dots they have.
    #[cfg_attr(not(feature = "window"), allow(dead_code, reason = "only a window has it"))]
    Monitor,
}

impl Shape {
    /// Width and height of a picture of so many dots, as they are to each other.
    pub fn of(self, picture: (usize, usize)) -> (usize, usize) {
        match self {
            Self::Square => picture,
            Self::Monitor => (4, 3),
        }
    }

    /// The least size of this shape that has a pixel for each dot.
    #[cfg_attr(not(feature = "window"), allow(dead_code, reason = "only a window has it"))]
    pub fn least(self, (width, height): (usize, usize)) -> (usize, usize) {
        match self {
            Self::Square => (width, height),
            Self::Monitor => (width.max((height * 4).div_ceil(3)), height.max((width * 3).div_ceil(4))),
        }
    }
}

/// Where the picture is in a window: in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Viewport {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Viewport {
    /// The place of a picture with these proportions.
    pub fn new(picture: (usize, usize), window: (u32, u32)) -> Self {
        let (width, height) = (picture.0.max(1) as u64, picture.1.max(1) as u64);
        let (across, down) = (u64::from(window.0), u64::from(window.1));
        let nearest = |a: u64, b: u64, by: u64| ((2 * a * b + by) / (2 * by)).max(1);
        // The picture touches two opposite sides of the window.
        let (width, height) = match across * height <= down * width {
            true => (across.max(1), nearest(across, height, width)),
            false => (nearest(down, width, height), down.max(1)),
        };
        let (left, top) = (across.saturating_sub(width) / 2, down.saturating_sub(height) / 2);
        Self { left: left as u32, top: top as u32, width: width as u32, height: height as u32 }
    }

    /// The place of a pixel's middle in the picture, each way as a part of FFFFh; the picture's edge for pixels
    /// beside it. The corner of a dot would be the dot before it, once rounded.
    #[cfg_attr(not(feature = "window"), allow(dead_code, reason = "a terminal has no pointer"))]
    pub fn place(&self, x: f64, y: f64) -> (u16, u16) {
        let part =
            |at: f64, from: u32, len: u32| ((at + 0.5 - f64::from(from)) / f64::from(len) * 65_535.0) as u16;
        (part(x, self.left, self.width), part(y, self.top, self.height))
    }
}

/// The dots that a pixel of the window shows, along one axis: the first one, and how much of the pixel each
/// covers, as a part of [`WHOLE`].
type Span = (usize, Vec<u32>);

/// The spans of the pixels that `dots` are drawn over; of none there are none.
fn spans(dots: usize, pixels: u32) -> Vec<Span> {
    let (dots, pixels) = (dots as u64, u64::from(pixels));
    (0..if dots == 0 { 0 } else { pixels })
        .map(|pixel| {
            // In parts of a dot, of which there are as many as pixels.
            let (start, end) = (pixel * dots, (pixel + 1) * dots);
            let first = start / pixels;
            // Rounded sums, so that the weights of a pixel add up.
            let up_to = |dot: u64| {
                let covered = (dot * pixels).clamp(start, end) - start;
                ((covered * u64::from(WHOLE) + dots / 2) / dots) as u32
            };
            let weights = (first..end.div_ceil(pixels)).map(|dot| up_to(dot + 1) - up_to(dot)).collect();
            (first as usize, weights)
        })
        .collect()
}

/// The mean of pixels by weight.
fn mean(pixels: impl Iterator<Item = (u32, u32)>) -> u32 {
    let (mut red_blue, mut green) = (0, 0);
    for (pixel, weight) in pixels {
        red_blue += (pixel & 0xff00ff) * weight;
        green += (pixel >> 8 & 0xff) * weight;
    }
    (red_blue / WHOLE) & 0xff00ff | green & 0xff00
}

/// Draws pictures into the pixels of a window, which keep what was drawn before.
#[derive(Debug, Default)]
pub(super) struct Scaler {
    /// The proportions of the next picture.
    pub shape: Shape,
    /// What the spans are for.
    shown: Shape,
    picture: (usize, usize),
    window: (u32, u32),
    columns: Vec<Span>,
    rows: Vec<Span>,
    /// Lines of the picture, as wide as in the window, by number.
    lines: VecDeque<(usize, Vec<u32>)>,
}

impl Scaler {
    /// Draws the lines that have changed. `keeps` says that the pixels are what this has drawn last.
    pub fn draw(
        &mut self,
        frame: &Frame,
        changed: Range<usize>,
        window: (u32, u32),
        keeps: bool,
        out: &mut [u32],
    ) {
        let picture = (frame.width, frame.height);
        let view = Viewport::new(self.shape.of(picture), window);
        let anew = (self.picture, self.window, self.shown) != (picture, window, self.shape);
        let all = !keeps || anew;
        if anew {
            self.columns = spans(frame.width, view.width);
            self.rows = spans(frame.height, view.height);
            (self.picture, self.window, self.shown) = (picture, window, self.shape);
        }
        if all {
            out.fill(BORDER);
        }
        if picture.0 == 0 || picture.1 == 0 {
            return;
        }
        self.lines.clear();
        let across = window.0 as usize;
        let mut above: Option<(&Span, usize)> = None;
        for (row, span) in (view.top as usize..).zip(&self.rows) {
            let (first, weights) = span;
            let lines = *first..first + weights.len();
            if !all && (lines.end <= changed.start || lines.start >= changed.end) {
                continue;
            }
            let start = row * across + view.left as usize;
            let end = start + self.columns.len();
            if end > out.len() {
                return;
            }
            match above {
                Some((same, from)) if same == span => out.copy_within(from..from + end - start, start),
                _ => {
                    self.lines.retain(|(line, _)| lines.contains(line));
                    for line in lines.clone() {
                        if !self.lines.iter().any(|(kept, _)| *kept == line) {
                            self.lines.push_back((line, widen(&self.columns, frame.line(line))));
                        }
                    }
                    let out = &mut out[start..end];
                    match (&self.lines[0].1, &**weights) {
                        (line, [_]) => out.copy_from_slice(line),
                        _ => {
                            for (column, pixel) in out.iter_mut().enumerate() {
                                let lines = self.lines.iter().map(|(_, line)| line[column]);
                                *pixel = mean(lines.zip(weights.iter().copied()));
                            }
                        }
                    }
                }
            }
            above = Some((span, start));
        }
    }
}

/// A line of the picture, as wide as in the window.
fn widen(columns: &[Span], line: &[[u8; 4]]) -> Vec<u32> {
    let pixel = |[red, green, blue, _]: [u8; 4]| u32::from_be_bytes([0, red, green, blue]);
    columns
        .iter()
        .map(|(first, weights)| match &**weights {
            [_] => pixel(line[*first]),
            weights => mean(line[*first..].iter().map(|dot| pixel(*dot)).zip(weights.iter().copied())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Frame {
        let pixels = [10, 20, 30, 40].map(|level| [level, 0, level, 255]);
        Frame { width: 2, height: 2, pixels: pixels.to_vec() }
    }

    fn shown(width: u32, height: u32) -> Vec<u32> {
        let mut out = vec![9; (width * height) as usize];
        Scaler::default().draw(&picture(), 0..2, (width, height), false, &mut out);
        out.iter().for_each(|pixel| assert_eq!(pixel >> 16, pixel & 0xff));
        out.into_iter().map(|pixel| pixel >> 16).collect()
    }

    #[test]
    fn a_picture_has_the_shape_of_a_monitor() {
        let mut scaler = Scaler { shape: Shape::Monitor, ..Scaler::default() };
        let mut out = vec![9; 6 * 3];
        scaler.draw(&picture(), 0..2, (6, 3), false, &mut out);
        let lit: Vec<_> =
            out.chunks(6).map(|line| line.iter().filter(|pixel| **pixel != 0).count()).collect();
        assert_eq!(lit, [4, 4, 4]);
        // Another shape of the same picture is drawn anew.
        scaler.shape = Shape::Square;
        scaler.draw(&picture(), 0..0, (6, 3), true, &mut out);
        assert_eq!(out[..6].iter().filter(|pixel| **pixel != 0).count(), 3);
        for (picture, least) in [
            ((720, 400), (720, 540)),
            ((640, 480), (640, 480)),
            ((720, 350), (720, 540)),
            ((320, 400), (534, 400)),
            ((0, 0), (0, 0)),
        ] {
            assert_eq!(Shape::Monitor.least(picture), least);
            assert_eq!(Shape::Square.least(picture), picture);
        }
    }

    #[test]
    fn a_picture_is_scaled_to_the_window() {
        assert_eq!(shown(2, 2), [10, 20, 30, 40]);
        assert_eq!(shown(4, 4), [10, 10, 20, 20, 10, 10, 20, 20, 30, 30, 40, 40, 30, 30, 40, 40]);
        assert_eq!(shown(4, 2), [0, 10, 20, 0, 0, 30, 40, 0]);
        assert_eq!(shown(2, 4), [0, 0, 10, 20, 30, 40, 0, 0]);
        // What lies between two dots is between them, and what is smaller than a dot is their mean.
        assert_eq!(shown(3, 3), [10, 15, 20, 20, 25, 30, 30, 35, 40]);
        assert_eq!(shown(1, 1), [25]);
        for (width, height) in [(1, 7), (7, 1), (3, 5), (1000, 3)] {
            shown(width, height);
        }
        let mut out = [9; 4];
        Scaler::default().draw(&Frame::default(), 0..0, (2, 2), false, &mut out);
        assert_eq!(out, [BORDER; 4]);
    }

    #[test]
    fn only_lines_that_changed_are_drawn() {
        let mut scaler = Scaler::default();
        let (window, mut out) = ((4, 4), vec![0; 16]);
        scaler.draw(&picture(), 0..2, window, false, &mut out);
        let whole = out.clone();
        out.fill(7);
        scaler.draw(&picture(), 1..2, window, true, &mut out);
        assert_eq!((&out[..8], &out[8..]), (&[7; 8][..], &whole[8..]));
        scaler.draw(&picture(), 0..0, window, false, &mut out);
        assert_eq!(out, whole);
    }

    #[test]
    fn weights_of_a_pixel_are_a_whole() {
        for (dots, pixels) in [(720, 720), (720, 1023), (720, 500), (1, 1000), (1000, 1), (2560, 3)] {
            let spans = spans(dots, pixels);
            for (first, weights) in &spans {
                assert!(first + weights.len() <= dots && !weights.is_empty());
                assert_eq!(weights.iter().sum::<u32>(), WHOLE);
            }
            assert_eq!((spans.len(), spans[0].0), (pixels as usize, 0));
        }
    }

    #[test]
    fn a_point_of_the_window_is_one_of_the_picture() {
        let viewport = Viewport::new((640, 400), (1280, 1000));
        assert_eq!(viewport.place(-0.5, 99.5), (0, 0));
        assert_eq!(viewport.place(1280.0, 900.0), (0xffff, 0xffff));
        assert_eq!(viewport.place(639.5, 499.5), (32_767, 32_767));
        // A guest whose dots are the window's pixels finds the one that is pointed at.
        for width in [640, 1000, 1024, 2560] {
            let viewport = Viewport::new((width as usize, 600), (width, 600));
            for pixel in 0..width {
                let (x, _) = viewport.place(pixel.into(), 0.0);
                assert_eq!((u32::from(x) * width) >> 16, pixel);
            }
        }
        assert_eq!(viewport.place(-5.0, 5000.0), (0, 0xffff));
        // A window without a size is none.
        Viewport::new((640, 400), (0, 0)).place(0.0, 0.0);
    }
}
