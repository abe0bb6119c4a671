//! Small programs on a bare processor.

use super::*;
use crate::bus::{HypervisorCall, Width};
use crate::cpu::regs::gpr;
use crate::mmu::walk;

/// A board with nothing on it but a counter of port writes.
#[derive(Default)]
struct Board {
    written: Vec<(u16, u32)>,
    interrupt: Option<u8>,
    nmi: bool,
}

impl Bus for Board {
    fn port_read(&mut self, _: &mut Memory, port: u16, _: Width) -> u32 {
        u32::from(port).wrapping_mul(0x0101_0101)
    }
    fn port_write(&mut self, _: &mut Memory, port: u16, _: Width, v: u32) {
        self.written.push((port, v));
        self.nmi |= port == 0x98;
        if port == 0x99 {
            self.interrupt = Some(v as u8);
        }
    }
    fn hypervisor_call(&mut self, call: &mut HypervisorCall) {
        *call = HypervisorCall { eax: call.edx, ebx: call.ecx, ecx: call.ebx, edx: call.eax };
    }
    fn mmio_read(&mut self, _: &mut Memory, _: u32, _: Width) -> u32 {
        0xdead_beef
    }
    fn interrupt(&self) -> bool {
        self.interrupt.is_some()
    }
    fn acknowledge(&mut self) -> u8 {
        self.interrupt.take().unwrap_or(0)
    }
    fn nmi(&self) -> bool {
        self.nmi
    }
    fn acknowledge_nmi(&mut self) {
        self.nmi = false;
    }
    fn now(&mut self) -> u64 {
        42
    }
    fn random(&mut self) -> u32 {
        4
    }
}

/// Flat 32-bit ring 0 at 1000h, stack at 8000h, the other registers 0.
pub(crate) fn flat(code: &[u8]) -> Cpu {
    let mut mem = Memory::new(4 << 20).unwrap();
    mem.write(0x1000, code);
    let mut cpu = Cpu::new(mem, CpuConfig::default());
    let mut s = ArchState { eip: 0x1000, cr0: CR0_PE, ..ArchState::default() };
    s.seg = [Segment::flat(0x10, 0x93); 6];
    s.seg[1] = Segment::flat(8, 0x9b);
    s.gpr = [0, 0, 0, 0, 0x8000, 0, 0, 0];
    cpu.set_state(&s);
    cpu
}

fn real(code: &[u8]) -> Cpu {
    let mut mem = Memory::new(4 << 20).unwrap();
    mem.write(0x7c00, code);
    let mut cpu = Cpu::new(mem, CpuConfig::default());
    let mut s = ArchState { eip: 0x7c00, ..ArchState::default() };
    s.seg[1] = Segment { access: 0x9b, ..Segment::real(0) };
    s.gpr[4] = 0x7000;
    cpu.set_state(&s);
    cpu
}

fn run(cpu: &mut Cpu) -> Exit {
    cpu.run(&mut Board::default(), 1_000_000)
}

#[test]
fn a_loop_counts_and_halts() {
    // mov ecx, 1000; xor eax, eax; l: add eax, ecx; dec ecx; jnz l; hlt
    let mut cpu = flat(&[0xb9, 0xe8, 3, 0, 0, 0x31, 0xc0, 0x01, 0xc8, 0x49, 0x75, 0xfb, 0xf4]);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!(cpu.regs.r32(0), 500_500);
    assert_eq!(cpu.stats.instructions, 2 + 3000 + 1);
}

#[test]
fn a_repeated_string_instruction_uses_the_budget_up() {
    // mov ecx, -1; mov edi, 80000000h; rep stosb: nothing answers there.
    let mut cpu = flat(&[0xb9, 0xff, 0xff, 0xff, 0xff, 0xbf, 0, 0, 0, 0x80, 0xf3, 0xaa]);
    assert_eq!(cpu.run(&mut Board::default(), 300_000), Exit::Budget);
    assert_eq!(cpu.stats.instructions, 300_000);
    let done = u32::MAX - cpu.regs.r32(gpr::ECX);
    assert!((299_000..400_000).contains(&done), "{done}");
}

/// A device with a port that gives numbers in their order, and takes them; of some of them it gives and takes many at once.
#[derive(Default)]
struct Counter {
    read: u8,
    written: u8,
    given: Vec<u8>,
    room: Vec<u8>,
    at_once: usize,
}

