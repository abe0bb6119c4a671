//! Global images: those that have a name, below one folder.
//!
//! ```text
//! NAME/TAG          an image, or an archive of one; NAME may have slashes
//! NAME/latest       the tag that is meant without one; it may be a link to another tag
//! ```
//!
//! Contents that two images share are one file of the host's, by hard links: nothing writes to a content.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use thiserror::Error;

use super::check::{self, CheckError, Contents, check};
use super::create::CreateError;
use super::lock::{Alone, Lock, alone, sweep};
use super::staging::{Staging, is_staging};
use super::watch::Watch;
use super::{
    BLOB_DIR, COMPRESSED_STATE_FILE, CONFIG_FILE, Image, ImageError, STATE_FILE, archive, global_root,
};
use crate::os;
use crate::replace::sweep_all;

/// The tag that is meant when none is given.
const DEFAULT_TAG: &str = "latest";
/// Where an image lies that was made here rather than pulled.
const LOCAL_TAG: &str = "local";
/// A suffix that repositories of images carry and names leave out.
pub(super) const NAME_SUFFIX: &str = "-env86";
/// Parts of a name, which bounds the search for images.
const MAX_PARTS: usize = 8;

/// Why something cannot be done with global images.
#[derive(Debug, Error)]
pub enum GlobalError {
    /// It is no name.
    #[error(
        "`{0}` is no name for an image; write NAME or NAME@TAG, such as debian@12 or github.com/owner/repo"
    )]
    Name(String),
    /// There is no home.
    #[error("There is no place for global images; set ENV86_PATH to a folder")]
    NoRoot,
    /// The name is taken.
    #[error("There is an image called `{0}` already; choose another name, or replace it with --force")]
    Exists(GlobalName),
    /// There is no such image.
    #[error("There is no image called `{0}`; `env86 images` lists them")]
    Unknown(GlobalName),
    /// A name without a tag means one of several.
    #[error("`{name}` has several tags, {}; say which with NAME@TAG", .tags.join(", "))]
    Several {
        /// The name.
        name: GlobalName,
        /// Its tags.
        tags: Vec<String>,
    },
    /// A machine uses it.
    #[error("The image `{name}` is used by {user}")]
    InUse {
        /// The image.
        name: GlobalName,
        /// What uses it, and what to do.
        user: String,
    },
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An image is damaged.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// No image can be made of what comes.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// What comes is no archive of an image.
    #[error("{what} cannot be unpacked as an image")]
    Unpack {
        /// What comes.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// Files.
    #[error("Cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Asked to stop.
    #[error("Interrupted; nothing was changed")]
    Interrupted,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> GlobalError + '_ {
    move |source| GlobalError::File { path: path.into(), source }
}

/// The name of a global image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GlobalName {
    /// The name, which may have slashes.
    pub name: String,
    /// The tag, if one is given.
    pub tag: Option<String>,
}

impl GlobalName {
    /// Reads `NAME[@TAG]`. What could lead out of the folder of global images is no name.
    pub fn new(text: &str) -> Result<Self, GlobalError> {
        let (name, tag) = match text.split_once('@') {
            Some((name, tag)) => (name, Some(tag)),
            None => (text, None),
        };
        let name = name.strip_suffix(NAME_SUFFIX).unwrap_or(name);
        let good = |part: &str| {
            let bad = |c: char| c.is_control() || c == '/' || std::path::is_separator(c);
            // A dot in front is for what is being made.
            !part.is_empty() && !part.starts_with('.') && !part.contains(bad) && !part.contains(['@', ':'])
        };
        if !name.split('/').all(good)
            || name.split('/').count() > MAX_PARTS
            || tag.is_some_and(|tag| !good(tag))
        {
            return Err(GlobalError::Name(text.into()));
        }
        Ok(Self { name: name.into(), tag: tag.map(Into::into) })
    }

    /// The same with the tag of what is made here, if it has none.
    #[must_use]
    pub fn or_local(self) -> Self {
        Self { tag: self.tag.or_else(|| Some(LOCAL_TAG.into())), ..self }
    }

