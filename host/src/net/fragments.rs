//! Puts the fragments of the guest's IPv4 packets together again (RFC 815).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::wire::Ipv4Packet;

use super::cable::Frame;
use super::packet::{ETHERNET, IPV4};

/// Packets that are being put together.
const PACKETS: usize = 16;
/// How long a packet may lack a fragment.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest payload of a packet.
const LONGEST: usize = 65_535 - IPV4;

/// What tells the fragments of one packet from another's: source, destination, protocol and number.
type Key = (Ipv4Addr, Ipv4Addr, u8, u16);

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
        let packet = Ipv4Packet::new_checked(frame.get(ETHERNET..)?).ok()?;
        let (first, payload) = (usize::from(packet.frag_offset()), packet.payload());
        let last = first + payload.len();
        if payload.is_empty() || last > LONGEST || packet.more_frags() && last % 8 != 0 {
            return None;
        }
        let key = (packet.src_addr(), packet.dst_addr(), packet.next_header().into(), packet.ident());
        self.packets.retain(|_, packet| now.saturating_duration_since(packet.since) < PATIENCE);
        if self.packets.len() >= PACKETS && !self.packets.contains_key(&key) {
            let oldest = self.packets.iter().min_by_key(|(_, packet)| packet.since).map(|(key, _)| *key);
            self.packets.remove(&oldest?);
        }
        let known = self.packets.entry(key).or_insert_with(|| {
            let mut frame = frame[..ETHERNET + IPV4].to_vec();
            // The whole packet has no options.
            Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]).set_header_len(IPV4 as u8);
            Incomplete { since: now, frame, parts: Vec::new(), length: None }
        });
        let overlaps = known.parts.iter().any(|(from, to)| first < *to && *from < last);
        let beyond =
            known.length.is_some_and(|length| last > length || !packet.more_frags() && last != length);
        if overlaps || beyond {
            // What overlaps is an attack or a repetition; the latter comes again whole.
            self.packets.remove(&key);
            return None;
        }
        if !packet.more_frags() {
            known.length = Some(last);
        }
        let (start, end) = (ETHERNET + IPV4 + first, ETHERNET + IPV4 + last);
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
        let length = frame.len() - ETHERNET;
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]);
        packet.set_total_len(length as u16);
        packet.set_more_frags(false);
        packet.set_frag_offset(0);
        packet.fill_checksum();
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet;
    use super::*;
    use smoltcp::wire::EthernetAddress;

    fn fragments(ident: u16, length: usize) -> (Vec<u8>, Vec<Frame>) {
        let data: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let (from, to) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let frames = packet::udp(EthernetAddress([2; 6]), from, to, ident, &data);
        (data, frames)
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
