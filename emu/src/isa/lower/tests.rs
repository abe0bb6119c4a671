//! Blocks against their instructions one by one.

use crate::bus::Unconnected;
use crate::cpu::tests::flat;
use crate::{Cpu, Exit};

const IDT: u32 = 0x400;
const GDT: u32 = 0x800;
const CODE: u32 = 0x1000;
const HANDLER: u32 = 0x2000;
const PAGE_DIRECTORY: u32 = 0x3000;
const PAGE_TABLE: u32 = 0x4000;
/// The address of a function, and behind it two: inc ecx; ret, and inc edx; ret.
const LINKAGE: u32 = 0x5000;
const FUNCTION: u32 = LINKAGE + 0x10;
const ANOTHER: u32 = LINKAGE + 0x20;
/// How often a loop is still to be run.
const LOOPS: u32 = LINKAGE + 0x30;
/// Registers point to places around the end of this page, and the one behind it is absent.
const DATA: u32 = 0x6000;
const ABSENT: u32 = 0x7000;
const STACK: u32 = 0x9000;
const HLT: u8 = 0xf4;

/// Numbers that are the same each time.
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % n
    }

    fn register(&mut self) -> u8 {
        // ESP is for the stack, and ESI and EDI go on pointing to data.
        [0, 1, 2, 3, 5][self.below(5) as usize]
    }

    /// ModR/M and displacement of a memory operand, by ESI or EDI, or ESI and EAX.
    fn memory(&mut self, reg: u8) -> Vec<u8> {
        let disp = self.below(64) as u8;
        match self.below(4) {
            0 => vec![0x44 | reg << 3, 0x06, disp],
            1 => vec![0x47 | reg << 3, disp],
            _ => vec![0x46 | reg << 3, disp],
        }
    }

    /// An instruction of those that handlers are joined for, or that do nothing.
    fn instruction(&mut self) -> Vec<u8> {
        let (d, s) = (self.register(), self.register());
        let imm = self.below(256) as u8;
        let with = |opcode: &[u8], rest: Vec<u8>| [opcode, &rest].concat();
        let alu = [0x01, 0x29, 0x21, 0x09, 0x31, 0x11, 0x39, 0x85][self.below(8) as usize];
        let shift = [4, 5, 7][self.below(3) as usize];
        match self.below(57) {
            0 | 1 => with(&[0x8b], self.memory(d)),
            2 | 3 => with(&[0x89], self.memory(s)),
            4 => [&[0xc7][..], &self.memory(0), &[imm, 0, 0, 0]].concat(),
            5 => vec![0x89, 0xc0 | s << 3 | d],
            6 => vec![0xb8 | d, imm, 0, 0, 0],
            7 => with(&[0x8d], self.memory(d)),
            8 => vec![0x50 | s],
            9 => vec![0x58 | d],
            10 => vec![0x6a, imm],
            11 => with(&[0xff], self.memory(6)),
            12 => vec![0x0f, 0xb6, 0xc0 | d << 3 | s & 3],
            13 => with(&[0x0f, 0xb6], self.memory(d)),
            14 => vec![alu, 0xc0 | s << 3 | d],
            15 => vec![0x83, 0xc0 | (imm & 7) << 3 | d, imm],
            16 => vec![0xc1, 0xc0 | shift << 3 | d, imm & 31],
            17 => with(&[0x3b], self.memory(d)),
            18 => with(&[0x65, 0x8b], self.memory(d)),
            19 => with(&[0x65, 0x2b], self.memory(d)),
            20 => with(&[0x8a], self.memory(d & 3)),
            21 => with(&[0x88], self.memory(s & 3)),
            22 | 24 => vec![0x40 | d],
            25 | 26 => vec![0x48 | d],
            27 => with(&[0x0f, 0xb7], self.memory(d)),
            28 => [&[0xc6][..], &self.memory(0), &[imm]].concat(),
            29 => vec![alu, 0xc0 | d << 3 | d],
            30 => with(&[0xff], self.memory(1)),
            34 => vec![0xf7, 0xd0 | (imm & 1) << 3 | d],
            35 => vec![0xf7, 0xe0 | (imm & 3) << 3 | d],
            36 => with(&[0xf7], self.memory(4 | imm & 3)),
            37 => with(&[0x0f, 0xaf], vec![0xc0 | d << 3 | s]),
            38 => vec![0x0f, 0xa4 | imm & 8, 0xc0 | s << 3 | d, imm & 31],
            39 => vec![0xd3, 0xc0 | shift << 3 | d],
            40 => vec![0x0f, 0xba, 0xe0 | (imm >> 5 & 3) << 3 | d, imm & 31],
            41 => vec![0x0f, 0xbc | imm & 1, 0xc0 | d << 3 | s],
            42 => with(&[0x0f, 0xb1], self.memory(s)),
            43 => with(&[0x0f, 0xc1], self.memory(s)),
            44 => vec![0x0f, 0xa5 | imm & 8, 0xc0 | s << 3 | d],
            // An address and what is there, and the same of what was loaded.
            45 => [&[0x8d, 0x46 | d << 3, imm & 63][..], &[0x8b - (imm & 2), 0x40 | s << 3 | d, 8]].concat(),
            46 => [&[0x8b, 0x47 | d << 3, imm & 63][..], &[0x8d - (imm & 6), 0x40 | s << 3 | d, 8]].concat(),
            47 => [&[0x8b, 0x47 | d << 3, imm & 63][..], &[0x89, 0x46 | d << 3, 8]].concat(),
            48 => vec![
                0x89,
                0xc0 | s << 3 | d,
                0xc1,
                0xc0 | (imm >> 5 & 5) << 3 | d,
                imm & 31,
                0x31,
                0xc0 | s << 3 | d,
            ],
            49 => (0..4 + imm % 5).map(|n| 0x50 | if imm & 0x80 == 0 { n } else { 8 | d }).collect(),
            50 => self.prologue(),
            51 => self.epilogue(),
            // A call of a function that loads its return address, behind a jump over it, and what is added to that.
            52 => [
                &[0xe8, 2, 0, 0, 0, 0xeb, 4, 0x8b, 0x04 | d << 3, 0x24, 0xc3][..],
                &[0x81, 0xc0 | d, imm, 0, 0, 0],
            ]
            .concat(),
            // The jump to one of two cases, by a table of how far they are from where the code finds itself.
            54 => {
                let (index, base) = (self.below(2) as u8, 3 - (d & 1) * 2);
                let table = [30, 0, 0, 0, 32, 0, 0, 0];
                let find = [
                    &[0xe8, 2, 0, 0, 0, 0xeb, 4, 0x8b, 0x04 | base << 3, 0x24, 0xc3][..],
                    &[0xba, index, 0, 0, 0],
                ];
                // mov eax, [base + edx * 4 + where the table is]; add eax, base; jmp eax
                let add = [0x01, 0xc0 | base << 3];
                let jump = [
                    &[0x8b, 0x84, 0x90 | base, 22, 0, 0, 0][..],
                    &add,
                    &[0xff, 0xe0],
                    &table,
                    &[0x40, 0x90, 0x41],
                ];
                [find.concat(), jump.concat()].concat()
            }
            // A call of a jump through memory, behind a jump over it. Now and then that memory is absent.
            55 => {
                let at = if imm < 16 { ABSENT } else { LINKAGE };
                [&[0xe8, 2, 0, 0, 0, 0xeb, 6, 0xff, 0x25][..], &at.to_le_bytes()].concat()
            }
            // A loop that ends with a jump back: dec byte [LOOPS]; js behind it; something; jmp
            56 => {
                let body = self.instruction();
                let start = [&[0xc6, 0x05][..], &LOOPS.to_le_bytes(), &[imm & 7]].concat();
                let test = [&[0xfe, 0x0d][..], &LOOPS.to_le_bytes(), &[0x78, body.len() as u8 + 2]].concat();
                let back = (test.len() + body.len() + 2) as u8;
                [start, test, body, vec![0xeb, back.wrapping_neg()]].concat()
            }
            // A call of a function that almost loads its return address alone.
            53 => vec![0xe8, 2, 0, 0, 0, 0xeb, 4, 0x8b, 0x04 | d << 3, 0x24 | (imm & 1) << 6, 0xc3],
            // What does nothing.
            23 => vec![0x8d, 0x74, 0x26, 0],
            _ => vec![0x90],
        }
    }

    /// How a function begins, with some of what there may be.
    fn prologue(&mut self) -> Vec<u8> {
        let some: [&[u8]; 8] = [
            &[0x55],
            &[0x89, 0xe5],
            &[0x57],
            &[0x89, 0xd7],
            &[0x56],
            &[0x53],
            &[0x89, 0xc3],
            &[0x83, 0xec, 8],
        ];
        self.some_of(&some)
    }

    /// How one ends, but for the return.
    fn epilogue(&mut self) -> Vec<u8> {
        self.some_of(&[&[0x83, 0xc4, 8], &[0x5b], &[0x5e], &[0x5f], &[0x5d]])
    }

    fn some_of(&mut self, pieces: &[&[u8]]) -> Vec<u8> {
        pieces.iter().filter(|_| self.below(3) != 0).copied().flatten().copied().collect()
    }

    /// How a block may end: with a call, with a branch whose last byte says how far it goes, or not at all.
    fn end(&mut self) -> (Vec<u8>, bool) {
        let (d, s, imm) = (self.register(), self.register(), self.below(256) as u8);
        let compare = match self.below(9) {
            0 => vec![0x39, 0xc0 | s << 3 | d],
            1 => vec![0x83, 0xf8 | d, imm],
            2 => vec![0x85, 0xc0 | d << 3 | d],
            3 => vec![0x84, 0xc0 | (s & 3) << 3 | d & 3],
            4 => [&[0x3a][..], &self.memory(d & 3)].concat(),
            5 => [&[0x83][..], &self.memory(7), &[imm]].concat(),
            6 => [&[0x38][..], &self.memory(d & 3)].concat(),
            7 => [&[0xff][..], &self.memory(1)].concat(),
            _ => [&[0x80][..], &self.memory(7), &[imm]].concat(),
        };
        match self.below(9) {
            0 => (vec![0xe8, 0, 0, 0, 0], false),
            // A call of a function behind a jump over it, which restores what it has saved.
            8 => {
                let restored = self.epilogue();
                let pushed = restored.iter().filter(|byte| **byte & 0xf8 == 0x58).map(|byte| byte - 8);
                let room = if restored.first() == Some(&0x83) { &[0x83, 0xec, 8][..] } else { &[] };
                let body = [&pushed.rev().collect::<Vec<_>>(), room, &restored, &[0xc3][..]].concat();
                ([&[0xe8, 2, 0, 0, 0, 0xeb, body.len() as u8][..], &body].concat(), false)
            }
            1 => (vec![0xeb, 0], true),
            // A call of the return behind a jump over it.
            2 => (vec![0xe8, 2, 0, 0, 0, 0xeb, 1, 0xc3], false),
            3 => (vec![0x70 | imm & 15, 0], true),
            4 => (Vec::new(), false),
            _ => ([compare, vec![0x70 | imm & 15, 0]].concat(), true),
        }
    }

    /// A few blocks with branches forward, and what stops behind them.
    fn code(&mut self) -> Vec<u8> {
        let mut pieces = Vec::new();
        let mut branches = Vec::new();
        for _ in 0..1 + self.below(6) {
            for _ in 0..self.below(8) {
                pieces.push(self.instruction());
            }
            let (end, branches_on) = self.end();
            if branches_on {
                branches.push(pieces.len());
            }
            pieces.push(end);
        }
        for branch in branches {
            let over = self.below(12) as usize;
            // No further than a byte can say, for beyond it is back.
            let lengths = pieces[branch + 1..].iter().take(over).map(Vec::len);
            let distance = lengths
                .scan(0, |sum, len| {
                    *sum += len;
                    Some(*sum)
                })
                .take_while(|sum| *sum < 0x80)
                .last();
            let distance = distance.unwrap_or(0);
            *pieces[branch].last_mut().unwrap() = distance as u8;
        }
        pieces.push(vec![HLT]);
        pieces.concat()
    }
}

