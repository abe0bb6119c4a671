//! From what the user asked for to what the machine is built of: which kernel or ROM, and with
//! which memory, command line and file system.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use env86_bios::multiboot::is_multiboot;
use env86_bios::unpack::unpack;
use env86_bios::{BootSource, Module};
use env86_devices::Script;
use env86_devices::fs::{self as guest_fs, BlobStore, Content, Fetched, Filesystem, Ino};

use super::{DEFAULT_MEMORY, MachineError};
use crate::image::{BlobDir, BlobError, FileRef, Image, find_kernel};

/// Where a bzImage has its signature, `HdrS` (Linux boot protocol 2.00 and later).
const LINUX_SIGNATURE: (usize, &[u8]) = (0x202, b"HdrS");
/// Video memory in bytes where the image does not say.
const DEFAULT_VIDEO_MEMORY: u64 = 8 << 20;
/// The video memory that a card can have: 256 KiB, as the first VGA, to what fits below the ROMs.
const VIDEO_MEMORY: RangeInclusive<u64> = 256 << 10..=256 << 20;
/// Symbolic links followed on the way to a kernel.
const MAX_LINKS: usize = 8;

/// What a machine is to be. `Default` is a machine that has nothing to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The image: its file system, and what its `image.json` says unless said otherwise here.
    pub image: Option<Image>,
    /// A Linux or Multiboot kernel on the host, instead of the image's.
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk on the host for `kernel`.
    pub initrd: Option<PathBuf>,
    /// Added to the kernel's command line.
    pub append: String,
    /// A BIOS ROM on the host, instead of a kernel.
    pub bios: Option<PathBuf>,
    /// Memory in bytes; else the image's, else [`DEFAULT_MEMORY`].
    pub memory: Option<u64>,
    /// I/O APIC, local APIC and ACPI power management; else as the image says, else not.
    pub acpi: Option<bool>,
    /// A virtio console; else as the image says, else not.
    pub virtio_console: Option<bool>,
    /// The image of the first hard disk; else the image's `hda`. None of them is ever written to.
    pub hda: Option<PathBuf>,
    /// The image of the second hard disk; else the image's `hdb`.
    pub hdb: Option<PathBuf>,
    /// What is in the CD-ROM drive; else the image's `cdrom`.
    pub cdrom: Option<PathBuf>,
    /// A port where a write ends the machine with the value written.
    pub debug_exit: Option<u16>,
    /// A saved state to resume instead of starting anew: its file, or the parts of it in their
    /// order. Memory and board are the state's; the image gives the contents of files.
    pub state: Option<Vec<PathBuf>>,
    /// Everything that comes from outside: the machine runs by its count of instructions, and two
    /// runs are the same. Else it runs by the host's clocks.
    pub script: Option<Script>,
    /// After a reset or a triple fault the machine starts again, as a PC does; else it ends.
    pub restart: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image: None,
            kernel: None,
            initrd: None,
            append: String::new(),
            bios: None,
            memory: None,
            acpi: None,
            virtio_console: None,
            hda: None,
            hdb: None,
            cdrom: None,
            debug_exit: None,
            state: None,
            script: None,
            restart: true,
        }
    }
}

/// Everything that a machine is built of.
pub(super) struct Parts {
    /// What is started.
    pub source: BootSource,
    /// The name of that for messages.
    pub name: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Video memory in bytes.
    pub video_memory: u32,
    /// APICs and ACPI are on the board.
    pub acpi: bool,
    /// A virtio console is on the board.
    pub virtio_console: bool,
    /// The port that ends the machine.
    pub debug_exit: Option<u16>,
    /// The file system for 9p.
    pub filesystem: Filesystem,
    /// Its contents.
    pub blobs: Blobs,
}

