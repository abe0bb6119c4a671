//! Video memory and read-only pages as the processor sees them.

use crate::cpu::Exit;
use crate::memory::{Generation, Placement, Region, SHADOW, Window};
use crate::{ArchState, Bus, Cpu, CpuConfig, Memory, Segment, Width};

const BAR: u32 = 0xe000_0000;
const WINDOW: u32 = 0xa_0000;
const BANK: u32 = 0x1_0000;

/// A card with 1 MiB at [`BAR`], whose bank at [`WINDOW`] a port chooses, and a bus master that
/// writes the byte of another port to the start of the memory. A third port makes the first page of the
/// shadow area read-only, or writable.
struct Card {
    region: Region,
    window: Window,
}

const PORT_BANK: u16 = 0x10;
const PORT_DMA: u16 = 0x11;
const PORT_LOCK: u16 = 0x12;
const NO_BANK: u32 = 0xff;

impl Card {
    fn new(mem: &mut Memory) -> Self {
        let (region, bar) = (mem.add_region(1 << 20), mem.add_window());
        mem.place(bar, Some(Placement { address: BAR, len: region.size(), region, offset: 0 }));
        let card = Self { region, window: mem.add_window() };
        card.set_bank(mem, 0);
        card
    }

    fn set_bank(&self, mem: &mut Memory, bank: u32) {
        let region = self.region;
        let to = Placement { address: WINDOW, len: BANK, region, offset: bank * BANK };
        mem.place(self.window, (bank != NO_BANK).then_some(to));
    }
}

impl Bus for Card {
    fn port_write(&mut self, mem: &mut Memory, port: u16, _: Width, value: u32) {
        match port {
            PORT_BANK => self.set_bank(mem, value),
            PORT_DMA => mem.write_u8(BAR, value as u8),
            PORT_LOCK => {
                mem.set_read_only(value.into());
            }
            _ => {}
        }
    }
    fn now(&mut self) -> u64 {
        0
    }
    fn random(&mut self) -> u32 {
        0
    }
}

/// Flat 32-bit ring 0 at 1000h, with EBX and ESI at the framebuffer and EDI at the window.
fn machine(code: &[u8]) -> (Cpu, Card) {
    let mut mem = Memory::new(1 << 20).unwrap();
    mem.write(0x1000, code);
    let card = Card::new(&mut mem);
    let mut cpu = Cpu::new(mem, CpuConfig::default());
    let mut s = ArchState { eip: 0x1000, cr0: 1, ..ArchState::default() };
    s.seg = [Segment::flat(0x10, 0x93); 6];
    s.seg[1] = Segment::flat(8, 0x9b);
    s.gpr = [0, 0, 0, BAR, 0x8000, 0, BAR, WINDOW];
    cpu.set_state(&s);
    (cpu, card)
}

fn run(cpu: &mut Cpu, card: &mut Card) {
    assert_eq!(cpu.run(card, 1_000_000), Exit::Halted);
}

fn again(cpu: &mut Cpu, card: &mut Card) {
    let state = cpu.state();
    cpu.set_state(&ArchState { eip: 0x1000, halted: false, ..state });
    run(cpu, card);
}

fn changes(cpu: &Cpu, card: &Card, since: Generation) -> Vec<u32> {
    cpu.mem.changes(card.region, 0..1 << 20, since).flat_map(|part| part.step_by(0x1000)).collect()
}

#[test]
fn stores_take_the_fast_path_and_are_noted_once_a_generation() {
    // mov ecx, 10000; l: mov [ebx], ecx; mov [ebx+5ffeh], ecx; dec ecx; jnz l; hlt
    let (mut cpu, mut card) =
        machine(&[0xb9, 0x10, 0x27, 0, 0, 0x89, 0x0b, 0x89, 0x8b, 0xfc, 0x5f, 0, 0, 0x49, 0x75, 0xf5, 0xf4]);
    let first = cpu.mem.end_generation();
    run(&mut cpu, &mut card);
    assert!(cpu.stats().tlb_misses < 10, "{}", cpu.stats().tlb_misses);
    let second = cpu.mem.end_generation();
    assert_eq!(changes(&cpu, &card, first), [0, 0x5000]);
    assert!(changes(&cpu, &card, second).is_empty());
    // The TLB still has both pages, and may not let them be written unseen.
    cpu.halted = false;
    cpu.eip = 0x1000;
    run(&mut cpu, &mut card);
    assert_eq!(changes(&cpu, &card, second), [0, 0x5000]);
    assert_eq!(cpu.mem.read_u32(BAR + 0x5ffc), 1);
}

