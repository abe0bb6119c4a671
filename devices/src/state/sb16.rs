//! The sound card. v86's format has its registers and what a stream of samples has left to do, and neither
//! its synthesizer nor what has been heard last.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use super::container::Buffers;
use super::opl;
use super::ours::{hex, take_bool, take_u8, unhex};
use super::record::{Entry, Layout, Record};
use super::value::{Kind, Value};
use crate::pc::Pc;
use crate::sb16::{ARGUMENTS, Dsp, Midi, Mixer, Playback, Purpose, Sb16, Transfer, arguments};
use crate::sound::FRAME_RATE;
use serde_json::{Value as Json, json};

const NAME: &str = "sb16";
const SB16: Layout = Layout {
    name: NAME,
    fields: &[
        "",
        "",
        "last_read",
        "command",
        "arguments_missing",
        "mixer_index",
        "mixer",
        "speaker",
        "test",
        "high_speed",
        "stereo",
        "wide",
        "signed",
        "",
        "",
        "sample_count",
        "bytes_count",
        "bytes_left",
        "bytes_block",
        "interrupt",
        "channel",
        "channel_8",
        "channel_16",
        "auto",
        "buffer",
        "waits",
        "paused",
        "rate",
        "sample_bytes",
        "identity",
        "identified",
        "asp",
        "",
        "",
        "irq",
        "interrupts",
    ],
};
/// v86's buffer, through which all samples go there.
const BUFFER: usize = 65_536;
/// Samples that v86 fetches at once at most.
const V86_BLOCK: u32 = 1024;
/// The least that it fetches at once, in bytes.
const V86_LEAST: u32 = 32;
/// The highest rate that a guest can ask for, in samples a second.
const MOST_RATE: u32 = 1_000_000;
/// Registers that choose the interrupt line and the DMA channels.
const SETUP: [usize; 2] = [0x80, 0x81];

const OURS: &str = "sb16";

pub(super) type Saved = Sb16;

impl Chip for Sb16 {
    fn read(state: &State) -> Result<Self, StateError> {
        let mut card = read(&state.entry(&SB16, NAME)?)?;
        let ours = state.ours(OURS);
        if !ours.is_null() {
            refine(&mut card, ours);
        }
        card.opl = opl::read(state.ours(opl::OURS));
        Ok(card)
    }

    fn apply(mut self, machine: &mut Pc, moment: &Moment) {
        self.resume(moment.now);
        machine.board.sb16 = self;
    }

    /// What is heard up to now has been fetched.
    fn prepare(machine: &mut Pc, writer: &mut Writer) -> Result<(), StateError> {
        machine.board.sb16.run(machine.cpu.mem_mut(), &mut machine.board.dma, writer.now);
        Ok(())
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        let card = &machine.board.sb16;
        let value = write(card, machine, &mut writer.buffers);
        writer.set(NAME, value);
        writer.add(OURS, write_ours(card));
        writer.add(opl::OURS, opl::write(&card.opl));
        Ok(())
    }
}

fn read(r: &Record) -> Result<Sb16, StateError> {
    let mut mixer = Mixer { index: r.u8("mixer_index")?, registers: r.u8s("mixer")? };
    mixer.set_irq(r.u8("irq")?);
    mixer.set_dma_channels(r.u8("channel_8")?, r.u8("channel_16")?);
    let rate = r.f64("rate")?.clamp(1.0, MOST_RATE.into()) as u32;
    let (waits, left) = (r.bool("waits")?, r.u32("bytes_left")?);
    let bytes = r.u32("sample_bytes")?.clamp(1, 2);
    let length = (r.u32("bytes_count")? / bytes).max(1);
    let transfer = Transfer {
        wide: r.bool("wide")?,
        signed: r.bool("signed")?,
        stereo: r.bool("stereo")?,
        auto: r.bool("auto")?,
        paused: r.bool("paused")?,
        length,
        left: if waits { length } else { left / bytes },
        rate: rate.min(FRAME_RATE),
        ..Transfer::default()
    };
    let interrupts = r.u8s::<3>("interrupts")?;
    let command = r.u8("command")?;
    Ok(Sb16 {
        dsp: Dsp {
            // The arguments that have come are not there, and have to come again.
            command: if r.u8("arguments_missing")? > 0 && arguments(command) > 0 { command } else { 0 },
            last: r.u8("last_read")?,
            speaker: r.bool("speaker")?,
            test: r.u8("test")?,
            rate,
            identity: r.u8("identity")?,
            identified: r.u8("identified")?,
            asp: r.u8s("asp")?,
            ..Dsp::default()
        },
        playback: Playback { transfer: (waits || left > 0).then_some(transfer), ..Playback::default() },
        mixer,
        interrupts: [interrupts[1] != 0, interrupts[2] != 0],
        ..Sb16::default()
    })
}

