//! A 9P2000.L server for a folder of the host.
//!
//! What can be reached is the affair of [`Tree`]: here messages become calls of it. Files that a guest makes
//! belong to the caller, whatever the guest says of their owner; what belongs to the caller is shown as root's.
//! Nothing is kept of a file's content or attributes, so that both sides see what the other does.

mod fids;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;

use env86_devices::fs::{Errno, FsError, FsResult, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Timestamp};
use env86_devices::virtio::p9::wire::{
    HEADER, IO_HEADER, MAX_WALK, Qid, READ_HEADER, Reader, Writer, fail, finish, request, start,
};
use tracing::trace;

use fids::{Fid, Fids, Way};

use crate::os::{self, Change, Found, Node, Time, Tree};

/// The size of messages, in bytes, until one is agreed on.
const DEFAULT_MSIZE: u32 = 8192;
/// The smallest that can be agreed on, and the largest.
const MSIZES: std::ops::RangeInclusive<u32> = 4096..=1 << 20;
const VERSION: &[u8] = b"9P2000.L";
/// Directories that a client may read at once before the content of one is looked for anew.
const MAX_LISTS: usize = 8;
/// Longest name, in bytes.
const NAME_MAX: u32 = 255;
/// Of all bits of a getattr's mask, those that are answered (P9_STATS_BASIC).
const GETATTR_BASIC: u64 = 0x7ff;
/// f_type of the file system (V9FS_MAGIC).
const STATFS_TYPE: u32 = 0x0102_1997;

/// Types in a qid.
const QT_DIR: u8 = 0x80;
const QT_SYMLINK: u8 = 0x02;

/// Flags of lopen and lcreate, as Linux numbers them on the i386.
mod open {
    pub const ACCESS: u32 = 3;
    pub const WRITE_ONLY: u32 = 1;
    pub const EXCLUSIVE: u32 = 0o200;
    pub const TRUNCATE: u32 = 0o1000;
    pub const DIRECTORY: u32 = 0o200_000;
}

/// Flag of unlinkat.
const AT_REMOVEDIR: u32 = 0x200;

/// Bits of setattr's mask.
mod set {
    pub const MODE: u32 = 1 << 0;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_SET: u32 = 1 << 7;
    pub const MTIME_SET: u32 = 1 << 8;
}

const EPERM: Errno = Errno::EPERM;
const EROFS: Errno = Errno(30);

/// The kind of lock that says that there is none.
const UNLOCK: u8 = 2;

/// A folder, and what its client knows of it.
#[derive(Debug)]
pub(super) struct Share {
    tree: Tree,
    read_only: bool,
    msize: u32,
    fids: Fids,
    /// What is in the directories that are being read, as it was when their reading began, by their handles; the
    /// one that was begun last is the last one.
    lists: VecDeque<(u32, Vec<Node>)>,
}

impl Share {
    /// The folder at this path.
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        Ok(Self {
            tree: Tree::open(path)?,
            read_only,
            msize: DEFAULT_MSIZE,
            fids: Fids::default(),
            lists: VecDeque::new(),
        })
    }

    /// How long the message is that these bytes begin with; `None` if that cannot be said yet.
    pub fn length(&self, bytes: &[u8]) -> Option<usize> {
        bytes
            .first_chunk()
            .map(|size| (u32::from_le_bytes(*size) as usize).clamp(HEADER, self.msize as usize))
    }

    /// Handles a message.
    pub fn handle(&mut self, message: &[u8], reply: &mut Vec<u8>) {
        let mut reader = Reader::new(message);
        let (Ok(size), Ok(kind), Ok(tag)) = (reader.u32(), reader.u8(), reader.u16()) else {
            return reply.clear();
        };
        start(reply);
        let result = match size as usize == message.len() {
            true => Request { share: self, fields: reader, reply }.run(kind),
            false => Err(Errno::EPROTO.into()),
        };
        trace!(target: "share", kind, tag, ?result);
        match result {
            // A name is longer than the client takes.
            Ok(()) if reply.len() > self.msize as usize => fail(reply, tag, Errno::EMSGSIZE),
            Ok(()) => finish(reply, kind.wrapping_add(1), tag),
            Err(FsError::Errno(errno)) => fail(reply, tag, errno),
            // Nothing here waits.
            Err(FsError::Pending) => fail(reply, tag, Errno::EIO),
        }
    }

    /// A handle that stands for a file.
    fn file(&self, number: u32) -> FsResult<&Fid> {
        match self.fids.get(number)? {
            Fid { attributes: true, .. } => Err(Errno::EBADF.into()),
            fid => Ok(fid),
        }
    }

    /// Gives a handle a meaning. An old one is forgotten: a client that was interrupted may not know that it has
    /// one.
    fn set(&mut self, number: u32, fid: Fid) -> FsResult<()> {
        self.lists.retain(|(reader, _)| *reader != number);
        self.fids.set(number, fid)
    }

    fn clunk(&mut self, number: u32) -> FsResult<Fid> {
        self.lists.retain(|(reader, _)| *reader != number);
        self.fids.remove(number)
    }

    /// What is known of what a handle stands for.
    fn look(&self, fid: &Fid) -> FsResult<Found> {
        match &fid.open {
            // It may have no name any more.
            Some(file) => errno(self.tree.look_at(file)),
            None => errno(self.tree.look(&fid.way)),
        }
    }
}

