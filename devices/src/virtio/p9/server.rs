//! A 9P2000.L server on a [`Filesystem`], one client's session.
//!
//! The client is the guest's kernel: it checks permissions, places appending writes, and turns
//! set-group-ID directories into groups of new files, so that the server does not.

use super::wire::{
    AT_REMOVEDIR, Attributes, Changes, DEFAULT_MSIZE, HEADER, IO_HEADER, Listed, MAX_WALK, MIN_MSIZE, Qid,
    READ_HEADER, RLERROR_SIZE, Reader, Statfs, Writer, fail, finish, open, request, start,
};
use crate::fs::{
    BlobStore, COOKIE_DOT, COOKIE_DOT_DOT, Content, Entry, Errno, Filesystem, FsError, FsResult, Ino, Inode,
    Lock, LockKind, Maker, ROOT, S_IFDIR, S_IFMT, S_IFREG, S_IPERM, SetAttr, Timestamp, Unlink, lock,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::trace;

/// The largest size of messages that can be negotiated, in bytes.
pub const MAX_MSIZE: u32 = 512 << 10;
/// The block size that is reported, in bytes.
pub const BLOCK_SIZE: u32 = 8192;
/// The most fids. Linux holds one for every name that it caches.
const MAX_FIDS: usize = 1 << 20;
/// The owner in an attach that names none.
const NO_UID: u32 = u32::MAX;

/// Answers to a lock.
const LOCK_SUCCESS: u8 = 0;
const LOCK_BLOCKED: u8 = 1;

/// What a fid stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FidKind {
    /// An inode.
    Inode,
    /// The (empty) list of an inode's extended attributes.
    Xattr,
}

/// A client's handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fid {
    /// The inode.
    pub ino: Ino,
    /// What of the inode.
    pub kind: FidKind,
    /// The user who attached: the owner of what is made through it.
    pub uid: u32,
    /// The directory and the name through which it was walked to, if they are known.
    pub name: Option<(Ino, Arc<[u8]>)>,
}

/// How far a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply is there.
    Done,
    /// The image's bytes are on their way; the same request has to be handled again later.
    Pending,
}

/// The session and the filesystem behind it.
pub struct Server {
    /// The files.
    pub fs: Filesystem,
    /// The image's contents.
    pub store: Box<dyn BlobStore>,
    msize: u32,
    fids: BTreeMap<u32, Fid>,
}

impl Server {
    /// A server without a session.
    pub fn new(fs: Filesystem, store: Box<dyn BlobStore>) -> Self {
        Self { msize: DEFAULT_MSIZE, fs, store, fids: BTreeMap::new() }
    }

    /// The size of messages agreed on, in bytes.
    pub fn msize(&self) -> u32 {
        self.msize
    }

    /// The fids of the session.
    pub fn fids(&self) -> &BTreeMap<u32, Fid> {
        &self.fids
    }

    /// Replaces the files and the session by saved ones. Fids of inodes that do not exist are left out.
    pub fn restore(&mut self, fs: Filesystem, msize: u32, fids: BTreeMap<u32, Fid>) {
        self.fs = fs;
        self.msize = msize.clamp(MIN_MSIZE, MAX_MSIZE);
        self.fids = BTreeMap::new();
        for (number, fid) in fids {
            if self.fs.acquire(fid.ino).is_ok() {
                self.fids.insert(number, fid);
            }
        }
        self.fs.free_unused();
    }

    /// Ends the session: no fid and no lock is left.
    pub fn reset(&mut self) {
        for fid in std::mem::take(&mut self.fids).into_values() {
            self.fs.release(fid.ino);
        }
        self.fs.clear_locks();
        self.msize = DEFAULT_MSIZE;
    }

