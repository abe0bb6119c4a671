//! Runs cases in the emulated processor.
//!
//! The guest is a 32-bit protected-mode system with paging that gives user code what Linux gives
//! it: the same selectors, the same mapped pages. Each of its interrupt handlers is one HLT, so that
//! EIP tells the vector and the stack tells the rest.

use std::collections::VecDeque;

use env86_emu::memory::Memory;
use env86_emu::state::{FpuState, TableRegister};
use env86_emu::{ArchState, Cpu, CpuConfig, Exit, Segment, Unconnected};

use crate::layout::{BYTES, Image, PAGE, REGIONS};
use crate::segments;
use crate::state::{End, Fx, Outcome, Regs, USER_CS, USER_DS};

/// The system's pages, which user code cannot see: linear and physical.
pub const SYSTEM: u32 = 0xffc0_0000;
/// The end of them.
pub const SYSTEM_END: u32 = SYSTEM + SYSTEM_PAGES * PAGE;
const SYSTEM_PHYSICAL: u32 = 0x1_0000;
const SYSTEM_PAGES: u32 = 4;
// Within the system's pages.
const GDT: u32 = 0;
const TSS: u32 = 0x200;
const LDT: u32 = 0x300;
const HANDLERS: u32 = 0x400;
const IDT: u32 = 0x1000;
const STACK_TOP: u32 = 0x4000;
/// The cases' regions, one after the other.
const IMAGE_PHYSICAL: u32 = 0x4_0000;
const PAGE_DIRECTORY: u32 = 0x1000;
const FIRST_PAGE_TABLE: u32 = 0x2000;

const SYSTEM_CS: u16 = 0x08;
const SYSTEM_SS: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x40;
const LDT_SELECTOR: u16 = 0x50;
const GDT_LIMIT: u16 = 0x7f;
/// As Linux has it, where a 32-bit system can: its 64-bit code segments are here 16-bit ones.
const DESCRIPTORS: [(u32, u64); 6] = [
    (0x08, 0x00cf_9b00_0000_ffff),
    (0x10, 0x00af_9b00_0000_ffff),
    (0x18, 0x00cf_9300_0000_ffff),
    (0x20, 0x00cf_fb00_0000_ffff),
    (0x28, 0x00cf_f300_0000_ffff),
    (0x30, 0x00af_fb00_0000_ffff),
];
const PRESENT: u32 = 1;
const WRITABLE: u32 = 2;
const USER: u32 = 4;
const CR0: u32 = 0x8005_0033;
/// OSFXSR and OSXMMEXCPT.
const CR4: u32 = 0x600;
/// Instructions of a path that are kept.
const PATH: usize = 24;
const BUDGET: u64 = 1_000_000;

/// The emulated processor.
pub struct Guest {
    cpu: Cpu,
    base: ArchState,
    /// Instructions until a case counts as hanging.
    pub budget: u64,
    /// Where [`Guest::run_uncached`] came along last.
    pub path: VecDeque<u32>,
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

impl Guest {
    /// Builds the system.
    pub fn new() -> Self {
        let mut mem = Memory::new(1 << 20).unwrap_or_else(|e| unreachable!("{e}"));
        page_tables(&mut mem);
        for (selector, descriptor) in DESCRIPTORS {
            mem.write_u64(SYSTEM_PHYSICAL + GDT + selector, descriptor);
        }
        for (i, entry) in (0..).zip(segments::LDT) {
            mem.write_u64(SYSTEM_PHYSICAL + LDT + 8 * i, entry.descriptor());
        }
        let tss = u64::from(SYSTEM + TSS);
        let busy_tss = 103 | (tss & 0xff_ffff) << 16 | 0x8b << 40 | (tss >> 24) << 56;
        mem.write_u64(SYSTEM_PHYSICAL + GDT + u32::from(TSS_SELECTOR), busy_tss);
        mem.write_u32(SYSTEM_PHYSICAL + TSS + 4, SYSTEM + STACK_TOP);
        mem.write_u32(SYSTEM_PHYSICAL + TSS + 8, SYSTEM_SS.into());
        mem.write_u16(SYSTEM_PHYSICAL + TSS + 102, 104);
        for vector in 0..256 {
            let handler = SYSTEM + HANDLERS + vector;
            mem.write_u8(SYSTEM_PHYSICAL + HANDLERS + vector, 0xf4);
            // INT3 and INTO are for everybody.
            let access = if matches!(vector, 3 | 4) { 0xee } else { 0x8e };
            let gate = SYSTEM_PHYSICAL + IDT + vector * 8;
            mem.write_u32(gate, u32::from(SYSTEM_CS) << 16 | handler & 0xffff);
            mem.write_u32(gate + 4, handler & 0xffff_0000 | access << 8);
        }
        let base = ArchState {
            tr: Segment {
                selector: TSS_SELECTOR,
                base: SYSTEM + TSS,
                limit: 103,
                access: 0x8b,
                big: false,
                null: false,
            },
            ldtr: Segment {
                selector: LDT_SELECTOR,
                base: SYSTEM + LDT,
                limit: size_of::<[u64; segments::LDT.len()]>() as u32 - 1,
                access: 0x82,
                big: false,
                null: false,
            },
            gdtr: TableRegister { base: SYSTEM + GDT, limit: GDT_LIMIT },
            idtr: TableRegister { base: SYSTEM + IDT, limit: 0x7ff },
            cr0: CR0,
            cr3: PAGE_DIRECTORY,
            cr4: CR4,
            cpl: 3,
            ..ArchState::default()
        };
        Self { cpu: Cpu::new(mem, CpuConfig::default()), base, budget: BUDGET, path: VecDeque::new() }
    }

