//! The two functions every board has: the 82441FX host bridge and the 82371SB (PIIX3) ISA bridge.

use super::config::{COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace, HEADER_TYPE, STATUS};
use env86_emu::memory::{PAGE_SIZE, SHADOW};

const INTEL: u16 = 0x8086;

/// Host bridge: PAM0, the first of the shadow RAM attribute registers (82441FX, 3.2.18). Its upper half is for
/// F0000h to FFFFFh; each half of the six behind it, the lower one first, is for 16 KiB from C0000h on.
pub const PAM0: u8 = 0x59;
/// Host bridge: the last of them.
pub const PAM6: u8 = 0x5f;
/// PAM: reads go to RAM; else to PCI, where ROMs are.
const PAM_READ_ENABLE: u8 = 1 << 0;
/// PAM: writes go to RAM; else to PCI, where they are lost.
const PAM_WRITE_ENABLE: u8 = 1 << 1;

/// PIIX3: ISA controller recovery timer (82371SB, 2.2.8).
const IORT: u8 = 0x4c;
/// PIIX3: X-bus chip select enables.
const XBCS: u8 = 0x4e;
/// PIIX3: PIRQA# to PIRQD# routing (82371SB, 2.2.10), four bytes: the ISA IRQ in bits 0-3, and
/// [`PIRQ_DISABLED`].
pub const PIRQRC: u8 = 0x60;
/// PIIX3: the PIRQ is routed nowhere.
pub const PIRQ_DISABLED: u8 = 0x80;
/// PIIX3: top of memory, for ISA masters.
const TOM: u8 = 0x69;
/// PIIX3: SMI control and the registers after it.
const SMICNTL: u8 = 0xa0;

/// The 82441FX. At power-up the system BIOS is already in RAM, as in v86's machine, and PAM0 says so.
pub fn host_bridge() -> ConfigSpace {
    ConfigSpace::new(INTEL, 0x1237, 0x06_0000, 0x02)
        .with_command(COMMAND_MEMORY | COMMAND_MASTER)
        .with_bytes(STATUS, &0x0280u16.to_le_bytes())
        .with_writable(0x50, &[0xff; 0x50])
        .with_bytes(PAM0, &[PAM_READ_ENABLE << 4])
}

/// The pages of the shadow area that this host bridge does not let be written, as
/// [`Memory::set_read_only`](env86_emu::Memory::set_read_only) takes them.
///
/// Reads are RAM's whatever the registers say: what is in the ROMs is put there before the processor starts.
pub fn read_only(host_bridge: &ConfigSpace) -> u64 {
    const PAGES: u32 = (16 << 10) / PAGE_SIZE;
    let pam = &host_bridge.bytes()[usize::from(PAM0)..=usize::from(PAM6)];
    let (system, others) = (pam[0] >> 4, pam[1..].iter().flat_map(|pam| [*pam, *pam >> 4]));
    let attributes = others.chain([system; 4]);
    attributes.zip((0..SHADOW.len() as u32 / PAGE_SIZE).step_by(PAGES as usize)).fold(
        0,
        |pages, (pam, first)| {
            let part = ((1u64 << PAGES) - 1) << first;
            if pam & PAM_WRITE_ENABLE == 0 { pages | part } else { pages }
        },
    )
}

/// The ISA bridge, which routes the PCI interrupts.
pub fn isa_bridge() -> ConfigSpace {
    ConfigSpace::new(INTEL, 0x7000, 0x06_0100, 0)
        .with_command(COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER)
        .with_bytes(STATUS, &0x0200u16.to_le_bytes())
        .with_bytes(HEADER_TYPE, &[0x80])
        .with_bytes(IORT, &[0x4d])
        .with_writable(IORT, &[0xff])
        .with_bytes(XBCS, &[0x03, 0x00])
        .with_writable(XBCS, &[0xff, 0x01])
        .with_bytes(PIRQRC, &[PIRQ_DISABLED; 4])
        .with_writable(PIRQRC, &[0x8f; 4])
        .with_bytes(TOM, &[0x02])
        .with_writable(TOM, &[0xfe])
        .with_bytes(SMICNTL, &[0x08])
        .with_writable(SMICNTL, &[0x1f, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
}

#[cfg(test)]
mod tests {
    use super::*;
    use env86_emu::Width;

    #[test]
    fn pam_registers_say_what_is_read_only() {
        let mut bridge = host_bridge();
        assert_eq!(read_only(&bridge), u64::MAX, "at power-up");
        bridge.write(PAM0 + 1, Width::Byte, 0x32);
        bridge.write(PAM0 + 4, Width::Byte, 0x01);
        bridge.write(PAM6, Width::Byte, 0x2d);
        assert_eq!(!read_only(&bridge), 0xff | 0xf << 44, "C0000h and C4000h, EC000h");
        // The lower half of PAM0 is for nothing.
        bridge.write(PAM0, Width::Byte, 0x03);
        assert_eq!(read_only(&bridge) >> 48, 0xffff);
        bridge.write(PAM0, Width::Byte, 0x20);
        assert_eq!(read_only(&bridge) >> 48, 0);
    }
}
