//! Where a person, or a program in a person's place, meets the guest.
//!
//! At the terminal ([`session`]), every byte passes between the guest's COM1 and standard input and
//! output unchanged, so that whatever the terminal understands works, too. What a serial line cannot
//! carry is the size of the window. There are two ways for the guest to know it:
//!
//! - `env86 boot --ttyS0` at a terminal adds `env86.tty=ROWSxCOLUMNS` to the kernel's command line,
//!   for a login script to give to `stty rows ROWS columns COLUMNS`;
//! - a program in the guest may ask the terminal where its cursor is (`ESC [ 6 n`) after moving it
//!   to the far corner, which also works once the window has changed.
//!
//! The demo image's `/etc/profile.d/resize.sh` does both.
//!
//! A program that the guest's service runs is [attached](attach) to standard input and output instead.
//!
//! In a `window`, where this library was built with one, screen, keyboard and mouse are the person's. A
//! terminal can show the screen, too ([`session::Options::screen`]). Pages
//! of browsers can (`pages`, where this library was built with a network). A [`script`] does what a person would.

pub mod attach;
pub mod log;
#[cfg(feature = "net")]
pub mod pages;
mod record;
mod scale;
pub mod script;
pub mod session;
pub mod terminal;
mod tty;
#[cfg(feature = "window")]
pub mod window;

pub use crate::os::flag_when_interrupted;
