//! Files for guests that start from the network (RFC 1350), below one directory and to be read only.
//!
//! A transfer is a flow like any other: a task with a port of the gateway's. Of the options there are those that
//! make it fast: longer blocks (RFC 2348), several of them for one acknowledgement (RFC 7440), the file's size
//! and the time to wait (RFC 2349).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::packet::{self, IPV4, MTU, UDP};
use super::udp::{GuestSide, payload};

/// The server's port.
pub const PORT: u16 = 69;

/// Kinds of messages.
mod opcode {
    pub const READ: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const DATA: u16 = 3;
    pub const ACKNOWLEDGE: u16 = 4;
    pub const ERROR: u16 = 5;
    pub const OPTIONS: u16 = 6;
}

/// Kinds of errors.
mod code {
    pub const OTHER: u16 = 0;
    pub const NO_FILE: u16 = 1;
    pub const FORBIDDEN: u16 = 2;
    pub const NOT_UNDERSTOOD: u16 = 4;
}

/// Bytes before a block.
const HEADER: usize = 4;
/// Bytes of a block, if the client says nothing, and the fewest and most that it can have: what the medium takes.
const BLOCK: usize = 512;
const SHORTEST_BLOCK: usize = 8;
const LONGEST_BLOCK: usize = MTU - IPV4 - UDP - HEADER;
/// Blocks that are under way at most.
const LARGEST_WINDOW: u64 = 64;
/// How long the client may take before it gets everything again, if it says nothing, and how often.
const PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_PATIENCE: u64 = 255;
const ATTEMPTS: u32 = 8;

/// The name that a request has in it, as a log shows it.
pub fn name(request: &[u8]) -> String {
    let name = request.get(2..).and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default();
    String::from_utf8_lossy(name).escape_debug().collect()
}

/// What is wrong with a request, as the client is told.
type Refusal = (u16, &'static str);

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    name: String,
    block: usize,
    window: u64,
    patience: Duration,
    /// The options that are answered, each with the value that counts; of the size it is not known yet.
    options: Vec<(&'static str, Option<u64>)>,
}

impl Request {
    fn parse(message: &[u8]) -> Result<Self, Refusal> {
        let not_understood = (code::NOT_UNDERSTOOD, "This is no request for a file");
        let (kind, rest) = message.split_at_checked(2).ok_or(not_understood)?;
        match u16::from_be_bytes([kind[0], kind[1]]) {
            opcode::READ => {}
            opcode::WRITE => return Err((code::FORBIDDEN, "Files can only be read")),
            _ => return Err(not_understood),
        }
        let mut words = rest
            .split_inclusive(|byte| *byte == 0)
            .map_while(|word| word.strip_suffix(&[0]))
            .map(String::from_utf8_lossy);
        let name = words.next().ok_or(not_understood)?.into_owned();
        let mode = words.next().ok_or(not_understood)?;
        if !mode.eq_ignore_ascii_case("octet") {
            return Err((code::OTHER, "Files are sent as they are: the mode has to be octet"));
        }
        let mut request = Self { name, block: BLOCK, window: 1, patience: PATIENCE, options: Vec::new() };
        while let (Some(option), Some(value)) = (words.next(), words.next()) {
            // What makes no sense is not answered, and so does not count (RFC 2347).
            let Ok(value) = value.parse::<u64>() else { continue };
            match option.to_ascii_lowercase().as_str() {
                "blksize" if value >= SHORTEST_BLOCK as u64 => {
                    let block = value.min(LONGEST_BLOCK as u64);
                    request.block = block as usize;
                    request.options.push(("blksize", Some(block)));
                }
                "windowsize" if value > 0 => {
                    request.window = value.min(LARGEST_WINDOW);
                    request.options.push(("windowsize", Some(request.window)));
                }
                "timeout" if (1..=LONGEST_PATIENCE).contains(&value) => {
                    request.patience = Duration::from_secs(value);
                    request.options.push(("timeout", Some(value)));
                }
                "tsize" => request.options.push(("tsize", None)),
                _ => {}
            }
        }
        Ok(request)
    }

    /// The answer to the options, if there are any.
    fn answer(&self, size: u64) -> Option<Vec<u8>> {
        let mut message = opcode::OPTIONS.to_be_bytes().to_vec();
        for (option, value) in &self.options {
            message.extend(format!("{option}\0{}\0", value.unwrap_or(size)).as_bytes());
        }
        (!self.options.is_empty()).then_some(message)
    }
}

/// Opens a file below a directory: none that a name with `..` or a link leads to outside.
fn open(root: &Path, name: &str) -> Result<(File, u64), Refusal> {
    let missing = (code::NO_FILE, "There is no such file");
    let forbidden = (code::FORBIDDEN, "The file may not be read");
    // Clients of other systems write it in their way, and all mean the directory by its root.
    let name = name.replace('\\', "/");
    let name = Path::new(name.trim_start_matches('/'));
    if name.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(forbidden);
    }
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => forbidden,
        _ => missing,
    };
    let root = root.canonicalize().map_err(refused)?;
    let path = root.join(name).canonicalize().map_err(refused)?;
    if !path.starts_with(&root) {
        return Err(forbidden);
    }
    // A pipe would be waited for when it is opened.
    if !path.metadata().map_err(refused)?.is_file() {
        return Err(missing);
    }
    let file = File::open(path).map_err(refused)?;
    let size = file.metadata().map_err(refused)?.len();
    Ok((file, size))
}

