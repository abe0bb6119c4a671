//! Puts the fragments of the guest's packets together again (RFC 815; RFC 8200, 4.5).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use super::cable::Frame;
use super::packet::{ETHERNET, FRAGMENT, IPV4, IPV6};

/// Packets that are being put together.
const PACKETS: usize = 16;
/// How long a packet may lack a fragment.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest payload of a packet.
const LONGEST: usize = 65_535 - IPV4;

/// What tells the fragments of one packet from another's: source, destination, protocol and number.
type Key = (IpAddr, IpAddr, u8, u32);

/// A fragment.
struct Piece<'a> {
    key: Key,
    /// The headers of the frame with the whole packet, but for lengths and checksums.
    headers: Frame,
    /// Where it stands in the whole payload.
    first: usize,
    /// It is not the last.
    more: bool,
    payload: &'a [u8],
}

impl<'a> Piece<'a> {
    fn of(frame: &'a [u8]) -> Option<Self> {
        let bytes = frame.get(ETHERNET..)?;
        match bytes.first()? >> 4 {
            4 => {
                let packet = Ipv4Packet::new_checked(bytes).ok()?;
                let mut headers = frame[..ETHERNET + IPV4].to_vec();
                // The whole packet has no options.
                Ipv4Packet::new_unchecked(&mut headers[ETHERNET..]).set_header_len(IPV4 as u8);
                let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
                Some(Self {
                    key: (from, to, packet.next_header().into(), packet.ident().into()),
                    headers,
                    first: packet.frag_offset().into(),
                    more: packet.more_frags(),
                    payload: packet.payload(),
                })
            }
            _ => {
                let packet = Ipv6Packet::new_checked(bytes).ok()?;
                let (extension, payload) = packet.payload().split_at_checked(FRAGMENT)?;
                let place = u16::from_be_bytes([extension[2], extension[3]]);
                let ident = u32::from_be_bytes(extension[4..].try_into().ok()?);
                let mut headers = frame[..ETHERNET + IPV6].to_vec();
                Ipv6Packet::new_unchecked(&mut headers[ETHERNET..])
                    .set_next_header(IpProtocol::from(extension[0]));
                Some(Self {
                    key: (packet.src_addr().into(), packet.dst_addr().into(), extension[0], ident),
                    headers,
                    first: usize::from(place & !7),
                    more: place & 1 != 0,
                    payload,
                })
            }
        }
    }
}

/// Packets of which fragments are missing.
#[derive(Debug, Default)]
pub struct Fragments {
    packets: HashMap<Key, Incomplete>,
}

#[derive(Debug)]
struct Incomplete {
    since: Instant,
    /// The frame as far as it is known.
    frame: Frame,
    /// The parts of the payload that are there, in order, without overlaps.
    parts: Vec<(usize, usize)>,
    /// The length of the payload, once the last fragment is there.
    length: Option<usize>,
}

