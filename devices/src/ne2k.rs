//! NE2000: National Semiconductor's DP8390D network controller with 16 KiB of packet memory, on PCI as
//! Realtek's RTL8029 and at the ISA card's ports.
//!
//! The controller writes frames into a ring of 256-byte pages and the driver fetches them by "remote
//! DMA": bytes of the packet memory through one data port. Sending is immediate. A frame that finds the
//! ring full waits for the driver to make room, as it would at a switch with flow control.

use crate::board::device::{Access, Claims, Context, Device, Lines, Plug, Widths};
use crate::pci::{COMMAND_IO, ConfigSpace, Function, devfn};
use env86_emu::{Memory, Width};
use std::collections::VecDeque;
use tracing::{debug, trace};

/// Where the PCI card sits.
pub const DEVFN: u8 = devfn(5, 0);
/// The ISA card's ports, which the PCI card has at power-up.
pub const PORTS: u16 = 0x300;
/// How many ports.
pub const PORT_COUNT: u16 = 32;
/// The first three bytes of the address of every card of v86's.
pub const MAC_PREFIX: [u8; 3] = [0x00, 0x22, 0x15];
/// The address of a card for which none was chosen.
pub const MAC: [u8; 6] = [0x00, 0x22, 0x15, 0x86, 0x86, 0x86];
/// Bytes of the memory that remote DMA sees.
pub const MEMORY_SIZE: usize = 32 << 10;
/// Bytes of the longest frame.
pub const LONGEST_FRAME: usize = 1514;

const VENDOR: u16 = 0x10ec;
const DEVICE: u16 = 0x8029;
const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);
const CLASS: u32 = 0x02_0000;

/// Frames that wait for the ring, and for the host, before the other side has to wait.
const QUEUE: usize = 64;
/// Bytes of the shortest frame; shorter ones are padded, as the medium does.
const SHORTEST_FRAME: usize = 60;
/// Bytes of the station address ROM, each byte of the address twice.
const PROM_SIZE: usize = 32;
/// Bytes 28 to 31 of it: a 16-bit card.
const PROM_SIGNATURE: u8 = 0x57;
/// Where packet memory is.
const PACKET_MEMORY: std::ops::Range<u16> = 0x4000..0x8000;
/// Bytes of a page.
const PAGE: u16 = 256;
/// Bytes before a frame in the ring: status, next page, length.
const RING_HEADER: u16 = 4;

/// Registers by port offset, where they have the same place in all pages.
mod port {
    /// Command.
    pub const CR: u16 = 0;
    /// Data port of remote DMA, 8 ports.
    pub const DATA: std::ops::RangeInclusive<u16> = 0x10..=0x17;
    /// A read resets the controller.
    pub const RESET: std::ops::RangeInclusive<u16> = 0x18..=0x1f;
}

/// Registers of page 0.
mod page0 {
    pub const CLDA0: u16 = 1;
    pub const CLDA1: u16 = 2;
    pub const PSTART: u16 = 1;
    pub const PSTOP: u16 = 2;
    pub const BNRY: u16 = 3;
    pub const TSR: u16 = 4;
    pub const TPSR: u16 = 4;
    pub const TBCR0: u16 = 5;
    pub const TBCR1: u16 = 6;
    pub const ISR: u16 = 7;
    pub const RSAR0: u16 = 8;
    pub const RSAR1: u16 = 9;
    pub const RBCR0: u16 = 0xa;
    pub const RBCR1: u16 = 0xb;
    pub const ID0: u16 = 0xa;
    pub const ID1: u16 = 0xb;
    pub const RSR: u16 = 0xc;
    pub const RCR: u16 = 0xc;
    pub const TCR: u16 = 0xd;
    pub const DCR: u16 = 0xe;
    pub const IMR: u16 = 0xf;
    pub const CNTR0: u16 = 0xd;
    pub const CNTR2: u16 = 0xf;
}

/// Registers of page 1.
mod page1 {
    pub const PAR0: u16 = 1;
    pub const PAR5: u16 = 6;
    pub const CURR: u16 = 7;
    pub const MAR0: u16 = 8;
    pub const MAR7: u16 = 0xf;
}

/// Command register.
mod cr {
    pub const STP: u8 = 1 << 0;
    pub const STA: u8 = 1 << 1;
    pub const TXP: u8 = 1 << 2;
    pub const REMOTE_READ: u8 = 1 << 3;
    pub const REMOTE_WRITE: u8 = 1 << 4;
    pub const PAGE_SHIFT: u8 = 6;
}

