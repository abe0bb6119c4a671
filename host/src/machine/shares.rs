//! Between the machine's device for folders of the host and who serves them. What a file system of this host has at
//! once is answered in the machine's thread: to wake another one takes longer. For the rest there is a thread; the machine
//! asks it and goes on, and is woken by the answer.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use env86_devices::fs::Errno;
use env86_devices::virtio::p9::wire::{self, request};

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
    /// Whoever answers has it.
    server: Mutex<Option<Server>>,
    /// Most of it is answered at once.
    at_once: AtomicBool,
}

#[derive(Default)]
struct State {
    /// There is a server, and a thread.
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
    pub fn ask(&self, number: u32, mut message: Vec<u8>) {
        let mut state = self.lock();
        state.open += 1;
        if !state.served {
            // No folder has been mounted in this machine: it is a guest that looks what there is.
            let tag = message.get(5..7).map_or(u16::MAX, |tag| u16::from_le_bytes([tag[0], tag[1]]));
            let mut reply = Vec::new();
            wire::fail(&mut reply, tag, Errno::ENOENT);
            return state.answers.push_back((number, reply));
        }
        let at_once = self.at_once.load(Ordering::Relaxed) && message.get(4) != Some(&request::FSYNC);
        // What was asked before is answered before.
        if at_once && state.asked.is_empty() {
            drop(state);
            if let Some(reply) = self.try_answer(&mut message) {
                return self.lock().answers.push_back((number, reply));
            }
            state = self.lock();
        }
        state.asked.push_back((number, message));
        drop(state);
        self.asked.notify_one();
    }

    /// The answer to a message, unless the thread answers another one just now.
    fn try_answer(&self, message: &mut [u8]) -> Option<Vec<u8>> {
        let mut server = match self.server.try_lock() {
            Ok(server) => server,
            Err(TryLockError::Poisoned(server)) => server.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let mut reply = Vec::new();
        server.as_mut()?(message, &mut reply);
        Some(reply)
    }

    /// Whether what is asked may be answered in the machine's thread: no folder is on a file system that may let wait.
    #[cfg_attr(not(unix), allow(dead_code, reason = "folders are mounted from Unix systems"))]
    pub fn answer_at_once(&self, at_once: bool) {
        self.at_once.store(at_once, Ordering::Relaxed);
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

/// Serves what the machine asks, with a thread that ends with the machine. The first server is the only one.
#[cfg_attr(not(unix), allow(dead_code, reason = "folders are mounted from Unix systems"))]
pub(crate) fn serve(desk: &Arc<Desk>, server: Server) -> io::Result<()> {
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
            // It is the thread's before anything later can be answered by the machine's.
            let mut server = shares.server.lock().unwrap_or_else(PoisonError::into_inner);
            drop(state);
            let mut reply = Vec::new();
            server.iter_mut().for_each(|server| server(&mut message, &mut reply));
            drop(server);
            shares.lock().answers.push_back((number, reply));
            own.wake();
            state = shares.lock();
        }
    })?;
    *desk.shares.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
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
        for at_once in [false, true, false] {
            desk.shares.answer_at_once(at_once);
            (0..10).for_each(|number| desk.shares.ask(number, vec![number as u8, 100]));
            let all = answers(&desk, 10);
            assert_eq!(all, (0..10).map(|number| (number, vec![100, number as u8])).collect::<Vec<_>>());
        }
        assert!(!desk.shares.is_asked());
        desk.end();
    }

    #[test]
    fn what_takes_long_is_the_threads_affair() {
        let desk = Arc::new(Desk::new(|_| true));
        let asker = thread::current().id();
        let server = move |message: &mut [u8], reply: &mut Vec<u8>| {
            reply.push(message[0]);
            reply.push((thread::current().id() == asker).into());
        };
        serve(&desk, Box::new(server)).unwrap();
        let ask = |number: u8, kind| {
            desk.shares.ask(number.into(), vec![number, 0, 0, 0, kind, 0, 0]);
            answers(&desk, 1)
        };
        assert_eq!(ask(1, request::WALK), [(1, vec![1, 0])]);
        desk.shares.answer_at_once(true);
        assert_eq!(ask(2, request::FSYNC), [(2, vec![2, 0])]);
        assert_eq!(ask(3, request::WALK), [(3, vec![3, 1])]);
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
