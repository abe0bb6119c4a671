//! Container images are made into images.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Seek;
use std::path::{Path, PathBuf};

use super::super::check::check;
use super::super::container::{self, starts_init};
use super::super::create::{self, Options, Summary, from_layers, staged};
use super::super::global::{GlobalError, GlobalName};
use super::super::kernel::KernelError;
use super::super::pull::{FOLDER, Puller};
use super::super::service::GuestService;
use super::super::watch::Watch;
use super::super::web::lock;
use super::super::{Image, archive};
use super::layout::{Layout, identity};
use super::{Container, OciError, PullError, Reference, Registry, credentials};

/// Layers by their digests, and where they are.
pub type Files = BTreeMap<String, (PathBuf, File)>;

/// Where a container image is.
#[derive(Clone, Debug)]
pub enum Origin {
    /// In a registry.
    Registry(Reference),
    /// In a directory or a tar archive, as container programs save them.
    Path(PathBuf),
}

impl Origin {
    /// A path that is there, or the name of an image in a registry; `None` if it is neither.
    pub fn new(text: &str) -> Option<Self> {
        match Path::new(text).exists() {
            true => Some(Self::Path(text.into())),
            false => Reference::new(text).map(Self::Registry),
        }
    }

    /// What tells an image on disk from all others; `None` for one in a registry.
    pub fn identity(&self, watch: &Watch) -> Result<Option<String>, PullError> {
        match self {
            Self::Registry(_) => Ok(None),
            Self::Path(path) => identity(path, watch).map(Some),
        }
    }
}

impl Puller {
    /// Makes the global image `name` of a container image. Who wants the same one waits for `turn`.
    pub(in super::super) fn container(
        &self,
        reference: &Reference,
        name: &GlobalName,
        turn: &Path,
        watch: &Watch,
    ) -> Result<String, PullError> {
        let folder = turn.parent().unwrap_or(turn).to_owned();
        let _turn = lock(turn, watch)?;
        let brought = if self.images.place(name).exists() {
            Err(GlobalError::Exists(name.clone()).into())
        } else {
            self.with_layers(reference, &folder, watch, |container, files| {
                let mut failed = None;
                let added = self.images.add(name, false, &quiet(watch), |dir| {
                    self.fill(container, files, dir, watch).map(drop).map_err(|error| match error {
                        PullError::Global(error) => error,
                        error => {
                            failed = Some(error);
                            GlobalError::Interrupted
                        }
                    })
                });
                match failed {
                    Some(error) => Err(error),
                    None => Ok(added.map(drop)?),
                }
            })
        };
        let _ = fs::remove_file(turn);
        brought.map(|(digest, ())| digest)
    }

    /// Makes the image directory `image` of a container image. Gives what went into it, if it is not an image that
    /// was pushed from here.
    pub fn create(&self, from: &Origin, image: &Path, watch: &Watch) -> Result<Option<Summary>, PullError> {
        create::new_place(image)?;
        let make = |container: &Container, files: &Files| {
            staged(image, watch, |dir| {
                let made = self.fill(container, files, dir, watch)?;
                if container.config.is_none() {
                    let checked = Image::open(dir)
                        .map_err(GlobalError::from)
                        .and_then(|image| Ok(check(&image, &quiet(watch))?.into_result()?));
                    checked?;
                }
                Ok(made)
            })
        };
        let made = match from {
            Origin::Registry(reference) => {
                let folder = self.images.root().join(FOLDER);
                let made = self.with_layers(reference, &folder, watch, make);
                let _ = fs::remove_dir(&folder);
                made.map(|(_, made)| made)
            }
            Origin::Path(path) => {
                let layout = Layout::open(path, self.limit, watch)?;
                let (container, files) = layout.container(watch)?;
                make(&container, &files)
            }
        };
        if watch.is_over() { Err(PullError::Interrupted) } else { made }
    }

