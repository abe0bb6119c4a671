//! The files of a stage: a tree in memory, whose contents are in the cache, each named by its SHA-256.

use std::collections::{BTreeMap, HashMap, VecDeque};

use env86_devices::fs::{
    Base, Content, Filesystem, FsError, FsJsonError, Ino, Inode, Maker, ROOT, S_IFDIR, S_IFMT, S_IFSOCK,
    S_IPERM, SetAttr, Timestamp, Unlink,
};

use crate::image::create::index::{Entry, FORMAT_VERSION, Index, Node, fill_in};
use crate::image::create::store::Blob;

/// Links that a path may lead through, and names that they may add to it.
const MAX_LINKS: usize = 40;
const MAX_NAMES: usize = 4096;
/// Directories in one another: what can be read again.
pub const MAX_DEPTH: usize = 255;
/// The SHA-256 of nothing: what an empty file has for a content.
pub const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Where users and groups are.
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// A tree.
#[derive(Clone, Debug, Default)]
pub struct Tree(pub Filesystem);

/// Entries as an index has them, without their contents' names.
pub struct Listed {
    /// The entries of the root.
    pub entries: Vec<Entry>,
    /// Contents, in the order in which they are met.
    pub contents: Vec<Base>,
    /// Which of them each file has, in the order of the files.
    pub visits: Vec<usize>,
    /// Entries in all.
    pub count: u64,
}

/// How files are put into a tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    /// Instead of their own.
    pub owner: Option<(u32, u32)>,
    /// Permissions, instead of their own.
    pub mode: Option<u32>,
}

fn told(error: FsError) -> String {
    error.to_string()
}

impl Tree {
    /// Reads an index.
    pub fn new(json: &[u8]) -> Result<Self, FsJsonError> {
        Filesystem::from_json(json).map(Self)
    }

    /// The index, in which contents have the names that they have in the tree.
    pub fn index(&self) -> Result<Index, String> {
        self.index_by(|ino| self.content(ino))
    }

    /// The same with other contents; a file without one is empty.
    pub fn index_by(&self, content: impl Fn(Ino) -> Option<Base>) -> Result<Index, String> {
        let Listed { mut entries, contents, visits, .. } = self.list_by(&content)?;
        let blobs: Vec<Blob> =
            contents.into_iter().map(|base| Blob { name: base.blob.into(), size: base.size }).collect();
        let size = fill_in(&mut entries, &mut visits.iter().map(|&at| (at, &blobs[at])));
        Ok(Index { fsroot: entries, size, version: FORMAT_VERSION })
    }

    /// The entries, in the order of their names.
    pub fn list(&self) -> Result<Listed, String> {
        self.list_by(&|ino| self.content(ino))
    }

    fn content(&self, ino: Ino) -> Option<Base> {
        match &self.0.inode(ino).ok()?.content {
            Content::File(data) => data.base().cloned(),
            _ => None,
        }
    }

    fn list_by(&self, content: &dyn Fn(Ino) -> Option<Base>) -> Result<Listed, String> {
        let mut listing = Listing {
            tree: self,
            content,
            order: HashMap::new(),
            listed: Listed { entries: Vec::new(), contents: Vec::new(), visits: Vec::new(), count: 0 },
        };
        let entries = listing.entries(ROOT, 0)?;
        Ok(Listed { entries, ..listing.listed })
    }

    /// The names in a directory, in their order; nothing if it is none.
    pub fn names(&self, dir: Ino) -> BTreeMap<Vec<u8>, Ino> {
        let directory = self.0.directory(dir).ok();
        let entries = directory.into_iter().flat_map(|directory| directory.entries());
        entries.map(|entry| (entry.name.to_vec(), entry.ino)).collect()
    }

