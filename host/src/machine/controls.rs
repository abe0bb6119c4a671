//! A machine's screen, keyboard and mouse, as a person or a program at it has them.

use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use env86_core::keys::{self, Layout, UnknownKey, Untypable};
use env86_core::{Accepted, Button, Computer, Drive, Frame, Input, MediumError, Screen, TextScreen};
use env86_devices::virtio::console::SERVICE_PORT;
use thiserror::Error;

use super::ports::{Com, Desk, Line, SerialPort};
use super::state::StateSource;
use super::thread::Command;
use super::{MachineError, save};
use crate::guest::Guest;
use crate::image::Image;

/// Time between looks at a screen on which something is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// Time until a key is tried again that the guest had no room for.
const TYPE_AGAIN: Duration = Duration::from_millis(5);
/// A guest that takes no key for so long does not listen to its keyboard.
const TYPE_PATIENCE: Duration = Duration::from_secs(30);

/// Why a screen could not be looked at, or a key not be typed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The machine has ended.
    #[error("The machine has ended")]
    Gone,
    /// A picture cannot be written as PNG.
    #[error("Cannot make a PNG of the screen")]
    Png(#[from] png::EncodingError),
    /// The text did not come.
    #[error("The screen has not shown {text:?} within {limit:?}")]
    NotShown {
        /// What was waited for.
        text: String,
        /// The time.
        limit: Duration,
        /// What the screen shows.
        shown: String,
    },
    /// There is no such key.
    #[error(transparent)]
    Key(#[from] UnknownKey),
    /// There is no such character.
    #[error(transparent)]
    Character(#[from] Untypable),
    /// The machine has no keyboard, or no mouse.
    #[error("The machine has no such device")]
    NoDevice,
    /// The guest does not read its keyboard.
    #[error("The guest takes no keys")]
    Deaf,
    /// The guest's driver wants movements.
    #[error("The guest's mouse takes movements, and no positions")]
    NoPositions,
}

/// What a look at a machine's screen finds.
#[derive(Debug)]
pub struct View {
    /// The picture, up to date.
    pub screen: Screen,
    /// The lines that differ from the look before.
    pub changed: Option<Range<usize>>,
    /// It is the picture of one of the VGA's own modes, made for a monitor of 4 to 3, and not of a VBE mode.
    pub own_mode: bool,
    /// The guest wants to know where the pointer is, not how far it has moved.
    pub wants_positions: bool,
    /// The keyboard's lights, a bit each: Scroll Lock, Num Lock, Caps Lock.
    pub lights: u8,
    /// The machine stands still, until it is told to go on.
    pub paused: bool,
    /// Instructions since power-on.
    pub instructions: u64,
}

/// Screen, keyboard and mouse of a [`Machine`](super::Machine), for any thread. It does not keep the
/// machine alive.
#[derive(Clone, Debug)]
pub struct Controls {
    desk: Arc<Desk>,
    commands: Sender<Command>,
    /// The saved state that the machine was resumed from.
    source: Option<StateSource>,
    /// The service in the guest, once it has been found.
    guest: Arc<Mutex<Option<Guest>>>,
}

impl Controls {
    pub(super) fn new(desk: &Arc<Desk>, commands: &Sender<Command>, source: Option<StateSource>) -> Self {
        Self { desk: desk.clone(), commands: commands.clone(), source, guest: Arc::default() }
    }

    /// Where the service in the guest is kept.
    pub(crate) fn guest_place(&self) -> MutexGuard<'_, Option<Guest>> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Machine::serial`](super::Machine::serial).
    pub fn serial(&self, com: Com) -> SerialPort {
        self.with_soon(move |computer| computer.connect_serial(com as u8));
        SerialPort::new(&self.desk, Line::Serial(com as u8))
    }

    /// The port of the virtio console that is the service's in the guest.
    pub(crate) fn service_port(&self) -> SerialPort {
        SerialPort::new(&self.desk, Line::Console(SERVICE_PORT as u8))
    }

    /// The desk, for who serves folders there.
    #[cfg(unix)]
    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// A machine that has ended takes no commands, which is no error.
    pub(super) fn command(&self, command: Command) {
        let _ = self.commands.send(command);
        self.desk.wake();
    }

    /// Stops executing; guest time stands still.
    pub fn pause(&self) {
        self.command(Command::Pause);
    }

    /// Goes on executing.
    pub fn resume(&self) {
        self.command(Command::Resume);
    }

    /// Ends the machine as pulling the plug does, without waiting for that.
    pub fn end(&self) {
        self.command(Command::Stop);
    }

    /// Gives the machine keys, a pointer's motion and such. What it has no device or no room for is lost.
    pub fn input(&self, input: Input) {
        self.command(Command::Input(input));
    }

    /// Lets a function have the machine between two runs, in the machine's thread, and waits for it.
    pub fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Computer) -> T + Send + 'static,
    ) -> Result<T, MachineError> {
        let (done, result) = mpsc::channel();
        // One who does not wait for the answer any more does not miss it.
        self.with_soon(move |computer| _ = done.send(act(computer)));
        result.recv().map_err(|_| MachineError::Gone)
    }

    pub(crate) fn with_soon(&self, act: impl FnOnce(&mut Computer) + Send + 'static) {
        self.command(Command::With(Box::new(act)));
    }

    /// Saves the machine to a file; see [`Machine::save`](super::Machine::save).
    pub fn save(&self, path: &Path) -> Result<u64, MachineError> {
        let (path, source) = (path.to_owned(), self.source.clone());
        self.with(move |computer| save(computer, &path, source.as_ref()))?
    }

    /// Saves the machine to its image; see [`Machine::save_to`](super::Machine::save_to).
    pub fn save_to(&self, image: &Image) -> Result<u64, MachineError> {
        let size = self.save(&image.state_to_write())?;
        image.keep_state()?;
        Ok(size)
    }

    /// Puts the disc in this file into a drive, or takes out what is there. A disc that the guest has locked
    /// stays, and the guest is told that someone wants it.
    pub fn change_medium(&self, drive: Drive, path: Option<&Path>) -> Result<(), MachineError> {
        let no_text = |path: &Path| MediumError::Open {
            name: path.display().to_string(),
            source: "its name is not UTF-8".into(),
        };
        let name = path.map(|path| path.to_str().map(str::to_owned).ok_or_else(|| no_text(path)));
        let name = name.transpose()?;
        Ok(self.with(move |computer| computer.change_medium(drive, name.as_deref()))??)
    }

    pub(crate) fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Computer) -> T + Send + 'static,
    ) -> Result<T, ControlError> {
        self.with(act).map_err(|_| ControlError::Gone)
    }

    /// Brings a picture up to date and gives it to `done`, in the machine's thread; `done` must not wait
    /// for anything. Nothing happens if the machine has ended.
    pub fn look(&self, mut screen: Screen, done: impl FnOnce(View) + Send + 'static) {
        self.with_soon(move |computer| {
            let changed = computer.show(&mut screen);
            done(View {
                screen,
                changed,
                own_mode: computer.shows_own_mode(),
                wants_positions: computer.wants_positions(),
                lights: computer.keyboard_lights(),
                paused: computer.is_paused(),
                instructions: computer.stats().instructions,
            });
        });
    }

    /// The picture on the screen; of a machine that has ended, the last one.
    pub fn picture(&self) -> Result<Frame, ControlError> {
        let picture = self.ask(|computer| {
            let mut screen = Screen::default();
            computer.show(&mut screen);
            screen.frame().clone()
        });
        picture.or_else(|error| self.desk.last_picture().ok_or(error))
    }

    /// The picture on the screen as a PNG file's bytes.
    pub fn screenshot(&self) -> Result<Vec<u8>, ControlError> {
        Ok(png(&self.picture()?)?)
    }

    /// What the screen shows in text mode; `None` while it shows graphics.
    pub fn text(&self) -> Result<Option<TextScreen>, ControlError> {
        self.ask(|computer| computer.text_screen())
    }

    /// Waits until the screen shows a text, in text mode. A line's blanks at its end do not count.
    pub fn wait_screen(&self, text: &str, limit: Duration) -> Result<TextScreen, ControlError> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            let screen = self.text()?;
            let shown = screen.as_ref().map(TextScreen::to_string);
            match (screen, shown) {
                (Some(screen), Some(shown)) if shown.contains(text) => return Ok(screen),
                (_, shown) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    let shown = shown.unwrap_or_else(|| "(graphics)".into());
                    return Err(ControlError::NotShown { text: text.into(), limit, shown });
                }
                _ => thread::sleep(LOOK),
            }
        }
    }

    /// Presses a key, or several at once: `f1`, `ctrl-alt-delete` ([`keys::chord`]).
    pub fn keys(&self, chord: &str) -> Result<(), ControlError> {
        self.strokes(keys::press(&keys::chord(chord)?))
    }

    /// Types a text as on a US keyboard, at the pace at which the guest reads it. Nothing is typed of a
    /// text that such a keyboard has not all characters of.
    pub fn type_text(&self, text: &str) -> Result<(), ControlError> {
        let strokes = text.chars().map(keys::typed).collect::<Result<Vec<_>, _>>()?;
        self.strokes(strokes.into_iter().flatten())
    }

    /// Types a text on a keyboard of this layout, at the pace at which the guest reads it, for as long as `wanted`
    /// says so. What such a keyboard has not is left out; every end of a line is Enter.
    pub fn paste(&self, text: &str, layout: Layout, wanted: impl Fn() -> bool) -> Result<(), ControlError> {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let strokes = text.chars().filter_map(|character| layout.typed(character).ok());
        self.strokes(strokes.take_while(|_| wanted()).flatten())
    }

    fn strokes(&self, strokes: impl IntoIterator<Item = Input>) -> Result<(), ControlError> {
        for stroke in strokes {
            let start = Instant::now();
            while self.give(stroke.clone())? == Accepted::Some(0) {
                if start.elapsed() > TYPE_PATIENCE {
                    return Err(ControlError::Deaf);
                }
                thread::sleep(TYPE_AGAIN);
            }
        }
        Ok(())
    }

    fn give(&self, input: Input) -> Result<Accepted, ControlError> {
        match self.ask(move |computer| computer.input(&input))? {
            Accepted::NoDevice => Err(ControlError::NoDevice),
            accepted => Ok(accepted),
        }
    }

    /// Moves the pointer to a pixel of the picture, in a guest that wants positions.
    pub fn point_at(&self, x: u32, y: u32) -> Result<(), ControlError> {
        let accepted = self.ask(move |computer| {
            if !computer.wants_positions() {
                return Err(ControlError::NoPositions);
            }
            let mut screen = Screen::default();
            computer.show(&mut screen);
            let (width, height) = (screen.frame().width, screen.frame().height);
            Ok(computer.input(&Input::PointerAt { x: share(x, width), y: share(y, height) }))
        })??;
        if accepted == Accepted::NoDevice { Err(ControlError::NoDevice) } else { Ok(()) }
    }

    /// Moves the mouse by counts to the right and down.
    pub fn move_mouse(&self, dx: i32, dy: i32) -> Result<(), ControlError> {
        self.give(Input::PointerBy { dx, dy }).map(drop)
    }

    /// Turns the wheel by steps towards the user.
    pub fn turn_wheel(&self, steps: i32) -> Result<(), ControlError> {
        self.give(Input::Wheel(steps)).map(drop)
    }

    /// Puts the cable into the machine's network card, or pulls it ([`Input::Link`]).
    pub fn link(&self, up: bool) -> Result<(), ControlError> {
        self.give(Input::Link { up }).map(drop)
    }

    /// Presses or releases a button of the mouse.
    pub fn button(&self, button: Button, down: bool) -> Result<(), ControlError> {
        self.give(Input::Button { button, down }).map(drop)
    }
}

/// A place as a part of FFFFh of the picture: the middle of the pixel.
pub(crate) fn share(at: u32, of: usize) -> u16 {
    let of = of.max(1) as u64;
    ((2 * u64::from(at) + 1) * 0xffff / (2 * of)).min(0xffff) as u16
}

/// A picture as a PNG file's bytes, in 8 bits for each of red, green and blue.
pub fn png(frame: &Frame) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, frame.width as u32, frame.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    let data: Vec<u8> = frame.pixels.iter().flat_map(|[red, green, blue, _]| [*red, *green, *blue]).collect();
    writer.write_image_data(&data)?;
    writer.finish()?;
    Ok(bytes)
}
