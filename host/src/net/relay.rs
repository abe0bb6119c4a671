//! A network for machines elsewhere: a switch that pages of v86's and env86's, and other programs, reach
//! over WebSockets, one Ethernet frame a message, without its check sequence.
//!
//! A page of any site can open a WebSocket to a port of the loopback. So a client that says where its page
//! comes from (`Origin`) has to be from this host or from a site that was named, and if there is a token
//! every client has to know it. A client that sends more than it may is read more slowly, one that does not
//! read loses frames, and one that does not answer pings is disconnected.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::select;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use smoltcp::wire::{ArpPacket, EthernetFrame, EthernetProtocol};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::cable::{Frame, Port, cable};
use super::gateway::accepted;
use super::ndp;
use super::packet::{ETHERNET, MTU};
use super::wisp::{self, Reach};
use super::worker::Worker;
use super::{Config, Forward, GATEWAY, GATEWAY_MAC, HOST, Log, NetError, Parts, Switch};
use crate::web;

/// Bytes of the longest frame that is passed on: one of the medium with a tag.
const LONGEST_FRAME: usize = ETHERNET + 4 + MTU;
/// Bytes of the longest message that is read. A frame that is too long is lost, as on a wire.
const LONGEST_MESSAGE: usize = 64 << 10;
/// Bytes that wait to be written before a client has to read, and the most that ever do.
const WRITE_BUFFER: usize = 64 << 10;
const MOST_WRITTEN: usize = WRITE_BUFFER + LONGEST_MESSAGE;
/// How long a client may take to say what it wants, and how many may do so at once.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 32;
/// The first part of the path of clients that speak wisp.
const WISP_PATH: &str = "wisp";
/// How often a client is asked whether it is there.
pub(crate) const PING: Duration = Duration::from_secs(30);
/// How long either end of a WebSocket may hear nothing of the other.
pub(crate) const SILENCE: Duration = Duration::from_secs(75);
/// How much a client may send at once: as much as in this time.
const BURST: Duration = Duration::from_millis(250);

/// What one client, and all of them, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients at once.
    pub clients: usize,
    /// Frames a second of one client.
    pub frames: u32,
    /// Bytes a second of one client.
    pub bytes: u32,
}

impl Default for Limits {
    /// Enough for a hundred megabits a second from each of 64 machines.
    fn default() -> Self {
        Self { clients: 64, frames: 20_000, bytes: 16 << 20 }
    }
}

/// Who may join a network.
#[derive(Clone, Debug)]
pub struct Door {
    /// Where the host listens; a port 0 is a free one.
    pub listen: SocketAddr,
    /// What a client has to have as `token=…` in its URL.
    pub token: Option<String>,
    /// Sites, as a browser's `Origin` says them, whose pages may join beside those of this host.
    pub origins: Vec<String>,
    /// What clients may take.
    pub limits: Limits,
    /// Clients whose URL has the path `/wisp/` speak the wisp protocol: streams instead of frames.
    pub wisp: bool,
}

/// Nobody can join.
#[derive(Debug, Error)]
#[error("Cannot listen at {listen} for machines")]
pub struct DoorError {
    listen: SocketAddr,
    source: io::Error,
}

/// A network that others join. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    forwards: Vec<Forward>,
    _worker: Worker,
}

impl Relay {
    /// Starts a network with a gateway of this configuration. All ports are open when this returns.
    pub fn start(config: Config, door: Door) -> Result<Self, NetError> {
        let runtime = super::runtime()?;
        let failed = |source| DoorError { listen: door.listen, source };
        let listener = runtime.block_on(TcpListener::bind(door.listen)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let handle = runtime.handle().clone();
        let _entered = handle.enter();
        let log = config.log.clone();
        let reach = door.wisp.then(|| Arc::new(Reach::new(&config)));
        // A browser's machine takes no frame that is longer than the medium's.
        let mut parts = Parts::open(Config { large_frames: false, ..config })?;
        let forwards = std::mem::take(&mut parts.forwards);
        let work = async move {
            let (gateway, port) = parts.gateway();
            let switch = Switch::new();
            switch.connect(port);
            tokio::spawn(gateway.run());
            welcome(listener, Arc::new(door), switch, reach, log).await;
        };
        let worker = Worker::start("relay", runtime, work).map_err(NetError::Thread)?;
        Ok(Self { address, forwards, _worker: worker })
    }

    /// Where clients find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The forwards, with the ports that they are at.
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }
}

