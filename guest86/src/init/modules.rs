//! The drivers of devices that have none: what `modprobe` does, which containers have not.
//!
//! A device says in one line what it is (its modalias), and `depmod` has written for which lines a module is, and what
//! each module needs (modules.alias and modules.dep; see modprobe.d(5) and depmod(8)).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::{finit_module, uname};

/// Where the modules of all kernels are.
const FOLDERS: [&str; 2] = ["/lib/modules", "/usr/lib/modules"];
/// The module's file is compressed (`MODULE_INIT_COMPRESSED_FILE`).
const COMPRESSED: i32 = 4;
/// A driver finds further devices: a bus, what is on it. So many times that is looked for.
const ROUNDS: usize = 8;

/// The modules of the kernel that runs.
struct Modules {
    folder: PathBuf,
    /// For which devices, and what it is called.
    aliases: Vec<(String, String)>,
    /// Each module's file, and those of what it needs, the nearest first.
    needs: Vec<(String, Vec<String>)>,
}

impl Modules {
    fn read(folder: PathBuf) -> io::Result<Self> {
        let aliases = fs::read_to_string(folder.join("modules.alias"))?;
        let needs = fs::read_to_string(folder.join("modules.dep"))?;
        Ok(Self { folder, aliases: aliases_of(&aliases), needs: needs_of(&needs) })
    }

    /// The files of the modules for a device, each behind what it needs.
    fn of(&self, modalias: &str) -> Vec<&str> {
        let mut files = Vec::new();
        for (pattern, name) in &self.aliases {
            if !matches(pattern.as_bytes(), modalias.as_bytes()) {
                continue;
            }
            let Some((file, needs)) = self.needs.iter().find(|(file, _)| name_of(file) == *name) else {
                continue;
            };
            files.extend(needs.iter().rev().map(String::as_str));
            files.push(file);
        }
        files
    }

    fn load(&self, file: &str) -> io::Result<()> {
        let flags = if file.ends_with(".ko") { 0 } else { COMPRESSED };
        match finit_module(File::open(self.folder.join(file))?, c"", flags) {
            // It is there already, or the kernel has it built in.
            Err(Errno::EXIST) => Ok(()),
            done => Ok(done?),
        }
    }
}

fn aliases_of(text: &str) -> Vec<(String, String)> {
    let alias = |line: &str| {
        let (pattern, name) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
        Some((pattern.to_owned(), name.replace('-', "_")))
    };
    text.lines().filter_map(alias).collect()
}

fn needs_of(text: &str) -> Vec<(String, Vec<String>)> {
    let module = |line: &str| {
        let (file, needs) = line.split_once(':')?;
        Some((file.to_owned(), needs.split_whitespace().map(Into::into).collect()))
    };
    text.lines().filter_map(module).collect()
}

/// A module's name: its file's, up to the first dot, with `_` for each `-`.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

/// Whether a pattern of `*`, `?` and `[…]` is of this text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where the last star was, and what it has not taken yet: it takes a byte more whenever the rest does not fit.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        let fits = match (pattern, text) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                star = Some((rest, text));
                pattern = rest;
                continue;
            }
            ([b'?', rest @ ..], [_, left @ ..]) => Some((rest, left)),
            ([b'[', set @ ..], [byte, left @ ..]) => in_set(set, *byte).map(|rest| (rest, left)),
            ([own, rest @ ..], [byte, left @ ..]) if own == byte => Some((rest, left)),
            _ => None,
        };
        if let Some(next) = fits {
            (pattern, text) = next;
            continue;
        }
        let Some((rest, [_, left @ ..])) = star else { return false };
        star = Some((rest, left));
        (pattern, text) = (rest, left);
    }
}

