//! `env86 create --from-dir`: what a tree of every kind of file becomes.

#![cfg(unix)]

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use env86::image::create::{CreateError, Options, from_dir, from_tar};
use env86::image::service::GuestService;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::Value;

/// A scratch directory with an empty source tree in it.
struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        Self { dir }
    }

    fn src(&self, path: &str) -> PathBuf {
        self.dir.path().join("src").join(path)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn file(&self, path: &str, contents: &str, mode: u32) {
        fs::write(self.src(path), contents).unwrap();
        fs::set_permissions(self.src(path), Permissions::from_mode(mode)).unwrap();
    }

    fn create(&self) -> Tree {
        from_dir(&self.src(""), &self.image(), &Options::default()).unwrap();
        Tree::read(&self.image())
    }

    fn left_over(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name());
        names.map(|n| n.into_string().unwrap()).filter(|n| n != "src").collect()
    }
}

/// An image's index, with entries by path.
struct Tree {
    image: PathBuf,
    index: Value,
    entries: BTreeMap<String, Value>,
}

impl Tree {
    fn read(image: &Path) -> Self {
        let index: Value = serde_json::from_slice(&fs::read(image.join("fs.json")).unwrap()).unwrap();
        let mut entries = BTreeMap::new();
        let mut todo = vec![(String::new(), index["fsroot"].clone())];
        while let Some((dir, list)) = todo.pop() {
            for entry in list.as_array().unwrap() {
                let path = format!("{dir}/{}", entry[0].as_str().unwrap());
                if entry[3].as_u64().unwrap() & 0xf000 == 0x4000 {
                    todo.push((path.clone(), entry[6].clone()));
                }
                entries.insert(path, entry.clone());
            }
        }
        Self { image: image.into(), index, entries }
    }

    fn mode(&self, path: &str) -> u64 {
        self.entries[path][3].as_u64().unwrap()
    }

    fn blob(&self, path: &str) -> &str {
        self.entries[path][6].as_str().unwrap()
    }

    fn contents(&self, path: &str) -> Vec<u8> {
        fs::read(self.image.join("fs").join(self.blob(path))).unwrap()
    }
}

fn env86(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_env86")).args(args).output().unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn files_keep_contents_modes_owners_and_times() {
    let s = Scratch::new();
    s.file("su", "#!", 0o4755);
    s.file("wall", "w", 0o2755);
    s.file("secret", "s", 0o600);
    fs::create_dir(s.src("tmp")).unwrap();
    fs::set_permissions(s.src("tmp"), Permissions::from_mode(0o1777)).unwrap();
    let tree = s.create();
    assert_eq!(tree.mode("/su"), 0o104755);
    assert_eq!(tree.mode("/wall"), 0o102755);
    assert_eq!(tree.mode("/secret"), 0o100600);
    assert_eq!(tree.mode("/tmp"), 0o041777);
    assert_eq!(tree.contents("/secret"), b"s");
    let meta = fs::metadata(s.src("su")).unwrap();
    let su = &tree.entries["/su"];
    assert_eq!(su[1], 2);
    assert_eq!(su[2], meta.mtime());
    assert_eq!((su[4].as_u64(), su[5].as_u64()), (Some(meta.uid().into()), Some(meta.gid().into())));
}

#[test]
fn owners_are_kept_or_replaced() {
    let s = Scratch::new();
    s.file("f", "x", 0o644);
    if is_root() {
        std::os::unix::fs::chown(s.src("f"), Some(1000), Some(50)).unwrap();
        let tree = s.create();
        assert_eq!((&tree.entries["/f"][4], &tree.entries["/f"][5]), (&1000.into(), &50.into()));
        fs::remove_dir_all(s.image()).unwrap();
    }
    from_dir(&s.src(""), &s.image(), &Options { owner: Some((7, 8)), ..Options::default() }).unwrap();
    let tree = Tree::read(&s.image());
    assert_eq!((&tree.entries["/f"][4], &tree.entries["/f"][5]), (&7.into(), &8.into()));
}

