//! What keyboards of several countries have printed on their keys.

use std::fmt;

use env86_devices::ps2::scancodes::Key;

use crate::Input;
use crate::keys::{self, Untypable};

const SHIFT: Key = Key::Plain(0x2a);
const ALT_GR: Key = Key::Extended(0x38);
const SPACE: Key = Key::Plain(0x39);

/// What a guest takes its keyboard for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// The United States.
    #[default]
    Us,
    /// The United Kingdom.
    Uk,
    /// Germany.
    De,
    /// France.
    Fr,
}

/// A row of keys: the first one's code, and what they have without shift, with it, and with AltGr. A blank is
/// a key that has nothing there.
type Row = (u8, &'static str, &'static str, &'static str);

/// Dead keys: the character that one makes with the space bar, its code, and whether with shift or AltGr.
type Dead = (char, u8, Level);

#[derive(Clone, Copy)]
enum Level {
    Plain,
    Shifted,
    AltGr,
}

static US: [Row; 4] = [
    (0x02, "1234567890-=", "!@#$%^&*()_+", ""),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}", ""),
    (0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~", ""),
    (0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?", ""),
];

static UK: [Row; 5] = [
    (0x02, "1234567890-=", "!\"£$%^&*()_+", "   €"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}", ""),
    (0x1e, "asdfghjkl;'`", "ASDFGHJKL:@¬", "           ¦"),
    (0x2b, "#zxcvbnm,./", "~ZXCVBNM<>?", ""),
    (0x56, "\\", "|", ""),
];

static DE: [Row; 5] = [
    (0x02, "1234567890ß", "!\"§$%&/()=?", " ²³   {[]}\\"),
    (0x10, "qwertzuiopü+", "QWERTZUIOPÜ*", "@ €        ~"),
    (0x1e, "asdfghjklöä ", "ASDFGHJKLÖÄ°", ""),
    (0x2b, "#yxcvbnm,.-", "'YXCVBNM;:_", "       µ"),
    (0x56, "<", ">", "|"),
];
static DE_DEAD: [Dead; 3] =
    [('^', 0x29, Level::Plain), ('´', 0x0d, Level::Plain), ('`', 0x0d, Level::Shifted)];

static FR: [Row; 5] = [
    (0x02, "&é\"'(-è_çà)=", "1234567890°+", "  #{[| \\^@]}"),
    (0x10, "azertyuiop $", "AZERTYUIOP £", "  €        ¤"),
    (0x1e, "qsdfghjklmù²", "QSDFGHJKLM% ", ""),
    (0x2b, "*wxcvbn,;:!", "µWXCVBN?./§", ""),
    (0x56, "<", ">", ""),
];
static FR_DEAD: [Dead; 3] =
    [('¨', 0x1a, Level::Shifted), ('~', 0x03, Level::AltGr), ('`', 0x08, Level::AltGr)];

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Us, Self::Uk, Self::De, Self::Fr];

    /// The name by which it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Uk => "uk",
            Self::De => "de",
            Self::Fr => "fr",
        }
    }

    /// The layout with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name().eq_ignore_ascii_case(name))
    }

    fn rows(self) -> &'static [Row] {
        match self {
            Self::Us => &US,
            Self::Uk => &UK,
            Self::De => &DE,
            Self::Fr => &FR,
        }
    }

    fn dead(self) -> &'static [Dead] {
        match self {
            Self::Us | Self::Uk => &[],
            Self::De => &DE_DEAD,
            Self::Fr => &FR_DEAD,
        }
    }

    /// The keys that type a character at once, in the order in which they go down.
    pub fn character(self, character: char) -> Result<Vec<Key>, Untypable> {
        let plain = match character {
            ' ' => Some(0x39),
            '\n' | '\r' => Some(0x1c),
            '\t' => Some(0x0f),
            '\x08' => Some(0x0e),
            '\x1b' => Some(0x01),
            _ => None,
        };
        if let Some(code) = plain {
            return Ok(vec![Key::Plain(code)]);
        }
        let found = self.rows().iter().find_map(|(first, plain, shifted, alt_gr)| {
            let levels = [(plain, Level::Plain), (shifted, Level::Shifted), (alt_gr, Level::AltGr)];
            levels.into_iter().find_map(|(text, level)| {
                let at = text.chars().position(|on_key| on_key == character)?;
                Some(chord(first + at as u8, level))
            })
        });
        found.ok_or(Untypable { layout: self, character })
    }

    /// Types a character: some take a dead key and the space bar behind it.
    pub fn typed(self, character: char) -> Result<Vec<Input>, Untypable> {
        if let Some((_, code, level)) = self.dead().iter().find(|(makes, ..)| *makes == character) {
            let strokes = [chord(*code, *level), vec![SPACE]];
            return Ok(strokes.iter().flat_map(|keys| keys::press(keys)).collect());
        }
        Ok(keys::press(&self.character(character)?))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Us => "US",
            Self::Uk => "UK",
            Self::De => "German",
            Self::Fr => "French",
        })
    }
}

fn chord(code: u8, level: Level) -> Vec<Key> {
    let key = Key::Plain(code);
    match level {
        Level::Plain => vec![key],
        Level::Shifted => vec![SHIFT, key],
        Level::AltGr => vec![ALT_GR, key],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_ascii_can_be_typed_in_each() {
        for layout in Layout::ALL {
            for code in 0x20..0x7fu8 {
                assert!(layout.typed(code.into()).is_ok(), "{layout}: {:?}", char::from(code));
            }
            assert_eq!(Layout::from_name(layout.name()), Some(layout));
            assert!(layout.typed('日').is_err());
        }
        assert_eq!(Layout::from_name("dvorak"), None);
    }

    #[test]
    fn keys_are_where_they_are_printed() {
        let keys = |layout: Layout, character| layout.character(character).unwrap();
        assert_eq!(keys(Layout::De, 'z'), [Key::Plain(0x15)]);
        assert_eq!(keys(Layout::De, 'Ä'), [SHIFT, Key::Plain(0x28)]);
        assert_eq!(keys(Layout::De, '@'), [ALT_GR, Key::Plain(0x10)]);
        assert_eq!(keys(Layout::De, '|'), [ALT_GR, Key::Plain(0x56)]);
        assert_eq!(keys(Layout::De, '{'), [ALT_GR, Key::Plain(0x08)]);
        assert_eq!(keys(Layout::Fr, 'a'), [Key::Plain(0x10)]);
        assert_eq!(keys(Layout::Fr, '1'), [SHIFT, Key::Plain(0x02)]);
        assert_eq!(keys(Layout::Fr, '\\'), [ALT_GR, Key::Plain(0x09)]);
        assert_eq!(keys(Layout::Fr, '@'), [ALT_GR, Key::Plain(0x0b)]);
        assert_eq!(keys(Layout::Fr, 'm'), [Key::Plain(0x27)]);
        assert_eq!(keys(Layout::Uk, '#'), [Key::Plain(0x2b)]);
        assert_eq!(keys(Layout::Uk, '"'), [SHIFT, Key::Plain(0x03)]);
        assert_eq!(keys(Layout::Us, '"'), [SHIFT, Key::Plain(0x28)]);
        // A dead key and the space bar.
        let [dead, space] = [chord(0x29, Level::Plain), vec![SPACE]].map(|keys| keys::press(&keys));
        assert_eq!(Layout::De.typed('^').unwrap(), [dead, space].concat());
    }
}
