//! How many handlers the interpreter dispatches for one instruction of the guest, and which: `dispatch GUEST [TOP]`
//!
//! GUEST is what benches/guest/build makes. It boots in a machine that repeats, so that the figures are the same
//! on every host. Of each section the first [`SAMPLE`] dispatches are looked at closely: the commonest handlers,
//! pairs and triples, those whose jumps are mispredicted most (TOP of each are shown), and what two sizes of
//! [`Predictor`] make of them. A handler that does two instructions counts as one dispatch.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use env86_benches::predictor::Predictor;
use env86_bios::BootSource;
use env86_core::{Computer, Firmware, Outside, Progress, Recording, Setup};
use env86_emu::cpu::observe::Observer;

type Failure = Box<dyn std::error::Error>;

/// What the guest says when it is through.
const END: &[u8] = b"@@END";
/// Dispatches of a section whose pairs, triples and predictions are counted.
const SAMPLE: u64 = 50_000_000;
/// Instructions between two looks at what the guest says.
const SLICE: u64 = 100_000;
/// `log2` of the targets by place and in each table by way: 1,536 targets, as far as a Golden Cove seems to predict
/// well, and 3,072, as AMD says of Zen 4.
const SIZES: [(u32, u32); 2] = [(9, 8), (10, 9)];
/// Dispatches between those after which the predictors count misses: they have learnt the program by then.
const WARM: u64 = SAMPLE / 10;

/// Numbers are their own hash, spread.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        let value = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = value ^ (value >> 32);
    }
}

type Counts = HashMap<u64, u64, BuildHasherDefault<Spread>>;

/// Bits of a handler's number in a pair or triple.
const NUMBER: u32 = 16;

/// What is counted of a section.
struct Section {
    name: String,
    instructions: u64,
    dispatches: u64,
    /// Numbers of handlers by address.
    numbers: Counts,
    /// By length less one: handlers, pairs, triples.
    runs: [Counts; 3],
    /// The last three handlers.
    last: u64,
    last_address: u64,
    predictors: [Predictor; SIZES.len()],
    /// Mispredictions of the larger predictor by the number of the handler that jumps.
    missed_at: Counts,
}

impl Section {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            instructions: 0,
            dispatches: 0,
            numbers: Counts::default(),
            runs: Default::default(),
            last: 0,
            last_address: 0,
            predictors: SIZES.map(|(base, tagged)| Predictor::new(base, tagged)),
            missed_at: Counts::default(),
        }
    }

    /// The dispatches of the sample whose predictions are counted.
    fn predicted(&self) -> u64 {
        self.dispatches.min(SAMPLE).saturating_sub(WARM).max(1)
    }

    /// The handlers by number.
    fn names(&self) -> HashMap<u64, String> {
        self.numbers.iter().map(|(address, number)| (*number, name_of(*address))).collect()
    }
}

impl Observer for Section {
    fn dispatched(&mut self, handler: usize) {
        self.dispatches += 1;
        if self.dispatches > SAMPLE {
            return;
        }
        let address = handler as u64;
        let next = self.numbers.len() as u64 + 1;
        let number = *self.numbers.entry(address).or_insert(next);
        self.last = (self.last << NUMBER | number) & ((1 << (3 * NUMBER)) - 1);
        for (n, counts) in self.runs.iter_mut().enumerate() {
            *counts.entry(self.last & ((1 << ((n as u32 + 1) * NUMBER)) - 1)).or_default() += 1;
        }
        let mut hit = true;
        for predictor in &mut self.predictors {
            hit = predictor.jump(self.last_address, address);
            if self.dispatches == WARM {
                predictor.missed = 0;
            }
        }
        if !hit && self.dispatches > WARM {
            *self.missed_at.entry(self.last >> NUMBER & ((1 << NUMBER) - 1)).or_default() += 1;
        }
        self.last_address = address;
    }
}

/// A handler's name, without the modules of what is in it.
fn name_of(address: u64) -> String {
    let mut name = format!("{address:#x}");
    // It looks before the address, as for one that a call returns to.
    backtrace::resolve((address + 1) as *mut _, |symbol| {
        if let Some(found) = symbol.name() {
            name = format!("{found:#}");
        }
    });
    let mut short = String::new();
    for part in name.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        short.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    short
}

/// What COM1 says, in lines.
#[derive(Default)]
struct Said(Vec<u8>);

impl Outside for Said {
    fn serial(&mut self, port: u8, bytes: &[u8]) {
        if port == 0 {
            self.0.extend(bytes);
        }
    }
}

