//! `env86 create` from Debian packages, from Docker, and with kernel modules: with a mirror and a Docker of the test's own.

#![cfg(all(unix, feature = "pull"))]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use env86::Image;
use serde_json::Value;

use super::oci::tree;

/// A scratch folder, in which the program runs.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn file(&self, below: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A program or a script.
    fn program(&self, below: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(below, text);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn env86(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_env86"));
        command.args(words).current_dir(self.0.path()).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("ENV86_PATH", self.path("images")).env("APT_CONFIG", self.path("apt.conf"));
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let paths = [self.path("bin")].into_iter().chain(std::env::split_paths(&paths));
        command.env("PATH", std::env::join_paths(paths).unwrap()).output().unwrap()
    }

    fn good(&self, words: &[&str]) -> Output {
        let output = self.env86(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn bad(&self, words: &[&str], says: &str) {
        let output = self.env86(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(says), "{words:?}: {output:?}");
        assert!(!self.path("none").exists());
    }
}

/// Entries of an image: the mode, and the content or target.
fn entries(image: &Path) -> BTreeMap<String, (u64, String)> {
    let tree = tree(&Image::open(image).unwrap());
    tree.into_iter().map(|(path, (mode, _, text))| (path, (mode, text))).collect()
}

fn config(image: &Path) -> Value {
    serde_json::from_slice(&fs::read(image.join("image.json")).unwrap()).unwrap()
}

/// What a program for i386 begins with.
fn guest() -> Vec<u8> {
    let mut program = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    program.resize(100, b'.');
    program
}

/// Something like a Linux kernel of this version.
fn kernel(version: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x300];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x20e..0x210].copy_from_slice(&[0x40, 0]);
    bytes[0x240..0x240 + version.len()].copy_from_slice(version.as_bytes());
    bytes
}

/// A module that says what it needs.
fn module(needs: &str) -> String {
    format!("\u{7f}ELF\0depends={needs}\0")
}