/// Paging is on, and what memory operands and divisions may raise ends in a HLT. Registers are by chance.
fn machine(code: &[u8], numbers: &mut Numbers) -> Cpu {
    let mut cpu = flat(&[]);
    cpu.mem.write(CODE, code);
    cpu.mem.write(HANDLER, &[HLT]);
    cpu.mem.write_u32(LINKAGE, FUNCTION);
    cpu.mem.write(FUNCTION, &[0x41, 0xc3]);
    cpu.mem.write(ANOTHER, &[0x42, 0xc3]);
    for vector in [0, 13, 14] {
        cpu.mem.write_u32(IDT + vector * 8, 8 << 16 | HANDLER);
        cpu.mem.write_u32(IDT + vector * 8 + 4, 0x8e00);
    }
    for (n, high) in [(1, 0x00cf_9b00), (2, 0x00cf_9300)] {
        cpu.mem.write_u32(GDT + n * 8, 0xffff);
        cpu.mem.write_u32(GDT + n * 8 + 4, high);
    }
    cpu.mem.write_u32(PAGE_DIRECTORY, PAGE_TABLE | 3);
    for page in (0..16).filter(|page| *page != ABSENT >> 12) {
        cpu.mem.write_u32(PAGE_TABLE + page * 4, page << 12 | 3);
    }
    let mut s = cpu.state();
    s.gpr = std::array::from_fn(|_| numbers.below(16));
    s.gpr[4] = STACK;
    for pointer in [6, 7] {
        // Now and then what is reached is in the absent page.
        s.gpr[pointer] = DATA + numbers.below(0x1000 - 40);
    }
    (s.idtr.base, s.idtr.limit) = (IDT, 0xff);
    (s.gdtr.base, s.gdtr.limit) = (GDT, 0xff);
    s.cr3 = PAGE_DIRECTORY;
    s.cr0 |= 1 << 31;
    cpu.set_state(&s);
    cpu
}

