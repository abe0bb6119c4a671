//! The keyboard controller, the keyboard and the mouse.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::ours::{hex, take_bool, take_u8, unhex};
use super::record::{Entry, Layout, Record};
use super::value::Value;
use crate::pc::Pc;
use crate::ps2::{COMMAND_TRANSLATE, Destination, Ps2, Source, keyboard, mouse};
use serde_json::{Value as Json, json};

const PS2: Layout = Layout {
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

/// Key strokes and mouse bytes that are taken over at most.
const MAX_INPUT: usize = 256;

pub(super) type Saved = Ps2;

impl Chip for Ps2 {
    fn read(state: &State) -> Result<Self, StateError> {
        let mut ps2 = read(&state.entry(&PS2, "ps2")?)?;
        refine(&mut ps2, state);
        Ok(ps2)
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        machine.board.ps2 = self;
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let ps2 = &machine.board.ps2;
        writer.set("ps2", write(ps2));
        write_ours(ps2, writer);
        Ok(())
    }
}

fn refine(ps2: &mut Ps2, state: &State) {
    let (saved, keys) = (state.ours("keyboard"), &mut ps2.keyboard);
    take_u8(&saved["set"], &mut keys.set);
    keys.set = keys.set.clamp(1, 3);
    take_u8(&saved["leds"], &mut keys.leds);
    take_u8(&saved["typematic"], &mut keys.typematic);
    take_u8(&saved["last_sent"], &mut keys.last_sent);
    keys.replies.extend(unhex(&saved["replies"], MAX_INPUT));
    keys.codes.extend(unhex(&saved["codes"], MAX_INPUT));
    let (saved, mouse) = (state.ours("mouse"), &mut ps2.mouse);
    take_bool(&saved["remote"], &mut mouse.remote);
    take_bool(&saved["wrap"], &mut mouse.wrap);
    mouse.move_by(0, 0, saved["dz"].as_i64().unwrap_or(0) as i32);
    take_u8(&saved["buttons"], &mut mouse.buttons);
    mouse.queue.extend(unhex(&saved["queue"], MAX_INPUT));
    mouse.last_packet = unhex(&saved["last_packet"], MAX_INPUT);
    let saved = state.ours("ps2");
    ps2.output = read_byte(&saved["output"]);
    let replies = saved["replies"].as_array().into_iter().flatten();
    ps2.replies.extend(replies.filter_map(read_byte).take(MAX_INPUT));
    take_bool(&saved["release_pending"], &mut ps2.release_pending);
}

/// A byte of the controller's queues, with where it came from.
fn read_byte(saved: &Json) -> Option<(u8, Source)> {
    let source = if saved[1].as_bool()? { Source::Mouse } else { Source::Keyboard };
    Some((u8::try_from(saved[0].as_u64()?).ok()?, source))
}

fn write_byte((byte, source): &(u8, Source)) -> Json {
    json!([byte, *source == Source::Mouse])
}

fn write_ours(ps2: &Ps2, writer: &mut Writer) {
    let (keys, mouse) = (&ps2.keyboard, &ps2.mouse);
    let keyboard = json!({
        "set": keys.set,
        "leds": keys.leds,
        "typematic": keys.typematic,
        "replies": hex(keys.replies.iter().copied()),
        "codes": hex(keys.codes.iter().copied()),
        "last_sent": keys.last_sent,
    });
    let mouse = json!({
        "remote": mouse.remote,
        "wrap": mouse.wrap,
        "dz": mouse.dz,
        "buttons": mouse.buttons,
        "queue": hex(mouse.queue.iter().copied()),
        "last_packet": hex(mouse.last_packet.iter().copied()),
    });
    let controller = json!({
        "output": ps2.output.as_ref().map(write_byte),
        "replies": ps2.replies.iter().map(write_byte).collect::<Vec<_>>(),
        "release_pending": ps2.release_pending,
    });
    writer.add("keyboard", keyboard);
    writer.add("mouse", mouse);
    writer.add("ps2", controller);
}

fn read(r: &Record) -> Result<Ps2, StateError> {
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

fn write(ps2: &Ps2) -> Value {
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

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, bits, fields, one_of, some};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &[
            "ram",
            "command_written",
            "polled_input",
            "ready_at",
            "reset",
            "parser",
            "down",
            "repeating",
            "set3_repeats",
            "set3_breaks",
            "pending_buttons",
            "refused",
            "next_sample",
        ];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.ps2.has_keyboard => any,
                m.board.ps2.has_mouse => any,
                m.board.ps2.command_byte => any,
                m.board.ps2.last_byte => any,
                m.board.ps2.release_pending => any,
                m.board.ps2.output_port => |r: &mut Random| any::<u8>(r) | 1,
                m.board.ps2.destination => one_of([
                    Destination::Keyboard,
                    Destination::Mouse,
                    Destination::Ram(0),
                    Destination::OutputPort,
                    Destination::MouseBuffer,
                ]),
                m.board.ps2.output => |r: &mut Random| Some((any(r), Source::Mouse)),
                m.board.ps2.replies => |r: &mut Random| {
                    some::<Vec<u8>, u8>(r).into_iter().map(|byte| (byte, Source::Keyboard)).collect()
                },
                m.board.ps2.keyboard.scanning => any,
                m.board.ps2.keyboard.set => one_of([1, 2, 3]),
                m.board.ps2.keyboard.leds => any,
                m.board.ps2.keyboard.typematic => any,
                m.board.ps2.keyboard.expect => one_of([
                    keyboard::Expect::Command,
                    keyboard::Expect::Leds,
                    keyboard::Expect::ScanCodeSet,
                    keyboard::Expect::Typematic,
                ]),
                m.board.ps2.keyboard.replies => some,
                m.board.ps2.keyboard.codes => some,
                m.board.ps2.keyboard.last_sent => any,
                m.board.ps2.mouse.reporting => any,
                m.board.ps2.mouse.used => any,
                m.board.ps2.mouse.remote => any,
                m.board.ps2.mouse.wrap => any,
                m.board.ps2.mouse.dx => |r: &mut Random| r.below(200) as i32 - 100,
                m.board.ps2.mouse.dy => |r: &mut Random| r.below(200) as i32 - 100,
                m.board.ps2.mouse.dz => |r: &mut Random| r.below(200) as i32 - 100,
                m.board.ps2.mouse.buttons => bits(7),
                m.board.ps2.mouse.sample_rate => any,
                m.board.ps2.mouse.resolution => any,
                m.board.ps2.mouse.scaling2 => any,
                m.board.ps2.mouse.id => one_of([0, 3, 4]),
                m.board.ps2.mouse.knock => |r: &mut Random| one_of(KNOCKS)(r).0,
                m.board.ps2.mouse.keep_id => any,
                m.board.ps2.mouse.expect => one_of([
                    mouse::Expect::Command,
                    mouse::Expect::SampleRate,
                    mouse::Expect::Resolution,
                ]),
                m.board.ps2.mouse.queue => some,
                m.board.ps2.mouse.last_packet => some,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.ps2)
        }
    }
}
