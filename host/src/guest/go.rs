//! Programs of the Go service, of an image that was made with the Go env86.
//!
//! It sends a program's status, and closes the channel, as soon as the program has ended, while it still reads
//! what the program wrote, and of pipes may lose it. So a shell runs the program, writes a marker behind all
//! that came out of it, and stays for a moment. What that service has not (a directory, variables, a
//! terminal's size) the shell does, too. Files are copied by programs, because its calls carry whole files, and no
//! permissions.

use std::io::{self, Read, Write};

use guest86::call::{Exec, FileInfo, Put, Run};

use super::process::Source;
use super::{Child, Guest, GuestError, Output};

/// How long the shell stays, in seconds: until the service has read what was written.
const STAYS: u32 = 5;

/// A text between quotation marks that a shell takes as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A text that no program will write.
pub(super) fn marker() -> String {
    let mut chance = [0; 8];
    // A host without random numbers would not have started this program.
    let _ = getrandom::fill(&mut chance);
    format!("end-{:016x}-", u64::from_le_bytes(chance))
}

/// The shell that runs a program; `None` if it would need another user's rights.
pub(super) fn wrapped(exec: &Exec, marker: &str) -> Option<Run> {
    if exec.user.is_some() || exec.env_clear {
        return None;
    }
    let mut script = String::new();
    if let Some(size) = exec.terminal {
        script += &format!("stty rows {} cols {} 2>/dev/null\n", size.rows, size.columns);
    }
    for (key, value) in &exec.env {
        script += &format!("export {key}={}\n", quoted(value));
    }
    let dir = exec.dir.as_deref().map_or_else(String::new, |dir| format!("cd {} && ", quoted(dir)));
    script += &format!(
        "{dir}\"$@\"\ns=$?\nprintf '{marker}%s\\n' $s\nprintf '{marker}0\\n' >&2\nexec sleep {STAYS}\n"
    );
    let mut args = vec!["-c".to_owned(), script, "sh".to_owned(), exec.program.clone()];
    args.extend(exec.args.iter().cloned());
    Some(Run { name: "sh".into(), args: Some(args), pty: exec.terminal.is_some(), ..Run::default() })
}

/// A script with arguments, for a copy of a file.
fn script(guest: &Guest, script: &str, args: &[&str]) -> Result<Child, GuestError> {
    guest.command("sh").args(["-c", script, "sh"]).args(args.iter().copied()).spawn()
}

/// Copies a file from the guest.
pub(super) fn download(guest: &Guest, path: &str, to: &mut impl Write) -> Result<FileInfo, GuestError> {
    let text = r#"stat -Lc "%a %Y %s" -- "$1" || exit
[ ! -d "$1" ] || { echo "read $1: is a directory" >&2; exit 1; }
exec cat -- "$1""#;
    let mut child = script(guest, text, &[path])?;
    child.stdin = None;
    let mut info = Vec::new();
    if let Some(stdout) = &mut child.stdout {
        // One line, and then the file's bytes.
        let mut byte = [0];
        while stdout.read(&mut byte)? == 1 && byte != *b"\n" {
            info.extend(byte);
        }
        io::copy(stdout, to)?;
    }
    let ended = child.wait_with_output()?;
    match parse_info(&String::from_utf8_lossy(&info)) {
        Some(info) if ended.status.success() => Ok(info),
        _ => Err(refused(&ended)),
    }
}

/// What `stat` has said: permissions, time, size.
fn parse_info(line: &str) -> Option<FileInfo> {
    let mut words = line.split_ascii_whitespace();
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    Some(FileInfo { mode, mtime: words.next()?.parse().ok()?, size: words.next()?.parse().ok()? })
}

fn refused(ended: &Output) -> GuestError {
    GuestError::Refused(String::from_utf8_lossy(&ended.stderr).trim_end().into())
}

