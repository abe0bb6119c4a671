//! The machine: a [`Pc`] with what it was loaded with, what waits for it, and what it waits for.

use std::error::Error;
use std::ops::Range;

use env86_bios::{BoardInfo, BootError, BootSource, FirmwareConfig};
use env86_devices::board::Connected;
use env86_devices::fs::Filesystem;
use env86_devices::fw_cfg::{Contents, File};
use env86_devices::ide::DiscError;
use env86_devices::rtc::CmosConfig;
use env86_devices::state::{self, Plan, Run, Saved, StateError};
use env86_devices::vga::{Screen, TextScreen};
use env86_devices::virtio::console::VirtioConsole;
use env86_devices::{BoardConfig, Pc, Stop};
use env86_emu::Memory;
use env86_emu::cpu::Stats;
#[cfg(feature = "observe")]
use env86_emu::cpu::observe::Observer;
use env86_emu::memory::{MemoryError, PAGE_SIZE};
use thiserror::Error;
use tracing::info;

use crate::idle::Idleness;
use crate::input::{Accepted, Inlet, Input, SERIAL_PORTS};
use crate::media::{Drive, MediumError};
use crate::outside::Outside;
use crate::power_on::Firmware;
use crate::recording::{Playback, Recording};
use crate::setup::{NetDevice, Setup, VIDEO_MEMORY};

/// The processor takes interrupts (SDM volume 1, 3.4.3.3).
const EFLAGS_IF: u32 = 1 << 9;
/// Instructions of a run while input waits, so that it gets through fast.
const SHORT_RUN: u64 = 10_000;
/// Instructions of a run of a machine that must do the same each time: deadlines are looked at between
/// runs, so that their lengths must not depend on the desk.
const REPEATABLE_RUN: u64 = 200_000;

/// Why a machine cannot be built, or cannot go on.
#[derive(Debug, Error)]
pub enum ComputerError {
    /// The guest's memory cannot be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The board cannot be built.
    #[error(transparent)]
    Board(#[from] env86_devices::BoardError),
    /// The video card cannot have that much or that little.
    #[error("Video memory of {0} bytes is not possible; a card has 256 KiB to 256 MiB")]
    VideoMemory(u64),
    /// The kernel or ROM cannot be read again for a reset.
    #[error(transparent)]
    Firmware(Box<dyn Error + Send + Sync>),
    /// The kernel or ROM cannot be started.
    #[error("Cannot start `{name}`")]
    Boot {
        /// The file.
        name: String,
        /// Why not.
        source: BootError,
    },
    /// The saved state cannot be resumed, or the machine cannot be saved.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What [`Computer::run`] wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// To run again.
    More,
    /// Nothing, until a time or until something is given to the machine.
    Sleep {
        /// Guest time in ns; `None` is for ever.
        until: Option<u64>,
        /// How many ns later it may be woken, because the guest would only look at the time.
        slack: u64,
    },
    /// Nothing any more.
    Ended(Ending),
}

/// How a machine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched the power off.
    PowerOff,
    /// The guest halted the processor with interrupts disabled, for good: what a system does that
    /// has shut down on a board without power management.
    Halted,
    /// The guest wrote this value to the debug exit port.
    DebugExit(u32),
    /// The guest reset the machine, which was not to restart.
    Reset,
    /// The guest's processor shut down after a triple fault, and the machine was not to restart.
    TripleFault,
    /// The desk pulled the plug. [`Computer::run`] never gives this.
    Stopped,
}

/// A machine.
pub struct Computer {
    pub(crate) pc: Pc,
    firmware: Firmware,
    restart: bool,
    inlet: Inlet,
    playback: Option<Playback>,
    idleness: Idleness,
    /// What is left of a run in which a machine that repeats stands still until data have come.
    unfinished: Option<u64>,
    /// Guest time at the pause that is on.
    paused_at: Option<u64>,
    ending: Option<Ending>,
    resets: u32,
    /// The pages of memory that may come from the state that the machine was resumed from.
    restored: Vec<Run>,
}

