//! A folder of the host in which a guest works, and which it cannot leave.
//!
//! A file is named by the names on the way from the folder to it. Each step of a way is opened from the one
//! before, by its name alone, and never through a symbolic link; nothing else is done with a path. So
//! whatever a guest makes of names and links, and however fast, it stays inside.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, chmod, fchmod,
    fstat, fstatvfs, futimens, linkat, mkdirat, open, openat, readlinkat, renameat, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{Resource, getegid, geteuid, getrlimit};

/// Opens a directory only to go on from there.
#[cfg(target_os = "linux")]
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const STEP: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How any file is opened: not through a link, without waiting for a FIFO's other end, and not as this
/// process's terminal.
const CAREFULLY: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Permissions that a guest can give: set-user-ID programs of the caller would be for others.
const PERMISSIONS: u32 = 0o1777;

/// Set-user-ID and set-group-ID.
const PRIVILEGES: Mode = Mode::SUID.union(Mode::SGID);

/// Files that a guest leaves for the rest of this process to open.
const FILES_KEPT: u64 = 128;

/// A time of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds.
    pub nanoseconds: u32,
}

/// What is known of a file in a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// A number that no other file has.
    pub node: u64,
    /// Type and permissions, as Linux numbers them.
    pub mode: u32,
    /// The owner; 0 is the caller.
    pub uid: u32,
    /// The group; 0 is the caller's.
    pub gid: u32,
    /// Names.
    pub links: u64,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// When it was read.
    pub accessed: Time,
    /// When it was written.
    pub modified: Time,
    /// When anything of it was changed.
    pub changed: Time,
}

/// A file in a directory of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Vec<u8>,
    /// Its number on its file system.
    pub node: u64,
    /// Its type: the highest four bits of a mode.
    pub kind: u8,
}

/// What is to be changed of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Permissions.
    pub mode: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// A time, or now.
    pub accessed: Option<Option<Time>>,
    /// The same.
    pub modified: Option<Option<Time>>,
}

/// The room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes in a block.
    pub block: u64,
    /// Blocks.
    pub blocks: u64,
    /// Blocks that are free.
    pub free: u64,
    /// Files that there can be.
    pub files: u64,
    /// Files that can still be made.
    pub files_free: u64,
}

/// The folder.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// Files that this process may have open.
    files: u64,
    /// The caller: what is theirs is root's in the guest.
    uid: u32,
    gid: u32,
}

/// The names on the way to a file, none for the folder itself.
type Names<'a> = &'a [Vec<u8>];

