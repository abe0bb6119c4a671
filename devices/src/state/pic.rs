//! The interrupt controllers.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::ours::{take_bool, take_u8};
use super::record::{Entry, Layout, Record, flag};
use super::value::Value;
use crate::pc::Pc;
use crate::pic::{Chip as Controller, Init, Pic};
use serde_json::{Value as Json, json};

const PIC: Layout = Layout {
    name: "pic",
    fields: &[
        "irq_mask",
        "irq_map",
        "isr",
        "irr",
        "is_master",
        "slave",
        "expect_icw4",
        "state",
        "read_isr",
        "auto_eoi",
        "elcr",
        "irq_value",
        "special_mask_mode",
    ],
};

pub(super) type Saved = Pic;

impl Chip for Pic {
    fn read(state: &State) -> Result<Self, StateError> {
        let master = state.entry(&PIC, "pic")?;
        let slave = master.record(&PIC, "slave")?;
        let mut pic = Pic { master: chip(&master)?, slave: chip(&slave)? };
        for (i, chip) in [&mut pic.master, &mut pic.slave].into_iter().enumerate() {
            refine(chip, &state.ours("pic")[i]);
        }
        Ok(pic)
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        machine.board.interrupts.pic = self;
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let pic = &machine.board.interrupts.pic;
        let slave = write_chip(&pic.slave, false, Value::Null);
        writer.set("pic", write_chip(&pic.master, true, slave));
        writer.add("pic", json!([write_ours(&pic.master), write_ours(&pic.slave)]));
        Ok(())
    }
}

fn refine(chip: &mut Controller, saved: &Json) {
    take_u8(&saved["lowest_priority"], &mut chip.lowest_priority);
    chip.lowest_priority &= 7;
    take_bool(&saved["single"], &mut chip.single);
    take_bool(&saved["special_fully_nested"], &mut chip.special_fully_nested);
    take_bool(&saved["poll"], &mut chip.poll);
    take_bool(&saved["rotate_on_auto_eoi"], &mut chip.rotate_on_auto_eoi);
}

fn write_ours(chip: &Controller) -> Json {
    json!({
        "lowest_priority": chip.lowest_priority,
        "single": chip.single,
        "special_fully_nested": chip.special_fully_nested,
        "poll": chip.poll,
        "rotate_on_auto_eoi": chip.rotate_on_auto_eoi,
    })
}

fn chip(record: &Record) -> Result<Controller, StateError> {
    Ok(Controller {
        // v86 keeps the mask inverted.
        imr: !record.u8("irq_mask")?,
        irr: record.u8("irr")?,
        isr: record.u8("isr")?,
        lines: record.u8("irq_value")?,
        elcr: record.u8("elcr")?,
        vector_base: record.u8("irq_map")? & 0xf8,
        init: match record.u8("state")? {
            0 => Init::Done,
            1 => Init::Icw2,
            2 => Init::Icw3,
            other => return Err(record.wrong("state", format!("is {other}, not 0 to 2"))),
        },
        expect_icw4: record.bool("expect_icw4")?,
        auto_eoi: record.bool("auto_eoi")?,
        special_mask: record.bool_or_false("special_mask_mode")?,
        read_isr: record.bool("read_isr")?,
        ..Controller::default()
    })
}

fn write_chip(chip: &Controller, master: bool, slave: Value) -> Value {
    let state: u8 = match chip.init {
        Init::Done => 0,
        Init::Icw2 => 1,
        Init::Icw3 => 2,
    };
    Entry::new(&PIC)
        .set("irq_mask", !chip.imr)
        .set("irq_map", chip.vector_base)
        .set("isr", chip.isr)
        .set("irr", chip.irr)
        .set("is_master", flag(master))
        .set("slave", slave)
        .set("expect_icw4", flag(chip.expect_icw4))
        .set("state", state)
        .set("read_isr", flag(chip.read_isr))
        .set("auto_eoi", flag(chip.auto_eoi))
        .set("elcr", chip.elcr)
        .set("irq_value", chip.lines)
        .set("special_mask_mode", flag(chip.special_mask))
        .value()
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, bits, fields, one_of};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.interrupts.pic.master.imr => any,
                m.board.interrupts.pic.master.irr => any,
                m.board.interrupts.pic.master.isr => any,
                m.board.interrupts.pic.master.lines => any,
                m.board.interrupts.pic.master.elcr => any,
                m.board.interrupts.pic.master.expect_icw4 => any,
                m.board.interrupts.pic.master.single => any,
                m.board.interrupts.pic.master.auto_eoi => any,
                m.board.interrupts.pic.master.special_fully_nested => any,
                m.board.interrupts.pic.master.special_mask => any,
                m.board.interrupts.pic.master.read_isr => any,
                m.board.interrupts.pic.master.poll => any,
                m.board.interrupts.pic.master.rotate_on_auto_eoi => any,
                m.board.interrupts.pic.master.vector_base => bits(0xf8),
                m.board.interrupts.pic.master.lowest_priority => bits(7),
                m.board.interrupts.pic.master.init => one_of([Init::Done, Init::Icw2, Init::Icw3]),
                m.board.interrupts.pic.slave.imr => any,
                m.board.interrupts.pic.slave.irr => any,
                m.board.interrupts.pic.slave.isr => any,
                m.board.interrupts.pic.slave.lines => any,
                m.board.interrupts.pic.slave.elcr => any,
                m.board.interrupts.pic.slave.expect_icw4 => any,
                m.board.interrupts.pic.slave.single => any,
                m.board.interrupts.pic.slave.auto_eoi => any,
                m.board.interrupts.pic.slave.special_fully_nested => any,
                m.board.interrupts.pic.slave.special_mask => any,
                m.board.interrupts.pic.slave.read_isr => any,
                m.board.interrupts.pic.slave.poll => any,
                m.board.interrupts.pic.slave.rotate_on_auto_eoi => any,
                m.board.interrupts.pic.slave.vector_base => bits(0xf8),
                m.board.interrupts.pic.slave.lowest_priority => bits(7),
                m.board.interrupts.pic.slave.init => one_of([Init::Done, Init::Icw2, Init::Icw3]),
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.interrupts.pic)
        }
    }
}
