//! The commands that move no data, and how the others begin (82077AA, chapter 5).

use super::transfer::{Action, Transfer};
use super::{
    CONFIGURE_IMPLIED_SEEK, DRIVES, Drive, Floppy, POLLED_DRIVES, Phase, Rate, SETTLE_NS, SPECIFY_NO_DMA,
    ST_HEAD, ST0_ABNORMAL, ST0_CHECK, ST0_INVALID, ST0_POLLED, ST0_SEEK_END, ST3_ONES, ST3_PROTECTED,
    ST3_TRACK0, STEP_NS, Seek,
};

/// The result of VERSION: an enhanced controller.
const ENHANCED: u8 = 0x90;
/// LOCK in its result, and in what DUMPREG gives.
const LOCK: u8 = 0x80;
/// Steps of a RECALIBRATE at most.
const RECALIBRATE_STEPS: u8 = 79;
/// RELATIVE SEEK goes to higher tracks.
const INWARD: u8 = 0x40;

/// A command, by the low five bits of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// One that moves data or looks for sectors.
    Data(Action),
    ReadId,
    Recalibrate,
    SenseInterrupt,
    Specify,
    SenseDrive,
    Seek,
    RelativeSeek,
    Configure,
    DumpRegisters,
    Version,
    Perpendicular,
    Lock,
    Invalid,
}

impl Command {
    pub fn of(byte: u8) -> Self {
        match byte & 0x1f {
            0x02 => Self::Data(Action::ReadTrack),
            0x03 => Self::Specify,
            0x04 => Self::SenseDrive,
            0x05 => Self::Data(Action::Write),
            0x06 => Self::Data(Action::Read),
            0x07 => Self::Recalibrate,
            0x08 => Self::SenseInterrupt,
            0x09 => Self::Data(Action::Write),
            0x0a => Self::ReadId,
            0x0c => Self::Data(Action::ReadDeleted),
            0x0d => Self::Data(Action::Format),
            0x0e => Self::DumpRegisters,
            0x0f if byte & 0x80 != 0 => Self::RelativeSeek,
            0x0f => Self::Seek,
            0x10 => Self::Version,
            0x11 => Self::Data(Action::ScanEqual),
            0x12 => Self::Perpendicular,
            0x13 => Self::Configure,
            0x14 => Self::Lock,
            0x16 => Self::Data(Action::Verify),
            0x19 => Self::Data(Action::ScanLowOrEqual),
            0x1d => Self::Data(Action::ScanHighOrEqual),
            _ => Self::Invalid,
        }
    }

    /// Bytes that follow the first.
    pub fn parameters(self) -> usize {
        match self {
            Self::Data(Action::Format) => 5,
            Self::Data(_) => 8,
            Self::Configure => 3,
            Self::Specify | Self::Seek | Self::RelativeSeek => 2,
            Self::ReadId | Self::Recalibrate | Self::SenseDrive | Self::Perpendicular => 1,
            Self::SenseInterrupt | Self::DumpRegisters | Self::Version | Self::Lock | Self::Invalid => 0,
        }
    }
}

impl Floppy {
    /// Executes the command whose bytes have all come.
    pub(super) fn execute(&mut self, now: u64) {
        let [first, second, third, fourth, ..] = self.command;
        let (drive, head) = (second & 3, (second & ST_HEAD != 0).into());
        match Command::of(first) {
            Command::Data(action) => self.begin(action, now),
            Command::ReadId => self.begin(Action::ReadId, now),
            Command::Recalibrate => {
                let from = self.drives.get(usize::from(drive)).map_or(u8::MAX, |drive| drive.track);
                let track = from.saturating_sub(RECALIBRATE_STEPS);
                let check = if track == 0 { 0 } else { ST0_ABNORMAL | ST0_CHECK };
                self.seek(drive, 0, track, check, now);
            }
            Command::Seek => self.seek(drive, head, third, 0, now),
            Command::RelativeSeek => {
                let from = self.drives.get(usize::from(drive)).map_or(0, |drive| drive.track);
                let inward = first & INWARD != 0;
                let track = if inward { from.saturating_add(third) } else { from.saturating_sub(third) };
                self.seek(drive, head, track, 0, now);
            }
            Command::SenseInterrupt => self.sense_interrupt(),
            Command::Specify => self.specify = [second, third],
            Command::SenseDrive => {
                let status = self.drives.get(usize::from(drive)).map_or(0, Drive::status);
                self.answer(&[ST3_ONES | status | second & (ST_HEAD | 3)]);
            }
            Command::Configure => (self.configure, self.precompensation) = (third, fourth),
            Command::DumpRegisters => {
                let tracks = self.drives.each_ref().map(|drive| drive.track);
                let vertical = self.drives.iter().enumerate();
                let vertical =
                    vertical.fold(0, |bits, (n, drive)| bits | u8::from(drive.perpendicular) << (2 + n));
                let lock = if self.locked { LOCK } else { 0 };
                let [step, load] = self.specify;
                self.answer(&[
                    tracks[0],
                    tracks[1],
                    0,
                    0,
                    step,
                    load,
                    self.end,
                    lock | vertical,
                    self.configure,
                    self.precompensation,
                ]);
            }
            Command::Version => self.answer(&[ENHANCED]),
            Command::Perpendicular => {
                // Without OW the drives' bits stay as they are.
                if second & 0x80 != 0 {
                    for (number, drive) in self.drives.iter_mut().enumerate() {
                        drive.perpendicular = second & 4 << number != 0;
                    }
                }
            }
            Command::Lock => {
                self.locked = first & LOCK != 0;
                self.answer(&[if self.locked { 0x10 } else { 0 }]);
            }
            Command::Invalid => self.answer(&[ST0_INVALID]),
        }
    }