/// What is behind a set, if the byte is in it: bytes, and ranges of them.
fn in_set(set: &[u8], byte: u8) -> Option<&[u8]> {
    let end = set.iter().position(|byte| *byte == b']')?;
    let mut members = &set[..end];
    let mut found = false;
    while let [first, rest @ ..] = members {
        let (last, rest) = match rest {
            [b'-', last, rest @ ..] => (last, rest),
            _ => (first, rest),
        };
        found |= (*first..=*last).contains(&byte);
        members = rest;
    }
    found.then_some(&set[end + 1..])
}

/// What the devices without a driver are.
fn devices(sys: &Path) -> BTreeSet<String> {
    let list =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = BTreeSet::new();
    for bus in list(sys.join("bus")) {
        for device in list(bus.join("devices")) {
            if device.join("driver").exists() {
                continue;
            }
            let modalias = fs::read_to_string(device.join("modalias")).unwrap_or_default();
            if !modalias.trim().is_empty() {
                found.insert(modalias.trim().to_owned());
            }
        }
    }
    found
}

/// Loads the modules of all devices that have no driver, and of those that are found by that.
pub fn load_all() {
    load(|_| true);
}

/// The same for the devices that are wanted, told by what they say that they are. What cannot be loaded is left out:
/// many devices have a module that is not for this one.
pub fn load(wanted: impl Fn(&str) -> bool) {
    let release = uname();
    let release = release.release().to_string_lossy();
    let folder =
        FOLDERS.iter().map(|folder| Path::new(folder).join(&*release)).find(|folder| folder.is_dir());
    let Some(Ok(modules)) = folder.map(Modules::read) else { return };
    let mut tried = BTreeSet::new();
    for _ in 0..ROUNDS {
        let before = tried.len();
        for device in devices(Path::new("/sys")).into_iter().filter(|device| wanted(device)) {
            for file in modules.of(&device) {
                if tried.insert(file.to_owned()) {
                    let _ = modules.load(file);
                }
            }
        }
        if tried.len() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_or_do_not() {
        for (pattern, text, fits) in [
            ("pci:v000010ECd00008029sv*sd*bc*sc*i*", "pci:v000010ECd00008029sv0sd0bc02sc00i00", true),
            ("pci:v000010ECd00008029sv*sd*bc*sc*i*", "pci:v000010ECd00008139sv0sd0bc02sc00i00", false),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaxaxb", true),
            ("*a*b", "xaxaxc", false),
            ("x[0-9A-F]z", "xBz", true),
            ("x[0-9A-F]z", "xGz", false),
            ("x[-a]", "x-", true),
            ("x[", "x[", false),
            ("", "", true),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let modules = Modules {
            folder: "/none".into(),
            aliases: aliases_of("# comment\nalias virtio:d00000001v* virtio_net\nalias pci:v1* 8390\n"),
            needs: needs_of(
                "kernel/a/virtio-net.ko.xz: kernel/a/failover.ko kernel/b/base.ko\nkernel/8390.ko:\n",
            ),
        };
        let files = ["kernel/b/base.ko", "kernel/a/failover.ko", "kernel/a/virtio-net.ko.xz"];
        assert_eq!(modules.of("virtio:d00000001v1"), files);
        assert_eq!(modules.of("pci:v12"), ["kernel/8390.ko"]);
        assert!(modules.of("usb:").is_empty());
    }

    #[test]
    fn devices_without_a_driver_are_found() {
        let sys = std::env::temp_dir().join(format!("guest86-devices-{}", std::process::id()));
        for (device, modalias) in
            [("pci/devices/0", "pci:a\n"), ("pci/devices/1", "pci:b\n"), ("usb/devices/x", "\n")]
        {
            let device = sys.join("bus").join(device);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("modalias"), modalias).unwrap();
        }
        fs::create_dir(sys.join("bus/pci/devices/1/driver")).unwrap();
        assert_eq!(devices(&sys).into_iter().collect::<Vec<_>>(), ["pci:a"]);
        assert!(devices(&sys.join("none")).is_empty());
        fs::remove_dir_all(&sys).unwrap();
    }
}