/// Copies a file to the guest: under another name, until it is whole.
pub(super) fn upload(guest: &Guest, from: &mut impl Read, put: &Put) -> Result<(), GuestError> {
    let text = r#"[ ! -d "$1" ] || { echo "$1 is a directory" >&2; exit 1; }
part=$1.part-$$
trap 'rm -f "$part"' EXIT
cat > "$part" && chmod "$2" "$part" && { [ -z "$3" ] || touch -d "@$3" "$part"; } && mv "$part" "$1""#;
    let (mode, time) = (format!("{:o}", put.mode & 0o7777), put.mtime.map(|time| time.to_string()));
    let mut child = script(guest, text, &[&put.path, &mode, &time.unwrap_or_default()])?;
    if let Some(mut stdin) = child.stdin.take() {
        let mut piece = vec![0; super::PIECE];
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                // What failed at the guest's end it says itself.
                Ok(read) if stdin.write_all(&piece[..read]).is_err() => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let ended = child.wait_with_output()?;
    if ended.status.success() { Ok(()) } else { Err(refused(&ended)) }
}

/// Looks for the markers in a program's outputs.
#[derive(Debug)]
pub(super) struct Markers {
    marker: Vec<u8>,
    /// Bytes that may be the beginning of a marker.
    held: [Vec<u8>; 2],
    /// The statuses behind the markers.
    found: [Option<i32>; 2],
    /// A terminal has one output.
    terminal: bool,
}

impl Markers {
    pub fn new(marker: &str, terminal: bool) -> Self {
        Self { marker: marker.into(), held: [Vec::new(), Vec::new()], found: [None, None], terminal }
    }

    /// The program's status, once all of its output has come.
    pub fn end(&self) -> Option<i32> {
        self.found[0].filter(|_| self.terminal || self.found[1].is_some())
    }

    /// What of an output's bytes is the program's.
    pub fn pass(&mut self, source: Source, bytes: &[u8]) -> Vec<u8> {
        let n = source as usize;
        if self.found[n].is_some() {
            return Vec::new();
        }
        let held = &mut self.held[n];
        held.extend(bytes);
        let found = held.windows(self.marker.len()).position(|window| window == self.marker);
        if let Some(at) = found {
            let behind = &held[at + self.marker.len()..];
            if let Some(end) = behind.iter().position(|byte| *byte == b'\n') {
                let digits = String::from_utf8_lossy(&behind[..end]);
                self.found[n] = Some(digits.trim().parse().unwrap_or(-1));
            }
            // The status may still be on its way.
            return held.drain(..at).collect();
        }
        let starts = |at: &usize| self.marker.starts_with(&held[*at..]);
        let from = held.len().saturating_sub(self.marker.len() - 1);
        let keep = (from..held.len()).find(starts).unwrap_or(held.len());
        held.drain(..keep).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest86::call::Size;

    #[test]
    fn markers_are_found_however_they_are_cut() {
        let stream = b"output M and MARK and\nMARK-123\nlater";
        for len in 1..stream.len() {
            let mut markers = Markers::new("MARK-", false);
            let mut seen = Vec::new();
            for piece in stream.chunks(len) {
                seen.extend(markers.pass(Source::Stdout, piece));
            }
            assert_eq!(seen, b"output M and MARK and\n", "{len}");
            assert_eq!(markers.end(), None);
            assert_eq!(markers.pass(Source::Stderr, b"MARK-0\r\n"), b"");
            assert_eq!(markers.end(), Some(123));
        }
        let mut markers = Markers::new("MARK-", true);
        assert_eq!(markers.pass(Source::Stdout, b"MARK-7\r\n"), b"");
        assert_eq!(markers.end(), Some(7));
    }

    #[test]
    #[cfg(unix)]
    fn the_shell_does_what_the_service_has_not() {
        let exec = Exec {
            program: "sh".into(),
            args: vec!["-c".into(), "echo \"$A\" $PWD; echo bad >&2; exit 3".into()],
            env: vec![("A".into(), "it's $B".into())],
            dir: Some("/tmp".into()),
            ..Exec::default()
        };
        let run = wrapped(&exec, "MARK-").unwrap();
        let mut args = run.args.unwrap();
        args[1] = args[1].replace(&format!("sleep {STAYS}"), "true");
        let output = std::process::Command::new(run.name).args(args).output().unwrap();
        let mut markers = Markers::new("MARK-", false);
        assert_eq!(markers.pass(Source::Stdout, &output.stdout), b"it's $B /tmp\n");
        assert_eq!(markers.pass(Source::Stderr, &output.stderr), b"bad\n");
        assert_eq!(markers.end(), Some(3));
        let terminal = Some(Size { rows: 3, columns: 4 });
        assert!(wrapped(&Exec { terminal, ..exec.clone() }, "M").unwrap().pty);
        assert_eq!(wrapped(&Exec { user: Some("ann".into()), ..exec }, "M"), None);
    }
}
