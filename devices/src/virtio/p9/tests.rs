//! The server driven by messages as a client sends them, and the device by a driver's rings.

use super::super::testing::Driver;
use super::super::{BAR_COMMON, BAR_NOTIFY, STATUS_DRIVER_OK, STATUS_NEEDS_RESET};
use super::server::{Fid, FidKind};
use super::wire::DEFAULT_MSIZE;
use super::wire::{RLERROR, Reader, Writer, request::*};
use super::*;
use crate::fs::{BlobError, Fetched, NoBlobs, ROOT};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const NOW: Timestamp = Timestamp { secs: 1_700_000_000, nanos: 123_456_789 };
const TAG: u16 = 0x1234;

/// A request's fields.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u8(mut self, value: u8) -> Self {
        self.0.put_u8(value);
        self
    }
    fn u16(mut self, value: u16) -> Self {
        self.0.put_u16(value);
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.put_u32(value);
        self
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.put_u64(value);
        self
    }
    fn s(mut self, value: &str) -> Self {
        self.0.put_string(value.as_bytes());
        self
    }
    fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }
    fn message(&self, kind: u8, tag: u16) -> Vec<u8> {
        let mut message = Vec::new();
        wire::start(&mut message);
        message.extend(&self.0);
        wire::finish(&mut message, kind, tag);
        message
    }
}

fn f(fid: u32) -> Fields {
    Fields::default().u32(fid)
}

/// A client: what it sends is bytes, what it gets is the fields of the answer or the error number.
struct Client(Server);

impl Client {
    fn new() -> Self {
        Self::on(Filesystem::default(), Box::new(NoBlobs))
    }

    /// A session with the root as fid 0, owned by user 7.
    fn on(fs: Filesystem, store: Box<dyn BlobStore>) -> Self {
        let mut client = Self(Server::new(fs, store));
        client.call(VERSION, f(65536).s("9P2000.L")).unwrap();
        client.call(ATTACH, f(0).u32(u32::MAX).s("").s("").u32(7)).unwrap();
        client
    }

    fn call(&mut self, kind: u8, fields: Fields) -> Result<Vec<u8>, u32> {
        let (message, mut reply) = (fields.message(kind, TAG), Vec::new());
        let mut questions = 0..100;
        while self.0.handle(&message, 1 << 20, NOW, &mut reply) == Outcome::Pending {
            assert!(questions.next().is_some(), "it never comes");
        }
        let mut reader = Reader::new(&reply);
        assert_eq!(reader.u32(), Ok(reply.len() as u32));
        let answer = reader.u8().unwrap();
        assert_eq!(reader.u16(), Ok(TAG));
        if answer == RLERROR {
            assert_eq!(reply.len(), wire::RLERROR_SIZE);
            return Err(reader.u32().unwrap());
        }
        assert_eq!(answer, kind + 1);
        Ok(reply[wire::HEADER..].to_vec())
    }

    fn walk(&mut self, fid: u32, new: u32, path: &str) -> Result<usize, u32> {
        let names: Vec<_> = path.split('/').filter(|n| !n.is_empty()).collect();
        let fields = f(fid).u32(new).u16(names.len() as u16);
        let fields = names.iter().fold(fields, |fields, name| fields.s(name));
        let reply = self.call(WALK, fields)?;
        let count = usize::from(u16::from_le_bytes([reply[0], reply[1]]));
        assert_eq!(reply.len(), 2 + 13 * count);
        Ok(count)
    }

    fn create(&mut self, fid: u32, dir: u32, name: &str, flags: u32) -> Result<Vec<u8>, u32> {
        self.walk(dir, fid, "").unwrap();
        self.call(LCREATE, f(fid).s(name).u32(flags).u32(0o100_644).u32(5))
    }

    fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<Vec<u8>, u32> {
        self.call(WRITE, f(fid).u64(offset).u32(data.len() as u32).bytes(data))
    }

    fn read(&mut self, fid: u32, offset: u64, count: u32) -> Result<Vec<u8>, u32> {
        let reply = self.call(READ, f(fid).u64(offset).u32(count))?;
        assert_eq!(u32::from_le_bytes(*reply.first_chunk().unwrap()) as usize, reply.len() - 4);
        Ok(reply[4..].to_vec())
    }

    fn stat(&mut self, fid: u32) -> Result<Stat, u32> {
        let reply = self.call(GETATTR, f(fid).u64(0x3fff))?;
        assert_eq!(reply.len(), 8 + 13 + 3 * 4 + 5 * 8 + 4 * 16 + 2 * 8);
        let mut r = Reader::new(&reply[8..]);
        let qid = r.bytes(13).unwrap().to_vec();
        let mut next = || r.u32().unwrap();
        let (mode, uid, gid) = (next(), next(), next());
        let mut next = || r.u64().unwrap();
        let (nlink, rdev, size) = (next(), next(), next());
        next();
        next();
        let (atime, mtime, ctime) = (r.time().unwrap(), r.time().unwrap(), r.time().unwrap());
        Ok(Stat { qid, mode, uid, gid, nlink, rdev, size, atime, mtime, ctime })
    }

