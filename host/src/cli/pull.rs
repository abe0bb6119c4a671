//! `env86 pull`: an image from a web server.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::image::Watch;
use env86::image::global::{GlobalImages, GlobalName};
use env86::image::pull::{Puller, Reference};

use super::progress::Bar;
use super::size::parse_size;
use super::{CliError, Outcome, print};

/// Pull an image from a web server.
///
/// An image of a repository's releases is called github.com/OWNER/REPO@TAG, and the latest one is meant without a tag;
/// one at a URL is called after the archive. The name is printed. A download that was broken off goes on where it was.
#[derive(Args, Debug)]
pub struct Pull {
    /// Refuse an archive with another SHA-256; without this, URL.sha256 counts, if the server has it
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,

    /// Refuse an image whose archive or files have more bytes
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "16G")]
    max_size: u64,

    /// github.com/OWNER/REPO[@TAG], or the URL of a .tgz file
    #[arg(value_name = "REPO[@TAG]|URL")]
    from: String,

    /// Another name for it; without a tag it is called `local`
    #[arg(value_name = "NAME[@TAG]")]
    name: Option<String>,
}

impl Pull {
    /// Pulls it.
    pub fn run(self) -> Result<Outcome, CliError> {
        let from = Reference::new(&self.from)?;
        let name = self.name.as_deref().map(GlobalName::new).transpose()?;
        let interrupt = Arc::new(AtomicBool::new(false));
        flag_when_interrupted(&interrupt)?;
        let puller =
            Puller { sha256: self.sha256, limit: self.max_size, ..Puller::new(GlobalImages::new()?) };
        let bar = Bar::new();
        let pulled = puller.pull(&from, name, &Watch { progress: &bar, interrupt: &interrupt });
        bar.clear();
        let pulled = pulled?;
        match &pulled.sha256 {
            Some(sum) => eprintln!("env86: the archive's SHA-256 is {sum}"),
            None => eprintln!("env86: it was here already"),
        }
        print(format!("{}\n", pulled.name).as_bytes())?;
        Ok(Outcome::SUCCESS)
    }
}
