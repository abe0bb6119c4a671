//! `env86 build`: an image from a Dockerfile.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::image::Image;
use env86::image::build::{self, Event};
use env86::image::create::{Options, Summary};
use env86::image::global::{GlobalImages, GlobalName};
use env86::image::kernel::Kernel;
#[cfg(feature = "pull")]
use env86::image::oci::Reference;
use serde_json::json;

use super::kernel::find_kernel;
use super::service::{self, GuestFlag};
use super::size::parse_size;
use super::{CliError, Outcome, print_json};

/// Build an image from a Dockerfile.
///
/// FROM takes an image here, by its name or a path that begins with ./ or /, or a container image, which is pulled; at a path
/// there may be one, too, as an OCI layout or as `docker save` writes it.
/// RUN boots a machine, with the kernel of --kernel where the image has none. Results are kept in the user's cache folder, and taken by the next build.
#[derive(Args, Debug)]
pub struct Build {
    /// The Dockerfile, instead of CONTEXT/Dockerfile
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// What the image becomes: a global image NAME[@TAG], which replaces the one before, or a directory that is not
    /// there yet, whose path begins with ./ or /
    #[arg(short, long, value_name = "IMAGE")]
    tag: String,

    /// Build this stage instead of the last one
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// The value of an ARG; without =VALUE, that of the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    arguments: Vec<String>,

    /// The kernel that the image gets, instead of its base's: a file, or an image that has one. Upon a container, one that
    /// the Dockerfile installs stays the image's, and this one only runs the commands
    #[arg(long, value_name = "FILE|IMAGE")]
    kernel: Option<String>,

    /// The initial RAM disk of a kernel in a file, which has to mount the root file system over 9p
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,

    #[command(flatten)]
    guest: GuestFlag,

    /// Let commands reach this port of the host's loopback, as host.env86.internal:PORT, such as that of a mirror of
    /// packages. May be given many times
    #[cfg_attr(feature = "net", arg(long, value_name = "PORT"))]
    #[cfg_attr(not(feature = "net"), arg(skip))]
    allow_host: Vec<u16>,

    /// Take nothing that earlier builds have kept
    #[arg(long)]
    no_cache: bool,

    /// Refuse an archive whose files have more bytes
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "16G")]
    max_size: u64,

    /// Print an object with the keys image, entries, bytes and contents
    #[arg(long)]
    json: bool,

    /// The folder that files are copied from
    context: PathBuf,
}

/// What the folder of kept results is called.
pub const RESULTS: &str = "build";

/// Where an image comes to.
enum Place {
    Directory(PathBuf),
    Global(GlobalName),
}

impl Build {
    /// A Dockerfile in its folder becomes an image directory.
    #[cfg(feature = "pull")]
    pub fn of(dockerfile: &Path, image: &Path, guest: GuestFlag, allow_host: &[u16], max_size: u64) -> Self {
        let context = match dockerfile.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.into(),
            _ => PathBuf::from("."),
        };
        let place = if image.is_absolute() { image.into() } else { Path::new(".").join(image) };
        Self {
            file: Some(dockerfile.into()),
            tag: place.display().to_string(),
            target: None,
            arguments: Vec::new(),
            kernel: None,
            initrd: None,
            guest,
            allow_host: allow_host.into(),
            no_cache: false,
            max_size,
            json: false,
            context,
        }
    }

    /// Builds it.
    pub fn run(self) -> Result<Outcome, CliError> {
        let interrupt = Arc::new(AtomicBool::new(false));
        flag_when_interrupted(&interrupt)?;
        let kernel = self.kernel.as_deref().map(|kernel| find_kernel(kernel, self.initrd.as_deref()));
        let (tag, json) = (self.tag.clone(), self.json);
        let made = self.build(kernel.transpose()?, &interrupt)?;
        say(&tag, &made);
        if json {
            let Summary { entries, bytes, blobs, .. } = made;
            print_json(&json!({ "image": tag, "entries": entries, "bytes": bytes, "contents": blobs }))?;
        }
        Ok(Outcome::SUCCESS)
    }

    /// Builds it with this kernel.
    pub fn build(self, kernel: Option<Kernel>, interrupt: &AtomicBool) -> Result<Summary, CliError> {
        let place = match is_path(&self.tag) {
            true => Place::Directory(PathBuf::from(&self.tag)),
            false => Place::Global(GlobalName::new(&self.tag.replacen(':', "@", 1))?.or_local()),
        };
        let options = Options { interrupt, limit: self.max_size, ..Options::default() };
        let build = build::Build {
            dockerfile: self.file.unwrap_or_else(|| self.context.join("Dockerfile")),
            context: self.context,
            target: self.target,
            arguments: arguments(&self.arguments)?,
            kernel,
            host_ports: self.allow_host,
            cache: cache_folder(RESULTS)?,
            anew: self.no_cache,
            guest: self.guest.for_container()?,
            service: service::own(),
            open: &|name, bases| open_base(name, bases, &options),
            tell: &tell,
            options: options.clone(),
        };
        Ok(match &place {
            Place::Directory(path) => build.directory(path),
            Place::Global(name) => build.global(&GlobalImages::new()?, name),
        }?)
    }
}

