//! Clients of a folder: one that means well, and hostile ones that speak to the server without a kernel between.

use env86_devices::virtio::p9::wire::{RLERROR, VERSION, set};

use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const READ: u32 = 0;
const WRITE: u32 = 1;
const READ_WRITE: u32 = 2;
const CREATE: u32 = 0o100;

const EACCES: u32 = 13;
const EBUSY: u32 = 16;
const ENAMETOOLONG: u32 = 36;

/// How messages come to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By the service's line: each folder is a file system.
    Line,
    /// By the machine's device: each is a directory of one.
    Device,
}

/// Who answers.
enum Server {
    Line(Share),
    Device(Folders),
}

impl Server {
    fn handle(&mut self, message: &[u8], reply: &mut Vec<u8>) {
        match self {
            Self::Line(share) => share.handle(message, reply),
            Self::Device(folders) => folders.handle(message, reply),
        }
    }
}

/// A client of a folder `inside`, beside which there is a file `secret`. By the device, there is another folder, too.
struct Client {
    server: Server,
    place: Arc<tempfile::TempDir>,
}

type Fields<'a> = &'a dyn Fn(&mut Vec<u8>);

impl Client {
    fn new(way: Way, read_only: bool) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("inside")).unwrap();
        fs::create_dir(place.path().join("another")).unwrap();
        fs::write(place.path().join("secret"), "secret").unwrap();
        let secret = fs::Permissions::from_mode(0o600);
        fs::set_permissions(place.path().join("secret"), secret).unwrap();
        fs::write(place.path().join("inside/file"), "content").unwrap();
        Self::of(way, place.into(), read_only)
    }

    fn of(way: Way, place: Arc<tempfile::TempDir>, read_only: bool) -> Self {
        let share = |name, read_only| Share::open(&place.path().join(name), read_only).unwrap();
        let server = match way {
            Way::Line => Server::Line(share("inside", read_only)),
            Way::Device => {
                let mut folders = Folders::default();
                // Whether something may be changed is each folder's own affair.
                assert_eq!(folders.add(share("another", !read_only)), 0);
                assert_eq!(folders.add(share("inside", read_only)), 1);
                Server::Device(folders)
            }
        };
        let mut client = Self { server, place };
        client
            .ask(request::VERSION, &|m| {
                m.put_u32(65_536);
                m.put_string(VERSION);
            })
            .unwrap();
        client.attach(0, b"");
        client
    }

    fn attach(&mut self, fid: u32, tree: &[u8]) {
        self.ask(request::ATTACH, &|m| {
            m.put_u32(fid);
            m.put_u32(u32::MAX);
            m.put_string(b"root");
            m.put_string(tree);
            m.put_u32(0);
        })
        .unwrap();
        if let Server::Device(_) = self.server {
            let walked = self.ask(request::WALK, &|m| {
                m.put_u32(fid);
                m.put_u32(fid);
                m.put_u16(1);
                m.put_string(b"1");
            });
            assert_eq!(walked.unwrap()[..2], [1, 0]);
        }
    }

    fn share(&mut self) -> &mut Share {
        match &mut self.server {
            Server::Line(share) => share,
            Server::Device(folders) => folders.share(1),
        }
    }

    /// The fields of the answer, or the error's number.
    fn ask(&mut self, kind: u8, fields: Fields) -> Result<Vec<u8>, u32> {
        let (mut message, mut reply) = (Vec::new(), Vec::new());
        start(&mut message);
        fields(&mut message);
        finish(&mut message, kind, 5);
        assert_eq!(self.share().length(&message), Some(message.len()));
        self.server.handle(&message, &mut reply);
        assert_eq!(reply[..4], (reply.len() as u32).to_le_bytes());
        match reply[4] == kind + 1 {
            true => Ok(reply.split_off(HEADER)),
            false => Err(u32::from_le_bytes(*reply[HEADER..].first_chunk().unwrap())),
        }
    }

    /// The answer to what need not be a message at all: an error's number, or `None`.
    fn refusal(&mut self, message: &[u8]) -> Option<u32> {
        let mut reply = Vec::new();
        self.server.handle(message, &mut reply);
        (reply[4] == RLERROR).then(|| u32::from_le_bytes(*reply[HEADER..].first_chunk().unwrap()))
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
        self.set(fid, set::MODE, mode, 0, 0)
    }

    fn set(&mut self, fid: u32, valid: u32, mode: u32, size: u64, nanoseconds: u64) -> Result<(), u32> {
        self.ask(request::SETATTR, &|m| {
            m.put_u32(fid);
            for value in [valid, mode, 0, 0] {
                m.put_u32(value);
            }
            m.put_u64(size);
            for _ in 0..2 {
                m.put_u64(1_000_000_000);
                m.put_u64(nanoseconds);
            }
        })
        .map(drop)
    }

    fn renameat(&mut self, old: &[u8], new: &[u8]) -> Result<(), u32> {
        self.ask(request::RENAMEAT, &|m| {
            m.put_u32(0);
            m.put_string(old);
            m.put_u32(0);
            m.put_string(new);
        })
        .map(drop)
    }

    /// Something with two handles and a name.
    fn two(&mut self, kind: u8, first: u32, second: u32, name: &[u8]) -> Result<(), u32> {
        self.ask(kind, &|m| {
            m.put_u32(first);
            m.put_u32(second);
            m.put_string(name);
        })
        .map(drop)
    }

    fn readdir(&mut self, fid: u32, offset: u64, count: u32) -> Result<Vec<u8>, u32> {
        self.ask(request::READDIR, &|m| {
            m.put_u32(fid);
            m.put_u64(offset);
            m.put_u32(count);
        })
        .map(|mut list| list.split_off(4))
    }

    /// What is beside the folder is as it was.
    fn assert_nothing_outside(&self) {
        let place = self.place.path();
        let secret = fs::metadata(place.join("secret")).unwrap();
        assert_eq!((secret.mode() & 0o7777, secret.nlink()), (0o600, 1));
        assert_ne!(secret.mtime(), 1_000_000_000);
        assert_eq!(fs::read(place.join("secret")).unwrap(), b"secret");
        assert_eq!(fs::read_dir(place).unwrap().count(), 3);
        assert_eq!(fs::read_dir(place.join("another")).unwrap().count(), 0);
    }

    fn inside(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join("inside").join(name)
    }
}

