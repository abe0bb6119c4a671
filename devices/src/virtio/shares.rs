//! A second virtio-9p device, for the folders of the host that a guest mounts.
//!
//! It answers nothing by itself: what the guest asks goes to the host ([`VirtioShares::take_asked`]) with a number,
//! and the answer comes back with that number ([`VirtioShares::answer`]), whenever and in whatever order the host
//! has it. A reset, and a restore, drop what was asked before.

use super::p9::tag_of;
use super::p9::wire::{self, RLERROR_SIZE};
use super::queue::Chain;
use super::{Action, BAR_DEVICE, BARS, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Transport};
use crate::board::device::{Access, Context, Device, Lines, Plug};
use crate::board::{Board, Row};
use crate::fs::Errno;
use crate::pci::{ConfigSpace, Function, devfn};
use env86_emu::{Memory, Width};

/// Where the device sits: where no busy device has the same interrupt.
pub const DEVFN: u8 = devfn(15, 0);
/// The name that a guest mounts.
pub const MOUNT_TAG: &str = "org.env86.shares";
/// The largest request in bytes. It is more than Linux sends in one.
pub const MAX_REQUEST: usize = 512 << 10;

/// Feature bit 0: the configuration has the mount tag.
const F_MOUNT_TAG: u32 = 1;
const DEVICE_TYPE: u16 = 9;
/// I/O ports at power-up, by base address.
const IO_PORTS: [u16; 4] = [0xf800, 0xf900, 0xf700, 0xf600];
/// Bytes of the configuration: the tag's length in 2 bytes and room for the tag.
const CONFIG_LENGTH: u16 = 64;
const QUEUE: usize = 0;
/// Requests that may be without an answer at once.
pub const QUEUE_SIZE: u16 = 32;

/// A request that the host has not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The first descriptor of its chain.
    pub head: u16,
    /// Its tag, for an answer that is not the host's.
    pub tag: u16,
    /// What it is known by outside.
    pub number: u32,
}

/// A request for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What its answer has to name.
    pub number: u32,
    /// A message of 9P2000.L.
    pub message: Vec<u8>,
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioShares {
    /// The registers and the queue.
    pub transport: Transport,
    /// Requests without an answer, [`QUEUE_SIZE`] at most.
    pub open: Vec<Open>,
    /// Those of them that the host has not taken yet.
    pub asked: Vec<Asked>,
    /// The number of the next.
    pub next: u32,
}

impl Default for VirtioShares {
    fn default() -> Self {
        let features = [F_MOUNT_TAG | F_INDIRECT_DESC | F_EVENT_IDX, F_VERSION_1, 0, 0];
        Self {
            transport: Transport::new(features, &[(QUEUE_SIZE, 0)]),
            open: Vec::new(),
            asked: Vec::new(),
            next: 0,
        }
    }
}

impl VirtioShares {
    /// The level of the interrupt pin.
    pub fn irq(&self) -> bool {
        self.transport.irq()
    }

    /// The machine's reset, or the driver's: what was asked gets no answer any more.
    pub fn reset(&mut self) {
        self.transport.reset();
        self.open.clear();
        self.asked.clear();
    }

    /// Reads a port of a base address.
    pub fn port_read(&mut self, bar: usize, offset: u16, width: Width) -> u32 {
        let mut config = [0; CONFIG_LENGTH as usize];
        if bar == BAR_DEVICE {
            config[..2].copy_from_slice(&(MOUNT_TAG.len() as u16).to_le_bytes());
            config[2..2 + MOUNT_TAG.len()].copy_from_slice(MOUNT_TAG.as_bytes());
        }
        self.transport.port_read(&config, bar, offset, width)
    }

    /// Writes a port of a base address.
    pub fn port_write(&mut self, mem: &mut Memory, bar: usize, offset: u16, width: Width, value: u32) {
        match self.transport.port_write(bar, offset, width, value) {
            Action::Reset => self.reset(),
            Action::DriverOk | Action::Notify(QUEUE) => self.collect(mem),
            Action::Notify(_) | Action::None => {}
        }
    }

