//! The guest's network with the drivers of a real kernel: an address by DHCP, names, connections in both
//! directions, and all of it again after a restore. Every server is on the host's loopback.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use env86::net::{Config, Door, HOST, HOST_V6, Join, Limits, Listen, NameSettings, NameSource, Relay, Rules};
use env86::{Com, Image, Machine, MachineBuilder, NetDevice, SerialPort};
use env86_tests::{BOOT_LIMIT, Failure, PROMPT, Result, image, serve_http, serve_http_at};

/// Nothing here takes so long, on any machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
/// The first address that the gateway gives.
const ADDRESS: &str = "192.168.127.2";
/// A name that only the test's own server knows.
const NAME: &str = "www.example.test";
/// Bytes that the guest fetches, and the beginning of their MD5.
const BODY: usize = 300_000;
/// The guest's port that is forwarded.
const GUEST_PORT: u16 = 7000;

pub(crate) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::from(io::Error::other(error.to_string()))
}

/// What a server sends: text that cannot be mistaken for another part of it.
fn body() -> Vec<u8> {
    (0..).flat_map(|n: u32| format!("{n:08}\n").into_bytes()).take(BODY).collect()
}

/// A name server that knows [`NAME`] at the address of the host.
fn name_server() -> Result<SocketAddr> {
    const HEADER: usize = 12;
    const TYPE_A: [u8; 2] = [0, 1];
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    let name: Vec<u8> =
        NAME.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let Some(question) = query[..length].get(HEADER..) else { continue };
            let end = question.iter().position(|byte| *byte == 0).unwrap_or(0) + 1;
            let (known, asks_address) =
                (question[..end - 1] == name, question.get(end..end + 2) == Some(&TYPE_A));
            let answers = u8::from(known && asks_address);
            let outcome = if known { 0 } else { 3 };
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, 0x80 | outcome, 0, 1, 0, answers, 0, 0, 0, 0]);
            answer.extend(question.get(..end + 4).unwrap_or_default());
            if answers > 0 {
                // The name of the question, A, IN, a minute, four bytes.
                answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(HOST.octets());
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    Ok(address)
}

/// Servers of the host's, by their ports: one on the loopback of IPv4, one on that of IPv6.
#[derive(Clone, Copy)]
struct Servers {
    http: u16,
    http_v6: u16,
}

fn config(servers: Servers, names: SocketAddr) -> Result<Config> {
    let forwards: env86::net::Forwards = format!("0:{GUEST_PORT}").parse().map_err(failed)?;
    Ok(Config {
        rules: Rules { host_ports: vec![servers.http, servers.http_v6], ..Rules::default() },
        forwards: forwards.0,
        ipv6: true,
        names: NameSource::Fixed(NameSettings { servers: vec![names], ..NameSettings::default() }),
        ..Config::default()
    })
}

/// Shows the guest's connections.
const ESTABLISHED: &str = "cat /proc/net/tcp /proc/net/tcp6";

pub(crate) struct Guest {
    pub machine: Machine,
    pub com1: SerialPort,
}

impl Guest {
    pub fn start(builder: &MachineBuilder) -> Result<Self> {
        let machine = builder.start().map_err(failed)?;
        let com1 = machine.serial(Com::One);
        Ok(Self { machine, com1 })
    }

