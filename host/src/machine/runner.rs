//! The machine's thread: lets the guest execute, sleeps while it is halted, and carries bytes
//! between its serial line and the channels.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, never, select};
use env86_devices::Event as Stop;
use tracing::{debug, info};

use super::{Command, Ending, Event, MachineError, Report};

/// Instructions between looks at the channels: about a millisecond.
const SLICE: u64 = 200_000;
/// The same while serial input waits, so that it gets through fast.
const SHORT_SLICE: u64 = 10_000;
/// Serial output that nobody takes before the guest has to wait, in bytes.
const OUTPUT_LIMIT: usize = 64 << 10;
/// Serial input that is taken from the channel ahead of the guest, in bytes.
const INPUT_AHEAD: usize = 4096;

/// What the thread needs of a machine.
pub trait Guest: Send {
    /// Executes about `budget` instructions, or until something happens.
    fn run(&mut self, budget: u64) -> Stop;
    /// Halted with interrupts disabled: nothing but a reset gets this processor out.
    fn is_dead(&self) -> bool;
    /// Guest time in nanoseconds.
    fn now(&mut self) -> u64;
    /// Sets guest time back to `now`, at the end of a pause.
    fn continue_from(&mut self, now: u64);
    /// Gives COM1 what it has room for, from the front of `bytes`.
    fn serial_input(&mut self, bytes: &mut VecDeque<u8>);
    /// Appends what COM1 has sent.
    fn serial_output(&mut self, bytes: &mut Vec<u8>);
    /// Gives the keyboard controller bytes from the keyboard.
    fn keyboard(&mut self, scancodes: &[u8]);
    /// Presses the power button.
    fn press_power_button(&mut self);
    /// Resets the machine and loads it again.
    fn reset(&mut self) -> Result<(), MachineError>;
    /// Saves the machine to a file; gives its size.
    fn save(&mut self, path: &Path) -> Result<u64, MachineError>;
    /// What was to happen has happened.
    fn is_over(&self) -> bool;
    /// A number that stands for the state, if runs of this guest repeat.
    fn digest(&mut self) -> Option<u64>;
    /// A failure on the host's side that the guest cannot know of.
    fn failure(&mut self) -> Option<MachineError>;
    /// The processor's counts.
    fn stats(&self) -> env86_emu::cpu::Stats;
}

/// The machine's ends of the channels.
pub struct Ends {
    pub commands: Receiver<Command>,
    pub input: Receiver<Vec<u8>>,
    pub events: Sender<Event>,
}

/// Runs a machine to its end.
pub fn run(guest: impl Guest, ends: &Ends, restart: bool) -> Result<Report, MachineError> {
    let mut runner = Runner {
        guest,
        ends,
        input: VecDeque::new(),
        deferred: VecDeque::new(),
        output: Vec::new(),
        paused_at: None,
        stopped: false,
        listened_to: true,
    };
    let start = Instant::now();
    let (mut busy, mut resets, mut was_over) = (Duration::ZERO, 0, false);
    let ending = loop {
        runner.commands();
        if runner.stopped {
            break Ending::Stopped;
        }
        runner.feed();
        let slice_start = Instant::now();
        let budget = if runner.input.is_empty() { SLICE } else { SHORT_SLICE };
        let stop = runner.guest.run(budget);
        busy += slice_start.elapsed();
        runner.collect();
        if let Some(failure) = runner.guest.failure() {
            return Err(failure);
        }
        if runner.guest.is_over() && !was_over {
            was_over = true;
            runner.pause(Event::ScriptOver);
        }
        match stop {
            Stop::Budget | Stop::Output => {}
            Stop::Idle { .. } if runner.guest.is_dead() => break Ending::Halted,
            Stop::Idle { until } => runner.sleep(until),
            Stop::PowerOff => break Ending::PowerOff,
            Stop::DebugExit(value) => break Ending::DebugExit(value),
            Stop::TripleFault if !restart => {
                runner.flush();
                return Err(MachineError::TripleFault);
            }
            Stop::Reset if !restart => break Ending::Reset,
            Stop::Reset | Stop::TripleFault => {
                info!(target: "machine", ?stop, "The machine starts again");
                resets += 1;
                runner.guest.reset()?;
                runner.tell(Event::Reset);
            }
        }
    };
    runner.flush();
    let (cpu, digest) = (runner.guest.stats(), runner.guest.digest());
    Ok(Report { ending, cpu, wall: start.elapsed(), busy, resets, digest })
}

