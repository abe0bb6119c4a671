//! Between the machine's device for folders of the host and the thread that serves them. The machine asks and goes
//! on; what is answered wakes it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use env86_devices::fs::Errno;
use env86_devices::virtio::p9::wire;

use super::ports::Desk;

/// Who answers: it is given a message of 9P2000.L and puts its answer into the other.
pub(crate) type Server = Box<dyn FnMut(&mut [u8], &mut Vec<u8>) + Send>;

/// A message, and the number by which the machine knows it.
type Numbered = (u32, Vec<u8>);

/// What waits on both sides.
#[derive(Default)]
pub(crate) struct Shares {
    state: Mutex<State>,
    /// There is something to be answered, or nothing ever more.
    asked: Condvar,
}

#[derive(Default)]
struct State {
    /// There is a thread.
    served: bool,
    over: bool,
    /// As many as the device has room for, at most.
    asked: VecDeque<Numbered>,
    answers: VecDeque<Numbered>,
    /// Messages that have been asked, and whose answers the machine has not taken.
    open: usize,
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shares")
    }
}

impl Shares {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine asks.
    pub fn ask(&self, number: u32, message: Vec<u8>) {
        let mut state = self.lock();
        state.open += 1;
        if state.served {
            state.asked.push_back((number, message));
            drop(state);
            self.asked.notify_one();
        } else {
            // No folder has been mounted in this machine: it is a guest that looks what there is.
            let tag = message.get(5..7).map_or(u16::MAX, |tag| u16::from_le_bytes([tag[0], tag[1]]));
            let mut reply = Vec::new();
            wire::fail(&mut reply, tag, Errno::ENOENT);
            state.answers.push_back((number, reply));
        }
    }

    /// Gives the machine the answers that have come. What it does not take now is given again. Says whether it
    /// took any.
    pub fn give(&self, mut take: impl FnMut(u32, Vec<u8>) -> Result<(), Vec<u8>>) -> bool {
        let mut any = false;
        loop {
            let Some((number, reply)) = self.lock().answers.pop_front() else { return any };
            if let Err(reply) = take(number, reply) {
                self.lock().answers.push_front((number, reply));
                return any;
            }
            any = true;
            let mut state = self.lock();
            state.open = state.open.saturating_sub(1);
        }
    }

    /// The machine waits for answers, and none has come.
    pub fn is_asked(&self) -> bool {
        let state = self.lock();
        state.open > 0 && state.answers.is_empty()
    }

    /// The machine has ended.
    pub fn end(&self) {
        self.lock().over = true;
        self.asked.notify_all();
    }
}

/// Serves what the machine asks, in a thread that ends with the machine. The first server is the only one.
pub(crate) fn serve(desk: &Arc<Desk>, mut server: Server) -> io::Result<()> {
    let mut state = desk.shares.lock();
    if state.served {
        return Ok(());
    }
    let own = desk.clone();
    thread::Builder::new().name("folders".into()).spawn(move || {
        let shares = &own.shares;
        let mut state = shares.lock();
        while !state.over {
            let Some((number, mut message)) = state.asked.pop_front() else {
                state = shares.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let mut reply = Vec::new();
            server(&mut message, &mut reply);
            state = shares.lock();
            state.answers.push_back((number, reply));
            drop(state);
            own.wake();
            state = shares.lock();
        }
    })?;
    state.served = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn answers(desk: &Desk, count: usize) -> Vec<Numbered> {
        let (mut all, end) = (Vec::new(), Instant::now() + Duration::from_secs(60));
        while all.len() < count && Instant::now() < end {
            desk.shares.give(|number, reply| {
                all.push((number, reply));
                Ok(())
            });
            thread::yield_now();
        }
        all
    }

    #[test]
    fn what_is_asked_is_answered_by_its_number() {
        let desk = Arc::new(Desk::new(|_| true));
        let server = |message: &mut [u8], reply: &mut Vec<u8>| reply.extend(message.iter().rev());
        serve(&desk, Box::new(server)).unwrap();
        serve(&desk, Box::new(|_, _| panic!("there is one already"))).unwrap();
        (0..10).for_each(|number| desk.shares.ask(number, vec![number as u8, 100]));
        let all = answers(&desk, 10);
        assert_eq!(all, (0..10).map(|number| (number, vec![100, number as u8])).collect::<Vec<_>>());
        assert!(!desk.shares.is_asked());
        desk.end();
    }

    #[test]
    fn without_a_folder_there_is_an_error() {
        let desk = Arc::new(Desk::new(|_| true));
        desk.shares.ask(3, vec![9, 0, 0, 0, 120, 7, 0, 0, 0]);
        let mut error = Vec::new();
        wire::fail(&mut error, 7, Errno::ENOENT);
        assert_eq!(answers(&desk, 1), [(3, error)]);
    }

    #[test]
    fn what_is_not_taken_comes_again() {
        let desk = Arc::new(Desk::new(|_| true));
        desk.shares.ask(1, Vec::new());
        assert!(!desk.shares.give(|_, reply| Err(reply)));
        assert_eq!(answers(&desk, 1).len(), 1);
        assert!(!desk.shares.give(|_, _| panic!("it is gone")));
    }
}
