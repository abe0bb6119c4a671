//! What is said on a control socket: values of CBOR behind their length, as on the line to a guest.
//!
//! A client connects, sends a [`Request`] and gets an [`Answer`]. Then, if that was no refusal:
//!
//! | request | what follows |
//! |---|---|
//! | [`Request::Exec`] | the client sends [`ToProcess`](guest86::call::ToProcess) values, the machine [`FromExec`] values up to an end |
//! | [`Request::Get`] | the machine sends [`Piece`]s up to the last |
//! | [`Request::Put`] | the client sends [`Piece`]s up to the last, the machine one more answer |
//! | [`Request::Stop`] | the connection ends when the machine has |
//!
//! Both sides end with the connection: a program whose client goes away gets a hang-up.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use env86_core::Drive;
use guest86::call::{Exec, FileInfo, Put};
use guest86::value::{Values, to_bytes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use thiserror::Error;

use crate::os::UnixStream;

/// Bytes that are carried at once.
pub(super) const PIECE: usize = 64 << 10;
/// Bytes of standard input on their way to a program. A machine that has got them says so when the program has
/// room again: so what comes behind them, a signal for example, never has to wait for that.
pub(super) const INPUT_WINDOW: usize = 256 << 10;

/// What a machine is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// How it is; gives [`Now`].
    Show,
    /// To run a program; gives nothing.
    Exec(Exec),
    /// For a file of the guest's; gives nothing.
    Get(String),
    /// To make a file in the guest; gives nothing. With a name, the path may be a directory, in which the file
    /// gets it.
    Put(Put, String),
    /// To save itself to this file, or else to its image; gives [`Saved`].
    Save(Option<String>),
    /// To stop executing, or to go on; gives nothing.
    Pause(bool),
    /// To put the medium in this file into a drive, or to take out what is there; gives nothing.
    Change(Drive, Option<String>),
    /// To end, as by a signal to its process; gives nothing.
    Stop,
}

/// How a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// It does not execute.
    pub paused: bool,
    /// Bytes of memory that the guest has.
    pub memory: u64,
    /// Instructions since power-on.
    pub instructions: u64,
}

/// Where a machine has been saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The file, or the image.
    pub path: String,
    /// Bytes of the state.
    pub size: u64,
}

/// Why a machine does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{why}")]
pub struct Refusal {
    /// The reason, with those behind it.
    pub why: String,
    /// A program could not be started; whether there is none of that name.
    pub not_started: Option<bool>,
}

impl Refusal {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), not_started: None }
    }
}

/// The answer to a request.
pub(super) type Answer<T> = Result<T, Refusal>;

/// What is said of a program that runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromExec {
    /// Bytes of its standard output, or of its terminal.
    Out(ByteBuf),
    /// Bytes of its standard error.
    Err(ByteBuf),
    /// It has taken so many bytes of its input, or never will.
    Taken(usize),
    /// It has ended, with this status or by this signal.
    End(Result<i32, i32>),
    /// No more comes from it, for this reason.
    Broken(String),
}

/// A part of a file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Piece {
    /// Bytes.
    Data(ByteBuf),
    /// That was all; from the guest, with what is known of the file.
    Last(Option<FileInfo>),
    /// There is more, and it cannot be had.
    Failed(Refusal),
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    values: Values,
}

impl Wire {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, values: Values::default() }
    }

    /// The same connection, for what sends only.
    pub fn sender(&self) -> io::Result<Self> {
        Ok(Self::new(self.stream.try_clone()?))
    }

    pub fn send(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.stream.write_all(&to_bytes(value))
    }

    /// Waits for a value. The connection's end is an error.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = self.values.read();
            let read = read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some((value, _)) = read {
                return Ok(value);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.values.feed(&piece[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waiting is an error after so long.
    pub fn limit(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// Waits for the other side to end the connection.
    pub fn wait_for_end(&mut self) {
        while let Ok(1..) = self.stream.read(&mut [0; 64]) {}
    }

    /// Ends the connection, for all who hold it.
    pub fn close(&self) {
        // It may have ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Reads a file that comes in pieces.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    wire: &'a mut Wire,
    bytes: ByteBuf,
    done: usize,
    /// The last piece has come.
    pub last: bool,
}

impl<'a> Pieces<'a> {
    pub fn new(wire: &'a mut Wire) -> Self {
        Self { wire, bytes: ByteBuf::new(), done: 0, last: false }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.done == self.bytes.len() && !self.last {
            match self.wire.receive()? {
                Piece::Data(bytes) => (self.bytes, self.done) = (bytes, 0),
                Piece::Last(_) => self.last = true,
                Piece::Failed(refusal) => return Err(io::Error::other(refusal)),
            }
        }
        let read = (&self.bytes[self.done..]).read(buf)?;
        self.done += read;
        Ok(read)
    }
}

/// Sends a file in pieces.
#[derive(Debug)]
pub(super) struct InPieces<'a>(pub &'a mut Wire);

impl Write for InPieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        self.0.send(&Piece::Data(ByteBuf::from(piece)))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
