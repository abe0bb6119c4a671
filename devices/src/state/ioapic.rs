//! The I/O APIC.

use super::StateError;
use super::apic::word;
use super::chip::{Chip, Moment, State, Writer};
use super::record::{Layout, Record};
use super::value::Kind;
use crate::ioapic::{Ioapic, PINS};
use crate::pc::Pc;

/// Where the I/O APIC's registers are in its structure of 208 bytes.
mod io {
    pub const SIZE: usize = 208;
    pub const LOW: usize = 0;
    pub const HIGH: usize = 96;
    pub const SELECT: usize = 192;
    pub const ID: usize = 196;
    pub const IRR: usize = 200;
    pub const LINES: usize = 204;
}

/// The I/O APIC as v86 wrote it before it had the structure.
const OLD_IO: Layout = Layout { name: "ioapic", fields: &["low", "high", "select", "id", "irr", "lines"] };

/// The structure of an old I/O APIC.
fn old_io(old: &Record) -> Result<Vec<u8>, StateError> {
    let (low, high) = (old.u32s::<PINS>("low")?, old.u32s::<PINS>("high")?);
    let rest = [old.u32("select")?, old.u32("id")?, old.u32("irr")?, old.u32("lines")?];
    Ok(low.into_iter().chain(high).chain(rest).flat_map(u32::to_le_bytes).collect())
}

pub(super) type Saved = Ioapic;

impl Chip for Ioapic {
    fn read(state: &State) -> Result<Self, StateError> {
        let top = &state.top;
        let bytes = match top.get("ioapic").list() {
            Some(_) => &old_io(&top.record(&OLD_IO, "ioapic")?)?[..],
            None => top.bytes("ioapic", io::SIZE)?,
        };
        let get = |at| word(bytes, at);
        Ok(Ioapic {
            config: core::array::from_fn(|pin| get(io::LOW + 4 * pin)),
            destination: core::array::from_fn(|pin| get(io::HIGH + 4 * pin)),
            select: get(io::SELECT) & 0xff,
            id: get(io::ID) & 0xf,
            irr: get(io::IRR) & ((1 << PINS) - 1),
            lines: get(io::LINES) & ((1 << PINS) - 1),
        })
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        if let Some(apics) = &mut machine.board.interrupts.apics {
            apics.io = self;
        }
    }

    /// A machine without one has it in its state, too, as v86 powers it up.
    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let none = Ioapic::default();
        let ioapic = machine.board.interrupts.apics.as_ref().map_or(&none, |apics| &apics.io);
        let words = ioapic.config.into_iter().chain(ioapic.destination);
        let words = words.chain([ioapic.select, ioapic.id, ioapic.irr, ioapic.lines]);
        let value = writer.buffers.add(Kind::U8, words.flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        writer.set("ioapic", value);
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, bits, fields};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.interrupts.apics.as_mut().unwrap().io.config => any,
                m.board.interrupts.apics.as_mut().unwrap().io.destination => any,
                m.board.interrupts.apics.as_mut().unwrap().io.select => bits(0xff),
                m.board.interrupts.apics.as_mut().unwrap().io.id => bits(0xf),
                m.board.interrupts.apics.as_mut().unwrap().io.irr => bits((1 << PINS) - 1),
                m.board.interrupts.apics.as_mut().unwrap().io.lines => bits((1 << PINS) - 1),
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.interrupts.apics.as_ref().unwrap().io)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::{Buffers, Container};
    use super::super::record::Entry;
    use super::super::top::TOP;
    use super::super::{Saved as File, value::Value};
    use super::*;

    #[test]
    fn the_old_form_is_read() {
        let list = |range: std::ops::Range<u32>| Value::List(range.map(Value::from).collect());
        let numbers = [0x10, 3, 5, 6].map(Value::from);
        let old: Vec<Value> = [list(0..24), list(50..74)].into_iter().chain(numbers).collect();
        let top = Entry::new(&TOP).set("ioapic", old).value();
        let file = File::new(&top, Buffers::default(), serde_json::Map::new()).unwrap().to_vec();
        let container = Container::parse(&file).unwrap();
        let io = <Ioapic as Chip>::read(&State::new(&container).unwrap()).unwrap();
        assert_eq!((io.config[23], io.destination[0], io.select, io.id), (23, 50, 0x10, 3));
        assert_eq!((io.irr, io.lines), (5, 6));
    }
}