/// Runs it once more with the TLB as it is.
fn go_on(cpu: &mut Cpu, card: &mut Card) {
    cpu.eip = 0x1000;
    cpu.halted = false;
    run(cpu, card);
}

#[test]
fn a_page_that_became_read_only_keeps_what_it_has_whatever_writes() {
    const AT: u32 = SHADOW.start + 0x1ff8;
    let writes: [&[u8]; 8] = [
        &[0x89, 0x07],                                                 // mov [edi], eax
        &[0x89, 0x47, 6],                                              // mov [edi+6], eax
        &[0x01, 0x07],                                                 // add [edi], eax
        &[0x0f, 0xab, 0x07],                                           // bts [edi], eax
        &[0x89, 0xfc, 0x50],                                           // mov esp, edi; push eax
        &[0x57, 0xb9, 16, 0, 0, 0, 0xf3, 0xaa, 0x5f], // push edi; mov ecx, 16; rep stosb; pop edi
        &[0xa3, 0, 0x90, 0, 0, 0x57, 0xbe, 0, 0x90, 0, 0, 0xa5, 0x5f], // mov [9000h], eax; push edi; ...; movsd
        &[0x66, 0x0f, 0x6e, 0xc0, 0xf3, 0x0f, 0x7f, 0x07],             // movd xmm0, eax; movdqu [edi], xmm0
    ];
    for write in writes {
        let code = [&[0x40], write, &[0xf4]].concat(); // inc eax
        let (mut cpu, mut card) = machine(&code);
        let mut s = cpu.state();
        (s.gpr[7], s.cr4) = (AT, 1 << 9);
        cpu.set_state(&s);
        let bytes = |cpu: &Cpu| cpu.mem.slice(SHADOW.start, SHADOW.len() as u32).unwrap().to_vec();
        run(&mut cpu, &mut card);
        let before = bytes(&cpu);
        assert!(before.iter().any(|byte| *byte != 0), "{write:x?}");
        cpu.mem.set_read_only(0b110);
        go_on(&mut cpu, &mut card);
        assert!(bytes(&cpu) == before, "{write:x?} while it is read-only");
        cpu.mem.set_read_only(0b1);
        go_on(&mut cpu, &mut card);
        assert!(bytes(&cpu) != before, "{write:x?} when it is writable again");
    }
}

#[test]
fn a_page_is_read_only_at_the_next_instruction_and_its_code_stays() {
    // mov byte [edi], c3h; call edi; mov al, 1; out 12h, al; mov byte [edi], f4h; call edi;
    // mov dl, [edi]; mov al, 0; out 12h, al; mov byte [edi], 90h; call edi; hlt
    let (mut cpu, mut card) = machine(&[
        0xc6, 0x07, 0xc3, 0xff, 0xd7, 0xb0, 1, 0xe6, 0x12, 0xc6, 0x07, 0xf4, 0xff, 0xd7, 0x8a, 0x17, 0xb0, 0,
        0xe6, 0x12, 0xc6, 0x07, 0x90, 0xff, 0xd7, 0xf4,
    ]);
    let mut s = cpu.state();
    s.gpr[7] = SHADOW.start;
    cpu.set_state(&s);
    cpu.mem.write(SHADOW.start + 1, &[0x41, 0xc3]); // inc ecx; ret
    run(&mut cpu, &mut card);
    assert_eq!(cpu.regs.r32(2) as u8, 0xc3);
    assert_eq!((cpu.regs.r32(1), cpu.mem.read_u8(SHADOW.start)), (1, 0x90));
}

#[test]
fn a_read_and_a_page_that_is_only_crossed_into() {
    // mov eax, [ebx+2000h]; mov [ebx+2ffeh], eax; hlt
    let (mut cpu, mut card) = machine(&[0x8b, 0x83, 0, 0x20, 0, 0, 0x89, 0x83, 0xfe, 0x2f, 0, 0, 0xf4]);
    let first = cpu.mem.end_generation();
    run(&mut cpu, &mut card);
    assert_eq!(changes(&cpu, &card, first), [0x2000, 0x3000]);
}

