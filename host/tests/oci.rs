//! Pulling container images from a registry on the loopback that wants a token, breaks off, and lies.

#![cfg(feature = "pull")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use env86::image::create::{self, CreateError};
use env86::image::global::{GlobalError, GlobalImages, GlobalName};
use env86::image::kernel::{Kernel, KernelError};
use env86::image::oci::{OciError, Origin};
use env86::image::pull::{PullError, Puller, Reference};
use env86::image::service::GuestService;
use env86::image::{Image, Watch, export};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Paths, and where ranges began.
type Asked = Vec<(String, Option<usize>)>;

/// What a registry has.
#[derive(Default)]
struct Store {
    /// Manifests and blobs, by `REPOSITORY/manifests/TAG` and `REPOSITORY/blobs/DIGEST`.
    things: HashMap<String, Vec<u8>>,
    /// Blobs that break off in the middle, and how often they still do.
    breaks: HashMap<String, usize>,
    asked: Asked,
}

impl Store {
    fn put(&mut self, repository: &str, what: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let size = bytes.len();
        let name = if what.is_empty() { format!("blobs/{digest}") } else { format!("manifests/{what}") };
        let name = name.replace("DIGEST", &digest);
        self.things.insert(format!("{repository}/{name}"), bytes);
        json!({ "mediaType": "application/octet-stream", "digest": digest, "size": size })
    }

    /// An image of layers, packed and not, with the tag `1`.
    fn image(&mut self, repository: &str, architecture: &str, layers: &[(Vec<u8>, Vec<u8>)]) -> Value {
        let config = json!({ "Env": ["A=b"], "Cmd": ["/bin/prog"], "WorkingDir": "/a" });
        self.image_of(repository, architecture, layers, config)
    }

    /// The same of a container with this configuration.
    fn image_of(
        &mut self,
        repository: &str,
        architecture: &str,
        layers: &[(Vec<u8>, Vec<u8>)],
        config: Value,
    ) -> Value {
        let sums: Vec<_> = layers.iter().map(|(_, plain)| digest(plain)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": sums },
        });
        let config = self.put(repository, "", config.to_string().into_bytes());
        let layers: Vec<_> =
            layers.iter().map(|(packed, _)| self.put(repository, "", packed.clone())).collect();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let bytes = manifest.to_string().into_bytes();
        self.put(repository, "DIGEST", bytes.clone());
        self.put(repository, "1", bytes)
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

/// A registry, and its address.
struct Registry {
    host: String,
    store: Arc<Mutex<Store>>,
}

impl Registry {
    fn new(store: Store) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let store = Arc::new(Mutex::new(store));
        let registry = Self { host: host.clone(), store: Arc::clone(&store) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (store, host) = (Arc::clone(&store), host.clone());
                thread::spawn(move || _ = answer(stream, &store, &host));
            }
        });
        registry
    }

    fn reference(&self, rest: &str) -> Reference {
        Reference::new(&format!("oci://{}/{rest}", self.host)).unwrap()
    }

    fn asked(&self, end: &str) -> Vec<Option<usize>> {
        let store = self.store.lock().unwrap();
        store.asked.iter().filter(|(path, _)| path.ends_with(end)).map(|(_, start)| *start).collect()
    }
}

