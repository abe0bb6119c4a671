//! What takes the room in an image.

use std::collections::HashSet;

use env86_devices::fs::{Content, Filesystem, Ino, ROOT};

use super::Image;
use super::check::{CheckError, index_of};

/// A file or a directory of an image, and the room that its contents take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The path in the guest, with a slash behind it if it is a directory.
    pub path: String,
    /// Bytes, of a directory with all that is below it.
    pub bytes: u64,
}

/// Paths of an image whose contents take at least so many bytes, the largest first, and then by their names. A content
/// that several files have is there once, and counts for the first of them in the index.
pub fn shares(image: &Image, least: u64) -> Result<Vec<Share>, CheckError> {
    let Some(files) = index_of(image)? else { return Ok(Vec::new()) };
    let mut survey = Survey { files: &files, least, seen: HashSet::new(), found: Vec::new() };
    survey.add(ROOT, "");
    let mut found = survey.found;
    found.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    Ok(found)
}

struct Survey<'a> {
    files: &'a Filesystem,
    least: u64,
    /// Contents that have been counted.
    seen: HashSet<String>,
    found: Vec<Share>,
}

impl Survey<'_> {
    /// Adds what is at a path; gives its bytes. An index is not so deep that this is.
    fn add(&mut self, ino: Ino, path: &str) -> u64 {
        let Ok(inode) = self.files.inode(ino) else { return 0 };
        let (path, bytes) = match &inode.content {
            Content::Directory(directory) => {
                let path = format!("{path}/");
                let below = directory.entries().map(|entry| {
                    let name = String::from_utf8_lossy(&entry.name);
                    self.add(entry.ino, &format!("{path}{name}"))
                });
                let bytes = below.sum();
                (path, bytes)
            }
            Content::File(data) => {
                let first = data.base().is_some_and(|base| self.seen.insert(base.blob.to_string()));
                (path.to_owned(), if first { inode.size } else { 0 })
            }
            _ => return 0,
        };
        if bytes >= self.least.max(1) {
            self.found.push(Share { path, bytes });
        }
        bytes
    }
}
