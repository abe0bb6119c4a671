//! The service in a guest: programs, files, and whatever else a host wants of it.
//!
//! [`Machine::guest`] finds the service `guest86` at its port of the virtio console, or at the second serial port, in
//! whatever state the machine was saved. [`Guest::command`] starts a program as [`std::process::Command`] does:
//!
//! ```no_run
//! use env86::{Image, Machine};
//!
//! let image = Image::open("debian")?;
//! let machine = Machine::builder().image(&image).start()?;
//! let guest = machine.guest()?;
//! guest.write("/tmp/a.c", b"int main(void) { return 3; }")?;
//! let output = guest.command("ls").arg("-l").current_dir("/tmp").output()?;
//! print!("{}", String::from_utf8_lossy(&output.stdout));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The protocol is that of the Go env86 with a few methods more ([`::guest86`]).

mod command;
mod connection;
mod go;
mod process;
mod session;
#[cfg(unix)]
mod share;

use std::io::{self, Read, Write};
#[cfg(unix)]
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use env86_devices::virtio::console::SERVICE_PORT;
use guest86::call::{self, Hello, Put};
use guest86::value::ValueError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use thiserror::Error;
use tracing::debug;

pub use guest86::call::{Entry, Exec, FileInfo, Size};

pub use command::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Output, Remote};
pub use connection::{Connection, Listener};
pub use process::{ExitStatus, Source};

use crate::machine::{Com, Computer, Controls, Machine, MachineError};
use session::{Channel, Line, Session};

/// How long [`Machine::guest`] waits for the service: a boot may be before it.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time between looks whether the guest listens.
const LOOK: Duration = Duration::from_millis(5);
/// A program that has just opened a serial port has not set it up yet.
const SET_UP: Duration = Duration::from_millis(100);
/// How long an answer may take before the service is taken to be in the middle of something that will not
/// go on.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a mount may take.
#[cfg(unix)]
const MOUNT: Duration = Duration::from_secs(30);
/// Bytes of a file that are carried at once.
const PIECE: usize = 64 << 10;
/// Bytes of chance for the guest.
const ENTROPY: usize = 32;

