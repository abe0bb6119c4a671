//! The configuration space of one PCI function (PCI Local Bus 2.1, chapter 6).

use env86_emu::Width;

/// Vendor ID, 16 bits.
pub const VENDOR_ID: u8 = 0x00;
/// Device ID, 16 bits.
pub const DEVICE_ID: u8 = 0x02;
/// Command register, 16 bits.
pub const COMMAND: u8 = 0x04;
/// Status register, 16 bits.
pub const STATUS: u8 = 0x06;
/// Revision ID, 8 bits; the 24 bits above are the class code.
pub const REVISION_ID: u8 = 0x08;
/// Cache line size, 8 bits.
pub const CACHE_LINE_SIZE: u8 = 0x0c;
/// Latency timer, 8 bits.
pub const LATENCY_TIMER: u8 = 0x0d;
/// Header type, 8 bits.
pub const HEADER_TYPE: u8 = 0x0e;
/// First of six base address registers.
pub const BASE_ADDRESS_0: u8 = 0x10;
/// Subsystem vendor ID, 16 bits.
pub const SUBSYSTEM_VENDOR_ID: u8 = 0x2c;
/// Subsystem ID, 16 bits.
pub const SUBSYSTEM_ID: u8 = 0x2e;
/// Expansion ROM base address.
pub const ROM_ADDRESS: u8 = 0x30;
/// Offset of the first capability.
pub const CAPABILITIES_POINTER: u8 = 0x34;
/// Interrupt line: a scratch byte between firmware and drivers.
pub const INTERRUPT_LINE: u8 = 0x3c;
/// Interrupt pin: 0 none, 1 INTA# to 4 INTD#.
pub const INTERRUPT_PIN: u8 = 0x3d;

/// Command: answers I/O accesses.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: answers memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: may be bus master.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// The command bits a guest may change. INTx disable (bit 10) came with PCI 2.3 and is not there.
const COMMAND_WRITABLE: u16 = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | 0x140;
/// Status: there is a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Base addresses a function can have.
pub const BARS: usize = 6;
const BAR_IO: u32 = 1;
const BAR_IO_FLAGS: u32 = 0b11;
const BAR_MEMORY_FLAGS: u32 = 0b1111;
const BAR_PREFETCHABLE: u32 = 1 << 3;
/// A byte in each of the 64 dwords of the space.
const SIZE: usize = 256;

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bar {
    /// Ports; the guest may move them.
    Io { size: u32 },
    /// Memory that stays where it is: it can be sized, and any other write restores it.
    FixedMemory { register: u32, size: u32 },
}

/// The 256 bytes of configuration space of one function, with what a guest may change in them.
///
/// Built once by the device that it describes, then owned by the bus ([`super::Pci`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    bars: [Option<Bar>; BARS],
    rom: Option<Bar>,
}

impl ConfigSpace {
    /// A function of the given identity; `class` is the 24-bit class code. The Command register,
    /// cache line size, latency timer and interrupt line can be written, and nothing else yet.
    pub fn new(vendor: u16, device: u16, class: u32, revision: u8) -> Self {
        let empty = Self { bytes: [0; SIZE], writable: [0; SIZE], bars: [None; BARS], rom: None };
        empty
            .with_bytes(VENDOR_ID, &vendor.to_le_bytes())
            .with_bytes(DEVICE_ID, &device.to_le_bytes())
            .with_bytes(REVISION_ID, &(class << 8 | u32::from(revision)).to_le_bytes())
            .with_writable(COMMAND, &COMMAND_WRITABLE.to_le_bytes())
            .with_writable(CACHE_LINE_SIZE, &[0xff])
            .with_writable(LATENCY_TIMER, &[0xff])
            .with_writable(INTERRUPT_LINE, &[0xff])
    }

    /// Sets bytes as they are at power-up.
    pub fn with_bytes(mut self, offset: u8, bytes: &[u8]) -> Self {
        self.set_bytes(offset, bytes);
        self
    }

