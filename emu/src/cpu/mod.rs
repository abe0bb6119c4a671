//! The processor: its registers, and the driver that runs blocks and delivers what interrupts
//! them.

#![allow(unsafe_code)]

pub mod flags;
pub mod regs;

pub(crate) mod control;
pub(crate) mod debug;
pub mod debugger;
pub(crate) mod interrupt;
pub(crate) mod mode;
#[cfg(feature = "observe")]
pub mod observe;
mod run;
pub(crate) mod segment;
mod stack;
pub(crate) mod task;
#[cfg(test)]
pub(crate) mod tests;

use std::ptr::NonNull;

use crate::blocks::{Blocks, Calls, Jumps};
use crate::bus::{Bus, Pins, Unconnected};
use crate::dispatch::{Link, Why};
use crate::fpu::Fpu;
use crate::isa::lower::Scratch;
use crate::mmu::tlb::Tlb;
use crate::mmu::walk::CR0_PG;
use crate::state::TableRegister;
use crate::{ArchState, Exception, Memory, Segment};
use flags::Flags;
use regs::RegFile;
pub(crate) use segment::{Seg, SegName};

/// CR0.PE: protected mode.
pub const CR0_PE: u32 = 1 << 0;
/// CR0.MP: WAIT respects TS.
pub const CR0_MP: u32 = 1 << 1;
/// CR0.EM: no x87.
pub const CR0_EM: u32 = 1 << 2;
/// CR0.TS: task switched; the x87 registers may still hold those of another task.
pub const CR0_TS: u32 = 1 << 3;
/// CR0.ET: always one.
pub const CR0_ET: u32 = 1 << 4;
/// CR0.NE: x87 errors are #MF rather than IRQ 13.
pub const CR0_NE: u32 = 1 << 5;
/// CR0.AM: alignment checks allowed.
pub const CR0_AM: u32 = 1 << 18;
/// CR4.TSD: RDTSC is privileged.
pub const CR4_TSD: u32 = 1 << 2;
/// CR4.DE: debug extensions.
pub const CR4_DE: u32 = 1 << 3;
/// CR4.PCE: RDPMC at every privilege level.
pub const CR4_PCE: u32 = 1 << 8;
/// CR4.OSFXSR: SSE.
pub const CR4_OSFXSR: u32 = 1 << 9;
/// CR4.OSXMMEXCPT: SSE exceptions are #XM.
pub const CR4_OSXMMEXCPT: u32 = 1 << 10;

/// What differs between the processors a board can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// A local APIC is present: CPUID says so.
    pub apic: bool,
    /// The highest basic CPUID leaf.
    pub cpuid_level: u32,
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self { apic: false, cpuid_level: 0x16 }
    }
}

/// Why [`Cpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The budget is spent.
    Budget,
    /// HLT with no interrupt waiting. With `EFLAGS.IF` clear only a reset gets the processor out.
    Halted,
    /// [`Bus::yield_requested`].
    Yield,
    /// A triple fault: the processor has shut down and a PC would reset it.
    Shutdown,
    /// A breakpoint of the host's ([`Cpu::set_breakpoint`]) at EIP, before its instruction.
    Breakpoint {
        /// Its linear address.
        linear: u32,
    },
    /// An instruction, which has completed, made an access that a watchpoint of the host's
    /// ([`Cpu::set_watchpoint`]) is for.
    Watchpoint {
        /// Linear address of the first watched byte of the access.
        linear: u32,
        /// It was a write.
        write: bool,
    },
}

/// Counts since power-on, for `--stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest instructions executed: what was used of the budgets. A repeated string instruction counts
    /// for as many as it took steps: pages at once, where it can, or single elements. The delivery
    /// of an exception or interrupt counts as one.
    pub instructions: u64,
    /// Returns to the driver from chained blocks.
    pub exits: u64,
    /// Page walks: TLB misses.
    pub tlb_misses: u64,
    /// TLB flushes.
    pub tlb_flushes: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Blocks thrown away because their code changed.
    pub blocks_invalidated: u64,
    /// Block cache look-ups by the driver.
    pub block_lookups: u64,
    /// Interrupts and exceptions delivered.
    pub interrupts: u64,
    /// Entries of privilege level 3.
    pub user_entries: u64,
}

