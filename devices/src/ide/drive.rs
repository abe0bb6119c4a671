//! What hard disks and CD-ROM drives have in common: the command block and the data port.

use super::atapi::Tray;
use super::medium::Medium;
use super::{ata, atapi};
use crate::rtc::DiskGeometry;
use env86_emu::Width;

/// Bytes in a hard disk's sector.
pub const SECTOR: u64 = 512;
/// Bytes in a CD-ROM's.
pub const CD_SECTOR: u64 = 2048;
/// The most bytes that one command moves: 65536 sectors of a hard disk.
pub const MAX_TRANSFER: usize = 65_536 * SECTOR as usize;

// The Status register (ATA/ATAPI-6, 7.15).
/// An error stands in the Error register; for packet commands CHK.
pub const ERR: u8 = 0x01;
/// The data port, or the bus master, has data to move.
pub const DRQ: u8 = 0x08;
/// The heads are in place, or a command has been served.
pub const DSC: u8 = 0x10;
/// The drive takes commands.
pub const DRDY: u8 = 0x40;
/// The drive has the command block for itself.
pub const BSY: u8 = 0x80;
/// A drive that waits for a command.
pub const READY: u8 = DRDY | DSC;

// The Error register (7.9).
/// The command is not one of the drive's, or its parameters are not.
pub const ABRT: u8 = 0x04;
/// There is no such sector.
pub const IDNF: u8 = 0x10;
/// The sector cannot be read.
pub const UNC: u8 = 0x40;

/// What a drive is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// No drive at the end of the cable.
    #[default]
    Absent,
    /// An ATA hard disk.
    Disk,
    /// An ATAPI CD-ROM drive.
    Cdrom,
}

/// The command block. Each register of 16 bits holds the byte written last and above it the one
/// before that, which is how 48-bit addresses come (ATA/ATAPI-6, 6.20).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Features.
    pub features: u16,
    /// Sector Count; of packet commands the Interrupt Reason.
    pub sector_count: u16,
    /// LBA Low, or Sector Number.
    pub lba_low: u16,
    /// LBA Mid, or Cylinder Low; of packet commands the low byte of Byte Count.
    pub lba_mid: u16,
    /// LBA High, or Cylinder High; of packet commands the high byte of Byte Count.
    pub lba_high: u16,
    /// Device.
    pub device: u8,
    /// Error.
    pub error: u8,
    /// Status.
    pub status: u8,
}

/// What the drive does with its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// They are on their way from the medium, and the drive is busy. Of a packet command, the packet is
    /// in the buffer.
    Waiting,
    /// The host reads them from the data port.
    PioIn,
    /// The host writes them to the data port.
    PioOut,
    /// The host writes a packet to the data port.
    Packet,
    /// The bus master takes them.
    DmaIn,
    /// The bus master brings them.
    DmaOut,
}

/// The data of a command on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Where they go.
    pub phase: Phase,
    /// All of them.
    pub data: Vec<u8>,
    /// Bytes that have been moved.
    pub pointer: usize,
    /// Where the DRQ block ends that is being moved.
    pub end: usize,
    /// Bytes in a DRQ block.
    pub block: usize,
    /// Where on the medium the data go that are written, in bytes.
    pub start: u64,
    /// Bytes that are on the medium already.
    pub committed: usize,
}

/// A drive, or the place of one.
#[derive(Clone, Debug)]
pub struct Drive {
    /// What it is.
    pub kind: Kind,
    /// Channel and unit, which its serial number tells.
    pub place: (u8, u8),
    /// What is in it; always something in a hard disk.
    pub medium: Option<Medium>,
    /// The command block.
    pub registers: Registers,
    /// The command last written.
    pub command: Option<u8>,
    /// Its data.
    pub transfer: Transfer,
    /// The drive wants to interrupt the host.
    pub interrupt: bool,
    /// The geometry that it was made with (hard disk).
    pub native: DiskGeometry,
    /// The geometry that it addresses sectors by (hard disk).
    pub geometry: DiskGeometry,
    /// Sectors in a DRQ block of READ and WRITE MULTIPLE, 0 for v86's default (hard disk).
    pub multiple: u8,
    /// The transfer mode that the host has set: no effect but in IDENTIFY DEVICE.
    pub transfer_mode: u8,
    /// What only a CD-ROM drive has.
    pub tray: Tray,
    /// It has asked its medium for data.
    pub asked: bool,
    /// Room for the data of the next command.
    room: Room,
}

/// Room for data, which nobody has to clear: all are put there before they count. What is in it is no part of a drive's state.
#[derive(Clone, Default)]
struct Room(Vec<u8>);

/// No more room than this is kept, in bytes.
const MAX_ROOM: usize = 1 << 20;

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Room")
    }
}

impl Drive {
    /// The place of a drive, without one.
    pub fn absent() -> Self {
        let geometry = DiskGeometry { cylinders: 0, heads: 0, sectors: 0, translation: 0 };
        Self {
            kind: Kind::Absent,
            place: (0, 0),
            medium: None,
            registers: Registers { status: READY, ..Registers::default() },
            command: None,
            transfer: Transfer::default(),
            interrupt: false,
            native: geometry,
            geometry,
            multiple: 0,
            transfer_mode: ata::MULTIWORD_DMA_2,
            tray: Tray::default(),
            asked: false,
            room: Room::default(),
        }
    }

