//! The device for folders of the host: v86 has none, so all of it is our addition. What a guest has asked and not
//! been told is in the state by where it stands in the queue; whoever resumes it tells it of an error
//! ([`super::Plan::apply`]).

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::record::Record;
use super::value::Value;
use super::virtio::{TRANSPORT, json_of, read_transport, write_transport};
use crate::board::BoardConfig;
use crate::pc::Pc;
use crate::virtio::shares::{Open, QUEUE_SIZE, VirtioShares};
use serde_json::{Value as Json, json};

const OURS: &str = "virtio_shares";

/// The device, if it is fitted.
pub(super) type Saved = Option<VirtioShares>;

fn read(state: &State) -> Option<VirtioShares> {
    let ours = state.ours(OURS);
    let own = VirtioShares::default();
    let value: Value = serde_json::from_value(ours["transport"].clone()).ok()?;
    let record = Record::new(&TRANSPORT, &value, state.container, OURS).ok()?;
    let transport = read_transport(&record, &own.transport).ok()?;
    let half = |value: &Json| u16::try_from(value.as_u64()?).ok();
    let open = ours["open"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let open = open.filter_map(|open| Some((half(&open[0])?, half(&open[1])?)));
    let open = (0..).zip(open.take(QUEUE_SIZE.into()));
    let open: Vec<_> = open.map(|(number, (head, tag))| Open { head, tag, number }).collect();
    Some(VirtioShares { transport, next: open.len() as u32, open, ..own })
}

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        Ok(read(state))
    }

    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { virtio_shares: self.is_some(), ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        same("device for folders of the host", machine.board.shares.is_some().into(), self.is_some().into())
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        if let (Some(shares), Some(saved)) = (&mut machine.board.shares, self) {
            *shares = saved;
        }
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let Some(shares) = &machine.board.shares else { return Ok(()) };
        let transport = json_of(&write_transport(&shares.transport, &mut writer.buffers));
        let open: Vec<_> = shares.open.iter().map(|open| [open.head, open.tag]).collect();
        writer.add(OURS, json!({ "transport": transport, "open": open }));
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, bits, fields, one_of};
    use super::*;

    fn own_features(random: &mut Random) -> [u32; 4] {
        VirtioShares::default().transport.device_feature.map(|own| own & any::<u32>(random))
    }

    fn some_open(random: &mut Random) -> Vec<Open> {
        let open = 0..random.below(usize::from(QUEUE_SIZE) + 1) as u32;
        open.map(|number| Open { head: any(random), tag: any(random), number }).collect()
    }

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] =
            &["size_supported", "notify_offset", "number", "asked", "next"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.shares.as_mut().unwrap().transport.device_feature_select => any,
                m.board.shares.as_mut().unwrap().transport.driver_feature_select => any,
                m.board.shares.as_mut().unwrap().transport.features_ok => any,
                m.board.shares.as_mut().unwrap().transport.config_has_changed => any,
                m.board.shares.as_mut().unwrap().transport.config_generation => any,
                m.board.shares.as_mut().unwrap().transport.queue_select => any,
                m.board.shares.as_mut().unwrap().transport.isr_status => bits(3),
                m.board.shares.as_mut().unwrap().transport.device_status => any,
                m.board.shares.as_mut().unwrap().transport.device_feature => own_features,
                m.board.shares.as_mut().unwrap().transport.driver_feature => own_features,
                m.board.shares.as_mut().unwrap().transport.queues[0].size => one_of([1, 2, 4, 8]),
                m.board.shares.as_mut().unwrap().transport.queues[0].enabled => any,
                m.board.shares.as_mut().unwrap().transport.queues[0].desc_addr => any,
                m.board.shares.as_mut().unwrap().transport.queues[0].avail_addr => any,
                m.board.shares.as_mut().unwrap().transport.queues[0].used_addr => any,
                m.board.shares.as_mut().unwrap().transport.queues[0].avail_last_idx => any,
                m.board.shares.as_mut().unwrap().transport.queues[0].num_staged_replies => any,
                m.board.shares.as_mut().unwrap().transport.queues[0].masked_idx => any,
                m.board.shares.as_mut().unwrap().open => some_open,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.shares.as_ref().unwrap())
        }
    }
}
