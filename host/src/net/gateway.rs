//! The gateway: looks at each frame of the guest's and gives it to whom it is for.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4DstUnreachable,
    Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::cable::{Frame, Port};
use super::dhcp::{self, Leases};
use super::dns::{self, Resolver, kind, rcode};
use super::forward::Socket;
use super::fragments::Fragments;
use super::packet::{self, ETHERNET};
use super::policy::{Policy, Verdict};
use super::tcp::{self, HostSide, Opening};
use super::{Config, FIRST_GUEST, GATEWAY, GATEWAY_MAC, HOST, Log, NETWORK, udp};

/// The port of NTP.
const NTP_PORT: u16 = 123;
/// TCP connections at once; the guest is told that more are refused. One guest may have as many as are free,
/// so half of them if it is alone.
const TCP_FLOWS: usize = 2048;
/// UDP flows at once, of which one guest may have as many as are free; datagrams of more are lost.
const UDP_FLOWS: usize = 512;
/// Pings under way at once.
const PINGS: usize = 32;
/// Names being looked up at once.
const LOOKUPS: usize = 128;
/// Clients that wait for the guest to be there.
const WAITING_CLIENTS: usize = 64;
/// Clients of UDP forwards that are remembered.
const UDP_CLIENTS: usize = 1024;
/// Frames of one TCP connection, and of one UDP flow, that wait for it.
const TCP_QUEUE: usize = 256;
const UDP_QUEUE: usize = 16;
/// Bytes that a TCP connection holds in each direction, and how many connections may have as much.
const BUFFER: usize = 256 << 10;
const WELL_BUFFERED: usize = 128;
/// Bytes that one of more connections holds.
const SMALL_BUFFER: usize = 32 << 10;
/// Bytes of a DNS connection that wait for the gateway.
const DNS_BUFFER: usize = 4096;
/// How long the host may take to reach a peer.
const DIAL: Duration = Duration::from_secs(75);
/// How long a client of a forward waits for a guest that is not there.
const GUEST_AWAITED: Duration = Duration::from_secs(20);
/// How long a client of a UDP forward is remembered.
const UDP_CLIENT_KEPT: Duration = Duration::from_secs(90);
/// How long a guest that says nothing keeps an address that others want.
const NEIGHBOUR_KEPT: Duration = Duration::from_secs(600);
/// The ports that clients of forwards come from, as the guest sees it.
const CLIENT_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// How often what is over is thrown away, and a guest that is waited for is asked for again.
const TICK: Duration = Duration::from_secs(1);

/// The domain of the gateway's own names.
const DOMAIN: &str = "env86.internal";

/// A flow of the guest's, by both its ends.
type Ends = (SocketAddrV4, SocketAddrV4);

/// What the gateway is told by others than the guest.
#[derive(Debug)]
pub(super) enum Event {
    /// A client of a forward.
    Client(Client),
    /// A datagram of a forward's client.
    Datagram { socket: Arc<UdpSocket>, client: SocketAddr, guest_port: u16, data: Vec<u8> },
    /// A question that came by TCP.
    Query(Vec<u8>, oneshot::Sender<Vec<u8>>),
}

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
struct UdpClient {
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    guest_port: u16,
    /// The port that the guest sees it at.
    port: u16,
    last: Instant,
}

/// Who asks for a name.
enum Asker {
    Udp { mac: EthernetAddress, guest: SocketAddrV4 },
    Tcp(oneshot::Sender<Vec<u8>>),
}

/// What a task of the gateway's has done.
enum Done {
    Tcp(Ends),
    Udp(Ends),
    Ping,
    Lookup {
        query: Vec<u8>,
        answer: Vec<u8>,
        asker: Asker,
    },
    /// A forward's socket is gone.
    Forward,
}

/// The gateway.
pub(super) struct Gateway {
    port: Port,
    events: Receiver<Event>,
    event_sender: Sender<Event>,
    tasks: JoinSet<Done>,
    tick: Interval,
    large_frames: bool,
    log: Option<Log>,
    policy: Policy,
    resolver: Resolver,
    leases: Leases,
    /// The guests' Ethernet addresses, and when a guest was last heard of.
    neighbours: HashMap<Ipv4Addr, (EthernetAddress, Instant)>,
    fragments: Fragments,
    tcp: HashMap<Ends, Sender<Frame>>,
    udp: HashMap<Ends, Sender<Frame>>,
    pings: usize,
    lookups: usize,
    waiting: Vec<Client>,
    udp_clients: Vec<UdpClient>,
    next_client_port: u16,
    ident: u16,
}

