//! The 8042 keyboard controller with its two PS/2 ports.
//!
//! Bytes from keyboard and mouse come one at a time with a gap after each that is read, as the
//! wires would have it: the interrupt line drops in between, so that each byte makes an edge.
//!
//! Sources: IBM PS/2 hardware interface technical reference, keyboard and auxiliary device
//! controller; Intel UPI-41AH datasheet.

pub mod keyboard;
pub mod mouse;
pub mod scancodes;

use std::collections::VecDeque;

pub use keyboard::Keyboard;
pub use mouse::Mouse;

/// Data port.
pub const PORT_DATA: u16 = 0x60;
/// Status (read) and command (write) port.
pub const PORT_COMMAND: u16 = 0x64;
/// The keyboard's interrupt line.
pub const IRQ_KEYBOARD: u8 = 1;
/// The mouse's interrupt line.
pub const IRQ_MOUSE: u8 = 12;

const STATUS_OBF: u8 = 0x01;
const STATUS_SYSTEM: u8 = 0x04;
const STATUS_COMMAND: u8 = 0x08;
const STATUS_UNLOCKED: u8 = 0x10;
const STATUS_AUX_OBF: u8 = 0x20;

const READ_RAM: u8 = 0x20;
const READ_RAM_LAST: u8 = 0x3f;
const WRITE_RAM: u8 = 0x60;
const WRITE_RAM_LAST: u8 = 0x7f;
const TEST_PASSWORD: u8 = 0xa4;
const LOAD_PASSWORD: u8 = 0xa5;
const ENABLE_PASSWORD: u8 = 0xa6;
const DISABLE_AUX: u8 = 0xa7;
const ENABLE_AUX: u8 = 0xa8;
const TEST_AUX: u8 = 0xa9;
const SELF_TEST: u8 = 0xaa;
const TEST_KEYBOARD: u8 = 0xab;
const DIAGNOSTIC_DUMP: u8 = 0xac;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;
const READ_INPUT_PORT: u8 = 0xc0;
const POLL_INPUT_LOW: u8 = 0xc1;
const POLL_INPUT_HIGH: u8 = 0xc2;
const READ_OUTPUT_PORT: u8 = 0xd0;
const WRITE_OUTPUT_PORT: u8 = 0xd1;
const WRITE_KEYBOARD_BUFFER: u8 = 0xd2;
const WRITE_AUX_BUFFER: u8 = 0xd3;
const WRITE_AUX: u8 = 0xd4;
const DISABLE_A20: u8 = 0xdd;
const ENABLE_A20: u8 = 0xdf;
const READ_TEST_INPUTS: u8 = 0xe0;
const PULSE_OUTPUT_PORT: u8 = 0xf0;

const SELF_TEST_PASSED: u8 = 0x55;
const NO_PASSWORD: u8 = 0xf1;
const PORT_OK: u8 = 0x00;
const PORT_CLOCK_LOW: u8 = 0x01;

/// Command byte: data from the keyboard raises IRQ 1.
pub const COMMAND_KEYBOARD_IRQ: u8 = 0x01;
/// Command byte: data from the mouse raises IRQ 12.
pub const COMMAND_MOUSE_IRQ: u8 = 0x02;
/// Command byte: the system flag of the status port.
pub const COMMAND_SYSTEM: u8 = 0x04;
/// Command byte: the keyboard's clock is held.
pub const COMMAND_KEYBOARD_OFF: u8 = 0x10;
/// Command byte: the mouse's clock is held.
pub const COMMAND_MOUSE_OFF: u8 = 0x20;
/// Command byte: bytes from the keyboard are translated from scan code set 2 to set 1.
pub const COMMAND_TRANSLATE: u8 = 0x40;

/// Keyboard not locked, manufacturing jumper open, 512 KiB on the board.
const INPUT_PORT: u8 = 0xb0;
const OUTPUT_NOT_RESET: u8 = 0x01;
const OUTPUT_A20: u8 = 0x02;
const OUTPUT_KEYBOARD_OBF: u8 = 0x10;
const OUTPUT_MOUSE_OBF: u8 = 0x20;
const OUTPUT_KEYBOARD_CLOCK: u8 = 0x40;
const OUTPUT_KEYBOARD_DATA: u8 = 0x80;
const OUTPUT_WRITTEN: u8 = 0x0f;

/// From a read of the data port until the next byte is there, in nanoseconds: quicker than the
/// wires (about 1 ms), long enough to be seen.
const GAP_NS: u64 = 100_000;
/// Controller answers that wait at most.
const MAX_REPLIES: usize = 32;

/// Whose byte stands in the output buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The keyboard's, or the controller's own.
    Keyboard,
    /// The mouse's.
    Mouse,
}