    /// Sets which bits of the bytes from `offset` on a guest may change.
    pub fn with_writable(mut self, offset: u8, masks: &[u8]) -> Self {
        for (target, mask) in self.writable[usize::from(offset)..].iter_mut().zip(masks) {
            *target = *mask;
        }
        self
    }

    /// Sets the subsystem identity.
    pub fn with_subsystem(self, vendor: u16, id: u16) -> Self {
        self.with_bytes(SUBSYSTEM_VENDOR_ID, &vendor.to_le_bytes())
            .with_bytes(SUBSYSTEM_ID, &id.to_le_bytes())
    }

    /// Sets the Command register at power-up.
    pub fn with_command(self, command: u16) -> Self {
        self.with_bytes(COMMAND, &command.to_le_bytes())
    }

    /// Sets the interrupt pin (1 is INTA#) and the power-up value of the interrupt line.
    pub fn with_interrupt(self, pin: u8, line: u8) -> Self {
        self.with_bytes(INTERRUPT_LINE, &[line, pin])
    }

    /// Sets the offset of the first capability and the status bit that announces the list.
    pub fn with_capabilities(self, first: u8) -> Self {
        let status = self.word(STATUS) | STATUS_CAPABILITIES;
        self.with_bytes(STATUS, &status.to_le_bytes()).with_bytes(CAPABILITIES_POINTER, &[first])
    }

    /// Adds `size` ports (a power of two, at least 4) as base address `index`, at `port` on
    /// power-up. The guest may move them.
    pub fn with_io_bar(mut self, index: usize, port: u16, size: u16) -> Self {
        debug_assert!(size.is_power_of_two() && size >= 4 && port.is_multiple_of(size));
        self.bars[index] = Some(Bar::Io { size: size.into() });
        self.with_bytes(bar_offset(index), &(u32::from(port) | BAR_IO).to_le_bytes())
    }

    /// Adds `size` bytes (a power of two, at least 16) of 32-bit prefetchable memory as base
    /// address `index`. It can be sized and cannot be moved: v86's machine has it so, and states
    /// rely on it.
    pub fn with_fixed_memory_bar(mut self, index: usize, base: u32, size: u32) -> Self {
        debug_assert!(size.is_power_of_two() && size >= 16 && base.is_multiple_of(size));
        let register = base | BAR_PREFETCHABLE;
        self.bars[index] = Some(Bar::FixedMemory { register, size });
        self.with_bytes(bar_offset(index), &register.to_le_bytes())
    }

    /// Adds an expansion ROM at a fixed address.
    pub fn with_fixed_rom(mut self, base: u32, size: u32) -> Self {
        debug_assert!(size.is_power_of_two() && base.is_multiple_of(size));
        self.rom = Some(Bar::FixedMemory { register: base, size });
        self.with_bytes(ROM_ADDRESS, &base.to_le_bytes())
    }

    /// The whole space.
    pub fn bytes(&self) -> &[u8; SIZE] {
        &self.bytes
    }

    /// Changes bytes from the device's side: no mask applies.
    pub fn set_bytes(&mut self, offset: u8, bytes: &[u8]) {
        for (target, byte) in self.bytes[usize::from(offset)..].iter_mut().zip(bytes) {
            *target = *byte;
        }
    }

    /// Takes over a saved space. Base addresses that this function does not have stay zero, and
    /// fixed ones stay where they are.
    pub fn restore(&mut self, saved: &[u8; SIZE]) {
        let fixed: [u32; BARS] = core::array::from_fn(|i| self.dword(bar_offset(i)));
        let rom = self.dword(ROM_ADDRESS);
        self.bytes = *saved;
        for (i, bar) in self.bars.into_iter().enumerate() {
            if !matches!(bar, Some(Bar::Io { .. })) {
                self.set_bytes(bar_offset(i), &fixed[i].to_le_bytes());
            }
        }
        self.set_bytes(ROM_ADDRESS, &rom.to_le_bytes());
    }

    /// The Command register.
    pub fn command(&self) -> u16 {
        self.word(COMMAND)
    }

