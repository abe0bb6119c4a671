//! Linux by its 32-bit boot protocol (kernel documentation, `arch/x86/boot.rst` and `zero-page.rst`).

use core::ops::Range;
use std::io::{self, Read};

use env86_emu::{ArchState, Memory};
use tracing::{debug, warn};

use crate::{
    BoardInfo, BootError,
    elf::{self, Elf, u16_at, u32_at},
    firmware, fits, protected_mode,
    step::Step,
    unpack::Unpacked,
    video::{self, Graphics},
};

/// Where the zero page (struct boot_params) is put.
pub const BOOT_PARAMS: u32 = 0x9_0000;
/// Where the command line is put.
pub const COMMAND_LINE: u32 = 0x9_1000;
/// Bytes for the command line with its terminating NUL.
const COMMAND_LINE_ROOM: u32 = firmware::EBDA - COMMAND_LINE;
/// The selector of the flat code segment (`__BOOT_CS`); `__BOOT_DS` is the next.
const BOOT_CS: u16 = 0x10;
const PAGE: u32 = 4096;
const SECTOR: usize = 512;
/// Bytes of an unpacked kernel that are looked at for its headers.
const HEAD: u64 = 4096;

/// Offsets in the setup header; the zero page has it at the same place.
mod hdr {
    pub const START: usize = 0x1f1;
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const SYSSIZE: usize = 0x1f4;
    pub const VID_MODE: usize = 0x1fa;
    pub const BOOT_FLAG: usize = 0x1fe;
    pub const JUMP: usize = 0x200;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const CODE32_START: usize = 0x214;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const HEAP_END_PTR: usize = 0x224;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const KERNEL_ALIGNMENT: usize = 0x230;
    pub const RELOCATABLE_KERNEL: usize = 0x234;
    pub const XLOADFLAGS: usize = 0x236;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const PAYLOAD_OFFSET: usize = 0x248;
    pub const PAYLOAD_LENGTH: usize = 0x24c;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
    /// The first byte after the header as this file knows it.
    pub const END: usize = 0x264;
}

/// Offsets in the zero page outside the setup header.
mod params {
    pub const ACPI_RSDP_ADDR: usize = 0x70;
    pub const ALT_MEM_K: usize = 0x1e0;
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const E820_TABLE: usize = 0x2d0;
    pub const E820_ENTRY_SIZE: usize = 20;
    pub const SIZE: usize = 4096;
}

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: [u8; 4] = *b"HdrS";
/// Boot loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
const LOADED_HIGH: u8 = 1;
const CAN_USE_HEAP: u8 = 1 << 7;
const XLF_KERNEL_64: u16 = 1;

/// Protocol versions and what came with them.
mod version {
    /// cmd_line_ptr.
    pub const COMMAND_LINE: u16 = 0x202;
    /// initrd_addr_max.
    pub const INITRD_MAX: u16 = 0x203;
    /// A 32-bit syssize.
    pub const SYSSIZE: u16 = 0x204;
    /// cmdline_size.
    pub const COMMAND_LINE_SIZE: u16 = 0x206;
    /// payload_offset, payload_length.
    pub const PAYLOAD: u16 = 0x208;
    /// pref_address, init_size.
    pub const INIT_SIZE: u16 = 0x20a;
    /// xloadflags.
    pub const XLOADFLAGS: u16 = 0x20c;
}

/// A bzImage with its setup header understood.
struct Kernel<'a> {
    file: &'a [u8],
    version: u16,
    /// What follows the real-mode code: the decompressor with its payload.
    protected: &'a [u8],
}

