//! A Linux kernel that a BIOS starts: an option ROM, which asks the board's firmware configuration for the kernel's
//! parts when the BIOS boots from it, and enters the kernel's own real-mode code (kernel documentation,
//! `arch/x86/boot.rst`).

use crate::linux::{Part, Parts};
use crate::{BootError, checksum::set_checksum};

/// What a BIOS is to find in the board's firmware configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirmwareConfig {
    /// Items by number.
    pub items: Vec<(u16, Vec<u8>)>,
    /// Files by name.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Where SeaBIOS looks for ROMs that belong to no device; v86's has this name.
const ROM_FILE: &str = "genroms/kernel.bin";
/// The order of boot devices, one a line, as SeaBIOS names them; it tries the rest afterwards.
const ORDER_FILE: &str = "bootorder";

/// The items of each part of a kernel: its address, its size and its bytes, as QEMU numbers them.
mod item {
    pub const KERNEL: [u16; 3] = [0x07, 0x08, 0x11];
    pub const INITRD: [u16; 3] = [0x0a, 0x0b, 0x12];
    pub const COMMAND_LINE: [u16; 3] = [0x13, 0x14, 0x15];
    pub const SETUP: [u16; 3] = [0x16, 0x17, 0x18];
}

/// What makes a BIOS start this kernel first.
pub fn linux(
    kernel: &[u8],
    initrd: Option<&[u8]>,
    cmdline: &str,
    memory_size: u32,
) -> Result<FirmwareConfig, BootError> {
    let Parts { setup, kernel, initrd, cmdline } =
        Parts::new(kernel, initrd.unwrap_or_default(), cmdline, memory_size)?;
    let rom = rom(&[
        (item::SETUP[2], &setup),
        (item::KERNEL[2], &kernel),
        (item::INITRD[2], &initrd),
        (item::COMMAND_LINE[2], &cmdline),
    ]);
    let order = format!("/rom@{ROM_FILE}\n").into_bytes();
    let mut items = Vec::new();
    let parts =
        [(item::SETUP, setup), (item::KERNEL, kernel), (item::INITRD, initrd), (item::COMMAND_LINE, cmdline)];
    for ([address, size, data], part) in parts {
        items.push((address, part.address.to_le_bytes().to_vec()));
        items.push((size, (part.data.len() as u32).to_le_bytes().to_vec()));
        items.push((data, part.data));
    }
    Ok(FirmwareConfig { items, files: vec![(ROM_FILE.into(), rom), (ORDER_FILE.into(), order)] })
}

/// The ROM, all of it one block of 512 bytes.
const SIZE: usize = 512;
const BLOCKS: u8 = 1;
/// Offsets in the ROM: the BIOS calls the first (PCI Firmware Specification 3.0, 5.2.1); the second leads to the
/// expansion header.
const INIT: usize = 0x03;
const HEADER_POINTER: usize = 0x1a;
const HEADER: usize = 0x20;
const NAME: usize = 0x40;
const ENTRY: usize = 0x60;
const TRANSFERS: usize = 0xe0;
/// The last byte makes the sum of all zero.
const CHECKSUM: usize = SIZE - 1;
/// What a boot menu shows.
const PRODUCT: &[u8] = b"Linux kernel\0";

/// Control of a DMA transfer of the firmware configuration: the item in the upper half, from its beginning, to memory.
const SELECT_AND_READ: u32 = 1 << 3 | 1 << 1;

fn rom(parts: &[(u16, &Part)]) -> Vec<u8> {
    let mut rom = vec![0; SIZE];
    let mut put = |at: usize, bytes: &[u8]| rom[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x55, 0xaa, BLOCKS]);
    put(INIT, &[0xcb]); // retf
    put(HEADER_POINTER, &(HEADER as u16).to_le_bytes());
    put(HEADER, &expansion_header());
    put(NAME, PRODUCT);
    put(ENTRY, &entry(parts.len() as u16));
    for (i, (item, part)) in parts.iter().enumerate() {
        let mut transfer = (u32::from(*item) << 16 | SELECT_AND_READ).to_be_bytes().to_vec();
        transfer.extend((part.data.len() as u32).to_be_bytes());
        transfer.extend(u64::from(part.address).to_be_bytes());
        put(TRANSFERS + i * transfer.len(), &transfer);
    }
    set_checksum(&mut rom, CHECKSUM);
    rom
}

/// The expansion header of Plug and Play (BIOS Boot Specification 1.01, 3.3), with a bootstrap entry vector.
fn expansion_header() -> Vec<u8> {
    const CLASS_BOOT: [u8; 3] = [0x02, 0x80, 0x00];
    /// Indicators: an initial program load device, in a ROM that may be read from RAM.
    const BOOTS: u8 = 0x14;
    let word = |value: usize| (value as u16).to_le_bytes();
    let mut header = b"$PnP".to_vec();
    header.extend([1, 2]); // version; length in 16 bytes
    header.extend([0; 2 + 1 + 1]); // no next header; reserved; checksum
    header.extend([0; 4 + 2]); // no identifier; no manufacturer
    header.extend(word(NAME));
    header.extend(CLASS_BOOT);
    header.push(BOOTS);
    header.extend([0; 4]); // no boot connection and disconnect vectors
    header.extend(word(ENTRY));
    header.extend([0; 4]); // no resources
    set_checksum(&mut header, 9);
    header
}