    /// Names from a position on, and the position after them.
    fn list(&mut self, fid: u32, offset: u64, count: u32) -> (Vec<(String, u8)>, u64) {
        let reply = self.call(READDIR, f(fid).u64(offset).u32(count)).unwrap();
        assert!(reply.len() - 4 <= count as usize);
        let mut reader = Reader::new(&reply[4..]);
        let (mut names, mut last) = (Vec::new(), offset);
        while let Ok(qid) = reader.bytes(13) {
            assert_eq!(qid.len(), 13);
            last = reader.u64().unwrap();
            let kind = reader.u8().unwrap();
            names.push((String::from_utf8(reader.string().unwrap().to_vec()).unwrap(), kind));
        }
        (names, last)
    }
}

#[derive(Debug)]
struct Stat {
    qid: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u64,
    rdev: u64,
    size: u64,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
}

fn errno<T>(errno: Errno) -> Result<T, u32> {
    Err(errno.0)
}

#[test]
fn sessions_are_negotiated() {
    let mut client = Client::new();
    let mut version = |msize, version| client.call(VERSION, f(msize).s(version));
    assert_eq!(version(8192, "9P2000.L"), Ok(f(8192).s("9P2000.L").0));
    assert_eq!(version(u32::MAX, "9P2000.L"), Ok(f(MAX_MSIZE).s("9P2000.L").0));
    assert_eq!(version(8192, "9P2000.u"), Ok(f(8192).s("unknown").0));
    assert_eq!(version(100, "9P2000.L"), errno(Errno::EMSGSIZE));
    assert!(client.0.fids().is_empty());
    assert_eq!(client.stat(0).map(|_| ()), errno(Errno::EBADF));
    assert_eq!(client.call(ATTACH, f(0).u32(0).s("").s("/no").u32(0)), errno(Errno::ENOENT));
    let root = client.call(ATTACH, f(0).u32(0).s("").s("/").u32(0)).unwrap();
    assert_eq!(root[0], 0x40);
    assert_eq!(client.call(99, f(0)), errno(Errno::EOPNOTSUPP));
    assert_eq!(client.call(FLUSH, Fields::default().u16(3)), Ok(vec![]));
}

#[test]
fn files_are_written_and_read() {
    let mut client = Client::new();
    let opened = client.create(1, 0, "file", 0o2).unwrap();
    assert_eq!(opened[0], 0x80);
    assert_eq!(opened[13..], (65536u32 - 24).to_le_bytes());
    assert_eq!(client.write(1, 0, b"hello world"), Ok(vec![11, 0, 0, 0]));
    assert_eq!(client.write(1, 20, b"!"), Ok(vec![1, 0, 0, 0]));
    assert_eq!(client.read(1, 6, 100), Ok(b"world\0\0\0\0\0\0\0\0\0!".to_vec()));
    assert_eq!(client.read(1, 21, 100), Ok(vec![]));
    assert_eq!(client.read(1, u64::MAX, 100), Ok(vec![]));
    assert_eq!(client.write(1, u64::MAX, b"x"), errno(Errno::EFBIG));
    let stat = client.stat(1).unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid, stat.nlink, stat.size), (0o100_644, 7, 5, 1, 21));
    assert_eq!((stat.mtime, stat.ctime, stat.atime), (NOW, NOW, NOW));
    assert_eq!(stat.qid, opened[..13]);

    assert_eq!(client.create(2, 0, "file", 0o302), errno(Errno::EEXIST), "O_EXCL");
    client.create(2, 0, "file", 0o2).unwrap();
    assert_eq!(client.read(2, 0, 5), Ok(b"hello".to_vec()));
    client.walk(0, 3, "file").unwrap();
    assert_eq!(client.call(LOPEN, f(3).u32(0o200_000)), errno(Errno::ENOTDIR));
    assert_eq!(client.call(LOPEN, f(3).u32(0o1001)).unwrap()[..13], opened[..13]);
    assert_eq!(client.stat(1).unwrap().size, 0, "O_TRUNC");
    assert_eq!(client.call(FSYNC, f(3).u32(0)), Ok(vec![]));
    assert_eq!(client.call(CLUNK, f(3)), Ok(vec![]));
    assert_eq!(client.call(CLUNK, f(3)), errno(Errno::EBADF));
    assert_eq!(client.read(0, 0, 1), errno(Errno::EISDIR));
    assert_eq!(client.call(LOPEN, f(0).u32(1)), errno(Errno::EISDIR));
    assert_eq!(client.create(4, 0, "a/b", 0), errno(Errno::EINVAL));
    assert_eq!(client.create(4, 0, "..", 0), errno(Errno::EISDIR));
}

