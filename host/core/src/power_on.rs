//! From an image, and what a user wants instead, to what the machine starts.

use std::error::Error;
use std::sync::Arc;

use env86_bios::multiboot::is_multiboot;
use env86_bios::unpack::unpack;
use env86_bios::{BootSource, Linux, Module};
use env86_devices::fs::{BlobStore, Content, Errno, Filesystem, FsError, Ino};
use thiserror::Error;

use crate::computer::ComputerError;
use crate::image_config::{FileRef, ImageConfig};
use crate::kernel::find_kernel;

/// Where a bzImage has its signature, `HdrS` (Linux boot protocol 2.00 and later).
const LINUX_SIGNATURE: (usize, &[u8]) = (0x202, b"HdrS");
/// Symbolic links followed on the way to a kernel.
const MAX_LINKS: usize = 8;

/// Why a file could not be brought: the desk's own error.
pub type LoadError = Box<dyn Error + Send + Sync>;
/// Reads what the machine starts, and tells its name.
type Read = Box<dyn FnMut() -> Result<(BootSource, String), LoadError> + Send>;

/// Brings a file that the image's configuration may name under a key.
type Named<'a> = dyn FnMut(&'static str, &Option<FileRef>) -> Result<Option<NamedFile>, PowerOnError> + 'a;

/// What a machine starts, at power-on and again at every reset.
pub struct Firmware {
    known: Option<Arc<(BootSource, String)>>,
    read: Option<Read>,
}

impl Firmware {
    /// A kernel or ROM, with its name for messages.
    pub fn new(name: impl Into<String>, source: BootSource) -> Self {
        Self { known: Some(Arc::new((source, name.into()))), read: None }
    }

    /// A kernel or ROM that is read when it is needed: a machine that is resumed may never be reset.
    pub fn later(read: impl FnMut() -> Result<(BootSource, String), LoadError> + Send + 'static) -> Self {
        Self { known: None, read: Some(Box::new(read)) }
    }

    /// The same for another machine, if it has been read: they share it.
    #[must_use]
    pub fn share(&self) -> Option<Self> {
        self.known.clone().map(|known| Self { known: Some(known), read: None })
    }

    /// The kernel or ROM and its name, read if it has not been.
    pub(crate) fn get(&mut self) -> Result<&(BootSource, String), ComputerError> {
        match (&mut self.known, &mut self.read) {
            (Some(known), _) => Ok(known),
            (unknown, Some(read)) => Ok(unknown.insert(Arc::new(read().map_err(ComputerError::Firmware)?))),
            (None, None) => Err(ComputerError::Firmware("there is nothing to start".into())),
        }
    }
}

/// Why nothing can be started.
#[derive(Debug, Error)]
pub enum PowerOnError {
    /// A file is larger than the machine's memory.
    #[error("The {what} `{name}` is larger than the machine's memory of {} MiB", memory >> 20)]
    TooLarge {
        /// What it is for.
        what: &'static str,
        /// The file.
        name: String,
        /// The machine's memory in bytes.
        memory: u64,
    },
    /// A kernel or RAM disk inside the image's file system.
    #[error("Cannot read `{path}` from the image")]
    ReadInside {
        /// Its path in the guest.
        path: String,
        /// Why not.
        source: FsError,
    },
    /// Some of the image's files are still on their way: nothing is lost by asking again later.
    #[error("Waiting for the content of the image")]
    Pending,
    /// A file that the image's configuration names.
    #[error(transparent)]
    File(LoadError),
    /// A Multiboot kernel, and a BIOS.
    #[error("`{name}` is a Multiboot kernel, which is started without a BIOS")]
    MultibootByBios {
        /// The kernel.
        name: String,
    },
    /// The image has no kernel and names none.
    #[error("The image has no kernel in / or /boot, and its configuration names none")]
    NoKernel,
}

/// A file's content and its name for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The name.
    pub name: String,
    /// The content.
    pub data: Vec<u8>,
}

/// What a user has in place of the image's files, or beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// A BIOS ROM, which starts the kernel, if there is one, before anything else.
    pub bios: Option<NamedFile>,
    /// A video BIOS ROM, beside a BIOS.
    pub vga_bios: Option<NamedFile>,
    /// A Linux or Multiboot kernel.
    pub kernel: Option<NamedFile>,
    /// The initial RAM disk.
    pub initrd: Option<NamedFile>,
    /// Added to the kernel's command line.
    pub append: String,
}

