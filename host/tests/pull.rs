//! Pulling images from a server on the loopback that imitates release pages, breaks off, lies and refuses.

#![cfg(feature = "pull")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use env86::image::global::{GlobalError, GlobalImages, GlobalName};
use env86::image::pull::{PullError, Puller, Reference};
use env86::image::{Image, Watch, create, export};

/// What a server was asked: paths, and where ranges began.
type Asked = Mutex<Vec<(String, Option<usize>)>>;

/// A server.
struct Server {
    address: String,
    asked: Arc<Asked>,
}

impl Server {
    /// A server of an archive at `/image.tgz` and in the releases of `/o/deb-env86`.
    fn new(archive: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::default();
        let server = Self { address, asked: Arc::clone(&asked) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (archive, asked) = (archive.clone(), Arc::clone(&asked));
                // A client that goes away is none of the server's business.
                thread::spawn(move || _ = answer(stream, &archive, &asked));
            }
        });
        server
    }

    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }

    /// Where the requests for the archive at a path began.
    fn starts(&self, path: &str) -> Vec<Option<usize>> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|(asked, _)| asked == path)
            .map(|(_, start)| *start)
            .collect()
    }
}

fn answer(mut stream: TcpStream, archive: &[u8], asked: &Asked) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut start = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().ok();
        }
    }
    let earlier = asked.lock().unwrap().iter().filter(|(other, _)| *other == path).count();
    asked.lock().unwrap().push((path.clone(), start));
    let rest = &archive[start.unwrap_or(0).min(archive.len())..];
    let head = match start {
        Some(start) => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\n",
            archive.len() - 1,
            archive.len(),
            rest.len()
        ),
        None => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", rest.len()),
    } + "ETag: \"one\"\r\nConnection: close\r\n\r\n";
    let (head, body) = match path.as_str() {
        "/image.tgz" | "/summed.tgz" | "/wrong.tgz" | "/o/deb-env86/releases/download/v2/deb-v2.tgz" => {
            (head, rest)
        }
        // It breaks off anywhere, as the path says, each time but the last.
        _ if path.starts_with("/cuts/") => {
            let mut seed: u64 = path.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
            seed = (seed * 1000 + earlier as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let cut = (seed >> 20) as usize % (rest.len() + 1);
            (head, if earlier < 6 { &rest[..cut] } else { rest })
        }
        // It breaks off after a quarter of the bytes, each time but the fourth.
        "/breaks.tgz" => (head, if earlier < 3 { &rest[..rest.len().min(archive.len() / 4)] } else { rest }),
        "/never.tgz" => (head, &rest[..0]),
        "/lies.tgz" => {
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\nConnection: close\r\n\r\n".into(), rest)
        }
        "/no-archive.tgz" => {
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".into(), &b"<html>hello</html>"[..])
        }
        "/endless.tgz" => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[0x1f; 4096])?;
            }
        }
        "/hangs.tgz" => {
            write!(stream, "{head}")?;
            thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        "/for-ever.tgz" => {
            ("HTTP/1.1 302 Found\r\nLocation: /for-ever.tgz\r\nContent-Length: 0\r\n\r\n".into(), &b""[..])
        }
        "/busy.tgz" => {
            ("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n".into(), &b""[..])
        }
        "/wrong.tgz.sha256" => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: 64\r\nConnection: close\r\n\r\n{}",
                "0".repeat(64)
            )?;
            return Ok(());
        }
        "/o/deb-env86" | "/o/deb-env86/releases/tag/v2" | "/o/empty" | "/o/empty/releases" => {
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(), &b""[..])
        }
        "/o/deb-env86/releases/latest" => (
            "HTTP/1.1 302 Found\r\nLocation: /o/deb-env86/releases/tag/v2\r\nContent-Length: 0\r\n\r\n"
                .into(),
            &b""[..],
        ),
        "/o/empty/releases/latest" => (
            "HTTP/1.1 302 Found\r\nLocation: /o/empty/releases\r\nContent-Length: 0\r\n\r\n".into(),
            &b""[..],
        ),
        _ => ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(), &b""[..]),
    };
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// An archive of an image, of several hundred kilobytes.
fn archive(dir: &Path) -> Vec<u8> {
    let (tree, image) = (dir.join("tree"), dir.join("image"));
    fs::create_dir(&tree).unwrap();
    let mut seed = 1_u64;
    let noise: Vec<u8> = (0..300_000)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        })
        .collect();
    fs::write(tree.join("noise"), noise).unwrap();
    create::from_dir(&tree, &image, &create::Options::default()).unwrap();
    let mut bytes = Vec::new();
    export(&Image::open(&image).unwrap(), &mut bytes, &Watch::default()).unwrap();
    bytes
}

fn puller(root: &Path, server: &Server) -> Puller {
    Puller {
        github: server.address.clone(),
        pause: Duration::from_millis(1),
        limit: 1 << 24,
        ..Puller::new(GlobalImages::within(root))
    }
}

