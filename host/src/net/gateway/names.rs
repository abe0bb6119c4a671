//! The gateway's name service: its own names, and the questions that it passes on.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use smoltcp::wire::EthernetAddress;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;

use super::super::dns::{self, kind, rcode};
use super::super::{GATEWAY, GATEWAY_V6, HOST, HOST_V6};
use super::{Done, Event, Gateway};

/// Names being looked up at once.
const LOOKUPS: usize = 128;
/// The domain of the gateway's own names.
const DOMAIN: &str = "env86.internal";
/// How long an answer about them lives, in seconds.
const OWN_TTL: u32 = 60;
/// Where names of addresses are.
const REVERSE: [&str; 2] = [".in-addr.arpa", ".ip6.arpa"];

/// Who asks for a name.
pub(super) enum Asker {
    /// A guest, from an address of the gateway's that it asks.
    Udp { mac: EthernetAddress, gateway: IpAddr, guest: SocketAddr },
    /// A guest with a connection.
    Tcp(oneshot::Sender<Vec<u8>>),
}

impl Gateway {
    /// Answers a question, or has it answered.
    pub(super) fn query(&mut self, query: Vec<u8>, asker: Asker) {
        let question = match dns::question(&query) {
            None => return,
            Some(Err(outcome)) => return self.answer(&query, dns::reply(&query, outcome, &[]), asker),
            Some(Ok(question)) => question,
        };
        let own = own_name(&query, &question, self.ipv6).or_else(|| {
            let denied = !self.policy.may_resolve(&question.name);
            denied.then(|| {
                self.say(format_args!("dns {} denied", question.name));
                dns::reply(&query, rcode::REFUSED, &[])
            })
        });
        if let Some(answer) = own {
            return self.answer(&query, answer, asker);
        }
        let known = self.resolver.known_from_file(&query, &question);
        if let Some(answer) = known.or_else(|| self.resolver.remembered(&query, Instant::now())) {
            return self.resolved(&query, answer, asker);
        }
        if self.lookups >= LOOKUPS {
            return;
        }
        self.lookups += 1;
        self.say(format_args!("dns {}", question.name));
        let servers = self.resolver.settings().servers.clone();
        self.tasks.spawn(async move {
            let answer = dns::ask(&servers, &query).await;
            Done::Lookup { query, answer, asker }
        });
    }

    /// A server has answered.
    pub(super) fn looked_up(&mut self, query: &[u8], answer: Vec<u8>, asker: Asker) {
        self.lookups -= 1;
        self.resolver.remember(query, &answer, Instant::now());
        self.resolved(query, answer, asker);
    }

    /// A name has been looked up.
    fn resolved(&mut self, query: &[u8], answer: Vec<u8>, asker: Asker) {
        if let Some(Ok(question)) = dns::question(query) {
            let (addresses, lifetime) = dns::addresses(&answer);
            self.policy.resolved(&question.name, &addresses, lifetime, Instant::now());
        }
        self.answer(query, answer, asker);
    }

    fn answer(&mut self, query: &[u8], answer: Vec<u8>, asker: Asker) {
        match asker {
            Asker::Udp { mac, gateway, guest } => {
                let from = SocketAddr::new(gateway, dns::PORT);
                self.datagram(mac, from, guest, &dns::fit_udp(query, answer));
            }
            // A guest that has hung up needs no answer.
            Asker::Tcp(sender) => drop(sender.send(answer)),
        }
    }
}

