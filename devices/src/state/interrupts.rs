//! The interrupt controllers.

use super::StateError;
use super::container::Buffers;
use super::record::{Entry, Layout, Record, flag};
use super::value::{Kind, Value};
use crate::apic::{Apic, LocalVectors};
use crate::ioapic::{Ioapic, PINS};
use crate::pic::{Chip, Init, Pic};

pub(super) const PIC: Layout = Layout {
    name: "pic",
    fields: &[
        "irq_mask",
        "irq_map",
        "isr",
        "irr",
        "is_master",
        "slave",
        "expect_icw4",
        "state",
        "read_isr",
        "auto_eoi",
        "elcr",
        "irq_value",
        "special_mask_mode",
    ],
};

pub(super) fn read_pic(pic: &Record) -> Result<Pic, StateError> {
    let slave = pic.record(&PIC, "slave")?;
    Ok(Pic { master: chip(pic)?, slave: chip(&slave)? })
}

fn chip(record: &Record) -> Result<Chip, StateError> {
    Ok(Chip {
        // v86 keeps the mask inverted.
        imr: !record.u8("irq_mask")?,
        irr: record.u8("irr")?,
        isr: record.u8("isr")?,
        lines: record.u8("irq_value")?,
        elcr: record.u8("elcr")?,
        vector_base: record.u8("irq_map")? & 0xf8,
        init: match record.u8("state")? {
            0 => Init::Done,
            1 => Init::Icw2,
            2 => Init::Icw3,
            other => return Err(record.wrong("state", format!("is {other}, not 0 to 2"))),
        },
        expect_icw4: record.bool("expect_icw4")?,
        auto_eoi: record.bool("auto_eoi")?,
        special_mask: record.bool_or_false("special_mask_mode")?,
        read_isr: record.bool("read_isr")?,
        ..Chip::default()
    })
}

pub(super) fn write_pic(pic: &Pic) -> Value {
    write_chip(&pic.master, true, write_chip(&pic.slave, false, Value::Null))
}

fn write_chip(chip: &Chip, master: bool, slave: Value) -> Value {
    let state: u8 = match chip.init {
        Init::Done => 0,
        Init::Icw2 => 1,
        Init::Icw3 => 2,
    };
    Entry::new(&PIC)
        .set("irq_mask", !chip.imr)
        .set("irq_map", chip.vector_base)
        .set("isr", chip.isr)
        .set("irr", chip.irr)
        .set("is_master", flag(master))
        .set("slave", slave)
        .set("expect_icw4", flag(chip.expect_icw4))
        .set("state", state)
        .set("read_isr", flag(chip.read_isr))
        .set("auto_eoi", flag(chip.auto_eoi))
        .set("elcr", chip.elcr)
        .set("irq_value", chip.lines)
        .set("special_mask_mode", flag(chip.special_mask))
        .value()
}

/// Where the local APIC's registers are in its structure of 184 bytes.
mod local {
    pub const SIZE: usize = 184;
    pub const ID: usize = 0;
    pub const DIVIDER: usize = 4;
    pub const DIVIDER_SHIFT: usize = 8;
    pub const INITIAL_COUNT: usize = 12;
    pub const CURRENT_COUNT: usize = 16;
    /// A double: milliseconds.
    pub const LAST_TICK: usize = 24;
    pub const LVT_TIMER: usize = 32;
    pub const LVT_PERFORMANCE: usize = 36;
    pub const LVT_LINT0: usize = 40;
    pub const LVT_LINT1: usize = 44;
    pub const LVT_ERROR: usize = 48;
    pub const TPR: usize = 52;
    pub const ICR_LOW: usize = 56;
    pub const ICR_HIGH: usize = 60;
    pub const IRR: usize = 64;
    pub const ISR: usize = 96;
    pub const TMR: usize = 128;
    pub const SPURIOUS: usize = 160;
    pub const DESTINATION_FORMAT: usize = 164;
    pub const LOGICAL_DESTINATION: usize = 168;
    pub const ERRORS: usize = 172;
    pub const ERROR_STATUS: usize = 176;
    pub const LVT_THERMAL: usize = 180;
}

/// The local APIC, and how its timer stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SavedApic {
    pub apic: Apic,
    /// The timer runs, and began its period at this time in milliseconds on v86's clock.
    pub running_since: Option<f64>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    Kind::U32.number(bytes.get(at..).unwrap_or_default()) as u32
}

