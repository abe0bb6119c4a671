//! JavaScript, as the machine sees it: clocks, chance, files, and who takes what the guest sends.

use std::task::Poll;

use env86_core::{Drive, LoadError, MediaStore, Outside};
use env86_devices::fs::{BlobError, BlobStore, Fetched};
use env86_devices::ide::{DiskImage, DiskImageError, Form, Medium};
use env86_devices::{Clock, Entropy};
use thiserror::Error;

/// Imports with a pointer may read or write the bytes there, until they return, and nothing else.
mod imports {
    #[link(wasm_import_module = "host")]
    unsafe extern "C" {
        /// Milliseconds since some moment, with fractions; they never go back.
        pub safe fn elapsed_millis() -> f64;
        /// Milliseconds since 1970.
        pub safe fn unix_millis() -> f64;
        /// A random number.
        pub safe fn random() -> u32;
        /// The bytes of a file by its name; or [`super::PENDING`]; or -2: there is none, or it cannot be had.
        pub fn file_size(name: *const u8, name_len: usize) -> f64;
        /// Puts bytes of a file into memory and tells how many, or a negative number.
        pub fn file_read(name: *const u8, name_len: usize, offset: f64, to: *mut u8, bytes: usize) -> i32;
        /// Takes bytes that come out of the machine: which, and the port's number.
        pub fn take(what: u32, number: u32, from: *const u8, bytes: usize);
    }
}

/// A file's bytes have been asked for; JavaScript calls `env86_arrived` when they are
/// there.
const PENDING: i32 = -1;

/// What [`take`] gives to JavaScript.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Output {
    /// Of a serial port.
    Serial,
    /// Of a port of the virtio console.
    Console,
    /// A piece of a saved state.
    State,
    /// Why the program failed.
    Panic,
    /// The machine was reset; no bytes.
    Reset,
    /// What it plays: frames of two samples of 16 bits, left and right.
    Sound,
    /// An Ethernet frame.
    Frame,
}

/// Gives bytes to JavaScript.
pub fn take(what: Output, number: u8, bytes: &[u8]) {
    // SAFETY: the bytes are there until it returns, and it only reads them.
    unsafe { imports::take(what as u32, number.into(), bytes.as_ptr(), bytes.len()) }
}

/// A file that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// It is on its way.
    #[error("Waiting for `{0}`")]
    Pending(String),
    /// It cannot be had.
    #[error("`{0}` cannot be loaded")]
    Failed(String),
}

impl FileError {
    fn of(answer: i32, name: &str) -> Self {
        if answer == PENDING { Self::Pending(name.into()) } else { Self::Failed(name.into()) }
    }
}

/// The bytes of a file.
pub fn size(name: &str) -> Result<u64, FileError> {
    // SAFETY: the name is there until it returns, and it only reads it.
    let size = unsafe { imports::file_size(name.as_ptr(), name.len()) };
    if size >= 0.0 { Ok(size as u64) } else { Err(FileError::of(size as i32, name)) }
}

/// Fills a buffer from a file, or a part of it at the file's end; tells how much.
fn read(name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, FileError> {
    // SAFETY: the name and the buffer are there until it returns; it reads the one and writes within the
    // other, which nothing else looks at meanwhile.
    let answer =
        unsafe { imports::file_read(name.as_ptr(), name.len(), offset as f64, buf.as_mut_ptr(), buf.len()) };
    usize::try_from(answer).map(|n| n.min(buf.len())).map_err(|_| FileError::of(answer, name))
}

/// All of a file.
pub fn whole(name: &str) -> Result<Vec<u8>, FileError> {
    let mut content = vec![0; size(name)? as usize];
    match read(name, 0, &mut content)? {
        all if all == content.len() => Ok(content),
        _ => Err(FileError::Failed(name.into())),
    }
}

/// JavaScript's clocks, less the pauses.
pub struct HostClock {
    /// Guest time in ns where JavaScript's clock is at 0.
    origin: i128,
}

impl HostClock {
    /// A clock that is at this guest time, in ns, now.
    pub fn start_at(time: u64) -> Self {
        Self { origin: i128::from(time) - elapsed() }
    }
}

/// Nanoseconds of JavaScript's clock.
fn elapsed() -> i128 {
    (imports::elapsed_millis() * 1e6) as i128
}

impl Clock for HostClock {
    fn now(&mut self) -> u64 {
        (self.origin + elapsed()).max(0) as u64
    }

    fn unix_millis(&mut self) -> i64 {
        imports::unix_millis() as i64
    }

    fn continue_from(&mut self, now: u64) {
        *self = Self::start_at(now);
    }
}

/// JavaScript's random numbers.
pub struct HostEntropy;

impl Entropy for HostEntropy {
    fn next_u32(&mut self) -> u32 {
        imports::random()
    }
}

/// The contents of the image's files: those called `fs/NAME`.
pub struct Blobs;

impl BlobStore for Blobs {
    fn read(&mut self, blob: &str, offset: u64, buf: &mut [u8]) -> Result<Fetched, BlobError> {
        match read(&format!("fs/{blob}"), offset, buf) {
            Ok(n) => Ok(Fetched::Ready(n)),
            Err(FileError::Pending(_)) => Ok(Fetched::Pending),
            Err(error @ FileError::Failed(_)) => {
                Err(BlobError::Unreadable { blob: blob.into(), reason: error.to_string() })
            }
        }
    }
}

/// A disk image, by the name of its file.
#[derive(Debug)]
struct Disk {
    name: String,
    size: u64,
}

impl DiskImage for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        match read(&self.name, offset, buf) {
            Ok(n) if n == buf.len() => Poll::Ready(Ok(())),
            Ok(_) => Poll::Ready(Err(DiskImageError(format!("`{}` ends early", self.name)))),
            Err(FileError::Pending(_)) => Poll::Pending,
            Err(error @ FileError::Failed(_)) => Poll::Ready(Err(DiskImageError(error.to_string()))),
        }
    }
}

/// The disk image of this name. A saved state holds all of it, or what the guest has written.
pub fn disk(name: &str, form: Form) -> Result<Medium, FileError> {
    Ok(Medium::new(Disk { name: name.into(), size: size(name)? }, form))
}

/// The media that are put into drives while the machine runs, by the names of their files.
pub struct Media;

impl MediaStore for Media {
    fn open(&mut self, _drive: Drive, name: &str) -> Result<Medium, LoadError> {
        Ok(disk(name, Form::Whole)?)
    }
}

/// Who takes what the guest sends.
pub struct ToPage;

impl Outside for ToPage {
    fn serial(&mut self, port: u8, bytes: &[u8]) {
        take(Output::Serial, port, bytes);
    }

    fn console(&mut self, port: u8, bytes: &[u8]) {
        take(Output::Console, port, bytes);
    }

    fn frame(&mut self, frame: &[u8]) {
        take(Output::Frame, 0, frame);
    }

    fn sound(&mut self, _start: u64, frames: &[[i16; 2]]) {
        let bytes: Vec<u8> = frames.as_flattened().iter().flat_map(|sample| sample.to_le_bytes()).collect();
        take(Output::Sound, 0, &bytes);
    }

    fn reset(&mut self) {
        take(Output::Reset, 0, &[]);
    }
}
