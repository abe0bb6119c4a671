//! A 9P2000.L server for a folder of the host.
//!
//! What can be reached is the affair of [`Tree`]: here messages become calls of it. Files that a guest makes
//! belong to the caller, whatever the guest says of their owner; what belongs to the caller is shown as root's.
//! Nothing is kept of a file's content or attributes, so that both sides see what the other does.

mod device;
mod fids;
mod folders;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;

use env86_devices::fs::{Errno, FsError, FsResult, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Timestamp};
use env86_devices::virtio::p9::wire::{
    AT_REMOVEDIR, Attributes, Changes, DEFAULT_MSIZE, HEADER, IO_HEADER, Listed, MAX_WALK, MIN_MSIZE, Qid,
    READ_HEADER, Reader, Statfs, Writer, fail, finish, open, request, start,
};
use tracing::trace;

pub(super) use device::Device;
use fids::{Fid, Fids, Way};
use folders::Folders;

use crate::os::{self, Change, Found, Node, Time, Tree};

/// The largest size of messages that can be agreed on, in bytes.
const MAX_MSIZE: u32 = 1 << 20;
/// Directories that a client may read at once before the content of one is looked for anew.
const MAX_LISTS: usize = 8;
/// Types in a qid.
const QT_DIR: u8 = 0x80;
const QT_SYMLINK: u8 = 0x02;

const EPERM: Errno = Errno::EPERM;
const EROFS: Errno = Errno(30);

/// The kind of lock that says that there is none.
const UNLOCK: u8 = 2;

/// A folder, and what its client knows of it.
#[derive(Debug)]
pub(super) struct Share {
    tree: Tree,
    read_only: bool,
    /// Nothing in it waits for a network or for a program.
    local: bool,
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
            local: os::is_local(path),
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

    /// Bytes that an answer has room for, of those asked for.
    fn room(&self, count: u32) -> usize {
        (count as usize).min((self.msize as usize).saturating_sub(READ_HEADER))
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
        if msize < MIN_MSIZE {
            return Err(Errno::EMSGSIZE.into());
        }
        self.share.fids = Fids::default();
        self.share.lists.clear();
        self.share.msize = msize.min(MAX_MSIZE);
        self.reply.put_version(self.share.msize, version);
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
        let fid = self.share.fids.get(number)?;
        self.reply.put_data(self.share.room(count), |data| match fid {
            Fid { open: Some(file), .. } => errno(os::read_at(file, data, offset)),
            Fid { attributes: true, .. } => Ok(0),
            _ => Err(Errno::EBADF.into()),
        })
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
        let after = usize::try_from(offset).unwrap_or(usize::MAX);
        let entries = (1..).zip(&list).skip(after).map(|(cookie, Node { name, node, kind })| {
            let qid_kind = match kind {
                4 => QT_DIR,
                10 => QT_SYMLINK,
                _ => 0,
            };
            Listed { qid: Qid { kind: qid_kind, version: 0, path: *node }, cookie, kind: *kind, name }
        });
        self.reply.put_entries(self.share.room(count), entries);
        self.share.lists.push_back((number, list));
        if self.share.lists.len() > MAX_LISTS {
            self.share.lists.pop_front();
        }
        Ok(())
    }

    fn getattr(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let found = self.share.look(self.share.file(number)?)?;
        let attributes = Attributes {
            qid: qid(&found),
            mode: found.mode,
            uid: found.uid,
            gid: found.gid,
            links: found.links,
            // A device's number would name one of the guest's.
            device: 0,
            size: found.size,
            block: self.share.msize - IO_HEADER,
            blocks: found.blocks,
            times: [found.accessed, found.modified, found.changed].map(timestamp),
        };
        self.reply.put_attributes(&attributes);
        Ok(())
    }

    fn setattr(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        // Owners stay what they are.
        let Changes { mode, size, atime, mtime, .. } = self.fields.changes()?;
        self.writes()?;
        let time = |time: Option<Timestamp>| time.map(|t| Time { seconds: t.secs, nanoseconds: t.nanos });
        let change = Change { mode, size, accessed: atime.map(time), modified: mtime.map(time) };
        let fid = self.share.file(number)?;
        errno(self.share.tree.change(&fid.way, fid.open.as_ref(), &change))
    }

    fn statfs(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        self.share.file(number)?;
        let room = errno(self.share.tree.room())?;
        let os::Room { block, blocks, free, files, files_free } = room;
        self.reply.put_statfs(&Statfs { block: block as u32, blocks, free, files, files_free });
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
