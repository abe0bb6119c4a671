//! The bus master of a channel: it moves a command's data to and from the guest's memory, along a table
//! of physical regions (82371SB, 2.7; Programming Interface for Bus Master IDE Controller 1.0).

use super::drive::Drive;
use env86_emu::{Memory, Width};

const COMMAND: u16 = 0;
const STATUS: u16 = 2;
const TABLE: u16 = 4;
const TABLE_LAST: u16 = 7;

/// Command: the transfer runs.
pub const START: u8 = 0x01;
/// Command: to memory. The drive's command says it, too, and is believed.
pub const TO_MEMORY: u8 = 0x08;
const COMMAND_WRITABLE: u8 = START | TO_MEMORY;

/// Status: the transfer has been started and has not come to the table's end.
pub const ACTIVE: u8 = 0x01;
/// Status: the host bus has failed. Here it never does.
const ERROR: u8 = 0x02;
/// Status: the drive has raised its interrupt.
pub const INTERRUPT: u8 = 0x04;
/// Status: the drives can do DMA. Software keeps notes here for itself.
const CAPABLE: u8 = 0x60;
const STATUS_CLEARED_BY_ONE: u8 = ERROR | INTERRUPT;

/// Regions in a table at most: it may not cross a boundary of 64 KiB.
const MAX_REGIONS: u32 = 8192;
const REGION_SIZE: u32 = 8;
const TABLE_BOUNDARY: u32 = 0xffff;
/// In a region's second word: the last one.
const END_OF_TABLE: u32 = 1 << 31;
/// Bytes of a region are even; 0 stands for the most.
const COUNT: u32 = 0xfffe;
const COUNT_MAX: u32 = 0x1_0000;

/// The registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusMaster {
    /// Command.
    pub command: u8,
    /// Status.
    pub status: u8,
    /// Address of the table.
    pub table: u32,
    /// It has been started and has not moved anything since.
    pub armed: bool,
}

impl BusMaster {
    /// Reads from the eight ports.
    pub fn read(&self, offset: u16, width: Width) -> u32 {
        let table = self.table.to_le_bytes();
        let byte = |offset: u16| match offset {
            COMMAND => self.command,
            STATUS => self.status,
            TABLE..=TABLE_LAST => table[usize::from(offset - TABLE)],
            _ => 0,
        };
        (0..width.bytes() as u16).rev().fold(0, |value, i| value << 8 | u32::from(byte(offset + i)))
    }

    /// Writes to the eight ports. The status goes first, so that what the command brings about is
    /// not cleared.
    pub fn write(&mut self, offset: u16, width: Width, value: u32) {
        let bytes = (offset..offset + width.bytes() as u16).zip(value.to_le_bytes());
        for (offset, byte) in bytes.rev() {
            match offset {
                COMMAND => self.write_command(byte),
                STATUS => {
                    let kept = self.status & !(byte & STATUS_CLEARED_BY_ONE);
                    self.status = kept & !CAPABLE | byte & CAPABLE;
                }
                TABLE..=TABLE_LAST => {
                    let mut table = self.table.to_le_bytes();
                    table[usize::from(offset - TABLE)] = byte;
                    self.table = u32::from_le_bytes(table) & !3;
                }
                _ => {}
            }
        }
    }

    fn write_command(&mut self, value: u8) {
        let changed = (self.command ^ value) & START != 0;
        self.command = value & COMMAND_WRITABLE;
        if changed && value & START != 0 {
            self.status |= ACTIVE;
            self.armed = true;
        } else if changed {
            self.status &= !ACTIVE;
            self.armed = false;
        }
    }

    /// Moves what the drive has or wants, if both are ready.
    pub fn run(&mut self, drive: &mut Drive, mem: &mut Memory) {
        if !self.armed || drive.dma().is_none() {
            return;
        }
        self.armed = false;
        for region in 0..MAX_REGIONS {
            let offset = self.table.wrapping_add(region * REGION_SIZE);
            let at = self.table & !TABLE_BOUNDARY | offset & TABLE_BOUNDARY;
            let (address, word) = (mem.read_u32(at) & !1, mem.read_u32(at.wrapping_add(4)));
            let count = match word & COUNT {
                0 => COUNT_MAX,
                count => count,
            } as usize;
            let last = word & END_OF_TABLE != 0;
            let Some((data, to_memory)) = drive.dma() else { return };
            let n = count.min(data.len());
            if to_memory {
                mem.write(address, &data[..n]);
            } else {
                mem.read(address, &mut data[..n]);
            }
            let done = drive.moved(n);
            if last && (n == count || !done) {
                self.status &= !ACTIVE;
            }
            if done || last {
                return;
            }
        }
        // A table without an end: the drive waits, and the driver's patience ends.
    }
}
