//! The `env86` command.

mod cli;

fn main() -> std::process::ExitCode {
    #[cfg(unix)]
    env86::level::take_newer();
    cli::main()
}
