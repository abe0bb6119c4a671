//! What a program in the guest says, as it comes.

use std::collections::VecDeque;

use guest86::call::{FromProcess, RunOutput};
use guest86::value::{ValueError, Values};

use super::go::Markers;

/// One of a program's two outputs. At a terminal all is standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub(super) Result<i32, i32>);

impl ExitStatus {
    /// How a program ended: the status that it gave, or the signal that ended it.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only machines with names pass it on"))]
    pub(crate) fn new(end: Result<i32, i32>) -> Self {
        Self(end)
    }

    /// The status that it gave, or the signal that ended it.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only machines with names pass it on"))]
    pub(crate) fn end(self) -> Result<i32, i32> {
        self.0
    }

    /// It gave the status 0.
    pub fn success(self) -> bool {
        self.0 == Ok(0)
    }

    /// The status that it gave; `None` if a signal ended it.
    pub fn code(self) -> Option<i32> {
        self.0.ok()
    }

    /// The signal that ended it, by Linux's number.
    pub fn signal(self) -> Option<i32> {
        self.0.err()
    }

    /// The status that a shell would show: 128 and the signal's number for a program that a signal ended.
    pub fn shell_status(self) -> u8 {
        match self.0 {
            Ok(code) => code as u8,
            Err(signal) => (128 + signal) as u8,
        }
    }
}

/// Bytes that a program has written.
#[derive(Debug)]
pub(super) struct Piece {
    pub source: Source,
    pub bytes: Vec<u8>,
    /// How many of them have been read.
    pub read: usize,
    /// Bytes on the channel whose room is to be given back after that.
    pub cost: usize,
}

/// A program's output that has not been read, and its end.
#[derive(Debug, Default)]
pub(super) struct Process {
    values: Values,
    pub pieces: VecDeque<Piece>,
    /// These are not read by anyone.
    pub unwanted: [bool; 2],
    pub end: Option<ExitStatus>,
    /// What came was no message.
    pub malformed: Option<String>,
    /// The program is one of the Go service's, whose end is to be found in its output.
    markers: Option<Markers>,
}

impl Process {
    /// A program of the Go service.
    pub fn of_go(markers: Markers) -> Self {
        Self { markers: Some(markers), ..Self::default() }
    }

    /// The next message. What there is of it: bytes of a source, and the program's end.
    #[expect(clippy::type_complexity, reason = "what two protocols have in common")]
    fn message(&mut self) -> Result<Option<(Option<(Source, Vec<u8>)>, usize)>, ValueError> {
        let Some(markers) = &mut self.markers else {
            let Some((message, cost)) = self.values.read::<FromProcess>()? else { return Ok(None) };
            let said = match message {
                FromProcess::Out(bytes) => Some((Source::Stdout, bytes.into_vec())),
                FromProcess::Err(bytes) => Some((Source::Stderr, bytes.into_vec())),
                FromProcess::End(end) => {
                    self.end = Some(ExitStatus(end));
                    None
                }
            };
            return Ok(Some((said, cost)));
        };
        let Some((message, cost)) = self.values.read::<RunOutput>()? else { return Ok(None) };
        let said = match message {
            RunOutput { stdout: Some(bytes), .. } => Some((Source::Stdout, bytes.into_vec())),
            RunOutput { stderr: Some(bytes), .. } => Some((Source::Stderr, bytes.into_vec())),
            RunOutput { status, .. } => {
                // It has ended without its markers: something has ended the shell around it.
                self.end = self.end.or(status.map(|status| ExitStatus(Ok(status))));
                None
            }
        };
        let said = said.map(|(source, bytes)| (source, markers.pass(source, &bytes)));
        if self.end.is_none() {
            self.end = markers.end().map(|status| ExitStatus(Ok(status)));
        }
        Ok(Some((said.filter(|(_, bytes)| !bytes.is_empty()), cost)))
    }

    /// Takes bytes of the channel. Gives for how many of them there is room again at once.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        self.values.feed(bytes);
        let mut free = 0;
        loop {
            match self.message() {
                Ok(None) => return free,
                Ok(Some((Some((source, bytes)), cost))) if !self.unwanted[source as usize] => {
                    self.pieces.push_back(Piece { source, bytes, read: 0, cost });
                }
                Ok(Some((_, cost))) => free += cost,
                Err(error) => {
                    self.malformed = Some(error.to_string());
                    return free;
                }
            }
        }
    }

    /// What comes from this source is not wanted any more. Gives for how many bytes there is room again.
    pub fn forget(&mut self, source: Source) -> usize {
        self.unwanted[source as usize] = true;
        let cost = self.pieces.iter().filter(|piece| piece.source == source).map(|piece| piece.cost).sum();
        self.pieces.retain(|piece| piece.source != source);
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest86::value::to_bytes;
    use serde_bytes::ByteBuf;

    #[test]
    fn what_no_one_reads_is_not_kept() {
        let mut process = Process::default();
        let out = to_bytes(&FromProcess::Out(ByteBuf::from("out")));
        let err = to_bytes(&FromProcess::Err(ByteBuf::from("error")));
        let all = [&out[..], &err, &out].concat();
        assert_eq!(process.take(&all), 0);
        assert_eq!(process.forget(Source::Stderr), err.len());
        assert_eq!(process.take(&err), err.len());
        assert!(process.pieces.len() == 2 && process.pieces.iter().all(|piece| piece.bytes == b"out"));
        assert_eq!(process.pieces.iter().map(|piece| piece.cost).sum::<usize>(), 2 * out.len());
        process.take(&to_bytes(&FromProcess::End(Err(9))));
        let end = process.end.unwrap();
        assert_eq!(
            (end.code(), end.signal(), end.shell_status(), end.success()),
            (None, Some(9), 137, false)
        );
    }
}
