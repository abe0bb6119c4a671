//! The interval timer and the clock.

use super::StateError;
use super::container::Buffers;
use super::record::{Entry, Layout, Record};
use super::value::Value;
use crate::pit::{self, Access, Counter, Latch, Pit};
use crate::rtc::{CMOS_SIZE, Rtc};

pub(super) const PIT: Layout = Layout {
    name: "pit",
    fields: &[
        "next_low",
        "enabled",
        "mode",
        "access",
        "latch",
        "latch_value",
        "reload",
        "start_time",
        "start_value",
    ],
};
const COUNTERS: usize = 3;

/// The timer, and when its counters began their periods, in milliseconds on v86's clock.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SavedPit {
    pub pit: Pit,
    pub started: [f64; COUNTERS],
}

pub(super) fn read_pit(record: &Record) -> Result<SavedPit, StateError> {
    let next_low = record.u8s::<COUNTERS>("next_low")?;
    let enabled = record.u8s::<COUNTERS>("enabled")?;
    let mode = record.u8s::<COUNTERS>("mode")?;
    let access = record.u8s::<COUNTERS>("access")?;
    let latch = record.u8s::<COUNTERS>("latch")?;
    let latch_value = record.u16s::<COUNTERS>("latch_value")?;
    let reload = record.u16s::<COUNTERS>("reload")?;
    let start_value = record.u16s::<COUNTERS>("start_value")?;
    let counters = core::array::from_fn(|i| {
        let access = Access::from_bits(access[i]).unwrap_or_default();
        Counter {
            mode: mode[i].min(5),
            access,
            // v86 stores a written 0 so.
            reload: if reload[i] == 0xffff { 0 } else { reload[i] },
            null_count: enabled[i] == 0,
            enabled: enabled[i] != 0,
            start_value: match start_value[i] {
                0 | 0xffff => 0x1_0000,
                value => value.into(),
            },
            write_high_next: access == Access::LowHigh && next_low[i] == 0 && enabled[i] == 0,
            write_low: reload[i] as u8,
            latch: match latch[i] {
                2 => Latch::Low,
                1 => Latch::High,
                _ => Latch::None,
            },
            latch_value: latch_value[i],
            ..Counter::default()
        }
    });
    Ok(SavedPit { pit: Pit { counters, ..Pit::default() }, started: record.f64s("start_time")? })
}

pub(super) fn write_pit(pit: &Pit, now: u64, buffers: &mut Buffers) -> Value {
    let tick = pit::ticks(now);
    // Arrays of four, of which the last element is not used.
    let bytes = |get: &dyn Fn(&Counter) -> u8| {
        let mut bytes = [0; COUNTERS + 1];
        bytes.iter_mut().zip(&pit.counters).for_each(|(byte, counter)| *byte = get(counter));
        bytes
    };
    let count = |ticks: u32| ticks.min(0xffff) as u16;
    let next_low = bytes(&|c| u8::from(c.access != Access::High && !c.write_high_next && !c.read_high_next));
    // A one-shot that has fired would fire again in v86, which stops those of mode 0 only.
    let enabled = bytes(&|c| u8::from(c.enabled && !(c.mode == 0 && c.fired)));
    let latch = bytes(&|c| match c.latch {
        Latch::None => 0,
        Latch::Low => 2,
        Latch::High => 1,
    });
    let reloads = pit.counters.iter().map(|c| if c.reload == 0 { 0xffff } else { c.reload });
    // v86's clock begins at zero when it restores: what has passed lies before that.
    let started = pit.counters.iter().map(|c| -(pit::time_of_tick(c.elapsed_of_period(tick)) as f64) / 1e6);
    Entry::new(&PIT)
        .set("next_low", buffers.u8s(&next_low))
        .set("enabled", buffers.u8s(&enabled))
        .set("mode", buffers.u8s(&bytes(&|c| c.mode)))
        .set("access", buffers.u8s(&bytes(&|c| c.access.bits())))
        .set("latch", buffers.u8s(&latch))
        .set("latch_value", buffers.u16s(pit.counters.iter().map(|c| c.latch_value)))
        .set("reload", buffers.u16s(reloads))
        .set("start_time", buffers.f64s(started))
        .set("start_value", buffers.u16s(pit.counters.iter().map(|c| count(c.start_value))))
        .value()
}

pub(super) const RTC: Layout = Layout {
    name: "rtc",
    fields: &[
        "cmos_index",
        "cmos_data",
        "rtc_time",
        "last_update",
        "next_interrupt",
        "next_interrupt_alarm",
        "periodic_interrupt",
        "periodic_interrupt_time",
        "cmos_a",
        "cmos_b",
        "cmos_c",
        "nmi_disabled",
        "update_interrupt",
        "update_interrupt_time",
        "cmos_diag_status",
    ],
};
/// The register that v86 keeps outside its CMOS memory.
const DIAGNOSTIC: usize = 0x0e;
const PERIODIC: u8 = 0x40;
const UPDATE: u8 = 0x10;
const FLAGS: u8 = 0x70;
const RATE: u8 = 0x0f;

pub(super) fn read_rtc(record: &Record) -> Result<Rtc, StateError> {
    let mut cmos: [u8; CMOS_SIZE] = record.u8s("cmos_data")?;
    cmos[DIAGNOSTIC] = record.u32_or("cmos_diag_status", 0)? as u8;
    let time_ms = record.f64("rtc_time")? as i64;
    Ok(Rtc {
        index: record.u8("cmos_index")? & 0x7f,
        nmi_disabled: record.bool("nmi_disabled")?,
        cmos,
        control_a: record.u8("cmos_a")? & 0x7f,
        control_b: record.u8("cmos_b")?,
        flags_c: record.u8("cmos_c")? & FLAGS,
        time_ms,
        updated_ms: record.f64("last_update")? as i64,
        shown_second: None,
        flagged_second: Some(time_ms.div_euclid(1000)),
        flagged_tick: 0,
    })
}

pub(super) fn write_rtc(rtc: &Rtc, unix_ms: i64, buffers: &mut Buffers) -> Value {
    let period = 1000.0 / f64::from(32_768 >> (rtc.control_a & RATE).saturating_sub(1));
    let calendar = rtc.calendar_ms(unix_ms);
    let second_ends = unix_ms.saturating_add(1000 - calendar.rem_euclid(1000));
    let due = |on: bool, at: i64| if on { Value::from(at) } else { Value::from(0) };
    let periodic = rtc.control_b & PERIODIC != 0;
    let update = rtc.control_b & UPDATE != 0;
    Entry::new(&RTC)
        .set("cmos_index", rtc.index)
        .set("cmos_data", buffers.u8s(&rtc.cmos))
        .set("rtc_time", calendar)
        .set("last_update", unix_ms)
        .set("next_interrupt", due(periodic, unix_ms))
        .set("next_interrupt_alarm", rtc.alarm_due(unix_ms).map_or(0.into(), Value::from))
        .set("periodic_interrupt", periodic)
        .set("periodic_interrupt_time", period)
        .set("cmos_a", rtc.control_a)
        .set("cmos_b", rtc.control_b)
        .set("cmos_c", rtc.flags_c)
        .set("nmi_disabled", u8::from(rtc.nmi_disabled))
        .set("update_interrupt", update)
        .set("update_interrupt_time", due(update, second_ends))
        .set("cmos_diag_status", rtc.cmos[DIAGNOSTIC])
        .value()
}