/// Interrupt status register.
mod isr {
    pub const PRX: u8 = 1 << 0;
    pub const PTX: u8 = 1 << 1;
    pub const RDC: u8 = 1 << 6;
    pub const RST: u8 = 1 << 7;
    /// What the mask register has a bit for.
    pub const MASKABLE: u8 = 0x7f;
}

/// Receive configuration register.
mod rcr {
    pub const AB: u8 = 1 << 2;
    pub const AM: u8 = 1 << 3;
    pub const PRO: u8 = 1 << 4;
    pub const MON: u8 = 1 << 5;
}

/// Receive status, in the register and before each frame.
mod rsr {
    pub const PRX: u8 = 1 << 0;
    /// To a group, or to all.
    pub const PHY: u8 = 1 << 5;
}

/// Transmit configuration register: bits of loopback.
const TCR_LOOPBACK: u8 = 6;
/// Transmit status: sent.
const TSR_PTX: u8 = 1;
/// Data configuration register: remote DMA in words.
const DCR_WTS: u8 = 1;
/// What the RTL8029 says it is.
const ID: [u8; 2] = *b"PC";

/// The card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ne2k {
    /// Interrupt status.
    pub isr: u8,
    /// Interrupt mask.
    pub imr: u8,
    /// Command.
    pub command: u8,
    /// Data configuration.
    pub dcr: u8,
    /// Remote byte count.
    pub remote_count: u16,
    /// Transmit byte count.
    pub transmit_count: u16,
    /// Transmit page.
    pub transmit_page: u8,
    /// Remote address.
    pub remote_address: u16,
    /// First page of the ring.
    pub page_start: u8,
    /// Page behind the ring.
    pub page_stop: u8,
    /// The page that the next frame goes to.
    pub current_page: u8,
    /// The first page that the driver has not read.
    pub boundary: u8,
    /// Receive configuration.
    pub rcr: u8,
    /// Transmit configuration.
    pub tcr: u8,
    /// Transmit status.
    pub tsr: u8,
    /// Receive status.
    pub rsr: u8,
    /// The station's address, as the driver has set it.
    pub mac: [u8; 6],
    /// Multicast filter.
    pub multicast: [u8; 8],
    /// Station address ROM and packet memory.
    pub memory: Box<[u8]>,
    /// Frames that wait for the ring.
    received: VecDeque<Vec<u8>>,
    /// Frames that wait for the host.
    sent: VecDeque<Vec<u8>>,
}

impl Ne2k {
    /// A card with an address, as it is at power-on.
    pub fn new(mac: [u8; 6]) -> Self {
        let mut memory = vec![0; MEMORY_SIZE].into_boxed_slice();
        for (pair, byte) in memory.chunks_exact_mut(2).zip(mac) {
            pair.fill(byte);
        }
        memory[PROM_SIZE - 4..PROM_SIZE].fill(PROM_SIGNATURE);
        Self {
            isr: 0,
            imr: 0,
            command: cr::STP,
            dcr: 0,
            remote_count: 0,
            transmit_count: 0,
            transmit_page: 0,
            remote_address: 0,
            page_start: 0x40,
            page_stop: 0x80,
            current_page: 0x4c,
            boundary: 0x4c,
            rcr: 0,
            tcr: 0,
            tsr: TSR_PTX,
            rsr: 0,
            mac,
            multicast: [0; 8],
            memory,
            received: VecDeque::new(),
            sent: VecDeque::new(),
        }
    }

    /// The address that the card was made with.
    pub fn burnt_in_address(&self) -> [u8; 6] {
        std::array::from_fn(|i| self.memory[2 * i])
    }

    /// The machine's reset. The frames that wait for the guest are lost, those that it sent are not.
    pub fn reset(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        *self = Self { sent, ..Self::new(self.burnt_in_address()) };
    }

    /// The level of the interrupt pin.
    pub fn irq(&self) -> bool {
        self.isr & self.imr & isr::MASKABLE != 0
    }

    /// Whether the driver runs the receiver.
    fn is_started(&self) -> bool {
        self.command & cr::STP == 0
    }

