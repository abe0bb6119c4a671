//! The wisp protocol (version 1) for pages that have a network stack of their own, as v86's have with a relay
//! whose URL begins with `wisp://`: many streams in one WebSocket, each to a host and a port.
//!
//! A message is a type, the number of a stream (four bytes, the lowest first) and what the type needs. A client may
//! send as many messages on a stream of TCP as it was told to, and then waits to be told again. Every stream goes
//! where the rules of the network let a guest go.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use futures_util::{Stream as Messages, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::dns::{self, Resolver, kind};
use super::policy::{Policy, Verdict};
use super::relay::{Allowance, Limits, SILENCE};
use super::{Config, HOST, HOST_V6, Log};

/// Types of messages.
mod packet {
    pub const CONNECT: u8 = 1;
    pub const DATA: u8 = 2;
    pub const CONTINUE: u8 = 3;
    pub const CLOSE: u8 = 4;
}
/// Kinds of streams.
const TCP: u8 = 1;
const UDP: u8 = 2;

/// Why a stream ends.
mod reason {
    pub const VOLUNTARY: u8 = 0x02;
    pub const NETWORK: u8 = 0x03;
    pub const INVALID: u8 = 0x41;
    pub const UNREACHABLE: u8 = 0x42;
    pub const TIMED_OUT: u8 = 0x43;
    pub const REFUSED: u8 = 0x44;
    pub const BLOCKED: u8 = 0x48;
    pub const THROTTLED: u8 = 0x49;
}

/// Bytes before what a type needs.
const HEADER: usize = 5;
/// Messages that a client may send on a stream before it is told to go on.
const WINDOW: usize = 64;
/// Streams of one client at once, and bytes of its that wait for the hosts that they are for.
const STREAMS: usize = 256;
const WAITING: usize = 4 << 20;
/// Messages that wait for a client, and the most bytes of data in one.
pub const QUEUE: usize = 64;
const CHUNK: usize = 16 << 10;
/// How long a host may take to be reached, and how long a UDP stream may be silent.
const DIAL: Duration = Duration::from_secs(75);
const IDLE: Duration = Duration::from_secs(90);
/// The name of this host.
const HOST_NAME: &str = "host.env86.internal";

/// Where streams may go.
pub struct Reach {
    policy: Mutex<Policy>,
    resolver: Mutex<Resolver>,
    log: Option<Log>,
}

impl Reach {
    /// What a network of this configuration lets a guest reach.
    pub fn new(config: &Config) -> Self {
        Self {
            policy: Mutex::new(Policy::new(config.rules.clone())),
            resolver: Mutex::new(Resolver::new(config.names.clone())),
            log: config.log.clone(),
        }
    }

    fn say(&self, text: std::fmt::Arguments<'_>) {
        if let Some(log) = &self.log {
            log(text);
        }
    }

    fn policy(&self) -> std::sync::MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of the host that a client names, as far as they may be reached.
    async fn find(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, u8> {
        let addresses = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) if host.eq_ignore_ascii_case(HOST_NAME) => vec![HOST.into()],
            Err(_) => self.look_up(host).await?,
        };
        if addresses.is_empty() {
            return Err(reason::UNREACHABLE);
        }
        let (policy, now) = (self.policy(), Instant::now());
        let reached =
            addresses.iter().flat_map(|address| match policy.decide((*address, port).into(), now) {
                Verdict::Reach(to) => vec![to],
                Verdict::Host(port) => {
                    vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
                }
                Verdict::Deny => Vec::new(),
            });
        let reached: Vec<_> = reached.collect();
        if reached.is_empty() { Err(reason::BLOCKED) } else { Ok(reached) }
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, u8> {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if !self.policy().may_resolve(&name) {
            return Err(reason::BLOCKED);
        }
        let mut found = Vec::new();
        for kind in [kind::A, kind::AAAA] {
            let query = dns::query(&name, kind).ok_or(reason::INVALID)?;
            let Some(Ok(question)) = dns::question(&query) else { return Err(reason::INVALID) };
            let (known, servers) = {
                let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
                let known = resolver.known_from_file(&query, &question);
                let known = known.or_else(|| resolver.remembered(&query, Instant::now()));
                (known, resolver.settings().servers.clone())
            };
            let answer = match known {
                Some(answer) => answer,
                None => {
                    let answer = dns::ask(&servers, &query).await;
                    let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
                    resolver.remember(&query, &answer, Instant::now());
                    answer
                }
            };
            let (addresses, lifetime) = dns::addresses(&answer);
            self.policy().resolved(&name, &addresses, lifetime, Instant::now());
            found.extend(addresses);
        }
        // A name of another's does not lead to what is this host's.
        found.retain(|address| ![IpAddr::from(HOST), HOST_V6.into()].contains(address));
        Ok(found)
    }
}

