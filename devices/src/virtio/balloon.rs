//! virtio-balloon (virtio 1.2, 5.5): the guest gives pages of its memory back when the host wants some,
//! and tells how it is doing.
//!
//! A page that the guest puts into the balloon loses its content: it is zero then, so that it costs
//! nothing in a saved state. A guest that takes a page out finds zeros there, or its own content if the
//! device had none to drop.

use super::{Action, BAR_DEVICE, F_VERSION_1, Transport};
use crate::board::device::{Access, Context, Device, Lines, Plug};
use crate::board::{Board, Row};
use crate::pci::{ConfigSpace, Function, devfn};
use env86_emu::memory::PAGE_SIZE;
use env86_emu::{Memory, Width};
use std::collections::BTreeMap;

/// Where the device sits.
pub const DEVFN: u8 = devfn(11, 0);
/// Feature bit 1: the queue of statistics.
const F_STATS_VQ: u32 = 1 << 1;
/// Feature bit 3: the queue of free pages.
const F_FREE_PAGE_HINT: u32 = 1 << 3;
const DEVICE_TYPE: u16 = 5;
/// I/O ports at power-up, by base address.
const IO_PORTS: [u16; 4] = [0xd800, 0xd900, 0xd700, 0xd600];
/// Bytes of the configuration: num_pages 4, actual 4, free_page_hint_cmd_id 4.
const CONFIG_LENGTH: usize = 12;
/// The field of the configuration that the driver writes.
const ACTUAL: u16 = 4;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATS: usize = 2;
const FREE_PAGES: usize = 3;
/// Sizes and notify offsets.
const QUEUES: [(u16, u16); 4] = [(32, 0), (32, 0), (2, 1), (64, 2)];

/// Bytes of a page's number in a request.
const PFN_SIZE: usize = 4;
/// Pages of a request that are looked at. Linux sends 256 at most (virtio_balloon.c,
/// VIRTIO_BALLOON_ARRAY_PFNS_MAX); of a longer request the other pages keep their content.
const MAX_PFNS: usize = 4096;
/// Bytes of a statistic: tag 2, value 8 (5.5.6.3).
const STAT_SIZE: usize = 10;
/// Statistics in a request that are looked at; 16 kinds have been defined.
const MAX_STATS: usize = 64;
const ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// The device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioBalloon {
    /// The registers and the queues.
    pub transport: Transport,
    /// Pages of 4 KiB that the host wants in the balloon.
    pub num_pages: u32,
    /// Pages of 4 KiB that the guest says are in it.
    pub actual: u32,
    /// The request for statistics that the guest has left here, by its first descriptor: it is given
    /// back to ask for new ones.
    pub stats_request: Option<u16>,
    /// The last statistics by tag, as the guest sent them (5.5.6.4).
    pub stats: BTreeMap<u16, u64>,
    /// Pages whose content has been dropped.
    pub dropped: u64,
}

impl Default for VirtioBalloon {
    fn default() -> Self {
        Self {
            transport: Transport::new([F_STATS_VQ | F_FREE_PAGE_HINT, F_VERSION_1, 0, 0], &QUEUES),
            num_pages: 0,
            actual: 0,
            stats_request: None,
            stats: BTreeMap::new(),
            dropped: 0,
        }
    }
}

impl VirtioBalloon {
    /// Forgets what the driver has set up. What the host wants stays.
    fn restart(&mut self) {
        self.transport.reset();
        (self.actual, self.stats_request) = (0, None);
    }

    /// The host wants so many pages of 4 KiB in the balloon: tells the driver.
    pub fn set_target(&mut self, pages: u32) {
        if self.num_pages != pages {
            self.num_pages = pages;
            self.transport.config_changed();
        }
    }

    /// Asks the guest for new statistics. Gives false while it owes those that were asked for last, or has
    /// no driver that sends any.
    pub fn ask_for_stats(&mut self, mem: &mut Memory) -> bool {
        let Some(head) = self.stats_request.take() else { return false };
        self.transport.complete(mem, STATS, head, 0);
        true
    }

    /// Reads a port of a base address.
    pub fn port_read(&mut self, bar: usize, offset: u16, width: Width) -> u32 {
        let mut config = [0; CONFIG_LENGTH];
        config[..4].copy_from_slice(&self.num_pages.to_le_bytes());
        config[4..8].copy_from_slice(&self.actual.to_le_bytes());
        // free_page_hint_cmd_id is VIRTIO_BALLOON_CMD_ID_STOP: no hints are asked for.
        let config = if bar == BAR_DEVICE { &config[..] } else { &[] };
        self.transport.port_read(config, bar, offset, width)
    }

