//! The i386 processor of env86 and its memory.
//!
//! This crate knows no device and no operating system. What lies outside the processor (ports,
//! memory-mapped registers, the interrupt pin, the clock) comes in through [`bus::Bus`].

// isa/hot.rs lists its handlers one by one.
#![cfg_attr(target_family = "wasm", recursion_limit = "512")]

mod blocks;
pub mod bus;
pub mod cpu;
mod dispatch;
pub mod exception;
pub mod fpu;
pub mod isa;
pub mod memory;
pub mod mmu;
pub mod simd;
pub mod state;

pub use bus::{Bus, HypervisorCall, Pins, Unconnected, Width};
pub use cpu::debugger::{NoMemory, WatchKind, Watchpoint};
pub use cpu::{Cpu, CpuConfig, Exit};
pub use exception::Exception;
pub use memory::Memory;
pub use state::{ArchState, Segment};
