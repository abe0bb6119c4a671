//! Making an image from a tar stream.
//!
//! The tree is the one that unpacking as root would give: a later entry replaces an earlier one of its name, and
//! parents that have no entries are made. Nothing of it is made here but the contents.
//!
//! The layers of a container image are several archives, of which a later one changes what the earlier ones have
//! made: it may replace a directory by something else, lead through a link of theirs, and take names away.
//! Source: OCI Image Format Specification, "Image Layer Filesystem Changeset".

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::index::{Entry, Node};
use super::store::{Copier, Hashed};
use super::walk::MAX_DEPTH;
use super::{CreateError, Made, Options, fill, make, new_place};
use crate::image::ImageConfig;
use crate::image::service::{self, GuestService};
use crate::image::tarball::{Kind, Member, Members, TarError};

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

/// Entries that an archive may have: what is kept of them is in memory.
const MAX_ENTRIES: usize = 1 << 22;
/// Bytes that an archive may have beside its contents for each of them, on average.
const ENTRY_OVERHEAD: u64 = 2 << 10;
/// Links that a path may lead through, and names that they may add to it.
const MAX_LINKS: usize = 40;
const MAX_NAMES: usize = 4096;
/// In a layer: a name that is taken away is behind this, and all names of a directory are by the other. What
/// else begins as that does is a file system's own affair.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const RESERVED: &str = ".wh..wh.";

/// Programs that Linux starts first, and what it is told where there is none of them: containers often have none.
pub const INITS: [&str; 3] = ["sbin/init", "etc/init", "bin/init"];
pub const SHELL: &str = "init=/bin/sh";

/// A layer of a container image.
pub struct Layer<R> {
    /// A tar stream, which may be compressed by gzip or zstd.
    pub from: R,
    /// What an error calls it.
    pub what: String,
    /// The SHA-256 that the stream has without its compression, in hexadecimal.
    pub sum: Option<String>,
}

/// Makes the image directory `image` from a tar stream, which may be compressed by gzip or zstd. `what` is what an
/// error calls it.
pub fn from_tar(
    source: impl Read,
    what: &str,
    image: &Path,
    options: &Options,
) -> Result<super::Summary, CreateError> {
    new_place(image)?;
    let made = make(image, options, ImageConfig::default(), |dir| {
        let mut reading = Reading::new(dir, options, Manner::Archive);
        reading.archive(Layer { from: options.watch().read(source), what: what.into(), sum: None })?;
        reading.modules()?;
        let init = options.guest.map(|guest| reading.put(guest)).transpose()?;
        Ok(Made { init, has_guest: init.is_some(), ..reading.tree.made(&reading.copier)? })
    });
    // Which the reader of the stream says, too, in its way.
    options.check_interrupt()?;
    made
}

/// Makes what is in the folder of an image, from the layers of a container image, the lowest first.
pub fn from_layers<R: Read>(
    layers: impl Iterator<Item = Layer<R>>,
    folder: &Path,
    config: ImageConfig,
    options: &Options,
) -> Result<super::Summary, CreateError> {
    let filled = fill(folder, config, |dir| {
        let mut reading = Reading::new(dir, options, Manner::Layers);
        for layer in layers {
            reading.tree.layer += 1;
            reading.archive(layer)?;
        }
        reading.modules()?;
        let guest = options.guest.filter(|guest| guest.is_always() || !reading.tree.has_guest());
        let put = guest.map(|guest| reading.put(guest)).transpose()?;
        let init = put.or_else(|| (!reading.tree.has_init()).then_some(SHELL));
        Ok(Made { init, has_guest: put.is_some(), ..reading.tree.made(&reading.copier)? })
    });
    options.check_interrupt()?;
    filled
}

/// What archives mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// There is one, which is a tree.
    Archive,
    /// Each changes what the ones before it have made.
    Layers,
    /// Each adds to the tree. A link that leads to a directory stays where one of them has the directory.
    Packages,
}

/// Archives that are being read into a tree.
pub(super) struct Reading<'a> {
    pub tree: Tree,
    pub copier: Copier<'a>,
    options: &'a Options<'a>,
    /// Bytes that contents may still have.
    left: u64,
    /// Paths that are left out, with all below them.
    pub left_out: &'static [&'static str],
}

