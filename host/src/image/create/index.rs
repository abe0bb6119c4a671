//! `fs.json`: the tree as v86's tools write it, version 3.
//!
//! An entry is an array: name, size, mtime, mode, uid, gid, and by type the children, the blob's
//! name, the link's target or the device numbers. v86's tools know no more. Ours are the devices,
//! FIFOs (which end at gid), and an eighth element: a number that the names of one file share.

use std::collections::HashSet;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::store::Blob;

/// The only version there is.
pub const FORMAT_VERSION: u32 = 3;

/// The whole file.
#[derive(Debug, Serialize)]
pub struct Index {
    /// The entries of the root directory.
    pub fsroot: Vec<Entry>,
    /// Bytes of everything, hard links counted once.
    pub size: u64,
    /// [`FORMAT_VERSION`].
    pub version: u32,
}

/// One file, directory, link, device or FIFO.
#[derive(Debug)]
pub struct Entry {
    /// Its name in its directory.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of its contents, seconds since 1970.
    pub mtime: i64,
    /// `st_mode`: type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What depends on the type.
    pub node: Node,
}

/// What an entry is.
#[derive(Debug)]
pub enum Node {
    /// A directory and its entries.
    Directory(Vec<Entry>),
    /// A file: its blob's name, and the number that its other names have too, if it has any.
    File(String, Option<usize>),
    /// A symbolic link's target.
    Symlink(String),
    /// A block or character device: major and minor number.
    Device(u32, u32),
    /// A FIFO.
    Fifo,
}

impl Entry {
    /// The entries of a directory.
    pub fn children(&self) -> Option<&[Entry]> {
        match &self.node {
            Node::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// Something that a boot loader could read as a file.
    pub fn is_loadable(&self) -> bool {
        matches!(self.node, Node::File(..) | Node::Symlink(_))
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(&self.name)?;
        list.serialize_element(&self.size)?;
        list.serialize_element(&self.mtime)?;
        list.serialize_element(&self.mode)?;
        list.serialize_element(&self.uid)?;
        list.serialize_element(&self.gid)?;
        match &self.node {
            Node::Directory(entries) => list.serialize_element(entries)?,
            Node::File(blob, link) => {
                list.serialize_element(blob)?;
                if let Some(link) = link {
                    list.serialize_element(link)?;
                }
            }
            Node::Symlink(target) => list.serialize_element(target)?,
            Node::Device(major, minor) => list.serialize_element(&[major, minor])?,
            Node::Fifo => {}
        }
        list.end()
    }
}

/// Puts the blobs' names and sizes into the files of the tree, which come in the order of the
/// walk, each with a number that hard links share. Returns the size of everything.
pub fn fill_in(entries: &mut [Entry], blobs: &mut dyn Iterator<Item = (usize, &Blob)>) -> u64 {
    fn fill(
        entries: &mut [Entry],
        blobs: &mut dyn Iterator<Item = (usize, &Blob)>,
        counted: &mut HashSet<usize>,
    ) -> u64 {
        let mut total = 0;
        for entry in entries {
            match &mut entry.node {
                Node::Directory(children) => total += entry.size + fill(children, blobs, counted),
                Node::File(name, _) => {
                    let Some((number, blob)) = blobs.next() else { continue };
                    name.clone_from(&blob.name);
                    // What was read, should the file have changed since the walk.
                    entry.size = blob.size;
                    if counted.insert(number) {
                        total += blob.size;
                    }
                }
                _ => total += entry.size,
            }
        }
        total
    }
    fill(entries, blobs, &mut HashSet::new())
}