fn write(card: &Sb16, machine: &Pc, buffers: &mut Buffers) -> Value {
    let Sb16 { dsp, playback, mixer, interrupts, .. } = card;
    let missing = arguments(dsp.command).saturating_sub(dsp.given);
    // What v86 cannot do is not under way there.
    let running = playback.transfer.filter(|transfer| transfer.purpose == Purpose::Play);
    let transfer = running.unwrap_or_default();
    let bytes = if transfer.wide { 2 } else { 1 };
    let count = transfer.length.saturating_mul(bytes);
    let block = (count >> 2 & !3).max(V86_LEAST).min(V86_BLOCK * bytes);
    let [narrow, wide] = [false, true].map(|wide| mixer.dma_channel(wide).unwrap_or(0));
    let channel = if transfer.wide { wide } else { narrow };
    let waits = running.is_some() && !machine.board.dma.ready(channel.into());
    let mut triggered = [0; 16];
    (triggered[1], triggered[2]) = (interrupts[0].into(), interrupts[1].into());
    Entry::new(&SB16)
        .set("last_read", dsp.last)
        .set("command", dsp.command)
        .set("arguments_missing", missing)
        .set("mixer_index", mixer.index)
        .set("mixer", buffers.u8s(&mixer.registers))
        .set("speaker", dsp.speaker)
        .set("test", dsp.test)
        .set("high_speed", false)
        .set("stereo", transfer.stereo)
        .set("wide", transfer.wide)
        .set("signed", transfer.signed)
        .set("sample_count", transfer.length)
        .set("bytes_count", count)
        .set("bytes_left", if running.is_some() { transfer.left.saturating_mul(bytes) } else { 0 })
        .set("bytes_block", if running.is_some() { block } else { 0 })
        .set("interrupt", if running.is_some() { bytes } else { 0 })
        .set("channel", if running.is_some() { channel } else { 0 })
        .set("channel_8", narrow)
        .set("channel_16", wide)
        .set("auto", transfer.auto)
        .set("buffer", buffers.add(Kind::U8, vec![0; BUFFER]))
        .set("waits", waits)
        .set("paused", transfer.paused)
        .set("rate", if running.is_some() { transfer.rate } else { dsp.rate })
        .set("sample_bytes", bytes)
        .set("identity", dsp.identity)
        .set("identified", dsp.identified)
        .set("asp", buffers.u8s(&dsp.asp))
        .set("irq", mixer.irq().unwrap_or(0))
        .set("interrupts", buffers.u8s(&triggered))
        .value()
}

fn write_ours(card: &Sb16) -> Json {
    let Sb16 { dsp, playback, mixer, midi, .. } = card;
    json!({
        "held": dsp.held,
        "command": dsp.command,
        "arguments": hex(dsp.arguments),
        "given": dsp.given,
        "answers": hex(dsp.answers.iter().copied()),
        "rate": dsp.rate,
        "shared_rate": dsp.shared_rate,
        "block": dsp.block,
        "setup": SETUP.map(|register| mixer.registers[register]),
        "transfer": playback.transfer.map(|t| json!({
            "purpose": t.purpose as u8,
            "flags": [t.wide, t.signed, t.stereo, t.auto, t.paused],
            "counts": [t.length, t.left, t.rate],
        })),
        "between": playback.between,
        "samples": playback.samples,
        "still": playback.held,
        "midi": { "uart": midi.uart, "answers": hex(midi.answers.iter().copied()) },
    })
}

fn refine(card: &mut Sb16, ours: &Json) {
    let Sb16 { dsp, playback, mixer, midi, .. } = card;
    let number = |saved: &Json| saved.as_u64().and_then(|n| u32::try_from(n).ok());
    take_bool(&ours["held"], &mut dsp.held);
    take_u8(&ours["command"], &mut dsp.command);
    dsp.arguments.iter_mut().zip(unhex(&ours["arguments"], ARGUMENTS)).for_each(|(to, from)| *to = from);
    take_u8(&ours["given"], &mut dsp.given);
    dsp.given = dsp.given.min(ARGUMENTS as u8 - 1);
    dsp.answers = unhex(&ours["answers"], Dsp::LIMIT).into();
    dsp.rate = number(&ours["rate"]).map_or(dsp.rate, |rate| rate.clamp(1, MOST_RATE));
    take_bool(&ours["shared_rate"], &mut dsp.shared_rate);
    dsp.block = number(&ours["block"]).map_or(dsp.block, |block| block.clamp(1, 1 << 16));
    for (at, register) in SETUP.into_iter().enumerate() {
        take_u8(&ours["setup"][at], &mut mixer.registers[register]);
    }
    playback.transfer = read_transfer(&ours["transfer"]);
    playback.between = number(&ours["between"]).unwrap_or(0).min(FRAME_RATE - 1);
    playback.samples = read_samples(&ours["samples"]);
    playback.held = number(&ours["still"]).unwrap_or(0);
    take_bool(&ours["midi"]["uart"], &mut midi.uart);
    midi.answers = unhex(&ours["midi"]["answers"], Midi::LIMIT).into();
}

