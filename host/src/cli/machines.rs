//! Machines that stay: each has a process of its own, and is reached by its name.

use std::env;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Arg, Args, Subcommand, ValueEnum};
use env86::console::attach::Steering;
use env86::machine::Drive;
use env86::named::{self, Client, Listed, Name, NamedError, Now, Place, Refusal, State};
use serde::Serialize;

use super::boot::{Boot, Served};
use super::command::{self, Flags};
use super::size::age;
use super::{CliError, Outcome, print};

/// The commands for machines with names.
#[derive(Subcommand, Debug)]
pub enum Machines {
    Start(Box<Start>),
    /// List the machines that have names
    Ps {
        /// As JSON: a list of objects with the keys name, state (running, paused, busy, gone), pid, started (seconds
        /// since 1970), memory (bytes), instructions and image
        #[arg(long)]
        json: bool,
    },
    Exec(Box<Exec>),
    /// Copy a file from a machine, or into one
    ///
    /// One of both is NAME:PATH, where the path is the guest's; `-` is standard input or output. A file that is
    /// copied into a directory keeps its name.
    Cp {
        /// What is copied
        #[arg(value_name = "[NAME:]SRC", allow_hyphen_values = true)]
        from: String,
        /// Where to
        #[arg(value_name = "[NAME:]DST", allow_hyphen_values = true)]
        to: String,
    },
    /// Print what a machine has said at COM1, the last half a megabyte of it at least
    Logs {
        /// What its process has said, instead: the guest's I/O errors, for example
        #[arg(long)]
        messages: bool,
        /// The machine
        name: String,
    },
    /// Save a machine, which goes on
    Save {
        /// The machine
        name: String,
        /// The file, compressed if its name ends in .zst; else the machine's image, to be resumed by the next start
        file: Option<PathBuf>,
    },
    /// Stop executing; the guest's time stands still
    Pause {
        /// The machine
        name: String,
    },
    /// Go on executing
    Resume {
        /// The machine
        name: String,
    },
    /// Put the medium in a file into a drive
    Insert {
        /// The machine
        name: String,
        /// The drive
        drive: DriveName,
        /// The image of a disc or a floppy disk
        file: PathBuf,
    },
    /// Take the medium out of a drive
    Eject {
        /// The machine
        name: String,
        /// The drive
        drive: DriveName,
    },
    /// End machines, as pulling the plug does; one that was started with --save is saved before
    Stop {
        /// The machines
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// Forget machines that have ended, with what they have said
    Rm {
        /// End those that run
        #[arg(short, long)]
        force: bool,
        /// The machines
        #[arg(required = true)]
        name: Vec<String>,
    },
}

/// A drive whose medium can be changed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DriveName {
    /// The CD-ROM drive
    Cdrom,
    /// The first floppy drive
    Fda,
    /// The second floppy drive
    Fdb,
}

impl From<DriveName> for Drive {
    fn from(name: DriveName) -> Self {
        match name {
            DriveName::Cdrom => Self::Cdrom,
            DriveName::Fda => Self::Fda,
            DriveName::Fdb => Self::Fdb,
        }
    }
}

impl Machines {
    /// Does it.
    pub fn run(self) -> Result<Outcome, CliError> {
        match self {
            Self::Start(start) => return start.run(),
            Self::Exec(exec) => return exec.run(),
            Self::Ps { json } => ps(json)?,
            Self::Cp { from, to } => cp(&from, &to)?,
            Self::Logs { messages, name } => {
                let name = Name::new(&name)?;
                let said = if messages { name.messages()? } else { name.log()? };
                print(&said)?;
            }
            Self::Save { name, file } => {
                let saved = client(&name)?.save(file.as_deref())?;
                eprintln!("env86: the machine is saved in {} ({} bytes)", saved.path, saved.size);
            }
            Self::Pause { name } => client(&name)?.pause()?,
            Self::Resume { name } => client(&name)?.resume()?,
            Self::Insert { name, drive, file } => client(&name)?.change_medium(drive.into(), Some(&file))?,
            Self::Eject { name, drive } => client(&name)?.change_medium(drive.into(), None)?,
            Self::Stop { name } => {
                for name in name {
                    client(&name)?.stop()?;
                }
            }
            Self::Rm { force, name } => {
                for name in name {
                    let name = Name::new(&name)?;
                    match name.remove() {
                        Err(NamedError::Runs(_)) if force => {
                            Client::connect(&name)?.stop()?;
                            match name.remove() {
                                // One in the foreground has taken its name along.
                                Ok(()) | Err(NamedError::Unknown(_)) => {}
                                Err(error) => return Err(error.into()),
                            }
                        }
                        removed => removed?,
                    }
                }
            }
        }
        Ok(Outcome::SUCCESS)
    }
}

