//! From what a user asked for to a machine: which image, kernel or saved state, and the files of the host
//! that they lie in.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use env86_bios::BootSource;
use env86_core::{
    Choice, Computer, Firmware, ImageConfig, LoadError, NamedFile, NetDevice, Recording, Setup, choose,
};
use env86_devices::board::Connected;
use env86_devices::fs::Filesystem;
use env86_devices::state::ImageSource;
use env86_devices::{Entropy, ne2k};

use super::cable;
use super::clock::{HostClock, OsEntropy};
use super::disk;
use super::files::Blobs;
use super::state::{StateFile, StateFileError};
use super::thread::{Arrivals, Built};
use super::{Event, Machine, MachineError, Medium, Slot};
use crate::image::kernel::Kernel;
use crate::image::{BlobDir, FileRef, Held, Image};
use crate::sound::Listener;

/// Where distributions put SeaBIOS.
const BIOS_FOLDERS: [&str; 4] =
    ["/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu", "/opt/homebrew/share/qemu"];
/// SeaBIOS, and its video BIOS for the board's graphics card.
const BIOS: &str = "bios-256k.bin";
const VIDEO_BIOS: &str = "vgabios-stdvga.bin";

/// A kernel that is started instead of the image's.
#[derive(Clone, Debug)]
enum ChosenKernel {
    /// On the host.
    File(PathBuf),
    /// Another image's.
    OfImage(Arc<Kernel>),
}

/// What a machine is to be. Where nothing is said here, the image decides, and else the defaults.
///
/// An image that holds a saved state is resumed, unless [`cold`](Self::cold) or another kernel is asked
/// for.
#[derive(Clone, Debug)]
pub struct MachineBuilder {
    pub(super) image: Option<Image>,
    cold: bool,
    kernel: Option<ChosenKernel>,
    initrd: Option<PathBuf>,
    append: String,
    bios: Option<PathBuf>,
    vga_bios: Option<PathBuf>,
    self_test: bool,
    memory: Option<u64>,
    acpi: Option<bool>,
    virtio_console: Option<bool>,
    net_device: Option<NetDevice>,
    network: Option<cable::Wiring>,
    pub(super) hda: Option<PathBuf>,
    pub(super) hdb: Option<PathBuf>,
    pub(super) hdc: Option<PathBuf>,
    pub(super) hdd: Option<PathBuf>,
    pub(super) cdrom: Option<PathBuf>,
    pub(super) fda: Option<PathBuf>,
    pub(super) fdb: Option<PathBuf>,
    pub(super) virtio_disk: Option<PathBuf>,
    boot_order: Option<u16>,
    pub(super) media: Vec<(Slot, Medium)>,
    pub(super) persist: bool,
    pub(super) overlay: Option<PathBuf>,
    debug_exit: Option<u16>,
    debug_console: bool,
    printer: bool,
    state: Option<PathBuf>,
    recording: Option<Recording>,
    restart: bool,
    listeners: Vec<Listener>,
}

impl Default for MachineBuilder {
    /// A machine that has nothing to start.
    fn default() -> Self {
        Self {
            image: None,
            cold: false,
            kernel: None,
            initrd: None,
            append: String::new(),
            bios: None,
            vga_bios: None,
            self_test: false,
            memory: None,
            acpi: None,
            virtio_console: None,
            net_device: None,
            network: None,
            hda: None,
            hdb: None,
            hdc: None,
            hdd: None,
            cdrom: None,
            fda: None,
            fdb: None,
            virtio_disk: None,
            boot_order: None,
            media: Vec::new(),
            persist: false,
            overlay: None,
            debug_exit: None,
            debug_console: false,
            printer: false,
            state: None,
            recording: None,
            restart: true,
            listeners: Vec::new(),
        }
    }
}

impl MachineBuilder {
    /// The image: its file system, what its `image.json` says, and its saved state.
    #[must_use]
    pub fn image(self, image: &Image) -> Self {
        Self { image: Some(image.clone()), ..self }
    }

    /// Starts anew, even if the image holds a saved state.
    #[must_use]
    pub fn cold(self) -> Self {
        Self { cold: true, ..self }
    }

