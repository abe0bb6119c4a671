//! A folder that is made beside its final place and renamed at the end, so that a name either holds a whole image
//! or nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of a place's name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A folder that takes its place, or goes away.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
}

impl Staging {
    /// Makes the folder beside `place`.
    pub fn new(place: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let path = parent_of(place).join(format!(".{name}.env86-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self { path }),
            Err(error) => Err((path, error)),
        }
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
