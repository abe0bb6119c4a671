//! The guest as a whole: its clock, its chance, its network, what is mounted.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use guest86::call::Hello;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};
use rustix::io::Errno;
use rustix::ioctl::{NoArg, ioctl, opcode};
use rustix::mount::{MountFlags, mount as mount_at};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use rustix::time::{ClockId, Timespec, clock_settime};

use super::dhcp;
use super::files::text;
use super::stream::{Kind, Stream};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a network card's driver may take until there is an interface.
const INTERFACE: Duration = Duration::from_secs(5);
/// Who has this file locked sets up the network.
const TURN: &str = "/run/guest86.network";
/// How a network card is known: the bus, the file in the device's folder, and how its text begins. A virtio card
/// is on both buses, on each with a driver.
const CARDS: [(&str, &str, &str); 2] = [("pci", "class", "0x02"), ("virtio", "device", "0x0001")];
/// The kernel's messages about interfaces (rtnetlink(7), `RTMGRP_LINK`).
const LINKS: u32 = 1;
/// Makes the kernel's generator begin anew from what it was given (random(4), `RNDRESEEDCRNG`).
const RESEED: u32 = opcode::none(b'R', 7);

/// What a guest needs to know that has been asleep in a file.
pub fn hello(hello: &Hello) -> Result<(), String> {
    if let Some((seconds, nanoseconds)) = hello.time {
        let time = Timespec { tv_sec: seconds as _, tv_nsec: nanoseconds as _ };
        // A service that is not root's cannot, and need not.
        let _ = clock_settime(ClockId::Realtime, time);
    }
    if !hello.entropy.is_empty()
        && let Ok(mut random) = OpenOptions::new().write(true).open("/dev/urandom")
    {
        random.write_all(&hello.entropy).map_err(text)?;
        // SAFETY: the request has no argument.
        #[expect(unsafe_code, reason = "docs/ARCHITECTURE.md lists it")]
        let reseeded = unsafe { ioctl(&random, NoArg::<RESEED>::new()) };
        // Kernels before 4.14 have none, and begin anew by themselves.
        let _ = reseeded;
    }
    Ok(())
}

/// The network cards on a bus.
fn cards(sys: &Path, (bus, file, start): (&str, &str, &str)) -> Vec<PathBuf> {
    let devices = fs::read_dir(sys.join("bus").join(bus).join("devices")).into_iter().flatten().flatten();
    let is_card =
        |device: &PathBuf| fs::read_to_string(device.join(file)).is_ok_and(|text| text.starts_with(start));
    devices.map(|device| device.path()).filter(is_card).collect()
}

/// There is an interface that is a device's.
fn has_interface(sys: &Path) -> bool {
    let interfaces = fs::read_dir(sys.join("class/net")).into_iter().flatten().flatten();
    interfaces.map(|interface| interface.path()).any(|path| path.join("device").exists())
}

/// A socket on which the kernel tells of new interfaces (netlink(7); protocol 0, `NETLINK_ROUTE`).
fn interfaces() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, LINKS))?;
    Ok(socket)
}

/// Waits until one of these can be read, so long at most. Signals may end it before.
fn wait(fds: &mut [PollFd], limit: Option<Duration>) -> Result<(), String> {
    let limit =
        limit.map(|limit| Timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ });
    match poll(fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(text(error)),
    }
}

/// Loads the drivers of network cards that have none, and waits for an interface if there is a card.
fn find_interface(sys: &Path) -> Result<(), String> {
    // It is there before the first look, so that none is missed.
    let told = interfaces().map_err(text)?;
    let mut any = false;
    for bus in CARDS {
        for card in cards(sys, bus) {
            any = true;
            if card.join("driver").exists() {
                continue;
            }
            if let Ok(alias) = fs::read_to_string(card.join("modalias")) {
                let mut modprobe = Command::new("modprobe");
                modprobe.args(["-q", alias.trim_end()]);
                modprobe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                // A system without the program or the module may have its own way: the interface tells.
                let _ = modprobe.status();
            }
        }
    }
    let end = Instant::now() + INTERFACE;
    while any && !has_interface(sys) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no driver makes an interface of the network card".into());
        }
        wait(&mut [PollFd::new(&told, PollFlags::IN)], Some(left))?;
        // The interfaces are looked at, not what is said of them.
        while recv(&told, &mut [0; 64], RecvFlags::empty()).is_ok() {}
    }
    Ok(())
}

