//! A guest that means harm: random accesses to every port and address, to rings and messages made of
//! noise and of what almost makes sense. Nothing may panic, take for ever or grow without bound.
//!
//! `ENV86_FUZZ_SECONDS=600` lets it try for longer; `ENV86_FUZZ_SEED` begins elsewhere.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use env86_devices::board::{ManualClock, Seeded};
use env86_devices::fs::{BlobError, BlobStore, Fetched, Filesystem};
use env86_devices::ide::{self, DiskImage, DiskImageError, Form, Medium, Units};
use env86_devices::{BoardConfig, Entropy, Pc, pci, virtio};
use env86_emu::{ArchState, Bus, HypervisorCall, Memory, Segment, Width};

const DEFAULT_SECONDS: u64 = 3;
const RAM: u64 = 2 << 20;
/// No access takes longer, on a host however busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// Operations before the machine is built anew.
const ROUND: u32 = 20_000;
/// What the guest may make the board's file system occupy here, in bytes.
const FILES_LIMIT: u64 = 16 << 20;
/// Sectors of the hard disks, and the discs' of 2048 bytes.
const SECTORS: usize = 2000;
const DISC_SECTORS: usize = 300;
/// The bus masters of the IDE channels, and where they are moved to.
const BUS_MASTER: u16 = 0xe000;
/// ATA commands that do something.
const COMMANDS: [u8; 25] = [
    0x00, 0x08, 0x10, 0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x70, 0x90, 0x91, 0xa0, 0xa1,
    0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xec, 0xef, 0xf8,
];
/// Packet commands.
const PACKETS: [u8; 19] = [
    0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2b, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x52, 0x5a, 0xa8,
    0xbd, 0xbe,
];
/// Where rings are put, so that what one access sets up another can use.
const RINGS: u32 = 0x1_0000;
/// Queues of the device that has most of them.
const QUEUES: u32 = 12;
/// The virtio functions, and where their base addresses are moved to.
const VIRTIO: [(u8, u16); 5] = [
    (virtio::p9::DEVFN, 0xc000),
    (virtio::console::DEVFN, 0xd000),
    (virtio::net::DEVFN, 0xe400),
    (virtio::block::DEVFN, 0xe800),
    (virtio::shares::DEVFN, 0xf800),
];
/// Where the request for a virtio disk is, and its types.
const BLOCK_REQUEST: u32 = 0x3_0000;
const BLOCK_REQUESTS: [u32; 6] = [0, 0, 1, 1, 4, 8];
/// Requests of 9P2000.L.
const REQUESTS: [u32; 24] =
    [8, 12, 14, 16, 18, 20, 22, 24, 26, 30, 32, 40, 50, 52, 54, 70, 72, 74, 76, 100, 104, 108, 110, 116];
/// Port accesses, string instructions with and without repetition, loads, stores, HLT.
const OPCODES: [&[u8]; 16] = [
    &[0xec],
    &[0xed],
    &[0xee],
    &[0xef],
    &[0x66, 0xed],
    &[0x66, 0xef],
    &[0x6c],
    &[0x6f],
    &[0xf3, 0x6c],
    &[0xf3, 0x6f],
    &[0xf3, 0xa4],
    &[0xf3, 0xab],
    &[0xf2, 0xae],
    &[0x8b, 0x07],
    &[0x89, 0x07],
    &[0xf4],
];

const INDEX: &str = r#"{"fsroot": [["a", 70000, 1, 33188, 0, 0, "blob"],
    ["d", 0, 1, 16877, 0, 0, [["l", 0, 1, 41471, 0, 0, "../a"]]]], "size": 9, "version": 3}"#;

/// Blobs of zeros that are late at times.
struct Zeros(u32);

impl BlobStore for Zeros {
    fn read(&mut self, _blob: &str, _offset: u64, buf: &mut [u8]) -> Result<Fetched, BlobError> {
        self.0 = self.0.wrapping_add(1);
        buf.fill(0);
        Ok(if self.0.is_multiple_of(5) { Fetched::Pending } else { Fetched::Ready(buf.len()) })
    }
}

/// Images that are late at times.
#[derive(Debug)]
struct Late(Vec<u8>, AtomicU64);

