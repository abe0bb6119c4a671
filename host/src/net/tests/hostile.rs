//! Frames that no honest guest sends: random ones, and good ones with changes, of all that the gateway reads.

use std::net::Ipv6Addr;

use smoltcp::wire::{ArpOperation, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

use super::super::{GATEWAY_V6, HOST_V6, LINK_GATEWAY_V6, ndp};
use super::*;

const V6: Ipv6Addr = Ipv6Addr::new(0xfd5a, 0x94ef, 0xe40c, 0, 0, 0, 0, 0x77);
/// For so many minutes `make fuzz-net` sends frames.
const MINUTES: &str = "ENV86_FUZZ_MINUTES";
/// Bytes that the process may have taken in the end beyond what it has after the first round: flows of all kinds
/// at their limits, and what the allocator keeps of them.
const MOST_MEMORY: u64 = 512 << 20;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % limit
    }
}

/// A segment that begins a connection, or goes on with one that there is not.
fn segment(from: SocketAddr, to: SocketAddr, flags: u8) -> Frame {
    let mut data = vec![0; 20];
    data[..2].copy_from_slice(&from.port().to_be_bytes());
    data[2..4].copy_from_slice(&to.port().to_be_bytes());
    (data[12], data[13], data[14]) = (0x50, flags, 0x20);
    let mut frame = packet::udp(GATEWAY_MAC, from, to, 1, &data[8..]).remove(0);
    let at = frame.len() - 20;
    frame[at..].copy_from_slice(&data);
    match from {
        SocketAddr::V4(_) => {
            let mut packet = Ipv4Packet::new_unchecked(&mut frame[packet::ETHERNET..]);
            packet.set_next_header(IpProtocol::Tcp);
            packet.fill_checksum();
        }
        SocketAddr::V6(_) => frame[packet::ETHERNET + 6] = IpProtocol::Tcp.into(),
    }
    frame
}

fn seeds(at_host: u16) -> Vec<Frame> {
    let v4 = |port| SocketAddr::new(FIRST_GUEST.into(), port);
    let v6 = |port| SocketAddr::new(V6.into(), port);
    let gateway = |port| SocketAddr::new(GATEWAY.into(), port);
    let gateway_v6 = |port| SocketAddr::new(GATEWAY_V6.into(), port);
    let echo = Icmpv4Repr::EchoRequest { ident: 1, seq_no: 1, data: b"data" };
    let echo_v6 = Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: b"data" };
    let file = b"\0\x01boot.ipxe\0octet\0blksize\x001024\0windowsize\x008\0";
    let settings = [11, 1, 2, 3, 0, 1, 0, 2, 7, 8];
    let to_all = SocketAddr::new(dhcp6::SERVERS.into(), 547);
    let from_link = SocketAddr::new("fe80::2".parse().unwrap(), 546);
    let solicit = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &GATEWAY_V6.octets()].concat();
    let link: Ipv6Addr = "fe80::2".parse().unwrap();
    let mut seeds = [
        packet::udp(GATEWAY_MAC, v4(1), gateway(53), 1, &query("a.example", 1)),
        packet::udp(GATEWAY_MAC, v6(1), gateway_v6(53), 1, &query("host.env86.internal", 28)),
        packet::udp(GATEWAY_MAC, v4(68), gateway(67), 1, &[1; 300]),
        packet::udp(GATEWAY_MAC, v4(2), gateway(69), 1, file),
        packet::udp(GATEWAY_MAC, v4(3), gateway(123), 1, &[0x23; 48]),
        packet::udp(GATEWAY_MAC, v4(1), gateway(53), 1, &[0; 4000]),
        packet::udp(GATEWAY_MAC, v6(1), gateway_v6(53), 1, &[0; 4000]),
        packet::udp(GATEWAY_MAC, v4(4), SocketAddr::new(HOST.into(), at_host), 1, b"x"),
        packet::udp(GATEWAY_MAC, from_link, to_all, 1, &settings),
        vec![packet::icmp(GATEWAY_MAC, FIRST_GUEST, GATEWAY, &echo)],
        vec![packet::icmp_v6(GATEWAY_MAC, V6, GATEWAY_V6, &echo_v6)],
        vec![packet::icmp_v6(GATEWAY_MAC, V6, HOST_V6, &echo_v6)],
        vec![packet::neighbour_v6(GATEWAY_MAC, link, LINK_GATEWAY_V6, &solicit)],
        vec![packet::neighbour_v6(GATEWAY_MAC, link, ndp::ALL_NODES, &[133, 0, 0, 0, 0, 0, 0, 0])],
        vec![packet::arp(ArpOperation::Request, FIRST_GUEST, (GATEWAY_MAC, GATEWAY))],
    ]
    .concat();
    for flags in [0x02, 0x10, 0x11, 0x04, 0x12] {
        seeds.push(segment(v4(9), SocketAddr::new(HOST.into(), at_host), flags));
        seeds.push(segment(v6(9), SocketAddr::new(HOST_V6.into(), at_host), flags));
        seeds.push(segment(v4(10), gateway(53), flags));
    }
    seeds
}

