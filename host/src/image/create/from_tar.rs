//! Making an image from a tar stream.
//!
//! The tree is the one that unpacking as root would give: a later entry replaces an earlier one of its name, and
//! parents that have no entries are made. Nothing of it is made here but the contents.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use super::index::{Entry, Node};
use super::store::{Copier, Hashed};
use super::walk::MAX_DEPTH;
use super::{CreateError, Made, Options, make, new_place};
use crate::image::tarball::{Kind, Member, Members};

/// What a directory's size is given as: what most file systems of hosts say.
const DIRECTORY_SIZE: u64 = 4096;
/// Permissions of a directory that has no entry.
const PARENT_MODE: u32 = 0o755;
/// Types of files, as Linux numbers them in a mode.
const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
/// What compressed streams begin with, and the program for those that are not unpacked here.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const OTHERS: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

/// Makes the image directory `image` from a tar stream, which may be compressed by gzip or zstd. `what` is what an
/// error calls it.
pub fn from_tar(
    source: impl Read,
    what: &str,
    image: &Path,
    options: &Options,
) -> Result<super::Summary, CreateError> {
    new_place(image)?;
    let source = unpacked(options.watch().read(source), what)?;
    let made = make(image, options, |dir| {
        let mut tree = Tree::new(options);
        let mut members = Members::new(BufReader::with_capacity(256 << 10, source));
        let wrong = |source| CreateError::Tar { what: what.into(), source };
        let mut copier = Copier::new(dir, options);
        let mut left = options.limit;
        loop {
            options.check_interrupt()?;
            let Some(member) = members.next().map_err(wrong)? else { break };
            let path = tree.path(&member.path).map_err(|why| CreateError::Member {
                what: what.into(),
                path: String::from_utf8_lossy(&member.path).into_owned(),
                why,
            })?;
            if let Kind::File(size) = member.kind {
                left = left
                    .checked_sub(size)
                    .ok_or(CreateError::TooLarge { what: what.into(), limit: options.limit })?;
                let number = tree.files.len();
                let file = copier.copy(number, &mut members, |error| wrong(error.into()))?;
                tree.files.push(file);
            }
            let shown = member.path.clone();
            tree.add(path, member).map_err(|why| CreateError::Member {
                what: what.into(),
                path: String::from_utf8_lossy(&shown).into_owned(),
                why,
            })?;
        }
        tree.made(&copier)
    });
    // Which the reader of the stream says, too, in its way.
    options.check_interrupt()?;
    made
}

/// The stream without its compression.
fn unpacked<'a>(mut source: impl Read + 'a, what: &str) -> Result<Box<dyn Read + 'a>, CreateError> {
    let mut start = Vec::new();
    let read = (&mut source).take(6).read_to_end(&mut start);
    read.map_err(|error| CreateError::Tar { what: what.into(), source: error.into() })?;
    if let Some((_, program)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(CreateError::Compressed { what: what.into(), program });
    }
    let (gzip, zstd) = (start.starts_with(GZIP), start.starts_with(ZSTD));
    let source = BufReader::with_capacity(64 << 10, Cursor::new(start).chain(source));
    Ok(if gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(source))
    } else if zstd {
        let decoder = zstd::Decoder::with_buffer(source);
        Box::new(decoder.map_err(|error| CreateError::Tar { what: what.into(), source: error.into() })?)
    } else {
        Box::new(source)
    })
}

/// A file, directory or what else.
struct Inode {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    /// Names that it has.
    names: usize,
    what: What,
}

enum What {
    Directory(BTreeMap<String, usize>),
    /// A file, by its place in the list of contents.
    File(usize),
    Symlink(String),
    Device(u32, u32),
    Fifo,
}

/// The tree as far as it has been read.
struct Tree {
    inodes: Vec<Inode>,
    /// The contents that have been stored, in the order of the stream.
    files: Vec<Hashed>,
    owner: Option<(u32, u32)>,
    attributes_left_out: u64,
}

/// The number of the root directory.
const ROOT: usize = 0;

impl Tree {
    fn new(options: &Options) -> Self {
        let mut tree =
            Self { inodes: Vec::new(), files: Vec::new(), owner: options.owner, attributes_left_out: 0 };
        tree.directory();
        tree
    }

    /// A directory without an entry.
    fn directory(&mut self) -> usize {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let what = What::Directory(BTreeMap::new());
        self.inodes.push(Inode { mode: S_IFDIR | PARENT_MODE, uid, gid, mtime: 0, names: 1, what });
        self.inodes.len() - 1
    }

    /// The names of a path, of which none leads upwards.
    fn path(&self, path: &[u8]) -> Result<Vec<String>, String> {
        let text =
            std::str::from_utf8(path).map_err(|_| "its name is not UTF-8, which fs.json cannot hold")?;
        if text.contains('\0') {
            return Err("its name has a character that none can have".into());
        }
        let names: Vec<String> =
            text.split('/').filter(|name| !matches!(*name, "" | ".")).map(Into::into).collect();
        if names.iter().any(|name| name == "..") {
            return Err("its path leads out of the tree".into());
        }
        if names.len() > MAX_DEPTH {
            return Err(format!("it is nested too deep (more than {MAX_DEPTH} directories)"));
        }
        Ok(names)
    }

    /// The directory of a path, which is made as far as it is missing.
    fn parent(&mut self, names: &[String]) -> Result<usize, String> {
        let mut dir = ROOT;
        for name in names {
            let What::Directory(entries) = &self.inodes[dir].what else {
                return Err("what it lies in is no directory".into());
            };
            dir = match entries.get(name) {
                Some(number) => *number,
                None => {
                    let made = self.directory();
                    self.entries(dir)?.insert(name.clone(), made);
                    made
                }
            };
        }
        Ok(dir)
    }

