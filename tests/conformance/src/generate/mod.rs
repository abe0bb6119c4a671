//! Makes cases from the emulator's own instruction tables: a new row is tested by being there.

mod integer;
mod sequence;
mod simd;
mod x87;

use std::collections::BTreeSet;

use env86_emu::isa::table::{self, Attr};

use crate::layout::{CODE, DATA, EDGE, Image, LOW, PAGE, READ_ONLY, STACK, TOP, linear, patch};
use crate::rng::Rng;
use crate::segments;
use crate::state::{Regs, USER_DS, flag};
use crate::undefined::Usage;

/// One instruction form: what a row of the tables stands for.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A row of the integer table.
    Integer(&'static table::Row),
    /// An x87 instruction with a memory operand: opcode, reg field.
    X87Memory(u8, u8),
    /// An x87 instruction on registers: opcode, ModR/M byte.
    X87Register(u8, u8),
    /// Several plain integer instructions after one another.
    Sequence,
    /// A row of the SIMD table.
    Simd(&'static env86_emu::simd::Row),
}

/// A form with its names.
#[derive(Clone, Debug)]
pub struct Form {
    /// Group in the summary.
    pub group: &'static str,
    /// Mnemonic.
    pub name: String,
    /// Mnemonic and encoding.
    pub title: String,
    /// What it is.
    pub kind: Kind,
}

/// System rows whose result is not the same for user code everywhere: they read clocks, processor
/// identities or system registers that a host may hide, or enter the host's kernel.
/// Hypervisors intercept INT1.
const NOT_COMPARABLE: [&str; 13] = [
    "int1", "rdtsc", "rdpmc", "cpuid", "rdrand", "sysenter", "sysexit", "sgdt", "sidt", "sldt", "str",
    "smsw", "rdmsr",
];

/// All forms that can be compared.
pub fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for row in table::TABLE {
        if row.name == "x87" || NOT_COMPARABLE.contains(&row.name) {
            continue;
        }
        let system = row.attr & Attr::SYSTEM != 0;
        let group = if system { "system, from user code" } else { "integer" };
        forms.push(Form {
            group,
            name: row.name.to_string(),
            title: format!("{row:?}"),
            kind: Kind::Integer(row),
        });
    }
    // As many as a hundred forms' cases.
    for i in 0..100 {
        let title = format!("sequence {i}");
        forms.push(Form {
            group: "integer sequences",
            name: "sequence".to_string(),
            title,
            kind: Kind::Sequence,
        });
    }
    for opcode in 0xd8..=0xdf {
        for reg in 0..8 {
            let kind = Kind::X87Memory(opcode, reg);
            let name = mnemonic(&[opcode, reg << 3]);
            forms.push(Form { group: "x87", title: format!("{name} {opcode:02x} /{reg}"), name, kind });
        }
        for modrm in 0xc0..=0xff {
            let kind = Kind::X87Register(opcode, modrm);
            let name = mnemonic(&[opcode, modrm]);
            forms.push(Form { group: "x87", title: format!("{name} {opcode:02x} {modrm:02x}"), name, kind });
        }
    }
    for row in env86_emu::simd::TABLE {
        let group = if row.touches_mmx() { "mmx" } else { "sse" };
        let title = format!("{} {:?} 0f {:02x}", row.name, row.prefix, row.opcode);
        forms.push(Form { group, name: row.name.to_string(), title, kind: Kind::Simd(row) });
    }
    forms
}

/// The mnemonic of some bytes, by an independent decoder.
fn mnemonic(bytes: &[u8]) -> String {
    let mut padded = bytes.to_vec();
    padded.resize(16, 0);
    let insn = iced_x86::Decoder::new(32, &padded, iced_x86::DecoderOptions::NONE).decode();
    format!("{:?}", insn.mnemonic()).to_lowercase()
}

/// One case.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// The instruction.
    pub bytes: Vec<u8>,
    /// The registers before it.
    pub regs: Regs,
    /// Flags that the manual leaves undefined after the last instruction.
    pub undefined: u32,
    /// Flags that it leaves undefined after any of the instructions, for a case that ends early.
    pub undefined_on_the_way: u32,
    /// It pushes a segment register with a 32-bit operand, of which the upper half is not defined.
    pub pushes_selector: bool,
}

/// Ready-made contents of memory.
pub struct Patterns {
    random: Box<Image>,
    few: Box<Image>,
    floats: Box<Image>,
    int3: Box<Image>,
}

/// INT3, which ends every case.
const MARKER: u8 = 0xcc;

