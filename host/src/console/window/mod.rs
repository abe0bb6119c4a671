//! A window in which a person works with the machine.
//!
//! The window has the program's first thread, the machine another. They pass each other values: keys and
//! motion one way, looks at the screen ([`Controls::look`]) the other. The window asks for a look when it
//! has shown the one before, so that a window that is held up holds up no guest; a screen that did not
//! change costs a comparison.

mod clipboard;
mod keyboard;
mod overlay;
mod surface;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use env86_core::keys::{self, Key, Layout};
use env86_core::{Button, Frame, Input, Screen};
use thiserror::Error;
use tracing::debug;
use winit::application::ApplicationHandler;
use winit::dpi::{PhysicalPosition, PhysicalSize};
use winit::error::EventLoopError;
use winit::event::{
    DeviceEvent, DeviceId, ElementState, KeyEvent, MouseButton, MouseScrollDelta, WindowEvent,
};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop, EventLoopProxy};
use winit::keyboard::{KeyCode, PhysicalKey};
use winit::window::{CursorGrabMode, Fullscreen, Window as Desktop, WindowId};

use super::scale::{Shape, Viewport};
use crate::machine::{Controls, View};
use clipboard::Paste;
use surface::Surface;

/// Time between looks while something happens.
const LIVELY: Duration = Duration::from_millis(16);
/// Time between looks at a screen that has not changed since a key or the mouse: the guest is about to answer.
const SOON: Duration = Duration::from_millis(4);
/// How long such an answer is waited for with a look each [`SOON`].
const ANSWER: Duration = Duration::from_millis(50);
/// Time between looks at a screen that has not changed for [`QUIET_AFTER`].
const QUIET: Duration = Duration::from_millis(40);
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// Time between two figures of the speed.
const SPEED_TIME: Duration = Duration::from_secs(1);
/// A guest that executes less than so many millions of instructions a second has nothing to do.
const IDLE_MIPS: u64 = 5;
/// The picture's size until the machine says another.
const FIRST_SIZE: (usize, usize) = (720, 400);
/// Points of a touchpad's motion that make a step of a wheel.
const POINTS_PER_STEP: f64 = 40.0;

/// Why there is no window.
#[derive(Debug, Error)]
pub enum WindowError {
    /// There is no display to open it on.
    #[error("There is no display for a window ({0})")]
    NoDisplay(String),
    /// The display does not let it be opened.
    #[error("Cannot open a window ({0})")]
    Open(String),
    /// Nothing can be drawn in it.
    #[error("Cannot draw in the window ({0})")]
    Draw(String),
    /// The event loop failed.
    #[error("The window has failed ({0})")]
    Failed(String),
}

/// What a window is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the title begins with: the image's name.
    pub name: String,
    /// Points of the window for each dot of the picture.
    pub scale: u32,
    /// It fills the screen.
    pub fullscreen: bool,
    /// The dots of the VGA's own modes are squares, and their pictures not of a monitor's shape.
    pub square: bool,
    /// The guest gets the keyboard, ...
    pub keyboard: bool,
    /// ... and the mouse.
    pub mouse: bool,
    /// What the guest takes its keyboard for, for what is pasted.
    pub layout: Layout,
}

/// A window that is going to open.
pub struct Window {
    events: EventLoop<Told>,
    options: Options,
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What other threads tell the window.
enum Told {
    Seen(Box<View>),
    Close,
}

/// Closes a window from another thread.
pub(super) struct Closer(EventLoopProxy<Told>);

impl Closer {
    pub fn close(&self) {
        // A window that is closed already is what was wanted.
        let _ = self.0.send_event(Told::Close);
    }
}

impl Window {
    /// Connects to the display. To be called in the program's first thread, once.
    pub fn open(options: Options) -> Result<Self, WindowError> {
        let events =
            EventLoop::with_user_event().build().map_err(|error| WindowError::NoDisplay(reason(&error)))?;
        Ok(Self { events, options })
    }

    pub(super) fn closer(&self) -> Closer {
        Closer(self.events.create_proxy())
    }

