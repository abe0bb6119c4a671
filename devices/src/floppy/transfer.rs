//! The commands that move data between a disk and the guest, or look for sectors (82077AA, 5.1).

use env86_emu::Memory;

use super::{DMA_CHANNEL, Disk, Drive, Floppy, Format, RETRY_NS, SECTOR, SECTOR_NS, ST_HEAD, ST0_ABNORMAL};
use crate::dma::Dma;

/// ST1: there is no address mark: no disk, an unformatted track, or another data rate.
const ST1_NO_MARK: u8 = 0x01;
/// ST1: the disk cannot be written.
const ST1_NOT_WRITABLE: u8 = 0x02;
/// ST1: no such sector.
const ST1_NO_DATA: u8 = 0x04;
/// ST1: a sector could not be written or read right.
const ST1_DATA_ERROR: u8 = 0x20;
/// ST1: the command would go on behind the last sector.
const ST1_END_OF_CYLINDER: u8 = 0x80;
/// ST2: the track is marked as bad.
const ST2_BAD_CYLINDER: u8 = 0x02;
/// ST2: no sector fulfilled the condition of a scan.
const ST2_NOT_SATISFIED: u8 = 0x04;
/// ST2: a sector equalled what was scanned for.
const ST2_EQUAL: u8 = 0x08;
/// ST2: the head is at another track.
const ST2_WRONG_CYLINDER: u8 = 0x10;
/// ST2: a sector's mark is not what was asked for.
const ST2_CONTROL_MARK: u8 = 0x40;

/// The code of sectors of 512 bytes.
const SIZE_CODE: u8 = 2;
/// What FORMAT gets of each sector: track, head, number, size.
const ADDRESS_BYTES: usize = 4;
/// A byte that equals any in a scan.
const SCAN_ANY: u8 = 0xff;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// READ DATA.
    Read = 0,
    /// READ DELETED DATA.
    ReadDeleted = 1,
    /// READ TRACK.
    ReadTrack = 2,
    /// WRITE DATA and WRITE DELETED DATA: the mark that tells them apart is not kept.
    Write = 3,
    /// FORMAT TRACK.
    Format = 4,
    /// SCAN EQUAL.
    ScanEqual = 5,
    /// SCAN LOW OR EQUAL.
    ScanLowOrEqual = 6,
    /// SCAN HIGH OR EQUAL.
    ScanHighOrEqual = 7,
    /// VERIFY.
    Verify = 8,
    /// READ ID.
    ReadId = 9,
}

impl Action {
    /// The action with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        const ALL: [Action; 10] = [
            Action::Read,
            Action::ReadDeleted,
            Action::ReadTrack,
            Action::Write,
            Action::Format,
            Action::ScanEqual,
            Action::ScanLowOrEqual,
            Action::ScanHighOrEqual,
            Action::Verify,
            Action::ReadId,
        ];
        ALL.get(usize::try_from(number).ok()?).copied()
    }

    fn is_scan(self) -> bool {
        matches!(self, Self::ScanEqual | Self::ScanLowOrEqual | Self::ScanHighOrEqual)
    }
}

/// A command under way that moves data or looks for sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// What it does.
    pub action: Action,
    /// The drive.
    pub drive: u8,
    /// The head in use.
    pub head: u8,
    /// The sector's track, as its address has it (C).
    pub track: u8,
    /// Its head, likewise (H).
    pub id_head: u8,
    /// Its number (R).
    pub sector: u8,
    /// The code of its size (N).
    pub size: u8,
    /// The last sector of a track (EOT); how many there are, for FORMAT (SC).
    pub end: u8,
    /// The last parameter: length, step of a scan, or how many sectors to verify.
    pub last: u8,
    /// What FORMAT fills sectors with.
    pub fill: u8,
    /// It goes on on the other side (MT).
    pub multi_track: bool,
    /// Sectors with another mark are left out (SK).
    pub skip: bool,
    /// VERIFY counts sectors (EC).
    pub counted: bool,
    /// Sectors that are done.
    pub done: u8,
    /// Data go through the FIFO.
    pub by_fifo: bool,
    /// The sector's data.
    pub buffer: [u8; SECTOR],
    /// How many of them have been moved.
    pub moved: u16,
    /// When it goes on. `None` while it waits for the guest at the FIFO.
    pub due: Option<u64>,
}

