//! env86: a PC that fits in a file.
//!
//! This library is what the `env86` command is made of: [images](image), the [machine] that runs
//! them, the [console] at which a person meets it, and the [guest]'s service, which runs programs in it.
//!
//! ```no_run
//! use std::io::Write;
//! use std::time::Duration;
//!
//! use env86::{Com, Image, Machine};
//!
//! let image = Image::open("debian")?;
//! let machine = Machine::builder().image(&image).start()?; // resumes a saved state, unless .cold()
//! let mut com1 = machine.serial(Com::One); // Read + Write
//! com1.expect("# ", Duration::from_secs(60))?;
//! com1.write_all(b"date\n")?;
//! machine.save_to(&image)?;
//! machine.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod console;
pub mod guest;
pub mod image;
#[cfg(unix)]
pub mod level;
pub mod machine;
#[cfg(unix)]
pub mod named;
#[cfg(feature = "net")]
pub mod net;
mod os;
mod replace;
pub mod sound;
pub mod web;

pub use guest::Guest;
pub use image::Image;
pub use machine::{
    Com, ControlError, Controls, Ending, Event, Events, ExpectError, Input, Machine, MachineBuilder,
    MachineError, NetDevice, Recording, Report, SerialPort,
};
