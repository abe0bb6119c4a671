//! Whole states.

use super::suite::Random;
use super::*;
use crate::board::{BoardConfig, ManualClock, Seeded};
use crate::ide::{DiskImage, DiskImageError, Form, Ide, Medium, Unit, Units};
use crate::{Pc, fs::Filesystem, fs::NoBlobs};
use env86_emu::memory::Generation;
use env86_emu::{Bus, Memory, Width};
use std::task::Poll;

/// Sectors of the hard disks.
const SECTORS: usize = 300;
const DISK: u8 = 0x5d;

fn disk(form: Form) -> Medium {
    Medium::new(vec![DISK; SECTORS * 512], form)
}

/// The drives of a machine with a hard disk that was in v86's memory and one that was not, or with none.
fn units(disks: bool) -> Units {
    let disc = Medium::new(vec![7; 5 * 2048], Form::Whole);
    let disks = disks.then(|| (disk(Form::Whole), disk(Form::Written), disc));
    disks.map_or_else(Units::default, |(hda, hdb, disc)| Units::new(Some(hda), Some(hdb), Some(disc)))
}

/// The drives that a state asks for.
pub(super) fn saved_units(plan: &Plan, file: &[u8]) -> Units {
    let medium = |_, source| match source {
        Source::State(range) => Ok::<_, ()>(Medium::new(file[range].to_vec(), Form::Whole)),
        Source::Base { sectors, sector_size } => {
            let bytes = sectors.saturating_mul(sector_size).min(1 << 20);
            Ok(Medium::new(vec![DISK; bytes as usize], Form::Written))
        }
    };
    plan.units(medium).unwrap()
}

fn machine(acpi: bool) -> Pc {
    let config = BoardConfig {
        acpi,
        uarts: [true, true, false, true],
        virtio_console: acpi,
        virtio_shares: acpi,
        ide: units(acpi),
        filesystem: Some((Filesystem::default(), Box::new(NoBlobs))),
        ..BoardConfig::default()
    };
    Pc::new(Memory::new(4 << 20).unwrap(), config, Box::new(ManualClock::default()), Box::new(Seeded(1)))
        .unwrap()
}

/// Builds a machine from a state alone.
fn restored(file: &[u8]) -> Pc {
    let container = Container::parse(file).unwrap();
    let plan = Plan::read(&container).unwrap();
    let clock = ManualClock::default();
    clock.advance(plan.time);
    let memory = plan.pages().copy(file).unwrap();
    let config = plan.configure(BoardConfig { ide: saved_units(&plan, file), ..BoardConfig::default() });
    let mut machine = Pc::new(memory, config, Box::new(clock), Box::new(Seeded(1))).unwrap();
    plan.apply(&mut machine, file).unwrap();
    machine
}

/// Gives a hard disk a command for sectors from 100 on.
fn start(board: &mut crate::Board, mem: &mut Memory, command: u32, device: u32, count: u32) {
    for (port, value) in
        [(0x3f6, 0), (0x1f6, device), (0x1f2, count), (0x1f3, 100), (0x1f4, 0), (0x1f5, 0), (0x1f7, command)]
    {
        board.port_write(mem, port, Width::Byte, value);
    }
}

/// Writes sector 100 of a hard disk.
fn write_sectors(board: &mut crate::Board, mem: &mut Memory, device: u32) {
    start(board, mem, 0x30, device, 1);
    (0..128).for_each(|i| board.port_write(mem, 0x1f0, Width::Dword, i));
}

