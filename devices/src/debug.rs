//! Ports for firmware and test guests to talk to whoever runs the machine.

/// Output port of Bochs.
pub const PORT_E9: u16 = 0xe9;
/// Output port of SeaBIOS.
pub const PORT_SEABIOS: u16 = 0x402;
/// What the output ports read: that they are there.
pub const PRESENT: u8 = 0xe9;
/// The debug console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugConsole {
    /// A host takes what is written. Without one it goes nowhere.
    pub connected: bool,
    output: Vec<u8>,
}

impl DebugConsole {
    /// A guest's write to either port.
    pub fn write(&mut self, byte: u8) {
        if self.connected {
            self.output.push(byte);
        }
    }

    /// Bytes written since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.output)
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.output.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_to_the_host_that_is_connected_and_else_nowhere() {
        let mut console = DebugConsole::default();
        console.write(b'x');
        assert_eq!(console.waiting(), 0);
        console.connected = true;
        (0..3).for_each(|_| console.write(b'y'));
        assert_eq!(console.take_output(), b"yyy");
        assert_eq!(console.waiting(), 0);
    }
}
