//! What firmware leaves in memory before the first instruction.
//!
//! A Linux or Multiboot machine starts without a BIOS: [`load`] puts the kernel and the tables that
//! firmware would have made into memory and says, as data, which registers it would have programmed
//! ([`Step`]) and where the processor starts ([`ArchState`]). A ROM image starts at the reset vector
//! and does all that itself. The crate reads no file and knows no device: bytes come in, memory and
//! state go out.

pub mod acpi;
mod aml;
pub mod board;
mod checksum;
pub mod elf;
pub mod firmware;
pub mod font;
pub mod linux;
pub mod mptable;
pub mod multiboot;
pub mod option_rom;
pub mod rom;
pub mod step;
pub mod unpack;
pub mod video;

use env86_emu::{ArchState, Memory, Segment, state::TableRegister};
use thiserror::Error;

pub use board::{BoardInfo, Framebuffer, IoBar, PciFunction};
pub use multiboot::Module;
pub use option_rom::FirmwareConfig;
pub use step::{Step, apply};

/// What the machine starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootSource {
    /// A Linux kernel (bzImage), entered by the 32-bit boot protocol.
    Linux {
        /// The whole bzImage file.
        kernel: Vec<u8>,
        /// The initial RAM disk.
        initrd: Option<Vec<u8>>,
        /// The kernel's command line.
        cmdline: String,
        /// Unpack the kernel here, where that is possible, instead of letting the guest do it.
        unpack: bool,
    },
    /// A Multiboot 1 kernel.
    Multiboot {
        /// The whole kernel file.
        kernel: Vec<u8>,
        /// The modules, in order.
        modules: Vec<Module>,
        /// The kernel's command line.
        cmdline: String,
    },
    /// Firmware of the user's: a raw ROM image that ends at FFFFFh.
    Rom {
        /// The system BIOS.
        bios: Vec<u8>,
        /// The video BIOS, copied to C0000h.
        vga_bios: Option<Vec<u8>>,
        /// The kernel that it is to start before anything else.
        kernel: Option<Linux>,
    },
}

/// A Linux kernel that a BIOS starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    /// The whole bzImage file.
    pub kernel: Vec<u8>,
    /// The initial RAM disk.
    pub initrd: Option<Vec<u8>>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// How to start a loaded machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The processor's registers at the first instruction.
    pub state: ArchState,
    /// What firmware would have programmed into the board, in order; see [`apply`].
    pub steps: Vec<Step>,
    /// What a BIOS is to find in the board's firmware configuration.
    pub config: FirmwareConfig,
}