    /// Shows a machine until the window is closed, by the person or by a [`Closer`].
    pub(super) fn run(self, controls: Controls) -> Result<(), WindowError> {
        let now = Instant::now();
        let mut desk = Desk {
            proxy: self.events.create_proxy(),
            options: self.options,
            controls,
            shown: None,
            failure: None,
            screen: Some(Screen::default()),
            frame: Frame { width: FIRST_SIZE.0, height: FIRST_SIZE.1, pixels: Vec::new() },
            stale: 0..FIRST_SIZE.1,
            next_look: now,
            last_change: now,
            last_input: now,
            state: State { own_mode: true, ..State::default() },
            keys: Vec::new(),
            modifiers: Modifiers::default(),
            buttons: Vec::new(),
            captured: false,
            motion: (0.0, 0.0),
            place: None,
            wheel: 0.0,
            overlay: false,
            paste: None,
        };
        desk.frame.pixels.resize(FIRST_SIZE.0 * FIRST_SIZE.1, [0, 0, 0, 0xff]);
        self.events.run_app(&mut desk).map_err(|error| WindowError::Failed(error.to_string()))?;
        desk.failure.map_or(Ok(()), Err)
    }
}

/// What winit says of an error, without the place in its own source.
fn reason(error: &EventLoopError) -> String {
    let text = error.to_string();
    let place = text.strip_prefix("os error at ").and_then(|rest| rest.split_once(": "));
    place.map_or(&*text, |(_, why)| why).trim_end_matches('.').to_owned()
}

/// What the desktop shows.
struct Shown {
    window: Arc<Desktop>,
    surface: Surface,
    size: PhysicalSize<u32>,
    /// The size that was asked for last. A person who chose another keeps it when the picture's changes.
    asked: PhysicalSize<u32>,
    title: String,
    hidden_cursor: bool,
}

/// The lights of a keyboard, by their bits.
const LIGHTS: [&str; 3] = ["Scroll Lock", "Num Lock", "Caps Lock"];
/// The light of Caps Lock.
const CAPS_LOCK: u8 = 4;

/// What title and overlay tell of the machine.
#[derive(Default)]
struct State {
    wants_positions: bool,
    /// The picture is of one of the VGA's own modes.
    own_mode: bool,
    paused: bool,
    /// The keyboard's lights, as [`LIGHTS`] names them.
    lights: u8,
    /// The time and the number of instructions when the speed was measured last.
    counted: Option<(Instant, u64)>,
    /// Millions of instructions a second.
    mips: u64,
}

/// The host's keys that choose what the window does.
#[derive(Default)]
struct Modifiers {
    ctrl: [bool; 2],
    alt: [bool; 2],
}

impl Modifiers {
    fn note(&mut self, code: KeyCode, down: bool) {
        match code {
            KeyCode::ControlLeft => self.ctrl[0] = down,
            KeyCode::ControlRight => self.ctrl[1] = down,
            KeyCode::AltLeft => self.alt[0] = down,
            KeyCode::AltRight => self.alt[1] = down,
            _ => {}
        }
    }

    fn ctrl(&self) -> bool {
        self.ctrl.contains(&true)
    }

    fn alt(&self) -> bool {
        self.alt.contains(&true)
    }
}

/// The person's side of the window.
struct Desk {
    proxy: EventLoopProxy<Told>,
    options: Options,
    controls: Controls,
    shown: Option<Shown>,
    failure: Option<WindowError>,
    /// What looks at the machine's screen, unless it is doing that.
    screen: Option<Screen>,
    frame: Frame,
    /// Lines of it that the window does not show yet.
    stale: Range<usize>,
    next_look: Instant,
    last_change: Instant,
    last_input: Instant,
    state: State,
    /// Keys that are down in the guest, by the host's keys that hold them.
    keys: Vec<(KeyCode, Key)>,
    modifiers: Modifiers,
    /// Buttons that are down in the guest.
    buttons: Vec<Button>,
    /// The mouse is the guest's alone.
    captured: bool,
    /// Motion that the guest has not been told of.
    motion: (f64, f64),
    /// Where the pointer is, if the guest has not been told.
    place: Option<(u16, u16)>,
    wheel: f64,
    overlay: bool,
    /// What is being pasted, or was last.
    paste: Option<Paste>,
}

impl Desk {
    /// The window's size for a picture of this size.
    fn size_for(&self, event_loop: &ActiveEventLoop, factor: f64) -> PhysicalSize<u32> {
        let (width, height) = self.shape().least((self.frame.width.max(1), self.frame.height.max(1)));
        let (width, height) = (width as u32, height as u32);
        let scale = self.options.scale.max(1).saturating_mul(factor.round().max(1.0) as u32);
        let screen = event_loop.available_monitors().next().map(|monitor| monitor.size());
        // As large as was asked for, or as the monitor has room for.
        let room = screen.map_or(scale, |size| (size.width / width).min(size.height / height)).max(1);
        let scale = scale.min(room);
        PhysicalSize::new(width.saturating_mul(scale), height.saturating_mul(scale))
    }

