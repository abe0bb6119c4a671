//! Drives a guest over its first serial port, as a person at a terminal would.
//!
//! The machine is the release build of `env86` with the demo image, both found below `target/` (or where
//! `ENV86_BIN` and `ENV86_IMAGE` say). With `ENV86_TEST_MACHINE` it is any shell command that has COM1 on
//! its stdin and stdout, so that another emulator can tell whose fault a failure is.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub mod media;
pub mod roms;

/// What the demo image's shell prints when it waits for a command.
pub const PROMPT: &str = "root@env86:~# ";

/// Typed there, it gives a shell that neither prompts nor echoes, once [`QUIET_SHELL`] has come. printf puts
/// together what the echo of the command must not contain.
pub const QUIET: &str =
    "HISTFILE=; stty -echo; export PS1= PS2= TERM=dumb; printf 'quiet-%s\\n' shell; exec sh\n";

/// What the shell prints that [`QUIET`] gives.
pub const QUIET_SHELL: &str = "quiet-shell\r\n";

/// How long a boot may take. Generous: CI machines are small and shared.
pub const BOOT_LIMIT: Duration = Duration::from_secs(240);

const TEST_MACHINE: &str = "ENV86_TEST_MACHINE";

/// Last of the checks in `guest/`, because it judges what all the others left in the kernel's log.
const LAST_CHECK: &str = "kernel-log";

/// Why a guest did not do what a test expected, with the end of what it printed.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// What tests return.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// A path from the environment or below the target folder; an error that names the remedy if it is not there.
fn find(variable: &str, default: &str, remedy: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).map_or_else(|| target().join(default), PathBuf::from);
    // Another machine brings an image of its own.
    if path.exists() || env::var_os(TEST_MACHINE).is_some() {
        Ok(path)
    } else {
        Err(Failure(format!("{} is missing: run `{remedy}`", path.display())))
    }
}

/// The program under test.
pub fn program() -> Result<PathBuf> {
    find("ENV86_BIN", "release/env86", "cargo build --release")
}

/// The demo image with the kernel for machines without PAE.
pub fn image() -> Result<PathBuf> {
    find("ENV86_IMAGE", "images/debian/image", "make image")
}

/// The demo image with the PAE kernel.
pub fn pae_image() -> Result<PathBuf> {
    find("ENV86_PAE_IMAGE", "images/debian-pae/image", "make image")
}

/// The image of `images/net`, with the programs of the network's tests.
pub fn net_image() -> Result<PathBuf> {
    find("ENV86_NET_IMAGE", "images/net/image", "make image-net")
}

/// The directory tree that the demo image was made from.
pub fn image_root() -> Result<PathBuf> {
    find("ENV86_IMAGE_ROOT", "images/debian/root", "make image")
}

/// The directory tree of `images/net`, which has OpenRC, too.
pub fn net_image_root() -> Result<PathBuf> {
    find("ENV86_NET_IMAGE_ROOT", "images/net/root", "make image-net")
}

/// The path of something that is built from the sources in `system/`.
///
/// # Panics
/// If there is no room for it below the target folder.
#[must_use]
pub fn built(name: &str) -> String {
    let folder = target().join("tmp/system");
    std::fs::create_dir_all(&folder).expect("a folder below target/");
    folder.join(name).to_string_lossy().into_owned()
}

/// Runs one of GNU binutils in the folder `system/`.
///
/// # Panics
/// If it is not there or fails: no test that needs it can pass then.
pub fn binutil(name: &str, args: &[&str]) {
    let output = Command::new(name).args(args).current_dir(workspace().join("tests/system")).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}; GNU binutils are needed"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where `make peers` puts other people's emulators, whether any are there or not.
#[must_use]
pub fn peers() -> PathBuf {
    env::var_os("ENV86_PEERS").map_or_else(|| target().join("peers"), PathBuf::from)
}

/// The npm package v86, which Node runs.
#[derive(Debug)]
pub struct V86 {
    /// The package's folder.
    package: PathBuf,
    /// The folder of the SeaBIOS that it boots with.
    seabios: PathBuf,
}

impl V86 {
    /// `None`, and a word that cannot be overlooked, where it is not there for a test.
    #[must_use]
    pub fn for_test(test: &str) -> Option<Self> {
        let peers = peers().join("v86");
        let v86 = Self { package: peers.join("node_modules/v86"), seabios: peers.join("seabios") };
        let node = Command::new("node").arg("--version").output().is_ok_and(|out| out.status.success());
        if !node || !v86.package.exists() || !v86.seabios.exists() {
            skipped(
                test,
                &format!("there is no Node, or no v86 and SeaBIOS in {} (`make peers`)", peers.display()),
            );
            return None;
        }
        Some(v86)
    }

