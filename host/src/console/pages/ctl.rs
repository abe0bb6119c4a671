//! A program that steers the machine by the calls of the Go env86's `/ctl`.
//!
//! There the machine is in the page, which asks the program for `config`, `loaded`, `tty` and `log`, and is asked for the
//! rest. Here the machine is in the program, so that all of them are asked by whoever connects; `tty` gives what COM1 says
//! and takes what is typed. The line is that of the guest's service: channels ([`Mux`]) and calls ([`Call`]), where each
//! message of the WebSocket has whole frames.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt};
use guest86::call::{Call, Reply};
use guest86::mux::{Config, Event, Mux};
use guest86::value::{Values, to_bytes};
use serde::de::IgnoredAny;
use serde_bytes::ByteBuf;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tracing::info;

use super::door::Access;
use super::{LIVELY, Options, Shared, Sitting, Socket, type_text};
use crate::machine::{Com, Controls, SerialPort};
use crate::net::{PING, SILENCE};

/// Bytes that may come on a channel before they are dealt with.
const WINDOW: u32 = 128 << 10;
/// Bytes of a call that is not complete; no call has more.
const LONGEST_CALL: usize = WINDOW as usize;
/// Channels at once.
const CHANNELS: usize = 64;
/// Bytes that are sent at once.
const PIECE: usize = 16 << 10;

/// A channel.
enum Channel {
    /// What is called has not come yet, or its argument.
    Calling(Values, Option<String>),
    /// It is being done.
    Doing,
    /// Bytes are to be sent, of which so many have been; after them the channel is closed, or is a terminal.
    Answering(Vec<u8>, usize, Then),
    /// COM1: up to which place it was heard, and what was typed and not taken.
    Tty(u64, Vec<u8>),
    /// This end has closed it.
    Done,
}

/// What comes after an answer.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Tty,
}

/// What has been done: the bytes of the result.
type Outcome = Result<Vec<u8>, String>;

/// Serves a program until it goes, or the machine does.
pub(super) async fn serve(
    socket: Socket,
    options: &Options,
    shared: &Arc<Shared>,
    controls: Controls,
    access: Access,
) {
    let sitting = shared.sit(false);
    let mut desk = Desk {
        mux: Mux::new(Config {
            first: 0,
            lowest: false,
            accepts: true,
            window: WINDOW,
            on_the_way: u32::MAX,
        }),
        channels: BTreeMap::new(),
        jobs: JoinSet::new(),
        line: controls.serial(Com::One),
        controls,
        options,
        sitting,
        may_use: access == Access::Use,
    };
    let (mut to, mut from) = socket.split();
    let mut pings = interval(PING);
    let mut last_word = Instant::now();
    loop {
        // One that does not take what it asked for has to go, as well as one that says nothing.
        let sent = timeout(SILENCE, async {
            while let Some(bytes) = desk.output() {
                to.feed(Message::binary(bytes)).await.ok()?;
            }
            to.flush().await.ok()
        });
        if !matches!(sent.await, Ok(Some(()))) || last_word.elapsed() > SILENCE {
            return;
        }
        if desk.is_over() {
            _ = to.send(Message::Close(None)).await;
            return;
        }
        let changed = desk.sitting.changed.clone();
        let again = if desk.has_untaken() { LIVELY } else { Duration::MAX };
        let (changed, tick, again) = (pin!(changed.notified()), pin!(pings.tick()), pin!(sleep(again)));
        let done = poll_fn(|cx| match desk.jobs.poll_join_next(cx) {
            Poll::Ready(Some(done)) => Poll::Ready(done.ok()),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        });
        let (inside, timers) = (select(done, changed), select(tick, again));
        match select(from.next(), select(inside, timers)).await {
            Either::Left((Some(Ok(message)), _)) => {
                last_word = Instant::now();
                match message {
                    Message::Binary(bytes) => {
                        if desk.take(&bytes).is_none() {
                            return;
                        }
                    }
                    Message::Ping(_) | Message::Pong(_) => {}
                    _ => return,
                }
            }
            Either::Left(_) => return,
            Either::Right((Either::Left((Either::Left((done, _)), _)), _)) => {
                if let Some((id, outcome)) = done {
                    desk.done(id, outcome);
                }
            }
            Either::Right((Either::Right((Either::Left(_), _)), _)) => {
                if to.send(Message::Ping(Default::default())).await.is_err() {
                    return;
                }
            }
            Either::Right(_) => {}
        }
    }
}

