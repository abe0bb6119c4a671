//! The flags of the guest's network.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use env86::machine::{Machine, MachineBuilder, NetDevice};
use env86::net::{Config, Forwards, Join, Listen, Netboot, Rule, Rules};

/// The guest's network.
#[derive(Args, Debug)]
#[command(mut_group("policy", |group| group.requires("net")))]
pub struct Net {
    /// A network for the guest: an address by DHCP, and the internet through this host
    #[arg(short = 'n', long)]
    net: bool,

    /// A network that the guest shares with machines elsewhere: the URL that `env86 network` prints, or that of
    /// another relay for v86
    #[arg(long, value_name = "URL", conflicts_with = "net")]
    net_join: Option<Join>,

    /// The network card; else as the image says, or ne2k
    #[arg(long, value_name = "CARD")]
    net_device: Option<Card>,

    #[command(flatten)]
    policy: Policy,
}

/// What a network lets guests reach, and what leads in.
#[derive(Args, Debug)]
#[group(id = "policy", multiple = true)]
pub struct Policy {
    /// A port of this host that leads to one of the guest's, of several guests to the newest one's:
    /// [ADDRESS:]HOST:GUEST[/udp], ranges of ports, or PATH:GUEST for a Unix socket. HOST 0 is a free port, which
    /// is printed. May be given many times
    #[arg(short = 'p', value_name = "HOST:GUEST")]
    forwards: Vec<Forwards>,

    /// Let the guest reach this port of the host's loopback, as host.env86.internal:PORT. May be given
    /// many times
    #[arg(long, value_name = "PORT")]
    allow_host: Vec<u16>,

    /// Let the guest reach nothing but what --net-allow and --allow-host say
    #[arg(long)]
    net_restrict: bool,

    /// Let the guest reach this: HOST, HOST:PORT, ADDRESS/BITS or ADDRESS/BITS:PORT. May be given many
    /// times
    #[arg(long, value_name = "WHERE")]
    net_allow: Vec<Rule>,

    /// Never let the guest reach this. May be given many times
    #[arg(long, value_name = "WHERE")]
    net_deny: Vec<Rule>,

    /// Say each connection of the guest's, to stderr
    #[arg(long)]
    net_log: bool,

    /// IPv6, too: the guest makes its addresses of fd5a:94ef:e40c::/64, and reaches what this host reaches
    #[arg(long)]
    ipv6: bool,

    /// Let guests start from this directory over the network (DHCP and TFTP): iPXE its boot.ipxe, others pxelinux.0
    /// or undionly.kpxe
    #[arg(long, value_name = "DIR")]
    netboot: Option<PathBuf>,

    /// What they start instead, a file in that directory
    #[arg(long, value_name = "FILE", requires = "netboot")]
    netboot_file: Option<String>,

    /// Record all frames of the gateway in this file, for tcpdump or Wireshark
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

impl Policy {
    /// The network that was asked for. Each line of its log has this end.
    pub fn config(&self, line_end: &'static str) -> Config {
        let rules = Rules {
            restrict: self.net_restrict,
            allow: self.net_allow.clone(),
            deny: self.net_deny.clone(),
            host_ports: self.allow_host.clone(),
        };
        let mut config = Config { rules, pcap: self.pcap.clone(), ipv6: self.ipv6, ..Config::default() };
        let file = self.netboot_file.clone();
        config.netboot = self.netboot.clone().map(|directory| Netboot { directory, file });
        config.forwards.extend(self.forwards.iter().flat_map(|forwards| forwards.0.clone()));
        if self.net_log {
            config.log = Some(Arc::new(move |text| eprint!("env86: {text}{line_end}")));
        }
        config
    }
}

/// A network card by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Card {
    /// NE2000 on PCI (RTL8029)
    Ne2k,
    /// Virtio, for much data
    Virtio,
    /// No card
    None,
}

impl Net {
    /// Adds the card and the network to a machine. With a raw terminal each line of the log returns to its start.
    pub fn add_to(&self, mut builder: MachineBuilder, raw_terminal: bool) -> MachineBuilder {
        if let Some(card) = self.net_device {
            builder = builder.net_device(match card {
                Card::Ne2k => NetDevice::Ne2k,
                Card::Virtio => NetDevice::Virtio,
                Card::None => NetDevice::None,
            });
        }
        if let Some(join) = &self.net_join {
            return builder.network(join.clone());
        }
        if !self.net {
            return builder;
        }
        builder.network(self.policy.config(if raw_terminal { "\r\n" } else { "\n" }))
    }

    /// The guest has a network.
    pub fn connected(&self) -> bool {
        self.net || self.net_join.is_some()
    }

    /// Says which ports were found where any free one was asked for.
    pub fn say_ports(&self, machine: &Machine) {
        let asked = self.policy.forwards.iter().flat_map(|forwards| &forwards.0);
        for (asked, bound) in asked.zip(machine.forwards()) {
            if let Listen::Tcp(address) | Listen::Udp(address) = &asked.listen
                && address.port() == 0
            {
                eprintln!("env86: {} leads to the guest's port {}", bound.listen, bound.guest);
            }
        }
    }
}
