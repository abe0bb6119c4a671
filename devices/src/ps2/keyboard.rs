//! The keyboard at the far end of the first PS/2 port.
//!
//! Source: IBM PS/2 hardware interface technical reference, keyboards 101 and 102.

use std::collections::VecDeque;

use super::scancodes::{Key, MAX_SEQUENCE, Parser};

const SET_LEDS: u8 = 0xed;
const ECHO: u8 = 0xee;
const SCAN_CODE_SET: u8 = 0xf0;
const IDENTIFY: u8 = 0xf2;
const SET_TYPEMATIC: u8 = 0xf3;
const ENABLE: u8 = 0xf4;
const DEFAULTS_AND_DISABLE: u8 = 0xf5;
const DEFAULTS: u8 = 0xf6;
const ALL_TYPEMATIC: u8 = 0xf7;
const ALL_MAKE_BREAK: u8 = 0xf8;
const ALL_MAKE: u8 = 0xf9;
const ALL_TYPEMATIC_MAKE_BREAK: u8 = 0xfa;
const KEY_TYPEMATIC: u8 = 0xfb;
const KEY_MAKE_BREAK: u8 = 0xfc;
const KEY_MAKE: u8 = 0xfd;
const RESEND: u8 = 0xfe;
const RESET: u8 = 0xff;
/// Bytes from here up are commands even where an argument is expected.
const FIRST_COMMAND: u8 = SET_LEDS;

const ACK: u8 = 0xfa;
const SELF_TEST_PASSED: u8 = 0xaa;
const PLEASE_RESEND: u8 = 0xfe;
const ID: [u8; 2] = [0xab, 0x83];

const LEDS_MASK: u8 = 0x07;
/// 500 ms, then 10.9 times a second.
const DEFAULT_TYPEMATIC: u8 = 0x2b;
const DEFAULT_SET: u8 = 2;

/// Bytes of key presses and releases that wait to be read at most.
const CODES_SIZE: usize = 256;

/// What the next byte from the host means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// A command.
    #[default]
    Command,
    /// The LEDs (after EDh).
    Leds,
    /// A scan code set, or 0 to ask for it (after F0h).
    ScanCodeSet,
    /// Typematic rate and delay (after F3h).
    Typematic,
    /// Set 3 codes that shall repeat, or tell of their release (after FBh to FDh).
    KeyType {
        /// The key repeats.
        repeats: bool,
        /// The key's release is sent.
        breaks: bool,
    },
}

/// The keyboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyboard {
    /// Key presses are sent.
    pub scanning: bool,
    /// Scan code set, 1 to 3.
    pub set: u8,
    /// LEDs: scroll lock 1, num lock 2, caps lock 4.
    pub leds: u8,
    /// Typematic delay (bits 5 and 6) and rate (bits 0 to 4).
    pub typematic: u8,
    /// What the next byte from the host means.
    pub expect: Expect,
    /// Answers to commands; they go before `codes`.
    pub replies: VecDeque<u8>,
    /// Scan codes not yet sent.
    pub codes: VecDeque<u8>,
    /// The last byte sent, for the host to ask for again.
    pub last_sent: u8,
    /// Host input not yet a whole key.
    pub parser: Parser,
    /// Keys that are down, by [`Key::index`].
    pub down: [bool; 256],
    /// The key that repeats, and the time in nanoseconds of its next repetition.
    pub repeating: Option<(Key, u64)>,
    /// In set 3: codes of keys that repeat.
    pub set3_repeats: [bool; 256],
    /// In set 3: codes of keys that tell of their release.
    pub set3_breaks: [bool; 256],
}

impl Default for Keyboard {
    fn default() -> Self {
        let mut keyboard = Self {
            scanning: true,
            set: DEFAULT_SET,
            leds: 0,
            typematic: DEFAULT_TYPEMATIC,
            expect: Expect::Command,
            replies: VecDeque::new(),
            codes: VecDeque::new(),
            last_sent: 0,
            parser: Parser::default(),
            down: [false; 256],
            repeating: None,
            set3_repeats: [false; 256],
            set3_breaks: [false; 256],
        };
        keyboard.set_defaults();
        keyboard
    }
}

impl Keyboard {
    /// A command, or its argument, from the host.
    pub fn write(&mut self, value: u8) {
        // What was not sent of the answer before is void.
        self.replies.clear();
        let expect = std::mem::take(&mut self.expect);
        match expect {
            Expect::Command => self.command(value),
            _ if value >= FIRST_COMMAND => self.command(value),
            Expect::Leds => {
                self.leds = value & LEDS_MASK;
                self.reply(&[ACK]);
            }
            Expect::Typematic => {
                self.typematic = value;
                self.reply(&[ACK]);
            }
            Expect::ScanCodeSet => match value {
                0 => self.reply(&[ACK, self.set]),
                1..=3 => {
                    self.set = value;
                    self.codes.clear();
                    self.reply(&[ACK]);
                }
                _ => {
                    self.expect = expect;
                    self.reply(&[PLEASE_RESEND]);
                }
            },
            Expect::KeyType { repeats, breaks } => {
                self.set3_repeats[usize::from(value)] = repeats;
                self.set3_breaks[usize::from(value)] = breaks;
                self.expect = expect;
                self.reply(&[ACK]);
            }
        }
    }

