//! Images from web servers: an archive at a URL, or in the releases of a repository.
//!
//! What has come of an archive stays in a file until the image is in its place, so that a download that breaks goes on
//! where it was, in this process or the next. The file is locked: who wants the same archive waits, and finds the
//! image. So it is with the layers of container images.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use ureq::ResponseExt;
use ureq::http::{StatusCode, header};

use super::Image;
use super::check::hash;
use super::create::CreateError;
use super::global::{GlobalError, GlobalImages, GlobalName, NAME_SUFFIX};
use super::kernel::{Kernel, KernelError};
use super::lock::{Alone, alone};
use super::modules::Chosen;
use super::oci::{self, OciError, Pushed, Registry};
use super::service::GuestService;
use super::transfer::import;
use super::watch::Watch;
use super::web::{Web, append, is_loopback, lock, range_of, small, text};
use crate::replace::replace;

/// Where repositories are.
const GITHUB: &str = "https://github.com";
/// What the name of one begins with.
const GITHUB_PREFIX: &str = "github.com/";
/// Bytes of a file with a checksum, at most.
const MAX_CHECKSUM_FILE: u64 = 4 << 10;
/// Hexadecimal digits of a SHA-256.
const HASH_DIGITS: usize = 64;
/// Folder, below the global images, of what has come of archives.
pub(super) const FOLDER: &str = ".pull";

/// Why an image cannot be pulled.
#[derive(Debug, Error)]
pub enum PullError {
    /// It names nothing that can be pulled.
    #[error(
        "`{0}` is nothing to pull; write github.com/OWNER/REPO[@TAG], https://HOST/IMAGE.tgz, or a container image as docker.io/NAME:TAG or oci://HOST/NAME:TAG"
    )]
    Reference(String),
    /// A checksum is none.
    #[error("`{0}` is no SHA-256; write 64 hexadecimal digits")]
    Checksum(String),
    /// Anyone on the way could change it.
    #[error("`{0}` is not protected on its way; use https://, or give the archive's --sha256")]
    Plain(String),
    /// There is no such repository.
    #[error("There is no repository {0}; check the name (private ones cannot be pulled)")]
    NoRepository(String),
    /// It has no releases.
    #[error("{0} has no releases to pull")]
    NoReleases(String),
    /// A release has no image.
    #[error("There is no {url}; has {repository} a release {tag} with an image?")]
    NoAsset {
        /// The URL.
        url: String,
        /// The repository.
        repository: String,
        /// The release.
        tag: String,
    },
    /// The server does not give it.
    #[error("The server says {status} to {url}{}", .wait.as_ref().map(|wait| format!("; try again after {wait} seconds")).unwrap_or_default())]
    Status {
        /// The URL.
        url: String,
        /// What the server says.
        status: StatusCode,
        /// How long the server wants to be left alone.
        wait: Option<String>,
    },
    /// The server cannot be reached, or has broken off too often.
    #[error("Cannot get {url}")]
    Http {
        /// The URL.
        url: String,
        /// Why not.
        source: Box<ureq::Error>,
    },
    /// The server has sent another number of bytes than it said.
    #[error("{url} has broken off at byte {have}{}; the next pull goes on there", .want.map(|want| format!(" of {want}")).unwrap_or_default())]
    Short {
        /// The URL.
        url: String,
        /// Bytes that have come.
        have: u64,
        /// Bytes that were to come.
        want: Option<u64>,
    },
    /// There is more than is wanted.
    #[error("{url} has more than {limit} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// Something else has come.
    #[error("{url} has the SHA-256 {have}, and not {want}: it is not what it should be, and was thrown away")]
    Mismatch {
        /// The URL.
        url: String,
        /// What has come.
        have: String,
        /// What should have.
        want: String,
    },
    /// Files.
    #[error("Cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A registry's answer, or a container image.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// The kernel that it is to have.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// It cannot become an image.
    #[error(transparent)]
    Global(#[from] GlobalError),
    /// Asked to stop.
    #[error("Interrupted; the next pull goes on where this one ended")]
    Interrupted,
    /// Asked to stop, while something was pushed.
    #[error("Interrupted; what the registry has by now is not sent again")]
    Stopped,
}