impl Computer {
    /// Builds a machine and does what firmware does before the first instruction.
    pub fn power_on(mut setup: Setup, mut firmware: Firmware) -> Result<Self, ComputerError> {
        setup.wire();
        let vga_rom = match firmware.get()? {
            (BootSource::Rom { vga_bios, .. }, _) => vga_bios.clone().unwrap_or_default(),
            (BootSource::Linux { .. } | BootSource::Multiboot { .. }, _) => Vec::new(),
        };
        if !VIDEO_MEMORY.contains(&setup.video_memory) {
            return Err(ComputerError::VideoMemory(setup.video_memory));
        }
        let mem = Memory::new(setup.memory)?;
        let cmos = CmosConfig { boot_order: boot_order(&setup), ..CmosConfig::default() };
        let config = BoardConfig {
            memory_size: mem.size(),
            vga_memory_size: setup.video_memory as u32,
            acpi: setup.acpi,
            vga_rom,
            debug_exit: setup.debug_exit,
            filesystem: Some((setup.filesystem, setup.blobs)),
            ne2k: (setup.net_device == NetDevice::Ne2k).then_some(setup.mac),
            virtio_net: (setup.net_device == NetDevice::Virtio).then_some(setup.mac),
            virtio_console: setup.virtio_console,
            virtio_balloon: setup.virtio_balloon,
            virtio_shares: setup.virtio_shares,
            lpt: setup.printer,
            cmos,
            ide: setup.drives,
            floppies: setup.floppies,
            virtio_block: setup.virtio_disk,
            ..BoardConfig::default()
        };
        let mut pc = Pc::new(mem, config, setup.clock, setup.entropy)?;
        pc.board.connected = setup.connected;
        pc.board.connect_network(setup.connected.network);
        pc.board.debug.connected = setup.debug_console;
        pc.board.lpt.iter_mut().for_each(|lpt| lpt.connected = setup.printer);
        pc.passengers.image = setup.image;
        let inlet = Inlet::new(setup.media, setup.waker);
        let mut computer = Self::of(pc, firmware, setup.restart, inlet, setup.recording);
        computer.load()?;
        Ok(computer)
    }

    /// Builds the machine that a saved state is of and puts it into that. `mem` holds the state's pages
    /// already ([`Plan::pages`]), `file` is the whole state. The clock of `setup` has to be at the
    /// state's time ([`Plan::time`]), its drives have to be the state's ([`Plan::units`]), and the
    /// firmware is read at the first reset.
    pub fn resume(
        mut setup: Setup,
        plan: Plan,
        mem: Box<Memory>,
        file: &[u8],
        firmware: Firmware,
    ) -> Result<Self, ComputerError> {
        setup.wire();
        let config = BoardConfig {
            debug_exit: setup.debug_exit,
            filesystem: Some((setup.filesystem, setup.blobs)),
            ide: setup.drives,
            floppies: setup.floppies,
            virtio_block: setup.virtio_disk,
            ..BoardConfig::default()
        };
        let restored = plan.pages().runs.clone();
        let mut pc = Pc::new(mem, plan.configure(config), setup.clock, setup.entropy)?;
        pc.board.connected = setup.connected;
        pc.board.debug.connected = setup.debug_console;
        pc.board.lpt.iter_mut().for_each(|lpt| lpt.connected = setup.printer);
        plan.apply(&mut pc, file)?;
        pc.board.connect_network(setup.connected.network);
        if setup.image.is_some() {
            pc.passengers.image = setup.image;
        }
        let inlet = Inlet::new(setup.media, setup.waker);
        Ok(Self { restored, ..Self::of(pc, firmware, setup.restart, inlet, setup.recording) })
    }

    fn of(mut pc: Pc, firmware: Firmware, restart: bool, inlet: Inlet, recording: Option<Recording>) -> Self {
        pc.stands_still = recording.is_some();
        Self {
            pc,
            firmware,
            restart,
            inlet,
            playback: recording.map(Playback::new),
            idleness: Idleness::default(),
            unfinished: None,
            paused_at: None,
            ending: None,
            resets: 0,
            restored: Vec::new(),
        }
    }

    /// What it starts at each reset.
    pub fn firmware(&self) -> &Firmware {
        &self.firmware
    }

    /// Does what firmware does after a reset.
    fn load(&mut self) -> Result<(), ComputerError> {
        let (source, name) = self.firmware.get()?;
        let mem = self.pc.cpu.mem_mut();
        let board = BoardInfo::probe(&mut self.pc.board, mem);
        let boot = env86_bios::load(source, &board, mem)
            .map_err(|source| ComputerError::Boot { name: name.clone(), source })?;
        env86_bios::apply(&boot.steps, &mut self.pc.board, mem);
        self.pc.cpu.set_state(&boot.state);
        let FirmwareConfig { items, files } = boot.config;
        let files = files.into_iter().map(|(name, data)| File { name, data }).collect();
        self.pc.board.fw_cfg.provide(Contents { items, files });
        Ok(())
    }

