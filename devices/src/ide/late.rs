//! An image that lets its drive wait, for tests.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::drive::SECTOR;
use super::medium::{DiskImage, DiskImageError};

/// An image whose bytes come when they have been asked for a few times; how often, chance says, and the
/// same seed says the same. It wakes whoever is to ask again at once, so that nothing depends on time.
#[derive(Debug)]
pub struct Late<I> {
    image: I,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chance: u64,
    /// How often what has been asked for is still to be asked for in vain.
    asked: HashMap<(u64, usize), u64>,
    waker: Option<Waker>,
}

impl<I> Late<I> {
    /// Makes an image late. Its first sector is there when the drive is made.
    pub fn new(image: I, seed: u64) -> Self {
        let asked = HashMap::from([((0, SECTOR as usize), 0)]);
        Self { image, state: Mutex::new(State { chance: seed, asked, waker: None }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Up to three times.
    fn times(&mut self) -> u64 {
        // Knuth's linear congruential generator (MMIX).
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 62
    }
}

impl<I: DiskImage> DiskImage for Late<I> {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        let mut state = self.lock();
        let left = match state.asked.get(&(offset, buf.len())) {
            Some(left) => *left,
            None => state.times(),
        };
        if left == 0 {
            state.asked.remove(&(offset, buf.len()));
            return self.image.read(offset, buf);
        }
        state.asked.insert((offset, buf.len()), left - 1);
        let waker = state.waker.clone();
        drop(state);
        waker.iter().for_each(Waker::wake_by_ref);
        Poll::Pending
    }

    fn wake_by(&self, waker: &Waker) {
        self.lock().waker = Some(waker.clone());
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), DiskImageError> {
        self.image.write(offset, data)
    }

    fn flush(&self) -> Result<(), DiskImageError> {
        self.image.flush()
    }
}