    fn entries(&mut self, dir: usize) -> Result<&mut BTreeMap<String, usize>, String> {
        match &mut self.inodes[dir].what {
            What::Directory(entries) => Ok(entries),
            _ => Err("what it lies in is no directory".into()),
        }
    }

    /// The inode of a path.
    fn find(&self, names: &[String]) -> Option<usize> {
        names.iter().try_fold(ROOT, |dir, name| match &self.inodes[dir].what {
            What::Directory(entries) => entries.get(name).copied(),
            _ => None,
        })
    }

    fn add(&mut self, mut names: Vec<String>, member: Member) -> Result<(), String> {
        self.attributes_left_out += u64::from(member.has_attributes);
        let Some(name) = names.pop() else {
            // The root itself is not in an index.
            return if member.kind == Kind::Directory { Ok(()) } else { Err("it has no name".into()) };
        };
        let text = |target: Vec<u8>| {
            String::from_utf8(target)
                .map_err(|_| "its target is not UTF-8, which fs.json cannot hold".to_owned())
        };
        let (kind, what) = match member.kind {
            Kind::HardLink(target) => {
                let target = self.path(&target)?;
                let known =
                    self.find(&target).filter(|at| !matches!(self.inodes[*at].what, What::Directory(_)));
                let inode = known.ok_or_else(|| {
                    format!("it is a link to `{}`, which is no file before it", target.join("/"))
                })?;
                let dir = self.parent(&names)?;
                // A link to itself.
                if self.entries(dir)?.get(&name) != Some(&inode) {
                    self.inodes[inode].names += 1;
                    self.enter(dir, name, inode)?;
                }
                return Ok(());
            }
            Kind::Directory => (S_IFDIR, What::Directory(BTreeMap::new())),
            Kind::File(_) => (S_IFREG, What::File(self.files.len() - 1)),
            Kind::Symlink(target) => (S_IFLNK, What::Symlink(text(target)?)),
            Kind::Device(block, major, minor) => {
                (if block { S_IFBLK } else { S_IFCHR }, What::Device(major, minor))
            }
            Kind::Fifo => (S_IFIFO, What::Fifo),
        };
        let (uid, gid) = self.owner.unwrap_or((member.uid, member.gid));
        // Linux gives all permissions on symbolic links.
        let permissions = if kind == S_IFLNK { 0o777 } else { member.mode };
        let inode = Inode { mode: kind | permissions, uid, gid, mtime: member.mtime, names: 1, what };
        let dir = self.parent(&names)?;
        // A directory that is there keeps its entries.
        if let (What::Directory(_), Some(&at)) = (&inode.what, self.entries(dir)?.get(&name))
            && let What::Directory(entries) = &mut self.inodes[at].what
        {
            let entries = std::mem::take(entries);
            self.inodes[at] = Inode { what: What::Directory(entries), ..inode };
            return Ok(());
        }
        self.inodes.push(inode);
        self.enter(dir, name, self.inodes.len() - 1)
    }

    /// Gives a name to an inode; what has it loses it.
    fn enter(&mut self, dir: usize, name: String, inode: usize) -> Result<(), String> {
        let Some(old) = self.entries(dir)?.insert(name, inode) else { return Ok(()) };
        if let What::Directory(entries) = &self.inodes[old].what
            && !entries.is_empty()
        {
            return Err("it would replace a directory that has entries".into());
        }
        self.inodes[old].names -= 1;
        Ok(())
    }

    /// The entries in their order, and the contents in the order in which they are met.
    fn made(self, copier: &Copier) -> Result<Made, CreateError> {
        let mut listing =
            Listing { tree: &self, order: HashMap::new(), met: Vec::new(), visits: Vec::new(), count: 0 };
        let entries = listing.entries(ROOT);
        let Listing { order, met, visits, count, .. } = listing;
        let blobs = copier.name(met.iter().map(|number| (*number, &self.files[*number])))?;
        for number in (0..self.files.len()).filter(|number| !order.contains_key(number)) {
            copier.forget(number)?;
        }
        Ok(Made { entries, visits, blobs, count, sockets: 0, attributes: self.attributes_left_out })
    }
}

/// The entries of the tree as they are found in it.
struct Listing<'a> {
    tree: &'a Tree,
    /// Contents by their number in the stream: which of those met they are.
    order: HashMap<usize, usize>,
    met: Vec<usize>,
    /// Which content each file has, in the order of the files.
    visits: Vec<usize>,
    count: u64,
}

impl Listing<'_> {
    fn entries(&mut self, dir: usize) -> Vec<Entry> {
        let What::Directory(entries) = &self.tree.inodes[dir].what else { return Vec::new() };
        entries.iter().map(|(name, at)| self.entry(name, *at)).collect()
    }

    fn entry(&mut self, name: &str, at: usize) -> Entry {
        let inode = &self.tree.inodes[at];
        self.count += 1;
        let (size, node) = match &inode.what {
            What::Directory(_) => (DIRECTORY_SIZE, Node::Directory(self.entries(at))),
            What::File(number) => {
                let next = self.met.len();
                let order = *self.order.entry(*number).or_insert(next);
                if order == next {
                    self.met.push(*number);
                }
                self.visits.push(order);
                let link = (inode.names > 1).then_some(order);
                (self.tree.files[*number].size, Node::File(String::new(), link))
            }
            What::Symlink(target) => (target.len() as u64, Node::Symlink(target.clone())),
            What::Device(major, minor) => (0, Node::Device(*major, *minor)),
            What::Fifo => (0, Node::Fifo),
        };
        Entry {
            name: name.into(),
            size,
            mtime: inode.mtime,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            node,
        }
    }
}
