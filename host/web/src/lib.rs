//! The machine as a WebAssembly module: `npm/machine.mjs` puts it into a page's worker or into Node.
//!
//! The exports are plain functions of numbers, without wasm-bindgen: there are some thirty, what passes is
//! numbers and bytes, and neither a tool of the right version nor generated JavaScript is needed to build them.
//! There is no state but what `env86_new` gives; every function takes it. Bytes that are given to a function
//! are put into the inbox before the call; bytes that it gives are in the outbox until the next call. A function
//! that fails leaves its error there as text.
//!
//! Files (kernel, disks, the contents of the image's files) stay in JavaScript, which fetches them when they are
//! asked for the first time: the answer is then that they are pending, and `env86_arrived` tells that they
//! are there. A module's memory never shrinks, so that what can be fetched again does not belong there.

#![cfg(target_family = "wasm")]
// The names of exports are what `no_mangle` is for; the functions here do nothing unsafe. In `host`, pointers
// to bytes go to JavaScript; `heap` is the allocator.
#![allow(unsafe_code)]

mod heap;
mod host;
mod start;

use std::panic;

use env86_core::{
    Accepted, Button, Computer, ComputerError, Drive, Ending, Firmware, ImageConfig, Input, Progress, Screen,
    keys,
};
use env86_devices::fs::{Errno, FsError};
use serde_json::{Value, json};

use host::{Output, ToPage, take};
use start::{StartError, Wanted, told};

/// The cursor no longer blinks when nothing has changed on the screen for this time, in ns, so that a page that is left
/// open costs next to nothing.
const STEADY_AFTER: u64 = 10_000_000_000;

/// A machine, its screen, and what passes between it and JavaScript.
#[derive(Default)]
pub struct Desk {
    wanted: Wanted,
    computer: Option<Computer>,
    /// What the machines of the same files start, once it has been read.
    firmware: Option<Firmware>,
    screen: Screen,
    /// The lines of the screen that changed last.
    changed: std::ops::Range<usize>,
    /// A reset waits for files.
    resetting: bool,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

/// What functions answer that can fail or wait.
mod answer {
    /// It is done.
    pub const DONE: i32 = 0;
    /// It waits for files: to be called again, with the same inbox, after [`super::env86_arrived`].
    pub const PENDING: i32 = 1;
    /// It failed, and the outbox says why.
    pub const FAILED: i32 = 2;
    /// There is no such file.
    pub const NO_FILE: i32 = 3;
}

/// What [`env86_run`] answers besides milliseconds.
mod progress {
    /// There is more to do.
    pub const MORE: f64 = 0.0;
    /// The machine has ended; the outbox says how.
    pub const ENDED: f64 = -1.0;
    /// It failed; the outbox says why.
    pub const FAILED: f64 = -2.0;
}

impl Desk {
    fn say(&mut self, text: impl Into<String>) {
        self.outbox = text.into().into_bytes();
    }

    fn fail(&mut self, text: impl Into<String>) -> i32 {
        self.say(text);
        answer::FAILED
    }

    fn started(&mut self, computer: Result<Computer, StartError>) -> i32 {
        match computer {
            Ok(computer) => {
                self.firmware = computer.firmware().share();
                let screen = Screen::with_steady_cursor(STEADY_AFTER);
                (self.computer, self.screen, self.resetting) = (Some(computer), screen, false);
                answer::DONE
            }
            Err(error) if error.is_pending() => answer::PENDING,
            Err(error) => self.fail(told(&error)),
        }
    }

    /// What another machine of the same files starts, if it is known.
    fn shared_firmware(&self) -> Option<Firmware> {
        self.firmware.as_ref().and_then(Firmware::share)
    }

    fn input(&mut self, input: &Input) -> Accepted {
        self.computer.as_mut().map_or(Accepted::NoDevice, |computer| computer.input(input))
    }

    /// What the inbox says, as text.
    fn text(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.inbox)).into_owned()
    }

    /// A reset that could not be finished for want of files.
    fn reset_again(&mut self) -> Option<ComputerError> {
        match self.computer.as_mut().map(Computer::reset)? {
            Ok(()) => {
                self.resetting = false;
                None
            }
            Err(error) => {
                self.resetting = start::is_pending(&error);
                Some(error).filter(|_| !self.resetting)
            }
        }
    }
}

/// A desk without a machine.
#[unsafe(no_mangle)]
pub extern "C" fn env86_new() -> Box<Desk> {
    panic::set_hook(Box::new(|info| take(Output::Panic, 0, info.to_string().as_bytes())));
    Box::default()
}

/// Makes room in the inbox and tells where.
#[unsafe(no_mangle)]
pub extern "C" fn env86_inbox(desk: &mut Desk, bytes: usize) -> *mut u8 {
    desk.inbox = vec![0; bytes];
    desk.inbox.as_mut_ptr()
}

