//! Devices that v86's machine has and this board has not.
//!
//! Their entries must be there for v86 to restore a state. They are those of the state that a
//! machine was restored from, or those of v86's devices at power-on.

use super::ImageSource;
use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::container::{Buffers, Container};
use super::pci::SPACE;
use super::record::Record;
use super::value::{Kind, Value};
use crate::board::Row;
use crate::pc::Pc;
use std::collections::BTreeMap;

/// The entries of devices that v86's machine can have.
const ENTRIES: [&str; 6] = ["ne2k", "sb16", "virtio_net", "virtio_balloon", "parallel0", "parallel1"];

/// Those that are carried: no row of the board has them.
fn carried() -> impl Iterator<Item = &'static str> {
    ENTRIES.into_iter().filter(|entry| Row::ALL.iter().all(|row| !row.states().contains(entry)))
}

const NE2K: u8 = 5 << 3;
/// The configuration space at power-on: identity, command and status, class, base address, subsystem,
/// interrupt pin.
const NE2K_SPACE: &[(usize, u32)] = &[
    (0x00, 0x8029_10ec),
    (0x04, 0x0103),
    (0x08, 0x0200_0000),
    (0x10, 0x301),
    (0x2c, 0x1100_1af4),
    (0x3c, 0x0100),
];

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
    pub(super) spaces: Option<BTreeMap<u8, [u8; SPACE]>>,
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

/// Devices that the guest may miss.
pub(super) fn notes(top: &Record) -> Vec<String> {
    let missing = [
        ("ne2k", "an ne2k network card"),
        ("virtio_net", "a virtio network card"),
        ("virtio_balloon", "a virtio balloon"),
    ];
    let carried = |name: &str| carried().any(|entry| entry == name);
    let present = missing.into_iter().filter(|(name, _)| carried(name) && !top.get(name).is_null());
    present.map(|(_, what)| format!("the machine has {what}, which does not work here")).collect()
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
            None => power_on(name, buffers),
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

    /// The configuration spaces of the functions.
    pub(super) fn spaces(&self) -> BTreeMap<u8, [u8; SPACE]> {
        self.spaces.clone().unwrap_or_else(|| BTreeMap::from([(NE2K, space(NE2K_SPACE))]))
    }
}

fn space(dwords: &[(usize, u32)]) -> [u8; SPACE] {
    let mut bytes = [0; SPACE];
    for (at, value) in dwords {
        bytes[*at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// v86's device at power-on.
fn power_on(name: &str, buffers: &mut Buffers) -> Value {
    match name {
        "ne2k" => ne2k(buffers),
        "sb16" => sb16(buffers),
        // Data, status, control, no status latched.
        "parallel0" => Value::List(vec![0.into(), 0xd8.into(), 0.into(), Value::Null]),
        _ => Value::Null,
    }
}

/// A list of positions with values; the others are zero.
fn sparse(len: usize, values: impl IntoIterator<Item = (usize, Value)>) -> Vec<Value> {
    let mut list = vec![Value::from(0); len];
    for (at, value) in values {
        list[at] = value;
    }
    list
}

/// The network card with the address that v86 gives its first.
fn ne2k(buffers: &mut Buffers) -> Value {
    const MAC: [u8; 6] = [0x00, 0x22, 0x15, 0x86, 0x86, 0x86];
    const MEMORY: usize = 32_768;
    let mut memory = vec![0; MEMORY];
    for (pair, byte) in memory.chunks_exact_mut(2).zip(MAC) {
        pair.fill(byte);
    }
    memory[28..32].fill(0x57);
    let mac = buffers.u8s(&MAC);
    let memory = buffers.add(Kind::U8, memory);
    let fields = [
        (2, 1.into()),     // command: stopped
        (8, 0x40.into()),  // PSTART
        (9, 0x4c.into()),  // CURR
        (10, 0x4c.into()), // boundary
        (11, 0x80.into()), // PSTOP
        (14, 1.into()),    // TSR
        (15, mac),
        (16, memory),
    ];
    sparse(17, fields).into()
}

fn sb16(buffers: &mut Buffers) -> Value {
    let mut mixer = [0; 256];
    for (registers, value) in [
        (&[0x04, 0x22, 0x26][..], 0xcc),
        (&[0x30, 0x31, 0x32, 0x33, 0x34, 0x35], 0xc0),
        (&[0x3c], 0x1f),
        (&[0x3d], 0x15),
        (&[0x3e], 0x0b),
        (&[0x44, 0x45, 0x46, 0x47], 0x80),
    ] {
        registers.iter().for_each(|register| mixer[*register] = value);
    }
    let mut asp = [0; 256];
    (asp[5], asp[9]) = (0x01, 0xf8);
    let nulls = [0, 1, 13, 14, 32, 33].map(|at| (at, Value::Null));
    let flags = [7, 9, 10, 11, 12, 23, 25, 26].map(|at| (at, Value::from(false)));
    let fields = [
        (6, buffers.u8s(&mixer)),
        (21, 1.into()), // DMA channels
        (22, 5.into()),
        (24, buffers.add(Kind::U8, vec![0; 65_536])),
        (27, 22_050.into()), // samples a second
        (28, 1.into()),
        (29, 0xaa.into()),
        (31, buffers.u8s(&asp)),
        (34, 5.into()), // IRQ
        (35, buffers.u8s(&[0; 16])),
    ];
    sparse(36, nulls.into_iter().chain(flags).chain(fields)).into()
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            vec![
                Field {
                    name: "a register of the sound card",
                    get: |m| format!("{:?}", m.passengers.entries.get("sb16")),
                    change: |m, random| {
                        let registers = vec![any::<u8>(random).into(), Value::Null];
                        m.passengers.entries.insert("sb16", Value::List(registers));
                    },
                },
                Field {
                    name: "the network card's buffer",
                    get: |m| {
                        let entry = m.passengers.entries.get("ne2k").map(|entry| entry.at(0));
                        let Some(Value::Buffer(_, id)) = entry else { return "power-on".into() };
                        format!("{:?}", m.passengers.buffers[*id as usize])
                    },
                    change: |m, random| {
                        m.passengers.buffers = vec![(Kind::U8, any::<[u8; 4]>(random).into())];
                        let buffer = vec![Value::Buffer(Kind::U8, 0)];
                        m.passengers.entries.insert("ne2k", Value::List(buffer));
                    },
                },
            ]
        }

        fn show(_: &mut Pc) -> String {
            String::new()
        }
    }
}
