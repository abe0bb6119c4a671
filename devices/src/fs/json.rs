//! The index of an image: `fs.json`, version 3.
//!
//! `{"fsroot": [entry…], "size": bytes, "version": 3}`. An entry is `[name, size, mtime, mode, uid, gid, x]`,
//! with x the entries of a directory, the blob of a file or the target of a symbolic link. Ours are
//! `[major, minor]` for a device, nothing for FIFOs and sockets, and, after x, a number that hard
//! links to one inode share.

use super::{Content, Directory, FileData, Filesystem, FsResult, Ino, Inode, ROOT, Timestamp, check_name};
use super::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_IPERM};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashMap;
use std::fmt;
use thiserror::Error;
use tracing::warn;

/// The version of the index that is understood.
const VERSION: u64 = 3;
/// Directories in each other; deeper ones would not fit the stack of a browser.
const MAX_DEPTH: usize = 256;
/// The most inodes of an index.
const MAX_INODES: usize = 1 << 24;

/// Bits of a Go file mode that stand for Unix ones.
const GO_SETUID: u64 = 1 << 23;
const GO_SETGID: u64 = 1 << 22;
const GO_STICKY: u64 = 1 << 20;

/// Why an index is not usable.
#[derive(Debug, Error)]
pub enum FsJsonError {
    /// An entry is not as it should be, or the text ends in it.
    #[error("fs.json: entry {path}: {reason}")]
    Entry {
        /// The path of the entry.
        path: String,
        /// What is wrong, and where in the text.
        reason: serde_json::Error,
    },
    /// The text is not an index.
    #[error("fs.json is not an index of an image: {0}")]
    Syntax(serde_json::Error),
    /// It is an index of another version.
    #[error("fs.json has version {0}, and only version 3 is known; make the image again")]
    Version(u64),
    /// A part is missing.
    #[error("fs.json has no \"{0}\"")]
    Missing(&'static str),
}

impl Filesystem {
    /// The filesystem of an image, from its index (the text of `fs.json`).
    pub fn from_json(json: &[u8]) -> Result<Self, FsJsonError> {
        let mut loader = Loader { fs: Self::default(), path: Vec::new(), hard_links: HashMap::new() };
        let mut text = serde_json::Deserializer::from_slice(json);
        // Our own limit of depth names the entry.
        text.disable_recursion_limit();
        let parsed = text.deserialize_map(Top(&mut loader)).and_then(|top| text.end().map(|()| top));
        let top = match parsed {
            Ok(top) => top,
            Err(reason) if loader.path.is_empty() => return Err(FsJsonError::Syntax(reason)),
            Err(reason) => {
                let path = loader.path.iter().map(|name| format!("/{name}")).collect();
                return Err(FsJsonError::Entry { path, reason });
            }
        };
        let version = top.version.ok_or(FsJsonError::Missing("version"))?;
        if version != VERSION {
            return Err(FsJsonError::Version(version));
        }
        if !top.has_root {
            return Err(FsJsonError::Missing("fsroot"));
        }
        loader.fs.used_size = top.size;
        loader.fs.memory_limit += loader.fs.memory;
        Ok(loader.fs)
    }
}

/// What is being filled, and where in it the parser is.
struct Loader {
    fs: Filesystem,
    path: Vec<String>,
    hard_links: HashMap<u64, Ino>,
}

#[derive(Default)]
struct TopLevel {
    has_root: bool,
    size: u64,
    version: Option<u64>,
}

/// The outermost object.
struct Top<'a>(&'a mut Loader);

impl<'de> Visitor<'de> for Top<'_> {
    type Value = TopLevel;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with fsroot, size and version")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TopLevel, A::Error> {
        let mut top = TopLevel::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "fsroot" if top.has_root => return Err(A::Error::custom("fsroot is there twice")),
                "fsroot" => {
                    map.next_value_seed(Children { loader: self.0, dir: ROOT })?;
                    top.has_root = true;
                }
                "size" => top.size = map.next_value::<Number>()?.whole(),
                "version" => top.version = Some(map.next_value::<Number>()?.whole()),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(top)
    }
}

/// A number however it is written; an index made by a script can have fractions of seconds.
struct Number(f64, Option<i128>);

impl Number {
    fn whole(&self) -> u64 {
        self.1.map_or(self.0 as u64, |n| n.clamp(0, u64::MAX.into()) as u64)
    }

    fn time(&self) -> Timestamp {
        match self.1 {
            Some(secs) => Timestamp::from_secs(secs.clamp(i64::MIN.into(), i64::MAX.into()) as i64),
            None => {
                let secs = self.0.floor();
                let nanos = ((self.0 - secs) * 1e9) as u32;
                Timestamp { secs: secs as i64, nanos: nanos.min(999_999_999) }
            }
        }
    }
}

impl<'de> serde::Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64, Some(value.into())))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64, Some(value.into())))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
                Ok(Number(value, None))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

/// The list of a directory's entries.
struct Children<'a> {
    loader: &'a mut Loader,
    dir: Ino,
}