fn answer(mut stream: TcpStream, store: &Mutex<Store>, host: &str) -> std::io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    from.read_line(&mut request)?;
    let mut words = request.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut start, mut shown, mut length) = (None, String::new(), 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => start = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "authorization" => shown = value.to_owned(),
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut sent = vec![0; length];
    from.read_exact(&mut sent)?;
    let mut say = |head: String, body: &[u8], length: usize| {
        write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
        stream.write_all(body)
    };
    if let Some(query) = path.strip_prefix("/token?") {
        let good = query.starts_with("service=test%20registry&scope=repository%3A")
            && (!query.contains("private") || shown == "Basic dTpw");
        let body = br#"{"token":"secret"}"#;
        return if good { say("200 OK".into(), body, body.len()) } else { say("401 No".into(), b"", 0) };
    }
    if shown != "Bearer secret" {
        let repository = path.trim_start_matches("/v2/").split('/').next().unwrap_or_default();
        let challenge = format!(
            "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{host}/token\",\
             service=\"test registry\",scope=\"repository:{repository}:pull\""
        );
        return say(challenge, b"", 0);
    }
    // What the repository's name says, for its manifests or for its blobs.
    let of = |what: &str| {
        path.contains(&format!("{what}-manifests/manifests/"))
            || path.contains(&format!("{what}-blobs/blobs/"))
    };
    if of("busy") {
        return say("429 Too Many Requests\r\nRetry-After: 7".into(), b"", 0);
    }
    if of("for-ever") {
        return say(format!("307 Temporary Redirect\r\nLocation: {path}"), b"", 0);
    }
    if of("hangs") {
        thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    // Blobs lie elsewhere, where no one asks who it is.
    let mut store = store.lock().unwrap();
    store.asked.push((path.clone(), start));
    let name = path.trim_start_matches("/v2/");
    match method.as_str() {
        "HEAD" => {
            let status = if store.things.contains_key(name) { "200 OK" } else { "404 Not Found" };
            return say(status.into(), b"", 0);
        }
        "POST" => {
            let place = name.replace("uploads/", "uploads/1?state=2");
            return say(format!("202 Accepted\r\nLocation: /v2/{place}"), b"", 0);
        }
        "PUT" => {
            let own = digest(&sent);
            let (name, good) = match name.split_once("uploads/1?state=2&digest=") {
                Some((name, wanted)) => (format!("{name}{own}"), wanted == own),
                None => (name.to_owned(), true),
            };
            if good {
                store.things.insert(name, sent);
            }
            return say(if good { "201 Created" } else { "400 Bad Request" }.into(), b"", 0);
        }
        _ => {}
    }
    let Some(bytes) = store.things.get(path.trim_start_matches("/v2/")).cloned() else {
        return say("404 Not Found".into(), b"", 0);
    };
    let rest = &bytes[start.unwrap_or(0).min(bytes.len())..];
    let mut part = rest;
    if let Some((_, left)) = store.breaks.iter_mut().find(|(end, _)| path.ends_with(end.as_str()))
        && *left > 0
    {
        *left -= 1;
        part = &rest[..rest.len() / 3];
    }
    let head = match start {
        Some(start) => {
            format!("206 Part\r\nContent-Range: bytes {start}-{}/{}", bytes.len() - 1, bytes.len())
        }
        None => "200 OK".into(),
    };
    say(head, part, rest.len())
}

/// An entry of a layer.
enum Item<'a> {
    File(&'a str),
    Owned(u32, u32, &'a str),
    Directory,
    Symlink(&'a str),
    Link(&'a str),
}

/// A layer as a plain archive.
fn layer(items: &[(&str, Item)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, item) in items {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let content = match item {
            Item::File(text) | Item::Owned(_, _, text) => text,
            _ => "",
        };
        match item {
            Item::File(_) => {}
            Item::Owned(mode, uid, _) => {
                header.set_mode(*mode);
                header.set_uid(u64::from(*uid));
            }
            Item::Directory => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o755);
            }
            Item::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_link_name(target).unwrap();
            }
            Item::Link(target) => {
                header.set_entry_type(EntryType::Link);
                header.set_link_name(target).unwrap();
            }
        }
        header.set_size(content.len() as u64);
        // As it is: the library would refuse what a hostile archive has.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&bytes).unwrap();
    (encoder.finish().unwrap(), bytes)
}

fn plain(bytes: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    (bytes.clone(), bytes)
}

/// Three layers, of which the later ones change what the first has.
fn layers() -> Vec<(Vec<u8>, Vec<u8>)> {
    use Item::{Directory, File, Link, Owned, Symlink};
    // What does not pack, so that it comes in several pieces.
    let mut seed = 1_u32;
    let noise: String = (0..200_000)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b' ' + (seed >> 26) as u8)
        })
        .collect();
    let first = layer(&[
        ("a/", Directory),
        ("a/x", File("x")),
        ("a/y", File("y")),
        ("a/same", Link("a/y")),
        ("bin/prog", Owned(0o4755, 1000, "prog")),
        ("lib", Symlink("/usr/lib")),
        ("usr/lib/", Directory),
        ("usr/lib/old", File(&noise)),
        ("gone/", Directory),
        ("gone/file", File("gone")),
        ("opaque/", Directory),
        ("opaque/old/deep", File("old")),
        ("tree/", Directory),
        ("tree/leaf", File("leaf")),
    ]);
    let second = layer(&[
        ("a/.wh.x", File("")),
        (".wh.gone", File("")),
        ("none/.wh.x", File("")),
        ("opaque/old/new", File("new")),
        ("opaque/.wh..wh..opq", File("")),
        ("a/.wh..wh.plnk", File("")),
        ("lib/through", File("through")),
        ("tree", File("now a file")),
        ("usr/lib/again", Link("lib/through")),
    ]);
    let third = layer(&[("a/x", File("another x")), ("a/.wh.y", File(""))]);
    vec![gzip(first), (zstd::encode_all(&*second, 3).unwrap(), second), plain(third)]
}

