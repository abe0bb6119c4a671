//! The PCI bus: configuration mechanism 1, the functions' configuration spaces, the routing of
//! their interrupts, and the reset control register that shares the ports.
//!
//! A device describes itself once, as a [`ConfigSpace`]; the bus owns it from then on and the
//! board asks it where base addresses decode. Nothing here calls back: a write returns an
//! [`Effect`] for the board to act on.

mod bridges;
mod config;

pub use bridges::{PIRQ_DISABLED, PIRQRC};
pub use config::*;
use env86_emu::Width;

/// CONFIG_ADDRESS: a dword; narrower accesses are not for the host bridge (82441FX, 3.1).
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// Reset control register, in the PIIX3 (82371SB, 2.5.7).
pub const RESET_CONTROL: u16 = 0xcf9;
/// CONFIG_DATA: the four bytes of the addressed dword.
pub const CONFIG_DATA: u16 = 0xcfc;
/// The last port of CONFIG_DATA.
pub const CONFIG_DATA_END: u16 = 0xcff;

const ADDRESS_ENABLE: u32 = 1 << 31;
const ADDRESS_WRITABLE: u32 = 0x80ff_fffc;
/// Reset control: a hard reset rather than a soft one.
const SYSTEM_RESET: u8 = 1 << 1;
/// Reset control: going from 0 to 1 resets.
const RESET_CPU: u8 = 1 << 2;

/// Slot and function of the host bridge.
pub const HOST_BRIDGE: u8 = devfn(0, 0);
/// Slot and function of the ISA bridge.
pub const ISA_BRIDGE: u8 = devfn(1, 0);

/// A slot (0 to 31) and function (0 to 7) in one number, as configuration addresses have it.
pub const fn devfn(slot: u8, function: u8) -> u8 {
    slot << 3 | function & 7
}

/// A device that sits in a PCI slot.
pub trait Function {
    /// Its slot and function.
    fn devfn(&self) -> u8;
    /// Its configuration space at power-up.
    fn config_space(&self) -> ConfigSpace;
}

/// What a write did that the board has to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The base addresses or Command register of this function may decode something else now.
    Decode(u8),
    /// The interrupts may be routed elsewhere.
    Routing,
    /// Other pages of the shadow area may be read-only.
    Shadow,
    /// Reset control asked for a reset.
    Reset,
}

/// The bus: what configuration mechanism 1 reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pci {
    /// CONFIG_ADDRESS.
    pub address: u32,
    /// The reset control register.
    pub reset_control: u8,
    functions: Vec<Option<Box<ConfigSpace>>>,
    /// The devfns that hold PIRQA# to PIRQD# low: one bit each.
    asserted: [[u64; 4]; 4],
}

impl Default for Pci {
    /// A bus with the two bridges.
    fn default() -> Self {
        let mut pci =
            Self { address: 0, reset_control: 0, functions: vec![None; 256], asserted: [[0; 4]; 4] };
        pci.insert(HOST_BRIDGE, bridges::host_bridge());
        pci.insert(ISA_BRIDGE, bridges::isa_bridge());
        pci
    }
}

impl Pci {
    /// Plugs in a function.
    pub fn insert(&mut self, devfn: u8, space: ConfigSpace) {
        self.functions[usize::from(devfn)] = Some(Box::new(space));
    }

    /// Plugs in a device.
    pub fn plug(&mut self, device: &impl Function) {
        self.insert(device.devfn(), device.config_space());
    }

    /// The configuration space of a function, if there is one.
    pub fn function(&self, devfn: u8) -> Option<&ConfigSpace> {
        self.functions[usize::from(devfn)].as_deref()
    }

    /// The configuration space of a function, to change it from the device's side. The board must
    /// be told if base addresses or the routing changed.
    pub fn function_mut(&mut self, devfn: u8) -> Option<&mut ConfigSpace> {
        self.functions[usize::from(devfn)].as_deref_mut()
    }

    /// Every function present, with its devfn.
    pub fn functions(&self) -> impl Iterator<Item = (u8, &ConfigSpace)> {
        (0u8..=255).zip(&self.functions).filter_map(|(devfn, space)| Some((devfn, space.as_deref()?)))
    }

    /// Reads a port from [`CONFIG_ADDRESS`] to [`CONFIG_DATA_END`].
    pub fn read(&self, port: u16, width: Width) -> u32 {
        match (port, width) {
            (CONFIG_ADDRESS, Width::Dword) => self.address,
            (RESET_CONTROL, Width::Byte) => self.reset_control.into(),
            (CONFIG_DATA..=CONFIG_DATA_END, _) => match self.target(port) {
                Some((devfn, offset)) => self.function(devfn).map_or(width.mask(), |f| f.read(offset, width)),
                None => width.mask(),
            },
            _ => width.mask(),
        }
    }

