//! Kernels by the Multiboot Specification 0.6.96: ELF, or any format with addresses in its header.

use core::ops::Range;

use env86_emu::{ArchState, Memory};

use crate::{
    BoardInfo, BootError,
    elf::{self, Elf, u32_at},
    firmware, fits, protected_mode,
};

const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What EAX holds at the entry.
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header lies within this many bytes of the file, on 4 bytes.
const SEARCH: usize = 8192;
/// Modules shall lie on pages: they always do.
const WANT_PAGES: u32 = 1 << 0;
/// Memory information is wanted: it is always there.
const WANT_MEMORY: u32 = 1 << 1;
/// A video mode is wanted; the kernel is told that it has text.
const WANT_VIDEO: u32 = 1 << 2;
/// Bits that a boot loader must understand or refuse.
const REQUIRED: u32 = 0xffff;
/// The header holds load addresses.
const HAS_ADDRESSES: u32 = 1 << 16;

/// The information structure's flags.
mod flag {
    pub const MEMORY: u32 = 1 << 0;
    pub const COMMAND_LINE: u32 = 1 << 2;
    pub const MODULES: u32 = 1 << 3;
    pub const MEMORY_MAP: u32 = 1 << 6;
    pub const LOADER_NAME: u32 = 1 << 9;
    pub const FRAMEBUFFER: u32 = 1 << 12;
}

/// The information structure's fields, by offset.
mod info {
    pub const FLAGS: usize = 0;
    pub const MEM_LOWER: usize = 4;
    pub const MEM_UPPER: usize = 8;
    pub const CMDLINE: usize = 16;
    pub const MODS_COUNT: usize = 20;
    pub const MODS_ADDR: usize = 24;
    pub const MMAP_LENGTH: usize = 44;
    pub const MMAP_ADDR: usize = 48;
    pub const LOADER_NAME: usize = 64;
    pub const FRAMEBUFFER_ADDR: usize = 88;
    pub const FRAMEBUFFER_PITCH: usize = 96;
    pub const FRAMEBUFFER_WIDTH: usize = 100;
    pub const FRAMEBUFFER_HEIGHT: usize = 104;
    pub const FRAMEBUFFER_KIND: usize = 108;
    pub const SIZE: usize = 116;
}

/// The specification leaves the selectors open; these are the customary ones, and there are kernels
/// whose own table must agree with them.
const CODE_SELECTOR: u16 = 0x08;

const NAME: &[u8] = b"env86\0";
/// Where the information structure goes, unless the kernel is there.
const INFO: u32 = 0x1_0000;
const PAGE: u32 = 4096;

/// A file handed to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its content.
    pub data: Vec<u8>,
    /// Its command line, by custom beginning with its name.
    pub cmdline: String,
}

/// Whether a file has a Multiboot header.
pub fn is_multiboot(file: &[u8]) -> bool {
    find_header(file).is_some()
}

/// The header's offset and flags.
fn find_header(file: &[u8]) -> Option<(usize, u32)> {
    (0..file.len().min(SEARCH)).step_by(4).find_map(|at| {
        let (magic, flags, checksum) = (u32_at(file, at)?, u32_at(file, at + 4)?, u32_at(file, at + 8)?);
        let valid = magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0;
        valid.then_some((at, flags))
    })
}

/// Loads a kernel and its modules, tells it of them, and gives the state to enter it with.
pub fn load(
    kernel: &[u8],
    modules: &[Module],
    cmdline: &str,
    board: &BoardInfo,
    mem: &mut Memory,
) -> Result<ArchState, BootError> {
    let (header, flags) = find_header(kernel)
        .ok_or(BootError::NotMultiboot("it has no Multiboot 1 header in its first 8 KiB"))?;
    if flags & REQUIRED & !(WANT_PAGES | WANT_MEMORY | WANT_VIDEO) != 0 {
        return Err(BootError::NotMultiboot("its header requires features that Multiboot 1 does not define"));
    }
    let (entry, range) = if flags & HAS_ADDRESSES != 0 {
        load_by_addresses(kernel, header, board, mem)?
    } else {
        let elf = Elf::parse(kernel, kernel.len() as u64)?;
        elf.load_file(kernel, board, mem)?;
        (elf.entry, elf.range())
    };

    let mut next = range.end.max(1 << 20);
    let size = build_info(0, &[], modules, cmdline, board, mem.size()).len() as u32;
    let low = INFO..INFO + size;
    let at = if low.end <= crate::GDT_ADDR && (range.end <= low.start || range.start >= low.end) {
        INFO
    } else {
        let at = page_up(next)?;
        next = at.saturating_add(size);
        fits("kernel", at.into(), next.into(), board, mem)?;
        at
    };
    let mut placed = Vec::new();
    for module in modules {
        let start = page_up(next)?;
        let end = u64::from(start) + module.data.len() as u64;
        fits("modules", start.into(), end, board, mem)?;
        mem.write(start, &module.data);
        next = end as u32;
        placed.push(start..next);
    }
    mem.write(at, &build_info(at, &placed, modules, cmdline, board, mem.size()));

    let mut state = protected_mode(entry, CODE_SELECTOR, mem);
    state.gpr[0] = LOADER_MAGIC; // EAX
    state.gpr[3] = at; // EBX
    Ok(state)
}

