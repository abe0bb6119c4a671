//! virtio-9p and its files: v86's table of inodes.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer, same};
use super::ours::{hex, unhex};
use super::record::{Entry, Layout, Record, whole};
use super::top;
use super::value::{Kind, Value};
use super::virtio::{TRANSPORT, read_transport, write_transport};
use crate::board::BoardConfig;
use crate::fs::{
    Content, Directory, FileData, Filesystem, Ino, Inode, Lock, LockKind, NoBlobs, S_IFBLK, S_IFCHR, S_IFDIR,
    S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, Timestamp,
};
use crate::pc::Pc;
use crate::virtio::Transport;
use crate::virtio::p9::server::{BLOCK_SIZE, Fid, FidKind, MAX_MSIZE, Server};
use crate::virtio::p9::wire::VERSION;
use crate::virtio::p9::{MOUNT_TAG, QUEUE_SIZE, Virtio9p};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashMap};

const P9: Layout = Layout {
    name: NAME,
    fields: &[
        "tag",
        "tag_length",
        "virtio",
        "version",
        "block_size",
        "msize",
        "reply_buffer",
        "reply_buffer_size",
        "fids",
        "fs",
    ],
};
const FS: Layout =
    Layout { name: "filesystem", fields: &["inodes", "last_qid", "inode_data", "total_size", "used_size"] };
const INODE: Layout = Layout {
    name: "inode",
    fields: &[
        "mode",
        "content",
        "locks",
        "status",
        "size",
        "uid",
        "gid",
        "ino",
        "ctime",
        "atime",
        "mtime",
        "qid_version",
        "qid_path",
        "nlink",
    ],
};
const FID: Layout = Layout { name: "fid", fields: &["ino", "type", "uid", "name"] };

/// An inode's content is in the state, or it has none.
const STATUS_OK: i32 = 0;
/// An inode's content is in the image, by the name of its blob.
const STATUS_ON_STORAGE: i32 = 2;
/// The inode has no name any more.
const STATUS_UNLINKED: i32 = 4;
/// The inode is one of a filesystem mounted on this one.
const STATUS_FORWARDING: i32 = 5;
/// There is no such inode.
const STATUS_FREE: i32 = -1;

const FID_NONE: i32 = -1;
const FID_INODE: i32 = 1;
const FID_XATTR: i32 = 2;
/// Fids from here on are not written: v86 has a list of all of them, and Linux takes the smallest.
const MAX_FID: u32 = 1 << 20;
/// v86's buffer for replies: content that does not matter, of twice the message size at most this.
const MAX_REPLY_BUFFER: usize = 16 << 20;

const NAME: &str = "virtio_9p";
/// The key of [`Files::held`].
const HELD: &str = "files_held";

/// The device of a state.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// The registers.
    transport: Transport,
    /// The tree.
    pub fs: Filesystem,
    msize: u32,
    fids: BTreeMap<u32, Fid>,
    /// Requests that wait for the image's content, by their first descriptors: v86 loses them.
    held: Vec<u16>,
}

impl Files {
    /// Whether the contents of some files are in the image alone.
    pub fn needs_image(&self) -> bool {
        let in_image = |inode: &Inode| match &inode.content {
            Content::File(file) => file.base().is_some(),
            _ => false,
        };
        self.fs.inodes().iter().flatten().any(in_image)
    }
}

