//! `env86 prepare --offline`: the service worker that keeps a prepared page in the visitor's browser.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{CliError, page};

/// The service worker, which is put into no other page.
pub const SCRIPT: &str = "offline.js";
/// The key of `image.json` by which the page knows that there is one.
pub const KEY: &str = "offline";
/// What a packed file has behind its name.
const PACKED_END: &str = ".zst";
/// What no page fetches.
const NOT_FETCHED: [&str; 5] = [".d.ts", ".txt", "package.json", "env86.js", SCRIPT];
/// Hexadecimal digits of the version.
const DIGITS: usize = 16;

/// Writes the service worker of a folder that is complete but for it.
pub fn write(folder: &Path) -> Result<(), CliError> {
    let mut files = Vec::new();
    list(folder, "", &mut files)?;
    files.sort();
    let is_there = |name: &str| files.binary_search_by(|(other, _)| other.as_str().cmp(name)).is_ok();
    // Where there is a packed file beside one, the page has no use for the plain one.
    let wanted = |name: &str| {
        !NOT_FETCHED.iter().any(|end| name.ends_with(end)) && !is_there(&format!("{name}{PACKED_END}"))
    };
    let mut hash = Sha256::new();
    let mut names = Vec::new();
    for (name, size) in files.iter().filter(|(name, _)| wanted(name)) {
        hash.update(name);
        hash.update(size.to_le_bytes());
        // A blob's name is of its content.
        if !name.starts_with(&format!("{}/fs/", page::IMAGE)) {
            let path = folder.join(name);
            hash.update(fs::read(&path).map_err(|error| page::told("read", &path, &error))?);
        }
        names.push(name.as_str());
    }
    // The page itself is asked for by its folder.
    names.push("./");
    let digest = hash.finalize();
    let version: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(SCRIPT);
    let script = fs::read_to_string(&path).map_err(|error| page::told("read", &path, &error))?;
    let (version, names) = (serde_json::to_string(&version[..DIGITS])?, serde_json::to_string(&names)?);
    fs::write(&path, format!("const VERSION = {version};\nconst FILES = {names};\n{script}"))?;
    Ok(())
}

/// All files of a folder, as the page names them, with their sizes.
fn list(folder: &Path, prefix: &str, files: &mut Vec<(String, u64)>) -> Result<(), CliError> {
    for entry in fs::read_dir(folder).map_err(|error| page::told("read", folder, &error))? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            list(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push((name, meta.len()));
        }
    }
    Ok(())
}
