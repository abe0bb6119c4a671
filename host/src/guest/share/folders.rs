//! All folders that a machine's guest has mounted through the device for them, as one tree: Linux mounts a device of
//! 9p only once. At the top there is a directory for each folder, by its number; nothing can be changed there.
//!
//! A message is the affair of the [`Share`] whose handle it names, and each share knows nothing but its folder: what
//! is here only tells them apart. Above a folder, for its clients, is the folder itself.

use std::collections::BTreeSet;

use env86_devices::fs::{Errno, FsError, FsResult, S_IFDIR, Timestamp};
use env86_devices::virtio::p9::wire::{
    Attributes, DEFAULT_MSIZE, HEADER, IO_HEADER, Listed, MAX_WALK, MIN_MSIZE, Qid, RLERROR, Reader, Statfs,
    Writer, fail, finish, open, request, start,
};

use super::fids::Fid;
use super::{EPERM, EROFS, MAX_MSIZE, QT_DIR, Share};

/// Handles of the top that a client may have.
const MAX_TOPS: usize = 1 << 12;
/// The top's number, which no file has: [`crate::os::Found::node`] has a device's number in its upper half.
const TOP_NODE: u64 = u64::MAX;
/// Two folders are two file systems.
const EXDEV: Errno = Errno(18);

/// The folders.
#[derive(Debug, Default)]
pub(super) struct Folders {
    shares: Vec<Share>,
    /// Handles that stand for the top.
    tops: BTreeSet<u32>,
    msize: Option<u32>,
}

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Top,
    /// Something in the folder of this number.
    In(usize),
}

const TOP: Qid = Qid { kind: QT_DIR, version: 0, path: TOP_NODE };

impl Folders {
    /// Adds a folder; gives its number.
    pub fn add(&mut self, mut share: Share) -> usize {
        share.msize = self.msize();
        self.shares.push(share);
        self.shares.len() - 1
    }

    /// All folders are where nothing waits long ([`crate::os::is_local`]).
    pub fn are_local(&self) -> bool {
        self.shares.iter().all(|share| share.local)
    }

    /// Takes the folder back that was added last, if this is its number.
    pub fn withdraw(&mut self, number: usize) {
        if number + 1 == self.shares.len() {
            self.shares.pop();
        }
    }

    /// One of them, for tests that look behind it.
    #[cfg(test)]
    pub fn share(&mut self, number: usize) -> &mut Share {
        &mut self.shares[number]
    }

    fn msize(&self) -> u32 {
        self.msize.unwrap_or(DEFAULT_MSIZE)
    }

    fn place(&self, number: u32) -> FsResult<Place> {
        if self.tops.contains(&number) {
            return Ok(Place::Top);
        }
        let share = self.shares.iter().position(|share| share.fids.get(number).is_ok());
        Ok(Place::In(share.ok_or(Errno::EBADF)?))
    }

    /// Handles a message.
    pub fn handle(&mut self, message: &[u8], reply: &mut Vec<u8>) {
        let mut reader = Reader::new(message);
        let (Ok(size), Ok(kind), Ok(tag)) = (reader.u32(), reader.u8(), reader.u16()) else {
            return reply.clear();
        };
        start(reply);
        let result = match size as usize == message.len() {
            true => self.run(kind, message, reader, reply),
            false => Err(Errno::EPROTO.into()),
        };
        match result {
            Ok(Done::Here) if reply.len() > self.msize() as usize => fail(reply, tag, Errno::EMSGSIZE),
            Ok(Done::Here) => finish(reply, kind.wrapping_add(1), tag),
            Ok(Done::There) => {}
            Err(FsError::Errno(errno)) => fail(reply, tag, errno),
            Err(FsError::Pending) => fail(reply, tag, Errno::EIO),
        }
    }

