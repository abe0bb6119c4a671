use super::*;
use crate::cpu::regs::gpr;
use crate::cpu::tests::flat;
use crate::cpu::{CR0_PE, CR0_PG};
use crate::mmu::walk::CR4_PSE;
use crate::state::TableRegister;
use crate::{ArchState, Bus, Exit, Unconnected};

fn run(cpu: &mut Cpu) -> Exit {
    cpu.run(&mut Unconnected, 100_000)
}

fn step(cpu: &mut Cpu) -> u32 {
    assert_eq!(cpu.step(&mut Unconnected), Exit::Budget);
    cpu.eip
}

/// mov ecx, 3; l: inc eax; add ebx, eax; dec ecx; jnz l; hlt
const LOOP: [u8; 12] = [0xb9, 3, 0, 0, 0, 0x40, 0x01, 0xc3, 0x49, 0x75, 0xfa, 0xf4];

#[test]
fn a_step_is_one_instruction_in_the_midst_of_a_block_too() {
    let mut cpu = flat(&LOOP);
    // The block is decoded and has run; stepping begins in its middle.
    assert_eq!(run(&mut cpu), Exit::Halted);
    let s = cpu.state();
    cpu.set_state(&ArchState { eip: 0x1000, halted: false, gpr: [0, 0, 0, 0, 0x8000, 0, 0, 0], ..s });
    let once = [0x1005, 0x1006, 0x1008, 0x1009];
    let again = [0x1005, 0x1006, 0x1008, 0x1009];
    for expected in once.into_iter().chain(again).chain([0x1005, 0x1006, 0x1008, 0x1009, 0x100b, 0x100c]) {
        let before = cpu.stats.instructions;
        assert_eq!(step(&mut cpu), expected);
        assert_eq!(cpu.stats.instructions, before + 1);
    }
    assert_eq!((cpu.regs.r32(gpr::EAX), cpu.regs.r32(gpr::EBX)), (3, 6));
    assert_eq!(cpu.step(&mut Unconnected), Exit::Halted, "nothing wakes it");
}

#[test]
fn a_step_of_a_repeated_instruction_is_one_element() {
    // mov ecx, 3; mov edi, 2000h; rep stosb; hlt
    let mut cpu = flat(&[0xb9, 3, 0, 0, 0, 0xbf, 0, 0x20, 0, 0, 0xf3, 0xaa, 0xf4]);
    (0..2).for_each(|_| _ = step(&mut cpu));
    let left: Vec<_> = (0..3).map(|_| (step(&mut cpu), cpu.regs.r32(gpr::ECX))).collect();
    assert_eq!(left[..2], [(0x100a, 2), (0x100a, 1)]);
    assert_eq!(left[2].1, 0);
}

#[test]
fn a_step_into_an_exception_ends_at_the_handler_and_the_trap_flag_is_the_guests() {
    // ud2, with a handler at 3000h.
    let mut cpu = flat(&[0x0f, 0x0b]);
    cpu.mem.write_u64(0x4000 + 8, 0x00cf_9b00_0000_ffff);
    cpu.mem.write_u64(0x5000 + 6 * 8, 0x0000_8e00_0008_3000);
    cpu.mem.write(0x3000, &[0x90, 0xf4]);
    let mut s = cpu.state();
    s.gdtr = TableRegister { base: 0x4000, limit: 0xff };
    s.idtr = TableRegister { base: 0x5000, limit: 0x7ff };
    cpu.set_state(&s);
    assert_eq!(step(&mut cpu), 0x3000);
    assert_eq!(step(&mut cpu), 0x3001);
    assert_eq!(cpu.state().dr[6], s.dr[6], "the guest sees no single step");
}

