//! A guest that starts from the network: what its firmware does with DHCP and TFTP.

use super::*;

const SERVER: SocketAddrV4 = SocketAddrV4::new(GATEWAY, 69);

/// A guest, and a directory with files of all lengths that matter.
fn guest() -> (Guest, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for length in [0, 511, 512, 1024, 100_000] {
        std::fs::write(dir.path().join(length.to_string()), pattern(length)).unwrap();
    }
    let netboot = Netboot { directory: dir.path().into(), file: None };
    let guest = Guest::new(Config { netboot: Some(netboot), ..open() });
    (guest, dir)
}

fn request(name: &str, options: &str) -> Vec<u8> {
    [&[0, 1][..], name.as_bytes(), b"\0octet\0", options.as_bytes()].concat()
}

/// Reads a file as firmware does; of a thousand blocks it loses so many.
fn read(guest: &mut Guest, name: &str, options: &str, block: usize, window: u16, lost: usize) -> Vec<u8> {
    let udp = guest.bind_udp(2000);
    guest.send_udp(udp, &request(name, options), SERVER);
    let (mut file, mut got, mut count, mut random) = (Vec::new(), 0u16, 0u16, 7usize);
    loop {
        let (message, from) = guest.receive_udp(udp);
        let from = SocketAddr::from(from);
        let number = u16::from_be_bytes([message[2], message[3]]);
        let mut acknowledge = |number: u16| {
            guest.send_udp(udp, &[&[0, 4][..], &number.to_be_bytes()].concat(), from);
            guest.poll();
        };
        random = random * 1_103_515_245 % 2_147_483_648 + 12_345;
        match message[1] {
            6 => acknowledge(0),
            3 if random / 65_536 % 1000 < lost => {}
            3 if number == got.wrapping_add(1) => {
                (got, count) = (number, count + 1);
                file.extend(&message[4..]);
                let last = message.len() - 4 < block;
                if last || count == window {
                    acknowledge(got);
                    count = 0;
                }
                if last {
                    guest.sockets.remove(udp);
                    return file;
                }
            }
            3 => {
                // A gap is told once.
                if count > 0 || number == got {
                    acknowledge(got);
                }
                count = 0;
            }
            _ => panic!("{}", String::from_utf8_lossy(&message[4..])),
        }
    }
}

#[test]
fn files_of_every_length_arrive() {
    let (mut guest, _dir) = guest();
    for length in [0, 511, 512, 1024, 100_000] {
        let name = length.to_string();
        assert!(read(&mut guest, &name, "", 512, 1, 0) == pattern(length), "{length}");
        let fast = "blksize\x001468\0windowsize\x0016\0tsize\x000\0";
        assert!(read(&mut guest, &name, fast, 1468, 16, 0) == pattern(length), "{length}, fast");
    }
    // The numbers of more blocks than 65,535 begin again.
    let (name, long) = ("long", pattern(70_000 * 8));
    std::fs::write(_dir.path().join(name), &long).unwrap();
    assert!(read(&mut guest, name, "blksize\x008\0windowsize\x0016\0", 8, 16, 0) == long);
}

#[test]
fn what_is_lost_comes_again() {
    let (mut guest, _dir) = guest();
    let options = "blksize\x001024\0windowsize\x008\0";
    assert!(read(&mut guest, "100000", options, 1024, 8, 100) == pattern(100_000));
}

#[test]
fn what_cannot_be_had_is_refused() {
    let (mut guest, _dir) = guest();
    for (request, code) in [
        (request("nothing", ""), 1),
        (request("../etc/passwd", ""), 2),
        (b"\0\x02new\0octet\0".to_vec(), 2),
        (b"\0\x01".to_vec(), 4),
    ] {
        let udp = guest.bind_udp(2000);
        guest.send_udp(udp, &request, SERVER);
        let (message, _) = guest.receive_udp(udp);
        assert_eq!(message[..4], [0, 5, 0, code], "{request:?}");
        guest.sockets.remove(udp);
    }
}

#[test]
fn without_a_directory_there_is_no_server() {
    let mut guest = Guest::new(open());
    let udp = guest.bind_udp(2000);
    let reason = guest.unreachable(icmp::Endpoint::Udp(2000.into()), |guest| {
        guest.send_udp(udp, &request("boot.ipxe", ""), SERVER);
    });
    assert_eq!(reason, Icmpv4DstUnreachable::PortUnreachable);
    let missing = Netboot { directory: "/nonexistent/env86".into(), file: None };
    let error = Network::start(Config { netboot: Some(missing), ..open() }).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/env86"), "{error}");
}
