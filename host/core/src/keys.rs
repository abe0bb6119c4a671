//! Keys by their names and by what is printed on them, for those who type without a keyboard.

pub use env86_devices::ps2::scancodes::Key;
use thiserror::Error;

use crate::Input;
pub use crate::layout::Layout;

/// A key that no keyboard has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("There is no key {0:?}; keys are joined by `-`, as in ctrl-alt-delete")]
pub struct UnknownKey(pub String);

/// A character that a keyboard has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("A {layout} keyboard has no {character:?}")]
pub struct Untypable {
    /// The keyboard.
    pub layout: Layout,
    /// The character.
    pub character: char,
}

/// The left shift key.
const SHIFT: Key = Key::Plain(0x2a);

/// Names of keys that print nothing, and of those whose character cannot be written in a chord.
static NAMES: [(&str, Key); 64] = [
    ("esc", Key::Plain(0x01)),
    ("backspace", Key::Plain(0x0e)),
    ("tab", Key::Plain(0x0f)),
    ("enter", Key::Plain(0x1c)),
    ("ctrl", Key::Plain(0x1d)),
    ("shift", SHIFT),
    ("right-shift", Key::Plain(0x36)),
    ("alt", Key::Plain(0x38)),
    ("space", Key::Plain(0x39)),
    ("minus", Key::Plain(0x0c)),
    ("capslock", Key::Plain(0x3a)),
    ("f1", Key::Plain(0x3b)),
    ("f2", Key::Plain(0x3c)),
    ("f3", Key::Plain(0x3d)),
    ("f4", Key::Plain(0x3e)),
    ("f5", Key::Plain(0x3f)),
    ("f6", Key::Plain(0x40)),
    ("f7", Key::Plain(0x41)),
    ("f8", Key::Plain(0x42)),
    ("f9", Key::Plain(0x43)),
    ("f10", Key::Plain(0x44)),
    ("f11", Key::Plain(0x57)),
    ("f12", Key::Plain(0x58)),
    ("numlock", Key::Plain(0x45)),
    ("scrolllock", Key::Plain(0x46)),
    ("pause", Key::Pause),
    ("print", Key::Extended(0x37)),
    ("sysrq", Key::Plain(0x54)),
    ("right-ctrl", Key::Extended(0x1d)),
    ("right-alt", Key::Extended(0x38)),
    ("altgr", Key::Extended(0x38)),
    ("home", Key::Extended(0x47)),
    ("up", Key::Extended(0x48)),
    ("pageup", Key::Extended(0x49)),
    ("left", Key::Extended(0x4b)),
    ("right", Key::Extended(0x4d)),
    ("end", Key::Extended(0x4f)),
    ("down", Key::Extended(0x50)),
    ("pagedown", Key::Extended(0x51)),
    ("insert", Key::Extended(0x52)),
    ("delete", Key::Extended(0x53)),
    ("win", Key::Extended(0x5b)),
    ("right-win", Key::Extended(0x5c)),
    ("menu", Key::Extended(0x5d)),
    ("power", Key::Extended(0x5e)),
    ("sleep", Key::Extended(0x5f)),
    ("102nd", Key::Plain(0x56)),
    ("kp0", Key::Plain(0x52)),
    ("kp1", Key::Plain(0x4f)),
    ("kp2", Key::Plain(0x50)),
    ("kp3", Key::Plain(0x51)),
    ("kp4", Key::Plain(0x4b)),
    ("kp5", Key::Plain(0x4c)),
    ("kp6", Key::Plain(0x4d)),
    ("kp7", Key::Plain(0x47)),
    ("kp8", Key::Plain(0x48)),
    ("kp9", Key::Plain(0x49)),
    ("kp.", Key::Plain(0x53)),
    ("kp+", Key::Plain(0x4e)),
    ("kp*", Key::Plain(0x37)),
    ("kp/", Key::Extended(0x35)),
    ("kp-enter", Key::Extended(0x1c)),
    ("kp-minus", Key::Plain(0x4a)),
    ("kp=", Key::Plain(0x59)),
];