fn files_are_read_and_written_and_belong_to_the_caller(way: Way) {
    let mut client = Client::new(way, false);
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

fn nothing_outside_is_reached(way: Way) {
    let mut client = Client::new(way, false);
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

fn devices_are_neither_made_nor_opened(way: Way) {
    let mut client = Client::new(way, false);
    let fifo = client.inside("fifo");
    assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
    client.walk(1, &[b"fifo"]).unwrap();
    assert_eq!(client.open(1, READ), Err(13));
    for kind in [0x2000, 0x6000, 0x1000, 0xc000] {
        assert_eq!(client.name(request::MKNOD, 0, b"node", kind | 0o666), Err(EPERM.0));
    }
    client.name(request::MKNOD, 0, b"node", S_IFREG | 0o600).unwrap();
}

fn what_is_read_only_is_not_changed(way: Way) {
    let mut client = Client::new(way, true);
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
    // Nor by what is not asked for writing at first sight, and a new session is as read-only as the old one.
    let tree = fs::metadata(client.inside("file")).unwrap();
    client
        .ask(request::VERSION, &|m| {
            m.put_u32(8192);
            m.put_string(VERSION);
        })
        .unwrap();
    client.share().set(0, Fid::default()).unwrap();
    client.walk(1, &[b"file"]).unwrap();
    for flags in [READ_WRITE, open::ACCESS, WRITE | CREATE, open::TRUNCATE | open::DIRECTORY] {
        assert_eq!(client.open(1, flags), Err(EROFS.0), "{flags}");
    }
    for valid in [set::MODE, set::SIZE, set::ATIME, set::MTIME | set::MTIME_SET, 0, u32::MAX] {
        assert_eq!(client.set(1, valid, 0o777, 0, 0), Err(EROFS.0), "{valid}");
    }
    client.walk(2, &[]).unwrap();
    for flags in [READ, READ | CREATE, open::TRUNCATE] {
        assert_eq!(client.create(2, b"file", flags, 0o644), Err(EROFS.0), "{flags}");
    }
    client.open(1, READ).unwrap();
    client.ask(request::FSYNC, &|m| m.put_u32(1)).unwrap();
    let meta = fs::metadata(client.inside("file")).unwrap();
    assert_eq!((meta.ctime(), meta.ctime_nsec()), (tree.ctime(), tree.ctime_nsec()));
    assert_eq!(client.ask(request::REMOVE, &|m| m.put_u32(1)), Err(EROFS.0));
    assert_eq!(fs::read(client.inside("file")).unwrap(), b"content");
    assert_eq!(fs::read_dir(client.place.path().join("inside")).unwrap().count(), 1);
}

fn noise_is_answered_with_errors(way: Way) {
    let mut client = Client::new(way, false);
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
        client.server.handle(&message, &mut reply);
        assert!(reply.len() >= HEADER && reply.len() <= MAX_MSIZE as usize);
    }
    assert_eq!(fs::read(client.place.path().join("secret")).unwrap(), b"secret");
}

fn a_link_out_is_only_a_link(way: Way) {
    let mut client = Client::new(way, false);
    // As the guest makes it, and whatever it does with it then.
    for (name, target) in [(&b"a"[..], &b"../secret"[..]), (b"b", b"/etc/passwd"), (b"c", b"..")] {
        client
            .ask(request::SYMLINK, &|m| {
                m.put_u32(0);
                m.put_string(name);
                m.put_string(target);
                m.put_u32(0);
            })
            .unwrap();
        client.walk(1, &[name]).unwrap();
        for flags in [READ, WRITE, READ_WRITE, WRITE | open::TRUNCATE, open::DIRECTORY] {
            assert!(client.open(1, flags).is_err(), "{flags}");
        }
        assert!(client.set(1, set::MODE, 0o777, 0, 0).is_err());
        assert!(client.set(1, set::SIZE, 0, 0, 0).is_err());
        // The link's own times.
        client.set(1, set::MTIME | set::MTIME_SET, 0, 0, 0).unwrap();
        client.walk(2, &[]).unwrap();
        assert!(client.create(2, name, READ_WRITE | CREATE | open::TRUNCATE, 0o644).is_err());
        for kind in [request::MKDIR, request::MKNOD] {
            assert_eq!(client.name(kind, 0, name, 0o755), Err(Errno::EEXIST.0));
        }
        // One more name is the link's, and so is another one.
        client.two(request::LINK, 0, 1, b"more").unwrap();
        assert!(fs::symlink_metadata(client.inside("more")).unwrap().is_symlink());
        client.renameat(b"more", b"other").unwrap();
        assert!(client.walk(3, &[b"other", b"secret"]) == Ok(1) && client.readdir(1, 0, 1000).is_err());
        client.name(request::UNLINKAT, 0, b"other", 0).unwrap();
    }
    client.assert_nothing_outside();
}

fn no_name_leads_out(way: Way) {
    let mut client = Client::new(way, false);
    client.walk(1, &[b"file"]).unwrap();
    for name in [&b"../new"[..], b"..", b".", b"", b"/new", b"a/../../new", b"new\0"] {
        let refused = Err(Errno::EINVAL.0);
        assert_eq!(client.two(request::LINK, 0, 1, name), refused, "{name:?}");
        assert_eq!(client.two(request::RENAME, 1, 0, name), refused);
        assert_eq!(client.renameat(b"file", name), refused);
        assert_eq!(client.renameat(name, b"other"), refused);
        assert_eq!(client.name(request::MKNOD, 0, name, S_IFREG).map(drop), refused);
        let linked = client.ask(request::SYMLINK, &|m| {
            m.put_u32(0);
            m.put_string(name);
            m.put_string(b"file");
            m.put_u32(0);
        });
        assert_eq!(linked.map(drop), refused);
    }
    // The folder itself has no name that could be another's.
    client.walk(2, &[b".."]).unwrap();
    assert_eq!(client.two(request::RENAME, 2, 0, b"other"), Err(EBUSY));
    assert_eq!(client.two(request::LINK, 0, 2, b"other"), Err(EBUSY));
    assert_eq!(client.ask(request::REMOVE, &|m| m.put_u32(2)), Err(EBUSY));
    // Nor is there another tree to attach to.
    for tree in [&b".."[..], b"/etc", b"../secret"] {
        client.attach(3, tree);
        assert_eq!(client.two(request::RENAME, 1, 3, b"file"), Ok(()));
    }
    assert_eq!(fs::read(client.inside("file")).unwrap(), b"content");
    client.assert_nothing_outside();
}

fn a_race_of_renames_does_not_lead_out(way: Way) {
    let mut client = Client::new(way, false);
    let mut other = Client::of(way, client.place.clone(), false);
    fs::create_dir(client.inside("dir")).unwrap();
    symlink("..", client.inside("link")).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // A second mount of the same folder, say, has the directory and the link change places.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (old, new) in [(b"dir", b"tmp"), (b"lnk", b"dir"), (b"dir", b"lnk"), (b"tmp", b"dir")] {
                    let _ = other.renameat(old, new);
                }
            }
        });
        client.renameat(b"link", b"lnk").unwrap();
        for _ in 0..3000 {
            // Each of it may fail.
            let _ = client.walk(1, &[b"dir"]);
            let _ = client.name(request::MKDIR, 1, b"made", 0o755);
            let _ = client.name(request::UNLINKAT, 1, b"made", AT_REMOVEDIR);
            let _ = client.create(1, b"secret", READ_WRITE | CREATE, 0o666);
            let _ = client.write(1, 0, b"new");
            let _ = client.walk(2, &[b"dir", b"secret"]);
            if client.open(2, READ_WRITE).is_ok() {
                assert_ne!(client.read(2).unwrap(), b"secret");
                let _ = client.write(2, 0, b"changed");
            }
            let _ = client.set_mode(2, 0o666);
            let _ = client.two(request::LINK, 0, 2, b"stolen");
            let _ = client.renameat(b"file", b"dir");
            let _ = client.walk(3, &[b"dir"]);
            let _ = client.two(request::RENAME, 2, 3, b"secret");
            let _ = client.name(request::UNLINKAT, 3, b"secret", 0);
            if let Ok(list) = client.readdir(3, 0, 4000) {
                assert!(!list.windows(6).any(|name| name == b"inside"));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    client.assert_nothing_outside();
}

fn files_of_the_host_that_are_no_files_are_left_alone(way: Way) {
    let mut client = Client::new(way, false);
    let fifo = client.inside("fifo");
    assert!(std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&fifo).status().unwrap().success());
    let _socket = UnixListener::bind(client.inside("socket")).unwrap();
    for name in [&b"fifo"[..], b"socket"] {
        client.walk(1, &[name]).unwrap();
        for flags in [READ, WRITE, READ_WRITE, open::TRUNCATE, WRITE | open::TRUNCATE] {
            assert_eq!(client.open(1, flags), Err(EACCES), "{flags}");
        }
        client.walk(2, &[]).unwrap();
        assert_eq!(client.create(2, name, READ_WRITE | CREATE, 0o666), Err(EACCES));
        assert_eq!(client.set_mode(1, 0o666), Err(EACCES));
        assert_eq!(client.set(1, set::SIZE, 0, 0, 0), Err(EACCES));
    }
    assert_eq!(fs::metadata(&fifo).unwrap().mode() & 0o7777, 0o600);
}

