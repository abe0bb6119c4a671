use super::*;

/// A controller beside memory, its DMA controller and a clock.
struct Bench {
    floppy: Floppy,
    mem: Box<Memory>,
    dma: Dma,
    now: u64,
}

/// Where DMA puts data.
const BUFFER: u32 = 0x1_2000;
const DMA_WRITES_MEMORY: u8 = 0x44;
const DMA_READS_MEMORY: u8 = 0x48;

/// A disk of 1.44 MB each of whose sectors begins with its number.
fn numbered() -> Disk {
    let sectors = (0..2880u32).flat_map(|number| {
        let mut sector = [0x5a; SECTOR];
        sector[..4].copy_from_slice(&number.to_le_bytes());
        sector
    });
    Disk::new(sectors.collect()).unwrap()
}

fn bench(disk: Option<Disk>) -> Bench {
    let mut bench = Bench {
        floppy: Floppy::new([disk, None]),
        mem: Memory::new(1 << 20).unwrap(),
        dma: Dma::default(),
        now: 0,
    };
    // As a driver does: out of reset, four interrupts, 500 kbit/s, DMA.
    bench.out(DOR, 0);
    bench.out(DOR, 0x1c);
    bench.wait();
    for drive in 0..4 {
        assert_eq!(bench.command(&[0x08])[0], 0xc0 | drive);
    }
    bench.out(CCR, 0);
    bench.command(&[0x03, 0xdf, 0x02]);
    bench
}

impl Bench {
    fn out(&mut self, port: u16, value: u8) {
        self.floppy.write(port, value, self.now);
    }

    fn input(&mut self, port: u16) -> u8 {
        self.floppy.read(port, self.now)
    }

    /// Lets time pass until there is an interrupt, or nothing to wait for.
    fn wait(&mut self) {
        while let Some(due) = self.floppy.next_event().filter(|_| !self.floppy.irq()) {
            self.now = due.max(self.now);
            self.floppy.poll(&mut self.mem, &mut self.dma, self.now);
        }
    }

    /// Sends a command, waits for its end, and gives its result.
    fn command(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        self.wait();
        self.result()
    }

    fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(self.input(MSR) & (MSR_REQUEST | MSR_TO_HOST), MSR_REQUEST, "{bytes:x?}");
            self.out(FIFO, *byte);
        }
    }

    fn result(&mut self) -> Vec<u8> {
        let mut result = Vec::new();
        while self.input(MSR) & MSR_TO_HOST != 0 {
            result.push(self.input(FIFO));
        }
        result
    }

    fn dma(&mut self, mode: u8, bytes: u16) {
        let [low, high] = (bytes - 1).to_le_bytes();
        let (offset, page) = (BUFFER as u16, (BUFFER >> 16) as u8);
        let [offset_low, offset_high] = offset.to_le_bytes();
        for (port, value) in [
            (0x0a, 6),
            (0x0c, 0),
            (0x0b, mode | 2),
            (0x04, offset_low),
            (0x04, offset_high),
            (0x05, low),
            (0x05, high),
            (0x81, page),
            (0x0a, 2),
        ] {
            self.dma.write(port, value);
        }
    }

    fn seek(&mut self, track: u8) {
        assert!(self.command(&[0x0f, 0, track]).is_empty());
        assert_eq!(self.command(&[0x08]), [0x20, track]);
    }
}

#[test]
fn formats_are_told_by_their_size() {
    for (kib, sectors, kind) in
        [(160, 8, 1), (360, 9, 1), (720, 9, 3), (1200, 15, 2), (1440, 18, 4), (2880, 36, 5)]
    {
        let format = Disk::new(vec![0; kib << 10]).unwrap().format();
        assert_eq!((format.sectors, format.drive as u8, format.bytes()), (sectors, kind, kib << 10));
    }
    // A boot sector alone is a disk, too.
    assert_eq!(Disk::new(vec![0; 512]).unwrap().data().len(), 160 << 10);
    assert_eq!(Disk::new(vec![]), Err(FloppyError::Empty));
    assert_eq!(Disk::new(vec![0; 3 << 20]), Err(FloppyError::Size(3 << 20)));
}

#[test]
fn a_reset_gives_four_interrupts_to_be_sensed() {
    let mut b = bench(None);
    assert_eq!(b.command(&[0x08]), [0x80], "no more");
    // No polling, no interrupts; LOCK keeps that choice over the next reset.
    b.command(&[0x13, 0, 0x10, 7]);
    assert_eq!(b.command(&[0x94]), [0x10]);
    b.out(DSR, DSR_RESET);
    assert_eq!(b.input(MSR), 0);
    b.wait();
    assert!(!b.floppy.irq());
    assert_eq!(b.command(&[0x0e]), [0, 0, 0, 0, 0xdf, 2, 0, 0x80, 0x10, 7]);
    assert_eq!(b.command(&[0x14]), [0]);
}

