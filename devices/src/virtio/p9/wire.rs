//! 9P2000.L on the wire: numbers, and how messages are taken apart and put together.
//!
//! A message is size 4 (its own bytes included), type 1, tag 2, and fields; integers are
//! little-endian, a string is its length in 2 bytes and its bytes.

use crate::fs::{Errno, FsResult, NAME_MAX, Timestamp};

/// Requests, by type. The answer's type is one more.
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub mod request {
    pub const STATFS: u8 = 8;
    pub const LOPEN: u8 = 12;
    pub const LCREATE: u8 = 14;
    pub const SYMLINK: u8 = 16;
    pub const MKNOD: u8 = 18;
    pub const RENAME: u8 = 20;
    pub const READLINK: u8 = 22;
    pub const GETATTR: u8 = 24;
    pub const SETATTR: u8 = 26;
    pub const XATTRWALK: u8 = 30;
    pub const XATTRCREATE: u8 = 32;
    pub const READDIR: u8 = 40;
    pub const FSYNC: u8 = 50;
    pub const LOCK: u8 = 52;
    pub const GETLOCK: u8 = 54;
    pub const LINK: u8 = 70;
    pub const MKDIR: u8 = 72;
    pub const RENAMEAT: u8 = 74;
    pub const UNLINKAT: u8 = 76;
    pub const VERSION: u8 = 100;
    pub const ATTACH: u8 = 104;
    pub const FLUSH: u8 = 108;
    pub const WALK: u8 = 110;
    pub const READ: u8 = 116;
    pub const WRITE: u8 = 118;
    pub const CLUNK: u8 = 120;
    pub const REMOVE: u8 = 122;
}

/// The version that is spoken.
pub const VERSION: &[u8] = b"9P2000.L";
/// The size of messages before one is negotiated, in bytes.
pub const DEFAULT_MSIZE: u32 = 8192;
/// The smallest size of messages that can be negotiated, in bytes.
pub const MIN_MSIZE: u32 = 4096;

/// Flags of lopen and lcreate, as Linux numbers them on the i386.
#[allow(missing_docs, reason = "the names are those of open(2)")]
pub mod open {
    pub const ACCESS: u32 = 3;
    pub const WRITE_ONLY: u32 = 1;
    pub const EXCLUSIVE: u32 = 0o200;
    pub const TRUNCATE: u32 = 0o1000;
    pub const DIRECTORY: u32 = 0o200_000;
}

/// Flag of unlinkat.
pub const AT_REMOVEDIR: u32 = 0x200;

/// Bits of setattr's mask.
#[allow(missing_docs, reason = "the names are those of the fields")]
pub mod set {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_SET: u32 = 1 << 7;
    pub const MTIME_SET: u32 = 1 << 8;
}

/// f_type of the file system (V9FS_MAGIC).
const STATFS_TYPE: u32 = 0x0102_1997;
/// Of all bits of a getattr's mask, those that are answered (P9_STATS_BASIC).
const GETATTR_BASIC: u64 = 0x7ff;
/// Bytes of a directory's entry beside its name.
const ENTRY: usize = 24;

/// The answer to what failed: an error number.
pub const RLERROR: u8 = 7;
/// Bytes before the fields.
pub const HEADER: usize = 7;
/// Bytes of an [`RLERROR`].
pub const RLERROR_SIZE: usize = HEADER + 4;
/// Bytes of an Rread or Rreaddir before the data.
pub const READ_HEADER: usize = HEADER + 4;
/// Bytes of the largest Twrite before the data, which Linux keeps free in a message (P9_IOHDRSZ).
pub const IO_HEADER: u32 = 24;
/// The most names in a walk.
pub const MAX_WALK: u16 = 16;

