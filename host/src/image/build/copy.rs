//! COPY and ADD: what is copied, what it is known by, and putting it into a tree.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};

use env86_devices::fs::{Base, Content, Directory, FileData, Ino, Inode, ROOT, Timestamp, Unlink};
use env86_devices::fs::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG};

use super::BuildError;
use super::cache::Cache;
use super::context::Context;
use super::ignore::{Ignore, is_pattern, matches};
use super::parse::{Copy, CopySource};
use super::tree::{MAX_DEPTH, Owner, Tree};
use crate::image::create::{CreateError, Options, unpacked};
use crate::image::tarball::{self, Members};
use crate::os;

/// Where the mark of a tar archive is, and the mark.
const MARK: std::ops::Range<usize> = 257..262;
const USTAR: &[u8] = b"ustar";
/// Files that one pattern may stand for.
const MAX_FOUND: usize = 1 << 20;

/// Where files come from.
pub enum Source<'a> {
    /// The folder of the build.
    Context(&'a Context),
    /// A stage or an image.
    Tree(&'a Tree),
}

impl Source<'_> {
    fn tree(&self) -> &Tree {
        match self {
            Self::Context(context) => &context.tree,
            Self::Tree(tree) => tree,
        }
    }

    /// What a content is called in the cache, whether it is there by now or not.
    fn hashed(&self, content: &Base, options: &Options) -> Result<Base, BuildError> {
        match self {
            Self::Context(context) => context.hash(content, options),
            Self::Tree(_) => Ok(content.clone()),
        }
    }
}

/// A file or directory that is copied.
enum Item {
    /// A file that is in the Dockerfile: its name and content.
    Document(String, String),
    /// What is at a path of the source.
    Found(String, Ino),
}

/// What an instruction copies.
pub struct Selection<'a> {
    source: Source<'a>,
    copy: &'a Copy,
    items: Vec<Item>,
    exclude: Ignore,
    options: &'a Options<'a>,
}

type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why files cannot be copied.
pub enum Failure {
    /// The instruction is wrong.
    Line(String),
    /// The build is to end.
    Build(BuildError),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Line(why)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        Self::Build(error.into())
    }
}

impl<'a> Selection<'a> {
    /// Finds what an instruction copies.
    pub fn new(source: Source<'a>, copy: &'a Copy, options: &'a Options<'a>) -> Result<Self> {
        let mut items = Vec::new();
        for wanted in &copy.sources {
            match wanted {
                CopySource::Document(document) => {
                    items.push(Item::Document(document.name.clone(), document.content.clone()));
                }
                CopySource::Path(path) => find(&source, path, &mut items)?,
            }
        }
        if copy.sources.len() > 1 && !copy.to.ends_with('/') {
            let why = format!("several files cannot become `{}`; put a slash behind it", copy.to);
            return Err(why.into());
        }
        let exclude = Ignore::new(&copy.exclude.join("\n"));
        Ok(Self { source, copy, items, exclude, options })
    }

    /// All that the result depends on, but for the tree that is copied to.
    pub fn parts(&self) -> Result<Vec<String>> {
        let Copy { chown, chmod, parents, to, .. } = self.copy;
        let mut parts = vec![format!("{chown:?} {chmod:?} {parents} {to:?}")];
        for item in &self.items {
            match item {
                Item::Document(name, content) => parts.extend([format!("document {name}"), content.clone()]),
                Item::Found(path, ino) => {
                    parts.push(format!("path {path}"));
                    self.digest(&mut parts, *ino, "", 0)?;
                }
            }
        }
        Ok(parts)
    }

    fn digest(&self, parts: &mut Vec<String>, ino: Ino, below: &str, depth: usize) -> Result<()> {
        self.options.check_interrupt()?;
        let tree = self.source.tree();
        let Inode { mode, uid, gid, content, .. } = tree.0.inode(ino).map_err(|error| error.to_string())?;
        let what = match content {
            Content::Directory(_) => String::new(),
            Content::File(data) => match data.base() {
                Some(base) => self.source.hashed(base, self.options)?.blob.into(),
                None => String::new(),
            },
            Content::Symlink(target) => String::from_utf8_lossy(target).into_owned(),
            Content::Device { major, minor } => format!("{major} {minor}"),
            Content::Special => String::new(),
        };
        parts.extend([format!("{mode:o} {uid} {gid} {below}"), what]);
        for (name, ino) in self.children(ino, below, depth)? {
            self.digest(parts, ino, &name, depth + 1)?;
        }
        Ok(())
    }

