use super::*;
use crate::acpi::Acpi;
use crate::fs::{BlobStore, Filesystem};
use crate::ide;
use crate::ne2k;
use crate::pci::{Pci, devfn};
use env86_emu::{Bus, Width};

fn memory() -> Box<Memory> {
    Memory::new(1 << 20).unwrap()
}

fn board(config: BoardConfig) -> (Board, Box<Memory>, ManualClock) {
    let clock = ManualClock::default();
    let mut mem = memory();
    (Board::new(config, &mut mem, Box::new(clock.clone()), Box::new(Seeded(0))).unwrap(), mem, clock)
}

fn default_board() -> (Board, Box<Memory>, ManualClock) {
    board(BoardConfig::default())
}

fn acpi_board() -> (Board, Box<Memory>, ManualClock) {
    board(BoardConfig { acpi: true, ..BoardConfig::default() })
}

/// The 8259 pair as a BIOS leaves it, with everything unmasked.
fn set_up_pic(board: &mut Board, mem: &mut Memory) {
    for (port, base, wiring) in [(0x20, 0x30, 4), (0xa0, 0x38, 2)] {
        board.port_write(mem, port, Width::Byte, 0x11);
        for value in [base, wiring, 1, 0] {
            board.port_write(mem, port + 1, Width::Byte, value);
        }
    }
}

fn config_address(slot: u8, offset: u32) -> u32 {
    1 << 31 | u32::from(devfn(slot, 0)) << 8 | offset
}

#[test]
fn nobody_answers_with_ones() {
    let (mut board, mut mem, _) = default_board();
    for width in [Width::Byte, Width::Word, Width::Dword] {
        for port in [0x2e8, 0x3e8, 0xb000, 0xb2, 0xf4, 0x5658, 0xfff0] {
            assert_eq!(board.port_read(&mut mem, port, width), width.mask(), "{port:x}");
        }
        for addr in [0x8000_0000, 0xe080_0000, 0xfeb0_0000, 0xfec0_0000, 0xfee0_0030, 0xffff_fffc] {
            assert_eq!(board.mmio_read(&mut mem, addr, width), width.mask(), "{addr:x}");
        }
    }
}

/// A driver that waits until BSY goes would wait for ever for ones.
#[test]
fn an_ide_channel_without_drives_is_not_busy() {
    let (mut board, mut mem, _) = default_board();
    for port in [0x1f1, 0x1f2, 0x1f7, 0x3f6] {
        board.port_write(&mut mem, port, Width::Byte, 0xec);
        assert_eq!(board.port_read(&mut mem, port, Width::Byte), 0, "{port:x}");
    }
    assert_eq!(board.port_read(&mut mem, 0x1f0, Width::Word), 0);
}

#[test]
fn wide_accesses_reach_devices_of_bytes() {
    let (mut board, mut mem, _) = default_board();
    board.port_write(&mut mem, 0x3d4, Width::Word, 0x5a0f);
    assert_eq!(board.vga.crtc.registers[0x0f], 0x5a);
    assert_eq!(board.port_read(&mut mem, 0x3d4, Width::Word), 0x5a0f);
    // Scratch register of COM1, nobody at 400h and 401h, the debug console at 402h.
    board.port_write(&mut mem, 0x3ff, Width::Dword, 0xffff_ff77);
    assert_eq!(board.port_read(&mut mem, 0x3ff, Width::Dword), 0xe9ff_ff77);
}

#[test]
fn vbe_registers_are_words_at_neighbouring_ports() {
    let (mut board, mut mem, _) = default_board();
    board.port_write(&mut mem, 0x1ce, Width::Word, 1);
    board.port_write(&mut mem, 0x1cf, Width::Word, 800);
    assert_eq!(board.port_read(&mut mem, 0x1cf, Width::Word), 800);
    board.port_write(&mut mem, 0x1ce, Width::Word, 0x0a);
    assert_eq!(board.port_read(&mut mem, 0x1cf, Width::Word), 128);
}

