//! Frames: a type byte, then big-endian words, then data. There is neither checksum nor escape.
//!
//! The line may carry what is no frame: a kernel's message, the rest of a frame that a saved machine was in
//! the middle of. The [`Decoder`] takes nothing for a frame that is not for a channel that its owner knows,
//! and looks for the next one byte by byte.

/// Asks for a channel.
const OPEN: u8 = 100;
const OPEN_CONFIRM: u8 = 101;
const OPEN_FAILURE: u8 = 102;
const WINDOW_ADJUST: u8 = 103;
const DATA: u8 = 104;
const EOF: u8 = 105;
const CLOSE: u8 = 106;

/// The most that a frame of data may hold, in bytes.
pub const MAX_PACKET: u32 = 16 << 20;
/// The least that a peer may set as its limit: less is no limit but an error.
const MIN_PACKET: u32 = 9;
/// The most that a peer may set as its limit when it confirms a channel.
const MAX_LIMIT: u32 = 1 << 31;
/// The most that it may when it opens one, where no number says that the bytes are a frame. Peers say
/// [`MAX_PACKET`]; four letters of a text, read as a number, are larger.
const MAX_OPEN_LIMIT: u32 = 1 << 28;

/// What a host sends first to a service that does not answer, because it was saved in the middle of a frame:
/// it ends whatever there is, wherever in a frame it comes. No frame holds it: data that do are sent as two.
///
/// The Go service knows no such thing, and ends at it. All bytes differ, and none is a frame's type.
pub const SYNC: [u8; 16] =
    [0xf5, 0x9b, 0xe1, 0x86, 0xc3, 0x8d, 0xfa, 0xb2, 0xd7, 0x94, 0xee, 0xa8, 0xcd, 0x81, 0xb9, 0xf0];

/// A frame. `to` is the number that its receiver gave the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A channel is wanted.
    Open {
        /// The number that its sender gives the channel.
        from: u32,
        /// Bytes of data that the sender takes before it says more.
        window: u32,
        /// Bytes that a frame to the sender may hold.
        max_packet: u32,
    },
    /// The channel is there.
    Confirm {
        /// The opener's number.
        to: u32,
        /// The number that the sender of this frame gives it.
        from: u32,
        /// As in [`Frame::Open`].
        window: u32,
        /// As in [`Frame::Open`].
        max_packet: u32,
    },
    /// There will be no channel.
    Failure {
        /// The opener's number.
        to: u32,
    },
    /// The sender takes more data.
    Adjust {
        /// The channel.
        to: u32,
        /// Bytes.
        more: u32,
    },
    /// Data. A decoder may give one frame in several pieces.
    Data {
        /// The channel.
        to: u32,
        /// Bytes.
        data: Vec<u8>,
    },
    /// The sender sends no more data.
    Eof {
        /// The channel.
        to: u32,
    },
    /// The sender has done with the channel.
    Close {
        /// The channel.
        to: u32,
    },
}

impl Frame {
    /// Appends the frame to a line's bytes.
    pub fn encode(&self, line: &mut Vec<u8>) {
        let mut put = |kind, words: &[u32]| {
            line.push(kind);
            words.iter().for_each(|word| line.extend(word.to_be_bytes()));
        };
        match self {
            Self::Open { from, window, max_packet } => put(OPEN, &[*from, *window, *max_packet]),
            Self::Confirm { to, from, window, max_packet } => {
                put(OPEN_CONFIRM, &[*to, *from, *window, *max_packet]);
            }
            Self::Failure { to } => put(OPEN_FAILURE, &[*to]),
            Self::Adjust { to, more } => put(WINDOW_ADJUST, &[*to, *more]),
            Self::Data { to, data } => encode_data(*to, data, line),
            Self::Eof { to } => put(EOF, &[*to]),
            Self::Close { to } => put(CLOSE, &[*to]),
        }
    }
}

/// Appends a frame of data to a line's bytes; more than one where the data hold [`SYNC`].
pub fn encode_data(to: u32, mut data: &[u8], line: &mut Vec<u8>) {
    loop {
        let len = match find_sync(data) {
            Some(at) => at + SYNC.len() / 2,
            None => data.len(),
        };
        let (piece, rest) = data.split_at(len);
        line.push(DATA);
        line.extend(to.to_be_bytes());
        line.extend((piece.len() as u32).to_be_bytes());
        line.extend(piece);
        data = rest;
        if data.is_empty() {
            return;
        }
    }
}

/// Where in a [`SYNC`] each byte is, counted from its end; for a byte that is not in it, its length.
const FROM_END: [u8; 256] = {
    let mut table = [SYNC.len() as u8; 256];
    let mut at = 0;
    while at < SYNC.len() {
        table[SYNC[at] as usize] = (SYNC.len() - 1 - at) as u8;
        at += 1;
    }
    table
};

/// Where the first [`SYNC`] is. No byte is in it twice: the one that stands where its last would be tells where the next
/// one may end, so that of most bytes each sixteenth is looked at.
fn find_sync(data: &[u8]) -> Option<usize> {
    let mut end = SYNC.len();
    while let Some(&byte) = data.get(end - 1) {
        match usize::from(FROM_END[usize::from(byte)]) {
            0 if data[..end].ends_with(&SYNC) => return Some(end - SYNC.len()),
            0 => end += SYNC.len(),
            step => end += step,
        }
    }
    None
}

