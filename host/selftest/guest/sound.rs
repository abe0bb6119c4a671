//! The Sound Blaster's processor, and the speaker.

use iced_x86::code_asm::*;

use crate::guest::{Guest, Result};
use crate::timers::{PIT_CONTROL, PIT_HZ};

/// The card's ports (Sound Blaster Series Hardware Programming Guide, 2).
const DSP_RESET: u16 = 0x226;
const DSP_READ: u16 = 0x22a;
const DSP_WRITE: u16 = 0x22c;
const DSP_STATUS: u16 = 0x22e;
/// A byte has come, or, in the other port, none can go.
const BUSY: u8 = 0x80;
const READY: u8 = 0xaa;
const GET_VERSION: u8 = 0xe1;
/// A port that takes a microsecond and does nothing.
const DELAY: u16 = 0x80;

const PORT_B: u16 = 0x61;
const TIMER2_GATE: u8 = 0x01;
const SPEAKER: u8 = 0x02;
const TIMER2_OUT: u8 = 0x20;
const PIT_COUNTER2: u16 = 0x42;
/// Counter 2, both bytes, mode 3.
const SQUARE_WAVE: u8 = 0xb6;
const TONE_HZ: u64 = 880;
/// The tone lasts for so many of the timer's interrupts, 55 ms each.
const TONE_TICKS: usize = 2;

/// Resets the card's processor and asks for its version.
pub fn card(g: &mut Guest) -> Result {
    g.write(DSP_RESET, 1)?;
    g.mov(ecx, 4)?;
    let wait = g.mark()?;
    g.write_al(DELAY)?;
    g.loop_(wait)?;
    g.write(DSP_RESET, 0)?;
    answer(g)?;
    g.cmp(al, u32::from(READY))?;
    g.absent_unless_equal("no card at 220h")?;

    g.set_deadline(100)?;
    let room = g.create_label();
    let wait = g.mark()?;
    g.read(DSP_WRITE)?;
    g.test(al, u32::from(BUSY))?;
    g.je(room)?;
    g.before_deadline(wait)?;
    g.fail("its processor takes no command")?;
    g.here(room)?;
    g.write(DSP_WRITE, GET_VERSION)?;
    g.put("Sound Blaster at 220h, DSP ")?;
    answer(g)?;
    g.movzx(eax, al)?;
    g.put_decimal()?;
    answer(g)?;
    // Two digits.
    g.aam(10)?;
    g.movzx(ebx, al)?;
    g.movzx(eax, ah)?;
    g.put(".")?;
    g.put_decimal()?;
    g.mov(eax, ebx)?;
    g.put_decimal()
}

/// Waits for a byte, and reads it into AL, or whatever is there after a while.
fn answer(g: &mut Guest) -> Result {
    let come = g.create_label();
    g.set_deadline(100)?;
    let wait = g.mark()?;
    g.read(DSP_STATUS)?;
    g.test(al, u32::from(BUSY))?;
    g.jne(come)?;
    g.before_deadline(wait)?;
    g.here(come)?;
    g.read(DSP_READ)
}

/// A tone, whose wave can be seen.
pub fn speaker(g: &mut Guest) -> Result {
    let [low, high] = ((PIT_HZ / TONE_HZ) as u16).to_le_bytes();
    g.write(PIT_CONTROL, SQUARE_WAVE)?;
    g.write(PIT_COUNTER2, low)?;
    g.write(PIT_COUNTER2, high)?;
    g.read(PORT_B)?;
    g.or(al, u32::from(TIMER2_GATE | SPEAKER))?;
    g.write_al(PORT_B)?;
    for level in [0, TIMER2_OUT, 0] {
        let seen = g.create_label();
        g.set_deadline(100)?;
        let wait = g.mark()?;
        g.read(PORT_B)?;
        g.and(al, u32::from(TIMER2_OUT))?;
        g.cmp(al, u32::from(level))?;
        g.je(seen)?;
        g.before_deadline(wait)?;
        silence(g)?;
        g.fail("timer 2 stands still")?;
        g.here(seen)?;
    }
    for _ in 0..TONE_TICKS {
        g.run(|to| to.rest)?;
    }
    silence(g)?;
    g.put(&format!("{TONE_HZ} Hz by timer 2"))
}

fn silence(g: &mut Guest) -> Result {
    g.read(PORT_B)?;
    g.and(al, u32::from(!(TIMER2_GATE | SPEAKER)))?;
    g.write_al(PORT_B)
}
