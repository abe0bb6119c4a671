//! The host's end of the line to a guest's service: two threads, which carry bytes both ways, and the
//! channels that other threads wait for.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use guest86::call::{Call, Reply};
use guest86::frame::SYNC;
use guest86::mux::{Config, Event, Mux};
use guest86::value::{Values, to_bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::GuestError;
use super::process::Process;

/// Bytes that wait here for each channel before the guest has to wait.
const WINDOW: u32 = 1 << 20;
/// Bytes that are read from the line at once.
const CHUNK: usize = 64 << 10;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A serial port, behind which the guest's kernel loses what it has no room for.
    Serial,
    /// A port of the virtio console, where each side waits for the other.
    Console,
}

impl Line {
    /// Bytes on their way to a channel of the guest. Behind a serial port there is room for ten times as many.
    fn on_the_way(self) -> u32 {
        match self {
            Self::Serial => 64 << 10,
            Self::Console => u32::MAX,
        }
    }
}

/// What comes from the guest on a channel.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    confirmed: bool,
    /// Bytes, until there is a process.
    bytes: VecDeque<u8>,
    /// What the channel's program says.
    pub process: Option<Process>,
    /// No more comes.
    pub ended: bool,
}

/// What the threads share.
pub(super) struct State {
    pub mux: Mux,
    pub channels: BTreeMap<u32, Incoming>,
    /// There is no guest any more.
    pub gone: bool,
}

