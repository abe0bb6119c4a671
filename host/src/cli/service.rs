//! The guest86 that images get, and where it is.

use std::env;
use std::path::PathBuf;

use clap::Args;
use env86::image::service::GuestService;

use super::CliError;

/// The flag for it.
#[derive(Args, Clone, Debug)]
pub struct GuestFlag {
    /// Put guest86, which runs commands in the guest, into the image, and have the kernel start it first; without FILE,
    /// the one that belongs to this program. Container images get that one by themselves, unless they have their own,
    /// or an init for their command
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    with_guest: Option<Option<PathBuf>>,

    /// Put no guest86 into a container image
    #[arg(long, conflicts_with = "with_guest")]
    no_guest: bool,
}

impl GuestFlag {
    /// The guest86 that was asked for.
    pub fn wanted(&self) -> Result<Option<GuestService>, CliError> {
        match &self.with_guest {
            None => Ok(None),
            Some(Some(file)) => Ok(Some(GuestService::new(file)?)),
            Some(None) => own().map(Some).ok_or_else(|| {
                "There is no guest86 beside this program; build it with `make guest`, and name it with --with-guest=FILE"
                    .into()
            }),
        }
    }

    /// The guest86 that a container image gets, whether it was asked for or not.
    pub fn for_container(&self) -> Result<Option<GuestService>, CliError> {
        Ok(self.wanted()?.or_else(|| where_needed().filter(|_| !self.no_guest)))
    }
}

/// The guest86 that container images get without a word, if there is one here.
pub fn where_needed() -> Option<GuestService> {
    Some(own()?.where_needed())
}

/// The guest86 that belongs to this program.
pub fn own() -> Option<GuestService> {
    let program = env::current_exe().and_then(std::fs::canonicalize).ok()?;
    GuestService::beside(program.parent()?)
}
