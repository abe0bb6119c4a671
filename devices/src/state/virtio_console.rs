//! The virtio console.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::record::{Entry, Layout};
use super::virtio::{TRANSPORT, read_transport, write_transport};
use crate::board::BoardConfig;
use crate::pc::Pc;
use crate::virtio::console::VirtioConsole;

const CONSOLE: Layout = Layout { name: NAME, fields: &["virtio", "rows", "cols", "ports"] };

const NAME: &str = "virtio_console";

/// The console, if it is fitted.
pub(super) type Saved = Option<VirtioConsole>;

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let Some(r) = state.optional(&CONSOLE, NAME)? else { return Ok(None) };
        let own = VirtioConsole::default();
        let transport = read_transport(&r.record(&TRANSPORT, "virtio")?, &own.transport)?;
        Ok(Some(VirtioConsole { transport, rows: r.u16("rows")?, cols: r.u16("cols")?, ..own }))
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
        Ok(())
    }
}
