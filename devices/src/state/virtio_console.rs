//! The virtio console.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::ours::take_bool;
use super::record::{Entry, Layout};
use super::virtio::{TRANSPORT, read_transport, write_transport};
use crate::board::BoardConfig;
use crate::pc::Pc;
use crate::virtio::console::VirtioConsole;

const CONSOLE: Layout = Layout { name: NAME, fields: &["virtio", "rows", "cols", "ports"] };

const NAME: &str = "virtio_console";
/// Our addition: which ports programs of the guest have open.
const OPEN: &str = "console_open";

/// The console, if it is fitted.
pub(super) type Saved = Option<VirtioConsole>;

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let Some(r) = state.optional(&CONSOLE, NAME)? else { return Ok(None) };
        let own = VirtioConsole::default();
        let transport = read_transport(&r.record(&TRANSPORT, "virtio")?, &own.transport)?;
        let mut console = VirtioConsole { transport, rows: r.u16("rows")?, cols: r.u16("cols")?, ..own };
        for (i, port) in console.ports.iter_mut().enumerate() {
            take_bool(&state.ours(OPEN)[i], &mut port.open);
        }
        Ok(Some(console))
    }

    fn configure(&self, config: BoardConfig) -> BoardConfig {
        BoardConfig { virtio_console: self.is_some(), ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        same("virtio console", machine.board.console.is_some().into(), self.is_some().into())
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        if let (Some(console), Some(saved)) = (&mut machine.board.console, self) {
            *console = saved;
        }
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let Some(console) = &machine.board.console else { return Ok(()) };
        let transport = write_transport(&console.transport, &mut writer.buffers);
        let value = Entry::new(&CONSOLE)
            .set("virtio", transport)
            .set("rows", console.rows)
            .set("cols", console.cols)
            .set("ports", console.ports.len() as u32)
            .value();
        writer.set(NAME, value);
        writer.add(OPEN, console.ports.iter().map(|port| port.open).collect());
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, bits, fields, one_of};
    use super::*;

    fn own_features(random: &mut Random) -> [u32; 4] {
        VirtioConsole::default().transport.device_feature.map(|own| own & any::<u32>(random))
    }

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] =
            &["size_supported", "notify_offset", "input", "output", "control"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.console.as_mut().unwrap().transport.device_feature_select => any,
                m.board.console.as_mut().unwrap().transport.driver_feature_select => any,
                m.board.console.as_mut().unwrap().transport.features_ok => any,
                m.board.console.as_mut().unwrap().transport.config_has_changed => any,
                m.board.console.as_mut().unwrap().transport.config_generation => any,
                m.board.console.as_mut().unwrap().transport.queue_select => any,
                m.board.console.as_mut().unwrap().transport.isr_status => bits(3),
                m.board.console.as_mut().unwrap().transport.device_status => any,
                m.board.console.as_mut().unwrap().transport.queues[0].size => one_of([1, 2, 4, 8]),
                m.board.console.as_mut().unwrap().transport.queues[1].enabled => any,
                m.board.console.as_mut().unwrap().transport.queues[1].desc_addr => any,
                m.board.console.as_mut().unwrap().transport.queues[1].avail_addr => any,
                m.board.console.as_mut().unwrap().transport.queues[1].used_addr => any,
                m.board.console.as_mut().unwrap().transport.queues[1].avail_last_idx => any,
                m.board.console.as_mut().unwrap().transport.queues[1].num_staged_replies => any,
                m.board.console.as_mut().unwrap().transport.queues[1].masked_idx => any,
                m.board.console.as_mut().unwrap().transport.driver_feature => own_features,
                m.board.console.as_mut().unwrap().transport.device_feature => own_features,
                m.board.console.as_mut().unwrap().rows => any,
                m.board.console.as_mut().unwrap().cols => any,
                m.board.console.as_mut().unwrap().ports[0].open => any,
                m.board.console.as_mut().unwrap().ports[3].open => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.console.as_ref().unwrap())
        }
    }
}
