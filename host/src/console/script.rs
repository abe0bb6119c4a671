//! A PC driven by a script: steps that a person at it would do, one a line.
//!
//! A line is a word and its arguments. Texts are in double quotes, with `\n`, `\t`, `\"` and `\\`; `#`
//! begins a comment. Waits take a time limit as their last argument (`500ms`, `60s`, `2m`), 30 s if none.
//!
//! | Step | Does |
//! |---|---|
//! | `wait-serial "TEXT" [LIMIT]` | waits until COM1 has sent the text, since the last such wait |
//! | `wait-screen "TEXT" [LIMIT]` | waits until the text is on the screen, in text mode |
//! | `wait-idle [LIMIT]` | waits until the guest has had next to nothing to do for half a second |
//! | `send "TEXT"` | sends the text to COM1 |
//! | `type "TEXT"` | types the text on a US keyboard |
//! | `key CHORD` | presses keys: `enter`, `ctrl-alt-delete` |
//! | `mouse at X Y`, `mouse by DX DY` | moves the pointer to a pixel, or by counts |
//! | `mouse down\|up\|click left\|middle\|right\|back\|forward` | works a button |
//! | `mouse wheel STEPS` | turns the wheel towards the user |
//! | `sleep TIME` | waits for a time of the guest's |
//! | `screenshot FILE` | writes the screen as PNG |
//! | `expect-screen FILE.png [PERCENT]` | the screen is this picture, but for a part of its pixels |
//! | `save FILE` | saves the machine |
//! | `insert cdrom\|fda\|fdb FILE` | puts a disc or a floppy disk into a drive |
//! | `link up\|down` | puts the cable into the network card, or pulls it |

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use env86_core::keys;
use env86_core::{Button, Drive, Frame};
use thiserror::Error;
use tracing::info;

use crate::machine::{Com, ControlError, Controls, Machine, MachineError, SerialPort};

/// The time limit of a wait that names none.
const DEFAULT_LIMIT: Duration = Duration::from_secs(30);
/// Time between looks at a guest that is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// An idle guest executes less than [`IDLE_INSTRUCTIONS`] in this time of its own.
const IDLE_TIME: u64 = 500_000_000;
/// A hundredth of what a processor of 1 GHz could.
const IDLE_INSTRUCTIONS: u64 = 5_000_000;
/// The least time between looks at the guest's clock.
const SHORT_SLEEP: Duration = Duration::from_millis(1);
/// Of what came instead of an expected text, an error shows so many bytes.
const SHOWN: usize = 2000;
/// Bytes of COM1 that are kept for a wait to come.
const TRANSCRIPT: usize = 1 << 20;

/// A line that is no step.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line}, column {column}: {problem}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
}

