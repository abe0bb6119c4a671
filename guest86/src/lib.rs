//! How a host and the service in its guest talk, over a port of a virtio console or a serial line.
//!
//! Four layers, each in a module: [frames](frame) on the line, [channels](mux) made of them, [values](value)
//! on a channel, [calls](call) made of values. The Go env86 speaks the same ones; what it has not is marked
//! in [`call`], and found by the answer to [`call::VERSION`].
//!
//! Nothing here knows an operating system: bytes go in, bytes and events come out. The host (`env86`) and
//! the service (the program `guest86`) are both made on top of it.

pub mod call;
pub mod frame;
pub mod mux;
pub mod value;

/// The name of the service's port of the virtio console.
pub const PORT_NAME: &str = "org.env86.guest";
