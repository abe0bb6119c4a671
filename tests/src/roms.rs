//! Guests of a few instructions, as BIOS ROMs or Multiboot kernels.

use std::fs;
use std::io;
use std::path::Path;

/// Answers each byte from COM1 with itself and the count of them, which is in BL.
pub const ECHO: [u8; 31] = [
    0xba, 0xfc, 0x03, // 00 mov dx, 3FCh          modem control:
    0xb0, 0x03, //       03 mov al, 3             DTR and RTS, ready to receive
    0xee, //             05 out dx, al
    0x31, 0xdb, //       06 xor bx, bx
    0xba, 0xfd, 0x03, // 08 mov dx, 3FDh          line status:
    0xec, //             0B in al, dx
    0xa8, 0x01, //       0C test al, 1            data ready?
    0x74, 0xf8, //       0E jz 08h
    0xba, 0xf8, 0x03, // 10 mov dx, 3F8h
    0xec, //             13 in al, dx
    0xee, //             14 out dx, al
    0xfe, 0xc3, //       15 inc bl
    0x88, 0xd8, //       17 mov al, bl
    0x04, 0x30, //       19 add al, '0'
    0xee, //             1B out dx, al
    0xeb, 0xea, //       1C jmp 08h
    0xf4, //             1E hlt
];

/// Code for [`multiboot`] that shows each scan code on the text screen, 23h higher, which makes `A` of the key
/// that has it.
pub const SHOW_KEYS: [u8; 22] = [
    0xfc, //                         00 cld
    0xbf, 0x00, 0x80, 0x0b, 0x00, // 01 mov edi, B8000h
    0xe4, 0x64, //                   06 in al, 64h
    0xa8, 0x01, //                   08 test al, 1
    0x74, 0xfa, //                   0A jz 06h
    0xe4, 0x60, //                   0C in al, 60h
    0x04, 0x23, //                   0E add al, 23h
    0xb4, 0x07, //                   10 mov ah, 7
    0x66, 0xab, //                   12 stosw
    0xeb, 0xf0, //                   14 jmp 06h
];

/// A Multiboot kernel of this code (Multiboot specification 0.6.96, 3.1).
#[must_use]
pub fn multiboot(code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    const ADDRESSES: u32 = 1 << 16;
    const LOAD: u32 = 1 << 20;
    const HEADER: u32 = 32;
    let end = LOAD + HEADER + code.len() as u32;
    let checksum = 0u32.wrapping_sub(MAGIC + ADDRESSES);
    // Header, start, end of data and of what is cleared, entry.
    let header = [MAGIC, ADDRESSES, checksum, LOAD, LOAD, end, end, LOAD + HEADER];
    header.iter().flat_map(|word| word.to_le_bytes()).chain(code.iter().copied()).collect()
}

/// A BIOS ROM of 64 KiB with this code at F000:0000, where it starts.
#[must_use]
pub fn rom(code: &[u8]) -> Vec<u8> {
    let mut rom = vec![0; 64 << 10];
    rom[..code.len()].copy_from_slice(code);
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]); // jmp F000:0000
    rom
}

