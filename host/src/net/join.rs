//! A machine's place on a network elsewhere, which it reaches over a WebSocket: that of `env86 network`, or
//! of another program that carries one Ethernet frame a message, as v86's relays do.
//!
//! The guest sees an ordinary cable. While the network cannot be reached its frames are lost, as with a
//! cable that was pulled, and the network is looked for again.

use std::fmt;
use std::io;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use env86_devices::virtio::net::cut;
use futures_util::future::{Either, select};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tracing::{debug, info};

use super::cable::{Frame, Port};
use super::packet::{ETHERNET, MTU};
use super::relay::SILENCE;

/// The port of a URL that names none.
const DEFAULT_PORT: u16 = 80;
/// How long the network may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is between two looks for a network that is gone.
const RETRY: Duration = Duration::from_secs(2);
/// Frames of the guest's that wait for the network; more are lost.
const QUEUE: usize = 256;

/// A URL that is not understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no network; write ws://HOST:PORT, with /?token=TOKEN behind it where there is a token")]
pub struct UrlError(String);

/// A network elsewhere.
#[derive(Clone, Debug)]
pub struct Join {
    url: Uri,
    host: String,
    port: u16,
}

impl FromStr for Join {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let error = || UrlError(text.into());
        let url: Uri = text.parse().map_err(|_| error())?;
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(error)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if url.scheme_str() != Some("ws") {
            return Err(error());
        }
        Ok(Self { host, port: url.port_u16().unwrap_or(DEFAULT_PORT), url })
    }
}

impl fmt::Display for Join {
    /// Without the path, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}", self.url.authority().map_or(self.host.as_str(), |authority| authority.as_str()))
    }
}

/// A network elsewhere cannot be joined.
#[derive(Debug, Error)]
pub enum JoinError {
    /// Nothing answers there.
    #[error("The network {network} cannot be reached")]
    Unreachable {
        /// Where it should be.
        network: String,
        /// Why not.
        source: io::Error,
    },
    /// It does not let this machine in.
    #[error("The network {network} does not let the machine in: {reason}")]
    Refused {
        /// Where it is.
        network: String,
        /// What it says.
        reason: String,
    },
    /// What answers there is something else.
    #[error("What answers at {network} is no network for machines")]
    NoNetwork {
        /// Where it should be.
        network: String,
        /// What is wrong.
        source: Box<SocketError>,
    },
}

type Socket = WebSocketStream<TcpStream>;

impl Join {
    /// Joins the network.
    pub(super) async fn connect(self) -> Result<Joined, JoinError> {
        Ok(Joined { socket: self.open().await?, join: self })
    }

    async fn open(&self) -> Result<Socket, JoinError> {
        let network = self.to_string();
        let connected = timeout(PATIENCE, TcpStream::connect((self.host.as_str(), self.port))).await;
        let stream = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => stream,
            Err(source) => return Err(JoinError::Unreachable { network, source }),
        };
        // Without it frames come later, but they come.
        let _ = stream.set_nodelay(true);
        let late = Err(SocketError::Io(io::ErrorKind::TimedOut.into()));
        match timeout(PATIENCE, client_async(self.url.clone(), stream)).await.unwrap_or(late) {
            Ok((socket, _)) => Ok(socket),
            Err(SocketError::Http(response)) => {
                let text = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                let line = text.lines().next().filter(|line| !line.is_empty());
                let reason = line.map_or_else(|| response.status().to_string(), str::to_owned);
                Err(JoinError::Refused { network, reason })
            }
            Err(source) => Err(JoinError::NoNetwork { network, source: source.into() }),
        }
    }

    /// Looks for the network until it is there again.
    async fn open_again(&self) -> Socket {
        loop {
            sleep(RETRY).await;
            match self.open().await {
                Ok(socket) => return socket,
                Err(error) => debug!(target: "net", %error, "The network is still gone"),
            }
        }
    }
}

/// A network that has been joined.
pub(super) struct Joined {
    socket: Socket,
    join: Join,
}

impl Joined {
    /// Carries frames until the machine's end of the cable is gone.
    pub async fn run(self, port: Port) {
        let Port { sender: to_guest, receiver: mut from_guest } = port;
        let mut socket = self.socket;
        loop {
            if carry(socket, &to_guest, &mut from_guest).await == Gone::Machine {
                return;
            }
            info!(target: "net", network = %self.join, "The network is gone, and is looked for again");
            let lose_frames = async { while from_guest.recv().await.is_some() {} };
            socket = match select(pin!(self.join.open_again()), pin!(lose_frames)).await {
                Either::Left((socket, _)) => socket,
                Either::Right(_) => return,
            };
            info!(target: "net", network = %self.join, "The network is there again");
        }
    }
}

