//! The same for tasks of an asynchronous runtime: streams are tokio's [`AsyncRead`] and [`AsyncWrite`], and waiting keeps no
//! thread. A standard input is best shut down before it is dropped, which waits for room in the guest if need be.
//!
//! ```no_run
//! # async fn ask(guest: &env86::Guest) -> Result<(), Box<dyn std::error::Error>> {
//! let output = guest.command("make").arg("-j2").output_async().await?;
//! print!("{}", String::from_utf8_lossy(&output.stdout));
//! # Ok(()) }
//! ```

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use guest86::call::ToProcess;
use guest86::value::to_bytes;
use serde_bytes::ByteBuf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{
    Child, ChildStderr, ChildStdin, ChildStdout, Command, END_OF_TRANSMISSION, ExitStatus, GuestError,
    Output, PIECE, Reader, end,
};

impl Command {
    /// As [`Command::spawn`]. Another thread of the runtime's waits for the guest's answer.
    pub async fn spawn_async(&self) -> Result<Child, GuestError> {
        let command = self.clone();
        let started = tokio::task::spawn_blocking(move || command.spawn()).await;
        started.map_err(|error| GuestError::Io(io::Error::other(error)))?
    }

    /// As [`Command::output`].
    pub async fn output_async(&self) -> Result<Output, GuestError> {
        let mut child = self.spawn_async().await?;
        child.stdin = None;
        child.wait_with_output_async().await
    }

    /// As [`Command::status`].
    pub async fn status_async(&self) -> Result<ExitStatus, GuestError> {
        self.spawn_async().await?.wait_async().await
    }
}

impl Child {
    /// As [`Child::wait`].
    pub async fn wait_async(&mut self) -> Result<ExitStatus, GuestError> {
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
        self.end_async().await
    }

    async fn end_async(&self) -> Result<ExitStatus, GuestError> {
        let (session, id) = (&self.program.channel.session, self.program.channel.id);
        poll_fn(|task| {
            let state = session.lock();
            match end(&state, id) {
                Ok(Some(status)) => Poll::Ready(Ok(status)),
                Err(error) => Poll::Ready(Err(error)),
                Ok(None) => {
                    session.wake_later(&state, task.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// As [`Child::wait_with_output`].
    pub async fn wait_with_output_async(mut self) -> Result<Output, GuestError> {
        self.stdin = None;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (self.stdout.take(), self.stderr.take());
        let read_out = async {
            match out {
                Some(mut out) => out.read_to_end(&mut stdout).await,
                None => Ok(0),
            }
        };
        let read_err = async {
            match err {
                Some(mut err) => err.read_to_end(&mut stderr).await,
                None => Ok(0),
            }
        };
        let (read_out, read_err) = futures_util::future::join(read_out, read_err).await;
        read_out.and(read_err)?;
        let status = self.end_async().await?;
        Ok(Output { status, stdout, stderr })
    }
}

impl Reader {
    fn poll(&mut self, task: &mut Context, buf: &mut ReadBuf) -> Poll<io::Result<()>> {
        let session = self.program.channel.session.clone();
        let mut state = session.lock();
        match self.read_now(&mut state, buf.initialize_unfilled())? {
            Some(read) => {
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
            None => {
                session.wake_later(&state, task.waker());
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for ChildStdout {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context, buf: &mut ReadBuf) -> Poll<io::Result<()>> {
        self.0.poll(task, buf)
    }
}

impl AsyncRead for ChildStderr {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context, buf: &mut ReadBuf) -> Poll<io::Result<()>> {
        self.0.poll(task, buf)
    }
}

impl ChildStdin {
    /// Sends what is left of the last message.
    fn poll_unsent(&mut self, task: &mut Context) -> Poll<io::Result<()>> {
        let channel = &self.program.channel;
        let session = channel.session.clone();
        let mut state = session.lock();
        while !self.unsent.is_empty() {
            match channel.send_now(&mut state, &self.unsent)? {
                0 => {
                    session.wake_later(&state, task.waker());
                    return Poll::Pending;
                }
                sent => drop(self.unsent.drain(..sent)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChildStdin {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(task))?;
        let piece = &bytes[..bytes.len().min(PIECE)];
        if !piece.is_empty() {
            self.unsent = match self.program.guest.is_go {
                false => to_bytes(&ToProcess::In(ByteBuf::from(piece))),
                true => piece.to_vec(),
            };
            // What there is no room for yet goes with the next call.
            if let Poll::Ready(Err(error)) = self.poll_unsent(task) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context) -> Poll<io::Result<()>> {
        self.poll_unsent(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(task))?;
        if !std::mem::replace(&mut self.ended, true) {
            let program = self.program.clone();
            match (program.guest.is_go, program.terminal) {
                (false, _) => self.unsent = to_bytes(&ToProcess::Eof),
                (true, true) => self.unsent = vec![END_OF_TRANSMISSION],
                (true, false) => program.channel.send_eof(),
            }
        }
        self.poll_unsent(task)
    }
}
