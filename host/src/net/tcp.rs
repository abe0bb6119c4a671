//! A TCP connection of the guest's: one end of it here, joined to a socket of the host's.
//!
//! Each connection is a task with a TCP endpoint of its own, so that the work for a packet does not
//! grow with the number of connections. Bytes are read from the host's socket into the endpoint's
//! buffer, and written from there, without a copy in between; whichever side is slow makes the other
//! wait, because a full buffer closes the window.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, TcpPacket};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{OwnedPermit, Receiver, Sender, error::SendError};
use tokio::time::{Instant, Sleep, sleep_until};

use super::cable::Frame;
use super::packet::{self, ETHERNET, IPV4, IPV6, MTU, Packet};

/// The longest IP packet that is given to a card that cuts it itself.
const LARGE_PACKET: usize = 65_535 - ETHERNET;
/// Packets taken in before the endpoint works on them.
const BURST: usize = 32;
/// Without an answer of the guest's for so long, a connection with bytes under way is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// The host's side of a connection.
pub trait HostSide: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the end of this side a reset, where it has one.
    fn reset(&self) {}
}

impl HostSide for TcpStream {
    fn reset(&self) {
        // Nothing is lost if the host's side closes in the ordinary way instead.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}
#[cfg(unix)]
impl HostSide for crate::os::LocalStream {}
impl HostSide for DuplexStream {}
impl HostSide for Box<dyn HostSide> {
    fn reset(&self) {
        (**self).reset();
    }
}

/// The guest's side of a connection: where its frames come from and go to.
#[derive(Debug)]
pub struct GuestSide {
    /// The guest's Ethernet address.
    pub mac: EthernetAddress,
    /// The guest's end.
    pub guest: SocketAddr,
    /// The end that the gateway stands in for.
    pub remote: SocketAddr,
    /// The guest's frames of this connection.
    pub received: Receiver<Frame>,
    /// To the guest.
    pub sender: Sender<Frame>,
    /// The guest's card takes TCP segments of up to 64 KiB.
    pub large_frames: bool,
    /// Bytes that wait in each direction.
    pub buffer: usize,
}

impl GuestSide {
    /// Takes what the guest has sent since its SYN; gives its latest SYN, unless it has given up.
    pub fn latest_syn(&mut self, syn: Frame) -> Option<Frame> {
        let mut latest = syn;
        while let Ok(frame) = self.received.try_recv() {
            let segment = Packet::of(&frame).and_then(|packet| packet.tcp());
            if segment.as_ref().is_some_and(|segment| segment.rst()) {
                return None;
            }
            if segment.is_some_and(|segment| segment.syn()) {
                latest = frame;
            }
        }
        Some(latest)
    }
}

/// Who began a connection.
#[derive(Debug)]
pub enum Opening {
    /// The guest, with this SYN, which has not been answered.
    Guest(Frame),
    /// The host: the guest has to be asked.
    Host,
}

/// Carries a connection to its end.
pub async fn run(guest: GuestSide, host: impl HostSide, opening: Opening) {
    let Some(mut connection) = Connection::new(guest, host, opening) else { return };
    poll_fn(|cx| connection.poll(cx)).await;
}

/// A connection: the endpoint that the guest talks to, and the host's socket.
struct Connection<S> {
    host: S,
    received: Receiver<Frame>,
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    started: Instant,
    timer: Pin<Box<Sleep>>,
    /// The guest has sent its last byte, and the host's socket has been told.
    guest_done: bool,
    /// The host's socket has given its last byte, and the guest has been told.
    host_done: bool,
}

impl<S: HostSide> Connection<S> {
    fn new(guest: GuestSide, host: S, opening: Opening) -> Option<Self> {
        let started = Instant::now();
        let mut device = Device {
            mac: guest.mac,
            remote: guest.remote.ip(),
            guest: guest.guest.ip(),
            large_frames: guest.large_frames,
            received: VecDeque::new(),
            sender: guest.sender,
            permit: None,
            waiting: None,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from(super::random()) << 32 | u64::from(super::random());
        let mut interface = Interface::new(config, &mut device, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The list is empty and has room for one.
            let bits = if guest.remote.is_ipv4() { 32 } else { 128 };
            let _ = addresses.push(IpCidr::new(guest.remote.ip().into(), bits));
        });
        let buffer = || SocketBuffer::new(vec![0; guest.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_timeout(Some(PATIENCE.into()));
        match opening {
            Opening::Guest(syn) => {
                socket.listen(guest.remote).ok()?;
                device.received.push_back(syn);
            }
            Opening::Host => socket.connect(interface.context(), guest.guest, guest.remote).ok()?,
        }
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Some(Self {
            host,
            received: guest.received,
            device,
            interface,
            sockets,
            socket,
            started,
            timer: Box::pin(sleep_until(started)),
            guest_done: false,
            host_done: false,
        })
    }

    fn now(&self) -> StackInstant {
        StackInstant::from_micros(self.started.elapsed().as_micros() as i64)
    }

    /// Works until there is nothing to do; ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut busy = false;
            while self.device.received.len() < BURST {
                match self.received.poll_recv(cx) {
                    Poll::Ready(Some(frame)) => self.device.received.push_back(frame),
                    // The cable is cut.
                    Poll::Ready(None) => {
                        self.host.reset();
                        return Poll::Ready(());
                    }
                    Poll::Pending => break,
                }
                busy = true;
            }
            let now = self.now();
            self.interface.poll(now, &mut self.device, &mut self.sockets);
            busy |= self.upload(cx);
            busy |= self.download(cx);
            self.interface.poll(now, &mut self.device, &mut self.sockets);
            if self.has_ended() {
                return Poll::Ready(());
            }
            busy |= self.device.poll_room(cx);
            if !busy && self.poll_timer(cx, now).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Moves bytes from the guest to the host. Says whether any moved.
    fn upload(&mut self, cx: &mut Context<'_>) -> bool {
        let socket = self.sockets.get_mut::<Socket>(self.socket);
        let host = &mut self.host;
        let mut moved = false;
        while socket.can_recv() {
            let written = socket.recv(|bytes| match Pin::new(&mut *host).poll_write(cx, bytes) {
                Poll::Ready(Ok(n)) => (n, Some(n > 0)),
                Poll::Ready(Err(_)) => (0, Some(false)),
                Poll::Pending => (0, None),
            });
            match written {
                Ok(Some(true)) => moved = true,
                Ok(Some(false)) => {
                    // The host's peer takes no more, and the guest has to know.
                    socket.abort();
                    return true;
                }
                Ok(None) | Err(_) => return moved,
            }
        }
        let ended =
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if ended && !self.guest_done && Pin::new(host).poll_shutdown(cx).is_ready() {
            self.guest_done = true;
        }
        moved
    }

    /// Moves bytes from the host to the guest. Says whether any moved.
    fn download(&mut self, cx: &mut Context<'_>) -> bool {
        let socket = self.sockets.get_mut::<Socket>(self.socket);
        let host = &mut self.host;
        let mut moved = false;
        while !self.host_done && socket.can_send() {
            let read = socket.send(|room| {
                let mut room = ReadBuf::new(room);
                match Pin::new(&mut *host).poll_read(cx, &mut room) {
                    Poll::Ready(Ok(())) => (room.filled().len(), Some(Ok(room.filled().len()))),
                    Poll::Ready(Err(error)) => (0, Some(Err(error))),
                    Poll::Pending => (0, None),
                }
            });
            match read {
                Ok(Some(Ok(0))) => {
                    self.host_done = true;
                    socket.close();
                    return true;
                }
                Ok(Some(Ok(_))) => moved = true,
                Ok(Some(Err(_))) => {
                    socket.abort();
                    return true;
                }
                Ok(None) | Err(_) => break,
            }
        }
        moved
    }

    /// Whether both ends are closed. What a reset ended is reset on the host's side, too.
    fn has_ended(&mut self) -> bool {
        match self.sockets.get::<Socket>(self.socket).state() {
            State::Closed => {
                if !(self.guest_done && self.host_done) {
                    self.host.reset();
                }
                // A reset that the guest has to see may still wait for room on the cable.
                self.device.waiting.is_none()
            }
            // The guest's last segment is acknowledged. One that it repeats is answered by a reset,
            // which a closed connection does not mind.
            State::TimeWait => self.guest_done && self.device.waiting.is_none(),
            _ => false,
        }
    }

    /// Sleeps until the endpoint has something to do.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: StackInstant) -> Poll<()> {
        let Some(delay) = self.interface.poll_delay(now, &self.sockets) else { return Poll::Pending };
        if self.device.waiting.is_some() {
            return Poll::Pending;
        }
        let due = Instant::now() + Duration::from(delay);
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        self.timer.as_mut().poll(cx)
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<OwnedPermit<Frame>, SendError<()>>> + Send>>;

/// The endpoint's network device: the frames of one connection.
struct Device {
    mac: EthernetAddress,
    remote: IpAddr,
    guest: IpAddr,
    large_frames: bool,
    received: VecDeque<Frame>,
    sender: Sender<Frame>,
    /// Room on the cable that was waited for.
    permit: Option<OwnedPermit<Frame>>,
    /// The wait for room on the cable.
    waiting: Option<Waiting>,
}

impl Device {
    /// Whether there is room on the cable now that was not there before.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        let Poll::Ready(permit) = waiting.as_mut().poll(cx) else { return false };
        self.waiting = None;
        self.permit = permit.ok();
        self.permit.is_some()
    }

    fn send(&mut self, frame: Frame) {
        match self.permit.take() {
            Some(permit) => drop(permit.send(frame)),
            // One that finds no room is lost, and sent again.
            None => drop(self.sender.try_send(frame)),
        }
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Received;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Transmit<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Transmit(self)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Transmit<'_>> {
        if self.permit.is_none() && self.sender.capacity() == 0 {
            if self.waiting.is_none() && !self.sender.is_closed() {
                self.waiting = Some(Box::pin(self.sender.clone().reserve_owned()));
            }
            return None;
        }
        Some(Transmit(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // The checksum of what is sent is made in `Transmit`, as segments that are to be cut ask.
        capabilities.checksum.tcp = Checksum::Rx;
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(LARGE_PACKET).filter(|_| self.large_frames);
        capabilities
    }
}

/// A frame of the guest's.
struct Received(Frame);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0[ETHERNET..])
    }
}

/// The right to send a frame to the guest.
struct Transmit<'a>(&'a mut Device);

impl phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; ETHERNET + len];
        packet::address(&mut frame, self.0.mac, packet::ethertype(self.0.guest));
        let result = f(&mut frame[ETHERNET..]);
        let header = if self.0.guest.is_ipv4() { IPV4 } else { IPV6 };
        if let Some(segment) = frame.get_mut(ETHERNET + header..) {
            let (from, to): (IpAddress, IpAddress) = (self.0.remote.into(), self.0.guest.into());
            TcpPacket::new_unchecked(segment).fill_checksum(&from, &to);
        }
        self.0.send(frame);
        result
    }
}