/// What a line has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A frame.
    Frame(Frame),
    /// [`SYNC`].
    Sync,
}

/// Makes frames of a line's bytes, in whatever pieces they come.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes that are not a whole frame's head.
    head: Vec<u8>,
    /// The frame of data whose bytes come now, and how many are missing.
    data: Option<(u32, usize)>,
    /// So many of the last bytes are the beginning of [`SYNC`].
    sync: usize,
    /// Bytes that were no frame's.
    noise: u64,
}

/// What the bytes at the front of a line are.
enum Front {
    Frame(Frame, usize),
    Data(u32, usize),
    Noise,
    TooShort,
}

impl Decoder {
    /// Bytes until now that were not part of a frame for a known channel.
    pub fn noise(&self) -> u64 {
        self.noise
    }

    /// Takes bytes from the line and gives what they say. `knows` tells for a channel's number how many
    /// bytes of data may come in one frame, and `None` if there is no such channel; `opens` whether the peer
    /// may open channels.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        opens: bool,
        mut knows: impl FnMut(u32) -> Option<u32>,
        mut take: impl FnMut(Item),
    ) {
        while !bytes.is_empty() {
            // Up to where a SYNC ends, bytes are what they always are.
            let (len, synced) = self.scan(bytes);
            let (before, rest) = bytes.split_at(len);
            self.frames(before, opens, &mut knows, &mut take);
            bytes = rest;
            if synced {
                self.head.clear();
                self.data = None;
                take(Item::Sync);
            }
        }
    }

    /// Looks for the end of a [`SYNC`]: how many bytes there are up to it, or all of them.
    fn scan(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        // One that may have begun before these bytes.
        while self.sync > 0 && at < bytes.len() {
            // No byte is in it twice, so that a SYNC begins anew, if at all, with the byte that does not fit.
            self.sync = match bytes[at] {
                byte if byte == SYNC[self.sync] => self.sync + 1,
                byte => usize::from(byte == SYNC[0]),
            };
            at += 1;
            if self.sync == SYNC.len() {
                self.sync = 0;
                return (at, true);
            }
        }
        let rest = &bytes[at..];
        if rest.is_empty() {
            return (bytes.len(), false);
        }
        if let Some(found) = find_sync(rest) {
            return (at + found + SYNC.len(), true);
        }
        self.sync = (1..SYNC.len()).rev().find(|len| rest.ends_with(&SYNC[..*len])).unwrap_or(0);
        (bytes.len(), false)
    }

    fn frames(
        &mut self,
        mut bytes: &[u8],
        opens: bool,
        knows: &mut impl FnMut(u32) -> Option<u32>,
        take: &mut impl FnMut(Item),
    ) {
        loop {
            if let Some((to, left)) = &mut self.data {
                let len = (*left).min(bytes.len());
                if len > 0 {
                    take(Item::Frame(Frame::Data { to: *to, data: bytes[..len].to_vec() }));
                    bytes = &bytes[len..];
                    *left -= len;
                }
                if *left > 0 {
                    return;
                }
                self.data = None;
            }
            // A head has 17 bytes at most; more than that are not kept from one call to the next.
            if !self.head.is_empty() {
                let len = bytes.len().min(17);
                let kept = self.head.len();
                self.head.extend(&bytes[..len]);
                match front(&self.head, opens, knows) {
                    Front::TooShort => return,
                    Front::Noise => {
                        self.noise += 1;
                        self.head.truncate(kept);
                        self.head.remove(0);
                    }
                    Front::Frame(frame, used) => {
                        bytes = self.used(bytes, kept, used);
                        take(Item::Frame(frame));
                    }
                    Front::Data(to, len) => {
                        bytes = self.used(bytes, kept, 9);
                        self.data = Some((to, len));
                    }
                }
                continue;
            }
            match front(bytes, opens, knows) {
                Front::TooShort => {
                    self.head.extend(bytes);
                    return;
                }
                Front::Noise => {
                    self.noise += 1;
                    bytes = &bytes[1..];
                }
                Front::Frame(frame, used) => {
                    bytes = &bytes[used..];
                    take(Item::Frame(frame));
                }
                Front::Data(to, len) => {
                    bytes = &bytes[9..];
                    self.data = Some((to, len));
                }
            }
        }
    }

    /// Of the `kept` bytes of a head, and those that follow, so many are dealt with.
    fn used<'a>(&mut self, bytes: &'a [u8], kept: usize, used: usize) -> &'a [u8] {
        self.head.truncate(kept);
        self.head.drain(..used.min(kept));
        &bytes[used.saturating_sub(kept)..]
    }
}

