//! The controller as drivers use it: through its ports.

use super::atapi::PACKET;
use super::bus_master::{ACTIVE, INTERRUPT, START, TO_MEMORY};
use super::drive::{ABRT, BSY, DRQ, ERR, IDNF, READY, UNC};
use super::*;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

const SECTORS: u64 = 4000;
const CD_SECTORS: u64 = 30;
/// Where a test puts the bus master's table, and its data.
const TABLE: u32 = 0x1000;
const BUFFER: u32 = 0x2_0000;

/// What every sector begins with: its number.
fn image(sectors: u64, size: usize) -> Vec<u8> {
    (0..sectors).flat_map(|n| [n.to_le_bytes().to_vec(), vec![n as u8; size - 8]].concat()).collect()
}

/// How long a test's media let their drives wait.
#[derive(Clone, Copy, Debug)]
enum Lag {
    None,
    /// As many questions as chance says, which starts here.
    Random(u64),
}

impl Lag {
    fn medium(self, image: Vec<u8>, form: Form) -> Medium {
        match self {
            Self::None => Medium::new(image, form),
            Self::Random(seed) => Medium::new(Late::new(image, seed), form),
        }
    }
}

/// An image that answers as a test says.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<AtomicU8>);

impl Gate {
    const OPEN: u8 = 1;
    const BROKEN: u8 = 2;

    fn set(&self, answer: u8) {
        self.0.store(answer, Ordering::Relaxed);
    }
}

impl DiskImage for Gate {
    fn size(&self) -> u64 {
        SECTORS * 512
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        match self.0.load(Ordering::Relaxed) {
            Self::OPEN => image(SECTORS, 512).read(offset, buf),
            Self::BROKEN => Poll::Ready(Err(DiskImageError("gone".into()))),
            _ => Poll::Pending,
        }
    }
}

/// Runs each test with media that answer at once, and with media that let their drives wait.
macro_rules! with_media {
    ($($test:ident)*) => {
        mod at_once {
            $(#[test]
            fn $test() {
                super::$test(super::Lag::None);
            })*
        }
        mod late {
            $(#[test]
            fn $test() {
                (1..=8).for_each(|seed| super::$test(super::Lag::Random(seed)));
            })*
        }
    };
}

with_media! {
    sectors_are_read_by_every_address
    a_count_of_zero_is_the_most
    multiple_sectors_come_in_a_block
    what_is_written_is_read_and_the_neighbours_stay
    the_bus_master_moves_data_both_ways
    tables_of_other_lengths_end_as_the_datasheet_says
    a_table_without_an_end_is_left
    registers_of_the_bus_master
    errors_tell_why
    disks_say_who_they_are
    geometry_can_be_set
    commands_without_data
    resets_sign
    nobody_is_at_the_end_of_the_cable
    interrupts_can_be_held_back
    discs_are_read
    drives_tell_of_themselves_and_of_the_disc
    trays_open_and_close
    the_function_shows_the_channels_that_there_are
    a_hard_reset_keeps_the_media
    what_v86_was_waiting_for_is_asked_for_again
    a_bus_master_that_had_not_begun_begins
    a_disc_that_v86_has_just_got_is_no_transfer
}

struct Host {
    ide: Ide,
    mem: Box<Memory>,
    channel: u8,
}

impl Host {
    /// At the channel of the hard disks.
    fn disk(lag: Lag) -> Self {
        let hda = lag.medium(image(SECTORS, 512), Form::Whole);
        let hdb = lag.medium(image(100, 512), Form::Written);
        let cdrom = lag.medium(image(CD_SECTORS, 2048), Form::Whole);
        Self::of(Units::new(Some(hda), Some(hdb), Some(cdrom)), 0)
    }

    /// At the channel of the CD-ROM drive.
    fn cdrom(lag: Lag) -> Self {
        Self { channel: 1, ..Self::disk(lag) }
    }

    /// At a hard disk whose image answers as the gate says, and at a drive with a disc like that.
    fn gated() -> (Self, Gate) {
        let gate = Gate::default();
        let medium = || Some(Medium::new(gate.clone(), Form::Written));
        (Self::of(Units::new(medium(), None, medium()), 0), gate)
    }

    fn of(units: Units, channel: u8) -> Self {
        let mut host = Self { ide: Ide::new(units), mem: Memory::new(4 << 20).unwrap(), channel };
        (0..2).for_each(|channel| host.ide.write_control(channel, 0));
        host
    }

    fn put(&mut self, offset: u16, value: u8) {
        self.ide.write(&mut self.mem, self.channel, offset, Width::Byte, value.into());
    }

    /// Lets the data come that the drive waits for.
    fn settle(&mut self) {
        while self.ide.read_control(self.channel) & BSY != 0 {
            assert_eq!((self.get(STATUS), self.irq()), (READY | BSY, false));
            self.arrive();
        }
    }

    fn arrive(&mut self) {
        self.ide.media_arrived(&mut self.mem);
    }

    fn get(&mut self, offset: u16) -> u8 {
        self.ide.read(self.channel, offset, Width::Byte) as u8
    }

    fn irq(&self) -> bool {
        self.ide.irq(self.channel.into())
    }

    /// A command, to its end or to its data.
    fn command(&mut self, command: u8, device: u8, lba: u32, count: u8) {
        self.issue(command, device, lba, count);
        self.settle();
    }

    fn issue(&mut self, command: u8, device: u8, lba: u32, count: u8) {
        let [low, mid, high, top] = lba.to_le_bytes();
        self.put(DEVICE, device | top & 0x0f);
        self.put(SECTOR_COUNT, count);
        self.put(LBA_LOW, low);
        self.put(LBA_MID, mid);
        self.put(LBA_HIGH, high);
        self.put(COMMAND, command);
    }