impl From<CreateError> for PullError {
    fn from(error: CreateError) -> Self {
        Self::Global(error.into())
    }
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> PullError + '_ {
    move |source| PullError::File { path: path.into(), source }
}

/// What can be pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A release of a repository.
    Release {
        /// The owner and the repository, with a slash between them.
        repository: String,
        /// The release; the latest if there is none.
        tag: Option<String>,
    },
    /// An archive.
    Url(String),
    /// A container image of a registry.
    Container(oci::Reference),
}

impl Reference {
    /// Reads `github.com/OWNER/REPO[@TAG]`, a URL, or what container images are called by.
    pub fn new(text: &str) -> Result<Self, PullError> {
        let wrong = || PullError::Reference(text.into());
        if text.starts_with("https://") || text.starts_with("http://") {
            let uri: ureq::http::Uri = text.parse().map_err(|_| wrong())?;
            // A password in it would come to be seen in messages.
            let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
            return authority.map(|_| Self::Url(text.into())).ok_or_else(wrong);
        }
        if let Some(container) = oci::Reference::new(text) {
            return Ok(Self::Container(container));
        }
        let (repository, tag) = text
            .strip_prefix(GITHUB_PREFIX)
            .map(|rest| match rest.split_once('@') {
                Some((repository, tag)) => (repository, Some(tag)),
                None => (rest, None),
            })
            .ok_or_else(wrong)?;
        let good = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
            !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
        };
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| good(part)) || tag.is_some_and(|tag| !good(tag)) {
            return Err(wrong());
        }
        let tag = tag.filter(|tag| *tag != "latest").map(Into::into);
        Ok(Self::Release { repository: repository.into(), tag })
    }
}

/// How an image is pulled.
#[derive(Clone, Debug)]
pub struct Puller {
    /// Where it comes to.
    pub images: GlobalImages,
    /// Where repositories are.
    pub github: String,
    /// The SHA-256 that the archive must have, in hexadecimal.
    pub sha256: Option<String>,
    /// The kernel that a container image gets, which has none.
    pub kernel: Option<Kernel>,
    /// Kernel modules that a container image gets.
    pub modules: Option<Chosen>,
    /// The guest86 that a container image gets.
    pub guest: Option<GuestService>,
    /// Owner and group of every file that a container image has, instead of those of the layers.
    pub owner: Option<(u32, u32)>,
    /// Files with what is shown to registries, as container programs keep them. The first one that has something
    /// for a registry counts.
    pub credentials: Vec<PathBuf>,
    /// Bytes that the files of an image may have, and its archive.
    pub limit: u64,
    /// How long a server may send nothing.
    pub patience: Duration,
    /// How long to wait before the first new try.
    pub pause: Duration,
}

/// What was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image's name.
    pub name: GlobalName,
    /// Where it is.
    pub path: PathBuf,
    /// The SHA-256 of the archive, or of the container image's manifest; `None` if the image was there already.
    pub sha256: Option<String>,
}

/// What is known of an archive that has not come as a whole.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    url: String,
    /// What the server calls this version of it.
    version: Option<String>,
    /// Its size in bytes.
    total: Option<u64>,
}

impl Puller {
    /// Pulls to these images.
    pub fn new(images: GlobalImages) -> Self {
        Self {
            images,
            github: GITHUB.into(),
            sha256: None,
            kernel: None,
            modules: None,
            guest: None,
            owner: None,
            credentials: Vec::new(),
            limit: u64::MAX,
            patience: Duration::from_secs(30),
            pause: Duration::from_secs(1),
        }
    }