fn page_up(addr: u32) -> Result<u32, BootError> {
    addr.checked_next_multiple_of(PAGE).ok_or(BootError::NotMultiboot("it ends at 4 GiB"))
}

/// Loads a kernel whose header says where its parts go (the 'a.out kludge').
fn load_by_addresses(
    file: &[u8],
    header: usize,
    board: &BoardInfo,
    mem: &mut Memory,
) -> Result<(u32, Range<u32>), BootError> {
    let wrong = BootError::NotMultiboot("the load addresses in its header contradict each other");
    let field = |n: usize| u32_at(file, header + 12 + 4 * n);
    let (Some(header_addr), Some(load), Some(load_end), Some(bss_end), Some(entry)) =
        (field(0), field(1), field(2), field(3), field(4))
    else {
        return Err(BootError::Truncated {
            what: "Multiboot header",
            have: (file.len() - header) as u64,
            need: 32,
        });
    };
    let before = header_addr.checked_sub(load).map(|n| n as usize);
    let start = before.and_then(|n| header.checked_sub(n)).ok_or(wrong.clone())?;
    let len = match load_end {
        0 => file.len() - start,
        end => end.checked_sub(load).ok_or(wrong.clone())? as usize,
    };
    let Some(data) = start.checked_add(len).and_then(|end| file.get(start..end)) else {
        let need = start as u64 + len as u64;
        return Err(BootError::Truncated { what: "kernel", have: file.len() as u64, need });
    };
    let loaded_end = u64::from(load) + len as u64;
    let end = loaded_end.max(bss_end.into());
    fits("kernel", load.into(), end, board, mem)?;
    mem.write(load, data);
    elf::zero(loaded_end as u32, end as u32, mem);
    Ok((entry, load..end as u32))
}