#[test]
fn replies_stay_within_the_message_size() {
    let mut client = Client::new();
    client.create(1, 0, "file", 2).unwrap();
    client.write(1, 0, &[7; 60000]).unwrap();
    assert_eq!(client.read(1, 0, u32::MAX).map(|d| d.len()), Ok(60000));
    let mut reply = Vec::new();
    client.0.handle(&f(1).u64(0).u32(u32::MAX).message(READ, 1), 5000, NOW, &mut reply);
    assert_eq!(reply.len(), 5000, "as the guest has room for");
    client.0.handle(&f(1).u64(0).message(GETATTR, 1), 100, NOW, &mut reply);
    assert_eq!((reply.len(), reply[4]), (wire::RLERROR_SIZE, RLERROR));
    client.0.handle(&f(1).u64(0).message(GETATTR, 1), 10, NOW, &mut reply);
    assert!(reply.is_empty());
    assert_eq!(client.write(1, 0, &[0; 65536]), errno(Errno::EMSGSIZE));
    client.call(VERSION, f(4096).s("9P2000.L")).unwrap();
    client.call(ATTACH, f(0).u32(0).s("").s("").u32(0)).unwrap();
    client.walk(0, 1, "file").unwrap();
    assert_eq!(client.read(1, 0, 60000).map(|d| d.len()), Ok(4096 - 11));
}

#[test]
fn walks() {
    let mut client = Client::new();
    client.call(MKDIR, f(0).s("a").u32(0o755).u32(0)).unwrap();
    assert_eq!(client.walk(0, 1, "a"), Ok(1));
    client.call(MKDIR, f(1).s("b").u32(0o755).u32(0)).unwrap();
    client.create(2, 1, "f", 2).unwrap();
    assert_eq!(client.walk(0, 3, "a/b/../../../a/f"), Ok(7));
    assert_eq!(client.stat(3).unwrap().qid, client.stat(2).unwrap().qid);
    assert_eq!(client.walk(0, 4, "a/x/y"), Ok(1), "as far as it went");
    assert_eq!(client.stat(4).map(|_| ()), errno(Errno::EBADF));
    assert_eq!(client.walk(0, 4, "x"), errno(Errno::ENOENT));
    assert_eq!(client.walk(3, 4, "x"), errno(Errno::ENOTDIR));
    assert_eq!(client.walk(9, 4, ""), errno(Errno::EBADF));
    assert_eq!(client.walk(0, 4, &"x/".repeat(17)), errno(Errno::EINVAL));
    assert_eq!(client.walk(0, 4, &"x".repeat(300)), errno(Errno::ENAMETOOLONG));
    assert_eq!(client.walk(3, 3, ""), Ok(0));
    assert_eq!(client.walk(0, 3, "a"), Ok(1), "a fid in use gets another meaning");
    assert_eq!(client.stat(3).unwrap().mode, 0o40755);
}

#[test]
fn links_of_all_kinds() {
    let mut client = Client::new();
    client.create(1, 0, "file", 2).unwrap();
    assert_eq!(client.call(LINK, f(0).u32(1).s("hard")), Ok(vec![]));
    assert_eq!(client.call(LINK, f(0).u32(1).s("hard")), errno(Errno::EEXIST));
    assert_eq!(client.call(LINK, f(0).u32(0).s("dir")), errno(Errno::EPERM));
    client.walk(0, 2, "hard").unwrap();
    assert_eq!(
        (client.stat(2).unwrap().nlink, client.stat(2).unwrap().qid),
        (2, client.stat(1).unwrap().qid)
    );
    assert_eq!(client.call(SYMLINK, f(0).s("soft").s("../target").u32(3)).unwrap()[0], 0xa0);
    client.walk(0, 3, "soft").unwrap();
    assert_eq!(client.call(READLINK, f(3)), Ok(Fields::default().s("../target").0));
    assert_eq!((client.stat(3).unwrap().mode, client.stat(3).unwrap().size), (0o120_777, 9));
    assert_eq!(client.call(READLINK, f(1)), errno(Errno::EINVAL));
    let long = "x".repeat(4096);
    assert_eq!(client.call(SYMLINK, f(0).s("long").s(&long).u32(3)), errno(Errno::ENAMETOOLONG));
}

#[test]
fn nodes() {
    let mut client = Client::new();
    let mut node = |name: &str, mode, major, minor| {
        client.call(MKNOD, f(0).s(name).u32(mode).u32(major).u32(minor).u32(9))?;
        client.walk(0, 1, name)?;
        client.stat(1).map(|s| (s.mode, s.rdev, s.gid))
    };
    assert_eq!(node("null", 0o020_666, 1, 3), Ok((0o020_666, 0x103, 9)));
    assert_eq!(node("big", 0o060_600, 259, 0x12345), Ok((0o060_600, 0x1231_0345, 9)));
    assert_eq!(node("pipe", 0o010_600, 0, 0), Ok((0o010_600, 0, 9)));
    assert_eq!(node("sock", 0o140_600, 0, 0), Ok((0o140_600, 0, 9)));
    assert_eq!(node("file", 0o600, 0, 0), Ok((0o100_600, 0, 9)));
    assert_eq!(node("dir", 0o040_600, 0, 0), errno(Errno::EINVAL));
    assert_eq!(client.read(1, 0, 1), Ok(vec![]));
    client.walk(0, 1, "pipe").unwrap();
    assert_eq!(client.read(1, 0, 1), errno(Errno::EINVAL));
    assert_eq!(client.write(1, 0, b"x"), errno(Errno::EINVAL));
}