fn client(name: &str) -> Result<Client, NamedError> {
    Client::connect(&Name::new(name)?)
}

/// Start a machine in the background.
///
/// It resumes its image's saved state, or boots, and goes on until it ends or is ended with `env86 stop`. Its name is
/// printed when it can be reached: by `env86 exec NAME COMMAND` and the other commands for machines with names.
#[derive(Args, Debug)]
#[command(mut_args(hide))]
pub struct Start {
    #[command(flatten)]
    boot: Boot,

    /// This is the process that is the machine's
    #[arg(long, hide = true)]
    detached: bool,
}

/// What `boot` has for the person in front of it.
fn hide(arg: Arg) -> Arg {
    const FOR_A_PERSON: [&str; 13] = [
        "serial",
        "tty",
        "layout",
        "no_console",
        "no_keyboard",
        "no_mouse",
        "scale",
        "fullscreen",
        "square_pixels",
        "deterministic",
        "script",
        "stats",
        "no_audio",
    ];
    let hidden = FOR_A_PERSON.contains(&arg.get_id().as_str());
    if hidden { arg.hide(true) } else { arg }
}

impl Start {
    fn run(mut self) -> Result<Outcome, CliError> {
        if let Some(flag) = self.boot.needs_a_terminal() {
            return Err(format!(
                "A machine in the background has no terminal for {flag}; use `env86 boot --name NAME {flag}`"
            )
            .into());
        }
        if !self.detached {
            return in_background();
        }
        named::leave_terminal()?;
        let origin = self.boot.origin();
        let place = match self.boot.name() {
            Some(name) => Place::take(name, origin)?,
            None => Place::take_like(&Name::suggestion(origin), origin)?,
        };
        let name = place.name().clone();
        let messages = place.messages()?;
        self.boot.without_console();
        self.boot.run_at(Some(place), move |served: &mut Served| {
            // From now on the one who has started it does not wait, and reads nothing more.
            let mut stdout = io::stdout();
            writeln!(stdout, "{name}")?;
            stdout.flush()?;
            named::redirect_output(&messages)?;
            served.stay();
            Ok(())
        })
    }
}

/// Starts the process that is the machine's, and waits until it can be reached.
fn in_background() -> Result<Outcome, CliError> {
    let mut process = Command::new(env::current_exe()?)
        .args(["start", "--detached"])
        .args(env::args_os().skip(2))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut name = String::new();
    if let Some(stdout) = &mut process.stdout {
        stdout.read_to_string(&mut name)?;
    }
    if name.is_empty() {
        // It has said why.
        let status = process.wait()?.code().and_then(|code| u8::try_from(code).ok());
        return Ok(Outcome(status.filter(|status| *status != 0).unwrap_or(1)));
    }
    print(name.as_bytes())?;
    Ok(Outcome::SUCCESS)
}

/// Run a command in a machine that runs, as if it were a local one.
///
/// Standard input and output, signals and the program's status are as with `env86 run`. The machine goes on
/// afterwards; the second signal leaves the command alone with a hang-up.
#[derive(Args, Debug)]
pub struct Exec {
    #[command(flatten)]
    flags: Flags,

