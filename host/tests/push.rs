//! Images that are pushed to a folder, which any web server shows as a registry: pulled, and started by their reference.

#![cfg(all(feature = "pull", not(windows)))]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use env86::image::create;
use env86::image::global::GlobalImages;
use env86::image::oci;
use env86::image::pull::{PullError, Puller, Reference};
use env86::image::{Image, Watch, export};
use env86_tests::roms;

/// A web server of a folder's files, which knows no ranges, and what it was asked for.
struct Server {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (root, seen) = (root.to_owned(), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is none of the server's business.
                let _ = answer(stream, &root, &seen);
            }
        });
        Self { host, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn answer(mut stream: TcpStream, root: &Path, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    asked.lock().unwrap().push(path.clone());
    let (status, body) = match fs::read(root.join(path)) {
        Ok(bytes) => ("200 OK", bytes),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn bytes(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    export(image, &mut bytes, &Watch::default()).unwrap();
    bytes
}

#[test]
fn an_image_in_a_folder_is_pulled_from_any_web_server() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, path, site) = (dir.path().join("tree"), dir.path().join("image"), dir.path().join("site"));
    let watch = Watch::default();
    fs::create_dir(&tree).unwrap();
    for number in 0..40 {
        fs::write(tree.join(format!("{number}")), format!("{number}").repeat(1000)).unwrap();
    }
    create::from_dir(&tree, &path, &Default::default()).unwrap();
    fs::write(path.join("initial.state"), "a state").unwrap();
    let image = Image::open(&path).unwrap();
    let server = Server::new(&site);
    let reference = Reference::new(&format!("oci://{}/work/deb:1", server.host)).unwrap();
    let Reference::Container(to) = &reference else { panic!("{reference:?}") };

    let first = oci::push_to_folder(&image, to, &site, &watch).unwrap();
    assert!(first.sent == first.total && first.sent > 1000, "{first:?}");
    let before = files(&site);
    let again = oci::push_to_folder(&image, to, &site, &watch).unwrap();
    assert_eq!((again.sent, &again.digest), (0, &first.digest));
    fs::write(path.join("initial.state"), "another state").unwrap();
    let changed = oci::push_to_folder(&image, to, &site, &watch).unwrap();
    assert!(changed.sent < 200 && changed.digest != first.digest, "{changed:?}");
    // The new state, and the new manifest by its digest.
    let after = files(&site);
    assert_eq!(after.len(), before.len() + 2);
    assert!(after.iter().all(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')));

    let puller = |root: &str| Puller {
        pause: Duration::from_millis(1),
        ..Puller::new(GlobalImages::within(dir.path().join(root)))
    };
    let pulled = puller("root").pull(&reference, None, &watch).unwrap();
    assert_eq!(pulled.sha256, Some(changed.digest));
    assert!(bytes(&Image::open(pulled.path).unwrap()) == bytes(&image));
    // What is here is not asked for.
    let asked = server.asked();
    assert!(puller("root").pull(&reference, None, &watch).unwrap().sha256.is_none());
    assert_eq!(server.asked(), asked);
    // The older one is still there, by its digest.
    let old = format!("oci://{}/work/deb@sha256:{}", server.host, first.digest);
    let pulled = puller("root").pull(&Reference::new(&old).unwrap(), None, &watch).unwrap();
    assert_eq!(fs::read_to_string(pulled.path.join("initial.state")).unwrap(), "a state");
    // What has changed on its way is noticed, and what is not there.
    for path in after.iter().filter(|path| path.to_string_lossy().contains("/blobs/")) {
        let mut altered = fs::read(path).unwrap();
        altered[10] ^= 1;
        fs::write(path, altered).unwrap();
    }
    let refused = puller("other").pull(&reference, None, &watch);
    assert!(matches!(refused, Err(PullError::Mismatch { .. })), "{refused:?}");
    let none = Reference::new(&format!("oci://{}/none:1", server.host)).unwrap();
    assert!(matches!(puller("other").pull(&none, None, &watch), Err(PullError::Status { .. })));
    assert!(GlobalImages::within(dir.path().join("other")).list().unwrap().is_empty());
}

#[test]
fn a_machine_starts_by_the_reference_of_an_image_that_is_not_here() {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("site");
    roms::make_image(&dir.path().join("image"), &roms::rom(&roms::ECHO)).unwrap();
    let server = Server::new(&site);
    let reference = format!("oci://{}/echo:1", server.host);
    let env86 = |words: &[&str], typed: &str| {
        let mut child = env86_tests::bound_to_us(env!("CARGO_BIN_EXE_env86"))
            .args(words)
            .current_dir(dir.path())
            .env("ENV86_PATH", dir.path().join("root"))
            .env("DOCKER_CONFIG", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // One that fails before reads nothing.
        let _ = stdin.write_all(typed.as_bytes());
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        output
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = env86(&["push", "--to-dir", "site", "image", &reference], "");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"sha256:") && said(&output).contains("written"), "{output:?}");

    let boot = ["boot", "--no-console", "--ttyS0", "--exit-on", "b2", &reference];
    let output = env86(&boot, "ab");
    assert!(output.status.success() && output.stdout == b"a1b2", "{output:?}");
    assert!(said(&output).contains("is pulled"), "{output:?}");
    // Then it is here, and no one is asked.
    let asked = server.asked();
    let output = env86(&boot, "ab");
    assert!(output.status.success() && output.stdout == b"a1b2", "{output:?}");
    assert!(server.asked() == asked && !said(&output).contains("pulled"), "{output:?}");

    // A command needs more than this image has, and it is pulled all the same.
    fs::remove_dir_all(dir.path().join("root")).unwrap();
    let output = env86(&["run", &reference, "true"], "");
    assert!(output.status.code() == Some(125) && said(&output).contains("guest86"), "{output:?}");
    assert!(server.asked() > asked);
    let none = format!("oci://{}/none:1", server.host);
    let output = env86(&["run", &none, "true"], "");
    assert!(output.status.code() == Some(125) && said(&output).contains("404"), "{output:?}");
    // Commands that look at what is here pull nothing.
    let asked = server.asked();
    assert!(!env86(&["inspect", &none], "").status.success());
    assert_eq!(server.asked(), asked);
}