impl Counter {
    /// Some come singly in between, as where a device has something to say.
    fn prepare(&mut self) {
        self.given = (0..7).map(|n| self.read.wrapping_add(n)).collect();
        self.room = vec![0xff; 7];
    }
}

impl Bus for Counter {
    fn port_read(&mut self, _: &mut Memory, _: u16, width: Width) -> u32 {
        let bytes = [0, 1, 2, 3].map(|n| self.read.wrapping_add(n));
        self.read = self.read.wrapping_add(width.bytes() as u8);
        self.prepare();
        u32::from_le_bytes(bytes)
    }
    fn port_write(&mut self, _: &mut Memory, _: u16, width: Width, v: u32) {
        assert_eq!(v.to_le_bytes()[0], self.written);
        self.written = self.written.wrapping_add(width.bytes() as u8);
        self.prepare();
    }
    fn port_source(&self, port: u16, _: Width) -> Option<&[u8]> {
        (port == 0x10 && !self.given.is_empty()).then_some(&self.given)
    }
    fn port_sink(&mut self, port: u16, _: Width) -> Option<&mut [u8]> {
        (port == 0x10 && !self.room.is_empty()).then_some(&mut self.room)
    }
    fn port_moved(&mut self, _: &mut Memory, _: u16, bytes: usize) {
        if self.room == [0xff; 7] {
            self.read = self.read.wrapping_add(bytes as u8);
        } else {
            for byte in &self.room[..bytes] {
                assert_eq!(*byte, self.written);
                self.written = self.written.wrapping_add(1);
            }
        }
        self.at_once += bytes;
        (self.given, self.room) = Default::default();
    }
    fn now(&mut self) -> u64 {
        0
    }
    fn random(&mut self) -> u32 {
        0
    }
}

#[test]
fn ports_that_move_many_values_at_once_move_the_same() {
    for (port, size) in [(0x10u8, 1u32), (0x10, 2), (0x10, 4), (0x11, 2)] {
        let prefixes: &[u8] = if size == 2 { &[0xf3, 0x66] } else { &[0xf3] };
        let opcode = if size == 1 { 0x6c } else { 0x6d };
        let count = (400 / size).to_le_bytes();
        // mov edx, PORT; mov ecx, COUNT; mov edi, 2fe1h; rep ins; mov ecx, COUNT; mov esi, 2fe1h; rep outs; hlt: over a
        // page's end.
        let code = [
            &[0xba, port, 0, 0, 0, 0xb9],
            &count[..],
            &[0xbf, 0xe1, 0x2f, 0, 0],
            prefixes,
            &[opcode, 0xb9],
            &count,
            &[0xbe, 0xe1, 0x2f, 0, 0],
            prefixes,
            &[opcode + 2, 0xf4],
        ]
        .concat();
        let mut cpu = flat(&code);
        let mut counter = Counter::default();
        assert_eq!(cpu.run(&mut counter, 1_000_000), Exit::Halted);
        let mut bytes = vec![0; 400];
        cpu.mem().read(0x2fe1, &mut bytes);
        assert!(bytes.iter().enumerate().all(|(n, byte)| *byte == n as u8), "{size}");
        assert_eq!(
            (counter.read, counter.written, counter.at_once > 0),
            (400u32 as u8, 400u32 as u8, port == 0x10)
        );
        assert_eq!([gpr::ECX, gpr::ESI, gpr::EDI].map(|r| cpu.regs.r32(r)), [0, 0x2fe1 + 400, 0x2fe1 + 400]);
    }
}

#[test]
fn the_hypervisor_gets_and_gives_registers() {
    // mov eax, 1; mov ebx, 2; mov ecx, 3; mov edx, 5658h; in eax, dx; mov esi, edx; mov dx, 5658h;
    // in al, dx; hlt
    let mut cpu = flat(&[
        0xb8, 1, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0xb9, 3, 0, 0, 0, 0xba, 0x58, 0x56, 0, 0, 0xed, 0x89, 0xd6, 0x66,
        0xba, 0x58, 0x56, 0xec, 0xf4,
    ]);
    assert_eq!(run(&mut cpu), Exit::Halted);
    let of = |r| cpu.regs.r32(r);
    // EAX and EBX, ECX, ESI; AL has been read once more, as from any port.
    assert_eq!([of(0), of(3), of(1), of(6)], [0x5658, 3, 2, 1]);
}