impl<'a> Kernel<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, BootError> {
        let not_linux = |reason| Err(BootError::NotLinux(reason));
        if elf::is_elf64(file) {
            return Err(BootError::Kernel64);
        }
        if elf::is_elf(file) {
            return not_linux("this is an ELF file (vmlinux?); give the bzImage, usually /boot/vmlinuz-*");
        }
        if u16_at(file, hdr::BOOT_FLAG) != Some(BOOT_FLAG)
            || !file[hdr::MAGIC.min(file.len())..].starts_with(&HEADER_MAGIC)
        {
            return not_linux("it has no bzImage header; give an i386 bzImage, usually /boot/vmlinuz-*");
        }
        if file.len() < hdr::END {
            return Err(truncated(file, hdr::END as u64));
        }
        let mut kernel = Self { file, version: 0, protected: &[] };
        kernel.version = kernel.u16(hdr::VERSION);
        if kernel.version < version::COMMAND_LINE {
            return not_linux("its boot protocol is older than 2.02 (Linux 2.4); use a newer kernel");
        }
        if file[hdr::LOADFLAGS] & LOADED_HIGH == 0 {
            return not_linux("it is a zImage, which loads below 1 MiB; build a bzImage");
        }
        if kernel.version >= version::XLOADFLAGS && kernel.u16(hdr::XLOADFLAGS) & XLF_KERNEL_64 != 0 {
            return Err(BootError::Kernel64);
        }
        let sectors = match file[hdr::SETUP_SECTS] {
            0 => 4, // from before the field existed
            n => usize::from(n),
        };
        let start = (sectors + 1) * SECTOR;
        kernel.protected = file.get(start..).unwrap_or_default();
        // The size is in paragraphs: the file may lack the padding of the last.
        let paragraphs = u64::from(kernel.u32(hdr::SYSSIZE));
        let need = start as u64 + (paragraphs * 16).saturating_sub(15).max(1);
        if kernel.protected.is_empty() || kernel.version >= version::SYSSIZE && (file.len() as u64) < need {
            return Err(truncated(file, need));
        }
        Ok(kernel)
    }

    fn u16(&self, offset: usize) -> u16 {
        u16_at(self.file, offset).unwrap_or(0)
    }

    fn u32(&self, offset: usize) -> u32 {
        u32_at(self.file, offset).unwrap_or(0)
    }

    /// The packed kernel inside, where the header says where that is.
    fn payload(&self) -> Option<&'a [u8]> {
        if self.version < version::PAYLOAD {
            return None;
        }
        let start = self.u32(hdr::PAYLOAD_OFFSET) as usize;
        let len = self.u32(hdr::PAYLOAD_LENGTH) as usize;
        self.protected.get(start..start.checked_add(len)?).filter(|p| !p.is_empty())
    }

    /// The memory that the unpacked kernel uses before it knows the memory map.
    fn init_range(&self, load: u32) -> Range<u64> {
        if self.version < version::INIT_SIZE {
            return load.into()..u64::from(load) + self.protected.len() as u64;
        }
        let preferred = u64::from(self.u32(hdr::PREF_ADDRESS));
        let mut start = preferred;
        if self.file[hdr::RELOCATABLE_KERNEL] != 0 {
            let alignment = u64::from(self.u32(hdr::KERNEL_ALIGNMENT)).max(1);
            start = preferred.max(u64::from(load).next_multiple_of(alignment));
        }
        start..start + u64::from(self.u32(hdr::INIT_SIZE))
    }

    fn command_line_limit(&self) -> usize {
        let limit =
            if self.version >= version::COMMAND_LINE_SIZE { self.u32(hdr::CMDLINE_SIZE) } else { 255 };
        limit.min(COMMAND_LINE_ROOM - 1) as usize
    }

    /// The first address an initial RAM disk must not reach.
    fn initrd_limit(&self) -> u64 {
        let last =
            if self.version >= version::INITRD_MAX { self.u32(hdr::INITRD_ADDR_MAX) } else { 0x37ff_ffff };
        u64::from(last) + 1
    }
}

fn truncated(file: &[u8], need: u64) -> BootError {
    BootError::Truncated { what: "kernel", have: file.len() as u64, need }
}

/// Video modes by the numbers of Linux' real-mode code (kernel documentation, `admin-guide/svga.rst`).
mod vga {
    pub const NORMAL: u16 = 0xffff;
    pub const EXTENDED: u16 = 0xfffe;
    pub const ASK: u16 = 0xfffd;
    /// What is added to a number of the BIOS' and to one of VBE's: mode 117h is 317h.
    pub const BIOS: u16 = 0x100;
    pub const VBE: u16 = 0x200;
    pub const BIOS_MODES: core::ops::RangeInclusive<u16> = 0x100..=0x17f;
    pub const VBE_MODES: core::ops::RangeInclusive<u16> = 0x300..=0x3ff;
}

