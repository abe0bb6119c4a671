//! A folder that is made beside its final place and renamed at the end, so that a name either holds a whole image
//! or nothing.
//!
//! It is locked as long as its maker is at work. What a maker that was killed has left is removed by the next one
//! that makes the same image.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::lock::{Alone, Lock, alone, sweep};

/// What stands behind the image's name in the folder's.
const MARK: &str = ".env86-";
/// Names that are tried for a folder.
const ATTEMPTS: u32 = 100;

/// The folder of a place's name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A folder is one that is being made, or was left behind.
pub fn is_staging(name: &str) -> bool {
    name.starts_with('.') && name.contains(MARK)
}

/// A folder that takes its place, or goes away.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    /// Tells others that it is not left behind.
    _lock: Option<Lock>,
}

impl Staging {
    /// Makes the folder beside `place`.
    pub fn new(place: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let parent = parent_of(place);
        let prefix = format!(".{}{MARK}", place.file_name().unwrap_or_default().to_string_lossy());
        sweep(parent, |name| name.starts_with(&prefix));
        for attempt in 0..ATTEMPTS {
            let path = parent.join(format!("{prefix}{}-{attempt}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {}
                // Another thread's.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err((path, error)),
            }
            match alone(&path) {
                Alone::Had(lock) => return Ok(Self { path, _lock: Some(lock) }),
                Alone::Unknown if path.is_dir() => return Ok(Self { path, _lock: None }),
                // One who swept has seen it before it was locked, and removes it.
                Alone::Used | Alone::Unknown => {}
            }
        }
        Err((place.into(), io::ErrorKind::AlreadyExists.into()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in place; an error if something is there.
    pub fn publish(self, place: &Path) -> io::Result<()> {
        // The name may have been taken in the meantime, and a rename would replace an empty directory.
        if fs::symlink_metadata(place).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&self.path, place)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After publishing there is nothing left here to remove.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_a_maker_left_is_removed_by_the_next_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("image");
        let (first, second) = (Staging::new(&place).unwrap(), Staging::new(&place).unwrap());
        assert!(first.path() != second.path() && first.path().is_dir());
        // As a process that is killed leaves it.
        let left = dir.path().join(".image.env86-1-0");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("image.json"), "{").unwrap();
        let other = dir.path().join(".other.env86-1-0");
        fs::create_dir(&other).unwrap();
        let third = Staging::new(&place).unwrap();
        assert!(!left.exists() && other.exists() && first.path().is_dir());
        third.publish(&place).unwrap();
        assert!(matches!(second.publish(&place), Err(error) if error.kind() == io::ErrorKind::AlreadyExists));
        drop(first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
