//! The machine as a WebAssembly module with nothing around it: `run.mjs` boots a kernel in it under
//! Node, so that the processor can be timed beside other emulators.
//!
//! There is no state but what `env86_new` gives: every function takes it. JavaScript puts files
//! into buffers of the module's memory and reads the serial port's output from there.

#![cfg(target_family = "wasm")]
// The names of exports are what `no_mangle` is for; no function here does anything unsafe.
#![allow(unsafe_code)]

use env86_bios::{BoardInfo, BootSource};
use env86_devices::fs::{Filesystem, NoBlobs};
use env86_devices::{BoardConfig, Clock, Pc, Script, Stop, pc::Seeded, state};
use env86_emu::Memory;

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    /// Milliseconds since the program began, with fractions.
    safe fn elapsed_millis() -> f64;
    /// Milliseconds since 1970.
    safe fn unix_millis() -> f64;
}

/// JavaScript's clocks.
struct HostClock;

impl Clock for HostClock {
    fn now(&mut self) -> u64 {
        (elapsed_millis() * 1e6) as u64
    }

    fn unix_millis(&mut self) -> i64 {
        unix_millis() as i64
    }
}

/// A file from the host.
#[repr(usize)]
enum File {
    Kernel,
    Initrd,
    CommandLine,
    /// What a script types.
    Input,
    /// What it waits for.
    Text,
}

/// A machine and what passes between it and JavaScript.
#[derive(Default)]
pub struct Runner {
    files: [Vec<u8>; 5],
    machine: Option<Pc>,
    script: Option<Script>,
    output: Vec<u8>,
}

/// What [`env86_run`] answers.
mod answer {
    /// There is more to do.
    pub const BUSY: f64 = 0.0;
    /// The machine has ended, well or badly.
    pub const ENDED: f64 = -1.0;
}

/// A runner without a machine.
#[unsafe(no_mangle)]
pub extern "C" fn env86_new() -> Box<Runner> {
    Box::default()
}

/// Makes room for file number `file` (kernel, initial RAM disk, command line; what a script
/// types and waits for) and tells where.
#[unsafe(no_mangle)]
pub extern "C" fn env86_file(runner: &mut Runner, file: usize, bytes: usize) -> *mut u8 {
    match runner.files.get_mut(file) {
        Some(buffer) => {
            *buffer = vec![0; bytes];
            buffer.as_mut_ptr()
        }
        None => std::ptr::null_mut(),
    }
}

/// Builds the machine with `memory` bytes and loads the kernel; tells whether that worked. A machine that
/// runs by a script does the same as `env86 boot --deterministic`.
#[unsafe(no_mangle)]
pub extern "C" fn env86_boot(runner: &mut Runner, memory: u32, by_script: bool) -> bool {
    let mut file = |file: File| std::mem::take(&mut runner.files[file as usize]);
    let initrd = file(File::Initrd);
    let source = BootSource::Linux {
        kernel: file(File::Kernel),
        initrd: (!initrd.is_empty()).then_some(initrd),
        cmdline: String::from_utf8_lossy(&file(File::CommandLine)).into_owned(),
        unpack: true,
    };
    let (input, text) = (file(File::Input), file(File::Text));
    runner.script = by_script.then(|| Script::new(&input, Some(text)));
    runner.machine = boot(&source, memory, by_script);
    runner.machine.is_some()
}

fn boot(source: &BootSource, memory: u32, by_script: bool) -> Option<Pc> {
    let mem = Memory::new(memory.into()).ok()?;
    let mut machine = if by_script {
        let filesystem = Some((Filesystem::default(), Box::new(NoBlobs) as _));
        let clock = Box::new(Script::clock(0, Script::POWER_ON_MILLIS));
        Pc::new(mem, BoardConfig { filesystem, ..BoardConfig::default() }, clock, Box::new(Script::entropy()))
    } else {
        Pc::new(mem, BoardConfig::default(), Box::new(HostClock), Box::new(Seeded(1)))
    };
    let mem = machine.cpu.mem_mut();
    let board = BoardInfo::probe(&mut machine.board, mem);
    let boot = env86_bios::load(source, &board, mem).ok()?;
    env86_bios::apply(&boot.steps, &mut machine.board, mem);
    machine.cpu.set_state(&boot.state);
    Some(machine)
}

/// Executes about `budget` instructions. Gives 0 if there is more to do, a number of milliseconds if
/// the machine has nothing to do for so long, and a negative number if it has ended.
#[unsafe(no_mangle)]
pub extern "C" fn env86_run(runner: &mut Runner, budget: u32) -> f64 {
    let Some(machine) = &mut runner.machine else { return answer::ENDED };
    let event = match &mut runner.script {
        Some(script) => script.run(machine),
        None => machine.run(budget.into()),
    };
    runner.output = match &mut runner.script {
        Some(script) => script.output(),
        None => machine.board.serial_output(0),
    };
    if runner.script.as_ref().is_some_and(Script::is_over) {
        return answer::ENDED;
    }
    match event {
        Stop::Budget | Stop::Output => answer::BUSY,
        Stop::Idle { until: Some(until) } => until.saturating_sub(machine.board.time()) as f64 / 1e6,
        Stop::Idle { until: None } | Stop::PowerOff | Stop::Reset => answer::ENDED,
        Stop::TripleFault | Stop::DebugExit(_) => answer::ENDED,
    }
}

/// Where the bytes are that COM1 has sent during the last [`env86_run`].
#[unsafe(no_mangle)]
pub extern "C" fn env86_output(runner: &Runner) -> *const u8 {
    runner.output.as_ptr()
}

/// How many they are.
#[unsafe(no_mangle)]
pub extern "C" fn env86_output_len(runner: &Runner) -> usize {
    runner.output.len()
}

/// Instructions executed so far.
#[unsafe(no_mangle)]
pub extern "C" fn env86_instructions(runner: &Runner) -> f64 {
    runner.machine.as_ref().map_or(0.0, |machine| machine.cpu.stats().instructions as f64)
}

/// The hash of the machine's state; 0 if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn env86_digest(runner: &mut Runner) -> u64 {
    runner.machine.as_mut().and_then(|machine| state::digest(machine).ok()).unwrap_or_default()
}