    /// The picture's proportions.
    fn shape(&self) -> Shape {
        if self.state.own_mode && !self.options.square { Shape::Monitor } else { Shape::Square }
    }

    fn open(&mut self, event_loop: &ActiveEventLoop) -> Result<Shown, WindowError> {
        let factor = event_loop.primary_monitor().map_or(1.0, |monitor| monitor.scale_factor());
        let asked = self.size_for(event_loop, factor);
        let title = self.title();
        let attributes = Desktop::default_attributes()
            .with_title(&title)
            .with_inner_size(asked)
            .with_fullscreen(self.options.fullscreen.then_some(Fullscreen::Borderless(None)));
        let window =
            event_loop.create_window(attributes).map_err(|error| WindowError::Open(error.to_string()))?;
        let window = Arc::new(window);
        let surface = Surface::new(&window, (self.frame.width, self.frame.height))
            .map_err(|error| WindowError::Draw(error.to_string()))?;
        let size = window.inner_size();
        Ok(Shown { window, surface, size, asked, title, hidden_cursor: false })
    }

    fn fail(&mut self, event_loop: &ActiveEventLoop, error: WindowError) {
        self.failure.get_or_insert(error);
        event_loop.exit();
    }

    /// Takes what a look has found.
    fn seen(&mut self, event_loop: &ActiveEventLoop, view: View) {
        let now = Instant::now();
        let frame = view.screen.frame();
        let shape = self.shape();
        self.state.own_mode = view.own_mode;
        let reshaped = self.shape() != shape;
        let resized = (frame.width, frame.height) != (self.frame.width, self.frame.height);
        if resized {
            self.frame.clone_from(frame);
            self.stale = 0..frame.height;
        } else if let Some(lines) = &view.changed {
            let part = lines.start * frame.width..lines.end * frame.width;
            self.frame.pixels[part.clone()].copy_from_slice(&frame.pixels[part]);
            self.stale = match self.stale.is_empty() {
                true => lines.clone(),
                false => self.stale.start.min(lines.start)..self.stale.end.max(lines.end),
            };
        }
        let changed = view.changed.is_some();
        self.screen = Some(view.screen);
        let stood = (self.state.wants_positions, self.state.paused, self.state.lights);
        let stands = (view.wants_positions, view.paused, view.lights);
        (self.state.wants_positions, self.state.paused, self.state.lights) = stands;
        let (since, before) = *self.state.counted.get_or_insert((now, view.instructions));
        let counted = now - since >= SPEED_TIME;
        if counted {
            let ran = view.instructions.saturating_sub(before) as f64;
            self.state.mips = (ran / (now - since).as_secs_f64() / 1e6).round() as u64;
            self.state.counted = Some((now, view.instructions));
        }
        if counted || stood != stands {
            self.tell_state();
        }
        if changed {
            self.last_change = now;
        }
        let answers = self.last_input > self.last_change && now - self.last_input < ANSWER;
        let quiet = now - self.last_change.max(self.last_input) >= QUIET_AFTER;
        self.next_look = now
            + match (answers, quiet) {
                (true, _) => SOON,
                (_, false) => LIVELY,
                (_, true) => QUIET,
            };
        if resized || reshaped {
            self.follow_size(event_loop);
        }
        if let Some(shown) = self.shown.as_ref().filter(|_| changed || reshaped || counted && self.overlay) {
            shown.window.request_redraw();
        }
    }

