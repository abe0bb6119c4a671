//! Fetches and decodes the code of a block.

use std::cell::Cell;

use super::flags::Effect;
use super::{Builder, Callee, End, MAX_EXITS, PAGE_SIZE, Prior};
use crate::Cpu;
use crate::blocks::filler;
use crate::cpu::mode;
use crate::cpu::regs::{Reg, gpr};
use crate::dispatch::{self, Flow, Op, Run, Step, Uop, step, step_far, uop_mark};
use crate::exception::{self, Exception};
use crate::isa::branch::{LINKAGE_ENTRY, linkage_entry, pc_thunk};
use crate::isa::decode::{self, DecodeError, Insn, MAX_LEN};

/// Most instructions in a block: what uops have room for.
const MAX_INSTRUCTIONS: u8 = uop_mark::COUNT;

// A block's link slots fit the bits that they have: each conditional branch has one, the end has two, and two
// uops may stand before the first instruction's.
const _: () = assert!(2 + MAX_INSTRUCTIONS as u32 + MAX_EXITS as u32 + 3 <= u128::BITS);

/// Most bytes of code that are fetched at once; a block ends where they do. Few blocks are as long as that,
/// and to copy more would cost more than to decode them.
const MOST_CODE: usize = 512;

/// A block's properties, its uops aside.
pub(crate) struct Built {
    /// It may go into the cache.
    pub keep: bool,
    /// Bytes of code.
    pub len: u32,
    /// RAM page of the code that is not in the first page.
    pub page2: Option<u32>,
    /// Which uops are link slots, a bit each.
    pub links: u128,
}

impl Builder<'_> {
    /// Emits a uop that raises an exception at the current instruction.
    fn raise(&mut self, e: Exception) {
        let run = match e {
            Exception::INVALID_OPCODE => dispatch::last_handler_of::<_, false>(raise_ud),
            _ => dispatch::last_handler_of::<_, false>(raise_gp),
        };
        let u = Uop { run: Cell::new(Run::new(run)), n: self.n + 1, at: self.extent(), ..filler() };
        self.push(u);
        self.opaque();
        self.end();
    }
}

/// #UD, for what is no instruction, and for UD2.
pub(in crate::isa) fn raise_ud(_: &mut Cpu, _: &Uop) -> exception::Result<()> {
    Err(Exception::INVALID_OPCODE)
}

/// #GP, for an instruction that is too long.
fn raise_gp(_: &mut Cpu, _: &Uop) -> exception::Result<()> {
    Err(Exception::GP0)
}

/// Execution runs on into the next block.
pub(crate) struct FallThrough;

impl Op for FallThrough {
    #[inline(always)]
    fn exec<const SLOW: bool>(cpu: &mut Cpu, u: &Uop) -> Step {
        cpu.eip = cpu.eip.wrapping_add(u.imm);
        Ok(Flow::Link(1))
    }
}

/// Where blocks are built. It is kept from one to the next for its memory alone.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The block.
    pub uops: Vec<Uop>,
    effects: Vec<Effect>,
    /// The code to decode, as far as it is in reach.
    code: Vec<u8>,
}

