//! `env86 network`: a network that machines in pages and elsewhere join.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::net::{Config, Door, Forwards, Limits, Relay, Rule, Rules};

use super::{CliError, Outcome};

/// How often it is looked whether someone wants the end.
const LOOK: Duration = Duration::from_millis(200);

/// Run a network that machines in pages (v86, env86) and elsewhere (boot --net-join) share
#[derive(Args, Debug)]
pub struct Network {
    /// Where clients find it; port 0 is a free one. Others than this host can reach it only if this says so
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Let only those in whose URL has ?token=TOKEN
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    token: Option<String>,

    /// Let pages of this site in, such as https://example.org, beside those of this host; null is for pages that
    /// are files. May be given many times
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,

    /// Machines at once
    #[arg(long, value_name = "N", default_value_t = Limits::default().clients)]
    clients: usize,

    /// Frames that one machine may send in a second; it has to wait with more
    #[arg(long, value_name = "N", default_value_t = Limits::default().frames)]
    client_frames: u32,

    /// Bytes that one machine may send in a second; it has to wait with more
    #[arg(long, value_name = "N", default_value_t = Limits::default().bytes)]
    client_bytes: u32,

    /// A port of this host that leads to one of the newest machine's: [ADDRESS:]HOST:GUEST[/udp]
    #[arg(short = 'p', value_name = "HOST:GUEST")]
    forwards: Vec<Forwards>,

    /// Let machines reach this port of the host's loopback, as host.env86.internal:PORT
    #[arg(long, value_name = "PORT")]
    allow_host: Vec<u16>,

    /// Let machines reach nothing but what --net-allow and --allow-host say
    #[arg(long)]
    net_restrict: bool,

    /// Let machines reach this: HOST, HOST:PORT, ADDRESS/BITS or ADDRESS/BITS:PORT
    #[arg(long, value_name = "WHERE")]
    net_allow: Vec<Rule>,

    /// Never let machines reach this
    #[arg(long, value_name = "WHERE")]
    net_deny: Vec<Rule>,

    /// Say each connection, to stderr
    #[arg(long)]
    net_log: bool,

    /// Record all frames of the gateway in this file, for tcpdump or Wireshark
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// A token that can stand in a URL as it is.
fn token(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => Ok(text.into()),
        false => Err("a token has letters, digits and - . _ ~ only".into()),
    }
}

impl Network {
    /// Runs the network until it is interrupted.
    pub fn run(self) -> Result<Outcome, CliError> {
        let rules = Rules {
            restrict: self.net_restrict,
            allow: self.net_allow,
            deny: self.net_deny,
            host_ports: self.allow_host,
        };
        let forwards: Vec<_> = self.forwards.into_iter().flat_map(|forwards| forwards.0).collect();
        let mut config = Config { rules, forwards, pcap: self.pcap, ..Config::default() };
        if self.net_log {
            config.log = Some(Arc::new(|text| eprintln!("env86: {text}")));
        }
        let open = self.token.is_none() && !self.listen.ip().is_loopback();
        if open {
            eprintln!("env86: whoever reaches {} can join; --token TOKEN keeps others out", self.listen);
        }
        let query = self.token.as_ref().map(|token| format!("/?token={token}")).unwrap_or_default();
        let door = Door {
            listen: self.listen,
            token: self.token,
            origins: self.allow_origin,
            limits: Limits { clients: self.clients, frames: self.client_frames, bytes: self.client_bytes },
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        flag_when_interrupted(&interrupted)?;
        let relay = Relay::start(config, door)?;
        println!("Network URL: ws://{}{query}", relay.address());
        for forward in relay.forwards() {
            eprintln!("env86: {} leads to the newest machine's port {}", forward.listen, forward.guest);
        }
        while !interrupted.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
        }
        Ok(Outcome::SUCCESS)
    }
}
