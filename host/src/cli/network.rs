//! `env86 network`: a network that machines in pages and elsewhere join.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::net::{Door, Limits, Relay};

use super::net::Policy;
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

    /// Serve pages, too, that speak the wisp protocol, as v86's with a relay at wisp://ADDRESS:PORT/wisp/
    #[arg(long)]
    wisp: bool,

    #[command(flatten)]
    policy: Policy,
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
        let config = self.policy.config("\n");
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
            wisp: self.wisp,
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        flag_when_interrupted(&interrupted)?;
        let relay = Relay::start(config, door)?;
        println!("Network URL: ws://{}{query}", relay.address());
        if self.wisp {
            println!("Wisp URL: wisp://{}/wisp/{}", relay.address(), query.trim_start_matches('/'));
        }
        for forward in relay.forwards() {
            eprintln!("env86: {} leads to the newest machine's port {}", forward.listen, forward.guest);
        }
        while !interrupted.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
        }
        Ok(Outcome::SUCCESS)
    }
}