/// Why a script did not get to its end.
#[derive(Debug, Error)]
pub enum ScriptError {
    /// The script cannot be read.
    #[error("Cannot read the script `{}`", path.display())]
    Read {
        /// The script.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is no step.
    #[error("The script `{}` is wrong", path.display())]
    Syntax {
        /// The script.
        path: PathBuf,
        /// Where, and why.
        source: SyntaxError,
    },
    /// A step failed.
    #[error("Line {line} of the script failed: {step}")]
    Step {
        /// From 1.
        line: usize,
        /// What it says.
        step: String,
        /// What the screen showed.
        screen: String,
        /// Why.
        source: Box<StepError>,
    },
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum StepError {
    /// The screen, the keyboard or the mouse.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The text did not come.
    #[error("COM1 has not sent {text:?} within {limit:?}, but: {seen}")]
    NotSent {
        /// What was waited for.
        text: String,
        /// The time.
        limit: Duration,
        /// The end of what came.
        seen: String,
    },
    /// The guest was busy.
    #[error("The guest has been busy for {0:?}")]
    Busy(Duration),
    /// The machine ended, or cannot be saved.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// COM1 takes nothing.
    #[error("Cannot send to COM1")]
    Send(#[source] io::Error),
    /// A file.
    #[error("Cannot use the file `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A picture.
    #[error("Cannot read the picture `{}`", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: png::DecodingError,
    },
    /// A picture of another size.
    #[error("The picture `{}` has {}x{} pixels, the screen {}x{}", path.display(), .picture.0, .picture.1, .screen.0, .screen.1)]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        picture: (u32, u32),
        /// The screen's.
        screen: (usize, usize),
    },
    /// Another picture.
    #[error("{differ:.2} % of the screen's pixels differ from `{}`", path.display())]
    Differs {
        /// The file.
        path: PathBuf,
        /// How much of it does.
        differ: f64,
    },
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    WaitSerial(String, Duration),
    WaitScreen(String, Duration),
    WaitIdle(Duration),
    Send(String),
    Type(String),
    Key(String),
    MouseAt(u32, u32),
    MouseBy(i32, i32),
    MouseButton { button: Button, down: bool, up: bool },
    MouseWheel(i32),
    Sleep(Duration),
    Screenshot(PathBuf),
    ExpectScreen(PathBuf, f64),
    Save(PathBuf),
    Insert(Drive, PathBuf),
    Link { up: bool },
}

/// A step, its line and what that says.
type Numbered = (usize, Step, String);

/// A script.
#[derive(Debug)]
pub struct Script {
    path: PathBuf,
    steps: Steps,
}

#[derive(Debug)]
enum Steps {
    /// All of them.
    Read(Vec<Numbered>),
    /// They come from standard input, and each is done when it comes.
    Stdin,
}

impl Script {
    /// Reads a script as a whole, so that what is wrong in it is known before anything starts; `-` is
    /// standard input, whose steps are read while the script runs.
    pub fn open(path: &Path) -> Result<Self, ScriptError> {
        if path == Path::new("-") {
            return Ok(Self { path: path.into(), steps: Steps::Stdin });
        }
        let file = File::open(path).map_err(|source| ScriptError::Read { path: path.into(), source })?;
        let steps = Lines { path, lines: BufReader::new(file).lines(), line: 0 };
        Ok(Self { path: path.into(), steps: Steps::Read(steps.collect::<Result<_, _>>()?) })
    }

    /// Does the steps.
    pub(super) fn run(self, player: &mut Player) -> Result<(), ScriptError> {
        match self.steps {
            Steps::Read(steps) => steps.into_iter().try_for_each(|step| player.step(step)),
            Steps::Stdin => {
                let mut lines =
                    Lines { path: &self.path, lines: BufReader::new(io::stdin()).lines(), line: 0 };
                lines.try_for_each(|step| player.step(step?))
            }
        }
    }
}

/// The steps of lines.
struct Lines<'p, R> {
    path: &'p Path,
    lines: io::Lines<R>,
    line: usize,
}

impl<R: BufRead> Iterator for Lines<'_, R> {
    type Item = Result<Numbered, ScriptError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let path = || self.path.to_owned();
            let text = match self.lines.next()? {
                Ok(text) => text,
                Err(source) => return Some(Err(ScriptError::Read { path: path(), source })),
            };
            self.line += 1;
            match parse(&text) {
                Ok(None) => {}
                Ok(Some(step)) => return Some(Ok((self.line, step, text.trim().to_owned()))),
                Err((column, problem)) => {
                    let source = SyntaxError { line: self.line, column, problem };
                    return Some(Err(ScriptError::Syntax { path: path(), source }));
                }
            }
        }
    }
}

/// A word of a line, and where it begins.
#[derive(Clone, Debug, PartialEq)]
struct Word {
    column: usize,
    text: String,
    quoted: bool,
}

/// What is wrong with a line, and at which column.
type Wrong = (usize, String);

