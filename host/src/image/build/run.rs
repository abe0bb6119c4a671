//! RUN: a command in a machine that is booted with the files so far, and whose files are kept afterwards.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use env86_core::PowerOnError;
use env86_devices::fs::{Base, Content, Filesystem, Ino};

use super::cache::Cache;
use super::parse::{Command, Run};
use super::tree::Tree;
use super::{Build, BuildError};
use crate::guest::{Exec, Guest};
use crate::image::create::{CreateError, Options};
use crate::image::{BLOB_DIR, BlobDir, Image};
use crate::machine::{Blobs, Machine, MachineError};
#[cfg(feature = "net")]
use crate::net::{Config, Rules};

/// How long the guest may take until it runs commands.
const BOOT: Duration = Duration::from_secs(600);
/// Time between looks whether the build is to end.
const LOOK: Duration = Duration::from_millis(100);
/// What the names of contents end with in an image.
const SUFFIX: &str = ".bin";

/// The words of a command, once its here-documents are in it; an error says what is not known here.
pub fn words(run: &Run, shell: &[String]) -> Result<Vec<String>, String> {
    if let Some((name, value)) = run.flags.iter().find(|(name, value)| name != "network" || value == "host") {
        return Err(format!("--{name}={value} is not known here yet; leave it out"));
    }
    let text = match &run.command {
        Command::Exec(words) => return Ok(words.clone()),
        Command::Shell(text) => text,
    };
    let mut script = text.clone();
    match run.documents.as_slice() {
        [document] if !text.trim().contains(char::is_whitespace) => {
            if document.content.starts_with("#!") {
                return Err("a here-document with #! is not known here; write `RUN <<EOF PROGRAM`".into());
            }
            script.clone_from(&document.content);
        }
        documents => {
            for document in documents {
                script += &format!("\n{}{}", document.content, document.name);
            }
            script += if documents.is_empty() { "" } else { "\n" };
        }
    }
    Ok(shell.iter().cloned().chain([script]).collect())
}

/// The machine is to have a network.
pub fn has_network(run: &Run) -> bool {
    !run.flags.iter().any(|(name, value)| name == "network" && value == "none")
}

/// Why a command has not given files.
pub enum NotRun {
    /// It failed, or could not be started.
    Line(String),
    /// The build is to end.
    Build(BuildError),
}

impl From<BuildError> for NotRun {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl From<CreateError> for NotRun {
    fn from(error: CreateError) -> Self {
        Self::Build(error.into())
    }
}

fn told(error: impl Error) -> NotRun {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    NotRun::Line(text)
}

/// Runs a command in an image whose contents are named by their whole SHA-256. `tell` gets what it writes.
pub fn run(
    image: &Image,
    exec: Exec,
    network: bool,
    build: &Build,
    cache: &Cache,
    tell: &dyn Fn(&[u8]),
) -> Result<Tree, NotRun> {
    let options = &build.options;
    if !image.config.has_guest_service {
        let why = "the image runs no guest86, which starts commands, and there is none to be lent to it; build it with \
                   `make guest`, or build upon an image that has it";
        return Err(NotRun::Line(why.into()));
    }
    let builder = Machine::builder().image(image).cold().no_restart();
    #[cfg(feature = "net")]
    let builder = match network {
        true => {
            let rules = Rules { host_ports: build.host_ports.clone(), ..Rules::default() };
            builder.network(Config { rules, ..Config::default() })
        }
        false => builder,
    };
    let machine = builder.start().map_err(|error| match error {
        MachineError::PowerOn { source: PowerOnError::NoKernel, .. } => NotRun::Line(
            "there is no kernel to run the command on; give one with --kernel IMAGE or --kernel FILE".into(),
        ),
        error => told(error),
    })?;
    let (controls, done) = (machine.controls(), AtomicBool::new(false));
    let ran = thread::scope(|scope| {
        // What waits for the guest ends with the machine.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if options.check_interrupt().is_err() {
                    controls.end();
                    break;
                }
                thread::sleep(LOOK);
            }
        });
        let ran =
            machine.guest_within(BOOT).map_err(told).and_then(|guest| command(&guest, exec, network, tell));
        done.store(true, Ordering::Relaxed);
        ran
    });
    options.check_interrupt()?;
    ran?;
    let files = machine.with(|computer| computer.files().cloned()).map_err(told)?;
    machine.stop().map_err(told)?;
    keep(&files.unwrap_or_default(), image, cache, options)
}