    /// Takes a frame for the guest. It is not taken while many wait already; a card that is stopped,
    /// or that the frame is not for, takes and drops it.
    #[must_use = "a frame that was not taken has to be given again"]
    pub fn receive(&mut self, frame: &[u8]) -> bool {
        if !self.is_started() || !self.is_for_us(frame) {
            return true;
        }
        if self.received.len() >= QUEUE {
            return false;
        }
        self.received.push_back(frame.to_vec());
        self.fill_ring();
        true
    }

    /// The frames that the guest has sent.
    pub fn take_sent(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.sent.drain(..)
    }

    /// Whether frames wait for the host.
    pub fn has_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    fn is_for_us(&self, frame: &[u8]) -> bool {
        let Some(to) = frame.first_chunk::<6>() else { return false };
        if frame.len() > LONGEST_FRAME {
            debug!(target: "ne2k", length = frame.len(), "frame too long for the card");
            return false;
        }
        let filtered = match to {
            _ if self.rcr & rcr::PRO != 0 => true,
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => self.rcr & rcr::AB != 0,
            [first, ..] if first & 1 != 0 => self.rcr & rcr::AM != 0 && self.is_in_group(to),
            _ => *to == self.mac,
        };
        filtered && self.rcr & rcr::MON == 0
    }

    /// Whether the multicast filter has the bit that an address hashes to: the upper six of its CRC.
    fn is_in_group(&self, address: &[u8; 6]) -> bool {
        const POLYNOMIAL: u32 = 0x04c1_1db7;
        let bits = address.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
        let crc = bits
            .fold(u32::MAX, |crc, bit| crc << 1 ^ if crc >> 31 != u32::from(bit) { POLYNOMIAL } else { 0 });
        let hash = crc >> 26;
        self.multicast[hash as usize / 8] >> (hash % 8) & 1 != 0
    }

    /// Pages of the ring, if the driver has set it up within packet memory.
    fn ring(&self) -> Option<std::ops::Range<u8>> {
        let ring = self.page_start..self.page_stop;
        let memory = (PACKET_MEMORY.start / PAGE) as u8..=(PACKET_MEMORY.end / PAGE) as u8;
        let inside = memory.contains(&ring.start) && memory.contains(&ring.end);
        (inside && !ring.is_empty() && ring.contains(&self.current_page)).then_some(ring)
    }

    /// Writes frames that wait into the ring, as long as there is room.
    fn fill_ring(&mut self) {
        while self.is_started()
            && let Some(ring) = self.ring()
            && let Some(frame) = self.received.front()
        {
            let length = frame.len().max(SHORTEST_FRAME);
            let pages = (length + usize::from(RING_HEADER)).div_ceil(PAGE.into()) as u8;
            let size = ring.len() as u8;
            let free = match self.boundary.wrapping_sub(self.current_page) {
                0 => size,
                free if self.boundary > self.current_page => free,
                behind => size.wrapping_add(behind),
            };
            // A frame that filled the last page would make the ring look empty.
            if pages >= free {
                if pages >= size {
                    self.received.pop_front();
                    continue;
                }
                break;
            }
            let Some(frame) = self.received.pop_front() else { break };
            self.put(&frame, length, pages, &ring);
        }
    }

    fn put(&mut self, frame: &[u8], length: usize, pages: u8, ring: &std::ops::Range<u8>) {
        let mut next = self.current_page + pages;
        if next >= ring.end {
            next -= ring.len() as u8;
        }
        let group = if frame.first().is_some_and(|first| first & 1 != 0) { rsr::PHY } else { 0 };
        self.rsr = rsr::PRX | group;
        let [low, high] = (length as u16 + RING_HEADER).to_le_bytes();
        let bytes = [self.rsr, next, low, high].into_iter().chain(frame.iter().copied());
        let (start, end) = (usize::from(ring.start) * 256, usize::from(ring.end) * 256);
        let mut at = usize::from(self.current_page) * 256;
        for byte in bytes.chain(std::iter::repeat(0)).take(length + usize::from(RING_HEADER)) {
            self.memory[at] = byte;
            at = if at + 1 == end { start } else { at + 1 };
        }
        trace!(target: "ne2k", length, page = self.current_page, next, "received");
        self.current_page = next;
        self.isr |= isr::PRX;
    }

