//! The machine's end of the cable to its network.

#[cfg(feature = "net")]
mod plugged {
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};

    use env86_core::{Accepted, Computer, Input, NetDevice};
    use env86_devices::alias::Alias;

    use super::super::MachineError;
    use super::super::ports::Desk;
    use crate::net::Port;
    pub use crate::net::{Network, Prepared, Wiring};

    /// Frames that the machine is offered before it runs again.
    const TURN: usize = 256;

    /// Makes sure of what a network needs of the host.
    pub fn prepare(wiring: &Wiring) -> Result<Prepared, MachineError> {
        Ok(Network::prepare(wiring.clone())?)
    }

    /// Starts a network and plugs the machine's card into it, under another address than the card's if there is one.
    pub fn plug(
        computer: &mut Computer,
        prepared: Prepared,
        desk: &Arc<Desk>,
        address: Option<[u8; 6]>,
    ) -> Result<(Network, Cable), MachineError> {
        let device = computer.net_device();
        if device == NetDevice::None {
            return Err(MachineError::NoNetworkCard);
        }
        // The virtio card cuts for a driver that does not take such frames.
        let (network, port) = prepared.start(device == NetDevice::Virtio)?;
        computer.connect_network(true);
        let waker = Waker::from(Arc::new(WakeMachine(desk.clone())));
        let alias = address.zip(computer.mac()).map(|(network, guest)| Alias { guest, network });
        Ok((network, Cable { port, alias, waiting: None, waker }))
    }

    /// A frame that comes wakes the machine's thread.
    struct WakeMachine(Arc<Desk>);

    impl Wake for WakeMachine {
        fn wake(self: Arc<Self>) {
            self.0.wake();
        }
    }

    /// The machine's end.
    pub struct Cable {
        port: Port,
        /// The address that the network knows the card by, if it is not the card's.
        alias: Option<Alias>,
        /// A frame that the card had no room for. Until it has, the others wait in the cable, and the
        /// network waits when that is full.
        waiting: Option<Input>,
        waker: Waker,
    }

    impl Cable {
        /// Gives the machine the frames that have come, as far as its card takes them. Says whether it
        /// took any; if not, the machine's thread is woken by the next.
        pub fn give(&mut self, computer: &mut Computer) -> bool {
            let mut any = false;
            for _ in 0..TURN {
                let Some(frame) = self.next() else { break };
                match computer.input(&frame) {
                    Accepted::All | Accepted::NoDevice | Accepted::Refused => any = true,
                    Accepted::Some(_) => {
                        self.waiting = Some(frame);
                        break;
                    }
                }
            }
            any
        }

        fn next(&mut self) -> Option<Input> {
            self.waiting.take().or_else(|| {
                let mut cx = Context::from_waker(&self.waker);
                match self.port.receiver.poll_recv(&mut cx) {
                    Poll::Ready(frame) => frame.map(|mut frame| {
                        self.alias.iter().for_each(|alias| alias.inward(&mut frame));
                        Input::Frame(frame)
                    }),
                    Poll::Pending => None,
                }
            })
        }

        /// Sends a frame of the guest's. It waits for room, which the network makes whatever the guest
        /// does.
        pub fn send(&self, frame: &[u8]) {
            let mut frame = frame.to_vec();
            self.alias.iter().for_each(|alias| alias.outward(&mut frame));
            // A network that has ended takes nothing, as a cable that was pulled.
            let _ = self.port.sender.blocking_send(frame);
        }
    }
}

#[cfg(not(feature = "net"))]
mod plugged {
    use std::sync::Arc;

    use env86_core::Computer;

    use super::super::MachineError;
    use super::super::ports::Desk;

    /// There is no network in this build.
    #[derive(Clone, Debug)]
    pub enum Wiring {}

    impl Wiring {
        pub fn is_shared(&self) -> bool {
            match *self {}
        }
    }

    pub enum Prepared {}
    #[derive(Debug)]
    pub enum Network {}
    pub enum Cable {}

    pub fn prepare(wiring: &Wiring) -> Result<Prepared, MachineError> {
        match *wiring {}
    }

    pub fn plug(
        _: &mut Computer,
        prepared: Prepared,
        _: &Arc<Desk>,
        _: Option<[u8; 6]>,
    ) -> Result<(Network, Cable), MachineError> {
        match prepared {}
    }

    impl Cable {
        pub fn give(&mut self, _: &mut Computer) -> bool {
            match *self {}
        }

        pub fn send(&self, _: &[u8]) {
            match *self {}
        }
    }
}

pub use plugged::{Cable, Network, Prepared, Wiring, plug, prepare};
