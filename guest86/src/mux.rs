//! Channels on a line: any number of streams both ways, each with its own flow control.
//!
//! A [`Mux`] is one end. It is given the line's bytes and says what has happened ([`Event`]); what it
//! wants to send is in [`Mux::output`]. It holds no data for a channel: what comes is in the events, and
//! what is sent has to fit ([`Mux::room`]).
//!
//! A number is free again when both ends have sent CLOSE. After that, and after its own CLOSE, an end sends
//! nothing for the channel: the Go service ends at such a frame.

use std::collections::{BTreeMap, VecDeque};

use crate::frame::{Decoder, Frame, Item, MAX_PACKET, encode_data};

/// How an end numbers its channels and what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The number of its first channel. The next ones follow, or the lowest free one does.
    pub first: u32,
    /// Numbers are used again as soon as they are free.
    pub lowest: bool,
    /// The peer may open channels.
    pub accepts: bool,
    /// Bytes that may come on a channel before it is said that more may.
    pub window: u32,
    /// Bytes that are on their way to the peer on a channel, at most, whatever the peer takes: behind a
    /// serial line is a kernel that loses what it has no room for.
    pub on_the_way: u32,
}

/// Channels that a peer may have open at once.
const MAX_CHANNELS: usize = 1024;
/// Bytes of data in a frame that is sent.
const PIECE: usize = 16 << 10;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer has opened a channel.
    Opened(u32),
    /// A channel of ours is open.
    Confirmed(u32),
    /// There is no channel for us.
    Refused(u32),
    /// Data have come. They have to be given back as [`Mux::consumed`], so that more may come.
    Data(u32, Vec<u8>),
    /// No more data come.
    Eof(u32),
    /// The peer has closed the channel. It may still send data, but takes none.
    Closed(u32),
    /// There is room for more.
    Room(u32),
    /// The peer begins anew: all channels are gone.
    Reset,
}

/// An end of a channel.
#[derive(Debug, Default)]
struct Channel {
    /// The peer's number, once it is known.
    peer: Option<u32>,
    /// Bytes that the peer takes.
    credit: u64,
    /// Bytes that were sent and that the peer has not said to have consumed.
    on_the_way: u64,
    /// Bytes that a frame to the peer may hold.
    max_packet: u32,
    /// Bytes that may still come.
    window: u32,
    /// Bytes that have been consumed and not been told.
    consumed: u32,
    sent_eof: bool,
    sent_close: bool,
    got_close: bool,
    /// It is to be closed as soon as the peer has confirmed it.
    unwanted: bool,
}

/// One end of a line.
#[derive(Debug)]
pub struct Mux {
    config: Config,
    decoder: Decoder,
    channels: BTreeMap<u32, Channel>,
    next: u32,
    output: Vec<u8>,
    events: VecDeque<Event>,
}

impl Mux {
    /// An end without channels.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            decoder: Decoder::default(),
            channels: BTreeMap::new(),
            next: config.first,
            output: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// What is to be sent: its owner takes from the front what the line has taken.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The next thing that has happened.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes until now that were no frames.
    pub fn noise(&self) -> u64 {
        self.decoder.noise()
    }

