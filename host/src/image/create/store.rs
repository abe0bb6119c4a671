//! Copying file contents into blobs named by their hash, on all cores.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
    let claims = Claims { digits: options.hash_digits, taken: Mutex::default() };
    let copied: Vec<Copied> = files
        .par_iter()
        .enumerate()
        .map_init(
            || Copier::new(dir, options),
            |copier, (number, (path, size))| {
                let file = File::open(path).map_err(CreateError::read(path))?;
                let from = options.watch().read(file);
                match *size < CHUNK as u64 {
                    true => copier.copy_small(&claims, number, path, from),
                    false => copier.copy_large(&claims, number, path, from),
                }
            },
        )
        .collect::<Result<_, _>>()?;
    claims.settle(&copied, &Copier::new(dir, options))
}

/// A content that has been copied.
struct Copied {
    content: Hashed,
    /// Another one has its short name, and it is where those are that have no name.
    waits: bool,
}

/// Short names that contents take while they are copied: most names are one content's only. It is put there once, and
/// needs no other name later.
struct Claims {
    digits: usize,
    /// The whole hash behind each name.
    taken: Mutex<HashMap<String, String>>,
}

/// What a content finds under its short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Nothing: it comes there.
    New,
    /// Itself.
    Same,
    /// Another one.
    Other,
}

impl Claims {
    fn name(&self, hash: &str) -> String {
        name_of(hash, self.digits)
    }

    fn claim(&self, name: &str, hash: &str) -> Claim {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get(name) {
            Some(owner) if owner == hash => Claim::Same,
            Some(_) => Claim::Other,
            None => {
                taken.insert(name.into(), hash.into());
                Claim::New
            }
        }
    }

    /// Gives contents their names in the order of the tree, so that the same tree always gives the same image, whoever was
    /// first.
    fn settle(self, copied: &[Copied], copier: &Copier) -> Result<Stored, CreateError> {
        let taken = self.taken.into_inner().unwrap_or_else(PoisonError::into_inner);
        let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(CreateError::write(to));
        // Where contents are for whose names there are several.
        let mut places: HashMap<&str, PathBuf> = HashMap::new();
        for (number, Copied { content, .. }) in copied.iter().enumerate().filter(|(_, copied)| copied.waits) {
            let name = name_of(&content.hash, self.digits);
            if let Some(owner) = taken.get(&name)
                && !places.contains_key(owner.as_str())
            {
                let aside = copier.dir.join(format!("{owner}.tmp"));
                rename(&copier.dir.join(&name), &aside)?;
                places.insert(owner, aside);
            }
            if places.contains_key(content.hash.as_str()) {
                copier.forget(number)?;
            } else {
                places.insert(&content.hash, copier.temporary(number));
            }
        }
        let mut names = Names { digits: self.digits, taken: HashMap::new() };
        let mut files = Vec::with_capacity(copied.len());
        for Copied { content: Hashed { hash, size }, .. } in copied {
            let (name, new) = names.assign(hash);
            if new && let Some(place) = places.get(hash.as_str()) {
                rename(place, &copier.dir.join(&name))?;
            }
            files.push(Blob { name, size: *size });
        }
        Ok(Stored { files, distinct: names.taken.len() as u64 })
    }
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
        Ok(Hashed { hash: hexadecimal(&hash.finalize()), size })
    }

    /// Copies a content that was smaller than a chunk in the tree, so that its name is known before it is written.
    fn copy_small(
        &mut self,
        claims: &Claims,
        number: usize,
        path: &Path,
        mut from: impl Read,
    ) -> Result<Copied, CreateError> {
        let mut size = 0;
        while size < self.chunk.len() {
            match from.read(&mut self.chunk[size..]) {
                Ok(0) => break,
                Ok(len) => size += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.options.check_interrupt()?;
                    return Err(CreateError::read(path)(error));
                }
            }
        }
        let bytes = &self.chunk[..size];
        if size == self.chunk.len() || size >= HOLE && bytes.iter().all(|byte| *byte == 0) {
            // It has grown since, or is a hole.
            let whole = io::Cursor::new(bytes.to_vec()).chain(from);
            return self.copy_large(claims, number, path, whole);
        }
        let hash = hexadecimal(&Sha256::digest(bytes));
        let name = claims.name(&hash);
        let claim = claims.claim(&name, &hash);
        let to = match claim {
            Claim::New => Some(self.dir.join(name)),
            Claim::Same => None,
            Claim::Other => Some(self.temporary(number)),
        };
        if let Some(to) = to {
            let written = File::create_new(&to).and_then(|mut file| file.write_all(bytes));
            written.map_err(CreateError::write(&to))?;
        }
        Ok(Copied { content: Hashed { hash, size: size as u64 }, waits: claim == Claim::Other })
    }

    /// Copies a content whose name is known when it has been written.
    fn copy_large(
        &mut self,
        claims: &Claims,
        number: usize,
        path: &Path,
        from: impl Read,
    ) -> Result<Copied, CreateError> {
        let content = self.copy(number, from, CreateError::read(path))?;
        let name = claims.name(&content.hash);
        let claim = claims.claim(&name, &content.hash);
        match claim {
            Claim::New => {
                let to = self.dir.join(name);
                fs::rename(self.temporary(number), &to).map_err(CreateError::write(&to))?;
            }
            Claim::Same => self.forget(number)?,
            Claim::Other => {}
        }
        Ok(Copied { content, waits: claim == Claim::Other })
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

fn hexadecimal(hash: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The name of a content with so many digits of its hash.
fn name_of(hash: &str, digits: usize) -> String {
    format!("{}.bin", &hash[..digits.min(hash.len())])
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
            let name = name_of(hash, digits);
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
