//! Images from Dockerfiles.
//!
//! Each instruction that changes files gives a tree, which is kept by what it was made from: the tree before it,
//! what the instruction says, and the files that it copies. A later build takes what is kept, and does the rest.

mod cache;
mod context;
mod copy;
mod first;
mod ignore;
mod lines;
mod parse;
mod plan;
mod prune;
mod resolver;
mod run;
mod stages;
mod tree;
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use env86_devices::fs::FsJsonError;
use thiserror::Error;

use self::cache::Cache;
use self::context::Context;
use self::ignore::Ignore;
use self::parse::Dockerfile;
use self::plan::{Plan, unused};
pub use self::prune::{Keep, Pruned, prune};
use self::stages::Stages;
use super::create::{CreateError, Options, Summary, new_place, staged};
use super::global::{GlobalError, GlobalImages, GlobalName};
use super::kernel::{Kernel, KernelError};
use super::service::GuestService;
use super::{Image, ImageError};

/// The rules of which files a build does not see; those for one Dockerfile are behind its name.
const IGNORE: &str = ".dockerignore";

/// What is wrong with a Dockerfile.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {why}")]
pub struct ParseError {
    /// The line, from one on.
    pub line: usize,
    /// What is wrong, and what to do.
    pub why: String,
}

impl ParseError {
    fn new(line: usize, why: impl Into<String>) -> Self {
        Self { line, why: why.into() }
    }
}

/// Why an image cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The Dockerfile.
    #[error("`{}`", path.display())]
    Dockerfile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ParseError,
    },
    /// What is built upon cannot be had.
    #[error("`{}`, line {line}: cannot use the image `{name}`", path.display())]
    Base {
        /// The Dockerfile.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What it is called.
        name: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file.
    #[error("Cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the cache.
    #[error("Cannot write `{}`; is the place writable and the disk not full?", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the context is not what it was.
    #[error("`{}` was changed while it was copied; build again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A tree that an image cannot have.
    #[error("{why}")]
    Tree {
        /// What is wrong.
        why: String,
    },
    /// An index.
    #[error("`{}` is damaged; remove it, if it is in the cache, or else make the image again", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FsJsonError,
    },
    /// A content.
    #[error("`{}` is damaged; remove it, if it is in the cache, or else make the image again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// An image that is built upon.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image that is made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The global image that is made.
    #[error(transparent)]
    Global(#[from] GlobalError),
    /// Its kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl BuildError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.into(), source }
    }

    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.into(), source }
    }
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A step, by its number, begins.
    Begun(usize, &'a str),
    /// Its result was kept by an earlier build.
    Cached(usize),
    /// What a step's command writes.
    Output(usize, &'a [u8]),
    /// It is done, after so long.
    Done(usize, Duration),
    /// Something that the user should know.
    Warning(&'a str),
}

/// Finds an image that is built upon. One that has to be made of a container image on disk is made in the folder, by the name
/// that it has by [`Origin::identity`](super::oci::Origin::identity), where it may be from an earlier build.
pub type OpenBase<'a> = dyn Fn(&str, &Path) -> Result<Image, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// A build.
pub struct Build<'a> {
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// The folder that files are copied from.
    pub context: PathBuf,
    /// The stage that is built, by its name or number; the last one without it.
    pub target: Option<String>,
    /// Values of arguments.
    pub arguments: BTreeMap<String, String>,
    /// The kernel that the image gets, instead of its base's. Upon a container, which has none, it runs the commands; the
    /// image keeps one that they have installed, with its initial RAM disk.
    pub kernel: Option<Kernel>,
    /// The guest86 that the image gets: every image, or one that is made of a container, or of nothing, and neither has it
    /// nor is to start an init of its own.
    pub guest: Option<GuestService>,
    /// The guest86 that runs commands in machines of images that have none, which do not keep it.
    pub service: Option<GuestService>,
    /// Ports of this host's loopback that commands reach as `host.env86.internal`.
    pub host_ports: Vec<u16>,
    /// Where results are kept.
    pub cache: PathBuf,
    /// Nothing that was kept is taken.
    pub anew: bool,
    /// Finds the images that are built upon.
    pub open: &'a OpenBase<'a>,
    /// Is told how far the build is.
    pub tell: &'a dyn Fn(Event),
    /// Ends the build, and limits what archives may have.
    pub options: Options<'a>,
}

impl Build<'_> {
    /// Builds the image directory `image`, which is not there yet.
    pub fn directory(&self, image: &Path) -> Result<Summary, BuildError> {
        new_place(image)?;
        self.run(|stages| staged(image, &self.options.watch(), |dir| stages.fill(dir)))
    }

    /// Builds a global image. What has the name is replaced.
    pub fn global(&self, images: &GlobalImages, name: &GlobalName) -> Result<Summary, BuildError> {
        self.run(|stages| {
            let mut filled = None;
            let mut failed = None;
            let added = images.add(name, true, &self.options.watch(), |dir| {
                stages.fill(dir).map(|summary| filled = Some(summary)).map_err(|error| {
                    failed = Some(error);
                    // Which is seen by no one.
                    GlobalError::Interrupted
                })
            });
            match (failed, added, filled) {
                (Some(error), ..) => Err(error),
                (None, Err(error), _) => Err(error.into()),
                (None, Ok(_), summary) => Ok(summary.unwrap_or_default()),
            }
        })
    }

    fn run<T>(&self, make: impl FnOnce(&Stages) -> Result<T, BuildError>) -> Result<T, BuildError> {
        let path = &self.dockerfile;
        let wrong = |source| BuildError::Dockerfile { path: path.clone(), source };
        let text = fs::read_to_string(path).map_err(BuildError::read(path))?;
        let file = Dockerfile::new(&text).map_err(wrong)?;
        let plan = Plan::new(&file, self.target.as_deref(), &self.arguments).map_err(wrong)?;
        for name in unused(&file, &self.arguments) {
            (self.tell)(Event::Warning(&format!("no ARG asks for the argument `{name}`")));
        }
        let context = Context::new(&self.context, &self.rules()?, &self.options)?;
        let cache = Cache::open(&self.cache, &self.options)?;
        let mut stages = Stages::new(self, &file, &plan, &context, &cache);
        stages.run()?;
        make(&stages)
    }

    /// Which files are not seen.
    fn rules(&self) -> Result<Ignore, BuildError> {
        let mut own = self.dockerfile.clone().into_os_string();
        own.push(IGNORE);
        for path in [PathBuf::from(own), self.context.join(IGNORE)] {
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Ignore::new(&text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(BuildError::read(&path)(error)),
            }
        }
        Ok(Ignore::default())
    }
}