impl DiskImage for Late {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        let late = self.1.fetch_add(1, Ordering::Relaxed).is_multiple_of(8);
        if late { Poll::Pending } else { self.0.read(offset, buf) }
    }
}

struct Guest {
    machine: Pc,
    clock: ManualClock,
    random: Seeded,
}

impl Guest {
    fn new(seed: u64) -> Self {
        let clock = ManualClock::default();
        let mut files = Filesystem::from_json(INDEX.as_bytes()).unwrap();
        files.memory_limit = FILES_LIMIT;
        let config = BoardConfig {
            acpi: seed.is_multiple_of(2),
            uarts: [true; 4],
            virtio_console: true,
            virtio_balloon: true,
            virtio_shares: true,
            virtio_net: Some(env86_devices::ne2k::MAC),
            virtio_block: Some(Medium::new(
                Late(vec![4; SECTORS * 512], AtomicU64::new(seed)),
                Form::Written,
            )),
            debug_exit: Some(0xf4),
            ide: Units::new(
                Some(Medium::new(Late(vec![1; SECTORS * 512], AtomicU64::new(seed)), Form::Written)),
                Some(Medium::new(vec![2; SECTORS * 512 - 100], Form::Whole)),
                Some(Medium::new(Late(vec![3; DISC_SECTORS * 2048], AtomicU64::new(seed)), Form::Written)),
            ),
            filesystem: Some((files, Box::new(Zeros(0)))),
            ..BoardConfig::default()
        };
        let memory = Memory::new(RAM).unwrap();
        let mut machine = Pc::new(memory, config, Box::new(clock.clone()), Box::new(Seeded(seed))).unwrap();
        // Where no host answers for folders, the device does.
        machine.board.connected.shares = !seed.is_multiple_of(4);
        let mut guest = Self { machine, clock, random: Seeded(seed) };
        guest.place_virtio();
        guest
    }

    fn place_virtio(&mut self) {
        for (devfn, base) in VIRTIO {
            for bar in 0..4 {
                self.configure(devfn, 0x10 + 4 * bar, u32::from(base) + 0x100 * bar + 1);
            }
            self.configure(devfn, 4, 7);
        }
        self.configure(ide::DEVFN, 0x20, u32::from(BUS_MASTER) + 1);
        self.configure(ide::DEVFN, 4, 7);
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.random.next_u32() % limit
    }

    fn rarely(&mut self) -> bool {
        self.below(8) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }

    /// A number that is likely to be at an edge of something.
    fn number(&mut self) -> u32 {
        let any = self.random.next_u32();
        match self.below(8) {
            0 => 0,
            1 => u32::MAX,
            2 => 1 << (any & 31),
            3 => (1 << (any & 31)) - 1,
            4 => any & 0xff,
            5 => any & 0xffff,
            6 => RINGS + (any & 0xfff0),
            _ => any,
        }
    }

    /// A port that somebody is likely to answer at.
    fn port(&mut self) -> u16 {
        let any = self.random.next_u32() as u16;
        match self.below(8) {
            0 => any,
            7 => self.pick(&[0x220, 0x220, 0x22c, 0x388, 0x330, 0x40, 0x61]) + any % 4,
            6 => self.pick(&[0x1f0, 0x170, 0x1f0, 0x170, 0x3f6, 0x376, BUS_MASTER]) + any % 8,
            1 => any % 0x100,
            2 => 0x3c0 + any % 0x40,
            3 => {
                self.pick(&[0xcf8, 0xcfc, 0x1ce, 0x1cf, 0x510, 0x511, 0x5658, 0xb000, 0xb004, 0xb008, 0xafe0])
            }
            _ => self.pick(&VIRTIO).1 + any % 0x400,
        }
    }

    fn write_port(&mut self, port: u16, width: Width, value: u32) {
        self.machine.board.port_write(self.machine.cpu.mem_mut(), port, width, value & width.mask());
    }

    fn configure(&mut self, devfn: u8, register: u32, value: u32) {
        self.write_port(0xcf8, Width::Dword, 1 << 31 | u32::from(devfn) << 8 | register);
        self.write_port(0xcfc, Width::Dword, value);
    }

    fn store(&mut self, at: u32, value: u32) {
        self.machine.cpu.mem_mut().write(at, &value.to_le_bytes());
    }