    /// A command with a 48-bit address.
    fn command_ext(&mut self, command: u8, lba: u64, count: u16) {
        let b = lba.to_le_bytes();
        self.put(DEVICE, 0x40);
        for (offset, [previous, last]) in [
            (SECTOR_COUNT, count.to_be_bytes()),
            (LBA_LOW, [b[3], b[0]]),
            (LBA_MID, [b[4], b[1]]),
            (LBA_HIGH, [b[5], b[2]]),
        ] {
            self.put(offset, previous);
            self.put(offset, last);
        }
        self.put(COMMAND, command);
        self.settle();
    }

    /// Reads DRQ blocks of so many bytes until there are no more, each after its interrupt.
    fn read_blocks(&mut self, block: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while self.ide.read_control(self.channel) & DRQ != 0 {
            assert!(self.irq(), "no interrupt at byte {}", data.len());
            assert_eq!(self.get(STATUS), READY | DRQ);
            assert!(!self.irq());
            for _ in 0..block / 2 {
                data.extend(&self.ide.read(self.channel, DATA, Width::Word).to_le_bytes()[..2]);
            }
        }
        data
    }

    fn write_blocks(&mut self, block: usize, data: &[u8]) {
        for (i, bytes) in data.chunks(block).enumerate() {
            assert_eq!(self.irq(), i > 0);
            assert_eq!(self.get(STATUS), READY | DRQ);
            for dword in bytes.chunks(4) {
                let value = u32::from_le_bytes(dword.try_into().unwrap());
                self.ide.write(&mut self.mem, self.channel, DATA, Width::Dword, value);
            }
        }
        assert!(self.irq());
        assert_eq!(self.get(STATUS), READY);
    }

    /// Sets up the bus master with regions of these sizes one after the other.
    fn table(&mut self, sizes: &[u32]) {
        let mut address = BUFFER;
        for (i, size) in (0..).zip(sizes) {
            let last = if i as usize + 1 == sizes.len() { 1 << 31 } else { 0 };
            self.mem.write_u32(TABLE + 8 * i, address);
            self.mem.write_u32(TABLE + 8 * i + 4, size & 0xffff | last);
            address += size;
        }
        self.bus_master(4, Width::Dword, TABLE);
    }

    fn bus_master(&mut self, offset: u16, width: Width, value: u32) {
        self.ide.write_bus_master(&mut self.mem, u16::from(self.channel) * 8 + offset, width, value);
    }

    fn bus_master_status(&mut self) -> u8 {
        self.ide.read_bus_master(u16::from(self.channel) * 8 + 2, Width::Byte) as u8
    }

    fn start_dma(&mut self, direction: u8) {
        self.bus_master(0, Width::Byte, direction.into());
        self.bus_master(0, Width::Byte, (direction | START).into());
    }

    /// A packet command, to its end or to its data.
    fn packet(&mut self, features: u8, limit: u16, packet: &[u8]) {
        self.issue_packet(features, limit, packet);
        self.settle();
    }

    fn issue_packet(&mut self, features: u8, limit: u16, packet: &[u8]) {
        let [low, high] = limit.to_le_bytes();
        self.put(FEATURES, features);
        self.put(LBA_MID, low);
        self.put(LBA_HIGH, high);
        self.put(COMMAND, PACKET);
        assert_eq!((self.get(STATUS), self.get(SECTOR_COUNT) & 7, self.irq()), (READY | DRQ, 1, false));
        let mut bytes = packet.to_vec();
        bytes.resize(12, 0);
        for word in bytes.chunks(2) {
            let value = u16::from_le_bytes([word[0], word[1]]);
            self.ide.write(&mut self.mem, self.channel, DATA, Width::Word, value.into());
        }
    }

    /// A packet command by PIO: its data, or its sense data.
    fn ask(&mut self, packet: &[u8]) -> Result<Vec<u8>, (u8, u8, u8)> {
        self.packet(0, 0xfffe, packet);
        assert!(self.irq());
        if self.get(STATUS) & ERR != 0 {
            let key = self.get(ERROR) >> 4;
            let sense = self.ask(&[3, 0, 0, 0, 18]).unwrap();
            assert_eq!((sense[0], sense[2]), (0x70, key));
            return Err((sense[2], sense[12], sense[13]));
        }
        let mut data = Vec::new();
        while self.ide.read_control(self.channel) & DRQ != 0 {
            assert_eq!(self.get(SECTOR_COUNT) & 7, 2);
            let n = usize::from(self.get(LBA_MID)) | usize::from(self.get(LBA_HIGH)) << 8;
            let mut left = n;
            while left > 0 {
                let taken = left.min(2);
                data.extend(&self.ide.read(self.channel, DATA, Width::Word).to_le_bytes()[..taken]);
                left -= taken;
            }
            assert!(self.irq());
            self.get(STATUS);
        }
        assert_eq!((self.get(SECTOR_COUNT) & 7, self.get(STATUS)), (3, READY));
        Ok(data)
    }
}

fn numbers(data: &[u8], size: usize) -> Vec<u64> {
    data.chunks(size).map(|s| u64::from_le_bytes(s[..8].try_into().unwrap())).collect()
}

fn sectors_are_read_by_every_address(lag: Lag) {
    let mut host = Host::disk(lag);
    host.command(0x20, 0x40, 1234, 3);
    let data = host.read_blocks(512);
    assert_eq!(numbers(&data, 512), [1234, 1235, 1236]);
    assert_eq!(host.get(STATUS), READY);
    // Cylinder 1, head 1, sector 2 of 16 heads and 63 sectors.
    host.command(0x20, 0x01, 0x00_01_02, 1);
    assert_eq!(numbers(&host.read_blocks(512), 512), [16 * 63 + 63 + 1]);
    host.command_ext(0x24, 3999, 1);
    assert_eq!(numbers(&host.read_blocks(512), 512), [3999]);
    host.command(0x20, 0x50, 99, 1);
    assert_eq!(numbers(&host.read_blocks(512), 512), [99], "the slave");
}

