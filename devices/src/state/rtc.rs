//! The clock, and the setup memory in it.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::container::Buffers;
use super::record::{Entry, Layout, Record};
use super::value::Value;
use crate::pc::Pc;
use crate::rtc::{CMOS_SIZE, Rtc};

const RTC: Layout = Layout {
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

pub(super) type Saved = Rtc;

impl Chip for Rtc {
    fn read(state: &State) -> Result<Self, StateError> {
        read(&state.entry(&RTC, "rtc")?)
    }

    fn apply(self, machine: &mut Pc, moment: &Moment) {
        let rtc = &mut machine.board.rtc;
        *rtc = self;
        rtc.resume(moment.now);
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let value = write(&machine.board.rtc, writer.unix_ms, &mut writer.buffers);
        writer.set("rtc", value);
        Ok(())
    }
}

fn read(record: &Record) -> Result<Rtc, StateError> {
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

fn write(rtc: &Rtc, unix_ms: i64, buffers: &mut Buffers) -> Value {
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

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, bits, fields};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] =
            &["time_ms", "updated_ms", "shown_second", "flagged_second", "flagged_tick"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.rtc.index => bits(0x7f),
                m.board.rtc.nmi_disabled => any,
                m.board.rtc.cmos => any,
                m.board.rtc.control_a => bits(0x7f),
                m.board.rtc.control_b => any,
                m.board.rtc.flags_c => bits(FLAGS),
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.rtc)
        }
    }
}
