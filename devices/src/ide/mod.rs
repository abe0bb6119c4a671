//! The IDE controller of the PIIX3 with its drives: two channels at their old ports, a bus master, and
//! a function on the PCI bus.
//!
//! Commands are served at once, unless the medium answers later: then the drive stays busy until its data
//! have come. A command has all of its data before the first of them move, as in v86, whose states hold
//! them as one buffer.
//!
//! Sources: ATA/ATAPI-6 (T13 1410D), SFF-8020i, MMC-3; 82371SB (PIIX3) datasheet 2.3 and 2.7; where
//! drives may choose, v86's choose.

mod ata;
pub mod atapi;
pub mod bus_master;
mod channel;
pub mod drive;
mod geometry;
mod identify;
mod late;
mod medium;
mod packet;
mod resume;
#[cfg(test)]
mod tests;

pub use atapi::DiscError;
pub use channel::Channel;
pub use drive::{Drive, Kind};
pub use late::Late;
pub use medium::{BLOCK, DiskImage, DiskImageError, Form, Medium};
pub use resume::SavedTransfer;

pub use ata::MAX_MULTIPLE;

use crate::pci::{COMMAND_IO, COMMAND_MASTER, ConfigSpace, Function, devfn};
use crate::rtc::DiskGeometry;
use env86_emu::{Memory, Width};
use thiserror::Error;

/// Where the controller sits.
pub const DEVFN: u8 = devfn(30, 0);
/// The channels' command blocks, 8 ports each.
pub const COMMAND_PORTS: [u16; 2] = [0x1f0, 0x170];
/// Ports of a command block.
pub const COMMAND_PORT_COUNT: u16 = 8;
/// The channels' Device Control and Alternate Status.
pub const CONTROL_PORTS: [u16; 2] = [0x3f6, 0x376];
/// The channels' interrupts.
pub const IRQS: [u8; 2] = [14, 15];
/// The base address of the bus master; the first four are there and decode nothing.
pub const BUS_MASTER_BAR: usize = 4;
/// Ports of the bus master, for both channels.
pub const BUS_MASTER_PORTS: u16 = 16;
const BUS_MASTER_CHANNEL_PORTS: u16 = BUS_MASTER_PORTS / 2;

// The command block by offset.
pub(crate) const DATA: u16 = 0;
const ERROR: u16 = 1;
const FEATURES: u16 = 1;
const SECTOR_COUNT: u16 = 2;
const LBA_LOW: u16 = 3;
const LBA_MID: u16 = 4;
const LBA_HIGH: u16 = 5;
const DEVICE: u16 = 6;
const STATUS: u16 = 7;
const COMMAND: u16 = 7;

/// IDETIM of both channels and SIDETIM: how fast the ports are, which is all the same here. Drivers
/// look for the bits that switch the channels on, which the firmware sets (82371SB, 2.3.9).
const TIMING: u8 = 0x40;
const TIMING_BYTES: usize = 5;

/// What is at the end of a cable.
#[derive(Clone, Debug)]
pub enum Unit {
    /// A hard disk.
    Disk(Medium),
    /// A CD-ROM drive, with a disc or without.
    Cdrom(Option<Medium>),
}

impl Unit {
    fn drive(self) -> Drive {
        match self {
            Self::Disk(medium) => Drive::disk(medium),
            Self::Cdrom(medium) => Drive::cdrom(medium),
        }
    }
}

/// Both places of the secondary channel have a hard disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("There is no place for a CD-ROM drive beside the hard disks hdc and hdd; leave out one of the three")]
pub struct NoPlace;

/// The channels that there are, with master and slave of each.
#[derive(Clone, Debug)]
pub struct Units(pub [Option<[Option<Unit>; 2]>; 2]);

impl Default for Units {
    /// A CD-ROM drive without a disc, which v86's machine always has.
    fn default() -> Self {
        Self::new(None, None, None)
    }
}

impl Units {
    /// v86's machine: hard disks as master and slave of the primary channel, which is not there
    /// without a first one, and a CD-ROM drive as master of the secondary.
    pub fn new(hda: Option<Medium>, hdb: Option<Medium>, cdrom: Option<Medium>) -> Self {
        let primary = hda.map(|hda| [Some(Unit::Disk(hda)), hdb.map(Unit::Disk)]);
        Self([primary, Some([Some(Unit::Cdrom(cdrom)), None])])
    }