    /// The machine
    name: String,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    fn run(self) -> Result<Outcome, CliError> {
        let (exec, options) = self.flags.exec(&self.command)?;
        match client(&self.name)?.exec(exec) {
            Ok(process) => {
                let steering = process.steering();
                Ok(command::carry(process, move || steering.hang_up(), options)?)
            }
            Err(NamedError::Refused(error @ Refusal { not_started: Some(missing), .. })) => {
                Ok(command::not_started(&error, missing))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A machine of the list, for programs.
#[derive(Serialize)]
struct Row<'a> {
    name: String,
    state: &'static str,
    pid: u32,
    started: u64,
    memory: Option<u64>,
    instructions: Option<u64>,
    image: &'a str,
}

impl<'a> Row<'a> {
    fn new(machine: &'a Listed) -> Self {
        let (state, now) = match machine.state {
            State::Here(now @ Now { paused: true, .. }) => ("paused", Some(now)),
            State::Here(now) => ("running", Some(now)),
            State::Busy => ("busy", None),
            State::Gone => ("gone", None),
        };
        Self {
            name: machine.name.to_string(),
            state,
            pid: machine.description.pid,
            started: machine.description.started,
            memory: now.map(|now| now.memory),
            instructions: now.map(|now| now.instructions),
            image: &machine.description.image,
        }
    }
}

fn ps(json: bool) -> Result<(), CliError> {
    let machines = named::list()?;
    let rows: Vec<_> = machines.iter().map(Row::new).collect();
    if json {
        print(format!("{}\n", serde_json::to_string_pretty(&rows)?).as_bytes())?;
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("NAME".len());
    let mut text =
        format!("{:width$}  {:7}  {:>8}  {:>8}  {:>6}  IMAGE\n", "NAME", "STATE", "PID", "STARTED", "MEMORY");
    for row in rows {
        let memory = row.memory.map(|bytes| format!("{}M", bytes >> 20)).unwrap_or_default();
        let age = age(now.saturating_sub(row.started));
        text += &format!(
            "{:width$}  {:7}  {:>8}  {age:>8}  {memory:>6}  {}\n",
            row.name, row.state, row.pid, row.image
        );
    }
    print(text.as_bytes())?;
    Ok(())
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    /// A file of a machine's.
    There(&'a str, &'a str),
    /// A file here.
    Here(&'a Path),
    /// Standard input or output.
    Stream,
}

impl<'a> Side<'a> {
    fn new(word: &'a str) -> Self {
        match word.split_once(':') {
            _ if word == "-" => Self::Stream,
            // A path here that has a colon is written with a slash.
            Some((name, path)) if !name.contains('/') && !name.is_empty() => Self::There(name, path),
            _ => Self::Here(Path::new(word)),
        }
    }
}

fn cp(from: &str, to: &str) -> Result<(), CliError> {
    match (Side::new(from), Side::new(to)) {
        (Side::There(name, path), Side::Here(to)) => {
            let last = Path::new(path).file_name().ok_or("Name a file of the guest's to copy")?;
            let to = if to.is_dir() { to.join(last) } else { to.into() };
            client(name)?.download(path, &to)?;
        }
        (Side::There(name, path), Side::Stream) => {
            client(name)?.get(path, &mut io::stdout())?;
            io::stdout().flush()?;
        }
        (Side::Here(from), Side::There(name, path)) => client(name)?.upload(from, path)?,
        (Side::Stream, Side::There(name, path)) => client(name)?.upload_from(&mut io::stdin(), path)?,
        _ => {
            return Err(
                "One side of a copy is NAME:PATH, with a machine's name; the other one is here".into()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_of_a_copy_is_there_here_or_a_stream() {
        assert_eq!(Side::new("a:/b:c"), Side::There("a", "/b:c"));
        assert_eq!(Side::new("a:b"), Side::There("a", "b"));
        for here in ["a", "/a:b", "./a:b", ":a"] {
            assert_eq!(Side::new(here), Side::Here(Path::new(here)));
        }
        assert_eq!(Side::new("-"), Side::Stream);
        assert!(cp("a", "b").is_err() && cp("a:b", "c:d").is_err() && cp("-", "-").is_err());
    }
}
