//! Images in one file: a gzipped tar archive whose root is the image's directory.
//!
//! The archive is unpacked to a temporary folder that goes when the image is closed. It is written
//! anew as a whole, so that it is never half the old one and half the new.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::scratch::Scratch;
use super::watch::Watch;
use super::{CONFIG_FILE, ImageError};
use crate::replace::replace;

/// The first bytes of a gzip file (RFC 1952, 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The time of all files in an archive, in seconds since 1970: 1980, before which some programs warn of a time.
const PACKED_TIME: u64 = 315_532_800;

/// An archive and what is in it.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    folder: Scratch,
}

impl Archive {
    /// Unpacks an archive.
    pub fn unpack(path: PathBuf) -> Result<Self, ImageError> {
        let wrong = |source| ImageError::Unpack { path: path.clone(), source };
        let file = File::open(&path).map_err(wrong)?;
        if !is_gzip(&path) {
            return Err(ImageError::NotAnImage(path));
        }
        let folder = Scratch::new().map_err(wrong)?;
        unpack(file, folder.path(), u64::MAX, &Watch::default()).map_err(wrong)?;
        Ok(Self { path, folder })
    }

    /// The archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that it was unpacked to.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the archive anew, with files in its root as they now are in the folder: those that are
    /// there come last, those that are not are left out.
    pub fn replace_files(&self, names: &[&str]) -> Result<(), ImageError> {
        // A link stays a link: what it leads to is replaced.
        let target = fs::canonicalize(&self.path);
        let written = target.and_then(|path| {
            replace(&path, |file| {
                // Fast: most of an image is compressed already, and the user waits.
                let gzip = GzEncoder::new(BufWriter::new(file), Compression::fast());
                let mut new = Builder::new(gzip);
                copy_others(&path, &mut new, names)?;
                for name in names {
                    append(&mut new, &self.dir().join(name), name)?;
                }
                new.into_inner()?.finish()?.flush()
            })
        });
        match written {
            Ok(_) => Ok(()),
            Err(source) => Err(ImageError::Pack { path: self.path.clone(), source }),
        }
    }
}

fn open(from: impl Read) -> tar::Archive<impl Read> {
    // Files may be of several gzip members.
    tar::Archive::new(MultiGzDecoder::new(BufReader::new(from)))
}

/// A file begins as gzip's do.
pub fn is_gzip(path: &Path) -> bool {
    let mut magic = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == GZIP_MAGIC
}

/// The path of an entry below the image's directory; `None` if it leads elsewhere.
pub fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return None,
        }
    }
    Some(clean)
}

/// Unpacks files and directories, so many bytes of them at most; an image has nothing else. Who owned them does
/// not matter.
pub fn unpack(from: impl Read, to: &Path, limit: u64, watch: &Watch) -> io::Result<()> {
    unpack_more(from, to, &mut { limit }, limit, watch)
}

/// Unpacks one of several archives, of whose `limit` of bytes there are some `left`.
pub fn unpack_more(from: impl Read, to: &Path, left: &mut u64, limit: u64, watch: &Watch) -> io::Result<()> {
    let problem = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    for entry in open(watch.read(from)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(below) = inside(&path) else {
            return Err(problem(format!("`{}` in it leads out of the image", path.display())));
        };
        let place = to.join(below);
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&place)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                // Directories need not have entries of their own.
                fs::create_dir_all(place.parent().unwrap_or(to))?;
                let size = entry.size();
                *left = left
                    .checked_sub(size)
                    .ok_or_else(|| problem(format!("what is in it takes more than {limit} bytes")))?;
                if io::copy(&mut entry, &mut File::create(&place)?)? != size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Packs an image's folder. The same files always give the same bytes: they come in the order of their names, the
/// configuration first, without owners and times.
pub fn pack(dir: &Path, to: impl Write, watch: &Watch) -> io::Result<()> {
    let files = files(dir)?;
    watch.progress.total(files.iter().filter_map(|(_, size)| *size).sum());
    pack_some(dir, files, to, watch)
}

/// A path below a folder, and the size of what is a file.
pub type Found = (PathBuf, Option<u64>);

/// The directories of an image and its files, in the order of an archive.
pub fn files(dir: &Path) -> io::Result<Vec<Found>> {
    let mut files = Vec::new();
    collect(dir, Path::new(""), &mut files)?;
    files.sort_by_key(|(path, _)| (path != Path::new(CONFIG_FILE), path.clone()));
    Ok(files)
}

/// Packs some of an image's files, in this order.
pub fn pack_some(dir: &Path, files: Vec<Found>, to: impl Write, watch: &Watch) -> io::Result<()> {
    let mut new = Builder::new(GzEncoder::new(BufWriter::new(to), Compression::default()));
    for (path, size) in files {
        let mut header = Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(PACKED_TIME);
        match size {
            None => {
                header.set_entry_type(EntryType::Directory);
                header.set_size(0);
                header.set_mode(0o755);
                new.append_data(&mut header, path, io::empty())?;
            }
            Some(size) => {
                header.set_size(size);
                header.set_mode(0o644);
                let mut file = watch.read(File::open(dir.join(&path))?.take(size));
                new.append_data(&mut header, &path, &mut file)?;
                if file.count != size {
                    let problem = format!("`{}` became shorter meanwhile", path.display());
                    return Err(io::Error::other(problem));
                }
            }
        }
    }
    new.into_inner()?.finish()?.flush()
}

/// The directories of an image and, with their sizes, its files. What is hidden is being written.
fn collect(dir: &Path, below: &Path, files: &mut Vec<Found>) -> io::Result<()> {
    for entry in fs::read_dir(dir.join(below))? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let (path, meta) = (below.join(entry.file_name()), entry.metadata()?);
        if meta.is_dir() {
            files.push((path.clone(), None));
            collect(dir, &path, files)?;
        } else if meta.is_file() {
            files.push((path, Some(meta.len())));
        }
    }
    Ok(())
}

