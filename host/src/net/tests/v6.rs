//! The network of IPv6 from the guest's end.

use std::net::Ipv6Addr;

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscRepr,
};

use super::super::{GATEWAY_V6, HOST_V6, LINK_GATEWAY_V6, ndp};
use super::*;

const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x222, 0x15ff, 0xfe01, 0x203);
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd5a, 0x94ef, 0xe40c, 0, 0x222, 0x15ff, 0xfe01, 0x203);

fn v6(rules: Rules) -> Config {
    Config { ipv6: true, names: NameSource::Fixed(NameSettings::default()), rules, ..Config::default() }
}

/// The loopback of the host is open.
fn open_v6() -> Config {
    v6(Rules { allow: vec!["::1".parse().unwrap()], ..Rules::default() })
}

/// Ports of the loopback are open, as those of the host. A guest's own stack does not send to the loopback's address.
fn at_host(ports: &[u16]) -> Config {
    v6(Rules { restrict: true, host_ports: ports.to_vec(), ..Rules::default() })
}

/// A guest that has made its address, as it would of what the router says.
fn guest(config: Config) -> Guest {
    let mut guest = Guest::without_address(config);
    guest.interface.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::new(ADDRESS.into(), 64)).unwrap();
    });
    guest.interface.routes_mut().add_default_ipv6_route(LINK_GATEWAY_V6).unwrap();
    guest
}

/// A message of the gateway's about something.
fn next_message<T>(
    guest: &mut Guest,
    mut wanted: impl FnMut(Ipv6Addr, Ipv6Addr, Icmpv6Repr<'_>) -> Option<T>,
) -> T {
    loop {
        let frame = guest.card.0.receiver.blocking_recv().unwrap();
        let frame = EthernetFrame::new_checked(&frame).unwrap();
        if frame.ethertype() != EthernetProtocol::Ipv6 {
            continue;
        }
        let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        let Ok(message) = Icmpv6Packet::new_checked(packet.payload()) else { continue };
        let message = Icmpv6Repr::parse(&from, &to, &message, &Default::default()).unwrap();
        if let Some(found) = wanted(from, to, message) {
            return found;
        }
    }
}

fn send(guest: &Guest, from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) {
    let mut frame = packet::neighbour_v6(ndp::ALL_NODES_MAC, from, to, message);
    frame[6..12].copy_from_slice(&MAC.0);
    guest.card.0.sender.blocking_send(frame).unwrap();
}

#[test]
fn neighbours_and_routers_are_found() {
    let mut guest = Guest::without_address(open_v6());
    let advertised = |from, to, message: Icmpv6Repr<'_>| match message {
        Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { prefix_info, .. }) => {
            assert_eq!((from, prefix_info.unwrap().prefix), (LINK_GATEWAY_V6, NETWORK_V6.address()));
            Some(to)
        }
        _ => None,
    };
    assert_eq!(next_message(&mut guest, advertised), ndp::ALL_NODES, "without being asked");
    let solicit = [133, 0, 0, 0, 0, 0, 0, 0];
    send(&guest, LINK, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), &solicit);
    assert_eq!(next_message(&mut guest, advertised), LINK);

    for (from, wanted, asked) in [
        (LINK, LINK_GATEWAY_V6, true),
        (ADDRESS, GATEWAY_V6, true),
        (LINK, HOST_V6, true),
        (Ipv6Addr::UNSPECIFIED, GATEWAY_V6, false),
    ] {
        let solicit = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &wanted.octets()].concat();
        send(&guest, from, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1), &solicit);
        let answered = next_message(&mut guest, |_, to, message| match message {
            Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) => {
                let solicited = flags.contains(smoltcp::wire::NdiscNeighborFlags::SOLICITED);
                Some((to, target_addr, solicited, lladdr))
            }
            _ => None,
        });
        let to = if asked { from } else { ndp::ALL_NODES };
        assert_eq!(answered, (to, wanted, asked, Some(GATEWAY_MAC.into())));
    }
}

/// A server on the loopback of IPv6 that gives back what it gets.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    address
}

#[test]
fn connections_and_refusals_are_as_with_ipv4() {
    let free = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
    let server = echo_server();
    let mut guest = guest(at_host(&[server.port(), free.port()]));
    let bytes = pattern(1_000_000);
    let socket = guest.connect(SocketAddr::new(HOST_V6.into(), server.port()));
    assert_eq!(guest.exchange(socket, &bytes), Some(bytes));
    for to in [(HOST_V6, free.port()), (GATEWAY_V6, 9)] {
        let socket = guest.connect(SocketAddr::from(to));
        guest.until(|guest| (guest.tcp(socket).state() == tcp::State::Closed).then_some(()));
    }
}

