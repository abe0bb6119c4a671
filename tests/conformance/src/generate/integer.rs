//! Cases for the integer table.

use env86_emu::isa::table::{Attr, Map, Row, Spec, has_modrm};

use super::{Builder, EBP, ESP, Flavour, Patterns, stack_address};
use crate::layout::{CODE, DATA, PAGE, STACK};
use crate::rng::Rng;
use crate::segments;
use crate::state::{USER_CS, USER_DS, flag};
use crate::undefined::{Count, usage};

const EAX: usize = 0;
const ECX: usize = 1;
const EDX: usize = 2;
const EBX: usize = 3;
const ESI: usize = 6;
const EDI: usize = 7;

/// Selectors that can be loaded, and some that cannot, whatever else a host's tables hold: among them are
/// none of its 64-bit code segments, its tasks, its processes' and processors' data, or places that it may use.
const SELECTORS: [u16; 16] =
    [USER_DS, USER_DS, USER_DS, USER_CS, USER_CS, 0, 1, 2, 3, 0x28, 0x29, 0x2a, 0x20, 0x08, 0x18, 0x1b];
/// Instructions that look at a descriptor. Random selectors would find the host's per-processor data.
const LOOKS: [&str; 4] = ["lar", "lsl", "verr", "verw"];
/// The system call gate, which only the host has.
const LINUX_GATE: u8 = 0x80;

fn is_string(row: &Row) -> bool {
    row.map == Map::Base && matches!(row.opcode, 0xa4..=0xa7 | 0xaa..=0xaf | 0x6c..=0x6f)
}

fn is_branch(row: &Row) -> bool {
    ["j", "jmp", "call", "ret", "retf", "iret", "loop", "loope", "loopne", "jcxz", "jmp far", "call far"]
        .contains(&row.name)
}

pub(super) fn case(b: &mut Builder, row: &'static Row, patterns: &Patterns) {
    let branch = is_branch(row);
    let string = is_string(row);
    let pattern = match b.rng.below(3) {
        _ if branch => &patterns.int3,
        0 => &patterns.few,
        _ => &patterns.random,
    };
    b.fill(pattern);
    if string {
        b.flavour = Flavour::NotCode;
    }
    let mut p = b.prefixes();
    // Some processors let LOCK VERW pass, and take LOCK MOV CR0 for MOV CR8.
    p.lock = row.name != "verw"
        && !(row.map == Map::Of0F && matches!(row.opcode, 0x20 | 0x22))
        && b.rng.one_in(if row.attr & Attr::LOCK != 0 { 4 } else { 24 });
    if !string && (row.attr & Attr::LOCK != 0 && p.lock || row.name == "xchg") {
        // Linux makes a process wait for each operand on two cache lines that it locks.
        b.flavour = Flavour::Aligned;
    }
    if row.attr & Attr::F3 != 0 {
        p.rep = Some(0xf3);
    } else if b.rng.one_in(if string { 2 } else { 12 }) && rep_is_ignored(row) {
        p.rep = Some(b.rng.pick(&[0xf2, 0xf3]));
    }
    // The reserved 16-bit form of BSWAP.
    if row.name == "bswap" {
        p.op16 = false;
    }
    b.emit_prefixes(p);
    b.bytes.extend_from_slice(row.map.escape());
    let opcode = if row.attr & Attr::EIGHT != 0 {
        row.opcode + b.rng.below(8) as u8
    } else if row.attr & Attr::CONDITION != 0 {
        row.opcode + b.rng.below(16) as u8
    } else {
        row.opcode
    };
    b.bytes.push(opcode);

    prepare(b, row, p.op16);
    if string {
        strings(b, p.addr16, p.rep.is_some());
    }
    let mut operand = None;
    if has_modrm(row.map, row.opcode) {
        let reg = row.ext.unwrap_or_else(|| b.rng.below(8) as u8);
        let is_mem = row.attr & Attr::MEM != 0 || row.attr & Attr::REG == 0 && !b.rng.one_in(2);
        prepare_operands(b, row, reg);
        if is_mem {
            let at = b.address(p.addr16);
            let bytes = b.memory(reg, at, p.addr16);
            b.bytes.extend(bytes);
            operand = Some(at);
        } else {
            let rm = b.rng.below(8) as u8;
            b.bytes.push(0xc0 | reg << 3 | rm);
            if branch {
                b.regs.gpr[usize::from(rm)] = offset(b);
            } else if row.operands.contains(&Spec::Sw) || LOOKS.contains(&row.name) {
                b.regs.gpr[usize::from(rm)] = u32::from(selector(b.rng)) | b.rng.u32() << 16;
            }
        }
    }
    immediates(b, row, p.op16, p.addr16);
    if let Some(at) = operand {
        contents(b, row, at, p.op16);
    }
    stack(b, row, p.op16);
    let code = opcode & 0x0f;
    let bits = if row.opcode & 1 == 0 && row.map == Map::Base {
        8
    } else if p.op16 {
        16
    } else {
        32
    };
    b.uses_flags(usage(row.name, count(b, row), bits, code));
    if p.rep.is_some() && (row.name.starts_with("cmps") || row.name.starts_with("scas")) {
        // Between two elements Intel's processors show the flags from before the instruction (SDM volume 2, REP),
        // AMD's those of the last comparison.
        b.undefined_on_the_way |= flag::ARITH;
    }
    // UD0 and UD1 have a ModR/M byte on some processors.
    if !branch && !row.name.starts_with("ud") {
        b.place();
    }
}

