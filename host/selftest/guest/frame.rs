//! What the tests stand in: the start, the lines, interrupts, and the end.

use iced_x86::code_asm::*;

use crate::guest::{DETAIL, Guest, Patch, Result, STACK, Test};
use crate::serial::COM1;
use crate::{ps2, serial, timers};

/// The same as the library says.
const EXIT_PORT: u16 = 0xf4;

/// Offsets in Multiboot's information (specification 0.6.96, 3.3).
pub mod boot_info {
    /// KiB of memory above 1 MiB.
    pub const MEM_UPPER: u32 = 8;
    /// The command line.
    pub const CMDLINE: u32 = 16;
}

/// Colours: a character of a text below [`COLOURS`] is one of these. What it is on the screen, and for a terminal.
const NORMAL: &str = "\x01";
const STRONG: &str = "\x02";
const GOOD: &str = "\x03";
const BAD: &str = "\x04";
const WEAK: &str = "\x05";
const COLOURS: [(u8, &str); 6] = [
    (0x07, ""),
    (0x07, "\x1b[0m"),
    (0x0f, "\x1b[1m"),
    (0x0a, "\x1b[32m"),
    (0x0c, "\x1b[31m"),
    (0x08, "\x1b[90m"),
];

/// Verdicts.
const PASSED: u32 = 0;
const ABSENT: u32 = 1;
const FAILED: u32 = 2;

/// The text screen: 80 by 25 characters with attributes.
const SCREEN: u32 = 0xb_8000;
const SCREEN_END: u32 = SCREEN + 25 * LINE;
const LINE: u32 = 160;
const CRTC: u16 = 0x3d4;
const CURSOR_START: u8 = 0x0a;
const CURSOR_OFF: u8 = 0x20;

/// Columns of a test's name.
const NAME_WIDTH: usize = 13;

/// The interrupt controllers, and the vectors that their lines get.
const PIC1: u16 = 0x20;
const PIC2: u16 = 0xa0;
const VECTORS: [u8; 2] = [0x20, 0x28];
const END_OF_INTERRUPT: u8 = 0x20;
/// Only the timer, the second controller, and there the clock may interrupt.
const MASKS: [u8; 2] = [0xfa, 0xfe];
const EXCEPTIONS: u8 = 32;
const GATES: u32 = 48;
/// The selector of the code segment that the boot loader leaves.
const CODE_SELECTOR: u32 = 0x08;
/// An interrupt gate of 32 bits that is present, in the second word.
const GATE: u32 = 0x8e00;

const PCI_ADDRESS: u16 = 0xcf8;
const PCI_DATA: u16 = 0xcfc;
const PCI_ENABLE: u32 = 0x8000_0000;

/// The kernel with these tests.
pub fn kernel(tests: &[Test]) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut g = Guest::new()?;
    routines(&mut g)?;
    let serial_out = serial::send(&mut g)?;
    show(&mut g, serial_out)?;

    // The table of tests: what the line begins with, and where the code is.
    let mut rows = Vec::new();
    for (name, test) in tests {
        let name = g.text(&format!("{STRONG}{name:NAME_WIDTH$}"));
        let code = g.mark()?;
        test(&mut g)?;
        let passed = g.to.passed;
        g.jmp(passed)?;
        rows.push((name, code));
    }
    let words: Vec<u32> = rows.iter().flat_map(|(name, _)| [*name, 0]).collect();
    let table = g.words(&words);
    for (at, (_, code)) in (table + 4..).step_by(8).zip(&rows) {
        g.address(at, *code, Patch::Whole);
    }

    let interrupts = interrupts(&mut g)?;
    let entry = start(&mut g, interrupts)?;
    lines(&mut g, table, table + 8 * rows.len() as u32)?;
    g.finish(entry)
}

