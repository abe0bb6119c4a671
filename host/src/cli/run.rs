//! `env86 run`: a command in a machine, as if it were a local one.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use env86::guest::{Guest, GuestError};
use env86::image::{Image, container};
use env86::machine::{Machine, MachineError};

use super::command::{self, Flags};
use super::kernel::KernelFlags;
use super::size::{parse_duration, parse_size};
use super::{CliError, Outcome, open_machines_image};

/// Time between looks whether the guest rests. A shell that has asked its terminal something waits 0.3 s for the answer.
const LOOK: Duration = Duration::from_secs(1);
/// A guest that executes fewer instructions in that time rests.
const REST: u64 = 2_000_000;
/// How long a rest is waited for.
const UNREST: Duration = Duration::from_secs(10);

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

    #[command(flatten)]
    kernel: KernelFlags,

    #[command(flatten)]
    flags: Flags,

    /// Mount a folder of this host at a directory of the guest; with `:ro`, the guest cannot change it
    #[arg(short, long = "mount", value_name = "SRC:DST[:ro]", value_parser = parse_mount)]
    mount: Vec<Mount>,

    #[cfg(feature = "net")]
    #[command(flatten)]
    net: super::net::Net,

    /// How long the guest may take until it runs commands
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    boot_timeout: Duration,

    /// An image: the path of a directory or .tgz file, the name of a global image, NAME[@TAG], or one of a registry,
    /// HOST/NAME:TAG, which is pulled if it is not here
    image: String,

    /// The command and its arguments; without them, those that the image was built for, as a container
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Run {
    /// Runs the command to its end.
    pub fn run(self) -> Result<Outcome, CliError> {
        // A path, whatever it looks like, as the Go program takes it; or a global image.
        let image = match Path::new(&self.image).exists() {
            true => Image::open(&self.image)?,
            false => open_machines_image(&self.image)?,
        };
        if !image.config.has_guest_service {
            return Err(NoService(image.path().into()).into());
        }
        let own = container::command(&image.config);
        let command = if self.command.is_empty() { &own } else { &self.command };
        if command.is_empty() {
            return Err("the image has no command of its own; write one behind it".into());
        }
        let (exec, options) = self.flags.exec(command)?;
        let exec = container::configured(exec, &image.config);
        let machine = self.machine(&image, options.terminal)?;
        let guest = machine.guest_within(self.boot_timeout)?;
        if self.save {
            warm_up(&guest);
            wait_for_rest(&machine)?;
            let size = machine.save_to(&image)?;
            eprintln!("env86: the machine is saved in {} ({size} bytes)", image.path().display());
        }
        #[cfg(feature = "net")]
        if self.net.connected() {
            let failed = |error: GuestError| format!("The guest finds no address on its network: {error}");
            self.net.say_ports(&machine);
            guest.reset_network().map_err(failed)?;
        }
        for mount in &self.mount {
            mount.at(&guest)?;
        }
        let outcome = match guest.exec(exec).spawn() {
            Ok(child) => {
                let controls = machine.controls();
                command::carry(child, move || controls.end(), options).map_err(CliError::from)
            }
            Err(error @ GuestError::Start { missing, .. }) => Ok(command::not_started(&error, missing)),
            Err(error) => Err(error.into()),
        };
        machine.stop()?;
        outcome
    }

    /// The machine: resumed, or on its way up. What it says of its network is for a raw terminal, or for any reader.
    #[cfg_attr(not(feature = "net"), allow(unused_variables))]
    fn machine(&self, image: &Image, raw_terminal: bool) -> Result<Machine, CliError> {
        let mut builder = self.kernel.add_to(Machine::builder().image(image).no_restart())?;
        if self.cold {
            builder = builder.cold();
        }
        if let Some(bytes) = self.memory {
            builder = builder.memory(bytes);
        }
        #[cfg(feature = "net")]
        {
            builder = self.net.add_to(builder, raw_terminal);
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
}

/// Has the guest run a program once: what every program needs of its files (the shell, the dynamic linker, the C
/// library) is in its memory then, and no machine that resumes the state has to read it. An image may have no shell.
fn warm_up(guest: &Guest) {
    let _ = guest.command("sh").args(["-c", "exec true"]).status();
}

/// Waits until the guest rests: what it still starts behind its service is else done again by each machine that
/// resumes the state. A guest that never rests is saved as it is.
fn wait_for_rest(machine: &Machine) -> Result<(), MachineError> {
    let end = Instant::now() + UNREST;
    let mut before = machine.with(|computer| computer.stats().instructions)?;
    while Instant::now() < end {
        thread::sleep(LOOK);
        let now = machine.with(|computer| computer.stats().instructions)?;
        if now.saturating_sub(before) < REST {
            break;
        }
        before = now;
    }
    Ok(())
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
}