fn no_file_gets_its_owners_rights_from_a_guest(way: Way) {
    let mut client = Client::new(way, false);
    let mode = |client: &Client, name| fs::metadata(client.inside(name)).unwrap().mode() & 0o7777;
    client.walk(1, &[]).unwrap();
    client.create(1, b"made", READ_WRITE | CREATE, 0o6755).unwrap();
    client.name(request::MKNOD, 0, b"node", S_IFREG | 0o6755).unwrap();
    client.name(request::MKDIR, 0, b"dir", 0o6755).unwrap();
    for name in ["made", "node", "dir"] {
        assert_eq!(mode(&client, name) & 0o6000, 0, "{name}");
        client.walk(2, &[name.as_bytes()]).unwrap();
        client.set_mode(2, 0o6755).unwrap();
        assert_eq!(mode(&client, name), 0o755, "{name}");
    }
    // A program of the host's that has them keeps them until the guest opens it to write, and if it was given
    // them meanwhile, until the guest does write.
    let program = client.inside("made");
    let give = || fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    give();
    client.walk(3, &[b"made"]).unwrap();
    client.open(3, READ).unwrap();
    assert_eq!(mode(&client, "made"), 0o6755);
    for flags in [WRITE, READ_WRITE, open::TRUNCATE] {
        give();
        client.walk(3, &[b"made"]).unwrap();
        client.open(3, flags).unwrap();
        assert_eq!(mode(&client, "made"), 0o755, "{flags}");
    }
    give();
    client.write(1, 0, b"#!/bin/sh").unwrap();
    assert_eq!(mode(&client, "made"), 0o755);
    for fid in [1, 2] {
        give();
        client.walk(2, &[b"made"]).unwrap();
        client.set(fid, set::SIZE, 0, 0, 0).unwrap();
        assert_eq!(mode(&client, "made"), 0o755);
    }
}