impl Patterns {
    /// Fills them.
    pub fn new(rng: &mut Rng) -> Self {
        let blank: Box<Image> =
            vec![MARKER; size_of::<Image>()].try_into().unwrap_or_else(|_| unreachable!());
        let mut p = Self { random: blank.clone(), few: blank.clone(), floats: blank.clone(), int3: blank };
        p.random.fill_with(|| rng.u8());
        let mut byte = 0;
        p.few.fill_with(|| {
            if rng.one_in(6) {
                byte = rng.pick(&[0, 1, 0xff, 0x80]);
            }
            byte
        });
        for chunk in p.floats.chunks_exact_mut(16) {
            match rng.below(3) {
                0 => chunk
                    .copy_from_slice(&std::array::from_fn::<_, 4, _>(|_| rng.f32().to_le_bytes()).concat()),
                1 => chunk
                    .copy_from_slice(&std::array::from_fn::<_, 2, _>(|_| rng.f64().to_le_bytes()).concat()),
                _ => {
                    let (significand, exponent) = rng.f80();
                    chunk[..8].copy_from_slice(&significand.to_le_bytes());
                    chunk[8..10].copy_from_slice(&exponent.to_le_bytes());
                }
            }
        }
        for i in 0..p.int3.len() {
            if linear(i) & !(PAGE - 1) == CODE {
                (p.random[i], p.few[i], p.floats[i]) = (MARKER, MARKER, MARKER);
            }
        }
        p
    }
}

/// Fills `image` with a case's memory and gives its registers.
pub fn case(form: &Form, patterns: &Patterns, rng: &mut Rng, image: &mut Image) -> Case {
    let mut b = Builder::new(rng, image);
    b.registers();
    if !matches!(form.kind, Kind::Sequence) && b.rng.one_in(6) {
        b.segments();
    }
    match form.kind {
        Kind::Integer(row) => integer::case(&mut b, row, patterns),
        Kind::Sequence => sequence::case(&mut b, patterns),
        Kind::X87Memory(opcode, reg) => x87::memory(&mut b, opcode, reg, patterns),
        Kind::X87Register(opcode, modrm) => x87::register(&mut b, opcode, modrm, patterns),
        Kind::Simd(row) => simd::case(&mut b, row, patterns),
    }
    let base = b.code_base();
    let Builder { bytes, mut regs, undefined, undefined_on_the_way, pushes_selector, .. } = b;
    patch(image, regs.eip, &bytes);
    // What was put where other segments lead may be right behind the instruction.
    patch(image, regs.eip.wrapping_add(bytes.len() as u32), &[MARKER; 8]);
    regs.eip -= base;
    Case { bytes, regs, undefined, undefined_on_the_way, pushes_selector }
}

/// Fills `image` with a page of code that jumps about, calls, writes over itself and faults, and
/// gives the registers to start it with.
pub fn program(patterns: &Patterns, rng: &mut Rng, image: &mut Image) -> Regs {
    let mut b = Builder::new(rng, image);
    b.registers();
    sequence::program(&mut b, patterns);
    b.regs
}

/// Which addresses a case wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    /// All.
    Any,
    /// Mostly on 16-byte boundaries.
    Aligned,
    /// As `Any`, but never the code page.
    NotCode,
}

/// A case in the making.
struct Builder<'a> {
    rng: &'a mut Rng,
    image: &'a mut Image,
    regs: Regs,
    /// General registers that addressing must not change: one bit each.
    keep: u8,
    bytes: Vec<u8>,
    flavour: Flavour,
    /// As [`Case`] has them.
    undefined: u32,
    undefined_on_the_way: u32,
    pushes_selector: bool,
}

/// Prefixes of a case.
#[derive(Clone, Copy, Debug, Default)]
struct Prefixes {
    /// The operand size is 16 bits.
    op16: bool,
    /// 66h selects the instruction.
    selects: bool,
    /// The address size is 16 bits.
    addr16: bool,
    segment: Option<u8>,
    lock: bool,
    rep: Option<u8>,
}

const ESP: usize = 4;
const EBP: usize = 5;

impl<'a> Builder<'a> {
    fn new(rng: &'a mut Rng, image: &'a mut Image) -> Self {
        Self {
            rng,
            image,
            regs: Regs::default(),
            keep: 0,
            bytes: Vec::new(),
            flavour: Flavour::Any,
            undefined: 0,
            undefined_on_the_way: 0,
            pushes_selector: false,
        }
    }

    /// The next instruction uses the flags so.
    fn uses_flags(&mut self, usage: Usage) {
        self.undefined = self.undefined & !usage.defines | usage.undefines;
        self.undefined_on_the_way |= self.undefined;
    }