#[test]
fn attributes() {
    let mut client = Client::new();
    client.create(1, 0, "file", 2).unwrap();
    client.write(1, 0, b"content").unwrap();
    let mut set = |valid: u32, mode: u32, size: u64, secs: u64| {
        let fields = f(1).u32(valid).u32(mode).u32(11).u32(12).u64(size);
        client.call(SETATTR, fields.u64(secs).u64(1).u64(secs + 1).u64(2))?;
        client.stat(1)
    };
    let stat = set(1, 0o104_755, 0, 0).unwrap();
    assert_eq!((stat.mode, stat.uid, stat.size), (0o104_755, 7, 7));
    let stat = set(2 | 4 | 8, 0, 3, 0).unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid, stat.size), (0o104_755, 11, 12, 3));
    let stat = set(0x10 | 0x20 | 0x80 | 0x100, 0, 0, 55).unwrap();
    assert_eq!(stat.atime, Timestamp { secs: 55, nanos: 1 });
    assert_eq!((stat.mtime, stat.ctime), (Timestamp { secs: 56, nanos: 2 }, NOW));
    assert_eq!(set(0x10 | 0x20, 0, 0, 55).unwrap().mtime, NOW);
    assert_eq!(set(8, 0, u64::MAX, 0).map(|_| ()), errno(Errno::EFBIG));
    assert_eq!(set(8, 0, 1 << 40, 0).unwrap().size, 1 << 40);
    assert_eq!(client.read(1, (1 << 40) - 2, 9), Ok(vec![0, 0]));
    let reply = client.call(STATFS, f(0)).unwrap();
    assert_eq!(reply.len(), 4 + 4 + 6 * 8 + 4);
    assert_eq!(reply[..8], f(0x0102_1997).u32(8192).0);
}

#[test]
fn renames() {
    let mut client = Client::new();
    for name in ["a", "b"] {
        client.call(MKDIR, f(0).s(name).u32(0o755).u32(0)).unwrap();
    }
    client.walk(0, 1, "a").unwrap();
    client.walk(0, 2, "b").unwrap();
    client.create(3, 1, "f", 2).unwrap();
    client.write(3, 0, b"moved").unwrap();
    client.create(4, 2, "g", 2).unwrap();
    client.write(4, 0, b"replaced").unwrap();
    assert_eq!(client.call(RENAMEAT, f(1).s("f").u32(2).s("g")), Ok(vec![]));
    assert_eq!(client.read(4, 0, 99), Ok(b"replaced".to_vec()), "still open");
    assert_eq!(client.stat(4).unwrap().nlink, 0);
    client.walk(2, 5, "g").unwrap();
    assert_eq!(client.read(5, 0, 99), Ok(b"moved".to_vec()));
    assert_eq!(client.call(RENAMEAT, f(1).s("f").u32(2).s("g")), errno(Errno::ENOENT));
    assert_eq!(client.call(RENAMEAT, f(0).s("b").u32(2).s("g")), errno(Errno::EINVAL));

    assert_eq!(client.call(RENAME, f(5).u32(0).s("h")), Ok(vec![]));
    assert_eq!(client.walk(0, 6, "h"), Ok(1));
    assert_eq!(client.call(RENAME, f(3).u32(1).s("i")), Ok(vec![]), "its old name is stale");
    assert_eq!(client.walk(0, 6, "a/i"), Ok(2));
    assert_eq!(client.call(RENAME, f(4).u32(1).s("j")), errno(Errno::ENOENT), "it has no name");
    assert_eq!(client.call(RENAME, f(0).u32(1).s("root")), errno(Errno::ENOENT));
}

#[test]
fn removals() {
    let mut client = Client::new();
    client.call(MKDIR, f(0).s("d").u32(0o755).u32(0)).unwrap();
    client.walk(0, 1, "d").unwrap();
    client.create(2, 1, "f", 2).unwrap();
    let mut unlink = |fid, name: &str, flags| client.call(UNLINKAT, f(fid).s(name).u32(flags));
    assert_eq!(unlink(0, "d", 0), errno(Errno::EISDIR));
    assert_eq!(unlink(0, "d", 0x200), errno(Errno::ENOTEMPTY));
    assert_eq!(unlink(1, "f", 0x200), errno(Errno::ENOTDIR));
    assert_eq!(unlink(1, "f", 0), Ok(vec![]));
    assert_eq!(unlink(1, "f", 0), errno(Errno::ENOENT));
    assert_eq!(unlink(1, "..", 0x200), errno(Errno::EINVAL));
    assert_eq!(unlink(0, "d", 0x200), Ok(vec![]));
    client.write(2, 0, b"open").unwrap();
    assert_eq!(client.read(2, 0, 9), Ok(b"open".to_vec()));
    let held = client.stat(2).unwrap().qid;
    let younger = client.create(3, 0, "f", 2).unwrap();
    assert_ne!(held, younger[..13], "two files that live must not be one to the guest");
    assert_eq!(client.stat(2).unwrap().qid, held);
    client.call(REMOVE, f(3)).unwrap();
    assert_eq!(client.create(3, 1, "x", 2), errno(Errno::ENOENT));
    assert_eq!(client.list(1, 0, 4000).0.len(), 2);
    let before = client.0.fs.count();
    client.call(CLUNK, f(2)).unwrap();
    assert_eq!(client.0.fs.count(), before - 1);

    client.create(4, 0, "g", 2).unwrap();
    assert_eq!(client.call(REMOVE, f(4)), Ok(vec![]));
    assert_eq!(client.stat(4).map(|_| ()), errno(Errno::EBADF));
    assert_eq!(client.call(REMOVE, f(0)), errno(Errno::EBUSY));
    assert!(client.0.fids().get(&0).is_none());
}

