//! The ends of a machine's lines, and what it tells, as other threads hold them.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use env86_core::{Frame, Pattern};
use thiserror::Error;

use super::shares::Shares;
use crate::image::BlobFileError;

/// Bytes from the guest that wait on a line. With a reader the guest waits then; without one the oldest
/// are lost.
const OUTPUT_LIMIT: usize = 64 << 10;
/// Bytes for the guest that wait on a line before a writer has to wait.
const INPUT_LIMIT: usize = 64 << 10;
/// Bytes that a machine is offered at once for a serial port.
const SERIAL_PIECE: usize = 4096;
/// The same for a port of the virtio console.
const CONSOLE_PIECE: usize = 64 << 10;
/// Events that wait; the oldest are lost.
const EVENT_LIMIT: usize = 1024;
/// Of what came instead of an expected text, an error shows so many bytes.
const SHOWN: usize = 2000;

/// A serial port of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Com {
    /// COM1, Linux's `ttyS0`.
    One,
    /// COM2, `ttyS1`.
    Two,
    /// COM3, `ttyS2`.
    Three,
    /// COM4, `ttyS3`.
    Four,
}

/// A stream of bytes between the guest and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A serial port; 0 is COM1.
    Serial(u8),
    /// A port of the virtio console; 0 is `hvc0`.
    Console(u8),
    /// The debug ports, which only send.
    Debug,
    /// The parallel port, which only sends.
    Printer,
}

/// Serial ports, ports of the virtio console, the debug ports, and the parallel port.
pub(super) const LINES: [Line; 10] = [
    Line::Serial(0),
    Line::Serial(1),
    Line::Serial(2),
    Line::Serial(3),
    Line::Console(0),
    Line::Console(1),
    Line::Console(2),
    Line::Console(3),
    Line::Debug,
    Line::Printer,
];

impl Line {
    /// Bytes that a machine is offered for it at once.
    fn piece(self) -> usize {
        if matches!(self, Self::Console(_)) { CONSOLE_PIECE } else { SERIAL_PIECE }
    }

    /// Its place in [`LINES`].
    fn index(self) -> usize {
        match self {
            Self::Serial(port) => usize::from(port),
            Self::Console(port) => 4 + usize::from(port),
            Self::Debug => 8,
            Self::Printer => 9,
        }
    }
}

/// What a machine tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// The machine has been reset and starts again.
    Reset,
    /// The machine has stopped executing.
    Paused,
    /// The machine goes on.
    Resumed,
    /// The text that ends the recording has come, and the machine has stopped executing.
    Over,
    /// The saved state does not say which image has the contents of the guest's files, and none was given:
    /// the guest gets I/O errors.
    NoImage,
    /// A file of the image cannot be read: the guest has got an I/O error. Told once for each file.
    FileLost(Arc<BlobFileError>),
}

/// What the machine's thread and its handles share.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
    /// What the guest asks of folders of the host.
    pub(crate) shares: Shares,
    changed: Condvar,
    /// The machine's thread, to be woken by whoever has put something here.
    machine: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct State {
    lines: [LineState; LINES.len()],
    events: VecDeque<Event>,
    ended: bool,
    /// What the screen showed at the machine's end.
    last_picture: Option<Frame>,
}

#[derive(Debug, Default)]
struct LineState {
    /// The machine has it.
    fitted: bool,
    /// Handles that may read.
    readers: usize,
    /// From the guest.
    output: VecDeque<u8>,
    /// For the guest.
    input: VecDeque<u8>,
}