/// The video mode that a command line asks the boot loader for: the last one counts, which a person has added.
fn video_mode(cmdline: &str) -> Option<u16> {
    let word = cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix("vga=")).next_back()?;
    let number = match word {
        "normal" => Some(vga::NORMAL),
        "ext" => Some(vga::EXTENDED),
        "ask" => Some(vga::ASK),
        _ => match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
            Some(digits) => u16::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        },
    };
    if number.is_none() {
        warn!("`vga={word}` is no video mode: it takes a number like 791, or normal, ext or ask");
    }
    number
}

/// The mode that is not text that a command line asks for.
fn graphics(cmdline: &str, board: &BoardInfo) -> Option<Graphics> {
    let number = video_mode(cmdline).filter(|number| *number != vga::NORMAL)?;
    let mode = if vga::BIOS_MODES.contains(&number) {
        Graphics::bios(number - vga::BIOS)
    } else if vga::VBE_MODES.contains(&number) {
        board.framebuffer.and_then(|framebuffer| Graphics::vbe(number - vga::VBE, framebuffer))
    } else {
        None
    };
    if mode.is_none() {
        warn!(
            "`vga={number:#x}` is no mode that there is without a BIOS and that the graphics card has room for: the \
             kernel starts in text mode. With --bios the kernel sets modes itself, and has more"
        );
    }
    mode
}

/// Loads a kernel, its command line and initial RAM disk. Gives the state to enter it with, and what sets the video mode
/// that the command line asks for, if that is not text.
///
/// With `unpack` the payload is unpacked here and entered directly; the guest saves the billions of
/// instructions that its own decompressor would take. Whatever is not understood in there is left to
/// that decompressor.
pub fn load(
    kernel: &[u8],
    initrd: Option<&[u8]>,
    cmdline: &str,
    unpack: bool,
    board: &BoardInfo,
    mem: &mut Memory,
) -> Result<(ArchState, Vec<Step>), BootError> {
    let kernel = Kernel::parse(kernel)?;
    let limit = kernel.command_line_limit();
    if cmdline.len() > limit {
        return Err(BootError::CommandLine { have: cmdline.len(), limit });
    }
    let unpacked = if unpack { load_unpacked(&kernel, board, mem)? } else { None };
    let (entry, end) = match unpacked {
        Some(place) => place,
        None => load_packed(&kernel, board, mem)?,
    };
    let ramdisk = match initrd {
        Some(initrd) if !initrd.is_empty() => place_initrd(&kernel, initrd, end, board, mem)?,
        _ => 0..0,
    };
    mem.write(COMMAND_LINE, cmdline.as_bytes());
    mem.write_u8(COMMAND_LINE + cmdline.len() as u32, 0);
    let graphics = graphics(cmdline, board);
    mem.write(BOOT_PARAMS, &boot_params(&kernel, &ramdisk, graphics, board, mem.size()));

    let mut state = protected_mode(entry, BOOT_CS, mem);
    state.gpr[6] = BOOT_PARAMS; // ESI
    Ok((state, graphics.map(|mode| mode.steps()).unwrap_or_default()))
}

/// Unpacks the kernel proper, an ELF file, to where it is linked to run, so that its relocations stay unused. Gives the
/// entry and the first address after the kernel; `None` if it is packed in a way that is not understood. What is unpacked
/// is nowhere as a whole but in the guest's memory: the 20 MB of a kernel are much in a browser.
fn load_unpacked(
    kernel: &Kernel,
    board: &BoardInfo,
    mem: &mut Memory,
) -> Result<Option<(u32, u64)>, BootError> {
    let Some(payload) = kernel.payload() else {
        debug!("the kernel does not tell where its payload is; the guest unpacks it");
        return Ok(None);
    };
    let by_guest = |error: &dyn std::fmt::Display| {
        debug!(%error, "the guest unpacks its kernel");
        Ok(None)
    };
    let mut file = match Unpacked::new(payload) {
        Ok(file) => file,
        Err(error) => return by_guest(&error),
    };
    let mut head = Vec::new();
    if let Err(error) = file.by_ref().take(HEAD).read_to_end(&mut head) {
        return by_guest(&error);
    }
    let elf = match Elf::parse(&head, file.size()) {
        Ok(elf) => elf,
        Err(BootError::Kernel64) => return Err(BootError::Kernel64),
        Err(error) => return by_guest(&error),
    };
    let linked = elf.range();
    let end = kernel.init_range(linked.start).end.max(linked.end.into());
    fits("kernel", linked.start.into(), end, board, mem)?;
    elf.fits(board, mem)?;
    let (mut file, mut at) = (head.chain(file), 0);
    let loaded = elf.load(mem, |offset, chunk| {
        let skipped = offset.checked_sub(at).ok_or(io::ErrorKind::Unsupported)?;
        io::copy(&mut file.by_ref().take(skipped.into()), &mut io::sink())?;
        at = offset + chunk.len() as u32;
        file.read_exact(chunk)
    });
    // What is damaged may show at the end only.
    match loaded.and_then(|()| io::copy(&mut file, &mut io::sink())) {
        Ok(_) => {
            debug!(entry = elf.entry, end, "kernel unpacked");
            Ok(Some((elf.entry, end)))
        }
        Err(error) => by_guest(&error),
    }
}

