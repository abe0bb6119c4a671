//! `env86 run`: a command in a machine, as if it were a local one.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use clap::Args;
use env86::console::attach::{Attached, Options, attach};
use env86::console::{session, terminal};
use env86::guest::{Command, Guest, GuestError};
use env86::image::Image;
use env86::machine::Machine;

use super::size::{parse_duration, parse_size};
use super::{CliError, Outcome};

/// Statuses of the program where the command has none, as Docker gives them, and timeout(1).
const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const TIME_OVER: u8 = 124;
/// What a shell shows for a program that wrote into a pipe without a reader: 128 and SIGPIPE.
const NO_READER: u8 = 141;
/// The size of a terminal that no one is at.
const DEFAULT_SIZE: terminal::Size = terminal::Size { rows: 24, columns: 80 };

/// Run a command in a machine, as if it were a local one.
///
/// The machine resumes the image's saved state, or boots. The command has its standard input and output here
/// and runs as root; the program ends with its status, with 128 and the number of a signal that ended it, with
/// 127 or 126 if it cannot be found or started, or with 125 if it did not come to that. The machine is gone
/// afterwards, with all that was changed in it.
#[derive(Args, Debug)]
pub struct Run {
    /// Boot anew, even if the image holds a saved state
    #[arg(long)]
    cold: bool,

    /// Before the command starts, save the machine to the image, so that the next one starts at once
    #[arg(long)]
    save: bool,

    /// Guest memory, such as 512M or 1G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,

    /// Set a variable of the command's environment; without a value, to what it is here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// Read variables from this file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Where the command works, instead of its user's home
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// Who runs the command: a name or number, and perhaps a group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Mount a folder of this host at a directory of the guest; with `:ro`, the guest cannot change it
    #[arg(short, long = "mount", value_name = "SRC:DST[:ro]", value_parser = parse_mount)]
    mount: Vec<Mount>,

    /// Standard input is the command's; it is by default
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    interactive: Option<bool>,

    /// The command has a terminal; by default, if standard input and output are one
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,

    /// End the command after that long, such as 30s or 5m, with status 124
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,

    #[cfg(feature = "net")]
    #[command(flatten)]
    net: super::net::Net,

    /// How long the guest may take until it runs commands
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    boot_timeout: Duration,

    /// An image: the path of a directory or .tgz file, or the name of a global image, NAME[@TAG]
    image: String,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Run {
    /// The program's status if it fails before there is a command that could give one.
    pub const FAILED: u8 = FAILED;

    /// Runs the command to its end.
    pub fn run(self) -> Result<Outcome, CliError> {
        let variables = self.variables()?;
        // A path, whatever it looks like, as the Go program takes it; or a global image.
        let image = match Path::new(&self.image).exists() {
            true => Image::open(&self.image)?,
            false => Image::open_arg(&self.image)?,
        };
        if !image.config.has_guest_service {
            return Err(NoService(image.path().into()).into());
        }
        let machine = self.machine(&image)?;
        let guest = machine.guest_within(self.boot_timeout)?;
        if self.save {
            let size = machine.save_to(&image)?;
            eprintln!("env86: the machine is saved in {} ({size} bytes)", image.path().display());
        }
        #[cfg(feature = "net")]
        if self.net.connected() {
            let failed = |error: GuestError| format!("The guest finds no address on its network: {error}");
            guest.reset_network().map_err(failed)?;
            self.net.say_ports(&machine);
        }
        for mount in &self.mount {
            mount.at(&guest)?;
        }
        let mut command = guest.command(&self.command[0]);
        command.args(&self.command[1..]);
        for (key, value) in variables {
            command.env(key, value);
        }
        if let Some(dir) = &self.workdir {
            command.current_dir(dir);
        }
        if let Some(user) = &self.user {
            command.user(user);
        }
        let input = self.interactive.unwrap_or(true);
        let here = || terminal::stdin_is_terminal() && io::stdout().is_terminal();
        let has_terminal = self.tty.unwrap_or_else(|| input && here());
        if has_terminal {
            let size = terminal::size().unwrap_or(DEFAULT_SIZE);
            command.terminal(size.rows, size.columns);
        }
        let outcome =
            self.attach(&machine, &command, Options { input, terminal: has_terminal, limit: self.timeout });
        machine.stop()?;
        outcome
    }

    fn attach(&self, machine: &Machine, command: &Command, options: Options) -> Result<Outcome, CliError> {
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error @ GuestError::Start { missing, .. }) => {
                eprintln!("env86: {error}");
                return Ok(Outcome(if missing { NOT_FOUND } else { NOT_EXECUTABLE }));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Outcome(match attach(child, &machine.controls(), options)? {
            Attached::Ended(status) => status.shell_status(),
            Attached::TimeOver => TIME_OVER,
            Attached::Interrupted(number) => session::exit_status(number),
            Attached::NoReader => NO_READER,
        }))
    }

