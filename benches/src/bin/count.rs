//! How many instructions the host executes for one of the guest's: `count [PART-OF-A-NAME...]`
//!
//! The figures come from Valgrind, which counts. They do not depend on the machine's load, on other
//! programs or on the clock, and repeat to well below 0.1 %, so that a regression shows where a
//! time would not. What they cannot show is how fast the host executes those instructions.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, io};

use env86_benches::kernels::{Bench, KERNELS, Kernel};

/// Instructions of the guest that are counted, at least.
const PASS: u64 = 10_000;
/// The argument of the run that Valgrind watches.
const COUNTED: &str = "--counted";

/// Where counting begins and ends. Valgrind is told their names, and looks only for calls of them:
/// returns are hard to see where handlers end in jumps.
#[inline(never)]
fn count_begins() {
    std::hint::black_box("begins");
}

#[inline(never)]
fn count_ends() {
    std::hint::black_box("ends");
}

fn wanted(parts: &[String]) -> impl Iterator<Item = &'static Kernel> {
    KERNELS.iter().filter(move |k| parts.is_empty() || parts.iter().any(|part| k.name.contains(part)))
}

/// The run under Valgrind: prints the guest's instructions of each kernel.
fn run_counted(parts: &[String]) {
    for kernel in wanted(parts) {
        let mut bench = Bench::new(kernel);
        // Fills caches, so that what is counted is a state that lasts.
        bench.run(PASS);
        count_begins();
        let instructions = bench.run(PASS);
        count_ends();
        println!("{} {instructions}", kernel.name);
    }
}

/// A directory of this process for Valgrind's files, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("env86-count-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it any more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What was counted up to each call of [`count_ends`], in order: one file of Callgrind's each.
fn counts(folder: &Path) -> io::Result<Vec<u64>> {
    let mut parts: Vec<(u32, u64)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(number) = path.extension().and_then(OsStr::to_str).and_then(|n| n.parse().ok()) else {
            continue;
        };
        let text = fs::read_to_string(&path)?;
        if !text.contains("Trigger: --dump-before") {
            continue;
        }
        let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
        parts.push((number, total.and_then(|total| total.trim().parse().ok()).unwrap_or(0)));
    }
    parts.sort_unstable();
    Ok(parts.into_iter().map(|(_, count)| count).collect())
}

fn measure(parts: &[String]) -> io::Result<ExitCode> {
    let scratch = Scratch::new()?;
    let output = Command::new("valgrind")
        .args(["-q", "--tool=callgrind", "--zero-before=*count_begins*", "--dump-before=*count_ends*"])
        .arg(format!("--callgrind-out-file={}", scratch.0.join("counts").display()))
        .arg(env::current_exe()?)
        .arg(COUNTED)
        .args(parts)
        .stderr(Stdio::inherit())
        .output()?;
    let lines = String::from_utf8_lossy(&output.stdout);
    let counts = counts(&scratch.0)?;
    if !output.status.success() || counts.len() != lines.lines().count() {
        eprintln!("Valgrind counted {} kernels of {}", counts.len(), lines.lines().count());
        return Ok(ExitCode::FAILURE);
    }
    println!("{:<32}{:>28}", "kernel", "host instructions a guest's");
    for (line, host) in lines.lines().zip(counts) {
        if let Some((name, guest)) = line.split_once(' ') {
            println!("{name:<32}{:>28.3}", host as f64 / guest.parse().unwrap_or(f64::NAN));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some((first, parts)) = arguments.split_first()
        && first == COUNTED
    {
        run_counted(parts);
        return ExitCode::SUCCESS;
    }
    measure(&arguments).unwrap_or_else(|error| {
        eprintln!("cannot count (is valgrind installed?): {error}");
        ExitCode::FAILURE
    })
}