    /// Writes a port from [`CONFIG_ADDRESS`] to [`CONFIG_DATA_END`].
    pub fn write(&mut self, port: u16, width: Width, value: u32) -> Effect {
        match (port, width) {
            (CONFIG_ADDRESS, Width::Dword) => {
                self.address = value & ADDRESS_WRITABLE;
                Effect::None
            }
            (RESET_CONTROL, Width::Byte) => self.write_reset_control(value as u8),
            (CONFIG_DATA..=CONFIG_DATA_END, _) => self.write_data(port, width, value),
            _ => Effect::None,
        }
    }

    fn write_reset_control(&mut self, value: u8) -> Effect {
        let rises = value & !self.reset_control & RESET_CPU != 0;
        self.reset_control = value & (SYSTEM_RESET | RESET_CPU);
        if rises { Effect::Reset } else { Effect::None }
    }

    fn write_data(&mut self, port: u16, width: Width, value: u32) -> Effect {
        let Some((devfn, offset)) = self.target(port) else { return Effect::None };
        let Some(space) = self.function_mut(devfn) else { return Effect::None };
        tracing::trace!(target: "pci", devfn, offset, ?width, value, "configuration write");
        space.write(offset, width, value);
        const BARS_END: u8 = BASE_ADDRESS_0 + 4 * BARS as u8;
        const PIRQRC_END: u8 = PIRQRC + 4;
        const PAM: u8 = bridges::PAM0 & !3;
        const PAM_END: u8 = bridges::PAM6 + 1;
        match offset & !3 {
            COMMAND | BASE_ADDRESS_0..BARS_END => Effect::Decode(devfn),
            PIRQRC..PIRQRC_END if devfn == ISA_BRIDGE => Effect::Routing,
            PAM..PAM_END if devfn == HOST_BRIDGE => Effect::Shadow,
            _ => Effect::None,
        }
    }

    /// The function and offset that a CONFIG_DATA port stands for now.
    fn target(&self, port: u16) -> Option<(u8, u8)> {
        let bus = self.address >> 16 & 0xff;
        (self.address & ADDRESS_ENABLE != 0 && bus == 0)
            .then_some(((self.address >> 8) as u8, self.address as u8 & 0xfc | (port & 3) as u8))
    }

    /// The pages of the shadow area that the host bridge does not let be written, as
    /// [`Memory::set_read_only`](env86_emu::Memory::set_read_only) takes them.
    pub fn read_only(&self) -> u64 {
        self.function(HOST_BRIDGE).map_or(0, bridges::read_only)
    }

    /// Raises or lowers a function's interrupt pin. Returns true if the levels changed.
    pub fn set_interrupt(&mut self, devfn: u8, level: bool) -> bool {
        let Some(pin) = self.function(devfn).map(ConfigSpace::interrupt_pin).filter(|pin| *pin != 0) else {
            return false;
        };
        let word = &mut self.asserted[pirq(devfn, pin)][usize::from(devfn >> 6)];
        let bit = 1 << (devfn & 63);
        let changed = (*word & bit != 0) != level;
        *word = if level { *word | bit } else { *word & !bit };
        changed
    }

    /// The ISA IRQ that a function's interrupt pin reaches now.
    pub fn interrupt_route(&self, devfn: u8) -> Option<u8> {
        let pin = self.function(devfn)?.interrupt_pin();
        (pin != 0).then(|| self.route(pirq(devfn, pin)))?
    }

    /// The levels of the ISA IRQs as far as PCI functions drive them, a bit each.
    pub fn irq_levels(&self) -> u16 {
        (0..4)
            .filter(|line| self.asserted[*line] != [0; 4])
            .filter_map(|line| self.route(line))
            .fold(0, |levels, irq| levels | 1 << irq)
    }

    /// The ISA IRQ that a PIRQ line is routed to.
    fn route(&self, line: usize) -> Option<u8> {
        let register = self.function(ISA_BRIDGE)?.bytes()[usize::from(PIRQRC) + line];
        (register & PIRQ_DISABLED == 0).then_some(register & 0x0f)
    }
}

