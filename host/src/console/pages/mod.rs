//! The running machine in pages of browsers: any number of people see it, and use it, at the same time.
//!
//! [`Pages::open`] takes a port, and a session shows its machine there until its end. What a page asks first is
//! looked at by a [`Door`]. Files of the page are plain answers; a WebSocket at `/ctl` is a person's page ([`viewer`]), or, if
//! it does not name that protocol, a program that makes the calls of the Go env86 ([`ctl`]).
//!
//! The machine waits for none of them. What COM1 says is kept as far as it is recent ([`Said`]), the picture as it is
//! now ([`Picture`]); each page takes from there what it has not got yet when it has room for it. One that is slow gets a
//! newer picture less often, and is told of what it missed of COM1's. A screen that no page looks at is not drawn.

mod ctl;
mod door;
mod picture;
mod said;
mod viewer;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as Listener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use env86_core::{Accepted, Input, Screen};
use futures_util::future::select;
use thiserror::Error;
use tiny_http::{HTTPVersion, ResponseBox};
use tokio::io::{AsyncWriteExt, join};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use tracing::debug;

use crate::machine::{Controls, Machine, View};
use crate::net::{NetError, Worker, accepted, runtime};
use crate::web::{self, Asked, header};
use door::{Access, Door, Head};
use picture::{Part, Picture};
use said::Said;

/// The page itself, among the files, and where it is found, as in the Go program: by that it knows what it is for.
const INDEX: &str = "index.html";
const PAGE: &str = "console.html";
/// The path of WebSockets, as in the Go program.
const CONTROL: &str = "ctl";
/// Pages at once, and programs.
const VIEWERS: usize = 32;
/// How long one may take to say what it wants or to take a file, and how many may do so at once.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 32;
/// Bytes of the longest message that is read.
const LONGEST_MESSAGE: usize = 512 << 10;
/// Bytes that wait to be written before a page has to read, and the most that ever do.
const WRITE_BUFFER: usize = 64 << 10;
const MOST_WRITTEN: usize = 64 << 20;
/// Time between looks at the screen while something happens.
const LIVELY: Duration = Duration::from_millis(20);
/// The same for a screen that has not changed for [`QUIET_AFTER`].
const QUIET: Duration = Duration::from_millis(80);
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// How old what is told of the machine besides may be, and how often its instructions are counted.
const STATUS: Duration = Duration::from_secs(1);
const COUNT: Duration = Duration::from_millis(250);
/// Until a key is tried again that the guest had no room for, and how long that goes on.
const TYPE_AGAIN: Duration = Duration::from_millis(5);
const TYPE_PATIENCE: Duration = Duration::from_secs(30);
/// Answers that wait for a page before no more is read from it.
const ANSWERS: usize = 16;
/// How long pages have to take the last picture and word at the machine's end.
const FAREWELL: Duration = Duration::from_secs(1);

