//! What the benchmark programs share: an emulator as a process that prints, and its costs.

#[cfg(not(unix))]
compile_error!("the benchmark programs end process groups and read /proc: build them on Linux");

pub mod kernels;
pub mod predictor;

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// An emulator with COM1 on its stdout, run by a shell in a process group of its own. It ends with
/// this value.
pub struct Emulator {
    shell: Child,
    lines: BufReader<ChildStdout>,
}

impl Emulator {
    /// Starts a shell command.
    pub fn start(command: &str) -> io::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let lines = BufReader::new(shell.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        Ok(Self { shell, lines })
    }

    /// The next line, without blanks around it. `None` at the end of output.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        match self.lines.read_until(b'\n', &mut bytes)? {
            0 => Ok(None),
            _ => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
        }
    }

    /// Reads until it has said `text`.
    pub fn wait_for(&mut self, text: &[u8]) -> io::Result<()> {
        let mut seen = Vec::new();
        loop {
            let some = self.lines.fill_buf()?;
            if some.is_empty() {
                let said = String::from_utf8_lossy(&seen).into_owned();
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("it ended, having said: {said}"),
                ));
            }
            let length = some.len();
            seen.extend_from_slice(some);
            self.lines.consume(length);
            if seen.windows(text.len()).any(|window| window == text) {
                return Ok(());
            }
        }
    }

    /// The number of the process group.
    pub fn group(&self) -> u32 {
        self.shell.id()
    }

    /// Processor time that all threads of the group have used so far.
    pub fn cpu_time(&self) -> Duration {
        processes_of(self.group()).iter().map(|process| cpu_time(process.as_path())).sum()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        kill(self.group());
        // It is dead, or never was alive: nothing is left to do about an error.
        let _ = self.shell.wait();
    }
}

/// Ends a process group at once.
pub fn kill(group: u32) {
    if let Some(pid) = i32::try_from(group).ok().and_then(Pid::from_raw) {
        // One that has ended by itself is as good.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// The directories in `/proc` of a group's processes.
fn processes_of(group: u32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let in_group = |process: &PathBuf| {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        // Behind the name in parentheses: state, parent, group (proc(5)).
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields.split_whitespace().nth(2).and_then(|field| field.parse().ok()) == Some(group)
    };
    entries.flatten().map(|entry| entry.path()).filter(in_group).collect()
}

fn cpu_time(process: &Path) -> Duration {
    let Ok(tasks) = fs::read_dir(process.join("task")) else { return Duration::ZERO };
    let nanoseconds = |task: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(nanoseconds).sum())
}

/// The middle one of some figures, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len().is_multiple_of(2), values.get(middle)) {
        (_, None) => f64::NAN,
        (false, Some(value)) => *value,
        (true, Some(value)) => (values[middle - 1] + value) / 2.0,
    }
}

/// The geometric mean.
pub fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_is_read_measured_and_ended() {
        let mut emulator =
            Emulator::start("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ' a '; exec sleep 100")
                .unwrap();
        assert_eq!(emulator.line().unwrap().as_deref(), Some("a"));
        assert!(emulator.cpu_time() > Duration::ZERO);
        kill(emulator.group());
        assert_eq!(emulator.line().unwrap(), None);
    }

    #[test]
    fn means() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
        assert!((geometric_mean(&[1.0, 4.0]) - 2.0).abs() < 1e-12);
    }
}
