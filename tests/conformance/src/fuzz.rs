//! Random code against what should not matter, and random bytes against another decoder.

use env86_emu::isa::decode::{DecodeError, decode};
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic};

use crate::generate::{Patterns, program};
use crate::guest::Guest;
use crate::layout::{BYTES, Image, offset};
use crate::operands;
use crate::report::disassemble;
use crate::rng::Rng;
use crate::state::{End, Outcome};

/// Instructions after which a program that still runs is given up.
const BUDGET: u64 = 3000;

/// Runs `count` random programs twice: with decoded blocks and translations kept and chained, and
/// with nothing kept from one instruction to the next. Gives how many ran to an end, or a
/// description of the first that differs.
pub fn blocks(seed: u64, count: u32) -> Result<u32, String> {
    let blank: Box<Image> = vec![0; BYTES].try_into().unwrap_or_else(|_| unreachable!());
    let (mut start, mut kept, mut fresh) = (blank.clone(), blank.clone(), blank);
    let mut rng = Rng::new(seed);
    let patterns = Patterns::new(&mut rng);
    let mut guest = Guest::new();
    guest.budget = BUDGET;
    let mut ended = 0;
    for i in 0..count {
        let regs = program(&patterns, &mut rng, &mut start);
        kept.copy_from_slice(&start[..]);
        fresh.copy_from_slice(&start[..]);
        let a = guest.run(&regs, &mut kept);
        if a.end == End::Hang {
            continue;
        }
        ended += 1;
        let b = guest.run_uncached(&regs, &mut fresh);
        if (a.end, &a.regs) != (b.end, &b.regs) || kept != fresh {
            let different = kept.iter().zip(fresh.iter()).filter(|(a, b)| a != b).count();
            let show = |o: &Outcome| {
                format!("{:x?} eip {:x} flags {:x} {:x?}", o.end, o.regs.eip, o.regs.eflags, o.regs.gpr)
            };
            return Err(format!(
                "program {i} of seed {seed}: {different} bytes differ\nkept:  {}\nfresh: {}\n{}",
                show(&a),
                show(&b),
                path(&guest, &start, &fresh)
            ));
        }
    }
    Ok(ended)
}

/// The last instructions of a program: as they were at its start, and at its end.
fn path(guest: &Guest, start: &Image, end: &Image) -> String {
    let line = |&eip: &u32| {
        let code = |image: &Image| {
            let at = offset(eip).unwrap_or(0);
            let bytes: Vec<u8> = image.iter().skip(at).take(15).copied().collect();
            let len = decode(&bytes, true).map_or(1, |i| usize::from(i.len));
            format!("{:02x?} {}", &bytes[..len.min(bytes.len())], disassemble(&bytes, eip, false))
        };
        let (before, after) = (code(start), code(end));
        if before == after {
            format!("  {eip:08x} {before}\n")
        } else {
            format!("  {eip:08x} {before} -> {after}\n")
        }
    };
    guest.path.iter().map(line).collect()
}

/// Processor features whose instructions the tables have.
const FEATURES: [CpuidFeature; 35] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL8086_ONLY,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL286_ONLY,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL386_ONLY,
    CpuidFeature::INTEL386_A0_ONLY,
    CpuidFeature::INTEL486,
    CpuidFeature::INTEL486_A_ONLY,
    CpuidFeature::CPUID,
    CpuidFeature::CLFSH,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::FXSR,
    CpuidFeature::MMX,
    CpuidFeature::MSR,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::POPCNT,
    CpuidFeature::PREFETCHW,
    CpuidFeature::RDPMC,
    CpuidFeature::RDRAND,
    CpuidFeature::SEP,
    CpuidFeature::SMM,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::SSE3,
    CpuidFeature::TSC,
    CpuidFeature::D3NOW,
    CpuidFeature::CET_IBT,
    CpuidFeature::MPX,
];

/// Instructions that one of the decoders has and the other has not, on purpose.
fn is_exempt(insn: &Instruction) -> bool {
    let code = insn.code();
    // Ours has no 3DNow!, SMM, LOADALL, or the 386's test registers and early stepping's opcodes.
    let features = insn.cpuid_features();
    features.iter().any(|f| !FEATURES.contains(f))
        || features.iter().any(|f| {
            matches!(
                f,
                CpuidFeature::SMM
                    | CpuidFeature::D3NOW
                    | CpuidFeature::INTEL286_ONLY
                    | CpuidFeature::INTEL386_ONLY
                    | CpuidFeature::INTEL386_A0_ONLY
                    | CpuidFeature::INTEL486_A_ONLY
            )
        })
        || matches!(insn.mnemonic(), Mnemonic::Rdpid | Mnemonic::Rsm)
        // PREFETCHW of a register is no instruction.
        || matches!(code, Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D)
}

/// Decodes `count` random byte strings in 16-bit and in 32-bit code with both decoders. Gives how
/// many both took for instructions, and a description of each disagreement (at most `show`).
pub fn decoder(seed: u64, count: u32, show: usize) -> (u32, Vec<String>) {
    let mut rng = Rng::new(seed);
    let mut agreed = 0;
    let mut found = Vec::new();
    for _ in 0..count {
        let mut bytes = [0; 16];
        bytes.fill_with(|| rng.u8());
        // Prefixes and the second map more often than chance has them.
        let mut at = 0;
        while at < 4 && rng.one_in(3) {
            bytes[at] = rng.pick(&[0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x64, 0xf0]);
            at += 1;
        }
        if rng.one_in(2) {
            bytes[at] = 0x0f;
        }
        for code32 in [false, true] {
            let bits = if code32 { 32 } else { 16 };
            let theirs = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode();
            let ours = decode(&bytes, code32);
            let same = match &ours {
                Ok(i) => {
                    !theirs.is_invalid() && usize::from(i.len) == theirs.len() && operands::agree(i, &theirs)
                }
                Err(DecodeError::Short | DecodeError::Long) => true,
                Err(DecodeError::Invalid) => theirs.is_invalid(),
            };
            if same {
                agreed += u32::from(ours.is_ok());
            } else if !is_exempt(&theirs) && found.len() < show {
                let operands = ours.as_ref().map(operands::ours);
                found.push(format!(
                    "{bits} bits, {bytes:02x?}: ours {ours:?} {operands:?}, iced {theirs} {:?}, {} bytes {:?}",
                    theirs.code(),
                    theirs.len(),
                    operands::theirs(&theirs)
                ));
            }
        }
    }
    (agreed, found)
}
