//! `env86 pull`: an image from a web server or a registry; `env86 push`: one to a registry, or to a folder for a web server.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::image::global::{GlobalImages, GlobalName};
use env86::image::oci;
use env86::image::pull::{Pulled, Puller, Reference};
use env86::image::{Image, ImageError, Watch};
use serde_json::json;

use super::kernel::find_kernel;
use super::modules::ModulesFlag;
use super::progress::Bar;
use super::service::{GuestFlag, where_needed};
use super::size::{parse_size, show_size};
use super::{CliError, Outcome, print, print_json};

/// What the files of an image may have, unless the user says so.
const MAX_SIZE: u64 = 16 << 30;

/// Pull an image from a web server or a registry.
///
/// An image of a repository's releases is called github.com/OWNER/REPO@TAG, and the latest one is meant without a tag;
/// one at a URL is called after the archive. A container image, such as docker.io/i386/alpine:3.18 or
/// oci://HOST:PORT/NAME:TAG, is called HOST/NAME@TAG, and gets its kernel by --kernel. The name is printed. A download
/// that was broken off goes on where it was.
#[derive(Args, Debug)]
pub struct Pull {
    /// Refuse an archive with another SHA-256; without this, URL.sha256 counts, if the server has it
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,

    /// The kernel that a container image gets: a file, or an image that has one
    #[arg(long, value_name = "FILE|IMAGE")]
    kernel: Option<String>,

    /// The initial RAM disk of a kernel in a file, which has to mount the root file system over 9p
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,

    #[command(flatten)]
    modules: ModulesFlag,

    #[command(flatten)]
    guest: GuestFlag,

    /// Refuse an image whose archive or files have more bytes
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "16G")]
    max_size: u64,

    /// Print an object with the keys name, path, and sha256: that of the archive, or of a container image's manifest, and
    /// null if the image was here already
    #[arg(long)]
    json: bool,

    /// github.com/OWNER/REPO[@TAG], the URL of a .tgz file, or a container image
    #[arg(value_name = "REPO[@TAG]|URL|CONTAINER")]
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
        let is_container = matches!(from, Reference::Container(_));
        if (self.kernel.is_some() || self.modules.is_given()) && !is_container {
            return Err("--kernel and --modules are for container images, and this one has its own".into());
        }
        let guest = if is_container { self.guest.for_container()? } else { self.guest.wanted()? };
        if guest.is_some() && !is_container {
            return Err("--with-guest is for container images, and this one is made already".into());
        }
        if self.sha256.is_some() && is_container {
            return Err(
                "A container image says its checksums itself; name one of your own as NAME@sha256:…".into()
            );
        }
        let kernel = self.kernel.as_deref().map(|kernel| find_kernel(kernel, self.initrd.as_deref()));
        let kernel = kernel.transpose()?;
        let puller = Puller {
            sha256: self.sha256,
            modules: self.modules.choose(self.kernel.as_deref().zip(kernel.as_ref()))?,
            kernel,
            guest,
            credentials: credential_files(),
            limit: self.max_size,
            ..Puller::new(GlobalImages::new()?)
        };
        let bar = Bar::new();
        let pulled = puller.pull(&from, name, &Watch { progress: &bar, interrupt: &interrupt });
        bar.clear();
        let pulled = pulled?;
        match &pulled.sha256 {
            Some(sum) if is_container => eprintln!("env86: the manifest's SHA-256 is {sum}"),
            Some(sum) => eprintln!("env86: the archive's SHA-256 is {sum}"),
            None => eprintln!("env86: it was here already"),
        }
        if self.json {
            let Pulled { name, path, sha256 } = &pulled;
            print_json(&json!({ "name": name.to_string(), "path": path, "sha256": sha256 }))?;
        } else {
            print(format!("{}\n", pulled.name).as_bytes())?;
        }
        Ok(Outcome::SUCCESS)
    }
}

/// Push an image to a registry, from where `pull` brings it.
///
/// What the registry has already is not sent again: of an image that was pushed before, only what has changed. The
/// manifest's SHA-256 is printed. With --to-dir no registry is needed: any web server that gives the files of the
/// folder does for one, and `pull` takes the same reference.
#[derive(Args, Debug)]
pub struct Push {
    /// Put it into this folder instead, which the root of a web server at HOST is, or will be
    #[arg(long, value_name = "DIR")]
    to_dir: Option<PathBuf>,

    /// Print an object with the keys digest, of the manifest, and sent and total (bytes)
    #[arg(long)]
    json: bool,

    /// The path of a directory or .tgz file, or the name of a global image, NAME[@TAG]
    image: String,

    /// Where to: HOST[:PORT]/NAME[:TAG], with oci:// before it where the host has no dot
    #[arg(value_name = "REFERENCE")]
    to: String,
}

impl Push {
    /// Pushes it.
    pub fn run(self) -> Result<Outcome, CliError> {
        let wrong = || format!("`{}` names no place in a registry; write oci://HOST/NAME:TAG", self.to);
        let to = oci::Reference::new(&self.to).filter(|to| to.digest.is_none()).ok_or_else(wrong)?;
        let image = Image::open_arg(&self.image)?;
        let interrupt = Arc::new(AtomicBool::new(false));
        flag_when_interrupted(&interrupt)?;
        let bar = Bar::new();
        let watch = Watch { progress: &bar, interrupt: &interrupt };
        let pushed = match &self.to_dir {
            Some(folder) => oci::push_to_folder(&image, &to, folder, &watch),
            None => {
                let images = GlobalImages::new()?;
                Puller { credentials: credential_files(), ..Puller::new(images) }.push(&image, &to, &watch)
            }
        };
        bar.clear();
        let pushed = pushed?;
        let done = if self.to_dir.is_some() { "written" } else { "sent" };
        eprintln!("env86: {} {done}, {} in all", show_size(pushed.sent), show_size(pushed.total));
        let digest = format!("sha256:{}", pushed.digest);
        if self.json {
            print_json(&json!({ "digest": digest, "sent": pushed.sent, "total": pushed.total }))?;
        } else {
            print(format!("{digest}\n").as_bytes())?;
        }
        Ok(Outcome::SUCCESS)
    }
}

/// Opens the image that a machine is of. A container image that is not here is pulled.
pub fn open_or_pull(arg: &str) -> Result<Image, CliError> {
    let missing = match Image::open_arg(arg) {
        Err(error @ (ImageError::NoSuchPath(_) | ImageError::NoSuchName { .. })) => error,
        opened => return Ok(opened?),
    };
    let Some(reference) = oci::Reference::new(arg) else { return Err(missing.into()) };
    eprintln!("env86: {reference} is not here yet, and is pulled ...");
    let puller = Puller {
        guest: where_needed(),
        credentials: credential_files(),
        limit: MAX_SIZE,
        ..Puller::new(GlobalImages::new()?)
    };
    let bar = Bar::new();
    // A signal ends the program at once, here: the machine handles them in its own way, once it is there. The next pull
    // goes on where this one was.
    let watch = Watch { progress: &bar, ..Watch::default() };
    let pulled = puller.pull(&Reference::Container(reference), None, &watch);
    bar.clear();
    Ok(Image::open(pulled?.path)?)
}

/// Where container programs keep what they show to registries.
pub fn credential_files() -> Vec<PathBuf> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = var("DOCKER_CONFIG").or_else(|| Some(env::home_dir()?.join(".docker")));
    let podman = var("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
    [var("REGISTRY_AUTH_FILE"), podman, docker.map(|folder| folder.join("config.json"))]
        .into_iter()
        .flatten()
        .collect()
}