#[test]
fn calls_return_through_the_stack() {
    // call f; hlt; f: push 7; pop eax; ret
    let mut cpu = flat(&[0xe8, 1, 0, 0, 0, 0xf4, 0x6a, 7, 0x58, 0xc3]);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.regs.r32(0), cpu.regs.r32(4)), (7, 0x8000));
}

#[test]
fn code_may_rewrite_its_own_block() {
    // mov byte [next+1], 5; next: mov al, 1; hlt
    let mut cpu = flat(&[0xc6, 0x05, 0x08, 0x10, 0, 0, 5, 0xb0, 1, 0xf4]);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!(cpu.regs.r32(0) & 0xff, 5);
}

#[test]
fn a_loop_may_rewrite_itself_each_time_round() {
    // mov ecx, 3; l: inc byte [imm]; mov al, 0 (imm); loop l; hlt
    let code = [0xb9, 3, 0, 0, 0, 0xfe, 0x05, 0x0c, 0x10, 0, 0, 0xb0, 0, 0xe2, 0xf6, 0xf4];
    let mut cpu = flat(&code);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!(cpu.regs.r32(0) & 0xff, 3);
}

#[test]
fn an_instruction_may_cross_a_page() {
    let mut cpu = flat(&[0xe9, 0xf9, 0x0f, 0, 0]);
    // At 1ffeh: mov eax, 12345678h; hlt
    cpu.mem.write(0x1ffe, &[0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4]);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!(cpu.regs.r32(0), 0x1234_5678);
}

#[test]
fn real_mode_interrupts_go_through_the_vector_table() {
    // int 20h; hlt — the handler at 0:8000h: mov al, 9; iret
    let mut cpu = real(&[0xcd, 0x20, 0xf4]);
    cpu.mem.write_u32(0x80, 0x8000);
    cpu.mem.write(0x8000, &[0xb0, 9, 0xcf]);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.regs.r32(0) & 0xff, cpu.eip), (9, 0x7c03));
}

#[test]
fn an_external_interrupt_waits_out_the_shadow_of_sti() {
    // mov al, 20h; cli; out 99h, al; sti; inc cx; inc dx; hlt — handler: mov bx, cx; iret
    let mut cpu = real(&[0xb0, 0x20, 0xfa, 0xe6, 0x99, 0xfb, 0x41, 0x42, 0xf4]);
    cpu.mem.write_u32(0x80, 0x8000);
    cpu.mem.write(0x8000, &[0x89, 0xcb, 0x89, 0xd6, 0xcf]);
    let mut s = cpu.state();
    (s.gpr[1], s.gpr[2]) = (0, 0);
    cpu.set_state(&s);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.regs.r32(3), cpu.regs.r32(6)), (1, 0), "one instruction ran after STI");
}

#[test]
fn a_non_maskable_interrupt_needs_no_interrupt_flag_and_waits_for_iret() {
    // cli; out 98h, al; nop; hlt — handler at 0:8000h: inc bx; out 98h, al; nop; inc si; iret
    let mut cpu = real(&[0xfa, 0xe6, 0x98, 0x90, 0xf4]);
    cpu.mem.write_u32(8, 0x8000);
    cpu.mem.write(0x8000, &[0x43, 0x83, 0xfb, 3, 0x74, 2, 0xe6, 0x98, 0x46, 0xcf]);
    let mut s = cpu.state();
    (s.gpr[3], s.gpr[6]) = (0, 0);
    cpu.set_state(&s);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.regs.r32(3), cpu.regs.r32(6)), (3, 3));
}

#[test]
fn page_faults_push_their_error_and_set_cr2() {
    // mov [400000h], eax with only the first 4 MiB mapped; #PF handler at 3000h halts.
    let mut cpu = flat(&[0xa3, 0, 0, 0x40, 0, 0x90]);
    cpu.mem.write_u32(0x10_0000, 0x83);
    cpu.mem.write(0x3000, &[0xf4]);
    cpu.mem.write_u64(0x4000 + 8, 0x00cf_9b00_0000_ffff);
    cpu.mem.write_u64(0x4000 + 16, 0x00cf_9300_0000_ffff);
    cpu.mem.write_u64(0x5000 + 14 * 8, 0x0000_8e00_0008_3000);
    let mut s = cpu.state();
    s.gdtr = TableRegister { base: 0x4000, limit: 0xff };
    s.idtr = TableRegister { base: 0x5000, limit: 0x7ff };
    (s.cr0, s.cr3, s.cr4) = (CR0_PE | CR0_PG, 0x10_0000, walk::CR4_PSE);
    cpu.set_state(&s);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.eip, cpu.cr2), (0x3001, 0x40_0000));
    assert_eq!(cpu.mem.read_u32(0x8000 - 16), 2, "error code: a write to a page not present");
    assert_eq!(cpu.mem.read_u32(0x8000 - 12), 0x1000, "EIP of the instruction");
}

