//! The alias of the ROMs below 4 GiB, where the processor starts and from where SeaBIOS copies itself. v86's
//! format has no word for it: its machines always have one.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use crate::pc::Pc;

/// Whether the alias is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saved(bool);

const KEY: &str = "rom_alias";

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let by_v86 = state.guest_time().is_none();
        Ok(Self(state.ours(KEY).as_bool().unwrap_or(by_v86)))
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        machine.cpu.mem_mut().set_rom_alias(self.0);
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        if machine.cpu.mem().has_rom_alias() {
            writer.add(KEY, true.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            vec![Field {
                name: KEY,
                get: Self::show,
                change: |m, _| {
                    let alias = !m.cpu.mem().has_rom_alias();
                    m.cpu.mem_mut().set_rom_alias(alias);
                },
            }]
        }

        fn show(m: &mut Pc) -> String {
            m.cpu.mem().has_rom_alias().to_string()
        }
    }
}