/// Something other than the power-on state in every device.
fn disturb(machine: &mut Pc) {
    let (board, mem) = (&mut machine.board, machine.cpu.mem_mut());
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x30),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xb8),
        (0x4d1, 0x0c), // PIC
        (0x43, 0x34),
        (0x40, 0x9c),
        (0x40, 0x2e),
        (0x43, 0xb6),
        (0x42, 0x12),
        (0x42, 0x34),
        (0x61, 3), // PIT
        (0x70, 0x0b),
        (0x71, 0x42),
        (0x70, 0x8f), // RTC
        (0x3fb, 0x83),
        (0x3f8, 1),
        (0x3fb, 3),
        (0x3f9, 0x0f),
        (0x3fc, 0x0b),
        (0x3ff, 0x55), // COM1
        (0x64, 0x60),
        (0x60, 0x47),
        (0x64, 0xd4),
        (0x60, 0xf4), // keyboard and mouse
        (0x0c, 0),
        (0x04, 0x34),
        (0x04, 0x12),
        (0x81, 0x56),
        (0x0b, 0x46), // DMA
        (0x3c2, 0x67),
        (0x3d4, 0x11),
        (0x3d5, 0x0e),
        (0x3d4, 0x0f),
        (0x3d5, 0x50),
        (0x3c8, 5),
        (0x3c9, 0x3f),
        (0x376, 0),
        (0x172, 3),
        (0x177, 0xa0), // a packet is awaited
    ] {
        board.port_write(mem, port, Width::Byte, value);
    }
    board.port_write(mem, 0xcf8, Width::Dword, 0x8000_0860);
    board.port_write(mem, 0xcfc, Width::Dword, 0x0b0b_0a0a);
    if board.ide.channels[0].is_some() {
        write_sectors(board, mem, 0xe0);
        write_sectors(board, mem, 0xf0);
        // The first of two sectors, and half of the other, are written.
        start(board, mem, 0x30, 0xe0, 2);
        (0..384).for_each(|_| board.port_write(mem, 0x1f0, Width::Word, 0x1234));
    }
    board.port_write(mem, 0x510, Width::Word, 0);
    board.serial_input(0, b"typed ahead");
    board.keyboard_input(&[0x1e, 0x9e]);
    mem.write_u32(0x1234, 0xdead_beef);
    mem.write_u32(0x10_0000, 1);
    mem.region_mut(board.vga.memory.planes, 7..8)[0] = 0x1f;
    mem.write_u32(crate::vga::FRAMEBUFFER + 0x1_2344, 0x0403_0201);
    (board.backdoor.enabled, board.backdoor.absolute) = (true, true);
    let mut cpu = machine.cpu.state();
    cpu.gpr = [1, 2, 0x8000_0003, 4, 5, 6, 7, 8];
    cpu.eflags = 0x8c7;
    cpu.fpu.regs[3] = (0x8000_0000_0000_0001, 0xbfff);
    cpu.fpu.status = 0x1805;
    cpu.xmm[2] = 1 << 127 | 5;
    cpu.tsc_offset = 123_456_789_012;
    cpu.halted = true;
    machine.cpu.set_state(&cpu);
}

#[test]
fn a_machine_is_the_same_after_save_and_restore() {
    for acpi in [false, true] {
        let mut first = machine(acpi);
        disturb(&mut first);
        let file = save(&mut first, &|_| true).unwrap().to_vec();
        let mut second = restored(&file);
        let cpu = |machine: &mut Pc| {
            let mut state = machine.cpu.state();
            state.tsc_offset = state.tsc_offset.wrapping_add(machine.board.time());
            state
        };
        assert_eq!(cpu(&mut first), cpu(&mut second));
        assert_eq!(first.cpu.mem().contents(), second.cpu.mem().contents());
        assert_eq!(first.board.interrupts.pic, second.board.interrupts.pic);
        assert_eq!(first.board.dma, second.board.dma);
        assert_eq!(first.board.ps2.keyboard, second.board.ps2.keyboard);
        assert_eq!(first.board.backdoor, second.board.backdoor);
        assert_eq!(first.board.vga.crtc, second.board.vga.crtc);
        for region in [first.board.vga.memory.planes, first.board.vga.memory.framebuffer] {
            assert_eq!(first.cpu.mem().region(region), second.cpu.mem().region(region));
        }
        let seen = second.board.vga.changes(second.cpu.mem_mut(), &mut Generation::default()).unwrap();
        assert!(seen.registers && seen.memory[0].start == 0);
        assert_eq!(
            format!("{:?}", registers(&first.board.ide)),
            format!("{:?}", registers(&second.board.ide))
        );
        assert_eq!(second.board.serial_output(0), b"");
        let again = save(&mut second, &|_| true).unwrap().to_vec();
        assert_eq!(Container::parse(&file).unwrap().state, Container::parse(&again).unwrap().state);
        assert_eq!(file.len(), again.len());
        assert!(file == again, "a buffer differs");
    }
}

