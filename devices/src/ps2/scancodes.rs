//! Scan codes: the keys of a keyboard and what the three sets call them.
//!
//! A key goes by its code in set 1 (what a PC program sees), with a flag for those behind an E0
//! prefix. Set 2 follows from the controller's translation table read backwards; set 3 has a table
//! of its own.
//!
//! Source: IBM PS/2 hardware interface technical reference, keyboards 101 and 102.

/// Prefix of the keys that the AT keyboard added.
pub const EXTENDED: u8 = 0xe0;
/// Prefix of the Pause key.
pub const EXTENDED_1: u8 = 0xe1;
/// Prefix of a release in sets 2 and 3.
pub const BREAK: u8 = 0xf0;
/// The bit of a release in set 1.
pub const SET1_BREAK: u8 = 0x80;

/// The Pause key's press in set 1 after its prefix.
const PAUSE_SET1: [u8; 2] = [0x1d, 0x45];

/// What the controller turns bytes 00h to 7Fh from the keyboard into.
static TRANSLATION: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29,
    0x59, // 00
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03,
    0x5b, // 10
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06,
    0x5d, // 20
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09,
    0x5f, // 30
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c,
    0x61, // 40
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63,
    0x76, // 50
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f,
    0x6f, // 60
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46,
    0x54, // 70
];
/// The two codes of set 2 beyond the table: F7, and SysRq.
const TRANSLATION_BEYOND: [(u8, u8); 2] = [(0x83, 0x41), (0x84, 0x54)];

/// What the controller makes of a byte from the keyboard when it translates. BREAK is not for this
/// function: the controller swallows it and sets bit 7 of the next.
pub fn translate(byte: u8) -> u8 {
    match TRANSLATION.get(usize::from(byte)) {
        Some(&code) => code,
        None => TRANSLATION_BEYOND.iter().find(|(set2, _)| *set2 == byte).map_or(byte, |(_, set1)| *set1),
    }
}

/// Set 3 of the keys without a prefix, by set 1 code; 0 where there is none.
static SET3: [u8; 0x59] = [
    0x00, 0x08, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66,
    0x0d, // 00
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x11, 0x1c,
    0x1b, // 10
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5c, 0x1a, 0x22, 0x21,
    0x2a, // 20
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7e, 0x19, 0x29, 0x14, 0x07, 0x0f, 0x17, 0x1f,
    0x27, // 30
    0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x76, 0x5f, 0x6c, 0x75, 0x7d, 0x84, 0x6b, 0x73, 0x74, 0x7c,
    0x69, // 40
    0x72, 0x7a, 0x70, 0x71, 0x57, 0x00, 0x13, 0x56, 0x5e, // 50
];
/// Set 3 of the keys behind the prefix: (set 1 code, set 3 code).
static SET3_EXTENDED: [(u8, u8); 18] = [
    (0x1c, 0x79), // keypad Enter
    (0x1d, 0x58), // right Ctrl
    (0x35, 0x77), // keypad /
    (0x37, 0x57), // Print Screen
    (0x38, 0x39), // right Alt
    (0x46, 0x62), // Break: Pause with Ctrl
    (0x47, 0x6e), // Home
    (0x48, 0x63), // Up
    (0x49, 0x6f), // Page Up
    (0x4b, 0x61), // Left
    (0x4d, 0x6a), // Right
    (0x4f, 0x65), // End
    (0x50, 0x60), // Down
    (0x51, 0x6d), // Page Down
    (0x52, 0x67), // Insert
    (0x53, 0x64), // Delete
    (0x5b, 0x8b), // left Windows
    (0x5c, 0x8c), // right Windows
];
const SET3_MENU: (u8, u8) = (0x5d, 0x8d);
const SET3_PAUSE: u8 = 0x62;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A key by its set 1 code (1 to 7Fh).
    Plain(u8),
    /// A key behind the E0 prefix, by the code after it.
    Extended(u8),
    /// Pause, which says nothing when it is released.
    Pause,
}

