//! The chips on the board of an i386 PC, and the board.
//!
//! One chip, one file. A device is a plain struct that is told everything it needs: the access, the
//! time, the memory to reach as a bus master. No operating system is in here.

pub mod acpi;
pub mod alias;
pub mod apic;
pub mod board;
mod checksum;
pub mod connections;
pub mod debug;
pub mod dma;
pub mod floppy;
pub mod fs;
pub mod fw_cfg;
pub mod ide;
pub mod ioapic;
pub mod lpt;
pub mod ne2k;
pub mod opl;
pub mod pc;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod ps2;
pub mod rtc;
pub mod sb16;
pub mod sound;
pub mod speaker;
pub mod state;
pub mod system_control;
pub mod uart;
pub mod vga;
pub mod virtio;
pub mod vmware;

pub use board::{Board, BoardConfig, BoardError, Clock, Entropy};
pub use pc::{Pc, Stop};
