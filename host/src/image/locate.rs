//! From the image argument of a command to a directory.
//!
//! One rule for every command: an argument that exists as a path, or that contains a separator, is
//! a path. Anything else is the name of a global image, `NAME[@TAG]`, under `$ENV86_PATH` or
//! `~/.env86`.

use std::env;
use std::path::{Path, PathBuf};

use super::ImageError;

/// The tag that is meant when none is given.
const DEFAULT_TAG: &str = "latest";
/// Where an image lies that was made here rather than pulled.
const LOCAL_TAG: &str = "local";
/// A suffix that repositories of images carry and names leave out.
const NAME_SUFFIX: &str = "-env86";

/// The directory that holds global images: `$ENV86_PATH`, else `~/.env86`.
pub fn global_root() -> Option<PathBuf> {
    match env::var_os("ENV86_PATH") {
        Some(path) if !path.is_empty() => Some(path.into()),
        _ => env::home_dir().map(|home| home.join(".env86")),
    }
}

/// Finds the image that an argument means, among paths and the global images below `root`.
pub fn find(arg: &str, root: Option<&Path>) -> Result<PathBuf, ImageError> {
    if Path::new(arg).exists() {
        return Ok(arg.into());
    }
    if arg.is_empty() || arg.contains(std::path::is_separator) {
        return Err(ImageError::NoSuchPath(arg.into()));
    }
    let candidates = root.map(|root| global_candidates(arg, root)).unwrap_or_default();
    candidates
        .iter()
        .find(|path| path.exists())
        .cloned()
        .ok_or_else(|| ImageError::NoSuchName { name: arg.into(), looked: candidates })
}

/// Where a global image may be, best first.
fn global_candidates(arg: &str, root: &Path) -> Vec<PathBuf> {
    let mut parts = arg.split('@');
    let name = parts.next().unwrap_or_default();
    let name = name.strip_suffix(NAME_SUFFIX).unwrap_or(name);
    // A name or tag of dots would leave the root.
    if [name, parts.clone().next().unwrap_or(DEFAULT_TAG)].iter().any(|s| matches!(*s, "" | "." | "..")) {
        return Vec::new();
    }
    match parts.next() {
        Some(tag) => vec![root.join(name).join(tag)],
        None => [DEFAULT_TAG, LOCAL_TAG].map(|tag| root.join(name).join(tag)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_name_is_looked_up_by_tag_then_latest_then_local() {
        let root = tempfile::tempdir().unwrap();
        let local = root.path().join("deb/local");
        fs::create_dir_all(&local).unwrap();
        assert_eq!(find("deb", Some(root.path())).unwrap(), local);
        assert_eq!(find("deb-env86", Some(root.path())).unwrap(), local);
        let latest = root.path().join("deb/latest");
        fs::create_dir_all(&latest).unwrap();
        assert_eq!(find("deb", Some(root.path())).unwrap(), latest);
        assert_eq!(find("deb@local", Some(root.path())).unwrap(), local);
        assert!(find("deb@1.0", Some(root.path())).is_err());
    }

    #[test]
    fn an_absolute_path_is_a_path() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path().to_str().unwrap(), None).unwrap(), dir.path());
    }

    #[test]
    fn what_is_not_there_is_named_in_the_error() {
        let message = find("./no/such", None).unwrap_err().to_string();
        assert!(message.contains("./no/such"), "{message}");
        let message = find("nosuch", Some(Path::new("/r"))).unwrap_err().to_string();
        assert!(message.contains("/r/nosuch/latest") && message.contains("/r/nosuch/local"), "{message}");
    }

    #[test]
    fn dots_do_not_lead_out_of_the_root() {
        assert!(global_candidates("..@..", Path::new("/r")).is_empty());
    }
}
