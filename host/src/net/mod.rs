//! The user-mode network: a network of its own for the guest, without privileges on the host.
//!
//! ```text
//!   card ── cable ──[ recorder, faults, switch ]── cable ── gateway ── sockets of the host
//! ```
//!
//! The guest is at 192.168.127.2 and upwards, by DHCP. The gateway at 192.168.127.1 answers ARP,
//! DHCP, DNS, NTP and pings itself; for each TCP connection and UDP flow of the guest's it opens a
//! socket of the host's. With IPv6 it says what the network's prefix is, and guests make their addresses of it;
//! the rest is as with IPv4. A connection is answered only when the host's has been made, so that the
//! guest sees a refusal as a refusal. 192.168.127.254, `host.env86.internal`, leads to those ports of
//! the host's loopback that were opened.
//!
//! All of it runs on one thread, which the machine reaches over a [`Port`] only. A [`Relay`] is such a
//! network for machines elsewhere, which reach it over WebSockets; [`Join`] plugs a machine of this program
//! into one.

mod cable;
mod dhcp;
mod dhcp6;
mod dns;
mod forward;
mod fragments;
mod gateway;
mod join;
mod ndp;
mod netboot;
mod ntp;
mod packet;
mod policy;
mod relay;
mod switch;
mod tcp;
mod tftp;
mod udp;
mod wisp;
mod worker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use env86_devices::Entropy;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr, Ipv6Cidr};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};

use crate::machine::OsEntropy;

use forward::Socket;
use gateway::Gateway;
pub(crate) use worker::Worker;

pub use cable::{Faults, Frame, Pcap, Port, cable, disturb, record};
pub use dns::{Settings as NameSettings, Source as NameSource};
pub use forward::{Forward, ForwardError, Forwards, Listen, ListenError};
pub(crate) use gateway::accepted;
pub use join::{Join, JoinError, UrlError};
pub use netboot::Netboot;
pub use policy::{Rule, RuleError, Rules};
pub(crate) use relay::{Allowance, PING, SILENCE};
pub use relay::{Door, DoorError, Limits, Relay};
pub use switch::Switch;

/// The guests' network.
pub const NETWORK: Ipv4Cidr = Ipv4Cidr::new(Ipv4Addr::new(192, 168, 127, 0), 24);
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);
/// The gateway's Ethernet address.
pub const GATEWAY_MAC: EthernetAddress = EthernetAddress([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd]);
/// What leads to the host.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 254);
/// The addresses that guests get.
pub const FIRST_GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 2);
const LAST_GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 249);
/// The guests' network of IPv6, of which they make their addresses themselves.
pub const NETWORK_V6: Ipv6Cidr = Ipv6Cidr::new(Ipv6Addr::new(0xfd5a, 0x94ef, 0xe40c, 0, 0, 0, 0, 0), 64);
/// The gateway there.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd5a, 0x94ef, 0xe40c, 0, 0, 0, 0, 1);
/// What leads to the host there.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd5a, 0x94ef, 0xe40c, 0, 0, 0, 0, 0xfe);
/// The gateway on the link.
const LINK_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The gateway, as one with this address knows it.
fn gateway(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { GATEWAY.into() } else { GATEWAY_V6.into() }
}

/// Who hears of connections.
pub type Log = Arc<dyn Fn(fmt::Arguments<'_>) + Send + Sync>;

/// What a network is to be like.
#[derive(Clone)]
pub struct Config {
    /// What the guest may reach.
    pub rules: Rules,
    /// Ports of the host's that lead into the guest.
    pub forwards: Vec<Forward>,
    /// A file that gets all frames, in pcap format.
    pub pcap: Option<PathBuf>,
    /// Who hears of each connection.
    pub log: Option<Log>,
    /// Where names are looked up.
    pub names: NameSource,
    /// What guests start from that ask the network.
    pub netboot: Option<Netboot>,
    /// There is IPv6, too.
    pub ipv6: bool,
    /// The guest's card takes TCP segments of up to 64 KiB. A machine knows that of its card.
    pub large_frames: bool,
    /// A fault in the cable, for tests.
    pub faults: Option<Faults>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rules, forwards, pcap, log, names, netboot, ipv6, large_frames, faults } = self;
        f.debug_struct("Config")
            .field("rules", rules)
            .field("forwards", forwards)
            .field("pcap", pcap)
            .field("log", &log.is_some())
            .field("names", names)
            .field("netboot", netboot)
            .field("ipv6", ipv6)
            .field("large_frames", large_frames)
            .field("faults", faults)
            .finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            forwards: Vec::new(),
            pcap: None,
            log: None,
            names: NameSource::Host,
            netboot: None,
            ipv6: false,
            large_frames: false,
            faults: None,
        }
    }
}

/// The network that a machine's card is plugged into.
#[derive(Clone, Debug)]
pub enum Wiring {
    /// One of its own.
    Own(Config),
    /// One that it shares with machines elsewhere.
    Join(Join),
}