/// How a command goes on.
enum Next {
    /// After so many nanoseconds.
    After(u64),
    /// When the guest has served the FIFO.
    Fifo,
    /// It is over, with these bits of ST0, ST1 and ST2.
    End(Status),
}

/// Bits of ST0, ST1 and ST2.
type Status = [u8; 3];

const NORMAL: Status = [0; 3];

/// What makes a command fail.
const fn fault(st1: u8, st2: u8) -> Status {
    [ST0_ABNORMAL, st1, st2]
}

impl Transfer {
    /// One for a head of a drive, of which nothing else is known.
    pub fn new(action: Action, drive: u8, head: u8) -> Self {
        Self {
            action,
            drive,
            head,
            track: 0,
            id_head: head,
            sector: 1,
            size: 0,
            end: 0,
            last: 0,
            fill: 0,
            multi_track: false,
            skip: false,
            counted: false,
            done: 0,
            by_fifo: false,
            buffer: [0; SECTOR],
            moved: 0,
            due: None,
        }
    }

    /// The guest gives or gets data.
    pub fn has_data(&self) -> bool {
        !matches!(self.action, Action::Verify | Action::ReadId)
    }

    /// The guest gets data.
    pub fn to_host(&self) -> bool {
        matches!(self.action, Action::Read | Action::ReadDeleted | Action::ReadTrack)
    }

    /// Bytes that go with a sector.
    pub fn unit(&self) -> usize {
        if self.action == Action::Format { ADDRESS_BYTES } else { SECTOR }
    }

    /// The guest gives the end of what it wants, behind the end of the track, instead of that of the track.
    ///
    /// A real drive would not find the sectors between. But SeaBIOS does so for whatever is to be read at once, and
    /// loaders that were tried on QEMU or v86, which go on through heads and tracks, rely on it.
    fn goes_on(&self, format: Format) -> bool {
        let reads_or_writes = matches!(self.action, Action::Read | Action::Write);
        reads_or_writes && self.multi_track && self.end > format.sectors
    }

    /// Goes on to the next sector. Says whether there is none on this cylinder. What is then in the
    /// address is what the result has to say (table 5-4).
    fn advance(&mut self, format: Format) -> bool {
        self.done = self.done.saturating_add(1);
        self.moved = 0;
        let step = if self.action.is_scan() { self.last.max(1) } else { 1 };
        let end = if self.goes_on(format) { format.sectors } else { self.end };
        if u16::from(self.sector) + u16::from(step) <= u16::from(end) {
            self.sector += step;
            return false;
        }
        self.sector = 1;
        if self.multi_track {
            self.id_head ^= 1;
            self.head ^= 1;
            if self.head == 1 {
                return false;
            }
        }
        self.track = self.track.wrapping_add(1);
        true
    }
}

impl Floppy {
    /// A byte that the guest reads from the FIFO while a command is executed.
    pub(super) fn take_data(&mut self, now: u64) -> Option<u8> {
        let transfer = self.transfer.as_mut().filter(|t| t.by_fifo && t.due.is_none() && t.to_host())?;
        let value = *transfer.buffer.get(usize::from(transfer.moved))?;
        self.moved_by_fifo(now);
        Some(value)
    }

    /// A byte that the guest writes there.
    pub(super) fn give_data(&mut self, value: u8, now: u64) {
        let waiting = self.transfer.as_mut().filter(|t| t.by_fifo && t.due.is_none() && !t.to_host());
        if let Some(place) = waiting.and_then(|t| t.buffer.get_mut(usize::from(t.moved))) {
            *place = value;
            self.moved_by_fifo(now);
        }
    }