    /// Writes bytes to where `at` leads in each of the segments: the case may use any of them.
    fn put(&mut self, at: u32, bytes: &[u8]) {
        let bases: BTreeSet<u32> = segments::LDT.iter().map(|entry| entry.base).chain([0]).collect();
        for base in bases {
            patch(self.image, at.wrapping_add(base), bytes);
        }
    }

    /// Random registers and flags, a usable stack, the instruction's place.
    fn registers(&mut self) {
        let rng = &mut *self.rng;
        for r in &mut self.regs.gpr {
            *r = rng.word();
        }
        self.regs.eflags |= rng.u32() & (flag::ARITH | flag::DF);
        if rng.one_in(12) {
            self.regs.eflags |= flag::AC;
        }
        if rng.one_in(12) {
            self.regs.eflags |= flag::TF;
        }
        self.regs.seg[4] = if rng.one_in(6) { 0 } else { USER_DS };
        self.regs.seg[5] = if rng.one_in(6) { rng.below(4) as u16 } else { USER_DS };
        self.regs.gpr[ESP] = stack_address(rng);
        self.regs.eip = CODE + 0x400 + rng.below(0x800);
        // SSE control bits are part of every state; its exceptions stay masked here.
        self.regs.fx.mxcsr = 0x1f80 | rng.u32() & 0xe07f;
        for x in &mut self.regs.fx.xmm {
            *x = u128::from(rng.u64()) << 64 | u128::from(rng.u64());
        }
    }

    /// Segments of the local descriptor table in some of the registers.
    fn segments(&mut self) {
        let rng = &mut *self.rng;
        for r in [0, 3, 4, 5] {
            if rng.one_in(2) {
                self.regs.seg[r] = rng.pick(&segments::DATA);
            }
        }
        if rng.one_in(3) {
            self.regs.seg[2] = rng.pick(&segments::STACKS);
        }
        if rng.one_in(2) {
            self.regs.seg[1] = rng.pick(&segments::CODES);
        }
    }

    /// Where CS begins.
    fn code_base(&self) -> u32 {
        if segments::CODES.contains(&self.regs.seg[1]) { CODE } else { 0 }
    }

    /// Operand and address size are 16 bits unless a prefix says otherwise.
    fn is_code16(&self) -> bool {
        self.regs.seg[1] == segments::CODE16
    }

    fn prefixes(&mut self) -> Prefixes {
        let rng = &mut *self.rng;
        Prefixes {
            op16: rng.one_in(4),
            selects: false,
            addr16: rng.one_in(6),
            segment: if rng.one_in(6) { Some(rng.pick(&[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65])) } else { None },
            lock: false,
            rep: None,
        }
    }

    /// Puts the prefixes out in a random order.
    fn emit_prefixes(&mut self, p: Prefixes) {
        let mut bytes = Vec::new();
        bytes.extend((p.selects || p.op16 != self.is_code16()).then_some(0x66));
        bytes.extend((p.addr16 != self.is_code16()).then_some(0x67));
        bytes.extend(p.segment);
        bytes.extend(p.lock.then_some(0xf0));
        bytes.extend(p.rep);
        while !bytes.is_empty() {
            let i = self.rng.below(bytes.len() as u32) as usize;
            self.bytes.push(bytes.swap_remove(i));
        }
    }

    /// An address for a memory operand: mostly mapped, at any alignment, often at an edge.
    fn address(&mut self, addr16: bool) -> u32 {
        let rng = &mut *self.rng;
        let near = rng.below(24);
        let mut a = if addr16 {
            match rng.below(16) {
                0..=8 => LOW + rng.below(2 * PAGE - 0x200),
                9 => LOW + PAGE - near,
                10 => LOW + 2 * PAGE - near,
                11 => LOW - near,
                12 => (TOP + PAGE - near) & 0xffff,
                13 => TOP + rng.below(PAGE),
                14 => TOP - near,
                _ => rng.below(0x1_0000),
            }
        } else {
            match rng.below(16) {
                0..=6 => DATA + rng.below(2 * PAGE - 0x200),
                7 => DATA + PAGE - near,
                8 => DATA + 2 * PAGE - near,
                9 => DATA - near,
                10 => READ_ONLY - near,
                11 => READ_ONLY + rng.below(PAGE - 0x200),
                12 => EDGE + rng.below(PAGE),
                13 => STACK + rng.below(PAGE),
                14 if self.flavour != Flavour::NotCode => CODE + rng.below(0x200),
                14 => DATA + rng.below(2 * PAGE),
                _ if rng.one_in(4) => rng.word(),
                _ => READ_ONLY + PAGE - near,
            }
        };
        if self.flavour == Flavour::Aligned && !rng.one_in(8) {
            a &= !15;
        }
        // The system's own pages are no user page on either side, but not in the same way.
        if a >= 0xffb0_0000 { DATA } else { a }
    }

