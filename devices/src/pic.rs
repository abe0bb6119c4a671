//! Two 8259A interrupt controllers in cascade, with the edge/level registers (ELCR) of the PIIX3.
//!
//! Sources: Intel 8259A datasheet (231468), 82371SB (PIIX3) datasheet section 2.5.6.

/// Master command port: ICW1, OCW2, OCW3; reads IRR, ISR or the poll word.
pub const PORT_MASTER_COMMAND: u16 = 0x20;
/// Master data port: ICW2 to ICW4, then OCW1.
pub const PORT_MASTER_DATA: u16 = 0x21;
/// Slave command port.
pub const PORT_SLAVE_COMMAND: u16 = 0xa0;
/// Slave data port.
pub const PORT_SLAVE_DATA: u16 = 0xa1;
/// ELCR of lines 0 to 7.
pub const PORT_MASTER_ELCR: u16 = 0x4d0;
/// ELCR of lines 8 to 15.
pub const PORT_SLAVE_ELCR: u16 = 0x4d1;

/// The master's input that the slave's INT pin is wired to.
const CASCADE: u8 = 2;
/// Lines of each chip that can be made level-triggered: not the timer, keyboard, cascade, clock
/// and FPU lines.
const MASTER_ELCR_MASK: u8 = 0xf8;
const SLAVE_ELCR_MASK: u8 = 0xde;

const ICW1: u8 = 0x10;
const ICW1_SNGL: u8 = 0x02;
const ICW1_IC4: u8 = 0x01;
const ICW2_BASE: u8 = 0xf8;
const ICW4_AEOI: u8 = 0x02;
const ICW4_SFNM: u8 = 0x10;

const OCW2_LEVEL: u8 = 0x07;
const OCW2_COMMAND_SHIFT: u8 = 5;
const OCW2_ROTATE_AEOI_CLEAR: u8 = 0b000;
const OCW2_EOI: u8 = 0b001;
const OCW2_SPECIFIC_EOI: u8 = 0b011;
const OCW2_ROTATE_AEOI_SET: u8 = 0b100;
const OCW2_ROTATE_EOI: u8 = 0b101;
const OCW2_SET_PRIORITY: u8 = 0b110;
const OCW2_ROTATE_SPECIFIC_EOI: u8 = 0b111;

const OCW3: u8 = 0x08;
const OCW3_ESMM: u8 = 0x40;
const OCW3_SMM: u8 = 0x20;
const OCW3_POLL: u8 = 0x04;
const OCW3_RR: u8 = 0x02;
const OCW3_RIS: u8 = 0x01;

/// The poll word's bit that says a level was taken.
const POLL_INTERRUPT: u8 = 0x80;
/// The level given when the reason for an interrupt has gone by the time of its acknowledgement.
const SPURIOUS_LEVEL: u8 = 7;

/// Which initialization command word the data port expects next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// None but perhaps ICW4: see [`Chip::expect_icw4`].
    #[default]
    Done,
    /// ICW2, the vector base.
    Icw2,
    /// ICW3, the cascade wiring.
    Icw3,
}

/// One 8259A.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    /// Interrupt mask register (OCW1): a set bit holds the line off.
    pub imr: u8,
    /// Interrupt request register. For an edge-triggered line, a rising edge that has not been
    /// acknowledged; for a level-triggered one, the line.
    pub irr: u8,
    /// In-service register.
    pub isr: u8,
    /// The level of each input.
    pub lines: u8,
    /// Edge/level control: a set bit makes the line level-triggered.
    pub elcr: u8,
    /// Vector of level 0 (ICW2, a multiple of 8).
    pub vector_base: u8,
    /// How far initialization has come.
    pub init: Init,
    /// ICW1 announced an ICW4 that has not come yet.
    pub expect_icw4: bool,
    /// ICW1 said that there is no cascade, hence no ICW3.
    pub single: bool,
    /// Automatic end of interrupt (ICW4).
    pub auto_eoi: bool,
    /// Special fully nested mode (ICW4): a master lets the slave interrupt itself.
    pub special_fully_nested: bool,
    /// Special mask mode (OCW3): a masked level in service does not hold off lower ones.
    pub special_mask: bool,
    /// The command port reads ISR, not IRR (OCW3).
    pub read_isr: bool,
    /// The next read of either port is a poll (OCW3).
    pub poll: bool,
    /// Priorities rotate on automatic EOI (OCW2).
    pub rotate_on_auto_eoi: bool,
    /// The level with the lowest priority: 7 unless rotated.
    pub lowest_priority: u8,
}