    /// Where the image may be, best first.
    pub fn candidates(&self, root: &Path) -> Vec<PathBuf> {
        let folder = root.join(&self.name);
        match &self.tag {
            Some(tag) => vec![folder.join(tag)],
            None => [DEFAULT_TAG, LOCAL_TAG].map(|tag| folder.join(tag)).into(),
        }
    }
}

impl fmt::Display for GlobalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.tag.iter().try_for_each(|tag| write!(f, "@{tag}"))
    }
}

/// An image of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name and tag.
    pub name: GlobalName,
    /// Its directory or archive.
    pub path: PathBuf,
    /// The tag that this one is a link to.
    pub link: Option<String>,
    /// What it takes.
    pub size: Size,
    /// It holds a saved state; of an archive this is not known.
    pub has_state: Option<bool>,
    /// Seconds since 1970, when it was made or put here.
    pub made: u64,
}

/// Bytes of an image's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// All of them.
    pub bytes: u64,
    /// Those of them that other global images have, too.
    pub shared: u64,
}

/// The folder of global images.
#[derive(Clone, Debug)]
pub struct GlobalImages {
    root: PathBuf,
}

impl GlobalImages {
    /// The user's.
    pub fn new() -> Result<Self, GlobalError> {
        Ok(Self::within(global_root().ok_or(GlobalError::NoRoot)?))
    }

    /// Those in a folder, which need not be there yet.
    pub fn within(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the image of a name is, or would be.
    pub fn place(&self, name: &GlobalName) -> PathBuf {
        self.root.join(&name.name).join(name.tag.as_deref().unwrap_or(LOCAL_TAG))
    }

    /// All of them, in the order of their names.
    pub fn list(&self) -> Result<Vec<Listed>, GlobalError> {
        let mut found = Vec::new();
        search(&self.root, &mut Vec::new(), &mut found)?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        // A file with several names is looked for in the other images.
        let mut files = HashMap::new();
        for image in &found {
            let own = if image.link.is_none() { Files::of(&image.path)? } else { Files::default() };
            files.insert(image.path.clone(), own);
        }
        let mut images: HashMap<(u64, u64), usize> = HashMap::new();
        for own in files.values() {
            own.linked.keys().for_each(|link| *images.entry(*link).or_default() += 1);
        }
        for image in &mut found {
            let target = image.link.as_deref().map(|tag| image.path.with_file_name(tag));
            let Some(own) = files.get(target.as_ref().unwrap_or(&image.path)) else { continue };
            let shared = own.linked.iter().filter(|(link, _)| images[link] > 1).map(|(_, size)| size).sum();
            image.size = Size { bytes: own.bytes, shared };
        }
        Ok(found)
    }

    /// Adds an image that `fill` puts into a folder. It is checked, shares its contents with the other images,
    /// and is there as a whole or not at all. What has the name is only replaced if `force` says so.
    pub fn add(
        &self,
        name: &GlobalName,
        force: bool,
        watch: &Watch,
        fill: impl FnOnce(&Path) -> Result<(), GlobalError>,
    ) -> Result<PathBuf, GlobalError> {
        let place = self.place(name);
        let known = name.clone().or_local();
        let exists = || fs::symlink_metadata(&place).is_ok();
        if exists() && !force {
            return Err(GlobalError::Exists(known));
        }
        // Before the work is done in vain.
        drop(free(&place, &known)?);
        let folder = self.root.join(&name.name);
        let added = self.fill(&folder, (&place, &known), force, watch, fill);
        if let Err(GlobalError::File { source, .. }) = &added
            && source.kind() == io::ErrorKind::AlreadyExists
        {
            return Err(GlobalError::Exists(known));
        }
        if added.is_err() {
            self.tidy(&folder);
        }
        added.map(|()| place)
    }

    fn fill(
        &self,
        folder: &Path,
        (place, known): (&Path, &GlobalName),
        force: bool,
        watch: &Watch,
        fill: impl FnOnce(&Path) -> Result<(), GlobalError>,
    ) -> Result<(), GlobalError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let staging = Staging::new(place).map_err(|(path, source)| GlobalError::File { path, source })?;
        let filled = fill(staging.path()).and_then(|()| {
            let found = check(&Image::open(staging.path())?, watch)?;
            found.into_result()?;
            self.share(staging.path())
        });
        if watch.is_over() {
            return Err(GlobalError::Interrupted);
        }
        filled?;
        if force {
            remove_aside(place, free(place, known)?)?;
        }
        staging.publish(place).map_err(at(place))
    }