fn a_count_of_zero_is_the_most(lag: Lag) {
    let mut host = Host::disk(lag);
    host.command(0x20, 0x40, 0, 0);
    assert_eq!(host.read_blocks(512).len(), 256 * 512);
    host.command_ext(0x24, 0, 0);
    assert_eq!(host.get(ERROR), IDNF, "65536 sectors are not there");
}

fn multiple_sectors_come_in_a_block(lag: Lag) {
    let mut host = Host::disk(lag);
    host.command(0xc6, 0x40, 0, 3);
    assert_eq!(host.get(ERROR), ABRT);
    host.command(0xc6, 0x40, 0, 4);
    assert_eq!(host.get(STATUS), READY);
    host.command(0xc4, 0x40, 10, 8);
    assert_eq!(numbers(&host.read_blocks(2048), 512), (10..18).collect::<Vec<_>>());
    let data: Vec<u8> = (0..4096u32).map(|i| (i / 7) as u8).collect();
    host.command_ext(0x39, 20, 8);
    host.write_blocks(2048, &data);
    host.command_ext(0x29, 20, 8);
    assert_eq!(host.read_blocks(2048), data);
    // The last block has what is left.
    host.command(0xc5, 0x40, 100, 5);
    host.write_blocks(2048, &data[..2560]);
    host.command(0x20, 0x40, 100, 5);
    assert_eq!(host.read_blocks(512), data[..2560]);
}

fn what_is_written_is_read_and_the_neighbours_stay(lag: Lag) {
    let mut host = Host::disk(lag);
    host.command(0x30, 0x40, 7, 2);
    assert!(!host.irq(), "the first block is not announced");
    host.write_blocks(512, &[0xa5; 1024]);
    host.command(0x20, 0x40, 6, 4);
    let data = host.read_blocks(512);
    assert_eq!(data[512..1536], [0xa5; 1024]);
    assert_eq!((numbers(&data, 512)[0], numbers(&data, 512)[3]), (6, 9));
}

fn the_bus_master_moves_data_both_ways(lag: Lag) {
    let mut host = Host::disk(lag);
    host.table(&[512, 1024, 510, 2]);
    host.command(0xc8, 0x40, 50, 4);
    assert_eq!(host.get(STATUS), READY | DRQ);
    assert!(!host.irq());
    host.start_dma(TO_MEMORY);
    assert!(host.irq());
    assert_eq!(host.bus_master_status(), INTERRUPT);
    let mut data = vec![0; 2048];
    host.mem.read(BUFFER, &mut data);
    assert_eq!(numbers(&data, 512), [50, 51, 52, 53]);
    host.bus_master(2, Width::Byte, 4);
    assert_eq!((host.bus_master_status(), host.get(STATUS)), (0, READY));
    // Back to elsewhere, the bus master started before the command.
    host.start_dma(0);
    assert_eq!(host.bus_master_status(), ACTIVE);
    host.command_ext(0x35, 60, 4);
    assert_eq!(host.bus_master_status(), INTERRUPT);
    host.command(0x20, 0x40, 60, 4);
    assert_eq!(numbers(&host.read_blocks(512), 512), [50, 51, 52, 53]);
}

fn tables_of_other_lengths_end_as_the_datasheet_says(lag: Lag) {
    let mut host = Host::disk(lag);
    host.table(&[4096]);
    host.command(0xc8, 0x40, 0, 1);
    host.start_dma(TO_MEMORY);
    assert_eq!(host.bus_master_status(), ACTIVE | INTERRUPT, "longer than the data");
    assert_eq!(host.get(STATUS), READY);
    host.bus_master(2, Width::Byte, 4);
    host.table(&[512]);
    host.command(0xc8, 0x40, 1, 2);
    host.start_dma(TO_MEMORY);
    assert_eq!(host.bus_master_status(), 0, "shorter than the data: nobody interrupts");
    assert_eq!(host.get(STATUS), READY | DRQ);
    // What is left can still be fetched.
    host.start_dma(TO_MEMORY);
    assert_eq!((host.bus_master_status(), host.mem.read_u32(BUFFER)), (INTERRUPT, 2));
}

fn a_table_without_an_end_is_left(lag: Lag) {
    let mut host = Host::disk(lag);
    host.mem.write(0x10_0000, &[0; 0x1_0000]);
    for region in 0..8192 {
        host.mem.write_u32(0x10_0000 + region * 8, BUFFER);
        host.mem.write_u32(0x10_0000 + region * 8 + 4, 2);
    }
    host.bus_master(4, Width::Dword, 0x10_8000);
    host.command(0xc8, 0x40, 0, 0);
    host.start_dma(TO_MEMORY);
    assert_eq!(host.get(STATUS), READY | DRQ);
    assert!(!host.irq());
}

fn registers_of_the_bus_master(lag: Lag) {
    let mut host = Host::disk(lag);
    host.bus_master(2, Width::Byte, 0x60);
    assert_eq!(host.bus_master_status(), 0x60, "capable");
    host.bus_master(4, Width::Dword, 0xffff_ffff);
    assert_eq!(host.ide.read_bus_master(4, Width::Dword), 0xffff_fffc);
    host.bus_master(5, Width::Byte, 0x12);
    assert_eq!(host.ide.read_bus_master(4, Width::Word), 0x12fc);
    host.bus_master(0, Width::Dword, 0x0060_0009);
    assert_eq!(host.ide.read_bus_master(0, Width::Dword), 0x0061_0009);
    host.bus_master(0, Width::Byte, 0);
    assert_eq!(host.ide.read_bus_master(0, Width::Dword), 0x0060_0000);
    let mut lonely = Ide::new(Units::default());
    assert_eq!(lonely.read_bus_master(2, Width::Byte), 0, "no simplex bit for the channel that is not there");
}