    /// The numbers of the channels.
    pub fn channels(&self) -> impl Iterator<Item = u32> + '_ {
        self.channels.keys().copied()
    }

    /// Takes what the line has brought.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut items = Vec::new();
        let channels = &self.channels;
        let knows = |to: u32| channels.get(&to).map(|channel| channel.window.min(MAX_PACKET));
        self.decoder.feed(bytes, self.config.accepts, knows, |item| items.push(item));
        for item in items {
            match item {
                Item::Frame(frame) => self.frame(frame),
                Item::Sync => self.reset(),
            }
        }
    }

    /// Takes a frame, which may be for a channel that one before it has closed.
    fn frame(&mut self, frame: Frame) {
        let event = match frame {
            Frame::Open { from, window, max_packet } => return self.opened(from, window, max_packet),
            Frame::Confirm { to, from, window, max_packet } => {
                let Some(channel) = self.channels.get_mut(&to).filter(|channel| channel.peer.is_none())
                else {
                    return;
                };
                channel.opened(from, window, max_packet);
                if channel.unwanted {
                    return self.close(to);
                }
                Event::Confirmed(to)
            }
            Frame::Failure { to } => {
                if self.channels.get(&to).is_none_or(|channel| channel.peer.is_some()) {
                    return;
                }
                self.channels.remove(&to);
                Event::Refused(to)
            }
            Frame::Adjust { to, more } => {
                let Some(channel) = self.channels.get_mut(&to) else { return };
                channel.credit += u64::from(more);
                channel.on_the_way = channel.on_the_way.saturating_sub(more.into());
                Event::Room(to)
            }
            Frame::Data { to, data } => {
                let Some(channel) = self.channels.get_mut(&to) else { return };
                channel.window = channel.window.saturating_sub(data.len() as u32);
                Event::Data(to, data)
            }
            Frame::Eof { to } => Event::Eof(to),
            Frame::Close { to } => {
                let Some(channel) = self.channels.get_mut(&to) else { return };
                channel.got_close = true;
                if channel.sent_close {
                    self.channels.remove(&to);
                }
                Event::Closed(to)
            }
        };
        self.events.push_back(event);
    }

    fn opened(&mut self, from: u32, window: u32, max_packet: u32) {
        if self.channels.len() >= MAX_CHANNELS {
            return Frame::Failure { to: from }.encode(&mut self.output);
        }
        let own = self.number();
        let mut channel = Channel { window: self.config.window, ..Channel::default() };
        channel.opened(from, window, max_packet);
        self.channels.insert(own, channel);
        let window = self.config.window;
        Frame::Confirm { to: from, from: own, window, max_packet: MAX_PACKET }.encode(&mut self.output);
        self.events.push_back(Event::Opened(own));
    }

    /// A number that is free.
    fn number(&mut self) -> u32 {
        if self.config.lowest {
            self.next = self.config.first;
        }
        while self.channels.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        number
    }

    /// Opens a channel. Nothing can be sent on it before [`Event::Confirmed`].
    pub fn open(&mut self) -> u32 {
        let own = self.number();
        let window = self.config.window;
        self.channels.insert(own, Channel { window, ..Channel::default() });
        Frame::Open { from: own, window, max_packet: MAX_PACKET }.encode(&mut self.output);
        own
    }

    /// Bytes that can be sent on a channel now.
    pub fn room(&self, id: u32) -> usize {
        let on_the_way = u64::from(self.config.on_the_way);
        match self.channels.get(&id) {
            Some(channel) if channel.can_send() => {
                channel.credit.min(on_the_way.saturating_sub(channel.on_the_way)) as usize
            }
            _ => 0,
        }
    }

    /// Nothing can be sent on this channel any more.
    pub fn is_closed(&self, id: u32) -> bool {
        self.channels.get(&id).is_none_or(|channel| channel.sent_close || channel.got_close)
    }

    /// Sends as many of these bytes as there is room for, and gives how many that is.
    pub fn send(&mut self, id: u32, data: &[u8]) -> usize {
        let len = data.len().min(self.room(id));
        let Some(channel) = self.channels.get_mut(&id) else { return 0 };
        let Some(to) = channel.peer else { return 0 };
        for piece in data[..len].chunks(PIECE.min(channel.max_packet as usize)) {
            encode_data(to, piece, &mut self.output);
        }
        channel.credit -= len as u64;
        channel.on_the_way += len as u64;
        len
    }

    /// Says that no more will be sent.
    pub fn send_eof(&mut self, id: u32) {
        if let Some(channel) = self.channels.get_mut(&id).filter(|channel| channel.can_send())
            && let Some(to) = channel.peer
        {
            channel.sent_eof = true;
            Frame::Eof { to }.encode(&mut self.output);
        }
    }

    /// Data of an [`Event::Data`] have been dealt with, and so many more may come.
    pub fn consumed(&mut self, id: u32, bytes: usize) {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| !channel.sent_close) else { return };
        channel.consumed = channel.consumed.saturating_add(bytes as u32);
        // Not for each few bytes, but before the peer has to wait.
        if channel.consumed >= self.config.window / 4 && !channel.got_close {
            let more = std::mem::take(&mut channel.consumed);
            channel.window = channel.window.saturating_add(more);
            if let Some(to) = channel.peer {
                Frame::Adjust { to, more }.encode(&mut self.output);
            }
        }
    }

    /// Has done with a channel. Data may still come until the peer has, too.
    pub fn close(&mut self, id: u32) {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| !channel.sent_close) else { return };
        let Some(to) = channel.peer else {
            channel.unwanted = true;
            return;
        };
        channel.sent_close = true;
        Frame::Close { to }.encode(&mut self.output);
        if channel.got_close {
            self.channels.remove(&id);
        }
    }

    /// Forgets a channel without a word to the peer, who does not know it any more.
    pub fn forget(&mut self, id: u32) {
        self.channels.remove(&id);
    }

    /// Forgets all channels.
    pub fn reset(&mut self) {
        self.channels.clear();
        self.output.clear();
        self.events.push_back(Event::Reset);
    }
}

