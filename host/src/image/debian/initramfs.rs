//! The initial RAM disk for Debian's kernel: busybox, the modules below 9p over virtio, and the script that uses them. It is
//! not packed: unpacking would cost the guest time.
//!
//! Source: "initramfs buffer format" in Linux's documentation: cpio's format with the magic number 070701.

use std::fs;

use super::DebianError;
use crate::image::modules::{Chosen, Modules, ModulesError};

/// The first program: that of the demo image.
const INIT: &str = include_str!("../../../../images/debian/initramfs-init");
/// The names of busybox that it uses, and some for who lands in its shell.
const APPLETS: [&str; 28] = [
    "awk",
    "cat",
    "chmod",
    "cp",
    "dmesg",
    "echo",
    "grep",
    "ifconfig",
    "insmod",
    "ip",
    "ln",
    "ls",
    "lsmod",
    "mkdir",
    "mount",
    "mv",
    "poweroff",
    "ps",
    "reboot",
    "rm",
    "setsid",
    "sh",
    "sleep",
    "switch_root",
    "tail",
    "tr",
    "umount",
    "vi",
];
const FOLDERS: [&str; 6] = ["bin", "dev", "modules", "proc", "root", "sys"];
/// The lists that the script reads, and the modules that are loaded by each of them with what they need. What is in one is
/// in no later one.
const LISTS: [(&str, &[&str]); 3] = [
    ("order", &["virtio_pci", "9pnet_virtio", "9p"]),
    ("cards", &["virtio_net", "ne2k_pci"]),
    ("consoles", &["virtio_console"]),
];
const MAGIC: &str = "070701";
const END: &str = "TRAILER!!!";
/// Names and contents begin at multiples of this.
const UNIT: usize = 4;
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// Makes it.
pub fn make(busybox: &[u8], modules: &Modules) -> Result<Vec<u8>, DebianError> {
    let mut disk = Disk::default();
    for folder in FOLDERS {
        disk.add(folder, DIRECTORY, b"");
    }
    disk.add("init", PROGRAM, INIT.as_bytes());
    disk.add("bin/busybox", PROGRAM, busybox);
    for applet in APPLETS {
        disk.add(&format!("bin/{applet}"), LINK, b"busybox");
    }
    let mut here = Vec::new();
    for (list, names) in LISTS {
        let wanted: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        let chosen = modules.choose(Some(&wanted))?;
        let paths = loaded(&chosen, names);
        let mut text = String::new();
        for path in paths {
            if here.contains(&path) {
                continue;
            }
            let name = path.rsplit('/').next().unwrap_or(&path);
            let file = &chosen.files[&path];
            let bytes = fs::read(file).map_err(|source| ModulesError::Read { path: file.clone(), source })?;
            disk.add(&format!("modules/{name}"), FILE, &bytes);
            text += &format!("{name}\n");
            here.push(path);
        }
        disk.add(&format!("modules/{list}"), FILE, text.as_bytes());
    }
    disk.add(END, 0, b"");
    Ok(disk.bytes)
}

/// The paths of modules, each behind those that it needs.
fn loaded(chosen: &Chosen, names: &[&str]) -> Vec<String> {
    let mut paths = Vec::new();
    for path in names.iter().flat_map(|name| chosen.with_needs(name)) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// A cpio archive.
#[derive(Default)]
struct Disk {
    bytes: Vec<u8>,
    count: u32,
}

impl Disk {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        // Number, mode, owner, group, links, time, size, four numbers of devices, length of the name, checksum.
        let fields =
            [self.count, mode, 0, 0, links, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend(MAGIC.bytes());
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(UNIT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_cpio_s() {
        let mut disk = Disk::default();
        disk.add("a", FILE, b"hello");
        disk.add(END, 0, b"");
        let text = String::from_utf8(disk.bytes).unwrap();
        let head = "07070100000001000081a400000000000000000000000100000000000000050000000000000000000000000000000000000002";
        assert!(text.starts_with(&format!("{head}00000000a\0hello\0\0\0070701")), "{text:?}");
        assert!(text.len().is_multiple_of(UNIT) && text.contains(END));
    }
}
