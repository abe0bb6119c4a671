//! Images of Debian packages, which the user's apt finds and fetches for i386 from the mirror that it knows, into a folder
//! of its own: nothing is installed, and no one has to be root.
//!
//! The kernel may be Debian's, too: it gets an initial RAM disk here that mounts the root file system over 9p.

mod apt;
mod initramfs;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::apt::Apt;
use super::ImageConfig;
use super::create::{CreateError, Options, Summary, fill_with_packages, new_place, staged};
use super::kernel::{Kernel, KernelError};
use super::modules::{Modules, ModulesError};
use super::scratch::Scratch;

/// The packages of Debian's kernels for i386; the first that there is is taken.
const KERNELS: [&str; 2] = ["linux-image-686", "linux-image-686-pae"];
/// The shell of the initial RAM disk.
const BUSYBOX: &str = "busybox-static";
/// What the kernel is told.
const CMDLINE: &str = "rw root=host9p rootfstype=9p \
    rootflags=trans=virtio,version=9p2000.L,cache=loose,msize=262144,locktimeout=1 console=tty1 console=ttyS0 quiet \
    tsc=reliable mitigations=off cryptomgr.notests";
/// Kernel modules that an image has unless the user says which: drivers of the machine's devices, and common file systems.
const MODULES: [&str; 24] = [
    "9p",
    "9pnet_virtio",
    "9pnet_fd",
    "virtio_pci",
    "virtio_balloon",
    "virtio_blk",
    "virtio_console",
    "virtio_input",
    "virtio_net",
    "virtio_rng",
    "virtio_scsi",
    "ne2k-pci",
    "ata_piix",
    "sd_mod",
    "sr_mod",
    "floppy",
    "loop",
    "ext4",
    "vfat",
    "isofs",
    "overlay",
    "psmouse",
    "evdev",
    "af_packet",
];

/// Why there is no image.
#[derive(Debug, Error)]
pub enum DebianError {
    /// A program that is needed is not here.
    #[error(
        "There is no {0} here, which Debian packages need: use a Debian, or a system with apt and dpkg; or make the tree there, and take it by a tar archive"
    )]
    NoProgram(&'static str),
    /// A name of a suite or a package would mean something else to apt.
    #[error(
        "`{0}` is no name of Debian's; write a suite such as bookworm, and packages such as bash,coreutils"
    )]
    Name(String),
    /// apt has no mirror.
    #[error("apt knows no mirror to take {0} from; name one in /etc/apt/sources.list")]
    NoMirror(String),
    /// apt does not do it.
    #[error("apt cannot {what}: {said}")]
    Apt {
        /// What.
        what: String,
        /// What it has said last.
        said: String,
    },
    /// The suite has no kernel.
    #[error(
        "{0} has no kernel for i386 (Debian 12 was the last that had); give one of another image, or a file"
    )]
    NoKernel(String),
    /// A package is not what it should be.
    #[error("The package `{}` has no {what}", package.display())]
    Lacks {
        /// The package.
        package: PathBuf,
        /// What it lacks.
        what: &'static str,
    },
    /// Files.
    #[error("Cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel's modules.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The image.
    #[error(transparent)]
    Create(#[from] CreateError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DebianError {
    move |source| DebianError::File { path: path.into(), source }
}

/// An image of Debian packages.
pub struct Debian<'a> {
    /// The suite: bookworm, for example.
    pub suite: String,
    /// The packages; apt adds what they depend on.
    pub packages: Vec<String>,
    /// The kernel; without one it is Debian's.
    pub kernel: Option<Kernel>,
    /// Which modules of Debian's kernel there are to be.
    pub modules: Option<Vec<String>>,
    /// Where lists and packages are kept.
    pub cache: PathBuf,
    /// Is told what is done.
    pub tell: &'a dyn Fn(&str),
}

impl Debian<'_> {
    /// Makes the image directory `image`.
    pub fn create(&self, image: &Path, options: &Options) -> Result<Summary, DebianError> {
        for name in self.packages.iter().chain([&self.suite]) {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_' | '~');
            if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(known) {
                return Err(DebianError::Name(name.clone()));
            }
        }
        new_place(image)?;
        let folder = self.cache.join(&self.suite);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        // apt would not wait for another one of it.
        let path = folder.join("lock");
        let locked = File::options().create(true).truncate(false).write(true).open(&path);
        let locked = locked.and_then(|file| file.lock().map(|()| file)).map_err(at(&path))?;
        let apt = Apt::new(&self.suite, &folder, options.watch())?;
        (self.tell)(&format!("reading the lists of {}", self.suite));
        if let Err(error) = apt.update() {
            // One list of several, or no network: what is missing is missed below.
            (self.tell)(&format!("{error}; going on with the lists that are here"));
        }
        let files = apt.fetch(&self.packages, self.tell)?;
        let scratch = Scratch::new().map_err(at(Path::new("a temporary folder")))?;
        let (kernel, chosen) = match &self.kernel {
            Some(kernel) => (kernel.clone(), None),
            None => {
                let (kernel, modules) = self.kernel(&apt, scratch.path())?;
                let own = MODULES.map(String::from);
                (kernel, Some(modules.choose(Some(self.modules.as_deref().unwrap_or(&own)))?))
            }
        };
        let options = &Options { modules: chosen.as_ref().or(options.modules), ..options.clone() };
        drop(locked);
        options
            .progress
            .total(files.iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum());
        staged(image, &options.watch(), |folder| {
            let mut config = ImageConfig::default();
            kernel.put(folder, &mut config)?;
            Ok(fill_with_packages(&files, folder, config, options)?)
        })
    }

    /// Debian's kernel, and its modules, which are unpacked to a folder.
    fn kernel(&self, apt: &Apt, folder: &Path) -> Result<(Kernel, Modules), DebianError> {
        let package = KERNELS.iter().find_map(|name| apt.kernel(name));
        let package = package.ok_or_else(|| DebianError::NoKernel(self.suite.clone()))?;
        (self.tell)(&format!("the kernel is {package}"));
        let file = apt.download(&package)?;
        apt::unpack_some(&file, folder, |path| {
            path.starts_with("boot/vmlinuz") || path.contains("lib/modules/")
        })?;
        let lacks = |what| DebianError::Lacks { package: file.clone(), what };
        let boot = fs::read_dir(folder.join("boot")).into_iter().flatten().flatten().next();
        let kernel = boot.ok_or_else(|| lacks("kernel"))?.path();
        let kernel = fs::read(&kernel).map_err(at(&kernel))?;
        let modules = Modules::within(folder)?;
        modules.check(&kernel)?;
        let shell = apt.download(BUSYBOX)?;
        apt::unpack_some(&shell, folder, |path| path.ends_with("bin/busybox"))?;
        let places = ["bin/busybox", "usr/bin/busybox"].map(|place| folder.join(place));
        let busybox = places
            .iter()
            .find(|place| place.is_file())
            .ok_or_else(|| DebianError::Lacks { package: shell.clone(), what: "bin/busybox" })?;
        let ram_disk = initramfs::make(&fs::read(busybox).map_err(at(busybox))?, &modules)?;
        Ok((Kernel::new(kernel, ram_disk, CMDLINE), modules))
    }
}
