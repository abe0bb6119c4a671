//! Registries: a container image for Linux on the i386 becomes an image, and images are kept there as they are.
//!
//! Sources: OCI Distribution Specification 1.1, "Pull"; OCI Image Format Specification 1.1, "Image Index", "Image
//! Manifest", "Image Configuration", "Image Layer Filesystem Changeset"; the registry token authentication of
//! the CNCF Distribution project.

mod folder;
mod layout;
mod make;
mod manifest;
mod push;
mod reference;
mod token;

use std::fs::File;
use std::path::{Path, PathBuf};

use thiserror::Error;
use ureq::Body;
use ureq::http::{Method, Response, StatusCode, header};

use self::folder::Folder;
pub use self::make::Origin;
use self::manifest::{Container, Kind, Layer, MAX_LAYERS, MAX_MANIFEST, PACKED, Source, digest_of};
pub use self::push::Pushed;
pub(super) use self::push::push;
pub use self::reference::Reference;
pub use self::token::credentials;
use super::Image;
use super::check::hash;
use super::pull::{PullError, at};
use super::watch::Watch;
use super::web::{Headers, Sent, Web, append, good, range_of, small, text};

/// The manifests and indices that are understood.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// Why a container image cannot be had.
#[derive(Debug, Error)]
pub enum OciError {
    /// What the registry sends is none.
    #[error("{url} is no manifest of a container image: {why}")]
    Manifest {
        /// Where it is from.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// It is no container image, but one of this program's, as a whole.
    #[error("{0} is a whole image, which gets no guest86; give one to what it was made from")]
    Whole(String),
    /// It is for other processors.
    #[error("{image} is not for linux/386, but for {}; choose an image of i386, such as docker.io/i386/…", if .others.is_empty() { "nothing".into() } else { .others.join(", ") })]
    Platform {
        /// The image.
        image: String,
        /// What it is for.
        others: Vec<String>,
    },
    /// The registry wants to know who asks.
    #[error("The registry refuses {image}; check the name, or log in with `docker login` or `podman login`")]
    Refused {
        /// The image.
        image: String,
    },
    /// An image that is pushed has too many files.
    #[error("The image `{}` has too many files beside those of `fs` to be pushed; export it instead", path.display())]
    TooMany {
        /// The image.
        path: PathBuf,
    },
    /// A folder that stands for a registry has names that this system has not.
    #[error("Files of this system cannot have colons in their names, which those in `{}` would need; push from another system", .0.display())]
    Colons(PathBuf),
    /// How the registry wants to know it is not known here.
    #[error("{url} asks for an authorization that is not known here: {why}")]
    Challenge {
        /// What was asked for.
        url: String,
        /// What is wrong.
        why: String,
    },
}

/// Pushes an image to a folder of static files. What a web server at the reference's host gives of it, an image can be
/// pulled from as from a registry.
pub fn push_to_folder(
    image: &Image,
    to: &Reference,
    folder: &Path,
    watch: &Watch,
) -> Result<Pushed, PullError> {
    push::push(image, &mut Folder::new(folder, to)?, watch)
}

/// A registry, which is asked for one image.
pub struct Registry<'a> {
    web: Web,
    reference: &'a Reference,
    /// What the user shows, as HTTP's basic authentication has it.
    credentials: Option<String>,
    /// What each request shows.
    authorization: Option<String>,
}

impl<'a> Registry<'a> {
    /// A registry, which nothing has been asked of.
    pub fn new(web: Web, reference: &'a Reference, credentials: Option<String>) -> Self {
        Self { web, reference, credentials, authorization: None }
    }

    /// A good answer; the registry is told who asks if it wants to know.
    fn get(&mut self, url: &str, headers: &Headers) -> Result<Response<Body>, PullError> {
        self.send(&Method::GET, url, headers, Sent::Nothing)
    }

    /// The same for any request.
    fn send(
        &mut self,
        method: &Method,
        url: &str,
        headers: &Headers,
        sent: Sent,
    ) -> Result<Response<Body>, PullError> {
        let mut renewed = false;
        loop {
            let mut headers = headers.clone();
            headers.extend(self.authorization.iter().map(|value| (header::AUTHORIZATION, value.clone())));
            let answer = self.web.ask(method, url, &headers, sent)?;
            match answer.status() {
                StatusCode::UNAUTHORIZED if !renewed => {
                    let challenge = text(&answer, header::WWW_AUTHENTICATE).unwrap_or_default().to_owned();
                    self.authorization = Some(self.authorize(url, &challenge)?);
                    renewed = true;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(OciError::Refused { image: self.reference.to_string() }.into());
                }
                _ => return good(url, answer),
            }
        }
    }

    /// What the image consists of.
    pub fn container(&mut self) -> Result<Container, PullError> {
        let (wanted, digest) = (self.reference.wanted(), self.reference.digest.clone());
        manifest::container(self, wanted, digest)
    }

    /// Brings a layer into a file, in which there may be a part of it.
    pub fn layer(
        &mut self,
        layer: &Layer,
        file: &mut File,
        path: &Path,
        watch: &Watch,
    ) -> Result<(), PullError> {
        let url = format!("{}/blobs/sha256:{}", self.reference.base(), layer.digest);
        let here = file.metadata().map_err(at(path))?.len();
        watch.progress.advance(here.min(layer.size));
        let (web, limit) = (self.web, (Some(layer.size), layer.size));
        web.persist(file, path, watch, |file, have| {
            if have == layer.size {
                return Ok(());
            }
            let have = if have < layer.size { have } else { 0 };
            let range = (have > 0).then(|| (header::RANGE, format!("bytes={have}-")));
            let answer = self.get(&url, &range.into_iter().collect())?;
            let goes_on = range_of(&answer).is_some_and(|(start, _)| start == have);
            append(&url, answer, (file, path), if goes_on { have } else { 0 }, limit, watch)
        })?;
        let mut from: &File = file;
        let wound = std::io::Seek::rewind(&mut from);
        let have = wound.and_then(|()| hash(from, &Watch { progress: &(), ..*watch })).map_err(at(path))?;
        if have != layer.digest {
            // The next pull begins anew.
            file.set_len(0).map_err(at(path))?;
            return Err(PullError::Mismatch { url, have, want: layer.digest.clone() });
        }
        Ok(())
    }
}

impl Source for Registry<'_> {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn place(&self, kind: Kind, what: &str) -> String {
        let folder = if kind == Kind::Manifest { "manifests" } else { "blobs" };
        format!("{}/{folder}/{what}", self.reference.base())
    }

    fn read(&mut self, kind: Kind, what: &str) -> Result<Vec<u8>, PullError> {
        let url = self.place(kind, what);
        let accept = (kind == Kind::Manifest).then(|| (header::ACCEPT, MANIFESTS.into()));
        let answer = self.get(&url, &accept.into_iter().collect())?;
        small(&url, answer, MAX_MANIFEST)
    }
}
