//! Names for guests: a forwarder to the host's name servers (RFC 1035), with a cache.
//!
//! Messages are passed on as they are, so every type of record works; they are read only as far as
//! that takes: the question, and where the records and their times to live are.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// The port of DNS.
pub const PORT: u16 = 53;
/// Bytes of a message's header.
const HEADER: usize = 12;
/// The longest UDP answer for a client that says nothing of its own (4.2.1).
const SMALL_ANSWER: usize = 512;
/// The longest message.
const LARGEST: usize = 65_535;
/// How long a server may think.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often all servers are asked.
const ROUNDS: usize = 2;
/// Answers that are remembered.
const CACHE: usize = 1024;
/// The longest answer that is remembered, in bytes.
const CACHED_ANSWER: usize = 4096;
/// The longest time that an answer is remembered.
const CACHED_FOR: Duration = Duration::from_secs(3600);

/// Types of records.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// The name of an address.
    pub const PTR: u16 = 12;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// Not a record: what the client can do (RFC 6891).
    pub const OPT: u16 = 41;
}
/// The class of the internet.
const CLASS_IN: u16 = 1;

/// Outcomes of a query (4.1.1).
pub mod rcode {
    /// An answer, perhaps an empty one.
    pub const NO_ERROR: u8 = 0;
    /// The question makes no sense.
    pub const FORMAT_ERROR: u8 = 1;
    /// No server answers.
    pub const SERVER_FAILURE: u8 = 2;
    /// There is no such name.
    pub const NO_SUCH_NAME: u8 = 3;
    /// Not that kind of query.
    pub const NOT_IMPLEMENTED: u8 = 4;
    /// The policy forbids it.
    pub const REFUSED: u8 = 5;
}

/// Bits of the header's second word.
const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 15 << 11;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const RECURSION_AVAILABLE: u16 = 1 << 7;

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// What a message asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case, without the last dot.
    pub name: String,
    /// The type of records.
    pub kind: u16,
    /// Where the question ends.
    end: usize,
}

/// A record of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record<'a> {
    kind: u16,
    /// Where its time to live is.
    ttl_at: usize,
    ttl: u32,
    data: &'a [u8],
}

/// Reads a name; gives it with the place behind it.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut text, mut end, mut steps) = (String::new(), None, 0);
    loop {
        steps += 1;
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((text, end.unwrap_or(at + 1))),
            // Elsewhere; a name has no more than 127 labels, and a loop has to end.
            0xc0.. if steps < 128 => {
                end.get_or_insert(at + 2);
                at = usize::from(word(message, at)? & 0x3fff);
            }
            1..64 if steps < 128 => {
                if !text.is_empty() {
                    text.push('.');
                }
                let label = message.get(at + 1..at + 1 + length)?;
                text.extend(label.iter().map(|c| char::from(c.to_ascii_lowercase())));
                at += 1 + length;
            }
            _ => return None,
        }
    }
}

/// A name as messages hold it; none for one that cannot be.
pub fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

/// Domains, one after the other, as many as one option of DHCP or of a router takes.
pub fn encode_names(domains: &[String]) -> Vec<u8> {
    let mut list = Vec::new();
    for domain in domains {
        let Some(name) = encode_name(domain) else { continue };
        if list.len() + name.len() > usize::from(u8::MAX) {
            break;
        }
        list.extend(name);
    }
    list
}

/// A query for records of a name; none for a name that cannot be.
pub fn query(name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut message = vec![0; HEADER];
    message[2..4].copy_from_slice(&RECURSION_DESIRED.to_be_bytes());
    message[5] = 1;
    message.extend(encode_name(name)?);
    message.extend(kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Some(message)
}

/// The question of a message, or the outcome that says what is wrong with it. None for what is no
/// query at all.
pub fn question(message: &[u8]) -> Option<Result<Question, u8>> {
    let flags = word(message, 2).filter(|_| message.len() >= HEADER)?;
    if flags & RESPONSE != 0 {
        return None;
    }
    if flags & OPCODE != 0 {
        return Some(Err(rcode::NOT_IMPLEMENTED));
    }
    let parsed =
        (word(message, 4) == Some(1)).then(|| name(message, HEADER)).flatten().and_then(|(name, at)| {
            Some((Question { name, kind: word(message, at)?, end: at + 4 }, word(message, at + 2)?))
        });
    Some(match parsed {
        Some((question, CLASS_IN)) => Ok(question),
        Some(_) => Err(rcode::NOT_IMPLEMENTED),
        None => Err(rcode::FORMAT_ERROR),
    })
}

/// The records behind the question, up to one that cannot be read.
fn records(message: &[u8], mut at: usize) -> impl Iterator<Item = Record<'_>> {
    let count = (6..HEADER).step_by(2).filter_map(|at| word(message, at)).map(usize::from).sum();
    let next = move || {
        let (_, after) = name(message, at)?;
        let kind = word(message, after)?;
        let ttl = u32::from_be_bytes(message.get(after + 4..after + 8)?.try_into().ok()?);
        let length = usize::from(word(message, after + 8)?);
        let data = message.get(after + 10..after + 10 + length)?;
        at = after + 10 + length;
        Some(Record { kind, ttl_at: after + 4, ttl, data })
    };
    std::iter::from_fn(next).take(count)
}