fn error((code, text): Refusal) -> Vec<u8> {
    [&opcode::ERROR.to_be_bytes()[..], &code.to_be_bytes(), text.as_bytes(), &[0]].concat()
}

/// A transfer's end at the guest.
struct Line {
    side: GuestSide,
    ident: u16,
}

impl Line {
    /// Sends a message, when the cable has room for it. Says whether there still is a cable.
    async fn send(&mut self, message: &[u8]) -> bool {
        self.ident = self.ident.wrapping_add(1);
        for frame in packet::udp(self.side.mac, self.side.remote, self.side.guest, self.ident, message) {
            if self.side.sender.send(frame).await.is_err() {
                return false;
            }
        }
        true
    }

    /// The number of the block that the client has got, when it says so; an end is one when it gives up.
    async fn acknowledged(&mut self) -> Option<u16> {
        loop {
            let frame = self.side.received.recv().await?;
            let Some(&[a, b, c, d, ..]) = payload(&frame) else { continue };
            match u16::from_be_bytes([a, b]) {
                opcode::ACKNOWLEDGE => return Some(u16::from_be_bytes([c, d])),
                opcode::ERROR => return None,
                _ => {}
            }
        }
    }
}

/// Gives the guest the file that it asks for.
pub async fn run(side: GuestSide, request: Vec<u8>, root: PathBuf) -> Result<u64, &'static str> {
    let mut line = Line { side, ident: 0 };
    let opened = Request::parse(&request).and_then(|request| Ok((open(&root, &request.name)?, request)));
    let ((file, size), request) = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            line.send(&error(refusal)).await;
            return Err(refusal.1);
        }
    };
    match send(&mut line, file, size, &request).await {
        Ok(true) => Ok(size),
        Ok(false) => Err("The guest gave up"),
        Err(_) => {
            line.send(&error((code::OTHER, "The file cannot be read"))).await;
            Err("The file cannot be read")
        }
    }
}

