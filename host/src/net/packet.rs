//! The packets that the gateway makes itself, as Ethernet frames.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv4TimeExceeded, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use super::GATEWAY_MAC;
use super::cable::Frame;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of a UDP header.
pub const UDP: usize = 8;
/// The longest IP packet of the medium, in bytes.
pub const MTU: usize = 1500;
/// Of an offending packet an ICMP error quotes so many bytes behind its header: the error has 576 bytes
/// then (RFC 1812, 4.3.2.3).
const QUOTED: usize = 576 - IPV4 - 8 - IPV4;

/// How long a packet of the gateway's may travel, in hops.
const HOP_LIMIT: u8 = 64;

/// Writes the header of a frame that the gateway sends.
pub fn address(frame: &mut [u8], to: EthernetAddress, ethertype: EthernetProtocol) {
    let header = EthernetRepr { src_addr: GATEWAY_MAC, dst_addr: to, ethertype };
    header.emit(&mut EthernetFrame::new_unchecked(frame));
}

/// An ARP packet of the gateway's, which speaks for an address.
pub fn arp(operation: ArpOperation, speaker: Ipv4Addr, to: (EthernetAddress, Ipv4Addr)) -> Frame {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: GATEWAY_MAC,
        source_protocol_addr: speaker,
        target_hardware_addr: if to.0.is_broadcast() { EthernetAddress([0; 6]) } else { to.0 },
        target_protocol_addr: to.1,
    };
    let mut frame = vec![0; ETHERNET + repr.buffer_len()];
    address(&mut frame, to.0, EthernetProtocol::Arp);
    repr.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
    frame
}

/// A frame around an IPv4 packet whose payload is filled in by the caller.
fn ipv4(
    mac: EthernetAddress,
    (from, to): (Ipv4Addr, Ipv4Addr),
    next_header: IpProtocol,
    payload_len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Frame {
    let repr = Ipv4Repr { src_addr: from, dst_addr: to, next_header, payload_len, hop_limit: HOP_LIMIT };
    let mut frame = vec![0; ETHERNET + IPV4 + payload_len];
    address(&mut frame, mac, EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    fill(packet.payload_mut());
    frame
}

/// A datagram, as one frame or, where it is longer than the medium, in fragments that `ident` holds
/// together.
pub fn udp(
    mac: EthernetAddress,
    from: SocketAddrV4,
    to: SocketAddrV4,
    ident: u16,
    data: &[u8],
) -> Vec<Frame> {
    let repr = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let frame = ipv4(mac, (*from.ip(), *to.ip()), IpProtocol::Udp, UDP + data.len(), |payload| {
        let caps = ChecksumCapabilities::default();
        let mut packet = UdpPacket::new_unchecked(payload);
        let (from, to) = ((*from.ip()).into(), (*to.ip()).into());
        repr.emit(&mut packet, &from, &to, data.len(), |room| room.copy_from_slice(data), &caps);
    });
    fragments(frame, ident)
}

/// Cuts a frame with an IPv4 packet that is longer than the medium.
fn fragments(frame: Frame, ident: u16) -> Vec<Frame> {
    if frame.len() <= ETHERNET + MTU {
        return vec![frame];
    }
    // A fragment's offset counts eight bytes.
    const ROOM: usize = (MTU - IPV4) & !7;
    let (header, payload) = frame.split_at(ETHERNET + IPV4);
    let count = payload.len().div_ceil(ROOM);
    let fragment = |(n, part): (usize, &[u8])| {
        let mut frame = [header, part].concat();
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]);
        packet.set_total_len((IPV4 + part.len()) as u16);
        packet.clear_flags();
        packet.set_ident(ident);
        packet.set_more_frags(n + 1 < count);
        packet.set_frag_offset((n * ROOM) as u16);
        packet.fill_checksum();
        frame
    };
    payload.chunks(ROOM).enumerate().map(fragment).collect()
}

/// An ICMP message.
pub fn icmp(mac: EthernetAddress, from: Ipv4Addr, to: Ipv4Addr, message: &Icmpv4Repr) -> Frame {
    ipv4(mac, (from, to), IpProtocol::Icmp, message.buffer_len(), |payload| {
        message.emit(&mut Icmpv4Packet::new_unchecked(payload), &ChecksumCapabilities::default());
    })
}

/// Tells the sender of a packet why it did not arrive; `from` is the host that says so.
pub fn unreachable(
    mac: EthernetAddress,
    from: Ipv4Addr,
    reason: Icmpv4DstUnreachable,
    packet: &Ipv4Packet<&[u8]>,
) -> Frame {
    let data = &packet.payload()[..packet.payload().len().min(QUOTED)];
    icmp(mac, from, packet.src_addr(), &Icmpv4Repr::DstUnreachable { reason, header: header(packet), data })
}

/// Tells the sender of a packet that it has travelled too far.
pub fn time_exceeded(mac: EthernetAddress, from: Ipv4Addr, packet: &Ipv4Packet<&[u8]>) -> Frame {
    let data = &packet.payload()[..packet.payload().len().min(QUOTED)];
    let reason = Icmpv4TimeExceeded::TtlExpired;
    icmp(mac, from, packet.src_addr(), &Icmpv4Repr::TimeExceeded { reason, header: header(packet), data })
}

/// The header of a packet, as an ICMP error quotes it.
fn header(packet: &Ipv4Packet<&[u8]>) -> Ipv4Repr {
    Ipv4Repr {
        src_addr: packet.src_addr(),
        dst_addr: packet.dst_addr(),
        next_header: packet.next_header(),
        payload_len: packet.payload().len(),
        hop_limit: packet.hop_limit(),
    }
}

/// The reset that answers a TCP segment without a connection (RFC 9293, 3.5.2); none answers a reset.
pub fn reset(mac: EthernetAddress, packet: &Ipv4Packet<&[u8]>) -> Option<Frame> {
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    if segment.rst() {
        return None;
    }
    let (seq_number, ack_number) = if segment.ack() {
        (segment.ack_number(), None)
    } else {
        (TcpSeqNumber(0), Some(segment.seq_number() + segment.segment_len()))
    };
    let repr = TcpRepr {
        src_port: segment.dst_port(),
        dst_port: segment.src_port(),
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (from, to) = (packet.dst_addr(), packet.src_addr());
    Some(ipv4(mac, (from, to), IpProtocol::Tcp, repr.buffer_len(), |payload| {
        let caps = ChecksumCapabilities::default();
        repr.emit(&mut TcpPacket::new_unchecked(payload), &from.into(), &to.into(), &caps);
    }))
}