    /// A plan for tests/peers/v86/machine.mjs, with the entries that say where v86 is.
    #[must_use]
    pub fn plan(&self, mut plan: Value) -> Value {
        plan["v86"] = json!(self.package);
        plan["bios"] = json!(self.seabios.join("bios.bin"));
        plan["vga_bios"] = json!(self.seabios.join("vgabios.bin"));
        plan
    }
}

/// Answers each HTTP request at a free port of the loopback with these bytes, until the process ends; gives the
/// port.
pub fn serve_http(body: Vec<u8>) -> Result<u16> {
    serve_http_at(Ipv4Addr::LOCALHOST.into(), body)
}

/// As [`serve_http`], at another address.
pub fn serve_http_at(address: IpAddr, body: Vec<u8>) -> Result<u16> {
    let listener = TcpListener::bind((address, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let body = body.clone();
            // A client that has gone away needs no answer.
            thread::spawn(move || -> io::Result<()> {
                read_request(&mut stream)?;
                write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
                stream.write_all(&body)
            });
        }
    });
    Ok(port)
}

/// An HTTP request, to the end of its headers.
fn read_request(stream: &mut TcpStream) -> io::Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&request).into_owned())
}

/// Answers HTTP requests for files below a folder, as [`serve_http`] does.
pub fn serve_folder(folder: PathBuf) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let folder = folder.clone();
            thread::spawn(move || -> io::Result<()> {
                let request = read_request(&mut stream)?;
                let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches(['/', '.']);
                match std::fs::read(folder.join(name)) {
                    Ok(body) => {
                        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
                        stream.write_all(&body)
                    }
                    Err(_) => stream.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
                }
            });
        }
    });
    Ok(port)
}

/// A command whose process ends with the thread that starts it, however that ends: a test that is killed
/// leaves nothing behind. Where the host has no setpriv(1), which is a part of Linux's util-linux, it is the
/// plain command.
pub fn bound_to_us(program: impl AsRef<OsStr>) -> Command {
    let binder = Path::new("/usr/bin/setpriv");
    if !binder.exists() {
        return Command::new(program);
    }
    // The thread that started it may have ended before it was bound, which its parent tells.
    let script = format!("[ $PPID = {} ] && exec \"$0\" \"$@\"", std::process::id());
    let mut command = Command::new(binder);
    command.args(["--pdeathsig", "KILL", "--", "sh", "-c", &script]).arg(program);
    command
}

/// Says that a test could not be done, past the test harness, which swallows what is printed by tests that
/// pass.
pub fn skipped(test: &str, why: &str) {
    // Nobody is left to be told if this fails.
    _ = writeln!(io::stderr(), "\nSKIPPED: {test}: {why}\n");
}

/// The machine as a WebAssembly module, whether it was built or not.
#[must_use]
pub fn wasm_module() -> PathBuf {
    target().join("wasm32-unknown-unknown/web/env86_bench_wasm.wasm")
}

/// The package for pages and Node, whether it was made or not.
#[must_use]
pub fn web_package() -> PathBuf {
    target().join("web/env86.mjs")
}

/// The file in a folder whose name begins like this.
pub fn only_file(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut entries = std::fs::read_dir(folder)?.flatten();
    let begins = |name: &OsStr| name.as_encoded_bytes().starts_with(prefix.as_bytes());
    let found = entries.find(|entry| begins(&entry.file_name())).map(|entry| entry.path());
    found.ok_or_else(|| Failure(format!("there is no {prefix} in {}", folder.display())))
}

/// A file's MD5 sum, in letters.
pub fn md5_of(path: &Path) -> Result<String> {
    let out = Command::new("md5sum").stdin(std::fs::File::open(path)?).output()?;
    Ok(String::from_utf8_lossy(&out.stdout).split(' ').next().unwrap_or_default().to_owned())
}

/// A running machine whose COM1 a test reads and writes.
pub struct Guest {
    process: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    /// How much of `seen` the test has dealt with.
    read: usize,
}

impl Guest {
    /// Starts `env86 boot IMAGE --ttyS0 --no-console` with more flags, its input a pipe.
    pub fn boot<S: AsRef<OsStr>>(image: &Path, flags: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::start(match env::var_os(TEST_MACHINE) {
            Some(machine) => {
                let mut shell = bound_to_us("sh");
                shell.arg("-c").arg(format!("exec {}", machine.to_string_lossy()));
                shell
            }
            None => {
                let mut env86 = bound_to_us(program()?);
                env86.arg("boot").arg(image).args(["--ttyS0", "--no-console"]).args(flags);
                env86
            }
        })
    }

