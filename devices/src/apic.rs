//! The processor's local APIC (SDM volume 3, chapter 10), version 14h with six local vectors.

use tracing::debug;

/// Physical address of the registers after reset.
pub const BASE: u32 = 0xfee0_0000;
/// Bytes of the register window.
pub const WINDOW: u32 = 0x1000;
/// IA32_APIC_BASE: the APIC is enabled.
pub const BASE_ENABLE: u32 = 1 << 11;
/// IA32_APIC_BASE: this processor is the bootstrap processor.
pub const BASE_BOOTSTRAP: u32 = 1 << 8;

const ID: u32 = 0x020;
const VERSION: u32 = 0x030;
const TASK_PRIORITY: u32 = 0x080;
const ARBITRATION_PRIORITY: u32 = 0x090;
const PROCESSOR_PRIORITY: u32 = 0x0a0;
/// End of interrupt.
pub const EOI: u32 = 0x0b0;
const LOGICAL_DESTINATION: u32 = 0x0d0;
const DESTINATION_FORMAT: u32 = 0x0e0;
/// Spurious-interrupt vector and software enable.
pub const SPURIOUS: u32 = 0x0f0;
const ISR: u32 = 0x100;
const TMR: u32 = 0x180;
const IRR: u32 = 0x200;
const ERROR_STATUS: u32 = 0x280;
const ICR_LOW: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
/// Local vector table: timer.
pub const LVT_TIMER: u32 = 0x320;
const LVT_THERMAL: u32 = 0x330;
const LVT_PERFORMANCE: u32 = 0x340;
/// Local vector table: the LINT0 pin, to which the 8259 is wired.
pub const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
/// Timer: initial count.
pub const INITIAL_COUNT: u32 = 0x380;
/// Timer: current count.
pub const CURRENT_COUNT: u32 = 0x390;
/// Timer: divide configuration.
pub const DIVIDE: u32 = 0x3e0;

/// Version 14h; the number of the last local vector above it.
const VERSION_VALUE: u32 = 0x0005_0014;
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Vector, software enable, focus checking.
const SPURIOUS_BITS: u32 = 0x3ff;
const LVT_MASKED: u32 = 1 << 16;
const TIMER_PERIODIC: u32 = 1 << 17;
/// Delivery status: there is never a message still under way.
const ICR_BITS: u32 = 0x000c_cfff;
const ICR_LOGICAL: u32 = 1 << 11;
const ICR_LEVEL: u32 = 1 << 15;
const ICR_SHORTHAND_SHIFT: u32 = 18;

const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;
/// Vectors below this are reserved for exceptions.
const FIRST_LEGAL_VECTOR: u8 = 16;

/// What an interrupt message asks for: bits 8 to 10 of LVT, ICR and redirection entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The vector given.
    Fixed,
    /// The vector given, at the processor with the lowest priority.
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up of a further processor.
    StartUp,
    /// The vector that the 8259 gives.
    External,
    /// Not defined.
    Reserved,
}

impl DeliveryMode {
    /// The mode in the low word of a register that has one.
    pub const fn of(register: u32) -> Self {
        match register >> 8 & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::External,
            _ => Self::Reserved,
        }
    }
}

/// An interrupt message on its way to the local APICs, of which there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The vector.
    pub vector: u8,
    /// What it asks for.
    pub mode: DeliveryMode,
    /// Level-triggered.
    pub level: bool,
    /// The APIC or set of APICs.
    pub destination: u8,
    /// `destination` is a logical one.
    pub logical: bool,
}

/// The local vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalVectors {
    /// Timer.
    pub timer: u32,
    /// Thermal sensor.
    pub thermal: u32,
    /// Performance counters.
    pub performance: u32,
    /// LINT0 pin: the 8259.
    pub lint0: u32,
    /// LINT1 pin: NMI.
    pub lint1: u32,
    /// Errors of the APIC itself.
    pub error: u32,
}

impl LocalVectors {
    /// The register at a window offset, with the bits that can be written.
    fn register(&mut self, offset: u32) -> Option<(&mut u32, u32)> {
        Some(match offset {
            LVT_TIMER => (&mut self.timer, 0x0003_00ff),
            LVT_THERMAL => (&mut self.thermal, 0x0001_07ff),
            LVT_PERFORMANCE => (&mut self.performance, 0x0001_07ff),
            LVT_LINT0 => (&mut self.lint0, 0x0001_a7ff),
            LVT_LINT1 => (&mut self.lint1, 0x0001_a7ff),
            LVT_ERROR => (&mut self.error, 0x0001_00ff),
            _ => return None,
        })
    }