    /// Takes what is in the queue: at most as much as it can hold, whatever is written where it is meanwhile.
    fn collect(&mut self, mem: &mut Memory) {
        for _ in 0..=QUEUE_SIZE {
            let Some(chain) = self.transport.pop(mem, QUEUE) else { break };
            // One byte more tells that it is too large.
            let mut message = Vec::new();
            chain.read(mem, &mut message, MAX_REQUEST + 1);
            let tag = tag_of(&message);
            if message.len() > MAX_REQUEST {
                self.refuse(mem, &chain, tag, Errno::EMSGSIZE);
            } else if self.open.len() >= QUEUE_SIZE.into() {
                // A driver that offers a descriptor twice.
                self.refuse(mem, &chain, tag, Errno::EIO);
            } else {
                let number = self.next;
                self.next = number.wrapping_add(1);
                self.open.push(Open { head: chain.head, tag, number });
                self.asked.push(Asked { number, message });
            }
        }
    }

    /// Takes what the guest has asked since the last call.
    pub fn take_asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asked)
    }

    /// Answers a request. That there is none of this number any more is no error.
    pub fn answer(&mut self, mem: &mut Memory, number: u32, reply: &[u8]) {
        let Some(at) = self.open.iter().position(|open| open.number == number) else { return };
        let Open { head, tag, .. } = self.open.swap_remove(at);
        // The driver may have changed the descriptors since.
        let Some(chain) = self.transport.chain(mem, QUEUE, head) else { return };
        match chain.writable_len() < reply.len() as u64 {
            true => self.refuse(mem, &chain, tag, Errno::EMSGSIZE),
            false => self.complete(mem, &chain, reply),
        }
    }

    /// Answers all that is open with an error: the host that was asked is not there any more.
    pub fn lose(&mut self, mem: &mut Memory) {
        self.asked.clear();
        for Open { head, tag, .. } in std::mem::take(&mut self.open) {
            if let Some(chain) = self.transport.chain(mem, QUEUE, head) {
                self.refuse(mem, &chain, tag, Errno::EIO);
            }
        }
    }

    /// Where not even an error has room, the request is given back empty.
    fn refuse(&mut self, mem: &mut Memory, chain: &Chain, tag: u16, errno: Errno) {
        let mut reply = Vec::with_capacity(RLERROR_SIZE);
        wire::fail(&mut reply, tag, errno);
        let fits = chain.writable_len() >= reply.len() as u64;
        self.complete(mem, chain, if fits { &reply } else { &[] });
    }

    fn complete(&mut self, mem: &mut Memory, chain: &Chain, reply: &[u8]) {
        let written = chain.write(mem, reply);
        self.transport.complete(mem, QUEUE, chain.head, written);
    }
}

impl Function for VirtioShares {
    fn devfn(&self) -> u8 {
        DEVFN
    }

    fn config_space(&self) -> ConfigSpace {
        self.transport.config_space(DEVICE_TYPE, IO_PORTS, CONFIG_LENGTH)
    }
}

impl Device for VirtioShares {
    /// Its state is our addition.
    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &BARS))
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        self.port_read(at.window.into(), at.offset, at.width)
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.port_write(cx.mem, at.window.into(), at.offset, at.width, value);
        match self.asked.is_empty() {
            true => {}
            false if cx.connected.shares => cx.requests.output(),
            // There is no host that would answer.
            false => self.lose(cx.mem),
        }
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::pci(DEVFN, self.irq())
    }
}

impl Board {
    /// Takes what the guest has asked of the folders of the host.
    pub fn shares_asked(&mut self) -> Vec<Asked> {
        self.shares.as_mut().map(VirtioShares::take_asked).unwrap_or_default()
    }

    /// Answers such a request. Says whether there is the device; of a request that is gone, nothing is said.
    pub fn shares_answer(&mut self, mem: &mut Memory, number: u32, reply: &[u8]) -> bool {
        let Some(shares) = &mut self.shares else { return false };
        shares.answer(mem, number, reply);
        self.changed(Row::shares);
        true
    }

