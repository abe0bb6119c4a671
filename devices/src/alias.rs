//! Another Ethernet address for a guest than the one that it knows.
//!
//! Machines that are resumed from one state have one address, and would not find each other, nor be told apart, on a
//! network that they share. So each gets an address of its own there, and all that says the guest's is rewritten
//! on its way, as v86 does: the frames themselves, ARP, DHCP, and what neighbours say in IPv6.

use crate::checksum::{fold, sum};

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const UDP: usize = 8;
/// A client's hardware address in a DHCP message, and its options, behind 236 bytes and a magic number
/// (RFC 2131, 2).
const DHCP_CHADDR: usize = 28;
const DHCP_OPTIONS: usize = 240;
/// An option of one byte, the last one, and the client's identifier (RFC 2132).
const OPTION_PAD: u8 = 0;
const OPTION_END: u8 = 255;
const OPTION_CLIENT: u8 = 61;
/// A hardware address of Ethernet.
const HARDWARE_ETHERNET: u8 = 1;

/// The two addresses of one card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// As the guest knows it.
    pub guest: [u8; 6],
    /// As its network does.
    pub network: [u8; 6],
}

impl Alias {
    /// Rewrites a frame of the guest's.
    pub fn outward(&self, frame: &mut [u8]) {
        rewrite(frame, self.guest, self.network);
    }

    /// Rewrites a frame for the guest.
    pub fn inward(&self, frame: &mut [u8]) {
        rewrite(frame, self.network, self.guest);
    }
}

/// Puts one address in the place of another, wherever it stands.
fn rewrite(frame: &mut [u8], old: [u8; 6], new: [u8; 6]) {
    let put = |bytes: &mut [u8], at: usize| {
        let found = bytes.get_mut(at..at + 6).filter(|field| **field == old);
        found.into_iter().for_each(|field| field.copy_from_slice(&new));
    };
    put(frame, 0);
    put(frame, 6);
    let Some((header, packet)) = frame.split_at_mut_checked(ETHERNET) else { return };
    match [header[12], header[13]] {
        // ARP: the sender's address and the target's.
        [0x08, 0x06] => [8, 18].into_iter().for_each(|at| put(packet, at)),
        [0x08, 0x00] => {
            let length = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
            let Some((ip, udp)) = packet.split_at_mut_checked(length) else { return };
            if length < 20 || ip[9] != 17 || ip[6] & 0x3f != 0 || ip[7] != 0 {
                return;
            }
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            let Some(udp) = total.checked_sub(length).and_then(|length| udp.get_mut(..length)) else {
                return;
            };
            if udp.len() >= UDP
                && matches!(udp[..4], [0, 67 | 68, 0, 67 | 68])
                && rewrite_dhcp(&mut udp[UDP..], put)
                && udp[6..UDP] != [0, 0]
            {
                finish(&ip[12..20], 17, udp, 6);
            }
        }
        [0x86, 0xdd] => {
            let Some((ip, message)) = packet.split_at_mut_checked(IPV6) else { return };
            let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            let Some(message) = message.get_mut(..length) else { return };
            if ip[6] == 58 && rewrite_neighbour(message, put) {
                finish(&ip[8..40], 58, message, 2);
            }
        }
        _ => {}
    }
}

/// A DHCP message. Says whether it is long enough to be one.
fn rewrite_dhcp(message: &mut [u8], put: impl Fn(&mut [u8], usize)) -> bool {
    if message.len() < DHCP_OPTIONS {
        return false;
    }
    put(message, DHCP_CHADDR);
    let mut at = DHCP_OPTIONS;
    while let Some(&[kind, length]) = message.get(at..at + 2).and_then(|pair| pair.first_chunk()) {
        match kind {
            OPTION_END => break,
            OPTION_PAD => {
                at += 1;
                continue;
            }
            OPTION_CLIENT if length == 7 && message.get(at + 2) == Some(&HARDWARE_ETHERNET) => {
                put(message, at + 3)
            }
            _ => {}
        }
        at += 2 + usize::from(length);
    }
    true
}

/// What neighbours say in ICMP for IPv6 (RFC 4861, 4): link-layer addresses are in options. Says whether the
/// message is one of these.
fn rewrite_neighbour(message: &mut [u8], put: impl Fn(&mut [u8], usize)) -> bool {
    let mut at = match message.first() {
        Some(133) => 8,
        Some(134) => 16,
        Some(135 | 136) => 24,
        Some(137) => 40,
        _ => return false,
    };
    while let Some(&[kind, length]) = message.get(at..at + 2).and_then(|pair| pair.first_chunk()) {
        if length == 0 {
            break;
        }
        if matches!((kind, length), (1 | 2, 1)) {
            put(message, at + 2);
        }
        at += usize::from(length) * 8;
    }
    true
}

