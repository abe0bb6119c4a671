//! From decoded instructions to the uops of a block.

use std::cell::Cell;

use super::branch;
use super::decode::{self, DecodeError, Insn, MAX_LEN, What};
use super::float;
use super::table::Spec;
use crate::Cpu;
use crate::blocks::{filler, link_slot, mode};
use crate::cpu::SegName;
use crate::cpu::regs::{Reg, gpr};
use crate::dispatch::{self, Flow, Handler, Op, Step, Uop, form, step, uop_mark};
use crate::exception::{self, Exception};

/// Most instructions in a block.
const MAX_INSTRUCTIONS: u8 = 64;
const PAGE_SIZE: u32 = 0x1000;

/// A block's properties, its uops aside.
pub(crate) struct Built {
    /// It may go into the cache.
    pub keep: bool,
    /// Bytes of code.
    pub len: u32,
    /// RAM page of the code that is not in the first page.
    pub page2: Option<u32>,
    /// Link slots at the end.
    pub links: usize,
}

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A general register, by number.
    Reg(u8),
    Mem,
    Imm,
}

/// How arithmetic flags and registers pass through an instruction.
#[derive(Clone, Copy, Default)]
struct Effect {
    /// All six flags are overwritten, whatever happens.
    kills: bool,
    /// Some flags are read; or this is code that may look at anything.
    reads: bool,
    /// The block can be left here, by a fault or for the driver's attention.
    leaves: bool,
    /// The handler that leaves flags alone, for when nobody will look.
    without: Option<Handler>,
    /// How flags that were left alone can be had from the operands afterwards.
    recovery: Option<Recovery>,
    /// General registers written, a bit each.
    writes: u8,
}

/// Flags as a function of registers after the instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// For [`super::alu::recover`]; fits the uop's `form`, which an instruction without a memory
    /// operand does not use.
    pub code: u8,
    /// The registers that must still be as the instruction left them, a bit each.
    pub registers: u8,
}

/// Gives the handler that fuses an instruction with a branch on a condition.
pub(crate) type Fuse = fn(condition: u8) -> Handler;

/// What the last uop offers to the next to be one handler with it.
#[derive(Clone, Copy, Default)]
pub(crate) enum Prior {
    #[default]
    Nothing,
    /// It sets flags for a conditional branch; so does, with the uop before it, `loaded`.
    Compare { fuse: Fuse, loaded: Option<Fuse> },
    /// PUSH of a 32-bit register, on a flat stack.
    Push(u8),
    /// POP of a 32-bit register, from a flat stack.
    Pop(u8),
    /// MOV from flat memory without an index to a 32-bit register.
    Load(u8),
}

/// How a memory operand's address is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddrKind {
    Flat,
    Indexed,
    Segmented,
}

/// Picks the instance of a handler for the memory operand's addressing:
/// `by_addr!(kind, A => expression using A)`.
macro_rules! by_addr {
    ($kind:expr, $A:ident => $e:expr) => {
        match $kind {
            $crate::isa::lower::AddrKind::Flat => {
                type $A = $crate::isa::operand::Flat;
                $e
            }
            $crate::isa::lower::AddrKind::Indexed => {
                type $A = $crate::isa::operand::FlatIndexed;
                $e
            }
            $crate::isa::lower::AddrKind::Segmented => {
                type $A = $crate::isa::operand::Segmented;
                $e
            }
        }
    };
}
pub(crate) use by_addr;

/// Picks the instance of a handler for a number of three bits: `by_octal!(number, N => expression
/// using N)`.
macro_rules! by_octal {
    ($n:expr, $N:ident => $e:expr) => {
        $crate::isa::lower::by_octal!(@ $n, $N => $e, 0 1 2 3 4 5 6)
    };
    (@ $n:expr, $N:ident => $e:expr, $($k:literal)*) => {
        match $n & 7 {
            $($k => { const $N: u8 = $k; $e })*
            _ => { const $N: u8 = 7; $e }
        }
    };
}
pub(crate) use by_octal;

/// Picks the instance of a handler for a general register of 32 bits:
/// `by_reg!(number, R => expression using R)`.
#[cfg(not(target_family = "wasm"))]
macro_rules! by_reg {
    ($n:expr, $R:ident => $e:expr) => {
        $crate::isa::lower::by_octal!($n, NUMBER => { type $R = $crate::isa::operand::R<NUMBER>; $e })
    };
}
/// On WebAssembly one for all of them: see [`crate::isa::hot`].
#[cfg(target_family = "wasm")]
macro_rules! by_reg {
    ($n:expr, $R:ident => $e:expr) => {{
        type $R = $crate::isa::operand::R<{ $crate::isa::operand::ANY }>;
        let _ = $n;
        $e
    }};
}
pub(crate) use by_reg;

