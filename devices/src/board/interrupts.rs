//! The interrupt lines of the board: from the devices to the 8259 pair and the I/O APIC, and from
//! those to the processor's INTR pin.

use crate::apic::{self, Apic};
use crate::ioapic::Ioapic;
use crate::pic::Pic;

/// The local APIC and the I/O APIC, which a board has both or none of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Apics {
    /// The processor's local APIC.
    pub local: Apic,
    /// The I/O APIC.
    pub io: Ioapic,
}

/// The controllers and the lines into them.
#[derive(Clone, Debug, Default)]
pub struct Interrupts {
    /// The 8259 pair.
    pub pic: Pic,
    /// The APICs, on a board with ACPI.
    pub apics: Option<Apics>,
    /// Levels that devices on the board drive, a bit for each of the 16 lines.
    isa: u16,
    /// Levels that PCI functions drive through the ISA bridge.
    pci: u16,
    /// Levels that the controllers were told of.
    driven: u16,
    /// The INTR pin.
    intr: bool,
}

impl Interrupts {
    /// The controllers of a board, with APICs or without.
    pub fn new(apics: bool) -> Self {
        Self { apics: apics.then(Apics::default), ..Self::default() }
    }

    /// What a reset does. All lines are low until devices drive them again.
    pub fn reset(&mut self) {
        *self = Self::new(self.apics.is_some());
    }

    /// The level of the INTR pin.
    pub fn interrupt(&self) -> bool {
        self.intr
    }

    /// A non-maskable interrupt waits in the local APIC.
    pub fn nmi(&self) -> bool {
        self.apics.as_ref().is_some_and(|apics| apics.local.nmi)
    }

    /// The processor has taken the non-maskable interrupt.
    pub fn acknowledge_nmi(&mut self) {
        if let Some(apics) = &mut self.apics {
            apics.local.nmi = false;
        }
    }

    /// Drives a line from a device on the board.
    pub fn set_isa(&mut self, irq: u8, level: bool) {
        let bit = 1u16.checked_shl(irq.into()).unwrap_or(0);
        self.isa = if level { self.isa | bit } else { self.isa & !bit };
        self.drive();
    }

    /// Drives the lines in `driven` from a device on the board: those in `high` high, the others low;
    /// those in `pulsed` low first.
    #[inline]
    pub fn set_lines(&mut self, driven: u16, high: u16, pulsed: u16) {
        if self.isa & pulsed != 0 {
            self.isa &= !pulsed;
            self.drive();
        }
        self.isa = self.isa & !driven | high & driven;
        self.drive();
    }

    /// Drives the lines that PCI functions are routed to.
    pub fn set_pci(&mut self, levels: u16) {
        self.pci = levels;
        self.drive();
    }

    /// After the controllers were put into a state of their own: takes the levels that they have
    /// on their inputs as driven. Of those only the lines in `kept` stay as they are by
    /// themselves; the others fall unless their devices drive them again.
    pub fn adopt_lines(&mut self, kept: u16) {
        const CASCADE: u16 = 1 << 2;
        let inputs = u16::from(self.pic.slave.lines) << 8 | u16::from(self.pic.master.lines);
        self.driven = inputs & !CASCADE;
        self.isa = self.driven & kept;
        self.pci = 0;
    }

    #[inline]
    fn drive(&mut self) {
        let levels = self.isa | self.pci;
        if levels != self.driven {
            self.tell(levels);
        }
    }

    /// Tells the controllers of new levels.
    #[inline(never)]
    fn tell(&mut self, levels: u16) {
        let mut changed = std::mem::replace(&mut self.driven, levels) ^ levels;
        while changed != 0 {
            let irq = changed.trailing_zeros() as u8;
            changed &= changed - 1;
            let level = levels & 1 << irq != 0;
            self.pic.set_irq(irq, level);
            if let Some(apics) = &mut self.apics {
                apics.io.set_line(irq, level, &mut apics.local);
            }
        }
        self.update();
    }

    /// Brings the INTR pin up to date after a controller has changed.
    pub fn update(&mut self) {
        if let Some(apics) = &mut self.apics {
            apics.local.set_lint0(self.pic.interrupt());
        }
        let local = self.apics.as_ref().is_some_and(|apics| apics.local.interrupt());
        self.intr = local || self.external();
    }

    /// The 8259 pair has an interrupt, and it reaches the processor as such.
    fn external(&self) -> bool {
        let passes = |apics: &Apics| apics.local.passes_external() || apics.io.passes_external();
        self.pic.interrupt() && self.apics.as_ref().is_none_or(passes)
    }

    /// The acknowledge cycle: takes the vector to deliver.
    pub fn acknowledge(&mut self) -> u8 {
        let local = self.apics.as_mut().and_then(|apics| apics.local.acknowledge());
        let vector = match (local, &self.apics) {
            (Some(vector), _) => vector,
            (None, Some(apics)) if !self.external() => apics.local.spurious_vector(),
            _ => self.pic.acknowledge(),
        };
        self.update();
        vector
    }

