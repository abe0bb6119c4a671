//! Whole states.

use super::*;
use crate::pc::{Config, ManualClock, Seeded};
use crate::{Machine, fs::Filesystem, fs::NoBlobs};
use env86_emu::{Bus, Memory, Width};

fn machine(acpi: bool) -> Machine {
    let config = Config {
        acpi,
        uarts: [true, true, false, true],
        virtio_console: acpi,
        filesystem: Some((Filesystem::default(), Box::new(NoBlobs))),
        ..Config::default()
    };
    Machine::new(Memory::new(4 << 20).unwrap(), config, Box::new(ManualClock::default()), Box::new(Seeded(1)))
}

/// Builds a machine from a state alone.
fn restored(file: &[u8]) -> Machine {
    let container = Container::parse(file).unwrap();
    let plan = Plan::read(&container).unwrap();
    let clock = ManualClock::default();
    clock.advance(plan.time);
    let memory = plan.pages.copy(file).unwrap();
    let config = plan.configure(Config::default());
    let mut machine = Machine::new(memory, config, Box::new(clock), Box::new(Seeded(1)));
    plan.apply(&mut machine, file).unwrap();
    machine
}

/// Something other than the power-on state in every device.
fn disturb(machine: &mut Machine) {
    let (pc, mem) = (&mut machine.pc, &mut machine.cpu.mem);
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
    ] {
        pc.port_write(mem, port, Width::Byte, value);
    }
    pc.port_write(mem, 0xcf8, Width::Dword, 0x8000_0860);
    pc.port_write(mem, 0xcfc, Width::Dword, 0x0b0b_0a0a);
    pc.port_write(mem, 0x510, Width::Word, 0);
    pc.serial_input(0, b"typed ahead");
    pc.keyboard_input(&[0x1e, 0x9e]);
    mem.write_u32(0x1234, 0xdead_beef);
    mem.write_u32(0x10_0000, 1);
    pc.vga.planes[7] = 0x1f;
    (pc.backdoor.enabled, pc.backdoor.absolute) = (true, true);
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
        let cpu = |machine: &mut Machine| {
            let mut state = machine.cpu.state();
            state.tsc_offset = state.tsc_offset.wrapping_add(machine.pc.time());
            state
        };
        assert_eq!(cpu(&mut first), cpu(&mut second));
        assert_eq!(first.cpu.mem.contents(), second.cpu.mem.contents());
        assert_eq!(first.pc.interrupts.pic, second.pc.interrupts.pic);
        assert_eq!(first.pc.dma, second.pc.dma);
        assert_eq!(first.pc.ps2.keyboard, second.pc.ps2.keyboard);
        assert_eq!(first.pc.backdoor, second.pc.backdoor);
        assert_eq!(first.pc.vga.crtc, second.pc.vga.crtc);
        assert_eq!(first.pc.vga.planes, second.pc.vga.planes);
        assert_eq!(second.pc.serial_output(0), b"");
        let again = save(&mut second, &|_| true).unwrap().to_vec();
        assert_eq!(Container::parse(&file).unwrap().state, Container::parse(&again).unwrap().state);
        assert_eq!(file.len(), again.len());
        assert!(file == again, "a buffer differs");
    }
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

/// Numbers that hostile files have (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
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
        let memory = plan.pages.copy(&file).unwrap();
        let config = plan.configure(Config::default());
        let clock = ManualClock::default();
        clock.advance(plan.time);
        let mut machine = Machine::new(memory, config, Box::new(clock), Box::new(Seeded(1)));
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
