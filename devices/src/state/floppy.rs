//! The floppy controller and what is in its drives.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::container::Buffers;
use super::ours::{hex, take_u8, unhex};
use super::record::{Entry, Layout, Record};
use super::value::{Kind, Value};
use crate::floppy::{
    Action, COMMAND_BYTES, DRIVES, Disk, Drive, DriveKind, Floppy, LARGEST, Phase, RESULT_BYTES, SECTOR,
    Seek, Transfer,
};
use crate::pc::Pc;
use serde_json::{Value as Json, json};

const NAME: &str = "fdc";
const FDC: Layout = Layout {
    name: NAME,
    fields: &[
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "sra",
        "srb",
        "dor",
        "tdr",
        "msr",
        "dsr",
        "phase",
        "command",
        "command_flags",
        "parameters",
        "parameters_len",
        "parameters_left",
        "result",
        "result_read",
        "result_len",
        "st0",
        "st1",
        "drive",
        "polled",
        "locked",
        "step_rate",
        "load_time",
        "configure",
        "precompensation",
        "end",
        "drive_a",
        "drive_b",
    ],
};
const DRIVE: Layout = Layout {
    name: "floppy drive",
    fields: &[
        "kind",
        "tracks",
        "heads",
        "sectors",
        "track",
        "head",
        "sector",
        "perpendicular",
        "write_protected",
        "changed",
        "disk",
    ],
};
const DRIVE_NAMES: [&str; DRIVES] = ["drive_a", "drive_b"];

const SRA_INTERRUPT: u8 = 0x80;
/// SRB as v86 has it after a reset.
const SRB: u8 = 0xc0;
/// v86's flag of a command for both sides.
const MULTI_TRACK: u8 = 1;

/// Our addition: what v86's controller does at once.
const OURS: &str = "floppy";

pub(super) type Saved = Floppy;

impl Chip for Floppy {
    fn read(state: &State) -> Result<Self, StateError> {
        let r = state.entry(&FDC, NAME)?;
        // v86 has had another controller, whose states it ignores.
        if r.get("sra").is_null() {
            return Ok(Self::default());
        }
        let mut floppy = read(&r)?;
        let ours = state.ours(OURS);
        if ours.is_null() {
            // v86 keeps ST0 of the seek that has raised the interrupt.
            let drive = usize::from(r.u8("drive")? & 1);
            if floppy.interrupt && floppy.polled == 0 && floppy.phase == Phase::Command {
                floppy.drives[drive].sense = Some(floppy.st0);
            }
        } else {
            read_ours(&mut floppy, ours);
        }
        // A command that moves data is not there without our addition, and the guest has to repeat it.
        if floppy.phase == Phase::Execution && floppy.transfer.is_none() {
            floppy.phase = Phase::Command;
        }
        Ok(floppy)
    }

    /// A disk whose image gets what is written stays in the drive, and becomes what the state's is.
    fn apply(mut self, machine: &mut Pc, _: &Moment) {
        for (drive, own) in self.drives.iter_mut().zip(&mut machine.board.floppy.drives) {
            if let (Some(disk), Some(mut own)) = (&drive.disk, own.disk.take())
                && own.copy(disk).is_some()
            {
                drive.disk = Some(own);
            }
        }
        machine.board.floppy = self;
    }

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        let floppy = &machine.board.floppy;
        let value = write(floppy, &mut writer.buffers);
        writer.set(NAME, value);
        writer.add(OURS, write_ours(floppy));
        Ok(())
    }
}

