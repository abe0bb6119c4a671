//! The I/O APIC (82093AA): 24 interrupt inputs, each sent to the local APIC as its redirection
//! entry says.

use crate::apic::{Apic, DeliveryMode, Message};

/// Physical address of the registers.
pub const BASE: u32 = 0xfec0_0000;
/// Interrupt inputs.
pub const PINS: usize = 24;

/// Memory-mapped: selects a register.
const IOREGSEL: u32 = 0x00;
/// Memory-mapped: the selected register.
const IOWIN: u32 = 0x10;

const IOAPICID: u32 = 0;
const IOAPICVER: u32 = 1;
const IOAPICARB: u32 = 2;
const IOREDTBL: u32 = 0x10;
const IOREDTBL_END: u32 = IOREDTBL + 2 * PINS as u32;

/// Version 11h, the last entry's number above it.
const VERSION: u32 = 0x11 | (PINS as u32 - 1) << 16;

/// Redirection entry: the destination is logical.
const LOGICAL: u32 = 1 << 11;
/// Redirection entry: a level interrupt was accepted and no EOI has come.
const REMOTE_IRR: u32 = 1 << 14;
/// Redirection entry: level-triggered.
const LEVEL: u32 = 1 << 15;
/// Redirection entry: masked.
const MASKED: u32 = 1 << 16;
/// Vector, delivery mode, destination mode, polarity, trigger mode, mask. Polarity is remembered
/// and no more: inputs are told as asserted or not.
const WRITABLE: u32 = 0x0001_afff;

/// The I/O APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ioapic {
    /// Low words of the redirection entries.
    pub config: [u32; PINS],
    /// High words: the destination in the top byte.
    pub destination: [u32; PINS],
    /// IOREGSEL.
    pub select: u32,
    /// The identity, 0 to 15.
    pub id: u32,
    /// Requests not yet sent, a bit each.
    pub irr: u32,
    /// Levels of the inputs, a bit each.
    pub lines: u32,
}

impl Default for Ioapic {
    fn default() -> Self {
        Self { config: [MASKED; PINS], destination: [0; PINS], select: 0, id: 0, irr: 0, lines: 0 }
    }
}

impl Ioapic {
    /// What a reset does; the inputs keep their levels.
    pub fn reset(&mut self) {
        *self = Self { lines: self.lines, ..Self::default() };
    }

    /// Sets the level of an input (0 to 23; others are ignored).
    pub fn set_line(&mut self, pin: u8, level: bool, apic: &mut Apic) {
        let Some(&config) = self.config.get(usize::from(pin)) else { return };
        let bit = 1 << pin;
        let was = self.lines & bit != 0;
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        if level && !was {
            // A masked edge is lost (82093AA, 3.2.4).
            if config & (LEVEL | MASKED) != MASKED {
                self.irr |= bit;
            }
            self.send(usize::from(pin), apic);
        } else if !level && config & LEVEL != 0 {
            self.irr &= !bit;
        }
    }

    /// The local APIC has ended an interrupt that was level-triggered.
    pub fn end_of_interrupt(&mut self, vector: u8, apic: &mut Apic) {
        for pin in 0..PINS {
            if self.config[pin] as u8 == vector && self.config[pin] & REMOTE_IRR != 0 {
                self.config[pin] &= !REMOTE_IRR;
                self.send(pin, apic);
            }
        }
    }

    /// An input is programmed to let the 8259's interrupts through.
    pub fn passes_external(&self) -> bool {
        self.config.iter().any(|c| c & MASKED == 0 && DeliveryMode::of(*c) == DeliveryMode::External)
    }

    /// Sends all requests that may go.
    pub fn send_all(&mut self, apic: &mut Apic) {
        (0..PINS).for_each(|pin| self.send(pin, apic));
    }

    /// Sends the request of a pin, if it has one that may go.
    fn send(&mut self, pin: usize, apic: &mut Apic) {
        let config = self.config[pin];
        if self.irr & 1 << pin == 0 || config & (MASKED | REMOTE_IRR) != 0 {
            return;
        }
        let level = config & LEVEL != 0;
        let accepted = apic.receive(Message {
            vector: config as u8,
            mode: DeliveryMode::of(config),
            level,
            destination: (self.destination[pin] >> 24) as u8,
            logical: config & LOGICAL != 0,
        });
        if !level {
            self.irr &= !(1 << pin);
        } else if accepted {
            self.config[pin] |= REMOTE_IRR;
        }
    }

    /// Reads a register of the window at [`BASE`].
    pub fn read(&self, offset: u32) -> u32 {
        match (offset, self.select) {
            (IOREGSEL, _) => self.select,
            (IOWIN, IOAPICID | IOAPICARB) => self.id << 24,
            (IOWIN, IOAPICVER) => VERSION,
            (IOWIN, IOREDTBL..IOREDTBL_END) => {
                let pin = (self.select - IOREDTBL) as usize / 2;
                if self.select & 1 == 0 { self.config[pin] } else { self.destination[pin] }
            }
            _ => 0,
        }
    }

