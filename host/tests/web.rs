//! `env86 prepare` and `env86 serve`, with small images and a page of a few bytes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// The program with the page's files beside it, and an image.
pub(crate) struct Place {
    dir: TempDir,
    program: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("bin/env86");
        fs::create_dir_all(dir.path().join("bin/web")).unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_env86"));
        // The folder may be on another disk than the program.
        if fs::hard_link(built, &program).is_err() {
            fs::copy(built, &program).unwrap();
        }
        let place = Self { dir, program };
        place.write("bin/web/env86.wasm", b"\0asm");
        place.write("bin/web/index.html", b"<!doctype html>");
        place.write("image/image.json", br#"{"cmdline": "quiet", "net_device": {"type": "virtio"}}"#);
        place.write("image/fs.json", br#"{"fsroot":[],"size":0,"version":3}"#);
        place.write("image/fs/0123.bin", b"0123456789");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// What goes well.
    fn run(&self, words: &[&str]) {
        let Output { status, stderr, .. } = self.command(words).output().unwrap();
        assert!(status.success(), "{words:?}: {}", String::from_utf8_lossy(&stderr));
    }

    /// What the program says about what cannot be done.
    fn complaint(&self, words: &[&str]) -> String {
        let Output { status, stderr, .. } = self.command(words).output().unwrap();
        assert_eq!(status.code(), Some(1), "{words:?}");
        String::from_utf8(stderr).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_prepared_folder_is_whole() {
    let place = Place::new();
    place.write("image/initial.state", &[7; 100_000]);
    place.run(&["prepare", "./image", "site"]);
    assert_eq!(place.names("site"), ["env86.wasm", "image", "index.html"]);
    assert_eq!(place.names("site/image"), ["fs", "fs.json", "fs.json.zst", "image.json", "state"]);
    assert_eq!(fs::read(place.path("site/image/fs/0123.bin")).unwrap(), b"0123456789");
    // What is fetched is packed, beside the plain file.
    let packed = fs::read(place.path("site/image/fs/0123.bin.zst")).unwrap();
    assert_eq!(zstd::decode_all(&*packed).unwrap(), b"0123456789");
    assert_eq!(place.names("site/image/state"), ["initial.state.0"]);
    assert!(fs::metadata(place.path("site/image/state/initial.state.0")).unwrap().len() < 1000);
    let config = fs::read(place.path("site/image/image.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let wanted = serde_json::json!({"cmdline": "quiet", "net_device": {"type": "virtio"}, "initial_state_parts": 1, "packed_files": true});
    assert_eq!(config, wanted);

    // It is an image itself, and can be prepared again.
    place.run(&["prepare", "--no-index", "./site/image", "again"]);
    assert_eq!(place.names("again"), ["env86.wasm", "image"]);
    assert_eq!(place.names("again/image/state"), ["initial.state.0"]);
    assert_eq!(place.names("again/image/fs"), ["0123.bin", "0123.bin.zst"]);
    // Nothing else is left.
    assert_eq!(place.names("."), ["again", "bin", "image", "site"]);
}

#[test]
fn a_page_for_no_network_names_what_it_needs() {
    let place = Place::new();
    place.write("bin/web/offline.js", b"use(FILES);\n");
    place.write("bin/web/env86.d.ts", b"");
    place.run(&["prepare", "./image", "site"]);
    assert!(!place.names("site").contains(&"offline.js".into()));
    place.run(&["prepare", "--offline", "./image", "kept"]);
    let script = fs::read_to_string(place.path("kept/offline.js")).unwrap();
    let lines: Vec<_> = script.lines().collect();
    let files = r#"const FILES = ["env86.wasm","image/fs.json.zst","image/fs/0123.bin.zst","image/image.json","index.html","./"];"#;
    assert_eq!(lines[1..], [files, "use(FILES);"]);
    let config = fs::read_to_string(place.path("kept/image/image.json")).unwrap();
    assert!(config.contains(r#""offline": true"#), "{config}");
    // Another version has another name.
    place.write("bin/web/index.html", b"<!DOCTYPE html>");
    place.run(&["prepare", "--offline", "--force", "./image", "kept"]);
    let again = fs::read_to_string(place.path("kept/offline.js")).unwrap();
    assert_ne!(again.lines().next(), script.lines().next());
    assert_eq!(again.lines().nth(1), script.lines().nth(1));
}

#[test]
fn one_file_has_all_of_it() {
    let place = Place::new();
    let page = r#"<!doctype html><link rel="stylesheet" href="page.css"><script type="module" src="page.mjs"></script>"#;
    place.write("bin/web/index.html", page.as_bytes());
    place.write("bin/web/page.css", b"a {}\n");
    place.write("bin/web/xterm.css", b"");
    place.write("bin/web/page.js", b"run();");
    place.write("bin/web/env86.wasm.zst", b"foobar");
    place.write("bin/web/unpack.wasm.gz", b"foo");
    place.run(&["prepare", "--single-file", "./image", "one.html"]);
    let html = fs::read_to_string(place.path("one.html")).unwrap();
    for part in [
        "<!doctype html><style>\na {}\n</style><script type=",
        "data-name=\"env86.wasm.zst\">\nZm9vYmFy</script>",
        "data-name=\"image/image.json\">",
        "data-name=\"image/fs/0123.bin.zst\">",
        "<script>run();</script>",
    ] {
        assert!(html.contains(part), "{part} is not in {html}");
    }
    assert!(!html.contains("page.mjs") && !html.contains("0123.bin\""), "{html}");
    assert!(place.complaint(&["prepare", "--single-file", "./image", "one.html"]).contains("--force"));
    place.run(&["prepare", "--single-file", "--force", "./image", "one.html"]);
    place.write("other.html", page.as_bytes());
    let complaint = place.complaint(&["prepare", "--single-file", "--force", "./image", "other.html"]);
    assert!(complaint.contains("another file"), "{complaint}");
    assert_eq!(place.names("."), ["bin", "image", "one.html", "other.html"]);
}

#[test]
fn what_is_there_stays() {
    let place = Place::new();
    place.run(&["prepare", "./image", "site"]);
    let complaint = place.complaint(&["prepare", "./image", "site"]);
    assert!(complaint.contains("--force"), "{complaint}");
    place.write("site/old", b"");
    place.run(&["prepare", "--force", "./image", "site"]);
    assert_eq!(place.names("site"), ["env86.wasm", "image", "index.html"]);
    let complaint = place.complaint(&["prepare", "--force", "./image", "image"]);
    assert!(complaint.contains("another folder"), "{complaint}");
    assert_eq!(place.names("image"), ["fs", "fs.json", "image.json"]);
}

#[test]
fn a_failure_leaves_nothing() {
    let place = Place::new();
    fs::remove_file(place.path("image/fs.json")).unwrap();
    let complaint = place.complaint(&["prepare", "./image", "site"]);
    assert!(complaint.contains("fs.json"), "{complaint}");
    assert_eq!(place.names("."), ["bin", "image"]);
}

#[test]
#[cfg(unix)]
fn links_are_not_followed() {
    let place = Place::new();
    place.write("secret", b"secret");
    std::os::unix::fs::symlink(place.path("secret"), place.path("image/fs/4567.bin")).unwrap();
    let complaint = place.complaint(&["prepare", "./image", "site"]);
    assert!(complaint.contains("4567.bin"), "{complaint}");
    assert!(!place.path("site").exists());
}

#[test]
fn without_the_page_the_program_says_how_to_get_it() {
    let place = Place::new();
    fs::remove_dir_all(place.path("bin/web")).unwrap();
    for words in [&["prepare", "./image", "site"][..], &["serve", "./image"]] {
        let complaint = place.complaint(words);
        assert!(complaint.contains("make web"), "{complaint}");
    }
    assert!(!place.path("site").exists());
}

/// A server, which ends with this.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(place: &Place) -> Self {
        let mut child = place.command(&["serve", "./image"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let address = url.trim().strip_prefix("http://").and_then(|url| url.strip_suffix('/'));
        let address = address.unwrap_or_else(|| panic!("no URL: {url}")).to_owned();
        Self { child, address }
    }

    /// The status, the headers and the body of an answer.
    fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        write!(stream, "GET {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn an_image_is_served_as_it_is() {
    let place = Place::new();
    place.write("image/initial.state", b"saved");
    place.write("image.secret", b"secret");
    let server = Serving::start(&place);
    let (status, head, body) = server.get("/", "");
    assert_eq!((status, &*body), (200, "<!doctype html>"));
    assert!(head.contains("text/html"), "{head}");
    assert!(server.get("/env86.wasm", "").1.contains("application/wasm"));
    let (_, _, config) = server.get("/image/image.json", "");
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["initial_state"]["url"], "./initial.state");
    assert_eq!(config["net_device"]["type"], "virtio");

    let blob = "/image/fs/0123.bin";
    let (status, head, body) = server.get(blob, "Range: bytes=2-4\r\n");
    assert_eq!((status, &*body), (206, "234"));
    assert!(head.contains("bytes 2-4/10"), "{head}");
    assert_eq!(server.get(blob, "Range: bytes=10-\r\n").0, 416);
    let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let (status, _, body) = server.get(blob, &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((status, &*body), (304, ""));
    assert_eq!(server.get(blob, "Range: bytes=2-4\r\nIf-Range: \"other\"\r\n").0, 200);

    assert_eq!(server.get("/image/../image.secret", "").0, 404);
    assert_eq!(server.get("/image/%2e%2e/image.secret", "").0, 404);
    assert_eq!(server.get("/", "Host: example.com\r\n").0, 403);
}