    fn command(&mut self, command: u8) {
        match command {
            SET_LEDS => self.expect = Expect::Leds,
            ECHO => return self.reply(&[ECHO]),
            SCAN_CODE_SET => self.expect = Expect::ScanCodeSet,
            IDENTIFY => return self.reply(&[ACK, ID[0], ID[1]]),
            SET_TYPEMATIC => self.expect = Expect::Typematic,
            ENABLE => {
                self.codes.clear();
                self.scanning = true;
            }
            DEFAULTS_AND_DISABLE => {
                self.set_defaults();
                self.scanning = false;
            }
            DEFAULTS => self.set_defaults(),
            ALL_TYPEMATIC => self.set_all(true, false),
            ALL_MAKE_BREAK => self.set_all(false, true),
            ALL_MAKE => self.set_all(false, false),
            ALL_TYPEMATIC_MAKE_BREAK => self.set_all(true, true),
            KEY_TYPEMATIC => self.expect = Expect::KeyType { repeats: true, breaks: false },
            KEY_MAKE_BREAK => self.expect = Expect::KeyType { repeats: false, breaks: true },
            KEY_MAKE => self.expect = Expect::KeyType { repeats: false, breaks: false },
            RESEND => return self.reply(&[self.last_sent]),
            RESET => {
                *self = Self { down: self.down, last_sent: self.last_sent, ..Self::default() };
                return self.reply(&[ACK, SELF_TEST_PASSED]);
            }
            _ => return self.reply(&[PLEASE_RESEND]),
        }
        self.reply(&[ACK]);
    }

    /// Everything a program can set back to where it was at power-on, but for scanning and LEDs.
    fn set_defaults(&mut self) {
        self.codes.clear();
        self.repeating = None;
        self.set = DEFAULT_SET;
        self.typematic = DEFAULT_TYPEMATIC;
        self.set_all(true, false);
        for code in SET3_MAKE_BREAK {
            self.set3_repeats[usize::from(code)] = false;
            self.set3_breaks[usize::from(code)] = true;
        }
        for code in SET3_MAKE {
            self.set3_repeats[usize::from(code)] = false;
        }
    }

    fn set_all(&mut self, repeats: bool, breaks: bool) {
        self.set3_repeats = [repeats; 256];
        self.set3_breaks = [breaks; 256];
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.extend(bytes);
    }

    /// The next byte for the host.
    pub fn read(&mut self) -> Option<u8> {
        let byte = self.replies.pop_front().or_else(|| self.codes.pop_front())?;
        self.last_sent = byte;
        Some(byte)
    }

    /// Whether [`Keyboard::read`] has a byte.
    pub fn has_data(&self) -> bool {
        !self.replies.is_empty() || !self.codes.is_empty()
    }

    /// Presses and releases keys, given as set 1 bytes. Takes all or, when too much waits to be
    /// read, nothing: false asks to try again later. A press of a key that is down is the host's
    /// own repetition and is not passed on.
    pub fn key(&mut self, set1: &[u8], now: u64) -> bool {
        if self.codes.len() + set1.len() * MAX_SEQUENCE > CODES_SIZE {
            return false;
        }
        for &byte in set1 {
            if let Some((key, pressed)) = self.parser.feed(byte) {
                self.change(key, pressed, now);
            }
        }
        true
    }

    /// Releases all keys that are down, as when the host's window loses the keyboard.
    pub fn release_all(&mut self, now: u64) {
        self.repeating = None;
        for index in 0..self.down.len() {
            if self.down[index] && self.codes.len() + MAX_SEQUENCE <= CODES_SIZE {
                let code = (index & 0x7f) as u8;
                self.change(if index < 0x80 { Key::Plain(code) } else { Key::Extended(code) }, false, now);
            }
        }
    }

    fn change(&mut self, key: Key, pressed: bool, now: u64) {
        if key != Key::Pause && std::mem::replace(&mut self.down[key.index()], pressed) && pressed {
            return;
        }
        if !pressed && self.repeating.is_some_and(|(repeating, _)| repeating == key) {
            self.repeating = None;
        }
        if !self.scanning {
            return;
        }
        if pressed {
            self.repeating = self.repeats(key).then(|| (key, now.saturating_add(self.delay())));
        }
        if pressed || self.breaks(key) {
            self.codes.extend(key.sequence(self.set, pressed));
        }
    }