/// The machine cannot be shown in pages.
#[derive(Debug, Error)]
pub enum PagesError {
    /// The port.
    #[error("Cannot listen at {listen} for pages that show the machine")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Chance, or a thread.
    #[error("Cannot show the machine in pages")]
    Setup(#[source] io::Error),
    /// The same.
    #[error(transparent)]
    Thread(#[from] NetError),
}

/// What pages show, and where.
#[derive(Debug)]
pub struct Options {
    /// Where the host listens; a port 0 is a free one.
    pub listen: SocketAddr,
    /// What the page is called.
    pub name: String,
    /// The page's files by their names, with `index.html`.
    pub files: BTreeMap<String, PathBuf>,
    /// What the call `config` gives: that of the machine, as `image.json` has it.
    pub config: serde_json::Value,
    /// The person at the machine may use its keyboard, ...
    pub keyboard: bool,
    /// ... and its mouse.
    pub mouse: bool,
}

/// A port at which pages are going to show a machine.
pub struct Pages {
    listener: Listener,
    address: SocketAddr,
    site: Arc<Site>,
}

impl fmt::Debug for Pages {
    /// Without the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What is the same for all who come.
struct Site {
    door: Door,
    options: Options,
}

impl Pages {
    /// Takes the port. Who comes waits until there is a machine.
    pub fn open(options: Options) -> Result<Self, PagesError> {
        let listen = options.listen;
        let bound = Listener::bind(listen).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let (address, listener) = bound.map_err(|source| PagesError::Listen { listen, source })?;
        let door = Door::new(address.ip()).map_err(PagesError::Setup)?;
        Ok(Self { listener, address, site: Arc::new(Site { door, options }) })
    }

    /// The page's address, with the token that lets one use the machine.
    pub fn url(&self) -> String {
        self.url_with(&self.site.door.token)
    }

    /// The same with another token, with which the machine can only be seen.
    pub fn view_url(&self) -> String {
        self.url_with(&self.site.door.view_token)
    }

    fn url_with(&self, token: &str) -> String {
        format!("http://{}/{PAGE}?token={token}", self.address)
    }

    /// Shows a machine. `answered`: a terminal is at COM1 already, and answers what the guest asks of one.
    pub(super) fn show(self, machine: &Machine, answered: bool) -> Result<Shown, PagesError> {
        let runtime = runtime()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(self.listener).map_err(PagesError::Setup)?
        };
        let shared = Arc::new(Shared { answered, ..Shared::default() });
        let (controls, site) = (machine.controls(), self.site);
        let work = {
            let shared = shared.clone();
            async move {
                let looks = pin!(watch(shared.clone(), controls.clone()));
                select(looks, pin!(welcome(listener, site, shared, controls))).await;
            }
        };
        let worker = Worker::start("pages", runtime, work).map_err(PagesError::Setup)?;
        Ok(Shown { shared, _worker: worker })
    }
}

/// A machine that is shown. Dropping it ends that.
pub(super) struct Shown {
    shared: Arc<Shared>,
    _worker: Worker,
}

impl Shown {
    /// Whom to tell what COM1 says.
    pub fn listener(&self) -> Listening {
        Listening(self.shared.clone())
    }

    /// The machine has ended: pages are told, and may take a moment for it.
    pub fn end(self) {
        self.shared.lock().ending = true;
        self.shared.wanted.notify_one();
        let start = Instant::now();
        while !self.shared.lock().seats.is_empty() && start.elapsed() < FAREWELL {
            thread::sleep(LIVELY);
        }
    }
}

/// Hears what COM1 says.
pub(super) struct Listening(Arc<Shared>);

impl Listening {
    /// COM1 has said this. It waits for nobody.
    pub fn put(&self, bytes: &[u8]) {
        self.0.lock().said.put(bytes);
        self.0.changed();
    }
}

/// What the machine's side and all connections share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody wants a picture, or the end comes.
    wanted: Notify,
    /// Something was done that the screen may answer.
    lively: Notify,
    /// A terminal beside the pages answers what the guest asks of one.
    answered: bool,
    /// A state is being saved for a program.
    saving: Mutex<()>,
}

#[derive(Default)]
struct State {
    said: Said,
    picture: Picture,
    status: Status,
    counted: Option<Instant>,
    seats: BTreeMap<u64, Seat>,
    last: u64,
    /// The machine is to be looked at, because it is ending.
    ending: bool,
    /// It has ended, and this is its last picture.
    over: bool,
}

/// What is told of the machine besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    paused: bool,
    wants_positions: bool,
    lights: u8,
    instructions: u64,
}

/// What a connection has and has not got.
struct Seat {
    changed: Arc<Notify>,
    /// It is a page that may type.
    types: bool,
    /// The part of the picture that it has not got, ...
    stale: Option<Part>,
    /// ... and it has room for it.
    wants: bool,
    /// What it has got of COM1's, as a place in [`Said`].
    heard: u64,
    /// What it was told.
    told: Option<(Status, bool)>,
    answers: VecDeque<String>,
    /// Why it has to go.
    refused: Option<&'static str>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all connections to look.
    fn changed(&self) {
        self.lock().seats.values().for_each(|seat| seat.changed.notify_one());
    }

    /// A place for a connection.
    fn sit(self: &Arc<Self>, types: bool) -> Sitting {
        let mut state = self.lock();
        state.last += 1;
        let (id, changed) = (state.last, Arc::new(Notify::new()));
        let seat = Seat {
            changed: changed.clone(),
            types,
            stale: state.picture.whole(),
            wants: false,
            heard: state.said.start(),
            told: None,
            answers: VecDeque::new(),
            refused: None,
        };
        state.seats.insert(id, seat);
        Sitting { shared: self.clone(), id, changed }
    }
}

