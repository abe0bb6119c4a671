//! What firmware has to know of the board, and where it puts the PCI functions.

use env86_emu::{Bus, Memory, Width};

use crate::step::{self, Step};

/// The host bridge (82441FX), slot 0.
const HOST_BRIDGE: u8 = 0;
/// The PCI-to-ISA bridge (PIIX3), slot 1: it routes the PCI interrupts.
pub const ISA_BRIDGE: u8 = 1 << 3;
/// The power management function (PIIX4), slot 7, there with ACPI only.
pub const POWER_MANAGEMENT: u8 = 7 << 3;
/// The IDE controller (PIIX3), slot 30.
pub const IDE: u8 = 30 << 3;
/// The ISA interrupts that PIRQA to PIRQD are routed to.
pub const PIRQ_ROUTING: [u8; 4] = [10, 10, 11, 11];
/// PIIX3 configuration register PIRQRCA, followed by PIRQRCB to PIRQRCD (82371SB, 2.2.9).
pub const PIRQRCA: u8 = 0x60;
/// 82441FX configuration register PAM0 (82441FX, 3.2.18), and what it has when the system BIOS is in RAM and
/// read-only.
const PAM0: u8 = 0x59;
const BIOS_READ_ONLY: u32 = 0x10;
/// PAM1 to PAM6, and what each has where there is RAM that is read and written.
const PAM: core::ops::RangeInclusive<u8> = 0x5a..=0x5f;
const RAM: u32 = 0x33;
/// The interrupt of ACPI's system control (SCI).
pub const SCI_IRQ: u8 = 9;
/// Where the power management registers are (PM1a event, control, timer).
pub const PM_BASE: u16 = 0xb000;

const PCI_VENDOR: u8 = 0x00;
const PCI_COMMAND: u8 = 0x04;
const PCI_CLASS: u8 = 0x0a;
const PCI_BAR0: u8 = 0x10;
const PCI_INTERRUPT_LINE: u8 = 0x3c;
const PCI_INTERRUPT_PIN: u8 = 0x3d;
/// The vendor of a function that is not there.
const NO_VENDOR: u32 = 0xffff;
/// Base address registers of a function.
const BARS: u8 = 6;
/// A base address register is for ports; the address is above the low two bits (PCI 2.1, 6.2.5.1).
const BAR_IO: u32 = 1;
const BAR_IO_ADDRESS: u32 = 0xfffc;
/// A display controller that is compatible with the VGA (PCI 2.1, appendix D).
const CLASS_VGA: u32 = 0x0300;
/// The low bits of a base address register for memory that are no address (PCI 2.1, 6.2.5.1).
const BAR_MEMORY_FLAGS: u32 = 0xf;
/// COM1 to COM4, and their register that keeps what is written (16550A, 8.8).
const SERIAL_PORTS: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];
const SCRATCH: u16 = 7;
/// Command register: I/O space, memory space, SERR# enable.
const COMMAND: u32 = 0x103;
/// I/O BARs are assigned from here.
const IO_BASE: u32 = 0xc000;
/// PIIX4 function 3: PMBA and PMREGMISC (82371AB, 7.1).
const PMBA: u8 = 0x40;
const PMREGMISC: u8 = 0x80;
/// PIIX3 IDETIM of both channels, and what switches them on (82371SB, 2.3.9).
const IDETIM: u8 = 0x40;
const IDE_DECODE: u32 = 0x8000_8000;

/// An I/O base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoBar {
    /// Which one, 0 to 5.
    pub index: u8,
    /// Ports it decodes, a power of two.
    pub ports: u16,
}

/// A PCI function on bus 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciFunction {
    /// Slot * 8 + function.
    pub devfn: u8,
    /// The interrupt pin it uses: 0 for none, 1 for INTA# to 4 for INTD#.
    pub interrupt_pin: u8,
    /// Its movable I/O base address registers.
    pub io_bars: Vec<IoBar>,
}

/// The memory of the graphics card that a picture is shown from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// Its physical address.
    pub address: u32,
    /// Its bytes.
    pub size: u32,
}

/// What firmware finds on the board by probing its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardInfo {
    /// The board has APICs and power management, and tables say so.
    pub acpi: bool,
    /// Serial ports, from COM1 on, at most 4.
    pub serial_ports: u8,
    /// The PCI functions of bus 0, by rising `devfn`.
    pub functions: Vec<PciFunction>,
    /// The graphics card's, where the processor sees it.
    pub framebuffer: Option<Framebuffer>,
}

