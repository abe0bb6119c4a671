//! The filesystem that the guest sees over 9p: inodes in memory, over the contents of an image.
//!
//! The image is never written. Names, owners, modes and times live in a table of inodes; what is in
//! a file comes from the image's blobs when it is asked for, and from memory where the guest has
//! written. An inode holds what v86's state can store of it, and what v86 loses: device numbers,
//! FIFOs and nanoseconds.

mod blob;
mod dir;
mod errno;
mod file;
mod json;
pub mod lock;

pub use blob::{BlobError, BlobStore, Fetched, NoBlobs};
pub use dir::{COOKIE_DOT, COOKIE_DOT_DOT, Directory, Entry};
pub use errno::{Errno, FsError, FsResult};
pub use file::{Base, CHUNK, FileData};
pub use json::FsJsonError;
pub use lock::{Lock, LockKind};

use thiserror::Error;

/// The number of an inode: its place in the table.
pub type Ino = u32;
/// The directory that everything is in.
pub const ROOT: Ino = 0;

/// The bits of a mode that say what an inode is.
pub const S_IFMT: u32 = 0xf000;
/// A FIFO.
pub const S_IFIFO: u32 = 0x1000;
/// A character device.
pub const S_IFCHR: u32 = 0x2000;
/// A directory.
pub const S_IFDIR: u32 = 0x4000;
/// A block device.
pub const S_IFBLK: u32 = 0x6000;
/// A regular file.
pub const S_IFREG: u32 = 0x8000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0xa000;
/// A socket.
pub const S_IFSOCK: u32 = 0xc000;
/// The bits of a mode that can be changed: set-user-ID, set-group-ID, sticky and permissions.
pub const S_IPERM: u32 = 0o7777;

/// Bytes of the longest name.
pub const NAME_MAX: usize = 255;
/// Bytes of the longest target of a symbolic link.
pub const PATH_MAX: usize = 4096;
/// The capacity that v86 reports, in bytes.
pub const TOTAL_SIZE: u64 = 256 << 30;
/// The bytes that what the guest makes and writes may occupy in memory, beside the tree that it
/// starts with, unless the host says otherwise.
pub const MEMORY_LIMIT: u64 = 2 << 30;
/// The size that a directory is given, in bytes.
const DIRECTORY_SIZE: u64 = 4096;
/// What an inode, a name and a lock count against the limit, in bytes.
const INODE_COST: u64 = 384;
const ENTRY_COST: u64 = 160;
const LOCK_COST: u64 = 96;

/// A moment of Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub secs: i64,
    /// Nanoseconds of the second.
    pub nanos: u32,
}

impl Timestamp {
    /// From nanoseconds since 1970.
    pub fn from_unix_ns(ns: u64) -> Self {
        Self { secs: (ns / 1_000_000_000) as i64, nanos: (ns % 1_000_000_000) as u32 }
    }

    /// From seconds since 1970.
    pub fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }
}

/// What an inode is, with what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory(Directory),
    /// A regular file.
    File(FileData),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A block or character device, as the mode says.
    Device {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A FIFO or a socket, as the mode says.
    Special,
}

impl Content {
    /// An empty one of what a mode says, below a directory.
    fn of_mode(mode: u32, parent: Ino) -> Option<Self> {
        match mode & S_IFMT {
            S_IFDIR => Some(Self::Directory(Directory::new(parent))),
            S_IFREG => Some(Self::File(FileData::default())),
            S_IFCHR | S_IFBLK => Some(Self::Device { major: 0, minor: 0 }),
            S_IFIFO | S_IFSOCK => Some(Self::Special),
            _ => None,
        }
    }