    /// What is copied of a directory, by its path below what is copied.
    fn children(&self, ino: Ino, below: &str, depth: usize) -> Result<Vec<(String, Ino)>> {
        if depth > MAX_DEPTH {
            return Err(format!("`{below}` is nested too deep (more than {MAX_DEPTH} directories)").into());
        }
        let names = self.source.tree().names(ino).into_iter().map(|(name, ino)| {
            let name = String::from_utf8_lossy(&name).into_owned();
            (if below.is_empty() { name } else { format!("{below}/{name}") }, ino)
        });
        Ok(names.filter(|(path, _)| !self.exclude.hides(path)).collect())
    }

    /// Copies it.
    pub fn apply(&self, tree: &mut Tree, cache: &Cache, unpacks: bool) -> Result<()> {
        let read = |base: &Base| {
            let path = cache.blob(&base.blob);
            std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read `{}`: {error}", path.display()))
        };
        let owner = self.copy.chown.as_deref().map(|text| tree.owner(text, read)).transpose()?;
        let mode = self.copy.chmod.as_deref().map(permissions).transpose()?;
        let mut copying =
            Copying { from: self, tree, cache, how: Owner { owner, mode }, links: HashMap::new() };
        for item in &self.items {
            copying.item(item, unpacks)?;
        }
        Ok(())
    }
}

/// Permissions as they are written.
fn permissions(text: &str) -> Result<u32, String> {
    let digits = text.len() <= 5 && !text.is_empty() && text.bytes().all(|c| matches!(c, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o7777);
    mode.ok_or_else(|| format!("--chmod={text} is not known here; write an octal number, such as 755"))
}

/// Finds what a path or a pattern stands for.
fn find(source: &Source, path: &str, items: &mut Vec<Item>) -> Result<()> {
    let (tree, place) = match source {
        Source::Context(context) => (&context.tree, "the context"),
        Source::Tree(tree) => (*tree, "what is copied from"),
    };
    if path.starts_with("http://") || path.starts_with("https://") || path.starts_with("git@") {
        let why = format!("`{path}` is not here, and ADD does not download; download it before, and COPY it");
        return Err(why.into());
    }
    // Nothing is above the folder.
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let plain = parts.join("/");
    let missing = || {
        let hint = match source {
            Source::Context(_) => " (does .dockerignore hide it?)",
            Source::Tree(_) => "",
        };
        format!("there is no `{plain}` in {place}{hint}; correct the path")
    };
    match tree.find(&plain, true) {
        Ok(Ok(ino)) => {
            items.push(Item::Found(plain, ino));
            return Ok(());
        }
        _ if !is_pattern(&plain) => return Err(missing().into()),
        _ => {}
    }
    let mut found = vec![(String::new(), ROOT)];
    for part in &parts {
        let mut next = Vec::new();
        for (path, ino) in found {
            for (name, ino) in tree.names(ino) {
                let name = String::from_utf8_lossy(&name).into_owned();
                if matches(part, &name) {
                    next.push((if path.is_empty() { name } else { format!("{path}/{name}") }, ino));
                }
            }
            if next.len() > MAX_FOUND {
                return Err(format!("`{plain}` stands for more than {MAX_FOUND} files").into());
            }
        }
        found = next;
    }
    if found.is_empty() {
        return Err(missing().into());
    }
    items.extend(found.into_iter().map(|(path, ino)| Item::Found(path, ino)));
    Ok(())
}

/// The last name of a path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The directory that a path is in.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

struct Copying<'a> {
    from: &'a Selection<'a>,
    tree: &'a mut Tree,
    cache: &'a Cache<'a>,
    how: Owner,
    /// Files of several names that were copied, and what they are now.
    links: HashMap<Ino, Ino>,
}

