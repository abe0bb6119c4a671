//! Runs that repeat: time comes from the count of instructions, chance from a seed, and what comes from
//! outside from a list. The same machine with the same list executes the same instructions, on any host.

use std::collections::VecDeque;

use env86_devices::board::{Seeded, VirtualClock};
use serde::{Deserialize, Serialize};

use crate::input::{Accepted, Inlet, Input};
use crate::pattern::Pattern;
use env86_devices::Pc;

/// The serial port whose output [`Recording::until`] is about.
const COM1: u8 = 0;
/// An instruction takes a cycle of the time stamp counter.
const NS_PER_INSTRUCTION: u64 = 1;
/// What the random numbers follow from.
const SEED: u64 = 86;
/// Wall time at power-on, in milliseconds since 1970: the beginning of 2025.
pub(crate) const POWER_ON_MILLIS: i64 = 1_735_689_600_000;

/// Everything that happens to a machine from outside, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// What goes in.
    pub inputs: Vec<Recorded>,
    /// The run is over when COM1 has sent this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Vec<u8>>,
}

/// An input and its moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The processor's count of instructions since power-on, or since the machine was resumed.
    pub at: u64,
    /// What goes in then, or as soon afterwards as there is room for it.
    pub input: Input,
}

impl Recording {
    /// Bytes typed at COM1 from the start, as fast as the guest takes them.
    pub fn typed(bytes: impl Into<Vec<u8>>, until: Option<Vec<u8>>) -> Self {
        let input = Input::Serial { port: COM1, bytes: bytes.into() };
        Self { inputs: vec![Recorded { at: 0, input }], until }
    }
}

/// The clock of a machine whose guest time is `now`, in nanoseconds, and whose wall time `unix_millis`.
pub(crate) fn clock(now: u64, unix_millis: i64) -> VirtualClock {
    let since_power_on = (now / 1_000_000) as i64;
    VirtualClock {
        now,
        ns_per_instruction: NS_PER_INSTRUCTION,
        power_on_millis: unix_millis.saturating_sub(since_power_on),
    }
}

/// The machine's random numbers.
pub(crate) fn entropy() -> Seeded {
    Seeded(SEED)
}

/// A recording on its way into a machine, and the record of what has got there.
#[derive(Debug)]
pub(crate) struct Playback {
    left: VecDeque<Recorded>,
    until: Option<Vec<u8>>,
    text: Option<Pattern>,
    over: bool,
    /// Every piece that was taken, at the moment when it was: played, or given beside the recording.
    taken: Vec<Recorded>,
}

impl Playback {
    pub fn new(recording: Recording) -> Self {
        let Recording { inputs, until } = recording;
        let text = until.clone().map(Pattern::new);
        Self { left: inputs.into(), until, text, over: false, taken: Vec::new() }
    }

    /// Gives the machine what is due, as far as it has room.
    pub fn play(&mut self, inlet: &mut Inlet, pc: &mut Pc) {
        let now = pc.cpu.stats().instructions;
        while let Some(next) = self.left.front_mut().filter(|next| next.at <= now) {
            let accepted = inlet.take(&next.input, pc);
            log(&mut self.taken, now, &next.input, accepted);
            match (accepted, &mut next.input) {
                (Accepted::Some(count), Input::Serial { bytes, .. } | Input::Console { bytes, .. })
                    if count > 0 =>
                {
                    bytes.drain(..count);
                    // Devices may have room for more.
                    inlet.feed(pc);
                }
                (Accepted::Some(_), _) => {
                    // Only what the devices take makes room.
                    let before = inlet.waiting();
                    inlet.feed(pc);
                    if inlet.waiting() == before {
                        return;
                    }
                }
                (Accepted::All | Accepted::NoDevice | Accepted::Refused, _) => _ = self.left.pop_front(),
            }
        }
    }

    /// Notes an input that came beside the recording.
    pub fn note(&mut self, at: u64, input: &Input, accepted: Accepted) {
        log(&mut self.taken, at, input, accepted);
    }

    /// The machine has sent bytes on a serial port.
    pub fn sent(&mut self, port: u8, bytes: &[u8]) {
        if port == COM1 {
            self.over |= self.text.as_mut().is_some_and(|text| text.found_in(bytes));
        }
    }

    /// The text has come.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Nothing more is to come.
    pub fn is_played(&self) -> bool {
        self.left.is_empty()
    }