    fn memory(&self) -> u64 {
        match self {
            Self::File(data) => data.memory(),
            Self::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }
}

/// A file, a directory, or what else a name can stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Type, set-ID bits and permissions, as in Linux.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last access. Reading does not change it.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// How many names there are for it.
    pub nlink: u32,
    /// The version of the qid. It stays as it is: Linux takes a file whose version differs for
    /// another one, and would keep two caches of what has two names. It is not 0, which newer
    /// kernels take as a wish not to be cached at all.
    pub qid_version: u32,
    /// The path of the qid: unique, and never used again.
    pub qid_path: u64,
    /// Locked ranges.
    pub locks: Vec<Lock>,
    /// What is in it.
    pub content: Content,
    /// How many fids hold it.
    refs: u32,
}

impl Inode {
    /// An inode without a name, from its mode and content.
    pub fn new(mode: u32, uid: u32, gid: u32, time: Timestamp, content: Content) -> Self {
        let size = match &content {
            Content::Directory(_) => DIRECTORY_SIZE,
            Content::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let nlink = if matches!(content, Content::Directory(_)) { 2 } else { 1 };
        Self {
            mode,
            uid,
            gid,
            size,
            atime: time,
            mtime: time,
            ctime: time,
            nlink,
            qid_version: 1,
            qid_path: 0,
            locks: Vec::new(),
            content,
            refs: 0,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.content, Content::Directory(_))
    }

    fn memory(&self) -> u64 {
        let locks: u64 = self.locks.iter().map(|l| LOCK_COST + l.client_id.len() as u64).sum();
        INODE_COST + self.content.memory() + locks
    }
}

/// Who makes something, and with what mode.
#[derive(Clone, Copy, Debug)]
pub struct Maker {
    /// Type and permissions.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When.
    pub now: Timestamp,
}

/// What to change about an inode.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permissions and set-ID bits; the type stays.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// Size in bytes, of a regular file.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Timestamp>,
    /// Last change of the content.
    pub mtime: Option<Timestamp>,
}

/// What [`Filesystem::unlink`] is ready to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlink {
    /// Anything but a directory, as unlink(2).
    File,
    /// An empty directory, as rmdir(2).
    Directory,
    /// Either, as remove(3).
    Any,
}

/// Why a table of inodes is not a filesystem.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TreeError {
    /// There is no directory to start from.
    #[error("Inode 0 is not a directory")]
    NoRoot,
    /// A name without an inode.
    #[error("Directory {dir} names inode {ino}, which does not exist")]
    Dangling {
        /// The directory.
        dir: Ino,
        /// The inode.
        ino: Ino,
    },
    /// A directory that is in two places, or says that it is elsewhere.
    #[error("Directory {dir} contains directory {ino}, which belongs elsewhere")]
    Misplaced {
        /// The directory.
        dir: Ino,
        /// The directory in it.
        ino: Ino,
    },
    /// A name that no name can be.
    #[error("Directory {dir} has an entry with an impossible name")]
    Name {
        /// The directory.
        dir: Ino,
    },
}

/// The tree of files.
#[derive(Clone, Debug)]
pub struct Filesystem {
    inodes: Vec<Option<Inode>>,
    free: Vec<Ino>,
    /// The path of the youngest qid.
    pub last_qid: u64,
    /// The capacity that is reported, in bytes.
    pub total_size: u64,
    /// The bytes that the image said are used.
    pub used_size: u64,
    /// The bytes that all this, the tree included, may occupy in memory.
    pub memory_limit: u64,
    memory: u64,
}

impl Default for Filesystem {
    /// Nothing but a root directory.
    fn default() -> Self {
        Self::new(Inode::new(
            S_IFDIR | 0o755,
            0,
            0,
            Timestamp::default(),
            Content::Directory(Directory::new(ROOT)),
        ))
    }
}

impl Filesystem {
    fn new(root: Inode) -> Self {
        let mut fs = Self {
            inodes: Vec::new(),
            free: Vec::new(),
            last_qid: 0,
            total_size: TOTAL_SIZE,
            used_size: 0,
            memory_limit: MEMORY_LIMIT,
            memory: 0,
        };
        fs.add_inode(root);
        fs
    }

