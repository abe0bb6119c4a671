//! The PC as the machine's thread sees it: built, loaded by its firmware, and loaded again at
//! every reset.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use env86_bios::{BoardInfo, BootSource};
use env86_devices::fs::Filesystem;
use env86_devices::ide::Units;
use env86_devices::rtc::CmosConfig;
use env86_devices::state::Run;
use env86_devices::{self as devices, Clock, Entropy, Script, Stop};
use env86_emu::Memory;
use env86_emu::memory::PAGE_SIZE;
use tracing::warn;

use super::boot::{self, Config, FailureWatch, Parts};
use super::clock::HostClock;
use super::disk;
use super::mapped;
use super::runner::Guest;
use super::state::{self, StateFile, StateFileError};
use super::{Line, MachineError};

/// The first serial port.
const COM1: usize = 0;
/// The processor takes interrupts (SDM volume 1, 3.4.3.3).
const EFLAGS_IF: u32 = 1 << 9;
/// Key strokes that wait for the keyboard controller; more are dropped.
const KEY_QUEUE: usize = 256;

/// A PC with what it was loaded with.
pub struct PcGuest {
    machine: devices::Pc,
    /// What the firmware loads, and its name for messages. A machine that was resumed has read it
    /// when it is first reset.
    source: Option<(BootSource, String)>,
    config: Config,
    /// The pages of memory that may come from a state's file.
    restored: Vec<Run>,
    failure: FailureWatch,
    /// The clock, if it is the host's.
    clock: Option<HostClock>,
    keys: VecDeque<Vec<u8>>,
    /// What happens from outside, if nothing else is to happen.
    script: Option<Script>,
}

impl PcGuest {
    /// Builds the PC and loads it, or puts it into a saved state.
    pub fn new(config: &Config) -> Result<Self, MachineError> {
        match &config.state {
            Some(paths) => Self::resume(config, paths),
            None => Self::power_on(config),
        }
    }

    /// Builds the PC that a saved state is of, and puts it into that.
    fn resume(config: &Config, paths: &[PathBuf]) -> Result<Self, MachineError> {
        let file = StateFile::open(paths)?;
        for note in &file.plan.notes {
            warn!(target: "state", "{note}");
        }
        let ide = disk::saved_units(config, &file)?;
        let mem = file.memory()?;
        let blobs = boot::blobs(config);
        let failure = blobs.watch();
        let (clock, host_clock) = clock(config, file.plan.time, file.plan.unix_millis());
        let board_config = devices::BoardConfig {
            debug_exit: config.debug_exit,
            filesystem: Some((Filesystem::default(), Box::new(blobs))),
            ide,
            ..devices::BoardConfig::default()
        };
        let board_config = file.plan.configure(board_config);
        let mut machine = devices::Pc::new(mem, board_config, clock, entropy(config));
        let plan = file.plan.clone();
        plan.apply(&mut machine, file.bytes()).map_err(|source| StateFileError::Content {
            path: paths.first().cloned().unwrap_or_default(),
            source,
        })?;
        let restored = file.plan.pages().runs.clone();
        Ok(Self::of(machine, None, config, restored, failure, host_clock))
    }

    /// Builds the PC and loads it.
    fn power_on(config: &Config) -> Result<Self, MachineError> {
        let parts = Parts::read(config)?;
        let mem = Memory::new(parts.memory)?;
        let failure = parts.blobs.watch();
        let vga_rom = match &parts.source {
            BootSource::Rom { vga_bios, .. } => vga_bios.clone().unwrap_or_default(),
            BootSource::Linux { .. } | BootSource::Multiboot { .. } => Vec::new(),
        };
        let ide = disk::units(config)?;
        let cmos = CmosConfig { boot_order: boot_order(&ide), ..CmosConfig::default() };
        let board_config = devices::BoardConfig {
            memory_size: mem.size(),
            vga_memory_size: parts.video_memory,
            acpi: parts.acpi,
            vga_rom,
            debug_exit: parts.debug_exit,
            filesystem: Some((parts.filesystem, Box::new(parts.blobs))),
            virtio_console: parts.virtio_console,
            cmos,
            ide,
            ..devices::BoardConfig::default()
        };
        let (clock, host_clock) = clock(config, 0, Script::POWER_ON_MILLIS);
        let machine = devices::Pc::new(mem, board_config, clock, entropy(config));
        let source = Some((parts.source, parts.name));
        let mut guest = Self::of(machine, source, config, Vec::new(), failure, host_clock);
        guest.load()?;
        Ok(guest)
    }