    /// Starts a machine that has COM1 on its standard input and output.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take();
        let mut stdout = process.stdout.take().ok_or_else(|| Failure("no stdout".into()))?;
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut chunk) {
                if sender.send(chunk[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, input, output, seen: Vec::new(), read: 0 })
    }

    /// Boots and waits for the shell, which it then replaces by one that neither prompts nor echoes.
    pub fn shell<S: AsRef<OsStr>>(image: &Path, flags: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut guest = Self::boot(image, flags)?;
        guest.wait_for(PROMPT, BOOT_LIMIT)?;
        guest.line(QUIET.trim_end())?;
        guest.wait_for(QUIET_SHELL, Duration::from_secs(60))?;
        Ok(guest)
    }

    /// The machine's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Types one line.
    pub fn line(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or_else(|| Failure("the input is closed".into()))?;
        input.write_all(text.as_bytes())?;
        input.write_all(b"\n")?;
        Ok(input.flush()?)
    }

    /// Closes the machine's standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until the guest prints `text` and returns what it printed before.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let rest = &self.seen[self.read..];
            if let Some(at) = rest.windows(text.len()).position(|window| window == text.as_bytes()) {
                let before = String::from_utf8_lossy(&rest[..at]).into_owned();
                self.read += at + text.len();
                return Ok(before);
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.seen.extend(chunk),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure(&format!("no {text:?} within {limit:?}")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.failure(&format!("the machine ended before it printed {text:?}")));
                }
            }
        }
    }

    /// Runs a command in the quiet shell and returns its output; an error if its status is not 0.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<String> {
        self.line(&format!("{{ {command}\n}} 2>&1; echo \"status=$?;\""))?;
        let output = self.wait_for("status=", limit)?.replace("\r\n", "\n");
        let status = self.wait_for(";\r\n", Duration::from_secs(10))?;
        if status == "0" { Ok(output) } else { Err(self.failure(&format!("status {status} of: {command}"))) }
    }

    /// Waits until the machine's process ends by itself; its status and all that it printed since.
    pub fn wait_for_end(mut self, limit: Duration) -> Result<(ExitStatus, String)> {
        let deadline = Instant::now() + limit;
        loop {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.seen.extend(chunk),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure(&format!("still running after {limit:?}")));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.process.wait()?;
        Ok((status, String::from_utf8_lossy(&self.seen[self.read..]).into_owned()))
    }

    /// Sends one check from `guest/` and runs it; the line that it printed.
    pub fn check(&mut self, name: &str, limit: Duration) -> Result<String> {
        let folder = workspace().join("tests/guest");
        let script = std::fs::read_to_string(folder.join(name).with_extension("sh"))?;
        let prelude = std::fs::read_to_string(folder.join("lib.sh"))?;
        let place = format!("/var/tmp/check-{name}");
        self.run(&format!("rm -rf {place} && mkdir -p {place}/run"), Duration::from_secs(60))?;
        self.line(&format!("cat > {place}/script <<'END-OF-CHECK'\n{prelude}\n{script}\nEND-OF-CHECK"))?;
        let verdict = format!(
            "cd {place}/run && if sh -eux ../script > ../log 2>&1 < /dev/null; then echo PASS {name}; \
             else echo FAIL {name}: $(tail -n 4 ../log | cut -c 1-300); fi; cd /; rm -rf {place}"
        );
        self.run(&verdict, limit).map(|line| line.trim().to_owned())
    }

    /// Runs every check in `guest/` and returns their lines. A check that hangs ends the list.
    pub fn checks(&mut self, limit: Duration) -> Result<Vec<String>> {
        let mut names: Vec<String> = std::fs::read_dir(workspace().join("tests/guest"))?
            .filter_map(|entry| {
                entry.ok()?.path().file_name()?.to_str()?.strip_suffix(".sh").map(str::to_owned)
            })
            .filter(|name| name != "lib")
            .collect();
        names.sort_by_key(|name| (name == LAST_CHECK, name.clone()));
        let mut lines = Vec::new();
        for name in names {
            let start = Instant::now();
            match self.check(&name, limit) {
                Ok(line) => lines.push(format!("{line} ({:.1} s)", start.elapsed().as_secs_f32())),
                Err(failure) => {
                    lines.push(format!("FAIL {name}: {failure}"));
                    break;
                }
            }
        }
        Ok(lines)
    }

    fn failure(&self, what: &str) -> Failure {
        let tail = &self.seen[self.seen.len().saturating_sub(3000)..];
        Failure(format!("{what}; the guest's last words:\n{}", String::from_utf8_lossy(tail)))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The process may have ended already; either way nothing is left to do about it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