#[test]
fn read_only_pages_are_so_after_a_restore() {
    let mut machine = machine(false);
    let (board, mem) = (&mut machine.board, machine.cpu.mem_mut());
    board.port_write(mem, 0xcf8, Width::Dword, 0x8000_0058);
    board.port_write(mem, 0xcfc, Width::Dword, 0x0033_1000); // C0000h to C7FFFh
    mem.write(0xc_0000, &[7; 0x4_0000]);
    let read_only = mem.read_only();
    assert_eq!(!read_only, 0xff);
    let file = save(&mut machine, &|_| true).unwrap().to_vec();
    let mut restored = restored(&file);
    let mem = restored.cpu.mem_mut();
    assert_eq!(mem.read_only(), read_only);
    mem.write(0xc_0000, &[8; 0x4_0000]);
    assert_eq!([0xc_0000, 0xd_0000, 0xf_ffff].map(|at| mem.read_u8(at)), [8, 0, 0]);
}

/// The controller without what is in its drives.
fn registers(ide: &Ide) -> Ide {
    let mut ide = ide.clone();
    for drive in ide.channels.iter_mut().flatten().flat_map(|channel| &mut channel.drives) {
        drive.medium = None;
        // Blocks that are on the disk already are written once more.
        drive.transfer.committed = 0;
    }
    ide
}

#[test]
fn disks_go_on_in_the_middle_of_a_command() {
    let mut first = machine(true);
    disturb(&mut first);
    let file = save(&mut first, &|_| true).unwrap().to_vec();
    let mut second = restored(&file);
    let (board, mem) = (&mut second.board, second.cpu.mem_mut());
    assert_eq!(board.port_read(mem, 0x1f7, Width::Byte), 0x58);
    (0..128).for_each(|_| board.port_write(mem, 0x1f0, Width::Word, 0x1234));
    assert_eq!(board.port_read(mem, 0x1f7, Width::Byte), 0x50);
    for (device, words) in [(0xe0, [0x1234_1234, 0x1234_1234]), (0xf0, [0, 1])] {
        start(board, mem, 0x20, device, 2);
        assert_eq!([0; 2].map(|_| board.port_read(mem, 0x1f0, Width::Dword)), words);
    }
    let written = |board: &crate::Board, unit: usize| {
        let drive = &board.ide.channels[0].as_ref().unwrap().drives[unit];
        let medium = drive.medium.as_ref().unwrap();
        (medium.form(), medium.written().count())
    };
    // What was written before is part of the image where the state has all of it.
    assert_eq!([written(board, 0), written(board, 1)], [(Form::Whole, 4), (Form::Written, 2)]);
}

/// An image that never comes.
#[derive(Debug)]
struct Never;

impl DiskImage for Never {
    fn size(&self) -> u64 {
        SECTORS as u64 * 512
    }

    fn read(&self, _offset: u64, _buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        Poll::Pending
    }
}

#[test]
fn drives_of_the_secondary_channel_come_back() {
    let ide = Units::new(None, None, Some(Medium::new(vec![7; 5 * 2048], Form::Whole)));
    let ide = ide.with_secondary(Some(disk(Form::Written)), None).unwrap();
    let config = BoardConfig { ide, ..BoardConfig::default() };
    let clock = Box::new(ManualClock::default());
    let mut first = Pc::new(Memory::new(4 << 20).unwrap(), config, clock, Box::new(Seeded(1))).unwrap();
    let file = save(&mut first, &|_| true).unwrap().to_vec();
    let mut slots = Vec::new();
    let plan = Plan::read(&Container::parse(&file).unwrap()).unwrap();
    let medium = |slot, _| {
        slots.push(slot);
        Ok::<_, ()>(disk(Form::Whole))
    };
    plan.units(medium).unwrap();
    assert_eq!(slots, [Slot::Hdc, Slot::Cdrom]);
    let sectors = restored(&file).board.ide.channels[1].take().unwrap().drives.map(|drive| drive.sectors());
    assert_eq!(sectors, [SECTORS as u64, 5]);
}

