//! The machine's screen in a terminal: its characters as characters, graphics as half blocks, and what is
//! typed there as keys of a US keyboard.
//!
//! A terminal tells of characters, not of keys, so that no key can be held down. Ctrl-] is for the terminal
//! itself ([`HELP`]).

mod keys;
mod picture;

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use crossterm::event::{
    self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyCode, KeyEvent, KeyModifiers,
};
use crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, style};
use env86_core::keys::Layout;
use env86_core::{Accepted, Frame, Input, Screen, TextScreen, keys as pc_keys};

use super::terminal::Guard;
use crate::machine::{ControlError, Controls};
use picture::{Colors, Picture};

/// Time between looks while something happens, ...
const LIVELY: Duration = Duration::from_millis(16);
/// ... and at a screen that has not changed for [`QUIET_AFTER`].
const QUIET: Duration = Duration::from_millis(50);
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// Keys that wait for the guest at most: a large paste.
const TYPE_AHEAD: usize = 1 << 20;
/// What the keys after Ctrl-] do.
const HELP: &str = " q ends  d Ctrl-Alt-Delete  1-9 Alt-F1 to Alt-F9  ] Ctrl-]  other keys go on";

/// Takes the terminal over: raw, with a screen of its own, until the guard goes.
pub(super) fn take_terminal() -> io::Result<Guard> {
    terminal::enable_raw_mode()?;
    let guard = Guard::new(|| {
        // Nothing can be done about a terminal that has gone.
        let _ = execute!(
            io::stdout(),
            style::ResetColor,
            cursor::SetCursorStyle::DefaultUserShape,
            cursor::Show,
            DisableBracketedPaste,
            LeaveAlternateScreen
        );
        let _ = terminal::disable_raw_mode();
    });
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
    Ok(guard)
}

/// What the machine shows.
enum Seen {
    Text(TextScreen),
    /// The picture, if it has changed.
    Graphics(Option<Frame>),
}

/// A person at a terminal.
struct Desk {
    controls: Controls,
    /// What the guest takes its keyboard for.
    layout: Layout,
    colors: Colors,
    /// Columns and rows of the terminal.
    size: (u16, u16),
    screen: Screen,
    /// The last picture of a machine that shows graphics.
    frame: Frame,
    /// What the terminal shows; nothing, if that is not known.
    shown: Picture,
    /// Keys that the guest has no room for yet.
    strokes: VecDeque<Input>,
    /// Ctrl-] was the last key.
    commanded: bool,
}

/// Shows the machine in the terminal, which has been taken over, until the person or `over` ends that.
pub(super) fn run(controls: Controls, layout: Layout, over: impl Fn() -> bool) -> io::Result<()> {
    let mut desk = Desk {
        controls,
        layout,
        colors: Colors::of_terminal(),
        size: terminal::size()?,
        screen: Screen::default(),
        frame: Frame::default(),
        shown: Picture::default(),
        strokes: VecDeque::new(),
        commanded: false,
    };
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
    let mut last_change = Instant::now();
    loop {
        if over() {
            return Ok(());
        }
        let Ok(seen) = desk.look() else { return Ok(()) };
        let picture = desk.picture(seen);
        if picture != desk.shown {
            last_change = Instant::now();
            picture.draw(&desk.shown, &mut out)?;
            out.flush()?;
            desk.shown = picture;
        }
        let lively = !desk.strokes.is_empty() || last_change.elapsed() < QUIET_AFTER;
        let mut wait = if lively { LIVELY } else { QUIET };
        while event::poll(wait)? {
            wait = Duration::ZERO;
            last_change = Instant::now();
            if desk.event(event::read()?) {
                return Ok(());
            }
        }
    }
}

impl Desk {
    /// Gives the machine the keys that it has room for, and sees what it shows.
    fn look(&mut self) -> Result<Seen, ControlError> {
        let mut strokes = std::mem::take(&mut self.strokes);
        let mut screen = std::mem::take(&mut self.screen);
        let (seen, screen, strokes) = self.controls.ask(move |computer| {
            while let Some(stroke) = strokes.front() {
                match computer.input(stroke) {
                    Accepted::Some(_) => break,
                    Accepted::All | Accepted::NoDevice | Accepted::Refused => drop(strokes.pop_front()),
                }
            }
            let seen = match computer.text_screen() {
                Some(text) => Seen::Text(text),
                None => Seen::Graphics(computer.show(&mut screen).map(|_| screen.frame().clone())),
            };
            (seen, screen, strokes)
        })?;
        (self.screen, self.strokes) = (screen, strokes);
        Ok(seen)
    }

    fn picture(&mut self, seen: Seen) -> Picture {
        let mut picture = match seen {
            Seen::Text(text) => {
                // What comes after it is drawn anew.
                self.screen = Screen::default();
                Picture::of_text(&text, self.size)
            }
            Seen::Graphics(frame) => {
                if let Some(frame) = frame {
                    self.frame = frame;
                }
                Picture::of_graphics(&self.frame, self.size, self.colors)
            }
        };
        if self.commanded {
            picture.tell(HELP);
        }
        picture
    }

    /// Takes an event of the terminal; says whether the person wants to leave.
    fn event(&mut self, event: Event) -> bool {
        match event {
            Event::Key(key) if key.is_press() || key.is_repeat() => return self.key(key),
            Event::Paste(text) => {
                let strokes = text.chars().filter_map(|character| {
                    // Terminals paste the end of a line as what Enter sends.
                    let character = if character == '\r' { '\n' } else { character };
                    self.layout.typed(character).ok()
                });
                self.strokes.extend(strokes.flatten());
                self.strokes.truncate(TYPE_AHEAD);
            }
            Event::Resize(columns, rows) => {
                self.size = (columns, rows);
                self.shown = Picture::default();
            }
            _ => {}
        }
        false
    }

    fn key(&mut self, key: KeyEvent) -> bool {
        let escape =
            key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char(']' | '5'));
        if std::mem::take(&mut self.commanded) {
            match key.code {
                _ if escape => self.press(key),
                KeyCode::Char('q') => return true,
                KeyCode::Char('d') => self.chord("ctrl-alt-delete"),
                KeyCode::Char(']') => self.chord("ctrl-]"),
                KeyCode::Char(digit @ '1'..='9') => self.chord(&format!("alt-f{digit}")),
                _ => {}
            }
        } else if escape {
            self.commanded = true;
        } else {
            self.press(key);
        }
        false
    }

    fn press(&mut self, key: KeyEvent) {
        if self.strokes.len() < TYPE_AHEAD {
            self.strokes.extend(keys::strokes(key, self.layout));
        }
    }

    fn chord(&mut self, chord: &str) {
        if let Ok(keys) = pc_keys::chord(chord) {
            self.strokes.extend(pc_keys::press(&keys));
        }
    }
}
