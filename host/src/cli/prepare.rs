//! `env86 prepare`: a folder of static files that any web server can serve.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::image::Image;

use super::size::parse_size;
use super::{CliError, Outcome, offline, page, single};

/// zstd's level for a state that is packed once and fetched often.
const LEVEL: i32 = 12;
/// The same for the image's files, which are smaller.
const FILE_LEVEL: i32 = 19;
/// What is behind the name of a file that is packed. The plain one is beside it, for v86 and env86 itself.
const PACKED_END: &str = ".zst";
/// The key of `image.json` that tells the page of them.
const PACKED_KEY: &str = "packed_files";
/// What a user is told who stops it.
const INTERRUPTED: &str = "Interrupted; nothing was made";
/// The first word of a Zstandard frame.
const PACKED: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Make a folder for a web server: a page that runs the image in the visitor's browser.
#[derive(Args, Debug)]
pub struct Prepare {
    /// The image
    image: String,

    /// The folder to make, or the file
    dir: PathBuf,

    /// Replace the folder if it is there, and was made by this
    #[arg(long)]
    force: bool,

    /// Leave out index.html, for a page of your own
    #[arg(long)]
    no_index: bool,

    /// The page keeps its files in the visitor's browser, and works there without a network afterwards
    #[arg(long, conflicts_with = "no_index")]
    offline: bool,

    /// Make one HTML file instead, which a browser opens from a disk
    #[arg(long, conflicts_with_all = ["no_index", "offline"])]
    single_file: bool,

    /// The size of the pieces of a saved state
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "10M")]
    part_size: u64,
}

impl Prepare {
    /// Makes the folder.
    pub fn run(&self) -> Result<Outcome, CliError> {
        let image = Image::open_arg(&self.image)?;
        if self.dir.exists() && !self.force {
            return Err(format!("`{}` is there already; --force replaces it", self.dir.display()).into());
        }
        let is_empty = || fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_none());
        let is_ours = || match self.single_file {
            true => single::is_ours(&self.dir),
            false => page::is_prepared(&self.dir) || is_empty(),
        };
        if self.dir.exists() && !is_ours() {
            let (path, what) = (self.dir.display(), if self.single_file { "file" } else { "folder" });
            return Err(format!(
                "`{path}` was not made by `env86 prepare`, and is not replaced; give another {what}"
            )
            .into());
        }
        let interrupt = Arc::new(AtomicBool::new(false));
        flag_when_interrupted(&interrupt)?;
        let parent = match self.dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Nothing half made is ever there under the folder's name; what is not finished goes.
        let made = tempfile::Builder::new()
            .prefix(".env86-prepare-")
            .tempdir_in(parent)
            .map_err(|error| page::told("write to", parent, &error))?;
        let folder = made.path().join("page");
        fs::create_dir(&folder)?;
        for (name, path) in page::files()? {
            if !(self.no_index && name == page::INDEX || !self.offline && name == offline::SCRIPT) {
                page::copy(&path, &folder.join(name))?;
            }
        }
        self.image(&image, &folder.join(page::IMAGE), &interrupt)?;
        if self.offline {
            offline::write(&folder)?;
        }
        let (result, what) = if self.single_file {
            let file = made.path().join("page.html");
            single::write(&folder, &file)?;
            (file, "ready to be opened in a browser")
        } else {
            (folder, "ready for a web server")
        };
        if self.dir.exists() {
            fs::rename(&self.dir, made.path().join("old"))
                .map_err(|e| page::told("replace", &self.dir, &e))?;
        }
        fs::rename(&result, &self.dir).map_err(|error| page::told("make", &self.dir, &error))?;
        eprintln!("{}: {what}", self.dir.display());
        Ok(Outcome::SUCCESS)
    }

    /// Copies the image, with its state in packed pieces.
    fn image(&self, image: &Image, to: &Path, interrupt: &AtomicBool) -> Result<(), CliError> {
        let blobs = image.dir().join("fs");
        fs::create_dir_all(to.join("fs"))?;
        let entries = fs::read_dir(&blobs).map_err(|error| page::told("read", &blobs, &error))?;
        let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        let is_beside = |name: &OsStr| {
            name.to_str()
                .and_then(|name| name.strip_suffix(PACKED_END))
                .is_some_and(|name| blobs.join(name).exists())
        };
        // Those of an image that has been prepared before are made anew.
        let mut files: Vec<_> = names
            .iter()
            .filter(|name| !is_beside(name))
            .map(|name| (blobs.join(name), to.join("fs").join(name)))
            .collect();
        files.push((image.index_path(), to.join("fs.json")));
        copy_and_pack(&files, interrupt)?;
        let mut config = image.config.clone();
        config.initial_state_parts = None;
        if let Some(paths) = image.state_files()? {
            let mut parts = Parts::new(to.join("state"), self.part_size.max(1), interrupt)?;
            pack(&paths, &mut parts).map_err(|error| format!("Cannot pack the saved state: {error}"))?;
            config.initial_state_parts = Some(parts.finish()?);
        }
        config.initial_state = None;
        config.other.insert(PACKED_KEY.into(), true.into());
        config.other.remove(offline::KEY);
        if self.offline {
            config.other.insert(offline::KEY.into(), true.into());
        }
        for path in page::named(image)? {
            page::copy(&image.dir().join(&path), &to.join(&path))?;
        }
        fs::write(to.join("image.json"), page::config_text(&config)?)?;
        Ok(())
    }
}

