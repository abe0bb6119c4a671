//! What v86's format has no place for, in a place that v86 does not look at.
//!
//! All of it refines what the state says without it; nothing here is needed, and whatever cannot be
//! understood is left out.

use super::plan::Plan;
use super::timers::SavedPit;
use crate::board::Board;
use crate::fs::{Content, Filesystem};
use crate::ide::{Channel, Drive};
use crate::pc::Pc;
use crate::pit::{Counter, time_of_tick};
use crate::ps2::Source;
use crate::uart::{FIFO_SIZE, INPUT_SIZE, Received, Uart};
use crate::vga::registers::attribute;
use serde_json::{Map, Value, json};

/// The version of these additions.
const VERSION: u64 = 1;
/// Key strokes and mouse bytes that are taken over at most.
const MAX_INPUT: usize = 256;

/// The additions of a state, or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Extra(Value);

/// The additions for a machine.
pub(super) fn write(machine: &Pc, now: u64) -> Map<String, Value> {
    let (cpu, board) = (machine.cpu.state(), &machine.board);
    let uart = |uart: &Uart| {
        let bytes = uart.receiver.iter().chain(&uart.input).map(|r| r.byte);
        json!({ "input": hex(bytes) })
    };
    let (keys, mouse, ps2) = (&board.ps2.keyboard, &board.ps2.mouse, &board.ps2);
    let output = ps2.output.map(|(byte, source)| json!([byte, source == Source::Mouse]));
    let replies: Vec<Value> =
        ps2.replies.iter().map(|(byte, source)| json!([byte, *source == Source::Mouse])).collect();
    let chip = |chip: &crate::pic::Chip| {
        json!({
            "lowest_priority": chip.lowest_priority,
            "single": chip.single,
            "special_fully_nested": chip.special_fully_nested,
            "poll": chip.poll,
            "rotate_on_auto_eoi": chip.rotate_on_auto_eoi,
        })
    };
    let pic = &board.interrupts.pic;
    let vbe = &board.vga.vbe;
    let mut extra = Map::new();
    let mut put = |key: &str, value: Value| _ = extra.insert(key.into(), value);
    put("version", json!(VERSION));
    put("writer", json!(concat!("env86 ", env!("CARGO_PKG_VERSION"))));
    put("guest_time_ns", json!(now));
    put(
        "cpu",
        json!({
            "interrupt_shadow": cpu.interrupt_shadow,
            "big": cpu.seg.map(|segment| segment.big),
            "tr_access": cpu.tr.access,
            "ldtr_access": cpu.ldtr.access,
        }),
    );
    put("pic", json!([chip(&pic.master), chip(&pic.slave)]));
    if let Some(apics) = &board.interrupts.apics {
        put("apic_base", json!(apics.local.base));
    }
    if let Some(acpi) = &board.acpi {
        put("acpi", json!([acpi.smi_command, acpi.smi_status]));
    }
    put("pit", board.pit.counters.iter().map(|c| write_counter(c, now)).collect());
    put("uarts", board.uarts.iter().map(|u| u.as_ref().map_or(Value::Null, uart)).collect());
    put(
        "keyboard",
        json!({
            "set": keys.set,
            "leds": keys.leds,
            "typematic": keys.typematic,
            "replies": hex(keys.replies.iter().copied()),
            "codes": hex(keys.codes.iter().copied()),
            "last_sent": keys.last_sent,
        }),
    );
    put(
        "mouse",
        json!({
            "remote": mouse.remote,
            "wrap": mouse.wrap,
            "dz": mouse.dz,
            "buttons": mouse.buttons,
            "queue": hex(mouse.queue.iter().copied()),
            "last_packet": hex(mouse.last_packet.iter().copied()),
        }),
    );
    put("ps2", json!({ "output": output, "replies": replies, "release_pending": ps2.release_pending }));
    put("port_61", json!(board.system_control.port_b));
    put("port_92", json!(board.system_control.port_a));
    put("fw_cfg_position", json!(board.fw_cfg.position));
    put("reset_control", json!(board.pci.reset_control));
    put("dma", board.dma.chips.iter().map(|c| json!([c.command, c.terminal_counts, c.requests])).collect());
    put("dma_pages", json!(hex(board.dma.spare_pages)));
    put(
        "vga",
        json!({
            "feature": board.vga.feature,
            "enable": board.vga.enable,
            "overscan": board.vga.attribute.registers[attribute::OVERSCAN],
            "sequencer_reset": board.vga.sequencer.registers[0],
            "vbe_id": vbe.id,
            "virtual_width": vbe.virtual_width,
            "x_offset": vbe.x_offset,
            "y_offset": vbe.y_offset,
        }),
    );
    put("ide", board.ide.channels.iter().map(|c| c.as_ref().map_or(Value::Null, write_channel)).collect());
    if let Some(p9) = &board.p9 {
        put("files", write_files(&p9.server.fs));
    }
    extra
}

