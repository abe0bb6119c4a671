//! The machine's thread: a shell around a [`Computer`] that carries input and output between it and the
//! handles, and sleeps while the guest does.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use env86_core::{Accepted, Computer, Ending, Input, Outside, Progress, Screen};
use tracing::debug;

use super::cable::Cable;
use super::files::LostFiles;
use super::ports::{Desk, Event, Line};
use super::state::StateSource;
use super::{MachineError, Report};
use crate::image::Held;
use crate::sound::{Frame, Listener, Sound};

/// Instructions between looks at what has come from outside: about a millisecond.
const BUDGET: u64 = 200_000;
/// The same for a guest whose instructions take long.
const LEAST_BUDGET: u64 = 1_000;
/// How long a guest that has asked something of a folder of the host stands still for the answer: it comes sooner, most
/// of the time, and a guest that runs meanwhile only goes to sleep and is woken. A slow file system stops nothing.
const ANSWER: Duration = Duration::from_micros(200);
/// A run that takes longer is made shorter the next time, so that a command never waits for long.
const LONG_RUN: Duration = Duration::from_millis(4);

/// How long the thread of a sleeping machine looks out for frames itself before it is parked. To be woken takes a host
/// as long as many a peer takes to answer.
#[derive(Debug, Default)]
struct Lookout {
    length: Duration,
}

impl Lookout {
    const SHORTEST: Duration = Duration::from_micros(20);
    const LONGEST: Duration = Duration::from_micros(160);

    /// Learns how long the machine slept, and whether a frame woke it. While frames come soon after one another it pays
    /// to look out for them; a sleep that was longer ends that.
    fn slept(&mut self, time: Duration, frame: bool) {
        self.length = match (time <= Self::LONGEST, frame) {
            (false, _) => Duration::ZERO,
            (true, true) => (self.length * 2).clamp(Self::SHORTEST, Self::LONGEST),
            (true, false) => self.length,
        };
    }
}

/// What a machine is told.
pub(super) enum Command {
    Input(Input),
    Pause,
    Resume,
    /// Something that wants the machine for itself.
    With(Box<dyn FnOnce(&mut Computer) + Send>),
    Stop,
}

/// A machine, and what its thread looks at besides it.
pub(super) struct Built {
    pub computer: Computer,
    /// Files that could not be read.
    pub lost_files: LostFiles,
    /// Whom its media wake.
    pub arrivals: Arc<Arrivals>,
    /// The saved state that its memory is mapped from.
    pub source: Option<StateSource>,
    /// Who hears what it plays.
    pub listeners: Vec<Listener>,
    /// The address that the network knows its card by, if it is not the card's.
    pub address: Option<[u8; 6]>,
    /// The image, which is held as long as the machine needs its files.
    pub image: Option<Held>,
}

/// Wakes the machine's thread when data have come that media were asked for.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Arrived>);

#[derive(Debug, Default)]
struct Arrived {
    any: bool,
    machine: Option<Thread>,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any have come since the last call.
    fn take(&self) -> bool {
        std::mem::take(&mut self.lock().any)
    }
}

impl Wake for Arrivals {
    fn wake(self: Arc<Self>) {
        let mut arrived = self.lock();
        arrived.any = true;
        arrived.machine.iter().for_each(Thread::unpark);
    }
}

/// Runs a machine to its end. A panic ends it, too, and no other machine of the process.
pub(super) fn run(
    built: Built,
    desk: &Desk,
    commands: Receiver<Command>,
    cable: Option<Cable>,
) -> Result<Report, MachineError> {
    let Built { computer, lost_files, arrivals, source, listeners, address: _, image: _image } = built;
    arrivals.lock().machine = Some(thread::current());
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let (lookout, stopped, busy) = (Lookout::default(), false, Duration::ZERO);
        let shell = Shell {
            computer,
            desk,
            commands,
            lost_files,
            arrivals,
            source,
            listeners,
            cable,
            lookout,
            stopped,
            busy,
        };
        shell.run()
    }));
    desk.end();
    result.unwrap_or_else(|panic| Err(MachineError::Panicked(message(&*panic))))
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

