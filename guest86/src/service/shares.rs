//! Folders of the host that come by the machine's own device for them, a second one of 9p.
//!
//! The kernel mounts the device once, at a place that is root's alone; there is a directory for each folder there, by
//! its number, which is bound to wherever the folder is to be.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use guest86::call::SHARES_TAG;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount as mount_at, mount_bind, unmount};

use super::files::text;
use crate::init::modules;

/// Where the device is mounted.
const PLACE: &str = "/run/env86/shares";
/// How it is mounted. Both sides change files: what is kept is only what a program has mapped.
const OPTIONS: &std::ffi::CStr = c"trans=virtio,version=9p2000.L,cache=mmap,msize=131072,access=any";
/// The driver; a kernel may have it built in.
const DRIVER: &str = "/sys/bus/virtio/drivers/9pnet_virtio";
const MODULE: &str = "9pnet_virtio";
/// What it is for: a device of 9p on the bus of virtio.
const DEVICE: &str = "virtio:d00000009";
/// How long taking away what an earlier host served may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Mounts the folder of this number at a directory, which is made if there is none.
pub fn mount(number: u32, at: String) -> Result<(), String> {
    fs::create_dir_all(&at).map_err(|error| format!("mkdir {at}: {}", text(error)))?;
    let place = Path::new(PLACE);
    if mounted(place).is_none() {
        load_driver();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(place);
        made.map_err(|error| format!("mkdir {PLACE}: {}", text(error)))?;
        match mount_at(SHARES_TAG, place, "9p", MountFlags::NOSUID | MountFlags::NODEV, Some(OPTIONS)) {
            // Another call has been faster.
            Err(Errno::BUSY) if mounted(place).is_some() => {}
            done => done.map_err(|error| format!("mount {SHARES_TAG}: {}", text(error)))?,
        }
    }
    mount_bind(place.join(number.to_string()), &at)
        .map_err(|error| format!("mount folder {number} at {at}: {}", text(error)))
}

/// Loads the driver of the device, if the kernel has not got it.
fn load_driver() {
    if Path::new(DRIVER).exists() {
        return;
    }
    let mut modprobe = Command::new("modprobe");
    modprobe.args(["-q", MODULE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !modprobe.status().is_ok_and(|status| status.success()) {
        // Containers do not have the program.
        modules::load(|device| device.starts_with(DEVICE));
    }
}

/// The places where something of the device is mounted, the first that was mounted first.
fn all() -> io::Result<Vec<PathBuf>> {
    Ok(places(&fs::read("/proc/self/mounts")?))
}

fn mounted(place: &Path) -> Option<()> {
    all().ok()?.iter().any(|mounted| mounted == place).then_some(())
}

/// Of the kernel's list of mounts (proc(5)).
fn places(mounts: &[u8]) -> Vec<PathBuf> {
    let lines = mounts.split(|byte| *byte == b'\n');
    let place = |line: &[u8]| {
        let mut words = line.split(|byte| *byte == b' ');
        let (source, at, kind) = (words.next()?, words.next()?, words.next()?);
        let ours = source == SHARES_TAG.as_bytes() && kind == b"9p";
        ours.then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&unescaped(at))))
    };
    lines.filter_map(place).collect()
}

/// A word of that list: what would end it stands there as three octal digits.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), word);
    while let [first, more @ ..] = rest {
        let digits = more.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[3..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    bytes
}

/// Takes away what an earlier host served: nobody answers there any more. Programs that work there get errors.
pub fn forget() {
    let Ok(places) = all() else { return };
    if places.is_empty() {
        return;
    }
    let (done, over) = mpsc::channel();
    // The kernel says goodbye to the host, which need not answer: nothing here waits for that for long.
    thread::spawn(move || {
        for place in places.iter().rev() {
            // What cannot be taken away stays, and the next mount tells why it cannot be.
            let _ = unmount(place, UnmountFlags::DETACH);
        }
        let _ = done.send(());
    });
    let _ = over.recv_timeout(PATIENCE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_found_by_its_source() {
        let mounts = b"proc /proc proc rw 0 0\norg.env86.shares /run/env86/shares 9p rw,trans=virtio 0 0\n\
            host9p / 9p rw 0 0\norg.env86.shares /a\\040b\\134c 9p rw 0 0\norg.env86.shares /x ext4 rw 0 0\n";
        assert_eq!(places(mounts), [PathBuf::from(PLACE), "/a b\\c".into()]);
        assert!(places(b"").is_empty() && places(b"org.env86.shares").is_empty());
    }

    #[test]
    fn a_mount_that_is_not_possible_says_why() {
        let file = std::env::temp_dir().join(format!("guest86-share-{}", std::process::id()));
        fs::write(&file, "").unwrap();
        let error = mount(0, file.display().to_string()).unwrap_err();
        assert!(error.starts_with("mkdir "), "{error}");
        fs::remove_file(&file).unwrap();
    }
}
