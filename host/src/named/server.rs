//! A machine that answers on its control socket.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use guest86::call::{Exec, Put, ToProcess};
use serde_bytes::ByteBuf;
use tracing::debug;

use super::protocol::{Answer, FromExec, InPieces, Now, Piece, Pieces, Refusal, Request, Saved, Wire};
use super::{NamedError, Place, SOCKET};
use crate::guest::{ChildStdin, Guest, GuestError, Source};
use crate::image::{Image, container};
use crate::machine::{Controls, Machine};
use crate::os::{self, UnixListener, UnixStream};

/// What is asked of a machine.
#[derive(Clone)]
struct Desk {
    controls: Controls,
    image: Option<Image>,
}

/// A machine answers, until this is dropped, which gives its name back.
#[derive(Debug)]
pub struct Served {
    place: Place,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Place {
    /// Answers for a machine, which was started from this image. Several clients are answered at once.
    pub fn serve(mut self, machine: &Machine, image: Option<Image>) -> Result<Served, NamedError> {
        let desk = Desk { controls: machine.controls(), image };
        let over = Arc::new(AtomicBool::new(false));
        let (listener, is_over) = (self.listener.take(), over.clone());
        let listen = move || {
            if let Some(listener) = listener {
                accept(&listener, &desk, &is_over);
            }
        };
        let thread = thread::Builder::new().name("control".into()).spawn(listen);
        let thread = thread.map_err(super::at(&self.name.file(SOCKET)))?;
        Ok(Served { place: self, over, thread: Some(thread) })
    }
}

impl Served {
    /// The name, with what COM1 said, stays at the end, until it is removed.
    pub fn stay(&mut self) {
        self.place.stays = true;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // The thread waits for a client; without one it ends with this process.
        if UnixStream::connect(self.place.name.file(SOCKET)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &UnixListener, desk: &Desk, over: &AtomicBool) {
    for stream in listener.incoming() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        // A client that has gone already, or too many of them.
        let Ok(stream) = stream else { continue };
        let desk = desk.clone();
        let answer = move || {
            let mut wire = Wire::new(stream);
            let answered = desk.answer(&mut wire);
            debug!(target: "control", ?answered);
            wire.close();
        };
        if let Err(error) = thread::Builder::new().name("client".into()).spawn(answer) {
            debug!(target: "control", %error, "No thread for a client");
        }
    }
}

/// A refusal for this reason, with those behind it.
fn refusal(error: &dyn std::error::Error) -> Refusal {
    let (mut why, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        why = format!("{why}: {error}");
        source = error.source();
    }
    Refusal::new(why)
}

fn refused(error: impl std::error::Error) -> Refusal {
    refusal(&error)
}

impl Desk {
    /// Does what a client asks.
    fn answer(&self, wire: &mut Wire) -> io::Result<()> {
        match wire.receive()? {
            Request::Show => {
                let now = self.controls.with(|computer| Now {
                    paused: computer.is_paused(),
                    memory: computer.memory().contents().len() as u64,
                    instructions: computer.stats().instructions,
                });
                wire.send(&now.map_err(refused))
            }
            Request::Exec(exec) => self.exec(wire, exec),
            Request::Get(path) => self.get(wire, &path),
            Request::Put(put, name) => self.put(wire, put, &name),
            Request::Save(path) => wire.send(&self.save(path)),
            Request::Pause(pauses) => {
                if pauses {
                    self.controls.pause();
                } else {
                    self.controls.resume();
                }
                wire.send(&Answer::Ok(()))
            }
            Request::Change(drive, path) => {
                let changed = self.controls.change_medium(drive, path.as_deref().map(Path::new));
                wire.send(&changed.map_err(refused))
            }
            Request::Stop => {
                wire.send(&os::end_this_process().map_err(refused))?;
                // The connection ends with the process.
                wire.wait_for_end();
                Ok(())
            }
        }
    }

    fn save(&self, path: Option<String>) -> Answer<Saved> {
        match (path, &self.image) {
            (Some(path), _) => {
                let size = self.controls.save(Path::new(&path)).map_err(refused)?;
                Ok(Saved { path, size })
            }
            (None, Some(image)) => {
                let size = self.controls.save_to(image).map_err(refused)?;
                Ok(Saved { path: image.path().display().to_string(), size })
            }
            (None, None) => Err(Refusal::new("The machine was started without an image; name a file")),
        }
    }

    /// The service in the guest, which may have to boot before it answers.
    fn guest(&self) -> Answer<Guest> {
        if self.image.as_ref().is_some_and(|image| !image.config.has_guest_service) {
            return Err(Refusal::new(
                "The machine's image does not say that it runs guest86, which starts commands and copies files",
            ));
        }
        if self.controls.with(|computer| computer.is_paused()).map_err(refused)? {
            return Err(Refusal::new("The machine is paused; let it go on with `env86 resume`"));
        }
        self.controls.guest().map_err(refused)
    }

