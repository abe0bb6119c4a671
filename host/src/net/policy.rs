//! What the guest may reach.
//!
//! It reaches the internet, but nothing that is the host's alone: its loopback and its links stay
//! closed unless a rule or a port opens them. A rule that names a host holds for the addresses that
//! the name had when the guest asked for it, and only for addresses of the internet: who rules the
//! name does not thereby rule what of the host's network the guest can reach.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use smoltcp::wire::{IpAddress, IpCidr, Ipv4Cidr};
use thiserror::Error;

use super::{HOST, HOST_V6, NETWORK, NETWORK_V6};

/// Addresses of names that are remembered.
const PINS: usize = 4096;
/// How long an address stays a name's, however short its record lives.
const PINNED_FOR: Duration = Duration::from_secs(600);

/// A rule that is not understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` is no rule of the network; write HOST, HOST:PORT, ADDRESS/BITS or ADDRESS/BITS:PORT, and before a port \
     an address of IPv6 in brackets: [ADDRESS/BITS]:PORT"
)]
pub struct RuleError(String);

/// Some part of the network: `example.org`, `*.example.org:443`, `10.0.0.0/8`, `1.2.3.4:53`, `2001:db8::/32`,
/// `[2001:db8::1]:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    whom: Whom,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    Addresses(IpCidr),
    /// A name, and whether the names below it are meant instead.
    Name(String, bool),
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let error = || RuleError(text.into());
        let (whom, port) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (whom, port) = bracketed.split_once(']').ok_or_else(error)?;
                let port = port.is_empty().then_some(None).or_else(|| port.strip_prefix(':').map(Some));
                (whom, port.ok_or_else(error)?)
            }
            // An address of IPv6 has more than one.
            None => match text.split_once(':').filter(|(_, rest)| !rest.contains(':')) {
                Some((whom, port)) => (whom, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map(str::parse).transpose().map_err(|_| error())?;
        let (address, bits) = whom.split_once('/').map_or((whom, None), |(a, b)| (a, Some(b)));
        let whom = match address.parse::<IpAddr>() {
            Ok(address) => {
                let most = if address.is_ipv4() { 32 } else { 128 };
                let bits = bits.map_or(Ok(most), str::parse::<u8>).ok().filter(|bits| *bits <= most);
                Whom::Addresses(IpCidr::new(address.into(), bits.ok_or_else(error)?))
            }
            Err(_) if text.starts_with('[') => return Err(error()),
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
            Whom::Addresses(cidr @ IpCidr::Ipv6(_)) if self.port.is_some() => write!(f, "[{cidr}]")?,
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
    Reach(SocketAddr),
    /// To this port of the host's own loopback.
    Host(u16),
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
    pins: HashMap<(IpAddr, Side, usize), Instant>,
}

impl Policy {
    /// A policy that has seen no names yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, pins: HashMap::new() }
    }

    /// Where a packet to an address goes.
    pub fn decide(&self, to: SocketAddr, now: Instant) -> Verdict {
        let (address, port) = (to.ip(), to.port());
        if [IpAddr::from(HOST), HOST_V6.into()].contains(&address) {
            return if self.rules.host_ports.contains(&port) { Verdict::Host(port) } else { Verdict::Deny };
        }
        let never = match address {
            IpAddr::V4(address) => address.is_broadcast() || NETWORK.contains_addr(&address),
            // What has an address of IPv4 in it would get past the rules about that.
            IpAddr::V6(address) => {
                NETWORK_V6.contains_addr(&address)
                    || address.segments()[..5] == [0; 5] && address != Ipv6Addr::LOCALHOST
            }
        };
        if never || address.is_unspecified() || address.is_multicast() {
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

    fn matches(&self, side: Side, to: SocketAddr, now: Instant) -> bool {
        let pinned = |number| self.pins.get(&(to.ip(), side, number)).is_some_and(|until| *until > now);
        let is_whom = |number, rule: &Rule| match rule.whom {
            Whom::Addresses(cidr) => cidr.contains_addr(&IpAddress::from(to.ip())),
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
    pub fn resolved(&mut self, name: &str, addresses: &[IpAddr], lifetime: Duration, now: Instant) {
        for side in [Side::Allow, Side::Deny] {
            for number in 0..self.side(side).len() {
                if self.side(side)[number].names(name) {
                    let counts = |a: &&IpAddr| side == Side::Deny || is_of_the_internet(**a);
                    addresses.iter().filter(counts).for_each(|a| self.pin((*a, side, number), lifetime, now));
                }
            }
        }
    }

    fn pin(&mut self, pin: (IpAddr, Side, usize), lifetime: Duration, now: Instant) {
        if self.pins.len() >= PINS {
            self.pins.retain(|_, until| *until > now);
        }
        if self.pins.len() < PINS {
            self.pins.insert(pin, now + lifetime.max(PINNED_FOR));
        }
    }
}

/// Addresses that mean the host itself or one of its links.
fn belongs_to_the_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.octets()[0] == 0,
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

fn is_of_the_internet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = Ipv4Cidr::new(Ipv4Addr::new(100, 64, 0, 0), 10);
            !(belongs_to_the_host(address)
                || v4.is_private()
                || v4.is_broadcast()
                || v4.is_multicast()
                || shared.contains_addr(&v4))
        }
        IpAddr::V6(v6) => {
            /// What stands for an address of IPv4, by a translator and by 6to4.
            const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];
            const SIX_TO_FOUR: u16 = 0x2002;
            let segments = v6.segments();
            let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into();
            match segments {
                [a, b, c, d, e, f, high, low] if [a, b, c, d, e, f] == TRANSLATED => {
                    is_of_the_internet(v4(high, low))
                }
                [SIX_TO_FOUR, high, low, ..] => is_of_the_internet(v4(high, low)),
                // Global unicast addresses (RFC 4291, 2.4).
                [first, ..] => first & 0xe000 == 0x2000,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn reaches(policy: &Policy, to: &str) -> bool {
        let to: SocketAddr = to.parse().unwrap();
        policy.decide(to, Instant::now()) == Verdict::Reach(to)
    }

    #[test]
    fn rules_are_read_and_written() {
        for good in [
            "example.org",
            "*.example.org:443",
            "10.0.0.0/8",
            "1.2.3.4/32:53",
            "2001:db8::/32",
            "[2001:db8::/32]:443",
        ] {
            assert_eq!(good.parse::<Rule>().unwrap().to_string(), good);
        }
        assert_eq!("Example.ORG.".parse::<Rule>().unwrap().to_string(), "example.org");
        assert_eq!("1.2.3.4".parse::<Rule>().unwrap().to_string(), "1.2.3.4/32");
        assert_eq!("[::1]:80".parse::<Rule>().unwrap().to_string(), "[::1/128]:80");
        assert_eq!("[fd00::]".parse::<Rule>().unwrap().to_string(), "fd00::/128");
        for bad in [
            "",
            ":80",
            "a:b",
            "1.2.3.4/33",
            "1.2.3",
            "a..b",
            "x/8",
            "a b",
            "*",
            "1.2.3.4:99999",
            "::/129",
            "[::1",
            "[::1]80",
            "[::1]:",
            "[example.org]:80",
            "a:b:c",
        ] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_internet_is_open_and_the_host_is_not() {
        let policy = Policy::new(Rules { host_ports: vec![8080], ..Rules::default() });
        assert!(reaches(&policy, "8.8.8.8:53") && reaches(&policy, "10.1.2.3:80"));
        assert!(reaches(&policy, "[2001:db8::1]:53") && reaches(&policy, "[fd00::1]:80"));
        for closed in [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "169.254.169.254:80",
            "0.0.0.0:80",
            "255.255.255.255:67",
            "224.0.0.1:1",
            "[::]:80",
            "[::1]:80",
            "[fe80::1]:80",
            "[ff02::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:8.8.8.8]:80",
            "[::127.0.0.1]:80",
            "[fd5a:94ef:e40c::1]:80",
            "[fd5a:94ef:e40c::77]:80",
        ] {
            assert!(!reaches(&policy, closed), "{closed}");
        }
        assert!(!reaches(&policy, "192.168.127.1:22") && !reaches(&policy, "192.168.127.9:22"));
        for host in [IpAddr::from(HOST), HOST_V6.into()] {
            let to_host = |port| policy.decide(SocketAddr::new(host, port), Instant::now());
            assert_eq!(to_host(8080), Verdict::Host(8080));
            assert_eq!(to_host(8081), Verdict::Deny);
        }
    }

    #[test]
    fn rules_open_and_close() {
        let policy = Policy::new(Rules {
            restrict: true,
            allow: rules(&["10.0.0.0/8:80", "127.0.0.1", "[2001:db8::/32]:443", "[::1]:7"]),
            deny: rules(&["10.1.0.0/16", "2001:db8:1::/48"]),
            host_ports: Vec::new(),
        });
        assert!(reaches(&policy, "10.2.0.1:80") && reaches(&policy, "127.0.0.1:5000"));
        assert!(!reaches(&policy, "10.2.0.1:81") && !reaches(&policy, "10.1.0.1:80"));
        assert!(!reaches(&policy, "8.8.8.8:80"));
        assert!(reaches(&policy, "[2001:db8::1]:443") && reaches(&policy, "[::1]:7"));
        assert!(!reaches(&policy, "[2001:db8:1::1]:443") && !reaches(&policy, "[2001:db9::1]:443"));
        assert!(!reaches(&policy, "[::1]:8") && !reaches(&policy, "[2001:db8::1]:80"));
    }

    #[test]
    fn a_name_opens_the_addresses_of_the_internet_that_it_had() {
        let allow = rules(&["example.org:443", "*.example.net"]);
        let mut policy = Policy::new(Rules { restrict: true, allow, ..Rules::default() });
        assert!(policy.may_resolve("example.org") && policy.may_resolve("a.b.example.net"));
        assert!(!policy.may_resolve("example.net") && !policy.may_resolve("xexample.net"));
        let now = Instant::now();
        let addresses = [
            "93.184.0.1",
            "10.0.0.1",
            "127.0.0.1",
            "2606:2800::1",
            "fd00::1",
            "::1",
            "64:ff9b::7f00:1",
            "2002:a00:1::",
        ];
        let addresses = addresses.map(|address| address.parse().unwrap());
        policy.resolved("example.org", &addresses, Duration::ZERO, now);
        assert!(reaches(&policy, "93.184.0.1:443"));
        assert!(!reaches(&policy, "93.184.0.1:80"), "another port");
        assert!(!reaches(&policy, "10.0.0.1:443") && !reaches(&policy, "127.0.0.1:443"), "rebound");
        assert!(reaches(&policy, "[2606:2800::1]:443"));
        for rebound in ["[fd00::1]:443", "[::1]:443", "[64:ff9b::7f00:1]:443", "[2002:a00:1::]:443"] {
            assert!(!reaches(&policy, rebound), "{rebound}");
        }
        let later = now + PINNED_FOR;
        assert_eq!(policy.decide("93.184.0.1:443".parse().unwrap(), later), Verdict::Deny);
        for n in 0..10_000u32 {
            policy.resolved(
                "a.example.net",
                &[Ipv4Addr::from_bits(0x0800_0000 + n).into()],
                Duration::ZERO,
                now,
            );
        }
        assert_eq!(policy.pins.len(), PINS);
    }
}
