//! Reading standard input in a thread that can be ended.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// A thread that reads standard input. Dropping this ends it.
pub struct StdinThread {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl StdinThread {
    /// Gives every piece that is read to `take`, and an empty one at the end of the input, until
    /// `take` says no.
    pub fn spawn(take: impl FnMut(&[u8]) -> bool + Send + 'static) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let thread = thread::Builder::new().name("stdin".into()).spawn(move || read_loop(&stopped, take))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for StdinThread {
    fn drop(&mut self) {
        // The other end of the pipe hangs up, and that wakes the thread.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_loop(stopped: &PipeReader, mut take: impl FnMut(&[u8]) -> bool) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let stdin = stdio::stdin();
        let mut ready =
            [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if !ready[1].revents().is_empty() {
            return;
        }
        if ready[0].revents().is_empty() {
            continue;
        }
        match rustix::io::read(stdin, &mut chunk) {
            Ok(len) => {
                if !take(&chunk[..len]) || len == 0 {
                    return;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A terminal that has hung up gives EIO: nothing more will come.
            Err(_) => {
                take(&[]);
                return;
            }
        }
    }
}
