//! Making the cache of builds smaller: what was not used for long goes, and then what was used longest ago.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::BuildError;
use super::cache::{BASES, BLOBS, STEPS};
use super::tree::{EMPTY, Tree};
use crate::image::CONFIG_FILE;
use crate::image::create::CreateError;
use crate::image::global::Files;
use crate::image::lock::{Alone, alone, sweep};
use crate::image::staging::is_staging;
use crate::image::watch::Watch;
use crate::os;
use crate::replace::sweep_all;

/// What a cache may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How long ago it was used.
    pub age: Duration,
    /// Bytes of all of it.
    pub bytes: u64,
}

/// What has become of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Results that were removed, and container images that were unpacked for them.
    pub results: u64,
    /// Bytes that are free now: what images have, too, is not.
    pub bytes: u64,
    /// Bytes that are there still.
    pub left: u64,
}

/// A result, or an image made of a container image.
struct Kept {
    path: PathBuf,
    used: SystemTime,
    /// Bytes of its own.
    bytes: u64,
    is_base: bool,
}

/// Makes the cache in a folder smaller. `None` if a build is at work with it.
pub fn prune(root: &Path, keep: Keep, watch: &Watch) -> Result<Option<Pruned>, BuildError> {
    if !root.is_dir() {
        return Ok(Some(Pruned::default()));
    }
    let Alone::Had(_lock) = alone(root) else { return Ok(None) };
    let mut pruned = Pruned {
        bytes: sweep(root, is_staging) + sweep(&root.join(BASES), is_staging) + sweep_all(&root.join(STEPS)),
        ..Pruned::default()
    };
    let mut found = list(root)?;
    found.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.path.cmp(&b.path)));
    let now = SystemTime::now();
    let mut named = HashSet::from([EMPTY.to_owned()]);
    let mut is_full = false;
    for kept in found {
        watch.check().map_err(|_| CreateError::Interrupted)?;
        let age = now.duration_since(kept.used).unwrap_or_default();
        let contents = if kept.is_base { Some(Vec::new()) } else { contents(&kept.path) };
        let room = match &contents {
            Some(contents) if age <= keep.age => {
                let mut new = HashSet::new();
                let more = contents.iter().filter(|(name, _)| !named.contains(name) && new.insert(name));
                Some(kept.bytes + more.map(|(_, bytes)| bytes).sum::<u64>())
            }
            // It is damaged, or old.
            _ => None,
        };
        // What is older than something that finds no room finds none, either.
        is_full |= room.is_some_and(|room| pruned.left.saturating_add(room) > keep.bytes);
        match (room, contents) {
            (Some(room), Some(contents)) if !is_full => {
                pruned.left += room;
                named.extend(contents.into_iter().map(|(name, _)| name));
            }
            _ => {
                let removed =
                    if kept.is_base { fs::remove_dir_all(&kept.path) } else { fs::remove_file(&kept.path) };
                removed.map_err(BuildError::write(&kept.path))?;
                pruned.results += 1;
                pruned.bytes += kept.bytes;
            }
        }
    }
    let blobs = root.join(BLOBS);
    for entry in fs::read_dir(&blobs).map_err(BuildError::read(&blobs))?.flatten() {
        watch.check().map_err(|_| CreateError::Interrupted)?;
        if entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            continue;
        }
        let path = entry.path();
        let meta = fs::symlink_metadata(&path).map_err(BuildError::read(&path))?;
        fs::remove_file(&path).map_err(BuildError::write(&path))?;
        pruned.bytes += if os::attributes(&meta).link.is_none() { meta.len() } else { 0 };
    }
    Ok(Some(pruned))
}

fn list(root: &Path) -> Result<Vec<Kept>, BuildError> {
    let mut found = Vec::new();
    let used = |meta: &Metadata| meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    for (folder, is_base) in [(STEPS, false), (BASES, true)] {
        // A cache of an earlier version has no bases.
        for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            let path = entry.path();
            let marked = if is_base { path.join(CONFIG_FILE) } else { path.clone() };
            let (used, bytes) = match fs::symlink_metadata(&marked) {
                Ok(meta) if is_base => (used(&meta), Files::of(&path).map_or(0, |files| files.own())),
                Ok(meta) => (used(&meta), meta.len()),
                // It is none, and does not stay.
                Err(_) => (SystemTime::UNIX_EPOCH, 0),
            };
            let is_base = entry.file_type().is_ok_and(|kind| kind.is_dir());
            found.push(Kept { path, used, bytes, is_base });
        }
    }
    Ok(found)
}

/// The contents that a result names, with their sizes; `None` if it cannot be read.
fn contents(path: &Path) -> Option<Vec<(String, u64)>> {
    let tree = Tree::new(&fs::read(path).ok()?).ok()?;
    let listed = tree.list().ok()?;
    Some(listed.contents.into_iter().map(|base| (base.blob.to_string(), base.size)).collect())
}
