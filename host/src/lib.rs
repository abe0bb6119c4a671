//! env86: a PC that fits in a file.
//!
//! This library is what the `env86` command is made of: images, and the machine that runs them.

pub mod image;
