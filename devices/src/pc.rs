//! A whole machine: the processor on its board, run in slices.

use crate::board::Clock;
use crate::board::{Board, BoardConfig, BoardError, Entropy, OUTPUT_LIMIT, Request};
use crate::connections::Connections;
use crate::state::Passengers;
use env86_emu::{Bus, Cpu, CpuConfig, Exit, Memory};

/// Instructions in a slice at most.
const MAX_SLICE: u64 = 100_000;
/// Instructions in a slice at least, however near a deadline is.
const MIN_SLICE: u64 = 1_000;
/// What skipping over a halt costs of the budget, so that an idle guest uses it up, too.
const SKIP_COST: u64 = 1_000;
/// Instructions per nanosecond assumed before the first measurement.
const INITIAL_SPEED: f64 = 0.2;

/// Why [`Pc::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The budget is spent.
    Budget,
    /// The processor is halted: nothing happens before this guest time in nanoseconds, or for ever,
    /// unless something comes from outside.
    Idle {
        /// The time.
        until: Option<u64>,
    },
    /// The slice is over or a queue is long, and there is output to take.
    Output,
    /// The machine stands still until data have come ([`Pc::stands_still`]). Nothing is due: neither output
    /// is to be taken nor input to be given before the rest of the budget has been run.
    Waiting {
        /// What is left of the budget.
        left: u64,
    },
    /// The guest switched the power off.
    PowerOff,
    /// The guest asked for a reset, and the machine is reset; whoever loaded it must do so again.
    Reset,
    /// A breakpoint of the host's: see [`Exit::Breakpoint`].
    Breakpoint {
        /// Its linear address.
        linear: u32,
    },
    /// A watchpoint of the host's: see [`Exit::Watchpoint`].
    Watchpoint {
        /// Linear address of the first watched byte of the access.
        linear: u32,
        /// It was a write.
        write: bool,
    },
    /// The processor has shut down. [`Pc::reset`] would restart it.
    TripleFault,
    /// The guest wrote this value to the debug exit port.
    DebugExit(u32),
}

/// A machine.
pub struct Pc {
    /// The processor, with the memory.
    pub cpu: Cpu,
    /// The board.
    pub board: Board,
    /// Devices of v86's that this board has not, from the state that the machine was restored from.
    pub passengers: Passengers,
    /// The guest's TCP connections, which a machine that is resumed has lost.
    pub connections: Connections,
    /// No instruction is executed while the guest waits for data of media and files: how late they come
    /// makes no difference to it. It is for clocks that stand still, too.
    pub stands_still: bool,
    /// Instructions per nanosecond of guest time, as measured.
    speed: f64,
}

impl Pc {
    /// A machine after power-on, with `mem` as its RAM.
    ///
    /// # Errors
    /// As [`Board::new`].
    pub fn new(
        mut mem: Box<Memory>,
        config: BoardConfig,
        clock: Box<dyn Clock>,
        entropy: Box<dyn Entropy>,
    ) -> Result<Self, BoardError> {
        let cpu_config = CpuConfig { apic: config.acpi, ..CpuConfig::default() };
        let config = BoardConfig { memory_size: mem.size(), ..config };
        let board = Board::new(config, &mut mem, clock, entropy)?;
        Ok(Self {
            cpu: Cpu::new(mem, cpu_config),
            board,
            passengers: Passengers::default(),
            connections: Connections::default(),
            stands_still: false,
            speed: INITIAL_SPEED,
        })
    }

    /// What the reset button does. Memory keeps its contents.
    pub fn reset(&mut self) {
        self.cpu.reset();
        self.board.reset(self.cpu.mem_mut());
    }

    /// Executes about `budget` instructions, or until something happens.
    pub fn run(&mut self, budget: u64) -> Stop {
        let mut left = budget;
        loop {
            let now = self.board.time();
            self.board.begin_slice(self.cpu.mem_mut(), now);
            if let Some(event) = self.requested() {
                return event;
            }
            if left == 0 {
                return if self.board.output_waiting() > 0 { Stop::Output } else { Stop::Budget };
            }
            let (executed, exit) = self.slice(now, left);
            left = left.saturating_sub(executed.max(1));
            match exit {
                Exit::Budget | Exit::Yield => {}
                Exit::Shutdown => return Stop::TripleFault,
                Exit::Breakpoint { linear } => return Stop::Breakpoint { linear },
                Exit::Watchpoint { linear, write } => return Stop::Watchpoint { linear, write },
                Exit::Halted => match self.halted() {
                    Some(event) => return event,
                    None => left = left.saturating_sub(SKIP_COST),
                },
            }
            if self.board.output_waiting() > OUTPUT_LIMIT {
                return self.requested().unwrap_or(Stop::Output);
            }
            if self.stands_still && self.board.waits_for_data() {
                return Stop::Waiting { left };
            }
        }
    }