    fn mask_all(&mut self) {
        for offset in (LVT_TIMER..=LVT_ERROR).step_by(0x10) {
            if let Some((register, _)) = self.register(offset) {
                *register |= LVT_MASKED;
            }
        }
    }
}

/// 256 bits, one for each vector.
pub type VectorSet = [u32; 8];

/// The local APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apic {
    /// IA32_APIC_BASE.
    pub base: u32,
    /// Identity, in the top byte.
    pub id: u32,
    /// Task priority.
    pub task_priority: u32,
    /// Logical destination.
    pub logical_destination: u32,
    /// Destination format.
    pub destination_format: u32,
    /// Spurious-interrupt vector and software enable.
    pub spurious: u32,
    /// In service.
    pub isr: VectorSet,
    /// Accepted as level-triggered.
    pub tmr: VectorSet,
    /// Requested.
    pub irr: VectorSet,
    /// Errors since the last write to the error status register.
    pub errors: u32,
    /// Error status as the guest reads it.
    pub error_status: u32,
    /// Interrupt command, low word.
    pub icr_low: u32,
    /// Interrupt command, high word.
    pub icr_high: u32,
    /// Local vector table.
    pub lvt: LocalVectors,
    /// Timer: divide configuration.
    pub timer_divide: u32,
    /// Timer: initial count.
    pub timer_initial: u32,
    /// Timer: when the count reaches zero, in ns; `None` while stopped.
    pub timer_deadline: Option<u64>,
    /// The level of the LINT0 pin.
    pub lint0: bool,
    /// A non-maskable interrupt has come and was not taken.
    pub nmi: bool,
}

impl Default for Apic {
    fn default() -> Self {
        let masked = LVT_MASKED;
        Self {
            base: BASE | BASE_ENABLE | BASE_BOOTSTRAP,
            id: 0,
            task_priority: 0,
            logical_destination: 0,
            destination_format: u32::MAX,
            spurious: 0xff,
            isr: [0; 8],
            tmr: [0; 8],
            irr: [0; 8],
            errors: 0,
            error_status: 0,
            icr_low: 0,
            icr_high: 0,
            lvt: LocalVectors {
                timer: masked,
                thermal: masked,
                performance: masked,
                lint0: masked,
                lint1: masked,
                error: masked,
            },
            timer_divide: 0,
            timer_initial: 0,
            timer_deadline: None,
            lint0: false,
            nmi: false,
        }
    }
}

impl Apic {
    /// Enabled in IA32_APIC_BASE.
    pub fn enabled(&self) -> bool {
        self.base & BASE_ENABLE != 0
    }

    /// A guest's write to IA32_APIC_BASE. The window can be switched off and not moved; switching
    /// it off resets the rest.
    pub fn set_base(&mut self, value: u32) {
        let base = BASE | BASE_BOOTSTRAP | value & BASE_ENABLE;
        if value & BASE_ENABLE == 0 {
            *self = Self { id: self.id, lint0: self.lint0, ..Self::default() };
        }
        self.base = base;
    }

    /// The 8259's interrupts reach the processor: through LINT0 as a virtual wire, or straight
    /// while the APIC is not in use.
    pub fn passes_external(&self) -> bool {
        let wire =
            self.lvt.lint0 & LVT_MASKED == 0 && DeliveryMode::of(self.lvt.lint0) == DeliveryMode::External;
        wire || !self.enabled() || self.spurious & SOFTWARE_ENABLE == 0
    }

    /// Drives the LINT0 pin, to which the 8259 is wired. In a mode other than
    /// [`DeliveryMode::External`] its rise is an interrupt of the local vector table.
    pub fn set_lint0(&mut self, level: bool) {
        let rises = level && !self.lint0;
        self.lint0 = level;
        if !rises || !self.enabled() || self.lvt.lint0 & LVT_MASKED != 0 {
            return;
        }
        match DeliveryMode::of(self.lvt.lint0) {
            DeliveryMode::Fixed => {
                self.accept(self.lvt.lint0 as u8, false);
            }
            DeliveryMode::Nmi => self.nmi = true,
            _ => {}
        }
    }