    /// Runs from `regs` until an exception. `image` is the memory before, and then after.
    pub fn run(&mut self, regs: &Regs, image: &mut Image) -> Outcome {
        self.start(regs, image);
        let mut bus = Unconnected;
        let exit = self.cpu.run(&mut bus, self.budget);
        self.finish(exit, image)
    }

    /// As [`Guest::run`], but each instruction is decoded on its own and nothing decoded or
    /// translated is ever used twice.
    pub fn run_uncached(&mut self, regs: &Regs, image: &mut Image) -> Outcome {
        self.start(regs, image);
        let mut bus = Unconnected;
        let mut exit = Exit::Budget;
        self.path.clear();
        for _ in 0..BUDGET {
            if self.path.len() == PATH {
                self.path.pop_front();
            }
            self.path.push_back(self.cpu.state().eip);
            // In an interrupt shadow the processor runs one instruction by itself.
            let state = ArchState { interrupt_shadow: true, ..self.cpu.state() };
            self.cpu.set_state(&state);
            exit = self.cpu.run(&mut bus, 1);
            if exit != Exit::Budget {
                break;
            }
        }
        self.finish(exit, image)
    }

    fn start(&mut self, regs: &Regs, image: &Image) {
        self.cpu.mem_mut().write(IMAGE_PHYSICAL, image);
        let mut state = self.base.clone();
        state.gpr = regs.gpr;
        state.eip = regs.eip;
        state.eflags = regs.eflags;
        for (s, &selector) in state.seg.iter_mut().zip(&regs.seg) {
            *s = match selector {
                USER_CS => Segment::flat(selector, 0xfb),
                USER_DS => Segment::flat(selector, 0xf3),
                _ if selector & 4 != 0 => segments::LDT[usize::from(selector >> 3)].segment(selector),
                _ => Segment { selector: 0, base: 0, limit: 0, access: 0, big: false, null: true },
            };
        }
        state.fpu = fpu(&regs.fx);
        state.xmm = regs.fx.xmm;
        state.mxcsr = regs.fx.mxcsr;
        self.cpu.set_state(&state);
    }

    fn finish(&mut self, exit: Exit, image: &mut Image) -> Outcome {
        self.cpu.mem().read(IMAGE_PHYSICAL, image);
        let s = self.cpu.state();
        let mut regs =
            Regs { gpr: s.gpr, eip: s.eip, eflags: s.eflags, seg: s.seg.map(|s| s.selector), fx: fx(&s.fpu) };
        regs.fx.mxcsr = s.mxcsr;
        regs.fx.xmm = s.xmm;
        let end = match exit {
            Exit::Halted if s.eip.wrapping_sub(SYSTEM + HANDLERS + 1) < 256 => {
                let vector = s.eip - (SYSTEM + HANDLERS + 1);
                let mut at = s.gpr[4].wrapping_sub(SYSTEM).wrapping_add(SYSTEM_PHYSICAL);
                let mut pop = || {
                    let v = self.cpu.mem().read_u32(at);
                    at = at.wrapping_add(4);
                    v
                };
                let error = if matches!(vector, 8 | 10..=14 | 17) { pop() } else { 0 };
                regs.eip = pop();
                regs.seg[1] = pop() as u16;
                regs.eflags = pop();
                regs.gpr[4] = pop();
                regs.seg[2] = pop() as u16;
                End::Vector(vector as u8, error, if vector == 14 { s.cr2 } else { 0 })
            }
            Exit::Shutdown => End::Shutdown,
            _ => End::Hang,
        };
        Outcome { regs, end }
    }
}

fn page_tables(mem: &mut Memory) {
    let mut next_table = FIRST_PAGE_TABLE;
    let mut map = |linear: u32, physical: u32, flags: u32| {
        let entry = PAGE_DIRECTORY + (linear >> 22) * 4;
        if mem.read_u32(entry) == 0 {
            mem.write_u32(entry, next_table | PRESENT | WRITABLE | USER);
            next_table += PAGE;
        }
        let table = mem.read_u32(entry) & !0xfff;
        mem.write_u32(table + (linear >> 12 & 0x3ff) * 4, physical | flags);
    };
    let mut physical = IMAGE_PHYSICAL;
    for r in REGIONS {
        for page in 0..r.pages {
            let write = if r.writable { WRITABLE } else { 0 };
            map(r.linear + page * PAGE, physical, PRESENT | USER | write);
            physical += PAGE;
        }
    }
    for page in 0..SYSTEM_PAGES {
        map(SYSTEM + page * PAGE, SYSTEM_PHYSICAL + page * PAGE, PRESENT | WRITABLE);
    }
    const { assert!(BYTES < 0x4_0000) };
}

fn fpu(fx: &Fx) -> FpuState {
    let top = usize::from(fx.status >> 11 & 7);
    let mut regs = [(0, 0); 8];
    for (i, &r) in fx.st.iter().enumerate() {
        regs[(top + i) & 7] = r;
    }
    FpuState {
        regs,
        empty: !fx.valid,
        control: fx.control,
        status: fx.status,
        ip: fx.ip,
        cs: 0,
        dp: fx.dp,
        ds: 0,
        opcode: fx.opcode,
    }
}

fn fx(f: &FpuState) -> Fx {
    let top = usize::from(f.status >> 11 & 7);
    Fx {
        control: f.control,
        status: f.status,
        valid: !f.empty,
        opcode: f.opcode,
        ip: f.ip,
        dp: f.dp,
        st: std::array::from_fn(|i| f.regs[(top + i) & 7]),
        ..Fx::default()
    }
}
