//! The gateway: looks at each frame of the guest's and gives it to whom it is for.

mod clients;
mod names;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Message,
    Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet,
};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::cable::{Frame, Port};
use super::dhcp::{self, Leases};
use super::dns::{self, Resolver};
use super::forward::Socket;
use super::fragments::Fragments;
use super::ndp::{self, ALL_NODES};
use super::netboot::Netboot;
use super::packet::{self, Packet, Unreachable};
use super::policy::{Policy, Verdict};
use super::tcp::{self, HostSide, Opening};
use super::{
    Config, GATEWAY, GATEWAY_MAC, GATEWAY_V6, HOST, HOST_V6, LINK_GATEWAY_V6, Log, NETWORK, NETWORK_V6,
    dhcp6, gateway, ntp, tftp, udp,
};

use clients::{Client, UdpClient, serve_forward};
use names::{Asker, answer_dns};

pub(crate) use clients::accepted;

/// TCP connections at once; the guest is told that more are refused. One guest may have as many as are free,
/// so half of them if it is alone.
const TCP_FLOWS: usize = 2048;
/// UDP flows at once, of which one guest may have as many as are free; datagrams of more are lost.
const UDP_FLOWS: usize = 512;
/// Pings under way at once.
const PINGS: usize = 32;
/// Frames of one TCP connection, and of one UDP flow, that wait for it.
const TCP_QUEUE: usize = 256;
const UDP_QUEUE: usize = 16;
/// Clients of forwards, and other things, that wait for the gateway.
const EVENTS: usize = 64;
/// Bytes that a TCP connection holds in each direction, and how many connections may have as much.
const BUFFER: usize = 256 << 10;
const WELL_BUFFERED: usize = 128;
/// Bytes that one of more connections holds.
const SMALL_BUFFER: usize = 32 << 10;
/// Bytes of a DNS connection that wait for the gateway.
const DNS_BUFFER: usize = 4096;
/// How long the host may take to reach a peer.
const DIAL: Duration = Duration::from_secs(75);
/// How long a guest that says nothing keeps an address that others want.
const NEIGHBOUR_KEPT: Duration = Duration::from_secs(600);
/// How often what is over is thrown away, and a guest that is waited for is asked for again.
const TICK: Duration = Duration::from_secs(1);
/// How often the network of IPv6 is advertised to those who do not ask.
const ADVERTISED: Duration = Duration::from_secs(300);

/// A flow of the guest's, by both its ends.
type Ends = (SocketAddr, SocketAddr);

/// A flow that is carried by a task of its own.
#[derive(Debug)]
struct Flow {
    /// The guest's card.
    mac: EthernetAddress,
    /// Takes the guest's frames.
    frames: Sender<Frame>,
}

/// What the gateway is told by others than the guest.
#[derive(Debug)]
enum Event {
    /// A client of a forward.
    Client(Client),
    /// A datagram of a forward's client.
    Datagram { socket: Arc<UdpSocket>, client: SocketAddr, guest_port: u16, data: Vec<u8> },
    /// A question that came by TCP.
    Query(Vec<u8>, oneshot::Sender<Vec<u8>>),
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
    ipv6: bool,
    log: Option<Log>,
    policy: Policy,
    resolver: Resolver,
    leases: Leases,
    netboot: Option<Netboot>,
    /// The guests' Ethernet addresses, and when a guest was last heard of.
    neighbours: HashMap<Ipv4Addr, (EthernetAddress, Instant)>,
    fragments: Fragments,
    tcp: HashMap<Ends, Flow>,
    udp: HashMap<Ends, Flow>,
    pings: usize,
    lookups: usize,
    waiting: Vec<Client>,
    udp_clients: Vec<UdpClient>,
    next_client_port: u16,
    ident: u16,
    /// When the network of IPv6 was last advertised to all.
    advertised: Instant,
}

