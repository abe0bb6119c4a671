//! Ports 61h and 92h, which v86's format does not have.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use crate::pc::Pc;
use serde_json::json;

/// What the ports hold, as far as the state tells.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    port_b: Option<u8>,
    port_a: Option<u8>,
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let port = |key| state.ours(key).as_u64().and_then(|n| u8::try_from(n).ok());
        Ok(Self { port_b: port("port_61"), port_a: port("port_92") })
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        let control = &mut machine.board.system_control;
        control.port_b = self.port_b.unwrap_or(control.port_b);
        control.port_a = self.port_a.unwrap_or(control.port_a);
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let control = &machine.board.system_control;
        writer.add("port_61", json!(control.port_b));
        writer.add("port_92", json!(control.port_a));
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, fields};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["reset"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.system_control.port_b => any,
                m.board.system_control.port_a => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.system_control)
        }
    }
}