impl Channel {
    fn opened(&mut self, peer: u32, window: u32, max_packet: u32) {
        self.peer = Some(peer);
        self.max_packet = max_packet;
        self.credit = window.into();
    }

    fn can_send(&self) -> bool {
        self.peer.is_some() && !self.sent_eof && !self.sent_close && !self.got_close
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Call, Reply, VERSION};
    use crate::value::{Values, to_bytes};

    /// What the Go service and its host say.
    const GO: Config =
        Config { first: 0, lowest: true, accepts: true, window: 1 << 30, on_the_way: u32::MAX };
    const HOST: Config =
        Config { first: 70_000, lowest: false, accepts: false, window: 1 << 20, on_the_way: 64 << 10 };
    const GUEST: Config =
        Config { first: 0, lowest: true, accepts: true, window: 128 << 10, on_the_way: u32::MAX };

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
        digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    fn events(mux: &mut Mux) -> Vec<Event> {
        std::iter::from_fn(|| mux.event()).collect()
    }

    /// Carries what each end has to say to the other, until they have nothing.
    fn carry(host: &mut Mux, guest: &mut Mux) {
        while !host.output().is_empty() || !guest.output().is_empty() {
            let (to_guest, to_host) = (std::mem::take(host.output()), std::mem::take(guest.output()));
            guest.feed(&to_guest);
            host.feed(&to_host);
        }
    }

    /// A host and a guest with a channel; the host's and the guest's number.
    fn pair() -> (Mux, Mux, u32, u32) {
        let (mut host, mut guest) = (Mux::new(HOST), Mux::new(GUEST));
        let id = host.open();
        carry(&mut host, &mut guest);
        assert_eq!(events(&mut host), [Event::Confirmed(id)]);
        assert_eq!(events(&mut guest), [Event::Opened(0)]);
        (host, guest, id, 0)
    }