impl Copying<'_> {
    /// Who gets directories that are made on the way.
    fn owner(&self) -> (u32, u32) {
        self.how.owner.unwrap_or_default()
    }

    fn item(&mut self, item: &Item, unpacks: bool) -> Result<()> {
        let copy = self.from.copy;
        let to = copy.to.trim_end_matches('/');
        let into = copy.to.ends_with('/')
            || self.from.items.len() > 1
            || matches!(self.tree.find(to, true), Ok(Ok(there)) if self.tree.0.directory(there).is_ok());
        let (path, ino) = match item {
            Item::Document(name, content) => {
                let failed = CreateError::read(std::path::Path::new(name));
                let base = self.cache.add(Cursor::new(content.as_bytes()), failed)?;
                let data = FileData::from_blob(&base.blob, base.size);
                let mut inode = Inode::new(S_IFREG | 0o644, 0, 0, Timestamp::default(), Content::File(data));
                inode.size = base.size;
                let (dir, name) = self.place(to, into, name)?;
                self.tree.put(dir, name.as_bytes(), inode, self.how)?;
                return Ok(());
            }
            Item::Found(path, ino) => (path.as_str(), *ino),
        };
        let source = self.from.source.tree();
        let kept = format!("{to}/{}", parent(path));
        let inode = source.0.inode(ino).map_err(|error| error.to_string())?;
        if inode.is_dir() {
            let target = if copy.parents { format!("{to}/{path}") } else { to.to_owned() };
            let dir = match self.tree.find(&target, true) {
                Ok(Ok(there)) => there,
                _ => {
                    let above = self.tree.directory(parent(&target), self.owner())?;
                    let own = Content::Directory(Directory::new(above));
                    let inode = Inode::new(inode.mode, inode.uid, inode.gid, inode.mtime, own);
                    self.tree.put(above, last(&target).as_bytes(), inode, self.how)?
                }
            };
            if self.tree.0.directory(dir).is_err() {
                return Err(format!("`{target}` is a file, and a directory does not replace it").into());
            }
            return self.children(ino, dir, "", 0);
        }
        if self.from.exclude.hides(last(path)) {
            return Ok(());
        }
        if unpacks
            && let Content::File(data) = &inode.content
            && let Some(base) = data.base()
            && self.unpack(base, path, to)?
        {
            return Ok(());
        }
        let (dir, name) = match copy.parents {
            true => (self.tree.directory(&kept, self.owner())?, last(path).to_owned()),
            false => self.place(to, into, last(path))?,
        };
        self.file(ino, dir, name.as_bytes())
    }

    /// Where a file comes to, and its name there.
    fn place(&mut self, to: &str, into: bool, name: &str) -> Result<(Ino, String)> {
        Ok(match into {
            true => (self.tree.directory(to, self.owner())?, name.to_owned()),
            false => (self.tree.directory(parent(to), self.owner())?, last(to).to_owned()),
        })
    }

    fn children(&mut self, from: Ino, to: Ino, below: &str, depth: usize) -> Result<()> {
        self.from.options.check_interrupt()?;
        for (path, ino) in self.from.children(from, below, depth)? {
            let name = last(&path).as_bytes();
            let inode = self.from.source.tree().0.inode(ino).map_err(|error| error.to_string())?;
            if inode.is_dir() {
                let own = Content::Directory(Directory::new(to));
                let made = Inode::new(inode.mode, inode.uid, inode.gid, inode.mtime, own);
                let dir = self.tree.put(to, name, made, self.how).map_err(|why| format!("{path}: {why}"))?;
                self.children(ino, dir, &path, depth + 1)?;
                self.tree.set_time(dir, inode.mtime)?;
            } else {
                self.file(ino, to, name)?;
            }
        }
        Ok(())
    }

    /// Copies what is no directory.
    fn file(&mut self, from: Ino, dir: Ino, name: &[u8]) -> Result<()> {
        let source = self.from.source.tree();
        let inode = source.0.inode(from).map_err(|error| error.to_string())?;
        if let Some(known) = self.links.get(&from).copied().filter(|known| self.tree.0.inode(*known).is_ok())
        {
            let there = self.tree.0.lookup(dir, name);
            if there.as_ref().is_ok_and(|there| *there == known) {
                return Ok(());
            }
            if there.is_ok() {
                let gone = self.tree.0.unlink(dir, name, Unlink::File, Timestamp::default());
                gone.map_err(|error| format!("{}: {error}", String::from_utf8_lossy(name)))?;
            }
            self.tree.0.link(dir, name, known, inode.mtime).map_err(|error| error.to_string())?;
            return Ok(());
        }
        let content = match &inode.content {
            Content::File(data) => match data.base() {
                Some(base) => {
                    let kept = self.content(base)?;
                    Content::File(FileData::from_blob(&kept.blob, kept.size))
                }
                None => Content::File(FileData::default()),
            },
            other => other.clone(),
        };
        let mut made = Inode::new(inode.mode, inode.uid, inode.gid, inode.mtime, content);
        if let Content::File(data) = &made.content {
            made.size = data.base().map_or(0, |base| base.size);
        }
        let put = self.tree.put(dir, name, made, self.how)?;
        if inode.nlink > 1 {
            self.links.insert(from, put);
        }
        Ok(())
    }

    /// A content, which is in the cache then.
    fn content(&self, base: &Base) -> Result<Base> {
        let Source::Context(context) = &self.from.source else { return Ok(base.clone()) };
        let hashed = context.hash(base, self.from.options)?;
        if self.cache.blob(&hashed.blob).metadata().is_ok_and(|meta| meta.len() == hashed.size) {
            return Ok(hashed);
        }
        let path = context.path(base);
        let file = os::open_no_follow(&path).map_err(BuildError::read(&path))?;
        let kept = self.cache.add(self.from.options.watch().read(file), CreateError::read(&path))?;
        match kept == hashed {
            true => Ok(kept),
            false => Err(BuildError::Changed { path }.into()),
        }
    }

    /// Unpacks a tar archive; false if a file is none.
    fn unpack(&mut self, base: &Base, name: &str, to: &str) -> Result<bool> {
        let kept = self.content(base)?;
        let path = self.cache.blob(&kept.blob);
        let what = format!("`{name}`");
        let open = || File::open(&path).map_err(BuildError::read(&path));
        let mut start = Vec::new();
        let mut stream = match unpacked(open()?, &what) {
            Err(CreateError::Compressed { program, .. }) => {
                let why = format!(
                    "{what} is compressed by {program}, which ADD does not unpack; unpack it before, or COPY it as it is"
                );
                return Err(why.into());
            }
            Err(_) => return Ok(false),
            Ok(stream) => stream,
        };
        let read = (&mut stream).take(512).read_to_end(&mut start);
        if read.is_err() || start.get(MARK) != Some(USTAR) {
            return Ok(false);
        }
        let from = self.from.options.watch().read(open()?);
        let wrong = |source| CreateError::Tar { what: what.clone(), source };
        let mut members = Members::new(BufReader::with_capacity(256 << 10, unpacked(from, &what)?));
        let limit = self.from.options.limit;
        let mut left = limit;
        self.tree.directory(to, self.owner())?;
        while let Some(member) = members.next().map_err(wrong)? {
            self.from.options.check_interrupt()?;
            let misplaced = |why: String| CreateError::Member {
                what: what.clone(),
                path: String::from_utf8_lossy(&member.path).into_owned(),
                why,
            };
            let path = inner(&member.path).map_err(misplaced)?;
            let mut size = None;
            let (kind, content) = match &member.kind {
                tarball::Kind::File(bytes) => {
                    left = left
                        .checked_sub(*bytes)
                        .ok_or_else(|| CreateError::TooLarge { what: what.clone(), limit })?;
                    let kept = self.cache.add(&mut members, |error| wrong(error.into()))?;
                    size = Some(kept.size);
                    (S_IFREG, Content::File(FileData::from_blob(&kept.blob, kept.size)))
                }
                tarball::Kind::Directory => (S_IFDIR, Content::Directory(Directory::new(ROOT))),
                tarball::Kind::Symlink(target) => (S_IFLNK, Content::Symlink(target.as_slice().into())),
                tarball::Kind::Device(block, major, minor) => {
                    let kind = if *block { S_IFBLK } else { S_IFCHR };
                    (kind, Content::Device { major: *major, minor: *minor })
                }
                tarball::Kind::Fifo => (S_IFIFO, Content::Special),
                tarball::Kind::HardLink(target) => {
                    let target = format!("{to}/{}", inner(target).map_err(misplaced)?);
                    let no_file =
                        || misplaced(format!("it is a link to `{target}`, which is no file before it"));
                    let known = self.tree.find(&target, false).ok().and_then(std::result::Result::ok);
                    let known = known.filter(|known| self.tree.0.directory(*known).is_err());
                    self.link(&format!("{to}/{path}"), known.ok_or_else(no_file)?).map_err(misplaced)?;
                    continue;
                }
            };
            if path.is_empty() {
                continue;
            }
            let whole = format!("{to}/{path}");
            let dir = self.tree.directory(parent(&whole), self.owner()).map_err(misplaced)?;
            let content = match content {
                Content::Directory(_) => Content::Directory(Directory::new(dir)),
                content => content,
            };
            let permissions = if kind == S_IFLNK { 0o777 } else { member.mode };
            let time = Timestamp::from_secs(member.mtime);
            let mut inode = Inode::new(kind | permissions, member.uid, member.gid, time, content);
            inode.size = size.unwrap_or(inode.size);
            self.tree.put(dir, last(&whole).as_bytes(), inode, self.how).map_err(misplaced)?;
        }
        Ok(true)
    }

    fn link(&mut self, path: &str, known: Ino) -> Result<(), String> {
        let dir = self.tree.directory(parent(path), self.owner())?;
        let name = last(path).as_bytes();
        match self.tree.0.lookup(dir, name) {
            Ok(there) if there == known => return Ok(()),
            Ok(_) => self
                .tree
                .0
                .unlink(dir, name, Unlink::File, Timestamp::default())
                .map_err(|error| error.to_string())?,
            Err(_) => {}
        }
        self.tree.0.link(dir, name, known, Timestamp::default()).map_err(|error| error.to_string())
    }
}

/// A path in an archive, which does not lead upwards.
fn inner(path: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(path).map_err(|_| "its name is not UTF-8, which fs.json cannot hold")?;
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    match parts.contains(&"..") || text.contains('\0') {
        true => Err("its path leads out of the tree".into()),
        false => Ok(parts.join("/")),
    }
}
