//! `env86 create`: an image from a directory tree, a tar archive or a container image.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::image::Image;
use env86::image::check::Contents;
use env86::image::create::{Options, Summary, from_dir, from_tar};
use env86::image::room::{Share, shares};
#[cfg(feature = "pull")]
use env86::image::{Watch, global::GlobalImages, oci::Origin, pull::Puller};

#[cfg(feature = "pull")]
use super::kernel::find_kernel;
use super::progress::Bar;
#[cfg(feature = "pull")]
use super::pull;
use super::service::GuestFlag;
use super::size::{parse_owner, parse_size, show_size};
use super::{CliError, Outcome, print};

/// What takes less room than all of it by this is not told of.
const LEAST_SHARE: u64 = 100;

/// Make an image from a directory tree, a tar archive or a container image.
#[derive(Args, Debug)]
pub struct Create {
    /// The directory that becomes the guest's root file system; it is left as it is
    #[arg(long, value_name = "DIR")]
    from_dir: Option<PathBuf>,

    /// A tar archive of it, which may be compressed by gzip or zstd; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "from_dir", allow_hyphen_values = true)]
    from_tar: Option<PathBuf>,

    /// A container image: docker.io/i386/NAME:TAG or oci://HOST/NAME:TAG in a registry, or a directory or tar archive
    /// as `docker save`, `podman save` and skopeo write them
    #[cfg(feature = "pull")]
    #[arg(long, value_name = "REF|DIR|TAR", conflicts_with_all = ["from_dir", "from_tar"])]
    from_oci: Option<String>,

    /// The kernel that a container image gets: a file, or an image that has one
    #[cfg(feature = "pull")]
    #[arg(long, value_name = "FILE|IMAGE", requires = "from_oci")]
    kernel: Option<String>,

    /// The initial RAM disk of a kernel in a file, which has to mount the root file system over 9p
    #[cfg(feature = "pull")]
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,

    #[command(flatten)]
    guest: GuestFlag,

    /// Print what takes the room in the image: files, and directories with all below them, from a hundredth of it on
    #[arg(long)]
    size_report: bool,

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
        let guest = self.guest.wanted()?;
        let options = Options {
            guest: guest.as_ref(),
            progress: &bar,
            interrupt: &interrupt,
            owner: self.owner,
            limit: self.max_size,
            ..Options::default()
        };
        let made = self.make(&options);
        bar.clear();
        if let Some(made) = made? {
            self.say(&made);
        }
        if self.size_report {
            report(&Image::open(&self.image)?)?;
        }
        Ok(Outcome::SUCCESS)
    }

    /// Says what went into the image.
    fn say(&self, made: &Summary) {
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
    }

    fn make(&self, options: &Options) -> Result<Option<Summary>, CliError> {
        #[cfg(feature = "pull")]
        if let Some(from) = &self.from_oci {
            return self.make_of_container(from, options);
        }
        if let Some(source) = &self.from_dir {
            return Ok(Some(from_dir(source, &self.image, options)?));
        }
        let Some(source) = &self.from_tar else {
            return Err(
                "Nothing to create from; give --from-dir DIR, --from-tar FILE or --from-oci IMAGE".into()
            );
        };
        if source == Path::new("-") {
            if io::stdin().is_terminal() {
                return Err(
                    "Standard input is the terminal; pipe a tar archive into it, or name a file".into()
                );
            }
            return Ok(Some(from_tar(io::stdin().lock(), "Standard input", &self.image, options)?));
        }
        let what = format!("`{}`", source.display());
        let file = File::open(source).map_err(|error| format!("Cannot read {what}: {error}"))?;
        options.progress.total(file.metadata()?.len());
        Ok(Some(from_tar(file, &what, &self.image, options)?))
    }

    /// Makes the image of a container image.
    #[cfg(feature = "pull")]
    fn make_of_container(&self, from: &str, options: &Options) -> Result<Option<Summary>, CliError> {
        let origin = Origin::new(from).ok_or_else(|| {
            format!(
                "`{from}` is no container image; give one as oci://HOST/NAME:TAG, or a path that is there"
            )
        })?;
        let kernel = self.kernel.as_deref().map(|kernel| find_kernel(kernel, self.initrd.as_deref()));
        let puller = Puller {
            kernel: kernel.transpose()?,
            guest: self.guest.for_container()?,
            owner: self.owner,
            credentials: pull::credential_files(),
            limit: self.max_size,
            ..Puller::new(GlobalImages::new()?)
        };
        let watch = Watch { progress: options.progress, interrupt: options.interrupt };
        Ok(puller.create(&origin, &self.image, &watch)?)
    }
}

/// Prints what takes the room in an image.
fn report(image: &Image) -> Result<(), CliError> {
    let all = Contents::of(image)?.blobs.values().sum::<u64>();
    let shares = shares(image, all.div_ceil(LEAST_SHARE))?;
    let row = |share: &Share| {
        let hundredths = if all > 0 { share.bytes as f64 * 100.0 / all as f64 } else { 0.0 };
        format!(
            "{:>8}  {hundredths:>3.0} %  {}
",
            show_size(share.bytes),
            share.path
        )
    };
    Ok(print(shares.iter().map(row).collect::<String>().as_bytes())?)
}
