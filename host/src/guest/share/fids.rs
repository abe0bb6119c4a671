//! A client's handles, and how much of the host's memory they may take.

use std::collections::BTreeMap;
use std::fs::File;

use env86_devices::fs::{Errno, FsResult};

/// Handles that a client may have. Linux holds one for every name that it caches.
const MAX_FIDS: usize = 1 << 16;
/// Bytes that the names on the ways of all handles may take.
const MAX_NAMES: usize = 128 << 20;
/// What a name takes beside its bytes: where it stands, and what an allocator puts beside it.
const NAME: usize = 48;

/// The names on the way to a file.
pub type Way = Vec<Vec<u8>>;

/// A client's handle.
#[derive(Debug, Default)]
pub struct Fid {
    /// The file that it stands for.
    pub way: Way,
    /// The same, once it is open.
    pub open: Option<File>,
    /// It stands for the (empty) list of the file's extended attributes.
    pub attributes: bool,
}

/// All of a client's.
#[derive(Debug, Default)]
pub struct Fids {
    fids: BTreeMap<u32, Fid>,
    /// Bytes of the names on their ways.
    names: usize,
}

/// The bytes of these names.
fn size(names: &[Vec<u8>]) -> usize {
    names.iter().map(|name| name.len() + NAME).sum()
}

impl Fids {
    /// The handle of this number.
    pub fn get(&self, number: u32) -> FsResult<&Fid> {
        Ok(self.fids.get(&number).ok_or(Errno::EBADF)?)
    }

    /// The same, to be changed in all but its way.
    pub fn get_mut(&mut self, number: u32) -> FsResult<&mut Fid> {
        Ok(self.fids.get_mut(&number).ok_or(Errno::EBADF)?)
    }

    /// Gives a handle a meaning, in place of the one that it may have.
    pub fn set(&mut self, number: u32, fid: Fid) -> FsResult<()> {
        // The old one goes in any case.
        let _ = self.remove(number);
        let names = self.names + size(&fid.way);
        if self.fids.len() >= MAX_FIDS || names > MAX_NAMES {
            return Err(Errno::EMFILE.into());
        }
        self.names = names;
        self.fids.insert(number, fid);
        Ok(())
    }

    /// Forgets a handle.
    pub fn remove(&mut self, number: u32) -> FsResult<Fid> {
        let fid = self.fids.remove(&number).ok_or(Errno::EBADF)?;
        self.names -= size(&fid.way);
        Ok(fid)
    }

    /// Whether there is room for the ways when a file, and all below it, gets another name.
    pub fn may_move(&self, old: &[Vec<u8>], new: &[Vec<u8>]) -> FsResult<()> {
        let more = size(new).saturating_sub(size(old));
        let count = self.fids.values().filter(|fid| fid.way.starts_with(old)).count();
        if self.names.saturating_add(count.saturating_mul(more)) > MAX_NAMES {
            Err(Errno::EMFILE.into())
        } else {
            Ok(())
        }
    }

    /// A file has got another name: handles of it and of what is below it go there, too.
    pub fn moved(&mut self, old: &[Vec<u8>], new: &[Vec<u8>]) {
        for fid in self.fids.values_mut().filter(|fid| fid.way.starts_with(old)) {
            fid.way.splice(..old.len(), new.iter().cloned());
            self.names = self.names + size(new) - size(old);
        }
    }
}
