//! Files of the guest. Paths that do not begin with `/` are below it.

use std::fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use guest86::call::{Entry, FileInfo, Put};
use serde_bytes::ByteBuf;

use super::stream::{Kind, Stream};

/// The permissions of a file that is written without a word about them.
const FILE_MODE: u32 = 0o644;

/// A system's reason as the C library words it, in small letters: `no such file or directory`.
pub fn text(error: impl Into<io::Error>) -> String {
    let text = error.into().to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn anchored(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

/// Does something with a path, and words its failure.
fn at<T>(what: &str, path: &str, act: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, String> {
    let path = anchored(path);
    act(&path).map_err(|error| format!("{what} {}: {}", path.display(), text(error)))
}

fn entry(path: &Path, meta: &Metadata) -> Entry {
    let name = path.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned());
    Entry { is_dir: meta.is_dir(), ctime: 0, mtime: meta.mtime(), size: meta.len() as i64, name }
}

pub fn stat(path: String) -> Result<Entry, String> {
    at("stat", &path, |path| Ok(entry(path, &fs::metadata(path)?)))
}

pub fn read(path: String) -> Result<ByteBuf, String> {
    at("open", &path, |path| Ok(ByteBuf::from(fs::read(path)?)))
}

/// `None` for an empty directory, as the Go service says it.
pub fn list(path: String) -> Result<Option<Vec<Entry>>, String> {
    at("open", &path, |path| {
        let mut entries = Vec::new();
        for found in fs::read_dir(path)? {
            let found = found?;
            // What has gone meanwhile is not listed.
            if let Ok(meta) = found.metadata() {
                entries.push(entry(&found.path(), &meta));
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((!entries.is_empty()).then_some(entries))
    })
}

pub fn write(path: String, bytes: &[u8]) -> Result<(), String> {
    at("open", &path, |path| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
        io::Write::write_all(&mut file, bytes)
    })
}

pub fn make_dir(path: String) -> Result<(), String> {
    at("mkdir", &path, |path| fs::create_dir_all(path))
}

pub fn remove(path: String) -> Result<(), String> {
    at("unlinkat", &path, |path| match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    })
}

pub fn rename(old: String, new: String) -> Result<(), String> {
    at("rename", &old, |old| fs::rename(old, anchored(&new)))
}

/// A file that is read.
pub fn get(path: String) -> Result<(FileInfo, Stream), String> {
    at("open", &path, |path| {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut stream = Stream::new(Kind::Get);
        stream.sources[0] = Some(OwnedFd::from(file));
        Ok((FileInfo { mode: meta.mode() & 0o7777, mtime: meta.mtime(), size: meta.len() }, stream))
    })
}

/// A file that is written.
pub fn put(put: Put) -> Result<Stream, String> {
    let file = at("open", &put.path, |path| {
        OpenOptions::new().write(true).create(true).truncate(true).mode(put.mode & 0o777).open(path)
    })?;
    let mut stream = Stream::new(Kind::Put(put));
    stream.sink = Some(OwnedFd::from(file));
    Ok(stream)
}

/// Gives a file that has been written its permissions and its time.
pub fn finish(file: &File, put: &Put) -> Result<(), String> {
    let set = || {
        file.set_permissions(Permissions::from_mode(put.mode & 0o7777))?;
        match put.mtime.and_then(|seconds| u64::try_from(seconds).ok()) {
            Some(seconds) => {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                file.set_times(FileTimes::new().set_modified(time))
            }
            None => Ok(()),
        }
    };
    set().map_err(|error| format!("chmod {}: {}", put.path, text(error)))
}
