//! The flags and statuses of a command in a guest: `run` and `exec` have them in common.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use clap::Args;
use env86::console::attach::{AttachError, Attached, Options, Program, attach};
use env86::console::{session, terminal};
use env86::guest::{Exec, Size};

use super::size::parse_duration;
use super::{CliError, Outcome};

/// Statuses of the program where the command has none, as Docker gives them, and timeout(1).
pub const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const TIME_OVER: u8 = 124;
/// What a shell shows for a program that wrote into a pipe without a reader: 128 and SIGPIPE.
const NO_READER: u8 = 141;
/// The size of a terminal that no one is at.
const DEFAULT_SIZE: terminal::Size = terminal::Size { rows: 24, columns: 80 };

/// How a command is run.
#[derive(Args, Debug)]
pub struct Flags {
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

    /// Standard input is the command's; it is by default
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    interactive: Option<bool>,

    /// The command has a terminal; by default, if standard input and output are one
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,

    /// End the command after that long, such as 30s or 5m, with status 124
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Flags {
    /// What is to be run, and how it is attached.
    pub fn exec(&self, command: &[String]) -> Result<(Exec, Options), CliError> {
        let input = self.interactive.unwrap_or(true);
        let here = || terminal::stdin_is_terminal() && io::stdout().is_terminal();
        let has_terminal = self.tty.unwrap_or_else(|| input && here());
        let size = has_terminal.then(|| terminal::size().unwrap_or(DEFAULT_SIZE));
        let (program, args) = command.split_first().ok_or("there is no command")?;
        let exec = Exec {
            program: program.clone(),
            args: args.to_vec(),
            env: self.variables()?,
            env_clear: false,
            dir: self.workdir.clone(),
            user: self.user.clone(),
            terminal: size.map(|size| Size { rows: size.rows, columns: size.columns }),
        };
        Ok((exec, Options { input, terminal: has_terminal, limit: self.timeout }))
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

/// What is shown of a command that could not be started, and its status.
pub fn not_started(error: &dyn std::error::Error, missing: bool) -> Outcome {
    eprintln!("env86: {error}");
    Outcome(if missing { NOT_FOUND } else { NOT_EXECUTABLE })
}

/// Attaches a program that runs. `give_up` ends its output, whatever it does.
pub fn carry(
    program: impl Program,
    give_up: impl Fn() + Clone + Send + 'static,
    options: Options,
) -> Result<Outcome, AttachError> {
    Ok(Outcome(match attach(program, give_up, options)? {
        Attached::Ended(status) => status.shell_status(),
        Attached::TimeOver => TIME_OVER,
        Attached::Interrupted(number) => session::exit_status(number),
        Attached::NoReader => NO_READER,
    }))
}

/// `NAME=VALUE`, or a name whose value is what it is here, if it is set.
fn variable(word: &str) -> Option<(String, String)> {
    match word.split_once('=') {
        Some((name, value)) => Some((name.into(), value.into())),
        None => env::var(word).ok().map(|value| (word.into(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_a_value_or_the_one_that_it_has_here() {
        assert_eq!(variable("A=b=c"), Some(("A".into(), "b=c".into())));
        assert_eq!(variable("A="), Some(("A".into(), String::new())));
        assert_eq!(variable("ENV86_NO_SUCH_VARIABLE"), None);
        assert_eq!(variable("CARGO_PKG_NAME").map(|pair| pair.1), env::var("CARGO_PKG_NAME").ok());
    }
}
