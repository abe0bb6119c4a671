//! The service: a thread for each line, which waits for the line, for its processes and for their pipes at
//! once.

mod clock;
mod dhcp;
pub mod files;
mod lines;
pub mod link;
pub mod process;
mod shares;
mod stream;
pub mod system;
pub mod user;

use std::collections::BTreeMap;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ciborium::Value;
use guest86::call::{self, Call, method_name};
use guest86::mux::{Config, Event, Mux};
use guest86::value::{ValueError, Values, arguments, to_bytes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};
use rustix::termios::{ControlModes, OptionalActions, isatty, tcgetattr, tcsetattr};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

pub use lines::all as lines;
use stream::{Answer, Answered, Stream, Wants, later};

/// How this end numbers its channels, and what it holds for each. Behind a serial line is a kernel that loses what
/// it has no room for.
const SERIAL: Config =
    Config { first: 0, lowest: true, accepts: true, window: 128 << 10, on_the_way: u32::MAX };
/// The same for a port of a virtio console, where a larger window keeps the host from waiting.
const CONSOLE: Config = Config { window: 512 << 10, ..SERIAL };
/// Bytes that wait for the line before no more is read from processes.
const LINE_LIMIT: usize = 64 << 10;
/// Bytes that are read at once.
const CHUNK: usize = 32 << 10;
/// The line's speed: what emulated lines make of it is their affair.
const BAUD: u32 = 115_200;
/// Bytes that a port of a virtio console gives at once: one of its driver's buffers.
const PAGE: usize = 4096;
/// Reads in one turn, so that the line does not keep the thread to itself.
const READS: usize = 16;
/// Time between a hang-up and the end of a process that does not heed it.
const HANG_UP: Duration = Duration::from_secs(2);

/// What [`call::VERSION`] answers.
pub fn version() -> String {
    format!("{}{}", call::OURS, env!("CARGO_PKG_VERSION"))
}

/// Serves hosts at these lines, until one of the lines is gone. One that cannot be opened is left out as long
/// as there is another.
pub fn serve(lines: Vec<PathBuf>) -> io::Result<()> {
    // Without it, everything else works.
    let _ = thread::Builder::new().spawn(clock::keep);
    let (end, ends) = mpsc::channel();
    let mut failed = Vec::new();
    for line in lines {
        match Service::open(&line) {
            Ok(service) => {
                let end = end.clone();
                thread::Builder::new().spawn(move || _ = end.send(service.run()))?;
            }
            Err(error) => failed.push(format!("{}: {error}", line.display())),
        }
    }
    drop(end);
    ends.recv().unwrap_or_else(|_| Err(io::Error::other(failed.join("; "))))
}

/// A channel.
enum Channel {
    /// Its method or its argument is still to come.
    Called(Values, Option<String>),
    /// It belongs to a method.
    Stream(Box<Stream>),
    /// What comes does not matter any more.
    Done,
}

/// The service at a line.
pub struct Service {
    line: OwnedFd,
    mux: Mux,
    channels: BTreeMap<u32, Channel>,
    /// Readable when a process may have ended.
    children: PipeReader,
    /// Processes without a host, and when they are ended if they do not end before.
    doomed: Vec<(Option<Instant>, Pid)>,
    buffer: Vec<u8>,
}

/// What there is to do.
struct Ready {
    line: PollFlags,
    /// A process may have ended.
    children: bool,
    /// Streams, by their channels.
    streams: Vec<(u32, Wants)>,
}

