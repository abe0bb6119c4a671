//! ACPI power management as the PIIX4 has it (82371AB, chapter 7): event and control registers,
//! the power-management timer, the SMI command port that turns ACPI on and off.

use crate::pci::{
    COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace, Function, HEADER_TYPE, STATUS, devfn,
};
use env86_emu::Width;

/// First port of general-purpose event block 0: two status and two enable bytes.
pub const GPE0_BASE: u16 = 0xafe0;
/// First port of the PM1 block: status, enable, control, reserved, timer.
pub const PM_BASE: u16 = 0xb000;
/// Ports in the PM1 block.
pub const PM_PORTS: u16 = 12;
/// Ports in the general-purpose event block.
pub const GPE0_PORTS: u16 = 4;
/// SMI command port (APMC).
pub const SMI_COMMAND: u16 = 0xb2;
/// SMI status port (APMS): a scratch byte.
pub const SMI_STATUS: u16 = 0xb3;
/// The system control interrupt.
pub const SCI_IRQ: u8 = 9;

/// Written to [`SMI_COMMAND`] to turn ACPI on, as the FADT tells.
pub const ACPI_ENABLE: u8 = 0xf1;
/// Written to [`SMI_COMMAND`] to turn ACPI off.
pub const ACPI_DISABLE: u8 = 0xf0;
/// SLP_TYP of soft-off, which \_S5 in the DSDT must declare (82371AB, 7.2.3).
pub const SLP_TYP_S5: u16 = 0;
/// SLP_TYP of suspend to disk: the power goes off as well.
pub const SLP_TYP_S4: u16 = 2;

/// The power-management timer's frequency in Hz.
pub const TIMER_HZ: u64 = 3_579_545;
/// The timer counts in 24 bits; a change of the highest sets TMR_STS.
const TIMER_BITS: u32 = 24;

const PM1_STATUS: u16 = PM_BASE;
const PM1_ENABLE: u16 = PM_BASE + 2;
const PM1_CONTROL: u16 = PM_BASE + 4;
const PM_TIMER: u16 = PM_BASE + 8;
const GPE0_ENABLE: u16 = GPE0_BASE + 2;

/// PM1 status and enable: the timer's highest bit changed.
pub const TMR: u16 = 1 << 0;
/// PM1 status and enable: the firmware released the global lock.
const GBL: u16 = 1 << 5;
/// PM1 status and enable: the power button.
pub const PWRBTN: u16 = 1 << 8;
/// PM1 status and enable: the RTC alarm.
const RTC: u16 = 1 << 10;
/// PM1 status: bus master, and waking.
const BM_STS: u16 = 1 << 4;
const WAK_STS: u16 = 1 << 15;
const PM1_EVENTS: u16 = TMR | GBL | PWRBTN | RTC;
const PM1_STATUS_BITS: u16 = PM1_EVENTS | BM_STS | WAK_STS;

/// PM1 control: events raise SCI.
pub const SCI_EN: u16 = 1 << 0;
const BM_RLD: u16 = 1 << 1;
const SLP_TYP_SHIFT: u32 = 10;
const SLP_TYP: u16 = 0b111 << SLP_TYP_SHIFT;
const SLP_EN: u16 = 1 << 13;
/// Global release and sleep enable read as zero.
const PM1_CONTROL_BITS: u16 = SCI_EN | BM_RLD | SLP_TYP;

/// The PIIX4's power management function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acpi {
    /// PM1 status.
    pub pm1_status: u16,
    /// PM1 enable.
    pub pm1_enable: u16,
    /// PM1 control.
    pub pm1_control: u16,
    /// General-purpose event block 0: two status bytes, two enable bytes.
    pub gpe0: [u8; 4],
    /// The last SMI command.
    pub smi_command: u8,
    /// The SMI status scratch byte.
    pub smi_status: u8,
    /// Half periods of the timer (changes of its highest bit) taken notice of.
    timer_halves: u64,
}

impl Default for Acpi {
    /// ACPI is on from the start, as v86 has it.
    fn default() -> Self {
        Self {
            pm1_status: 0,
            pm1_enable: 0,
            pm1_control: SCI_EN,
            gpe0: [0; 4],
            smi_command: 0,
            smi_status: 0,
            timer_halves: 0,
        }
    }
}

impl Function for Acpi {
    fn devfn(&self) -> u8 {
        devfn(7, 0)
    }