impl<'a> Reading<'a> {
    pub fn new(dir: &'a Path, options: &'a Options<'a>, manner: Manner) -> Self {
        let copier = Copier::new(dir, options);
        Self { tree: Tree::new(options, manner), copier, options, left: options.limit, left_out: &[] }
    }

    /// A path is to be left out.
    fn leaves_out(&self, path: &[String]) -> bool {
        let is_below = |out: &&'static str| {
            let out: Vec<&str> = out.split('/').collect();
            path.get(..out.len()).is_some_and(|start| start == out)
        };
        self.left_out.iter().any(is_below)
    }

    /// Puts a file where there is nothing.
    pub fn file(&mut self, path: &str, mode: u32, from: impl Read) -> Result<(), CreateError> {
        let number = self.tree.files.len();
        let from = self.options.watch().read(from);
        let file = self.copier.copy(number, from, CreateError::read(Path::new(path)))?;
        self.left = self.left.checked_sub(file.size).ok_or_else(|| {
            let what = "What the image is made of".to_owned();
            CreateError::TooLarge { what, limit: self.options.limit }
        })?;
        self.tree.files.push(file);
        self.entry(path, S_IFREG | mode, What::File(number))
    }

    /// Puts a symbolic link where there is nothing.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), CreateError> {
        self.entry(path, S_IFLNK | 0o777, What::Symlink(target.into()))
    }

    /// Makes a directory, if there is nothing.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), CreateError> {
        match self.tree.is_there(path) {
            true => Ok(()),
            false => self.entry(path, S_IFDIR | mode, What::Directory(Names::new())),
        }
    }

    /// Puts a file with the content of another one where there is nothing, if that one is there.
    pub fn copy_of(&mut self, path: &str, from: &str, mode: u32) -> Result<(), CreateError> {
        let found = self.tree.find(&Tree::names("", from)).map(|at| &self.tree.inodes[at].what);
        match found {
            Some(What::File(number)) => {
                let number = *number;
                self.entry(path, S_IFREG | mode, What::File(number))
            }
            _ => Ok(()),
        }
    }

    /// Puts the kernel modules where they are looked for that the image is to have.
    pub fn modules(&mut self) -> Result<(), CreateError> {
        let Some(modules) = self.options.modules else { return Ok(()) };
        let lib = if self.tree.is_link(&Tree::names("", "lib")) { "usr/lib" } else { "lib" };
        let below = format!("{lib}/modules/{}", modules.version);
        for (path, from) in &modules.files {
            let file = File::open(from).map_err(CreateError::read(from))?;
            self.file(&format!("{below}/{path}"), 0o644, file)?;
        }
        for (name, text) in &modules.tables {
            self.file(&format!("{below}/{name}"), 0o644, Cursor::new(text))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, what: What) -> Result<(), CreateError> {
        let (uid, gid) = self.options.owner.unwrap_or_default();
        let inode = Inode { mode, uid, gid, mtime: 0, names: 1, what };
        self.tree.put(Tree::names("", path), inode).map_err(|why| CreateError::Member {
            what: "The tree".into(),
            path: path.into(),
            why,
        })
    }

    /// Puts guest86 into the first folder that there is for it. Gives what the kernel is told then.
    pub fn put(&mut self, guest: &GuestService) -> Result<&'static str, CreateError> {
        let (names, init) = self.tree.place().ok_or(CreateError::NoPlace)?;
        let path = guest.path();
        let number = self.tree.files.len();
        let from = self.options.watch().read(File::open(path).map_err(CreateError::read(path))?);
        self.tree.files.push(self.copier.copy(number, from, CreateError::read(path))?);
        let (uid, gid) = self.options.owner.unwrap_or_default();
        let inode = Inode { mode: service::FILE, uid, gid, mtime: 0, names: 1, what: What::File(number) };
        self.tree.put(names, inode).map_err(|_| CreateError::NoPlace)?;
        Ok(init)
    }

    pub fn archive<R: Read>(&mut self, Layer { from, what, sum }: Layer<R>) -> Result<(), CreateError> {
        let limit = self.options.limit;
        let wrong = |source: TarError| CreateError::Tar { what: what.clone(), source };
        let too_large = || CreateError::TooLarge { what: what.clone(), limit };
        let mut source = Counted {
            from: unpacked(from, &what)?,
            left: self.left.saturating_add(MAX_ENTRIES as u64 * ENTRY_OVERHEAD),
            hash: sum.is_some().then(Sha256::new),
        };
        let mut members = Members::new(BufReader::with_capacity(256 << 10, &mut source));
        loop {
            self.options.check_interrupt()?;
            let Some(member) = members.next().map_err(wrong)? else { break };
            let shown = member.path.clone();
            let misplaced = |why| CreateError::Member {
                what: what.clone(),
                path: String::from_utf8_lossy(&shown).into_owned(),
                why,
            };
            let path = self.tree.path(&member.path).map_err(misplaced)?;
            if self.leaves_out(&path) {
                continue;
            }
            if let Kind::File(size) = member.kind {
                self.left = self.left.checked_sub(size).ok_or_else(too_large)?;
                let number = self.tree.files.len();
                let file = self.copier.copy(number, &mut members, |error| wrong(error.into()))?;
                self.tree.files.push(file);
            }
            self.tree.add(path, member).map_err(misplaced)?;
        }
        if let Some(want) = sum {
            // What is behind the archive's end belongs to the sum.
            drop(members);
            io::copy(&mut source, &mut io::sink()).map_err(|error| wrong(error.into()))?;
            let have = source.hash.map(hexadecimal).unwrap_or_default();
            if have != want {
                return Err(CreateError::Sum { what, have, want });
            }
        }
        Ok(())
    }
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A stream that ends with an error if it has too much, and whose sum is taken.
struct Counted<'a> {
    from: Box<dyn Read + 'a>,
    left: u64,
    hash: Option<Sha256>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buf)?;
        self.left = (self.left.checked_sub(read as u64)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it has far more bytes than its files")
        })?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buf[..read]);
        }
        Ok(read)
    }
}