/// Sends a file. Says whether the guest has got all of it.
async fn send(line: &mut Line, mut file: File, size: u64, request: &Request) -> io::Result<bool> {
    let block = request.block as u64;
    // The last block is one that is not full, if only an empty one.
    let blocks = size / block + 1;
    let mut message = Vec::with_capacity(HEADER + request.block);
    let mut attempts = ATTEMPTS;
    if let Some(options) = request.answer(size) {
        loop {
            if attempts == 0 || !line.send(&options).await {
                return Ok(false);
            }
            attempts -= 1;
            match timeout(request.patience, line.acknowledged()).await {
                Ok(Some(0)) => break,
                Ok(None) => return Ok(false),
                Ok(Some(_)) | Err(_) => {}
            }
        }
    }
    let (mut got, mut attempts, mut sent_again) = (0, ATTEMPTS, false);
    while got < blocks {
        let last = blocks.min(got + request.window);
        for number in got + 1..=last {
            message.clear();
            message.extend(opcode::DATA.to_be_bytes());
            // The number of a long file begins again at 0.
            message.extend((number as u16).to_be_bytes());
            file.seek(SeekFrom::Start((number - 1) * block))?;
            file.by_ref().take(block).read_to_end(&mut message)?;
            if !line.send(&message).await {
                return Ok(false);
            }
        }
        // What is acknowledged again is a reason to send what follows again only where a block of several was lost,
        // and once: every block that comes twice is acknowledged, too.
        loop {
            match timeout(request.patience, line.acknowledged()).await {
                Ok(None) => return Ok(false),
                Ok(Some(number)) => {
                    let more = u64::from(number.wrapping_sub(got as u16));
                    if more > 0 && got + more <= last {
                        (got, attempts, sent_again) = (got + more, ATTEMPTS, false);
                        break;
                    }
                    if more == 0 && request.window > 1 && !sent_again {
                        sent_again = true;
                        break;
                    }
                }
                Err(_) if attempts == 0 => return Ok(false),
                Err(_) => {
                    attempts -= 1;
                    break;
                }
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn requests_are_read() {
        let request = |text: &[u8]| Request::parse(&[&[0, 1][..], text].concat());
        let plain = request(b"a/b\0octet\0").unwrap();
        assert_eq!((plain.name.as_str(), plain.block, plain.window), ("a/b", 512, 1));
        assert_eq!(plain.answer(9), None);
        let rich =
            request(b"a\0OCTET\0blksize\x0065464\0tsize\x000\0windowsize\x001000\0x\x001\0timeout\x000\0")
                .unwrap();
        assert_eq!((rich.block, rich.window, rich.patience), (1468, 64, PATIENCE));
        assert_eq!(rich.answer(12345).unwrap(), b"\0\x06blksize\x001468\0tsize\x0012345\0windowsize\x0064\0");
        assert_eq!(request(b"a\0netascii\0").unwrap_err().0, code::OTHER);
        for bad in [&b""[..], b"a", b"a\0", b"a\0octet"] {
            assert_eq!(request(bad).unwrap_err().0, code::NOT_UNDERSTOOD, "{bad:?}");
        }
        assert_eq!(Request::parse(b"\0\x02a\0octet\0").unwrap_err().0, code::FORBIDDEN);
        assert_eq!(Request::parse(b"\0").unwrap_err().0, code::NOT_UNDERSTOOD);
    }

    #[test]
    fn nothing_outside_the_directory_is_read() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), "inside").unwrap();
        for name in ["sub/file", "/sub/file", "\\sub\\file", "./sub/./file", "//sub/file"] {
            assert_eq!(open(&root, name).unwrap().1, 6, "{name}");
        }
        for name in ["../secret", "sub/../../secret", "..\\secret", "sub/../sub/file"] {
            assert_eq!(open(&root, name).unwrap_err().0, code::FORBIDDEN, "{name}");
        }
        for name in ["", "sub", "nothing", "sub/file/more"] {
            assert_eq!(open(&root, name).unwrap_err().0, code::NO_FILE, "{name}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("sub/file", root.join("within")).unwrap();
            std::os::unix::fs::symlink("../secret", root.join("without")).unwrap();
            assert_eq!(open(&root, "within").unwrap().1, 6);
            assert_eq!(open(&root, "without").unwrap_err().0, code::FORBIDDEN);
        }
    }
}
