//! What the guest may reach.
//!
//! It reaches the internet, but nothing that is the host's alone: its loopback and its links stay
//! closed unless a rule or a port opens them. A rule that names a host holds for the addresses that
//! the name had when the guest asked for it, and only for addresses of the internet: who rules the
//! name does not thereby rule what of the host's network the guest can reach.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::{Duration, Instant};

use smoltcp::wire::Ipv4Cidr;
use thiserror::Error;

use super::{HOST, NETWORK};

/// Addresses of names that are remembered.
const PINS: usize = 4096;
/// How long an address stays a name's, however short its record lives.
const PINNED_FOR: Duration = Duration::from_secs(600);

/// A rule that is not understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no rule of the network; write HOST, HOST:PORT, ADDRESS/BITS or ADDRESS/BITS:PORT")]
pub struct RuleError(String);

/// Some part of the network: `example.org`, `*.example.org:443`, `10.0.0.0/8`, `1.2.3.4:53`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    whom: Whom,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    Addresses(Ipv4Cidr),
    /// A name, and whether the names below it are meant instead.
    Name(String, bool),
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let error = || RuleError(text.into());
        let (whom, port) = match text.split_once(':') {
            Some((whom, port)) => (whom, Some(port.parse().map_err(|_| error())?)),
            None => (text, None),
        };
        let (address, bits) = whom.split_once('/').map_or((whom, None), |(a, b)| (a, Some(b)));
        let whom = match address.parse::<Ipv4Addr>() {
            Ok(address) => {
                let bits = bits.map_or(Ok(32), str::parse::<u8>).ok().filter(|bits| *bits <= 32);
                Whom::Addresses(Ipv4Cidr::new(address, bits.ok_or_else(error)?))
            }
            Err(_) => {
                let (name, below) = whom.strip_prefix("*.").map_or((whom, false), |name| (name, true));
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                let numeric = name.rsplit('.').next().is_some_and(|l| l.chars().all(|c| c.is_ascii_digit()));
                if bits.is_some()
                    || numeric
                    || !name.chars().all(letter)
                    || super::dns::encode_name(&name).is_none()
                {
                    return Err(error());
                }
                Whom::Name(name, below)
            }
        };
        Ok(Self { whom, port })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.whom {
            Whom::Addresses(cidr) => write!(f, "{cidr}")?,
            Whom::Name(name, false) => write!(f, "{name}")?,
            Whom::Name(name, true) => write!(f, "*.{name}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Rule {
    fn names(&self, name: &str) -> bool {
        match &self.whom {
            Whom::Addresses(_) => false,
            Whom::Name(own, false) => own == name,
            Whom::Name(own, true) => name.strip_suffix(own.as_str()).is_some_and(|rest| rest.ends_with('.')),
        }
    }
}

/// What the user says about the guest's reach.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Nothing is allowed but what a rule allows.
    pub restrict: bool,
    /// What is allowed.
    pub allow: Vec<Rule>,
    /// What is not, even if another rule allows it.
    pub deny: Vec<Rule>,
    /// Ports of the host's loopback that the guest reaches as `host.env86.internal`.
    pub host_ports: Vec<u16>,
}

/// Whether and where a packet of the guest's goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To this address, as the host sees it.
    Reach(SocketAddrV4),
    /// Nowhere.
    Deny,
}

/// The list that a rule stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Allow,
    Deny,
}

/// The rules, and the addresses of the names that they hold for.
#[derive(Debug)]
pub struct Policy {
    rules: Rules,
    /// Until when an address is that of a name that the rule of this number is about.
    pins: HashMap<(Ipv4Addr, Side, usize), Instant>,
}

impl Policy {
    /// A policy that has seen no names yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, pins: HashMap::new() }
    }

    /// Where a packet to an address goes.
    pub fn decide(&self, to: SocketAddrV4, now: Instant) -> Verdict {
        let (address, port) = (*to.ip(), to.port());
        if address == HOST {
            let open = self.rules.host_ports.contains(&port);
            return if open {
                Verdict::Reach(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
            } else {
                Verdict::Deny
            };
        }
        let never = address.is_unspecified() || address.is_broadcast() || address.is_multicast();
        if never || NETWORK.contains_addr(&address) {
            return Verdict::Deny;
        }
        let open = !self.matches(Side::Deny, to, now)
            && (self.matches(Side::Allow, to, now) || !self.rules.restrict && !belongs_to_the_host(address));
        if open { Verdict::Reach(to) } else { Verdict::Deny }
    }

    fn side(&self, side: Side) -> &[Rule] {
        match side {
            Side::Allow => &self.rules.allow,
            Side::Deny => &self.rules.deny,
        }
    }

    fn matches(&self, side: Side, to: SocketAddrV4, now: Instant) -> bool {
        let pinned = |number| self.pins.get(&(*to.ip(), side, number)).is_some_and(|until| *until > now);
        let is_whom = |number, rule: &Rule| match rule.whom {
            Whom::Addresses(cidr) => cidr.contains_addr(to.ip()),
            Whom::Name(..) => pinned(number),
        };
        let mut rules = self.side(side).iter().enumerate();
        rules.any(|(number, rule)| rule.port.is_none_or(|port| port == to.port()) && is_whom(number, rule))
    }

    /// Whether the guest may ask for a name.
    pub fn may_resolve(&self, name: &str) -> bool {
        let named = |rules: &[Rule]| rules.iter().any(|rule| rule.names(name));
        // A rule for one port of a name leaves its others, so that its address has to be known.
        let denied = self.rules.deny.iter().any(|rule| rule.port.is_none() && rule.names(name));
        !denied && (!self.rules.restrict || named(&self.rules.allow))
    }

    /// A name has been resolved to these addresses: the rules about the name are about them.
    pub fn resolved(&mut self, name: &str, addresses: &[Ipv4Addr], lifetime: Duration, now: Instant) {
        for side in [Side::Allow, Side::Deny] {
            for number in 0..self.side(side).len() {
                if self.side(side)[number].names(name) {
                    let counts = |a: &&Ipv4Addr| side == Side::Deny || is_of_the_internet(**a);
                    addresses.iter().filter(counts).for_each(|a| self.pin((*a, side, number), lifetime, now));
                }
            }
        }
    }

    fn pin(&mut self, pin: (Ipv4Addr, Side, usize), lifetime: Duration, now: Instant) {
        if self.pins.len() >= PINS {
            self.pins.retain(|_, until| *until > now);
        }
        if self.pins.len() < PINS {
            self.pins.insert(pin, now + lifetime.max(PINNED_FOR));
        }
    }
}