struct Shell<'a> {
    computer: Computer,
    desk: &'a Desk,
    commands: Receiver<Command>,
    lost_files: LostFiles,
    cable: Option<Cable>,
    lookout: Lookout,
    arrivals: Arc<Arrivals>,
    source: Option<StateSource>,
    listeners: Vec<Listener>,
    stopped: bool,
    busy: Duration,
}

/// Carries output to the handles, sound to its listeners, and frames to the network.
struct ToDesk<'a> {
    desk: &'a Desk,
    listeners: &'a mut Vec<Listener>,
    cable: Option<&'a Cable>,
}

impl Outside for ToDesk<'_> {
    fn serial(&mut self, port: u8, bytes: &[u8]) {
        self.desk.put_output(Line::Serial(port), bytes);
    }

    fn console(&mut self, port: u8, bytes: &[u8]) {
        self.desk.put_output(Line::Console(port), bytes);
    }

    fn frame(&mut self, frame: &[u8]) {
        self.cable.inspect(|cable| cable.send(frame));
    }

    /// One who does not listen any more is forgotten.
    fn sound(&mut self, start: u64, frames: &[Frame]) {
        self.listeners.retain(|listener| listener.send(Sound { start, frames: frames.to_vec() }).is_ok());
    }

    fn share_asked(&mut self, number: u32, message: Vec<u8>) {
        self.desk.shares.ask(number, message);
    }

    fn debug(&mut self, bytes: &[u8]) {
        self.desk.put_output(Line::Debug, bytes);
    }

    fn printer(&mut self, bytes: &[u8]) {
        self.desk.put_output(Line::Printer, bytes);
    }

    fn reset(&mut self) {
        self.desk.tell(Event::Reset);
    }
}

