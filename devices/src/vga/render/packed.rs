//! Lines of VBE modes: pixels side by side in the framebuffer, or eight of them in a byte of each of four planes.

use super::super::Vbe;
use super::graphics::planar;
use super::{Colors, Pixel};
use core::ops::Range;

impl Vbe {
    /// The lines of the picture that a part of the framebuffer has something of.
    pub(super) fn lines(&self, part: Range<u32>) -> Range<usize> {
        let first = self.shown().start;
        let pitch = self.pitch().max(1);
        let height = u32::from(self.height);
        let start = (part.start.saturating_sub(first) / pitch).min(height);
        let end = part.end.saturating_sub(first).div_ceil(pitch).min(height);
        start as usize..end as usize
    }
}

/// Draws a line. What lies beyond the memory is left to be black.
pub(super) fn line(vbe: &Vbe, memory: &[u8], colors: &Colors, line: usize, out: &mut Vec<Pixel>) {
    let start = (vbe.shown().start as usize).saturating_add(line * vbe.pitch() as usize);
    let row = memory.get(start..).unwrap_or_default();
    let row = &row[..row.len().min(vbe.row_bytes(vbe.width) as usize)];
    let bytes = usize::from(vbe.bpp).div_ceil(8);
    match vbe.bpp {
        _ if vbe.is_planar() => {
            let eight = row.chunks_exact(4).map(|planes| [planes[0], planes[1], planes[2], planes[3]]);
            out.extend(eight.flat_map(|planes| planar(planes, colors)));
        }
        8 => out.extend(row.iter().map(|index| colors.dac[usize::from(*index)])),
        15 => out.extend(words(row).map(|v| [five(v >> 10), five(v >> 5), five(v), 0xff])),
        16 => out.extend(words(row).map(|v| [five(v >> 11), six(v >> 5), five(v), 0xff])),
        _ => out.extend(row.chunks_exact(bytes).map(|pixel| [pixel[2], pixel[1], pixel[0], 0xff])),
    }
}

fn words(row: &[u8]) -> impl Iterator<Item = u16> {
    row.chunks_exact(2).map(|pixel| u16::from_le_bytes([pixel[0], pixel[1]]))
}

/// A component of five bits in eight.
fn five(value: u16) -> u8 {
    let value = value as u8 & 0x1f;
    value << 3 | value >> 2
}

/// A component of six bits in eight.
fn six(value: u16) -> u8 {
    let value = value as u8 & 0x3f;
    value << 2 | value >> 4
}