#[test]
fn without_a_handler_the_processor_shuts_down() {
    let mut cpu = flat(&[0x0f, 0x0b]);
    let mut s = cpu.state();
    s.idtr = TableRegister::default();
    cpu.set_state(&s);
    assert_eq!(run(&mut cpu), Exit::Shutdown);
}

#[test]
fn rep_movs_copies_over_pages() {
    // mov esi, 2000h; mov edi, 5ff0h; mov ecx, 800h; rep movsd; hlt
    let code = [0xbe, 0, 0x20, 0, 0, 0xbf, 0xf0, 0x5f, 0, 0, 0xb9, 0, 8, 0, 0, 0xf3, 0xa5, 0xf4];
    let mut cpu = flat(&code);
    for i in 0..0x800 {
        cpu.mem.write_u32(0x2000 + 4 * i, i * 3);
    }
    let mut s = cpu.state();
    s.gpr[4] = 0x10_0000;
    cpu.set_state(&s);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!(cpu.mem.read_u32(0x5ff0 + 4 * 0x7ff), 0x7ff * 3);
    assert_eq!((cpu.regs.r32(1), cpu.regs.r32(7)), (0, 0x7ff0));
}

#[test]
fn single_stepping_traps_after_each_instruction() {
    // inc ax; inc ax; push 2; popf; hlt — INT 1 handler: inc bp; iret. POPF clears TF and still traps.
    let mut cpu = real(&[0x40, 0x40, 0x6a, 2, 0x9d, 0xf4]);
    cpu.mem.write_u32(4, 0x8000);
    cpu.mem.write(0x8000, &[0x45, 0xcf]);
    let mut s = cpu.state();
    s.eflags |= flags::TF;
    (s.gpr[0], s.gpr[5]) = (0, 0);
    cpu.set_state(&s);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.regs.r32(0), cpu.regs.r32(5)), (2, 4));
}

/// Budgets of the runs that a guest would never give back.
/// Miri takes a thousand times as long.
const SLICE: u64 = if cfg!(miri) { 500 } else { 10_000 };

/// Runs a guest that only faults: the processor comes back when the budget is spent, each time.
fn comes_back(cpu: &mut Cpu, bus: &mut Board) {
    for _ in 0..3 {
        let before = cpu.stats;
        assert_eq!(cpu.run(bus, SLICE), Exit::Budget);
        let (spent, delivered) =
            (cpu.stats.instructions - before.instructions, cpu.stats.interrupts - before.interrupts);
        // A delivery may need a second one, for a double fault.
        assert!((SLICE..SLICE + 64).contains(&spent), "{spent} of the budget");
        assert!(delivered > SLICE / 4 && delivered <= 2 * SLICE, "{delivered} deliveries");
    }
}

#[test]
fn a_real_mode_handler_that_faults_uses_the_budget_up() {
    // ud2 at 0:0, where every vector leads.
    let mut cpu = real(&[]);
    let mut s = cpu.state();
    (s.eip, s.gpr[4]) = (0, 0x8000);
    s.seg[2] = Segment::real(0x7000);
    cpu.set_state(&s);
    cpu.mem.write(0, &[0x0f, 0x0b]);
    // Vector 6 must still be 0:0; only the code is there.
    assert_eq!(cpu.mem.read_u32(6 * 4), 0);
    comes_back(&mut cpu, &mut Board::default());
}

