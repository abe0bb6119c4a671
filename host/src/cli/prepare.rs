//! `env86 prepare`: a folder of static files that any web server can serve.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use env86::console::flag_when_interrupted;
use env86::image::Image;

use super::size::parse_size;
use super::{CliError, Outcome, page};

/// zstd's level for a state that is packed once and fetched often.
const LEVEL: i32 = 12;
/// The first word of a Zstandard frame.
const PACKED: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Make a folder for a web server: a page that runs the image in the visitor's browser.
#[derive(Args, Debug)]
pub struct Prepare {
    /// The image
    image: String,

    /// The folder to make
    dir: PathBuf,

    /// Replace the folder if it is there
    #[arg(long)]
    force: bool,

    /// Leave out index.html, for a page of your own
    #[arg(long)]
    no_index: bool,

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
            if !(self.no_index && name == page::INDEX) {
                page::copy(&path, &folder.join(name))?;
            }
        }
        self.image(&image, &folder.join(page::IMAGE), &interrupt)?;
        if self.dir.exists() {
            fs::rename(&self.dir, made.path().join("old"))
                .map_err(|e| page::told("replace", &self.dir, &e))?;
        }
        fs::rename(&folder, &self.dir).map_err(|error| page::told("make", &self.dir, &error))?;
        eprintln!("{}: ready for a web server", self.dir.display());
        Ok(Outcome::SUCCESS)
    }

    /// Copies the image, with its state in packed pieces.
    fn image(&self, image: &Image, to: &Path, interrupt: &AtomicBool) -> Result<(), CliError> {
        let blobs = image.dir().join("fs");
        fs::create_dir_all(to.join("fs"))?;
        for entry in fs::read_dir(&blobs).map_err(|error| page::told("read", &blobs, &error))? {
            if interrupt.load(Ordering::Relaxed) {
                return Err("Interrupted; nothing was made".into());
            }
            let entry = entry?;
            page::copy(&entry.path(), &to.join("fs").join(entry.file_name()))?;
        }
        page::copy(&image.index_path(), &to.join("fs.json"))?;
        let mut config = image.config.clone();
        config.initial_state_parts = None;
        if let Some(paths) = image.state_files()? {
            let mut parts = Parts::new(to.join("state"), self.part_size.max(1))?;
            pack(&paths, &mut parts).map_err(|error| format!("Cannot pack the saved state: {error}"))?;
            config.initial_state_parts = Some(parts.finish()?);
        }
        config.initial_state = None;
        for path in page::named(image)? {
            page::copy(&image.dir().join(&path), &to.join(&path))?;
        }
        fs::write(to.join("image.json"), page::config_text(&config)?)?;
        Ok(())
    }
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
struct Parts {
    dir: PathBuf,
    size: u64,
    count: u64,
    /// The file at hand, and what fits into it yet.
    file: Option<(BufWriter<File>, u64)>,
}

impl Parts {
    fn new(dir: PathBuf, size: u64) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, size, count: 0, file: None })
    }

    /// How many there are.
    fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.count)
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
