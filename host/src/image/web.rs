//! Asking web servers, and downloads that go on where they broke off.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use tracing::debug;
use ureq::http::{Method, Request, Response, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::pull::{PullError, at};
use super::watch::Watch;

/// Redirections that are followed, at most.
const MAX_REDIRECTS: u32 = 10;
/// Times that a download is tried again without a byte more.
const MAX_FAILURES: u32 = 4;
/// Between looks at what another process downloads, and at whether to end.
const LOOK: Duration = Duration::from_millis(100);

/// Names and values of a request.
pub type Headers = Vec<(header::HeaderName, String)>;

/// What a request has in it.
#[derive(Clone, Copy, Debug)]
pub enum Sent<'a> {
    /// Nothing.
    Nothing,
    /// These bytes.
    Bytes(&'a [u8]),
    /// A file, as a whole.
    File(&'a File),
}

/// How servers are asked.
#[derive(Clone, Copy, Debug)]
pub struct Web {
    /// How long a server may send nothing.
    pub patience: Duration,
    /// How long to wait before the first new try.
    pub pause: Duration,
}

impl Web {
    /// A server's answer, good or not. It may come from elsewhere, by redirections, which are not told what the
    /// request has to show.
    pub fn ask(
        &self,
        method: &Method,
        url: &str,
        headers: &[(header::HeaderName, String)],
        sent: Sent,
    ) -> Result<Response<Body>, PullError> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // What was protected stays so.
            .https_only(url.starts_with("https:"))
            .max_redirects(MAX_REDIRECTS)
            .save_redirect_history(false)
            // A request that follows a redirection on the same connection fails where the server has closed it.
            .max_idle_connections(0)
            .user_agent(concat!("env86/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(self.patience))
            .timeout_recv_response(Some(self.patience))
            .timeout_per_read(Some(self.patience))
            .timeout_per_write(Some(self.patience))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
        if is_loopback(url) {
            config = config.proxy(None);
        }
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let agent = config.build().new_agent();
        let answer = match sent {
            Sent::Nothing => {
                request.body(()).map_err(ureq::Error::from).and_then(|request| agent.run(request))
            }
            Sent::Bytes(bytes) => {
                request.body(bytes).map_err(ureq::Error::from).and_then(|request| agent.run(request))
            }
            Sent::File(mut file) => file
                .rewind()
                .map_err(ureq::Error::from)
                .and_then(|()| request.body(file).map_err(ureq::Error::from))
                .and_then(|request| agent.run(request)),
        };
        answer.map_err(|source| PullError::Http { url: url.into(), source: Box::new(source) })
    }

    /// A server's good answer.
    pub fn get(
        &self,
        url: &str,
        headers: &[(header::HeaderName, String)],
    ) -> Result<Response<Body>, PullError> {
        good(url, self.ask(&Method::GET, url, headers, Sent::Nothing)?)
    }

    /// Tries until a file has come as a whole. `attempt` appends to what has come, so many bytes.
    pub fn persist(
        &self,
        file: &mut File,
        path: &Path,
        watch: &Watch,
        mut attempt: impl FnMut(&mut File, u64) -> Result<(), PullError>,
    ) -> Result<(), PullError> {
        let mut failures = 0;
        loop {
            let before = file.seek(SeekFrom::End(0)).map_err(at(path))?;
            let Err(error) = attempt(file, before) else { return Ok(()) };
            let more = file.metadata().map_err(at(path))?.len() > before;
            failures = if more { 0 } else { failures + 1 };
            self.before_next(error, failures, watch)?;
        }
    }

    /// Tries again what may be gone at the next try.
    pub fn insist<T>(
        &self,
        watch: &Watch,
        mut attempt: impl FnMut() -> Result<T, PullError>,
    ) -> Result<T, PullError> {
        let mut failures = 0;
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(error) => {
                    failures += 1;
                    self.before_next(error, failures, watch)?;
                }
            }
        }
    }

    /// Waits before the next try, if there is to be one.
    fn before_next(&self, error: PullError, failures: u32, watch: &Watch) -> Result<(), PullError> {
        debug!(target: "pull", %error, failures, "A try has failed");
        let again = match &error {
            PullError::Status { status, .. } => status.is_server_error(),
            PullError::Http { source, .. } => is_passing(source),
            PullError::Short { .. } => true,
            _ => false,
        };
        if !again || watch.is_over() || failures > MAX_FAILURES {
            return Err(error);
        }
        let pause = self.pause * 2_u32.pow(failures);
        let mut waited = Duration::ZERO;
        while waited < pause && !watch.is_over() {
            let step = LOOK.min(pause - waited);
            thread::sleep(step);
            waited += step;
        }
        Ok(())
    }
}

/// An answer that is good.
pub fn good(url: &str, answer: Response<Body>) -> Result<Response<Body>, PullError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let wait = text(&answer, header::RETRY_AFTER);
    // It may be a date.
    let wait = wait.filter(|wait| wait.parse::<u64>().is_ok()).map(Into::into);
    Err(PullError::Status { url: url.into(), status, wait })
}

