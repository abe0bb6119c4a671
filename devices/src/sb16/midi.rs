//! The MPU-401, with no instrument at its port: what is sent to it is lost.

use std::collections::VecDeque;

/// There is nothing to read.
const STATUS_EMPTY: u8 = 0x80;
const COMMAND_RESET: u8 = 0xff;
const COMMAND_UART: u8 = 0x3f;
const ACKNOWLEDGE: u8 = 0xfe;

/// The interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Midi {
    /// It only passes bytes on, and knows no command but the reset.
    pub uart: bool,
    /// Answers that wait.
    pub answers: VecDeque<u8>,
}

impl Midi {
    /// Answers that wait at most.
    pub const LIMIT: usize = 16;

    /// The status port. The interface can always be written to.
    pub fn status(&self) -> u8 {
        if self.answers.is_empty() { STATUS_EMPTY } else { 0 }
    }

    /// The data port.
    pub fn read(&mut self) -> u8 {
        self.answers.pop_front().unwrap_or(ACKNOWLEDGE)
    }

    /// The command port.
    pub fn command(&mut self, command: u8) {
        let was_uart = std::mem::replace(&mut self.uart, false);
        match command {
            // It leaves UART mode in silence.
            COMMAND_RESET if was_uart => return,
            COMMAND_RESET => self.answers.clear(),
            _ if was_uart => self.uart = true,
            COMMAND_UART => self.uart = true,
            other => tracing::debug!(target: "sb16", command = other, "the MPU-401 does not know this"),
        }
        if !(was_uart && self.uart) && self.answers.len() < Self::LIMIT {
            self.answers.push_back(ACKNOWLEDGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_acknowledges_what_a_driver_asks() {
        let mut midi = Midi::default();
        assert_eq!(midi.status(), STATUS_EMPTY);
        for command in [COMMAND_RESET, COMMAND_UART] {
            midi.command(command);
            assert_eq!((midi.status(), midi.read(), midi.status()), (0, ACKNOWLEDGE, STATUS_EMPTY));
        }
        assert!(midi.uart);
        midi.command(0x12);
        assert_eq!((midi.uart, midi.status()), (true, STATUS_EMPTY));
        midi.command(COMMAND_RESET);
        assert_eq!((midi.uart, midi.status()), (false, STATUS_EMPTY));
    }
}
