//! What process 1 mounts, and what it leaves behind at the end.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::{ERROR, WARNING, say};

/// What is mounted, as the kernel says it (proc(5)).
const MOUNTS: &str = "/proc/self/mounts";

/// A file system that programs expect at its place.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    at: &'static str,
    kind: &'static str,
    data: &'static str,
    flags: MountFlags,
}

const NOTHING_SPECIAL: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const PROC: Wanted = Wanted { at: "/proc", kind: "proc", data: "", flags: NOTHING_SPECIAL };
/// Those that lie in others are behind them.
const WANTED: [Wanted; 5] = [
    Wanted { at: "/sys", kind: "sysfs", data: "", flags: NOTHING_SPECIAL },
    Wanted { at: "/dev", kind: "devtmpfs", data: "mode=755", flags: MountFlags::NOSUID },
    Wanted {
        at: "/dev/pts",
        kind: "devpts",
        data: "gid=5,mode=620,ptmxmode=666",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
    },
    Wanted {
        at: "/dev/shm",
        kind: "tmpfs",
        data: "mode=1777",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
    },
    Wanted {
        at: "/run",
        kind: "tmpfs",
        data: "mode=755",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
    },
];
/// Only where the root file system has no place for it.
const TMP: Wanted = Wanted {
    at: "/tmp",
    kind: "tmpfs",
    data: "mode=1777",
    flags: MountFlags::NOSUID.union(MountFlags::NODEV),
};
/// What shells and programs expect beside the devices, which the kernel does not make.
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];
/// What stays mounted at the end: nothing is lost in them, and what still happens needs them.
const KEPT: [&str; 4] = ["/", "/proc", "/sys", "/dev"];

/// Where something is mounted, in the order in which it was.
fn places(mounts: &str) -> Vec<PathBuf> {
    let place = |line: &str| line.split(' ').nth(1).map(|path| PathBuf::from(unescaped(path)));
    mounts.lines().filter_map(place).collect()
}

/// A path as the kernel writes it: white space and backslashes are three octal digits behind a backslash.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match byte {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

/// What has to be mounted beside these.
fn missing(mounts: &str, has_tmp: bool) -> Vec<&'static Wanted> {
    let places = places(mounts);
    let wanted = WANTED.iter().chain((!has_tmp).then_some(&TMP));
    wanted.filter(|wanted| !places.iter().any(|place| place == Path::new(wanted.at))).collect()
}

/// What is unmounted at the end, in this order.
fn leaving(mounts: &str) -> Vec<PathBuf> {
    let mut places = places(mounts);
    places.reverse();
    places.retain(|place| !KEPT.iter().any(|kept| place == Path::new(kept)));
    places
}

/// Mounts what is missing. What fails is told, and the rest goes on: a system with less is better than none.
pub fn mount_missing() {
    if fs::metadata("/proc/self").is_err() {
        mount_one(&PROC);
    }
    let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
    // Even root may not write where all is read-only.
    let has_tmp = access("/tmp", Access::WRITE_OK).is_ok();
    for wanted in missing(&mounts, has_tmp) {
        mount_one(wanted);
    }
    for (link, target) in LINKS {
        // A system that has made it has it as it wants it.
        if fs::symlink_metadata(link).is_err() {
            let _ = symlink(target, link);
        }
    }
}

fn mount_one(wanted: &Wanted) {
    let mount_it = || -> io::Result<()> {
        // In a root file system that is read-only it is there, or there is no place for it.
        let _ = fs::create_dir_all(wanted.at);
        let data = CString::new(wanted.data)?;
        match mount(wanted.kind, wanted.at, wanted.kind, wanted.flags, &*data) {
            // There is one that this list does not show, such as the kernel's own.
            Err(Errno::BUSY) => Ok(()),
            done => Ok(done?),
        }
    };
    if let Err(error) = mount_it() {
        say(ERROR, &format!("cannot mount {} at {}: {error}", wanted.kind, wanted.at));
    }
}

/// Unmounts all, or at least has nothing written any more.
pub fn leave() {
    let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
    for place in leaving(&mounts) {
        if unmount(&place, UnmountFlags::empty()).is_err() {
            // Something has it open that cannot be ended.
            let _ = mount_remount(&place, MountFlags::RDONLY, "");
        }
    }
    if let Err(error) = mount_remount("/", MountFlags::RDONLY, "") {
        say(WARNING, &format!("the root file system stays writable: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "host9p / 9p rw,trans=virtio 0 0\nproc /proc proc rw 0 0\n";

    fn at(mounts: &str, has_tmp: bool) -> Vec<&'static str> {
        missing(mounts, has_tmp).iter().map(|wanted| wanted.at).collect()
    }

    #[test]
    fn only_what_is_not_there_is_mounted() {
        assert_eq!(at(BARE, true), ["/sys", "/dev", "/dev/pts", "/dev/shm", "/run"]);
        assert_eq!(at("", false), ["/sys", "/dev", "/dev/pts", "/dev/shm", "/run", "/tmp"]);
        let mounts = format!("{BARE}dev /dev devtmpfs rw 0 0\ntmp /tmp tmpfs rw 0 0\nx /runs tmpfs rw 0 0\n");
        assert_eq!(at(&mounts, false), ["/sys", "/dev/pts", "/dev/shm", "/run"]);
    }

    #[test]
    fn the_last_one_is_unmounted_first() {
        let mounts =
            format!("{BARE}a /mnt ext4 rw 0 0\nb /mnt/a\\040b\\134 ext4 rw 0 0\ndev /dev devtmpfs rw 0 0\n");
        assert_eq!(leaving(&mounts), [Path::new("/mnt/a b\\"), Path::new("/mnt")]);
        assert_eq!((leaving(""), unescaped("a\\9z\\")), (Vec::new(), "a\\9z\\".into()));
    }
}