/// Where the outbox is.
#[unsafe(no_mangle)]
pub extern "C" fn env86_outbox(desk: &Desk) -> *const u8 {
    desk.outbox.as_ptr()
}

/// How many bytes are in it.
#[unsafe(no_mangle)]
pub extern "C" fn env86_outbox_len(desk: &Desk) -> usize {
    desk.outbox.len()
}

/// Says what the machine is to be. The inbox holds JSON: `config` as in `image.json`, where a file that is
/// there has any URL; `lazy`, the drives that are fetched in pieces; `rom`, a BIOS is started whatever else there
/// is; `place`, where the image is, if there is one.
#[unsafe(no_mangle)]
pub extern "C" fn env86_configure(desk: &mut Desk) -> i32 {
    let wanted: Value = match serde_json::from_slice(&std::mem::take(&mut desk.inbox)) {
        Ok(value) => value,
        Err(error) => return desk.fail(error.to_string()),
    };
    let config: ImageConfig = match serde_json::from_value(wanted["config"].clone()) {
        Ok(config) => config,
        Err(error) => return desk.fail(format!("The machine's options cannot be used: {error}")),
    };
    let lazy = wanted["lazy"].as_array().into_iter().flatten();
    desk.wanted = Wanted {
        cable: desk.wanted.cable,
        config,
        lazy: lazy.filter_map(Value::as_str).map(str::to_owned).collect(),
        rom: wanted["rom"] == true,
        place: wanted["place"].as_str().unwrap_or_default().to_owned(),
    };
    desk.firmware = None;
    answer::DONE
}

/// Builds the machine that was wanted, in place of any other.
#[unsafe(no_mangle)]
pub extern "C" fn env86_power_on(desk: &mut Desk) -> i32 {
    // The old machine's memory can be the new one's.
    desk.computer = None;
    let computer = desk.wanted.power_on(desk.shared_firmware());
    desk.started(computer)
}

/// Builds the machine that the state in the inbox is of, plain or packed by Zstandard. If that fails, the machine
/// that was there goes on.
#[unsafe(no_mangle)]
pub extern "C" fn env86_resume(desk: &mut Desk) -> i32 {
    let state = std::mem::take(&mut desk.inbox);
    let computer = desk.wanted.resume(state, desk.shared_firmware());
    desk.started(computer)
}

/// Executes about `budget` instructions. Gives 0 if there is more to do, milliseconds for which the machine has
/// nothing to do (perhaps infinitely many), or a negative number: it has ended, or failed.
#[unsafe(no_mangle)]
pub extern "C" fn env86_run(desk: &mut Desk, budget: u32) -> f64 {
    if desk.resetting {
        return f64::INFINITY;
    }
    let Some(computer) = &mut desk.computer else { return f64::INFINITY };
    match computer.run(budget.into(), &mut ToPage) {
        Ok(Progress::More) => progress::MORE,
        Ok(Progress::Sleep { until: None, .. }) => f64::INFINITY,
        Ok(Progress::Sleep { until: Some(until), slack }) => {
            until.saturating_add(slack).saturating_sub(computer.time()) as f64 / 1e6
        }
        Ok(Progress::Ended(ending)) => {
            desk.say(match ending {
                Ending::PowerOff => "power-off".to_owned(),
                Ending::Halted => "halted".to_owned(),
                other => format!("{other:?}"),
            });
            progress::ENDED
        }
        Err(error) if start::is_pending(&error) => {
            desk.resetting = true;
            f64::INFINITY
        }
        Err(error) => {
            desk.say(told(&error));
            progress::FAILED
        }
    }
}

/// Files have come that were pending.
#[unsafe(no_mangle)]
pub extern "C" fn env86_arrived(desk: &mut Desk) -> i32 {
    if desk.resetting
        && let Some(error) = desk.reset_again()
    {
        return desk.fail(told(&error));
    }
    if let Some(computer) = &mut desk.computer {
        computer.data_arrived();
    }
    answer::DONE
}

/// Presses the reset button.
#[unsafe(no_mangle)]
pub extern "C" fn env86_reset(desk: &mut Desk) -> i32 {
    match desk.reset_again() {
        Some(error) => desk.fail(told(&error)),
        None => answer::DONE,
    }
}

/// Stops guest time, or lets it go on.
#[unsafe(no_mangle)]
pub extern "C" fn env86_pause(desk: &mut Desk, paused: bool) {
    if let Some(computer) = &mut desk.computer {
        _ = if paused { computer.pause() } else { computer.go_on() };
    }
}

/// Gives the inbox to a serial port (0 is COM1), and tells how many bytes it took; -1: there is no such port.
#[unsafe(no_mangle)]
pub extern "C" fn env86_serial(desk: &mut Desk, port: u8) -> i32 {
    let bytes = std::mem::take(&mut desk.inbox);
    let all = bytes.len();
    taken(desk.input(&Input::Serial { port, bytes }), all)
}