/// Puts a package into the mirror's pool, and its lines into the list.
fn package(scratch: &Scratch, name: &str, depends: &str, files: &[(&str, &str)]) {
    let tree = scratch.path(&format!("packages/{name}"));
    for (path, text) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("-> ") {
            Some(target) => symlink(target, path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
    let control = format!(
        "Package: {name}\nVersion: 1:2.0-1\nArchitecture: i386\nMaintainer: nobody <nobody@localhost>\n{}Description: x\n",
        if depends.is_empty() { String::new() } else { format!("Depends: {depends}\n") }
    );
    scratch.file(&format!("packages/{name}/DEBIAN/control"), &control);
    let deb = scratch.path(&format!("mirror/{name}.deb"));
    fs::create_dir_all(deb.parent().unwrap()).unwrap();
    let mut build = Command::new("dpkg-deb");
    let built = build.args(["--root-owner-group", "--build"]).arg(&tree).arg(&deb).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let list = scratch.path("mirror/dists/testing/main/binary-i386/Packages");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    let sum = Command::new("sha256sum").arg(&deb).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let size = fs::metadata(&deb).unwrap().len();
    let known = fs::read_to_string(&list).unwrap_or_default();
    let sum = sum.split(' ').next().unwrap();
    fs::write(list, format!("{known}{control}Filename: {name}.deb\nSize: {size}\nSHA256: {sum}\n\n"))
        .unwrap();
}

/// A mirror on disk, which is the only one that the user's apt knows.
fn mirror() -> Scratch {
    let scratch = Scratch::new();
    package(&scratch, "libx", "", &[("lib/i386/libx.so", "library"), ("usr/lib/other", "other")]);
    package(
        &scratch,
        "tool",
        "libx (>= 1:1)",
        &[
            ("bin/tool", "tool"),
            ("usr/bin/dash", "dash"),
            ("usr/share/doc/tool/copyright", "words"),
            ("usr/share/base-passwd/passwd.master", "root:*:0:0::/root:/bin/sh\n"),
            ("etc/link", "-> ../usr/lib/other"),
        ],
    );
    package(&scratch, "unneeded", "", &[("bin/unneeded", "x")]);
    let modules = [
        ("net/9p/9pnet.ko", ""),
        ("net/9p/9pnet_virtio.ko", "9pnet,virtio"),
        ("fs/9p/9p.ko", "9pnet"),
        ("drivers/virtio/virtio.ko", ""),
        ("drivers/virtio/virtio_pci.ko", "virtio"),
        ("drivers/net/virtio_net.ko", "virtio"),
        ("drivers/net/8390.ko", ""),
        ("drivers/net/ne2k-pci.ko", "8390"),
        ("drivers/char/virtio_console.ko", "virtio"),
        ("drivers/net/tun.ko", ""),
    ];
    let mut files =
        vec![("boot/vmlinuz-6.1-686".to_owned(), String::from_utf8(kernel("6.1-686 (x)")).unwrap())];
    files.extend(modules.map(|(path, needs)| (format!("lib/modules/6.1-686/kernel/{path}"), module(needs))));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    package(&scratch, "linux-image-6.1-686", "", &files);
    package(&scratch, "linux-image-686", "linux-image-6.1-686", &[]);
    package(&scratch, "busybox-static", "", &[("bin/busybox", "the shell")]);
    let mirror = scratch.path("mirror").display().to_string();
    let sources = scratch.file("sources.list", format!("deb [trusted=yes] copy:{mirror} testing main\n"));
    // As a user's configuration would say it.
    scratch.file(
        "apt.conf",
        format!(
            "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"/dev/null\";\nAcquire::AllowInsecureRepositories \"true\";\nAPT::Get::AllowUnauthenticated \"true\";\n",
            sources.display()
        ),
    );
    scratch.program("guest86", guest());
    scratch
}

fn has_apt() -> bool {
    Command::new("apt-get").arg("--version").output().is_ok()
        && Command::new("dpkg-deb").arg("--version").output().is_ok()
}

#[test]
fn debian_packages_become_an_image_with_debian_s_kernel() {
    if !has_apt() {
        eprintln!("skipped: there is no apt here");
        return;
    }
    let scratch = mirror();
    let words = ["create", "--from-debian", "testing", "--packages", "tool", "--with-guest=guest86"];
    let with = |more: &[&'static str]| [&words[..], more].concat();
    let output = scratch.good(&with(&["--modules", "tun,virtio_net", "--json", "one"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("2 packages") && said.contains("linux-image-6.1-686"), "{said}");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = entries(&scratch.path("one"));
    assert_eq!(made["entries"], found.len());
    let at = |path: &str| found.get(path).map(|(mode, text)| (*mode, text.as_str()));
    // What it depends on is there, and all is below /usr, to which links lead.
    assert_eq!(at("/usr/lib/i386/libx.so"), Some((0o100_644, "library")));
    assert_eq!((at("/usr/bin/tool"), at("/bin")), (Some((0o100_644, "tool")), Some((0o120_777, "usr/bin"))));
    assert_eq!(at("/etc/link"), Some((0o120_777, "../usr/lib/other")));
    assert!(at("/usr/bin/unneeded").is_none() && at("/usr/share/doc").is_none());
    // What scripts would have done.
    assert_eq!(at("/usr/bin/sh"), Some((0o120_777, "dash")));
    assert_eq!(at("/etc/passwd"), Some((0o100_644, "root:*:0:0::/root:/bin/sh\n")));
    assert_eq!((at("/tmp").unwrap().0, at("/root").unwrap().0), (0o041_777, 0o040_700));
    // Modules with what they need, and no others.
    let modules: Vec<&str> = found
        .keys()
        .filter(|path| path.ends_with(".ko"))
        .filter_map(|path| path.rsplit('/').next())
        .collect();
    assert_eq!(modules, ["tun.ko", "virtio_net.ko", "virtio.ko"]);
    let needs = at("/usr/lib/modules/6.1-686/modules.dep").unwrap().1;
    assert!(needs.contains("kernel/drivers/net/virtio_net.ko: kernel/drivers/virtio/virtio.ko\n"), "{needs}");
    let said = config(&scratch.path("one"));
    assert_eq!((&said["bzimage"]["url"], &said["has_guest_service"]), (&"./vmlinuz".into(), &true.into()));
    let cmdline = said["cmdline"].as_str().unwrap();
    assert!(cmdline.contains("root=host9p") && cmdline.ends_with(" init=/usr/sbin/guest86"), "{cmdline}");
    // The RAM disk loads each module behind those that it needs.
    let disk = fs::read(scratch.path("one/initrd.img")).unwrap();
    let disk = String::from_utf8_lossy(&disk);
    assert!(
        disk.contains("virtio.ko\nvirtio_pci.ko\n9pnet.ko\n9pnet_virtio.ko\n9p.ko\n")
            && disk.contains("the shell")
    );
    assert!(disk.contains("\n8390.ko\nne2k-pci.ko\n"));
    // The same again gives the same bytes.
    scratch.good(&with(&["--modules", "tun,virtio_net", "two"]));
    for file in ["fs.json", "image.json", "initrd.img", "vmlinuz"] {
        assert!(
            fs::read(scratch.path("one").join(file)).unwrap()
                == fs::read(scratch.path("two").join(file)).unwrap()
        );
    }

    // Another kernel, and no modules.
    scratch.file("kernel", kernel("7.0 (y)"));
    scratch.good(&with(&["--kernel", "kernel", "three"]));
    assert!(!entries(&scratch.path("three")).contains_key("/usr/lib/modules"));
    scratch.bad(&with(&["--modules", "nothing", "none"]), "no kernel module `nothing` for 6.1-686");
    let wrong = |packages: &str, suite: &str, says: &str| {
        scratch.bad(&["create", "--from-debian", suite, "--packages", packages, "none"], says);
    };
    wrong("tool,missing", "testing", "Unable to locate package missing");
    wrong("tool/x", "testing", "no name of Debian's");
    wrong("tool", "../x", "no name of Debian's");
    wrong("tool", "unstable", "apt cannot find the packages");
    fs::write(scratch.path("mirror/tool.deb"), "else").unwrap();
    fs::remove_dir_all(scratch.path("cache/env86/debian/testing/archives")).unwrap();
    wrong("tool", "testing", "apt cannot download the packages");
    fs::write(scratch.path("sources.list"), "").unwrap();
    wrong("tool", "testing", "apt knows no mirror to take testing from");
    assert!(
        fs::read_dir(scratch.0.path()).unwrap().flatten().all(|entry| !entry
            .file_name()
            .to_str()
            .unwrap()
            .starts_with('.'))
    );
}

#[test]
fn a_system_without_apt_says_so() {
    let scratch = Scratch::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_env86"));
    command.args(["create", "--from-debian", "bookworm", "--packages", "bash", "none"]);
    command
        .current_dir(scratch.0.path())
        .env("PATH", scratch.path("bin"))
        .env("XDG_CACHE_HOME", scratch.path("cache"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("There is no apt-get here"), "{said}");
    assert!(!scratch.path("none").exists());
}

/// A Docker that has one image, and writes down what it is asked.
const DOCKER: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/asked"
case $1 in
    ps | rm | rmi) ;;
    create) [ "$3" != none ] || { echo 'Error: no such image: none' >&2; exit 1; }
        case "$3-$#" in bare-3) echo 'Error: no command specified' >&2; exit 1 ;; esac
        echo abc123 ;;
    inspect) echo '{"Cmd":["tool","-v"],"Env":["A=1"],"Hostname":"x","User":""}' ;;
    export) tar -C "$here/../container" -c . ;;
    build) echo 'Step 1/1' >&2; [ ! -e "$here/fails" ] ;;
