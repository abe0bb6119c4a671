//! The service inside an env86 guest: commands, files and connections for the host.
//!
//! ```text
//! guest86            serves hosts at the port of the virtio console that is its own, and at /dev/ttyS1
//! guest86 LINE       serves the host at this line
//! guest86 --version
//! ```
//!
//! An init system starts it, and starts it again if it should end. It says nothing by itself.

#[cfg(target_os = "linux")]
mod service;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    let given = std::env::args_os().nth(1);
    if given.as_ref().is_some_and(|word| word == "--version") {
        println!("{}", service::version());
        return ExitCode::SUCCESS;
    }
    let lines = given.map_or_else(service::lines, |line| vec![line.into()]);
    match service::serve(lines) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest86: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("guest86: this is the service of Linux guests");
}
