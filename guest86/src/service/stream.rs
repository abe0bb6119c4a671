//! A channel that belongs to a method: bytes from the host go into a file descriptor (a pipe, a terminal, a
//! socket, a file), and what other descriptors have goes to the host.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, PipeReader};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, SendError};
use std::thread;

use guest86::call::{self, Accepted, FromProcess, Reply, RunOutput, ToProcess};
use guest86::mux::Mux;
use guest86::value::{Values, encode, to_bytes};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, acceptfrom_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, waitpid};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_bytes::ByteBuf;

use super::{files, process};

/// The character that a terminal takes for the end of its input.
const END_OF_TRANSMISSION: u8 = 4;
/// Connections that wait for the host before no more are accepted.
const MAX_WAITING: usize = 64;
/// Pieces that are read in one turn, so that others get theirs.
const TURNS: usize = 4;

/// Whose stream it is.
pub enum Kind {
    /// An answer that is on its way.
    Answer,
    /// A program of [`call::RUN`].
    Run,
    /// A program of [`call::EXEC`].
    Exec,
    /// A shell at a terminal.
    Terminal,
    /// A connection.
    Socket,
    /// A port at which programs of the guest call the host; the first source. Connections wait here to be taken.
    Listener(Vec<OwnedFd>),
    /// What a thread makes; the first source tells that it has done it.
    Pending(Receiver<Answered>),
    /// A file that is read.
    Get,
    /// A file that is written.
    Put(call::Put),
}

/// What a method gives.
pub enum Answer {
    /// A value, and the channel's end.
    Value(Vec<u8>),
    /// A value, and the channel is this stream's.
    Stream(Vec<u8>, Box<Stream>),
}

pub type Answered = Result<Answer, String>;

/// A stream for an answer that a thread makes.
pub fn later(make: impl FnOnce() -> Answered + Send + 'static) -> Stream {
    let (result, made) = mpsc::channel();
    let start = || -> io::Result<PipeReader> {
        let (ended, end) = io::pipe()?;
        let act = move || {
            if let Err(SendError(Ok(Answer::Stream(_, stream)))) = result.send(make())
                && let Some(pid) = stream.running()
            {
                // No one is there for it any more.
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
            drop(end);
        };
        thread::Builder::new().spawn(act)?;
        Ok(ended)
    };
    match start() {
        Ok(ended) => {
            let mut stream = Stream::new(Kind::Pending(made));
            stream.sources[0] = Some(ended.into());
            stream
        }
        Err(error) => Stream::answer(Err(files::text(error))),
    }
}

/// What a stream waits for, or has got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wants {
    /// Room in its sink.
    pub sink: bool,
    /// Bytes of its sources.
    pub source: [bool; 2],
    /// Nothing: there is something to do.
    pub at_once: bool,
}

/// One descriptor of a stream.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    Sink,
    Source(usize),
}

impl Wants {
    /// This one is ready.
    pub fn set(&mut self, which: Which) {
        match which {
            Which::Sink => self.sink = true,
            Which::Source(n) => self.source[n] = true,
        }
    }
}

/// A channel's descriptors.
pub struct Stream {
    kind: Kind,
    /// Values from the host, of an [`Kind::Exec`].
    values: Values,
    /// Bytes that have come and whose room has not been given back.
    unpaid: usize,
    pub sink: Option<OwnedFd>,
    /// Bytes for the sink.
    pending: VecDeque<u8>,
    /// The last byte that was for the sink.
    last: u8,
    /// After them, the sink ends.
    sink_ends: bool,
    /// Standard output and standard error, where there are two.
    pub sources: [Option<OwnedFd>; 2],
    /// Of an ended process's pipe, what it had written and was not read yet.
    left: [Option<usize>; 2],
    ready: Wants,
    /// Bytes for the host.
    outgoing: Vec<u8>,
    pub process: Option<Pid>,
    status: Option<WaitStatus>,
    /// The process has a terminal.
    pub terminal: bool,
    /// The last word has been said.
    finished: bool,
}

