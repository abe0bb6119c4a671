//! The lines at which a host may be: a port of a virtio console, where the machine has one, and the second
//! serial port, which every host knows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use guest86::PORT_NAME;

use crate::init::modules;

/// The second serial port.
const SERIAL: &str = "/dev/ttyS1";
/// A virtio console on the PCI bus: its vendor and its device.
const CONSOLE: (&str, &str) = ("0x1af4", "0x1043");
/// The modules that it needs; a kernel may have them built in.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_console"];
/// What these are for: the device on the PCI bus, and what is behind it.
const DEVICES: [&str; 2] = ["pci:v00001AF4d00001043", "virtio:d00000003"];
/// How long the kernel may take to find the port: it asks the device for each port's name.
const FOUND: Duration = Duration::from_secs(2);
/// Time between looks for it.
const LOOK: Duration = Duration::from_millis(5);

/// The lines of this machine; the first is the fastest.
pub fn all() -> Vec<PathBuf> {
    let port = has_console(Path::new("/sys/bus/pci/devices")).then(find_port).flatten();
    port.into_iter().chain([SERIAL.into()]).collect()
}

/// A file's text without the end of its line; nothing if it cannot be read.
fn line_of(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().into()
}

fn has_console(devices: &Path) -> bool {
    fs::read_dir(devices).into_iter().flatten().flatten().any(|device| {
        let path = device.path();
        (line_of(path.join("vendor")).as_str(), line_of(path.join("device")).as_str()) == CONSOLE
    })
}

/// Waits for the port; a machine may have a console without it.
fn find_port() -> Option<PathBuf> {
    let ports = Path::new("/sys/class/virtio-ports");
    if !ports.exists() {
        // It heeds what the system's settings say of modules.
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-qa").args(MODULES).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !modprobe.status().is_ok_and(|status| status.success()) {
            // Containers do not have the program.
            modules::load(|device| DEVICES.iter().any(|known| device.starts_with(known)));
        }
    }
    let end = Instant::now() + FOUND;
    loop {
        let found = port_among(ports).map(|name| Path::new("/dev").join(name));
        if let Some(port) = found.filter(|port| port.exists()) {
            return Some(port);
        }
        if !ports.exists() || Instant::now() > end {
            return None;
        }
        thread::sleep(LOOK);
    }
}

/// What the kernel calls the port.
fn port_among(ports: &Path) -> Option<String> {
    let port =
        fs::read_dir(ports).ok()?.flatten().find(|port| line_of(port.path().join("name")) == PORT_NAME)?;
    port.file_name().into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with files of these texts.
    fn folder(files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("guest86-{}-{}", std::process::id(), files.len()));
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_port_is_found_by_its_name() {
        let ports = folder(&[
            ("vport1p0/name", "virtio-0\n"),
            ("vport1p3/name", "org.env86.guest\n"),
            ("vport1p4/other", ""),
        ]);
        assert_eq!(port_among(&ports).as_deref(), Some("vport1p3"));
        fs::remove_dir_all(ports.join("vport1p3")).unwrap();
        assert_eq!(port_among(&ports), None);
        fs::remove_dir_all(&ports).unwrap();
        assert_eq!(port_among(&ports), None);
    }

    #[test]
    fn a_console_is_found_among_the_devices() {
        let devices = folder(&[
            ("0000:00:06.0/vendor", "0x1af4\n"),
            ("0000:00:06.0/device", "0x1049\n"),
            ("0000:00:0c.0/vendor", "0x1af4\n"),
            ("0000:00:0c.0/device", "0x1043\n"),
        ]);
        assert!(has_console(&devices));
        fs::remove_dir_all(devices.join("0000:00:0c.0")).unwrap();
        assert!(!has_console(&devices));
        fs::remove_dir_all(&devices).unwrap();
    }
}