    fn get(&self, wire: &mut Wire, path: &str) -> io::Result<()> {
        let guest = match self.guest() {
            Ok(guest) => guest,
            Err(refusal) => return wire.send(&Answer::<()>::Err(refusal)),
        };
        wire.send(&Answer::Ok(()))?;
        let got = guest.download(path, &mut InPieces(wire));
        wire.send(&match got {
            Ok(info) => Piece::Last(Some(info)),
            Err(error) => Piece::Failed(refused(error)),
        })
    }

    fn put(&self, wire: &mut Wire, mut put: Put, name: &str) -> io::Result<()> {
        let guest = match self.guest() {
            Ok(guest) => guest,
            Err(refusal) => return wire.send(&Answer::<()>::Err(refusal)),
        };
        if guest.metadata(&put.path).is_ok_and(|entry| entry.is_dir) {
            put.path = format!("{}/{name}", put.path.trim_end_matches('/'));
        }
        wire.send(&Answer::Ok(()))?;
        let mut pieces = Pieces::new(wire);
        let mut done = guest.upload(&mut pieces, put.path, put.mode, put.mtime).map_err(refused);
        if done.is_ok() && !pieces.last {
            done = Err(Refusal::new("The guest has taken only a part of the file"));
        }
        wire.send(&done)
    }

    fn exec(&self, wire: &mut Wire, exec: Exec) -> io::Result<()> {
        let exec = match &self.image {
            Some(image) => container::configured(exec, &image.config),
            None => exec,
        };
        let started = self.guest().and_then(|guest| {
            guest.exec(exec).spawn().map_err(|error| {
                let missing =
                    if let GuestError::Start { missing, .. } = &error { Some(*missing) } else { None };
                Refusal { not_started: missing, ..refused(error) }
            })
        });
        let mut child = match started {
            Ok(child) => child,
            Err(refusal) => return wire.send(&Answer::<()>::Err(refusal)),
        };
        wire.send(&Answer::Ok(()))?;
        let sender = Arc::new(Mutex::new(wire.sender()?));
        let (remote, stdin) = (child.remote(), child.stdin.take());
        // What is typed waits in one thread for room, so that another can hear what comes behind it.
        let (input, inputs) = mpsc::channel();
        let taken = sender.clone();
        thread::Builder::new().name("exec input".into()).spawn(move || feed(stdin, &inputs, &taken))?;
        let mut from = wire.sender()?;
        let hear = move || {
            let mut input = Some(input);
            loop {
                let done = match from.receive() {
                    Ok(ToProcess::In(bytes)) => {
                        if input.as_ref().is_some_and(|input| input.send(bytes).is_err()) {
                            input = None;
                        }
                        Ok(())
                    }
                    Ok(ToProcess::Eof) => {
                        input = None;
                        Ok(())
                    }
                    Ok(ToProcess::Signal(number)) => remote.signal(number),
                    Ok(ToProcess::Resize(size)) => remote.resize(size.rows, size.columns),
                    // The client has gone, or the program has ended.
                    Err(_) => break remote.hang_up(),
                };
                debug!(target: "control", ?done);
            }
        };
        thread::Builder::new().name("exec".into()).spawn(hear)?;
        let send = |said: &FromExec| sender.lock().unwrap_or_else(PoisonError::into_inner).send(said);
        let end = loop {
            match child.next_output() {
                Ok(Some((source, bytes))) => {
                    let bytes = ByteBuf::from(bytes);
                    let said = match source {
                        Source::Stdout => FromExec::Out(bytes),
                        Source::Stderr => FromExec::Err(bytes),
                    };
                    send(&said)?;
                }
                Ok(None) => break child.try_wait(),
                Err(error) => break Err(error),
            }
        };
        send(&match end {
            Ok(Some(status)) => FromExec::End(status.end()),
            Ok(None) => FromExec::Broken(GuestError::Closed.to_string()),
            Err(error) => FromExec::Broken(refused(error).why),
        })
    }
}

/// Gives a program its input, and the client room for more. Input that the program does not take any more is
/// thrown away.
fn feed(stdin: Option<ChildStdin>, inputs: &Receiver<ByteBuf>, taken: &Mutex<Wire>) {
    let mut stdin = stdin;
    for bytes in inputs {
        if stdin.as_mut().is_some_and(|stdin| stdin.write_all(&bytes).is_err()) {
            stdin = None;
        }
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.send(&FromExec::Taken(bytes.len())).is_err() {
            return;
        }
    }
}