impl BoardInfo {
    /// Looks at a board that was just reset, as firmware does: with IN and OUT.
    pub fn probe(bus: &mut dyn Bus, mem: &mut Memory) -> Self {
        let functions: Vec<_> =
            (0..=u8::MAX).filter_map(|devfn| PciFunction::probe(bus, mem, devfn)).collect();
        let framebuffer = functions.iter().find_map(|function| Framebuffer::probe(bus, mem, function.devfn));
        Self {
            acpi: functions.iter().any(|function| function.devfn == POWER_MANAGEMENT),
            serial_ports: SERIAL_PORTS.iter().take_while(|&&base| has_uart(bus, mem, base)).count() as u8,
            functions,
            framebuffer,
        }
    }
}

impl Framebuffer {
    /// That of a function that is a graphics card: its first base address register.
    fn probe(bus: &mut dyn Bus, mem: &mut Memory, devfn: u8) -> Option<Self> {
        if step::read_config(bus, mem, devfn, PCI_CLASS, Width::Word) != CLASS_VGA {
            return None;
        }
        let (before, mask) = size_bar(bus, mem, devfn, PCI_BAR0);
        let (address, size) = (before & !BAR_MEMORY_FLAGS, (mask & !BAR_MEMORY_FLAGS).wrapping_neg());
        (before & BAR_IO == 0 && address != 0 && size != 0).then_some(Self { address, size })
    }
}

/// Whether the scratch register of a serial port is there.
fn has_uart(bus: &mut dyn Bus, mem: &mut Memory, base: u16) -> bool {
    [0x55, 0].into_iter().all(|value| {
        bus.port_write(mem, base + SCRATCH, Width::Byte, value);
        bus.port_read(mem, base + SCRATCH, Width::Byte) & 0xff == value
    })
}

/// The PIRQ line (0 for PIRQA to 3) that a slot's pin (1 for INTA# to 4) is wired to.
pub fn pirq(slot: u8, pin: u8) -> u8 {
    slot.wrapping_add(pin).wrapping_sub(2) & 3
}

impl PciFunction {
    fn probe(bus: &mut dyn Bus, mem: &mut Memory, devfn: u8) -> Option<Self> {
        if step::read_config(bus, mem, devfn, PCI_VENDOR, Width::Word) == NO_VENDOR {
            return None;
        }
        let interrupt_pin = step::read_config(bus, mem, devfn, PCI_INTERRUPT_PIN, Width::Byte) as u8;
        let mut io_bars = Vec::new();
        for index in 0..BARS {
            let ports = io_ports(bus, mem, devfn, PCI_BAR0 + 4 * index);
            if ports > 0 {
                io_bars.push(IoBar { index, ports });
            }
        }
        Some(Self { devfn, interrupt_pin, io_bars })
    }

    /// The ISA interrupt the function's pin ends at, if it has one.
    pub fn interrupt(&self) -> Option<u8> {
        match (self.interrupt_pin, self.devfn) {
            (0, _) => None,
            (_, POWER_MANAGEMENT) => Some(SCI_IRQ),
            (pin, devfn) => Some(PIRQ_ROUTING[usize::from(pirq(devfn >> 3, pin))]),
        }
    }
}

/// The ports that a base address register decodes: those of its address bits that cannot be set are
/// within them. 0 if it is not there or not for ports.
fn io_ports(bus: &mut dyn Bus, mem: &mut Memory, devfn: u8, reg: u8) -> u16 {
    let (_, mask) = size_bar(bus, mem, devfn, reg);
    let address = mask & BAR_IO_ADDRESS;
    if mask & BAR_IO != 0 && address != 0 { (address as u16).wrapping_neg() } else { 0 }
}

/// What a base address register has, and what it has when all its bits are set that can be.
fn size_bar(bus: &mut dyn Bus, mem: &mut Memory, devfn: u8, reg: u8) -> (u32, u32) {
    let before = step::read_config(bus, mem, devfn, reg, Width::Dword);
    step::apply(&[Step::pci(devfn, reg, Width::Dword, u32::MAX)], bus, mem);
    let mask = step::read_config(bus, mem, devfn, reg, Width::Dword);
    step::apply(&[Step::pci(devfn, reg, Width::Dword, before)], bus, mem);
    (before, mask)
}

