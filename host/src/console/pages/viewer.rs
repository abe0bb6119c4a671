//! A person's page.
//!
//! What the page says is JSON, [`Message`]; binary messages of it are an error, as all else is that is not understood, and
//! end the connection. What it is told is JSON, too, `{"event", "data"}` and `{"id", "value"}` or `{"id", "error"}`, but for
//! two binary kinds, by their first byte: what COM1 has said ([`SAID`]), and a part of the picture ([`PICTURE`], `Raw::message`).
//! A part comes when the page has asked for the next one, and there is one.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Instant;

use env86_core::{Button, Input};
use futures_util::future::{Either, select};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Packet};

use super::door::Access;
use super::picture::Cut;
use super::{ANSWERS, Options, Shared, Sitting, Socket, give, type_text};
use crate::machine::{Com, Controls, SerialPort};
use crate::net::{Allowance, Limits, PING, SILENCE};

/// The name that a page gives what it speaks.
pub(super) const PROTOCOL: &str = "env86.machine";
/// The first bytes of binary messages.
const SAID: u8 = 1;
const PICTURE: u8 = 2;
/// Bytes of COM1's in a message.
const PIECE: usize = 16 << 10;
/// Keys in a message.
const STROKES: usize = 1024;
/// What a page may say in a second.
const LIMITS: Limits = Limits { clients: 1, frames: 2000, bytes: 1 << 20 };
/// DOM's numbers of a mouse's buttons.
const BUTTONS: [Button; 5] = [Button::Left, Button::Middle, Button::Right, Button::Back, Button::Forward];

/// What a page says.
#[derive(Debug, Deserialize)]
struct Message {
    /// It wants an answer.
    id: Option<u32>,
    #[serde(flatten)]
    wish: Wish,
}

/// What it wants.
#[derive(Debug, Deserialize)]
#[serde(tag = "method", content = "args", rename_all = "camelCase")]
enum Wish {
    /// A part of the picture, once it differs from what the page has.
    NextFrame,
    /// The lines of the screen in text mode.
    ScreenText,
    Run,
    Stop,
    Restart,
    PowerButton,
    /// The keys that it holds go up.
    ReleaseKeys,
    /// Scan codes of set 1, those of each key by themselves.
    SendStrokes(Vec<Vec<u8>>),
    Type(String),
    SerialSend(Vec<u8>),
    PointerBy(i32, i32),
    PointerAt(u16, u16),
    Wheel(i32),
    Button(u8, bool),
}

/// Serves a page until it goes, or the machine does.
pub(super) async fn serve(
    socket: Socket,
    options: &Options,
    shared: &std::sync::Arc<Shared>,
    controls: Controls,
    access: Access,
) {
    let (to_page, from_page) = socket.split();
    let hand = Hand {
        sitting: shared.sit(access == Access::Use),
        may_use: access == Access::Use,
        keyboard: options.keyboard,
        mouse: options.mouse,
        line: controls.serial(Com::One),
        controls,
        keys: BTreeSet::new(),
        buttons: BTreeSet::new(),
    };
    {
        let mut guard = shared.lock();
        let state = &mut *guard;
        let heard = state.seats.get(&hand.sitting.id).map_or(0, |seat| seat.heard);
        let recalled = state.said.end() - heard;
        let greeting = json!({"event": "hello", "data": {
            "name": options.name,
            "view_only": access == Access::See,
            "recalled": recalled,
            "paused": state.status.paused,
        }});
        let seat = state.seats.get_mut(&hand.sitting.id);
        seat.into_iter().for_each(|seat| seat.answers.push_back(greeting.to_string()));
    }
    shared.wanted.notify_one();
    let (id, changed) = (hand.sitting.id, hand.sitting.changed.clone());
    let down = pin!(down(to_page, shared, id, &changed));
    select(down, pin!(up(from_page, hand))).await;
}

