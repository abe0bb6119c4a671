//! The folder that files are copied from.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use env86_devices::fs::{
    Base, Content, Directory, FileData, Ino, Inode, ROOT, S_IFLNK, S_IFREG, S_IPERM, Timestamp, Unlink,
};
use env86_devices::fs::{S_IFDIR, S_IFIFO};

use super::BuildError;
use super::ignore::Ignore;
use super::tree::{MAX_DEPTH, Owner, Tree};
use crate::image::check::hash;
use crate::image::create::Options;
use crate::os::{self, Special};

/// The folder, as far as the build sees it.
pub struct Context {
    dir: PathBuf,
    /// Its files, which all belong to root. A content is named by its path.
    pub tree: Tree,
    hashes: Mutex<HashMap<String, Base>>,
}

impl Context {
    /// Looks through a folder. No file is read.
    pub fn new(dir: &Path, ignore: &Ignore, options: &Options) -> Result<Self, BuildError> {
        let mut context = Self { dir: dir.into(), tree: Tree::default(), hashes: Mutex::default() };
        context.scan(ROOT, "", 0, ignore, options)?;
        Ok(context)
    }

    fn scan(
        &mut self,
        at: Ino,
        below: &str,
        depth: usize,
        ignore: &Ignore,
        options: &Options,
    ) -> Result<(), BuildError> {
        options.check_interrupt()?;
        let dir = self.dir.join(below);
        let mut found: Vec<fs::DirEntry> =
            fs::read_dir(&dir).and_then(Iterator::collect).map_err(BuildError::read(&dir))?;
        found.sort_by_key(fs::DirEntry::file_name);
        for entry in found {
            let path = entry.path();
            let name = entry.file_name();
            let shown = name.to_string_lossy();
            let relative =
                if below.is_empty() { shown.clone().into_owned() } else { format!("{below}/{shown}") };
            let hidden = ignore.hides(&relative);
            let meta = fs::symlink_metadata(&path).map_err(BuildError::read(&path))?;
            if hidden && !(meta.is_dir() && ignore.may_show_below(&relative)) {
                continue;
            }
            let Some(name) = name.to_str() else {
                let why = format!(
                    "The name of `{}` is not UTF-8; rename it, or hide it by .dockerignore",
                    path.display()
                );
                return Err(BuildError::Tree { why });
            };
            if depth >= MAX_DEPTH {
                let why =
                    format!("`{}` is nested too deep (more than {MAX_DEPTH} directories)", path.display());
                return Err(BuildError::Tree { why });
            }
            let attributes = os::attributes(&meta);
            let permissions = attributes.mode & S_IPERM;
            let (kind, size, content) = if meta.is_dir() {
                (S_IFDIR | permissions, None, Content::Directory(Directory::new(at)))
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).map_err(BuildError::read(&path))?;
                let target = target.to_string_lossy().into_owned().into_bytes();
                (S_IFLNK | 0o777, None, Content::Symlink(target.into()))
            } else {
                match attributes.special {
                    None => {
                        let data = FileData::from_blob(&relative, meta.len());
                        (S_IFREG | permissions, Some(meta.len()), Content::File(data))
                    }
                    Some(Special::Fifo) => (S_IFIFO | permissions, None, Content::Special),
                    // A socket is some program's, and a device is the host's.
                    Some(_) => continue,
                }
            };
            let mut inode = Inode::new(kind, 0, 0, Timestamp::from_secs(attributes.mtime), content);
            inode.size = size.unwrap_or(inode.size);
            let is_dir = inode.is_dir();
            let put = self.tree.put(at, name.as_bytes(), inode, Owner::default());
            let ino = put.map_err(|why| BuildError::Tree { why })?;
            if is_dir {
                self.scan(ino, &relative, depth + 1, ignore, options)?;
                if hidden && self.tree.names(ino).is_empty() {
                    let gone = self.tree.0.unlink(at, name.as_bytes(), Unlink::Any, Timestamp::default());
                    gone.map_err(|error| BuildError::Tree { why: error.to_string() })?;
                } else {
                    let set = self.tree.set_time(ino, Timestamp::from_secs(attributes.mtime));
                    set.map_err(|why| BuildError::Tree { why })?;
                }
            }
        }
        Ok(())
    }

    /// Where a content is.
    pub fn path(&self, content: &Base) -> PathBuf {
        self.dir.join(&*content.blob)
    }

    /// The SHA-256 of a content and its size.
    pub fn hash(&self, content: &Base, options: &Options) -> Result<Base, BuildError> {
        let known = || self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hashed) = known().get(&*content.blob) {
            return Ok(hashed.clone());
        }
        let path = self.path(content);
        let file = os::open_no_follow(&path).map_err(BuildError::read(&path))?;
        let mut from = options.watch().read(file);
        let hash = hash(&mut from, &options.watch());
        options.check_interrupt()?;
        let hash = hash.map_err(BuildError::read(&path))?;
        let hashed = Base { blob: hash.into(), size: from.count };
        known().insert(content.blob.to_string(), hashed.clone());
        Ok(hashed)
    }
}
