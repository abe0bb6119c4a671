//! The virtio disk: v86 has none, so all of it is our addition. The state has what was written to it, not its image.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::record::Record;
use super::value::{Kind, Value};
use super::virtio::{TRANSPORT, json_of, read_transport, write_transport};
use crate::board::BoardConfig;
use crate::ide::{BLOCK, Form, Medium};
use crate::pc::Pc;
use crate::virtio::Transport;
use crate::virtio::block::{SECTOR, VirtioBlock};
use serde_json::{Value as Json, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

const OURS: &str = "virtio_block";
/// More sectors are not believed.
const MAX_SECTORS: u64 = 1 << 50;
/// Bytes of a block's number.
const NUMBER: usize = 8;

/// A disk of a state.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    transport: Transport,
    /// What its image has to have.
    pub sectors: u64,
    /// The places in the file of blocks that were written, by their numbers.
    written: Vec<(u64, Range<usize>)>,
}

/// The disk, if it is fitted.
pub(super) type Saved = Option<Disk>;

fn read(state: &State) -> Option<Disk> {
    let ours = state.ours(OURS);
    let sectors = ours["sectors"].as_u64().filter(|sectors| *sectors < MAX_SECTORS)?;
    let own = VirtioBlock::new(Medium::new(Vec::new(), Form::Written)).transport;
    let value: Value = serde_json::from_value(ours["transport"].clone()).ok()?;
    let record = Record::new(&TRANSPORT, &value, state.container, OURS).ok()?;
    let transport = read_transport(&record, &own).ok()?;
    let range = |key| state.container.range(u32::try_from(ours[key].as_u64()?).ok()?).ok();
    let (numbers, blocks) = (state.container.bytes.get(range("numbers")?)?, range("blocks")?);
    let numbers = numbers.as_chunks::<NUMBER>().0.iter().map(|number| u64::from_le_bytes(*number));
    let behind = (sectors * SECTOR).div_ceil(BLOCK as u64);
    let written = numbers.zip(blocks.clone().step_by(BLOCK));
    let written = written.map(|(number, at)| (number, at..at + BLOCK));
    let written = written.filter(|(number, range)| *number < behind && range.end <= blocks.end).collect();
    Some(Disk { transport, sectors, written })
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        Ok(read(state))
    }

    /// Its image comes from elsewhere. A disk that the guest has not seen is not put in.
    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { virtio_block: config.virtio_block.filter(|_| self.is_some()), ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        let sectors = machine.board.block.as_ref().map_or(0, VirtioBlock::sectors);
        same("sectors of the virtio disk", sectors, self.as_ref().map_or(0, |disk| disk.sectors))
    }

    fn apply(self, machine: &mut Pc, moment: &Moment) {
        if let (Some(block), Some(saved)) = (&mut machine.board.block, self) {
            block.transport = saved.transport;
            let bytes = |range: Range<usize>| Some(Box::new(moment.file.get(range)?.try_into().ok()?));
            let written =
                saved.written.into_iter().filter_map(|(number, range)| Some((number, bytes(range)?)));
            block.medium.restore(Form::Written, written.collect::<BTreeMap<_, _>>());
        }
    }

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        let Some(block) = &machine.board.block else { return Ok(()) };
        let transport = json_of(&write_transport(&block.transport, &mut writer.buffers));
        let numbers: Vec<u8> = block.medium.written().flat_map(|(number, _)| number.to_le_bytes()).collect();
        let blocks: Vec<_> = block.medium.written().map(|(_, block)| Cow::Borrowed(&block[..])).collect();
        let mut add = |parts| match writer.buffers.add_parts(Kind::U8, parts) {
            Value::Buffer(_, id) => json!(id),
            _ => Json::Null,
        };
        let (numbers, blocks) = (add(vec![numbers.into()]), add(blocks));
        let sectors = block.sectors();
        let value = json!({
            "sectors": sectors, "transport": transport, "numbers": numbers, "blocks": blocks,
        });
        writer.add(OURS, value);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod suite {
    use super::super::suite::{Field, Random, Suite, any, bits, fields, one_of};
    use super::*;
    use crate::ide::{DiskImage, DiskImageError};
    use std::task::Poll;

    /// A disk of so many sectors, all alike.
    #[derive(Debug)]
    struct Even(u64);

    impl DiskImage for Even {
        fn size(&self) -> u64 {
            self.0 * SECTOR
        }

        fn read(&self, _: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
            buf.fill(0x2d);
            Poll::Ready(Ok(()))
        }
    }

    pub fn medium(sectors: u64) -> Medium {
        Medium::new(Even(sectors), Form::Written)
    }

    fn own_features(random: &mut Random) -> [u32; 4] {
        VirtioBlock::new(medium(0)).transport.device_feature.map(|own| own & any::<u32>(random))
    }

    fn some_written(random: &mut Random) -> Medium {
        let mut medium = medium(100);
        for _ in 0..random.below(5) {
            medium.write(random.below(100) as u64 * SECTOR, &[any(random); 512]).unwrap();
        }
        medium
    }

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["size_supported", "notify_offset"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.block.as_mut().unwrap().transport.device_feature_select => any,
                m.board.block.as_mut().unwrap().transport.driver_feature_select => any,
                m.board.block.as_mut().unwrap().transport.features_ok => any,
                m.board.block.as_mut().unwrap().transport.config_has_changed => any,
                m.board.block.as_mut().unwrap().transport.config_generation => any,
                m.board.block.as_mut().unwrap().transport.queue_select => any,
                m.board.block.as_mut().unwrap().transport.isr_status => bits(3),
                m.board.block.as_mut().unwrap().transport.device_status => any,
                m.board.block.as_mut().unwrap().transport.device_feature => own_features,
                m.board.block.as_mut().unwrap().transport.driver_feature => own_features,
                m.board.block.as_mut().unwrap().transport.queues[0].size => one_of([1, 2, 4, 8]),
                m.board.block.as_mut().unwrap().transport.queues[0].enabled => any,
                m.board.block.as_mut().unwrap().transport.queues[0].desc_addr => any,
                m.board.block.as_mut().unwrap().transport.queues[0].avail_addr => any,
                m.board.block.as_mut().unwrap().transport.queues[0].used_addr => any,
                m.board.block.as_mut().unwrap().transport.queues[0].avail_last_idx => any,
                m.board.block.as_mut().unwrap().transport.queues[0].num_staged_replies => any,
                m.board.block.as_mut().unwrap().transport.queues[0].masked_idx => any,
                m.board.block.as_mut().unwrap().medium => some_written,
            )
        }

        fn show(m: &mut Pc) -> String {
            let block = m.board.block.as_ref().unwrap();
            let written: Vec<_> = block.medium.written().collect();
            format!("{:#?}\nwritten: {written:?}", block.transport)
        }
    }
}