    #[test]
    fn a_host_calls_as_the_go_host_does() {
        let mut host = Mux::new(GO);
        let id = host.open();
        assert_eq!(std::mem::take(host.output()), hex("64 00000000 40000000 01000000"));
        host.feed(&hex("65 00000000 00000000 40000000 01000000"));
        assert_eq!(events(&mut host), [Event::Confirmed(0)]);
        host.send(id, &to_bytes(&Call { method: VERSION.into() }));
        host.send(id, &to_bytes(&()));
        let wanted = "68 00000000 00000012 0000000e a1 61 53 6a 766d2e56657273696f6e
                      68 00000000 00000005 00000001 f6";
        assert_eq!(std::mem::take(host.output()), hex(wanted));
        host.feed(&hex("67 00000000 00000004 67 00000000 0000000e 67 00000000 00000004 67 00000000 00000001
             68 00000000 0000000b 00000007 a2 61 45 f6 61 43 f4
             68 00000000 00000008 00000004 63 646576
             6a 00000000"));
        let mut values = Values::default();
        for event in events(&mut host) {
            match event {
                Event::Data(0, data) => values.feed(&data),
                Event::Room(0) | Event::Closed(0) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(values.read::<Reply>().unwrap().unwrap().0, Reply::default());
        assert_eq!(values.read::<String>().unwrap().unwrap().0, "dev");
        host.close(id);
        assert_eq!(std::mem::take(host.output()), hex("6a 00000000"));
        host.close(id);
        host.consumed(id, 1 << 30);
        assert_eq!((host.output().len(), host.channels().count()), (0, 0));
    }

    #[test]
    fn a_guest_answers_as_the_go_service_does() {
        let mut guest = Mux::new(GO);
        guest.feed(&hex("64 00000000 40000000 01000000"));
        assert_eq!(std::mem::take(guest.output()), hex("65 00000000 00000000 40000000 01000000"));
        guest.feed(&hex("68 00000000 00000005 00000001 f6"));
        assert_eq!(events(&mut guest), [Event::Opened(0), Event::Data(0, hex("00000001 f6"))]);
        guest.send(0, &to_bytes(&"dev"));
        guest.close(0);
        assert_eq!(
            std::mem::take(guest.output()),
            hex("68 00000000 00000008 00000004 63 646576 6a 00000000")
        );
        // In between the host may still send; afterwards the number is free.
        guest.feed(&hex("67 00000000 00000004 6a 00000000 67 00000000 00000004 6a 00000000"));
        assert_eq!(events(&mut guest), [Event::Room(0), Event::Closed(0)]);
        guest.feed(&hex("64 00000001 40000000 01000000"));
        assert_eq!(*guest.output(), hex("65 00000001 00000000 40000000 01000000"));
    }

    #[test]
    fn small_limits_of_the_peer_are_kept() {
        let mut guest = Mux::new(GO);
        guest.feed(&hex("64 00000005 0000000a 00000009"));
        guest.output().clear();
        assert_eq!(guest.send(0, b"twelve bytes"), 10);
        assert_eq!(*guest.output(), hex("68 00000005 00000009 7477656c7665206279 68 00000005 00000001 74"));
        assert_eq!(guest.send(0, b"es"), 0);
        guest.feed(&hex("67 00000000 00000003"));
        assert_eq!(guest.room(0), 3);
    }

    #[test]
    fn no_more_is_on_the_way_than_the_line_holds() {
        let mut host = Mux::new(HOST);
        let id = host.open();
        host.feed(&hex("65 00011170 00000000 40000000 01000000"));
        assert_eq!(host.send(id, &vec![0; 1 << 20]), 64 << 10);
        host.feed(&hex("67 00011170 00000100"));
        assert_eq!(host.room(id), 0x100);
    }

    #[test]
    fn much_data_pass_both_ways() {
        let (mut host, mut guest, id, own) = pair();
        let data: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let (mut sent, mut back, mut seen) = (0, Vec::new(), Vec::new());
        while seen.len() < data.len() {
            sent += host.send(id, &data[sent..]);
            carry(&mut host, &mut guest);
            for event in events(&mut guest) {
                if let Event::Data(_, data) = event {
                    guest.consumed(own, data.len());
                    back.extend(data);
                }
            }
            let len = guest.send(own, &back);
            back.drain(..len);
            carry(&mut host, &mut guest);
            for event in events(&mut host) {
                if let Event::Data(_, data) = event {
                    host.consumed(id, data.len());
                    seen.extend(data);
                }
            }
        }
        assert!(seen == data);
        host.send_eof(id);
        host.close(id);
        carry(&mut host, &mut guest);
        let mut last = events(&mut guest);
        last.retain(|event| *event != Event::Room(own));
        assert_eq!(last, [Event::Eof(own), Event::Closed(own)]);
        guest.close(own);
        carry(&mut host, &mut guest);
        assert_eq!((host.channels().count(), guest.channels().count()), (0, 0));
        assert_eq!((host.noise(), guest.noise()), (0, 0));
    }

    #[test]
    fn a_channel_that_is_closed_before_it_is_there_is_closed_on_both_sides() {
        let (mut host, mut guest) = (Mux::new(HOST), Mux::new(GUEST));
        let id = host.open();
        host.close(id);
        carry(&mut host, &mut guest);
        assert_eq!(events(&mut guest), [Event::Opened(0), Event::Closed(0)]);
        guest.close(0);
        carry(&mut host, &mut guest);
        assert_eq!((host.channels().count(), guest.channels().count()), (0, 0));
    }

    #[test]
    fn a_new_host_comes_through_to_a_guest_that_was_saved_in_the_middle_of_anything() {
        let (mut host, mut guest, id, own) = pair();
        host.send(id, b"one");
        host.send(id, &[7; 1000]);
        guest.send(own, b"two");
        let line = std::mem::take(host.output());
        for cut in [1, 5, 9, 12, 20, 100] {
            let mut guest = Mux::new(GUEST);
            guest.feed(&hex("64 00011170 00100000 01000000"));
            guest.feed(&line[..cut]);
            let mut host = Mux::new(Config { first: 5_000_000, ..HOST });
            // What the old host was to get comes first.
            guest.send(0, b"two");
            host.output().extend(crate::frame::SYNC);
            let id = host.open();
            carry(&mut host, &mut guest);
            assert_eq!(events(&mut host), [Event::Confirmed(id)], "{cut}");
            let seen = events(&mut guest);
            assert_eq!(seen[seen.len() - 2..], [Event::Reset, Event::Opened(0)], "{cut}");
        }
    }

    #[test]
    fn a_peer_cannot_open_channels_without_end() {
        let mut guest = Mux::new(GUEST);
        for n in 0..2 * MAX_CHANNELS as u32 {
            let mut open = Vec::new();
            Frame::Open { from: n, window: 1, max_packet: 9 }.encode(&mut open);
            guest.feed(&open);
        }
        assert_eq!(guest.channels().count(), MAX_CHANNELS);
        let mut host = Mux::new(HOST);
        host.feed(&hex("64 00000000 40000000 01000000"));
        assert_eq!((host.output().len(), host.noise()), (0, 13));
    }
}
