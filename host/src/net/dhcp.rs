//! Addresses for guests (RFC 2131).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};

use super::netboot::Netboot;
use super::{FIRST_GUEST, GATEWAY, LAST_GUEST, NETMASK};

/// The server's port.
pub const SERVER_PORT: u16 = 67;
/// The client's port.
pub const CLIENT_PORT: u16 = 68;
/// How long a guest may keep its address, in seconds.
const LEASE: u32 = 3600;
/// Old clients expect a message of at least 300 bytes (RFC 1542, 2.1).
const SHORTEST: usize = 300;

/// Options that smoltcp does not name (RFC 2132, RFC 3397).
mod option {
    pub const DNS_SERVERS: u8 = 6;
    pub const MTU: u8 = 26;
    pub const BOOT_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    pub const USER_CLASS: u8 = 77;
    pub const NTP_SERVERS: u8 = 42;
    pub const SEARCH_LIST: u8 = 119;
}

/// Where a message has the name of the file to start, and how long it can be.
const FILE_AT: usize = 108;
const FILE_LENGTH: usize = 128;
/// The user class of iPXE.
const IPXE: &[u8] = b"iPXE";

/// The addresses that guests have.
#[derive(Debug, Default)]
pub struct Leases {
    leases: HashMap<EthernetAddress, Lease>,
    newest: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    address: Ipv4Addr,
    until: Instant,
}

impl Leases {
    /// The address that was leased last.
    pub fn newest(&self) -> Option<Ipv4Addr> {
        self.newest
    }

    /// Answers a client's message. `search` is the list of domains that names are looked up in, `netboot` what the
    /// client can start from, and `taken` says whether an address is in use by another than a guest with a lease.
    pub fn answer(
        &mut self,
        message: &[u8],
        search: &[String],
        netboot: Option<&Netboot>,
        now: Instant,
        taken: impl Fn(Ipv4Addr, EthernetAddress) -> bool,
    ) -> Option<Answer> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        let mac = request.client_hardware_address;
        if !mac.is_unicast() || request.server_identifier.is_some_and(|server| server != GATEWAY) {
            return None;
        }
        let wanted = request.requested_ip.unwrap_or(request.client_ip);
        let (kind, address) = match request.message_type {
            DhcpMessageType::Discover => (DhcpMessageType::Offer, self.find(mac, wanted, now, taken)?),
            DhcpMessageType::Request => match self.find(mac, wanted, now, taken) {
                Some(address) if wanted.is_unspecified() || address == wanted => {
                    let until = now + Duration::from_secs(LEASE.into());
                    self.leases.insert(mac, Lease { address, until });
                    self.newest = Some(address);
                    (DhcpMessageType::Ack, address)
                }
                _ => (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED),
            },
            DhcpMessageType::Inform => (DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED),
            DhcpMessageType::Release | DhcpMessageType::Decline => {
                self.leases.remove(&mac);
                return None;
            }
            _ => return None,
        };
        let inform = request.message_type == DhcpMessageType::Inform;
        let to = match kind {
            DhcpMessageType::Nak => Ipv4Addr::BROADCAST,
            _ if request.client_ip.is_unspecified() => Ipv4Addr::BROADCAST,
            _ => request.client_ip,
        };
        let ipxe = packet.options().any(|option| option.kind == option::USER_CLASS && is_ipxe(option.data));
        let file = netboot.and_then(|netboot| netboot.file(ipxe));
        Some(Answer { message: reply(&request, kind, address, inform, search, file), to })
    }

    /// The address for a guest: the one it has, the one it wants, the lowest that is free, or the one that was
    /// leased longest ago to a guest that is not heard of any more: a page has another card each time.
    fn find(
        &mut self,
        mac: EthernetAddress,
        wanted: Ipv4Addr,
        now: Instant,
        taken: impl Fn(Ipv4Addr, EthernetAddress) -> bool,
    ) -> Option<Ipv4Addr> {
        if let Some(lease) = self.leases.get(&mac) {
            return Some(lease.address);
        }
        self.leases.retain(|_, lease| lease.until > now);
        let free = |address: &Ipv4Addr| {
            !taken(*address, mac) && self.leases.values().all(|lease| lease.address != *address)
        };
        let range = FIRST_GUEST.to_bits()..=LAST_GUEST.to_bits();
        let wanted = Some(wanted).filter(|wanted| range.contains(&wanted.to_bits()) && free(wanted));
        if let Some(address) = wanted.or_else(|| range.map(Ipv4Addr::from_bits).find(free)) {
            return Some(address);
        }
        let silent = self.leases.iter().filter(|(_, lease)| !taken(lease.address, mac));
        let (oldest, address) =
            silent.min_by_key(|(_, lease)| lease.until).map(|(mac, l)| (*mac, l.address))?;
        self.leases.remove(&oldest);
        Some(address)
    }
}