/// Texts, numbers, time.
fn routines(g: &mut Guest) -> Result {
    let (to, at) = (g.to, g.at);

    g.here(to.put)?;
    g.push(eax)?;
    g.push(edi)?;
    g.mov(edi, dword_ptr(at.tail))?;
    let next = g.mark()?;
    g.lodsb()?;
    g.stosb()?;
    g.test(al, al)?;
    g.jne(next)?;
    g.dec(edi)?;
    g.mov(dword_ptr(at.tail), edi)?;
    g.pop(edi)?;
    g.pop(eax)?;
    g.ret()?;

    g.here(to.put_decimal)?;
    g.pushad()?;
    g.mov(ecx, 10)?;
    g.xor(ebx, ebx)?;
    let divide = g.mark()?;
    g.xor(edx, edx)?;
    g.div(ecx)?;
    g.push(edx)?;
    g.inc(ebx)?;
    g.test(eax, eax)?;
    g.jne(divide)?;
    g.mov(edi, dword_ptr(at.tail))?;
    let digit = g.mark()?;
    g.pop(eax)?;
    g.add(al, i32::from(b'0'))?;
    g.stosb()?;
    g.dec(ebx)?;
    g.jne(digit)?;
    g.mov(dword_ptr(at.tail), edi)?;
    g.popad()?;
    g.ret()?;

    let nibble = g.create_label();
    g.here(to.put_hex)?;
    g.pushad()?;
    g.mov(edi, dword_ptr(at.tail))?;
    g.mov(ah, al)?;
    g.shr(al, 4)?;
    g.call(nibble)?;
    g.mov(al, ah)?;
    g.and(al, 15)?;
    g.call(nibble)?;
    g.mov(dword_ptr(at.tail), edi)?;
    g.popad()?;
    g.ret()?;
    g.here(nibble)?;
    let decimal = g.create_label();
    g.cmp(al, 10)?;
    g.jb(decimal)?;
    g.add(al, i32::from(b'a' - b'0' - 10))?;
    g.here(decimal)?;
    g.add(al, i32::from(b'0'))?;
    g.stosb()?;
    g.ret()?;

    g.here(to.now)?;
    g.rdtsc()?;
    g.sub(eax, dword_ptr(at.start))?;
    g.sbb(edx, dword_ptr(at.start + 4))?;
    g.div(dword_ptr(at.tsc_khz))?;
    g.ret()?;

    g.here(to.rest)?;
    let awake = g.create_label();
    g.cmp(dword_ptr(at.ticks), 0)?;
    g.je(awake)?;
    g.hlt()?;
    g.here(awake)?;
    g.ret()?;

    g.here(to.find_pci)?;
    let found = g.create_label();
    g.mov(ecx, eax)?;
    g.mov(ebx, PCI_ENABLE)?;
    let function = g.mark()?;
    read_pci(g, 0)?;
    g.cmp(eax, ecx)?;
    g.je(found)?;
    g.add(ebx, 0x100)?;
    g.cmp(ebx, PCI_ENABLE + 0x1_0000)?;
    g.jb(function)?;
    // The comparison found both equal; this clears the zero flag.
    g.test(ebx, ebx)?;
    g.here(found)?;
    g.ret()
}

/// Reads a register of the PCI function at EBX into EAX; changes DX.
pub fn read_pci(g: &mut Guest, register: u32) -> Result {
    g.lea(eax, dword_ptr(ebx + register))?;
    g.mov(dx, u32::from(PCI_ADDRESS))?;
    g.out(dx, eax)?;
    g.mov(dx, u32::from(PCI_DATA))?;
    g.in_(eax, dx)
}

/// Shows texts, with colours and ends of lines.
fn show(g: &mut Guest, serial_out: CodeLabel) -> Result {
    let ansi: Vec<u32> = COLOURS.iter().map(|(_, text)| g.text(text)).collect();
    let ansi = g.words(&ansi);
    let attributes = g.bytes(&COLOURS.map(|(attribute, _)| attribute));
    let attribute = g.words(&[0x07]);
    let place = g.words(&[SCREEN]);
    let [colour, end_of_line, full, done] = [(); 4].map(|()| g.create_label());

    let to = g.to.show;
    g.here(to)?;
    g.pushad()?;
    let next = g.mark()?;
    g.xor(eax, eax)?;
    g.lodsb()?;
    g.test(al, al)?;
    g.je(done)?;
    g.cmp(al, COLOURS.len() as i32)?;
    g.jb(colour)?;
    g.cmp(al, i32::from(b'\n'))?;
    g.je(end_of_line)?;
    g.mov(ah, byte_ptr(attribute))?;
    g.mov(edi, dword_ptr(place))?;
    g.cmp(edi, SCREEN_END)?;
    g.jae(full)?;
    g.stosw()?;
    g.mov(dword_ptr(place), edi)?;
    g.here(full)?;
    g.call(serial_out)?;
    g.jmp(next)?;

    g.here(colour)?;
    g.mov(cl, byte_ptr(eax + attributes))?;
    g.mov(byte_ptr(attribute), cl)?;
    g.push(esi)?;
    g.mov(esi, dword_ptr(eax * 4 + ansi))?;
    let sent = g.create_label();
    let letter = g.mark()?;
    g.lodsb()?;
    g.test(al, al)?;
    g.je(sent)?;
    g.call(serial_out)?;
    g.jmp(letter)?;
    g.here(sent)?;
    g.pop(esi)?;
    g.jmp(next)?;

    g.here(end_of_line)?;
    g.mov(eax, dword_ptr(place))?;
    g.sub(eax, SCREEN)?;
    g.xor(edx, edx)?;
    g.mov(ecx, LINE)?;
    g.div(ecx)?;
    g.inc(eax)?;
    g.mul(ecx)?;
    g.add(eax, SCREEN)?;
    g.mov(dword_ptr(place), eax)?;
    for byte in *b"\r\n" {
        g.mov(al, u32::from(byte))?;
        g.call(serial_out)?;
    }
    g.jmp(next)?;

    g.here(done)?;
    g.popad()?;
    g.ret()
}