    /// Reads the local APIC.
    pub fn read_local(&mut self, offset: u32, now: u64) -> Option<u32> {
        let apics = self.apics.as_mut().filter(|apics| apics.local.enabled())?;
        let value = apics.local.read(offset, now);
        self.update();
        Some(value)
    }

    /// Writes the local APIC.
    pub fn write_local(&mut self, offset: u32, value: u32, now: u64) {
        let Some(apics) = self.apics.as_mut().filter(|apics| apics.local.enabled()) else { return };
        if let Some(vector) = apics.local.write(offset, value, now) {
            apics.io.end_of_interrupt(vector, &mut apics.local);
        }
        if offset == apic::SPURIOUS {
            // What could not be accepted before may be now.
            apics.io.send_all(&mut apics.local);
        }
        self.update();
    }

    /// Writes the I/O APIC.
    pub fn write_io(&mut self, offset: u32, value: u32) {
        if let Some(apics) = &mut self.apics {
            apics.io.write(offset, value, &mut apics.local);
            self.update();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(apics: bool) -> Interrupts {
        let mut interrupts = Interrupts::new(apics);
        for (port, values) in [(0x20, [0x11, 0x30, 4, 1]), (0xa0, [0x11, 0x38, 2, 1])] {
            interrupts.pic.write(port, values[0]);
            values[1..].iter().for_each(|value| interrupts.pic.write(port + 1, *value));
        }
        interrupts.update();
        interrupts
    }

    #[test]
    fn lines_reach_the_processor_through_the_8259() {
        let mut interrupts = ready(false);
        assert!(!interrupts.interrupt());
        interrupts.set_isa(4, true);
        assert!(interrupts.interrupt());
        assert_eq!(interrupts.acknowledge(), 0x34);
        assert!(!interrupts.interrupt());
        interrupts.set_isa(99, true);
    }

    #[test]
    fn board_and_pci_share_a_line() {
        let mut interrupts = ready(false);
        interrupts.pic.write(0x4d1, 0x0e);
        interrupts.set_isa(9, true);
        interrupts.set_pci(1 << 9);
        interrupts.set_isa(9, false);
        assert!(interrupts.interrupt(), "the PCI function still holds it");
        interrupts.set_pci(0);
        assert!(!interrupts.interrupt());
    }

    #[test]
    fn lines_go_to_both_kinds_of_controller() {
        let mut interrupts = ready(true);
        interrupts.write_local(apic::SPURIOUS, 0x1ff, 0);
        interrupts.write_local(apic::LVT_LINT0, 0x700, 0);
        interrupts.set_isa(1, true);
        assert!(interrupts.interrupt(), "virtual wire");
        assert_eq!(interrupts.acknowledge(), 0x31);
        interrupts.write_local(apic::LVT_LINT0, 0x1_0700, 0);
        interrupts.set_isa(4, true);
        assert!(!interrupts.interrupt(), "LINT0 is masked");
        assert_eq!(interrupts.acknowledge(), 0xff, "spurious");
        interrupts.write_io(0, 0x10 + 2 * 12);
        interrupts.write_io(0x10, 0x5c);
        interrupts.set_isa(12, true);
        assert_eq!(interrupts.acknowledge(), 0x5c);
    }

    #[test]
    fn a_level_waits_for_the_local_apic() {
        let mut interrupts = ready(true);
        interrupts.write_io(0, 0x10 + 2 * 10);
        interrupts.write_io(0x10, 0x805a);
        interrupts.pic.write(0xa1, 0xff);
        interrupts.set_pci(1 << 10);
        assert!(!interrupts.interrupt());
        interrupts.write_local(apic::SPURIOUS, 0x1ff, 0);
        assert_eq!(interrupts.acknowledge(), 0x5a);
    }

    #[test]
    fn restored_lines_fall_if_nobody_drives_them() {
        let mut interrupts = ready(false);
        interrupts.set_isa(0, true);
        interrupts.set_isa(4, true);
        let mut restored = ready(false);
        restored.pic = interrupts.pic.clone();
        restored.adopt_lines(1);
        restored.set_isa(4, false);
        assert_eq!(restored.pic.master.lines, 1);
    }

    #[test]
    fn a_level_comes_again_after_its_end() {
        let mut interrupts = ready(true);
        interrupts.write_local(apic::SPURIOUS, 0x1ff, 0);
        interrupts.write_io(0, 0x10 + 2 * 10);
        interrupts.write_io(0x10, 0x805a);
        interrupts.set_pci(1 << 10);
        assert_eq!(interrupts.acknowledge(), 0x5a);
        assert!(!interrupts.interrupt());
        interrupts.write_local(apic::EOI, 0, 0);
        assert!(interrupts.interrupt());
        assert_eq!(interrupts.acknowledge(), 0x5a);
        interrupts.set_pci(0);
        interrupts.write_local(apic::EOI, 0, 0);
        assert!(!interrupts.interrupt());
    }
}