/// The PIRQ line that a slot's pin is wired to: the pins of successive slots are rotated.
fn pirq(devfn: u8, pin: u8) -> usize {
    usize::from(pin.wrapping_sub(1).wrapping_add(devfn >> 3).wrapping_sub(1) & 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(slot: u8, offset: u8) -> u32 {
        ADDRESS_ENABLE | u32::from(devfn(slot, 0)) << 8 | u32::from(offset)
    }

    fn select(pci: &mut Pci, slot: u8, offset: u8) {
        assert_eq!(pci.write(CONFIG_ADDRESS, Width::Dword, address(slot, offset)), Effect::None);
    }

    fn with_card() -> Pci {
        let mut pci = Pci::default();
        let card = ConfigSpace::new(0x1af4, 0x1049, 0x00_0200, 1)
            .with_command(COMMAND_IO)
            .with_io_bar(0, 0xa800, 64)
            .with_interrupt(1, 0);
        pci.insert(devfn(6, 0), card);
        pci
    }

    #[test]
    fn mechanism_1_reads_identities() {
        let mut pci = Pci::default();
        select(&mut pci, 0, 0);
        assert_eq!(pci.read(CONFIG_ADDRESS, Width::Dword), ADDRESS_ENABLE);
        assert_eq!(pci.read(CONFIG_DATA, Width::Dword), 0x1237_8086);
        assert_eq!(pci.read(CONFIG_DATA + 2, Width::Word), 0x1237);
        assert_eq!(pci.read(CONFIG_DATA + 3, Width::Byte), 0x12);
        select(&mut pci, 1, 0);
        assert_eq!(pci.read(CONFIG_DATA, Width::Dword), 0x7000_8086);
        select(&mut pci, 31, 0);
        assert_eq!(pci.read(CONFIG_DATA, Width::Dword), 0xffff_ffff);
        pci.write(CONFIG_ADDRESS, Width::Dword, 0x8001_0000);
        assert_eq!(pci.read(CONFIG_DATA, Width::Dword), 0xffff_ffff, "no such bus");
        pci.write(CONFIG_ADDRESS, Width::Dword, 0);
        assert_eq!(pci.read(CONFIG_DATA, Width::Word), 0xffff, "not enabled");
    }

    #[test]
    fn address_is_a_dword_only() {
        let mut pci = Pci::default();
        pci.write(CONFIG_ADDRESS, Width::Byte, 0xff);
        pci.write(CONFIG_ADDRESS, Width::Word, 0xffff);
        assert_eq!(pci.address, 0);
    }

    #[test]
    fn reset_on_the_rising_edge() {
        let mut pci = Pci::default();
        assert_eq!(pci.write(RESET_CONTROL, Width::Byte, 2), Effect::None);
        assert_eq!(pci.read(RESET_CONTROL, Width::Byte), 2);
        assert_eq!(pci.write(RESET_CONTROL, Width::Byte, 6), Effect::Reset);
        assert_eq!(pci.write(RESET_CONTROL, Width::Byte, 6), Effect::None);
    }

    #[test]
    fn bar_writes_report_decode_changes() {
        let mut pci = with_card();
        select(&mut pci, 6, BASE_ADDRESS_0);
        assert_eq!(pci.write(CONFIG_DATA, Width::Dword, 0xc100), Effect::Decode(devfn(6, 0)));
        assert_eq!(pci.function(devfn(6, 0)).and_then(|f| f.bar(0)), Some(0xc100));
        select(&mut pci, 6, COMMAND);
        assert_eq!(pci.write(CONFIG_DATA, Width::Byte, 0), Effect::Decode(devfn(6, 0)));
        assert_eq!(pci.function(devfn(6, 0)).and_then(|f| f.bar(0)), None);
    }

    #[test]
    fn writes_of_the_shadow_attributes_are_told() {
        let mut pci = Pci::default();
        assert_eq!(pci.read_only(), u64::MAX);
        for (offset, value, effect) in
            [(0x54, 0, Effect::None), (0x58, 0x3000, Effect::Shadow), (0x5c, u32::MAX, Effect::Shadow)]
        {
            select(&mut pci, 0, offset);
            assert_eq!(pci.write(CONFIG_DATA, Width::Dword, value), effect);
        }
        assert_eq!(pci.read_only(), 0xffff, "all but what PAM1 and PAM2 have");
        select(&mut pci, 1, 0x58);
        assert_eq!(pci.write(CONFIG_DATA, Width::Dword, 0), Effect::None, "another function's");
    }

    #[test]
    fn interrupts_follow_the_routing_registers() {
        let mut pci = with_card();
        let card = devfn(6, 0);
        assert_eq!(pci.interrupt_route(card), None, "PIRQs are disabled at power-up");
        select(&mut pci, 1, PIRQRC);
        assert_eq!(pci.write(CONFIG_DATA, Width::Dword, 0x0b0b_0a0a), Effect::Routing);
        // Slot 6 pin A is PIRQB#.
        assert_eq!(pci.interrupt_route(card), Some(10));
        assert!(pci.set_interrupt(card, true));
        assert!(!pci.set_interrupt(card, true));
        assert_eq!(pci.irq_levels(), 1 << 10);
        pci.write(CONFIG_DATA + 1, Width::Byte, 5);
        assert_eq!(pci.irq_levels(), 1 << 5);
        assert!(pci.set_interrupt(card, false));
        assert_eq!(pci.irq_levels(), 0);
    }

    #[test]
    fn a_line_stays_up_until_its_last_function_lets_go() {
        let mut pci = with_card();
        let other = devfn(10, 0);
        pci.insert(other, ConfigSpace::new(0x1af4, 0x1041, 0x00_0200, 0).with_interrupt(1, 0));
        select(&mut pci, 1, PIRQRC);
        pci.write(CONFIG_DATA, Width::Dword, 0x0b0b_0a0a);
        assert_eq!(pci.interrupt_route(other), Some(10));
        pci.set_interrupt(devfn(6, 0), true);
        pci.set_interrupt(other, true);
        pci.set_interrupt(devfn(6, 0), false);
        assert_eq!(pci.irq_levels(), 1 << 10);
        pci.set_interrupt(other, false);
        assert_eq!(pci.irq_levels(), 0);
        assert!(!pci.set_interrupt(HOST_BRIDGE, true), "no pin");
    }
}
