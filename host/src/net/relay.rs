//! A network for machines elsewhere: a switch that pages of v86's and env86's, and other programs, reach
//! over WebSockets, one Ethernet frame a message, without its check sequence.
//!
//! A page of any site can open a WebSocket to a port of the loopback. So a client that says where its page
//! comes from (`Origin`) has to be from this host or from a site that was named, and if there is a token
//! every client has to know it.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use futures_util::future::select;
use futures_util::{SinkExt, StreamExt};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Duration, timeout};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::cable::{Port, cable};
use super::gateway::Gateway;
use super::{Config, Log, NetError, Switch};

/// Bytes of the longest message: a frame of the medium, and room for a tag.
const LONGEST_MESSAGE: usize = 1514 + 4;
/// Bytes that wait for a client that does not read.
const WRITE_BUFFER: usize = 256 << 10;
/// How long a client may take to say what it wants.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Who may join a network.
#[derive(Clone, Debug)]
pub struct Door {
    /// Where the host listens; a port 0 is a free one.
    pub listen: SocketAddr,
    /// What a client has to have as `token=…` in its URL.
    pub token: Option<String>,
    /// Sites, as a browser's `Origin` says them, whose pages may join beside those of this host.
    pub origins: Vec<String>,
    /// Clients at once.
    pub clients: usize,
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
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts a network with a gateway of this configuration. All ports are open when this returns.
    pub fn start(config: Config, door: Door) -> Result<Self, NetError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(NetError::Thread)?;
        let failed = |source| DoorError { listen: door.listen, source };
        let listener = runtime.block_on(TcpListener::bind(door.listen)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let entered = runtime.enter();
        let log = config.log.clone();
        let (port, _, gateway) = super::gateway(Config { large_frames: false, ..config })?;
        drop(entered);
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            runtime.block_on(async {
                let switch = Switch::new();
                switch.connect(port);
                tokio::spawn(Gateway::run(gateway));
                tokio::spawn(welcome(listener, Arc::new(door), switch, log));
                // The other end is dropped when it is time.
                let _ = stopped.await;
            });
        };
        let thread = thread::Builder::new().name("relay".into()).spawn(work).map_err(NetError::Thread)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where clients find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported already.
            let _ = thread.join();
        }
    }
}

/// Lets clients in, as many at once as there may be; the others wait before their handshake.
async fn welcome(listener: TcpListener, door: Arc<Door>, switch: Switch, log: Option<Log>) {
    let places = Arc::new(Semaphore::new(door.clients));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, from)) = listener.accept().await else {
            // Most often too many files are open, and others get time to close.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (door, switch, log) = (door.clone(), switch.clone(), log.clone());
        tokio::spawn(async move {
            serve(stream, &door, &switch, |text| {
                if let Some(log) = &log {
                    log(format_args!("{from} {text}"));
                }
            })
            .await;
            drop(place);
        });
    }
}

/// Joins a client to the switch until it leaves.
async fn serve(stream: TcpStream, door: &Door, switch: &Switch, say: impl Fn(&str)) {
    // Without it frames come later, but they come.
    let _ = stream.set_nodelay(true);
    let config = WebSocketConfig::default()
        .max_message_size(Some(LONGEST_MESSAGE))
        .max_frame_size(Some(LONGEST_MESSAGE))
        .max_write_buffer_size(WRITE_BUFFER);
    #[expect(clippy::result_large_err, reason = "the crate's signature")]
    let check = |request: &Request, response: Response| match door.refuses(request) {
        None => Ok(response),
        Some(reason) => {
            let mut refusal = ErrorResponse::new(Some(reason.into()));
            *refusal.status_mut() = StatusCode::FORBIDDEN;
            Err(refusal)
        }
    };
    let handshake = timeout(HANDSHAKE, accept_hdr_async_with_config(stream, check, Some(config))).await;
    let Ok(Ok(socket)) = handshake else { return say("was not let in") };
    say("joins");
    let (near, far) = cable();
    switch.connect(far);
    let Port { sender, mut receiver } = near;
    let (mut to_client, mut from_client) = socket.split();
    let down = async {
        while let Some(frame) = receiver.recv().await {
            if to_client.send(Message::Binary(frame.into())).await.is_err() {
                return;
            }
        }
    };
    let up = async {
        // Pings are answered by the next call, whatever else comes.
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(frame) if sender.send(frame.into()).await.is_err() => return,
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    select(pin!(down), pin!(up)).await;
    say("leaves");
}

impl Door {
    /// Why a client is not let in, if it is not.
    fn refuses(&self, request: &Request) -> Option<&'static str> {
        let origin = request.headers().get("origin").map(|origin| origin.to_str().unwrap_or("null"));
        if origin.is_some_and(|origin| !self.knows(origin)) {
            return Some("The page comes from a site that was not allowed; allow it with --allow-origin\n");
        }
        let query = request.uri().query().unwrap_or_default();
        let given = query.split('&').find_map(|part| part.strip_prefix("token="));
        match &self.token {
            Some(token) if given.is_none_or(|given| !same(given.as_bytes(), token.as_bytes())) => {
                Some("The token in the URL is missing or wrong: ws://…/?token=TOKEN\n")
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
        ["localhost", "127.0.0.1", "::1"].contains(&host) || self.origins.iter().any(|known| known == origin)
    }
}

/// Compares without telling by the time where two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(token: Option<&str>) -> Door {
        Door {
            listen: ([127, 0, 0, 1], 0).into(),
            token: token.map(str::to_owned),
            origins: vec!["https://example.test".into()],
            clients: 4,
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
        let inside =
            [None, Some("http://localhost:8000"), Some("http://[::1]"), Some("https://example.test")];
        for origin in inside {
            assert_eq!(door.refuses(&asks("/", origin)), None, "{origin:?}");
        }
        let outside =
            ["https://evil.test", "http://localhost.evil.test", "https://example.test.evil", "null", ""];
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
}
