//! Network interfaces: up, with an address, with routes, by the kernel's messages for that.
//!
//! Source: netlink(7), rtnetlink(7).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_DHCP: u8 = 16;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
/// The family of the messages' addresses (`AF_INET`).
const INET: u8 = 2;
/// Bytes of a message's header, and of what is in front of an address's attributes.
const HEADER: usize = 16;
const ADDRESS: usize = 8;

/// An interface.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    index: u32,
}

/// An attribute of a message.
type Attribute<'a> = (u16, &'a [u8]);

impl Link {
    /// The interface of this name.
    pub fn new(name: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let names = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        let index = name_to_index(&names, name)?;
        Ok(Self { socket, index })
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8], attributes: &[Attribute]) -> io::Result<()> {
        send(&self.socket, &message(kind, flags, body, attributes), SendFlags::empty())?;
        Ok(())
    }

    /// Asks for a change, and waits for the answer.
    fn change(&self, kind: u16, flags: u16, body: &[u8], attributes: &[Attribute]) -> io::Result<()> {
        self.send(kind, flags | NLM_F_ACK, body, attributes)?;
        let mut answer = [0; 1024];
        let (len, _) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
        let code = answer[..len].get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok());
        match code.map_or(0, i32::from_ne_bytes) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        }
    }

    /// Has it send and receive.
    pub fn up(&self) -> io::Result<()> {
        // Family and type, the interface, its flags, and which of them.
        let body: Vec<u8> = [0, self.index, IFF_UP, IFF_UP].into_iter().flat_map(u32::to_ne_bytes).collect();
        self.change(RTM_NEWLINK, 0, &body, &[])
    }

    /// What is in front of an address's attributes.
    fn address(&self, bits: u8) -> [u8; ADDRESS] {
        let mut body = [INET, bits, 0, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
        body[4..].copy_from_slice(&self.index.to_ne_bytes());
        body
    }

    /// Takes all its addresses away; their routes go with them.
    pub fn clear(&self) -> io::Result<()> {
        self.send(RTM_GETADDR, NLM_F_DUMP, &self.address(0), &[])?;
        let mut addresses = Vec::new();
        let mut answer = vec![0; 32 << 10];
        loop {
            let (len, _) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
            if !addresses_in(&answer[..len], self.index, &mut addresses) {
                break;
            }
        }
        for (address, bits) in addresses {
            self.change(RTM_DELADDR, 0, &self.address(bits), &[(IFA_LOCAL, &address.octets())])?;
        }
        Ok(())
    }

    /// Gives it an address.
    pub fn add(&self, address: Ipv4Addr, bits: u8) -> io::Result<()> {
        let own = address.octets();
        let attributes = [(IFA_LOCAL, &own[..]), (IFA_ADDRESS, &own[..])];
        self.change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &self.address(bits), &attributes)
    }

    /// All that is for no other network goes to this one.
    pub fn default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        let index = self.index.to_ne_bytes();
        let attributes = [(RTA_GATEWAY, &gateway.octets()[..]), (RTA_OIF, &index[..])];
        self.change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &route(0, RT_SCOPE_UNIVERSE), &attributes)
    }

    /// What is sent to all goes out here, although there is no address yet; or it does not any more.
    pub fn broadcast_route(&self, there: bool) -> io::Result<()> {
        let index = self.index.to_ne_bytes();
        let attributes = [(RTA_DST, &Ipv4Addr::BROADCAST.octets()[..]), (RTA_OIF, &index[..])];
        let (kind, flags) =
            if there { (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE) } else { (RTM_DELROUTE, 0) };
        self.change(kind, flags, &route(32, RT_SCOPE_LINK), &attributes)
    }
}

/// What is in front of a route's attributes.
fn route(bits: u8, scope: u8) -> [u8; 12] {
    [INET, bits, 0, 0, RT_TABLE_MAIN, RTPROT_DHCP, scope, RTN_UNICAST, 0, 0, 0, 0]
}

/// A message for the kernel.
fn message(kind: u16, flags: u16, body: &[u8], attributes: &[Attribute]) -> Vec<u8> {
    // Type, flags, sequence and sender, behind the length.
    let mut bytes = vec![0; 4];
    bytes.extend([kind, flags | NLM_F_REQUEST].into_iter().flat_map(u16::to_ne_bytes));
    bytes.extend([0; 8]);
    bytes.extend(body);
    for (kind, data) in attributes {
        bytes.extend([4 + data.len() as u16, *kind].into_iter().flat_map(u16::to_ne_bytes));
        bytes.extend(*data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// Adds the addresses of an interface that the kernel's answer has, with the bits of their networks; false at its end.
fn addresses_in(mut answer: &[u8], index: u32, addresses: &mut Vec<(Ipv4Addr, u8)>) -> bool {
    let u16_at = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    while let (Some(len), Some(kind)) = (u32_at(answer, 0), u16_at(answer, 4)) {
        let len = len as usize;
        if kind != RTM_NEWADDR || len < HEADER || len > answer.len() {
            // The end, or an error, which ends it, too.
            return false;
        }
        let body = &answer[HEADER..len];
        if u32_at(body, 4) == Some(index) && body[0] == INET {
            let mut rest = &body[ADDRESS..];
            while let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
                let len = usize::from(len);
                let Some(data) = rest.get(4..len) else { break };
                if let (IFA_LOCAL, Ok(octets)) = (kind, <[u8; 4]>::try_from(data)) {
                    addresses.push((octets.into(), body[1]));
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        answer = answer.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_kernel_s_answer() {
        let body = |index: u8| [INET, 24, 0, 0, index, 0, 0, 0];
        let own = Ipv4Addr::new(10, 0, 2, 15);
        let found = message(RTM_NEWADDR, 0, &body(2), &[(3, b"eth0\0"), (IFA_LOCAL, &own.octets())]);
        let other = message(RTM_NEWADDR, 0, &body(1), &[(IFA_LOCAL, &[127, 0, 0, 1])]);
        let mut addresses = Vec::new();
        assert!(addresses_in(&[other, found].concat(), 2, &mut addresses));
        assert_eq!(addresses, [(own, 24)]);
        let done = message(3, 0, &[0; 4], &[]);
        assert!(!addresses_in(&done, 2, &mut addresses) && addresses.len() == 1);
        assert!(addresses_in(&[], 2, &mut addresses));
    }

    #[test]
    fn attributes_are_padded() {
        let bytes = message(1, 4, &[7; 4], &[(3, b"abc"), (4, b"d")]);
        assert_eq!(bytes.len(), HEADER + 4 + 8 + 8);
        assert_eq!(bytes[..8], [36, 0, 0, 0, 1, 0, 5, 0]);
        assert_eq!(bytes[20..], [7, 0, 3, 0, b'a', b'b', b'c', 0, 5, 0, 4, 0, b'd', 0, 0, 0]);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(Link::new("no-such-card").is_err());
        Link::new("lo").unwrap();
    }
}
