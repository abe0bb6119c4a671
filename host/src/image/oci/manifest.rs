//! What a container image consists of: indices, manifests and configurations, wherever they are.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::ImageConfig;
use super::super::check::hash;
use super::super::container::KEY;
use super::super::watch::Watch;
use super::{OciError, PullError, at};

/// The operating system and the processor that images here are for.
const OS: &str = "linux";
const ARCHITECTURE: &str = "386";
/// Bytes of a manifest or a configuration, at most: registries take no larger manifests.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Layers of an image, at most.
pub const MAX_LAYERS: usize = 512;
/// Indices that may lie in one another.
const MAX_INDICES: usize = 4;
/// The type of the configuration of an image that was pushed from here.
pub const PACKED: &str = "application/vnd.env86.image.config.v1+json";

/// What is read from where container images are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A manifest or an index.
    Manifest,
    /// A configuration.
    Blob,
}

/// Where a container image is.
pub trait Source {
    /// What the image is called.
    fn name(&self) -> String;

    /// Where a thing is, for errors.
    fn place(&self, kind: Kind, what: &str) -> String;

    /// Reads a thing of [`MAX_MANIFEST`] bytes at most.
    fn read(&mut self, kind: Kind, what: &str) -> Result<Vec<u8>, PullError>;
}

/// The SHA-256 of a digest, in hexadecimal.
pub fn digest_of(text: &str) -> Option<String> {
    let digits = text.strip_prefix("sha256:")?;
    let good = digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    good.then(|| digits.into())
}

/// An image, a configuration or a layer of a registry.
#[derive(Clone, Debug, Deserialize)]
struct Descriptor {
    #[serde(default, rename = "mediaType")]
    kind: String,
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
    /// The SHA-256 that it has without its compression; `None` if it has files of an image that was pushed from here.
    pub unpacked: Option<String>,
}

/// A container image.
#[derive(Clone, Debug)]
pub struct Container {
    /// The SHA-256 of its manifest, in hexadecimal.
    pub digest: String,
    /// The lowest first.
    pub layers: Vec<Layer>,
    /// The configuration of an image that is made of it; `None` if it is an image that was pushed from here.
    pub config: Option<ImageConfig>,
}

/// What the image consists of whose manifest or index is `wanted`, and has this digest if one is known.
pub fn container(
    source: &mut dyn Source,
    mut wanted: String,
    mut digest: Option<String>,
) -> Result<Container, PullError> {
    for _ in 0..=MAX_INDICES {
        let url = source.place(Kind::Manifest, &wanted);
        let bytes = source.read(Kind::Manifest, &wanted)?;
        let own = sum(&url, &bytes, digest.as_deref())?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| OciError::Manifest { url: url.clone(), why: error.to_string() })?;
        if let Some(manifests) = manifest.manifests {
            let chosen = choose(source, manifests, &url)?;
            (wanted, digest) = (format!("sha256:{chosen}"), Some(chosen));
            continue;
        }
        let (Some(config), Some(layers)) = (manifest.config, manifest.layers) else {
            let why = "it has neither manifests nor layers (one of the first version is not known here)";
            return Err(OciError::Manifest { url, why: why.into() }.into());
        };
        return image(source, &url, own, &config, &layers);
    }
    Err(OciError::Manifest { url: source.name(), why: "indices lie in indices without end".into() }.into())
}

/// The digest of the image in an index that is for the machine.
fn choose(source: &dyn Source, manifests: Vec<Descriptor>, url: &str) -> Result<String, PullError> {
    let fits = |found: &&Descriptor| found.platform.as_ref().is_none_or(Platform::fits);
    let chosen = manifests.iter().find(|found| found.platform.as_ref().is_some_and(Platform::fits));
    match chosen.or_else(|| manifests.iter().find(fits)) {
        Some(chosen) => digest_of(&chosen.digest).ok_or_else(|| unknown_digest(url, &chosen.digest).into()),
        None => {
            let mut others: Vec<_> =
                manifests.iter().filter_map(|found| Some(found.platform.as_ref()?.show())).collect();
            // Attestations are for no system.
            others.retain(|other| !other.starts_with("unknown/"));
            Err(OciError::Platform { image: source.name(), others }.into())
        }
    }
}

fn image(
    source: &mut dyn Source,
    url: &str,
    digest: String,
    config: &Descriptor,
    layers: &[Descriptor],
) -> Result<Container, PullError> {
    let digests = layers.iter().map(|layer| {
        let digest = digest_of(&layer.digest).ok_or_else(|| unknown_digest(url, &layer.digest))?;
        Ok::<_, OciError>((digest, layer.size))
    });
    let layers: Vec<_> = digests.collect::<Result<_, _>>()?;
    if config.kind == PACKED {
        let layers = layers.into_iter().map(|(digest, size)| Layer { digest, size, unpacked: None });
        return Ok(Container { digest, layers: bounded(url, layers.collect())?, config: None });
    }
    let known = digest_of(&config.digest).ok_or_else(|| unknown_digest(url, &config.digest))?;
    let bytes = source.read(Kind::Blob, &config.digest)?;
    let place = source.place(Kind::Blob, &config.digest);
    sum(&place, &bytes, Some(&known))?;
    let name = format!("{}@sha256:{digest}", source.name());
    configured(&place, &name, digest, &bytes, layers)
}

/// A container image with this configuration, and with layers of these digests and sizes.
pub fn configured(
    url: &str,
    name: &str,
    digest: String,
    config: &[u8],
    layers: Vec<(String, u64)>,
) -> Result<Container, PullError> {
    let wrong = |why: String| OciError::Manifest { url: url.into(), why };
    let config: Config = serde_json::from_slice(config).map_err(|error| wrong(error.to_string()))?;
    let platform = Platform { architecture: config.architecture, os: config.os, variant: None };
    if !platform.fits() {
        return Err(OciError::Platform { image: name.into(), others: vec![platform.show()] }.into());
    }
    let sums = config.rootfs.diff_ids;
    if layers.len() != sums.len() {
        let (layers, sums) = (layers.len(), sums.len());
        return Err(wrong(format!("there are {layers} layers, and {sums} checksums of them")).into());
    }
    let layers = layers.into_iter().zip(&sums).map(|((digest, size), unpacked)| {
        let unpacked = digest_of(unpacked).ok_or_else(|| unknown_digest(url, unpacked))?;
        Ok::<_, OciError>(Layer { digest, size, unpacked: Some(unpacked) })
    });
    let layers = bounded(url, layers.collect::<Result<_, _>>()?)?;
    let mut own = ImageConfig::default();
    own.other.insert(KEY.into(), json!({ "image": name, "config": config.config }));
    Ok(Container { digest, layers, config: Some(own) })
}

fn bounded(url: &str, layers: Vec<Layer>) -> Result<Vec<Layer>, OciError> {
    match layers.len() {
        ..=MAX_LAYERS => Ok(layers),
        count => {
            let why = format!("it has {count} layers, and {MAX_LAYERS} is the most");
            Err(OciError::Manifest { url: url.into(), why })
        }
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
