//! The packets that the gateway reads and makes itself, as Ethernet frames. Both versions of IP look alike
//! from outside: an address says which is meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv4TimeExceeded, Icmpv6DstUnreachable, Icmpv6Packet,
    Icmpv6ParamProblem, Icmpv6Repr, Icmpv6TimeExceeded, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, Ipv6Packet,
    Ipv6Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use super::cable::Frame;
use super::{GATEWAY_MAC, gateway};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6: usize = 40;
/// Bytes of the extension that a fragment has (RFC 8200, 4.5).
pub const FRAGMENT: usize = 8;
/// Bytes of a UDP header.
pub const UDP: usize = 8;
/// The longest IP packet of the medium, in bytes.
pub const MTU: usize = 1500;
/// Of an offending packet an ICMP error quotes so many bytes behind its header: the error has 576 bytes
/// then (RFC 1812, 4.3.2.3), and 1280 with IPv6 (RFC 4443, 2.4).
const QUOTED: usize = 576 - IPV4 - 8 - IPV4;
const QUOTED_V6: usize = 1280 - IPV6 - 8 - IPV6;
/// Where the field for the protocol is in an IPv6 header.
const NEXT_HEADER_V6: u32 = 6;

/// How long a packet of the gateway's may travel, in hops.
const HOP_LIMIT: u8 = 64;
/// What a packet has that has not travelled at all, as neighbours expect of each other (RFC 4861).
pub const ON_LINK: u8 = 255;

/// A packet in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Whom it is from.
    pub from: IpAddr,
    /// Whom it is for.
    pub to: IpAddr,
    /// What the payload is.
    pub protocol: IpProtocol,
    /// How far it may still travel.
    pub hop_limit: u8,
    /// What is behind the header.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the packet in a frame, if it is one.
    pub fn of(frame: &'a [u8]) -> Option<Self> {
        let bytes = frame.get(ETHERNET..)?;
        match bytes.first()? >> 4 {
            4 => Some(Self::v4(&Ipv4Packet::new_checked(bytes).ok()?)),
            6 => Some(Self::v6(&Ipv6Packet::new_checked(bytes).ok()?)),
            _ => None,
        }
    }

    /// A packet of IPv4.
    pub fn v4(packet: &Ipv4Packet<&'a [u8]>) -> Self {
        Self {
            from: packet.src_addr().into(),
            to: packet.dst_addr().into(),
            protocol: packet.next_header(),
            hop_limit: packet.hop_limit(),
            payload: packet.payload(),
        }
    }

    /// A packet of IPv6.
    pub fn v6(packet: &Ipv6Packet<&'a [u8]>) -> Self {
        Self {
            from: packet.src_addr().into(),
            to: packet.dst_addr().into(),
            protocol: packet.next_header(),
            hop_limit: packet.hop_limit(),
            payload: packet.payload(),
        }
    }

    /// The segment in it.
    pub fn tcp(&self) -> Option<TcpPacket<&'a [u8]>> {
        TcpPacket::new_checked(self.payload).ok()
    }

    /// The datagram in it.
    pub fn udp(&self) -> Option<UdpPacket<&'a [u8]>> {
        UdpPacket::new_checked(self.payload).ok()
    }
}

/// Why a packet did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// There is no way to the network.
    Network,
    /// The host does not answer.
    Host,
    /// Nobody knows the protocol.
    Protocol,
    /// Nobody is at the port.
    Port,
    /// It may not.
    Prohibited,
}

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

/// A frame around a packet whose payload is filled in by the caller.
fn ip(
    mac: EthernetAddress,
    (from, to): (IpAddr, IpAddr),
    next_header: IpProtocol,
    (payload_len, hop_limit): (usize, u8),
    fill: impl FnOnce(&mut [u8]),
) -> Frame {
    let repr = IpRepr::new(from.into(), to.into(), next_header, payload_len, hop_limit);
    let mut frame = vec![0; ETHERNET + repr.buffer_len()];
    address(&mut frame, mac, ethertype(to));
    repr.emit(&mut frame[ETHERNET..], &ChecksumCapabilities::default());
    fill(&mut frame[ETHERNET + repr.header_len()..]);
    frame
}

/// What a frame with a packet for this address is.
pub fn ethertype(to: IpAddr) -> EthernetProtocol {
    if to.is_ipv4() { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 }
}

