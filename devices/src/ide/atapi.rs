//! A CD-ROM drive behind the PACKET command: how packets and their answers move, and what can go wrong
//! with them (ATA/ATAPI-6, 9.8 and 9.9; SFF-8020i; SPC-2 for sense data).

use super::drive::{ABRT, CD_SECTOR, DRQ, Drive, ERR, Kind, Phase, READY, SECTOR, Transfer};
use super::medium::Medium;
use super::{ata, packet};
use std::task::{Poll, ready};
use thiserror::Error;

/// DEVICE RESET.
pub(super) const DEVICE_RESET: u8 = 0x08;
const READ_SECTORS: u8 = 0x20;
/// PACKET.
pub const PACKET: u8 = 0xa0;
pub(super) const IDENTIFY_PACKET_DEVICE: u8 = 0xa1;
const IDLE_IMMEDIATE: u8 = 0xe1;
const STANDBY_IMMEDIATE: u8 = 0xe0;
const CHECK_POWER_MODE: u8 = 0xe5;
const SLEEP: u8 = 0xe6;
const FLUSH_CACHE: u8 = 0xe7;

/// Bytes of a packet.
pub const PACKET_SIZE: usize = 12;
/// Features: the data of the packet command move by DMA.
pub(super) const FEATURE_DMA: u16 = 0x01;

// Interrupt Reason (SFF-8020i, 5.5).
pub(super) const REASON: u16 = 0x07;
/// The data port takes a packet; else data, or there is nothing.
pub(super) const REASON_COMMAND: u16 = 0x01;
/// From the drive to the host.
const REASON_TO_HOST: u16 = 0x02;
/// The command is done.
const REASON_DONE: u16 = REASON_TO_HOST | REASON_COMMAND;
/// The most bytes in a DRQ block: Byte Count is even.
const MAX_BLOCK: usize = 0xfffe;
/// The sense key's place in the Error register.
const ERROR_KEY_SHIFT: u8 = 4;

/// Sense data: why a packet command has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub code: u8,
    /// Additional sense code qualifier.
    pub qualifier: u8,
}

impl Sense {
    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self { key, code, qualifier }
    }

    /// There is no disc, and the tray is closed.
    pub const NO_DISC: Self = Self::new(2, 0x3a, 0x01);
    /// There is no disc, because the tray is open.
    pub const TRAY_OPEN: Self = Self::new(2, 0x3a, 0x02);
    /// The disc cannot be read.
    pub const UNREADABLE: Self = Self::new(3, 0x11, 0x00);
    /// No such packet command.
    pub const NO_COMMAND: Self = Self::new(5, 0x20, 0x00);
    /// No such sector.
    pub const NO_SECTOR: Self = Self::new(5, 0x21, 0x00);
    /// A field of the packet asks for what is not there.
    pub const NO_FIELD: Self = Self::new(5, 0x24, 0x00);
    /// Pages are not kept.
    pub const NOT_SAVED: Self = Self::new(5, 0x39, 0x00);
    /// The host has locked the tray.
    pub const LOCKED: Self = Self::new(5, 0x53, 0x02);
    /// There may be another disc.
    pub const DISC_CHANGED: Self = Self::new(6, 0x28, 0x00);
}

/// What only a CD-ROM drive has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tray {
    /// The packet command last executed.
    pub packet: Option<u8>,
    /// Why the last packet command failed, until the host asks.
    pub sense: Sense,
    /// The tray is open, with whatever is in it.
    pub open: bool,
    /// The host has locked it.
    pub locked: bool,
    /// The host has not been told yet that there may be another disc.
    pub changed: bool,
    /// What GET EVENT STATUS NOTIFICATION tells next: 0 for nothing.
    pub event: u8,
}

/// Why a disc cannot be changed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DiscError {
    /// There is no CD-ROM drive at that place.
    #[error("There is no CD-ROM drive")]
    NoDrive,
    /// The guest holds the disc: it has been told that the button was pressed.
    #[error("The guest has locked the drive; let it unmount the disc first")]
    Locked,
}

impl Drive {
    /// Does what a person does with the button: takes out what is in the drive, puts in another disc or
    /// none, and closes the tray. The host is told as it is by a real drive: by a unit attention for a
    /// disc, by an event for its removal, and by an event for a button that it has locked.
    pub fn change_disc(&mut self, disc: Option<Medium>) -> Result<(), DiscError> {
        if self.kind != Kind::Cdrom {
            return Err(DiscError::NoDrive);
        }
        let tray = &mut self.tray;
        if tray.locked {
            tray.event = packet::EVENT_EJECT_REQUEST;
            return Err(DiscError::Locked);
        }
        let removed = self.medium.is_some();
        (tray.open, tray.changed) = (false, disc.is_some());
        tray.event = match disc {
            Some(_) => packet::EVENT_NEW_MEDIUM,
            None if removed => packet::EVENT_REMOVAL,
            None => tray.event,
        };
        self.medium = disc;
        Ok(())
    }

