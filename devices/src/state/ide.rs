//! The IDE controller, its drives, and what is in them.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::container::Buffers;
use super::ours::{take_bool, take_u8};
use super::record::{Entry, Layout, Record, flag, signed, whole};
use super::top;
use super::value::{Kind as Elements, Value};
use crate::ide::bus_master::{ACTIVE, START};
use crate::ide::drive::{CD_SECTOR, Phase, Registers, SECTOR};
use crate::ide::{
    BLOCK, COMMAND_PORTS, CONTROL_PORTS, Channel, Drive, Form, IRQS, Ide, Kind, MAX_MULTIPLE, Medium,
    SavedTransfer, Unit, Units,
};
use crate::pc::Pc;
use crate::pic::Pic;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::ops::Range;

const CHANNEL: Layout = Layout {
    name: "channel",
    fields: &[
        "master",
        "slave",
        "command_base",
        "irq",
        "",
        "control_base",
        "",
        "name",
        "device_control",
        "prd_table",
        "bus_master_status",
        "master_selected",
        "bus_master_command",
    ],
};
const DRIVE: Layout = Layout {
    name: "drive",
    fields: &[
        "sector_count",
        "cylinders",
        "lba_high",
        "lba_mid",
        "data_pointer",
        "zero_5",
        "zero_6",
        "zero_7",
        "zero_8",
        "device",
        "error",
        "head",
        "heads",
        "is_atapi",
        "is_lba",
        "features",
        "data",
        "data_length",
        "lba_low",
        "sectors",
        "sector_size",
        "sectors_per_block",
        "sectors_per_track",
        "status",
        "write_start",
        "command",
        "data_end",
        "packet_command",
        "contents",
    ],
};
/// v86's buffer for a drive's data is never smaller.
const LEAST_BUFFER: usize = 65_536;
/// No command, as v86 has it.
const NO_COMMAND: i32 = -1;
const UNITS: [&str; 2] = ["master", "slave"];
const CHANNELS: [&str; 2] = ["primary channel", "secondary channel"];

/// A drive as users know it, by v86's name for its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The first hard disk.
    Hda,
    /// The second hard disk.
    Hdb,
    /// The third hard disk, in the CD-ROM drive's usual place.
    Hdc,
    /// The fourth hard disk.
    Hdd,
    /// The CD-ROM drive.
    Cdrom,
    /// The first floppy drive.
    Fda,
    /// The second floppy drive.
    Fdb,
    /// The virtio disk.
    VirtioDisk,
}

impl Slot {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hda => "hda",
            Self::Hdb => "hdb",
            Self::Hdc => "hdc",
            Self::Hdd => "hdd",
            Self::Cdrom => "cdrom",
            Self::Fda => "fda",
            Self::Fdb => "fdb",
            Self::VirtioDisk => "virtio_blk",
        }
    }
}

/// Where the image in a drive is, below what the guest has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the state's file.
    State(Range<usize>),
    /// Where the machine had it from: the state has only what was written.
    Base {
        /// The bytes that it has, up to the last sector's.
        sectors: u64,
        /// Bytes in one of these sectors.
        sector_size: u64,
    },
}

/// What is in a drive.
#[derive(Clone, Debug)]
enum Contents {
    Nothing,
    Whole(Range<usize>),
    Written(Vec<(u64, Range<usize>)>),
}

#[derive(Clone, Debug)]
struct SavedDrive {
    slot: Option<Slot>,
    sectors: u64,
    sector_size: u64,
    contents: Contents,
}

/// The controller of a state: channels whose drives are empty, and what is in those.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    channels: [Option<Channel>; 2],
    drives: [[Option<SavedDrive>; 2]; 2],
}