/// The files, if they are fitted.
pub(super) type Saved = Option<Files>;

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        let Some(record) = state.optional(&P9, NAME)? else { return Ok(None) };
        let mut files = read(&record)?;
        refine(&mut files.fs, state.ours("files"));
        let held = state.ours(HELD).as_array().map_or(&[][..], Vec::as_slice);
        let heads = held.iter().filter_map(|head| head.as_u64().and_then(|head| u16::try_from(head).ok()));
        files.held.extend(heads.take(QUEUE_SIZE.into()));
        Ok(Some(files))
    }

    fn configure(&self, config: BoardConfig) -> BoardConfig {
        let filesystem = match (self, config.filesystem) {
            (None, _) => None,
            (Some(_), Some((_, store))) => Some((Filesystem::default(), store)),
            (Some(_), None) => Some((Filesystem::default(), Box::new(NoBlobs) as _)),
        };
        BoardConfig { filesystem, ..config }
    }

    fn fits(&self, machine: &Pc) -> Result<(), StateError> {
        same("virtio-9p", machine.board.p9.is_some().into(), self.is_some().into())
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        if let (Some(p9), Some(files)) = (&mut machine.board.p9, self) {
            p9.transport = files.transport;
            p9.held = files.held;
            p9.server.restore(files.fs, files.msize, files.fids);
        }
    }

    /// Reads the files that go into the state as a whole.
    fn prepare(machine: &mut Pc, writer: &mut Writer) -> Result<(), StateError> {
        let Some(p9) = &mut machine.board.p9 else { return Ok(()) };
        let Server { fs, store, .. } = &mut p9.server;
        let numbered = (0..).zip(fs.inodes());
        let whole = |(ino, inode): (Ino, &Option<Inode>)| is_whole(inode.as_ref()?).then_some(ino);
        for ino in numbered.filter_map(whole).collect::<Vec<_>>() {
            let bytes =
                fs.read_all(store.as_mut(), ino).map_err(|source| StateError::File { ino, source })?;
            writer.files.insert(ino, bytes);
        }
        Ok(())
    }

    fn write<'m>(machine: &'m Pc, writer: &mut Writer<'_, 'm>) -> Result<(), StateError> {
        let Some(p9) = &machine.board.p9 else { return Ok(()) };
        let value = write(p9, writer);
        writer.set(NAME, value);
        writer.add("files", write_ours(&p9.server.fs));
        if !p9.held.is_empty() {
            writer.add(HELD, json!(p9.held));
        }
        Ok(())
    }
}

fn refine(fs: &mut Filesystem, saved: &Json) {
    let rows = |key: &str| saved[key].as_array().map_or(&[][..], Vec::as_slice);
    let number = |value: &Json| value.as_u64().and_then(|n| u32::try_from(n).ok());
    for row in rows("devices") {
        if let (Some(ino), Some(major), Some(minor)) = (number(&row[0]), number(&row[1]), number(&row[2])) {
            fs.set_device(ino, major, minor);
        }
    }
    for row in rows("nanos") {
        let nanos = [&row[1], &row[2], &row[3]].map(|n| number(n).unwrap_or(0).min(999_999_999));
        if let Some(ino) = number(&row[0]) {
            fs.set_nanos(ino, nanos);
        }
    }
    for row in rows("names") {
        let name = unhex(&row[2], crate::fs::NAME_MAX);
        if let (Some(dir), Some(at)) = (number(&row[0]), row[1].as_u64()) {
            fs.set_entry_name(dir, at as usize, &name);
        }
    }
}