impl Wiring {
    /// Whether there are other machines on it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Join(_))
    }
}

impl From<Config> for Wiring {
    fn from(config: Config) -> Self {
        Self::Own(config)
    }
}

impl From<Join> for Wiring {
    fn from(join: Join) -> Self {
        Self::Join(join)
    }
}

/// Why there is no network.
#[derive(Debug, Error)]
pub enum NetError {
    /// A forward cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Machines elsewhere cannot join.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// A network elsewhere cannot be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The recording cannot be begun.
    #[error("Cannot write the recording of frames to `{}`", path.display())]
    Pcap {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing that guests could start from.
    #[error("Cannot read the directory `{}` that guests are to start from", path.display())]
    Netboot {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No thread for the network.
    #[error("Cannot start the network's thread")]
    Thread(#[source] io::Error),
}

/// A number that no one can guess.
fn random() -> u32 {
    OsEntropy.next_u32()
}

pub(crate) fn runtime() -> Result<Runtime, NetError> {
    Builder::new_current_thread().enable_all().build().map_err(NetError::Thread)
}

/// What a network needs of the host, which it may not get.
struct Parts {
    config: Config,
    sockets: Vec<(Socket, u16)>,
    forwards: Vec<Forward>,
    pcap: Option<Pcap<File>>,
}

impl Parts {
    /// Opens ports and files, on the runtime that this is called in.
    fn open(config: Config) -> Result<Self, NetError> {
        let mut sockets = Vec::with_capacity(config.forwards.len());
        let mut forwards = Vec::with_capacity(config.forwards.len());
        for forward in &config.forwards {
            let (socket, bound) = forward.listen()?;
            sockets.push((socket, bound.guest));
            forwards.push(bound);
        }
        if let Some(Netboot { directory, .. }) = &config.netboot {
            let readable = std::fs::read_dir(directory).map(drop);
            readable.map_err(|source| NetError::Netboot { path: directory.clone(), source })?;
        }
        let pcap = config.pcap.clone().map(|path| {
            let pcap = File::create(&path).and_then(Pcap::new);
            pcap.map_err(|source| NetError::Pcap { path, source })
        });
        Ok(Self { config, sockets, forwards, pcap: pcap.transpose()? })
    }

    /// A gateway, and the end of its cable that is for guests.
    fn gateway(self) -> (Gateway, Port) {
        let (guest, mut port) = cable();
        if let Some(faults) = self.config.faults {
            port = disturb(port, faults);
        }
        if let Some(pcap) = self.pcap {
            port = record(port, pcap);
        }
        (Gateway::new(port, self.config, self.sockets), guest)
    }
}

/// A network that has all that it needs of the host, and has not started.
pub struct Prepared {
    runtime: Runtime,
    parts: Prepare,
}

enum Prepare {
    Own(Parts),
    Join(join::Joined),
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

impl Prepared {
    /// Starts the network; gives it with the end of the cable that the guest's card is for. `large_frames`
    /// says that the card takes TCP segments of up to 64 KiB.
    pub fn start(self, large_frames: bool) -> Result<(Network, Port), NetError> {
        let handle = self.runtime.handle().clone();
        let _entered = handle.enter();
        let (forwards, worker, guest) = match self.parts {
            Prepare::Own(mut parts) => {
                parts.config.large_frames = large_frames;
                let forwards = std::mem::take(&mut parts.forwards);
                let (gateway, guest) = parts.gateway();
                (forwards, Worker::start("network", self.runtime, gateway.run()), guest)
            }
            Prepare::Join(joined) => {
                let (guest, port) = cable();
                (Vec::new(), Worker::start("network", self.runtime, joined.run(port)), guest)
            }
        };
        Ok((Network { forwards, _worker: worker.map_err(NetError::Thread)? }, guest))
    }
}

/// A network that runs in a thread of its own. Dropping it ends it and all connections.
#[derive(Debug)]
pub struct Network {
    forwards: Vec<Forward>,
    _worker: Worker,
}

impl Network {
    /// Makes sure of what a network needs of the host: all ports are open when this returns, and a network
    /// elsewhere is joined.
    pub fn prepare(wiring: Wiring) -> Result<Prepared, NetError> {
        let runtime = runtime()?;
        let parts = match wiring {
            Wiring::Own(config) => {
                let _entered = runtime.enter();
                Prepare::Own(Parts::open(config)?)
            }
            Wiring::Join(join) => Prepare::Join(runtime.block_on(join.connect())?),
        };
        Ok(Prepared { runtime, parts })
    }

    /// Starts a network, as [`Self::prepare`] and [`Prepared::start`].
    pub fn start(config: Config) -> Result<(Self, Port), NetError> {
        let large_frames = config.large_frames;
        Self::prepare(config.into())?.start(large_frames)
    }

    /// The forwards, with the ports that they are at.
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }
}