    /// Goes along a path, and along links within the tree, the last one, too, if `follows`. Gives what is there, or the
    /// directory and the name that is missing in it; an error if something on the way is missing or no directory.
    pub fn find(&self, path: &str, follows: bool) -> Result<Result<Ino, (Ino, String)>, String> {
        let mut names: VecDeque<String> = path.split('/').map(Into::into).collect();
        let mut dir = ROOT;
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if matches!(name.as_str(), "" | ".") {
                continue;
            }
            let is_last = names.iter().all(|name| matches!(name.as_str(), "" | "."));
            let missing = |error: FsError| match self.0.directory(dir) {
                Err(_) => format!("`{path}` leads through what is no directory"),
                Ok(_) => told(error),
            };
            let found = match self.0.lookup(dir, name.as_bytes()) {
                Ok(found) => found,
                Err(_) if self.0.directory(dir).is_ok() && name.len() <= env86_devices::fs::NAME_MAX => {
                    return match is_last {
                        true => Ok(Err((dir, name))),
                        false => Err(format!("there is no `{name}` on the way to `{path}`")),
                    };
                }
                Err(error) => return Err(missing(error)),
            };
            let inode = self.0.inode(found).map_err(told)?;
            match &inode.content {
                Content::Symlink(target) if follows || !is_last => {
                    let target = String::from_utf8_lossy(target).into_owned();
                    links += 1;
                    if links > MAX_LINKS || names.len() + target.split('/').count() > MAX_NAMES {
                        return Err(format!("`{path}` leads through too many links"));
                    }
                    if target.starts_with('/') {
                        dir = ROOT;
                    }
                    target.split('/').rev().for_each(|name| names.push_front(name.into()));
                }
                _ if is_last => return Ok(Ok(found)),
                _ => dir = found,
            }
        }
        Ok(Ok(dir))
    }

    /// The directory at a path; those that are missing are made, and belong to `owner`.
    pub fn directory(&mut self, path: &str, owner: (u32, u32)) -> Result<Ino, String> {
        let mut at = ROOT;
        let mut made = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            made = format!("{made}/{name}");
            at = match self.find(&made, true)? {
                Ok(found) => found,
                Err((dir, name)) => {
                    let maker = Maker {
                        mode: S_IFDIR | 0o755,
                        uid: owner.0,
                        gid: owner.1,
                        now: Timestamp::default(),
                    };
                    self.0.create(dir, name.as_bytes(), maker).map_err(told)?
                }
            };
            self.0.directory(at).map_err(|_| format!("`{made}` is no directory"))?;
        }
        Ok(at)
    }

    /// Gives a name in a directory to an inode, or what has the name its attributes, if both are directories.
    pub fn put(&mut self, dir: Ino, name: &[u8], inode: Inode, how: Owner) -> Result<Ino, String> {
        let mut inode = inode;
        if let Some((uid, gid)) = how.owner {
            (inode.uid, inode.gid) = (uid, gid);
        }
        let is_link = matches!(inode.content, Content::Symlink(_));
        if let Some(mode) = how.mode.filter(|_| !is_link) {
            inode.mode = inode.mode & !S_IPERM | mode & S_IPERM;
        }
        if let Some(there) = self.0.directory(dir).map_err(told)?.get(name) {
            let is_directory = self.0.inode(there).map_err(told)?.is_dir();
            if is_directory && inode.is_dir() {
                let set = SetAttr {
                    mode: Some(inode.mode),
                    uid: Some(inode.uid),
                    gid: Some(inode.gid),
                    mtime: Some(inode.mtime),
                    ..SetAttr::default()
                };
                self.0.set_attr(there, &set, inode.mtime).map_err(told)?;
                return Ok(there);
            }
            let shown = String::from_utf8_lossy(name);
            if is_directory {
                return Err(format!("`{shown}` is a directory there, and a file does not replace it"));
            }
            if inode.is_dir() {
                return Err(format!("`{shown}` is a file there, and a directory does not replace it"));
            }
            self.0.unlink(dir, name, Unlink::File, Timestamp::default()).map_err(told)?;
        }
        self.0.add(dir, name, inode).map_err(told)
    }

    /// A directory's time, which what is put into it changes.
    pub fn set_time(&mut self, ino: Ino, time: Timestamp) -> Result<(), String> {
        let set = SetAttr { mtime: Some(time), ..SetAttr::default() };
        self.0.set_attr(ino, &set, time).map_err(told)
    }

    /// The numbers of `USER[:GROUP]`; names are looked up by what `read` gives of a file in the tree.
    pub fn owner(
        &self,
        text: &str,
        read: impl Fn(&Base) -> Result<String, String>,
    ) -> Result<(u32, u32), String> {
        let file = |path: &str| -> Result<Vec<Vec<String>>, String> {
            let Ok(Ok(found)) = self.find(path, true) else { return Ok(Vec::new()) };
            let Ok(Inode { content: Content::File(data), .. }) = self.0.inode(found) else {
                return Ok(Vec::new());
            };
            let text = data.base().map(&read).transpose()?.unwrap_or_default();
            Ok(text.lines().map(|line| line.split(':').map(Into::into).collect()).collect())
        };
        let field = |path: &str, name: &str, at: usize| -> Result<u32, String> {
            let lines = file(path)?;
            let line = lines.iter().find(|line| line.first().is_some_and(|known| known == name));
            let number = line.and_then(|line| line.get(at)?.parse().ok());
            number.ok_or_else(|| {
                format!("there is no `{name}` in the image's {path}; give a number, or add it first")
            })
        };
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let group = group.filter(|group| !group.is_empty());
        let uid = match user {
            "" => 0,
            user => user.parse().or_else(|_| field(USERS, user, 2))?,
        };
        let gid = match group {
            Some(group) => group.parse().or_else(|_| field(GROUPS, group, 2))?,
            None if user.is_empty() => 0,
            None if user.parse::<u32>().is_ok() => uid,
            None => field(USERS, user, 3)?,
        };
        Ok((uid, gid))
    }
}

