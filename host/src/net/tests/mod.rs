//! The network from the guest's end: a TCP/IP stack of its own at the other end of the cable, and
//! servers on the host's loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{dhcpv4, icmp, tcp, udp};
use smoltcp::wire::{EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr};
use socket2::{Domain, SockAddr, Socket, Type};

use super::*;

mod boot;
mod hostile;
mod names;
mod v6;

/// Nothing here takes this long, on any machine.
const FOR_EVER: Duration = Duration::from_secs(120);
const MAC: EthernetAddress = EthernetAddress([0, 0x22, 0x15, 1, 2, 3]);
const BUFFER: usize = 128 << 10;

/// The guest's card.
struct Card(Port);

struct Token<'a>(&'a Port);

impl phy::Device for Card {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Token<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Token<'_>)> {
        let frame = self.0.receiver.try_recv().ok()?;
        Some((Rx(frame), Token(&self.0)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Token<'_>> {
        (self.0.sender.capacity() > 0).then_some(Token(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Rx(Frame);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Token<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        let _ = self.0.sender.try_send(frame);
        result
    }
}

pub(super) struct Guest {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    next_port: u16,
    started: Instant,
    _network: Network,
}

impl Guest {
    /// A guest that has got its address by DHCP.
    fn new(config: Config) -> Self {
        let mut guest = Self::without_address(config);
        assert_eq!(guest.dhcp(), FIRST_GUEST);
        guest.set_address(FIRST_GUEST);
        guest
    }

    fn without_address(config: Config) -> Self {
        let (network, port) = Network::start(config).unwrap();
        Self::on(network, port, MAC)
    }

    /// A guest at the end of a cable.
    pub(super) fn on(network: Network, port: Port, mac: EthernetAddress) -> Self {
        let mut card = Card(port);
        let mut config = smoltcp::iface::Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = 42 + u64::from(mac.0[5]);
        let interface = Interface::new(config, &mut card, smoltcp::time::Instant::ZERO);
        let sockets = SocketSet::new(Vec::new());
        Self { card, interface, sockets, next_port: 30_000, started: Instant::now(), _network: network }
    }

    /// Asks for an address.
    pub(super) fn dhcp(&mut self) -> Ipv4Addr {
        let dhcp = self.sockets.add(dhcpv4::Socket::new());
        let (address, router) =
            self.until(|guest| match guest.sockets.get_mut::<dhcpv4::Socket>(dhcp).poll() {
                Some(dhcpv4::Event::Configured(config)) => Some((config.address, config.router)),
                _ => None,
            });
        self.sockets.remove(dhcp);
        assert_eq!((address.prefix_len(), router), (24, Some(GATEWAY)));
        address.address()
    }

    pub(super) fn set_address(&mut self, address: Ipv4Addr) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), 24)).unwrap();
        });
        self.interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
    }

    /// Pings an address, and waits for the answer.
    pub(super) fn pings(&mut self, to: Ipv4Addr) -> bool {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(7)).unwrap();
        let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 3, data: b"ping" };
        let room = socket.send(request.buffer_len(), to.into()).unwrap();
        request.emit(&mut Icmpv4Packet::new_unchecked(room), &Default::default());
        let handle = self.sockets.add(socket);
        let (data, from) = self.until(|guest| {
            let socket = guest.sockets.get_mut::<icmp::Socket>(handle);
            socket.recv().ok().map(|(data, from)| (data.to_vec(), from))
        });
        self.sockets.remove(handle);
        let packet = Icmpv4Packet::new_checked(&data[..]).unwrap();
        let reply = Icmpv4Repr::parse(&packet, &Default::default()).unwrap();
        reply == Icmpv4Repr::EchoReply { ident: 7, seq_no: 3, data: b"ping" } && from == to.into()
    }

    pub(super) fn poll(&mut self) {
        let now = smoltcp::time::Instant::from_micros(self.started.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.card, &mut self.sockets);
    }

    /// Works until something is so.
    pub(super) fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            self.poll();
            if let Some(result) = done(self) {
                self.poll();
                return result;
            }
            assert!(since.elapsed() < FOR_EVER, "it never came");
            if self.card.0.receiver.is_empty() {
                thread::sleep(Duration::from_micros(100));
            }
        }
    }

    pub(super) fn connect(&mut self, to: impl Into<SocketAddr>) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        self.next_port += 1;
        socket.connect(self.interface.context(), to.into(), self.next_port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn listen(&mut self, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends all bytes and closes this half; gives what came until the other half was closed, or
    /// none if the connection was reset.
    pub(super) fn exchange(&mut self, handle: SocketHandle, mut bytes: &[u8]) -> Option<Vec<u8>> {
        let mut received = Vec::new();
        self.until(|guest| {
            let socket = guest.tcp(handle);
            if !bytes.is_empty() && socket.can_send() {
                let sent = socket.send_slice(bytes).unwrap();
                bytes = &bytes[sent..];
            }
            if bytes.is_empty() && socket.may_send() {
                socket.close();
            }
            while socket.can_recv() {
                socket.recv(|data| (data.len(), received.extend_from_slice(data))).unwrap();
            }
            match socket.recv(|_| (0, ())) {
                Err(tcp::RecvError::Finished) => Some(Some(())),
                Err(tcp::RecvError::InvalidState) if socket.state() == tcp::State::Closed => Some(None),
                _ => None,
            }
        })
        .map(|()| received)
    }

    fn bind_udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 1 << 16]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    fn send_udp(&mut self, handle: SocketHandle, data: &[u8], to: impl Into<SocketAddr>) {
        self.sockets.get_mut::<udp::Socket>(handle).send_slice(data, to.into()).unwrap();
    }

    fn receive_udp(&mut self, handle: SocketHandle) -> (Vec<u8>, smoltcp::wire::IpEndpoint) {
        self.until(|guest| {
            let socket = guest.sockets.get_mut::<udp::Socket>(handle);
            socket.recv().ok().map(|(data, meta)| (data.to_vec(), meta.endpoint))
        })
    }

    /// Waits for an ICMP error about a port of ours.
    fn unreachable(&mut self, bound: icmp::Endpoint, act: impl FnOnce(&mut Self)) -> Icmpv4DstUnreachable {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(bound).unwrap();
        let handle = self.sockets.add(socket);
        act(self);
        self.until(|guest| {
            let socket = guest.sockets.get_mut::<icmp::Socket>(handle);
            let (data, _) = socket.recv().ok()?;
            let packet = Icmpv4Packet::new_checked(data).unwrap();
            match Icmpv4Repr::parse(&packet, &Default::default()).unwrap() {
                Icmpv4Repr::DstUnreachable { reason, .. } => Some(reason),
                _ => None,
            }
        })
    }
}