fn read_transfer(saved: &Json) -> Option<Transfer> {
    let flag = |at: usize| saved["flags"][at].as_bool();
    let count = |at: usize| saved["counts"][at].as_u64().and_then(|n| u32::try_from(n).ok());
    Some(Transfer {
        purpose: Purpose::from_number(saved["purpose"].as_u64()?)?,
        wide: flag(0)?,
        signed: flag(1)?,
        stereo: flag(2)?,
        auto: flag(3)?,
        paused: flag(4)?,
        length: count(0)?.max(1),
        left: count(1)?,
        rate: count(2)?.clamp(1, FRAME_RATE),
    })
}

/// The sample before and the one behind, left and right.
pub(super) fn read_samples(saved: &Json) -> [[i16; 2]; 2] {
    let sample = |saved: &Json| saved.as_i64().and_then(|n| i16::try_from(n).ok()).unwrap_or(0);
    core::array::from_fn(|at| core::array::from_fn(|side| sample(&saved[at][side])))
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, fields, one_of, some};
    use super::*;
    use crate::opl::{Operator, Stage, Timer};

    fn transfer(random: &mut Random) -> Option<Transfer> {
        let purpose = one_of([Purpose::Play, Purpose::Record, Purpose::Silence, Purpose::Skip])(random);
        any::<bool>(random).then(|| Transfer {
            purpose,
            wide: any(random),
            signed: any(random),
            stereo: any(random),
            auto: any(random),
            paused: any(random),
            length: 1 + any::<u16>(random) as u32,
            left: any::<u16>(random).into(),
            rate: 4000 + random.below(41_000) as u32,
        })
    }

    fn samples(random: &mut Random) -> [[i16; 2]; 2] {
        any::<[[u16; 2]; 2]>(random).map(|sample| sample.map(|side| side as i16))
    }

    fn timer(random: &mut Random) -> Timer {
        Timer { due: any::<bool>(random).then(|| any::<u64>(random) >> 12), over: any(random) }
    }

    fn operators(random: &mut Random) -> [Operator; crate::opl::OPERATORS] {
        core::array::from_fn(|_| Operator {
            pressed: any(random),
            stage: one_of([Stage::Off, Stage::Attack, Stage::Decay, Stage::Sustain, Stage::Release])(random),
            envelope: any::<u16>(random) & 0x3ff,
            loss: any::<u16>(random) & 0x3ff,
            phase: any::<u32>(random) & 0x7_ffff,
            outputs: any::<[u16; 2]>(random).map(|value| value as i16),
        })
    }

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] = &["played", "left_line", "track"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.sb16.dsp.held => any,
                m.board.sb16.dsp.command => any,
                m.board.sb16.dsp.arguments => any,
                m.board.sb16.dsp.given => |r: &mut Random| r.below(3) as u8,
                m.board.sb16.dsp.answers => some,
                m.board.sb16.dsp.last => any,
                m.board.sb16.dsp.speaker => any,
                m.board.sb16.dsp.test => any,
                m.board.sb16.dsp.rate => |r: &mut Random| 1 + r.below(1_000_000) as u32,
                m.board.sb16.dsp.shared_rate => any,
                m.board.sb16.dsp.block => |r: &mut Random| 1 + r.below(1 << 16) as u32,
                m.board.sb16.dsp.identity => any,
                m.board.sb16.dsp.identified => any,
                m.board.sb16.dsp.asp => any,
                m.board.sb16.playback.transfer => transfer,
                m.board.sb16.playback.between => |r: &mut Random| r.below(48_000) as u32,
                m.board.sb16.playback.samples => samples,
                m.board.sb16.playback.held => any,
                m.board.sb16.mixer.index => any,
                m.board.sb16.mixer.registers => any,
                m.board.sb16.midi.uart => any,
                m.board.sb16.midi.answers => some,
                m.board.sb16.interrupts => any,
                m.board.sb16.opl.index => |r: &mut Random| r.below(512) as u16,
                m.board.sb16.opl.registers => any,
                m.board.sb16.opl.timers => |r: &mut Random| [timer(r), timer(r)],
                m.board.sb16.opl.operators => operators,
                m.board.sb16.opl.clock => any,
                m.board.sb16.opl.noise => |r: &mut Random| 1 + r.below((1 << 23) - 1) as u32,
                m.board.sb16.opl.between => |r: &mut Random| r.below(48_000) as u32,
                m.board.sb16.opl.samples => samples,
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.sb16)
        }
    }
}
