//! The `env86` command.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
