//! The parallel port: v86 has none that prints, so all of it is our addition.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::ours::{take_bool, take_u8};
use crate::board::BoardConfig;
use crate::lpt::Lpt;
use crate::pc::Pc;
use serde_json::json;

const OURS: &str = "lpt";

/// The port, if it is fitted.
pub(super) type Saved = Option<Lpt>;

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let ours = state.ours(OURS);
        if ours.is_null() {
            return Ok(None);
        }
        let mut lpt = Lpt::default();
        take_u8(&ours["data"], &mut lpt.data);
        take_u8(&ours["control"], &mut lpt.control);
        take_bool(&ours["acknowledged"], &mut lpt.acknowledged);
        lpt.control &= crate::lpt::CONTROL_BITS;
        Ok(Some(lpt))
    }

    /// One that is asked for now is a new one.
    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { lpt: config.lpt || self.is_some(), ..config }
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        if let (Some(lpt), Some(saved)) = (&mut machine.board.lpt, self) {
            (lpt.data, lpt.control, lpt.acknowledged) = (saved.data, saved.control, saved.acknowledged);
        }
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        if let Some(lpt) = &machine.board.lpt {
            let value = json!({ "data": lpt.data, "control": lpt.control, "acknowledged": lpt.acknowledged });
            writer.add(OURS, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, bits, fields};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["connected", "output"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.lpt.as_mut().unwrap().data => any,
                m.board.lpt.as_mut().unwrap().control => bits(crate::lpt::CONTROL_BITS),
                m.board.lpt.as_mut().unwrap().acknowledged => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.lpt.as_ref().unwrap())
        }
    }
}