#[test]
fn serial_input_interrupts() {
    let (mut board, mut mem, _) = default_board();
    set_up_pic(&mut board, &mut mem);
    board.port_write(&mut mem, 0x3fc, Width::Byte, 0x08);
    board.port_write(&mut mem, 0x3f9, Width::Byte, 0x01);
    assert!(!board.interrupt());
    assert_eq!(board.serial_input(0, b"x"), 1);
    assert!(board.interrupt());
    assert_eq!(board.acknowledge(), 0x34);
    assert_eq!(board.port_read(&mut mem, 0x3f8, Width::Byte), u32::from(b'x'));
    assert_eq!(board.serial_input(2, b"x"), 0, "no COM3");
    board.port_write(&mut mem, 0x2f8, Width::Byte, b'y'.into());
    assert_eq!(board.serial_output(1), b"y");
    assert!(board.serial_output(3).is_empty());
}

#[test]
fn com1_and_com3_share_their_line() {
    let (mut board, mut mem, _) = board(BoardConfig { uarts: [true; 4], ..BoardConfig::default() });
    set_up_pic(&mut board, &mut mem);
    for base in [0x3f8, 0x3e8] {
        board.port_write(&mut mem, base + 4, Width::Byte, 0x08);
        board.port_write(&mut mem, base + 1, Width::Byte, 0x01);
    }
    board.serial_input(0, b"1");
    board.serial_input(2, b"3");
    board.port_read(&mut mem, 0x3f8, Width::Byte);
    assert!(board.interrupt(), "COM3 still asks");
    board.port_read(&mut mem, 0x3e8, Width::Byte);
    assert!(!board.interrupt());
}

#[test]
fn the_timer_interrupts_at_its_deadline() {
    let (mut board, mut mem, clock) = default_board();
    set_up_pic(&mut board, &mut mem);
    board.begin_slice(&mut mem, 0);
    board.set_slice_end(500_000);
    board.port_write(&mut mem, 0x43, Width::Byte, 0x34);
    board.port_write(&mut mem, 0x40, Width::Byte, 0xa9);
    assert!(!board.yield_requested());
    assert_eq!(board.acknowledge(), 0x30, "the mode's output is high");
    board.port_write(&mut mem, 0x20, Width::Byte, 0x20);
    board.port_write(&mut mem, 0x40, Width::Byte, 0x00);
    assert!(board.yield_requested(), "169 ticks are over before the slice is");
    let deadline = board.next_event().unwrap();
    assert!((141_000..143_500).contains(&deadline), "{deadline}");
    clock.advance(deadline - 1);
    board.begin_slice(&mut mem, deadline - 1);
    assert!(!board.interrupt());
    clock.advance(1);
    board.begin_slice(&mut mem, deadline);
    assert!(board.interrupt());
    assert_eq!(board.acknowledge(), 0x30);
    assert!(board.next_event().unwrap() > deadline);
}

#[test]
fn the_clock_chip_interrupts() {
    let (mut board, mut mem, clock) = default_board();
    set_up_pic(&mut board, &mut mem);
    board.port_write(&mut mem, 0x70, Width::Byte, 0x0b);
    board.port_write(&mut mem, 0x71, Width::Byte, 0x42);
    let deadline = board.next_event().unwrap();
    clock.advance(deadline);
    board.begin_slice(&mut mem, deadline);
    assert_eq!(board.acknowledge(), 0x38);
    board.port_write(&mut mem, 0x70, Width::Byte, 0x0c);
    assert_eq!(board.port_read(&mut mem, 0x71, Width::Byte) & 0xc0, 0xc0);
}

#[test]
fn every_way_to_reset() {
    let (mut board, mut mem, _) = default_board();
    board.port_write(&mut mem, 0xcf9, Width::Byte, 2);
    assert_eq!(board.take_request(), None);
    board.port_write(&mut mem, 0xcf9, Width::Byte, 6);
    assert!(board.yield_requested());
    assert_eq!(board.take_request(), Some(Request::Reset));
    board.port_write(&mut mem, 0x92, Width::Byte, 3);
    assert_eq!(board.take_request(), Some(Request::Reset));
    board.port_write(&mut mem, 0x64, Width::Byte, 0xfe);
    assert_eq!(board.take_request(), Some(Request::Reset));
}

