//! A drive that was saved while its data were on their way. A state has the registers and the data, and
//! from them follows what was going on; v86 has it so.

use super::ata::{self, How};
use super::atapi::{self, PACKET_SIZE};
use super::drive::{BSY, DRQ, Drive, ERR, MAX_TRANSFER, Phase, SECTOR, Transfer};

/// The data as a state has them.
#[derive(Clone, Copy, Debug)]
pub struct SavedTransfer<'a> {
    /// The drive's buffer.
    pub buffer: &'a [u8],
    /// Bytes of it that are data.
    pub length: usize,
    /// Bytes that have been moved.
    pub pointer: usize,
    /// Where the DRQ block ends.
    pub end: usize,
    /// Where on the medium the data go that are written, in bytes.
    pub start: u64,
}

impl Drive {
    /// Takes over a saved transfer once the registers are there; or says what is wrong with it.
    /// `sectors` are the hard disk's.
    pub fn take_transfer(&mut self, saved: SavedTransfer, sectors: u64) -> Result<(), String> {
        self.transfer = Transfer::default();
        let Some((phase, block)) = self.phase()? else {
            if self.registers.status & BSY == 0 {
                // v86's CD-ROM drive shows it without data where a disc was put in or taken out.
                self.registers.status &= !DRQ;
            }
            return Ok(());
        };
        let packet = phase == Phase::Packet;
        if phase == Phase::DmaOut || phase == Phase::DmaIn && self.command != Some(atapi::PACKET) {
            // It has not begun: `complete_resume` starts it again.
            return Ok(());
        }
        let SavedTransfer { buffer, length, pointer, end, start } = saved;
        let (length, end) = if packet { (PACKET_SIZE, PACKET_SIZE) } else { (length, end) };
        let data = buffer.get(..length).filter(|_| length <= MAX_TRANSFER);
        let Some(data) = data.filter(|_| pointer < end && end <= length) else {
            return Err(format!("has moved {pointer} of {end} bytes of a block, and has {length} in all"));
        };
        let behind = start.checked_add(length as u64);
        let whole = start.is_multiple_of(SECTOR) && (length as u64).is_multiple_of(SECTOR);
        if phase == Phase::PioOut && !(whole && behind.is_some_and(|end| end <= sectors * SECTOR)) {
            return Err(format!("writes {length} bytes at {start} of a disk of {sectors} sectors"));
        }
        self.transfer =
            Transfer { phase, data: data.to_vec(), pointer, end, block, start, ..Transfer::default() };
        Ok(())
    }

    /// What was going on, and the bytes in a DRQ block.
    fn phase(&self) -> Result<Option<(Phase, usize)>, String> {
        let r = &self.registers;
        let busy = r.status & BSY != 0;
        if !busy && r.status & (DRQ | ERR) != DRQ {
            return Ok(None);
        }
        let access = self.command.and_then(ata::access);
        Ok(match (self.command, access) {
            // It waits for its image; the packet is still there.
            (Some(atapi::PACKET), _) if busy => Some((Phase::Packet, PACKET_SIZE)),
            _ if busy => None,
            (Some(atapi::PACKET), _) if r.sector_count & atapi::REASON == atapi::REASON_COMMAND => {
                Some((Phase::Packet, PACKET_SIZE))
            }
            (Some(atapi::PACKET), _) if r.features & atapi::FEATURE_DMA != 0 => Some((Phase::DmaIn, 0)),
            (Some(atapi::PACKET), _) => Some((Phase::PioIn, self.packet_block())),
            (Some(ata::IDENTIFY_DEVICE | atapi::IDENTIFY_PACKET_DEVICE), _) => {
                Some((Phase::PioIn, SECTOR as usize))
            }
            (_, Some(access)) => match (access.how, access.write) {
                (How::Verify, _) => None,
                (How::Dma, true) => Some((Phase::DmaOut, 0)),
                (How::Dma, false) => Some((Phase::DmaIn, 0)),
                (how, true) => Some((Phase::PioOut, self.drq_block(how))),
                (how, false) => Some((Phase::PioIn, self.drq_block(how))),
            },
            (command, None) => {
                return Err(format!("has data to move for the command {command:02x?}, which moves none"));
            }
        })
    }

    /// Once the medium is there: starts again what had been started and not begun, because v86 was
    /// waiting for its image, or the bus master for the guest.
    pub fn complete_resume(&mut self) {
        let status = self.registers.status;
        let waits = status & (BSY | DRQ) != 0;
        match (self.command.and_then(ata::access), self.transfer.phase) {
            (Some(access), Phase::Idle) if waits && (access.how == How::Dma || !access.write) => {
                self.begin(access);
            }
            (None, Phase::Packet) if status & BSY != 0 => self.packet_command(),
            _ => {}
        }
    }
}