    fn moved_by_fifo(&mut self, now: u64) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.moved += 1;
        if usize::from(transfer.moved) >= transfer.unit() {
            transfer.due = Some(now + SECTOR_NS);
            self.interrupt = false;
        }
    }

    /// The command goes on.
    pub(super) fn move_data(&mut self, mem: &mut Memory, dma: &mut Dma, now: u64) {
        let Some(mut transfer) = self.transfer.take() else { return };
        match self.go_on(&mut transfer, mem, dma) {
            Ok(Next::After(time)) => transfer.due = Some(now + time),
            Ok(Next::Fifo) => {
                transfer.due = None;
                self.interrupt = true;
            }
            Ok(Next::End(status)) | Err(status) => return self.finish(&transfer, status),
        }
        self.transfer = Some(transfer);
    }

    fn finish(&mut self, transfer: &Transfer, [st0, st1, st2]: Status) {
        if let Some(drive) = self.drives.get_mut(usize::from(transfer.drive)) {
            (drive.head, drive.sector) = (transfer.head, transfer.sector);
        }
        self.st0 = st0 | transfer.drive | if transfer.head != 0 { ST_HEAD } else { 0 };
        let Transfer { track, id_head, sector, size, .. } = *transfer;
        self.answer(&[self.st0, st1, st2, track, id_head, sector, size]);
        self.interrupt = true;
    }

    fn go_on(&mut self, t: &mut Transfer, mem: &mut Memory, dma: &mut Dma) -> Result<Next, Status> {
        let rate = self.rate();
        let unreadable = fault(ST1_NO_MARK, 0);
        let drive = self.drives.get_mut(usize::from(t.drive)).ok_or(unreadable)?;
        let Drive { track, sector: last, disk, .. } = drive;
        let disk = disk.as_mut().filter(|disk| disk.format().has_rate(rate)).ok_or(unreadable)?;
        let format = disk.format();
        if *track >= format.tracks || t.head >= format.heads {
            return Err(unreadable);
        }
        match t.action {
            Action::ReadId => {
                // Another one comes by each time.
                *last = *last % format.sectors + 1;
                (t.track, t.id_head, t.sector, t.size) = (*track, t.head, *last, SIZE_CODE);
                Ok(Next::End(NORMAL))
            }
            Action::Format => format_sector(t, disk, *track, mem, dma),
            Action::Verify => {
                find(t, disk, *track)?;
                let over = t.advance(format);
                let all = t.counted && t.done >= t.last;
                Ok(if over || all { Next::End(NORMAL) } else { Next::After(SECTOR_NS) })
            }
            Action::Read | Action::ReadDeleted | Action::ReadTrack => read_sector(t, disk, track, mem, dma),
            Action::Write => write_sector(t, disk, track, mem, dma),
            Action::ScanEqual | Action::ScanLowOrEqual | Action::ScanHighOrEqual => {
                scan_sector(t, disk, *track, mem, dma)
            }
        }
    }
}

/// The sector that a command is at, with the head at a track.
fn find<'a>(t: &Transfer, disk: &'a Disk, track: u8) -> Result<&'a [u8; SECTOR], Status> {
    if t.track != track {
        let marked = if t.track == 0xff { ST2_BAD_CYLINDER } else { ST2_WRONG_CYLINDER };
        return Err(fault(ST1_NO_DATA, marked));
    }
    let here = t.id_head == t.head && t.size == SIZE_CODE;
    let sector = here.then(|| disk.sector(track, t.head, t.sector)).flatten();
    sector.ok_or(fault(ST1_NO_DATA, 0))
}

/// What follows a sector whose data have been moved, with the head at a track.
fn after(t: &mut Transfer, format: Format, track: &mut u8, terminal_count: bool) -> Next {
    let over = t.advance(format);
    if terminal_count {
        Next::End(NORMAL)
    } else if over && t.goes_on(format) {
        *track = t.track;
        Next::After(SECTOR_NS)
    } else if over {
        Next::End(fault(ST1_END_OF_CYLINDER, 0))
    } else {
        Next::After(SECTOR_NS)
    }
}

/// Gets data from the guest until there are enough for a sector; then says whether these were the last.
/// The rest of a last sector is zeros.
fn fetch(t: &mut Transfer, mem: &mut Memory, dma: &mut Dma) -> Result<bool, Next> {
    let unit = t.unit();
    if t.by_fifo {
        return if usize::from(t.moved) < unit { Err(Next::Fifo) } else { Ok(false) };
    }
    if t.moved == 0 {
        t.buffer = [0; SECTOR];
    }
    let moved = dma.transfer_from_memory(DMA_CHANNEL, mem, &mut t.buffer[usize::from(t.moved)..unit]);
    t.moved += moved.bytes as u16;
    if moved.terminal_count || usize::from(t.moved) == unit {
        Ok(moved.terminal_count)
    } else {
        Err(Next::After(RETRY_NS))
    }
}