impl Stream {
    /// A stream without descriptors.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            values: Values::default(),
            unpaid: 0,
            sink: None,
            pending: VecDeque::new(),
            last: b'\n',
            sink_ends: false,
            sources: [None, None],
            left: [None, None],
            ready: Wants::default(),
            outgoing: Vec::new(),
            process: None,
            status: None,
            terminal: false,
            finished: false,
        }
    }

    /// A stream that says what a method has given, and then is what it is.
    pub fn answer(answered: Answered) -> Self {
        let (reply, value, mut stream) = match answered {
            Ok(Answer::Value(value)) => (Reply::default(), value, Self::new(Kind::Answer)),
            Ok(Answer::Stream(value, stream)) => (Reply { error: None, goes_on: true }, value, *stream),
            Err(error) => {
                (Reply { error: Some(error), goes_on: false }, to_bytes(&()), Self::new(Kind::Answer))
            }
        };
        stream.outgoing = to_bytes(&reply);
        stream.outgoing.extend(value);
        stream
    }

    /// It only carries an answer.
    pub fn is_answer(&self) -> bool {
        matches!(self.kind, Kind::Answer)
    }

    /// The process, as long as it has not ended.
    pub fn running(&self) -> Option<Pid> {
        self.process.filter(|_| self.status.is_none())
    }

    /// Takes bytes whose room was given back when they came.
    pub fn early_input(&mut self, bytes: &[u8]) {
        self.input(bytes);
        self.unpaid = self.unpaid.saturating_sub(bytes.len());
    }

    /// Takes bytes from the host.
    pub fn input(&mut self, bytes: &[u8]) {
        self.unpaid += bytes.len();
        if !matches!(self.kind, Kind::Exec) {
            return self.put(bytes);
        }
        self.values.feed(bytes);
        loop {
            // Most of it is input, which goes on without a copy.
            if let Ok(Some(item)) = self.values.item()
                && let Some(bytes) = call::input_bytes(item)
            {
                let len = item.len();
                if let (Some(_), Some(last)) = (&self.sink, bytes.last()) {
                    self.pending.extend(bytes);
                    self.last = *last;
                }
                self.values.skip(len);
                continue;
            }
            match self.values.read::<ToProcess>() {
                Ok(None) => return,
                Ok(Some((ToProcess::In(bytes), _))) => self.put(&bytes),
                Ok(Some((ToProcess::Eof, _))) => self.input_ends(),
                Ok(Some((ToProcess::Signal(number), _))) => {
                    // It may have ended in this moment, and a wrong number is the caller's affair.
                    let _ = self.running().map(|pid| process::signal_group(pid, number));
                }
                Ok(Some((ToProcess::Resize(size), _))) => {
                    if let Some(terminal) = self.sink.as_ref().filter(|_| self.terminal) {
                        let _ = tcsetwinsize(terminal, winsize(size));
                    }
                }
                // What follows cannot be read either.
                Err(_) => {
                    self.values.take_rest();
                    return self.input_ends();
                }
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        // Of what has no sink, nothing is kept. One that is still being made gets it later.
        if self.sink.is_some() || matches!(self.kind, Kind::Pending(_)) {
            self.pending.extend(bytes);
            self.last = bytes.last().copied().unwrap_or(self.last);
        }
    }

    /// No more comes from the host.
    pub fn input_ends(&mut self) {
        if self.terminal && matches!(self.kind, Kind::Exec) && !self.sink_ends {
            // At a line's beginning one is the end; before that, the first only sends the line off.
            let count = if self.last == b'\n' { 1 } else { 2 };
            self.pending.extend(std::iter::repeat_n(END_OF_TRANSMISSION, count));
        }
        self.sink_ends = true;
    }

    /// The host has closed the channel. Says whether it is a connection that has bytes to write, after which it ends.
    pub fn ends_when_written(&mut self) -> bool {
        let unwritten = matches!(self.kind, Kind::Socket) && self.sink.is_some() && !self.pending.is_empty();
        if unwritten {
            self.sink_ends = true;
            self.sources = [None, None];
            self.outgoing.clear();
        }
        unwritten
    }

    /// Looks whether the process has ended. What it had written before still goes to the host; what others of
    /// its pipe's writers write later does not.
    pub fn look_for_end(&mut self) {
        let Some(pid) = self.running() else { return };
        let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) else { return };
        self.status = Some(status);
        if !self.terminal {
            for (source, left) in self.sources.iter().zip(&mut self.left) {
                let waiting = source.as_ref().and_then(|source| rustix::io::ioctl_fionread(source).ok());
                *left = Some(waiting.unwrap_or(0) as usize);
            }
        }
    }

    /// What it waits for, if the line has room.
    pub fn wants(&self, can_send: bool) -> Wants {
        let full = matches!(&self.kind, Kind::Listener(waiting) if waiting.len() >= MAX_WAITING);
        let reads = can_send && self.outgoing.is_empty() && !full;
        Wants {
            sink: self.sink.is_some() && !self.pending.is_empty(),
            source: [0, 1].map(|n| reads && self.sources[n].is_some()),
            at_once: reads && (self.status.is_some() || self.is_put_over()),
        }
    }

    /// The descriptors of what it waits for.
    pub fn fds(&self, wants: Wants) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags, Which)> {
        let sink = self.sink.as_ref().filter(|_| wants.sink);
        let sink = sink.map(|fd| (fd.as_fd(), PollFlags::OUT, Which::Sink));
        let source = move |n: usize| {
            let fd = self.sources[n].as_ref().filter(|_| wants.source[n]);
            fd.map(|fd| (fd.as_fd(), PollFlags::IN, Which::Source(n)))
        };
        [sink, source(0), source(1)].into_iter().flatten()
    }

    /// These are ready.
    pub fn ready(&mut self, ready: Wants) {
        self.ready = ready;
    }

    fn is_put_over(&self) -> bool {
        matches!(self.kind, Kind::Put(_)) && self.sink_ends && self.pending.is_empty() && !self.finished
    }

    /// Carries what can be carried. Says whether the stream is over.
    pub fn pump(&mut self, id: u32, mux: &mut Mux, buffer: &mut [u8], may_read: bool) -> bool {
        let ready = std::mem::take(&mut self.ready);
        self.write_sink();
        let held = self.pending.len() + self.values.waiting();
        let paid = self.unpaid.saturating_sub(held);
        self.unpaid -= paid;
        if paid > 0 {
            mux.consumed(id, paid);
        }
        self.send(id, mux);
        if let (Kind::Pending(_), true) = (&self.kind, ready.source[0]) {
            self.made();
            self.send(id, mux);
            return self.is_over() && self.outgoing.is_empty();
        }
        let mut turns = if may_read { TURNS } else { 0 };
        while turns > 0 && self.outgoing.is_empty() && mux.room(id) > 0 {
            turns -= 1;
            let mut any = false;
            for n in [0, 1] {
                if ready.source[n] || self.status.is_some() {
                    any |= self.read_source(n, buffer);
                }
            }
            if !any {
                break;
            }
            self.send(id, mux);
        }
        self.finish();
        self.send(id, mux);
        if self.sources_ended() && matches!(self.kind, Kind::Socket) {
            mux.send_eof(id);
        }
        self.is_over() && self.outgoing.is_empty()
    }

    fn send(&mut self, id: u32, mux: &mut Mux) {
        let sent = mux.send(id, &self.outgoing);
        self.outgoing.drain(..sent);
    }

    /// Writes as much as the sink takes.
    fn write_sink(&mut self) {
        let Some(sink) = &self.sink else { return };
        while !self.pending.is_empty() {
            match rustix::io::write(sink, self.pending.as_slices().0) {
                Ok(len) => _ = self.pending.drain(..len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    // No one reads there any more.
                    self.pending.clear();
                    self.sink = None;
                    if matches!(self.kind, Kind::Put(_)) {
                        self.fail(&files::text(error));
                    }
                    return;
                }
            }
        }
        if self.sink_ends {
            match self.kind {
                Kind::Socket => _ = rustix::net::shutdown(sink, Shutdown::Write),
                Kind::Put(_) => return,
                _ => {}
            }
            if !self.terminal {
                self.sink = None;
            }
        }
    }

    /// Reads a piece; says whether there was one.
    fn read_source(&mut self, n: usize, buffer: &mut [u8]) -> bool {
        let Some(source) = &self.sources[n] else { return false };
        if let Kind::Listener(waiting) = &mut self.kind {
            // What has gone before it was accepted is nobody's.
            let Ok((socket, peer)) = accept(source) else { return false };
            let number = socket.as_raw_fd().unsigned_abs();
            encode(&Accepted { number, peer }, &mut self.outgoing);
            waiting.push(socket);
            return waiting.len() < MAX_WAITING;
        }
        let most = self.left[n].unwrap_or(buffer.len()).min(buffer.len());
        let len = match most {
            0 => Ok(0),
            most => rustix::io::read(source, &mut buffer[..most]),
        };
        match len {
            Ok(len @ 1..) => {
                if let Some(left) = &mut self.left[n] {
                    *left -= len;
                }
                self.pass(n, &buffer[..len]);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) if self.status.is_none() => false,
            // The end; a terminal whose processes have gone gives an error. After a process's end, what is
            // not there now was not written by it.
            Ok(_) | Err(_) => {
                self.sources[n] = None;
                false
            }
        }
    }

    /// A connection that waits for the host.
    pub fn take_accepted(&mut self, number: u32) -> Option<OwnedFd> {
        let Kind::Listener(waiting) = &mut self.kind else { return None };
        let at = waiting.iter().position(|socket| socket.as_raw_fd().unsigned_abs() == number)?;
        Some(waiting.swap_remove(at))
    }

    /// Says to the host what has been read.
    fn pass(&mut self, n: usize, bytes: &[u8]) {
        if matches!(self.kind, Kind::Exec) {
            return call::encode_output(n > 0, bytes, &mut self.outgoing);
        }
        let bytes = || ByteBuf::from(bytes);
        match (&self.kind, n) {
            (Kind::Run, 0) => {
                encode(&RunOutput { stdout: Some(bytes()), ..RunOutput::default() }, &mut self.outgoing);
            }
            (Kind::Run, _) => {
                encode(&RunOutput { stderr: Some(bytes()), ..RunOutput::default() }, &mut self.outgoing);
            }
            _ => self.outgoing.extend(bytes()),
        }
    }

    /// Says the last word, if it is time.
    fn finish(&mut self) {
        if self.finished || !self.outgoing.is_empty() {
            return;
        }
        match (&self.kind, self.status) {
            (Kind::Exec, Some(status)) if self.sources_ended() => {
                let end = FromProcess::End(process::result(status));
                encode(&end, &mut self.outgoing);
                self.finished = true;
            }
            (Kind::Run, Some(status)) if self.sources_ended() => {
                let status = Some(process::result(status).unwrap_or(-1));
                encode(&RunOutput { status, ..RunOutput::default() }, &mut self.outgoing);
                self.finished = true;
            }
            (Kind::Put(put), _) if self.is_put_over() => {
                let done = match self.sink.take() {
                    Some(file) => files::finish(&File::from(file), put),
                    None => Ok(()),
                };
                match done {
                    Ok(()) => {
                        self.finished = true;
                        self.reply(None);
                    }
                    Err(error) => self.fail(&error),
                }
            }
            _ => {}
        }
    }

    fn fail(&mut self, error: &str) {
        if !self.finished {
            self.finished = true;
            self.reply(Some(error.to_owned()));
        }
    }

    fn reply(&mut self, error: Option<String>) {
        encode(&Reply { error, goes_on: false }, &mut self.outgoing);
        encode(&(), &mut self.outgoing);
    }

    /// The thread has made what it was to make: the stream becomes that.
    fn made(&mut self) {
        let Kind::Pending(result) = &self.kind else { return };
        let result = result.try_recv().unwrap_or_else(|_| Err("it was given up".into()));
        let mut stream = Self::answer(result);
        // What came meanwhile.
        stream.input(&self.pending.drain(..).collect::<Vec<_>>());
        stream.unpaid = self.unpaid;
        if self.sink_ends {
            stream.input_ends();
        }
        // The process may have ended already, when no one knew whose it was.
        stream.look_for_end();
        *self = stream;
    }

    fn sources_ended(&self) -> bool {
        self.sources.iter().all(Option::is_none)
    }

    fn is_over(&self) -> bool {
        match self.kind {
            Kind::Answer => true,
            Kind::Run | Kind::Exec | Kind::Put(_) => self.finished,
            Kind::Terminal => self.status.is_some() && self.sources_ended(),
            Kind::Socket => self.sources_ended() && self.sink.is_none(),
            Kind::Pending(_) | Kind::Listener(_) => false,
            Kind::Get => self.sources_ended(),
        }
    }
}

/// Takes a connection from a socket that listens, with the address of its other end.
fn accept(listener: &OwnedFd) -> rustix::io::Result<(OwnedFd, String)> {
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((socket, peer.map(|peer| peer.to_string()).unwrap_or_default()))
}

/// A terminal's size as the kernel wants it.
pub fn winsize(size: call::Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}
