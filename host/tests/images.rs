//! The commands for images that are here, from a directory tree to an archive and back.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use env86_tests::roms;
use serde_json::Value;

/// The program with a folder of global images of its own.
struct Program<'a>(&'a Path);

impl Program<'_> {
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_env86"));
        command.args(words).current_dir(self.0).env("ENV86_PATH", self.0.join("root"));
        command.env("XDG_RUNTIME_DIR", self.0).env("XDG_CACHE_HOME", self.0.join("cache"));
        command.env("TMPDIR", self.0).output().unwrap()
    }

    fn good(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn bad(&self, words: &[&str], says: &str) {
        let output = self.run(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(says), "{words:?}: {output:?}");
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.good(words)).unwrap()
    }
}

#[test]
fn an_image_is_made_named_listed_exported_imported_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let env86 = Program(dir.path());
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("tree/file"), "hello").unwrap();
    assert!(env86.good(&["images"]).starts_with("NAME"));
    assert_eq!(env86.json(&["images", "--json"]), Value::Array(Vec::new()));
    env86.good(&["create", "--from-dir", "tree", "image"]);
    env86.good(&["tag", "./image", "a/b@1"]);
    env86.bad(&["tag", "./image", "a/b@1"], "--force");
    env86.bad(&["tag", "./none", "c"], "./none");
    env86.bad(&["tag", "./image", "../c"], "no name for an image");

    env86.good(&["export", "a/b@1", "image.tgz"]);
    env86.good(&["import", "image.tgz", "c"]);
    env86.good(&["import", "--force", "image.tgz", "c"]);
    env86.bad(&["import", "image.tgz", "c"], "--force");
    env86.bad(&["import", "--max-size", "10", "image.tgz", "d"], "10 bytes");
    env86.bad(&["import", "tree/file", "d"], "`tree/file`");
    env86.bad(&["export", "image.tgz", "none/x.tgz"], "none/x.tgz");
    env86.good(&["export", "c", "again.tgz"]);
    assert!(
        fs::read(dir.path().join("image.tgz")).unwrap() == fs::read(dir.path().join("again.tgz")).unwrap()
    );

    let list = env86.json(&["images", "--json"]);
    let names: Vec<_> = list.as_array().unwrap().iter().map(|row| (&row["name"], &row["tag"])).collect();
    assert_eq!(names, [(&"a/b".into(), &"1".into()), (&"c".into(), &"local".into())]);
    assert_eq!(list[0]["state"], false);
    let inspected = env86.json(&["inspect", "--json", "c"]);
    assert_eq!((&inspected["entries"], &inspected["bytes"]), (&1.into(), &5.into()));
    assert!(inspected["config"]["cmdline"].is_string() && inspected["state"].is_null());
    assert!(env86.good(&["inspect", "image.tgz"]).contains("1 entries, 5B"));

    assert!(env86.good(&["verify", "c", "image.tgz", "./image"]).contains("c: 1 contents"));
    fs::write(dir.path().join("root/c/local/fs/2cf24dba.bin"), "jello").unwrap();
    env86.bad(&["verify", "a/b@1", "c"], "2cf24dba.bin");
    let output = env86.run(&["verify", "--json", "image.tgz", "c"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((&found[0]["compared"], &found[0]["problems"]), (&1.into(), &Value::Array(Vec::new())));
    assert!(found[1]["problems"][0].as_str().unwrap().contains("2cf24dba.bin"), "{found}");
    assert_eq!(env86.good(&["rmi", "c", "a/b"]), "c@local\na/b@1\n");
    env86.bad(&["rmi", "c"], "no image called `c`");
    // The others, for programs.
    assert_eq!(env86.json(&["tag", "--json", "image.tgz", "d"])["name"], "d@local");
    assert_eq!(env86.json(&["import", "--json", "image.tgz", "e@2"])["name"], "e@2");
    let bytes = fs::metadata(dir.path().join("image.tgz")).unwrap().len();
    assert_eq!(env86.json(&["export", "--json", "e@2", "e.tgz"])["bytes"], bytes);
    env86.bad(&["export", "--json", "e@2", "-"], "name a file");
    assert_eq!(env86.json(&["rmi", "--json", "d", "e"]), serde_json::json!(["d@local", "e@2"]));
    assert_eq!(fs::read_dir(dir.path().join("root")).unwrap().count(), 0);
}

/// Each command that has `--json`, in an order in which they can be done, with the keys of the object that it prints, or of
/// each of a list's. A container's place is in a registry at PORT.
#[cfg(all(unix, feature = "pull"))]
const FOR_PROGRAMS: [(&str, &[&str]); 13] = [
    (
        "create --from-dir tree --size-report --json ./image",
        &["path", "entries", "bytes", "contents", "sockets_skipped", "attributes_skipped", "report"],
    ),
    ("build --json -t a@1 context", &["image", "entries", "bytes", "contents"]),
    ("tag --json ./image b@1", &["name", "path"]),
    ("images --json", &["name", "tag", "link", "path", "size", "shared", "state", "made"]),
    ("inspect --json b@1", &["path", "entries", "bytes", "contents", "contents_bytes", "state", "config"]),
    ("export --json b@1 b.tgz", &["path", "bytes"]),
    ("import --json b.tgz c@1", &["name", "path"]),
    ("verify --json b@1 b.tgz", &["image", "compared", "unnamed", "unused", "problems"]),
    ("push --json --to-dir site b@1 oci://127.0.0.1:PORT/b:1", &["digest", "sent", "total"]),
    ("pull --json oci://127.0.0.1:PORT/b:1 d@1", &["name", "path", "sha256"]),
    // It is here by now.
    ("pull --json oci://127.0.0.1:PORT/b:1 d@1", &["name", "path", "sha256"]),
    ("gc --json", &["unfinished", "contents", "contents_bytes", "results", "results_bytes", "results_left"]),
    ("rmi --json b@1 c@1", &[]),
];

#[test]
#[cfg(all(unix, feature = "pull"))]
fn commands_for_images_print_json_with_the_keys_that_their_help_names() {
    let dir = tempfile::tempdir().unwrap();
    let env86 = Program(dir.path());
    for folder in ["tree", "context", "site"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    fs::write(dir.path().join("tree/file"), "hello").unwrap();
    fs::write(dir.path().join("context/Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let port = env86_tests::serve_folder(dir.path().join("site")).unwrap().to_string();
    for (line, keys) in FOR_PROGRAMS {
        let line = line.replace("PORT", &port);
        let words: Vec<&str> = line.split(' ').collect();
        let said = env86.json(&words);
        let help = String::from_utf8(env86.run(&[words[0], "--help"]).stderr).unwrap();
        let help = help.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect::<Vec<_>>();
        let objects: Vec<&Value> = match &said {
            Value::Array(list) => list.iter().filter(|entry| entry.is_object()).collect(),
            one => vec![one],
        };
        assert!(keys.is_empty() || !objects.is_empty(), "{line}: {said}");
        for object in objects {
            let mut there: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
            let mut wanted = keys.to_vec();
            there.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(there, wanted, "{line}");
        }
        for key in keys {
            assert!(help.contains(key), "{line}: --help does not say {key}");
        }
    }
}

#[test]
#[cfg(unix)]
fn an_image_that_a_machine_uses_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let env86 = Program(dir.path());
    let image = dir.path().join("root/echo/1");
    fs::create_dir_all(&image).unwrap();
    roms::make_image(&image, &roms::rom(&roms::ECHO)).unwrap();
    env86.good(&["export", "echo@1", "echo.tgz"]);
    assert_eq!(env86.good(&["start", "--name", "work", "echo@1"]), "work\n");
    env86.bad(&["rmi", "echo"], "used by the machine `work`; end it with `env86 stop work`");
    env86.bad(&["import", "--force", "echo.tgz", "echo@1"], "used by the machine `work`");
    assert!(image.join("image.json").exists());
    env86.good(&["stop", "work"]);
    env86.good(&["import", "--force", "echo.tgz", "echo@1"]);
    // As one that was killed would leave it.
    let left = dir.path().join("root/echo/.2.env86-1-0");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("part"), "12345").unwrap();
    let unpacked = dir.path().join("env86-unpacked-x");
    fs::create_dir(&unpacked).unwrap();
    fs::write(unpacked.join("part"), "123").unwrap();
    let freed = env86.json(&["gc", "--json"]);
    assert_eq!((&freed["unfinished"], &freed["contents"]), (&8.into(), &0.into()));
    assert_eq!((&freed["results"], &freed["results_left"]), (&0.into(), &0.into()));
    assert!(env86.good(&["gc"]).starts_with("0B"));
    assert_eq!(env86.good(&["rmi", "echo"]), "echo@1\n");
    assert!(!dir.path().join("root/echo").exists());
}
