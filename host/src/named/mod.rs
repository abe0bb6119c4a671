//! Machines that stay, each in a process of its own, which others reach by the machine's name.
//!
//! A name is a folder in the user's runtime folder: a description, which is locked as long as the machine's
//! process lives, a control socket, and what COM1 and the process said. [`Place::take`] takes a name for this
//! process, [`Place::serve`] answers for a machine there, and a [`Client`] asks. All of it is for Unix systems.

mod client;
mod protocol;
mod server;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::image::{find, global_root};
use crate::os::{self, UnixListener};

pub use client::{Client, Process, Steering};
pub use protocol::{Now, Refusal, Saved};
pub use server::Served;

pub use crate::os::{leave_terminal, redirect_output};

/// The files of a name.
const DESCRIPTION: &str = "machine.json";
const SOCKET: &str = "socket";
const LOG: &str = "com1.log";
const MESSAGES: &str = "messages";
/// Characters of a name: a socket's path may not be long.
const MAX_NAME: usize = 40;
/// How long a machine may take to say how it is, for a list.
const GLANCE: Duration = Duration::from_secs(2);

/// Why a machine with a name cannot be had, or asked.
#[derive(Debug, Error)]
pub enum NamedError {
    /// It is no name.
    #[error(
        "`{0}` is no name for a machine; use up to 40 letters, digits, `-` and `_`, a letter or digit first"
    )]
    Name(String),
    /// Another machine has it.
    #[error("A machine called `{0}` runs already; choose another name, or end it with `env86 stop {0}`")]
    Taken(String),
    /// There is no such machine.
    #[error("There is no machine called `{0}`; `env86 ps` lists them")]
    Unknown(String),
    /// Its process has ended.
    #[error("The machine `{0}` has ended; `env86 rm {0}` forgets it, `env86 start` starts one anew")]
    Ended(String),
    /// It runs, and that is in the way.
    #[error("The machine `{0}` runs; end it with `env86 stop {0}` first, or give --force")]
    Runs(String),
    /// It has broken off.
    #[error("The machine `{name}` has broken it off")]
    Broken {
        /// Its name.
        name: String,
        /// What has happened.
        source: io::Error,
    },
    /// It does not do it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Files.
    #[error("Cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system has a limit of about a hundred bytes for the path of a socket.
    #[error("The path `{}` is too long for a socket; set XDG_RUNTIME_DIR to a folder with a shorter one", .0.display())]
    LongPath(PathBuf),
    /// The folder for running programs.
    #[error("There is no folder for machines that run; set XDG_RUNTIME_DIR to a folder of yours")]
    Folder(#[source] io::Error),
}

/// Makes an error of one of a file.
fn at(path: &Path) -> impl FnOnce(io::Error) -> NamedError + '_ {
    move |source| NamedError::File { path: path.into(), source }
}

/// What is known of a machine without asking it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its process.
    pub pid: u32,
    /// Seconds since 1970.
    pub started: u64,
    /// What it was started from.
    pub image: String,
}

/// A name, and the folder that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    name: String,
    folder: PathBuf,
}

impl Name {
    /// The name, if it is one.
    pub fn new(name: &str) -> Result<Self, NamedError> {
        Self::within(&os::runtime_folder().map_err(NamedError::Folder)?, name)
    }

