//! The packet commands of the CD-ROM drive (SFF-8020i, 10.8; MMC-3, chapter 6). The disc is one session
//! with one data track.

use super::atapi::{PACKET_SIZE, Sense};
use super::drive::{CD_SECTOR, Drive};
use std::task::Poll;

const TEST_UNIT_READY: u8 = 0x00;
/// REQUEST SENSE, which no sense data are lost by.
pub(super) const REQUEST_SENSE: u8 = 0x03;
const INQUIRY: u8 = 0x12;
const MODE_SENSE_6: u8 = 0x1a;
const START_STOP_UNIT: u8 = 0x1b;
const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1e;
const READ_CAPACITY: u8 = 0x25;
const READ_10: u8 = 0x28;
const SEEK_10: u8 = 0x2b;
const READ_SUBCHANNEL: u8 = 0x42;
const READ_TOC: u8 = 0x43;
const GET_CONFIGURATION: u8 = 0x46;
const GET_EVENT_STATUS_NOTIFICATION: u8 = 0x4a;
const READ_DISC_INFORMATION: u8 = 0x51;
const READ_TRACK_INFORMATION: u8 = 0x52;
const MODE_SENSE_10: u8 = 0x5a;
const READ_12: u8 = 0xa8;
const MECHANISM_STATUS: u8 = 0xbd;
const READ_CD: u8 = 0xbe;

/// Commands that do not tell of a changed disc, but do their work.
const QUIET: [u8; 4] = [REQUEST_SENSE, INQUIRY, GET_CONFIGURATION, GET_EVENT_STATUS_NOTIFICATION];

/// v86's answer, which is that of a drive by Sony.
const IDENTITY: &[u8; 28] = b"SONY    CD-ROM CDU-1000 1.1a";
/// A track of data, as the Q subchannel has it: ADR 1, control 4.
const DATA_TRACK: u8 = 0x14;
/// The number by which the lead-out is known.
const LEAD_OUT: u8 = 0xaa;
/// Frames before the first sector, which addresses in minutes, seconds and frames count.
const PREGAP: u64 = 150;
const FRAMES: u64 = 75;
/// The profile of a drive with a CD-ROM in it.
const PROFILE_CDROM: u16 = 0x0008;
/// What the tray's mechanism can: it is a tray, ejects, and can be locked.
const MECHANISM: u8 = 0x29;
/// Events of the media class (MMC-3, 6.6).
const MEDIA_CLASS: u8 = 4;
/// The drive's button was pressed while the host had locked it.
pub(super) const EVENT_EJECT_REQUEST: u8 = 1;
pub(super) const EVENT_NEW_MEDIUM: u8 = 2;
pub(super) const EVENT_REMOVAL: u8 = 3;

/// A packet's fields by their offsets, the highest byte first.
struct Packet<'a>(&'a [u8; PACKET_SIZE]);

impl Packet<'_> {
    fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// Whether addresses are asked for in minutes, seconds and frames.
    fn msf(&self) -> bool {
        self.0[1] & 0x02 != 0
    }
}

/// Executes a packet command: its data, or why it failed. While data of the disc are on their way it
/// changes nothing, and is to be executed again.
pub(super) fn execute(drive: &mut Drive, bytes: &[u8; PACKET_SIZE]) -> Poll<Result<Vec<u8>, Sense>> {
    let p = Packet(bytes);
    if drive.tray.changed && !QUIET.contains(&bytes[0]) {
        drive.tray.changed = false;
        return Poll::Ready(Err(Sense::DISC_CHANGED));
    }
    match bytes[0] {
        READ_10 => drive.read_disc(p.u32(2), p.u16(7).into()),
        READ_12 => drive.read_disc(p.u32(2), p.u32(6)),
        READ_CD => read_cd(drive, &p),
        _ => Poll::Ready(answer(drive, &p)),
    }
}

