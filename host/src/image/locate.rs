//! From the image argument of a command to a directory.
//!
//! One rule for every command: an argument that exists as a path is a path. Anything else is the name of a global
//! image, `NAME[@TAG]`, under `$ENV86_PATH` or `~/.env86`, or what a container image is called by that was pulled.

use std::env;
use std::path::{Path, PathBuf};

use super::ImageError;
use super::global::GlobalName;

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
    let name = GlobalName::new(arg).ok();
    #[cfg(feature = "pull")]
    let name = name.or_else(|| super::oci::Reference::new(arg)?.name().ok());
    let candidates = name.zip(root).map(|(name, root)| name.candidates(root)).unwrap_or_default();
    match candidates.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        // More likely a path than the name of an image from elsewhere.
        None if arg.is_empty() || arg.contains(std::path::is_separator) => {
            Err(ImageError::NoSuchPath(arg.into()))
        }
        None => Err(ImageError::NoSuchName { name: arg.into(), looked: candidates }),
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
        let pulled = root.path().join("github.com/owner/deb/1.0");
        fs::create_dir_all(&pulled).unwrap();
        assert_eq!(find("github.com/owner/deb-env86@1.0", Some(root.path())).unwrap(), pulled);
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
}
