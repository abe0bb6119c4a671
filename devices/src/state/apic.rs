//! The local APIC.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::record::{Layout, Record};
use super::value::Kind;
use crate::apic::{Apic, LocalVectors};
use crate::pc::Pc;
use serde_json::json;

/// An interrupt source that is masked, as it is at power-on.
const MASKED: u32 = 1 << 16;

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

/// The local APIC as v86 wrote it before it had the structure.
const OLD_LOCAL: Layout = Layout {
    name: "apic",
    fields: &[
        "id",
        "divider",
        "divider_shift",
        "initial_count",
        "current_count",
        "next_tick",
        "lvt_timer",
        "lvt_performance",
        "lvt_lint0",
        "lvt_lint1",
        "lvt_error",
        "tpr",
        "icr_low",
        "icr_high",
        "irr",
        "isr",
        "tmr",
        "spurious",
        "destination_format",
        "logical_destination",
        "errors",
        "error_status",
        "lvt_thermal",
    ],
};
/// Where its numbers are in the structure. When the timer began is not known: its period starts anew.
const OLD_LOCAL_WORDS: [(&str, usize); 19] = [
    ("id", local::ID),
    ("divider", local::DIVIDER),
    ("divider_shift", local::DIVIDER_SHIFT),
    ("initial_count", local::INITIAL_COUNT),
    ("current_count", local::CURRENT_COUNT),
    ("lvt_timer", local::LVT_TIMER),
    ("lvt_performance", local::LVT_PERFORMANCE),
    ("lvt_lint0", local::LVT_LINT0),
    ("lvt_lint1", local::LVT_LINT1),
    ("lvt_error", local::LVT_ERROR),
    ("tpr", local::TPR),
    ("icr_low", local::ICR_LOW),
    ("icr_high", local::ICR_HIGH),
    ("spurious", local::SPURIOUS),
    ("destination_format", local::DESTINATION_FORMAT),
    ("logical_destination", local::LOGICAL_DESTINATION),
    ("errors", local::ERRORS),
    ("error_status", local::ERROR_STATUS),
    ("lvt_thermal", local::LVT_THERMAL),
];

/// The structure of an old local APIC.
fn old_local(old: &Record) -> Result<[u8; local::SIZE], StateError> {
    let mut bytes = [0; local::SIZE];
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    for (field, at) in OLD_LOCAL_WORDS {
        // The last field came later than the others.
        put(at, old.u32_or(field, MASKED)?);
    }
    for (field, at) in [("irr", local::IRR), ("isr", local::ISR), ("tmr", local::TMR)] {
        for (i, word) in old.u32s::<8>(field)?.into_iter().enumerate() {
            put(at + 4 * i, word);
        }
    }
    Ok(bytes)
}

/// The local APIC, and how its timer stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Saved {
    apic: Apic,
    /// The timer runs, and began its period at this time in milliseconds on v86's clock.
    running_since: Option<f64>,
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let mut saved = read(&state.top)?;
        if let Some(base) = state.ours("apic_base").as_u64() {
            saved.apic.base = base as u32;
        }
        Ok(saved)
    }

    fn apply(self, machine: &mut Pc, moment: &Moment) {
        let Some(apics) = &mut machine.board.interrupts.apics else { return };
        apics.local = self.apic;
        let period = apics.local.period();
        apics.local.timer_deadline = self.running_since.map(|since| {
            let elapsed = moment.elapsed_ns(since, period as f64 / 1e6);
            moment.now.saturating_add(period - elapsed.min(period))
        });
    }

    /// A machine without one has it in its state, too, as v86 powers it up.
    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let none = Apic { spurious: 0xfe, ..Apic::default() };
        let apics = machine.board.interrupts.apics.as_ref();
        let bytes = write(apics.map_or(&none, |apics| &apics.local), writer.now);
        let value = writer.buffers.add(Kind::U8, bytes);
        writer.set("apic", value);
        if let Some(apics) = apics {
            writer.add("apic_base", json!(apics.local.base));
        }
        Ok(())
    }
}

