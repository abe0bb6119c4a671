//! Where a person, or a program in a person's place, meets the guest.

mod pattern;
pub mod session;
mod stdin;
pub mod terminal;

pub use pattern::Pattern;