/// The addresses that an answer gives, and the shortest time that it lives.
pub fn addresses(answer: &[u8]) -> (Vec<IpAddr>, Duration) {
    let Some((_, at)) = name(answer, HEADER) else { return (Vec::new(), Duration::ZERO) };
    let addresses = records(answer, at + 4).filter_map(|record| match record.kind {
        kind::A => <[u8; 4]>::try_from(record.data).ok().map(IpAddr::from),
        kind::AAAA => <[u8; 16]>::try_from(record.data).ok().map(IpAddr::from),
        _ => None,
    });
    (addresses.collect(), lifetime(answer, at + 4).unwrap_or_default())
}

/// How long a message's records live; none without records.
fn lifetime(message: &[u8], at: usize) -> Option<Duration> {
    let ttls = records(message, at).filter(|record| record.kind != kind::OPT).map(|record| record.ttl);
    ttls.min().map(|seconds| Duration::from_secs(seconds.into()).min(CACHED_FOR))
}

/// An answer of the gateway's own: records of one type that name their data.
pub fn reply(query: &[u8], outcome: u8, records: &[(u16, u32, Vec<u8>)]) -> Vec<u8> {
    let end = match question(query) {
        Some(Ok(question)) => question.end,
        _ => HEADER,
    };
    let mut message = query.get(..end).unwrap_or_default().to_vec();
    message.resize(end.max(HEADER), 0);
    let asked = word(query, 2).unwrap_or(0) & (RECURSION_DESIRED | OPCODE);
    let flags = RESPONSE | RECURSION_AVAILABLE | asked | u16::from(outcome);
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[4..6].copy_from_slice(&u16::from(end > HEADER).to_be_bytes());
    message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    message[8..HEADER].fill(0);
    for (kind, ttl, data) in records {
        message.extend([0xc0, HEADER as u8]);
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message.extend(ttl.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
    }
    message
}

/// An answer that fits into the UDP message that the client can take.
pub fn fit_udp(query: &[u8], answer: Vec<u8>) -> Vec<u8> {
    let Some(Ok(question)) = question(query) else { return answer };
    // The class of the OPT record is the size that the client takes.
    let options = records(query, question.end).find(|record| record.kind == kind::OPT);
    let size = options.and_then(|record| word(query, record.ttl_at - 2)).map_or(0, usize::from);
    if answer.len() <= size.max(SMALL_ANSWER) {
        return answer;
    }
    let mut short = reply(query, answer[3] & 15, &[]);
    short[2] |= (TRUNCATED >> 8) as u8;
    short
}

/// What the host's settings say about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Name servers, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// Domains in which names without a dot are looked up.
    pub search: Vec<String>,
    /// Addresses of names that no server is asked for.
    pub hosts: Vec<(String, IpAddr)>,
}

impl Settings {
    /// Reads `resolv.conf` and `hosts`.
    fn parse(resolv_conf: &str, hosts: &str) -> Self {
        let mut settings = Self::default();
        for line in resolv_conf.lines() {
            let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    settings.servers.extend(address.map(|address| SocketAddr::new(address, PORT)));
                }
                Some("search" | "domain") => settings.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        if settings.servers.is_empty() {
            // What resolv.conf(5) says of a file without servers.
            settings.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        for line in hosts.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
            // The guest has a loopback of its own.
            if !address.is_loopback() && !address.is_unspecified() {
                settings.hosts.extend(words.map(|name| (name.to_ascii_lowercase(), address)));
            }
        }
        settings
    }
}

/// Where the settings come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The host's files, which are read again when they have changed.
    Host,
    /// These.
    Fixed(Settings),
}

/// The settings, and the answers that are remembered.
#[derive(Debug)]
pub struct Resolver {
    source: Source,
    settings: Settings,
    read: Option<[Option<SystemTime>; 2]>,
    cache: HashMap<Vec<u8>, Cached>,
}

#[derive(Debug)]
struct Cached {
    answer: Vec<u8>,
    since: Instant,
    lifetime: Duration,
}