    /// Executes until the next deadline, but not for long. Gives the instructions executed.
    fn slice(&mut self, now: u64, left: u64) -> (u64, Exit) {
        let until_deadline = self.board.next_event().map_or(f64::INFINITY, |t| t.saturating_sub(now) as f64);
        let slice = ((until_deadline * self.speed) as u64).clamp(MIN_SLICE, MAX_SLICE).min(left);
        self.board.set_slice_end(now.saturating_add((slice as f64 / self.speed) as u64));
        let before = self.cpu.stats().instructions;
        let exit = self.cpu.run(&mut self.board, slice);
        let executed = self.cpu.stats().instructions.saturating_sub(before);
        self.board.clock().executed(executed);
        let ns = self.board.time().saturating_sub(now);
        self.measure(executed, ns);
        (executed, exit)
    }

    /// Takes a slice into the measured speed.
    fn measure(&mut self, executed: u64, ns: u64) {
        const LEAST_INSTRUCTIONS: u64 = 500;
        if executed >= LEAST_INSTRUCTIONS && ns > 0 {
            let measured = (executed as f64 / ns as f64).clamp(0.001, 100.0);
            self.speed += (measured - self.speed) / 8.0;
        }
    }

    /// What to do about HLT: `None` is to go on.
    fn halted(&mut self) -> Option<Stop> {
        self.board.halted();
        if self.board.interrupt() {
            // It was there when the processor halted, so interrupts are disabled.
            return self.requested().or(Some(Stop::Idle { until: None }));
        }
        let now = self.board.time();
        self.board.begin_slice(self.cpu.mem_mut(), now);
        if let Some(event) = self.requested() {
            return Some(event);
        }
        if self.board.interrupt() {
            return None;
        }
        let until = self.board.next_event();
        let skipped = until.is_some_and(|until| self.board.clock().skip_to(until));
        if skipped { None } else { Some(Stop::Idle { until }) }
    }

