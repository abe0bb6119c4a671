//! The ISA DMA controller: two 8237A in cascade with their page registers.
//!
//! Channels 0 to 3 move bytes, 5 to 7 words; 4 carries the first chip. A device asks for transfers
//! by calling [`Dma::transfer_to_memory`] or [`Dma::transfer_from_memory`]. Memory-to-memory
//! transfers are absent, as in the PIIX3.
//!
//! Sources: Intel 8237A datasheet (231466), PIIX3 datasheet 2.5.1.

use env86_emu::Memory;

const CHANNELS: usize = 8;
/// Registers of the first chip stand at every port from 00h, ...
const CHIP0_BASE: u16 = 0x00;
const CHIP0_LAST: u16 = 0x0f;
/// ... those of the second at every other from C0h.
const CHIP1_BASE: u16 = 0xc0;
const CHIP1_LAST: u16 = 0xdf;
/// Page registers, and beside them bytes that only store. 80h is the diagnostic port.
const PAGE_BASE: u16 = 0x80;
const PAGE_LAST: u16 = 0x8f;
/// High page registers, address bits 24 to 31.
const HIGH_PAGE_BASE: u16 = 0x480;
const HIGH_PAGE_LAST: u16 = 0x48f;

/// The controller's ports, first and last. The first page registers of both kinds are not fitted: port
/// 80h shows how far a start has come.
pub const PORTS: [core::ops::RangeInclusive<u16>; 4] = [
    CHIP0_BASE..=CHIP0_LAST,
    CHIP1_BASE..=CHIP1_LAST,
    PAGE_BASE + 1..=PAGE_LAST,
    HIGH_PAGE_BASE + 1..=HIGH_PAGE_LAST,
];

// Registers of one chip.
const STATUS_COMMAND: u16 = 8;
const REQUEST: u16 = 9;
const SINGLE_MASK: u16 = 10;
const MODE: u16 = 11;
const CLEAR_FLIP_FLOP: u16 = 12;
const TEMPORARY_MASTER_CLEAR: u16 = 13;
const CLEAR_MASK: u16 = 14;
const ALL_MASK: u16 = 15;

const COMMAND_DISABLE: u8 = 0x04;
const SELECT_SET: u8 = 0x04;

const MODE_TYPE: u8 = 0x0c;
const MODE_VERIFY: u8 = 0x00;
const MODE_WRITE: u8 = 0x04;
const MODE_READ: u8 = 0x08;
const MODE_AUTOINIT: u8 = 0x10;
const MODE_DECREMENT: u8 = 0x20;
const MODE_KIND: u8 = 0xc0;
const MODE_CASCADE: u8 = 0xc0;

/// What a transfer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes moved.
    pub bytes: usize,
    /// The channel reached its terminal count (pin TC), which ended the transfer.
    pub terminal_count: bool,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Address bits 16 to 23.
    pub page: u8,
    /// Address bits 24 to 31.
    pub page_high: u8,
    /// Current address; of words on channels 4 to 7.
    pub address: u16,
    /// Base address, reloaded by autoinitialization.
    pub base_address: u16,
    /// Current count: transfers still to do, less 1.
    pub count: u16,
    /// Base count.
    pub base_count: u16,
    /// Requests are held off.
    pub masked: bool,
    /// Mode register.
    pub mode: u8,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            page: 0,
            page_high: 0,
            address: 0,
            base_address: 0,
            count: 0,
            base_count: 0,
            masked: true,
            mode: 0,
        }
    }
}

/// What one chip has beside its channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chip {
    /// Command register.
    pub command: u8,
    /// Channels that have reached terminal count since the status was read (bits 0 to 3).
    pub terminal_counts: u8,
    /// Software requests (bits 0 to 3). Nothing in a PC answers them.
    pub requests: u8,
}

/// The controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dma {
    /// Channels 0 to 7.
    pub channels: [Channel; CHANNELS],
    /// The chip of channels 0 to 3 and that of 4 to 7.
    pub chips: [Chip; 2],
    /// The next access to an address or count is to its high byte. One flip-flop serves both
    /// chips' state, as v86 has it; software clears it before it counts on it.
    pub flip_flop: bool,
    /// Page-like bytes that belong to no channel, by port minus 80h.
    pub spare_pages: [u8; 16],
}

