//! What the web commands share: the files of the page, and what `image.json` says in one.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use env86::image::{Image, ImageConfig};

use super::CliError;

/// The folder of the page's files, beside the program or where `make web` puts it.
const FOLDERS: [&str; 3] = ["web", "../web", "../share/env86/web"];
/// The program for WebAssembly: without it the folder is not whole.
const PROGRAM: &str = "env86.wasm";
/// The page itself.
pub const INDEX: &str = "index.html";
/// Where the page looks for its image.
pub const IMAGE: &str = "image";

/// The page's files, by their names, in their order.
pub fn files() -> Result<Vec<(String, PathBuf)>, CliError> {
    let program = env::current_exe()?;
    let beside = program.parent().unwrap_or(Path::new("."));
    let folders: Vec<_> = FOLDERS.iter().map(|folder| beside.join(folder)).collect();
    let Some(folder) = folders.iter().find(|folder| folder.join(PROGRAM).is_file()) else {
        let looked: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        return Err(format!(
            "The page's files ({PROGRAM} and others) are not there (looked in {}); `make web` in env86's sources \
             makes them, and a folder `web` beside the program may be copied with it",
            looked.join(", ")
        )
        .into());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The disks, kernels and ROMs that an image's configuration names inside it, as paths from its folder. What it
/// names elsewhere is fetched from there.
pub fn named(image: &Image) -> Result<Vec<PathBuf>, CliError> {
    let mut paths = Vec::new();
    for (key, file) in image.config.files() {
        if file.url.as_deref().is_some_and(|url| url.starts_with("./")) {
            paths.extend(
                image.files_of_ref(key, file).map_err(|error| format!("image.json, {key}: {error}"))?,
            );
        }
    }
    let inside = |path: PathBuf| Ok(path.strip_prefix(image.dir())?.to_path_buf());
    paths.into_iter().map(inside).collect()
}

/// `image.json`, as it was but for what is said here.
pub fn config_text(config: &ImageConfig) -> Result<Vec<u8>, CliError> {
    Ok(serde_json::to_vec_pretty(config)?)
}

/// Copies a file; says which one, if that fails. A link is refused: an image from elsewhere must not put this
/// computer's other files on a web server.
pub fn copy(from: &Path, to: &Path) -> Result<(), CliError> {
    let meta = fs::symlink_metadata(from).map_err(|error| told("read", from, &error))?;
    if !meta.is_file() {
        return Err(format!("`{}` is no plain file; an image has no others", from.display()).into());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| told("make", parent, &error))?;
    }
    fs::copy(from, to).map_err(|error| told("copy", from, &error))?;
    Ok(())
}

/// Whether a folder is one that `env86 prepare` has made.
pub fn is_prepared(dir: &Path) -> bool {
    dir.join(PROGRAM).is_file() && dir.join(IMAGE).join("image.json").is_file()
}

/// An error of a file.
pub fn told(what: &str, path: &Path, error: &io::Error) -> CliError {
    format!("Cannot {what} `{}`: {error}", path.display()).into()
}
