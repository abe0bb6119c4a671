//! Answers to what browsers ask of us: files, whole or in part, compressed on their way. Whoever has the connection
//! gives what was asked ([`Asked`]), and sends the answer.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::read::GzEncoder;
use tiny_http::{Header, Method, Request, Response, ResponseBox, StatusCode};
use tracing::warn;

/// Levels of compression for answers, which are made while somebody waits.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: Compression = Compression::fast();

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// How.
    pub method: &'a Method,
    /// For what: the path, and perhaps a query.
    pub url: &'a str,
    /// All headers.
    pub headers: &'a [Header],
}

impl<'a> From<&'a Request> for Asked<'a> {
    fn from(request: &'a Request) -> Self {
        Self { method: request.method(), url: request.url(), headers: request.headers() }
    }
}

impl<'a> Asked<'a> {
    /// A header's value.
    pub fn header(&self, name: &'static str) -> Option<&'a str> {
        self.headers.iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
    }

    /// The path, without the slash at its beginning.
    pub fn path(&self) -> &'a str {
        self.url.split(['?', '#']).next().unwrap_or_default().trim_start_matches('/')
    }

    /// Whether it names this computer. A page from elsewhere whose name has come to mean this computer (DNS rebinding)
    /// is not for us.
    pub fn is_local(&self) -> bool {
        self.header("Host").is_none_or(is_local_name)
    }

    /// The answer to what does more than look.
    pub fn refused_method(&self) -> Option<ResponseBox> {
        let looks = matches!(self.method, Method::Get | Method::Head);
        (!looks).then(|| Response::empty(405).with_header(header("Allow", "GET, HEAD")).boxed())
    }
}

/// What a URL's query, of which this is a part, gives as `token=…`.
#[cfg(feature = "net")]
pub(crate) fn token_in(query: &str) -> Option<&str> {
    query.split('&').find_map(|part| part.strip_prefix("token="))
}

/// Compares without telling by the time where two differ.
#[cfg(feature = "net")]
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// A few words as an answer.
pub fn words(status: u16, text: &str) -> ResponseBox {
    Response::from_string(text).with_status_code(status).boxed()
}

/// Data, as a file of this name is answered with.
pub fn data(bytes: Vec<u8>, name: &str) -> ResponseBox {
    with_common(Response::from_data(bytes), name).boxed()
}

/// Answers with a file, or the part of it that is asked for.
pub fn file(asked: &Asked, path: &Path) -> io::Result<ResponseBox> {
    let (mut file, meta) = match File::open(path).and_then(|file| Ok((fs::metadata(path)?, file))) {
        Ok((meta, file)) => (file, meta),
        Err(error) => {
            warn!(target: "serve", path = %path.display(), %error, "A file cannot be read");
            return Ok(words(500, "Cannot be read\n"));
        }
    };
    let name = path.to_string_lossy();
    let coding = Coding::of_answer(asked, &name);
    let tag = etag(&meta, coding);
    if asked.header("If-None-Match").is_some_and(|tags| tags.split(',').any(|one| one.trim() == tag)) {
        return Ok(with_common(Response::empty(304), &name).with_header(header("ETag", &tag)).boxed());
    }
    // A part of another version of the file would not fit what was fetched before.
    let same = asked.header("If-Range").is_none_or(|wanted| wanted == tag);
    let part = asked.header("Range").filter(|_| same).and_then(|text| range(text, meta.len()));
    let (status, part, size) = match part {
        None => (200, 0..meta.len(), None),
        Some(Ok(part)) => {
            (206, part.clone(), Some(format!("bytes {}-{}/{}", part.start, part.end - 1, meta.len())))
        }
        Some(Err(())) => {
            let size = header("Content-Range", &format!("bytes */{}", meta.len()));
            return Ok(Response::empty(416).with_header(size).boxed());
        }
    };
    if let Some(coding) = coding {
        let mut response = with_common(Response::from_data(coding.pack(file)?), &name);
        response.add_header(header("ETag", &tag));
        response.add_header(header("Content-Encoding", coding.name()));
        response.add_header(header("Vary", "Accept-Encoding"));
        return Ok(response.boxed());
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
    Ok(response.boxed())
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
    fn of_answer(asked: &Asked, name: &str) -> Option<Self> {
        let gains = media_type(name) != OCTETS && asked.header("Range").is_none();
        asked.header("Accept-Encoding").filter(|_| gains).and_then(Self::accepted)
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
pub fn header(name: &str, value: &str) -> Header {
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
}
