//! Folders in the system's temporary one that archives are unpacked to. Each is locked as long as its maker is there, so
//! that those of the dead are known.

use std::env;
use std::io;
use std::path::Path;

use tempfile::TempDir;

use super::lock::{Alone, Lock, alone, sweep};

/// What their names begin with. Nothing else here has such names.
const PREFIX: &str = "env86-unpacked-";
/// Folders that are tried.
const ATTEMPTS: u32 = 100;

/// A folder, which goes with this.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    /// Tells others that it is not left behind.
    _lock: Option<Lock>,
}

impl Scratch {
    /// Makes one.
    pub fn new() -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
            match alone(folder.path()) {
                Alone::Had(lock) => return Ok(Self { folder, _lock: Some(lock) }),
                Alone::Unknown if folder.path().is_dir() => return Ok(Self { folder, _lock: None }),
                // One who swept has seen it before it was locked, and removes it.
                Alone::Used | Alone::Unknown => {}
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what programs that were killed have unpacked to the system's temporary folder; gives the bytes.
pub fn sweep_temporary() -> u64 {
    sweep_within(&env::temp_dir())
}

fn sweep_within(folder: &Path) -> u64 {
    sweep(folder, |name| name.starts_with(PREFIX))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn folders_of_the_living_stay() {
        let scratch = Scratch::new().unwrap();
        fs::write(scratch.path().join("file"), "hello").unwrap();
        sweep_temporary();
        assert!(scratch.path().join("file").exists());
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
        // As a process that is killed leaves one.
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(format!("{PREFIX}abc"));
        for folder in [&left, &dir.path().join("env86-mine")] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file"), "hello").unwrap();
        }
        assert_eq!(sweep_within(dir.path()), 5);
        assert!(!left.exists() && dir.path().join("env86-mine/file").exists());
    }
}
