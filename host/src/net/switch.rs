//! A learning switch: several cables on one network.

use std::collections::HashMap;
use std::future::poll_fn;
use std::task::Poll;

use smoltcp::wire::{EthernetAddress, EthernetFrame};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tracing::debug;

use super::cable::{Frame, Port};

/// Addresses that a switch remembers of one port.
const ADDRESSES_PER_PORT: usize = 64;
/// Frames that a port may send before the others have their turn.
const TURN: usize = 32;

/// A switch. It works until it is dropped and its ports are unplugged.
#[derive(Clone, Debug)]
pub struct Switch {
    plug: UnboundedSender<Port>,
}

impl Switch {
    /// A switch without ports, on the runtime that this is called in.
    pub fn new() -> Self {
        let (plug, plugged) = mpsc::unbounded_channel();
        tokio::spawn(run(plugged));
        Self { plug }
    }

    /// Plugs in the end of a cable; it is unplugged when its other end is dropped.
    pub fn connect(&self, port: Port) {
        let _ = self.plug.send(port);
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

/// What happens at a switch.
enum Event {
    Plugged(Option<Port>),
    Frame(usize, Frame),
    Unplugged(usize),
}

async fn run(mut plugged: UnboundedReceiver<Port>) {
    let mut ports: Vec<Option<Port>> = Vec::new();
    let mut places: HashMap<EthernetAddress, usize> = HashMap::new();
    let (mut turn, mut taken, mut closed) = (0, 0, false);
    while !closed || ports.iter().any(Option::is_some) {
        let event = poll_fn(|cx| {
            if !closed && let Poll::Ready(port) = plugged.poll_recv(cx) {
                return Poll::Ready(Event::Plugged(port));
            }
            for n in 0..ports.len() {
                let at = (turn + n) % ports.len();
                let Some(port) = &mut ports[at] else { continue };
                match port.receiver.poll_recv(cx) {
                    Poll::Ready(Some(frame)) => return Poll::Ready(Event::Frame(at, frame)),
                    Poll::Ready(None) => return Poll::Ready(Event::Unplugged(at)),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await;
        match event {
            Event::Plugged(None) => closed = true,
            Event::Plugged(Some(port)) => match ports.iter_mut().find(|port| port.is_none()) {
                Some(free) => *free = Some(port),
                None => ports.push(Some(port)),
            },
            Event::Unplugged(at) => {
                ports[at] = None;
                places.retain(|_, place| *place != at);
            }
            Event::Frame(at, frame) => {
                taken = if at == turn { taken + 1 } else { 1 };
                turn = if taken < TURN { at } else { (at + 1) % ports.len() };
                pass(&ports, &mut places, at, frame);
            }
        }
    }
}

/// Passes a frame on: to the port where its destination was last seen, and to all others where that
/// is not known. A port that is full loses it.
fn pass(ports: &[Option<Port>], places: &mut HashMap<EthernetAddress, usize>, from: usize, frame: Frame) {
    let Ok(header) = EthernetFrame::new_checked(frame.as_slice()) else { return };
    let (source, destination) = (header.src_addr(), header.dst_addr());
    if let Some(place) = places.get_mut(&source) {
        *place = from;
    } else if source.is_unicast()
        && places.values().filter(|place| **place == from).count() < ADDRESSES_PER_PORT
    {
        places.insert(source, from);
    }
    let give = |port: &Port, frame| {
        if port.sender.try_send(frame).is_err() {
            debug!(target: "net", "A port of the switch is full and loses a frame");
        }
    };
    match places.get(&destination) {
        Some(at) if *at == from => {}
        Some(at) => {
            if let Some(port) = &ports[*at] {
                give(port, frame);
            }
        }
        None => {
            let others = ports.iter().enumerate().filter(|(at, _)| *at != from);
            others.filter_map(|(_, port)| port.as_ref()).for_each(|port| give(port, frame.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cable::cable;
    use super::*;

    fn frame(to: u8, from: u8) -> Frame {
        [[2, 0, 0, 0, 0, to], [2, 0, 0, 0, 0, from]].concat().into_iter().chain([8, 0]).collect()
    }

    #[test]
    fn what_is_known_goes_to_one_port_and_what_is_not_to_all() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let switch = Switch::new();
            let mut guests: Vec<Port> = (0..3)
                .map(|_| {
                    let (guest, port) = cable();
                    switch.connect(port);
                    guest
                })
                .collect();
            guests[0].sender.send(frame(1, 0)).await.unwrap();
            assert_eq!(guests[1].receiver.recv().await, Some(frame(1, 0)));
            assert_eq!(guests[2].receiver.recv().await, Some(frame(1, 0)));
            guests[1].sender.send(frame(0, 1)).await.unwrap();
            assert_eq!(guests[0].receiver.recv().await, Some(frame(0, 1)));
            guests[0].sender.send(vec![1, 2, 3]).await.unwrap();
            guests[0].sender.send(frame(1, 0)).await.unwrap();
            assert_eq!(guests[1].receiver.recv().await, Some(frame(1, 0)));
            assert!(guests[2].receiver.try_recv().is_err());
            drop(guests.remove(1));
            tokio::task::yield_now().await;
            guests[0].sender.send(frame(1, 0)).await.unwrap();
            assert_eq!(guests[1].receiver.recv().await, Some(frame(1, 0)));
        });
    }
}