impl Desk {
    /// A desk for a machine that has these lines.
    pub fn new(fitted: impl Fn(Line) -> bool) -> Self {
        let mut state = State::default();
        for line in LINES {
            state.lines[line.index()].fitted = fitted(line);
        }
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// Keeps what the screen shows at the machine's end.
    pub fn keep_picture(&self, picture: Frame) {
        self.lock().last_picture = Some(picture);
    }

    /// What the screen showed at the machine's end.
    pub fn last_picture(&self) -> Option<Frame> {
        self.lock().last_picture.clone()
    }

    /// The machine runs in this thread.
    pub fn runs_in(&self, machine: Thread) {
        // Told once, by the one who has started it.
        let _ = self.machine.set(machine);
    }

    /// Wakes the machine's thread.
    pub fn wake(&self) {
        self.machine.get().inspect(|machine| machine.unpark());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a line has sent. Without a reader, the oldest is lost in the end.
    pub fn put_output(&self, line: Line, bytes: &[u8]) {
        let mut state = self.lock();
        let line = &mut state.lines[line.index()];
        line.output.extend(bytes);
        if line.readers == 0 && line.output.len() > OUTPUT_LIMIT {
            let lost = line.output.len() - OUTPUT_LIMIT;
            line.output.drain(..lost);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The guest has to wait for a reader.
    pub fn is_full(&self) -> bool {
        self.lock().lines.iter().any(|line| line.readers > 0 && line.output.len() >= OUTPUT_LIMIT)
    }

    /// Offers `give` what waits on each line; it tells how much it took. Says whether any was taken.
    pub fn give_input(&self, mut give: impl FnMut(Line, &[u8]) -> usize) -> bool {
        let mut any = false;
        let mut state = self.lock();
        for line in LINES {
            let input = &mut state.lines[line.index()].input;
            if !input.is_empty() {
                let waiting = input.make_contiguous();
                let taken = give(line, &waiting[..waiting.len().min(line.piece())]);
                input.drain(..taken);
                any |= taken > 0;
            }
        }
        drop(state);
        if any {
            self.changed.notify_all();
        }
        any
    }

    /// Tells an event.
    pub fn tell(&self, event: Event) {
        let mut state = self.lock();
        if state.events.len() == EVENT_LIMIT {
            state.events.pop_front();
        }
        state.events.push_back(event);
        drop(state);
        self.changed.notify_all();
    }

    /// The machine has ended.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
        self.shares.end();
    }

    /// Waits for a change, not beyond the deadline; says whether there was time left.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, State>, bool) {
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => (self.changed.wait(state).unwrap_or_else(PoisonError::into_inner), true),
            Some(Duration::ZERO) => (state, false),
            Some(left) => {
                let waited = self.changed.wait_timeout(state, left);
                (waited.unwrap_or_else(PoisonError::into_inner).0, true)
            }
        }
    }
}

/// Why an expected text did not come.
#[derive(Debug, Error)]
pub enum ExpectError {
    /// The time is over.
    #[error("The guest has not sent {text:?} within {limit:?}, but: {}", end_of(seen))]
    Timeout {
        /// What was expected.
        text: String,
        /// The time.
        limit: Duration,
        /// What came, which can still be read.
        seen: String,
    },
    /// The machine ended first, or has no such port.
    #[error("The machine has ended without sending {text:?}, but: {}", end_of(seen))]
    Ended {
        /// What was expected.
        text: String,
        /// What came, which can still be read.
        seen: String,
    },
}

/// The end of a text.
fn end_of(text: &str) -> &str {
    let from = text.len().saturating_sub(SHOWN);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(from);
    &text[from..]
}

/// A line of the machine, to be read and written: a serial port, or a port of the virtio console.
///
/// What the guest sends waits here, up to 64 KiB. While a `SerialPort` for the line exists, the guest
/// waits when that is full; else the oldest bytes are lost, so that a line that no one reads holds up
/// neither the guest nor anything else. Several of one line share what comes and wait for the same.
///
/// Reading waits for bytes and gives 0 at the machine's end. Writing waits while 64 KiB wait for the
/// guest; it fails when the machine has ended or has no such port.
#[derive(Debug)]
pub struct SerialPort {
    desk: Arc<Desk>,
    line: Line,
}

impl SerialPort {
    pub(super) fn new(desk: &Arc<Desk>, line: Line) -> Self {
        desk.lock().lines[line.index()].readers += 1;
        Self { desk: desk.clone(), line }
    }

