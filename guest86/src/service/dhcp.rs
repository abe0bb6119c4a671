//! Asking for an address where the system has no program that does: containers have none.
//!
//! The lease is not renewed: the host keeps an address for as long as it can for the card that has it.
//!
//! Sources: RFC 2131, RFC 2132.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use super::files::text;
use super::link::Link;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// A message is sent so often, and each time an answer is waited for so long.
const TRIES: usize = 4;
const ANSWER: Duration = Duration::from_secs(1);
/// Types of messages.
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
/// Options.
const MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVERS: u8 = 6;
const WANTED: u8 = 50;
const TYPE: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const END: u8 = 255;
const PAD: u8 = 0;
/// What is in front of the options.
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const OPTIONS: usize = 240;
/// Servers may take shorter messages for none (RFC 1542).
const SHORTEST: usize = 300;
/// Answers go to all: an address is not known yet.
const BROADCAST: u16 = 0x8000;
const RESOLVER: &str = "/etc/resolv.conf";

/// Who asks.
#[derive(Clone, Copy)]
struct Client {
    mac: [u8; 6],
    /// Tells the answers to this one from others.
    transaction: [u8; 4],
}

/// What a server has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    kind: u8,
    address: [u8; 4],
    server: Option<[u8; 4]>,
    mask: Option<[u8; 4]>,
    router: Option<[u8; 4]>,
    names: Vec<[u8; 4]>,
}

/// Gives every interface of a card an address, and the names' servers to the system.
pub fn set_up(sys: &Path) -> Result<(), String> {
    let interfaces = fs::read_dir(sys.join("class/net")).into_iter().flatten().flatten();
    for path in interfaces.map(|interface| interface.path()).filter(|path| path.join("device").exists()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let failed = |error: io::Error| format!("there is no address for {name}: {}", text(error));
        let mac = fs::read_to_string(path.join("address")).map_err(failed)?;
        let mac = mac_of(&mac).ok_or_else(|| format!("{name} has no address of Ethernet's"))?;
        let answer = configure(name, mac).map_err(failed)?;
        if !answer.names.is_empty() {
            let lines = answer.names.iter().map(|server| format!("nameserver {}\n", Ipv4Addr::from(*server)));
            // A system that cannot be written to has said itself which they are.
            let _ = fs::write(RESOLVER, lines.collect::<String>());
        }
    }
    Ok(())
}

fn configure(name: &str, mac: [u8; 6]) -> io::Result<Answer> {
    let link = Link::new(name)?;
    link.up()?;
    // What was there before a restore is of another network.
    link.clear()?;
    let mut transaction = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut transaction)?;
    link.broadcast_route(true)?;
    let leased = lease(Client { mac, transaction });
    link.broadcast_route(false)?;
    let leased = leased?;
    let bits = leased.mask.map_or(24, |mask| u32::from_be_bytes(mask).leading_ones() as u8);
    link.add(leased.address.into(), bits)?;
    if let Some(router) = leased.router {
        link.default_route(router.into())?;
    }
    Ok(leased)
}

/// Asks the servers, and takes the first offer.
fn lease(client: Client) -> io::Result<Answer> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
    socket.set_broadcast(true)?;
    let offer = ask(&socket, client, &client.message(DISCOVER, &[]), |kind| kind == OFFER)?;
    let mut options = vec![(WANTED, offer.address)];
    options.extend(offer.server.map(|server| (SERVER, server)));
    let answer = ask(&socket, client, &client.message(REQUEST, &options), |kind| matches!(kind, ACK | NAK))?;
    match answer.kind {
        ACK => Ok(answer),
        _ => Err(io::Error::other("the server takes back what it has offered")),
    }
}