    /// Executes about `budget` instructions, or until something happens. A machine with a recording
    /// chooses its own number.
    pub fn run(&mut self, budget: u64, outside: &mut dyn Outside) -> Result<Progress, ComputerError> {
        if let Some(ending) = self.ending {
            return Ok(Progress::Ended(ending));
        }
        if self.paused_at.is_some() {
            return Ok(Progress::Sleep { until: None, slack: 0 });
        }
        if self.pc.stands_still && self.pc.board.waits_for_data() {
            return Ok(Progress::Sleep { until: None, slack: 0 });
        }
        let budget = self.unfinished.take().unwrap_or_else(|| self.begin_run(budget));
        let stop = self.pc.run(budget);
        let moved = !matches!(stop, Stop::Waiting { .. }) && self.carry_output(outside);
        Ok(match stop {
            // No debugger is attached here, so nothing sets breakpoints.
            Stop::Budget | Stop::Output | Stop::Breakpoint { .. } | Stop::Watchpoint { .. } => Progress::More,
            Stop::Waiting { left } => {
                self.unfinished = Some(left);
                Progress::Sleep { until: None, slack: 0 }
            }
            // The console has told the guest that it has room again, or more for it.
            Stop::Idle { .. } if moved => Progress::More,
            Stop::Idle { .. } if self.is_dead() => self.end(Ending::Halted),
            Stop::Idle { until } => {
                let slack = self.idleness.halted(&self.pc.cpu.stats(), self.pc.board.slack());
                Progress::Sleep { until, slack }
            }
            Stop::PowerOff => self.end(Ending::PowerOff),
            Stop::DebugExit(value) => self.end(Ending::DebugExit(value)),
            Stop::TripleFault if !self.restart => self.end(Ending::TripleFault),
            Stop::Reset if !self.restart => self.end(Ending::Reset),
            Stop::Reset | Stop::TripleFault => {
                info!(target: "machine", ?stop, "The machine starts again");
                self.reset()?;
                outside.reset();
                Progress::More
            }
        })
    }

    /// Gives the machine what waits for it, and chooses the length of a run.
    fn begin_run(&mut self, budget: u64) -> u64 {
        if let Some(playback) = &mut self.playback {
            playback.play(&mut self.inlet, &mut self.pc);
        }
        self.inlet.feed(&mut self.pc);
        match (self.inlet.pressing() > 0, &self.playback) {
            (true, Some(_)) => SHORT_RUN,
            (true, None) => budget.min(SHORT_RUN),
            (false, Some(_)) => REPEATABLE_RUN,
            (false, None) => budget,
        }
    }

    fn end(&mut self, ending: Ending) -> Progress {
        self.ending = Some(ending);
        Progress::Ended(ending)
    }

    /// Nothing will ever get this processor on.
    fn is_dead(&self) -> bool {
        if let Some(playback) = &self.playback {
            // Its clock goes on over a halt: there is no deadline, and nothing comes from outside.
            return playback.is_played();
        }
        // The board has nothing that raises an NMI.
        let state = self.pc.cpu.state();
        state.halted && state.eflags & EFLAGS_IF == 0
    }

    /// Gives the desk what the guest has sent; says whether bytes of the console have moved, either way.
    fn carry_output(&mut self, outside: &mut dyn Outside) -> bool {
        let Pc { board, cpu, connections, .. } = &mut self.pc;
        let Connected { serial, console, network, shares: _ } = board.connected;
        for port in (0..SERIAL_PORTS).filter(|port| serial[*port]) {
            let bytes = board.serial_output(port);
            if !bytes.is_empty() {
                if let Some(playback) = &mut self.playback {
                    playback.sent(port as u8, &bytes);
                }
                outside.serial(port as u8, &bytes);
            }
        }
        let waiting = board.console.as_ref().map_or(0, VirtioConsole::input_waiting);
        let mut moved = false;
        if board.console.is_some() {
            for port in (0..console.len()).filter(|port| console[*port]) {
                let bytes = board.console_output(cpu.mem_mut(), port);
                if !bytes.is_empty() {
                    moved = true;
                    outside.console(port as u8, &bytes);
                }
            }
        }
        moved |= board.console.as_ref().map_or(0, VirtioConsole::input_waiting) < waiting;
        // Without a cable it is lost, and the card goes on.
        for frame in board.network_output(cpu.mem_mut()) {
            if network {
                connections.sent(&frame);
                outside.frame(&frame);
            }
        }
        for asked in board.shares_asked() {
            outside.share_asked(asked.number, asked.message);
        }
        if let Some(sound) = board.sound_output(cpu.mem_mut()) {
            outside.sound(sound.start, &sound.frames);
        }
        if board.debug.connected && board.debug.waiting() > 0 {
            outside.debug(&board.debug.take_output());
        }
        if let Some(lpt) = board.lpt.as_mut().filter(|lpt| lpt.waiting() > 0) {
            outside.printer(&lpt.take_output());
        }
        moved
    }

