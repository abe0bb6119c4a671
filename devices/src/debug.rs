//! Ports for firmware and test guests to talk to whoever runs the machine.

/// Output port of Bochs.
pub const PORT_E9: u16 = 0xe9;
/// Output port of SeaBIOS.
pub const PORT_SEABIOS: u16 = 0x402;
/// What the output ports read: that they are there.
pub const PRESENT: u8 = 0xe9;
/// Bytes kept at most; what comes then is lost.
const LIMIT: usize = 64 << 10;

/// The debug console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugConsole {
    output: Vec<u8>,
}

impl DebugConsole {
    /// A guest's write to either port.
    pub fn write(&mut self, byte: u8) {
        if self.output.len() < LIMIT {
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
    fn keeps_a_limited_amount() {
        let mut console = DebugConsole::default();
        (0..LIMIT + 10).for_each(|_| console.write(b'x'));
        assert_eq!(console.take_output().len(), LIMIT);
        assert_eq!(console.waiting(), 0);
    }
}
