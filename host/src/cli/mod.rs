//! The command line.

mod argv;
mod boot;
mod build;
mod command;
mod create;
mod images;
mod kernel;
mod log;
#[cfg(unix)]
mod machines;
mod modules;
#[cfg(feature = "net")]
mod net;
#[cfg(feature = "net")]
mod network;
mod offline;
mod page;
#[cfg(feature = "net")]
mod pages;
mod prepare;
mod progress;
#[cfg(feature = "pull")]
mod pull;
mod remedy;
mod run;
mod serve;
mod service;
mod single;
mod size;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use env86::image::Image;

/// What a command fails with: the chain of its sources is shown to the user.
type CliError = Box<dyn std::error::Error + Send + Sync>;

/// What the environment can say.
const ENVIRONMENT: &str = "\
Environment:
  ENV86_PATH  Where global images are, instead of ~/.env86
  ENV86_LOG   Which parts log to stderr, and how much: debug, or pit=trace,9p=debug";

/// A PC that fits in a file.
#[derive(Parser, Debug)]
#[command(
    name = "env86",
    disable_version_flag = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = ENVIRONMENT
)]
pub struct Cli {
    /// Print the version
    #[arg(short = 'v', long)]
    version: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    Boot(Box<boot::Boot>),
    Build(build::Build),
    Create(create::Create),
    #[cfg(feature = "net")]
    Network(network::Network),
    Run(Box<run::Run>),
    Prepare(prepare::Prepare),
    #[cfg(feature = "pull")]
    Pull(pull::Pull),
    #[cfg(feature = "pull")]
    Push(pull::Push),
    Serve(serve::Serve),
    #[command(flatten)]
    Images(images::Images),
    #[cfg(unix)]
    #[command(flatten)]
    Machines(machines::Machines),
    /// Machines with names
    #[cfg(not(unix))]
    #[command(name = "start", hide = true, aliases = ["ps", "exec", "cp", "logs", "save", "pause", "resume",
        "insert", "eject", "stop", "rm"])]
    Machines {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// How a command that did its work ends the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome(u8);

impl Outcome {
    /// Exit status 0.
    const SUCCESS: Self = Self(0);
}

/// Runs the command that the program's arguments ask for.
pub fn main() -> ExitCode {
    log::start();
    let args = env::args_os().skip(1);
    // A command's status is its own: that of a failure before it must be another.
    let failure = match env::args_os().nth(1).is_some_and(|word| word == "run" || word == "exec") {
        true => ExitCode::from(command::FAILED),
        false => ExitCode::FAILURE,
    };
    let words = std::iter::once("env86".into()).chain(argv::normalise(args, &Cli::command()));
    let parsed = Cli::command().try_get_matches_from(words).and_then(|m| Cli::from_arg_matches(&m));
    let result = match parsed {
        Ok(cli) => cli.run(),
        Err(error) => return usage(&error, failure),
    };
    match result {
        Ok(Outcome(status)) => status.into(),
        Err(error) => {
            let remedy = remedy::of(&*error).map(|remedy| format!("; {remedy}")).unwrap_or_default();
            eprintln!("env86: {}{remedy}", chain(&*error));
            failure
        }
    }
}

impl Cli {
    fn run(self) -> Result<Outcome, CliError> {
        if self.version {
            println!("{}", env!("CARGO_PKG_VERSION"));
            return Ok(Outcome::SUCCESS);
        }
        match self.command {
            Some(Command::Boot(boot)) => boot.run(),
            Some(Command::Build(build)) => build.run(),
            Some(Command::Create(create)) => create.run(),
            #[cfg(feature = "net")]
            Some(Command::Network(network)) => network.run(),
            Some(Command::Run(run)) => run.run(),
            Some(Command::Prepare(prepare)) => prepare.run(),
            #[cfg(feature = "pull")]
            Some(Command::Pull(pull)) => pull.run(),
            #[cfg(feature = "pull")]
            Some(Command::Push(push)) => push.run(),
            Some(Command::Serve(serve)) => serve.run(),
            Some(Command::Images(images)) => images.run(),
            #[cfg(unix)]
            Some(Command::Machines(machines)) => machines.run(),
            #[cfg(not(unix))]
            Some(Command::Machines { words: _ }) => {
                Err("Machines have names on Unix systems only; use `env86 run` or `env86 boot`".into())
            }
            None => Err("No command given; see env86 --help".into()),
        }
    }
}

/// Opens the image that a machine is of.
fn open_machines_image(arg: &str) -> Result<Image, CliError> {
    #[cfg(feature = "pull")]
    return pull::open_or_pull(arg);
    #[cfg(not(feature = "pull"))]
    Ok(Image::open_arg(arg)?)
}

/// Writes to standard output. A reader that has seen enough is no error.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes JSON for programs to standard output.
fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    Ok(print(format!("{}\n", serde_json::to_string_pretty(value)?).as_bytes())?)
}

/// Help, or a complaint about the arguments: both go to stderr, and only help is a success.
fn usage(error: &clap::Error, failure: ExitCode) -> ExitCode {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{text}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("env86: {}", text.strip_prefix("error: ").unwrap_or(&text));
            failure
        }
    }
}

/// An error with its sources on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