fn errors_tell_why(lag: Lag) {
    let mut host = Host::disk(lag);
    for (command, lba, count, error) in
        [(0x20, 3999, 2, IDNF), (0xca, 0xfff_ffff, 1, IDNF), (0x40, 3990, 20, IDNF), (0xb0, 0, 1, ABRT)]
    {
        host.command(command, 0x40, lba, count);
        assert!(host.irq());
        assert_eq!((host.get(ERROR), host.get(STATUS)), (error, READY | ERR), "{command:02x}");
    }
    host.command(0x20, 0, 0x00_00_00, 1);
    assert_eq!(host.get(ERROR), IDNF, "there is no sector 0");
    let (mut host, gate) = Host::gated();
    gate.set(Gate::BROKEN);
    host.command(0x20, 0x40, 5, 1);
    assert_eq!((host.get(ERROR), host.get(STATUS)), (UNC, READY | ERR));
}

fn disks_say_who_they_are(lag: Lag) {
    let mut host = Host::disk(lag);
    host.command(0xec, 0x40, 0, 0);
    let data = host.read_blocks(512);
    let word = |at: usize| u16::from_le_bytes([data[2 * at], data[2 * at + 1]]);
    assert_eq!([0, 1, 3, 6, 47].map(word), [0x0040, 3, 16, 63, 0x8080]);
    assert_eq!((word(60), word(61), word(100), word(63)), (4000, 0, 4000, 0x0407));
    let text: Vec<u8> = data[54..94].chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    assert_eq!(text.trim_ascii_end(), b"v86 ATA HD");
    let serial: Vec<u8> = data[20..40].chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    assert_eq!(serial.trim_ascii_end(), b"8086-8600");
    host.command(0xf8, 0x40, 0, 0);
    assert_eq!((host.get(LBA_LOW), host.get(LBA_MID)), (0x9f, 0x0f));
    host.command_ext(0x27, 0, 0);
    assert_eq!((host.get(LBA_LOW), host.get(LBA_MID)), (0x9f, 0x0f));
    host.ide.write_control(0, 0x80);
    assert_eq!(host.get(LBA_LOW), 0, "the byte before (HOB)");
    host.put(LBA_LOW, 5);
    assert_eq!(host.get(LBA_LOW), 5, "a write ends that");
}

fn geometry_can_be_set(lag: Lag) {
    let mut host = Host::disk(lag);
    host.command(0x91, 0x03, 0, 17); // 4 heads
    host.command(0x20, 0x02, 0x00_05_03, 1);
    assert_eq!(numbers(&host.read_blocks(512), 512), [(5 * 4 + 2) * 17 + 2]);
    host.command(0x20, 0x04, 0x00_05_03, 1);
    assert_eq!(host.get(ERROR), IDNF, "head 4 of 4");
    host.command(0xec, 0, 0, 0);
    let data = host.read_blocks(512);
    let word = |at: usize| u16::from_le_bytes([data[2 * at], data[2 * at + 1]]);
    assert_eq!([1, 3, 6, 54, 55, 56].map(word), [3, 16, 63, 58, 4, 17]);
}

fn commands_without_data(lag: Lag) {
    let mut host = Host::disk(lag);
    for command in [0x10, 0x70, 0x40, 0x42, 0xe7, 0xea, 0xe0, 0xe1, 0xe2, 0xe3, 0xe6, 0x94] {
        host.command(command, 0x40, 0, 1);
        assert!(host.irq());
        assert_eq!(host.get(STATUS), READY, "{command:02x}");
    }
    host.command(0xe5, 0x40, 0, 0);
    assert_eq!(host.get(SECTOR_COUNT), 0xff);
    for (feature, mode, good) in [(3, 0x22, true), (3, 0x0c, true), (3, 0x45, false), (0x77, 0, false)] {
        host.put(FEATURES, feature);
        host.command(0xef, 0x40, 0, mode);
        assert_eq!(host.get(STATUS) & ERR == 0, good, "{feature:02x} {mode:02x}");
    }
}

fn resets_sign(lag: Lag) {
    let mut host = Host::disk(lag);
    host.command(0x20, 0x50, 0, 1);
    host.ide.write_control(0, 4);
    assert_eq!((host.get(STATUS), host.irq()), (BSY, false));
    host.ide.write_control(0, 0);
    let signature = |host: &mut Host| [1, 2, 3, 4, 5, 6].map(|offset| host.get(offset));
    assert_eq!((signature(&mut host), host.get(STATUS)), ([1, 1, 1, 0, 0, 0], READY));
    host.put(DEVICE, 0x10);
    host.put(COMMAND, 0x90);
    assert!(host.irq());
    assert_eq!((signature(&mut host), host.get(STATUS)), ([1, 1, 1, 0, 0, 0], READY));
    let mut cd = Host::cdrom(lag);
    cd.put(COMMAND, 0x08);
    assert!(!cd.irq());
    assert_eq!((signature(&mut cd), cd.get(STATUS)), ([1, 1, 1, 0x14, 0xeb, 0], 0));
    for command in [0xec, 0x20] {
        cd.put(COMMAND, command);
        assert_eq!((cd.get(STATUS), cd.get(ERROR), cd.get(LBA_HIGH)), (READY | ERR, ABRT, 0xeb));
    }
}

fn nobody_is_at_the_end_of_the_cable(lag: Lag) {
    let mut host = Host::cdrom(lag);
    host.put(DEVICE, 0x10);
    host.put(SECTOR_COUNT, 0x55);
    host.put(COMMAND, 0xec);
    assert_eq!((host.get(STATUS), host.get(SECTOR_COUNT), host.irq()), (0, 0, false));
    let mut ide = Ide::new(Units::default());
    assert_eq!((ide.read(0, STATUS, Width::Byte), ide.read_control(0)), (0, 0), "no channel");
}

