//! A channel: a cable with up to two drives, and the bus master at its other end.

use super::ata::EXECUTE_DEVICE_DIAGNOSTIC;
use super::bus_master::{self, BusMaster};
use super::drive::{BSY, Drive, Kind};
use super::{COMMAND, DATA, DEVICE, STATUS};
use env86_emu::{Memory, Width};

/// Device register: the slave is meant.
const DEVICE_SLAVE: u8 = 0x10;

// Device Control (ATA/ATAPI-6, 7.8).
/// The drives do not interrupt.
pub const NIEN: u8 = 0x02;
/// The drives are held in reset.
const SRST: u8 = 0x04;
/// The command block shows the bytes written before the last.
const HOB: u8 = 0x80;

/// A channel.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Master and slave.
    pub drives: [Drive; 2],
    /// Which of them is selected.
    pub selected: usize,
    /// Device Control.
    pub control: u8,
    /// The bus master.
    pub bus_master: BusMaster,
    /// The interrupt line has fallen and risen again in the last access.
    pulse: bool,
}

impl Channel {
    /// Channel 0 or 1 with its drives.
    pub fn new(number: u8, drives: [Drive; 2]) -> Self {
        let mut channel =
            Self { drives, selected: 0, control: NIEN, bus_master: BusMaster::default(), pulse: false };
        for (unit, drive) in (0..).zip(&mut channel.drives) {
            drive.place = (number, unit);
        }
        channel
    }

    /// The hard reset of the board.
    pub fn reset(&mut self) {
        for drive in &mut self.drives {
            let place = drive.place;
            drive.power_on();
            drive.place = place;
        }
        self.selected = 0;
        self.control = NIEN;
        self.bus_master = BusMaster::default();
        self.pulse = false;
    }

    /// The selected drive.
    pub fn drive(&mut self) -> &mut Drive {
        &mut self.drives[self.selected & 1]
    }

    /// The level of the interrupt line.
    pub fn irq(&self) -> bool {
        self.control & NIEN == 0 && self.drives[self.selected & 1].interrupt
    }

    /// Whether the line has fallen and risen again since the last call.
    pub fn take_pulse(&mut self) -> bool {
        std::mem::take(&mut self.pulse)
    }

    /// Lets something happen to the drives; the bus master notes an interrupt that comes of it.
    fn act(&mut self, act: impl FnOnce(&mut Self)) {
        let before = self.irq();
        act(self);
        if self.irq() && !before {
            self.bus_master.status |= bus_master::INTERRUPT;
        }
    }

    /// Reads the command block.
    pub fn read(&mut self, offset: u16, width: Width) -> u32 {
        let previous = self.control & HOB != 0;
        if offset == DATA {
            let mut value = 0;
            self.act(|channel| value = channel.drive().read_data(width));
            return value;
        }
        if offset == STATUS {
            let status = self.alternate_status();
            self.drive().interrupt = false;
            return status.into();
        }
        // Nobody drives the cable for a drive that is not there, and it is pulled low.
        let drive = self.drive();
        if drive.kind == Kind::Absent { 0 } else { drive.read_register(offset, previous).into() }
    }

    /// Status, without acknowledging the interrupt.
    pub fn alternate_status(&mut self) -> u8 {
        let (reset, drive) = (self.control & SRST != 0, self.drive());
        match drive.kind {
            Kind::Absent => 0,
            _ if reset => BSY,
            _ => drive.registers.status,
        }
    }

    /// Writes the command block.
    pub fn write(&mut self, mem: &mut Memory, offset: u16, width: Width, value: u32) {
        if offset != DATA {
            self.control &= !HOB;
        }
        match offset {
            DATA => self.act(|channel| {
                channel.drive().write_data(width, value);
                channel.run_bus_master(mem);
            }),
            COMMAND => self.command(mem, value as u8),
            // Both drives listen.
            _ => {
                self.drives.iter_mut().for_each(|drive| drive.write_register(offset, value as u8));
                if offset == DEVICE {
                    self.selected = usize::from(value as u8 & DEVICE_SLAVE != 0);
                    // The bus master may have waited for data that have come to a drive not selected.
                    self.act(|channel| channel.run_bus_master(mem));
                }
            }
        }
    }

    fn command(&mut self, mem: &mut Memory, command: u8) {
        if self.control & SRST != 0 {
            return;
        }
        let before = self.irq();
        let busy = self.drive().waits();
        if !busy {
            self.drive().interrupt = false;
        }
        self.act(|channel| {
            if command == EXECUTE_DEVICE_DIAGNOSTIC && !busy {
                channel.drives.iter_mut().for_each(Drive::sign);
                channel.selected = 0;
                channel.drive().interrupt = true;
            } else {
                channel.drive().start(command);
            }
            channel.run_bus_master(mem);
        });
        self.pulse |= before && self.irq();
    }

    fn run_bus_master(&mut self, mem: &mut Memory) {
        let drive = &mut self.drives[self.selected & 1];
        self.bus_master.run(drive, mem);
    }

    /// Data that drives wait for may have come from their media.
    pub fn media_arrived(&mut self, mem: &mut Memory) {
        self.act(|channel| {
            channel.drives.iter_mut().for_each(Drive::retry);
            channel.run_bus_master(mem);
        });
    }

    /// Writes Device Control.
    pub fn write_control(&mut self, value: u8) {
        let released = self.control & SRST != 0 && value & SRST == 0;
        self.control = value;
        if value & SRST != 0 {
            self.drives.iter_mut().for_each(Drive::sign);
        }
        if released {
            self.drives.iter_mut().for_each(Drive::sign);
            self.selected = 0;
        }
    }

    /// Writes a register of the bus master.
    pub fn write_bus_master(&mut self, mem: &mut Memory, offset: u16, width: Width, value: u32) {
        self.bus_master.write(offset, width, value);
        self.act(|channel| channel.run_bus_master(mem));
    }
}