/// The stream without its compression.
pub fn unpacked<'a>(mut source: impl Read + 'a, what: &str) -> Result<Box<dyn Read + 'a>, CreateError> {
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
    Directory(Names),
    /// A file, by its place in the list of contents.
    File(usize),
    Symlink(String),
    Device(u32, u32),
    Fifo,
}

/// The names in a directory.
type Names = BTreeMap<String, Name>;

/// What a name stands for.
#[derive(Clone, Copy)]
struct Name {
    inode: usize,
    /// The layer that has said so last.
    layer: usize,
}

/// The tree as far as it has been read.
pub(super) struct Tree {
    inodes: Vec<Inode>,
    /// The contents that have been stored, in the order of the stream.
    files: Vec<Hashed>,
    owner: Option<(u32, u32)>,
    attributes_left_out: u64,
    /// The number of the archive.
    layer: usize,
    manner: Manner,
}

/// The number of the root directory.
const ROOT: usize = 0;
const NO_DIRECTORY: &str = "what it lies in is no directory";

impl Tree {
    fn new(options: &Options, manner: Manner) -> Self {
        let mut tree = Self {
            inodes: Vec::new(),
            files: Vec::new(),
            owner: options.owner,
            attributes_left_out: 0,
            layer: 0,
            manner,
        };
        tree.directory();
        tree
    }

