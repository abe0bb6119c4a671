//! The controller with both devices, as drivers use it.

use super::*;

/// A controller and a clock that moves on with every access.
#[derive(Default)]
struct Bench {
    ps2: Ps2,
    now: u64,
}

impl Bench {
    fn command(&mut self, command: u8) {
        self.ps2.write(PORT_COMMAND, command, self.now);
    }

    fn data(&mut self, value: u8) {
        self.ps2.write(PORT_DATA, value, self.now);
    }

    fn status(&mut self) -> u8 {
        self.ps2.read(PORT_COMMAND, self.now)
    }

    /// Reads what comes, each byte after its gap.
    fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.status() & STATUS_OBF != 0 {
            bytes.push(self.ps2.read(PORT_DATA, self.now));
            self.now += GAP_NS;
        }
        bytes
    }

    fn mouse(&mut self, value: u8) -> Vec<u8> {
        self.command(WRITE_AUX);
        self.data(value);
        self.drain()
    }
}

#[test]
fn self_tests() {
    let mut bench = Bench::default();
    for (command, answer) in [(SELF_TEST, 0x55), (TEST_KEYBOARD, 0), (TEST_AUX, 0), (TEST_PASSWORD, 0xf1)] {
        bench.command(command);
        assert_eq!(bench.drain(), [answer]);
    }
}

#[test]
fn the_command_byte_and_ram() {
    let mut bench = Bench::default();
    bench.command(0x60);
    bench.data(0x47);
    bench.command(0x65);
    bench.data(0x99);
    bench.command(0x20);
    assert_eq!(bench.drain(), [0x47]);
    bench.command(0x25);
    assert_eq!(bench.drain(), [0x99]);
}

#[test]
fn status_tells_command_from_data() {
    let mut bench = Bench::default();
    bench.command(DISABLE_AUX);
    assert_eq!(bench.status() & STATUS_COMMAND, STATUS_COMMAND);
    bench.data(0xf4);
    assert_eq!(bench.status() & (STATUS_COMMAND | STATUS_UNLOCKED), STATUS_UNLOCKED);
}

#[test]
fn translation_makes_set_1() {
    let mut bench = Bench::default();
    bench.ps2.key(&[0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8], 0);
    assert_eq!(bench.drain(), [0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8]);
}

#[test]
fn without_translation_set_2_comes_through() {
    let mut bench = Bench::default();
    bench.command(0x60);
    bench.data(0x05);
    bench.ps2.key(&[0x1e, 0x9e], 0);
    assert_eq!(bench.drain(), [0x1c, 0xf0, 0x1c]);
}

#[test]
fn the_keyboards_id_is_translated_too() {
    let mut bench = Bench::default();
    bench.data(0xf2);
    assert_eq!(bench.drain(), [0xfa, 0xab, 0x41]);
}

#[test]
fn each_byte_makes_an_edge_on_irq_1() {
    let mut bench = Bench::default();
    bench.ps2.key(&[0x1e, 0x9e], 0);
    assert!(bench.ps2.irq1() && !bench.ps2.irq12());
    assert_eq!(bench.ps2.read(PORT_DATA, 0), 0x1e);
    assert!(!bench.ps2.irq1());
    assert_eq!(bench.ps2.next_event(), Some(GAP_NS));
    bench.ps2.poll(GAP_NS - 1);
    assert!(!bench.ps2.irq1());
    bench.ps2.poll(GAP_NS);
    assert!(bench.ps2.irq1());
    assert_eq!(bench.ps2.read(PORT_DATA, GAP_NS), 0x9e);
}

#[test]
fn an_empty_buffer_gives_the_last_byte_again() {
    let mut bench = Bench::default();
    bench.ps2.key(&[0x1e], 0);
    assert_eq!(bench.ps2.read(PORT_DATA, 0), 0x1e);
    assert_eq!(bench.ps2.read(PORT_DATA, 0), 0x1e);
}

