//! What a person sees in a window, as another client of its X server does: how long it takes from a key to the dot that
//! it changes, and which frames of a guest's are shown.
//!
//! ```text
//! window keys KEYCODE X Y COUNT      from a key event of XTest's to another colour at X, Y of the screen: median, in ms
//! window frames X Y SECONDS          a guest's frames a second, and the share of them that were seen
//! ```
//!
//! The guests are in `benches/window`. `DISPLAY` names a server that wants no authority, as Xvfb does. What is spoken
//! is the X protocol, version 11, and XTEST 2.2.

use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long a change may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Time between two looks at a frame: far shorter than a frame of 30 a second.
const LOOK: Duration = Duration::from_millis(2);

/// A connection to an X server.
struct Server {
    stream: UnixStream,
    root: u32,
    /// The extension's major opcode.
    xtest: u8,
}

impl Server {
    fn connect() -> Result<Self> {
        let display = env::var("DISPLAY")?;
        let number = display.strip_prefix(':').and_then(|rest| rest.split('.').next());
        let number = number.ok_or("DISPLAY is not of this computer")?;
        let mut stream = UnixStream::connect(format!("/tmp/.X11-unix/X{number}"))?;
        // Little-endian, version 11.0, no authority.
        stream.write_all(&[b'l', 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        let mut setup = vec![0; 4 * usize::from(u16::from_le_bytes([head[6], head[7]]))];
        stream.read_exact(&mut setup)?;
        if head[0] != 1 {
            return Err("the X server takes no client".into());
        }
        // The first screen follows the vendor's name and the formats of pixmaps; its root comes first.
        let vendor = usize::from(u16::from_le_bytes([setup[16], setup[17]])).next_multiple_of(4);
        let at = 32 + vendor + 8 * usize::from(setup[21]);
        let root = u32::from_le_bytes(setup[at..at + 4].try_into()?);
        let mut server = Self { stream, root, xtest: 0 };
        // QueryExtension.
        let mut request = vec![98, 0, 4, 0, 5, 0, 0, 0];
        request.extend(*b"XTEST\0\0\0");
        server.stream.write_all(&request)?;
        let (reply, _) = server.reply()?;
        if reply[8] == 0 {
            return Err("the X server has no XTEST".into());
        }
        server.xtest = reply[9];
        Ok(server)
    }

    /// A reply, with what is behind its first 32 bytes. Nothing here asks for events.
    fn reply(&mut self) -> Result<([u8; 32], Vec<u8>)> {
        let mut reply = [0; 32];
        loop {
            self.stream.read_exact(&mut reply)?;
            match reply[0] {
                0 => return Err(format!("the X server says error {}", reply[1]).into()),
                1 => break,
                _ => {}
            }
        }
        let mut more = vec![0; 4 * u32::from_le_bytes(reply[4..8].try_into()?) as usize];
        self.stream.read_exact(&mut more)?;
        Ok((reply, more))
    }

    /// A key goes down or up.
    fn key(&mut self, code: u8, down: bool) -> Result<()> {
        let mut request = [0; 36];
        request[..6].copy_from_slice(&[self.xtest, 2, 9, 0, if down { 2 } else { 3 }, code]);
        Ok(self.stream.write_all(&request)?)
    }

    /// The colour of a dot of the screen.
    fn dot(&mut self, x: i16, y: i16) -> Result<u32> {
        // GetImage: one dot of the root, all planes.
        let mut request = vec![73, 2, 5, 0];
        request.extend(self.root.to_le_bytes());
        request.extend([x.to_le_bytes(), y.to_le_bytes(), [1, 0], [1, 0]].concat());
        request.extend([0xff; 4]);
        self.stream.write_all(&request)?;
        let (_, data) = self.reply()?;
        Ok(u32::from_le_bytes(data.get(..4).ok_or("no dot")?.try_into()?) & 0xff_ffff)
    }
}

fn keys(code: u8, x: i16, y: i16, count: usize) -> Result<()> {
    let mut server = Server::connect()?;
    let mut times = Vec::new();
    for number in 0..count {
        let before = server.dot(x, y)?;
        let start = Instant::now();
        server.key(code, true)?;
        while server.dot(x, y)? == before {
            if start.elapsed() > LIMIT {
                return Err(format!("key {number} changes nothing at {x}, {y}").into());
            }
        }
        times.push(start.elapsed());
        server.key(code, false)?;
        // Not in step with anyone's frames.
        sleep(Duration::from_millis(150 + (number as u64 * 37) % 50));
    }
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (first, last) = (times.first().ok_or("no keys")?, times.last().ok_or("no keys")?);
    println!(
        "{count} keys: {:.1} ms in the median, {:.1} to {:.1}",
        ms(times[times.len() / 2]),
        ms(*first),
        ms(*last)
    );
    Ok(())
}

/// The guest fills its screen with its frame's number, as a colour.
fn frames(x: i16, y: i16, seconds: u64) -> Result<()> {
    let mut server = Server::connect()?;
    let first = server.dot(x, y)?;
    let (start, mut seen, mut last) = (Instant::now(), 0, first);
    while start.elapsed() < Duration::from_secs(seconds) {
        let dot = server.dot(x, y)?;
        seen += u32::from(dot != last);
        last = dot;
        sleep(LOOK);
    }
    let (drawn, time) = (last.wrapping_sub(first) & 0xff_ffff, start.elapsed().as_secs_f64());
    if drawn == 0 {
        return Err(format!("no frame has come to {x}, {y}").into());
    }
    println!(
        "{:.2} frames a second, of which {:.1} % were seen ({seen} of {drawn})",
        f64::from(drawn) / time,
        f64::from(seen) / f64::from(drawn) * 100.0
    );
    Ok(())
}

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["keys", code, x, y, count] => keys(code.parse()?, x.parse()?, y.parse()?, count.parse()?),
        ["frames", x, y, seconds] => frames(x.parse()?, y.parse()?, seconds.parse()?),
        _ => Err("usage: window keys KEYCODE X Y COUNT | window frames X Y SECONDS".into()),
    }
}