    fn config_space(&self) -> ConfigSpace {
        const PMBA: u8 = 0x40;
        /// Device activity B (82371AB, 7.1.12), whose bit 25 lets writes to [`SMI_COMMAND`] raise SMI#.
        const DEVACTB: u8 = 0x58;
        const APMC_EN: u32 = 1 << 25;
        const PMREGMISC: u8 = 0x80;
        ConfigSpace::new(0x8086, 0x7113, 0x06_8000, 0x08)
            .with_command(COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER)
            .with_bytes(STATUS, &0x0280u16.to_le_bytes())
            .with_bytes(HEADER_TYPE, &[0x80])
            .with_interrupt(1, SCI_IRQ)
            // The ports do not move; firmware writes the base that they have.
            .with_bytes(PMBA, &[1])
            .with_writable(PMBA, &[0xc0, 0xff])
            .with_writable(0x48, &[0xff; 0x38])
            // There is no system management mode: what a handler would do, the write itself does.
            // SeaBIOS with SMM support takes this bit for a handler that is installed already, and
            // waits forever for its own to run otherwise.
            .with_bytes(DEVACTB, &APMC_EN.to_le_bytes())
            .with_writable(PMREGMISC, &[1])
            .with_bytes(0x90, &[1])
            .with_writable(0x90, &[0xf0, 0xff])
            .with_writable(0xd2, &[0xff; 4])
    }
}

impl Acpi {
    /// What a reset does: the timer runs on.
    pub fn reset(&mut self) {
        *self = Self { timer_halves: self.timer_halves, ..Self::default() };
    }

    /// After the registers were put into a state of their own at `now`: the timer runs from here.
    pub(crate) fn resume(&mut self, now: u64) {
        self.timer_halves = timer(now) >> (TIMER_BITS - 1);
    }

    /// The level of the system control interrupt.
    pub fn sci(&self) -> bool {
        let pm1 = self.pm1_status & self.pm1_enable & PM1_EVENTS;
        let gpe = (self.gpe0[0] & self.gpe0[2]) | (self.gpe0[1] & self.gpe0[3]);
        self.pm1_control & SCI_EN != 0 && (pm1 != 0 || gpe != 0)
    }

    /// The power button is pressed.
    pub fn press_power_button(&mut self) {
        self.pm1_status |= PWRBTN;
    }

    /// When [`Self::poll`] must be called next, in ns.
    pub fn next_event(&self) -> Option<u64> {
        (self.pm1_enable & TMR != 0 && self.pm1_status & TMR == 0).then(|| {
            let ticks = u128::from(self.timer_halves + 1) << (TIMER_BITS - 1);
            (ticks * 1_000_000_000).div_ceil(TIMER_HZ.into()) as u64
        })
    }

    /// Takes notice of the time, in ns.
    pub fn poll(&mut self, now: u64) {
        let halves = timer(now) >> (TIMER_BITS - 1);
        if halves != self.timer_halves {
            self.timer_halves = halves;
            self.pm1_status |= TMR;
        }
    }

    /// Reads one of the ports above.
    pub fn read(&mut self, port: u16, width: Width, now: u64) -> u32 {
        self.poll(now);
        (0..width.bytes() as u16)
            .rev()
            .fold(0, |value, i| value << 8 | u32::from(self.read_byte(port + i, now)))
    }

    fn read_byte(&self, port: u16, now: u64) -> u8 {
        match port {
            GPE0_BASE..=0xafe3 => self.gpe0[usize::from(port - GPE0_BASE)],
            PM1_STATUS..=0xb001 => self.pm1_status.to_le_bytes()[usize::from(port - PM1_STATUS)],
            PM1_ENABLE..=0xb003 => self.pm1_enable.to_le_bytes()[usize::from(port - PM1_ENABLE)],
            PM1_CONTROL..=0xb005 => self.pm1_control.to_le_bytes()[usize::from(port - PM1_CONTROL)],
            PM_TIMER..=0xb00a => timer(now).to_le_bytes()[usize::from(port - PM_TIMER)],
            SMI_COMMAND => self.smi_command,
            SMI_STATUS => self.smi_status,
            _ => 0,
        }
    }

    /// Writes one of the ports above. Returns true if the guest switched the power off.
    #[must_use]
    pub fn write(&mut self, port: u16, width: Width, value: u32, now: u64) -> bool {
        self.poll(now);
        let mut off = false;
        for (i, byte) in (0..width.bytes() as u16).zip(value.to_le_bytes()) {
            off |= self.write_byte(port + i, byte);
        }
        off
    }