/// As [`by_addr`], with an instance for each base register:
/// `by_base!(kind, base, A => expression using A)`.
#[cfg(not(target_family = "wasm"))]
macro_rules! by_base {
    ($kind:expr, $base:expr, $A:ident => $e:expr) => {
        $crate::isa::lower::by_base!(@ $kind, $base, $A => $e, 0 1 2 3 4 5 6 7)
    };
    (@ $kind:expr, $base:expr, $A:ident => $e:expr, $($k:literal)*) => {
        match ($kind, $base) {
            $(($crate::isa::lower::AddrKind::Flat, Some($k)) => {
                type $A = $crate::isa::operand::Based<$k>;
                $e
            })*
            $(($crate::isa::lower::AddrKind::Indexed, Some($k)) => {
                type $A = $crate::isa::operand::BasedIndexed<$k>;
                $e
            })*
            (kind, _) => $crate::isa::lower::by_addr!(kind, $A => $e),
        }
    };
}
/// On WebAssembly one for all of them.
#[cfg(target_family = "wasm")]
macro_rules! by_base {
    ($kind:expr, $base:expr, $A:ident => $e:expr) => {{
        let _: Option<u8> = $base;
        $crate::isa::lower::by_addr!($kind, $A => $e)
    }};
}
pub(crate) use by_base;

/// A block under construction.
pub(crate) struct Builder<'a> {
    uops: &'a mut Vec<Uop>,
    effects: Vec<Effect>,
    /// See [`mode`].
    mode: u32,
    /// Number of the current instruction.
    n: u8,
    /// Offsets of the current instruction and of the next from the block's start.
    start: u32,
    next: u32,
    /// Offset of the block's start in its page.
    page_offset: u32,
    links: usize,
    done: bool,
    prior: Prior,
    /// The block is for one execution, outside the cache.
    alone: bool,
}

impl Insn {
    fn spec(&self, i: usize) -> Option<Spec> {
        match self.what {
            What::Row(row) => row.operands.get(i).copied(),
            What::Simd(_) => None,
        }
    }

    /// Where operand `i` is.
    pub(crate) fn place(&self, i: usize) -> Place {
        use Spec::*;
        match self.spec(i) {
            Some(Eb | Ew | Ev | Ed | M | Mp | Rd) if self.mem.is_none() => Place::Reg(self.rm()),
            Some(Eb | Ew | Ev | Ed | M | Mp | Ob | Ov) => Place::Mem,
            Some(Gb | Gw | Gv | Gd | Cd | Dd | Sw) => Place::Reg(self.reg()),
            Some(Zb | Zv) => Place::Reg(self.opcode & 7),
            Some(Al | Ax) => Place::Reg(gpr::EAX),
            Some(Cl) => Place::Reg(gpr::ECX),
            Some(Dx) => Place::Reg(gpr::EDX),
            _ => Place::Imm,
        }
    }

    /// Bytes of operand `i`.
    pub(crate) fn width(&self, i: usize) -> u32 {
        use Spec::*;
        match self.spec(i) {
            Some(Eb | Gb | Zb | Al | Cl | Ib | Ob) => 1,
            Some(Ew | Gw | Iw | Sw | Dx) => 2,
            Some(Ed | Gd | Rd | Cd | Dd) => 4,
            _ if self.op16 => 2,
            _ => 4,
        }
    }

    /// The condition of Jcc, SETcc, CMOVcc.
    pub(crate) fn condition(&self) -> u8 {
        self.opcode & 15
    }
}