/// The same for a port of the virtio console.
#[unsafe(no_mangle)]
pub extern "C" fn env86_console(desk: &mut Desk, port: u8) -> i32 {
    let bytes = std::mem::take(&mut desk.inbox);
    let all = bytes.len();
    taken(desk.input(&Input::Console { port, bytes }), all)
}

fn taken(accepted: Accepted, all: usize) -> i32 {
    match accepted {
        Accepted::All => all as i32,
        Accepted::Some(some) => some as i32,
        Accepted::NoDevice | Accepted::Refused => -1,
    }
}

/// The virtio console's screen has this size in characters.
#[unsafe(no_mangle)]
pub extern "C" fn env86_console_size(desk: &mut Desk, columns: u16, rows: u16) {
    _ = desk.input(&Input::ConsoleSize { columns, rows });
}

/// Gives the network card the Ethernet frame in the inbox; tells whether it took it.
#[unsafe(no_mangle)]
pub extern "C" fn env86_frame(desk: &mut Desk) -> bool {
    let frame = std::mem::take(&mut desk.inbox);
    // A machine without a card takes it, too: it is lost, and not to be given again.
    !matches!(desk.input(&Input::Frame(frame)), Accepted::Some(_))
}

/// Puts a cable into the network card of this machine and of those that come after it, or pulls it.
#[unsafe(no_mangle)]
pub extern "C" fn env86_cable(desk: &mut Desk, up: bool) {
    desk.wanted.cable = up;
    if let Some(computer) = &mut desk.computer {
        computer.connect_network(up);
    }
}

/// Gives the keyboard the scan codes of a stroke (set 1) in the inbox; tells whether it took them.
#[unsafe(no_mangle)]
pub extern "C" fn env86_scancodes(desk: &mut Desk) -> bool {
    let codes = std::mem::take(&mut desk.inbox);
    // A machine without a keyboard takes them, too: nothing is to be given again.
    !matches!(desk.input(&Input::ScanCodes(codes)), Accepted::Some(_))
}

/// All keys go up.
#[unsafe(no_mangle)]
pub extern "C" fn env86_release_keys(desk: &mut Desk) {
    _ = desk.input(&Input::ReleaseKeys);
}

/// What a US keyboard sends when the text in the inbox is typed on it: JSON, a list of strokes, each a list of
/// scan codes. What it cannot type is left out.
#[unsafe(no_mangle)]
pub extern "C" fn env86_typed(desk: &mut Desk) {
    let text = desk.text();
    let inputs = text.chars().filter_map(|character| keys::typed(character).ok()).flatten();
    let strokes: Vec<Value> = inputs
        .filter_map(|input| match input {
            Input::ScanCodes(codes) => Some(json!(codes)),
            _ => None,
        })
        .collect();
    desk.say(Value::from(strokes).to_string());
}

/// The mouse moves by counts to the right and down.
#[unsafe(no_mangle)]
pub extern "C" fn env86_pointer_by(desk: &mut Desk, dx: i32, dy: i32) {
    _ = desk.input(&Input::PointerBy { dx, dy });
}

/// The pointer is there, from 0 to FFFFh over the whole screen.
#[unsafe(no_mangle)]
pub extern "C" fn env86_pointer_at(desk: &mut Desk, x: u16, y: u16) {
    _ = desk.input(&Input::PointerAt { x, y });
}

/// The wheel turns by steps towards the user.
#[unsafe(no_mangle)]
pub extern "C" fn env86_wheel(desk: &mut Desk, steps: i32) {
    _ = desk.input(&Input::Wheel(steps));
}

/// A button goes down or up, by its number in DOM's events.
#[unsafe(no_mangle)]
pub extern "C" fn env86_button(desk: &mut Desk, button: u32, down: bool) {
    const BUTTONS: [Button; 5] = [Button::Left, Button::Middle, Button::Right, Button::Back, Button::Forward];
    if let Some(&button) = BUTTONS.get(button as usize) {
        _ = desk.input(&Input::Button { button, down });
    }
}

/// The guest wants the pointer's place, not its movement.
#[unsafe(no_mangle)]
pub extern "C" fn env86_wants_positions(desk: &Desk) -> bool {
    desk.computer.as_ref().is_some_and(Computer::wants_positions)
}

/// The power button is pressed.
#[unsafe(no_mangle)]
pub extern "C" fn env86_power_button(desk: &mut Desk) {
    _ = desk.input(&Input::PowerButton);
}