#[test]
fn it_says_what_it_is() {
    let mut b = bench(None);
    assert_eq!(b.command(&[0x10]), [0x90]);
    for unknown in [0x00, 0x18, 0x1f] {
        assert_eq!(b.command(&[unknown]), [0x80]);
    }
    assert_eq!(b.command(&[0x04, 5]), [0x28 | 0x10 | 5]);
}

#[test]
fn a_seek_ends_with_an_interrupt() {
    let mut b = bench(Some(numbered()));
    assert_eq!(b.input(DIR), DIR_CHANGED);
    b.send(&[0x0f, 0, 40]);
    assert_eq!(b.input(MSR), MSR_REQUEST | 1, "the drive is busy, the controller is not");
    let begin = b.now;
    b.wait();
    assert_eq!(b.now - begin, SETTLE_NS + 40 * STEP_NS);
    assert!(b.floppy.irq());
    assert_eq!(b.command(&[0x08]), [0x20, 40]);
    assert!(!b.floppy.irq());
    assert_eq!(b.input(DIR), 0, "a step finds the disk");
    assert!(b.command(&[0x07, 0]).is_empty());
    assert_eq!(b.command(&[0x08]), [0x20, 0]);
    assert!(b.command(&[0xcf, 0, 3]).is_empty());
    assert_eq!(b.command(&[0x08]), [0x20, 3]);
    assert!(b.command(&[0x8f, 0, 2]).is_empty());
    assert_eq!(b.command(&[0x08]), [0x20, 1]);
}