    /// Handles a request. The reply will be at most `capacity` bytes; if not even an error fits,
    /// it is empty.
    pub fn handle(
        &mut self,
        message: &[u8],
        capacity: usize,
        now: Timestamp,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        reply.clear();
        let mut reader = Reader::new(message);
        let (Ok(size), Ok(kind), Ok(tag)) = (reader.u32(), reader.u8(), reader.u16()) else {
            return Outcome::Done;
        };
        let limit = capacity.min(self.msize as usize);
        if limit < RLERROR_SIZE {
            return Outcome::Done;
        }
        start(reply);
        let result = match (size as usize).checked_sub(HEADER).map(|fields| reader.bytes(fields)) {
            Some(Ok(_)) if size > self.msize => Err(Errno::EMSGSIZE.into()),
            Some(Ok(fields)) => {
                let mut request = Request { server: self, fields: Reader::new(fields), now, limit, reply };
                request.run(kind)
            }
            _ => Err(Errno::EPROTO.into()),
        };
        trace!(target: "9p", kind, tag, ?result, "request");
        match result {
            Ok(()) if reply.len() <= limit => finish(reply, kind.wrapping_add(1), tag),
            Ok(()) => fail(reply, tag, Errno::EMSGSIZE),
            Err(FsError::Errno(errno)) => fail(reply, tag, errno),
            Err(FsError::Pending) => return Outcome::Pending,
        }
        Outcome::Done
    }

    fn fid(&self, number: u32) -> FsResult<&Fid> {
        Ok(self.fids.get(&number).ok_or(Errno::EBADF)?)
    }

    /// The inode that a fid stands for.
    fn ino(&self, number: u32) -> FsResult<Ino> {
        match self.fid(number)? {
            Fid { kind: FidKind::Inode, ino, .. } => Ok(*ino),
            _ => Err(Errno::EBADF.into()),
        }
    }

    /// Lets a fid stand for something. An old meaning is forgotten: a client that was interrupted
    /// may not know that it has one.
    fn set_fid(&mut self, number: u32, fid: Fid) -> FsResult<()> {
        if self.fids.len() >= MAX_FIDS && !self.fids.contains_key(&number) {
            return Err(Errno::EMFILE.into());
        }
        self.fs.acquire(fid.ino)?;
        if let Some(old) = self.fids.insert(number, fid) {
            self.fs.release(old.ino);
        }
        Ok(())
    }

    fn clunk(&mut self, number: u32) -> FsResult<()> {
        let fid = self.fids.remove(&number).ok_or(Errno::EBADF)?;
        self.fs.release(fid.ino);
        Ok(())
    }

    /// The directory and the name of what a fid stands for: the one it was walked to by, or any
    /// other if that is gone.
    fn place(&self, number: u32) -> FsResult<(Ino, Arc<[u8]>)> {
        let Fid { ino, name, .. } = self.fid(number)?;
        if let Some((dir, name)) = name
            && self.fs.lookup(*dir, name) == Ok(*ino)
        {
            return Ok((*dir, name.clone()));
        }
        let directories = (0..).zip(self.fs.inodes()).filter_map(|(dir, inode)| match inode {
            Some(Inode { content: Content::Directory(directory), .. }) => Some((dir, directory)),
            _ => None,
        });
        let mut places = directories.flat_map(|(dir, d)| d.entries().map(move |entry| (dir, entry)));
        let (dir, Entry { name, .. }) = places.find(|(_, e)| e.ino == *ino).ok_or(Errno::ENOENT)?;
        Ok((dir, name.clone()))
    }

    fn qid(&self, ino: Ino) -> FsResult<Qid> {
        let inode = self.fs.inode(ino)?;
        Ok(Qid { kind: qid_type(inode.mode), version: inode.qid_version, path: inode.qid_path })
    }
}

/// The type in a qid. It is v86's, the high bits of the mode, and not 9P's: Linux looks only
/// whether it stays the same, and a machine may come from v86 or go there.
pub fn qid_type(mode: u32) -> u8 {
    ((mode & S_IFMT) >> 8) as u8
}

