//! Copying file contents into blobs named by their hash, on all cores.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{CreateError, Options};

/// Bytes copied at a time.
const CHUNK: usize = 256 << 10;

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

/// Copies every file into the folder and names it by its hash. Files that are equal share a blob.
pub fn store(files: &[(PathBuf, u64)], dir: &Path, options: &Options) -> Result<Stored, CreateError> {
    let temporary = |number: usize| dir.join(format!("{number}.tmp"));
    let copied: Vec<_> = files
        .par_iter()
        .enumerate()
        .map_init(
            || vec![0; CHUNK],
            |chunk, (number, (path, _))| copy(path, &temporary(number), chunk, options),
        )
        .collect::<Result<_, _>>()?;

    // Naming goes in the order of the tree, so that the same tree always gives the same image.
    let mut names = Names { digits: options.hash_digits, taken: HashMap::new() };
    let mut blobs = Vec::with_capacity(files.len());
    for (number, (hash, size)) in copied.into_iter().enumerate() {
        let from = temporary(number);
        let (name, new) = names.assign(&hash);
        let to = dir.join(&name);
        let placed = if new { fs::rename(&from, &to) } else { fs::remove_file(&from) };
        placed.map_err(CreateError::write(&to))?;
        blobs.push(Blob { name, size });
    }
    Ok(Stored { files: blobs, distinct: names.taken.len() as u64 })
}

/// Copies one file; returns its SHA-256 in hexadecimal and its size.
fn copy(from: &Path, to: &Path, chunk: &mut [u8], options: &Options) -> Result<(String, u64), CreateError> {
    let mut source = File::open(from).map_err(CreateError::read(from))?;
    let mut target = File::create_new(to).map_err(CreateError::write(to))?;
    let mut hash = Sha256::new();
    let mut size = 0;
    loop {
        options.check_interrupt()?;
        let len = match source.read(chunk) {
            Ok(0) => break,
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(CreateError::read(from)(e)),
        };
        hash.update(&chunk[..len]);
        target.write_all(&chunk[..len]).map_err(CreateError::write(to))?;
        size += len as u64;
        options.progress.advance(len as u64);
    }
    Ok((hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), size))
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