/// Takes a message apart. What is not there is an [`Errno::EPROTO`].
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The fields of a message.
    pub fn new(fields: &'a [u8]) -> Self {
        Self(fields)
    }

    /// The next bytes.
    pub fn bytes(&mut self, n: usize) -> FsResult<&'a [u8]> {
        let (now, later) = self.0.split_at_checked(n).ok_or(Errno::EPROTO)?;
        self.0 = later;
        Ok(now)
    }

    fn array<const N: usize>(&mut self) -> FsResult<[u8; N]> {
        let (now, later) = self.0.split_first_chunk().ok_or(Errno::EPROTO)?;
        self.0 = later;
        Ok(*now)
    }

    /// One byte.
    pub fn u8(&mut self) -> FsResult<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes.
    pub fn u16(&mut self) -> FsResult<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> FsResult<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> FsResult<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A string.
    pub fn string(&mut self) -> FsResult<&'a [u8]> {
        let len = self.u16()?;
        self.bytes(len.into())
    }

    /// A time: seconds and nanoseconds. Nanoseconds of more than a second are cut.
    pub fn time(&mut self) -> FsResult<Timestamp> {
        let (secs, nanos) = (self.u64()? as i64, self.u64()?);
        Ok(Timestamp { secs, nanos: nanos.min(999_999_999) as u32 })
    }

    /// What a setattr is to change.
    pub fn changes(&mut self) -> FsResult<Changes> {
        let valid = self.u32()?;
        let (mode, uid, gid) = (self.u32()?, self.u32()?, self.u32()?);
        let (size, atime, mtime) = (self.u64()?, self.time()?, self.time()?);
        let has = |bit| valid & bit != 0;
        let time = |bit, exact, time| has(bit).then_some(has(exact).then_some(time));
        Ok(Changes {
            mode: has(set::MODE).then_some(mode),
            uid: has(set::UID).then_some(uid),
            gid: has(set::GID).then_some(gid),
            size: has(set::SIZE).then_some(size),
            atime: time(set::ATIME, set::ATIME_SET, atime),
            mtime: time(set::MTIME, set::MTIME_SET, mtime),
        })
    }
}

/// What a setattr is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Permissions and set-ID bits.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access: a time, or now.
    pub atime: Option<Option<Timestamp>>,
    /// Last change of the content: the same.
    pub mtime: Option<Option<Timestamp>>,
}

/// What a getattr tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What the file is known by.
    pub qid: Qid,
    /// Type and permissions.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Names.
    pub links: u64,
    /// The number of the device that it is.
    pub device: u64,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that are best read and written at once.
    pub block: u32,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Last access, last change of the content, last change of anything.
    pub times: [Timestamp; 3],
}

/// What a statfs tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statfs {
    /// Bytes in a block.
    pub block: u32,
    /// Blocks.
    pub blocks: u64,
    /// Blocks that are free.
    pub free: u64,
    /// Files that there can be.
    pub files: u64,
    /// Files that can still be made.
    pub files_free: u64,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// What the file is known by.
    pub qid: Qid,
    /// Where the directory is read on after it.
    pub cookie: u64,
    /// The file's type: the highest four bits of a mode.
    pub kind: u8,
    /// Its name.
    pub name: &'a [u8],
}

/// What the server knows a file by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qid {
    /// The type of the file; see [`super::server::qid_type`].
    pub kind: u8,
    /// The version.
    pub version: u32,
    /// The unique number.
    pub path: u64,
}

/// Puts a message together. Begin with [`start`] and end with [`finish`].
pub trait Writer {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes.
    fn put_u16(&mut self, value: u16);
    /// Four bytes.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes.
    fn put_u64(&mut self, value: u64);
    /// A string of at most 65535 bytes.
    fn put_string(&mut self, value: &[u8]);
    /// A qid, 13 bytes.
    fn put_qid(&mut self, qid: Qid);
    /// A time, 16 bytes.
    fn put_time(&mut self, time: Timestamp);
    /// The answer to a version, which may be one that is not spoken.
    fn put_version(&mut self, msize: u32, asked: &[u8]);
    /// The answer to a getattr.
    fn put_attributes(&mut self, attributes: &Attributes);
    /// The answer to a statfs.
    fn put_statfs(&mut self, statfs: &Statfs);
    /// The answer to a read: what `read` gives of this many bytes.
    fn put_data(&mut self, room: usize, read: impl FnOnce(&mut [u8]) -> FsResult<usize>) -> FsResult<()>;
    /// The answer to a readdir: as many entries as this many bytes hold.
    fn put_entries<'a>(&mut self, room: usize, entries: impl Iterator<Item = Listed<'a>>);
}

