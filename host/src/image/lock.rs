//! Who is at work with a folder or a file: a lock that ends with the process that has it, however that ends.
//!
//! A machine shares the lock of its image with other machines. What removes an image, or makes one, has it alone.
//! There are no such locks on some file systems, and not of folders on Windows: nothing is known there, and what
//! only a lock could tell is then left as it is.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use tracing::debug;

use crate::os;

/// A lock, until this is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// What is locked.
    #[cfg(feature = "pull")]
    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough while a process that is about to be started has it, too.
        let _ = self.0.unlock();
    }
}

/// Waits until no one has a folder or file alone, and shares its lock. `None` if there
/// are no locks; an error if the path leads nowhere.
pub fn shared(path: &Path) -> io::Result<Option<Lock>> {
    loop {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            Err(_) => return Ok(None),
        };
        match file.lock_shared() {
            Ok(()) if os::is_at(&file, path) => return Ok(Some(Lock(file))),
            // It was removed or replaced meanwhile.
            Ok(()) => {}
            Err(_) => return Ok(None),
        }
    }
}

/// A lock that is asked for without waiting.
#[derive(Debug)]
pub enum Alone {
    /// It is this process's.
    Had(Lock),
    /// Others are at work.
    Used,
    /// There are no locks.
    Unknown,
}

/// Asks for the lock of a folder or file.
pub fn alone(path: &Path) -> Alone {
    let Ok(file) = File::open(path) else { return Alone::Unknown };
    match file.try_lock() {
        Ok(()) if os::is_at(&file, path) => Alone::Had(Lock(file)),
        Ok(()) | Err(TryLockError::WouldBlock) => Alone::Used,
        Err(TryLockError::Error(_)) => Alone::Unknown,
    }
}

/// Removes the folders of a folder that `wanted` names and no one is at work with; gives their bytes.
pub fn sweep(folder: &Path, wanted: impl Fn(&str) -> bool) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder || !entry.file_name().to_str().is_some_and(&wanted) {
            continue;
        }
        let path = entry.path();
        if let Alone::Had(_lock) = alone(&path) {
            debug!(target: "image", path = %path.display(), "Removing what was left behind");
            let size = super::global::Files::of(&path).map_or(0, |files| files.bytes);
            // What cannot be removed is another's.
            bytes += if fs::remove_dir_all(&path).is_ok() { size } else { 0 };
        }
    }
    bytes
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_no_one_s_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = shared(dir.path()).unwrap();
        let second = shared(dir.path()).unwrap();
        assert!(first.is_some() && matches!(alone(dir.path()), Alone::Used));
        drop((first, second));
        assert!(matches!(alone(dir.path()), Alone::Had(_)));
        assert!(shared(&dir.path().join("none")).is_err());
    }

    #[test]
    fn folders_at_work_are_not_swept() {
        let dir = tempfile::tempdir().unwrap();
        let [dead, alive, other] = ["a.dead", "a.alive", "b"].map(|name| dir.path().join(name));
        [&dead, &alive, &other].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        fs::write(dead.join("file"), "hello").unwrap();
        let Alone::Had(_lock) = alone(&alive) else { panic!("no lock") };
        assert_eq!(sweep(dir.path(), |name| name.starts_with("a.")), 5);
        assert_eq!([&dead, &alive, &other].map(|path| path.exists()), [false, true, true]);
    }
}