impl Parts {
    /// Reads all that is needed to start.
    pub fn read(config: &Config) -> Result<Self, MachineError> {
        let image = config.image.as_ref();
        let mut blobs = blobs(config);
        let filesystem = match image {
            Some(image) => Filesystem::from_json(&image.read_index()?)
                .map_err(|source| MachineError::Index { path: image.index_path(), source })?,
            None => Filesystem::default(),
        };
        let json = image.map(|image| &image.config);
        let memory = config.memory.or(json.and_then(|j| j.memory_size)).unwrap_or(DEFAULT_MEMORY);
        // Before anything is found too large for what no machine can have.
        env86_emu::memory::rounded(memory)?;
        let (source, name) = source(config, &filesystem, &mut blobs, memory)?;
        let video_memory = json.and_then(|j| j.vga_memory_size).unwrap_or(DEFAULT_VIDEO_MEMORY);
        if !VIDEO_MEMORY.contains(&video_memory) {
            return Err(MachineError::VideoMemory(video_memory));
        }
        Ok(Self {
            source,
            name,
            memory,
            video_memory: video_memory as u32,
            acpi: config.acpi.or(json.and_then(|j| j.acpi)).unwrap_or(false),
            virtio_console: config.virtio_console.unwrap_or_else(|| {
                let said = json.and_then(|j| j.virtio_console.as_ref());
                said.is_some_and(|value| *value != false)
            }),
            debug_exit: config.debug_exit,
            filesystem,
            blobs,
        })
    }
}

/// The contents of the image's files, for a machine that has the rest from its state.
pub(super) fn blobs(config: &Config) -> Blobs {
    Blobs::new(config.image.as_ref().map_or_else(|| BlobDir::new("fs"), Image::blobs))
}

/// What is started, and its name: the user's ROM, the user's kernel, or the image's kernel or ROM.
/// Nothing larger than the `memory` of the machine is read.
fn source(
    config: &Config,
    filesystem: &Filesystem,
    blobs: &mut Blobs,
    memory: u64,
) -> Result<(BootSource, String), MachineError> {
    let image = config.image.as_ref();
    if let Some(path) = &config.bios {
        let bios = read_host("BIOS", path, memory)?;
        let vga_bios = image.and_then(|i| Some((i, i.config.vga_bios.as_ref()?)));
        let vga_bios = vga_bios.map(|(i, file)| i.read_ref("vga_bios", file)).transpose()?;
        return Ok((BootSource::Rom { bios, vga_bios }, path.display().to_string()));
    }
    let initrd = config.initrd.as_ref().map(|path| -> Result<_, MachineError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Module { data: read_host("initial RAM disk", path, memory)?, cmdline: name })
    });
    let initrd = initrd.transpose()?;
    if let Some(path) = &config.kernel {
        let kernel = read_host("kernel", path, memory)?;
        return Ok((kernel_source(kernel, initrd, cmdline(config)), path.display().to_string()));
    }
    let Some(image) = image else { return Err(MachineError::NothingToStart) };
    let in_image =
        |file: &FileRef| format!("{} of {}", file.url.as_deref().unwrap_or("?"), image.path().display());
    if let (false, Some(file)) = (image.config.bzimage_initrd_from_filesystem, &image.config.bzimage) {
        let kernel = image.read_ref("bzimage", file)?;
        let initrd = match (initrd, &image.config.initrd) {
            (None, Some(file)) => {
                let cmdline = file.url.clone().unwrap_or_default();
                Some(Module { data: image.read_ref("initrd", file)?, cmdline })
            }
            (given, _) => given,
        };
        return Ok((kernel_source(kernel, initrd, cmdline(config)), in_image(file)));
    }
    let names = |path: &str| loadable(filesystem, path);
    let (root, boot) = (names("/"), names("/boot"));
    let found = find_kernel(root.iter().map(String::as_str), boot.iter().map(String::as_str));
    if let Some(path) = found.kernel {
        let kernel = read_guest(filesystem, blobs, &path, memory)?;
        let initrd = match (initrd, found.initrd) {
            (None, Some(path)) => {
                Some(Module { data: read_guest(filesystem, blobs, &path, memory)?, cmdline: path })
            }
            (given, _) => given,
        };
        return Ok((
            kernel_source(kernel, initrd, cmdline(config)),
            format!("{path} of {}", image.path().display()),
        ));
    }
    if let Some(file) = &image.config.bios {
        let bios = image.read_ref("bios", file)?;
        let vga_bios =
            image.config.vga_bios.as_ref().map(|file| image.read_ref("vga_bios", file)).transpose()?;
        return Ok((BootSource::Rom { bios, vga_bios }, in_image(file)));
    }
    Err(MachineError::NoKernel(image.path().into()))
}