/// How far a shift or rotate goes.
fn count(b: &Builder, row: &Row) -> Count {
    match row.operands.last() {
        Some(Spec::Ib) => Count::of(b.bytes.last().copied().unwrap_or(0)),
        Some(Spec::One) => Count::Known(1),
        Some(Spec::Cl) => Count::of(b.regs.gpr[ECX] as u8),
        _ => Count::Any,
    }
}

/// Whether a REP prefix leaves the instruction what it is, on any processor.
fn rep_is_ignored(row: &Row) -> bool {
    // Which of F2 and F3 LOOPE and LOOPNE heed, and whether, differs between processors.
    if ["loope", "loopne"].contains(&row.name) {
        return false;
    }
    // With F3, later processors' TZCNT, LZCNT, RDRAND's kin, RDFSBASE's kin.
    row.map == Map::Base
        || !matches!(row.opcode, 0x0d | 0x19..=0x1f | 0xae | 0xb8 | 0xbc | 0xbd | 0xc7 | 0x01 | 0x09)
}

fn selector(rng: &mut Rng) -> u16 {
    if rng.one_in(4) {
        return segments::selector(rng.below(segments::LDT.len() as u32) as usize);
    }
    rng.pick(&SELECTORS)
}

/// Where a branch may go, as a linear address: a marker in the code page, or nowhere.
fn target(rng: &mut Rng) -> u32 {
    if rng.one_in(10) {
        rng.pick(&[0, CODE - 1, CODE + PAGE, DATA - 16, 0x1234_5678])
    } else {
        CODE + rng.below(0x400)
    }
}

/// The same as an offset in CS, or now and then in a segment that begins at the code page.
fn offset(b: &mut Builder) -> u32 {
    let base = if b.rng.one_in(12) { CODE } else { b.code_base() };
    target(b.rng).wrapping_sub(base)
}

/// Registers that an instruction uses without naming them.
fn prepare(b: &mut Builder, row: &Row, op16: bool) {
    match row.name {
        "xlat" => {
            let at = b.address(false);
            b.regs.gpr[EBX] = at.wrapping_sub(b.regs.gpr[EAX] & 0xff);
        }
        "div" | "idiv" if b.rng.one_in(2) => {
            // Mostly quotients that fit.
            let negative = row.name == "idiv" && b.rng.one_in(2);
            b.regs.gpr[EDX] = if negative { !0 } else { b.rng.below(16) };
            if row.opcode == 0xf6 {
                b.regs.gpr[EAX] = if negative { !b.rng.below(0x1000) } else { b.rng.below(0x2000) };
            }
            b.keep |= 1 << EAX | 1 << EDX;
        }
        "loop" | "loope" | "loopne" | "jcxz" => {
            b.regs.gpr[ECX] =
                b.rng.pick(&[0, 1, 2, 0x1_0000, 0x1_0001, 0xffff_0000, 0xffff_0001, 0x8000_0000]);
        }
        // Double shifts by more than the operand has bits have no defined result.
        "shld" | "shrd" if op16 => {
            b.regs.gpr[ECX] = b.regs.gpr[ECX] & !0x1f | b.rng.below(17);
            b.keep |= 1 << ECX;
        }
        "cmpxchg8b" => b.keep |= 1 << EAX | 1 << EDX | 1 << EBX | 1 << ECX,
        "enter" | "leave" => b.regs.gpr[EBP] = stack_address(b.rng),
        "daa" | "das" | "aaa" | "aas" | "aam" | "aad" if b.rng.one_in(2) => {
            b.regs.gpr[EAX] = b.regs.gpr[EAX] & 0xffff_0000 | b.rng.below(0x10000);
        }
        "cwd" | "cbw" if op16 => b.regs.gpr[EAX] = b.rng.u32(),
        _ => {}
    }
}