#[test]
fn reset_puts_devices_back() {
    let (mut board, mut mem, _) = acpi_board();
    set_up_pic(&mut board, &mut mem);
    board.port_write(&mut mem, 0xcf8, Width::Dword, config_address(1, 0x60));
    board.port_write(&mut mem, 0xcfc, Width::Dword, 0x0b0b_0a0a);
    board.fpu_error();
    board.reset(&mut mem);
    assert!(!board.interrupt());
    assert_eq!(board.pci, {
        let mut pci = Pci::default();
        pci.plug(&board.vga);
        pci.plug(&Acpi::default());
        pci.plug(&board.ide);
        pci.plug(&Ne2k::new(ne2k::MAC));
        pci
    });
}

#[test]
fn an_fpu_error_is_irq_13() {
    let (mut board, mut mem, _) = default_board();
    set_up_pic(&mut board, &mut mem);
    board.fpu_error();
    assert_eq!(board.acknowledge(), 0x3d);
    board.port_write(&mut mem, 0xf0, Width::Byte, 0);
    board.port_write(&mut mem, 0xa0, Width::Byte, 0x20);
    board.port_write(&mut mem, 0x20, Width::Byte, 0x20);
    board.fpu_error();
    assert!(board.interrupt(), "the line had been released");
}

#[test]
fn power_off_through_acpi() {
    let (mut board, mut mem, _) = acpi_board();
    board.port_write(&mut mem, 0xb004, Width::Word, 1 << 13);
    assert_eq!(board.take_request(), Some(Request::PowerOff));
    let (mut board, mut mem, _) = default_board();
    board.port_write(&mut mem, 0xb004, Width::Word, 1 << 13);
    assert_eq!(board.take_request(), None, "there is no ACPI");
}

#[test]
fn the_power_button_is_irq_9() {
    let (mut board, mut mem, _) = acpi_board();
    set_up_pic(&mut board, &mut mem);
    board.port_write(&mut mem, 0xb002, Width::Word, 1 << 8);
    board.press_power_button();
    assert_eq!(board.acknowledge(), 0x39);
    board.port_write(&mut mem, 0xb000, Width::Word, 1 << 8);
    assert!(!board.interrupts.interrupt());
}

#[test]
fn the_local_timer_has_a_deadline() {
    let (mut board, mut mem, clock) = acpi_board();
    assert_eq!(board.apic_base(), 0xfee0_0900);
    for (register, value) in [(0xf0, 0x1ff), (0x3e0, 0xb), (0x320, 0xef), (0x380, 5000)] {
        board.mmio_write(&mut mem, 0xfee0_0000 + register, Width::Dword, value);
    }
    assert_eq!(board.next_event(), Some(5000));
    clock.advance(2000);
    assert_eq!(board.mmio_read(&mut mem, 0xfee0_0390, Width::Dword), 3000);
    assert_eq!(board.mmio_read(&mut mem, 0xfee0_0032, Width::Byte), 5, "a part of the version");
    clock.advance(3000);
    board.begin_slice(&mut mem, 5000);
    assert_eq!(board.acknowledge(), 0xef);
    assert_eq!(board.next_event(), None);
    board.set_apic_base(0);
    assert_eq!(board.mmio_read(&mut mem, 0xfee0_0030, Width::Dword), u32::MAX);
}

