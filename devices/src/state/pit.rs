//! The interval timer.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::container::Buffers;
use super::ours::{take_bool, take_u8, take_u16};
use super::record::{Entry, Layout, Record};
use super::value::Value;
use crate::pc::Pc;
use crate::pit::{self, Access, Counter, Latch, Pit};
use serde_json::{Value as Json, json};

const PIT: Layout = Layout {
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
/// Periods are shorter.
const PERIOD_MS: f64 = 55.0;

/// The timer, and when its counters began their periods, in milliseconds on v86's clock.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Saved {
    pit: Pit,
    started: [f64; COUNTERS],
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let mut saved = read(&state.entry(&PIT, "pit")?)?;
        for (i, (counter, started)) in saved.pit.counters.iter_mut().zip(&mut saved.started).enumerate() {
            refine(counter, started, &state.ours("pit")[i]);
        }
        Ok(saved)
    }

    fn apply(self, machine: &mut Pc, moment: &Moment) {
        let pit = &mut machine.board.pit;
        *pit = self.pit;
        for (counter, since) in pit.counters.iter_mut().zip(self.started) {
            let elapsed = pit::ticks(moment.elapsed_ns(since, PERIOD_MS));
            counter.resume(pit::ticks(moment.now), elapsed);
        }
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let (pit, tick) = (&machine.board.pit, pit::ticks(writer.now));
        let value = write(pit, tick, &mut writer.buffers);
        writer.set("pit", value);
        writer.add("pit", pit.counters.iter().map(|counter| write_ours(counter, tick)).collect());
        Ok(())
    }
}

fn refine(c: &mut Counter, started: &mut f64, saved: &Json) {
    if let Some(elapsed) = saved["elapsed"].as_u64() {
        *started = -(pit::time_of_tick(elapsed.min(u32::MAX.into())) as f64) / 1e6;
    }
    take_bool(&saved["bcd"], &mut c.bcd);
    take_bool(&saved["gate"], &mut c.gate);
    take_bool(&saved["enabled"], &mut c.enabled);
    take_bool(&saved["low_half"], &mut c.low_half);
    take_bool(&saved["fired"], &mut c.fired);
    // `resume` puts it where it belongs.
    c.stopped = (saved["stopped"] == Json::Bool(true)).then_some(0);
    take_u16(&saved["reload"], &mut c.reload);
    let start_value = saved["start_value"].as_u64().filter(|value| (1..=0x1_0000).contains(value));
    c.start_value = start_value.map_or(c.start_value, |value| value as u32);
    take_bool(&saved["write_high_next"], &mut c.write_high_next);
    take_u8(&saved["write_low"], &mut c.write_low);
    take_bool(&saved["read_high_next"], &mut c.read_high_next);
    c.latched_status = saved["status"].as_u64().map(|status| status as u8);
}

fn write_ours(c: &Counter, tick: u64) -> Json {
    json!({
        "bcd": c.bcd,
        "gate": c.gate,
        "enabled": c.enabled,
        "low_half": c.low_half,
        "fired": c.fired,
        "stopped": c.stopped.is_some(),
        "elapsed": c.stopped.unwrap_or(tick).saturating_sub(c.start),
        "start_value": c.start_value,
        "reload": c.reload,
        "write_high_next": c.write_high_next,
        "write_low": c.write_low,
        "read_high_next": c.read_high_next,
        "status": c.latched_status,
    })
}

fn read(record: &Record) -> Result<Saved, StateError> {
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
    Ok(Saved { pit: Pit { counters, ..Pit::default() }, started: record.f64s("start_time")? })
}

fn write(pit: &Pit, tick: u64, buffers: &mut Buffers) -> Value {
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

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, fields, one_of};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["irq0", "start", "stopped", "null_count", "speaker"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.pit.counters[0].bcd => any,
                m.board.pit.counters[0].gate => any,
                m.board.pit.counters[0].low_half => any,
                m.board.pit.counters[0].write_high_next => any,
                m.board.pit.counters[0].write_low => any,
                m.board.pit.counters[0].read_high_next => any,
                m.board.pit.counters[0].latch_value => any,
                m.board.pit.counters[0].reload => any,
                m.board.pit.counters[0].mode => |r: &mut Random| r.below(6) as u8,
                m.board.pit.counters[0].access => one_of([Access::Low, Access::High, Access::LowHigh]),
                m.board.pit.counters[0].start_value => |r: &mut Random| 1 + r.below(0x1_0000) as u32,
                m.board.pit.counters[0].latch => one_of([Latch::None, Latch::Low, Latch::High]),
                m.board.pit.counters[0].latched_status => |r: &mut Random| Some(any(r)),
                m.board.pit.counters[0].enabled => any,
                m.board.pit.counters[0].fired => any,
                m.board.pit.counters[1].bcd => any,
                m.board.pit.counters[1].gate => any,
                m.board.pit.counters[1].low_half => any,
                m.board.pit.counters[1].write_high_next => any,
                m.board.pit.counters[1].write_low => any,
                m.board.pit.counters[1].read_high_next => any,
                m.board.pit.counters[1].latch_value => any,
                m.board.pit.counters[1].reload => any,
                m.board.pit.counters[1].mode => |r: &mut Random| r.below(6) as u8,
                m.board.pit.counters[1].access => one_of([Access::Low, Access::High, Access::LowHigh]),
                m.board.pit.counters[1].start_value => |r: &mut Random| 1 + r.below(0x1_0000) as u32,
                m.board.pit.counters[1].latch => one_of([Latch::None, Latch::Low, Latch::High]),
                m.board.pit.counters[1].latched_status => |r: &mut Random| Some(any(r)),
                m.board.pit.counters[1].enabled => any,
                m.board.pit.counters[1].fired => any,
                m.board.pit.counters[2].bcd => any,
                m.board.pit.counters[2].gate => any,
                m.board.pit.counters[2].low_half => any,
                m.board.pit.counters[2].write_high_next => any,
                m.board.pit.counters[2].write_low => any,
                m.board.pit.counters[2].read_high_next => any,
                m.board.pit.counters[2].latch_value => any,
                m.board.pit.counters[2].reload => any,
                m.board.pit.counters[2].mode => |r: &mut Random| r.below(6) as u8,
                m.board.pit.counters[2].access => one_of([Access::Low, Access::High, Access::LowHigh]),
                m.board.pit.counters[2].start_value => |r: &mut Random| 1 + r.below(0x1_0000) as u32,
                m.board.pit.counters[2].latch => one_of([Latch::None, Latch::Low, Latch::High]),
                m.board.pit.counters[2].latched_status => |r: &mut Random| Some(any(r)),
                m.board.pit.counters[2].enabled => any,
                m.board.pit.counters[2].fired => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.pit)
        }
    }
}