/// The image's command line and what the user adds.
fn cmdline(config: &Config) -> String {
    let image = config.image.as_ref().and_then(|image| image.config.cmdline.as_deref());
    let parts = [image.unwrap_or_default(), &config.append];
    parts.map(str::trim).iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ")
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

/// Reads a file of the user's, which may be a pipe, or without end.
fn read_host(what: &'static str, path: &Path, memory: u64) -> Result<Vec<u8>, MachineError> {
    let failed = |source| MachineError::Read { what, path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    let known = file.metadata().map_err(failed)?.len();
    if known <= memory {
        file.take(memory + 1).read_to_end(&mut content).map_err(failed)?;
    }
    if known.max(content.len() as u64) > memory {
        return Err(MachineError::TooLarge { what, path: path.display().to_string(), memory });
    }
    Ok(content)
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
    blobs: &mut Blobs,
    path: &str,
    memory: u64,
) -> Result<Vec<u8>, MachineError> {
    let missing = guest_fs::FsError::Errno(guest_fs::Errno::ENOENT);
    let ino = file_at(filesystem, path).ok_or(missing);
    if ino.and_then(|ino| filesystem.inode(ino)).is_ok_and(|inode| inode.size > memory) {
        return Err(MachineError::TooLarge { what: "file", path: path.into(), memory });
    }
    let read = ino.and_then(|ino| filesystem.read_all(blobs, ino));
    read.map_err(|source| match blobs.failure() {
        Some(failure) => failure.into(),
        None => MachineError::ReadInside { path: path.into(), source },
    })
}

/// An image's contents for the guest's file system. The guest sees a failure as an I/O error; it
/// is kept here, for the user.
#[derive(Debug)]
pub(super) struct Blobs {
    dir: BlobDir,
    failure: Arc<Mutex<Option<BlobError>>>,
}

impl Blobs {
    fn new(dir: BlobDir) -> Self {
        Self { dir, failure: Arc::default() }
    }

    /// The first failure since the last call.
    pub fn failure(&self) -> Option<BlobError> {
        self.watch().take()
    }

    /// Where failures can be seen once the blobs have been given away.
    pub fn watch(&self) -> FailureWatch {
        FailureWatch(self.failure.clone())
    }
}

/// Sees the failures of [`Blobs`].
#[derive(Debug)]
pub(super) struct FailureWatch(Arc<Mutex<Option<BlobError>>>);

impl FailureWatch {
    /// The first failure since the last call.
    pub fn take(&self) -> Option<BlobError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl BlobStore for Blobs {
    fn read(&mut self, blob: &str, offset: u64, buf: &mut [u8]) -> Result<Fetched, guest_fs::BlobError> {
        // The index says how long every blob is, so that a blob that ends early is damage.
        match self.dir.read_exact_at(blob, offset, buf) {
            Ok(()) => Ok(Fetched::Ready(buf.len())),
            Err(error) => {
                let reason = error.to_string();
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                Err(guest_fs::BlobError::Unreadable { blob: blob.into(), reason })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    /// An image with these entries in its index and these files.
    fn image(index: &str, json: &str, files: &[(&str, &[u8])]) -> (TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("fs")).unwrap();
        fs::write(dir.path().join("image.json"), json).unwrap();
        let index = format!(r#"{{"fsroot":[{index}],"size":0,"version":3}}"#);
        fs::write(dir.path().join("fs.json"), index).unwrap();
        for (name, contents) in files {
            fs::write(dir.path().join(name), contents).unwrap();
        }
        let config = Config { image: Some(Image::open(dir.path()).unwrap()), ..Config::default() };
        (dir, config)
    }

    const KERNEL_IN_BOOT: &str = r#"["boot",0,0,16877,0,0,[
        ["initrd.img",2,0,33188,0,0,"i.bin"],["vmlinuz-6",4,0,33188,0,0,"k.bin"]]],
        ["vmlinuz",9,0,41471,0,0,"boot/vmlinuz-6"]"#;

    fn message(config: &Config) -> String {
        let error = Parts::read(config).err().unwrap();
        std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    }

    #[test]
    fn the_kernel_comes_out_of_the_file_system() {
        let files: &[(&str, &[u8])] = &[("fs/k.bin", b"kern"), ("fs/i.bin", b"rd")];
        let (_dir, mut config) = image(KERNEL_IN_BOOT, r#"{"cmdline":"rw","acpi":true}"#, files);
        config.append = "quiet".into();
        let parts = Parts::read(&config).unwrap();
        assert!(parts.name.starts_with("/boot/vmlinuz-6 of "), "{}", parts.name);
        let cmdline = "rw quiet".into();
        let (kernel, initrd) = (b"kern".to_vec(), Some(b"rd".to_vec()));
        assert_eq!(parts.source, BootSource::Linux { kernel, initrd, cmdline, unpack: true });
        assert_eq!((parts.memory, parts.acpi), (DEFAULT_MEMORY, true));
    }

    #[test]
    fn a_link_leads_to_the_kernel() {
        let index = r#"["k",0,0,16877,0,0,[["real",4,0,33188,0,0,"k.bin"]]],["vmlinuz",6,0,41471,0,0,"/k/real"],
                       ["vmlinuz.dangling",6,0,41471,0,0,"/nowhere"],["vmlinuz.loop",6,0,41471,0,0,"vmlinuz.loop"]"#;
        let (_dir, config) = image(index, "{}", &[("fs/k.bin", b"kern")]);
        assert!(Parts::read(&config).unwrap().name.starts_with("/vmlinuz of "));
    }

    #[test]
    fn damage_is_named() {
        let (_dir, config) = image(KERNEL_IN_BOOT, "{}", &[("fs/i.bin", b"rd")]);
        assert!(message(&config).contains("fs/k.bin` is missing"), "{}", message(&config));
        let (_dir, config) = image(KERNEL_IN_BOOT, "{}", &[("fs/k.bin", b"ke"), ("fs/i.bin", b"rd")]);
        assert!(
            message(&config).contains("fs/k.bin` has 2 bytes where 4 are needed"),
            "{}",
            message(&config)
        );
        let (dir, config) = image("1", "{}", &[]);
        assert!(message(&config).contains("fs.json"), "{}", message(&config));
        fs::remove_file(dir.path().join("fs.json")).unwrap();
        assert!(message(&config).contains("fs.json` is missing"), "{}", message(&config));
    }

    #[test]
    fn video_memory_has_bounds() {
        let files: &[(&str, &[u8])] = &[("fs/k.bin", b"kern"), ("fs/i.bin", b"rd")];
        let (_dir, config) = image(KERNEL_IN_BOOT, r#"{"vga_memory_size":1000000000000}"#, files);
        assert!(message(&config).contains("vga_memory_size"), "{}", message(&config));
    }

    #[test]
    fn nothing_to_start_is_said() {
        let (_dir, config) = image("", "{}", &[]);
        assert!(message(&config).contains("has no kernel"), "{}", message(&config));
        assert!(message(&Config::default()).contains("Nothing to start"));
        let config = Config { kernel: Some("/no/such/kernel".into()), ..Config::default() };
        assert!(message(&config).contains("/no/such/kernel"));
    }

    #[test]
    fn kernels_are_told_apart() {
        let mut linux = vec![0; 0x400];
        linux[0x202..0x206].copy_from_slice(b"HdrS");
        let kind =
            |kernel: Vec<u8>| matches!(kernel_source(kernel, None, String::new()), BootSource::Linux { .. });
        assert!(kind(linux));
        assert!(kind(b"text".to_vec()));
        let header = [0x1bad_b002_u32, 0, 0xe452_4ffe].map(u32::to_le_bytes).concat();
        assert!(!kind([&[0; 64], &header[..]].concat()));
    }
}
