//! The entries of a directory.

use super::Ino;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The position after ".", where a listing begins with "..".
pub const COOKIE_DOT: u64 = 1;
/// The position after "..", where a listing begins with the first entry.
pub const COOKIE_DOT_DOT: u64 = 2;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name: any bytes but '/' and NUL.
    pub name: Arc<[u8]>,
    /// What it names.
    pub ino: Ino,
}

/// A directory: names in the order in which they were made.
///
/// Every entry has a number of its own that is never used again, so that a listing which is
/// interrupted goes on at the right place whatever is created and deleted meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The directory that ".." means; the root is its own parent.
    pub parent: Ino,
    by_cookie: BTreeMap<u64, Entry>,
    by_name: BTreeMap<Arc<[u8]>, u64>,
    last_cookie: u64,
}

impl Directory {
    /// An empty directory.
    pub fn new(parent: Ino) -> Self {
        Self { parent, by_cookie: BTreeMap::new(), by_name: BTreeMap::new(), last_cookie: COOKIE_DOT_DOT }
    }

    /// How many entries there are, without "." and "..".
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is nothing but "." and "..".
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What a name stands for.
    pub fn get(&self, name: &[u8]) -> Option<Ino> {
        self.by_cookie.get(self.by_name.get(name)?).map(|e| e.ino)
    }

    /// Adds a name, or lets an existing one mean something else; returns what it meant.
    pub fn insert(&mut self, name: &[u8], ino: Ino) -> Option<Ino> {
        if let Some(entry) = self.by_name.get(name).and_then(|c| self.by_cookie.get_mut(c)) {
            return Some(std::mem::replace(&mut entry.ino, ino));
        }
        let name: Arc<[u8]> = name.into();
        self.last_cookie += 1;
        self.by_name.insert(name.clone(), self.last_cookie);
        self.by_cookie.insert(self.last_cookie, Entry { name, ino });
        None
    }

    /// Gives the entry at a place, counted from the first, another name that is not there yet.
    pub(super) fn set_name(&mut self, place: usize, name: &[u8]) {
        if self.by_name.contains_key(name) {
            return;
        }
        if let Some((cookie, entry)) = self.by_cookie.iter_mut().nth(place) {
            self.by_name.remove(&entry.name);
            entry.name = name.into();
            self.by_name.insert(entry.name.clone(), *cookie);
        }
    }

    /// Takes a name away; returns what it meant.
    pub fn remove(&mut self, name: &[u8]) -> Option<Ino> {
        let cookie = self.by_name.remove(name)?;
        self.by_cookie.remove(&cookie).map(|e| e.ino)
    }

    /// The entries, without "." and "..".
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_cookie.values()
    }

    /// The entries behind a position (0 for the beginning), each with the position after it, without "." and "..".
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Entry)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_cookie.range((Excluded(cookie), Unbounded)).map(|(&c, e)| (c, e))
    }
}