    /// Gives the window the size of a new picture, unless a person has chosen one.
    fn follow_size(&mut self, event_loop: &ActiveEventLoop) {
        let Some(factor) = self.shown.as_ref().map(|shown| shown.window.scale_factor()) else { return };
        let size = self.size_for(event_loop, factor);
        let Some(shown) = &mut self.shown else { return };
        if shown.window.fullscreen().is_none() && shown.size == shown.asked {
            shown.asked = size;
            let _ = shown.window.request_inner_size(size);
        }
    }

    fn title(&self) -> String {
        let Self { state, options, .. } = self;
        let speed = match state.mips {
            _ if state.paused => "paused".into(),
            ..IDLE_MIPS => "idle".into(),
            mips => format!("{mips} MIPS"),
        };
        let mouse = if self.captured { " - Ctrl-Alt frees the mouse" } else { "" };
        // Of the lights, the one that makes what is typed another.
        let capitals = if state.lights & CAPS_LOCK != 0 { " - Caps Lock" } else { "" };
        format!("{} - env86 - {speed}{capitals}{mouse}", options.name)
    }

    /// Brings title and cursor up to date.
    fn tell_state(&mut self) {
        if self.captured && self.state.wants_positions {
            self.release_mouse();
        }
        let title = self.title();
        let hidden_cursor = self.captured || self.state.wants_positions && self.options.mouse;
        let Some(shown) = &mut self.shown else { return };
        if shown.title != title {
            shown.window.set_title(&title);
            shown.title = title;
        }
        if shown.hidden_cursor != hidden_cursor {
            shown.window.set_cursor_visible(!hidden_cursor);
            shown.hidden_cursor = hidden_cursor;
        }
    }

    fn overlay_lines(&self) -> Vec<String> {
        let mouse = match (self.options.mouse, self.state.wants_positions) {
            (false, _) => "The mouse is not the machine's",
            (true, true) => "The mouse is the machine's while it is in the window",
            (true, false) => "Click        gives the mouse to the machine",
        };
        let lit = LIGHTS.into_iter().enumerate().filter(|(bit, _)| self.state.lights & 1 << bit != 0);
        let lit: Vec<_> = lit.map(|(_, name)| name).collect();
        let lights = format!("Lit: {}", lit.join(", "));
        let keyboard = match (self.options.keyboard, lit.is_empty()) {
            (false, _) => "The keyboard is not the machine's",
            (true, true) => "",
            (true, false) => &*lights,
        };
        let paste =
            if self.options.keyboard { "Ctrl-Alt-V   types the clipboard's text; stops that" } else { "" };
        let mut lines = vec![self.title(), String::new()];
        let shape = match (self.state.own_mode, self.options.square) {
            (false, _) => "",
            (true, true) => "Ctrl-Alt-A   a picture of 4 to 3, as on a monitor",
            (true, false) => "Ctrl-Alt-A   square dots",
        };
        let keys = ["Ctrl-Alt-F   full screen, and back", shape, "Ctrl-Alt-H   this help", paste, mouse];
        let keys = keys.into_iter().chain(["Ctrl-Alt     gives it back", keyboard]);
        lines.extend(keys.filter(|line| !line.is_empty()).map(str::to_owned));
        lines
    }

    fn draw(&mut self, event_loop: &ActiveEventLoop) {
        let shape = self.shape();
        let lines = self.overlay.then(|| self.overlay_lines());
        let Some(shown) = &mut self.shown else { return };
        let stale = std::mem::take(&mut self.stale);
        let drawn = match lines {
            Some(lines) => {
                let mut frame = self.frame.clone();
                overlay::draw(&mut frame, &lines);
                shown.surface.show(&shown.window, shown.size, &frame, shape, 0..frame.height)
            }
            None => shown.surface.show(&shown.window, shown.size, &self.frame, shape, stale),
        };
        if let Err(error) = drawn {
            self.fail(event_loop, WindowError::Draw(error.to_string()));
        }
    }

    /// Something was done that the screen may answer, most often before its next picture would be due.
    fn hurry(&mut self) {
        self.last_input = Instant::now();
        let soon = (self.last_input + SOON).max(self.last_change + LIVELY);
        self.next_look = self.next_look.min(soon);
    }