#[test]
fn an_open_port_leads_to_either_loopback() {
    let (v6_only, v4_only) = (echo_server(), hash_server());
    let rules =
        Rules { restrict: true, host_ports: vec![v6_only.port(), v4_only.port()], ..Rules::default() };
    let mut guest = guest(v6(rules));
    guest.set_address(FIRST_GUEST);
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        let socket = guest.connect(SocketAddr::new(host, v6_only.port()));
        assert_eq!(guest.exchange(socket, b"hello").unwrap(), b"hello", "{host}");
        let socket = guest.connect(SocketAddr::new(host, v4_only.port()));
        assert_eq!(guest.exchange(socket, b"").unwrap(), Sha256::digest(b"")[..], "{host}");
    }
}

#[test]
fn datagrams_of_every_size_go_both_ways() {
    let echo = UdpSocket::bind("[::1]:0").unwrap();
    let port = echo.local_addr().unwrap().port();
    let address = SocketAddr::new(HOST_V6.into(), port);
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            let (length, from) = echo.recv_from(&mut buffer).unwrap();
            echo.send_to(&buffer[..length], from).unwrap();
        }
    });
    let mut guest = guest(at_host(&[port]));
    let udp = guest.bind_udp(5000);
    for length in [0, 1, 1452] {
        guest.send_udp(udp, &pattern(length), address);
        let (data, from) = guest.receive_udp(udp);
        assert_eq!((data, from.port), (pattern(length), address.port()));
    }
    let time = SocketAddr::new(GATEWAY_V6.into(), 123);
    guest.send_udp(udp, &[0x23; 48], time);
    assert_eq!(guest.receive_udp(udp).0.len(), 48);
    guest.send_udp(udp, &query("host.env86.internal", 28), SocketAddr::new(GATEWAY_V6.into(), 53));
    assert_eq!(dns::addresses(&guest.receive_udp(udp).0).0, [HOST_V6]);
}

#[test]
fn what_is_denied_or_refused_is_said() {
    let mut guest = guest(open_v6());
    let free = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
    for (to, reason) in [
        (free, Icmpv6DstUnreachable::PortUnreachable),
        ("[fe80::7]:80".parse().unwrap(), Icmpv6DstUnreachable::AdminProhibit),
        ("[::ffff:127.0.0.1]:80".parse().unwrap(), Icmpv6DstUnreachable::AdminProhibit),
        (SocketAddr::new(HOST_V6.into(), 80), Icmpv6DstUnreachable::AdminProhibit),
        (SocketAddr::new(GATEWAY_V6.into(), 80), Icmpv6DstUnreachable::PortUnreachable),
    ] {
        let IpAddr::V6(address) = to.ip() else { panic!("{to}") };
        let mut frame =
            packet::udp(GATEWAY_MAC, SocketAddr::new(ADDRESS.into(), 5000), to, 1, b"x").remove(0);
        frame[6..12].copy_from_slice(&MAC.0);
        guest.card.0.sender.blocking_send(frame).unwrap();
        let said = next_message(&mut guest, |from, _, message| match message {
            Icmpv6Repr::DstUnreachable { reason, header, .. } => Some((from, reason, header.dst_addr)),
            _ => None,
        });
        let from = if reason == Icmpv6DstUnreachable::PortUnreachable { address } else { GATEWAY_V6 };
        assert_eq!(said, (from, reason, address), "{to}");
    }
}

#[test]
fn pings_are_answered() {
    let mut guest = guest(open_v6());
    for to in [GATEWAY_V6, HOST_V6, LINK_GATEWAY_V6, Ipv6Addr::LOCALHOST] {
        let from = if to == LINK_GATEWAY_V6 { LINK } else { ADDRESS };
        let request = Icmpv6Repr::EchoRequest { ident: 7, seq_no: 4, data: b"ping" };
        let mut frame = packet::icmp_v6(GATEWAY_MAC, from, to, &request);
        frame[6..12].copy_from_slice(&MAC.0);
        guest.card.0.sender.blocking_send(frame).unwrap();
        let answered = next_message(&mut guest, |answers, _, message| match message {
            Icmpv6Repr::EchoReply { ident: 7, seq_no: 4, data: b"ping" } => Some(Some(answers)),
            // Of its loopback the host says whether it lets programs ping.
            Icmpv6Repr::DstUnreachable { .. } if to.is_loopback() => Some(None),
            _ => None,
        });
        assert!(answered.is_none_or(|answers| answers == to), "{answered:?}");
    }
}

#[test]
fn without_the_flag_there_is_none() {
    let config = Config { ipv6: false, ..open_v6() };
    let mut guest = Guest::new(config);
    send(&guest, LINK, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), &[133, 0, 0, 0, 0, 0, 0, 0]);
    // What comes after it is answered, and nothing before.
    let udp = guest.bind_udp(5000);
    guest.send_udp(udp, &query("host.env86.internal", 28), SocketAddrV4::new(GATEWAY, 53));
    let (answer, _) = guest.receive_udp(udp);
    assert!(dns::addresses(&answer).0.is_empty());
    while let Ok(frame) = guest.card.0.receiver.try_recv() {
        assert_ne!(frame[12..14], [0x86, 0xdd]);
    }
}
