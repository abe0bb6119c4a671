//! ACPI power management.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::container::Buffers;
use super::ours::take_u8;
use super::record::{Entry, Layout, Record};
use super::value::Value;
use crate::acpi::Acpi;
use crate::board::BoardConfig;
use crate::pc::Pc;
use serde_json::json;

const ACPI: Layout = Layout { name: "acpi", fields: &["pm1_control", "pm1_status", "pm1_enable", "gpe"] };

pub(super) type Saved = Option<Acpi>;

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let Some(record) = state.optional(&ACPI, "acpi")? else { return Ok(None) };
        let mut acpi = read(&record)?;
        take_u8(&state.ours("acpi")[0], &mut acpi.smi_command);
        take_u8(&state.ours("acpi")[1], &mut acpi.smi_status);
        Ok(Some(acpi))
    }

    /// The APICs are fitted together with it.
    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { acpi: self.is_some(), ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        let (board, wanted) = (&machine.board, u64::from(self.is_some()));
        same("ACPI", board.acpi.is_some().into(), wanted)?;
        same("APICs", board.interrupts.apics.is_some().into(), wanted)
    }

    fn apply(self, machine: &mut Pc, moment: &Moment) {
        if let (Some(acpi), Some(saved)) = (&mut machine.board.acpi, self) {
            *acpi = saved;
            acpi.resume(moment.now);
        }
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let acpi = machine.board.acpi.as_ref();
        let value = acpi.map(|acpi| write(acpi, &mut writer.buffers)).unwrap_or_default();
        writer.set("acpi", value);
        if let Some(acpi) = acpi {
            writer.add("acpi", json!([acpi.smi_command, acpi.smi_status]));
        }
        Ok(())
    }
}

fn read(record: &Record) -> Result<Acpi, StateError> {
    let mut acpi = Acpi::default();
    acpi.pm1_control = record.u16("pm1_control")?;
    acpi.pm1_status = record.u16("pm1_status")?;
    acpi.pm1_enable = record.u16("pm1_enable")?;
    acpi.gpe0 = record.u8s("gpe")?;
    Ok(acpi)
}

fn write(acpi: &Acpi, buffers: &mut Buffers) -> Value {
    Entry::new(&ACPI)
        .set("pm1_control", acpi.pm1_control)
        .set("pm1_status", acpi.pm1_status)
        .set("pm1_enable", acpi.pm1_enable)
        .set("gpe", buffers.u8s(&acpi.gpe0))
        .value()
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, fields};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["timer_halves"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.acpi.as_mut().unwrap().pm1_status => any,
                m.board.acpi.as_mut().unwrap().pm1_enable => any,
                m.board.acpi.as_mut().unwrap().pm1_control => any,
                m.board.acpi.as_mut().unwrap().gpe0 => any,
                m.board.acpi.as_mut().unwrap().smi_command => any,
                m.board.acpi.as_mut().unwrap().smi_status => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.acpi.as_ref().unwrap())
        }
    }
}