fn read_sector(
    t: &mut Transfer,
    disk: &Disk,
    track: &mut u8,
    mem: &mut Memory,
    dma: &mut Dma,
) -> Result<Next, Status> {
    let deleted = t.action == Action::ReadDeleted;
    if t.moved == 0 {
        t.buffer = *find(t, disk, *track)?;
        if deleted && t.skip {
            return Ok(after(t, disk.format(), track, false));
        }
        if t.by_fifo {
            return Ok(Next::Fifo);
        }
    }
    let mut terminal_count = false;
    if !t.by_fifo {
        let moved = dma.transfer_to_memory(DMA_CHANNEL, mem, &t.buffer[usize::from(t.moved)..]);
        t.moved += moved.bytes as u16;
        terminal_count = moved.terminal_count;
        if !terminal_count && usize::from(t.moved) < SECTOR {
            return Ok(Next::After(RETRY_NS));
        }
    }
    let next = after(t, disk.format(), track, terminal_count);
    // The first sector that is not deleted is the last.
    Ok(if deleted { Next::End([0, 0, ST2_CONTROL_MARK]) } else { next })
}

fn write_sector(
    t: &mut Transfer,
    disk: &mut Disk,
    track: &mut u8,
    mem: &mut Memory,
    dma: &mut Dma,
) -> Result<Next, Status> {
    if disk.write_protected {
        return Err(fault(ST1_NOT_WRITABLE, 0));
    }
    find(t, disk, *track)?;
    let terminal_count = match fetch(t, mem, dma) {
        Ok(terminal_count) => terminal_count,
        Err(next) => return Ok(next),
    };
    if !disk.write(*track, t.head, t.sector, &t.buffer) {
        return Err(fault(ST1_DATA_ERROR, 0));
    }
    Ok(after(t, disk.format(), track, terminal_count))
}

fn scan_sector(
    t: &mut Transfer,
    disk: &Disk,
    track: u8,
    mem: &mut Memory,
    dma: &mut Dma,
) -> Result<Next, Status> {
    let found = find(t, disk, track)?;
    let terminal_count = match fetch(t, mem, dma) {
        Ok(terminal_count) => terminal_count,
        Err(next) => return Ok(next),
    };
    let holds = |condition: fn(&u8, &u8) -> bool| {
        let mut pairs = found.iter().zip(&t.buffer);
        pairs.all(|(disk, host)| *disk == SCAN_ANY || *host == SCAN_ANY || condition(disk, host))
    };
    let equal = holds(u8::eq);
    let satisfied = match t.action {
        Action::ScanLowOrEqual => holds(u8::le),
        Action::ScanHighOrEqual => holds(u8::ge),
        _ => equal,
    };
    if satisfied {
        return Ok(Next::End([0, 0, if equal { ST2_EQUAL } else { 0 }]));
    }
    let over = t.advance(disk.format());
    Ok(if over || terminal_count { Next::End([0, 0, ST2_NOT_SATISFIED]) } else { Next::After(SECTOR_NS) })
}

/// Only a track of the disk's own format can be kept: a plain image has no room for another.
fn format_sector(
    t: &mut Transfer,
    disk: &mut Disk,
    track: u8,
    mem: &mut Memory,
    dma: &mut Dma,
) -> Result<Next, Status> {
    if disk.write_protected || t.size != SIZE_CODE || t.end > disk.format().sectors {
        return Err(fault(ST1_NOT_WRITABLE, 0));
    }
    let terminal_count = match fetch(t, mem, dma) {
        Ok(terminal_count) => terminal_count,
        Err(next) => return Ok(next),
    };
    let [c, h, r, n, ..] = t.buffer;
    if (c, h, n) == (track, t.head, SIZE_CODE)
        && disk.sector(c, h, r).is_some()
        && !disk.write(c, h, r, &[t.fill; SECTOR])
    {
        return Err(fault(ST1_DATA_ERROR, 0));
    }
    (t.track, t.id_head, t.sector) = (c, h, r);
    (t.moved, t.done) = (0, t.done.saturating_add(1));
    Ok(if terminal_count || t.done >= t.end { Next::End(NORMAL) } else { Next::After(SECTOR_NS) })
}