    fn run(&mut self, kind: u8, message: &[u8], fields: Reader, reply: &mut Vec<u8>) -> FsResult<Done> {
        match kind {
            request::VERSION => return self.version(message, fields, reply),
            request::ATTACH => return self.attach(fields, reply),
            // Messages are handled in their order: what is to be interrupted has been answered.
            request::FLUSH => return Ok(Done::Here),
            _ => {}
        }
        let mut names = fields.clone();
        let number = names.u32()?;
        let place = self.place(number)?;
        if let Some(other) = other_handle(kind, names)?
            && self.place(other)? != place
        {
            return Err(EXDEV.into());
        }
        match place {
            Place::Top => self.top(kind, number, fields, reply),
            Place::In(at) => {
                self.shares[at].handle(message, reply);
                if let (request::WALK | request::XATTRWALK, Ok(new)) = (kind, second(fields)) {
                    self.belongs(new, at);
                }
                Ok(Done::There)
            }
        }
    }

    /// A handle that may have got a meaning in this folder has no other one.
    fn belongs(&mut self, number: u32, at: usize) {
        if self.shares[at].fids.get(number).is_ok() {
            self.tops.remove(&number);
            for (_, share) in self.shares.iter_mut().enumerate().filter(|(other, _)| *other != at) {
                // Most of the time it is not there.
                let _ = share.clunk(number);
            }
        }
    }

    /// Ends what is going on: no handle is left, here or in the folders.
    fn version(&mut self, message: &[u8], mut fields: Reader, reply: &mut Vec<u8>) -> FsResult<Done> {
        let (msize, version) = (fields.u32()?, fields.string()?);
        if msize < MIN_MSIZE {
            return Err(Errno::EMSGSIZE.into());
        }
        let mut ignored = Vec::new();
        self.shares.iter_mut().for_each(|share| share.handle(message, &mut ignored));
        self.tops.clear();
        self.msize = Some(msize.min(MAX_MSIZE));
        reply.put_version(self.msize(), version);
        Ok(Done::Here)
    }

    fn set_top(&mut self, number: u32) -> FsResult<()> {
        if self.tops.len() >= MAX_TOPS && !self.tops.contains(&number) {
            return Err(Errno::EMFILE.into());
        }
        for share in &mut self.shares {
            // Most of the time it is not there.
            let _ = share.clunk(number);
        }
        self.tops.insert(number);
        Ok(())
    }

    fn attach(&mut self, mut fields: Reader, reply: &mut Vec<u8>) -> FsResult<Done> {
        self.set_top(fields.u32()?)?;
        reply.put_qid(TOP);
        Ok(Done::Here)
    }

    /// What is asked of the top.
    fn top(&mut self, kind: u8, number: u32, mut fields: Reader, reply: &mut Vec<u8>) -> FsResult<Done> {
        fields.u32()?;
        match kind {
            request::WALK => return self.walk(fields, reply),
            request::CLUNK => _ = self.tops.remove(&number),
            request::LOPEN => {
                if fields.u32()? & open::ACCESS != 0 {
                    return Err(Errno::EISDIR.into());
                }
                reply.put_qid(TOP);
                reply.put_u32(self.msize() - IO_HEADER);
            }
            request::READDIR => {
                let (offset, count) = (fields.u64()?, fields.u32()?);
                let dots = [".".to_owned(), "..".to_owned()].into_iter();
                let names: Vec<_> = dots.chain((0..self.shares.len()).map(|at| at.to_string())).collect();
                let after = usize::try_from(offset).unwrap_or(usize::MAX);
                let entries = (1..).zip(&names).skip(after).map(|(cookie, name)| Listed {
                    qid: TOP,
                    cookie,
                    kind: 4,
                    name: name.as_bytes(),
                });
                let room = (count as usize).min(self.msize() as usize - HEADER - 4);
                reply.put_entries(room, entries);
            }
            request::GETATTR => reply.put_attributes(&Attributes {
                qid: TOP,
                mode: S_IFDIR | 0o555,
                uid: 0,
                gid: 0,
                links: 2,
                device: 0,
                size: 0,
                block: self.msize() - IO_HEADER,
                blocks: 0,
                times: [Timestamp::default(); 3],
            }),
            request::STATFS => {
                reply.put_statfs(&Statfs { block: 4096, blocks: 0, free: 0, files: 0, files_free: 0 });
            }
            request::FSYNC => {}
            request::REMOVE => {
                self.tops.remove(&number);
                return Err(EPERM.into());
            }
            request::XATTRWALK => return Err(Errno::ENODATA.into()),
            request::READ | request::WRITE => return Err(Errno::EISDIR.into()),
            request::LCREATE..=request::MKNOD
            | request::SETATTR
            | request::LINK
            | request::MKDIR
            | request::RENAME
            | request::RENAMEAT
            | request::UNLINKAT => return Err(EROFS.into()),
            _ => return Err(Errno::EOPNOTSUPP.into()),
        }
        Ok(Done::Here)
    }