impl Dma {
    /// A reset: like a master clear of both chips.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Reads a port.
    pub fn read(&mut self, port: u16) -> u8 {
        match port {
            CHIP0_BASE..=CHIP0_LAST => self.read_chip(0, port),
            CHIP1_BASE..=CHIP1_LAST => self.read_chip(1, (port - CHIP1_BASE) >> 1),
            PAGE_BASE..=PAGE_LAST => match page_channel(port - PAGE_BASE) {
                Some(channel) => self.channels[channel].page,
                None => self.spare_pages[usize::from(port - PAGE_BASE)],
            },
            HIGH_PAGE_BASE..=HIGH_PAGE_LAST => {
                page_channel(port - HIGH_PAGE_BASE).map_or(0xff, |channel| self.channels[channel].page_high)
            }
            _ => 0xff,
        }
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            CHIP0_BASE..=CHIP0_LAST => self.write_chip(0, port, value),
            CHIP1_BASE..=CHIP1_LAST => self.write_chip(1, (port - CHIP1_BASE) >> 1, value),
            PAGE_BASE..=PAGE_LAST => match page_channel(port - PAGE_BASE) {
                Some(channel) => {
                    self.channels[channel].page = value;
                    // Software that knows no high pages must not be caught by an old one.
                    self.channels[channel].page_high = 0;
                }
                None => self.spare_pages[usize::from(port - PAGE_BASE)] = value,
            },
            HIGH_PAGE_BASE..=HIGH_PAGE_LAST => {
                if let Some(channel) = page_channel(port - HIGH_PAGE_BASE) {
                    self.channels[channel].page_high = value;
                }
            }
            _ => {}
        }
    }

    /// Whether a device's request on a channel would be served.
    pub fn ready(&self, channel: usize) -> bool {
        self.channels.get(channel).is_some_and(|c| {
            channel != 4
                && !c.masked
                && c.mode & MODE_KIND != MODE_CASCADE
                && self.chips[channel / 4].command & COMMAND_DISABLE == 0
        })
    }

    /// Bytes until the terminal count.
    pub fn remaining(&self, channel: usize) -> usize {
        self.channels.get(channel).map_or(0, |c| (usize::from(c.count) + 1) << (channel / 4))
    }

    /// Moves a device's bytes to memory until they or the count are used up. Does nothing if the
    /// channel is not set up for it; a verify transfer counts but stores nothing. On channels 5 to
    /// 7 an odd last byte stays behind.
    pub fn transfer_to_memory(&mut self, channel: usize, mem: &mut Memory, data: &[u8]) -> Transfer {
        let width = 1 << (channel / 4);
        let Some(kind) = self.transfer_type(channel, MODE_WRITE) else { return Transfer::default() };
        let mut done = Transfer::default();
        for unit in data.chunks_exact(width) {
            if kind == MODE_WRITE {
                mem.write(self.physical_address(channel), unit);
            }
            done.bytes += width;
            if self.step(channel) {
                done.terminal_count = true;
                break;
            }
        }
        done
    }

    /// Fills a device's buffer from memory until it or the count is used up. Does nothing if the
    /// channel is not set up for it; a verify transfer counts and leaves the buffer alone.
    pub fn transfer_from_memory(&mut self, channel: usize, mem: &mut Memory, data: &mut [u8]) -> Transfer {
        let width = 1 << (channel / 4);
        let Some(kind) = self.transfer_type(channel, MODE_READ) else { return Transfer::default() };
        let mut done = Transfer::default();
        for unit in data.chunks_exact_mut(width) {
            if kind == MODE_READ {
                mem.read(self.physical_address(channel), unit);
            }
            done.bytes += width;
            if self.step(channel) {
                done.terminal_count = true;
                break;
            }
        }
        done
    }

    /// The channel's transfer type, if it can serve one of the type wanted.
    fn transfer_type(&self, channel: usize, wanted: u8) -> Option<u8> {
        let kind = self.channels.get(channel)?.mode & MODE_TYPE;
        (self.ready(channel) && (kind == wanted || kind == MODE_VERIFY)).then_some(kind)
    }

    /// Where in memory the channel's next unit is.
    fn physical_address(&self, channel: usize) -> u32 {
        let c = &self.channels[channel];
        let high = u32::from(c.page_high) << 24;
        if channel < 4 {
            high | u32::from(c.page) << 16 | u32::from(c.address)
        } else {
            // Words: the address lines move up by one and take the place of page bit 0.
            high | u32::from(c.page & 0xfe) << 16 | u32::from(c.address) << 1
        }
    }

    /// Counts one unit. Gives whether that was the last.
    fn step(&mut self, channel: usize) -> bool {
        let c = &mut self.channels[channel];
        let delta = if c.mode & MODE_DECREMENT != 0 { u16::MAX } else { 1 };
        // The page register takes no carry.
        c.address = c.address.wrapping_add(delta);
        let (count, terminal) = c.count.overflowing_sub(1);
        c.count = count;
        if terminal {
            let bit = 1 << (channel & 3);
            if c.mode & MODE_AUTOINIT != 0 {
                c.address = c.base_address;
                c.count = c.base_count;
            } else {
                c.masked = true;
            }
            let chip = &mut self.chips[channel / 4];
            chip.terminal_counts |= bit;
            chip.requests &= !bit;
        }
        terminal
    }

    fn channels_of(&mut self, chip: usize) -> &mut [Channel] {
        &mut self.channels[chip * 4..][..4]
    }

    fn read_chip(&mut self, chip: usize, register: u16) -> u8 {
        match register {
            0..=7 => {
                let c = &self.channels[chip * 4 + usize::from(register / 2)];
                let value = if register & 1 == 0 { c.address } else { c.count };
                let high = self.toggle();
                value.to_le_bytes()[usize::from(high)]
            }
            STATUS_COMMAND => {
                let chip = &mut self.chips[chip];
                std::mem::take(&mut chip.terminal_counts) | chip.requests << 4
            }
            // The temporary register belongs to memory-to-memory transfers.
            TEMPORARY_MASTER_CLEAR => 0,
            ALL_MASK => {
                let masks = self.channels_of(chip).iter().enumerate();
                masks.fold(0xf0, |bits, (i, c)| bits | u8::from(c.masked) << i)
            }
            _ => 0xff,
        }
    }

    fn write_chip(&mut self, chip: usize, register: u16, value: u8) {
        let select = usize::from(value & 3);
        match register {
            0..=7 => {
                let high = self.toggle();
                let c = &mut self.channels[chip * 4 + usize::from(register / 2)];
                let (current, base) = if register & 1 == 0 {
                    (&mut c.address, &mut c.base_address)
                } else {
                    (&mut c.count, &mut c.base_count)
                };
                let mut bytes = base.to_le_bytes();
                bytes[usize::from(high)] = value;
                *base = u16::from_le_bytes(bytes);
                *current = *base;
            }
            STATUS_COMMAND => self.chips[chip].command = value,
            REQUEST if value & SELECT_SET != 0 => self.chips[chip].requests |= 1 << select,
            REQUEST => self.chips[chip].requests &= !(1 << select),
            SINGLE_MASK => self.channels_of(chip)[select].masked = value & SELECT_SET != 0,
            MODE => self.channels_of(chip)[select].mode = value & !3,
            CLEAR_FLIP_FLOP => self.flip_flop = false,
            TEMPORARY_MASTER_CLEAR => {
                self.chips[chip] = Chip::default();
                self.flip_flop = false;
                self.channels_of(chip).iter_mut().for_each(|c| c.masked = true);
            }
            CLEAR_MASK => self.channels_of(chip).iter_mut().for_each(|c| c.masked = false),
            ALL_MASK => {
                for (i, c) in self.channels_of(chip).iter_mut().enumerate() {
                    c.masked = value & (1 << i) != 0;
                }
            }
            _ => {}
        }
    }

    /// Gives the flip-flop and turns it over.
    fn toggle(&mut self) -> bool {
        let high = self.flip_flop;
        self.flip_flop = !high;
        high
    }
}

