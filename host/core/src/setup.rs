//! What a machine is to be.

use std::ops::RangeInclusive;
use std::task::Waker;

use env86_devices::board::Connected;
use env86_devices::floppy::{self, Disk};
use env86_devices::fs::{BlobStore, Filesystem, NoBlobs};
use env86_devices::ide::{Medium, Units};
use env86_devices::ne2k;
use env86_devices::state::ImageSource;
use env86_devices::{Clock, Entropy};

use crate::image_config::ImageConfig;
use crate::media::{MediaStore, NoMedia};
use crate::recording::{self, Recording};

/// Memory in bytes where nothing else is said.
pub const DEFAULT_MEMORY: u64 = 512 << 20;
/// Video memory in bytes where nothing else is said.
pub const DEFAULT_VIDEO_MEMORY: u64 = 8 << 20;
/// The video memory that a card can have: 256 KiB, as the first VGA, to what fits below the ROMs.
pub(crate) const VIDEO_MEMORY: RangeInclusive<u64> = 256 << 10..=256 << 20;

/// A network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetDevice {
    /// An NE2000 on PCI (RTL8029), which every system knows.
    #[default]
    Ne2k,
    /// A virtio card, which moves much more data.
    Virtio,
    /// There is none.
    None,
}

/// What a machine is to be: its board, and the world that it stands in.
///
/// A machine that is resumed has memory, APICs and all that a state speaks of from there.
pub struct Setup {
    /// Memory in bytes.
    pub memory: u64,
    /// Video memory in bytes.
    pub video_memory: u64,
    /// I/O APIC, local APIC and ACPI power management are on the board.
    pub acpi: bool,
    /// The network card on the board.
    pub net_device: NetDevice,
    /// The address of the network card.
    pub mac: [u8; 6],
    /// A virtio console is on the board.
    pub virtio_console: bool,
    /// A virtio balloon is on the board.
    pub virtio_balloon: bool,
    /// The device for folders of the desk's host is on the board.
    pub virtio_shares: bool,
    /// A guest's write to this port ends the machine with the value written.
    pub debug_exit: Option<u16>,
    /// Hard disks and CD-ROM drives.
    pub drives: Units,
    /// What is in the floppy drives A and B.
    pub floppies: [Option<Disk>; floppy::DRIVES],
    /// The order in which a BIOS tries its boot devices, the first in the lowest of three nibbles: 1 floppy,
    /// 2 disk, 3 CD-ROM, 4 network. `None`: a floppy disk if there is one, else a hard disk, else a CD-ROM.
    pub boot_order: Option<u16>,
    /// What is in the virtio disk, if there is one.
    pub virtio_disk: Option<Medium>,
    /// What can be put into the drives while the machine runs.
    pub media: Box<dyn MediaStore>,
    /// Whom media and files wake when data have come that the guest waits for. The desk calls
    /// [`Computer::data_arrived`](crate::Computer::data_arrived) then.
    pub waker: Waker,
    /// The file system that the guest sees over 9p.
    pub filesystem: Filesystem,
    /// The contents of its files.
    pub blobs: Box<dyn BlobStore>,
    /// Which image these are of, for saved states to tell.
    pub image: Option<ImageSource>,
    /// The lines whose output the desk takes.
    pub connected: Connected,
    /// The desk takes the output of the debug ports (E9h, 402h).
    pub debug_console: bool,
    /// A parallel port is on the board, and the desk takes what is printed there.
    pub printer: bool,
    /// After a reset or a triple fault the machine starts again, as a PC does; else it ends.
    pub restart: bool,
    /// Guest time.
    pub clock: Box<dyn Clock>,
    /// Chance.
    pub entropy: Box<dyn Entropy>,
    /// Everything that comes from outside, for a machine whose clock counts its instructions: two runs
    /// are the same.
    pub recording: Option<Recording>,
}

impl Setup {
    /// A machine in a world of its own.
    pub fn new(clock: Box<dyn Clock>, entropy: Box<dyn Entropy>) -> Self {
        Self {
            memory: DEFAULT_MEMORY,
            video_memory: DEFAULT_VIDEO_MEMORY,
            acpi: false,
            net_device: NetDevice::default(),
            mac: ne2k::MAC,
            virtio_console: false,
            virtio_balloon: false,
            virtio_shares: false,
            debug_exit: None,
            drives: Units::default(),
            floppies: [None, None],
            boot_order: None,
            virtio_disk: None,
            media: Box::new(NoMedia),
            waker: Waker::noop().clone(),
            filesystem: Filesystem::default(),
            blobs: Box::new(NoBlobs),
            image: None,
            connected: Connected::default(),
            debug_console: false,
            printer: false,
            restart: true,
            clock,
            entropy,
            recording: None,
        }
    }

    /// A machine that does the same each time: time is its count of instructions, chance comes from a
    /// seed, and what comes from outside is in the recording.
    pub fn deterministic(recording: Recording) -> Self {
        Self::deterministic_from(recording, 0, recording::POWER_ON_MILLIS)
    }

    /// The same for a machine that is resumed at this guest time, in nanoseconds, and wall time, in
    /// milliseconds since 1970.
    pub fn deterministic_from(recording: Recording, time: u64, unix_millis: i64) -> Self {
        let (clock, entropy) = (recording::clock(time, unix_millis), recording::entropy());
        Self { recording: Some(recording), ..Self::new(Box::new(clock), Box::new(entropy)) }
    }

    /// Tells media and files whom to wake.
    pub(crate) fn wire(&mut self) {
        self.drives.media().chain(&self.virtio_disk).for_each(|medium| medium.wake_by(&self.waker));
        self.blobs.wake_by(&self.waker);
    }

    /// What an image says about its machine, where it says something.
    #[must_use]
    pub fn with_image(self, image: &ImageConfig) -> Self {
        // It has the port that the service answers at fastest.
        let virtio_console = image
            .virtio_console
            .as_ref()
            .map_or(self.virtio_console || image.has_guest_service, |value| *value != false);
        Self {
            memory: image.memory_size.unwrap_or(self.memory),
            video_memory: image.vga_memory_size.unwrap_or(self.video_memory),
            acpi: image.acpi.unwrap_or(self.acpi),
            net_device: image.net_device().unwrap_or(self.net_device),
            virtio_console,
            // The service mounts them.
            virtio_shares: self.virtio_shares || image.has_guest_service && virtio_console,
            virtio_balloon: image.virtio_balloon.unwrap_or(self.virtio_balloon),
            boot_order: image.boot_order.or(self.boot_order),
            ..self
        }
    }
}