fn say(name: &str, made: &Summary) {
    let Summary { entries, bytes, blobs, .. } = made;
    eprintln!("{name}: {entries} entries, {bytes} bytes, {blobs} different files");
}

/// Says how far the build is, as BuildKit does in a log.
fn tell(event: Event) {
    match event {
        Event::Begun(number, name) => eprintln!("#{number} {name}"),
        Event::Cached(number) => eprintln!("#{number} CACHED\n"),
        Event::Output(number, bytes) => {
            for line in String::from_utf8_lossy(bytes).lines() {
                eprintln!("#{number} {}", line.escape_debug());
            }
        }
        Event::Done(number, took) => eprintln!("#{number} DONE {:.1}s\n", took.as_secs_f64()),
        Event::Warning(text) => eprintln!("env86: {text}"),
    }
}

/// An argument means a path rather than a name.
fn is_path(text: &str) -> bool {
    text.starts_with('.') || text.starts_with(std::path::is_separator) || Path::new(text).is_absolute()
}

/// Values of arguments.
fn arguments(given: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut values = BTreeMap::new();
    for text in given {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (text.as_str(), env::var(text).unwrap_or_default()),
        };
        if name.is_empty() {
            return Err(format!("`{text}` is no argument; write --build-arg NAME=VALUE").into());
        }
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}

/// Where this program keeps what it can do again, by what that is.
pub fn cache_folder(what: &str) -> Result<PathBuf, CliError> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = |below: &str| env::home_dir().map(|home| home.join(below));
    let own = match env::consts::OS {
        "windows" => var("LOCALAPPDATA").or_else(|| home("AppData/Local")),
        "macos" => home("Library/Caches"),
        _ => home(".cache"),
    };
    let folder = var("XDG_CACHE_HOME").or(own).map(|folder| folder.join("env86").join(what));
    Ok(folder.ok_or("There is no home directory; set XDG_CACHE_HOME to a folder")?)
}

/// Opens an image that is built upon: one that is here, or else one that is made of a container image, in the folder `bases`
/// or, if it is pulled, among the global ones.
#[cfg_attr(not(feature = "pull"), allow(unused_variables))]
fn open_base(name: &str, bases: &Path, options: &Options) -> Result<Image, CliError> {
    if is_path(name) {
        #[cfg(feature = "pull")]
        if is_container(Path::new(name)) {
            return make_base(Path::new(name), bases, options);
        }
        return Ok(Image::open(name)?);
    }
    let images = GlobalImages::new()?;
    // Docker's names have a colon before the tag.
    for text in [name.to_owned(), name.replacen(':', "@", 1)] {
        let Ok(known) = GlobalName::new(&text) else { continue };
        if let Some(path) = known.candidates(images.root()).into_iter().find(|path| path.exists()) {
            return Ok(Image::open(path)?);
        }
    }
    pull_base(name)
}

/// A path is a container image's, as `create --from-oci` takes them, and not that of an image.
#[cfg(feature = "pull")]
fn is_container(path: &Path) -> bool {
    match path.is_dir() {
        true => ["index.json", "manifest.json"].iter().any(|name| path.join(name).is_file()),
        false => path.extension().is_some_and(|extension| extension == "tar"),
    }
}

/// Makes an image of a container image that is here, if no earlier build has. What runs its commands is lent to it.
#[cfg(feature = "pull")]
fn make_base(from: &Path, bases: &Path, options: &Options) -> Result<Image, CliError> {
    use env86::image::{Watch, oci::Origin, pull::Puller};
    let puller = Puller { limit: options.limit, ..Puller::new(GlobalImages::new()?) };
    let watch = Watch { interrupt: options.interrupt, ..Watch::default() };
    let origin = Origin::Path(from.into());
    let place = bases.join(origin.identity(&watch)?.unwrap_or_default());
    if !place.exists()
        && let Err(error) = puller.create(&origin, &place, &watch)
        // Another build has made it meanwhile.
        && !place.exists()
    {
        return Err(error.into());
    }
    Ok(Image::open(place)?)
}

/// The container image of a name; one without a registry is Docker's.
#[cfg(feature = "pull")]
pub fn container_name(name: &str) -> Option<Reference> {
    Reference::new(name).or_else(|| Reference::new(&format!("docker.io/{name}")))
}

#[cfg(feature = "pull")]
fn pull_base(name: &str) -> Result<Image, CliError> {
    if container_name(name).is_none() {
        return Err("there is no such image here; write NAME[@TAG], ./DIRECTORY, or HOST/NAME:TAG".into());
    }
    let whole = if Reference::new(name).is_some() { name.to_owned() } else { format!("docker.io/{name}") };
    super::pull::open_or_pull(&whole)
}

#[cfg(not(feature = "pull"))]
fn pull_base(_: &str) -> Result<Image, CliError> {
    Err("there is no such image here, and this program cannot pull one; make it with `env86 create`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_values() {
        let given = ["a=1", "b=x=y", "c="].map(String::from);
        let wanted = [("a", "1"), ("b", "x=y"), ("c", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(arguments(&given).unwrap(), wanted.into());
        assert!(arguments(&["=1".into()]).is_err());
        let paths = ["./a", "../a", "/a", ".", "a", "a/b", "a:b"].map(is_path);
        assert_eq!(paths, [true, true, true, true, false, false, false]);
    }
}