fn interrupts_can_be_held_back(lag: Lag) {
    let mut host = Host::disk(lag);
    host.ide.write_control(0, 2);
    host.command(0xe7, 0x40, 0, 0);
    assert!(!host.irq());
    assert_eq!(host.bus_master_status(), 0);
    host.ide.write_control(0, 0);
    assert!(host.irq(), "it still waits");
    assert!(!host.ide.take_pulse(0));
    host.command(0xe7, 0x40, 0, 0);
    assert!(host.irq() && host.ide.take_pulse(0), "one was not acknowledged, and here is another");
    host.ide.read_control(0);
    assert!(host.irq(), "Alternate Status acknowledges nothing");
    host.get(STATUS);
    assert!(!host.irq());
}

fn discs_are_read(lag: Lag) {
    let mut host = Host::cdrom(lag);
    let read = |lba: u8, count: u8| [0x28, 0, 0, 0, 0, lba, 0, 0, count];
    assert_eq!(numbers(&host.ask(&read(3, 4)).unwrap(), 2048), [3, 4, 5, 6]);
    assert_eq!(numbers(&host.ask(&[0xa8, 0, 0, 0, 0, 29, 0, 0, 0, 1]).unwrap(), 2048), [29]);
    assert_eq!(numbers(&host.ask(&[0xbe, 8, 0, 0, 0, 7, 0, 0, 1, 0x10]).unwrap(), 2048), [7]);
    assert!(host.ask(&read(0, 0)).unwrap().is_empty());
    assert_eq!(host.ask(&read(29, 2)), Err((5, 0x21, 0)));
    assert_eq!(host.ask(&[0xa8, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), Err((5, 0x21, 0)));
    assert_eq!(host.ask(&[0xff]), Err((5, 0x20, 0)));
    // Blocks of an odd limit are even.
    host.packet(0, 1001, &read(1, 1));
    assert_eq!((host.get(LBA_MID), host.get(LBA_HIGH)), (0xe8, 3));
    // By the bus master.
    host.table(&[4096]);
    host.packet(1, 0, &read(10, 2));
    assert!(!host.irq());
    host.start_dma(TO_MEMORY);
    assert_eq!((host.get(STATUS), host.get(SECTOR_COUNT) & 7), (READY, 3));
    assert_eq!((host.mem.read_u32(BUFFER), host.mem.read_u32(BUFFER + 2048)), (10, 11));
}

fn drives_tell_of_themselves_and_of_the_disc(lag: Lag) {
    let mut host = Host::cdrom(lag);
    assert_eq!(host.ask(&[0x12, 0, 0, 0, 36]).unwrap()[8..12], *b"SONY");
    assert_eq!(host.ask(&[0x12, 0, 0, 0, 5]).unwrap(), [5, 0x80, 0, 0x31, 31]);
    assert_eq!(host.ask(&[0x25]).unwrap(), [0, 0, 0, 29, 0, 0, 8, 0]);
    let toc = host.ask(&[0x43, 0, 0, 0, 0, 0, 0, 0, 100]).unwrap();
    assert_eq!(toc, [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 0, 30]);
    let toc = host.ask(&[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 100]).unwrap();
    assert_eq!(toc, [0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 0, 2, 30]);
    assert_eq!(host.ask(&[0x43, 0, 0, 0, 0, 0, 0, 0, 100, 0x40]).unwrap().len(), 12);
    assert_eq!(host.ask(&[0x43, 0, 2, 0, 0, 0, 0, 0, 100]).unwrap().len(), 48);
    let page = host.ask(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 100]).unwrap();
    assert_eq!((page.len(), page[1], page[8], page[9]), (28, 26, 0x2a, 18));
    assert_eq!(host.ask(&[0x5a, 0, 0xea, 0, 0, 0, 0, 0, 100]), Err((5, 0x39, 0)));
    assert_eq!(host.ask(&[0x1a, 0, 0x3f, 0, 100]).unwrap().len(), 4 + 8 + 8 + 20);
    let configuration = host.ask(&[0x46, 0, 0, 0, 0, 0, 0, 0, 100]).unwrap();
    assert_eq!((configuration[3] as usize + 4, configuration[7]), (configuration.len(), 8));
    for packet in [0x51, 0x42, 0xbd] {
        assert!(!host.ask(&[packet, 0, 0, 0, 0, 0, 0, 0, 64, 64]).unwrap().is_empty(), "{packet:02x}");
    }
    let track = host.ask(&[0x52, 1, 0, 0, 0, 1, 0, 0, 64]).unwrap();
    assert_eq!((track.len(), track[27]), (36, 30));
}

fn trays_open_and_close(lag: Lag) {
    let mut host = Host::cdrom(lag);
    let (eject, load, ready) = ([0x1b, 0, 0, 0, 2], [0x1b, 0, 0, 0, 3], [0; 6]);
    let event = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8];
    host.ask(&[0x1e, 0, 0, 0, 1]).unwrap();
    assert_eq!(host.ask(&eject), Err((5, 0x53, 2)));
    host.ask(&[0x1e, 0, 0, 0, 0]).unwrap();
    host.ask(&eject).unwrap();
    assert_eq!(host.ask(&event).unwrap(), [0, 6, 4, 0x10, 3, 1, 0, 0]);
    assert_eq!(host.ask(&ready), Err((2, 0x3a, 2)));
    assert_eq!(host.ask(&[0x25]), Err((2, 0x3a, 2)));
    host.ask(&load).unwrap();
    assert_eq!(host.ask(&event).unwrap(), [0, 6, 4, 0x10, 2, 2, 0, 0]);
    assert_eq!(host.ask(&ready), Err((6, 0x28, 0)));
    assert!(host.ask(&ready).unwrap().is_empty());
    let mut empty = Host::of(Units::default(), 1);
    assert_eq!(empty.ask(&ready), Err((2, 0x3a, 1)));
    assert_eq!(empty.ask(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1]), Err((2, 0x3a, 1)));
}