/// What ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Machine,
    Network,
}

/// Carries frames both ways until either end is gone.
async fn carry(socket: Socket, to_guest: &Sender<Frame>, from_guest: &mut Receiver<Frame>) -> Gone {
    let (to_network, from_network) = socket.split();
    let (queue, queued) = mpsc::channel(QUEUE);
    let (collect, send) = (pin!(collect(from_guest, queue)), pin!(send(queued, to_network)));
    let receive = pin!(receive(from_network, to_guest));
    match select(select(collect, send), receive).await {
        Either::Left((Either::Left((gone, _)) | Either::Right((gone, _)), _)) | Either::Right((gone, _)) => {
            gone
        }
    }
}

/// Takes the guest's frames, so that it never waits for the network: what finds no room is lost.
async fn collect(from_guest: &mut Receiver<Frame>, queue: Sender<Frame>) -> Gone {
    while let Some(frame) = from_guest.recv().await {
        if frame.len() <= ETHERNET + MTU {
            let _ = queue.try_send(frame);
        } else {
            // What the card's driver leaves to be cut.
            cut(&frame).into_iter().flatten().for_each(|frame| drop(queue.try_send(frame)));
        }
    }
    Gone::Machine
}

async fn send(
    mut queued: Receiver<Frame>,
    mut network: impl Sink<Message, Error = SocketError> + Unpin,
) -> Gone {
    while let Some(frame) = queued.recv().await {
        let mut frame = frame;
        // What comes together is written together.
        loop {
            if network.feed(Message::Binary(frame.into())).await.is_err() {
                return Gone::Network;
            }
            let Ok(next) = queued.try_recv() else { break };
            frame = next;
        }
        if network.flush().await.is_err() {
            return Gone::Network;
        }
    }
    Gone::Machine
}

/// Gives the guest what comes. A network that pings is expected to go on with it; what finds no room is lost.
async fn receive(
    mut network: impl Stream<Item = Result<Message, SocketError>> + Unpin,
    to_guest: &Sender<Frame>,
) -> Gone {
    let mut pings = false;
    loop {
        let next = network.next();
        let message = match pings {
            true => timeout(SILENCE, next).await.ok().flatten(),
            false => next.await,
        };
        match message {
            Some(Ok(Message::Binary(frame))) => {
                if let Err(TrySendError::Closed(_)) = to_guest.try_send(frame.into()) {
                    return Gone::Machine;
                }
            }
            Some(Ok(Message::Ping(_))) => pings = true,
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Gone::Network,
            Some(Ok(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use tokio_tungstenite::tungstenite;

    use super::super::{NetError, Network};
    use super::*;

    #[test]
    fn urls_are_read() {
        let join: Join = "ws://example.test:8080/?token=secret".parse().unwrap();
        assert_eq!((join.host.as_str(), join.port), ("example.test", 8080));
        assert_eq!(join.to_string(), "ws://example.test:8080");
        let join: Join = "ws://[::1]".parse().unwrap();
        assert_eq!((join.host.as_str(), join.port), ("::1", 80));
        for bad in ["", "example.test", "http://example.test", "wss://example.test", "ws://", "ws://:80"] {
            assert!(bad.parse::<Join>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let join: Join = format!("ws://{free}").parse().unwrap();
        let error = Network::prepare(join.into()).unwrap_err();
        assert!(matches!(error, NetError::Join(JoinError::Unreachable { .. })), "{error}");
    }

    #[test]
    fn a_network_that_was_gone_is_joined_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let join: Join = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = thread::spawn(move || {
            let enter = || tungstenite::accept(listener.accept().unwrap().0).unwrap();
            drop(enter());
            let mut socket = enter();
            socket.send(Message::Binary(vec![1; 60].into())).unwrap();
            loop {
                if let Message::Binary(frame) = socket.read().unwrap() {
                    return frame;
                }
            }
        });
        let (_network, mut port) = Network::prepare(join.into()).unwrap().start(false).unwrap();
        assert_eq!(port.receiver.blocking_recv(), Some(vec![1; 60]));
        port.sender.blocking_send(vec![2; 60]).unwrap();
        assert_eq!(server.join().unwrap()[..], [2; 60]);
    }
}
