//! The virtio balloon.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::record::{Entry, Layout};
use super::virtio::{TRANSPORT, read_transport, write_transport};
use crate::board::BoardConfig;
use crate::pc::Pc;
use crate::virtio::balloon::VirtioBalloon;
use serde_json::json;

const BALLOON: Layout = Layout { name: NAME, fields: &["virtio", "num_pages", "actual"] };

const NAME: &str = "virtio_balloon";
/// Our addition: the request for statistics that is here.
const STATS_REQUEST: &str = "balloon_stats_request";

/// The balloon, if it is fitted.
pub(super) type Saved = Option<VirtioBalloon>;

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let Some(r) = state.optional(&BALLOON, NAME)? else { return Ok(None) };
        let own = VirtioBalloon::default();
        let stats_request = state.ours(STATS_REQUEST).as_u64().and_then(|head| u16::try_from(head).ok());
        Ok(Some(VirtioBalloon {
            transport: read_transport(&r.record(&TRANSPORT, "virtio")?, &own.transport)?,
            num_pages: r.u32("num_pages")?,
            actual: r.u32("actual")?,
            stats_request,
            ..own
        }))
    }

    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { virtio_balloon: self.is_some(), ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        same("virtio balloon", machine.board.balloon.is_some().into(), self.is_some().into())
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        if let (Some(balloon), Some(saved)) = (&mut machine.board.balloon, self) {
            *balloon = saved;
        }
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let Some(balloon) = &machine.board.balloon else { return Ok(()) };
        let transport = write_transport(&balloon.transport, &mut writer.buffers);
        let value = Entry::new(&BALLOON)
            .set("virtio", transport)
            .set("num_pages", balloon.num_pages)
            .set("actual", balloon.actual)
            .value();
        writer.set(NAME, value);
        writer.add(STATS_REQUEST, json!(balloon.stats_request));
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, bits, fields, one_of};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] =
            &["size_supported", "notify_offset", "stats", "dropped"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.balloon.as_mut().unwrap().transport.device_feature_select => any,
                m.board.balloon.as_mut().unwrap().transport.driver_feature_select => any,
                m.board.balloon.as_mut().unwrap().transport.features_ok => any,
                m.board.balloon.as_mut().unwrap().transport.config_has_changed => any,
                m.board.balloon.as_mut().unwrap().transport.config_generation => any,
                m.board.balloon.as_mut().unwrap().transport.queue_select => any,
                m.board.balloon.as_mut().unwrap().transport.isr_status => bits(3),
                m.board.balloon.as_mut().unwrap().transport.device_status => any,
                m.board.balloon.as_mut().unwrap().transport.device_feature => bits_of_own,
                m.board.balloon.as_mut().unwrap().transport.driver_feature => bits_of_own,
                m.board.balloon.as_mut().unwrap().transport.queues[0].size => one_of([1, 2, 4, 8]),
                m.board.balloon.as_mut().unwrap().transport.queues[1].enabled => any,
                m.board.balloon.as_mut().unwrap().transport.queues[1].desc_addr => any,
                m.board.balloon.as_mut().unwrap().transport.queues[1].avail_addr => any,
                m.board.balloon.as_mut().unwrap().transport.queues[1].used_addr => any,
                m.board.balloon.as_mut().unwrap().transport.queues[1].avail_last_idx => any,
                m.board.balloon.as_mut().unwrap().transport.queues[1].num_staged_replies => any,
                m.board.balloon.as_mut().unwrap().transport.queues[1].masked_idx => any,
                m.board.balloon.as_mut().unwrap().num_pages => any,
                m.board.balloon.as_mut().unwrap().actual => any,
                m.board.balloon.as_mut().unwrap().stats_request => one_of([None, Some(0), Some(1)]),
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.balloon.as_ref().unwrap())
        }
    }

    fn bits_of_own(random: &mut super::super::suite::Random) -> [u32; 4] {
        VirtioBalloon::default().transport.device_feature.map(|own| own & any::<u32>(random))
    }
}