    fn repeats(&self, key: Key) -> bool {
        match (self.set, key.set3()) {
            (3, Some(code)) => self.set3_repeats[usize::from(code)],
            (3, None) => false,
            _ => key.repeats(),
        }
    }

    fn breaks(&self, key: Key) -> bool {
        self.set != 3 || key.set3().is_some_and(|code| self.set3_breaks[usize::from(code)])
    }

    /// Nanoseconds until a key that is held begins to repeat.
    fn delay(&self) -> u64 {
        (1 + u64::from((self.typematic >> 5) & 3)) * 250_000_000
    }

    /// Nanoseconds between its repetitions: (8 + A) * 2^B * 4.17 ms.
    fn period(&self) -> u64 {
        let (a, b) = (self.typematic & 7, (self.typematic >> 3) & 3);
        ((8 + u64::from(a)) << b) * 4_170_000
    }

    /// Repeats the key that is held, if its time has come. Repetitions that nobody read are not
    /// made up for.
    pub fn poll(&mut self, now: u64) {
        let Some((key, due)) = self.repeating else { return };
        if now < due {
            return;
        }
        if !self.scanning {
            self.repeating = None;
            return;
        }
        if !self.has_data() {
            self.codes.extend(key.sequence(self.set, true));
        }
        self.repeating = Some((key, now.saturating_add(self.period())));
    }

    /// When [`Keyboard::poll`] has something to do next, in nanoseconds.
    pub fn next_event(&self) -> Option<u64> {
        self.repeating.map(|(_, due)| due)
    }
}

