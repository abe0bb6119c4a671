//! What comes out of a machine.

/// Takes what a machine sends while it runs. Each method's default throws it away, so that a desk names
/// only what it shows.
///
/// The screen does not come this way: a desk looks at it when it wants to draw
/// ([`Computer::show`](crate::Computer::show), [`Computer::text_screen`](crate::Computer::text_screen)),
/// so that a slow desk costs the guest nothing.
///
/// A new kind of output becomes a method here with an empty body, and a line in `Computer::carry_output`
/// that calls it with what the device has sent.
pub trait Outside {
    /// A serial port has sent these bytes; 0 is COM1.
    fn serial(&mut self, _port: u8, _bytes: &[u8]) {}

    /// A port of the virtio console has sent these bytes: 0 is Linux's `hvc0`.
    fn console(&mut self, _port: u8, _bytes: &[u8]) {}

    /// The network card has sent this Ethernet frame, without its check sequence. Called only if
    /// [`Connected::network`](env86_devices::board::Connected::network) says that there is a cable.
    fn frame(&mut self, _frame: &[u8]) {}

    /// The guest has asked something of the folders of the host: a message of 9P2000.L, to be answered by an
    /// [`Input::Share`](crate::Input::Share) with this number, whenever that can be. Called only if
    /// [`Connected::shares`](env86_devices::board::Connected::shares) says that it is answered.
    fn share_asked(&mut self, _number: u32, _message: Vec<u8>) {}

    /// The guest wrote these bytes to a debug port (E9h, 402h).
    fn debug(&mut self, _bytes: &[u8]) {}

    /// The guest has printed these bytes at the parallel port.
    fn printer(&mut self, _bytes: &[u8]) {}

    /// The sound card and the speaker have played these frames, of [`FRAME_RATE`](crate::FRAME_RATE) a second:
    /// left and right. `start` is the guest time of the first, in frames since power-on; between what comes
    /// in one call and in the next, it was silent. A machine that makes no sound never calls this.
    fn sound(&mut self, _start: u64, _frames: &[[i16; 2]]) {}

    /// The machine has been reset and starts again.
    fn reset(&mut self) {}
}

/// Nothing is listened to.
impl Outside for () {}