    /// The interrupt pin: 0 none, 1 INTA# to 4 INTD#.
    pub fn interrupt_pin(&self) -> u8 {
        self.bytes[usize::from(INTERRUPT_PIN)]
    }

    /// Where base address `index` decodes now: the port or the address; `None` while it decodes
    /// nothing, because it does not exist, is disabled in the Command register or is being sized.
    pub fn bar(&self, index: usize) -> Option<u32> {
        let register = self.dword(bar_offset(index));
        match (*self.bars.get(index)?)? {
            Bar::Io { size } => {
                let port = register & !BAR_IO_FLAGS;
                let fits = port != 0 && port.checked_add(size - 1).is_some_and(|last| last <= 0xffff);
                (fits && self.command() & COMMAND_IO != 0).then_some(port)
            }
            Bar::FixedMemory { register, .. } => {
                (self.command() & COMMAND_MEMORY != 0).then_some(register & !BAR_MEMORY_FLAGS)
            }
        }
    }

    /// Ports that base address `index` decodes; 0 if it decodes none.
    pub fn io_ports(&self, index: usize) -> u16 {
        match self.bars.get(index) {
            Some(&Some(Bar::Io { size })) => size as u16,
            _ => 0,
        }
    }

    /// Ports or bytes that base address `index` decodes; 0 if there is none.
    pub fn bar_size(&self, index: usize) -> u32 {
        match self.bars.get(index) {
            Some(&Some(Bar::Io { size } | Bar::FixedMemory { size, .. })) => size,
            _ => 0,
        }
    }

    /// A guest's read. An access beyond the last byte reads ones there.
    pub fn read(&self, offset: u8, width: Width) -> u32 {
        (0..width.bytes()).rev().fold(0, |value, i| {
            let byte = self.bytes.get(usize::from(offset) + i as usize).copied().unwrap_or(0xff);
            value << 8 | u32::from(byte)
        })
    }

    /// A guest's write; what it may not change stays.
    pub fn write(&mut self, offset: u8, width: Width, value: u32) {
        for (i, byte) in value.to_le_bytes().into_iter().take(width.bytes() as usize).enumerate() {
            let at = usize::from(offset) + i;
            if at >= SIZE {
                break;
            }
            let (mask, fixed) = match self.bar_at(at) {
                Some(Bar::Io { size }) => ((!(size - 1)).to_le_bytes()[at & 3], BAR_IO.to_le_bytes()[at & 3]),
                Some(Bar::FixedMemory { register, size }) => {
                    ((!(size - 1)).to_le_bytes()[at & 3], (register & BAR_MEMORY_FLAGS).to_le_bytes()[at & 3])
                }
                None => (self.writable[at], self.bytes[at]),
            };
            self.bytes[at] = fixed & !mask | byte & mask;
        }
        if let Some(Bar::FixedMemory { register, size }) = self.bar_at(offset.into()) {
            let sizing = self.dword(offset & !3) | (size - 1) == u32::MAX;
            if !sizing {
                self.set_bytes(offset & !3, &register.to_le_bytes());
            }
        }
    }

    /// The base address register that a byte of the space belongs to.
    fn bar_at(&self, at: usize) -> Option<Bar> {
        let rom = usize::from(ROM_ADDRESS);
        if (rom..rom + 4).contains(&at) {
            return self.rom;
        }
        *self.bars.get(at.checked_sub(usize::from(BASE_ADDRESS_0))? / 4)?
    }

    fn word(&self, offset: u8) -> u16 {
        self.read(offset, Width::Word) as u16
    }

    fn dword(&self, offset: u8) -> u32 {
        self.read(offset, Width::Dword)
    }
}