    /// Pulls an image, if it is not there. It is called `name`, or after what is pulled. The latest release of a
    /// repository is the one that is meant without a tag afterwards.
    pub fn pull(
        &self,
        from: &Reference,
        name: Option<GlobalName>,
        watch: &Watch,
    ) -> Result<Pulled, PullError> {
        if let Some(sum) = &self.sha256
            && !is_hash(sum)
        {
            return Err(PullError::Checksum(sum.clone()));
        }
        match from {
            Reference::Url(url) => {
                let name = match name {
                    Some(name) => name,
                    None => GlobalName::new(stem(url)).map_err(|_| PullError::Reference(url.clone()))?,
                };
                self.archive(url, name.or_local(), watch)
            }
            Reference::Container(reference) => {
                let name = name.map_or_else(|| reference.name(), |name| Ok(name.or_local()))?;
                self.once(&format!("oci://{name}"), name, watch, |name, turn| {
                    self.container(reference, name, turn, watch)
                })
            }
            Reference::Release { repository, tag } => {
                let base = repository.strip_suffix(NAME_SUFFIX).unwrap_or(repository);
                let known = match tag {
                    Some(tag) => Some(GlobalName::new(&format!("{GITHUB_PREFIX}{base}@{tag}"))?),
                    None => None,
                };
                if let (None, Some(known)) = (&name, &known)
                    && self.images.place(known).exists()
                {
                    return Ok(Pulled { path: self.images.place(known), name: known.clone(), sha256: None });
                }
                let (url, latest) = self.repository(repository, tag.is_none())?;
                let release = tag.clone().or(latest).ok_or_else(|| PullError::NoReleases(url.clone()))?;
                let file = base.rsplit('/').next().unwrap_or(base);
                let asset = format!("{url}/releases/download/{release}/{file}-{release}.tgz");
                let own = GlobalName::new(&format!("{GITHUB_PREFIX}{base}@{release}"))?;
                let named = name.is_some();
                let pulled = self.archive(&asset, name.map_or(own, GlobalName::or_local), watch);
                let pulled = pulled.map_err(|error| match error {
                    PullError::Status { url, status: StatusCode::NOT_FOUND, .. } => {
                        PullError::NoAsset { url, repository: repository.clone(), tag: release }
                    }
                    error => error,
                })?;
                if tag.is_none() && !named {
                    self.images.link_latest(&pulled.name)?;
                }
                Ok(pulled)
            }
        }
    }

    /// The URL of a repository, whose name may be without its suffix, and its latest release, if that is asked for.
    fn repository(&self, repository: &str, latest: bool) -> Result<(String, Option<String>), PullError> {
        let mut url = format!("{}/{repository}", self.github);
        if let Err(error) = self.web().get(&url, &[]) {
            let missing = matches!(error, PullError::Status { status: StatusCode::NOT_FOUND, .. });
            if !missing || repository.ends_with(NAME_SUFFIX) {
                return Err(if missing { PullError::NoRepository(url) } else { error });
            }
            let other = format!("{url}{NAME_SUFFIX}");
            self.web().get(&other, &[]).map_err(|error| match error {
                PullError::Status { status: StatusCode::NOT_FOUND, .. } => PullError::NoRepository(url),
                error => error,
            })?;
            url = other;
        }
        if !latest {
            return Ok((url, None));
        }
        let answer = self.web().get(&format!("{url}/releases/latest"), &[]).map_err(|error| match error {
            PullError::Status { status: StatusCode::NOT_FOUND, .. } => PullError::NoReleases(url.clone()),
            error => error,
        })?;
        // It leads to the release's page, or to an empty list.
        let path = answer.get_uri().path().trim_end_matches('/');
        let release = path.rsplit('/').next().filter(|last| *last != "releases" && *last != "latest");
        Ok((url, release.map(Into::into)))
    }

    /// Pulls an archive.
    fn archive(&self, url: &str, name: GlobalName, watch: &Watch) -> Result<Pulled, PullError> {
        if url.starts_with("http:")
            && self.sha256.is_none()
            && !is_loopback(url)
            && !self.images.place(&name).exists()
        {
            return Err(PullError::Plain(url.into()));
        }
        self.once(url, name, watch, |name, part| self.bring(url, name, part, watch))
    }