    /// Answers what the guest has asked for, if it has.
    fn requested(&mut self) -> Option<Stop> {
        Some(match self.board.take_request()? {
            Request::Reset => {
                self.reset();
                Stop::Reset
            }
            Request::PowerOff => Stop::PowerOff,
            Request::DebugExit(value) => Stop::DebugExit(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Seeded, VirtualClock};
    use env86_emu::Width;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn machine() -> Pc {
        let config = BoardConfig { debug_exit: Some(0xf4), ..BoardConfig::default() };
        let memory = Memory::new(1 << 20).unwrap();
        Pc::new(memory, config, Box::new(VirtualClock::new(1, 0)), Box::new(Seeded(1))).unwrap()
    }

    fn out(machine: &mut Pc, port: u16, value: u32) {
        machine.board.port_write(machine.cpu.mem_mut(), port, Width::Byte, value);
    }

    #[test]
    fn what_the_guest_asks_for_ends_the_run() {
        let mut machine = machine();
        out(&mut machine, 0xf4, 7);
        assert_eq!(machine.run(1_000_000), Stop::DebugExit(7));
        out(&mut machine, 0x20, 0x11);
        out(&mut machine, 0xcf9, 6);
        assert_eq!(machine.run(1_000_000), Stop::Reset);
        assert_eq!(machine.board.interrupts.pic, crate::pic::Pic::default());
    }

    #[test]
    fn output_is_told_at_the_end_of_the_budget() {
        let mut machine = machine();
        out(&mut machine, 0x3f8, 0x41);
        assert_eq!(machine.run(0), Stop::Output);
        assert_eq!(machine.board.serial_output(0), b"A");
        assert_eq!(machine.run(0), Stop::Budget);
    }

    #[test]
    fn memory_size_is_that_of_the_memory() {
        let mut machine = machine();
        out(&mut machine, 0x70, 0x17);
        assert_eq!(machine.board.port_read(machine.cpu.mem_mut(), 0x71, Width::Byte), 0);
    }

    /// A virtual clock that counts the slices.
    struct SliceCounter(VirtualClock, Arc<AtomicU64>);

    impl Clock for SliceCounter {
        fn now(&mut self) -> u64 {
            self.0.now()
        }

        fn unix_millis(&mut self) -> i64 {
            self.0.unix_millis()
        }

        fn executed(&mut self, instructions: u64) {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.executed(instructions);
        }
    }

    /// A machine that runs `code` at 1000:0000, and the count of its slices.
    fn running(code: &[u8]) -> (Pc, Arc<AtomicU64>) {
        let slices = Arc::new(AtomicU64::new(0));
        let clock = Box::new(SliceCounter(VirtualClock::new(1, 0), slices.clone()));
        let mut memory = Memory::new(1 << 20).unwrap();
        memory.load(0x1_0000, code);
        let config = BoardConfig { uarts: [true; 4], ..BoardConfig::default() };
        let mut machine = Pc::new(memory, config, clock, Box::new(Seeded(1))).unwrap();
        let mut state = machine.cpu.state();
        (state.seg[1].selector, state.seg[1].base, state.eip) = (0x1000, 0x1_0000, 0);
        machine.cpu.set_state(&state);
        (machine, slices)
    }

    #[test]
    fn output_that_no_host_takes_cuts_no_slice() {
        const BUDGET: u64 = 3_000_000;
        // mov dx, PORT / out dx, al; jmp back: over a megabyte. The debug ports and COM2 to COM4.
        for port in [0xe9u16, 0x402, 0x2f8, 0x3e8, 0x2e8] {
            let [low, high] = port.to_le_bytes();
            let (mut machine, slices) = running(&[0xba, low, high, 0xee, 0xeb, 0xfd]);
            assert_eq!(machine.run(BUDGET), Stop::Budget, "{port:x}");
            let slices = slices.load(Ordering::Relaxed);
            assert!(slices <= BUDGET / MAX_SLICE + 10, "{port:x}: {slices}");
            let waiting = machine.board.uarts.iter().flatten().map(|uart| uart.output.len()).max();
            assert!(waiting.is_some_and(|waiting| waiting <= 2 * OUTPUT_LIMIT), "{port:x}");
        }
    }

    #[test]
    fn output_that_a_host_takes_is_all_there() {
        const BYTES: usize = 100_000;
        for (port, com2) in [(0xe9u16, false), (0x2f8, true)] {
            let [low, high] = port.to_le_bytes();
            // mov dx, PORT / out dx, al; inc ax; jmp back
            let (mut machine, _) = running(&[0xba, low, high, 0xee, 0x40, 0xeb, 0xfc]);
            (machine.board.debug.connected, machine.board.connected.serial[1]) = (true, true);
            let mut output = Vec::new();
            while output.len() < BYTES {
                assert_eq!(machine.run(1_000_000), Stop::Output);
                let more =
                    if com2 { machine.board.serial_output(1) } else { machine.board.debug.take_output() };
                assert!(more.len() < 2 * OUTPUT_LIMIT);
                output.extend(more);
            }
            assert!(output.iter().zip(0..).all(|(byte, n): (_, usize)| *byte == n as u8));
        }
    }

    /// The bytes that a guest gets to see of what is typed while it runs.
    fn typed_at(code: &[u8], text: &[u8]) -> Vec<u8> {
        let (mut machine, _) = running(code);
        let (mut left, mut seen) = (text.to_vec(), Vec::new());
        for _ in 0..200 {
            if machine.board.uarts[0].as_ref().is_some_and(|uart| uart.listens()) {
                let taken = machine.board.serial_input(0, &left);
                left.drain(..taken);
            }
            machine.run(10_000);
            seen.extend(machine.board.serial_output(0));
        }
        seen
    }

    #[test]
    fn a_guest_that_polls_with_mcr_at_0_gets_its_input() {
        #[rustfmt::skip]
        let code = [
            0xba, 0xfd, 0x03, // 00 mov dx, 3FDh
            0xec,             // 03 in al, dx
            0xa8, 0x01,       // 04 test al, 1
            0x74, 0xfb,       // 06 jz 03h
            0xb2, 0xf8,       // 08 mov dl, F8h
            0xec,             // 0A in al, dx
            0xee,             // 0B out dx, al
            0xeb, 0xf2,       // 0C jmp 00h
        ];
        assert_eq!(typed_at(&code, b"hello"), b"hello");
    }

    #[test]
    fn a_guest_with_interrupts_and_mcr_at_0_gets_its_input() {
        #[rustfmt::skip]
        let code = [
            0x31, 0xc0,       // 00 xor ax, ax
            0x8e, 0xd8,       // 02 mov ds, ax
            0x8e, 0xd0,       // 04 mov ss, ax
            0xbc, 0x00, 0x70, // 06 mov sp, 7000h
            0xc7, 0x06, 0x30, 0x00, 0x33, 0x00, // 09 mov word [4*0Ch], 33h: IRQ 4
            0x8c, 0x0e, 0x32, 0x00, // 0F mov [4*0Ch+2], cs
            0xb0, 0x11, 0xe6, 0x20, // 13 the 8259: ICW1
            0xb0, 0x08, 0xe6, 0x21, // 17 vectors from 8
            0xb0, 0x04, 0xe6, 0x21, // 1B
            0xb0, 0x01, 0xe6, 0x21, // 1F
            0xb0, 0xef, 0xe6, 0x21, // 23 all but IRQ 4 masked
            0xba, 0xf9, 0x03, // 27 mov dx, 3F9h
            0xb0, 0x01,       // 2A mov al, 1
            0xee,             // 2C out dx, al
            0xfb,             // 2D sti
            0xf4,             // 2E hlt
            0xeb, 0xfd,       // 2F jmp 2Eh
            0x90, 0x90,       // 31
            0xba, 0xf8, 0x03, // 33 mov dx, 3F8h
            0xec,             // 36 in al, dx
            0xee,             // 37 out dx, al
            0xb0, 0x20, 0xe6, 0x20, // 38 end of interrupt
            0xcf,             // 3C iret
        ];
        assert_eq!(typed_at(&code, b"hello"), b"hello");
    }
}
