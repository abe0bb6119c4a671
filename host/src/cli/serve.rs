//! `env86 serve`: the page that `prepare` makes, live from an image.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::UNIX_EPOCH;

use clap::Args;
use env86::image::{FileRef, Image};
use flate2::Compression;
use flate2::read::GzEncoder;
use tiny_http::{Header, Method, Request, Response, Server, StatusCode};
use tracing::{debug, warn};

use super::{CliError, Outcome, page};

/// Levels of compression for answers, which are made while somebody waits.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: Compression = Compression::fast();
/// Requests that are answered at the same time.
const THREADS: usize = 8;
/// The configuration of a page without an image: nothing is started, and no file system is looked for.
const NO_IMAGE: &str = "{ \"filesystem\": {} }";

/// Serve a page that runs the image in the browser, on this computer.
#[derive(Args, Debug)]
pub struct Serve {
    /// The image; without one, the page shows a guest that tests the machine
    image: Option<String>,

    /// Where to listen; only this computer can come there unless another address is given
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Open the page in the browser
    #[arg(long)]
    open: bool,
}

impl Serve {
    /// Serves until the program is ended.
    pub fn run(&self) -> Result<Outcome, CliError> {
        let image = self.image.as_ref().map(|image| Image::open_arg(image)).transpose()?;
        let site = Arc::new(Site::new(image, self.listen.ip().is_loopback())?);
        let server = Server::http(self.listen)
            .map_err(|error| format!("Cannot listen on {}: {error}; give another --listen", self.listen))?;
        let server = Arc::new(server);
        let address = server.server_addr().to_ip().unwrap_or(self.listen);
        let url = format!("http://{address}/");
        println!("{url}");
        io::stdout().flush()?;
        if self.open {
            open(&url);
        }
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (server, site) = (server.clone(), site.clone());
                thread::spawn(move || {
                    while let Ok(request) = server.recv() {
                        // A visitor who goes away is no error of ours.
                        if let Err(error) = site.answer(request) {
                            debug!(target: "serve", %error, "An answer was not taken");
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            _ = worker.join();
        }
        Ok(Outcome::SUCCESS)
    }
}

/// Opens a page in the user's browser.
fn open(url: &str) {
    let program = match () {
        () if cfg!(windows) => "explorer",
        () if cfg!(target_os = "macos") => "open",
        () => "xdg-open",
    };
    let mut browser = Command::new(program);
    browser.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = browser.spawn() {
        warn!(target: "serve", program, %error, "The browser cannot be opened");
        eprintln!("env86: `{program}` cannot be started; open the page by its address");
    }
}

/// What is served.
struct Site {
    image: Option<Image>,
    /// The page's files by name.
    page: BTreeMap<String, PathBuf>,
    /// The image's configuration, as the page reads it.
    config: Vec<u8>,
    /// Only this computer can come here.
    local: bool,
}

/// Something to be served.
enum Found {
    File(PathBuf),
    Config,
}

impl Site {
    fn new(image: Option<Image>, local: bool) -> Result<Self, CliError> {
        let page = page::files()?.into_iter().collect();
        let Some(image) = image else {
            return Ok(Self { page, config: NO_IMAGE.into(), local, image });
        };
        let mut config = image.config.clone();
        // A state that was saved in the image counts before one that its configuration names, as it does at a boot.
        let saved = image.state_to_write();
        if let Some(name) = saved.file_name().filter(|_| saved.exists()) {
            let url = Some(format!("./{}", name.to_string_lossy()));
            config.initial_state = Some(FileRef { url, ..FileRef::default() });
            config.initial_state_parts = None;
        }
        Ok(Self { page, config: page::config_text(&config)?, local, image: Some(image) })
    }

    /// Whether a request names this computer. A page from elsewhere whose name has come to mean this computer (DNS
    /// rebinding) must not read the image.
    fn is_for_us(&self, request: &Request) -> bool {
        !self.local || asked(request, "Host").is_none_or(is_local_name)
    }

    /// What a path of a URL means. Nothing outside of the image's folder and the page's is ever read.
    fn find(&self, url: &str) -> Option<Found> {
        let path = url.split(['?', '#']).next()?.trim_start_matches('/');
        let path = if path.is_empty() { page::INDEX } else { path };
        if let Some(file) = self.page.get(path) {
            return Some(Found::File(file.clone()));
        }
        let inside = percent_decoded(path.strip_prefix(page::IMAGE)?.strip_prefix('/')?)?;
        if inside == "image.json" {
            return Some(Found::Config);
        }
        let normal = Path::new(&inside).components().all(|part| matches!(part, Component::Normal(_)));
        let image = self.image.as_ref()?;
        let file = image.dir().join(&inside);
        // A symbolic link may lead out of the image.
        let real = file.canonicalize().ok()?;
        let is_inside = normal && real.starts_with(image.dir().canonicalize().ok()?);
        (is_inside && real.is_file()).then_some(Found::File(file))
    }

    fn answer(&self, request: Request) -> io::Result<()> {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return request.respond(Response::empty(405).with_header(header("Allow", "GET, HEAD")));
        }
        if !self.is_for_us(&request) {
            let text = "This is served for this computer alone; open it as localhost\n";
            return request.respond(Response::from_string(text).with_status_code(403));
        }
        match self.find(request.url()) {
            Some(Found::Config) => {
                let response = Response::from_data(self.config.clone());
                request.respond(with_common(response, "image.json"))
            }
            Some(Found::File(path)) => file(request, &path),
            None => request.respond(Response::from_string("Not found\n").with_status_code(404)),
        }
    }
}

/// Answers with a file, or the part of it that is asked for.
fn file(request: Request, path: &Path) -> io::Result<()> {
    let (mut file, meta) = match File::open(path).and_then(|file| Ok((fs::metadata(path)?, file))) {
        Ok((meta, file)) => (file, meta),
        Err(error) => {
            warn!(target: "serve", path = %path.display(), %error, "A file cannot be read");
            return request.respond(Response::from_string("Cannot be read\n").with_status_code(500));
        }
    };
    let name = path.to_string_lossy();
    let coding = Coding::of_answer(&request, &name);
    let tag = etag(&meta, coding);
    if asked(&request, "If-None-Match").is_some_and(|tags| tags.split(',').any(|one| one.trim() == tag)) {
        return request.respond(with_common(Response::empty(304), &name).with_header(header("ETag", &tag)));
    }
    // A part of another version of the file would not fit what was fetched before.
    let same = asked(&request, "If-Range").is_none_or(|wanted| wanted == tag);
    let part = asked(&request, "Range").filter(|_| same).and_then(|text| range(text, meta.len()));
    let (status, part, size) = match part {
        None => (200, 0..meta.len(), None),
        Some(Ok(part)) => {
            (206, part.clone(), Some(format!("bytes {}-{}/{}", part.start, part.end - 1, meta.len())))
        }
        Some(Err(())) => {
            let size = header("Content-Range", &format!("bytes */{}", meta.len()));
            return request.respond(Response::empty(416).with_header(size));
        }
    };
    if let Some(coding) = coding {
        let mut response = with_common(Response::from_data(coding.pack(file)?), &name);
        response.add_header(header("ETag", &tag));
        response.add_header(header("Content-Encoding", coding.name()));
        response.add_header(header("Vary", "Accept-Encoding"));
        return request.respond(response);
    }
    file.seek(SeekFrom::Start(part.start))?;
    let length = part.end - part.start;
    let response =
        Response::new(StatusCode(status), Vec::new(), file.take(length), usize::try_from(length).ok(), None)
            // A file's length is known, so that it is sent as it is.
            .with_chunked_threshold(usize::MAX);
    let mut response = with_common(response, &name);
    response.add_header(header("ETag", &tag));
    response.add_header(header("Accept-Ranges", "bytes"));
    response.add_header(header("Vary", "Accept-Encoding"));
    if let Some(size) = size {
        response.add_header(header("Content-Range", &size));
    }
    request.respond(response)
}

/// How an answer is compressed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    /// The best that the visitor takes for a file that it wants as a whole, if compression gains much: the image's
    /// files are read from a disk of this computer faster than they would be compressed.
    fn of_answer(request: &Request, name: &str) -> Option<Self> {
        let gains = media_type(name) != OCTETS && asked(request, "Range").is_none();
        asked(request, "Accept-Encoding").filter(|_| gains).and_then(Self::accepted)
    }

    /// What an Accept-Encoding header allows (RFC 9110, 12.5.3).
    fn accepted(text: &str) -> Option<Self> {
        let takes = |name: &str| {
            text.split(',').any(|one| {
                let (coding, quality) = one.split_once(';').unwrap_or((one, ""));
                let quality = quality.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
                coding.trim().eq_ignore_ascii_case(name) && quality != Some(0.0)
            })
        };
        [Self::Zstd, Self::Gzip].into_iter().find(|coding| takes(coding.name()))
    }

    /// The name in HTTP's headers.
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// Compresses all that there is.
    fn pack(self, mut from: impl Read) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::encode_all(from, ZSTD_LEVEL),
            Self::Gzip => {
                let mut packed = Vec::new();
                GzEncoder::new(&mut from, GZIP_LEVEL).read_to_end(&mut packed)?;
                Ok(packed)
            }
        }
    }
}

