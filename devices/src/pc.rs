//! A whole machine: the processor on its board, run in slices.

use crate::board::Clock;
use crate::board::{Board, BoardConfig, Entropy, OUTPUT_LIMIT, Request};
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
    /// The guest switched the power off.
    PowerOff,
    /// The guest asked for a reset, and the machine is reset; whoever loaded it must do so again.
    Reset,
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
    /// Instructions per nanosecond of guest time, as measured.
    speed: f64,
}

impl Pc {
    /// A machine after power-on, with `mem` as its RAM.
    pub fn new(
        mut mem: Memory,
        config: BoardConfig,
        clock: Box<dyn Clock>,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        let cpu_config = CpuConfig { apic: config.acpi, ..CpuConfig::default() };
        let config = BoardConfig { memory_size: mem.size(), ..config };
        let board = Board::new(config, &mut mem, clock, entropy);
        Self {
            cpu: Cpu::new(mem, cpu_config),
            board,
            passengers: Passengers::default(),
            speed: INITIAL_SPEED,
        }
    }

    /// What the reset button does. Memory keeps its contents.
    pub fn reset(&mut self) {
        self.cpu.reset();
        self.board.reset(&mut self.cpu.mem);
    }

    /// Executes about `budget` instructions, or until something happens.
    pub fn run(&mut self, budget: u64) -> Stop {
        let mut left = budget;
        loop {
            let now = self.board.time();
            self.board.begin_slice(now);
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
                Exit::Halted => match self.halted() {
                    Some(event) => return event,
                    None => left = left.saturating_sub(SKIP_COST),
                },
            }
            if self.board.output_waiting() > OUTPUT_LIMIT {
                return self.requested().unwrap_or(Stop::Output);
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
        if self.board.interrupt() {
            // It was there when the processor halted, so interrupts are disabled.
            return self.requested().or(Some(Stop::Idle { until: None }));
        }
        let now = self.board.time();
        self.board.begin_slice(now);
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

    fn machine() -> Pc {
        let config = BoardConfig { debug_exit: Some(0xf4), ..BoardConfig::default() };
        let memory = Memory::new(1 << 20).unwrap();
        Pc::new(memory, config, Box::new(VirtualClock::new(1, 0)), Box::new(Seeded(1)))
    }

    fn out(machine: &mut Pc, port: u16, value: u32) {
        machine.board.port_write(&mut machine.cpu.mem, port, Width::Byte, value);
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
        assert_eq!(machine.board.port_read(&mut machine.cpu.mem, 0x71, Width::Byte), 0);
    }
}