    fn within(folder: &Path, name: &str) -> Result<Self, NamedError> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !first || name.len() > MAX_NAME || !name.chars().all(good) {
            return Err(NamedError::Name(name.into()));
        }
        Ok(Self { name: name.into(), folder: folder.join(name) })
    }

    /// A name for a machine that is started from this: the file's, as far as it makes one.
    #[must_use]
    pub fn suggestion(path: &Path) -> String {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let good = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let name: String = stem.chars().map(good).take(MAX_NAME - 8).collect();
        match name.trim_start_matches(['-', '_']) {
            "" => "machine".into(),
            name => name.into(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The lock of the name, if no machine has it; else `None`.
    fn lock(&self, create: bool) -> Result<Option<File>, NamedError> {
        let path = self.file(DESCRIPTION);
        loop {
            if create {
                // It may be there.
                let _ = fs::create_dir(&self.folder);
            }
            let file =
                match OpenOptions::new().read(true).write(true).create(create).truncate(false).open(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !create => {
                        return Err(NamedError::Unknown(self.name.clone()));
                    }
                    Err(error) => return Err(at(&path)(error)),
                };
            match file.try_lock() {
                Ok(()) if os::is_at(&file, &path) => return Ok(Some(file)),
                // One who had it before has removed it.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
            }
        }
    }

    /// What is known of the machine.
    pub fn description(&self) -> Result<Description, NamedError> {
        let path = self.file(DESCRIPTION);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NamedError::Unknown(self.name.clone()),
            _ => at(&path)(error),
        })?;
        serde_json::from_slice(&text).map_err(|error| at(&path)(error.into()))
    }

    /// What COM1 has said last.
    pub fn log(&self) -> Result<Vec<u8>, NamedError> {
        self.description()?;
        self.read(LOG)
    }

    /// What the machine's process has said.
    pub fn messages(&self) -> Result<Vec<u8>, NamedError> {
        self.description()?;
        self.read(MESSAGES)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, NamedError> {
        let path = self.file(name);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| {
            // Its writer may be about to shorten it.
            file.lock_shared()?;
            file.read_to_end(&mut bytes)
        });
        match read {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bytes),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Forgets a machine that has ended.
    pub fn remove(&self) -> Result<(), NamedError> {
        match self.lock(false)? {
            None => Err(NamedError::Runs(self.name.clone())),
            Some(_locked) => self.forget().map_err(at(&self.folder)),
        }
    }

    /// Removes the folder, first from its name: a new one may be made there at once.
    fn forget(&self) -> io::Result<()> {
        let aside = self.folder.with_file_name(format!(".{}-{}", self.name, std::process::id()));
        fs::rename(&self.folder, &aside)?;
        fs::remove_dir_all(&aside)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// A name that is this process's.
#[derive(Debug)]
pub struct Place {
    name: Name,
    listener: Option<UnixListener>,
    /// Locked as long as it is open.
    description: File,
    /// The name, with what COM1 said, stays at the end.
    stays: bool,
}

impl Place {
    /// Takes a name. What a machine that has ended has left there is removed. From now on clients can
    /// connect; they wait until there is a machine.
    pub fn take(name: &str, image: &Path) -> Result<Self, NamedError> {
        Self::take_within(&os::runtime_folder().map_err(NamedError::Folder)?, name, image)
    }

    fn take_within(folder: &Path, name: &str, image: &Path) -> Result<Self, NamedError> {
        let name = Name::within(folder, name)?;
        let Some(description) = name.lock(true)? else { return Err(NamedError::Taken(name.name)) };
        // From here on an error gives the name back.
        let mut place = Self { name, listener: None, description, stays: false };
        place.prepare(image)?;
        Ok(place)
    }

    /// Removes what an earlier machine has left, describes the new one and listens.
    fn prepare(&mut self, image: &Path) -> Result<(), NamedError> {
        let Self { name, listener, description, .. } = self;
        for old in [SOCKET, LOG, MESSAGES] {
            match fs::remove_file(name.file(old)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&name.file(old))(error));
                }
                _ => {}
            }
        }
        // The name of a global image is no path.
        let absolute =
            Some(image).filter(|image| image.exists()).and_then(|image| std::path::absolute(image).ok());
        let image = absolute.unwrap_or_else(|| image.into());
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let text = Description { pid: std::process::id(), started, image: image.display().to_string() };
        let path = name.file(DESCRIPTION);
        let text = serde_json::to_vec(&text).map_err(|error| at(&path)(error.into()))?;
        let written = description.set_len(0).and_then(|()| description.rewind());
        written.and_then(|()| description.write_all(&text)).map_err(at(&path))?;
        let socket = name.file(SOCKET);
        *listener = Some(os::listen(&socket).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => NamedError::LongPath(socket),
            _ => at(&socket)(error),
        })?);
        Ok(())
    }

    /// Takes the first name that is free of this, this with `-2`, and so on.
    pub fn take_like(name: &str, image: &Path) -> Result<Self, NamedError> {
        let mut number = 1;
        loop {
            let numbered = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
            match Self::take(&numbered, image) {
                Err(NamedError::Taken(_)) => number += 1,
                taken => return taken,
            }
        }
    }

    /// The name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// A file for what this process says.
    pub fn messages(&self) -> Result<File, NamedError> {
        let path = self.name.file(MESSAGES);
        OpenOptions::new().append(true).create(true).open(&path).map_err(at(&path))
    }

    /// Where what COM1 says is kept.
    pub fn log(&self) -> PathBuf {
        self.name.file(LOG)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // No one is there to be told.
        let _ = fs::remove_file(self.name.file(SOCKET));
        if !self.stays {
            let _ = self.name.forget();
        }
        let _ = self.description.unlock();
    }
}