fn an_open_file_is_not_what_has_its_name_by_now(way: Way) {
    let mut client = Client::new(way, false);
    client.walk(1, &[b"file"]).unwrap();
    client.open(1, READ_WRITE).unwrap();
    client.renameat(b"file", b"moved").unwrap();
    fs::write(client.inside("file"), "other").unwrap();
    fs::rename(client.inside("moved"), client.inside("kept")).unwrap();
    symlink("../secret", client.inside("moved")).unwrap();
    client.write(1, 0, b"CON").unwrap();
    client.set_mode(1, 0o640).unwrap();
    client.set(1, set::SIZE, 0, 5, 0).unwrap();
    client.set(1, set::MTIME | set::MTIME_SET, 0, 0, 0).unwrap();
    let kept = fs::metadata(client.inside("kept")).unwrap();
    assert_eq!((kept.mode() & 0o7777, kept.mtime()), (0o640, 1_000_000_000));
    assert_eq!(fs::read(client.inside("kept")).unwrap(), b"CONte");
    assert_eq!(fs::read(client.inside("file")).unwrap(), b"other");
    client.assert_nothing_outside();
}

fn handles_are_what_they_were_made_for(way: Way) {
    let mut client = Client::new(way, false);
    fs::create_dir(client.inside("dir")).unwrap();
    let bad = Err(Errno::EBADF.0);
    // None of this number, and one that was given up.
    client.walk(1, &[b"file"]).unwrap();
    client.ask(request::CLUNK, &|m| m.put_u32(1)).unwrap();
    for fid in [1, u32::MAX] {
        assert_eq!(client.open(fid, READ), bad);
        assert_eq!(client.read(fid).map(drop), bad);
        assert_eq!(client.write(fid, 0, b"x"), bad);
        assert_eq!(client.readdir(fid, 0, 100).map(drop), bad);
        for kind in [request::CLUNK, request::REMOVE, request::READLINK, request::STATFS, request::FSYNC] {
            assert_eq!(client.ask(kind, &|m| m.put_u32(fid)).map(drop), bad, "{kind}");
        }
        assert_eq!(client.two(request::LINK, 0, fid, b"new"), bad);
        assert_eq!(client.two(request::RENAME, fid, 0, b"new"), bad);
        assert_eq!(client.two(request::XATTRWALK, fid, 5, b""), bad);
    }
    // Not open, or not for that.
    client.walk(1, &[b"file"]).unwrap();
    assert_eq!(client.read(1).map(drop), bad);
    assert_eq!(client.write(1, 0, b"x"), bad);
    client.open(1, READ).unwrap();
    assert_eq!(client.write(1, 0, b"x"), bad);
    client.walk(2, &[b"file"]).unwrap();
    client.open(2, WRITE).unwrap();
    assert_eq!(client.read(2).map(drop), bad);
    client.walk(3, &[b"dir"]).unwrap();
    assert!(client.open(3, WRITE).is_err());
    client.open(3, READ).unwrap();
    assert_eq!(client.read(3).map(drop), bad);
    assert!(client.readdir(1, 0, 100).is_err());
    // A list of attributes is no file.
    client.two(request::XATTRWALK, 1, 4, b"").unwrap();
    assert_eq!(client.read(4).unwrap(), b"");
    assert_eq!(client.open(4, READ_WRITE), bad);
    assert_eq!(client.write(4, 0, b"x"), bad);
    assert_eq!(client.set_mode(4, 0o777), bad);
    assert_eq!(client.create(4, b"new", WRITE | CREATE, 0o644), bad);
    assert_eq!(client.two(request::RENAME, 4, 0, b"new"), bad);
    // One number used anew: nothing is left of what it was.
    client.walk(1, &[b"dir"]).unwrap();
    assert_eq!(client.read(1).map(drop), bad);
    client.readdir(1, 0, 1000).unwrap();
    client.walk(1, &[b"file"]).unwrap();
    assert!(client.readdir(1, 2, 1000).is_err());
    // A new session knows nothing of the old one.
    client
        .ask(request::VERSION, &|m| {
            m.put_u32(8192);
            m.put_string(VERSION);
        })
        .unwrap();
    for fid in 0..5 {
        assert_eq!(client.open(fid, READ), bad);
    }
    assert_eq!(fs::read(client.inside("file")).unwrap(), b"content");
}