esac
"#;

#[test]
fn what_docker_has_becomes_an_image() {
    let scratch = Scratch::new();
    scratch.program("bin/docker", DOCKER);
    scratch.program("guest86", guest());
    scratch.file("container/sbin/tool", "tool");
    scratch.file("container/.dockerenv", "");
    let asked = || fs::read_to_string(scratch.path("bin/asked")).unwrap();
    scratch.good(&["create", "--from-docker", "box:1", "--with-guest=guest86", "one"]);
    let found: Vec<String> = entries(&scratch.path("one")).into_keys().collect();
    assert_eq!(found, ["/sbin", "/sbin/guest86", "/sbin/tool"]);
    let said = config(&scratch.path("one"));
    assert_eq!(said["container"]["config"]["Cmd"][0], "tool");
    assert!(said["container"]["config"].get("Hostname").is_none());
    assert_eq!(
        asked(),
        "ps --quiet\ncreate --platform=linux/386 box:1\ninspect --type container --format {{json .Config}} abc123\n\
         export abc123\nrm --force abc123\n"
    );
    scratch.good(&["create", "--from-docker", "bare", "--no-guest", "two"]);
    assert!(asked().contains("create --platform=linux/386 bare sh\n"));
    scratch.file("context/Dockerfile", "FROM box:1\n");
    scratch.good(&["create", "--from-docker", "context/Dockerfile", "--no-guest", "three"]);
    let asked = asked();
    let build = asked.lines().find(|line| line.starts_with("build ")).unwrap();
    assert!(build.starts_with("build --platform=linux/386 --tag env86-build-"), "{build}");
    assert!(build.ends_with(" --file context/Dockerfile context"), "{build}");
    assert!(asked.lines().last().unwrap().starts_with("rmi env86-build-"));

    scratch.bad(
        &["create", "--from-docker", "none", "none"],
        "docker cannot make a container of none: Error: no such image",
    );
    scratch.bad(&["create", "--from-docker", "context", "none"], "name the Dockerfile in it");
    scratch.file("bin/fails", "");
    scratch.bad(
        &["create", "--from-docker", "context/Dockerfile", "none"],
        "docker cannot build `context/Dockerfile`",
    );
    // The container goes in any case.
    scratch.program(
        "bin/docker",
        DOCKER.replace("export)", "export) echo 'Error: broken' >&2; exit 1 ;; other)"),
    );
    scratch.bad(
        &["create", "--from-docker", "box:1", "none"],
        "docker cannot export the container: Error: broken",
    );
    let last = fs::read_to_string(scratch.path("bin/asked")).unwrap();
    assert!(last.ends_with("rm --force abc123\n"), "{last}");
}

