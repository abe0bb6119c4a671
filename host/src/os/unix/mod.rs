//! Unix.

mod cut_off;
#[cfg(feature = "net")]
mod local;
mod mapped;
mod mounts;
mod named;
mod stdin;
mod tree;

#[cfg(feature = "net")]
pub use local::{LocalListener, LocalStream};
pub use mapped::{MappedFile, MappedRam, touched};
pub use mounts::is_local;
pub use named::{
    UnixListener, UnixStream, end_this_process, is_at, leave_terminal, listen, redirect_output,
    runtime_folder, set_mode,
};
pub use stdin::StdinThread;
pub use tree::{Change, Found, Node, Room, Time, Tree, read_at};

use std::env;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::stdio;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::{self, Handle};

use super::{Attributes, Size, Special};

/// Fills `buf` from byte `offset` of a file.
pub fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buf, offset)
}

/// Writes all of `data` from byte `offset` of a file on.
pub fn write_all_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(data, offset)
}

/// Writes all of several parts from byte `offset` of a file on, one behind the other.
pub fn write_parts_at(file: &File, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
    // One call of the system takes so many (IOV_MAX).
    for parts in parts.chunks(1024) {
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            match rustix::io::pwritev(file, slices, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    offset += len as u64;
                    IoSlice::advance_slices(&mut slices, len);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Opens a file to be read, but no symbolic link, and without waiting for the writer of a FIFO.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    OpenOptions::new().read(true).custom_flags(flags as i32).open(path)
}

/// Waits until the names in a directory are on the disk.
pub fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What an image's index holds of a file.
pub fn attributes(meta: &Metadata) -> Attributes {
    let kind = meta.file_type();
    let special = if kind.is_block_device() || kind.is_char_device() {
        Some(Special::Device(rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())))
    } else if kind.is_fifo() {
        Some(Special::Fifo)
    } else if kind.is_socket() {
        Some(Special::Socket)
    } else {
        None
    };
    Attributes {
        mtime: meta.mtime(),
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        link: (meta.nlink() > 1).then(|| (meta.dev(), meta.ino())),
        special,
    }
}

/// Bytes of the system's list of locks that are read at once.
const LOCKS_AT_ONCE: usize = 64 << 10;

/// The processes that have a file or folder locked, as far as the system tells: Linux does. Source: proc_locks(5).
pub fn lockers(path: &Path) -> Vec<u32> {
    let Ok(meta) = fs::metadata(path) else { return Vec::new() };
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    // As few reads as can be: locks that come and go between them move the others.
    let mut locks = String::with_capacity(LOCKS_AT_ONCE);
    let read = File::open("/proc/locks").and_then(|mut file| file.read_to_string(&mut locks));
    if read.is_err() {
        return Vec::new();
    }
    let process = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // Number, kind, obligation, reading or writing, process, file, first and last byte.
        let held = words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&wanted.as_str());
        // Others than this container's have the number 0.
        words.get(4).filter(|_| held)?.parse().ok().filter(|process| *process > 0)
    };
    locks.lines().filter_map(process).collect()
}

/// Goes on as another program: as the same process, with the same arguments and environment. Comes back only if that
/// program may not be started; the C library has a shell read what the system does not take for a program.
pub fn go_on_as(program: &Path) {
    let mut words = env::args_os();
    let name = words.next().unwrap_or_default();
    let _not_started = Command::new(program).arg0(name).args(words).exec();
    // For the other, SIGPIPE ends the process again. This one wants an error for a write into a closed pipe, as before, so
    // the signal does something that no one looks at.
    let _ = signal_hook::flag::register(SIGPIPE, Arc::default());
}

/// Makes a symbolic link to a directory.
pub fn link_directory(to: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, link)
}

/// How the terminal at standard input passes bytes on.
#[derive(Clone, Debug)]
pub struct TerminalMode(Termios);

impl TerminalMode {
    /// As it is now.
    pub fn now() -> io::Result<Self> {
        Ok(Self(tcgetattr(stdio::stdin())?))
    }

    /// The same terminal, but every byte passes both ways unchanged.
    pub fn raw(&self) -> Self {
        let mut raw = self.0.clone();
        raw.make_raw();
        Self(raw)
    }

    /// Makes the terminal so at once: one whose output is stopped must not hold up the way out.
    pub fn set(&self) -> io::Result<()> {
        rustix::io::retry_on_intr(|| tcsetattr(stdio::stdin(), OptionalActions::Now, &self.0))?;
        Ok(())
    }
}

/// The size of the terminal at standard output, or else at standard input.
pub fn terminal_size() -> Option<Size> {
    let of = |fd: rustix::fd::BorrowedFd| tcgetwinsize(fd).ok().filter(|s| s.ws_row > 0 && s.ws_col > 0);
    let size = of(stdio::stdout()).or_else(|| of(stdio::stdin()))?;
    Some(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Standard output, for any bytes.
pub fn stdout() -> io::Result<Box<dyn Write + Send>> {
    Ok(Box::new(io::stdout()))
}

/// The signal that says that the terminal has another size.
pub const RESIZED: Option<i32> = Some(SIGWINCH);

/// The signals that ask this process to end.
pub struct Signals(iterator::Signals);

impl Signals {
    /// Takes them over from the system's way to handle them.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?))
    }

    /// The same, and [`RESIZED`].
    pub fn listen_for_resizes() -> io::Result<Self> {
        Ok(Self(iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH])?))
    }

    /// What makes [`Signals::wait`] return.
    pub fn closer(&self) -> Closer {
        Closer(self.0.handle())
    }

    /// Waits for the next signal; `None` once the closer has been used.
    pub fn wait(&mut self) -> Option<i32> {
        self.0.forever().next()
    }
}

/// Ends the wait for signals.
pub struct Closer(Handle);

impl Closer {
    /// Ends it, now and later.
    pub fn close(&self) {
        self.0.close();
    }
}

/// Sets a flag when this process is asked to end.
pub fn flag_when_interrupted(flag: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(())
}
