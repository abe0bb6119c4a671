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
const NOT_FETCHED: [&str; 6] = [".d.ts", ".LICENSE.txt", "package.json", "env86.js", "page.js", SCRIPT];
/// Hexadecimal digits of the version.
const DIGITS: usize = 16;

/// Writes the service worker of a folder that is complete but for it.
pub fn write(folder: &Path) -> Result<(), CliError> {
    let mut names = needed(folder)?;
    let mut hash = Sha256::new();
    for name in &names {
        hash.update(name);
        // A blob's name is of its content.
        if !name.starts_with(&format!("{}/fs/", page::IMAGE)) {
            let path = folder.join(name);
            hash.update(fs::read(&path).map_err(|error| page::told("read", &path, &error))?);
        }
    }
    // The page itself is asked for by its folder.
    names.push("./".into());
    let digest = hash.finalize();
    let version: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(SCRIPT);
    let script = fs::read_to_string(&path).map_err(|error| page::told("read", &path, &error))?;
    let (version, names) = (serde_json::to_string(&version[..DIGITS])?, serde_json::to_string(&names)?);
    fs::write(&path, format!("const VERSION = {version};\nconst FILES = {names};\n{script}"))?;
    Ok(())
}

/// The files of a prepared folder that a page fetches, in their order.
pub fn needed(folder: &Path) -> Result<Vec<String>, CliError> {
    let mut files = Vec::new();
    list(folder, "", &mut files)?;
    files.sort();
    // Where there is a packed file beside one, the page has no use for the plain one.
    let wanted = |name: &String| {
        let packed = format!("{name}{PACKED_END}");
        !NOT_FETCHED.iter().any(|end| name.ends_with(end)) && files.binary_search(&packed).is_err()
    };
    Ok(files.iter().filter(|name| wanted(name)).cloned().collect())
}

/// All files of a folder, as the page names them.
fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<(), CliError> {
    for entry in fs::read_dir(folder).map_err(|error| page::told("read", folder, &error))? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push(name);
        }
    }
    Ok(())
}