    /// Writes a register of the window at [`BASE`].
    pub fn write(&mut self, offset: u32, value: u32, apic: &mut Apic) {
        match (offset, self.select) {
            (IOREGSEL, _) => self.select = value & 0xff,
            (IOWIN, IOAPICID) => self.id = value >> 24 & 0xf,
            (IOWIN, IOREDTBL..IOREDTBL_END) => {
                let pin = (self.select - IOREDTBL) as usize / 2;
                if self.select & 1 == 0 {
                    self.write_config(pin, value, apic);
                } else {
                    self.destination[pin] = value & 0xff00_0000;
                }
            }
            _ => {}
        }
    }

    fn write_config(&mut self, pin: usize, value: u32, apic: &mut Apic) {
        let old = self.config[pin];
        // Becoming edge-triggered drops the remote IRR; Linux clears a stuck one so.
        let kept = if value & LEVEL != 0 { old & REMOTE_IRR } else { 0 };
        self.config[pin] = value & WRITABLE | kept;
        let bit = 1 << pin;
        if value & LEVEL != 0 {
            self.irr = self.irr & !bit | self.lines & bit;
        } else if old & LEVEL != 0 {
            self.irr &= !bit;
        }
        self.send(pin, apic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Ioapic, Apic) {
        let mut apic = Apic::default();
        apic.write(crate::apic::SPURIOUS, 0x1ff, 0);
        (Ioapic::default(), apic)
    }

    fn program(ioapic: &mut Ioapic, apic: &mut Apic, pin: u32, config: u32) {
        ioapic.write(IOREGSEL, IOREDTBL + 2 * pin, apic);
        ioapic.write(IOWIN, config, apic);
    }

    #[test]
    fn identifies_itself() {
        let (mut ioapic, mut apic) = pair();
        ioapic.write(IOREGSEL, IOAPICVER, &mut apic);
        assert_eq!(ioapic.read(IOWIN), 0x17_0011);
        ioapic.write(IOREGSEL, 0x10, &mut apic);
        assert_eq!(ioapic.read(IOWIN), 0x1_0000);
        ioapic.write(IOREGSEL, 0xff, &mut apic);
        assert_eq!(ioapic.read(IOWIN), 0);
    }

    #[test]
    fn an_edge_is_sent_once() {
        let (mut ioapic, mut apic) = pair();
        program(&mut ioapic, &mut apic, 1, 0x31);
        ioapic.set_line(1, true, &mut apic);
        assert_eq!(apic.acknowledge(), Some(0x31));
        assert_eq!(apic.write(crate::apic::EOI, 0, 0), None);
        assert_eq!(apic.acknowledge(), None);
        ioapic.set_line(1, true, &mut apic);
        assert_eq!(apic.acknowledge(), None, "no edge");
        ioapic.set_line(1, false, &mut apic);
        ioapic.set_line(1, true, &mut apic);
        assert_eq!(apic.acknowledge(), Some(0x31));
    }

    #[test]
    fn a_masked_edge_is_lost_and_a_masked_level_waits() {
        let (mut ioapic, mut apic) = pair();
        ioapic.set_line(1, true, &mut apic);
        program(&mut ioapic, &mut apic, 1, 0x31);
        assert_eq!(apic.acknowledge(), None);
        ioapic.set_line(10, true, &mut apic);
        program(&mut ioapic, &mut apic, 10, 0x3a | LEVEL);
        assert_eq!(apic.acknowledge(), Some(0x3a));
    }

    #[test]
    fn a_level_is_sent_again_after_eoi_while_it_lasts() {
        let (mut ioapic, mut apic) = pair();
        program(&mut ioapic, &mut apic, 10, 0x3a | LEVEL);
        ioapic.set_line(10, true, &mut apic);
        assert_eq!(apic.acknowledge(), Some(0x3a));
        assert_ne!(ioapic.config[10] & REMOTE_IRR, 0);
        let ended = apic.write(crate::apic::EOI, 0, 0);
        assert_eq!(ended, Some(0x3a));
        ioapic.end_of_interrupt(0x3a, &mut apic);
        assert_eq!(apic.acknowledge(), Some(0x3a));
        ioapic.set_line(10, false, &mut apic);
        apic.write(crate::apic::EOI, 0, 0);
        ioapic.end_of_interrupt(0x3a, &mut apic);
        assert_eq!(apic.acknowledge(), None);
        assert_eq!(ioapic.config[10] & REMOTE_IRR, 0);
    }

    #[test]
    fn switching_to_edge_clears_remote_irr() {
        let (mut ioapic, mut apic) = pair();
        program(&mut ioapic, &mut apic, 10, 0x3a | LEVEL);
        ioapic.set_line(10, true, &mut apic);
        program(&mut ioapic, &mut apic, 10, 0x3a | MASKED);
        assert_eq!(ioapic.config[10] & REMOTE_IRR, 0);
    }

    #[test]
    fn external_interrupts_pass_if_an_input_says_so() {
        let (mut ioapic, mut apic) = pair();
        assert!(!ioapic.passes_external());
        program(&mut ioapic, &mut apic, 0, 0x700);
        assert!(ioapic.passes_external());
    }
}