fn attributes_of_the_host_are_out_of_reach(way: Way) {
    let mut client = Client::new(way, false);
    client.walk(1, &[b"file"]).unwrap();
    for name in
        [&b"security.capability"[..], b"system.posix_acl_access", b"user.x", b"trusted.x", &[b'a'; 60_000]]
    {
        assert_eq!(client.two(request::XATTRWALK, 1, 2, name), Err(Errno::ENODATA.0));
        let made = client.ask(request::XATTRCREATE, &|m| {
            m.put_u32(1);
            m.put_string(name);
            m.put_u64(u64::MAX);
            m.put_u32(0);
        });
        assert_eq!(made.map(drop), Err(Errno::EOPNOTSUPP.0));
    }
}

fn counts_and_sizes_are_not_believed(way: Way) {
    let mut client = Client::new(way, false);
    client.walk(1, &[b"file"]).unwrap();
    client.open(1, READ_WRITE).unwrap();
    let read = |offset, count| {
        move |m: &mut Vec<u8>| {
            m.put_u32(1);
            m.put_u64(offset);
            m.put_u32(count);
        }
    };
    // The answer is never longer than a message, whatever was asked for.
    assert_eq!(client.ask(request::READ, &read(0, u32::MAX)).unwrap().len(), 4 + 7);
    client.set(1, set::SIZE, 0, 1 << 20, 0).unwrap();
    assert_eq!(client.ask(request::READ, &read(0, u32::MAX)).unwrap().len(), 65_536 - HEADER);
    assert_eq!(client.ask(request::READ, &read(1 << 40, u32::MAX)).unwrap().len(), 4);
    for offset in [u64::MAX, 1 << 63] {
        assert!(client.ask(request::READ, &read(offset, 10)).is_err());
        assert!(client.write(1, offset, b"x").is_err());
        assert!(client.set(1, set::SIZE, 0, offset, 0).is_err());
    }
    // More than there is in the message.
    for count in [8, 65_536, u32::MAX] {
        let written = client.ask(request::WRITE, &|m| {
            read(0, count)(m);
            m.extend(b"1234567");
        });
        assert_eq!(written.map(drop), Err(Errno::EPROTO.0));
    }
    for count in [1, 16, 17, u16::MAX] {
        let walked = client.ask(request::WALK, &|m| {
            m.put_u32(0);
            m.put_u32(2);
            m.put_u16(count);
        });
        assert_eq!(
            walked.map(drop),
            Err(if count > 16 { Errno::EINVAL } else { Errno::EPROTO }.0),
            "{count}"
        );
    }
    // Sizes of messages that are not theirs.
    for size in [0u32, 6, 8, 4096, 65_537, u32::MAX] {
        let mut message = vec![0; HEADER];
        finish(&mut message, request::CLUNK, 1);
        message[..4].copy_from_slice(&size.to_le_bytes());
        let length = client.share().length(&message).unwrap();
        assert!((HEADER..=65_536).contains(&length));
        message.resize(length, 0);
        if size as usize != length {
            assert_eq!(client.refusal(&message), Some(Errno::EPROTO.0), "{size}");
        }
    }
    // Directories.
    client.walk(3, &[]).unwrap();
    client.open(3, READ).unwrap();
    for (offset, count) in [(0, 0), (0, 23), (u64::MAX, u32::MAX), (1 << 32, 100), (3, u32::MAX)] {
        assert_eq!(client.readdir(3, offset, count).unwrap(), b"", "{offset} {count}");
    }
    assert_eq!(client.readdir(3, 0, u32::MAX).unwrap().len(), 3 * 24 + 1 + 2 + 4);
    // What the system takes for "now" and for "as it was" (UTIME_NOW, UTIME_OMIT) is no time.
    for nanoseconds in [0x3fff_ffff, 0x3fff_fffe, u64::MAX] {
        client.set(1, set::MTIME | set::MTIME_SET, 0, 0, nanoseconds).unwrap();
        let meta = fs::metadata(client.inside("file")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 999_999_999));
    }
    // The smallest message has no room for the longest link.
    symlink("a".repeat(4095), client.inside("long")).unwrap();
    client
        .ask(request::VERSION, &|m| {
            m.put_u32(MIN_MSIZE);
            m.put_string(VERSION);
        })
        .unwrap();
    client.share().set(1, Fid { way: vec![b"long".to_vec()], ..Fid::default() }).unwrap();
    assert_eq!(client.ask(request::READLINK, &|m| m.put_u32(1)), Err(Errno::EMSGSIZE.0));
    for size in [0, 10, 4095] {
        let refused = client.ask(request::VERSION, &|m| {
            m.put_u32(size);
            m.put_string(VERSION);
        });
        assert_eq!(refused.map(drop), Err(Errno::EMSGSIZE.0));
    }
}