    /// There is a vector to deliver.
    pub fn interrupt(&self) -> bool {
        self.deliverable().is_some()
    }

    /// Takes the vector to deliver, which is in service from now on.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.deliverable()?;
        set(&mut self.irr, vector, false);
        set(&mut self.isr, vector, true);
        Some(vector)
    }

    /// The vector for an acknowledge cycle whose reason has gone.
    pub fn spurious_vector(&self) -> u8 {
        self.spurious as u8
    }

    fn deliverable(&self) -> Option<u8> {
        let vector = highest(&self.irr)?;
        (self.enabled() && u32::from(vector & 0xf0) > self.processor_priority() & 0xf0).then_some(vector)
    }

    /// The processor priority (SDM volume 3, 10.8.3.1).
    fn processor_priority(&self) -> u32 {
        let in_service = highest(&self.isr).map_or(0, |v| u32::from(v & 0xf0));
        if self.task_priority & 0xf0 >= in_service { self.task_priority } else { in_service }
    }

    /// Takes a message if it is for this APIC. Returns true if it was accepted.
    pub fn receive(&mut self, message: Message) -> bool {
        if !self.enabled() || !self.addressed(message.destination, message.logical) {
            return false;
        }
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => self.accept(message.vector, message.level),
            DeliveryMode::Nmi => {
                self.nmi = true;
                true
            }
            mode => {
                debug!(target: "apic", ?mode, "message of no effect");
                true
            }
        }
    }

    /// A destination means this APIC (SDM volume 3, 10.6.2).
    fn addressed(&self, destination: u8, logical: bool) -> bool {
        let own = (self.logical_destination >> 24) as u8;
        match (logical, self.destination_format >> 28) {
            (false, _) => destination == 0xff || u32::from(destination) == self.id >> 24,
            (true, 0) => {
                let cluster = destination >> 4;
                (cluster == 0xf || cluster == own >> 4) && destination & own & 0xf != 0
            }
            (true, _) => destination & own != 0,
        }
    }

    fn accept(&mut self, vector: u8, level: bool) -> bool {
        if self.spurious & SOFTWARE_ENABLE == 0 {
            return false;
        }
        if vector < FIRST_LEGAL_VECTOR {
            self.error(ESR_RECEIVE_ILLEGAL_VECTOR);
            return false;
        }
        set(&mut self.irr, vector, true);
        set(&mut self.tmr, vector, level);
        true
    }

    fn error(&mut self, bit: u32) {
        self.errors |= bit;
        let vector = self.lvt.error as u8;
        // An illegal vector in the error entry itself must not report for ever.
        if self.lvt.error & LVT_MASKED == 0 && vector >= FIRST_LEGAL_VECTOR {
            self.accept(vector, false);
        }
    }

    /// When [`Self::poll`] must be called next, in ns.
    pub fn next_event(&self) -> Option<u64> {
        self.timer_deadline.filter(|_| self.lvt.timer & LVT_MASKED == 0)
    }

    /// The ns from one timer interrupt to the next, if the timer starts anew by itself.
    pub fn interrupt_period(&self) -> Option<u64> {
        self.next_event().filter(|_| self.lvt.timer & TIMER_PERIODIC != 0).map(|_| self.period())
    }

    /// Takes notice of the time, in ns. However many periods went by, one interrupt comes of it.
    pub fn poll(&mut self, now: u64) {
        let Some(deadline) = self.timer_deadline.filter(|deadline| *deadline <= now) else { return };
        let period = self.ticks(self.timer_initial);
        let again = self.lvt.timer & TIMER_PERIODIC != 0 && period != 0;
        self.timer_deadline =
            again.then(|| now.saturating_add(period - (now - deadline).checked_rem(period).unwrap_or(0)));
        if self.lvt.timer & LVT_MASKED == 0 {
            self.accept(self.lvt.timer as u8, false);
        }
    }

    /// The ns that a count takes: the timer runs at 1 GHz before the divider.
    fn ticks(&self, count: u32) -> u64 {
        u64::from(count) << self.divide_shift()
    }

    /// The ns from a start of the timer to its end.
    pub(crate) fn period(&self) -> u64 {
        self.ticks(self.timer_initial)
    }

    /// Bits 0, 1 and 3 of the divide configuration; 7 divides by one.
    pub(crate) fn divide_shift(&self) -> u32 {
        ((self.timer_divide & 3 | self.timer_divide >> 1 & 4) + 1) & 7
    }

    fn current_count(&self, now: u64) -> u32 {
        let left = self.timer_deadline.map_or(0, |deadline| deadline.saturating_sub(now));
        (left.div_ceil(1 << self.divide_shift())) as u32
    }

    /// Reads a register by its offset in the window.
    pub fn read(&mut self, offset: u32, now: u64) -> u32 {
        self.poll(now);
        if let Some((register, _)) = self.lvt.register(offset) {
            return *register;
        }
        match offset {
            ID => self.id,
            VERSION => VERSION_VALUE,
            TASK_PRIORITY => self.task_priority,
            PROCESSOR_PRIORITY => self.processor_priority(),
            ARBITRATION_PRIORITY | EOI => 0,
            LOGICAL_DESTINATION => self.logical_destination,
            DESTINATION_FORMAT => self.destination_format,
            SPURIOUS => self.spurious,
            ISR..TMR => self.isr[vector_word(offset)],
            TMR..IRR => self.tmr[vector_word(offset)],
            IRR..ERROR_STATUS => self.irr[vector_word(offset)],
            ERROR_STATUS => self.error_status,
            ICR_LOW => self.icr_low,
            ICR_HIGH => self.icr_high,
            INITIAL_COUNT => self.timer_initial,
            CURRENT_COUNT => self.current_count(now),
            DIVIDE => self.timer_divide,
            _ => {
                self.error(ESR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes a register by its offset in the window. Returns the vector of a level-triggered
    /// interrupt that has ended, for the I/O APIC to hear of.
    pub fn write(&mut self, offset: u32, value: u32, now: u64) -> Option<u8> {
        self.poll(now);
        match offset {
            ID => self.id = value & 0xff00_0000,
            TASK_PRIORITY => self.task_priority = value & 0xff,
            EOI => return self.end_of_interrupt(),
            LOGICAL_DESTINATION => self.logical_destination = value & 0xff00_0000,
            DESTINATION_FORMAT => self.destination_format = value | 0x0fff_ffff,
            SPURIOUS => {
                self.spurious = value & SPURIOUS_BITS;
                if value & SOFTWARE_ENABLE == 0 {
                    self.lvt.mask_all();
                }
            }
            ERROR_STATUS => self.error_status = core::mem::take(&mut self.errors),
            ICR_LOW => self.command(value),
            ICR_HIGH => self.icr_high = value & 0xff00_0000,
            LVT_TIMER..=LVT_ERROR => self.write_lvt(offset, value),
            INITIAL_COUNT => {
                self.timer_initial = value;
                self.timer_deadline = (value != 0).then(|| now.saturating_add(self.ticks(value)));
            }
            DIVIDE => {
                let count = self.current_count(now);
                self.timer_divide = value & 0b1011;
                self.timer_deadline =
                    self.timer_deadline.map(|_| now.saturating_add(u64::from(count) << self.divide_shift()));
            }
            // Read-only.
            VERSION | ARBITRATION_PRIORITY | PROCESSOR_PRIORITY | ISR..ERROR_STATUS | CURRENT_COUNT => {}
            _ => self.error(ESR_ILLEGAL_REGISTER),
        }
        None
    }

    fn write_lvt(&mut self, offset: u32, value: u32) {
        let disabled = self.spurious & SOFTWARE_ENABLE == 0;
        let Some((register, writable)) = self.lvt.register(offset) else {
            return self.error(ESR_ILLEGAL_REGISTER);
        };
        *register = value & writable | if disabled { LVT_MASKED } else { 0 };
    }

    fn end_of_interrupt(&mut self) -> Option<u8> {
        let vector = highest(&self.isr)?;
        set(&mut self.isr, vector, false);
        contains(&self.tmr, vector).then_some(vector)
    }

    /// Sends what was written to the interrupt command register. All other processors are none.
    fn command(&mut self, value: u32) {
        self.icr_low = value & ICR_BITS;
        let mode = DeliveryMode::of(value);
        let vector = value as u8;
        if matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) && vector < FIRST_LEGAL_VECTOR {
            return self.error(ESR_SEND_ILLEGAL_VECTOR);
        }
        let (destination, logical) = match value >> ICR_SHORTHAND_SHIFT & 3 {
            0 => ((self.icr_high >> 24) as u8, value & ICR_LOGICAL != 0),
            1 | 2 => (0xff, false),
            _ => return,
        };
        // Of the level-triggered ones only INIT exists on the bus (SDM volume 3, 10.6.1).
        let level = value & ICR_LEVEL != 0 && mode == DeliveryMode::Init;
        self.receive(Message { vector, mode, level, destination, logical });
    }
}

fn vector_word(offset: u32) -> usize {
    (offset >> 4 & 7) as usize
}

fn contains(vectors: &VectorSet, vector: u8) -> bool {
    vectors[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
}

fn set(vectors: &mut VectorSet, vector: u8, value: bool) {
    let word = &mut vectors[usize::from(vector >> 5)];
    let bit = 1 << (vector & 31);
    *word = if value { *word | bit } else { *word & !bit };
}

fn highest(vectors: &VectorSet) -> Option<u8> {
    (0u8..8)
        .rev()
        .zip(vectors.iter().rev())
        .find(|(_, word)| **word != 0)
        .map(|(i, word)| i << 5 | word.ilog2() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> Apic {
        let mut apic = Apic::default();
        apic.write(SPURIOUS, SOFTWARE_ENABLE | 0xff, 0);
        apic
    }

    fn fixed(vector: u8) -> Message {
        Message { vector, mode: DeliveryMode::Fixed, level: false, destination: 0, logical: false }
    }

    #[test]
    fn higher_vectors_first_and_nested() {
        let mut apic = enabled();
        assert!(apic.receive(fixed(0x41)));
        assert!(apic.receive(fixed(0x81)));
        assert_eq!(apic.acknowledge(), Some(0x81));
        assert_eq!(apic.acknowledge(), None, "lower class than the one in service");
        assert!(apic.receive(fixed(0x92)));
        assert_eq!(apic.acknowledge(), Some(0x92));
        apic.write(EOI, 0, 0);
        assert_eq!(apic.read(PROCESSOR_PRIORITY, 0), 0x80);
        apic.write(EOI, 0, 0);
        assert_eq!(apic.acknowledge(), Some(0x41));
    }

    #[test]
    fn task_priority_holds_back() {
        let mut apic = enabled();
        apic.write(TASK_PRIORITY, 0x50, 0);
        apic.receive(fixed(0x51));
        assert!(!apic.interrupt());
        apic.write(TASK_PRIORITY, 0x40, 0);
        assert!(apic.interrupt());
    }

    #[test]
    fn one_shot_timer() {
        let mut apic = enabled();
        apic.write(DIVIDE, 0b1011, 0);
        apic.write(LVT_TIMER, 0xec, 0);
        apic.write(INITIAL_COUNT, 1000, 500);
        assert_eq!(apic.next_event(), Some(1500));
        assert_eq!(apic.read(CURRENT_COUNT, 700), 800);
        apic.poll(1499);
        assert!(!apic.interrupt());
        apic.poll(1500);
        assert_eq!(apic.acknowledge(), Some(0xec));
        assert_eq!(apic.next_event(), None);
        assert_eq!(apic.read(CURRENT_COUNT, 5000), 0);
    }

    #[test]
    fn periodic_timer_with_divider_skips_what_was_missed() {
        let mut apic = enabled();
        apic.write(DIVIDE, 0b0011, 0); // by 16
        apic.write(LVT_TIMER, TIMER_PERIODIC | 0xec, 0);
        apic.write(INITIAL_COUNT, 100, 0);
        assert_eq!(apic.next_event(), Some(1600));
        apic.poll(1600);
        assert_eq!(apic.next_event(), Some(3200));
        apic.poll(16_050);
        assert_eq!(apic.next_event(), Some(17_600));
        assert_eq!(apic.read(CURRENT_COUNT, 16_800), 50);
    }

    #[test]
    fn a_masked_timer_counts_and_does_not_interrupt_later() {
        let mut apic = enabled();
        apic.write(DIVIDE, 0b1011, 0);
        apic.write(LVT_TIMER, LVT_MASKED | 0xec, 0);
        apic.write(INITIAL_COUNT, 1000, 0);
        assert_eq!(apic.next_event(), None);
        apic.write(LVT_TIMER, 0xec, 2000);
        apic.poll(3000);
        assert!(!apic.interrupt());
    }

    #[test]
    fn software_disable_masks_local_vectors() {
        let mut apic = enabled();
        apic.write(LVT_LINT0, 0x700, 0);
        assert!(apic.passes_external());
        apic.write(LVT_LINT0, 0x10700, 0);
        assert!(!apic.passes_external());
        apic.write(LVT_TIMER, 0x30, 0);
        apic.write(SPURIOUS, 0xff, 0);
        assert_ne!(apic.read(LVT_TIMER, 0) & LVT_MASKED, 0);
        apic.write(LVT_TIMER, 0x30, 0);
        assert_ne!(apic.read(LVT_TIMER, 0) & LVT_MASKED, 0, "cannot be unmasked");
        assert!(apic.passes_external());
        assert!(!apic.receive(fixed(0x30)));
    }

    #[test]
    fn lint0_with_a_vector_of_its_own() {
        let mut apic = enabled();
        apic.write(LVT_LINT0, 0x31, 0);
        assert!(!apic.passes_external());
        apic.set_lint0(true);
        assert_eq!(apic.acknowledge(), Some(0x31));
        apic.write(EOI, 0, 0);
        apic.set_lint0(true);
        assert_eq!(apic.acknowledge(), None);
    }

    #[test]
    fn self_interrupt_by_each_way() {
        let mut apic = enabled();
        apic.write(ICR_LOW, 1 << ICR_SHORTHAND_SHIFT | 0x41, 0);
        assert_eq!(apic.acknowledge(), Some(0x41));
        apic.write(EOI, 0, 0);
        apic.write(ICR_LOW, 3 << ICR_SHORTHAND_SHIFT | 0x42, 0);
        assert_eq!(apic.acknowledge(), None, "all but self");
        apic.write(LOGICAL_DESTINATION, 0x0100_0000, 0);
        apic.write(ICR_HIGH, 0x0300_0000, 0);
        apic.write(ICR_LOW, ICR_LOGICAL | 0x43, 0);
        assert_eq!(apic.acknowledge(), Some(0x43));
        apic.write(EOI, 0, 0);
        apic.write(ICR_LOW, 0x44, 0);
        assert_eq!(apic.acknowledge(), None, "physical 3 is not here");
        apic.write(DESTINATION_FORMAT, 0, 0);
        apic.write(LOGICAL_DESTINATION, 0x2100_0000, 0);
        apic.write(ICR_HIGH, 0x2300_0000, 0);
        apic.write(ICR_LOW, ICR_LOGICAL | 0x45, 0);
        assert_eq!(apic.acknowledge(), Some(0x45), "cluster 2, member 0");
    }

    #[test]
    fn errors_are_latched_by_a_write() {
        let mut apic = enabled();
        apic.write(LVT_ERROR, 0xfe, 0);
        apic.write(ICR_LOW, 1 << ICR_SHORTHAND_SHIFT | 3, 0);
        assert_eq!(apic.read(ERROR_STATUS, 0), 0);
        assert_eq!(apic.acknowledge(), Some(0xfe));
        apic.write(ERROR_STATUS, 0, 0);
        assert_eq!(apic.read(ERROR_STATUS, 0), ESR_SEND_ILLEGAL_VECTOR);
        apic.write(ERROR_STATUS, 0, 0);
        assert_eq!(apic.read(ERROR_STATUS, 0), 0);
    }

    #[test]
    fn only_level_interrupts_are_reported_at_their_end() {
        let mut apic = enabled();
        apic.receive(Message { level: true, ..fixed(0x60) });
        assert_eq!(apic.acknowledge(), Some(0x60));
        assert_eq!(apic.write(EOI, 0, 0), Some(0x60));
        assert_eq!(apic.write(EOI, 0, 0), None);
    }

    #[test]
    fn base_register_switches_it_off() {
        let mut apic = enabled();
        assert_eq!(apic.base, 0xfee0_0900);
        apic.receive(fixed(0x60));
        apic.set_base(0);
        assert!(!apic.interrupt() && apic.passes_external());
        assert!(!apic.receive(fixed(0x60)));
        apic.set_base(BASE_ENABLE);
        assert!(apic.enabled());
    }

    #[test]
    fn any_register_access_is_harmless() {
        let mut apic = enabled();
        for offset in (0..WINDOW).step_by(4) {
            for value in [0, u32::MAX] {
                apic.write(offset, value, u64::MAX - 1);
                apic.read(offset, u64::MAX);
                apic.poll(u64::MAX);
            }
        }
    }
}