fn read(r: &Record) -> Result<Floppy, StateError> {
    let mut command = [0; COMMAND_BYTES];
    let parameters = r.u8s::<COMMAND_BYTES>("parameters")?;
    command[0] = r.u8("command")?;
    command[1..].copy_from_slice(&parameters[..COMMAND_BYTES - 1]);
    let phase = match r.u8("phase")? {
        1 => Phase::Command,
        2 => Phase::Execution,
        3 => Phase::Result,
        other => return Err(r.wrong("phase", format!("is {other}, and there are 1 to 3"))),
    };
    let (result_len, result_read) = (r.u8("result_len")?, r.u8("result_read")?);
    if usize::from(result_len) > RESULT_BYTES || phase == Phase::Result && result_read >= result_len {
        return Err(r.wrong("result_read", format!("is {result_read} of {result_len} bytes")));
    }
    let (len, left) = (r.u8("parameters_len")?, r.u8("parameters_left")?);
    let floppy = Floppy {
        drives: [read_drive(r, DRIVE_NAMES[0])?, read_drive(r, DRIVE_NAMES[1])?],
        dor: r.u8("dor")?,
        tdr: r.u8("tdr")?,
        dsr: r.u8("dsr")?,
        phase,
        command,
        result: r.u8s("result")?,
        result_len,
        result_read,
        interrupt: r.u8("sra")? & SRA_INTERRUPT != 0,
        st0: r.u8("st0")?,
        polled: r.u8("polled")?.min(4),
        specify: [r.u8("step_rate")? << 4, r.u8("load_time")? << 1],
        configure: r.u8("configure")?,
        precompensation: r.u8("precompensation")?,
        locked: r.bool("locked")?,
        end: r.u8("end")?,
        ..Floppy::default()
    };
    let begun = phase == Phase::Command && left > 0;
    let command_len = Some(len.saturating_add(1)).filter(|len| begun && floppy.may_have(*len)).unwrap_or(0);
    Ok(Floppy { command_len, ..floppy })
}

fn read_drive(controller: &Record, name: &str) -> Result<Drive, StateError> {
    let r = controller.record(&DRIVE, name)?;
    let kind = r.u8("kind")?;
    let kind = DriveKind::from_number(kind).ok_or_else(|| r.wrong("kind", format!("is {kind}")))?;
    let disk = match r.get("disk") {
        Value::Null => None,
        Value::List(disk) => {
            let wrong = |problem: String| r.wrong("disk", problem);
            let Some(Value::Buffer(_, id)) = disk.get(1) else { return Err(wrong("has no data".into())) };
            let data = r.container.buffer(*id).map_err(|e| wrong(e.to_string()))?;
            if data.len() as u64 > LARGEST {
                return Err(wrong(format!("has {} bytes", data.len())));
            }
            let mut disk = Disk::new(data.to_vec()).map_err(|e| wrong(format!("cannot be used: {e}")))?;
            disk.write_protected = r.bool("write_protected")?;
            Some(disk)
        }
        other => return Err(r.wrong("disk", format!("is {}", other.what()))),
    };
    Ok(Drive {
        kind,
        track: r.u8("track")?,
        head: r.u8("head")?,
        sector: r.u8("sector")?,
        perpendicular: r.bool("perpendicular")?,
        changed: r.bool("changed")?,
        disk,
        ..Drive::default()
    })
}

fn write<'m>(floppy: &'m Floppy, buffers: &mut Buffers<'m>) -> Value {
    let Floppy { command, command_len, phase, .. } = floppy;
    let mut parameters = [0; COMMAND_BYTES];
    parameters[..COMMAND_BYTES - 1].copy_from_slice(&command[1..]);
    let sense = floppy.drives.iter().find_map(|drive| drive.sense);
    let mut entry = Entry::new(&FDC)
        .set("sra", if floppy.interrupt { SRA_INTERRUPT } else { 0 })
        .set("srb", SRB)
        .set("dor", floppy.dor)
        .set("tdr", floppy.tdr)
        .set("msr", floppy.main_status())
        .set("dsr", floppy.dsr)
        .set(
            "phase",
            match phase {
                Phase::Command => 1,
                Phase::Execution => 2,
                Phase::Result => 3,
            },
        )
        .set("command", command[0])
        .set("command_flags", if command[0] & 0x80 != 0 { MULTI_TRACK } else { 0 })
        .set("parameters", buffers.u8s(&parameters))
        .set("parameters_len", command_len.saturating_sub(1))
        .set("parameters_left", floppy.parameters_left())
        .set("result", buffers.u8s(&floppy.result))
        .set("result_read", floppy.result_read)
        .set("result_len", floppy.result_len)
        .set("st0", sense.unwrap_or(floppy.st0))
        .set("st1", 0)
        .set("drive", floppy.drives.iter().position(|drive| drive.sense.is_some()).unwrap_or(0) as u8)
        .set("polled", floppy.polled)
        .set("locked", floppy.locked)
        .set("step_rate", floppy.specify[0] >> 4)
        .set("load_time", floppy.specify[1] >> 1)
        .set("configure", floppy.configure)
        .set("precompensation", floppy.precompensation)
        .set("end", floppy.end);
    for (name, drive) in DRIVE_NAMES.into_iter().zip(&floppy.drives) {
        entry.put(name, write_drive(drive, buffers));
    }
    entry.value()
}

