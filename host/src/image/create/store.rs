//! Copying file contents into blobs named by their hash, on all cores.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{CreateError, Options};

/// Bytes copied at a time.
const CHUNK: usize = 256 << 10;
/// Zeros that are left out of a copy, at least.
const HOLE: usize = 4 << 10;

/// Contents that have been stored.
#[derive(Clone, Debug)]
pub struct Blob {
    /// File name in the blob folder.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
}

/// All contents that have been stored.
pub struct Stored {
    /// For every source file its blob.
    pub files: Vec<Blob>,
    /// The number of different contents.
    pub distinct: u64,
}

/// The hash of a content, in hexadecimal, and its size in bytes.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// The SHA-256, in hexadecimal.
    pub hash: String,
    /// Bytes.
    pub size: u64,
}

/// Copies every file into the folder and names it by its hash. Files that are equal share a blob.
pub fn store(files: &[(PathBuf, u64)], dir: &Path, options: &Options) -> Result<Stored, CreateError> {
    let copied: Vec<_> = files
        .par_iter()
        .enumerate()
        .map_init(
            || Copier::new(dir, options),
            |copier, (number, (path, _))| {
                let file = File::open(path).map_err(CreateError::read(path))?;
                copier.copy(number, options.watch().read(file), CreateError::read(path))
            },
        )
        .collect::<Result<_, _>>()?;
    // Naming goes in the order of the tree, so that the same tree always gives the same image.
    Copier::new(dir, options).name(copied.iter().enumerate())
}

/// Copies contents into the folder of blobs.
pub struct Copier<'a> {
    dir: &'a Path,
    options: &'a Options<'a>,
    chunk: Vec<u8>,
}

impl<'a> Copier<'a> {
    pub fn new(dir: &'a Path, options: &'a Options<'a>) -> Self {
        Self { dir, options, chunk: vec![0; CHUNK] }
    }

    /// Where a content is that has no name yet.
    pub fn temporary(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{number}.tmp"))
    }

    /// Copies a content, which has a number until it gets a name. Where it has nothing but zeros the copy has
    /// nothing.
    pub fn copy(
        &mut self,
        number: usize,
        mut from: impl Read,
        failed: impl FnOnce(io::Error) -> CreateError,
    ) -> Result<Hashed, CreateError> {
        let to = self.temporary(number);
        let mut target = File::create_new(&to).map_err(CreateError::write(&to))?;
        let mut hash = Sha256::new();
        let (mut size, mut hole) = (0, 0);
        loop {
            let len = match from.read(&mut self.chunk) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.options.check_interrupt()?;
                    return Err(failed(error));
                }
            };
            let bytes = &self.chunk[..len];
            hash.update(bytes);
            size += len as u64;
            if len >= HOLE && bytes.iter().all(|byte| *byte == 0) {
                hole += len as u64;
                continue;
            }
            let skipped = if hole > 0 { target.seek(SeekFrom::Start(size - len as u64)) } else { Ok(0) };
            hole = 0;
            skipped.and_then(|_| target.write_all(bytes)).map_err(CreateError::write(&to))?;
        }
        if hole > 0 {
            target.set_len(size).map_err(CreateError::write(&to))?;
        }
        Ok(Hashed { hash: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), size })
    }

    /// Gives contents their names, in this order.
    pub fn name<'b>(&self, copied: impl Iterator<Item = (usize, &'b Hashed)>) -> Result<Stored, CreateError> {
        let mut names = Names { digits: self.options.hash_digits, taken: HashMap::new() };
        let mut files = Vec::new();
        for (number, Hashed { hash, size }) in copied {
            let from = self.temporary(number);
            let (name, new) = names.assign(hash);
            let to = self.dir.join(&name);
            let placed = if new { fs::rename(&from, &to) } else { fs::remove_file(&from) };
            placed.map_err(CreateError::write(&to))?;
            files.push(Blob { name, size: *size });
        }
        Ok(Stored { files, distinct: names.taken.len() as u64 })
    }

    /// Removes a content that has no name.
    pub fn forget(&self, number: usize) -> Result<(), CreateError> {
        let path = self.temporary(number);
        fs::remove_file(&path).map_err(CreateError::write(&path))
    }
}

/// Puts contents into the folder that are elsewhere, and never change there, under their names.
pub fn link(
    contents: &[Hashed],
    place: impl Fn(&str) -> PathBuf,
    dir: &Path,
    options: &Options,
) -> Result<Stored, CreateError> {
    let mut names = Names { digits: options.hash_digits, taken: HashMap::new() };
    let mut files = Vec::new();
    for Hashed { hash, size } in contents {
        options.check_interrupt()?;
        let (name, new) = names.assign(hash);
        if new {
            let (from, to) = (place(hash), dir.join(&name));
            // Another file system, or one without links, has a copy.
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).map_err(CreateError::read(&from))?;
            }
        }
        files.push(Blob { name, size: *size });
    }
    Ok(Stored { files, distinct: names.taken.len() as u64 })
}

/// Gives names to hashes: the first digits, or more of them where those are taken.
struct Names {
    digits: usize,
    /// The whole hash behind each name given.
    taken: HashMap<String, String>,
}

impl Names {
    /// The name for a hash, and whether it is a new one.
    fn assign(&mut self, hash: &str) -> (String, bool) {
        let mut digits = self.digits.min(hash.len());
        loop {
            let name = format!("{}.bin", &hash[..digits]);
            match self.taken.get(&name) {
                Some(owner) if owner == hash => return (name, false),
                // Two equal hashes never come here, so there is always a digit more.
                Some(_) => digits += 1,
                None => {
                    self.taken.insert(name.clone(), hash.into());
                    return (name, true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collision_lengthens_the_later_name() {
        let mut names = Names { digits: 2, taken: HashMap::new() };
        assert_eq!(names.assign("abcd"), ("ab.bin".into(), true));
        assert_eq!(names.assign("abce"), ("abc.bin".into(), true));
        assert_eq!(names.assign("abcf"), ("abcf.bin".into(), true));
        assert_eq!(names.assign("abce"), ("abc.bin".into(), false));
        assert_eq!(names.assign("abcd"), ("ab.bin".into(), false));
    }
}