    /// From a saved table, by inode number. No fid holds any of it yet.
    pub fn from_inodes(mut inodes: Vec<Option<Inode>>, last_qid: u64) -> Result<Self, TreeError> {
        inodes.iter_mut().flatten().for_each(|inode| inode.refs = 0);
        let get = |ino: Ino| inodes.get(ino as usize).and_then(Option::as_ref);
        if !get(ROOT).is_some_and(Inode::is_dir) {
            return Err(TreeError::NoRoot);
        }
        let mut placed = vec![false; inodes.len()];
        placed[ROOT as usize] = true;
        let mut fs = Self { last_qid, ..Self::default() };
        fs.memory = 0;
        let mut written = 0;
        for (dir, inode) in (0..).zip(&inodes).filter_map(|(i, n)| Some((i, n.as_ref()?))) {
            fs.memory += inode.memory();
            written += inode.content.memory();
            let Content::Directory(directory) = &inode.content else { continue };
            for Entry { name, ino } in directory.entries() {
                let child = get(*ino).ok_or(TreeError::Dangling { dir, ino: *ino })?;
                check_name(name).map_err(|_| TreeError::Name { dir })?;
                if let Content::Directory(below) = &child.content {
                    let seen = std::mem::replace(&mut placed[*ino as usize], true);
                    if seen || below.parent != dir {
                        return Err(TreeError::Misplaced { dir, ino: *ino });
                    }
                }
                fs.memory += ENTRY_COST + name.len() as u64;
            }
        }
        fs.memory_limit += fs.memory - written;
        // A path that is in use must not be given again, whatever the table says.
        fs.last_qid = inodes.iter().flatten().fold(last_qid, |last, inode| last.max(inode.qid_path));
        fs.free = (0..).zip(&inodes).filter_map(|(i, n)| n.is_none().then_some(i)).collect();
        fs.inodes = inodes;
        Ok(fs)
    }

    /// The table by inode number, for saving it.
    pub fn inodes(&self) -> &[Option<Inode>] {
        &self.inodes
    }

    /// How many inodes there are.
    pub fn count(&self) -> usize {
        self.inodes.len() - self.free.len()
    }

    /// Bytes that the tree and what was written occupy in memory.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Bytes that are still free: of the capacity, and of the memory allowed.
    pub fn free_size(&self) -> u64 {
        let capacity = self.total_size.saturating_sub(self.used_size);
        capacity.min(self.memory_limit.saturating_sub(self.memory))
    }

    /// An inode by number.
    pub fn inode(&self, ino: Ino) -> FsResult<&Inode> {
        Ok(self.inodes.get(ino as usize).and_then(Option::as_ref).ok_or(Errno::ESTALE)?)
    }

    fn inode_mut(&mut self, ino: Ino) -> FsResult<&mut Inode> {
        Ok(self.inodes.get_mut(ino as usize).and_then(Option::as_mut).ok_or(Errno::ESTALE)?)
    }