/// Makes the checksum at an offset of what is in an IP packet.
fn finish(addresses: &[u8], protocol: u8, payload: &mut [u8], at: usize) {
    payload[at..at + 2].fill(0);
    let checksum = !fold(sum(addresses) + u64::from(protocol) + payload.len() as u64 + sum(payload));
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    payload[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIAS: Alias =
        Alias { guest: [0, 0x22, 0x15, 1, 2, 3], network: [0, 0x22, 0x15, 0xaa, 0xbb, 0xcc] };
    const OTHER: [u8; 6] = [0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd];

    fn frame(to: [u8; 6], from: [u8; 6], rest: &[u8]) -> Vec<u8> {
        [&to[..], &from, rest].concat()
    }

    /// Out it says the network's address, and nothing of the guest's; back in it is as it was.
    fn there_and_back(make: impl Fn([u8; 6]) -> Vec<u8>) {
        let mut frame = make(ALIAS.guest);
        ALIAS.outward(&mut frame);
        assert_eq!(frame, make(ALIAS.network));
        ALIAS.inward(&mut frame);
        assert_eq!(frame, make(ALIAS.guest));
    }

    #[test]
    fn frames_and_arp() {
        there_and_back(|mac| frame(OTHER, mac, &[0x12, 0x34, 1, 2, 3]));
        there_and_back(|mac| frame(mac, OTHER, &[0x12, 0x34]));
        there_and_back(|mac| {
            let arp =
                [&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &[192, 168, 127, 2], &mac, &[192, 168, 127, 9]];
            frame([0xff; 6], mac, &arp.concat())
        });
        let mut others = frame(OTHER, [2; 6], &[8, 0, 1]);
        ALIAS.outward(&mut others);
        assert_eq!(others, frame(OTHER, [2; 6], &[8, 0, 1]));
    }

    #[test]
    fn dhcp_with_right_checksums() {
        there_and_back(|mac| {
            let mut message = vec![0; DHCP_OPTIONS];
            message[DHCP_CHADDR..DHCP_CHADDR + 6].copy_from_slice(&mac);
            message.extend([53, 1, 3, 0, 61, 7, 1]);
            message.extend(mac);
            // What is in another option stays.
            message.extend([12, 6]);
            message.extend(ALIAS.guest.map(|byte| byte ^ 1));
            message.extend([255, 61, 7, 1]);
            let mut udp =
                [&[0, 68, 0, 67], &((UDP + message.len()) as u16).to_be_bytes()[..], &[0, 0], &message]
                    .concat();
            let addresses = [0, 0, 0, 0, 255, 255, 255, 255];
            finish(&addresses, 17, &mut udp, 6);
            let length = ((20 + udp.len()) as u16).to_be_bytes();
            let ip = [&[0x45, 0][..], &length, &[0, 0, 0, 0, 64, 17, 0, 0], &addresses, &udp].concat();
            frame([0xff; 6], mac, &[&[8, 0][..], &ip].concat())
        });
    }

    #[test]
    fn neighbours_of_ipv6_with_right_checksums() {
        for (kind, fixed) in [(133, 8), (135, 24), (136, 24)] {
            there_and_back(|mac| {
                let mut message = vec![0; fixed];
                message[0] = kind;
                message.extend([14, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
                message.extend(mac);
                let addresses = [7; 32];
                finish(&addresses, 58, &mut message, 2);
                let ip =
                    [&[0x60, 0, 0, 0, 0, message.len() as u8, 58, 255][..], &addresses, &message].concat();
                frame([0x33; 6], mac, &[&[0x86, 0xdd][..], &ip].concat())
            });
        }
    }

    #[test]
    fn hostile_frames() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) % below
        };
        for n in 0..100_000 {
            let mut frame: Vec<u8> = (0..random(400)).map(|_| random(256) as u8).collect();
            let types = [[8, 0], [8, 6], [0x86, 0xdd]];
            let header =
                [types[n % 3][0], types[n % 3][1], 0x45, 0, 0, random(256) as u8, 58, 0, 0, 0, 58, 17];
            if frame.len() > 60 {
                frame[12..24].copy_from_slice(&header);
                frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
            }
            let length = frame.len();
            ALIAS.outward(&mut frame);
            ALIAS.inward(&mut frame);
            assert_eq!(frame.len(), length);
        }
    }
}