#[test]
fn releases_and_urls_become_images_and_breaks_are_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(dir.path());
    let server = Server::new(bytes.clone());
    let root = dir.path().join("root");
    let puller = puller(&root, &server);
    let watch = Watch::default();
    let url = |path: &str| Reference::new(&format!("{}{path}", server.address)).unwrap();

    // The repository's suffix need not be given; the latest release is found, and is meant from then on.
    let deb = Reference::new("github.com/o/deb").unwrap();
    let pulled = puller.pull(&deb, None, &watch).unwrap();
    assert_eq!(pulled.name.to_string(), "github.com/o/deb@v2");
    assert!(pulled.sha256.is_some());
    #[cfg(unix)]
    assert_eq!(fs::read_link(root.join("github.com/o/deb/latest")).unwrap(), Path::new("v2"));
    let again = Reference::new("github.com/o/deb@v2").unwrap();
    let before = server.paths().len();
    assert!(puller.pull(&again, None, &watch).unwrap().sha256.is_none());
    assert_eq!(server.paths().len(), before);
    let missing = |text: &str| puller.pull(&Reference::new(text).unwrap(), None, &watch).unwrap_err();
    assert!(matches!(missing("github.com/o/none"), PullError::NoRepository(_)));
    assert!(matches!(missing("github.com/o/empty"), PullError::NoReleases(_)));
    assert!(matches!(missing("github.com/o/deb@v9"), PullError::NoAsset { .. }));

    // Three breaks, and each time it goes on.
    let name = GlobalName::new("whole").unwrap();
    let pulled = puller.pull(&url("/breaks.tgz"), Some(name), &watch).unwrap();
    let starts = server.starts("/breaks.tgz");
    assert_eq!(starts.len(), 4);
    assert!(starts[0].is_none() && starts[1..].iter().all(Option::is_some), "{starts:?}");
    let mut back = Vec::new();
    export(&Image::open(&pulled.path).unwrap(), &mut back, &watch).unwrap();
    assert!(back == bytes);

    // Several that want the same at once download it once.
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| puller.pull(&url("/image.tgz"), None, &watch).unwrap());
        }
    });
    assert_eq!(server.starts("/image.tgz").len(), 1);
    assert!(root.join("image/local/image.json").exists() && !root.join(".pull").exists());
}

#[test]
fn a_download_that_breaks_anywhere_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(dir.path());
    let server = Server::new(bytes.clone());
    let puller = puller(&dir.path().join("root"), &server);
    for seed in 0..20 {
        let path = format!("/cuts/{seed}.tgz");
        let url = Reference::new(&format!("{}{path}", server.address)).unwrap();
        let name = GlobalName::new(&format!("cut{seed}")).unwrap();
        let pulled = puller.pull(&url, Some(name), &Watch::default()).unwrap();
        let mut back = Vec::new();
        export(&Image::open(&pulled.path).unwrap(), &mut back, &Watch::default()).unwrap();
        assert!(back == bytes, "{seed}");
        // What had come was not asked for again.
        let starts = server.starts(&path);
        assert!(starts.len() == 7 && starts.is_sorted(), "{starts:?}");
    }
}

#[test]
fn twenty_processes_want_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(archive(dir.path()));
    let root = dir.path().join("root");
    let url = format!("{}/breaks.tgz", server.address);
    let processes: Vec<_> = (0..20)
        .map(|_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_env86"));
            command.args(["pull", &url, "same"]).env("ENV86_PATH", &root);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout == b"same@local\n", "{output:?}");
    }
    // One of them, which was broken off three times.
    assert_eq!(server.starts("/breaks.tgz").len(), 4);
    assert_eq!(GlobalImages::within(&root).list().unwrap().len(), 1);
    assert!(!root.join(".pull").exists());
}

#[test]
fn what_is_wrong_is_an_error_in_bounded_time_and_leaves_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(archive(dir.path()));
    let root = dir.path().join("root");
    let puller = Puller { patience: Duration::from_millis(300), ..puller(&root, &server) };
    let watch = Watch::default();
    let pull = |puller: &Puller, path: &str| {
        let url = Reference::new(&format!("{}{path}", server.address)).unwrap();
        puller.pull(&url, Some(GlobalName::new("x").unwrap()), &watch).unwrap_err()
    };
    let wrong = |path: &str| pull(&puller, path);
    assert!(matches!(wrong("/none.tgz"), PullError::Status { .. }));
    assert!(wrong("/busy.tgz").to_string().contains("after 7 seconds"));
    assert!(matches!(wrong("/wrong.tgz"), PullError::Mismatch { .. }));
    assert!(matches!(wrong("/never.tgz"), PullError::Short { have: 0, .. }));
    assert!(matches!(wrong("/lies.tgz"), PullError::TooLarge { .. }));
    assert!(matches!(wrong("/endless.tgz"), PullError::TooLarge { .. }));
    assert!(matches!(wrong("/hangs.tgz"), PullError::Short { .. }));
    assert!(matches!(wrong("/for-ever.tgz"), PullError::Http { .. }));
    assert!(matches!(wrong("/no-archive.tgz"), PullError::Global(GlobalError::Unpack { .. })));
    let summed = Puller { sha256: Some("1".repeat(64)), ..puller.clone() };
    assert!(matches!(pull(&summed, "/image.tgz"), PullError::Mismatch { .. }));
    let summed = Puller { sha256: Some("1".into()), ..puller.clone() };
    assert!(matches!(pull(&summed, "/image.tgz"), PullError::Checksum(_)));
    let plain = Reference::new("http://example.org/x.tgz").unwrap();
    assert!(matches!(puller.pull(&plain, None, &watch), Err(PullError::Plain(_))));
    let stopped = true.into();
    let over = Watch { progress: &(), interrupt: &stopped };
    let url = Reference::new(&format!("{}/image.tgz", server.address)).unwrap();
    assert!(matches!(puller.pull(&url, None, &over), Err(PullError::Interrupted)));
    assert!(GlobalImages::within(&root).list().unwrap().is_empty());
}
