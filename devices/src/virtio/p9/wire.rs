//! 9P2000.L on the wire: numbers, and how messages are taken apart and put together.
//!
//! A message is size 4 (its own bytes included), type 1, tag 2, and fields; integers are
//! little-endian, a string is its length in 2 bytes and its bytes.

use crate::fs::{Errno, FsResult, Timestamp};

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