/// All that is in an image: modes, owners, and contents or targets.
pub fn tree(image: &Image) -> BTreeMap<String, (u64, u64, String)> {
    fn add(image: &Image, path: &str, entries: &Value, found: &mut BTreeMap<String, (u64, u64, String)>) {
        for entry in entries.as_array().unwrap() {
            let path = format!("{path}/{}", entry[0].as_str().unwrap());
            let mode = entry[3].as_u64().unwrap();
            let text = match mode & 0o170_000 {
                0o040_000 => {
                    add(image, &path, &entry[6], found);
                    String::new()
                }
                0o100_000 => {
                    let blob = image.dir().join("fs").join(entry[6].as_str().unwrap());
                    String::from_utf8_lossy(&fs::read(blob).unwrap()).into_owned()
                }
                _ => entry[6].as_str().unwrap().into(),
            };
            found.insert(path, (mode, entry[4].as_u64().unwrap(), text));
        }
    }
    let mut found = BTreeMap::new();
    let index: Value = serde_json::from_slice(&image.read_index().unwrap()).unwrap();
    add(image, "", &index["fsroot"], &mut found);
    found
}

fn puller(root: &Path) -> Puller {
    Puller { pause: Duration::from_millis(1), limit: 1 << 24, ..Puller::new(GlobalImages::within(root)) }
}

#[test]
fn a_container_image_becomes_an_image_and_breaks_are_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let (root, watch) = (dir.path().join("root"), Watch::default());
    let mut store = Store::default();
    let layers = layers();
    let mut other = store.image("good", "amd64", &[gzip(layer(&[("other", Item::Directory)]))]);
    let mut own = store.image("good", "386", &layers);
    other["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    own["platform"] = json!({ "os": "linux", "architecture": "386" });
    let index = json!({ "schemaVersion": 2, "manifests": [other, own] });
    store.put("good", "1", index.to_string().into_bytes());
    let first = digest(&layers[0].0);
    store.breaks.insert(first.clone(), 2);
    let registry = Registry::new(store);

    let pulled = puller(&root).pull(&registry.reference("good:1"), None, &watch).unwrap();
    assert_eq!(pulled.name.to_string(), format!("{}/good@1", registry.host.replace(':', "-")));
    assert_eq!(format!("sha256:{}", pulled.sha256.unwrap()), own["digest"].as_str().unwrap());
    let starts = registry.asked(&first);
    assert!(starts.len() == 3 && starts[0].is_none() && starts[1] < starts[2], "{starts:?}");
    assert!(!root.join(".pull").exists());

    let image = Image::open(&pulled.path).unwrap();
    let tree = tree(&image);
    let text = |path: &str| tree[path].2.as_str();
    assert_eq!((text("/a/x"), text("/a/same"), text("/tree")), ("another x", "y", "now a file"));
    assert_eq!(
        (text("/lib"), text("/usr/lib/through"), text("/usr/lib/again")),
        ("/usr/lib", "through", "through")
    );
    assert_eq!(tree["/bin/prog"], (0o104_755, 1000, "prog".into()));
    let names: Vec<&str> = tree.keys().map(|path| path.as_str()).collect();
    assert_eq!(
        names,
        [
            "/a",
            "/a/same",
            "/a/x",
            "/bin",
            "/bin/prog",
            "/lib",
            "/opaque",
            "/opaque/old",
            "/opaque/old/new",
            "/tree",
            "/usr",
            "/usr/lib",
            "/usr/lib/again",
            "/usr/lib/old",
            "/usr/lib/through"
        ]
    );
    let container = &image.config.other["container"];
    assert_eq!(container["config"]["Cmd"][0], "/bin/prog");
    assert!(container["image"].as_str().unwrap().ends_with(own["digest"].as_str().unwrap()));
    // There is no program that Linux would start.
    assert!(image.config.cmdline.unwrap().ends_with(" init=/bin/sh"));

    // By its digest, under a name of one's own, and by several at once.
    let by_digest = registry.reference(&format!("good@{}", own["digest"].as_str().unwrap()));
    let before = registry.asked(&first).len();
    thread::scope(|scope| {
        for _ in 0..4 {
            let name = GlobalName::new("mine").unwrap();
            scope.spawn(|| puller(&root).pull(&by_digest, Some(name), &watch).unwrap());
        }
    });
    assert_eq!(registry.asked(&first).len(), before + 1);
    assert_eq!(GlobalImages::within(&root).list().unwrap().len(), 2);
}