/// Accesses that the fast path must not take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    /// #AC is on: CR0.AM, EFLAGS.AC and CPL 3.
    pub alignment: bool,
    /// DR7 has a data breakpoint.
    pub data: bool,
    /// DR7 has an instruction breakpoint.
    pub code: bool,
    /// DR7 has an I/O breakpoint and CR4.DE is set.
    pub io: bool,
    /// A debugger on the host has set watchpoints.
    pub host: bool,
}

/// One i386 processor with the memory it runs from.
///
/// Laid out by hand: what hot handlers touch comes first, within reach of short displacements.
#[repr(C)]
pub struct Cpu {
    pub(crate) regs: RegFile,
    /// While a block runs: EIP of its first instruction.
    pub(crate) eip: u32,
    /// See [`mode`].
    pub(crate) mode: u32,
    pub(crate) tlb: Tlb,
    pub(crate) flags: Flags,
    /// Something for the driver happened; blocks are left after the current instruction.
    pub(crate) attention: bool,
    pub(crate) cpl: u8,
    /// The board's pins as they are while it runs: seen whenever the board may have changed them.
    pub(crate) pins: Pins,
    pub(crate) seg: [Seg; 6],
    pub(crate) jumps: Jumps,
    pub(crate) calls: Calls,

    pub(crate) budget: i32,
    pub(crate) why: Why,
    pub(crate) exit_link: *mut Link,
    pub(crate) fault: Exception,
    /// An exception of a new task before its first instruction.
    pub(crate) late_fault: Option<Exception>,

    pub(crate) tr: Segment,
    pub(crate) ldtr: Segment,
    pub(crate) gdtr: TableRegister,
    pub(crate) idtr: TableRegister,
    pub(crate) cr0: u32,
    pub(crate) cr2: u32,
    pub(crate) cr3: u32,
    pub(crate) cr4: u32,
    pub(crate) pdpte: [u64; 4],
    pub(crate) dr: [u32; 8],
    /// DR6 bits of breakpoints met by the current instruction.
    pub(crate) dr6_pending: u32,
    pub(crate) watch: Watch,
    pub(crate) halted: bool,
    pub(crate) shadow: bool,
    /// From an NMI to the next IRET no other is taken.
    pub(crate) nmi_blocked: bool,
    /// After MOV SS and POP SS debug traps wait for the next instruction, too.
    pub(crate) hold_traps: bool,
    /// TF was set when the current instruction began, and it is no software interrupt.
    pub(crate) stepping: bool,
    /// Steps that the last repeated string instruction took: what it costs of the budget, so that
    /// the caller of [`Cpu::run`] gets the processor back in time.
    pub(crate) rounds: u32,
    pub(crate) sysenter_cs: u32,
    pub(crate) sysenter_esp: u32,
    pub(crate) sysenter_eip: u32,
    pub(crate) tsc_offset: u64,
    pub(crate) fpu: Fpu,
    pub(crate) xmm: [u128; 8],
    pub(crate) mxcsr: u32,

    /// Guest RAM. The TLB has its addresses, so that no other may take its place.
    pub(crate) mem: Box<Memory>,
    pub(crate) blocks: Blocks,
    /// Where blocks are built, and single instructions stay that are not kept.
    pub(crate) scratch: Scratch,
    #[cfg(target_family = "wasm")]
    pub(crate) hot: crate::isa::hot::Hot,
    pub(crate) config: CpuConfig,
    pub(crate) stats: Stats,
    pub(crate) debugger: debugger::Debugger,
    #[cfg(feature = "observe")]
    observer: Option<Box<dyn observe::Observer>>,
    /// The board, while [`Cpu::run`] has it.
    bus: Option<NonNull<dyn Bus>>,
}

// SAFETY: the raw pointers in `Cpu` are `bus`, which is `None` outside `run`, however that ends, and pointers into
// memory that the `Cpu` owns (uops in `blocks`, held by `jumps`, `calls`, `exit_link` and by uops
// themselves); they move with it.
unsafe impl Send for Cpu {}

