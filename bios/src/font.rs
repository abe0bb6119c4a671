//! A font for text mode, in code page 437, drawn for this machine.
//!
//! Letters are drawn on a coarse grid of 5 by 9 (7 by 9 where there are three uprights) and stretched to
//! the cell of 8 by 16; lines and blocks are constructed. What is neither drawn nor constructed (most of Greek) shows as an empty box.

/// Scan lines of a glyph.
pub const HEIGHT: usize = 16;

/// A glyph's scan lines from the top; bit 7 is the leftmost dot.
type Glyph = [u8; HEIGHT];

/// The glyph of a character.
pub fn glyph(code: u8) -> Glyph {
    match code {
        0x00 | 0x20 | 0xff => [0; HEIGHT],
        0x21..=0x7e => stretch(ASCII[usize::from(code - 0x20)], 1, &CAPITAL_GAPS),
        0xb0..=0xb2 => shade(code - 0xb0),
        0xb3..=0xda => lines(LINES[usize::from(code - 0xb3)]),
        0xdb..=0xdf => block(code - 0xdb),
        _ => symbol(code).or_else(|| accented(code)).unwrap_or_else(missing),
    }
}

/// Space to tilde: rows from the top, separated by strokes. Seven rows stand on the base line, two
/// hang below; empty rows at the end are left out.
const ASCII: [&str; 95] = [
    "",
    "..#../..#../..#../..#../..#../...../..#..",
    ".##.##./.##.##./.##.##.",
    ".##.##./.##.##./#######/.##.##./#######/.##.##./.##.##.",
    "..#../.####/#.#../.###./..#.#/####./..#..",
    "##...##/##..##./....##./...##../..##.../.##..##/##...##",
    ".##../#..#./#.#../.#.../#.#.#/#..#./.##.#",
    "..#../..#../.#...",
    "...#./..#../.#.../.#.../.#.../..#../...#.",
    ".#.../..#../...#./...#./...#./..#../.#...",
    "...../..#../#.#.#/.###./#.#.#/..#..",
    "...../..#../..#../#####/..#../..#..",
    "...../...../...../...../...../..#../..#../.#...",
    "...../...../...../#####",
    "...../...../...../...../...../..#../..#..",
    "....#/....#/...#./..#../.#.../#..../#....",
    ".#####./##...##/##..###/##.#.##/###..##/##...##/.#####.",
    "..#../.##../..#../..#../..#../..#../.###.",
    ".###./#...#/....#/...#./..#../.#.../#####",
    ".###./#...#/....#/..##./....#/#...#/.###.",
    "...#./..##./.#.#./#..#./#####/...#./...#.",
    "#####/#..../####./....#/....#/#...#/.###.",
    "..##./.#.../#..../####./#...#/#...#/.###.",
    "#####/....#/...#./..#../..#../..#../..#..",
    ".###./#...#/#...#/.###./#...#/#...#/.###.",
    ".###./#...#/#...#/.####/....#/...#./.##..",
    "...../..#../..#../...../..#../..#..",
    "...../..#../..#../...../...../..#../..#../.#...",
    "...../...##/.##../#..../.##../...##",
    "...../...../#####/...../#####",
    "...../##.../..##./....#/..##./##...",
    ".###./#...#/....#/...#./..#../...../..#..",
    ".#####./##...##/##.####/##.#.##/##.####/##...../.#####.",
    ".###./#...#/#...#/#####/#...#/#...#/#...#",
    "####./#...#/#...#/####./#...#/#...#/####.",
    ".###./#...#/#..../#..../#..../#...#/.###.",
    "####./#...#/#...#/#...#/#...#/#...#/####.",
    "#####/#..../#..../####./#..../#..../#####",
    "#####/#..../#..../####./#..../#..../#....",
    ".###./#...#/#..../#.###/#...#/#...#/.###.",
    "#...#/#...#/#...#/#####/#...#/#...#/#...#",
    ".###./..#../..#../..#../..#../..#../.###.",
    "..###/...#./...#./...#./...#./#..#./.##..",
    "#...#/#..#./#.#../##.../#.#../#..#./#...#",
    "#..../#..../#..../#..../#..../#..../#####",
    "##...##/###.###/#######/##.#.##/##...##/##...##/##...##",
    "##...##/###..##/####.##/##.####/##..###/##...##/##...##",
    ".###./#...#/#...#/#...#/#...#/#...#/.###.",
    "####./#...#/#...#/####./#..../#..../#....",
    ".###./#...#/#...#/#...#/#.#.#/#..#./.##.#",
    "####./#...#/#...#/####./#.#../#..#./#...#",
    ".###./#...#/#..../.###./....#/#...#/.###.",
    "#####/..#../..#../..#../..#../..#../..#..",
    "#...#/#...#/#...#/#...#/#...#/#...#/.###.",
    "#...#/#...#/#...#/#...#/#...#/.#.#./..#..",
    "##...##/##...##/##...##/##.#.##/##.#.##/#######/.##.##.",
    "#...#/#...#/.#.#./..#../.#.#./#...#/#...#",
    "#...#/#...#/.#.#./..#../..#../..#../..#..",
    "#####/....#/...#./..#../.#.../#..../#####",
    ".###./.#.../.#.../.#.../.#.../.#.../.###.",
    "#..../#..../.#.../..#../...#./....#/....#",
    ".###./...#./...#./...#./...#./...#./.###.",
    "..#../.#.#./#...#",
    "...../...../...../...../...../...../...../...../#####",
    ".#.../.#.../..#..",
    "...../...../.###./....#/.####/#...#/.####",
    "#..../#..../####./#...#/#...#/#...#/####.",
    "...../...../.###./#...#/#..../#...#/.###.",
    "....#/....#/.####/#...#/#...#/#...#/.####",
    "...../...../.###./#...#/#####/#..../.###.",
    "..##./.#.../####./.#.../.#.../.#.../.#...",
    "...../...../.####/#...#/#...#/#...#/.####/....#/.###.",
    "#..../#..../####./#...#/#...#/#...#/#...#",
    "..#../...../.##../..#../..#../..#../.###.",
    "...#./...../..##./...#./...#./...#./...#./...#./.##..",
    "#..../#..../#..#./#.#../##.../#.#../#..#.",
    ".##../..#../..#../..#../..#../..#../.###.",
    "......./......./###.##./##.#.##/##.#.##/##.#.##/##.#.##",
    "...../...../####./#...#/#...#/#...#/#...#",
    "...../...../.###./#...#/#...#/#...#/.###.",
    "...../...../####./#...#/#...#/#...#/####./#..../#....",
    "...../...../.####/#...#/#...#/#...#/.####/....#/....#",
    "...../...../#.##./##..#/#..../#..../#....",
    "...../...../.####/#..../.###./....#/####.",
    ".#.../.#.../####./.#.../.#.../.#.../..##.",
    "...../...../#...#/#...#/#...#/#...#/.####",
    "...../...../#...#/#...#/#...#/.#.#./..#..",
    "......./......./##...##/##.#.##/##.#.##/#######/.##.##.",
    "...../...../#...#/.#.#./..#../.#.#./#...#",
    "...../...../#...#/#...#/#...#/#...#/.####/....#/.###.",
    "...../...../#####/...#./..#../.#.../#####",
    "...##/..#../..#../.#.../..#../..#../...##",
    "..#../..#../..#../..#../..#../..#../..#..",
    "##.../..#../..#../...#./..#../..#../##...",
    ".###.##/##.###.",
];