impl Gateway {
    pub(super) fn new(port: Port, config: Config, forwards: Vec<(Socket, u16)>) -> Self {
        let (event_sender, events) = mpsc::channel(EVENTS);
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
            ipv6: config.ipv6,
            log: config.log,
            policy: Policy::new(config.rules),
            resolver: Resolver::new(config.names),
            leases: Leases::default(),
            netboot: config.netboot,
            neighbours: HashMap::new(),
            fragments: Fragments::default(),
            tcp: HashMap::new(),
            udp: HashMap::new(),
            pings: 0,
            lookups: 0,
            waiting: Vec::new(),
            udp_clients: Vec::new(),
            next_client_port: clients::FIRST_PORT,
            ident: 0,
            advertised: Instant::now(),
        }
    }

    /// Works until the guest's end of the cable is gone.
    pub(super) async fn run(mut self) {
        // A guest that was saved knows the gateway, and learns that it is there again.
        self.send(packet::arp(ArpOperation::Request, GATEWAY, (EthernetAddress::BROADCAST, GATEWAY)));
        if self.ipv6 {
            self.advertise(ndp::ALL_NODES_MAC, ALL_NODES);
        }
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
        let for_us = to == GATEWAY_MAC || to.is_broadcast() || self.ipv6 && ndp::is_multicast(to);
        if !from.is_unicast() || from == GATEWAY_MAC || !for_us {
            return;
        }
        match header.ethertype() {
            EthernetProtocol::Arp => self.arp(header.payload()),
            EthernetProtocol::Ipv4 => self.ipv4(from, frame),
            EthernetProtocol::Ipv6 if self.ipv6 => self.ipv6(from, frame),
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
        let Ok(packet) = Ipv4Packet::new_checked(&frame[packet::ETHERNET..]) else { return };
        if packet.version() != 4 || !packet.verify_checksum() {
            return;
        }
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        let broadcast = to.is_broadcast() || Some(to) == NETWORK.broadcast();
        if broadcast || from.is_unspecified() {
            return self.broadcast(mac, &Packet::v4(&packet));
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
        self.packet(mac, frame);
    }

    fn ipv6(&mut self, mac: EthernetAddress, frame: Frame) {
        let Some(packet) = Packet::of(&frame) else { return };
        let (IpAddr::V6(from), IpAddr::V6(to)) = (packet.from, packet.to) else { return };
        // What neighbours say to each other is for all of them, and an address of the link is enough for it.
        if to.is_multicast() || from.is_unspecified() || from.is_unicast_link_local() || to == LINK_GATEWAY_V6
        {
            return self.neighbour(mac, from, &packet);
        }
        if !NETWORK_V6.contains_addr(&from) || [GATEWAY_V6, HOST_V6].contains(&from) {
            return;
        }
        if packet.protocol == IpProtocol::Ipv6Frag {
            if let Some(whole) = self.fragments.add(&frame, Instant::now()) {
                self.ipv6(mac, whole);
            }
            return;
        }
        self.packet(mac, frame);
    }

    /// A whole packet from an address of a guest's.
    fn packet(&mut self, mac: EthernetAddress, frame: Frame) {
        let Some(packet) = Packet::of(&frame) else { return };
        if packet.hop_limit <= 1 && packet.to != gateway(packet.from) {
            return self.send(packet::time_exceeded(mac, &packet));
        }
        match packet.protocol {
            IpProtocol::Tcp => self.tcp(mac, frame),
            IpProtocol::Udp => self.udp(mac, frame),
            IpProtocol::Icmp if packet.to.is_ipv4() => self.icmp(mac, frame),
            IpProtocol::Icmpv6 if packet.to.is_ipv6() => self.icmp(mac, frame),
            _ => self.send(packet::unreachable(mac, Unreachable::Protocol, &packet)),
        }
    }

    /// Of what is sent to all, only the search for an address is for the gateway.
    fn broadcast(&mut self, mac: EthernetAddress, packet: &Packet<'_>) {
        if packet.protocol == IpProtocol::Udp
            && let Some(datagram) = packet.udp()
            && datagram.dst_port() == dhcp::SERVER_PORT
        {
            self.dhcp(mac, datagram.payload());
        }
    }

    /// What a neighbour on the link asks in IPv6: for the router, for an address of ours, for settings.
    fn neighbour(&mut self, mac: EthernetAddress, from: Ipv6Addr, packet: &Packet<'_>) {
        match packet.protocol {
            IpProtocol::Icmpv6 => self.neighbour_message(mac, from, packet),
            IpProtocol::Udp if [IpAddr::V6(dhcp6::SERVERS), LINK_GATEWAY_V6.into()].contains(&packet.to) => {
                let Some(datagram) = packet.udp() else { return };
                let search = &self.resolver.settings().search;
                let answer = (datagram.dst_port() == dhcp6::SERVER_PORT)
                    .then(|| dhcp6::answer(datagram.payload(), search))
                    .flatten();
                if let Some(answer) = answer {
                    let server = SocketAddr::new(LINK_GATEWAY_V6.into(), dhcp6::SERVER_PORT);
                    self.datagram(mac, server, SocketAddr::new(from.into(), dhcp6::CLIENT_PORT), &answer);
                }
            }
            _ => {}
        }
    }

    fn neighbour_message(&mut self, mac: EthernetAddress, from: Ipv6Addr, packet: &Packet<'_>) {
        let IpAddr::V6(to) = packet.to else { return };
        let Ok(message) = Icmpv6Packet::new_checked(packet.payload) else { return };
        if !message.verify_checksum(&from, &to) {
            return;
        }
        match message.msg_type() {
            Icmpv6Message::RouterSolicit if packet.hop_limit == packet::ON_LINK => {
                let to = if from.is_unspecified() { ALL_NODES } else { from };
                self.advertise(mac, to);
            }
            Icmpv6Message::NeighborSolicit if packet.hop_limit == packet::ON_LINK => {
                let ours = [GATEWAY_V6, HOST_V6, LINK_GATEWAY_V6];
                let Some(wanted) = ndp::solicited(packet.payload).filter(|to| ours.contains(to)) else {
                    return;
                };
                // One who looks whether the address is free has none that could be answered.
                let (to, mac) = match from.is_unspecified() {
                    true => (ALL_NODES, ndp::ALL_NODES_MAC),
                    false => (from, mac),
                };
                let message = ndp::neighbour(wanted, !from.is_unspecified());
                self.send(packet::neighbour_v6(mac, wanted, to, &message));
            }
            Icmpv6Message::EchoRequest if to == LINK_GATEWAY_V6 => {
                let Some((ident, number, data)) = udp::echo_parts(packet.payload) else { return };
                self.send(packet::echo_reply(mac, packet, ident, number, data));
            }
            _ => {}
        }
    }

    /// Says what the network of IPv6 is.
    fn advertise(&mut self, mac: EthernetAddress, to: Ipv6Addr) {
        let message = ndp::router(&self.resolver.settings().search);
        self.send(packet::neighbour_v6(mac, LINK_GATEWAY_V6, to, &message));
    }

    fn dhcp(&mut self, mac: EthernetAddress, message: &[u8]) {
        let (neighbours, now) = (&self.neighbours, Instant::now());
        let taken = |address, own| {
            neighbours.get(&address).is_some_and(|(mac, heard)| *mac != own && now - *heard < NEIGHBOUR_KEPT)
        };
        let search = self.resolver.settings().search.clone();
        let Some(answer) = self.leases.answer(message, &search, self.netboot.as_ref(), now, taken) else {
            return;
        };
        let mac = if answer.to.is_broadcast() { EthernetAddress::BROADCAST } else { mac };
        let from = SocketAddr::new(GATEWAY.into(), dhcp::SERVER_PORT);
        self.datagram(mac, from, SocketAddr::new(answer.to.into(), dhcp::CLIENT_PORT), &answer.message);
    }

    /// Sends a datagram from a port of the gateway's.
    fn datagram(
        &mut self,
        mac: EthernetAddress,
        from: impl Into<SocketAddr>,
        to: impl Into<SocketAddr>,
        data: &[u8],
    ) {
        self.ident = self.ident.wrapping_add(1);
        for frame in packet::udp(mac, from, to, self.ident, data) {
            self.send(frame);
        }
    }

    fn tcp(&mut self, mac: EthernetAddress, frame: Frame) {
        let Some(packet) = Packet::of(&frame) else { return };
        let Some(segment) = packet.tcp() else { return };
        let guest = SocketAddr::new(packet.from, segment.src_port());
        let remote = SocketAddr::new(packet.to, segment.dst_port());
        if guest.port() == 0 || remote.port() == 0 {
            return;
        }
        let ends = (guest, remote);
        if let Some(flow) = self.tcp.get(&ends).filter(|flow| !flow.frames.is_closed()) {
            // Another guest has the same address: a copy of a machine, which has lost its connections.
            if flow.mac != mac {
                packet::reset(mac, &packet).into_iter().for_each(|frame| self.send(frame));
                return;
            }
            // One that finds no room is lost, and sent again.
            let _ = flow.frames.try_send(frame);
            return;
        }
        let opens = segment.syn() && !segment.ack();
        let for_gateway = remote.ip() == gateway(guest.ip());
        let dns = for_gateway && remote.port() == dns::PORT;
        if !opens || for_gateway && !dns || !has_share(self.tcp.values(), TCP_FLOWS, mac) {
            // A connection of a machine that was saved ends here, too.
            packet::reset(mac, &packet).into_iter().for_each(|frame| self.send(frame));
            return;
        }
        let to = match self.policy.decide(remote, Instant::now()) {
            _ if dns => Vec::new(),
            Verdict::Reach(to) => vec![to],
            // Which of its loopbacks a server of the host's is at, the guest cannot know.
            Verdict::Host(port) => {
                let loopbacks = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
                let mut to: Vec<_> = loopbacks.map(|ip| SocketAddr::new(ip, port)).into();
                to.sort_by_key(|to| to.is_ipv4() != remote.is_ipv4());
                to
            }
            Verdict::Deny => {
                self.say(format_args!("tcp {guest} -> {remote} denied"));
                return self.send(packet::unreachable(mac, Unreachable::Prohibited, &packet));
            }
        };
        self.say(format_args!("tcp {guest} -> {remote}"));
        let side = self.tcp_flow(mac, ends);
        let events = self.event_sender.clone();
        self.tasks.spawn(async move {
            if dns {
                let (service, host) = tokio::io::duplex(DNS_BUFFER);
                tokio::spawn(answer_dns(service, events));
                tcp::run(side, host, Opening::Guest(frame)).await;
            } else {
                dial(side, &to, frame).await;
            }
            Done::Tcp(ends)
        });
    }

    /// Makes room for a connection.
    fn tcp_flow(&mut self, mac: EthernetAddress, ends: Ends) -> tcp::GuestSide {
        let (frames, received) = mpsc::channel(TCP_QUEUE);
        let buffer = if self.tcp.len() < WELL_BUFFERED { BUFFER } else { SMALL_BUFFER };
        self.tcp.insert(ends, Flow { mac, frames });
        let (sender, large_frames) = (self.port.sender.clone(), self.large_frames);
        tcp::GuestSide { mac, guest: ends.0, remote: ends.1, received, sender, large_frames, buffer }
    }

    fn udp(&mut self, mac: EthernetAddress, frame: Frame) {
        let Some(packet) = Packet::of(&frame) else { return };
        let Some(datagram) = packet.udp() else { return };
        if !datagram.verify_checksum(&packet.from.into(), &packet.to.into()) {
            return;
        }
        let guest = SocketAddr::new(packet.from, datagram.src_port());
        let remote = SocketAddr::new(packet.to, datagram.dst_port());
        let ends = (guest, remote);
        if let Some(flow) = self.udp.get(&ends).filter(|flow| !flow.frames.is_closed()) {
            let _ = flow.frames.try_send(frame);
            return;
        }
        if remote.ip() == gateway(guest.ip()) {
            return self.service(mac, ends, &packet, datagram.payload());
        }
        let to = match self.policy.decide(remote, Instant::now()) {
            Verdict::Reach(to) => to,
            Verdict::Host(port) => {
                let loopback =
                    if remote.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
                SocketAddr::new(loopback, port)
            }
            Verdict::Deny => {
                if !remote.ip().is_multicast() {
                    self.say(format_args!("udp {guest} -> {remote} denied"));
                    self.send(packet::unreachable(mac, Unreachable::Prohibited, &packet));
                }
                return;
            }
        };
        let Some(side) = self.udp_flow(mac, ends) else { return };
        self.say(format_args!("udp {guest} -> {remote}"));
        if let Some(flow) = self.udp.get(&ends) {
            // The queue is new, and has room.
            let _ = flow.frames.try_send(frame);
        }
        self.tasks.spawn(async move {
            udp::run(side, to).await;
            Done::Udp(ends)
        });
    }

    /// Makes room for a flow of datagrams, if the guest may have one more.
    fn udp_flow(&mut self, mac: EthernetAddress, ends: Ends) -> Option<udp::GuestSide> {
        if !has_share(self.udp.values(), UDP_FLOWS, mac) {
            return None;
        }
        let (frames, received) = mpsc::channel(UDP_QUEUE);
        self.udp.insert(ends, Flow { mac, frames });
        let sender = self.port.sender.clone();
        Some(udp::GuestSide { mac, guest: ends.0, remote: ends.1, received, sender })
    }

    /// A datagram for the gateway itself.
    fn service(&mut self, mac: EthernetAddress, (guest, own): Ends, packet: &Packet<'_>, data: &[u8]) {
        match own.port() {
            dns::PORT => self.query(data.to_vec(), Asker::Udp { mac, gateway: own.ip(), guest }),
            dhcp::SERVER_PORT if own.is_ipv4() => self.dhcp(mac, data),
            ntp::PORT => {
                if let Some(answer) = ntp::answer(data, SystemTime::now()) {
                    self.datagram(mac, own, guest, &answer);
                }
            }
            tftp::PORT if own.is_ipv4() && self.netboot.is_some() => self.file(mac, guest, data),
            port if self.pass_out(guest, port, data) => {}
            _ => self.send(packet::unreachable(mac, Unreachable::Port, packet)),
        }
    }

    /// A guest asks for a file that it starts from: that is a flow with a port of its own.
    fn file(&mut self, mac: EthernetAddress, guest: SocketAddr, request: &[u8]) {
        let (Some(netboot), SocketAddr::V4(v4)) = (&self.netboot, guest) else { return };
        let root = netboot.directory.clone();
        let Some(port) = self.free_client_port(v4) else { return };
        let ends = (guest, SocketAddr::new(GATEWAY.into(), port));
        let Some(side) = self.udp_flow(mac, ends) else { return };
        let (request, log) = (request.to_vec(), self.log.clone());
        self.tasks.spawn(async move {
            let name = tftp::name(&request);
            let outcome = tftp::run(side, request, root).await;
            if let Some(log) = log {
                match outcome {
                    Ok(size) => log(format_args!("tftp {guest} has got {name}, {size} bytes")),
                    Err(reason) => log(format_args!("tftp {guest} has not got {name}: {reason}")),
                }
            }
            Done::Udp(ends)
        });
    }

    fn icmp(&mut self, mac: EthernetAddress, frame: Frame) {
        let Some(packet) = Packet::of(&frame) else { return };
        let asks = match (packet.from, packet.to) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                Icmpv6Packet::new_checked(packet.payload).is_ok_and(|message| {
                    message.msg_type() == Icmpv6Message::NeighborSolicit
                        || message.msg_type() == Icmpv6Message::EchoRequest
                            && message.verify_checksum(&from, &to)
                })
            }
            _ => Icmpv4Packet::new_checked(packet.payload).is_ok_and(|message| {
                message.msg_type() == Icmpv4Message::EchoRequest && message.verify_checksum()
            }),
        };
        if !asks {
            return;
        }
        if let IpAddr::V6(from) = packet.from
            && packet.payload.first() == Some(&u8::from(Icmpv6Message::NeighborSolicit))
        {
            // One who knows us makes sure that we are still there.
            return self.neighbour_message(mac, from, &packet);
        }
        if [GATEWAY.into(), HOST.into(), IpAddr::V6(GATEWAY_V6), HOST_V6.into()].contains(&packet.to) {
            let Some((ident, number, data)) = udp::echo_parts(packet.payload) else { return };
            return self.send(packet::echo_reply(mac, &packet, ident, number, data));
        }
        let to = packet.to;
        match self.policy.decide(SocketAddr::new(to, 0), Instant::now()) {
            Verdict::Reach(_) if self.pings < PINGS => {
                self.pings += 1;
                let sender = self.port.sender.clone();
                self.tasks.spawn(async move {
                    udp::ping(mac, frame, to, sender).await;
                    Done::Ping
                });
            }
            Verdict::Reach(_) | Verdict::Host(_) => {}
            Verdict::Deny => self.send(packet::unreachable(mac, Unreachable::Prohibited, &packet)),
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
                if self.tcp.get(&ends).is_some_and(|flow| flow.frames.is_closed()) {
                    self.tcp.remove(&ends);
                }
            }
            Done::Udp(ends) => {
                if self.udp.get(&ends).is_some_and(|flow| flow.frames.is_closed()) {
                    self.udp.remove(&ends);
                }
            }
            Done::Ping => self.pings -= 1,
            Done::Lookup { query, answer, asker } => self.looked_up(&query, answer, asker),
            Done::Forward => {}
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.tidy_clients(now);
        if self.ipv6 && now.saturating_duration_since(self.advertised) >= ADVERTISED {
            self.advertised = now;
            self.advertise(ndp::ALL_NODES_MAC, ALL_NODES);
        }
    }
}

