//! Windows.

#![allow(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::windows::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::windows::io::{AsHandle, AsRawHandle};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use env86_devices::state::Pages;
use env86_emu::memory::Backing;
use signal_hook::consts::{SIGINT, SIGTERM};
use windows_sys::Win32::Globalization::CP_UTF8;
use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_OPEN_REPARSE_POINT;
use windows_sys::Win32::System::Console::{
    CONSOLE_SCREEN_BUFFER_INFO, DISABLE_NEWLINE_AUTO_RETURN, ENABLE_PROCESSED_OUTPUT,
    ENABLE_VIRTUAL_TERMINAL_INPUT, ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleMode, GetConsoleOutputCP,
    GetConsoleScreenBufferInfo, SetConsoleMode, SetConsoleOutputCP,
};

use super::{Attributes, Lost, Size};

/// A connection to a program of this host: never one by a Unix socket.
#[cfg(feature = "net")]
pub type LocalStream = tokio::net::TcpStream;

/// A Unix socket, which is not used here.
#[cfg(feature = "net")]
#[derive(Debug)]
pub enum LocalListener {}

#[cfg(feature = "net")]
impl LocalListener {
    /// Says that there are none.
    pub fn bind(_: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nothing waits.
    pub async fn accept(&self) -> io::Result<LocalStream> {
        match *self {}
    }
}

/// Fills `buf` from byte `offset` of a file.
pub fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.seek_read(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => (buf, offset) = (&mut buf[len..], offset + len as u64),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `data` from byte `offset` of a file on.
pub fn write_all_at(file: &File, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        match file.seek_write(data, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => (data, offset) = (&data[len..], offset + len as u64),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of several parts from byte `offset` of a file on, one behind the other.
pub fn write_parts_at(file: &File, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
    for part in parts {
        write_all_at(file, part, offset)?;
        offset += part.len() as u64;
    }
    Ok(())
}

/// Opens a file to be read, but no symbolic link or other reparse point.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(FILE_FLAG_OPEN_REPARSE_POINT).open(path)?;
    match file.metadata()?.is_symlink() {
        true => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link")),
        false => Ok(file),
    }
}

/// A path leads to this open file, as far as this system tells.
pub fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// The processes that have a file locked: this system does not tell.
pub fn lockers(_: &Path) -> Vec<u32> {
    Vec::new()
}

/// Makes a symbolic link to a directory.
pub fn link_directory(to: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_dir(to, link)
}

/// Does nothing: Windows writes a directory with its files.
pub fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// What an image's index holds of a file. All belongs to root, and everyone may run every file: Windows
/// does not know which ones are programs of the guest.
pub fn attributes(meta: &Metadata) -> Attributes {
    /// Seconds from 1601 to 1970.
    const EPOCH: i64 = 11_644_473_600;
    /// File times in a second.
    const TICKS: u64 = 10_000_000;
    let mode = match meta.file_type() {
        kind if kind.is_dir() => 0o040_755,
        kind if kind.is_symlink() => 0o120_777,
        _ if meta.permissions().readonly() => 0o100_555,
        _ => 0o100_755,
    };
    let mtime = (meta.last_write_time() / TICKS).cast_signed() - EPOCH;
    Attributes { mtime, mode, uid: 0, gid: 0, link: None, special: None }
}

/// A file's bytes: a mapping of a file that is read only in part would keep others from replacing it.
pub struct MappedFile(Vec<u8>);

impl MappedFile {
    /// Reads a whole file of `len` bytes.
    pub fn open(file: &File, len: usize, _: &Lost) -> io::Result<Self> {
        let mut bytes = vec![0; len];
        read_exact_at(file, &mut bytes, 0)?;
        Ok(Self(bytes))
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// RAM whose pages come from a state when they are first touched. Windows maps parts of a file only at
/// multiples of 64 KiB, and a state's pages lie at multiples of 4 KiB: there is none.
pub enum MappedRam {}

impl MappedRam {
    /// Says that this host cannot.
    pub fn new(_: &File, _: &Pages, _: &Lost) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

// SAFETY: there is no value of this type.
unsafe impl Backing for MappedRam {
    fn bytes_mut(&mut self) -> &mut [u8] {
        match *self {}
    }
}

/// Windows does not say which pages of some memory have been touched.
pub fn touched(_: &[u8]) -> Option<Vec<bool>> {
    None
}

/// A thread that reads standard input. Nothing wakes it: it ends with its next piece of input, or with the
/// program.
pub struct StdinThread;

impl StdinThread {
    /// Gives every piece that is read to `take`, and an empty one at the end of the input, until
    /// `take` says no.
    pub fn spawn(mut take: impl FnMut(&[u8]) -> bool + Send + 'static) -> io::Result<Self> {
        const CHUNK: usize = 4096;
        thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut chunk = [0; CHUNK];
            loop {
                let len = match io::stdin().read(&mut chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => result.unwrap_or(0),
                };
                if !take(&chunk[..len]) || len == 0 {
                    return;
                }
            }
        })?;
        Ok(Self)
    }
}

/// How the console at standard input and output passes bytes on.
#[derive(Clone, Copy, Debug)]
pub struct TerminalMode {
    input: u32,
    /// The mode of standard output, if that is a console, too.
    output: Option<u32>,
    code_page: u32,
}

impl TerminalMode {
    /// As it is now.
    pub fn now() -> io::Result<Self> {
        // SAFETY: the call has no preconditions.
        let code_page = unsafe { GetConsoleOutputCP() };
        Ok(Self { input: mode(&io::stdin())?, output: mode(&io::stdout()).ok(), code_page })
    }

    /// The same console, but every byte passes both ways unchanged, and keys and colours are the sequences
    /// of a VT100.
    pub fn raw(&self) -> Self {
        let output =
            ENABLE_PROCESSED_OUTPUT | ENABLE_VIRTUAL_TERMINAL_PROCESSING | DISABLE_NEWLINE_AUTO_RETURN;
        Self { input: ENABLE_VIRTUAL_TERMINAL_INPUT, output: self.output.map(|_| output), code_page: CP_UTF8 }
    }

    /// Makes the console so.
    pub fn set(&self) -> io::Result<()> {
        set_mode(&io::stdin(), self.input)?;
        if let Some(output) = self.output {
            set_mode(&io::stdout(), output)?;
            // SAFETY: the call has no preconditions.
            unsafe { SetConsoleOutputCP(self.code_page) };
        }
        Ok(())
    }
}

fn mode(console: &impl AsRawHandle) -> io::Result<u32> {
    let mut mode = 0;
    // SAFETY: the handle is open as long as its owner, and the call writes one word.
    match unsafe { GetConsoleMode(console.as_raw_handle(), &raw mut mode) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(mode),
    }
}

fn set_mode(console: &impl AsRawHandle, mode: u32) -> io::Result<()> {
    // SAFETY: the handle is open as long as its owner.
    match unsafe { SetConsoleMode(console.as_raw_handle(), mode) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The size of the console's window at standard output.
pub fn terminal_size() -> Option<Size> {
    let mut info = CONSOLE_SCREEN_BUFFER_INFO::default();
    // SAFETY: the handle is open as long as its owner, and the call fills one such structure.
    let done = unsafe { GetConsoleScreenBufferInfo(io::stdout().as_raw_handle(), &raw mut info) };
    let window = info.srWindow;
    let side = |from: i16, to: i16| u16::try_from(i32::from(to) - i32::from(from) + 1).ok();
    let (rows, columns) = (side(window.Top, window.Bottom)?, side(window.Left, window.Right)?);
    (done != 0).then_some(Size { rows, columns })
}

/// Standard output, for any bytes: the standard library's refuses what is not UTF-8 at a console.
pub fn stdout() -> io::Result<Box<dyn Write + Send>> {
    Ok(Box::new(File::from(io::stdout().as_handle().try_clone_to_owned()?)))
}

/// No signal says that the console has another size.
pub const RESIZED: Option<i32> = None;

/// The signals that ask this process to end: Ctrl-C is one.
pub struct Signals {
    number: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

impl Signals {
    /// Takes them over from the system's way to handle them.
    pub fn listen() -> io::Result<Self> {
        let number = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_usize(signal, number.clone(), signal as usize)?;
        }
        Ok(Self { number, closed: Arc::default() })
    }

    /// The same: there is no signal for the console's size.
    pub fn listen_for_resizes() -> io::Result<Self> {
        Self::listen()
    }

    /// What makes [`Signals::wait`] return.
    pub fn closer(&self) -> Closer {
        Closer(self.closed.clone())
    }

    /// Waits for the next signal; `None` once the closer has been used.
    pub fn wait(&mut self) -> Option<i32> {
        /// A handler of Windows can set a word, but wake nothing.
        const PERIOD: Duration = Duration::from_millis(50);
        while !self.closed.load(Ordering::Relaxed) {
            match self.number.swap(0, Ordering::Relaxed) {
                0 => thread::sleep(PERIOD),
                number => return i32::try_from(number).ok(),
            }
        }
        None
    }
}

/// Ends the wait for signals.
pub struct Closer(Arc<AtomicBool>);

impl Closer {
    /// Ends it, now and later.
    pub fn close(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sets a flag when this process is asked to end.
pub fn flag_when_interrupted(flag: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(())
}
