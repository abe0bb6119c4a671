//! `/etc/resolv.conf` while a command runs: it is the network's then, and no part of what is built. Container programs
//! mount theirs over it for the time; here the one that the image has is put back.

use env86_devices::fs::{Content, Inode, Timestamp, Unlink};

use super::BuildError;
use super::first::keeping_time;
use super::tree::{Owner, Tree};

/// Where it is.
const PATH: &str = "/etc/resolv.conf";
/// Links that it may lead through.
const MAX_LINKS: usize = 8;

/// What a tree has there.
#[derive(Debug)]
pub struct Resolver {
    /// The file, and those that it leads to if it is a link, with what is there.
    places: Vec<(String, Option<Inode>)>,
}

impl Resolver {
    /// Keeps it in mind.
    pub fn of(tree: &Tree) -> Self {
        let mut places = Vec::new();
        let mut path = PATH.to_owned();
        while places.len() < MAX_LINKS {
            let found = match tree.find(&path, false) {
                Ok(Ok(found)) => tree.0.inode(found).ok().cloned(),
                _ => None,
            };
            let target = match found.as_ref().map(|inode| &inode.content) {
                Some(Content::Symlink(target)) => Some(String::from_utf8_lossy(target).into_owned()),
                _ => None,
            };
            places.push((path.clone(), found));
            path = match target {
                Some(target) if target.starts_with('/') => target,
                Some(target) => format!("{}/{target}", split(&path).0),
                None => break,
            };
        }
        Self { places }
    }

    /// Puts it back.
    pub fn put_back(self, tree: &mut Tree) -> Result<(), BuildError> {
        for (path, before) in self.places {
            let now = match tree.find(&path, false) {
                Ok(Ok(found)) => tree.0.inode(found).ok(),
                _ => None,
            };
            let is_same = match (&before, now) {
                (None, None) => true,
                (Some(before), Some(now)) => same(before, now),
                _ => false,
            };
            // A directory is none of the network's.
            if is_same || before.iter().chain(now).any(Inode::is_dir) {
                continue;
            }
            let (folder, name) = split(&path);
            // A command may have taken away what it was in.
            let Ok(Ok(dir)) = tree.find(folder, true) else { continue };
            let there = now.is_some();
            keeping_time(tree, dir, |tree| {
                if there {
                    let gone = tree.0.unlink(dir, name.as_bytes(), Unlink::File, Timestamp::default());
                    gone.map_err(|error| error.to_string())?;
                }
                let Some(mut inode) = before else { return Ok(()) };
                // It is one name here, whatever else it had.
                inode.nlink = 1;
                tree.put(dir, name.as_bytes(), inode, Owner::default()).map(drop)
            })?;
        }
        Ok(())
    }
}

/// The folder of a path, and the name in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn same(a: &Inode, b: &Inode) -> bool {
    let of = |inode: &Inode| (inode.mode, inode.uid, inode.gid, inode.size, inode.mtime.secs);
    of(a) == of(b) && a.content == b.content
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree whose `/etc` and `/run` have these entries.
    fn tree(etc: &str, run: &str) -> Tree {
        let text = format!(
            r#"{{"fsroot":[["etc",0,5,16877,0,0,[{etc}]],["run",0,5,16877,0,0,[{run}]]],"size":0,"version":3}}"#
        );
        Tree::new(text.as_bytes()).unwrap()
    }

    fn json(tree: &Tree) -> String {
        serde_json::to_string(&tree.index().unwrap()).unwrap()
    }

    const OWN: &str = r#"["resolv.conf",3,7,33188,0,0,"aa"]"#;
    const NETWORK: &str = r#"["resolv.conf",9,8,33188,0,0,"bb"]"#;
    const LINK: &str = r#"["resolv.conf",18,7,41471,0,0,"../run/resolv.conf"]"#;

    #[test]
    fn what_the_network_has_written_is_put_back() {
        for (before, after) in [
            (tree(OWN, ""), tree(NETWORK, "")),
            (tree(OWN, ""), tree("", "")),
            (tree("", ""), tree(NETWORK, "")),
            (tree(LINK, ""), tree(LINK, NETWORK)),
            (tree(LINK, OWN), tree(LINK, NETWORK)),
            (tree(LINK, OWN), tree(NETWORK, OWN)),
            (tree(OWN, ""), tree(OWN, "")),
        ] {
            let mut made = after;
            Resolver::of(&before).put_back(&mut made).unwrap();
            assert_eq!(json(&made), json(&before));
        }
        // A command's own affair.
        let folder = r#"["resolv.conf",0,7,16877,0,0,[]]"#;
        let mut made = tree(folder, "");
        Resolver::of(&tree(OWN, "")).put_back(&mut made).unwrap();
        assert_eq!(json(&made), json(&tree(folder, "")));
        let mut made = Tree::default();
        Resolver::of(&tree(OWN, "")).put_back(&mut made).unwrap();
        assert_eq!(json(&made), json(&Tree::default()));
    }
}
