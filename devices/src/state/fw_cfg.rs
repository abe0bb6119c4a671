//! The firmware's configuration: the item that is being read.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::record::Record;
use super::value::{Kind, Value};
use crate::pc::Pc;
use serde_json::json;

/// The most bytes of a selected item of the firmware's configuration.
const MAX_ITEM: usize = 64 << 20;

/// The selected item, and how much of it has been read.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    value: Vec<u8>,
    position: usize,
    dma_high: u32,
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let position = state.ours("fw_cfg_position").as_u64().unwrap_or(0);
        let dma_high = state.ours("fw_cfg_dma_high").as_u64().unwrap_or(0);
        Ok(Self {
            value: read_value(&state.top)?,
            position: usize::try_from(position).unwrap_or(0),
            dma_high: dma_high as u32,
        })
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        let fw_cfg = &mut machine.board.fw_cfg;
        (fw_cfg.value, fw_cfg.position, fw_cfg.dma_high) = (self.value, self.position, self.dma_high);
    }

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        let fw_cfg = &machine.board.fw_cfg;
        let value = match &fw_cfg.value[..] {
            [] => Value::List(Vec::new()),
            value => writer.buffers.add(Kind::U8, value),
        };
        writer.set("fw_value", value);
        writer.add("fw_cfg_position", json!(fw_cfg.position));
        writer.add("fw_cfg_dma_high", json!(fw_cfg.dma_high));
        Ok(())
    }
}

fn read_value(top: &Record) -> Result<Vec<u8>, StateError> {
    match top.get("fw_value") {
        Value::Null => Ok(Vec::new()),
        Value::List(list) => {
            Ok(list.iter().map(|v| if let Value::Number(n) = v { *n as u8 } else { 0 }).collect())
        }
        _ => match top.bytes("fw_value", 0)? {
            bytes if bytes.len() <= MAX_ITEM => Ok(bytes.to_vec()),
            bytes => Err(top.wrong("fw_value", format!("has {} bytes", bytes.len()))),
        },
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, fields, some};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.fw_cfg.value => some,
                m.board.fw_cfg.position => |r: &mut Random| any::<u16>(r).into(),
                m.board.fw_cfg.dma_high => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            let fw_cfg = &m.board.fw_cfg;
            format!("value: {:?}\nposition: {}\ndma_high: {}", fw_cfg.value, fw_cfg.position, fw_cfg.dma_high)
        }
    }
}