impl<'de> DeserializeSeed<'de> for Children<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Children<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(OneEntry { loader: self.loader, dir: self.dir })?.is_some() {
            self.loader.path.pop();
        }
        Ok(())
    }
}

/// One entry. It leaves its name in the path, so that an error can name it.
struct OneEntry<'a> {
    loader: &'a mut Loader,
    dir: Ino,
}

impl<'de> DeserializeSeed<'de> for OneEntry<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

/// The next element of an entry, which has to be there.
fn element<'de, T: serde::Deserialize<'de>, A: SeqAccess<'de>>(
    seq: &mut A,
    what: &str,
) -> Result<T, A::Error> {
    seq.next_element()?.ok_or_else(|| A::Error::custom(format_args!("its {what} is missing")))
}

impl<'de> Visitor<'de> for OneEntry<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry: a list of name, size, mtime, mode, uid, gid and content")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { loader, dir } = self;
        let name: String = element(&mut seq, "name")?;
        loader.path.push(name.clone());
        if loader.path.len() > MAX_DEPTH {
            return Err(A::Error::custom(format_args!("it is more than {MAX_DEPTH} directories deep")));
        }
        if loader.fs.count() >= MAX_INODES {
            return Err(A::Error::custom(format_args!("there are more than {MAX_INODES} entries")));
        }
        let size = element::<Number, _>(&mut seq, "size")?.whole();
        let time = element::<Number, _>(&mut seq, "time")?.time();
        let mode = unix_mode(element::<Number, _>(&mut seq, "mode")?.whole());
        let uid = element::<Number, _>(&mut seq, "uid")?.whole() as u32;
        let gid = element::<Number, _>(&mut seq, "gid")?.whole() as u32;

        let content = match mode & S_IFMT {
            S_IFDIR => Content::Directory(Directory::new(dir)),
            S_IFREG => {
                let blob: Option<String> = seq.next_element::<Option<String>>()?.flatten();
                match blob {
                    Some(blob) => Content::File(FileData::from_blob(&blob, size)),
                    None if size == 0 => Content::File(FileData::default()),
                    None => return Err(A::Error::custom("it has no blob")),
                }
            }
            S_IFLNK => Content::Symlink(element::<String, _>(&mut seq, "target")?.into_bytes().into()),
            S_IFCHR | S_IFBLK => {
                let numbers: Option<(u32, u32)> = seq.next_element::<Option<_>>()?.flatten();
                let (major, minor) = numbers.unwrap_or_default();
                Content::Device { major, minor }
            }
            S_IFIFO | S_IFSOCK => {
                seq.next_element::<IgnoredAny>()?;
                Content::Special
            }
            _ => {
                warn!(target: "fs", path = loader.path.join("/"), mode, "Entry of no known type left out");
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
        };
        let mut inode = Inode::new(mode, uid, gid, time, content);
        if !matches!(inode.content, Content::Symlink(_)) {
            inode.size = size;
        }
        let name = name.as_bytes();
        loader.check(dir, name).map_err(A::Error::custom)?;
        if inode.is_dir() {
            let below = loader.fs.place(dir, name, inode).map_err(A::Error::custom)?;
            seq.next_element_seed(Children { loader, dir: below })?;
        } else {
            let link = seq.next_element::<Option<u64>>()?.flatten();
            loader.place(dir, name, inode, link).map_err(A::Error::custom)?;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

impl Loader {
    fn check(&self, dir: Ino, name: &[u8]) -> Result<(), &'static str> {
        match check_name(name).and_then(|()| self.fs.directory(dir)) {
            Err(_) => Err("its name is not one that a file can have"),
            Ok(directory) if directory.get(name).is_some() => Err("its name is there twice"),
            Ok(_) => Ok(()),
        }
    }

    /// Names a new inode, or the one that already has the number of the hard link.
    fn place(&mut self, dir: Ino, name: &[u8], inode: Inode, link: Option<u64>) -> FsResult<()> {
        let first = link.and_then(|id| self.hard_links.get(&id).copied());
        if let Some(first) = first {
            self.fs.inode_mut(first)?.nlink += 1;
            self.fs.enter(dir, name, first)?;
            return Ok(());
        }
        let ino = self.fs.place(dir, name, inode)?;
        if let Some(id) = link {
            self.hard_links.insert(id, ino);
        }
        Ok(())
    }
}

/// A mode as Linux has it, from one that may be Go's: the type and permissions are in their places,
/// set-user-ID, set-group-ID and sticky may be in higher bits.
fn unix_mode(mode: u64) -> u32 {
    let go = [(GO_SETUID, 0o4000), (GO_SETGID, 0o2000), (GO_STICKY, 0o1000)];
    let special: u32 = go.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, unix)| unix).sum();
    mode as u32 & (S_IFMT | S_IPERM) | special
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::NoBlobs;
    use std::collections::BTreeMap;

    fn load(entries: &str) -> Result<Filesystem, FsJsonError> {
        Filesystem::from_json(format!("{{\"fsroot\":[{entries}],\"size\":1000,\"version\":3}}\n").as_bytes())
    }

    fn error(entries: &str) -> String {
        load(entries).unwrap_err().to_string()
    }

    fn at<'a>(fs: &'a Filesystem, path: &str) -> &'a Inode {
        fs.inode(fs.resolve(path.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn all_types_with_owners_and_times() {
        let fs = load(
            r#"["bin",4096,7,16877,0,0,[["sh",5,8,35309,0,2,"abcd.bin"],["l",2,9,41471,1,1,"sh"]]],
               ["null",0,1,8630,0,0,[1,3]],["loop",0,1,25008,0,6,[7,0]],["pipe",0,1,4516,0,0],["s",0,1,49645,0,0]"#,
        )
        .unwrap();
        let bin = at(&fs, "bin");
        assert_eq!((bin.mode, bin.nlink, bin.size, bin.mtime.secs), (0o40755, 2, 4096, 7));
        assert_eq!(fs.inode(ROOT).unwrap().nlink, 3);
        let sh = at(&fs, "bin/sh");
        assert_eq!((sh.mode, sh.uid, sh.gid, sh.size), (0o104755, 0, 2, 5));
        let mut store = BTreeMap::from([("abcd.bin".to_owned(), b"hello".to_vec())]);
        assert_eq!(fs.read_all(&mut store, fs.resolve(b"/bin/sh").unwrap()), Ok(b"hello".to_vec()));
        assert_eq!(at(&fs, "bin/l").content, Content::Symlink(b"sh".as_slice().into()));
        assert_eq!(at(&fs, "null").content, Content::Device { major: 1, minor: 3 });
        assert_eq!(at(&fs, "loop").mode & S_IFMT, S_IFBLK);
        assert_eq!((at(&fs, "pipe").mode & S_IFMT, &at(&fs, "pipe").content), (S_IFIFO, &Content::Special));
        assert_eq!(at(&fs, "s").mode & S_IFMT, S_IFSOCK);
        assert_eq!(fs.used_size, 1000);
        let mut unique: Vec<_> = fs.inodes().iter().flatten().map(|i| i.qid_path).collect();
        unique.dedup();
        assert_eq!(unique.len(), 8);
    }

    #[test]
    fn modes_of_go() {
        assert_eq!(unix_mode(2_147_500_525), 0o40755);
        assert_eq!(unix_mode(2_148_549_119), 0o41777);
        assert_eq!(unix_mode(33188), 0o100644);
        assert_eq!(unix_mode(8_421_869), 0o104755);
        assert_eq!(unix_mode(134_259_199), 0o120777);
        assert_eq!(unix_mode(69_239_204), 0o100644);
    }

    #[test]
    fn hard_links_share_an_inode() {
        let fs = load(r#"["a",3,1,33188,0,0,"x",77],["b",3,1,33188,0,0,"x",77],["c",3,1,33188,0,0,"x",78]"#)
            .unwrap();
        assert_eq!(fs.resolve(b"a"), fs.resolve(b"b"));
        assert_ne!(fs.resolve(b"a"), fs.resolve(b"c"));
        assert_eq!(at(&fs, "a").nlink, 2);
    }

    #[test]
    fn errors_name_the_entry() {
        let file = r#"["f",1,1,33188,0,0]"#;
        assert!(error(&format!(r#"["usr",0,1,16877,0,0,[{file}]]"#)).contains("/usr/f: it has no blob"));
        assert!(error(r#"["x",1,1,"mode",0,0,""]"#).contains("entry /x: invalid type"));
        assert!(error(r#"["x",1,1]"#).contains("entry /x: its mode is missing"));
        assert!(error(r#"["a/b",1,1,33188,0,0,"x"]"#).contains("its name is not one"));
        assert!(error(r#"["..",1,1,33188,0,0,"x"]"#).contains("its name is not one"));
        assert!(
            error(r#"["a",1,1,33188,0,0,"x"],["a",1,1,33188,0,0,"x"]"#).contains("/a: its name is there")
        );
        let deep = r#"["d",0,1,16877,0,0,["#.repeat(300);
        assert!(error(&deep).contains("256 directories deep"));
        let text = |t: &str| Filesystem::from_json(t.as_bytes()).unwrap_err().to_string();
        assert!(text(r#"{"fsroot":[],"size":0,"version":2}"#).contains("version 2"));
        assert!(text(r#"{"fsroot":[],"size":0}"#).contains("no \"version\""));
        assert!(text(r#"{"size":0,"version":3}"#).contains("no \"fsroot\""));
        assert!(text(r#"{"fsroot":[["a","#).contains("entry /a"));
        assert!(text("nonsense").contains("is not an index"));
    }

    #[test]
    fn a_hundred_thousand_entries() {
        let files: Vec<_> =
            (0..1000).map(|i| format!(r#"["file{i}",10,1,33188,0,0,"0123abcd.bin"]"#)).collect();
        let dirs: Vec<_> =
            (0..100).map(|i| format!(r#"["dir{i}",0,1,16877,0,0,[{}]]"#, files.join(","))).collect();
        let fs = load(&dirs.join(",")).unwrap();
        assert_eq!(fs.count(), 100_101);
        assert!(fs.read_all(&mut NoBlobs, fs.resolve(b"dir9/file9").unwrap()).is_err());
    }
}