#[test]
fn hard_links_share_a_blob_and_count_once() {
    let s = Scratch::new();
    s.file("a", "0123456789", 0o644);
    fs::hard_link(s.src("a"), s.src("b")).unwrap();
    s.file("same", "0123456789", 0o644);
    let tree = s.create();
    assert_eq!(tree.blob("/a"), tree.blob("/b"));
    assert_eq!(tree.blob("/a"), tree.blob("/same"));
    assert_eq!(tree.index["size"], 20);
    assert_eq!(tree.entries["/a"][7], tree.entries["/b"][7], "names of one file share a number");
    assert_eq!(tree.entries["/same"].as_array().unwrap().len(), 7, "equal contents are no link");
    assert_eq!(fs::read_dir(tree.image.join("fs")).unwrap().count(), 1);
}

#[test]
fn an_empty_file_has_the_blob_of_nothing() {
    let s = Scratch::new();
    s.file("empty", "", 0o644);
    let tree = s.create();
    assert_eq!(tree.blob("/empty"), "e3b0c442.bin");
    assert_eq!(tree.contents("/empty"), b"");
}

#[test]
fn links_keep_their_targets() {
    let s = Scratch::new();
    symlink("../lib/x.so", s.src("x")).unwrap();
    symlink("/nowhere", s.src("dangling")).unwrap();
    let tree = s.create();
    assert_eq!(tree.mode("/x"), 0o120777);
    assert_eq!(tree.entries["/x"][6], "../lib/x.so");
    assert_eq!(tree.entries["/dangling"][6], "/nowhere");
}

