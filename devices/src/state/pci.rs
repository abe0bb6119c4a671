//! The PCI bus.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::container::Buffers;
use super::record::Record;
use super::value::{Kind, Value};
use crate::pc::Pc;
use crate::pci::Pci;
use serde_json::json;
use std::collections::BTreeMap;

/// Functions on bus 0.
const FUNCTIONS: usize = 256;
/// Bytes of a configuration space.
pub(super) const SPACE: usize = 256;
/// Behind the functions: what is behind ports CF8h and CFCh.
const ADDRESS: usize = FUNCTIONS;
const VALUE: usize = FUNCTIONS + 1;
const RESPONSE: usize = FUNCTIONS + 2;
const STATUS: usize = FUNCTIONS + 3;
const ENTRIES: usize = FUNCTIONS + 4;
/// v86's status of a function that answers.
const ANSWERS: u32 = 1 << 31;

/// The bus of a state: CONFIG_ADDRESS, and the configuration spaces by devfn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    address: u32,
    reset_control: Option<u8>,
    spaces: BTreeMap<u8, [u8; SPACE]>,
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let reset_control = state.ours("reset_control").as_u64().and_then(|n| u8::try_from(n).ok());
        Ok(Self { reset_control, ..read(&state.top)? })
    }

    /// The spaces of functions that this board has not are carried.
    fn apply(self, machine: &mut Pc, _: &Moment) {
        let pci = &mut machine.board.pci;
        pci.address = self.address;
        pci.reset_control = self.reset_control.unwrap_or(pci.reset_control);
        let mut others = self.spaces;
        others.retain(|devfn, saved| match pci.function_mut(*devfn) {
            Some(space) => {
                space.restore(saved);
                false
            }
            None => true,
        });
        machine.passengers.spaces = others;
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let pci = &machine.board.pci;
        let value = write(pci, &machine.passengers.spaces, &mut writer.buffers);
        writer.set("pci", value);
        writer.add("reset_control", json!(pci.reset_control));
        Ok(())
    }
}

fn read(top: &Record) -> Result<Saved, StateError> {
    let entries = top.list("pci")?;
    if entries.len() < ENTRIES {
        let problem = format!("has {} elements where {ENTRIES} are needed", entries.len());
        return Err(top.wrong("pci", problem));
    }
    let buffer = |at: usize, len: usize| -> Result<Option<&[u8]>, StateError> {
        match &entries[at] {
            Value::Null => Ok(None),
            Value::Buffer(_, id) => {
                match top.container.buffer(*id).map_err(|e| top.wrong("pci", e.to_string()))? {
                    bytes if bytes.len() >= len => Ok(Some(&bytes[..len])),
                    bytes => Err(top.wrong("pci", format!("{at} has {} bytes, not {len}", bytes.len()))),
                }
            }
            other => Err(top.wrong("pci", format!("{at} is {}", other.what()))),
        }
    };
    let mut pci = Saved::default();
    for devfn in 0..=255u8 {
        if let Some(bytes) = buffer(devfn.into(), SPACE)? {
            pci.spaces.insert(devfn, bytes.try_into().unwrap_or([0; SPACE]));
        }
    }
    pci.address = buffer(ADDRESS, 4)?.map_or(0, |bytes| Kind::U32.number(bytes) as u32);
    Ok(pci)
}

fn write(pci: &Pci, others: &BTreeMap<u8, [u8; SPACE]>, buffers: &mut Buffers) -> Value {
    let mut entries = vec![Value::Null; ENTRIES];
    let mut response = (u32::MAX, 0);
    let present = pci.functions().map(|(devfn, space)| (devfn, space.bytes()));
    let absent = others.iter().filter(|(devfn, _)| pci.function(**devfn).is_none());
    let mut spaces: Vec<_> = present.chain(absent.map(|(devfn, space)| (*devfn, space))).collect();
    spaces.sort_by_key(|(devfn, _)| *devfn);
    for (devfn, bytes) in spaces {
        entries[usize::from(devfn)] = buffers.add(Kind::I32, bytes.to_vec());
        if pci.address >> 8 & 0xffff == u32::from(devfn) {
            let at = (pci.address & 0xfc) as usize;
            response = (Kind::U32.number(&bytes[at..]) as u32, ANSWERS);
        }
    }
    entries[ADDRESS] = buffers.u8s(&pci.address.to_le_bytes());
    entries[VALUE] = buffers.u8s(&[0; 4]);
    entries[RESPONSE] = buffers.u8s(&response.0.to_le_bytes());
    entries[STATUS] = buffers.u8s(&response.1.to_le_bytes());
    Value::List(entries)
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, fields};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            let mut fields = fields!(m:
                m.board.pci.address => any, m.board.pci.reset_control => any,
            );
            fields.push(Field {
                name: "interrupt routing",
                get: |m| format!("{:?}", m.board.pci.function(ISA_BRIDGE).unwrap().bytes()),
                change: |m, random| {
                    let routing: [u8; 4] = any(random);
                    m.board.pci.function_mut(ISA_BRIDGE).unwrap().set_bytes(0x60, &routing);
                },
            });
            fields
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", (m.board.pci.address, m.board.pci.reset_control))
        }
    }

    /// The function that routes the interrupts.
    const ISA_BRIDGE: u8 = crate::pci::devfn(1, 0);
}