    /// Starts a virtio device with a ring for each of its queues.
    fn start_virtio(&mut self, base: u16) {
        let features = if self.rarely() { self.number() } else { 1 << 28 };
        for status in [0, 1, 3] {
            self.write_port(base + 0x14, Width::Byte, status);
        }
        for (select, features) in [(0, features), (1, 1)] {
            self.write_port(base + 0x08, Width::Dword, select);
            self.write_port(base + 0x0c, Width::Dword, features);
        }
        self.write_port(base + 0x14, Width::Byte, 0xb);
        for queue in 0..QUEUES {
            let ring = RINGS + queue * 0x1000;
            self.write_port(base + 0x16, Width::Word, queue);
            for (register, address) in [(0x20, ring), (0x28, ring + 0x200), (0x30, ring + 0x300)] {
                self.write_port(base + register, Width::Dword, address);
                self.write_port(base + register + 4, Width::Dword, 0);
            }
            self.write_port(base + 0x1c, Width::Word, 1);
        }
        self.write_port(base + 0x14, Width::Byte, 0xf);
    }

    /// Descriptors that almost make sense: an address, a length, flags and the one behind.
    fn write_descriptors(&mut self, ring: u32) {
        for number in 0..16 {
            let at = ring + 16 * number;
            let address = if self.rarely() { self.number() } else { ring + 0x400 + 128 * self.below(24) };
            let high = if self.rarely() && self.rarely() { self.number() } else { 0 };
            let len = if self.rarely() { self.number() } else { self.below(300) };
            let flags = if self.rarely() { self.below(8) } else { self.below(4) };
            let next = if self.rarely() { self.number() } else { number + 1 };
            for (field, value) in [address, high, len, flags | next << 16].into_iter().enumerate() {
                self.store(at + 4 * field as u32, value);
            }
        }
    }

    /// A request of 9p at the beginning of each buffer: size, kind, tag, and fields.
    fn write_messages(&mut self, ring: u32) {
        for at in (ring + 0x400..ring + 0x1000).step_by(128) {
            let size = if self.rarely() { self.number() } else { 7 + self.below(120) };
            let kind = self.pick(&REQUESTS);
            let tag = self.below(0x1_0000);
            self.store(at, size);
            self.store(at + 4, kind | tag << 8);
            for field in (at + 7..at + 100).step_by(4) {
                let value = if self.below(3) == 0 { self.number() } else { self.below(4) };
                self.store(field, value);
            }
        }
    }

    /// Offers a device a ring, perhaps after its start.
    fn offer(&mut self) {
        let (_, base) = self.pick(&VIRTIO);
        let queue = self.below(QUEUES);
        let ring = RINGS + queue * 0x1000;
        self.write_descriptors(ring);
        self.write_messages(ring);
        let index = self.below(0x1_0000);
        self.store(ring + 0x200, index << 16);
        for slot in 0..16 {
            let head = if self.rarely() { self.number() } else { self.below(16) };
            self.machine.cpu.mem_mut().write(ring + 0x204 + 2 * slot, &(head as u16).to_le_bytes());
        }
        if self.rarely() {
            self.start_virtio(base);
        }
        self.write_port(base + 0x100 + 2 * queue as u16, Width::Word, queue);
    }

    /// A request for the virtio disk that almost makes sense: header, data and status.
    fn command_virtio_disk(&mut self) {
        let (_, base) = VIRTIO[3];
        let (sector, kind) = (self.below(SECTORS as u32 + 8), self.pick(&BLOCK_REQUESTS));
        let high = if self.rarely() { self.number() } else { 0 };
        let sectors = self.below(200);
        let size = if self.rarely() { self.number() } else { 512 * sectors };
        for (field, value) in [kind, 0, sector, high].into_iter().enumerate() {
            self.store(BLOCK_REQUEST + 4 * field as u32, value);
        }
        let writes = if kind == 1 { 0 } else { 2 };
        let data = if self.rarely() { self.number() } else { BLOCK_REQUEST + 0x1000 };
        let next = if self.rarely() { self.below(4) } else { 2 };
        let descriptors = [
            (BLOCK_REQUEST, 16, 1 | 1 << 16),
            (data, size, 1 | writes | next << 16),
            (BLOCK_REQUEST + 16, 1, 2),
        ];
        self.start_virtio(base);
        for (at, (address, size, flags)) in (RINGS..).step_by(16).zip(descriptors) {
            for (field, value) in [address, 0, size, flags].into_iter().enumerate() {
                self.store(at + 4 * field as u32, value);
            }
        }
        // The same request is offered up to three times.
        (0..64).for_each(|slot| self.store(RINGS + 0x204 + 4 * slot, 0));
        let offered = self.below(4);
        self.store(RINGS + 0x200, offered << 16);
        self.write_port(base + 0x100, Width::Word, 0);
    }