#[test]
fn ten_thousand_files_are_listed_and_removed() {
    let mut client = Client::new();
    for i in 0..10_000 {
        client.create(1, 0, &format!("file{i}"), 2).unwrap();
    }
    let first = client.list(0, 0, 200).0;
    assert_eq!(first[..3], [(".".into(), 4), ("..".into(), 4), ("file0".into(), 8)]);
    assert_eq!(client.list(0, 0, 30).0, [(".".to_owned(), 4)]);
    assert_eq!(client.list(0, 1, 30).0, [("..".to_owned(), 4)]);
    // As rm -r does: what a listing gives is removed before the next part is asked for.
    let (mut removed, mut offset) = (0, 0);
    loop {
        let (names, next) = client.list(0, offset, 8000);
        if names.is_empty() {
            break;
        }
        for (name, _) in names.iter().filter(|(n, _)| !n.starts_with('.')) {
            client.call(UNLINKAT, f(0).s(name).u32(0)).unwrap();
            removed += 1;
        }
        offset = next;
    }
    assert_eq!(removed, 10_000);
    client.call(CLUNK, f(1)).unwrap();
    assert_eq!(client.0.fs.count(), 1);
}

#[test]
fn locks() {
    let mut client = Client::new();
    client.create(1, 0, "file", 2).unwrap();
    let mut lock = |kind: u8, start: u64, length: u64, proc_id: u32, host: &str| {
        client.call(LOCK, f(1).u8(kind).u32(1).u64(start).u64(length).u32(proc_id).s(host))
    };
    assert_eq!(lock(1, 0, 10, 1, "a"), Ok(vec![0]));
    assert_eq!(lock(1, 0, 0, 2, "a"), Ok(vec![0]), "the client's own kernel has decided");
    assert_eq!(lock(0, 5, 1, 1, "b"), Ok(vec![1]));
    assert_eq!(lock(7, 5, 1, 1, "b"), errno(Errno::EINVAL));
    let mut get = |kind: u8, host: &str| client.call(GETLOCK, f(1).u8(kind).u64(3).u64(1).u32(9).s(host));
    assert_eq!(get(1, "a"), Ok(Fields::default().u8(2).u64(3).u64(1).u32(9).s("a").0));
    assert_eq!(get(0, "b"), Ok(Fields::default().u8(1).u64(0).u64(10).u32(1).s("a").0));
    client.call(VERSION, f(8192).s("9P2000.L")).unwrap();
    assert!(client.0.fs.inodes().iter().flatten().all(|i| i.locks.is_empty()));
}

#[test]
fn extended_attributes_are_absent() {
    let mut client = Client::new();
    assert_eq!(client.call(XATTRWALK, f(0).u32(1).s("security.capability")), errno(Errno::ENODATA));
    assert_eq!(client.call(XATTRWALK, f(0).u32(1).s("")), Ok(vec![0; 8]));
    assert_eq!(client.read(1, 0, 100), Ok(vec![]));
    assert_eq!(client.stat(1).map(|_| ()), errno(Errno::EBADF));
    assert_eq!(client.walk(1, 2, ""), errno(Errno::EBADF));
    assert_eq!(client.call(CLUNK, f(1)), Ok(vec![]));
    assert_eq!(client.call(XATTRCREATE, f(0).s("user.x").u64(1).u32(0)), errno(Errno::EOPNOTSUPP));
}

/// Contents that come when they are let, and may be broken.
#[derive(Clone)]
struct Slow {
    ready: Arc<AtomicBool>,
    blobs: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Slow {
    fn new(blob: &str, content: &[u8]) -> Self {
        let blobs = BTreeMap::from([(blob.to_owned(), content.to_vec())]);
        Self { ready: Arc::new(true.into()), blobs: Arc::new(blobs.into()) }
    }
}

impl BlobStore for Slow {
    fn read(&mut self, blob: &str, offset: u64, buf: &mut [u8]) -> Result<Fetched, BlobError> {
        if !self.ready.load(Ordering::Relaxed) {
            return Ok(Fetched::Pending);
        }
        self.blobs.lock().unwrap().read(blob, offset, buf)
    }
}

/// Contents that come when they have been asked for as often as chance says.
struct Late {
    blobs: BTreeMap<String, Vec<u8>>,
    random: Random,
    asked: BTreeMap<(u64, usize), u32>,
}

impl BlobStore for Late {
    fn read(&mut self, blob: &str, offset: u64, buf: &mut [u8]) -> Result<Fetched, BlobError> {
        let left = self.asked.entry((offset, buf.len())).or_insert_with(|| self.random.next(4));
        if *left > 0 {
            *left -= 1;
            return Ok(Fetched::Pending);
        }
        self.blobs.read(blob, offset, buf)
    }
}

fn image() -> Filesystem {
    Filesystem::from_json(
        br#"{"fsroot":[["base",100000,5,33188,1,2,"blob"],["lost",1,5,33188,1,2,"none"],
            ["short",200000,5,33188,1,2,"blob"]],"size":9,"version":3}"#,
    )
    .unwrap()
}