fn names_and_ways_have_their_limits(way: Way) {
    let mut client = Client::new(way, false);
    let long = [b'n'; 255];
    for len in [256, 4096, 60_000] {
        let name = vec![b'n'; len];
        assert_eq!(client.walk(1, &[&name]), Err(ENAMETOOLONG));
        assert_eq!(client.name(request::MKDIR, 0, &name, 0o755), Err(ENAMETOOLONG));
        assert_eq!(client.renameat(b"file", &name), Err(ENAMETOOLONG));
    }
    // A way down that no path could name.
    client.walk(1, &[]).unwrap();
    for _ in 0..100 {
        client.name(request::MKDIR, 1, &long, 0o755).unwrap();
        client
            .ask(request::WALK, &|m| {
                m.put_u32(1);
                m.put_u32(1);
                m.put_u16(1);
                m.put_string(&long);
            })
            .unwrap();
    }
    let mut copies = (2..).map(|new| {
        client.ask(request::WALK, &|m| {
            m.put_u32(1);
            m.put_u32(new);
            m.put_u16(0);
        })
    });
    // Handles of it do not fill the host's memory, as long as they are.
    let refused = copies.by_ref().position(|copied| copied.is_err());
    assert!((1000..10_000).contains(&refused.unwrap()), "{refused:?}");
    // Nor do short ones that become long.
    client
        .ask(request::VERSION, &|m| {
            m.put_u32(65_536);
            m.put_string(VERSION);
        })
        .unwrap();
    client.share().set(0, Fid::default()).unwrap();
    client.name(request::MKDIR, 0, b"dir", 0o755).unwrap();
    let refused = (1..).map(|new| client.walk(new, &[b"dir"])).position(|walked| walked.is_err());
    assert_eq!(refused, Some(65_535));
    client.ask(request::CLUNK, &|m| m.put_u32(9)).unwrap();
    let deep = Fid { way: vec![long.to_vec(); 100], ..Fid::default() };
    client.share().set(9, deep).unwrap();
    assert_eq!(client.two(request::RENAME, 1, 9, b"dir"), Err(Errno::EMFILE.0));
    assert!(client.inside("dir").exists());
}