pub(super) fn read_apic(top: &Record) -> Result<SavedApic, StateError> {
    if top.get("apic").list().is_some() {
        return Err(StateError::Unsupported(
            "entry 46 (apic) is in the form of an old v86; restore and save it with a current v86".into(),
        ));
    }
    let bytes = top.bytes("apic", local::SIZE)?;
    let get = |at| word(bytes, at);
    let set = |at: usize| core::array::from_fn(|i| get(at + 4 * i));
    let apic = Apic {
        id: get(local::ID),
        task_priority: get(local::TPR) & 0xff,
        logical_destination: get(local::LOGICAL_DESTINATION),
        destination_format: get(local::DESTINATION_FORMAT),
        spurious: get(local::SPURIOUS),
        isr: set(local::ISR),
        tmr: set(local::TMR),
        irr: set(local::IRR),
        errors: get(local::ERRORS),
        error_status: get(local::ERROR_STATUS),
        icr_low: get(local::ICR_LOW),
        icr_high: get(local::ICR_HIGH),
        lvt: LocalVectors {
            timer: get(local::LVT_TIMER),
            thermal: get(local::LVT_THERMAL),
            performance: get(local::LVT_PERFORMANCE),
            lint0: get(local::LVT_LINT0),
            lint1: get(local::LVT_LINT1),
            error: get(local::LVT_ERROR),
        },
        timer_divide: get(local::DIVIDER) & 0b1011,
        timer_initial: get(local::INITIAL_COUNT),
        ..Apic::default()
    };
    let last_tick = Kind::F64.number(&bytes[local::LAST_TICK..]);
    let running = get(local::CURRENT_COUNT) != 0 && apic.timer_initial != 0;
    let running_since = running.then_some(if last_tick.is_finite() { last_tick } else { 0.0 });
    Ok(SavedApic { apic, running_since })
}

pub(super) fn write_apic(apic: &Apic, now: u64, buffers: &mut Buffers) -> Value {
    let mut bytes = vec![0; local::SIZE];
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(local::ID, apic.id);
    put(local::DIVIDER, apic.timer_divide);
    put(local::DIVIDER_SHIFT, apic.divide_shift());
    put(local::INITIAL_COUNT, apic.timer_initial);
    put(local::CURRENT_COUNT, if apic.timer_deadline.is_some() { apic.timer_initial } else { 0 });
    put(local::LVT_TIMER, apic.lvt.timer);
    put(local::LVT_PERFORMANCE, apic.lvt.performance);
    put(local::LVT_LINT0, apic.lvt.lint0);
    put(local::LVT_LINT1, apic.lvt.lint1);
    put(local::LVT_ERROR, apic.lvt.error);
    put(local::TPR, apic.task_priority);
    put(local::ICR_LOW, apic.icr_low);
    put(local::ICR_HIGH, apic.icr_high);
    for (at, set) in [(local::IRR, &apic.irr), (local::ISR, &apic.isr), (local::TMR, &apic.tmr)] {
        for (i, word) in set.iter().enumerate() {
            put(at + 4 * i, *word);
        }
    }
    put(local::SPURIOUS, apic.spurious);
    put(local::DESTINATION_FORMAT, apic.destination_format);
    put(local::LOGICAL_DESTINATION, apic.logical_destination);
    put(local::ERRORS, apic.errors);
    put(local::ERROR_STATUS, apic.error_status);
    put(local::LVT_THERMAL, apic.lvt.thermal);
    // v86's clock begins at zero when it restores: what has passed of the period lies before that.
    let since = apic.timer_deadline.map_or(0.0, |deadline| {
        let elapsed = apic.period().saturating_sub(deadline.saturating_sub(now));
        -(elapsed as f64) / 1e6
    });
    bytes[local::LAST_TICK..local::LAST_TICK + 8].copy_from_slice(&since.to_le_bytes());
    buffers.add(Kind::U8, bytes)
}

/// Where the I/O APIC's registers are in its structure of 208 bytes.
mod io {
    pub const SIZE: usize = 208;
    pub const LOW: usize = 0;
    pub const HIGH: usize = 96;
    pub const SELECT: usize = 192;
    pub const ID: usize = 196;
    pub const IRR: usize = 200;
    pub const LINES: usize = 204;
}

pub(super) fn read_ioapic(top: &Record) -> Result<Ioapic, StateError> {
    if top.get("ioapic").list().is_some() {
        return Err(StateError::Unsupported(
            "entry 63 (ioapic) is in the form of an old v86; restore and save it with a current v86".into(),
        ));
    }
    let bytes = top.bytes("ioapic", io::SIZE)?;
    let get = |at| word(bytes, at);
    Ok(Ioapic {
        config: core::array::from_fn(|pin| get(io::LOW + 4 * pin)),
        destination: core::array::from_fn(|pin| get(io::HIGH + 4 * pin)),
        select: get(io::SELECT) & 0xff,
        id: get(io::ID) & 0xf,
        irr: get(io::IRR) & ((1 << PINS) - 1),
        lines: get(io::LINES) & ((1 << PINS) - 1),
    })
}

pub(super) fn write_ioapic(ioapic: &Ioapic, buffers: &mut Buffers) -> Value {
    let words = ioapic.config.into_iter().chain(ioapic.destination);
    let words = words.chain([ioapic.select, ioapic.id, ioapic.irr, ioapic.lines]);
    buffers.add(Kind::U8, words.flat_map(u32::to_le_bytes).collect::<Vec<_>>())
}