#[test]
fn a_step_takes_an_interrupt_and_one_instruction_of_its_handler() {
    struct Pending(bool);
    impl Bus for Pending {
        fn interrupt(&self) -> bool {
            self.0
        }
        fn acknowledge(&mut self) -> u8 {
            self.0 = false;
            0x20
        }
        fn now(&mut self) -> u64 {
            0
        }
        fn random(&mut self) -> u32 {
            0
        }
    }
    let mut cpu = flat(&[0x90]);
    cpu.mem.write_u64(0x4000 + 8, 0x00cf_9b00_0000_ffff);
    cpu.mem.write_u64(0x5000 + 0x20 * 8, 0x0000_8e00_0008_3000);
    cpu.mem.write(0x3000, &[0x90, 0xcf]);
    let mut s = cpu.state();
    s.eflags |= crate::cpu::flags::IF;
    s.gdtr = TableRegister { base: 0x4000, limit: 0xff };
    s.idtr = TableRegister { base: 0x5000, limit: 0x7ff };
    cpu.set_state(&s);
    let mut board = Pending(true);
    assert_eq!((cpu.step(&mut board), cpu.eip), (Exit::Budget, 0x3001));
    assert_eq!((cpu.step(&mut board), cpu.eip), (Exit::Budget, 0x1000));
}

#[test]
fn breakpoints_end_runs_before_their_instruction_each_time_round() {
    let mut cpu = flat(&LOOP);
    // Set and cleared while the code is decoded.
    assert_eq!(run(&mut cpu), Exit::Halted);
    let s = ArchState { eip: 0x1000, halted: false, gpr: [0, 0, 0, 0, 0x8000, 0, 0, 0], ..cpu.state() };
    cpu.set_state(&s);
    cpu.set_breakpoint(0x1006);
    for eax in 1..=3 {
        assert_eq!(run(&mut cpu), Exit::Breakpoint { linear: 0x1006 });
        assert_eq!((cpu.eip, cpu.regs.r32(gpr::EAX)), (0x1006, eax));
    }
    assert_eq!(run(&mut cpu), Exit::Halted);
    cpu.set_state(&s);
    assert!(cpu.clear_breakpoint(0x1006) && !cpu.clear_breakpoint(0x1006));
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!(cpu.regs.r32(gpr::EBX), 6);
}

#[test]
fn a_breakpoint_is_met_however_often_the_budget_ends_before_it() {
    let mut cpu = flat(&LOOP);
    cpu.set_breakpoint(0x1009);
    let mut met = 0;
    loop {
        match cpu.run(&mut Unconnected, 1) {
            Exit::Breakpoint { linear: 0x1009 } => met += 1,
            Exit::Budget => {}
            exit => break assert_eq!(exit, Exit::Halted),
        }
    }
    assert_eq!(met, 3);
}

#[test]
fn a_breakpoint_holds_at_its_own_address_and_at_no_other_mapping_of_its_code() {
    // With 4 MiB pages linear 0 and 400000h are the same memory; jmp 401005h at 1000h leads to the second.
    let mut cpu = flat(&[0xe9, 0, 0, 0x40, 0, 0x40, 0x90, 0xf4]);
    cpu.mem.write_u32(0x10_0000, 0x83);
    cpu.mem.write_u32(0x10_0004, 0x83);
    let mut s = cpu.state();
    (s.cr0, s.cr3, s.cr4) = (CR0_PE | CR0_PG, 0x10_0000, CR4_PSE);
    cpu.set_state(&s);
    cpu.set_breakpoint(0x1006);
    assert_eq!(run(&mut cpu), Exit::Halted);
    cpu.set_state(&s);
    cpu.set_breakpoint(0x40_1006);
    assert_eq!(run(&mut cpu), Exit::Breakpoint { linear: 0x40_1006 });
}

#[test]
fn watchpoints_end_runs_after_the_access() {
    // mov [2004h], eax; inc eax; mov ebx, [2006h]; inc eax; mov [2100h], eax; hlt
    let code = [0xa3, 4, 0x20, 0, 0, 0x40, 0x8b, 0x1d, 6, 0x20, 0, 0, 0x40, 0xa3, 0, 0x21, 0, 0, 0xf4];
    let write = Watchpoint { linear: 0x2006, len: 2, kind: WatchKind::Write };
    let read = Watchpoint { kind: WatchKind::Read, ..write };
    let hit = |write| Exit::Watchpoint { linear: 0x2006, write };
    let mut cpu = flat(&code);
    let s = cpu.state();
    cpu.set_watchpoint(write);
    assert_eq!((run(&mut cpu), cpu.eip), (hit(true), 0x1005));
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert!(cpu.clear_watchpoint(write) && !cpu.clear_watchpoint(write));
    cpu.set_watchpoint(read);
    cpu.set_state(&s);
    assert_eq!((run(&mut cpu), cpu.eip), (hit(false), 0x100c));
    assert_eq!(run(&mut cpu), Exit::Halted);
    cpu.clear_watchpoint(read);
    cpu.set_watchpoint(Watchpoint { kind: WatchKind::Access, ..write });
    cpu.set_state(&s);
    assert_eq!([run(&mut cpu), run(&mut cpu), run(&mut cpu)], [hit(true), hit(false), Exit::Halted]);
}