/// Numbers of devices, nanoseconds of times, names that are not UTF-8.
fn write_ours(fs: &Filesystem) -> Json {
    let (mut devices, mut nanos, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (ino, inode) in (0u32..).zip(fs.inodes()).filter_map(|(ino, inode)| Some((ino, inode.as_ref()?))) {
        match &inode.content {
            Content::Device { major, minor } if (*major, *minor) != (0, 0) => {
                devices.push(json!([ino, major, minor]));
            }
            Content::Directory(directory) => {
                let odd =
                    directory.entries().enumerate().filter(|(_, e)| std::str::from_utf8(&e.name).is_err());
                names.extend(odd.map(|(at, e)| json!([ino, at, hex(e.name.iter().copied())])));
            }
            _ => {}
        }
        let parts = [inode.ctime.nanos, inode.atime.nanos, inode.mtime.nanos];
        if parts != [0; 3] {
            nanos.push(json!([ino, parts[0], parts[1], parts[2]]));
        }
    }
    json!({ "devices": devices, "nanos": nanos, "names": names })
}

fn read(r: &Record) -> Result<Files, StateError> {
    let with_handler = matches!(r.fields.get(3), Some(Value::Map(_)));
    if with_handler || r.get("fs").is_null() {
        return Err(StateError::Unsupported(format!(
            "{} belongs to a file system outside v86 (handle9p or proxy_url), and not to v86's own",
            r.path()
        )));
    }
    let own = Virtio9p::new(Filesystem::default(), Box::new(NoBlobs)).transport;
    let transport = read_transport(&r.record(&TRANSPORT, "virtio")?, &own)?;
    let fs = read_fs(&r.record(&FS, "fs")?)?;
    let mut fids = BTreeMap::new();
    for (number, value) in (0..).zip(r.list("fids")?) {
        if value.is_null() {
            continue;
        }
        let fid = Record::new(&FID, value, r.container, format!("{}, fid {number}", r.path()))?;
        let kind = match fid.u32("type")? as i32 {
            FID_NONE => continue,
            FID_INODE => FidKind::Inode,
            FID_XATTR => FidKind::Xattr,
            other => return Err(fid.wrong("type", format!("is {other}, not -1, 1 or 2"))),
        };
        let ino = fid.u32("ino")?;
        if fs.inode(ino).is_err() {
            return Err(fid.wrong("ino", format!("is {ino}, which no inode is")));
        }
        fids.insert(number, Fid { ino, kind, uid: fid.u32_or("uid", 0)?, name: None });
    }
    Ok(Files { transport, fs, msize: r.u32("msize")?.min(MAX_MSIZE), fids, held: Vec::new() })
}

fn read_fs(r: &Record) -> Result<Filesystem, StateError> {
    if r.fields.len() > FS.fields.len() {
        let problem = format!("{} has file systems mounted on each other", r.path());
        return Err(StateError::Unsupported(problem));
    }
    let mut data = HashMap::new();
    for pair in r.list("inode_data")? {
        let ino = match pair.at(0) {
            Value::Text(text) => text.parse().ok(),
            Value::Number(n) => whole(*n),
            _ => None,
        };
        match (ino, pair.at(1)) {
            (Some(ino), Value::Buffer(_, id)) => {
                let bytes = r.container.buffer(*id).map_err(|e| r.wrong("inode_data", e.to_string()))?;
                data.insert(ino, bytes)
            }
            _ => {
                return Err(r.wrong("inode_data", "has an element that is not an inode number and its bytes"));
            }
        };
    }
    let values = r.list("inodes")?;
    let mut inodes = Vec::with_capacity(values.len());
    for (ino, value) in (0..).zip(values) {
        let bytes = data.get(&u64::from(ino)).copied();
        let path = || format!("{}, inode {ino}", top::path(NAME));
        inodes.push(read_inode(ino, value, bytes, &path)?);
    }
    let last_qid = r.u64("last_qid")?;
    let mut fs = Filesystem::from_inodes(inodes, last_qid)
        .map_err(|error| r.wrong("inodes", format!("is no tree of files: {error}")))?;
    fs.total_size = r.u64("total_size")?;
    fs.used_size = r.u64("used_size")?;
    Ok(fs)
}

fn read_inode(
    ino: Ino,
    value: &Value,
    bytes: Option<&[u8]>,
    path: &dyn Fn() -> String,
) -> Result<Option<Inode>, StateError> {
    let fields = value.list().unwrap_or_default();
    let wrong =
        |field: &str, what: String| StateError::Entry { path: format!("{}, {field}", path()), problem: what };
    // By position, for there are very many of them.
    let number = |field: &'static str| -> Result<f64, StateError> {
        match INODE.fields.iter().position(|name| *name == field).and_then(|at| fields.get(at)) {
            Some(Value::Number(n)) if n.is_finite() => Ok(*n),
            other => Err(wrong(field, format!("is {}", other.map_or("missing", Value::what)))),
        }
    };
    let time = |field| Ok::<_, StateError>(Timestamp::from_secs(number(field)?.floor() as i64));
    let unsigned = |field| {
        let n = number(field)?;
        whole(n).ok_or_else(|| wrong(field, format!("is {n}, not a whole number")))
    };
    let status = number("status")? as i32;
    match status {
        STATUS_FREE => return Ok(None),
        STATUS_OK | STATUS_ON_STORAGE | STATUS_UNLINKED => {}
        STATUS_FORWARDING => {
            return Err(StateError::Unsupported(format!("{} belongs to a mounted file system", path())));
        }
        other => return Err(wrong("status", format!("is {other}, which is not known"))),
    }
    let mode = number("mode")? as u32;
    let size = unsigned("size")?;
    let content = &fields.get(1).unwrap_or(&Value::Null);
    let content = match mode & S_IFMT {
        S_IFDIR => Content::Directory(read_directory(ino, content).map_err(|what| wrong("content", what))?),
        S_IFREG => match (content, bytes) {
            (Value::Text(blob), None) if status == STATUS_ON_STORAGE && size > 0 => {
                Content::File(FileData::from_blob(blob, size))
            }
            (_, bytes) => {
                let bytes = bytes.unwrap_or_default();
                let n = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
                Content::File(FileData::from_bytes(&bytes[..n]))
            }
        },
        S_IFLNK => match content {
            Value::Text(target) => Content::Symlink(target.as_bytes().into()),
            other => return Err(wrong("content", format!("is {}, not a link's target", other.what()))),
        },
        S_IFCHR | S_IFBLK => Content::Device { major: 0, minor: 0 },
        _ => Content::Special,
    };
    let mut inode =
        Inode::new(mode, number("uid")? as u32, number("gid")? as u32, Timestamp::default(), content);
    inode.size = size;
    inode.ctime = time("ctime")?;
    inode.atime = time("atime")?;
    inode.mtime = time("mtime")?;
    inode.nlink = unsigned("nlink")? as u32;
    inode.qid_version = unsigned("qid_version")? as u32;
    inode.qid_path = unsigned("qid_path")?;
    for lock in fields.get(2).and_then(Value::list).unwrap_or_default() {
        inode
            .locks
            .push(read_lock(lock).ok_or_else(|| wrong("locks", "has one that cannot be read".into()))?);
    }
    if status == STATUS_UNLINKED {
        inode.nlink = 0;
    }
    Ok(Some(inode))
}