/// Why a guest did not do what was asked.
#[derive(Debug, Error)]
pub enum GuestError {
    /// The service does not answer.
    #[error(
        "The guest's service guest86 answers neither at the virtio console nor at the second serial port"
    )]
    Silent,
    /// The machine has ended, or has no port for the service.
    #[error("The machine has ended")]
    Gone,
    /// The service does not go on with it: another host has taken its place, or it has started anew.
    #[error("The guest's service has broken it off")]
    Closed,
    /// The service said no.
    #[error("The guest says: {0}")]
    Refused(String),
    /// A program could not be started.
    #[error("Cannot start `{program}` in the guest: {why}")]
    Start {
        /// Its name.
        program: String,
        /// There is no such program.
        missing: bool,
        /// What the guest says.
        why: String,
    },
    /// A folder could not be mounted.
    #[error("Cannot mount a folder at `{at}` in the guest: {why}")]
    Mount {
        /// Where.
        at: String,
        /// Why not.
        why: String,
    },
    /// The service is the Go one, or an older one, which cannot do this.
    #[error("The guest's service (version {0}) cannot do this")]
    Version(String),
    /// What the service said makes no sense.
    #[error("The guest's service has sent what is no message ({0})")]
    Malformed(String),
    /// No thread, say.
    #[error("Cannot listen to the guest")]
    Io(#[from] io::Error),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl From<ValueError> for GuestError {
    fn from(error: ValueError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<GuestError> for io::Error {
    fn from(error: GuestError) -> Self {
        match error {
            GuestError::Io(error) => error,
            GuestError::Gone | GuestError::Closed => Self::new(io::ErrorKind::BrokenPipe, error),
            error => Self::other(error),
        }
    }
}

/// The service in a guest. Several of one machine are the same.
#[derive(Clone, Debug)]
pub struct Guest {
    session: Arc<Session>,
    version: Arc<str>,
    /// The service is the Go one.
    is_go: bool,
    /// Where folders are mounted, if the machine has the device for it.
    #[cfg(unix)]
    shares: Option<share::Device>,
}

impl Machine {
    /// The service in the guest, at its port of the virtio console if a program has that open, else at the second
    /// serial port, which is its own from then on. Waits until it answers: a machine that has just been switched
    /// on has to boot first.
    pub fn guest(&self) -> Result<Guest, GuestError> {
        self.guest_within(PATIENCE)
    }

    /// The same, with another limit.
    pub fn guest_within(&self, limit: Duration) -> Result<Guest, GuestError> {
        self.controls().guest_within(limit)
    }
}

impl Controls {
    /// See [`Machine::guest`].
    pub fn guest(&self) -> Result<Guest, GuestError> {
        self.guest_within(PATIENCE)
    }

    /// See [`Machine::guest_within`].
    pub fn guest_within(&self, limit: Duration) -> Result<Guest, GuestError> {
        let mut kept = self.guest_place();
        if let Some(guest) = &*kept {
            return Ok(guest.clone());
        }
        let deadline = Instant::now() + limit;
        let mut restored = true;
        let line = loop {
            // The service opens the serial port last.
            let listens = |computer: &mut Computer| match computer.console_listens(SERVICE_PORT as u8) {
                true => Some(Line::Console),
                false => computer.serial_listens(Com::Two as u8).then_some(Line::Serial),
            };
            if let Some(line) = self.with(listens)? {
                break line;
            }
            restored = false;
            if Instant::now() >= deadline {
                return Err(GuestError::Silent);
            }
            thread::sleep(LOOK);
        };
        let port = match line {
            Line::Serial => self.serial(Com::Two),
            Line::Console => self.service_port(),
        };
        if line == Line::Serial && !restored {
            thread::sleep(SET_UP);
        }
        let session = Session::start(line, port.clone(), port)?;
        #[cfg(not(unix))]
        let guest = Guest::connect(session, deadline)?;
        #[cfg(unix)]
        let guest = {
            let fitted = self.with(|computer| computer.has_shares())?;
            let shares = fitted.then(|| share::Device::new(self.desk()));
            Guest { shares, ..Guest::connect(session, deadline)? }
        };
        *kept = Some(guest.clone());
        Ok(guest)
    }
}

impl Guest {
    /// Finds out who is at the other end of a line.
    fn connect(session: Arc<Session>, deadline: Instant) -> Result<Self, GuestError> {
        loop {
            let limit = deadline.min(Instant::now() + ANSWER);
            match Self::greet(&session, limit) {
                Err(GuestError::Silent | GuestError::Closed) if Instant::now() < deadline => {
                    debug!(target: "guest", "The guest does not answer; beginning anew");
                    session.begin_anew();
                }
                Err(error) => return Err(error),
                Ok(version) => {
                    debug!(target: "guest", version, "The guest's service");
                    let is_go = !version.starts_with(call::OURS);
                    return Ok(Self {
                        session,
                        version: version.into(),
                        is_go,
                        #[cfg(unix)]
                        shares: None,
                    });
                }
            }
        }
    }

    /// Asks for the version, and tells the service that there is a new host, both at once.
    fn greet(session: &Arc<Session>, deadline: Instant) -> Result<String, GuestError> {
        let (mut asks, mut greets) = (Channel::open(session), Channel::open(session));
        let deadline = Some(deadline);
        asks.call(call::VERSION, &(), deadline)?;
        let mut entropy = vec![0; ENTROPY];
        // A host without random numbers would not have started this program.
        let _ = getrandom::fill(&mut entropy);
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
        let time = time.map(|time| (time.as_secs() as i64, time.subsec_nanos()));
        greets.call(call::HELLO, &Hello { time, entropy: ByteBuf::from(entropy) }, deadline)?;
        asks.reply(deadline)?;
        let version = asks.value(deadline)?;
        match greets.reply(deadline) {
            // The Go service does not know it.
            Ok(()) | Err(GuestError::Refused(_)) => Ok(version),
            Err(error) => Err(error),
        }
    }

    /// What the service says of itself.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A program to be started.
    pub fn command(&self, program: impl AsRef<str>) -> Command {
        self.exec(Exec { program: program.as_ref().into(), ..Exec::default() })
    }

    /// The same, with all that is to be said of it.
    pub fn exec(&self, exec: Exec) -> Command {
        Command::new(self, exec)
    }

    fn call<T: DeserializeOwned>(&self, method: &str, argument: &impl Serialize) -> Result<T, GuestError> {
        let mut channel = Channel::open(&self.session);
        channel.call(method, argument, None)?;
        channel.reply(None)?;
        channel.value(None)
    }

    /// Has the guest look for an address anew: one that was saved without a network has none, and one that was saved
    /// on another network has a wrong one. Waits until it has it.
    pub fn reset_network(&self) -> Result<(), GuestError> {
        self.call(call::RESET_NETWORK, &())
    }

    /// Has the guest write what its programs have written: to its disks, and to the host.
    pub fn sync(&self) -> Result<(), GuestError> {
        match self.call(call::SYNC, &()) {
            // An older service has the program for it.
            Err(GuestError::Refused(why)) if why.contains(&call::not_found(call::SYNC)) => {
                match self.command("sync").status()?.success() {
                    true => Ok(()),
                    false => Err(GuestError::Refused("`sync` has failed".into())),
                }
            }
            done => done,
        }
    }

    /// A whole file's bytes.
    pub fn read(&self, path: impl AsRef<str>) -> Result<Vec<u8>, GuestError> {
        self.call::<ByteBuf>(call::READ_FILE, &[path.as_ref()]).map(ByteBuf::into_vec)
    }

    /// Makes a file of these bytes, or replaces one.
    pub fn write(&self, path: impl AsRef<str>, bytes: impl AsRef<[u8]>) -> Result<(), GuestError> {
        self.call(call::WRITE_FILE, &(path.as_ref(), serde_bytes::Bytes::new(bytes.as_ref())))
    }

    /// Copies a file of any size from the guest; gives its permissions, time and size.
    pub fn download(&self, path: impl AsRef<str>, to: &mut impl Write) -> Result<FileInfo, GuestError> {
        if self.is_go {
            return go::download(self, path.as_ref(), to);
        }
        let mut channel = Channel::open(&self.session);
        channel.call(call::GET, &path.as_ref(), None)?;
        channel.reply(None)?;
        let info = channel.value(None)?;
        let mut piece = vec![0; PIECE];
        loop {
            match channel.read(&mut piece, None)? {
                0 => return Ok(info),
                read => to.write_all(&piece[..read])?,
            }
        }
    }

    /// Copies a file of any size to the guest, with these permissions and, if that is known, this time in
    /// seconds since 1970.
    pub fn upload(
        &self,
        from: &mut impl Read,
        path: impl Into<String>,
        mode: u32,
        mtime: Option<i64>,
    ) -> Result<(), GuestError> {
        let put = Put { path: path.into(), mode, mtime };
        if self.is_go {
            return go::upload(self, from, &put);
        }
        let mut channel = Channel::open(&self.session);
        channel.call(call::PUT, &put, None)?;
        channel.reply(None)?;
        let () = channel.value(None)?;
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                // What failed at the guest's end comes as the last answer.
                Ok(read) if channel.send(&piece[..read], None).is_err() => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        channel.send_eof();
        channel.reply(None)
    }

    /// Mounts a folder of the host at a directory of the guest, until the machine ends. The guest can reach
    /// nothing outside of the folder; with `read_only` it can change nothing inside. What it makes belongs to
    /// this process's user.
    #[cfg(unix)]
    pub fn mount(&self, folder: &Path, at: impl Into<String>, read_only: bool) -> Result<(), GuestError> {
        let at = at.into();
        let failed = |why: String| GuestError::Mount { at: at.clone(), why };
        let open = || share::Share::open(folder, read_only).map_err(|error| failed(error.to_string()));
        if let Some(device) = &self.shares {
            let number = device.add(open()?)?;
            match self.call(call::MOUNT_SHARE, &(number, &at)) {
                Err(GuestError::Refused(why)) => {
                    // An older service, or a kernel that has no driver for the device.
                    debug!(target: "guest", why, "Mounting by the service's line");
                    device.withdraw(number);
                }
                done => return done,
            }
        }
        let share = open()?;
        let mut channel = Channel::open(&self.session);
        channel.call(call::MOUNT_9P, &at, None)?;
        // The kernel has connected; now it asks.
        channel.reply(None)?;
        let () = channel.value(None)?;
        let served = thread::Builder::new().name("mount".into()).spawn(move || serve(share, channel))?;
        // The service does not say when the mount is there.
        let mounted = format!(" {} 9p ", at.replace('\\', "\\134").replace(' ', "\\040"));
        let deadline = Instant::now() + MOUNT;
        while !String::from_utf8_lossy(&self.read("/proc/mounts")?).contains(&mounted) {
            if served.is_finished() || Instant::now() > deadline {
                return Err(failed("the guest has not mounted it; its kernel may lack 9p over TCP".into()));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Makes a TCP connection from inside the guest, to `host:port` as the guest knows them: to a server of its own at
    /// `127.0.0.1:80`, which needs no network.
    pub fn dial(&self, address: impl AsRef<str>) -> Result<Connection, GuestError> {
        self.stream(call::DIAL, &address.as_ref()).map(Connection::new)
    }

    /// Listens at `host:port` in the guest, for its programs to call the host; port 0 is any free one. The Go service cannot.
    pub fn listen(&self, address: impl AsRef<str>) -> Result<Listener, GuestError> {
        if self.is_go {
            return Err(GuestError::Version(self.version.to_string()));
        }
        let mut channel = Channel::open(&self.session);
        channel.call(call::LISTEN, &address.as_ref(), None)?;
        channel.reply(None)?;
        let at = channel.value(None)?;
        Ok(Listener::new(self, channel, at))
    }

    /// A channel that carries plain bytes once its method has answered.
    fn stream(&self, method: &str, argument: &impl Serialize) -> Result<Channel, GuestError> {
        let mut channel = Channel::open(&self.session);
        channel.call(method, argument, None)?;
        channel.reply(None)?;
        let () = channel.value(None)?;
        Ok(channel)
    }

    /// What is known of a file.
    pub fn metadata(&self, path: impl AsRef<str>) -> Result<Entry, GuestError> {
        self.call(call::STAT, &[path.as_ref()])
    }

    /// The files in a directory, in the order of their names.
    pub fn read_dir(&self, path: impl AsRef<str>) -> Result<Vec<Entry>, GuestError> {
        self.call::<Option<Vec<Entry>>>(call::READ_DIR, &[path.as_ref()]).map(Option::unwrap_or_default)
    }

    /// Makes a directory, and those above it.
    pub fn create_dir_all(&self, path: impl AsRef<str>) -> Result<(), GuestError> {
        self.call(call::MAKE_DIR, &[path.as_ref()])
    }

    /// Removes a file, or a directory with all that is in it. That there is none is no error.
    pub fn remove_all(&self, path: impl AsRef<str>) -> Result<(), GuestError> {
        self.call(call::REMOVE_ALL, &[path.as_ref()])
    }

    /// Gives a file another name.
    pub fn rename(&self, old: impl AsRef<str>, new: impl AsRef<str>) -> Result<(), GuestError> {
        self.call(call::RENAME, &(old.as_ref(), new.as_ref()))
    }
}

/// Answers what a guest's kernel asks of a mounted folder, until it asks no more.
#[cfg(unix)]
fn serve(mut share: share::Share, mut channel: Channel) {
    let (mut asked, mut piece, mut reply) = (Vec::new(), vec![0; PIECE], Vec::new());
    loop {
        match channel.read(&mut piece, None) {
            Ok(read @ 1..) => asked.extend(&piece[..read]),
            Ok(0) | Err(_) => return,
        }
        let mut done = 0;
        while let Some(len) = share.length(&asked[done..]).filter(|len| asked.len() - done >= *len) {
            share.handle(&asked[done..done + len], &mut reply);
            done += len;
            if channel.send(&reply, None).is_err() {
                return;
            }
        }
        asked.drain(..done);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_sides_call_devices_by_the_same_names() {
        assert_eq!(guest86::PORT_NAME, env86_devices::virtio::console::SERVICE_NAME);
        assert_eq!(guest86::call::SHARES_TAG, env86_devices::virtio::shares::MOUNT_TAG);
    }
}