struct Listing<'a> {
    tree: &'a Tree,
    content: &'a dyn Fn(Ino) -> Option<Base>,
    /// Which of the contents an inode's is.
    order: HashMap<Ino, usize>,
    listed: Listed,
}

impl Listing<'_> {
    fn entries(&mut self, dir: Ino, depth: usize) -> Result<Vec<Entry>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("there are more than {MAX_DEPTH} directories in one another"));
        }
        let names = self.tree.names(dir);
        // A socket is of use only while who has made it runs.
        let is_socket =
            |ino: &Ino| self.tree.0.inode(*ino).is_ok_and(|inode| inode.mode & S_IFMT == S_IFSOCK);
        let names: Vec<_> = names.into_iter().filter(|(_, ino)| !is_socket(ino)).collect();
        names.into_iter().map(|(name, ino)| self.entry(name, ino, depth)).collect()
    }

    fn entry(&mut self, name: Vec<u8>, ino: Ino, depth: usize) -> Result<Entry, String> {
        let inode = self.tree.0.inode(ino).map_err(told)?;
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|error| {
                let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
                format!("`{}` is not UTF-8, which fs.json cannot hold; rename it", shown.escape_debug())
            })
        };
        let node = match &inode.content {
            Content::Directory(_) => Node::Directory(self.entries(ino, depth + 1)?),
            Content::File(_) => {
                let next = self.listed.contents.len();
                let order = *self.order.entry(ino).or_insert(next);
                if order == next {
                    let empty = || Base { blob: EMPTY.into(), size: 0 };
                    self.listed.contents.push((self.content)(ino).unwrap_or_else(empty));
                }
                self.listed.visits.push(order);
                Node::File(String::new(), (inode.nlink > 1).then_some(order))
            }
            Content::Symlink(target) => Node::Symlink(text(target.to_vec())?),
            Content::Device { major, minor } => Node::Device(*major, *minor),
            Content::Special => Node::Fifo,
        };
        self.listed.count += 1;
        let (size, mtime, mode) = (inode.size, inode.mtime.secs, inode.mode);
        Ok(Entry { name: text(name)?, size, mtime, mode, uid: inode.uid, gid: inode.gid, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use env86_devices::fs::{FileData, S_IFREG};

    fn tree(entries: &str) -> Tree {
        Tree::new(format!("{{\"fsroot\":[{entries}],\"size\":0,\"version\":3}}").as_bytes()).unwrap()
    }

    fn json(tree: &Tree) -> String {
        serde_json::to_string(&tree.index().unwrap()).unwrap()
    }

    const SOME: &str = r#"["d",4096,7,16877,1,2,[["f",5,8,33188,0,0,"aa",0],["l",4,9,41471,0,0,"../d"]]],["g",5,8,33188,0,0,"aa",0],["n",0,0,8612,0,5,[1,3]],["p",0,0,4516,0,0]"#;

    #[test]
    fn an_index_is_read_and_written_again() {
        let tree = tree(SOME);
        let text = json(&tree);
        assert!(text.contains(SOME), "{text}");
        assert_eq!(json(&Tree::new(text.as_bytes()).unwrap()), text);
        assert_eq!(tree.list().unwrap().count, 6);
    }

    #[test]
    fn paths_lead_through_links_and_stay_in_the_tree() {
        let tree = tree(SOME);
        let find = |path: &str| tree.find(path, true);
        let f = find("/d/f").unwrap().unwrap();
        for path in ["d/l/f", "/d/l/l/f", "/../../d/f", "d/./l/../d/f/"] {
            assert_eq!(find(path).unwrap().unwrap(), f, "{path}");
        }
        assert_eq!(find("/").unwrap().unwrap(), ROOT);
        assert!(tree.find("/d/l", false).unwrap() != find("/d/l").unwrap());
        assert_eq!(find("/d/new").unwrap().unwrap_err().1, "new");
        assert!(find("/no/new").unwrap_err().contains("no `no`"));
        assert!(find("/g/x").unwrap_err().contains("no directory"));
        let around = self::tree(r#"["a",1,0,41471,0,0,"b"],["b",1,0,41471,0,0,"a"]"#);
        assert!(around.find("/a/x", true).unwrap_err().contains("too many links"));
    }

    #[test]
    fn directories_are_made_and_files_replaced_but_not_each_other() {
        let mut tree = tree(SOME);
        let dir = tree.directory("/d/l/x/y", (3, 4)).unwrap();
        assert_eq!(tree.find("/d/x/y", true).unwrap().unwrap(), dir);
        assert_eq!((tree.0.inode(dir).unwrap().uid, tree.0.inode(dir).unwrap().mode), (3, 0o40755));
        assert!(tree.directory("/g/x", (0, 0)).unwrap_err().contains("no directory"));
        let file =
            || Inode::new(S_IFREG | 0o644, 1, 1, Timestamp::from_secs(5), Content::File(FileData::default()));
        let how = Owner { owner: Some((8, 9)), mode: Some(0o4700) };
        let put = tree.put(ROOT, b"g", file(), how).unwrap();
        let inode = tree.0.inode(put).unwrap();
        assert_eq!((inode.uid, inode.gid, inode.mode, inode.size), (8, 9, S_IFREG | 0o4700, 0));
        // Its other name has what it had.
        assert_eq!(tree.0.inode(tree.find("/d/f", true).unwrap().unwrap()).unwrap().nlink, 1);
        assert!(tree.put(ROOT, b"d", file(), how).unwrap_err().contains("does not replace"));
    }

    #[test]
    fn owners_are_numbers_or_in_the_image_s_files() {
        let text = r#"["etc",0,0,16877,0,0,[["group",1,0,33188,0,0,"g"],["passwd",1,0,33188,0,0,"p"]]]"#;
        let tree = tree(text);
        let read = |base: &Base| {
            Ok(if &*base.blob == "p" { "app:x:7:8::/:" } else { "root:x:0:\nwheel:x:9:" }.to_owned())
        };
        let of = |text: &str| tree.owner(text, read);
        for (text, wanted) in [
            ("5", (5, 5)),
            ("5:6", (5, 6)),
            ("app", (7, 8)),
            ("app:wheel", (7, 9)),
            ("", (0, 0)),
            (":wheel", (0, 9)),
        ] {
            assert_eq!(of(text).unwrap(), wanted, "{text}");
        }
        assert!(of("none").unwrap_err().contains("no `none` in the image's /etc/passwd"));
        assert!(of("app:none").unwrap_err().contains("/etc/group"));
        assert!(Tree::default().owner("app", read).is_err());
    }
}
