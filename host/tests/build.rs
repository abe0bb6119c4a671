//! `env86 build`: what a Dockerfile becomes, and what a second build takes of the first.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use env86::image::Image;
use env86::image::Watch;
use env86::image::build::{Build, BuildError, Event, Keep, prune};
use env86::image::create::{Options, Summary, from_dir};
use env86::image::global::{GlobalImages, GlobalName};
use env86::image::kernel::Kernel;
use env86::image::service::GuestService;
use serde_json::{Value, json};

/// A folder with a context, a cache and what is built.
struct Scratch {
    dir: tempfile::TempDir,
    interrupt: AtomicBool,
    arguments: BTreeMap<String, String>,
    target: Option<String>,
    told: Mutex<Vec<String>>,
}

impl Scratch {
    fn new(dockerfile: &str) -> Self {
        let scratch = Self {
            dir: tempfile::tempdir().unwrap(),
            interrupt: AtomicBool::new(false),
            arguments: BTreeMap::new(),
            target: None,
            told: Mutex::default(),
        };
        scratch.file("Dockerfile", dockerfile);
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, content: &str) {
        let path = self.path("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    }

    fn with<T>(&self, cache: &str, make: impl FnOnce(&Build) -> T) -> T {
        self.told.lock().unwrap().clear();
        let tell = |event: Event| {
            let text = match event {
                Event::Begun(number, name) => format!("{number} {name}"),
                Event::Cached(number) => format!("{number} cached"),
                Event::Output(number, bytes) => format!("{number} {}", String::from_utf8_lossy(bytes)),
                Event::Done(number, _) => format!("{number} done"),
                Event::Warning(text) => text.into(),
            };
            self.told.lock().unwrap().push(text);
        };
        let open = |name: &str, _: &Path| -> Result<Image, Box<dyn Error + Send + Sync>> {
            Ok(Image::open(self.path(name))?)
        };
        make(&Build {
            dockerfile: self.path("context/Dockerfile"),
            context: self.path("context"),
            target: self.target.clone(),
            arguments: self.arguments.clone(),
            kernel: None,
            guest: None,
            service: None,
            host_ports: Vec::new(),
            cache: self.path(cache),
            anew: false,
            open: &open,
            tell: &tell,
            options: Options { interrupt: &self.interrupt, ..Options::default() },
        })
    }

    fn build(&self, image: &str) -> Result<Summary, BuildError> {
        self.with("cache", |build| build.directory(&self.path(image)))
    }

    fn good(&self, image: &str) -> Built {
        self.build(image).unwrap_or_else(|error| panic!("{}", chain(&error)));
        Built::read(&self.path(image))
    }

    fn bad(&self) -> String {
        let error = chain(&self.build("none").unwrap_err());
        assert!(!self.path("none").exists());
        let left: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
        error
    }

    /// The steps whose results were kept, and those that were done.
    fn steps(&self) -> (usize, usize) {
        let told = self.told.lock().unwrap();
        let count = |end: &str| told.iter().filter(|text| text.ends_with(end)).count();
        (count(" cached"), count(" done"))
    }
}

fn chain(error: &dyn Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", source.unwrap_or_default())
}

/// An image that was built.
struct Built {
    /// By their paths: mode, owner, group, and the content or the link's target.
    files: BTreeMap<String, (u64, u64, u64, String)>,
    config: Value,
    /// Numbers of hard links.
    links: BTreeMap<String, u64>,
}

impl Built {
    fn read(image: &Path) -> Self {
        let parse =
            |name: &str| serde_json::from_slice::<Value>(&fs::read(image.join(name)).unwrap()).unwrap();
        let mut built = Self { files: BTreeMap::new(), config: parse("image.json"), links: BTreeMap::new() };
        built.add(image, "", &parse("fs.json")["fsroot"]);
        built
    }

    fn add(&mut self, image: &Path, below: &str, entries: &Value) {
        for entry in entries.as_array().unwrap() {
            let number = |at: usize| entry[at].as_u64().unwrap();
            let path = format!("{below}/{}", entry[0].as_str().unwrap());
            let content = match number(3) & 0o170_000 {
                0o100_000 => fs::read_to_string(image.join("fs").join(entry[6].as_str().unwrap())).unwrap(),
                0o120_000 => entry[6].as_str().unwrap().into(),
                _ => String::new(),
            };
            if let Some(link) = entry[7].as_u64() {
                self.links.insert(path.clone(), link);
            }
            if entry[6].is_array() {
                self.add(image, &path, &entry[6]);
            }
            self.files.insert(path, (number(3), number(4), number(5), content));
        }
    }

    fn paths(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    fn at(&self, path: &str) -> (u64, u64, u64, &str) {
        let (mode, uid, gid, content) =
            self.files.get(path).unwrap_or_else(|| panic!("{path}: {:?}", self.paths()));
        (*mode, *uid, *gid, content)
    }
}

/// All bytes of an image.
fn bytes(image: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in [image.to_owned(), image.join("fs")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                found.insert(path.strip_prefix(image).unwrap().into(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A tar archive, packed by gzip.
fn archive(path: &Path) {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut add = |kind, name: &str, mode, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            tar.append_data(&mut header, name, content).unwrap();
        } else {
            tar.append_link(&mut header, name, link).unwrap();
        }
    };
    add(tar::EntryType::Directory, "./d/", 0o700, "", b"");
    add(tar::EntryType::Regular, "./d/f", 0o4755, "", b"packed");
    add(tar::EntryType::Link, "./d/hard", 0o755, "./d/f", b"");
    add(tar::EntryType::Symlink, "./d/soft", 0o777, "f", b"");
    fs::write(path, tar.into_inner().unwrap().finish().unwrap()).unwrap();
}

const ALL: &str = r#"ARG base=scratch
FROM $base AS files
COPY etc /etc
WORKDIR /srv
COPY --chown=app:www --chmod=4711 a.txt b
ADD data.tgz .
COPY a.txt empty link *.md ./docs/
COPY <<EOF <<'RAW' /here/
$name costs \$5
EOF
$name
RAW

FROM scratch AS unused
COPY missing /

FROM files
ARG version=1
ENV name=x VERSION=$version
LABEL a="b c"
COPY --from=files /srv/d /copy
COPY --from=0 --chown=5 /srv/docs/[ab]* /two/
EXPOSE 80
USER app
WORKDIR sub
ENTRYPOINT ["/bin/app"]
CMD ["-v"]
"#;

fn all() -> Scratch {
    let scratch = Scratch::new(ALL);
    scratch.file("etc/passwd", "root:x:0:0::/:\napp:x:100:101::/:\n");
    scratch.file("etc/group", "www:x:33:\n");
    scratch.file("a.txt", "hello");
    scratch.file("b.md", "b");
    scratch.file("c.md", "c");
    scratch.file("empty", "");
    symlink("a.txt", scratch.path("context/link")).unwrap();
    archive(&scratch.path("context/data.tgz"));
    scratch
}

#[test]
fn a_dockerfile_becomes_an_image() {
    let scratch = all();
    let built = scratch.good("image");
    let (file, dir, root) = (0o100_640, 0o040_755, (0, 0));
    for (path, mode, (uid, gid), content) in [
        ("/etc/group", file, root, "www:x:33:\n"),
        ("/srv", dir, root, ""),
        ("/srv/b", 0o104_711, (100, 33), "hello"),
        ("/srv/d", 0o040_700, (7, 8), ""),
        ("/srv/d/f", 0o104_755, (7, 8), "packed"),
        ("/srv/d/soft", 0o120_777, (7, 8), "f"),
        ("/srv/docs/b.md", file, root, "b"),
        ("/srv/docs/empty", file, root, ""),
        // What a link leads to is copied, as Docker does.
        ("/srv/docs/link", file, root, "hello"),
        ("/here/EOF", 0o100_644, root, " costs $5\n"),
        ("/here/RAW", 0o100_644, root, "$name\n"),
        ("/copy", 0o040_700, (7, 8), ""),
        ("/copy/hard", 0o104_755, (7, 8), "packed"),
        ("/two/a.txt", file, (5, 5), "hello"),
        ("/two/b.md", file, (5, 5), "b"),
        ("/srv/sub", dir, (100, 101), ""),
    ] {
        assert_eq!(built.at(path), (mode, uid, gid, content), "{path}");
    }
    assert!(!built.files.contains_key("/two/c.md") && built.files.contains_key("/srv/docs/c.md"));
    // Names of one file stay such.
    assert_eq!(built.links["/copy/f"], built.links["/copy/hard"]);
    assert_eq!(built.links["/srv/d/f"], built.links["/srv/d/hard"]);
    assert!(built.links["/copy/f"] != built.links["/srv/d/f"]);
    assert_eq!(
        built.config["container"]["config"],
        json!({
            "Env": ["name=x", "VERSION=1"],
            "Labels": {"a": "b c"},
            "ExposedPorts": {"80/tcp": {}},
            "User": "app",
            "WorkingDir": "/srv/sub",
            "Entrypoint": ["/bin/app"],
            "Cmd": ["-v"],
        })
    );
    // There is no program that is started first.
    assert!(built.config["cmdline"].as_str().unwrap().ends_with(" init=/bin/sh"));
    let image = Image::open(scratch.path("image")).unwrap();
    let checked = env86::image::check::check(&image, &Default::default()).unwrap();
    assert!(checked.problems.is_empty() && checked.unused == 0, "{checked:?}");
}

#[test]
fn the_same_input_gives_the_same_bytes_and_only_changes_are_done_again() {
    let scratch = all();
    scratch.good("one");
    let told = scratch.told.lock().unwrap().clone();
    assert_eq!(&told[..2], ["1 [files 2/7] COPY etc /etc", "1 done"]);
    let (kept, done) = scratch.steps();
    assert_eq!((kept, done), (0, 9), "{told:?}");
    scratch.good("two");
    assert_eq!(scratch.steps(), (9, 0));
    scratch.with("other-cache", |build| build.directory(&scratch.path("three"))).unwrap();
    assert_eq!(scratch.steps(), (0, 9));
    scratch.with("cache", |build| {
        let build = Build { cache: build.cache.clone(), anew: true, ..copy_of(build) };
        build.directory(&scratch.path("four")).unwrap();
    });
    assert_eq!(scratch.steps(), (0, 9));
    let one = bytes(&scratch.path("one"));
    for other in ["two", "three", "four"] {
        assert!(bytes(&scratch.path(other)) == one, "{other}");
    }
    // A time alone changes nothing, and what is not copied does not matter.
    scratch.file("a.txt", "hello");
    scratch.file("other", "x");
    scratch.good("five");
    assert_eq!(scratch.steps(), (9, 0));
    // What the configuration says is no reason to do anything again.
    let text = ALL.replace("LABEL a=\"b c\"", "LABEL a=d");
    scratch.file("Dockerfile", &text);
    assert_eq!(scratch.good("six").config["container"]["config"]["Labels"], json!({"a": "d"}));
    assert_eq!(scratch.steps(), (9, 0));
    // Of what is behind the change, all is done again.
    scratch.file("c.md", "changed");
    assert_eq!(scratch.good("seven").at("/srv/docs/c.md").3, "changed");
    assert_eq!(scratch.steps(), (4, 5));
}

fn copy_of<'a>(build: &Build<'a>) -> Build<'a> {
    Build {
        dockerfile: build.dockerfile.clone(),
        context: build.context.clone(),
        target: build.target.clone(),
        arguments: build.arguments.clone(),
        kernel: None,
        guest: None,
        service: None,
        host_ports: Vec::new(),
        cache: build.cache.clone(),
        anew: build.anew,
        open: build.open,
        tell: build.tell,
        options: Options { interrupt: build.options.interrupt, ..Options::default() },
    }
}

#[test]
fn arguments_and_targets_are_chosen_by_the_user() {
    let mut scratch = all();
    scratch.arguments =
        [("version", "2"), ("none", "3")].map(|(name, value)| (name.into(), value.into())).into();
    let built = scratch.good("image");
    assert_eq!(built.config["container"]["config"]["Env"], json!(["name=x", "VERSION=2"]));
    assert_eq!(scratch.told.lock().unwrap()[0], "no ARG asks for the argument `none`");
    scratch.target = Some("files".into());
    let built = scratch.good("files");
    assert!(!built.files.contains_key("/copy") && built.files.contains_key("/srv/b"));
    scratch.target = Some("unused".into());
    assert!(scratch.bad().contains("line 15: there is no `missing` in the context"), "{}", scratch.bad());
}

#[test]
fn what_dockerignore_hides_is_not_seen() {
    let scratch = Scratch::new("FROM scratch\nCOPY . /all/");
    for name in ["a.o", "a.c", "target/x", "target/keep/y", "sub/b.o", "sub/b.c"] {
        scratch.file(name, name);
    }
    scratch.file(".dockerignore", "**/*.o\ntarget\n!target/keep\nDockerfile\n.dockerignore\n");
    let wanted = [
        "/all",
        "/all/a.c",
        "/all/sub",
        "/all/sub/b.c",
        "/all/target",
        "/all/target/keep",
        "/all/target/keep/y",
    ];
    assert_eq!(scratch.good("one").paths(), wanted);
    scratch.file("Dockerfile.dockerignore", "*\n!a.o\n");
    assert_eq!(scratch.good("two").paths(), ["/all", "/all/a.o"]);
    scratch.file("Dockerfile", "FROM scratch\nCOPY a.c /");
    assert!(scratch.bad().contains("does .dockerignore hide it?"));
    scratch.file("Dockerfile.dockerignore", "");
    scratch.file("Dockerfile", "FROM scratch\nCOPY --exclude=*.o --exclude=keep sub target /x/");
    assert_eq!(scratch.good("three").paths(), ["/x", "/x/b.c", "/x/x"]);
}

#[test]
fn an_image_here_is_built_upon() {
    let scratch = Scratch::new("FROM base\nCOPY a /bin/sh/../a\nFROM base\nCOPY a /lib/a\nCOPY a /etc/a");
    scratch.file("a", "new");
    let tree = scratch.path("tree");
    for (name, content) in [("usr/lib/old", "old"), ("etc/a", "before"), ("sbin/init", ""), ("vmlinuz", "k")]
    {
        fs::create_dir_all(tree.join(name).parent().unwrap()).unwrap();
        fs::write(tree.join(name), content).unwrap();
    }
    symlink("usr/lib", tree.join("lib")).unwrap();
    from_dir(&tree, &scratch.path("base"), &Options::default()).unwrap();
    fs::write(scratch.path("base/initial.state"), "state").unwrap();
    fs::write(scratch.path("base/kernel"), "kernel").unwrap();
    let config = json!({
        "cmdline": "quiet",
        "bzimage": {"url": "./kernel"},
        "memory_size": 1024,
        "container": {"image": "x", "config": {"Env": ["a=1"]}},
    });
    fs::write(scratch.path("base/image.json"), config.to_string()).unwrap();
    let built = scratch.good("image");
    assert_eq!(
        (built.at("/usr/lib/a").3, built.at("/etc/a").3, built.at("/lib").3),
        ("new", "new", "usr/lib")
    );
    assert_eq!(built.at("/usr/lib/old").3, "old");
    assert_eq!(
        built.config,
        json!({
            "cmdline": "quiet",
            "bzimage": {"url": "./kernel"},
            "memory_size": 1024,
            "container": {"image": "x", "config": {"Env": ["a=1"]}},
        })
    );
    assert_eq!(fs::read(scratch.path("image/kernel")).unwrap(), b"kernel");
    assert!(!scratch.path("image/initial.state").exists());
    // The base has its own bytes.
    assert_eq!(Built::read(&scratch.path("base")).at("/etc/a").3, "before");
    // What is damaged is told of.
    let blob = fs::read_dir(scratch.path("base/fs")).unwrap().map(|entry| entry.unwrap().path());
    let blob = blob.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::remove_file(blob).unwrap();
    let error = scratch.with("new-cache", |build| build.directory(&scratch.path("none"))).unwrap_err();
    assert!(chain(&error).contains("Cannot read"), "{}", chain(&error));
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_leaves_nothing() {
    let scratch = Scratch::new("");
    scratch.file("a", "a");
    scratch.file("d/e", "e");
    scratch.file("long.tar.xz", "\u{fd}7zXZ");
    fs::write(scratch.path("context/long.tar.xz"), b"\xfd7zXZ\0and more").unwrap();
    for (text, part) in [
        ("FROM scratch\nRUN make", "line 2: the image runs no guest86"),
        ("FROM scratch\n\nCOPY none /", "line 3: there is no `none` in the context"),
        ("FROM scratch\nCOPY ../../x /", "line 2: there is no `x` in the context"),
        ("FROM scratch\nCOPY *.none /", "there is no `*.none`"),
        ("FROM scratch\nCOPY a d /x", "put a slash behind it"),
        ("FROM scratch\nCOPY --chown=me a /", "no `me` in the image's /etc/passwd"),
        ("FROM scratch\nCOPY --chmod=u+x a /", "write an octal number"),
        ("FROM scratch\nCOPY --chmod=99 a /", "write an octal number"),
        ("FROM scratch\nCOPY a /x\nCOPY d /x", "line 3: `/x` is a file"),
        ("FROM scratch\nCOPY a /x\nCOPY a /x/y", "line 3: `/x` is no directory"),
        ("FROM scratch\nCOPY d /x/a\nCOPY a /x/", "line 3: `a` is a directory there"),
        ("FROM scratch\nADD https://x.test/a /", "ADD does not download"),
        ("FROM scratch\nADD long.tar.xz /", "line 2: `long.tar.xz` is compressed by xz"),
        ("FROM nothing", "line 1: cannot use the image `nothing`"),
        ("FROM scratch\nCOPY --from=nothing a /", "line 2: cannot use the image `nothing`"),
        ("FROM scratch\nFRMO x", "line 2: `FRMO` is no instruction"),
    ] {
        scratch.file("Dockerfile", text);
        let error = scratch.bad();
        assert!(error.contains(part), "{text:?}: {error}");
    }
    fs::remove_file(scratch.path("context/Dockerfile")).unwrap();
    assert!(scratch.bad().contains("Cannot read"));
}

#[test]
fn an_archive_does_not_lead_out_of_its_place() {
    let scratch = Scratch::new("FROM scratch\nADD evil.tar /srv/");
    let mut bytes = Vec::new();
    for (name, kind, link) in [("up", b'2', "../../../../.."), ("up/etc/f", b'0', ""), ("../out", b'0', "")] {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        if name == "up/etc/f" {
            // Up to here it is a good one: the link leads to the image's own root.
            let mut good = bytes.clone();
            good.extend([0; 1024]);
            fs::write(scratch.path("context/evil.tar"), good).unwrap();
            assert_eq!(scratch.good("image").paths(), ["/etc", "/etc/f", "/srv", "/srv/up"]);
        }
    }
    bytes.extend([0; 1024]);
    fs::write(scratch.path("context/evil.tar"), bytes).unwrap();
    assert!(scratch.bad().contains("its path leads out of the tree"));
}

#[test]
fn a_build_that_was_stopped_leaves_nothing_half_made() {
    let scratch = all();
    scratch.interrupt.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(scratch.bad().contains("Interrupted"));
    // As one that was killed leaves its folder.
    fs::create_dir_all(scratch.path("cache/.work.env86-1-0")).unwrap();
    fs::write(scratch.path("cache/.work.env86-1-0/0.tmp"), "half").unwrap();
    scratch.interrupt.store(false, std::sync::atomic::Ordering::Relaxed);
    scratch.good("image");
    let names = fs::read_dir(scratch.path("cache")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["bases", "blobs", "steps"]);
    let again = scratch.build("image").unwrap_err();
    assert!(chain(&again).contains("already exists"), "{}", chain(&again));
}

#[test]
fn what_was_used_longest_ago_is_kept_no_longer() {
    let scratch = Scratch::new("FROM scratch\nCOPY a /a\nCOPY b /b\n");
    scratch.file("a", "first");
    scratch.file("b", "second");
    scratch.good("one");
    let cache = scratch.path("cache");
    let count = |folder: &str| fs::read_dir(cache.join(folder)).unwrap().count();
    assert_eq!((count("steps"), count("blobs")), (2, 3));
    let all = Keep { age: Duration::MAX, bytes: u64::MAX };
    let pruned = |keep| prune(&cache, keep, &Watch::default()).unwrap().unwrap();
    let kept = pruned(all);
    assert_eq!((kept.results, kept.bytes, count("blobs")), (0, 0, 3));
    assert!(kept.left > 11);
    // One that is used again is younger than another one.
    let old = SystemTime::now() - Duration::from_secs(3600);
    for entry in fs::read_dir(cache.join("steps")).unwrap() {
        File::options().append(true).open(entry.unwrap().path()).unwrap().set_modified(old).unwrap();
    }
    scratch.file("b", "other");
    scratch.good("two");
    assert_eq!((scratch.steps(), count("blobs")), ((1, 1), 4));
    let one_gone = pruned(Keep { bytes: pruned(all).left - 1, ..all });
    assert_eq!((one_gone.results, count("steps"), count("blobs")), (1, 2, 3));
    let old_gone = pruned(Keep { age: Duration::from_secs(1800), ..all });
    assert_eq!((old_gone.results, count("steps")), (0, 2));
    scratch.good("three");
    assert_eq!(scratch.steps(), (2, 0));
    // What the images have is theirs.
    let none = pruned(Keep { bytes: 0, ..all });
    assert_eq!((none.results, none.left, count("steps"), count("blobs")), (2, 0, 0, 1));
    assert_eq!(Built::read(&scratch.path("three")).at("/b").3, "other");
    scratch.good("four");
    assert_eq!(scratch.steps(), (0, 2));
    // A build that is at work needs all of it.
    scratch.file("Dockerfile", "FROM three\n");
    let tried = scratch.with("cache", |build| {
        let seen = Mutex::new(None);
        let open = |name: &str, place: &Path| {
            *seen.lock().unwrap() = Some(prune(&cache, Keep { bytes: 0, ..all }, &Watch::default()).unwrap());
            (build.open)(name, place)
        };
        Build { open: &open, ..copy_of(build) }.directory(&scratch.path("five")).unwrap();
        seen.into_inner().unwrap()
    });
    assert_eq!(tried, Some(None));
    assert_eq!(prune(&scratch.path("none"), all, &Watch::default()).unwrap(), Some(Default::default()));
}

#[test]
fn a_global_image_is_replaced_by_the_next_build() {
    let scratch = Scratch::new("FROM scratch\nCOPY a /");
    scratch.file("a", "one");
    let images = GlobalImages::within(scratch.path("images"));
    let name = GlobalName::new("built@1").unwrap();
    for content in ["one", "two"] {
        scratch.file("a", content);
        scratch.with("cache", |build| build.global(&images, &name)).unwrap();
        assert_eq!(Built::read(&images.place(&name)).at("/a").3, content);
    }
    // A build that fails leaves what was there.
    scratch.file("Dockerfile", "FROM scratch\nCOPY b /");
    scratch.with("cache", |build| build.global(&images, &name)).unwrap_err();
    assert_eq!(Built::read(&images.place(&name)).at("/a").3, "two");
}

#[test]
fn the_command_tells_its_steps_as_they_come() {
    let scratch = Scratch::new("FROM scratch\nARG v\nCOPY a /$v/\n");
    scratch.file("a", "a");
    let run = |tag: &str, more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_env86"))
            .args(["build", "--no-guest", "-t", tag, "--build-arg", "v=dir"])
            .args(more)
            .arg(scratch.path("context"))
            .env("XDG_CACHE_HOME", scratch.path("home-cache"))
            .env("ENV86_PATH", scratch.path("images"))
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (good, text) = run(scratch.path("image").to_str().unwrap(), &[]);
    assert!(good, "{text}");
    assert!(text.contains("#1 [stage-0 3/3] COPY a /$v/\n#1 DONE 0."), "{text}");
    let (good, text) = run("name:1", &[]);
    assert!(good && text.contains("#1 CACHED\n"), "{text}");
    assert!(text.contains("name:1: 2 entries"), "{text}");
    assert_eq!(Built::read(&scratch.path("images/name/1")).paths(), ["/dir", "/dir/a"]);
    // What was built is built upon, by its name here.
    fs::write(scratch.path("second"), "FROM name:1\nCOPY a /b\n").unwrap();
    let second = scratch.path("second");
    let (good, text) = run("more", &["-f", second.to_str().unwrap()]);
    assert!(good, "{text}");
    assert_eq!(Built::read(&scratch.path("images/more/local")).paths(), ["/b", "/dir", "/dir/a"]);
    fs::write(&second, "FROM name:1\nCOPPY a /b\n").unwrap();
    let (good, text) = run("more", &["-f", second.to_str().unwrap()]);
    assert!(
        !good && text.starts_with("env86: `") && text.contains("line 2: `COPPY` is no instruction"),
        "{text}"
    );
}

#[test]
fn a_kernel_that_a_dockerfile_installs_is_the_image_s() {
    let scratch = Scratch::new("FROM scratch\nCOPY vmlinuz-lts initramfs-lts /boot/");
    scratch.file("vmlinuz-lts", "kernel");
    scratch.file("initramfs-lts", "disk");
    let built = |image: &str| {
        let kernel = Some(Kernel::new(b"given".into(), b"disk".into(), "its=words"));
        scratch.with("cache", |build| {
            Build { kernel, ..copy_of(build) }.directory(&scratch.path(image)).unwrap();
        });
        Image::open(scratch.path(image)).unwrap().config
    };
    let config = built("one");
    assert!(config.bzimage.is_none() && config.bzimage_initrd_from_filesystem, "{config:?}");
    assert!(!config.cmdline.unwrap().contains("its=words"));
    // An image with a kernel gets another one, and so does one whose kernel could not mount its files.
    scratch.file("Dockerfile", "FROM one\nCOPY vmlinuz-lts /boot/vmlinuz-new");
    let config = built("two");
    assert!(config.bzimage.is_some() && !config.bzimage_initrd_from_filesystem, "{config:?}");
    scratch.file("Dockerfile", "FROM scratch\nCOPY vmlinuz-lts /boot/");
    let config = built("three");
    assert!(
        config.bzimage.is_some() && config.cmdline.as_deref() == Some("its=words init=/bin/sh"),
        "{config:?}"
    );
}

#[test]
fn guest86_is_put_where_it_is_needed() {
    let scratch = Scratch::new("FROM scratch\nCOPY a /usr/sbin/a\nCMD [\"/usr/sbin/a\"]");
    scratch.file("a", "a");
    let program = scratch.path("guest86");
    let mut elf = b"\x7fELF\x01\x01".to_vec();
    elf.resize(64, 0);
    elf[18] = 3;
    fs::write(&program, &elf).unwrap();
    let guest = GuestService::new(&program).unwrap();
    let built = |image: &str, guest: &GuestService| {
        scratch.with("cache", |build| {
            let build = Build { guest: Some(guest.clone()), ..copy_of(build) };
            build.directory(&scratch.path(image)).unwrap();
        });
        let index: Value =
            serde_json::from_slice(&fs::read(scratch.path(image).join("fs.json")).unwrap()).unwrap();
        let config: Value =
            serde_json::from_slice(&fs::read(scratch.path(image).join("image.json")).unwrap()).unwrap();
        (index.to_string().matches("\"guest86\"").count(), config)
    };
    let (count, config) = built("one", &guest.clone().where_needed());
    assert_eq!((count, &config["has_guest_service"]), (1, &json!(true)));
    assert!(config["cmdline"].as_str().unwrap().ends_with(" init=/usr/sbin/guest86"), "{config}");
    // What is built upon it has that one, and one that starts its own init gets none.
    scratch.file("Dockerfile", "FROM one\nCOPY a /b");
    let (count, config) = built("two", &guest.clone().where_needed());
    assert_eq!((count, &config["has_guest_service"]), (1, &json!(true)));
    assert!(config["cmdline"].as_str().unwrap().ends_with(" init=/usr/sbin/guest86"), "{config}");
    assert_eq!(config["container"]["config"]["Cmd"], json!(["/usr/sbin/a"]));
    scratch.file("Dockerfile", "FROM scratch\nCOPY a /sbin/init\nENTRYPOINT [\"/sbin/init\"]");
    assert_eq!(built("three", &guest.clone().where_needed()).0, 0);
    let (count, config) = built("four", &guest);
    assert!(count == 1 && config["cmdline"].as_str().unwrap().ends_with(" init=/sbin/guest86"), "{config}");
}