/// `flat`, with descriptor tables at 4000h and 5000h, and page tables at 100000h that map the first
/// 4 MiB if `paging`.
fn flat_with_tables(code: &[u8], paging: bool) -> Cpu {
    let mut cpu = flat(code);
    cpu.mem.write_u64(0x4000 + 8, 0x00cf_9b00_0000_ffff);
    cpu.mem.write_u64(0x4000 + 16, 0x00cf_9300_0000_ffff);
    cpu.mem.write_u32(0x10_0000, 0x83);
    let mut s = cpu.state();
    s.gdtr = TableRegister { base: 0x4000, limit: 0xff };
    s.idtr = TableRegister { base: 0x5000, limit: 0x7ff };
    if paging {
        (s.cr0, s.cr3, s.cr4) = (CR0_PE | CR0_PG, 0x10_0000, walk::CR4_PSE);
    }
    cpu.set_state(&s);
    cpu
}

#[test]
fn a_storm_of_page_faults_uses_the_budget_up() {
    // The handler of #PF lies in a page that is not mapped: its fetch is the next #PF. ESP goes down
    // until the stack is used up, so it is put where there is plenty, above what the test looks at.
    let mut cpu = flat_with_tables(&[0xa1, 0, 0, 0x80, 0], true);
    cpu.mem.write_u64(0x5000 + 14 * 8, 0x0080_8e00_0008_0000);
    let mut s = cpu.state();
    s.gpr[4] = 0x40_0000;
    cpu.set_state(&s);
    comes_back(&mut cpu, &mut Board::default());
    assert_eq!((cpu.eip, cpu.cr2), (0x80_0000, 0x80_0000));
}

#[test]
fn a_task_that_faults_again_uses_the_budget_up() {
    // #UD is a task gate; the task begins at IRET followed by UD2 once more: it goes back to the
    // instruction that faulted, which faults.
    let mut cpu = flat_with_tables(&[0x0f, 0x0b], false);
    cpu.mem.write(0x3000, &[0xcf, 0xeb, 0xfd]);
    // Task state segments at 6000h (18h, the current one, busy) and 7000h (20h).
    cpu.mem.write_u64(0x4000 + 0x18, 0x0000_8b00_6000_0067);
    cpu.mem.write_u64(0x4000 + 0x20, 0x0000_8900_7000_0067);
    cpu.mem.write_u64(0x5000 + 6 * 8, 0x0000_8500_0020_0000);
    for (offset, value) in [(0x20, 0x3000), (0x24, 2), (0x38, 0x9000)] {
        cpu.mem.write_u32(0x7000 + offset, value);
    }
    for (offset, value) in [(0x48, 0x10), (0x4c, 8), (0x50, 0x10), (0x54, 0x10), (0x58, 0x10), (0x5c, 0x10)] {
        cpu.mem.write_u32(0x7000 + offset, value);
    }
    let mut s = cpu.state();
    s.tr = Segment { selector: 0x18, base: 0x6000, limit: 0x67, access: 0x8b, ..Segment::real(0) };
    cpu.set_state(&s);
    comes_back(&mut cpu, &mut Board::default());
}

#[test]
fn an_interrupt_that_stays_uses_the_budget_up() {
    /// A board whose interrupt is never served.
    struct Stuck;
    impl Bus for Stuck {
        fn interrupt(&self) -> bool {
            true
        }
        fn acknowledge(&mut self) -> u8 {
            0x20
        }
        fn now(&mut self) -> u64 {
            0
        }
        fn random(&mut self) -> u32 {
            0
        }
    }
    // Through a trap gate, which leaves IF set: no instruction is ever executed.
    let mut cpu = flat_with_tables(&[0x90], false);
    cpu.mem.write_u64(0x5000 + 0x20 * 8, 0x0000_8f00_0008_3000);
    let mut s = cpu.state();
    s.eflags |= flags::IF;
    s.gpr[4] = 0x20_0000;
    cpu.set_state(&s);
    for _ in 0..3 {
        assert_eq!(cpu.run(&mut Stuck, SLICE), Exit::Budget);
    }
    assert_eq!((cpu.stats.interrupts, cpu.eip), (3 * SLICE, 0x3000));
}

#[test]
fn a_triple_fault_after_each_restart_is_a_shutdown_each_time() {
    let mut cpu = flat(&[0x0f, 0x0b]);
    let mut s = cpu.state();
    s.idtr = TableRegister::default();
    for _ in 0..1000 {
        cpu.set_state(&s);
        assert_eq!(run(&mut cpu), Exit::Shutdown);
    }
    assert!(cpu.stats.interrupts <= 3000 && cpu.stats.instructions == 1000);
}

