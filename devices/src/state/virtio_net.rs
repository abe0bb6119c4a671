//! The virtio network card.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::record::{Entry, Layout};
use super::virtio::{TRANSPORT, read_transport, write_transport};
use crate::board::BoardConfig;
use crate::pc::Pc;
use crate::virtio::net::VirtioNet;

const NET: Layout = Layout { name: NAME, fields: &["virtio", "id", "mac"] };

const NAME: &str = "virtio_net";

/// The card, if it is fitted. Frames on their way through it are not in a state, and a cable is the host's.
pub(super) type Saved = Option<VirtioNet>;

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let Some(r) = state.optional(&NET, NAME)? else { return Ok(None) };
        let mut card = VirtioNet::new(r.u8s("mac")?);
        card.transport = read_transport(&r.record(&TRANSPORT, "virtio")?, &card.transport)?;
        Ok(Some(card))
    }

    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { virtio_net: self.as_ref().map(|card| card.mac), ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        same("virtio network card", machine.board.virtio_net.is_some().into(), self.is_some().into())
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        if let (Some(card), Some(saved)) = (&mut machine.board.virtio_net, self) {
            *card = saved;
        }
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let Some(card) = &machine.board.virtio_net else { return Ok(()) };
        let transport = write_transport(&card.transport, &mut writer.buffers);
        let mac = writer.buffers.u8s(&card.mac);
        writer.set(NAME, Entry::new(&NET).set("virtio", transport).set("id", 0).set("mac", mac).value());
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, bits, fields, one_of};
    use super::*;

    fn own_features(random: &mut Random) -> [u32; 4] {
        VirtioNet::new([0; 6]).transport.device_feature.map(|own| own & any::<u32>(random))
    }

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] =
            &["size_supported", "notify_offset", "link", "received", "sent"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.virtio_net.as_mut().unwrap().transport.device_feature_select => any,
                m.board.virtio_net.as_mut().unwrap().transport.driver_feature_select => any,
                m.board.virtio_net.as_mut().unwrap().transport.features_ok => any,
                m.board.virtio_net.as_mut().unwrap().transport.config_has_changed => any,
                m.board.virtio_net.as_mut().unwrap().transport.config_generation => any,
                m.board.virtio_net.as_mut().unwrap().transport.queue_select => any,
                m.board.virtio_net.as_mut().unwrap().transport.isr_status => bits(3),
                m.board.virtio_net.as_mut().unwrap().transport.device_status => any,
                m.board.virtio_net.as_mut().unwrap().transport.device_feature => own_features,
                m.board.virtio_net.as_mut().unwrap().transport.driver_feature => own_features,
                m.board.virtio_net.as_mut().unwrap().transport.queues[0].size => one_of([1, 2, 4, 8]),
                m.board.virtio_net.as_mut().unwrap().transport.queues[1].enabled => any,
                m.board.virtio_net.as_mut().unwrap().transport.queues[1].desc_addr => any,
                m.board.virtio_net.as_mut().unwrap().transport.queues[1].avail_addr => any,
                m.board.virtio_net.as_mut().unwrap().transport.queues[1].used_addr => any,
                m.board.virtio_net.as_mut().unwrap().transport.queues[1].avail_last_idx => any,
                m.board.virtio_net.as_mut().unwrap().transport.queues[1].num_staged_replies => any,
                m.board.virtio_net.as_mut().unwrap().transport.queues[1].masked_idx => any,
                m.board.virtio_net.as_mut().unwrap().mac => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.virtio_net.as_ref().unwrap())
        }
    }
}