impl State {
    /// Takes what a look has found.
    fn seen(&mut self, view: &View) {
        let now = Instant::now();
        if self.counted.is_none_or(|counted| now - counted >= COUNT) {
            self.counted = Some(now);
            self.status.instructions = view.instructions;
        }
        let instructions = self.status.instructions;
        let View { paused, wants_positions, lights, .. } = *view;
        self.status = Status { paused, wants_positions, lights, instructions };
        if let Some(lines) = &view.changed {
            self.show(view.screen.frame(), lines.clone());
        }
    }

    fn show(&mut self, frame: &env86_core::Frame, lines: std::ops::Range<usize>) {
        if let Some(part) = self.picture.update(frame, lines) {
            self.seats.values_mut().for_each(|seat| seat.stale = Some(part.with(seat.stale)));
        }
    }
}

/// A connection's place, which is free again when this is dropped.
struct Sitting {
    shared: Arc<Shared>,
    id: u64,
    changed: Arc<Notify>,
}

impl Sitting {
    /// Does something with what is known of the connection.
    fn with<T>(&self, act: impl FnOnce(&mut Seat) -> T) -> Option<T> {
        self.shared.lock().seats.get_mut(&self.id).map(act)
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        self.shared.lock().seats.remove(&self.id);
        // Another page's terminal may have to answer the guest now.
        self.shared.changed();
    }
}

/// Looks at the machine's screen while a page wants to see it, and from time to time at the machine, until its end.
async fn watch(shared: Arc<Shared>, controls: Controls) {
    let mut screen = Screen::default();
    let mut last_change = Instant::now();
    loop {
        loop {
            let (any, wanted) = {
                let state = shared.lock();
                let wants = |seat: &Seat| seat.wants && seat.stale.is_none();
                (!state.seats.is_empty(), state.ending || state.seats.values().any(wants))
            };
            // A page that is not seen wants no pictures, and is told all the same that the machine stands.
            if wanted || timeout(STATUS, shared.wanted.notified()).await.is_err() && any {
                break;
            }
        }
        let (tell, told) = oneshot::channel();
        controls.look(screen, move |view| _ = tell.send(view));
        let Ok(view) = told.await else { break };
        shared.lock().seen(&view);
        shared.changed();
        if view.changed.is_some() {
            last_change = Instant::now();
        }
        screen = view.screen;
        sleep(LIVELY).await;
        if last_change.elapsed() >= QUIET_AFTER
            && timeout(QUIET - LIVELY, shared.lively.notified()).await.is_ok()
        {
            last_change = Instant::now();
        }
    }
    if let Ok(last) = controls.picture() {
        shared.lock().show(&last, 0..last.height);
    }
    shared.lock().over = true;
    shared.changed();
    // Those who are there hear of it; the session ends all of this.
    std::future::pending().await
}

/// Gives the machine an input as soon as it has room for it; says whether it took it in time.
async fn give(controls: &Controls, input: Input) -> bool {
    let start = Instant::now();
    loop {
        let (tell, told) = oneshot::channel();
        let input = input.clone();
        controls.with_soon(move |computer| _ = tell.send(computer.input(&input)));
        match told.await {
            Ok(Accepted::Some(0)) if start.elapsed() < TYPE_PATIENCE => sleep(TYPE_AGAIN).await,
            Ok(Accepted::Some(_) | Accepted::NoDevice | Accepted::Refused) | Err(_) => return false,
            Ok(Accepted::All) => return true,
        }
    }
}

/// Types a text as on a US keyboard; characters that it has not are left out. Says whether the guest took it.
async fn type_text(controls: &Controls, text: &str) -> bool {
    let strokes = text.chars().filter_map(|character| env86_core::keys::typed(character).ok());
    for stroke in strokes.flatten() {
        if !give(controls, stroke).await {
            return false;
        }
    }
    true
}

/// Lets in who comes.
async fn welcome(listener: TcpListener, site: Arc<Site>, shared: Arc<Shared>, controls: Controls) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let places = Arc::new(Semaphore::new(VIEWERS));
    loop {
        let Ok(handshake) = handshakes.clone().acquire_owned().await else { return };
        let Ok((stream, from)) = accepted(listener.accept().await).await else { continue };
        let (site, shared, controls, places) =
            (site.clone(), shared.clone(), controls.clone(), places.clone());
        tokio::spawn(async move {
            let entered = timeout(HANDSHAKE, enter(stream, &site, &places)).await;
            drop(handshake);
            let Ok(Some(Entered { socket, access, is_page, _place })) = entered else { return };
            debug!(target: "pages", %from, ?access, is_page, "Somebody looks at the machine");
            if is_page {
                viewer::serve(socket, &site.options, &shared, controls, access).await;
            } else {
                ctl::serve(socket, &site.options, &shared, controls, access).await;
            }
            debug!(target: "pages", %from, "Somebody has gone");
        });
    }
}

