//! The two functions every board has: the 82441FX host bridge and the 82371SB (PIIX3) ISA bridge.

use super::config::{COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace, HEADER_TYPE, STATUS};

const INTEL: u16 = 0x8086;

/// Host bridge: PAM0, the first of the shadow RAM attribute registers (82441FX, 3.2.18).
const PAM0: u8 = 0x59;

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

/// The 82441FX. Its registers remember what is written; RAM below 1 MiB is always writable on
/// this board, so the PAM registers have no effect.
pub fn host_bridge() -> ConfigSpace {
    ConfigSpace::new(INTEL, 0x1237, 0x06_0000, 0x02)
        .with_command(COMMAND_MEMORY | COMMAND_MASTER)
        .with_bytes(STATUS, &0x0280u16.to_le_bytes())
        .with_writable(0x50, &[0xff; 0x50])
        .with_bytes(PAM0, &[0x10])
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
