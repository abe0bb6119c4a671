//! The host's keys by where they are, whatever the host's layout prints on them.

use env86_core::keys::Key;
use winit::keyboard::KeyCode;

/// The PC's key at the place of the host's.
pub(super) fn key(code: KeyCode) -> Option<Key> {
    use KeyCode::*;
    Some(match code {
        Escape => Key::Plain(0x01),
        Digit1 => Key::Plain(0x02),
        Digit2 => Key::Plain(0x03),
        Digit3 => Key::Plain(0x04),
        Digit4 => Key::Plain(0x05),
        Digit5 => Key::Plain(0x06),
        Digit6 => Key::Plain(0x07),
        Digit7 => Key::Plain(0x08),
        Digit8 => Key::Plain(0x09),
        Digit9 => Key::Plain(0x0a),
        Digit0 => Key::Plain(0x0b),
        Minus => Key::Plain(0x0c),
        Equal => Key::Plain(0x0d),
        Backspace => Key::Plain(0x0e),
        Tab => Key::Plain(0x0f),
        KeyQ => Key::Plain(0x10),
        KeyW => Key::Plain(0x11),
        KeyE => Key::Plain(0x12),
        KeyR => Key::Plain(0x13),
        KeyT => Key::Plain(0x14),
        KeyY => Key::Plain(0x15),
        KeyU => Key::Plain(0x16),
        KeyI => Key::Plain(0x17),
        KeyO => Key::Plain(0x18),
        KeyP => Key::Plain(0x19),
        BracketLeft => Key::Plain(0x1a),
        BracketRight => Key::Plain(0x1b),
        Enter => Key::Plain(0x1c),
        ControlLeft => Key::Plain(0x1d),
        KeyA => Key::Plain(0x1e),
        KeyS => Key::Plain(0x1f),
        KeyD => Key::Plain(0x20),
        KeyF => Key::Plain(0x21),
        KeyG => Key::Plain(0x22),
        KeyH => Key::Plain(0x23),
        KeyJ => Key::Plain(0x24),
        KeyK => Key::Plain(0x25),
        KeyL => Key::Plain(0x26),
        Semicolon => Key::Plain(0x27),
        Quote => Key::Plain(0x28),
        Backquote => Key::Plain(0x29),
        ShiftLeft => Key::Plain(0x2a),
        Backslash => Key::Plain(0x2b),
        KeyZ => Key::Plain(0x2c),
        KeyX => Key::Plain(0x2d),
        KeyC => Key::Plain(0x2e),
        KeyV => Key::Plain(0x2f),
        KeyB => Key::Plain(0x30),
        KeyN => Key::Plain(0x31),
        KeyM => Key::Plain(0x32),
        Comma => Key::Plain(0x33),
        Period => Key::Plain(0x34),
        Slash => Key::Plain(0x35),
        ShiftRight => Key::Plain(0x36),
        NumpadMultiply => Key::Plain(0x37),
        AltLeft => Key::Plain(0x38),
        Space => Key::Plain(0x39),
        CapsLock => Key::Plain(0x3a),
        F1 => Key::Plain(0x3b),
        F2 => Key::Plain(0x3c),
        F3 => Key::Plain(0x3d),
        F4 => Key::Plain(0x3e),
        F5 => Key::Plain(0x3f),
        F6 => Key::Plain(0x40),
        F7 => Key::Plain(0x41),
        F8 => Key::Plain(0x42),
        F9 => Key::Plain(0x43),
        F10 => Key::Plain(0x44),
        F11 => Key::Plain(0x57),
        F12 => Key::Plain(0x58),
        NumLock => Key::Plain(0x45),
        ScrollLock => Key::Plain(0x46),
        Numpad7 => Key::Plain(0x47),
        Numpad8 => Key::Plain(0x48),
        Numpad9 => Key::Plain(0x49),
        NumpadSubtract => Key::Plain(0x4a),
        Numpad4 => Key::Plain(0x4b),
        Numpad5 => Key::Plain(0x4c),
        Numpad6 => Key::Plain(0x4d),
        NumpadAdd => Key::Plain(0x4e),
        Numpad1 => Key::Plain(0x4f),
        Numpad2 => Key::Plain(0x50),
        Numpad3 => Key::Plain(0x51),
        Numpad0 => Key::Plain(0x52),
        NumpadDecimal => Key::Plain(0x53),
        // The key beside the left shift that European keyboards have.
        IntlBackslash => Key::Plain(0x56),
        NumpadEqual => Key::Plain(0x59),
        // Japanese and Brazilian keys.
        KanaMode => Key::Plain(0x70),
        IntlRo => Key::Plain(0x73),
        Convert => Key::Plain(0x79),
        NonConvert => Key::Plain(0x7b),
        IntlYen => Key::Plain(0x7d),
        NumpadComma => Key::Plain(0x7e),
        NumpadEnter => Key::Extended(0x1c),
        ControlRight => Key::Extended(0x1d),
        NumpadDivide => Key::Extended(0x35),
        PrintScreen => Key::Extended(0x37),
        AltRight => Key::Extended(0x38),
        Home => Key::Extended(0x47),
        ArrowUp => Key::Extended(0x48),
        PageUp => Key::Extended(0x49),
        ArrowLeft => Key::Extended(0x4b),
        ArrowRight => Key::Extended(0x4d),
        End => Key::Extended(0x4f),
        ArrowDown => Key::Extended(0x50),
        PageDown => Key::Extended(0x51),
        Insert => Key::Extended(0x52),
        Delete => Key::Extended(0x53),
        SuperLeft => Key::Extended(0x5b),
        SuperRight => Key::Extended(0x5c),
        ContextMenu => Key::Extended(0x5d),
        Power => Key::Extended(0x5e),
        Sleep => Key::Extended(0x5f),
        WakeUp => Key::Extended(0x63),
        AudioVolumeMute => Key::Extended(0x20),
        AudioVolumeDown => Key::Extended(0x2e),
        AudioVolumeUp => Key::Extended(0x30),
        Pause => Key::Pause,
        _ => return None,
    })
}

/// A PC's keyboard sends other codes for Pause with Ctrl, and for Print Screen with Alt (IBM PS/2 technical
/// reference, keyboards 101 and 102).
pub(super) fn with_modifiers(key: Key, ctrl: bool, alt: bool) -> Key {
    match key {
        Key::Pause if ctrl => Key::Extended(0x46),
        Key::Extended(0x37) if alt => Key::Plain(0x54),
        key => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_where_they_are() {
        assert_eq!(key(KeyCode::KeyQ), Some(Key::Plain(0x10)));
        assert_eq!(key(KeyCode::AltRight), Some(Key::Extended(0x38)));
        assert_eq!(key(KeyCode::Fn), None);
        assert_eq!(with_modifiers(Key::Pause, true, false), Key::Extended(0x46));
        assert_eq!(with_modifiers(Key::Extended(0x37), false, true), Key::Plain(0x54));
        assert_eq!(with_modifiers(Key::Pause, false, true), Key::Pause);
    }
}