    /// The machine: resumed, or on its way up.
    fn machine(&self, image: &Image) -> Result<Machine, CliError> {
        let mut builder = Machine::builder().image(image).no_restart();
        if self.cold {
            builder = builder.cold();
        }
        if let Some(bytes) = self.memory {
            builder = builder.memory(bytes);
        }
        #[cfg(feature = "net")]
        {
            builder = self.net.add_to(builder);
        }
        if builder.state_files()?.is_none() {
            let hint = if self.save { "" } else { " (--save keeps it ready for the next time)" };
            eprintln!("env86: {} has to boot first{hint} ...", image.path().display());
            let start = Instant::now();
            let machine = builder.start()?;
            machine.guest_within(self.boot_timeout)?;
            eprintln!("env86: ready after {:.1} s", start.elapsed().as_secs_f64());
            return Ok(machine);
        }
        Ok(builder.start()?)
    }

    /// The variables of the environment that were asked for, in their order.
    fn variables(&self) -> Result<Vec<(String, String)>, CliError> {
        let mut variables = Vec::new();
        for path in &self.env_file {
            let text = fs::read_to_string(path)
                .map_err(|error| format!("Cannot read the variables in `{}`: {error}", path.display()))?;
            let lines = text.lines().map(str::trim_start);
            variables
                .extend(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).filter_map(variable));
        }
        variables.extend(self.env.iter().filter_map(|word| variable(word)));
        Ok(variables)
    }
}

/// `NAME=VALUE`, or a name whose value is what it is here, if it is set.
fn variable(word: &str) -> Option<(String, String)> {
    match word.split_once('=') {
        Some((name, value)) => Some((name.into(), value.into())),
        None => env::var(word).ok().map(|value| (word.into(), value)),
    }
}

/// A folder of the host, and where the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    folder: PathBuf,
    at: String,
    read_only: bool,
}

impl Mount {
    #[cfg(unix)]
    fn at(&self, guest: &Guest) -> Result<(), CliError> {
        let failed = |error: GuestError| format!("Cannot mount `{}`: {error}", self.folder.display());
        Ok(guest.mount(&self.folder, &*self.at, self.read_only).map_err(failed)?)
    }

    #[cfg(not(unix))]
    fn at(&self, _: &Guest) -> Result<(), CliError> {
        Err("Folders can only be mounted from Unix systems; copy what is needed".into())
    }
}

/// `SRC:DST` or `SRC:DST:ro`
fn parse_mount(text: &str) -> Result<Mount, String> {
    let (folder, at) = text.split_once(':').ok_or("write a mount as SRC:DST or SRC:DST:ro")?;
    let (at, read_only) = match at.strip_suffix(":ro") {
        Some(at) => (at, true),
        None => (at.strip_suffix(":rw").unwrap_or(at), false),
    };
    if folder.is_empty() || !at.starts_with('/') {
        return Err("write a mount as SRC:DST or SRC:DST:ro, with a DST that begins with /".into());
    }
    Ok(Mount { folder: folder.into(), at: at.into(), read_only })
}

/// An image without the service.
#[derive(Debug)]
pub struct NoService(PathBuf);

impl std::fmt::Display for NoService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "The image `{}` does not say that it runs guest86, which starts commands", self.0.display())
    }
}

impl std::error::Error for NoService {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_two_sides() {
        let mount =
            |folder: &str, at: &str, read_only| Mount { folder: folder.into(), at: at.into(), read_only };
        assert_eq!(parse_mount(".:/w"), Ok(mount(".", "/w", false)));
        assert_eq!(parse_mount("/a b:/w:ro"), Ok(mount("/a b", "/w", true)));
        assert_eq!(parse_mount("a:/b:c"), Ok(mount("a", "/b:c", false)));
        for text in ["", "a", ":/w", "a:", "a:w"] {
            assert!(parse_mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_has_a_value_or_the_one_that_it_has_here() {
        assert_eq!(variable("A=b=c"), Some(("A".into(), "b=c".into())));
        assert_eq!(variable("A="), Some(("A".into(), String::new())));
        assert_eq!(variable("ENV86_NO_SUCH_VARIABLE"), None);
        assert_eq!(variable("CARGO_PKG_NAME").map(|pair| pair.1), env::var("CARGO_PKG_NAME").ok());
    }
}
