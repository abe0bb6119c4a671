//! What goes into a machine, as plain data.
//!
//! The same values come through a channel from another thread, from JavaScript, and out of a
//! [`Recording`](crate::Recording). A new kind of input is a variant here and an arm in
//! [`Inlet::take`].

use std::collections::VecDeque;

use std::task::Waker;

use env86_devices::floppy::Disk;
use env86_devices::ide::DiscError;
use env86_devices::vmware::{self, Motion};
use env86_devices::{Pc, virtio::console};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::media::{Drive, MediaStore, MediumError};

/// Serial ports of a board.
pub(crate) const SERIAL_PORTS: usize = 4;
/// Bytes that wait for each serial line, beyond those in the device.
const TYPE_AHEAD: usize = 4096;
/// The same for each port of the virtio console, which passes much more in a run.
const CONSOLE_AHEAD: usize = console::CAPACITY;
/// Key strokes that wait for the keyboard controller.
const KEY_QUEUE: usize = 256;

/// Something that a machine is given from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Bytes for a serial port; 0 is COM1. They wait until the guest listens.
    Serial {
        /// The port.
        port: u8,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Bytes for a port of the virtio console; 0 is Linux's `hvc0`.
    Console {
        /// The port.
        port: u8,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The virtio console's screen has this size.
    ConsoleSize {
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// Keys go down or up: scan codes of set 1, prefixes included. Taken all, or not at all.
    ScanCodes(Vec<u8>),
    /// All keys go up, as when the desk loses the keyboard.
    ReleaseKeys,
    /// The mouse moves by counts to the right and down.
    PointerBy {
        /// To the right.
        dx: i32,
        /// Down.
        dy: i32,
    },
    /// The pointer is at this place, from 0 to FFFFh over the whole screen, for a guest that asked for
    /// positions.
    PointerAt {
        /// From the left.
        x: u16,
        /// From the top.
        y: u16,
    },
    /// The wheel turns by steps towards the user.
    Wheel(i32),
    /// A button of the mouse goes down or up.
    Button {
        /// Which.
        button: Button,
        /// It is down now.
        down: bool,
    },
    /// An Ethernet frame for the network card, without its check sequence. Taken whole, or not at all.
    Frame(Vec<u8>),
    /// The cable is put into the network card, or pulled: then frames are lost in both directions. A guest
    /// with the virtio card is told; with the NE2000, which cannot tell, it only hears nothing more.
    Link {
        /// It is in now.
        up: bool,
    },
    /// A drive gets another medium, or none. One that the guest has locked keeps its medium; the guest is
    /// told that someone wants it.
    Medium {
        /// The drive.
        drive: Drive,
        /// The medium's name: the desk opens it ([`MediaStore`]).
        name: Option<String>,
    },
    /// The answer to what the guest has asked of the folders of the host
    /// ([`Outside::share_asked`](crate::Outside::share_asked)). One that is not waited for any more is ignored.
    Share {
        /// The number of what was asked.
        number: u32,
        /// A message of 9P2000.L.
        reply: Vec<u8>,
    },
    /// The power button is pressed, which asks a guest with ACPI to shut down.
    PowerButton,
}

/// A button of the mouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Button {
    /// The left one.
    Left,
    /// The wheel, pressed.
    Middle,
    /// The right one.
    Right,
    /// The fourth, at the side.
    Back,
    /// The fifth, at the side.
    Forward,
}

/// What became of an [`Input`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was not taken has to be given again"]
pub enum Accepted {
    /// It was taken.
    All,
    /// Of its bytes, so many were taken; the rest can be given again once the guest has read some.
    Some(usize),
    /// The machine has no such device, and never will take it.
    NoDevice,
    /// It was not possible, and nothing has changed: the log says why.
    Refused,
}

impl Accepted {
    fn part(taken: usize, given: usize) -> Self {
        if taken == given { Self::All } else { Self::Some(taken) }
    }
}

/// What waits for the guest, what a mouse's events lack of its state, and the media that there are.
pub(crate) struct Inlet {
    media: Box<dyn MediaStore>,
    waker: Waker,
    serial: [VecDeque<u8>; SERIAL_PORTS],
    console: [VecDeque<u8>; console::PORTS],
    keys: VecDeque<Vec<u8>>,
    /// Buttons that are down, in the order of [`Button`].
    buttons: [bool; 5],
    /// Where the pointer was last, if it is told by positions.
    place: Option<(u16, u16)>,
}

impl Inlet {
    /// Nothing waits. `waker` is for the media that are put in.
    pub fn new(media: Box<dyn MediaStore>, waker: Waker) -> Self {
        Self {
            media,
            waker,
            serial: Default::default(),
            console: Default::default(),
            keys: VecDeque::new(),
            buttons: [false; 5],
            place: None,
        }
    }

    /// Puts another medium into a drive, or none.
    pub fn change_medium(
        &mut self,
        drive: Drive,
        name: Option<&str>,
        pc: &mut Pc,
    ) -> Result<(), MediumError> {
        let opened = name.map(|name| {
            let failed = |source| MediumError::Open { name: name.into(), source };
            self.media.open(drive, name).map_err(failed)
        });
        let medium = opened.transpose()?;
        medium.iter().for_each(|medium| medium.wake_by(&self.waker));
        match drive {
            Drive::Cdrom => return Ok(pc.board.change_disc(pc.cpu.mem_mut(), medium)?),
            Drive::Fda => pc.board.change_floppy(0, medium.map(Disk::of).transpose()?),
            Drive::Fdb => pc.board.change_floppy(1, medium.map(Disk::of).transpose()?),
        }
        Ok(())
    }

    /// Takes an input, or as much of it as there is room for.
    pub fn take(&mut self, input: &Input, pc: &mut Pc) -> Accepted {
        let board = &mut pc.board;
        match input {
            Input::Serial { port, bytes } => {
                let fitted = board.uarts.get(usize::from(*port)).is_some_and(Option::is_some);
                match self.serial.get_mut(usize::from(*port)) {
                    Some(queue) if fitted => return enqueue(queue, bytes, TYPE_AHEAD),
                    _ => return Accepted::NoDevice,
                }
            }
            Input::Console { port, bytes } => match self.console.get_mut(usize::from(*port)) {
                Some(queue) if board.console.is_some() => return enqueue(queue, bytes, CONSOLE_AHEAD),
                _ => return Accepted::NoDevice,
            },
            Input::ConsoleSize { columns, rows } => {
                if board.console.is_none() {
                    return Accepted::NoDevice;
                }
                board.set_console_size(pc.cpu.mem_mut(), *columns, *rows);
            }
            Input::Medium { drive, name } => match self.change_medium(*drive, name.as_deref(), pc) {
                // A locked drive has told the guest.
                Ok(()) | Err(MediumError::Disc(DiscError::Locked)) => {}
                Err(MediumError::Disc(DiscError::NoDrive)) => return Accepted::NoDevice,
                Err(MediumError::Busy) => return Accepted::Some(0),
                Err(MediumError::Open { name, source }) => {
                    warn!(target: "machine", name, error = %source, "A medium cannot be opened");
                    return Accepted::Refused;
                }
                Err(MediumError::Floppy(error)) => {
                    warn!(target: "machine", name, %error, "A medium is no floppy disk");
                    return Accepted::Refused;
                }
            },
            Input::ScanCodes(_) | Input::ReleaseKeys if !board.ps2.has_keyboard => {
                return Accepted::NoDevice;
            }
            Input::ScanCodes(stroke) => {
                if self.keys.len() == KEY_QUEUE {
                    return Accepted::Some(0);
                }
                self.keys.push_back(stroke.clone());
            }
            Input::ReleaseKeys => {
                self.keys.clear();
                board.with_ps2(|ps2, now| ps2.release_keys(now));
            }
            Input::Frame(frame) => match board.network_input(pc.cpu.mem_mut(), frame) {
                Some(true) => pc.connections.received(frame),
                Some(false) => return Accepted::Some(0),
                None => return Accepted::NoDevice,
            },
            Input::Share { number, reply } => match board.shares_answer(pc.cpu.mem_mut(), *number, reply) {
                true => {}
                false => return Accepted::NoDevice,
            },
            Input::Link { .. } if !board.has_network_card() => return Accepted::NoDevice,
            Input::Link { up } => board.connect_network(*up),
            Input::PowerButton if board.acpi.is_none() => return Accepted::NoDevice,
            Input::PowerButton => board.press_power_button(),
            _ if !board.ps2.has_mouse => return Accepted::NoDevice,
            // Counts of the mouse go up, those of a screen down.
            Input::PointerBy { dx, dy } => {
                self.place = None;
                self.pointer(pc, Some(Motion::By(*dx, dy.saturating_neg())), 0);
            }
            Input::PointerAt { x, y } => {
                self.place = Some((*x, *y));
                self.pointer(pc, Some(Motion::To(*x, *y)), 0);
            }
            Input::Wheel(steps) => self.pointer(pc, None, *steps),
            Input::Button { button, down } => {
                self.buttons[*button as usize] = *down;
                self.pointer(pc, None, 0);
            }
        }
        Accepted::All
    }

    /// Moves the PS/2 mouse, whose interrupt also tells a driver of the absolute pointer to look at that.
    fn pointer(&self, pc: &mut Pc, motion: Option<Motion>, wheel: i32) {
        let [left, middle, right, back, forward] = self.buttons;
        let backdoor = &mut pc.board.backdoor;
        let bits =
            [(left, vmware::BUTTON_LEFT), (middle, vmware::BUTTON_MIDDLE), (right, vmware::BUTTON_RIGHT)];
        let down = bits.iter().filter(|(down, _)| *down).fold(0, |all, (_, bit)| all | bit);
        // A driver that wants positions has another device for movements, whose events may be taken later
        // than those of the first: a button must not be pressed where the pointer is only then.
        let place = self.place.filter(|_| backdoor.absolute);
        let still = place.map_or(Motion::By(0, 0), |(x, y)| Motion::To(x, y));
        backdoor.pointer(motion.unwrap_or(still), wheel, down);
        let rings = backdoor.enabled;
        let (dx, dy) = match motion {
            Some(Motion::By(dx, dy)) => (dx, dy),
            // A driver that wants positions needs the interrupt alone; another must not see a jump.
            Some(Motion::To(..)) | None => (0, 0),
        };
        pc.board.with_ps2(|ps2, now| {
            ps2.mouse_buttons(left, middle, right, now);
            ps2.mouse_side_buttons(back, forward, now);
            ps2.mouse_move(dx, dy, wheel, now);
            if rings {
                ps2.mouse_ring(now);
            }
        });
    }

    /// Gives the devices what they have room for.
    pub fn feed(&mut self, pc: &mut Pc) {
        end_connections(pc);
        for (port, queue) in self.serial.iter_mut().enumerate().filter(|(_, queue)| !queue.is_empty()) {
            // As a terminal with hardware flow control, wait until the guest says that it listens: what
            // comes before that is lost when its driver clears the FIFO.
            if pc.board.uarts[port].as_ref().is_some_and(|uart| uart.listens()) {
                let taken = pc.board.serial_input(port, queue.make_contiguous());
                queue.drain(..taken);
            }
        }
        for (port, queue) in self.console.iter_mut().enumerate().filter(|(_, queue)| !queue.is_empty()) {
            let taken = pc.board.console_input(pc.cpu.mem_mut(), port, queue.make_contiguous());
            queue.drain(..taken);
        }
        while let Some(stroke) = self.keys.front() {
            if !pc.board.keyboard_input(stroke) {
                return;
            }
            self.keys.pop_front();
        }
    }

    /// Bytes and key strokes that wait for the guest.
    pub fn waiting(&self) -> usize {
        self.pressing() + self.console.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Those that wait for devices with little room, which the guest empties long before the end of a run.
    pub fn pressing(&self) -> usize {
        self.serial.iter().map(VecDeque::len).sum::<usize>() + self.keys.len()
    }
}

/// Ends the connections that the machine has lost, as soon as it has a network and as far as its card has room.
fn end_connections(pc: &mut Pc) {
    if !pc.board.connected.network {
        return;
    }
    while pc.connections.any_lost() {
        let Some(frame) = pc.connections.next_ending() else { continue };
        if pc.board.network_input(pc.cpu.mem_mut(), &frame) == Some(false) {
            return pc.connections.put_back(frame);
        }
    }
}

/// Puts bytes at the end of a queue, as many as it has room for.
fn enqueue(queue: &mut VecDeque<u8>, bytes: &[u8], most: usize) -> Accepted {
    let room = most.saturating_sub(queue.len()).min(bytes.len());
    queue.extend(&bytes[..room]);
    Accepted::part(room, bytes.len())
}
