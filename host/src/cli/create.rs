//! `env86 create`: an image from a directory tree.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::image::create::{Options, Progress, from_dir};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::size::parse_owner;
use super::{CliError, Outcome};

/// Make an image from a directory tree.
#[derive(Args, Debug)]
pub struct Create {
    /// The directory that becomes the guest's root file system; it is left as it is
    #[arg(long, value_name = "DIR")]
    from_dir: Option<PathBuf>,

    /// Give every file this owner and group instead of its own
    #[arg(long, value_name = "UID:GID", value_parser = parse_owner)]
    owner: Option<(u32, u32)>,

    /// The image directory to make
    image: PathBuf,
}

impl Create {
    /// Makes the image.
    pub fn run(&self) -> Result<Outcome, CliError> {
        let Some(source) = &self.from_dir else {
            return Err("Nothing to create from; give --from-dir DIR".into());
        };
        let interrupt = Arc::new(AtomicBool::new(false));
        flag_when_interrupted(&interrupt)?;
        let bar = Bar::new();
        let options =
            Options { progress: &bar, interrupt: &interrupt, owner: self.owner, ..Options::default() };
        let made = from_dir(source, &self.image, &options);
        bar.0.finish_and_clear();
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
        Ok(Outcome::SUCCESS)
    }
}

/// A bar on stderr, shown only on a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = "{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

impl Progress for Bar {
    fn total(&self, bytes: u64) {
        self.0.set_length(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}
