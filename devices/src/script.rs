//! Runs that repeat: time comes from the count of instructions, chance from a seed, and what is typed
//! from a list. The same machine with the same list executes the same instructions, on any host.

use crate::board::{Seeded, VirtualClock};
use crate::pattern::Pattern;
use crate::pc::{Pc, Stop};
use std::collections::VecDeque;

/// The serial port that the list is typed at.
const COM1: usize = 0;
/// Instructions between looks at the serial port.
const SLICE: u64 = 200_000;
/// The same while there is something to type.
const SHORT_SLICE: u64 = 10_000;
/// How long the guest goes on after the text that was waited for, in guest time, so that the line can be
/// finished.
const AFTER_TEXT: u64 = 20_000_000;
/// An instruction takes a cycle of the time stamp counter.
const NS_PER_INSTRUCTION: u64 = 1;
/// What the random numbers follow from.
const SEED: u64 = 86;

/// What happens to a machine from outside.
#[derive(Clone, Debug, Default)]
pub struct Script {
    input: VecDeque<u8>,
    text: Option<Pattern>,
    output: Vec<u8>,
    /// Guest time at which the text's line is over.
    over_at: Option<u64>,
    over: bool,
}

impl Script {
    /// Wall time at power-on, in milliseconds since 1970: the beginning of 2025.
    pub const POWER_ON_MILLIS: i64 = 1_735_689_600_000;

    /// Types `input` at COM1, as fast as the guest takes it, and is over when COM1 has sent `text`.
    pub fn new(input: &[u8], text: Option<Vec<u8>>) -> Self {
        Self { input: input.iter().copied().collect(), text: text.map(Pattern::new), ..Self::default() }
    }

    /// The clock for the machine. It is now `now`, in nanoseconds of guest time, and `unix_millis`.
    pub fn clock(now: u64, unix_millis: i64) -> VirtualClock {
        let since_power_on = (now / 1_000_000) as i64;
        VirtualClock {
            now,
            ns_per_instruction: NS_PER_INSTRUCTION,
            power_on_millis: unix_millis.saturating_sub(since_power_on),
        }
    }

    /// The machine's random numbers.
    pub fn entropy() -> Seeded {
        Seeded(SEED)
    }

    /// Lets the machine execute for a while, or until something happens. [`Stop::Idle`] means that
    /// nothing will happen any more.
    pub fn run(&mut self, machine: &mut Pc) -> Stop {
        let listens = machine.board.uarts[COM1].as_ref().is_some_and(|uart| uart.listens());
        if listens && !self.input.is_empty() {
            let taken = machine.board.serial_input(COM1, self.input.make_contiguous());
            self.input.drain(..taken);
        }
        let event = machine.run(if self.input.is_empty() { SLICE } else { SHORT_SLICE });
        let said = machine.board.serial_output(COM1);
        let now = machine.board.time();
        if self.over_at.is_none() && self.text.as_mut().is_some_and(|text| text.found_in(&said)) {
            self.over_at = Some(now.saturating_add(AFTER_TEXT));
        }
        self.over |= self.over_at.is_some_and(|at| at <= now);
        self.output.extend(said);
        event
    }

    /// The text has come, and its line is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes what COM1 has sent.
    pub fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::BoardConfig;
    use crate::state::digest;
    use env86_emu::Memory;

    /// At the reset vector's segment: answers each byte with itself and a digit of the time stamp
    /// counter, forever.
    const CODE: [u8; 34] = [
        0xba, 0xfc, 0x03, // 00 mov dx, 3FCh        modem control
        0xb0, 0x03, //       03 mov al, 3
        0xee, //             05 out dx, al
        0xba, 0xfd, 0x03, // 06 mov dx, 3FDh        line status
        0xec, //             09 in al, dx
        0xa8, 0x01, //       0A test al, 1
        0x74, 0xf8, //       0C jz 06h
        0xba, 0xf8, 0x03, // 0E mov dx, 3F8h
        0xec, //             11 in al, dx
        0xee, //             12 out dx, al
        0x0f, 0x31, //       13 rdtsc
        0x24, 0x0f, //       15 and al, 15
        0x04, 0x41, //       17 add al, 'A'
        0xba, 0xf8, 0x03, // 19 mov dx, 3F8h
        0xee, //             1C out dx, al
        0x0f, 0xc7, 0xf0, // 1D rdrand ax
        0xeb, 0xe4, //       20 jmp 06h
    ];

    fn play(input: &[u8]) -> (Vec<u8>, u64, u64) {
        let mut mem = Memory::new(2 << 20).unwrap();
        mem.load(0x1_0000, &CODE);
        let clock = Box::new(Script::clock(0, Script::POWER_ON_MILLIS));
        let mut machine = Pc::new(mem, BoardConfig::default(), clock, Box::new(Script::entropy())).unwrap();
        let mut state = machine.cpu.state();
        state.seg[1].selector = 0x1000;
        state.seg[1].base = 0x1_0000;
        state.eip = 0;
        machine.cpu.set_state(&state);
        let mut script = Script::new(input, Some(b"!".to_vec()));
        let mut output = Vec::new();
        for _ in 0..10_000 {
            script.run(&mut machine);
            output.extend(script.output());
            if script.is_over() {
                return (output, machine.cpu.stats().instructions, digest(&mut machine).unwrap());
            }
        }
        panic!("the text never came");
    }

    #[test]
    fn the_same_input_is_the_same_run() {
        let first = play(b"what?!");
        assert_eq!(first.0.iter().step_by(2).copied().collect::<Vec<_>>(), b"what?!");
        assert_eq!(play(b"what?!"), first);
        assert_ne!(play(b"What?!").0, first.0);
    }
}