    /// Gives the machine something from outside. What has not been taken is to be given again: a machine that
    /// repeats takes nothing while it waits for data of its media.
    pub fn input(&mut self, input: &Input) -> Accepted {
        if self.unfinished.is_some() {
            return Accepted::Some(0);
        }
        let accepted = self.inlet.take(input, &mut self.pc);
        if let Some(playback) = &mut self.playback {
            playback.note(self.pc.cpu.stats().instructions, input, accepted);
        }
        accepted
    }

    /// Puts another medium into a drive, or none: what an [`Input::Medium`] does, for a desk that wants to
    /// know what became of it.
    pub fn change_medium(&mut self, drive: Drive, name: Option<&str>) -> Result<(), MediumError> {
        if self.unfinished.is_some() {
            return Err(MediumError::Busy);
        }
        let changed = self.inlet.change_medium(drive, name, &mut self.pc);
        let seen = matches!(changed, Ok(()) | Err(MediumError::Disc(DiscError::Locked)));
        if let Some(playback) = self.playback.as_mut().filter(|_| seen) {
            let input = Input::Medium { drive, name: name.map(str::to_owned) };
            playback.note(self.pc.cpu.stats().instructions, &input, Accepted::All);
        }
        changed
    }

    /// Data of media or files that the guest waits for have come ([`Setup::waker`]): they are asked again.
    pub fn data_arrived(&mut self) {
        let Pc { board, cpu, .. } = &mut self.pc;
        board.media_arrived(cpu.mem_mut());
        board.files_arrived(cpu.mem_mut());
    }

    /// Presses the reset button, and does what firmware does afterwards.
    pub fn reset(&mut self) -> Result<(), ComputerError> {
        self.resets += 1;
        self.pc.reset();
        self.load()
    }

    /// Restarts since the beginning.
    pub fn resets(&self) -> u32 {
        self.resets
    }

    /// Stops executing: guest time stands still until [`Computer::go_on`]. Says whether it ran before.
    pub fn pause(&mut self) -> bool {
        let runs = self.paused_at.is_none();
        if runs {
            self.paused_at = Some(self.pc.board.time());
        }
        runs
    }

    /// Ends a pause. Says whether there was one.
    pub fn go_on(&mut self) -> bool {
        let paused = self.paused_at.take();
        if let Some(at) = paused {
            self.pc.board.clock().continue_from(at);
        }
        paused.is_some()
    }

    /// A pause is on.
    pub fn is_paused(&self) -> bool {
        self.paused_at.is_some()
    }

    /// Guest time in nanoseconds.
    pub fn time(&mut self) -> u64 {
        self.pc.board.time()
    }

    /// The recording's text has come ([`Recording::until`]).
    pub fn is_over(&self) -> bool {
        self.playback.as_ref().is_some_and(Playback::is_over)
    }

    /// What has come from outside until now, if this machine repeats.
    pub fn recording(&self) -> Option<Recording> {
        self.playback.as_ref().map(Playback::recording)
    }

    /// The processor's counts.
    pub fn stats(&self) -> Stats {
        self.pc.cpu.stats()
    }

    /// Has every handler that runs told to an observer; gives back the one before.
    #[cfg(feature = "observe")]
    pub fn observe(&mut self, observer: Option<Box<dyn Observer>>) -> Option<Box<dyn Observer>> {
        self.pc.cpu.observe(observer)
    }

    /// What the screen shows in text mode; `None` while it shows graphics.
    pub fn text_screen(&self) -> Option<TextScreen> {
        self.pc.board.vga.text(self.pc.cpu.mem())
    }

    /// Brings a picture of the screen up to date; gives the lines that differ from before, or `None` if
    /// none does, which costs next to nothing. A desk keeps a [`Screen`] of its own; any number may look.
    pub fn show(&mut self, screen: &mut Screen) -> Option<Range<usize>> {
        let now = self.pc.board.time();
        screen.update(&self.pc.board.vga, self.pc.cpu.mem_mut(), now)
    }

    /// The screen shows one of the VGA's own modes, text or graphics, and not a VBE mode.
    pub fn shows_own_mode(&self) -> bool {
        !self.pc.board.vga.vbe.active
    }

    /// The guest wants to know where the pointer is ([`Input::PointerAt`]), not how far it has moved.
    pub fn wants_positions(&self) -> bool {
        let pointer = &self.pc.board.backdoor;
        pointer.enabled && pointer.absolute
    }