/// Loads the decompressor with its payload. Gives the entry and the first address after both it and
/// what it will unpack.
fn load_packed(kernel: &Kernel, board: &BoardInfo, mem: &mut Memory) -> Result<(u32, u64), BootError> {
    let load = kernel.u32(hdr::CODE32_START);
    let loaded_end = u64::from(load) + kernel.protected.len() as u64;
    let end = loaded_end.max(kernel.init_range(load).end);
    fits("kernel", load.into(), end, board, mem)?;
    mem.write(load, kernel.protected);
    Ok((load, end))
}

/// Copies the initial RAM disk as high as the kernel allows, away from what it unpacks.
fn place_initrd(
    kernel: &Kernel,
    initrd: &[u8],
    kernel_end: u64,
    board: &BoardInfo,
    mem: &mut Memory,
) -> Result<Range<u32>, BootError> {
    let range =
        initrd_range(kernel, initrd.len() as u64, kernel_end, firmware::usable_top(board, mem.size()))
            .map_err(|need| BootError::Memory {
                what: "kernel with its initrd",
                need: need + u64::from(firmware::ACPI_AREA),
                have: mem.size().into(),
            })?;
    mem.write(range.start, initrd);
    Ok(range)
}

/// Where an initial RAM disk goes, between the end of the kernel and that of memory; if there is no room, how much
/// memory the two need.
fn initrd_range(kernel: &Kernel, len: u64, kernel_end: u64, top: u32) -> Result<Range<u32>, u64> {
    let lowest = kernel_end.next_multiple_of(PAGE.into());
    let start = u64::from(top).min(kernel.initrd_limit()).saturating_sub(len) & !u64::from(PAGE - 1);
    if start < lowest {
        return Err(lowest + len.next_multiple_of(PAGE.into()));
    }
    Ok(start as u32..(start + len) as u32)
}

/// Bytes for an address in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The address.
    pub address: u32,
    /// The bytes.
    pub data: Vec<u8>,
}

/// What a boot loader that runs under a BIOS puts into memory before it enters a kernel's real-mode code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The real-mode code with the boot sector, filled in.
    pub setup: Part,
    /// The protected-mode code.
    pub kernel: Part,
    /// The initial RAM disk; no bytes if there is none.
    pub initrd: Part,
    /// The command line with its terminating NUL.
    pub cmdline: Part,
}

impl Parts {
    /// Where the real-mode code goes.
    pub const SETUP: u32 = 0x1_0000;
    /// The stack pointer in its segment at its entry.
    pub const STACK: u16 = 0xfff0;
    /// The most that the real-mode code may have.
    const SETUP_ROOM: usize = 0x8000;
    /// The end of the heap that follows it, less 200h as the protocol wants it.
    const HEAP_END: u16 = 0xee00;
    const COMMAND_LINE: u32 = 0x2_0000;
    /// What a BIOS has at the end of memory: its tables, and what it allocates for good.
    const FIRMWARE_AREA: u32 = 512 << 10;

