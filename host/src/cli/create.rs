//! `env86 create`: an image from a directory tree, a tar archive, a container image or Debian packages.

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
use env86::image::debian::Debian;
#[cfg(feature = "pull")]
use env86::image::docker::Engine;
use env86::image::kernel::Kernel;
use env86::image::room::{Share, shares};
#[cfg(feature = "pull")]
use env86::image::{Watch, global::GlobalImages, oci::Origin, pull::Puller};
use serde::Serialize;

use super::build::cache_folder;
#[cfg(feature = "pull")]
use super::build::{Build, container_name};
use super::kernel::find_kernel;
use super::modules::ModulesFlag;
use super::progress::Bar;
#[cfg(feature = "pull")]
use super::pull;
use super::service::GuestFlag;
use super::size::{parse_owner, parse_size, show_size};
use super::{CliError, Outcome, print, print_json};

/// What the folder of Debian's lists and packages is called.
const PACKAGES: &str = "debian";
/// What takes less room than all of it by this is not told of.
const LEAST_SHARE: u64 = 100;

/// Make an image from a directory tree, a tar archive, a container image, a Dockerfile or Debian packages.
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

    /// A container image by Docker or Podman, if one of them is at work here, and else by this program itself: NAME:TAG, or the
    /// path of a Dockerfile, which is built in its folder
    #[cfg(feature = "pull")]
    #[arg(long, value_name = "NAME|DOCKERFILE", conflicts_with_all = ["from_dir", "from_tar", "from_oci"])]
    from_docker: Option<String>,

    /// Debian packages for i386, which are unpacked and not installed: a suite, such as bookworm, of the mirror that this
    /// system's apt knows. Without --kernel the image gets Debian's, if the suite has one for i386
    #[arg(long, value_name = "SUITE", requires = "packages", conflicts_with_all = ["from_dir", "from_tar"])]
    #[cfg_attr(feature = "pull", arg(conflicts_with_all = ["from_oci", "from_docker"]))]
    from_debian: Option<String>,

    /// The packages; apt adds what they depend on
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', requires = "from_debian")]
    packages: Vec<String>,

    /// The kernel that an image of a container or of packages gets: a file, or an image that has one
    #[arg(long, value_name = "FILE|IMAGE", conflicts_with_all = ["from_dir", "from_tar"])]
    kernel: Option<String>,

    /// The initial RAM disk of a kernel in a file, which has to mount the root file system over 9p
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,

    /// Let the commands of a Dockerfile reach this port of the host's loopback, as host.env86.internal:PORT, where this program
    /// runs them itself. May be given many times
    #[cfg(feature = "pull")]
    #[cfg_attr(feature = "net", arg(long, value_name = "PORT", requires = "from_docker"))]
    #[cfg_attr(not(feature = "net"), arg(skip))]
    allow_host: Vec<u16>,

    #[command(flatten)]
    modules: ModulesFlag,

    #[command(flatten)]
    guest: GuestFlag,

    /// Print what takes the room in the image: files, and directories with all below them, from a hundredth of it on
    #[arg(long)]
    size_report: bool,

    /// Print an object with the keys path, entries, bytes, contents, sockets_skipped and attributes_skipped; and, with
    /// --size-report, report, a list of objects with path and bytes
    #[arg(long)]
    json: bool,

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
        let kernel = self.kernel.as_deref().map(|kernel| find_kernel(kernel, self.initrd.as_deref()));
        let kernel = kernel.transpose()?;
        let is_debian_s = self.from_debian.is_some() && kernel.is_none();
        let modules = match self.modules.is_given() && !is_debian_s {
            true if self.from_dir.is_some() => {
                return Err(
                    "A directory can have its kernel modules itself; --modules is for other sources".into()
                );
            }
            true => self.modules.choose(self.kernel.as_deref().zip(kernel.as_ref()))?,
            false => None,
        };
        let options = Options {
            guest: guest.as_ref(),
            modules: modules.as_ref(),
            progress: &bar,
            interrupt: &interrupt,
            owner: self.owner,
            limit: self.max_size,
            ..Options::default()
        };
        let made = self.make(kernel, &options);
        bar.clear();
        let made = made?;
        if let Some(made) = &made {
            self.say(made);
        }
        if self.json {
            let report = if self.size_report { Some(shares_of(&Image::open(&self.image)?)?.1) } else { None };
            let shown = Made {
                path: self.image.display().to_string(),
                entries: made.map(|made| made.entries),
                bytes: made.map(|made| made.bytes),
                contents: made.map(|made| made.blobs),
                sockets_skipped: made.map(|made| made.sockets_skipped),
                attributes_skipped: made.map(|made| made.attributes_skipped),
                report: report.map(|shares| {
                    shares.into_iter().map(|share| Room { path: share.path, bytes: share.bytes }).collect()
                }),
            };
            print_json(&shown)?;
        } else if self.size_report {
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

    fn make(&self, kernel: Option<Kernel>, options: &Options) -> Result<Option<Summary>, CliError> {
        #[cfg(feature = "pull")]
        if let Some(from) = &self.from_oci {
            let origin = Origin::new(from).ok_or_else(|| {
                format!(
                    "`{from}` is no container image; give one as oci://HOST/NAME:TAG, or a path that is there"
                )
            })?;
            return self.make_of_container(&origin, kernel, options);
        }
        #[cfg(feature = "pull")]
        if let Some(from) = &self.from_docker {
            return self.make_by_docker(from, kernel, options);
        }
        if let Some(suite) = &self.from_debian {
            return self.make_of_packages(suite, kernel, options).map(Some);
        }
        if let Some(source) = &self.from_dir {
            return Ok(Some(from_dir(source, &self.image, options)?));
        }
        let Some(source) = &self.from_tar else {
            return Err("Nothing to create from; give --from-dir DIR, --from-tar FILE, --from-oci IMAGE, --from-docker IMAGE|DOCKERFILE or --from-debian SUITE".into());
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

    /// Makes the image of Debian packages.
    fn make_of_packages(
        &self,
        suite: &str,
        kernel: Option<Kernel>,
        options: &Options,
    ) -> Result<Summary, CliError> {
        let guest = self.guest.for_container()?;
        let debian = Debian {
            suite: suite.into(),
            packages: self.packages.clone(),
            modules: if kernel.is_none() { self.modules.list()? } else { None },
            kernel,
            cache: cache_folder(PACKAGES)?,
            tell: &|text| eprintln!("env86: {text}"),
        };
        Ok(debian.create(&self.image, &Options { guest: guest.as_ref(), ..options.clone() })?)
    }

    /// Makes the image of a container image.
    #[cfg(feature = "pull")]
    fn make_of_container(
        &self,
        origin: &Origin,
        kernel: Option<Kernel>,
        options: &Options,
    ) -> Result<Option<Summary>, CliError> {
        let puller = Puller {
            kernel,
            modules: options.modules.cloned(),
            guest: self.guest.for_container()?,
            owner: self.owner,
            credentials: pull::credential_files(),
            limit: self.max_size,
            ..Puller::new(GlobalImages::new()?)
        };
        let watch = Watch { progress: options.progress, interrupt: options.interrupt };
        Ok(puller.create(origin, &self.image, &watch)?)
    }

    /// Makes the image of what Docker or Podman have, or would have.
    #[cfg(feature = "pull")]
    fn make_by_docker(
        &self,
        from: &str,
        kernel: Option<Kernel>,
        options: &Options,
    ) -> Result<Option<Summary>, CliError> {
        let path = Path::new(from);
        let is_dockerfile = path.is_file();
        if path.is_dir() {
            return Err(format!("`{from}` is a folder; name the Dockerfile in it").into());
        }
        if let Some(engine) = Engine::find() {
            let guest = self.guest.for_container()?;
            let options = Options { guest: guest.as_ref(), ..options.clone() };
            let made = match is_dockerfile {
                true => engine.build(path, kernel.as_ref(), &self.image, &options),
                false => engine.create(from, kernel.as_ref(), &self.image, &options),
            };
            return Ok(Some(made?));
        }
        eprintln!("env86: neither docker nor podman is at work here; env86 does it itself");
        if is_dockerfile {
            if options.modules.is_some() || self.owner.is_some() {
                return Err("--modules and --owner are not for what env86 builds itself; say so in the Dockerfile, with COPY and --chown".into());
            }
            let build = Build::of(path, &self.image, self.guest.clone(), &self.allow_host, self.max_size);
            return build.build(kernel, options.interrupt).map(Some);
        }
        let whole = container_name(from).ok_or_else(|| {
            format!(
                "`{from}` is no container image; write NAME:TAG or HOST/NAME:TAG, or the path of a Dockerfile"
            )
        })?;
        self.make_of_container(&Origin::Registry(whole), kernel, options)
    }
}

/// What was made, for programs. Of an image that was pushed by this program only the path is known.
#[derive(Serialize)]
struct Made {
    path: String,
    entries: Option<u64>,
    bytes: Option<u64>,
    contents: Option<u64>,
    sockets_skipped: Option<u64>,
    attributes_skipped: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Vec<Room>>,
}

#[derive(Serialize)]
struct Room {
    path: String,
    bytes: u64,
}

/// The bytes of an image's contents, and what takes the room in it.
fn shares_of(image: &Image) -> Result<(u64, Vec<Share>), CliError> {
    let all = Contents::of(image)?.blobs.values().sum::<u64>();
    Ok((all, shares(image, all.div_ceil(LEAST_SHARE))?))
}

/// Prints what takes the room in an image.
fn report(image: &Image) -> Result<(), CliError> {
    let (all, shares) = shares_of(image)?;
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
