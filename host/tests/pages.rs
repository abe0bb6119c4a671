//! `env86 boot --console-url`: the machine that tests itself, in pages and steered by programs.

#![cfg(feature = "net")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use guest86::call::{Call, Reply};
use guest86::mux::{Config, Event, Mux};
use guest86::value::{Values, to_bytes};
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::{IntoClientRequest, client};
use tokio_tungstenite::tungstenite::protocol::WebSocket;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::web::Place;

/// Far more than anything here needs, on any machine. It catches hangs.
const LIMIT: Duration = Duration::from_secs(240);
/// The end of what the guest shows.
const DONE: &str = "Esc switches the machine off";
/// Esc goes down.
const ESCAPE: u8 = 1;

/// A machine that is shown, which ends with this.
struct Shown {
    child: Child,
    /// Without and with the right to use it.
    view: String,
    url: String,
    _place: Place,
}

impl Shown {
    fn start(flags: &[&str]) -> Self {
        let place = Place::new();
        let mut command = place.command(&["boot", "--no-console", "--console-url"]);
        let mut child = command.args(flags).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut next = |start: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(start).unwrap_or_else(|| panic!("{line}")).to_owned()
        };
        let (url, view) = (next("Console URL: "), next("Console URL, only to look: "));
        // What it says besides must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, view, url, _place: place }
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap().split('/').next().unwrap()
    }

    fn token(url: &str) -> &str {
        url.split_once("?token=").unwrap().1
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// The status and all of an answer.
    fn asked(&self, request: &str) -> (u16, String) {
        let mut stream = self.stream();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        (answer.split(' ').nth(1).unwrap_or("0").parse().unwrap(), answer)
    }

    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        self.asked(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address()))
    }

    /// A WebSocket, or the status of the answer.
    fn socket(&self, token: &str, protocol: Option<&str>, origin: Option<&str>) -> Result<Socket, u16> {
        let url = format!("ws://{}/ctl?token={token}", self.address());
        let mut request = url.into_client_request().unwrap();
        let headers = [("Sec-WebSocket-Protocol", protocol), ("Origin", origin)];
        for (name, value) in headers {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        match client(request, self.stream()) {
            Ok((socket, _)) => Ok(socket),
            Err(error) => match error {
                tokio_tungstenite::tungstenite::HandshakeError::Failure(Error::Http(answer)) => {
                    Err(answer.status().as_u16())
                }
                other => panic!("{other}"),
            },
        }
    }

    /// A page that has been greeted.
    fn page(&self, url: &str) -> Viewer {
        let origin = format!("http://{}", self.address());
        let socket = self.socket(Self::token(url), Some("env86.machine"), Some(&origin)).unwrap();
        let mut viewer = Viewer { socket, said: Vec::new(), parts: Vec::new(), events: Vec::new(), last: 0 };
        viewer.until(|viewer| viewer.events.iter().any(|event| event["event"] == "hello"));
        viewer
    }

    /// Waits for the guest's tests.
    fn page_of_done(&self, url: &str) -> Viewer {
        let mut viewer = self.page(url);
        let start = Instant::now();
        while !viewer.text().contains(DONE) {
            assert!(start.elapsed() < LIMIT, "the guest has not tested the machine");
            std::thread::sleep(Duration::from_millis(50));
        }
        viewer
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Socket = WebSocket<TcpStream>;

/// A page, as far as it is one.
struct Viewer {
    socket: Socket,
    said: Vec<u8>,
    /// Parts of the picture: the six words, and a digest of the rest.
    parts: Vec<(Vec<u16>, Vec<u8>)>,
    events: Vec<Value>,
    last: u32,
}

impl Viewer {
    fn send(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).unwrap();
    }

    /// Takes a message; says whether there was one before the end.
    fn take(&mut self) -> bool {
        match self.socket.read() {
            Ok(Message::Text(text)) => self.events.push(serde_json::from_str(&text).unwrap()),
            Ok(Message::Binary(bytes)) if bytes[0] == 1 => self.said.extend(&bytes[1..]),
            Ok(Message::Binary(bytes)) => {
                assert_eq!(bytes[0], 2);
                let word = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
                let mut content = vec![bytes[13]];
                flate2::read::ZlibDecoder::new(&bytes[14..]).read_to_end(&mut content).unwrap();
                self.parts.push((bytes[1..13].chunks(2).map(word).collect(), content));
            }
            Ok(Message::Close(_)) | Err(_) => return false,
            Ok(_) => {}
        }
        true
    }

    #[track_caller]
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(self.take() && start.elapsed() < LIMIT, "{:?}", self.events);
        }
    }

    fn call(&mut self, method: &str, args: Value) -> Result<Value, String> {
        self.last += 1;
        let id = self.last;
        self.send(json!({"id": id, "method": method, "args": args}));
        let answer = |viewer: &Self| viewer.events.iter().find(|event| event["id"] == id).cloned();
        self.until(|viewer| answer(viewer).is_some());
        let answer = answer(self).unwrap();
        answer["error"].as_str().map_or(Ok(answer["value"].clone()), |error| Err(error.to_owned()))
    }

    fn text(&mut self) -> String {
        let lines = self.call("screenText", Value::Null).unwrap();
        let lines = lines.as_array().into_iter().flatten().filter_map(Value::as_str);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The first part of the picture, which is all of it.
    fn picture(&mut self) -> (Vec<u16>, Vec<u8>) {
        self.send(json!({"method": "nextFrame"}));
        self.until(|viewer| !viewer.parts.is_empty());
        self.parts.pop().unwrap()
    }

    /// Waits for the end of the connection.
    fn end(&mut self) {
        while self.take() {}
    }
}

