//! A 9P2000.L server for a folder of the host.
//!
//! What can be reached is the affair of [`Tree`]: here messages become calls of it. Files that a guest makes
//! belong to the caller, whatever the guest says of their owner; what belongs to the caller is shown as root's.
//! Nothing is kept of a file's content or attributes, so that both sides see what the other does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use env86_devices::fs::{Errno, FsError, FsResult, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Timestamp};
use env86_devices::virtio::p9::wire::{
    HEADER, IO_HEADER, MAX_WALK, Qid, READ_HEADER, Reader, Writer, fail, finish, request, start,
};
use tracing::trace;

use crate::os::{self, Change, Found, Node, Time, Tree};

/// The size of messages, in bytes, until one is agreed on.
const DEFAULT_MSIZE: u32 = 8192;
/// The smallest that can be agreed on, and the largest.
const MSIZES: std::ops::RangeInclusive<u32> = 4096..=1 << 20;
const VERSION: &[u8] = b"9P2000.L";
/// Handles that a client may have.
const MAX_FIDS: usize = 1 << 16;
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

/// The names on the way to a file.
type Way = Vec<Vec<u8>>;

/// A client's handle.
#[derive(Debug, Default)]
struct Fid {
    way: Way,
    open: Option<File>,
    /// What is in the directory, as it was when its reading began.
    list: Option<Vec<Node>>,
    /// It stands for the (empty) list of a file's extended attributes.
    attributes: bool,
}

/// A folder, and what its client knows of it.
#[derive(Debug)]
pub(super) struct Share {
    tree: Tree,
    read_only: bool,
    msize: u32,
    fids: BTreeMap<u32, Fid>,
}