fn ask(
    socket: &UdpSocket,
    client: Client,
    message: &[u8],
    wanted: impl Fn(u8) -> bool,
) -> io::Result<Answer> {
    let mut buffer = [0; 1500];
    for _ in 0..TRIES {
        socket.send_to(message, (Ipv4Addr::BROADCAST, SERVER_PORT))?;
        let end = Instant::now() + ANSWER;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(len) => match client.answer(&buffer[..len]) {
                    Some(answer) if wanted(answer.kind) => return Ok(answer),
                    _ => {}
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::Error::other("no server on the network answers"))
}

impl Client {
    fn message(self, kind: u8, options: &[(u8, [u8; 4])]) -> Vec<u8> {
        // A request, by Ethernet, whose addresses have six bytes.
        let mut bytes = vec![1, 1, 6, 0];
        bytes.extend(self.transaction);
        bytes.extend([0, 0]);
        bytes.extend(BROADCAST.to_be_bytes());
        bytes.resize(28, 0);
        bytes.extend(self.mac);
        bytes.resize(OPTIONS - MAGIC.len(), 0);
        bytes.extend(MAGIC);
        bytes.extend([TYPE, 1, kind, PARAMETERS, 3, MASK, ROUTER, NAME_SERVERS]);
        for (option, data) in options {
            bytes.extend([*option, data.len() as u8]);
            bytes.extend(data);
        }
        bytes.push(END);
        bytes.resize(bytes.len().max(SHORTEST), PAD);
        bytes
    }

    /// What a message says, if it is an answer to this one.
    fn answer(self, bytes: &[u8]) -> Option<Answer> {
        let is_own = bytes.first() == Some(&2)
            && bytes.get(4..8)? == self.transaction
            && bytes.get(28..34)? == self.mac
            && bytes.get(OPTIONS - MAGIC.len()..OPTIONS)? == MAGIC;
        if !is_own {
            return None;
        }
        let mut answer = Answer { address: bytes.get(16..20)?.try_into().ok()?, ..Answer::default() };
        let mut options = &bytes[OPTIONS..];
        loop {
            match options {
                [PAD, rest @ ..] => options = rest,
                [END, ..] | [] | [_] => break,
                [kind, len, rest @ ..] => {
                    let data = rest.get(..usize::from(*len))?;
                    let first = || data.first_chunk().copied();
                    match *kind {
                        TYPE => answer.kind = *data.first()?,
                        SERVER => answer.server = first(),
                        MASK => answer.mask = first(),
                        ROUTER => answer.router = first(),
                        NAME_SERVERS => answer.names = data.as_chunks().0.to_vec(),
                        _ => {}
                    }
                    options = &rest[data.len()..];
                }
            }
        }
        Some(answer)
    }
}

/// The six bytes of an address that is written with colons.
fn mac_of(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> =
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client = Client { mac: [2, 0, 0, 0, 0, 9], transaction: [1, 2, 3, 4] };

    /// What a server makes of a message.
    fn reply(options: &[u8]) -> Vec<u8> {
        let mut bytes = CLIENT.message(DISCOVER, &[]);
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&[10, 0, 2, 15]);
        bytes.truncate(OPTIONS);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn a_message_says_what_is_wanted() {
        let bytes = CLIENT.message(REQUEST, &[(WANTED, [10, 0, 2, 15])]);
        assert_eq!((bytes.len(), &bytes[..12]), (300, &[1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0][..]));
        assert_eq!(bytes[28..35], [2, 0, 0, 0, 0, 9, 0]);
        assert_eq!(bytes[236..255], [99, 130, 83, 99, 53, 1, 3, 55, 3, 1, 3, 6, 50, 4, 10, 0, 2, 15, 255]);
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let options = [
            53, 1, 5, 54, 4, 10, 0, 2, 2, 1, 4, 255, 255, 255, 0, 0, 99, 0, 3, 4, 10, 0, 2, 2, 6, 8, 1, 1, 1,
            1, 8, 8, 8, 8, 255, 53, 1, 6,
        ];
        let wanted = Answer {
            kind: ACK,
            address: [10, 0, 2, 15],
            server: Some([10, 0, 2, 2]),
            mask: Some([255, 255, 255, 0]),
            router: Some([10, 0, 2, 2]),
            names: vec![[1; 4], [8; 4]],
        };
        assert_eq!(CLIENT.answer(&reply(&options)), Some(wanted));
        // What is cut off is no answer, and neither is one for another.
        assert_eq!(CLIENT.answer(&reply(&[53, 1])), None);
        assert_eq!(CLIENT.answer(&reply(&[53, 0])), None);
        assert!(CLIENT.answer(&reply(&[53])).is_some_and(|answer| answer.kind == 0));
        let other = Client { transaction: [0; 4], ..CLIENT };
        assert_eq!(other.answer(&reply(&options)), None);
        for len in [0, 7, 20, 239] {
            assert_eq!(CLIENT.answer(&reply(&options)[..len]), None);
        }
    }

    #[test]
    fn addresses_of_cards_are_read() {
        assert_eq!(mac_of("02:00:0a:ff:00:09\n"), Some([2, 0, 10, 255, 0, 9]));
        for wrong in ["", "02:00:0a:ff:00", "02:00:0a:ff:00:1g", "1:2:3:4:5:6:7"] {
            assert_eq!(mac_of(wrong), None, "{wrong}");
        }
    }
}