/// A shift that PC keyboards pretend around Print Screen and the cursor keys.
const FAKE_SHIFTS: [Key; 2] = [Key::Extended(0x2a), Key::Extended(0x36)];

/// At most this many bytes make up one press or release.
pub const MAX_SEQUENCE: usize = 8;

impl Key {
    /// Whether the key repeats while it is held.
    pub fn repeats(self) -> bool {
        self != Key::Pause && !FAKE_SHIFTS.contains(&self)
    }

    /// A number below 256 for tables of keys.
    pub fn index(self) -> usize {
        match self {
            Key::Plain(code) => usize::from(code & 0x7f),
            Key::Extended(code) => usize::from(code | 0x80),
            Key::Pause => 0,
        }
    }

    /// The key's code in set 3, if it has one.
    pub fn set3(self) -> Option<u8> {
        let code = match self {
            Key::Plain(code) => SET3.get(usize::from(code)).copied().unwrap_or(0),
            Key::Extended(code) => SET3_EXTENDED
                .iter()
                .chain([&SET3_MENU])
                .find(|(set1, _)| *set1 == code)
                .map_or(0, |(_, set3)| *set3),
            Key::Pause => SET3_PAUSE,
        };
        (code != 0).then_some(code)
    }

    /// The bytes that a keyboard in a scan code set sends for a press or a release.
    pub fn sequence(self, set: u8, pressed: bool) -> Vec<u8> {
        match set {
            1 => self.in_set1(pressed),
            3 => match (self.set3(), pressed) {
                (Some(code), true) => vec![code],
                (Some(code), false) => vec![BREAK, code],
                (None, _) => vec![],
            },
            _ => self.in_set2(pressed),
        }
    }

    fn in_set1(self, pressed: bool) -> Vec<u8> {
        let release = if pressed { 0 } else { SET1_BREAK };
        match self {
            Key::Plain(code) => vec![code | release],
            Key::Extended(code) => vec![EXTENDED, code | release],
            Key::Pause if pressed => {
                let [a, b] = PAUSE_SET1;
                vec![EXTENDED_1, a, b, EXTENDED_1, a | SET1_BREAK, b | SET1_BREAK]
            }
            Key::Pause => vec![],
        }
    }

    fn in_set2(self, pressed: bool) -> Vec<u8> {
        match (self, pressed) {
            (Key::Plain(code), true) => vec![set2_of(code)],
            (Key::Plain(code), false) => vec![BREAK, set2_of(code)],
            (Key::Extended(code), true) => vec![EXTENDED, set2_of(code)],
            (Key::Extended(code), false) => vec![EXTENDED, BREAK, set2_of(code)],
            (Key::Pause, true) => {
                let [a, b] = PAUSE_SET1.map(set2_of);
                vec![EXTENDED_1, a, b, EXTENDED_1, BREAK, a, BREAK, b]
            }
            (Key::Pause, false) => vec![],
        }
    }
}

/// The set 2 code that the controller translates to a set 1 code.
fn set2_of(set1: u8) -> u8 {
    let beyond = TRANSLATION_BEYOND.iter().find(|(_, to)| *to == set1).map(|(from, _)| *from);
    beyond.or_else(|| (0..).zip(TRANSLATION).find(|(_, to)| *to == set1).map(|(from, _)| from)).unwrap_or(0)
}

/// Takes a stream of set 1 bytes apart into keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parser {
    /// Bytes of a sequence that is not complete: a prefix, or the Pause prefix and a byte.
    pub pending: Vec<u8>,
}