/// The program's desk.
struct Desk<'a> {
    mux: Mux,
    channels: BTreeMap<u32, Channel>,
    jobs: JoinSet<(u32, Outcome)>,
    line: SerialPort,
    controls: Controls,
    options: &'a Options,
    sitting: Sitting,
    may_use: bool,
}

impl Desk<'_> {
    /// Takes what the program has sent; `None` if it has to go.
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        self.mux.feed(bytes);
        while let Some(event) = self.mux.event() {
            match event {
                Event::Opened(id) if self.channels.len() < CHANNELS => {
                    self.channels.insert(id, Channel::Calling(Values::default(), None));
                }
                Event::Opened(_) => return None,
                Event::Data(id, data) => self.data(id, &data)?,
                Event::Closed(id) => {
                    // Its answer has nowhere to go.
                    self.channels.remove(&id);
                    self.mux.close(id);
                }
                // This end opens no channels, and what it sends is looked at anyway.
                Event::Eof(_) | Event::Room(_) | Event::Confirmed(_) | Event::Refused(_) => {}
                Event::Reset => return None,
            }
        }
        // What is no frame is no call of ours either.
        (self.mux.noise() == 0).then_some(())
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Option<()> {
        match self.channels.get_mut(&id) {
            Some(Channel::Calling(values, _)) => {
                values.feed(data);
                if values.waiting() > LONGEST_CALL {
                    return None;
                }
                self.mux.consumed(id, data.len());
                self.called(id);
            }
            Some(Channel::Tty(_, typed)) => {
                // Given back when the guest has taken it.
                typed.extend(data);
                self.type_on(id);
            }
            Some(_) | None => self.mux.consumed(id, data.len()),
        }
        Some(())
    }

    /// Gives COM1 what was typed on a channel, as far as there is room.
    fn type_on(&mut self, id: u32) {
        let Some(Channel::Tty(_, typed)) = self.channels.get_mut(&id) else { return };
        let taken = match self.may_use {
            // A machine that has ended takes nothing, and misses nothing.
            true => self.line.try_write(typed).unwrap_or(typed.len()),
            false => typed.len(),
        };
        typed.drain(..taken);
        self.mux.consumed(id, taken);
    }

    /// Something was typed that the guest has had no room for.
    fn has_untaken(&self) -> bool {
        self.channels.values().any(|channel| matches!(channel, Channel::Tty(_, typed) if !typed.is_empty()))
    }

    /// Looks whether a call is complete, and does it then.
    fn called(&mut self, id: u32) {
        let Some(Channel::Calling(values, name)) = self.channels.get_mut(&id) else { return };
        let outcome = loop {
            let Some(called) = name else {
                match values.read::<Call>() {
                    Ok(Some((call, _))) => *name = Some(call.method),
                    Ok(None) => return,
                    Err(error) => break Some(Err(error.to_string())),
                }
                continue;
            };
            match values.item() {
                Ok(None) => return,
                Ok(Some(_)) => {}
                Err(error) => break Some(Err(error.to_string())),
            }
            let called = called.trim_start_matches(['/', '.']).to_owned();
            let (mut values, may_use) = (std::mem::take(values), self.may_use);
            if called == "tty" {
                // What comes behind the argument is typed.
                let answered = values.read::<IgnoredAny>().map_err(|error| error.to_string());
                break match answered {
                    Ok(_) => {
                        let bytes = [to_bytes(&Reply { error: None, goes_on: true }), to_bytes(&())].concat();
                        self.channels.insert(id, Channel::Answering(bytes, 0, Then::Tty));
                        return;
                    }
                    Err(error) => Some(Err(error)),
                };
            }
            self.channels.insert(id, Channel::Doing);
            break self.call(id, &called, values, may_use);
        };
        if let Some(outcome) = outcome {
            self.done(id, outcome);
        }
    }

    /// Does a call; `None` if that takes a while.
    fn call(&mut self, id: u32, called: &str, mut values: Values, may_use: bool) -> Option<Outcome> {
        let controls = self.controls.clone();
        let null = || Some(Ok(to_bytes(&())));
        match called {
            "config" => Some(Ok(to_bytes(&self.options.config))),
            "loaded" => null(),
            "mac" => {
                self.jobs.spawn(async move {
                    let (tell, told) = tokio::sync::oneshot::channel();
                    controls.with_soon(move |computer| _ = tell.send(computer.mac()));
                    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
                    let mac = told.await.ok().flatten().map(text);
                    (id, mac.map(|mac| to_bytes(&mac)).ok_or_else(|| "there is no network card".into()))
                });
                None
            }
            "screenshot" => {
                let shot = move || controls.screenshot().map_err(|error| error.to_string());
                self.block(id, move || shot().map(|png| to_bytes(&ByteBuf::from(png))));
                None
            }
            _ if !may_use && KNOWN.contains(&called) => Some(Err("this token only shows the machine".into())),
            "log" => {
                if let Ok(Some((said, _))) = values.read::<serde_json::Value>() {
                    info!(target: "pages", %said, "A program says");
                }
                null()
            }
            "pause" => {
                controls.pause();
                null()
            }
            "unpause" => {
                controls.resume();
                null()
            }
            "sendKeyboard" => {
                let text = match values.read::<(String,)>() {
                    Ok(Some(((text,), _))) => text,
                    Ok(None) => return Some(Err("fn: no argument".into())),
                    Err(error) => return Some(Err(error.to_string())),
                };
                self.sitting.shared.lively.notify_one();
                self.jobs.spawn(async move {
                    let taken = type_text(&controls, &text).await;
                    (id, if taken { Ok(to_bytes(&())) } else { Err("the guest takes no keys".into()) })
                });
                None
            }
            "save" => {
                let shared = self.sitting.shared.clone();
                self.block(id, move || {
                    // A state is as large as the guest's memory.
                    let _one = shared.saving.lock().unwrap_or_else(PoisonError::into_inner);
                    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
                    let path = folder.path().join("state");
                    controls.save(&path).map_err(|error| error.to_string())?;
                    let state = std::fs::read(&path).map_err(|error| error.to_string())?;
                    Ok(to_bytes(&ByteBuf::from(state)))
                });
                None
            }
            "restore" => Some(Err(
                "a machine that runs is not restored; start one with `env86 boot --state FILE`".into(),
            )),
            "setScale" | "setFullscreen" => {
                Some(Err("each page that shows the machine has a size of its own".into()))
            }
            _ => Some(Err(format!("not found: {called}"))),
        }
    }

    /// Does what waits for something, in a thread.
    fn block(&mut self, id: u32, act: impl FnOnce() -> Outcome + Send + 'static) {
        self.jobs.spawn_blocking(move || (id, act()));
    }

    /// Answers a call that has been done.
    fn done(&mut self, id: u32, outcome: Outcome) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let (error, result) = match outcome {
            Ok(result) => (None, result),
            Err(error) => (Some(error), to_bytes(&())),
        };
        let mut bytes = to_bytes(&Reply { error, goes_on: false });
        bytes.extend(result);
        *channel = Channel::Answering(bytes, 0, Then::Close);
    }

    /// The next whole frames for the program, if there are any now.
    fn output(&mut self) -> Option<Vec<u8>> {
        for id in self.channels.keys().copied().collect::<Vec<_>>() {
            if !self.mux.output().is_empty() {
                break;
            }
            self.type_on(id);
            self.send(id);
        }
        let output = std::mem::take(self.mux.output());
        (!output.is_empty()).then_some(output)
    }

    /// Sends a piece of what a channel has to say.
    fn send(&mut self, id: u32) {
        let state = self.sitting.shared.lock();
        match self.channels.get_mut(&id) {
            Some(Channel::Answering(bytes, sent, then)) => {
                let end = bytes.len().min(*sent + PIECE);
                *sent += self.mux.send(id, &bytes[*sent..end]);
                if *sent < bytes.len() {
                    return;
                }
                let next = match then {
                    Then::Tty => Channel::Tty(state.said.end(), Vec::new()),
                    Then::Close => Channel::Done,
                };
                if matches!(next, Channel::Done) {
                    self.mux.send_eof(id);
                    self.mux.close(id);
                }
                self.channels.insert(id, next);
            }
            Some(Channel::Tty(place, _)) => {
                let room = self.mux.room(id).min(PIECE);
                let piece = state.said.take(place, room);
                self.mux.send(id, &piece);
            }
            _ => {}
        }
        // Of a machine that has ended no more comes.
        if let (true, Some(Channel::Tty(place, _))) = (state.over, self.channels.get(&id))
            && *place >= state.said.end()
        {
            self.mux.close(id);
            self.channels.insert(id, Channel::Done);
        }
    }

    /// The machine has ended, and all is said.
    fn is_over(&self) -> bool {
        let quiet = |channel: &Channel| matches!(channel, Channel::Done | Channel::Calling(..));
        self.sitting.shared.lock().over && self.channels.values().all(quiet)
    }
}

/// What a program may not do with a token that only shows the machine.
const KNOWN: [&str; 8] =
    ["log", "pause", "unpause", "sendKeyboard", "save", "restore", "setScale", "setFullscreen"];
