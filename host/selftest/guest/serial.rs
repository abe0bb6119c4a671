//! The first serial port, which shows what the screen shows.

use iced_x86::code_asm::*;

use crate::guest::{Guest, Result};

/// COM1, and its registers (16550A datasheet, 8).
pub const COM1: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
/// Line status.
pub const LINE_STATUS: u16 = 5;

const DIVISOR_LATCH: u8 = 0x80;
const EIGHT_BITS: u8 = 0x03;
/// 115,200 baud.
const DIVISOR: [u8; 2] = [1, 0];
const FIFO_ON: u8 = 0x07;
/// Interrupt identification: the FIFO is on.
const FIFO_IS_ON: u32 = 0xc0;
const READY_TO_RECEIVE: u8 = 0x03;
const LOOP: u8 = 0x10;
/// Line status: a byte has come.
pub const DATA_READY: u8 = 0x01;
/// Line status: a byte may go.
const ROOM: u8 = 0x20;

/// Sets COM1 up to send. It does not receive yet.
pub fn set_up(g: &mut Guest) -> Result {
    let registers = [
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, DIVISOR_LATCH),
        (0, DIVISOR[0]),
        (1, DIVISOR[1]),
        (LINE_CONTROL, EIGHT_BITS),
        (FIFO_CONTROL, FIFO_ON),
        (MODEM_CONTROL, 0),
    ];
    registers.into_iter().try_for_each(|(register, value)| g.write(COM1 + register, value))
}

/// The subroutine that sends AL, or gives up after a while.
pub fn send(g: &mut Guest) -> Result<CodeLabel> {
    const LOOKS: u32 = 0x1_0000;
    let [room, done] = [(); 2].map(|()| g.create_label());
    let send = g.mark()?;
    g.pushad()?;
    g.mov(ah, al)?;
    g.mov(ecx, LOOKS)?;
    let look = g.mark()?;
    g.read(COM1 + LINE_STATUS)?;
    g.test(al, u32::from(ROOM))?;
    g.jne(room)?;
    g.dec(ecx)?;
    g.jne(look)?;
    g.jmp(done)?;
    g.here(room)?;
    g.mov(al, ah)?;
    g.write_al(COM1)?;
    g.here(done)?;
    g.popad()?;
    g.ret()?;
    Ok(send)
}

/// Sends bytes to itself; afterwards it receives.
pub fn test(g: &mut Guest) -> Result {
    g.read(COM1 + LINE_STATUS)?;
    g.cmp(al, 0xff)?;
    let there = g.create_label();
    g.jne(there)?;
    g.say_absent("nothing at 3F8h")?;
    g.here(there)?;

    // What is being sent goes out before the line is turned back.
    g.set_deadline(100)?;
    let sending = g.create_label();
    let wait = g.mark()?;
    g.read(COM1 + LINE_STATUS)?;
    g.test(al, 0x40)?;
    g.jne(sending)?;
    g.before_deadline(wait)?;
    g.here(sending)?;

    g.write(COM1 + MODEM_CONTROL, LOOP)?;
    for byte in [0x55, 0xaa] {
        g.write(COM1, byte)?;
        g.set_deadline(100)?;
        let come = g.create_label();
        let wait = g.mark()?;
        g.read(COM1 + LINE_STATUS)?;
        g.test(al, u32::from(DATA_READY))?;
        g.jne(come)?;
        g.before_deadline(wait)?;
        g.here(come)?;
        g.read(COM1)?;
        g.cmp(al, u32::from(byte))?;
        g.fail_unless_equal("what COM1 sends to itself does not come")?;
    }
    g.write(COM1 + MODEM_CONTROL, READY_TO_RECEIVE)?;

    g.put("COM1 at 115200 baud, sends to itself")?;
    g.read(COM1 + FIFO_CONTROL)?;
    g.and(al, FIFO_IS_ON)?;
    g.cmp(al, FIFO_IS_ON)?;
    let no_fifo = g.create_label();
    g.jne(no_fifo)?;
    g.put(", with a FIFO")?;
    g.here(no_fifo)?;
    Ok(())
}