fn read_directory(ino: Ino, content: &Value) -> Result<Directory, String> {
    let entries = content.list().ok_or_else(|| format!("is {}, not a list of names", content.what()))?;
    let entry = |value: &'_ Value| match (value.at(0), value.at(1)) {
        (Value::Text(name), Value::Number(n)) => {
            Some((name.clone(), whole(*n).and_then(|n| Ino::try_from(n).ok())?))
        }
        _ => None,
    };
    let mut directory = Directory::new(ino);
    for value in entries {
        let (name, target) = entry(value).ok_or("has an element that is not a name and an inode number")?;
        match &*name {
            "." => {}
            ".." => directory.parent = target,
            _ => {
                if directory.insert(name.as_bytes(), target).is_some() {
                    return Err(format!("has the name `{name}` twice"));
                }
            }
        }
    }
    Ok(directory)
}

fn read_lock(value: &Value) -> Option<Lock> {
    let number = |at| if let Value::Number(n) = value.at(at) { whole(*n) } else { None };
    let client = match value.at(4) {
        Value::Text(text) => text.as_bytes().into(),
        _ => Box::default(),
    };
    Some(Lock {
        kind: LockKind::from_wire(number(0)? as u8)?,
        start: number(1)?,
        length: number(2).unwrap_or(0),
        proc_id: number(3)? as u32,
        client_id: client,
    })
}

