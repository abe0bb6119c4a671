//! What the gateway says to neighbours in IPv6: where the network is, and where it is itself (RFC 4861, RFC 8106).
//!
//! Guests make their addresses themselves of the prefix (SLAAC); what else they need to know comes with it.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{EthernetAddress, Icmpv6Message, IpProtocol};

use super::packet::{MTU, Packet};
use super::{GATEWAY_MAC, GATEWAY_V6, HOST_V6, LINK_GATEWAY_V6, NETWORK_V6};

/// All that are on the link, as addresses of both kinds.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub const ALL_NODES_MAC: EthernetAddress = EthernetAddress([0x33, 0x33, 0, 0, 0, 1]);
/// How the addresses of frames for many begin.
const MULTICAST: [u8; 2] = [0x33, 0x33];

/// How far packets may travel that guests send.
const HOP_LIMIT: u8 = 64;
/// Flag of a router: there are other settings by DHCP.
const OTHER_SETTINGS: u8 = 0x40;
/// How long the gateway is a router and a name server, and how long the prefix holds, in seconds.
const ROUTER_LIFETIME: u16 = 1800;
const LIFETIME: u32 = 3600;
/// Flags of a prefix: it is on the link, and addresses are made of it.
const ON_LINK_AUTONOMOUS: u8 = 0xc0;

/// Options of messages.
mod option {
    pub const SOURCE_ADDRESS: u8 = 1;
    pub const TARGET_ADDRESS: u8 = 2;
    pub const PREFIX: u8 = 3;
    pub const MTU: u8 = 5;
    pub const DNS_SERVERS: u8 = 25;
    pub const SEARCH_LIST: u8 = 31;
}
/// The length of options counts so many bytes.
const UNIT: usize = 8;

/// Flags of a neighbour: a router, that was asked, and what it says now counts.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Where the address is that is asked for.
const TARGET: std::ops::Range<usize> = 8..24;

/// Whether a frame's address is one of several that IPv6 sends to.
pub fn is_multicast(address: EthernetAddress) -> bool {
    address.as_bytes().starts_with(&MULTICAST)
}

fn option(message: &mut Vec<u8>, kind: u8, data: &[&[u8]]) {
    let length: usize = 2 + data.iter().map(|part| part.len()).sum::<usize>();
    let units = length.div_ceil(UNIT);
    message.extend([kind, units as u8]);
    data.iter().for_each(|part| message.extend(*part));
    message.resize(message.len() + units * UNIT - length, 0);
}

/// The advertisement of the router, without its checksum.
pub fn router(search: &[String]) -> Vec<u8> {
    let mut message = vec![Icmpv6Message::RouterAdvert.into(), 0, 0, 0, HOP_LIMIT, OTHER_SETTINGS];
    message.extend(ROUTER_LIFETIME.to_be_bytes());
    // Neighbours are as reachable, and asked as often, as the guest likes.
    message.extend([0; 8]);
    let (bits, lifetime) = (NETWORK_V6.prefix_len(), LIFETIME.to_be_bytes());
    option(&mut message, option::SOURCE_ADDRESS, &[GATEWAY_MAC.as_bytes()]);
    option(&mut message, option::MTU, &[&[0; 2], &(MTU as u32).to_be_bytes()]);
    let prefix = NETWORK_V6.address().octets();
    option(
        &mut message,
        option::PREFIX,
        &[&[bits, ON_LINK_AUTONOMOUS], &lifetime, &lifetime, &[0; 4], &prefix],
    );
    option(&mut message, option::DNS_SERVERS, &[&[0; 2], &lifetime, &GATEWAY_V6.octets()]);
    let search = super::dns::encode_names(search);
    if !search.is_empty() {
        option(&mut message, option::SEARCH_LIST, &[&[0; 2], &lifetime, &search]);
    }
    message
}

/// Whether a frame says that who sends it is the router, or has one of the gateway's addresses.
pub fn poses_as_router(frame: &[u8]) -> bool {
    let Some(packet) = Packet::of(frame) else { return false };
    let ours = |address: IpAddr| [GATEWAY_V6, HOST_V6, LINK_GATEWAY_V6].iter().any(|own| address == *own);
    let kind = packet.payload.first().copied().map(Icmpv6Message::from);
    ours(packet.from)
        || packet.protocol == IpProtocol::Icmpv6
            && match kind {
                Some(Icmpv6Message::RouterAdvert | Icmpv6Message::Redirect) => true,
                Some(Icmpv6Message::NeighborAdvert) => {
                    solicited(packet.payload).is_some_and(|address| ours(address.into()))
                }
                _ => false,
            }
}

/// The address that a neighbour asks for.
pub fn solicited(message: &[u8]) -> Option<Ipv6Addr> {
    let target: [u8; 16] = message.get(TARGET)?.try_into().ok()?;
    Some(target.into())
}

/// That an address is the gateway's, without the checksum; `asked` by one who can be answered.
pub fn neighbour(address: Ipv6Addr, asked: bool) -> Vec<u8> {
    let flags = ROUTER | OVERRIDE | if asked { SOLICITED } else { 0 };
    let mut message = vec![Icmpv6Message::NeighborAdvert.into(), 0, 0, 0, flags, 0, 0, 0];
    message.extend(address.octets());
    option(&mut message, option::TARGET_ADDRESS, &[GATEWAY_MAC.as_bytes()]);
    message
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, NdiscRepr};

    use super::super::packet;
    use super::*;

    #[test]
    fn the_router_says_what_a_guest_needs() {
        let message = router(&["example.org".into()]);
        let mac = EthernetAddress([2; 6]);
        let frame = packet::neighbour_v6(mac, LINK_GATEWAY_V6, ALL_NODES, &message);
        let packet = packet::Packet::of(&frame).unwrap();
        assert_eq!(packet.hop_limit, packet::ON_LINK);
        let parsed = Icmpv6Packet::new_checked(packet.payload).unwrap();
        let parsed = Icmpv6Repr::parse(&LINK_GATEWAY_V6, &ALL_NODES, &parsed, &Default::default()).unwrap();
        let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { router_lifetime, lladdr, mtu, prefix_info, .. }) =
            parsed
        else {
            panic!("{parsed:?}")
        };
        assert_eq!((router_lifetime.secs(), mtu), (u64::from(ROUTER_LIFETIME), Some(1500)));
        assert_eq!(lladdr, Some(GATEWAY_MAC.into()));
        let prefix = prefix_info.unwrap();
        assert_eq!((prefix.prefix, prefix.prefix_len), (NETWORK_V6.address(), 64));
        let dns =
            [&[option::DNS_SERVERS, 3, 0, 0][..], &LIFETIME.to_be_bytes(), &GATEWAY_V6.octets()].concat();
        assert!(message.windows(dns.len()).any(|part| part == dns));
        assert!(message.ends_with(b"\x07example\x03org\0\0\0\0"), "{message:?}");
        assert!(message.len().is_multiple_of(UNIT));
    }
}