/// What is started, and its name: the user's ROM, the user's kernel, or the image's kernel or ROM.
///
/// `file` brings a file that the image's configuration names under a key. Nothing of the image's file
/// system is read that is larger than the `memory` of the machine, in bytes.
pub fn choose(
    choice: Choice,
    image: &ImageConfig,
    (filesystem, blobs): (&Filesystem, &mut dyn BlobStore),
    file: &mut dyn FnMut(&'static str, &FileRef) -> Result<NamedFile, LoadError>,
    memory: u64,
) -> Result<(BootSource, String), PowerOnError> {
    let Choice { bios, vga_bios, .. } = choice.clone();
    let mut named = |key, reference: &Option<FileRef>| {
        reference.as_ref().map(|reference| file(key, reference)).transpose().map_err(PowerOnError::File)
    };
    // With a BIOS only a kernel that was asked for: the BIOS may be there for a disk.
    let asked = choice.kernel.is_some() || image.bzimage.is_some() || image.bzimage_initrd_from_filesystem;
    let kernel = match bios.is_none() || asked {
        true => kernel(choice, image, (filesystem, blobs), &mut named, memory)?,
        false => None,
    };
    let (bios, kernel) = match (bios, kernel) {
        (Some(bios), kernel) => (bios, kernel),
        (None, Some(kernel)) => return Ok(kernel),
        (None, None) => (named("bios", &image.bios)?.ok_or(PowerOnError::NoKernel)?, None),
    };
    let kernel = match kernel {
        Some((BootSource::Linux { kernel, initrd, cmdline, .. }, _)) => {
            Some(Linux { kernel, initrd, cmdline })
        }
        Some((_, name)) => return Err(PowerOnError::MultibootByBios { name }),
        None => None,
    };
    let vga_bios = match vga_bios {
        Some(given) => Some(given),
        None => named("vga_bios", &image.vga_bios)?,
    };
    let vga_bios = vga_bios.map(|file| file.data);
    Ok((BootSource::Rom { bios: bios.data, vga_bios, kernel }, bios.name))
}

/// The guest that tests the machine, and its name; `append` is added to its command line. It says that something is amiss
/// if no DHCP server answers a machine that is on a network.
pub fn self_test(on_network: bool, append: &str) -> (BootSource, String) {
    let network = on_network.then_some(env86_selftest::ON_NETWORK);
    let words: Vec<_> = network.into_iter().chain([append]).collect();
    let kernel = env86_selftest::KERNEL.to_vec();
    (BootSource::Multiboot { kernel, modules: Vec::new(), cmdline: words.join(" ") }, "self-test".into())
}

/// The user's kernel or the image's, as it is started without a BIOS, and its name.
fn kernel(
    choice: Choice,
    image: &ImageConfig,
    (filesystem, blobs): (&Filesystem, &mut dyn BlobStore),
    named: &mut Named,
    memory: u64,
) -> Result<Option<(BootSource, String)>, PowerOnError> {
    let cmdline = [image.cmdline.as_deref().unwrap_or_default(), &choice.append];
    let cmdline: Vec<_> = cmdline.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    let cmdline = cmdline.join(" ");
    let module = |file: NamedFile| Module { data: file.data, cmdline: file.name };
    let initrd = choice.initrd.map(module);
    if let Some(NamedFile { name, data }) = choice.kernel {
        return Ok(Some((kernel_source(data, initrd, cmdline), name)));
    }
    if !image.bzimage_initrd_from_filesystem
        && let Some(kernel) = named("bzimage", &image.bzimage)?
    {
        let initrd = match initrd {
            Some(given) => Some(given),
            None => named("initrd", &image.initrd)?.map(|file| Module {
                data: file.data,
                cmdline: image.initrd.as_ref().and_then(|file| file.url.clone()).unwrap_or_default(),
            }),
        };
        return Ok(Some((kernel_source(kernel.data, initrd, cmdline), kernel.name)));
    }
    let names = |path: &str| loadable(filesystem, path);
    let (root, boot) = (names("/"), names("/boot"));
    let found = find_kernel(root.iter().map(String::as_str), boot.iter().map(String::as_str));
    let Some(path) = found.kernel else { return Ok(None) };
    let kernel = read_guest(filesystem, blobs, &path, memory)?;
    let initrd = match (initrd, found.initrd) {
        (None, Some(path)) => {
            Some(Module { data: read_guest(filesystem, blobs, &path, memory)?, cmdline: path })
        }
        (given, _) => given,
    };
    Ok(Some((kernel_source(kernel, initrd, cmdline), path)))
}

/// A Linux kernel, or a Multiboot one if it looks like that, perhaps packed by gzip as other boot
/// loaders take it. Its module is the initial RAM disk, by name.
fn kernel_source(kernel: Vec<u8>, initrd: Option<Module>, cmdline: String) -> BootSource {
    let (at, signature) = LINUX_SIGNATURE;
    let is_linux = kernel.get(at..at + signature.len()) == Some(signature);
    let multiboot = match is_multiboot(&kernel) {
        _ if is_linux => None,
        true => Some(kernel.clone()),
        false => unpack(&kernel).ok().filter(|unpacked| is_multiboot(unpacked)),
    };
    match multiboot {
        Some(kernel) => BootSource::Multiboot { kernel, modules: initrd.into_iter().collect(), cmdline },
        None => BootSource::Linux { kernel, initrd: initrd.map(|file| file.data), cmdline, unpack: true },
    }
}

/// The names in a directory of the image that lead to files, in the order of the index.
fn loadable(filesystem: &Filesystem, dir: &str) -> Vec<String> {
    let entries = follow(filesystem, dir).and_then(|ino| filesystem.directory(ino).ok());
    let names =
        entries.into_iter().flat_map(|d| d.entries()).filter_map(|e| String::from_utf8(e.name.to_vec()).ok());
    names.filter(|name| file_at(filesystem, &format!("{dir}/{name}")).is_some()).collect()
}

/// The file that a path leads to.
fn file_at(filesystem: &Filesystem, path: &str) -> Option<Ino> {
    let ino = follow(filesystem, path)?;
    matches!(filesystem.inode(ino).ok()?.content, Content::File(_)).then_some(ino)
}

/// What a path leads to, symbolic links at its end followed.
fn follow(filesystem: &Filesystem, path: &str) -> Option<Ino> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let ino = filesystem.resolve(path.as_bytes()).ok()?;
        let Content::Symlink(target) = &filesystem.inode(ino).ok()?.content else { return Some(ino) };
        let target = std::str::from_utf8(target).ok()?;
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        path = if target.starts_with('/') { target.into() } else { format!("{dir}/{target}") };
    }
    None
}