/// Why a machine can't start. The caller knows the file and names it in front of the message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BootError {
    /// The file is no bzImage.
    #[error("not a Linux kernel this machine can boot: {0}")]
    NotLinux(&'static str),
    /// An x86-64 kernel.
    #[error(
        "the kernel is 64-bit only, this machine is 32-bit; use an i386 kernel (Debian: linux-image-686)"
    )]
    Kernel64,
    /// The file ends before what its header announces.
    #[error("the {what} is cut short: {have} bytes of {need}; copy it again")]
    Truncated {
        /// Which part.
        what: &'static str,
        /// Bytes there are.
        have: u64,
        /// Bytes announced.
        need: u64,
    },
    /// It does not fit into RAM.
    #[error("the {what} needs {} MiB of memory and the machine has {} MiB", need.div_ceil(1 << 20), have >> 20)]
    Memory {
        /// What does not fit.
        what: &'static str,
        /// The least RAM that would do, in bytes.
        need: u64,
        /// The RAM there is, in bytes.
        have: u64,
    },
    /// It wants to be where the firmware is.
    #[error(
        "the {what} wants memory from {start:#x} to {end:#x}, which firmware and devices below 1 MiB have; link it \
         for 1 MiB or above"
    )]
    Reserved {
        /// What does not fit.
        what: &'static str,
        /// The first address.
        start: u64,
        /// The address after the last.
        end: u64,
    },
    /// The command line does not fit.
    #[error("the command line has {have} bytes and this kernel takes {limit}; shorten it")]
    CommandLine {
        /// Bytes given.
        have: usize,
        /// Bytes possible.
        limit: usize,
    },
    /// The file is no Multiboot 1 kernel, or asks for what this machine does not give.
    #[error("not a Multiboot kernel this machine can boot: {0}")]
    NotMultiboot(&'static str),
    /// An ELF file that can't be loaded.
    #[error("not an i386 ELF executable: {0}")]
    Elf(&'static str),
    /// A ROM image of the wrong size.
    #[error("a BIOS image is 64, 128 or 256 KiB and ends with the reset vector; this file has {0} bytes")]
    RomSize(usize),
    /// A video ROM that does not fit between C0000h and the BIOS.
    #[error("a video BIOS has at most {limit} bytes here; this file has {have}")]
    VgaRomSize {
        /// Bytes given.
        have: usize,
        /// Bytes possible.
        limit: usize,
    },
}

/// Puts `source` into memory and tells how to start it.
///
/// To be called at power-on and again at every reset: it writes everything that it relies on and
/// expects nothing of the memory's content. What the board has made read-only is written, too, and is so afterwards.
pub fn load(source: &BootSource, board: &BoardInfo, mem: &mut Memory) -> Result<Boot, BootError> {
    mem.set_rom_alias(matches!(source, BootSource::Rom { .. }));
    let read_only = mem.set_read_only(0);
    let boot = put(source, board, mem);
    mem.set_read_only(read_only);
    boot
}

fn put(source: &BootSource, board: &BoardInfo, mem: &mut Memory) -> Result<Boot, BootError> {
    match source {
        BootSource::Linux { kernel, initrd, cmdline, unpack } => {
            let mut steps = firmware::install(board, mem)?;
            let (state, graphics) = linux::load(kernel, initrd.as_deref(), cmdline, *unpack, board, mem)?;
            steps.extend(graphics);
            Ok(Boot { state, steps, config: FirmwareConfig::default() })
        }
        BootSource::Multiboot { kernel, modules, cmdline } => {
            let steps = firmware::install(board, mem)?;
            let state = multiboot::load(kernel, modules, cmdline, board, mem)?;
            Ok(Boot { state, steps, config: FirmwareConfig::default() })
        }
        BootSource::Rom { bios, vga_bios, kernel } => {
            rom::load(bios, vga_bios.as_deref(), mem)?;
            let config = kernel.as_ref().map(|Linux { kernel, initrd, cmdline }| {
                option_rom::linux(kernel, initrd.as_deref(), cmdline, mem.size())
            });
            let config = config.transpose()?.unwrap_or_default();
            Ok(Boot { state: ArchState::default(), steps: Vec::new(), config })
        }
    }
}

/// Where the flat segments' descriptors lie; boot loaders and Multiboot leave the place open.
const GDT_ADDR: u32 = 0x8f000;
/// The first address above the interrupt vectors, the BIOS data area and what boot loaders use.
const LOW_MEMORY: u32 = 0x600;
/// CR0: protection enabled, extension type. Paging off, caches on.
const CR0_PE_ET: u32 = 0x11;

/// Flat 32-bit protected mode with interrupts off, its descriptor table in memory, about to execute
/// at `entry`. Both boot protocols start there. The data segment's descriptor follows the code
/// segment's, whose selector is `code`.
fn protected_mode(entry: u32, code: u16, mem: &mut Memory) -> ArchState {
    const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
    const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;
    const TABLE_SIZE: u16 = 4 * 8;
    let data = code + 8;
    mem.write(GDT_ADDR, &[0; TABLE_SIZE as usize]);
    mem.write_u64(GDT_ADDR + u32::from(code), FLAT_CODE);
    mem.write_u64(GDT_ADDR + u32::from(data), FLAT_DATA);
    let mut state = ArchState {
        eip: entry,
        seg: [Segment::flat(data, 0x93); 6],
        gdtr: TableRegister { base: GDT_ADDR, limit: TABLE_SIZE - 1 },
        idtr: TableRegister { base: 0, limit: 0 },
        cr0: CR0_PE_ET,
        ..ArchState::default()
    };
    state.gpr = [0; 8];
    state.gpr[4] = GDT_ADDR; // ESP: free memory below, for kernels that push before they set a stack
    state.seg[1] = Segment::flat(code, 0x9b);
    state
}

/// Checks that `[start, end)` lies in RAM above 1 MiB, or below it where firmware has nothing.
fn fits(what: &'static str, start: u64, end: u64, board: &BoardInfo, mem: &Memory) -> Result<(), BootError> {
    let top = u64::from(firmware::usable_top(board, mem.size()));
    let low = start >= LOW_MEMORY.into() && end <= GDT_ADDR.into();
    let high = start >= 1 << 20 && end <= top;
    if low || high {
        return Ok(());
    }
    if start < 1 << 20 {
        return Err(BootError::Reserved { what, start, end });
    }
    let reserved = u64::from(mem.size()) - top;
    Err(BootError::Memory { what, need: end.max(1 << 20) + reserved, have: mem.size().into() })
}