#[test]
fn the_image_is_copied_on_write() {
    let content: Vec<u8> = (0..100_000u32).map(|i| (i % 253) as u8).collect();
    let store = Slow::new("blob", &content);
    let mut client = Client::on(image(), Box::new(store.clone()));
    client.walk(0, 1, "base").unwrap();
    assert_eq!(client.read(1, 90_000, 20_000), Ok(content[90_000..].to_vec()));
    client.write(1, 99_999, b"xyz").unwrap();
    client.write(1, 3, b"abc").unwrap();
    let mut expected = content.clone();
    expected[99_999..].copy_from_slice(b"x");
    expected.extend(b"yz");
    expected[3..6].copy_from_slice(b"abc");
    assert_eq!(client.read(1, 0, 60_000), Ok(expected[..60_000].to_vec()));
    assert_eq!(client.read(1, 60_000, 60_000), Ok(expected[60_000..].to_vec()));
    assert_eq!(store.blobs.lock().unwrap()["blob"], content);
    client.walk(0, 2, "lost").unwrap();
    assert_eq!(client.read(2, 0, 1), errno(Errno::EIO));
    client.walk(0, 2, "short").unwrap();
    assert_eq!(client.read(2, 99_990, 100), errno(Errno::EIO));
}

#[test]
fn contents_that_come_late_are_the_same() {
    for seed in 1..=20 {
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 253) as u8).collect();
        let (blobs, asked) = (BTreeMap::from([("blob".to_owned(), content.clone())]), BTreeMap::new());
        let mut client = Client::on(image(), Box::new(Late { blobs, random: Random(seed), asked }));
        let mut random = Random(seed);
        client.walk(0, 1, "base").unwrap();
        let mut expected = content;
        for round in 0..40u8 {
            let (at, len) = (random.next(100_000) as usize, random.next(60_000) as usize);
            let end = (at + len).min(expected.len());
            if round % 2 == 0 {
                client.write(1, at as u64, &vec![round; end - at]).unwrap();
                expected[at..end].fill(round);
            } else {
                assert!(client.read(1, at as u64, len as u32) == Ok(expected[at..end].to_vec()));
            }
        }
    }
}

#[test]
fn a_restored_session_goes_on() {
    let mut client = Client::new();
    client.create(1, 0, "file", 2).unwrap();
    client.write(1, 0, b"text").unwrap();
    client.create(2, 0, "unlinked", 2).unwrap();
    client.call(UNLINKAT, f(0).s("unlinked").u32(0)).unwrap();
    let fs = Filesystem::from_inodes(client.0.fs.inodes().to_vec(), client.0.fs.last_qid).unwrap();
    let mut fids = client.0.fids().clone();
    fids.remove(&2);
    fids.insert(9, Fid { ino: 99, kind: FidKind::Inode, uid: 0, name: None });
    let mut other = Client(Server::new(Filesystem::default(), Box::new(NoBlobs)));
    other.0.restore(fs, client.0.msize(), fids);
    assert_eq!((other.0.fs.count(), other.read(1, 0, 9)), (2, Ok(b"text".to_vec())));
    other.call(UNLINKAT, f(0).s("file").u32(0)).unwrap();
    assert_eq!(other.read(1, 0, 9), Ok(b"text".to_vec()));
    assert_eq!(other.0.fids().len(), 2);
    other.0.restore(Filesystem::default(), 0, BTreeMap::new());
    assert!((4096..=DEFAULT_MSIZE).contains(&other.0.msize()));
}

/// A guest's driver: requests at 40000h, replies at 80000h, each descriptor pair its own 8 KiB.
struct Guest {
    mem: Box<Memory>,
    device: Virtio9p,
    driver: Driver,
}

const NEXT: u16 = 1;
const WRITE_ONLY: u16 = 2;

impl Guest {
    fn new(device: Virtio9p) -> Self {
        let mut guest = Self { mem: Memory::new(2 << 20).unwrap(), device, driver: Driver::new(0x1000, 32) };
        guest.set_up();
        guest
    }

    fn set_up(&mut self) {
        self.driver = Driver::new(0x1000, 32);
        self.mem.write(0x1000, &[0; 0x1000]);
        let mut write = |offset, width, value| {
            self.device.port_write(&mut self.mem, BAR_COMMON, offset, width, value, 0);
        };
        write(20, Width::Byte, 0);
        for (offset, addr) in [(32, self.driver.desc), (40, self.driver.avail), (48, self.driver.used)] {
            write(offset, Width::Dword, addr);
        }
        write(28, Width::Word, 1);
        write(20, Width::Byte, (STATUS_DRIVER_OK | 11).into());
    }

