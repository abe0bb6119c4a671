//! Firmware of the user's as a raw ROM image.

use env86_emu::Memory;

use crate::BootError;

/// The end of the first MiB, where a system BIOS ends.
const END: u32 = 0x10_0000;
/// Where a video BIOS is looked for first.
const VGA_ROM: u32 = 0xc_0000;
/// The most a video BIOS can have: the card's expansion ROM is that large.
const VGA_ROM_MAX: usize = 64 << 10;
/// The sizes of ROM chips that fit below 1 MiB, above the video window.
const SIZES: [usize; 3] = [64 << 10, 128 << 10, 256 << 10];

/// Copies a system BIOS so that it ends at FFFFFh (and, through the alias, at FFFFFFFFh) and a video
/// BIOS to C0000h. A video BIOS that would overlap the system BIOS is left out: such a BIOS finds it
/// through the video card's expansion ROM.
pub fn load(bios: &[u8], vga_bios: Option<&[u8]>, mem: &mut Memory) -> Result<(), BootError> {
    if !SIZES.contains(&bios.len()) {
        return Err(BootError::RomSize(bios.len()));
    }
    let start = END - bios.len() as u32;
    // What a machine's last run left in the shadow area is no option ROM of this one.
    mem.write(VGA_ROM, &vec![0; (END - VGA_ROM) as usize]);
    mem.write(start, bios);
    if let Some(rom) = vga_bios {
        if rom.len() > VGA_ROM_MAX {
            return Err(BootError::VgaRomSize { have: rom.len(), limit: VGA_ROM_MAX });
        }
        if VGA_ROM + rom.len() as u32 <= start {
            mem.write(VGA_ROM, rom);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BoardInfo, BootSource};

    #[test]
    fn the_reset_vector_is_at_the_end_of_the_image() {
        for size in SIZES {
            let mut bios = vec![0; size];
            bios[size - 16] = 0xea;
            bios[0] = 0x55;
            let mut mem = Memory::new(1 << 20).unwrap();
            let source = BootSource::Rom { bios, vga_bios: Some(vec![0xaa; 512]), kernel: None };
            let boot = crate::load(&source, &BoardInfo::default(), &mut mem).unwrap();
            let reset = boot.state.seg[1].base + boot.state.eip;
            assert_eq!(reset, 0xffff_fff0);
            assert_eq!(mem.read_u8(reset), 0xea);
            assert_eq!(mem.read_u8(0xffff0), 0xea);
            assert_eq!(mem.read_u8(END - size as u32), 0x55);
            assert_eq!(mem.read_u8(VGA_ROM), if size == SIZES[2] { 0x55 } else { 0xaa });
            assert!(boot.steps.is_empty());
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        let mut mem = Memory::new(1 << 20).unwrap();
        for size in [0, 512, 96 << 10, 192 << 10, 512 << 10] {
            assert_eq!(load(&vec![0; size], None, &mut mem), Err(BootError::RomSize(size)));
        }
        let bios = vec![0; 64 << 10];
        assert!(matches!(load(&bios, Some(&vec![0; 1 << 20]), &mut mem), Err(BootError::VgaRomSize { .. })));
    }
}
