//! The network card: an NE2000 asks a DHCP server for an address; a virtio card is only named.

use iced_x86::code_asm::*;

use crate::frame::{boot_info, read_pci};
use crate::guest::{BUFFER, Guest, Result};

/// PCI: device and vendor.
const RTL8029: u32 = 0x8029_10ec;
const VIRTIO_NET: [u32; 2] = [0x1041_1af4, 0x1000_1af4];
const BAR0: u32 = 0x10;
const BAR_PORTS: u32 = 0xfffc;

/// What the command line begins with if the card is on a network: the library's `ON_NETWORK`.
const ON_NETWORK: &[u8] = b"network";

/// Ports of the card (DP8390D datasheet, 10), in page 0 unless said otherwise.
mod port {
    pub const COMMAND: u32 = 0;
    pub const PAGE_START: u32 = 1;
    pub const PAGE_STOP: u32 = 2;
    pub const BOUNDARY: u32 = 3;
    pub const TRANSMIT_PAGE: u32 = 4;
    pub const TRANSMIT_COUNT: u32 = 5;
    pub const INTERRUPT_STATUS: u32 = 7;
    pub const REMOTE_ADDRESS: u32 = 8;
    pub const REMOTE_COUNT: u32 = 0xa;
    pub const RECEIVE_CONFIG: u32 = 0xc;
    pub const TRANSMIT_CONFIG: u32 = 0xd;
    pub const DATA_CONFIG: u32 = 0xe;
    pub const INTERRUPT_MASK: u32 = 0xf;
    /// In page 1.
    pub const ADDRESS: u32 = 1;
    /// In page 1.
    pub const CURRENT: u32 = 7;
    pub const DATA: u32 = 0x10;
    pub const RESET: u32 = 0x1f;
}

/// Commands: each has to say that nothing happens to remote DMA, or what.
mod command {
    pub const STOP: u32 = 0x21;
    pub const START: u32 = 0x22;
    pub const START_PAGE_1: u32 = 0x62;
    pub const READ: u32 = 0x0a;
    pub const WRITE: u32 = 0x12;
    pub const TRANSMIT: u32 = 0x26;
}

/// Interrupt status: reset is done; a frame has been sent.
const RESET_DONE: u32 = 0x80;
const SENT: u32 = 0x02;
/// Remote DMA by bytes, no loopback, FIFO of 8 bytes.
const BY_BYTES: u32 = 0x48;
/// Receive configuration: frames to all, beside our own.
const BROADCAST: u32 = 0x04;

/// Pages of the card's memory: one frame to send, then the ring.
const SEND_PAGE: u32 = 0x40;
const RING_START: u32 = 0x46;
const RING_END: u32 = 0x80;

const ADDRESS_SIZE: u32 = 6;
/// The header that the card puts before a frame: status, next page, length.
const RING_HEADER: u32 = 4;
/// As much of a frame as the answer takes up to its options.
const TAKEN: u32 = RING_HEADER + 0x200;

/// Places in the frame of a DHCP message (RFC 2131, 2).
mod message {
    pub const SOURCE: usize = 6;
    pub const PROTOCOL: usize = 23;
    pub const TO_PORT: usize = 36;
    pub const BOOTP: usize = 42;
    pub const OPERATION: usize = BOOTP;
    pub const TRANSACTION: usize = BOOTP + 4;
    pub const YOUR_ADDRESS: usize = BOOTP + 16;
    pub const HARDWARE_ADDRESS: usize = BOOTP + 28;
    pub const OPTIONS: usize = BOOTP + 240;
    /// Without the options a message has 300 bytes at least (RFC 1542, 2.1).
    pub const END: usize = BOOTP + 300;
}
const TRANSACTION: [u8; 4] = *b"ev86";
const UDP: u8 = 17;
const REPLY: u32 = 2;
/// The kind of a message, its length of 1, and what an offer has there.
const OFFER: [u8; 3] = [53, 1, 2];
const OFFER_MS: u32 = 2000;

/// A DHCPDISCOVER to all. The card's address is put in later.
fn discover() -> Vec<u8> {
    const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
    let (ip_length, udp_length) = ((message::END - 14) as u16, (message::END - 34) as u16);
    let mut ip = vec![0x45, 0];
    ip.extend(ip_length.to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    ip.extend([0, 0, 0, 0, 255, 255, 255, 255]);
    let sum: u32 = ip.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum >> 16) + (sum & 0xffff)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut frame = vec![0xff; message::SOURCE];
    frame.extend([0; ADDRESS_SIZE as usize]);
    frame.extend([8, 0]);
    frame.extend(ip);
    for word in [68, 67, udp_length, 0] {
        frame.extend(word.to_be_bytes());
    }
    // A request of Ethernet's, with the answer to all.
    frame.extend([1, 1, ADDRESS_SIZE as u8, 0]);
    frame.extend(TRANSACTION);
    frame.extend([0, 0, 0x80, 0]);
    frame.resize(message::OPTIONS - COOKIE.len(), 0);
    frame.extend(COOKIE);
    frame.extend([53, 1, 1, 255]);
    frame.resize(message::END, 0);
    frame
}

