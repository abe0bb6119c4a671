//! The machine's thread: lets the guest execute, sleeps while it is halted, and carries bytes
//! between its lines and the channels.

use std::collections::VecDeque;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, never, select};
use env86_devices::Stop;
use tracing::{debug, info};

use super::idle::Idleness;
use super::{Command, Ending, Event, LINES, Line, MachineError, Report};

/// Instructions between looks at the channels: about a millisecond.
const SLICE: u64 = 200_000;
/// The same while input waits, so that it gets through fast.
const SHORT_SLICE: u64 = 10_000;
/// Output of a line that nobody takes before the guest has to wait, in bytes.
const OUTPUT_LIMIT: usize = 64 << 10;
/// Input of a line that is taken from the channel ahead of the guest, in bytes.
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
    /// Gives a line what it has room for, from the front of `bytes`.
    fn input(&mut self, line: Line, bytes: &mut VecDeque<u8>);
    /// Appends what the guest has sent on a line.
    fn output(&mut self, line: Line, bytes: &mut Vec<u8>);
    /// Tells the guest the size of the virtio console's screen.
    fn console_size(&mut self, columns: u16, rows: u16);
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
    /// How late a halted guest may be woken without losing an interrupt, in ns.
    fn slack(&self) -> u64;
    /// The processor's counts.
    fn stats(&self) -> env86_emu::cpu::Stats;
}

/// The machine's ends of the channels. Whoever sends a command or input unparks the thread then.
pub struct Ends {
    pub commands: Receiver<Command>,
    /// In the order of [`Line::ALL`].
    pub input: [Receiver<Vec<u8>>; LINES],
    pub events: Sender<Event>,
}

/// Runs a machine to its end.
pub fn run(guest: impl Guest, ends: &Ends, restart: bool) -> Result<Report, MachineError> {
    let mut runner = Runner {
        guest,
        ends,
        input: Default::default(),
        deferred: VecDeque::new(),
        output: Default::default(),
        idleness: Idleness::default(),
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
        let budget = if runner.input.iter().all(VecDeque::is_empty) { SLICE } else { SHORT_SLICE };
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
            // No debugger is attached here, so nothing sets breakpoints.
            Stop::Budget | Stop::Output | Stop::Breakpoint { .. } | Stop::Watchpoint { .. } => {}
            Stop::Idle { .. } if runner.guest.is_dead() => break Ending::Halted,
            Stop::Idle { until } => {
                let late = runner.idleness.halted(&runner.guest.stats(), runner.guest.slack());
                runner.sleep(until.map(|until| until.saturating_add(late)));
            }
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
    input: [VecDeque<u8>; LINES],
    /// Commands that came while something else had to be finished.
    deferred: VecDeque<Command>,
    /// Bytes from the guest that the channel had no room for.
    output: [Vec<u8>; LINES],
    idleness: Idleness,
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
            Command::ConsoleSize(columns, rows) => self.guest.console_size(columns, rows),
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

    /// Takes input from the channels and gives the guest what it has room for.
    fn feed(&mut self) {
        for ((line, queue), input) in Line::ALL.into_iter().zip(&self.ends.input).zip(&mut self.input) {
            while input.len() < INPUT_AHEAD {
                match queue.try_recv() {
                    Ok(bytes) => input.extend(bytes),
                    Err(_) => break,
                }
            }
            if !input.is_empty() {
                self.guest.input(line, input);
            }
        }
    }

    /// Passes output on. Where the other side is slow, the guest waits in the end.
    fn collect(&mut self) {
        let mut too_much = false;
        for (line, output) in Line::ALL.into_iter().zip(&mut self.output) {
            self.guest.output(line, output);
            if output.is_empty() {
                continue;
            }
            match self.ends.events.try_send(line.event(std::mem::take(output))) {
                Ok(()) => {}
                Err(TrySendError::Disconnected(_)) => self.listened_to = false,
                Err(TrySendError::Full(event)) => {
                    *output = event.into_bytes();
                    too_much |= output.len() >= OUTPUT_LIMIT;
                }
            }
        }
        if too_much {
            self.flush();
        }
    }

    /// Waits until the output has been taken.
    fn flush(&mut self) {
        for (number, line) in Line::ALL.into_iter().enumerate() {
            self.guest.output(line, &mut self.output[number]);
            if !self.output[number].is_empty() {
                let bytes = std::mem::take(&mut self.output[number]);
                self.tell(line.event(bytes));
            }
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
        while self.deferred.is_empty() && !self.stopped && self.paused_at.is_none() {
            if self.output.iter().any(|output| !output.is_empty()) {
                // There is nothing better to do than to wait for the other side.
                return self.flush();
            }
            if self.visited() {
                return;
            }
            // Whoever sends something unparks this thread afterwards. A channel's own wait would do,
            // but spins before it parks, which an idle guest pays for at each of its timer's ticks.
            match until.map(|until| until.saturating_sub(self.guest.now())) {
                Some(0) => return,
                Some(left) => thread::park_timeout(Duration::from_nanos(left)),
                None => thread::park(),
            }
        }
    }

    /// Takes a command or input if there is any; says whether there was.
    fn visited(&mut self) -> bool {
        match self.ends.commands.try_recv() {
            Ok(command) => self.command(command),
            Err(TryRecvError::Disconnected) => self.stopped = true,
            Err(TryRecvError::Empty) => {
                // Input that the guest has no room for must not wake it again and again.
                let quiet = self.input.iter_mut().zip(&self.ends.input).filter(|(input, _)| input.is_empty());
                let mut came = false;
                for (input, queue) in quiet {
                    if let Ok(bytes) = queue.try_recv() {
                        input.extend(bytes);
                        came = true;
                    }
                }
                return came;
            }
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
        fn input(&mut self, _line: Line, bytes: &mut VecDeque<u8>) {
            // Room for 16 bytes at a time, as in the chip's FIFO.
            let room = bytes.len().min(16);
            self.seen.input.lock().unwrap().extend(bytes.drain(..room));
        }
        fn output(&mut self, line: Line, bytes: &mut Vec<u8>) {
            if line == Line::Com1 {
                bytes.append(&mut self.output);
            }
        }
        fn console_size(&mut self, _columns: u16, _rows: u16) {}
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
        fn slack(&self) -> u64 {
            u64::MAX
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