    /// Where the host listens for the guest.
    pub fn forward(&self) -> SocketAddr {
        match self.machine.forwards().first().map(|forward| &forward.listen) {
            Some(Listen::Tcp(address)) => *address,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a command, and gives what it says.
    fn run(&mut self, command: &str) -> Result<String> {
        self.run_within(command, LIMIT)
    }

    fn run_within(&mut self, command: &str, limit: Duration) -> Result<String> {
        // The quotes keep the echo of the line from being the end.
        writeln!(self.com1, "{command}; echo en''d-of-it")?;
        self.com1.expect("end-of-it", limit).map_err(failed)
    }

    /// Runs a command that has to succeed, and gives what it says, with its echo.
    pub fn does(&mut self, command: &str) -> Result<String> {
        self.does_within(command, LIMIT)
    }

    /// The same for a command that may take this long.
    pub fn does_within(&mut self, command: &str, limit: Duration) -> Result<String> {
        let said = self.run_within(&format!("({command}) 2>&1; echo st''atus $?"), limit)?;
        assert!(said.contains("status 0\r\n"), "{said}");
        Ok(said)
    }

    /// The last line of what a command says.
    pub fn line(&mut self, command: &str) -> Result<String> {
        let said = self.does(command)?;
        let lines: Vec<_> = said.lines().collect();
        let end = lines.iter().rposition(|line| line.starts_with("status 0")).unwrap_or(lines.len());
        Ok(lines.get(end.wrapping_sub(1)).copied().unwrap_or_default().trim().to_owned())
    }

    /// Repeats a command until it says something.
    fn until(&mut self, command: &str, text: &str) -> Result<()> {
        let said = self.run(&format!("until {command} | grep -F '{text}'; do sleep 1; done"))?;
        assert!(said.contains(text), "{said}");
        Ok(())
    }

    pub fn has_address(&mut self) -> Result<()> {
        self.until("ip -4 address", &format!("inet {ADDRESS}/24"))
    }

    /// Fetches what the server has, by two names, one of which only a name server of the host's knows.
    fn fetches(&mut self, port: u16) -> Result<()> {
        for host in ["host.env86.internal", NAME] {
            let said = self.run(&format!(
                "wget -q -O /tmp/got http://{host}:{port}/; wc -c < /tmp/got; tail -n 1 /tmp/got"
            ))?;
            let last = String::from_utf8_lossy(&body()).lines().last().unwrap_or_default().to_owned();
            assert!(said.contains(&format!("{BODY}\r\n{last}")), "{host}: {said}");
        }
        let closed = self.run("wget -O - http://host.env86.internal:1/ 2>&1")?;
        assert!(!closed.contains("saved"), "{closed}");
        Ok(())
    }

    /// The guest has made itself an address of IPv6 and reaches the host by it, and not what is closed.
    fn speaks_ipv6(&mut self, servers: Servers) -> Result<()> {
        self.until("ip -6 address show dev eth0 scope global", "inet6 fd5a:94ef:e40c:")?;
        self.until("ip -6 route", "default via fe80::1")?;
        self.until("busybox ping -6 -c 1 -W 5 fd5a:94ef:e40c::1", "ttl=")?;
        // What is on the other loopback only is found there.
        for port in [servers.http_v6, servers.http] {
            let said = self.run(&format!("wget -q -O - 'http://[{HOST_V6}]:{port}/' | wc -c"))?;
            assert!(said.contains(&BODY.to_string()), "{port}: {said}");
        }
        for closed in ["::1", "fe80::1", "fd5a:94ef:e40c::fe"] {
            let said = self.run(&format!("wget -T 20 -O /dev/null 'http://[{closed}]:1/' 2>&1"))?;
            assert!(!said.contains("saved"), "{closed}: {said}");
        }
        let said = self.run("busybox nslookup -type=AAAA host.env86.internal 192.168.127.1")?;
        assert!(said.contains(&HOST_V6.to_string()), "{said}");
        Ok(())
    }

    /// A client of the host's talks to a server of the guest's, which answers with what it gets.
    fn is_reached(&mut self) -> Result<TcpStream> {
        let mut client = TcpStream::connect(self.forward())?;
        client.set_read_timeout(Some(LIMIT))?;
        client.write_all(b"is anyone there?\n")?;
        let mut answer = [0; 17];
        client.read_exact(&mut answer)?;
        assert_eq!(&answer, b"is anyone there?\n");
        Ok(client)
    }

    /// A program of the guest's waits for a server that never says anything.
    fn waits_for_a_server(&mut self, port: u16) -> Result<()> {
        self.run(&format!(
            "mkfifo /tmp/idle; (nc host.env86.internal {port} < /tmp/idle > /dev/null; touch /tmp/nc-has-ended) & \
             exec 3> /tmp/idle"
        ))?;
        self.until(ESTABLISHED, &format!(":{port:04X} 01 "))
    }

    /// What waited on a connection of the saved machine has been told that it is no more, though it never sent
    /// anything: within a second, by the guest's clock.
    fn has_lost_its_connections(&mut self) -> Result<()> {
        let said = self.run(&format!("sleep 1; ls /tmp/nc*; {ESTABLISHED} | grep ' [0]1 '"))?;
        assert!(said.contains("/tmp/nc-has-ended\r\n") && !said.contains(" 01 "), "{said}");
        Ok(())
    }

    /// The cable is pulled: the virtio card's driver is told, and no card hears the gateway. It comes back.
    fn loses_its_link(&mut self, device: NetDevice) -> Result<()> {
        const PING: &str = "busybox ping -c 1 -W 1 192.168.127.1";
        const CARRIER: &str = "cat /sys/class/net/eth0/carrier";
        let controls = self.machine.controls();
        controls.link(false).map_err(failed)?;
        if device == NetDevice::Virtio {
            self.until(CARRIER, "0")?;
        }
        let said = self.run(PING)?;
        assert!(!said.contains("ttl="), "{said}");
        controls.link(true).map_err(failed)?;
        if device == NetDevice::Virtio {
            self.until(CARRIER, "1")?;
        }
        self.until(PING, "ttl=")
    }
}

fn works(device: NetDevice) -> Result<()> {
    let servers =
        Servers { http: serve_http(body())?, http_v6: serve_http_at(Ipv6Addr::LOCALHOST.into(), body())? };
    let (http, names) = (servers.http, name_server()?);
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let silent_port = silent.local_addr()?.port();
    let config = || -> Result<Config> {
        let mut config = config(servers, names)?;
        config.rules.host_ports.push(silent_port);
        Ok(config)
    };
    let image = Image::open(image()?).map_err(failed)?;
    let folder = tempdir()?;
    let state = folder.join("state");
    let builder = Machine::builder().image(&image).network(config()?);
    let mut guest = Guest::start(&builder.clone().cold().net_device(device))?;
    guest.com1.expect(PROMPT, BOOT_LIMIT).map_err(failed)?;
    guest.has_address()?;
    guest.fetches(http)?;
    guest.speaks_ipv6(servers)?;
    guest.run(&format!("(nc -ll -p {GUEST_PORT} -e cat > /dev/null 2>&1 &)"))?;
    guest.until("cat /proc/net/tcp /proc/net/tcp6", &format!(":{GUEST_PORT:04X} "))?;
    guest.is_reached()?;
    guest.loses_its_link(device)?;
    // A connection in each direction, on which nothing moves.
    guest.waits_for_a_server(silent_port)?;
    let _client = guest.is_reached()?;
    guest.machine.save(&state).map_err(failed)?;
    guest.machine.stop().map_err(failed)?;

    let mut guest = Guest::start(&builder.state(&state))?;
    guest.has_lost_its_connections()?;
    guest.has_address()?;
    // The forward works before the guest has sent anything.
    guest.is_reached()?;
    guest.fetches(http)?;
    guest.speaks_ipv6(servers)?;
    // The lease is renewed by a gateway that has never given it.
    guest.run("> /etc/resolv.conf; network")?;
    guest.until("cat /etc/resolv.conf", "192.168.127.1")?;
    guest.machine.stop().map_err(failed)?;

    // The same machine on a network that it shares with others.
    let door = Door {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        token: Some("secret".into()),
        origins: Vec::new(),
        limits: Limits::default(),
        wisp: false,
    };
    let relay = Relay::start(config()?, door).map_err(failed)?;
    let join: Join = format!("ws://{}/?token=secret", relay.address()).parse().map_err(failed)?;
    let builder = Machine::builder().image(&image).state(&state).network(join);
    let mut guest = Guest::start(&builder)?;
    guest.has_lost_its_connections()?;
    guest.run("> /etc/resolv.conf; network")?;
    guest.until("cat /etc/resolv.conf", "192.168.127.1")?;
    guest.has_address()?;
    guest.fetches(http)?;
    // Another copy of it has an address of its own, and both are there.
    let mut copy = Guest::start(&builder)?;
    copy.run("> /etc/resolv.conf; network")?;
    copy.until("cat /etc/resolv.conf", "192.168.127.1")?;
    copy.until("ip -4 address", "inet 192.168.127.3/24")?;
    copy.fetches(http)?;
    guest.fetches(http)?;
    copy.until(&format!("busybox ping -c 1 -W 5 {ADDRESS}"), "ttl=")?;
    guest.until("busybox ping -c 1 -W 5 192.168.127.3", "ttl=")?;
    copy.machine.stop().map_err(failed)?;
    guest.machine.stop().map_err(failed)?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// A folder for a state.
fn tempdir() -> Result<std::path::PathBuf> {
    let folder =
        std::env::temp_dir().join(format!("env86-net-{}-{:?}", std::process::id(), thread::current().id()));
    std::fs::create_dir(&folder)?;
    Ok(folder)
}

#[test]
fn ne2k() -> Result<()> {
    works(NetDevice::Ne2k)
}

#[test]
fn virtio() -> Result<()> {
    works(NetDevice::Virtio)
}