#[test]
fn a_registry_that_lies_is_an_error_and_leaves_no_image() {
    use Item::{Directory, File, Symlink};
    let dir = tempfile::tempdir().unwrap();
    let (root, watch) = (dir.path().join("root"), Watch::default());
    let mut store = Store::default();
    let good = || gzip(layer(&[("a", File("a"))]));
    store.image("amd64", "amd64", &[good()]);
    store.image("private", "386", &[good()]);
    store.image("altered", "386", &[good()]);
    let key = format!("altered/blobs/{}", digest(&good().0));
    store.things.get_mut(&key).unwrap()[20] ^= 1;
    store.image("longer", "386", &[good()]);
    let key = format!("longer/blobs/{}", digest(&good().0));
    store.things.get_mut(&key).unwrap().extend([0; 4000]);
    store.image("unpacked", "386", &[(good().0, b"else".to_vec())]);
    store.image("upwards", "386", &[gzip(layer(&[("../x", File("x"))]))]);
    let links = [("l", Symlink("m")), ("m", Symlink("l")), ("l/x", File("x"))];
    store.image("links", "386", &[gzip(layer(&links))]);
    let out = [("out", Symlink("../../../..")), ("out/x", File("x")), ("d/", Directory)];
    store.image("inside", "386", &[gzip(layer(&out))]);
    store.image("bomb", "386", &[gzip(vec![0; 1 << 20]), gzip(layer(&[("a", File(&"0".repeat(1 << 19)))]))]);
    store.image("cut", "386", &[gzip(layer(&[("a", File("a"))])[..700].to_vec())]);
    store.put("page", "1", b"<html></html>".to_vec());
    store.put("old", "1", br#"{"schemaVersion": 1, "fsLayers": []}"#.to_vec());
    store.put("around", "1", json!({ "manifests": [] }).to_string().into_bytes());
    let mut broken = store.image("broken", "386", &[good()]);
    broken["digest"] = "md5:1".into();
    store.put("broken", "1", json!({ "manifests": [broken] }).to_string().into_bytes());
    store.image("never", "386", &[good()]);
    store.breaks.insert(format!("never/blobs/{}", digest(&good().0)), usize::MAX);
    let registry = Registry::new(store);

    let puller = Puller { limit: 1 << 18, patience: Duration::from_secs(20), ..puller(&root) };
    let pull = |rest: &str| puller.pull(&registry.reference(rest), None, &watch);
    let wrong = |rest: &str| pull(rest).unwrap_err();
    let platform = wrong("amd64:1").to_string();
    assert!(platform.contains("linux/amd64") && platform.contains("i386"), "{platform}");
    assert!(matches!(wrong("private:1"), PullError::Oci(OciError::Refused { .. })));
    assert!(matches!(wrong("altered:1"), PullError::Mismatch { .. }));
    assert!(matches!(wrong("longer:1"), PullError::TooLarge { .. }));
    let made = |rest: &str| match wrong(rest) {
        PullError::Global(GlobalError::Create(error)) => error,
        error => panic!("{rest}: {error:?}"),
    };
    assert!(matches!(made("unpacked:1"), CreateError::Sum { .. }));
    assert!(matches!(made("upwards:1"), CreateError::Member { .. }));
    assert!(made("links:1").to_string().contains("too many links"));
    assert!(matches!(made("bomb:1"), CreateError::TooLarge { .. }));
    assert!(matches!(made("cut:1"), CreateError::Tar { .. }));
    for rest in ["page:1", "old:1", "broken:1"] {
        assert!(matches!(wrong(rest), PullError::Oci(OciError::Manifest { .. })), "{rest}");
    }
    assert!(matches!(wrong("around:1"), PullError::Oci(OciError::Platform { .. })));
    assert!(matches!(wrong("none:1"), PullError::Status { .. }));
    let other = format!("amd64@sha256:{}", "1".repeat(64));
    assert!(matches!(wrong(&other), PullError::Status { .. }));
    assert!(matches!(wrong("never:1"), PullError::Short { .. }));
    assert!(GlobalImages::within(&root).list().unwrap().is_empty());

    // A link that leads out of the tree leads to its root.
    let inside = pull("inside:1").unwrap();
    assert_eq!(tree(&Image::open(inside.path).unwrap())["/x"].2, "x");
    let auth = dir.path().join("config.json");
    fs::write(&auth, json!({ "auths": { registry.host.as_str(): { "auth": "dTpw" } } }).to_string()).unwrap();
    let known = Puller { credentials: vec![auth], ..puller.clone() };
    known.pull(&registry.reference("private:1"), None, &watch).unwrap();
}

#[test]
fn a_registry_that_does_not_answer_is_an_error_in_bounded_time() {
    let dir = tempfile::tempdir().unwrap();
    let (root, watch) = (dir.path().join("root"), Watch::default());
    let mut store = Store::default();
    for name in ["busy", "for-ever", "hangs"] {
        for part in ["manifests", "blobs"] {
            store.image(&format!("{name}-{part}"), "386", &[gzip(layer(&[("a", Item::File("a"))]))]);
        }
    }
    let registry = Registry::new(store);
    let puller = Puller { patience: Duration::from_millis(300), ..puller(&root) };
    for part in ["manifests", "blobs"] {
        let wrong = |name: &str| {
            let reference = registry.reference(&format!("{name}-{part}:1"));
            puller.pull(&reference, None, &watch).unwrap_err()
        };
        let busy = wrong("busy").to_string();
        assert!(busy.contains("after 7 seconds"), "{part}: {busy}");
        for name in ["for-ever", "hangs"] {
            let error = wrong(name);
            assert!(
                // Who is sent away is not shown what this registry wants to be shown.
                matches!(
                    error,
                    PullError::Http { .. }
                        | PullError::Short { .. }
                        | PullError::Oci(OciError::Refused { .. })
                ),
                "{name}, {part}: {error:?}"
            );
        }
    }
    assert!(GlobalImages::within(&root).list().unwrap().is_empty());
}

#[test]
fn what_is_shown_to_a_registry_is_in_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::default();
    store.image("private", "386", &[gzip(layer(&[("a", Item::File("a"))]))]);
    let registry = Registry::new(store);
    // The user's name and password are `u:pw`.
    let kept = json!({ "auths": { registry.host.as_str(): { "auth": "dTpw" } } });
    fs::write(dir.path().join("config.json"), kept.to_string()).unwrap();
    let run = |from: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_env86"));
        command.args(["pull", "--no-guest", &format!("oci://{}/{from}", registry.host)]);
        command.env("ENV86_PATH", dir.path().join("root")).env("DOCKER_CONFIG", dir.path());
        command.env("ENV86_LOG", "trace").env_remove("REGISTRY_AUTH_FILE").env_remove("XDG_RUNTIME_DIR");
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (good, said) = run("private:1");
    assert!(good, "{said}");
    let (good, wrong) = run("private:none");
    assert!(!good && wrong.contains("404"), "{wrong}");
    for secret in ["dTpw", "u:pw", "Bearer secret", "Authorization", "authorization"] {
        assert!(!said.contains(secret) && !wrong.contains(secret), "{secret}: {said}{wrong}");
    }
}