/// Registers that ModR/M will name.
fn prepare_operands(b: &mut Builder, row: &Row, reg: u8) {
    let r = usize::from(reg);
    match row.name {
        "bt" | "bts" | "btr" | "btc" if row.opcode != 0xba && !b.rng.one_in(8) => {
            // Bit offsets that stay near the operand.
            b.regs.gpr[r] = b.regs.gpr[r] & 0xffff_0000 | b.rng.below(0x1000);
            if !b.rng.one_in(3) {
                b.regs.gpr[r] = (b.rng.below(0x2000) as i32 - 0x1000) as u32;
            }
            b.keep |= 1 << r;
        }
        "bound" => {
            b.regs.gpr[r] = (b.rng.below(16) as i32 - 8) as u32;
            b.keep |= 1 << r;
        }
        _ => {}
    }
}

/// What the memory operand holds.
fn contents(b: &mut Builder, row: &Row, at: u32, op16: bool) {
    let mut bytes = Vec::new();
    let mut pointer = |rng: &mut Rng, value: u32, selector: u16| {
        bytes.extend_from_slice(&value.to_le_bytes()[..if op16 { 2 } else { 4 }]);
        bytes.extend_from_slice(&selector.to_le_bytes());
        let _ = rng;
    };
    match row.name {
        "jmp far" | "call far" => {
            let (value, s) = (offset(b), far_selector(b.rng));
            pointer(b.rng, value, s);
        }
        "les" | "lds" | "lss" | "lfs" | "lgs" => {
            let (value, s) = (b.rng.word(), selector(b.rng));
            pointer(b.rng, value, s);
        }
        "jmp" | "call" => bytes.extend_from_slice(&offset(b).to_le_bytes()),
        "mov" if row.operands.contains(&Spec::Sw) && row.operands[0] == Spec::Sw => {
            bytes.extend_from_slice(&selector(b.rng).to_le_bytes());
        }
        _ if LOOKS.contains(&row.name) => {
            let s = selector(b.rng);
            bytes.extend_from_slice(&s.to_le_bytes());
        }
        "bound" => {
            for _ in 0..2 {
                let v = (b.rng.below(16) as i32 - 8) as u32;
                bytes.extend_from_slice(&v.to_le_bytes()[..if op16 { 2 } else { 4 }]);
            }
        }
        "cmpxchg8b" if b.rng.one_in(2) => {
            bytes.extend_from_slice(&b.regs.gpr[EAX].to_le_bytes());
            bytes.extend_from_slice(&b.regs.gpr[EDX].to_le_bytes());
        }
        "cmpxchg" if b.rng.one_in(2) => bytes.extend_from_slice(&b.regs.gpr[EAX].to_le_bytes()),
        "fxrstor" => bytes.extend_from_slice(&super::x87::fxsave_image(b.rng)),
        _ if b.rng.one_in(2) => bytes.extend_from_slice(&b.rng.word().to_le_bytes()),
        _ => {}
    }
    b.put(at, &bytes);
}

fn far_selector(rng: &mut Rng) -> u16 {
    if rng.one_in(3) { selector(rng) } else { USER_CS }
}

