//! The whole machine, without an operating system: what lies between a board and a desk.
//!
//! A [`Computer`] is built by [`Computer::power_on`] or [`Computer::resume`], is fed with [`Input`] values
//! and runs in slices; what comes out goes to an [`Outside`], and the screen is there to be looked at. A
//! thread, a test, a browser's worker are shells around it: they bring a clock, files as bytes, and a loop
//! that does what [`Progress`] says.
//!
//! ```
//! use env86_bios::BootSource;
//! use env86_core::{Computer, Ending, Firmware, Input, Outside, Progress, Recording, Setup};
//!
//! struct Terminal(Vec<u8>);
//!
//! impl Outside for Terminal {
//!     fn serial(&mut self, _port: u8, bytes: &[u8]) {
//!         self.0.extend(bytes);
//!     }
//! }
//!
//! // A ROM that echoes a byte of COM1 and halts for good.
//! let code = [
//!     0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb, // mov dx, 3FDh; in al, dx; test al, 1; jz back
//!     0xb2, 0xf8, 0xec, 0xee, 0xf4, //                   mov dl, F8h; in al, dx; out dx, al; hlt
//! ];
//! let mut bios = vec![0; 64 << 10];
//! bios[..code.len()].copy_from_slice(&code);
//! bios[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]); // jmp F000:0000
//!
//! let firmware = Firmware::new("echo", BootSource::Rom { bios, vga_bios: None, kernel: None });
//! let setup = Setup { memory: 1 << 20, ..Setup::deterministic(Recording::default()) };
//! let mut computer = Computer::power_on(setup, firmware)?;
//! computer.input(&Input::Serial { port: 0, bytes: b"!".to_vec() });
//! let mut terminal = Terminal(Vec::new());
//! let ending = loop {
//!     match computer.run(1_000_000, &mut terminal)? {
//!         Progress::More => {}
//!         Progress::Sleep { .. } => unreachable!("a deterministic machine does not wait for time"),
//!         Progress::Ended(ending) => break ending,
//!     }
//! };
//! assert_eq!((ending, &terminal.0[..]), (Ending::Halted, &b"!"[..]));
//! # Ok::<(), env86_core::ComputerError>(())
//! ```

mod computer;
mod files;
mod idle;
mod image_config;
mod input;
pub mod kernel;
pub mod keys;
mod layout;
mod media;
mod outside;
mod pattern;
mod power_on;
mod recording;
mod setup;

pub use computer::{Computer, ComputerError, Ending, Progress};
pub use env86_devices::sound::FRAME_RATE;
pub use env86_devices::vga::{Cell, Cursor, Frame, Screen, TextScreen};
pub use image_config::{DEFAULT_CMDLINE, FileRef, ImageConfig};
pub use input::{Accepted, Button, Input};
pub use media::{Drive, MediaStore, MediumError, NoMedia};
pub use outside::Outside;
pub use pattern::Pattern;
pub use power_on::{Choice, Firmware, LoadError, NamedFile, PowerOnError, choose, self_test};
pub use recording::{Recorded, Recording};
pub use setup::{DEFAULT_MEMORY, DEFAULT_VIDEO_MEMORY, NetDevice, Setup};