    fn of(
        machine: devices::Pc,
        source: Option<(BootSource, String)>,
        config: &Config,
        restored: Vec<Run>,
        failure: FailureWatch,
        clock: Option<HostClock>,
    ) -> Self {
        let (keys, script) = (VecDeque::new(), config.script.clone());
        Self { machine, source, config: config.clone(), restored, failure, clock, keys, script }
    }

    /// Does what firmware does after a reset.
    fn load(&mut self) -> Result<(), MachineError> {
        let (source, name) = match &mut self.source {
            Some(known) => known,
            unknown => {
                let parts = Parts::read(&self.config)?;
                unknown.insert((parts.source, parts.name))
            }
        };
        let mem = self.machine.cpu.mem_mut();
        let board = BoardInfo::probe(&mut self.machine.board, mem);
        let boot = env86_bios::load(source, &board, mem)
            .map_err(|source| MachineError::Boot { name: name.clone(), source })?;
        env86_bios::apply(&boot.steps, &mut self.machine.board, mem);
        self.machine.cpu.set_state(&boot.state);
        Ok(())
    }

    /// Gives the keyboard controller the key strokes that it has room for.
    fn type_keys(&mut self) {
        while let Some(stroke) = self.keys.front() {
            if !self.machine.board.keyboard_input(stroke) {
                return;
            }
            self.keys.pop_front();
        }
    }
}

impl Guest for PcGuest {
    fn run(&mut self, budget: u64) -> Stop {
        if let Some(script) = &mut self.script {
            return script.run(&mut self.machine);
        }
        self.type_keys();
        self.machine.run(budget)
    }

    fn is_dead(&self) -> bool {
        if self.script.is_some() {
            return true; // or its clock would have gone on
        }
        // The board has nothing that raises an NMI.
        let state = self.machine.cpu.state();
        state.halted && state.eflags & EFLAGS_IF == 0
    }

    fn now(&mut self) -> u64 {
        self.machine.board.time()
    }

    fn continue_from(&mut self, now: u64) {
        if let Some(clock) = &self.clock {
            clock.continue_from(now);
        }
    }

    fn input(&mut self, line: Line, bytes: &mut VecDeque<u8>) {
        let machine = &mut self.machine;
        let taken = match line {
            // As a terminal with hardware flow control, wait until the guest says that it listens: what
            // comes before that is lost when its driver clears the FIFO.
            Line::Com1 if !machine.board.uarts[COM1].as_ref().is_some_and(|uart| uart.listens()) => 0,
            Line::Com1 => machine.board.serial_input(COM1, bytes.make_contiguous()),
            Line::Console(port) => {
                machine.board.console_input(machine.cpu.mem_mut(), port.into(), bytes.make_contiguous())
            }
        };
        bytes.drain(..taken);
    }

    fn output(&mut self, line: Line, bytes: &mut Vec<u8>) {
        let machine = &mut self.machine;
        match line {
            Line::Com1 => bytes.append(&mut match &mut self.script {
                Some(script) => script.output(),
                None => machine.board.serial_output(COM1),
            }),
            Line::Console(_) if machine.board.console.is_none() => {}
            Line::Console(port) => {
                bytes.append(&mut machine.board.console_output(machine.cpu.mem_mut(), port.into()));
            }
        }
    }

    fn console_size(&mut self, columns: u16, rows: u16) {
        self.machine.board.set_console_size(self.machine.cpu.mem_mut(), columns, rows);
    }