#[test]
fn a_bank_is_there_at_the_next_instruction() {
    // mov byte [edi], 1; mov al, 2; out 10h, al; mov byte [edi], 3; mov al, ffh; out 10h, al;
    // mov byte [edi], 5; mov cl, [edi]; mov al, 0; out 10h, al; mov dl, [edi]; hlt
    let (mut cpu, mut card) = machine(&[
        0xc6, 0x07, 1, 0xb0, 2, 0xe6, 0x10, 0xc6, 0x07, 3, 0xb0, 0xff, 0xe6, 0x10, 0xc6, 0x07, 5, 0x8a, 0x0f,
        0xb0, 0, 0xe6, 0x10, 0x8a, 0x17, 0xf4,
    ]);
    for _ in 0..2 {
        again(&mut cpu, &mut card);
        assert_eq!((cpu.mem.read_u8(BAR), cpu.mem.read_u8(BAR + 2 * BANK)), (1, 3));
        assert_eq!((cpu.regs.r32(1) as u8, cpu.regs.r32(2) as u8), (0xff, 1));
    }
}

#[test]
fn code_in_video_memory_runs_and_may_change() {
    // call ebx; mov byte [edi+1], 7; call ebx; mov al, 4; out 11h, al; call ebx; hlt
    let (mut cpu, mut card) =
        machine(&[0xff, 0xd3, 0xc6, 0x47, 1, 7, 0xff, 0xd3, 0xb0, 4, 0xe6, 0x11, 0xff, 0xd3, 0xf4]);
    // mov al, 5; add dl, al; ret
    cpu.mem.write(BAR, &[0xb0, 5, 0x00, 0xc2, 0xc3]);
    run(&mut cpu, &mut card);
    // At last, by the bus master, it is: add al, 7.
    assert_eq!(cpu.regs.r32(2) as u8, 5 + 7 + (4 + 7));
}

#[test]
fn code_in_a_bank_that_is_switched_away_runs_no_further() {
    // Both banks: mov al, 1; out 10h, al; mov cl, n; hlt
    let (mut cpu, mut card) = machine(&[0xff, 0xe7]);
    for bank in 0..2 {
        cpu.mem.write(BAR + bank * BANK, &[0xb0, 1, 0xe6, 0x10, 0xb1, 4 + bank as u8, 0xf4]);
    }
    for _ in 0..2 {
        cpu.with_bus(|_, mem| card.set_bank(mem, 0));
        again(&mut cpu, &mut card);
        assert_eq!(cpu.regs.r32(1) as u8, 5);
    }
}

#[test]
fn string_instructions_reach_video_memory() {
    // mov ecx, 4000h; mov eax, 01010101h; rep stosd; mov esi, BAR; mov edi, 20000h; mov ecx, 4000h; rep movsd; hlt
    let (mut cpu, mut card) = machine(&[
        0xb9, 0, 0x40, 0, 0, 0xb8, 1, 1, 1, 1, 0xf3, 0xab, 0xbf, 0, 0, 2, 0, 0xb9, 0, 0x40, 0, 0, 0xf3, 0xa5,
        0xf4,
    ]);
    let first = cpu.mem.end_generation();
    run(&mut cpu, &mut card);
    assert_eq!(changes(&cpu, &card, first).len(), 16);
    assert_eq!(cpu.mem.slice(0x2_0000, BANK), Some(&[1; BANK as usize][..]));
}

#[test]
fn page_tables_may_lie_in_video_memory() {
    // mov eax, [401000h]; mov [401004h], eax; hlt
    let (mut cpu, mut card) = machine(&[0xa1, 0, 0x10, 0x40, 0, 0xa3, 4, 0x10, 0x40, 0, 0xf4]);
    for page in 0..0x100 {
        cpu.mem.write_u32(BAR + 0x1000 + 4 * page, page << 12 | 3);
    }
    cpu.mem.write_u32(BAR, BAR + 0x1003);
    cpu.mem.write_u32(BAR + 4, BAR + 0x2003);
    cpu.mem.write_u32(BAR + 0x2004, BAR + 0x3003);
    cpu.mem.write_u32(BAR + 0x3000, 0x1234_5678);
    let first = cpu.mem.end_generation();
    let state = cpu.state();
    cpu.set_state(&ArchState { cr0: 0x8000_0001, cr3: BAR, ..state });
    run(&mut cpu, &mut card);
    assert_eq!(cpu.mem.read_u32(BAR + 0x3004), 0x1234_5678);
    assert_eq!(cpu.mem.read_u32(BAR + 0x2004) & 0x60, 0x60, "accessed and dirty");
    assert_eq!(changes(&cpu, &card, first), [0, 0x1000, 0x2000, 0x3000]);
}
