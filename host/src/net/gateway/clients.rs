//! Clients of the host's ports that lead into a guest.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smoltcp::wire::{ArpOperation, EthernetAddress};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::Sender;

use super::super::forward::Socket;
use super::super::tcp::{self, HostSide, Opening};
use super::super::{FIRST_GUEST, GATEWAY, packet};
use super::{Done, Ends, Event, Gateway, TCP_FLOWS};

/// Clients that wait for the guest to be there: a machine that is resumed may have many at once.
const WAITING_CLIENTS: usize = 1024;
/// Clients of UDP forwards that are remembered.
const UDP_CLIENTS: usize = 1024;
/// How long a client of a forward waits for a guest that is not there.
const GUEST_AWAITED: Duration = Duration::from_secs(20);
/// How long a client of a UDP forward is remembered.
const UDP_CLIENT_KEPT: Duration = Duration::from_secs(90);
/// The ports that clients of forwards come from, as the guest sees it.
const CLIENT_PORTS: RangeInclusive<u16> = FIRST_PORT..=65_535;
pub(super) const FIRST_PORT: u16 = 49_152;

/// A client of a TCP or Unix socket that leads to the guest.
pub(super) struct Client {
    host: Box<dyn HostSide>,
    name: String,
    guest_port: u16,
    since: Instant,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("name", &self.name).field("guest_port", &self.guest_port).finish()
    }
}

/// A client of a UDP forward.
#[derive(Debug)]
pub(super) struct UdpClient {
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    /// The guest's end.
    guest: SocketAddr,
    /// The port that the guest sees it at.
    port: u16,
    last: Instant,
}

impl Gateway {
    /// Forgets who has waited for too long, and looks again for the guest that others wait for.
    pub(super) fn tidy_clients(&mut self, now: Instant) {
        // A client that has waited too long is reset: its socket is dropped with bytes unread.
        self.waiting.retain(|client| {
            let waits = now.saturating_duration_since(client.since) < GUEST_AWAITED;
            if !waits {
                client.host.reset();
            }
            waits
        });
        if !self.waiting.is_empty() {
            self.look_for_guest();
        }
        self.udp_clients.retain(|client| now.saturating_duration_since(client.last) < UDP_CLIENT_KEPT);
    }

    /// The guest that forwards lead to.
    fn guest(&self) -> Ipv4Addr {
        self.leases.newest().unwrap_or(FIRST_GUEST)
    }

    fn look_for_guest(&self) {
        self.send(packet::arp(ArpOperation::Request, GATEWAY, (EthernetAddress::BROADCAST, self.guest())));
    }

    /// Connects a client of a forward to the guest, or lets it wait until the guest is there.
    pub(super) fn client(&mut self, client: Client) {
        let guest = SocketAddrV4::new(self.guest(), client.guest_port);
        let Some(&(mac, _)) = self.neighbours.get(guest.ip()) else {
            if self.waiting.len() >= WAITING_CLIENTS {
                return client.host.reset();
            }
            self.waiting.push(client);
            return self.look_for_guest();
        };
        let Some(port) = self.free_client_port(guest).filter(|_| self.tcp.len() < TCP_FLOWS) else {
            return client.host.reset();
        };
        self.say(format_args!("tcp {} -> {guest}", client.name));
        let remote = SocketAddrV4::new(GATEWAY, port);
        let ends: Ends = (guest.into(), remote.into());
        let side = self.tcp_flow(mac, ends);
        self.tasks.spawn(async move {
            tcp::run(side, client.host, Opening::Host).await;
            Done::Tcp(ends)
        });
    }

    /// A port of the gateway's that nobody uses with this port of the guest's.
    pub(super) fn free_client_port(&mut self, guest: SocketAddrV4) -> Option<u16> {
        let taken: HashSet<u16> = self.udp_clients.iter().map(|client| client.port).collect();
        for _ in CLIENT_PORTS {
            let port = self.next_client_port;
            self.next_client_port =
                if port == *CLIENT_PORTS.end() { *CLIENT_PORTS.start() } else { port + 1 };
            let ends: Ends = (guest.into(), SocketAddrV4::new(GATEWAY, port).into());
            if !taken.contains(&port) && !self.tcp.contains_key(&ends) && !self.udp.contains_key(&ends) {
                return Some(port);
            }
        }
        None
    }

    pub(super) fn pass_in(
        &mut self,
        socket: Arc<UdpSocket>,
        client: SocketAddr,
        guest_port: u16,
        data: &[u8],
    ) {
        let guest = SocketAddrV4::new(self.guest(), guest_port);
        let Some(&(mac, _)) = self.neighbours.get(guest.ip()) else { return self.look_for_guest() };
        let now = Instant::now();
        let known = self
            .udp_clients
            .iter_mut()
            .find(|known| known.client == client && Arc::ptr_eq(&known.socket, &socket));
        let port = match known {
            Some(known) => {
                known.last = now;
                known.port
            }
            None => {
                if self.udp_clients.len() >= UDP_CLIENTS {
                    return;
                }
                let Some(port) = self.free_client_port(guest) else { return };
                self.say(format_args!("udp {client} -> {guest}"));
                self.udp_clients.push(UdpClient { socket, client, guest: guest.into(), port, last: now });
                port
            }
        };
        self.datagram(mac, SocketAddrV4::new(GATEWAY, port), guest, data);
    }

    /// Gives a datagram of the guest's to the client at a port of the gateway's, if there is one.
    pub(super) fn pass_out(&mut self, guest: SocketAddr, port: u16, data: &[u8]) -> bool {
        let known = self.udp_clients.iter_mut().find(|c| c.port == port && c.guest == guest);
        let Some(known) = known else { return false };
        known.last = Instant::now();
        // A socket whose buffer is full loses it.
        let _ = known.socket.try_send_to(data, known.client);
        true
    }
}

/// Hands over the clients of a forward.
pub(super) async fn serve_forward(socket: Socket, guest_port: u16, events: Sender<Event>) -> Done {
    let client = |host, name| Event::Client(Client { host, name, guest_port, since: Instant::now() });
    match socket {
        Socket::Tcp(listener) => loop {
            let Ok((stream, from)) = accepted(listener.accept().await).await else { continue };
            let _ = stream.set_nodelay(true);
            if events.send(client(Box::new(stream), from.to_string())).await.is_err() {
                return Done::Forward;
            }
        },
        Socket::Unix(listener) => loop {
            let Ok(stream) = accepted(listener.accept().await).await else { continue };
            if events.send(client(Box::new(stream), "unix socket".into())).await.is_err() {
                return Done::Forward;
            }
        },
        Socket::Udp(socket) => {
            let socket = Arc::new(socket);
            let mut buffer = vec![0; usize::from(u16::MAX)];
            loop {
                // An error belongs to a datagram that was sent, and its sender does not wait for it.
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let data = buffer[..length].to_vec();
                let event = Event::Datagram { socket: socket.clone(), client: from, guest_port, data };
                if events.send(event).await.is_err() {
                    return Done::Forward;
                }
            }
        }
    }
}

/// After a failure to accept, which most often means too many open files, others get time to close.
pub(crate) async fn accepted<T>(result: io::Result<T>) -> io::Result<T> {
    if result.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    result
}