    fn key(&mut self, event_loop: &ActiveEventLoop, event: &KeyEvent, is_synthetic: bool) {
        let PhysicalKey::Code(code) = event.physical_key else { return };
        let down = event.state == ElementState::Pressed;
        // What is held when the window gets the keyboard is not pressed in it, and the machine's keyboard
        // repeats by itself.
        if down && is_synthetic || event.repeat {
            return;
        }
        self.modifiers.note(code, down);
        let (ctrl, alt) = (self.modifiers.ctrl(), self.modifiers.alt());
        if down && ctrl && alt {
            match code {
                KeyCode::KeyF => return self.toggle_fullscreen(),
                KeyCode::KeyA => return self.toggle_shape(event_loop),
                KeyCode::KeyH => return self.toggle_overlay(),
                KeyCode::KeyV if self.options.keyboard => return self.toggle_paste(),
                _ if self.captured => self.release_mouse(),
                _ => {}
            }
        }
        if !self.options.keyboard {
            return;
        }
        self.hurry();
        if down {
            let Some(key) = keyboard::key(code) else {
                debug!(target: "window", ?code, "A PC has no such key");
                return;
            };
            let key = keyboard::with_modifiers(key, ctrl, alt);
            self.keys.push((code, key));
            self.controls.input(keys::stroke(key, true));
        } else if let Some(held) = self.keys.iter().position(|(held, _)| *held == code) {
            let (_, key) = self.keys.remove(held);
            self.controls.input(keys::stroke(key, false));
        }
    }

    fn toggle_fullscreen(&mut self) {
        let Some(shown) = &self.shown else { return };
        let fullscreen = shown.window.fullscreen().is_none().then_some(Fullscreen::Borderless(None));
        shown.window.set_fullscreen(fullscreen);
    }

    /// The VGA's own modes with square dots, or in a monitor's shape.
    fn toggle_shape(&mut self, event_loop: &ActiveEventLoop) {
        self.options.square = !self.options.square;
        self.follow_size(event_loop);
        if let Some(shown) = &self.shown {
            shown.window.request_redraw();
        }
    }

    fn toggle_overlay(&mut self) {
        self.overlay = !self.overlay;
        self.stale = 0..self.frame.height;
        if let Some(shown) = &self.shown {
            shown.window.request_redraw();
        }
    }

    /// Types the text of the clipboard; stops that.
    fn toggle_paste(&mut self) {
        if self.paste.take().is_some_and(Paste::stop) {
            return;
        }
        // Ctrl and Alt are no part of what is typed.
        self.keys.clear();
        self.controls.input(Input::ReleaseKeys);
        self.hurry();
        self.paste = Paste::start(self.controls.clone(), self.options.layout);
    }

    fn capture_mouse(&mut self) {
        let Some(shown) = &self.shown else { return };
        // Not every desktop can lock a pointer to its place.
        let grabbed = shown
            .window
            .set_cursor_grab(CursorGrabMode::Locked)
            .or_else(|_| shown.window.set_cursor_grab(CursorGrabMode::Confined));
        match grabbed {
            Ok(()) => self.captured = true,
            Err(error) => debug!(target: "window", %error, "The mouse cannot be captured"),
        }
        self.tell_state();
    }

    fn release_mouse(&mut self) {
        self.captured = false;
        for button in std::mem::take(&mut self.buttons) {
            self.controls.input(Input::Button { button, down: false });
        }
        if let Some(shown) = &self.shown {
            // A desktop that could capture it can let it go.
            let _ = shown.window.set_cursor_grab(CursorGrabMode::None);
        }
        self.tell_state();
    }

    /// The pointer is the guest's.
    fn has_mouse(&self) -> bool {
        self.options.mouse && (self.captured || self.state.wants_positions)
    }

    fn button(&mut self, button: MouseButton, down: bool) {
        if !self.has_mouse() {
            if down && self.options.mouse {
                self.capture_mouse();
            }
            return;
        }
        let button = match button {
            MouseButton::Left => Button::Left,
            MouseButton::Middle => Button::Middle,
            MouseButton::Right => Button::Right,
            MouseButton::Back => Button::Back,
            MouseButton::Forward => Button::Forward,
            MouseButton::Other(_) => return,
        };
        self.hurry();
        self.tell_motion();
        self.buttons.retain(|held| *held != button);
        if down {
            self.buttons.push(button);
        }
        self.controls.input(Input::Button { button, down });
    }

