//! A UDP flow of the guest's, and its pings: datagrams by a socket of the host's.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use smoltcp::wire::{
    EthernetAddress, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv4Repr, Ipv4Packet, UdpPacket,
};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, sleep_until, timeout};

use super::GATEWAY;
use super::cable::Frame;
use super::packet::{self, ETHERNET};

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
    pub guest: SocketAddrV4,
    /// The end that the guest sends to.
    pub remote: SocketAddrV4,
    /// The guest's frames of this flow.
    pub received: Receiver<Frame>,
    /// To the guest.
    pub sender: Sender<Frame>,
}

/// Carries a flow to an address of the host's until it has been idle for long.
pub async fn run(mut side: GuestSide, to: SocketAddrV4) {
    let opened = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
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

/// The data of the datagram in a frame.
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = Ipv4Packet::new_checked(frame.get(ETHERNET..)?).ok()?;
    Some(UdpPacket::new_checked(packet.payload()).ok()?.payload())
}

/// How the host's error is told to the guest.
pub fn reason(error: &io::Error) -> Icmpv4DstUnreachable {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Icmpv4DstUnreachable::PortUnreachable,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Icmpv4DstUnreachable::NetUnreachable
        }
        io::ErrorKind::PermissionDenied => Icmpv4DstUnreachable::CommProhibited,
        _ => Icmpv4DstUnreachable::HostUnreachable,
    }
}

/// Tells the guest that a packet of its did not arrive. A full cable loses this, too.
pub fn refuse(sender: &Sender<Frame>, mac: EthernetAddress, frame: &[u8], error: &io::Error) {
    if let Some(Ok(packet)) = frame.get(ETHERNET..).map(Ipv4Packet::new_checked) {
        // Of a port it is the host that says so, of the rest it is the gateway.
        let reason = reason(error);
        let port = reason == Icmpv4DstUnreachable::PortUnreachable;
        let from = if port { packet.dst_addr() } else { GATEWAY };
        let _ = sender.try_send(packet::unreachable(mac, from, reason, &packet));
    }
}

/// Asks the host to ping, as it lets programs without privileges do, and passes the answer on.
pub async fn ping(mac: EthernetAddress, frame: Frame, to: Ipv4Addr, sender: Sender<Frame>) {
    let answered = timeout(PING_PATIENCE, echo(mac, &frame, to)).await;
    match answered {
        Ok(Ok(Some(answer))) => drop(sender.send(answer).await),
        Ok(Err(error)) => refuse(&sender, mac, &frame, &error),
        // Nobody answers.
        Ok(Ok(None)) | Err(_) => {}
    }
}

async fn echo(mac: EthernetAddress, frame: &[u8], to: Ipv4Addr) -> io::Result<Option<Frame>> {
    use socket2::{Domain, Protocol, Socket, Type};
    let Ok(packet) = Ipv4Packet::new_checked(&frame[ETHERNET..]) else { return Ok(None) };
    let Ok(request) = Icmpv4Packet::new_checked(packet.payload()) else { return Ok(None) };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.connect((to, 0)).await?;
    // The kernel puts its own identifier and checksum in.
    socket.send(packet.payload()).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = match receive(&socket, &mut buffer).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        // Some systems give the IP header, too.
        let message = match Ipv4Packet::new_checked(&buffer[..length]) {
            Ok(packet) if packet.version() == 4 => packet.payload(),
            _ => &buffer[..length],
        };
        let Ok(answer) = Icmpv4Packet::new_checked(message) else { continue };
        if answer.msg_type() == Icmpv4Message::EchoReply && answer.echo_seq_no() == request.echo_seq_no() {
            let (ident, seq_no, data) = (request.echo_ident(), request.echo_seq_no(), answer.data());
            let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
            return Ok(Some(packet::icmp(mac, packet.dst_addr(), packet.src_addr(), &reply)));
        }
    }
}