/// A message for a client.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The message.
    pub message: Vec<u8>,
    /// Where it goes.
    pub to: Ipv4Addr,
}

fn reply(
    request: &DhcpRepr,
    message_type: DhcpMessageType,
    your_ip: Ipv4Addr,
    inform: bool,
    search: &[String],
    file: Option<&str>,
) -> Vec<u8> {
    let search = super::dns::encode_names(search);
    let mtu = (super::packet::MTU as u16).to_be_bytes();
    let server = GATEWAY.octets();
    let boot_server = GATEWAY.to_string();
    let file = file.map(str::as_bytes).unwrap_or_default();
    let options = [
        DhcpOption { kind: option::DNS_SERVERS, data: &server },
        DhcpOption { kind: option::MTU, data: &mtu },
        DhcpOption { kind: option::NTP_SERVERS, data: &server },
        DhcpOption { kind: option::SEARCH_LIST, data: &search },
        DhcpOption {
            kind: option::BOOT_SERVER,
            data: if file.is_empty() { &[] } else { boot_server.as_bytes() },
        },
        DhcpOption { kind: option::BOOT_FILE, data: file },
    ];
    let granted = message_type != DhcpMessageType::Nak;
    let said = options.into_iter().filter(|option| granted && (1..=255).contains(&option.data.len()));
    let options: Vec<_> = said.collect();
    let lease = |part: fn(u32) -> u32| Some(part(LEASE)).filter(|_| granted && !inform);
    let repr = DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: if granted { request.client_ip } else { Ipv4Addr::UNSPECIFIED },
        your_ip,
        server_ip: if granted && !file.is_empty() { GATEWAY } else { Ipv4Addr::UNSPECIFIED },
        router: Some(GATEWAY).filter(|_| granted),
        subnet_mask: Some(NETMASK).filter(|_| granted),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: lease(|lease| lease),
        renew_duration: lease(|lease| lease / 2),
        rebind_duration: lease(|lease| lease / 8 * 7),
        additional_options: &options,
    };
    let mut message = vec![0; repr.buffer_len().max(SHORTEST)];
    // The buffer is as long as the message asks for.
    let _ = repr.emit(&mut DhcpPacket::new_unchecked(&mut message));
    // With the zero at its end; a longer name is in the option only.
    if granted && file.len() < FILE_LENGTH {
        message[FILE_AT..FILE_AT + file.len()].copy_from_slice(file);
    }
    message
}