/// Where base address register `index` is.
const fn bar_offset(index: usize) -> u8 {
    BASE_ADDRESS_0 + 4 * (index % BARS) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network_card() -> ConfigSpace {
        ConfigSpace::new(0x10ec, 0x8029, 0x02_0000, 0)
            .with_subsystem(0x1af4, 0x1100)
            .with_command(COMMAND_IO)
            .with_io_bar(0, 0x300, 32)
            .with_interrupt(1, 0)
    }

    #[test]
    fn identity_reads_at_every_width() {
        let card = network_card();
        assert_eq!(card.read(VENDOR_ID, Width::Dword), 0x8029_10ec);
        assert_eq!(card.read(DEVICE_ID, Width::Word), 0x8029);
        assert_eq!(card.read(0x0b, Width::Byte), 2);
        assert_eq!(card.read(SUBSYSTEM_ID, Width::Word), 0x1100);
        assert_eq!(card.read(0xfe, Width::Dword), 0xffff_0000);
    }

    #[test]
    fn identity_cannot_be_written() {
        let mut card = network_card();
        card.write(0, Width::Dword, 0);
        card.write(0xff, Width::Dword, 0);
        assert_eq!(card.read(0, Width::Dword), 0x8029_10ec);
    }

    #[test]
    fn io_bar_sizes_and_moves() {
        let mut card = network_card();
        assert_eq!(card.bar(0), Some(0x300));
        card.write(BASE_ADDRESS_0, Width::Dword, 0xffff_ffff);
        assert_eq!(card.read(BASE_ADDRESS_0, Width::Dword), 0xffff_ffe1);
        assert_eq!(card.bar(0), None, "being sized");
        card.write(BASE_ADDRESS_0, Width::Word, 0xc14f);
        card.write(BASE_ADDRESS_0 + 2, Width::Word, 0);
        assert_eq!(card.bar(0), Some(0xc140));
        card.write(COMMAND, Width::Word, 0);
        assert_eq!(card.bar(0), None, "disabled");
    }

    #[test]
    fn absent_bars_read_zero() {
        let mut card = network_card();
        card.write(BASE_ADDRESS_0 + 4, Width::Dword, 0xffff_ffff);
        card.write(ROM_ADDRESS, Width::Dword, 0xffff_ffff);
        assert_eq!(card.read(BASE_ADDRESS_0 + 4, Width::Dword), 0);
        assert_eq!(card.read(ROM_ADDRESS, Width::Dword), 0);
        assert_eq!(card.bar(1), None);
        assert_eq!(card.bar(6), None);
    }

    #[test]
    fn fixed_memory_sizes_and_stays() {
        let mut vga = ConfigSpace::new(0x1234, 0x1111, 0x03_0000, 0)
            .with_command(COMMAND_MEMORY)
            .with_fixed_memory_bar(0, 0xe000_0000, 8 << 20)
            .with_fixed_rom(0xfeb0_0000, 0x10000);
        vga.write(BASE_ADDRESS_0, Width::Dword, 0xffff_ffff);
        assert_eq!(vga.read(BASE_ADDRESS_0, Width::Dword), 0xff80_0008);
        assert_eq!(vga.bar(0), Some(0xe000_0000));
        vga.write(BASE_ADDRESS_0, Width::Dword, 0xfd80_0000);
        assert_eq!(vga.read(BASE_ADDRESS_0, Width::Dword), 0xe000_0008);
        vga.write(ROM_ADDRESS, Width::Dword, 0xffff_f800);
        assert_eq!(vga.read(ROM_ADDRESS, Width::Dword), 0xffff_0000);
        vga.write(ROM_ADDRESS, Width::Dword, 0);
        assert_eq!(vga.read(ROM_ADDRESS, Width::Dword), 0xfeb0_0000);
    }

    #[test]
    fn restore_keeps_what_the_function_has_not() {
        let mut card = network_card();
        let mut saved = *card.bytes();
        saved[usize::from(BASE_ADDRESS_0)..][..8].copy_from_slice(&[0x41, 0xc1, 0, 0, 1, 0, 0, 0]);
        card.restore(&saved);
        assert_eq!(card.bar(0), Some(0xc140));
        assert_eq!(card.read(BASE_ADDRESS_0 + 4, Width::Dword), 0);
    }
}