    fn transmit(&mut self) {
        let start = usize::from(self.transmit_page) * 256;
        let frame = self.memory.get(start..start + usize::from(self.transmit_count));
        let leaves = self.tcr & TCR_LOOPBACK == 0;
        match frame.filter(|frame| leaves && !frame.is_empty()) {
            Some(frame) if self.sent.len() < QUEUE => self.sent.push_back(frame.to_vec()),
            _ => debug!(target: "ne2k", count = self.transmit_count, "frame not sent"),
        }
        self.tsr = TSR_PTX;
        self.isr |= isr::PTX;
        self.command &= !cr::TXP;
    }

    /// Reads a port by its offset.
    pub fn port_read(&mut self, offset: u16, width: Width) -> u32 {
        if port::DATA.contains(&offset) {
            return self.data_read(width);
        }
        u32::from(self.register_read(offset)) | width.mask() & !0xff
    }

    /// Writes a port by its offset.
    pub fn port_write(&mut self, offset: u16, width: Width, value: u32) {
        if port::DATA.contains(&offset) {
            self.data_write(width, value);
        } else {
            self.register_write(offset, value as u8);
        }
    }

    fn page(&self) -> u8 {
        self.command >> cr::PAGE_SHIFT
    }

    fn register_read(&mut self, offset: u16) -> u8 {
        if offset == port::CR {
            return self.command;
        }
        if port::RESET.contains(&offset) {
            self.command = cr::STP;
            self.isr = isr::RST;
            return 0;
        }
        let [count_low, count_high] = self.remote_address.to_le_bytes();
        match (self.page(), offset) {
            (0, page0::CLDA0) => 0,
            (0, page0::CLDA1) => self.current_page,
            (0, page0::BNRY) => self.boundary,
            (0, page0::TSR) => self.tsr,
            (0, page0::ISR) => self.isr,
            (0, page0::RSAR0) => count_low,
            (0, page0::RSAR1) => count_high,
            (0, page0::ID0) => ID[0],
            (0, page0::ID1) => ID[1],
            (0, page0::RSR) => self.rsr,
            // No errors, so none to count.
            (0, page0::CNTR0..=page0::CNTR2) => 0,
            (1, page1::PAR0..=page1::PAR5) => self.mac[usize::from(offset - page1::PAR0)],
            (1, page1::CURR) => self.current_page,
            (1, page1::MAR0..=page1::MAR7) => self.multicast[usize::from(offset - page1::MAR0)],
            (2, page0::PSTART) => self.page_start,
            (2, page0::PSTOP) => self.page_stop,
            (2, page0::TPSR) => self.transmit_page,
            (2, page0::RCR) => self.rcr,
            (2, page0::TCR) => self.tcr,
            (2, page0::DCR) => self.dcr,
            (2, page0::IMR) => self.imr,
            _ => 0,
        }
    }

    fn register_write(&mut self, offset: u16, value: u8) {
        let low = |word: u16| word & 0xff00 | u16::from(value);
        let high = |word: u16| word & 0x00ff | u16::from(value) << 8;
        match (self.page(), offset) {
            (_, port::CR) => self.write_command(value),
            // The read has reset the controller, and a driver looks for RST only after this.
            (_, offset) if port::RESET.contains(&offset) => {}
            (0, page0::PSTART) => self.page_start = value,
            (0, page0::PSTOP) => self.page_stop = value,
            (0, page0::BNRY) => self.boundary = value,
            (0, page0::TPSR) => self.transmit_page = value,
            (0, page0::TBCR0) => self.transmit_count = low(self.transmit_count),
            (0, page0::TBCR1) => self.transmit_count = high(self.transmit_count),
            // RST shows that the controller is stopped, and cannot be cleared by a write.
            (0, page0::ISR) => self.acknowledge(value),
            (0, page0::RSAR0) => self.remote_address = low(self.remote_address),
            (0, page0::RSAR1) => self.remote_address = high(self.remote_address),
            (0, page0::RBCR0) => self.remote_count = low(self.remote_count),
            (0, page0::RBCR1) => self.remote_count = high(self.remote_count),
            (0, page0::RCR) => self.rcr = value,
            (0, page0::TCR) => self.tcr = value,
            (0, page0::DCR) => self.dcr = value,
            (0, page0::IMR) => self.imr = value,
            (1, page1::PAR0..=page1::PAR5) => self.mac[usize::from(offset - page1::PAR0)] = value,
            (1, page1::CURR) => self.current_page = value,
            (1, page1::MAR0..=page1::MAR7) => self.multicast[usize::from(offset - page1::MAR0)] = value,
            _ => {}
        }
        self.fill_ring();
    }

