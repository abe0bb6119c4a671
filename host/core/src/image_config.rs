//! `image.json`: what an image says about the machine it wants.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::setup::NetDevice;

/// The kernel command line that `create` writes: the root file system is the image, over 9p.
pub const DEFAULT_CMDLINE: &str = "rw root=host9p rootfstype=9p rootflags=trans=virtio,cache=loose \
                                   modules=virtio_pci console=ttyS0 console=tty1";

/// A file that an image names: a kernel, a ROM, a disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FileRef {
    /// Where it is; `./NAME` is relative to the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// It may be fetched in pieces (disks).
    #[serde(default, rename = "async", skip_serializing_if = "is_false")]
    pub lazy: bool,
    /// Its size in bytes, where that must be known beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Keys that env86 does not know, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The contents of `image.json`.
///
/// v86 reads the same file, and its users put any of v86's options there: keys that are unknown
/// here are kept and written back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The kernel's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Guest memory in bytes; 512 MiB if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_size: Option<u64>,
    /// Video memory in bytes; 8 MiB if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vga_memory_size: Option<u64>,
    /// I/O APIC, local APIC and ACPI power management are on the board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acpi: Option<bool>,
    /// The network card: `{"type": "ne2k"}` or `{"type": "virtio"}`; of any other type there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_device: Option<Value>,
    /// A virtio console is on the board: `true`, or what v86's page would show it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtio_console: Option<Value>,
    /// A virtio balloon is on the board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtio_balloon: Option<bool>,
    /// The kernel and the initial RAM disk are in the image's own file system.
    #[serde(default, skip_serializing_if = "is_false")]
    pub bzimage_initrd_from_filesystem: bool,
    /// A Linux kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bzimage: Option<FileRef>,
    /// The kernel's initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<FileRef>,
    /// A BIOS ROM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bios: Option<FileRef>,
    /// A video BIOS ROM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vga_bios: Option<FileRef>,
    /// First hard disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hda: Option<FileRef>,
    /// Second hard disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hdb: Option<FileRef>,
    /// Third hard disk, in the place that the CD-ROM drive has else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hdc: Option<FileRef>,
    /// Fourth hard disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hdd: Option<FileRef>,
    /// First floppy drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fda: Option<FileRef>,
    /// Second floppy drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb: Option<FileRef>,
    /// The virtio disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtio_blk: Option<FileRef>,
    /// The order in which a BIOS tries its boot devices: v86's number, the first in its last hexadecimal digit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<u16>,
    /// CD-ROM drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<FileRef>,
    /// A state to resume instead of booting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_state: Option<FileRef>,
    /// Number of 10 MiB parts that the state is split into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_state_parts: Option<u64>,
    /// No keyboard is attached.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disable_keyboard: bool,
    /// No mouse is attached.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disable_mouse: bool,
    /// A resumed guest keeps the network card address it was saved with.
    #[serde(default, skip_serializing_if = "is_false")]
    pub preserve_mac_from_state_image: bool,
    /// The guest runs guest86, at a port of the virtio console, which the board then has unless `virtio_console`
    /// says no, or on COM2.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_guest_service: bool,
    /// Keys that env86 does not know, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ImageConfig {
    /// The kernels, ROMs and disks that it names, by key.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &FileRef)> {
        let files = [
            ("bios", &self.bios),
            ("vga_bios", &self.vga_bios),
            ("bzimage", &self.bzimage),
            ("initrd", &self.initrd),
            ("hda", &self.hda),
            ("hdb", &self.hdb),
            ("hdc", &self.hdc),
            ("hdd", &self.hdd),
            ("fda", &self.fda),
            ("fdb", &self.fdb),
            ("cdrom", &self.cdrom),
            ("virtio_blk", &self.virtio_blk),
        ];
        files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?)))
    }

    /// The network card, where the image says something about it.
    pub fn net_device(&self) -> Option<NetDevice> {
        let kind = self.net_device.as_ref()?.get("type")?;
        Some(match kind.as_str() {
            Some("ne2k") => NetDevice::Ne2k,
            Some("virtio") => NetDevice::Virtio,
            _ => NetDevice::None,
        })
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_survive_a_round_trip() {
        let text = r#"{"cmdline":"rw","acpi":true,"hda":{"url":"./d.img","use_parts":true},"net_device":{"type":"virtio"}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.acpi, Some(true));
        assert_eq!(config.hda.as_ref().unwrap().other["use_parts"], Value::Bool(true));
        assert_eq!(config.net_device(), Some(NetDevice::Virtio));
        let back: Value = serde_json::to_value(&config).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn absent_and_false_keys_are_not_written() {
        assert_eq!(serde_json::to_string(&ImageConfig::default()).unwrap(), "{}");
    }

    #[test]
    fn a_wrong_type_is_an_error_that_says_where() {
        let error = serde_json::from_str::<ImageConfig>("{\n \"memory_size\": \"big\"}").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
