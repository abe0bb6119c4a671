//! The service inside an env86 guest: commands, files and connections for the host, over a serial line.
//!
//! ```text
//! guest86 [LINE]     serves the host at this line, /dev/ttyS1 if none is given
//! guest86 init       is process 1, and starts the service; so is it whatever it is called with, if it is process 1
//! ```
//!
//! An init system starts the service, and starts it again if it should end. It says nothing by itself. A system that
//! has no init has this program for one: `init=/sbin/guest86` on the kernel's command line.

#[cfg(target_os = "linux")]
mod init;

#[cfg(target_os = "linux")]
mod service;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    let line = std::env::args_os().nth(1).unwrap_or_else(|| init::LINE.into());
    if line == "--version" {
        println!("{}", service::version());
        return ExitCode::SUCCESS;
    }
    // The kernel gives process 1 the words of its command line that it does not know.
    if std::process::id() == 1 {
        init::run();
    }
    if line == init::DEVICES {
        init::devices();
        return ExitCode::SUCCESS;
    }
    if line == "init" {
        eprintln!("guest86: only process 1 can be init; start the kernel with init=/sbin/guest86");
        return ExitCode::FAILURE;
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