/// What firmware writes to configuration space: attributes of the shadow RAM, PIRQ routing, base addresses,
/// interrupt lines, then the command registers that switch the functions on. There are no option ROMs, so
/// C0000h to EFFFFh is left to the guest.
pub fn configure_pci(board: &BoardInfo) -> Vec<Step> {
    let mut steps = vec![Step::pci(HOST_BRIDGE, PAM0, Width::Byte, BIOS_READ_ONLY)];
    steps.extend(PAM.map(|reg| Step::pci(HOST_BRIDGE, reg, Width::Byte, RAM)));
    for (reg, irq) in (PIRQRCA..).zip(PIRQ_ROUTING) {
        steps.push(Step::pci(ISA_BRIDGE, reg, Width::Byte, irq.into()));
    }
    for (devfn, index, port) in assign_io(board) {
        steps.push(Step::pci(devfn, PCI_BAR0 + 4 * index, Width::Dword, port.into()));
    }
    for function in &board.functions {
        let devfn = function.devfn;
        if let Some(irq) = function.interrupt() {
            steps.push(Step::pci(devfn, PCI_INTERRUPT_LINE, Width::Byte, irq.into()));
        }
        if devfn == POWER_MANAGEMENT {
            steps.push(Step::pci(devfn, PMBA, Width::Dword, u32::from(PM_BASE) | 1));
            steps.push(Step::pci(devfn, PMREGMISC, Width::Byte, 1));
        }
        if devfn == IDE {
            steps.push(Step::pci(devfn, IDETIM, Width::Dword, IDE_DECODE));
        }
        steps.push(Step::pci(devfn, PCI_COMMAND, Width::Word, COMMAND));
    }
    steps
}

/// Ports for all I/O base address registers: the largest first, so that each is aligned to its size
/// without gaps. Gives (devfn, BAR index, first port).
pub fn assign_io(board: &BoardInfo) -> Vec<(u8, u8, u16)> {
    let mut bars: Vec<_> =
        board.functions.iter().flat_map(|f| f.io_bars.iter().map(|bar| (f.devfn, *bar))).collect();
    bars.sort_by_key(|(_, bar)| core::cmp::Reverse(bar.ports));
    let mut next = IO_BASE;
    let mut assigned = Vec::new();
    for (devfn, bar) in bars {
        let size = u32::from(bar.ports).next_power_of_two();
        let port = next.next_multiple_of(size);
        let Some(end) = port.checked_add(size).filter(|&end| end <= 0x1_0000) else { break };
        next = end;
        assigned.push((devfn, bar.index, port as u16));
    }
    assigned
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn function(slot: u8, pin: u8, bars: &[(u8, u16)]) -> PciFunction {
        let io_bars = bars.iter().map(|&(index, ports)| IoBar { index, ports }).collect();
        PciFunction { devfn: slot << 3, interrupt_pin: pin, io_bars }
    }

    /// The board of the reference sample: network card, 9p, VGA, IDE.
    pub(crate) fn sample(acpi: bool) -> BoardInfo {
        let mut functions = vec![
            function(0, 0, &[]),
            function(1, 0, &[]),
            function(5, 1, &[(0, 32)]),
            function(6, 1, &[(0, 64), (1, 16), (2, 16), (3, 256)]),
            function(0x12, 0, &[]),
            function(0x1e, 1, &[(2, 8), (3, 4), (4, 16)]),
        ];
        if acpi {
            functions.insert(4, function(7, 1, &[]));
        }
        let framebuffer = Some(Framebuffer { address: 0xe000_0000, size: 8 << 20 });
        BoardInfo { acpi, serial_ports: 4, functions, framebuffer }
    }

    #[test]
    fn io_bars_lie_where_the_reference_has_them() {
        let assigned = assign_io(&sample(false));
        let port = |slot: u8, index| {
            assigned.iter().find(|a| a.0 == slot << 3 && a.1 == index).map(|a| a.2).unwrap()
        };
        assert_eq!([0, 1, 2, 3].map(|i| port(6, i)), [0xc100, 0xc160, 0xc170, 0xc000]);
        assert_eq!(port(5, 0), 0xc140);
        assert_eq!([2, 3, 4].map(|i| port(0x1e, i)), [0xc190, 0xc198, 0xc180]);
    }

    #[test]
    fn interrupts_follow_the_routing() {
        let irq = |slot| function(slot, 1, &[]).interrupt().unwrap();
        assert_eq!([5, 6, 10, 11, 12].map(irq), [10, 10, 10, 11, 11]);
        assert_eq!(irq(7), SCI_IRQ);
        assert_eq!(function(6, 0, &[]).interrupt(), None);
    }

    #[test]
    fn more_ports_than_there_are_do_not_wrap() {
        let board = BoardInfo {
            functions: (0..32).map(|slot| function(slot, 0, &[(0, 0x4000)])).collect(),
            ..BoardInfo::default()
        };
        assert_eq!(assign_io(&board).len(), 1);
    }
}
