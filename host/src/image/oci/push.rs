//! Images to registries, and to folders that stand for them, as artifacts of their own kind.
//!
//! The configuration is `image.json`. Each layer is a gzipped tar archive of some of the image's files: one for
//! each file, but for contents, of which those are in one layer whose names begin with the same digits. The same files
//! always give the same layers, so that a changed state or a few changed contents move few bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use serde_json::{Value, json};
use ureq::http::{Method, StatusCode, header};

use super::super::watch::Watch;
use super::super::web::{Headers, Sent, text};
use super::super::{BLOB_DIR, CONFIG_FILE, Image, archive};
use super::{MAX_LAYERS, OciError, PACKED, PullError, Registry, at, hash};

/// Types of what is pushed.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT: &str = "application/vnd.env86.image.v1";
const LAYER: &str = "application/vnd.env86.image.layer.v1.tar+gzip";
/// Bytes of contents above which they are in more layers.
const MANY: u64 = 64 << 20;

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The SHA-256 of the manifest, in hexadecimal.
    pub digest: String,
    /// Bytes of what makes up the image.
    pub total: u64,
    /// Those of them that were not there.
    pub sent: u64,
}

/// Where an image is pushed to. Digests are with `sha256:` before them.
pub trait Target {
    /// It has what has this digest, and so many bytes.
    fn has(&mut self, digest: &str, size: u64, watch: &Watch) -> Result<bool, PullError>;

    /// Takes a file.
    fn put(&mut self, digest: &str, file: &File, watch: &Watch) -> Result<(), PullError>;

    /// Takes the manifest, with which the image is there.
    fn publish(&mut self, digest: &str, manifest: &[u8], watch: &Watch) -> Result<(), PullError>;
}

/// Pushes an image.
pub fn push(image: &Image, to: &mut dyn Target, watch: &Watch) -> Result<Pushed, PullError> {
    let dir = image.dir();
    let files = archive::files(dir).map_err(at(dir))?;
    let sizes = || files.iter().filter_map(|(path, size)| Some((path, (*size)?)));
    watch.progress.total(sizes().map(|(_, size)| size).sum());
    let contents: u64 = sizes().filter(|(path, _)| path.starts_with(BLOB_DIR)).map(|(_, size)| size).sum();
    let digits = if contents > MANY { 2 } else { 1 };
    let mut groups: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (path, size) in files {
        let name = path.strip_prefix(BLOB_DIR).ok().and_then(|name| name.to_str());
        let group = match name {
            Some(name) => format!("{BLOB_DIR}/{}", name.chars().take(digits).collect::<String>()),
            None => path.display().to_string(),
        };
        // Directories are made with their files.
        if size.is_some() {
            groups.entry(group).or_default().push((path, size));
        }
    }
    if groups.len() > MAX_LAYERS {
        return Err(OciError::TooMany { path: image.path().into() }.into());
    }
    let mut pushed = Pushed { digest: String::new(), total: 0, sent: 0 };
    let mut layers = Vec::new();
    let quiet = Watch { progress: &(), ..*watch };
    for group in groups.into_values() {
        let packed = tempfile::tempfile().map_err(at(dir))?;
        let packing = BufWriter::new(&packed);
        if let Err(error) = archive::pack_some(dir, group, packing, watch) {
            return Err(if watch.is_over() { PullError::Stopped } else { at(dir)(error) });
        }
        layers.push(blob(to, &packed, LAYER, &mut pushed, &quiet)?);
    }
    let config = dir.join(CONFIG_FILE);
    let config = blob(to, &File::open(&config).map_err(at(&config))?, PACKED, &mut pushed, &quiet)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": config,
        "layers": layers,
    });
    let manifest = manifest.to_string().into_bytes();
    pushed.digest = hash(&*manifest, &quiet).map_err(at(dir))?;
    to.publish(&format!("sha256:{}", pushed.digest), &manifest, &quiet)?;
    Ok(pushed)
}

/// Pushes a file, if it is not there; gives its descriptor.
fn blob(
    to: &mut dyn Target,
    file: &File,
    kind: &str,
    pushed: &mut Pushed,
    watch: &Watch,
) -> Result<Value, PullError> {
    let unreadable = Path::new(BLOB_DIR);
    let mut from = file;
    let digest = io::Seek::rewind(&mut from).and_then(|()| hash(from, watch));
    if watch.is_over() {
        return Err(PullError::Stopped);
    }
    let digest = format!("sha256:{}", digest.map_err(at(unreadable))?);
    let size = file.metadata().map_err(at(unreadable))?.len();
    if !to.has(&digest, size, watch)? {
        to.put(&digest, file, watch)?;
        pushed.sent += size;
    }
    pushed.total += size;
    Ok(json!({ "mediaType": kind, "digest": digest, "size": size }))
}

impl Target for Registry<'_> {
    fn has(&mut self, digest: &str, _: u64, watch: &Watch) -> Result<bool, PullError> {
        let url = format!("{}/blobs/{digest}", self.reference.base());
        let web = self.web;
        web.insist(watch, || match self.send(&Method::HEAD, &url, &Headers::new(), Sent::Nothing) {
            Ok(_) => Ok(true),
            Err(PullError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        })
    }

    fn put(&mut self, digest: &str, file: &File, watch: &Watch) -> Result<(), PullError> {
        let web = self.web;
        web.insist(watch, || self.upload(digest, file))
    }

    fn publish(&mut self, _: &str, manifest: &[u8], watch: &Watch) -> Result<(), PullError> {
        let url = format!("{}/manifests/{}", self.reference.base(), self.reference.wanted());
        let headers = vec![(header::CONTENT_TYPE, MANIFEST.into())];
        let web = self.web;
        web.insist(watch, || self.send(&Method::PUT, &url, &headers, Sent::Bytes(manifest))).map(drop)
    }
}

impl Registry<'_> {
    /// Sends a file as a whole.
    fn upload(&mut self, digest: &str, file: &File) -> Result<(), PullError> {
        let base = self.reference.base();
        let url = format!("{base}/blobs/uploads/");
        let answer = self.send(&Method::POST, &url, &Headers::new(), Sent::Bytes(b""))?;
        let wrong = |why: &str| OciError::Challenge { url: url.clone(), why: why.into() };
        let place = text(&answer, header::LOCATION).ok_or_else(|| wrong("it does not say where to"))?;
        // The host of the registry, which is what is told who asks, is what stands between the slashes.
        let origin: String = base.split_inclusive('/').take(3).collect();
        let origin = origin.trim_end_matches('/');
        let place = if place.starts_with('/') { format!("{origin}{place}") } else { place.to_owned() };
        if !place.strip_prefix(origin).is_some_and(|rest| rest.starts_with('/')) {
            return Err(wrong("it wants the bytes to go to another server").into());
        }
        let place = format!("{place}{}digest={digest}", if place.contains('?') { '&' } else { '?' });
        let headers = vec![(header::CONTENT_TYPE, "application/octet-stream".into())];
        self.send(&Method::PUT, &place, &headers, Sent::File(file)).map(drop)
    }
}