/// Puts the file whose name is in the inbox into a drive: 0 CD-ROM, 1 and 2 floppy disks. Without a name, what is
/// in the drive is taken out.
#[unsafe(no_mangle)]
pub extern "C" fn env86_medium(desk: &mut Desk, drive: u32) -> i32 {
    let name = Some(desk.text()).filter(|name| !name.is_empty());
    let drive = match drive {
        0 => Drive::Cdrom,
        1 => Drive::Fda,
        _ => Drive::Fdb,
    };
    let changed = desk.computer.as_mut().map(|computer| computer.change_medium(drive, name.as_deref()));
    match changed {
        Some(Err(error)) => desk.fail(told(&error)),
        Some(Ok(())) => answer::DONE,
        None => desk.fail("There is no machine"),
    }
}

/// Brings the picture up to date and tells whether it has changed.
#[unsafe(no_mangle)]
pub extern "C" fn env86_show(desk: &mut Desk) -> bool {
    let changed = desk.computer.as_mut().and_then(|computer| computer.show(&mut desk.screen));
    let any = changed.is_some();
    desk.changed = changed.unwrap_or_default();
    any
}

/// The picture stays what it was at the last `env86_show` until the guest does something.
#[unsafe(no_mangle)]
pub extern "C" fn env86_is_still(desk: &Desk) -> bool {
    desk.screen.is_still()
}

/// A number of the picture: 0 its width, 1 its height, 2 the first line that has changed, 3 the one after the
/// last, 4 where its pixels are, each four bytes: red, green, blue, FFh.
#[unsafe(no_mangle)]
pub extern "C" fn env86_picture(desk: &Desk, what: u32) -> usize {
    let frame = desk.screen.frame();
    match what {
        0 => frame.width,
        1 => frame.height,
        2 => desk.changed.start,
        3 => desk.changed.end,
        _ => frame.pixels.as_ptr().addr(),
    }
}

/// Puts the text screen into the outbox, a line a row; tells whether the screen shows text.
#[unsafe(no_mangle)]
pub extern "C" fn env86_text(desk: &mut Desk) -> bool {
    let Some(text) = desk.computer.as_ref().and_then(Computer::text_screen) else { return false };
    let rows: Vec<String> = (0..text.rows).map(|row| text.line(row)).collect();
    desk.say(rows.join("\n"));
    true
}

/// Gives the machine's state to JavaScript, piece by piece.
#[unsafe(no_mangle)]
pub extern "C" fn env86_save(desk: &mut Desk) -> i32 {
    let Some(computer) = &mut desk.computer else { return desk.fail("There is no machine") };
    match computer.save(None) {
        Ok(saved) => {
            saved.pieces().for_each(|piece| take(Output::State, 0, piece));
            answer::DONE
        }
        Err(error) => {
            let text = told(&error);
            desk.fail(text)
        }
    }
}

/// Puts the content of the guest's file whose path is in the inbox into the outbox.
#[unsafe(no_mangle)]
pub extern "C" fn env86_read_file(desk: &mut Desk) -> i32 {
    let path = String::from_utf8_lossy(&desk.inbox).into_owned();
    let content = desk.computer.as_mut().map(|computer| computer.read_file(&path));
    match content {
        Some(Ok(content)) => {
            desk.outbox = content;
            answer::DONE
        }
        Some(Err(error)) => desk.file_failed(&error),
        None => desk.fail("There is no machine"),
    }
}

/// Gives the guest's file whose path is in the first `path` bytes of the inbox the rest as its content.
#[unsafe(no_mangle)]
pub extern "C" fn env86_write_file(desk: &mut Desk, path: usize) -> i32 {
    let (path, content) = desk.inbox.split_at(path.min(desk.inbox.len()));
    let path = String::from_utf8_lossy(path);
    match desk.computer.as_mut().map(|computer| computer.write_file(&path, content)) {
        Some(Ok(())) => answer::DONE,
        Some(Err(error)) => desk.file_failed(&error),
        None => desk.fail("There is no machine"),
    }
}

impl Desk {
    fn file_failed(&mut self, error: &FsError) -> i32 {
        match error {
            FsError::Pending => answer::PENDING,
            FsError::Errno(Errno::ENOENT | Errno::ENOTDIR) => answer::NO_FILE,
            FsError::Errno(_) => self.fail(told(error)),
        }
    }
}

/// Puts guest memory into the outbox; what is not there reads as a board without memory does.
#[unsafe(no_mangle)]
pub extern "C" fn env86_read_memory(desk: &mut Desk, address: u32, bytes: usize) {
    let mut content = vec![0; bytes];
    if let Some(computer) = &desk.computer {
        computer.memory().read(address, &mut content);
    }
    desk.outbox = content;
}

/// Instructions executed so far.
#[unsafe(no_mangle)]
pub extern "C" fn env86_instructions(desk: &Desk) -> f64 {
    desk.computer.as_ref().map_or(0.0, |computer| computer.stats().instructions as f64)
}
