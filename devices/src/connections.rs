//! The guest's TCP connections, as the frames at its network card tell of them.
//!
//! A machine that is resumed has lost its connections: whoever was at their other ends has gone on, or is
//! gone. A guest that only waits for data would never notice, so that each connection of a state is
//! ended: its guest's end gets a reset with the number that it expects next, which is the only one that ends
//! it at once (RFC 5961, 3.2). Where that number is not known well, since data were under way at the
//! save, a probe as for keeping a connection alive makes the guest say it (RFC 9293, 3.8.4), and the network
//! resets what it does not know.

use crate::checksum::{fold, sum};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};

/// Connections that are remembered. A guest that has more does not hear of the end of the others until it
/// sends.
pub const MOST: usize = 4096;
/// Connections that both sides have closed and that are still remembered: their last segments must not look like those
/// of new ones.
const CLOSED: usize = 256;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const PROTOCOL_TCP: u8 = 6;
const HOP_LIMIT: u8 = 64;

/// Flags of a segment.
mod flag {
    pub const FIN: u8 = 1 << 0;
    pub const SYN: u8 = 1 << 1;
    pub const RST: u8 = 1 << 2;
    pub const ACK: u8 = 1 << 4;
}

/// A connection, by both its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ends {
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other.
    pub remote: SocketAddr,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The guest's Ethernet address.
    pub guest_mac: [u8; 6],
    /// That of the neighbour through which the guest reaches the other end.
    pub remote_mac: [u8; 6],
    /// The number that the guest expects next, as it has said last.
    pub expected: u32,
    /// The number that the guest sends next.
    pub next: u32,
    /// The guest has sent its last byte.
    guest_done: bool,
    /// The other end has.
    remote_done: bool,
}

impl Connection {
    /// A connection that goes on.
    pub fn new(guest_mac: [u8; 6], remote_mac: [u8; 6], expected: u32, next: u32) -> Self {
        Self { guest_mac, remote_mac, expected, next, guest_done: false, remote_done: false }
    }

    fn is_closed(&self) -> bool {
        self.guest_done && self.remote_done
    }
}

/// All of a guest's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Those that there are.
    live: BTreeMap<Ends, Connection>,
    /// Those of them that may have been closed by both sides.
    closed: VecDeque<Ends>,
    /// Those of the state that the machine was resumed from which are still to be ended.
    pub lost: BTreeMap<Ends, Connection>,
    /// A frame for the guest that its card had no room for.
    waiting: VecDeque<Vec<u8>>,
}

impl Connections {
    /// Those of a machine that is resumed with these: all are lost.
    pub fn of_state(lost: BTreeMap<Ends, Connection>) -> Self {
        Self { lost, ..Self::default() }
    }

    /// Takes note of a frame that the guest has sent.
    pub fn sent(&mut self, frame: &[u8]) {
        let Some(segment) = Segment::of(frame) else { return };
        let ends = Ends { guest: segment.from, remote: segment.to };
        if segment.flags & (flag::RST | flag::ACK) != flag::ACK {
            // Without an acknowledgement it is the first of a connection. What was there before is no more.
            self.live.remove(&ends);
            return;
        }
        let full = self.live.len() >= MOST;
        let new = Connection::new(segment.from_mac, segment.to_mac, 0, 0);
        let connection = match self.live.entry(ends) {
            std::collections::btree_map::Entry::Vacant(_) if full => return,
            entry => entry.or_insert(new),
        };
        connection.expected = segment.acknowledged;
        connection.next = segment.end;
        if segment.flags & flag::FIN != 0 && !connection.guest_done {
            connection.guest_done = true;
            self.note_closed(ends);
        }
    }

    /// Takes note of a frame for the guest.
    pub fn received(&mut self, frame: &[u8]) {
        let Some(segment) = Segment::of(frame) else { return };
        if segment.flags & (flag::SYN | flag::RST | flag::FIN) == 0 {
            return;
        }
        let ends = Ends { guest: segment.to, remote: segment.from };
        if segment.flags & flag::RST != 0 || segment.flags & (flag::SYN | flag::ACK) == flag::SYN {
            self.live.remove(&ends);
        } else if segment.flags & flag::FIN != 0
            && let Some(connection) = self.live.get_mut(&ends).filter(|connection| !connection.remote_done)
        {
            connection.remote_done = true;
            self.note_closed(ends);
        }
    }