/// Builds the block at EIP: one instruction if `alone`.
pub(crate) fn build(cpu: &mut Cpu, scratch: &mut Scratch, alone: bool) -> exception::Result<Built> {
    let Scratch { uops, effects, code } = scratch;
    uops.clear();
    effects.clear();
    code.clear();
    let linear = cpu.linear_eip();
    let page_offset = linear & (PAGE_SIZE - 1);
    let first = cpu.fetch_page(linear)?;
    let want = if alone { MAX_LEN } else { MOST_CODE };
    append(cpu, code, first, page_offset, want.min((PAGE_SIZE - page_offset) as usize));
    let mut keep = first.is_ok() && !alone;
    let mut page2 = None;

    let limited = !alone && cpu.mode & mode::FLAT_CODE == 0;
    let mut b = Builder {
        uops,
        effects,
        mode: cpu.mode,
        n: 0,
        start: 0,
        next: 0,
        len: 0,
        repeats: false,
        page_offset,
        reach: code.len() as u32,
        links: 0,
        exits: 0,
        done: false,
        left_open: false,
        prior: Prior::Nothing,
        callee: None,
        others: 0,
        alone,
    };
    if limited {
        b.push(Uop { run: Cell::new(Run::new(dispatch::guard_limit)), ..filler() });
    }
    if !alone && cpu.debugger.ends_block(linear) {
        b.push(Uop { run: Cell::new(Run::new(dispatch::guard_breakpoint)), ..filler() });
    }
    let mut first = b.uops.len();
    let room = cpu.code_end() - u64::from(cpu.eip);
    let mut count = 0;
    let mut looked_at = 0;
    while !b.done && !b.left_open && count < MAX_INSTRUCTIONS && b.page_offset + b.start < PAGE_SIZE {
        let at = b.start as usize;
        if count > 0 && cpu.debugger.ends_block(linear.wrapping_add(b.start)) {
            break;
        }
        // What lies beyond the segment's limit is not even looked at.
        let end = room.min(code.len() as u64) as usize;
        let mut decoded = decode::decode(&code[at..end], b.mode & mode::CODE32 != 0);
        if decoded.as_ref().err() == Some(&DecodeError::Short) {
            if at != 0 {
                break;
            }
            if end < code.len() || room == code.len() as u64 {
                return Err(Exception::GP0);
            }
            // The first instruction runs into the next page and becomes a block of its own.
            let boundary = PAGE_SIZE - page_offset;
            let second = cpu.fetch_page(linear.wrapping_add(boundary))?;
            append(cpu, code, second, 0, MAX_LEN);
            let end = room.min(code.len() as u64) as usize;
            decoded = decode::decode(&code[..end], b.mode & mode::CODE32 != 0);
            match second {
                Ok(page) => {
                    page2 = Some(page >> 12);
                    if !alone {
                        let disp = page >> 12;
                        b.push(Uop {
                            run: Cell::new(Run::new(dispatch::guard_page)),
                            imm: boundary,
                            disp,
                            ..filler()
                        });
                        first = b.uops.len();
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
        b.len = b.len.max(b.next);
        if decoded.is_err() {
            // Any byte that was looked at could make an instruction of it.
            let end = if page2.is_some() { MAX_LEN as u32 } else { PAGE_SIZE - page_offset };
            looked_at = (b.start + MAX_LEN as u32).min(end);
        }
        let target = linear.wrapping_add(b.next);
        match &decoded {
            Ok(i) => {
                if !alone && count + 3 < MAX_INSTRUCTIONS {
                    b.callee = callee(cpu, i, target);
                }
                i.lower(&mut b);
            }
            Err(DecodeError::Long | DecodeError::Short) => b.raise(Exception::GP0),
            Err(DecodeError::Invalid) => b.raise(Exception::INVALID_OPCODE),
        }
        count += 1 + std::mem::take(&mut b.others);
        (b.n, b.start) = (count, b.next);
        if alone || page2.is_some() {
            break;
        }
    }
    if !b.done {
        let next = b.next;
        let far = b.is_far(next);
        let run = if far { step_far::<FallThrough> } else { step::<FallThrough> };
        let end = Uop { run: Cell::new(Run::new(run)), imm: next, n: count, at: b.extent(), ..filler() };
        b.push(end);
        b.ends(End::FallThrough { far });
        b.link(next);
    }
    b.uops[first].at.set_first();
    b.drop_dead_flags();
    if !alone && !cfg!(target_family = "wasm") {
        b.join();
    }
    let (len, links) = (b.len, b.links);
    if limited {
        b.uops[0].imm = len;
    }
    Ok(Built { keep, len: len.max(looked_at), page2, links })
}

/// What this instruction, with `next` behind it, calls, if it is a CALL of what is executed with it.
fn callee(cpu: &Cpu, i: &Insn, next: u32) -> Option<Callee> {
    if !i.is_near_call() {
        return None;
    }
    let target = next.wrapping_add(i.imm);
    let mut code = [0; LINKAGE_ENTRY];
    cpu.peek(target, &mut code).ok()?;
    if (0..LINKAGE_ENTRY as u32).any(|n| cpu.debugger.ends_block(target.wrapping_add(n))) {
        return None;
    }
    let [head @ .., _, _] = code;
    let n = code[1] >> 3 & 7;
    if head == pc_thunk(n) && n != gpr::ESP {
        return Some(Callee::PcThunk(n));
    }
    let [_, _, disp @ ..] = code;
    let disp = u32::from_le_bytes(disp);
    let entry = |base: &Reg| linkage_entry(*base, disp).to_le_bytes()[..LINKAGE_ENTRY] == code;
    let base = [Reg::dword(gpr::EBX), Reg::ZERO].into_iter().find(entry)?;
    Some(Callee::LinkageEntry { base, disp })
}

/// Appends up to `count` bytes of a page (memory by offset, or a device's address) from `offset` on.
fn append(cpu: &mut Cpu, code: &mut Vec<u8>, page: Result<u32, u32>, offset: u32, count: usize) {
    match page {
        Ok(page) => code.extend_from_slice(cpu.mem.bytes_at((page + offset) as usize, count)),
        Err(page) => {
            for i in 0..count.min(MAX_LEN) as u32 {
                let addr = page + offset + i;
                code.push(cpu.with_bus(|bus, mem| bus.mmio_read(mem, addr, crate::Width::Byte)) as u8);
            }
        }
    }
}