impl Builder<'_> {
    /// Emits the uop of an instruction: operand 0 is `dst`, operand 1 is `src`.
    pub fn emit(&mut self, i: &Insn, run: Handler) -> &mut Uop {
        let mut u = self.uop(i, run);
        if let Place::Reg(n) = i.place(0) {
            u.dst = Reg::of_size(n, i.width(0));
        }
        if let Place::Reg(n) = i.place(1) {
            u.src = Reg::of_size(n, i.width(1));
        }
        self.push(u);
        if let Place::Reg(n) = i.place(0) {
            let n = if i.width(0) == 1 { n & 3 } else { n };
            self.writes(n);
        }
        self.last()
    }

    /// Emits the uop of an instruction whose r/m operand is to be `dst` and whose reg operand
    /// `src`, in whatever order it has them.
    pub fn emit_rm(&mut self, i: &Insn, run: Handler) -> &mut Uop {
        let mut u = self.uop(i, run);
        for (n, spec) in (0..).zip([i.spec(0), i.spec(1)]) {
            use Spec::*;
            match (spec, i.place(n)) {
                (Some(Eb | Ew | Ev | Ed | Rd), Place::Reg(r)) => u.dst = Reg::of_size(r, i.width(n)),
                (Some(Gb | Gw | Gv | Gd), Place::Reg(r)) => u.src = Reg::of_size(r, i.width(n)),
                _ => {}
            }
        }
        self.push(u)
    }

    /// Emits an instruction written as a plain function, r/m as `dst` and reg as `src`.
    pub fn call<F>(&mut self, i: &Insn, f: F) -> &mut Uop
    where
        F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
    {
        self.emit_rm(i, dispatch::handler_of(f));
        self.opaque();
        self.last()
    }

    /// As `call`, for one that sets EIP and ends the block.
    pub fn call_last<F>(&mut self, i: &Insn, f: F) -> &mut Uop
    where
        F: Fn(&mut Cpu, &Uop) -> exception::Result<()> + Copy,
    {
        self.emit_rm(i, dispatch::last_handler_of(f));
        self.opaque();
        let at = self.uops.len() - 1;
        self.push(Uop { eip: self.next as u16, ..filler() });
        self.done = true;
        &mut self.uops[at]
    }

    fn uop(&self, i: &Insn, run: Handler) -> Uop {
        let mut u = Uop { run: run.into(), imm: i.imm, n: self.n, eip: self.start as u16, ..filler() };
        if i.op16 {
            u.form |= form::OP16;
        }
        if i.addr16 {
            u.form |= form::ADDR16;
        }
        if let Some(m) = i.mem {
            u.disp = m.disp;
            u.base = m.base.map_or(Reg::ZERO, Reg::dword);
            u.index = m.index.map_or(Reg::ZERO, Reg::dword);
            u.form |= form::MEM | m.segment as u8 | m.scale << 3;
        } else {
            u.form |= i.segment.unwrap_or(SegName::DS) as u8;
        }
        u
    }

    fn push(&mut self, u: Uop) -> &mut Uop {
        self.prior = Prior::Nothing;
        self.uops.push(u);
        self.effects.push(Effect::default());
        self.last()
    }

    /// The uop emitted last.
    pub fn last(&mut self) -> &mut Uop {
        let at = self.uops.len() - 1;
        &mut self.uops[at]
    }

    fn effect(&mut self) -> &mut Effect {
        let at = self.effects.len() - 1;
        &mut self.effects[at]
    }

    /// The last uop may look at and change anything.
    pub fn opaque(&mut self) {
        let e = self.effect();
        (e.reads, e.leaves, e.writes) = (true, true, 0xff);
    }

    /// The last uop can leave the block: it reaches memory.
    pub fn leaves(&mut self) {
        self.effect().leaves = true;
    }

    /// The last uop reads arithmetic flags.
    pub fn reads_flags(&mut self) {
        self.effect().reads = true;
    }

    /// The last uop overwrites all arithmetic flags (or some, or perhaps none, if not `all`); the
    /// given handler does the same without.
    pub fn writes_flags(&mut self, all: bool, without: Option<Handler>) {
        let f = self.effect();
        f.kills = all;
        f.without = without;
    }

    /// The last uop's flags can be found again from registers.
    pub fn recoverable(&mut self, recovery: Option<Recovery>) {
        self.effect().recovery = recovery;
    }

    /// The last uop writes a general register that is not its first operand.
    pub fn writes(&mut self, n: u8) {
        self.effect().writes |= 1 << n;
    }

    /// What the last uop offered.
    pub fn prior(&self) -> Prior {
        self.prior
    }

    /// What the last uop offers the next.
    pub fn offer(&mut self, prior: Prior) {
        self.prior = prior;
    }

    /// The last uop can be fused with a conditional branch, if one comes next.
    pub fn fusable(&mut self, fuse: Option<Fuse>) {
        if let Some(fuse) = fuse {
            self.prior = Prior::Compare { fuse, loaded: None };
        }
    }

    /// Runs the last uop, and the one about to be emitted, by one handler.
    pub fn pair(&mut self, run: Handler) {
        self.last().run = run.into();
    }

    /// Emits a conditional branch, fused with the uop before it if that can be.
    pub fn emit_branch(&mut self, i: &Insn, run: Handler) -> &mut Uop {
        let prior = self.prior;
        let at = self.uops.len();
        self.emit(i, run);
        if let Prior::Compare { fuse, loaded } = prior {
            self.uops[at - 1].run = fuse(i.condition()).into();
            if let Some(loaded) = loaded {
                self.uops[at - 2].run = loaded(i.condition()).into();
            }
        }
        self.last()
    }

    /// Whether branch targets need neither limit check nor wrapping, so that they can be linked.
    pub fn links_allowed(&self, i: &Insn) -> bool {
        self.mode & mode::FLAT_CODE != 0 && !i.op16
    }

    /// PUSH and POP at ESP in a flat stack segment.
    pub fn flat_stack(&self) -> bool {
        self.mode & (mode::FLAT_DATA | mode::STACK32) == mode::FLAT_DATA | mode::STACK32
    }

    pub fn addr_kind(&self, i: &Insn) -> AddrKind {
        match i.mem {
            Some(m)
                if self.mode & mode::FLAT_DATA != 0
                    && !i.addr16
                    && matches!(m.segment, SegName::DS | SegName::ES | SegName::SS) =>
            {
                if m.index.is_none() {
                    AddrKind::Flat
                } else {
                    AddrKind::Indexed
                }
            }
            _ => AddrKind::Segmented,
        }
    }

    /// Distance from the block's start to the next instruction.
    pub fn next_distance(&self) -> u32 {
        self.next
    }

    /// Adds a link slot for a target at a distance from the block's start, and ends the block.
    pub fn link(&mut self, distance: u32) {
        let near = self.page_offset.wrapping_add(distance) < PAGE_SIZE;
        self.slot(!near);
    }

    /// Adds a link slot for where a call returns to. Whatever happens in between, it must be checked.
    pub fn link_return(&mut self) {
        self.slot(true);
    }

    fn slot(&mut self, far: bool) {
        self.push(link_slot(far));
        self.links += 1;
        self.done = true;
    }

    /// The block stays in the cache, so that pointers into it can be kept.
    pub fn kept(&self) -> bool {
        !self.alone
    }

    /// Ends the block after an instruction that finds its target itself.
    pub fn end(&mut self) {
        self.push(Uop { eip: self.next as u16, ..filler() });
        self.done = true;
    }

    /// Emits a uop that raises an exception at the current instruction.
    fn raise(&mut self, e: Exception) {
        let run = match e {
            Exception::INVALID_OPCODE => dispatch::last_handler_of(branch::raise_ud),
            _ => dispatch::last_handler_of(branch::raise_gp),
        };
        let u = Uop { run: run.into(), n: self.n, eip: self.start as u16, ..filler() };
        self.push(u);
        self.opaque();
        self.end();
    }

    fn lower(&mut self, i: &Insn) {
        match i.what {
            What::Row(row) => (row.lower)(self, i),
            What::Simd(row) => float::simd(self, i, row),
        }
    }

    /// Replaces handlers by those that leave flags alone where nobody will look at them.
    ///
    /// Where the block may be left between an instruction and the next that overwrites its flags,
    /// they are left alone only if they can be found again from registers that nothing in between
    /// has written; the uop is then marked, for [`Cpu::recover_flags`].
    fn drop_dead_flags(&mut self) {
        // Going backwards: whether flags written here are read; whether the block can be left
        // before they are overwritten; registers written until the last point where it can.
        let (mut live, mut left, mut written) = (true, false, 0);
        for (u, e) in self.uops.iter_mut().zip(&self.effects).rev() {
            if e.kills {
                u.n |= uop_mark::SETS_FLAGS;
                match (live, left, e.without, e.recovery) {
                    (false, false, Some(without), _) => u.run = without.into(),
                    (false, true, Some(without), Some(r)) if r.registers & written == 0 => {
                        u.run = without.into();
                        u.form = r.code;
                        u.n = (u.n & !uop_mark::SETS_FLAGS) | uop_mark::OWES_FLAGS;
                    }
                    _ => {}
                }
                (live, left, written) = (e.reads, e.leaves, 0);
                continue;
            }
            match e.without {
                // Without reading flags either, it is as if it was not there.
                Some(without) if !live && !left && !e.leaves => u.run = without.into(),
                // It changes some and keeps others, which must be right for that.
                Some(_) => live = true,
                None => {}
            }
            live |= e.reads;
            left |= e.leaves;
            if left {
                written |= e.writes;
            }
        }
    }
}

