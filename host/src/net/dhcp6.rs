//! Settings for guests that ask for them by DHCP in IPv6 (RFC 8415, RFC 3646). Addresses they make themselves.

use std::net::Ipv6Addr;

use super::{GATEWAY_MAC, GATEWAY_V6};

/// Where clients look for servers.
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// The server's port, and the client's.
pub const SERVER_PORT: u16 = 547;
pub const CLIENT_PORT: u16 = 546;

/// Messages: one who asks for settings, one who asks for an address, and the answers to them.
const INFORMATION_REQUEST: u8 = 11;
const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REPLY: u8 = 7;
/// Bytes of a message's type and number.
const HEADER: usize = 4;

mod option {
    pub const CLIENT: u16 = 1;
    pub const SERVER: u16 = 2;
    pub const STATUS: u16 = 13;
    pub const DNS_SERVERS: u16 = 23;
    pub const SEARCH_LIST: u16 = 24;
    pub const TIME_SERVERS: u16 = 31;
}
/// Status: there are no addresses to be had here.
const NO_ADDRESSES: u16 = 2;

/// The name of this server: one made of its Ethernet address (RFC 8415, 11.4).
fn server() -> Vec<u8> {
    [&[0, 3, 0, 1], GATEWAY_MAC.as_bytes()].concat()
}

/// The options of a message, up to one that cannot be read.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(4)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (data, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((u16::from_be_bytes([head[0], head[1]]), data))
    })
}

/// Answers a client. `search` is the list of domains that names are looked up in.
pub fn answer(message: &[u8], search: &[String]) -> Option<Vec<u8>> {
    let (header, rest) = message.split_at_checked(HEADER)?;
    let kind = match header[0] {
        INFORMATION_REQUEST => REPLY,
        SOLICIT => ADVERTISE,
        _ => return None,
    };
    let find = |wanted| options(rest).find(|(option, _)| *option == wanted).map(|(_, data)| data);
    if find(option::SERVER).is_some_and(|wanted| wanted != server()) {
        return None;
    }
    let mut answer = vec![kind, header[1], header[2], header[3]];
    let mut add = |option: u16, data: &[u8]| {
        answer.extend(option.to_be_bytes());
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
    };
    if let Some(client) = find(option::CLIENT) {
        add(option::CLIENT, client);
    }
    add(option::SERVER, &server());
    if kind == ADVERTISE {
        add(option::STATUS, &NO_ADDRESSES.to_be_bytes());
    }
    add(option::DNS_SERVERS, &GATEWAY_V6.octets());
    add(option::TIME_SERVERS, &GATEWAY_V6.octets());
    let search = super::dns::encode_names(search);
    if !search.is_empty() {
        add(option::SEARCH_LIST, &search);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_given_and_addresses_are_not() {
        let request =
            [&[INFORMATION_REQUEST, 1, 2, 3][..], &[0, 1, 0, 2, 7, 8], &[0, 6, 0, 2, 0, 23]].concat();
        let told = answer(&request, &["example.org".into()]).unwrap();
        assert_eq!(told[..10], [REPLY, 1, 2, 3, 0, 1, 0, 2, 7, 8]);
        let find =
            |wanted| options(&told[HEADER..]).find(|(option, _)| *option == wanted).map(|(_, data)| data);
        assert_eq!(find(option::DNS_SERVERS), Some(&GATEWAY_V6.octets()[..]));
        assert_eq!(find(option::SEARCH_LIST), Some(&b"\x07example\x03org\0"[..]));
        assert_eq!(find(option::STATUS), None);
        let told = answer(&[SOLICIT, 1, 2, 3], &[]).unwrap();
        assert_eq!(options(&told[HEADER..]).find(|(o, _)| *o == option::STATUS), Some((13, &[0, 2][..])));
        assert_eq!(answer(&[INFORMATION_REQUEST, 1, 2, 3, 0, 2, 0, 1, 9], &[]), None, "another's");
        assert_eq!(answer(&[3, 1, 2, 3], &[]), None);
        for length in 0..request.len() {
            let _ = answer(&request[..length], &[]);
        }
    }
}
