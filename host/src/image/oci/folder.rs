//! A folder of static files that a web server shows as a registry would: what is pushed there can be pulled.
//!
//! ```text
//! v2/NAME/manifests/TAG              the manifest, and the same by its digest
//! v2/NAME/blobs/sha256:HEXADECIMAL   the configuration, and the layers
//! ```

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use super::super::watch::Watch;
use super::push::Target;
use super::{OciError, PullError, Reference, at};
use crate::replace::replace;

/// The part of the folder that an image has.
pub struct Folder {
    dir: PathBuf,
    /// The name that the manifest gets.
    tag: String,
}

impl Folder {
    /// The folder below `root` for what is called this.
    pub fn new(root: &Path, to: &Reference) -> Result<Self, PullError> {
        // What is behind a colon is no part of a file's name there.
        if cfg!(windows) {
            return Err(OciError::Colons(root.into()).into());
        }
        Ok(Self { dir: root.join("v2").join(&to.repository), tag: to.wanted() })
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest)
    }
}

/// Writes a file that is there as a whole or not at all.
fn write(path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> Result<(), PullError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(at(folder))?;
    replace(path, fill).map(drop).map_err(at(path))
}

impl Target for Folder {
    fn has(&mut self, digest: &str, size: u64, _: &Watch) -> Result<bool, PullError> {
        // It was written as a whole, under the name of its digest.
        let path = self.blob(digest);
        Ok(fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size))
    }

    fn put(&mut self, digest: &str, mut file: &File, watch: &Watch) -> Result<(), PullError> {
        let written = write(&self.blob(digest), |mut to| {
            file.rewind()?;
            io::copy(&mut watch.read(file), &mut to).map(drop)
        });
        if watch.is_over() { Err(PullError::Stopped) } else { written }
    }

    fn publish(&mut self, digest: &str, manifest: &[u8], _: &Watch) -> Result<(), PullError> {
        let manifests = self.dir.join("manifests");
        for name in [digest, &self.tag] {
            write(&manifests.join(name), |mut to| to.write_all(manifest))?;
        }
        Ok(())
    }
}