/// The answer to a question for one of the gateway's own names or addresses.
fn own_name(query: &[u8], question: &dns::Question, ipv6: bool) -> Option<Vec<u8>> {
    let hosts = [("gateway", GATEWAY, GATEWAY_V6), ("host", HOST, HOST_V6)];
    let reply = |outcome, records: &[_]| Some(dns::reply(query, outcome, records));
    if let Some(name) = question.name.strip_suffix(DOMAIN) {
        let host = name.strip_suffix('.').unwrap_or(name);
        return match hosts.iter().find(|(name, ..)| *name == host) {
            Some((_, v4, _)) if question.kind == kind::A => {
                reply(rcode::NO_ERROR, &[(kind::A, OWN_TTL, v4.octets().to_vec())])
            }
            Some((_, _, v6)) if question.kind == kind::AAAA && ipv6 => {
                reply(rcode::NO_ERROR, &[(kind::AAAA, OWN_TTL, v6.octets().to_vec())])
            }
            Some(_) => reply(rcode::NO_ERROR, &[]),
            None if name.is_empty() => reply(rcode::NO_ERROR, &[]),
            None if name.ends_with('.') => reply(rcode::NO_SUCH_NAME, &[]),
            // Another domain whose name only ends alike.
            None => None,
        };
    }
    let addresses =
        hosts.iter().flat_map(|(name, v4, v6)| [(name, reverse_v4(*v4)), (name, reverse_v6(*v6))]);
    let ours = [ours(&reverse_v4(GATEWAY), 1), ours(&reverse_v6(GATEWAY_V6), 16)];
    ours.iter().find(|ours| question.name.ends_with(ours.as_str()))?;
    match addresses.into_iter().find(|(_, reversed)| *reversed == question.name) {
        Some((name, _)) if question.kind == kind::PTR => {
            let name = dns::encode_name(&format!("{name}.{DOMAIN}"))?;
            reply(rcode::NO_ERROR, &[(kind::PTR, OWN_TTL, name)])
        }
        Some(_) => reply(rcode::NO_ERROR, &[]),
        None => reply(rcode::NO_SUCH_NAME, &[]),
    }
}

/// The name of an address.
fn reverse_v4(address: std::net::Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}{}", REVERSE[0])
}

fn reverse_v6(address: std::net::Ipv6Addr) -> String {
    let digits: Vec<_> =
        address.octets().iter().rev().map(|octet| format!("{:x}.{:x}", octet & 15, octet >> 4)).collect();
    format!("{}{}", digits.join("."), REVERSE[1])
}

/// What the names of all addresses of a network end with, which has so many labels of its own before that.
fn ours(reversed: &str, labels: usize) -> String {
    reversed.splitn(labels + 1, '.').last().map(|rest| format!(".{rest}")).unwrap_or_default()
}

/// Answers questions that come by TCP, one after the other.
pub(super) async fn answer_dns(mut guest: tokio::io::DuplexStream, events: Sender<Event>) {
    while let Ok(query) = dns::read_message(&mut guest).await {
        let (sender, answer) = oneshot::channel();
        if events.send(Event::Query(query, sender)).await.is_err() {
            return;
        }
        let Ok(answer) = answer.await else { return };
        if dns::write_message(&mut guest, &answer).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_have_names() {
        let ask = |name: &str, kind: u16, ipv6| {
            let mut query = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            query.extend(dns::encode_name(name).unwrap());
            query.extend([0, kind as u8, 0, 1]);
            own_name(&query, &dns::question(&query).unwrap().unwrap(), ipv6)
        };
        let found = |answer: Option<Vec<u8>>| dns::addresses(&answer.unwrap()).0;
        assert_eq!(found(ask("host.env86.internal", kind::A, true)), [HOST]);
        assert_eq!(found(ask("host.env86.internal", kind::AAAA, true)), [HOST_V6]);
        assert!(found(ask("host.env86.internal", kind::AAAA, false)).is_empty());
        assert_eq!(ask("other.env86.internal", kind::A, true).unwrap()[3] & 15, rcode::NO_SUCH_NAME);
        assert_eq!(ask("notenv86.internal", kind::A, true), None);
        for reversed in [reverse_v4(HOST), reverse_v6(HOST_V6)] {
            let answer = ask(&reversed, kind::PTR, true).unwrap();
            assert!(answer.ends_with(b"\x04host\x05env86\x08internal\0"), "{reversed}");
        }
        assert_eq!(ask("77.127.168.192.in-addr.arpa", kind::PTR, true).unwrap()[3] & 15, rcode::NO_SUCH_NAME);
        let stranger = reverse_v6(HOST_V6).replacen('e', "d", 1);
        assert_eq!(ask(&stranger, kind::PTR, true).unwrap()[3] & 15, rcode::NO_SUCH_NAME);
        assert_eq!(ask("4.3.2.1.in-addr.arpa", kind::PTR, true), None);
        assert_eq!(ask(&reverse_v6(std::net::Ipv6Addr::LOCALHOST), kind::PTR, true), None);
    }
}