/// Other characters on the same grid, by code.
const SYMBOLS: [(u8, &str); 37] = [
    (0x04, "..#../.###./.###./#####/.###./.###./..#.."),
    (0x07, "...../...../.###./.###./.###."),
    (0x10, "#..../##.../####./#####/####./##.../#...."),
    (0x11, "....#/...##/.####/#####/.####/...##/....#"),
    (0x12, "..#../.###./#.#.#/..#../#.#.#/.###./..#.."),
    (0x14, ".####/#.#.#/#.#.#/.##.#/..#.#/..#.#/..#.#"),
    (0x15, ".###./#..../.##../#..#./..##./....#/.###."),
    (0x16, "...../...../...../...../...../#####/#####"),
    (0x18, "..#../.###./#.#.#/..#../..#../..#../..#.."),
    (0x19, "..#../..#../..#../..#../#.#.#/.###./..#.."),
    (0x1a, "...../..#../...#./#####/...#./..#.."),
    (0x1b, "...../..#../.#.../#####/.#.../..#.."),
    (0x1d, "...../.#.#./#####/#####/.#.#."),
    (0x1e, "...../..#../..#../.###./.###./#####"),
    (0x1f, "...../#####/.###./.###./..#../..#.."),
    (0x7f, "...../..#../.#.#./#...#/#...#/#...#/#####"),
    (0x91, "......./......./###.##./..##.##/.######/##.##../.##.###"),
    (0x92, "..#####/.##.##./##..##./#######/##..##./##..##./##..###"),
    (0x9b, "..#../..#../.####/#.#../#.#../.####/..#.."),
    (0x9c, "..##./.#..#/.#.../###../.#.../.#..#/####."),
    (0x9d, "#...#/.#.#./..#../#####/..#../#####/..#.."),
    (0xa6, ".###./#..#./#..#./.####/...../#####"),
    (0xa7, ".###./#...#/#...#/.###./...../#####"),
    (0xa8, "..#../...../..#../.#.../#..../#...#/.###."),
    (0xad, "..#../...../..#../..#../..#../..#../..#.."),
    (0xae, "......./..##.##/.##.##./##.##../.##.##./..##.##"),
    (0xaf, "......./##.##../.##.##./..##.##/.##.##./##.##.."),
    (0xe1, ".##../#..#./#.#../#..#./#...#/#...#/#.##./#..../#...."),
    (0xe6, "...../...../#..#./#..#./#..#./#..#./###.#/#..../#...."),
    (0xf1, "..#../..#../#####/..#../..#../...../#####"),
    (0xf2, "#..../.#.../..#../.#.../#..../...../#####"),
    (0xf3, "...#./..#../.#.../..#../...#./...../.####"),
    (0xf6, "...../..#../...../#####/...../..#.."),
    (0xf8, ".##../#..#./#..#./.##.."),
    (0xfa, "...../...../...../..#.."),
    (0xfd, ".##../#..#./..#../.#.../####."),
    (0xfe, "...../...../####./####./####./####."),
];