#[test]
fn only_timers_that_start_anew_by_themselves_bound_the_slack() {
    let (mut board, mut mem, _) = acpi_board();
    let mut write = |board: &mut Board, port, value| board.port_write(&mut mem, port, Width::Byte, value);
    assert_eq!(board.slack(), u64::MAX);
    // Counter 0, mode 0, then mode 2, with a count of 1193: a millisecond.
    for (control, slack) in [(0x30, u64::MAX), (0x34, 499_924)] {
        for (port, value) in [(0x43, control), (0x40, 0xa9), (0x40, 0x04)] {
            write(&mut board, port, value);
        }
        assert_eq!(board.slack(), slack);
    }
    // The RTC's periodic interrupt at 8192 Hz.
    for (port, value) in [(0x70, 0x0a), (0x71, 0x23), (0x70, 0x0b), (0x71, 0x42)] {
        write(&mut board, port, value);
    }
    assert_eq!(board.slack(), 61_035);
    // The local APIC's timer, unmasked and periodic, with a count of 5000.
    for (register, value) in [(0xf0, 0x1ff), (0x3e0, 0xb), (0x320, 0x2_00ef), (0x380, 5000)] {
        board.mmio_write(&mut mem, 0xfee0_0000 + register, Width::Dword, value);
    }
    assert_eq!(board.slack(), 2500);
}

#[test]
fn the_io_apic_is_mapped() {
    let (mut board, mut mem, _) = acpi_board();
    board.mmio_write(&mut mem, 0xfec0_0000, Width::Dword, 1);
    assert_eq!(board.mmio_read(&mut mem, 0xfec0_0010, Width::Dword), 0x17_0011);
}

#[test]
fn debug_ports() {
    let (mut board, mut mem, _) = board(BoardConfig { debug_exit: Some(0xf4), ..BoardConfig::default() });
    board.debug.connected = true;
    board.port_write(&mut mem, 0x402, Width::Byte, b'a'.into());
    board.port_write(&mut mem, 0xe9, Width::Byte, b'b'.into());
    assert_eq!(board.port_read(&mut mem, 0x402, Width::Byte), 0xe9);
    assert_eq!(board.debug.take_output(), b"ab");
    board.port_write(&mut mem, 0xf4, Width::Dword, 0x1_0002);
    assert_eq!(board.take_request(), Some(Request::DebugExit(0x1_0002)));
}

#[test]
fn firmware_configuration_ports() {
    let (mut board, mut mem, _) = default_board();
    board.port_write(&mut mem, 0x510, Width::Word, 0);
    let read: Vec<u8> = (0..4).map(|_| board.port_read(&mut mem, 0x511, Width::Byte) as u8).collect();
    assert_eq!(read, b"QEMU");
}

#[test]
fn the_framebuffer_and_the_window_are_mapped() {
    let (mut board, mut mem, _) = board(BoardConfig { vga_rom: vec![0x55, 0xaa], ..BoardConfig::default() });
    mem.write_u32(0xe000_0010, 0x1234_5678);
    assert_eq!(mem.region(board.vga.memory.framebuffer)[0x12], 0x34);
    // Memory accesses are switched off, and on again.
    board.port_write(&mut mem, 0xcf8, Width::Dword, config_address(0x12, 4));
    board.port_write(&mut mem, 0xcfc, Width::Word, 1);
    assert_eq!(mem.read_u32(0xe000_0010), u32::MAX);
    board.port_write(&mut mem, 0xcfc, Width::Word, 3);
    assert_eq!(mem.read_u32(0xe000_0010), 0x1234_5678);
    board.mmio_write(&mut mem, 0xa_0000, Width::Byte, 0x41);
    assert_eq!(board.mmio_read(&mut mem, 0xa_0000, Width::Byte), 0x41);
    assert_eq!(board.mmio_read(&mut mem, 0xfeb0_0000, Width::Dword), 0xaa55);
}

fn files_board() -> (Board, Box<Memory>, ManualClock) {
    let filesystem: Option<(Filesystem, Box<dyn BlobStore>)> =
        Some((Filesystem::default(), Box::new(crate::fs::NoBlobs)));
    board(BoardConfig { filesystem, virtio_console: true, ..BoardConfig::default() })
}

