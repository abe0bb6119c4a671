//! Container images of registries: one for Linux on the i386 becomes an image.
//!
//! Sources: OCI Distribution Specification 1.1, "Pull"; OCI Image Format Specification 1.1, "Image Index", "Image
//! Manifest", "Image Configuration", "Image Layer Filesystem Changeset"; the registry token authentication of
//! the CNCF Distribution project.

mod reference;
mod token;

use std::fs::File;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use ureq::Body;
use ureq::http::{Response, StatusCode, header};

pub use self::reference::Reference;
pub use self::token::credentials;
use super::ImageConfig;
use super::check::hash;
use super::pull::{PullError, at};
use super::watch::Watch;
use super::web::{Headers, Web, append, good, range_of, small, text};

/// The operating system and the processor that images here are for.
const OS: &str = "linux";
const ARCHITECTURE: &str = "386";
/// The manifests and indices that are understood.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";
/// Bytes of a manifest or a configuration, at most: registries take no larger manifests.
const MAX_MANIFEST: u64 = 4 << 20;
/// Layers of an image, at most.
const MAX_LAYERS: usize = 512;
/// Indices that may lie in one another.
const MAX_INDICES: usize = 4;
/// What the configuration of an image that is made of a container image has of that one's.
const KEY: &str = "container";

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
    /// It is for other processors.
    #[error("{image} is not for {OS}/{ARCHITECTURE}, but for {}; choose an image of i386, such as docker.io/i386/…", .others.join(", "))]
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
    /// How the registry wants to know it is not known here.
    #[error("{url} asks for an authorization that is not known here: {why}")]
    Challenge {
        /// What was asked for.
        url: String,
        /// What is wrong.
        why: String,
    },
}

/// The SHA-256 of a digest, in hexadecimal.
fn digest_of(text: &str) -> Option<String> {
    let digits = text.strip_prefix("sha256:")?;
    let good = digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    good.then(|| digits.into())
}

/// An image, a configuration or a layer of a registry.
#[derive(Clone, Debug, Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

/// What an image is for.
#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    variant: Option<String>,
}

impl Platform {
    fn fits(&self) -> bool {
        self.os == OS && self.architecture == ARCHITECTURE
    }

    fn show(&self) -> String {
        let variant = self.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{}/{}{variant}", self.os, self.architecture)
    }
}

