//! The sound card's synthesizer, which v86's format does not have: a part of `sb16`.

use super::ours::{hex, take_bool, take_u16, unhex};
use super::sb16::read_samples;
use crate::opl::{Operator, Opl, Stage};
use crate::sound::FRAME_RATE;
use serde_json::{Value as Json, json};

pub(super) const OURS: &str = "opl";

/// Bytes of an operator: key, stage, envelope, loss, phase, the last two values.
const BYTES: usize = 14;
const STAGES: [Stage; 5] = [Stage::Off, Stage::Attack, Stage::Decay, Stage::Sustain, Stage::Release];
/// The envelope has ten bits, ...
const ENVELOPE: u16 = 0x3ff;
/// ... the phase 19, ...
const PHASE: u32 = (1 << 19) - 1;
/// ... and the noise generator 23.
const NOISE: u32 = (1 << 23) - 1;

pub(super) fn write(opl: &Opl) -> Json {
    json!({
        "index": opl.index,
        "registers": opl.registers.map(hex),
        "timers": opl.timers.map(|timer| json!([timer.due, timer.over])),
        "operators": hex(opl.operators.iter().flat_map(pack)),
        "clock": opl.clock,
        "noise": opl.noise,
        "between": opl.between,
        "samples": opl.samples,
    })
}

pub(super) fn read(ours: &Json) -> Opl {
    let mut opl = Opl::default();
    take_u16(&ours["index"], &mut opl.index);
    opl.index &= 0x1ff;
    for (bank, registers) in opl.registers.iter_mut().enumerate() {
        let saved = unhex(&ours["registers"][bank], registers.len());
        registers.iter_mut().zip(saved).for_each(|(to, from)| *to = from);
    }
    for (number, timer) in opl.timers.iter_mut().enumerate() {
        let saved = &ours["timers"][number];
        timer.due = saved[0].as_u64();
        take_bool(&saved[1], &mut timer.over);
    }
    let saved = unhex(&ours["operators"], BYTES * opl.operators.len());
    for (operator, bytes) in opl.operators.iter_mut().zip(saved.as_chunks().0) {
        *operator = unpack(bytes);
    }
    let number = |key: &str| ours[key].as_u64().and_then(|n| u32::try_from(n).ok());
    opl.clock = number("clock").unwrap_or(0);
    opl.noise = number("noise").map_or(1, |noise| (noise & NOISE).max(1));
    opl.between = number("between").unwrap_or(0).min(FRAME_RATE - 1);
    opl.samples = read_samples(&ours["samples"]);
    opl
}

fn pack(operator: &Operator) -> [u8; BYTES] {
    let Operator { pressed, stage, envelope, loss, phase, outputs } = *operator;
    let mut bytes = [0; BYTES];
    (bytes[0], bytes[1]) = (pressed.into(), stage as u8);
    bytes[2..4].copy_from_slice(&envelope.to_le_bytes());
    bytes[4..6].copy_from_slice(&loss.to_le_bytes());
    bytes[6..10].copy_from_slice(&phase.to_le_bytes());
    bytes[10..12].copy_from_slice(&outputs[0].to_le_bytes());
    bytes[12..14].copy_from_slice(&outputs[1].to_le_bytes());
    bytes
}

fn unpack(bytes: &[u8; BYTES]) -> Operator {
    let [pressed, stage, e0, e1, l0, l1, p0, p1, p2, p3, a0, a1, b0, b1] = *bytes;
    Operator {
        pressed: pressed != 0,
        stage: STAGES.get(usize::from(stage)).copied().unwrap_or_default(),
        envelope: u16::from_le_bytes([e0, e1]) & ENVELOPE,
        loss: u16::from_le_bytes([l0, l1]) & ENVELOPE,
        phase: u32::from_le_bytes([p0, p1, p2, p3]) & PHASE,
        outputs: [i16::from_le_bytes([a0, a1]), i16::from_le_bytes([b0, b1])],
    }
}