    fn point(&mut self, position: PhysicalPosition<f64>) {
        let Some(shown) = self.shown.as_ref().filter(|_| self.state.wants_positions && self.options.mouse)
        else {
            return;
        };
        let viewport =
            Viewport::new(self.shape().of((self.frame.width, self.frame.height)), shown.size.into());
        self.place = Some(viewport.place(position.x, position.y));
    }

    fn turn(&mut self, delta: MouseScrollDelta) {
        if self.has_mouse() {
            // The host counts away from the user.
            self.wheel -= match delta {
                MouseScrollDelta::LineDelta(_, lines) => f64::from(lines),
                MouseScrollDelta::PixelDelta(position) => position.y / POINTS_PER_STEP,
            };
        }
    }

    /// Tells the guest of motion: whole counts, and keeps the rest.
    fn tell_motion(&mut self) {
        let whole = |sum: &mut f64| {
            let counts = sum.trunc();
            *sum -= counts;
            counts as i32
        };
        let (dx, dy) = (whole(&mut self.motion.0), whole(&mut self.motion.1));
        let steps = whole(&mut self.wheel);
        let place = self.place.take();
        if (dx, dy) != (0, 0) {
            self.controls.input(Input::PointerBy { dx, dy });
        }
        if let Some((x, y)) = place {
            self.controls.input(Input::PointerAt { x, y });
        }
        if steps != 0 {
            self.controls.input(Input::Wheel(steps));
        }
        if (dx, dy) != (0, 0) || place.is_some() || steps != 0 {
            self.hurry();
        }
    }

    /// The keyboard is another window's: no key stays down.
    fn leave(&mut self) {
        self.modifiers = Modifiers::default();
        if !self.keys.is_empty() {
            self.keys.clear();
            self.controls.input(Input::ReleaseKeys);
        }
        self.release_mouse();
    }
}

impl ApplicationHandler<Told> for Desk {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.shown.is_none() {
            match self.open(event_loop) {
                Ok(shown) => {
                    self.shown = Some(shown);
                    // Only a window knows for certain how large its points are.
                    self.follow_size(event_loop);
                }
                Err(error) => self.fail(event_loop, error),
            }
        }
    }

    fn user_event(&mut self, event_loop: &ActiveEventLoop, told: Told) {
        match told {
            Told::Seen(view) => self.seen(event_loop, *view),
            Told::Close => event_loop.exit(),
        }
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        match event {
            WindowEvent::CloseRequested | WindowEvent::Destroyed => event_loop.exit(),
            WindowEvent::RedrawRequested => self.draw(event_loop),
            WindowEvent::Resized(size) => {
                if let Some(shown) = &mut self.shown {
                    shown.size = size;
                    shown.window.request_redraw();
                }
            }
            WindowEvent::Focused(false) => self.leave(),
            WindowEvent::KeyboardInput { event, is_synthetic, .. } => {
                self.key(event_loop, &event, is_synthetic)
            }
            WindowEvent::CursorMoved { position, .. } => self.point(position),
            WindowEvent::MouseInput { state, button, .. } => {
                self.button(button, state == ElementState::Pressed);
            }
            WindowEvent::MouseWheel { delta, .. } => self.turn(delta),
            _ => {}
        }
    }

    fn device_event(&mut self, _: &ActiveEventLoop, _: DeviceId, event: DeviceEvent) {
        if let DeviceEvent::MouseMotion { delta: (dx, dy) } = event
            && self.captured
        {
            self.motion.0 += dx;
            self.motion.1 += dy;
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        self.tell_motion();
        if Instant::now() >= self.next_look
            && let Some(screen) = self.screen.take()
        {
            let proxy = self.proxy.clone();
            self.controls.look(screen, move |view| {
                // A window that has closed does not miss it.
                let _ = proxy.send_event(Told::Seen(Box::new(view)));
            });
        }
        // What is seen wakes the window; until then there is nothing to wait for but events.
        event_loop.set_control_flow(match self.screen {
            Some(_) => ControlFlow::WaitUntil(self.next_look),
            None => ControlFlow::Wait,
        });
    }
}