impl Cpu {
    /// A processor in its reset state.
    pub fn new(mem: Box<Memory>, config: CpuConfig) -> Self {
        let mut cpu = Self {
            regs: RegFile::new(),
            eip: 0,
            mode: 0,
            tlb: Tlb::new(),
            flags: Flags::default(),
            attention: false,
            cpl: 0,
            pins: Pins::default(),
            seg: [Seg::default(); 6],
            jumps: Jumps::new(),
            calls: Calls::new(),
            budget: 0,
            why: Why::Lookup,
            exit_link: std::ptr::null_mut(),
            fault: Exception::INVALID_OPCODE,
            late_fault: None,
            tr: Segment::real(0),
            ldtr: Segment::real(0),
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            pdpte: [0; 4],
            dr: [0; 8],
            dr6_pending: 0,
            watch: Watch::default(),
            halted: false,
            shadow: false,
            nmi_blocked: false,
            hold_traps: false,
            stepping: false,
            rounds: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_offset: 0,
            fpu: Fpu::default(),
            xmm: [0; 8],
            mxcsr: 0,
            mem,
            blocks: Blocks::default(),
            scratch: Scratch::default(),
            #[cfg(target_family = "wasm")]
            hot: crate::isa::hot::Hot::new(),
            config,
            stats: Stats::default(),
            debugger: debugger::Debugger::default(),
            #[cfg(feature = "observe")]
            observer: None,
            bus: None,
        };
        cpu.set_state(&ArchState::default());
        cpu
    }

    /// What RESET does; memory and the counts stay.
    pub fn reset(&mut self) {
        self.set_state(&ArchState::default());
    }

    /// Guest RAM.
    pub fn mem(&self) -> &Memory {
        &self.mem
    }

    /// Guest RAM, to be written. Code that the processor has decoded from it is decoded again.
    pub fn mem_mut(&mut self) -> &mut Memory {
        &mut self.mem
    }

    /// How it was built.
    pub fn config(&self) -> CpuConfig {
        self.config
    }

    /// Counts since power-on.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The architectural state.
    pub fn state(&self) -> ArchState {
        ArchState {
            gpr: self.regs.all(),
            eip: self.eip,
            eflags: self.flags.get(),
            seg: self.seg.map(|s| s.arch),
            tr: self.tr,
            ldtr: self.ldtr,
            gdtr: self.gdtr,
            idtr: self.idtr,
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            pdpte: self.pdpte,
            dr: self.dr,
            cpl: self.cpl,
            halted: self.halted,
            interrupt_shadow: self.shadow,
            sysenter_cs: self.sysenter_cs,
            sysenter_esp: self.sysenter_esp,
            sysenter_eip: self.sysenter_eip,
            tsc_offset: self.tsc_offset,
            fpu: crate::state::FpuState::from(&self.fpu),
            xmm: self.xmm,
            mxcsr: self.mxcsr,
        }
    }

    /// Replaces the architectural state; translations and decoded code are dropped.
    pub fn set_state(&mut self, s: &ArchState) {
        for (i, &v) in s.gpr.iter().enumerate() {
            self.regs.set_r32(i as u8, v);
        }
        self.eip = s.eip;
        self.flags.set(s.eflags);
        (self.tr, self.ldtr, self.gdtr, self.idtr) = (s.tr, s.ldtr, s.gdtr, s.idtr);
        (self.cr0, self.cr2, self.cr3, self.cr4) = (s.cr0 | CR0_ET, s.cr2, s.cr3, s.cr4);
        self.pdpte = s.pdpte;
        self.dr = s.dr;
        self.cpl = s.cpl & 3;
        self.halted = s.halted;
        self.shadow = s.interrupt_shadow;
        self.nmi_blocked = false;
        self.sysenter_cs = s.sysenter_cs;
        self.sysenter_esp = s.sysenter_esp;
        self.sysenter_eip = s.sysenter_eip;
        self.tsc_offset = s.tsc_offset;
        self.fpu = Fpu::from(&s.fpu);
        self.xmm = s.xmm;
        self.mxcsr = s.mxcsr;
        for (seg, arch) in self.seg.iter_mut().zip(s.seg) {
            seg.arch = arch;
        }
        self.debugger.forget();
        self.refresh_segments();
        self.refresh_watch();
        self.flush_tlb(true);
        self.clear_blocks();
    }

    /// EIP as a linear address.
    #[inline(always)]
    pub(crate) fn linear_eip(&self) -> u32 {
        self.seg[SegName::CS as usize].arch.base.wrapping_add(self.eip)
    }

    /// The first offset past the code segment's limit.
    #[inline(always)]
    pub(crate) fn code_end(&self) -> u64 {
        u64::from(self.seg[SegName::CS as usize].arch.limit) + 1
    }

