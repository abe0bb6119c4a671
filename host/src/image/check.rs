//! What is in an image, and whether it is whole.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use env86_devices::fs::{Content, Filesystem, FsJsonError};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::watch::Watch;
use super::{BLOB_DIR, Image, ImageError};

/// What the names of contents end with.
const BLOB_SUFFIX: &str = ".bin";
/// What v86's tools add to the name of one that they have compressed.
const COMPRESSED_SUFFIX: &str = ".zst";
/// Hexadecimal digits of the hash in a name, at least.
const MIN_DIGITS: usize = 8;
/// Problems that an error tells of.
const TOLD: usize = 3;

/// Why an image cannot be looked through, or is not whole.
#[derive(Debug, Error)]
pub enum CheckError {
    /// It cannot be opened.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its index cannot be read.
    #[error("The image `{}` is damaged; copy or make it again", path.display())]
    Index {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        source: FsJsonError,
    },
    /// Asked to stop.
    #[error("Interrupted")]
    Interrupted,
    /// It is not whole.
    #[error("The image `{}` is damaged: {}; copy or make it again", path.display(), told(problems))]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<String>,
    },
}

fn told(problems: &[String]) -> String {
    let more = problems.len().saturating_sub(TOLD);
    let mut text = problems[..problems.len() - more].join("; ");
    if more > 0 {
        text += &format!("; and {more} more");
    }
    text
}

/// What an image's index says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Files, directories and what else has an inode, without the root.
    pub entries: u64,
    /// Bytes of the files in it, hard links counted once.
    pub bytes: u64,
    /// Contents by name, and the bytes of each.
    pub blobs: BTreeMap<String, u64>,
}

impl Contents {
    /// Reads an image's index. An image without one is one of disks: it has nothing.
    pub fn of(image: &Image) -> Result<Self, CheckError> {
        let Some(files) = index_of(image)? else { return Ok(Self::default()) };
        let mut contents = Self { entries: files.count() as u64 - 1, ..Self::default() };
        for inode in files.inodes().iter().flatten() {
            if let Content::File(data) = &inode.content {
                contents.bytes += inode.size;
                if let Some(base) = data.base() {
                    let size = contents.blobs.entry(base.blob.to_string()).or_default();
                    *size = base.size.max(*size);
                }
            }
        }
        Ok(contents)
    }
}

/// The tree of an image's files; `None` if it has no index, since it is one of disks.
pub(super) fn index_of(image: &Image) -> Result<Option<Filesystem>, CheckError> {
    let text = match image.read_index() {
        Err(ImageError::Missing(_)) => return Ok(None),
        read => read?,
    };
    let read = Filesystem::from_json(&text);
    read.map(Some).map_err(|source| CheckError::Index { path: image.path().into(), source })
}

/// What was found out about an image.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The image.
    pub path: PathBuf,
    /// Contents that have been compared with their names.
    pub compared: u64,
    /// Contents whose names are no hashes, of which only the size is known.
    pub unnamed: u64,
    /// Contents that the index does not name, which take room in vain.
    pub unused: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

impl Checked {
    /// An error if something is wrong.
    pub fn into_result(self) -> Result<Self, CheckError> {
        match self.problems.is_empty() {
            true => Ok(self),
            false => Err(CheckError::Damaged { path: self.path, problems: self.problems }),
        }
    }
}

/// Compares an image with itself: its index is whole, and each content that it names is there, is as long as it
/// says, and has the hash that its name begins with. What the configuration names is there.
pub fn check(image: &Image, watch: &Watch) -> Result<Checked, CheckError> {
    let contents = Contents::of(image)?;
    let dir = image.dir().join(BLOB_DIR);
    watch.progress.total(contents.blobs.values().sum());
    let mut checked =
        Checked { path: image.path().into(), compared: 0, unnamed: 0, unused: 0, problems: Vec::new() };
    for (name, size) in &contents.blobs {
        match compare(&dir, name, *size, watch) {
            Ok(true) => checked.compared += 1,
            Ok(false) => checked.unnamed += 1,
            Err(_) if watch.is_over() => return Err(CheckError::Interrupted),
            Err(error) => checked.problems.push(format!("{BLOB_DIR}/{name}: {error}")),
        }
    }
    let used: HashSet<&str> = contents.blobs.keys().map(String::as_str).collect();
    // The blob of an empty file is never read.
    let empty = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|meta| meta.len() == 0);
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    let names = entries.filter(|entry| !empty(entry)).map(|entry| entry.file_name());
    checked.unused =
        names.filter(|name| !name.to_str().is_some_and(|name| used.contains(name))).count() as u64;
    for (key, file) in image.config.files() {
        match image.files_of_ref(key, file) {
            // One on a server, for pages.
            Ok(_) | Err(ImageError::Outside { .. }) => {}
            Err(ImageError::Missing(path)) => {
                checked.problems.push(format!("{key}: `{}` is missing", path.display()));
            }
            Err(error) => checked.problems.push(format!("{key}: {error}")),
        }
    }
    for path in image.state_files()?.unwrap_or_default() {
        if fs::metadata(&path).map_or(0, |meta| meta.len()) == 0 {
            checked.problems.push(format!("the saved state `{}` is missing or empty", path.display()));
        }
    }
    Ok(checked)
}