#[test]
fn two_see_the_same_and_one_who_only_looks_types_nothing() {
    let mut shown = Shown::start(&[]);
    let (status, page) = shown.get(&format!("/console.html?token={}", Shown::token(&shown.url)), "");
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("Referrer-Policy: no-referrer") && page.ends_with("<!doctype html>"), "{page}");

    let mut first = shown.page_of_done(&shown.url);
    let mut second = shown.page(&shown.url);
    let picture = first.picture();
    let [width, height] = [picture.0[0], picture.0[1]];
    assert_eq!(picture.0, [width, height, 0, 0, width, height]);
    assert_eq!(second.picture(), picture);
    // Who comes late hears what COM1 has said before.
    let heard = |viewer: &Viewer| String::from_utf8_lossy(&viewer.said).contains("self-test: ");
    second.until(heard);
    first.until(heard);

    let mut looks = shown.page(&shown.view);
    assert!(looks.events[0]["data"]["view_only"].as_bool().unwrap());
    assert_eq!(looks.picture(), picture);
    looks.send(json!({"method": "sendStrokes", "args": [[ESCAPE], [ESCAPE | 0x80]]}));
    looks.send(json!({"method": "serialSend", "args": [0x1b]}));
    for (method, args) in [("stop", Value::Null), ("restart", Value::Null), ("type", json!("x"))] {
        assert_eq!(looks.call(method, args), Err("This URL only shows the machine".into()), "{method}");
    }
    assert!(looks.text().contains(DONE));

    // What one does, the others are told.
    first.call("stop", Value::Null).unwrap();
    first.send(json!({"method": "nextFrame"}));
    second.until(|viewer| viewer.events.iter().any(|event| event["data"]["paused"] == true));
    first.call("run", Value::Null).unwrap();

    // The guest gets the key, and ends.
    first.send(json!({"method": "sendStrokes", "args": [[ESCAPE], [ESCAPE | 0x80]]}));
    for viewer in [&mut first, &mut second, &mut looks] {
        viewer.end();
    }
    assert_eq!(shown.child.wait().unwrap().code(), Some(0));
}