    fn keyboard(&mut self, scancodes: &[u8]) {
        if self.keys.len() < KEY_QUEUE {
            self.keys.push_back(scancodes.into());
        }
    }

    fn press_power_button(&mut self) {
        self.machine.board.press_power_button();
    }

    fn reset(&mut self) -> Result<(), MachineError> {
        self.machine.reset();
        self.load()
    }

    fn save(&mut self, path: &Path) -> Result<u64, MachineError> {
        let known = mapped::touched(self.machine.cpu.mem().contents());
        let in_file = |page: usize| {
            let at = page * PAGE_SIZE as usize;
            let next = self.restored.partition_point(|run| run.address + run.len <= at);
            self.restored.get(next).is_some_and(|run| run.address <= at)
        };
        let touched = |page: usize| known.as_ref().is_none_or(|known| known[page]) || in_file(page);
        let saved = devices::state::save(&mut self.machine, &touched).map_err(StateFileError::Save)?;
        Ok(state::write(path, &saved)?)
    }

    fn is_over(&self) -> bool {
        self.script.as_ref().is_some_and(Script::is_over)
    }

    fn digest(&mut self) -> Option<u64> {
        self.script.as_ref()?;
        devices::state::digest(&mut self.machine).ok()
    }

    fn failure(&mut self) -> Option<MachineError> {
        self.failure.take().map(MachineError::from)
    }

    fn slack(&self) -> u64 {
        self.machine.board.slack()
    }

    fn stats(&self) -> env86_emu::cpu::Stats {
        self.machine.cpu.stats()
    }
}

/// The order in which a BIOS looks for something to start, in the digits of [`CmosConfig`]: v86 has the
/// hard disk first where there is one, else the CD-ROM.
fn boot_order(ide: &Units) -> u16 {
    if ide.0[0].is_some() { 0x312 } else { 0x123 }
}

/// The clock for a machine whose guest time is `now`, in nanoseconds, and a copy of it if it is the
/// host's. A script has its own wall time.
fn clock(config: &Config, now: u64, unix_millis: i64) -> (Box<dyn Clock>, Option<HostClock>) {
    if config.script.is_some() {
        return (Box::new(Script::clock(now, unix_millis)), None);
    }
    let clock = HostClock::start_at(now);
    (Box::new(clock.clone()), Some(clock))
}

fn entropy(config: &Config) -> Box<dyn Entropy> {
    if config.script.is_some() { Box::new(Script::entropy()) } else { Box::new(OsEntropy) }
}

/// The host's random numbers.
struct OsEntropy;

impl Entropy for OsEntropy {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        // Up to 256 bytes come in one piece once the host has booted (getrandom(2)).
        let _ = rustix::io::retry_on_intr(|| {
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        });
        u32::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use env86_devices::board::{ManualClock, Seeded};
    use env86_devices::{Board, pci};

    #[test]
    fn firmware_finds_what_is_on_the_board() {
        for acpi in [false, true] {
            let board =
                devices::BoardConfig { acpi, virtio_console: true, ..devices::BoardConfig::default() };
            let mut mem = Memory::new(1 << 20).unwrap();
            let (clock, entropy) = (Box::new(ManualClock::default()), Box::new(Seeded(1)));
            let mut pc = Board::new(board, &mut mem, clock, entropy);
            let found = BoardInfo::probe(&mut pc, &mut mem);
            assert_eq!((found.acpi, found.serial_ports), (acpi, 2));
            let ports = |space: &pci::ConfigSpace| {
                (0..pci::BARS).map(|bar| space.io_ports(bar)).filter(|&ports| ports > 0).collect::<Vec<_>>()
            };
            let fitted: Vec<_> =
                pc.pci.functions().map(|(devfn, f)| (devfn, f.interrupt_pin(), ports(f))).collect();
            let found: Vec<_> = found
                .functions
                .iter()
                .map(|f| (f.devfn, f.interrupt_pin, f.io_bars.iter().map(|bar| bar.ports).collect()))
                .collect();
            assert_eq!(found, fitted);
        }
    }
}