/// Executes a packet command that reads no sectors.
fn answer(drive: &mut Drive, p: &Packet) -> Result<Vec<u8>, Sense> {
    let (mut data, room) = match p.u8(0) {
        TEST_UNIT_READY => return drive.disc().map(|_| Vec::new()),
        START_STOP_UNIT => return start_stop(drive, p.u8(4)).map(|()| Vec::new()),
        PREVENT_ALLOW_MEDIUM_REMOVAL => {
            drive.tray.locked = p.u8(4) & 1 != 0;
            return Ok(Vec::new());
        }
        SEEK_10 => {
            let there = u64::from(p.u32(2)) < drive.disc()?;
            return if there { Ok(Vec::new()) } else { Err(Sense::NO_SECTOR) };
        }
        READ_CAPACITY => return capacity(drive.disc()?),
        REQUEST_SENSE => (request_sense(drive), p.u8(4).into()),
        INQUIRY => (inquiry(p)?, p.u8(4).into()),
        MODE_SENSE_6 => (mode_sense(drive, p, false)?, p.u8(4).into()),
        MODE_SENSE_10 => (mode_sense(drive, p, true)?, p.u16(7).into()),
        READ_SUBCHANNEL => (subchannel(drive, p)?, p.u16(7).into()),
        READ_TOC => (table_of_contents(drive, p)?, p.u16(7).into()),
        GET_CONFIGURATION => (configuration(drive, p)?, p.u16(7).into()),
        GET_EVENT_STATUS_NOTIFICATION => (event_status(drive, p)?, p.u16(7).into()),
        READ_DISC_INFORMATION => (disc_information(drive)?, p.u16(7).into()),
        READ_TRACK_INFORMATION => (track_information(drive, p)?, p.u16(7).into()),
        MECHANISM_STATUS => (mechanism_status(drive), p.u16(8).into()),
        _ => return Err(Sense::NO_COMMAND),
    };
    data.truncate(room);
    Ok(data)
}

fn capacity(sectors: u64) -> Result<Vec<u8>, Sense> {
    let last = sectors.saturating_sub(1).min(u32::MAX.into()) as u32;
    Ok([last, CD_SECTOR as u32].into_iter().flat_map(u32::to_be_bytes).collect())
}

fn start_stop(drive: &mut Drive, action: u8) -> Result<(), Sense> {
    const EJECT: u8 = 0x02;
    const LOAD: u8 = 0x03;
    let tray = &mut drive.tray;
    match action & 3 {
        EJECT if tray.locked => return Err(Sense::LOCKED),
        EJECT if !tray.open => {
            tray.open = true;
            tray.event = EVENT_REMOVAL;
        }
        LOAD if tray.open => {
            tray.open = false;
            tray.changed = drive.medium.is_some();
            tray.event = if tray.changed { EVENT_NEW_MEDIUM } else { 0 };
        }
        _ => {}
    }
    Ok(())
}

/// READ CD gives the 2048 bytes of the user's; an image has nothing else of a sector.
fn read_cd(drive: &Drive, p: &Packet) -> Poll<Result<Vec<u8>, Sense>> {
    const ANY_TYPE: u8 = 0;
    const MODE_1: u8 = 2;
    const USER_DATA: u8 = 0x10;
    let count = p.u32(5) & 0x00ff_ffff;
    let sector_type = p.u8(1) >> 2 & 7;
    if ![ANY_TYPE, MODE_1].contains(&sector_type) || p.u8(10) & 7 != 0 {
        return Poll::Ready(Err(Sense::NO_FIELD));
    }
    match p.u8(9) & 0xfe {
        USER_DATA => drive.read_disc(p.u32(2), count),
        0 => Poll::Ready(drive.disc().map(|_| Vec::new())),
        _ => Poll::Ready(Err(Sense::NO_FIELD)),
    }
}

fn request_sense(drive: &mut Drive) -> Vec<u8> {
    const CURRENT: u8 = 0x70;
    let mut sense = std::mem::take(&mut drive.tray.sense);
    if sense == Sense::default() && std::mem::take(&mut drive.tray.changed) {
        sense = Sense::DISC_CHANGED;
    }
    let mut data = vec![0; 18];
    data[0] = CURRENT;
    data[2] = sense.key;
    data[7] = 10; // bytes behind this one
    (data[12], data[13]) = (sense.code, sense.qualifier);
    data
}

fn inquiry(p: &Packet) -> Result<Vec<u8>, Sense> {
    const VITAL_PRODUCT_DATA: u8 = 0x01;
    if p.u8(1) & VITAL_PRODUCT_DATA != 0 || p.u8(2) != 0 {
        return Err(Sense::NO_FIELD);
    }
    // CD-ROM, removable, ATAPI of version 3 (SFF-8020i, 10.8.1), 31 bytes behind the fifth.
    let mut data = vec![0x05, 0x80, 0x00, 0x31, 31, 0, 0, 0];
    data.extend(IDENTITY);
    Ok(data)
}

