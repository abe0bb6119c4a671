//! The service, built for this machine, at one end of a terminal; the tests are the host at the other.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use guest86::call::{
    self, Call, Entry, Exec, FromProcess, Hello, Put, Reply, Run, RunOutput, Size, ToProcess,
};
use guest86::frame::SYNC;
use guest86::mux::{Config, Event, Mux};
use guest86::value::{Values, to_bytes};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

const CONFIG: Config =
    Config { first: 70_000, lowest: false, accepts: false, window: 1 << 20, on_the_way: 64 << 10 };

/// A host with its guest.
struct Host {
    line: File,
    mux: Mux,
    values: Values,
    eof: bool,
    closed: bool,
    service: Child,
}

impl Host {
    fn start() -> Self {
        Self::start_by(&mut Command::new(env!("CARGO_BIN_EXE_guest86")))
    }

    /// The service by a command that lacks the line's name.
    fn start_by(command: &mut Command) -> Self {
        let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&line).unwrap();
        unlockpt(&line).unwrap();
        // Before the service has the line, nothing is to be echoed.
        let mut settings = tcgetattr(&line).unwrap();
        settings.make_raw();
        tcsetattr(&line, OptionalActions::Now, &settings).unwrap();
        let path = ptsname(&line, Vec::new()).unwrap().into_string().unwrap();
        let service = command.arg(path).env("FROM_SERVICE", "yes").stdin(Stdio::null()).spawn().unwrap();
        Self {
            line: line.into(),
            mux: Mux::new(CONFIG),
            values: Values::default(),
            eof: false,
            closed: false,
            service,
        }
    }

    fn flush(&mut self) {
        let bytes = std::mem::take(self.mux.output());
        self.line.write_all(&bytes).unwrap();
    }

    /// Waits for something from the guest.
    fn turn(&mut self, id: u32) {
        self.flush();
        let mut piece = [0; 4096];
        let len = self.line.read(&mut piece).unwrap();
        self.mux.feed(&piece[..len]);
        while let Some(event) = self.mux.event() {
            match event {
                Event::Data(from, data) => {
                    self.mux.consumed(from, data.len());
                    if from == id {
                        self.values.feed(&data);
                    }
                }
                Event::Eof(from) if from == id => self.eof = true,
                Event::Closed(from) if from == id => self.closed = true,
                _ => {}
            }
        }
    }

    fn value<T: DeserializeOwned>(&mut self, id: u32) -> T {
        loop {
            if let Some((value, _)) = self.values.read().unwrap() {
                return value;
            }
            assert!(!self.closed, "closed");
            self.turn(id);
        }
    }

    fn send(&mut self, id: u32, bytes: &[u8]) {
        let mut sent = 0;
        // A program may have ended without it.
        while sent < bytes.len() && !self.mux.is_closed(id) {
            sent += self.mux.send(id, &bytes[sent..]);
            if sent < bytes.len() {
                self.turn(id);
            }
        }
        self.flush();
    }

    fn open(&mut self) -> u32 {
        (self.values, self.eof, self.closed) = (Values::default(), false, false);
        let id = self.mux.open();
        while self.mux.room(id) == 0 {
            self.turn(id);
        }
        id
    }

    /// A call up to its reply.
    fn begin(&mut self, method: &str, argument: &impl Serialize) -> (u32, Reply) {
        let id = self.open();
        self.send(id, &to_bytes(&Call { method: method.into() }));
        self.send(id, &to_bytes(argument));
        let reply = self.value(id);
        (id, reply)
    }

    fn call<T: DeserializeOwned>(&mut self, method: &str, argument: &impl Serialize) -> Result<T, String> {
        let (id, reply) = self.begin(method, argument);
        assert!(!reply.goes_on);
        let result = match reply.error {
            None => Ok(self.value(id)),
            Some(error) => Err(error),
        };
        self.mux.close(id);
        result
    }

    /// A program's output, errors and end.
    fn exec(&mut self, exec: &Exec, input: &[u8]) -> (Vec<u8>, Vec<u8>, Result<i32, i32>) {
        let (id, reply) = self.begin(call::EXEC, exec);
        assert_eq!(reply, Reply { error: None, goes_on: true });
        let pid: u32 = self.value(id);
        assert!(pid > 0);
        for piece in input.chunks(8192) {
            self.send(id, &to_bytes(&ToProcess::In(ByteBuf::from(piece))));
        }
        self.send(id, &to_bytes(&ToProcess::Eof));
        self.rest(id)
    }

    fn rest(&mut self, id: u32) -> (Vec<u8>, Vec<u8>, Result<i32, i32>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.value(id) {
                FromProcess::Out(bytes) => out.extend(bytes.into_vec()),
                FromProcess::Err(bytes) => err.extend(bytes.into_vec()),
                FromProcess::End(end) => {
                    self.mux.close(id);
                    return (out, err, end);
                }
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

fn sh(script: &str) -> Exec {
    Exec { program: "sh".into(), args: vec!["-c".into(), script.into()], ..Exec::default() }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn it_tells_what_it_is_and_what_it_is_not() {
    let mut host = Host::start();
    let version: String = host.call(call::VERSION, &()).unwrap();
    assert!(version.starts_with(call::OURS), "{version}");
    assert_eq!(host.call::<String>("/vm/Version", &Vec::<u8>::new()).unwrap(), version);
    assert_eq!(host.call::<()>("vm.Nope", &()).unwrap_err(), "not found: /vm/Nope");
    assert_eq!(host.call::<()>("vm.version", &()).unwrap_err(), "not found: /vm/version");
    assert_eq!(host.call::<()>(call::STAT, &()).unwrap_err(), "fn: expected 1 params, got 0");
}

#[test]
fn programs_have_streams_statuses_and_signals() {
    let mut host = Host::start();
    let (out, err, end) = host.exec(&sh("echo out; echo err >&2; exit 3"), b"");
    assert_eq!((text(&out), text(&err), end), ("out\n", "err\n", Ok(3)));
    let (_, _, end) = host.exec(&sh("kill -9 $$"), b"");
    assert_eq!(end, Err(9));
    // What a program leaves behind does not hold up its end, and all that it has written comes before it.
    let (out, _, end) = host.exec(&sh("sleep 60 & seq 1 3000"), b"");
    assert_eq!((text(&out).lines().count(), text(&out).lines().last(), end), (3000, Some("3000"), Ok(0)));
    let none = Exec { program: "no-such-program".into(), ..Exec::default() };
    let (_, reply) = host.begin(call::EXEC, &none);
    let error = reply.error.unwrap();
    assert!(call::is_missing(&error) && call::is_programs(&error), "{error}");
    let (_, reply) = host.begin(call::EXEC, &Exec { program: "/etc/passwd".into(), ..Exec::default() });
    let error = reply.error.unwrap();
    assert!(!call::is_missing(&error) && call::is_programs(&error), "{error}");
}

#[test]
fn much_passes_through_a_program_unchanged() {
    let mut host = Host::start();
    let mut data: Vec<u8> = (0..2_000_000u32).map(|n| (n.wrapping_mul(n) >> 9) as u8).collect();
    data[500_000..500_016].copy_from_slice(&SYNC);
    let cat = Exec { program: "cat".into(), ..Exec::default() };
    let (out, _, end) = host.exec(&cat, &data);
    assert!(out == data && end == Ok(0), "{} {end:?}", out.len());
}

#[test]
fn a_program_has_its_environment_and_directory() {
    let mut host = Host::start();
    let env = vec![("A".to_owned(), "a b".to_owned())];
    let exec = Exec { env: env.clone(), dir: Some("/tmp".into()), ..sh("echo \"$A\" $FROM_SERVICE $PWD") };
    assert_eq!(text(&host.exec(&exec, b"").0), "a b yes /tmp\n");
    let exec = Exec { env, env_clear: true, program: "/usr/bin/env".into(), ..Exec::default() };
    assert_eq!(text(&host.exec(&exec, b"").0), "A=a b\n");
    let (_, reply) = host.begin(call::EXEC, &Exec { dir: Some("/none".into()), ..sh(":") });
    assert_eq!(reply.error.unwrap(), "chdir /none: no such file or directory");
    let (_, reply) = host.begin(call::EXEC, &Exec { user: Some("no-one-here".into()), ..sh(":") });
    assert!(reply.error.unwrap().contains("no-one-here"));
}

#[test]
fn a_terminal_has_a_size_an_end_of_input_and_signals() {
    let mut host = Host::start();
    let terminal = Some(Size { rows: 33, columns: 101 });
    let (id, _) = host.begin(
        call::EXEC,
        &Exec {
            terminal,
            ..sh("stty size; cat; trap 'stty size; exit 4' WINCH; \
        echo ready; while :; do sleep 0.05; done")
        },
    );
    let _: u32 = host.value(id);
    host.send(id, &to_bytes(&ToProcess::In(ByteBuf::from("no newline"))));
    host.send(id, &to_bytes(&ToProcess::Eof));
    let mut seen = Vec::new();
    while !text(&seen).contains("ready") {
        match host.value(id) {
            FromProcess::Out(bytes) => seen.extend(bytes.into_vec()),
            other => panic!("{other:?}"),
        }
    }
    host.send(id, &to_bytes(&ToProcess::Resize(Size { rows: 5, columns: 6 })));
    let (out, _, end) = host.rest(id);
    seen.extend(out);
    let seen = text(&seen);
    // The terminal may echo before the program says anything.
    assert!(seen.contains("33 101\r\n") && seen.trim_end().ends_with("5 6"), "{seen:?}");
    assert_eq!((seen.matches("no newline").count(), end), (2, Ok(4)), "{seen:?}");
}

#[test]
fn signals_reach_the_program_and_its_group() {
    let mut host = Host::start();
    let (id, _) = host.begin(call::EXEC, &sh("sleep 60 | cat; exit 1"));
    let _: u32 = host.value(id);
    host.send(id, &to_bytes(&ToProcess::Signal(2)));
    let (_, _, end) = host.rest(id);
    assert_eq!(end, Err(2));
}

#[test]
fn programs_heed_signals_that_the_service_ignores() {
    // So does a shell what it starts in the background.
    let service = "trap '' INT QUIT; exec env --block-signal=USR1 \"$0\" \"$1\"";
    let mut host = Host::start_by(Command::new("sh").args(["-c", service, env!("CARGO_BIN_EXE_guest86")]));
    for signal in [2, 3, 10] {
        let (out, _, end) = host.exec(&sh(&format!("kill -{signal} $$; echo goes on")), b"");
        assert_eq!((text(&out), end), ("", Err(signal)));
    }
}

#[test]
fn a_program_ends_with_its_channel() {
    let mut host = Host::start();
    let folder = std::env::temp_dir().join(format!("guest86-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let fifo = folder.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // As long as the program lives, this has no end.
    let script = format!("exec 3> {}; echo up; while :; do sleep 1; done", fifo.display());
    let (id, _) = host.begin(call::EXEC, &sh(&script));
    let mut held = File::open(&fifo).unwrap();
    let _: u32 = host.value(id);
    host.mux.close(id);
    host.flush();
    held.read_to_end(&mut Vec::new()).unwrap();
    // A host that comes after one that has gone ends what that has left.
    let (id, _) = host.begin(call::EXEC, &sh(&script));
    let mut held = File::open(&fifo).unwrap();
    let _: u32 = host.value(id);
    host.mux = Mux::new(Config { first: 9_000_000, ..CONFIG });
    let (_, reply) = host.begin(call::HELLO, &Hello::default());
    assert_eq!(reply, Reply::default());
    held.read_to_end(&mut Vec::new()).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_new_host_comes_through_after_half_a_frame() {
    let mut host = Host::start();
    let id = host.open();
    host.mux.send(id, &[0; 1000]);
    let half = host.mux.output()[..500].to_vec();
    host.line.write_all(&half).unwrap();
    host.line.write_all(&SYNC).unwrap();
    host.mux = Mux::new(Config { first: 5_000_000, ..CONFIG });
    assert!(host.call::<String>(call::VERSION, &()).unwrap().starts_with(call::OURS));
}

#[test]
fn the_go_host_is_served() {
    let mut host = Host::start();
    let run = Run {
        name: "sh".into(),
        args: Some(vec!["-c".into(), "read x; echo got $x; echo bad >&2; exit 3".into()]),
        pty: false,
        ..Run::default()
    };
    for pty in [false, true] {
        let (id, reply) = host.begin(call::RUN, &Run { pty, ..run.clone() });
        assert_eq!(reply, Reply { error: None, goes_on: true });
        let _: u32 = host.value(id);
        host.send(id, b"ok\n");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = loop {
            let said: RunOutput = host.value(id);
            out.extend(said.stdout.unwrap_or_default().into_vec());
            err.extend(said.stderr.unwrap_or_default().into_vec());
            if let Some(status) = said.status {
                break status;
            }
        };
        let wanted = if pty { ("ok\r\ngot ok\r\nbad\r\n", "") } else { ("got ok\n", "bad\n") };
        assert_eq!(((text(&out), text(&err)), status), (wanted, 3));
        while !host.closed {
            host.turn(id);
        }
        host.mux.close(id);
    }
    let (id, reply) = host.begin(call::TERMINAL, &());
    assert!(reply.goes_on);
    let () = host.value(id);
    host.send(id, b"exit\n");
    while !host.closed {
        host.turn(id);
    }
}

#[test]
fn files_are_made_read_and_removed() {
    let mut host = Host::start();
    let folder = format!("{}/guest86-files-{}", std::env::temp_dir().display(), std::process::id());
    let path = format!("{folder}/a/f");
    host.call::<()>(call::MAKE_DIR, &[format!("{folder}/a")]).unwrap();
    host.call::<()>(call::WRITE_FILE, &(&path, ByteBuf::from("hello"))).unwrap();
    let entry: Entry = host.call(call::STAT, &[&path]).unwrap();
    assert_eq!((entry.is_dir, entry.size, &*entry.name), (false, 5, "f"));
    assert_eq!(host.call::<ByteBuf>(call::READ_FILE, &[&path]).unwrap(), ByteBuf::from("hello"));
    let list: Vec<Entry> = host.call(call::READ_DIR, &[&folder]).unwrap();
    assert!(list.len() == 1 && list[0].is_dir && list[0].name == "a");
    host.call::<()>(call::RENAME, &(&path, format!("{folder}/g"))).unwrap();
    assert_eq!(host.call::<Option<Vec<Entry>>>(call::READ_DIR, &[format!("{folder}/a")]).unwrap(), None);
    let error = host.call::<Entry>(call::STAT, &[&path]).unwrap_err();
    assert_eq!(error, format!("stat {path}: no such file or directory"));

    // In pieces, with permissions and time.
    let data: Vec<u8> = (0..300_000u32).map(|n| (n >> 3) as u8).collect();
    let put = Put { path: path.clone(), mode: 0o750, mtime: Some(1_000_000_000) };
    let (id, reply) = host.begin(call::PUT, &put);
    assert!(reply.goes_on);
    let () = host.value(id);
    host.send(id, &data);
    host.mux.send_eof(id);
    assert_eq!(host.value::<Reply>(id), Reply::default());
    host.mux.close(id);
    let (id, _) = host.begin(call::GET, &path);
    let info: call::FileInfo = host.value(id);
    assert_eq!((info.mode, info.mtime, info.size), (0o750, 1_000_000_000, 300_000));
    while !host.closed {
        host.turn(id);
    }
    assert!(host.values.take_rest() == data);
    host.mux.close(id);
    host.call::<()>(call::REMOVE_ALL, &[&folder]).unwrap();
    host.call::<()>(call::REMOVE_ALL, &[&folder]).unwrap();
    assert!(!std::path::Path::new(&folder).exists());
}

#[test]
fn a_connection_is_carried_both_ways() {
    let mut host = Host::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let far = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).unwrap();
        asked.reverse();
        stream.write_all(&asked).unwrap();
    });
    let (id, reply) = host.begin(call::DIAL, &address);
    assert!(reply.goes_on, "{reply:?}");
    let () = host.value(id);
    host.send(id, b"abc");
    host.mux.send_eof(id);
    while !host.closed {
        host.turn(id);
    }
    assert_eq!(host.values.take_rest(), b"cba");
    host.mux.close(id);
    far.join().unwrap();
    // A port that is taken, so that no one else listens there, and where this test never listens: a listener
    // that has been closed may still be open in a process that another test is just starting.
    let deaf = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&deaf, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddrV4::try_from(getsockname(&deaf).unwrap()).unwrap().to_string();
    let (_, reply) = host.begin(call::DIAL, &address);
    assert!(reply.error.unwrap().contains("connection refused"));
}

#[test]
fn it_ends_with_its_line() {
    let mut host = Host::start();
    let _: String = host.call(call::VERSION, &()).unwrap();
    host.line = File::open("/dev/null").unwrap();
    let status = host.service.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}
