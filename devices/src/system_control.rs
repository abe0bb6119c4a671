//! Ports 61h and 92h: the loose gates of the board around timer, speaker, A20 and reset.
//!
//! Source: PIIX3 datasheet 2.5.5 (NMI status and control), 2.5.8 (fast A20 and reset).

use crate::pit::{self, Pit};

/// System control port B: timer 2, speaker, NMI sources.
pub const PORT_B: u16 = 0x61;
/// System control port A: A20 and fast reset.
pub const PORT_A: u16 = 0x92;

const B_TIMER2_GATE: u8 = 0x01;
const B_SPEAKER: u8 = 0x02;
/// PCI SERR# and ISA IOCHK# are not to raise NMI. Neither source is fitted: bits 6 and 7 read 0.
const B_NMI_DISABLES: u8 = 0x0c;
const B_REFRESH: u8 = 0x10;
const B_TIMER2_OUT: u8 = 0x20;
const B_WRITABLE: u8 = B_TIMER2_GATE | B_SPEAKER | B_NMI_DISABLES;

const A_FAST_RESET: u8 = 0x01;
const A_A20: u8 = 0x02;

/// A memory refresh cycle starts every 18 ticks of the timer's clock (15.085 us).
const REFRESH_TICKS: u64 = 18;

/// The two ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemControl {
    /// The writable bits of port 61h.
    pub port_b: u8,
    /// Port 92h as written.
    pub port_a: u8,
    /// The guest set the fast reset bit; see [`SystemControl::take_reset`].
    pub reset: bool,
}

impl Default for SystemControl {
    fn default() -> Self {
        Self { port_b: 0, port_a: A_A20, reset: false }
    }
}

impl SystemControl {
    /// Reads a port.
    pub fn read(&self, port: u16, pit: &Pit, now: u64) -> u8 {
        match port {
            PORT_B => {
                let mut value = self.port_b;
                if (pit::ticks(now) / REFRESH_TICKS) & 1 != 0 {
                    value |= B_REFRESH;
                }
                if pit.output(2, now) {
                    value |= B_TIMER2_OUT;
                }
                value
            }
            PORT_A => self.port_a,
            _ => 0xff,
        }
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, value: u8, pit: &mut Pit, now: u64) {
        match port {
            PORT_B => {
                self.port_b = value & B_WRITABLE;
                pit.set_gate2(value & B_TIMER2_GATE != 0, now);
                pit.set_speaker(self.speaker(), now);
            }
            PORT_A => {
                // The pulse comes with the bit's rise.
                self.reset |= value & !self.port_a & A_FAST_RESET != 0;
                self.port_a = value;
            }
            _ => {}
        }
    }

    /// The A20 gate is open as far as this port goes; the keyboard controller can open it too.
    pub fn a20(&self) -> bool {
        self.port_a & A_A20 != 0
    }

    /// Whether the speaker hears timer 2.
    pub fn speaker(&self) -> bool {
        self.port_b & B_SPEAKER != 0
    }

    /// Whether the guest asked for a reset of the processor since the last call.
    pub fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refresh_toggles_every_15_microseconds() {
        let (control, pit) = (SystemControl::default(), Pit::default());
        let edges = (0..1_000_000)
            .step_by(1000)
            .map(|now| control.read(PORT_B, &pit, now) & B_REFRESH)
            .collect::<Vec<_>>()
            .windows(2)
            .filter(|w| w[0] != w[1])
            .count();
        assert_eq!(edges, 66);
    }

    #[test]
    fn the_gate_starts_timer_2_and_its_output_is_seen() {
        let (mut control, mut pit) = (SystemControl::default(), Pit::default());
        pit.write(pit::PORT_CONTROL, 0xb0, 0);
        pit.write(pit::PORT_COUNTER2, 100, 0);
        pit.write(pit::PORT_COUNTER2, 0, 0);
        assert_eq!(control.read(PORT_B, &pit, 1_000_000) & B_TIMER2_OUT, 0);
        control.write(PORT_B, 1, &mut pit, 1_000_000);
        assert_eq!(control.read(PORT_B, &pit, 1_080_000) & B_TIMER2_OUT, 0);
        assert_eq!(control.read(PORT_B, &pit, 1_090_000) & B_TIMER2_OUT, B_TIMER2_OUT);
    }

    #[test]
    fn only_four_bits_of_port_b_are_kept() {
        let (mut control, mut pit) = (SystemControl::default(), Pit::default());
        control.write(PORT_B, 0xff, &mut pit, 0);
        assert_eq!(control.port_b, 0x0f);
        assert!(control.speaker());
    }

    #[test]
    fn port_a_holds_a20() {
        let (mut control, mut pit) = (SystemControl::default(), Pit::default());
        control.write(PORT_A, 0, &mut pit, 0);
        assert!(!control.a20());
        control.write(PORT_A, 2, &mut pit, 0);
        assert!(control.a20());
        assert_eq!(control.read(PORT_A, &pit, 0), 2);
    }

    #[test]
    fn the_fast_reset_bit_resets_when_it_rises() {
        let (mut control, mut pit) = (SystemControl::default(), Pit::default());
        control.write(PORT_A, 3, &mut pit, 0);
        assert!(control.take_reset());
        assert!(!control.take_reset());
        control.write(PORT_A, 3, &mut pit, 0);
        assert!(!control.take_reset());
    }
}
