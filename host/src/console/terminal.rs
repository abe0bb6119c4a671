//! The terminal that the program was started on, as a session wants it, and given back as it was on every
//! way out.

use std::fmt;
use std::io::{self, IsTerminal};
use std::panic;
use std::sync::{Arc, Mutex, PoisonError};

use crate::os::{TerminalMode, terminal_size};

pub use crate::os::Size;

/// Whether standard input is a terminal.
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// The size of the terminal at standard output, or else at standard input.
pub fn size() -> Option<Size> {
    terminal_size()
}

type Restore = Box<dyn FnOnce() + Send>;

/// How to go back, while the terminal is otherwise than it was.
#[derive(Clone, Default)]
pub struct Saved(Arc<Mutex<Option<Restore>>>);

impl fmt::Debug for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saved").finish_non_exhaustive()
    }
}

impl Saved {
    /// Gives the terminal back; does nothing the second time.
    pub fn restore(&self) {
        let saved = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(restore) = saved {
            restore();
        }
    }
}

/// A terminal that is otherwise than it was. Dropping this, a panic in any thread, and [`Saved::restore`]
/// all end that.
#[derive(Debug)]
pub struct Guard(Saved);

impl Guard {
    /// Something has been done to the terminal that `restore` undoes.
    pub(super) fn new(restore: impl FnOnce() + Send + 'static) -> Self {
        let saved = Saved(Arc::new(Mutex::new(Some(Box::new(restore)))));
        let at_panic = saved.clone();
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            at_panic.restore();
            hook(info);
        }));
        Self(saved)
    }

    /// Makes the terminal at standard input raw: every byte passes both ways unchanged.
    pub fn raw() -> io::Result<Self> {
        let settings = TerminalMode::now()?;
        settings.raw().set()?;
        // Nothing can be done about a terminal that has gone.
        Ok(Self::new(move || _ = settings.set()))
    }

    /// For those who must give the terminal back without the guard: signal handling.
    pub fn saved(&self) -> Saved {
        self.0.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.restore();
    }
}