/// A line, and what happens there.
pub(super) struct Session {
    line: Line,
    state: Mutex<State>,
    changed: Condvar,
    /// Tasks that wait for a change, each once.
    tasks: Mutex<Vec<Waker>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

/// A number that no one who had the line before is likely to have used: what is left of theirs is not taken
/// for ours.
fn first_number() -> u32 {
    let mut bytes = [0; 4];
    // A host without random numbers would not have started this program.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

fn mux(line: Line) -> Mux {
    Mux::new(Config {
        first: first_number(),
        lowest: false,
        accepts: false,
        window: WINDOW,
        on_the_way: line.on_the_way(),
    })
}

impl Session {
    /// Takes a line. Its threads end when there is nothing more to read.
    pub fn start(
        line: Line,
        mut from: impl Read + Send + 'static,
        mut to: impl Write + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let state = State { mux: mux(line), channels: BTreeMap::new(), gone: false };
        let session = Arc::new(Self {
            line,
            state: Mutex::new(state),
            changed: Condvar::new(),
            tasks: Mutex::default(),
        });
        let reader = session.clone();
        thread::Builder::new().name("guest input".into()).spawn(move || {
            let mut piece = vec![0; CHUNK];
            while let Ok(len @ 1..) = from.read(&mut piece) {
                reader.take(&piece[..len]);
            }
            reader.lock().gone = true;
            reader.notify();
        })?;
        let writer = session.clone();
        thread::Builder::new().name("guest output".into()).spawn(move || {
            while let Some(bytes) = writer.output() {
                if to.write_all(&bytes).is_err() {
                    return;
                }
            }
        })?;
        Ok(session)
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the others that something has changed.
    pub fn notify(&self) {
        self.changed.notify_all();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.into_iter().for_each(Waker::wake);
    }

    /// Has a task polled again after the next change. The caller has the state locked and has found nothing in it, so that
    /// no change is missed.
    #[cfg(feature = "net")]
    pub fn wake_later(&self, _: &State, task: &Waker) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task.clone());
    }

    /// Waits for a change.
    pub fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, State>, GuestError> {
        let Some(deadline) = deadline else {
            return Ok(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Err(GuestError::Silent);
        }
        Ok(self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits for something to be written to the line.
    fn output(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if !state.mux.output().is_empty() {
                return Some(std::mem::take(state.mux.output()));
            }
            if state.gone {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes what the guest has sent.
    fn take(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let State { mux, channels, .. } = &mut *state;
        mux.feed(bytes);
        while let Some(event) = mux.event() {
            let id = match &event {
                Event::Confirmed(id) | Event::Refused(id) | Event::Data(id, _) | Event::Eof(id) => *id,
                Event::Closed(id) => *id,
                Event::Opened(_) | Event::Room(_) | Event::Reset => continue,
            };
            let Some(channel) = channels.get_mut(&id) else {
                // Its owner has gone.
                if let Event::Data(_, data) = event {
                    mux.consumed(id, data.len());
                }
                continue;
            };
            match event {
                Event::Confirmed(_) => channel.confirmed = true,
                Event::Data(_, data) => match &mut channel.process {
                    Some(process) => {
                        let dropped = process.take(&data);
                        mux.consumed(id, dropped);
                    }
                    None => channel.bytes.extend(data),
                },
                Event::Eof(_) | Event::Refused(_) => channel.ended = true,
                _ => {
                    channel.ended = true;
                    // The last word about it; what was not read stays.
                    mux.close(id);
                }
            }
        }
        drop(state);
        self.notify();
    }

    /// Begins anew, with a guest that may be in the middle of anything.
    pub fn begin_anew(&self) {
        let mut state = self.lock();
        state.mux = mux(self.line);
        state.mux.output().extend(SYNC);
        for channel in state.channels.values_mut() {
            channel.ended = true;
        }
        drop(state);
        self.notify();
    }
}

/// A channel. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Channel {
    pub session: Arc<Session>,
    pub id: u32,
    values: Values,
}

impl Channel {
    /// Asks for a channel.
    pub fn open(session: &Arc<Session>) -> Self {
        let mut state = session.lock();
        let id = state.mux.open();
        state.channels.insert(id, Incoming::default());
        drop(state);
        session.notify();
        Self { session: session.clone(), id, values: Values::default() }
    }

    /// Makes a call; its answer is still to be read.
    pub fn call(
        &mut self,
        method: &str,
        argument: &impl Serialize,
        deadline: Option<Instant>,
    ) -> Result<(), GuestError> {
        self.send(&to_bytes(&Call { method: method.into() }), deadline)?;
        self.send(&to_bytes(argument), deadline)
    }

    /// Reads the answer to a call up to its result.
    pub fn reply(&mut self, deadline: Option<Instant>) -> Result<(), GuestError> {
        let reply: Reply = self.value(deadline)?;
        match reply.error {
            None => Ok(()),
            Some(error) => Err(GuestError::Refused(error)),
        }
    }

    /// Sends all of these bytes.
    pub fn send(&self, mut bytes: &[u8], deadline: Option<Instant>) -> Result<(), GuestError> {
        let mut state = self.session.lock();
        while !bytes.is_empty() {
            match self.send_now(&mut state, bytes)? {
                0 => state = self.session.wait(state, deadline)?,
                sent => bytes = &bytes[sent..],
            }
        }
        Ok(())
    }

    /// Sends as many of these bytes as there is room for, and gives how many that is.
    pub fn send_now(&self, state: &mut State, bytes: &[u8]) -> Result<usize, GuestError> {
        let sent = state.mux.send(self.id, bytes);
        if sent > 0 {
            self.session.notify();
        } else if state.gone {
            return Err(GuestError::Gone);
        } else if state.channels.get(&self.id).is_none_or(|channel| channel.ended) {
            return Err(GuestError::Closed);
        }
        Ok(sent)
    }

    /// Says that no more will be sent.
    pub fn send_eof(&self) {
        self.session.lock().mux.send_eof(self.id);
        self.session.notify();
    }

    /// Has done with it. Whoever waits for it learns that.
    pub fn close(&self) {
        let mut state = self.session.lock();
        state.mux.close(self.id);
        if let Some(channel) = state.channels.get_mut(&self.id) {
            channel.ended = true;
        }
        drop(state);
        self.session.notify();
    }

    /// Reads plain bytes; 0 at their end.
    pub fn read(&mut self, buf: &mut [u8], deadline: Option<Instant>) -> Result<usize, GuestError> {
        let early = self.values.take_rest();
        let mut state = self.session.lock();
        let State { channels, .. } = &mut *state;
        if let Some(channel) = channels.get_mut(&self.id) {
            early.into_iter().rev().for_each(|byte| channel.bytes.push_front(byte));
        }
        loop {
            let State { mux, channels, gone } = &mut *state;
            let Some(channel) = channels.get_mut(&self.id) else { return Err(GuestError::Closed) };
            if !channel.bytes.is_empty() {
                let read = channel.bytes.read(buf)?;
                mux.consumed(self.id, read);
                self.session.notify();
                return Ok(read);
            }
            if channel.ended {
                return Ok(0);
            }
            if *gone {
                return Err(GuestError::Gone);
            }
            state = self.session.wait(state, deadline)?;
        }
    }

    /// Reads a value.
    pub fn value<T: DeserializeOwned>(&mut self, deadline: Option<Instant>) -> Result<T, GuestError> {
        let mut state = self.session.lock();
        loop {
            if let Some((value, _)) = self.values.read()? {
                return Ok(value);
            }
            let State { mux, channels, gone } = &mut *state;
            let Some(channel) = channels.get_mut(&self.id) else { return Err(GuestError::Closed) };
            if !channel.bytes.is_empty() {
                let bytes = std::mem::take(&mut channel.bytes);
                mux.consumed(self.id, bytes.len());
                self.values.feed(&Vec::from(bytes));
                self.session.notify();
                continue;
            }
            if *gone {
                return Err(GuestError::Gone);
            }
            if channel.ended {
                return Err(GuestError::Closed);
            }
            state = self.session.wait(state, deadline)?;
        }
    }

    /// From now on the channel is a program's.
    pub fn becomes(&mut self, mut process: Process) {
        let mut state = self.session.lock();
        let State { mux, channels, .. } = &mut *state;
        if let Some(channel) = channels.get_mut(&self.id) {
            // Room for what was read with a value has been given back already.
            process.take(&self.values.take_rest());
            let dropped = process.take(&Vec::from(std::mem::take(&mut channel.bytes)));
            mux.consumed(self.id, dropped);
            channel.process = Some(process);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        state.mux.close(self.id);
        state.channels.remove(&self.id);
        drop(state);
        self.session.notify();
    }
}