impl Share {
    /// The folder at this path.
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        Ok(Self { tree: Tree::open(path)?, read_only, msize: DEFAULT_MSIZE, fids: BTreeMap::new() })
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
            Ok(()) => finish(reply, kind.wrapping_add(1), tag),
            Err(FsError::Errno(errno)) => fail(reply, tag, errno),
            // Nothing here waits.
            Err(FsError::Pending) => fail(reply, tag, Errno::EIO),
        }
    }

    fn fid(&self, number: u32) -> FsResult<&Fid> {
        Ok(self.fids.get(&number).ok_or(Errno::EBADF)?)
    }

    fn set_fid(&mut self, number: u32, fid: Fid) -> FsResult<()> {
        if self.fids.len() >= MAX_FIDS && !self.fids.contains_key(&number) {
            return Err(Errno::EMFILE.into());
        }
        self.fids.insert(number, fid);
        Ok(())
    }

    /// What is known of what a handle stands for.
    fn look(&self, fid: &Fid) -> FsResult<Found> {
        match &fid.open {
            // It may have no name any more.
            Some(file) => errno(self.tree.look_at(file)),
            None => errno(self.tree.look(&fid.way)),
        }
    }

    /// Another name for a file: handles below it go there, too.
    fn moved(&mut self, old: &[Vec<u8>], new: &[Vec<u8>]) {
        for fid in self.fids.values_mut() {
            if fid.way.starts_with(old) {
                fid.way.splice(..old.len(), new.iter().cloned());
            }
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
                self.share.fids.remove(&number).map(drop).ok_or(Errno::EBADF.into())
            }
            request::LOPEN => self.lopen(),
            request::LCREATE => self.lcreate(),
            request::READ => self.read(),
            request::WRITE => self.write(),
            request::READDIR => self.readdir(),
            request::FSYNC => {
                let number = self.fields.u32()?;
                match &self.share.fid(number)?.open {
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
                let target = errno(self.share.tree.read_link(&self.share.fid(number)?.way))?;
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
                self.share.fid(number)?;
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
        self.share.fids.clear();
        self.share.msize = msize.min(*MSIZES.end());
        self.reply.put_u32(self.share.msize);
        self.reply.put_string(if version == VERSION { VERSION } else { b"unknown" });
        Ok(())
    }

    fn attach(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let found = errno(self.share.tree.look(&[]))?;
        self.share.set_fid(number, Fid::default())?;
        self.reply.put_qid(qid(&found));
        Ok(())
    }

    fn walk(&mut self) -> FsResult<()> {
        let (number, new, count) = (self.fields.u32()?, self.fields.u32()?, self.fields.u16()?);
        if count > MAX_WALK {
            return Err(Errno::EINVAL.into());
        }
        let fid = self.share.fid(number)?;
        if fid.attributes {
            return Err(Errno::EBADF.into());
        }
        let mut way = fid.way.clone();
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
            true => self.share.set_fid(new, Fid { way, ..Fid::default() }),
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
        let (file, found) = self.open(&self.share.fid(number)?.way, flags)?;
        if let Some(fid) = self.share.fids.get_mut(&number) {
            fid.open = file;
        }
        self.put_opened(&found);
        Ok(())
    }

    /// A name in the directory of a handle.
    fn named(&self, number: u32, name: &[u8]) -> FsResult<Way> {
        let mut way = self.share.fid(number)?.way.clone();
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
        self.share.set_fid(number, Fid { way, open: file, ..Fid::default() })?;
        self.put_opened(&found);
        Ok(())
    }

    fn read(&mut self) -> FsResult<()> {
        let (number, offset, count) = (self.fields.u32()?, self.fields.u64()?, self.fields.u32()?);
        let room = (self.share.msize as usize).saturating_sub(READ_HEADER);
        let data = self.reply.len() + 4;
        self.reply.resize(data + (count as usize).min(room), 0);
        let fid = self.share.fid(number)?;
        let read = match &fid.open {
            Some(file) => errno(os::read_at(file, &mut self.reply[data..], offset))?,
            None if fid.attributes => 0,
            None => return Err(Errno::EBADF.into()),
        };
        self.reply.truncate(data + read);
        self.reply[data - 4..data].copy_from_slice(&(read as u32).to_le_bytes());
        Ok(())
    }

    fn write(&mut self) -> FsResult<()> {
        let (number, offset, count) = (self.fields.u32()?, self.fields.u64()?, self.fields.u32()?);
        let data = self.fields.bytes(count as usize)?;
        self.writes()?;
        let file = self.share.fid(number)?.open.as_ref().ok_or(Errno::EBADF)?;
        errno(os::write_all_at(file, data, offset))?;
        self.reply.put_u32(count);
        Ok(())
    }

    fn readdir(&mut self) -> FsResult<()> {
        let (number, offset, count) = (self.fields.u32()?, self.fields.u64()?, self.fields.u32()?);
        let room = (count as usize).min((self.share.msize as usize).saturating_sub(READ_HEADER));
        if offset == 0 || self.share.fid(number)?.list.is_none() {
            let way = self.share.fid(number)?.way.clone();
            let own = errno(self.share.tree.look(&way))?.node;
            let dots = [&b"."[..], b".."].map(|name| Node { name: name.into(), node: own, kind: 4 });
            let list = dots.into_iter().chain(errno(self.share.tree.list(&way))?).collect();
            if let Some(fid) = self.share.fids.get_mut(&number) {
                fid.list = Some(list);
            }
        }
        let start = self.reply.len() + 4;
        self.reply.put_u32(0);
        let fid = self.share.fid(number)?;
        let list = fid.list.as_deref().unwrap_or_default();
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
        Ok(())
    }

    fn getattr(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let found = self.share.look(self.share.fid(number)?)?;
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
        let fid = self.share.fid(number)?;
        errno(self.share.tree.change(&fid.way, fid.open.as_ref(), &change))
    }

    fn statfs(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        self.share.fid(number)?;
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
        errno(self.share.tree.link(&self.share.fid(number)?.way, &way))
    }

    fn rename(&mut self) -> FsResult<()> {
        let (number, dir, name) = (self.fields.u32()?, self.fields.u32()?, self.fields.string()?);
        let (old, new) = (self.share.fid(number)?.way.clone(), self.named(dir, name)?);
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
        errno(self.share.tree.rename(old, new))?;
        self.share.moved(old, new);
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
        let fid = self.share.fids.remove(&number).ok_or(Errno::EBADF)?;
        self.writes()?;
        let found = errno(self.share.tree.look(&fid.way))?;
        errno(self.share.tree.remove(&fid.way, found.mode & S_IFMT == S_IFDIR))
    }

    fn getlock(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        self.share.fid(number)?;
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
        let way = self.share.fid(number)?.way.clone();
        if !name.is_empty() {
            return Err(Errno::ENODATA.into());
        }
        self.share.set_fid(new, Fid { way, attributes: true, ..Fid::default() })?;
        self.reply.put_u64(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    const READ: u32 = 0;
    const WRITE: u32 = 1;
    const READ_WRITE: u32 = 2;
    const CREATE: u32 = 0o100;

    /// A client of a folder `inside`, beside which there is a file `secret`.
    struct Client {
        share: Share,
        place: tempfile::TempDir,
    }

    type Fields<'a> = &'a dyn Fn(&mut Vec<u8>);

    impl Client {
        fn new(read_only: bool) -> Self {
            let place = tempfile::tempdir().unwrap();
            fs::create_dir(place.path().join("inside")).unwrap();
            fs::write(place.path().join("secret"), "secret").unwrap();
            fs::write(place.path().join("inside/file"), "content").unwrap();
            let share = Share::open(&place.path().join("inside"), read_only).unwrap();
            let mut client = Self { share, place };
            client
                .ask(request::VERSION, &|m| {
                    m.put_u32(65_536);
                    m.put_string(VERSION);
                })
                .unwrap();
            client
                .ask(request::ATTACH, &|m| {
                    m.put_u32(0);
                    m.put_u32(u32::MAX);
                    m.put_string(b"root");
                    m.put_string(b"");
                    m.put_u32(0);
                })
                .unwrap();
            client
        }

        /// The fields of the answer, or the error's number.
        fn ask(&mut self, kind: u8, fields: Fields) -> Result<Vec<u8>, u32> {
            let (mut message, mut reply) = (Vec::new(), Vec::new());
            start(&mut message);
            fields(&mut message);
            finish(&mut message, kind, 5);
            assert_eq!(self.share.length(&message), Some(message.len()));
            self.share.handle(&message, &mut reply);
            assert_eq!(reply[..4], (reply.len() as u32).to_le_bytes());
            match reply[4] == kind + 1 {
                true => Ok(reply.split_off(HEADER)),
                false => Err(u32::from_le_bytes(*reply[HEADER..].first_chunk().unwrap())),
            }
        }

        /// Walks from the folder; gives how many names there were.
        fn walk(&mut self, new: u32, names: &[&[u8]]) -> Result<u16, u32> {
            let walked = self.ask(request::WALK, &|m| {
                m.put_u32(0);
                m.put_u32(new);
                m.put_u16(names.len() as u16);
                names.iter().for_each(|name| m.put_string(name));
            })?;
            Ok(u16::from_le_bytes(*walked.first_chunk().unwrap()))
        }

        fn open(&mut self, fid: u32, flags: u32) -> Result<(), u32> {
            self.ask(request::LOPEN, &|m| {
                m.put_u32(fid);
                m.put_u32(flags);
            })
            .map(drop)
        }

        fn read(&mut self, fid: u32) -> Result<Vec<u8>, u32> {
            self.ask(request::READ, &|m| {
                m.put_u32(fid);
                m.put_u64(0);
                m.put_u32(100);
            })
            .map(|mut data| data.split_off(4))
        }

        fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<(), u32> {
            self.ask(request::WRITE, &|m| {
                m.put_u32(fid);
                m.put_u64(offset);
                m.put_u32(data.len() as u32);
                m.extend(data);
            })
            .map(drop)
        }

        /// Something with a directory, a name and a number.
        fn name(&mut self, kind: u8, fid: u32, name: &[u8], number: u32) -> Result<Vec<u8>, u32> {
            self.ask(kind, &|m| {
                m.put_u32(fid);
                m.put_string(name);
                m.put_u32(number);
                m.put_u32(0);
                m.put_u32(0);
                m.put_u32(0);
            })
        }

        fn create(&mut self, fid: u32, name: &[u8], flags: u32, mode: u32) -> Result<(), u32> {
            self.ask(request::LCREATE, &|m| {
                m.put_u32(fid);
                m.put_string(name);
                m.put_u32(flags);
                m.put_u32(mode);
                m.put_u32(0);
            })
            .map(drop)
        }

        fn set_mode(&mut self, fid: u32, mode: u32) -> Result<(), u32> {
            self.ask(request::SETATTR, &|m| {
                m.put_u32(fid);
                for value in [set::MODE, mode, 0, 0] {
                    m.put_u32(value);
                }
                for _ in 0..5 {
                    m.put_u64(0);
                }
            })
            .map(drop)
        }

        fn inside(&self, name: &str) -> std::path::PathBuf {
            self.place.path().join("inside").join(name)
        }
    }

    #[test]
    fn files_are_read_and_written_and_belong_to_the_caller() {
        let mut client = Client::new(false);
        client.walk(1, &[b"file"]).unwrap();
        client.open(1, READ).unwrap();
        assert_eq!(client.read(1).unwrap(), b"content");
        client.name(request::MKDIR, 0, b"dir", 0o755).unwrap();
        client.walk(2, &[b"dir"]).unwrap();
        client.create(2, b"new", READ_WRITE | CREATE, 0o6751).unwrap();
        client.write(2, 3, b"abc").unwrap();
        assert_eq!(client.read(2).unwrap(), b"\0\0\0abc");
        let meta = fs::metadata(client.inside("dir/new")).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o7000), (6, 0));
        client.set_mode(2, 0o4640).unwrap();
        assert_eq!(fs::metadata(client.inside("dir/new")).unwrap().mode() & 0o7777, 0o640);
        // Handles follow a directory that is renamed; an open file outlives its name.
        client.walk(3, &[b"dir", b"new"]).unwrap();
        client
            .ask(request::RENAMEAT, &|m| {
                m.put_u32(0);
                m.put_string(b"dir");
                m.put_u32(0);
                m.put_string(b"other");
            })
            .unwrap();
        client.open(3, READ).unwrap();
        client.walk(4, &[b"other"]).unwrap();
        client.name(request::UNLINKAT, 4, b"new", 0).unwrap();
        assert_eq!(client.read(3).unwrap(), b"\0\0\0abc");
        client.open(4, READ).unwrap();
        let list = client.ask(request::READDIR, &|m| {
            m.put_u32(4);
            m.put_u64(0);
            m.put_u32(1000);
        });
        // Only `.` and `..`.
        assert_eq!(list.unwrap().len(), 4 + 2 * 24 + 3);
        client.name(request::UNLINKAT, 0, b"other", AT_REMOVEDIR).unwrap();
        assert_eq!(client.walk(5, &[b"other"]), Err(Errno::ENOENT.0));
    }

    #[test]
    fn nothing_outside_is_reached() {
        let mut client = Client::new(false);
        symlink("../secret", client.inside("link")).unwrap();
        symlink("..", client.inside("up")).unwrap();
        symlink("/", client.inside("root")).unwrap();
        // Above the folder is the folder.
        assert_eq!(client.walk(1, &[b"..", b".."]), Ok(2));
        assert_eq!(client.walk(2, &[b"..", b"secret"]), Ok(1));
        // Names are names and no paths.
        for name in [&b"../secret"[..], b"/etc/passwd", b"", b"a\0b", b"file/."] {
            assert_eq!(client.walk(2, &[name]), Err(Errno::EINVAL.0), "{name:?}");
            assert_eq!(client.create(1, name, WRITE | CREATE, 0o644), Err(Errno::EINVAL.0));
            assert_eq!(client.name(request::UNLINKAT, 1, name, 0), Err(Errno::EINVAL.0));
            assert_eq!(client.name(request::MKDIR, 1, name, 0o755), Err(Errno::EINVAL.0));
        }
        for name in [&b"."[..], b".."] {
            assert_eq!(client.name(request::UNLINKAT, 1, name, AT_REMOVEDIR), Err(Errno::EINVAL.0));
            assert_eq!(client.name(request::MKDIR, 1, name, 0o755), Err(Errno::EINVAL.0));
        }
        // A link is itself, and never what it leads to.
        for name in [&b"link"[..], b"up", b"root"] {
            assert_eq!(client.walk(3, &[name]), Ok(1));
            assert!(client.open(3, READ).is_err() && client.set_mode(3, 0o777).is_err());
            assert_eq!(client.walk(4, &[name, b"secret"]), Ok(1));
            assert!(client.create(3, b"new", WRITE | CREATE, 0o644).is_err());
        }
        assert_eq!(client.walk(1, &[]), Ok(0));
        assert!(client.create(1, b"link", WRITE | CREATE, 0o644).is_err());
        // A directory that the host replaces by a link.
        fs::create_dir(client.inside("dir")).unwrap();
        client.walk(5, &[b"dir"]).unwrap();
        fs::remove_dir(client.inside("dir")).unwrap();
        symlink("..", client.inside("dir")).unwrap();
        assert!(client.create(5, b"new", WRITE | CREATE, 0o644).is_err());
        assert_eq!(client.name(request::UNLINKAT, 5, b"secret", 0), Err(Errno::ENOTDIR.0));
        assert_eq!(fs::read(client.place.path().join("secret")).unwrap(), b"secret");
        assert!(!client.place.path().join("new").exists());
    }

    #[test]
    fn devices_are_neither_made_nor_opened() {
        let mut client = Client::new(false);
        let fifo = client.inside("fifo");
        assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
        client.walk(1, &[b"fifo"]).unwrap();
        assert_eq!(client.open(1, READ), Err(13));
        for kind in [0x2000, 0x6000, 0x1000, 0xc000] {
            assert_eq!(client.name(request::MKNOD, 0, b"node", kind | 0o666), Err(EPERM.0));
        }
        client.name(request::MKNOD, 0, b"node", S_IFREG | 0o600).unwrap();
    }

    #[test]
    fn what_is_read_only_is_not_changed() {
        let mut client = Client::new(true);
        client.walk(1, &[b"file"]).unwrap();
        assert_eq!(client.open(1, WRITE), Err(EROFS.0));
        assert_eq!(client.open(1, open::TRUNCATE), Err(EROFS.0));
        client.open(1, READ).unwrap();
        assert_eq!(client.write(1, 0, b"x"), Err(EROFS.0));
        assert_eq!(client.set_mode(1, 0o777), Err(EROFS.0));
        client.walk(2, &[]).unwrap();
        assert_eq!(client.create(2, b"new", WRITE | CREATE, 0o644), Err(EROFS.0));
        for kind in [request::MKDIR, request::MKNOD, request::UNLINKAT] {
            assert_eq!(client.name(kind, 0, b"file", 0), Err(EROFS.0), "{kind}");
        }
        for kind in [request::SYMLINK, request::RENAMEAT, request::LINK, request::RENAME] {
            let refused = client.ask(kind, &|m| match kind {
                request::SYMLINK | request::RENAMEAT => {
                    m.put_u32(0);
                    m.put_string(b"file");
                    if kind == request::RENAMEAT {
                        m.put_u32(0);
                    }
                    m.put_string(b"other");
                    m.put_u32(0);
                }
                _ => {
                    let (first, second) = if kind == request::LINK { (0, 1) } else { (1, 0) };
                    m.put_u32(first);
                    m.put_u32(second);
                    m.put_string(b"other");
                }
            });
            assert_eq!(refused, Err(EROFS.0), "{kind}");
        }
        assert_eq!(client.ask(request::REMOVE, &|m| m.put_u32(1)), Err(EROFS.0));
        assert_eq!(fs::read(client.inside("file")).unwrap(), b"content");
        assert_eq!(fs::read_dir(client.place.path().join("inside")).unwrap().count(), 1);
    }

    #[test]
    fn noise_is_answered_with_errors() {
        let mut client = Client::new(false);
        let mut seed = 1u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        for _ in 0..20_000 {
            let mut message = Vec::new();
            start(&mut message);
            let len = next() % 60;
            message.extend((0..len).map(|_| if next() < 128 { 0 } else { next() }));
            let kind = next() / 2;
            finish(&mut message, kind, 1);
            let mut reply = Vec::new();
            client.share.handle(&message, &mut reply);
            assert!(reply.len() >= HEADER && reply.len() <= *MSIZES.end() as usize);
        }
        assert_eq!(fs::read(client.place.path().join("secret")).unwrap(), b"secret");
    }
}