    /// Makes contents that are in other images, too, one file with theirs.
    fn share(&self, dir: &Path) -> Result<(), GlobalError> {
        let mut found = Vec::new();
        search(&self.root, &mut Vec::new(), &mut found)?;
        let own = dir.join(BLOB_DIR);
        for image in found.iter().filter(|image| image.link.is_none()) {
            let others = image.path.join(BLOB_DIR);
            let Ok(entries) = fs::read_dir(&others) else { continue };
            for entry in entries.flatten() {
                let (from, to) = (entry.path(), own.join(entry.file_name()));
                let metas = (fs::symlink_metadata(&from), fs::symlink_metadata(&to));
                let (Ok(from_meta), Ok(to_meta)) = metas else { continue };
                let files = from_meta.is_file() && to_meta.is_file();
                let one = os::attributes(&from_meta)
                    .link
                    .is_some_and(|link| os::attributes(&to_meta).link == Some(link));
                if files && !one && from_meta.len() == to_meta.len() && same(&from, &to).unwrap_or(false) {
                    // A file system without links, or with no more of them for this file, has two files.
                    let aside = own.join(".shared");
                    if fs::hard_link(&from, &aside).is_ok() {
                        fs::rename(&aside, &to).map_err(at(&to))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives an image one more name, with the same contents; what may be written to is copied.
    pub fn tag(
        &self,
        image: &Image,
        name: &GlobalName,
        force: bool,
        watch: &Watch,
    ) -> Result<PathBuf, GlobalError> {
        self.add(name, force, watch, |to| copy(image.dir(), to, 0, watch))
    }

    /// Makes the tag that is meant without one a link to this one. A real image of that tag stays as it is.
    pub fn link_latest(&self, name: &GlobalName) -> Result<(), GlobalError> {
        let (folder, Some(tag)) = (self.root.join(&name.name), &name.tag) else { return Ok(()) };
        let link = folder.join(DEFAULT_TAG);
        if tag == DEFAULT_TAG || fs::symlink_metadata(&link).is_ok_and(|meta| !meta.is_symlink()) {
            return Ok(());
        }
        let aside = Staging::new(&link).map_err(|(path, source)| GlobalError::File { path, source })?;
        let made = aside.path().join(DEFAULT_TAG);
        os::link_directory(Path::new(tag), &made).and_then(|()| fs::rename(&made, &link)).map_err(at(&link))
    }

    /// Removes an image and the links to it, or only a link; gives their names. Without a tag, the image is the
    /// only one of its name.
    pub fn remove(&self, name: &GlobalName) -> Result<Vec<GlobalName>, GlobalError> {
        let mut found = Vec::new();
        search(&self.root, &mut Vec::new(), &mut found)?;
        found.retain(|image| image.name.name == name.name);
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let chosen = match &name.tag {
            Some(tag) => found.iter().find(|image| image.name.tag.as_ref() == Some(tag)),
            None => {
                let mut images = found.iter().filter(|image| image.link.is_none());
                let first = images.next();
                if images.next().is_some() {
                    let tags = found.iter().filter_map(|image| image.name.tag.clone()).collect();
                    return Err(GlobalError::Several { name: name.clone(), tags });
                }
                first
            }
        };
        let chosen = chosen.ok_or_else(|| GlobalError::Unknown(name.clone()))?;
        let lock = free(&chosen.path, &chosen.name)?;
        let mut removed = Vec::new();
        for link in &found {
            if chosen.link.is_none() && link.link.is_some() && link.link == chosen.name.tag {
                fs::remove_file(&link.path).map_err(at(&link.path))?;
                removed.push(link.name.clone());
            }
        }
        remove_aside(&chosen.path, lock)?;
        removed.push(chosen.name.clone());
        self.tidy(&self.root.join(&name.name));
        Ok(removed)
    }

    /// Removes what no image needs: what commands that were killed have left behind, downloads that broke off and
    /// no one goes on with, and contents that their image's index does not name.
    pub fn collect(&self, watch: &Watch) -> Result<Collected, GlobalError> {
        let mut collected =
            Collected { unfinished: self.sweep(&self.root, 0, watch)?, ..Collected::default() };
        let mut found = Vec::new();
        search(&self.root, &mut Vec::new(), &mut found)?;
        for image in found.iter().filter(|image| image.link.is_none() && image.path.is_dir()) {
            watch.check().map_err(|_| GlobalError::Interrupted)?;
            // A machine may need what was in an index when it was saved.
            let Alone::Had(_lock) = alone(&image.path) else { continue };
            let opened = match Image::open(&image.path) {
                Ok(opened) if !opened.has_state() => opened,
                _ => continue,
            };
            for path in unused(&opened)? {
                let bytes = fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
                fs::remove_file(&path).map_err(at(&path))?;
                collected.contents += 1;
                collected.contents_bytes += bytes;
            }
        }
        Ok(collected)
    }

    /// Removes what is unfinished below a folder, and folders that are empty then; gives the bytes.
    fn sweep(&self, folder: &Path, depth: usize, watch: &Watch) -> Result<u64, GlobalError> {
        watch.check().map_err(|_| GlobalError::Interrupted)?;
        let mut bytes = sweep(folder, is_staging) + sweep_all(folder);
        #[cfg(feature = "pull")]
        if depth == 0 {
            bytes += super::pull::sweep(folder);
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let hidden = name.as_encoded_bytes().starts_with(b".");
            if is_folder && path.join(CONFIG_FILE).exists() {
                // What a save that was killed had written.
                bytes += sweep_all(&path);
            } else if is_folder && !hidden && depth < MAX_PARTS {
                bytes += self.sweep(&path, depth + 1, watch)?;
                let _ = fs::remove_dir(&path);
            }
        }
        Ok(bytes)
    }

    /// Removes folders of names that have no image any more.
    fn tidy(&self, folder: &Path) {
        let mut folder = folder;
        // One that is not empty stays.
        while folder != self.root && fs::remove_dir(folder).is_ok() {
            let Some(parent) = folder.parent() else { return };
            folder = parent;
        }
    }
}

/// The lock of an image that no machine uses, as far as there are locks. That an image is not there is no error, and
/// a link is not used: machines use what it leads to.
fn free(path: &Path, name: &GlobalName) -> Result<Option<Lock>, GlobalError> {
    if fs::symlink_metadata(path).map_or(true, |meta| meta.is_symlink()) {
        return Ok(None);
    }
    match alone(path) {
        Alone::Had(lock) => Ok(Some(lock)),
        Alone::Unknown => Ok(None),
        Alone::Used => Err(GlobalError::InUse { name: name.clone(), user: user_of(path) }),
    }
}

/// What uses an image, and how to end it.
fn user_of(path: &Path) -> String {
    let processes = os::lockers(path);
    #[cfg(unix)]
    if let Some(name) = crate::named::using(path, &processes) {
        return format!("the machine `{name}`; end it with `env86 stop {name}` first");
    }
    match processes.first() {
        Some(process) => format!("the machine of process {process}; end that first"),
        None => "a machine; end that first".into(),
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Bytes of what was never finished.
    pub unfinished: u64,
    /// Contents that no image needs.
    pub contents: u64,
    /// Their bytes.
    pub contents_bytes: u64,
}

/// The contents of an image that nothing in it names. An image without an index may have anything there.
fn unused(image: &Image) -> Result<Vec<PathBuf>, GlobalError> {
    if !image.index_path().is_file() {
        return Ok(Vec::new());
    }
    let contents = Contents::of(image)?;
    let mut named: HashSet<PathBuf> = HashSet::new();
    for (key, file) in image.config.files() {
        named.extend(image.files_of_ref(key, file).unwrap_or_default());
    }
    let dir = image.dir().join(BLOB_DIR);
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let is_named = check::content_names(&name).is_none_or(|names| {
            names.iter().any(|name| contents.blobs.contains_key(name)) || named.contains(&entry.path())
        });
        if is_file && !is_named {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes an image or a link, first from its name, so that a half of it is never found there.
fn remove_aside(path: &Path, _lock: Option<Lock>) -> Result<(), GlobalError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(path)(error)),
    };
    if !meta.is_dir() {
        return fs::remove_file(path).map_err(at(path));
    }
    let aside = Staging::new(path).map_err(|(path, source)| GlobalError::File { path, source })?;
    fs::rename(path, aside.path().join("removed")).map_err(at(path))?;
    fs::remove_dir_all(aside.path()).map_err(at(aside.path()))
}

/// Finds the images below a folder.
fn search(folder: &Path, parts: &mut Vec<String>, found: &mut Vec<Listed>) -> Result<(), GlobalError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(at(folder))?;
        // What is no name is none of ours.
        let Ok(part) = entry.file_name().into_string() else { continue };
        if part.starts_with('.') {
            continue;
        }
        let path = entry.path();
        // One that leads nowhere.
        let (Ok(meta), Ok(own)) = (fs::metadata(&path), fs::symlink_metadata(&path)) else { continue };
        let dir = meta.is_dir();
        let config = path.join(CONFIG_FILE);
        let is_image = if dir { config.is_file() } else { meta.is_file() && archive::is_gzip(&path) };
        if is_image && !parts.is_empty() {
            let link = if own.is_symlink() { fs::read_link(&path).ok() } else { None };
            let link = link.map(|to| to.to_string_lossy().into_owned());
            let made = if dir { fs::metadata(&config).unwrap_or(meta) } else { meta };
            found.push(Listed {
                name: GlobalName { name: parts.join("/"), tag: Some(part) },
                has_state: dir.then(|| Image::open(&path).is_ok_and(|image| image.has_state())),
                path,
                link,
                size: Size::default(),
                made: seconds(&made),
            });
        } else if dir && !own.is_symlink() && !is_image && parts.len() < MAX_PARTS {
            parts.push(part);
            search(&path, parts, found)?;
            parts.pop();
        }
    }
    Ok(())
}

fn seconds(meta: &Metadata) -> u64 {
    let since = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.unwrap_or_default().as_secs()
}

/// The files of an image.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Bytes of all, those with several names once.
    pub bytes: u64,
    /// The number of files.
    pub count: u64,
    /// Those with several names, and their sizes.
    linked: HashMap<(u64, u64), u64>,
}

impl Files {
    pub fn of(path: &Path) -> Result<Self, GlobalError> {
        let mut files = Self::default();
        files.add(path, 0)?;
        Ok(files)
    }

    /// Bytes of those with one name.
    pub fn own(&self) -> u64 {
        self.bytes - self.linked.values().sum::<u64>()
    }

    fn add(&mut self, path: &Path, depth: usize) -> Result<(), GlobalError> {
        let meta = fs::symlink_metadata(path).map_err(at(path))?;
        if meta.is_dir() && depth < MAX_PARTS {
            for entry in fs::read_dir(path).map_err(at(path))? {
                self.add(&entry.map_err(at(path))?.path(), depth + 1)?;
            }
        } else if meta.is_file() {
            self.count += 1;
            let first =
                os::attributes(&meta).link.is_none_or(|link| self.linked.insert(link, meta.len()).is_none());
            self.bytes += if first { meta.len() } else { 0 };
        }
        Ok(())
    }
}

/// Both files have the same bytes.
fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let mut files = (File::open(a)?, File::open(b)?);
    let mut buffers = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let len = files.0.read(&mut buffers.0)?;
        if len == 0 {
            return Ok(files.1.read(&mut buffers.1)? == 0);
        }
        if files.1.read_exact(&mut buffers.1[..len]).is_err() || buffers.0[..len] != buffers.1[..len] {
            return Ok(false);
        }
    }
}

