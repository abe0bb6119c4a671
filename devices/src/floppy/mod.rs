//! The floppy disk controller (Intel 82077AA, as a PC/AT has it) and its two drives.
//!
//! A command comes byte by byte through the FIFO, is executed, and leaves its result there. What takes a
//! drive time takes a little here too: drivers are written for an interrupt that comes after they have
//! begun to wait for it. Sectors go over channel 2 of the ISA DMA controller or, where the driver has
//! chosen so with SPECIFY, byte by byte through the FIFO.
//!
//! Disks have sectors of 512 bytes with the usual numbers: there are no deleted sectors, and no others.
//!
//! Sources: Intel 82077AA datasheet (290166); 3F7h is shared with the disk channel as in a PC/AT.

mod command;
mod disk;
#[cfg(test)]
mod tests;
mod transfer;

use env86_emu::Memory;

use crate::dma::Dma;
use command::Command;

pub use disk::{Disk, DriveKind, FloppyError, Format, LARGEST, Rate, SECTOR};
pub use transfer::{Action, Transfer};

/// The first port.
pub const PORT_BASE: u16 = 0x3f0;
/// Ports from there on; 3F6h belongs to the disk channel.
pub const PORT_COUNT: u16 = 6;
/// The port of DIR and CCR.
pub const PORT_DIR: u16 = 0x3f7;
/// The interrupt line.
pub const IRQ: u8 = 6;
/// The DMA channel.
pub const DMA_CHANNEL: usize = 2;
/// Drives that are wired, of the four that the chip could have.
pub const DRIVES: usize = 2;

/// Status A (read).
const SRA: u16 = PORT_BASE;
/// Status B (read).
const SRB: u16 = PORT_BASE + 1;
/// Digital output.
const DOR: u16 = PORT_BASE + 2;
/// Tape drive.
const TDR: u16 = PORT_BASE + 3;
/// Main status (read).
const MSR: u16 = PORT_BASE + 4;
/// Data rate select (write).
const DSR: u16 = PORT_BASE + 4;
/// Data.
const FIFO: u16 = PORT_BASE + 5;
/// Digital input (read).
const DIR: u16 = PORT_DIR;
/// Configuration control (write).
const CCR: u16 = PORT_DIR;

const SRA_INTERRUPT: u8 = 0x80;
const SRA_NOT_TRACK0: u8 = 0x10;
const SRA_HEAD: u8 = 0x08;
const SRA_NOT_PROTECTED: u8 = 0x02;
const SRB_ONES: u8 = 0xc0;
const SRB_DRIVE: u8 = 0x20;
const DOR_DRIVE: u8 = 0x03;
/// Low holds the chip in reset.
const DOR_NOT_RESET: u8 = 0x04;
/// Lets interrupts and DMA requests out.
const DOR_GATE: u8 = 0x08;
const DOR_MOTOR: u8 = 0x10;
const MSR_REQUEST: u8 = 0x80;
const MSR_TO_HOST: u8 = 0x40;
const MSR_NO_DMA: u8 = 0x20;
const MSR_BUSY: u8 = 0x10;
const DSR_RESET: u8 = 0x80;
const RATE_BITS: u8 = 0x03;
const DIR_CHANGED: u8 = 0x80;
const TDR_BITS: u8 = 0x03;

/// ST0, interrupt code: the command ended abnormally.
const ST0_ABNORMAL: u8 = 0x40;
/// ST0, interrupt code: the command is none.
const ST0_INVALID: u8 = 0x80;
/// ST0, interrupt code: a drive's readiness changed, as after a reset.
const ST0_POLLED: u8 = 0xc0;
/// ST0: a seek or recalibration is over.
const ST0_SEEK_END: u8 = 0x20;
/// ST0: a recalibration did not find track 0.
const ST0_CHECK: u8 = 0x10;
/// ST0 and ST3: the head.
const ST_HEAD: u8 = 0x04;
const ST3_ONES: u8 = 0x28;
const ST3_PROTECTED: u8 = 0x40;
const ST3_TRACK0: u8 = 0x10;

/// CONFIGURE: seeks are implied by commands.
const CONFIGURE_IMPLIED_SEEK: u8 = 0x40;
/// CONFIGURE: no FIFO; a fact that only drivers see.
const CONFIGURE_NO_FIFO: u8 = 0x20;
/// CONFIGURE: drives are not polled, and a reset is not followed by their interrupts.
const CONFIGURE_NO_POLLING: u8 = 0x10;
/// The chip's own choice would be no implied seeks. Guests in the wild were tried on emulators that imply
/// them, and some never seek.
const CONFIGURE_AT_RESET: u8 = CONFIGURE_IMPLIED_SEEK | CONFIGURE_NO_FIFO;
/// SPECIFY: data go through the FIFO.
const SPECIFY_NO_DMA: u8 = 0x01;

