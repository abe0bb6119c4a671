//! The terminal that the program was started on, as the guest's serial line wants it: raw, and
//! given back as it was on every way out.

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

/// The settings to go back to, while the terminal is raw.
#[derive(Clone, Debug, Default)]
pub struct Saved(Arc<Mutex<Option<TerminalMode>>>);

impl Saved {
    /// Gives the terminal back; does nothing the second time.
    pub fn restore(&self) {
        let saved = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(settings) = saved {
            // Nothing can be done about a terminal that has gone.
            let _ = settings.set();
        }
    }
}

/// Standard input in raw mode. Dropping it, a panic in any thread, and [`Saved::restore`] all end
/// that.
#[derive(Debug)]
pub struct RawMode(Saved);

impl RawMode {
    /// Makes the terminal at standard input raw: every byte passes both ways unchanged.
    pub fn enter() -> io::Result<Self> {
        let settings = TerminalMode::now()?;
        let raw = settings.raw();
        let saved = Saved(Arc::new(Mutex::new(Some(settings))));
        raw.set()?;
        let at_panic = saved.clone();
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            at_panic.restore();
            hook(info);
        }));
        Ok(Self(saved))
    }

    /// For those who must give the terminal back without the guard: signal handling.
    pub fn saved(&self) -> Saved {
        self.0.clone()
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.0.restore();
    }
}