impl Tree {
    /// The folder at this path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self {
            root,
            files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
        })
    }

    /// Does something in a directory.
    fn within<T>(&self, names: Names, act: impl FnOnce(BorrowedFd) -> io::Result<T>) -> io::Result<T> {
        let mut last: Option<OwnedFd> = None;
        for name in names {
            let from = last.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd);
            last = Some(openat(from, checked(name)?, STEP, Mode::empty())?);
        }
        act(last.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd))
    }

    /// Does something with a name in its directory. The folder itself has no name.
    fn at<T>(&self, names: Names, act: impl FnOnce(BorrowedFd, &OsStr) -> io::Result<T>) -> io::Result<T> {
        let (name, dir) = names.split_last().ok_or(Errno::BUSY)?;
        let name = checked(name)?;
        self.within(dir, |dir| act(dir, name))
    }

    fn found(&self, stat: &Stat) -> Found {
        let seconds = |seconds: i64, nanoseconds: u64| Time { seconds, nanoseconds: nanoseconds as u32 };
        // Their widths differ between systems.
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
        Found {
            node: (stat.st_dev as u64).rotate_left(32) ^ stat.st_ino as u64,
            mode: stat.st_mode as u32,
            uid: if stat.st_uid == self.uid { 0 } else { stat.st_uid },
            gid: if stat.st_gid == self.gid { 0 } else { stat.st_gid },
            links: stat.st_nlink as u64,
            size: stat.st_size as u64,
            blocks: stat.st_blocks as u64,
            accessed: seconds(stat.st_atime as i64, stat.st_atime_nsec as u64),
            modified: seconds(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed: seconds(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        }
    }

    /// What is known of a file; of a symbolic link, of itself.
    pub fn look(&self, names: Names) -> io::Result<Found> {
        if names.is_empty() {
            return Ok(self.found(&fstat(&self.root)?));
        }
        self.at(names, |dir, name| Ok(self.found(&statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)))
    }

    /// The same of an open one.
    pub fn look_at(&self, file: &File) -> io::Result<Found> {
        Ok(self.found(&fstat(file)?))
    }

    /// A guest that opens all that it can does not keep this process from opening files, too: numbers of open files
    /// are given from below.
    fn may_open(&self) -> io::Result<()> {
        let next = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?;
        let next = u64::from(next.as_raw_fd().unsigned_abs());
        if next.saturating_add(FILES_KEPT) < self.files { Ok(()) } else { Err(Errno::MFILE.into()) }
    }

    /// Opens a file. Devices, FIFOs and sockets of the host are not the guest's.
    pub fn open_file(&self, names: Names, write: bool, read: bool, truncate: bool) -> io::Result<File> {
        self.may_open()?;
        let flags = access(write, read) | if truncate { OFlags::TRUNC } else { OFlags::empty() };
        let file = File::from(self.at(names, |dir, name| open_regular(dir, name, flags | CAREFULLY))?);
        if write || truncate {
            drop_privileges(&file)?;
        }
        Ok(file)
    }

    /// Makes a file, which must not be there, and opens it.
    pub fn create(&self, names: Names, write: bool, read: bool, mode: u32) -> io::Result<File> {
        self.may_open()?;
        let flags = access(write, read) | OFlags::CREATE | OFlags::EXCL | CAREFULLY;
        self.at(names, |dir, name| Ok(openat(dir, name, flags, permissions(mode))?.into()))
    }

    /// Writes all of `data` from byte `offset` of an open file on.
    pub fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        drop_privileges(file)?;
        file.write_all_at(data, offset)
    }

    /// Makes a directory.
    pub fn make_dir(&self, names: Names, mode: u32) -> io::Result<()> {
        self.at(names, |dir, name| Ok(mkdirat(dir, name, permissions(mode))?))
    }

    /// Makes a symbolic link, which may say anything: nothing here follows it.
    pub fn symlink(&self, names: Names, target: &[u8]) -> io::Result<()> {
        self.at(names, |dir, name| Ok(symlinkat(OsStr::from_bytes(target), dir, name)?))
    }

    /// What a symbolic link says.
    pub fn read_link(&self, names: Names) -> io::Result<Vec<u8>> {
        self.at(names, |dir, name| Ok(readlinkat(dir, name, Vec::new())?.into_bytes()))
    }

    /// Gives a file one more name.
    pub fn link(&self, old: Names, new: Names) -> io::Result<()> {
        self.at(old, |from, name| {
            self.at(new, |to, new_name| Ok(linkat(from, name, to, new_name, AtFlags::empty())?))
        })
    }

    /// Gives a file another name, in place of what may have it.
    pub fn rename(&self, old: Names, new: Names) -> io::Result<()> {
        self.at(old, |from, name| self.at(new, |to, new_name| Ok(renameat(from, name, to, new_name)?)))
    }

    /// Removes a name: an empty directory's, or another file's.
    pub fn remove(&self, names: Names, directory: bool) -> io::Result<()> {
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        self.at(names, |dir, name| Ok(unlinkat(dir, name, flags)?))
    }

    /// The files in a directory, without `.` and `..`.
    pub fn list(&self, names: Names) -> io::Result<Vec<Node>> {
        let open = OFlags::DIRECTORY | CAREFULLY;
        let dir = match names.is_empty() {
            true => openat(&self.root, ".", open, Mode::empty())?,
            false => self.at(names, |dir, name| Ok(openat(dir, name, open, Mode::empty())?))?,
        };
        let mut list = Vec::new();
        for entry in Dir::new(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                let kind = match entry.file_type() {
                    // Not every file system says it here.
                    FileType::Unknown => 0,
                    kind => (kind.as_raw_mode() >> 12) as u8,
                };
                list.push(Node { name, node: entry.ino(), kind });
            }
        }
        Ok(list)
    }

    /// Changes what is known of a file. Its owner stays the caller.
    pub fn change(&self, names: Names, open: Option<&File>, change: &Change) -> io::Result<()> {
        match (change.mode, open) {
            (Some(mode), Some(file)) => fchmod(file, permissions(mode))?,
            (Some(mode), None) => self.set_permissions(names, mode)?,
            (None, _) => {}
        }
        if let Some(size) = change.size {
            if let Some(file) = open {
                drop_privileges(file)?;
            }
            match open {
                // A file may have been opened for writing and not be writable any more.
                Some(file) if file.set_len(size).is_ok() => {}
                _ => self.open_file(names, true, false, false)?.set_len(size)?,
            }
        }
        if change.accessed.is_none() && change.modified.is_none() {
            return Ok(());
        }
        let time = |time: Option<Option<Time>>| match time {
            None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            Some(None) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            Some(Some(time)) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
        };
        let times =
            Timestamps { last_access: time(change.accessed), last_modification: time(change.modified) };
        match open {
            Some(file) => Ok(futimens(file, &times)?),
            None if names.is_empty() => Ok(futimens(&self.root, &times)?),
            None => self.at(names, |dir, name| Ok(utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)),
        }
    }

    /// Linux cannot change the permissions of what may be a link by its name: they are changed of what was
    /// opened, by the name that `/proc` has for it.
    #[cfg(target_os = "linux")]
    fn set_permissions(&self, names: Names, mode: u32) -> io::Result<()> {
        let set = |file: BorrowedFd| match FileType::from_raw_mode(fstat(file)?.st_mode) {
            FileType::RegularFile | FileType::Directory => Ok(chmod(own_name(file), permissions(mode))?),
            FileType::Symlink => Err(Errno::OPNOTSUPP.into()),
            // Who may use the host's devices is not for the guest to say.
            _ => Err(Errno::ACCESS.into()),
        };
        if names.is_empty() {
            return set(self.root.as_fd());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.at(names, |dir, name| set(openat(dir, name, flags, Mode::empty())?.as_fd()))
    }

    #[cfg(not(target_os = "linux"))]
    fn set_permissions(&self, names: Names, mode: u32) -> io::Result<()> {
        use rustix::fs::chmodat;
        match names.is_empty() {
            true => Ok(fchmod(&self.root, permissions(mode))?),
            false => self
                .at(names, |dir, name| Ok(chmodat(dir, name, permissions(mode), AtFlags::SYMLINK_NOFOLLOW)?)),
        }
    }

    /// The room on the file system.
    pub fn room(&self) -> io::Result<Room> {
        let stat = fstatvfs(&self.root)?;
        Ok(Room {
            block: stat.f_frsize,
            blocks: stat.f_blocks,
            free: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
        })
    }
}