#[test]
fn without_docker_a_dockerfile_is_built_here() {
    let scratch = Scratch::new();
    for program in ["docker", "podman"] {
        scratch.program(&format!("bin/{program}"), "#!/bin/sh\necho 'Cannot connect' >&2\nexit 1\n");
    }
    scratch.file("context/Dockerfile.box", "FROM scratch\nCOPY tool /bin/\nCMD [\"/bin/tool\"]\n");
    scratch.file("context/tool", "tool");
    let output = scratch.good(&["create", "--from-docker", "context/Dockerfile.box", "--no-guest", "one"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("env86 does it itself"), "{output:?}");
    assert_eq!(entries(&scratch.path("one"))["/bin/tool"].1, "tool");
    assert_eq!(config(&scratch.path("one"))["container"]["config"]["Cmd"][0], "/bin/tool");
    scratch.bad(&["create", "--from-docker", "No Name", "none"], "no container image");
}

#[test]
fn modules_come_from_a_folder_or_from_the_kernel_s_image() {
    let scratch = Scratch::new();
    for (path, needs) in [("net/tun.ko", "base"), ("base.ko", ""), ("other.ko", "")] {
        scratch.file(&format!("tree/lib/modules/6.1/kernel/{path}"), module(needs));
    }
    scratch.file("tree/vmlinuz", kernel("6.1 (x)"));
    scratch.file("tree/initrd.img", "disk");
    scratch.file("box/bin/sh", "sh");
    scratch.good(&["create", "--from-dir", "tree", "system"]);
    let tar =
        Command::new("tar").args(["-C", "box", "-cf", "box.tar", "."]).current_dir(scratch.0.path()).status();
    assert!(tar.unwrap().success());
    let modules = |image: &str| -> Vec<String> {
        let found = entries(&scratch.path(image)).into_keys().filter(|path| path.ends_with(".ko"));
        found.map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
    };
    let tar = ["create", "--from-tar", "box.tar", "--modules"];
    let with = |more: &[&'static str]| [&tar[..], more].concat();
    scratch.good(&with(&["tree/lib/modules/6.1", "all"]));
    assert_eq!(modules("all"), ["base.ko", "tun.ko", "other.ko"]);
    scratch.good(&with(&["tree:tun", "some"]));
    assert_eq!(modules("some"), ["base.ko", "tun.ko"]);
    scratch.bad(&with(&["tun", "none"]), "Where are the kernel modules tun?");
    scratch.bad(&with(&["box", "none"]), "no kernel modules in `box`");
    scratch.bad(
        &["create", "--from-dir", "box", "--modules", "tree:tun", "none"],
        "can have its kernel modules itself",
    );
    // A container with the kernel of an image, and some of that one's modules.
    scratch.program("bin/docker", DOCKER);
    scratch.file("container/bin/sh", "sh");
    let docker = ["create", "--from-docker", "box:1", "--no-guest", "--kernel"];
    scratch.good(&[&docker[..], &["./system", "--modules", "tun", "boxed"]].concat());
    assert_eq!(modules("boxed"), ["base.ko", "tun.ko"]);
    scratch.file("kernel", kernel("6.2 (x)"));
    scratch.bad(
        &[&docker[..], &["kernel", "--modules", "tree:tun", "none"]].concat(),
        "The kernel is 6.2, and the modules are for 6.1",
    );
}