#[test]
fn sectors_are_read_by_dma() {
    let mut b = bench(Some(numbered()));
    b.seek(2);
    b.dma(DMA_WRITES_MEMORY, 3 * 512);
    // Both sides of track 2, from sector 17 of head 0 on.
    let result = b.command(&[0xe6, 0, 2, 0, 17, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [0x04, 0, 0, 2, 1, 2, 2]);
    for (at, sector) in [(0, 2 * 36 + 16), (1, 2 * 36 + 17), (2, 2 * 36 + 18)] {
        assert_eq!(b.mem.read_u32(BUFFER + at * 512), sector);
    }
    assert_eq!(b.mem.read_u32(BUFFER + 3 * 512), 0);
}

#[test]
fn the_end_of_a_cylinder_is_an_error_while_more_is_wanted() {
    let mut b = bench(Some(numbered()));
    b.dma(DMA_WRITES_MEMORY, 1024);
    assert_eq!(b.command(&[0x46, 0, 0, 0, 18, 2, 18, 0x1b, 0xff]), [0x40, 0x80, 0, 1, 0, 1, 2]);
}

/// As SeaBIOS asks for 40 sectors at once.
#[test]
fn an_end_behind_the_track_is_reached_through_heads_and_tracks() {
    let mut b = bench(Some(numbered()));
    b.dma(DMA_WRITES_MEMORY, 40 * 512);
    assert_eq!(b.command(&[0xe6, 0, 0, 0, 2, 2, 41, 0x1b, 0xff])[..3], [0, 0, 0]);
    for at in 0..40 {
        assert_eq!(b.mem.read_u32(BUFFER + at * 512), at + 1);
    }
    assert_eq!(b.command(&[0x4a, 0])[3], 1, "the head is at the track where it ended");
    b.mem.write(BUFFER, &[7; 1024]);
    b.dma(DMA_READS_MEMORY, 1024);
    assert_eq!(b.command(&[0xc5, 4, 0, 1, 18, 2, 36, 0x1b, 0xff])[..3], [0, 0, 0]);
    let disk = b.floppy.drives[0].disk.as_ref().unwrap();
    assert_eq!([disk.sector(0, 1, 18), disk.sector(1, 0, 1)].map(Option::unwrap), [&[7; 512], &[7; 512]]);
    // On the last track there is no next one, and with one head at a time no other.
    b.dma(DMA_WRITES_MEMORY, 1024);
    assert_eq!(b.command(&[0xe6, 4, 79, 1, 18, 2, 36, 0x1b, 0xff])[..3], [0x40, 0x01, 0]);
    b.dma(DMA_WRITES_MEMORY, 1024);
    assert_eq!(b.command(&[0x66, 0, 3, 0, 18, 2, 36, 0x1b, 0xff])[..3], [0x40, 0x04, 0]);
}

#[test]
fn sectors_are_written_by_dma() {
    let mut b = bench(Some(numbered()));
    b.seek(1);
    b.mem.write(BUFFER, &[7; 600]);
    b.dma(DMA_READS_MEMORY, 600);
    assert_eq!(b.command(&[0xc5, 4, 1, 1, 3, 2, 18, 0x1b, 0xff]), [0x04, 0, 0, 1, 1, 5, 2]);
    let disk = b.floppy.drives[0].disk.as_ref().unwrap();
    assert_eq!(disk.sector(1, 1, 3).unwrap(), &[7; 512]);
    let last = disk.sector(1, 1, 4).unwrap();
    assert_eq!((&last[..88], &last[88..]), (&[7; 88][..], &[0; 424][..]));
    b.floppy.drives[0].disk.as_mut().unwrap().write_protected = true;
    b.dma(DMA_READS_MEMORY, 512);
    assert_eq!(b.command(&[0xc5, 4, 1, 1, 3, 2, 18, 0x1b, 0xff])[..3], [0x44, 0x02, 0]);
    assert_eq!(b.command(&[0x04, 0]), [0x28 | 0x40]);
}

#[test]
fn a_driver_may_program_the_dma_controller_late() {
    let mut b = bench(Some(numbered()));
    b.send(&[0xe6, 0, 0, 0, 5, 2, 18, 0x1b, 0xff]);
    for _ in 0..5 {
        b.now = b.floppy.next_event().unwrap();
        b.floppy.poll(&mut b.mem, &mut b.dma, b.now);
        assert!(!b.floppy.irq());
    }
    b.dma(DMA_WRITES_MEMORY, 512);
    b.wait();
    assert_eq!(b.result()[0], 0);
    assert_eq!(b.mem.read_u32(BUFFER), 4);
}

#[test]
fn data_may_go_through_the_fifo() {
    let mut b = bench(Some(numbered()));
    b.command(&[0x03, 0xdf, 0x03]);
    b.send(&[0x46, 0, 0, 0, 6, 2, 7, 0x1b, 0xff]);
    for sector in 5..7u32 {
        b.wait();
        assert_eq!(b.input(MSR), MSR_REQUEST | MSR_TO_HOST | MSR_NO_DMA | MSR_BUSY);
        let data: Vec<u8> = (0..512).map(|_| b.input(FIFO)).collect();
        assert_eq!(data[..4], sector.to_le_bytes());
        assert!(!b.floppy.irq());
    }
    b.wait();
    // Without a terminal count, the end of the track ends it.
    assert_eq!(b.result()[..3], [0x40, 0x80, 0]);
    b.send(&[0x45, 0, 0, 0, 6, 2, 6, 0x1b, 0xff]);
    b.wait();
    assert_eq!(b.input(MSR), MSR_REQUEST | MSR_NO_DMA | MSR_BUSY);
    (0..512).for_each(|_| b.out(FIFO, 9));
    b.wait();
    assert_eq!(b.result()[..3], [0x40, 0x80, 0]);
    assert_eq!(b.floppy.drives[0].disk.as_ref().unwrap().sector(0, 0, 6).unwrap(), &[9; 512]);
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut b = bench(Some(numbered()));
    b.command(&[0x13, 0, 0x20, 0]); // seeks are not implied
    let mut read = |bytes: [u8; 9]| b.command(&bytes)[..3].to_vec();
    assert_eq!(read([0xe6, 0, 0, 0, 19, 2, 36, 0x1b, 0xff]), [0x40, 0x04, 0]);
    assert_eq!(read([0xe6, 0, 5, 0, 1, 2, 18, 0x1b, 0xff]), [0x40, 0x04, 0x10]);
    assert_eq!(read([0xe6, 0, 0, 0, 1, 3, 18, 0x1b, 0xff]), [0x40, 0x04, 0]);
    assert_eq!(read([0xe6, 1, 0, 0, 1, 2, 18, 0x1b, 0xff]), [0x41, 0x01, 0], "no disk");
    assert_eq!(read([0xe6, 3, 0, 0, 1, 2, 18, 0x1b, 0xff]), [0x43, 0x01, 0], "no drive");
    b.out(CCR, 2);
    assert_eq!(b.command(&[0x4a, 0])[..3], [0x40, 0x01, 0], "another data rate");
    b.out(CCR, 0);
    assert_eq!(b.command(&[0x4a, 0]), [0, 0, 0, 0, 0, 2, 2]);
    assert_eq!(b.command(&[0x4a, 4]), [4, 0, 0, 0, 1, 3, 2]);
}

#[test]
fn a_track_is_formatted() {
    let mut b = bench(Some(numbered()));
    b.seek(3);
    let ids: Vec<u8> = (1..=18).flat_map(|sector| [3, 0, sector, 2]).collect();
    b.mem.write(BUFFER, &ids);
    b.dma(DMA_READS_MEMORY, 18 * 4);
    assert_eq!(b.command(&[0x4d, 0, 2, 18, 0x54, 0xf6])[..3], [0, 0, 0]);
    let disk = b.floppy.drives[0].disk.as_ref().unwrap();
    assert!((1..=18).all(|sector| disk.sector(3, 0, sector).unwrap() == &[0xf6; 512]));
    assert_eq!(disk.sector(3, 1, 1).unwrap()[4], 0x5a);
    assert_eq!(b.command(&[0x4d, 0, 2, 21, 0x54, 0xf6])[..3], [0x40, 2, 0], "another format cannot be kept");
}

#[test]
fn sectors_are_compared() {
    let mut b = bench(Some(numbered()));
    let mut wanted = [0x5a; 512];
    wanted[..4].copy_from_slice(&[2, 0xff, 0, 0]);
    let scan = |b: &mut Bench, command, from: u8, bytes: [u8; 512]| {
        (0..18).for_each(|at| b.mem.write(BUFFER + at * 512, &bytes));
        b.dma(DMA_READS_MEMORY, 18 * 512);
        b.command(&[command, 0, 0, 0, from, 2, 18, 0x1b, 1])
    };
    assert_eq!(scan(&mut b, 0x51, 1, wanted), [0, 0, 8, 0, 0, 3, 2]);
    assert_eq!(scan(&mut b, 0x51, 5, wanted)[..3], [0, 0, 4]);
    assert_eq!(scan(&mut b, 0x59, 1, wanted)[..6], [0, 0, 0, 0, 0, 1], "lower");
    assert_eq!(
        scan(&mut b, 0x5d, 1, wanted)[..6],
        [0, 0, 8, 0, 0, 3],
        "equal, as the first that is not lower"
    );
}

#[test]
fn sectors_are_verified_without_data() {
    let mut b = bench(Some(numbered()));
    assert_eq!(b.command(&[0xf6, 0x80, 0, 0, 1, 2, 18, 0x1b, 20])[..3], [4, 0, 0]);
    assert_eq!(b.command(&[0x56, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..3], [0, 0, 0]);
    assert_eq!(b.command(&[0x56, 0, 0, 0, 1, 2, 19, 0x1b, 0xff])[..3], [0x40, 4, 0]);
}

#[test]
fn a_changed_disk_is_told_until_the_head_steps() {
    let mut b = bench(Some(numbered()));
    b.seek(1);
    b.floppy.change_disk(0, None);
    b.seek(0);
    assert_eq!(b.input(DIR), DIR_CHANGED, "there is no disk to be found");
    b.floppy.change_disk(0, Some(numbered()));
    assert_eq!(b.input(DIR), DIR_CHANGED);
    b.seek(1);
    assert_eq!(b.input(DIR), 0);
    assert_eq!(b.floppy.change_disk(2, None), None);
}

#[test]
fn the_gate_holds_the_interrupt_back() {
    let mut b = bench(Some(numbered()));
    b.send(&[0x0f, 0, 1]);
    b.now = b.floppy.next_event().unwrap();
    b.floppy.poll(&mut b.mem, &mut b.dma, b.now);
    assert!(b.floppy.irq());
    b.out(DOR, 0x14);
    assert!(!b.floppy.irq());
    assert_eq!(b.input(SRA) & SRA_INTERRUPT, SRA_INTERRUPT);
}

#[test]
fn no_sequence_of_accesses_panics() {
    let mut b = bench(Some(numbered()));
    b.dma(DMA_WRITES_MEMORY, 0x4000);
    let mut x = 1u32;
    for _ in 0..200_000 {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let port = PORT_BASE + ((x >> 8) & 7) as u16;
        match x >> 28 {
            0 => b.wait(),
            1..4 => _ = b.input(port),
            4..12 => b.out(FIFO, (x >> 16) as u8),
            12 => b.dma(if x & 1 == 0 { DMA_WRITES_MEMORY } else { DMA_READS_MEMORY }, 1024),
            _ => b.out(port, (x >> 16) as u8),
        }
    }
}