/// What is at the front of these bytes.
fn front(bytes: &[u8], opens: bool, knows: &mut impl FnMut(u32) -> Option<u32>) -> Front {
    let Some(&kind) = bytes.first() else { return Front::TooShort };
    let words = match kind {
        OPEN if opens => 3,
        OPEN_CONFIRM => 4,
        WINDOW_ADJUST | DATA => 2,
        OPEN_FAILURE | EOF | CLOSE => 1,
        _ => return Front::Noise,
    };
    let word = |n: usize| -> Option<u32> {
        bytes.get(1 + 4 * n..5 + 4 * n).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
    };
    let Some(to) = word(0) else { return Front::TooShort };
    let limit = match kind {
        OPEN => None,
        _ => match knows(to) {
            Some(limit) => Some(limit),
            None => return Front::Noise,
        },
    };
    let Some(last) = word(words - 1) else { return Front::TooShort };
    let used = 1 + 4 * words;
    let third = word(2).unwrap_or_default();
    let frame = match kind {
        OPEN if !(MIN_PACKET..=MAX_OPEN_LIMIT).contains(&last) => return Front::Noise,
        OPEN_CONFIRM if !(MIN_PACKET..=MAX_LIMIT).contains(&last) => return Front::Noise,
        OPEN => Frame::Open { from: to, window: word(1).unwrap_or_default(), max_packet: last },
        OPEN_CONFIRM => {
            Frame::Confirm { to, from: word(1).unwrap_or_default(), window: third, max_packet: last }
        }
        OPEN_FAILURE => Frame::Failure { to },
        WINDOW_ADJUST => Frame::Adjust { to, more: last },
        DATA if limit.is_some_and(|limit| last <= limit) => return Front::Data(to, last as usize),
        DATA => return Front::Noise,
        EOF => Frame::Eof { to },
        _ => Frame::Close { to },
    };
    Front::Frame(frame, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a decoder that knows channel 7 makes of pieces of a line.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Item>, u64) {
        let (mut decoder, mut items) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.feed(piece, true, |to| (to == 7).then_some(100), |item| items.push(item));
        }
        (items, decoder.noise())
    }

    /// Pieces of data as one.
    fn joined(items: Vec<Item>) -> Vec<Item> {
        let mut all: Vec<Item> = Vec::new();
        for item in items {
            match (all.last_mut(), item) {
                (
                    Some(Item::Frame(Frame::Data { data, .. })),
                    Item::Frame(Frame::Data { data: more, .. }),
                ) => data.extend(more),
                (_, item) => all.push(item),
            }
        }
        all
    }

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Open { from: 1, window: 0x4000_0000, max_packet: MAX_PACKET },
            Frame::Confirm { to: 7, from: 2, window: 3, max_packet: 9 },
            Frame::Data { to: 7, data: b"hello".to_vec() },
            Frame::Adjust { to: 7, more: 5 },
            Frame::Eof { to: 7 },
            Frame::Failure { to: 7 },
            Frame::Close { to: 7 },
        ]
    }

    fn line(frames: &[Frame]) -> Vec<u8> {
        let mut line = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut line));
        line
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let line = line(&frames());
        let wanted: Vec<_> = frames().into_iter().map(Item::Frame).collect();
        for len in 1..line.len() + 1 {
            let (items, noise) = decode(line.chunks(len));
            assert_eq!((joined(items), noise), (wanted.clone(), 0), "{len}");
        }
    }

    #[test]
    fn what_is_no_frame_for_a_known_channel_is_passed_over() {
        let mut noisy = Vec::new();
        for frame in frames() {
            // A kernel's message; data for a channel that is not known; too much data; a bad limit.
            noisy.extend(b"[    1.5] random: crng init done\r\nghi");
            Frame::Data { to: 8, data: b"stale".to_vec() }.encode(&mut noisy);
            noisy.extend([DATA, 0, 0, 0, 7, 0, 0, 1, 0]);
            Frame::Confirm { to: 7, from: 2, window: 3, max_packet: 8 }.encode(&mut noisy);
            frame.encode(&mut noisy);
        }
        let wanted: Vec<_> = frames().into_iter().map(Item::Frame).collect();
        for len in [1, 2, 3, 5, 17, 18, 1000] {
            assert_eq!(joined(decode(noisy.chunks(len)).0), wanted, "{len}");
        }
    }

    #[test]
    fn sync_ends_a_frame_wherever_it_comes() {
        let whole = line(&[Frame::Data { to: 7, data: vec![SYNC[0]; 50] }]);
        for cut in 0..whole.len() {
            let mut bytes = whole[..cut].to_vec();
            bytes.extend(SYNC);
            Frame::Eof { to: 7 }.encode(&mut bytes);
            for len in [1, 7, 1000] {
                let (items, _) = decode(bytes.chunks(len));
                assert_eq!(
                    items[items.len() - 2..],
                    [Item::Sync, Item::Frame(Frame::Eof { to: 7 })],
                    "{cut}, {len}"
                );
            }
        }
    }

    #[test]
    fn data_that_hold_sync_are_data() {
        let data = [&SYNC[..], &SYNC[..8], &SYNC, &SYNC, b"x"].concat();
        let (items, _) = decode([&line(&[Frame::Data { to: 7, data: data.clone() }])[..]]);
        assert!(items.len() > 3);
        assert_eq!(joined(items), [Item::Frame(Frame::Data { to: 7, data })]);
    }
}