    /// A saved state to resume. Memory and board are the state's; the image gives the contents of files.
    #[must_use]
    pub fn state(self, path: impl Into<PathBuf>) -> Self {
        Self { state: Some(path.into()), ..self }
    }

    /// A Linux or Multiboot kernel on the host, instead of the image's.
    #[must_use]
    pub fn kernel(self, path: impl Into<PathBuf>) -> Self {
        Self { kernel: Some(ChosenKernel::File(path.into())), ..self }
    }

    /// Another image's kernel, with its initial RAM disk and its command line, instead of the image's.
    #[must_use]
    pub fn kernel_of(self, kernel: Kernel) -> Self {
        Self { kernel: Some(ChosenKernel::OfImage(Arc::new(kernel))), ..self }
    }

    /// The initial RAM disk on the host.
    #[must_use]
    pub fn initrd(self, path: impl Into<PathBuf>) -> Self {
        Self { initrd: Some(path.into()), ..self }
    }

    /// Added to the kernel's command line.
    #[must_use]
    pub fn append(self, text: impl Into<String>) -> Self {
        Self { append: text.into(), ..self }
    }

    /// A BIOS ROM on the host. It starts the kernel, if one is named, before anything else.
    #[must_use]
    pub fn bios(self, path: impl Into<PathBuf>) -> Self {
        Self { bios: Some(path.into()), ..self }
    }

    /// A video BIOS ROM on the host, instead of the image's.
    #[must_use]
    pub fn vga_bios(self, path: impl Into<PathBuf>) -> Self {
        Self { vga_bios: Some(path.into()), ..self }
    }

    /// A guest that tests the machine, instead of a kernel or a BIOS, and shows on the screen and on COM1 what works.
    /// Esc, on the keyboard or on COM1, ends it with [`Ending::DebugExit`](super::Ending::DebugExit): 0, or 1 if a test
    /// has failed. Another debug exit port is not used.
    #[must_use]
    pub fn self_test(self) -> Self {
        Self { self_test: true, ..self }
    }

    /// The order in which a BIOS tries its boot devices, the first in the lowest of three nibbles: 1 floppy,
    /// 2 disk, 3 CD-ROM, 4 network.
    #[must_use]
    pub fn boot_order(self, order: u16) -> Self {
        Self { boot_order: Some(order), ..self }
    }

    /// Memory in bytes.
    #[must_use]
    pub fn memory(self, bytes: u64) -> Self {
        Self { memory: Some(bytes), ..self }
    }

    /// I/O APIC, local APIC and ACPI power management are on the board, or not.
    #[must_use]
    pub fn acpi(self, fitted: bool) -> Self {
        Self { acpi: Some(fitted), ..self }
    }

    /// A virtio console is on the board, or not.
    #[must_use]
    pub fn virtio_console(self, fitted: bool) -> Self {
        Self { virtio_console: Some(fitted), ..self }
    }

    /// The network card on the board.
    #[must_use]
    pub fn net_device(self, device: NetDevice) -> Self {
        Self { net_device: Some(device), ..self }
    }

    /// The network that the machine's card is plugged into: one of its own, by a
    /// [`Config`](crate::net::Config), or one elsewhere, by a [`Join`](crate::net::Join).
    #[cfg(feature = "net")]
    #[must_use]
    pub fn network(self, network: impl Into<crate::net::Wiring>) -> Self {
        Self { network: Some(network.into()), ..self }
    }

    /// The image of the first hard disk. It is never written to, unless [`persist`](Self::persist) is asked
    /// for.
    #[must_use]
    pub fn hda(self, path: impl Into<PathBuf>) -> Self {
        Self { hda: Some(path.into()), ..self }
    }

    /// The image of the second hard disk.
    #[must_use]
    pub fn hdb(self, path: impl Into<PathBuf>) -> Self {
        Self { hdb: Some(path.into()), ..self }
    }

    /// The image of the third hard disk, which is in the place that the CD-ROM drive has else: the drive is the slave of
    /// the secondary channel then.
    #[must_use]
    pub fn hdc(self, path: impl Into<PathBuf>) -> Self {
        Self { hdc: Some(path.into()), ..self }
    }