impl Shell<'_> {
    fn run(mut self) -> Result<Report, MachineError> {
        let start = Instant::now();
        let (mut budget, mut was_over) = (BUDGET, false);
        let ending = loop {
            self.commands();
            if self.stopped {
                break Ending::Stopped;
            }
            self.give_frames();
            self.give_input();
            self.give_data();
            if self.computer.is_paused() || self.desk.is_full() {
                // Whoever ends that unparks this thread afterwards.
                thread::park();
                continue;
            }
            let slice = Instant::now();
            let mut outside =
                ToDesk { desk: self.desk, listeners: &mut self.listeners, cable: self.cable.as_ref() };
            let progress = self.computer.run(budget, &mut outside);
            // Whatever the guest did with memory that is gone says nothing.
            self.source.as_ref().map_or(Ok(()), StateSource::check)?;
            let progress = progress?;
            let took = slice.elapsed();
            self.busy += took;
            budget = match took > LONG_RUN {
                true => (budget / 2).max(LEAST_BUDGET),
                false => (budget * 2).min(BUDGET),
            };
            for lost in self.lost_files.take() {
                self.desk.tell(Event::FileLost(Arc::new(lost)));
            }
            if self.computer.is_over() && !was_over {
                was_over = true;
                self.computer.pause();
                self.desk.tell(Event::Over);
            }
            if self.desk.shares.is_asked() {
                thread::park_timeout(ANSWER);
            }
            match progress {
                Progress::More => {}
                Progress::Sleep { until, slack } => {
                    self.sleep(until.map(|until| until.saturating_add(slack)))
                }
                Progress::Ended(Ending::TripleFault) => return Err(MachineError::TripleFault),
                Progress::Ended(ending) => break ending,
            }
        };
        let mut screen = Screen::default();
        self.computer.show(&mut screen);
        self.desk.keep_picture(screen.frame().clone());
        let repeats = self.computer.recording().is_some();
        let digest = if repeats { self.computer.digest().ok() } else { None };
        debug!(target: "machine", busy = ?self.busy, stats = ?self.computer.stats(), "The machine has ended");
        Ok(Report {
            ending,
            cpu: self.computer.stats(),
            wall: start.elapsed(),
            busy: self.busy,
            resets: self.computer.resets(),
            digest,
        })
    }

    /// Does what has been commanded; says whether there was anything.
    fn commands(&mut self) -> bool {
        let mut any = false;
        while !self.stopped {
            match self.commands.try_recv() {
                Ok(command) => self.command(command),
                Err(TryRecvError::Disconnected) => self.stopped = true,
                Err(TryRecvError::Empty) => return any,
            }
            any = true;
        }
        any
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Input(input) => {
                let accepted = self.computer.input(&input);
                debug!(target: "machine", ?input, ?accepted);
            }
            Command::Pause => {
                if self.computer.pause() {
                    self.desk.tell(Event::Paused);
                }
            }
            Command::Resume => {
                if self.computer.go_on() {
                    self.desk.tell(Event::Resumed);
                }
            }
            Command::With(act) => act(&mut self.computer),
            Command::Stop => self.stopped = true,
        }
    }

    /// Gives the machine the frames that have come. Says whether it took any.
    fn give_frames(&mut self) -> bool {
        self.cable.as_mut().is_some_and(|cable| cable.give(&mut self.computer))
    }

    /// Gives the machine what has been written to its lines. Says whether it took any.
    fn give_input(&mut self) -> bool {
        let computer = &mut self.computer;
        let answers = self.desk.shares.give(|number, reply| {
            let input = Input::Share { number, reply };
            match (computer.input(&input), input) {
                (Accepted::Some(_), Input::Share { reply, .. }) => Err(reply),
                _ => Ok(()),
            }
        });
        answers
            | self.desk.give_input(|line, bytes| {
                let input = match line {
                    Line::Serial(port) => Input::Serial { port, bytes: bytes.to_vec() },
                    Line::Console(port) => Input::Console { port, bytes: bytes.to_vec() },
                    Line::Debug | Line::Printer => return bytes.len(),
                };
                match computer.input(&input) {
                    Accepted::All | Accepted::NoDevice | Accepted::Refused => bytes.len(),
                    Accepted::Some(taken) => taken,
                }
            })
    }

    /// Lets the machine have data that have come. Says whether there were any.
    fn give_data(&mut self) -> bool {
        let any = self.arrivals.take();
        if any {
            self.computer.data_arrived();
        }
        any
    }

    /// Sleeps until a guest time, or until something comes from outside.
    fn sleep(&mut self, until: Option<u64>) {
        let asleep = Instant::now();
        loop {
            let frame = self.give_frames();
            // Input that the guest has no room for must not wake it again and again.
            let woken = frame | self.commands() | self.give_input() | self.give_data();
            let left = until.map(|until| until.saturating_sub(self.computer.time()));
            if woken || left == Some(0) {
                return self.lookout.slept(asleep.elapsed(), frame);
            }
            if asleep.elapsed() < self.lookout.length {
                thread::yield_now();
                continue;
            }
            // Whoever sends something unparks this thread afterwards. A channel's own wait would do,
            // but spins before it parks, which an idle guest pays for at each of its timer's ticks.
            match left {
                Some(left) => thread::park_timeout(Duration::from_nanos(left)),
                None => thread::park(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::task::Poll;

    use env86_bios::BootSource;
    use env86_core::{Firmware, Setup};
    use env86_devices::Entropy;
    use env86_devices::ide::{DiskImage, DiskImageError, Form, Medium, Units};
    use env86_tests::roms;

    use super::*;
    use crate::machine::clock::{HostClock, OsEntropy};
    use crate::machine::{Com, Machine};

    /// Far more than anything here needs, on any machine.
    const LIMIT: Duration = Duration::from_secs(60);

    /// A part of the world that has a defect.
    #[derive(Debug)]
    struct Broken;

    impl Entropy for Broken {
        fn next_u32(&mut self) -> u32 {
            panic!("chance is broken")
        }
    }

    impl DiskImage for Broken {
        fn size(&self) -> u64 {
            1 << 20
        }

        fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
            // The first sector is looked at for the disk's geometry.
            assert!(offset == 0, "the disk is broken");
            buf.fill(0);
            Poll::Ready(Ok(()))
        }
    }

    /// A machine that answers each byte from COM1 with itself and then does this.
    fn machine(act: &[u8], entropy: Box<dyn Entropy>, disk: impl DiskImage + 'static) -> Machine {
        let mut code = vec![
            0xba, 0xfd, 0x03, // 00 mov dx, 3FDh          line status:
            0xec, //             03 in al, dx
            0xa8, 0x01, //       04 test al, 1            data ready?
            0x74, 0xf8, //       06 jz 00h
            0xba, 0xf8, 0x03, // 08 mov dx, 3F8h
            0xec, //             0B in al, dx
            0xee, //             0C out dx, al
        ];
        code.extend(act);
        let back = -(code.len() as i16 + 3);
        code.push(0xe9); // jmp 00h
        code.extend(back.to_le_bytes());
        let firmware =
            Firmware::new("rom", BootSource::Rom { bios: roms::rom(&code), vga_bios: None, kernel: None });
        let drives = Units::new(Some(Medium::new(disk, Form::Whole)), None, None);
        let clock = Box::new(HostClock::start_at(0));
        let setup = Setup { memory: 2 << 20, drives, ..Setup::new(clock, entropy) };
        let computer = Computer::power_on(setup, firmware).unwrap();
        let built = Built {
            computer,
            lost_files: LostFiles::default(),
            arrivals: Arc::default(),
            source: None,
            listeners: Vec::new(),
            address: None,
            image: None,
        };
        Machine::spawn(built, None, None).unwrap()
    }

    #[test]
    fn a_lookout_is_kept_while_frames_come_soon() {
        let mut lookout = Lookout::default();
        let soon = Duration::from_micros(50);
        lookout.slept(soon, false);
        assert_eq!(lookout.length, Duration::ZERO, "nothing but a frame begins one");
        lookout.slept(soon, true);
        assert_eq!(lookout.length, Lookout::SHORTEST);
        (0..9).for_each(|_| lookout.slept(soon, true));
        assert_eq!(lookout.length, Lookout::LONGEST);
        lookout.slept(soon, false);
        assert_eq!(lookout.length, Lookout::LONGEST, "a timer is no news of the network");
        lookout.slept(Lookout::LONGEST * 2, true);
        assert_eq!(lookout.length, Duration::ZERO);
    }

    #[test]
    fn a_device_that_panics_ends_its_own_machine_and_no_other() {
        let rdrand = [0x0f, 0xc7, 0xf0];
        let read_sector = [
            0xba, 0xf6, 0x01, 0xb0, 0xe0, 0xee, // mov dx, 1F6h; mov al, E0h; out dx, al
            0xba, 0xf2, 0x01, 0xb0, 0x01, 0xee, // mov dx, 1F2h; mov al, 1; out dx, al
            0x42, 0xee, // inc dx; out dx, al
            0xba, 0xf7, 0x01, 0xb0, 0x20, 0xee, // mov dx, 1F7h; mov al, 20h; out dx, al
        ];
        let blank = || vec![0; 1 << 20];
        let bad = [
            ("chance is broken", &rdrand[..], machine(&rdrand, Box::new(Broken), blank())),
            ("the disk is broken", &read_sector[..], machine(&read_sector, Box::new(OsEntropy), Broken)),
        ];
        for (says, act, bad) in bad {
            let good = machine(act, Box::new(OsEntropy), blank());
            let mut line = good.serial(Com::One);
            line.write_all(b"a").unwrap();
            line.expect("a", LIMIT).unwrap();
            let mut broken_line = bad.serial(Com::One);
            broken_line.write_all(b"b").unwrap();
            // Up to its end.
            broken_line.read_to_end(&mut Vec::new()).unwrap();
            match bad.wait() {
                Err(MachineError::Panicked(message)) => assert_eq!(message, says),
                other => panic!("{says}: {other:?}"),
            }
            for text in ["c", "d"] {
                line.write_all(text.as_bytes()).unwrap();
                line.expect(text, LIMIT).unwrap();
            }
            good.stop().unwrap();
        }
    }
}
