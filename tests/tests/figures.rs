//! What saved states cost, against v86 under Node in turns: how long a restore takes to the shell's first
//! reply (at most a tenth), how long a save takes (at most half), and how much memory many machines of one state need.
//!
//!     make figures
//!
//! The demo machine with 512 MB. Times on a shared computer mean nothing; the ratios do.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use env86::{Com, Image, Machine};
use env86_tests::{Guest, Result, V86, bound_to_us, image, program, workspace};
use serde_json::json;

const ROUNDS: usize = 7;
const MACHINES: usize = 50;
const MEMORY_MB: u32 = 512;
/// The quotes keep the echo of it from being the reply.
const QUESTION: &str = "echo re''ply";
const REPLY: &str = "reply";
const CTRL_D: &str = "\u{4}";
const LIMIT: Duration = Duration::from_secs(300);

struct Bench {
    dir: PathBuf,
    state: PathBuf,
    image: PathBuf,
}

impl Bench {
    /// A machine at its shell's prompt, saved.
    fn new() -> Result<Self> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures");
        fs::create_dir_all(&dir)?;
        let (state, image) = (dir.join("state"), image()?);
        let flags = ["--save-state".to_owned(), state.display().to_string()];
        let mut guest = Guest::shell(&image, flags)?;
        guest.run("sync", Duration::from_secs(60))?;
        guest.line(CTRL_D)?;
        guest.wait_for_end(LIMIT)?;
        Ok(Self { dir, state, image })
    }

    /// Restores in env86 and asks.
    fn env86(&self, more: &[&Path]) -> Result<Guest> {
        let mut command = bound_to_us(program()?);
        command.args(["boot", "--ttyS0", "--no-console", "--state"]).arg(&self.state).args(more);
        command.arg(&self.image).stderr(Stdio::null());
        let mut guest = Guest::start(command)?;
        guest.line(QUESTION)?;
        guest.wait_for(REPLY, LIMIT)?;
        Ok(guest)
    }

    /// Seconds from env86's start to the reply, and from Ctrl-D to the state on the disk.
    fn time_env86(&self) -> Result<(f64, f64)> {
        let start = Instant::now();
        let saved = self.dir.join("saved-by-env86");
        let mut guest = self.env86(&[Path::new("--save-state"), &saved])?;
        let restored = start.elapsed().as_secs_f64();
        sleep(Duration::from_millis(300));
        let start = Instant::now();
        guest.line(CTRL_D)?;
        guest.wait_for_end(LIMIT)?;
        Ok((restored, start.elapsed().as_secs_f64()))
    }

    /// The same of v86; and until its file was written, but not yet on the disk.
    fn time_v86(&self) -> Result<(f64, f64, f64)> {
        let v86 = V86::for_test("figures").ok_or_else(|| std::io::Error::other("there is no v86"))?;
        let plan = v86.plan(json!({
            "memory_mb": MEMORY_MB,
            "options": { "filesystem": {
                "basefs": self.image.join("fs.json"),
                "baseurl": format!("{}/", self.image.join("fs").display()),
            } },
            "state": self.state,
            "save": self.dir.join("saved-by-v86"),
            "steps": [[format!("{QUESTION}\n"), REPLY]],
            "timeout_s": 300,
        }));
        let path = self.dir.join("plan.json");
        fs::write(&path, plan.to_string())?;
        let start = Instant::now();
        let mut node = bound_to_us("node");
        let told = self.dir.join("told-by-v86");
        node.arg(workspace().join("tests/peers/v86/machine.mjs")).arg(path).stderr(fs::File::create(&told)?);
        let mut v86 = Guest::start(node)?;
        v86.wait_for(REPLY, LIMIT)?;
        let restored = start.elapsed().as_secs_f64();
        v86.wait_for_end(LIMIT)?;
        let told = fs::read_to_string(told)?;
        let saved = told.lines().find_map(|line| line.strip_prefix("@ saved ")).unwrap_or_default();
        let numbers: Vec<f64> = saved.split(' ').filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [_, written, flushed] => Ok((restored, flushed / 1e3, written / 1e3)),
            _ => Err(std::io::Error::other(told).into()),
        }
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Private memory of a process in KiB: all of it, and what of it are pages of the guest that are not as in
/// the file any more.
fn private(pid: u32, state: &Path) -> Result<(u64, u64)> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut all, mut changed, mut of_state) = (0, 0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next().unwrap_or_default(), words.next()) {
            (key @ ("Private_Clean:" | "Private_Dirty:"), Some(number)) => {
                let kib: u64 = number.parse().unwrap_or(0);
                all += kib;
                changed += if of_state && key == "Private_Dirty:" { kib } else { 0 };
            }
            (range, Some(_)) if range.contains('-') => of_state = line.ends_with(&*state.to_string_lossy()),
            _ => {}
        }
    }
    Ok((all, changed))
}