    /// Pulls what is not there. `bring` gets a file for what comes, by a name that stands for `key`, and gives the
    /// SHA-256.
    fn once(
        &self,
        key: &str,
        name: GlobalName,
        watch: &Watch,
        bring: impl FnOnce(&GlobalName, &Path) -> Result<String, PullError>,
    ) -> Result<Pulled, PullError> {
        let path = self.images.place(&name);
        let there = |path: PathBuf| Ok(Pulled { name: name.clone(), path, sha256: None });
        if path.exists() {
            return there(path);
        }
        let folder = self.images.root().join(FOLDER);
        let key = hash(key.as_bytes(), &Watch::default()).map_err(at(&folder))?;
        let done = bring(&name, &folder.join(&key[..16]));
        // It is not empty while there is more to come.
        let _ = fs::remove_dir(&folder);
        match done {
            Ok(sha256) => Ok(Pulled { name, path, sha256: Some(sha256) }),
            // Another process has pulled it meanwhile.
            Err(PullError::Global(GlobalError::Exists(_))) => there(path),
            Err(_) if watch.is_over() => Err(PullError::Interrupted),
            Err(error) => Err(error),
        }
    }

    fn bring(&self, url: &str, name: &GlobalName, part: &Path, watch: &Watch) -> Result<String, PullError> {
        let mut file = lock(part, watch)?;
        let notes = part.with_extension("json");
        let forget = || {
            // The lock goes with the file, and what waits for it finds the image, or begins anew.
            let _ = fs::remove_file(&notes);
            let _ = fs::remove_file(part);
        };
        if self.images.place(name).exists() {
            forget();
            return Err(GlobalError::Exists(name.clone()).into());
        }
        let want = match &self.sha256 {
            Some(sum) => Ok(Some(sum.to_ascii_lowercase())),
            None => self.checksum(url),
        };
        let come = want.and_then(|want| self.download(url, &mut file, &notes, watch).map(|()| want));
        let nothing = file.metadata().is_ok_and(|meta| meta.len() == 0);
        if nothing || matches!(come, Err(PullError::TooLarge { .. })) {
            forget();
        }
        let want = come?;
        file.rewind().map_err(at(part))?;
        let have = hash(&file, &Watch { progress: &(), ..*watch }).map_err(at(part))?;
        if let Some(want) = want.filter(|want| *want != have) {
            forget();
            return Err(PullError::Mismatch { url: url.into(), have, want });
        }
        file.rewind().map_err(at(part))?;
        let imported =
            import(&self.images, name, false, (url, &file), self.limit, &Watch { progress: &(), ..*watch });
        if !watch.is_over() {
            // Bytes that make no image are not worth keeping.
            forget();
        }
        imported?;
        Ok(have)
    }