/// Accents, on the two rows over a small letter.
const ACUTE: &str = "...#./..#..";
const GRAVE: &str = ".#.../..#..";
const CIRCUMFLEX: &str = "..##.../.#..#..";
const DIAERESIS: &str = "##..##./.......";
const RING: &str = "..#../..#..";
const TILDE: &str = ".###.#./#.###..";
const CEDILLA: &str = "...../...../...../...../...../...../...../..#../.##..";

/// Letters with accents: code, letter, accent. The undotted i is drawn as the capital's stem.
const ACCENTED: [(u8, u8, &str); 36] = [
    (0x80, b'C', CEDILLA),
    (0x81, b'u', DIAERESIS),
    (0x82, b'e', ACUTE),
    (0x83, b'a', CIRCUMFLEX),
    (0x84, b'a', DIAERESIS),
    (0x85, b'a', GRAVE),
    (0x86, b'a', RING),
    (0x87, b'c', CEDILLA),
    (0x88, b'e', CIRCUMFLEX),
    (0x89, b'e', DIAERESIS),
    (0x8a, b'e', GRAVE),
    (0x8b, b'i', DIAERESIS),
    (0x8c, b'i', CIRCUMFLEX),
    (0x8d, b'i', GRAVE),
    (0x8e, b'A', DIAERESIS),
    (0x8f, b'A', RING),
    (0x90, b'E', ACUTE),
    (0x93, b'o', CIRCUMFLEX),
    (0x94, b'o', DIAERESIS),
    (0x95, b'o', GRAVE),
    (0x96, b'u', CIRCUMFLEX),
    (0x97, b'u', GRAVE),
    (0x98, b'y', DIAERESIS),
    (0x99, b'O', DIAERESIS),
    (0x9a, b'U', DIAERESIS),
    (0xa0, b'a', ACUTE),
    (0xa1, b'i', ACUTE),
    (0xa2, b'o', ACUTE),
    (0xa3, b'u', ACUTE),
    (0xa4, b'n', TILDE),
    (0xa5, b'N', TILDE),
    (0xe3, b'n', "...../...../#####"),
    (0xe5, b'o', "...../...../..###"),
    (0xed, b'o', "...../..#../..#../..#../..#../..#../..#../..#.."),
    (0xf0, b'=', "#####"),
    (0xf7, b'~', "......./......./......./.###.##/##.###."),
];

/// After which rows of the grid a scan line is added: capitals of eleven lines.
const CAPITAL_GAPS: [usize; 4] = [0, 1, 4, 5];
/// Capitals of nine lines, to leave room for an accent.
const LOW_CAPITAL_GAPS: [usize; 2] = [1, 4];