/// Whether a file's content goes into the state as a whole: it is not the image's.
fn is_whole(inode: &Inode) -> bool {
    match &inode.content {
        Content::File(file) => inode.size > 0 && in_image(inode, file).is_none(),
        _ => false,
    }
}

/// The blob of a file that the guest has neither changed nor removed.
fn in_image<'f>(inode: &Inode, file: &'f FileData) -> Option<&'f str> {
    let base = file.base().filter(|_| file.is_pristine(inode.size) && inode.nlink != 0)?;
    Some(&base.blob)
}

fn write(p9: &Virtio9p, writer: &mut Writer) -> Value {
    let msize = p9.server.msize();
    let reply = writer.buffers.add(Kind::U8, vec![0; (2 * msize as usize).min(MAX_REPLY_BUFFER)]);
    let fids = write_fids(p9.server.fids());
    let fs = write_fs(&p9.server.fs, writer);
    let tag: Vec<Value> = MOUNT_TAG.iter().map(|byte| Value::from(*byte)).collect();
    Entry::new(&P9)
        .set("tag", tag)
        .set("tag_length", MOUNT_TAG.len() as u32)
        .set("virtio", write_transport(&p9.transport, &mut writer.buffers))
        .set("version", &*String::from_utf8_lossy(VERSION))
        .set("block_size", BLOCK_SIZE)
        .set("msize", msize)
        .set("reply_buffer", reply)
        .set("reply_buffer_size", 0)
        .set("fids", fids)
        .set("fs", fs)
        .value()
}

fn write_fids(fids: &BTreeMap<u32, Fid>) -> Vec<Value> {
    let fid = |ino: i64, kind, uid: u32, name: &[u8]| {
        Value::List(vec![ino.into(), Value::from(kind), uid.into(), (&*String::from_utf8_lossy(name)).into()])
    };
    let mut list = Vec::new();
    for (number, known) in fids.range(..MAX_FID) {
        // v86 cannot restore a list with holes.
        list.resize_with(*number as usize, || fid(-1, FID_NONE, 0, b""));
        let kind = match known.kind {
            FidKind::Inode => FID_INODE,
            FidKind::Xattr => FID_XATTR,
        };
        let name = known.name.as_ref().map_or(&b""[..], |(_, name)| name);
        list.push(fid(known.ino.into(), kind, known.uid, name));
    }
    list
}

fn write_fs(fs: &Filesystem, writer: &mut Writer) -> Value {
    let mut inodes = Vec::with_capacity(fs.inodes().len());
    let mut data = Vec::new();
    for (ino, inode) in (0..).zip(fs.inodes()) {
        let Some(inode) = inode else {
            inodes.push(free_inode(ino));
            continue;
        };
        let blob = if let Content::File(file) = &inode.content { in_image(inode, file) } else { None };
        let status = match blob {
            Some(_) => STATUS_ON_STORAGE,
            None if inode.nlink == 0 => STATUS_UNLINKED,
            None => STATUS_OK,
        };
        if let Some(bytes) = writer.files.remove(&ino) {
            let value = writer.buffers.add(Kind::U8, bytes);
            data.push(Value::List(vec![(&*ino.to_string()).into(), value]));
        }
        inodes.push(write_inode(ino, inode, status, blob.unwrap_or_default()));
    }
    Entry::new(&FS)
        .set("inodes", inodes)
        .set("last_qid", fs.last_qid)
        .set("inode_data", data)
        .set("total_size", fs.total_size)
        .set("used_size", fs.used_size)
        .value()
}

fn free_inode(ino: Ino) -> Value {
    Entry::new(&INODE)
        .set("mode", 0)
        .set("locks", Vec::new())
        .set("status", STATUS_FREE)
        .set("size", 0)
        .set("uid", 0)
        .set("gid", 0)
        .set("ino", ino)
        .set("ctime", 0)
        .set("atime", 0)
        .set("mtime", 0)
        .set("qid_version", 0)
        .set("qid_path", 0)
        .set("nlink", 0)
        .value()
}