#[test]
fn a_watchpoint_ends_a_repeated_instruction_at_its_element_and_code_runs_in_a_watched_page() {
    // mov ecx, 100h; mov edi, 1f00h; rep stosb; hlt: in the page that it writes.
    let mut cpu = flat(&[0xb9, 0, 1, 0, 0, 0xbf, 0, 0x1f, 0, 0, 0xf3, 0xaa, 0xf4]);
    cpu.set_watchpoint(Watchpoint { linear: 0x1f80, len: 1, kind: WatchKind::Access });
    assert_eq!(run(&mut cpu), Exit::Watchpoint { linear: 0x1f80, write: true });
    assert_eq!(cpu.regs.r32(gpr::EDI), 0x1f81);
    assert_eq!((run(&mut cpu), cpu.regs.r32(gpr::EDI)), (Exit::Halted, 0x2000));
}

#[test]
fn an_instruction_over_the_end_of_a_watched_page_is_executed() {
    let mut cpu = flat(&[0xe9, 0xf9, 0x0f, 0, 0]);
    // At 1ffeh: mov eax, 12345678h; hlt
    cpu.mem.write(0x1ffe, &[0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4]);
    cpu.set_watchpoint(Watchpoint { linear: 0x2f00, len: 4, kind: WatchKind::Read });
    assert_eq!((run(&mut cpu), cpu.regs.r32(0)), (Exit::Halted, 0x1234_5678));
}

#[test]
fn peeks_and_pokes_leave_no_trace_in_page_tables_or_cr2() {
    let mut cpu = flat(&LOOP);
    // A page table at 101000h: linear 0-2fffh is mapped to itself, 2000h read-only, nothing behind.
    cpu.mem.write_u32(0x10_0000, 0x10_1003);
    for (page, flags) in [(0u32, 3), (1, 3), (2, 1)] {
        cpu.mem.write_u32(0x10_1000 + 4 * page, page << 12 | flags);
    }
    let mut s = cpu.state();
    (s.cr0, s.cr3) = (CR0_PE | CR0_PG, 0x10_0000);
    cpu.set_state(&s);
    cpu.poke(0x1ffe, &[1, 2, 3, 4]).unwrap();
    let mut bytes = [0; 4];
    cpu.peek(0x1ffe, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
    assert_eq!(cpu.mem.read_u32(0x2000), 0x403, "the other page is 2000h");
    assert_eq!(cpu.poke(0x2ffe, &[9; 4]), Err(NoMemory { linear: 0x3000 }));
    assert_eq!(cpu.peek(0x3000, &mut bytes), Err(NoMemory { linear: 0x3000 }));
    assert_eq!(cpu.mem.read_u16(0x2ffe), 0, "nothing is written by halves");
    let entries = [0, 4, 8].map(|at| cpu.mem.read_u32(0x10_1000 + at));
    assert_eq!((entries, cpu.mem.read_u32(0x10_0000), cpu.cr2), ([3, 0x1003, 0x2001], 0x10_1003, 0));
}

#[test]
fn poked_code_is_decoded_again() {
    let mut cpu = flat(&LOOP);
    assert_eq!(run(&mut cpu), Exit::Halted);
    // inc eax becomes dec eax; the registers change, and the decoded code stays.
    cpu.poke(0x1005, &[0x48]).unwrap();
    cpu.eip = 0x1000;
    cpu.halted = false;
    cpu.regs.set_r32(gpr::EAX, 0);
    assert_eq!((run(&mut cpu), cpu.regs.r32(gpr::EAX)), (Exit::Halted, 3u32.wrapping_neg()));
}

#[test]
fn what_is_read_only_to_the_guest_can_be_poked() {
    let mut cpu = flat(&LOOP);
    cpu.mem.set_read_only(1);
    cpu.poke(0xc_0ffe, &[1, 2, 3]).unwrap();
    assert_eq!((cpu.mem.read_u16(0xc_0ffe), cpu.mem.read_only()), (0x201, 1));
}
