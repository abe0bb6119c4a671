//! Programs that everyone uses, between the guest and servers on the host's loopback: ssh, a web server under load, a
//! package manager, iperf3, many connections at once, and transfers over a bad cable.
//!
//! The guest is the image of `images/net`, with the virtio card. It is booted once, with its servers started, and
//! resumed by each test.

#![cfg(unix)]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use env86::net::{Config, Faults, Rules};
use env86::{Image, Machine, NetDevice};
use env86_tests::{BOOT_LIMIT, Failure, PROMPT, Result, bound_to_us, media, net_image, serve_folder};
use sha2::{Digest, Sha256};

use crate::net::{Guest, LIMIT, failed};

/// The ports of the guest's servers: dropbear, nginx, iperf3.
const SSH: u16 = 22;
pub(crate) const HTTP: u16 = 80;
const IPERF: u16 = 5201;
/// What nginx serves.
pub(crate) const PAGE: &str = "a page from the guest";
/// What a guest calls the host.
pub(crate) const HOST: &str = "host.env86.internal";

const NGINX: &str = "user root; worker_processes 1; pid /run/nginx.pid; error_log /var/log/nginx.log; \
                     events { worker_connections 1024; } \
                     http { access_log off; server { listen 80 backlog=1024; root /srv; } }";

/// A state in which the guest's servers run, and the key that its ssh server lets in.
static READY: LazyLock<Result<Ready, String>> = LazyLock::new(|| Ready::new().map_err(|e| e.to_string()));

pub(crate) struct Ready {
    folder: PathBuf,
}