/// Drives whose readiness a reset makes known, wired or not.
const POLLED_DRIVES: u8 = 4;

/// A step of the head, in nanoseconds: shorter than any real drive's.
const STEP_NS: u64 = 100_000;
/// What a seek takes beside its steps, a search for a sector that is not there, and a reset.
const SETTLE_NS: u64 = 500_000;
/// A sector under the head.
const SECTOR_NS: u64 = 50_000;
/// A request that the DMA controller does not serve is repeated after this time.
const RETRY_NS: u64 = 1_000_000;

/// A drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drive {
    /// What it is.
    pub kind: DriveKind,
    /// The track that the head is at.
    pub track: u8,
    /// The head that was used last.
    pub head: u8,
    /// The sector that was used last.
    pub sector: u8,
    /// Vertical recording was chosen (PERPENDICULAR MODE).
    pub perpendicular: bool,
    /// The disk has been changed since the head last stepped.
    pub changed: bool,
    /// A seek or a recalibration that is under way.
    pub seek: Option<Seek>,
    /// ST0 that SENSE INTERRUPT is to give: a seek is over.
    pub sense: Option<u8>,
    /// What is in it.
    pub disk: Option<Disk>,
}

/// A seek under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek {
    /// Where the head will be.
    pub track: u8,
    /// ST0 at its end.
    pub status: u8,
    /// When that is, in guest time.
    pub due: u64,
}

/// The kinds of the drives for these disks, as the setup memory has them: the first in the high nibble.
pub fn cmos(disks: &[Option<Disk>; DRIVES]) -> u8 {
    disks.iter().fold(0, |kinds, disk| kinds << 4 | Drive::kind_for(disk.as_ref()) as u8)
}

impl Drive {
    /// The drive that is made for a disk; the usual one for none.
    fn kind_for(disk: Option<&Disk>) -> DriveKind {
        disk.map_or_else(DriveKind::default, |disk| disk.format().drive)
    }

    fn new(disk: Option<Disk>) -> Self {
        Self { kind: Self::kind_for(disk.as_ref()), sector: 1, changed: true, disk, ..Self::default() }
    }

    /// The head has stepped, which is how a drive learns that there is a disk in it.
    fn stepped(&mut self) {
        if self.disk.is_some() {
            self.changed = false;
        }
    }
}

/// What the FIFO is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It takes a command.
    #[default]
    Command,
    /// A command is executed.
    Execution,
    /// It gives a result.
    Result,
}

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floppy {
    /// A and B.
    pub drives: [Drive; DRIVES],
    /// Digital output register.
    pub dor: u8,
    /// Tape drive register.
    pub tdr: u8,
    /// Data rate select register. Its rate is also that of CCR.
    pub dsr: u8,
    /// What the FIFO is for.
    pub phase: Phase,
    /// The bytes of the command, the first one being the command itself.
    pub command: [u8; COMMAND_BYTES],
    /// How many of them have come.
    pub command_len: u8,
    /// The result.
    pub result: [u8; RESULT_BYTES],
    /// Its length.
    pub result_len: u8,
    /// How many bytes of it have been read.
    pub result_read: u8,
    /// The interrupt line's level, behind which the gate is.
    pub interrupt: bool,
    /// ST0 of the last command.
    pub st0: u8,
    /// Interrupts of drives after a reset that SENSE INTERRUPT has still to give.
    pub polled: u8,
    /// When these come.
    pub poll_due: Option<u64>,
    /// The two bytes of SPECIFY.
    pub specify: [u8; 2],
    /// The second byte of CONFIGURE.
    pub configure: u8,
    /// The track from which on writes are precompensated.
    pub precompensation: u8,
    /// A reset leaves CONFIGURE's choices alone (LOCK).
    pub locked: bool,
    /// The last sector's number or the number of sectors of the last command that had one.
    pub end: u8,
    /// The command that moves data, while it is executed.
    pub transfer: Option<Transfer>,
}

/// Bytes of a command at most, and a few more, as v86's states have them.
pub const COMMAND_BYTES: usize = 17;
/// The same for results.
pub const RESULT_BYTES: usize = 15;