    /// The checksum that is beside an archive, if the server has one.
    fn checksum(&self, url: &str) -> Result<Option<String>, PullError> {
        let url = format!("{url}.sha256");
        let answer = match self.web().get(&url, &[]) {
            Ok(answer) => answer,
            Err(PullError::Status { status, .. })
                if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // Some servers have a page for all that they do not have.
        let Ok(text) = small(&url, answer, MAX_CHECKSUM_FILE) else { return Ok(None) };
        let text = String::from_utf8_lossy(&text);
        // `sha256sum` writes the name behind it.
        Ok(text.split_whitespace().next().filter(|word| is_hash(word)).map(str::to_ascii_lowercase))
    }

    /// Brings the whole archive into the file.
    fn download(&self, url: &str, file: &mut File, notes: &Path, watch: &Watch) -> Result<(), PullError> {
        let mut known: Known =
            fs::read(notes).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if known.url != url || known.version.is_none() {
            known = Known { url: url.into(), ..Known::default() };
            file.set_len(0).map_err(at(notes))?;
        }
        watch.progress.advance(file.metadata().map_err(at(notes))?.len());
        self.web().persist(file, notes, watch, |file, before| match known.total {
            Some(total) if total == before => Ok(()),
            _ => self.attempt(&mut known, before, file, notes, watch),
        })
    }

    /// Asks for what is missing and appends it.
    fn attempt(
        &self,
        known: &mut Known,
        have: u64,
        file: &mut File,
        notes: &Path,
        watch: &Watch,
    ) -> Result<(), PullError> {
        let url = known.url.clone();
        let mut headers = Vec::new();
        if let (Some(version), 1..) = (&known.version, have) {
            headers.push((header::RANGE, format!("bytes={have}-")));
            headers.push((header::IF_RANGE, version.clone()));
        }
        let answer = match self.web().get(&url, &headers) {
            // What is here is more than there is.
            Err(PullError::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) => {
                file.set_len(0).map_err(at(notes))?;
                known.version = None;
                self.web().get(&url, &[])?
            }
            answer => answer?,
        };
        let range = range_of(&answer);
        let goes_on = range.is_some_and(|(start, _)| start == have);
        // Else it begins anew.
        let have = if goes_on { have } else { 0 };
        file.set_len(have).map_err(at(notes))?;
        known.total = match goes_on {
            true => range.and_then(|(_, total)| total),
            false => text(&answer, header::CONTENT_LENGTH).and_then(|len| len.parse().ok()),
        };
        // A weak tag stands for what is equal, not the same.
        let tag = text(&answer, header::ETAG).filter(|tag| !tag.starts_with("W/"));
        known.version = tag.or(text(&answer, header::LAST_MODIFIED)).map(Into::into);
        if known.total.is_some_and(|total| total > self.limit) {
            return Err(PullError::TooLarge { url, limit: self.limit });
        }
        if let Some(total) = known.total {
            watch.progress.total(total);
        }
        let noted = serde_json::to_vec(known).map_err(io::Error::from);
        noted.and_then(|text| replace(notes, |mut to| to.write_all(&text))).map_err(at(notes))?;
        append(&url, answer, (file, notes), have, (known.total, self.limit), watch)
    }

    /// Pushes an image to a registry.
    pub fn push(&self, image: &Image, to: &oci::Reference, watch: &Watch) -> Result<Pushed, PullError> {
        let authorization = oci::credentials(&self.credentials, to.host());
        oci::push(image, &mut Registry::new(self.web(), to, authorization), watch)
    }

    pub(super) fn web(&self) -> Web {
        Web { patience: self.patience, pause: self.pause }
    }
}

/// Removes what has come of archives that no one is bringing, below these global images; gives the bytes.
pub(super) fn sweep(root: &Path) -> u64 {
    let folder = root.join(FOLDER);
    let mut bytes = 0;
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let part = entry.path();
        if part.extension().is_some() || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Alone::Had(lock) = alone(&part) else { continue };
        let size = lock.file().metadata().map_or(0, |meta| meta.len());
        let _ = fs::remove_file(part.with_extension("json"));
        bytes += if fs::remove_file(&part).is_ok() { size } else { 0 };
    }
    let _ = fs::remove_dir(&folder);
    bytes
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The name of the file that a URL leads to, as far as it is an image's.
fn stem(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let file = path.rsplit('/').next().unwrap_or(path);
    [".tgz", ".tar.gz"].iter().find_map(|end| file.strip_suffix(end)).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_repository_or_a_url() {
        let release = |repository: &str, tag: Option<&str>| Reference::Release {
            repository: repository.into(),
            tag: tag.map(Into::into),
        };
        let new = |text| Reference::new(text).unwrap();
        assert_eq!(new("github.com/a/b"), release("a/b", None));
        assert_eq!(new("github.com/a/b-env86@v1.0"), release("a/b-env86", Some("v1.0")));
        assert_eq!(new("github.com/a/b@latest"), release("a/b", None));
        assert_eq!(new("https://x.org/a.tgz"), Reference::Url("https://x.org/a.tgz".into()));
        for text in [
            "",
            "a",
            "github.com/a",
            "github.com/a/b/c",
            "github.com/a/..",
            "github.com/a/b@",
            "https://",
            "https://u:p@x.org/a",
            "ftp://x/y",
            "github.com/a/b@x/y",
        ] {
            assert!(matches!(Reference::new(text), Err(PullError::Reference(_))), "{text}");
        }
        assert_eq!(["https://x/a.tgz?b=c/d", "https://x/b.tar.gz", "https://x/c"].map(stem), ["a", "b", "c"]);
    }
}