/// Reads a file of the image as the guest would.
fn read_guest(
    filesystem: &Filesystem,
    blobs: &mut dyn BlobStore,
    path: &str,
    memory: u64,
) -> Result<Vec<u8>, PowerOnError> {
    let ino = file_at(filesystem, path).ok_or(FsError::from(Errno::ENOENT));
    if ino.and_then(|ino| filesystem.inode(ino)).is_ok_and(|inode| inode.size > memory) {
        return Err(PowerOnError::TooLarge { what: "file", name: path.into(), memory });
    }
    ino.and_then(|ino| filesystem.read_all(blobs, ino)).map_err(|source| match source {
        FsError::Pending => PowerOnError::Pending,
        source => PowerOnError::ReadInside { path: path.into(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MEMORY: u64 = 64 << 20;
    const KERNEL_IN_BOOT: &str = r#"["boot",0,0,16877,0,0,[
        ["initrd.img",2,0,33188,0,0,"i.bin"],["vmlinuz-6",4,0,33188,0,0,"k.bin"]]],
        ["vmlinuz",9,0,41471,0,0,"boot/vmlinuz-6"]"#;

    /// Chooses from an image with these entries in its index, and with these blobs.
    fn choose_from(
        index: &str,
        json: &str,
        blobs: &[(&str, &str)],
        choice: Choice,
    ) -> Result<(BootSource, String), PowerOnError> {
        let index = format!(r#"{{"fsroot":[{index}],"size":0,"version":3}}"#);
        let filesystem = Filesystem::from_json(index.as_bytes()).unwrap();
        let mut blobs: BTreeMap<String, Vec<u8>> =
            blobs.iter().map(|(name, data)| ((*name).into(), data.as_bytes().to_vec())).collect();
        let config: ImageConfig = serde_json::from_str(json).unwrap();
        let mut file = |key: &'static str, file: &FileRef| match file.url.as_deref() {
            Some(url) if url.starts_with("./") => {
                Ok(NamedFile { name: url.into(), data: key.as_bytes().to_vec() })
            }
            _ => Err("elsewhere".into()),
        };
        choose(choice, &config, (&filesystem, &mut blobs), &mut file, MEMORY)
    }

    fn linux(kernel: &str, initrd: Option<&str>, cmdline: &str) -> BootSource {
        let (kernel, initrd) = (kernel.into(), initrd.map(Into::into));
        BootSource::Linux { kernel, initrd, cmdline: cmdline.into(), unpack: true }
    }

    #[test]
    fn the_kernel_comes_out_of_the_file_system() {
        let choice = Choice { append: " quiet ".into(), ..Choice::default() };
        let files = [("k.bin", "kern"), ("i.bin", "rd")];
        let chosen = choose_from(KERNEL_IN_BOOT, r#"{"cmdline":"rw"}"#, &files, choice).unwrap();
        assert_eq!(chosen, (linux("kern", Some("rd"), "rw quiet"), "/boot/vmlinuz-6".into()));
    }

    #[test]
    fn a_link_leads_to_the_kernel() {
        let index = r#"["k",0,0,16877,0,0,[["real",4,0,33188,0,0,"k.bin"]]],["vmlinuz",6,0,41471,0,0,"/k/real"],
                       ["vmlinuz.dangling",6,0,41471,0,0,"/nowhere"],["vmlinuz.loop",6,0,41471,0,0,"vmlinuz.loop"]"#;
        let chosen = choose_from(index, "{}", &[("k.bin", "kern")], Choice::default()).unwrap();
        assert_eq!(chosen, (linux("kern", None, ""), "/vmlinuz".into()));
    }

    #[test]
    fn named_files_come_before_those_in_the_file_system() {
        let json = r#"{"bzimage":{"url":"./bz"},"initrd":{"url":"./rd"},"bios":{"url":"./rom"}}"#;
        let chosen = choose_from("", json, &[], Choice::default()).unwrap();
        assert_eq!(chosen, (linux("bzimage", Some("initrd"), ""), "./bz".into()));
        let own = NamedFile { name: "mine".into(), data: b"disk".to_vec() };
        let choice = Choice { initrd: Some(own.clone()), ..Choice::default() };
        assert_eq!(choose_from("", json, &[], choice).unwrap().0, linux("bzimage", Some("disk"), ""));
        let choice = Choice { bios: Some(own), ..Choice::default() };
        let kernel =
            Linux { kernel: b"bzimage".to_vec(), initrd: Some(b"initrd".to_vec()), cmdline: String::new() };
        let rom = BootSource::Rom { bios: b"disk".to_vec(), vga_bios: None, kernel: Some(kernel) };
        assert_eq!(choose_from("", json, &[], choice.clone()).unwrap(), (rom, "mine".into()));
        let rom = BootSource::Rom { bios: b"disk".to_vec(), vga_bios: None, kernel: None };
        assert_eq!(choose_from(KERNEL_IN_BOOT, "{}", &[], choice.clone()).unwrap(), (rom, "mine".into()));
        let multiboot = NamedFile { name: "k".into(), data: multiboot() };
        let choice = Choice { kernel: Some(multiboot), ..choice };
        let refused = choose_from("", "{}", &[], choice);
        assert!(matches!(refused, Err(PowerOnError::MultibootByBios { name }) if name == "k"));
        let json = r#"{"bios":{"url":"./rom"},"vga_bios":{"url":"./vga"}}"#;
        let rom =
            BootSource::Rom { bios: b"bios".to_vec(), vga_bios: Some(b"vga_bios".to_vec()), kernel: None };
        assert_eq!(choose_from("", json, &[], Choice::default()).unwrap(), (rom, "./rom".into()));
    }

    #[test]
    fn what_is_missing_is_said() {
        let nothing = choose_from("", "{}", &[], Choice::default());
        assert!(matches!(nothing, Err(PowerOnError::NoKernel)));
        let lost = choose_from(KERNEL_IN_BOOT, "{}", &[("i.bin", "rd")], Choice::default());
        assert!(matches!(lost, Err(PowerOnError::ReadInside { path, .. }) if path == "/boot/vmlinuz-6"));
        let large = r#"["vmlinuz",99999999,0,33188,0,0,"k.bin"]"#;
        let large = choose_from(large, "{}", &[], Choice::default());
        assert!(matches!(large, Err(PowerOnError::TooLarge { memory: MEMORY, .. })));
        let outside = choose_from("", r#"{"bzimage":{"url":"http://x/"}}"#, &[], Choice::default());
        assert!(matches!(outside, Err(PowerOnError::File(_))));
    }

    #[test]
    fn kernels_are_told_apart() {
        let mut linux = vec![0; 0x400];
        linux[0x202..0x206].copy_from_slice(b"HdrS");
        let kind =
            |kernel: Vec<u8>| matches!(kernel_source(kernel, None, String::new()), BootSource::Linux { .. });
        assert!(kind(linux));
        assert!(kind(b"text".to_vec()));
        assert!(!kind(multiboot()));
    }

    fn multiboot() -> Vec<u8> {
        let header = [0x1bad_b002_u32, 0, 0xe452_4ffe].map(u32::to_le_bytes).concat();
        [&[0; 64], &header[..]].concat()
    }
}