/// Whether a client's user class is iPXE's, which it says as it is and others as a list (RFC 3004).
fn is_ipxe(class: &[u8]) -> bool {
    class == IPXE
        || class.split_first().is_some_and(|(length, class)| usize::from(*length) == 4 && class == IPXE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0, 0x22, 0x15, 1, 2, 3];

    fn message(message_type: DhcpMessageType, mac: [u8; 6], wanted: Option<[u8; 4]>) -> Vec<u8> {
        let repr = DhcpRepr {
            message_type,
            transaction_id: 0x1234_5678,
            secs: 0,
            client_hardware_address: EthernetAddress(mac),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: true,
            requested_ip: wanted.map(Ipv4Addr::from),
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).unwrap();
        bytes
    }

    fn ask(leases: &mut Leases, message: &[u8]) -> (DhcpMessageType, [u8; 4]) {
        let now = Instant::now();
        let answer = leases.answer(message, &["example.org".into()], None, now, |_, _| false).unwrap();
        assert!(answer.message.len() >= SHORTEST);
        let list = b"\x77\x0d\x07example\x03org\x00";
        let listed = answer.message.windows(list.len()).any(|part| part == list);
        let packet = DhcpPacket::new_checked(&answer.message).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(listed, repr.message_type != DhcpMessageType::Nak);
        assert_eq!((repr.transaction_id, answer.to), (0x1234_5678, Ipv4Addr::BROADCAST));
        (repr.message_type, repr.your_ip.octets())
    }

    #[test]
    fn guests_get_the_lowest_address_and_keep_it() {
        use DhcpMessageType::{Ack, Decline, Discover, Nak, Offer, Request};
        let mut leases = Leases::default();
        let other = [0, 0x22, 0x15, 9, 9, 9];
        assert_eq!(ask(&mut leases, &message(Discover, MAC, None)), (Offer, [192, 168, 127, 2]));
        assert_eq!(
            ask(&mut leases, &message(Request, MAC, Some([192, 168, 127, 2]))),
            (Ack, [192, 168, 127, 2])
        );
        assert_eq!(ask(&mut leases, &message(Discover, other, None)), (Offer, [192, 168, 127, 3]));
        assert_eq!(ask(&mut leases, &message(Discover, MAC, None)), (Offer, [192, 168, 127, 2]));
        // A guest with a lease of another run's keeps its address, if it is free.
        assert_eq!(
            ask(&mut leases, &message(Request, other, Some([192, 168, 127, 50]))),
            (Ack, [192, 168, 127, 50])
        );
        assert_eq!(ask(&mut leases, &message(Request, [2; 6], Some([192, 168, 127, 2]))), (Nak, [0; 4]));
        assert_eq!(ask(&mut leases, &message(Request, [2; 6], Some([10, 0, 2, 15]))), (Nak, [0; 4]));
        assert_eq!(
            leases.answer(&message(Decline, MAC, None), &[], None, Instant::now(), |_, _| false),
            None
        );
        let taken = |address: Ipv4Addr, _| address == FIRST_GUEST;
        let answer = leases.answer(&message(Discover, MAC, None), &[], None, Instant::now(), taken).unwrap();
        assert_eq!(answer.message[16..20], [192, 168, 127, 3]);
        assert_eq!(leases.answer(&[0; 10], &[], None, Instant::now(), |_, _| false), None);
    }

    #[test]
    fn when_all_addresses_are_leased_the_oldest_is_given_again() {
        use DhcpMessageType::Request;
        let (mut leases, start) = (Leases::default(), Instant::now());
        let mut ask = |n: u8, taken: &dyn Fn(Ipv4Addr) -> bool| {
            let now = start + Duration::from_secs(n.into());
            let answer =
                leases.answer(&message(Request, [2, 0, 0, 0, 0, n], None), &[], None, now, |a, _| taken(a));
            answer.map(|answer| answer.message[19])
        };
        for n in 2..=249 {
            assert_eq!(ask(n, &|_| false), Some(n));
        }
        assert_eq!(ask(250, &|address| address == FIRST_GUEST), Some(3));
        assert_eq!(ask(251, &|_| true), Some(0), "none, and so a refusal");
    }

    #[test]
    fn a_guest_is_told_what_to_start() {
        use DhcpMessageType::Discover;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("boot.ipxe"), "").unwrap();
        let netboot = Netboot { directory: dir.path().into(), file: None };
        let mut leases = Leases::default();
        let mut ask = |message: &[u8]| {
            let answer =
                leases.answer(message, &[], Some(&netboot), Instant::now(), |_, _| false).unwrap().message;
            let packet = DhcpPacket::new_checked(&answer).unwrap();
            let file: Vec<_> =
                packet.options().filter(|o| o.kind == option::BOOT_FILE).map(|o| o.data.to_vec()).collect();
            (packet.server_ip(), packet.get_boot_file().unwrap_or_default().to_owned(), file.concat())
        };
        let plain = message(Discover, MAC, None);
        assert_eq!(ask(&plain), (Ipv4Addr::UNSPECIFIED, String::new(), Vec::new()), "no loader");
        for class in [&b"\x04iPXE"[..], b"\x05\x04iPXE"] {
            let mut ipxe = plain.clone();
            let end = ipxe.iter().rposition(|byte| *byte == 0xff).unwrap();
            ipxe.splice(end..end, [&[option::USER_CLASS], class].concat());
            assert_eq!(ask(&ipxe), (GATEWAY, "boot.ipxe".into(), b"boot.ipxe".to_vec()));
        }
    }
}
