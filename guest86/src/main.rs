//! The service inside an env86 guest: commands, files and connections for the host, over a serial line.
//!
//! ```text
//! guest86 [LINE]     serves the host at this line, /dev/ttyS1 if none is given
//! ```
//!
//! An init system starts it, and starts it again if it should end. It says nothing by itself.

#[cfg(target_os = "linux")]
mod service;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    let line = std::env::args_os().nth(1).unwrap_or_else(|| "/dev/ttyS1".into());
    if line == "--version" {
        println!("{}", service::version());
        return ExitCode::SUCCESS;
    }
    match service::Service::open(line.as_ref()).and_then(service::Service::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest86: {}: {error}", line.display());
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("guest86: this is the service of Linux guests");
}