fn many_directories_are_read_at_once(way: Way) {
    let mut client = Client::new(way, false);
    for dir in 1..=20 {
        let name = format!("dir{dir}");
        fs::create_dir(client.inside(&name)).unwrap();
        fs::write(client.inside(&name).join("file"), "").unwrap();
        client.walk(dir, &[name.as_bytes()]).unwrap();
    }
    for (offset, name) in [(0, &b"."[..]), (1, b".."), (2, b"file")] {
        for dir in 1..=20 {
            let list = client.readdir(dir, offset, 24 + name.len() as u32).unwrap();
            assert_eq!(&list[24..], name);
        }
    }
    assert_eq!(client.share().lists.len(), MAX_LISTS);
}

/// Each of these by both ways.
macro_rules! both_ways {
    ($($test:ident),* $(,)?) => {
        mod by_the_line {
            $(#[test]
            fn $test() {
                super::$test(super::Way::Line);
            })*
        }

        mod by_the_device {
            $(#[test]
            fn $test() {
                super::$test(super::Way::Device);
            })*
        }
    };
}

both_ways!(
    files_are_read_and_written_and_belong_to_the_caller,
    nothing_outside_is_reached,
    devices_are_neither_made_nor_opened,
    what_is_read_only_is_not_changed,
    noise_is_answered_with_errors,
    a_link_out_is_only_a_link,
    no_name_leads_out,
    a_race_of_renames_does_not_lead_out,
    files_of_the_host_that_are_no_files_are_left_alone,
    no_file_gets_its_owners_rights_from_a_guest,
    an_open_file_is_not_what_has_its_name_by_now,
    handles_are_what_they_were_made_for,
    attributes_of_the_host_are_out_of_reach,
    counts_and_sizes_are_not_believed,
    names_and_ways_have_their_limits,
    many_directories_are_read_at_once,
);
