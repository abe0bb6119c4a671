//! Programs in the guest, in the manner of [`std::process`] and, for tasks, of tokio's.

use std::io::{self, Read, Write};
use std::sync::Arc;

use guest86::call::{self, Exec, Run, Size, ToProcess};
use guest86::value::to_bytes;
use serde_bytes::ByteBuf;

use super::go::{self, Markers};
use super::process::Process;
use super::session::{Channel, State};
use super::{ExitStatus, Guest, GuestError, Source};

#[cfg(feature = "net")]
mod tasks;

/// The character that a terminal takes for the end of its input.
const END_OF_TRANSMISSION: u8 = 4;
/// Bytes of standard input in one message.
const PIECE: usize = 32 << 10;

/// A program to be started in the guest. Its three standard streams are pipes to here, or a terminal is.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let machine = env86::Machine::builder().start()?;
/// let output = machine.guest()?.command("sh").arg("-c").arg("uname -m").output()?;
/// assert_eq!(output.stdout, b"i686\n");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Command {
    guest: Guest,
    exec: Exec,
}

impl Command {
    pub(super) fn new(guest: &Guest, exec: Exec) -> Self {
        Self { guest: guest.clone(), exec }
    }

    /// One more argument.
    pub fn arg(&mut self, arg: impl Into<String>) -> &mut Self {
        self.exec.args.push(arg.into());
        self
    }

    /// More arguments.
    pub fn args<S: Into<String>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.exec.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable of the environment, beside those that its user gets.
    pub fn env(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.exec.env.push((key.into(), value.into()));
        self
    }

    /// The environment is what [`Command::env`] says, and nothing else.
    pub fn env_clear(&mut self) -> &mut Self {
        self.exec.env_clear = true;
        self
    }

    /// Where it works; else in its user's home.
    pub fn current_dir(&mut self, dir: impl Into<String>) -> &mut Self {
        self.exec.dir = Some(dir.into());
        self
    }

    /// Who runs it: `user`, `user:group` or numbers; else root.
    pub fn user(&mut self, user: impl Into<String>) -> &mut Self {
        self.exec.user = Some(user.into());
        self
    }

    /// It has a terminal of this size, in characters.
    pub fn terminal(&mut self, rows: u16, columns: u16) -> &mut Self {
        self.exec.terminal = Some(Size { rows, columns });
        self
    }

    /// Starts it.
    pub fn spawn(&self) -> Result<Child, GuestError> {
        let mut channel = Channel::open(&self.guest.session);
        let process = match self.guest.is_go {
            false => {
                channel.call(call::EXEC, &self.exec, None)?;
                Process::default()
            }
            true => {
                let marker = go::marker();
                let cannot = || GuestError::Version(self.guest.version.to_string());
                let run = go::wrapped(&self.exec, &marker).ok_or_else(cannot)?;
                channel.call(call::RUN, &run, None)?;
                Process::of_go(Markers::new(&marker, run.pty))
            }
        };
        let pid = channel.reply(None).and_then(|()| channel.value(None)).map_err(|error| match error {
            GuestError::Refused(why) if call::is_programs(&why) => {
                GuestError::Start { program: self.exec.program.clone(), missing: call::is_missing(&why), why }
            }
            error => error,
        })?;
        channel.becomes(process);
        let terminal = self.exec.terminal.is_some();
        let program = Arc::new(Program { channel, guest: self.guest.clone(), pid, terminal });
        Ok(Child {
            stdin: Some(ChildStdin { program: program.clone(), unsent: Vec::new(), ended: false }),
            stdout: Some(ChildStdout(Reader::new(&program, Source::Stdout))),
            stderr: Some(ChildStderr(Reader::new(&program, Source::Stderr))),
            program,
        })
    }

    /// Starts it without input, and waits for all that it writes and for its end.
    pub fn output(&self) -> Result<Output, GuestError> {
        let mut child = self.spawn()?;
        child.stdin = None;
        child.wait_with_output()
    }

    /// Starts it without input, waits for its end, and throws away what it writes.
    pub fn status(&self) -> Result<ExitStatus, GuestError> {
        let mut child = self.spawn()?;
        child.stdin = None;
        child.wait()
    }
}