    /// Writes a port of a base address.
    pub fn port_write(&mut self, mem: &mut Memory, bar: usize, offset: u16, width: Width, value: u32) {
        if bar == BAR_DEVICE {
            return self.write_actual(offset, width, value);
        }
        match self.transport.port_write(bar, offset, width, value) {
            Action::None => {}
            Action::Reset => self.restart(),
            Action::DriverOk => (INFLATE..=FREE_PAGES).for_each(|queue| self.serve(mem, queue)),
            Action::Notify(queue) => self.serve(mem, queue),
        }
    }

    /// The driver writes how large the balloon is, in parts perhaps.
    fn write_actual(&mut self, offset: u16, width: Width, value: u32) {
        let mut bytes = self.actual.to_le_bytes();
        for (i, byte) in (0..width.bytes() as u16).zip(value.to_le_bytes()) {
            let at = offset.wrapping_add(i).checked_sub(ACTUAL);
            let place = at.and_then(|at| bytes.get_mut(usize::from(at)));
            place.into_iter().for_each(|place| *place = byte);
        }
        self.actual = u32::from_le_bytes(bytes);
    }

    /// Takes the requests of a queue: at most as many as it can hold.
    fn serve(&mut self, mem: &mut Memory, queue: usize) {
        let Some((size, _)) = QUEUES.get(queue) else { return };
        let mut bytes = Vec::new();
        for _ in 0..*size {
            let Some(chain) = self.transport.pop(mem, queue) else { break };
            match queue {
                INFLATE => {
                    chain.read(mem, &mut bytes, PFN_SIZE * MAX_PFNS);
                    self.inflate(mem, &bytes);
                }
                STATS => {
                    chain.read(mem, &mut bytes, STAT_SIZE * MAX_STATS);
                    self.take_stats(&bytes);
                    // A driver has one such request; it comes back when the host asks.
                    if self.stats_request.is_none() {
                        self.stats_request = Some(chain.head);
                        continue;
                    }
                }
                // There is nothing to do about a page that the guest uses again.
                DEFLATE => {}
                // A hint that a page is free asks for nothing.
                _ => {}
            }
            self.transport.complete(mem, queue, chain.head, 0);
        }
    }

    /// Drops the content of pages, which a request names by number.
    fn inflate(&mut self, mem: &mut Memory, request: &[u8]) {
        for pfn in request.as_chunks().0 {
            let Some(address) = u32::from_le_bytes(*pfn).checked_mul(PAGE_SIZE) else { continue };
            // The processor fills memory by itself where it has never been used.
            if mem.slice(address, PAGE_SIZE).is_some_and(|page| page != ZEROS) {
                mem.write(address, &ZEROS);
                self.dropped += 1;
            }
        }
    }

    fn take_stats(&mut self, request: &[u8]) {
        for [a, b, value @ ..] in request.as_chunks::<STAT_SIZE>().0 {
            self.stats.insert(u16::from_le_bytes([*a, *b]), u64::from_le_bytes(*value));
        }
        while self.stats.len() > MAX_STATS {
            self.stats.pop_last();
        }
    }
}

impl Function for VirtioBalloon {
    fn devfn(&self) -> u8 {
        DEVFN
    }

    fn config_space(&self) -> ConfigSpace {
        self.transport.config_space(DEVICE_TYPE, IO_PORTS, CONFIG_LENGTH as u16)
    }
}

impl Device for VirtioBalloon {
    const STATES: &'static [&'static str] = &["virtio_balloon"];

    fn reset(&mut self, _: &mut Memory) {
        self.restart();
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &super::BARS))
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        self.port_read(at.window.into(), at.offset, at.width)
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.port_write(cx.mem, at.window.into(), at.offset, at.width, value);
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::pci(DEVFN, self.transport.irq())
    }
}

impl Board {
    /// Asks the guest to put so many pages of 4 KiB into the balloon. A board without one does nothing.
    pub fn set_balloon_target(&mut self, pages: u32) {
        self.balloon.iter_mut().for_each(|balloon| balloon.set_target(pages));
        self.changed(Row::balloon);
    }

