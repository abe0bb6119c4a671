//! The programming of the board as data: what firmware does with IN and OUT.

use env86_emu::{Bus, Memory, Width};

/// Configuration mechanism 1: the address port (PCI 2.1, 3.7.4.1).
const CONFIG_ADDRESS: u16 = 0xcf8;
/// Configuration mechanism 1: the data port.
const CONFIG_DATA: u16 = 0xcfc;
/// CONFIG_ADDRESS: accesses to CONFIG_DATA become configuration cycles.
const CONFIG_ENABLE: u32 = 1 << 31;

/// One bus operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A byte read from a port, for its side effect.
    In(u16),
    /// A write to a port.
    Out {
        /// The port.
        port: u16,
        /// Bits written.
        width: Width,
        /// What is written.
        value: u32,
    },
    /// A write to a PCI function's configuration space on bus 0.
    PciConfig {
        /// Slot * 8 + function.
        devfn: u8,
        /// Byte offset of the register.
        reg: u8,
        /// Bits written.
        width: Width,
        /// What is written.
        value: u32,
    },
    /// Writes of consecutive 32-bit values to memory-mapped registers or memory.
    Mmio {
        /// The physical address of the first.
        addr: u32,
        /// What is written.
        values: Vec<u32>,
    },
}

impl Step {
    /// A byte to a port.
    pub const fn out(port: u16, value: u8) -> Self {
        Self::Out { port, width: Width::Byte, value: value as u32 }
    }

    /// A value to a register of a PCI function.
    pub const fn pci(devfn: u8, reg: u8, width: Width, value: u32) -> Self {
        Self::PciConfig { devfn, reg, width, value }
    }
}

/// Sets the address port to a register of a PCI function, and gives the data port for it.
fn select(bus: &mut dyn Bus, mem: &mut Memory, devfn: u8, reg: u8) -> u16 {
    let address = CONFIG_ENABLE | u32::from(devfn) << 8 | u32::from(reg & !3);
    bus.port_write(mem, CONFIG_ADDRESS, Width::Dword, address);
    CONFIG_DATA + u16::from(reg & 3)
}

/// Reads a register of a PCI function on bus 0.
pub(crate) fn read_config(bus: &mut dyn Bus, mem: &mut Memory, devfn: u8, reg: u8, width: Width) -> u32 {
    let port = select(bus, mem, devfn, reg);
    bus.port_read(mem, port, width) & width.mask()
}

/// Carries out `steps` on a board.
pub fn apply(steps: &[Step], bus: &mut dyn Bus, mem: &mut Memory) {
    for step in steps {
        match *step {
            Step::In(port) => {
                bus.port_read(mem, port, Width::Byte);
            }
            Step::Out { port, width, value } => bus.port_write(mem, port, width, value),
            Step::PciConfig { devfn, reg, width, value } => {
                let port = select(bus, mem, devfn, reg);
                bus.port_write(mem, port, width, value);
            }
            Step::Mmio { addr, ref values } => {
                for (addr, &value) in (addr..).step_by(4).zip(values) {
                    bus.mmio_write(mem, addr, Width::Dword, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A board that writes down what it is asked.
    #[derive(Default)]
    struct Record(Vec<(char, u32, u32)>);

    impl Bus for Record {
        fn port_read(&mut self, _: &mut Memory, port: u16, _: Width) -> u32 {
            self.0.push(('i', port.into(), 0));
            0
        }
        fn port_write(&mut self, _: &mut Memory, port: u16, _: Width, value: u32) {
            self.0.push(('o', port.into(), value));
        }
        fn mmio_write(&mut self, _: &mut Memory, addr: u32, _: Width, value: u32) {
            self.0.push(('m', addr, value));
        }
        fn now(&mut self) -> u64 {
            0
        }
        fn random(&mut self) -> u32 {
            0
        }
    }

    #[test]
    fn steps_become_bus_cycles() {
        let steps = [
            Step::In(0x60),
            Step::out(0x20, 0x11),
            Step::pci(0x30, 0x3d, Width::Byte, 9),
            Step::Mmio { addr: 0xb_8000, values: vec![1, 2] },
        ];
        let (mut bus, mut mem) = (Record::default(), Memory::new(1 << 20).unwrap());
        apply(&steps, &mut bus, &mut mem);
        let want = [
            ('i', 0x60, 0),
            ('o', 0x20, 0x11),
            ('o', 0xcf8, 0x8000_303c),
            ('o', 0xcfd, 9),
            ('m', 0xb_8000, 1),
            ('m', 0xb_8004, 2),
        ];
        assert_eq!(bus.0, want);
    }
}
