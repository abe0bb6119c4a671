//! What a machine plays: to a file, and to the loudspeakers of the host.
//!
//! A machine gives its sound to the [`Listener`]s that it was built with
//! ([`MachineBuilder::sound`](crate::MachineBuilder::sound)), stretch by stretch, each with its guest time.
//! They have a thread of their own, so that a slow one never holds up the guest.

#[cfg(feature = "sound")]
mod output;
mod wav;

use std::sync::mpsc::Sender;

pub use env86_core::FRAME_RATE;
pub use env86_devices::sound::{Frame, Sound};
#[cfg(feature = "sound")]
pub use output::Output;
pub use wav::Recorder;

/// One end of a channel by which a machine gives what it plays.
pub type Listener = Sender<Sound>;