#[test]
fn a_disabled_keyboard_holds_its_bytes() {
    let mut bench = Bench::default();
    bench.command(DISABLE_KEYBOARD);
    bench.ps2.key(&[0x1e], 0);
    assert!(bench.drain().is_empty());
    bench.command(ENABLE_KEYBOARD);
    assert_eq!(bench.drain(), [0x1e]);
}

#[test]
fn a_disabled_mouse_holds_its_report() {
    let mut bench = Bench::default();
    bench.mouse(0xf4);
    bench.command(DISABLE_AUX);
    bench.command(0x20);
    assert_eq!(bench.drain(), [0x65], "the clock is held, which the command byte shows");
    bench.ps2.mouse_move(2, 0, 0, bench.now);
    assert!(bench.drain().is_empty());
    bench.command(ENABLE_AUX);
    assert_eq!(bench.drain(), [0x08, 2, 0]);
}

#[test]
fn what_comes_back_through_the_mouses_port_raises_its_interrupt() {
    let mut bench = Bench::default();
    bench.command(0x60);
    bench.data(0x47);
    bench.command(WRITE_AUX_BUFFER);
    bench.data(0x12);
    assert!(bench.ps2.irq12() && !bench.ps2.irq1());
    assert_eq!(bench.drain(), [0x12]);
    // A byte without D4h before it is the keyboard's.
    assert_eq!(bench.mouse(0xeb), [0xfa, 0x08, 0, 0]);
    bench.data(0xee);
    assert_eq!(bench.drain(), [0xee]);
}

#[test]
fn writing_to_a_device_enables_its_port() {
    let mut bench = Bench::default();
    bench.command(DISABLE_KEYBOARD);
    bench.command(DISABLE_AUX);
    bench.data(0xee);
    assert_eq!(bench.drain(), [0xee]);
    assert_eq!(bench.mouse(0xf2), [0xfa, 0]);
}

#[test]
fn the_mouse_behind_d4() {
    let mut bench = Bench::default();
    bench.command(0x60);
    bench.data(0x47);
    assert_eq!(bench.mouse(0xff), [0xfa, 0xaa, 0]);
    assert!(bench.ps2.mouse_used());
    assert_eq!(bench.mouse(0xf4), [0xfa]);
    bench.ps2.mouse_move(4, -1, 0, bench.now);
    assert!(bench.ps2.irq12() && !bench.ps2.irq1());
    assert_eq!(bench.status() & (STATUS_OBF | STATUS_AUX_OBF), STATUS_OBF | STATUS_AUX_OBF);
    assert_eq!(bench.drain(), [0x28, 4, 0xff]);
}

#[test]
fn mouse_buttons() {
    let mut bench = Bench::default();
    bench.mouse(0xf4);
    bench.ps2.mouse_buttons(true, false, true, bench.now);
    assert_eq!(bench.drain(), [0x0b, 0, 0]);
}

#[test]
fn the_mouse_waits_for_its_sample_time() {
    let mut bench = Bench::default();
    bench.mouse(0xf4);
    bench.ps2.mouse_move(1, 0, 0, bench.now);
    let first = bench.now;
    bench.drain();
    bench.ps2.mouse_move(1, 0, 0, bench.now);
    assert_eq!(bench.ps2.next_event(), Some(first + 10_000_000));
}

#[test]
fn the_loopback_tests_of_both_ports() {
    let mut bench = Bench::default();
    bench.command(WRITE_KEYBOARD_BUFFER);
    bench.data(0x5a);
    assert_eq!(bench.status() & STATUS_AUX_OBF, 0);
    assert_eq!(bench.drain(), [0x5a]);
    bench.command(WRITE_AUX_BUFFER);
    bench.data(0xa5);
    assert_eq!(bench.status() & STATUS_AUX_OBF, STATUS_AUX_OBF);
    assert_eq!(bench.drain(), [0xa5]);
}