/// Makes the checksums of a frame right, so that what is behind them is read.
fn make_whole(frame: &mut [u8]) {
    let Some(bytes) = frame.get_mut(packet::ETHERNET..) else { return };
    if let Ok(mut packet) = Ipv4Packet::new_checked(&mut *bytes)
        && packet.version() == 4
        && packet.header_len() >= 20
    {
        packet.fill_checksum();
    }
    let Some(packet) = packet::Packet::of(frame) else { return };
    let (from, to, protocol, length) = (packet.from, packet.to, packet.protocol, packet.payload.len());
    let at = frame.len() - length;
    let payload = &mut frame[at..];
    match (protocol, from, to) {
        (IpProtocol::Udp, ..) => {
            if let Ok(mut datagram) = UdpPacket::new_checked(payload) {
                datagram.fill_checksum(&from.into(), &to.into());
            }
        }
        (IpProtocol::Tcp, ..) => {
            if let Ok(mut segment) = TcpPacket::new_checked(payload) {
                segment.fill_checksum(&from.into(), &to.into());
            }
        }
        (IpProtocol::Icmpv6, IpAddr::V6(from), IpAddr::V6(to)) => {
            if let Ok(mut message) = Icmpv6Packet::new_checked(payload) {
                message.fill_checksum(&from, &to);
            }
        }
        (IpProtocol::Icmp, ..) => {
            if let Ok(mut message) = Icmpv4Packet::new_checked(payload) {
                message.fill_checksum();
            }
        }
        _ => {}
    }
}

/// Bytes of memory that this process has, where the system tells.
fn memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    resident.unwrap_or(0) * 4096
}

fn floods(mut more: impl FnMut(usize) -> bool) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("boot.ipxe"), pattern(100_000)).unwrap();
    // Nothing but this may be reached, whatever the frames say.
    let at_host = silent.local_addr().unwrap().port();
    let rules = Rules { restrict: true, host_ports: vec![at_host], ..Rules::default() };
    let (network, port) = Network::start(Config {
        names: NameSource::Fixed(NameSettings::default()),
        ipv6: true,
        netboot: Some(Netboot { directory: dir.path().into(), file: None }),
        rules,
        ..Config::default()
    })
    .unwrap();
    let Port { sender, mut receiver } = port;
    let drain = thread::spawn(move || while receiver.blocking_recv().is_some() {});
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let seeds = seeds(at_host);
    let (mut round, mut after_first) = (0, 0);
    while more(round) {
        for _ in 0..100_000 {
            let mut frame = seeds[random.below(seeds.len())].clone();
            frame[6..12].copy_from_slice(&MAC.0);
            if random.below(3) == 0 {
                // Other ends of the same kind: many flows.
                let ports = match frame[12..14] {
                    [8, 0] => 34,
                    _ => 54,
                };
                if let Some(port) = frame.get_mut(ports..ports + 2) {
                    port.copy_from_slice(&(random.below(65_536) as u16).to_be_bytes());
                }
            } else {
                for _ in 0..random.below(6) {
                    let at = random.below(frame.len());
                    frame[at] = random.below(256) as u8;
                }
                if random.below(4) == 0 {
                    frame.truncate(random.below(frame.len() + 1));
                }
            }
            if random.below(4) != 0 {
                make_whole(&mut frame);
            }
            sender.blocking_send(frame).unwrap();
        }
        if round == 0 {
            after_first = memory();
        }
        let grown = memory().saturating_sub(after_first);
        assert!(grown < MOST_MEMORY, "{grown} bytes more after round {round}");
        round += 1;
    }
    drop((sender, network));
    drain.join().unwrap();
}

#[test]
fn hostile_frames_do_no_harm() {
    floods(|round| round < 1);
}

#[test]
#[ignore = "as long as one likes; make fuzz-net"]
fn hostile_frames_for_long() {
    let minutes = std::env::var(MINUTES).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(60);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    floods(|_| Instant::now() < end);
}
