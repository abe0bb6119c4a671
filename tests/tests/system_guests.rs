//! The guests in `system/`: assembly that puts the processor's system side to the test, run on the bare
//! processor with just enough of a PC around it.
//!
//! Needs GNU binutils (`as`, `ld`, `objcopy`). The same images boot with
//! `env86 boot --bios FILE --debug-exit 0xf4`, and under QEMU with `system/run-qemu.sh`.

use std::fs;

use env86_emu::{ArchState, Bus, Cpu, CpuConfig, Exit, Memory, Width};
use env86_tests::{binutil, built};

/// Most instructions that a guest may take.
const LIMIT: u64 = 5_000_000;
const RAM: u64 = 16 << 20;
/// Where the ROM is in the first MiB.
const ROM: u32 = 0xf_0000;

/// Lines of the interrupt controller.
const COM1: u32 = 4;
const FPU: u32 = 13;

mod port {
    pub const PIC1: u16 = 0x20;
    pub const PIC1_DATA: u16 = 0x21;
    pub const PIC2: u16 = 0xa0;
    pub const PIC2_DATA: u16 = 0xa1;
    /// The bus master of this board: see [`super::Board::master`].
    pub const MASTER: u16 = 0xe8;
    pub const TEXT: u16 = 0xe9;
    pub const FPU_CLEAR: u16 = 0xf0;
    pub const EXIT: u16 = 0xf4;
    pub const UART_IER: u16 = 0x3f9;
    pub const UART_IIR: u16 = 0x3fa;
}

/// Answers reads of [`port::MASTER`], so that a guest knows that it is there.
const MASTER_ID: u32 = 0x86;

/// The least of a PC: the interrupt controllers as far as fixed priorities, masks and vectors go, a
/// serial port that only ever has its transmitter empty, and a bus master.
#[derive(Default)]
struct Board {
    text: String,
    exit: Option<u32>,
    /// Raised lines, 0 to 15, and those that are masked or in service.
    raised: u32,
    masked: u32,
    in_service: u32,
    vectors: [u8; 2],
    /// Which initialisation word comes next, per controller.
    init: [u8; 2],
    time: u64,
}

impl Board {
    fn next(&self) -> Option<u32> {
        let ready = self.raised & !self.masked;
        // IRQ 8 to 15 come in where IRQ 2 would.
        let order = [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7];
        let busy = order.iter().position(|&n| self.in_service >> n & 1 != 0);
        order[..busy.unwrap_or(order.len())].iter().copied().find(|&n| ready >> n & 1 != 0)
    }

    fn set_line(&mut self, line: u32, level: bool) {
        self.raised = (self.raised & !(1 << line)) | u32::from(level) << line;
    }

    fn pic(&mut self, n: usize, data: bool, v: u8) {
        match (data, self.init[n]) {
            (false, _) if v & 0x10 != 0 => self.init[n] = 2,
            (false, _) => {
                // Any end of interrupt ends the one of the highest priority.
                let mine = self.in_service & (0xff << (8 * n));
                self.in_service &= !(mine & mine.wrapping_neg());
            }
            (true, 2) => (self.vectors[n], self.init[n]) = (v & !7, 3),
            (true, 3) => self.init[n] = 4,
            (true, 4) => self.init[n] = 0,
            (true, _) => self.masked = (self.masked & !(0xff << (8 * n))) | u32::from(v) << (8 * n),
        }
    }

    /// A doubleword written to [`port::MASTER`] is the address of what to do: where to, how many bytes,
    /// and the bytes. The board writes them itself, past the processor.
    fn master(mem: &mut Memory, at: u32) {
        let (to, count) = (mem.read_u32(at), mem.read_u32(at.wrapping_add(4)).min(4096));
        let mut bytes = vec![0; count as usize];
        mem.read(at.wrapping_add(8), &mut bytes);
        mem.write(to, &bytes);
    }
}

impl Bus for Board {
    fn port_read(&mut self, _: &mut Memory, port: u16, width: Width) -> u32 {
        match port {
            port::MASTER => MASTER_ID,
            port::UART_IIR => {
                let pending = self.raised >> COM1 & 1 != 0;
                self.set_line(COM1, false);
                if pending { 2 } else { 1 }
            }
            _ => width.mask(),
        }
    }

    fn port_write(&mut self, mem: &mut Memory, port: u16, _: Width, value: u32) {
        match port {
            port::PIC1 => self.pic(0, false, value as u8),
            port::PIC1_DATA => self.pic(0, true, value as u8),
            port::PIC2 => self.pic(1, false, value as u8),
            port::PIC2_DATA => self.pic(1, true, value as u8),
            port::MASTER => Self::master(mem, value),
            port::TEXT => self.text.push(value as u8 as char),
            port::FPU_CLEAR => self.set_line(FPU, false),
            port::EXIT => self.exit = Some(value),
            port::UART_IER => self.set_line(COM1, value & 2 != 0),
            _ => {}
        }
    }

    fn interrupt(&self) -> bool {
        self.next().is_some()
    }

    fn acknowledge(&mut self) -> u8 {
        let Some(line) = self.next() else { return 0xff };
        self.in_service |= 1 << line;
        self.vectors[(line / 8) as usize] | (line % 8) as u8
    }

    fn yield_requested(&self) -> bool {
        self.exit.is_some()
    }

    fn now(&mut self) -> u64 {
        self.time += 100;
        self.time
    }

    fn fpu_error(&mut self) {
        self.set_line(FPU, true);
    }

    fn random(&mut self) -> u32 {
        4
    }
}

fn assemble(name: &str) -> Vec<u8> {
    let [object, elf, image] = ["o", "elf", "bin"].map(|ext| built(&format!("{name}.{ext}")));
    binutil("as", &["--32", "-I", ".", "-o", &object, &format!("{name}.s")]);
    let link = ["--no-warn-rwx-segments", "-m", "elf_i386", "-T", "guest.ld", "-o", &elf, &object];
    binutil("ld", &link);
    binutil("objcopy", &["-O", "binary", "-j", ".image", "-j", ".reset", &elf, &image]);
    fs::read(image).expect("objcopy wrote it")
}

/// Runs a guest to its end: how that came, and the board.
fn run(name: &str) -> (Exit, Board, ArchState) {
    let mut mem = Memory::new(RAM).expect("16 MiB");
    mem.set_rom_alias(true);
    mem.write(ROM, &assemble(name));
    let mut cpu = Cpu::new(mem, CpuConfig::default());
    let mut board = Board::default();
    let mut ran = 0;
    loop {
        let before = cpu.stats().instructions;
        let exit = cpu.run(&mut board, 10_000);
        // A guest that gets nowhere counts, too.
        ran += (cpu.stats().instructions - before).max(1000);
        if exit != Exit::Budget || ran > LIMIT {
            let state = cpu.state();
            return (exit, board, state);
        }
    }
}

/// A guest that counts its failed checks.
fn passes(name: &str) {
    let (exit, board, state) = run(name);
    assert!(
        exit == Exit::Yield && board.exit == Some(0),
        "{name}: {exit:?}, {:?}, CS:EIP {:x}:{:x}\n{}",
        board.exit,
        state.seg[1].selector,
        state.eip,
        board.text
    );
    println!("{name}: {}", board.text.trim());
}

macro_rules! guests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            passes(stringify!($name));
        })*
    };
}

guests!(segments gates paging pae tasks v86 real smc debug irq fpu faults mixed);

#[test]
fn triple() {
    let (exit, board, _) = run("triple");
    assert_eq!((exit, board.exit), (Exit::Shutdown, None), "{}", board.text);
}