    /// Protected mode, virtual-8086 mode not included.
    pub(crate) fn protected(&self) -> bool {
        self.cr0 & CR0_PE != 0 && !self.vm86()
    }

    /// Virtual-8086 mode.
    pub(crate) fn vm86(&self) -> bool {
        self.flags.system & flags::VM != 0
    }

    /// Real or virtual-8086 mode: selectors are paragraphs.
    pub(crate) fn real_segments(&self) -> bool {
        !self.protected()
    }

    pub(crate) fn set_cpl(&mut self, cpl: u8) {
        self.stats.user_entries += u64::from(cpl == 3 && self.cpl != 3);
        self.cpl = cpl;
        self.refresh_watch();
    }

    /// Recomputes what the fast path must not take, and whose TLB entries it uses. To be called
    /// when CPL, CR0, CR4, DR7 or EFLAGS.AC have changed.
    pub(crate) fn refresh_watch(&mut self) {
        self.watch = debug::watch(self.dr[7], self.cr4);
        self.watch.host = self.debugger.is_watching();
        self.watch.alignment = self.cpl == 3 && self.cr0 & CR0_AM != 0 && self.flags.system & flags::AC != 0;
        self.tlb.select(self.cpl == 3, self.watch.alignment || self.watch.data);
    }

    pub(crate) fn flush_tlb(&mut self, global: bool) {
        self.stats.tlb_flushes += 1;
        if global { self.tlb.flush_all() } else { self.tlb.flush_non_global() }
    }

    /// Empties the block cache. Not while a block runs.
    pub(crate) fn clear_blocks(&mut self) {
        for page in self.blocks.clear() {
            self.mem.set_code(page, false);
        }
        self.jumps.clear();
        self.calls.clear();
        self.exit_link = std::ptr::null_mut();
    }

    /// The processor itself wrote memory that blocks were decoded from.
    pub(crate) fn code_written(&mut self, offset: u32, bytes: u32) {
        let (dropped, empty) = self.blocks.invalidate(offset, bytes);
        self.stats.blocks_invalidated += dropped;
        // The block that is running may be among them.
        self.attention |= dropped != 0;
        if empty {
            self.mem.set_code(offset >> 12, false);
        }
    }

    /// Devices wrote memory that blocks were decoded from.
    fn drain_code_writes(&mut self) {
        for (mut offset, mut len) in self.mem.take_code_writes() {
            while len > 0 {
                let here = len.min(0x1000 - (offset & 0xfff));
                if self.mem.is_code(offset >> 12) {
                    self.code_written(offset, here);
                }
                offset += here;
                len -= here;
            }
        }
    }

    /// Lets the board do something, then looks whether it wants attention.
    pub(crate) fn with_bus<R>(&mut self, f: impl FnOnce(&mut dyn Bus, &mut Memory) -> R) -> R {
        let mut nothing = Unconnected;
        let bus: &mut dyn Bus = match self.bus {
            // SAFETY: `run` holds the exclusive borrow that this pointer came from, and takes the
            // pointer back before it ends. No other reference to the board exists meanwhile:
            // devices never see the processor.
            Some(mut bus) => unsafe { bus.as_mut() },
            None => &mut nothing,
        };
        let r = f(bus, &mut self.mem);
        if self.mem.has_news() {
            // The block that is running may be among what was written, or in a window that has moved.
            self.attention = true;
            self.retag();
        }
        self.pins = bus.pins();
        self.attention |= self.is_called();
        r
    }

    /// The board wants the processor to return, or something waits that may be taken.
    #[inline(always)]
    pub(crate) fn is_called(&self) -> bool {
        self.pins.yield_requested
            || self.pins.nmi && !self.nmi_blocked
            || self.pins.interrupt && self.flags.system & flags::IF != 0
    }

    /// After an instruction that may have changed anything but debug registers: whether the driver has something to do
    /// before the next.
    #[inline(always)]
    pub(crate) fn wants_driver(&self) -> bool {
        self.attention
            || self.is_called()
            || self.late_fault.is_some()
            || self.dr6_pending != 0
            || self.flags.system & (flags::TF | flags::RF) != 0
    }

    /// The time stamp counter.
    pub(crate) fn tsc(&mut self) -> u64 {
        self.with_bus(|bus, _| bus.now()).wrapping_add(self.tsc_offset)
    }

    /// Paging is on.
    pub(crate) fn paging_on(&self) -> bool {
        self.cr0 & CR0_PG != 0
    }
}