fn the_function_shows_the_channels_that_there_are(lag: Lag) {
    let space = Ide::new(Units::default()).config_space();
    let register = |space: &ConfigSpace, at| space.read(at, Width::Dword);
    assert_eq!(register(&space, 0), 0x7010_8086);
    assert_eq!(register(&space, 8), 0x0101_8000);
    let bars: Vec<_> = (0..5).map(|bar| register(&space, bar_register(bar))).collect();
    assert_eq!(bars, [0, 0, 0x171, 0x377, 0xb401]);
    let with_disk = Host::disk(lag).ide.config_space();
    assert_eq!((register(&with_disk, 0x10), register(&with_disk, 0x14)), (0x1f1, 0x3f7));
    let mut space = space;
    space.write(TIMING, Width::Dword, 0x8000_a307);
    assert_eq!(register(&space, TIMING), 0x8000_a307);
}

fn a_hard_reset_keeps_the_media(lag: Lag) {
    let mut host = Host::disk(lag);
    host.command(0x30, 0x40, 7, 1);
    host.write_blocks(512, &[1; 512]);
    host.command(0x91, 0x03, 0, 17);
    host.ide.reset();
    host.ide.write_control(0, 0);
    host.command(0x20, 0x40, 7, 1);
    assert_eq!(host.read_blocks(512), [1; 512]);
    assert_eq!(host.ide.channels[0].as_ref().unwrap().drives[0].geometry.heads, 16);
    assert_eq!(host.ide.channels[0].as_ref().unwrap().drives[1].place, (0, 1));
}

/// A drive of `host` as a state has it that v86 saved while it waited for its image.
fn saved_busy(host: &mut Host, buffer: &[u8]) -> Result<(), String> {
    let drive = host.ide.channels[usize::from(host.channel)].as_mut().unwrap().drive();
    drive.registers.status = BSY | READY;
    let sectors = drive.sectors();
    let saved = SavedTransfer { buffer, length: 0, pointer: 0, end: 0, start: 0 };
    drive.take_transfer(saved, sectors)?;
    assert!(drive.transfer.phase != super::drive::Phase::PioIn);
    drive.complete_resume();
    host.settle();
    Ok(())
}

fn what_v86_was_waiting_for_is_asked_for_again(lag: Lag) {
    let mut host = Host::disk(lag);
    host.command(0x20, 0x40, 77, 2);
    saved_busy(&mut host, &[0; 65_536]).unwrap();
    assert_eq!(numbers(&host.read_blocks(512), 512), [77, 78]);
    let mut cd = Host::cdrom(lag);
    cd.packet(0, 0, &[0x28, 0, 0, 0, 0, 9, 0, 0, 1]);
    let mut packet = vec![0x28, 0, 0, 0, 0, 9, 0, 0, 1];
    packet.resize(65_536, 0);
    saved_busy(&mut cd, &packet).unwrap();
    assert_eq!(numbers(&cd.read_blocks(2048), 2048), [9]);
}

fn a_bus_master_that_had_not_begun_begins(lag: Lag) {
    let mut host = Host::disk(lag);
    host.table(&[1024]);
    for command in [0xc8, 0xca] {
        host.command(command, 0x40, 30, 2);
        let drive = host.ide.channels[0].as_mut().unwrap().drive();
        let saved = SavedTransfer { buffer: &[], length: 0, pointer: 0, end: 0, start: 0 };
        drive.take_transfer(saved, SECTORS).unwrap();
        drive.complete_resume();
        host.settle();
        host.start_dma(if command == 0xc8 { TO_MEMORY } else { 0 });
        assert_eq!((host.irq(), host.get(STATUS)), (true, READY));
        assert_eq!(host.mem.read_u32(BUFFER), 30);
        host.start_dma(0);
        host.bus_master(0, Width::Byte, 0);
    }
}

fn a_disc_that_v86_has_just_got_is_no_transfer(lag: Lag) {
    for command in [None, Some(PACKET)] {
        let mut host = Host::cdrom(lag);
        let drive = host.ide.channels[1].as_mut().unwrap().drive();
        (drive.registers.status, drive.registers.error, drive.command) = (READY | DRQ | ERR, 0x60, command);
        let saved = SavedTransfer { buffer: &[], length: 0, pointer: 0, end: 0, start: 0 };
        drive.take_transfer(saved, 0).unwrap();
        drive.complete_resume();
        assert_eq!((host.get(STATUS), host.get(ERROR)), (READY | ERR, 0x60));
    }
}

#[test]
fn hard_disks_are_on_the_secondary_channel_too() {
    let disk = || Some(Medium::new(image(9, 512), Form::Whole));
    let disc = || Some(Medium::new(image(CD_SECTORS, 2048), Form::Whole));
    let with = |cdrom, hdc, hdd| Units::new(None, None, cdrom).with_secondary(hdc, hdd);
    let kinds = |units: Result<Units, NoPlace>| {
        units.map(|units| Ide::new(units).channels[1].take().unwrap().drives.map(|drive| drive.kind))
    };
    assert_eq!(kinds(with(disc(), None, disk())), Ok([Kind::Cdrom, Kind::Disk]));
    assert_eq!(kinds(with(disc(), disk(), None)), Ok([Kind::Disk, Kind::Cdrom]));
    assert_eq!(kinds(with(None, disk(), disk())), Ok([Kind::Disk, Kind::Disk]));
    assert_eq!(kinds(with(disc(), disk(), disk())), Err(NoPlace));
    let mut host = Host::of(with(disc(), disk(), None).unwrap(), 1);
    host.command(0x20, 0x40, 3, 1);
    assert_eq!(numbers(&host.read_blocks(512), 512), [3]);
    host.put(DEVICE, 0x10);
    host.put(COMMAND, 0x08);
    assert_eq!((host.get(LBA_MID), host.get(LBA_HIGH)), (0x14, 0xeb), "an ATAPI drive signs");
}