impl Ready {
    fn new() -> Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("net-programs");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        does(
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join("key")),
        )?;
        let key = fs::read_to_string(folder.join("key.pub"))?;
        let image = Image::open(net_image()?).map_err(failed)?;
        let builder = Machine::builder().image(&image).cold().net_device(NetDevice::Virtio);
        let mut guest = Guest::start(&builder.network(Config::default()))?;
        guest.com1.expect(PROMPT, BOOT_LIMIT).map_err(failed)?;
        guest.has_address()?;
        guest.does(&format!(
            "mkdir -p -m 700 /root/.ssh && echo '{}' > /root/.ssh/authorized_keys && \
             dropbearkey -t ed25519 -f /etc/host-key && dropbear -r /etc/host-key -p {SSH}",
            key.trim()
        ))?;
        guest.does(&format!(
            "mkdir -p /var/lib/nginx /srv && echo '{PAGE}' > /srv/index.html && echo '{NGINX}' > /etc/nginx.conf && \
             nginx -c /etc/nginx.conf"
        ))?;
        guest.does(
            "mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers && touch /var/lib/dpkg/status",
        )?;
        guest.does(&format!("iperf3 -s -D -p {IPERF}"))?;
        guest.machine.save(folder.join("state")).map_err(failed)?;
        guest.machine.stop().map_err(failed)?;
        Ok(Self { folder })
    }

    pub(crate) fn get() -> Result<&'static Self> {
        READY.as_ref().map_err(|error| Failure::from(std::io::Error::other(error.clone())))
    }

    /// The guest, on a network where it may reach ports of the host's and one of its own is forwarded; gives the
    /// host's port for that.
    fn resume(&self, host_ports: &[u16], forward: u16, faults: Option<Faults>) -> Result<(Guest, u16)> {
        Self::resume_from(&self.path("state"), host_ports, forward, faults)
    }

    /// As [`Self::resume`], from a later state.
    pub(crate) fn resume_from(
        state: &Path,
        host_ports: &[u16],
        forward: u16,
        faults: Option<Faults>,
    ) -> Result<(Guest, u16)> {
        let forwards: env86::net::Forwards = format!("0:{forward}").parse().map_err(failed)?;
        let rules = Rules { host_ports: host_ports.into(), ..Rules::default() };
        let config = Config { rules, forwards: forwards.0, faults, ..Config::default() };
        let image = Image::open(net_image()?).map_err(failed)?;
        let builder = Machine::builder().image(&image).state(state).network(config);
        let guest = Guest::start(&builder)?;
        let port = guest.forward().port();
        Ok((guest, port))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Runs a program of the host's to its end; gives what it says.
fn does(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` installs what is needed"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(said)
}

/// A server of the host's, which ends with this.
struct Server(Child);

impl Server {
    /// Starts one, and waits until it listens.
    fn start(command: &mut Command, port: u16) -> Result<Self> {
        let server = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        for _ in 0..600 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("{command:?} does not listen");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody listens at.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn ssh_in_both_directions() -> Result<()> {
    const LENGTH: usize = 50 << 20;
    let ready = Ready::get()?;
    let bytes = media::noise(LENGTH);
    let sum = hex(&Sha256::digest(&bytes));
    let file = ready.path("to-guest");
    fs::write(&file, &bytes)?;

    // The server that the guest reaches at the host's loopback is another machine's behind a forwarded port: a host
    // need not have one.
    let (mut other, port) = ready.resume(&[], SSH, None)?;
    let (mut guest, forward) = ready.resume(&[port], SSH, None)?;
    guest.does("ssh-keygen -q -t ed25519 -N '' -f /root/key && dropbearconvert openssh dropbear /root/key /root/db-key")?;
    let key = guest.line("cat /root/key.pub")?;
    other.does(&format!("echo '{}' >> /root/.ssh/authorized_keys", key.trim()))?;

    // From the host: a command, a file there, its sum, and the file back.
    let options = |command: &mut Command, port_flag: &str| {
        command.arg("-i").arg(ready.path("key")).args([port_flag, &forward.to_string()]);
        for option in
            ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR"]
        {
            command.args(["-o", option]);
        }
    };
    let ssh = |text: &str| {
        let mut command = bound_to_us("ssh");
        options(&mut command, "-p");
        does(command.args(["root@127.0.0.1", text]))
    };
    let scp = |from: &Path, to: &Path| {
        let mut command = bound_to_us("scp");
        command.args(["-q", "-O"]);
        options(&mut command, "-P");
        does(command.arg(from).arg(to))
    };
    assert_eq!(ssh("uname -m")?, "i686\n");
    scp(&file, Path::new("root@127.0.0.1:/tmp/file"))?;
    assert!(ssh("sha256sum /tmp/file")?.starts_with(&sum));
    // The rest with a part of it, since the guest's processor is what takes the time.
    let bytes = &bytes[..LENGTH / 10];
    ssh(&format!("head -c {} /tmp/file > /tmp/part", bytes.len()))?;
    scp(Path::new("root@127.0.0.1:/tmp/part"), &ready.path("from-guest"))?;
    assert!(fs::read(ready.path("from-guest"))? == bytes);

    // From the guest, with either client.
    let said = guest.does(&format!("dbclient -y -y -i /root/db-key -p {port} root@{HOST} echo over''ssh"))?;
    assert!(said.contains("overssh"), "{said}");
    guest.does(&format!(
        "scp -q -O -i /root/key -P {port} -o StrictHostKeyChecking=no -o BatchMode=yes /tmp/part root@{HOST}:/tmp/copy"
    ))?;
    let copied = other.does("sha256sum /tmp/copy")?;
    assert!(copied.contains(&hex(&Sha256::digest(bytes))), "{copied}");
    other.machine.stop().map_err(failed)?;
    guest.machine.stop().map_err(failed)?;
    Ok(())
}

#[test]
fn a_web_server_of_the_guests_under_load() -> Result<()> {
    let (guest, forward) = Ready::get()?.resume(&[], HTTP, None)?;
    let url = format!("http://127.0.0.1:{forward}/");
    let said = does(bound_to_us("wrk").args(["-t", "2", "-c", "50", "-d", "4", "--timeout", "60", &url]))?;
    let wrong = said.contains("Socket errors") || said.contains("Non-2xx");
    let requests =
        said.lines().find_map(|line| line.trim().split_once(" requests in")?.0.parse::<u32>().ok());
    assert!(!wrong && requests.is_some_and(|requests| requests > 0), "{said}");
    guest.machine.stop().map_err(failed)?;
    Ok(())
}

#[test]
fn many_connections_at_once() -> Result<()> {
    const CONNECTIONS: usize = 500;
    let (guest, forward) = Ready::get()?.resume(&[], HTTP, None)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, forward));
    let clients: std::io::Result<Vec<TcpStream>> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(address)).collect();
    let mut clients = clients?;
    // All are there before the first is closed.
    for round in 0..2 {
        for client in &mut clients {
            client.set_read_timeout(Some(LIMIT))?;
            client.write_all(b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n")?;
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut answer = Vec::new();
            while !answer.ends_with(format!("\r\n\r\n{PAGE}\n").as_bytes()) {
                let mut byte = [0];
                let read = client.read_exact(&mut byte);
                let so_far = || String::from_utf8_lossy(&answer).into_owned();
                assert!(read.is_ok(), "round {round}, client {number}: {read:?} after {}", so_far());
                answer.extend(byte);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
    }
    guest.machine.stop().map_err(failed)?;
    Ok(())
}

/// A repository with one package that was made a moment ago.
fn repository(folder: &Path) -> Result<()> {
    let (tree, pool) = (folder.join("package"), folder.join("repository"));
    fs::create_dir_all(tree.join("DEBIAN"))?;
    fs::create_dir_all(tree.join("usr/share/env86-show"))?;
    fs::create_dir_all(&pool)?;
    let control = "Package: env86-show\nVersion: 1.0\nArchitecture: i386\nMaintainer: env86 <env86@localhost>\n\
                   Description: a package for a test\n";
    fs::write(tree.join("DEBIAN/control"), control)?;
    fs::write(tree.join("usr/share/env86-show/noise"), media::noise(3 << 20))?;
    let deb = pool.join("env86-show.deb");
    does(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(&tree).arg(&deb))?;
    let bytes = fs::read(deb)?;
    let entry = format!(
        "{control}Filename: ./env86-show.deb\nSize: {}\nSHA256: {}\n",
        bytes.len(),
        hex(&Sha256::digest(&bytes))
    );
    fs::write(pool.join("Packages"), entry)?;
    Ok(())
}

#[test]
fn packages_from_a_repository() -> Result<()> {
    let ready = Ready::get()?;
    repository(&ready.folder)?;
    let port = serve_folder(ready.path("repository"))?;
    let (mut guest, _) = ready.resume(&[port], HTTP, None)?;
    guest.does(&format!(
        "echo 'deb [trusted=yes] http://{HOST}:{port} ./' > /etc/apt/sources.list && apt-get update"
    ))?;
    guest.does("DEBIAN_FRONTEND=noninteractive apt-get install -y env86-show")?;
    let sum = hex(&Sha256::digest(media::noise(3 << 20)));
    let said = guest.does("sha256sum /usr/share/env86-show/noise && curl -s http://127.0.0.1/")?;
    assert!(said.contains(&sum) && said.contains(PAGE), "{said}");
    guest.machine.stop().map_err(failed)?;
    Ok(())
}

#[test]
fn iperf3_in_both_directions() -> Result<()> {
    let ready = Ready::get()?;
    let port = free_port()?;
    let mut server = bound_to_us("iperf3");
    let server = server.args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()]).stderr(Stdio::null());
    let server = Server::start(server, port)?;
    let (mut guest, forward) = ready.resume(&[port], IPERF, None)?;
    for reverse in ["", "-R"] {
        let said = guest.does(&format!("iperf3 -c {HOST} -p {port} -t 1 {reverse}"))?;
        assert!(said.contains("iperf Done"), "{said}");
        let said = does(
            bound_to_us("iperf3")
                .args(["-c", "127.0.0.1", "-p", &forward.to_string(), "-t", "1"])
                .args(Some(reverse).filter(|flag| !flag.is_empty())),
        )?;
        assert!(said.contains("iperf Done"), "{said}");
    }
    drop(server);
    guest.machine.stop().map_err(failed)?;
    Ok(())
}

/// Bytes go both ways over a cable that loses and reorders frames, and all arrive.
#[test]
fn a_bad_cable() -> Result<()> {
    const MEBIBYTES: usize = 16;
    let late_by = Duration::from_millis(2);
    let faults = Faults { lost: 1, late: 5, late_by, seed: 3, ..Faults::default() };
    transfers(MEBIBYTES, faults)
}

/// Lets the guest fetch so many blocks and send as many: all are hashed, the host's by the guest and the guest's by
/// the host.
pub(crate) fn transfers(mebibytes: usize, faults: Faults) -> Result<()> {
    let block = media::noise(1 << 20);
    let mut hash = Sha256::new();
    (0..mebibytes).for_each(|_| hash.update(&block));
    let sum = hex(&hash.finalize());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let server = thread::spawn(move || -> std::io::Result<String> {
        // One block, all of them, and then what the guest sends.
        for count in [1, mebibytes] {
            let (mut down, _) = listener.accept()?;
            (0..count).try_for_each(|_| down.write_all(&block))?;
        }
        let (mut up, _) = listener.accept()?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        while let n @ 1.. = up.read(&mut buffer)? {
            hash.update(&buffer[..n]);
        }
        Ok(hex(&hash.finalize()))
    });
    let (mut guest, _) = Ready::get()?.resume(&[port], HTTP, Some(faults))?;
    let fetch = format!("nc {HOST} {port} < /dev/null");
    guest.does(&format!("{fetch} > /tmp/block"))?;
    let limit = LIMIT + Duration::from_secs(2 * mebibytes as u64);
    let said = guest.does_within(&format!("{fetch} | sha256sum"), limit)?;
    assert!(said.contains(&sum), "{said}");
    let send = format!("for n in $(seq {mebibytes}); do cat /tmp/block; done | nc {HOST} {port}");
    guest.does_within(&send, limit)?;
    assert_eq!(server.join().expect("no panic")?, sum);
    guest.machine.stop().map_err(failed)?;
    Ok(())
}