fn write_drive<'m>(drive: &'m Drive, buffers: &mut Buffers<'m>) -> Value {
    let format = drive.disk.as_ref().map(Disk::format);
    let disk = drive.disk.as_ref().map_or(Value::Null, |disk| {
        let data = disk.data();
        Value::List(vec![(data.len() as u64).into(), buffers.add(Kind::U8, data)])
    });
    Entry::new(&DRIVE)
        .set("kind", drive.kind as u8)
        .set("tracks", format.map_or(0, |format| format.tracks))
        .set("heads", format.map_or(0, |format| format.heads))
        .set("sectors", format.map_or(0, |format| format.sectors))
        .set("track", drive.track)
        .set("head", drive.head)
        .set("sector", drive.sector)
        .set("perpendicular", u8::from(drive.perpendicular))
        .set("write_protected", drive.disk.as_ref().is_some_and(|disk| disk.write_protected))
        .set("changed", drive.changed)
        .set("disk", disk)
        .value()
}

fn write_ours(floppy: &Floppy) -> Json {
    let drive = |drive: &Drive| {
        let seek = drive.seek.map(|seek| json!([seek.track, seek.status, seek.due]));
        json!({ "sense": drive.sense, "seek": seek })
    };
    json!({
        "st0": floppy.st0,
        "specify": floppy.specify,
        "poll_due": floppy.poll_due,
        "command": hex(floppy.command),
        "command_len": floppy.command_len,
        "drives": floppy.drives.iter().map(drive).collect::<Vec<_>>(),
        "transfer": floppy.transfer.as_ref().map(|t| json!({
            "action": t.action as u8,
            "place": [t.drive, t.head, t.track, t.id_head, t.sector, t.size, t.end, t.last, t.fill, t.done],
            "flags": [t.multi_track, t.skip, t.counted, t.by_fifo],
            "buffer": hex(t.buffer),
            "moved": t.moved,
            "due": t.due,
        })),
    })
}

fn read_ours(floppy: &mut Floppy, ours: &Json) {
    take_u8(&ours["st0"], &mut floppy.st0);
    for (to, saved) in floppy.specify.iter_mut().enumerate() {
        take_u8(&ours["specify"][to], saved);
    }
    floppy.poll_due = ours["poll_due"].as_u64();
    let command = unhex(&ours["command"], COMMAND_BYTES);
    floppy.command.iter_mut().zip(command).for_each(|(to, from)| *to = from);
    let byte = |value: &Json| value.as_u64().and_then(|n| u8::try_from(n).ok());
    floppy.command_len = byte(&ours["command_len"])
        .filter(|len| floppy.phase == Phase::Command && floppy.may_have(*len))
        .unwrap_or(0);
    for (number, drive) in floppy.drives.iter_mut().enumerate() {
        let saved = &ours["drives"][number];
        drive.sense = byte(&saved["sense"]);
        let seek = &saved["seek"];
        drive.seek = byte(&seek[0])
            .zip(byte(&seek[1]))
            .zip(seek[2].as_u64())
            .map(|((track, status), due)| Seek { track, status, due });
    }
    if floppy.phase == Phase::Execution {
        floppy.transfer = read_transfer(&ours["transfer"]);
    }
}