    /// A directory by number.
    pub fn directory(&self, ino: Ino) -> FsResult<&Directory> {
        match &self.inode(ino)?.content {
            Content::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    fn directory_mut(&mut self, ino: Ino) -> FsResult<&mut Directory> {
        match &mut self.inode_mut(ino)?.content {
            Content::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    /// What a name in a directory stands for, "." and ".." included.
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> FsResult<Ino> {
        let directory = self.directory(dir)?;
        match name {
            b"." => Ok(dir),
            b".." => Ok(directory.parent),
            _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG.into()),
            _ => Ok(directory.get(name).ok_or(Errno::ENOENT)?),
        }
    }

    /// The inode at a path from the root; symbolic links are not followed.
    pub fn resolve(&self, path: &[u8]) -> FsResult<Ino> {
        path.split(|&b| b == b'/')
            .filter(|n| !n.is_empty())
            .try_fold(ROOT, |dir, name| self.lookup(dir, name))
    }

    /// Notes that a fid holds the inode, which then outlives its last name.
    pub fn acquire(&mut self, ino: Ino) -> FsResult<()> {
        self.inode_mut(ino)?.refs += 1;
        Ok(())
    }

    /// Takes [`Self::acquire`] back.
    pub fn release(&mut self, ino: Ino) {
        if let Ok(inode) = self.inode_mut(ino) {
            inode.refs = inode.refs.saturating_sub(1);
            self.free_if_unused(ino);
        }
    }

    /// Frees what has neither a name nor a fid, as a saved table can have it.
    pub fn free_unused(&mut self) {
        (0..self.inodes.len() as Ino).for_each(|ino| self.free_if_unused(ino));
    }

    fn charge(&self, bytes: u64) -> FsResult<()> {
        let fits = self.memory.checked_add(bytes).is_some_and(|sum| sum <= self.memory_limit);
        if fits { Ok(()) } else { Err(Errno::ENOSPC.into()) }
    }

    fn add_inode(&mut self, mut inode: Inode) -> Ino {
        self.last_qid = self.last_qid.wrapping_add(1);
        inode.qid_path = self.last_qid;
        self.memory += inode.memory();
        match self.free.pop() {
            Some(ino) => {
                self.inodes[ino as usize] = Some(inode);
                ino
            }
            None => {
                self.inodes.push(Some(inode));
                self.inodes.len() as Ino - 1
            }
        }
    }

    fn free_if_unused(&mut self, ino: Ino) {
        if ino != ROOT && self.inode(ino).is_ok_and(|i| i.nlink == 0 && i.refs == 0) {
            let gone = self.inodes[ino as usize].take();
            self.memory = self.memory.saturating_sub(gone.map_or(0, |i| i.memory()));
            self.free.push(ino);
        }
    }

    /// Puts a name into a directory; returns what the name stood for before.
    fn enter(&mut self, dir: Ino, name: &[u8], ino: Ino) -> FsResult<Option<Ino>> {
        let previous = self.directory_mut(dir)?.insert(name, ino);
        if previous.is_none() {
            self.memory += ENTRY_COST + name.len() as u64;
        }
        Ok(previous)
    }

    fn leave(&mut self, dir: Ino, name: &[u8]) -> FsResult<()> {
        if self.directory_mut(dir)?.remove(name).is_some() {
            self.memory = self.memory.saturating_sub(ENTRY_COST + name.len() as u64);
        }
        Ok(())
    }

    /// Adjusts how many names a directory has for the ".." in its subdirectories.
    fn count_subdirs(&mut self, dir: Ino, more: i32) -> FsResult<()> {
        let inode = self.inode_mut(dir)?;
        inode.nlink = inode.nlink.saturating_add_signed(more);
        Ok(())
    }

    fn touch_directory(&mut self, dir: Ino, now: Timestamp) -> FsResult<()> {
        let inode = self.inode_mut(dir)?;
        (inode.mtime, inode.ctime) = (now, now);
        Ok(())
    }

    /// Checks that a name can be made in a directory.
    fn check_new(&self, dir: Ino, name: &[u8]) -> FsResult<()> {
        check_name(name)?;
        if self.directory(dir)?.get(name).is_some() {
            return Err(Errno::EEXIST.into());
        }
        if self.inode(dir)?.nlink == 0 {
            return Err(Errno::ENOENT.into());
        }
        self.charge(INODE_COST + ENTRY_COST + PATH_MAX as u64)
    }

    /// Puts an inode into the table and names it, without a trace in the times.
    fn place(&mut self, dir: Ino, name: &[u8], inode: Inode) -> FsResult<Ino> {
        let is_dir = inode.is_dir();
        let ino = self.add_inode(inode);
        self.enter(dir, name, ino)?;
        if is_dir {
            self.count_subdirs(dir, 1)?;
        }
        Ok(ino)
    }

    /// Makes something and names it.
    pub fn add(&mut self, dir: Ino, name: &[u8], inode: Inode) -> FsResult<Ino> {
        self.check_new(dir, name)?;
        let now = inode.ctime;
        let ino = self.place(dir, name, inode)?;
        self.touch_directory(dir, now)?;
        Ok(ino)
    }

    /// Makes an empty file or directory, a FIFO or a socket, as the mode says.
    pub fn create(&mut self, dir: Ino, name: &[u8], maker: Maker) -> FsResult<Ino> {
        let content = Content::of_mode(maker.mode, dir).ok_or(Errno::EINVAL)?;
        self.add(dir, name, Inode::new(maker.mode, maker.uid, maker.gid, maker.now, content))
    }

    /// Makes a device.
    pub fn create_device(
        &mut self,
        dir: Ino,
        name: &[u8],
        maker: Maker,
        major: u32,
        minor: u32,
    ) -> FsResult<Ino> {
        let content = Content::Device { major, minor };
        self.add(dir, name, Inode::new(maker.mode, maker.uid, maker.gid, maker.now, content))
    }

    /// Makes a symbolic link.
    pub fn symlink(&mut self, dir: Ino, name: &[u8], target: &[u8], maker: Maker) -> FsResult<Ino> {
        if target.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let content = Content::Symlink(target.into());
        self.add(dir, name, Inode::new(S_IFLNK | 0o777, maker.uid, maker.gid, maker.now, content))
    }

    /// Gives an inode one more name.
    pub fn link(&mut self, dir: Ino, name: &[u8], ino: Ino, now: Timestamp) -> FsResult<()> {
        self.check_new(dir, name)?;
        let inode = self.inode_mut(ino)?;
        if inode.is_dir() {
            return Err(Errno::EPERM.into());
        }
        if inode.nlink == 0 {
            return Err(Errno::ENOENT.into());
        }
        inode.nlink = inode.nlink.checked_add(1).ok_or(Errno::EMLINK)?;
        inode.ctime = now;
        self.enter(dir, name, ino)?;
        self.touch_directory(dir, now)
    }

    /// An inode has lost a name.
    fn drop_link(&mut self, ino: Ino, now: Timestamp) {
        if let Ok(inode) = self.inode_mut(ino) {
            inode.nlink = if inode.is_dir() { 0 } else { inode.nlink.saturating_sub(1) };
            inode.ctime = now;
            self.free_if_unused(ino);
        }
    }

    /// Removes a name. The inode lives on while it has others, or a fid holds it.
    pub fn unlink(&mut self, dir: Ino, name: &[u8], what: Unlink, now: Timestamp) -> FsResult<()> {
        check_name(name)?;
        let ino = self.lookup(dir, name)?;
        match (&self.inode(ino)?.content, what) {
            (Content::Directory(_), Unlink::File) => return Err(Errno::EISDIR.into()),
            (Content::Directory(below), _) if !below.is_empty() => return Err(Errno::ENOTEMPTY.into()),
            (Content::Directory(_), _) => self.count_subdirs(dir, -1)?,
            (_, Unlink::Directory) => return Err(Errno::ENOTDIR.into()),
            _ => {}
        }
        self.leave(dir, name)?;
        self.drop_link(ino, now);
        self.touch_directory(dir, now)
    }

    /// Whether a directory is another one, or somewhere below it.
    fn is_within(&self, dir: Ino, ancestor: Ino) -> FsResult<bool> {
        let mut at = dir;
        for _ in 0..self.inodes.len() {
            if at == ancestor {
                return Ok(true);
            }
            if at == ROOT {
                return Ok(false);
            }
            at = self.directory(at)?.parent;
        }
        Ok(false)
    }

    /// Moves a name, over another one if need be, as rename(2).
    pub fn rename(
        &mut self,
        old_dir: Ino,
        old_name: &[u8],
        new_dir: Ino,
        new_name: &[u8],
        now: Timestamp,
    ) -> FsResult<()> {
        check_name(old_name)?;
        check_name(new_name)?;
        let ino = self.lookup(old_dir, old_name)?;
        let is_dir = self.inode(ino)?.is_dir();
        let over = self.directory(new_dir)?.get(new_name);
        if self.inode(new_dir)?.nlink == 0 {
            return Err(Errno::ENOENT.into());
        }
        if over == Some(ino) {
            return Ok(());
        }
        if is_dir && self.is_within(new_dir, ino)? {
            return Err(Errno::EINVAL.into());
        }
        if let Some(over) = over {
            match &self.inode(over)?.content {
                Content::Directory(_) if !is_dir => return Err(Errno::EISDIR.into()),
                Content::Directory(below) if !below.is_empty() => return Err(Errno::ENOTEMPTY.into()),
                Content::Directory(_) => self.count_subdirs(new_dir, -1)?,
                _ if is_dir => return Err(Errno::ENOTDIR.into()),
                _ => {}
            }
        } else {
            self.charge(ENTRY_COST + NAME_MAX as u64)?;
        }
        self.enter(new_dir, new_name, ino)?;
        self.leave(old_dir, old_name)?;
        if let Some(over) = over {
            self.drop_link(over, now);
        }
        if is_dir {
            self.directory_mut(ino)?.parent = new_dir;
            self.count_subdirs(old_dir, -1)?;
            self.count_subdirs(new_dir, 1)?;
        }
        self.inode_mut(ino)?.ctime = now;
        self.touch_directory(old_dir, now)?;
        self.touch_directory(new_dir, now)
    }

    /// Changes attributes.
    pub fn set_attr(&mut self, ino: Ino, set: &SetAttr, now: Timestamp) -> FsResult<()> {
        if let Some(size) = set.size {
            self.resize(ino, size, now)?;
        }
        let inode = self.inode_mut(ino)?;
        if let Some(mode) = set.mode {
            inode.mode = inode.mode & S_IFMT | mode & S_IPERM;
        }
        inode.uid = set.uid.unwrap_or(inode.uid);
        inode.gid = set.gid.unwrap_or(inode.gid);
        inode.atime = set.atime.unwrap_or(inode.atime);
        inode.mtime = set.mtime.unwrap_or(inode.mtime);
        inode.ctime = now;
        Ok(())
    }

    /// Cuts a regular file, or lets it grow with zeros.
    pub fn resize(&mut self, ino: Ino, size: u64, now: Timestamp) -> FsResult<()> {
        check_size(size)?;
        let inode = self.inode_mut(ino)?;
        let before = inode.content.memory();
        file_of(inode)?.truncate(size);
        let freed = before - inode.content.memory();
        inode.size = size;
        (inode.mtime, inode.ctime) = (now, now);
        self.memory = self.memory.saturating_sub(freed);
        Ok(())
    }

    /// Reads from a regular file; returns how many bytes there were.
    pub fn read(&self, store: &mut dyn BlobStore, ino: Ino, offset: u64, buf: &mut [u8]) -> FsResult<usize> {
        let inode = self.inode(ino)?;
        match &inode.content {
            Content::File(data) => data.read(store, inode.size, offset, buf),
            Content::Directory(_) => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// The whole content of a regular file.
    pub fn read_all(&self, store: &mut dyn BlobStore, ino: Ino) -> FsResult<Vec<u8>> {
        let size = usize::try_from(self.inode(ino)?.size).map_err(|_| Errno::EFBIG)?;
        let mut content = Vec::new();
        content.try_reserve_exact(size).map_err(|_| Errno::EFBIG)?;
        content.resize(size, 0);
        self.read(store, ino, 0, &mut content)?;
        Ok(content)
    }

    /// Writes to a regular file. After [`FsError::Pending`] the same write can be done again.
    pub fn write(
        &mut self,
        store: &mut dyn BlobStore,
        ino: Ino,
        offset: u64,
        data: &[u8],
        now: Timestamp,
    ) -> FsResult<()> {
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        check_size(end)?;
        let len = data.len() as u64;
        let growth = file_of(self.inode_mut(ino)?)?.growth(offset, len);
        self.charge(growth)?;
        let inode = self.inode_mut(ino)?;
        let file = file_of(inode)?;
        let result = file.write(store, offset, data);
        // A write that waits may already have made some of its chunks.
        let grown = growth - file.growth(offset, len);
        if result.is_ok() {
            inode.size = inode.size.max(end);
            (inode.mtime, inode.ctime) = (now, now);
        }
        self.memory += grown;
        result
    }

    /// Sets the numbers of a device, which v86's states do not hold.
    pub(crate) fn set_device(&mut self, ino: Ino, major: u32, minor: u32) {
        if let Ok(Inode { content: content @ Content::Device { .. }, .. }) = self.inode_mut(ino) {
            *content = Content::Device { major, minor };
        }
    }

    /// Sets the nanoseconds of an inode's times (change, access, modification), which v86's states
    /// do not hold.
    pub(crate) fn set_nanos(&mut self, ino: Ino, [change, access, modification]: [u32; 3]) {
        if let Ok(inode) = self.inode_mut(ino) {
            (inode.ctime.nanos, inode.atime.nanos, inode.mtime.nanos) = (change, access, modification);
        }
    }

    /// Gives a directory's entry, by its place, a name that v86's states cannot hold.
    pub(crate) fn set_entry_name(&mut self, dir: Ino, place: usize, name: &[u8]) {
        if check_name(name).is_ok()
            && let Ok(directory) = self.directory_mut(dir)
        {
            directory.set_name(place, name);
        }
    }

    /// The lock that would have to be waited for.
    pub fn lock_conflict(&self, ino: Ino, wanted: &Lock) -> FsResult<Option<&Lock>> {
        Ok(lock::conflict(&self.inode(ino)?.locks, wanted))
    }

    /// Sets or releases a lock that is in nobody's way.
    pub fn set_lock(&mut self, ino: Ino, wanted: Lock) -> FsResult<()> {
        // Splitting can leave one lock more than asked for.
        self.charge(2 * (LOCK_COST + wanted.client_id.len() as u64)).map_err(|_| Errno::ENOLCK)?;
        let inode = self.inode_mut(ino)?;
        let before = inode.memory();
        lock::apply(&mut inode.locks, wanted);
        let after = inode.memory();
        self.memory = (self.memory + after).saturating_sub(before);
        Ok(())
    }

    /// Releases every lock, as when the client starts anew.
    pub fn clear_locks(&mut self) {
        for inode in self.inodes.iter_mut().flatten().filter(|i| !i.locks.is_empty()) {
            let before = inode.memory();
            inode.locks = Vec::new();
            self.memory = self.memory.saturating_sub(before - inode.memory());
        }
    }
}

/// Refuses what cannot name anything.
fn check_name(name: &[u8]) -> FsResult<()> {
    match name {
        b"" => Err(Errno::ENOENT.into()),
        b"." | b".." => Err(Errno::EINVAL.into()),
        _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG.into()),
        _ if name.iter().any(|b| matches!(b, 0 | b'/')) => Err(Errno::EINVAL.into()),
        _ => Ok(()),
    }
}

/// Refuses sizes that the guest could not express as an offset.
fn check_size(size: u64) -> FsResult<()> {
    if size > i64::MAX as u64 { Err(Errno::EFBIG.into()) } else { Ok(()) }
}

fn file_of(inode: &mut Inode) -> FsResult<&mut FileData> {
    match &mut inode.content {
        Content::File(data) => Ok(data),
        Content::Directory(_) => Err(Errno::EISDIR.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

#[cfg(test)]
mod tests;