/// Execution runs on into the next block.
pub(super) struct FallThrough;

impl Op for FallThrough {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        cpu.eip = cpu.eip.wrapping_add(u.imm);
        Ok(Flow::Link(1))
    }
}

/// The code to decode, as far as it is in reach.
struct Code {
    bytes: [u8; PAGE_SIZE as usize + MAX_LEN],
    len: usize,
}

/// Builds the block at EIP into `uops`: one instruction if `alone`.
pub(crate) fn build(cpu: &mut Cpu, uops: &mut Vec<Uop>, alone: bool) -> exception::Result<Built> {
    let linear = cpu.linear_eip();
    let page_offset = linear & (PAGE_SIZE - 1);
    let first = cpu.fetch_page(linear)?;
    let mut code = Code { bytes: [0; _], len: 0 };
    let want = if alone { MAX_LEN } else { PAGE_SIZE as usize };
    append(cpu, &mut code, first, page_offset, want.min((PAGE_SIZE - page_offset) as usize));
    let mut keep = first.is_ok() && !alone;
    let mut page2 = None;

    uops.clear();
    let limited = !alone && cpu.mode & mode::FLAT_CODE == 0;
    let mut b = Builder {
        uops,
        effects: Vec::new(),
        mode: cpu.mode,
        n: 0,
        start: 0,
        next: 0,
        page_offset,
        links: 0,
        done: false,
        prior: Prior::Nothing,
        alone,
    };
    if limited {
        b.push(Uop { run: Cell::new(dispatch::guard_limit), ..filler() });
    }
    let room = cpu.code_end() - u64::from(cpu.eip);
    let mut count = 0;
    let mut looked_at = 0;
    while !b.done && count < MAX_INSTRUCTIONS && b.page_offset + b.start < PAGE_SIZE {
        let at = b.start as usize;
        // What lies beyond the segment's limit is not even looked at.
        let end = room.min(code.len as u64) as usize;
        let mut decoded = decode::decode(&code.bytes[at..end], b.mode & mode::CODE32 != 0);
        if decoded.as_ref().err() == Some(&DecodeError::Short) {
            if at != 0 {
                break;
            }
            if end < code.len || room == code.len as u64 {
                return Err(Exception::GP0);
            }
            // The first instruction runs into the next page and becomes a block of its own.
            let boundary = PAGE_SIZE - page_offset;
            let second = cpu.fetch_page(linear.wrapping_add(boundary))?;
            append(cpu, &mut code, second, 0, MAX_LEN);
            let end = room.min(code.len as u64) as usize;
            decoded = decode::decode(&code.bytes[..end], b.mode & mode::CODE32 != 0);
            match second {
                Ok(page) => {
                    page2 = Some(page >> 12);
                    if !alone {
                        let disp = page >> 12;
                        b.push(Uop { run: Cell::new(dispatch::guard_page), imm: boundary, disp, ..filler() });
                    }
                }
                Err(_) => keep = false,
            }
        }
        let len = decoded.as_ref().map_or(1, |i| i.len.into());
        if u64::from(b.start) + u64::from(len) > room {
            if at == 0 {
                return Err(Exception::GP0);
            }
            break;
        }
        b.next = b.start + len;
        if decoded.is_err() {
            // Any byte that was looked at could make an instruction of it.
            let end = if page2.is_some() { MAX_LEN as u32 } else { PAGE_SIZE - page_offset };
            looked_at = (b.start + MAX_LEN as u32).min(end);
        }
        match &decoded {
            Ok(i) => b.lower(i),
            Err(DecodeError::Long | DecodeError::Short) => b.raise(Exception::GP0),
            Err(DecodeError::Invalid) => b.raise(Exception::INVALID_OPCODE),
        }
        count += 1;
        (b.n, b.start) = (count, b.next);
        if alone || page2.is_some() {
            break;
        }
    }
    if !b.done {
        let len = b.next;
        let end =
            Uop { run: Cell::new(step::<FallThrough>), imm: len, n: count - 1, eip: len as u16, ..filler() };
        b.push(end);
        b.link(len);
    }
    b.drop_dead_flags();
    let (len, links) = (b.next, b.links);
    if limited {
        b.uops[0].imm = len;
    }
    Ok(Built { keep, len: len.max(looked_at), page2, links })
}

/// Appends up to `count` bytes of a page (memory by offset, or a device's address) from `offset` on.
fn append(cpu: &mut Cpu, code: &mut Code, page: Result<u32, u32>, offset: u32, count: usize) {
    let count = count.min(code.bytes.len() - code.len);
    let out = &mut code.bytes[code.len..code.len + count];
    match page {
        Ok(page) => {
            out.copy_from_slice(cpu.mem.bytes_at((page + offset) as usize, count));
        }
        Err(page) => {
            for (i, b) in out.iter_mut().enumerate().take(MAX_LEN) {
                let addr = page + offset + i as u32;
                *b = cpu.with_bus(|bus, mem| bus.mmio_read(mem, addr, crate::Width::Byte)) as u8;
            }
        }
    }
    code.len += count;
}