    /// Asks the guest for new statistics: [`VirtioBalloon::ask_for_stats`].
    pub fn ask_for_balloon_stats(&mut self, mem: &mut Memory) -> bool {
        let asked = self.balloon.as_mut().is_some_and(|balloon| balloon.ask_for_stats(mem));
        self.changed(Row::balloon);
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Driver;
    use super::super::{BAR_NOTIFY, STATUS_DRIVER_OK};
    use super::*;

    struct Guest {
        mem: Box<Memory>,
        balloon: VirtioBalloon,
        queues: Vec<Driver>,
    }

    const BUFFER: u32 = 0x2_0000;

    impl Guest {
        fn new() -> Self {
            let mut balloon = VirtioBalloon::default();
            let drivers = QUEUES.iter().zip(1..).map(|((size, _), page)| Driver::new(0x1000 * page, *size));
            let queues: Vec<_> = drivers.collect();
            for (queue, driver) in balloon.transport.queues.iter_mut().zip(&queues) {
                driver.place(queue);
            }
            balloon.transport.device_status = STATUS_DRIVER_OK;
            Self { mem: Memory::new(1 << 20).unwrap(), balloon, queues }
        }

        fn send(&mut self, queue: usize, bytes: &[u8]) {
            self.mem.write(BUFFER, bytes);
            self.queues[queue].descriptor(&mut self.mem, 0, BUFFER.into(), bytes.len() as u32, 0, 0);
            self.queues[queue].offer(&mut self.mem, 0);
            self.balloon.port_write(&mut self.mem, BAR_NOTIFY, 0, Width::Word, queue as u32);
        }

        fn pages(&mut self, queue: usize, pages: &[u32]) {
            let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
            self.send(queue, &bytes);
        }
    }

    #[test]
    fn pages_in_the_balloon_lose_their_content() {
        let mut guest = Guest::new();
        for page in [0x40, 0x41, 0x42] {
            guest.mem.write(page * PAGE_SIZE, &[0x5a; PAGE_SIZE as usize]);
        }
        // The video window, beyond memory, beyond 4 GiB, never used: no harm, and nothing dropped.
        guest.pages(INFLATE, &[0x40, 0x42, 0xa0, 0x100, 0x10_0000, u32::MAX, 0x50]);
        assert_eq!(guest.queues[INFLATE].taken(&guest.mem), Some((0, 0)));
        let first = |guest: &Guest, page: u32| guest.mem.read_u8(page * PAGE_SIZE);
        assert_eq!([0x40, 0x41, 0x42].map(|page| first(&guest, page)), [0, 0x5a, 0]);
        assert_eq!(guest.balloon.dropped, 2);
        assert!(guest.balloon.transport.irq());
        guest.pages(DEFLATE, &[0x40]);
        assert_eq!(guest.queues[DEFLATE].taken(&guest.mem), Some((0, 0)));
        guest.send(FREE_PAGES, &[1, 0, 0, 0]);
        assert_eq!(guest.queues[FREE_PAGES].taken(&guest.mem), Some((0, 0)));
    }

    #[test]
    fn target_and_size_are_in_the_configuration() {
        let mut guest = Guest::new();
        guest.balloon.set_target(1000);
        assert!(guest.balloon.transport.irq());
        let read = |guest: &mut Guest, offset| guest.balloon.port_read(BAR_DEVICE, offset, Width::Dword);
        assert_eq!([0, 4, 8, 12].map(|at| read(&mut guest, at)), [1000, 0, 0, u32::MAX]);
        guest.balloon.port_write(&mut guest.mem, BAR_DEVICE, 4, Width::Dword, 0x102);
        guest.balloon.port_write(&mut guest.mem, BAR_DEVICE, 5, Width::Byte, 3);
        for offset in [0, 8, 0xfffe] {
            guest.balloon.port_write(&mut guest.mem, BAR_DEVICE, offset, Width::Dword, u32::MAX);
        }
        assert_eq!((guest.balloon.actual, guest.balloon.num_pages), (0x302, 1000));
    }

    #[test]
    fn statistics_come_when_they_are_asked_for() {
        let mut guest = Guest::new();
        assert!(!guest.balloon.ask_for_stats(&mut guest.mem), "no driver has sent any");
        let stat = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
        guest.send(STATS, &[stat(4, 1 << 33), stat(5, 7)].concat());
        assert_eq!(guest.queues[STATS].taken(&guest.mem), None, "it is kept");
        assert_eq!(guest.balloon.stats, BTreeMap::from([(4, 1 << 33), (5, 7)]));
        assert!(guest.balloon.ask_for_stats(&mut guest.mem));
        assert_eq!(guest.queues[STATS].taken(&guest.mem), Some((0, 0)));
        assert!(!guest.balloon.ask_for_stats(&mut guest.mem), "it is asked already");
        guest.send(STATS, &stat(5, 8));
        assert_eq!(guest.balloon.stats.get(&5), Some(&8));
        (0..100).for_each(|tag| guest.send(STATS, &stat(tag, 1)));
        assert!(guest.balloon.stats.len() <= MAX_STATS);
        guest.send(STATS, &[1, 2, 3]);
    }
}