/// A header of a request.
fn asked<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
}

/// Whether a Host header's value names this computer.
fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// A header of an answer; what we send there is plain text.
fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).unwrap_or_else(|()| unreachable!("{name} is plain text"))
}

/// The headers of all answers.
fn with_common<R: Read>(mut response: Response<R>, name: &str) -> Response<R> {
    response.add_header(header("Content-Type", media_type(name)));
    // Another image may be served here the next time.
    response.add_header(header("Cache-Control", "no-cache"));
    response
}

/// The type of what has none.
const OCTETS: &str = "application/octet-stream";

/// What a file is, by its name.
fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "mjs" | "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "ts" | "txt" | "md" => "text/plain; charset=utf-8",
        _ => OCTETS,
    }
}

/// A tag that changes with the file, and is another for each form that it is sent in.
fn etag(meta: &Metadata, coding: Option<Coding>) -> String {
    let changed = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let form = coding.map_or(String::new(), |coding| format!("-{}", coding.name()));
    format!("\"{:x}-{:x}{form}\"", meta.len(), changed.unwrap_or_default().as_nanos())
}

/// The one part that a Range header asks for (RFC 9110, 14.2). `None`: it asks for something else, and gets the
/// whole; an error: there is no such part.
fn range(text: &str, size: u64) -> Option<Result<Range<u64>, ()>> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok();
    let part = match (first, last) {
        ("", last) => size.saturating_sub(number(last)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(size),
    };
    Some(if part.is_empty() { Err(()) } else { Ok(part) })
}

