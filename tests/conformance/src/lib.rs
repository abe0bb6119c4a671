//! The processor compared with the host's.
//!
//! Every row of the emulator's instruction tables makes cases ([`generate`]): an instruction with
//! random registers, flags and memory, at random places. Each runs on the host's processor
//! ([`native`]) and in the emulator ([`guest`]) up to the exception that ends it, and everything
//! that user code could see must be equal ([`compare`]).

pub mod compare;
pub mod fuzz;
pub mod generate;
pub mod guest;
pub mod layout;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod native;
pub mod operands;
pub mod report;
pub mod rng;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod run;
pub mod segments;
pub mod state;
pub mod undefined;
