//! `env86 create`: an image from a directory tree or a tar archive.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::image::create::{Options, Summary, from_dir, from_tar};

use super::progress::Bar;
use super::size::{parse_owner, parse_size};
use super::{CliError, Outcome};

/// Make an image from a directory tree or a tar archive.
#[derive(Args, Debug)]
pub struct Create {
    /// The directory that becomes the guest's root file system; it is left as it is
    #[arg(long, value_name = "DIR")]
    from_dir: Option<PathBuf>,

    /// A tar archive of it, which may be compressed by gzip or zstd; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "from_dir", allow_hyphen_values = true)]
    from_tar: Option<PathBuf>,

    /// Refuse an archive whose files have more bytes
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "16G")]
    max_size: u64,

    /// Give every file this owner and group instead of its own
    #[arg(long, value_name = "UID:GID", value_parser = parse_owner)]
    owner: Option<(u32, u32)>,

    /// The image directory to make
    image: PathBuf,
}

impl Create {
    /// Makes the image.
    pub fn run(&self) -> Result<Outcome, CliError> {
        let interrupt = Arc::new(AtomicBool::new(false));
        flag_when_interrupted(&interrupt)?;
        let bar = Bar::new();
        let options = Options {
            progress: &bar,
            interrupt: &interrupt,
            owner: self.owner,
            limit: self.max_size,
            ..Options::default()
        };
        let made = self.make(&options);
        bar.clear();
        let made = made?;
        eprintln!(
            "{}: {} entries, {} bytes, {} different files",
            self.image.display(),
            made.entries,
            made.bytes,
            made.blobs
        );
        if made.sockets_skipped > 0 {
            eprintln!("{} sockets were left out: an image cannot hold them", made.sockets_skipped);
        }
        if made.attributes_skipped > 0 {
            eprintln!(
                "The extended attributes of {} files were left out: an image cannot hold them",
                made.attributes_skipped
            );
        }
        Ok(Outcome::SUCCESS)
    }

    fn make(&self, options: &Options) -> Result<Summary, CliError> {
        if let Some(source) = &self.from_dir {
            return Ok(from_dir(source, &self.image, options)?);
        }
        let Some(source) = &self.from_tar else {
            return Err("Nothing to create from; give --from-dir DIR, or --from-tar FILE".into());
        };
        if source == Path::new("-") {
            if io::stdin().is_terminal() {
                return Err(
                    "Standard input is the terminal; pipe a tar archive into it, or name a file".into()
                );
            }
            return Ok(from_tar(io::stdin().lock(), "Standard input", &self.image, options)?);
        }
        let what = format!("`{}`", source.display());
        let file = File::open(source).map_err(|error| format!("Cannot read {what}: {error}"))?;
        options.progress.total(file.metadata()?.len());
        Ok(from_tar(file, &what, &self.image, options)?)
    }
}