/// The channel of a page register, by its offset from 80h or 480h.
fn page_channel(offset: u16) -> Option<usize> {
    Some(match offset {
        0x7 => 0,
        0x3 => 1,
        0x1 => 2,
        0x2 => 3,
        0xf => 4,
        0xb => 5,
        0x9 => 6,
        0xa => 7,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Box<Memory> {
        Memory::new(4 << 20).unwrap()
    }

    /// Programs a channel as a driver does.
    fn setup(dma: &mut Dma, channel: u8, mode: u8, page: u8, address: u16, count: u16) {
        let (base, step) = if channel < 4 { (CHIP0_BASE, 1) } else { (CHIP1_BASE, 2) };
        let port = |register: u16| base + register * step;
        let select = channel & 3;
        dma.write(port(SINGLE_MASK), SELECT_SET | select);
        dma.write(port(CLEAR_FLIP_FLOP), 0);
        dma.write(port(MODE), mode | select);
        for (register, value) in [(0, address), (1, count)] {
            for byte in value.to_le_bytes() {
                dma.write(port(u16::from(select) * 2 + register), byte);
            }
        }
        dma.write([0x87, 0x83, 0x81, 0x82, 0x8f, 0x8b, 0x89, 0x8a][usize::from(channel)], page);
        dma.write(port(SINGLE_MASK), select);
    }

    #[test]
    fn a_device_writes_memory_until_terminal_count() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 2, 0x44, 0x12, 0x3456, 3);
        let done = dma.transfer_to_memory(2, &mut mem, &[1, 2, 3, 4, 5]);
        assert_eq!(done, Transfer { bytes: 4, terminal_count: true });
        assert_eq!(mem.read_u32(0x12_3456), 0x0403_0201);
        assert_eq!(mem.read_u8(0x12_345a), 0);
        assert!(!dma.ready(2));
    }

    #[test]
    fn a_device_reads_memory_in_pieces() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        mem.write(0x2_0000, &[9, 8, 7, 6]);
        setup(&mut dma, 1, 0x48, 0x02, 0, 3);
        let mut buf = [0; 2];
        assert!(!dma.transfer_from_memory(1, &mut mem, &mut buf).terminal_count);
        assert_eq!((buf, dma.remaining(1)), ([9, 8], 2));
        assert!(dma.transfer_from_memory(1, &mut mem, &mut buf).terminal_count);
        assert_eq!(buf, [7, 6]);
    }

    #[test]
    fn autoinit_starts_over() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 1, 0x58, 0x02, 0x100, 1);
        let mut buf = [0; 8];
        for _ in 0..3 {
            let done = dma.transfer_from_memory(1, &mut mem, &mut buf);
            assert_eq!(done, Transfer { bytes: 2, terminal_count: true });
            assert_eq!(dma.channels[1].address, 0x100);
        }
    }

    #[test]
    fn words_use_shifted_addresses() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 5, 0x44, 0x13, 0x8000, 1);
        let done = dma.transfer_to_memory(5, &mut mem, &[1, 2, 3, 4, 5]);
        assert_eq!(done, Transfer { bytes: 4, terminal_count: true });
        assert_eq!(mem.read_u32(0x13_0000), 0x0403_0201);
    }

    #[test]
    fn words_count_down_too_and_start_over() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 7, 0x74, 0x02, 0x0001, 1);
        let done = dma.transfer_to_memory(7, &mut mem, &[1, 2, 3, 4]);
        assert_eq!(done, Transfer { bytes: 4, terminal_count: true });
        assert_eq!(mem.read_u32(0x2_0000), 0x0201_0403);
        assert_eq!((dma.channels[7].address, dma.remaining(7)), (1, 4));
        assert_eq!((dma.read(0xd0), dma.read(STATUS_COMMAND)), (0x08, 0), "the second chip's status");
    }

    #[test]
    fn words_wrap_inside_128_kib() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 6, 0x44, 0x03, 0xffff, 1);
        dma.transfer_to_memory(6, &mut mem, &[1, 2, 3, 4]);
        assert_eq!(
            (mem.read_u16(0x3_fffe), mem.read_u16(0x2_0000), mem.read_u16(0x4_0000)),
            (0x0201, 0x0403, 0)
        );
    }

    /// Its pins are the first chip's.
    #[test]
    fn the_cascade_serves_no_device_and_holds_none_up() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 4, 0x44, 0x02, 0, 1);
        assert!(!dma.ready(4));
        assert_eq!(dma.transfer_to_memory(4, &mut mem, &[1, 2]).bytes, 0);
        // Nor does another channel in cascade mode, which a bus master on the ISA bus would have.
        setup(&mut dma, 5, 0xc0, 0x02, 0, 1);
        assert!(!dma.ready(5));
        // The first chip works for drivers that have left its way through the second one masked.
        dma.write(0xda, 0);
        setup(&mut dma, 2, 0x44, 0x02, 0, 1);
        assert!(dma.ready(2) && dma.transfer_to_memory(2, &mut mem, &[1, 2]).terminal_count);
    }

    #[test]
    fn the_second_chip_stands_at_every_other_port() {
        let mut dma = Dma::default();
        dma.write(0xd4, 1);
        assert_eq!((dma.read(0xde), dma.read(ALL_MASK)), (0xfd, 0xff));
        dma.write(0xd6, 0x59);
        assert_eq!((dma.channels[5].mode, dma.channels[1].mode), (0x58, 0));
        for port in [0xc4, 0xc5] {
            dma.write(0xd8, 0);
            dma.write(port, 0x34);
            dma.write(port, port as u8);
            assert_eq!(dma.channels[5].base_address, port << 8 | 0x34);
        }
        dma.write(0xd0, COMMAND_DISABLE);
        assert!(!dma.ready(5));
        dma.write(0xdc, 0);
        assert_eq!(dma.read(0xde), 0xf0);
    }

    #[test]
    fn decrement_counts_down() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 3, 0x64, 0x02, 0x0003, 2);
        dma.transfer_to_memory(3, &mut mem, &[1, 2, 3]);
        assert_eq!(mem.read_u32(0x2_0000), 0x0102_0300);
    }

    #[test]
    fn addresses_wrap_inside_the_page() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 0, 0x44, 0x02, 0xffff, 1);
        dma.transfer_to_memory(0, &mut mem, &[1, 2]);
        assert_eq!((mem.read_u8(0x2_ffff), mem.read_u8(0x2_0000), mem.read_u8(0x3_0000)), (1, 2, 0));
    }

    #[test]
    fn verify_moves_nothing() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 2, 0x40, 0x02, 0, 1);
        assert!(dma.transfer_to_memory(2, &mut mem, &[1, 2]).terminal_count);
        assert_eq!(mem.read_u16(0x2_0000), 0);
    }

    #[test]
    fn masked_disabled_or_wrong_way_channels_do_nothing() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        assert_eq!(dma.transfer_to_memory(2, &mut mem, &[1]).bytes, 0);
        setup(&mut dma, 2, 0x44, 0, 0x1000, 5);
        assert_eq!(dma.transfer_from_memory(2, &mut mem, &mut [0]).bytes, 0);
        dma.write(STATUS_COMMAND, COMMAND_DISABLE);
        assert_eq!(dma.transfer_to_memory(2, &mut mem, &[1]).bytes, 0);
        assert_eq!(dma.transfer_to_memory(99, &mut mem, &[1]).bytes, 0);
    }

    #[test]
    fn status_tells_of_terminal_counts_once() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        setup(&mut dma, 2, 0x44, 0, 0x1000, 0);
        dma.transfer_to_memory(2, &mut mem, &[1]);
        assert_eq!(dma.read(STATUS_COMMAND), 0x04);
        assert_eq!(dma.read(STATUS_COMMAND), 0);
    }

    #[test]
    fn the_flip_flop_orders_the_bytes() {
        let mut dma = Dma::default();
        setup(&mut dma, 1, 0x44, 0, 0x1234, 0x5678);
        assert_eq!([2, 2, 3, 3].map(|port| dma.read(port)), [0x34, 0x12, 0x78, 0x56]);
        dma.read(2);
        dma.write(CLEAR_FLIP_FLOP, 0);
        assert_eq!(dma.read(2), 0x34);
    }

    #[test]
    fn masks() {
        let mut dma = Dma::default();
        assert_eq!(dma.read(ALL_MASK), 0xff);
        dma.write(ALL_MASK, 0x0a);
        assert_eq!(dma.read(ALL_MASK), 0xfa);
        dma.write(CLEAR_MASK, 0);
        assert_eq!(dma.read(ALL_MASK), 0xf0);
        dma.write(TEMPORARY_MASTER_CLEAR, 0);
        assert_eq!(dma.read(ALL_MASK), 0xff);
        assert_eq!(dma.read(0xde), 0xff);
    }

    #[test]
    fn page_registers() {
        let mut dma = Dma::default();
        for (i, port) in (0x80..=0x8f).enumerate() {
            dma.write(port, i as u8 + 1);
        }
        for (i, port) in (0x80..=0x8f).enumerate() {
            assert_eq!(dma.read(port), i as u8 + 1);
        }
        dma.write(0x481, 0x7f);
        assert_eq!((dma.read(0x481), dma.channels[2].page_high), (0x7f, 0x7f));
        dma.write(0x81, 5);
        assert_eq!(dma.read(0x481), 0);
    }

    #[test]
    fn requests_are_kept_and_shown() {
        let mut dma = Dma::default();
        dma.write(REQUEST, 0x06);
        assert_eq!(dma.read(STATUS_COMMAND), 0x40);
        dma.write(REQUEST, 0x02);
        assert_eq!(dma.read(STATUS_COMMAND), 0);
    }

    #[test]
    fn no_sequence_of_writes_panics() {
        let (mut dma, mut mem) = (Dma::default(), memory());
        let mut x = 1u32;
        for _ in 0..50_000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let ports = [0, 0x80, 0xc0, 0x480];
            let port = ports[(x >> 8) as usize & 3] + ((x >> 10) & 0x1f) as u16;
            match x >> 29 {
                0 => {
                    dma.read(port);
                }
                1 => {
                    dma.transfer_to_memory((x >> 16) as usize & 15, &mut mem, &[0; 9]);
                }
                _ => dma.write(port, (x >> 16) as u8),
            }
        }
    }
}
