//! Names of every type, by a name server on the loopback.

use super::*;

/// Types of records that the server knows names of.
const A: u16 = 1;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;

fn name(text: &str) -> Vec<u8> {
    dns::encode_name(text).unwrap()
}

/// What the server answers by TCP: more than a datagram takes, where it is about text.
fn records(kind: u16) -> Vec<(u16, u32, Vec<u8>)> {
    match kind {
        A => vec![(CNAME, 60, name("b.example")), (A, 60, vec![93, 184, 0, 1]), (A, 60, vec![127, 0, 0, 1])],
        AAAA => vec![(AAAA, 60, vec![0xfd; 16])],
        CNAME => vec![(CNAME, 60, name("b.example"))],
        PTR => vec![(PTR, 60, name("a.example"))],
        MX => vec![(MX, 60, [&[0, 10][..], &name("mail.example")].concat())],
        SRV => vec![(SRV, 60, [&[0, 1, 0, 2, 0, 53][..], &name("a")].concat())],
        TXT => vec![(TXT, 300, [&[200][..], &[b'x'; 200]].concat()); 5],
        _ => Vec::new(),
    }
}

/// A name server: what is short by UDP, what is long by TCP. It counts what it is asked by UDP, and does not know
/// names that begin with `no`.
fn name_server(asked: &'static AtomicUsize) -> SocketAddr {
    let answer = |query: &[u8]| {
        let question = dns::question(query).unwrap().unwrap();
        match question.name.starts_with("no") {
            true => dns::reply(query, dns::rcode::NO_SUCH_NAME, &[]),
            false => dns::reply(query, 0, &records(question.kind)),
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).unwrap();
            let answer = answer(&query);
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            asked.fetch_add(1, Ordering::SeqCst);
            let query = &buffer[..length];
            let answer = dns::fit_udp(query, answer(query));
            // Another's answer does not count.
            socket.send_to(&[&[!query[0]], &answer[1..]].concat(), from).unwrap();
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

fn guest(servers: Vec<SocketAddr>) -> (Guest, SocketHandle) {
    let names = NameSource::Fixed(NameSettings { servers, ..NameSettings::default() });
    let mut guest = Guest::new(Config { names, ..open() });
    let udp = guest.bind_udp(5000);
    (guest, udp)
}

fn ask(guest: &mut Guest, udp: SocketHandle, name: &str, kind: u16) -> Vec<u8> {
    guest.send_udp(udp, &query(name, kind), SocketAddrV4::new(GATEWAY, 53));
    guest.receive_udp(udp).0
}

#[test]
fn every_type_is_looked_up_by_the_hosts_servers() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let (mut guest, udp) = guest(vec![name_server(&ASKED)]);
    for _ in 0..3 {
        let answer = ask(&mut guest, udp, "a.example", A);
        assert_eq!((&answer[..2], answer[7]), (&[0x12, 0x34][..], 3));
        assert_eq!(dns::addresses(&answer).0, [Ipv4Addr::new(93, 184, 0, 1), Ipv4Addr::LOCALHOST]);
        let alias = name("b.example");
        assert!(answer.windows(alias.len()).any(|part| part == alias), "{answer:?}");
    }
    assert_eq!(ASKED.load(Ordering::SeqCst), 1, "the rest is remembered");
    for (asked, kind) in [
        ("a.example", AAAA),
        ("a.example", CNAME),
        ("1.0.184.93.in-addr.arpa", PTR),
        ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", PTR),
        ("example", MX),
        ("_dns._udp.a.example", SRV),
    ] {
        let answer = ask(&mut guest, udp, asked, kind);
        assert!(answer.ends_with(&records(kind)[0].2), "{asked} {kind}: {answer:?}");
    }
    assert_eq!(ask(&mut guest, udp, "no.example", A)[3] & 15, dns::rcode::NO_SUCH_NAME);
    assert_eq!(ask(&mut guest, udp, "a.example", 99)[7], 0, "a type without records");
}

#[test]
fn what_is_too_long_for_a_datagram_comes_over_a_connection() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let (mut guest, udp) = guest(vec![name_server(&ASKED)]);
    let short = ask(&mut guest, udp, "a.example", TXT);
    assert_eq!((short[2] & 2, short.len()), (2, query("a.example", TXT).len()));
    let socket = guest.connect(SocketAddrV4::new(GATEWAY, 53));
    let asked = query("a.example", TXT);
    let twice = [&[0, asked.len() as u8], &asked[..]].concat().repeat(2);
    let answers = guest.exchange(socket, &twice).unwrap();
    let length = usize::from(u16::from_be_bytes([answers[0], answers[1]]));
    assert!(length > 1000 && answers.len() == 2 * (2 + length), "{length} {}", answers.len());
    // One who takes long datagrams gets one.
    let mut asked = query("a.example", TXT);
    asked[11] = 1;
    asked.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    guest.send_udp(udp, &asked, SocketAddrV4::new(GATEWAY, 53));
    assert!(guest.receive_udp(udp).0.len() > 1000);
}

#[test]
fn a_server_that_is_silent_is_no_end() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    // Nobody is at this port, and the next server is asked at once.
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut guest, udp) = guest(vec![gone, name_server(&ASKED)]);
    assert_eq!(dns::addresses(&ask(&mut guest, udp, "a.example", A)).0.len(), 2);
    let (mut guest, udp) = self::guest(vec![gone]);
    assert_eq!(ask(&mut guest, udp, "a.example", A)[3] & 15, dns::rcode::SERVER_FAILURE);
}

#[test]
fn the_guest_is_told_the_domains_that_the_host_searches() {
    let search = vec!["corp.example".to_owned(), "example".to_owned()];
    let names = NameSource::Fixed(NameSettings { search, ..NameSettings::default() });
    let guest = Guest::without_address(Config { names, ipv6: true, ..open() });
    let (mut discovered, mut advertised) = (false, false);
    let list = b"\x04corp\x07example\0\x07example\0";
    let mut discover = vec![0; 240];
    discover[..4].copy_from_slice(&[1, 1, 6, 0]);
    discover[28..34].copy_from_slice(&MAC.0);
    discover[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    discover.extend([53, 1, 1, 255]);
    let (from, to) = (SocketAddrV4::new([0; 4].into(), 68), SocketAddrV4::new(Ipv4Addr::BROADCAST, 67));
    let mut frame = packet::udp(EthernetAddress::BROADCAST, from, to, 1, &discover).remove(0);
    frame[6..12].copy_from_slice(&MAC.0);
    guest.card.0.sender.blocking_send(frame).unwrap();
    let mut guest = guest;
    while !(discovered && advertised) {
        let frame = guest.card.0.receiver.blocking_recv().unwrap();
        let listed = frame.windows(list.len()).any(|part| part == list);
        match frame[12..14] {
            [0x86, 0xdd] => advertised |= listed,
            _ => discovered |= listed,
        }
    }
}