/// The rows of a drawing, leftmost dot in bit 7. On the coarse grid strokes become two dots wide.
fn rows(drawing: &str) -> [u8; 9] {
    let mut rows = [0; 9];
    for (row, text) in rows.iter_mut().zip(drawing.split('/')) {
        let stroke = if text.len() == 5 { 0xc0 } else { 0x80 };
        for (x, _) in text.bytes().enumerate().filter(|&(_, dot)| dot == b'#') {
            *row |= stroke >> x;
        }
    }
    rows
}

/// Stretches a drawing to scan lines from `top` on. An added line has what the rows above and below
/// it have in common: uprights go on, horizontals stay thin.
fn stretch(drawing: &str, top: usize, gaps: &[usize]) -> Glyph {
    let rows = rows(drawing);
    let mut lines = [0; HEIGHT];
    let mut y = top;
    for (i, &row) in rows.iter().enumerate() {
        lines[y] |= row;
        y += 1;
        if gaps.contains(&i) {
            lines[y] |= row & rows[i + 1];
            y += 1;
        }
    }
    lines
}

fn symbol(code: u8) -> Option<Glyph> {
    let (_, drawing) = SYMBOLS.iter().find(|s| s.0 == code)?;
    Some(stretch(drawing, 1, &CAPITAL_GAPS))
}

fn accented(code: u8) -> Option<Glyph> {
    let &(_, letter, accent) = ACCENTED.iter().find(|a| a.0 == code)?;
    let drawing = ASCII[usize::from(letter - b' ')];
    let mut lines = match letter {
        // The dot gives way.
        b'i' => stretch(drawing.strip_prefix("..#..").unwrap_or(drawing), 1, &CAPITAL_GAPS),
        b'A'..=b'Z' if accent != CEDILLA => stretch(drawing, 3, &LOW_CAPITAL_GAPS),
        _ => stretch(drawing, 1, &CAPITAL_GAPS),
    };
    let capital = letter.is_ascii_uppercase() && accent != CEDILLA;
    let accent = if capital { stretch(accent, 0, &[]) } else { stretch(accent, 1, &CAPITAL_GAPS) };
    for (line, over) in lines.iter_mut().zip(accent) {
        *line |= over;
    }
    Some(lines)
}

fn missing() -> Glyph {
    stretch("#####/#...#/#...#/#...#/#...#/#...#/#####", 1, &CAPITAL_GAPS)
}

/// Light, medium and dark.
fn shade(density: u8) -> Glyph {
    let [even, odd] = [[0x22, 0x88], [0x55, 0xaa], [0xdd, 0x77]][usize::from(density.min(2))];
    core::array::from_fn(|y| if y % 2 == 0 { even } else { odd })
}

/// Full, lower, left, right and upper half.
fn block(which: u8) -> Glyph {
    core::array::from_fn(|y| match which {
        0 => 0xff,
        1 if y >= HEIGHT / 2 => 0xff,
        2 => 0xf0,
        3 => 0x0f,
        4 if y < HEIGHT / 2 => 0xff,
        _ => 0,
    })
}

/// The line drawing characters from B3h on: one digit for each arm, up, down, left and right; 0 for
/// none, 1 for a single line, 2 for a double one. Opposite arms are alike.
const LINES: [u16; 40] = [
    0x1100, 0x1110, 0x1120, 0x2210, 0x0210, 0x0120, 0x2220, 0x2200, // B3 to BA
    0x0220, 0x2020, 0x2010, 0x1020, 0x0110, 0x1001, 0x1011, 0x0111, // BB to C2
    0x1101, 0x0011, 0x1111, 0x1102, 0x2201, 0x2002, 0x0202, 0x2022, // C3 to CA
    0x0222, 0x2202, 0x0022, 0x2222, 0x1022, 0x2011, 0x0122, 0x0211, // CB to D2
    0x2001, 0x1002, 0x0102, 0x0201, 0x2211, 0x1122, 0x1010, 0x0101, // D3 to DA
];

/// Where strokes lie across an axis: a single one, and the two of a double one. Inclusive.
struct Axis {
    single: (usize, usize),
    double: [(usize, usize); 2],
    last: usize,
}

const ACROSS: Axis = Axis { single: (3, 4), double: [(1, 2), (5, 6)], last: 7 };
const DOWN: Axis = Axis { single: (7, 7), double: [(6, 6), (8, 8)], last: HEIGHT - 1 };

