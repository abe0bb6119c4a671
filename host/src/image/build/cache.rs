//! What builds keep: the contents of files, each named by its SHA-256, and the trees that instructions have given.
//!
//! ```text
//! blobs/HASH      a content
//! steps/KEY.json  a tree, by what it was made from
//! bases/DIGEST    an image, made of the container image on disk that has this digest
//! ```
//!
//! All are put there as wholes, and never changed, so that builds may share them and be killed at any time. The time of a
//! tree and of an image's configuration is that of its last use. A build shares the folder's lock; what makes the cache
//! smaller has it alone.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use env86_devices::fs::Base;
use rayon::prelude::*;

use super::BuildError;
use super::plan::key;
use super::tree::{EMPTY, Listed, Tree};
use crate::image::check::hash;
use crate::image::create::index::{FORMAT_VERSION, Index, fill_in};
use crate::image::create::store::{Blob, Copier};
use crate::image::create::{CreateError, Options};
use crate::image::lock::{Lock, shared};
use crate::image::staging::Staging;
use crate::image::{BLOB_DIR, CONFIG_FILE, Image};
use crate::os;
use crate::replace::replace;

pub const BLOBS: &str = "blobs";
pub const STEPS: &str = "steps";
pub const BASES: &str = "bases";
/// The folder of what is being written; a killed build's is removed by the next one.
const WORK: &str = "work";

/// The cache.
pub struct Cache<'a> {
    root: PathBuf,
    work: Staging,
    /// Contents that were written.
    count: AtomicUsize,
    options: &'a Options<'a>,
    /// Keeps what is here from being removed.
    _lock: Option<Lock>,
}