    fn write_byte(&mut self, port: u16, byte: u8) -> bool {
        // The byte in its place in a 16-bit register, and the mask of that place.
        let high = port & 1 != 0;
        let value = if high { u16::from(byte) << 8 } else { byte.into() };
        let place = if high { 0xff00 } else { 0x00ff };
        match port {
            GPE0_BASE..GPE0_ENABLE => self.gpe0[usize::from(port - GPE0_BASE)] &= !byte,
            GPE0_ENABLE..=0xafe3 => self.gpe0[usize::from(port - GPE0_BASE)] = byte,
            PM1_STATUS..=0xb001 => self.pm1_status &= !(value & PM1_STATUS_BITS),
            PM1_ENABLE..=0xb003 => {
                self.pm1_enable = (self.pm1_enable & !place | value & place) & PM1_EVENTS;
            }
            PM1_CONTROL..=0xb005 => {
                self.pm1_control = (self.pm1_control & !place | value & place) & PM1_CONTROL_BITS;
                return value & SLP_EN != 0 && self.sleep();
            }
            SMI_COMMAND => self.smi_write(byte),
            SMI_STATUS => self.smi_status = byte,
            _ => {}
        }
        false
    }

    /// SLP_EN was written. Sleeps that keep the processor are not declared, so nothing but the
    /// power going off can come of it.
    fn sleep(&mut self) -> bool {
        let kind = (self.pm1_control & SLP_TYP) >> SLP_TYP_SHIFT;
        tracing::debug!(target: "acpi", kind, "sleep");
        matches!(kind, SLP_TYP_S5 | SLP_TYP_S4)
    }

    /// What the firmware's SMI handler would do.
    fn smi_write(&mut self, command: u8) {
        self.smi_command = command;
        match command {
            ACPI_ENABLE => self.pm1_control |= SCI_EN,
            ACPI_DISABLE => self.pm1_control &= !SCI_EN,
            _ => {}
        }
    }
}

/// The power-management timer's count without a limit to its width; the register shows 24 bits.
fn timer(now: u64) -> u64 {
    (u128::from(now) * u128::from(TIMER_HZ) / 1_000_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn timer_counts_at_its_rate_in_24_bits() {
        let mut acpi = Acpi::default();
        assert_eq!(acpi.read(PM_TIMER, Width::Dword, 0), 0);
        assert_eq!(acpi.read(PM_TIMER, Width::Dword, SECOND), 3_579_545);
        assert_eq!(acpi.read(PM_TIMER, Width::Dword, 5 * SECOND), (5 * 3_579_545) & 0xff_ffff);
    }

    #[test]
    fn timer_overflow_raises_sci_if_enabled() {
        let mut acpi = Acpi::default();
        assert_eq!(acpi.next_event(), None);
        assert!(!acpi.write(PM1_ENABLE, Width::Word, TMR.into(), 0));
        let due = acpi.next_event().unwrap();
        assert_eq!(due, (1u64 << 23) * SECOND / TIMER_HZ + 1);
        acpi.poll(due - 1);
        assert!(!acpi.sci());
        acpi.poll(due);
        assert!(acpi.sci());
        assert!(!acpi.write(PM1_STATUS, Width::Word, TMR.into(), due));
        assert!(!acpi.sci());
        assert!(acpi.next_event().unwrap() > due);
    }

    #[test]
    fn smi_command_switches_acpi() {
        let mut acpi = Acpi::default();
        acpi.press_power_button();
        assert!(!acpi.write(PM1_ENABLE, Width::Word, PWRBTN.into(), 0));
        assert!(acpi.sci());
        assert!(!acpi.write(SMI_COMMAND, Width::Byte, ACPI_DISABLE.into(), 0));
        assert!(!acpi.sci());
        assert_eq!(acpi.read(PM1_CONTROL, Width::Word, 0) & 1, 0);
        assert!(!acpi.write(SMI_COMMAND, Width::Byte, ACPI_ENABLE.into(), 0));
        assert!(acpi.sci());
    }

    #[test]
    fn soft_off() {
        let mut acpi = Acpi::default();
        let s5 = u32::from(SLP_TYP_S5 << SLP_TYP_SHIFT | SCI_EN);
        assert!(!acpi.write(PM1_CONTROL, Width::Word, s5, 0), "type alone does nothing");
        assert!(acpi.write(PM1_CONTROL, Width::Word, s5 | u32::from(SLP_EN), 0));
        assert_eq!(acpi.read(PM1_CONTROL, Width::Word, 0) as u16 & SLP_EN, 0);
        assert!(!acpi.write(PM1_CONTROL, Width::Word, (5 << SLP_TYP_SHIFT) | u32::from(SLP_EN), 0));
    }

    #[test]
    fn general_purpose_status_clears_on_one() {
        let mut acpi = Acpi { gpe0: [2, 0, 0, 0], ..Acpi::default() };
        assert!(!acpi.write(GPE0_ENABLE, Width::Byte, 2, 0));
        assert!(acpi.sci());
        assert!(!acpi.write(GPE0_BASE, Width::Byte, 2, 0));
        assert!(!acpi.sci());
    }
}