#[test]
fn a_block_does_what_its_instructions_do_one_by_one() {
    for seed in 0..if cfg!(miri) { 3 } else { 3000 } {
        let mut numbers = Numbers(seed);
        let code = numbers.code();
        let mut whole = machine(&code, &mut Numbers(seed));
        let mut single = machine(&code, &mut Numbers(seed));
        assert_eq!(whole.run(&mut Unconnected, 10_000), Exit::Halted, "{seed}: {code:02x?}");
        let mut stepped = 0;
        while single.step(&mut Unconnected) != Exit::Halted {
            stepped += 1;
            assert!(stepped < 10_000, "{seed}: {code:02x?}");
        }
        assert_eq!(whole.state(), single.state(), "{seed}: {code:02x?}");
        assert_eq!(whole.stats.instructions, single.stats.instructions, "{seed}: {code:02x?}");
        for at in (DATA - 0x100..STACK + 0x10).step_by(4) {
            assert_eq!(whole.mem.read_u32(at), single.mem.read_u32(at), "{seed}: {code:02x?} at {at:x}");
        }
    }
}

/// call of what is at [`HANDLER`]; hlt
const CALLS: [u8; 6] = [0xe8, 0xfb, 0x0f, 0, 0, HLT];
/// mov ebx, [esp]; ret
const THUNK: [u8; 4] = [0x8b, 0x1c, 0x24, 0xc3];