/// A machine of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// What is known of it.
    pub description: Description,
    /// How it is.
    pub state: State,
}

/// How a machine of a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Here(Now),
    /// Its process is there, and does not answer: it may be about to start, or be saving itself.
    Busy,
    /// Its process has ended.
    Gone,
}

/// The user's machines with names, in the order of these.
pub fn list() -> Result<Vec<Listed>, NamedError> {
    let folder = os::runtime_folder().map_err(NamedError::Folder)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(at(&folder))? {
        let entry = entry.map_err(at(&folder))?;
        names.extend(entry.file_name().to_str().and_then(|name| Name::within(&folder, name).ok()));
    }
    names.sort_by(|a, b| a.name.cmp(&b.name));
    // One that has just been removed, or has not been described yet, is not there.
    let known = names.into_iter().filter_map(|name| name.description().ok().map(|known| (name, known)));
    Ok(known
        .map(|(name, description)| {
            let state = match Client::connect(&name) {
                Ok(client) => client.glance(GLANCE).map_or(State::Busy, State::Here),
                Err(_) => State::Gone,
            };
            Listed { name, description, state }
        })
        .collect())
}

/// The machine with a name that is of one of these processes, or that was started from the image at this path.
pub fn using(image: &Path, processes: &[u32]) -> Option<Name> {
    let folder = os::runtime_folder().ok()?;
    let real = |path: &Path| fs::canonicalize(path).ok();
    let wanted = real(image);
    let uses = |name: &Name| {
        let Ok(known) = name.description() else { return false };
        let of_process = processes.contains(&known.pid);
        let found = || find(&known.image, global_root().as_deref()).ok().and_then(|path| real(&path));
        // Where the system does not tell the processes.
        let of_image = || processes.is_empty() && wanted.is_some() && found() == wanted;
        (of_process || of_image()) && matches!(name.lock(false), Ok(None))
    };
    let names = fs::read_dir(&folder).ok()?.flatten();
    let mut names = names.filter_map(|entry| Name::within(&folder, entry.file_name().to_str()?).ok());
    names.find(uses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        let folder = Path::new("/run");
        for name in ["a", "A-1_b", "0", &"x".repeat(40)] {
            assert_eq!(Name::within(folder, name).unwrap().folder, folder.join(name));
        }
        for name in ["", ".", "..", "-a", "_a", "a/b", "a b", "ä", &"x".repeat(41)] {
            assert!(matches!(Name::within(folder, name), Err(NamedError::Name(_))), "{name}");
        }
        for (path, name) in [
            ("/a/debian", "debian"),
            ("b.tgz", "b"),
            ("name@tag", "name-tag"),
            ("..", "machine"),
            ("-é", "machine"),
        ] {
            assert_eq!(Name::suggestion(Path::new(path)), name);
            assert!(Name::within(folder, name).is_ok());
        }
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("x".repeat(200));
        fs::create_dir(&folder).unwrap();
        let taken = Place::take_within(&folder, "a", Path::new("/image"));
        assert!(matches!(taken, Err(NamedError::LongPath(_))), "{taken:?}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_name_is_one_machine_s_until_that_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let take = |stays| {
            Place::take_within(dir.path(), "a", Path::new("/image")).map(|mut place| {
                place.stays = stays;
                place
            })
        };
        let name = Name::within(dir.path(), "a").unwrap();
        assert!(matches!(name.description(), Err(NamedError::Unknown(_))));
        assert!(matches!(name.remove(), Err(NamedError::Unknown(_))));
        let place = take(true).unwrap();
        assert!(matches!(take(true), Err(NamedError::Taken(_))));
        assert!(matches!(name.remove(), Err(NamedError::Runs(_))));
        let known = name.description().unwrap();
        assert_eq!((known.pid, known.image.as_str()), (std::process::id(), "/image"));
        fs::write(place.log(), "hello").unwrap();
        drop(place);
        // It can be looked at until it is removed, or the name is taken again.
        assert_eq!(name.log().unwrap(), b"hello");
        assert!(matches!(Client::connect(&name), Err(NamedError::Ended(_))));
        let place = take(false).unwrap();
        assert_eq!(name.log().unwrap(), b"");
        drop(place);
        assert!(!name.folder.exists());
        drop(take(true).unwrap());
        name.remove().unwrap();
        assert!(!name.folder.exists());
    }
}