/// The keys of a chord such as `ctrl-alt-delete`, `f1` or `shift-a`, in the order in which they go down.
pub fn chord(text: &str) -> Result<Vec<Key>, UnknownKey> {
    let unknown = || UnknownKey(text.to_owned());
    let mut keys = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        // A name may have a `-` inside, and the longest counts.
        let ends = rest.match_indices('-').map(|(at, _)| at).chain([rest.len()]);
        let (end, key) = ends.rev().find_map(|end| Some((end, named(&rest[..end])?))).ok_or_else(unknown)?;
        keys.push(key);
        rest = &rest[end..];
        if let Some(next) = rest.strip_prefix('-') {
            rest = Some(next).filter(|next| !next.is_empty()).ok_or_else(unknown)?;
        }
    }
    if keys.is_empty() { Err(unknown()) } else { Ok(keys) }
}

/// The key of a name, or of a character that needs no shift.
fn named(name: &str) -> Option<Key> {
    let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, key)| *key);
    known.or_else(|| {
        let mut characters = name.chars();
        let character = characters.next().filter(|_| characters.next().is_none())?;
        match &Layout::Us.character(character.to_ascii_lowercase()).ok()?[..] {
            [key] => Some(*key),
            _ => None,
        }
    })
}

/// A key goes down or up. Pause goes up by itself, and has no codes for it.
pub fn stroke(key: Key, down: bool) -> Input {
    Input::ScanCodes(key.sequence(1, down))
}

/// Presses keys one after the other and releases them in the opposite order.
pub fn press(keys: &[Key]) -> Vec<Input> {
    let down = keys.iter().map(|key| stroke(*key, true));
    let up = keys.iter().rev().map(|key| stroke(*key, false));
    down.chain(up).collect()
}

/// The keys that type a character on a US keyboard, in the order in which they go down.
pub fn character(character: char) -> Result<Vec<Key>, Untypable> {
    Layout::Us.character(character)
}

/// Types a character on a US keyboard.
pub fn typed(character: char) -> Result<Vec<Input>, Untypable> {
    Layout::Us.typed(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(inputs: Vec<Input>) -> Vec<u8> {
        let codes = |input| match input {
            Input::ScanCodes(codes) => codes,
            other => panic!("{other:?}"),
        };
        inputs.into_iter().flat_map(codes).collect()
    }

    #[test]
    fn a_chord_is_released_backwards() {
        let keys = chord("ctrl-alt-delete").unwrap();
        assert_eq!(codes(press(&keys)), [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d]);
        assert_eq!(chord("Right-Ctrl-C"), Ok(vec![Key::Extended(0x1d), Key::Plain(0x2e)]));
        assert_eq!(chord("ctrl--"), chord("ctrl-minus"));
        assert_eq!(chord("shift-kp-enter"), Ok(vec![SHIFT, Key::Extended(0x1c)]));
    }

    #[test]
    fn what_is_no_chord_is_refused() {
        for text in ["", "ctrl-", "-a", "ctrl--a", "hyper-x", "ä", "A!", "!"] {
            assert_eq!(chord(text), Err(UnknownKey(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn every_printed_character_can_be_typed() {
        for code in 0x20..0x7fu8 {
            typed(code.into()).unwrap();
        }
        assert_eq!(codes(typed('A').unwrap()), [0x2a, 0x1e, 0x9e, 0xaa]);
        assert_eq!(codes(typed('/').unwrap()), [0x35, 0xb5]);
        assert_eq!(codes(typed('`').unwrap()), [0x29, 0xa9]);
        assert_eq!(typed('ä'), Err(Untypable { layout: Layout::Us, character: 'ä' }));
    }

    #[test]
    fn names_are_different() {
        for (i, (name, _)) in NAMES.iter().enumerate() {
            assert!(NAMES[..i].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}