fn calling(thunk: &[u8]) -> Cpu {
    let mut cpu = machine(&CALLS, &mut Numbers(0));
    cpu.mem.write(HANDLER, thunk);
    cpu
}

fn run_again(cpu: &mut Cpu) {
    // Not by `set_state`, which would empty the block cache.
    (cpu.eip, cpu.halted) = (CODE, false);
    cpu.regs.set_r32(3, 0);
    cpu.regs.set_r32(4, STACK);
    assert_eq!(cpu.run(&mut Unconnected, 10_000), Exit::Halted);
}

#[test]
fn a_function_that_loads_its_return_address_is_executed_with_its_call() {
    let mut cpu = calling(&THUNK);
    // It is a call like others as long as the TLB does not have its page.
    run_again(&mut cpu);
    cpu.clear_blocks();
    run_again(&mut cpu);
    assert_eq!((cpu.regs.r32(3), cpu.regs.r32(4)), (CODE + 5, STACK));
    assert_eq!(cpu.mem.read_u32(STACK - 4), CODE + 5);
    // CALL, MOV, RET and HLT, twice.
    assert_eq!(cpu.stats.instructions, 8);
    assert!(cpu.blocks.find(HANDLER, cpu.mode).is_none());
}

#[test]
fn another_function_may_take_its_place() {
    let mut cpu = calling(&THUNK);
    run_again(&mut cpu);
    // inc ebx; ret
    cpu.mem.write(HANDLER, &[0x43, 0xc3]);
    run_again(&mut cpu);
    assert_eq!((cpu.regs.r32(3), cpu.regs.r32(4)), (1, STACK));
    // So may the page that it is in.
    let mut cpu = calling(&THUNK);
    run_again(&mut cpu);
    cpu.mem.write_u32(PAGE_TABLE + (HANDLER >> 12) * 4, 0x8000 | 3);
    cpu.mem.write(0x8000, &[0x43, 0xc3]);
    cpu.flush_tlb(true);
    run_again(&mut cpu);
    assert_eq!((cpu.regs.r32(3), cpu.regs.r32(4)), (1, STACK));
}

