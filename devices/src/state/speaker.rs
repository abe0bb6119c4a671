//! The PC speaker, which v86's format does not have. The timer and port 61h are others' and are applied
//! before.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use crate::pc::Pc;
use crate::speaker::{Rest, Speaker};
use serde_json::{Value as Json, json};

const OURS: &str = "speaker";
/// More than any value of the filter.
const MOST: i64 = 1 << 24;

/// The speaker as far as it is its own.
pub(super) type Saved = Speaker;

impl Chip for Speaker {
    fn read(state: &State) -> Result<Self, StateError> {
        let ours = state.ours(OURS);
        let number = |saved: &Json| saved.as_i64().unwrap_or(0).clamp(-MOST, MOST);
        let rest = ours["rest"].as_u64().and_then(|rest| u32::try_from(rest).ok()).map(Rest);
        Ok(Self {
            pushed: number(&ours["pushed"]).unsigned_abs(),
            input: number(&ours["input"]),
            output: number(&ours["output"]),
            rest: rest.unwrap_or_default(),
            ..Self::default()
        })
    }

    fn apply(mut self, machine: &mut Pc, moment: &Moment) {
        self.enabled = machine.board.system_control.speaker();
        self.resume(&machine.board.pit.counters[2], moment.now);
        machine.board.pit.speaker = self;
    }

    fn prepare(machine: &mut Pc, writer: &mut Writer) -> Result<(), StateError> {
        machine.board.pit.speaker.before_change(writer.now);
        Ok(())
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let Speaker { pushed, input, output, rest, .. } = &machine.board.pit.speaker;
        writer.add(OURS, json!({ "pushed": pushed, "input": input, "output": output, "rest": rest.0 }));
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, fields};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["enabled", "counter", "played", "tick", "track"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.pit.speaker.pushed => |r: &mut Random| r.below(25) as u64,
                m.board.pit.speaker.input => |r: &mut Random| r.below(8001) as i64,
                m.board.pit.speaker.output => |r: &mut Random| r.below(1 << 20) as i64 - (1 << 19),
                m.board.pit.speaker.rest => |r: &mut Random| Rest(r.below(4800) as u32),
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.pit.speaker)
        }
    }
}