fn words(line: &str) -> Result<Vec<Word>, Wrong> {
    let mut words = Vec::new();
    let mut rest = (1..).zip(line.chars()).peekable();
    while let Some((column, first)) = rest.next() {
        match first {
            '#' => break,
            '"' => {
                let mut text = String::new();
                loop {
                    let Some((at, next)) = rest.next() else {
                        return Err((column, "the text has no closing quote".into()));
                    };
                    match next {
                        '"' => break,
                        '\\' => text.push(match rest.next().map(|(_, escaped)| escaped) {
                            Some('n') => '\n',
                            Some('t') => '\t',
                            Some(escaped @ ('"' | '\\')) => escaped,
                            _ => return Err((at, r#"only \n, \t, \" and \\ can follow a \"#.into())),
                        }),
                        _ => text.push(next),
                    }
                }
                words.push(Word { column, text, quoted: true });
            }
            _ if first.is_whitespace() => {}
            _ => {
                let mut text = String::from(first);
                while let Some((_, next)) = rest.next_if(|(_, next)| !next.is_whitespace()) {
                    text.push(next);
                }
                words.push(Word { column, text, quoted: false });
            }
        }
    }
    Ok(words)
}

/// The arguments of a step, taken one after the other.
struct Arguments {
    words: std::vec::IntoIter<Word>,
    /// Where the line ends.
    end: usize,
}

impl Arguments {
    fn next(&mut self, what: &str) -> Result<Word, Wrong> {
        self.words.next().ok_or_else(|| (self.end, format!("{what} is missing")))
    }

    fn text(&mut self) -> Result<String, Wrong> {
        let word = self.next("a text in double quotes")?;
        if word.quoted { Ok(word.text) } else { Err((word.column, "a text goes in double quotes".into())) }
    }

    fn path(&mut self) -> Result<PathBuf, Wrong> {
        self.next("a file").map(|word| word.text.into())
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, Wrong> {
        let word = self.next(what)?;
        word.text.parse().map_err(|_| (word.column, format!("`{}` is not {what}", word.text)))
    }

    fn time(&mut self) -> Result<Duration, Wrong> {
        let word = self.next("a time such as 500ms, 60s or 2m")?;
        time(&word)
    }

    fn limit(&mut self) -> Result<Duration, Wrong> {
        self.words.next().map_or(Ok(DEFAULT_LIMIT), |word| time(&word))
    }

    fn button(&mut self) -> Result<Button, Wrong> {
        let word = self.next("a button")?;
        Ok(match &*word.text {
            "left" => Button::Left,
            "middle" => Button::Middle,
            "right" => Button::Right,
            "back" => Button::Back,
            "forward" => Button::Forward,
            _ => return Err((word.column, "a button is left, middle, right, back or forward".into())),
        })
    }

    fn drive(&mut self) -> Result<Drive, Wrong> {
        let word = self.next("a drive")?;
        Ok(match &*word.text {
            "cdrom" => Drive::Cdrom,
            "fda" => Drive::Fda,
            "fdb" => Drive::Fdb,
            _ => return Err((word.column, "a drive is cdrom, fda or fdb".into())),
        })
    }

    fn link(&mut self) -> Result<bool, Wrong> {
        let word = self.next("up or down")?;
        match &*word.text {
            "up" => Ok(true),
            "down" => Ok(false),
            _ => Err((word.column, "a link goes up or down".into())),
        }
    }
}

fn time(word: &Word) -> Result<Duration, Wrong> {
    const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let wrong = || (word.column, format!("`{}` is not a time such as 500ms, 60s or 2m", word.text));
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((word.text.strip_suffix(unit)?, *factor)))
        .ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_millis(number.checked_mul(factor).ok_or_else(wrong)?))
}

/// The step of a line, if there is one on it.
fn parse(line: &str) -> Result<Option<Step>, Wrong> {
    let mut words = words(line)?.into_iter();
    let Some(name) = words.next() else { return Ok(None) };
    let mut arguments = Arguments { words, end: line.chars().count() + 1 };
    let step = match &*name.text {
        "wait-serial" => Step::WaitSerial(arguments.text()?, arguments.limit()?),
        "wait-screen" => Step::WaitScreen(arguments.text()?, arguments.limit()?),
        "wait-idle" => Step::WaitIdle(arguments.limit()?),
        "send" => Step::Send(arguments.text()?),
        "type" => {
            let text = arguments.next("a text in double quotes")?;
            if !text.quoted {
                return Err((text.column, "a text goes in double quotes".into()));
            }
            let typed = text.text.chars().try_for_each(|character| keys::typed(character).map(drop));
            typed.map_err(|error| (text.column, error.to_string()))?;
            Step::Type(text.text)
        }
        "key" => {
            let chord = arguments.next("a key")?;
            keys::chord(&chord.text).map_err(|error| (chord.column, error.to_string()))?;
            Step::Key(chord.text)
        }
        "mouse" => {
            let what = arguments.next("what the mouse does")?;
            match &*what.text {
                "at" => Step::MouseAt(arguments.number("a column")?, arguments.number("a line")?),
                "by" => Step::MouseBy(arguments.number("a count")?, arguments.number("a count")?),
                "wheel" => Step::MouseWheel(arguments.number("a count")?),
                "down" => Step::MouseButton { button: arguments.button()?, down: true, up: false },
                "up" => Step::MouseButton { button: arguments.button()?, down: false, up: true },
                "click" => Step::MouseButton { button: arguments.button()?, down: true, up: true },
                _ => {
                    return Err((what.column, "the mouse does at, by, wheel, down, up or click".into()));
                }
            }
        }
        "sleep" => Step::Sleep(arguments.time()?),
        "screenshot" => Step::Screenshot(arguments.path()?),
        "expect-screen" => {
            let path = arguments.path()?;
            let percent = match arguments.words.as_slice() {
                [] => 0.0,
                _ => arguments.number("a percentage")?,
            };
            Step::ExpectScreen(path, percent)
        }
        "save" => Step::Save(arguments.path()?),
        "insert" => Step::Insert(arguments.drive()?, arguments.path()?),
        "link" => Step::Link { up: arguments.link()? },
        other => return Err((name.column, format!("there is no step `{other}`"))),
    };
    match arguments.words.next() {
        Some(word) => Err((word.column, format!("`{}` is one argument too many", word.text))),
        None => Ok(Some(step)),
    }
}

/// What COM1 has sent and no step has waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct Transcript(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Debug, Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

impl Transcript {
    /// Takes what COM1 has sent.
    pub fn put(&self, bytes: &[u8]) {
        let mut heard = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.bytes.extend(bytes);
        let lost = heard.bytes.len().saturating_sub(TRANSCRIPT);
        heard.bytes.drain(..lost);
        self.0.1.notify_all();
    }

    /// Nothing will come any more.
    pub fn end(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.0.1.notify_all();
    }

    /// Waits for a text; what came up to its end is gone then.
    fn expect(&self, text: &str, limit: Duration) -> Result<(), StepError> {
        let (heard, changed) = &*self.0;
        let deadline = Instant::now().checked_add(limit);
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if text.is_empty() {
                return Ok(());
            }
            if let Some(at) = heard.bytes.windows(text.len()).position(|piece| piece == text.as_bytes()) {
                heard.bytes.drain(..at + text.len());
                return Ok(());
            }
            let left = deadline.map_or(limit, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() || heard.ended {
                let from = heard.bytes.len().saturating_sub(SHOWN);
                let seen = String::from_utf8_lossy(&heard.bytes[from..]).into_owned();
                return Err(StepError::NotSent { text: text.into(), limit, seen });
            }
            heard = changed.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Does steps at a machine.
pub(super) struct Player {
    controls: Controls,
    serial: SerialPort,
    transcript: Transcript,
}

impl Player {
    /// A player that sits at a machine. Somebody has to put what COM1 sends into the transcript.
    pub fn new(machine: &Machine, transcript: &Transcript) -> Self {
        Self {
            controls: machine.controls(),
            serial: machine.serial(Com::One),
            transcript: transcript.clone(),
        }
    }

    fn step(&mut self, (line, step, text): Numbered) -> Result<(), ScriptError> {
        info!(target: "script", line, text);
        self.act(step).map_err(|source| {
            let screen = match self.controls.text() {
                Ok(Some(screen)) => screen.to_string().trim_end().to_owned(),
                Ok(None) => "(graphics)".into(),
                Err(_) => "(none: the machine has ended)".into(),
            };
            ScriptError::Step { line, step: text, screen, source: source.into() }
        })
    }

    fn act(&mut self, step: Step) -> Result<(), StepError> {
        let controls = &self.controls;
        match step {
            Step::WaitSerial(text, limit) => self.transcript.expect(&text, limit)?,
            Step::WaitScreen(text, limit) => _ = controls.wait_screen(&text, limit)?,
            Step::WaitIdle(limit) => self.wait_idle(limit)?,
            Step::Send(text) => self.serial.write_all(text.as_bytes()).map_err(StepError::Send)?,
            Step::Type(text) => controls.type_text(&text)?,
            Step::Key(chord) => controls.keys(&chord)?,
            Step::MouseAt(x, y) => controls.point_at(x, y)?,
            Step::MouseBy(dx, dy) => controls.move_mouse(dx, dy)?,
            Step::MouseWheel(steps) => controls.turn_wheel(steps)?,
            Step::MouseButton { button, down, up } => {
                for down in [true, false].into_iter().filter(|is_down| if *is_down { down } else { up }) {
                    controls.button(button, down)?;
                }
            }
            Step::Sleep(time) => self.sleep(time)?,
            Step::Screenshot(path) => {
                let png = controls.screenshot()?;
                fs::write(&path, png).map_err(|source| StepError::File { path, source })?;
            }
            Step::ExpectScreen(path, percent) => compare(&path, &controls.picture()?, percent)?,
            Step::Save(path) => _ = controls.save(&path)?,
            Step::Insert(drive, path) => controls.change_medium(drive, Some(&path))?,
            Step::Link { up } => controls.link(up)?,
        }
        Ok(())
    }

    /// Waits for a time of the guest's.
    fn sleep(&self, time: Duration) -> Result<(), StepError> {
        let now = || self.controls.with(|computer| computer.time());
        let until = now()?.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        loop {
            match until.saturating_sub(now()?) {
                0 => return Ok(()),
                left => thread::sleep(Duration::from_nanos(left).clamp(SHORT_SLEEP, LOOK)),
            }
        }
    }

    /// Waits until the guest does next to nothing.
    fn wait_idle(&self, limit: Duration) -> Result<(), StepError> {
        let start = Instant::now();
        let look = || self.controls.with(|computer| (computer.time(), computer.stats().instructions));
        let (mut since, mut before) = look()?;
        loop {
            let (now, instructions) = look()?;
            if instructions - before > IDLE_INSTRUCTIONS {
                (since, before) = (now, instructions);
            } else if now.saturating_sub(since) >= IDLE_TIME {
                return Ok(());
            }
            if start.elapsed() >= limit {
                return Err(StepError::Busy(limit));
            }
            thread::sleep(LOOK);
        }
    }
}

/// The picture of a file is the screen's, but for a part of its pixels.
fn compare(path: &Path, screen: &Frame, percent: f64) -> Result<(), StepError> {
    let path = || path.to_owned();
    let file = File::open(path()).map_err(|source| StepError::File { path: path(), source })?;
    let wrong = |source| StepError::Picture { path: path(), source };
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(wrong)?;
    let size = (reader.info().width, reader.info().height);
    if (size.0 as usize, size.1 as usize) != (screen.width, screen.height) {
        let screen = (screen.width, screen.height);
        return Err(StepError::Size { path: path(), picture: size, screen });
    }
    let mut data = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut data).map_err(wrong)?;
    let samples = info.color_type.samples();
    let differ = screen
        .pixels
        .iter()
        .zip(data.chunks(samples))
        .filter(|([red, green, blue, _], pixel)| match **pixel {
            [gray] | [gray, _] => [gray; 3] != [*red, *green, *blue],
            [r, g, b, ..] => [r, g, b] != [*red, *green, *blue],
            [] => true,
        })
        .count();
    let differ = 100.0 * differ as f64 / screen.pixels.len().max(1) as f64;
    if differ > percent { Err(StepError::Differs { path: path(), differ }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_step() {
        let limit = DEFAULT_LIMIT;
        let steps = [
            ("", None),
            ("  # a comment", None),
            (r#"wait-screen "login:" 60s"#, Some(Step::WaitScreen("login:".into(), Duration::from_secs(60)))),
            (r#"wait-serial "a \"b\\\n""#, Some(Step::WaitSerial("a \"b\\\n".into(), limit))),
            ("wait-idle 2m # long", Some(Step::WaitIdle(Duration::from_secs(120)))),
            (r#"type "ls\n""#, Some(Step::Type("ls\n".into()))),
            ("key ctrl-alt-delete", Some(Step::Key("ctrl-alt-delete".into()))),
            ("mouse at 3 4", Some(Step::MouseAt(3, 4))),
            ("mouse by -3 4", Some(Step::MouseBy(-3, 4))),
            ("mouse click left", Some(Step::MouseButton { button: Button::Left, down: true, up: true })),
            ("sleep 500ms", Some(Step::Sleep(Duration::from_millis(500)))),
            (r#"screenshot "a b.png""#, Some(Step::Screenshot("a b.png".into()))),
            ("expect-screen a.png 1.5", Some(Step::ExpectScreen("a.png".into(), 1.5))),
            ("save a.state", Some(Step::Save("a.state".into()))),
            ("insert cdrom a.iso", Some(Step::Insert(Drive::Cdrom, "a.iso".into()))),
            ("link down", Some(Step::Link { up: false })),
        ];
        for (line, step) in steps {
            assert_eq!(parse(line), Ok(step), "{line}");
        }
    }

    #[test]
    fn what_is_no_step_is_told_with_its_place() {
        let wrong = [
            ("boot", 1, "there is no step `boot`"),
            (r#"  type "a"#, 8, "the text has no closing quote"),
            (r#"type "a\x""#, 8, r#"only \n, \t, \" and \\ can follow a \"#),
            ("type ls", 6, "a text goes in double quotes"),
            (r#"type "ä""#, 6, "A US keyboard has no 'ä'"),
            ("wait-screen", 12, "a text in double quotes is missing"),
            (r#"wait-screen "x" 60"#, 17, "`60` is not a time such as 500ms, 60s or 2m"),
            ("key hyper-x", 5, "There is no key \"hyper-x\"; keys are joined by `-`, as in ctrl-alt-delete"),
            ("mouse fly", 7, "the mouse does at, by, wheel, down, up or click"),
            ("mouse at 1 x", 12, "`x` is not a line"),
            ("insert hda a", 8, "a drive is cdrom, fda or fdb"),
            ("link off", 6, "a link goes up or down"),
            ("save a b", 8, "`b` is one argument too many"),
        ];
        for (line, column, problem) in wrong {
            assert_eq!(parse(line), Err((column, problem.to_owned())), "{line}");
        }
    }

    #[test]
    fn a_wait_takes_what_came_before_it() {
        let transcript = Transcript::default();
        transcript.put(b"one two three");
        transcript.expect("two", Duration::ZERO).unwrap();
        assert!(transcript.expect("one", Duration::ZERO).is_err());
        transcript.expect("three", Duration::ZERO).unwrap();
        transcript.end();
        assert!(transcript.expect("four", DEFAULT_LIMIT).is_err(), "the end is not waited for");
    }

    #[test]
    fn pictures_are_compared() {
        let mut frame = Frame { width: 10, height: 10, pixels: vec![[1, 2, 3, 255]; 100] };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        fs::write(&path, crate::machine::png(&frame).unwrap()).unwrap();
        compare(&path, &frame, 0.0).unwrap();
        frame.pixels[5] = [9; 4];
        assert!(
            matches!(compare(&path, &frame, 0.5), Err(StepError::Differs { differ, .. }) if differ == 1.0)
        );
        compare(&path, &frame, 1.0).unwrap();
        frame.width = 5;
        assert!(matches!(compare(&path, &frame, 0.0), Err(StepError::Size { .. })));
        fs::write(&path, "no picture").unwrap();
        assert!(matches!(compare(&path, &frame, 0.0), Err(StepError::Picture { .. })));
    }
}
