//! The user-mode network: a network of its own for the guest, without privileges on the host.
//!
//! ```text
//!   card ── cable ──[ recorder, faults, switch ]── cable ── gateway ── sockets of the host
//! ```
//!
//! The guest is at 192.168.127.2 and upwards, by DHCP. The gateway at 192.168.127.1 answers ARP,
//! DHCP, DNS, NTP and pings itself; for each TCP connection and UDP flow of the guest's it opens a
//! socket of the host's. A connection is answered only when the host's has been made, so that the
//! guest sees a refusal as a refusal. 192.168.127.254, `host.env86.internal`, leads to those ports of
//! the host's loopback that were opened.
//!
//! All of it runs on one thread, which the machine reaches over a [`Port`] only.

mod cable;
mod dhcp;
mod dns;
mod forward;
mod fragments;
mod gateway;
mod packet;
mod policy;
mod relay;
mod switch;
mod tcp;
mod udp;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use env86_devices::Entropy;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
use thiserror::Error;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::machine::OsEntropy;

use gateway::Gateway;

pub use cable::{Faults, Frame, Pcap, Port, cable, disturb, record};
pub use dns::{Settings as NameSettings, Source as NameSource};
pub use forward::{Forward, ForwardError, Forwards, Listen, ListenError};
pub use policy::{Rule, RuleError, Rules};
pub use relay::{Door, DoorError, Relay};
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
    /// The guest's card takes TCP segments of up to 64 KiB. A machine knows that of its card.
    pub large_frames: bool,
    /// A fault in the cable, for tests.
    pub faults: Option<Faults>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rules, forwards, pcap, log, names, large_frames, faults } = self;
        f.debug_struct("Config")
            .field("rules", rules)
            .field("forwards", forwards)
            .field("pcap", pcap)
            .field("log", &log.is_some())
            .field("names", names)
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
            large_frames: false,
            faults: None,
        }
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
    /// The recording cannot be begun.
    #[error("Cannot write the recording of frames to `{}`", path.display())]
    Pcap {
        /// The file.
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

/// A gateway, on the runtime that this is called in: the end of its cable that is for guests, and the
/// forwards as they were found.
fn gateway(config: Config) -> Result<(Port, Vec<Forward>, Gateway), NetError> {
    let mut sockets = Vec::with_capacity(config.forwards.len());
    let mut forwards = Vec::with_capacity(config.forwards.len());
    for forward in &config.forwards {
        let (socket, bound) = forward.listen()?;
        sockets.push((socket, bound.guest));
        forwards.push(bound);
    }
    let (guest, mut port) = cable();
    if let Some(faults) = config.faults {
        port = disturb(port, faults);
    }
    if let Some(path) = config.pcap.clone() {
        let pcap = File::create(&path).and_then(Pcap::new);
        port = record(port, pcap.map_err(|source| NetError::Pcap { path, source })?);
    }
    Ok((guest, forwards, Gateway::new(port, config, sockets)))
}

/// A network that runs in a thread of its own. Dropping it ends it and all connections.
#[derive(Debug)]
pub struct Network {
    forwards: Vec<Forward>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Starts a network; gives it with the end of the cable that the guest's card is for. All ports
    /// of the host's are open when this returns.
    pub fn start(config: Config) -> Result<(Self, Port), NetError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(NetError::Thread)?;
        let entered = runtime.enter();
        let (guest, forwards, gateway) = gateway(config)?;
        drop(entered);
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            runtime.block_on(async {
                tokio::spawn(gateway.run());
                // The other end is dropped when it is time.
                let _ = stopped.await;
            });
        };
        let thread = thread::Builder::new().name("network".into()).spawn(work).map_err(NetError::Thread)?;
        Ok((Self { forwards, stop: Some(stop), thread: Some(thread) }, guest))
    }

    /// The forwards, with the ports that they are at.
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported already.
            let _ = thread.join();
        }
    }
}