impl Default for Chip {
    fn default() -> Self {
        Self {
            imr: 0xff,
            irr: 0,
            isr: 0,
            lines: 0,
            elcr: 0,
            vector_base: 0,
            init: Init::Done,
            expect_icw4: false,
            single: false,
            auto_eoi: false,
            special_fully_nested: false,
            special_mask: false,
            read_isr: false,
            poll: false,
            rotate_on_auto_eoi: false,
            lowest_priority: 7,
        }
    }
}

impl Chip {
    /// How urgent the most urgent of some levels is: 0 is the highest priority, 8 says none.
    fn rank(&self, levels: u8) -> u32 {
        // Rotated so that the highest priority stands in bit 0.
        let highest = u32::from(self.lowest_priority.wrapping_add(1) & 7);
        levels.rotate_right(highest).trailing_zeros()
    }

    fn level_of_rank(&self, rank: u32) -> u8 {
        (self.lowest_priority.wrapping_add(1).wrapping_add(rank as u8)) & 7
    }

    /// The level that the INT pin asks for.
    fn pending(&self) -> Option<u8> {
        let mut blocking = self.isr;
        if self.special_mask {
            blocking &= !self.imr;
        }
        let rank = self.rank(self.irr & !self.imr);
        let limit = self.rank(blocking);
        let level = self.level_of_rank(rank);
        let nests = self.special_fully_nested && level == CASCADE && rank == limit && rank < 8;
        (rank < limit || nests).then_some(level)
    }

    /// Drives an input.
    fn set_line(&mut self, line: u8, level: bool) {
        let bit = 1 << line;
        if !level {
            // The request latch needs its input to stay high until it is acknowledged.
            self.lines &= !bit;
            self.irr &= !bit;
        } else {
            if self.lines & bit == 0 || self.elcr & bit != 0 {
                self.irr |= bit;
            }
            self.lines |= bit;
        }
    }

    /// Puts a level in service.
    fn take(&mut self, level: u8) {
        let bit = 1 << level;
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest_priority = level;
        }
    }

    fn read_command(&mut self) -> u8 {
        if self.poll {
            self.read_poll()
        } else if self.read_isr {
            self.isr
        } else {
            self.irr
        }
    }

    fn read_data(&mut self) -> u8 {
        if self.poll { self.read_poll() } else { self.imr }
    }

    /// Acknowledges in software, in place of the processor's cycle.
    fn read_poll(&mut self) -> u8 {
        self.poll = false;
        match self.pending() {
            Some(level) => {
                self.take(level);
                POLL_INTERRUPT | level
            }
            None => 0,
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            self.initialize(value);
        } else if value & OCW3 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn initialize(&mut self, icw1: u8) {
        *self = Self {
            imr: 0,
            // The edge detectors are reset; a level is still there.
            irr: self.lines & self.elcr,
            lines: self.lines,
            elcr: self.elcr,
            vector_base: self.vector_base,
            init: Init::Icw2,
            expect_icw4: icw1 & ICW1_IC4 != 0,
            single: icw1 & ICW1_SNGL != 0,
            ..Self::default()
        };
    }

    fn write_data(&mut self, value: u8) {
        match self.init {
            Init::Icw2 => {
                self.vector_base = value & ICW2_BASE;
                self.init = if self.single { Init::Done } else { Init::Icw3 };
            }
            // The wiring is what it is, whatever the guest says of it.
            Init::Icw3 => self.init = Init::Done,
            Init::Done if self.expect_icw4 => {
                self.expect_icw4 = false;
                self.auto_eoi = value & ICW4_AEOI != 0;
                self.special_fully_nested = value & ICW4_SFNM != 0;
            }
            Init::Done => self.imr = value,
        }
    }

    fn write_ocw2(&mut self, value: u8) {
        let level = value & OCW2_LEVEL;
        match value >> OCW2_COMMAND_SHIFT {
            OCW2_ROTATE_AEOI_CLEAR => self.rotate_on_auto_eoi = false,
            OCW2_ROTATE_AEOI_SET => self.rotate_on_auto_eoi = true,
            OCW2_EOI => {
                self.end_of_interrupt();
            }
            OCW2_ROTATE_EOI => {
                if let Some(level) = self.end_of_interrupt() {
                    self.lowest_priority = level;
                }
            }
            OCW2_SPECIFIC_EOI => self.isr &= !(1 << level),
            OCW2_ROTATE_SPECIFIC_EOI => {
                self.isr &= !(1 << level);
                self.lowest_priority = level;
            }
            OCW2_SET_PRIORITY => self.lowest_priority = level,
            _ => {} // 010: no operation
        }
    }

    /// Non-specific EOI: the level in service with the highest priority. In special mask mode, one
    /// that is masked is not touched.
    fn end_of_interrupt(&mut self) -> Option<u8> {
        let candidates = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let rank = self.rank(candidates);
        (rank < 8).then(|| {
            let level = self.level_of_rank(rank);
            self.isr &= !(1 << level);
            level
        })
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & OCW3_ESMM != 0 {
            self.special_mask = value & OCW3_SMM != 0;
        }
        self.poll = value & OCW3_POLL != 0;
        if value & OCW3_RR != 0 {
            self.read_isr = value & OCW3_RIS != 0;
        }
    }

    fn write_elcr(&mut self, value: u8) {
        self.elcr = value;
        self.irr = (self.irr & !value) | (self.lines & value);
    }
}