#[test]
fn a_command_that_waits_for_its_image_starts_again() {
    const TABLE: u32 = 0x1000;
    const BUFFER: u32 = 0x2000;
    for (command, status) in [(0x20, 0x58), (0xc8, 0x50)] {
        let ide = Units::new(Some(Medium::new(Never, Form::Written)), None, None);
        let config = BoardConfig { ide, ..BoardConfig::default() };
        let clock = Box::new(ManualClock::default());
        let mut first = Pc::new(Memory::new(4 << 20).unwrap(), config, clock, Box::new(Seeded(1))).unwrap();
        let (board, mem) = (&mut first.board, first.cpu.mem_mut());
        mem.write_u32(TABLE, BUFFER);
        mem.write_u32(TABLE + 4, 1 << 31 | 512);
        start(board, mem, command, 0xe0, 1);
        board.port_write(mem, 0xb404, Width::Dword, TABLE);
        board.port_write(mem, 0xb400, Width::Byte, 9);
        assert_eq!(board.port_read(mem, 0x1f7, Width::Byte), 0xd0);
        board.media_arrived(mem);
        assert_eq!(board.port_read(mem, 0x3f6, Width::Byte), 0xd0);
        let file = save(&mut first, &|_| true).unwrap().to_vec();
        // The image is there when the machine is resumed.
        let mut second = restored(&file);
        let (board, mem) = (&mut second.board, second.cpu.mem_mut());
        assert!(board.ide.irq(0));
        assert_eq!(board.port_read(mem, 0x1f7, Width::Byte), status);
        let data = match command {
            0x20 => board.port_read(mem, 0x1f0, Width::Dword),
            _ => mem.read_u32(BUFFER),
        };
        assert_eq!(data.to_le_bytes(), [DISK; 4]);
    }
}