use smoltcp::wire::Icmpv4DstUnreachable;

/// The host's loopback is open to the guest, as a rule can have it.
pub(super) fn open() -> Config {
    let allow = vec!["127.0.0.0/8".parse().unwrap()];
    let names = NameSource::Fixed(NameSettings::default());
    Config { rules: Rules { allow, ..Rules::default() }, names, ..Config::default() }
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("{address} is no address of IPv4"),
    }
}

/// A server on a free port of the loopback, a thread for each connection.
fn serve(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = v4(listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            let stream = stream.unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Gives back the hash of all that it is sent.
pub(super) fn hash_server() -> SocketAddrV4 {
    serve(|mut stream| {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        while let n @ 1.. = stream.read(&mut buffer).unwrap() {
            hash.update(&buffer[..n]);
        }
        stream.write_all(&hash.finalize()).unwrap();
    })
}

/// Gives as many bytes as the number in the first line says.
fn source_server() -> SocketAddrV4 {
    serve(|mut stream| {
        let mut line = String::new();
        stream.read_to_string(&mut line).unwrap();
        stream.write_all(&pattern(line.trim().parse().unwrap())).unwrap();
    })
}

fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Sends and fetches bytes over one cable.
fn transfer(config: Config, length: usize) {
    let bytes = pattern(length);
    let mut guest = Guest::new(config);
    let up = guest.connect(hash_server());
    assert_eq!(guest.exchange(up, &bytes).unwrap(), Sha256::digest(&bytes)[..]);
    let down = guest.connect(source_server());
    assert!(guest.exchange(down, length.to_string().as_bytes()).unwrap() == bytes);
}

#[test]
fn bytes_go_both_ways() {
    transfer(open(), 20 << 20);
}

#[test]
fn a_card_that_takes_large_frames_gets_them() {
    let mut guest = Guest::new(Config { large_frames: true, ..open() });
    let down = guest.connect(source_server());
    let mut largest = 0;
    guest.until(|guest| {
        let socket = guest.tcp(down);
        if socket.can_send() {
            socket.send_slice(b"1000000").unwrap();
            socket.close();
            return Some(());
        }
        None
    });
    let mut received = 0;
    while received < 1_000_000 {
        guest.poll();
        let socket = guest.tcp(down);
        if socket.can_recv() {
            let length = socket.recv(|data| (data.len(), data.len())).unwrap();
            largest = largest.max(length);
            received += length;
        }
    }
    assert!(largest > 16_000, "{largest}");
}

#[test]
fn bytes_arrive_over_a_cable_that_loses_and_reorders() {
    let late_by = Duration::from_millis(2);
    let faults = Faults { lost: 5, late: 20, late_by, seed: 1, ..Faults::default() };
    transfer(Config { faults: Some(faults), ..open() }, 2 << 20);
}

#[test]
fn many_connections_at_once() {
    const CONNECTIONS: usize = 500;
    static OPEN: AtomicUsize = AtomicUsize::new(0);
    // The server answers when all are there.
    let server = serve(|mut stream| {
        OPEN.fetch_add(1, Ordering::SeqCst);
        let mut request = String::new();
        stream.read_to_string(&mut request).unwrap();
        while OPEN.load(Ordering::SeqCst) < CONNECTIONS {
            thread::sleep(Duration::from_millis(10));
        }
        stream.write_all(request.as_bytes()).unwrap();
    });
    let mut guest = Guest::new(open());
    let sockets: Vec<_> = (0..CONNECTIONS).map(|_| guest.connect(server)).collect();
    for (n, socket) in sockets.iter().enumerate() {
        guest.until(|guest| guest.tcp(*socket).may_send().then_some(()));
        guest.tcp(*socket).send_slice(format!("request {n}").as_bytes()).unwrap();
        guest.tcp(*socket).close();
    }
    for (n, socket) in sockets.iter().enumerate() {
        assert_eq!(guest.exchange(*socket, b"").unwrap(), format!("request {n}").as_bytes());
    }
}

#[test]
fn a_half_closed_connection_goes_on() {
    let server = serve(|mut stream| {
        stream.write_all(b"first").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"after the end");
        // There is no other way left to tell.
        DONE.store(1, Ordering::SeqCst);
    });
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let mut guest = Guest::new(open());
    let socket = guest.connect(server);
    guest.until(|guest| (guest.tcp(socket).state() == tcp::State::CloseWait).then_some(()));
    let mut first = [0; 5];
    assert_eq!(guest.tcp(socket).recv_slice(&mut first), Ok(5));
    assert_eq!(&first, b"first");
    guest.tcp(socket).send_slice(b"after the end").unwrap();
    guest.tcp(socket).close();
    guest.until(|_| (DONE.load(Ordering::SeqCst) == 1).then_some(()));
    guest.until(|guest| (guest.tcp(socket).state() == tcp::State::Closed).then_some(()));
}

#[test]
fn refusals_and_resets_are_what_they_are() {
    let mut guest = Guest::new(open());
    // A port that was free a moment ago.
    let free = v4(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let socket = guest.connect(free);
    guest.until(|guest| (guest.tcp(socket).state() == tcp::State::Closed).then_some(()));
    let socket = guest.connect(SocketAddrV4::new(GATEWAY, 9));
    guest.until(|guest| (guest.tcp(socket).state() == tcp::State::Closed).then_some(()));

    let resetting = serve(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let socket = guest.connect(resetting);
    guest.until(|guest| guest.tcp(socket).may_send().then_some(()));
    guest.tcp(socket).send_slice(b"x").unwrap();
    guest.until(|guest| (guest.tcp(socket).state() == tcp::State::Closed).then_some(()));
    assert_eq!(guest.tcp(socket).recv(|_| (0, ())), Err(tcp::RecvError::InvalidState));

    // A reset of the guest's is one for the server.
    static RESET: AtomicUsize = AtomicUsize::new(0);
    let listening = serve(|mut stream| {
        let error = stream.read_exact(&mut [0; 2]).unwrap_err();
        RESET.store(1 + usize::from(error.kind() == io::ErrorKind::ConnectionReset), Ordering::SeqCst);
    });
    let socket = guest.connect(listening);
    guest.until(|guest| guest.tcp(socket).may_send().then_some(()));
    guest.tcp(socket).send_slice(b"x").unwrap();
    guest.poll();
    guest.tcp(socket).abort();
    let seen = guest.until(|_| Some(RESET.load(Ordering::SeqCst)).filter(|seen| *seen > 0));
    assert_eq!(seen, 2);
}

#[test]
fn what_is_denied_is_prohibited() {
    let names = NameSource::Fixed(NameSettings::default());
    let mut guest = Guest::new(Config { names, ..Config::default() });
    let server = hash_server();
    for to in
        [server, SocketAddrV4::new(Ipv4Addr::new(169, 254, 1, 1), 80), SocketAddrV4::new(HOST, server.port())]
    {
        let udp = guest.bind_udp(0x4000);
        let endpoint = icmp::Endpoint::Udp(0x4000.into());
        let reason = guest.unreachable(endpoint, |guest| guest.send_udp(udp, b"x", to));
        assert_eq!(reason, Icmpv4DstUnreachable::CommProhibited, "{to}");
        guest.sockets.remove(udp);
    }
}

#[test]
fn an_open_port_of_the_host_has_a_name() {
    let server = hash_server();
    let names = NameSource::Fixed(NameSettings::default());
    let rules = Rules { restrict: true, host_ports: vec![server.port()], ..Rules::default() };
    let mut guest = Guest::new(Config { rules, names, ..Config::default() });
    let udp = guest.bind_udp(5000);
    guest.send_udp(udp, &query("host.env86.internal", 1), SocketAddrV4::new(GATEWAY, 53));
    let (answer, from) = guest.receive_udp(udp);
    assert_eq!((from.addr, from.port), (IpAddress::Ipv4(GATEWAY), 53));
    assert_eq!(dns::addresses(&answer).0, [HOST]);
    guest.send_udp(udp, &query("254.127.168.192.in-addr.arpa", 12), SocketAddrV4::new(GATEWAY, 53));
    let (answer, _) = guest.receive_udp(udp);
    assert!(answer.windows(21).any(|part| part == b"\x04host\x05env86\x08internal\0"));
    let socket = guest.connect(SocketAddrV4::new(HOST, server.port()));
    assert_eq!(guest.exchange(socket, b"").unwrap(), Sha256::digest(b"")[..]);
    guest.send_udp(udp, &query("elsewhere.example", 1), SocketAddrV4::new(GATEWAY, 53));
    assert_eq!(guest.receive_udp(udp).0[3] & 15, dns::rcode::REFUSED);
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(dns::encode_name(name).unwrap());
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

#[test]
fn datagrams_of_every_size_go_both_ways() {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = v4(echo.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            let (length, from) = echo.recv_from(&mut buffer).unwrap();
            echo.send_to(&buffer[..length], from).unwrap();
        }
    });
    let mut guest = Guest::new(open());
    let udp = guest.bind_udp(5000);
    for length in [0, 1, 1472] {
        guest.send_udp(udp, &pattern(length), address);
        let (data, from) = guest.receive_udp(udp);
        assert_eq!((data, from.port), (pattern(length), address.port()));
    }
    // A port that was free a moment ago.
    let free = v4(UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let reason = guest.unreachable(icmp::Endpoint::Udp(5000.into()), |guest| guest.send_udp(udp, b"x", free));
    assert_eq!(reason, Icmpv4DstUnreachable::PortUnreachable);
}

#[test]
fn forwards_lead_into_a_guest_that_has_said_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let socket_file = dir.path().join("guest.sock");
    let forwards = ["0:22".to_owned(), "0:53/udp".into(), format!("{}:22", socket_file.display())];
    let forwards = forwards.iter().flat_map(|text| text.parse::<Forwards>().unwrap().0).collect();
    let mut guest = Guest::without_address(Config { forwards, ..open() });
    let [Listen::Tcp(tcp), Listen::Udp(udp), _] =
        [0, 1, 2].map(|n| guest._network.forwards()[n].listen.clone())
    else {
        panic!("{:?}", guest._network.forwards())
    };
    guest.set_address(FIRST_GUEST);
    let talk = |mut stream: Box<dyn ReadWrite>| {
        stream.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        answer
    };
    for unix in [false, true] {
        let listening = guest.listen(22);
        let path = socket_file.clone();
        let client = thread::spawn(move || {
            talk(match unix {
                true => {
                    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
                    socket.connect(&SockAddr::unix(path).unwrap()).unwrap();
                    Box::new(socket)
                }
                false => Box::new(TcpStream::connect(tcp).unwrap()),
            })
        });
        guest.until(|guest| guest.tcp(listening).can_recv().then_some(()));
        assert_eq!(guest.tcp(listening).remote_endpoint().unwrap().addr, IpAddress::Ipv4(GATEWAY));
        guest.tcp(listening).send_slice(b"pong").unwrap();
        guest.until(|_| client.is_finished().then_some(()));
        assert_eq!(&client.join().unwrap(), b"pong");
    }
    // Nobody listens at the port now.
    let mut client = TcpStream::connect(tcp).unwrap();
    let refused = thread::spawn(move || client.read(&mut [0]).unwrap_err().kind());
    guest.until(|_| refused.is_finished().then_some(()));
    assert_eq!(refused.join().unwrap(), io::ErrorKind::ConnectionReset);

    let handle = guest.bind_udp(53);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"question", udp).unwrap();
    let (data, from) = guest.receive_udp(handle);
    assert_eq!((&data[..], from.addr), (&b"question"[..], IpAddress::Ipv4(GATEWAY)));
    guest.send_udp(handle, b"answer", SocketAddrV4::new(GATEWAY, from.port));
    guest.poll();
    let mut answer = [0; 16];
    let (length, _) = client.recv_from(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"answer");
    drop(guest);
    assert!(!socket_file.exists());
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn a_connection_of_a_saved_machine_is_reset_at_once() {
    let mut guest = Guest::without_address(open());
    guest.set_address(FIRST_GUEST);
    // One that the gateway does not know, made with another gateway.
    let socket = guest.connect(hash_server());
    guest.until(|guest| guest.tcp(socket).may_send().then_some(()));
    let (network, port) = Network::start(open()).unwrap();
    guest.card = Card(port);
    guest._network = network;
    guest.tcp(socket).send_slice(b"still there?").unwrap();
    guest.until(|guest| (guest.tcp(socket).state() == tcp::State::Closed).then_some(()));
}

#[test]
fn pings_and_the_clock_are_answered() {
    let mut guest = Guest::new(open());
    for to in [GATEWAY, HOST] {
        assert!(guest.pings(to));
    }
    // The loopback answers where the host allows pings; else the guest is told that it does not.
    let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 4, data: b"ping" };
    let mut frame = packet::icmp(GATEWAY_MAC, FIRST_GUEST, Ipv4Addr::LOCALHOST, &request);
    frame[6..12].copy_from_slice(&MAC.0);
    guest.card.0.sender.blocking_send(frame).unwrap();
    loop {
        let frame = guest.card.0.receiver.blocking_recv().unwrap();
        let Ok(packet) = smoltcp::wire::Ipv4Packet::new_checked(&frame[packet::ETHERNET..]) else { continue };
        let packet = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        match Icmpv4Repr::parse(&packet, &Default::default()).unwrap() {
            Icmpv4Repr::EchoReply { ident, seq_no, data } => {
                assert_eq!((ident, seq_no, data), (7, 4, &b"ping"[..]))
            }
            Icmpv4Repr::DstUnreachable { reason, .. } => {
                assert_eq!(reason, Icmpv4DstUnreachable::CommProhibited)
            }
            other => panic!("{other:?}"),
        }
        break;
    }
    let udp = guest.bind_udp(5000);
    guest.send_udp(udp, &[0x23; 48], SocketAddrV4::new(GATEWAY, 123));
    assert_eq!(guest.receive_udp(udp).0.len(), 48);
}