/// Copies files, each with a packed one beside it; on all processors, because packing well takes long.
fn copy_and_pack(files: &[(PathBuf, PathBuf)], interrupt: &AtomicBool) -> Result<(), CliError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), String> {
        while let Some((from, to)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if interrupt.load(Ordering::Relaxed) {
                return Err(INTERRUPTED.into());
            }
            let copied = page::copy(from, to).and_then(|()| {
                let mut name = to.clone().into_os_string();
                name.push(PACKED_END);
                let packed = BufWriter::new(File::create(&name)?);
                pack_file(File::open(to)?, packed).map_err(|error| page::told("pack", from, &error))
            });
            copied.map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // All are waited for, whatever the first says.
        let results: Vec<_> = ended.collect();
        results.into_iter().collect::<Result<(), String>>()
    })?;
    Ok(())
}

/// Packs one file.
fn pack_file(mut from: File, to: impl Write) -> io::Result<()> {
    let size = from.metadata()?.len();
    let mut encoder = zstd::stream::write::Encoder::new(to, FILE_LEVEL)?;
    encoder.set_pledged_src_size(Some(size))?;
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.flush()
}

/// Packs a state that lies in these files, or keeps it as it is packed.
fn pack(paths: &[PathBuf], to: &mut Parts) -> io::Result<()> {
    let mut all: Box<dyn Read> = Box::new(io::empty());
    for path in paths {
        all = Box::new(all.chain(File::open(path)?));
    }
    let mut from = BufReader::with_capacity(1 << 20, all);
    let mut first = Vec::new();
    from.by_ref().take(PACKED.len() as u64).read_to_end(&mut first)?;
    let mut whole = first.as_slice().chain(from);
    if first == PACKED {
        io::copy(&mut whole, to)?;
        return Ok(());
    }
    let mut encoder = zstd::stream::write::Encoder::new(to, LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut whole, &mut encoder)?;
    encoder.finish()?;
    Ok(())
}

/// Files of one size, called `initial.state.0`, `initial.state.1` and so on.
struct Parts<'a> {
    dir: PathBuf,
    interrupt: &'a AtomicBool,
    size: u64,
    count: u64,
    /// The file at hand, and what fits into it yet.
    file: Option<(BufWriter<File>, u64)>,
}

impl<'a> Parts<'a> {
    fn new(dir: PathBuf, size: u64, interrupt: &'a AtomicBool) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, interrupt, size, count: 0, file: None })
    }

    /// How many there are.
    fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.count)
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(io::Error::other(INTERRUPTED));
        }
        if self.file.as_ref().is_none_or(|(_, left)| *left == 0) {
            self.flush()?;
            let file = File::create(self.dir.join(format!("initial.state.{}", self.count)))?;
            self.count += 1;
            self.file = Some((BufWriter::new(file), self.size));
        }
        let Some((file, left)) = &mut self.file else { return Ok(0) };
        let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        file.write_all(&bytes[..n])?;
        *left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |(file, _)| file.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(dir: &Path, parts: u64) -> Vec<u8> {
        let part = |n| fs::read(dir.join(format!("initial.state.{n}"))).unwrap();
        (0..parts).flat_map(part).collect()
    }

    #[test]
    fn a_state_is_packed_in_parts_and_no_second_time() {
        let dir = tempfile::tempdir().unwrap();
        // What packs badly, so that there are several parts.
        let state: Vec<u8> = (0..5000_u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        let halves = state.split_at(1234);
        let paths = ["a", "b"].map(|name| dir.path().join(name));
        fs::write(&paths[0], halves.0).unwrap();
        fs::write(&paths[1], halves.1).unwrap();
        let interrupt = AtomicBool::new(false);
        let made = |from: &[PathBuf], to: &str| {
            let mut parts = Parts::new(dir.path().join(to), 1000, &interrupt).unwrap();
            pack(from, &mut parts).unwrap();
            let count = parts.finish().unwrap();
            (count, read_all(&dir.path().join(to), count))
        };
        let (count, packed) = made(&paths, "state");
        assert_eq!(count, packed.len().div_ceil(1000) as u64);
        assert_eq!(zstd::decode_all(&*packed).unwrap(), state);
        let parts: Vec<_> = (0..count).map(|n| dir.path().join(format!("state/initial.state.{n}"))).collect();
        assert_eq!(made(&parts, "again"), (count, packed));
        interrupt.store(true, Ordering::Relaxed);
        let mut parts = Parts::new(dir.path().join("stopped"), 1000, &interrupt).unwrap();
        assert!(pack(&paths, &mut parts).is_err());
    }
}