    /// Puts hard disks on the secondary channel, as master (hdc) and slave. v86's machine has none there. The CD-ROM
    /// drive has the place that they leave; where they leave none, there is no drive, and a disc is an error.
    pub fn with_secondary(mut self, hdc: Option<Medium>, hdd: Option<Medium>) -> Result<Self, NoPlace> {
        let [cdrom, _] = self.0[1].take().unwrap_or_default();
        let units = match [hdc, hdd].map(|disk| disk.map(Unit::Disk)) {
            [None, hdd] => [cdrom, hdd],
            [hdc, None] => [hdc, cdrom],
            _ if matches!(cdrom, Some(Unit::Cdrom(Some(_)))) => return Err(NoPlace),
            both => both,
        };
        self.0[1] = Some(units);
        Ok(self)
    }

    /// There is a hard disk.
    pub fn have_hard_disk(&self) -> bool {
        self.0.iter().flatten().flatten().flatten().any(|unit| matches!(unit, Unit::Disk(_)))
    }

    /// The media in them.
    pub fn media(&self) -> impl Iterator<Item = &Medium> {
        self.0.iter().flatten().flatten().flatten().filter_map(|unit| match unit {
            Unit::Disk(medium) => Some(medium),
            Unit::Cdrom(medium) => medium.as_ref(),
        })
    }

    /// How the setup memory describes the hard disks of the primary channel.
    pub fn cmos(&self) -> [Option<DiskGeometry>; 2] {
        let [primary, _] = &self.0;
        let geometry = |unit: &Option<Unit>| match unit {
            Some(Unit::Disk(medium)) => Some(ata::native_geometry(medium)),
            _ => None,
        };
        primary.as_ref().map_or([None; 2], |units| units.each_ref().map(geometry))
    }
}

/// The controller.
#[derive(Clone, Debug)]
pub struct Ide {
    /// The primary and the secondary channel.
    pub channels: [Option<Channel>; 2],
}

impl Ide {
    /// A controller after power-on.
    pub fn new(units: Units) -> Self {
        let [primary, secondary] = units.0;
        let drive = |unit: Option<Unit>| unit.map_or_else(Drive::absent, Unit::drive);
        let channel = |number, units: Option<[Option<Unit>; 2]>| {
            units.map(|units| Channel::new(number, units.map(drive)))
        };
        Self { channels: [channel(0, primary), channel(1, secondary)] }
    }

    /// The hard reset of the board. Media stay.
    pub fn reset(&mut self) {
        self.channels.iter_mut().flatten().for_each(Channel::reset);
    }

    fn channel(&mut self, number: u8) -> Option<&mut Channel> {
        self.channels.get_mut(usize::from(number))?.as_mut()
    }

    /// Reads a command block. That of a channel without drives reads as one whose drive is not there: a driver
    /// that found ones would wait for ever until BSY goes.
    pub fn read(&mut self, channel: u8, offset: u16, width: Width) -> u32 {
        self.channel(channel).map_or(0, |channel| channel.read(offset, width))
    }

    /// Writes a command block.
    pub fn write(&mut self, mem: &mut Memory, channel: u8, offset: u16, width: Width, value: u32) {
        if let Some(channel) = self.channel(channel) {
            channel.write(mem, offset, width, value);
        }
    }

    /// Reads Alternate Status.
    pub fn read_control(&mut self, channel: u8) -> u8 {
        self.channel(channel).map_or(0, Channel::alternate_status)
    }

    /// Writes Device Control.
    pub fn write_control(&mut self, channel: u8, value: u8) {
        if let Some(channel) = self.channel(channel) {
            channel.write_control(value);
        }
    }

    /// Reads the bus master's 16 ports.
    pub fn read_bus_master(&mut self, offset: u16, width: Width) -> u32 {
        let channel = self.channel((offset / BUS_MASTER_CHANNEL_PORTS) as u8);
        // Registers of a channel that is not there are zero: ones would say what is not so.
        channel.map_or(0, |channel| channel.bus_master.read(offset % BUS_MASTER_CHANNEL_PORTS, width))
    }

