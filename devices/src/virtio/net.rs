//! virtio-net (virtio 1.1, 5.1): a network card with one pair of queues.
//!
//! It takes checksums and the cutting of TCP segments off the driver's hands where the driver lets it, so
//! that a bulk transfer moves up to 64 KiB at a time. The frames on the host's side are whole, with right
//! checksums; one that is longer than the medium is a TCP segment that is still to be cut. A driver that
//! does not take such frames gets them cut.

use super::queue::Chain;
use super::{Action, BAR_DEVICE, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Transport};
use crate::board::device::{Access, Context, Device, Lines, Plug};
use crate::checksum::{fold, sum};
use crate::pci::{ConfigSpace, Function, devfn};
use env86_emu::{Memory, Width};
use std::collections::VecDeque;
use tracing::debug;

/// Where the device sits.
pub const DEVFN: u8 = devfn(10, 0);
/// Bytes of the longest frame, a TCP segment to be cut.
pub const LONGEST_FRAME: usize = 65_535 + ETHERNET;

const F_CSUM: u32 = 1 << 0;
const F_GUEST_CSUM: u32 = 1 << 1;
const F_MTU: u32 = 1 << 3;
const F_MAC: u32 = 1 << 5;
const F_GUEST_TSO4: u32 = 1 << 7;
const F_HOST_TSO4: u32 = 1 << 11;
const F_MRG_RXBUF: u32 = 1 << 15;
const F_STATUS: u32 = 1 << 16;
const F_CTRL_VQ: u32 = 1 << 17;
const F_MQ: u32 = 1 << 22;
const F_CTRL_MAC_ADDR: u32 = 1 << 23;
/// What v86's card offers.
const V86_FEATURES: u32 = F_MTU | F_MAC | F_STATUS | F_CTRL_VQ | F_MQ | F_CTRL_MAC_ADDR;
/// What ours offers beside it.
const OWN_FEATURES: u32 =
    F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_HOST_TSO4 | F_MRG_RXBUF | F_INDIRECT_DESC | F_EVENT_IDX;

const DEVICE_TYPE: u16 = 1;
/// I/O ports at power-up, by base address.
const IO_PORTS: [u16; 4] = [0xc800, 0xc900, 0xc700, 0xc600];
/// Bytes of the configuration: address 6, status 2, pairs of queues 2, MTU 2.
const CONFIG_LENGTH: u16 = 12;
/// Status: the link is up.
const S_LINK_UP: u16 = 1;
const QUEUE_PAIRS: u16 = 1;
/// Bytes of the longest IP packet of the medium.
const MTU: u16 = 1500;

/// Sizes and notify offsets: receive, transmit, control.
const QUEUES: [(u16, u16); 3] = [(1024, 0), (1024, 1), (16, 2)];
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CONTROL: usize = 2;

/// Frames, and bytes of them, that wait for the guest or for the host before the other side waits.
const QUEUE: usize = 256;
const QUEUE_BYTES: usize = 1 << 20;

/// Bytes of the header before each frame (5.1.6): flags 1, GSO type 1, header length 2, GSO size 2,
/// checksum start 2, checksum offset 2, buffers 2.
const HEADER: usize = 12;
/// Header flag: the checksum is to be made.
const HDR_F_NEEDS_CSUM: u8 = 1;
/// Header flag: the checksum is right.
const HDR_F_DATA_VALID: u8 = 2;
/// GSO type: a TCP segment over IPv4.
const HDR_GSO_TCPV4: u8 = 1;

/// Commands of the control queue (5.1.6.5): class and command.
const CTRL_MAC_TABLE_SET: (u8, u8) = (1, 0);
const CTRL_MAC_ADDR_SET: (u8, u8) = (1, 1);
const CTRL_MQ_PAIRS_SET: (u8, u8) = (4, 0);
const CTRL_OK: u8 = 0;
const CTRL_ERR: u8 = 1;
/// The longest command that is read, in bytes.
const LONGEST_COMMAND: usize = 4096;

const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_TCP: u8 = 6;
/// Where the checksum is in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// TCP flags of the last of several segments only: FIN and PSH.
const TCP_LAST: u8 = 0x09;