/// Finds the card. An NE2000 tells its address, sends, and receives what a DHCP server offers.
pub fn test(g: &mut Guest) -> Result {
    let ne2000 = g.create_label();
    g.mov(eax, RTL8029)?;
    g.run(|to| to.find_pci)?;
    g.je(ne2000)?;
    for id in VIRTIO_NET {
        let other = g.create_label();
        g.mov(eax, id)?;
        g.run(|to| to.find_pci)?;
        g.jne(other)?;
        g.put("a virtio card, which is not tried")?;
        let passed = g.to.passed;
        g.jmp(passed)?;
        g.here(other)?;
    }
    g.say_absent("no card")?;

    // EBX is the card's first port from here on.
    g.here(ne2000)?;
    read_pci(g, BAR0)?;
    g.and(eax, BAR_PORTS)?;
    g.mov(ebx, eax)?;
    let frame = g.bytes(&discover());
    reset(g)?;
    read_address(g, frame)?;
    start(g, frame)?;
    send(g, frame)?;

    // Without a network no one answers.
    let (info, wanted) = (g.at.boot_info, g.bytes(ON_NETWORK));
    g.mov(eax, dword_ptr(info))?;
    g.mov(esi, dword_ptr(eax + boot_info::CMDLINE))?;
    g.mov(edi, wanted)?;
    g.mov(ecx, ON_NETWORK.len() as u32)?;
    g.repe().cmpsb()?;
    let connected = g.create_label();
    let passed = g.to.passed;
    g.je(connected)?;
    g.put(", sends; the network is off")?;
    g.jmp(passed)?;
    g.here(connected)?;
    receive(g)
}

/// Writes a value to a port of the card; changes AL and DX.
fn to(g: &mut Guest, port: u32, value: u32) -> Result {
    g.mov(al, value)?;
    to_al(g, port)
}

fn to_al(g: &mut Guest, port: u32) -> Result {
    g.lea(edx, dword_ptr(ebx + port))?;
    g.out(dx, al)
}

/// Reads a port of the card into AL; changes DX.
fn from(g: &mut Guest, port: u32) -> Result {
    g.lea(edx, dword_ptr(ebx + port))?;
    g.in_(al, dx)
}

/// Writes a value of two bytes to two ports.
fn to_both(g: &mut Guest, port: u32, value: u32) -> Result {
    to(g, port, value & 0xff)?;
    to(g, port + 1, value >> 8)
}

/// Prepares to move bytes of the card's memory; its address is set already.
fn remote(g: &mut Guest, count: u32, command: u32) -> Result {
    to_both(g, port::REMOTE_COUNT, count)?;
    to(g, port::COMMAND, command)?;
    g.mov(ecx, count)?;
    g.lea(edx, dword_ptr(ebx + port::DATA))
}

fn reset(g: &mut Guest) -> Result {
    let done = g.create_label();
    from(g, port::RESET)?;
    to_al(g, port::RESET)?;
    g.set_deadline(100)?;
    let wait = g.mark()?;
    from(g, port::INTERRUPT_STATUS)?;
    g.test(al, RESET_DONE)?;
    g.jne(done)?;
    g.before_deadline(wait)?;
    g.fail("NE2000, cannot be reset")?;
    g.here(done)?;
    for (port, value) in
        [(port::COMMAND, command::STOP), (port::DATA_CONFIG, BY_BYTES), (port::INTERRUPT_MASK, 0)]
    {
        to(g, port, value)?;
    }
    Ok(())
}

/// Reads the address ROM, where each byte is twice, into the frame; shows it.
fn read_address(g: &mut Guest, frame: u32) -> Result {
    to_both(g, port::REMOTE_ADDRESS, 0)?;
    remote(g, 2 * ADDRESS_SIZE, command::READ)?;
    g.mov(ecx, ADDRESS_SIZE)?;
    g.mov(edi, frame + message::SOURCE as u32)?;
    let next = g.mark()?;
    g.in_(al, dx)?;
    g.stosb()?;
    g.in_(al, dx)?;
    g.loop_(next)?;

    g.put("NE2000 ")?;
    for i in 0..ADDRESS_SIZE {
        if i > 0 {
            g.put(":")?;
        }
        g.mov(al, byte_ptr(frame + message::SOURCE as u32 + i))?;
        g.mov(byte_ptr(frame + message::HARDWARE_ADDRESS as u32 + i), al)?;
        g.put_hex()?;
    }
    Ok(())
}