/// A program that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// What all handles of a program share.
#[derive(Debug)]
struct Program {
    channel: Channel,
    guest: Guest,
    pid: u32,
    /// It has a terminal.
    terminal: bool,
}

impl Program {
    /// Tells it something.
    fn tell(&self, what: &ToProcess) -> Result<(), GuestError> {
        if !self.guest.is_go {
            return self.channel.send(&to_bytes(what), None);
        }
        match what {
            ToProcess::In(bytes) => self.channel.send(bytes, None),
            ToProcess::Eof if self.terminal => self.channel.send(&[END_OF_TRANSMISSION], None),
            ToProcess::Eof => {
                self.channel.send_eof();
                Ok(())
            }
            // The Go service has no call for it, but a program.
            ToProcess::Signal(number) => {
                let (number, pid) = (number.to_string(), self.pid.to_string());
                let script = "pkill -$1 -P $2 || kill -$1 $2";
                let mut kill = Channel::open(&self.channel.session);
                let args = ["-c", script, "sh", &number, &pid].map(str::to_owned).to_vec();
                let run = Run { name: "sh".into(), args: Some(args), ..Run::default() };
                kill.call(call::RUN, &run, None)?;
                kill.reply(None)
            }
            ToProcess::Resize(_) => Ok(()),
        }
    }
}

/// A program in the guest. When this and its streams are dropped, the program gets a hang-up, and is ended
/// if it does not heed that.
#[derive(Debug)]
pub struct Child {
    /// Its standard input, which ends when this is dropped.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, or its terminal's.
    pub stdout: Option<ChildStdout>,
    /// Its standard error.
    pub stderr: Option<ChildStderr>,
    program: Arc<Program>,
}

impl Child {
    /// The number of its process in the guest.
    pub fn id(&self) -> u32 {
        self.program.pid
    }

    /// Sends a signal, by Linux's number, to it and the other processes of its group.
    pub fn signal(&self, number: i32) -> Result<(), GuestError> {
        self.program.tell(&ToProcess::Signal(number))
    }

    /// Ends it.
    pub fn kill(&self) -> Result<(), GuestError> {
        const SIGKILL: i32 = 9;
        self.signal(SIGKILL)
    }

    /// Lets it go: it gets a hang-up, and nothing more comes from it.
    pub fn hang_up(&self) {
        self.program.channel.close();
    }

    /// Its terminal has another size now.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), GuestError> {
        self.program.tell(&ToProcess::Resize(Size { rows, columns }))
    }

    /// What steers it from another thread.
    pub fn remote(&self) -> Remote {
        Remote(self.program.clone())
    }

    /// The next bytes that it writes, in the order in which they came; `None` at its end. Not beside
    /// `stdout` and `stderr`, which take theirs.
    pub fn next_output(&mut self) -> Result<Option<(Source, Vec<u8>)>, GuestError> {
        let session = self.program.channel.session.clone();
        let mut state = session.lock();
        loop {
            let State { mux, channels, .. } = &mut *state;
            if let Some(process) = channels.get_mut(&self.program.channel.id).and_then(|c| c.process.as_mut())
                && let Some(piece) = process.pieces.pop_front()
            {
                mux.consumed(self.program.channel.id, piece.cost);
                session.notify();
                return Ok(Some((piece.source, piece.bytes)));
            }
            if end(&state, self.program.channel.id)?.is_some() {
                return Ok(None);
            }
            state = session.wait(state, None)?;
        }
    }

    /// How it ended, if it has and all that it wrote has been read.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, GuestError> {
        end(&self.program.channel.session.lock(), self.program.channel.id)
    }

    /// Waits for its end. Its standard input ends; what it writes and no one has taken is thrown away.
    pub fn wait(&mut self) -> Result<ExitStatus, GuestError> {
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
        wait(&self.program.channel)
    }

    /// Waits for all that it writes, and for its end. Its standard input ends.
    pub fn wait_with_output(mut self) -> Result<Output, GuestError> {
        self.stdin = None;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some((source, bytes)) = self.next_output()? {
            match source {
                Source::Stdout => stdout.extend(bytes),
                Source::Stderr => stderr.extend(bytes),
            }
        }
        Ok(Output { status: wait(&self.program.channel)?, stdout, stderr })
    }
}