/// Addresses that mean the host itself or one of its links.
fn belongs_to_the_host(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_link_local() || address.octets()[0] == 0
}

fn is_of_the_internet(address: Ipv4Addr) -> bool {
    let shared = Ipv4Cidr::new(Ipv4Addr::new(100, 64, 0, 0), 10);
    !(belongs_to_the_host(address)
        || address.is_private()
        || address.is_broadcast()
        || address.is_multicast()
        || shared.contains_addr(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn reaches(policy: &Policy, to: &str) -> bool {
        let to: SocketAddrV4 = to.parse().unwrap();
        policy.decide(to, Instant::now()) == Verdict::Reach(to)
    }

    #[test]
    fn rules_are_read_and_written() {
        for good in ["example.org", "*.example.org:443", "10.0.0.0/8", "1.2.3.4/32:53"] {
            assert_eq!(good.parse::<Rule>().unwrap().to_string(), good);
        }
        assert_eq!("Example.ORG.".parse::<Rule>().unwrap().to_string(), "example.org");
        assert_eq!("1.2.3.4".parse::<Rule>().unwrap().to_string(), "1.2.3.4/32");
        for bad in ["", ":80", "a:b", "1.2.3.4/33", "1.2.3", "a..b", "x/8", "a b", "*", "1.2.3.4:99999"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_internet_is_open_and_the_host_is_not() {
        let policy = Policy::new(Rules { host_ports: vec![8080], ..Rules::default() });
        assert!(reaches(&policy, "8.8.8.8:53") && reaches(&policy, "10.1.2.3:80"));
        for closed in [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "169.254.169.254:80",
            "0.0.0.0:80",
            "255.255.255.255:67",
            "224.0.0.1:1",
        ] {
            assert!(!reaches(&policy, closed), "{closed}");
        }
        assert!(!reaches(&policy, "192.168.127.1:22") && !reaches(&policy, "192.168.127.9:22"));
        let to_host = |port| policy.decide(SocketAddrV4::new(HOST, port), Instant::now());
        assert_eq!(to_host(8080), Verdict::Reach("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(to_host(8081), Verdict::Deny);
    }

    #[test]
    fn rules_open_and_close() {
        let policy = Policy::new(Rules {
            restrict: true,
            allow: rules(&["10.0.0.0/8:80", "127.0.0.1"]),
            deny: rules(&["10.1.0.0/16"]),
            host_ports: Vec::new(),
        });
        assert!(reaches(&policy, "10.2.0.1:80") && reaches(&policy, "127.0.0.1:5000"));
        assert!(!reaches(&policy, "10.2.0.1:81") && !reaches(&policy, "10.1.0.1:80"));
        assert!(!reaches(&policy, "8.8.8.8:80"));
    }

    #[test]
    fn a_name_opens_the_addresses_of_the_internet_that_it_had() {
        let allow = rules(&["example.org:443", "*.example.net"]);
        let mut policy = Policy::new(Rules { restrict: true, allow, ..Rules::default() });
        assert!(policy.may_resolve("example.org") && policy.may_resolve("a.b.example.net"));
        assert!(!policy.may_resolve("example.net") && !policy.may_resolve("xexample.net"));
        let now = Instant::now();
        let addresses = [[93, 184, 0, 1].into(), [10, 0, 0, 1].into(), [127, 0, 0, 1].into()];
        policy.resolved("example.org", &addresses, Duration::ZERO, now);
        assert!(reaches(&policy, "93.184.0.1:443"));
        assert!(!reaches(&policy, "93.184.0.1:80"), "another port");
        assert!(!reaches(&policy, "10.0.0.1:443") && !reaches(&policy, "127.0.0.1:443"), "rebound");
        let later = now + PINNED_FOR;
        assert_eq!(policy.decide("93.184.0.1:443".parse().unwrap(), later), Verdict::Deny);
        for n in 0..10_000u32 {
            policy.resolved("a.example.net", &[Ipv4Addr::from_bits(0x0800_0000 + n)], Duration::ZERO, now);
        }
        assert_eq!(policy.pins.len(), PINS);
    }
}