#[test]
#[ignore = "measures; see make figures"]
fn times() -> Result<()> {
    let bench = Bench::new()?;
    let mut times = BTreeMap::<_, Vec<(f64, f64)>>::new();
    for _ in 0..ROUNDS {
        let (restore, save) = bench.time_env86()?;
        let (their_restore, their_save, unflushed) = bench.time_v86()?;
        for (what, seconds) in [
            ("restore", (restore, their_restore)),
            ("save", (save, their_save)),
            ("save, v86's not flushed", (save, unflushed)),
        ] {
            times.entry(what).or_default().push(seconds);
        }
    }
    println!("medians of {ROUNDS} rounds in turns, {} bytes of state", fs::metadata(&bench.state)?.len());
    for (what, times) in times {
        let ours = median(times.iter().map(|t| t.0).collect());
        let theirs = median(times.iter().map(|t| t.1).collect());
        println!("{what:24} env86 {ours:.3} s, v86 {theirs:.3} s, ratio {:.3}", ours / theirs);
    }
    Ok(fs::remove_dir_all(bench.dir)?)
}

#[test]
#[ignore = "measures; see make figures"]
fn memory() -> Result<()> {
    let bench = Bench::new()?;
    let mut guests = Vec::new();
    for _ in 0..MACHINES {
        guests.push(bench.env86(&[])?);
    }
    let mut figures = Vec::new();
    for guest in &guests {
        figures.push(private(guest.pid(), &bench.state)?);
    }
    drop(guests);
    let mib = |kib: u64| kib as f64 / 1024.0;
    let most = figures.iter().map(|(all, changed)| all - changed).max().unwrap_or(0);
    let (all, changed) = figures.iter().fold((0, 0), |sum, f| (sum.0 + f.0, sum.1 + f.1));
    println!("{MACHINES} processes, private memory each, on average:");
    let count = MACHINES as u64;
    println!("{:.1} MiB, {:.1} of it pages that the guest changed", mib(all / count), mib(changed / count));
    println!("without those, at most {:.1} MiB (12 allowed)", mib(most));

    let before = private(std::process::id(), &bench.state)?.0;
    let image = Image::open(&bench.image).map_err(std::io::Error::other)?;
    let mut machines = Vec::new();
    for _ in 0..MACHINES {
        let builder = Machine::builder().image(&image).state(&bench.state);
        let machine = builder.start().map_err(std::io::Error::other)?;
        let mut com1 = machine.serial(Com::One);
        writeln!(com1, "{QUESTION}")?;
        com1.expect("reply\r\n", LIMIT).map_err(std::io::Error::other)?;
        machines.push(machine);
    }
    let (all, changed) = private(std::process::id(), &bench.state)?;
    println!("{MACHINES} machines in one process, private memory each:");
    let each = (all - before) / count;
    println!("{:.1} MiB, {:.1} of it pages that the guest changed", mib(each), mib(changed / count));
    drop(machines);
    Ok(fs::remove_dir_all(bench.dir)?)
}
