//! Reading the shape of the source tree.

use std::collections::HashMap;
use std::fs::{self, DirEntry, Metadata};
use std::path::{Path, PathBuf};

use super::index::{Entry, Node};
use super::{CreateError, Options};
use crate::image::service::{self, GuestService};
use crate::os::{self, Attributes, Special};

/// The deepest directory: far above any real one, and what the reader of fs.json goes down to.
pub const MAX_DEPTH: usize = 255;

/// A tree that has been walked but whose files have not been read.
#[derive(Default)]
pub struct Tree {
    /// The entries of the root, with empty blob names.
    pub entries: Vec<Entry>,
    /// The files to read, each once, with its size at the walk.
    pub files: Vec<(PathBuf, u64)>,
    /// For every file entry in the order of the walk, its place in `files`.
    pub visits: Vec<usize>,
    /// Number of entries.
    pub count: u64,
    /// Number of sockets left out.
    pub sockets: u64,
    /// Files with several names, by device and inode.
    links: HashMap<(u64, u64), usize>,
}

impl Tree {
    /// The size of all the files to read.
    pub fn bytes_to_read(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }
}

/// Walks the tree below `root`.
pub fn walk(root: &Path, options: &Options) -> Result<Tree, CreateError> {
    let mut tree = Tree::default();
    tree.entries = tree.directory(root, 0, options)?;
    Ok(tree)
}

impl Tree {
    /// Puts guest86 into the first folder that there is for it. Gives what the kernel is told then.
    pub fn put(&mut self, guest: &GuestService, owner: Option<(u32, u32)>) -> Option<&'static str> {
        let (uid, gid) = owner.unwrap_or_default();
        let number = self.files.len();
        for (folder, init) in service::FOLDERS {
            let mut before = 0;
            let Some(entries) = folder_in(&mut self.entries, folder, &mut before) else { continue };
            let at = entries.partition_point(|entry| *entry.name < *service::NAME);
            if entries.get(at).is_some_and(|entry| entry.name == service::NAME) {
                continue;
            }
            before += entries[..at].iter().map(files_in).sum::<usize>();
            let (name, size, node) = (service::NAME.into(), guest.size(), Node::File(String::new(), None));
            entries.insert(at, Entry { name, size, mtime: 0, mode: service::FILE, uid, gid, node });
            self.visits.insert(before, number);
            self.files.push((guest.path().into(), guest.size()));
            self.count += 1;
            return Some(init);
        }
        None
    }

    fn directory(&mut self, dir: &Path, depth: usize, options: &Options) -> Result<Vec<Entry>, CreateError> {
        options.check_interrupt()?;
        if depth > MAX_DEPTH {
            return Err(CreateError::TooDeep { path: dir.into(), max: MAX_DEPTH });
        }
        let mut children: Vec<DirEntry> =
            fs::read_dir(dir).and_then(Iterator::collect).map_err(CreateError::read(dir))?;
        children.sort_by_key(DirEntry::file_name);
        let mut entries = Vec::with_capacity(children.len());
        for child in children {
            let path = child.path();
            let meta = fs::symlink_metadata(&path).map_err(CreateError::read(&path))?;
            let attributes = os::attributes(&meta);
            let Some(node) = self.node(&path, &meta, &attributes, depth, options)? else { continue };
            let name = child.file_name().into_string().map_err(|_| CreateError::NotUtf8(path))?;
            let (uid, gid) = options.owner.unwrap_or((attributes.uid, attributes.gid));
            self.count += 1;
            entries.push(Entry {
                name,
                size: meta.len(),
                mtime: attributes.mtime,
                mode: attributes.mode,
                uid,
                gid,
                node,
            });
        }
        Ok(entries)
    }

    /// What depends on the type; `None` for what is left out.
    fn node(
        &mut self,
        path: &Path,
        meta: &Metadata,
        attributes: &Attributes,
        depth: usize,
        options: &Options,
    ) -> Result<Option<Node>, CreateError> {
        let kind = meta.file_type();
        Ok(Some(if kind.is_dir() {
            Node::Directory(self.directory(path, depth + 1, options)?)
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(CreateError::read(path))?;
            let target = target.into_os_string().into_string();
            Node::Symlink(target.map_err(|_| CreateError::NotUtf8(path.into()))?)
        } else {
            match attributes.special {
                Some(Special::Device(major, minor)) => Node::Device(major, minor),
                Some(Special::Fifo) => Node::Fifo,
                Some(Special::Socket) => {
                    self.sockets += 1;
                    return Ok(None);
                }
                None => {
                    let number = self.visit(path, meta.len(), attributes.link);
                    Node::File(String::new(), attributes.link.map(|_| number))
                }
            }
        }))
    }

    /// Notes a file to be read, once for all its names; returns its number.
    fn visit(&mut self, path: &Path, size: u64, link: Option<(u64, u64)>) -> usize {
        let next = self.files.len();
        let number = link.map_or(next, |link| *self.links.entry(link).or_insert(next));
        if number == next {
            self.files.push((path.into(), size));
        }
        self.visits.push(number);
        number
    }
}

/// The entries of a folder, to which no link leads, and how many files come before them in the order of the walk.
fn folder_in<'a>(
    entries: &'a mut Vec<Entry>,
    folder: &str,
    before: &mut usize,
) -> Option<&'a mut Vec<Entry>> {
    if folder.is_empty() {
        return Some(entries);
    }
    let (name, rest) = folder.split_once('/').unwrap_or((folder, ""));
    let at = entries.iter().position(|entry| entry.name == name)?;
    *before += entries[..at].iter().map(files_in).sum::<usize>();
    match &mut entries[at].node {
        Node::Directory(entries) => folder_in(entries, rest, before),
        _ => None,
    }
}

/// The files that an entry is or has in it.
fn files_in(entry: &Entry) -> usize {
    match &entry.node {
        Node::File(..) => 1,
        Node::Directory(entries) => entries.iter().map(files_in).sum(),
        _ => 0,
    }
}