    /// An ATA command to a CD-ROM drive.
    pub(super) fn atapi_command(&mut self, command: u8) {
        match command {
            PACKET => self.await_packet(),
            IDENTIFY_PACKET_DEVICE => self.give(self.identify_cdrom(), SECTOR as usize),
            // It interrupts nobody, unlike all others (ATA/ATAPI-6, 8.9).
            DEVICE_RESET => {
                let device = self.registers.device;
                self.sign();
                self.registers.device = device;
            }
            // How drivers tell the kinds apart (8.15.5, 8.36.5).
            ata::IDENTIFY_DEVICE | READ_SECTORS => {
                self.sign_kind();
                self.fail(ABRT);
            }
            ata::SET_FEATURES => self.set_features(),
            CHECK_POWER_MODE => self.tell_power(),
            IDLE_IMMEDIATE | STANDBY_IMMEDIATE | SLEEP | FLUSH_CACHE => self.succeed(),
            _ => self.fail(ABRT),
        }
    }

    fn reason(&mut self, reason: u16) {
        self.registers.sector_count = self.registers.sector_count & !REASON | reason;
    }

    fn await_packet(&mut self) {
        let data = vec![0; PACKET_SIZE];
        let (end, block) = (PACKET_SIZE, PACKET_SIZE);
        self.transfer = Transfer { phase: Phase::Packet, data, end, block, ..Transfer::default() };
        self.registers.status = READY | DRQ;
        self.reason(REASON_COMMAND);
    }

    /// The host has written a packet.
    pub(super) fn packet_command(&mut self) {
        let mut bytes = [0; PACKET_SIZE];
        bytes.iter_mut().zip(&self.transfer.data).for_each(|(to, from)| *to = *from);
        self.transfer = Transfer::default();
        self.tray.packet = Some(bytes[0]);
        tracing::trace!(target: "ide", packet = ?bytes, "packet");
        self.asked = true;
        match packet::execute(self, &bytes) {
            Poll::Pending => self.wait(&bytes),
            Poll::Ready(Ok(data)) => {
                if bytes[0] != packet::REQUEST_SENSE {
                    self.tray.sense = Sense::default();
                }
                self.answer(data);
            }
            Poll::Ready(Err(sense)) => self.check_condition(sense),
        }
    }

    /// Gives the answer to a packet command, as the host wants to have it.
    fn answer(&mut self, data: Vec<u8>) {
        if data.is_empty() {
            return self.packet_done();
        }
        if self.registers.features & FEATURE_DMA != 0 {
            self.give_by_dma(data);
            return self.reason(REASON_TO_HOST);
        }
        let block = self.packet_block();
        // An odd count is right for the last block only.
        let block = if block < data.len() { (block & !1).max(2) } else { block };
        self.give(data, block);
        self.announce_block();
    }

    /// Bytes that the host wants in a DRQ block at most.
    pub(super) fn packet_block(&self) -> usize {
        let asked = self.registers.lba_mid & 0xff | self.registers.lba_high << 8;
        match usize::from(asked) {
            0 => MAX_BLOCK,
            asked => asked.min(MAX_BLOCK),
        }
    }

    /// Tells the host how many bytes it finds at the data port.
    pub(super) fn announce_block(&mut self) {
        let [low, high] = ((self.transfer.end - self.transfer.pointer) as u16).to_le_bytes();
        (self.registers.lba_mid, self.registers.lba_high) = (low.into(), high.into());
        self.reason(REASON_TO_HOST);
    }

    /// A packet command is done.
    pub(super) fn packet_done(&mut self) {
        self.succeed();
        self.reason(REASON_DONE);
    }

    fn check_condition(&mut self, sense: Sense) {
        tracing::debug!(target: "ide", ?sense, packet = ?self.tray.packet, "check condition");
        self.fail(sense.key << ERROR_KEY_SHIFT);
        debug_assert_ne!(self.registers.status & ERR, 0);
        self.reason(REASON_DONE);
        self.tray.sense = sense;
    }

    /// Sectors of the disc, or why there is none.
    pub(super) fn disc(&self) -> Result<u64, Sense> {
        match &self.medium {
            _ if self.tray.open => Err(Sense::TRAY_OPEN),
            None => Err(Sense::NO_DISC),
            Some(medium) => Ok(medium.sectors(CD_SECTOR)),
        }
    }

    /// Sectors of the disc.
    pub(super) fn read_disc(&self, lba: u32, count: u32) -> Poll<Result<Vec<u8>, Sense>> {
        /// As for a hard disk. Hosts read less at once: their buffers are not as large.
        const MAX_SECTORS: u64 = super::drive::MAX_TRANSFER as u64 / CD_SECTOR;
        let sectors = self.disc()?;
        let (lba, count) = (u64::from(lba), u64::from(count));
        if lba + count > sectors {
            return Poll::Ready(Err(Sense::NO_SECTOR));
        }
        if count > MAX_SECTORS {
            return Poll::Ready(Err(Sense::NO_FIELD));
        }
        let mut data = vec![0; (count * CD_SECTOR) as usize];
        if let Some(medium) = &self.medium {
            ready!(medium.read(lba * CD_SECTOR, &mut data)).map_err(|error| {
                tracing::warn!(target: "ide", %error, lba, "sectors cannot be read");
                Sense::UNREADABLE
            })?;
        }
        Poll::Ready(Ok(data))
    }
}