fn immediates(b: &mut Builder, row: &Row, op16: bool, addr16: bool) {
    for spec in row.operands {
        let word = b.rng.word();
        let size = match spec {
            Spec::Ib if row.name == "int" => {
                let v = if b.rng.one_in(4) { b.rng.pick(&[3, 4]) } else { b.rng.u8() };
                b.bytes.push(if v == LINUX_GATE { 0x81 } else { v });
                continue;
            }
            Spec::Ib if op16 && ["shld", "shrd"].contains(&row.name) => {
                let v = b.rng.u8() & !0x1f | b.rng.below(17) as u8;
                b.bytes.push(v);
                continue;
            }
            Spec::Ib | Spec::Ibs => 1,
            // ENTER's level.
            Spec::Ib2 => {
                let level = if b.rng.one_in(3) { b.rng.u8() } else { 0 };
                b.bytes.push(level);
                continue;
            }
            Spec::Iw => {
                let v = if b.rng.one_in(4) { b.rng.u32() } else { b.rng.below(0x100) };
                b.bytes.extend_from_slice(&(v as u16).to_le_bytes());
                continue;
            }
            Spec::Iz if op16 => 2,
            Spec::Iz => 4,
            Spec::Jb => {
                // Not into itself, where it would run for ever.
                let end = b.bytes.len() as u32 + 1;
                let mut d = b.rng.u8();
                if (d as i8) < 0 && u32::from(d.wrapping_neg()) <= end {
                    d = d.wrapping_add(0x60);
                }
                b.bytes.push(d);
                continue;
            }
            Spec::Jz => {
                let size = if op16 { 2 } else { 4 };
                let end = b.regs.eip + b.bytes.len() as u32 + size;
                let mut to = target(b.rng);
                if b.rng.one_in(16) {
                    to = end.wrapping_add(b.rng.below(0x100));
                }
                b.bytes.extend_from_slice(&to.wrapping_sub(end).to_le_bytes()[..size as usize]);
                continue;
            }
            Spec::Ap => {
                let to = offset(b);
                b.bytes.extend_from_slice(&to.to_le_bytes()[..if op16 { 2 } else { 4 }]);
                let s = far_selector(b.rng);
                b.bytes.extend_from_slice(&s.to_le_bytes());
                continue;
            }
            Spec::Ob | Spec::Ov => {
                let at = b.address(addr16);
                b.bytes.extend_from_slice(&at.to_le_bytes()[..if addr16 { 2 } else { 4 }]);
                continue;
            }
            _ => continue,
        };
        b.bytes.extend_from_slice(&word.to_le_bytes()[..size]);
    }
}

fn strings(b: &mut Builder, addr16: bool, rep: bool) {
    for r in [ESI, EDI] {
        let at = b.address(addr16);
        b.regs.gpr[r] = if addr16 { b.rng.u32() & 0xffff_0000 | at & 0xffff } else { at };
    }
    if rep {
        b.regs.gpr[ECX] = match b.rng.below(8) {
            0 => 0,
            1 => b.rng.word(),
            2 => b.rng.below(0x2000),
            3 => 1,
            _ => b.rng.below(48),
        };
        if addr16 {
            b.regs.gpr[ECX] =
                b.rng.u32() & 0xffff_0000 | b.regs.gpr[ECX] & if b.rng.one_in(4) { 0xffff } else { 0x3f };
        }
        // Overlapping moves, at small and large distances.
        if b.rng.one_in(4) {
            let distance = if b.rng.one_in(2) { b.rng.below(16) } else { b.rng.below(64) };
            b.regs.gpr[EDI] = b.regs.gpr[ESI].wrapping_add(distance).wrapping_sub(8);
        }
    }
    if b.rng.one_in(2) {
        b.regs.gpr[EAX] = b.rng.pick(&[0, 1, 0xff, 0x80, 0xffff_ffff, 0x8080_8080, 0x0101_0101, 0x0000_ffff]);
    }
}

/// What the stack is, and what it holds, for instructions that pop something in particular.
fn stack(b: &mut Builder, row: &Row, op16: bool) {
    let pops = matches!(row.name, "pop es" | "pop ss" | "pop ds" | "pop fs" | "pop gs");
    let returns = matches!(row.name, "retf" | "iret");
    if (row.name.starts_with("push ") || pops || returns) && !op16 {
        // A slot that no page or limit divides: some processors touch only the selector's half of it (SDM volume 3,
        // architecture compatibility, "Selector Pushes and Pops").
        b.pushes_selector = !pops && !returns;
        b.regs.seg[2] = USER_DS;
        b.regs.gpr[ESP] &= !3;
    }
    let esp = b.regs.gpr[ESP];
    let size = if op16 { 2 } else { 4 };
    let mut words = Vec::new();
    match row.name {
        "ret" => words.push(offset(b)),
        "retf" => words.extend([offset(b), far_selector(b.rng).into()]),
        "iret" => {
            let flags =
                b.rng.u32() & (flag::ARITH | flag::TF | flag::IF | flag::DF | flag::AC | flag::ID | 0x3000);
            words.extend([offset(b), far_selector(b.rng).into(), flags | 2]);
        }
        "popf" => words.push(b.rng.u32()),
        _ if pops => {
            words.push(u32::from(selector(b.rng)) | b.rng.u32() << 16);
        }
        _ => return,
    }
    // Landing on what was popped would run it.
    debug_assert!(!(STACK..STACK + PAGE).contains(&words[0]) || row.name.starts_with("pop"));
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes().into_iter().take(size)).collect();
    b.put(esp, &bytes);
    b.put(esp & 0xffff, &bytes);
}