/// A message for a client.
fn message(kind: u8, stream: u32, data: &[u8]) -> Vec<u8> {
    [&[kind][..], &stream.to_le_bytes(), data].concat()
}

/// What a client has sent, and its part of what may wait.
type Sent = (Vec<u8>, OwnedSemaphorePermit);

/// A stream, as the client's messages find it. Its task passes on what it has been sent, and ends, when this is gone.
struct Stream {
    sent: Sender<Sent>,
    task: AbortHandle,
    /// Messages may be lost, as datagrams.
    lossy: bool,
}

/// Serves a client until it has gone. What is for it goes to the queue.
pub async fn serve(
    mut client: impl Messages<Item = Result<Message, SocketError>> + Unpin,
    queue: Sender<Vec<u8>>,
    reach: Arc<Reach>,
    limits: Limits,
) {
    let mut allowance = Allowance::new(limits, Instant::now());
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut streams: HashMap<u32, Stream> = HashMap::new();
    // All of them end with the client.
    let mut tasks = JoinSet::new();
    let window = (WINDOW as u32).to_le_bytes();
    if queue.send(message(packet::CONTINUE, 0, &window)).await.is_err() {
        return;
    }
    while let Ok(Some(Ok(next))) = timeout(SILENCE, client.next()).await {
        while let Some(Ok(ended)) = tasks.try_join_next() {
            if !is_open(&streams, ended) {
                streams.remove(&ended);
            }
        }
        let length = next.len();
        let bytes = match next {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            _ => Default::default(),
        };
        if let Some((&[kind, a, b, c, d], data)) = bytes.split_first_chunk::<HEADER>() {
            let number = u32::from_le_bytes([a, b, c, d]);
            let refusal = match kind {
                packet::CONNECT => match request(data) {
                    _ if number == 0 || is_open(&streams, number) => Some(reason::INVALID),
                    None => Some(reason::INVALID),
                    Some(_) if tasks.len() >= STREAMS => Some(reason::THROTTLED),
                    Some((kind, port, host)) => {
                        let (sent, received) = mpsc::channel(WINDOW);
                        let (queue, reach) = (queue.clone(), reach.clone());
                        let task = tasks.spawn(async move {
                            reach.say(format_args!("wisp {number} -> {host}:{port}"));
                            let ended = match kind {
                                UDP => datagrams(&reach, (&host, port), number, received, &queue).await,
                                _ => connection(&reach, (&host, port), number, received, &queue).await,
                            };
                            let code = ended.err().unwrap_or(reason::VOLUNTARY);
                            if code == reason::BLOCKED {
                                reach.say(format_args!("wisp {number} -> {host}:{port} denied"));
                            }
                            // A client that has closed it itself does not mind.
                            let _ = queue.send(message(packet::CLOSE, number, &[code])).await;
                            number
                        });
                        streams.insert(number, Stream { sent, task, lossy: kind == UDP });
                        None
                    }
                },
                packet::DATA => {
                    let stream = streams.get(&number).filter(|_| is_open(&streams, number));
                    let permit = waiting.clone().try_acquire_many_owned(data.len() as u32);
                    match (stream, permit) {
                        // What comes for one that has ended was on its way.
                        (None, _) => None,
                        (Some(stream), Ok(permit)) => {
                            let taken = stream.sent.try_send((data.to_vec(), permit)).is_ok();
                            (!taken && !stream.lossy).then_some(reason::THROTTLED)
                        }
                        (Some(stream), Err(_)) => (!stream.lossy).then_some(reason::THROTTLED),
                    }
                }
                packet::CLOSE => {
                    streams.remove(&number);
                    None
                }
                _ => None,
            };
            if let Some(code) = refusal {
                if kind == packet::DATA
                    && let Some(stream) = streams.remove(&number)
                {
                    // Its host may not take anything for long.
                    stream.task.abort();
                }
                if queue.send(message(packet::CLOSE, number, &[code])).await.is_err() {
                    return;
                }
            }
        }
        let wait = allowance.take(length, Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

/// Whether a stream of this number goes on.
fn is_open(streams: &HashMap<u32, Stream>, number: u32) -> bool {
    streams.get(&number).is_some_and(|stream| !stream.sent.is_closed())
}

/// What a client wants to be connected to: the kind, the port and the host.
fn request(data: &[u8]) -> Option<(u8, u16, String)> {
    let (&[kind, low, high], host) = data.split_first_chunk::<3>()?;
    let host = std::str::from_utf8(host).ok().filter(|host| !host.is_empty() && host.len() <= 255)?;
    let port = u16::from_le_bytes([low, high]);
    ([TCP, UDP].contains(&kind) && port != 0).then(|| (kind, port, host.into()))
}

fn code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => reason::REFUSED,
        io::ErrorKind::TimedOut => reason::TIMED_OUT,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => reason::NETWORK,
        _ => reason::UNREACHABLE,
    }
}

/// Carries a stream of TCP to its end.
async fn connection(
    reach: &Reach,
    (host, port): (&str, u16),
    number: u32,
    mut sent: Receiver<Sent>,
    queue: &Sender<Vec<u8>>,
) -> Result<(), u8> {
    let to = reach.find(host, port).await?;
    let dialled = timeout(DIAL, TcpStream::connect(&to[..])).await.map_err(|_| reason::TIMED_OUT)?;
    let stream = dialled.map_err(|error| code(&error))?;
    // Without it segments come later, but they come.
    let _ = stream.set_nodelay(true);
    let (mut from_host, mut to_host) = stream.into_split();
    let upload = async {
        let mut taken = 0;
        while let Some((data, permit)) = sent.recv().await {
            to_host.write_all(&data).await.map_err(|error| code(&error))?;
            drop(permit);
            taken += 1;
            // Not before all that it may send has been taken: what is on its way is not known.
            if taken % WINDOW == 0 {
                let more = message(packet::CONTINUE, number, &(WINDOW as u32).to_le_bytes());
                queue.send(more).await.map_err(|_| reason::VOLUNTARY)?;
            }
        }
        // The client has closed the stream: what it has sent has arrived.
        to_host.shutdown().await.map_err(|error| code(&error))
    };
    let download = async {
        let mut data = vec![0; CHUNK];
        loop {
            match from_host.read(&mut data).await.map_err(|error| code(&error))? {
                0 => return Ok(()),
                length => {
                    let data = message(packet::DATA, number, &data[..length]);
                    queue.send(data).await.map_err(|_| reason::VOLUNTARY)?;
                }
            }
        }
    };
    match select(pin!(upload), pin!(download)).await {
        Either::Left((ended, _)) | Either::Right((ended, _)) => ended,
    }
}

/// Carries a stream of datagrams until the client closes it, or it has been silent for long.
async fn datagrams(
    reach: &Reach,
    (host, port): (&str, u16),
    number: u32,
    mut sent: Receiver<Sent>,
    queue: &Sender<Vec<u8>>,
) -> Result<(), u8> {
    let to = *reach.find(host, port).await?.first().ok_or(reason::UNREACHABLE)?;
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(|error| code(&error))?;
    socket.connect(to).await.map_err(|error| code(&error))?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let event = {
            let (sent, received) = (pin!(sent.recv()), pin!(socket.recv(&mut buffer)));
            match timeout(IDLE, select(sent, received)).await {
                Err(_) => Either::Left(None),
                Ok(Either::Left((sent, _))) => Either::Left(sent),
                Ok(Either::Right((length, _))) => Either::Right(length),
            }
        };
        match event {
            Either::Left(None) => return Ok(()),
            // One that is lost is lost; that nobody is there is heard at the next.
            Either::Left(Some((data, _))) => drop(socket.send(&data).await),
            Either::Right(length) => {
                let length = length.map_err(|error| code(&error))?;
                let data = message(packet::DATA, number, &buffer[..length]);
                queue.send(data).await.map_err(|_| reason::VOLUNTARY)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket as StdUdpSocket};
    use std::thread;

    use tokio_tungstenite::tungstenite::{self, WebSocket, stream::MaybeTlsStream};

    use super::super::relay::{Door, Relay};
    use super::super::{NameSettings, NameSource, Rules};
    use super::*;

    type Client = WebSocket<MaybeTlsStream<std::net::TcpStream>>;

    fn relay(ports: &[u16], wisp: bool) -> Relay {
        let rules = Rules { restrict: true, host_ports: ports.to_vec(), ..Rules::default() };
        let names = NameSource::Fixed(NameSettings::default());
        let door = Door {
            listen: ([127, 0, 0, 1], 0).into(),
            token: Some("secret".into()),
            origins: Vec::new(),
            limits: Limits::default(),
            wisp,
        };
        Relay::start(Config { rules, names, ..Config::default() }, door).unwrap()
    }

    fn client(relay: &Relay) -> Client {
        let stream = std::net::TcpStream::connect(relay.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let url = format!("ws://{}/wisp/?token=secret", relay.address());
        let (mut client, _) = tungstenite::client(url, MaybeTlsStream::Plain(stream)).unwrap();
        assert_eq!(next(&mut client), (packet::CONTINUE, 0, 64u32.to_le_bytes().to_vec()));
        client
    }

    /// The next message that is not one of the WebSocket's own.
    fn next(client: &mut Client) -> (u8, u32, Vec<u8>) {
        loop {
            if let Message::Binary(bytes) = client.read().unwrap() {
                let (&[kind, a, b, c, d], data) = bytes.split_first_chunk::<HEADER>().unwrap();
                return (kind, u32::from_le_bytes([a, b, c, d]), data.to_vec());
            }
        }
    }

    fn send(client: &mut Client, kind: u8, stream: u32, data: &[u8]) {
        client.send(Message::Binary(message(kind, stream, data).into())).unwrap();
    }

    fn connect(client: &mut Client, stream: u32, kind: u8, to: (&str, u16)) {
        let data = [&[kind][..], &to.1.to_le_bytes(), to.0.as_bytes()].concat();
        send(client, packet::CONNECT, stream, &data);
    }

    /// A server that gives back what it gets, in order, and then closes.
    fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        port
    }

    #[test]
    fn streams_go_where_they_may() {
        let port = echo();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let relay = relay(&[port, closed], true);
        let mut client = client(&relay);
        for (number, to, code) in [
            (1, ("127.0.0.1", port), reason::BLOCKED),
            (2, ("host.env86.internal", port + 1), reason::BLOCKED),
            (3, ("elsewhere.example", 80), reason::BLOCKED),
            (4, ("host.env86.internal", closed), reason::REFUSED),
            (5, ("::1", port), reason::BLOCKED),
        ] {
            connect(&mut client, number, TCP, to);
            assert_eq!(next(&mut client), (packet::CLOSE, number, vec![code]), "{to:?}");
        }
        for bad in
            [&[][..], &[TCP, 1], &[9, 80, 0, b'a'], &[TCP, 0, 0, b'a'], &[TCP, 80, 0], &[TCP, 80, 0, 0xff]]
        {
            send(&mut client, packet::CONNECT, 9, bad);
            assert_eq!(next(&mut client), (packet::CLOSE, 9, vec![reason::INVALID]), "{bad:?}");
        }
        send(&mut client, packet::DATA, 77, b"nobody");
        client.send(Message::Binary(vec![packet::DATA, 1].into())).unwrap();
        connect(&mut client, 10, TCP, ("192.168.127.254", port));
        send(&mut client, packet::DATA, 10, b"hello");
        assert_eq!(next(&mut client), (packet::DATA, 10, b"hello".to_vec()));
    }

    #[test]
    fn much_data_waits_to_be_asked_for() {
        let port = echo();
        let relay = relay(&[port], true);
        let mut client = client(&relay);
        connect(&mut client, 1, TCP, ("host.env86.internal", port));
        let (mut may_send, mut sent, mut received) = (WINDOW, 0u32, Vec::new());
        while received.len() < 4000 * 1000 {
            while may_send > 0 && sent < 4000 {
                send(&mut client, packet::DATA, 1, &[sent as u8; 1000]);
                (sent, may_send) = (sent + 1, may_send - 1);
            }
            match next(&mut client) {
                (packet::CONTINUE, 1, window) => {
                    may_send = u32::from_le_bytes(window.try_into().unwrap()) as usize;
                }
                (packet::DATA, 1, data) => received.extend(data),
                other => panic!("{other:?}"),
            }
        }
        assert!(received.chunks(1000).enumerate().all(|(n, chunk)| chunk == [n as u8; 1000]));
        // One that sends more than it may loses its stream, and nothing else.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        drop(relay);
        let relay = self::relay(&[silent.local_addr().unwrap().port()], true);
        let mut client = self::client(&relay);
        connect(&mut client, 1, TCP, ("host.env86.internal", silent.local_addr().unwrap().port()));
        for _ in 0..2000 {
            send(&mut client, packet::DATA, 1, &[0; 16 << 10]);
        }
        loop {
            match next(&mut client) {
                (packet::CLOSE, 1, code) => break assert_eq!(code, [reason::THROTTLED]),
                (packet::CONTINUE, ..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn datagrams_are_carried_too() {
        let socket = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut buffer = [0; 100];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..length], from).unwrap();
        });
        let relay = relay(&[port], true);
        let mut client = client(&relay);
        connect(&mut client, 7, UDP, ("host.env86.internal", port));
        send(&mut client, packet::DATA, 7, b"datagram");
        assert_eq!(next(&mut client), (packet::DATA, 7, b"datagram".to_vec()));
        send(&mut client, packet::CLOSE, 7, &[reason::VOLUNTARY]);
        assert_eq!(next(&mut client), (packet::CLOSE, 7, vec![reason::VOLUNTARY]));
    }

    #[test]
    fn who_did_not_ask_for_it_has_none() {
        let relay = relay(&[], false);
        let url = format!("ws://{}/wisp/?token=secret", relay.address());
        let stream = std::net::TcpStream::connect(relay.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (mut client, _) = tungstenite::client(url, stream).unwrap();
        client.send(Message::Binary(vec![2; 60].into())).unwrap();
        // It is an ordinary network, which pings and begins with a frame of the gateway's.
        loop {
            match client.read().unwrap() {
                Message::Binary(frame) => break assert!(frame.len() > HEADER + 4, "{frame:?}"),
                Message::Ping(_) => break,
                _ => {}
            }
        }
    }
}