    /// Chooses addresses for a machine with so much memory.
    pub fn new(kernel: &[u8], initrd: &[u8], cmdline: &str, memory_size: u32) -> Result<Self, BootError> {
        let kernel = Kernel::parse(kernel)?;
        let limit = kernel.command_line_limit();
        if cmdline.len() > limit {
            return Err(BootError::CommandLine { have: cmdline.len(), limit });
        }
        let setup = kernel.file.len() - kernel.protected.len();
        if setup > Self::SETUP_ROOM {
            return Err(BootError::NotLinux("its real-mode code is larger than 32 KiB"));
        }
        let load = kernel.u32(hdr::CODE32_START);
        let end = (u64::from(load) + kernel.protected.len() as u64).max(kernel.init_range(load).end);
        let top = memory_size.saturating_sub(Self::FIRMWARE_AREA);
        let ramdisk = initrd_range(&kernel, initrd.len() as u64, end, top);
        let ramdisk = ramdisk.ok().filter(|range| load >= 1 << 20 && end <= range.start.into());
        let Some(ramdisk) = ramdisk else {
            let need = end.max(1 << 20) + initrd.len() as u64 + u64::from(PAGE + Self::FIRMWARE_AREA);
            return Err(BootError::Memory { what: "kernel with its initrd", need, have: memory_size.into() });
        };
        let ramdisk = if initrd.is_empty() { 0..0 } else { ramdisk };
        let mut setup = kernel.file[..setup].to_vec();
        let mut put =
            |offset: usize, bytes: &[u8]| setup[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(hdr::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        put(hdr::LOADFLAGS, &[kernel.file[hdr::LOADFLAGS] | CAN_USE_HEAP]);
        put(hdr::HEAP_END_PTR, &Self::HEAP_END.to_le_bytes());
        put(hdr::RAMDISK_IMAGE, &ramdisk.start.to_le_bytes());
        put(hdr::RAMDISK_SIZE, &(ramdisk.end - ramdisk.start).to_le_bytes());
        put(hdr::CMD_LINE_PTR, &Self::COMMAND_LINE.to_le_bytes());
        if let Some(mode) = video_mode(cmdline) {
            put(hdr::VID_MODE, &mode.to_le_bytes());
        }
        Ok(Self {
            setup: Part { address: Self::SETUP, data: setup },
            kernel: Part { address: load, data: kernel.protected.to_vec() },
            initrd: Part { address: ramdisk.start, data: initrd.to_vec() },
            cmdline: Part { address: Self::COMMAND_LINE, data: [cmdline.as_bytes(), b"\0"].concat() },
        })
    }
}

/// The zero page: the setup header as the file has it, filled in, and what the real-mode code would
/// have asked the BIOS for.
fn boot_params(
    kernel: &Kernel,
    ramdisk: &Range<u32>,
    graphics: Option<Graphics>,
    board: &BoardInfo,
    memory_size: u32,
) -> Vec<u8> {
    let mut page = vec![0; params::SIZE];
    let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);

    let header_end = hdr::MAGIC + usize::from(kernel.file[hdr::JUMP + 1]);
    let header_end = header_end.min(params::E820_TABLE).min(kernel.file.len()).max(hdr::START);
    put(hdr::START, &kernel.file[hdr::START..header_end]);
    put(hdr::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
    put(hdr::RAMDISK_IMAGE, &ramdisk.start.to_le_bytes());
    put(hdr::RAMDISK_SIZE, &(ramdisk.end - ramdisk.start).to_le_bytes());
    put(hdr::CMD_LINE_PTR, &COMMAND_LINE.to_le_bytes());

    let extended_kib = (memory_size - (1 << 20)) >> 10;
    put(0, &graphics.map_or_else(|| video::screen_info(extended_kib), |mode| mode.screen_info(extended_kib)));
    put(params::ALT_MEM_K, &extended_kib.to_le_bytes());
    if board.acpi {
        put(params::ACPI_RSDP_ADDR, &u64::from(firmware::RSDP).to_le_bytes());
    }
    let map = firmware::memory_map(board, memory_size);
    put(params::E820_ENTRIES, &[map.len() as u8]);
    for (i, region) in map.iter().enumerate() {
        put(params::E820_TABLE + i * params::E820_ENTRY_SIZE, &region.e820());
    }
    page
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{BootSource, board::tests::sample, unpack};

    const LOAD: u32 = 0x10_0000;
    const PREFERRED: u32 = 0x40_0000;

    /// A bzImage of protocol 2.15 around a payload.
    pub fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 2 * SECTOR];
        let stub = b"decompressor";
        let mut protected = stub.to_vec();
        protected.extend(payload);
        protected.resize(protected.len().next_multiple_of(16), 0);
        let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(hdr::SETUP_SECTS, &[1]);
        put(hdr::SYSSIZE, &(protected.len() as u32 / 16).to_le_bytes());
        put(hdr::BOOT_FLAG, &BOOT_FLAG.to_le_bytes());
        put(hdr::JUMP, &[0xeb, 0x6a]);
        put(hdr::MAGIC, &HEADER_MAGIC);
        put(hdr::VERSION, &0x20fu16.to_le_bytes());
        put(hdr::LOADFLAGS, &[LOADED_HIGH]);
        put(hdr::CODE32_START, &LOAD.to_le_bytes());
        put(hdr::INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
        put(hdr::KERNEL_ALIGNMENT, &PREFERRED.to_le_bytes());
        put(hdr::RELOCATABLE_KERNEL, &[1]);
        put(hdr::CMDLINE_SIZE, &2047u32.to_le_bytes());
        put(hdr::PAYLOAD_OFFSET, &(stub.len() as u32).to_le_bytes());
        put(hdr::PAYLOAD_LENGTH, &(payload.len() as u32).to_le_bytes());
        put(hdr::PREF_ADDRESS, &PREFERRED.to_le_bytes());
        put(hdr::INIT_SIZE, &0x10_0000u32.to_le_bytes());
        file.extend(protected);
        file
    }

    fn vmlinux() -> Vec<u8> {
        elf::tests::build(PREFERRED, 0xc000_0000 + PREFERRED, PREFERRED + 0x10, b"the kernel proper", 0x8000)
    }

    fn boot(kernel: &[u8], unpack: bool, size: u64) -> Result<(ArchState, Box<Memory>), BootError> {
        let mut mem = Memory::new(size).unwrap();
        let source = BootSource::Linux {
            kernel: kernel.to_vec(),
            initrd: Some(b"an initrd".to_vec()),
            cmdline: "console=ttyS0".into(),
            unpack,
        };
        let boot = crate::load(&source, &sample(false), &mut mem)?;
        Ok((boot.state, mem))
    }

    #[test]
    fn packed_kernel_is_entered_at_its_decompressor() {
        let (state, mem) = boot(&bzimage(b"\x89LZO"), true, 16 << 20).unwrap();
        assert_eq!(state.eip, LOAD);
        assert_eq!(mem.slice(LOAD, 12).unwrap(), b"decompressor");
        assert_eq!(state.gpr[6], BOOT_PARAMS);
        assert_eq!((state.gpr[3], state.gpr[5], state.gpr[7]), (0, 0, 0));
        assert_eq!((state.seg[1].selector, state.seg[3].selector), (0x10, 0x18));
        assert_eq!((state.cr0 & 0x8000_0001, state.eflags & 0x200), (1, 0));
        assert_eq!(mem.read_u64(state.gdtr.base + 0x10), 0x00cf_9b00_0000_ffff);
    }

    #[test]
    fn unpacked_kernel_is_entered_directly() {
        let kernel = bzimage(&unpack::tests::gzip(&vmlinux()));
        let (state, mem) = boot(&kernel, true, 16 << 20).unwrap();
        assert_eq!(state.eip, PREFERRED + 0x10);
        assert_eq!(mem.slice(PREFERRED, 17).unwrap(), b"the kernel proper");
        let (state, _) = boot(&kernel, false, 16 << 20).unwrap();
        assert_eq!(state.eip, LOAD);
    }

    #[test]
    fn zero_page_tells_what_there_is() {
        let (_, mem) = boot(&bzimage(b""), false, 16 << 20).unwrap();
        let at = |offset: usize| BOOT_PARAMS + offset as u32;
        assert_eq!(mem.slice(at(hdr::MAGIC), 4).unwrap(), HEADER_MAGIC);
        assert_eq!(mem.read_u8(at(hdr::TYPE_OF_LOADER)), LOADER_UNDEFINED);
        let cmdline = mem.read_u32(at(hdr::CMD_LINE_PTR));
        assert_eq!(mem.slice(cmdline, 14).unwrap(), b"console=ttyS0\0");
        let (image, size) = (mem.read_u32(at(hdr::RAMDISK_IMAGE)), mem.read_u32(at(hdr::RAMDISK_SIZE)));
        assert_eq!(mem.slice(image, size).unwrap(), b"an initrd");
        assert!(image >= (16 << 20) - PAGE && image % PAGE == 0);
        assert_eq!(mem.read_u8(at(6)), 3, "video mode");
        assert_eq!(mem.read_u8(at(params::E820_ENTRIES)), 4);
        assert_eq!(mem.read_u64(at(params::E820_TABLE) + 3 * 20), 1 << 20);
    }

    #[test]
    fn a_command_line_asks_for_a_video_mode() {
        assert_eq!(video_mode("quiet vga=0x301 vga=791 rw"), Some(0x317));
        assert_eq!(
            (video_mode("vga=ask"), video_mode("novga=1"), video_mode("vga=blue")),
            (Some(0xfffd), None, None)
        );
        let start = |cmdline: &str| {
            let source = BootSource::Linux {
                kernel: bzimage(b""),
                initrd: None,
                cmdline: cmdline.into(),
                unpack: false,
            };
            let mut mem = Memory::new(16 << 20).unwrap();
            let boot = crate::load(&source, &sample(false), &mut mem).unwrap();
            (boot.steps.len(), mem.read_u8(BOOT_PARAMS + 0x0f), mem.read_u16(BOOT_PARAMS + 0x12))
        };
        let (text, is_vga, _) = start("quiet");
        assert_eq!(is_vga, 1);
        let (steps, is_vga, width) = start("quiet vga=791");
        assert_eq!((steps > text, is_vga, width), (true, 0x23, 1024));
        assert_eq!(start("vga=0x112").1, 0x22);
        for other in ["vga=normal", "vga=0x3ff", "vga=0xf07", "vga=99999"] {
            assert_eq!(start(other), (text, 1, 0), "{other}");
        }
        let mode = |cmdline| {
            let setup = Parts::new(&bzimage(b""), b"", cmdline, 16 << 20).unwrap().setup.data;
            u16_at(&setup, hdr::VID_MODE).unwrap()
        };
        assert_eq!((mode("quiet"), mode("vga=791"), mode("vga=ext")), (0, 0x317, 0xfffe));
    }

    #[test]
    fn kernels_for_other_machines_are_refused() {
        let mut wide = bzimage(b"");
        wide[hdr::XLOADFLAGS] |= XLF_KERNEL_64 as u8;
        assert_eq!(boot(&wide, true, 16 << 20).err().unwrap(), BootError::Kernel64);
        let mut inside = vmlinux();
        inside[4] = 2;
        let kernel = bzimage(&unpack::tests::gzip(&inside));
        assert_eq!(boot(&kernel, true, 16 << 20).err().unwrap(), BootError::Kernel64);
        for bad in [b"".as_slice(), b"MZ", &vmlinux(), &[0; 4096]] {
            assert!(matches!(boot(bad, true, 16 << 20), Err(BootError::NotLinux(_))));
        }
    }

    #[test]
    fn damage_is_an_error_or_boots_something() {
        let kernel = bzimage(&unpack::tests::gzip(&vmlinux()));
        for len in 0..kernel.len() {
            let _ = boot(&kernel[..len], true, 1 << 20);
        }
        assert!(matches!(boot(&kernel[..1100], true, 16 << 20), Err(BootError::Truncated { .. })));
        for at in hdr::START..hdr::END {
            let mut bad = kernel.clone();
            bad[at] = !bad[at];
            let _ = boot(&bad, true, 8 << 20);
        }
    }

    #[test]
    fn limits_say_what_is_needed_and_what_there_is() {
        let error = boot(&bzimage(b""), true, 4 << 20).err().unwrap().to_string();
        assert_eq!(error, "the kernel needs 5 MiB of memory and the machine has 4 MiB");
        let mut kernel = bzimage(b"");
        kernel[hdr::CMDLINE_SIZE..hdr::CMDLINE_SIZE + 4].fill(0);
        assert!(matches!(boot(&kernel, true, 16 << 20), Err(BootError::CommandLine { have: 13, limit: 0 })));
    }

    /// With `ENV86_TEST_KERNEL=/boot/vmlinuz-...-686`: the unpacked kernel is where its header says.
    #[test]
    fn a_real_kernel_unpacks() {
        let Some(path) = std::env::var_os("ENV86_TEST_KERNEL") else { return };
        let kernel = std::fs::read(path).unwrap();
        let preferred = u32_at(&kernel, hdr::PREF_ADDRESS).unwrap();
        let (state, _) = boot(&kernel, true, 128 << 20).unwrap();
        assert_eq!(state.eip, preferred);
        let (state, _) = boot(&kernel, false, 128 << 20).unwrap();
        assert_eq!(state.eip, LOAD);
    }
}