impl Parser {
    /// Takes a byte. Gives a key and whether it was pressed when one is complete.
    pub fn feed(&mut self, byte: u8) -> Option<(Key, bool)> {
        let (code, pressed) = (byte & !SET1_BREAK, byte & SET1_BREAK == 0);
        match (self.pending.as_slice(), byte) {
            ([], EXTENDED | EXTENDED_1) => {
                self.pending.push(byte);
                return None;
            }
            ([EXTENDED_1], _) => {
                self.pending.push(code);
                return None;
            }
            _ => {}
        }
        let key = match *self.pending.as_slice() {
            [EXTENDED_1, first] => ([first, code] == PAUSE_SET1).then_some(Key::Pause),
            [EXTENDED] => (code != 0).then_some(Key::Extended(code)),
            _ => (code != 0).then_some(Key::Plain(code)),
        };
        self.pending.clear();
        key.map(|key| (key, pressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program sees of bytes that pass through the translating controller.
    fn translated(bytes: &[u8]) -> Vec<u8> {
        let mut release = 0;
        let mut seen = Vec::new();
        for &byte in bytes {
            if byte == BREAK {
                release = SET1_BREAK;
            } else {
                seen.push(translate(byte) | release);
                release = 0;
            }
        }
        seen
    }

    #[test]
    fn set_2_translates_back_to_set_1() {
        let mut keys: Vec<Key> = (1..=0x58).map(Key::Plain).collect();
        keys.extend((1..=0x7f).map(Key::Extended));
        keys.push(Key::Pause);
        for key in keys {
            for pressed in [true, false] {
                assert_eq!(translated(&key.sequence(2, pressed)), key.sequence(1, pressed), "{key:?}");
            }
        }
    }

    #[test]
    fn well_known_codes() {
        assert_eq!(Key::Plain(0x1e).sequence(2, true), [0x1c]); // A
        assert_eq!(Key::Plain(0x41).sequence(2, false), [0xf0, 0x83]); // F7
        assert_eq!(Key::Plain(0x58).sequence(2, true), [0x07]); // F12
        assert_eq!(Key::Extended(0x48).sequence(2, false), [0xe0, 0xf0, 0x75]); // Up
        assert_eq!(Key::Extended(0x5b).sequence(2, true), [0xe0, 0x1f]); // left Windows
        assert_eq!(Key::Pause.sequence(2, true), [0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77]);
        assert_eq!(Key::Extended(0x53).sequence(3, false), [0xf0, 0x64]); // Delete
        assert_eq!(Key::Extended(0x5d).sequence(3, true), [0x8d]); // Menu
    }

    #[test]
    fn set_3_codes_are_distinct() {
        let mut codes: Vec<u8> = (1..0x80).filter_map(|c| Key::Plain(c).set3()).collect();
        codes.extend((1..0x80).filter_map(|c| Key::Extended(c).set3()));
        codes.sort_unstable();
        let all = codes.len();
        codes.dedup();
        // Print Screen is SysRq with Alt.
        assert_eq!(all - codes.len(), 1);
    }

    #[test]
    fn no_sequence_is_longer_than_said() {
        for key in (0..0x80).flat_map(|c| [Key::Plain(c), Key::Extended(c), Key::Pause]) {
            for set in 1..=3 {
                assert!(key.sequence(set, true).len() <= MAX_SEQUENCE);
                assert!(key.sequence(set, false).len() <= MAX_SEQUENCE);
            }
        }
    }

    #[test]
    fn the_parser_finds_keys() {
        let mut parser = Parser::default();
        let keys: Vec<_> = [0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8, 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]
            .into_iter()
            .filter_map(|byte| parser.feed(byte))
            .collect();
        assert_eq!(
            keys,
            [
                (Key::Plain(0x1e), true),
                (Key::Plain(0x1e), false),
                (Key::Extended(0x48), true),
                (Key::Extended(0x48), false),
                (Key::Pause, true),
                (Key::Pause, false),
            ]
        );
    }

    #[test]
    fn the_parser_recovers_from_nonsense() {
        let mut parser = Parser::default();
        for byte in 0..=255 {
            parser.feed(byte);
            assert!(parser.pending.len() <= 2);
        }
        for byte in [0xe1, 0xe1, 0xe1, 0x80] {
            parser.feed(byte);
        }
        assert_eq!(parser.feed(0x1e), Some((Key::Plain(0x1e), true)));
    }
}