const IDE: &str = "ide";
/// The only channel of machines of old v86 versions, by what is its master.
const OLD_CDROM: &str = "old_cdrom";
const OLD_HDA: &str = "old_hda";

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let mut saved = read(state)?;
        for (i, channel) in saved.channels.iter_mut().enumerate() {
            if let Some(channel) = channel {
                refine(channel, &state.ours("ide")[i]);
            }
        }
        Ok(saved)
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        self.fits_controller(&machine.board.ide)
    }

    fn apply(self, machine: &mut Pc, moment: &Moment) {
        self.put(&mut machine.board.ide, moment.file);
    }

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        let ide = &machine.board.ide;
        let (name, value) = write(ide, &mut writer.buffers)?;
        writer.set(name, value);
        writer.add("ide", ide.channels.iter().map(|c| c.as_ref().map_or(Json::Null, write_ours)).collect());
        Ok(())
    }
}

fn refine(channel: &mut Channel, saved: &Json) {
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

fn write_ours(channel: &Channel) -> Json {
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

/// Reads the controller. The interrupt that a drive has raised shows at the interrupt controller.
fn read(state: &State) -> Result<Saved, StateError> {
    let pic = <Pic as Chip>::read(state)?;
    let mut saved = Saved { channels: [None, None], drives: [[None, None], [None, None]] };
    for name in [OLD_CDROM, OLD_HDA] {
        if let Some(record) = state.optional(&CHANNEL, name)? {
            saved.read_channel(0, record, &pic)?;
            return Ok(saved);
        }
    }
    let channels = state.top.get(IDE);
    if channels.is_null() {
        saved.channels = Ide::new(Units::default()).channels;
        return Ok(saved);
    }
    state.top.list(IDE)?;
    for (number, name) in CHANNELS.into_iter().enumerate() {
        if !channels.at(number).is_null() {
            let path = format!("{}, {name}", top::path(IDE));
            let record = Record::new(&CHANNEL, channels.at(number), state.container, path)?;
            saved.read_channel(number, record, &pic)?;
        }
    }
    Ok(saved)
}

impl Saved {
    fn read_channel(&mut self, number: usize, r: Record, pic: &Pic) -> Result<(), StateError> {
        let mut drives = [Drive::absent(), Drive::absent()];
        for (unit, name) in UNITS.into_iter().enumerate() {
            let record = r.record(&DRIVE, name)?;
            let (drive, saved) = read_drive(&record, number, unit)?;
            drives[unit] = drive;
            self.drives[number][unit] = Some(saved);
        }
        let mut channel = Channel::new(number as u8, drives);
        channel.selected = usize::from(!r.bool("master_selected")?);
        channel.control = r.u8("device_control")?;
        let bus_master = &mut channel.bus_master;
        bus_master.table = r.u32("prd_table")? & !3;
        bus_master.status = r.u8("bus_master_status")?;
        bus_master.command = r.u8("bus_master_command")?;
        bus_master.armed = bus_master.command & START != 0 && bus_master.status & ACTIVE != 0;
        channel.drive().interrupt = pic.slave.lines & 1 << (IRQS[number] - 8) != 0;
        self.channels[number] = Some(channel);
        Ok(())
    }

    /// The drives to build a machine with; `image` gives each its medium.
    pub fn units<E>(&self, mut image: impl FnMut(Slot, Source) -> Result<Medium, E>) -> Result<Units, E> {
        let mut units = Units([None, None]);
        for ((to, channel), saved) in units.0.iter_mut().zip(&self.channels).zip(&self.drives) {
            let Some(channel) = channel else { continue };
            let to = to.insert([None, None]);
            for ((to, drive), saved) in to.iter_mut().zip(&channel.drives).zip(saved) {
                let mut medium = None;
                if let Some(saved) = saved
                    && let (Some(slot), Some(source)) = (saved.slot, saved.source())
                {
                    medium = Some(image(slot, source)?);
                }
                *to = match (drive.kind, medium) {
                    (Kind::Disk, Some(medium)) => Some(Unit::Disk(medium)),
                    (Kind::Cdrom, medium) => Some(Unit::Cdrom(medium)),
                    _ => None,
                };
            }
        }
        Ok(units)
    }

    /// Whether a board has the drives that this is of, or what it has else.
    fn fits_controller(&self, ide: &Ide) -> Result<(), StateError> {
        for (number, (own, saved)) in ide.channels.iter().zip(&self.channels).enumerate() {
            let (Some(own), Some(saved)) = (own, saved) else {
                if own.is_some() != saved.is_some() {
                    let problem = format!("only one of them has a {} (IDE)", CHANNELS[number]);
                    return Err(StateError::OtherMachine(problem));
                }
                continue;
            };
            for (unit, (own, saved)) in own.drives.iter().zip(&saved.drives).enumerate() {
                let wanted = self.drives[number][unit].as_ref().map_or(0, SavedDrive::sectors);
                let has = own.medium.as_ref().map_or(0, |medium| medium.sectors(sector_size(own.kind)));
                if own.kind != saved.kind || has != wanted {
                    return Err(StateError::OtherMachine(format!(
                        "the {} of its {} (IDE) is a {} of {wanted} sectors, and this one's a {} of {has}",
                        UNITS[unit],
                        CHANNELS[number],
                        kind_name(saved.kind),
                        kind_name(own.kind)
                    )));
                }
            }
        }
        Ok(())
    }

    /// Puts a controller that this fits into the state; `file` is the state's file.
    fn put(self, ide: &mut Ide, file: &[u8]) {
        for ((own, saved), drives) in ide.channels.iter_mut().zip(self.channels).zip(self.drives) {
            let (Some(own), Some(mut saved)) = (own, saved) else { continue };
            for ((own, saved), drive) in own.drives.iter_mut().zip(&mut saved.drives).zip(drives) {
                saved.native = own.native;
                saved.medium = own.medium.take();
                if let (Some(medium), Some(drive)) = (&mut saved.medium, drive) {
                    drive.restore(medium, file);
                }
                saved.complete_resume();
            }
            *own = saved;
        }
    }
}

fn sector_size(kind: Kind) -> u64 {
    if kind == Kind::Cdrom { CD_SECTOR } else { SECTOR }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Absent => "place",
        Kind::Disk => "hard disk",
        Kind::Cdrom => "CD-ROM drive",
    }
}

impl SavedDrive {
    /// Sectors of what is in it.
    fn sectors(&self) -> u64 {
        if matches!(self.contents, Contents::Nothing) { 0 } else { self.sectors }
    }

    fn source(&self) -> Option<Source> {
        match &self.contents {
            Contents::Nothing => None,
            Contents::Whole(range) => Some(Source::State(range.clone())),
            Contents::Written(_) => {
                Some(Source::Base { sectors: self.sectors, sector_size: self.sector_size })
            }
        }
    }

    fn restore(self, medium: &mut Medium, file: &[u8]) {
        let mut written = BTreeMap::new();
        let form = match self.contents {
            Contents::Written(blocks) => {
                written.extend(blocks.into_iter().filter_map(|(number, range)| {
                    Some((number, Box::new(file.get(range)?.try_into().ok()?)))
                }));
                Form::Written
            }
            _ => Form::Whole,
        };
        medium.restore(form, written);
    }
}

fn read_drive(r: &Record, channel: usize, unit: usize) -> Result<(Drive, SavedDrive), StateError> {
    let cdrom = r.bool_or_false("is_atapi")?;
    let mut drive = Drive::absent();
    drive.kind = match (cdrom, r.get("contents")) {
        (true, _) => Kind::Cdrom,
        (false, Value::Null) => Kind::Absent,
        (false, _) => Kind::Disk,
    };
    drive.registers = Registers {
        features: r.u16("features")?,
        sector_count: r.u16("sector_count")?,
        lba_low: r.u16("lba_low")?,
        lba_mid: r.u16("lba_mid")?,
        lba_high: r.u16("lba_high")?,
        device: r.u8("device")?,
        error: r.u8("error")?,
        status: r.u8("status")?,
    };
    let sector_size = sector_size(drive.kind);
    let sectors = if drive.kind == Kind::Absent { 0 } else { r.u64("sectors")? };
    let mut saved = SavedDrive { slot: None, sectors, sector_size, contents: Contents::Nothing };
    if drive.kind == Kind::Absent {
        return Ok((drive, saved));
    }
    saved.slot = Some(match (drive.kind, channel, unit) {
        (Kind::Cdrom, _, 0) | (Kind::Cdrom, 1, 1) => Slot::Cdrom,
        (Kind::Disk, 0, 0) => Slot::Hda,
        (Kind::Disk, 0, 1) => Slot::Hdb,
        (Kind::Disk, 1, 0) => Slot::Hdc,
        (Kind::Disk, 1, 1) => Slot::Hdd,
        _ => {
            return Err(StateError::Unsupported(format!(
                "{} has a {} as {} of the {}, where v86 puts none",
                top::path(IDE),
                kind_name(drive.kind),
                UNITS[unit],
                CHANNELS[channel]
            )));
        }
    });
    saved.contents = read_contents(r, sectors, sector_size)?;
    if drive.kind == Kind::Disk {
        drive.geometry.cylinders = r.u16("cylinders")?;
        drive.geometry.heads = r.u8("heads")?;
        drive.geometry.sectors = r.u8("sectors_per_track")?;
    }
    drive.multiple = match r.u8("sectors_per_block")? {
        multiple if multiple < MAX_MULTIPLE && multiple.is_power_of_two() => multiple,
        _ => 0,
    };
    drive.command = read_command(r, "command")?;
    drive.tray.packet = read_command(r, "packet_command")?;
    let size = |field| r.u32(field).map(|n| n as usize);
    let transfer = SavedTransfer {
        buffer: r.bytes("data", 0)?,
        length: size("data_length")?,
        pointer: size("data_pointer")?,
        end: size("data_end")?,
        start: r.u64("write_start")?,
    };
    drive.take_transfer(transfer, saved.sectors()).map_err(|problem| r.wrong("data", problem))?;
    Ok((drive, saved))
}

fn read_command(r: &Record, field: &str) -> Result<Option<u8>, StateError> {
    match r.u32(field)? as i32 {
        NO_COMMAND => Ok(None),
        command => match u8::try_from(command) {
            Ok(command) => Ok(Some(command)),
            Err(_) => Err(r.wrong(field, format!("is {command}, which is no command"))),
        },
    }
}

fn read_contents(r: &Record, sectors: u64, sector_size: u64) -> Result<Contents, StateError> {
    const FIELD: &str = "contents";
    let contents = r.get(FIELD);
    match (contents.at(0), contents.at(1)) {
        _ if contents.is_null() => Ok(Contents::Nothing),
        (Value::Number(size), Value::Buffer(_, id)) => {
            let range = r.container.range(*id).map_err(|e| r.wrong(FIELD, e.to_string()))?;
            if whole(*size) != Some(range.len() as u64) {
                return Err(r.wrong(FIELD, format!("has {} bytes of {size}", range.len())));
            }
            if (range.len() as u64).div_ceil(sector_size) != sectors {
                let problem = format!("has {} bytes, and the drive {sectors} sectors", range.len());
                return Err(r.wrong(FIELD, problem));
            }
            Ok(Contents::Whole(range))
        }
        (Value::List(blocks), _) => {
            let behind = sectors.saturating_mul(sector_size).div_ceil(BLOCK as u64);
            let block = |pair: &Value| {
                let (Value::Number(number), Value::Buffer(_, id)) = (pair.at(0), pair.at(1)) else {
                    return Err(r.wrong(FIELD, "has an element that is not a number and its bytes"));
                };
                let range = r.container.range(*id).map_err(|e| r.wrong(FIELD, e.to_string()))?;
                match whole(*number).filter(|number| *number < behind && range.len() == BLOCK) {
                    Some(number) => Ok((number, range)),
                    None => {
                        let problem = format!("has {} bytes as block {number} of {behind}", range.len());
                        Err(r.wrong(FIELD, problem))
                    }
                }
            };
            Ok(Contents::Written(blocks.iter().map(block).collect::<Result<_, _>>()?))
        }
        (first, _) => Err(r.wrong(FIELD, format!("begins with {}", first.what()))),
    }
}

/// The controller's entry: that of machines of old v86 versions if only the primary channel is there.
fn write<'m>(ide: &'m Ide, buffers: &mut Buffers<'m>) -> Result<(&'static str, Value), StateError> {
    let mut channels = Vec::with_capacity(2);
    for (number, channel) in ide.channels.iter().enumerate() {
        let channel = channel.as_ref().map(|channel| write_channel(number, channel, buffers));
        channels.push(channel.transpose()?.unwrap_or_default());
    }
    match &ide.channels {
        [Some(primary), None] => {
            let cdrom = primary.drives[0].kind == Kind::Cdrom;
            Ok((if cdrom { OLD_CDROM } else { OLD_HDA }, channels.swap_remove(0)))
        }
        _ => Ok((IDE, Value::List(channels))),
    }
}