    /// A hard disk after power-on.
    pub fn disk(medium: Medium) -> Self {
        let native = ata::native_geometry(&medium);
        let medium = Some(medium);
        Self { kind: Kind::Disk, medium, native, geometry: native, ..Self::absent() }
    }

    /// A CD-ROM drive after power-on, with a medium or without.
    pub fn cdrom(medium: Option<Medium>) -> Self {
        Self { kind: Kind::Cdrom, medium, ..Self::absent() }
    }

    /// The drive's sectors: of the disk, or of the disc in the closed tray.
    pub fn sectors(&self) -> u64 {
        match (self.kind, &self.medium) {
            (Kind::Disk, Some(medium)) => medium.sectors(SECTOR),
            (Kind::Cdrom, Some(medium)) if !self.tray.open => medium.sectors(CD_SECTOR),
            _ => 0,
        }
    }

    /// The hard reset of the board: all but the medium is as after power-on.
    pub fn power_on(&mut self) {
        *self = match (self.kind, self.medium.take()) {
            (Kind::Disk, Some(medium)) => Self::disk(medium),
            (Kind::Cdrom, medium) => {
                let tray = Tray { open: self.tray.open, ..Tray::default() };
                Self { tray, ..Self::cdrom(medium) }
            }
            _ => Self::absent(),
        };
    }

    /// What a drive shows after a reset of whatever kind: that it is well, and what it is
    /// (ATA/ATAPI-6, 9.12).
    pub fn sign(&mut self) {
        self.transfer = Transfer::default();
        self.command = None;
        self.interrupt = false;
        let r = &mut self.registers;
        (r.error, r.sector_count, r.lba_low) = (1, 1, 1);
        r.device = 0;
        r.status = if self.kind == Kind::Cdrom { 0 } else { READY };
        self.sign_kind();
    }

    /// What tells an ATAPI drive from a hard disk.
    pub fn sign_kind(&mut self) {
        let (mid, high) = if self.kind == Kind::Cdrom { (0x14, 0xeb) } else { (0, 0) };
        (self.registers.lba_mid, self.registers.lba_high) = (mid, high);
    }

    /// A byte of the command block written by the host; the one before it moves up. A busy drive takes
    /// none (ATA/ATAPI-6, 7.15.6.1).
    pub fn write_register(&mut self, offset: u16, value: u8) {
        if self.waits() {
            return;
        }
        let r = &mut self.registers;
        let register = match offset {
            super::FEATURES => &mut r.features,
            super::SECTOR_COUNT => &mut r.sector_count,
            super::LBA_LOW => &mut r.lba_low,
            super::LBA_MID => &mut r.lba_mid,
            super::LBA_HIGH => &mut r.lba_high,
            super::DEVICE => return r.device = value,
            _ => return,
        };
        *register = *register << 8 | u16::from(value);
    }

    /// A byte of the command block; `previous` asks for the one below the last (HOB).
    pub fn read_register(&self, offset: u16, previous: bool) -> u8 {
        let r = &self.registers;
        let register = match offset {
            super::ERROR => return r.error,
            super::SECTOR_COUNT => r.sector_count,
            super::LBA_LOW => r.lba_low,
            super::LBA_MID => r.lba_mid,
            super::LBA_HIGH => r.lba_high,
            super::DEVICE => return r.device,
            _ => return r.status,
        };
        register.to_le_bytes()[usize::from(previous)]
    }

    /// The medium has been asked for data that have not come yet.
    pub fn waits(&self) -> bool {
        self.transfer.phase == Phase::Waiting
    }

    /// Waits for the medium; of a packet command, with its packet.
    pub fn wait(&mut self, packet: &[u8]) {
        let (data, end) = (packet.to_vec(), packet.len());
        self.transfer = Transfer { phase: Phase::Waiting, data, end, ..Transfer::default() };
        self.registers.status = READY | BSY;
    }

    /// Asks the medium again for what it is waited for: the command starts anew.
    pub fn retry(&mut self) {
        match self.command {
            _ if !self.waits() => {}
            Some(atapi::PACKET) => self.packet_command(),
            command => {
                if let Some(access) = command.and_then(ata::access) {
                    self.begin(access);
                }
            }
        }
    }

    /// Starts a command. A drive that is busy takes none but DEVICE RESET, which is an ATAPI drive's
    /// (ATA/ATAPI-6, 9.11).
    pub fn start(&mut self, command: u8) {
        if self.waits() && (self.kind, command) != (Kind::Cdrom, atapi::DEVICE_RESET) {
            return;
        }
        self.transfer = Transfer::default();
        self.command = Some(command);
        self.registers.error = 0;
        tracing::trace!(target: "ide", command, registers = ?self.registers, "command");
        match self.kind {
            Kind::Absent => {}
            Kind::Disk => self.ata_command(command),
            Kind::Cdrom => self.atapi_command(command),
        }
    }