    /// Walks from the top: perhaps into a folder, where the rest of the way is that folder's affair.
    fn walk(&mut self, mut fields: Reader, reply: &mut Vec<u8>) -> FsResult<Done> {
        let (new, count) = (fields.u32()?, fields.u16()?);
        if count > MAX_WALK {
            return Err(Errno::EINVAL.into());
        }
        let count_at = reply.len();
        reply.put_u16(0);
        let mut left = count;
        let mut inside = None;
        while left > 0 && inside.is_none() {
            left -= 1;
            match fields.string()? {
                b"." | b".." => reply.put_qid(TOP),
                name => inside = Some(self.numbered(name)?),
            }
        }
        let Some(at) = inside else {
            self.set_top(new)?;
            reply[count_at..count_at + 2].copy_from_slice(&count.to_le_bytes());
            return Ok(Done::Here);
        };
        let share = &mut self.shares[at];
        // A handle of the folder, from which the rest is walked. The one that the client names may still be needed.
        let free = (0..=u32::MAX).rev().find(|number| *number != new && share.fids.get(*number).is_err());
        let folder = free.ok_or(Errno::EMFILE)?;
        share.set(folder, Fid::default())?;
        let rest = walk_message(folder, new, left, fields);
        let mut walked = Vec::new();
        let found = share.tree.look(&[]);
        rest.iter().for_each(|rest| share.handle(rest, &mut walked));
        share.clunk(folder)?;
        reply.put_qid(super::qid(&super::errno(found)?));
        let (head, qids) = walked.split_at_checked(HEADER + 2).ok_or(Errno::EPROTO)?;
        let further = match head[4] {
            RLERROR => 0,
            _ => u16::from_le_bytes([head[HEADER], head[HEADER + 1]]),
        };
        // Something was walked in any case, and that is told.
        if further > 0 {
            reply.extend(qids);
        }
        let walked = count - left + further;
        reply[count_at..count_at + 2].copy_from_slice(&walked.to_le_bytes());
        if walked == count {
            self.belongs(new, at);
        }
        Ok(Done::Here)
    }

    /// The folder that a name at the top stands for.
    fn numbered(&self, name: &[u8]) -> FsResult<usize> {
        let number = std::str::from_utf8(name).ok().and_then(|name| name.parse::<usize>().ok());
        let number = number.filter(|number| number.to_string().as_bytes() == name);
        Ok(number.filter(|number| *number < self.shares.len()).ok_or(Errno::ENOENT)?)
    }
}

/// Who has put the answer together.
enum Done {
    /// It lacks its header.
    Here,
    /// A folder: it is whole.
    There,
}

/// The second handle in a message that has two.
fn second(mut fields: Reader) -> FsResult<u32> {
    fields.u32()?;
    fields.u32()
}

/// A second handle that has to be in the same folder; `fields` are those behind the first.
fn other_handle(kind: u8, mut fields: Reader) -> FsResult<Option<u32>> {
    match kind {
        request::LINK | request::RENAME => fields.u32().map(Some),
        request::RENAMEAT => {
            fields.string()?;
            fields.u32().map(Some)
        }
        _ => Ok(None),
    }
}