    /// Forgets the oldest of those that are closed, when there are many.
    fn note_closed(&mut self, ends: Ends) {
        if !self.live.get(&ends).is_some_and(Connection::is_closed) {
            return;
        }
        self.closed.push_back(ends);
        if self.closed.len() > CLOSED
            && let Some(oldest) = self.closed.pop_front()
            && self.live.get(&oldest).is_some_and(Connection::is_closed)
        {
            self.live.remove(&oldest);
        }
    }

    /// Those that a machine in this state has: what a state of it says.
    pub fn open(&self) -> impl Iterator<Item = (&Ends, &Connection)> {
        let live = self.live.iter().filter(|(_, connection)| !connection.is_closed());
        let lost = self.lost.iter().filter(|(ends, _)| !self.live.contains_key(ends));
        live.chain(lost).take(MOST)
    }

    /// Whether frames of [`Self::next_ending`] are to be given to the guest.
    pub fn any_lost(&self) -> bool {
        !self.lost.is_empty() || !self.waiting.is_empty()
    }

    /// The next frame for the guest that ends a lost connection.
    pub fn next_ending(&mut self) -> Option<Vec<u8>> {
        if self.waiting.is_empty()
            && let Some((ends, connection)) = self.lost.pop_first()
            // A new one between the same ends is none that was lost.
            && !self.live.contains_key(&ends)
        {
            self.waiting.extend(endings(&ends, &connection));
        }
        self.waiting.pop_front()
    }

    /// A frame of [`Self::next_ending`] that found no room.
    pub fn put_back(&mut self, frame: Vec<u8>) {
        self.waiting.push_front(frame);
    }
}

/// What ends a connection at the guest: the reset, and the probe.
fn endings(ends: &Ends, connection: &Connection) -> [Vec<u8>; 2] {
    [
        segment(ends, connection, flag::RST, connection.expected, 0),
        segment(ends, connection, flag::ACK, connection.expected.wrapping_sub(1), connection.next),
    ]
}