    /// Brings the layers of a container image to a folder, where they stay until something is made of them.
    fn with_layers<T>(
        &self,
        reference: &Reference,
        folder: &Path,
        watch: &Watch,
        make: impl FnOnce(&Container, &Files) -> Result<T, PullError>,
    ) -> Result<(String, T), PullError> {
        let authorization = credentials(&self.credentials, reference.host());
        let mut registry = Registry::new(self.web(), reference, authorization);
        let container = registry.container()?;
        let url = reference.to_string();
        let total = container.layers.iter().try_fold(0_u64, |sum, layer| sum.checked_add(layer.size));
        let total = total.filter(|total| *total <= self.limit);
        watch.progress.total(total.ok_or(PullError::TooLarge { url, limit: self.limit })?);
        // Each is here once, and locked in an order that is the same for all who want some of them.
        let mut digests: Vec<&String> = container.layers.iter().map(|layer| &layer.digest).collect();
        digests.sort_unstable();
        let mut files = Files::new();
        for digest in digests {
            if !files.contains_key(digest) {
                let path = folder.join(digest);
                let file = lock(&path, watch)?;
                files.insert(digest.clone(), (path, file));
            }
        }
        let mut come = Ok(());
        for layer in &container.layers {
            let Some((path, file)) = files.get_mut(&layer.digest) else { continue };
            come = registry.layer(layer, file, path, watch);
            if come.is_err() {
                break;
            }
        }
        let made = come.and_then(|()| make(&container, &files));
        for (path, file) in files.values() {
            // What is to be gone on with by the next pull stays.
            let goes_on = match &made {
                Ok(_) => false,
                Err(PullError::Global(_) | PullError::Kernel(_)) => watch.is_over(),
                Err(_) => file.metadata().is_ok_and(|meta| meta.len() > 0),
            };
            if !goes_on {
                let _ = fs::remove_file(path);
            }
        }
        made.map(|made| (container.digest, made))
    }

    /// Makes what is in an image's folder.
    fn fill(
        &self,
        container: &Container,
        files: &Files,
        dir: &Path,
        watch: &Watch,
    ) -> Result<Option<Summary>, PullError> {
        let watch = quiet(watch);
        let layers = container.layers.iter().filter_map(|layer| {
            let (_, file) = files.get(&layer.digest)?;
            let mut from = file;
            // One that cannot be wound back is read as cut off, which is an error then.
            let _ = from.rewind();
            Some((format!("The layer {}", layer.digest), watch.read(from), layer.unpacked.clone()))
        });
        let Some(config) = &container.config else {
            if self.kernel.is_some() || self.modules.is_some() {
                return Err(KernelError::HasOwn.into());
            }
            if self.guest.as_ref().is_some_and(GuestService::is_always) {
                return Err(OciError::Whole(format!("The image sha256:{}", container.digest)).into());
            }
            let mut left = self.limit;
            for (what, from, _) in layers {
                archive::unpack_more(from, dir, &mut left, self.limit, &watch)
                    .map_err(|source| GlobalError::Unpack { what, source })?;
            }
            return Ok(None);
        };
        let mut config = config.clone();
        if let Some(kernel) = &self.kernel {
            kernel.put(dir, &mut config)?;
        }
        let guest = self
            .guest
            .as_ref()
            .filter(|guest| guest.is_always() || !container::own(&config).is_some_and(starts_init));
        let options = Options {
            guest,
            modules: self.modules.as_ref(),
            interrupt: watch.interrupt,
            owner: self.owner,
            limit: self.limit,
            ..Options::default()
        };
        let layers = layers.map(|(what, from, sum)| create::Layer { from, what, sum });
        Ok(Some(from_layers(layers, dir, config, &options)?))
    }
}

/// The same without progress, which is that of what comes.
fn quiet<'a>(watch: &Watch<'a>) -> Watch<'a> {
    Watch { progress: &(), ..*watch }
}
