//! A guest that tests the machine it runs on, and shows on the screen and on COM1 what works.
//!
//! The crate's build script assembles it (`guest`, one function for each tested part), on every host and for
//! every one, so that nothing of it is in the repository but its source. It needs no BIOS and no disk; any
//! Multiboot loader starts it.

/// The guest: a Multiboot kernel with load addresses, for a machine with at least 2 MiB of memory.
pub static KERNEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/selftest.bin"));

/// The guest ends the machine by a write to this port: 0, or 1 if a test has failed. Where nothing is at the
/// port, it switches the power off, or halts.
pub const EXIT_PORT: u16 = 0xf4;

/// The kernel's command line for a machine whose network card is on a network: only then is it an error that no
/// DHCP server answers.
pub const ON_NETWORK: &str = "network";