/// A segment without data for the guest.
fn segment(ends: &Ends, connection: &Connection, flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(TCP);
    tcp.extend(ends.remote.port().to_be_bytes());
    tcp.extend(ends.guest.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledged.to_be_bytes());
    // The header's length in doublewords; a window; no checksum yet, nothing urgent.
    tcp.extend([(TCP as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);

    let (ethertype, mut ip) = match (ends.remote.ip(), ends.guest.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = vec![0x45, 0, 0, (IPV4 + TCP) as u8, 0, 0, 0x40, 0, HOP_LIMIT, PROTOCOL_TCP, 0, 0];
            ip.extend(from.octets());
            ip.extend(to.octets());
            let checksum = !fold(sum(&ip));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            (ETHERTYPE_IPV4, ip)
        }
        (from, to) => {
            let v6 = |address| match address {
                IpAddr::V6(address) => address,
                IpAddr::V4(address) => address.to_ipv6_mapped(),
            };
            let mut ip = vec![0x60, 0, 0, 0, 0, TCP as u8, PROTOCOL_TCP, HOP_LIMIT];
            ip.extend(v6(from).octets());
            ip.extend(v6(to).octets());
            (ETHERTYPE_IPV6, ip)
        }
    };
    // The pseudo header: addresses, protocol, length.
    let addresses = if ip.len() == IPV4 { &ip[12..] } else { &ip[8..] };
    let checksum = !fold(sum(addresses) + u64::from(PROTOCOL_TCP) + TCP as u64 + sum(&tcp));
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = [connection.guest_mac, connection.remote_mac].concat();
    frame.extend(ethertype);
    frame.append(&mut ip);
    frame.append(&mut tcp);
    frame
}

/// What is looked at of a TCP segment in a frame.
struct Segment {
    from_mac: [u8; 6],
    to_mac: [u8; 6],
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    /// What it acknowledges: the number that its sender expects next.
    acknowledged: u32,
    /// The number behind its data.
    end: u32,
}

impl Segment {
    /// The segment in a frame, if there is one. One that comes in fragments is none.
    fn of(frame: &[u8]) -> Option<Self> {
        let (to_mac, rest) = frame.split_first_chunk()?;
        let (from_mac, rest) = rest.split_first_chunk()?;
        let (ethertype, ip) = rest.split_first_chunk::<2>()?;
        let (from, to, tcp, length): (IpAddr, IpAddr, _, _) = match *ethertype {
            ETHERTYPE_IPV4 => {
                let header: &[u8; IPV4] = ip.first_chunk()?;
                let length = usize::from(header[0] & 15) * 4;
                let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
                if header[0] >> 4 != 4 || header[9] != PROTOCOL_TCP || fragment != 0 {
                    return None;
                }
                let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
                let [from, to] = [12, 16].map(|at| Ipv4Addr::from(field::<4>(header, at)));
                (from.into(), to.into(), ip.get(length..)?, total.checked_sub(length)?)
            }
            ETHERTYPE_IPV6 => {
                let header: &[u8; IPV6] = ip.first_chunk()?;
                if header[0] >> 4 != 6 || header[6] != PROTOCOL_TCP {
                    return None;
                }
                let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
                let [from, to] = [8, 24].map(|at| Ipv6Addr::from(field::<16>(header, at)));
                (from.into(), to.into(), &ip[IPV6..], length)
            }
            _ => return None,
        };
        let header: &[u8; TCP] = tcp.first_chunk()?;
        let word = |at| u16::from_be_bytes(field(header, at));
        let number = |at| u32::from_be_bytes(field(header, at));
        let flags = header[13];
        let data = length.checked_sub(usize::from(header[12] >> 4) * 4)?;
        let counted = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
        Some(Self {
            from_mac: *from_mac,
            to_mac: *to_mac,
            from: SocketAddr::new(from, word(0)),
            to: SocketAddr::new(to, word(2)),
            flags,
            acknowledged: number(8),
            end: number(4).wrapping_add(data as u32).wrapping_add(counted),
        })
    }
}

/// The bytes of a field within a header.
fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    core::array::from_fn(|i| header[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: usize = 14;
    const GUEST: [u8; 6] = [0, 0x22, 0x15, 1, 2, 3];
    const GATEWAY: [u8; 6] = [0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd];

    fn ends(v6: bool, port: u16) -> Ends {
        let (guest, remote) = if v6 {
            ("fd5a:94ef:e40c::2".parse().unwrap(), "2001:db8::1".parse().unwrap())
        } else {
            ("192.168.127.2".parse().unwrap(), "192.0.2.1".parse().unwrap())
        };
        Ends { guest: SocketAddr::new(guest, port), remote: SocketAddr::new(remote, 80) }
    }

    /// A segment of the guest's.
    fn from_guest(ends: &Ends, flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
        let turned = Ends { guest: ends.remote, remote: ends.guest };
        segment(&turned, &Connection::new(GATEWAY, GUEST, 0, 0), flags, sequence, acknowledged)
    }

    fn for_guest(ends: &Ends, flags: u8) -> Vec<u8> {
        segment(ends, &Connection::new(GUEST, GATEWAY, 0, 0), flags, 0, 0)
    }

    fn resumed(connections: &Connections) -> Connections {
        Connections::of_state(connections.open().map(|(e, c)| (*e, *c)).collect())
    }

    #[test]
    fn a_lost_connection_gets_a_reset_with_the_number_that_the_guest_expects() {
        for v6 in [false, true] {
            let ends = ends(v6, 40_000);
            let mut connections = Connections::default();
            connections.sent(&from_guest(&ends, flag::SYN, 99, 0));
            assert_eq!(connections.open().count(), 0, "the guest asks again by itself");
            connections.received(&for_guest(&ends, flag::SYN | flag::ACK));
            connections.sent(&from_guest(&ends, flag::ACK, 100, 5000));
            connections.sent(&from_guest(&ends, flag::ACK, 100, 7000));
            let mut connections = resumed(&connections);
            assert!(connections.any_lost());
            let reset = connections.next_ending().unwrap();
            connections.put_back(reset);
            assert_eq!(connections.open().count(), 0, "it has been ended");
            let frames: Vec<_> = std::iter::from_fn(|| connections.next_ending()).collect();
            assert!(!connections.any_lost());
            let [reset, probe] = [0, 1].map(|n| Segment::of(&frames[n]).unwrap());
            assert_eq!(
                (reset.flags, reset.end, reset.to_mac, reset.from_mac),
                (flag::RST, 7000, GUEST, GATEWAY)
            );
            assert_eq!((reset.from, reset.to), (ends.remote, ends.guest));
            assert_eq!((probe.flags, probe.end, probe.acknowledged), (flag::ACK, 6999, 100));
            // Checksums are right where they sum up to nothing.
            for frame in frames {
                let ip = &frame[ETHERNET..];
                let (header, addresses) = if v6 { (IPV6, 8) } else { (IPV4, 12) };
                assert!(v6 || fold(sum(&ip[..IPV4])) == 0xffff);
                let pseudo = sum(&ip[addresses..header]) + u64::from(PROTOCOL_TCP) + TCP as u64;
                assert_eq!(fold(pseudo + sum(&ip[header..])), 0xffff);
            }
        }
    }

    #[test]
    fn what_has_ended_is_no_connection() {
        let mut connections = Connections::default();
        let all: Vec<_> = (0..4).map(|n| ends(false, 40_000 + n)).collect();
        for ends in &all {
            connections.sent(&from_guest(ends, flag::ACK, 1, 1));
        }
        // One is reset by the other end, one by the guest, one is closed by both and one by one side.
        connections.received(&for_guest(&all[0], flag::RST));
        connections.sent(&from_guest(&all[1], flag::RST | flag::ACK, 1, 1));
        connections.received(&for_guest(&all[2], flag::FIN | flag::ACK));
        connections.sent(&from_guest(&all[2], flag::FIN | flag::ACK, 1, 2));
        connections.sent(&from_guest(&all[2], flag::ACK, 2, 2));
        connections.sent(&from_guest(&all[3], flag::FIN | flag::ACK, 1, 2));
        assert_eq!(connections.open().map(|(ends, _)| *ends).collect::<Vec<_>>(), [all[3]]);
        // A new one begins between the ends of one that was closed.
        connections.sent(&from_guest(&all[2], flag::SYN, 7, 0));
        connections.sent(&from_guest(&all[2], flag::ACK, 8, 9));
        assert_eq!(connections.open().count(), 2);
    }

    #[test]
    fn a_new_connection_between_the_same_ends_is_left_alone() {
        let mut connections = Connections::default();
        connections.sent(&from_guest(&ends(false, 40_000), flag::ACK, 1, 1));
        let mut connections = resumed(&connections);
        connections.sent(&from_guest(&ends(false, 40_000), flag::ACK, 50, 60));
        assert_eq!((connections.open().count(), connections.next_ending()), (1, None));
        assert!(!connections.any_lost());
    }

    #[test]
    fn a_guest_cannot_make_it_grow() {
        let mut connections = Connections::default();
        for n in 0..3 * MOST as u32 {
            let ends = ends(false, (n % 60_000) as u16 + 1);
            connections.sent(&from_guest(&ends, flag::ACK, n, n));
        }
        assert_eq!(connections.live.len(), MOST);
        for n in 0..3 * MOST as u32 {
            let ends = ends(false, (n % 60_000) as u16 + 1);
            connections.sent(&from_guest(&ends, flag::ACK, n, n));
            connections.received(&for_guest(&ends, flag::FIN | flag::ACK));
            connections.sent(&from_guest(&ends, flag::FIN | flag::ACK, n, n));
        }
        assert!(connections.live.len() <= MOST && connections.closed.len() <= CLOSED);
        // Frames of any kind and length.
        let whole = from_guest(&ends(false, 9), flag::ACK, 1, 1);
        for length in 0..whole.len() {
            for value in [0, 0x0f, 0x4f, 0xff] {
                let mut frame = whole[..length].to_vec();
                frame.iter_mut().skip(ETHERNET).step_by(3).for_each(|byte| *byte = value);
                connections.sent(&frame);
                connections.received(&frame);
            }
        }
    }
}
