//! Container images in a directory or a tar archive: OCI's image layout, which `podman save --format oci-dir`, `skopeo`
//! and `docker save` write, and the older form of the latter.
//!
//! Sources: OCI Image Format Specification 1.1, "Image Layout"; Docker Image Specification 1.2, "Combined Image JSON +
//! Filesystem Changeset Format".

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::archive::inside;
use super::super::check::hash;
use super::super::create::unpacked;
use super::super::scratch::Scratch;
use super::super::tarball::{self, Members};
use super::super::watch::Watch;
use super::make::Files;
use super::manifest::{self, Container, Kind, MAX_LAYERS, MAX_MANIFEST, Source, configured, digest_of};
use super::{OciError, PullError, at};
use crate::os;

/// The index of OCI's layout, and the list of the older form.
const INDEX: &str = "index.json";
const LIST: &str = "manifest.json";

/// A container image in a directory.
#[derive(Debug)]
pub struct Layout {
    /// What the user calls it.
    path: PathBuf,
    dir: PathBuf,
    /// Where the archive was unpacked.
    _unpacked: Option<Scratch>,
}

/// An image of the older form.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

impl Layout {
    /// Opens a directory, or an archive of one, of whose files there may be so many bytes.
    pub fn open(path: &Path, limit: u64, watch: &Watch) -> Result<Self, PullError> {
        if path.is_dir() {
            return Ok(Self { path: path.into(), dir: path.into(), _unpacked: None });
        }
        let file = File::open(path).map_err(at(path))?;
        watch.progress.total(file.metadata().map_err(at(path))?.len());
        let folder = Scratch::new().map_err(at(path))?;
        unpack(watch.read(file), path, folder.path(), limit)?;
        Ok(Self { path: path.into(), dir: folder.path().into(), _unpacked: Some(folder) })
    }

    /// What the image consists of, and its layers.
    pub fn container(mut self, watch: &Watch) -> Result<(Container, Files), PullError> {
        let watch = Watch { progress: &(), ..*watch };
        let container = self.parts()?;
        let mut files = Files::new();
        for layer in &container.layers {
            // Of the older form no digests are known but those of what is in the layers.
            let known = digest_of(&format!("sha256:{}", layer.digest));
            let path = match &known {
                Some(digest) => self.dir.join("blobs/sha256").join(digest),
                None => self.dir.join(&layer.digest),
            };
            let mut file = os::open_no_follow(&path).map_err(at(&path))?;
            if let Some(want) = known {
                let have = hash(&file, &watch).map_err(at(&path))?;
                if have != want {
                    return Err(PullError::Mismatch { url: path.display().to_string(), have, want });
                }
            }
            file.rewind().map_err(at(&path))?;
            files.insert(layer.digest.clone(), (path, file));
        }
        Ok((container, files))
    }

    /// What the image consists of.
    fn parts(&mut self) -> Result<Container, PullError> {
        match self.dir.join(INDEX).exists() {
            true => manifest::container(self, String::new(), None),
            false => self.saved(),
        }
    }

    /// The image of the older form.
    fn saved(&self) -> Result<Container, PullError> {
        let shown = self.path.join(LIST).display().to_string();
        let wrong = |why: &str| OciError::Manifest { url: shown.clone(), why: why.into() };
        let list = self.small(LIST)?;
        let saved: Vec<Saved> = serde_json::from_slice(&list).map_err(|error| wrong(&error.to_string()))?;
        let Ok([Saved { config, layers }]) = <[Saved; 1]>::try_from(saved) else {
            return Err(wrong("there is not one image; save one alone").into());
        };
        if layers.len() > MAX_LAYERS {
            return Err(wrong("it has too many layers").into());
        }
        let bytes = self.small(&config)?;
        let layers = layers.into_iter().map(|layer| {
            let path = self.within(&layer)?;
            Ok((layer, fs::symlink_metadata(&path).map_err(at(&path))?.len()))
        });
        let layers = layers.collect::<Result<_, PullError>>()?;
        // There is no manifest with a digest; the configuration says what is in the layers.
        let digest = hash(&*bytes, &Watch::default()).map_err(at(&self.path))?;
        configured(&shown, &self.path.display().to_string(), digest, &bytes, layers)
    }

    /// The path of a file that the image names.
    fn within(&self, name: &str) -> Result<PathBuf, PullError> {
        let below = inside(Path::new(name)).filter(|below| below.as_os_str() == name);
        let path = below.map(|below| self.dir.join(below));
        let why = || format!("`{}` is no file of it", name.escape_debug());
        Ok(path.ok_or_else(|| OciError::Manifest { url: self.name(), why: why() })?)
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, PullError> {
        let path = self.within(name)?;
        let mut bytes = Vec::new();
        let file = os::open_no_follow(&path).map_err(at(&path))?;
        file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes).map_err(at(&path))?;
        match bytes.len() as u64 > MAX_MANIFEST {
            true => Err(PullError::TooLarge { url: path.display().to_string(), limit: MAX_MANIFEST }),
            false => Ok(bytes),
        }
    }
}

/// What tells a container image on disk from all others: its manifest's digest, or the SHA-256 of the archive that it is in.
pub fn identity(path: &Path, watch: &Watch) -> Result<String, PullError> {
    if path.is_dir() {
        return Ok(Layout { path: path.into(), dir: path.into(), _unpacked: None }.parts()?.digest);
    }
    let file = File::open(path).map_err(at(path))?;
    hash(file, watch).map_err(at(path))
}

/// Where a thing is that has this digest. The index has none.
fn file_of(what: &str) -> String {
    digest_of(what).map_or_else(|| INDEX.into(), |digest| format!("blobs/sha256/{digest}"))
}

impl Source for Layout {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn place(&self, _: Kind, what: &str) -> String {
        self.path.join(file_of(what)).display().to_string()
    }

    fn read(&mut self, _: Kind, what: &str) -> Result<Vec<u8>, PullError> {
        self.small(&file_of(what))
    }
}

/// Unpacks the files of an archive; what else is in it is not needed.
fn unpack(from: impl Read, shown: &Path, to: &Path, limit: u64) -> Result<(), PullError> {
    let what = format!("`{}`", shown.display());
    let mut members = Members::new(BufReader::new(unpacked(from, &what)?));
    let problem = |source| at(shown)(io::Error::other(source));
    let mut left = limit;
    while let Some(member) = members.next().map_err(problem)? {
        let tarball::Kind::File(size) = member.kind else { continue };
        let name = String::from_utf8_lossy(&member.path).into_owned();
        let Some(below) = inside(Path::new(&name)) else {
            let why = format!("`{}` leads out of it", name.escape_debug());
            return Err(OciError::Manifest { url: shown.display().to_string(), why }.into());
        };
        let too_large = || PullError::TooLarge { url: shown.display().to_string(), limit };
        left = left.checked_sub(size).ok_or_else(too_large)?;
        let path = to.join(below);
        fs::create_dir_all(path.parent().unwrap_or(to)).map_err(at(&path))?;
        // Nothing is written through a link: none is made.
        let mut file = File::create(&path).map_err(at(&path))?;
        io::copy(&mut members, &mut file).map_err(at(&path))?;
    }
    Ok(())
}