/// What a page is given next.
enum Next {
    Packet(Packet),
    /// A part of the picture, that has to be made.
    Cut(Cut),
    Nothing,
    /// It has to go, for this reason.
    Close(CloseCode, &'static str),
}

fn next(shared: &Shared, id: u64) -> Next {
    let mut guard = shared.lock();
    let state = &mut *guard;
    let answering = match shared.answered {
        true => None,
        false => state.seats.iter().find(|(_, seat)| seat.types).map(|(id, _)| *id),
    };
    let Some(seat) = state.seats.get_mut(&id) else { return Next::Close(CloseCode::Away, "") };
    if let Some(reason) = seat.refused {
        return Next::Close(CloseCode::Invalid, reason);
    }
    if let Some(answer) = seat.answers.pop_front() {
        return Next::Packet(Packet::text(answer));
    }
    let status = (state.status, answering == Some(id));
    if seat.told != Some(status) {
        seat.told = Some(status);
        let (status, answers) = status;
        let event = json!({"event": "status", "data": {
            "paused": status.paused,
            "instructions": status.instructions,
            "wants_positions": status.wants_positions,
            "lights": status.lights,
            "answers": answers,
        }});
        return Next::Packet(Packet::text(event.to_string()));
    }
    let lost = state.said.skip_lost(&mut seat.heard);
    if lost > 0 {
        return Next::Packet(Packet::text(json!({"event": "lost", "data": lost}).to_string()));
    }
    let said = state.said.take(&mut seat.heard, PIECE);
    if !said.is_empty() {
        return Next::Packet(Packet::binary([&[SAID], &said[..]].concat()));
    }
    // The last part comes unasked.
    if let Some(part) = seat.stale.filter(|_| seat.wants || state.over) {
        (seat.stale, seat.wants) = (None, false);
        return Next::Cut(state.picture.cut(part));
    }
    if state.over {
        return Next::Close(CloseCode::Normal, "The machine has ended");
    }
    Next::Nothing
}

/// Gives a page what it has not got, when it has room for it.
async fn down(
    mut page: impl Sink<Packet, Error = SocketError> + Unpin,
    shared: &Shared,
    id: u64,
    changed: &tokio::sync::Notify,
) -> Option<()> {
    let mut pings = interval(PING);
    loop {
        match next(shared, id) {
            Next::Packet(packet) => page.feed(packet).await.ok()?,
            Next::Cut(Cut::Made(bytes)) => page.feed(Packet::binary(bytes)).await.ok()?,
            Next::Cut(Cut::Raw(raw)) => {
                let bytes = raw.message(PICTURE);
                shared.lock().picture.keep(&raw, bytes.clone());
                page.feed(Packet::binary(bytes)).await.ok()?;
            }
            Next::Close(code, reason) => {
                let close = CloseFrame { code, reason: reason.into() };
                page.send(Packet::Close(Some(close))).await.ok()?;
                return Some(());
            }
            Next::Nothing => {
                page.flush().await.ok()?;
                match select(pin!(changed.notified()), pin!(pings.tick())).await {
                    Either::Left(_) => {}
                    Either::Right(_) => page.feed(Packet::Ping(Default::default())).await.ok()?,
                }
            }
        }
    }
}

/// Does what a page wants, as fast as it may want it.
async fn up(mut page: impl Stream<Item = Result<Packet, SocketError>> + Unpin, mut hand: Hand) {
    let mut allowance = Allowance::new(LIMITS, Instant::now());
    while let Ok(Some(Ok(packet))) = timeout(SILENCE, page.next()).await {
        let length = packet.len();
        let message = match packet {
            Packet::Text(text) => serde_json::from_str(&text).ok(),
            Packet::Ping(_) | Packet::Pong(_) => continue,
            Packet::Close(_) => return,
            Packet::Binary(_) | Packet::Frame(_) => None,
        };
        let done = match message {
            Some(message) => hand.take(message).await,
            None => Err("This is not understood"),
        };
        if let Err(reason) = done {
            hand.sitting.with(|seat| seat.refused = Some(reason));
            hand.sitting.changed.notify_one();
            // It is told, and the connection ends with that.
            return std::future::pending().await;
        }
        let wait = allowance.take(length, Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

/// What a page does at the machine. When it goes, what it holds goes up.
struct Hand {
    sitting: Sitting,
    may_use: bool,
    keyboard: bool,
    mouse: bool,
    controls: Controls,
    line: SerialPort,
    /// Keys that are down: whether E0h comes first, and the code.
    keys: BTreeSet<(bool, u8)>,
    /// Buttons that are down, by DOM's numbers.
    buttons: BTreeSet<u8>,
}

impl Hand {
    /// Does what is wanted. An error is the page's, and why it has to go.
    async fn take(&mut self, Message { id, wish }: Message) -> Result<(), &'static str> {
        let answer = match wish {
            Wish::NextFrame => {
                self.sitting.with(|seat| seat.wants = true);
                self.sitting.changed.notify_one();
                self.sitting.shared.wanted.notify_one();
                Ok(Value::Null)
            }
            Wish::ScreenText => self.screen_text().await,
            _ if !self.may_use => Err("This URL only shows the machine"),
            wish => {
                let done = self.act(wish).await?;
                self.sitting.shared.lively.notify_one();
                done
            }
        };
        let Some(id) = id else { return Ok(()) };
        let answer = match answer {
            Ok(value) => json!({"id": id, "value": value}),
            Err(error) => json!({"id": id, "error": error}),
        };
        let waiting = self.sitting.with(|seat| {
            seat.answers.push_back(answer.to_string());
            seat.answers.len()
        });
        self.sitting.changed.notify_one();
        // One that does not read what it asked for is not read from either.
        if waiting >= Some(ANSWERS) {
            while self.sitting.with(|seat| seat.answers.len()) > Some(0) {
                sleep(super::LIVELY).await;
            }
        }
        Ok(())
    }

    async fn screen_text(&self) -> Result<Value, &'static str> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.controls.with_soon(move |computer| _ = tell.send(computer.text_screen()));
        let screen = told.await.map_err(|_| "The machine has ended")?;
        Ok(screen.map_or(Value::Null, |screen| screen.to_string().lines().collect()))
    }

    async fn act(&mut self, wish: Wish) -> Result<Result<Value, &'static str>, &'static str> {
        match wish {
            Wish::NextFrame | Wish::ScreenText => {}
            Wish::Run => self.controls.resume(),
            Wish::Stop => self.controls.pause(),
            Wish::Restart => {
                let (tell, told) = tokio::sync::oneshot::channel();
                self.controls.with_soon(move |computer| _ = tell.send(computer.reset().is_ok()));
                return Ok(match told.await {
                    Ok(true) => Ok(Value::Null),
                    Ok(false) => Err("The machine cannot be started again"),
                    Err(_) => Err("The machine has ended"),
                });
            }
            Wish::PowerButton => self.controls.input(Input::PowerButton),
            Wish::ReleaseKeys => self.release_keys(),
            Wish::SendStrokes(strokes) => {
                if strokes.len() > STROKES {
                    return Err("So many keys do not exist");
                }
                for stroke in strokes {
                    let key = key_of(&stroke).ok_or("There is no such key")?;
                    if !self.keyboard {
                        continue;
                    }
                    match key {
                        Some((key, true)) => _ = self.keys.insert(key),
                        Some((key, false)) => _ = self.keys.remove(&key),
                        None => {}
                    }
                    if !give(&self.controls, Input::ScanCodes(stroke)).await {
                        return Ok(Err("The guest takes no keys"));
                    }
                }
            }
            Wish::Type(text) => {
                if self.keyboard && !type_text(&self.controls, &text).await {
                    return Ok(Err("The guest takes no keys"));
                }
            }
            Wish::SerialSend(bytes) => {
                // What the guest does not read must not keep a person from the keyboard.
                let taken = self.line.try_write(&bytes).unwrap_or(0);
                if taken < bytes.len() {
                    let untaken = bytes.len() - taken;
                    let event = json!({"event": "untaken", "data": untaken}).to_string();
                    self.sitting.with(|seat| {
                        if seat.answers.len() < ANSWERS {
                            seat.answers.push_back(event);
                        }
                    });
                    self.sitting.changed.notify_one();
                }
            }
            _ if !self.mouse => {}
            Wish::PointerBy(dx, dy) => self.controls.input(Input::PointerBy { dx, dy }),
            Wish::PointerAt(x, y) => self.controls.input(Input::PointerAt { x, y }),
            Wish::Wheel(steps) => self.controls.input(Input::Wheel(steps)),
            Wish::Button(number, down) => {
                // A pen has others.
                let Some(&button) = BUTTONS.get(usize::from(number)) else { return Ok(Ok(Value::Null)) };
                if down {
                    self.buttons.insert(number);
                } else {
                    self.buttons.remove(&number);
                }
                self.controls.input(Input::Button { button, down });
            }
        }
        Ok(Ok(Value::Null))
    }

    fn release_keys(&mut self) {
        for (extended, code) in std::mem::take(&mut self.keys) {
            let up = code | RELEASED;
            let codes = if extended { vec![EXTENDED, up] } else { vec![up] };
            self.controls.input(Input::ScanCodes(codes));
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.release_keys();
        for number in std::mem::take(&mut self.buttons) {
            let button = BUTTONS[usize::from(number)];
            self.controls.input(Input::Button { button, down: false });
        }
    }
}

/// Prefixes of scan codes, and the bit of a key that goes up.
const EXTENDED: u8 = 0xe0;
const PAUSE: u8 = 0xe1;
const RELEASED: u8 = 0x80;

/// The key that a stroke is of, and whether it goes down; `Some(None)` for Pause, which goes up by itself, and `None`
/// for what is no stroke.
fn key_of(stroke: &[u8]) -> Option<Option<((bool, u8), bool)>> {
    let of = |extended, code: u8| Some(Some(((extended, code & !RELEASED), code & RELEASED == 0)));
    match *stroke {
        [PAUSE, _, _] | [PAUSE, _, _, PAUSE, _, _] => Some(None),
        [EXTENDED, code] => of(true, code),
        [code] if code < EXTENDED => of(false, code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_they_say() {
        let parse = |text: &str| serde_json::from_str::<Message>(text);
        let message = parse(r#"{"id": 7, "method": "pointerBy", "args": [1, -2]}"#).unwrap();
        assert!(matches!(message, Message { id: Some(7), wish: Wish::PointerBy(1, -2) }));
        let message = parse(r#"{"method": "nextFrame"}"#).unwrap();
        assert!(matches!(message, Message { id: None, wish: Wish::NextFrame }));
        let message = parse(r#"{"method": "sendStrokes", "args": [[30], [224, 72]]}"#).unwrap();
        assert!(matches!(message.wish, Wish::SendStrokes(strokes) if strokes == [vec![30], vec![0xe0, 72]]));
        for noise in ["", "{}", "[]", "null", r#"{"method": "none"}"#, r#"{"method": "wheel", "args": "x"}"#]
        {
            assert!(parse(noise).is_err(), "{noise}");
        }
        // Nothing is too deep.
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn strokes_are_of_keys() {
        assert_eq!(key_of(&[0x1e]), Some(Some(((false, 0x1e), true))));
        assert_eq!(key_of(&[0x9e]), Some(Some(((false, 0x1e), false))));
        assert_eq!(key_of(&[0xe0, 0xc8]), Some(Some(((true, 0x48), false))));
        assert_eq!(key_of(&[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]), Some(None));
        for noise in [&[][..], &[0xe0], &[0xe1], &[0xfa], &[1, 2], &[0xe0, 1, 2], &[0xe1; 100]] {
            assert_eq!(key_of(noise), None, "{noise:?}");
        }
    }
}
