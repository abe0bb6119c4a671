//! The library and the program from outside, in one program. `cargo test -p env86 serial::` runs those of a file.

mod bad_input;
mod build;
mod cli;
mod create;
mod disks;
mod images;
#[cfg(unix)]
mod level;
mod library;
mod oci;
mod pages;
mod pull;
mod push;
mod script;
mod selftest;
mod serial;
mod sources;
mod state;
mod tls;
mod web;
mod window;