/// The code at the bootstrap entry vector: it makes each transfer from a copy on the stack, because the ROM may be
/// write-protected and the device writes into a transfer what became of it. Then it enters the kernel.
fn entry(transfers: u16) -> Vec<u8> {
    let [count_low, count_high] = transfers.to_le_bytes();
    let [table_low, table_high] = (TRANSFERS as u16).to_le_bytes();
    let [segment_low, segment_high] = ((Parts::SETUP >> 4) as u16).to_le_bytes();
    let [entry_low, entry_high] = ((Parts::SETUP >> 4) as u16 + 0x20).to_le_bytes();
    let [stack_low, stack_high] = Parts::STACK.to_le_bytes();
    #[rustfmt::skip]
    let code = vec![
        0xfa,                                       // cli
        0xfc,                                       // cld
        0x83, 0xec, 0x10,                           // sub sp, 16
        0x16, 0x07,                                 // push ss; pop es
        0x0e, 0x1f,                                 // push cs; pop ds
        0x66, 0x31, 0xdb,                           // xor ebx, ebx
        0x8c, 0xd3,                                 // mov bx, ss
        0x66, 0xc1, 0xe3, 0x04,                     // shl ebx, 4
        0x66, 0x0f, 0xb7, 0xc4,                     // movzx eax, sp
        0x66, 0x01, 0xc3,                           // add ebx, eax
        0x66, 0x0f, 0xcb,                           // bswap ebx
        0xbe, table_low, table_high,                // mov si, TRANSFERS
        0xbd, count_low, count_high,                // mov bp, count
        0x89, 0xe7,                                 // next: mov di, sp
        0xb9, 0x08, 0x00,                           // mov cx, 8
        0xf3, 0xa5,                                 // rep movsw
        0xba, 0x14, 0x05,                           // mov dx, 514h
        0x66, 0x31, 0xc0,                           // xor eax, eax
        0x66, 0xef,                                 // out dx, eax
        0xb2, 0x18,                                 // mov dl, 18h
        0x66, 0x89, 0xd8,                           // mov eax, ebx
        0x66, 0xef,                                 // out dx, eax
        0x4d,                                       // dec bp
        0x75, 0xe7,                                 // jnz next
        0xb8, segment_low, segment_high,            // mov ax, setup's segment
        0x8e, 0xd8,                                 // mov ds, ax
        0x8e, 0xc0,                                 // mov es, ax
        0x8e, 0xe0,                                 // mov fs, ax
        0x8e, 0xe8,                                 // mov gs, ax
        0x8e, 0xd0,                                 // mov ss, ax
        0xbc, stack_low, stack_high,                // mov sp, stack
        0xea, 0x00, 0x00, entry_low, entry_high,    // jmp far
    ];
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::tests::bzimage;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, &b| sum.wrapping_add(b))
    }

    #[test]
    fn a_bios_finds_the_rom_and_the_rom_the_kernel() {
        const MEMORY: u32 = 32 << 20;
        let config = linux(&bzimage(b"payload"), Some(b"a RAM disk"), "quiet", MEMORY).unwrap();
        let [(name, rom), (order, first)] = &config.files[..] else { panic!("{:?}", config.files) };
        assert_eq!(
            (name.as_str(), order.as_str(), &first[..]),
            (ROM_FILE, ORDER_FILE, &b"/rom@genroms/kernel.bin\n"[..])
        );
        assert_eq!((&rom[..3], rom.len(), sum(rom)), (&[0x55, 0xaa, 1][..], 512, 0));
        let header = &rom[usize::from(rom[HEADER_POINTER])..][..32];
        assert_eq!((&header[..4], sum(header)), (&b"$PnP"[..], 0));
        assert_eq!(usize::from(header[26]), ENTRY);
        let item = |number: u16| &config.items.iter().find(|(n, _)| *n == number).unwrap().1;
        let number = |item: &[u8]| u32::from_le_bytes(item.try_into().unwrap());
        // Each transfer is of an item, all of it, to the address that another item tells.
        for (i, [address, size, data]) in
            [item::SETUP, item::KERNEL, item::INITRD, item::COMMAND_LINE].into_iter().enumerate()
        {
            let transfer = &rom[TRANSFERS + 16 * i..][..16];
            let at = |at: usize| u32::from_be_bytes(transfer[at..at + 4].try_into().unwrap());
            assert_eq!(at(0), u32::from(data) << 16 | SELECT_AND_READ);
            assert_eq!((at(4), at(8), at(12)), (number(item(size)), 0, number(item(address))));
            assert_eq!(at(4) as usize, item(data).len());
        }
        let setup = item(item::SETUP[2]);
        assert_eq!(setup[0x218..0x21c], **item(item::INITRD[0]));
        assert_eq!(setup[0x228..0x22c], **item(item::COMMAND_LINE[0]));
        assert!(number(item(item::INITRD[0])) < MEMORY - (512 << 10));
        assert_eq!(
            (&item(item::INITRD[2])[..], &item(item::COMMAND_LINE[2])[..]),
            (&b"a RAM disk"[..], &b"quiet\0"[..])
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (len, memory) in [(0, 4 << 20), (12 << 20, 16 << 20)] {
            let error = linux(&bzimage(b""), Some(&vec![0; len]), "", memory).unwrap_err();
            assert!(matches!(error, BootError::Memory { .. }), "{error:?}");
        }
        let mut kernel = bzimage(b"");
        kernel.resize(0x10_0000, 0);
        kernel[0x1f1] = 255;
        let error = linux(&kernel, None, "", 64 << 20).unwrap_err();
        assert!(matches!(error, BootError::NotLinux(_) | BootError::Truncated { .. }), "{error:?}");
        for len in 0..kernel.len().min(0x500) {
            let _ = linux(&kernel[..len], None, "", 64 << 20);
        }
    }
}