struct Runner<'a, G> {
    guest: G,
    ends: &'a Ends,
    /// Bytes on their way to the guest.
    input: VecDeque<u8>,
    /// Commands that came while something else had to be finished.
    deferred: VecDeque<Command>,
    /// Bytes from the guest that the channel had no room for.
    output: Vec<u8>,
    /// Guest time at the pause that is on.
    paused_at: Option<u64>,
    stopped: bool,
    /// Somebody takes the events.
    listened_to: bool,
}

impl<G: Guest> Runner<'_, G> {
    /// Does what has been commanded; during a pause, waits for what will be.
    fn commands(&mut self) {
        loop {
            while let Some(command) = self.deferred.pop_front() {
                self.command(command);
            }
            while let Ok(command) = self.ends.commands.try_recv() {
                self.command(command);
            }
            if self.stopped || self.paused_at.is_none() {
                return;
            }
            match self.ends.commands.recv() {
                Ok(command) => self.command(command),
                Err(_) => self.stopped = true,
            }
        }
    }

    fn command(&mut self, command: Command) {
        debug!(target: "machine", ?command);
        match command {
            Command::Pause if self.paused_at.is_none() => self.pause(Event::Paused),
            Command::Resume => {
                if let Some(at) = self.paused_at.take() {
                    self.guest.continue_from(at);
                    self.tell(Event::Resumed);
                }
            }
            Command::Pause => {}
            Command::Keyboard(scancodes) => self.guest.keyboard(&scancodes),
            Command::Save(path, done) => {
                // What the guest has said is no part of the state.
                self.flush();
                let _ = done.send(self.guest.save(&path));
            }
            Command::PowerButton => self.guest.press_power_button(),
            Command::Stop => self.stopped = true,
        }
    }

    /// Stops executing, and says so.
    fn pause(&mut self, event: Event) {
        self.flush();
        self.paused_at = Some(self.guest.now());
        self.tell(event);
    }

    /// Takes serial input from the channel and gives the guest what it has room for.
    fn feed(&mut self) {
        while self.input.len() < INPUT_AHEAD {
            match self.ends.input.try_recv() {
                Ok(bytes) => self.input.extend(bytes),
                Err(_) => break,
            }
        }
        if !self.input.is_empty() {
            self.guest.serial_input(&mut self.input);
        }
    }

    /// Passes serial output on. Where the other side is slow, the guest waits in the end.
    fn collect(&mut self) {
        self.guest.serial_output(&mut self.output);
        if self.output.is_empty() {
            return;
        }
        match self.ends.events.try_send(Event::Serial(std::mem::take(&mut self.output))) {
            Ok(()) => {}
            Err(TrySendError::Disconnected(_)) => self.listened_to = false,
            Err(TrySendError::Full(Event::Serial(bytes))) => {
                self.output = bytes;
                if self.output.len() >= OUTPUT_LIMIT {
                    self.flush();
                }
            }
            Err(TrySendError::Full(_)) => {}
        }
    }

    /// Waits until the serial output has been taken.
    fn flush(&mut self) {
        self.guest.serial_output(&mut self.output);
        if !self.output.is_empty() {
            let bytes = std::mem::take(&mut self.output);
            self.tell(Event::Serial(bytes));
        }
    }

    /// Tells the other side, waiting for room; a stop ends the wait.
    fn tell(&mut self, event: Event) {
        let no_commands = never();
        while self.listened_to {
            // The last words of a machine that is to stop wait for nothing but their listener.
            let commands = if self.stopped { &no_commands } else { &self.ends.commands };
            select! {
                send(self.ends.events, event.clone()) -> sent => {
                    self.listened_to = sent.is_ok();
                    return;
                }
                recv(commands) -> command => match command {
                    Ok(Command::Stop) | Err(_) => self.stopped = true,
                    Ok(command) => self.deferred.push_back(command),
                }
            }
        }
    }

    /// Sleeps until a guest time, or until something comes from outside.
    fn sleep(&mut self, until: Option<u64>) {
        let mut now = self.guest.now();
        // A timed wait may end early by the clock's resolution.
        while until.is_none_or(|until| until > now) && !self.stopped && self.paused_at.is_none() {
            if !self.output.is_empty() {
                // There is nothing better to do than to wait for the other side.
                return self.flush();
            }
            let timeout = until.map_or(Duration::MAX, |until| Duration::from_nanos(until - now));
            if self.woken_within(timeout) {
                return;
            }
            now = self.guest.now();
        }
    }

    /// Waits for a command or for serial input; says whether it came before the time was up.
    fn woken_within(&mut self, timeout: Duration) -> bool {
        // Input that the guest has no room for must not wake it again and again.
        let no_input = never();
        let input = if self.input.is_empty() { &self.ends.input } else { &no_input };
        select! {
            recv(self.ends.commands) -> command => match command {
                Ok(command) => self.command(command),
                Err(_) => self.stopped = true,
            },
            recv(input) -> bytes => match bytes {
                Ok(bytes) => self.input.extend(bytes),
                // Cannot be: the handle that holds a sender also holds the commands'.
                Err(_) => self.stopped = true,
            },
            default(timeout) => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::sync::{Arc, Mutex};
    use std::thread::sleep;

    use super::super::{HostClock, Machine};
    use super::*;

    /// A guest that does what a function says.
    struct Script<F> {
        act: F,
        clock: HostClock,
        seen: Arc<Seen>,
        output: Vec<u8>,
    }

    /// What a test can see of its guest.
    #[derive(Default)]
    struct Seen {
        runs: AtomicU64,
        dead: AtomicBool,
        input: Mutex<Vec<u8>>,
        keys: Mutex<Vec<u8>>,
    }

    impl<F: FnMut(&Seen, &mut Vec<u8>, u64) -> Stop + Send> Guest for Script<F> {
        fn run(&mut self, _budget: u64) -> Stop {
            self.seen.runs.fetch_add(1, Relaxed);
            (self.act)(&self.seen, &mut self.output, self.clock.elapsed())
        }
        fn is_dead(&self) -> bool {
            self.seen.dead.load(Relaxed)
        }
        fn now(&mut self) -> u64 {
            self.clock.elapsed()
        }
        fn continue_from(&mut self, now: u64) {
            self.clock.continue_from(now);
        }
        fn serial_input(&mut self, bytes: &mut VecDeque<u8>) {
            // Room for 16 bytes at a time, as in the chip's FIFO.
            let room = bytes.len().min(16);
            self.seen.input.lock().unwrap().extend(bytes.drain(..room));
        }
        fn serial_output(&mut self, bytes: &mut Vec<u8>) {
            bytes.append(&mut self.output);
        }
        fn keyboard(&mut self, scancodes: &[u8]) {
            self.seen.keys.lock().unwrap().extend(scancodes);
        }
        fn press_power_button(&mut self) {}
        fn reset(&mut self) -> Result<(), MachineError> {
            Ok(())
        }
        fn save(&mut self, _path: &Path) -> Result<u64, MachineError> {
            Ok(0)
        }
        fn is_over(&self) -> bool {
            false
        }
        fn digest(&mut self) -> Option<u64> {
            None
        }
        fn failure(&mut self) -> Option<MachineError> {
            None
        }
        fn stats(&self) -> env86_emu::cpu::Stats {
            env86_emu::cpu::Stats::default()
        }
    }

    fn start(
        restart: bool,
        act: impl FnMut(&Seen, &mut Vec<u8>, u64) -> Stop + Send + 'static,
    ) -> (Machine, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let guest = Script { act, clock: HostClock::start(), seen: seen.clone(), output: Vec::new() };
        (Machine::spawn(guest, restart).unwrap(), seen)
    }

    fn output(machine: &Machine) -> Vec<u8> {
        let bytes = machine.events().iter().filter_map(|event| match event {
            Event::Serial(bytes) => Some(bytes),
            _ => None,
        });
        bytes.flatten().collect()
    }

    #[test]
    fn all_output_comes_before_the_end() {
        let mut left = 1000;
        let (machine, _) = start(true, move |_, out, _| {
            out.extend([b'x'; 1000]);
            left -= 1;
            if left == 0 { Stop::PowerOff } else { Stop::Budget }
        });
        assert_eq!(output(&machine).len(), 1_000_000);
        assert_eq!(machine.wait().unwrap().ending, Ending::PowerOff);
    }

    #[test]
    fn a_guest_whose_output_nobody_takes_waits_but_can_be_stopped() {
        let (machine, seen) = start(true, |_, out, _| {
            out.extend([b'x'; 4096]);
            Stop::Budget
        });
        sleep(Duration::from_millis(50));
        let runs = seen.runs.load(Relaxed);
        sleep(Duration::from_millis(50));
        assert_eq!(seen.runs.load(Relaxed), runs);
        machine.stop();
        assert_eq!(machine.wait().unwrap().ending, Ending::Stopped);
    }

    #[test]
    fn a_halted_guest_sleeps_until_its_deadline() {
        let (machine, seen) = start(true, |_, _, now| match now {
            0..100_000_000 => Stop::Idle { until: Some(100_000_000) },
            _ => Stop::PowerOff,
        });
        let report = machine.wait().unwrap();
        assert_eq!(seen.runs.load(Relaxed), 2);
        assert!(report.wall >= Duration::from_millis(90), "{:?}", report.wall);
    }

    #[test]
    fn input_wakes_a_halted_guest_and_all_of_it_arrives() {
        let (machine, seen) = start(true, |seen, _, _| {
            if seen.input.lock().unwrap().len() == 10_000 {
                Stop::PowerOff
            } else {
                Stop::Idle { until: None }
            }
        });
        // The script takes 16 bytes a run and halts; a command lets it run again.
        assert!(machine.serial_input().send(&[b'i'; 10_000]));
        let expected = vec![b'i'; 10_000];
        while *seen.input.lock().unwrap() != expected {
            machine.resume();
            sleep(Duration::from_micros(10));
        }
        machine.resume();
        assert_eq!(machine.wait().unwrap().ending, Ending::PowerOff);
    }

    #[test]
    fn a_paused_machine_does_not_run_and_its_time_stands_still() {
        let (machine, seen) = start(true, |_, _, now| match now {
            0..60_000_000 => Stop::Budget,
            _ => Stop::PowerOff,
        });
        machine.pause();
        assert_eq!(machine.events().recv(), Ok(Event::Paused));
        let runs = seen.runs.load(Relaxed);
        sleep(Duration::from_millis(100));
        assert_eq!(seen.runs.load(Relaxed), runs);
        machine.keyboard([0x1c]);
        machine.resume();
        assert_eq!(machine.events().recv(), Ok(Event::Resumed));
        assert!(machine.wait().unwrap().wall >= Duration::from_millis(140));
        assert_eq!(*seen.keys.lock().unwrap(), [0x1c]);
    }

    #[test]
    fn a_triple_fault_restarts_unless_it_must_not() {
        let faults = || {
            let mut left = 3;
            move |_: &Seen, _: &mut Vec<u8>, _| {
                left -= 1;
                if left == 0 { Stop::DebugExit(5) } else { Stop::TripleFault }
            }
        };
        let (machine, _) = start(true, faults());
        let report = machine.wait().unwrap();
        assert_eq!((report.ending, report.resets), (Ending::DebugExit(5), 2));
        let (machine, _) = start(false, faults());
        assert!(matches!(machine.wait(), Err(MachineError::TripleFault)));
    }

    #[test]
    fn a_guest_that_halts_for_good_ends_the_machine() {
        let (machine, _) = start(true, |seen, out, _| {
            out.extend(b"System halted");
            seen.dead.store(true, Relaxed);
            Stop::Idle { until: Some(u64::MAX) }
        });
        assert_eq!(output(&machine), b"System halted");
        assert_eq!(machine.wait().unwrap().ending, Ending::Halted);
    }

    #[test]
    fn dropping_the_handle_ends_the_machine() {
        let (machine, seen) = start(true, |_, _, _| Stop::Idle { until: None });
        drop(machine);
        assert_eq!(Arc::strong_count(&seen), 1);
    }
}
