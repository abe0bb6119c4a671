//! The keyboard controller (8042) with keyboard and mouse, by what is said and answered.

use iced_x86::code_asm::*;

use crate::guest::{Guest, Result};

/// Data port.
pub const DATA: u16 = 0x60;
/// Status and command port.
pub const COMMAND: u16 = 0x64;
/// Status: a byte has come.
pub const OUTPUT_FULL: u8 = 0x01;
const INPUT_FULL: u8 = 0x02;
/// The scan code of Esc, in the first set.
pub const ESCAPE_PRESSED: u8 = 0x01;

/// Command byte: system flag alone, and with translation to the first set of scan codes. Nothing interrupts.
const PLAIN: u8 = 0x04;
const TRANSLATED: u8 = 0x44;
const ACK: u8 = 0xfa;
const TEST_PASSED: u8 = 0xaa;
const MOUSE: u8 = 0x00;

/// Whom a byte is for.
#[derive(Clone, Copy)]
enum To {
    /// The controller.
    Controller,
    /// The keyboard, or the controller if it has been told that data come.
    Keyboard,
    /// The mouse.
    Mouse,
}

/// A byte, the answer to it, and what has failed if that does not come.
type Exchange = (To, u8, &'static [u8], &'static str);

const KEYBOARD: [Exchange; 15] = [
    (To::Controller, 0xad, &[], ""), // keyboard off
    (To::Controller, 0xa7, &[], ""), // mouse off
    (To::Controller, 0xaa, &[0x55], "the controller's self-test fails"),
    (To::Controller, 0x60, &[], ""), // here comes the command byte
    (To::Keyboard, PLAIN, &[], ""),
    (To::Controller, 0xab, &[0x00], "the keyboard's line is stuck"),
    (To::Keyboard, 0xff, &[ACK, TEST_PASSED], "the keyboard's self-test fails"),
    (To::Keyboard, 0xf2, &[ACK, 0xab, 0x83], "the keyboard does not identify itself"),
    (To::Keyboard, 0xed, &[ACK], "the keyboard does not take LEDs"),
    (To::Keyboard, 0x07, &[ACK], "the keyboard does not switch its LEDs on"),
    (To::Keyboard, 0xed, &[ACK], "the keyboard does not take LEDs"),
    (To::Keyboard, 0x00, &[ACK], "the keyboard does not switch its LEDs off"),
    (To::Keyboard, 0xf4, &[ACK], "the keyboard does not scan"),
    (To::Controller, 0x60, &[], ""),
    (To::Keyboard, TRANSLATED, &[], ""),
];

const MOUSE_PRESENT: [Exchange; 2] = [
    (To::Controller, 0xa8, &[], ""), // mouse on
    (To::Controller, 0xa9, &[0x00], "nothing at the second port"),
];

const MOUSE_WORKS: [Exchange; 2] = [
    (To::Mouse, 0xff, &[ACK, TEST_PASSED, MOUSE], "its self-test fails"),
    (To::Mouse, 0xf2, &[ACK, MOUSE], "it does not identify itself"),
];

/// Controller and keyboard test themselves, and the LEDs are switched on and off.
pub fn keyboard(g: &mut Guest) -> Result {
    g.read(COMMAND)?;
    let there = g.create_label();
    g.cmp(al, 0xff)?;
    g.jne(there)?;
    g.say_absent("no controller at 60h")?;
    g.here(there)?;
    talk(g, &KEYBOARD, false)?;
    g.put("8042 and keyboard pass their self-tests; LEDs on and off")
}

/// The mouse tests itself.
pub fn mouse(g: &mut Guest) -> Result {
    talk(g, &MOUSE_PRESENT, true)?;
    talk(g, &MOUSE_WORKS, false)?;
    g.put("PS/2, passes its self-test")
}

/// Says things and waits for the answers.
fn talk(g: &mut Guest, exchanges: &[Exchange], may_be_absent: bool) -> Result {
    /// A keyboard's self-test takes most of it.
    const ANSWER_MS: u32 = 1000;
    for (to, byte, answers, reason) in exchanges {
        match to {
            To::Controller => say(g, COMMAND, *byte)?,
            To::Keyboard => say(g, DATA, *byte)?,
            To::Mouse => {
                say(g, COMMAND, 0xd4)?;
                say(g, DATA, *byte)?;
            }
        }
        for answer in *answers {
            // Others may come before it: keys that were pressed.
            let [come, late] = [(); 2].map(|()| g.create_label());
            g.set_deadline(ANSWER_MS)?;
            let wait = g.mark()?;
            g.read(COMMAND)?;
            g.test(al, u32::from(OUTPUT_FULL))?;
            g.je(late)?;
            g.in_(al, u32::from(DATA))?;
            g.cmp(al, u32::from(*answer))?;
            g.je(come)?;
            g.here(late)?;
            g.before_deadline(wait)?;
            if may_be_absent {
                g.say_absent(reason)?
            } else {
                g.fail(reason)?
            }
            g.here(come)?;
        }
    }
    Ok(())
}

/// Writes a byte when there is room for it.
fn say(g: &mut Guest, port: u16, byte: u8) -> Result {
    const ROOM_MS: u32 = 100;
    let room = g.create_label();
    g.set_deadline(ROOM_MS)?;
    let wait = g.mark()?;
    g.read(COMMAND)?;
    g.test(al, u32::from(INPUT_FULL))?;
    g.je(room)?;
    g.before_deadline(wait)?;
    g.fail("the controller takes nothing")?;
    g.here(room)?;
    g.write(port, byte)
}
