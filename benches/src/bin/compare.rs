//! Times one guest on several emulators, side by side:
//!
//! ```text
//! compare [--rounds N] [--limit SECONDS] NAME=COMMAND...
//! ```
//!
//! A command is run by the shell and must put COM1 on stdout. The guest prints `@@BOOT` when it is
//! up, `@@B name` before each section and `@@END` at the end. Emulators take turns, round by round,
//! so that a busy machine slows all of them. Printed are medians of wall time and of processor time
//! (which says more while others use the machine, but counts a compiler's threads, too) and the
//! ratios to the first emulator; whatever a section prints must be the same everywhere.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use env86_benches::{Emulator, geometric_mean, kill, median};

const USAGE: &str = "usage: compare [--rounds N] [--limit SECONDS] NAME=COMMAND...";
/// The first section: from the start of the process.
const BOOT: &str = "boot";
/// What the guest does between booting and the first section is not timed.
const SETUP: &str = "setup";

/// One section of one run.
#[derive(Clone, Default)]
struct Section {
    name: String,
    wall: Duration,
    cpu: Duration,
    output: String,
}

/// Runs an emulator to the guest's end. `None` if that does not come within `limit`.
fn run(command: &str, limit: Duration) -> Option<Vec<Section>> {
    let mut emulator = Emulator::start(command).ok()?;
    let group = emulator.group();
    let (done, wait) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if wait.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            kill(group);
        }
    });
    let sections = sections(&mut emulator);
    drop(done);
    // It does nothing that could panic.
    let _ = watchdog.join();
    sections
}

fn sections(emulator: &mut Emulator) -> Option<Vec<Section>> {
    let (mut since, mut cpu_since) = (Instant::now(), Duration::ZERO);
    let mut current = Section { name: BOOT.into(), ..Section::default() };
    let mut finished = Vec::new();
    while let Some(line) = emulator.line().ok()? {
        let Some(mark) = line.strip_prefix("@@") else {
            // Firmware and kernel say different things on different machines.
            if current.name != BOOT && !is_kernel_message(&line) {
                current.output += &line;
                current.output.push('\n');
            }
            continue;
        };
        let (now, cpu) = (Instant::now(), emulator.cpu_time());
        (current.wall, current.cpu) = (now - since, cpu.saturating_sub(cpu_since));
        (since, cpu_since) = (now, cpu);
        finished.push(current);
        current = match mark.split_once(' ') {
            Some((_, name)) => Section { name: name.into(), ..Section::default() },
            None if mark == "END" => {
                finished.retain(|section| section.name != SETUP);
                return Some(finished);
            }
            None => Section { name: SETUP.into(), ..Section::default() },
        };
    }
    None
}

/// `[   12.345678] ...`
fn is_kernel_message(line: &str) -> bool {
    let stamp = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    stamp.is_some_and(|(stamp, _)| stamp.trim().parse::<f64>().is_ok())
}

/// All runs of one emulator.
struct Runs {
    name: String,
    command: String,
    runs: Vec<Vec<Section>>,
    /// What it did wrong.
    faults: BTreeMap<String, usize>,
}

impl Runs {
    fn median(&self, section: &str, time: fn(&Section) -> Duration) -> f64 {
        let all = self.runs.iter().flatten().filter(|s| s.name == section);
        median(all.map(|s| time(s).as_secs_f64()).collect())
    }
}

/// Prints a table of one kind of time.
fn print(title: &str, emulators: &[Runs], sections: &[String], time: fn(&Section) -> Duration) {
    let Some((first, others)) = emulators.split_first() else { return };
    print!("{title:<12}");
    emulators.iter().for_each(|e| print!("{:>14}", e.name));
    others.iter().for_each(|e| print!("{:>24}", format!("{}/{}", first.name, e.name)));
    println!();
    let ratio = |other: &Runs, section: &str| first.median(section, time) / other.median(section, time);
    for section in sections {
        print!("{section:<12}");
        emulators.iter().for_each(|e| print!("{:>14.3}", e.median(section, time)));
        others.iter().for_each(|e| print!("{:>24.3}", ratio(e, section)));
        println!();
    }
    let width = 12 + 14 * emulators.len();
    print!("{:<width$}", "geometric mean without boot");
    for other in others {
        let ratios: Vec<f64> = sections.iter().filter(|s| *s != BOOT).map(|s| ratio(other, s)).collect();
        print!("{:>24.3}", geometric_mean(&ratios));
    }
    println!("\n");
}

/// Notes where `sections` differ from the reference.
fn check(reference: &[Section], sections: &[Section], faults: &mut BTreeMap<String, usize>) {
    for (want, have) in reference.iter().zip(sections) {
        if (&want.name, &want.output) != (&have.name, &have.output) {
            *faults.entry(format!("different output of {}", want.name)).or_default() += 1;
        }
    }
}

struct Arguments {
    rounds: u32,
    limit: Duration,
    emulators: Vec<Runs>,
}

fn arguments() -> Option<Arguments> {
    let mut parsed = Arguments { rounds: 3, limit: Duration::from_secs(600), emulators: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => parsed.rounds = words.next()?.parse().ok()?,
            "--limit" => parsed.limit = Duration::from_secs(words.next()?.parse().ok()?),
            _ => {
                let (name, command) = word.split_once('=').filter(|(name, _)| !name.starts_with('-'))?;
                let (name, command) = (name.into(), command.into());
                parsed.emulators.push(Runs { name, command, runs: Vec::new(), faults: BTreeMap::new() });
            }
        }
    }
    (!parsed.emulators.is_empty()).then_some(parsed)
}

fn main() -> ExitCode {
    let Some(Arguments { rounds, limit, mut emulators }) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut reference: Option<Vec<Section>> = None;
    for round in 1..=rounds {
        for emulator in &mut emulators {
            let Some(sections) = run(&emulator.command, limit) else {
                eprintln!("round {round}: {} did not finish", emulator.name);
                *emulator.faults.entry("did not finish".into()).or_default() += 1;
                continue;
            };
            let total: Duration = sections.iter().map(|section| section.wall).sum();
            eprintln!("round {round}: {} took {:.1} s", emulator.name, total.as_secs_f64());
            check(reference.get_or_insert_with(|| sections.clone()), &sections, &mut emulator.faults);
            emulator.runs.push(sections);
        }
    }
    let names: Vec<String> = reference.iter().flatten().map(|section| section.name.clone()).collect();
    print("wall s", &emulators, &names, |section| section.wall);
    print("processor s", &emulators, &names, |section| section.cpu);
    let mut sound = true;
    for emulator in &emulators {
        for (fault, times) in &emulator.faults {
            println!("WRONG: {}: {fault}, {times} of {rounds} times", emulator.name);
            sound = false;
        }
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