    fn send(&mut self, slot: u16, message: &[u8]) {
        let (request, reply) = (0x4_0000 + 0x2000 * u32::from(slot), 0x8_0000 + 0x2000 * u32::from(slot));
        self.mem.write(request, message);
        let first = 2 * slot;
        let len = message.len() as u32;
        self.driver.descriptor(&mut self.mem, first, request.into(), len, NEXT, first + 1);
        self.driver.descriptor(&mut self.mem, first + 1, reply.into(), 0x2000, WRITE_ONLY, 0);
        self.driver.offer(&mut self.mem, first);
        self.notify();
    }

    fn notify(&mut self) {
        self.device.port_write(&mut self.mem, BAR_NOTIFY, 0, Width::Word, 0, 5_000_000_007);
    }

    /// The slot and the message of the next reply.
    fn reply(&mut self) -> Option<(u16, Vec<u8>)> {
        let (head, len) = self.driver.taken(&self.mem)?;
        let slot = head as u16 / 2;
        let mut bytes = vec![0; len as usize];
        self.mem.read(0x8_0000 + 0x2000 * u32::from(slot), &mut bytes);
        Some((slot, bytes))
    }
}

#[test]
fn messages_go_through_the_queue() {
    let mut guest = Guest::new(Virtio9p::new(image(), Box::new(NoBlobs)));
    assert_eq!(guest.device.port_read(BAR_DEVICE, 0, Width::Word), 6);
    assert_eq!(guest.device.port_read(BAR_DEVICE, 2, Width::Dword).to_le_bytes(), *b"host");
    guest.send(0, &f(8192).s("9P2000.L").message(VERSION, 0xffff));
    assert!(guest.device.irq());
    assert_eq!(guest.reply(), Some((0, f(8192).s("9P2000.L").message(VERSION + 1, 0xffff))));
    guest.send(3, &f(0).u32(0).s("").s("").u32(0).message(ATTACH, 1));
    assert_eq!(guest.reply().map(|(slot, m)| (slot, m[4])), Some((3, ATTACH + 1)));
    guest.send(4, &f(0).s("d").u32(0o755).u32(0).message(MKDIR, 1));
    assert_eq!(guest.reply().map(|(slot, m)| (slot, m[4])), Some((4, MKDIR + 1)));
    let root = guest.device.server.fs.inode(ROOT).unwrap();
    assert_eq!(root.mtime, Timestamp { secs: 5, nanos: 7 });
    guest.send(5, b"short");
    assert_eq!(guest.reply(), Some((5, vec![])));
    assert_eq!(guest.device.port_read(super::super::BAR_ISR, 0, Width::Byte), 1);
    assert!(!guest.device.irq());
    guest.device.port_write(&mut guest.mem, BAR_COMMON, 20, Width::Byte, 0, 0);
    assert!(guest.device.server.fids().is_empty());
}

#[test]
fn requests_wait_for_the_image() {
    let store = Slow::new("blob", &[7; 100_000]);
    store.ready.store(false, Ordering::Relaxed);
    let mut guest = Guest::new(Virtio9p::new(image(), Box::new(store.clone())));
    guest.send(0, &f(0).u32(0).s("").s("").u32(0).message(ATTACH, 1));
    guest.send(0, &f(0).u32(1).u16(1).s("base").message(WALK, 1));
    assert!(guest.reply().is_some() && guest.reply().is_some());
    guest.send(1, &f(1).u64(0).u32(4).message(READ, 11));
    guest.send(2, &f(1).u64(8).u32(2).bytes(b"ab").message(WRITE, 12));
    guest.send(3, &f(1).u64(0).u32(8).message(READ, 13));
    guest.send(4, &f(1).u64(0).message(GETATTR, 14));
    assert_eq!(guest.reply().map(|(slot, _)| slot), Some(4), "others pass");
    assert_eq!((guest.reply(), guest.device.held.len()), (None, 3));
    guest.device.poll(&mut guest.mem, 0);
    assert_eq!(guest.reply(), None);
    guest.send(5, &Fields::default().u16(13).message(FLUSH, 15));
    assert_eq!(guest.reply(), Some((3, f(Errno::EINTR.0).message(RLERROR, 13))));
    assert_eq!(guest.reply(), Some((5, Fields::default().message(FLUSH + 1, 15))));
    store.ready.store(true, Ordering::Relaxed);
    guest.device.poll(&mut guest.mem, 0);
    assert_eq!(guest.reply(), Some((1, f(4).bytes(&[7; 4]).message(READ + 1, 11))));
    assert_eq!(guest.reply(), Some((2, f(2).message(WRITE + 1, 12))));
    assert!(guest.device.held.is_empty());
    guest.send(6, &f(1).u64(7).u32(4).message(READ, 16));
    assert_eq!(guest.reply(), Some((6, f(4).bytes(b"\x07ab\x07").message(READ + 1, 16))));
}