    /// Puts a result into the FIFO.
    pub(super) fn answer(&mut self, bytes: &[u8]) {
        self.result[..bytes.len()].copy_from_slice(bytes);
        (self.result_len, self.result_read) = (bytes.len() as u8, 0);
        self.phase = Phase::Result;
    }

    /// Begins to move a drive's head. `fault` is what ST0 will have besides.
    fn seek(&mut self, number: u8, head: u8, track: u8, fault: u8, now: u64) {
        let end = ST0_SEEK_END | number | if head != 0 { ST_HEAD } else { 0 };
        let Some(drive) = self.drives.get_mut(usize::from(number)) else {
            // No drive answers with its track 0 signal or index pulses. Drive B's place tells of it.
            self.drives[DRIVES - 1].sense = Some(end | ST0_ABNORMAL | ST0_CHECK);
            self.interrupt = true;
            return;
        };
        let target = track.min(drive.kind.last_track());
        let steps = u64::from(drive.track.abs_diff(target));
        if steps > 0 {
            drive.stepped();
        }
        drive.head = head;
        drive.sense = None;
        drive.seek =
            Some(Seek { track: target, status: end | fault, due: now + SETTLE_NS + steps * STEP_NS });
    }

    fn sense_interrupt(&mut self) {
        if self.polled > 0 {
            let number = POLLED_DRIVES - self.polled;
            self.polled -= 1;
            self.interrupt = false;
            let track = self.drives.get(usize::from(number)).map_or(0, |drive| drive.track);
            self.st0 = ST0_POLLED | number;
            return self.answer(&[self.st0, track]);
        }
        let Some(drive) = self.drives.iter_mut().find(|drive| drive.sense.is_some()) else {
            return self.answer(&[ST0_INVALID]);
        };
        let (status, track) = (drive.sense.take().unwrap_or(ST0_INVALID), drive.track);
        self.interrupt = self.drives.iter().any(|drive| drive.sense.is_some());
        self.answer(&[status, track]);
    }

    /// Begins a command that takes time at a drive.
    fn begin(&mut self, action: Action, now: u64) {
        let c = &self.command;
        let (number, head) = (c[1] & 3, u8::from(c[1] & ST_HEAD != 0));
        let transfer = match action {
            Action::ReadId => Transfer { size: 2, ..Transfer::new(action, number, head) },
            Action::Format => {
                Transfer { size: c[2], end: c[3], fill: c[5], ..Transfer::new(action, number, head) }
            }
            _ => Transfer {
                track: c[2],
                id_head: c[3],
                sector: if action == Action::ReadTrack { 1 } else { c[4] },
                size: c[5],
                end: c[6],
                last: c[8],
                multi_track: c[0] & 0x80 != 0,
                skip: c[0] & 0x20 != 0,
                counted: action == Action::Verify && c[1] & 0x80 != 0,
                ..Transfer::new(action, number, head)
            },
        };
        self.end = if action == Action::ReadId { self.end } else { transfer.end };
        let mut delay = SETTLE_NS;
        if let Some(drive) = self.drives.get_mut(usize::from(number)) {
            drive.head = head;
            let implied = self.configure & CONFIGURE_IMPLIED_SEEK != 0
                && !matches!(action, Action::ReadId | Action::Format);
            if implied && drive.track != transfer.track {
                let target = transfer.track.min(drive.kind.last_track());
                delay += u64::from(drive.track.abs_diff(target)) * STEP_NS;
                drive.track = target;
                drive.stepped();
            }
        }
        let by_fifo = self.specify[1] & SPECIFY_NO_DMA != 0 && transfer.has_data();
        self.transfer = Some(Transfer { by_fifo, due: Some(now + delay), ..transfer });
        self.phase = Phase::Execution;
    }

    /// The data rate that the guest has chosen.
    pub(super) fn rate(&self) -> Rate {
        match self.dsr & super::RATE_BITS {
            0 => Rate::Kbps500,
            1 => Rate::Kbps300,
            2 => Rate::Kbps250,
            _ => Rate::Kbps1000,
        }
    }
}

impl Drive {
    /// ST3 without what every drive has.
    fn status(&self) -> u8 {
        let protected = self.disk.as_ref().is_some_and(|disk| disk.write_protected);
        (if protected { ST3_PROTECTED } else { 0 }) | if self.track == 0 { ST3_TRACK0 } else { 0 }
    }
}