impl Gateway {
    pub(super) fn new(port: Port, config: Config, forwards: Vec<(Socket, u16)>) -> Self {
        let (event_sender, events) = mpsc::channel(WAITING_CLIENTS);
        let mut tasks = JoinSet::new();
        for (socket, guest_port) in forwards {
            tasks.spawn(serve_forward(socket, guest_port, event_sender.clone()));
        }
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            port,
            events,
            event_sender,
            tasks,
            tick,
            large_frames: config.large_frames,
            log: config.log,
            policy: Policy::new(config.rules),
            resolver: Resolver::new(config.names),
            leases: Leases::default(),
            neighbours: HashMap::new(),
            fragments: Fragments::default(),
            tcp: HashMap::new(),
            udp: HashMap::new(),
            pings: 0,
            lookups: 0,
            waiting: Vec::new(),
            udp_clients: Vec::new(),
            next_client_port: *CLIENT_PORTS.start(),
            ident: 0,
        }
    }

    /// Works until the guest's end of the cable is gone.
    pub(super) async fn run(mut self) {
        // A guest that was saved knows the gateway, and learns that it is there again.
        self.send(packet::arp(ArpOperation::Request, GATEWAY, (EthernetAddress::BROADCAST, GATEWAY)));
        loop {
            match poll_fn(|cx| self.poll_event(cx)).await {
                Happening::Frame(Some(frame)) => self.frame(frame),
                Happening::Frame(None) => return,
                Happening::Event(event) => self.event(event),
                Happening::Done(done) => self.done(done),
                Happening::Tick => self.tick(),
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        if let Poll::Ready(frame) = self.port.receiver.poll_recv(cx) {
            return Poll::Ready(Happening::Frame(frame));
        }
        if let Poll::Ready(Some(event)) = self.events.poll_recv(cx) {
            return Poll::Ready(Happening::Event(event));
        }
        if let Poll::Ready(Some(Ok(done))) = self.tasks.poll_join_next(cx) {
            return Poll::Ready(Happening::Done(done));
        }
        self.tick.poll_tick(cx).map(|_| Happening::Tick)
    }

    fn say(&self, text: std::fmt::Arguments<'_>) {
        if let Some(log) = &self.log {
            log(text);
        }
    }

    /// Sends a frame of the gateway's own; a cable that is full loses it.
    fn send(&self, frame: Frame) {
        let _ = self.port.sender.try_send(frame);
    }

    fn frame(&mut self, frame: Frame) {
        let Ok(header) = EthernetFrame::new_checked(frame.as_slice()) else { return };
        let (from, to) = (header.src_addr(), header.dst_addr());
        if !from.is_unicast() || from == GATEWAY_MAC || !(to == GATEWAY_MAC || to.is_broadcast()) {
            return;
        }
        match header.ethertype() {
            EthernetProtocol::Arp => self.arp(header.payload()),
            EthernetProtocol::Ipv4 => self.ipv4(from, frame),
            _ => {}
        }
    }

    /// Remembers where a guest is; clients that wait for it can go on.
    fn meet(&mut self, address: Ipv4Addr, mac: EthernetAddress) {
        let is_guest = NETWORK.contains_addr(&address) && ![GATEWAY, HOST].contains(&address);
        if is_guest && self.neighbours.insert(address, (mac, Instant::now())).is_none() {
            for client in std::mem::take(&mut self.waiting) {
                self.client(client);
            }
        }
    }

    fn arp(&mut self, packet: &[u8]) {
        let Ok(packet) = ArpPacket::new_checked(packet) else { return };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: mac,
            source_protocol_addr: from,
            target_protocol_addr: wanted,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        if !mac.is_unicast() {
            return;
        }
        self.meet(from, mac);
        if operation == ArpOperation::Request && [GATEWAY, HOST].contains(&wanted) {
            self.send(packet::arp(ArpOperation::Reply, wanted, (mac, from)));
        }
    }

    fn ipv4(&mut self, mac: EthernetAddress, frame: Frame) {
        let Ok(packet) = Ipv4Packet::new_checked(&frame[ETHERNET..]) else { return };
        if packet.version() != 4 || !packet.verify_checksum() {
            return;
        }
        let (from, to, protocol) = (packet.src_addr(), packet.dst_addr(), packet.next_header());
        let broadcast = to.is_broadcast() || Some(to) == NETWORK.broadcast();
        if broadcast || from.is_unspecified() {
            return self.broadcast(mac, &packet);
        }
        // Only guests are behind this cable, and they have their addresses from here.
        if !NETWORK.contains_addr(&from) || [GATEWAY, HOST].contains(&from) {
            return;
        }
        self.meet(from, mac);
        if packet.more_frags() || packet.frag_offset() != 0 {
            if let Some(whole) = self.fragments.add(&frame, Instant::now()) {
                self.ipv4(mac, whole);
            }
            return;
        }
        if packet.hop_limit() <= 1 && to != GATEWAY {
            return self.send(packet::time_exceeded(mac, GATEWAY, &packet));
        }
        match protocol {
            IpProtocol::Tcp => self.tcp(mac, frame),
            IpProtocol::Udp => self.udp(mac, frame),
            IpProtocol::Icmp => self.icmp(mac, frame),
            _ => {
                self.send(packet::unreachable(mac, GATEWAY, Icmpv4DstUnreachable::ProtoUnreachable, &packet))
            }
        }
    }

    /// Of what is sent to all, only the search for an address is for the gateway.
    fn broadcast(&mut self, mac: EthernetAddress, packet: &Ipv4Packet<&[u8]>) {
        if packet.next_header() == IpProtocol::Udp
            && let Ok(datagram) = UdpPacket::new_checked(packet.payload())
            && datagram.dst_port() == dhcp::SERVER_PORT
        {
            self.dhcp(mac, datagram.payload());
        }
    }

    fn dhcp(&mut self, mac: EthernetAddress, message: &[u8]) {
        let (neighbours, now) = (&self.neighbours, Instant::now());
        let taken = |address, own| {
            neighbours.get(&address).is_some_and(|(mac, heard)| *mac != own && now - *heard < NEIGHBOUR_KEPT)
        };
        let search = self.resolver.settings().search.clone();
        let Some(answer) = self.leases.answer(message, &search, now, taken) else { return };
        let mac = if answer.to.is_broadcast() { EthernetAddress::BROADCAST } else { mac };
        self.datagram(
            mac,
            dhcp::SERVER_PORT,
            SocketAddrV4::new(answer.to, dhcp::CLIENT_PORT),
            &answer.message,
        );
    }

    /// Sends a datagram from a port of the gateway's.
    fn datagram(&mut self, mac: EthernetAddress, port: u16, to: SocketAddrV4, data: &[u8]) {
        self.ident = self.ident.wrapping_add(1);
        for frame in packet::udp(mac, SocketAddrV4::new(GATEWAY, port), to, self.ident, data) {
            self.send(frame);
        }
    }

    fn tcp(&mut self, mac: EthernetAddress, frame: Frame) {
        let Ok(packet) = Ipv4Packet::new_checked(&frame[ETHERNET..]) else { return };
        let Ok(segment) = TcpPacket::new_checked(packet.payload()) else { return };
        let guest = SocketAddrV4::new(packet.src_addr(), segment.src_port());
        let remote = SocketAddrV4::new(packet.dst_addr(), segment.dst_port());
        if guest.port() == 0 || remote.port() == 0 {
            return;
        }
        if let Some(flow) = self.tcp.get(&(guest, remote)).filter(|flow| !flow.is_closed()) {
            // One that finds no room is lost, and sent again.
            let _ = flow.try_send(frame);
            return;
        }
        let opens = segment.syn() && !segment.ack();
        let dns = remote == SocketAddrV4::new(GATEWAY, dns::PORT);
        if !opens || *remote.ip() == GATEWAY && !dns || !has_share(self.tcp.keys(), TCP_FLOWS, *guest.ip()) {
            // A connection of a machine that was saved ends here, too.
            packet::reset(mac, &packet).into_iter().for_each(|frame| self.send(frame));
            return;
        }
        let verdict = if dns { Verdict::Reach(remote) } else { self.policy.decide(remote, Instant::now()) };
        let Verdict::Reach(to) = verdict else {
            self.say(format_args!("tcp {guest} -> {remote} denied"));
            return self.send(packet::unreachable(
                mac,
                GATEWAY,
                Icmpv4DstUnreachable::CommProhibited,
                &packet,
            ));
        };
        self.say(format_args!("tcp {guest} -> {remote}"));
        let side = self.tcp_flow(mac, guest, remote);
        let events = self.event_sender.clone();
        self.tasks.spawn(async move {
            if dns {
                let (service, host) = tokio::io::duplex(DNS_BUFFER);
                tokio::spawn(answer_dns(service, events));
                tcp::run(side, host, Opening::Guest(frame)).await;
            } else {
                dial(side, to, frame).await;
            }
            Done::Tcp((guest, remote))
        });
    }

    /// Makes room for a connection.
    fn tcp_flow(
        &mut self,
        mac: EthernetAddress,
        guest: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> tcp::GuestSide {
        let (sender, received) = mpsc::channel(TCP_QUEUE);
        let buffer = if self.tcp.len() < WELL_BUFFERED { BUFFER } else { SMALL_BUFFER };
        self.tcp.insert((guest, remote), sender);
        let (sender, large_frames) = (self.port.sender.clone(), self.large_frames);
        tcp::GuestSide { mac, guest, remote, received, sender, large_frames, buffer }
    }

    fn udp(&mut self, mac: EthernetAddress, frame: Frame) {
        let Ok(packet) = Ipv4Packet::new_checked(&frame[ETHERNET..]) else { return };
        let Ok(datagram) = UdpPacket::new_checked(packet.payload()) else { return };
        if !datagram.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()) {
            return;
        }
        let guest = SocketAddrV4::new(packet.src_addr(), datagram.src_port());
        let remote = SocketAddrV4::new(packet.dst_addr(), datagram.dst_port());
        if *remote.ip() == GATEWAY {
            let data = datagram.payload();
            match remote.port() {
                dns::PORT => self.query(data.to_vec(), Asker::Udp { mac, guest }),
                dhcp::SERVER_PORT => self.dhcp(mac, data),
                NTP_PORT => {
                    if let Some(answer) = ntp(data, SystemTime::now()) {
                        self.datagram(mac, NTP_PORT, guest, &answer);
                    }
                }
                port if self.pass_out(guest, port, data) => {}
                _ => {
                    let reason = Icmpv4DstUnreachable::PortUnreachable;
                    self.send(packet::unreachable(mac, GATEWAY, reason, &packet));
                }
            }
            return;
        }
        if let Some(flow) = self.udp.get(&(guest, remote)).filter(|flow| !flow.is_closed()) {
            let _ = flow.try_send(frame);
            return;
        }
        let Verdict::Reach(to) = self.policy.decide(remote, Instant::now()) else {
            if !remote.ip().is_multicast() {
                self.say(format_args!("udp {guest} -> {remote} denied"));
                self.send(packet::unreachable(mac, GATEWAY, Icmpv4DstUnreachable::CommProhibited, &packet));
            }
            return;
        };
        if !has_share(self.udp.keys(), UDP_FLOWS, *guest.ip()) {
            return;
        }
        self.say(format_args!("udp {guest} -> {remote}"));
        let (queue, received) = mpsc::channel(UDP_QUEUE);
        // The queue is new, and has room.
        let _ = queue.try_send(frame);
        self.udp.insert((guest, remote), queue);
        let side = udp::GuestSide { mac, guest, remote, received, sender: self.port.sender.clone() };
        self.tasks.spawn(async move {
            udp::run(side, to).await;
            Done::Udp((guest, remote))
        });
    }

    fn icmp(&mut self, mac: EthernetAddress, frame: Frame) {
        let Ok(packet) = Ipv4Packet::new_checked(&frame[ETHERNET..]) else { return };
        let Ok(message) = Icmpv4Packet::new_checked(packet.payload()) else { return };
        if message.msg_type() != Icmpv4Message::EchoRequest || !message.verify_checksum() {
            return;
        }
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        if [GATEWAY, HOST].contains(&to) {
            let (ident, seq_no, data) = (message.echo_ident(), message.echo_seq_no(), message.data());
            let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
            return self.send(packet::icmp(mac, to, from, &reply));
        }
        match self.policy.decide(SocketAddrV4::new(to, 0), Instant::now()) {
            Verdict::Reach(_) if self.pings < PINGS => {
                self.pings += 1;
                let sender = self.port.sender.clone();
                self.tasks.spawn(async move {
                    udp::ping(mac, frame, to, sender).await;
                    Done::Ping
                });
            }
            Verdict::Reach(_) => {}
            Verdict::Deny => {
                self.send(packet::unreachable(mac, GATEWAY, Icmpv4DstUnreachable::CommProhibited, &packet));
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Client(client) => self.client(client),
            Event::Query(query, answer) => self.query(query, Asker::Tcp(answer)),
            Event::Datagram { socket, client, guest_port, data } => {
                self.pass_in(socket, client, guest_port, &data);
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Tcp(ends) => {
                if self.tcp.get(&ends).is_some_and(Sender::is_closed) {
                    self.tcp.remove(&ends);
                }
            }
            Done::Udp(ends) => {
                if self.udp.get(&ends).is_some_and(Sender::is_closed) {
                    self.udp.remove(&ends);
                }
            }
            Done::Ping => self.pings -= 1,
            Done::Lookup { query, answer, asker } => {
                self.lookups -= 1;
                let now = Instant::now();
                self.resolver.remember(&query, &answer, now);
                self.resolved(&query, answer, asker);
            }
            Done::Forward => {}
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
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
    fn client(&mut self, client: Client) {
        let guest = SocketAddrV4::new(self.guest(), client.guest_port);
        let Some(&(mac, _)) = self.neighbours.get(guest.ip()) else {
            if self.waiting.len() < WAITING_CLIENTS {
                self.waiting.push(client);
                self.look_for_guest();
            }
            return;
        };
        let Some(port) = self.free_client_port(guest).filter(|_| self.tcp.len() < TCP_FLOWS) else {
            return client.host.reset();
        };
        self.say(format_args!("tcp {} -> {guest}", client.name));
        let remote = SocketAddrV4::new(GATEWAY, port);
        let side = self.tcp_flow(mac, guest, remote);
        self.tasks.spawn(async move {
            tcp::run(side, client.host, Opening::Host).await;
            Done::Tcp((guest, remote))
        });
    }

    /// A port of the gateway's that no client of this port of the guest's has.
    fn free_client_port(&mut self, guest: SocketAddrV4) -> Option<u16> {
        let taken: HashSet<u16> = self.udp_clients.iter().map(|client| client.port).collect();
        for _ in CLIENT_PORTS {
            let port = self.next_client_port;
            self.next_client_port =
                if port == *CLIENT_PORTS.end() { *CLIENT_PORTS.start() } else { port + 1 };
            if !taken.contains(&port) && !self.tcp.contains_key(&(guest, SocketAddrV4::new(GATEWAY, port))) {
                return Some(port);
            }
        }
        None
    }

    fn pass_in(&mut self, socket: Arc<UdpSocket>, client: SocketAddr, guest_port: u16, data: &[u8]) {
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
                self.udp_clients.push(UdpClient { socket, client, guest_port, port, last: now });
                port
            }
        };
        self.datagram(mac, port, guest, data);
    }

    /// Gives a datagram of the guest's to the client at a port of the gateway's, if there is one.
    fn pass_out(&mut self, guest: SocketAddrV4, port: u16, data: &[u8]) -> bool {
        let known = self.udp_clients.iter_mut().find(|c| c.port == port && c.guest_port == guest.port());
        let Some(known) = known else { return false };
        known.last = Instant::now();
        // A socket whose buffer is full loses it.
        let _ = known.socket.try_send_to(data, known.client);
        true
    }

    /// Answers a question, or has it answered.
    fn query(&mut self, query: Vec<u8>, asker: Asker) {
        let question = match dns::question(&query) {
            None => return,
            Some(Err(outcome)) => return self.answer(&query, dns::reply(&query, outcome, &[]), asker),
            Some(Ok(question)) => question,
        };
        let own = own_name(&query, &question).or_else(|| {
            let denied = !self.policy.may_resolve(&question.name);
            denied.then(|| {
                self.say(format_args!("dns {} denied", question.name));
                dns::reply(&query, rcode::REFUSED, &[])
            })
        });
        if let Some(answer) = own {
            return self.answer(&query, answer, asker);
        }
        let known = self.resolver.known_from_file(&query, &question);
        if let Some(answer) = known.or_else(|| self.resolver.remembered(&query, Instant::now())) {
            return self.resolved(&query, answer, asker);
        }
        if self.lookups >= LOOKUPS {
            return;
        }
        self.lookups += 1;
        self.say(format_args!("dns {}", question.name));
        let servers = self.resolver.settings().servers.clone();
        self.tasks.spawn(async move {
            let answer = dns::ask(&servers, &query).await;
            Done::Lookup { query, answer, asker }
        });
    }

    /// A name has been looked up.
    fn resolved(&mut self, query: &[u8], answer: Vec<u8>, asker: Asker) {
        if let Some(Ok(question)) = dns::question(query) {
            let (addresses, lifetime) = dns::addresses(&answer);
            self.policy.resolved(&question.name, &addresses, lifetime, Instant::now());
        }
        self.answer(query, answer, asker);
    }

    fn answer(&mut self, query: &[u8], answer: Vec<u8>, asker: Asker) {
        match asker {
            Asker::Udp { mac, guest } => self.datagram(mac, dns::PORT, guest, &dns::fit_udp(query, answer)),
            // A guest that has hung up needs no answer.
            Asker::Tcp(sender) => drop(sender.send(answer)),
        }
    }
}

/// Whether a guest may have one flow more: it has fewer than are free.
fn has_share<'a>(flows: impl ExactSizeIterator<Item = &'a Ends>, most: usize, guest: Ipv4Addr) -> bool {
    let free = most.saturating_sub(flows.len());
    flows.filter(|(own, _)| *own.ip() == guest).count() < free
}

/// What wakes the gateway.
enum Happening {
    Frame(Option<Frame>),
    Event(Event),
    Done(Done),
    Tick,
}

/// The answer to a question for one of the gateway's own names or addresses.
fn own_name(query: &[u8], question: &dns::Question) -> Option<Vec<u8>> {
    let hosts = [("gateway", GATEWAY), ("host", HOST)];
    let reply = |outcome, records: &[_]| Some(dns::reply(query, outcome, records));
    if let Some(name) = question.name.strip_suffix(DOMAIN) {
        let host = name.strip_suffix('.').unwrap_or(name);
        return match hosts.iter().find(|(name, _)| *name == host) {
            Some((_, address)) if question.kind == kind::A => {
                reply(rcode::NO_ERROR, &[(kind::A, 60, address.octets().to_vec())])
            }
            Some(_) => reply(rcode::NO_ERROR, &[]),
            None if name.is_empty() => reply(rcode::NO_ERROR, &[]),
            None if name.ends_with('.') => reply(rcode::NO_SUCH_NAME, &[]),
            // Another domain whose name only ends alike.
            None => None,
        };
    }
    let [a, b, c, _] = NETWORK.address().octets();
    let last = question.name.strip_suffix(&format!(".{c}.{b}.{a}.in-addr.arpa"))?;
    match hosts.iter().find(|(_, address)| address.octets()[3].to_string() == last) {
        Some((name, _)) if question.kind == kind::PTR => {
            let name = dns::encode_name(&format!("{name}.{DOMAIN}"))?;
            reply(rcode::NO_ERROR, &[(kind::PTR, 60, name)])
        }
        Some(_) => reply(rcode::NO_ERROR, &[]),
        None => reply(rcode::NO_SUCH_NAME, &[]),
    }
}

/// Connects the host to a peer and answers the guest's SYN by what came of it.
async fn dial(mut side: tcp::GuestSide, to: SocketAddrV4, syn: Frame) {
    let dialled = timeout(DIAL, TcpStream::connect(to)).await;
    let dialled = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match dialled {
        Ok(stream) => {
            // Without it segments come later, but they come.
            let _ = stream.set_nodelay(true);
            match side.latest_syn(syn) {
                Some(syn) => tcp::run(side, stream, Opening::Guest(syn)).await,
                None => stream.reset(),
            }
        }
        Err(error) => {
            let refused = [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
            let packet = Ipv4Packet::new_checked(&syn[ETHERNET..]).ok();
            if !refused.contains(&error.kind()) {
                udp::refuse(&side.sender, side.mac, &syn, &error);
            } else if let Some(frame) = packet.and_then(|packet| packet::reset(side.mac, &packet)) {
                let _ = side.sender.send(frame).await;
            }
        }
    }
}

/// Answers questions that come by TCP, one after the other.
async fn answer_dns(mut guest: tokio::io::DuplexStream, events: Sender<Event>) {
    while let Ok(query) = dns::read_message(&mut guest).await {
        let (sender, answer) = oneshot::channel();
        if events.send(Event::Query(query, sender)).await.is_err() {
            return;
        }
        let Ok(answer) = answer.await else { return };
        if dns::write_message(&mut guest, &answer).await.is_err() {
            return;
        }
    }
}

/// Hands over the clients of a forward.
async fn serve_forward(socket: Socket, guest_port: u16, events: Sender<Event>) -> Done {
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
pub(super) async fn accepted<T>(result: io::Result<T>) -> io::Result<T> {
    if result.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    result
}

/// Answers a client of NTP (RFC 5905, 7.3) by the host's clock.
fn ntp(request: &[u8], now: SystemTime) -> Option<Vec<u8>> {
    /// Seconds from 1900 to 1970.
    const EPOCH: u64 = 2_208_988_800;
    const LENGTH: usize = 48;
    const CLIENT: u8 = 3;
    const SERVER: u8 = 4;
    const STRATUM: u8 = 2;
    /// 2^-20 seconds.
    const PRECISION: i8 = -20;
    let (flags, transmitted) = (*request.first()?, request.get(40..LENGTH)?);
    if flags & 7 != CLIENT {
        return None;
    }
    let since = now.duration_since(UNIX_EPOCH).ok()?;
    let seconds = (since.as_secs() + EPOCH) as u32;
    let fraction = ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000) as u32;
    let time = [seconds.to_be_bytes(), fraction.to_be_bytes()].concat();
    let mut answer = vec![0; LENGTH];
    answer[..4].copy_from_slice(&[flags & 0x38 | SERVER, STRATUM, request[2], PRECISION as u8]);
    answer[12..16].copy_from_slice(b"HOST");
    answer[16..24].copy_from_slice(&time);
    answer[24..32].copy_from_slice(transmitted);
    answer[32..40].copy_from_slice(&time);
    answer[40..].copy_from_slice(&time);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_leaves_room_for_others() {
        let ends = |guest, port| -> Ends {
            let guest = Ipv4Addr::new(192, 168, 127, guest);
            (SocketAddrV4::new(guest, port), SocketAddrV4::new(GATEWAY, 80))
        };
        let [greedy, modest] = [2, 3].map(|guest| *ends(guest, 1).0.ip());
        let mut flows = Vec::new();
        while has_share(flows.iter(), 100, greedy) {
            flows.push(ends(2, flows.len() as u16));
        }
        assert_eq!(flows.len(), 50);
        while has_share(flows.iter(), 100, modest) {
            flows.push(ends(3, flows.len() as u16));
        }
        assert_eq!(flows.len(), 75);
    }

    #[test]
    fn the_clock_is_the_hosts() {
        let mut request = vec![0; 48];
        request[0] = 0x23;
        request[40..].copy_from_slice(b"whenever");
        let now = UNIX_EPOCH + Duration::from_millis(1_500);
        let answer = ntp(&request, now).unwrap();
        assert_eq!((answer[0], answer[1]), (0x24, 2));
        assert_eq!(&answer[24..32], b"whenever");
        assert_eq!(answer[40..], [0x83, 0xaa, 0x7e, 0x81, 0x80, 0, 0, 0]);
        request[0] = 0x24;
        assert_eq!(ntp(&request, now), None);
        assert_eq!(ntp(&request[..20], now), None);
    }
}
