//! Work on images that takes a while: how far it is, and whether it is to end.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

/// Is told how far a work is. Called from several threads.
pub trait Progress: Sync {
    /// So many bytes are to be read.
    fn total(&self, _bytes: u64) {}
    /// So many bytes more have been read.
    fn advance(&self, _bytes: u64) {}
}

/// Watches nothing.
impl Progress for () {}

/// Never set.
pub(super) static NEVER: AtomicBool = AtomicBool::new(false);

/// What watches a work.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Told how far the work is.
    pub progress: &'a dyn Progress,
    /// Set to end the work with an error.
    pub interrupt: &'a AtomicBool,
}

impl Default for Watch<'_> {
    fn default() -> Self {
        Self { progress: &(), interrupt: &NEVER }
    }
}

impl<'a> Watch<'a> {
    /// An error once the work is to end.
    pub(super) fn check(&self) -> io::Result<()> {
        // `ErrorKind::Interrupted` would be tried again.
        if self.is_over() { Err(io::Error::other("interrupted")) } else { Ok(()) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    /// The same bytes, which are counted.
    pub(super) fn read<R>(self, inner: R) -> Watched<'a, R> {
        Watched { watch: self, inner, count: 0 }
    }
}

/// A reader that is watched.
pub(super) struct Watched<'a, R> {
    watch: Watch<'a>,
    inner: R,
    /// Bytes that have been read.
    pub count: u64,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.watch.check()?;
        let read = self.inner.read(buf)?;
        self.count += read as u64;
        self.watch.progress.advance(read as u64);
        Ok(read)
    }
}