#[test]
fn a_request_for_a_file_that_waits_for_its_content_is_answered() {
    const REQUEST: u32 = 0x4000;
    const REPLY: u32 = 0x5000;
    let mut first = machine(true);
    let p9 = first.board.p9.as_mut().unwrap();
    p9.transport.device_status = crate::virtio::STATUS_DRIVER_OK;
    let queue = &mut p9.transport.queues[0];
    (queue.size, queue.enabled, queue.avail_last_idx) = (4, true, 1);
    (queue.desc_addr, queue.avail_addr, queue.used_addr) = (0x1000, 0x2000, 0x3000);
    p9.held = vec![0];
    let mem = first.cpu.mem_mut();
    // TREAD of a fid that is not there, in descriptor 0; the reply goes to descriptor 1.
    mem.write(REQUEST, &[23, 0, 0, 0, 116, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    for (at, value) in [(0, REQUEST), (8, 23), (12, 1 << 16 | 1), (16, REPLY), (24, 64), (28, 2)] {
        mem.write_u32(0x1000 + at, value);
    }
    let file = save(&mut first, &|_| true).unwrap().to_vec();
    let second = restored(&file);
    assert!(second.board.p9.as_ref().unwrap().held.is_empty());
    let mut reply = [0; 7];
    second.cpu.mem().read(REPLY, &mut reply);
    assert_eq!(reply, [11, 0, 0, 0, 7, 5, 0], "an RLERROR");
    assert_eq!(second.cpu.mem().read_u32(0x3000) >> 16, 1, "the used ring has it");
}

#[test]
fn a_request_for_a_folder_of_the_host_that_has_no_answer_fails() {
    use crate::virtio::shares::Open;
    const REPLY: u32 = 0x5000;
    let mut first = machine(true);
    let shares = first.board.shares.as_mut().unwrap();
    shares.transport.device_status = crate::virtio::STATUS_DRIVER_OK;
    let queue = &mut shares.transport.queues[0];
    (queue.size, queue.enabled, queue.avail_last_idx) = (4, true, 1);
    (queue.desc_addr, queue.avail_addr, queue.used_addr) = (0x1000, 0x2000, 0x3000);
    (shares.open, shares.next) = (vec![Open { head: 0, tag: 5, number: 77 }], 78);
    let mem = first.cpu.mem_mut();
    for (at, value) in [(0, 0x4000), (8, 7), (12, 1 << 16 | 1), (16, REPLY), (24, 64), (28, 2)] {
        mem.write_u32(0x1000 + at, value);
    }
    let file = save(&mut first, &|_| true).unwrap().to_vec();
    assert_eq!(first.board.shares.as_ref().unwrap().open.len(), 1, "the machine that was saved has it still");
    let mut second = restored(&file);
    assert!(second.board.shares.as_ref().unwrap().open.is_empty());
    let mut reply = [0; 11];
    second.cpu.mem().read(REPLY, &mut reply);
    assert_eq!(reply, [11, 0, 0, 0, 7, 5, 0, 5, 0, 0, 0], "EIO");
    assert_eq!(second.cpu.mem().read_u32(0x3000) >> 16, 1, "the used ring has it");
    assert!(second.board.shares.as_ref().unwrap().irq());
    let Pc { board, cpu, .. } = &mut second;
    assert!(board.shares_answer(cpu.mem_mut(), 77, b"late"));
    assert_eq!(second.cpu.mem().read_u32(0x3000) >> 16, 1);
}

#[test]
fn a_state_of_a_machine_without_folders_makes_one_without() {
    let file = save(&mut machine(false), &|_| true).unwrap().to_vec();
    assert!(restored(&file).board.shares.is_none());
    let file = without_ours(&save(&mut machine(true), &|_| true).unwrap().to_vec());
    assert!(restored(&file).board.shares.is_none());
}

#[test]
fn machines_of_old_versions_have_one_channel() {
    let disc = Medium::new(vec![7; 5 * 2048], Form::Whole);
    for (unit, number) in [(Unit::Cdrom(Some(disc)), 56), (Unit::Disk(disk(Form::Written)), 57)] {
        let ide = Units([Some([Some(unit), None]), None]);
        let config = BoardConfig { ide, ..BoardConfig::default() };
        let clock = Box::new(ManualClock::default());
        let mut first = Pc::new(Memory::new(4 << 20).unwrap(), config, clock, Box::new(Seeded(1))).unwrap();
        let file = save(&mut first, &|_| true).unwrap().to_vec();
        let state = Container::parse(&file).unwrap().state;
        assert!(!state.at(number).is_null() && state.at(85).is_null());
        let mut second = restored(&file);
        assert!(second.board.ide.channels[1].is_none());
        assert!(file == save(&mut second, &|_| true).unwrap().to_vec());
    }
}

#[test]
fn disks_that_cannot_be_are_refused() {
    let mut first = machine(true);
    let file = without_ours(&save(&mut first, &|_| true).unwrap().to_vec());
    let size = SECTORS * 512;
    for (from, to, problem) in [
        (format!(",{SECTORS},512,"), format!(",{},512,", SECTORS - 1), "contents has"),
        (format!("[{size},{{"), format!("[{},{{", size - 1), "contents has"),
        (",80,0,-1,0,-1,".into(), ",88,0,32,0,-1,".into(), "has moved 0 of 0"),
        (",80,0,-1,0,-1,".into(), ",88,0,16,0,-1,".into(), "moves none"),
        (",80,0,-1,0,-1,".into(), ",80,0,999,0,-1,".into(), "no command"),
    ] {
        let text = String::from_utf8_lossy(&file).into_owned();
        let at = text.find(&from).unwrap_or_else(|| panic!("{from}"));
        // The file's text is that of its bytes up to there: it begins with the header.
        let head = 16 - String::from_utf8_lossy(&file[..16]).len() as isize;
        let at = at.wrapping_add_signed(head);
        let mut bad = file.clone();
        bad.splice(at..at + from.len(), to.bytes());
        let info = u32::from_le_bytes(bad[12..16].try_into().unwrap()) as usize;
        let blank = 16 + info - from.len();
        let grown = bad.len() - file.len();
        bad.drain(blank..blank + grown);
        let error = Plan::read(&Container::parse(&bad).unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("entry 85 (ide), primary channel, master") && error.contains(problem),
            "{error}"
        );
    }
    let plan = Plan::read(&Container::parse(&file).unwrap()).unwrap();
    let config = plan.configure(BoardConfig { ide: units(false), ..BoardConfig::default() });
    let clock = Box::new(ManualClock::default());
    let mut other = Pc::new(plan.pages().copy(&file).unwrap(), config, clock, Box::new(Seeded(1))).unwrap();
    assert!(matches!(plan.apply(&mut other, &file), Err(StateError::OtherMachine(_))));
}

#[test]
fn a_state_of_v86_is_resumed() {
    // Set by the peer tests: a state that v86 has written.
    let Ok(path) = std::env::var("ENV86_TEST_STATE") else { return };
    let file = std::fs::read(path).unwrap();
    let mut machine = restored(&file);
    let again = save(&mut machine, &|_| true).unwrap().to_vec();
    Plan::read(&Container::parse(&again).unwrap()).unwrap();
}

#[test]
fn another_machine_is_left_alone() {
    let file = save(&mut machine(false), &|_| true).unwrap().to_vec();
    let plan = Plan::read(&Container::parse(&file).unwrap()).unwrap();
    let mut other = machine(true);
    let before = other.cpu.state();
    assert!(matches!(plan.apply(&mut other, &file), Err(StateError::OtherMachine(_))));
    assert_eq!(other.cpu.state(), before);
}

/// A state that v86 would have written: without additions of ours, and so without checksums.
fn without_ours(file: &[u8]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    bytes[16 + 6] = b'7';
    bytes
}

/// Changes a file in some place: a number in the list of registers, a piece of it, or a byte.
fn harm(file: &mut [u8], random: &mut Random) {
    const NUMBERS: [&str; 12] =
        ["0", "-1", "1", "255", "65535", "65536", "4294967295", "-2147483648", "1e308", "0.5", "null", "[]"];
    let info = u32::from_le_bytes([file[12], file[13], file[14], file[15]]) as usize;
    let text = &file[16..16 + info];
    let used = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    match random.below(8) {
        0 => {
            let at = random.below(file.len());
            file[at] = random.below(256) as u8;
        }
        1 => {
            let at = 16 + random.below(used);
            file[at] = b"0123456789,[]{}\"-ntf"[random.below(20)];
        }
        _ => {
            // Another number in place of one, with blanks taken from the end or added there.
            let start = random.below(used);
            let digit = |at: usize| text.get(at).is_some_and(|b| b.is_ascii_digit() || *b == b'-');
            let Some(start) = (start..used).find(|at| digit(*at) && !digit(at.wrapping_sub(1))) else {
                return;
            };
            let end = (start..used).find(|at| !digit(*at)).unwrap_or(used);
            let number = NUMBERS[random.below(NUMBERS.len())].as_bytes();
            let mut changed = text[..start].to_vec();
            changed.extend(number);
            changed.extend(&text[end..used]);
            if changed.len() <= info {
                changed.resize(info, b' ');
                file[16..16 + info].copy_from_slice(&changed);
            }
        }
    }
}

/// Seeded, and short; `ENV86_FUZZ_SECONDS` makes it long.
#[test]
fn hostile_states_do_no_harm() {
    let seconds = std::env::var("ENV86_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let seed = if seconds.is_some() { u64::from(std::process::id()) | 1 << 40 } else { 1 << 40 | 1 };
    let mut random = Random(seed);
    let seeds = [false, true].map(|acpi| {
        let mut machine = machine(acpi);
        disturb(&mut machine);
        without_ours(&save(&mut machine, &|_| true).unwrap().to_vec())
    });
    let start = std::time::Instant::now();
    let (mut read, mut tried) = (0, 0);
    while seconds.map_or(tried < 200, |s: u64| start.elapsed().as_secs() < s) {
        tried += 1;
        let mut file = seeds[random.below(2)].clone();
        for _ in 0..=random.below(4) {
            harm(&mut file, &mut random);
        }
        let Ok(container) = Container::parse(&file) else { continue };
        let Ok(plan) = Plan::read(&container) else { continue };
        // What was accepted has to run.
        let memory = plan.pages().copy(&file).unwrap();
        let config = plan.configure(BoardConfig { ide: saved_units(&plan, &file), ..BoardConfig::default() });
        let clock = ManualClock::default();
        clock.advance(plan.time);
        let mut machine = Pc::new(memory, config, Box::new(clock), Box::new(Seeded(1))).unwrap();
        if plan.apply(&mut machine, &file).is_ok() {
            read += 1;
            machine.run(2_000);
            if let Err(error) = save(&mut machine, &|_| true) {
                panic!("{error}");
            }
        }
    }
    assert!(
        read > tried / 20,
        "{read} of {tried} states could be resumed: the harm is too great to test much"
    );
}

/// Goes on for 100 ms of guest time in steps of a millisecond; gives what is heard.
fn heard(machine: &mut Pc, clock: &ManualClock) -> Vec<[i16; 2]> {
    let mut frames = Vec::new();
    for _ in 0..100 {
        clock.advance(1_000_000);
        let sound = machine.board.sound_output(machine.cpu.mem_mut());
        frames.extend(sound.into_iter().flat_map(|sound| sound.frames));
    }
    frames
}

#[test]
fn what_plays_goes_on_playing() {
    let clock = ManualClock::default();
    clock.advance(1_234_567);
    let mem = Memory::new(1 << 20).unwrap();
    let mut machine =
        Pc::new(mem, BoardConfig::default(), Box::new(clock.clone()), Box::new(Seeded(1))).unwrap();
    let samples: Vec<u8> = (0..4096u32).map(|at| ((at * at) >> 5) as u8).collect();
    machine.cpu.mem_mut().write(0x2_0000, &samples);
    let mut out = |port, values: &[u8]| {
        for value in values {
            machine.board.port_write(machine.cpu.mem_mut(), port, Width::Byte, (*value).into());
        }
    };
    // The speaker at 1 kHz; channel 1 over 4096 bytes again and again, at 11025 Hz; and a note.
    out(0x43, &[0xb6]);
    out(0x42, &[0xa9, 0x04]);
    out(0x61, &[0x03]);
    out(0x0b, &[0x59]);
    out(0x02, &[0, 0]);
    out(0x03, &[0xff, 0x0f]);
    out(0x83, &[2]);
    out(0x0a, &[1]);
    out(0x22c, &[0x41, 0x2b, 0x11, 0xc6, 0x00, 0xff, 0x0f]);
    for (register, value) in [(0x20, 0x62), (0x23, 0xe1), (0x43, 0), (0x63, 0x94), (0x83, 0x34), (0xa0, 0xae)]
    {
        out(0x388, &[register]);
        out(0x389, &[value]);
    }
    out(0x388, &[0xb0]);
    out(0x389, &[0x2e]);
    let before = heard(&mut machine, &clock);
    assert!(before.len() > 4700 && before.iter().any(|frame| frame[0] > 1000));
    // In the middle of a frame, and of a command.
    clock.advance(7_777);
    machine.board.port_write(machine.cpu.mem_mut(), 0x22c, Width::Byte, 0x41);
    let file = save(&mut machine, &|_| true).unwrap().to_vec();
    machine.board.sound_output(machine.cpu.mem_mut());
    let container = Container::parse(&file).unwrap();
    let plan = Plan::read(&container).unwrap();
    let own_clock = ManualClock::default();
    own_clock.advance(plan.time);
    let (memory, config) = (plan.pages().copy(&file).unwrap(), plan.configure(BoardConfig::default()));
    let mut other = Pc::new(memory, config, Box::new(own_clock.clone()), Box::new(Seeded(1))).unwrap();
    plan.apply(&mut other, &file).unwrap();
    for _ in 0..10 {
        let frames = heard(&mut machine, &clock);
        assert!(frames.len() > 4700);
        assert!(frames == heard(&mut other, &own_clock));
    }
    assert_eq!(other.board.sb16.dsp.command, 0x41);
}