fn read_transfer(saved: &Json) -> Option<Transfer> {
    let action = Action::from_number(saved["action"].as_u64()?)?;
    let place = |at: usize| saved["place"][at].as_u64().and_then(|n| u8::try_from(n).ok());
    let flag = |at: usize| saved["flags"][at].as_bool();
    let mut buffer = [0; SECTOR];
    buffer.iter_mut().zip(unhex(&saved["buffer"], SECTOR)).for_each(|(to, from)| *to = from);
    let transfer = Transfer {
        action,
        drive: place(0)? & 3,
        head: place(1)? & 1,
        track: place(2)?,
        id_head: place(3)?,
        sector: place(4)?,
        size: place(5)?,
        end: place(6)?,
        last: place(7)?,
        fill: place(8)?,
        done: place(9)?,
        multi_track: flag(0)?,
        skip: flag(1)?,
        counted: flag(2)?,
        by_fifo: flag(3)?,
        buffer,
        moved: u16::try_from(saved["moved"].as_u64()?).ok()?,
        due: saved["due"].as_u64(),
    };
    // It goes on at some time, or by the FIFO.
    let goes_on = transfer.due.is_some() || transfer.by_fifo;
    (usize::from(transfer.moved) <= transfer.unit() && goes_on).then_some(transfer)
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, fields, one_of};
    use super::*;

    fn seek(random: &mut Random) -> Option<Seek> {
        Some(Seek { track: any(random), status: any(random), due: any::<u64>(random) >> 12 })
    }

    fn disk(random: &mut Random) -> Option<Disk> {
        let mut disk = Disk::new(vec![any(random); 737_280]).ok()?;
        disk.write_protected = any(random);
        Some(disk)
    }

    fn sense(random: &mut Random) -> Option<u8> {
        Some(any(random))
    }

    /// What the FIFO is for, and what goes with that.
    fn phase(floppy: &mut Floppy, phase: Phase, random: &mut Random) {
        floppy.phase = phase;
        (floppy.transfer, floppy.command_len) = (None, 0);
        (floppy.result_len, floppy.result_read) = (0, 0);
        floppy.command = any(random);
        match phase {
            // READ DATA, which has eight parameters.
            Phase::Command => (floppy.command[0], floppy.command_len) = (0xe6, random.below(8) as u8 + 1),
            Phase::Result => (floppy.result_len, floppy.result_read) = (7, random.below(7) as u8),
            Phase::Execution => {
                let number = random.number() % 10;
                floppy.transfer = Action::from_number(number).map(|action| Transfer {
                    track: any(random),
                    id_head: any(random),
                    sector: any(random),
                    size: any(random),
                    end: any(random),
                    last: any(random),
                    fill: any(random),
                    done: any(random),
                    multi_track: any(random),
                    skip: any(random),
                    counted: any(random),
                    by_fifo: true,
                    buffer: any(random),
                    moved: any::<u16>(random) & 3,
                    due: one_of([None, Some(1), Some(1 << 40)])(random),
                    ..Transfer::new(action, any::<u8>(random) & 3, any::<u8>(random) & 1)
                });
            }
        }
    }

    fn fifo(m: &mut Pc) -> String {
        let Floppy { phase, command, command_len, result_len, result_read, transfer, .. } = &m.board.floppy;
        format!("{:?}", (phase, command, command_len, result_len, result_read, transfer))
    }

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["through"];

        fn fields() -> Vec<Field> {
            let mut fields = fields!(m:
                m.board.floppy.drives[0].track => any,
                m.board.floppy.drives[0].head => any,
                m.board.floppy.drives[0].sector => any,
                m.board.floppy.drives[0].perpendicular => any,
                m.board.floppy.drives[0].changed => any,
                m.board.floppy.drives[0].seek => seek,
                m.board.floppy.drives[0].sense => sense,
                m.board.floppy.drives[0].disk => disk,
                m.board.floppy.drives[1].kind => one_of([DriveKind::None, DriveKind::Kib2880]),
                m.board.floppy.drives[1].track => any,
                m.board.floppy.drives[1].seek => seek,
                m.board.floppy.drives[1].sense => sense,
                m.board.floppy.drives[1].disk => disk,
                m.board.floppy.dor => any,
                m.board.floppy.tdr => any,
                m.board.floppy.dsr => any,
                m.board.floppy.result => any,
                m.board.floppy.interrupt => any,
                m.board.floppy.st0 => any,
                m.board.floppy.polled => one_of([0, 1, 4]),
                m.board.floppy.poll_due => one_of([None, Some(0), Some(1 << 40)]),
                m.board.floppy.specify => any,
                m.board.floppy.configure => any,
                m.board.floppy.precompensation => any,
                m.board.floppy.locked => any,
                m.board.floppy.end => any,
            );
            fields.extend([
                Field {
                    name: "a command of which a part has come",
                    get: fifo,
                    change: |m, random| phase(&mut m.board.floppy, Phase::Command, random),
                },
                Field {
                    name: "a result of which a part has been read",
                    get: fifo,
                    change: |m, random| phase(&mut m.board.floppy, Phase::Result, random),
                },
                Field {
                    name: "a command under way",
                    get: fifo,
                    change: |m, random| phase(&mut m.board.floppy, Phase::Execution, random),
                },
            ]);
            fields
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.floppy)
        }
    }
}