/// Lets clients in. Of those that have not said yet what they want there are only so many, and the others
/// wait.
async fn welcome(
    listener: TcpListener,
    door: Arc<Door>,
    switch: Switch,
    reach: Option<Arc<Reach>>,
    log: Option<Log>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let places = Arc::new(Semaphore::new(door.limits.clients));
    loop {
        let Ok(handshake) = handshakes.clone().acquire_owned().await else { return };
        let Ok((stream, from)) = accepted(listener.accept().await).await else { continue };
        let (door, switch, log, places) = (door.clone(), switch.clone(), log.clone(), places.clone());
        let reach = reach.clone();
        tokio::spawn(async move {
            let say = |text: &str| {
                if let Some(log) = &log {
                    log(format_args!("{from} {text}"));
                }
            };
            let entered = timeout(HANDSHAKE, enter(stream, &door, &places)).await;
            drop(handshake);
            let Ok(Some((socket, place, wants_wisp))) = entered else { return say("was not let in") };
            say("joins");
            let (to_client, from_client) = socket.split();
            if let Some(reach) = reach.filter(|_| wants_wisp) {
                let (queue, queued) = mpsc::channel(wisp::QUEUE);
                let serve = pin!(wisp::serve(from_client, queue, reach, door.limits));
                select(pin!(down(queued, to_client)), serve).await;
                return say("leaves");
            }
            let (near, far) = cable();
            switch.connect(far);
            let Port { sender, receiver } = near;
            let (down, up) = (pin!(down(receiver, to_client)), pin!(up(from_client, sender, door.limits)));
            select(down, up).await;
            say("leaves");
            drop(place);
        });
    }
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

/// Does the handshake with a client; gives its socket, its place, and whether its URL is that of wisp, if it may
/// come in.
async fn enter(
    stream: TcpStream,
    door: &Door,
    places: &Arc<Semaphore>,
) -> Option<(Socket, tokio::sync::OwnedSemaphorePermit, bool)> {
    // Without it frames come later, but they come.
    let _ = stream.set_nodelay(true);
    let config = WebSocketConfig::default()
        .read_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(LONGEST_MESSAGE))
        .max_frame_size(Some(LONGEST_MESSAGE))
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MOST_WRITTEN);
    let (mut place, mut wisp) = (None, false);
    #[expect(clippy::result_large_err, reason = "the crate's signature")]
    let check = |request: &Request, response: Response| {
        let refusal = |status, reason: &str| {
            let mut refusal = ErrorResponse::new(Some(reason.to_owned()));
            *refusal.status_mut() = status;
            Err(refusal)
        };
        if let Some(reason) = door.refuses(request) {
            return refusal(StatusCode::FORBIDDEN, reason);
        }
        wisp = request.uri().path().split('/').nth(1) == Some(WISP_PATH);
        place = places.clone().try_acquire_owned().ok();
        match place {
            Some(_) => Ok(response),
            None => refusal(StatusCode::SERVICE_UNAVAILABLE, "There are as many machines as there may be\n"),
        }
    };
    let socket = accept_hdr_async_with_config(stream, check, Some(config)).await.ok()?;
    Some((socket, place?, wisp))
}

/// Gives a client the frames that are for it, and asks from time to time whether it is there.
async fn down(mut frames: Receiver<Frame>, mut client: impl Sink<Message, Error = SocketError> + Unpin) {
    let mut pings = interval(PING);
    loop {
        let next = poll_fn(|cx| match pings.poll_tick(cx) {
            Poll::Ready(_) => Poll::Ready(Some(Message::Ping(Default::default()))),
            Poll::Pending => frames.poll_recv(cx).map(|frame| Some(Message::Binary(frame?.into()))),
        });
        let Some(mut message) = next.await else { return };
        // What comes together is written together.
        loop {
            if client.feed(message).await.is_err() {
                return;
            }
            let Ok(frame) = frames.try_recv() else { break };
            message = Message::Binary(frame.into());
        }
        if client.flush().await.is_err() {
            return;
        }
    }
}