/// Copies the entries of an archive as they are, but for those with these names in its root.
fn copy_others(from: &Path, to: &mut Builder<impl Write>, names: &[&str]) -> io::Result<()> {
    for entry in open(File::open(from)?).entries()?.raw(true) {
        let mut entry = entry?;
        let name = inside(&entry.path()?);
        if !name.is_some_and(|name| names.iter().any(|other| name == Path::new(other))) {
            let header = entry.header().clone();
            to.append(&header, &mut entry)?;
        }
    }
    Ok(())
}

/// Appends a file, if it is there.
fn append(to: &mut Builder<impl Write>, path: &Path, name: &str) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    let mut header = Header::new_gnu();
    header.set_metadata(&meta);
    // Whoever unpacks it owns it, and may let others read it.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(0o644);
    to.append_data(&mut header, name, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(dir: &Path, entries: &[(&str, &[u8])]) -> PathBuf {
        let path = dir.join("image.tgz");
        let mut new = Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
        for (name, content) in entries {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            // As they are: `append_data` would refuse what a hostile archive has.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            new.append(&header, *content).unwrap();
        }
        new.into_inner().unwrap().finish().unwrap();
        path
    }

    #[test]
    fn files_are_replaced_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path =
            archive(dir.path(), &[("./image.json", b"{}"), ("./fs/a.bin", b"a"), ("initial.state", b"old")]);
        let opened = Archive::unpack(path.clone()).unwrap();
        assert_eq!(fs::read(opened.dir().join("fs/a.bin")).unwrap(), b"a");
        assert_eq!(fs::read(opened.dir().join("initial.state")).unwrap(), b"old");
        fs::write(opened.dir().join("initial.state"), "new").unwrap();
        opened.replace_files(&["initial.state", "initial.state.zst"]).unwrap();
        let folder = opened.dir().to_owned();
        drop(opened);
        assert!(!folder.exists());
        let again = Archive::unpack(path).unwrap();
        assert_eq!(fs::read(again.dir().join("initial.state")).unwrap(), b"new");
        assert_eq!(fs::read(again.dir().join("fs/a.bin")).unwrap(), b"a");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_packed_to_the_same_bytes_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::default();
        let pack = |dir: &Path| {
            let mut bytes = Vec::new();
            pack(dir, &mut bytes, &watch).unwrap();
            bytes
        };
        let mut packed = Vec::new();
        for (name, order) in
            [("a", ["fs/b.bin", "fs/a.bin", "image.json"]), ("b", ["image.json", "fs/a.bin", "fs/b.bin"])]
        {
            let folder = dir.path().join(name);
            fs::create_dir_all(folder.join("fs")).unwrap();
            order.iter().for_each(|path| fs::write(folder.join(path), path).unwrap());
            fs::write(folder.join(".image.json.new-1-0"), "half").unwrap();
            packed.push(pack(&folder));
        }
        assert!(packed[0] == packed[1]);
        let back = dir.path().join("back");
        unpack(&*packed[0], &back, 1 << 10, &watch).unwrap();
        assert!(pack(&back) == packed[0]);
        assert_eq!(fs::read_dir(&back).unwrap().count(), 2);
        let error = unpack(&*packed[0], &dir.path().join("small"), 20, &watch).unwrap_err();
        assert!(error.to_string().contains("more than 20 bytes"), "{error}");
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for name in ["../x", "/etc/x", "fs/../../x"] {
            let dir = tempfile::tempdir().unwrap();
            let path = archive(dir.path(), &[(name, b"x")]);
            let error = Archive::unpack(path).unwrap_err();
            assert!(matches!(error, ImageError::Unpack { .. }), "{error}");
        }
    }

    #[test]
    fn a_cut_archive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = archive(dir.path(), &[("image.json", &[7; 5000])]);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(Archive::unpack(path), Err(ImageError::Unpack { .. })));
    }
}