    /// Writes the bus master's 16 ports.
    pub fn write_bus_master(&mut self, mem: &mut Memory, offset: u16, width: Width, value: u32) {
        if let Some(channel) = self.channel((offset / BUS_MASTER_CHANNEL_PORTS) as u8) {
            channel.write_bus_master(mem, offset % BUS_MASTER_CHANNEL_PORTS, width, value);
        }
    }

    /// Data that drives wait for may have come from their media.
    pub fn media_arrived(&mut self, mem: &mut Memory) {
        self.channels.iter_mut().flatten().for_each(|channel| channel.media_arrived(mem));
        // It was no instruction that has asked again.
        self.take_asked();
    }

    /// A drive waits for data from its medium.
    pub fn waits(&self) -> bool {
        self.drives().any(Drive::waits)
    }

    /// Whether a drive has asked its medium for data since the last call, which may have been there at once.
    pub fn take_asked(&mut self) -> bool {
        let drives = self.channels.iter_mut().flatten().flat_map(|channel| &mut channel.drives);
        drives.fold(false, |asked, drive| asked | std::mem::take(&mut drive.asked))
    }

    /// Changes the disc in the CD-ROM drive, or takes it out; a command that waits for it fails.
    pub fn change_disc(&mut self, mem: &mut Memory, disc: Option<Medium>) -> Result<(), DiscError> {
        let mut drives = self.channels.iter_mut().flatten().flat_map(|channel| &mut channel.drives);
        let drive = drives.find(|drive| drive.kind == Kind::Cdrom).ok_or(DiscError::NoDrive)?;
        drive.change_disc(disc)?;
        self.media_arrived(mem);
        Ok(())
    }

    fn drives(&self) -> impl Iterator<Item = &Drive> {
        self.channels.iter().flatten().flat_map(|channel| &channel.drives)
    }

    /// The level of a channel's interrupt line.
    pub fn irq(&self, channel: usize) -> bool {
        self.channels.get(channel).and_then(Option::as_ref).is_some_and(Channel::irq)
    }

    /// Whether a channel's interrupt line has fallen and risen again since the last call.
    pub fn take_pulse(&mut self, channel: usize) -> bool {
        self.channels.get_mut(channel).and_then(Option::as_mut).is_some_and(Channel::take_pulse)
    }
}

impl Function for Ide {
    fn devfn(&self) -> u8 {
        DEVFN
    }

    fn config_space(&self) -> ConfigSpace {
        /// IDE; both channels at their old ports; bus master.
        const CLASS: u32 = 0x01_0180;
        /// Fast back-to-back, medium decode, and a master abort that v86's shows.
        const STATUS_BYTES: [u8; 2] = [0xa0, 0x02];
        const BUS_MASTER_PORT: u16 = 0xb400;
        let mut space = ConfigSpace::new(0x8086, 0x7010, CLASS, 0)
            .with_subsystem(0x1043, 0x82d4)
            .with_command(COMMAND_IO | COMMAND_MASTER)
            .with_bytes(crate::pci::STATUS, &STATUS_BYTES)
            .with_interrupt(1, 0)
            .with_writable(TIMING, &[0xff; TIMING_BYTES])
            .with_io_bar(BUS_MASTER_BAR, BUS_MASTER_PORT, BUS_MASTER_PORTS);
        for (number, channel) in self.channels.iter().enumerate() {
            if channel.is_some() {
                space = space
                    .with_io_bar(2 * number, COMMAND_PORTS[number], COMMAND_PORT_COUNT)
                    .with_io_bar(2 * number + 1, CONTROL_PORTS[number] & !3, 4)
                    // Shown as v86 shows it, although it is not at a multiple of its size.
                    .with_bytes(bar_register(2 * number + 1), &(CONTROL_PORTS[number] | 1).to_le_bytes());
            }
        }
        space
    }
}

/// Where a base address is in the configuration space.
const fn bar_register(index: usize) -> u8 {
    crate::pci::BASE_ADDRESS_0 + 4 * index as u8
}