#[test]
fn devices_of_a_layer_are_entries_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Builder::new(Vec::new());
    // A disk, memory, a FIFO that no one writes to, and one more name for the disk.
    let add = |builder: &mut Builder<Vec<u8>>, name: &str, kind: tar::EntryType, (major, minor)| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o666);
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        if kind == tar::EntryType::Link {
            header.set_link_name("dev/sda").unwrap();
        }
        builder.append_data(&mut header, name, std::io::empty()).unwrap();
    };
    add(&mut builder, "dev/sda", tar::EntryType::Block, (8, 0));
    add(&mut builder, "dev/mem", tar::EntryType::Char, (1, 1));
    add(&mut builder, "dev/pipe", tar::EntryType::Fifo, (0, 0));
    add(&mut builder, "dev/again", tar::EntryType::Link, (0, 0));
    for number in 0..2000 {
        add(&mut builder, &format!("dev/loop{number}"), tar::EntryType::Block, (7, number));
    }
    let mut store = Store::default();
    store.image("devices", "386", &[gzip(builder.into_inner().unwrap())]);
    let registry = Registry::new(store);
    let pulled =
        puller(&dir.path().join("root")).pull(&registry.reference("devices:1"), None, &Watch::default());
    let image = Image::open(pulled.unwrap().path).unwrap();
    let index: Value = serde_json::from_slice(&image.read_index().unwrap()).unwrap();
    let entries = index["fsroot"][0][6].as_array().unwrap();
    assert_eq!(entries.len(), 2004);
    let of = |name: &str| entries.iter().find(|entry| entry[0] == name).unwrap();
    assert_eq!((of("sda")[3].as_u64(), &of("sda")[6]), (Some(0o060_666), &json!([8, 0])));
    assert_eq!((of("mem")[3].as_u64(), &of("again")[6]), (Some(0o020_666), &json!([8, 0])));
    // Nothing of it is a device here: the image has plain files and folders.
    fn plain(folder: &Path) -> bool {
        fs::read_dir(folder).unwrap().flatten().all(|entry| {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() { plain(&entry.path()) } else { kind.is_file() }
        })
    }
    assert!(plain(image.dir()));
}