#[test]
fn pusha_does_not_begin_what_wraps_round_in_real_mode() {
    // pusha at 7c00h; handlers of 12 and 13 halt at 0:8000h and 0:8010h.
    for (wide, sp) in [(false, 7), (true, 7), (false, 9), (false, 11), (true, 13), (false, 15)] {
        let code: &[u8] = if wide { &[0x66, 0x60] } else { &[0x60] };
        let mut cpu = real(code);
        cpu.mem.write_u32(12 * 4, 0x8000);
        cpu.mem.write_u32(13 * 4, 0x8010);
        cpu.mem.write(0x8000, &[0xf4]);
        cpu.mem.write(0x8010, &[0xf4]);
        cpu.mem.write(0x9_0000, &[0xcc; 16]);
        let mut s = cpu.state();
        s.seg[2] = Segment::real(0x9000);
        s.gpr[4] = sp;
        cpu.set_state(&s);
        assert_eq!(run(&mut cpu), Exit::Halted);
        assert_eq!((cpu.eip, cpu.regs.r32(gpr::ESP)), (0x8011, sp - 6), "SP = {sp}");
        let mut stack = [0; 16];
        cpu.mem.read(0x9_0000, &mut stack);
        let frame = sp as usize - 6..sp as usize;
        let untouched = stack.iter().enumerate().filter(|(i, _)| !frame.contains(i));
        assert!(untouched.into_iter().all(|(_, &b)| b == 0xcc), "only the frame was written");
    }
    // An even one, or one beyond, is none of that.
    let mut cpu = real(&[0x60, 0xf4]);
    let mut s = cpu.state();
    s.gpr[4] = 17;
    cpu.set_state(&s);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!(cpu.regs.r32(gpr::ESP), 1);
}

#[test]
fn a_popped_selector_is_half_its_slot() {
    // pop ds; hlt: the stack segment ends behind the selector.
    let mut cpu = flat(&[0x1f, 0xf4]);
    let mut s = cpu.state();
    s.seg[2].limit = 0x8001;
    cpu.set_state(&s);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.regs.r32(gpr::ESP), cpu.seg[3].arch.selector), (0x8004, 0));
}

#[test]
fn a_fault_between_two_elements_finds_the_flags_as_they_were() {
    // stc; mov ecx, 8; mov esi, 3ffffeh; mov edi, esi; repe cmpsb: the third byte is not mapped. #PF's handler halts.
    let mut cpu =
        flat_with_tables(&[0xf9, 0xb9, 8, 0, 0, 0, 0xbe, 0xfe, 0xff, 0x3f, 0, 0x89, 0xf7, 0xf3, 0xa6], true);
    cpu.mem.write(0x3000, &[0xf4]);
    cpu.mem.write_u64(0x5000 + 14 * 8, 0x0000_8e00_0008_3000);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.eip, cpu.cr2, cpu.regs.r32(gpr::ECX)), (0x3001, 0x40_0000, 6));
    // Two equal bytes were compared; the flags that #PF saved are still those of STC.
    let saved = cpu.mem.read_u32(0x8000 - 4);
    assert_eq!(saved & (flags::CF | flags::ZF), flags::CF);
}

#[test]
fn a_far_return_looks_at_the_selector_before_the_outer_stack() {
    // push 3 (a null selector of an outer level); push 0; retf, at the very top of the stack segment.
    let mut cpu = flat_with_tables(&[0x6a, 3, 0x6a, 0, 0xcb], false);
    for (vector, handler) in [(12, 0x3000), (13, 0x3010)] {
        cpu.mem.write(handler, &[0xf4]);
        cpu.mem.write_u64(0x5000 + vector * 8, 0x0000_8e00_0008_0000 | u64::from(handler));
    }
    let mut s = cpu.state();
    s.seg[2].limit = 0x7fff;
    cpu.set_state(&s);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!(cpu.eip, 0x3011, "#GP, not #SS");
}

/// A board with a device that panics.
struct Broken;

impl Bus for Broken {
    fn port_read(&mut self, _: &mut Memory, _: u16, _: Width) -> u32 {
        panic!("a port is broken")
    }
    fn mmio_write(&mut self, _: &mut Memory, _: u32, _: Width, _: u32) {
        panic!("a register is broken")
    }
    fn now(&mut self) -> u64 {
        0
    }
    fn random(&mut self) -> u32 {
        0
    }
}

