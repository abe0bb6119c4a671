//! The machine as a WebAssembly module with nothing around it: `run.mjs` boots a kernel in it under
//! Node, so that the processor can be timed beside other emulators.
//!
//! There is no state but what `env86_new` gives: every function takes it. JavaScript puts files
//! into buffers of the module's memory and reads the serial port's output from there.

#![cfg(target_family = "wasm")]
// The names of exports are what `no_mangle` is for; no function here does anything unsafe.
#![allow(unsafe_code)]

use env86_bios::BootSource;
use env86_core::{Computer, Firmware, Outside, Progress, Recording, Setup};
use env86_devices::Clock;
use env86_devices::board::Seeded;

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
    /// What is typed.
    Input,
    /// What is waited for.
    Text,
}

/// A machine and what passes between it and JavaScript.
#[derive(Default)]
pub struct Runner {
    files: [Vec<u8>; 5],
    computer: Option<Computer>,
    output: Output,
}

/// What COM1 has sent.
#[derive(Default)]
struct Output(Vec<u8>);

impl Outside for Output {
    fn serial(&mut self, port: u8, bytes: &[u8]) {
        if port == 0 {
            self.0.extend(bytes);
        }
    }
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

/// Makes room for file number `file` (kernel, initial RAM disk, command line; what is typed and waited
/// for) and tells where.
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
/// repeats does the same as `env86 boot --deterministic`.
#[unsafe(no_mangle)]
pub extern "C" fn env86_boot(runner: &mut Runner, memory: u32, repeats: bool) -> bool {
    let mut file = |file: File| std::mem::take(&mut runner.files[file as usize]);
    let initrd = file(File::Initrd);
    let source = BootSource::Linux {
        kernel: file(File::Kernel),
        initrd: (!initrd.is_empty()).then_some(initrd),
        cmdline: String::from_utf8_lossy(&file(File::CommandLine)).into_owned(),
        unpack: true,
    };
    let world = match repeats {
        true => Setup::deterministic(Recording::typed(file(File::Input), Some(file(File::Text)))),
        false => Setup::new(Box::new(HostClock), Box::new(Seeded(1))),
    };
    let setup = Setup { memory: memory.into(), ..world };
    runner.computer = Computer::power_on(setup, Firmware::new("the kernel", source)).ok();
    runner.computer.is_some()
}

/// Executes about `budget` instructions. Gives 0 if there is more to do, a number of milliseconds if
/// the machine has nothing to do for so long, and a negative number if it has ended.
#[unsafe(no_mangle)]
pub extern "C" fn env86_run(runner: &mut Runner, budget: u32) -> f64 {
    runner.output.0.clear();
    let Some(computer) = &mut runner.computer else { return answer::ENDED };
    let progress = computer.run(budget.into(), &mut runner.output);
    if computer.is_over() {
        return answer::ENDED;
    }
    match progress {
        Ok(Progress::More) => answer::BUSY,
        Ok(Progress::Sleep { until: Some(until), .. }) => until.saturating_sub(computer.time()) as f64 / 1e6,
        // Nothing is typed at a machine that does not repeat.
        Ok(Progress::Sleep { until: None, .. } | Progress::Ended(_)) | Err(_) => answer::ENDED,
    }
}

/// Where the bytes are that COM1 has sent during the last [`env86_run`].
#[unsafe(no_mangle)]
pub extern "C" fn env86_output(runner: &Runner) -> *const u8 {
    runner.output.0.as_ptr()
}

/// How many they are.
#[unsafe(no_mangle)]
pub extern "C" fn env86_output_len(runner: &Runner) -> usize {
    runner.output.0.len()
}

/// Instructions executed so far.
#[unsafe(no_mangle)]
pub extern "C" fn env86_instructions(runner: &Runner) -> f64 {
    runner.computer.as_ref().map_or(0.0, |computer| computer.stats().instructions as f64)
}

/// The hash of the machine's state; 0 if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn env86_digest(runner: &mut Runner) -> u64 {
    runner.computer.as_mut().and_then(|computer| computer.digest().ok()).unwrap_or_default()
}