    /// The lights of the keyboard that the guest has lit, a bit each: Scroll Lock, Num Lock, Caps Lock.
    pub fn keyboard_lights(&self) -> u8 {
        self.pc.board.ps2.keyboard.leds
    }

    /// The serial port is on the board; 0 is COM1.
    pub fn has_serial(&self, port: u8) -> bool {
        self.pc.board.uarts.get(usize::from(port)).is_some_and(Option::is_some)
    }

    /// The guest listens to a serial port: what is sent now is not lost. 0 is COM1.
    pub fn serial_listens(&self, port: u8) -> bool {
        let uart = self.pc.board.uarts.get(usize::from(port)).and_then(Option::as_ref);
        uart.is_some_and(|uart| uart.listens())
    }

    /// A virtio console is on the board.
    pub fn has_console(&self) -> bool {
        self.pc.board.console.is_some()
    }

    /// The device for folders of the host is on the board.
    pub fn has_shares(&self) -> bool {
        self.pc.board.shares.is_some()
    }

    /// A program of the guest's has the port of the virtio console open.
    pub fn console_listens(&self, port: u8) -> bool {
        let console = self.pc.board.console.as_ref();
        console.and_then(|console| console.ports.get(usize::from(port))).is_some_and(|port| port.open)
    }

    /// The network card that is on the board.
    pub fn net_device(&self) -> NetDevice {
        match (&self.pc.board.ne2k, &self.pc.board.virtio_net) {
            (Some(_), _) => NetDevice::Ne2k,
            (None, Some(_)) => NetDevice::Virtio,
            (None, None) => NetDevice::None,
        }
    }

    /// The network card's address, as the guest has it.
    pub fn mac(&self) -> Option<[u8; 6]> {
        let board = &self.pc.board;
        board.ne2k.as_ref().map(|card| card.mac).or(board.virtio_net.as_ref().map(|card| card.mac))
    }

    /// Puts a cable into the network card, or pulls it: what the guest sends goes to
    /// [`Outside::frame`], or nowhere.
    pub fn connect_network(&mut self, connected: bool) {
        self.pc.board.connect_network(connected);
    }

    /// Takes a serial port's output from now on; 0 is COM1.
    pub fn connect_serial(&mut self, port: u8) {
        if let Some(connected) = self.pc.board.connected.serial.get_mut(usize::from(port)) {
            *connected = true;
        }
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        self.pc.cpu.mem()
    }

    /// The files that the guest sees over 9p, as it has them now.
    pub fn files(&self) -> Option<&Filesystem> {
        self.pc.board.p9.as_ref().map(|p9| &p9.server.fs)
    }

    /// The machine's state, to be written while the machine stands still. `used` says of each page of
    /// memory whether it was ever touched, where a host knows that: it saves the time to look at the rest.
    ///
    /// What waits in the machine's input queues is not in the state, as what is still in a cable is not.
    pub fn save(&mut self, used: Option<&[bool]>) -> Result<Saved<'_>, StateError> {
        let restored = &self.restored;
        let in_file = |page: usize| {
            let at = page * PAGE_SIZE as usize;
            let next = restored.partition_point(|run| run.address + run.len <= at);
            restored.get(next).is_some_and(|run| run.address <= at)
        };
        let touched =
            |page: usize| used.is_none_or(|used| used.get(page).is_none_or(|used| *used)) || in_file(page);
        state::save(&mut self.pc, &touched)
    }

    /// A number that two machines share only if all of their states are alike.
    pub fn digest(&mut self) -> Result<u64, StateError> {
        state::digest(&mut self.pc)
    }
}