    /// Room for the data of a command, with anything in it.
    pub fn room(&mut self, bytes: usize) -> Vec<u8> {
        let Room(mut room) = std::mem::take(&mut self.room);
        room.resize(bytes, 0);
        room
    }

    /// The data of a command are not wanted any more.
    fn end_transfer(&mut self) {
        let Transfer { data, .. } = std::mem::take(&mut self.transfer);
        if (self.room.0.capacity()..=MAX_ROOM).contains(&data.capacity()) {
            self.room = Room(data);
        }
    }

    /// The command is done, and the host is told.
    pub fn succeed(&mut self) {
        self.end_transfer();
        self.registers.status = READY;
        self.interrupt = true;
    }

    /// The command has failed, and the host is told.
    pub fn fail(&mut self, error: u8) {
        self.end_transfer();
        self.registers.status = READY | ERR;
        self.registers.error = error;
        self.interrupt = true;
    }

    /// Gives data to the host through the data port, in DRQ blocks.
    pub fn give(&mut self, data: Vec<u8>, block: usize) {
        let end = block.min(data.len());
        self.transfer = Transfer { phase: Phase::PioIn, data, end, block, ..Transfer::default() };
        self.registers.status = READY | DRQ;
        self.interrupt = true;
    }

    /// Waits for the bus master to take data.
    pub fn give_by_dma(&mut self, data: Vec<u8>) {
        let end = data.len();
        self.transfer = Transfer { phase: Phase::DmaIn, data, end, ..Transfer::default() };
        self.registers.status = READY | DRQ;
    }

    /// The host reads the data port. Without data there are zeros.
    pub fn read_data(&mut self, width: Width) -> u32 {
        let t = &mut self.transfer;
        if t.phase != Phase::PioIn {
            return 0;
        }
        let mut bytes = [0; 4];
        let from = t.data.get(t.pointer..t.end).unwrap_or_default();
        let n = from.len().min(width.bytes() as usize);
        bytes[..n].copy_from_slice(&from[..n]);
        t.pointer += n;
        if t.pointer >= t.end {
            self.block_read();
        }
        u32::from_le_bytes(bytes)
    }

    /// The host has read a DRQ block.
    fn block_read(&mut self) {
        let t = &mut self.transfer;
        let packet = self.command == Some(atapi::PACKET);
        if t.end < t.data.len() {
            t.end = t.end.saturating_add(t.block.max(1)).min(t.data.len());
            self.interrupt = true;
            if packet {
                self.announce_block();
            }
        } else if packet {
            self.packet_done();
        } else {
            self.end_transfer();
            self.registers.status = READY;
        }
    }

    /// The host writes the data port. Nothing comes of it without a command that takes data.
    pub fn write_data(&mut self, width: Width, value: u32) {
        let t = &mut self.transfer;
        if !matches!(t.phase, Phase::PioOut | Phase::Packet) {
            return;
        }
        let to = t.data.get_mut(t.pointer..t.end).unwrap_or_default();
        let n = to.len().min(width.bytes() as usize);
        to[..n].copy_from_slice(&value.to_le_bytes()[..n]);
        t.pointer += n;
        if t.pointer < t.end {
            return;
        }
        if t.phase == Phase::Packet {
            return self.packet_command();
        }
        if !self.commit() {
            return self.fail(ABRT);
        }
        let t = &mut self.transfer;
        if t.end < t.data.len() {
            t.end = t.end.saturating_add(t.block.max(1)).min(t.data.len());
            self.interrupt = true;
        } else {
            self.succeed();
        }
    }

    /// Puts on the medium what has come of the data; says whether that could be done.
    fn commit(&mut self) -> bool {
        let t = &mut self.transfer;
        if let (Some(medium), Some(data)) = (&mut self.medium, t.data.get(t.committed..t.pointer)) {
            let start = t.start.saturating_add(t.committed as u64);
            if let Err(error) = medium.write(start, data) {
                tracing::warn!(target: "ide", %error, lba = start / SECTOR, "sectors cannot be written");
                return false;
            }
            t.committed = t.pointer;
        }
        true
    }

    /// What the bus master may move now, if it may: the rest of the data, and whether they go to memory.
    pub fn dma(&mut self) -> Option<(&mut [u8], bool)> {
        let t = &mut self.transfer;
        let to_memory = match t.phase {
            Phase::DmaIn => true,
            Phase::DmaOut => false,
            _ => return None,
        };
        Some((t.data.get_mut(t.pointer..).unwrap_or_default(), to_memory))
    }

    /// The bus master has moved so many bytes. Says whether those were all.
    pub fn moved(&mut self, bytes: usize) -> bool {
        let t = &mut self.transfer;
        t.pointer = t.pointer.saturating_add(bytes).min(t.data.len());
        if t.pointer < t.data.len() {
            return false;
        }
        if t.phase == Phase::DmaOut && !self.commit() {
            self.fail(ABRT);
        } else if self.command == Some(atapi::PACKET) {
            self.packet_done()
        } else {
            self.succeed()
        }
        true
    }
}