    /// The image of the fourth hard disk. Beside a third one there is no CD-ROM drive.
    #[must_use]
    pub fn hdd(self, path: impl Into<PathBuf>) -> Self {
        Self { hdd: Some(path.into()), ..self }
    }

    /// What is in the CD-ROM drive.
    #[must_use]
    pub fn cdrom(self, path: impl Into<PathBuf>) -> Self {
        Self { cdrom: Some(path.into()), ..self }
    }

    /// What is in the first floppy drive: an image of up to 2.88 MB.
    #[must_use]
    pub fn fda(self, path: impl Into<PathBuf>) -> Self {
        Self { fda: Some(path.into()), ..self }
    }

    /// What is in the second floppy drive.
    #[must_use]
    pub fn fdb(self, path: impl Into<PathBuf>) -> Self {
        Self { fdb: Some(path.into()), ..self }
    }

    /// The image of a disk that the guest reaches by virtio.
    #[must_use]
    pub fn virtio_disk(self, path: impl Into<PathBuf>) -> Self {
        Self { virtio_disk: Some(path.into()), ..self }
    }

    /// What the guest writes to its hard and floppy disks goes to their images, which no other machine may use
    /// meanwhile. A saved state does not have it.
    #[must_use]
    pub fn persist(self) -> Self {
        Self { persist: true, ..self }
    }

    /// What the guest writes to its first hard disk goes to this file, which is made if it is not there. The
    /// disk's image is only read, and must not change as long as the file is used.
    #[must_use]
    pub fn overlay(self, path: impl Into<PathBuf>) -> Self {
        Self { overlay: Some(path.into()), ..self }
    }

    /// What is in a drive, wherever the program has it from: its image may answer later
    /// ([`DiskImage::read`](super::DiskImage::read)).
    #[must_use]
    pub fn medium(mut self, slot: Slot, medium: Medium) -> Self {
        self.media.push((slot, medium));
        self
    }

    /// A port where a guest's write ends the machine with the value written.
    #[must_use]
    pub fn debug_exit(self, port: u16) -> Self {
        Self { debug_exit: Some(port), ..self }
    }

    /// What the guest writes to the debug ports E9h and 402h goes to
    /// [`Machine::debug_console`]; else nowhere.
    #[must_use]
    pub fn debug_console(self) -> Self {
        Self { debug_console: true, ..self }
    }

    /// The machine has a parallel port (378h, IRQ 7), and what the guest prints goes to [`Machine::printer`].
    #[must_use]
    pub fn printer(self) -> Self {
        Self { printer: true, ..self }
    }

    /// Everything that comes from outside: time is the count of instructions, and two runs are the same.
    /// Else the machine runs by the host's clocks.
    #[must_use]
    pub fn recording(self, recording: Recording) -> Self {
        Self { recording: Some(recording), ..self }
    }