/// The names by which an index may call the content in a file of this name; `None` if it is no content's.
pub(super) fn content_names(name: &str) -> Option<[String; 2]> {
    let plain = name.strip_suffix(COMPRESSED_SUFFIX).unwrap_or(name);
    let is_content = plain.len() > BLOB_SUFFIX.len() && plain.ends_with(BLOB_SUFFIX);
    is_content.then(|| [plain.into(), format!("{plain}{COMPRESSED_SUFFIX}")])
}

/// Compares a content with its name, if that is a hash.
fn compare(dir: &Path, name: &str, size: u64, watch: &Watch) -> io::Result<bool> {
    let problem = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    if Path::new(name).file_name().is_none_or(|file| file != name) {
        return problem("no name of a file".into());
    }
    let file = crate::os::open_no_follow(&dir.join(name))?;
    let have = file.metadata()?.len();
    let plain = name.strip_suffix(COMPRESSED_SUFFIX).unwrap_or(name);
    let compressed = plain.len() < name.len();
    if !compressed && have < size {
        return problem(format!("{have} bytes where {size} are needed"));
    }
    let digits = plain.strip_suffix(BLOB_SUFFIX).unwrap_or_default();
    let is_hash =
        digits.len() >= MIN_DIGITS && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash {
        watch.progress.advance(size);
        return Ok(false);
    }
    let hash =
        if compressed { hash(zstd::Decoder::new(file)?.take(size), watch)? } else { hash(file, watch)? };
    if !hash.starts_with(digits) {
        return problem(format!("its content has the hash {}…, not its name's", &hash[..digits.len()]));
    }
    Ok(true)
}

/// The SHA-256 of all bytes, in hexadecimal.
pub(super) fn hash(from: impl Read, watch: &Watch) -> io::Result<String> {
    let mut from = watch.read(from);
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            Ok(len) => hash.update(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub fn hash_of(path: &Path, watch: &Watch) -> io::Result<String> {
    hash(File::open(path)?, watch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, image) = (dir.path().join("tree"), dir.path().join("image"));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), "hello").unwrap();
        fs::write(tree.join("b"), "world!").unwrap();
        fs::write(tree.join("empty"), "").unwrap();
        super::super::create::from_dir(&tree, &image, &Default::default()).unwrap();
        let image = Image::open(image).unwrap();
        let checked = check(&image, &Watch::default()).unwrap().into_result().unwrap();
        assert_eq!((checked.compared, checked.unnamed, checked.unused), (2, 0, 0));
        let contents = Contents::of(&image).unwrap();
        assert_eq!((contents.entries, contents.bytes, contents.blobs.len()), (3, 11, 2));

        let blob = |name: &str| image.dir().join(BLOB_DIR).join(name);
        fs::write(blob("2cf24dba.bin"), "hallo").unwrap();
        fs::write(blob("other.bin"), "x").unwrap();
        let checked = check(&image, &Watch::default()).unwrap();
        assert_eq!((checked.problems.len(), checked.unused), (1, 1));
        assert!(checked.problems[0].contains("2cf24dba.bin"), "{checked:?}");
        fs::remove_file(blob("2cf24dba.bin")).unwrap();
        let error = check(&image, &Watch::default()).unwrap().into_result().unwrap_err();
        assert!(error.to_string().contains("2cf24dba.bin"), "{error}");
        // A disk is one file, or its parts.
        let mut image = image;
        let disk = |text| serde_json::from_str(text).unwrap();
        let lacks =
            |image: &Image| check(image, &Watch::default()).unwrap().problems.join("").contains("hda: ");
        image.config.hda = Some(disk(r#"{"url": "./hda.img", "use_parts": true}"#));
        assert!(lacks(&image));
        fs::write(image.dir().join("hda-0-512.img"), [0; 512]).unwrap();
        assert!(!lacks(&image));
        image.config.hda = Some(disk(r#"{"url": "./hda.img"}"#));
        assert!(lacks(&image));
        image.config.hda = Some(disk(r#"{"url": "https://example.org/hda.img"}"#));
        assert!(!lacks(&image));
        fs::write(image.index_path(), "{").unwrap();
        assert!(matches!(check(&image, &Watch::default()), Err(CheckError::Index { .. })));
    }
}