/// A message that walks on from a folder; `None` if the names are none.
fn walk_message(from: u32, new: u32, count: u16, mut names: Reader) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    start(&mut message);
    message.put_u32(from);
    message.put_u32(new);
    message.put_u16(count);
    for _ in 0..count {
        message.put_string(names.string().ok()?);
    }
    finish(&mut message, request::WALK, 0);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use env86_devices::virtio::p9::wire::VERSION;
    use std::fs;

    const READ_ONLY: u32 = 0;

    /// Two folders, each with a file of the other's name, the second read-only; and a client.
    struct Client {
        folders: Folders,
        place: tempfile::TempDir,
    }

    impl Client {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let mut folders = Folders::default();
            for (name, read_only) in [("one", false), ("two", true)] {
                let folder = place.path().join(name);
                fs::create_dir(&folder).unwrap();
                fs::write(folder.join("file"), name).unwrap();
                folders.add(Share::open(&folder, read_only).unwrap());
            }
            let mut client = Self { folders, place };
            client
                .ask(request::VERSION, |m| {
                    m.put_u32(65_536);
                    m.put_string(VERSION);
                })
                .unwrap();
            client.ask(request::ATTACH, |m| m.put_u32(0)).unwrap();
            client
        }

        fn ask(&mut self, kind: u8, fields: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, u32> {
            let (mut message, mut reply) = (Vec::new(), Vec::new());
            start(&mut message);
            fields(&mut message);
            finish(&mut message, kind, 5);
            self.folders.handle(&message, &mut reply);
            assert_eq!(reply[..4], (reply.len() as u32).to_le_bytes());
            assert_eq!(reply[5..7], [5, 0]);
            match reply[4] == kind + 1 {
                true => Ok(reply.split_off(HEADER)),
                false => Err(u32::from_le_bytes(*reply[HEADER..].first_chunk().unwrap())),
            }
        }

        fn walk(&mut self, from: u32, new: u32, names: &[&str]) -> Result<u8, u32> {
            let walked = self.ask(request::WALK, |m| {
                m.put_u32(from);
                m.put_u32(new);
                m.put_u16(names.len() as u16);
                names.iter().for_each(|name| m.put_string(name.as_bytes()));
            })?;
            assert_eq!(walked.len(), 2 + 13 * usize::from(walked[0]));
            Ok(walked[0])
        }

        fn read(&mut self, fid: u32) -> Result<Vec<u8>, u32> {
            self.ask(request::READ, |m| {
                m.put_u32(fid);
                m.put_u64(0);
                m.put_u32(100);
            })
            .map(|mut data| data.split_off(4))
        }

        fn open(&mut self, fid: u32, flags: u32) -> Result<(), u32> {
            let opened = self.ask(request::LOPEN, |m| {
                m.put_u32(fid);
                m.put_u32(flags);
            });
            opened.map(drop)
        }
    }

    #[test]
    fn each_folder_is_a_directory_of_its_number() {
        let mut client = Client::new();
        client.open(0, READ_ONLY).unwrap();
        let list = client.ask(request::READDIR, |m| {
            m.put_u32(0);
            m.put_u64(0);
            m.put_u32(1000);
        });
        assert_eq!(list.unwrap().len(), 4 + 4 * 24 + 1 + 2 + 1 + 1);
        for (number, name) in [("0", "one"), ("1", "two")] {
            assert_eq!(client.walk(0, 1, &[number, "file"]), Ok(2));
            client.open(1, READ_ONLY).unwrap();
            assert_eq!(client.read(1).unwrap(), name.as_bytes());
        }
        for name in ["2", "00", "+1", "-1", "", "one", "18446744073709551616", "0/"] {
            assert_eq!(client.walk(0, 2, &[name]), Err(Errno::ENOENT.0), "{name}");
        }
        // One that is mounted later is there at once.
        let folder = client.place.path().join("two");
        let number = client.folders.add(Share::open(&folder, true).unwrap());
        assert_eq!(client.walk(0, 2, &["2", "file"]), Ok(2));
        client.folders.withdraw(0);
        client.folders.withdraw(number);
        assert_eq!(client.walk(0, 3, &["2"]), Err(Errno::ENOENT.0));
        assert_eq!(client.walk(2, 3, &[]), Err(Errno::EBADF.0));
    }

    #[test]
    fn no_way_leads_from_one_folder_to_the_other() {
        let mut client = Client::new();
        assert_eq!(client.walk(0, 1, &["0"]), Ok(1));
        assert_eq!(client.walk(1, 2, &["..", "..", "file"]), Ok(3));
        client.open(2, READ_ONLY).unwrap();
        assert_eq!(client.read(2).unwrap(), b"one");
        assert_eq!(client.walk(1, 3, &["..", "1"]), Ok(1));
        assert_eq!(client.walk(3, 4, &[]), Err(Errno::EBADF.0));
        assert_eq!(client.walk(0, 3, &["0", "..", "1"]), Ok(2));
        assert_eq!(client.walk(0, 3, &["..", ".", "1", "file"]), Ok(4));
        // Neither a name nor a file gets there.
        let exdev = Err(EXDEV.0);
        let two = |first, second| {
            move |m: &mut Vec<u8>| {
                m.put_u32(first);
                m.put_u32(second);
                m.put_string(b"other");
            }
        };
        assert_eq!(client.ask(request::LINK, two(1, 3)), exdev);
        assert_eq!(client.ask(request::RENAME, two(3, 1)), exdev);
        assert_eq!(client.ask(request::RENAME, two(2, 0)), exdev);
        for (old, new) in [(1, 0), (0, 1)] {
            let moved = client.ask(request::RENAMEAT, |m| {
                m.put_u32(old);
                m.put_string(b"file");
                m.put_u32(new);
                m.put_string(b"other");
            });
            assert_eq!(moved, exdev);
        }
        assert!(client.place.path().join("one/file").exists());
    }

    #[test]
    fn nothing_is_changed_at_the_top() {
        let mut client = Client::new();
        for flags in [1, 2, open::TRUNCATE | 1] {
            assert_eq!(client.open(0, flags), Err(Errno::EISDIR.0));
        }
        for kind in [request::MKDIR, request::MKNOD, request::SYMLINK, request::LCREATE, request::UNLINKAT] {
            let refused = client.ask(kind, |m| {
                m.put_u32(0);
                m.put_string(b"0");
                m.extend([0; 16]);
            });
            assert_eq!(refused, Err(EROFS.0), "{kind}");
        }
        let set = client.ask(request::SETATTR, |m| m.extend([0; 60]));
        assert_eq!(set, Err(EROFS.0));
        assert_eq!(client.walk(0, 1, &[]), Ok(0));
        assert_eq!(client.ask(request::REMOVE, |m| m.put_u32(1)), Err(EPERM.0));
        assert_eq!(client.ask(request::GETATTR, |m| m.extend([0; 12])).unwrap()[8], QT_DIR);
        assert_eq!(client.ask(request::GETATTR, |m| m.put_u32(1)), Err(Errno::EBADF.0));
    }

    #[test]
    fn a_handle_has_one_meaning() {
        let mut client = Client::new();
        client.walk(0, 1, &["0", "file"]).unwrap();
        client.walk(0, 1, &["1", "file"]).unwrap();
        client.open(1, READ_ONLY).unwrap();
        assert_eq!(client.read(1).unwrap(), b"two");
        assert!(client.folders.shares[0].fids.get(1).is_err());
        client.walk(0, 1, &["0", "file"]).unwrap();
        assert!(client.folders.shares[1].fids.get(1).is_err());
        client.walk(0, 1, &[]).unwrap();
        assert_eq!(client.folders.place(1), Ok(Place::Top));
        assert!(client.folders.shares[0].fids.get(1).is_err());
        // A walk that does not come to its end leaves the handle what it was.
        assert_eq!(client.walk(0, 1, &["0", "none"]), Ok(1));
        assert_eq!(client.folders.place(1), Ok(Place::Top));
        // The top's own handle, by which everything is found, may become a folder's.
        client.walk(0, 0, &["1", "file"]).unwrap();
        assert_eq!(client.folders.place(0), Ok(Place::In(1)));
        // Handles of the top are no more than the host has room for.
        let refused = (10..).map(|new| client.walk(1, new, &[])).position(|walked| walked.is_err());
        assert!(refused.is_some_and(|count| count < MAX_TOPS));
        client
            .ask(request::VERSION, |m| {
                m.put_u32(8192);
                m.put_string(VERSION);
            })
            .unwrap();
        assert_eq!(client.walk(1, 2, &[]), Err(Errno::EBADF.0));
    }
}