fn write_channel(channel: &Channel) -> Value {
    let drive = |drive: &Drive| {
        let (tray, sense) = (&drive.tray, drive.tray.sense);
        json!({
            "interrupt": drive.interrupt,
            "multiple": drive.multiple,
            "transfer_mode": drive.transfer_mode,
            "sense": [sense.key, sense.code, sense.qualifier],
            "locked": tray.locked,
            "changed": tray.changed,
            "event": tray.event,
        })
    };
    channel.drives.iter().map(drive).collect()
}

fn write_counter(c: &Counter, now: u64) -> Value {
    let tick = crate::pit::ticks(now);
    json!({
        "bcd": c.bcd,
        "gate": c.gate,
        "enabled": c.enabled,
        "low_half": c.low_half,
        "fired": c.fired,
        "stopped": c.stopped.is_some(),
        "elapsed": c.stopped.unwrap_or(tick).saturating_sub(c.start),
        "start_value": c.start_value,
        "reload": c.reload,
        "write_high_next": c.write_high_next,
        "write_low": c.write_low,
        "read_high_next": c.read_high_next,
        "status": c.latched_status,
    })
}

/// Numbers of devices, nanoseconds of times, names that are not UTF-8.
fn write_files(fs: &Filesystem) -> Value {
    let (mut devices, mut nanos, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (ino, inode) in (0u32..).zip(fs.inodes()).filter_map(|(ino, inode)| Some((ino, inode.as_ref()?))) {
        match &inode.content {
            Content::Device { major, minor } if (*major, *minor) != (0, 0) => {
                devices.push(json!([ino, major, minor]));
            }
            Content::Directory(directory) => {
                let odd =
                    directory.entries().enumerate().filter(|(_, e)| std::str::from_utf8(&e.name).is_err());
                names.extend(odd.map(|(at, e)| json!([ino, at, hex(e.name.iter().copied())])));
            }
            _ => {}
        }
        let parts = [inode.ctime.nanos, inode.atime.nanos, inode.mtime.nanos];
        if parts != [0; 3] {
            nanos.push(json!([ino, parts[0], parts[1], parts[2]]));
        }
    }
    json!({ "devices": devices, "nanos": nanos, "names": names })
}

impl Extra {
    /// The additions in what was found under the key; those of a newer version are not understood.
    pub fn read(ours: &Value) -> Self {
        let known = ours.get("version").and_then(Value::as_u64) == Some(VERSION);
        if known { Self(ours.clone()) } else { Self::default() }
    }

    /// Guest time in nanoseconds at the save.
    pub fn guest_time(&self) -> Option<u64> {
        self.0.get("guest_time_ns")?.as_u64()
    }

    /// Makes what was read from v86's entries more exact.
    pub fn refine(self, plan: &mut Plan) {
        let Value::Object(_) = self.0 else { return };
        let get = |key: &str| &self.0[key];
        let cpu = get("cpu");
        take_bool(&cpu["interrupt_shadow"], &mut plan.cpu.interrupt_shadow);
        for (i, segment) in plan.cpu.seg.iter_mut().enumerate() {
            take_bool(&cpu["big"][i], &mut segment.big);
        }
        take_u8(&cpu["tr_access"], &mut plan.cpu.tr.access);
        take_u8(&cpu["ldtr_access"], &mut plan.cpu.ldtr.access);
        let pic = get("pic");
        for (i, chip) in [&mut plan.pic.master, &mut plan.pic.slave].into_iter().enumerate() {
            take_u8(&pic[i]["lowest_priority"], &mut chip.lowest_priority);
            chip.lowest_priority &= 7;
            take_bool(&pic[i]["single"], &mut chip.single);
            take_bool(&pic[i]["special_fully_nested"], &mut chip.special_fully_nested);
            take_bool(&pic[i]["poll"], &mut chip.poll);
            take_bool(&pic[i]["rotate_on_auto_eoi"], &mut chip.rotate_on_auto_eoi);
        }
        if let Some(base) = get("apic_base").as_u64() {
            plan.apic.apic.base = base as u32;
        }
        if let Some(acpi) = &mut plan.acpi {
            take_u8(&get("acpi")[0], &mut acpi.smi_command);
            take_u8(&get("acpi")[1], &mut acpi.smi_status);
        }
        refine_pit(get("pit"), &mut plan.pit);
        for (i, uart) in plan.uarts.iter_mut().enumerate() {
            let Some(uart) = uart else { continue };
            let bytes = unhex(&get("uarts")[i]["input"], INPUT_SIZE + FIFO_SIZE);
            uart.input.extend(bytes.into_iter().map(|byte| Received { byte, errors: 0 }));
        }
        self.refine_input(plan);
        for (i, chip) in plan.dma.chips.iter_mut().enumerate() {
            let saved = &get("dma")[i];
            take_u8(&saved[0], &mut chip.command);
            take_u8(&saved[1], &mut chip.terminal_counts);
            take_u8(&saved[2], &mut chip.requests);
        }
        let pages = unhex(get("dma_pages"), plan.dma.spare_pages.len());
        plan.dma.spare_pages.iter_mut().zip(pages).for_each(|(to, from)| *to = from);
        let (saved, vga) = (get("vga"), &mut plan.vga);
        take_u8(&saved["feature"], &mut vga.feature);
        take_u8(&saved["enable"], &mut vga.enable);
        take_u8(&saved["overscan"], &mut vga.attribute.registers[attribute::OVERSCAN]);
        take_u8(&saved["sequencer_reset"], &mut vga.sequencer.registers[0]);
        take_u16(&saved["vbe_id"], &mut vga.vbe.id);
        take_u16(&saved["virtual_width"], &mut vga.vbe.virtual_width);
        take_u16(&saved["x_offset"], &mut vga.vbe.x_offset);
        take_u16(&saved["y_offset"], &mut vga.vbe.y_offset);
        for (i, channel) in plan.ide.channels.iter_mut().enumerate() {
            if let Some(channel) = channel {
                refine_channel(&get("ide")[i], channel);
            }
        }
        if let Some(files) = &mut plan.files {
            refine_files(get("files"), &mut files.fs);
        }
    }

    fn refine_input(&self, plan: &mut Plan) {
        let (saved, keys) = (&self.0["keyboard"], &mut plan.ps2.keyboard);
        take_u8(&saved["set"], &mut keys.set);
        keys.set = keys.set.clamp(1, 3);
        take_u8(&saved["leds"], &mut keys.leds);
        take_u8(&saved["typematic"], &mut keys.typematic);
        take_u8(&saved["last_sent"], &mut keys.last_sent);
        keys.replies.extend(unhex(&saved["replies"], MAX_INPUT));
        keys.codes.extend(unhex(&saved["codes"], MAX_INPUT));
        let (saved, mouse) = (&self.0["mouse"], &mut plan.ps2.mouse);
        take_bool(&saved["remote"], &mut mouse.remote);
        take_bool(&saved["wrap"], &mut mouse.wrap);
        mouse.move_by(0, 0, saved["dz"].as_i64().unwrap_or(0) as i32);
        take_u8(&saved["buttons"], &mut mouse.buttons);
        mouse.queue.extend(unhex(&saved["queue"], MAX_INPUT));
        mouse.last_packet = unhex(&saved["last_packet"], MAX_INPUT);
        let (saved, ps2) = (&self.0["ps2"], &mut plan.ps2);
        ps2.output = ps2_byte(&saved["output"]);
        let replies = saved["replies"].as_array().into_iter().flatten();
        ps2.replies.extend(replies.filter_map(ps2_byte).take(MAX_INPUT));
        take_bool(&saved["release_pending"], &mut ps2.release_pending);
    }

    /// What belongs to no entry of v86's.
    pub fn apply(&self, board: &mut Board) {
        let Value::Object(_) = self.0 else { return };
        take_u8(&self.0["port_61"], &mut board.system_control.port_b);
        take_u8(&self.0["port_92"], &mut board.system_control.port_a);
        take_u8(&self.0["reset_control"], &mut board.pci.reset_control);
        let position = self.0["fw_cfg_position"].as_u64().unwrap_or(0);
        board.fw_cfg.position = usize::try_from(position).unwrap_or(0);
    }
}

fn refine_pit(saved: &Value, SavedPit { pit, started }: &mut SavedPit) {
    for (i, (c, started)) in pit.counters.iter_mut().zip(started).enumerate() {
        let saved = &saved[i];
        if let Some(elapsed) = saved["elapsed"].as_u64() {
            *started = -(time_of_tick(elapsed.min(u32::MAX.into())) as f64) / 1e6;
        }
        take_bool(&saved["bcd"], &mut c.bcd);
        take_bool(&saved["gate"], &mut c.gate);
        take_bool(&saved["enabled"], &mut c.enabled);
        take_bool(&saved["low_half"], &mut c.low_half);
        take_bool(&saved["fired"], &mut c.fired);
        // `resume` puts it where it belongs.
        c.stopped = (saved["stopped"] == Value::Bool(true)).then_some(0);
        take_u16(&saved["reload"], &mut c.reload);
        let start_value = saved["start_value"].as_u64().filter(|value| (1..=0x1_0000).contains(value));
        c.start_value = start_value.map_or(c.start_value, |value| value as u32);
        take_bool(&saved["write_high_next"], &mut c.write_high_next);
        take_u8(&saved["write_low"], &mut c.write_low);
        take_bool(&saved["read_high_next"], &mut c.read_high_next);
        c.latched_status = saved["status"].as_u64().map(|status| status as u8);
    }
}

fn refine_channel(saved: &Value, channel: &mut Channel) {
    for (i, drive) in channel.drives.iter_mut().enumerate() {
        let (saved, tray) = (&saved[i], &mut drive.tray);
        take_bool(&saved["interrupt"], &mut drive.interrupt);
        take_u8(&saved["multiple"], &mut drive.multiple);
        take_u8(&saved["transfer_mode"], &mut drive.transfer_mode);
        take_u8(&saved["sense"][0], &mut tray.sense.key);
        take_u8(&saved["sense"][1], &mut tray.sense.code);
        take_u8(&saved["sense"][2], &mut tray.sense.qualifier);
        take_bool(&saved["locked"], &mut tray.locked);
        take_bool(&saved["changed"], &mut tray.changed);
        take_u8(&saved["event"], &mut tray.event);
    }
}

fn refine_files(saved: &Value, fs: &mut Filesystem) {
    let rows = |key: &str| saved[key].as_array().map_or(&[][..], Vec::as_slice);
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    for row in rows("devices") {
        if let (Some(ino), Some(major), Some(minor)) = (number(&row[0]), number(&row[1]), number(&row[2])) {
            fs.set_device(ino, major, minor);
        }
    }
    for row in rows("nanos") {
        let nanos = [&row[1], &row[2], &row[3]].map(|n| number(n).unwrap_or(0).min(999_999_999));
        if let Some(ino) = number(&row[0]) {
            fs.set_nanos(ino, nanos);
        }
    }
    for row in rows("names") {
        let name = unhex(&row[2], crate::fs::NAME_MAX);
        if let (Some(dir), Some(at)) = (number(&row[0]), row[1].as_u64()) {
            fs.set_entry_name(dir, at as usize, &name);
        }
    }
}

fn take_bool(saved: &Value, to: &mut bool) {
    *to = saved.as_bool().unwrap_or(*to);
}

fn take_u8(saved: &Value, to: &mut u8) {
    *to = saved.as_u64().and_then(|n| u8::try_from(n).ok()).unwrap_or(*to);
}

fn take_u16(saved: &Value, to: &mut u16) {
    *to = saved.as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(*to);
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    use std::fmt::Write;
    bytes.into_iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(saved: &Value, most: usize) -> Vec<u8> {
    let digits = saved.as_str().unwrap_or_default().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).take(most).map_while(byte).collect()
}

/// A byte of the 8042's queues, with where it came from.
fn ps2_byte(value: &Value) -> Option<(u8, Source)> {
    let source = if value[1].as_bool()? { Source::Mouse } else { Source::Keyboard };
    Some((u8::try_from(value[0].as_u64()?).ok()?, source))
}