/// Makes a folder an image of a machine with 2 MiB of memory and this ROM as its BIOS.
pub fn make_image(folder: &Path, rom: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder.join("fs"))?;
    fs::write(folder.join("image.json"), r#"{"memory_size":2097152,"bios":{"url":"./rom"}}"#)?;
    fs::write(folder.join("fs.json"), r#"{"fsroot":[],"size":0,"version":3}"#)?;
    fs::write(folder.join("rom"), rom)
}

/// ROMs whose guests do nothing but fault, for ever, each in a way of its own: it has a name.
#[must_use]
pub fn fault_loops() -> [(&'static str, Vec<u8>); 4] {
    // xor ax, ax; mov ds, ax; mov ax, 7000h; mov ss, ax; mov sp, 8000h
    let start = [0x31, 0xc0, 0x8e, 0xd8, 0xb8, 0x00, 0x70, 0x8e, 0xd0, 0xbc, 0x00, 0x80];
    // mov word [0], 0B0Fh; jmp 0000:0000: UD2 there, and its vector leads to itself.
    let invalid = [0xc7, 0x06, 0, 0, 0x0f, 0x0b, 0xea, 0, 0, 0, 0];
    // lidt [cs:40h], where a limit of 0 lies; int3: a triple fault and a restart.
    let triple = [0x2e, 0x0f, 0x01, 0x1e, 0x40, 0x00, 0xcc];
    [
        ("invalid opcodes in real mode", rom(&[&start[..], &invalid].concat())),
        ("page faults", page_faults()),
        ("a task gate", task_gate()),
        ("triple faults", rom(&[&start[..], &triple].concat())),
    ]
}

/// Where [`protected`] puts the descriptors, with the interrupts' and the task state segments behind.
const GDT: u32 = 0x1000;
const IDT: u32 = 0x1100;
const TSS: [u32; 2] = [0x1200, 0x1300];
/// Where the handler is of what the code raises.
const HANDLER: u32 = 0xf_00c0;
/// Selectors: code, data, and the second task state segment.
const CS: u16 = 8;
const DS: u16 = 0x10;
const SECOND_TASK: u16 = 0x20;

/// A ROM that goes to flat 32-bit protected mode with its stack below 80000h and runs `code` there. Its
/// interrupt descriptor table has one gate.
fn protected(code: &[u8], handler: &[u8], (vector, gate): (u32, u64)) -> Vec<u8> {
    const TABLES: usize = 0x400;
    let mut rom = rom(&[
        0x8c, 0xc8, // mov ax, cs
        0x8e, 0xd8, // mov ds, ax
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xc0, // mov es, ax
        0xbe, 0x00, 0x04, // mov si, TABLES
        0xbf, 0x00, 0x10, // mov di, GDT
        0xb9, 0x00, 0x04, // mov cx, 400h
        0xf3, 0xa4, // rep movsb
        0x0f, 0x01, 0x16, 0x70, 0x00, // lgdt [70h]
        0x0f, 0x01, 0x1e, 0x78, 0x00, // lidt [78h]
        0x0f, 0x20, 0xc0, // mov eax, cr0
        0x0c, 0x01, // or al, 1
        0x0f, 0x22, 0xc0, // mov cr0, eax
        0x66, 0xea, 0x80, 0x00, 0x0f, 0x00, 0x08, 0x00, // jmp CS:F0080h
    ]);
    let mut put = |at: usize, bytes: &[u8]| rom[at..at + bytes.len()].copy_from_slice(bytes);
    let table = |base: u32| [&0xffu16.to_le_bytes()[..], &base.to_le_bytes()].concat();
    put(0x70, &table(GDT));
    put(0x78, &table(IDT));
    let start = [
        0x66, 0xb8, 0x10, 0x00, // mov ax, DS
        0x8e, 0xd8, // mov ds, ax
        0x8e, 0xd0, // mov ss, ax
        0xbc, 0x00, 0x00, 0x08, 0x00, // mov esp, 80000h
    ];
    put(0x80, &[&start[..], code].concat());
    put(0xc0, handler);
    let in_tables = |linear: u32| TABLES + (linear - GDT) as usize;
    let task = |base: u32| 0x0000_8900_0000_0067 | u64::from(base) << 16;
    let descriptors = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, task(TSS[0]), task(TSS[1])];
    for (at, descriptor) in (in_tables(GDT)..).step_by(8).zip(descriptors) {
        put(at, &descriptor.to_le_bytes());
    }
    put(in_tables(IDT + 8 * vector), &gate.to_le_bytes());
    // The second task: EIP, EFLAGS, ESP, and the segments from ES on.
    for (offset, value) in [(0x20, HANDLER), (0x24, 2), (0x38, 0x7_0000)] {
        put(in_tables(TSS[1] + offset), &value.to_le_bytes());
    }
    for (offset, selector) in (0x48..).step_by(4).zip([DS, CS, DS, DS, DS, DS]) {
        put(in_tables(TSS[1] + offset), &selector.to_le_bytes());
    }
    rom
}

/// The handler of page faults reads from a page that is not there.
fn page_faults() -> Vec<u8> {
    let code = [
        0xc7, 0x05, 0x00, 0x00, 0x01, 0x00, 0x83, 0x00, 0x00, 0x00, // mov dword [10000h], 83h: 4 MiB
        0xb8, 0x10, 0x00, 0x00, 0x00, // mov eax, 10h
        0x0f, 0x22, 0xe0, // mov cr4, eax        page size extensions
        0xb8, 0x00, 0x00, 0x01, 0x00, // mov eax, 10000h
        0x0f, 0x22, 0xd8, // mov cr3, eax
        0x0f, 0x20, 0xc0, // mov eax, cr0
        0x0d, 0x00, 0x00, 0x00, 0x80, // or eax, 80000000h
        0x0f, 0x22, 0xc0, // mov cr0, eax
        0xa1, 0x00, 0x00, 0x80, 0x00, // mov eax, [800000h]
    ];
    let handler = [
        0xbc, 0x00, 0x00, 0x08, 0x00, // mov esp, 80000h
        0xa1, 0x00, 0x00, 0x80, 0x00, // mov eax, [800000h]
    ];
    let gate = 0x0000_8e00_0000_0000 | u64::from(CS) << 16 | u64::from(HANDLER & 0xffff);
    protected(&code, &handler, (14, gate | u64::from(HANDLER >> 16) << 48))
}

/// A task that handles invalid opcodes returns to the one that has raised it, without mending it.
fn task_gate() -> Vec<u8> {
    let code = [
        0x66, 0xb8, 0x18, 0x00, // mov ax, 18h: the first task
        0x0f, 0x00, 0xd8, // ltr ax
        0x0f, 0x0b, // ud2
    ];
    let handler = [
        0xcf, // iret: the task goes on behind it the next time
        0xeb, 0xfd, // jmp HANDLER
    ];
    protected(&code, &handler, (6, 0x0000_8500_0000_0000 | u64::from(SECOND_TASK) << 16))
}