/// How the program of a channel has ended.
fn end(state: &State, id: u32) -> Result<Option<ExitStatus>, GuestError> {
    let channel = state.channels.get(&id).ok_or(GuestError::Closed)?;
    let Some(process) = &channel.process else { return Err(GuestError::Closed) };
    match (process.end, &process.malformed) {
        (Some(end), _) => Ok(Some(end)),
        (None, Some(why)) => Err(GuestError::Malformed(why.clone())),
        (None, None) if state.gone => Err(GuestError::Gone),
        (None, None) if channel.ended => Err(GuestError::Closed),
        (None, None) => Ok(None),
    }
}

fn wait(program: &Channel) -> Result<ExitStatus, GuestError> {
    let mut state = program.session.lock();
    loop {
        if let Some(end) = end(&state, program.id)? {
            return Ok(end);
        }
        state = program.session.wait(state, None)?;
    }
}

/// What steers a [`Child`] from another thread.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Program>);

impl Remote {
    /// See [`Child::signal`].
    pub fn signal(&self, number: i32) -> Result<(), GuestError> {
        self.0.tell(&ToProcess::Signal(number))
    }

    /// See [`Child::resize`].
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), GuestError> {
        self.0.tell(&ToProcess::Resize(Size { rows, columns }))
    }

    /// See [`Child::hang_up`].
    pub fn hang_up(&self) {
        self.0.channel.close();
    }
}

/// A program's standard input. Writing waits for room; at a program that has ended it fails.
#[derive(Debug)]
pub struct ChildStdin {
    program: Arc<Program>,
    /// What a task has written and there was no room for yet.
    unsent: Vec<u8>,
    /// The program has been told that no more comes.
    ended: bool,
}

impl ChildStdin {
    fn send_unsent(&mut self) -> Result<(), GuestError> {
        self.program.channel.send(&std::mem::take(&mut self.unsent), None)
    }
}

impl Write for ChildStdin {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send_unsent()?;
        let piece = &bytes[..bytes.len().min(PIECE)];
        if !piece.is_empty() {
            self.program.tell(&ToProcess::In(ByteBuf::from(piece)))?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ChildStdin {
    fn drop(&mut self) {
        // A program that has ended does not miss it.
        let sent = self.send_unsent();
        if !self.ended && sent.is_ok() {
            let _ = self.program.tell(&ToProcess::Eof);
        }
    }
}

/// One of a program's outputs.
#[derive(Debug)]
struct Reader {
    program: Arc<Program>,
    source: Source,
}

impl Reader {
    fn new(program: &Arc<Program>, source: Source) -> Self {
        Self { program: program.clone(), source }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let session = self.program.channel.session.clone();
        let mut state = session.lock();
        loop {
            if let Some(read) = self.read_now(&mut state, buf)? {
                return Ok(read);
            }
            state = session.wait(state, None)?;
        }
    }

    /// What there is, 0 at the end; `None` if there is nothing yet.
    fn read_now(&mut self, state: &mut State, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let id = self.program.channel.id;
        let State { mux, channels, .. } = state;
        let process = channels.get_mut(&id).and_then(|channel| channel.process.as_mut());
        let Some(process) = process else { return Ok(Some(0)) };
        if let Some(at) = process.pieces.iter().position(|piece| piece.source == self.source) {
            let piece = &mut process.pieces[at];
            let read = (&piece.bytes[piece.read..]).read(buf)?;
            piece.read += read;
            if piece.read == piece.bytes.len()
                && let Some(piece) = process.pieces.remove(at)
            {
                mux.consumed(id, piece.cost);
                self.program.channel.session.notify();
            }
            return Ok(Some(read));
        }
        Ok(end(state, id)?.map(|_| 0))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.program.channel.session.lock();
        let State { mux, channels, .. } = &mut *state;
        if let Some(process) = channels.get_mut(&self.program.channel.id).and_then(|c| c.process.as_mut()) {
            mux.consumed(self.program.channel.id, process.forget(self.source));
        }
        drop(state);
        self.program.channel.session.notify();
    }
}

/// A program's standard output.
#[derive(Debug)]
pub struct ChildStdout(Reader);

impl Read for ChildStdout {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

/// A program's standard error.
#[derive(Debug)]
pub struct ChildStderr(Reader);

impl Read for ChildStderr {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}