fn mode_sense(drive: &Drive, p: &Packet, ten: bool) -> Result<Vec<u8>, Sense> {
    const ERROR_RECOVERY: u8 = 0x01;
    const CDROM: u8 = 0x0d;
    const CAPABILITIES: u8 = 0x2a;
    const ALL: u8 = 0x3f;
    const CHANGEABLE: u8 = 1;
    const SAVED: u8 = 3;
    // Medium types: data disc of 120 mm, no disc, tray open.
    let medium = match drive.disc() {
        Ok(_) => 0x01,
        Err(Sense::TRAY_OPEN) => 0x71,
        Err(_) => 0x70,
    };
    let (wanted, control) = (p.u8(2) & 0x3f, p.u8(2) >> 6);
    if control == SAVED {
        return Err(Sense::NOT_SAVED);
    }
    let [speed_high, speed_low] = 706u16.to_be_bytes(); // kilobytes a second: fourfold
    let pages = [
        (ERROR_RECOVERY, vec![0, 5, 0, 0, 0, 0]),
        // Inactivity 13: 8 minutes. 60 seconds in a minute, 75 frames in a second.
        (CDROM, vec![0, 0x0d, 0, 60, 0, 75]),
        (
            CAPABILITIES,
            // Reads nothing but data of mode 1 and several sessions, plays nothing; a buffer of 128 KB.
            [&[0, 0, 0x40, 0, MECHANISM | u8::from(drive.tray.locked) << 1, 0][..], &[speed_high, speed_low]]
                .into_iter()
                .chain([&[0, 0, 0, 128, speed_high, speed_low, 0, 0, 0, 0][..]])
                .flatten()
                .copied()
                .collect(),
        ),
    ];
    let mut data = if ten { vec![0, 0, medium, 0, 0, 0, 0, 0] } else { vec![0, medium, 0, 0] };
    let header = data.len();
    for (code, mut page) in pages.into_iter().filter(|(code, _)| wanted == ALL || wanted == *code) {
        if control == CHANGEABLE {
            page.fill(0);
        }
        data.extend([code, page.len() as u8]);
        data.extend(page);
    }
    if data.len() == header {
        return Err(Sense::NO_FIELD);
    }
    if ten {
        let [high, low] = (data.len() as u16 - 2).to_be_bytes();
        (data[0], data[1]) = (high, low);
    } else {
        data[0] = data.len() as u8 - 1;
    }
    Ok(data)
}

/// An address as four bytes.
fn address(lba: u64, msf: bool) -> [u8; 4] {
    if msf {
        let [minute, second, frame] = minutes(lba);
        [0, minute, second, frame]
    } else {
        (lba.min(u32::MAX.into()) as u32).to_be_bytes()
    }
}

fn minutes(lba: u64) -> [u8; 3] {
    let frames = lba + PREGAP;
    // A disc of more than 255 minutes has no address in this form.
    [(frames / (60 * FRAMES)).min(255) as u8, (frames / FRAMES % 60) as u8, (frames % FRAMES) as u8]
}

/// Puts the length of what follows into the first two bytes.
fn with_length(mut data: Vec<u8>) -> Vec<u8> {
    let [high, low] = (data.len() as u16 - 2).to_be_bytes();
    (data[0], data[1]) = (high, low);
    data
}

fn table_of_contents(drive: &Drive, p: &Packet) -> Result<Vec<u8>, Sense> {
    let sectors = drive.disc()?;
    let (msf, from) = (p.msf(), p.u8(6));
    // SFF-8020i has the format elsewhere than MMC.
    let format = if p.u8(2) & 0x0f != 0 { p.u8(2) & 0x0f } else { p.u8(9) >> 6 };
    let mut data = vec![0, 0, 1, 1]; // from the first track or session to the last
    match format {
        0 => {
            if from > 1 && from != LEAD_OUT {
                return Err(Sense::NO_FIELD);
            }
            for (track, lba) in [(1, 0), (LEAD_OUT, sectors)] {
                if track >= from {
                    data.extend([0, DATA_TRACK, track, 0]);
                    data.extend(address(lba, msf));
                }
            }
        }
        1 => {
            data.extend([0, DATA_TRACK, 1, 0]);
            data.extend(address(0, msf));
        }
        2 => {
            // First and last track, the lead-out, and the track: points in the lead-in.
            let points = [(0xa0, [1, 0, 0]), (0xa1, [1, 0, 0]), (0xa2, minutes(sectors)), (1, minutes(0))];
            for (point, [minute, second, frame]) in points {
                data.extend([1, DATA_TRACK, 0, point, 0, 0, 0, 0, minute, second, frame]);
            }
        }
        _ => return Err(Sense::NO_FIELD),
    }
    Ok(with_length(data))
}

fn subchannel(drive: &Drive, p: &Packet) -> Result<Vec<u8>, Sense> {
    const SUB_Q: u8 = 0x40;
    const NO_AUDIO: u8 = 0x15;
    drive.disc()?;
    let mut data = vec![0, NO_AUDIO, 0, 0];
    let format = p.u8(3);
    match format {
        _ if p.u8(2) & SUB_Q == 0 => {}
        // Position: track, index, address on the disc and in the track.
        1 => {
            data.extend([format, DATA_TRACK, 1, 1]);
            data.extend(address(0, p.msf()));
            data.extend(address(0, p.msf()));
        }
        // Catalogue number and recording code: there is none.
        2 | 3 => data.extend([format].into_iter().chain([0; 19])),
        _ => return Err(Sense::NO_FIELD),
    }
    let [high, low] = (data.len() as u16 - 4).to_be_bytes();
    (data[2], data[3]) = (high, low);
    Ok(data)
}