/// Passes on what a client sends, as fast as it may.
async fn up(
    mut client: impl Stream<Item = Result<Message, SocketError>> + Unpin,
    frames: Sender<Frame>,
    limits: Limits,
) {
    let mut allowance = Allowance::new(limits, Instant::now());
    // Pings are answered by the next call, whatever else comes.
    while let Ok(Some(Ok(message))) = timeout(SILENCE, client.next()).await {
        let length = message.len();
        let frame = match message {
            Message::Binary(frame) => frame,
            Message::Close(_) => return,
            _ => Default::default(),
        };
        if may_pass(&frame) && frames.send(frame.into()).await.is_err() {
            return;
        }
        let wait = allowance.take(length, Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

/// Whether a client's frame is one, and does not say that the client is the gateway.
fn may_pass(frame: &[u8]) -> bool {
    let Ok(header) = EthernetFrame::new_checked(frame) else { return false };
    let source = header.src_addr();
    let poses = || {
        let arp = ArpPacket::new_checked(header.payload());
        let speaker = arp.as_ref().map(|arp| arp.source_protocol_addr());
        speaker.is_ok_and(|speaker| [GATEWAY.octets(), HOST.octets()].iter().any(|own| own == speaker))
    };
    frame.len() <= LONGEST_FRAME
        && source.is_unicast()
        && source != GATEWAY_MAC
        && !(header.ethertype() == EthernetProtocol::Arp && poses())
        && !(header.ethertype() == EthernetProtocol::Ipv6 && ndp::poses_as_router(frame))
}

/// What a client may still send: some at once, and its limits in the long run.
pub(crate) struct Allowance {
    limits: Limits,
    frames: f64,
    bytes: f64,
    last: Instant,
}

impl Allowance {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        let burst = BURST.as_secs_f64();
        Self {
            limits,
            frames: f64::from(limits.frames) * burst,
            bytes: f64::from(limits.bytes) * burst,
            last: now,
        }
    }

    /// Takes a frame of so many bytes; gives the time to wait before the next.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let (burst, since) = (BURST.as_secs_f64(), now.saturating_duration_since(self.last).as_secs_f64());
        self.last = now;
        let (frames, rate) = (f64::from(self.limits.frames.max(1)), f64::from(self.limits.bytes.max(1)));
        self.frames = (self.frames + frames * since).min(frames * burst) - 1.0;
        self.bytes = (self.bytes + rate * since).min(rate * burst) - bytes as f64;
        let wait = (-self.frames / frames).max(-self.bytes / rate).max(0.0);
        Duration::from_secs_f64(wait)
    }
}

impl Door {
    /// Why a client is not let in, if it is not.
    fn refuses(&self, request: &Request) -> Option<&'static str> {
        let origin = request.headers().get("origin").map(|origin| origin.to_str().unwrap_or("null"));
        if origin.is_some_and(|origin| !self.knows(origin)) {
            return Some("The page comes from a site that was not allowed; allow it with --allow-origin\n");
        }
        let given = request.uri().query().and_then(web::token_in);
        match &self.token {
            Some(token) if given.is_none_or(|given| !web::same(given, token)) => {
                Some("The token in the URL is missing or wrong: ws://HOST:PORT/?token=TOKEN\n")
            }
            _ => None,
        }
    }

    /// Whether pages of a site may join.
    fn knows(&self, origin: &str) -> bool {
        let site = origin.split_once("://").map_or("", |(_, site)| site);
        let host = match site.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => site.split(':').next().unwrap_or_default(),
        };
        ["localhost", "127.0.0.1", "::1"].contains(&host)
            || self.origins.iter().any(|known| known.trim_end_matches('/') == origin)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use smoltcp::socket::tcp;
    use smoltcp::wire::{ArpOperation, EthernetAddress};
    use tokio_tungstenite::tungstenite::{self, http};

    use super::super::tests::{Guest, hash_server, open};
    use super::super::{GATEWAY_V6, Join, Network, packet};
    use super::*;

    fn door(token: Option<&str>) -> Door {
        Door {
            listen: ([127, 0, 0, 1], 0).into(),
            token: token.map(str::to_owned),
            origins: vec!["https://example.test/".into(), "null".into()],
            limits: Limits { clients: 2, ..Limits::default() },
            wisp: false,
        }
    }

    fn asks(uri: &str, origin: Option<&str>) -> Request {
        let mut request = Request::builder().uri(uri);
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn pages_of_other_sites_stay_outside() {
        let door = door(None);
        let inside = [
            None,
            Some("http://localhost:8000"),
            Some("http://[::1]"),
            Some("https://example.test"),
            Some("null"),
        ];
        for origin in inside {
            assert_eq!(door.refuses(&asks("/", origin)), None, "{origin:?}");
        }
        let outside =
            ["https://evil.test", "http://localhost.evil.test", "https://example.test.evil", "file://", ""];
        for origin in outside {
            assert!(door.refuses(&asks("/", Some(origin))).is_some(), "{origin}");
        }
    }

    #[test]
    fn a_token_has_to_be_known() {
        let door = door(Some("secret"));
        assert_eq!(door.refuses(&asks("/net?x=1&token=secret", None)), None);
        for uri in ["/", "/?token=", "/?token=secre", "/?token=secrets", "/?xtoken=secret"] {
            assert!(door.refuses(&asks(uri, None)).is_some(), "{uri}");
        }
    }

    #[test]
    fn a_client_that_sends_more_than_it_may_has_to_wait() {
        let start = Instant::now();
        let limits = Limits { clients: 1, frames: 100, bytes: 10_000 };
        let mut allowance = Allowance::new(limits, start);
        for _ in 0..25 {
            assert_eq!(allowance.take(60, start), Duration::ZERO);
        }
        assert!(allowance.take(60, start) >= Duration::from_millis(9));
        let later = start + Duration::from_secs(10);
        assert_eq!(allowance.take(1500, later), Duration::ZERO);
        assert!(allowance.take(1500, later) >= Duration::from_millis(49));
    }

    #[test]
    fn no_client_is_the_gateway() {
        let mut frame = packet::arp(ArpOperation::Request, GATEWAY, (EthernetAddress::BROADCAST, HOST));
        assert!(!may_pass(&frame));
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        assert!(!may_pass(&frame));
        frame[31] = 7;
        assert!(may_pass(&frame));
        frame[6] = 3;
        assert!(!may_pass(&frame));
        // The router of IPv6, and a neighbour with its address.
        for (from, message, passes) in [
            ("fe80::1", ndp::router(&[]), false),
            ("fe80::2", ndp::router(&[]), false),
            ("fe80::2", ndp::neighbour(GATEWAY_V6, true), false),
            ("fe80::2", ndp::neighbour("fe80::2".parse().unwrap(), true), true),
            ("fd5a:94ef:e40c::1", vec![128, 0, 0, 0, 0, 0, 0, 0], false),
        ] {
            let to = ndp::ALL_NODES;
            let mut frame =
                packet::neighbour_v6(EthernetAddress([2; 6]), from.parse().unwrap(), to, &message);
            frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
            assert_eq!(may_pass(&frame), passes, "{from} {message:?}");
        }
        assert!(!may_pass(&frame[..10]) && !may_pass(&[2; LONGEST_FRAME + 1]));
    }

    fn url(relay: &Relay, query: &str) -> String {
        format!("ws://{}/{query}", relay.address())
    }

    fn join(relay: &Relay, mac: u8) -> Guest {
        let join: Join = url(relay, "?token=secret").parse().unwrap();
        let (network, port) = Network::prepare(join.into()).unwrap().start(true).unwrap();
        Guest::on(network, port, EthernetAddress([0, 0x22, 0x15, 0, 0, mac]))
    }

    /// The status that a client of this kind is refused with.
    fn refused(relay: &Relay, query: &str, origin: Option<&str>) -> Option<u16> {
        let mut request = http::Request::builder()
            .uri(url(relay, query))
            .header("Host", relay.address().to_string())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", tungstenite::handshake::client::generate_key());
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        let stream = std::net::TcpStream::connect(relay.address()).unwrap();
        match tungstenite::client(request.body(()).unwrap(), stream) {
            Ok(_) => None,
            Err(tungstenite::HandshakeError::Failure(SocketError::Http(response))) => {
                Some(response.status().as_u16())
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn machines_elsewhere_share_a_network() {
        let relay = Relay::start(open(), door(Some("secret"))).unwrap();
        assert_eq!(refused(&relay, "", None), Some(403));
        assert_eq!(refused(&relay, "?token=wrong", None), Some(403));
        assert_eq!(refused(&relay, "?token=secret", Some("https://evil.test")), Some(403));
        // Something that is no client at all.
        std::net::TcpStream::connect(relay.address()).unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();

        let (mut first, mut second) = (join(&relay, 1), join(&relay, 2));
        let addresses = [first.dhcp(), second.dhcp()];
        assert_eq!(addresses.map(|address| address.octets()[3]), [2, 3]);
        assert_eq!(refused(&relay, "?token=secret", Some("http://localhost")), Some(503));
        first.set_address(addresses[0]);
        second.set_address(addresses[1]);
        // Both reach the gateway, and the host through it.
        for guest in [&mut first, &mut second] {
            assert!(guest.pings(GATEWAY));
            let socket = guest.connect(hash_server());
            assert!(guest.exchange(socket, &[7; 100_000]).is_some());
        }
        // They reach each other.
        let listening = second.listen(80);
        let socket = first.connect(std::net::SocketAddrV4::new(addresses[1], 80));
        first.until(|first| {
            second.poll();
            first.tcp(socket).may_send().then_some(())
        });
        first.tcp(socket).send_slice(b"hello").unwrap();
        second.until(|second| {
            first.poll();
            second.tcp(listening).can_recv().then_some(())
        });
        second.tcp(listening).recv(|data| (data.len(), assert_eq!(data, b"hello"))).unwrap();
        assert_eq!(first.tcp(socket).state(), tcp::State::Established);
        // One that leaves makes room.
        drop(first);
        while refused(&relay, "?token=secret", None).is_some() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
