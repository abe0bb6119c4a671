//! The processor compared with the host's, for hours: `cli` says with which options.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod cli;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("Only Linux on x86-64 runs the cases: this host's processor has another instruction set");
    std::process::ExitCode::from(2)
}