/// A datagram, as one frame or, where it is longer than the medium, in fragments that `ident` holds
/// together. Both ends are of the same version of IP.
pub fn udp(
    mac: EthernetAddress,
    from: impl Into<SocketAddr>,
    to: impl Into<SocketAddr>,
    ident: u16,
    data: &[u8],
) -> Vec<Frame> {
    let (from, to) = (from.into(), to.into());
    let repr = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let size = (UDP + data.len(), HOP_LIMIT);
    let frame = ip(mac, (from.ip(), to.ip()), IpProtocol::Udp, size, |payload| {
        let caps = ChecksumCapabilities::default();
        let mut packet = UdpPacket::new_unchecked(payload);
        let (from, to) = (from.ip().into(), to.ip().into());
        repr.emit(&mut packet, &from, &to, data.len(), |room| room.copy_from_slice(data), &caps);
    });
    match to {
        _ if frame.len() <= ETHERNET + MTU => vec![frame],
        SocketAddr::V4(_) => fragments_v4(frame, ident),
        SocketAddr::V6(_) => fragments_v6(frame, ident),
    }
}

/// Cuts a frame with an IPv4 packet that is longer than the medium.
fn fragments_v4(frame: Frame, ident: u16) -> Vec<Frame> {
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

/// Cuts a frame with an IPv6 packet that is longer than the medium.
fn fragments_v6(frame: Frame, ident: u16) -> Vec<Frame> {
    const ROOM: usize = (MTU - IPV6 - FRAGMENT) & !7;
    let (header, payload) = frame.split_at(ETHERNET + IPV6);
    let protocol = Ipv6Packet::new_unchecked(&header[ETHERNET..]).next_header();
    let count = payload.len().div_ceil(ROOM);
    let fragment = |(n, part): (usize, &[u8])| {
        let place = (n * ROOM) as u16 | u16::from(n + 1 < count);
        let mut extension = [0; FRAGMENT];
        extension[0] = protocol.into();
        extension[2..4].copy_from_slice(&place.to_be_bytes());
        extension[4..].copy_from_slice(&u32::from(ident).to_be_bytes());
        let mut frame = [header, &extension, part].concat();
        let mut packet = Ipv6Packet::new_unchecked(&mut frame[ETHERNET..]);
        packet.set_payload_len((FRAGMENT + part.len()) as u16);
        packet.set_next_header(IpProtocol::Ipv6Frag);
        frame
    };
    payload.chunks(ROOM).enumerate().map(fragment).collect()
}

/// An ICMP message.
pub fn icmp(mac: EthernetAddress, from: Ipv4Addr, to: Ipv4Addr, message: &Icmpv4Repr) -> Frame {
    let size = (message.buffer_len(), HOP_LIMIT);
    ip(mac, (from.into(), to.into()), IpProtocol::Icmp, size, |payload| {
        message.emit(&mut Icmpv4Packet::new_unchecked(payload), &ChecksumCapabilities::default());
    })
}

/// A message of ICMP for IPv6.
pub fn icmp_v6(mac: EthernetAddress, from: Ipv6Addr, to: Ipv6Addr, message: &Icmpv6Repr) -> Frame {
    let size = (message.buffer_len(), HOP_LIMIT);
    ip(mac, (from.into(), to.into()), IpProtocol::Icmpv6, size, |payload| {
        let caps = ChecksumCapabilities::default();
        message.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(payload), &caps);
    })
}

/// A message of ICMP for IPv6 for a neighbour; its checksum is made here.
pub fn neighbour_v6(mac: EthernetAddress, from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Frame {
    let size = (message.len(), ON_LINK);
    ip(mac, (from.into(), to.into()), IpProtocol::Icmpv6, size, |payload| {
        payload.copy_from_slice(message);
        Icmpv6Packet::new_unchecked(payload).fill_checksum(&from, &to);
    })
}

/// The answer to a ping, from the address that was pinged.
pub fn echo_reply(mac: EthernetAddress, request: &Packet<'_>, ident: u16, seq_no: u16, data: &[u8]) -> Frame {
    match (request.to, request.from) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            icmp_v6(mac, from, to, &Icmpv6Repr::EchoReply { ident, seq_no, data })
        }
        (from, to) => icmp(mac, v4(from), v4(to), &Icmpv4Repr::EchoReply { ident, seq_no, data }),
    }
}

