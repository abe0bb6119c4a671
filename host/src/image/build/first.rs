//! Which program the kernel of an image that is built starts first.

use super::tree::Tree;
use crate::image::ImageConfig;
use crate::image::create::{INITS, SHELL};
use crate::image::service::{FOLDERS, NAME};

/// What the kernel is told of it: nothing where it finds one by itself, or where the base says so in its own words.
///
/// What the base was told by a program of ours was said for other files, and is taken out of the configuration.
pub fn first(tree: &Tree, config: &mut ImageConfig) -> Option<&'static str> {
    let is_there = |path: &str| matches!(tree.find(path, true), Ok(Ok(_)));
    let guest =
        FOLDERS.iter().find(|(folder, _)| is_there(&format!("{folder}/{NAME}"))).map(|(_, init)| *init);
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