    /// A ModR/M byte, SIB and displacement that address `at`, with registers set to fit.
    fn memory(&mut self, reg: u8, at: u32, addr16: bool) -> Vec<u8> {
        for _ in 0..32 {
            let bytes = if addr16 { self.memory16(reg, at) } else { self.memory32(reg, at) };
            if let Some(bytes) = bytes {
                return bytes;
            }
        }
        let mut bytes = vec![reg << 3 | if addr16 { 6 } else { 5 }];
        bytes.extend_from_slice(&at.to_le_bytes()[..if addr16 { 2 } else { 4 }]);
        bytes
    }

    fn may_set(&self, r: usize) -> bool {
        self.keep >> r & 1 == 0
    }

    fn memory32(&mut self, reg: u8, at: u32) -> Option<Vec<u8>> {
        let (mode, rm) = (self.rng.below(3) as u8, self.rng.below(8) as u8);
        let mut bytes = vec![mode << 6 | reg << 3 | rm];
        let mut base = Some(rm as usize);
        let mut index = None;
        if rm == 4 {
            let sib = self.rng.u8();
            bytes.push(sib);
            base = Some(usize::from(sib & 7));
            if sib >> 3 & 7 != 4 {
                index = Some((usize::from(sib >> 3 & 7), sib >> 6));
            }
        }
        if base == Some(5) && mode == 0 {
            base = None;
        }
        let indexed = index.map_or(0, |(i, scale)| self.regs.gpr[i] << scale);
        if mode == 2 || base.is_none() {
            let sum = base.map_or(0, |b| self.regs.gpr[b]).wrapping_add(indexed);
            bytes.extend_from_slice(&at.wrapping_sub(sum).to_le_bytes());
            return Some(bytes);
        }
        let base = base?;
        if index.is_some_and(|(i, _)| i == base) || !self.may_set(base) {
            return None;
        }
        let mut disp = 0;
        if mode == 1 {
            let d = self.rng.u8();
            bytes.push(d);
            disp = d as i8 as u32;
        }
        self.regs.gpr[base] = at.wrapping_sub(disp).wrapping_sub(indexed);
        Some(bytes)
    }

    fn memory16(&mut self, reg: u8, at: u32) -> Option<Vec<u8>> {
        let (mode, rm) = (self.rng.below(3) as u8, self.rng.below(8) as u8);
        let mut bytes = vec![mode << 6 | reg << 3 | rm];
        let (base, index) = [
            (3, Some(6)),
            (3, Some(7)),
            (5, Some(6)),
            (5, Some(7)),
            (6, None),
            (7, None),
            (5, None),
            (3, None),
        ][usize::from(rm)];
        let absolute = mode == 0 && rm == 6;
        let indexed = index.map_or(0, |i: usize| self.regs.gpr[i]);
        if mode == 2 || absolute {
            let sum = if absolute { 0 } else { self.regs.gpr[base].wrapping_add(indexed) };
            bytes.extend_from_slice(&(at.wrapping_sub(sum) as u16).to_le_bytes());
            return Some(bytes);
        }
        if !self.may_set(base) {
            return None;
        }
        let mut disp = 0;
        if mode == 1 {
            let d = self.rng.u8();
            bytes.push(d);
            disp = d as i8 as u32;
        }
        let v = at.wrapping_sub(disp).wrapping_sub(indexed);
        self.regs.gpr[base] = self.regs.gpr[base] & 0xffff_0000 | v & 0xffff;
        Some(bytes)
    }

    /// Fills memory.
    fn fill(&mut self, pattern: &Image) {
        self.image.copy_from_slice(pattern);
    }

    /// Moves the instruction to a page's end now and then, so that it or what follows it is not
    /// mapped.
    fn place(&mut self) {
        if self.rng.one_in(32) {
            self.regs.eip = CODE + PAGE - 1 - self.rng.below(self.bytes.len() as u32 + 1);
        }
    }
}

/// Mostly the middle of the stack page.
fn stack_address(rng: &mut Rng) -> u32 {
    match rng.below(16) {
        0 => STACK + rng.below(40),
        1 => STACK + PAGE - rng.below(40),
        2 => STACK + rng.below(PAGE),
        3 if rng.one_in(4) => READ_ONLY + rng.below(64),
        // Not where a push or pop would wrap around 4 GiB, which processors treat differently.
        3 if rng.one_in(4) => rng.word().clamp(0x100, 0xffb0_0000),
        _ => STACK + 0x400 + rng.below(0x200) * 4,
    }
}