/// An address of a packet that is not of IPv6.
fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// Tells the sender of a packet why it did not arrive; `from` is the host that says so.
fn refuse(mac: EthernetAddress, from: IpAddr, reason: Unreachable, packet: &Packet<'_>) -> Frame {
    use Unreachable::{Host, Network, Port, Prohibited, Protocol};
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, packet.from) else {
        let reason = match reason {
            Network => Icmpv4DstUnreachable::NetUnreachable,
            Host => Icmpv4DstUnreachable::HostUnreachable,
            Protocol => Icmpv4DstUnreachable::ProtoUnreachable,
            Port => Icmpv4DstUnreachable::PortUnreachable,
            Prohibited => Icmpv4DstUnreachable::CommProhibited,
        };
        let (header, data) = quoted_v4(packet);
        let message = Icmpv4Repr::DstUnreachable { reason, header, data };
        return icmp(mac, v4(from), v4(packet.from), &message);
    };
    let (header, data) = quoted_v6(packet);
    let unreachable = |reason| Icmpv6Repr::DstUnreachable { reason, header, data };
    let message = match reason {
        Network => unreachable(Icmpv6DstUnreachable::NoRoute),
        Host => unreachable(Icmpv6DstUnreachable::AddrUnreachable),
        Port => unreachable(Icmpv6DstUnreachable::PortUnreachable),
        Prohibited => unreachable(Icmpv6DstUnreachable::AdminProhibit),
        Protocol => Icmpv6Repr::ParamProblem {
            reason: Icmpv6ParamProblem::UnrecognizedNxtHdr,
            pointer: NEXT_HEADER_V6,
            header,
            data,
        },
    };
    icmp_v6(mac, from, to, &message)
}

/// Tells the sender of a packet that it did not arrive, and why: of a port it is the packet's destination that
/// says so, of the rest it is the gateway.
pub fn unreachable(mac: EthernetAddress, reason: Unreachable, packet: &Packet<'_>) -> Frame {
    let from = if reason == Unreachable::Port { packet.to } else { gateway(packet.from) };
    refuse(mac, from, reason, packet)
}

/// Tells the sender of a packet that it has travelled too far.
pub fn time_exceeded(mac: EthernetAddress, packet: &Packet<'_>) -> Frame {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (gateway(packet.from), packet.from) else {
        let (header, data) = quoted_v4(packet);
        let message = Icmpv4Repr::TimeExceeded { reason: Icmpv4TimeExceeded::TtlExpired, header, data };
        return icmp(mac, v4(gateway(packet.from)), v4(packet.from), &message);
    };
    let (header, data) = quoted_v6(packet);
    let reason = Icmpv6TimeExceeded::HopLimitExceeded;
    icmp_v6(mac, from, to, &Icmpv6Repr::TimeExceeded { reason, header, data })
}

/// What an ICMP error quotes of a packet: its header, and the beginning of its payload.
fn quoted_v4<'a>(packet: &Packet<'a>) -> (Ipv4Repr, &'a [u8]) {
    let header = Ipv4Repr {
        src_addr: v4(packet.from),
        dst_addr: v4(packet.to),
        next_header: packet.protocol,
        payload_len: packet.payload.len(),
        hop_limit: packet.hop_limit,
    };
    (header, &packet.payload[..packet.payload.len().min(QUOTED)])
}

fn quoted_v6<'a>(packet: &Packet<'a>) -> (Ipv6Repr, &'a [u8]) {
    let v6 = |address| match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    };
    let header = Ipv6Repr {
        src_addr: v6(packet.from),
        dst_addr: v6(packet.to),
        next_header: packet.protocol,
        payload_len: packet.payload.len(),
        hop_limit: packet.hop_limit,
    };
    (header, &packet.payload[..packet.payload.len().min(QUOTED_V6)])
}

/// The reset that answers a TCP segment without a connection (RFC 9293, 3.5.2); none answers a reset.
pub fn reset(mac: EthernetAddress, packet: &Packet<'_>) -> Option<Frame> {
    let segment = packet.tcp()?;
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
    let (from, to) = (packet.to, packet.from);
    Some(ip(mac, (from, to), IpProtocol::Tcp, (repr.buffer_len(), HOP_LIMIT), |payload| {
        let caps = ChecksumCapabilities::default();
        repr.emit(&mut TcpPacket::new_unchecked(payload), &from.into(), &to.into(), &caps);
    }))
}