/// What an answer says under a name.
pub fn text(answer: &Response<Body>, name: header::HeaderName) -> Option<&str> {
    answer.headers().get(name).and_then(|value| value.to_str().ok())
}

/// What an answer has in it, which has to be less than so many bytes.
pub fn small(url: &str, answer: Response<Body>, limit: u64) -> Result<Vec<u8>, PullError> {
    let mut bytes = Vec::new();
    let read = answer.into_body().into_reader().take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| PullError::Http { url: url.into(), source: Box::new(ureq::Error::Io(error)) })?;
    match bytes.len() as u64 > limit {
        true => Err(PullError::TooLarge { url: url.into(), limit }),
        false => Ok(bytes),
    }
}

/// Appends what an answer has in it to the bytes of a file that `have` come, of `want` if that is known.
pub fn append(
    url: &str,
    answer: Response<Body>,
    (file, path): (&mut File, &Path),
    mut have: u64,
    (want, limit): (Option<u64>, u64),
    watch: &Watch,
) -> Result<(), PullError> {
    file.set_len(have).and_then(|()| file.seek(SeekFrom::Start(have))).map_err(at(path))?;
    let mut body = watch.read(answer.into_body().into_reader());
    let mut piece = vec![0; 64 << 10];
    loop {
        let len = match body.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => len,
            Err(_) if watch.is_over() => return Err(PullError::Interrupted),
            Err(error) => {
                debug!(target: "pull", url, %error, have, "A body has broken off");
                return Err(PullError::Short { url: url.into(), have, want });
            }
        };
        file.write_all(&piece[..len]).map_err(at(path))?;
        have += len as u64;
        if have > limit {
            return Err(PullError::TooLarge { url: url.into(), limit });
        }
    }
    match want {
        Some(want) if want != have => Err(PullError::Short { url: url.into(), have, want: Some(want) }),
        _ => Ok(()),
    }
}

/// The bytes that an answer begins at, and of how many, if it is a part.
pub fn range_of(answer: &Response<Body>) -> Option<(u64, Option<u64>)> {
    let partial = answer.status() == ureq::http::StatusCode::PARTIAL_CONTENT;
    text(answer, header::CONTENT_RANGE).filter(|_| partial).and_then(parse_range)
}

/// The first byte of `bytes START-END/TOTAL`, and the total if the server knows it.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

/// The file of what has come of something, which is this process's as long as it is open.
pub fn lock(part: &Path, watch: &Watch) -> Result<File, PullError> {
    let folder = part.parent().unwrap_or(part);
    loop {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let file = match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(part) {
            Ok(file) => file,
            // One that had nothing more in the folder has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(part)(error)),
        };
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    watch.check().map_err(at(part))?;
                    thread::sleep(LOOK);
                }
                Err(TryLockError::Error(error)) => return Err(at(part)(error)),
            }
        }
        // One who had it before may have removed it.
        if part.exists() {
            return Ok(file);
        }
    }
}

/// An error that may be gone at the next try.
fn is_passing(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed)
}

/// A URL's server is this computer.
pub fn is_loopback(url: &str) -> bool {
    let uri: Option<ureq::http::Uri> = url.parse().ok();
    uri.and_then(|uri| uri.host().map(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]")))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_a_start_and_perhaps_a_total() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(parse_range("bytes */10"), None);
        assert!(is_loopback("http://127.0.0.1:5000/v2/") && !is_loopback("http://127.0.0.1.example.org/"));
    }
}
