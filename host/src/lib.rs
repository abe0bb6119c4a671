//! env86: a PC that fits in a file.
//!
//! This library is what the `env86` command is made of: [images](image), the [machine] that runs
//! them, and the [console] at which a person meets it.
//!
//! ```no_run
//! use env86::image::Image;
//! use env86::machine::{Config, Event, Machine};
//!
//! let image = Image::open("debian")?;
//! let machine = Machine::start(&Config { image: Some(image), ..Config::default() })?;
//! machine.serial_input().send(b"poweroff\n");
//! for event in machine.events() {
//!     if let Event::Serial(bytes) = event {
//!         print!("{}", String::from_utf8_lossy(&bytes));
//!     }
//! }
//! println!("{:?}", machine.wait()?.ending);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod console;
pub mod image;
pub mod machine;
#[cfg(feature = "net")]
pub mod net;
mod replace;
