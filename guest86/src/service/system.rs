//! The guest as a whole: its clock, its chance, its network, what is mounted.

use std::ffi::CStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use guest86::call::Hello;
use rustix::ioctl::{NoArg, ioctl, opcode};
use rustix::mount::{MountFlags, mount as mount_at};
use rustix::time::{ClockId, Timespec, clock_settime};

use super::files::text;
use super::stream::{Kind, Stream};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a network card's driver may take until there is an interface.
const INTERFACE: Duration = Duration::from_secs(5);
/// How a network card is known: the bus, the file in the device's folder, and how its text begins. A virtio card
/// is on both buses, on each with a driver.
const CARDS: [(&str, &str, &str); 2] = [("pci", "class", "0x02"), ("virtio", "device", "0x0001")];
/// How often it is looked whether a mount has failed, or an interface has come.
const LOOK: Duration = Duration::from_millis(5);
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

/// Loads the drivers of network cards that have none, and waits for an interface if there is a card.
fn find_interface() -> Result<(), String> {
    let sys = Path::new("/sys");
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
        if Instant::now() >= end {
            return Err("no driver makes an interface of the network card".into());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Sets up the network after a restore, with whatever the system has for that. A DHCP client that runs already
/// is replaced: one that has just started would take the address away again.
pub fn reset_network() -> Result<(), String> {
    find_interface()?;
    const SCRIPT: &str = "\
        ip link set lo up 2>/dev/null || ifconfig lo up 2>/dev/null
        command -v hwclock >/dev/null && hwclock -s 2>/dev/null
        command -v setup-interfaces >/dev/null && { hostname localhost; setup-interfaces -a -r; exit; }
        for path in /sys/class/net/*; do
            name=${path##*/}
            [ \"$name\" != lo ] && [ -e \"$path/device\" ] || continue
            ip link set \"$name\" up 2>/dev/null || ifconfig \"$name\" up
            if command -v udhcpc >/dev/null; then
                pkill -f \"udhcpc.* -i $name( |\\$)\" 2>/dev/null
                udhcpc -n -t 4 -T 1 -i \"$name\" -p \"/run/udhcpc.$name.pid\" || exit
            elif command -v dhclient >/dev/null; then dhclient -1 \"$name\" || exit
            elif command -v ifup >/dev/null; then ifup --force \"$name\" || exit
            elif command -v networkctl >/dev/null; then networkctl renew \"$name\" || exit
            fi
        done
        :";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("exit status {}", status.code().unwrap_or(-1))) }
}

/// A stream that is a connection.
fn connection(socket: impl Into<OwnedFd>) -> Result<Stream, String> {
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

/// Mounts a file system that the host serves on the channel: the kernel connects to this process for it.
pub fn mount_9p(path: String) -> Result<Stream, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
    let port = listener.local_addr().map_err(text)?.port();
    listener.set_nonblocking(true).map_err(text)?;
    fs::create_dir_all(&path).map_err(|error| format!("mkdir {path}: {}", text(error)))?;
    let mounted = thread::spawn(move || {
        // Both sides change files: what is kept is only what a program has mapped.
        let options = format!("trans=tcp,port={port},version=9p2000.L,cache=mmap,msize=65536\0");
        let options = CStr::from_bytes_with_nul(options.as_bytes()).ok();
        mount_at("127.0.0.1", &*path, "9p", MountFlags::NOSUID | MountFlags::NODEV, options)
    });
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nodelay(true).map_err(text)?;
                return connection(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(LOOK),
            Err(error) => return Err(text(error)),
        }
        if mounted.is_finished() {
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

    #[test]
    fn cards_and_their_interfaces_are_found() {
        let sys = std::env::temp_dir().join(format!("guest86-sys-{}", std::process::id()));
        let write = |name: &str, text: &str| {
            let path = sys.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(cards(&sys, CARDS[0]).is_empty() && !has_interface(&sys));
        write("bus/pci/devices/0000:00:05.0/class", "0x020000\n");
        write("bus/pci/devices/0000:00:06.0/class", "0x010000\n");
        write("bus/virtio/devices/virtio0/device", "0x0009\n");
        write("bus/virtio/devices/virtio1/device", "0x0001\n");
        write("class/net/lo/address", "00:00:00:00:00:00\n");
        assert_eq!(cards(&sys, CARDS[0]), [sys.join("bus/pci/devices/0000:00:05.0")]);
        assert_eq!(cards(&sys, CARDS[1]), [sys.join("bus/virtio/devices/virtio1")]);
        assert!(!has_interface(&sys));
        write("class/net/eth0/device/vendor", "0x10ec\n");
        assert!(has_interface(&sys));
        fs::remove_dir_all(&sys).unwrap();
    }
}