/// Where the next byte written to the data port goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// To the keyboard.
    #[default]
    Keyboard,
    /// To the mouse (after D4h).
    Mouse,
    /// To a byte of the controller's RAM (after 60h to 7Fh); 0 is the command byte.
    Ram(u8),
    /// To the output port (after D1h).
    OutputPort,
    /// Back, as if the keyboard had sent it (after D2h).
    KeyboardBuffer,
    /// Back, as if the mouse had sent it (after D3h).
    MouseBuffer,
    /// To the password, up to a zero (after A5h). Passwords are not kept.
    Password,
}

/// The controller and what is plugged into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ps2 {
    /// The keyboard.
    pub keyboard: Keyboard,
    /// The mouse.
    pub mouse: Mouse,
    /// A keyboard is plugged in.
    pub has_keyboard: bool,
    /// A mouse is plugged in.
    pub has_mouse: bool,
    /// Command byte: `COMMAND_*`.
    pub command_byte: u8,
    /// The rest of the controller's RAM; byte 0 is not used.
    pub ram: [u8; 32],
    /// The output port as last written. Bit 0 low resets the processor, bit 1 opens A20.
    pub output_port: u8,
    /// Where the next byte written to the data port goes.
    pub destination: Destination,
    /// The output buffer.
    pub output: Option<(u8, Source)>,
    /// The byte last read from the data port, which it goes on giving.
    pub last_byte: u8,
    /// The last write was to the command port.
    pub command_written: bool,
    /// Answers of the controller.
    pub replies: VecDeque<(u8, Source)>,
    /// Translation has seen a release prefix.
    pub release_pending: bool,
    /// Bits of the input port that commands C1h and C2h put into the status' high nibble.
    pub polled_input: Option<u8>,
    /// The time in nanoseconds at which the output buffer can be filled again.
    pub ready_at: u64,
    /// The guest asked for a reset; see [`Ps2::take_reset`].
    pub reset: bool,
}

impl Default for Ps2 {
    fn default() -> Self {
        Self {
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
            has_keyboard: true,
            has_mouse: true,
            command_byte: COMMAND_KEYBOARD_IRQ | COMMAND_SYSTEM | COMMAND_TRANSLATE,
            ram: [0; 32],
            output_port: OUTPUT_NOT_RESET | OUTPUT_A20,
            destination: Destination::Keyboard,
            output: None,
            last_byte: 0,
            command_written: false,
            replies: VecDeque::new(),
            release_pending: false,
            polled_input: None,
            ready_at: 0,
            reset: false,
        }
    }
}

impl Ps2 {
    /// Puts controller and devices in their power-on state; what is plugged in stays.
    pub fn reset(&mut self) {
        *self = Self { has_keyboard: self.has_keyboard, has_mouse: self.has_mouse, ..Self::default() };
    }