impl Axis {
    /// The strokes of a line of this weight, with the side each looks to (0 before, 1 behind; a
    /// single one looks to both).
    fn strokes(&self, weight: u16) -> Vec<((usize, usize), Option<usize>)> {
        match weight {
            0 => vec![],
            1 => vec![(self.single, None)],
            _ => vec![(self.double[0], Some(0)), (self.double[1], Some(1))],
        }
    }

    /// The near and the far edge of a crossing line of this weight.
    fn edges(&self, weight: u16) -> [(usize, usize); 2] {
        if weight == 2 { self.double } else { [self.single; 2] }
    }
}

fn lines(arms: u16) -> Glyph {
    let [up, down, left, right] = [12, 8, 4, 0].map(|shift| arms >> shift & 3);
    let (vertical, horizontal) = (up.max(down), left.max(right));
    let mut lines = [0u8; HEIGHT];
    for (columns, side) in ACROSS.strokes(vertical) {
        for (first, last) in spans(&DOWN, [up, down], [left, right], horizontal, side) {
            for line in &mut lines[first..=last] {
                (columns.0..=columns.1).for_each(|x| *line |= 0x80 >> x);
            }
        }
    }
    for (rows, side) in DOWN.strokes(horizontal) {
        for (first, last) in spans(&ACROSS, [left, right], [up, down], vertical, side) {
            for line in &mut lines[rows.0..=rows.1] {
                (first..=last).for_each(|x| *line |= 0x80 >> x);
            }
        }
    }
    lines
}

/// From where to where a stroke goes along its axis. `along` are the arms it belongs to, `across` those
/// that cross it, of weight `crossing`; `side` is the one the stroke looks to.
fn spans(
    axis: &Axis,
    along: [u16; 2],
    across: [u16; 2],
    crossing: u16,
    side: Option<usize>,
) -> Vec<(usize, usize)> {
    let [near, far] = axis.edges(crossing);
    // A line crosses on the stroke's side: the stroke ends at its near edge, else it turns at the far.
    let met = match side {
        Some(side) => across[side] != 0,
        None => across[0] != 0 && across[1] != 0,
    };
    match along.map(|arm| arm != 0) {
        [true, true] if side.is_some() && met && crossing == 2 => vec![(0, near.1), (far.0, axis.last)],
        [true, true] => vec![(0, axis.last)],
        [true, false] => vec![(0, if met { near.1 } else { far.1 })],
        [false, true] => vec![(if met { far.0 } else { near.0 }, axis.last)],
        [false, false] => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(code: u8) -> String {
        glyph(code).iter().map(|line| format!("{line:08b}\n").replace('0', ".").replace('1', "#")).collect()
    }

    #[test]
    fn printable_characters_differ() {
        let mut glyphs: Vec<_> = (0x20..=0x7e).chain(0xb0..=0xdf).map(glyph).collect();
        let count = glyphs.len();
        glyphs.sort();
        glyphs.dedup();
        assert_eq!(glyphs.len(), count);
    }

    #[test]
    fn drawings_fit_the_grid() {
        let drawings = ASCII.iter().chain(SYMBOLS.iter().map(|(_, d)| d));
        for drawing in drawings.chain(ACCENTED.iter().map(|(_, _, d)| d)) {
            assert!(drawing.split('/').count() <= 9, "{drawing}");
            let fits = |len| drawing.split('/').all(|row| row.len() == len);
            assert!(drawing.is_empty() || fits(5) || fits(7), "{drawing}");
        }
    }

    #[test]
    fn lines_join_at_the_edges() {
        for (code, arms) in (0xb3..).zip(LINES) {
            let lines = glyph(code);
            let [up, down, left, right] = [12, 8, 4, 0].map(|shift| arms >> shift & 3);
            let columns = |weight| [0x00, 0x18, 0x66][usize::from(weight)];
            assert_eq!(lines[0], columns(up), "{}", show(code));
            assert_eq!(lines[15], columns(down), "{}", show(code));
            let rows = |bit: u8| lines.iter().filter(|line| **line & bit != 0).count() as u16;
            assert_eq!((rows(0x80), rows(0x01)), (left, right), "{}", show(code));
        }
    }

    #[test]
    fn a_letter_is_recognisable() {
        let want = ".####...\n.#..#...\n##..##..\n##..##..\n##..##..\n######..\n";
        let text = show(b'A');
        let lines: Vec<_> = text.lines().skip(1).take(6).collect();
        assert_eq!(lines, want.lines().collect::<Vec<_>>());
    }
}