/// A manifest of an image, or an index of several.
#[derive(Debug, Deserialize)]
struct Manifest {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// The configuration of a container image.
#[derive(Debug, Deserialize)]
struct Config {
    architecture: String,
    os: String,
    #[serde(default)]
    config: Value,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// A layer that is to be brought.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its SHA-256, in hexadecimal.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// The SHA-256 that it has without its compression.
    pub unpacked: String,
}

/// A container image.
#[derive(Clone, Debug)]
pub struct Container {
    /// The SHA-256 of its manifest, in hexadecimal.
    pub digest: String,
    /// The lowest first.
    pub layers: Vec<Layer>,
    /// The configuration of an image that is made of it.
    pub config: ImageConfig,
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
        let mut renewed = false;
        loop {
            let mut headers = headers.clone();
            headers.extend(self.authorization.iter().map(|value| (header::AUTHORIZATION, value.clone())));
            let answer = self.web.ask(url, &headers)?;
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

    /// A manifest or an index, which has this digest, if one is known; and its digest.
    fn manifest(&mut self, wanted: &str, digest: Option<&str>) -> Result<(Manifest, String), PullError> {
        let url = format!("{}/manifests/{wanted}", self.reference.base());
        let answer = self.get(&url, &vec![(header::ACCEPT, MANIFESTS.into())])?;
        let bytes = small(&url, answer, MAX_MANIFEST)?;
        let have = sum(&url, &bytes, digest)?;
        let manifest = serde_json::from_slice(&bytes)
            .map_err(|error| OciError::Manifest { url, why: error.to_string() })?;
        Ok((manifest, have))
    }

    /// What the image consists of.
    pub fn container(&mut self) -> Result<Container, PullError> {
        let (mut wanted, mut digest) = (self.reference.wanted(), self.reference.digest.clone());
        for _ in 0..=MAX_INDICES {
            let (manifest, own) = self.manifest(&wanted, digest.as_deref())?;
            let url = format!("{}/manifests/{wanted}", self.reference.base());
            if let Some(manifests) = manifest.manifests {
                let chosen = self.choose(manifests, &url)?;
                (wanted, digest) = (format!("sha256:{chosen}"), Some(chosen));
                continue;
            }
            let (Some(config), Some(layers)) = (manifest.config, manifest.layers) else {
                let why = "it has neither manifests nor layers (one of the first version is not known here)";
                return Err(OciError::Manifest { url, why: why.into() }.into());
            };
            return self.image(&url, own, &config, &layers);
        }
        let url = self.reference.to_string();
        Err(OciError::Manifest { url, why: "indices lie in indices without end".into() }.into())
    }

    /// The digest of the image in an index that is for the machine.
    fn choose(&self, manifests: Vec<Descriptor>, url: &str) -> Result<String, PullError> {
        let fits = |found: &&Descriptor| found.platform.as_ref().is_none_or(Platform::fits);
        let chosen = manifests.iter().find(|found| found.platform.as_ref().is_some_and(Platform::fits));
        match chosen.or_else(|| manifests.iter().find(fits)) {
            Some(chosen) => {
                digest_of(&chosen.digest).ok_or_else(|| unknown_digest(url, &chosen.digest).into())
            }
            None => {
                let mut others: Vec<_> =
                    manifests.iter().filter_map(|found| Some(found.platform.as_ref()?.show())).collect();
                // Attestations are for no system.
                others.retain(|other| !other.starts_with("unknown/"));
                Err(OciError::Platform { image: self.reference.to_string(), others }.into())
            }
        }
    }

    fn image(
        &mut self,
        url: &str,
        digest: String,
        config: &Descriptor,
        layers: &[Descriptor],
    ) -> Result<Container, PullError> {
        let wrong = |why: String| PullError::from(OciError::Manifest { url: url.into(), why });
        let known = digest_of(&config.digest).ok_or_else(|| unknown_digest(url, &config.digest))?;
        let config_url = format!("{}/blobs/{}", self.reference.base(), config.digest);
        let bytes = small(&config_url, self.get(&config_url, &Headers::new())?, MAX_MANIFEST)?;
        sum(&config_url, &bytes, Some(&known))?;
        let config: Config = serde_json::from_slice(&bytes)
            .map_err(|error| OciError::Manifest { url: config_url, why: error.to_string() })?;
        let platform = Platform { architecture: config.architecture, os: config.os, variant: None };
        if !platform.fits() {
            let image = self.reference.to_string();
            return Err(OciError::Platform { image, others: vec![platform.show()] }.into());
        }
        let sums = config.rootfs.diff_ids;
        if layers.len() > MAX_LAYERS || layers.len() != sums.len() {
            return Err(wrong(format!(
                "it has {} layers, and {} checksums of them",
                layers.len(),
                sums.len()
            )));
        }
        let layer = |(layer, unpacked): (&Descriptor, &String)| {
            let digest = digest_of(&layer.digest).ok_or_else(|| unknown_digest(url, &layer.digest))?;
            let unpacked = digest_of(unpacked).ok_or_else(|| unknown_digest(url, unpacked))?;
            Ok::<_, OciError>(Layer { digest, size: layer.size, unpacked })
        };
        let layers = layers.iter().zip(&sums).map(layer).collect::<Result<_, _>>()?;
        let mut own = ImageConfig::default();
        let image = format!("{}@sha256:{digest}", self.reference);
        own.other.insert(KEY.into(), json!({ "image": image, "config": config.config }));
        Ok(Container { digest, layers, config: own })
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

fn unknown_digest(url: &str, digest: &str) -> OciError {
    let shown: String = digest.chars().take(80).collect();
    OciError::Manifest { url: url.into(), why: format!("`{}` is no SHA-256", shown.escape_debug()) }
}

/// The SHA-256 of bytes, which has to be this one, if one is known.
fn sum(url: &str, bytes: &[u8], want: Option<&str>) -> Result<String, PullError> {
    let have = hash(bytes, &Watch::default()).map_err(at(Path::new(url)))?;
    match want {
        Some(want) if want != have => Err(PullError::Mismatch { url: url.into(), have, want: want.into() }),
        _ => Ok(have),
    }
}
