//! A UDP flow of the guest's, and its pings: datagrams by a socket of the host's.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use smoltcp::wire::{EthernetAddress, Icmpv4Message, Icmpv6Message, Ipv4Packet};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, sleep_until, timeout};

use super::cable::Frame;
use super::packet::{self, Packet, Unreachable};

/// The longest datagram.
const LARGEST: usize = 65_535;
/// A flow without a datagram for so long is over.
const IDLE: Duration = Duration::from_secs(90);
/// How long an answer to a ping may take.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// The guest's side of a flow.
#[derive(Debug)]
pub struct GuestSide {
    /// The guest's Ethernet address.
    pub mac: EthernetAddress,
    /// The guest's end.
    pub guest: SocketAddr,
    /// The end that the guest sends to.
    pub remote: SocketAddr,
    /// The guest's frames of this flow.
    pub received: Receiver<Frame>,
    /// To the guest.
    pub sender: Sender<Frame>,
}

/// Carries a flow to an address of the host's until it has been idle for long.
pub async fn run(mut side: GuestSide, to: SocketAddr) {
    let opened = async {
        let socket = UdpSocket::bind((any(to), 0)).await?;
        socket.connect(to).await.map(|()| socket)
    };
    let socket = match opened.await {
        Ok(socket) => socket,
        Err(error) => {
            if let Some(frame) = side.received.recv().await {
                refuse(&side.sender, side.mac, &frame, &error);
            }
            return;
        }
    };
    let mut last = Frame::new();
    let mut buffer = vec![0; LARGEST];
    let mut ident = 0u16;
    let mut timer = Box::pin(sleep_until(Instant::now() + IDLE));
    loop {
        let event = {
            let mut host = pin!(receive(&socket, &mut buffer));
            poll_fn(|cx| {
                if let Poll::Ready(frame) = side.received.poll_recv(cx) {
                    return Poll::Ready(Event::Guest(frame));
                }
                if let Poll::Ready(result) = host.as_mut().poll(cx) {
                    return Poll::Ready(Event::Host(result));
                }
                timer.as_mut().poll(cx).map(|()| Event::Guest(None))
            })
            .await
        };
        match event {
            Event::Guest(None) => return,
            Event::Guest(Some(frame)) => {
                // A datagram that the host refuses is lost, and an error comes with the next call.
                if let Some(data) = payload(&frame)
                    && let Err(error) = socket.send(data).await
                {
                    refuse(&side.sender, side.mac, &frame, &error);
                }
                last = frame;
            }
            Event::Host(Ok(length)) => {
                ident = ident.wrapping_add(1);
                for frame in packet::udp(side.mac, side.remote, side.guest, ident, &buffer[..length]) {
                    if side.sender.send(frame).await.is_err() {
                        return;
                    }
                }
            }
            Event::Host(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Event::Host(Err(error)) => refuse(&side.sender, side.mac, &last, &error),
        }
        timer.as_mut().reset(Instant::now() + IDLE);
    }
}

/// Receives a datagram, or the error that one of ours has come to: that makes a socket ready for errors
/// only, for which a plain wait for a datagram does not wake. What is no error in the end would block.
async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    let mut failed = pin!(socket.ready(Interest::ERROR));
    let received = poll_fn(|cx| {
        let mut room = ReadBuf::new(buffer);
        if let Poll::Ready(result) = socket.poll_recv(cx, &mut room) {
            return Poll::Ready(result.map(|()| Some(room.filled().len())));
        }
        failed.as_mut().poll(cx).map_ok(|_| None)
    });
    match received.await? {
        Some(length) => Ok(length),
        None => socket.try_io(Interest::ERROR, || {
            Err(socket.take_error()?.unwrap_or(io::ErrorKind::WouldBlock.into()))
        }),
    }
}

enum Event {
    Guest(Option<Frame>),
    Host(io::Result<usize>),
}

/// Where a socket that sends to this address is bound.
fn any(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The data of the datagram in a frame.
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    Some(Packet::of(frame)?.udp()?.payload())
}

/// How the host's error is told to the guest.
fn reason(error: &io::Error) -> Unreachable {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreachable::Port,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => Unreachable::Network,
        io::ErrorKind::PermissionDenied => Unreachable::Prohibited,
        _ => Unreachable::Host,
    }
}

/// Tells the guest that a packet of its did not arrive. A full cable loses this, too.
pub fn refuse(sender: &Sender<Frame>, mac: EthernetAddress, frame: &[u8], error: &io::Error) {
    if let Some(packet) = Packet::of(frame) {
        let _ = sender.try_send(packet::unreachable(mac, reason(error), &packet));
    }
}

/// Asks the host to ping, as it lets programs without privileges do, and passes the answer on.
pub async fn ping(mac: EthernetAddress, frame: Frame, to: IpAddr, sender: Sender<Frame>) {
    let answered = timeout(PING_PATIENCE, echo(mac, &frame, to)).await;
    match answered {
        Ok(Ok(Some(answer))) => drop(sender.send(answer).await),
        Ok(Err(error)) => refuse(&sender, mac, &frame, &error),
        // Nobody answers.
        Ok(Ok(None)) | Err(_) => {}
    }
}

/// Where an ICMP message of either version has the identifier and the number of a ping, and its data.
const ECHO_IDENT: usize = 4;
const ECHO_NUMBER: usize = 6;
const ECHO_DATA: usize = 8;

/// The identifier, the number and the data of a ping or its answer.
pub fn echo_parts(message: &[u8]) -> Option<(u16, u16, &[u8])> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    Some((word(ECHO_IDENT)?, word(ECHO_NUMBER)?, message.get(ECHO_DATA..)?))
}

async fn echo(mac: EthernetAddress, frame: &[u8], to: IpAddr) -> io::Result<Option<Frame>> {
    use socket2::{Domain, Protocol, Socket, Type};
    let Some(packet) = Packet::of(frame) else { return Ok(None) };
    let Some((ident, number, _)) = echo_parts(packet.payload) else { return Ok(None) };
    let (domain, protocol, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, u8::from(Icmpv4Message::EchoReply)),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, u8::from(Icmpv6Message::EchoReply)),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.connect((to, 0)).await?;
    // The kernel puts its own identifier and checksum in.
    socket.send(packet.payload).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = match receive(&socket, &mut buffer).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        // Some systems give the header of IPv4, too; a message that begins like one would be of a type that
        // there is not.
        let message = match Ipv4Packet::new_checked(&buffer[..length]) {
            Ok(packet) if to.is_ipv4() && packet.version() == 4 => packet.payload(),
            _ => &buffer[..length],
        };
        match echo_parts(message) {
            Some((_, answered, data)) if message[0] == reply && answered == number => {
                return Ok(Some(packet::echo_reply(mac, &packet, ident, number, data)));
            }
            _ => {}
        }
    }
}