/// The two controllers of a PC: lines 0 to 7 on the master, 8 to 15 on the slave, whose INT pin
/// drives the master's line 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pic {
    /// Lines 0 to 7.
    pub master: Chip,
    /// Lines 8 to 15.
    pub slave: Chip,
}

impl Pic {
    /// Drives one of the 16 interrupt lines. Line 2 belongs to the slave and takes nothing.
    pub fn set_irq(&mut self, line: u8, level: bool) {
        match line {
            CASCADE => {}
            0..=7 => self.master.set_line(line, level),
            8..=15 => self.slave.set_line(line - 8, level),
            _ => {}
        }
        self.cascade();
    }

    /// The level of the INTR pin.
    pub fn interrupt(&self) -> bool {
        self.master.pending().is_some()
    }

    /// The interrupt acknowledge cycle: puts the most urgent level in service and gives its
    /// vector; if its reason has gone, the vector of IRQ 7 or 15 with nothing in service.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(level) = self.master.pending() else {
            return self.master.vector_base | SPURIOUS_LEVEL;
        };
        self.master.take(level);
        if level != CASCADE {
            return self.master.vector_base | level;
        }
        let slave_level = self.slave.pending();
        if let Some(level) = slave_level {
            self.slave.take(level);
        }
        // The slave's INT pin drops during the cycle, so that what it still has makes an edge.
        self.master.set_line(CASCADE, false);
        self.cascade();
        self.slave.vector_base | slave_level.unwrap_or(SPURIOUS_LEVEL)
    }

    /// Reads a port of either controller.
    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            PORT_MASTER_COMMAND => self.master.read_command(),
            PORT_MASTER_DATA => self.master.read_data(),
            PORT_SLAVE_COMMAND => self.slave.read_command(),
            PORT_SLAVE_DATA => self.slave.read_data(),
            PORT_MASTER_ELCR => self.master.elcr,
            PORT_SLAVE_ELCR => self.slave.elcr,
            _ => 0xff,
        };
        self.cascade();
        value
    }

    /// Writes a port of either controller.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            PORT_MASTER_COMMAND => self.master.write_command(value),
            PORT_MASTER_DATA => self.master.write_data(value),
            PORT_SLAVE_COMMAND => self.slave.write_command(value),
            PORT_SLAVE_DATA => {
                self.slave.write_data(value);
                // A mode for chips that have slaves.
                self.slave.special_fully_nested = false;
            }
            PORT_MASTER_ELCR => self.master.write_elcr(value & MASTER_ELCR_MASK),
            PORT_SLAVE_ELCR => self.slave.write_elcr(value & SLAVE_ELCR_MASK),
            _ => {}
        }
        self.cascade();
    }

    /// Carries the slave's INT pin to the master.
    fn cascade(&mut self) {
        let level = self.slave.pending().is_some();
        self.master.set_line(CASCADE, level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER_BASE: u8 = 0x30;
    const SLAVE_BASE: u8 = 0x38;

    fn init(pic: &mut Pic, icw4: u8) {
        for (command, data, base, wiring) in [
            (PORT_MASTER_COMMAND, PORT_MASTER_DATA, MASTER_BASE, 4),
            (PORT_SLAVE_COMMAND, PORT_SLAVE_DATA, SLAVE_BASE, 2),
        ] {
            pic.write(command, 0x11);
            pic.write(data, base);
            pic.write(data, wiring);
            pic.write(data, icw4);
        }
    }

    fn ready() -> Pic {
        let mut pic = Pic::default();
        init(&mut pic, 0x01);
        pic
    }

    #[test]
    fn power_on_is_masked() {
        let mut pic = Pic::default();
        pic.set_irq(1, true);
        assert!(!pic.interrupt());
    }

    #[test]
    fn initialization_sets_vectors_and_unmasks() {
        let mut pic = ready();
        assert_eq!(pic.read(PORT_MASTER_DATA), 0);
        pic.set_irq(3, true);
        assert!(pic.interrupt());
        assert_eq!(pic.acknowledge(), 0x33);
        assert!(!pic.interrupt());
    }

    #[test]
    fn initialization_without_icw4_goes_straight_to_the_mask() {
        let mut pic = ready();
        pic.write(PORT_MASTER_COMMAND, 0x10);
        pic.write(PORT_MASTER_DATA, 0x08);
        pic.write(PORT_MASTER_DATA, 0x04);
        pic.write(PORT_MASTER_DATA, 0xfb);
        assert_eq!(pic.master.imr, 0xfb);
    }

    #[test]
    fn single_mode_has_no_icw3() {
        let mut pic = ready();
        pic.write(PORT_MASTER_COMMAND, 0x12);
        pic.write(PORT_MASTER_DATA, 0x08);
        pic.write(PORT_MASTER_DATA, 0xaa);
        assert_eq!(pic.master.imr, 0xaa);
    }

    #[test]
    fn an_edge_counts_once() {
        let mut pic = ready();
        pic.set_irq(4, true);
        pic.acknowledge();
        pic.write(PORT_MASTER_COMMAND, 0x20);
        pic.set_irq(4, true);
        assert!(!pic.interrupt());
        pic.set_irq(4, false);
        pic.set_irq(4, true);
        assert!(pic.interrupt());
    }

    #[test]
    fn a_level_asks_again_until_it_drops() {
        let mut pic = ready();
        pic.write(PORT_SLAVE_ELCR, 0x0c);
        pic.set_irq(10, true);
        assert_eq!(pic.acknowledge(), 0x3a);
        assert!(!pic.interrupt());
        pic.write(PORT_SLAVE_COMMAND, 0x20);
        pic.write(PORT_MASTER_COMMAND, 0x20);
        assert_eq!(pic.acknowledge(), 0x3a);
        pic.set_irq(10, false);
        pic.write(PORT_SLAVE_COMMAND, 0x20);
        pic.write(PORT_MASTER_COMMAND, 0x20);
        assert!(!pic.interrupt());
    }

    #[test]
    fn elcr_keeps_the_board_lines_edge_triggered() {
        let mut pic = ready();
        pic.write(PORT_MASTER_ELCR, 0xff);
        pic.write(PORT_SLAVE_ELCR, 0xff);
        assert_eq!((pic.read(PORT_MASTER_ELCR), pic.read(PORT_SLAVE_ELCR)), (0xf8, 0xde));
    }

    #[test]
    fn a_higher_priority_nests_and_a_lower_waits() {
        let mut pic = ready();
        pic.set_irq(4, true);
        assert_eq!(pic.acknowledge(), 0x34);
        pic.set_irq(5, true);
        assert!(!pic.interrupt());
        pic.set_irq(0, true);
        assert_eq!(pic.acknowledge(), 0x30);
        pic.write(PORT_MASTER_COMMAND, 0x20); // ends 0
        assert_eq!(pic.master.isr, 0x10);
        pic.write(PORT_MASTER_COMMAND, 0x20); // ends 4
        assert_eq!(pic.acknowledge(), 0x35);
    }

    #[test]
    fn two_slave_requests_come_one_after_the_other() {
        let mut pic = ready();
        pic.set_irq(14, true);
        pic.set_irq(12, true);
        assert_eq!(pic.acknowledge(), 0x3c);
        assert!(!pic.interrupt());
        pic.write(PORT_SLAVE_COMMAND, 0x20);
        assert!(!pic.interrupt());
        pic.write(PORT_MASTER_COMMAND, 0x20);
        assert_eq!(pic.acknowledge(), 0x3e);
    }

    #[test]
    fn a_vanished_request_is_irq_7_with_nothing_in_service() {
        let mut pic = ready();
        pic.set_irq(5, true);
        pic.set_irq(5, false);
        assert!(!pic.interrupt());
        assert_eq!(pic.acknowledge(), 0x37);
        assert_eq!(pic.master.isr, 0);
    }

    #[test]
    fn a_vanished_slave_request_is_irq_15_with_the_cascade_in_service() {
        let mut pic = ready();
        pic.set_irq(9, true);
        // Masked between the INT pin and the acknowledge cycle: the master has latched it.
        pic.slave.imr = 0xff;
        assert_eq!(pic.acknowledge(), 0x3f);
        assert_eq!((pic.master.isr, pic.slave.isr), (4, 0));
    }

    #[test]
    fn the_mask_holds_a_request_back() {
        let mut pic = ready();
        pic.write(PORT_MASTER_DATA, 0x02);
        pic.set_irq(1, true);
        assert!(!pic.interrupt());
        assert_eq!(pic.read(PORT_MASTER_COMMAND), 0x02);
        pic.write(PORT_MASTER_DATA, 0);
        assert_eq!(pic.acknowledge(), 0x31);
    }

    #[test]
    fn ocw3_selects_irr_or_isr() {
        let mut pic = ready();
        pic.set_irq(6, true);
        pic.acknowledge();
        pic.set_irq(7, true);
        assert_eq!(pic.read(PORT_MASTER_COMMAND), 0x80);
        pic.write(PORT_MASTER_COMMAND, 0x0b);
        assert_eq!(pic.read(PORT_MASTER_COMMAND), 0x40);
        pic.write(PORT_MASTER_COMMAND, 0x0a);
        assert_eq!(pic.read(PORT_MASTER_COMMAND), 0x80);
    }

    #[test]
    fn specific_eoi_ends_that_level() {
        let mut pic = ready();
        pic.set_irq(6, true);
        pic.acknowledge();
        pic.set_irq(2, true);
        pic.set_irq(1, true);
        pic.acknowledge();
        pic.write(PORT_MASTER_COMMAND, 0x66);
        assert_eq!(pic.master.isr, 0x02);
    }

    #[test]
    fn auto_eoi_leaves_nothing_in_service() {
        let mut pic = Pic::default();
        init(&mut pic, 0x03);
        pic.set_irq(3, true);
        assert_eq!(pic.acknowledge(), 0x33);
        assert_eq!(pic.master.isr, 0);
    }

    #[test]
    fn rotation_on_auto_eoi_moves_the_level_to_the_end() {
        let mut pic = Pic::default();
        init(&mut pic, 0x03);
        pic.write(PORT_MASTER_COMMAND, 0x80);
        pic.set_irq(1, true);
        pic.acknowledge();
        pic.set_irq(1, false);
        pic.set_irq(1, true);
        pic.set_irq(7, true);
        assert_eq!(pic.acknowledge(), 0x37);
        pic.write(PORT_MASTER_COMMAND, 0x00);
        assert!(!pic.master.rotate_on_auto_eoi);
    }

    #[test]
    fn rotate_on_eoi_makes_the_level_the_lowest() {
        let mut pic = ready();
        pic.set_irq(0, true);
        pic.acknowledge();
        pic.write(PORT_MASTER_COMMAND, 0xa0);
        assert_eq!(pic.master.lowest_priority, 0);
        pic.set_irq(0, false);
        pic.set_irq(0, true);
        pic.set_irq(7, true);
        assert_eq!(pic.acknowledge(), 0x37);
    }

    #[test]
    fn rotate_on_specific_eoi_and_set_priority() {
        let mut pic = ready();
        pic.set_irq(3, true);
        pic.acknowledge();
        pic.write(PORT_MASTER_COMMAND, 0xe3);
        assert_eq!((pic.master.isr, pic.master.lowest_priority), (0, 3));
        pic.write(PORT_MASTER_COMMAND, 0xc5);
        assert_eq!(pic.master.lowest_priority, 5);
    }

    #[test]
    fn special_mask_mode_lets_lower_levels_through() {
        let mut pic = ready();
        pic.set_irq(1, true);
        pic.acknowledge();
        pic.set_irq(6, true);
        pic.write(PORT_MASTER_DATA, 0x02);
        assert!(!pic.interrupt());
        pic.write(PORT_MASTER_COMMAND, 0x68);
        assert_eq!(pic.acknowledge(), 0x36);
        // Non-specific EOI ends 6, not the masked 1.
        pic.write(PORT_MASTER_COMMAND, 0x20);
        assert_eq!(pic.master.isr, 0x02);
        pic.write(PORT_MASTER_COMMAND, 0x48);
        assert!(!pic.master.special_mask);
    }

    #[test]
    fn special_fully_nested_mode_lets_the_slave_nest() {
        let mut pic = Pic::default();
        init(&mut pic, 0x11);
        pic.set_irq(12, true);
        assert_eq!(pic.acknowledge(), 0x3c);
        pic.set_irq(8, true);
        assert!(pic.interrupt());
        assert_eq!(pic.acknowledge(), 0x38);
    }

    #[test]
    fn fully_nested_mode_does_not() {
        let mut pic = ready();
        pic.set_irq(12, true);
        pic.acknowledge();
        pic.set_irq(8, true);
        assert!(!pic.interrupt());
    }

    #[test]
    fn poll_acknowledges_in_software() {
        let mut pic = ready();
        pic.write(PORT_MASTER_COMMAND, 0x0c);
        assert_eq!(pic.read(PORT_MASTER_COMMAND), 0);
        pic.set_irq(5, true);
        pic.write(PORT_MASTER_COMMAND, 0x0c);
        assert_eq!(pic.read(PORT_MASTER_COMMAND), 0x85);
        assert_eq!(pic.master.isr, 0x20);
        assert!(!pic.interrupt());
        assert_eq!(pic.read(PORT_MASTER_COMMAND), 0);
    }

    #[test]
    fn polling_the_slave_withdraws_the_cascade() {
        let mut pic = ready();
        pic.set_irq(11, true);
        pic.write(PORT_SLAVE_COMMAND, 0x0c);
        assert_eq!(pic.read(PORT_SLAVE_DATA), 0x83);
        assert!(!pic.interrupt());
    }

    #[test]
    fn initialization_forgets_edges_but_not_levels() {
        let mut pic = ready();
        pic.write(PORT_MASTER_ELCR, 0x20);
        pic.set_irq(5, true);
        pic.set_irq(3, true);
        pic.write(PORT_MASTER_COMMAND, 0x11);
        assert_eq!(pic.master.irr, 0x20);
    }

    #[test]
    fn lines_that_do_not_exist_do_nothing() {
        let mut pic = ready();
        pic.set_irq(2, true);
        pic.set_irq(16, true);
        pic.set_irq(255, true);
        assert!(!pic.interrupt());
        assert_eq!(pic.read(0x22), 0xff);
    }

    #[test]
    fn no_sequence_of_writes_panics() {
        let mut pic = Pic::default();
        let mut x = 1u32;
        for _ in 0..50_000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let port = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1][(x >> 8) as usize % 6];
            match x >> 29 {
                0 => pic.set_irq((x >> 12) as u8, x & 0x80 != 0),
                1 => {
                    pic.acknowledge();
                }
                2 => {
                    pic.read(port);
                }
                _ => pic.write(port, (x >> 16) as u8),
            }
        }
    }
}