/// Sets the ring up and lets the card receive.
fn start(g: &mut Guest, frame: u32) -> Result {
    for (port, value) in [
        (port::TRANSMIT_PAGE, SEND_PAGE),
        (port::PAGE_START, RING_START),
        (port::PAGE_STOP, RING_END),
        (port::BOUNDARY, RING_START),
        (port::RECEIVE_CONFIG, BROADCAST),
        (port::TRANSMIT_CONFIG, 0),
        (port::INTERRUPT_STATUS, 0xff),
        (port::COMMAND, command::START_PAGE_1),
        (port::CURRENT, RING_START + 1),
    ] {
        to(g, port, value)?;
    }
    for i in 0..ADDRESS_SIZE {
        g.mov(al, byte_ptr(frame + message::SOURCE as u32 + i))?;
        to_al(g, port::ADDRESS + i)?;
    }
    to(g, port::COMMAND, command::START)
}

fn send(g: &mut Guest, frame: u32) -> Result {
    let sent = g.create_label();
    to_both(g, port::REMOTE_ADDRESS, SEND_PAGE << 8)?;
    remote(g, message::END as u32, command::WRITE)?;
    g.mov(esi, frame)?;
    g.rep().outsb()?;
    to_both(g, port::TRANSMIT_COUNT, message::END as u32)?;
    to(g, port::COMMAND, command::TRANSMIT)?;
    g.set_deadline(100)?;
    let wait = g.mark()?;
    from(g, port::INTERRUPT_STATUS)?;
    g.test(al, SENT)?;
    g.jne(sent)?;
    g.before_deadline(wait)?;
    g.fail(", does not send")?;
    g.here(sent)?;
    Ok(())
}

/// Takes frames until one is an offer, and shows the address.
fn receive(g: &mut Guest) -> Result {
    let page = g.words(&[RING_START + 1]);
    let [taken, other] = [(); 2].map(|()| g.create_label());
    let at = |place: usize| BUFFER + RING_HEADER + place as u32;

    g.set_deadline(OFFER_MS)?;
    let look = g.mark()?;
    to(g, port::COMMAND, command::START_PAGE_1)?;
    from(g, port::CURRENT)?;
    g.movzx(ecx, al)?;
    to(g, port::COMMAND, command::START)?;
    g.cmp(ecx, dword_ptr(page))?;
    g.jne(taken)?;
    g.run(|to| to.rest)?;
    g.before_deadline(look)?;
    g.fail(", no DHCP server offers an address")?;

    g.here(taken)?;
    to(g, port::REMOTE_ADDRESS, 0)?;
    g.mov(eax, dword_ptr(page))?;
    to_al(g, port::REMOTE_ADDRESS + 1)?;
    remote(g, TAKEN, command::READ)?;
    g.mov(edi, BUFFER)?;
    g.rep().insb()?;
    // The next frame's page; the boundary is the one before that.
    let in_ring = g.create_label();
    g.movzx(eax, byte_ptr(BUFFER + 1))?;
    g.mov(dword_ptr(page), eax)?;
    g.dec(eax)?;
    g.cmp(al, RING_START)?;
    g.jae(in_ring)?;
    g.mov(al, RING_END - 1)?;
    g.here(in_ring)?;
    to_al(g, port::BOUNDARY)?;

    g.cmp(byte_ptr(at(message::PROTOCOL)), u32::from(UDP))?;
    g.jne(other)?;
    g.cmp(word_ptr(at(message::TO_PORT)), u32::from(68u16.swap_bytes()))?;
    g.jne(other)?;
    g.cmp(byte_ptr(at(message::OPERATION)), REPLY)?;
    g.jne(other)?;
    g.cmp(dword_ptr(at(message::TRANSACTION)), u32::from_le_bytes(TRANSACTION))?;
    g.jne(other)?;
    // The message's kind is the first option of all servers.
    for (place, byte) in (message::OPTIONS..).zip(OFFER) {
        g.cmp(byte_ptr(at(place)), u32::from(byte))?;
        g.jne(other)?;
    }
    for (i, text) in [", DHCP offers ", ".", ".", "."].into_iter().enumerate() {
        g.put(text)?;
        g.movzx(eax, byte_ptr(at(message::YOUR_ADDRESS + i)))?;
        g.put_decimal()?;
    }
    let passed = g.to.passed;
    g.jmp(passed)?;
    g.here(other)?;
    g.jmp(look)
}