#[test]
fn virtio_answers_where_its_base_addresses_are() {
    let (mut board, mut mem, _) = files_board();
    assert_eq!(board.port_read(&mut mem, 0xa812, Width::Word), 1, "number of queues at power-up");
    board.port_write(&mut mem, 0xcf8, Width::Dword, config_address(6, 0x10));
    board.port_write(&mut mem, 0xcfc, Width::Dword, 0xffff_ffff);
    assert_eq!(board.port_read(&mut mem, 0xcfc, Width::Dword), 0xffff_ffc1);
    assert_eq!(board.port_read(&mut mem, 0xa812, Width::Word), 0xffff, "being sized");
    board.port_write(&mut mem, 0xcfc, Width::Dword, 0xc100);
    assert_eq!(board.port_read(&mut mem, 0xc112, Width::Word), 1);
    assert_eq!(board.port_read(&mut mem, 0xa812, Width::Word), 0xffff);
    assert_eq!(
        board.port_read(&mut mem, 0xa602, Width::Dword),
        u32::from_le_bytes(*b"host"),
        "the mount tag"
    );
    // Legacy ports cannot be taken away by a base address.
    board.port_write(&mut mem, 0xcfc, Width::Dword, 0x3c0);
    board.port_write(&mut mem, 0x3c8, Width::Byte, 7);
    assert_eq!(board.port_read(&mut mem, 0x3c8, Width::Byte), 7);
    // Without I/O decoding there is nothing.
    board.port_write(&mut mem, 0xcf8, Width::Dword, config_address(6, 4));
    board.port_write(&mut mem, 0xcfc, Width::Word, 0);
    assert_eq!(board.port_read(&mut mem, 0xa602, Width::Byte), 0xff);
}

#[test]
fn pci_interrupts_take_the_routed_line() {
    let (mut board, mut mem, _) = files_board();
    set_up_pic(&mut board, &mut mem);
    board.port_write(&mut mem, 0x4d1, Width::Byte, 0x0c);
    board.port_write(&mut mem, 0xcf8, Width::Dword, config_address(1, 0x60));
    board.port_write(&mut mem, 0xcfc, Width::Dword, 0x0b0b_0a0a);
    if let Some(p9) = &mut board.p9 {
        p9.transport.isr_status = 1;
    }
    board.synchronize(&mut mem);
    assert_eq!(board.acknowledge(), 0x3a);
    for port in [0xa0, 0x20] {
        board.port_write(&mut mem, port, Width::Byte, 0x20);
    }
    assert!(board.interrupt(), "still asserted");
    board.port_write(&mut mem, 0xcfd, Width::Byte, 5);
    assert_eq!(board.acknowledge(), 0x35, "routed elsewhere");
    assert_eq!(board.port_read(&mut mem, 0xa700, Width::Byte), 1);
    assert_eq!(board.pci.irq_levels(), 0, "reading the status lets go");
}

#[test]
fn keys_interrupt() {
    let (mut board, mut mem, clock) = default_board();
    set_up_pic(&mut board, &mut mem);
    // Keyboard interrupt and translation on, keyboard enabled.
    board.port_write(&mut mem, 0x64, Width::Byte, 0x60);
    board.port_write(&mut mem, 0x60, Width::Byte, 0x45);
    assert!(board.keyboard_input(&[0x1e, 0x9e]));
    clock.advance(10_000_000);
    board.begin_slice(&mut mem, 10_000_000);
    assert_eq!(board.acknowledge(), 0x31);
    assert_eq!(board.port_read(&mut mem, 0x60, Width::Byte), 0x1e);
    assert!(!board.interrupt());
    let next = board.next_event().unwrap();
    board.port_write(&mut mem, 0x20, Width::Byte, 0x20);
    board.begin_slice(&mut mem, next);
    assert_eq!(board.acknowledge(), 0x31);
    assert_eq!(board.port_read(&mut mem, 0x60, Width::Byte), 0x9e);
}

#[test]
fn setup_memory_tells_the_ram_size() {
    let (mut board, mut mem, _) = board(BoardConfig { memory_size: 512 << 20, ..BoardConfig::default() });
    board.port_write(&mut mem, 0x70, Width::Byte, 0x35);
    assert_eq!(board.port_read(&mut mem, 0x71, Width::Byte), 0x1f);
}