#[test]
fn an_image_that_was_pushed_comes_back_and_only_changes_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, path, watch) = (dir.path().join("tree"), dir.path().join("image"), Watch::default());
    fs::create_dir_all(tree.join("etc")).unwrap();
    for number in 0..40 {
        fs::write(tree.join(format!("etc/{number}")), format!("{number}").repeat(1000)).unwrap();
    }
    create::from_dir(&tree, &path, &Default::default()).unwrap();
    fs::write(path.join("initial.state"), "a state").unwrap();
    let image = Image::open(&path).unwrap();
    let registry = Registry::new(Store::default());
    let (root, reference) = (dir.path().join("root"), registry.reference("work/deb:1"));
    let Reference::Container(to) = &reference else { panic!("{reference:?}") };
    let puller = puller(&root);
    let first = puller.push(&image, to, &watch).unwrap();
    assert!(first.sent == first.total && first.sent > 1000, "{first:?}");
    // The same again is nothing new, and a changed state is all that is.
    let again = puller.push(&image, to, &watch).unwrap();
    assert_eq!((again.sent, &again.digest), (0, &first.digest));
    fs::write(path.join("initial.state"), "another state").unwrap();
    let changed = puller.push(&image, to, &watch).unwrap();
    assert!(changed.sent < 200 && changed.digest != first.digest, "{changed:?}");

    let pulled = puller.pull(&reference, None, &watch).unwrap();
    assert_eq!(pulled.sha256, Some(changed.digest));
    let bytes = |image: &Image| {
        let mut bytes = Vec::new();
        export(image, &mut bytes, &watch).unwrap();
        bytes
    };
    assert!(bytes(&Image::open(pulled.path).unwrap()) == bytes(&image));
    fs::write(dir.path().join("kernel"), "k").unwrap();
    let kernel = Some(Kernel::from_files(&dir.path().join("kernel"), None).unwrap());
    let with_kernel = Puller { kernel, ..puller.clone() };
    let refused = with_kernel.pull(&reference, Some(GlobalName::new("x").unwrap()), &watch);
    assert!(matches!(refused, Err(PullError::Kernel(KernelError::HasOwn))), "{refused:?}");
    let small = Puller { limit: 30_000, ..puller.clone() };
    let refused = small.pull(&reference, Some(GlobalName::new("x").unwrap()), &watch);
    assert!(matches!(refused, Err(PullError::Global(GlobalError::Unpack { .. }))), "{refused:?}");
}