/// Reads from byte `offset` of a file on as much as there is, and room for.
pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buf.len() {
        match file.read_at(&mut buf[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(len) => read += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Nothing but a file with content, and no link to one.
fn regular(file: BorrowedFd) -> io::Result<()> {
    match FileType::from_raw_mode(fstat(file)?.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(Errno::ACCESS.into()),
    }
}

/// Opens a file if it is one. To open a device may do something already: what the name stands for is held, without
/// being opened, while it is looked at, and then that is opened, whatever the name stands for by now.
#[cfg(target_os = "linux")]
fn open_regular(dir: BorrowedFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let held = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    regular(held.as_fd())?;
    Ok(open(own_name(held.as_fd()), flags - OFlags::NOFOLLOW, Mode::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn open_regular(dir: BorrowedFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let kind = FileType::from_raw_mode(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(Errno::ACCESS.into());
    }
    let file = openat(dir, name, flags, Mode::empty())?;
    regular(file.as_fd())?;
    Ok(file)
}

/// The name that `/proc` has for what this process holds.
#[cfg(target_os = "linux")]
fn own_name(held: BorrowedFd) -> String {
    format!("/proc/self/fd/{}", held.as_raw_fd())
}

/// Takes set-user-ID and set-group-ID from a file that a guest is about to write: what runs with its owner's rights
/// then would be the guest's. The kernel does it by itself, but not for root.
fn drop_privileges(file: &File) -> io::Result<()> {
    let mode = Mode::from_raw_mode(fstat(file)?.st_mode);
    if mode.intersects(PRIVILEGES) {
        fchmod(file, mode - PRIVILEGES)?;
    }
    Ok(())
}

fn access(write: bool, read: bool) -> OFlags {
    match (write, read) {
        (true, true) => OFlags::RDWR,
        (true, false) => OFlags::WRONLY,
        (false, _) => OFlags::RDONLY,
    }
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & PERMISSIONS) as _)
}

/// A name, if it is one: a path would lead elsewhere.
fn checked(name: &[u8]) -> Result<&OsStr, Errno> {
    let is_name = !name.is_empty() && !name.contains(&b'/') && !name.contains(&0);
    match is_name && name != b"." && name != b".." {
        true => Ok(OsStr::from_bytes(name)),
        false => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_left_for_others_to_open() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let mut tree = Tree::open(dir.path()).unwrap();
        let (file, new) = ([b"file".to_vec()], [b"new".to_vec()]);
        tree.open_file(&file, false, true, false).unwrap();
        tree.files = FILES_KEPT;
        let full = |result: io::Result<File>| {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(Errno::MFILE.raw_os_error()));
        };
        full(tree.open_file(&file, true, true, true));
        full(tree.create(&new, true, true, 0o644));
        // Nothing has been made on the way to that.
        assert_eq!(tree.list(&[]).unwrap().len(), 1);
    }
}