    /// Reads a port.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        self.poll(now);
        match port {
            PORT_DATA => {
                if let Some((byte, _)) = self.output.take() {
                    self.last_byte = byte;
                    self.ready_at = now.saturating_add(GAP_NS);
                }
                self.last_byte
            }
            PORT_COMMAND => self.status(),
            _ => 0xff,
        }
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        // The line has dropped since the last read: an answer need not wait.
        self.ready_at = now;
        match port {
            PORT_DATA => {
                self.command_written = false;
                self.write_data(value);
            }
            PORT_COMMAND => {
                self.command_written = true;
                self.polled_input = None;
                self.command(value);
            }
            _ => {}
        }
        self.poll(now);
    }

    /// The level of IRQ 1.
    pub fn irq1(&self) -> bool {
        matches!(self.output, Some((_, Source::Keyboard))) && self.command_byte & COMMAND_KEYBOARD_IRQ != 0
    }

    /// The level of IRQ 12.
    pub fn irq12(&self) -> bool {
        matches!(self.output, Some((_, Source::Mouse))) && self.command_byte & COMMAND_MOUSE_IRQ != 0
    }

    /// Lets time pass: keys repeat, the mouse reports, the next byte arrives. The interrupt lines
    /// may have risen afterwards.
    pub fn poll(&mut self, now: u64) {
        self.keyboard.poll(now);
        self.mouse.poll(now);
        if self.output.is_none() && (now >= self.ready_at || !self.replies.is_empty()) {
            self.output = self.next_byte();
        }
    }

    /// When [`Ps2::poll`] has something to do next, in nanoseconds. It may have passed.
    pub fn next_event(&self) -> Option<u64> {
        let keyboard = self.keyboard_on() && self.keyboard.has_data();
        let mouse = self.mouse_on() && self.mouse.has_data();
        let byte = self.output.is_none() && (keyboard || mouse || !self.replies.is_empty());
        [self.keyboard.next_event(), self.mouse.next_event(), byte.then_some(self.ready_at)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Presses and releases keys, as bytes of scan code set 1 (prefixes E0 and E1 included). Takes
    /// all or nothing: false says that the guest has too many to read, try again later. Whoever
    /// gives a press gives its release; in between the keyboard repeats by itself.
    pub fn key(&mut self, set1: &[u8], now: u64) -> bool {
        let taken = !self.has_keyboard || self.keyboard.key(set1, now);
        self.poll(now);
        taken
    }

    /// Releases all keys that are down, as when the host's window loses the keyboard.
    pub fn release_keys(&mut self, now: u64) {
        self.keyboard.release_all(now);
        self.poll(now);
    }

    /// Moves the mouse: counts to the right, counts away from the user (up), wheel steps towards
    /// the user (down).
    pub fn mouse_move(&mut self, dx: i32, dy: i32, dz: i32, now: u64) {
        if self.has_mouse {
            self.mouse.move_by(dx, dy, dz);
            self.poll(now);
        }
    }

    /// Has the mouse interrupt the guest, whose driver for it finds by that what an absolute pointer has to tell.
    pub fn mouse_ring(&mut self, now: u64) {
        if self.has_mouse {
            self.mouse.ring();
            self.poll(now);
        }
    }

    /// Sets the mouse's left, middle and right button.
    pub fn mouse_buttons(&mut self, left: bool, middle: bool, right: bool, now: u64) {
        let states =
            [(left, mouse::BUTTON_LEFT), (middle, mouse::BUTTON_MIDDLE), (right, mouse::BUTTON_RIGHT)];
        self.set_buttons(&states, now);
    }

    /// Sets the mouse's fourth and fifth button ("back" and "forward").
    pub fn mouse_side_buttons(&mut self, fourth: bool, fifth: bool, now: u64) {
        self.set_buttons(&[(fourth, mouse::BUTTON_4), (fifth, mouse::BUTTON_5)], now);
    }

    fn set_buttons(&mut self, states: &[(bool, u8)], now: u64) {
        if self.has_mouse {
            let (buttons, mask) = states.iter().fold((0, 0), |(buttons, mask), &(down, bit)| {
                (if down { buttons | bit } else { buttons }, mask | bit)
            });
            self.mouse.set_buttons(buttons, mask);
            self.poll(now);
        }
    }

    /// The keyboard's LEDs: scroll lock 1, num lock 2, caps lock 4.
    pub fn leds(&self) -> u8 {
        self.keyboard.leds
    }

    /// Whether the guest has a driver for the mouse.
    pub fn mouse_used(&self) -> bool {
        self.mouse.used
    }

    /// The A20 gate is open as far as this controller goes; port 92h can open it too.
    pub fn a20(&self) -> bool {
        self.output_port & OUTPUT_A20 != 0
    }

    /// Whether the guest asked for a reset of the processor since the last call.
    pub fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }

    fn keyboard_on(&self) -> bool {
        self.has_keyboard && self.command_byte & COMMAND_KEYBOARD_OFF == 0
    }

    fn mouse_on(&self) -> bool {
        self.has_mouse && self.command_byte & COMMAND_MOUSE_OFF == 0
    }

    fn status(&self) -> u8 {
        let mut status = match self.output {
            None => 0,
            Some((_, Source::Keyboard)) => STATUS_OBF,
            Some((_, Source::Mouse)) => STATUS_OBF | STATUS_AUX_OBF,
        };
        // The input buffer is emptied as it is filled.
        status |= self.command_byte & COMMAND_SYSTEM & STATUS_SYSTEM;
        if self.command_written {
            status |= STATUS_COMMAND;
        }
        match self.polled_input {
            Some(nibble) => (status & 0x0f) | nibble << 4,
            None => status | STATUS_UNLOCKED,
        }
    }

    /// What goes into the output buffer next.
    fn next_byte(&mut self) -> Option<(u8, Source)> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        while self.keyboard_on() {
            let Some(byte) = self.keyboard.read() else { break };
            if self.command_byte & COMMAND_TRANSLATE == 0 {
                return Some((byte, Source::Keyboard));
            }
            if byte == scancodes::BREAK {
                self.release_pending = true;
                continue;
            }
            let release = if std::mem::take(&mut self.release_pending) { scancodes::SET1_BREAK } else { 0 };
            return Some((scancodes::translate(byte) | release, Source::Keyboard));
        }
        if self.mouse_on() { self.mouse.read().map(|byte| (byte, Source::Mouse)) } else { None }
    }

    fn reply(&mut self, byte: u8) {
        self.reply_as(byte, Source::Keyboard);
    }

    fn reply_as(&mut self, byte: u8, source: Source) {
        if self.replies.len() < MAX_REPLIES {
            self.replies.push_back((byte, source));
        }
    }

    fn command(&mut self, command: u8) {
        self.destination = Destination::Keyboard;
        match command {
            READ_RAM..=READ_RAM_LAST => self.reply(self.read_ram(command - READ_RAM)),
            WRITE_RAM..=WRITE_RAM_LAST => self.destination = Destination::Ram(command - WRITE_RAM),
            TEST_PASSWORD => self.reply(NO_PASSWORD),
            LOAD_PASSWORD => self.destination = Destination::Password,
            // There is none to enable.
            ENABLE_PASSWORD => {}
            DISABLE_AUX => self.command_byte |= COMMAND_MOUSE_OFF,
            ENABLE_AUX => self.command_byte &= !COMMAND_MOUSE_OFF,
            TEST_AUX => self.reply(if self.has_mouse { PORT_OK } else { PORT_CLOCK_LOW }),
            SELF_TEST => {
                self.command_byte |= COMMAND_SYSTEM;
                self.reply(SELF_TEST_PASSED);
            }
            TEST_KEYBOARD => self.reply(if self.has_keyboard { PORT_OK } else { PORT_CLOCK_LOW }),
            DIAGNOSTIC_DUMP => self.dump(),
            DISABLE_KEYBOARD => self.command_byte |= COMMAND_KEYBOARD_OFF,
            ENABLE_KEYBOARD => self.command_byte &= !COMMAND_KEYBOARD_OFF,
            READ_INPUT_PORT => self.reply(INPUT_PORT),
            POLL_INPUT_LOW => self.polled_input = Some(INPUT_PORT & 0x0f),
            POLL_INPUT_HIGH => self.polled_input = Some(INPUT_PORT >> 4),
            READ_OUTPUT_PORT => self.reply(self.read_output_port()),
            WRITE_OUTPUT_PORT => self.destination = Destination::OutputPort,
            WRITE_KEYBOARD_BUFFER => self.destination = Destination::KeyboardBuffer,
            WRITE_AUX_BUFFER => self.destination = Destination::MouseBuffer,
            WRITE_AUX => self.destination = Destination::Mouse,
            DISABLE_A20 => self.output_port &= !OUTPUT_A20,
            ENABLE_A20 => self.output_port |= OUTPUT_A20,
            // T0 and T1: the clocks, low while they are held.
            READ_TEST_INPUTS => self.reply(u8::from(self.keyboard_on()) | u8::from(self.mouse_on()) << 1),
            // A clear bit is pulsed low.
            PULSE_OUTPUT_PORT.. => self.reset |= command & OUTPUT_NOT_RESET == 0,
            _ => {}
        }
    }

    fn write_data(&mut self, value: u8) {
        match std::mem::take(&mut self.destination) {
            Destination::Keyboard => {
                // Sending to a device lets its clock go.
                self.command_byte &= !COMMAND_KEYBOARD_OFF;
                self.release_pending = false;
                if self.has_keyboard {
                    self.keyboard.write(value);
                }
            }
            Destination::Mouse => {
                self.command_byte &= !COMMAND_MOUSE_OFF;
                if self.has_mouse {
                    self.mouse.write(value);
                }
            }
            Destination::Ram(0) => self.command_byte = value,
            Destination::Ram(address) => self.ram[usize::from(address & 0x1f)] = value,
            Destination::OutputPort => {
                self.output_port = value;
                self.reset |= value & OUTPUT_NOT_RESET == 0;
            }
            Destination::KeyboardBuffer => self.reply_as(value, Source::Keyboard),
            Destination::MouseBuffer => self.reply_as(value, Source::Mouse),
            Destination::Password => {
                if value != 0 {
                    self.destination = Destination::Password;
                }
            }
        }
    }

    fn read_ram(&self, address: u8) -> u8 {
        match address {
            0 => self.command_byte,
            _ => self.ram[usize::from(address & 0x1f)],
        }
    }

    fn read_output_port(&self) -> u8 {
        let mut value = (self.output_port & OUTPUT_WRITTEN) | OUTPUT_KEYBOARD_DATA;
        if self.irq1() {
            value |= OUTPUT_KEYBOARD_OBF;
        }
        if self.irq12() {
            value |= OUTPUT_MOUSE_OBF;
        }
        if self.keyboard_on() {
            value |= OUTPUT_KEYBOARD_CLOCK;
        }
        value
    }

    /// RAM, input port, output port, status.
    fn dump(&mut self) {
        for address in 0..16 {
            self.reply(self.read_ram(address));
        }
        self.reply(INPUT_PORT);
        self.reply(self.read_output_port());
        self.reply(self.status());
    }
}

#[cfg(test)]
mod tests;