    /// Clears causes of the interrupt. Linux's driver takes nine frames for one interrupt and leaves the
    /// others for the next (lib8390.c, ei_receive), which on a wire comes with the next frame. Here many
    /// come at once and then perhaps none, so that there is a next as long as there are frames.
    fn acknowledge(&mut self, causes: u8) {
        self.isr &= !(causes & isr::MASKABLE);
        if causes & isr::PRX != 0 && self.has_unread() {
            self.isr |= isr::PRX;
        }
    }

    /// Whether the driver has frames in the ring to read: it keeps the boundary one page behind.
    fn has_unread(&self) -> bool {
        let Some(ring) = self.ring().filter(|_| self.is_started()) else { return false };
        let next = self.boundary.wrapping_add(1);
        let next = if next >= ring.end { ring.start } else { next };
        self.current_page != self.boundary && self.current_page != next
    }

    /// Start and stop are commands: a write of neither leaves the controller running, or not
    /// (DP8390D datasheet, 10.3: Command Register).
    fn write_command(&mut self, value: u8) {
        let run = cr::STA | cr::STP;
        let value = if value & run == 0 { value | self.command & run } else { value };
        self.command = value;
        if value & cr::STP != 0 {
            self.isr |= isr::RST;
            self.received.clear();
            return;
        }
        self.isr &= !isr::RST;
        if value & (cr::REMOTE_READ | cr::REMOTE_WRITE) != 0 && self.remote_count == 0 {
            self.isr |= isr::RDC;
        }
        if value & cr::TXP != 0 {
            self.transmit();
        }
    }

    /// Whether remote DMA goes in words; an access by a byte then moves a word, too.
    fn in_words(&self) -> bool {
        self.dcr & DCR_WTS != 0
    }

    fn data_read(&mut self, width: Width) -> u32 {
        let words = self.in_words() && width == Width::Byte;
        let value = (0..width.bytes()).fold(0, |value, i| value | u32::from(self.remote_read()) << (8 * i));
        if words {
            self.remote_read();
        }
        value
    }

    fn data_write(&mut self, width: Width, value: u32) {
        (0..width.bytes()).for_each(|i| self.remote_write((value >> (8 * i)) as u8));
        if self.in_words() && width == Width::Byte {
            self.remote_write(0);
        }
    }

    /// The bytes of remote DMA up to the end of what was asked for, or of the ring: moving them has no other
    /// effect before the last.
    fn remote_bytes(&self, offset: u16, width: Width) -> Option<std::ops::Range<usize>> {
        if !port::DATA.contains(&offset) || width == Width::Byte && self.in_words() {
            return None;
        }
        let start = usize::from(self.remote_address);
        let stop = usize::from(self.page_stop) << 8;
        let end = (start + usize::from(self.remote_count)).min(MEMORY_SIZE);
        let end = if start < stop { end.min(stop) } else { end };
        (start < end).then_some(start..end)
    }

    /// What reads of the data port give.
    pub fn source(&self, offset: u16, width: Width) -> Option<&[u8]> {
        Some(&self.memory[self.remote_bytes(offset, width)?])
    }

    /// Where writes to the data port go.
    pub fn sink(&mut self, offset: u16, width: Width) -> Option<&mut [u8]> {
        let bytes = self.remote_bytes(offset, width)?;
        let memory = usize::from(PACKET_MEMORY.start)..usize::from(PACKET_MEMORY.end);
        (memory.start <= bytes.start && bytes.end <= memory.end).then(|| &mut self.memory[bytes])
    }

    /// So many bytes of these have been moved.
    pub fn moved(&mut self, bytes: usize) {
        let Some(before_last) = (bytes as u16).checked_sub(1) else { return };
        self.remote_address = self.remote_address.wrapping_add(before_last);
        self.remote_count = self.remote_count.saturating_sub(before_last);
        self.remote_next();
    }

    fn remote_read(&mut self) -> u8 {
        let byte = self.memory.get(usize::from(self.remote_address)).copied().unwrap_or(0xff);
        self.remote_next();
        byte
    }

    fn remote_write(&mut self, byte: u8) {
        if PACKET_MEMORY.contains(&self.remote_address) && self.remote_count != 0 {
            self.memory[usize::from(self.remote_address)] = byte;
        }
        self.remote_next();
    }

