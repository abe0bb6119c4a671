//! guest86 for images that have none: it runs commands in the guest, and is its first program, if it has no other.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What it is called in a guest, and the folders that it may be in there; it is put into the first one that the
/// image has, and that has nothing of this name. Each with what the kernel is told then.
pub(super) const NAME: &str = "guest86";
pub(super) const FOLDERS: [(&str, &str); 5] = [
    ("sbin", "init=/sbin/guest86"),
    ("usr/sbin", "init=/usr/sbin/guest86"),
    ("bin", "init=/bin/guest86"),
    ("usr/bin", "init=/usr/bin/guest86"),
    ("", "init=/guest86"),
];
/// Its mode: a file, which is executed.
pub(super) const FILE: u32 = 0o100_755;
/// Where a build of this project has it, seen from `env86`, and where an installation may have it.
const PLACES: [&str; 3] = ["guest86", "../lib/env86/guest86", "../i686-unknown-linux-musl/guest/guest86"];
/// What an executable file for i386 begins with: ELF's magic number, 32 bits, little-endian; at 18, the machine.
const ELF: &[u8] = b"\x7fELF\x01\x01";
const MACHINE: (usize, [u8; 2]) = (18, [3, 0]);

/// Why there is no guest86.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The file cannot be read.
    #[error("Cannot use `{}` as guest86", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else.
    #[error("`{}` is no program for i386, so it is not the guest86 for a guest; `make guest` builds that", .0.display())]
    Wrong(PathBuf),
}

/// The program guest86.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestService {
    path: PathBuf,
    size: u64,
    always: bool,
}

impl GuestService {
    /// The program in a file. It is put into every image, and the guest's kernel starts it first.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, ServiceError> {
        let path = path.into();
        let read = || -> io::Result<(Vec<u8>, u64)> {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            let mut start = Vec::new();
            file.take(64).read_to_end(&mut start)?;
            Ok((start, size))
        };
        let (start, size) = match read() {
            Ok(read) => read,
            Err(source) => return Err(ServiceError::Read { path, source }),
        };
        let (at, machine) = MACHINE;
        if !start.starts_with(ELF) || start.get(at..at + 2) != Some(&machine) {
            return Err(ServiceError::Wrong(path));
        }
        Ok(Self { path, size, always: true })
    }

    /// The program as it belongs to `env86` in this folder, if it is there.
    pub fn beside(folder: &Path) -> Option<Self> {
        // What is built for this machine may have the same name.
        let found = PLACES.iter().find_map(|place| Self::new(folder.join(place)).ok())?;
        let path = fs::canonicalize(&found.path).unwrap_or(found.path);
        Some(Self { path, ..found })
    }

    /// The same, for containers only that neither have it nor are to start an init of their own.
    #[must_use]
    pub fn where_needed(self) -> Self {
        Self { always: false, ..self }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// It is put into every image.
    pub(super) fn is_always(&self) -> bool {
        self.always
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of an executable file for a machine.
    fn program(bits: u8, machine: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', bits, 1]);
        bytes[18] = machine;
        bytes
    }

    #[test]
    fn only_programs_for_i386_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            path
        };
        let bin = folder.path().join("bin");
        assert!(GuestService::beside(&bin).is_none());
        for wrong in [&b""[..], b"#!/bin/sh\n", &program(2, 62), &program(1, 40), &program(1, 3)[..18]] {
            assert!(matches!(GuestService::new(place("bin/guest86", wrong)), Err(ServiceError::Wrong(_))));
        }
        assert!(matches!(GuestService::new(folder.path().join("none")), Err(ServiceError::Read { .. })));
        // That of this machine does not hide the other.
        let good = place("lib/env86/guest86", &program(1, 3));
        let found = GuestService::beside(&bin).unwrap();
        assert_eq!((found.path(), found.size()), (&*fs::canonicalize(good).unwrap(), 64));
        assert!(found.is_always() && !found.where_needed().is_always());
    }
}