impl<'a> Cache<'a> {
    /// Opens the cache in a folder, which is made.
    pub fn open(root: &Path, options: &'a Options<'a>) -> Result<Self, BuildError> {
        for folder in [BLOBS, STEPS, BASES] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(BuildError::write(&path))?;
        }
        let lock = shared(root).map_err(BuildError::read(root))?;
        let work =
            Staging::new(&root.join(WORK)).map_err(|(path, source)| BuildError::Write { path, source })?;
        let cache = Self { root: root.into(), work, count: AtomicUsize::new(0), options, _lock: lock };
        if !cache.blob(EMPTY).exists() {
            cache.add(io::empty(), CreateError::read(root))?;
        }
        Ok(cache)
    }

    /// A new place for an image, which goes with the build.
    pub fn place(&self, name: &str) -> PathBuf {
        self.work.path().join(format!("{name}-{}", self.count.fetch_add(1, Ordering::Relaxed)))
    }

    /// Where images are made of container images: those of earlier builds are there, unless all is done `anew`.
    pub fn bases(&self, anew: bool) -> Result<PathBuf, BuildError> {
        if !anew {
            return Ok(self.root.join(BASES));
        }
        let place = self.place(BASES);
        fs::create_dir(&place).map_err(BuildError::write(&place))?;
        Ok(place)
    }

    /// Notes that a file is used. That it cannot be noted does not matter.
    fn used(&self, path: &Path) {
        let noted = File::options().append(true).open(path);
        let _ = noted.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Where a content is.
    pub fn blob(&self, hash: &str) -> PathBuf {
        self.root.join(BLOBS).join(hash)
    }

    fn step(&self, key: &str) -> PathBuf {
        self.root.join(STEPS).join(format!("{key}.json"))
    }

    /// Keeps what is read.
    pub fn add(
        &self,
        from: impl Read,
        failed: impl FnOnce(io::Error) -> CreateError,
    ) -> Result<Base, BuildError> {
        let mut copier = Copier::new(self.work.path(), self.options);
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let hashed = copier.copy(number, from, failed)?;
        let (from, to) = (copier.temporary(number), self.blob(&hashed.hash));
        // One that is there is the same; this one is whole in any case.
        fs::rename(&from, &to).map_err(BuildError::write(&to))?;
        Ok(Base { blob: hashed.hash.into(), size: hashed.size })
    }

    /// Keeps a file that is never changed.
    fn adopt(&self, path: &Path) -> Result<Base, BuildError> {
        let file = os::open_no_follow(path).map_err(BuildError::read(path))?;
        let size = file.metadata().map_err(BuildError::read(path))?.len();
        let hash = hash(&file, &self.options.watch()).map_err(|error| self.failed(path, error))?;
        let to = self.blob(&hash);
        if fs::symlink_metadata(&to).is_ok_and(|meta| meta.len() == size) || fs::hard_link(path, &to).is_ok()
        {
            return Ok(Base { blob: hash.into(), size });
        }
        let file = File::open(path).map_err(BuildError::read(path))?;
        self.add(self.options.watch().read(file), CreateError::read(path))
    }

    fn failed(&self, path: &Path, source: io::Error) -> BuildError {
        match self.options.check_interrupt() {
            Err(error) => error.into(),
            Ok(()) => BuildError::Read { path: path.into(), source },
        }
    }

    /// A tree is kept by this key. It is about to be used, even if it is never read.
    pub fn has(&self, key: &str) -> bool {
        let path = self.step(key);
        let is_there = path.is_file();
        if is_there {
            self.used(&path);
        }
        is_there
    }

    /// The tree of a key.
    pub fn load(&self, key: &str) -> Result<Tree, BuildError> {
        let path = self.step(key);
        let text = fs::read(&path).map_err(BuildError::read(&path))?;
        Tree::new(&text).map_err(|source| BuildError::Index { path, source })
    }

    /// Keeps a tree by a key.
    pub fn save(&self, key: &str, tree: &Tree) -> Result<(), BuildError> {
        let index = tree.index().map_err(|why| BuildError::Tree { why })?;
        self.write(key, &index)
    }

    fn write(&self, key: &str, index: &Index) -> Result<(), BuildError> {
        let path = self.step(key);
        let text = serde_json::to_vec(index).map_err(|error| BuildError::write(&path)(error.into()))?;
        let written = replace(&path, |mut file| io::Write::write_all(&mut file, &text));
        written.map(drop).map_err(BuildError::write(&path))
    }

    /// The tree of an image, and its key.
    pub fn image(&self, image: &Image) -> Result<(String, Tree), BuildError> {
        if image.dir().parent() == Some(&self.root.join(BASES)) {
            self.used(&image.dir().join(CONFIG_FILE));
        }
        let text = image.read_index()?;
        let key = key(["image", &String::from_utf8_lossy(&text)]);
        if self.has(&key) {
            let tree = self.load(&key)?;
            return Ok((key, tree));
        }
        let path = image.index_path();
        let tree = Tree::new(&text).map_err(|source| BuildError::Index { path, source })?;
        let listed = tree.list().map_err(|why| BuildError::Tree { why })?;
        let Listed { mut entries, contents, visits, .. } = listed;
        let dir = image.dir().join(BLOB_DIR);
        let mut names: Vec<&Base> = contents.iter().filter(|base| base.size > 0).collect();
        names.sort_unstable_by_key(|base| &base.blob);
        names.dedup_by_key(|base| &base.blob);
        let known = names.par_iter().map(|base| {
            let name: &str = &base.blob;
            let path = dir.join(name);
            if Path::new(name).file_name().is_none_or(|file| file != name) {
                return Err(BuildError::Damaged { path });
            }
            let kept = self.adopt(&path)?;
            if kept.size == base.size { Ok((name, kept)) } else { Err(BuildError::Damaged { path }) }
        });
        let known: HashMap<&str, Base> = known.collect::<Result<_, _>>()?;
        let blobs: Vec<Blob> = contents
            .iter()
            .map(|base| {
                let kept = known.get(&*base.blob);
                Blob { name: kept.map(|kept| kept.blob.to_string()).unwrap_or_default(), size: base.size }
            })
            .collect();
        let size = fill_in(&mut entries, &mut visits.iter().map(|&at| (at, &blobs[at])));
        self.write(&key, &Index { fsroot: entries, size, version: FORMAT_VERSION })?;
        let tree = self.load(&key)?;
        Ok((key, tree))
    }
}