impl Said {
    /// The next whole line.
    fn line(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = self.0.drain(..=end).collect::<Vec<_>>();
        Some(String::from_utf8_lossy(&line).trim().to_owned())
    }
}

/// Boots the guest and runs it to its end.
fn run(guest: &Path) -> Result<Vec<Section>, Failure> {
    let read =
        |name| fs::read(guest.join(name)).map_err(|error| format!("{}/{name}: {error}", guest.display()));
    let source = BootSource::Linux {
        kernel: read("vmlinuz")?,
        initrd: Some(read("initrd")?),
        cmdline: String::from_utf8(read("cmdline")?)?,
        unpack: true,
    };
    let setup = Setup::deterministic(Recording::typed("", Some(END.into())));
    let mut computer = Computer::power_on(setup, Firmware::new("the kernel", source))?;
    let mut said = Said::default();
    let mut done: Vec<Section> = Vec::new();
    let mut since = 0;
    computer.observe(Some(Box::new(Section::new("boot"))));
    while !computer.is_over() {
        if let Progress::Ended(why) = computer.run(SLICE, &mut said)? {
            return Err(format!("the guest has ended too early: {why:?}").into());
        }
        let next =
            std::iter::from_fn(|| said.line()).find_map(|line| Some(line.strip_prefix("@@")?.to_owned()));
        let next = if computer.is_over() { Some("END".into()) } else { next };
        let Some(next) = next else { continue };
        let now = computer.stats().instructions;
        let name = next.strip_prefix("B ").unwrap_or("between");
        let seen = computer.observe(Some(Box::new(Section::new(name)))).map(|seen| seen as Box<dyn Any>);
        if let Some(Ok(mut section)) = seen.map(|seen| seen.downcast::<Section>()) {
            section.instructions = now - since;
            eprintln!("dispatch: {} is done", section.name);
            done.push(*section);
        }
        since = now;
    }
    Ok(done)
}

fn show(sections: &[Section], top: usize) {
    println!(
        "{:<10}{:>14}{:>12}{:>10}{:>12}{:>14}",
        "", "instructions", "dispatches", "handlers", "missed of", "1,000 by"
    );
    let sizes = SIZES.map(|(base, tagged)| Predictor::new(base, tagged).size());
    println!(
        "{:<10}{:>14}{:>12}{:>10}{:>12}{:>14}",
        "section", "million", "for each", "in use", sizes[0], sizes[1]
    );
    for section in sections {
        let [small, large] =
            [0, 1].map(|n| 1e3 * section.predictors[n].missed as f64 / section.predicted() as f64);
        println!(
            "{:<10}{:>14.1}{:>12.3}{:>10}{small:>12.1}{large:>14.1}",
            section.name,
            section.instructions as f64 / 1e6,
            section.dispatches as f64 / section.instructions.max(1) as f64,
            section.numbers.len(),
        );
    }
    for section in sections.iter().filter(|_| top > 0) {
        let names = section.names();
        let lists = [
            (&section.runs[0], "handlers, percent of dispatches", section.dispatches.min(SAMPLE)),
            (&section.runs[1], "pairs, percent of dispatches", section.dispatches.min(SAMPLE)),
            (&section.runs[2], "triples, percent of dispatches", section.dispatches.min(SAMPLE)),
            (
                &section.missed_at,
                "jumps to the next handler, of 1,000 dispatches mispredicted",
                section.predicted() / 10,
            ),
        ];
        for (counts, what, of) in lists {
            println!("\n{}: {what}", section.name);
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_by_key(|(run, count)| (u64::MAX - **count, **run));
            for (run, count) in counts.into_iter().take(top) {
                let numbers = [2, 1, 0].map(|n| run >> (n * NUMBER) & ((1 << NUMBER) - 1));
                let run: Vec<_> =
                    numbers.iter().filter_map(|number| names.get(number)).map(String::as_str).collect();
                let share = 100.0 * *count as f64 / of as f64;
                println!("{share:>8.2}  {}", run.join("; "));
            }
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let (guest, top) = match &args[..] {
        [guest] => (guest, Some(0)),
        [guest, top] => (guest, top.parse().ok()),
        _ => (&String::new(), None),
    };
    let Some(top) = top else {
        eprintln!("usage: dispatch GUEST [TOP]");
        return ExitCode::from(2);
    };
    match run(Path::new(guest)) {
        Ok(sections) => show(&sections, top),
        Err(error) => {
            eprintln!("dispatch: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
