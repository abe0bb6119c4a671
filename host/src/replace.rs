//! Files that are replaced without ever losing the old one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::os;

/// Replaces a file by what `fill` writes; gives its size. There is always a whole one: what was there
/// before stays until the new one is on the disk, whatever happens.
pub fn replace(path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<u64> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    sweep(dir, name);
    let (temporary, file) = create_temporary(dir, name)?;
    let written = fill(&file).and_then(|()| file.sync_all()).and_then(|()| {
        let size = file.metadata()?.len();
        fs::rename(&temporary, path)?;
        // The new name is on the disk when the directory is.
        os::sync_directory(dir)?;
        Ok(size)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// What stands before the numbers in a temporary file's name.
const MARK: &str = ".new-";

/// What temporary files for `name` begin with.
fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(MARK);
    prefix
}

/// Makes a file of its own beside the one to be replaced, locked as long as it is open.
fn create_temporary(dir: &Path, name: &OsStr) -> io::Result<(PathBuf, File)> {
    const ATTEMPTS: u32 = 100;
    for attempt in 0..ATTEMPTS {
        let mut temporary = prefix(name);
        temporary.push(format!("{}-{attempt}", std::process::id()));
        let path = dir.join(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                // A file system without locks leaves nothing worse than litter behind.
                let _ = file.try_lock();
                return Ok((path, file));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes what programs that were killed have left behind.
fn sweep(dir: &Path, name: &OsStr) {
    let prefix = prefix(name);
    sweep_files(dir, |name| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()));
}

/// Removes all that programs that were killed have left behind in a folder, whatever it was to replace; gives the bytes.
pub fn sweep_all(dir: &Path) -> u64 {
    sweep_files(dir, |name| name.to_str().is_some_and(is_temporary))
}

/// A name is that of a temporary file.
fn is_temporary(name: &str) -> bool {
    let numbers = name.strip_prefix('.').and_then(|name| name.rsplit_once(MARK)).map(|(_, numbers)| numbers);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    numbers.and_then(|numbers| numbers.split_once('-')).is_some_and(|(a, b)| is_number(a) && is_number(b))
}

/// Removes files that `wanted` names and nobody has locked.
fn sweep_files(dir: &Path, wanted: impl Fn(&OsStr) -> bool) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !wanted(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            debug!(target: "replace", path = %path.display(), "Removing an unfinished file");
            let size = file.metadata().map_or(0, |meta| meta.len());
            bytes += if fs::remove_file(&path).is_ok() { size } else { 0 };
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("initial.state");
        replace(&path, |mut file| file.write_all(b"old")).unwrap();
        let failed = replace(&path, |mut file| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn litter_of_the_dead_is_swept_and_that_of_the_living_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let name = OsStr::new("s");
        let (dead, file) = create_temporary(dir.path(), name).unwrap();
        drop(file);
        let (alive, _file) = create_temporary(dir.path(), name).unwrap();
        replace(&dir.path().join("s"), |mut file| file.write_all(b"new")).unwrap();
        assert!(!dead.exists() && alive.exists());
        let (dead, mut file) = create_temporary(dir.path(), OsStr::new("t")).unwrap();
        file.write_all(b"left").unwrap();
        drop(file);
        fs::write(dir.path().join(".my.new-file"), "a user's").unwrap();
        assert_eq!(sweep_all(dir.path()), 4);
        assert!(!dead.exists() && alive.exists() && dir.path().join(".my.new-file").exists());
    }
}
