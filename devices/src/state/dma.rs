//! The DMA controllers and their page registers.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::container::Buffers;
use super::ours::{hex, take_u8, unhex};
use super::record::{Entry, Layout, Record};
use super::value::Value;
use crate::dma::{self, Dma};
use crate::pc::Pc;
use serde_json::json;

const DMA: Layout = Layout {
    name: "dma",
    fields: &[
        "page",
        "page_high",
        "address",
        "base_address",
        "count",
        "base_count",
        "mask",
        "mode",
        "flip_flop",
    ],
};
const CHANNELS: usize = 8;

pub(super) type Saved = Dma;

impl Chip for Dma {
    fn read(state: &State) -> Result<Self, StateError> {
        let mut dma = read(&state.entry(&DMA, "dma")?)?;
        for (i, chip) in dma.chips.iter_mut().enumerate() {
            let saved = &state.ours("dma")[i];
            take_u8(&saved[0], &mut chip.command);
            take_u8(&saved[1], &mut chip.terminal_counts);
            take_u8(&saved[2], &mut chip.requests);
        }
        let pages = unhex(state.ours("dma_pages"), dma.spare_pages.len());
        dma.spare_pages.iter_mut().zip(pages).for_each(|(to, from)| *to = from);
        Ok(dma)
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        machine.board.dma = self;
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let dma = &machine.board.dma;
        let value = write(dma, &mut writer.buffers);
        writer.set("dma", value);
        let chip = |c: &dma::Chip| json!([c.command, c.terminal_counts, c.requests]);
        writer.add("dma", dma.chips.iter().map(chip).collect());
        writer.add("dma_pages", json!(hex(dma.spare_pages)));
        Ok(())
    }
}

fn read(record: &Record) -> Result<Dma, StateError> {
    let page = record.u8s::<CHANNELS>("page")?;
    let page_high = record.u8s::<CHANNELS>("page_high")?;
    let address = record.u16s::<CHANNELS>("address")?;
    let base_address = record.u16s::<CHANNELS>("base_address")?;
    let count = record.u16s::<CHANNELS>("count")?;
    let base_count = record.u16s::<CHANNELS>("base_count")?;
    let mask = record.u8s::<CHANNELS>("mask")?;
    let mode = record.u8s::<CHANNELS>("mode")?;
    Ok(Dma {
        channels: core::array::from_fn(|i| dma::Channel {
            page: page[i],
            page_high: page_high[i],
            address: address[i],
            base_address: base_address[i],
            count: count[i],
            base_count: base_count[i],
            masked: mask[i] != 0,
            mode: mode[i],
        }),
        flip_flop: record.bool("flip_flop")?,
        ..Dma::default()
    })
}

fn write(dma: &Dma, buffers: &mut Buffers) -> Value {
    let channels = &dma.channels;
    Entry::new(&DMA)
        .set("page", buffers.u8s(&channels.each_ref().map(|c| c.page)))
        .set("page_high", buffers.u8s(&channels.each_ref().map(|c| c.page_high)))
        .set("address", buffers.u16s(channels.each_ref().map(|c| c.address)))
        .set("base_address", buffers.u16s(channels.each_ref().map(|c| c.base_address)))
        .set("count", buffers.u16s(channels.each_ref().map(|c| c.count)))
        .set("base_count", buffers.u16s(channels.each_ref().map(|c| c.base_count)))
        .set("mask", buffers.u8s(&channels.each_ref().map(|c| c.masked.into())))
        .set("mode", buffers.u8s(&channels.each_ref().map(|c| c.mode)))
        .set("flip_flop", u8::from(dma.flip_flop))
        .value()
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, fields};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.dma.channels[0].page => any,
                m.board.dma.channels[0].page_high => any,
                m.board.dma.channels[0].address => any,
                m.board.dma.channels[0].base_address => any,
                m.board.dma.channels[0].count => any,
                m.board.dma.channels[0].base_count => any,
                m.board.dma.channels[0].masked => any,
                m.board.dma.channels[0].mode => any,
                m.board.dma.channels[2].page => any,
                m.board.dma.channels[2].page_high => any,
                m.board.dma.channels[2].address => any,
                m.board.dma.channels[2].base_address => any,
                m.board.dma.channels[2].count => any,
                m.board.dma.channels[2].base_count => any,
                m.board.dma.channels[2].masked => any,
                m.board.dma.channels[2].mode => any,
                m.board.dma.channels[7].page => any,
                m.board.dma.channels[7].page_high => any,
                m.board.dma.channels[7].address => any,
                m.board.dma.channels[7].base_address => any,
                m.board.dma.channels[7].count => any,
                m.board.dma.channels[7].base_count => any,
                m.board.dma.channels[7].masked => any,
                m.board.dma.channels[7].mode => any,
                m.board.dma.chips[0].command => any,
                m.board.dma.chips[0].terminal_counts => any,
                m.board.dma.chips[0].requests => any,
                m.board.dma.chips[1].command => any,
                m.board.dma.chips[1].terminal_counts => any,
                m.board.dma.chips[1].requests => any,
                m.board.dma.flip_flop => any,
                m.board.dma.spare_pages => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.dma)
        }
    }
}