fn write_channel<'m>(
    number: usize,
    channel: &'m Channel,
    buffers: &mut Buffers<'m>,
) -> Result<Value, StateError> {
    let [master, slave] = &channel.drives;
    let (master, slave) = (write_drive(master, buffers)?, write_drive(slave, buffers)?);
    let bus_master = &channel.bus_master;
    Ok(Entry::new(&CHANNEL)
        .set("master", master)
        .set("slave", slave)
        .set("command_base", u32::from(COMMAND_PORTS[number]))
        .set("irq", IRQS[number])
        .set("control_base", u32::from(CONTROL_PORTS[number]))
        .set("name", if number == 0 { "ide0" } else { "ide1" })
        .set("device_control", channel.control)
        .set("prd_table", signed(bus_master.table))
        .set("bus_master_status", bus_master.status)
        .set("master_selected", channel.selected == 0)
        .set("bus_master_command", bus_master.command)
        .value())
}

fn write_drive<'m>(drive: &'m Drive, buffers: &mut Buffers<'m>) -> Result<Value, StateError> {
    let (r, t) = (&drive.registers, &drive.transfer);
    let cdrom = drive.kind == Kind::Cdrom;
    let sectors = drive.sectors();
    let (cylinders, heads, per_track) = match drive.kind {
        // As if a track had 2048 sectors.
        Kind::Cdrom => (sectors / 2048, 1, if sectors > 0 { 2048 } else { 0 }),
        _ => (drive.geometry.cylinders.into(), drive.geometry.heads, drive.geometry.sectors.into()),
    };
    // What the guest's memory is to give, or the disk, v86 takes from there when it comes to it.
    let data: &[u8] = match t.phase {
        Phase::DmaOut => &[],
        _ => &t.data,
    };
    let mut buffer = data.to_vec();
    buffer.resize(data.len().max(LEAST_BUFFER).next_multiple_of(4), 0);
    let moved = |bytes: usize| bytes.min(data.len()) as u32;
    let command = |command: Option<u8>| Value::from(command.map_or(NO_COMMAND, i32::from));
    let buffer = buffers.add(Elements::U8, buffer);
    Ok(Entry::new(&DRIVE)
        .set("sector_count", u32::from(r.sector_count))
        .set("cylinders", cylinders)
        .set("lba_high", u32::from(r.lba_high))
        .set("lba_mid", u32::from(r.lba_mid))
        .set("data_pointer", moved(t.pointer))
        .set("zero_5", 0)
        .set("zero_6", 0)
        .set("zero_7", 0)
        .set("zero_8", 0)
        .set("device", r.device)
        .set("error", r.error)
        .set("head", r.device & 0x0f)
        .set("heads", heads)
        .set("is_atapi", if cdrom { true.into() } else { Value::Null })
        .set("is_lba", flag(r.device & 0x40 != 0))
        .set("features", u32::from(r.features))
        .set("data", buffer)
        .set("data_length", data.len() as u32)
        .set("lba_low", u32::from(r.lba_low))
        .set("sectors", sectors)
        .set("sector_size", sector_size(drive.kind))
        .set("sectors_per_block", if drive.multiple == 0 { MAX_MULTIPLE } else { drive.multiple })
        .set("sectors_per_track", per_track)
        .set("status", r.status)
        .set("write_start", if t.phase == Phase::PioOut { t.start } else { 0 })
        .set("command", command(drive.command))
        .set("data_end", moved(t.end))
        .set("packet_command", command(drive.tray.packet))
        .set("contents", write_contents(drive, buffers)?)
        .value())
}