/// A register of a structure.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    Kind::U32.number(bytes.get(at..).unwrap_or_default()) as u32
}

fn read(top: &Record) -> Result<Saved, StateError> {
    let bytes = match top.get("apic").list() {
        Some(_) => &old_local(&top.record(&OLD_LOCAL, "apic")?)?[..],
        None => top.bytes("apic", local::SIZE)?,
    };
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
    Ok(Saved { apic, running_since })
}

fn write(apic: &Apic, now: u64) -> Vec<u8> {
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
    bytes
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, bits, fields};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["timer_deadline", "nmi", "lint0"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.interrupts.apics.as_mut().unwrap().local.base => any,
                m.board.interrupts.apics.as_mut().unwrap().local.id => any,
                m.board.interrupts.apics.as_mut().unwrap().local.logical_destination => any,
                m.board.interrupts.apics.as_mut().unwrap().local.destination_format => any,
                m.board.interrupts.apics.as_mut().unwrap().local.spurious => any,
                m.board.interrupts.apics.as_mut().unwrap().local.isr => any,
                m.board.interrupts.apics.as_mut().unwrap().local.tmr => any,
                m.board.interrupts.apics.as_mut().unwrap().local.irr => any,
                m.board.interrupts.apics.as_mut().unwrap().local.errors => any,
                m.board.interrupts.apics.as_mut().unwrap().local.error_status => any,
                m.board.interrupts.apics.as_mut().unwrap().local.icr_low => any,
                m.board.interrupts.apics.as_mut().unwrap().local.icr_high => any,
                m.board.interrupts.apics.as_mut().unwrap().local.lvt.timer => any,
                m.board.interrupts.apics.as_mut().unwrap().local.lvt.thermal => any,
                m.board.interrupts.apics.as_mut().unwrap().local.lvt.performance => any,
                m.board.interrupts.apics.as_mut().unwrap().local.lvt.lint0 => any,
                m.board.interrupts.apics.as_mut().unwrap().local.lvt.lint1 => any,
                m.board.interrupts.apics.as_mut().unwrap().local.lvt.error => any,
                m.board.interrupts.apics.as_mut().unwrap().local.timer_initial => any,
                m.board.interrupts.apics.as_mut().unwrap().local.task_priority => bits(0xff),
                m.board.interrupts.apics.as_mut().unwrap().local.timer_divide => bits(0b1011),
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.interrupts.apics.as_ref().unwrap().local)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::{Buffers, Container};
    use super::super::record::Entry;
    use super::super::top::TOP;
    use super::super::{Saved as File, value::Value};
    use super::*;

    #[test]
    fn the_old_form_is_read() {
        let list = |range: std::ops::Range<u32>| Value::List(range.map(Value::from).collect());
        let mut local: Vec<Value> = (0..23).map(|i: u32| Value::from(i + 100)).collect();
        for (at, first) in [(14, 1), (15, 11), (16, 21)] {
            local[at] = list(first..first + 8);
        }
        local[12] = Value::from(-2);
        let top = Entry::new(&TOP).set("apic", local).value();
        let file = File::new(&top, Buffers::default(), serde_json::Map::new()).unwrap().to_vec();
        let container = Container::parse(&file).unwrap();
        let saved = Saved::read(&State::new(&container).unwrap()).unwrap();
        let apic = saved.apic;
        assert_eq!((apic.id, apic.timer_initial, apic.icr_low), (100, 103, -2i32 as u32));
        assert_eq!((apic.lvt.timer, apic.lvt.thermal, apic.spurious), (106, 122, 117));
        assert_eq!((apic.irr[0], apic.isr[0], apic.tmr[7]), (1, 11, 28));
        assert!(saved.running_since.is_some());
    }
}
