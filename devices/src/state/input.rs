//! Keyboard, mouse, pointer and serial ports.

use super::StateError;
use super::record::{Entry, Layout, Record};
use super::value::Value;
use crate::ps2::{COMMAND_TRANSLATE, Destination, Ps2, keyboard, mouse};
use crate::uart::{IRQS, Uart};
use crate::vmware::Backdoor;

pub(super) const PS2: Layout = Layout {
    name: "ps2",
    fields: &[
        "enable_mouse_stream",
        "use_mouse",
        "have_mouse",
        "mouse_delta_x",
        "mouse_delta_y",
        "mouse_clicks",
        "have_keyboard",
        "enable_keyboard_stream",
        "next_is_mouse_command",
        "next_read_sample",
        "next_read_led",
        "next_handle_scan_code_set",
        "next_read_rate",
        "next_read_resolution",
        "",
        "last_port60_byte",
        "sample_rate",
        "resolution",
        "scaling2",
        "",
        "command_register",
        "read_output_register",
        "read_command_register",
        "controller_output_port",
        "read_controller_output_port",
        "mouse_id",
        "mouse_detect_state",
        "mouse_reset_workaround",
    ],
};
/// The output port after a reset: not resetting, A20 open. v86 has 0 until it is written.
const OUTPUT_PORT: u8 = 3;
/// v86's numbers of how far the sequence of sample rates has come.
const KNOCKS: [(mouse::Knock, i32); 5] = [
    (mouse::Knock::None, 0),
    (mouse::Knock::Rate200, 1),
    (mouse::Knock::Rate200Then100, 2),
    (mouse::Knock::Rate200Then200, 3),
    (mouse::Knock::Complete, -1),
];

pub(super) const VMWARE: Layout = Layout { name: "vmware", fields: &["enabled", "absolute"] };

/// Packets that wait are not in the state: the guest hears of the pointer when it next moves.
pub(super) fn read_backdoor(r: &Record) -> Result<Backdoor, StateError> {
    Ok(Backdoor { enabled: r.bool("enabled")?, absolute: r.bool("absolute")?, ..Backdoor::default() })
}

pub(super) fn write_backdoor(backdoor: &Backdoor) -> Value {
    Entry::new(&VMWARE).set("enabled", backdoor.enabled).set("absolute", backdoor.absolute).value()
}

pub(super) fn read_ps2(r: &Record) -> Result<Ps2, StateError> {
    let mut ps2 = Ps2 {
        has_mouse: r.bool("have_mouse")?,
        has_keyboard: r.bool("have_keyboard")?,
        command_byte: r.u8("command_register")?,
        output_port: match r.u8("controller_output_port")? {
            0 => OUTPUT_PORT,
            port => port,
        },
        last_byte: r.u8("last_port60_byte")?,
        ..Ps2::default()
    };
    let destinations = [
        ("next_is_mouse_command", Destination::Mouse),
        ("read_output_register", Destination::MouseBuffer),
        ("read_command_register", Destination::Ram(0)),
        ("read_controller_output_port", Destination::OutputPort),
    ];
    for (field, destination) in destinations {
        if r.bool(field)? {
            ps2.destination = destination;
        }
    }
    let keys = &mut ps2.keyboard;
    keys.scanning = r.bool("enable_keyboard_stream")?;
    if ps2.command_byte & COMMAND_TRANSLATE == 0 {
        // v86's keyboard always sends what a PC's driver sees: set 1.
        keys.set = 1;
    }
    let expected = [
        ("next_read_led", keyboard::Expect::Leds),
        ("next_handle_scan_code_set", keyboard::Expect::ScanCodeSet),
        ("next_read_rate", keyboard::Expect::Typematic),
    ];
    for (field, expect) in expected {
        if r.bool(field)? {
            keys.expect = expect;
        }
    }
    let mouse = &mut ps2.mouse;
    mouse.reporting = r.bool("enable_mouse_stream")?;
    mouse.used = r.bool("use_mouse")?;
    (mouse.dx, mouse.dy) = (0, 0);
    mouse.move_by(r.f64_or_zero("mouse_delta_x")? as i32, r.f64_or_zero("mouse_delta_y")? as i32, 0);
    mouse.buttons = r.u8("mouse_clicks")? & 7;
    mouse.sample_rate = r.u8("sample_rate")?;
    mouse.resolution = r.u8("resolution")?;
    mouse.scaling2 = r.bool("scaling2")?;
    mouse.id = match r.u8("mouse_id")? {
        id @ (0 | 3 | 4) => id,
        other => return Err(r.wrong("mouse_id", format!("is {other}, not 0, 3 or 4"))),
    };
    let state = r.u32("mouse_detect_state")? as i32;
    mouse.knock =
        KNOCKS.into_iter().find(|(_, number)| *number == state).map_or_else(Default::default, |k| k.0);
    mouse.keep_id = r.bool("mouse_reset_workaround")?;
    if r.bool("next_read_sample")? {
        mouse.expect = mouse::Expect::SampleRate;
    } else if r.bool("next_read_resolution")? {
        mouse.expect = mouse::Expect::Resolution;
    }
    Ok(ps2)
}