    /// What the machine plays goes to this listener, too. The builder keeps it, and with it a
    /// [`Recorder`](crate::sound::Recorder)'s file open.
    #[must_use]
    pub fn sound(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// The machine ends, instead of starting again, after a reset; a triple fault is an error then.
    #[must_use]
    pub fn no_restart(self) -> Self {
        Self { restart: false, ..self }
    }

    /// The files of the saved state that [`start`](Self::start) resumes, if it does.
    pub fn state_files(&self) -> Result<Option<Vec<PathBuf>>, MachineError> {
        let chosen = self.cold || self.kernel.is_some() || self.bios.is_some() || self.self_test;
        Ok(match (&self.state, &self.image) {
            (Some(path), _) => Some(vec![path.clone()]),
            (None, Some(image)) if !chosen => image.state_files()?,
            (None, _) => None,
        })
    }

    /// Builds the machine and starts it.
    pub fn start(&self) -> Result<Machine, MachineError> {
        // A port that is taken is found before anything is read.
        let network = self.network.as_ref().map(cable::prepare).transpose()?;
        let Some(paths) = self.state_files()? else {
            let image = self.hold_image()?;
            return Machine::spawn(Built { image, ..self.power_on()? }, None, network);
        };
        if self.memory.is_some() || self.acpi.is_some() || self.net_device.is_some() {
            return Err(MachineError::StateDecides);
        }
        let file = StateFile::open(&paths)?;
        let builder = Self { image: self.image_of(&file)?, ..self.clone() };
        let image = builder.hold_image()?;
        let no_image = builder.image.is_none() && file.plan.needs_image();
        let first = no_image.then_some(Event::NoImage);
        Machine::spawn(Built { image, ..builder.resume(file)? }, first, network)
    }

    /// The image stays where it is, as long as the machine is there.
    fn hold_image(&self) -> Result<Option<Held>, MachineError> {
        Ok(self.image.as_ref().map(Image::hold).transpose()?)
    }

    /// The image that a state's files are in: the one at hand, else where the state says. `None` if
    /// it does not say, or needs none.
    fn image_of(&self, file: &StateFile) -> Result<Option<Image>, MachineError> {
        let Some(source) = file.plan.image() else { return Ok(self.image.clone()) };
        let wanted = source.path.clone();
        let image = match &self.image {
            Some(image) => image.clone(),
            None if !file.plan.needs_image() => return Ok(None),
            None => match Image::open(&wanted) {
                Ok(image) => image,
                Err(source) => return Err(MachineError::ImageGone { wanted, source }),
            },
        };
        match source.has_index(&image.read_index()?) {
            true => Ok(Some(image)),
            false => Err(MachineError::OtherImage { wanted, path: image.path().into() }),
        }
    }

    /// The machine that a saved state is of, in that state.
    fn resume(&self, mut file: StateFile) -> Result<Built, MachineError> {
        let blobs = self.blobs();
        let (lost_files, arrivals) = (blobs.lost(), Arc::new(Arrivals::default()));
        let (time, unix_millis) = (file.plan.time, file.plan.unix_millis());
        let setup = Setup {
            drives: disk::saved_units(self, &file)?,
            floppies: disk::saved_floppies(self)?,
            virtio_disk: disk::saved_virtio_disk(self, &file)?,
            blobs: Box::new(blobs),
            image: self.image_source()?,
            waker: arrivals.clone().into(),
            ..self.setup(|recording| Setup::deterministic_from(recording, time, unix_millis), time)
        };
        let mem = file.memory()?;
        let later = self.clone();
        // A machine that is reset after that starts as the image does.
        let firmware = Firmware::later(move || {
            let (filesystem, mut blobs) = (later.filesystem()?, later.blobs());
            let memory = later.config().memory_size.unwrap_or(env86_core::DEFAULT_MEMORY);
            later.firmware(&filesystem, &mut blobs, memory).map_err(LoadError::from)
        });
        let computer = Computer::resume(setup, file.plan.clone(), mem, file.bytes(), firmware);
        file.verify()?;
        let computer = computer.map_err(|error| match error {
            env86_core::ComputerError::State(source) => {
                StateFileError::Content { path: file.path().into(), source }.into()
            }
            other => MachineError::from(other),
        })?;
        let source = file.source();
        source.check()?;
        let listeners = self.listeners.clone();
        // On a network of its own there is none with the same.
        let shares = self.network.as_ref().is_some_and(cable::Wiring::is_shared);
        let address = (shares && !self.config().preserve_mac_from_state_image).then(address);
        Ok(Built { computer, lost_files, arrivals, source: Some(source), listeners, address, image: None })
    }

    /// A machine after power-on.
    fn power_on(&self) -> Result<Built, MachineError> {
        let (filesystem, mut blobs) = (self.filesystem()?, self.blobs());
        let (lost_files, arrivals) = (blobs.lost(), Arc::new(Arrivals::default()));
        let config = self.config();
        let setup = self.setup(Setup::deterministic, 0).with_image(&config);
        let memory = self.memory.unwrap_or(setup.memory);
        // Before anything is found too large for what no machine can have.
        env86_emu::memory::rounded(memory)?;
        let (source, name) = self.firmware(&filesystem, &mut blobs, memory)?;
        let setup = Setup {
            memory,
            acpi: self.acpi.unwrap_or(setup.acpi),
            virtio_console: self.virtio_console.unwrap_or(setup.virtio_console),
            // Both are the guest's service's.
            virtio_shares: setup.virtio_shares && self.virtio_console != Some(false),
            net_device: self.net_device.unwrap_or(setup.net_device),
            mac: if self.recording.is_some() { ne2k::MAC } else { address() },
            drives: disk::units(self)?,
            floppies: disk::floppies(self)?,
            virtio_disk: disk::virtio_disk(self)?,
            boot_order: self.boot_order.or(setup.boot_order),
            filesystem,
            blobs: Box::new(blobs),
            image: self.image_source()?,
            waker: arrivals.clone().into(),
            ..setup
        };
        let computer = Computer::power_on(setup, Firmware::new(name, source))?;
        let listeners = self.listeners.clone();
        Ok(Built { computer, lost_files, arrivals, source: None, listeners, address: None, image: None })
    }

    /// The world that the machine stands in, from this guest time on.
    fn setup(&self, repeatable: impl FnOnce(Recording) -> Setup, time: u64) -> Setup {
        let world = match &self.recording {
            Some(recording) => repeatable(recording.clone()),
            None => Setup::new(Box::new(HostClock::start_at(time)), Box::new(OsEntropy)),
        };
        Setup {
            debug_exit: if self.self_test { Some(env86_selftest::EXIT_PORT) } else { self.debug_exit },
            debug_console: self.debug_console,
            printer: self.printer,
            media: Box::new(disk::Files),
            restart: self.restart,
            connected: Connected { shares: cfg!(unix), ..world.connected },
            ..world
        }
    }

    fn config(&self) -> ImageConfig {
        self.image.as_ref().map(|image| image.config.clone()).unwrap_or_default()
    }

    /// Which image the files are of, for a saved state to tell.
    fn image_source(&self) -> Result<Option<ImageSource>, MachineError> {
        let Some(image) = &self.image else { return Ok(None) };
        let path = std::path::absolute(image.path()).unwrap_or_else(|_| image.path().into());
        Ok(Some(ImageSource::new(path.to_string_lossy(), &image.read_index()?)))
    }

    /// The image's file system.
    fn filesystem(&self) -> Result<Filesystem, MachineError> {
        let Some(image) = &self.image else { return Ok(Filesystem::default()) };
        Filesystem::from_json(&image.read_index()?)
            .map_err(|source| MachineError::Index { path: image.index_path(), source })
    }

    /// The contents of the image's files.
    fn blobs(&self) -> Blobs {
        Blobs::new(self.image.as_ref().map_or_else(|| BlobDir::new("fs"), Image::blobs))
    }

    /// What is started, and its name: what was asked for or what the image has, else the BIOS that is
    /// installed here, where there are disks. Nothing larger than the `memory` of the machine is read.
    fn firmware(
        &self,
        filesystem: &Filesystem,
        blobs: &mut Blobs,
        memory: u64,
    ) -> Result<(BootSource, String), MachineError> {
        use env86_core::PowerOnError;
        if self.self_test {
            return Ok(env86_core::self_test(self.network.is_some(), &self.append));
        }
        match self.chosen(&self.bios, filesystem, blobs, memory) {
            Err(
                MachineError::NothingToStart | MachineError::PowerOn { source: PowerOnError::NoKernel, .. },
            ) if disk::any(self) => self.chosen(&Some(installed_bios()?), filesystem, blobs, memory),
            other => other,
        }
    }

    /// The video BIOS: the user's, or the one that lies beside a BIOS as distributions have it.
    fn video_bios(&self, bios: &Option<PathBuf>) -> Option<PathBuf> {
        let image = self.image.as_ref().is_some_and(|image| image.config.vga_bios.is_some());
        let beside =
            || Some(bios.as_ref()?.with_file_name(VIDEO_BIOS)).filter(|path| path.is_file() && !image);
        self.vga_bios.clone().or_else(beside)
    }

    /// What is started, with this BIOS of the user's.
    fn chosen(
        &self,
        bios: &Option<PathBuf>,
        filesystem: &Filesystem,
        blobs: &mut Blobs,
        memory: u64,
    ) -> Result<(BootSource, String), MachineError> {
        let host = |what, path: &Option<PathBuf>| {
            path.as_deref().map(|path| read_host(what, path, memory)).transpose()
        };
        let video_bios = self.video_bios(bios);
        let initrd = host("initial RAM disk", &self.initrd)?;
        // A module's name is that of its file alone.
        let bare = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let initrd =
            initrd.zip(self.initrd.as_ref()).map(|(data, path)| NamedFile { name: bare(path), data });
        let full = |path: &PathBuf| path.display().to_string();
        let named = |data: Option<Vec<u8>>, path: &Option<PathBuf>| {
            data.zip(path.as_ref()).map(|(data, path)| NamedFile { name: full(path), data })
        };
        let mut config = self.image.as_ref().map(|image| image.config.clone()).unwrap_or_default();
        let (kernel, kernels_initrd) = match &self.kernel {
            Some(ChosenKernel::File(path)) => {
                let data = read_host("kernel", path, memory)?;
                (Some(NamedFile { name: full(path), data }), None)
            }
            Some(ChosenKernel::OfImage(kernel)) => {
                let (kernel, initrd) = kernel.start(&mut config);
                let file = |(name, data): (&str, _)| NamedFile { name: name.into(), data };
                (Some(file(("kernel", kernel))), initrd.map(|data| file(("initrd", data))))
            }
            None => (None, None),
        };
        let choice = Choice {
            bios: named(host("BIOS", bios)?, bios),
            vga_bios: named(host("video BIOS", &video_bios)?, &video_bios),
            kernel,
            initrd: initrd.or(kernels_initrd),
            append: self.append.clone(),
        };
        let own = choice.bios.is_some() || choice.kernel.is_some();
        let Some(image) = &self.image else {
            if !own {
                return Err(MachineError::NothingToStart);
            }
            let mut none = |_: &'static str, _: &FileRef| Err("there is no image".into());
            let files = (filesystem, blobs as &mut _);
            return choose(choice, &config, files, &mut none, memory)
                .map_err(|source| MachineError::PowerOn { path: bios.clone().unwrap_or_default(), source });
        };
        let path = image.path();
        let mut read = |key, file: &FileRef| {
            let name = format!("{} of {}", file.url.as_deref().unwrap_or("?"), path.display());
            Ok(NamedFile { name, data: image.read_ref(key, file)? })
        };
        let lost = blobs.lost();
        let chosen = choose(choice, &config, (filesystem, blobs as &mut _), &mut read, memory);
        let (source, name) = chosen.map_err(|source| match (lost.take().pop(), source) {
            (Some(lost), _) => MachineError::Blob(lost),
            (None, env86_core::PowerOnError::File(error)) => match error.downcast() {
                Ok(error) => MachineError::Image(*error),
                Err(error) => {
                    let source = env86_core::PowerOnError::File(error);
                    MachineError::PowerOn { path: path.into(), source }
                }
            },
            (None, source) => MachineError::PowerOn { path: path.into(), source },
        })?;
        // A path in the guest does not say whose it is.
        let inside = name.starts_with('/') && !own;
        Ok((source, if inside { format!("{name} of {}", path.display()) } else { name }))
    }
}

/// A network card's address, as v86 gives them.
fn address() -> [u8; 6] {
    let [a, b, c] = ne2k::MAC_PREFIX;
    let [d, e, f, _] = OsEntropy.next_u32().to_le_bytes();
    [a, b, c, d, e, f]
}

/// The BIOS that starts disks where none was named: SeaBIOS, as distributions install it.
fn installed_bios() -> Result<PathBuf, MachineError> {
    let found = BIOS_FOLDERS.iter().map(|folder| Path::new(folder).join(BIOS)).find(|path| path.is_file());
    found.ok_or(MachineError::NoBios)
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
        let source = env86_core::PowerOnError::TooLarge { what, name: path.display().to_string(), memory };
        return Err(MachineError::PowerOn { path: path.into(), source });
    }
    Ok(content)
}
