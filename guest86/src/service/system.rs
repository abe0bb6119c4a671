//! The guest as a whole: its clock, its chance, its network, what is mounted.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use guest86::call::Hello;
use rustix::ioctl::{NoArg, ioctl, opcode};
use rustix::mount::{MountFlags, mount as mount_at, mount_bind};
use rustix::time::{ClockId, Timespec, clock_settime};

use super::files::text;
use super::stream::{Kind, Stream};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(30);
/// How often it is looked whether a mount has failed.
const LOOK: Duration = Duration::from_millis(50);
/// Makes the kernel's generator begin anew from what it was given (random(4), `RNDRESEEDCRNG`).
const RESEED: u32 = opcode::none(b'R', 7);
/// Where devices with several file systems are mounted, so that each can be where it is wanted.
const SHARES: &str = "/run/env86";

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

/// Sets up the network after a restore, with whatever the system has for that.
pub fn reset_network() -> Result<(), String> {
    const SCRIPT: &str = "\
        ip link set lo up 2>/dev/null || ifconfig lo up 2>/dev/null
        command -v hwclock >/dev/null && hwclock -s 2>/dev/null
        command -v setup-interfaces >/dev/null && { hostname localhost; setup-interfaces -a -r; exit; }
        for path in /sys/class/net/*; do
            name=${path##*/}
            [ \"$name\" != lo ] && [ -e \"$path/device\" ] || continue
            ip link set \"$name\" up 2>/dev/null || ifconfig \"$name\" up
            if command -v udhcpc >/dev/null; then udhcpc -q -n -t 4 -T 1 -i \"$name\" || exit
            elif command -v dhclient >/dev/null; then dhclient -1 \"$name\" || exit
            elif command -v ifup >/dev/null; then ifup --force \"$name\" || exit
            elif command -v networkctl >/dev/null; then networkctl renew \"$name\" || exit
            fi
        done
        :";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The service takes the statuses of all processes, but only when it is not in here.
    let status = command.status().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("exit status {}", status.code().unwrap_or(-1))) }
}

/// A stream that a thread connects.
fn connecting(connect: impl FnOnce() -> Result<OwnedFd, String> + Send + 'static) -> Result<Stream, String> {
    let (ended, end) = io::pipe().map_err(text)?;
    let (result, made) = mpsc::channel();
    let act = move || {
        // A stream that has gone does not wait for it.
        let _ = result.send(connect());
        drop(end);
    };
    thread::Builder::new().spawn(act).map_err(text)?;
    let mut stream = Stream::new(Kind::Connecting(made));
    stream.sources[0] = Some(ended.into());
    Ok(stream)
}

/// A TCP connection to `host:port`.
pub fn dial(address: String) -> Result<Stream, String> {
    connecting(move || {
        let failed = |error: io::Error| format!("dial tcp {address}: {}", text(error));
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for to in address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&to, CONNECT) {
                Ok(stream) => {
                    // One keystroke is a packet.
                    stream.set_nodelay(true).map_err(failed)?;
                    return Ok(stream.into());
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    })
}

/// Mounts a file system that the host serves on the channel: the kernel connects to this process for it.
pub fn mount_9p(path: String) -> Result<Stream, String> {
    connecting(move || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
        let port = listener.local_addr().map_err(text)?.port();
        listener.set_nonblocking(true).map_err(text)?;
        fs::create_dir_all(&path).map_err(|error| format!("mkdir {path}: {}", text(error)))?;
        let mounted = thread::spawn(move || {
            let options = format!("trans=tcp,port={port},version=9p2000.L\0");
            let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).ok();
            mount_at("127.0.0.1", &*path, "9p", MountFlags::empty(), options)
        });
        loop {
            match listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nodelay(true).map_err(text)?;
                    return Ok(socket.into());
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
    })
}

/// Mounts what a virtio-9p device has under a name. The device is mounted once, out of the way.
pub fn mount(tag: &str, path: &str, name: &str, read_only: bool) -> Result<(), String> {
    let device = format!("{SHARES}/{tag}");
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("mount {what}: {}", text(error))
    };
    fs::create_dir_all(&device).map_err(failed(&device))?;
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(&device)) {
        let options = c"trans=virtio,version=9p2000.L,cache=none,msize=262144";
        mount_at(tag, &*device, "9p", MountFlags::NOSUID | MountFlags::NODEV, options)
            .map_err(|error| failed(&device)(error.into()))?;
    }
    let source = format!("{device}/{name}");
    let meta = fs::metadata(&source).map_err(failed(&source))?;
    match fs::metadata(path) {
        Ok(_) => {}
        Err(_) if meta.is_dir() => fs::create_dir_all(path).map_err(failed(path))?,
        Err(_) => drop(fs::File::create(path).map_err(failed(path))?),
    }
    mount_bind(&*source, path).map_err(|error| failed(path)(error.into()))?;
    if read_only {
        // The host does not let it write in any case; so the guest knows it, too.
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(path, flags, c"").map_err(|error| failed(path)(error.into()))?;
    }
    Ok(())
}