/// What is in a drive; what lies in an open tray, v86 has no place for.
fn write_contents<'m>(drive: &'m Drive, buffers: &mut Buffers<'m>) -> Result<Value, StateError> {
    let Some(medium) = drive.medium.as_ref().filter(|_| !drive.tray.open) else { return Ok(Value::Null) };
    Ok(match medium.form() {
        Form::Whole => {
            let bytes = medium.contents()?;
            Value::List(vec![medium.size().into(), buffers.add(Elements::U8, bytes)])
        }
        Form::Written => {
            let block = |(number, block): (u64, &'m [u8; BLOCK])| {
                Value::List(vec![number.into(), buffers.add(Elements::U8, &block[..])])
            };
            Value::List(vec![Value::List(medium.written().map(block).collect())])
        }
    })
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, bits, fields, one_of};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &[
            "kind",
            "place",
            "medium",
            "native",
            "transfer",
            "armed",
            "pulse",
            "open",
            "translation",
            "asked",
            "room",
        ];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.ide.channels[0].as_mut().unwrap().selected => |r: &mut Random| r.below(2),
                m.board.ide.channels[0].as_mut().unwrap().control => any,
                m.board.ide.channels[0].as_mut().unwrap().bus_master.table => bits(!3),
                m.board.ide.channels[0].as_mut().unwrap().bus_master.status => any,
                m.board.ide.channels[0].as_mut().unwrap().bus_master.command => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].registers.features => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].registers.sector_count => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].registers.lba_low => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].registers.lba_mid => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].registers.lba_high => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].registers.device => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].registers.error => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].registers.status => one_of([0, 1, 0x50, 0x51]),
                m.board.ide.channels[0].as_mut().unwrap().drives[0].command => |r: &mut Random| Some(any(r)),
                m.board.ide.channels[0].as_mut().unwrap().drives[0].geometry.cylinders => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].geometry.heads => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].geometry.sectors => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].interrupt => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].multiple => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].transfer_mode => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].tray.packet => |r: &mut Random| Some(any(r)),
                m.board.ide.channels[0].as_mut().unwrap().drives[0].tray.sense.key => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].tray.sense.code => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].tray.sense.qualifier => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].tray.locked => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].tray.changed => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[0].tray.event => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].registers.features => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].registers.sector_count => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].registers.lba_low => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].registers.lba_mid => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].registers.lba_high => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].registers.device => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].registers.error => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].registers.status => one_of([0, 1, 0x50, 0x51]),
                m.board.ide.channels[0].as_mut().unwrap().drives[1].command => |r: &mut Random| Some(any(r)),
                m.board.ide.channels[0].as_mut().unwrap().drives[1].geometry.cylinders => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].geometry.heads => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].geometry.sectors => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].interrupt => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].multiple => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].transfer_mode => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].tray.packet => |r: &mut Random| Some(any(r)),
                m.board.ide.channels[0].as_mut().unwrap().drives[1].tray.sense.key => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].tray.sense.code => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].tray.sense.qualifier => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].tray.locked => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].tray.changed => any,
                m.board.ide.channels[0].as_mut().unwrap().drives[1].tray.event => any,
            )
        }

        fn show(m: &mut Pc) -> String {
            let mut ide = m.board.ide.clone();
            let channels = ide.channels.iter_mut().flatten();
            channels.flat_map(|channel| &mut channel.drives).for_each(|drive| drive.medium = None);
            format!("{ide:#?}")
        }
    }
}