#[test]
fn a_device_that_panics_ends_the_run_and_is_disconnected() {
    // in al, 60h; hlt — mov [80000000h], al; hlt
    for code in [&[0xe4, 0x60, 0xf4][..], &[0xa2, 0, 0, 0, 0x80, 0xf4]] {
        let mut cpu = flat(code);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cpu.run(&mut Broken, 1000)));
        assert!(ended.is_err());
        assert!(cpu.bus.is_none());
        // No device answers any more.
        assert_eq!(cpu.read::<u32>(0x8000_0000), Ok(u32::MAX));
        cpu.set_state(&flat(code).state());
        assert_eq!(run(&mut cpu), Exit::Halted);
    }
}

/// `flat_with_tables`; the handler of interrupt 20h at 3000h runs this code, and that of #DB at 3100h is INC EBP; IRET.
fn interruptible(code: &[u8], handler: &[u8]) -> Cpu {
    let mut cpu = flat_with_tables(code, false);
    cpu.mem.write(0x3000, handler);
    cpu.mem.write(0x3100, &[0x45, 0xcf]);
    cpu.mem.write_u64(0x5000 + 0x20 * 8, 0x0000_8e00_0008_3000);
    cpu.mem.write_u64(0x5000 + 8, 0x0000_8e00_0008_3100);
    cpu
}

#[test]
fn a_return_in_the_shadow_of_sti_is_all_that_comes_before_the_interrupt() {
    // call f; inc ecx; hlt; f: cli; out dx, al; sti; ret — handler: mov ebx, ecx; mov esi, [esp]; iret.
    let code = [0xe8, 2, 0, 0, 0, 0x41, 0xf4, 0xfa, 0xee, 0xfb, 0xc3];
    let mut cpu = interruptible(&code, &[0x89, 0xcb, 0x8b, 0x34, 0x24, 0xcf]);
    // Until the port is that of the interrupt the processor gets to know where the call returns to.
    for (port, seen) in [(0, 0), (0, 0), (0x99, 2)] {
        (cpu.eip, cpu.halted) = (0x1000, false);
        cpu.regs.set_r32(gpr::EAX, 0x20);
        cpu.regs.set_r32(gpr::EDX, port);
        assert_eq!(run(&mut cpu), Exit::Halted);
        assert_eq!(cpu.regs.r32(gpr::EBX), seen);
    }
    assert_eq!(cpu.regs.r32(gpr::ESI), 0x1005);
}

#[test]
fn a_single_step_over_a_return_is_one_instruction() {
    // call f; call f; push 2; popf; hlt; f: ret
    let mut cpu = interruptible(&[0xe8, 9, 0, 0, 0, 0xe8, 4, 0, 0, 0, 0x6a, 2, 0x9d, 0xf4, 0xc3], &[]);
    // Without TF first, so that the processor knows where the calls return to.
    for (eflags, traps) in [(2, 0), (2, 0), (2 | flags::TF, 6)] {
        (cpu.eip, cpu.halted, cpu.flags.system) = (0x1000, false, eflags);
        assert_eq!(run(&mut cpu), Exit::Halted);
        assert_eq!(cpu.regs.r32(gpr::EBP), traps);
    }
}

#[test]
fn popf_lets_an_interrupt_in_before_the_next_instruction() {
    // mov al, 20h; push 202h; pushf; out 99h, al; inc ecx; popf; inc ecx; popf; inc ecx; hlt
    // handler: mov ebx, ecx; mov esi, [esp]; iret
    let code = [0xb0, 0x20, 0x68, 2, 2, 0, 0, 0x9c, 0xe6, 0x99, 0x41, 0x9d, 0x41, 0x9d, 0x41, 0xf4];
    let mut cpu = interruptible(&code, &[0x89, 0xcb, 0x8b, 0x34, 0x24, 0xcf]);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.regs.r32(gpr::ECX), cpu.regs.r32(gpr::EBX)), (3, 2), "the second POPF sets IF");
    assert_eq!((cpu.regs.r32(gpr::ESI), cpu.regs.r32(gpr::ESP)), (0x100e, 0x8000));
}