#[test]
fn the_output_port_gates_a20_and_resets() {
    let mut bench = Bench::default();
    bench.command(WRITE_OUTPUT_PORT);
    bench.data(0xdd);
    assert!(!bench.ps2.a20());
    bench.command(READ_OUTPUT_PORT);
    assert_eq!(bench.drain(), [0xcd]);
    bench.command(ENABLE_A20);
    assert!(bench.ps2.a20());
    assert!(!bench.ps2.take_reset());
    bench.command(WRITE_OUTPUT_PORT);
    bench.data(0xfe);
    assert!(bench.ps2.take_reset());
    assert!(!bench.ps2.take_reset());
}

#[test]
fn the_pulse_command_resets() {
    let mut bench = Bench::default();
    bench.command(0xff);
    assert!(!bench.ps2.take_reset());
    bench.command(0xfe);
    assert!(bench.ps2.take_reset());
}

#[test]
fn ports_with_nothing_plugged_in() {
    let ps2 = Ps2 { has_keyboard: false, has_mouse: false, ..Ps2::default() };
    let mut bench = Bench { ps2, now: 0 };
    bench.data(0xff);
    assert!(bench.drain().is_empty());
    assert!(bench.mouse(0xff).is_empty());
    bench.command(TEST_AUX);
    assert_eq!(bench.drain(), [PORT_CLOCK_LOW]);
    assert!(bench.ps2.key(&[0x1e], 0));
    assert_eq!(bench.ps2.next_event(), None);
}

#[test]
fn a_held_key_repeats_through_the_controller() {
    let mut bench = Bench::default();
    bench.ps2.key(&[0x1e], 0);
    bench.drain();
    bench.now = bench.ps2.next_event().unwrap();
    assert_eq!(bench.drain(), [0x1e]);
    bench.ps2.release_keys(bench.now);
    assert_eq!(bench.drain(), [0x9e]);
    assert_eq!(bench.ps2.next_event(), None);
}

#[test]
fn passwords_are_swallowed() {
    let mut bench = Bench::default();
    bench.command(LOAD_PASSWORD);
    for byte in [0x1e, 0xff, 0x00] {
        bench.data(byte);
    }
    assert!(bench.drain().is_empty());
    bench.data(0xee);
    assert_eq!(bench.drain(), [0xee]);
}

#[test]
fn the_input_port() {
    let mut bench = Bench::default();
    bench.command(READ_INPUT_PORT);
    assert_eq!(bench.drain(), [INPUT_PORT]);
    bench.command(POLL_INPUT_HIGH);
    assert_eq!(bench.status() & 0xf0, INPUT_PORT & 0xf0);
    bench.command(ENABLE_AUX);
    assert_eq!(bench.status() & 0xf0, STATUS_UNLOCKED);
}

#[test]
fn the_diagnostic_dump() {
    let mut bench = Bench::default();
    bench.command(DIAGNOSTIC_DUMP);
    assert_eq!(bench.drain().len(), 19);
}

#[test]
fn a_guest_that_reads_nothing_fills_nothing() {
    let mut bench = Bench::default();
    for i in 0..10_000u32 {
        bench.now += 1_000_000;
        bench.command(0x20);
        bench.data(0xf2);
        bench.ps2.key(&[0x1e, 0x9e], bench.now);
        bench.ps2.mouse_move(1, 1, 1, bench.now);
        bench.ps2.mouse_buttons(i & 1 != 0, false, false, bench.now);
    }
    assert!(bench.ps2.replies.len() <= MAX_REPLIES);
    assert!(bench.ps2.keyboard.codes.len() <= 256 && bench.ps2.mouse.queue.len() <= 4);
}

#[test]
fn no_sequence_of_accesses_panics() {
    let mut bench = Bench::default();
    let mut x = 1u32;
    for _ in 0..100_000 {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bench.now += u64::from(x >> 12);
        let value = (x >> 16) as u8;
        match x >> 29 {
            0 => {
                bench.ps2.read(PORT_DATA, bench.now);
            }
            1 => {
                bench.ps2.key(&[value], bench.now);
            }
            2 => bench.ps2.mouse_move(x as i32, (x as i32).wrapping_neg(), 1, bench.now),
            3 | 4 => bench.command(value),
            _ => bench.data(value),
        }
        bench.ps2.next_event();
    }
}