impl Fragments {
    /// Takes a frame with a fragment; gives the frame with the whole packet when it was the last
    /// that was missing.
    pub fn add(&mut self, frame: &[u8], now: Instant) -> Option<Frame> {
        let Piece { key, headers, first, more, payload } = Piece::of(frame)?;
        let last = first + payload.len();
        if payload.is_empty() || last > LONGEST || more && last % 8 != 0 {
            return None;
        }
        let before = headers.len();
        self.packets.retain(|_, packet| now.saturating_duration_since(packet.since) < PATIENCE);
        if self.packets.len() >= PACKETS && !self.packets.contains_key(&key) {
            let oldest = self.packets.iter().min_by_key(|(_, packet)| packet.since).map(|(key, _)| *key);
            self.packets.remove(&oldest?);
        }
        let known = self.packets.entry(key).or_insert_with(|| Incomplete {
            since: now,
            frame: headers,
            parts: Vec::new(),
            length: None,
        });
        let overlaps = known.parts.iter().any(|(from, to)| first < *to && *from < last);
        let beyond = known.length.is_some_and(|length| last > length || !more && last != length);
        if overlaps || beyond {
            // What overlaps is an attack or a repetition; the latter comes again whole.
            self.packets.remove(&key);
            return None;
        }
        if !more {
            known.length = Some(last);
        }
        let (start, end) = (before + first, before + last);
        if known.frame.len() < end {
            known.frame.resize(end, 0);
        }
        known.frame[start..end].copy_from_slice(payload);
        known.parts.push((first, last));
        let there: usize = known.parts.iter().map(|(from, to)| to - from).sum();
        if known.length != Some(there) {
            return None;
        }
        let mut frame = self.packets.remove(&key)?.frame;
        let bytes = &mut frame[ETHERNET..];
        let length = bytes.len();
        if key.0.is_ipv4() {
            let mut packet = Ipv4Packet::new_unchecked(bytes);
            packet.set_total_len(length as u16);
            packet.set_more_frags(false);
            packet.set_frag_offset(0);
            packet.fill_checksum();
        } else {
            Ipv6Packet::new_unchecked(bytes).set_payload_len((length - IPV6) as u16);
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet;
    use super::*;
    use smoltcp::wire::EthernetAddress;
    use std::net::SocketAddr;

    fn fragments(ident: u16, length: usize) -> (Vec<u8>, Vec<Frame>) {
        let data: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let (from, to): (SocketAddr, SocketAddr) =
            ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let frames = packet::udp(EthernetAddress([2; 6]), from, to, ident, &data);
        (data, frames)
    }

    #[test]
    fn ipv6_has_fragments_of_its_own() {
        let data: Vec<u8> = (0..5000).map(|n| n as u8).collect();
        let (from, to): (SocketAddr, SocketAddr) =
            ("[fd00::1]:1".parse().unwrap(), "[fd00::2]:2".parse().unwrap());
        let frames = packet::udp(EthernetAddress([2; 6]), from, to, 9, &data);
        assert!(frames.len() == 4 && frames.iter().all(|frame| frame.len() <= ETHERNET + packet::MTU));
        let mut together = Fragments::default();
        let now = Instant::now();
        let whole: Vec<_> = frames.iter().rev().filter_map(|frame| together.add(frame, now)).collect();
        let [whole] = &whole[..] else { panic!("{}", whole.len()) };
        let packet = packet::Packet::of(whole).unwrap();
        assert_eq!((packet.from, packet.to), (from.ip(), to.ip()));
        let datagram = packet.udp().unwrap();
        assert_eq!(datagram.payload(), data);
        assert!(datagram.verify_checksum(&packet.from.into(), &packet.to.into()));
        assert_eq!(together.add(&frames[0][..60], now), None);
    }

    #[test]
    fn fragments_come_together_in_any_order() {
        let (data, mut frames) = fragments(7, 5000);
        assert_eq!(frames.len(), 4);
        assert!(frames.iter().all(|frame| frame.len() <= ETHERNET + packet::MTU));
        frames.swap(0, 3);
        let mut together = Fragments::default();
        let now = Instant::now();
        let whole: Vec<_> = frames.iter().filter_map(|frame| together.add(frame, now)).collect();
        let [whole] = &whole[..] else { panic!("{}", whole.len()) };
        assert_eq!(whole[ETHERNET + IPV4 + packet::UDP..], data);
        assert!(Ipv4Packet::new_checked(&whole[ETHERNET..]).unwrap().verify_checksum());
        assert!(together.packets.is_empty());
    }

    #[test]
    fn incomplete_packets_take_little() {
        let mut together = Fragments::default();
        let now = Instant::now();
        for ident in 0..1000 {
            let (_, frames) = fragments(ident, 5000);
            assert_eq!(together.add(&frames[3], now), None);
        }
        assert_eq!(together.packets.len(), PACKETS);
        let (_, frames) = fragments(999, 5000);
        assert_eq!(together.add(&frames[3], now), None, "twice the same");
        assert_eq!(together.packets.len(), PACKETS - 1);
        together.add(&frames[0], now + PATIENCE);
        assert_eq!(together.packets.len(), 1);
    }
}