#[test]
fn others_do_not_come_in() {
    let shown = Shown::start(&[]);
    let (token, address) = (Shown::token(&shown.url).to_owned(), shown.address().to_owned());
    let own = format!("http://{address}");
    for wrong in ["", "x", &token[1..], &format!("{token}0")] {
        assert_eq!(shown.socket(wrong, None, Some(&own)).err(), Some(403), "{wrong}");
        for path in ["console.html", "ctl"] {
            assert_eq!(shown.get(&format!("/{path}?token={wrong}"), "").0, 403, "{path} {wrong}");
        }
    }
    for origin in ["http://example.com", "null", "http://localhost:1", "https://"] {
        assert_eq!(shown.socket(&token, None, Some(origin)).err(), Some(403), "{origin}");
    }
    assert!(shown.socket(&token, None, Some(&own)).is_ok());
    assert!(shown.socket(&token, None, None).is_ok());
    let named = format!("GET /console.html?token={token} HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!(shown.asked(&named).0, 403);
    assert_eq!(shown.get(&format!("/ctl?token={token}"), "").0, 400);
    assert_eq!(shown.get("/env86.wasm", "").0, 200);
    for path in ["/", "/index.html"] {
        assert_eq!(shown.get(path, "").0, 404);
    }
    assert_eq!(shown.get("/../image/image.json", "").0, 404);
}

#[test]
fn what_is_not_understood_ends_one_connection_and_no_other() {
    let shown = Shown::start(&[]);
    let mut good = shown.page(&shown.url);
    // Half a request, and one that never ends, take no one's place.
    let mut half = shown.stream();
    half.write_all(b"GET /ctl HTTP/1.1\r\nUpgrade: websocket\r\n").unwrap();
    let mut endless = shown.stream();
    endless.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    // It may be cut off in the middle.
    let _ = endless.write_all(&b"a: b\r\n".repeat(10_000));
    let _ = endless.read(&mut [0; 64]);
    let noise = [
        Message::text("no JSON"),
        Message::text(r#"{"method": "none"}"#),
        Message::text(r#"{"method": "sendStrokes", "args": [[250]]}"#),
        Message::text(r#"{"method": "sendStrokes", "args": [[]]}"#),
        Message::text("[".repeat(100_000)),
        Message::binary(vec![0; 10]),
        Message::text(" ".repeat(1 << 20)),
    ];
    for message in noise {
        let mut bad = shown.page(&shown.url);
        // One that is too long may end it while it is being sent.
        let _ = bad.socket.send(message);
        bad.end();
    }
    for noise in [&b"noise"[..], &[104, 0, 0, 0, 0, 255, 255, 255, 255], &[0; 1000]] {
        let mut program = shown.socket(Shown::token(&shown.url), None, None).unwrap();
        program.send(Message::binary(noise.to_vec())).unwrap();
        while program.read().is_ok() {}
    }
    assert!(good.call("screenText", Value::Null).is_ok());
}

#[test]
fn keys_that_a_page_held_go_up_with_it() {
    // The guest writes what its keyboard sends to COM1.
    let shown = {
        let place = tempfile::tempdir().unwrap();
        let code = [
            0xe4, 0x64, // 00 in al, 64h        status:
            0xa8, 0x01, // 02 test al, 1        a byte?
            0x74, 0xfa, // 04 jz 00h
            0xe4, 0x60, // 06 in al, 60h
            0xba, 0xf8, 0x03, // 08 mov dx, 3F8h
            0xee, // 0B out dx, al
            0xeb, 0xf2, // 0C jmp 00h
        ];
        let rom = place.path().join("rom");
        std::fs::write(&rom, env86_tests::roms::rom(&code)).unwrap();
        Shown::start(&["--bios", rom.to_str().unwrap()])
    };
    let mut watcher = shown.page(&shown.url);
    let mut typist = shown.page(&shown.url);
    typist.call("sendStrokes", json!([[0x1e], [0xe0, 0x48]])).unwrap();
    watcher.until(|viewer| viewer.said.len() >= 3);
    drop(typist);
    watcher.until(|viewer| viewer.said.len() >= 6);
    // The order is that of the keys' numbers.
    assert_eq!(watcher.said, [0x1e, 0xe0, 0x48, 0x9e, 0xe0, 0xc8]);
}

#[test]
fn who_is_slow_holds_up_nobody_and_is_told_what_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    // The guest never stops to talk.
    let code = [
        0xba, 0xf8, 0x03, // 00 mov dx, 3F8h
        0xee, // 03 out dx, al
        0x40, // 04 inc ax
        0xeb, 0xfc, // 05 jmp 03h
    ];
    let rom = dir.path().join("rom");
    std::fs::write(&rom, env86_tests::roms::rom(&code)).unwrap();
    let shown = Shown::start(&["--bios", rom.to_str().unwrap()]);
    let mut slow = shown.page(&shown.url);
    slow.send(json!({"method": "nextFrame"}));
    let mut quick = shown.page(&shown.url);
    // More than the host's buffers between the two have room for.
    let mut heard = 0;
    while heard < 16 << 20 {
        quick.until(|viewer| !viewer.said.is_empty());
        heard += std::mem::take(&mut quick.said).len();
    }
    assert!(quick.call("screenText", Value::Null).is_ok());
    slow.until(|viewer| viewer.events.iter().any(|event| event["event"] == "lost"));
}

/// A program that makes the Go program's calls.
struct Program {
    socket: Socket,
    mux: Mux,
}

impl Program {
    fn new(shown: &Shown, url: &str) -> Self {
        let socket = shown.socket(Shown::token(url), None, None).unwrap();
        let config =
            Config { first: 0, lowest: false, accepts: false, window: 16 << 20, on_the_way: u32::MAX };
        Self { socket, mux: Mux::new(config) }
    }

    /// Carries frames both ways; gives the next event.
    fn event(&mut self) -> Event {
        loop {
            let output = std::mem::take(self.mux.output());
            if !output.is_empty() {
                self.socket.send(Message::binary(output)).unwrap();
            }
            if let Some(event) = self.mux.event() {
                return event;
            }
            if let Message::Binary(bytes) = self.socket.read().unwrap() {
                self.mux.feed(&bytes);
            }
        }
    }

    /// Calls; gives the channel, the reply and what came behind it.
    fn start(&mut self, method: &str, argument: &impl serde::Serialize) -> (u32, Reply, Values) {
        let id = self.mux.open();
        // The last of another call's may come before.
        while self.event() != Event::Confirmed(id) {}
        let call = [to_bytes(&Call { method: method.into() }), to_bytes(argument)].concat();
        assert_eq!(self.mux.send(id, &call), call.len());
        let mut values = Values::default();
        loop {
            if let Some((reply, _)) = values.read::<Reply>().unwrap() {
                return (id, reply, values);
            }
            self.more(id, &mut values);
        }
    }

    fn more(&mut self, id: u32, values: &mut Values) {
        match self.event() {
            Event::Data(to, data) if to == id => {
                self.mux.consumed(id, data.len());
                values.feed(&data);
            }
            Event::Refused(_) | Event::Reset => panic!("the channel is gone"),
            _ => {}
        }
    }

    fn call<T: serde::de::DeserializeOwned>(
        &mut self,
        method: &str,
        argument: &impl serde::Serialize,
    ) -> Result<T, String> {
        let (id, reply, mut values) = self.start(method, argument);
        assert!(!reply.goes_on);
        if let Some(error) = reply.error {
            self.mux.close(id);
            return Err(error);
        }
        loop {
            if let Some((value, _)) = values.read().unwrap() {
                self.mux.close(id);
                return Ok(value);
            }
            self.more(id, &mut values);
        }
    }
}

#[test]
fn a_program_makes_the_calls_of_the_go_program() {
    let mut shown = Shown::start(&["--memory", "64M"]);
    let mut page = shown.page_of_done(&shown.url);
    let mut program = Program::new(&shown, &shown.url);
    let config: Value = program.call("config", &()).unwrap();
    assert_eq!((&config["memory_size"], &config["NoConsole"]), (&json!(64 << 20), &json!(true)));
    program.call::<()>("loaded", &[0u8; 0]).unwrap();
    program.call::<()>("log", &["a", "b"]).unwrap();
    let png: ByteBuf = program.call("screenshot", &()).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    assert_eq!(program.call::<String>("mac", &()).unwrap().len(), 17);
    program.call::<()>("pause", &()).unwrap();
    page.send(json!({"method": "nextFrame"}));
    page.until(|page| page.events.iter().any(|event| event["data"]["paused"] == true));
    program.call::<()>("unpause", &()).unwrap();
    let state: ByteBuf = program.call("save", &()).unwrap();
    assert_eq!(state[..4], 0x8676_8676_u32.to_le_bytes());
    for (method, error) in [("setScale", "size of its own"), ("restore", "--state"), ("none", "not found")] {
        let refused = program.call::<()>(method, &()).unwrap_err();
        assert!(refused.contains(error), "{refused}");
    }

    let mut looks = Program::new(&shown, &shown.view);
    assert!(looks.call::<Value>("config", &()).is_ok());
    for method in ["pause", "save", "sendKeyboard"] {
        assert!(looks.call::<()>(method, &["\x1b"]).unwrap_err().contains("only shows"), "{method}");
    }
    // The terminal of one who only looks takes nothing, and that of the other ends the guest.
    let (tty, reply, _) = looks.start("tty", &());
    assert!(reply.goes_on && reply.error.is_none());
    looks.mux.send(tty, b"\x1b");
    assert!(looks.call::<Value>("config", &()).is_ok());
    assert!(page.text().contains(DONE));
    let (tty, reply, _) = program.start("tty", &());
    assert!(reply.goes_on && reply.error.is_none());
    program.mux.send(tty, b"\x1b");
    while program.event() != Event::Closed(tty) {}
    assert_eq!(shown.child.wait().unwrap().code(), Some(0));
}
