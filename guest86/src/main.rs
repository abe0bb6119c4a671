//! The service inside an env86 guest: commands, files and connections for the host.
//!
//! ```text
//! guest86            serves hosts at the port of the virtio console that is its own, and at /dev/ttyS1
//! guest86 LINE       serves the host at this line
//! guest86 init       is process 1, and starts the service; so is it whatever it is called with, if it is process 1
//! guest86 --version
//! ```
//!
//! An init system starts the service, and starts it again if it should end. It says nothing by itself. A system that
//! has no init has this program for one: `init=/sbin/guest86` on the kernel's command line.

#[cfg(target_os = "linux")]
mod init;

#[cfg(target_os = "linux")]
mod service;

/// The allocator of the C library that this program is linked with returns the memory of each piece of data to the
/// kernel and asks for it again with the next one, which took nine tenths of the time of a transfer.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    let given = std::env::args_os().nth(1);
    let is = |word: &str| given.as_ref().is_some_and(|given| given == word);
    if is("--version") {
        println!("{}", service::version());
        return ExitCode::SUCCESS;
    }
    // The kernel gives process 1 the words of its command line that it does not know.
    if std::process::id() == 1 {
        init::run();
    }
    if is(init::DEVICES) {
        init::devices();
        return ExitCode::SUCCESS;
    }
    if is("init") {
        eprintln!("guest86: only process 1 can be init; start the kernel with init=/sbin/guest86");
        return ExitCode::FAILURE;
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
