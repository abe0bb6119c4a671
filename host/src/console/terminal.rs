//! The terminal that the program was started on, as the guest's serial line wants it: raw, and
//! given back as it was on every way out.

use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::stdio;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines of text.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Whether standard input is a terminal.
pub fn stdin_is_terminal() -> bool {
    rustix::termios::isatty(stdio::stdin())
}

/// The size of the terminal at standard output, or else at standard input.
pub fn size() -> Option<Size> {
    let of = |fd: rustix::fd::BorrowedFd| tcgetwinsize(fd).ok().filter(|s| s.ws_row > 0 && s.ws_col > 0);
    let size = of(stdio::stdout()).or_else(|| of(stdio::stdin()))?;
    Some(Size { rows: size.ws_row, columns: size.ws_col })
}

/// The settings to go back to, while the terminal is raw.
#[derive(Clone, Debug, Default)]
pub struct Saved(Arc<Mutex<Option<Termios>>>);

impl Saved {
    /// Gives the terminal back; does nothing the second time.
    pub fn restore(&self) {
        let saved = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(settings) = saved {
            // Nothing can be done about a terminal that has gone.
            let _ = set(stdio::stdin(), &settings);
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
        let settings = tcgetattr(stdio::stdin())?;
        let saved = Saved(Arc::new(Mutex::new(Some(settings.clone()))));
        let mut raw = settings;
        raw.make_raw();
        set(stdio::stdin(), &raw)?;
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

/// Changes the settings at once: a terminal whose output is stopped must not hold up the way out.
fn set(terminal: impl AsFd, settings: &Termios) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| tcsetattr(&terminal, OptionalActions::Now, settings))
}
