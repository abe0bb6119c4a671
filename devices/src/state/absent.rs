//! Devices that v86's machine has and this board has not.
//!
//! Their entries must be there for v86 to restore a state. They are those of the state that a
//! machine was restored from, or those of v86's devices at power-on.

use super::ImageSource;
use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::container::{Buffers, Container};
use super::pci::SPACE;
use super::value::{Kind, Value};
use crate::board::Row;
use crate::pc::Pc;
use std::collections::BTreeMap;

/// The entries of devices that v86's machine can have.
const ENTRIES: [&str; 2] = ["parallel0", "parallel1"];

/// Those that are carried: no row of the board has them.
fn carried() -> impl Iterator<Item = &'static str> {
    ENTRIES.into_iter().filter(|entry| Row::ALL.iter().all(|row| !row.states().contains(entry)))
}

/// What a machine carries from state to state and does not use: v86's devices that this board has not,
/// and where its file system comes from.
#[derive(Clone, Debug, Default)]
pub struct Passengers {
    /// The image of the file system. Whoever starts a machine with one says so here.
    pub image: Option<ImageSource>,
    /// Entries by name, with their buffers in `buffers`; what is not here is as at power-on.
    entries: BTreeMap<&'static str, Value>,
    buffers: Vec<(Kind, Vec<u8>)>,
    /// Configuration spaces of functions that this board has not, by devfn.
    pub(super) spaces: BTreeMap<u8, [u8; SPACE]>,
}

pub(super) type Saved = Passengers;

impl Chip for Passengers {
    /// Takes the entries out of a state.
    fn read(state: &State) -> Result<Self, StateError> {
        let mut passengers = Self::default();
        for name in carried() {
            let value = passengers.adopt(state.top.get(name), state.container);
            let value = value.map_err(|error| state.top.wrong(name, error.to_string()))?;
            passengers.entries.insert(name, value);
        }
        Ok(passengers)
    }

    /// The spaces and the image are those of other chips.
    fn apply(self, machine: &mut Pc, _: &Moment) {
        (machine.passengers.entries, machine.passengers.buffers) = (self.entries, self.buffers);
    }

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        for name in carried() {
            let value = machine.passengers.entry(name, &mut writer.buffers);
            writer.set(name, value);
        }
        Ok(())
    }
}

impl Passengers {
    /// Copies a value with its buffers.
    fn adopt(&mut self, value: &Value, container: &Container) -> Result<Value, StateError> {
        Ok(match value {
            Value::Buffer(kind, id) => {
                self.buffers.push((*kind, container.buffer(*id)?.to_vec()));
                Value::Buffer(*kind, self.buffers.len() as u32 - 1)
            }
            Value::List(list) => {
                let list: Result<_, _> = list.iter().map(|value| self.adopt(value, container)).collect();
                Value::List(list?)
            }
            other => other.clone(),
        })
    }

    /// An entry for a state that is being written.
    fn entry<'m>(&'m self, name: &'static str, buffers: &mut Buffers<'m>) -> Value {
        match self.entries.get(name) {
            Some(value) => self.give(value, buffers),
            None => power_on(name),
        }
    }

    fn give<'m>(&'m self, value: &Value, buffers: &mut Buffers<'m>) -> Value {
        match value {
            Value::Buffer(_, id) => match self.buffers.get(*id as usize) {
                Some((kind, bytes)) => buffers.add(*kind, &bytes[..]),
                None => Value::Null,
            },
            Value::List(list) => Value::List(list.iter().map(|value| self.give(value, buffers)).collect()),
            other => other.clone(),
        }
    }
}

/// v86's device at power-on.
fn power_on(name: &str) -> Value {
    match name {
        // Data, status, control, no status latched.
        "parallel0" => Value::List(vec![0.into(), 0xd8.into(), 0.into(), Value::Null]),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            vec![
                Field {
                    name: "a register of a parallel port",
                    get: |m| format!("{:?}", m.passengers.entries.get("parallel0")),
                    change: |m, random| {
                        let registers = vec![any::<u8>(random).into(), Value::Null];
                        m.passengers.entries.insert("parallel0", Value::List(registers));
                    },
                },
                Field {
                    name: "a parallel port's buffer",
                    get: |m| {
                        let entry = m.passengers.entries.get("parallel0").map(|entry| entry.at(0));
                        let Some(Value::Buffer(_, id)) = entry else { return "power-on".into() };
                        format!("{:?}", m.passengers.buffers[*id as usize])
                    },
                    change: |m, random| {
                        m.passengers.buffers = vec![(Kind::U8, any::<[u8; 4]>(random).into())];
                        let buffer = vec![Value::Buffer(Kind::U8, 0)];
                        m.passengers.entries.insert("parallel0", Value::List(buffer));
                    },
                },
            ]
        }

        fn show(_: &mut Pc) -> String {
            String::new()
        }
    }
}
