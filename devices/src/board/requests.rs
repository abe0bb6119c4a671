//! What a guest asks of the host, and what the processor must return for.

use crate::virtio::console;

/// Output that waits on a port before the machine stops for it to be taken, in bytes.
pub(crate) const OUTPUT_LIMIT: usize = 4096;

/// What a guest has asked of whoever runs the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A reset.
    Reset,
    /// The power off.
    PowerOff,
    /// The end of the program, with a value.
    DebugExit(u32),
}

/// The lines whose output a host takes. The machine stops when much of it waits there; on others it
/// runs on. The debug console has its own switch, [`crate::debug::DebugConsole::connected`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// COM1 to COM4. Of what waits on one that is not connected, the oldest is lost.
    pub serial: [bool; 4],
    /// The ports of the virtio console. The guest waits when one that is not connected is full.
    pub console: [bool; console::PORTS],
    /// The network card: a cable is in it. Of a card without one, what the guest sends is lost.
    pub network: bool,
    /// The folders of the host: what is asked of them is answered. Else the guest gets errors.
    pub shares: bool,
}

impl Default for Connected {
    /// COM1 and the virtio console, no network, and no folders.
    fn default() -> Self {
        Self {
            serial: [true, false, false, false],
            console: [true; console::PORTS],
            network: false,
            shares: false,
        }
    }
}

/// Requests of the guest, and whether the processor is to return.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    pub(super) request: Option<Request>,
    /// The processor is to return: there is a request, output to take, or a nearer deadline.
    pub(super) yield_requested: bool,
    /// Base addresses or the routing of interrupts may be others now.
    pub(super) rewired: bool,
}

impl Requests {
    /// Asks for something. The first request counts.
    #[cold]
    pub fn ask(&mut self, request: Request) {
        tracing::debug!(target: "board", ?request, "the guest asks");
        self.request.get_or_insert(request);
        self.yield_requested = true;
    }

    /// Output waits for the host.
    pub fn output(&mut self) {
        self.yield_requested = true;
    }

    /// Data of a medium or a file have been asked for. Where the machine stands still until they have come, it
    /// does so behind this instruction, and whether it does makes no other difference.
    pub fn data(&mut self) {
        self.yield_requested = true;
    }

    /// PCI functions decode other ports, or their interrupts are routed elsewhere.
    pub fn rewire(&mut self) {
        self.rewired = true;
    }
}