pub(super) fn write_ps2(ps2: &Ps2) -> Value {
    let (keys, mouse) = (&ps2.keyboard, &ps2.mouse);
    let knock = KNOCKS.into_iter().find(|(knock, _)| *knock == mouse.knock).map_or(0, |k| k.1);
    Entry::new(&PS2)
        .set("enable_mouse_stream", mouse.reporting)
        .set("use_mouse", mouse.used)
        .set("have_mouse", ps2.has_mouse)
        .set("mouse_delta_x", mouse.dx)
        .set("mouse_delta_y", mouse.dy)
        .set("mouse_clicks", mouse.buttons & 7)
        .set("have_keyboard", ps2.has_keyboard)
        .set("enable_keyboard_stream", keys.scanning)
        .set("next_is_mouse_command", ps2.destination == Destination::Mouse)
        .set("next_read_sample", mouse.expect == mouse::Expect::SampleRate)
        .set("next_read_led", keys.expect == keyboard::Expect::Leds)
        .set("next_handle_scan_code_set", keys.expect == keyboard::Expect::ScanCodeSet)
        .set("next_read_rate", keys.expect == keyboard::Expect::Typematic)
        .set("next_read_resolution", mouse.expect == mouse::Expect::Resolution)
        .set("last_port60_byte", ps2.last_byte)
        .set("sample_rate", mouse.sample_rate)
        .set("resolution", mouse.resolution)
        .set("scaling2", mouse.scaling2)
        .set("command_register", ps2.command_byte)
        .set("read_output_register", ps2.destination == Destination::MouseBuffer)
        .set("read_command_register", ps2.destination == Destination::Ram(0))
        .set("controller_output_port", ps2.output_port)
        .set("read_controller_output_port", ps2.destination == Destination::OutputPort)
        .set("mouse_id", mouse.id)
        .set("mouse_detect_state", knock)
        .set("mouse_reset_workaround", mouse.keep_id)
        .value()
}

pub(super) const UART: Layout = Layout {
    name: "uart",
    fields: &["pending", "divisor", "lcr", "lsr", "fcr", "ier", "iir", "mcr", "msr", "scratch", "irq"],
};
/// Reasons of interrupts, as bits by v86's numbers of them.
const PENDING_MODEM: u8 = 1 << 0;
const PENDING_THRE: u8 = 1 << 2;
const IIR_NONE: u8 = 1;
const IIR_THRE: u8 = 2;
const IIR_MODEM: u8 = 0;
const IER_THRE: u8 = 2;
const IER_MODEM: u8 = 8;
const MSR_DELTAS: u8 = 0x0f;
const MSR_LINES: u8 = 0xf0;
const MCR_LOOP: u8 = 0x10;
/// Line status: the transmitter is empty, which it always is; data ready follows from the queue.
const LSR_EMPTY: u8 = 0x60;
const LSR_KEPT: u8 = 0x1e;

pub(super) fn read_uart(r: &Record) -> Result<Uart, StateError> {
    let mcr = r.u8("mcr")? & 0x1f;
    let msr = r.u8("msr")?;
    Ok(Uart {
        divisor: r.u16("divisor")?,
        ier: r.u8("ier")? & 0x0f,
        fcr: r.u8("fcr")?,
        lcr: r.u8("lcr")?,
        mcr,
        lsr: LSR_EMPTY | r.u8("lsr")? & LSR_KEPT,
        msr,
        scratch: r.u8("scratch")?,
        thre_pending: r.u8("pending")? & PENDING_THRE != 0,
        modem: if mcr & MCR_LOOP == 0 { msr & MSR_LINES } else { 0 },
        ..Uart::default()
    })
}

pub(super) fn write_uart(uart: &Uart, port: usize) -> Value {
    let modem = uart.msr & MSR_DELTAS != 0;
    let thre = uart.thre_pending;
    let pending = if modem { PENDING_MODEM } else { 0 } | if thre { PENDING_THRE } else { 0 };
    let iir = if uart.ier & IER_THRE != 0 && thre {
        IIR_THRE
    } else if uart.ier & IER_MODEM != 0 && modem {
        IIR_MODEM
    } else {
        IIR_NONE
    };
    Entry::new(&UART)
        .set("pending", pending)
        .set("divisor", uart.divisor)
        .set("lcr", uart.lcr)
        .set("lsr", LSR_EMPTY | uart.lsr & LSR_KEPT)
        .set("fcr", uart.fcr)
        .set("ier", uart.ier)
        .set("iir", iir)
        .set("mcr", uart.mcr)
        .set("msr", uart.msr)
        .set("scratch", uart.scratch)
        .set("irq", IRQS.get(port).copied().unwrap_or_default())
        .value()
}
