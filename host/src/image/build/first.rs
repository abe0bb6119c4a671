//! Which program the kernel of an image that is built starts first, and guest86 for images that have none.

use std::fs::File;

use env86_devices::fs::{Content, FileData, Ino, Inode, Timestamp, Unlink};

use super::BuildError;
use super::cache::Cache;
use super::tree::{Owner, Tree};
use crate::image::ImageConfig;
use crate::image::create::{CreateError, INITS, SHELL};
use crate::image::service::{FILE, FOLDERS, GuestService, NAME};

/// What the kernel is told of it: nothing where it finds one by itself, or where the base says so in its own words.
///
/// What the base was told by a program of ours was said for other files, and is taken out of the configuration.
pub fn first(tree: &Tree, config: &mut ImageConfig) -> Option<&'static str> {
    let is_there = |path: &str| matches!(tree.find(path, true), Ok(Ok(_)));
    let guest = FOLDERS.iter().find(|(folder, _)| is_there(&format!("{folder}/{NAME}")));
    let guest = guest.map(|(_, init)| *init);
    let starts_guest = |word: &str| FOLDERS.iter().any(|(_, init)| *init == word);
    let mut had_guest = false;
    if let Some(line) = &config.cmdline {
        had_guest = line.split_whitespace().any(starts_guest);
        if !had_guest && !line.split_whitespace().any(|word| word == SHELL) {
            return None;
        }
        let is_kept = |word: &&str| *word != SHELL && !starts_guest(word);
        config.cmdline = Some(line.split_whitespace().filter(is_kept).collect::<Vec<_>>().join(" "));
    }
    if had_guest {
        config.has_guest_service = guest.is_some();
    }
    match guest {
        Some(init) if had_guest => Some(init),
        _ if INITS.iter().any(|path| is_there(path)) => None,
        guest => Some(guest.unwrap_or(SHELL)),
    }
}

/// Puts guest86 into the first folder that there is for it, which keeps its time. Gives what the kernel is told so that it
/// is started first.
pub fn put(tree: &mut Tree, guest: &GuestService, cache: &Cache) -> Result<&'static str, BuildError> {
    for (folder, init) in FOLDERS {
        let Ok(Ok(dir)) = tree.find(folder, true) else { continue };
        if !tree.0.directory(dir).is_ok_and(|directory| directory.get(NAME.as_bytes()).is_none()) {
            continue;
        }
        let file = File::open(guest.path()).map_err(BuildError::read(guest.path()))?;
        let base = cache.add(file, CreateError::read(guest.path()))?;
        let content = Content::File(FileData::from_blob(&base.blob, base.size));
        let mut inode = Inode::new(FILE, 0, 0, Timestamp::default(), content);
        inode.size = base.size;
        keeping_time(tree, dir, |tree| tree.put(dir, NAME.as_bytes(), inode, Owner::default()).map(drop))?;
        return Ok(init);
    }
    Err(CreateError::NoPlace.into())
}

/// Takes out of a tree, which a machine may have changed meanwhile, the guest86 that the kernel is told of by `init`.
pub fn take_out(tree: &mut Tree, init: &str) -> Result<(), BuildError> {
    let path = init.trim_start_matches("init=");
    let Ok(Ok(found)) = tree.find(path, false) else { return Ok(()) };
    if tree.0.directory(found).is_ok() {
        return Ok(());
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let Ok(Ok(dir)) = tree.find(folder, true) else { return Ok(()) };
    keeping_time(tree, dir, |tree| {
        let gone = tree.0.unlink(dir, NAME.as_bytes(), Unlink::File, Timestamp::default());
        gone.map_err(|error| error.to_string())
    })
}

/// Changes what is in a directory, whose time stays.
pub fn keeping_time(
    tree: &mut Tree,
    dir: Ino,
    change: impl FnOnce(&mut Tree) -> Result<(), String>,
) -> Result<(), BuildError> {
    let time = tree.0.inode(dir).map(|inode| inode.mtime).unwrap_or_default();
    let changed = change(tree).and_then(|()| tree.set_time(dir, time));
    changed.map_err(|why| BuildError::Tree { why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_first_is_that_which_is_there() {
        let tree = |files: &[&str]| {
            let entries: Vec<_> =
                files.iter().map(|name| format!(r#"["{name}",0,0,33261,0,0,"aa"]"#)).collect();
            let text = format!(
                r#"{{"fsroot":[["sbin",0,0,16877,0,0,[{}]]],"size":0,"version":3}}"#,
                entries.join(",")
            );
            Tree::new(text.as_bytes()).unwrap()
        };
        let first = |files: &[&str], cmdline: Option<&str>| {
            let mut config = ImageConfig { has_guest_service: true, ..ImageConfig::default() };
            config.cmdline = cmdline.map(Into::into);
            let init = first(&tree(files), &mut config);
            (init, config.cmdline, config.has_guest_service)
        };
        let guest = Some("init=/sbin/guest86");
        let rw = || Some("rw".to_owned());
        assert_eq!(first(&["init"], None), (None, None, true));
        assert_eq!(first(&[], None), (Some(SHELL), None, true));
        assert_eq!(first(&["guest86"], None), (guest, None, true));
        assert_eq!(first(&["guest86", "init"], None), (None, None, true));
        // A base that starts guest86 goes on with it, as long as that is there.
        assert_eq!(first(&["guest86", "init"], Some("rw init=/bin/guest86")), (guest, rw(), true));
        assert_eq!(first(&["init"], Some("rw init=/sbin/guest86")), (None, rw(), false));
        assert_eq!(first(&[], Some("init=/bin/sh rw")), (Some(SHELL), rw(), true));
        // Its own words stay.
        assert_eq!(first(&[], Some("rw")), (None, rw(), true));
        assert_eq!(first(&[], Some("rw init=/x")).1.unwrap(), "rw init=/x");
    }
}