impl Default for Floppy {
    /// Two empty drives.
    fn default() -> Self {
        Self::new([None, None])
    }
}

impl Floppy {
    /// The controller with these disks, in drives that are made for them.
    pub fn new(disks: [Option<Disk>; DRIVES]) -> Self {
        Self {
            drives: disks.map(Drive::new),
            dor: DOR_NOT_RESET | DOR_GATE,
            tdr: 0,
            dsr: 0,
            phase: Phase::Command,
            command: [0; COMMAND_BYTES],
            command_len: 0,
            result: [0; RESULT_BYTES],
            result_len: 0,
            result_read: 0,
            interrupt: false,
            st0: 0,
            polled: 0,
            poll_due: None,
            specify: [0; 2],
            configure: CONFIGURE_AT_RESET,
            precompensation: 0,
            locked: false,
            end: 0,
            transfer: None,
        }
    }

    /// The board's reset. Disks and heads stay where they are.
    pub fn reset(&mut self) {
        let drives = self.drives.each_mut().map(|drive| Drive {
            kind: drive.kind,
            track: drive.track,
            changed: drive.changed,
            disk: drive.disk.take(),
            sector: 1,
            ..Drive::default()
        });
        *self = Self { drives, ..Self::default() };
    }

    /// Takes the disk out of a drive, and puts another one in or none. `None` if there is no such drive.
    pub fn change_disk(&mut self, drive: usize, disk: Option<Disk>) -> Option<()> {
        let drive = self.drives.get_mut(drive)?;
        drive.disk.iter().for_each(Disk::flush);
        drive.disk = disk;
        drive.changed = true;
        Some(())
    }

    /// Whether so many bytes of the command, itself included, can have come without its being complete.
    pub(crate) fn may_have(&self, len: u8) -> bool {
        usize::from(len) <= Command::of(self.command[0]).parameters()
    }

    /// Bytes of the command that have still to come.
    pub(crate) fn parameters_left(&self) -> u8 {
        let all = Command::of(self.command[0]).parameters() as u8 + 1;
        if self.command_len == 0 { 0 } else { all.saturating_sub(self.command_len) }
    }

    /// The level of the interrupt line.
    pub fn irq(&self) -> bool {
        self.interrupt && self.dor & DOR_GATE != 0
    }