/// Small random numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32 % below
    }

    fn number(&mut self) -> u32 {
        match self.next(4) {
            0 => self.next(8),
            1 => u32::MAX - self.next(8),
            2 => 1 << self.next(32),
            _ => self.next(u32::MAX),
        }
    }

    /// A field: `f` a fid, `s` a name, `d` data, and integers of bytes, half-words, words and quads.
    fn field(&mut self, fields: Fields, kind: char) -> Fields {
        match kind {
            'f' if self.next(20) > 0 => fields.u32(self.next(6)),
            's' => fields.s(["a", "b", "c", "base", "..", "", ".", "lost"][self.next(10) as usize % 8]),
            'd' => {
                let count = self.next(100);
                fields.u32(count).bytes(&vec![count as u8; count as usize])
            }
            'b' => fields.u8(self.next(4) as u8),
            'h' => fields.u16(self.next(3) as u16),
            'q' => fields.u64(u64::from(self.number()) << self.next(33)),
            _ => fields.u32(self.number()),
        }
    }

    /// A request whose fields are mostly those of its type.
    fn request(&mut self) -> (u8, Fields) {
        const FIELDS: [(u8, &str); 34] = [
            (STATFS, "f"),
            (LOPEN, "fw"),
            (LCREATE, "fswww"),
            (LCREATE, "fsbww"),
            (SYMLINK, "fssw"),
            (MKNOD, "fswwww"),
            (RENAME, "ffs"),
            (RENAME, "ffs"),
            (READLINK, "f"),
            (GETATTR, "fq"),
            (SETATTR, "fwwwwqqqqq"),
            (XATTRWALK, "ffs"),
            (READDIR, "fqw"),
            (LOCK, "fbwqqws"),
            (GETLOCK, "fbqqws"),
            (LINK, "ffs"),
            (LINK, "ffs"),
            (MKDIR, "fsww"),
            (MKDIR, "fsww"),
            (RENAMEAT, "fsfs"),
            (RENAMEAT, "fsfs"),
            (RENAMEAT, "fsfs"),
            (UNLINKAT, "fsw"),
            (ATTACH, "ffssw"),
            (WALK, "ffhss"),
            (WALK, "ffhss"),
            (WALK, "ffhss"),
            (WALK, "ffhss"),
            (READ, "fqw"),
            (WRITE, "fqd"),
            (WRITE, "fwwd"),
            (CLUNK, "f"),
            (REMOVE, "f"),
            (FLUSH, "h"),
        ];
        let (mut kind, mut form) = FIELDS[self.next(34) as usize];
        if self.next(50) == 0 {
            kind = self.next(256) as u8;
        }
        if self.next(50) == 0 {
            form = FIELDS[self.next(34) as usize].1;
        }
        (kind, form.chars().fold(Fields::default(), |fields, c| self.field(fields, c)))
    }
}

#[test]
fn hostile_messages() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut client = Client::on(image(), Box::new(Slow::new("blob", &[7; 100_000])));
    client.0.fs.memory_limit = 4 << 20;
    let mut reply = Vec::new();
    let mut done = 0;
    for round in 0..200_000 {
        if round % 64 == 0 {
            client.call(ATTACH, f(0).u32(0).s("").s("").u32(0)).unwrap();
        }
        let (kind, fields) = random.request();
        let mut message = fields.message(kind, TAG);
        if random.next(30) == 0 {
            let at = random.next(message.len() as u32) as usize;
            message[at] = random.next(256) as u8;
        }
        message.truncate(message.len() - (random.next(20) == 0) as usize);
        let capacity = if random.next(10) == 0 { random.next(300) as usize } else { 1 << 20 };
        client.0.handle(&message, capacity, NOW, &mut reply);
        done += u32::from(reply.get(4) == Some(&(kind.wrapping_add(1))));
        assert!(reply.len() <= capacity && client.0.fs.memory() <= client.0.fs.memory_limit);
    }
    assert!(done > 30_000, "only {done} requests were possible");
    // Whatever happened, the tree is one that can be saved and restored.
    let inodes = client.0.fs.inodes().to_vec();
    let back = Filesystem::from_inodes(inodes, client.0.fs.last_qid).unwrap();
    assert_eq!(back.memory(), client.0.fs.memory());
}

#[test]
fn hostile_rings() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut guest = Guest::new(Virtio9p::new(image(), Box::new(Slow::new("blob", &[7; 100_000]))));
    guest.device.server.fs.memory_limit = 8 << 20;
    for _ in 0..20_000 {
        if guest.device.transport.device_status & STATUS_NEEDS_RESET != 0 {
            guest.set_up();
        }
        let slot = random.next(16) as u16;
        let (kind, fields) = random.request();
        guest.send(slot, &fields.message(kind, TAG));
        for _ in 0..random.next(6) {
            let at = 0x1000 + random.next(0xc00);
            match random.next(3) {
                0 => guest.mem.write_u8(at, random.next(256) as u8),
                1 => guest.mem.write_u16(at & !1, random.number() as u16),
                _ => guest.mem.write_u32(at & !3, random.number()),
            }
        }
        if random.next(50) == 0 {
            // A reply over the rings.
            guest.driver.descriptor(&mut guest.mem, 1, 0x1000, 0x1000, WRITE_ONLY, 0);
        }
        guest.notify();
        let width = [Width::Byte, Width::Word, Width::Dword][random.next(3) as usize];
        let (bar, offset) = (random.next(7) as usize, random.next(80) as u16);
        guest.device.port_read(bar, offset, width);
        if random.next(20) == 0 {
            let value = random.number() & width.mask();
            guest.device.port_write(&mut guest.mem, bar, offset, width, value, 0);
        }
        guest.device.poll(&mut guest.mem, 0);
    }
}
