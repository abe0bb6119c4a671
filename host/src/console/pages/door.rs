//! Who comes in: what a connection asks first, and whether it may.
//!
//! A page of any site can send requests and open WebSockets to the loopback. So whoever asks for the machine has to know
//! a token, which is in the URL that is printed; a page has to be one of ours (`Origin`); and while only this computer can
//! come here, requests have to name it (`Host`).

use std::io;
use std::net::IpAddr;
use std::str::FromStr;

use tiny_http::{Header, Method};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::web::{Asked, same, token_in};

/// Bytes of the longest request that is read.
const LONGEST_HEAD: usize = 16 << 10;
/// Headers of a request at most.
const HEADERS: usize = 64;
/// Bytes of a token, which no one can guess.
const TOKEN: usize = 16;

/// What a URL gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// To see the machine.
    See,
    /// To use it.
    Use,
}

/// The tokens, and who may come.
pub(super) struct Door {
    /// For using the machine.
    pub token: String,
    /// For seeing it.
    pub view_token: String,
    /// Only this computer can come here.
    local: bool,
}

impl Door {
    /// A door at this address, with tokens of its own.
    pub fn new(address: IpAddr) -> io::Result<Self> {
        Ok(Self { token: token()?, view_token: token()?, local: address.is_loopback() })
    }

    /// Why a request is not answered, whatever it is for.
    pub fn refuses(&self, asked: &Asked) -> Option<&'static str> {
        if self.local && !asked.is_local() {
            return Some("This is for this computer alone; open it as localhost\n");
        }
        let site = |origin: &str| origin.split_once("://").map(|(_, site)| site.to_owned());
        let own = asked.header("Host");
        let foreign = asked.header("Origin").is_some_and(|origin| site(origin).as_deref() != own);
        foreign.then_some("The page comes from another site\n")
    }

    /// What the token in a URL gives.
    pub fn access(&self, url: &str) -> Option<Access> {
        let given = url.split_once('?').and_then(|(_, query)| token_in(query))?;
        // Both are looked at, whichever it is.
        match (same(given, &self.token), same(given, &self.view_token)) {
            (true, _) => Some(Access::Use),
            (_, true) => Some(Access::See),
            _ => None,
        }
    }
}

fn token() -> io::Result<String> {
    let mut bytes = [0; TOKEN];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A request, without what may follow it.
#[derive(Debug)]
pub(super) struct Head {
    /// All that was read.
    pub bytes: Vec<u8>,
    method: Method,
    url: String,
    headers: Vec<Header>,
}

impl Head {
    /// Reads a request; `None` if it is none.
    pub async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        loop {
            let room = LONGEST_HEAD.checked_sub(bytes.len()).filter(|room| *room > 0)?;
            let read = (&mut *stream).take(room as u64).read_buf(&mut bytes).await.ok()?;
            if read == 0 {
                return None;
            }
            if let Some(head) = Self::parse(&bytes)? {
                return Some(head);
            }
        }
    }

    /// Takes a request apart: `Some(None)` if there has to come more, `None` if it is none.
    fn parse(bytes: &[u8]) -> Option<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(bytes).ok()?.is_partial() {
            return Some(None);
        }
        let headers = request.headers.iter();
        let headers = headers.filter_map(|header| Header::from_bytes(header.name, header.value).ok());
        Some(Some(Self {
            bytes: bytes.to_vec(),
            method: Method::from_str(request.method?).ok()?,
            url: request.path?.to_owned(),
            headers: headers.collect(),
        }))
    }

    /// What is asked.
    pub fn asked(&self) -> Asked<'_> {
        Asked { method: &self.method, url: &self.url, headers: &self.headers }
    }

    /// It wants to go on as a WebSocket.
    pub fn wants_socket(&self) -> bool {
        self.asked().header("Upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket"))
    }

    /// It names this among the protocols that it speaks then.
    pub fn speaks(&self, protocol: &str) -> bool {
        let known = self.asked().header("Sec-WebSocket-Protocol");
        known.is_some_and(|known| known.split(',').any(|one| one.trim() == protocol))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn head(text: &str) -> Head {
        Head::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn requests_are_taken_apart() {
        let text = "GET /ctl?token=x HTTP/1.1\r\nHost: a\r\nupgrade: WebSocket\r\nSec-WebSocket-Protocol: b, c\r\n\r\n";
        let asks = head(text);
        assert_eq!((asks.asked().url, asks.wants_socket()), ("/ctl?token=x", true));
        assert_eq!([asks.speaks("b"), asks.speaks("c"), asks.speaks("d")], [true, true, false]);
        for length in 0..text.len() {
            assert!(Head::parse(&text.as_bytes()[..length]).unwrap().is_none(), "{length}");
        }
        for noise in [&b"\0\xff\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
            assert!(Head::parse(noise).is_none());
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        assert!(Head::parse(many.as_bytes()).is_none());
    }

    #[test]
    fn a_token_says_what_may_be_done() {
        let door = Door::new(Ipv4Addr::LOCALHOST.into()).unwrap();
        let of = |token: &str| door.access(&format!("/ctl?x=1&token={token}"));
        assert_eq!(of(&door.token), Some(Access::Use));
        assert_eq!(of(&door.view_token), Some(Access::See));
        assert_ne!(door.token, door.view_token);
        for wrong in ["", &door.token[1..], &format!("{}0", door.token)] {
            assert_eq!(of(wrong), None);
        }
        assert_eq!(door.access("/ctl"), None);
    }

    #[test]
    fn other_sites_and_other_names_stay_outside() {
        let door = Door::new(Ipv4Addr::LOCALHOST.into()).unwrap();
        let refused = |door: &Door, host: &str, origin: &str| {
            let origin = if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
            let head = head(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n"));
            door.refuses(&head.asked()).is_some()
        };
        for (host, origin) in
            [("localhost:80", "http://localhost:80"), ("127.0.0.1:80", ""), ("[::1]:80", "http://[::1]:80")]
        {
            assert!(!refused(&door, host, origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("example.com", ""),
            ("example.com", "http://example.com"),
            ("localhost:80", "http://localhost:81"),
            ("localhost:80", "http://example.com"),
            ("localhost:80", "null"),
        ] {
            assert!(refused(&door, host, origin), "{host} {origin}");
        }
        let open = Door::new(Ipv4Addr::UNSPECIFIED.into()).unwrap();
        assert!(!refused(&open, "example.com", "https://example.com"));
        assert!(refused(&open, "example.com", "https://example.org"));
    }
}