/// Whether the guest with this card may have one flow more: it has fewer than are free. The card counts, because
/// a guest has as many addresses of IPv6 as it likes.
fn has_share<'a>(
    flows: impl ExactSizeIterator<Item = &'a Flow>,
    most: usize,
    guest: EthernetAddress,
) -> bool {
    let free = most.saturating_sub(flows.len());
    flows.filter(|flow| flow.mac == guest).count() < free
}

/// What wakes the gateway.
enum Happening {
    Frame(Option<Frame>),
    Event(Event),
    Done(Done),
    Tick,
}

/// Connects the host to the first of these addresses that takes it, and answers the guest's SYN by what came of it.
async fn dial(mut side: tcp::GuestSide, to: &[SocketAddr], syn: Frame) {
    match timeout(DIAL, TcpStream::connect(to)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    {
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
            if !refused.contains(&error.kind()) {
                udp::refuse(&side.sender, side.mac, &syn, &error);
            } else if let Some(frame) = Packet::of(&syn).and_then(|packet| packet::reset(side.mac, &packet)) {
                let _ = side.sender.send(frame).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_leaves_room_for_others() {
        let flow = |guest| Flow { mac: EthernetAddress([2, 0, 0, 0, 0, guest]), frames: mpsc::channel(1).0 };
        let [greedy, modest] = [2, 3].map(|guest| flow(guest).mac);
        let mut flows = Vec::new();
        while has_share(flows.iter(), 100, greedy) {
            flows.push(flow(2));
        }
        assert_eq!(flows.len(), 50);
        while has_share(flows.iter(), 100, modest) {
            flows.push(flow(3));
        }
        assert_eq!(flows.len(), 75);
    }
}