    /// Reads until the guest has sent `text`; gives what came up to its end. What comes behind it, and
    /// all of it if the text does not come within `limit`, stays to be read.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result<String, ExpectError> {
        let deadline = Instant::now().checked_add(limit);
        let mut pattern = Pattern::new(text);
        let mut seen = Vec::new();
        let mut state = self.desk.lock();
        let give_back = |state: &mut State, seen: &[u8]| {
            let output = &mut state.lines[self.line.index()].output;
            seen.iter().rev().for_each(|byte| output.push_front(*byte));
            String::from_utf8_lossy(seen).into_owned()
        };
        loop {
            let line = &mut state.lines[self.line.index()];
            while let Some(byte) = line.output.pop_front() {
                seen.push(byte);
                if pattern.found_in(&[byte]) {
                    drop(state);
                    self.desk.wake();
                    return Ok(String::from_utf8_lossy(&seen).into_owned());
                }
            }
            if state.ended || !state.lines[self.line.index()].fitted {
                let seen = give_back(&mut state, &seen);
                return Err(ExpectError::Ended { text: text.into(), seen });
            }
            self.desk.wake();
            let (after, in_time) = self.desk.wait(state, deadline);
            state = after;
            if !in_time {
                let seen = give_back(&mut state, &seen);
                return Err(ExpectError::Timeout { text: text.into(), limit, seen });
            }
        }
    }

    /// Writes what there is room for at once, and gives how much that was.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.desk.lock();
        let ended = state.ended;
        let line = &mut state.lines[self.line.index()];
        if !line.fitted || matches!(self.line, Line::Debug | Line::Printer) {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the machine has no such port to write to",
            ));
        }
        if ended {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the machine has ended"));
        }
        let room = INPUT_LIMIT.saturating_sub(line.input.len()).min(bytes.len());
        line.input.extend(&bytes[..room]);
        drop(state);
        self.desk.wake();
        Ok(room)
    }
}

impl Clone for SerialPort {
    fn clone(&self) -> Self {
        Self::new(&self.desk, self.line)
    }
}

impl Drop for SerialPort {
    fn drop(&mut self) {
        self.desk.lock().lines[self.line.index()].readers -= 1;
        // A guest that waited for this reader need not wait any more.
        self.desk.wake();
    }
}

impl Read for SerialPort {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.desk.lock();
        loop {
            let line = &mut state.lines[self.line.index()];
            if !line.output.is_empty() || buf.is_empty() {
                let was_full = line.output.len() >= OUTPUT_LIMIT;
                let read = line.output.read(buf)?;
                drop(state);
                if was_full {
                    self.desk.wake();
                }
                return Ok(read);
            }
            if !line.fitted || state.ended {
                return Ok(0);
            }
            state = self.desk.wait(state, None).0;
        }
    }
}

impl Write for SerialPort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.try_write(bytes)? {
                0 if !bytes.is_empty() => {
                    let state = self.desk.lock();
                    let full = state.lines[self.line.index()].input.len() >= INPUT_LIMIT;
                    if full && !state.ended {
                        drop(self.desk.wait(state, None));
                    }
                }
                written => return Ok(written),
            }
        }
    }

    /// What has been written is on its way already.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a machine tells, until its end. Several of one machine share what comes: each event goes to one.
#[derive(Clone, Debug)]
pub struct Events(Arc<Desk>);

/// Why there is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoEvent {
    /// The time is over.
    #[error("Nothing has happened in time")]
    Timeout,
    /// The machine has ended.
    #[error("The machine has ended")]
    Ended,
}

impl Events {
    pub(super) fn new(desk: &Arc<Desk>) -> Self {
        Self(desk.clone())
    }

    /// Waits for the next event, but no longer than this.
    pub fn next_timeout(&mut self, limit: Duration) -> Result<Event, NoEvent> {
        self.next_until(Instant::now().checked_add(limit))
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Result<Event, NoEvent> {
        let mut state = self.0.lock();
        loop {
            if let Some(event) = state.events.pop_front() {
                return Ok(event);
            }
            if state.ended {
                return Err(NoEvent::Ended);
            }
            let (after, in_time) = self.0.wait(state, deadline);
            state = after;
            if !in_time {
                return Err(NoEvent::Timeout);
            }
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    /// Waits for the next event; `None` at the machine's end.
    fn next(&mut self) -> Option<Event> {
        self.next_until(None).ok()
    }
}
