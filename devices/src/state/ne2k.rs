//! The NE2000 network card.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::ours::{hex, take_u8, unhex};
use super::record::{Entry, Layout};
use super::value::Kind;
use crate::board::BoardConfig;
use crate::ne2k::{MEMORY_SIZE, Ne2k};
use crate::pc::Pc;
use serde_json::json;

const NE2K: Layout = Layout {
    name: NAME,
    fields: &[
        "isr",
        "imr",
        "command",
        "dcr",
        "remote_count",
        "transmit_count",
        "transmit_page",
        "remote_address",
        "page_start",
        "current_page",
        "boundary",
        "page_stop",
        "rcr",
        "tcr",
        "tsr",
        "mac",
        "memory",
    ],
};

const NAME: &str = "ne2k";
/// Our additions: receive status, and the multicast filter.
const RSR: &str = "ne2k_rsr";
const MULTICAST: &str = "ne2k_multicast";

/// The card, if it is fitted. Frames on their way through it are not in a state.
pub(super) type Saved = Option<Ne2k>;

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let Some(r) = state.optional(&NE2K, NAME)? else { return Ok(None) };
        let mut card = Ne2k::new(r.u8s("mac")?);
        card.isr = r.u8("isr")?;
        card.imr = r.u8("imr")?;
        card.command = r.u8("command")?;
        card.dcr = r.u8("dcr")?;
        card.remote_count = r.u16("remote_count")?;
        card.transmit_count = r.u16("transmit_count")?;
        card.transmit_page = r.u8("transmit_page")?;
        card.remote_address = r.u16("remote_address")?;
        card.page_start = r.u8("page_start")?;
        card.current_page = r.u8("current_page")?;
        card.boundary = r.u8("boundary")?;
        card.page_stop = r.u8("page_stop")?;
        card.rcr = r.u8("rcr")?;
        card.tcr = r.u8("tcr")?;
        card.tsr = r.u8("tsr")?;
        card.memory.copy_from_slice(&r.bytes("memory", MEMORY_SIZE)?[..MEMORY_SIZE]);
        take_u8(state.ours(RSR), &mut card.rsr);
        let multicast = unhex(state.ours(MULTICAST), card.multicast.len());
        card.multicast = multicast.try_into().unwrap_or(card.multicast);
        Ok(Some(card))
    }

    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { ne2k: self.as_ref().map(|card| card.mac), ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        same("NE2000 network card", machine.board.ne2k.is_some().into(), self.is_some().into())
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        if let (Some(card), Some(saved)) = (&mut machine.board.ne2k, self) {
            *card = saved;
        }
    }

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        let Some(card) = &machine.board.ne2k else { return Ok(()) };
        let mac = writer.buffers.u8s(&card.mac);
        let memory = writer.buffers.add(Kind::U8, &card.memory[..]);
        let value = Entry::new(&NE2K)
            .set("isr", card.isr)
            .set("imr", card.imr)
            .set("command", card.command)
            .set("dcr", card.dcr)
            .set("remote_count", card.remote_count)
            .set("transmit_count", card.transmit_count)
            .set("transmit_page", card.transmit_page)
            .set("remote_address", card.remote_address)
            .set("page_start", card.page_start)
            .set("current_page", card.current_page)
            .set("boundary", card.boundary)
            .set("page_stop", card.page_stop)
            .set("rcr", card.rcr)
            .set("tcr", card.tcr)
            .set("tsr", card.tsr)
            .set("mac", mac)
            .set("memory", memory)
            .value();
        writer.set(NAME, value);
        writer.add(RSR, json!(card.rsr));
        writer.add(MULTICAST, json!(hex(card.multicast)));
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, fields};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["received", "sent"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.ne2k.as_mut().unwrap().isr => any,
                m.board.ne2k.as_mut().unwrap().imr => any,
                m.board.ne2k.as_mut().unwrap().command => any,
                m.board.ne2k.as_mut().unwrap().dcr => any,
                m.board.ne2k.as_mut().unwrap().remote_count => any,
                m.board.ne2k.as_mut().unwrap().transmit_count => any,
                m.board.ne2k.as_mut().unwrap().transmit_page => any,
                m.board.ne2k.as_mut().unwrap().remote_address => any,
                m.board.ne2k.as_mut().unwrap().page_start => any,
                m.board.ne2k.as_mut().unwrap().page_stop => any,
                m.board.ne2k.as_mut().unwrap().current_page => any,
                m.board.ne2k.as_mut().unwrap().boundary => any,
                m.board.ne2k.as_mut().unwrap().rcr => any,
                m.board.ne2k.as_mut().unwrap().tcr => any,
                m.board.ne2k.as_mut().unwrap().tsr => any,
                m.board.ne2k.as_mut().unwrap().rsr => any,
                m.board.ne2k.as_mut().unwrap().mac => any,
                m.board.ne2k.as_mut().unwrap().multicast => any,
                m.board.ne2k.as_mut().unwrap().memory[0] => any,
                m.board.ne2k.as_mut().unwrap().memory[MEMORY_SIZE - 1] => any,
            )
        }

        /// Of the memory its sum stands for its bytes.
        fn show(m: &mut Pc) -> String {
            let mut card = m.board.ne2k.clone().unwrap();
            let sum = card.memory.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
            card.memory = sum.to_le_bytes().into();
            format!("{card:#?}")
        }
    }
}