    /// A command for a disk, with a table for its bus master, and some of its data.
    fn command_disk(&mut self) {
        let channel = self.below(2) as usize;
        let (command_block, control) = (ide::COMMAND_PORTS[channel], ide::CONTROL_PORTS[channel]);
        let bus_master = BUS_MASTER + 8 * channel as u16;
        for region in 0..8 {
            let at = RINGS + 8 * region;
            let address = if self.rarely() { self.number() } else { 0x4_0000 + self.below(0x1_0000) };
            let size = self.number() & 0xffff | self.below(2) << 31;
            self.store(at, address);
            self.store(at + 4, size);
        }
        let table = if self.rarely() { self.number() } else { RINGS };
        self.write_port(bus_master + 4, Width::Dword, table);
        if self.rarely() {
            let value = self.number();
            self.write_port(control, Width::Byte, value);
        }
        let device = self.below(256);
        self.write_port(command_block + 6, Width::Byte, device);
        for offset in [1, 2, 2, 3, 3, 4, 4, 5, 5] {
            let value = if self.rarely() { self.number() } else { self.below(2) };
            self.write_port(command_block + offset, Width::Byte, value);
        }
        let command = if self.rarely() { self.number() as u8 } else { self.pick(&COMMANDS) };
        self.write_port(command_block + 7, Width::Byte, command.into());
        if command == 0xa0 {
            let mut packet = [0; 12].map(|_: u8| if self.rarely() { self.number() as u8 } else { 0 });
            packet[0] = self.pick(&PACKETS);
            packet.chunks(4).for_each(|bytes| {
                let value = u32::from_le_bytes(bytes.try_into().unwrap_or_default());
                self.write_port(command_block, Width::Dword, value);
            });
        }
        let value = self.below(2) * 8 + 1;
        self.write_port(bus_master, Width::Byte, value);
        for _ in 0..self.below(300) {
            let value = self.number();
            self.write_port(command_block, Width::Dword, value);
            self.machine.board.port_read(self.machine.cpu.mem_mut(), command_block, Width::Word);
        }
        self.write_port(bus_master, Width::Byte, 0);
    }

    /// Instructions that reach for the board, with registers that are noise.
    fn execute(&mut self) {
        const CODE: u32 = 0x8000;
        let code: Vec<u8> = (0..20).flat_map(|_| self.pick(&OPCODES)).copied().collect();
        self.machine.cpu.mem_mut().write(CODE, &code);
        let eflags = 2 | self.below(2) << 9;
        let mut state = ArchState { eip: CODE, cr0: 1, eflags, ..ArchState::default() };
        state.seg = [Segment::flat(0x10, 0x93); 6];
        state.seg[1] = Segment::flat(8, 0x9b);
        state.gpr = std::array::from_fn(|_| self.number());
        state.gpr[1] = self.below(0x2_0000);
        state.gpr[2] = self.port().into();
        state.gpr[7] = match self.below(4) {
            0 => 0xe000_0000 + self.below(0x90_0000),
            1 => self.pick(&[0xfee0_0000, 0xfec0_0000, 0xfeb0_0000, 0xa_0000]) + self.below(0x1_0000),
            _ => self.number(),
        };
        self.machine.cpu.set_state(&state);
        self.machine.run(2000);
    }

    fn touch_memory_mapped(&mut self, width: Width, value: u32) {
        let base: u32 = self.pick(&[0xa_0000, 0xb_8000, 0xe000_0000, 0xfec0_0000, 0xfee0_0000, 0xfeb0_0000]);
        let addr = base.wrapping_add(self.below(0x2_0000));
        let (pc, mem) = (&mut self.machine.board, self.machine.cpu.mem_mut());
        pc.mmio_write(mem, addr, width, value & width.mask());
        pc.mmio_read(mem, addr, width);
    }