/// Handlers of exceptions and interrupts, and the table of their gates. Gives the place of what LIDT loads.
fn interrupts(g: &mut Guest) -> Result<u32> {
    let gates = g.words(&[CODE_SELECTOR << 16, GATE].repeat(GATES as usize));
    let set = |g: &mut Guest, vector: u32, handler| g.address(gates + 8 * vector, handler, Patch::Gate);

    // An exception ends the test. The next one begins with an empty stack, so error codes make no difference.
    let exception = g.create_label();
    for vector in 0..EXCEPTIONS {
        let handler = g.mark()?;
        g.mov(eax, u32::from(vector))?;
        g.jmp(exception)?;
        set(g, vector.into(), handler);
    }
    g.here(exception)?;
    g.mov(esp, STACK)?;
    g.put("exception ")?;
    g.put_decimal()?;
    g.fail("")?;

    let ignored = g.mark()?;
    g.push(eax)?;
    g.mov(al, u32::from(END_OF_INTERRUPT))?;
    g.out(u32::from(PIC2), al)?;
    g.out(u32::from(PIC1), al)?;
    g.pop(eax)?;
    g.iretd()?;
    for vector in EXCEPTIONS.into()..GATES {
        set(g, vector, ignored);
    }
    let [timer, clock] = timers::handlers(g)?;
    set(g, VECTORS[0].into(), timer);
    set(g, VECTORS[1].into(), clock);

    let limit = 8 * GATES - 1;
    Ok(g.words(&[limit | gates << 16, gates >> 16]))
}

/// The last steps of a handler that has pushed EDX and then EAX.
pub fn end_of_interrupt(g: &mut Guest, second_controller: bool) -> Result {
    g.mov(al, u32::from(END_OF_INTERRUPT))?;
    if second_controller {
        g.out(u32::from(PIC2), al)?;
    }
    g.out(u32::from(PIC1), al)?;
    g.pop(eax)?;
    g.pop(edx)?;
    g.iretd()
}

/// From the boot loader to the first line.
fn start(g: &mut Guest, interrupts: u32) -> Result<CodeLabel> {
    let at = g.at;
    let entry = g.mark()?;
    g.cli()?;
    g.cld()?;
    g.mov(esp, STACK)?;
    g.mov(dword_ptr(at.boot_info), ebx)?;
    g.lidt(ptr(interrupts))?;
    for (port, vector, cascade, mask) in [(PIC1, VECTORS[0], 4, MASKS[0]), (PIC2, VECTORS[1], 2, MASKS[1])] {
        g.write(port, 0x11)?;
        for value in [vector, cascade, 1, mask] {
            g.write(port + 1, value)?;
        }
    }
    g.rdtsc()?;
    g.mov(dword_ptr(at.start), eax)?;
    g.mov(dword_ptr(at.start + 4), edx)?;
    g.write(CRTC, CURSOR_START)?;
    g.write(CRTC + 1, CURSOR_OFF)?;
    serial::set_up(g)?;
    let title = g.text(&format!(
        "{STRONG}This machine tests itself.{NORMAL} `env86 boot --help` says what else it can start.\n\n"
    ));
    g.mov(esi, title)?;
    g.run(|to| to.show)?;
    Ok(entry)
}