    /// Whoever was asked before is not there any more: the guest gets errors.
    pub(crate) fn shares_lost(&mut self, mem: &mut Memory) {
        if let Some(shares) = &mut self.shares {
            shares.lose(mem);
            self.changed(Row::shares);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Driver;
    use super::super::{BAR_NOTIFY, STATUS_DRIVER_OK, STATUS_NEEDS_RESET};
    use super::*;

    const WRITE_ONLY: u16 = 2;
    const NEXT: u16 = 1;
    const BUFFER: u32 = 0x2_0000;
    const REPLY: u32 = 0x8_0000;

    struct Guest {
        mem: Box<Memory>,
        device: VirtioShares,
        driver: Driver,
    }

    impl Guest {
        fn new() -> Self {
            let mut device = VirtioShares::default();
            let driver = Driver::new(0x1000, QUEUE_SIZE);
            driver.place(&mut device.transport.queues[0]);
            device.transport.device_status = STATUS_DRIVER_OK;
            Self { mem: Memory::new(2 << 20).unwrap(), device, driver }
        }

        /// Asks with the descriptors 2n and 2n + 1; the answer has so much room.
        fn ask(&mut self, n: u16, message: &[u8], room: u32) {
            let (request, reply) = (BUFFER + 0x1000 * u32::from(n), REPLY + 0x1000 * u32::from(n));
            self.mem.write(request, message);
            let Self { mem, driver, .. } = self;
            let flags = if room > 0 { NEXT } else { 0 };
            driver.descriptor(mem, 2 * n, request.into(), message.len() as u32, flags, 2 * n + 1);
            driver.descriptor(mem, 2 * n + 1, reply.into(), room, WRITE_ONLY, 0);
            driver.offer(mem, 2 * n);
            self.notify();
        }

        fn notify(&mut self) {
            self.device.port_write(&mut self.mem, BAR_NOTIFY, 0, Width::Word, 0);
        }

        /// What is where the answer to the n-th is put.
        fn reply(&self, n: u16, len: u32) -> Vec<u8> {
            let mut bytes = vec![0; len as usize];
            self.mem.read(REPLY + 0x1000 * u32::from(n), &mut bytes);
            bytes
        }

        fn broken(&self) -> bool {
            self.device.transport.device_status & STATUS_NEEDS_RESET != 0
        }
    }

    /// A message with this tag.
    fn message(tag: u16) -> Vec<u8> {
        let mut message = vec![9, 0, 0, 0, 120, 0, 0, 1, 2];
        message[5..7].copy_from_slice(&tag.to_le_bytes());
        message
    }

    fn error(tag: u16, errno: Errno) -> Vec<u8> {
        let mut reply = Vec::new();
        wire::fail(&mut reply, tag, errno);
        reply
    }

    #[test]
    fn the_tag_is_in_the_configuration() {
        let mut guest = Guest::new();
        let read = |guest: &mut Guest, at| guest.device.port_read(BAR_DEVICE, at, Width::Byte) as u8;
        assert_eq!(read(&mut guest, 0), MOUNT_TAG.len() as u8);
        let tag: Vec<u8> = (0..MOUNT_TAG.len() as u16).map(|at| read(&mut guest, 2 + at)).collect();
        assert_eq!(tag, MOUNT_TAG.as_bytes());
    }

    #[test]
    fn answers_come_when_the_host_has_them_and_in_any_order() {
        let mut guest = Guest::new();
        guest.ask(0, &message(7), 100);
        guest.ask(1, &message(8), 100);
        let asked = guest.device.take_asked();
        assert_eq!(asked.iter().map(|asked| &asked.message).collect::<Vec<_>>(), [&message(7), &message(8)]);
        assert!(guest.device.take_asked().is_empty() && !guest.device.irq());
        guest.device.answer(&mut guest.mem, asked[1].number, b"second");
        assert!(guest.device.irq());
        assert_eq!(guest.driver.taken(&guest.mem), Some((2, 6)));
        guest.device.answer(&mut guest.mem, asked[0].number, b"first");
        assert_eq!(guest.driver.taken(&guest.mem), Some((0, 5)));
        assert_eq!((guest.reply(0, 5), guest.reply(1, 6)), (b"first".to_vec(), b"second".to_vec()));
        // Once is enough.
        guest.device.answer(&mut guest.mem, asked[0].number, b"again");
        assert_eq!(guest.driver.taken(&guest.mem), None);
        assert!(guest.device.open.is_empty());
    }

    #[test]
    fn a_reset_drops_what_was_asked() {
        let mut guest = Guest::new();
        guest.ask(0, &message(7), 100);
        let number = guest.device.take_asked()[0].number;
        guest.ask(1, &message(8), 100);
        guest.device.reset();
        assert!(guest.device.open.is_empty() && guest.device.asked.is_empty());
        // The next driver's first request is another one.
        guest.driver = Driver::new(0x1000, QUEUE_SIZE);
        guest.mem.write(0x1000, &[0; 0x1000]);
        guest.driver.place(&mut guest.device.transport.queues[0]);
        guest.device.transport.device_status = STATUS_DRIVER_OK;
        guest.ask(0, &message(9), 100);
        guest.device.answer(&mut guest.mem, number, b"late");
        assert_eq!(guest.driver.taken(&guest.mem), None);
        assert_eq!(guest.device.open.len(), 1);
    }

    #[test]
    fn what_was_asked_of_a_host_that_is_gone_fails() {
        let mut guest = Guest::new();
        guest.ask(0, &message(7), 100);
        guest.device.take_asked();
        guest.ask(1, &message(8), 100);
        guest.device.lose(&mut guest.mem);
        assert!(guest.device.open.is_empty() && guest.device.asked.is_empty());
        assert_eq!(guest.driver.taken(&guest.mem), Some((0, RLERROR_SIZE as u32)));
        assert_eq!(guest.driver.taken(&guest.mem), Some((2, RLERROR_SIZE as u32)));
        assert_eq!(guest.reply(0, RLERROR_SIZE as u32), error(7, Errno::EIO));
        assert_eq!(guest.reply(1, RLERROR_SIZE as u32), error(8, Errno::EIO));
    }

    #[test]
    fn an_answer_without_room_is_an_error_or_nothing() {
        let mut guest = Guest::new();
        for (n, room) in [(0, 11), (1, 10), (2, 0)] {
            guest.ask(n, &message(n), room);
        }
        for Asked { number, .. } in guest.device.take_asked() {
            guest.device.answer(&mut guest.mem, number, &[1; 12]);
        }
        assert_eq!(guest.driver.taken(&guest.mem), Some((0, 11)));
        assert_eq!(guest.reply(0, 11), error(0, Errno::EMSGSIZE));
        assert_eq!(guest.driver.taken(&guest.mem), Some((2, 0)));
        assert_eq!(guest.driver.taken(&guest.mem), Some((4, 0)));
        assert!(!guest.broken());
    }

    #[test]
    fn what_a_driver_cannot_mean_is_refused_and_bounded() {
        let mut guest = Guest::new();
        // Too large.
        guest.driver.descriptor(&mut guest.mem, 0, 0x1_0000, MAX_REQUEST as u32 + 1, NEXT, 1);
        guest.driver.descriptor(&mut guest.mem, 1, REPLY.into(), 100, WRITE_ONLY, 0);
        guest.driver.offer(&mut guest.mem, 0);
        guest.notify();
        assert_eq!(guest.driver.taken(&guest.mem), Some((0, RLERROR_SIZE as u32)));
        assert!(guest.device.asked.is_empty());
        // The same descriptors again and again.
        for _ in 0..100 {
            guest.ask(3, &message(3), 100);
        }
        assert_eq!(guest.device.asked.len(), usize::from(QUEUE_SIZE));
        assert_eq!(guest.device.open.len(), usize::from(QUEUE_SIZE));
        // Descriptors that are others when the answer comes.
        let number = guest.device.take_asked()[0].number;
        guest.driver.descriptor(&mut guest.mem, 6, u64::MAX, 100, WRITE_ONLY, 0);
        guest.device.answer(&mut guest.mem, number, b"answer");
        assert!(guest.broken());
        guest.device.lose(&mut guest.mem);
        assert!(guest.device.open.is_empty());
    }

    #[test]
    fn a_message_may_have_no_header() {
        let mut guest = Guest::new();
        guest.ask(0, b"x", 100);
        let asked = guest.device.take_asked();
        assert_eq!(asked[0].message, b"x");
        guest.device.lose(&mut guest.mem);
        assert_eq!(guest.reply(0, RLERROR_SIZE as u32), error(u16::MAX, Errno::EIO));
    }
}
