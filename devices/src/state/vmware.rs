//! The hypervisor's calls about the pointer.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::record::{Entry, Layout};
use crate::pc::Pc;
use crate::vmware::Backdoor;

const VMWARE: Layout = Layout { name: "vmware", fields: &["enabled", "absolute"] };

pub(super) type Saved = Backdoor;

impl Chip for Backdoor {
    /// Packets that wait are not in the state: the guest hears of the pointer when it next moves.
    fn read(state: &State) -> Result<Self, StateError> {
        let Some(r) = state.optional(&VMWARE, "vmware")? else { return Ok(Self::default()) };
        Ok(Self { enabled: r.bool("enabled")?, absolute: r.bool("absolute")?, ..Self::default() })
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        machine.board.backdoor = self;
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let Backdoor { enabled, absolute, .. } = machine.board.backdoor;
        writer.set("vmware", Entry::new(&VMWARE).set("enabled", enabled).set("absolute", absolute).value());
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, fields};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["words", "ends_in_motion", "buttons"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.backdoor.enabled => any,
                m.board.backdoor.absolute => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.backdoor)
        }
    }
}