impl Resolver {
    /// A resolver that remembers nothing.
    pub fn new(source: Source) -> Self {
        Self { source, settings: Settings::default(), read: None, cache: HashMap::new() }
    }

    /// The settings as they are now.
    pub fn settings(&mut self) -> &Settings {
        match &self.source {
            Source::Fixed(settings) => {
                if self.read.is_none() {
                    self.settings.clone_from(settings);
                    self.read = Some([None; 2]);
                }
            }
            Source::Host => {
                let files = ["/etc/resolv.conf", "/etc/hosts"].map(PathBuf::from);
                let times =
                    files.each_ref().map(|file| file.metadata().and_then(|data| data.modified()).ok());
                if self.read != Some(times) {
                    let [resolv_conf, hosts] =
                        files.map(|file| std::fs::read_to_string(file).unwrap_or_default());
                    self.settings = Settings::parse(&resolv_conf, &hosts);
                    self.read = Some(times);
                    self.cache.clear();
                }
            }
        }
        &self.settings
    }

    /// The answer that the host's file of names gives.
    pub fn known_from_file(&mut self, query: &[u8], question: &Question) -> Option<Vec<u8>> {
        let known = self.settings().hosts.iter().filter(|(name, _)| *name == question.name);
        let known: Vec<IpAddr> = known.map(|(_, address)| *address).collect();
        let records = known.iter().filter_map(|address| match (address, question.kind) {
            (IpAddr::V4(address), kind::A) => Some((kind::A, 0, address.octets().to_vec())),
            (IpAddr::V6(address), kind::AAAA) => Some((kind::AAAA, 0, address.octets().to_vec())),
            _ => None,
        });
        let records: Vec<_> = records.collect();
        (!known.is_empty()).then(|| reply(query, rcode::NO_ERROR, &records))
    }

    /// The remembered answer to a query, its times to live counted down.
    pub fn remembered(&mut self, query: &[u8], now: Instant) -> Option<Vec<u8>> {
        let cached = self.cache.get(query.get(2..)?)?;
        let age = now.saturating_duration_since(cached.since);
        if age >= cached.lifetime {
            return None;
        }
        let mut answer = cached.answer.clone();
        answer[..2].copy_from_slice(&query[..2]);
        let (_, at) = name(&answer, HEADER)?;
        let ttls: Vec<_> = records(&answer, at + 4)
            .filter(|record| record.kind != kind::OPT)
            .map(|record| (record.ttl_at, record.ttl.saturating_sub(age.as_secs() as u32)))
            .collect();
        ttls.iter().for_each(|(at, ttl)| answer[*at..at + 4].copy_from_slice(&ttl.to_be_bytes()));
        Some(answer)
    }

    /// Remembers an answer, if it is one to be remembered.
    pub fn remember(&mut self, query: &[u8], answer: &[u8], now: Instant) {
        let outcome = answer.get(3).map(|flags| flags & 15);
        let good = matches!(outcome, Some(rcode::NO_ERROR | rcode::NO_SUCH_NAME));
        let lifetime = name(answer, HEADER).and_then(|(_, at)| lifetime(answer, at + 4));
        let Some(lifetime) = lifetime.filter(|time| good && !time.is_zero()) else { return };
        if answer.len() > CACHED_ANSWER || query.len() > CACHED_ANSWER {
            return;
        }
        if self.cache.len() >= CACHE {
            self.cache.retain(|_, cached| now < cached.since + cached.lifetime);
        }
        if self.cache.len() >= CACHE {
            self.cache.clear();
        }
        let cached = Cached { answer: answer.to_vec(), since: now, lifetime };
        self.cache.insert(query[2..].to_vec(), cached);
    }
}

/// Asks name servers, one after the other and again; gives the first answer, or a failure.
pub async fn ask(servers: &[SocketAddr], query: &[u8]) -> Vec<u8> {
    for server in (0..ROUNDS).flat_map(|_| servers) {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask_one(*server, query)).await {
            return answer;
        }
    }
    reply(query, rcode::SERVER_FAILURE, &[])
}

