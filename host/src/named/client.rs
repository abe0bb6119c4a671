//! Asking a machine by its name.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use env86_core::Drive;
use guest86::call::{Exec, FileInfo, Put, Size, ToProcess};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::protocol::{
    Answer, FromExec, INPUT_WINDOW, InPieces, Now, PIECE, Piece, Refusal, Request, Saved, Wire,
};
use super::{Name, NamedError, SOCKET};
use crate::console::attach;
use crate::guest::{ExitStatus, GuestError, Source};
use crate::os::{self, UnixStream};
use crate::replace::replace;

/// A connection to a machine, for one request.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    name: String,
}

/// A path as it is said to a machine's process, which may work elsewhere.
fn path_of(path: &Path) -> Result<String, Refusal> {
    let path = std::path::absolute(path).map_err(|error| Refusal::new(error.to_string()))?;
    let name = path.to_str().ok_or_else(|| Refusal::new(format!("`{}` is not UTF-8", path.display())))?;
    Ok(name.into())
}

impl Client {
    /// Connects to a machine.
    pub fn connect(name: &Name) -> Result<Self, NamedError> {
        name.description()?;
        match UnixStream::connect(name.file(SOCKET)) {
            Ok(stream) => Ok(Self { wire: Wire::new(stream), name: name.name.clone() }),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Err(NamedError::Ended(name.name.clone()))
            }
            Err(source) => Err(NamedError::Broken { name: name.name.clone(), source }),
        }
    }

    fn broken(&self) -> impl FnOnce(io::Error) -> NamedError + use<> {
        let name = self.name.clone();
        |source| NamedError::Broken { name, source }
    }

    /// Sends a request, and waits for the answer to it.
    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, NamedError> {
        // One that ends in this moment may have answered before.
        let sent = self.wire.send(request);
        let answer: Answer<T> =
            self.wire.receive().or_else(|error| sent.and(Err(error))).map_err(self.broken())?;
        Ok(answer?)
    }

    /// How it is, if it says so within a time.
    pub(super) fn glance(mut self, limit: Duration) -> Option<Now> {
        self.wire.limit(limit).ok()?;
        self.ask(&Request::Show).ok()
    }

    /// How it is.
    pub fn show(mut self) -> Result<Now, NamedError> {
        self.ask(&Request::Show)
    }

    /// Saves it to a file, or to its image.
    pub fn save(mut self, path: Option<&Path>) -> Result<Saved, NamedError> {
        let path = path.map(path_of).transpose()?;
        self.ask(&Request::Save(path))
    }

    /// Stops executing.
    pub fn pause(mut self) -> Result<(), NamedError> {
        self.ask(&Request::Pause(true))
    }

    /// Goes on executing.
    pub fn resume(mut self) -> Result<(), NamedError> {
        self.ask(&Request::Pause(false))
    }

    /// Puts the medium in this file into a drive, or takes out what is there.
    pub fn change_medium(mut self, drive: Drive, path: Option<&Path>) -> Result<(), NamedError> {
        let path = path.map(path_of).transpose()?;
        self.ask(&Request::Change(drive, path))
    }

    /// Ends it as a signal to its process does, and waits until it has.
    pub fn stop(mut self) -> Result<(), NamedError> {
        let () = self.ask(&Request::Stop)?;
        self.wire.wait_for_end();
        Ok(())
    }

    /// Copies a file from the guest.
    pub fn get(mut self, path: &str, to: &mut impl Write) -> Result<FileInfo, NamedError> {
        let () = self.ask(&Request::Get(path.into()))?;
        loop {
            match self.wire.receive().map_err(self.broken())? {
                Piece::Data(bytes) => {
                    to.write_all(&bytes)
                        .map_err(|error| Refusal::new(format!("Cannot write it: {error}")))?;
                }
                Piece::Last(info) => return Ok(info.unwrap_or_default()),
                Piece::Failed(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Copies a file from the guest to a file here, whole or not at all, with its permissions and its time.
    pub fn download(self, path: &str, to: &Path) -> Result<(), NamedError> {
        // It would be replaced by a file.
        if to.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(Refusal::new(format!("`{}` is there, and is no file", to.display())).into());
        }
        let mut failed = None;
        let fill = |file: &File| {
            let got = self.get(path, &mut &*file).map_err(|error| {
                let kind = io::ErrorKind::Interrupted;
                failed = Some(error);
                io::Error::from(kind)
            })?;
            os::set_mode(file, got.mode)?;
            let since = Duration::from_secs(got.mtime.try_into().unwrap_or(0));
            file.set_modified(SystemTime::UNIX_EPOCH + since)
        };
        let written = replace(to, fill);
        match (failed, written) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(super::at(to)(error)),
            (None, Ok(_)) => Ok(()),
        }
    }

    /// Copies a file from here to the guest, with its permissions and its time.
    pub fn upload(self, from: &Path, to: &str) -> Result<(), NamedError> {
        let mut file = File::open(from).map_err(super::at(from))?;
        let found = file.metadata().map_err(super::at(from))?;
        if found.is_dir() {
            return Err(Refusal::new(format!(
                "`{}` is a directory; copy one with `tar c … | env86 exec NAME tar x`",
                from.display()
            ))
            .into());
        }
        let known = os::attributes(&found);
        let put = Put { path: to.into(), mode: known.mode & 0o777, mtime: Some(known.mtime) };
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.put(&mut file, put, &name)
    }

    /// Makes a file in the guest of all that there is to read.
    pub fn upload_from(self, from: &mut impl Read, to: &str) -> Result<(), NamedError> {
        self.put(from, Put { path: to.into(), mode: 0o644, mtime: None }, "stdin")
    }

    /// Copies a file to the guest. If `to` is a directory there, it is called `name` in it.
    fn put(mut self, from: &mut impl Read, to: Put, name: &str) -> Result<(), NamedError> {
        let () = self.ask(&Request::Put(to, name.into()))?;
        let mut piece = vec![0; PIECE];
        let sent = loop {
            let read = match from.read(&mut piece) {
                Ok(read) => read,
                Err(error) => return Err(Refusal::new(format!("Cannot read it: {error}")).into()),
            };
            if read == 0 {
                break self.wire.send(&Piece::Last(None));
            }
            if let Err(error) = InPieces(&mut self.wire).write_all(&piece[..read]) {
                break Err(error);
            }
        };
        // If it has broken off, it has said why.
        let answer: Answer<()> =
            self.wire.receive().or_else(|error| sent.and(Err(error))).map_err(self.broken())?;
        Ok(answer?)
    }

    /// Runs a program in the guest.
    pub fn exec(mut self, exec: Exec) -> Result<Process, NamedError> {
        let () = self.ask(&Request::Exec(exec))?;
        let sender = Mutex::new(self.wire.sender().map_err(self.broken())?);
        let room = Mutex::new(Some(INPUT_WINDOW));
        let shared = Arc::new(Shared { sender, room, changed: Condvar::new() });
        Ok(Process { wire: self.wire, shared: shared.clone(), input: Some(Input(shared)), end: None })
    }
}

/// What the handles of a program have in common.
#[derive(Debug)]
struct Shared {
    sender: Mutex<Wire>,
    /// For how many bytes of input there is room; `None` once the program has ended.
    room: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Shared {
    fn tell(&self, what: &ToProcess) -> io::Result<()> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).send(what)
    }

    fn room(&self) -> MutexGuard<'_, Option<usize>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        *self.room() = None;
        self.changed.notify_all();
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).close();
    }
}

