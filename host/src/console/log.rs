//! What a serial line has said last, in a file that does not grow without bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes of the file at most.
const LIMIT: u64 = 1 << 20;
/// Bytes of it that stay when it has become so long.
const KEPT: u64 = LIMIT / 2;

/// The file. It is locked while it is shortened, so that one who locks it reads it whole.
#[derive(Debug)]
pub struct Log {
    file: File,
    len: u64,
}

impl Log {
    /// Makes the file, empty.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Self { file, len: 0 })
    }

    /// Keeps the end of the file.
    fn shorten(&mut self) -> io::Result<()> {
        let mut end = Vec::new();
        self.file.seek(SeekFrom::Start(self.len - KEPT))?;
        self.file.read_to_end(&mut end)?;
        self.file.lock()?;
        let written = self.file.rewind().and_then(|()| self.file.write_all(&end));
        let written = written.and_then(|()| self.file.set_len(end.len() as u64));
        self.file.unlock()?;
        self.len = end.len() as u64;
        written
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len >= LIMIT {
            self.shorten()?;
        }
        let written = self.file.write(bytes)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_said_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path).unwrap();
        let mut said = Vec::new();
        for number in 0..300_000 {
            let line = format!("line {number}\n");
            said.extend(line.as_bytes());
            log.write_all(line.as_bytes()).unwrap();
        }
        let kept = std::fs::read(&path).unwrap();
        assert!((KEPT as usize..=LIMIT as usize + 16).contains(&kept.len()), "{}", kept.len());
        assert!(said.ends_with(&kept));
    }
}