async fn ask_one(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    // A number of our own, from a port of its own: an answer of another's has to guess both.
    let mut own = query.to_vec();
    own[..2].copy_from_slice(&(super::random() as u16).to_le_bytes());
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&own).await?;
    let mut answer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answers(&own, &answer[..length]) {
            answer.truncate(length);
            break;
        }
    }
    if word(&answer, 2).is_some_and(|flags| flags & TRUNCATED != 0) {
        let mut stream = TcpStream::connect(server).await?;
        write_message(&mut stream, &own).await?;
        answer = read_message(&mut stream).await?;
        if !answers(&own, &answer) {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    answer[..2].copy_from_slice(&query[..2]);
    Ok(answer)
}

/// Whether a message is the answer to a query.
fn answers(query: &[u8], message: &[u8]) -> bool {
    let Some(Ok(asked)) = question(query) else { return false };
    let echoed =
        word(message, 4) == Some(0) || name(message, HEADER).is_some_and(|(name, _)| name == asked.name);
    message.len() >= HEADER
        && message[..2] == query[..2]
        && word(message, 2).is_some_and(|flags| flags & RESPONSE != 0)
        && echoed
}

/// Reads a message from a stream, where its length stands before it (4.2.2).
pub async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message to a stream.
pub async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(encode_name(name).unwrap());
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn questions_are_read() {
        let question = |message: &[u8]| super::question(message);
        let good = question(&query("Www.Example.ORG", 28)).unwrap().unwrap();
        assert_eq!((good.name.as_str(), good.kind), ("www.example.org", 28));
        let mut bad = query("a.b", 1);
        bad[2] = 0x80;
        assert_eq!(question(&bad), None);
        bad[2] = 0x10;
        assert_eq!(question(&bad), Some(Err(rcode::NOT_IMPLEMENTED)));
        bad[2] = 0;
        bad[HEADER] = 0xc0; // A name that is where it is.
        bad[HEADER + 1] = HEADER as u8;
        assert_eq!(question(&bad), Some(Err(rcode::FORMAT_ERROR)));
        assert_eq!(question(&bad[..8]), None);
        for length in HEADER..bad.len() {
            let _ = question(&query("a.b", 1)[..length.min(17)]);
        }
    }

    #[test]
    fn answers_are_remembered_while_they_live() {
        let mut resolver = Resolver::new(Source::Fixed(Settings::default()));
        let asked = query("a.example", kind::A);
        let answer = reply(
            &asked,
            rcode::NO_ERROR,
            &[(kind::A, 60, vec![10, 0, 0, 1]), (kind::A, 30, vec![10, 0, 0, 2])],
        );
        assert_eq!(
            addresses(&answer),
            (vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])], Duration::from_secs(30))
        );
        let now = Instant::now();
        resolver.remember(&asked, &answer, now);
        let mut again = asked.clone();
        again[..2].copy_from_slice(&[7, 7]);
        let remembered = resolver.remembered(&again, now + Duration::from_secs(10)).unwrap();
        assert_eq!(remembered[..2], [7, 7]);
        let ttls: Vec<_> = records(&remembered, asked.len()).map(|record| record.ttl).collect();
        assert_eq!(ttls, [50, 20]);
        assert_eq!(resolver.remembered(&asked, now + Duration::from_secs(30)), None);
        assert_eq!(resolver.remembered(&query("a.example", kind::AAAA), now), None);
        resolver.remember(&asked, &reply(&asked, rcode::SERVER_FAILURE, &[]), now);
        assert_eq!(resolver.cache.len(), 1);
    }

    #[test]
    fn long_answers_are_cut_for_udp() {
        let asked = query("a.example", 16);
        let long = reply(&asked, rcode::NO_ERROR, &[(16, 60, vec![b'x'; 600])]);
        let short = fit_udp(&asked, long.clone());
        assert_eq!((short.len(), short[2] & 2, short[7]), (asked.len(), 2, 0));
        let mut with_options = asked;
        with_options[11] = 1;
        with_options.extend([0, 0, kind::OPT as u8, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fit_udp(&with_options, long.clone()), long);
    }

    #[test]
    fn the_hosts_settings_are_read() {
        let settings = Settings::parse(
            "# comment\nnameserver 10.0.0.53\nnameserver\t::1\nnameserver fe80::1%eth0\nsearch corp.example example\n",
            "127.0.0.1 localhost\n10.9.8.7 Printer printer.local # on the desk\nnonsense\n",
        );
        assert_eq!(settings.servers, [([10, 0, 0, 53], 53).into(), (Ipv6Addr::LOCALHOST, 53).into()]);
        assert_eq!(settings.search, ["corp.example", "example"]);
        let printer = IpAddr::from([10, 9, 8, 7]);
        assert_eq!(settings.hosts, [("printer".into(), printer), ("printer.local".into(), printer)]);
        assert_eq!(Settings::parse("", "").servers, [([127, 0, 0, 1], 53).into()]);
        let mut resolver = Resolver::new(Source::Fixed(settings));
        let asked = query("printer", kind::A);
        let known = question(&asked).unwrap().unwrap();
        assert_eq!(addresses(&resolver.known_from_file(&asked, &known).unwrap()).0, [printer]);
    }
}