/// The information structure to be placed at `at`, with what it points to behind it.
fn build_info(
    at: u32,
    placed: &[Range<u32>],
    modules: &[Module],
    cmdline: &str,
    board: &BoardInfo,
    memory_size: u32,
) -> Vec<u8> {
    let mut blob = vec![0; info::SIZE];
    let append = |blob: &mut Vec<u8>, bytes: &[u8]| {
        blob.resize(blob.len().next_multiple_of(4), 0);
        let addr = at + blob.len() as u32;
        blob.extend(bytes);
        addr
    };
    let append_text = |blob: &mut Vec<u8>, text: &str| append(blob, &[text.as_bytes(), &[0]].concat());

    let map = firmware::memory_map(board, memory_size);
    let map: Vec<u8> =
        map.iter().flat_map(|r| [20u32.to_le_bytes().as_slice(), &r.e820()].concat()).collect();
    let map_addr = append(&mut blob, &map);
    let cmdline_addr = append_text(&mut blob, cmdline);
    let name_addr = append(&mut blob, NAME);
    let mut list = Vec::new();
    for (i, module) in modules.iter().enumerate() {
        let text = append_text(&mut blob, &module.cmdline);
        let range = placed.get(i).cloned().unwrap_or_default();
        list.extend([range.start, range.end, text, 0].iter().flat_map(|v| v.to_le_bytes()));
    }
    let list_addr = append(&mut blob, &list);

    let mut put = |offset: usize, value: u32| blob[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    let mut flags =
        flag::MEMORY | flag::COMMAND_LINE | flag::MEMORY_MAP | flag::LOADER_NAME | flag::FRAMEBUFFER;
    if !modules.is_empty() {
        flags |= flag::MODULES;
        put(info::MODS_COUNT, modules.len() as u32);
        put(info::MODS_ADDR, list_addr);
    }
    put(info::FLAGS, flags);
    put(info::MEM_LOWER, firmware::EBDA >> 10);
    put(info::MEM_UPPER, (firmware::usable_top(board, memory_size) - (1 << 20)) >> 10);
    put(info::CMDLINE, cmdline_addr);
    put(info::MMAP_LENGTH, map.len() as u32);
    put(info::MMAP_ADDR, map_addr);
    put(info::LOADER_NAME, name_addr);
    // The screen: 80 by 25 characters of 16 bits, type 2 (EGA text).
    put(info::FRAMEBUFFER_ADDR, 0xb_8000);
    put(info::FRAMEBUFFER_PITCH, 160);
    put(info::FRAMEBUFFER_WIDTH, 80);
    put(info::FRAMEBUFFER_HEIGHT, 25);
    put(info::FRAMEBUFFER_KIND, 0x0210);
    blob
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BootSource, board::tests::sample};

    fn header(flags: u32, addresses: &[u32]) -> Vec<u8> {
        let checksum = 0u32.wrapping_sub(HEADER_MAGIC).wrapping_sub(flags);
        [&[HEADER_MAGIC, flags, checksum], addresses].concat().iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn boot(kernel: Vec<u8>, size: u64) -> Result<(ArchState, Box<Memory>), BootError> {
        let module = |data: &[u8], cmdline: &str| Module { data: data.to_vec(), cmdline: cmdline.into() };
        let modules = vec![module(&[1; 5000], "first"), module(b"two", "second x")];
        let mut mem = Memory::new(size).unwrap();
        let source = BootSource::Multiboot { kernel, modules, cmdline: "kernel arg".into() };
        let boot = crate::load(&source, &sample(false), &mut mem)?;
        Ok((boot.state, mem))
    }

    fn text(mem: &Memory, addr: u32) -> String {
        (addr..).map(|a| mem.read_u8(a)).take_while(|&b| b != 0).map(char::from).collect()
    }

    #[test]
    fn elf_kernel_learns_what_there_is() {
        let kernel = elf::tests::build(0x10_0000, 0x10_0000, 0x10_0020, &header(3, &[]), 0x3000);
        let (state, mem) = boot(kernel, 4 << 20).unwrap();
        assert_eq!((state.eip, state.gpr[0], state.cr0 & 1), (0x10_0020, LOADER_MAGIC, 1));
        assert_eq!((state.seg[1].selector, state.seg[3].selector), (0x08, 0x10));
        assert_eq!(mem.read_u64(state.gdtr.base + 0x10), 0x00cf_9300_0000_ffff);
        let at = |offset: usize| mem.read_u32(state.gpr[3] + offset as u32);
        assert_eq!(at(info::FLAGS) & 0x4d, 0x4d);
        assert_eq!((at(info::MEM_LOWER), at(info::MEM_UPPER)), (639, 3 << 10));
        assert_eq!(text(&mem, at(info::CMDLINE)), "kernel arg");
        assert_eq!(text(&mem, at(info::LOADER_NAME)), "env86");
        assert_eq!(at(info::MODS_COUNT), 2);
        let module = |i: u32, n: u32| mem.read_u32(at(info::MODS_ADDR) + 16 * i + 4 * n);
        assert_eq!((module(0, 0), module(0, 1)), (0x10_3000, 0x10_3000 + 5000));
        assert_eq!(mem.slice(module(1, 0), 3).unwrap(), b"two");
        assert_eq!(module(1, 0) % PAGE, 0);
        assert_eq!(text(&mem, module(1, 2)), "second x");
        let map = at(info::MMAP_ADDR);
        assert_eq!(at(info::MMAP_LENGTH) % 24, 0);
        assert_eq!((mem.read_u32(map), mem.read_u64(map + 12)), (20, firmware::EBDA.into()));
    }

    #[test]
    fn kernel_with_addresses_needs_no_format() {
        let load = 0x20_0000;
        let mut kernel = vec![0xaa; 16];
        kernel.extend(header(HAS_ADDRESSES, &[load + 16, load, 0, load + 0x1000, load + 48]));
        kernel.extend(b"code");
        let (state, mem) = boot(kernel.clone(), 4 << 20).unwrap();
        assert_eq!(state.eip, load + 48);
        assert_eq!(mem.slice(load + 48, 5).unwrap(), b"code\0");
        for at in 16..48 {
            for bit in [0, 7] {
                let mut bad = kernel.clone();
                bad[at] ^= 1 << bit;
                let _ = boot(bad, 4 << 20);
            }
        }
        for len in 0..kernel.len() {
            let _ = boot(kernel[..len].to_vec(), 1 << 20);
        }
    }

    #[test]
    fn a_kernel_in_low_memory_is_not_overwritten() {
        let code: Vec<u8> = [header(0, &[]), vec![0x90; 0x2_0000]].concat();
        let (state, mem) = boot(elf::tests::build(0x8000, 0x8000, 0x8010, &code, 0x2_1000), 4 << 20).unwrap();
        assert!(state.gpr[3] >= 1 << 20);
        assert_eq!(mem.read_u8(INFO), 0x90);
    }

    #[test]
    fn others_are_refused() {
        assert!(matches!(boot(vec![0; 9000], 4 << 20), Err(BootError::NotMultiboot(_))));
        assert!(matches!(boot(header(1 << 5, &[]), 4 << 20), Err(BootError::NotMultiboot(_))));
        assert!(matches!(boot(header(0, &[]), 4 << 20), Err(BootError::Elf(_))));
    }
}