/// Set 3 keys that by default tell of press and release: the shifts and locks on the left, right
/// Shift.
static SET3_MAKE_BREAK: [u8; 5] = [0x11, 0x12, 0x14, 0x19, 0x59];
/// Set 3 keys that by default tell of the press alone: Esc, function keys, most of the keypad and
/// of the block beside it, and the keys on the right of the space bar.
static SET3_MAKE: [u8; 42] = [
    0x07, 0x08, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x39, 0x3f, 0x47, 0x4f, 0x56, 0x57, 0x58, 0x5e, 0x5f,
    0x62, 0x65, 0x67, 0x69, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77,
    0x79, 0x7a, 0x7d, 0x7e, 0x84, 0x8b, 0x8c, 0x8d,
];

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn drain(keyboard: &mut Keyboard) -> Vec<u8> {
        std::iter::from_fn(|| keyboard.read()).collect()
    }

    fn send(keyboard: &mut Keyboard, bytes: &[u8]) -> Vec<u8> {
        bytes
            .iter()
            .flat_map(|&byte| {
                keyboard.write(byte);
                drain(keyboard)
            })
            .collect()
    }

    #[test]
    fn reset_answers_with_the_self_test() {
        assert_eq!(send(&mut Keyboard::default(), &[RESET]), [ACK, 0xaa]);
    }

    #[test]
    fn identify_and_echo() {
        let mut keyboard = Keyboard::default();
        assert_eq!(send(&mut keyboard, &[IDENTIFY]), [ACK, 0xab, 0x83]);
        assert_eq!(send(&mut keyboard, &[ECHO]), [ECHO]);
    }

    #[test]
    fn leds() {
        let mut keyboard = Keyboard::default();
        assert_eq!(send(&mut keyboard, &[SET_LEDS, 0x05]), [ACK, ACK]);
        assert_eq!(keyboard.leds, 5);
    }

    #[test]
    fn a_command_in_place_of_an_argument_is_a_command() {
        let mut keyboard = Keyboard::default();
        assert_eq!(send(&mut keyboard, &[SET_LEDS, ECHO]), [ACK, ECHO]);
        assert_eq!(keyboard.expect, Expect::Command);
    }

    #[test]
    fn unknown_commands_are_refused() {
        assert_eq!(send(&mut Keyboard::default(), &[0x12]), [PLEASE_RESEND]);
    }

    #[test]
    fn resend_repeats_the_last_byte() {
        let mut keyboard = Keyboard::default();
        send(&mut keyboard, &[IDENTIFY]);
        assert_eq!(send(&mut keyboard, &[RESEND]), [0x83]);
    }

    #[test]
    fn keys_in_each_set() {
        for (set, expected) in [(1, vec![0x1e, 0x9e]), (2, vec![0x1c, 0xf0, 0x1c]), (3, vec![0x1c])] {
            let mut keyboard = Keyboard::default();
            assert_eq!(send(&mut keyboard, &[SCAN_CODE_SET, set]), [ACK, ACK]);
            assert!(keyboard.key(&[0x1e, 0x9e], 0));
            assert_eq!(drain(&mut keyboard), expected);
            assert_eq!(send(&mut keyboard, &[SCAN_CODE_SET, 0]), [ACK, ACK, set]);
        }
    }

    #[test]
    fn set_3_key_types() {
        let mut keyboard = Keyboard::default();
        send(&mut keyboard, &[SCAN_CODE_SET, 3]);
        keyboard.key(&[0x2a, 0xaa], 0); // left Shift: make and break by default
        assert_eq!(drain(&mut keyboard), [0x12, 0xf0, 0x12]);
        assert_eq!(send(&mut keyboard, &[KEY_MAKE_BREAK, 0x1c, 0x32, ENABLE]), [ACK; 4]);
        keyboard.key(&[0x1e, 0x9e], 0);
        assert_eq!(drain(&mut keyboard), [0x1c, 0xf0, 0x1c]);
        send(&mut keyboard, &[ALL_MAKE]);
        keyboard.key(&[0x1e, 0x9e], 0);
        assert_eq!(drain(&mut keyboard), [0x1c]);
        assert_eq!(keyboard.next_event(), None);
        send(&mut keyboard, &[ALL_TYPEMATIC_MAKE_BREAK]);
        keyboard.key(&[0x1e], 0);
        assert!(keyboard.next_event().is_some());
    }

    #[test]
    fn disabled_keys_are_lost() {
        let mut keyboard = Keyboard::default();
        assert_eq!(send(&mut keyboard, &[DEFAULTS_AND_DISABLE]), [ACK]);
        assert!(keyboard.key(&[0x1e, 0x9e], 0));
        assert!(!keyboard.has_data());
        send(&mut keyboard, &[ENABLE]);
        keyboard.key(&[0x1e], 0);
        assert!(keyboard.has_data());
    }

    #[test]
    fn a_held_key_repeats() {
        let mut keyboard = Keyboard::default();
        keyboard.key(&[0x1e], 0);
        drain(&mut keyboard);
        assert_eq!(keyboard.next_event(), Some(500 * MS));
        keyboard.poll(499 * MS);
        assert!(!keyboard.has_data());
        keyboard.poll(500 * MS);
        assert_eq!(drain(&mut keyboard), [0x1c]);
        assert_eq!(keyboard.next_event(), Some(500 * MS + 91_740_000));
        keyboard.key(&[0x9e], 600 * MS);
        assert_eq!(keyboard.next_event(), None);
    }

    #[test]
    fn rate_and_delay_can_be_set() {
        let mut keyboard = Keyboard::default();
        send(&mut keyboard, &[SET_TYPEMATIC, 0x00]);
        keyboard.key(&[0x1e], 0);
        assert_eq!(keyboard.next_event(), Some(250 * MS));
        keyboard.poll(250 * MS);
        assert_eq!(keyboard.next_event(), Some(250 * MS + 33_360_000));
    }

    #[test]
    fn the_hosts_repetitions_are_not_passed_on() {
        let mut keyboard = Keyboard::default();
        keyboard.key(&[0x1e, 0x1e, 0x1e], 0);
        assert_eq!(drain(&mut keyboard), [0x1c]);
    }

    #[test]
    fn unread_repetitions_do_not_pile_up() {
        let mut keyboard = Keyboard::default();
        keyboard.key(&[0x1e], 0);
        for i in 0..100 {
            keyboard.poll(i * 1000 * MS);
        }
        assert_eq!(drain(&mut keyboard), [0x1c]);
    }

    #[test]
    fn pause_has_no_release_and_no_repetition() {
        let mut keyboard = Keyboard::default();
        keyboard.key(&[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5], 0);
        assert_eq!(drain(&mut keyboard).len(), 8);
        assert_eq!(keyboard.next_event(), None);
        keyboard.key(&[0xe1, 0x1d, 0x45], 0);
        assert_eq!(drain(&mut keyboard).len(), 8);
    }

    #[test]
    fn all_keys_can_be_released_at_once() {
        let mut keyboard = Keyboard::default();
        keyboard.key(&[0x1d, 0xe0, 0x38], 0);
        drain(&mut keyboard);
        keyboard.release_all(0);
        assert_eq!(drain(&mut keyboard), [0xf0, 0x14, 0xe0, 0xf0, 0x11]);
        assert_eq!(keyboard.next_event(), None);
    }

    #[test]
    fn a_full_queue_refuses_whole_calls() {
        let mut keyboard = Keyboard::default();
        let mut taken = 0;
        while keyboard.key(&[0x1e, 0x9e], 0) {
            taken += 1;
        }
        assert_eq!(drain(&mut keyboard).len(), taken * 3);
        assert!(keyboard.key(&[0x1e, 0x9e], 0));
    }
}