/// A line for each test, the summary, and the end.
fn lines(g: &mut Guest, table: u32, table_end: u32) -> Result {
    let (to, at) = (g.to, g.at);
    let row = g.words(&[table]);
    let counts = g.words(&[0; 3]);
    let verdicts = [format!("{GOOD}OK    {NORMAL}"), format!("{WEAK}none  "), format!("{BAD}FAIL  {NORMAL}")]
        .map(|text| g.text(&text));
    let verdicts = g.words(&verdicts);
    let end_of_line = g.text(&format!("{NORMAL}\n"));
    let [finished, with_reason] = [(); 2].map(|()| g.create_label());

    let next = g.mark()?;
    g.mov(dword_ptr(at.tail), DETAIL)?;
    g.mov(eax, dword_ptr(row))?;
    g.mov(esi, dword_ptr(eax))?;
    g.call(to.show)?;
    g.sti()?;
    g.jmp(dword_ptr(eax + 4))?;

    g.here(to.absent)?;
    g.mov(ebx, ABSENT)?;
    g.jmp(with_reason)?;
    g.here(to.failed)?;
    g.mov(ebx, FAILED)?;
    g.here(with_reason)?;
    g.mov(esp, STACK)?;
    g.call(to.put)?;
    g.jmp(finished)?;
    g.here(to.passed)?;
    g.mov(esp, STACK)?;
    g.mov(ebx, PASSED)?;
    g.here(finished)?;
    g.cld()?;
    g.inc(dword_ptr(ebx * 4 + counts))?;
    g.mov(eax, dword_ptr(at.tail))?;
    g.mov(byte_ptr(eax), 0)?;
    g.mov(esi, dword_ptr(ebx * 4 + verdicts))?;
    g.call(to.show)?;
    g.mov(esi, DETAIL)?;
    g.call(to.show)?;
    g.mov(esi, end_of_line)?;
    g.call(to.show)?;
    g.add(dword_ptr(row), 8)?;
    g.cmp(dword_ptr(row), table_end)?;
    g.jb(next)?;

    g.mov(dword_ptr(at.tail), DETAIL)?;
    g.put(&format!("\n{STRONG}self-test: "))?;
    for (verdict, text) in [(PASSED, " ok, "), (FAILED, " failed, "), (ABSENT, " absent")] {
        g.mov(eax, dword_ptr(counts + 4 * verdict))?;
        g.put_decimal()?;
        g.put(text)?;
    }
    g.put(&format!("{NORMAL}\n\nEsc switches the machine off.\n"))?;
    g.mov(esi, DETAIL)?;
    g.call(to.show)?;

    wait_for_escape(g)?;
    g.xor(eax, eax)?;
    g.cmp(dword_ptr(counts + 4 * FAILED), 0)?;
    g.setne(al)?;
    g.write_al(EXIT_PORT)?;
    switch_off(g)
}

/// Waits for Esc on the keyboard or on COM1.
fn wait_for_escape(g: &mut Guest) -> Result {
    const ESCAPE: i32 = 0x1b;
    let [com1, escape] = [(); 2].map(|()| g.create_label());
    let wait = g.mark()?;
    g.run(|to| to.rest)?;
    g.read(ps2::COMMAND)?;
    g.test(al, u32::from(ps2::OUTPUT_FULL))?;
    g.je(com1)?;
    g.in_(al, u32::from(ps2::DATA))?;
    g.cmp(al, i32::from(ps2::ESCAPE_PRESSED))?;
    g.je(escape)?;
    g.here(com1)?;
    g.read(COM1 + serial::LINE_STATUS)?;
    g.test(al, u32::from(serial::DATA_READY))?;
    g.je(wait)?;
    g.read(COM1)?;
    g.cmp(al, ESCAPE)?;
    g.jne(wait)?;
    g.here(escape)?;
    Ok(())
}

/// Switches the power off, as the PIIX4 does it, or halts for good.
fn switch_off(g: &mut Guest) -> Result {
    const PIIX4: u32 = 0x7113_8086;
    /// The base of its power management registers, and the control register there (82371AB, 7.1 and 7.2.3).
    const BASE: u32 = 0x40;
    const BASE_MASK: u32 = 0xffc0;
    const CONTROL: u32 = 4;
    /// To sleep, so deeply that the power is off.
    const SLEEP: u32 = 1 << 13;
    let halt = g.create_label();
    g.mov(eax, PIIX4)?;
    g.run(|to| to.find_pci)?;
    g.jne(halt)?;
    read_pci(g, BASE)?;
    g.and(eax, BASE_MASK)?;
    g.je(halt)?;
    g.lea(edx, dword_ptr(eax + CONTROL))?;
    g.mov(eax, SLEEP)?;
    g.out(dx, ax)?;
    g.here(halt)?;
    g.cli()?;
    let forever = g.mark()?;
    g.hlt()?;
    g.jmp(forever)
}
