//! Ports of the host's that lead into the guest: `-p [ADDR:]HOST:GUEST[/udp]`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};

use crate::os::LocalListener;

/// A forward that is not understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` is no port forward; write [ADDRESS:]HOST:GUEST with port numbers or ranges of the same length, \
     and /udp behind it for UDP, or PATH:GUEST for a Unix socket"
)]
pub struct ForwardError(String);

/// Where the host listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At a TCP port; at a free one if the port is 0.
    Tcp(SocketAddr),
    /// At a UDP port; at a free one if the port is 0.
    Udp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Udp(address) => write!(f, "{address}/udp"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One port of the host's and the guest's port that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where the host listens.
    pub listen: Listen,
    /// The guest's port.
    pub guest: u16,
}

/// What one `-p` says: one forward, or a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwards(pub Vec<Forward>);

impl FromStr for Forwards {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        parse(text).map(Self).ok_or_else(|| ForwardError(text.into()))
    }
}

fn parse(text: &str) -> Option<Vec<Forward>> {
    let (ports, udp) = match text.rsplit_once('/') {
        Some((ports, "udp")) => (ports, true),
        Some((ports, "tcp")) => (ports, false),
        _ => (text, false),
    };
    let (host, guest) = ports.rsplit_once(':')?;
    if host.contains('/') {
        let [guest] = port_range(guest)?[..] else { return None };
        let path = host.strip_prefix("unix:").unwrap_or(host);
        return (!udp).then(|| vec![Forward { listen: Listen::Unix(path.into()), guest }]);
    }
    let (address, host) = match host.rsplit_once(':') {
        Some((address, host)) => {
            let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            (address.parse::<IpAddr>().ok()?, host)
        }
        None => (Ipv4Addr::LOCALHOST.into(), host),
    };
    let host = if host == "0" { vec![0] } else { port_range(host)? };
    let guest = port_range(guest)?;
    let listen = |port| {
        let address = SocketAddr::new(address, port);
        if udp { Listen::Udp(address) } else { Listen::Tcp(address) }
    };
    let pairs = host.iter().zip(&guest).map(|(host, guest)| Forward { listen: listen(*host), guest: *guest });
    (host.len() == guest.len()).then(|| pairs.collect())
}

/// `80`, or `8000-8010`.
fn port_range(text: &str) -> Option<Vec<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse().ok()?);
    (first != 0 && first <= last).then(|| (first..=last).collect())
}

/// A forward cannot be had.
#[derive(Debug, Error)]
#[error("Cannot listen at {listen} for the guest's port {guest}")]
pub struct ListenError {
    listen: Listen,
    guest: u16,
    source: io::Error,
}

/// A socket of the host's that waits for the guest's clients.
#[derive(Debug)]
pub enum Socket {
    /// For TCP.
    Tcp(TcpListener),
    /// For UDP.
    Udp(UdpSocket),
    /// For a Unix socket, which is removed in the end.
    Unix(LocalListener),
}

impl Forward {
    /// Listens; gives the socket and the forward with the port that it is at.
    pub fn listen(&self) -> Result<(Socket, Self), ListenError> {
        let error = |source| ListenError { listen: self.listen.clone(), guest: self.guest, source };
        let (socket, listen) = open(&self.listen).map_err(error)?;
        Ok((socket, Self { listen, guest: self.guest }))
    }
}

fn open(listen: &Listen) -> io::Result<(Socket, Listen)> {
    Ok(match listen {
        Listen::Tcp(address) => {
            let socket = std::net::TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let listen = Listen::Tcp(socket.local_addr()?);
            (Socket::Tcp(TcpListener::from_std(socket)?), listen)
        }
        Listen::Udp(address) => {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            let listen = Listen::Udp(socket.local_addr()?);
            (Socket::Udp(UdpSocket::from_std(socket)?), listen)
        }
        Listen::Unix(path) => (Socket::Unix(LocalListener::bind(path)?), listen.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(listen: &str, guest: u16) -> Forward {
        Forward { listen: Listen::Tcp(listen.parse().unwrap()), guest }
    }

    #[test]
    fn forwards_are_read() {
        let read = |text: &str| text.parse::<Forwards>().map(|forwards| forwards.0);
        assert_eq!(read("8080:80"), Ok(vec![tcp("127.0.0.1:8080", 80)]));
        assert_eq!(read("0:22/tcp"), Ok(vec![tcp("127.0.0.1:0", 22)]));
        assert_eq!(read("0.0.0.0:8080:80"), Ok(vec![tcp("0.0.0.0:8080", 80)]));
        assert_eq!(read("[::1]:8080:80"), Ok(vec![tcp("[::1]:8080", 80)]));
        assert_eq!(read("5000-5001:80-81"), Ok(vec![tcp("127.0.0.1:5000", 80), tcp("127.0.0.1:5001", 81)]));
        let udp = Listen::Udp("127.0.0.1:53".parse().unwrap());
        assert_eq!(read("53:5353/udp"), Ok(vec![Forward { listen: udp, guest: 5353 }]));
        let unix = Listen::Unix("/tmp/ssh.sock".into());
        assert_eq!(read("/tmp/ssh.sock:22"), Ok(vec![Forward { listen: unix, guest: 22 }]));
        for bad in [
            "",
            "80",
            ":80",
            "80:",
            "1-3:5-6",
            "8:0",
            "99999:1",
            "x:8080:80",
            "/tmp/a:1-2",
            "3-1:3-1",
            "8:8/sctp",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_busy_port_is_an_error_and_a_free_one_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let (_first, bound) = tcp("127.0.0.1:0", 22).listen().unwrap();
        let Listen::Tcp(address) = bound.listen else { panic!("{bound:?}") };
        assert_ne!(address.port(), 0);
        let error = tcp(&address.to_string(), 22).listen().unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let unix = Forward { listen: Listen::Unix(dir.path().join("a.sock")), guest: 1 };
        let (socket, _) = unix.listen().unwrap();
        assert!(unix.listen().is_err(), "in use");
        drop(socket);
        unix.listen().unwrap();
    }
}