impl Service {
    /// Opens the line, which passes every byte unchanged from then on.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let line = rustix::fs::open(path, flags, Mode::empty())?;
        let config = if isatty(&line) { SERIAL } else { CONSOLE };
        if isatty(&line) {
            let mut settings = tcgetattr(&line)?;
            settings.make_raw();
            settings.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
            settings.control_modes -= ControlModes::CRTSCTS;
            settings.set_speed(BAUD)?;
            tcsetattr(&line, OptionalActions::Now, &settings)?;
        }
        let (children, ended) = io::pipe()?;
        rustix::io::ioctl_fionbio(&children, true)?;
        rustix::io::ioctl_fionbio(&ended, true)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, OwnedFd::from(ended))?;
        Ok(Self {
            line,
            mux: Mux::new(config),
            channels: BTreeMap::new(),
            children,
            doomed: Vec::new(),
            buffer: vec![0; CHUNK],
        })
    }

    /// Serves until the line is gone.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            let Ready { line, children, streams } = self.wait()?;
            if line.contains(PollFlags::OUT) {
                self.write_line()?;
            }
            if line.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.read_line()? {
                return Ok(());
            }
            if children {
                self.reap();
            }
            for (id, ready) in streams {
                if let Some(Channel::Stream(stream)) = self.channels.get_mut(&id) {
                    stream.ready(ready);
                }
            }
            self.pump();
            // Most of the time the line takes it at once.
            self.write_line()?;
            self.end_doomed();
        }
    }

    /// Waits until there is something to do: at the line, with the processes, at these streams.
    fn wait(&mut self) -> io::Result<Ready> {
        let mut flags = PollFlags::IN;
        if !self.mux.output().is_empty() {
            flags |= PollFlags::OUT;
        }
        let may_send = self.mux.output().len() < LINE_LIMIT;
        let mut fds = vec![
            PollFd::new(&self.line, flags),
            PollFd::from_borrowed_fd(self.children.as_fd(), PollFlags::IN),
        ];
        let mut who = Vec::new();
        let mut timeout: Option<Duration> = None;
        for (id, channel) in &self.channels {
            let Channel::Stream(stream) = channel else { continue };
            let wants = stream.wants(may_send && self.mux.room(*id) > 0);
            if wants.at_once {
                timeout = Some(Duration::ZERO);
            }
            for (fd, flags, which) in stream.fds(wants) {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                who.push((*id, which));
            }
        }
        if let Some(when) = self.doomed.iter().filter_map(|(when, _)| *when).min() {
            let left = when.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            timeout = Some(timeout.map_or(left, |timeout| timeout.min(left)));
        }
        let timeout =
            timeout.map(|time| Timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => {
                return Ok(Ready { line: PollFlags::empty(), children: true, streams: Vec::new() });
            }
            Err(error) => return Err(error.into()),
        }
        let mut streams: Vec<(u32, Wants)> = Vec::new();
        for ((id, which), fd) in who.iter().zip(&fds[2..]) {
            if !fd.revents().is_empty() {
                if streams.last().is_none_or(|(last, _)| last != id) {
                    streams.push((*id, Wants::default()));
                }
                if let Some((_, wants)) = streams.last_mut() {
                    wants.set(*which);
                }
            }
        }
        Ok(Ready { line: fds[0].revents(), children: !fds[1].revents().is_empty(), streams })
    }

    /// Reads what the line has; says whether there still is a line.
    fn read_line(&mut self) -> io::Result<bool> {
        for _ in 0..READS {
            match rustix::io::read(&self.line, &mut self.buffer[..]) {
                Ok(0) | Err(Errno::IO) => return Ok(false),
                Ok(len) => {
                    self.mux.feed(&self.buffer[..len]);
                    if len < PAGE {
                        break;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        while let Some(event) = self.mux.event() {
            self.event(event);
        }
        Ok(true)
    }

    /// Writes what the line takes.
    fn write_line(&mut self) -> io::Result<()> {
        while !self.mux.output().is_empty() {
            match rustix::io::write(&self.line, self.mux.output()) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(len) => _ = self.mux.output().drain(..len),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Opened(id) => _ = self.channels.insert(id, Channel::Called(Values::default(), None)),
            Event::Data(id, data) => self.data(id, &data),
            Event::Eof(id) => {
                if let Some(Channel::Stream(stream)) = self.channels.get_mut(&id) {
                    stream.input_ends();
                }
            }
            // What the host has written to a connection before it closed it still gets there.
            Event::Closed(id) if self.ends_when_written(id) => {}
            Event::Closed(id) => match self.channels.remove(&id) {
                // This end had closed it before; the number may be another channel's by now.
                Some(Channel::Done) | None => {}
                Some(channel) => {
                    self.hang_up(channel);
                    self.mux.close(id);
                }
            },
            Event::Reset => {
                for channel in std::mem::take(&mut self.channels).into_values() {
                    self.hang_up(channel);
                }
            }
            // What is asked for is looked at anyway; this end opens no channels.
            Event::Room(_) | Event::Confirmed(_) | Event::Refused(_) => {}
        }
    }

    fn ends_when_written(&mut self, id: u32) -> bool {
        match self.channels.get_mut(&id) {
            Some(Channel::Stream(stream)) => stream.ends_when_written(),
            Some(Channel::Called(..) | Channel::Done) | None => false,
        }
    }

    fn data(&mut self, id: u32, data: &[u8]) {
        match self.channels.get_mut(&id) {
            Some(Channel::Called(values, _)) => {
                self.mux.consumed(id, data.len());
                values.feed(data);
                self.called(id);
            }
            Some(Channel::Stream(stream)) => stream.input(data),
            Some(Channel::Done) | None => self.mux.consumed(id, data.len()),
        }
    }

    /// Looks whether a call is complete, and answers it then.
    fn called(&mut self, id: u32) {
        let Some(Channel::Called(values, method)) = self.channels.get_mut(&id) else { return };
        let answer = loop {
            let Some(called) = method else {
                match values.read::<Call>() {
                    Ok(Some((call, _))) => *method = Some(call.method),
                    Ok(None) => return,
                    Err(error) => break Stream::answer(Err(error.to_string())),
                }
                continue;
            };
            let argument = match values.read::<Value>() {
                Ok(Some((argument, _))) => argument,
                Ok(None) => return,
                Err(error) => break Stream::answer(Err(error.to_string())),
            };
            let (called, rest) = (std::mem::take(called), values.take_rest());
            let mut stream = self.answer(id, &called, argument);
            // What came behind the argument is the stream's.
            stream.early_input(&rest);
            break stream;
        };
        self.channels.insert(id, Channel::Stream(Box::new(answer)));
    }

    /// Answers a call: at once, or in a thread what may have to wait. Files and programs may lie in a
    /// file system that the host serves through this very line.
    fn answer(&mut self, id: u32, called: &str, argument: Value) -> Stream {
        match method_name(called).as_str() {
            call::VERSION => Stream::answer(args::<[u8; 0]>(argument, 0).and_then(|_| value(&version()))),
            call::HELLO => Stream::answer(self.hello(id, argument)),
            call::ACCEPT => Stream::answer(self.accept(argument)),
            _ => {
                let called = called.to_owned();
                later(move || answer(&called, argument))
            }
        }
    }

    /// A connection that has come to one of the ports at which the guest listens.
    fn accept(&mut self, argument: Value) -> Answered {
        let number = bare(argument)?;
        let socket = self.channels.values_mut().find_map(|channel| match channel {
            Channel::Stream(stream) => stream.take_accepted(number),
            Channel::Called(..) | Channel::Done => None,
        });
        let socket = socket.ok_or_else(|| format!("there is no connection {number}"))?;
        system::connection(socket).map(|stream| goes_on(&(), stream))
    }

    /// A new host: what belongs to those before it ends.
    fn hello(&mut self, id: u32, argument: Value) -> Answered {
        let hello = bare(argument)?;
        let others = self.mux.channels().filter(|other| *other != id && !self.is_fresh(*other));
        for other in others.collect::<Vec<_>>() {
            self.mux.forget(other);
            if let Some(channel) = self.channels.remove(&other) {
                self.hang_up(channel);
            }
        }
        system::hello(&hello)?;
        shares::forget();
        value(&())
    }

    /// The channel has no stream yet: it may be of the host that says hello now, which sends its first calls
    /// at once.
    fn is_fresh(&self, id: u32) -> bool {
        match self.channels.get(&id) {
            Some(Channel::Stream(stream)) => stream.is_answer(),
            Some(Channel::Called(..) | Channel::Done) => true,
            None => false,
        }
    }

    /// Carries what streams have to the line, and ends those that are over.
    fn pump(&mut self) {
        let ids: Vec<_> = self.channels.keys().copied().collect();
        for id in ids {
            let Some(Channel::Stream(stream)) = self.channels.get_mut(&id) else { continue };
            let may_read = self.mux.output().len() < LINE_LIMIT;
            let over = stream.pump(id, &mut self.mux, &mut self.buffer, may_read);
            if over {
                self.mux.close(id);
                let channel = self.channels.insert(id, Channel::Done);
                channel.into_iter().for_each(|channel| self.hang_up(channel));
            }
        }
        let gone: Vec<_> =
            self.channels.iter().filter(|(_, c)| matches!(c, Channel::Done)).map(|(id, _)| *id).collect();
        for id in gone.into_iter().filter(|id| !self.mux.channels().any(|known| known == *id)) {
            self.channels.remove(&id);
        }
    }

    /// A channel's host does not listen any more.
    fn hang_up(&mut self, channel: Channel) {
        let Channel::Stream(stream) = channel else { return };
        if let Some(pid) = stream.running() {
            // It may have ended in this moment.
            let _ = kill_process_group(pid, Signal::HUP);
            let _ = kill_process_group(pid, Signal::CONT);
            self.doomed.push((Some(Instant::now() + HANG_UP), pid));
        }
    }

    /// Ends what has not heeded its hang-up.
    fn end_doomed(&mut self) {
        let now = Instant::now();
        for (when, pid) in &mut self.doomed {
            if when.is_some_and(|when| when <= now) {
                *when = None;
                let _ = kill_process_group(*pid, Signal::KILL);
            }
        }
    }

    /// Takes the statuses of the processes that have ended. Each by its number: a process that is just being
    /// started by a thread is that thread's.
    fn reap(&mut self) {
        while matches!(rustix::io::read(&self.children, &mut self.buffer[..64]), Ok(64)) {}
        for channel in self.channels.values_mut() {
            if let Channel::Stream(stream) = channel {
                stream.look_for_end();
            }
        }
        self.doomed.retain(|(_, pid)| {
            let ended = !matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None));
            if ended {
                // The others of its group: as long as there are any, its number is not another's.
                let _ = kill_process_group(*pid, Signal::KILL);
            }
            !ended
        });
    }
}

/// What a method gives.
fn answer(called: &str, argument: Value) -> Answered {
    let method = method_name(called);
    match method.as_str() {
        call::RESET_NETWORK => {
            args::<[u8; 0]>(argument, 0)?;
            system::reset_network()?;
            value(&())
        }
        call::SYNC => {
            args::<[u8; 0]>(argument, 0)?;
            rustix::fs::sync();
            value(&())
        }
        call::STAT => args(argument, 1).and_then(|(path,)| value(&files::stat(path)?)),
        call::READ_FILE => args(argument, 1).and_then(|(path,)| value(&files::read(path)?)),
        call::READ_DIR => args(argument, 1).and_then(|(path,)| value(&files::list(path)?)),
        call::WRITE_FILE => {
            let (path, bytes): (String, ByteBuf) = args(argument, 2)?;
            value(&files::write(path, &bytes)?)
        }
        call::MAKE_DIR => args(argument, 1).and_then(|(path,)| value(&files::make_dir(path)?)),
        call::REMOVE_ALL => args(argument, 1).and_then(|(path,)| value(&files::remove(path)?)),
        call::RENAME => {
            let (old, new) = args(argument, 2)?;
            value(&files::rename(old, new)?)
        }
        call::SIGNAL => {
            let (pid, signal) = args(argument, 2)?;
            value(&process::signal(pid, signal)?)
        }
        call::TERMINATE => {
            let (pid,) = args(argument, 1)?;
            value(&process::signal(pid, Signal::TERM.as_raw())?)
        }
        call::RUN => process::run(&bare(argument)?).map(|(pid, stream)| goes_on(&pid, stream)),
        call::EXEC => process::exec(&bare(argument)?).map(|(pid, stream)| goes_on(&pid, stream)),
        call::TERMINAL => process::terminal().map(|stream| goes_on(&(), stream)),
        call::DIAL => system::dial(&bare::<String>(argument)?).map(|stream| goes_on(&(), stream)),
        call::LISTEN => system::listen(&bare::<String>(argument)?).map(|(at, stream)| goes_on(&at, stream)),
        call::MOUNT_9P => system::mount_9p(bare(argument)?).map(|stream| goes_on(&(), stream)),
        call::MOUNT_SHARE => {
            let (number, path) = args(argument, 2)?;
            value(&shares::mount(number, path)?)
        }
        call::GET => files::get(bare(argument)?).map(|(info, stream)| goes_on(&info, stream)),
        call::PUT => files::put(bare(argument)?).map(|stream| goes_on(&(), stream)),
        _ => Err(call::not_found(called)),
    }
}

fn value(value: &impl Serialize) -> Answered {
    Ok(Answer::Value(to_bytes(value)))
}

fn goes_on(value: &impl Serialize, stream: Stream) -> Answer {
    Answer::Stream(to_bytes(value), Box::new(stream))
}

fn args<T: DeserializeOwned>(argument: Value, count: usize) -> Result<T, String> {
    arguments(argument, count).map_err(|error: ValueError| error.to_string())
}

fn bare<T: DeserializeOwned>(argument: Value) -> Result<T, String> {
    argument.deserialized().map_err(|error| error.to_string())
}