#[test]
fn a_container_image_on_disk_becomes_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, watch) = (dir.path().join("layout"), Watch::default());
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let (mut store, layers) = (Store::default(), layers());
    let mut own = store.image("x", "386", &layers);
    own["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    for (name, bytes) in &store.things {
        if let Some((_, digest)) = name.split_once("sha256:") {
            fs::write(blobs.join(digest), bytes).unwrap();
        }
    }
    let index = json!({ "schemaVersion": 2, "manifests": [own] }).to_string();
    fs::write(layout.join("index.json"), &index).unwrap();
    let pack = |from: &Path, to: &str| {
        let mut builder = Builder::new(Vec::new());
        builder.append_dir_all(".", from).unwrap();
        let path = dir.path().join(to);
        fs::write(&path, gzip(builder.into_inner().unwrap()).0).unwrap();
        path
    };
    // The form that Docker had before.
    let saved = dir.path().join("saved");
    fs::create_dir_all(saved.join("a")).unwrap();
    let config = store.things.values().find(|bytes| bytes.starts_with(b"{\"architecture")).unwrap();
    fs::write(saved.join("c.json"), config).unwrap();
    for (number, (_, plain)) in layers.iter().enumerate() {
        fs::write(saved.join(format!("a/{number}.tar")), plain).unwrap();
    }
    let list =
        |layers: Value| json!([{ "Config": "c.json", "RepoTags": ["x:1"], "Layers": layers }]).to_string();
    fs::write(saved.join("manifest.json"), list(json!(["a/0.tar", "a/1.tar", "a/2.tar"]))).unwrap();

    let puller = puller(&dir.path().join("root"));
    let make = |from: &Path, to: &str| {
        let path = dir.path().join(to);
        let made = puller.create(&Origin::Path(from.into()), &path, &watch)?;
        Ok::<_, PullError>((made.unwrap(), tree(&Image::open(&path).unwrap())))
    };
    let (summary, first) = make(&layout, "first").unwrap();
    assert_eq!((summary.entries, first["/a/x"].2.as_str()), (15, "another x"));
    for (from, to) in
        [(&pack(&layout, "a.tgz"), "second"), (&saved, "third"), (&pack(&saved, "b.tgz"), "fourth")]
    {
        assert!(make(from, to).unwrap().1 == first, "{to}");
    }
    assert!(matches!(
        make(&layout, "first"),
        Err(PullError::Global(GlobalError::Create(CreateError::Exists(_))))
    ));

    let wrong = |from: &Path| make(from, "wrong").unwrap_err();
    for layers in [json!(["../layout/index.json", "a/1.tar", "a/2.tar"]), json!(["a/0.tar"])] {
        fs::write(saved.join("manifest.json"), list(layers)).unwrap();
        assert!(matches!(wrong(&saved), PullError::Oci(OciError::Manifest { .. })));
    }
    fs::write(saved.join("manifest.json"), list(json!(["a/1.tar", "a/0.tar", "a/2.tar"]))).unwrap();
    assert!(matches!(wrong(&saved), PullError::Global(GlobalError::Create(_))));
    let layer = blobs.join(&digest(&layers[0].0)["sha256:".len()..]);
    fs::write(&layer, "else").unwrap();
    assert!(matches!(wrong(&layout), PullError::Mismatch { .. }));
    fs::remove_file(&layer).unwrap();
    assert!(matches!(wrong(&layout), PullError::File { .. }));
    assert!(matches!(wrong(dir.path()), PullError::File { .. }));
    assert!(!dir.path().join("wrong").exists());
}

#[test]
fn a_container_image_on_disk_is_unpacked_for_the_first_build_only() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("layout/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |content: &str| {
        let mut store = Store::default();
        let layer = plain(layer(&[("bin/sh", Item::File(content))]));
        let own = store.image("x", "386", std::slice::from_ref(&layer));
        for (name, bytes) in &store.things {
            if let Some((_, digest)) = name.split_once("sha256:") {
                fs::write(blobs.join(digest), bytes).unwrap();
            }
        }
        let index = json!({ "schemaVersion": 2, "manifests": [own] }).to_string();
        fs::write(dir.path().join("layout/index.json"), index).unwrap();
        blobs.join(&digest(&layer.0)["sha256:".len()..])
    };
    let build = |image: &str, flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_env86"));
        command.args(["build", "--no-guest", "-f", "Dockerfile", "-t", image]).args(flags).arg("context");
        command.env("XDG_CACHE_HOME", dir.path().join("cache")).current_dir(dir.path());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    fs::create_dir(dir.path().join("context")).unwrap();
    fs::write(dir.path().join("Dockerfile"), "FROM ./layout\nWORKDIR /x\n").unwrap();
    let first = put("one");
    let (good, text) = build("./a", &[]);
    assert!(good, "{text}");
    // Nothing of it is read again.
    fs::remove_file(&first).unwrap();
    let (good, text) = build("./b", &[]);
    assert!(good && text.contains("CACHED"), "{text}");
    let (good, text) = build("./c", &["--no-cache"]);
    assert!(!good && text.contains(first.file_name().unwrap().to_str().unwrap()), "{text}");
    let _second = put("two");
    let (good, text) = build("./d", &[]);
    assert!(good && !text.contains("CACHED"), "{text}");
    let at = |image: &str| tree(&Image::open(dir.path().join(image)).unwrap())["/bin/sh"].2.clone();
    assert_eq!((at("a"), at("b"), at("d")), ("one".into(), "one".into(), "two".into()));
    assert_eq!(fs::read_dir(dir.path().join("cache/env86/build/bases")).unwrap().count(), 2);
}

/// What a program for i386 begins with.
fn program() -> Vec<u8> {
    let mut program = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    program.resize(100, b'.');
    program
}