#[test]
fn any_port_and_address_is_harmless() {
    let (mut board, mut mem, clock) = board(BoardConfig {
        acpi: true,
        uarts: [true; 4],
        virtio_console: true,
        virtio_balloon: true,
        virtio_shares: true,
        virtio_net: Some(ne2k::MAC),
        virtio_block: Some(ide::Medium::new(vec![0; 1 << 20], ide::Form::Written)),
        filesystem: Some((Filesystem::default(), Box::new(crate::fs::NoBlobs))),
        ..BoardConfig::default()
    });
    for value in [0, 0x5555_5555, u32::MAX] {
        for port in (0..0x1100)
            .chain(0xa5f0..0xb940)
            .chain(0xe600..0xe940)
            .chain(0xf600..0xf940)
            .chain([0xfffe, 0xffff])
        {
            for width in [Width::Byte, Width::Word, Width::Dword] {
                board.port_write(&mut mem, port, width, value & width.mask());
                board.port_read(&mut mem, port, width);
            }
        }
        clock.advance(1_000_000_000);
        let now = board.time();
        board.begin_slice(&mut mem, now);
        board.acknowledge();
    }
    for addr in [0xa_0000, 0xb_ffff, 0xe000_0000, 0xe07f_ffff, 0xfec0_0ffd, 0xfee0_0fff, u32::MAX] {
        for width in [Width::Byte, Width::Word, Width::Dword] {
            board.mmio_write(&mut mem, addr, width, width.mask());
            board.mmio_read(&mut mem, addr, width);
        }
    }
}

#[test]
fn a_board_can_be_sent_to_a_thread() {
    fn sendable<T: Send>() {}
    sendable::<crate::Pc>();
}

#[test]
fn devices_that_overlap_are_an_error() {
    let build = |debug_exit| {
        let config = BoardConfig { debug_exit, acpi: true, uarts: [true; 4], ..BoardConfig::default() };
        Board::new(config, &mut memory(), Box::<ManualClock>::default(), Box::new(Seeded(0))).map(|_| ())
    };
    for port in [0xf4, 0x501, 0xfffc] {
        assert_eq!(build(Some(port)), Ok(()));
    }
    let overlap = |port, first| Err(BoardError::Port { port, first, second: "debug_exit" });
    assert_eq!(build(Some(0x376)), overlap(0x376, "ide"));
    assert_eq!(build(Some(0x40)), overlap(0x40, "pit"));
    assert_eq!(build(Some(0x2f5)), overlap(0x2f8, "uarts"));
    assert_eq!(build(Some(0xe8)), overlap(0xe9, "debug"));
    assert!(matches!(build(Some(0xfffd)), Err(BoardError::Ports { device: "debug_exit", .. })));
}

#[test]
fn a_base_address_over_other_ports_takes_only_what_is_free() {
    let (mut board, mut mem, _) = files_board();
    // The 64 ports from 3C0h on: VGA, COM1 and what is between them.
    board.port_write(&mut mem, 0xcf8, Width::Dword, config_address(6, 0x10));
    board.port_write(&mut mem, 0xcfc, Width::Dword, 0x3c0);
    let rows = [0x3c0, 0x3e0, 0x3f8].map(|port| board.ports.find(port).map(|region| region.row));
    assert_eq!(rows, [Row::vga, Row::p9, Row::uarts].map(Some));
    // The first row wins where two base addresses lie at the same ports.
    board.port_write(&mut mem, 0xcf8, Width::Dword, config_address(12, 0x10));
    board.port_write(&mut mem, 0xcfc, Width::Dword, 0x3c0);
    assert_eq!(board.ports.find(0x3e0).map(|region| region.row), Some(Row::p9));
}

#[test]
fn rows_have_names() {
    let entries: Vec<_> = Row::ALL.iter().flat_map(|row| row.states()).collect();
    assert!(entries.contains(&&"uart3") && entries.contains(&&"virtio_console"));
    assert_eq!((Row::p9.name(), Row::p9.states()), ("p9", &["virtio_9p"][..]));
}
