//! What a terminal says was typed, as keys of the guest's keyboard.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use env86_core::Input;
use env86_core::keys::{self, Key, Layout};

/// The strokes that type this on the guest's keyboard; none for what that has not.
pub(super) fn strokes(event: KeyEvent, layout: Layout) -> Vec<Input> {
    let plain = !event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    if let KeyCode::Char(character) = event.code
        && plain
    {
        return layout.typed(character).unwrap_or_default();
    }
    let Some(keys) = keys_of(event.code, event.modifiers, layout) else { return Vec::new() };
    let modifiers = [(KeyModifiers::CONTROL, "ctrl"), (KeyModifiers::ALT, "alt")];
    let held = modifiers.into_iter().filter(|(modifier, _)| event.modifiers.contains(*modifier));
    let held = held.flat_map(|(_, name)| named(name));
    keys::press(&held.chain(keys).collect::<Vec<_>>())
}

fn named(chord: &str) -> Vec<Key> {
    // The names here are the library's.
    keys::chord(chord).unwrap_or_default()
}

/// The keys without Ctrl and Alt.
fn keys_of(code: KeyCode, modifiers: KeyModifiers, layout: Layout) -> Option<Vec<Key>> {
    let name = match code {
        KeyCode::Char(character) => {
            let character = match character {
                // What terminals send for Ctrl with these signs counts on from 4.
                '4'..='7' if modifiers.contains(KeyModifiers::CONTROL) => {
                    ['\\', ']', '^', '_'][usize::from(character as u8 - b'4')]
                }
                other => other,
            };
            return layout.character(character).ok();
        }
        KeyCode::BackTab => return Some(named("shift-tab")),
        KeyCode::F(number @ 1..=12) => format!("f{number}"),
        KeyCode::Backspace => "backspace".into(),
        KeyCode::Enter => "enter".into(),
        KeyCode::Left => "left".into(),
        KeyCode::Right => "right".into(),
        KeyCode::Up => "up".into(),
        KeyCode::Down => "down".into(),
        KeyCode::Home => "home".into(),
        KeyCode::End => "end".into(),
        KeyCode::PageUp => "pageup".into(),
        KeyCode::PageDown => "pagedown".into(),
        KeyCode::Tab => "tab".into(),
        KeyCode::Delete => "delete".into(),
        KeyCode::Insert => "insert".into(),
        KeyCode::Esc => "esc".into(),
        KeyCode::CapsLock => "capslock".into(),
        KeyCode::ScrollLock => "scrolllock".into(),
        KeyCode::NumLock => "numlock".into(),
        KeyCode::PrintScreen => "print".into(),
        KeyCode::Pause => "pause".into(),
        KeyCode::Menu => "menu".into(),
        _ => return None,
    };
    let shift = if modifiers.contains(KeyModifiers::SHIFT) { "shift-" } else { "" };
    Some(named(&format!("{shift}{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_keys() {
        let none = KeyModifiers::NONE;
        let typed = [
            (KeyCode::Char('a'), none, "a"),
            (KeyCode::Char('A'), KeyModifiers::SHIFT, "shift-a"),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, "ctrl-c"),
            (KeyCode::Char('5'), KeyModifiers::CONTROL, "ctrl-]"),
            (KeyCode::Char('x'), KeyModifiers::ALT, "alt-x"),
            (KeyCode::F(2), KeyModifiers::CONTROL | KeyModifiers::ALT, "ctrl-alt-f2"),
            (KeyCode::Up, KeyModifiers::SHIFT, "shift-up"),
            (KeyCode::BackTab, KeyModifiers::SHIFT, "shift-tab"),
            (KeyCode::Enter, none, "enter"),
            (KeyCode::Esc, none, "esc"),
        ];
        for (code, modifiers, chord) in typed {
            let keys = keys::press(&keys::chord(chord).unwrap());
            assert_eq!(strokes(KeyEvent::new(code, modifiers), Layout::Us), keys, "{chord}");
        }
        for number in 1..=12 {
            assert!(!strokes(KeyEvent::new(KeyCode::F(number), none), Layout::Us).is_empty());
        }
        assert!(strokes(KeyEvent::new(KeyCode::Char('ä'), none), Layout::Us).is_empty());
        assert!(strokes(KeyEvent::new(KeyCode::F(13), none), Layout::Us).is_empty());
    }
}