    /// What has happened until now: played again, it makes the same run.
    pub fn recording(&self) -> Recording {
        Recording { inputs: self.taken.clone(), until: self.until.clone() }
    }
}

/// Notes the part of an input that was taken.
fn log(taken: &mut Vec<Recorded>, at: u64, input: &Input, accepted: Accepted) {
    let input = match (accepted, input) {
        (Accepted::All, input) => input.clone(),
        (Accepted::Some(count), Input::Serial { port, bytes }) if count > 0 => {
            Input::Serial { port: *port, bytes: bytes[..count].to_vec() }
        }
        (Accepted::Some(count), Input::Console { port, bytes }) if count > 0 => {
            Input::Console { port: *port, bytes: bytes[..count].to_vec() }
        }
        _ => return,
    };
    taken.push(Recorded { at, input });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Computer, Firmware, Outside, Progress, Setup};
    use env86_bios::BootSource;

    /// At F000:0000: answers each byte with itself and a digit of the time stamp counter, forever.
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

    struct Com1(Vec<u8>);

    impl Outside for Com1 {
        fn serial(&mut self, port: u8, bytes: &[u8]) {
            assert_eq!(port, 0);
            self.0.extend(bytes);
        }
    }

    fn computer(recording: Recording) -> Computer {
        let mut bios = vec![0; 64 << 10];
        bios[..CODE.len()].copy_from_slice(&CODE);
        bios[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]); // jmp F000:0000
        let firmware = Firmware::new("echo", BootSource::Rom { bios, vga_bios: None, kernel: None });
        let setup = Setup { memory: 2 << 20, ..Setup::deterministic(recording) };
        Computer::power_on(setup, firmware).unwrap()
    }

    /// Output, instructions and state at the end of a run; `live` gets the machine before every slice.
    fn run(
        mut computer: Computer,
        mut live: impl FnMut(&mut Computer, u32),
    ) -> (Vec<u8>, u64, u64, Recording) {
        let mut com1 = Com1(Vec::new());
        for slice in 0..100_000 {
            live(&mut computer, slice);
            assert_eq!(computer.run(1, &mut com1).unwrap(), Progress::More);
            if computer.is_over() {
                let recording = computer.recording().unwrap();
                return (com1.0, computer.stats().instructions, computer.digest().unwrap(), recording);
            }
        }
        panic!("the text never came");
    }

    #[test]
    fn the_same_input_is_the_same_run() {
        let play = |input: &[u8]| run(computer(Recording::typed(input, Some(b"!".into()))), |_, _| {});
        let first = play(b"what?!");
        assert_eq!(first.0.iter().step_by(2).copied().collect::<Vec<_>>(), b"what?!");
        assert_eq!(play(b"what?!"), first);
        assert_ne!(play(b"What?!").0, first.0);
    }

    #[test]
    fn what_is_typed_waits_until_there_is_room_and_none_of_it_is_lost() {
        let text: Vec<u8> = (0..40_000).map(|i| b'a' + (i % 26) as u8).chain(*b"!").collect();
        let (output, ..) = run(computer(Recording::typed(text.clone(), Some(b"!".into()))), |_, _| {});
        assert!(output.iter().step_by(2).eq(&text));
    }

    #[test]
    fn a_run_with_live_input_is_recorded_and_repeats() {
        let text = vec![b'x'; 10_000];
        let mut left: VecDeque<u8> = (0..9_000).map(|i| b'0' + (i % 10) as u8).collect();
        let live = |computer: &mut Computer, slice: u32| {
            if slice % 7 != 3 {
                return;
            }
            let bytes = left.iter().copied().take(1_500).collect::<Vec<_>>();
            match computer.input(&Input::Serial { port: 0, bytes: bytes.clone() }) {
                Accepted::All => _ = left.drain(..bytes.len()),
                Accepted::Some(count) => _ = left.drain(..count),
                Accepted::NoDevice | Accepted::Refused => panic!("there is a COM1"),
            }
            if left.is_empty() {
                let _ = computer.input(&Input::Serial { port: 0, bytes: b"!".into() });
            }
            assert_eq!(computer.input(&Input::PointerBy { dx: 1, dy: -1 }), Accepted::All);
        };
        let first = run(computer(Recording::typed(text, Some(b"!".into()))), live);
        // Through text, as a file has it.
        let written = serde_json::to_string(&first.3).unwrap();
        let again = run(computer(serde_json::from_str(&written).unwrap()), |_, _| {});
        assert_eq!(again, first);
    }
}