impl Writer for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend(value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend(value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend(value.to_le_bytes());
    }

    fn put_string(&mut self, value: &[u8]) {
        let value = &value[..value.len().min(u16::MAX.into())];
        self.put_u16(value.len() as u16);
        self.extend(value);
    }

    fn put_qid(&mut self, qid: Qid) {
        self.put_u8(qid.kind);
        self.put_u32(qid.version);
        self.put_u64(qid.path);
    }

    fn put_time(&mut self, time: Timestamp) {
        self.put_u64(time.secs as u64);
        self.put_u64(time.nanos.into());
    }

    fn put_version(&mut self, msize: u32, asked: &[u8]) {
        self.put_u32(msize);
        self.put_string(if asked == VERSION { VERSION } else { b"unknown" });
    }

    fn put_attributes(&mut self, attributes: &Attributes) {
        let Attributes { qid, mode, uid, gid, links, device, size, block, blocks, times } = *attributes;
        self.put_u64(GETATTR_BASIC);
        self.put_qid(qid);
        for value in [mode, uid, gid] {
            self.put_u32(value);
        }
        for value in [links, device, size, block.into(), blocks] {
            self.put_u64(value);
        }
        // The last is when it was made, which is not known.
        times.into_iter().chain([Timestamp::default()]).for_each(|time| self.put_time(time));
        // Generation and data version.
        self.put_u64(0);
        self.put_u64(0);
    }

    fn put_statfs(&mut self, statfs: &Statfs) {
        let Statfs { block, blocks, free, files, files_free } = *statfs;
        self.put_u32(STATFS_TYPE);
        self.put_u32(block);
        // What is free is free for all; the last is the id.
        for value in [blocks, free, free, files, files_free, 0] {
            self.put_u64(value);
        }
        self.put_u32(NAME_MAX as u32);
    }

    fn put_data(&mut self, room: usize, read: impl FnOnce(&mut [u8]) -> FsResult<usize>) -> FsResult<()> {
        let data = self.len() + 4;
        self.resize(data + room, 0);
        let len = read(&mut self[data..])?;
        self.truncate(data + len);
        self[data - 4..data].copy_from_slice(&(len as u32).to_le_bytes());
        Ok(())
    }

    fn put_entries<'a>(&mut self, room: usize, entries: impl Iterator<Item = Listed<'a>>) {
        let start = self.len() + 4;
        self.put_u32(0);
        for Listed { qid, cookie, kind, name } in entries {
            if self.len() - start + ENTRY + name.len() > room {
                break;
            }
            self.put_qid(qid);
            self.put_u64(cookie);
            self.put_u8(kind);
            self.put_string(name);
        }
        let len = (self.len() - start) as u32;
        self[start - 4..start].copy_from_slice(&len.to_le_bytes());
    }
}

/// Begins a message: leaves room for the header.
pub fn start(message: &mut Vec<u8>) {
    message.clear();
    message.resize(HEADER, 0);
}

/// Ends a message: fills in the header.
pub fn finish(message: &mut [u8], kind: u8, tag: u16) {
    let size = message.len() as u32;
    if let Some(header) = message.first_chunk_mut::<HEADER>() {
        header[..4].copy_from_slice(&size.to_le_bytes());
        header[4] = kind;
        header[5..].copy_from_slice(&tag.to_le_bytes());
    }
}

/// Makes a message say that something failed.
pub fn fail(message: &mut Vec<u8>, tag: u16, errno: Errno) {
    start(message);
    message.put_u32(errno.0);
    finish(message, RLERROR, tag);
}