fn configuration(drive: &Drive, p: &Packet) -> Result<Vec<u8>, Sense> {
    const ONE: u8 = 2;
    const CURRENT: u8 = 0x01;
    const ALWAYS: u8 = 0x02 | CURRENT;
    let disc = u8::from(drive.disc().is_ok());
    let [profile_high, profile_low] = PROFILE_CDROM.to_be_bytes();
    // Code, version and flags, data (MMC-3, 5.3).
    let features: [(u16, u8, Vec<u8>); 5] = [
        (0x0000, ALWAYS, vec![profile_high, profile_low, disc, 0]), // list of profiles
        (0x0001, 1 << 2 | ALWAYS, vec![0, 0, 0, 2, 0, 0, 0, 0]),    // core: ATAPI
        (0x0003, ALWAYS, vec![MECHANISM, 0, 0, 0]),                 // removable medium
        (0x0010, disc, vec![0, 0, 8, 0, 0, 1, 0, 0]),               // random read: 2048 bytes, by one
        (0x001e, 1 << 2 | disc, vec![0; 4]),                        // CD read
    ];
    let (request, from) = (p.u8(1) & 3, p.u16(2));
    let wanted = |code: u16, flags: u8| match request {
        0 => code >= from,
        1 => code >= from && flags & CURRENT != 0,
        ONE => code == from,
        _ => false,
    };
    if request > ONE {
        return Err(Sense::NO_FIELD);
    }
    let mut data = vec![0; 8];
    if disc != 0 {
        (data[6], data[7]) = (profile_high, profile_low);
    }
    for (code, flags, feature) in features.into_iter().filter(|(code, flags, _)| wanted(*code, *flags)) {
        data.extend(code.to_be_bytes());
        data.extend([flags, feature.len() as u8]);
        data.extend(feature);
    }
    let length = (data.len() as u32 - 4).to_be_bytes();
    data[..4].copy_from_slice(&length);
    Ok(data)
}

fn event_status(drive: &mut Drive, p: &Packet) -> Result<Vec<u8>, Sense> {
    const POLLED: u8 = 0x01;
    const NONE_AVAILABLE: u8 = 0x80;
    const SUPPORTED: u8 = 1 << MEDIA_CLASS;
    if p.u8(1) & POLLED == 0 {
        return Err(Sense::NO_FIELD);
    }
    if p.u8(4) & SUPPORTED == 0 {
        return Ok(with_length(vec![0, 0, NONE_AVAILABLE, SUPPORTED]));
    }
    let event = std::mem::take(&mut drive.tray.event);
    let (open, disc) = (drive.tray.open, drive.disc().is_ok());
    let status = u8::from(open) | u8::from(disc) << 1;
    Ok(with_length(vec![0, 0, MEDIA_CLASS, SUPPORTED, event, status, 0, 0]))
}

fn disc_information(drive: &Drive) -> Result<Vec<u8>, Sense> {
    drive.disc()?;
    let mut data = vec![0; 34];
    data[2] = 0x0e; // a complete disc, and a complete last session
    data[3..7].fill(1); // first track; sessions; first and last track of the last session
    data[7] = 0x20; // for no restricted use
    data[16..24].fill(0xff); // no further lead-in and lead-out
    Ok(with_length(data))
}

fn track_information(drive: &Drive, p: &Packet) -> Result<Vec<u8>, Sense> {
    let sectors = drive.disc()?;
    let number = p.u32(2);
    let there = match p.u8(1) & 3 {
        0 => u64::from(number) < sectors,
        1 | 2 => number == 1, // by track, by session
        _ => false,
    };
    if !there {
        return Err(Sense::NO_FIELD);
    }
    let mut data = vec![0; 36];
    (data[2], data[3]) = (1, 1); // track, session
    data[5] = DATA_TRACK & 0x0f;
    data[6] = 1; // data of mode 1
    data[24..28].copy_from_slice(&address(sectors, false));
    Ok(with_length(data))
}

fn mechanism_status(drive: &Drive) -> Vec<u8> {
    const DOOR_OPEN: u8 = 0x10;
    const DISC_PRESENT: u8 = 0x80;
    let door = if drive.tray.open { DOOR_OPEN } else { 0 };
    let disc = if drive.disc().is_ok() { DISC_PRESENT } else { 0 };
    // One slot, whose table has four bytes.
    vec![0, door, 0, 0, 0, 1, 0, 4, disc, 0, 0, 0]
}