/// Frames that wait, and their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Frames {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Frames {
    fn is_full(&self) -> bool {
        self.frames.len() >= QUEUE || self.bytes >= QUEUE_BYTES
    }

    fn push(&mut self, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioNet {
    /// The registers and the queues.
    pub transport: Transport,
    /// The card's address.
    pub mac: [u8; 6],
    /// The link is up.
    pub link: bool,
    /// For the guest.
    received: Frames,
    /// For the host.
    sent: Frames,
}

impl VirtioNet {
    /// A card with an address.
    pub fn new(mac: [u8; 6]) -> Self {
        let features = [V86_FEATURES | OWN_FEATURES, F_VERSION_1, 0, 0];
        Self {
            transport: Transport::new(features, &QUEUES),
            mac,
            link: true,
            received: Frames::default(),
            sent: Frames::default(),
        }
    }

    /// The level of the interrupt pin.
    pub fn irq(&self) -> bool {
        self.transport.irq()
    }

    /// The machine's reset: what waits for the guest is lost, what it sent is not.
    pub fn reset(&mut self) {
        self.transport.reset();
        self.received = Frames::default();
    }

    /// Plugs the cable in or pulls it, and tells the driver.
    pub fn set_link(&mut self, up: bool) {
        if self.link != up {
            self.link = up;
            self.transport.config_changed();
        }
    }

    /// Reads a port of a base address.
    pub fn port_read(&mut self, bar: usize, offset: u16, width: Width) -> u32 {
        let mut config = [0; CONFIG_LENGTH as usize];
        config[..6].copy_from_slice(&self.mac);
        let status = if self.link { S_LINK_UP } else { 0 };
        for (at, word) in [(6, status), (8, QUEUE_PAIRS), (10, MTU)] {
            config[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        let config = if bar == BAR_DEVICE { &config[..] } else { &[] };
        self.transport.port_read(config, bar, offset, width)
    }

    /// Writes a port of a base address.
    pub fn port_write(&mut self, mem: &mut Memory, bar: usize, offset: u16, width: Width, value: u32) {
        match self.transport.port_write(bar, offset, width, value) {
            Action::None => {}
            Action::Reset => self.reset(),
            Action::DriverOk => self.poll(mem),
            Action::Notify(RECEIVE) => self.deliver(mem),
            Action::Notify(TRANSMIT) => self.transmit(mem),
            Action::Notify(CONTROL) => self.control(mem),
            Action::Notify(_) => {}
        }
    }

    /// Moves what can be moved. The host calls it after it has taken frames.
    pub fn poll(&mut self, mem: &mut Memory) {
        self.control(mem);
        self.transmit(mem);
        self.deliver(mem);
    }

    /// Takes a frame for the guest. It is not taken while many wait already; a card without a driver
    /// takes and drops it.
    #[must_use = "a frame that was not taken has to be given again"]
    pub fn receive(&mut self, mem: &mut Memory, frame: &[u8]) -> bool {
        if !self.transport.is_running() || !self.link || !(ETHERNET..=LONGEST_FRAME).contains(&frame.len()) {
            return true;
        }
        if self.received.is_full() {
            return false;
        }
        if frame.len() <= ETHERNET + usize::from(MTU) || self.transport.has_feature(F_GUEST_TSO4) {
            self.received.push(frame.to_vec());
        } else {
            match Segment::of(frame) {
                Some(segment) => segment.cut(frame).for_each(|frame| self.received.push(frame)),
                None => debug!(target: "virtio.net", length = frame.len(), "frame too long"),
            }
        }
        self.deliver(mem);
        true
    }

    /// The frames that the guest has sent. [`Self::poll`] then gives a driver that waited its turn.
    pub fn take_sent(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.sent.bytes = 0;
        self.sent.frames.drain(..)
    }

    /// Whether frames wait for the host.
    pub fn has_sent(&self) -> bool {
        !self.sent.frames.is_empty()
    }

    /// Writes frames that wait into the driver's buffers, as long as it has any.
    fn deliver(&mut self, mem: &mut Memory) {
        while let Some(frame) = self.received.frames.front() {
            let mut bytes = self.header(frame).to_vec();
            bytes.extend(frame);
            if bytes[0] & HDR_F_NEEDS_CSUM != 0
                && let Some(segment) = Segment::of(frame)
            {
                let partial = segment.pseudo_header_sum(frame, frame.len() - segment.tcp_at);
                let at = HEADER + segment.tcp_at + TCP_CHECKSUM;
                bytes[at..at + 2].copy_from_slice(&partial.to_be_bytes());
            }
            let Some(buffers) = self.buffers(mem, bytes.len()) else { break };
            self.received.pop();
            bytes[HEADER - 2..HEADER].copy_from_slice(&(buffers.len() as u16).to_le_bytes());
            let mut rest = &bytes[..];
            let used = buffers.iter().map(|buffer| {
                let written = buffer.write(mem, rest);
                rest = &rest[written as usize..];
                (buffer.head, written)
            });
            let used: Vec<_> = used.collect();
            self.transport.give_back(mem, RECEIVE, &used);
        }
    }

    /// What the driver is told of a frame.
    fn header(&self, frame: &[u8]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        if frame.len() > ETHERNET + usize::from(MTU)
            && let Some(segment) = Segment::of(frame)
        {
            header[0] = HDR_F_NEEDS_CSUM;
            header[1] = HDR_GSO_TCPV4;
            let fields = [(2, segment.data_at), (4, segment.size), (6, segment.tcp_at), (8, TCP_CHECKSUM)];
            for (at, value) in fields {
                header[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
            }
        } else if self.transport.has_feature(F_GUEST_CSUM) {
            header[0] = HDR_F_DATA_VALID;
        }
        header
    }

    /// Buffers of the driver's that hold so many bytes; all of them, or none.
    fn buffers(&mut self, mem: &mut Memory, length: usize) -> Option<Vec<Chain>> {
        let merges = self.transport.has_feature(F_MRG_RXBUF);
        let (mut buffers, mut room) = (Vec::new(), 0);
        while room < length as u64 {
            match self.transport.pop(mem, RECEIVE) {
                Some(buffer) if merges || buffer.writable_len() >= length as u64 => {
                    room += buffer.writable_len();
                    buffers.push(buffer);
                }
                // Without merging, a buffer that is too short is no use.
                Some(buffer) => self.transport.complete(mem, RECEIVE, buffer.head, 0),
                None => {
                    self.transport.put_back(RECEIVE, buffers.len() as u16);
                    return None;
                }
            }
        }
        Some(buffers)
    }

    /// Takes what the driver sends, while there is room.
    fn transmit(&mut self, mem: &mut Memory) {
        let mut bytes = Vec::new();
        for _ in 0..QUEUES[TRANSMIT].0 {
            if self.sent.is_full() {
                break;
            }
            let Some(chain) = self.transport.pop(mem, TRANSMIT) else { break };
            chain.read(mem, &mut bytes, HEADER + LONGEST_FRAME);
            self.transport.complete(mem, TRANSMIT, chain.head, 0);
            if self.link
                && let Some((header, frame)) = bytes.split_first_chunk::<HEADER>()
                && frame.len() >= ETHERNET
            {
                let mut frame = frame.to_vec();
                if header[0] & HDR_F_NEEDS_CSUM != 0 {
                    let word = |at| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
                    finish_checksum(&mut frame, word(6), word(8));
                }
                self.sent.push(frame);
            }
        }
    }

    fn control(&mut self, mem: &mut Memory) {
        let mut command = Vec::new();
        for _ in 0..QUEUES[CONTROL].0 {
            let Some(chain) = self.transport.pop(mem, CONTROL) else { break };
            chain.read(mem, &mut command, LONGEST_COMMAND);
            let answer = self.command(&command);
            let written = chain.write(mem, &[answer]);
            self.transport.complete(mem, CONTROL, chain.head, written);
        }
    }

    fn command(&mut self, command: &[u8]) -> u8 {
        let [class, number, data @ ..] = command else { return CTRL_ERR };
        match (*class, *number) {
            // The host's side sends what is for the guest anyway.
            CTRL_MAC_TABLE_SET => CTRL_OK,
            CTRL_MAC_ADDR_SET => match data.try_into() {
                Ok(mac) => {
                    self.mac = mac;
                    CTRL_OK
                }
                Err(_) => CTRL_ERR,
            },
            CTRL_MQ_PAIRS_SET if data == QUEUE_PAIRS.to_le_bytes() => CTRL_OK,
            _ => CTRL_ERR,
        }
    }
}

impl Function for VirtioNet {
    fn devfn(&self) -> u8 {
        DEVFN
    }

    fn config_space(&self) -> ConfigSpace {
        self.transport.config_space(DEVICE_TYPE, IO_PORTS, CONFIG_LENGTH)
    }
}

impl Device for VirtioNet {
    const STATES: &'static [&'static str] = &["virtio_net"];

    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn function(&self) -> Option<Plug> {
        Some(Plug::new(self, &super::BARS))
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        self.port_read(at.window.into(), at.offset, at.width)
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.port_write(cx.mem, at.window.into(), at.offset, at.width, value);
        if self.has_sent() && cx.connected.network {
            cx.requests.output();
        }
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::pci(DEVFN, self.irq())
    }
}

/// Makes the checksum of what begins at `start`; the field, `offset` bytes behind, holds the sum of the
/// pseudo header so far. A driver that points elsewhere gets what it asks for, within its frame.
fn finish_checksum(frame: &mut [u8], start: usize, offset: usize) {
    let at = start + offset;
    if at + 2 > frame.len() {
        return;
    }
    let checksum = !fold(sum(&frame[start..]));
    // Of UDP, 0 means that there is none (RFC 768); for TCP the two are the same.
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// The frames of the medium's length that a longer one of a driver's stands for; `None` for one that is no TCP
/// segment.
pub fn cut(frame: &[u8]) -> Option<impl Iterator<Item = Vec<u8>>> {
    Some(Segment::of(frame)?.cut(frame))
}

/// Where things are in a frame with a TCP segment over IPv4 that is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    /// The TCP header.
    tcp_at: usize,
    /// The data.
    data_at: usize,
    /// Bytes of data in each frame of the medium's length.
    size: usize,
}

impl Segment {
    fn of(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..)?;
        let ihl = usize::from(ip.first()? & 15) * 4;
        let is_tcp = frame[12..14] == ETHERTYPE_IPV4 && ip[0] >> 4 == 4 && *ip.get(9)? == PROTOCOL_TCP;
        let tcp_at = ETHERNET + ihl;
        let data_at = tcp_at + usize::from(frame.get(tcp_at + 12)? >> 4) * 4;
        let size = (ETHERNET + usize::from(MTU)).checked_sub(data_at)?;
        let sane = is_tcp && ihl >= 20 && data_at >= tcp_at + 20 && data_at < frame.len() && size > 0;
        sane.then_some(Self { tcp_at, data_at, size })
    }

    /// The sum of the pseudo header of a segment of so many bytes.
    fn pseudo_header_sum(&self, frame: &[u8], length: usize) -> u16 {
        let addresses = &frame[ETHERNET + 12..ETHERNET + 20];
        fold(sum(addresses) + u64::from(PROTOCOL_TCP) + length as u64)
    }

    /// The frames of the medium's length that this one stands for.
    fn cut(self, frame: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let (headers, data) = frame.split_at(self.data_at);
        let count = data.len().div_ceil(self.size);
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let sequence_at = self.tcp_at + 4;
        let sequence = u32::from(word(sequence_at)) << 16 | u32::from(word(sequence_at + 2));
        let ident = word(ETHERNET + 4);
        data.chunks(self.size).enumerate().map(move |(n, part)| {
            let mut frame = [headers, part].concat();
            let mut put = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
            put(ETHERNET + 2, &((self.data_at - ETHERNET + part.len()) as u16).to_be_bytes());
            put(ETHERNET + 4, &ident.wrapping_add(n as u16).to_be_bytes());
            put(ETHERNET + 10, &[0, 0]);
            put(sequence_at, &sequence.wrapping_add((n * self.size) as u32).to_be_bytes());
            let checksum = !fold(sum(&frame[ETHERNET..self.tcp_at]));
            frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
            if n + 1 < count {
                frame[self.tcp_at + 13] &= !TCP_LAST;
            }
            let partial = self.pseudo_header_sum(&frame, frame.len() - self.tcp_at);
            let at = self.tcp_at + TCP_CHECKSUM;
            frame[at..at + 2].copy_from_slice(&partial.to_be_bytes());
            finish_checksum(&mut frame, self.tcp_at, TCP_CHECKSUM);
            frame
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Driver;
    use super::super::{BAR_NOTIFY, STATUS_DRIVER_OK};
    use super::*;

    const MAC: [u8; 6] = [0x00, 0x22, 0x15, 1, 2, 3];
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    /// Bytes of a buffer that the guest offers.
    const BUFFER: u32 = 1536;

    struct Guest {
        mem: Box<Memory>,
        card: VirtioNet,
        queues: Vec<Driver>,
    }

    impl Guest {
        fn new() -> Self {
            let mut card = VirtioNet::new(MAC);
            let queues: Vec<_> =
                (0..3).map(|i| Driver::new(0x1000 * (i + 1), if i == 2 { 16 } else { 64 })).collect();
            for (queue, driver) in card.transport.queues.iter_mut().zip(&queues) {
                driver.place(queue);
            }
            card.transport.driver_feature[0] = V86_FEATURES | OWN_FEATURES & !F_EVENT_IDX;
            card.transport.device_status = STATUS_DRIVER_OK;
            Self { mem: Memory::new(1 << 20).unwrap(), card, queues }
        }

        fn notify(&mut self, queue: usize) {
            self.card.port_write(&mut self.mem, BAR_NOTIFY, 0, Width::Word, queue as u32);
        }

        fn offer(&mut self, indices: std::ops::Range<u16>) {
            for index in indices {
                let addr = 0x2_0000 + BUFFER * u32::from(index);
                self.queues[RECEIVE].descriptor(&mut self.mem, index, addr.into(), BUFFER, WRITE, 0);
                self.queues[RECEIVE].offer(&mut self.mem, index);
            }
            self.notify(RECEIVE);
        }

        /// The next frame and its header.
        fn received(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
            let mut bytes = Vec::new();
            let mut left = 1;
            while left > 0 {
                let (index, length) = self.queues[RECEIVE].taken(&self.mem)?;
                let start = bytes.len();
                bytes.resize(start + length as usize, 0);
                self.mem.read(0x2_0000 + BUFFER * index, &mut bytes[start..]);
                if start == 0 {
                    left = u16::from_le_bytes([bytes[10], bytes[11]]);
                }
                left -= 1;
            }
            let frame = bytes.split_off(HEADER);
            Some((bytes, frame))
        }

        fn send(&mut self, header: [u8; HEADER], frame: &[u8]) {
            let (at, queue) = (0x8_0000, &mut self.queues[TRANSMIT]);
            self.mem.write(at, &header);
            self.mem.write(at + HEADER as u32, frame);
            queue.descriptor(&mut self.mem, 0, at.into(), HEADER as u32, NEXT, 1);
            queue.descriptor(&mut self.mem, 1, (at + HEADER as u32).into(), frame.len() as u32, 0, 0);
            queue.offer(&mut self.mem, 0);
            self.notify(TRANSMIT);
        }

        fn command(&mut self, command: &[u8]) -> u8 {
            let (at, queue) = (0x7_0000, &mut self.queues[CONTROL]);
            self.mem.write(at, command);
            queue.descriptor(&mut self.mem, 0, at.into(), command.len() as u32, NEXT, 1);
            queue.descriptor(&mut self.mem, 1, 0x7_1000, 1, WRITE, 0);
            queue.offer(&mut self.mem, 0);
            self.notify(CONTROL);
            self.mem.read_u8(0x7_1000)
        }
    }

    /// A TCP segment with right checksums.
    fn segment(length: usize) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET + 40];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&((40 + length) as u16).to_be_bytes());
        frame[23] = PROTOCOL_TCP;
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let checksum = !fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame[38..42].copy_from_slice(&0xffff_fff0u32.to_be_bytes());
        frame[46..48].copy_from_slice(&[0x50, 0x19]);
        frame.extend((0..length).map(|n| (n * 7) as u8));
        let partial = Segment::of(&frame).map_or(0, |s| s.pseudo_header_sum(&frame, frame.len() - 34));
        frame[50..52].copy_from_slice(&partial.to_be_bytes());
        finish_checksum(&mut frame, 34, TCP_CHECKSUM);
        frame
    }

    fn is_right(frame: &[u8]) -> bool {
        let pseudo = Segment::of(frame).unwrap().pseudo_header_sum(frame, frame.len() - 34);
        fold(sum(&frame[14..34])) == 0xffff && fold(sum(&frame[34..]) + u64::from(pseudo)) == 0xffff
    }

    #[test]
    fn the_driver_finds_address_link_and_mtu() {
        let mut card = VirtioNet::new(MAC);
        let config: Vec<u8> = (0..12).map(|at| card.port_read(BAR_DEVICE, at, Width::Byte) as u8).collect();
        assert_eq!(config, [0, 0x22, 0x15, 1, 2, 3, 1, 0, 1, 0, 0xdc, 5]);
        let generation = card.transport.config_has_changed;
        card.set_link(false);
        assert_eq!(card.port_read(BAR_DEVICE, 6, Width::Word), 0);
        assert!(!generation && card.transport.config_has_changed);
        let space = card.config_space();
        assert_eq!(space.read(0, Width::Dword), 0x1041_1af4);
        assert_eq!([0, 1, 2, 3].map(|i| space.bar(i)), IO_PORTS.map(|port| Some(port.into())));
    }

    #[test]
    fn a_frame_comes_in_as_many_buffers_as_it_needs() {
        let mut guest = Guest::new();
        let (small, large) = (segment(100), segment(6000));
        assert!(guest.card.receive(&mut guest.mem, &small) && guest.card.receive(&mut guest.mem, &large));
        guest.offer(0..4);
        let (header, frame) = guest.received().unwrap();
        assert_eq!((header[0], header[10], frame), (HDR_F_DATA_VALID, 1, small));
        assert_eq!(guest.received(), None, "three buffers are not enough");
        guest.offer(4..6);
        let (header, frame) = guest.received().unwrap();
        assert_eq!(header, [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 4, 0]);
        assert_eq!((frame.len(), &frame[54..]), (large.len(), &large[54..]));
        // The driver finishes what is left of the checksum.
        let mut finished = frame;
        finish_checksum(&mut finished, 34, TCP_CHECKSUM);
        assert_eq!(finished, large);
        assert!(guest.card.irq());
    }

    #[test]
    fn a_driver_without_offloads_gets_frames_of_the_medium() {
        let mut guest = Guest::new();
        guest.card.transport.driver_feature[0] &= !(F_GUEST_TSO4 | F_GUEST_CSUM);
        guest.offer(0..8);
        let large = segment(6000);
        assert!(guest.card.receive(&mut guest.mem, &large));
        let mut data = Vec::new();
        for n in 0..5 {
            let (header, frame) = guest.received().unwrap();
            assert!(header[0] == 0 && frame.len() <= 1514 && is_right(&frame));
            assert_eq!(frame[47] & TCP_LAST != 0, n == 4);
            assert_eq!(frame[38..42], 0xffff_fff0u32.wrapping_add(1460 * n).to_be_bytes());
            data.extend_from_slice(&frame[54..]);
        }
        assert_eq!((guest.received(), data), (None, large[54..].to_vec()));
    }

    #[test]
    fn checksums_are_made_for_the_driver() {
        let mut guest = Guest::new();
        let right = segment(60_000);
        let mut frame = right.clone();
        let partial = Segment::of(&frame).unwrap().pseudo_header_sum(&frame, frame.len() - 34);
        frame[50..52].copy_from_slice(&partial.to_be_bytes());
        guest.send([1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0], &frame);
        guest.send([0; HEADER], &segment(10));
        guest.send([1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], &segment(10));
        assert!(guest.card.has_sent());
        assert_eq!(guest.card.take_sent().collect::<Vec<_>>(), [right, segment(10), segment(10)]);
    }

    #[test]
    fn commands_are_answered() {
        let mut guest = Guest::new();
        assert_eq!(guest.command(&[1, 1, 2, 2, 2, 2, 2, 2]), CTRL_OK);
        assert_eq!(guest.card.mac, [2; 6]);
        assert_eq!(guest.command(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), CTRL_OK);
        assert_eq!((guest.command(&[4, 0, 1, 0]), guest.command(&[4, 0, 2, 0])), (CTRL_OK, CTRL_ERR));
        assert_eq!((guest.command(&[1, 1, 2]), guest.command(&[9])), (CTRL_ERR, CTRL_ERR));
    }

    #[test]
    fn neither_side_can_fill_the_other() {
        let mut guest = Guest::new();
        while guest.card.receive(&mut guest.mem, &segment(1000)) {
            assert!(guest.card.received.frames.len() <= QUEUE);
        }
        for _ in 0..64 {
            guest.send([0; HEADER], &segment(60_000));
        }
        assert!(guest.card.sent.bytes < QUEUE_BYTES + LONGEST_FRAME);
        assert!(guest.card.take_sent().count() < 64);
        guest.card.poll(&mut guest.mem);
        assert!(guest.card.has_sent(), "those that waited");
    }

    #[test]
    fn hostile_rings() {
        let mut guest = Guest::new();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |below: u32| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32 % below
        };
        for _ in 0..20_000 {
            if !guest.card.transport.is_running() {
                guest.card = Guest::new().card;
            }
            let header = std::array::from_fn(|_| random(256) as u8);
            let frame: Vec<u8> = (0..random(200)).map(|_| random(256) as u8).collect();
            guest.send(header, &frame);
            guest.offer(0..4);
            for _ in 0..random(8) {
                guest.mem.write_u8(0x1000 + random(0x3000), random(256) as u8);
            }
            let mut large = segment(random(5000) as usize + 1);
            let at = random(54) as usize;
            large[at] = random(256) as u8;
            let _ = guest.card.receive(&mut guest.mem, &large);
            guest.command(&frame);
            if random(4) == 0 {
                guest.card.take_sent().for_each(drop);
                guest.card.poll(&mut guest.mem);
            }
        }
    }
}
