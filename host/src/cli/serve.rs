//! `env86 serve`: the page that `prepare` makes, live from an image.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use clap::Args;
use env86::image::{FileRef, Image};
use env86::web::{self, Asked};
use tiny_http::{ResponseBox, Server};
use tracing::{debug, warn};

use super::{CliError, Outcome, page};

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
                        let answered = site.answer(&Asked::from(&request));
                        if let Err(error) = answered.and_then(|answer| request.respond(answer)) {
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

    fn answer(&self, asked: &Asked) -> io::Result<ResponseBox> {
        if let Some(refusal) = asked.refused_method() {
            return Ok(refusal);
        }
        if self.local && !asked.is_local() {
            return Ok(web::words(403, "This is served for this computer alone; open it as localhost\n"));
        }
        match self.find(asked.url) {
            Some(Found::Config) => Ok(web::data(self.config.clone(), "image.json")),
            Some(Found::File(path)) => web::file(asked, &path),
            None => Ok(web::words(404, "Not found\n")),
        }
    }
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
    use std::fs;

    use super::*;

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