/// What busybox's client has the address set by. Without it there is a lease, and no address.
const UDHCPC_SCRIPTS: [&str; 2] = ["/usr/share/udhcpc/default.script", "/etc/udhcpc/default.script"];
/// Sets up the network of the interfaces in `$SYS`, with whatever the system has for that; without anything it is done here.
const NETWORK: &str = "\
    fail() { echo \"$*\" >&2; exit 1; }
    ip link set lo up 2>/dev/null || ifconfig lo up 2>/dev/null
    command -v hwclock >/dev/null && hwclock -s 2>/dev/null
    command -v setup-interfaces >/dev/null && { hostname localhost; setup-interfaces -a -r; exit; }
    none=yes
    for path in \"$SYS\"/class/net/*; do
        name=${path##*/}
        [ \"$name\" != lo ] && [ -e \"$path/device\" ] || continue
        none=
        ip link set \"$name\" up 2>/dev/null || ifconfig \"$name\" up 2>/dev/null
        if [ -z \"$NO_UDHCPC\" ] && command -v udhcpc >/dev/null; then
            pkill -f \"udhcpc.* -i $name( |\\$)\" 2>/dev/null
            udhcpc -n -t 4 -T 1 -i \"$name\" -p \"/run/udhcpc.$name.pid\" || exit
        elif command -v dhclient >/dev/null; then dhclient -1 \"$name\" || exit
        elif command -v ifup >/dev/null; then ifup --force \"$name\" || exit
        elif command -v networkctl >/dev/null; then networkctl renew \"$name\" || exit
        else fail \"there is no udhcpc, dhclient, ifup or networkctl to ask for an address for $name\"
        fi
    done
    [ -z \"$none\" ] || fail 'there is no network card'";

/// Sets up the network after a restore. A DHCP client that runs already is replaced: one that has just started
/// would take the address away again.
pub fn reset_network() -> Result<(), String> {
    let _turn = turn();
    set_up_network(Path::new("/sys"))
}

fn set_up_network(sys: &Path) -> Result<(), String> {
    find_interface(sys)?;
    let mut script = Command::new("/bin/sh");
    script.args(["-c", NETWORK]).env("SYS", sys);
    if !UDHCPC_SCRIPTS.iter().any(|path| Path::new(path).exists()) {
        script.env("NO_UDHCPC", "1");
    }
    let asked = run_script(&mut script);
    // A container has no program for it, or one that needs modules of the kernel which are not there.
    match asked {
        Err(why) if has_interface(sys) => dhcp::set_up(sys).map_err(|own| format!("{why}; {own}")),
        asked => asked,
    }
}

/// Sets up the network of a system that starts, if there is a card. The host may have had that done before: doing it
/// again would take the address away for a moment.
pub fn start_network() -> Result<(), String> {
    let sys = Path::new("/sys");
    let _turn = turn();
    let is_there = fs::read_to_string("/proc/net/route").is_ok_and(|routes| has_route(&routes, sys));
    if is_there || CARDS.iter().all(|bus| cards(sys, *bus).is_empty()) {
        return Ok(());
    }
    set_up_network(sys)
}

/// Waits until no other process sets up the network; it is held as long as the file is open.
fn turn() -> Option<File> {
    // Where it cannot be made, there is no other, either.
    let file = File::create(TURN).ok()?;
    flock(&file, FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// One of the kernel's routes is by a card.
fn has_route(routes: &str, sys: &Path) -> bool {
    let names = routes.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    names.map(|name| sys.join("class/net").join(name)).any(|path| path.join("device").exists())
}

/// Runs a script; when it fails, the error is the last line that it said. What it says goes to a file, because
/// what it leaves running keeps it open.
fn run_script(command: &mut Command) -> Result<(), String> {
    let mut said = File::from(memfd_create("said", MemfdFlags::CLOEXEC).map_err(text)?);
    let out = || said.try_clone().map_err(text);
    let status = command.stdin(Stdio::null()).stdout(out()?).stderr(out()?).status().map_err(text)?;
    if status.success() {
        return Ok(());
    }
    let mut words = Vec::new();
    said.rewind().and_then(|()| said.read_to_end(&mut words)).map_err(text)?;
    let words = String::from_utf8_lossy(&words);
    let last = words.lines().map(str::trim).rfind(|line| !line.is_empty());
    Err(last.map_or_else(|| format!("the set-up of the network has failed ({status})"), str::to_owned))
}

/// A stream that is a connection.
pub fn connection(socket: impl Into<OwnedFd>) -> Result<Stream, String> {
    let socket = socket.into();
    rustix::io::ioctl_fionbio(&socket, true).map_err(text)?;
    let mut stream = Stream::new(Kind::Socket);
    stream.sources[0] = Some(socket.try_clone().map_err(text)?);
    stream.sink = Some(socket);
    Ok(stream)
}

/// A TCP connection to `host:port`.
pub fn dial(address: &str) -> Result<Stream, String> {
    let failed = |error: io::Error| format!("dial tcp {address}: {}", text(error));
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for to in address.to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&to, CONNECT) {
            Ok(stream) => {
                // One keystroke is a packet.
                stream.set_nodelay(true).map_err(failed)?;
                return connection(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// Listens at `host:port`; gives the address that came of it.
pub fn listen(address: &str) -> Result<(String, Stream), String> {
    let failed = |error: io::Error| format!("listen tcp {address}: {}", text(error));
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?.to_string();
    let mut stream = Stream::new(Kind::Listener(Vec::new()));
    stream.sources[0] = Some(listener.into());
    Ok((at, stream))
}

/// Mounts a file system that the host serves on the channel: the kernel connects to this process for it.
pub fn mount_9p(path: String) -> Result<Stream, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
    let port = listener.local_addr().map_err(text)?.port();
    listener.set_nonblocking(true).map_err(text)?;
    fs::create_dir_all(&path).map_err(|error| format!("mkdir {path}: {}", text(error)))?;
    let (over, mounts) = io::pipe().map_err(text)?;
    let mounted = thread::spawn(move || {
        // It is closed when this ends, and wakes who waits for the connection.
        let _mounts = mounts;
        // Both sides change files: what is kept is only what a program has mapped.
        let options = format!("trans=tcp,port={port},version=9p2000.L,cache=mmap,msize=65536\0");
        let options = CStr::from_bytes_with_nul(options.as_bytes()).ok();
        mount_at("127.0.0.1", &*path, "9p", MountFlags::NOSUID | MountFlags::NODEV, options)
    });
    loop {
        let mut fds = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&over, PollFlags::IN)];
        wait(&mut fds, None)?;
        let is_over = !fds[1].revents().is_empty();
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nodelay(true).map_err(text)?;
                return connection(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(text(error)),
        }
        if is_over {
            let failed = match mounted.join() {
                Ok(Err(error)) => text(error),
                _ => "it has ended".into(),
            };
            return Err(format!("mount: {failed}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own that has this in its files.
    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("guest86-{name}-{}", std::process::id()));
        for (file, content) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn cards_and_their_interfaces_are_found() {
        let sys = folder(
            "cards",
            &[
                ("bus/pci/devices/0000:00:05.0/class", "0x020000\n"),
                ("bus/pci/devices/0000:00:06.0/class", "0x010000\n"),
                ("bus/virtio/devices/virtio0/device", "0x0009\n"),
                ("bus/virtio/devices/virtio1/device", "0x0001\n"),
                ("class/net/lo/address", "00:00:00:00:00:00\n"),
            ],
        );
        assert!(cards(&sys.join("none"), CARDS[0]).is_empty() && !has_interface(&sys.join("none")));
        assert_eq!(cards(&sys, CARDS[0]), [sys.join("bus/pci/devices/0000:00:05.0")]);
        assert_eq!(cards(&sys, CARDS[1]), [sys.join("bus/virtio/devices/virtio1")]);
        assert!(!has_interface(&sys));
        fs::create_dir_all(sys.join("class/net/eth0/device")).unwrap();
        assert!(has_interface(&sys));
        let routes = |name: &str| format!("Iface\tDestination\tGateway\n{name}\t00000000\t017FA8C0\n");
        assert!(has_route(&routes("eth0"), &sys) && !has_route(&routes("lo"), &sys) && !has_route("", &sys));
        fs::remove_dir_all(&sys).unwrap();
    }

    #[test]
    fn a_mount_that_fails_says_why() {
        let at = folder("mount", &[("kept", "")]).join("kept");
        let error = mount_9p(at.display().to_string()).err().unwrap();
        assert!(error.starts_with("mkdir "), "{error}");
        // Not one of a service that is not root's, and none of a kernel that has no 9p.
        let at = at.with_file_name("at");
        if let Err(error) = mount_9p(at.display().to_string()) {
            assert!(error.starts_with("mount: "), "{error}");
        }
        fs::remove_dir_all(at.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_network_that_is_not_set_up_says_why() {
        let sys = folder("network", &[("class/net/lo/address", "")]);
        // There is no program but the client: nothing of this machine is set up.
        let set_up = |client: &str| {
            let script = format!("{client}\n{NETWORK}");
            run_script(Command::new("/bin/sh").args(["-c", &script]).env("SYS", &sys).env("PATH", &sys))
        };
        assert_eq!(set_up(""), Err("there is no network card".into()));
        fs::create_dir_all(sys.join("class/net/eth7/device")).unwrap();
        let none = "there is no udhcpc, dhclient, ifup or networkctl to ask for an address for eth7";
        assert_eq!(set_up(""), Err(none.into()));
        let client = "udhcpc() { echo udhcpc: started; echo udhcpc: no lease, failing >&2; echo; return 1; }";
        assert_eq!(set_up(client), Err("udhcpc: no lease, failing".into()));
        let failed = set_up("udhcpc() { return 3; }").unwrap_err();
        assert!(failed.starts_with("the set-up") && failed.contains('3'), "{failed}");
        let client = "udhcpc() { [ \"$*\" = '-n -t 4 -T 1 -i eth7 -p /run/udhcpc.eth7.pid' ]; }";
        assert_eq!(set_up(client), Ok(()));
        fs::remove_dir_all(&sys).unwrap();
    }
}
