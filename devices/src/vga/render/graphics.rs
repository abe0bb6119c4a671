//! Lines of the VGA's own graphics modes: four planes of a bit a pixel, CGA's pairs of bits, and a byte a
//! pixel (IBM VGA Technical Reference, chapter 2, "Display memory organization").

use super::super::chain::Planes;
use super::super::registers::{crtc, graphics};
use super::super::{PLANE_SIZE, Vga};
use super::{Colors, Pixel};

/// Where in the planes the CRT controller reads for an address in line `scan` of a row.
fn offset(vga: &Vga, address: u32, scan: u32) -> usize {
    let registers = &vga.crtc.registers;
    let control = registers[crtc::MODE_CONTROL];
    let mut offset = if registers[crtc::UNDERLINE_LOCATION] & crtc::UNDERLINE_DOUBLEWORD != 0 {
        address << 2 | address >> 14 & 3
    } else if control & crtc::MODE_BYTE == 0 {
        let wrap = if control & crtc::MODE_ADDRESS_WRAP != 0 { 15 } else { 13 };
        address << 1 | address >> wrap & 1
    } else {
        address
    };
    for (bit, compatible, from) in [(13, crtc::MODE_NOT_CGA, 0), (14, crtc::MODE_NOT_HERCULES, 1)] {
        if control & compatible == 0 {
            offset = offset & !(1 << bit) | (scan >> from & 1) << bit;
        }
    }
    offset as usize % PLANE_SIZE
}

/// Draws line `scan` of the row from address `row` on.
pub(super) fn line(
    vga: &Vga,
    planes: Planes,
    colors: &Colors,
    row: u32,
    scan: u32,
    columns: u32,
    out: &mut Vec<Pixel>,
) {
    let mode = vga.graphics.registers[graphics::MODE];
    let registers = &vga.crtc.registers;
    // Characters for which the address stays the same.
    let each = match () {
        () if registers[crtc::UNDERLINE_LOCATION] & crtc::UNDERLINE_COUNT_BY_4 != 0 => 4,
        () if registers[crtc::MODE_CONTROL] & crtc::MODE_COUNT_BY_2 != 0 => 2,
        () => 1,
    };
    for column in 0..columns {
        let at = offset(vga, row.wrapping_add(column / each), scan);
        let bytes = planes.at(at);
        if mode & graphics::MODE_256_COLORS != 0 {
            out.extend(bytes.into_iter().flat_map(|byte| [colors.dac[usize::from(byte)]; 2]));
        } else if mode & graphics::MODE_INTERLEAVED != 0 {
            // Four pixels of planes 0 and 2, then four of 1 and 3.
            for (low, high) in [(bytes[0], bytes[2]), (bytes[1], bytes[3])] {
                let pixel = |shift: u32| usize::from(low >> shift & 3 | (high >> shift & 3) << 2);
                out.extend([6, 4, 2, 0].map(|shift| colors.attribute[pixel(shift)]));
            }
        } else {
            out.extend(planar(bytes, colors));
        }
    }
}

/// Eight pixels with a bit in each plane.
pub(super) fn planar(planes: [u8; 4], colors: &Colors) -> [Pixel; 8] {
    core::array::from_fn(|place| {
        let pixel = (0..4).fold(0, |pixel, plane| pixel | (planes[plane] >> (7 - place) & 1) << plane);
        colors.attribute[usize::from(pixel)]
    })
}