#[test]
fn fifos_are_recorded_and_sockets_left_out() {
    let s = Scratch::new();
    mknodat(CWD, s.src("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let _socket = UnixListener::bind(s.src("socket")).unwrap();
    let tree = s.create();
    assert_eq!(tree.mode("/fifo") & 0xf000, 0x1000);
    assert!(!tree.entries.contains_key("/socket"));
}

#[test]
fn devices_keep_their_numbers() {
    let s = Scratch::new();
    let make = |name: &str, kind, major, minor| {
        mknodat(CWD, s.src(name), kind, Mode::from_raw_mode(0o600), makedev(major, minor))
    };
    // Only root may make devices, and not even root in every container.
    if make("tty", FileType::CharacterDevice, 5, 1).is_err() {
        return;
    }
    make("disk", FileType::BlockDevice, 259, 300).unwrap();
    let tree = s.create();
    assert_eq!(tree.mode("/tty"), 0o020600);
    assert_eq!(tree.entries["/tty"][6], serde_json::json!([5, 1]));
    assert_eq!(tree.mode("/disk"), 0o060600);
    assert_eq!(tree.entries["/disk"][6], serde_json::json!([259, 300]));
}

#[test]
fn siblings_are_in_byte_order_and_the_version_is_3() {
    let s = Scratch::new();
    for name in ["b", "a", "B", "ä"] {
        s.file(name, name, 0o644);
    }
    let tree = s.create();
    let names: Vec<_> = tree.index["fsroot"].as_array().unwrap().iter().map(|e| e[0].clone()).collect();
    assert_eq!(names, ["B", "a", "b", "ä"]);
    assert_eq!(tree.index["version"], 3);
    let text = fs::read_to_string(s.image().join("fs.json")).unwrap();
    assert!(text.starts_with("{\"fsroot\":") && text.ends_with("}\n") && text.lines().count() == 1);
}

#[test]
fn colliding_names_are_lengthened_and_nothing_is_lost() {
    let s = Scratch::new();
    for i in 0..100 {
        s.file(&format!("f{i}"), &format!("contents {i}"), 0o644);
    }
    let make = |name: &str| {
        let image = s.dir.path().join(name);
        from_dir(&s.src(""), &image, &Options { hash_digits: 1, ..Options::default() }).unwrap();
        Tree::read(&image)
    };
    let tree = make("one");
    let blobs: HashSet<_> = (0..100).map(|i| tree.blob(&format!("/f{i}")).to_owned()).collect();
    assert_eq!(blobs.len(), 100);
    for i in 0..100 {
        assert_eq!(tree.contents(&format!("/f{i}")), format!("contents {i}").as_bytes());
    }
    assert_eq!(tree.index, make("two").index, "the same tree gives the same image");
}

#[test]
fn a_kernel_with_its_ram_disk_is_noticed() {
    let s = Scratch::new();
    fs::create_dir(s.src("boot")).unwrap();
    s.file("boot/vmlinuz-6.1.0-9-686", "k", 0o644);
    let config = |image: &Path| -> Value {
        serde_json::from_slice(&fs::read(image.join("image.json")).unwrap()).unwrap()
    };
    s.create();
    let without = config(&s.image());
    assert_eq!(without.get("bzimage_initrd_from_filesystem"), None);
    assert!(without["cmdline"].as_str().unwrap().contains("root=host9p rootfstype=9p"));
    s.file("boot/initrd.img-6.1.0-9-686", "i", 0o644);
    let second = s.dir.path().join("second");
    from_dir(&s.src(""), &second, &Options::default()).unwrap();
    assert_eq!(config(&second)["bzimage_initrd_from_filesystem"], true);
}

#[test]
fn a_report_says_what_takes_the_room() {
    let s = Scratch::new();
    fs::create_dir_all(s.src("usr/lib")).unwrap();
    fs::create_dir_all(s.src("usr/share")).unwrap();
    s.file("usr/lib/big", &"b".repeat(6 << 10), 0o644);
    // What is the same counts once, for the first in the index, whether it is one file or two.
    s.file("usr/lib/same", &"s".repeat(3 << 10), 0o644);
    fs::hard_link(s.src("usr/lib/same"), s.src("usr/share/link")).unwrap();
    s.file("usr/share/same", &"s".repeat(3 << 10), 0o644);
    s.file("usr/share/other", &"o".repeat(1 << 10), 0o644);
    s.file("small", "x", 0o644);
    s.file("empty", "", 0o644);
    symlink("usr", s.src("link")).unwrap();
    let (src, image) = (s.src(""), s.image());
    let output =
        env86(&["create", "--size-report", "--from-dir", src.to_str().unwrap(), image.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let rows = [
        "     10K  100 %  /",
        "     10K  100 %  /usr/",
        "    9.0K   90 %  /usr/lib/",
        "    6.0K   60 %  /usr/lib/big",
        "    3.0K   30 %  /usr/lib/same",
        "    1.0K   10 %  /usr/share/",
        "    1.0K   10 %  /usr/share/other",
    ];
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), rows);
}

#[test]
fn the_source_stays_as_it_is() {
    let s = Scratch::new();
    s.file("f", "x", 0o444);
    let before = fs::metadata(s.src("")).unwrap();
    s.create();
    let after = fs::metadata(s.src("")).unwrap();
    assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    assert_eq!(fs::read_dir(s.src("")).unwrap().count(), 1);
    assert_eq!(s.left_over(), ["image"]);
}

#[test]
fn an_existing_target_is_refused() {
    let s = Scratch::new();
    fs::create_dir(s.image()).unwrap();
    let out = env86(&["create", "--from-dir", s.src("").to_str().unwrap(), s.image().to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    let message = String::from_utf8(out.stderr).unwrap().to_lowercase();
    assert!(message.contains("image filepath already exists"), "{message}");
    assert_eq!(fs::read_dir(s.image()).unwrap().count(), 0);
}

#[test]
fn an_image_inside_its_own_source_is_refused() {
    let s = Scratch::new();
    let error = from_dir(&s.src(""), &s.src("image"), &Options::default()).unwrap_err();
    assert!(matches!(error, CreateError::InsideSource(_)), "{error}");
}

#[test]
fn an_unreadable_file_is_named_and_nothing_is_left() {
    if is_root() {
        return;
    }
    let s = Scratch::new();
    s.file("secret", "x", 0o000);
    let error = from_dir(&s.src(""), &s.image(), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("secret"), "{error}");
    assert_eq!(s.left_over(), [""; 0]);
}

#[test]
fn a_name_that_is_not_utf8_is_refused_and_nothing_is_left() {
    use std::os::unix::ffi::OsStrExt;
    let s = Scratch::new();
    fs::write(s.src("").join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "x").unwrap();
    let error = from_dir(&s.src(""), &s.image(), &Options::default()).unwrap_err();
    assert!(matches!(error, CreateError::NotUtf8(_)), "{error}");
    assert_eq!(s.left_over(), [""; 0]);
}

#[test]
fn an_interrupt_leaves_nothing() {
    let s = Scratch::new();
    s.file("f", "x", 0o644);
    let options = Options { interrupt: &true.into(), ..Options::default() };
    let error = from_dir(&s.src(""), &s.image(), &options).unwrap_err();
    assert!(matches!(error, CreateError::Interrupted), "{error}");
    assert_eq!(s.left_over(), [""; 0]);
}

/// What GNU tar makes of the source.
fn tar(s: &Scratch, flags: &[&str]) -> Vec<u8> {
    let out =
        Command::new("tar").args(flags).args(["-cf", "-", "-C"]).arg(s.src("")).arg(".").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn a_tar_archive_makes_the_image_that_its_tree_makes() {
    let s = Scratch::new();
    fs::create_dir_all(s.src("b/deep").join("x".repeat(150))).unwrap();
    let long = format!("b/deep/{0}/{0}", "x".repeat(150));
    s.file(&long, "long", 0o640);
    s.file("a", "equal", 0o4755);
    s.file("z", "equal", 0o600);
    s.file("empty", "", 0o644);
    fs::hard_link(s.src("a"), s.src("b/hard")).unwrap();
    symlink("a", s.src("link")).unwrap();
    symlink("y".repeat(180), s.src("long-link")).unwrap();
    mknodat(CWD, s.src("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    fs::set_permissions(s.src("b"), Permissions::from_mode(0o1777)).unwrap();
    // Sparse: data, a hole, data, a hole.
    let sparse = fs::File::create(s.src("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"start", 0).unwrap();
    drop(sparse);
    let by_tree = s.create();
    let without_directories = |tree: &Tree| {
        // The size of a directory is the file system's.
        let mut entries = tree.entries.clone();
        for entry in entries.values_mut().filter(|entry| entry[6].is_array()) {
            entry[1] = 0.into();
            entry[6] = Value::Null;
        }
        entries
    };
    for flags in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=gnu", "-S"],
        &["--format=pax", "-S"],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=gnu", "-z"],
        &["--format=gnu", "--sort=inode"],
    ] {
        let image = s.dir.path().join("by-tar");
        let bytes = tar(&s, flags);
        from_tar(&*bytes, "it", &image, &Options::default()).unwrap();
        let by_tar = Tree::read(&image);
        let paths: (Vec<_>, Vec<_>) = (by_tar.entries.keys().collect(), by_tree.entries.keys().collect());
        assert_eq!(paths.0, paths.1, "{flags:?}");
        assert_eq!(without_directories(&by_tar), without_directories(&by_tree), "{flags:?}");
        for path in ["/sparse", "/a"] {
            assert!(by_tar.contents(path) == by_tree.contents(path), "{flags:?} {path}");
        }
        let blocks = fs::metadata(image.join("fs").join(by_tar.blob("/sparse"))).unwrap().blocks();
        assert!(blocks * 512 < 2 << 20, "{blocks}");
        fs::remove_dir_all(&image).unwrap();
        for cut in [100, 700, 3000.min(bytes.len() / 2)] {
            assert!(from_tar(&bytes[..cut], "it", &image, &Options::default()).is_err(), "{flags:?} {cut}");
        }
        let small = Options { limit: 1000, ..Options::default() };
        assert!(matches!(from_tar(&*bytes, "it", &image, &small), Err(CreateError::TooLarge { .. })));
    }
    assert_eq!(s.left_over(), ["image"]);
}

#[test]
fn guest86_is_put_beside_what_is_there() {
    let s = Scratch::new();
    let program = [&b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0"[..], &[b'.'; 80]].concat();
    let path = s.dir.path().join("guest86");
    fs::write(&path, &program).unwrap();
    let guest = GuestService::new(&path).unwrap();
    let options = Options { guest: Some(&guest), ..Options::default() };
    for folder in ["a", "usr/sbin", "usr/bin", "z"] {
        fs::create_dir_all(s.src(folder)).unwrap();
    }
    symlink("usr/sbin", s.src("sbin")).unwrap();
    // Files before and behind it, one with two names.
    for (file, text) in
        [("a/f", "one"), ("usr/sbin/agetty", "two"), ("usr/sbin/init", "three"), ("z/f", "four")]
    {
        s.file(file, text, 0o755);
    }
    fs::hard_link(s.src("a/f"), s.src("usr/sbin/zz")).unwrap();
    let check = |tree: &Tree, at: &str| {
        assert_eq!(tree.contents(at), program);
        assert_eq!(tree.entries[at].as_array().unwrap()[1..6], [100, 0, 0o100_755, 0, 0].map(Value::from));
        let texts = ["/a/f", "/usr/sbin/agetty", "/usr/sbin/init", "/usr/sbin/zz", "/z/f"];
        assert_eq!(
            texts.map(|path| tree.contents(path)),
            ["one", "two", "three", "one", "four"].map(Vec::from)
        );
        let config: Value =
            serde_json::from_slice(&fs::read(tree.image.join("image.json")).unwrap()).unwrap();
        assert!(config["cmdline"].as_str().unwrap().ends_with(&format!(" init={at}")), "{config}");
        assert_eq!(config["has_guest_service"], true);
    };
    for at in ["/usr/sbin/guest86", "/usr/bin/guest86", "/guest86"] {
        let archive = s.dir.path().join("by-tar");
        from_dir(&s.src(""), &s.image(), &options).unwrap();
        from_tar(&*tar(&s, &[]), "it", &archive, &options).unwrap();
        let (by_tree, by_tar) = (Tree::read(&s.image()), Tree::read(&archive));
        check(&by_tree, at);
        check(&by_tar, at);
        // The tree is as it was, until the place is taken.
        assert!(!s.src(&at[1..]).exists());
        s.file(&at[1..], "taken", 0o755);
        fs::remove_dir_all(s.image()).unwrap();
        fs::remove_dir_all(archive).unwrap();
    }
    assert!(matches!(from_dir(&s.src(""), &s.image(), &options), Err(CreateError::NoPlace)));
    assert!(matches!(from_tar(&*tar(&s, &[]), "it", &s.image(), &options), Err(CreateError::NoPlace)));
    assert_eq!(s.left_over(), ["guest86"]);
}

#[test]
fn tar_archives_that_lead_elsewhere_or_are_none_are_refused() {
    let s = Scratch::new();
    fn member(kind: u8, name: impl AsRef<[u8]>, link: &str) -> Vec<u8> {
        let name = name.as_ref();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(0);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    }
    let refused = |bytes: &[u8], says: &str| {
        let error = from_tar(bytes, "it", &s.image(), &Options::default()).unwrap_err();
        let text = format!(
            "{error} {}",
            std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
        );
        assert!(text.contains(says), "{text}");
        assert_eq!(s.left_over(), [""; 0]);
    };
    refused(&member(b'0', "a/../../b", ""), "leads out of the tree");
    refused(&member(b'1', "a", "b"), "no file before it");
    refused(&member(b'0', b"a\xff", ""), "not UTF-8");
    refused(&[member(b'2', "a", "/etc"), member(b'0', "a/passwd", "")].concat(), "no directory");
    refused(&[member(b'0', "a/b", ""), member(b'0', "a", "")].concat(), "replace a directory");
    refused(b"this is nothing of the kind", "cut off");
    refused(&[b'x'; 1024], "no tar archive");
    refused(b"\xfd7zXZ\0and so on", "xz -dc");
    refused(b"\x1f\x8b broken", "it cannot be read");
    // The last one of a name counts, and parents are made.
    let bytes = [member(b'0', "/x/y/f", ""), member(b'2', "x/y/f", "target")].concat();
    from_tar(&*bytes, "it", &s.image(), &Options::default()).unwrap();
    let tree = Tree::read(&s.image());
    assert_eq!((tree.entries.len(), &tree.entries["/x/y/f"][6]), (3, &"target".into()));
}

#[test]
fn the_command_says_what_it_made_on_stderr_only() {
    let s = Scratch::new();
    s.file("f", "x", 0o644);
    let (src, image) = (s.src(""), s.image());
    let out = env86(&["create", "-from-dir", src.to_str().unwrap(), image.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout.is_empty());
    assert!(Tree::read(&image).entries.contains_key("/f"));
    let source_missing = env86(&["create", "--from-dir", "/no/such/dir", "x"]);
    assert_eq!(source_missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&source_missing.stderr).contains("/no/such/dir"));
}