/// jmp [ebx + LINKAGE], and jmp [LINKAGE]
const ENTRIES: [[u8; 6]; 2] = [[0xff, 0xa3, 0, 0x50, 0, 0], [0xff, 0x25, 0, 0x50, 0, 0]];

/// How often the two functions have been called, when they are called once more.
fn called(cpu: &mut Cpu) -> (u32, u32) {
    run_again(cpu);
    assert_eq!(cpu.regs.r32(4), STACK);
    assert_eq!(cpu.mem.read_u32(STACK - 4), CODE + 5);
    (cpu.regs.r32(1), cpu.regs.r32(2))
}

fn calling_entry(entry: &[u8]) -> Cpu {
    let mut cpu = calling(entry);
    cpu.regs.set_r32(1, 0);
    cpu.regs.set_r32(2, 0);
    cpu
}

#[test]
fn an_entry_of_a_linkage_table_is_executed_with_its_call() {
    for entry in ENTRIES {
        let mut cpu = calling_entry(&entry);
        assert_eq!(called(&mut cpu), (1, 0));
        cpu.clear_blocks();
        assert_eq!(called(&mut cpu), (2, 0));
        assert!(cpu.blocks.find(HANDLER, cpu.mode).is_none());
        assert_eq!(called(&mut cpu), (3, 0));
        // CALL, JMP, INC, RET and HLT, three times.
        assert_eq!(cpu.stats.instructions, 15);
        // Functions are found when they are called first.
        cpu.mem.write_u32(LINKAGE, ANOTHER);
        assert_eq!(called(&mut cpu), (3, 1));
        assert_eq!(called(&mut cpu), (3, 2));
    }
}

#[test]
fn something_else_may_take_the_place_of_an_entry() {
    for entry in ENTRIES {
        let mut cpu = calling_entry(&entry);
        assert_eq!(called(&mut cpu), (1, 0));
        cpu.mem.write_u32(LINKAGE + 4, ANOTHER);
        cpu.mem.write(HANDLER + 2, &[4]);
        assert_eq!(called(&mut cpu), (1, 1));
        cpu.mem.write(HANDLER, &[0x41, 0xc3]);
        assert_eq!(called(&mut cpu), (2, 1));
    }
}

#[test]
fn the_memory_that_an_entry_jumps_through_may_be_absent() {
    let mut cpu = calling_entry(&ENTRIES[0]);
    assert_eq!(called(&mut cpu), (1, 0));
    cpu.mem.write_u32(PAGE_TABLE + (LINKAGE >> 12) * 4, 0);
    cpu.mem.write(0x8000, &[HLT]);
    cpu.mem.write_u32(IDT + 14 * 8, 8 << 16 | 0x8000);
    cpu.flush_tlb(true);
    run_again(&mut cpu);
    // The call is done: it is the entry that faults, with EIP there on the stack.
    assert_eq!(cpu.regs.r32(4), STACK - 20);
    assert_eq!(cpu.mem.read_u32(STACK - 4), CODE + 5);
    assert_eq!(cpu.mem.read_u32(STACK - 16), HANDLER);
    assert_eq!(cpu.state().cr2, LINKAGE);
}

#[test]
fn a_breakpoint_in_an_entry_is_met() {
    let mut cpu = calling_entry(&ENTRIES[1]);
    cpu.set_breakpoint(HANDLER);
    assert_eq!(cpu.run(&mut Unconnected, 10_000), Exit::Breakpoint { linear: HANDLER });
}

#[test]
fn a_breakpoint_in_such_a_function_is_met() {
    let mut cpu = calling(&THUNK);
    cpu.set_breakpoint(HANDLER + 3);
    assert_eq!(cpu.run(&mut Unconnected, 10_000), Exit::Breakpoint { linear: HANDLER + 3 });
}
