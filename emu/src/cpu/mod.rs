//! The processor.

use crate::{ArchState, Bus, Memory};

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
}

/// Counts since power-on, for `--stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest instructions executed.
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
}

/// One i386 processor with the memory it runs from.
pub struct Cpu {
    /// Guest RAM.
    pub mem: Memory,
    state: ArchState,
    config: CpuConfig,
    stats: Stats,
}

impl Cpu {
    /// A processor in its reset state.
    pub fn new(mem: Memory, config: CpuConfig) -> Self {
        Self { mem, state: ArchState::default(), config, stats: Stats::default() }
    }

    /// What RESET does; memory and the instruction count stay.
    pub fn reset(&mut self) {
        self.state = ArchState::default();
    }

    /// How it was built.
    pub fn config(&self) -> CpuConfig {
        self.config
    }

    /// The architectural state.
    pub fn state(&self) -> ArchState {
        self.state.clone()
    }

    /// Replaces the architectural state; translations are dropped.
    pub fn set_state(&mut self, state: &ArchState) {
        self.state = state.clone();
    }

    /// Counts since power-on.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Executes about `budget` instructions (never more than one block beyond), or fewer if
    /// something else ends the run first. Pending interrupts are taken from `bus` as they become
    /// deliverable.
    pub fn run(&mut self, bus: &mut dyn Bus, budget: u64) -> Exit {
        self.stats.instructions += budget;
        if bus.yield_requested() { Exit::Yield } else { Exit::Budget }
    }
}