fn write_inode(ino: Ino, inode: &Inode, status: i32, blob: &str) -> Value {
    let content = match &inode.content {
        Content::Directory(directory) => {
            let entry = |name: &str, ino: Ino| Value::List(vec![name.into(), ino.into()]);
            let mut entries = vec![entry(".", ino), entry("..", directory.parent)];
            entries.extend(directory.entries().map(|e| entry(&String::from_utf8_lossy(&e.name), e.ino)));
            entries.into()
        }
        Content::File(_) => blob.into(),
        Content::Symlink(target) => (&*String::from_utf8_lossy(target)).into(),
        Content::Special if inode.mode & S_IFMT == S_IFSOCK => vec![0.into(), 0.into()].into(),
        Content::Device { .. } | Content::Special => Value::Null,
    };
    let lock = |lock: &Lock| {
        Value::List(vec![
            Value::from(lock.kind as u8),
            lock.start.into(),
            lock.length.into(),
            lock.proc_id.into(),
            (&*String::from_utf8_lossy(&lock.client_id)).into(),
        ])
    };
    Entry::new(&INODE)
        .set("mode", inode.mode)
        .set("content", content)
        .set("locks", inode.locks.iter().map(lock).collect::<Vec<_>>())
        .set("status", status)
        .set("size", inode.size)
        .set("uid", inode.uid)
        .set("gid", inode.gid)
        .set("ino", ino)
        .set("ctime", inode.ctime.secs)
        .set("atime", inode.atime.secs)
        .set("mtime", inode.mtime.secs)
        .set("qid_version", inode.qid_version)
        .set("qid_path", inode.qid_path)
        .set("nlink", inode.nlink)
        .value()
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Suite, any, bits, fields, one_of};
    use super::*;

    impl Suite for Saved {
        const NOT_IN_STATE: &'static [&'static str] =
            &["size_supported", "notify_offset", "device_feature", "driver_feature"];

        fn fields() -> Vec<Field> {
            fields!(m:
                m.board.p9.as_mut().unwrap().transport.device_feature_select => any,
                m.board.p9.as_mut().unwrap().transport.driver_feature_select => any,
                m.board.p9.as_mut().unwrap().transport.features_ok => any,
                m.board.p9.as_mut().unwrap().transport.config_has_changed => any,
                m.board.p9.as_mut().unwrap().transport.config_generation => any,
                m.board.p9.as_mut().unwrap().transport.queue_select => any,
                m.board.p9.as_mut().unwrap().transport.isr_status => bits(3),
                m.board.p9.as_mut().unwrap().transport.device_status => any,
                m.board.p9.as_mut().unwrap().transport.queues[0].size => one_of([1, 2, 4, 8]),
                m.board.p9.as_mut().unwrap().transport.queues[0].enabled => any,
                m.board.p9.as_mut().unwrap().transport.queues[0].desc_addr => any,
                m.board.p9.as_mut().unwrap().transport.queues[0].avail_addr => any,
                m.board.p9.as_mut().unwrap().transport.queues[0].used_addr => any,
                m.board.p9.as_mut().unwrap().transport.queues[0].avail_last_idx => any,
                m.board.p9.as_mut().unwrap().transport.queues[0].num_staged_replies => any,
                m.board.p9.as_mut().unwrap().transport.queues[0].masked_idx => any,
                m.board.p9.as_mut().unwrap().server.fs.last_qid => bits(0xff_ffff_ffff),
                m.board.p9.as_mut().unwrap().server.fs.total_size => bits(0xff_ffff_ffff),
                m.board.p9.as_mut().unwrap().server.fs.used_size => bits(0xff_ffff_ffff),
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.board.p9.as_ref().unwrap().transport)
        }
    }
}