    /// Reads a port.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        match port {
            SRA => self.status_a(),
            SRB => SRB_ONES | if self.selected() == 0 { SRB_DRIVE } else { 0 } | self.dor >> 4 & 3,
            DOR => self.dor,
            TDR => self.tdr,
            MSR => self.main_status(),
            FIFO => self.read_fifo(now),
            DIR if self.drives.get(self.selected()).is_some_and(|drive| drive.changed) => DIR_CHANGED,
            DIR => 0,
            _ => 0xff,
        }
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        match port {
            DOR => self.write_dor(value, now),
            TDR => self.tdr = value & TDR_BITS,
            DSR => {
                self.dsr = value & !DSR_RESET;
                if value & DSR_RESET != 0 && self.dor & DOR_NOT_RESET != 0 {
                    self.stop();
                    self.start(now);
                }
            }
            FIFO => self.write_fifo(value, now),
            CCR => self.dsr = self.dsr & !RATE_BITS | value & RATE_BITS,
            _ => {}
        }
    }

    /// The drive that DOR selects.
    fn selected(&self) -> usize {
        usize::from(self.dor & DOR_DRIVE)
    }

    fn status_a(&self) -> u8 {
        let mut status = if self.interrupt { SRA_INTERRUPT } else { 0 };
        if let Some(drive) = self.drives.get(self.selected()) {
            let protected = drive.disk.as_ref().is_some_and(|disk| disk.write_protected);
            status |= if drive.track != 0 { SRA_NOT_TRACK0 } else { 0 };
            status |= if drive.head != 0 { SRA_HEAD } else { 0 };
            status |= if protected { 0 } else { SRA_NOT_PROTECTED };
        }
        status
    }

    /// The main status register.
    pub(crate) fn main_status(&self) -> u8 {
        if self.dor & DOR_NOT_RESET == 0 || self.poll_due.is_some() {
            return 0;
        }
        let seeking = self.drives.iter().enumerate().filter(|(_, drive)| drive.seek.is_some());
        let seeking = seeking.fold(0, |bits, (number, _)| bits | 1 << number);
        seeking
            | match (self.phase, &self.transfer) {
                (Phase::Command, _) if self.command_len == 0 => MSR_REQUEST,
                (Phase::Command, _) => MSR_REQUEST | MSR_BUSY,
                (Phase::Result, _) => MSR_REQUEST | MSR_TO_HOST | MSR_BUSY,
                (Phase::Execution, Some(transfer)) if transfer.by_fifo => {
                    MSR_BUSY | MSR_NO_DMA | self.fifo_request().unwrap_or(0)
                }
                (Phase::Execution, _) => MSR_BUSY,
            }
    }

    /// The bits by which the chip asks for a byte of data through the FIFO.
    fn fifo_request(&self) -> Option<u8> {
        let transfer =
            self.transfer.as_ref().filter(|transfer| transfer.by_fifo && transfer.due.is_none())?;
        Some(MSR_REQUEST | if transfer.to_host() { MSR_TO_HOST } else { 0 })
    }

    fn write_dor(&mut self, value: u8, now: u64) {
        let rose = value & !self.dor;
        let fell = self.dor & !value;
        self.dor = value;
        for (number, drive) in self.drives.iter().enumerate() {
            if fell & DOR_MOTOR << number != 0 {
                drive.disk.iter().for_each(Disk::flush);
            }
        }
        if fell & DOR_NOT_RESET != 0 {
            self.stop();
        }
        if rose & DOR_NOT_RESET != 0 {
            self.start(now);
        }
    }

    /// A software reset begins: what was under way is not.
    fn stop(&mut self) {
        self.phase = Phase::Command;
        (self.command_len, self.result_len, self.result_read) = (0, 0, 0);
        (self.transfer, self.poll_due, self.polled) = (None, None, 0);
        self.interrupt = false;
        self.st0 = 0;
        for drive in &mut self.drives {
            (drive.seek, drive.sense) = (None, None);
        }
        if !self.locked {
            (self.configure, self.precompensation) = (CONFIGURE_AT_RESET, 0);
        }
    }

    /// A software reset ends: the chip polls its drives, and finds that all have become ready.
    fn start(&mut self, now: u64) {
        self.poll_due = Some(now + SETTLE_NS);
    }

    fn read_fifo(&mut self, now: u64) -> u8 {
        if self.dor & DOR_NOT_RESET == 0 {
            return 0xff;
        }
        match self.phase {
            Phase::Command => 0,
            Phase::Execution => self.take_data(now).unwrap_or(0xff),
            Phase::Result => {
                self.interrupt = false;
                let value = self.result.get(usize::from(self.result_read)).copied().unwrap_or(0);
                self.result_read += 1;
                if self.result_read >= self.result_len {
                    self.phase = Phase::Command;
                    (self.result_len, self.result_read) = (0, 0);
                }
                value
            }
        }
    }

    fn write_fifo(&mut self, value: u8, now: u64) {
        if self.dor & DOR_NOT_RESET == 0 || self.poll_due.is_some() {
            return;
        }
        match self.phase {
            Phase::Command => {
                let at = usize::from(self.command_len);
                self.command[at.min(COMMAND_BYTES - 1)] = value;
                self.command_len += 1;
                if at >= Command::of(self.command[0]).parameters() {
                    self.command_len = 0;
                    self.execute(now);
                }
            }
            Phase::Execution => self.give_data(value, now),
            // The chip does not listen while it has something to say.
            Phase::Result => {}
        }
    }

    /// When [`Self::poll`] is to be called next.
    pub fn next_event(&self) -> Option<u64> {
        let seeks = self.drives.iter().filter_map(|drive| drive.seek.map(|seek| seek.due));
        let transfer = self.transfer.as_ref().and_then(|transfer| transfer.due);
        seeks.chain(transfer).chain(self.poll_due).min()
    }

    /// Does what is due.
    pub fn poll(&mut self, mem: &mut Memory, dma: &mut Dma, now: u64) {
        if self.poll_due.is_some_and(|due| due <= now) {
            self.poll_due = None;
            if self.configure & CONFIGURE_NO_POLLING == 0 {
                self.polled = POLLED_DRIVES;
                self.interrupt = true;
            }
        }
        for drive in &mut self.drives {
            if let Some(seek) = drive.seek.take_if(|seek| seek.due <= now) {
                drive.track = seek.track;
                drive.sense = Some(seek.status);
                self.st0 = seek.status;
                self.interrupt = true;
            }
        }
        if self.transfer.as_ref().and_then(|transfer| transfer.due).is_some_and(|due| due <= now) {
            self.move_data(mem, dma, now);
        }
    }
}
