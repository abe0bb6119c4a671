//! The drives at the two channels of the IDE controller.

use iced_x86::code_asm::*;

use crate::guest::{BUFFER, Guest, Result};

/// Drives: their channel's ports, what selects them, their names.
const DRIVES: [(u32, u32, &str); 4] =
    [(0x1f0, 0xe0, "hda"), (0x1f0, 0xf0, "hdb"), (0x170, 0xe0, "hdc"), (0x170, 0xf0, "hdd")];

/// Registers, from a channel's first port on (ATA/ATAPI-6, 7).
mod register {
    pub const DATA: u32 = 0;
    pub const SECTOR_COUNT: u32 = 2;
    pub const LBA_LOW: u32 = 3;
    pub const LBA_MID: u32 = 4;
    pub const LBA_HIGH: u32 = 5;
    pub const DEVICE: u32 = 6;
    pub const STATUS: u32 = 7;
    pub const COMMAND: u32 = 7;
}

const IDENTIFY_DEVICE: u32 = 0xec;
const READ_SECTORS: u32 = 0x20;
const BSY: u32 = 0x80;
const DRQ: u32 = 0x08;
const ERR: u32 = 0x01;
/// What a drive with packet commands has in LBA mid and high.
const PACKET_DRIVE: [u32; 2] = [0x14, 0xeb];
/// Words of a sector, and what IDENTIFY tells in which of them: sectors in 28 bits.
const SECTOR: u32 = 256;
const SECTORS: u32 = 2 * 60;
/// An image may have to be fetched.
const ANSWER_MS: u32 = 10_000;

/// Identifies all drives, and reads the first sector of hard disks.
pub fn test(g: &mut Guest) -> Result {
    let mut rows = Vec::new();
    for (ports, select, name) in DRIVES {
        rows.extend([ports, select, g.text(name)]);
    }
    let end = 4 * rows.len() as u32;
    let rows = g.words(&rows);
    let (drives, disks, comma) = (g.words(&[0]), g.words(&[0]), g.text(", "));
    let [no_drive, drive, packet, first] = [(); 4].map(|()| g.create_label());

    // EBP is the drive's row, EBX its channel's ports.
    g.mov(ebp, rows)?;
    let next = g.mark()?;
    g.mov(ebx, dword_ptr(ebp))?;
    g.mov(eax, dword_ptr(ebp + 4))?;
    to(g, register::DEVICE)?;
    from(g, register::STATUS)?;
    g.test(al, al)?;
    g.je(no_drive)?;
    g.cmp(al, 0xff)?;
    g.je(no_drive)?;
    g.mov(eax, IDENTIFY_DEVICE)?;
    to(g, register::COMMAND)?;
    finished(g)?;
    g.test(al, ERR)?;
    g.jne(packet)?;
    g.test(al, DRQ)?;
    g.jne(drive)?;
    g.here(packet)?;
    for (register, value) in [register::LBA_MID, register::LBA_HIGH].into_iter().zip(PACKET_DRIVE) {
        from(g, register)?;
        g.cmp(al, value)?;
        g.jne(no_drive)?;
    }
    g.here(drive)?;

    g.cmp(dword_ptr(drives), 0)?;
    g.je(first)?;
    g.mov(esi, comma)?;
    g.run(|to| to.put)?;
    g.here(first)?;
    g.inc(dword_ptr(drives))?;
    g.mov(esi, dword_ptr(ebp + 8))?;
    g.run(|to| to.put)?;
    let hard_disk = g.create_label();
    from(g, register::STATUS)?;
    g.test(al, DRQ)?;
    g.jne(hard_disk)?;
    g.put(" CD-ROM drive")?;
    g.jmp(no_drive)?;

    g.here(hard_disk)?;
    g.inc(dword_ptr(disks))?;
    fetch_sector(g)?;
    g.put(" ")?;
    g.mov(eax, dword_ptr(BUFFER + SECTORS))?;
    g.add(eax, 1024)?;
    g.shr(eax, 11)?;
    g.put_decimal()?;
    g.put(" MB, sector 0 ")?;
    for (register, value) in
        [(register::SECTOR_COUNT, 1), (register::LBA_LOW, 0), (register::LBA_MID, 0), (register::LBA_HIGH, 0)]
    {
        g.mov(eax, value)?;
        to(g, register)?;
    }
    g.mov(eax, READ_SECTORS)?;
    to(g, register::COMMAND)?;
    finished(g)?;
    g.and(al, ERR | DRQ)?;
    g.cmp(al, DRQ)?;
    g.fail_unless_equal("cannot be read")?;
    fetch_sector(g)?;
    g.put("read")?;

    g.here(no_drive)?;
    g.add(ebp, 12)?;
    g.cmp(ebp, rows + end)?;
    g.jb(next)?;
    let [some, no_drives] = [(); 2].map(|()| g.create_label());
    g.cmp(dword_ptr(disks), 0)?;
    g.jne(some)?;
    g.cmp(dword_ptr(drives), 0)?;
    g.je(no_drives)?;
    g.mov(esi, comma)?;
    g.run(|to| to.put)?;
    g.here(no_drives)?;
    g.say_absent("no hard disk")?;
    g.here(some)?;
    Ok(())
}

/// Writes AL to a register of the channel.
fn to(g: &mut Guest, register: u32) -> Result {
    g.lea(edx, dword_ptr(ebx + register))?;
    g.out(dx, al)
}

/// Reads a register of the channel into AL.
fn from(g: &mut Guest, register: u32) -> Result {
    g.lea(edx, dword_ptr(ebx + register))?;
    g.in_(al, dx)
}

/// Waits until a command is done, or its data are there; gives the status in AL.
fn finished(g: &mut Guest) -> Result {
    let done = g.create_label();
    g.set_deadline(ANSWER_MS)?;
    let wait = g.mark()?;
    from(g, register::STATUS)?;
    g.test(al, BSY)?;
    g.je(done)?;
    g.before_deadline(wait)?;
    g.fail("a drive stays busy")?;
    g.here(done)?;
    Ok(())
}

/// Reads a sector from the data port.
fn fetch_sector(g: &mut Guest) -> Result {
    g.mov(edi, BUFFER)?;
    g.mov(ecx, SECTOR)?;
    g.lea(edx, dword_ptr(ebx + register::DATA))?;
    g.rep().insw()
}