    /// A directory without an entry.
    fn directory(&mut self) -> usize {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let what = What::Directory(Names::new());
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

    /// The directory of a path; `None` if it is missing and not to be made. Links of lower layers are followed
    /// within the tree.
    fn parent(&mut self, names: &[String], makes: bool) -> Result<Option<usize>, String> {
        let mut dirs = vec![ROOT];
        let mut names: VecDeque<String> = names.iter().cloned().collect();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    dirs.truncate((dirs.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let dir = dirs[dirs.len() - 1];
            match self.entries(dir)?.get(&name).map(|name| name.inode) {
                None if !makes => return Ok(None),
                None => {
                    let (inode, layer) = (self.directory(), self.layer);
                    self.entries(dir)?.insert(name, Name { inode, layer });
                    dirs.push(inode);
                }
                Some(inode) => match &self.inodes[inode].what {
                    What::Directory(_) => dirs.push(inode),
                    What::Symlink(target) if self.manner != Manner::Archive => {
                        links += 1;
                        let more = target.split('/').count();
                        if links > MAX_LINKS || names.len() + more > MAX_NAMES {
                            return Err("its path leads through too many links".into());
                        }
                        if target.starts_with('/') {
                            dirs.truncate(1);
                        }
                        target.split('/').rev().for_each(|name| names.push_front(name.into()));
                    }
                    _ => return Err(NO_DIRECTORY.into()),
                },
            }
            if dirs.len() > MAX_DEPTH {
                return Err(format!("it is nested too deep (more than {MAX_DEPTH} directories)"));
            }
        }
        Ok(dirs.pop())
    }

    fn entries(&mut self, dir: usize) -> Result<&mut Names, String> {
        match &mut self.inodes[dir].what {
            What::Directory(entries) => Ok(entries),
            _ => Err(NO_DIRECTORY.into()),
        }
    }

    /// The inode of a path.
    fn find(&mut self, names: &[String]) -> Option<usize> {
        let (name, names) = names.split_last()?;
        let dir = self.parent(names, false).ok()??;
        Some(self.entries(dir).ok()?.get(name)?.inode)
    }

    /// There is something at a path.
    pub fn is_there(&mut self, path: &str) -> bool {
        self.find(&Self::names("", path)).is_some()
    }

    /// There is a program that Linux starts first.
    pub fn has_init(&mut self) -> bool {
        INITS.iter().any(|path| {
            let names: Vec<String> = path.split('/').map(Into::into).collect();
            self.find(&names).is_some()
        })
    }

    /// The names of a path.
    fn names(folder: &str, name: &str) -> Vec<String> {
        let parts = folder.split('/').chain(name.split('/'));
        parts.filter(|name| !name.is_empty()).map(Into::into).collect()
    }

    /// There is a guest86.
    pub fn has_guest(&mut self) -> bool {
        service::FOLDERS.iter().any(|(folder, _)| self.find(&Self::names(folder, service::NAME)).is_some())
    }

    /// Where guest86 can be, and what the kernel is told then.
    fn place(&mut self) -> Option<(Vec<String>, &'static str)> {
        service::FOLDERS.into_iter().find_map(|(folder, init)| {
            let names = Self::names(folder, service::NAME);
            let at = if folder.is_empty() { Some(ROOT) } else { self.find(&names[..names.len() - 1]) };
            // Links are not followed: where they lead is one of these folders, too.
            let is_folder = at.is_some_and(|at| matches!(self.inodes[at].what, What::Directory(_)));
            let is_free = is_folder && self.find(&names).is_none();
            is_free.then_some((names, init))
        })
    }

    /// Puts an inode where there is nothing.
    fn put(&mut self, mut names: Vec<String>, inode: Inode) -> Result<(), String> {
        let name = names.pop().unwrap_or_default();
        let dir = self.made_parent(&names)?;
        self.inodes.push(inode);
        self.enter(dir, name, self.inodes.len() - 1)
    }

    fn add(&mut self, mut names: Vec<String>, member: Member) -> Result<(), String> {
        self.attributes_left_out += u64::from(member.has_attributes);
        let Some(name) = names.pop() else {
            // The root itself is not in an index.
            return if member.kind == Kind::Directory { Ok(()) } else { Err("it has no name".into()) };
        };
        if self.manner == Manner::Layers && name.starts_with(WHITEOUT) {
            return self.take_away(&names, &name);
        }
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
                let dir = self.made_parent(&names)?;
                // A link to itself.
                if self.entries(dir)?.get(&name).is_none_or(|name| name.inode != inode) {
                    self.inodes[inode].names += 1;
                    self.enter(dir, name, inode)?;
                }
                return Ok(());
            }
            Kind::Directory => (S_IFDIR, What::Directory(Names::new())),
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
        if self.manner == Manner::Packages && matches!(inode.what, What::Directory(_)) {
            let whole: Vec<String> = names.iter().chain([&name]).cloned().collect();
            // The link's owner has said what the directory is like.
            if self.is_link(&whole) && self.parent(&whole, false).is_ok_and(|dir| dir.is_some()) {
                return Ok(());
            }
        }
        let (dir, layer) = (self.made_parent(&names)?, self.layer);
        // A directory that is there keeps its entries.
        if let (What::Directory(_), Some(known)) = (&inode.what, self.entries(dir)?.get_mut(&name)) {
            let (at, before) = (known.inode, std::mem::replace(&mut known.layer, layer));
            if let What::Directory(entries) = &mut self.inodes[at].what {
                let entries = std::mem::take(entries);
                self.inodes[at] = Inode { what: What::Directory(entries), ..inode };
                return Ok(());
            }
            self.entries(dir)?.insert(name.clone(), Name { inode: at, layer: before });
        }
        self.inodes.push(inode);
        if self.inodes.len() > MAX_ENTRIES {
            return Err(format!("there are more than {MAX_ENTRIES} entries"));
        }
        self.enter(dir, name, self.inodes.len() - 1)
    }

    fn is_link(&mut self, names: &[String]) -> bool {
        self.find(names).is_some_and(|at| matches!(self.inodes[at].what, What::Symlink(_)))
    }

    fn made_parent(&mut self, names: &[String]) -> Result<usize, String> {
        self.parent(names, true)?.ok_or_else(|| NO_DIRECTORY.into())
    }

    /// Gives a name to an inode; what has it loses it.
    fn enter(&mut self, dir: usize, name: String, inode: usize) -> Result<(), String> {
        let layer = self.layer;
        let old = self.entries(dir)?.get(&name).map(|name| name.inode);
        if let Some(old) = old {
            if self.manner == Manner::Layers {
                self.hide_lower(old);
            }
            if let What::Directory(entries) = &self.inodes[old].what
                && !entries.is_empty()
            {
                return Err("it would replace a directory that has entries".into());
            }
            self.inodes[old].names -= 1;
        }
        self.entries(dir)?.insert(name, Name { inode, layer });
        Ok(())
    }

    /// Takes away what lower layers have of a name, or of all names in a directory.
    fn take_away(&mut self, names: &[String], whiteout: &str) -> Result<(), String> {
        let Some(dir) = self.parent(names, false)? else { return Ok(()) };
        if whiteout == OPAQUE {
            self.hide_lower(dir);
            return Ok(());
        }
        let name = &whiteout[WHITEOUT.len()..];
        if whiteout.starts_with(RESERVED) || matches!(name, "" | "." | "..") {
            return Ok(());
        }
        let Some(known) = self.entries(dir)?.get(name).copied() else { return Ok(()) };
        if !self.stays(known) {
            self.entries(dir)?.remove(name);
            self.inodes[known.inode].names -= 1;
        }
        Ok(())
    }

    /// Takes away what lower layers have in a directory, and in those below it.
    fn hide_lower(&mut self, dir: usize) {
        let What::Directory(entries) = &mut self.inodes[dir].what else { return };
        let mut entries = std::mem::take(entries);
        entries.retain(|_, name| {
            let stays = self.stays(*name);
            self.inodes[name.inode].names -= usize::from(!stays);
            stays
        });
        self.inodes[dir].what = What::Directory(entries);
    }

    /// A name is this layer's, or has names of this layer below it. Those of lower ones below it are gone then.
    fn stays(&mut self, name: Name) -> bool {
        self.hide_lower(name.inode);
        let below = matches!(&self.inodes[name.inode].what, What::Directory(names) if !names.is_empty());
        below || name.layer == self.layer
    }

    /// The entries in their order, and the contents in the order in which they are met.
    pub fn made(self, copier: &Copier) -> Result<Made, CreateError> {
        let mut listing =
            Listing { tree: &self, order: HashMap::new(), met: Vec::new(), visits: Vec::new(), count: 0 };
        let entries = listing.entries(ROOT);
        let Listing { order, met, visits, count, .. } = listing;
        let blobs = copier.name(met.iter().map(|number| (*number, &self.files[*number])))?;
        for number in (0..self.files.len()).filter(|number| !order.contains_key(number)) {
            copier.forget(number)?;
        }
        Ok(Made {
            entries,
            visits,
            blobs,
            count,
            sockets: 0,
            attributes: self.attributes_left_out,
            init: None,
            has_guest: false,
        })
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
        entries.iter().map(|(name, at)| self.entry(name, at.inode)).collect()
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