/// A program in a machine with a name. When this is dropped, it gets a hang-up.
#[derive(Debug)]
pub struct Process {
    wire: Wire,
    shared: Arc<Shared>,
    input: Option<Input>,
    end: Option<ExitStatus>,
}

impl Process {
    /// What steers it from another thread.
    pub fn steering(&self) -> Steering {
        Steering(self.shared.clone())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl attach::Program for Process {
    type Input = Input;
    type Steering = Steering;

    fn steering(&self) -> Steering {
        Self::steering(self)
    }

    fn take_input(&mut self) -> Option<Input> {
        self.input.take()
    }

    fn next_output(&mut self) -> Result<Option<(Source, Vec<u8>)>, GuestError> {
        loop {
            match self.wire.receive() {
                Ok(FromExec::Out(bytes)) => return Ok(Some((Source::Stdout, bytes.into_vec()))),
                Ok(FromExec::Err(bytes)) => return Ok(Some((Source::Stderr, bytes.into_vec()))),
                Ok(FromExec::Taken(bytes)) => {
                    if let Some(room) = &mut *self.shared.room() {
                        *room += bytes;
                    }
                    self.shared.changed.notify_all();
                }
                Ok(FromExec::End(end)) => {
                    self.end = Some(ExitStatus::new(end));
                    return Ok(None);
                }
                Ok(FromExec::Broken(why)) => return Err(GuestError::Refused(why)),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(GuestError::Malformed(error.to_string()));
                }
                Err(_) => return Err(GuestError::Gone),
            }
        }
    }

    fn end(&self) -> Result<Option<ExitStatus>, GuestError> {
        Ok(self.end)
    }
}

/// A program's standard input, which ends when this is dropped.
#[derive(Debug)]
pub struct Input(Arc<Shared>);

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut room = self.0.room();
        let piece = loop {
            match &mut *room {
                None => return Err(io::ErrorKind::BrokenPipe.into()),
                Some(0) => room = self.0.changed.wait(room).unwrap_or_else(PoisonError::into_inner),
                Some(room) => {
                    let len = bytes.len().min(PIECE).min(*room);
                    *room -= len;
                    break &bytes[..len];
                }
            }
        };
        drop(room);
        self.0.tell(&ToProcess::In(ByteBuf::from(piece)))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // A program that has ended does not miss it.
        let _ = self.0.tell(&ToProcess::Eof);
    }
}

/// What steers a [`Process`] from another thread.
#[derive(Clone, Debug)]
pub struct Steering(Arc<Shared>);

impl attach::Steering for Steering {
    fn signal(&self, number: i32) -> Result<(), GuestError> {
        Ok(self.0.tell(&ToProcess::Signal(number))?)
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<(), GuestError> {
        Ok(self.0.tell(&ToProcess::Resize(Size { rows, columns }))?)
    }

    fn hang_up(&self) {
        self.0.close();
    }
}