    /// The next byte: behind the ring's end comes its start.
    fn remote_next(&mut self) {
        if self.remote_count == 0 {
            return;
        }
        self.remote_address = self.remote_address.wrapping_add(1);
        if self.remote_address == u16::from(self.page_stop) << 8 {
            self.remote_address = u16::from(self.page_start) << 8;
        }
        self.remote_count -= 1;
        if self.remote_count == 0 {
            self.isr |= isr::RDC;
        }
    }
}

impl Function for Ne2k {
    fn devfn(&self) -> u8 {
        DEVFN
    }

    fn config_space(&self) -> ConfigSpace {
        ConfigSpace::new(VENDOR, DEVICE, CLASS, 0)
            .with_subsystem(SUBSYSTEM.0, SUBSYSTEM.1)
            .with_command(COMMAND_IO)
            .with_interrupt(1, 0)
            .with_io_bar(0, PORTS, PORT_COUNT)
    }
}

impl Device for Ne2k {
    const STATES: &'static [&'static str] = &["ne2k"];

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    /// The ISA card's ports stay where they are, wherever the PCI card's go.
    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, PORTS, PORT_COUNT, Widths::Within);
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &[0]))
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        self.port_read(at.offset, at.width)
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.port_write(at.offset, at.width, value);
        if self.has_sent() && cx.connected.network {
            cx.requests.output();
        }
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::pci(DEVFN, self.irq())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x00, 0x22, 0x15, 0xa1, 0xb2, 0xc3];

    fn write(card: &mut Ne2k, offset: u16, value: u8) {
        card.port_write(offset, Width::Byte, value.into());
    }

    fn read(card: &mut Ne2k, offset: u16) -> u8 {
        card.port_read(offset, Width::Byte) as u8
    }

    /// The remote DMA of a driver: address, count, direction.
    fn remote(card: &mut Ne2k, address: u16, count: u16, command: u8) {
        for (offset, value) in [
            (page0::ISR, isr::RDC),
            (page0::RSAR0, address as u8),
            (page0::RSAR1, (address >> 8) as u8),
            (page0::RBCR0, count as u8),
            (page0::RBCR1, (count >> 8) as u8),
            (port::CR, cr::STA | command),
        ] {
            write(card, offset, value);
        }
    }

    /// A card as Linux sets it up.
    fn started() -> Ne2k {
        let mut card = Ne2k::new(MAC);
        for (offset, value) in [
            (port::CR, 0x21),
            (page0::DCR, 0x49),
            (page0::PSTART, 0x4c),
            (page0::PSTOP, 0x80),
            (page0::BNRY, 0x4c),
            (page0::RCR, rcr::AB | rcr::AM),
            (page0::ISR, 0xff),
            (page0::IMR, isr::PRX | isr::PTX),
            (port::CR, 0x61),
            (page1::CURR, 0x4d),
            (port::CR, 0x22),
        ] {
            write(&mut card, offset, value);
        }
        card
    }

    fn frame(to: [u8; 6], length: usize) -> Vec<u8> {
        to.into_iter().chain((0..length - 6).map(|n| n as u8)).collect()
    }

    /// Reads the next frame of the ring, as a driver does.
    fn fetch(card: &mut Ne2k) -> Option<Vec<u8>> {
        let boundary = read(card, page0::BNRY);
        let next = if boundary + 1 == card.page_stop { card.page_start } else { boundary + 1 };
        write(card, port::CR, 0x62);
        let current = read(card, page1::CURR);
        write(card, port::CR, 0x22);
        if next == current {
            return None;
        }
        remote(card, u16::from(next) << 8, 4, cr::REMOTE_READ);
        let header = card.port_read(0x10, Width::Dword).to_le_bytes();
        let length = u16::from_le_bytes([header[2], header[3]]) - RING_HEADER;
        remote(card, (u16::from(next) << 8) + 4, length, cr::REMOTE_READ);
        let bytes =
            (0..length.div_ceil(2)).flat_map(|_| (card.port_read(0x10, Width::Word) as u16).to_le_bytes());
        let frame: Vec<u8> = bytes.take(length.into()).collect();
        let before = if header[1] == card.page_start { card.page_stop } else { header[1] };
        write(card, page0::BNRY, before - 1);
        Some(frame)
    }

    #[test]
    fn the_address_is_in_the_rom() {
        let mut card = started();
        assert_eq!(card.burnt_in_address(), MAC);
        remote(&mut card, 0, 32, cr::REMOTE_READ);
        let rom: Vec<u8> = (0..16).map(|_| read(&mut card, 0x10)).collect();
        assert_eq!((&rom[..6], &rom[14..]), (&MAC[..], &[0x57, 0x57][..]));
        assert_eq!(card.isr & isr::RDC, isr::RDC);
        remote(&mut card, 0, 2, cr::REMOTE_WRITE);
        card.port_write(0x10, Width::Word, 0xffff);
        assert_eq!(card.burnt_in_address(), MAC, "a ROM");
    }

    #[test]
    fn a_reset_is_seen_as_drivers_look_for_it() {
        let mut card = started();
        assert_eq!(read(&mut card, page0::ISR) & isr::RST, 0);
        let value = read(&mut card, *port::RESET.end());
        write(&mut card, *port::RESET.end(), value);
        assert_eq!(read(&mut card, page0::ISR) & isr::RST, isr::RST);
        write(&mut card, page0::ISR, 0xff);
        write(&mut card, port::CR, 0x22);
        assert_eq!(read(&mut card, page0::ISR) & isr::RST, 0);
    }

    #[test]
    fn a_command_that_says_neither_start_nor_stop_changes_neither() {
        let mut card = started();
        write(&mut card, port::CR, 0x20);
        assert!(card.receive(&frame([0xff; 6], 60)));
        assert!(card.irq(), "it still runs");
        write(&mut card, port::CR, 0x21);
        write(&mut card, port::CR, 0x20);
        write(&mut card, page0::ISR, 0x7f);
        assert!(card.receive(&frame([0xff; 6], 60)));
        assert!(!card.irq(), "it is still stopped");
        assert_eq!(read(&mut card, port::CR), 0x21);
    }

    #[test]
    fn frames_are_sent() {
        let mut card = started();
        let frame = frame([0xff; 6], 61);
        remote(&mut card, 0x4000, 62, cr::REMOTE_WRITE);
        for pair in frame.chunks(2) {
            let word = u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            card.port_write(0x10, Width::Word, word.into());
        }
        for (offset, value) in [(page0::TPSR, 0x40), (page0::TBCR0, 61), (page0::TBCR1, 0), (port::CR, 0x26)]
        {
            write(&mut card, offset, value);
        }
        assert!(card.irq());
        assert_eq!(read(&mut card, page0::TSR), TSR_PTX);
        assert_eq!(read(&mut card, port::CR), 0x22);
        assert_eq!(card.take_sent().collect::<Vec<_>>(), [frame]);
        write(&mut card, page0::ISR, 0xff);
        assert!(!card.irq());
        write(&mut card, page0::TPSR, 0xff);
        write(&mut card, port::CR, 0x26);
        assert!(!card.has_sent(), "not in memory");
    }

    #[test]
    fn frames_are_received_and_wait_for_room() {
        let mut card = started();
        let given: Vec<_> = (0..30).map(|n| frame(MAC, 1514 - 50 * n)).collect();
        for frame in &given {
            assert!(card.receive(frame));
        }
        assert!(card.irq());
        for frame in &given {
            assert_eq!(fetch(&mut card).as_ref(), Some(frame));
        }
        assert_eq!(fetch(&mut card), None);
        let mut taken = 0;
        while card.receive(&given[0]) {
            taken += 1;
        }
        assert!((QUEUE..QUEUE + 10).contains(&taken), "{taken}");
        for _ in 0..taken {
            assert_eq!(fetch(&mut card).as_ref(), Some(&given[0]));
        }
    }

    #[test]
    fn frames_that_a_driver_leaves_raise_another_interrupt() {
        let mut card = started();
        for _ in 0..3 {
            assert!(card.receive(&frame(MAC, 60)));
        }
        for left in (0..3).rev() {
            assert!(card.irq() && fetch(&mut card).is_some());
            write(&mut card, page0::ISR, isr::PRX);
            assert_eq!(card.isr & isr::PRX != 0, left > 0);
        }
    }

    #[test]
    fn only_what_is_asked_for_is_received() {
        let mut card = started();
        let receives = |card: &mut Ne2k, to| {
            assert!(card.receive(&frame(to, 60)));
            fetch(card).is_some()
        };
        let group = [0x33, 0x33, 0, 0, 0, 1];
        assert!(receives(&mut card, MAC) && receives(&mut card, [0xff; 6]));
        assert!(!receives(&mut card, [2; 6]) && !receives(&mut card, group));
        write(&mut card, port::CR, 0x62);
        (page1::MAR0..=page1::MAR7).for_each(|offset| write(&mut card, offset, 0xff));
        write(&mut card, port::CR, 0x22);
        assert!(receives(&mut card, group));
        write(&mut card, page0::RCR, rcr::PRO);
        assert!(receives(&mut card, [2; 6]));
        write(&mut card, page0::RCR, rcr::PRO | rcr::MON);
        assert!(!receives(&mut card, MAC));
        let mut stopped = Ne2k::new(MAC);
        assert!(stopped.receive(&frame(MAC, 60)) && stopped.received.is_empty());
    }

    #[test]
    fn short_frames_are_padded_and_long_ones_are_not_for_this_card() {
        let mut card = started();
        assert!(card.receive(&frame(MAC, 42)));
        let padded = fetch(&mut card).unwrap();
        assert_eq!((padded.len(), &padded[42..]), (60, &[0; 18][..]));
        assert!(card.receive(&frame(MAC, 1515)));
        assert_eq!(fetch(&mut card), None);
    }

    #[test]
    fn the_filter_hashes_as_the_controller_does() {
        // The all-hosts group: the Ethernet CRC's upper bits by the driver of Linux.
        let mut card = started();
        let crc = {
            let mut crc = u32::MAX;
            for byte in [0x01u8, 0x00, 0x5e, 0, 0, 1] {
                let mut byte = byte;
                for _ in 0..8 {
                    let carry = (crc >> 31) ^ u32::from(byte & 1);
                    crc = crc << 1 ^ (carry * 0x04c1_1db7);
                    byte >>= 1;
                }
            }
            crc >> 26
        };
        card.multicast[crc as usize / 8] = 1 << (crc % 8);
        assert!(card.is_in_group(&[0x01, 0x00, 0x5e, 0, 0, 1]));
        assert!(!card.is_in_group(&[0x01, 0x00, 0x5e, 0, 0, 2]));
    }

    #[test]
    fn many_words_at_once_are_as_one_after_the_other() {
        let mut seed = 1u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((u64::from(seed) * u64::from(below)) >> 32) as u32
        };
        let (mut reads, mut writes) = (0, 0);
        for _ in 0..2000 {
            let mut one = started();
            one.memory.iter_mut().for_each(|byte| *byte = random(256) as u8);
            let addresses = [0, 0x3ffe, 0x4c00, 0x7fc0, 0x7f00 + random(0x200) as u16, random(0x9000) as u16];
            let (address, count) = (addresses[random(6) as usize], random(300) as u16);
            let is_read = random(2) == 0;
            remote(&mut one, address, count, if is_read { cr::REMOTE_READ } else { cr::REMOTE_WRITE });
            let width = [Width::Byte, Width::Word, Width::Dword][random(3) as usize];
            let (mut many, size) = (one.clone(), width.bytes() as usize);
            if is_read {
                let Some(bytes) = many.source(0x10, width) else { continue };
                let bytes = bytes[..bytes.len() / size * size].to_vec();
                many.moved(bytes.len());
                let singly = (0..bytes.len() / size).flat_map(|_| {
                    let value = one.port_read(0x10, width);
                    value.to_le_bytes().into_iter().take(size)
                });
                assert!(singly.eq(bytes.iter().copied()));
                reads += bytes.len();
            } else {
                let Some(room) = many.sink(0x10, width) else { continue };
                let bytes = room.len() / size * size;
                room[..bytes].fill(0xa5);
                many.moved(bytes);
                (0..bytes / size).for_each(|_| one.port_write(0x10, width, 0xa5a5_a5a5));
                writes += bytes;
            }
            assert_eq!(one, many);
        }
        assert!(reads > 10_000 && writes > 10_000);
    }

    #[test]
    fn a_hostile_driver_does_no_harm() {
        let mut card = started();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |below: u32| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32 % below
        };
        for _ in 0..200_000 {
            let width = [Width::Byte, Width::Word, Width::Dword][random(3) as usize];
            card.port_write(random(32) as u16, width, random(u32::MAX));
            card.port_read(random(32) as u16, width);
            let _ = card.receive(&frame(MAC, 60 + random(1400) as usize));
            if random(50) == 0 {
                card.take_sent().for_each(drop);
            }
        }
        assert!(card.received.len() <= QUEUE && card.sent.len() <= QUEUE);
    }
}