/// The order of boot devices, as v86 chooses it where nothing is said.
fn boot_order(setup: &Setup) -> u16 {
    let disk = setup.drives.have_hard_disk() || setup.virtio_disk.is_some();
    setup.boot_order.unwrap_or(match (&setup.floppies[0], disk) {
        (Some(_), _) => 0x321,
        (None, true) => 0x312,
        (None, false) => 0x123,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use env86_bios::Framebuffer;
    use env86_devices::board::{Board, ManualClock, Seeded};
    use env86_devices::pci;
    use env86_devices::state::Container;
    use env86_tests::roms;

    /// A clock that a test moves; it keeps what it was told at the end of pauses.
    fn setup(clock: &ManualClock) -> Setup {
        Setup { memory: 2 << 20, ..Setup::new(Box::new(clock.clone()), Box::new(Seeded(1))) }
    }

    /// A ROM with this code at F000:0000, where it starts.
    fn rom(code: &[u8]) -> Firmware {
        bios(roms::rom(code))
    }

    fn bios(bios: Vec<u8>) -> Firmware {
        Firmware::new("rom", BootSource::Rom { bios, vga_bios: None, kernel: None })
    }

    #[derive(Default)]
    struct Taken {
        serial: Vec<(u8, u8)>,
        debug: Vec<u8>,
        resets: u32,
    }

    impl Outside for Taken {
        fn serial(&mut self, port: u8, bytes: &[u8]) {
            self.serial.extend(bytes.iter().map(|byte| (port, *byte)));
        }

        fn debug(&mut self, bytes: &[u8]) {
            self.debug.extend(bytes);
        }

        fn reset(&mut self) {
            self.resets += 1;
        }
    }

    #[test]
    fn output_goes_to_the_desk_that_takes_it() {
        // mov dx, 3F8h; mov al, 'a'; out dx, al; mov dx, 2F8h; out dx, al; out E9h, al; hlt
        let code = [0xba, 0xf8, 3, 0xb0, b'a', 0xee, 0xba, 0xf8, 2, 0xee, 0xe6, 0xe9, 0xf4];
        for all in [false, true] {
            let clock = ManualClock::default();
            let setup = Setup { debug_console: all, ..setup(&clock) };
            let mut computer = Computer::power_on(setup, rom(&code)).unwrap();
            if all {
                computer.connect_serial(1);
            }
            let mut taken = Taken::default();
            assert_eq!(computer.run(1000, &mut taken).unwrap(), Progress::Ended(Ending::Halted));
            assert_eq!(computer.run(1000, &mut taken).unwrap(), Progress::Ended(Ending::Halted));
            let serial: &[_] = if all { &[(0, b'a'), (1, b'a')] } else { &[(0, b'a')] };
            assert_eq!((&taken.serial[..], taken.debug.len()), (serial, usize::from(all)));
        }
    }

    #[test]
    fn a_reset_starts_again_unless_the_machine_must_not() {
        // out E9h, al; mov dx, CF9h; mov al, 6; out dx, al; jmp self
        let resets = [0xe6, 0xe9, 0xba, 0xf9, 0x0c, 0xb0, 6, 0xee, 0xeb, 0xfe];
        // lidt [cs:20h], where a limit of 0 lies; int3
        let faults = [0xe6, 0xe9, 0x2e, 0x0f, 0x01, 0x1e, 0x20, 0x00, 0xcc];
        for (code, ending) in [(&resets[..], Ending::Reset), (&faults[..], Ending::TripleFault)] {
            let clock = ManualClock::default();
            let setup = |restart| Setup { restart, debug_console: true, ..setup(&clock) };
            let mut taken = Taken::default();
            let mut computer = Computer::power_on(setup(true), rom(code)).unwrap();
            for _ in 0..3 {
                assert_eq!(computer.run(1000, &mut taken).unwrap(), Progress::More);
            }
            assert_eq!((taken.resets, computer.resets(), taken.debug.len()), (3, 3, 3));
            let mut computer = Computer::power_on(setup(false), rom(code)).unwrap();
            assert_eq!(computer.run(1000, &mut taken).unwrap(), Progress::Ended(ending));
        }
    }

    #[test]
    fn a_guest_that_only_faults_gives_the_processor_back() {
        const BUDGET: u64 = 50_000;
        /// The processor runs over by a block, and a delivery may need a second one.
        const OVERRUN: u64 = 128;
        for (name, rom) in roms::fault_loops() {
            let clock = ManualClock::default();
            let mut computer = Computer::power_on(setup(&clock), bios(rom)).unwrap();
            for _ in 0..20 {
                let before = computer.stats();
                assert_eq!(computer.run(BUDGET, &mut ()).unwrap(), Progress::More, "{name}");
                let after = computer.stats();
                let spent = after.instructions - before.instructions;
                // A restart ends a run, too.
                let least = if name == "triple faults" { 1 } else { BUDGET };
                assert!((least..BUDGET + OVERRUN).contains(&spent), "{name}: {spent} of {BUDGET}");
                assert!(after.interrupts > before.interrupts, "{name}");
            }
            assert_eq!(computer.resets(), if name == "triple faults" { 20 } else { 0 }, "{name}");
        }
    }

    #[test]
    fn a_machine_that_is_paused_does_nothing() {
        let clock = ManualClock::default();
        let mut computer = Computer::power_on(setup(&clock), rom(&[0xeb, 0xfe])).unwrap();
        assert!(computer.pause() && !computer.pause());
        assert_eq!(computer.run(1000, &mut ()).unwrap(), Progress::Sleep { until: None, slack: 0 });
        assert_eq!(computer.stats().instructions, 0);
        assert!(computer.go_on() && !computer.go_on());
        assert_eq!(computer.run(1000, &mut ()).unwrap(), Progress::More);
    }

    #[test]
    fn a_halted_machine_says_until_when() {
        // The PIT ticks 18 times a second; STI before HLT.
        let clock = ManualClock::default();
        let mut computer = Computer::power_on(setup(&clock), rom(&[0xfb, 0xf4, 0xeb, 0xfd])).unwrap();
        let Progress::Sleep { .. } = computer.run(1000, &mut ()).unwrap() else {
            panic!("it does not sleep")
        };
    }

    #[test]
    fn what_is_not_on_the_board_takes_nothing() {
        let clock = ManualClock::default();
        let setup = Setup { net_device: NetDevice::None, ..setup(&clock) };
        let mut computer = Computer::power_on(setup, rom(&[0xeb, 0xfe])).unwrap();
        let absent = [
            Input::Serial { port: 3, bytes: b"x".to_vec() },
            Input::Serial { port: 200, bytes: b"x".to_vec() },
            Input::Console { port: 0, bytes: b"x".to_vec() },
            Input::ConsoleSize { columns: 80, rows: 25 },
            Input::Frame(vec![0xff; 60]),
            Input::Link { up: true },
            Input::Share { number: 0, reply: vec![7; 7] },
            Input::PowerButton,
        ];
        for input in absent {
            assert_eq!(computer.input(&input), Accepted::NoDevice, "{input:?}");
        }
        let present = [
            Input::ScanCodes(vec![0x1e, 0x9e]),
            Input::ReleaseKeys,
            Input::PointerBy { dx: i32::MIN, dy: i32::MIN },
            Input::PointerAt { x: 1, y: 2 },
            Input::Wheel(1),
            Input::Button { button: crate::Button::Left, down: true },
        ];
        for input in present {
            assert_eq!(computer.input(&input), Accepted::All, "{input:?}");
        }
        // The first line takes a limited amount while the guest does not listen.
        let much = Input::Serial { port: 0, bytes: vec![0; 1 << 20] };
        assert!(matches!(computer.input(&much), Accepted::Some(1..)));
        assert_eq!(computer.input(&much), Accepted::Some(0));
    }

    #[test]
    fn a_button_goes_down_where_the_pointer_is() {
        let clock = ManualClock::default();
        let mut computer = Computer::power_on(setup(&clock), rom(&[0xeb, 0xfe])).unwrap();
        let mut packets = |inputs: &[Input]| {
            let backdoor = &mut computer.pc.board.backdoor;
            (backdoor.enabled, backdoor.absolute) = (true, true);
            inputs.iter().for_each(|input| _ = computer.input(input));
            computer.pc.board.backdoor.words.drain(..).collect::<Vec<_>>()
        };
        let button = |down| Input::Button { button: crate::Button::Left, down };
        // Flags (20h is the left button, 10000h a movement), place, wheel.
        let at = packets(&[Input::PointerAt { x: 5, y: 6 }, button(true), Input::Wheel(1)]);
        assert_eq!(at, [0, 5, 6, 0, 0x20, 5, 6, 0, 0x20, 5, 6, 1]);
        let by = packets(&[Input::PointerBy { dx: 1, dy: 2 }, button(false)]);
        assert_eq!(by, [0x1_0020, 1, -2i32 as u32, 0, 0x1_0000, 0, 0, 0]);
    }

    /// A driver looks for a place when the mouse interrupts, which itself has nothing to tell.
    #[test]
    fn a_place_and_a_wheel_interrupt_the_guest() {
        let clock = ManualClock::default();
        let mut computer = Computer::power_on(setup(&clock), rom(&[0xeb, 0xfe])).unwrap();
        for (enabled, wanted) in [(false, None), (true, Some([0x08, 0, 0]))] {
            let board = &mut computer.pc.board;
            (board.backdoor.enabled, board.backdoor.absolute) = (enabled, enabled);
            board.ps2.mouse = env86_devices::ps2::Mouse::default();
            board.ps2.mouse.write(0xf4);
            while board.ps2.mouse.read().is_some() {}
            for input in [Input::PointerAt { x: 5, y: 6 }, Input::Wheel(1)] {
                assert_eq!(computer.input(&input), Accepted::All);
                let ps2 = &mut computer.pc.board.ps2;
                let told: Vec<_> = ps2.output.take().map(|(byte, _)| byte).into_iter().collect();
                let told: Vec<_> = told.into_iter().chain(std::iter::from_fn(|| ps2.mouse.read())).collect();
                assert_eq!(told, wanted.map_or(vec![], Vec::from), "{input:?}");
                ps2.mouse.next_sample = 0;
            }
        }
    }

    #[test]
    fn a_pulled_cable_loses_frames() {
        /// Sets the card up with a transmit page, sends 60 bytes of it, and halts.
        const SEND: &[u8] = &[
            0xba, 0x00, 0x03, 0xb0, 0x22, 0xee, // mov dx, 300h; mov al, 22h; out dx, al   start
            0xb2, 0x04, 0xb0, 0x40, 0xee, //       mov dl, 4; mov al, 40h; out dx, al      page
            0xb2, 0x05, 0xb0, 0x3c, 0xee, //       mov dl, 5; mov al, 60; out dx, al       bytes
            0xb2, 0x00, 0xb0, 0x26, 0xee, //       mov dl, 0; mov al, 26h; out dx, al      send
            0xeb, 0xf9, //                         jmp to the last
        ];
        #[derive(Default)]
        struct Wire(usize);
        impl Outside for Wire {
            fn frame(&mut self, frame: &[u8]) {
                assert_eq!(frame.len(), 60);
                self.0 += 1;
            }
        }
        let clock = ManualClock::default();
        let mut computer = Computer::power_on(setup(&clock), rom(SEND)).unwrap();
        let sent = |computer: &mut Computer| {
            let mut wire = Wire::default();
            computer.run(1000, &mut wire).unwrap();
            wire.0
        };
        assert_eq!(sent(&mut computer), 0, "there is no cable yet");
        assert_eq!(computer.input(&Input::Link { up: true }), Accepted::All);
        assert!(sent(&mut computer) > 0);
        assert_eq!(computer.input(&Input::Link { up: false }), Accepted::All);
        assert_eq!(computer.input(&Input::Frame(vec![0xff; 60])), Accepted::All, "it is lost");
        assert_eq!(sent(&mut computer), 0);
    }

    #[test]
    fn a_saved_machine_goes_on_elsewhere() {
        // inc byte [0]; out E9h, al; jmp back
        let code = [0xfe, 0x06, 0, 0, 0xeb, 0xfa];
        let clock = ManualClock::default();
        let mut first = Computer::power_on(setup(&clock), rom(&code)).unwrap();
        first.run(1000, &mut ()).unwrap();
        let bytes = first.save(None).unwrap().to_vec();
        let plan = Plan::read(&Container::parse(&bytes).unwrap()).unwrap();
        let mem = plan.pages().copy(&bytes).unwrap();
        let drives = plan.units::<std::convert::Infallible>(|_, _| unreachable!("no disk")).unwrap();
        let setup = Setup { drives, ..setup(&clock) };
        let later = Firmware::later(|| Err("there is none".into()));
        let mut second = Computer::resume(setup, plan, mem, &bytes, later).unwrap();
        assert_eq!(second.digest().unwrap(), first.digest().unwrap());
        assert!(matches!(second.reset(), Err(ComputerError::Firmware(_))));
    }

    #[test]
    fn video_memory_has_bounds() {
        let clock = ManualClock::default();
        let setup = Setup { video_memory: 1 << 40, ..setup(&clock) };
        let error = Computer::power_on(setup, rom(&[0xf4])).err().unwrap();
        assert!(matches!(error, ComputerError::VideoMemory(_)));
    }

    #[test]
    fn firmware_finds_what_is_on_the_board() {
        for acpi in [false, true] {
            let board = BoardConfig { acpi, virtio_console: true, ..BoardConfig::default() };
            let mut mem = Memory::new(1 << 20).unwrap();
            let (clock, entropy) = (Box::new(ManualClock::default()), Box::new(Seeded(1)));
            let mut board = Board::new(board, &mut mem, clock, entropy).unwrap();
            let found = BoardInfo::probe(&mut board, &mut mem);
            assert_eq!((found.acpi, found.serial_ports), (acpi, 2));
            assert_eq!(found.framebuffer, Some(Framebuffer { address: 0xe000_0000, size: 8 << 20 }));
            let ports = |space: &pci::ConfigSpace| {
                (0..pci::BARS).map(|bar| space.io_ports(bar)).filter(|&ports| ports > 0).collect::<Vec<_>>()
            };
            let fitted: Vec<_> =
                board.pci.functions().map(|(devfn, f)| (devfn, f.interrupt_pin(), ports(f))).collect();
            let found: Vec<_> = found
                .functions
                .iter()
                .map(|f| (f.devfn, f.interrupt_pin, f.io_bars.iter().map(|bar| bar.ports).collect()))
                .collect();
            assert_eq!(found, fitted);
        }
    }
}