#[test]
fn a_drive_that_waits_is_busy_until_its_data_come() {
    let (mut host, gate) = Host::gated();
    for (command, blocks) in [(0x20, 512), (0xc4, 1024)] {
        gate.set(0);
        host.issue(command, 0x40, 33, 2);
        for _ in 0..3 {
            assert_eq!((host.get(STATUS), host.irq()), (READY | BSY, false));
            assert_eq!(host.ide.read(0, DATA, Width::Word), 0);
            // It takes nothing.
            host.put(LBA_LOW, 99);
            host.put(COMMAND, 0xe7);
            host.put(COMMAND, 0x90);
            host.put(COMMAND, 0x08);
            host.arrive();
        }
        gate.set(Gate::OPEN);
        assert!(!host.irq(), "nobody has told the drive");
        host.arrive();
        host.arrive();
        assert_eq!(numbers(&host.read_blocks(blocks), 512), [33, 34]);
        assert_eq!(host.get(STATUS), READY);
    }
}

#[test]
fn the_bus_master_waits_with_the_drive() {
    let (mut host, gate) = Host::gated();
    host.table(&[512]);
    host.issue(0xc8, 0x40, 70, 1);
    host.start_dma(TO_MEMORY);
    assert_eq!((host.bus_master_status(), host.irq()), (ACTIVE, false));
    gate.set(Gate::OPEN);
    host.arrive();
    assert_eq!((host.bus_master_status(), host.irq(), host.get(STATUS)), (INTERRUPT, true, READY));
    assert_eq!(host.mem.read_u32(BUFFER), 70);
    // Stopped meanwhile, it moves nothing before it is started again.
    gate.set(0);
    host.bus_master(2, Width::Byte, 4);
    host.issue(0xc9, 0x40, 71, 1);
    host.start_dma(TO_MEMORY);
    host.bus_master(0, Width::Byte, TO_MEMORY.into());
    gate.set(Gate::OPEN);
    host.arrive();
    assert_eq!((host.bus_master_status(), host.irq(), host.mem.read_u32(BUFFER)), (0, false, 70));
    assert_eq!(host.get(STATUS), READY | DRQ);
    host.start_dma(TO_MEMORY);
    assert_eq!((host.bus_master_status(), host.irq(), host.mem.read_u32(BUFFER)), (INTERRUPT, true, 71));
}

#[test]
fn data_for_a_drive_that_is_not_selected_wait_for_that() {
    let (hda, gate) = (Medium::new(image(100, 512), Form::Whole), Gate::default());
    let hdb = Medium::new(gate.clone(), Form::Written);
    let mut host = Host::of(Units::new(Some(hda), Some(hdb), None), 0);
    host.table(&[512]);
    host.issue(0xc8, 0x50, 7, 1);
    host.start_dma(TO_MEMORY);
    host.put(DEVICE, 0);
    gate.set(Gate::OPEN);
    host.arrive();
    assert_eq!((host.get(STATUS), host.irq(), host.bus_master_status()), (READY, false, ACTIVE));
    host.put(DEVICE, 0x10);
    assert_eq!((host.irq(), host.bus_master_status(), host.mem.read_u32(BUFFER)), (true, INTERRUPT, 7));
}

#[test]
fn discs_may_come_late_and_fail_late() {
    let (mut host, gate) = Host::gated();
    host.channel = 1;
    let read = [0x28, 0, 0, 0, 0, 5, 0, 0, 1];
    for features in [0, 1] {
        gate.set(0);
        host.table(&[2048]);
        host.issue_packet(features, 2048, &read);
        host.start_dma(TO_MEMORY);
        assert_eq!((host.get(STATUS), host.irq()), (READY | BSY, false));
        gate.set(Gate::OPEN);
        host.arrive();
        assert!(host.irq());
        let data = if features == 0 {
            host.read_blocks(2048)
        } else {
            let mut data = vec![0; 2048];
            host.mem.read(BUFFER, &mut data);
            data
        };
        assert_eq!((numbers(&data, 512), host.get(STATUS)), (vec![20, 21, 22, 23], READY));
        host.bus_master(0, Width::Byte, 0);
    }
    gate.set(0);
    host.issue_packet(0, 2048, &read);
    gate.set(Gate::BROKEN);
    host.arrive();
    assert!(host.irq());
    assert_eq!((host.get(STATUS), host.get(ERROR)), (READY | ERR, 0x30));
    assert_eq!(host.ask(&[3, 0, 0, 0, 18]).unwrap()[12], 0x11);
    host.channel = 0;
    gate.set(0);
    host.issue(0xc8, 0x40, 5, 1);
    gate.set(Gate::BROKEN);
    host.arrive();
    assert_eq!((host.irq(), host.get(STATUS), host.get(ERROR)), (true, READY | ERR, UNC));
}

#[test]
fn resets_end_the_wait() {
    const SOFT: usize = 0;
    const HARD: usize = 1;
    const DEVICE: usize = 2;
    for (channel, reset) in [(0, SOFT), (1, SOFT), (0, HARD), (1, HARD), (1, DEVICE)] {
        let (mut host, gate) = Host::gated();
        host.channel = channel;
        if channel == 0 {
            host.issue(0xc8, 0x40, 5, 1);
        } else {
            host.issue_packet(0, 2048, &[0x28, 0, 0, 0, 0, 5, 0, 0, 1]);
        }
        host.table(&[2048]);
        host.start_dma(TO_MEMORY);
        assert_eq!(host.get(STATUS), READY | BSY);
        match reset {
            SOFT => [4, 0].into_iter().for_each(|value| host.ide.write_control(channel, value)),
            HARD => {
                host.ide.reset();
                host.ide.write_control(channel, 0);
            }
            _ => host.put(COMMAND, 0x08),
        }
        let quiet = host.get(STATUS);
        assert_eq!(quiet & (BSY | DRQ | ERR), 0);
        gate.set(Gate::OPEN);
        host.arrive();
        assert_eq!((host.get(STATUS), host.irq(), host.mem.read_u32(BUFFER)), (quiet, false, 0));
        if channel == 0 {
            host.command(0x20, 0x40, 9, 1);
            assert_eq!(numbers(&host.read_blocks(512), 512), [9]);
        } else {
            assert_eq!(numbers(&host.ask(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1]).unwrap(), 2048), [4]);
        }
    }
}