fn command(guest: &Guest, exec: Exec, network: bool, tell: &dyn Fn(&[u8])) -> Result<(), NotRun> {
    if cfg!(feature = "net") && network {
        // Many commands need none, and one that does says so, too.
        if let Err(error) = guest.reset_network() {
            tell(format!("env86: there is no network: {error}\n").as_bytes());
        }
    }
    let shown = exec.program.clone();
    let mut child = guest.exec(exec).spawn().map_err(told)?;
    child.stdin = None;
    while let Some((_, bytes)) = child.next_output().map_err(told)? {
        tell(&bytes);
    }
    let status = child.wait().map_err(told)?;
    if !status.success() {
        return Err(NotRun::Line(format!("`{shown}` has ended with status {}", status.shell_status())));
    }
    // What the guest has not written yet is no file here.
    guest.sync().map_err(told)
}

/// Keeps what a machine has written.
fn keep(files: &Filesystem, image: &Image, cache: &Cache, options: &Options) -> Result<Tree, NotRun> {
    let mut contents = HashMap::new();
    for (ino, inode) in (0..).zip(files.inodes()) {
        let Some(inode) = inode else { continue };
        let Content::File(data) = &inode.content else { continue };
        if inode.size == 0 {
            continue;
        }
        options.check_interrupt()?;
        let own = data.base().filter(|_| data.is_pristine(inode.size));
        let base = match own.and_then(|base| base.blob.strip_suffix(SUFFIX)) {
            Some(hash) => Base { blob: hash.into(), size: inode.size },
            None => {
                let store = Blobs::new(BlobDir::new(image.dir().join(BLOB_DIR)));
                let from = Written { files, ino, at: 0, size: inode.size, store };
                cache.add(from, CreateError::read(image.path()))?
            }
        };
        contents.insert(ino, base);
    }
    let tree = Tree(files.clone());
    let index = tree.index_by(|ino| contents.get(&ino).cloned()).map_err(NotRun::Line)?;
    let text = serde_json::to_vec(&index).map_err(|error| NotRun::Line(error.to_string()))?;
    Tree::new(&text).map_err(told)
}

/// A file of a machine.
struct Written<'a> {
    files: &'a Filesystem,
    ino: Ino,
    at: u64,
    size: u64,
    store: Blobs,
}

impl Read for Written<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min((self.size - self.at).min(1 << 20) as usize);
        if len == 0 {
            return Ok(0);
        }
        let read = self.files.read(&mut self.store, self.ino, self.at, &mut buf[..len]);
        let read = read.map_err(|error| io::Error::other(error.to_string()))?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::build::lines::Document;

    #[test]
    fn commands_are_given_to_the_shell() {
        let shell = ["sh", "-c"].map(String::from);
        let document = |content: &str| Document { name: "E".into(), expands: true, content: content.into() };
        let run = |text: &str, documents: Vec<Document>| Run {
            flags: Vec::new(),
            command: Command::Shell(text.into()),
            documents,
        };
        let of = |run: &Run| words(run, &shell);
        assert_eq!(of(&run("make all", vec![])).unwrap(), ["sh", "-c", "make all"]);
        assert_eq!(of(&run("<<E", vec![document("a\n$b\n")])).unwrap(), ["sh", "-c", "a\n$b\n"]);
        assert_eq!(
            of(&run("cat <<E >x", vec![document("a\n")])).unwrap(),
            ["sh", "-c", "cat <<E >x\na\nE\n"]
        );
        assert!(of(&run("<<E", vec![document("#!/bin/x\n")])).is_err());
        let exec = Run { command: Command::Exec(vec!["a".into()]), ..run("", vec![]) };
        assert_eq!(of(&exec).unwrap(), ["a"]);
        let with = |name: &str, value: &str| Run { flags: vec![(name.into(), value.into())], ..exec.clone() };
        assert!(of(&with("network", "none")).is_ok() && !has_network(&with("network", "none")));
        assert!(of(&with("mount", "type=cache")).unwrap_err().contains("not known here yet"));
    }
}