/// A path as it was before it became part of a URL.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range("bytes=0-0", 10), Some(Ok(0..1)));
        assert_eq!(range("bytes=4-", 10), Some(Ok(4..10)));
        assert_eq!(range("bytes=-4", 10), Some(Ok(6..10)));
        assert_eq!(range("bytes=4-99", 10), Some(Ok(4..10)));
        assert_eq!(range("bytes=10-", 10), Some(Err(())));
        assert_eq!(range("bytes=5-4", 10), Some(Err(())));
        assert_eq!(range("bytes=-0", 10), Some(Err(())));
        for other in ["bytes=1-2,4-5", "lines=1-2", "bytes=x-", "bytes=-"] {
            assert_eq!(range(other, 10), None, "{other}");
        }
    }

    #[test]
    fn answers_are_compressed_as_the_visitor_takes_them() {
        assert_eq!(Coding::accepted("gzip, deflate, br, zstd"), Some(Coding::Zstd));
        assert_eq!(Coding::accepted("gzip;q=0.5, zstd;q=0"), Some(Coding::Gzip));
        for other in ["", "identity", "gzip;q=0", "br"] {
            assert_eq!(Coding::accepted(other), None, "{other}");
        }
        let text = b"many words ".repeat(1000);
        let packed = Coding::Gzip.pack(&text[..]).unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, text);
        let packed = Coding::Zstd.pack(&text[..]).unwrap();
        assert_eq!(zstd::decode_all(&packed[..]).unwrap(), text);
    }

    #[test]
    fn only_this_computer_is_local() {
        for host in ["localhost:80", "LOCALHOST", "127.0.0.1:9999", "127.0.0.1", "[::1]:80", "[::1]"] {
            assert!(is_local_name(host), "{host}");
        }
        for host in ["example.com:80", "localhost.example.com", "192.0.2.1:80", "127.0.0.1.example.com", ""] {
            assert!(!is_local_name(host), "{host}");
        }
    }

    #[test]
    fn nothing_outside_of_the_image_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::create_dir_all(image.join("fs")).unwrap();
        fs::write(image.join("image.json"), "{}").unwrap();
        fs::write(image.join("fs/a b.bin"), "x").unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        let image = Image::open(image).unwrap();
        let site = Site { image: Some(image), page: BTreeMap::new(), config: Vec::new(), local: true };
        let is_there = |url| site.find(url).is_some();
        assert!(is_there("/image/image.json") && is_there("/image/fs/a%20b.bin?x"));
        for url in [
            "/image/../secret",
            "/image/%2e%2e/secret",
            "/image//etc/passwd",
            "/secret",
            "/image/fs",
            "/image/%",
        ] {
            assert!(!is_there(url), "{url}");
        }
    }
}