#[test]
fn discs_are_changed_while_the_machine_runs() {
    let mut host = Host::cdrom(Lag::None);
    let (event, ready) = ([0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], [0; 6]);
    let disc = |sectors| Some(Medium::new(image(sectors, 2048), Form::Written));
    let change = |host: &mut Host, disc| host.ide.change_disc(&mut host.mem, disc);
    // Locked, as Linux does while it is mounted.
    host.ask(&[0x1e, 0, 0, 0, 1]).unwrap();
    assert_eq!(change(&mut host, None), Err(DiscError::Locked));
    assert_eq!(host.ask(&event).unwrap(), [0, 6, 4, 0x10, 1, 2, 0, 0]);
    host.ask(&[0x1e, 0, 0, 0, 0]).unwrap();
    // Another disc.
    change(&mut host, disc(7)).unwrap();
    assert_eq!(host.ask(&event).unwrap(), [0, 6, 4, 0x10, 2, 2, 0, 0]);
    assert_eq!(host.ask(&ready), Err((6, 0x28, 0)));
    assert_eq!(host.ask(&[0x25]).unwrap(), [0, 0, 0, 6, 0, 0, 8, 0]);
    // None.
    change(&mut host, None).unwrap();
    assert_eq!(host.ask(&event).unwrap(), [0, 6, 4, 0x10, 3, 0, 0, 0]);
    assert_eq!(host.ask(&ready), Err((2, 0x3a, 1)));
    // Into a tray that the host has opened, which the button closes.
    host.ask(&[0x1b, 0, 0, 0, 2]).unwrap();
    change(&mut host, disc(3)).unwrap();
    assert_eq!(host.ask(&ready), Err((6, 0x28, 0)));
    assert_eq!(numbers(&host.ask(&[0x28, 0, 0, 0, 0, 2, 0, 0, 1]).unwrap(), 2048), [2]);
    // While data of it are waited for.
    let gate = Gate::default();
    change(&mut host, Some(Medium::new(gate.clone(), Form::Written))).unwrap();
    assert_eq!(host.ask(&ready), Err((6, 0x28, 0)));
    host.issue_packet(0, 2048, &[0x28, 0, 0, 0, 0, 2, 0, 0, 1]);
    assert_eq!(host.get(STATUS), READY | BSY);
    change(&mut host, None).unwrap();
    assert!(host.irq());
    assert_eq!((host.get(STATUS), host.get(ERROR)), (READY | ERR, 0x20));
    let mut without = Ide::new(Units([None, None]));
    assert_eq!(without.change_disc(&mut host.mem, None), Err(DiscError::NoDrive));
}

/// A disk of zeros that keeps what is written, counts flushes, and may be full.
#[derive(Clone, Debug)]
struct Kept(Arc<Mutex<(Vec<u8>, u32, bool)>>);

impl DiskImage for Kept {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().0.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        self.0.lock().unwrap().0.read(offset, buf)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DiskImageError> {
        let (content, _, full) = &mut *self.0.lock().unwrap();
        if *full {
            return Err(DiskImageError("no space left".into()));
        }
        content[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskImageError> {
        let (_, flushes, full) = &mut *self.0.lock().unwrap();
        *flushes += 1;
        if *full { Err(DiskImageError("no space left".into())) } else { Ok(()) }
    }
}

#[test]
fn a_disk_that_is_written_through_keeps_what_is_written_and_flushes() {
    let kept = Kept(Arc::new(Mutex::new((vec![0; 200 * 512], 0, false))));
    let mut host = Host::of(Units::new(Some(Medium::written_through(kept.clone())), None, None), 0);
    host.command(0xec, 0x40, 0, 0);
    let data = host.read_blocks(512);
    let word = |at: usize| u16::from_le_bytes([data[2 * at], data[2 * at + 1]]);
    assert_eq!([82, 85].map(|at| word(at) & 0x20), [0x20; 2], "drivers flush no cache that is not there");
    host.command(0x30, 0x40, 3, 2);
    host.write_blocks(512, &[7; 1024]);
    host.table(&[512]);
    host.mem.write(BUFFER, &[8; 512]);
    host.command(0xca, 0x40, 5, 1);
    host.start_dma(0);
    host.get(STATUS);
    let at = |sector: usize| kept.0.lock().unwrap().0[sector * 512];
    assert_eq!([2, 3, 4, 5, 6].map(at), [0, 7, 7, 8, 0]);
    for command in [0xe7, 0xea] {
        host.command(command, 0x40, 0, 0);
        assert_eq!(host.get(STATUS), READY);
    }
    assert_eq!(kept.0.lock().unwrap().1, 2);
    // A host's disk that is full.
    kept.0.lock().unwrap().2 = true;
    host.command(0xe7, 0x40, 0, 0);
    assert_eq!((host.irq(), host.get(STATUS), host.get(ERROR)), (true, READY | ERR, ABRT));
    host.command(0xca, 0x40, 5, 1);
    host.start_dma(0);
    assert_eq!((host.irq(), host.get(STATUS), host.get(ERROR)), (true, READY | ERR, ABRT));
    host.command(0x30, 0x40, 3, 1);
    for _ in 0..128 {
        host.ide.write(&mut host.mem, 0, DATA, Width::Dword, 1);
    }
    assert_eq!((host.irq(), host.get(STATUS), host.get(ERROR)), (true, READY | ERR, ABRT));
}
