//! `env86 network`: a network that pages of v86's and env86's join.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::net::{Config, Door, Forwards, Relay, Rule, Rules};

use super::{CliError, Outcome};

/// How often it is looked whether someone wants the end.
const LOOK: Duration = Duration::from_millis(200);

/// Run a network that pages of v86's and env86's join by a WebSocket
#[derive(Args, Debug)]
pub struct Network {
    /// Where clients find it; port 0 is a free one. Others than this host can reach it only if this says so
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Let only those in whose URL has ?token=TOKEN
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// Let pages of this site in, such as https://example.org, beside those of this host. May be given many
    /// times
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,

    /// Machines at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: usize,

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
        let forwards = self.forwards.into_iter().flat_map(|forwards| forwards.0).collect();
        let mut config = Config { rules, forwards, ..Config::default() };
        if self.net_log {
            config.log = Some(Arc::new(|text| eprintln!("env86: {text}")));
        }
        let open = self.token.is_none() && !self.listen.ip().is_loopback();
        let door = Door {
            listen: self.listen,
            token: self.token,
            origins: self.allow_origin,
            clients: self.clients,
        };
        if open {
            eprintln!("env86: whoever reaches {} can join; --token TOKEN keeps others out", door.listen);
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        flag_when_interrupted(&interrupted)?;
        let relay = Relay::start(config, door)?;
        println!("Network URL: ws://{}", relay.address());
        while !interrupted.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
        }
        Ok(Outcome::SUCCESS)
    }
}