#[test]
fn iret_lets_an_interrupt_in_before_the_next_instruction() {
    // mov al, 20h; out 99h, al; pushf; or dword [esp], 200h; push cs; push TARGET; iret; target: inc ecx; hlt. Twice, so
    // that the target is known to the processor already.
    let code = [
        0xb0, 0x20, 0xe6, 0x99, 0x9c, 0x81, 0x0c, 0x24, 0, 2, 0, 0, 0x0e, 0x68, 0x13, 0x10, 0, 0, 0xcf, 0x41,
        0xfa, 0xf4, 0xeb, 0xe8,
    ];
    // inc edx; mov ebx, ecx; iret
    let mut cpu = interruptible(&code, &[0x42, 0x89, 0xcb, 0xcf]);
    for round in 0..3 {
        cpu.halted = false;
        assert_eq!(run(&mut cpu), Exit::Halted);
        assert_eq!((cpu.regs.r32(gpr::EDX), cpu.regs.r32(gpr::EBX)), (round + 1, round));
    }
}

#[test]
fn a_trap_flag_that_popf_sets_traps_after_the_next_instruction() {
    // pushf; or dword [esp], 100h; popf; inc eax; inc eax; push 2; popf; inc eax; hlt
    let code = [0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x40, 0x40, 0x6a, 2, 0x9d, 0x40, 0xf4];
    let mut cpu = interruptible(&code, &[]);
    assert_eq!(run(&mut cpu), Exit::Halted);
    // INC, INC, PUSH and the second POPF.
    assert_eq!((cpu.regs.r32(gpr::EAX), cpu.regs.r32(gpr::EBP)), (3, 4));
}

#[test]
fn flags_that_popf_would_replace_are_there_if_it_faults() {
    // mov esp, 3ffffeh; xor eax, eax; popf; nop: the page behind is not mapped. #PF's handler halts.
    let mut cpu = flat_with_tables(&[0xbc, 0xfe, 0xff, 0x3f, 0, 0x31, 0xc0, 0x9d, 0x90], true);
    cpu.mem.write(0x3000, &[0xf4]);
    cpu.mem.write_u64(0x5000 + 14 * 8, 0x0000_8e00_0008_3000);
    assert_eq!(run(&mut cpu), Exit::Halted);
    assert_eq!((cpu.eip, cpu.cr2, cpu.regs.r32(gpr::ESP)), (0x3001, 0x40_0000, 0x3f_fffe - 16));
    assert_eq!(cpu.mem.read_u32(0x3f_fffe - 4) & flags::ARITH, flags::ZF | flags::PF);
}

#[test]
fn scans_and_comparisons_go_over_pages() {
    // One element in pages of zeros is not zero. What repeats until it differs, or until it is found: repe scas,
    // repne scas, repe cmps, each for 8, 16 and 32 bits.
    const AT: u32 = 0x10_0f00;
    for (opcode, size) in [(0xaeu8, 1u32), (0xaf, 2), (0xaf, 4), (0xa6, 1), (0xa7, 2), (0xa7, 4)] {
        for (prefix, from) in [(0xf3u8, 0), (0xf2, 1), (0xf3, 0x11)] {
            for found in [0, 1, 31, 32, 33, 63, 64, 200, 256 / size, 1000, 4999] {
                let compares = opcode < 0xa8;
                if compares && prefix == 0xf2 {
                    continue;
                }
                let mut code = vec![prefix, opcode, 0xf4];
                if size == 2 {
                    code.insert(0, 0x66);
                }
                let mut cpu = flat(&code);
                let at = AT + from;
                cpu.mem.write(at + found * size, &[1]);
                cpu.regs.set_r32(gpr::EAX, u32::from(prefix == 0xf2));
                cpu.regs.set_r32(gpr::ECX, 5000);
                cpu.regs.set_r32(gpr::EDI, at);
                cpu.regs.set_r32(gpr::ESI, 0x20_0ff0);
                assert_eq!(run(&mut cpu), Exit::Halted);
                let done = found + 1;
                assert_eq!(cpu.regs.r32(gpr::ECX), 5000 - done, "{prefix:x} {code:x?} {found}");
                assert_eq!(cpu.regs.r32(gpr::EDI), at + done * size);
                let esi = if compares { done * size } else { 0 };
                assert_eq!(cpu.regs.r32(gpr::ESI), 0x20_0ff0 + esi);
                // Nothing less something, or something less itself.
                let last =
                    if prefix == 0xf2 { flags::ZF | flags::PF } else { flags::CF | flags::AF | flags::SF };
                let known = flags::ARITH & !flags::PF | last & flags::PF;
                assert_eq!(cpu.flags.arith() & known, last);
            }
        }
    }
}