/// Copies an image's folder. Contents and states, which are never written to but replaced, are linked.
fn copy(from: &Path, to: &Path, depth: usize, watch: &Watch) -> Result<(), GlobalError> {
    let links: HashSet<&str> = [STATE_FILE, COMPRESSED_STATE_FILE].into();
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (path, name) = (entry.path(), entry.file_name());
        let place = to.join(&name);
        let kind = entry.file_type().map_err(at(&path))?;
        watch.check().map_err(at(&path))?;
        if kind.is_dir() && depth < MAX_PARTS {
            fs::create_dir(&place).map_err(at(&place))?;
            copy(&path, &place, depth + 1, watch)?;
        } else if kind.is_file() && !name.to_string_lossy().starts_with('.') {
            let in_blobs = depth == 1 && from.file_name().is_some_and(|name| name == BLOB_DIR);
            let linked = (in_blobs || depth == 0 && name.to_str().is_some_and(|name| links.contains(name)))
                && fs::hard_link(&path, &place).is_ok();
            if !linked {
                fs::copy(&path, &place).map_err(at(&path))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> GlobalName {
        GlobalName::new(text).unwrap()
    }

    /// An image with these contents.
    fn image(dir: &Path, contents: &[&str]) -> Result<(), GlobalError> {
        let tree = tempfile::tempdir().unwrap();
        for (number, content) in contents.iter().enumerate() {
            fs::write(tree.path().join(number.to_string()), content).unwrap();
        }
        let made = tree.path().with_extension("image");
        super::super::create::from_dir(tree.path(), &made, &Default::default()).unwrap();
        for entry in fs::read_dir(&made).unwrap().flatten() {
            fs::rename(entry.path(), dir.join(entry.file_name())).unwrap();
        }
        fs::remove_dir(made).unwrap();
        Ok(())
    }

    fn add(images: &GlobalImages, text: &str, contents: &[&str]) -> Result<PathBuf, GlobalError> {
        images.add(&name(text), false, &Watch::default(), |dir| image(dir, contents))
    }

    #[test]
    fn names_stay_below_the_folder() {
        assert_eq!(name("deb-env86@1.0"), GlobalName { name: "deb".into(), tag: Some("1.0".into()) });
        assert_eq!(name("github.com/o/r").to_string(), "github.com/o/r");
        for text in [
            "", "@", "a@", "@a", "a@..", "../a", "/a", "a//b", "a/../b", "./a", "a@b/c", "a@b@c", ".a", "a\0",
        ] {
            assert!(matches!(GlobalName::new(text), Err(GlobalError::Name(_))), "{text}");
        }
    }

    #[test]
    fn images_are_added_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let images = GlobalImages::within(dir.path().join("root"));
        assert!(images.list().unwrap().is_empty());
        add(&images, "a", &["same", "first"]).unwrap();
        assert!(matches!(add(&images, "a", &[]), Err(GlobalError::Exists(_))));
        add(&images, "x/y@1", &["same"]).unwrap();
        let list = images.list().unwrap();
        let names: Vec<_> = list.iter().map(|image| image.name.to_string()).collect();
        assert_eq!(names, ["a@local", "x/y@1"]);
        assert_eq!(list[0].has_state, Some(false));
        // They have one file for what they share.
        #[cfg(unix)]
        assert_eq!([list[0].size.shared, list[1].size.shared], [4, 4]);
        assert!(list[0].size.bytes > 9);
        assert!(matches!(images.remove(&name("b")), Err(GlobalError::Unknown(_))));
        assert_eq!(images.remove(&name("a")).unwrap(), [name("a@local")]);
        assert_eq!(images.list().unwrap()[0].size.shared, 0);
        images.remove(&name("x/y")).unwrap();
        assert_eq!(fs::read_dir(images.root()).unwrap().count(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn an_image_that_is_used_stays() {
        let dir = tempfile::tempdir().unwrap();
        let images = GlobalImages::within(dir.path());
        let path = add(&images, "a@1", &["hello"]).unwrap();
        images.link_latest(&name("a@1")).unwrap();
        let opened = Image::open(&path).unwrap();
        let [first, second] = [opened.hold().unwrap(), opened.hold().unwrap()];
        drop(first);
        let refused = images.remove(&name("a@1"));
        assert!(matches!(refused, Err(GlobalError::InUse { .. })), "{refused:?}");
        let forced = images.add(&name("a@1"), true, &Watch::default(), |_| unreachable!());
        assert!(matches!(forced, Err(GlobalError::InUse { .. })), "{forced:?}");
        // Its link may go.
        assert_eq!(images.remove(&name("a@latest")).unwrap(), [name("a@latest")]);
        drop(second);
        images.add(&name("a@1"), true, &Watch::default(), |dir| image(dir, &["other"])).unwrap();
        assert!(matches!(opened.hold().map(|_| ()), Ok(())));
        images.remove(&name("a@1")).unwrap();
        assert!(matches!(opened.hold(), Err(ImageError::NoSuchPath(_))));
        assert_eq!(fs::read_dir(images.root()).unwrap().count(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn what_no_image_needs_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let images = GlobalImages::within(dir.path());
        let path = add(&images, "x/a@1", &["hello"]).unwrap();
        let used = add(&images, "used@1", &["hello"]).unwrap();
        let _held = Image::open(&used).unwrap().hold().unwrap();
        for image in [&path, &used] {
            fs::write(image.join(BLOB_DIR).join("abcdef01.bin"), "unused").unwrap();
        }
        fs::write(path.join(BLOB_DIR).join("notes.txt"), "a user's").unwrap();
        fs::create_dir_all(dir.path().join("x/b/.1.env86-1-0/fs")).unwrap();
        fs::write(dir.path().join("x/b/.1.env86-1-0/fs/0.tmp"), "left").unwrap();
        fs::write(path.join(".initial.state.new-1-0"), "half").unwrap();
        fs::write(dir.path().join("x/a/.2.new-1-0"), "half").unwrap();
        let alive = Staging::new(&dir.path().join("x/c")).unwrap();
        let collected = images.collect(&Watch::default()).unwrap();
        assert_eq!(collected, Collected { unfinished: 12, contents: 1, contents_bytes: 6 });
        assert!(alive.path().is_dir() && !dir.path().join("x/b").exists());
        assert!(path.join("fs/notes.txt").exists() && used.join("fs/abcdef01.bin").exists());
        assert_eq!(images.collect(&Watch::default()).unwrap(), Collected::default());
        assert_eq!(images.list().unwrap().len(), 2);
    }

    #[test]
    fn a_damaged_image_is_not_added() {
        let dir = tempfile::tempdir().unwrap();
        let images = GlobalImages::within(dir.path());
        let added = images.add(&name("a"), false, &Watch::default(), |dir| {
            image(dir, &["hello"])?;
            let blob = fs::read_dir(dir.join(BLOB_DIR)).unwrap().next().unwrap().unwrap().path();
            fs::write(blob, "jello").unwrap();
            Ok(())
        });
        assert!(matches!(added, Err(GlobalError::Check(CheckError::Damaged { .. }))), "{added:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn a_tag_has_the_same_files_and_a_link_goes_with_its_image() {
        let dir = tempfile::tempdir().unwrap();
        let images = GlobalImages::within(dir.path());
        let path = add(&images, "a@1", &["hello"]).unwrap();
        let opened = Image::open(path).unwrap();
        let watch = Watch::default();
        images.tag(&opened, &name("a@2"), false, &watch).unwrap();
        assert!(matches!(images.tag(&opened, &name("a@2"), false, &watch), Err(GlobalError::Exists(_))));
        images.tag(&opened, &name("a@2"), true, &watch).unwrap();
        std::os::unix::fs::symlink("1", dir.path().join("a/latest")).unwrap();
        let list = images.list().unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!((list[2].link.as_deref(), list[2].size), (Some("1"), list[0].size));
        assert!(list[0].size.shared >= 5);
        assert!(matches!(images.remove(&name("a")), Err(GlobalError::Several { .. })));
        assert_eq!(images.remove(&name("a@1")).unwrap(), [name("a@latest"), name("a@1")]);
        assert_eq!(images.list().unwrap().len(), 1);
    }
}
