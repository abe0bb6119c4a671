//! Saved machines, in version 6 of v86's state format: the only place that knows where in it what is.
//!
//! [`Container`] takes a file apart, [`Plan::read`] understands it and refuses what cannot be, and
//! [`Plan::apply`] puts the machine into it: nothing can fail once a machine is touched. The other
//! way, [`save()`] writes what v86 would have written of the same machine. What v86's format has no
//! place for goes into the key `env86`, which v86 does not look at; a state without it is as good.
//!
//! Devices that v86 has and this board has not are [`Passengers`]: they are carried from the state
//! that a machine comes from to the one that is made of it, or written as v86 powers them up.

mod absent;
mod acpi;
mod apic;
mod chip;
mod connections;
mod container;
mod cpu;
mod dma;
mod floppy;
mod fw_cfg;
mod ide;
mod image;
mod ioapic;
mod lpt;
mod ne2k;
mod opl;
mod ours;
mod p9;
mod pci;
mod pic;
mod pit;
mod plan;
mod ps2;
mod ram;
mod record;
mod rom_alias;
mod rtc;
mod save;
mod sb16;
mod speaker;
#[cfg(test)]
mod suite;
mod system_control;
#[cfg(test)]
mod tests;
mod top;
mod uart;
mod value;
mod vga;
mod virtio;
mod virtio_balloon;
mod virtio_block;
mod virtio_console;
mod virtio_net;
mod virtio_shares;
mod vmware;

use thiserror::Error;

pub use absent::Passengers;
pub use container::{Buffers, Checksums, Container, PAGE, Saved, is_compressed};
pub use ide::{Slot, Source};
pub use image::ImageSource;
pub use plan::Plan;
pub use ram::{Pages, Run};
pub use save::{digest, save};
pub use value::{Kind, Value};

/// The chips, by their files here, in the order in which they are written. Memory is the first, so that
/// it can be mapped.
macro_rules! for_each_chip {
    ($use:ident) => {
        $use!(
            ram,
            rom_alias,
            p9,
            ide,
            floppy,
            fw_cfg,
            cpu,
            apic,
            rtc,
            pci,
            dma,
            acpi,
            vga,
            ps2,
            vmware,
            uart,
            pit,
            pic,
            ioapic,
            virtio_console,
            virtio_balloon,
            ne2k,
            virtio_net,
            connections,
            absent,
            system_control,
            sb16,
            speaker,
            lpt,
            virtio_block,
            virtio_shares,
            image
        );
    };
}
use for_each_chip;

/// Why a state cannot be used, or made.
#[derive(Debug, Error)]
pub enum StateError {
    /// The magic number is another one.
    #[error("This is no saved state of v86 or env86")]
    NoState,
    /// It has to be decompressed first.
    #[error("The saved state is compressed with zstd")]
    Compressed,
    /// The file ends early.
    #[error("The saved state is cut off: {have} bytes of {want} are there")]
    Truncated {
        /// Bytes that there are.
        have: u64,
        /// Bytes that there should be.
        want: u64,
    },
    /// The lengths in the header contradict the file's.
    #[error("The saved state's header is wrong")]
    Header,
    /// Another version of the format.
    #[error("The saved state has version {0}, and only version 6 is known")]
    Version(u32),
    /// The list of registers cannot be read.
    #[error("The saved state's list of registers cannot be read")]
    Json(#[source] serde_json::Error),
    /// A buffer is elsewhere or missing.
    #[error("Buffer {id} of the saved state {problem}")]
    Buffer {
        /// Its number.
        id: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A checksum does not fit.
    #[error("The saved state has changed since it was written ({0} has another checksum)")]
    Checksum(String),
    /// An entry is not what it should be.
    #[error("The saved state cannot be used: {path} {problem}")]
    Entry {
        /// The entry, with its number, and the field.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An entry is as v86 would have it, but this board cannot be that.
    #[error("The saved state cannot be resumed here: {0}")]
    Unsupported(String),
    /// The state is of another machine than the one that it is to be put into.
    #[error("The saved state is of another machine: {0}")]
    OtherMachine(String),
    /// A file's content cannot be read, and so not be saved.
    #[error("The file with inode number {ino} cannot be read to be saved: {source}")]
    File {
        /// The inode.
        ino: u32,
        /// Why not.
        source: crate::fs::FsError,
    },
    /// The image in a drive cannot be read, and so not be saved.
    #[error("The image of a disk cannot be read to be saved")]
    Image(#[from] crate::ide::DiskImageError),
    /// More pieces than anyone would read.
    #[error(
        "A state of {0} pieces is more than can be read again: the guest has written too much to its disks"
    )]
    TooManyPieces(usize),
    /// More than the format can hold.
    #[error("A state of {0} bytes is more than the format can hold (2 GiB)")]
    TooLarge(u64),
}
