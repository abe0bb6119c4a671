//! Ports 61h and 92h, which v86's format does not have.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::ours::take_u8;
use crate::pc::Pc;
use crate::system_control::SystemControl;
use serde_json::json;

/// What the ports hold, as far as the state tells.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    port_b: serde_json::Value,
    port_a: serde_json::Value,
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        Ok(Self { port_b: state.ours("port_61").clone(), port_a: state.ours("port_92").clone() })
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        let SystemControl { port_b, port_a, .. } = &mut machine.board.system_control;
        take_u8(&self.port_b, port_b);
        take_u8(&self.port_a, port_a);
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