/// One request on its way through the server.
struct Request<'a> {
    server: &'a mut Server,
    fields: Reader<'a>,
    now: Timestamp,
    /// The most bytes of the reply.
    limit: usize,
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
                let fid = self.fields.u32()?;
                self.server.clunk(fid)
            }
            request::LOPEN => self.lopen(),
            request::LCREATE => self.lcreate(),
            request::READ => self.read(),
            request::WRITE => self.write(),
            request::READDIR => self.readdir(),
            request::FSYNC => self.ino().map(drop),
            request::GETATTR => self.getattr(),
            request::SETATTR => self.setattr(),
            request::STATFS => self.statfs(),
            request::MKDIR => self.mkdir(),
            request::MKNOD => self.mknod(),
            request::SYMLINK => self.symlink(),
            request::READLINK => self.readlink(),
            request::LINK => self.link(),
            request::RENAME => self.rename(),
            request::RENAMEAT => self.renameat(),
            request::UNLINKAT => self.unlinkat(),
            request::REMOVE => self.remove(),
            request::LOCK => self.lock(),
            request::GETLOCK => self.getlock(),
            request::XATTRWALK => self.xattrwalk(),
            // Attributes cannot be stored; programs that would like to set some live with that.
            _ => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    /// The inode of the fid that comes next.
    fn ino(&mut self) -> FsResult<Ino> {
        let fid = self.fields.u32()?;
        self.server.ino(fid)
    }

    fn put_qid(&mut self, ino: Ino) -> FsResult<()> {
        let qid = self.server.qid(ino)?;
        self.reply.put_qid(qid);
        Ok(())
    }

    fn version(&mut self) -> FsResult<()> {
        let (msize, version) = (self.fields.u32()?, self.fields.string()?);
        if msize < MIN_MSIZE {
            return Err(Errno::EMSGSIZE.into());
        }
        self.server.reset();
        self.server.msize = msize.min(MAX_MSIZE);
        self.reply.put_version(self.server.msize, version);
        Ok(())
    }

    fn attach(&mut self) -> FsResult<()> {
        let (fid, _afid) = (self.fields.u32()?, self.fields.u32()?);
        let (_uname, aname, uid) = (self.fields.string()?, self.fields.string()?, self.fields.u32()?);
        let ino = self.server.fs.resolve(aname)?;
        let uid = if uid == NO_UID { 0 } else { uid };
        self.server.set_fid(fid, Fid { ino, kind: FidKind::Inode, uid, name: None })?;
        self.put_qid(ino)
    }

    fn walk(&mut self) -> FsResult<()> {
        let (number, new) = (self.fields.u32()?, self.fields.u32()?);
        let count = self.fields.u16()?;
        if count > MAX_WALK {
            return Err(Errno::EINVAL.into());
        }
        let mut fid = self.server.fid(number)?.clone();
        if fid.kind != FidKind::Inode {
            return Err(Errno::EBADF.into());
        }
        let count_at = self.reply.len();
        self.reply.put_u16(0);
        for walked in 0..count {
            let name = self.fields.string()?;
            trace!(target: "9p", name = %String::from_utf8_lossy(name), "walk");
            match self.server.fs.lookup(fid.ino, name) {
                Ok(ino) => {
                    let named = !matches!(name, b"." | b"..");
                    fid.name = named.then(|| (fid.ino, name.into()));
                    fid.ino = ino;
                }
                // What was walked so far is told, and the new fid stays as it was.
                Err(_) if walked > 0 => {
                    self.reply[count_at..count_at + 2].copy_from_slice(&walked.to_le_bytes());
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            self.put_qid(fid.ino)?;
        }
        self.reply[count_at..count_at + 2].copy_from_slice(&count.to_le_bytes());
        self.server.set_fid(new, fid)
    }

    fn put_opened(&mut self, ino: Ino) -> FsResult<()> {
        self.put_qid(ino)?;
        self.reply.put_u32(self.server.msize - IO_HEADER);
        Ok(())
    }

    /// What all ways to open have in common.
    fn open(&mut self, ino: Ino, flags: u32) -> FsResult<()> {
        let inode = self.server.fs.inode(ino)?;
        if inode.is_dir() && flags & (open::ACCESS | open::TRUNCATE) != 0 {
            return Err(Errno::EISDIR.into());
        }
        if !inode.is_dir() && flags & open::DIRECTORY != 0 {
            return Err(Errno::ENOTDIR.into());
        }
        if flags & open::TRUNCATE != 0 && inode.mode & S_IFMT == S_IFREG {
            self.server.fs.resize(ino, 0, self.now)?;
        }
        Ok(())
    }

    fn lopen(&mut self) -> FsResult<()> {
        let ino = self.ino()?;
        trace!(target: "9p", ?ino, "open");
        let flags = self.fields.u32()?;
        self.open(ino, flags)?;
        self.put_opened(ino)
    }

    fn lcreate(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let (name, flags, mode, gid) =
            (self.fields.string()?, self.fields.u32()?, self.fields.u32()?, self.fields.u32()?);
        let dir = self.server.ino(number)?;
        let uid = self.server.fid(number)?.uid;
        let ino = match self.server.fs.lookup(dir, name) {
            Ok(_) if flags & open::EXCLUSIVE != 0 => return Err(Errno::EEXIST.into()),
            Ok(ino) if self.server.fs.inode(ino)?.is_dir() => return Err(Errno::EISDIR.into()),
            Ok(ino) => {
                self.open(ino, flags)?;
                ino
            }
            Err(FsError::Errno(Errno::ENOENT)) => {
                let maker = Maker { mode: S_IFREG | mode & S_IPERM, uid, gid, now: self.now };
                self.server.fs.create(dir, name, maker)?
            }
            Err(error) => return Err(error),
        };
        let name = Some((dir, name.into()));
        self.server.set_fid(number, Fid { ino, kind: FidKind::Inode, uid, name })?;
        self.put_opened(ino)
    }

    /// Bytes that a reply to a read has room for, of those asked for.
    fn room(&self, count: u32) -> usize {
        (count as usize).min(self.limit.saturating_sub(READ_HEADER))
    }

    fn read(&mut self) -> FsResult<()> {
        let (number, offset, count) = (self.fields.u32()?, self.fields.u64()?, self.fields.u32()?);
        let fid = self.server.fid(number)?.clone();
        let room = self.room(count);
        let Server { fs, store, .. } = &mut *self.server;
        self.reply.put_data(room, |data| match fid.kind {
            FidKind::Inode => fs.read(store.as_mut(), fid.ino, offset, data),
            FidKind::Xattr => Ok(0),
        })
    }

    fn write(&mut self) -> FsResult<()> {
        let ino = self.ino()?;
        let (offset, count) = (self.fields.u64()?, self.fields.u32()?);
        let data = self.fields.bytes(count as usize)?;
        let Server { fs, store, .. } = &mut *self.server;
        fs.write(store.as_mut(), ino, offset, data, self.now)?;
        self.reply.put_u32(count);
        Ok(())
    }

    fn readdir(&mut self) -> FsResult<()> {
        let ino = self.ino()?;
        let (offset, count) = (self.fields.u64()?, self.fields.u32()?);
        let room = self.room(count);
        let fs = &self.server.fs;
        let directory = fs.directory(ino)?;
        let dots = [(COOKIE_DOT, b".".as_slice(), ino), (COOKIE_DOT_DOT, b"..", directory.parent)];
        let dots = dots.into_iter().filter(|(cookie, ..)| *cookie > offset);
        let named = directory.after(offset.max(COOKIE_DOT_DOT)).map(|(c, e)| (c, &*e.name, e.ino));
        let entries = dots.chain(named).filter_map(|(cookie, name, ino)| {
            let inode = fs.inode(ino).ok()?;
            let qid = Qid { kind: qid_type(inode.mode), version: inode.qid_version, path: inode.qid_path };
            Some(Listed { qid, cookie, kind: (inode.mode >> 12) as u8 & 0xf, name })
        });
        self.reply.put_entries(room, entries);
        Ok(())
    }

    fn getattr(&mut self) -> FsResult<()> {
        let ino = self.ino()?;
        let qid = self.server.qid(ino)?;
        let inode = self.server.fs.inode(ino)?;
        let device = match inode.content {
            Content::Device { major, minor } => encode_dev(major, minor),
            _ => 0,
        };
        let attributes = Attributes {
            qid,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            links: inode.nlink.into(),
            device,
            size: inode.size,
            block: BLOCK_SIZE,
            blocks: inode.size.div_ceil(512),
            times: [inode.atime, inode.mtime, inode.ctime],
        };
        self.reply.put_attributes(&attributes);
        Ok(())
    }

    fn setattr(&mut self) -> FsResult<()> {
        let ino = self.ino()?;
        let Changes { mode, uid, gid, size, atime, mtime } = self.fields.changes()?;
        let time = |time: Option<Timestamp>| time.unwrap_or(self.now);
        let change = SetAttr { mode, uid, gid, size, atime: atime.map(time), mtime: mtime.map(time) };
        self.server.fs.set_attr(ino, &change, self.now)
    }

    fn statfs(&mut self) -> FsResult<()> {
        self.ino()?;
        let fs = &self.server.fs;
        let block = u64::from(BLOCK_SIZE);
        let (blocks, free) = (fs.total_size / block, fs.free_size() / block);
        let files = fs.count() as u64;
        let room = Statfs { block: BLOCK_SIZE, blocks, free, files: files + free, files_free: free };
        self.reply.put_statfs(&room);
        Ok(())
    }

    fn mkdir(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let (name, mode, gid) = (self.fields.string()?, self.fields.u32()?, self.fields.u32()?);
        let maker = self.maker(number, S_IFDIR | mode & S_IPERM, gid)?;
        let ino = self.server.fs.create(self.server.ino(number)?, name, maker)?;
        self.put_qid(ino)
    }

    fn mknod(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let (name, mode) = (self.fields.string()?, self.fields.u32()?);
        let (major, minor, gid) = (self.fields.u32()?, self.fields.u32()?, self.fields.u32()?);
        let dir = self.server.ino(number)?;
        let maker = self.maker(number, mode & (S_IFMT | S_IPERM), gid)?;
        let fs = &mut self.server.fs;
        let ino = match mode & S_IFMT {
            crate::fs::S_IFBLK | crate::fs::S_IFCHR => fs.create_device(dir, name, maker, major, minor)?,
            // mkdir is the way to make one.
            S_IFDIR => return Err(Errno::EINVAL.into()),
            0 => fs.create(dir, name, Maker { mode: S_IFREG | maker.mode, ..maker })?,
            _ => fs.create(dir, name, maker)?,
        };
        self.put_qid(ino)
    }

    fn symlink(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let (name, target, gid) = (self.fields.string()?, self.fields.string()?, self.fields.u32()?);
        let maker = self.maker(number, 0, gid)?;
        let ino = self.server.fs.symlink(self.server.ino(number)?, name, target, maker)?;
        self.put_qid(ino)
    }

    fn maker(&self, number: u32, mode: u32, gid: u32) -> FsResult<Maker> {
        Ok(Maker { mode, uid: self.server.fid(number)?.uid, gid, now: self.now })
    }

    fn readlink(&mut self) -> FsResult<()> {
        let ino = self.ino()?;
        match &self.server.fs.inode(ino)?.content {
            Content::Symlink(target) => {
                self.reply.put_string(target);
                Ok(())
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn link(&mut self) -> FsResult<()> {
        let dir = self.ino()?;
        let ino = self.ino()?;
        let name = self.fields.string()?;
        self.server.fs.link(dir, name, ino, self.now)
    }

    fn rename(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let dir = self.ino()?;
        let name = self.fields.string()?;
        let (old_dir, old_name) = self.server.place(number)?;
        self.server.fs.rename(old_dir, &old_name, dir, name, self.now)?;
        if let Some(fid) = self.server.fids.get_mut(&number) {
            fid.name = Some((dir, name.into()));
        }
        Ok(())
    }

    fn renameat(&mut self) -> FsResult<()> {
        let old_dir = self.ino()?;
        let old_name = self.fields.string()?;
        let new_dir = self.ino()?;
        let new_name = self.fields.string()?;
        self.server.fs.rename(old_dir, old_name, new_dir, new_name, self.now)
    }

    fn unlinkat(&mut self) -> FsResult<()> {
        let dir = self.ino()?;
        let (name, flags) = (self.fields.string()?, self.fields.u32()?);
        let what = if flags & AT_REMOVEDIR != 0 { Unlink::Directory } else { Unlink::File };
        self.server.fs.unlink(dir, name, what, self.now)
    }

    /// Removes what the fid stands for, and the fid in any case.
    fn remove(&mut self) -> FsResult<()> {
        let number = self.fields.u32()?;
        let removed = match self.server.ino(number)? {
            ROOT => Err(Errno::EBUSY.into()),
            _ => self
                .server
                .place(number)
                .and_then(|(dir, name)| self.server.fs.unlink(dir, &name, Unlink::Any, self.now)),
        };
        self.server.clunk(number)?;
        removed
    }

    fn lock(&mut self) -> FsResult<()> {
        let ino = self.ino()?;
        let kind = LockKind::from_wire(self.fields.u8()?).ok_or(Errno::EINVAL)?;
        let _flags = self.fields.u32()?;
        let wanted = self.lock_fields(kind)?;
        let blocked = self.server.fs.lock_conflict(ino, &wanted)?.is_some();
        if !blocked {
            self.server.fs.set_lock(ino, wanted)?;
        }
        self.reply.put_u8(if blocked { LOCK_BLOCKED } else { LOCK_SUCCESS });
        Ok(())
    }

    fn getlock(&mut self) -> FsResult<()> {
        let ino = self.ino()?;
        let kind = LockKind::from_wire(self.fields.u8()?).ok_or(Errno::EINVAL)?;
        let wanted = self.lock_fields(kind)?;
        let free = Lock { kind: LockKind::Unlock, ..wanted.clone() };
        let held = lock::conflict(&self.server.fs.inode(ino)?.locks, &wanted).unwrap_or(&free);
        self.reply.put_u8(held.kind as u8);
        self.reply.put_u64(held.start);
        self.reply.put_u64(held.length);
        self.reply.put_u32(held.proc_id);
        self.reply.put_string(&held.client_id);
        Ok(())
    }

    fn lock_fields(&mut self, kind: LockKind) -> FsResult<Lock> {
        Ok(Lock {
            kind,
            start: self.fields.u64()?,
            length: self.fields.u64()?,
            proc_id: self.fields.u32()?,
            client_id: self.fields.string()?.into(),
        })
    }

    /// There are no extended attributes: their list is empty, and none has a value.
    fn xattrwalk(&mut self) -> FsResult<()> {
        let (number, new) = (self.fields.u32()?, self.fields.u32()?);
        let name = self.fields.string()?;
        let ino = self.server.ino(number)?;
        if !name.is_empty() {
            return Err(Errno::ENODATA.into());
        }
        let fid = Fid { ino, kind: FidKind::Xattr, uid: self.server.fid(number)?.uid, name: None };
        self.server.set_fid(new, fid)?;
        self.reply.put_u64(0);
        Ok(())
    }
}

/// A device number as Linux encodes it in a stat: 12 bits of major among 20 of minor.
fn encode_dev(major: u32, minor: u32) -> u64 {
    (minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12).into()
}
