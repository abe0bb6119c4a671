//! A parallel port with a printer that takes whatever it is given, in the compatibility mode of IEEE 1284-1994: a
//! byte in the data register goes to the printer when the strobe rises.

use crate::board::OUTPUT_LIMIT;
use crate::board::device::{Access, Claims, Context, Device, Lines, Widths};
use env86_emu::Memory;

/// The first of its three ports: data, status, control.
pub const PORT_BASE: u16 = 0x378;
/// How many it has.
pub const PORT_COUNT: u16 = 3;
/// Its interrupt: the printer has taken a byte.
pub const IRQ: u8 = 7;

const DATA: u16 = 0;
const STATUS: u16 = 1;
const CONTROL: u16 = 2;

/// Bits of the status register, as the guest reads them. Those that have no line are 0: SeaBIOS gives them to DOS as
/// they are, where the lowest means that the printer has not answered in time.
mod status {
    /// The line nFault is high: nothing is wrong.
    pub const NO_FAULT: u8 = 1 << 3;
    /// The printer is on line.
    pub const SELECT: u8 = 1 << 4;
    /// The line nAck is high: no byte is being acknowledged.
    pub const NO_ACK: u8 = 1 << 6;
    /// The line Busy, inverted: the printer takes a byte.
    pub const NOT_BUSY: u8 = 1 << 7;
}

/// Bits of the control register.
mod control {
    /// The line nStrobe, inverted.
    pub const STROBE: u8 = 1 << 0;
    /// Acknowledgements raise the interrupt.
    pub const INTERRUPT: u8 = 1 << 4;
}

/// The control register's bits: its lines, and the switch for the interrupt. There is no other direction.
pub const CONTROL_BITS: u8 = 0x1f;

/// The port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lpt {
    /// A host takes what is printed. Without one it goes nowhere.
    pub connected: bool,
    /// The data register.
    pub data: u8,
    /// The control register.
    pub control: u8,
    /// The printer has taken a byte, and the guest has not looked since.
    pub acknowledged: bool,
    output: Vec<u8>,
}

impl Lpt {
    /// A reset of the machine. What has been printed stays.
    pub fn reset(&mut self) {
        (self.data, self.control, self.acknowledged) = (0, 0, false);
    }

    /// Reads the port at an offset from [`PORT_BASE`].
    pub fn read(&mut self, offset: u16) -> u8 {
        match offset {
            DATA => self.data,
            STATUS => {
                // A BIOS waits until it has seen the pulse, which lasts until someone looks.
                let no_ack = if std::mem::take(&mut self.acknowledged) { 0 } else { status::NO_ACK };
                status::NO_FAULT | status::SELECT | no_ack | status::NOT_BUSY
            }
            _ => self.control | !CONTROL_BITS,
        }
    }

    /// Writes the port at an offset from [`PORT_BASE`].
    pub fn write(&mut self, offset: u16, value: u8) {
        match offset {
            DATA => {
                self.data = value;
                self.acknowledged = false;
            }
            CONTROL => {
                if value & !self.control & control::STROBE != 0 {
                    self.acknowledged = true;
                    if self.connected {
                        self.output.push(self.data);
                    }
                }
                self.control = value & CONTROL_BITS;
            }
            _ => {}
        }
    }

    /// The interrupt line.
    pub fn irq(&self) -> bool {
        self.acknowledged && self.control & control::INTERRUPT != 0
    }

    /// Bytes printed since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Bytes that wait for the host.
    pub fn waiting(&self) -> usize {
        self.output.len()
    }
}

impl Device for Lpt {
    fn reset(&mut self, _: &mut Memory) {
        self.reset();
    }

    fn claims(&self, claims: &mut Claims) {
        claims.ports(0, PORT_BASE, PORT_COUNT, Widths::Bytes);
    }

    fn read(&mut self, _: &mut Context, at: Access) -> u32 {
        self.read(at.offset).into()
    }

    fn write(&mut self, cx: &mut Context, at: Access, value: u32) {
        self.write(at.offset, value as u8);
        if self.waiting() > OUTPUT_LIMIT {
            cx.requests.output();
        }
    }

    fn lines(&mut self, _: u64) -> Lines {
        Lines::isa(IRQ, self.irq())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints as a driver does.
    fn print(lpt: &mut Lpt, text: &[u8], control: u8) {
        for byte in text {
            lpt.write(DATA, *byte);
            assert_eq!(lpt.read(STATUS), 0xd8);
            lpt.write(CONTROL, control | control::STROBE);
            lpt.write(CONTROL, control);
        }
    }

    #[test]
    fn each_strobe_prints_a_byte() {
        let mut lpt = Lpt { connected: true, ..Lpt::default() };
        print(&mut lpt, b"text", 0x0c);
        lpt.write(CONTROL, 0x0d);
        lpt.write(CONTROL, 0x0d);
        assert_eq!(lpt.take_output(), b"textt");
        lpt.connected = false;
        print(&mut lpt, b"nobody", 0x0c);
        assert_eq!(lpt.waiting(), 0);
    }

    #[test]
    fn registers_are_found_by_drivers() {
        let mut lpt = Lpt::default();
        for (value, read) in [(0x0c, 0xec), (0x2e, 0xee), (0xff, 0xff)] {
            lpt.write(CONTROL, value);
            assert_eq!(lpt.read(CONTROL), read);
        }
        for value in [0x55, 0xaa] {
            lpt.write(DATA, value);
            lpt.write(STATUS, 0);
            assert_eq!(lpt.read(DATA), value);
        }
        lpt.reset();
        assert_eq!(lpt, Lpt::default());
    }

    #[test]
    fn an_acknowledgement_interrupts_once() {
        let mut lpt = Lpt::default();
        print(&mut lpt, b"x", 0x0c);
        assert!(!lpt.irq());
        print(&mut lpt, b"x", 0x1c);
        assert!(lpt.irq());
        assert_eq!([0; 2].map(|_| lpt.read(STATUS)), [0x98, 0xd8]);
        assert!(!lpt.irq());
        print(&mut lpt, b"x", 0x1c);
        lpt.write(DATA, 0);
        assert!(!lpt.irq());
    }
}