#[test]
fn guest86_is_put_where_nothing_else_starts() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("guest86"), program()).unwrap();
    let guest = GuestService::new(dir.path().join("guest86")).unwrap();
    let init = || Item::Owned(0o755, 0, "init");
    // Paths, the container's command, and where guest86 is put if it is needed, and if it is wanted.
    let cases = [
        (vec![("bin/sh", init())], "/bin/sh", Some("/bin/guest86"), "/bin/guest86"),
        (vec![("prog", init())], "/prog", Some("/guest86"), "/guest86"),
        // A tool box has an init that no one starts.
        (vec![("sbin/init", init())], "/bin/sh", Some("/sbin/guest86"), "/sbin/guest86"),
        (
            vec![("usr/sbin/x", init()), ("sbin", Item::Symlink("usr/sbin"))],
            "/bin/sh",
            Some("/usr/sbin/guest86"),
            "/usr/sbin/guest86",
        ),
        (vec![("sbin/init", init())], "/sbin/init", None, "/sbin/guest86"),
        (vec![("bin/guest86", init())], "/bin/sh", None, "/guest86"),
    ];
    let mut store = Store::default();
    for (number, (items, command, ..)) in cases.iter().enumerate() {
        let layer = gzip(layer(items));
        store.image_of(&format!("box{number}"), "386", &[layer], json!({ "Cmd": [command] }));
    }
    let registry = Registry::new(store);
    for (number, (items, _, needed, wanted)) in cases.iter().enumerate() {
        let made = |guest: &GuestService, name: &str| {
            let puller = Puller { guest: Some(guest.clone()), ..puller(&dir.path().join("root")) };
            let reference = Reference::new(&format!("oci://{}/box{number}:1", registry.host)).unwrap();
            let name = GlobalName::new(&format!("{name}{number}")).unwrap();
            Image::open(puller.pull(&reference, Some(name), &Watch::default()).unwrap().path).unwrap()
        };
        for (image, at) in [
            (made(&guest.clone().where_needed(), "needed"), *needed),
            (made(&guest, "wanted"), Some(*wanted)),
        ] {
            let tree = tree(&image);
            let cmdline = image.config.cmdline.clone().unwrap();
            assert_eq!(image.config.has_guest_service, at.is_some(), "{number}");
            match at {
                None => assert!(!cmdline.contains("guest86"), "{number} {cmdline}"),
                Some(at) => {
                    assert!(cmdline.ends_with(&format!(" init={at}")), "{number} {cmdline}");
                    assert_eq!(tree[at], (0o100_755, 0, String::from_utf8(program()).unwrap()), "{number}");
                }
            }
            assert!(items.iter().all(|(path, _)| tree.contains_key(&format!("/{path}"))), "{number}");
        }
    }
}

#[test]
fn the_command_gives_a_container_image_a_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::default();
    store.image("box", "386", &[gzip(layer(&[("sbin/init", Item::Owned(0o755, 0, "init"))]))]);
    let registry = Registry::new(store);
    fs::write(dir.path().join("kernel"), "a kernel").unwrap();
    fs::write(dir.path().join("ramdisk"), "a disk").unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_env86"));
        command.args(words).current_dir(dir.path()).env("ENV86_PATH", dir.path().join("root"));
        command.env("DOCKER_CONFIG", dir.path()).output().unwrap()
    };
    let reference = format!("oci://{}/box:1", registry.host);
    let output = run(&["pull", "--no-guest", "--kernel", "kernel", "--initrd", "ramdisk", &reference]);
    assert!(output.status.success(), "{output:?}");
    let name = String::from_utf8(output.stdout).unwrap();
    assert_eq!(name, format!("{}/box@1\n", registry.host.replace(':', "-")));
    // It is found by what it was called by, and another image can take its kernel.
    let shown: Value = serde_json::from_slice(&run(&["inspect", "--json", &reference]).stdout).unwrap();
    assert_eq!((&shown["config"]["bzimage"]["url"], &shown["entries"]), (&"./vmlinuz".into(), &2.into()));
    assert!(!shown["config"]["cmdline"].as_str().unwrap().contains("init="));
    let output = run(&["pull", "--kernel", name.trim(), &reference, "second"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(dir.path().join("root/second/local/initrd.img")).unwrap(), b"a disk");
    let output = run(&["create", "--from-oci", &reference, "--kernel", "kernel", "made"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(dir.path().join("made/vmlinuz")).unwrap(), b"a kernel");
    fs::write(dir.path().join("guest86"), program()).unwrap();
    let output = run(&["create", "--from-oci", &reference, "--with-guest=guest86", "served"]);
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read_to_string(dir.path().join("served/image.json")).unwrap().contains("init=/sbin/guest86"));
    let output = run(&["create", "--from-oci", &reference, "--with-guest=kernel", "other"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("make guest"), "{output:?}");
    let output = run(&["create", "--from-oci", "nothing", "other"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("oci://"), "{output:?}");
    let output = run(&["pull", "--kernel", "none", &reference, "third"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("none"), "{output:?}");
}