/// The bytes of a request that was read, and what follows it; and the way back.
type Stream = tokio::io::Join<tokio::io::Chain<io::Cursor<Vec<u8>>, OwnedReadHalf>, OwnedWriteHalf>;
type Socket = WebSocketStream<Stream>;

/// Somebody with a WebSocket.
struct Entered {
    socket: Socket,
    access: Access,
    /// It is a page, and no program.
    is_page: bool,
    _place: OwnedSemaphorePermit,
}

/// Reads what a connection wants, and answers that unless it is a WebSocket that may come in.
async fn enter(mut stream: TcpStream, site: &Site, places: &Arc<Semaphore>) -> Option<Entered> {
    // Without it messages come later, but they come.
    let _ = stream.set_nodelay(true);
    let head = Head::read(&mut stream).await?;
    let asked = head.asked();
    let access = site.door.access(asked.url);
    let place = match (head.wants_socket(), asked.path()) {
        _ if site.door.refuses(&asked).is_some() => None,
        (true, CONTROL) if access.is_some() => places.clone().try_acquire_owned().ok(),
        _ => None,
    };
    let (Some(access), Some(_place)) = (access, place) else {
        let mut bytes = Vec::new();
        let answer = site.answer(&asked, access, head.wants_socket());
        let no_body = *asked.method == tiny_http::Method::Head;
        // With the older version the answer's end is the connection's. Who wants a WebSocket knows the newer one only.
        let version = if head.wants_socket() { HTTPVersion(1, 1) } else { HTTPVersion(1, 0) };
        answer.raw_print(&mut bytes, version, asked.headers, no_body, None).ok()?;
        stream.write_all(&bytes).await.ok()?;
        stream.shutdown().await.ok()?;
        return None;
    };
    let is_page = head.speaks(viewer::PROTOCOL);
    let (reader, writer) = stream.into_split();
    let stream = join(tokio::io::AsyncReadExt::chain(io::Cursor::new(head.bytes), reader), writer);
    let config = WebSocketConfig::default()
        .max_message_size(Some(LONGEST_MESSAGE))
        .max_frame_size(Some(LONGEST_MESSAGE))
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MOST_WRITTEN);
    #[expect(clippy::result_large_err, reason = "the crate's signature")]
    let choose = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        if is_page {
            let protocol = HeaderValue::from_static(viewer::PROTOCOL);
            response.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        }
        Ok(response)
    };
    let socket = accept_hdr_async_with_config(stream, choose, Some(config)).await.ok()?;
    Some(Entered { socket, access, is_page, _place })
}

impl Site {
    /// The answer to what does not become a WebSocket.
    fn answer(&self, asked: &Asked, access: Option<Access>, wants_socket: bool) -> ResponseBox {
        if let Some(reason) = self.door.refuses(asked) {
            return web::words(403, reason);
        }
        if let Some(refusal) = asked.refused_method() {
            return refusal;
        }
        let wants_page = asked.path() == PAGE;
        if (wants_page || asked.path() == CONTROL) && access.is_none() {
            return web::words(403, "The token in the URL is missing or wrong; `Console URL` has it\n");
        }
        if asked.path() == CONTROL {
            return match wants_socket {
                true => web::words(503, "As many look at the machine as may\n"),
                false => web::words(400, "This is for WebSockets\n"),
            };
        }
        let name = match asked.path() {
            PAGE => INDEX,
            "" | INDEX => return web::words(404, "The machine is at the address that `Console URL` says\n"),
            other => other,
        };
        let Some(file) = self.options.files.get(name) else { return web::words(404, "Not found\n") };
        let mut answer =
            web::file(asked, file).unwrap_or_else(|_| web::words(500, "A file cannot be read\n"));
        // The address has the token.
        answer.add_header(header("Referrer-Policy", "no-referrer"));
        answer
    }
}