/// The guest's number of an error. Hosts other than Linux have other numbers for a few.
fn errno<T>(result: io::Result<T>) -> FsResult<T> {
    result.map_err(|error| FsError::Errno(Errno(error.raw_os_error().map_or(Errno::EIO.0, |raw| raw as u32))))
}

fn qid(found: &Found) -> Qid {
    let kind = match found.mode & S_IFMT {
        S_IFDIR => QT_DIR,
        S_IFLNK => QT_SYMLINK,
        _ => 0,
    };
    let version = found.modified.nanoseconds ^ (found.modified.seconds as u32).rotate_left(16);
    Qid { kind, version, path: found.node }
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp { secs: time.seconds, nanos: time.nanoseconds }
}

/// One request on its way through the server.
struct Request<'a> {
    share: &'a mut Share,
    fields: Reader<'a>,
    reply: &'a mut Vec<u8>,
}

impl Request<'_> {
    fn run(&mut self, kind: u8) -> FsResult<()> {
        match kind {
            request::VERSION => self.version(),
            request::ATTACH => self.attach(),
            request::FLUSH => self.fields.u16().map(drop),
            request::WALK => self.walk(),
            request::CLUNK => {
                let number = self.fields.u32()?;
                self.share.clunk(number).map(drop)
            }
            request::LOPEN => self.lopen(),
            request::LCREATE => self.lcreate(),
            request::READ => self.read(),
            request::WRITE => self.write(),
            request::READDIR => self.readdir(),
            request::FSYNC => {
                let number = self.fields.u32()?;
                match &self.share.file(number)?.open {
                    Some(file) => errno(file.sync_all()),
                    None => Ok(()),
                }
            }
            request::GETATTR => self.getattr(),
            request::SETATTR => self.setattr(),
            request::STATFS => self.statfs(),
            request::MKDIR => self.mkdir(),
            request::MKNOD => self.mknod(),
            request::SYMLINK => self.symlink(),
            request::READLINK => {
                let number = self.fields.u32()?;
                let target = errno(self.share.tree.read_link(&self.share.file(number)?.way))?;
                self.reply.put_string(&target);
                Ok(())
            }
            request::LINK => self.link(),
            request::RENAME => self.rename(),
            request::RENAMEAT => self.renameat(),
            request::UNLINKAT => self.unlinkat(),
            request::REMOVE => self.remove(),
            request::LOCK => {
                // The guest's kernel has locked it among the guest's programs already.
                let number = self.fields.u32()?;
                self.share.file(number)?;
                self.reply.put_u8(0);
                Ok(())
            }
            request::GETLOCK => self.getlock(),
            request::XATTRWALK => self.xattrwalk(),
            _ => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    /// What changes something is refused where nothing may be changed.
    fn writes(&self) -> FsResult<()> {
        if self.share.read_only { Err(EROFS.into()) } else { Ok(()) }
    }

    fn version(&mut self) -> FsResult<()> {
        let (msize, version) = (self.fields.u32()?, self.fields.string()?);
        if msize < *MSIZES.start() {
            return Err(Errno::EMSGSIZE.into());
        }
        self.share.fids = Fids::default();
        self.share.lists.clear();
        self.share.msize = msize.min(*MSIZES.end());
        self.reply.put_u32(self.share.msize);
        self.reply.put_string(if version == VERSION { VERSION } else { b"unknown" });
        Ok(())
    }

    fn attach(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let found = errno(self.share.tree.look(&[]))?;
        self.share.set(number, Fid::default())?;
        self.reply.put_qid(qid(&found));
        Ok(())
    }

    fn walk(&mut self) -> FsResult<()> {
        let (number, new, count) = (self.fields.u32()?, self.fields.u32()?, self.fields.u16()?);
        if count > MAX_WALK {
            return Err(Errno::EINVAL.into());
        }
        let mut way = self.share.file(number)?.way.clone();
        let count_at = self.reply.len();
        self.reply.put_u16(0);
        let mut walked = 0;
        while walked < count {
            match self.fields.string()? {
                b"." => {}
                // Above the folder there is nothing.
                b".." => _ = way.pop(),
                name => way.push(name.to_vec()),
            }
            match errno(self.share.tree.look(&way)) {
                Ok(found) => self.reply.put_qid(qid(&found)),
                // What was walked so far is told, and the new handle stays as it was.
                Err(_) if walked > 0 => break,
                Err(error) => return Err(error),
            }
            walked += 1;
        }
        self.reply[count_at..count_at + 2].copy_from_slice(&walked.to_le_bytes());
        match walked == count {
            true => self.share.set(new, Fid { way, ..Fid::default() }),
            false => Ok(()),
        }
    }

    fn put_opened(&mut self, found: &Found) {
        self.reply.put_qid(qid(found));
        self.reply.put_u32(self.share.msize - IO_HEADER);
    }

    /// Opens what is there.
    fn open(&self, way: &Way, flags: u32) -> FsResult<(Option<File>, Found)> {
        let found = errno(self.share.tree.look(way))?;
        let writes = flags & open::ACCESS != 0;
        if writes || flags & open::TRUNCATE != 0 {
            self.writes()?;
        }
        if found.mode & S_IFMT == S_IFDIR {
            return if writes { Err(Errno::EISDIR.into()) } else { Ok((None, found)) };
        }
        if flags & open::DIRECTORY != 0 {
            return Err(Errno::ENOTDIR.into());
        }
        let reads = flags & open::ACCESS != open::WRITE_ONLY;
        let truncates = flags & open::TRUNCATE != 0;
        let file = errno(self.share.tree.open_file(way, writes, reads, truncates))?;
        let found = errno(self.share.tree.look_at(&file))?;
        Ok((Some(file), found))
    }

    fn lopen(&mut self) -> FsResult<()> {
        let (number, flags) = (self.fields.u32()?, self.fields.u32()?);
        let (file, found) = self.open(&self.share.file(number)?.way, flags)?;
        self.share.fids.get_mut(number)?.open = file;
        self.put_opened(&found);
        Ok(())
    }

    /// A name in the directory of a handle.
    fn named(&self, number: u32, name: &[u8]) -> FsResult<Way> {
        let mut way = self.share.file(number)?.way.clone();
        way.push(name.to_vec());
        Ok(way)
    }

    fn lcreate(&mut self) -> FsResult<()> {
        let (number, name) = (self.fields.u32()?, self.fields.string()?);
        let (flags, mode) = (self.fields.u32()?, self.fields.u32()?);
        self.writes()?;
        let way = self.named(number, name)?;
        let (writes, reads) = (flags & open::ACCESS != 0, flags & open::ACCESS != open::WRITE_ONLY);
        let (file, found) = match errno(self.share.tree.create(&way, writes, reads, mode)) {
            Ok(file) => {
                let found = errno(self.share.tree.look_at(&file))?;
                (Some(file), found)
            }
            // The host may have made one meanwhile.
            Err(FsError::Errno(Errno::EEXIST)) if flags & open::EXCLUSIVE == 0 => self.open(&way, flags)?,
            Err(error) => return Err(error),
        };
        self.share.set(number, Fid { way, open: file, ..Fid::default() })?;
        self.put_opened(&found);
        Ok(())
    }

    fn read(&mut self) -> FsResult<()> {
        let (number, offset, count) = (self.fields.u32()?, self.fields.u64()?, self.fields.u32()?);
        let room = (self.share.msize as usize).saturating_sub(READ_HEADER);
        let data = self.reply.len() + 4;
        self.reply.resize(data + (count as usize).min(room), 0);
        let read = match self.share.fids.get(number)? {
            Fid { open: Some(file), .. } => errno(os::read_at(file, &mut self.reply[data..], offset))?,
            Fid { attributes: true, .. } => 0,
            _ => return Err(Errno::EBADF.into()),
        };
        self.reply.truncate(data + read);
        self.reply[data - 4..data].copy_from_slice(&(read as u32).to_le_bytes());
        Ok(())
    }

    fn write(&mut self) -> FsResult<()> {
        let (number, offset, count) = (self.fields.u32()?, self.fields.u64()?, self.fields.u32()?);
        let data = self.fields.bytes(count as usize)?;
        self.writes()?;
        let file = self.share.file(number)?.open.as_ref().ok_or(Errno::EBADF)?;
        errno(self.share.tree.write_at(file, data, offset))?;
        self.reply.put_u32(count);
        Ok(())
    }

    fn readdir(&mut self) -> FsResult<()> {
        let (number, offset, count) = (self.fields.u32()?, self.fields.u64()?, self.fields.u32()?);
        let room = (count as usize).min((self.share.msize as usize).saturating_sub(READ_HEADER));
        let way = self.share.file(number)?.way.clone();
        let known = self.share.lists.iter().position(|(reader, _)| *reader == number);
        let list = match known.and_then(|at| self.share.lists.remove(at)) {
            Some((_, list)) if offset != 0 => list,
            _ => {
                let own = errno(self.share.tree.look(&way))?.node;
                let dots = [&b"."[..], b".."].map(|name| Node { name: name.into(), node: own, kind: 4 });
                dots.into_iter().chain(errno(self.share.tree.list(&way))?).collect()
            }
        };
        let start = self.reply.len() + 4;
        self.reply.put_u32(0);
        for (at, entry) in list.iter().enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if self.reply.len() - start + 24 + entry.name.len() > room {
                break;
            }
            let kind = match entry.kind {
                4 => QT_DIR,
                10 => QT_SYMLINK,
                _ => 0,
            };
            self.reply.put_qid(Qid { kind, version: 0, path: entry.node });
            self.reply.put_u64(at as u64 + 1);
            self.reply.put_u8(entry.kind);
            self.reply.put_string(&entry.name);
        }
        let len = (self.reply.len() - start) as u32;
        self.reply[start - 4..start].copy_from_slice(&len.to_le_bytes());
        self.share.lists.push_back((number, list));
        if self.share.lists.len() > MAX_LISTS {
            self.share.lists.pop_front();
        }
        Ok(())
    }

    fn getattr(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let found = self.share.look(self.share.file(number)?)?;
        let reply = &mut *self.reply;
        reply.put_u64(GETATTR_BASIC);
        reply.put_qid(qid(&found));
        reply.put_u32(found.mode);
        reply.put_u32(found.uid);
        reply.put_u32(found.gid);
        // A device's number would name one of the guest's.
        let device = 0;
        for value in [found.links, device, found.size, (self.share.msize - IO_HEADER).into(), found.blocks] {
            reply.put_u64(value);
        }
        for time in [found.accessed, found.modified, found.changed] {
            reply.put_time(timestamp(time));
        }
        reply.put_time(Timestamp::default());
        // Generation and data version.
        reply.put_u64(0);
        reply.put_u64(0);
        Ok(())
    }

    fn setattr(&mut self) -> FsResult<()> {
        let (number, valid) = (self.fields.u32()?, self.fields.u32()?);
        let (mode, _uid, _gid) = (self.fields.u32()?, self.fields.u32()?, self.fields.u32()?);
        let (size, atime, mtime) = (self.fields.u64()?, self.fields.time()?, self.fields.time()?);
        self.writes()?;
        let has = |bit| valid & bit != 0;
        let time = |bit, exact, time: Timestamp| {
            let exactly = Time { seconds: time.secs, nanoseconds: time.nanos };
            has(bit).then_some(has(exact).then_some(exactly))
        };
        let change = Change {
            mode: has(set::MODE).then_some(mode),
            size: has(set::SIZE).then_some(size),
            accessed: time(set::ATIME, set::ATIME_SET, atime),
            modified: time(set::MTIME, set::MTIME_SET, mtime),
        };
        let fid = self.share.file(number)?;
        errno(self.share.tree.change(&fid.way, fid.open.as_ref(), &change))
    }

    fn statfs(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        self.share.file(number)?;
        let room = errno(self.share.tree.room())?;
        self.reply.put_u32(STATFS_TYPE);
        self.reply.put_u32(room.block as u32);
        for value in [room.blocks, room.free, room.free, room.files, room.files_free, 0] {
            self.reply.put_u64(value);
        }
        self.reply.put_u32(NAME_MAX);
        Ok(())
    }

    /// Tells what has been made.
    fn put_made(&mut self, way: &Way) -> FsResult<()> {
        let found = errno(self.share.tree.look(way))?;
        self.reply.put_qid(qid(&found));
        Ok(())
    }

    fn mkdir(&mut self) -> FsResult<()> {
        let (number, name, mode) = (self.fields.u32()?, self.fields.string()?, self.fields.u32()?);
        self.writes()?;
        let way = self.named(number, name)?;
        errno(self.share.tree.make_dir(&way, mode))?;
        self.put_made(&way)
    }

    /// Only what a file is: devices, FIFOs and sockets are the guest's, and not for the host.
    fn mknod(&mut self) -> FsResult<()> {
        let (number, name, mode) = (self.fields.u32()?, self.fields.string()?, self.fields.u32()?);
        self.writes()?;
        if !matches!(mode & S_IFMT, 0 | S_IFREG) {
            return Err(EPERM.into());
        }
        let way = self.named(number, name)?;
        errno(self.share.tree.create(&way, true, false, mode))?;
        self.put_made(&way)
    }

    fn symlink(&mut self) -> FsResult<()> {
        let (number, name, target) = (self.fields.u32()?, self.fields.string()?, self.fields.string()?);
        self.writes()?;
        let way = self.named(number, name)?;
        errno(self.share.tree.symlink(&way, target))?;
        self.put_made(&way)
    }

    fn link(&mut self) -> FsResult<()> {
        let (dir, number, name) = (self.fields.u32()?, self.fields.u32()?, self.fields.string()?);
        self.writes()?;
        let way = self.named(dir, name)?;
        errno(self.share.tree.link(&self.share.file(number)?.way, &way))
    }

    fn rename(&mut self) -> FsResult<()> {
        let (number, dir, name) = (self.fields.u32()?, self.fields.u32()?, self.fields.string()?);
        let (old, new) = (self.share.file(number)?.way.clone(), self.named(dir, name)?);
        self.move_to(&old, &new)
    }

    fn renameat(&mut self) -> FsResult<()> {
        let (old_dir, old_name) = (self.fields.u32()?, self.fields.string()?);
        let (new_dir, new_name) = (self.fields.u32()?, self.fields.string()?);
        let (old, new) = (self.named(old_dir, old_name)?, self.named(new_dir, new_name)?);
        self.move_to(&old, &new)
    }

    fn move_to(&mut self, old: &Way, new: &Way) -> FsResult<()> {
        self.writes()?;
        self.share.fids.may_move(old, new)?;
        errno(self.share.tree.rename(old, new))?;
        self.share.fids.moved(old, new);
        Ok(())
    }

    fn unlinkat(&mut self) -> FsResult<()> {
        let (number, name, flags) = (self.fields.u32()?, self.fields.string()?, self.fields.u32()?);
        self.writes()?;
        errno(self.share.tree.remove(&self.named(number, name)?, flags & AT_REMOVEDIR != 0))
    }

    /// Removes what the handle stands for, and the handle in any case.
    fn remove(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let fid = self.share.clunk(number)?;
        self.writes()?;
        let found = errno(self.share.tree.look(&fid.way))?;
        errno(self.share.tree.remove(&fid.way, found.mode & S_IFMT == S_IFDIR))
    }

    fn getlock(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        self.share.file(number)?;
        let _kind = self.fields.u8()?;
        let (from, length, process) = (self.fields.u64()?, self.fields.u64()?, self.fields.u32()?);
        let client = self.fields.string()?;
        self.reply.put_u8(UNLOCK);
        self.reply.put_u64(from);
        self.reply.put_u64(length);
        self.reply.put_u32(process);
        self.reply.put_string(client);
        Ok(())
    }

    /// There are no extended attributes: their list is empty, and none has a value.
    fn xattrwalk(&mut self) -> FsResult<()> {
        let (number, new, name) = (self.fields.u32()?, self.fields.u32()?, self.fields.string()?);
        let way = self.share.file(number)?.way.clone();
        if !name.is_empty() {
            return Err(Errno::ENODATA.into());
        }
        self.share.set(new, Fid { way, attributes: true, ..Fid::default() })?;
        self.reply.put_u64(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