    /// What comes from outside, at the worst of times.
    fn world(&mut self, value: u32) {
        let (pc, mem) = (&mut self.machine.board, self.machine.cpu.mem_mut());
        let (port, bytes) = (value as usize % 5, value.to_le_bytes());
        pc.serial_input(port, &bytes);
        pc.console_input(mem, port, &bytes);
        pc.set_console_size(mem, value as u16, 25);
        pc.keyboard_input(&bytes);
        pc.with_ps2(|ps2, now| ps2.mouse_move(value as i32, value as i32, 1, now));
        pc.files_arrived(mem);
        pc.media_arrived(mem);
        for asked in pc.shares_asked() {
            // Some are answered at once, others later, twice or never.
            if value.is_multiple_of(2) {
                pc.shares_answer(mem, asked.number, &asked.message);
            }
            pc.shares_answer(mem, asked.number.wrapping_sub(value % 8), &[7; 300]);
        }
        let open = pc.shares.as_ref().map_or(0, |shares| shares.open.len());
        assert!(open <= 32, "{open} requests at once");
        if value.is_multiple_of(3) {
            pc.serial_output(port);
            pc.console_output(mem, port);
            pc.debug.take_output();
        }
    }

    fn act(&mut self) {
        let (port, value) = (self.port(), self.number());
        let width = self.pick(&[Width::Byte, Width::Word, Width::Dword]);
        match self.below(23) {
            0..6 => self.write_port(port, width, value),
            6..10 => _ = self.machine.board.port_read(self.machine.cpu.mem_mut(), port, width),
            10 => self.touch_memory_mapped(width, value),
            11..14 => self.offer(),
            14 => {
                let shift = self.below(8);
                self.clock.advance(u64::from(value) << shift);
                self.machine.run(0);
            }
            15 => _ = self.machine.board.acknowledge(),
            16 => {
                let function =
                    self.pick(&[pci::devfn(1, 0), pci::devfn(7, 0), ide::DEVFN, VIRTIO[0].0, VIRTIO[1].0]);
                let register = self.below(64) * 4;
                self.configure(function, register, value);
            }
            17 => self.world(value),
            20 | 21 => self.command_disk(),
            22 => self.command_virtio_disk(),
            18 => {
                let mut call = HypervisorCall { eax: 0x564d_5868, ebx: value, ecx: value & 63, edx: value };
                self.machine.board.hypervisor_call(&mut call);
                self.place_virtio();
            }
            _ => self.execute(),
        }
    }
}

#[test]
fn a_hostile_guest_harms_only_itself() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let limit = Duration::from_secs(number("ENV86_FUZZ_SECONDS").unwrap_or(DEFAULT_SECONDS));
    let first = number("ENV86_FUZZ_SEED").unwrap_or(1);
    let start = Instant::now();
    let mut operations = 0u64;
    for seed in first.. {
        let mut guest = Guest::new(seed);
        for step in 0..ROUND {
            let before = Instant::now();
            guest.act();
            assert!(before.elapsed() < PATIENCE, "seed {seed}, step {step} took {:?}", before.elapsed());
            operations += 1;
        }
        let files = guest.machine.board.p9.as_ref().map_or(0, |p9| p9.server.fs.memory());
        assert!(files <= FILES_LIMIT, "seed {seed}: files of {files} bytes");
        for drive in guest.machine.board.ide.channels.iter().flatten().flat_map(|channel| &channel.drives) {
            let written = drive.medium.as_ref().map_or(0, |medium| medium.written().count() * ide::BLOCK);
            assert!(written <= SECTORS * 512, "seed {seed}: {written} bytes written");
        }
        let block = guest.machine.board.block.as_ref().map_or(0, |block| block.medium.written().count());
        assert!(block * ide::BLOCK <= SECTORS * 512, "seed {seed}: {block} blocks written");
        if start.elapsed() > limit {
            println!("{operations} operations, seeds {first} to {seed}");
            return;
        }
    }
}
