//! The user's apt with lists, packages and a state of its own, for i386, on a system on which nothing is installed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{DebianError, at};
use crate::image::archive::inside;
use crate::image::create::unpack_package;
use crate::image::tarball::{Kind, Members};
use crate::image::watch::Watch;

/// The architecture of machines.
const ARCHITECTURE: &str = "i386";
/// Lines of what apt says that are shown.
const SHOWN: usize = 3;
/// What `apt-get indextargets` is to print of each list of packages: where it is, which suite, which component, and how
/// it is known to be good.
const TARGETS: &str = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(TRUSTED) $(SIGNED_BY)";

/// Debian's keys, where systems have them.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt.
pub struct Apt<'a> {
    folder: &'a Path,
    watch: Watch<'a>,
}

impl<'a> Apt<'a> {
    /// An apt for a suite, whose files are in a folder.
    pub fn new(suite: &str, folder: &'a Path, watch: Watch<'a>) -> Result<Self, DebianError> {
        let apt = Self { folder, watch };
        for folder in ["lists/partial", "archives/partial"] {
            let path = apt.folder.join(folder);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        // It asks for its options only when it is there.
        for program in ["apt-get", "dpkg-deb"] {
            let found =
                Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if matches!(&found, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                return Err(DebianError::NoProgram(program));
            }
        }
        let ask = |words: &[&str]| {
            let said = Command::new("apt-get").args(words).env("LC_ALL", "C").stdin(Stdio::null()).output();
            said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned())
                .map_err(at(Path::new("apt-get")))
        };
        let known = sources(suite, &ask(&["indextargets", "--format", TARGETS, "Created-By: Packages"])?);
        let sources = match known {
            Some(sources) => sources,
            // It has never read its lists; what it would read says where they are.
            None => {
                let targets = targets(&ask(&["update", "--print-uris"])?, Path::new(KEYS).exists());
                sources(suite, &targets).ok_or_else(|| DebianError::NoMirror(suite.into()))?
            }
        };
        for (name, text) in [("status", ""), ("sources.list", sources.as_str())] {
            let path = apt.folder.join(name);
            fs::write(&path, text).map_err(at(&path))?;
        }
        Ok(apt)
    }

    fn run(&self, what: &str, words: &[&str]) -> Result<Output, DebianError> {
        self.run_in("archives", what, words)
    }

    /// Runs apt-get in a folder of its own.
    fn run_in(&self, below: &str, what: &str, words: &[&str]) -> Result<Output, DebianError> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let options = [
            format!("APT::Architecture={ARCHITECTURE}"),
            format!("APT::Architectures={ARCHITECTURE}"),
            format!("Dir::State={}", path("")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("")),
            "Dir::Cache::pkgcache=".into(),
            "Dir::Cache::srcpkgcache=".into(),
            format!("Dir::Etc::sourcelist={}", path("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".into(),
            // It is no one else's affair, and may be where no one else may read.
            "APT::Sandbox::User=".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
        ];
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y"]).args(options.iter().flat_map(|option| ["-o", option])).args(words);
        command.env("LC_ALL", "C").current_dir(self.folder.join(below)).stdin(Stdio::null());
        let output = command.output().map_err(at(Path::new("apt-get")))?;
        self.watch.check().map_err(|_| crate::image::create::CreateError::Interrupted)?;
        match output.status.success() {
            true => Ok(output),
            false => Err(DebianError::Apt { what: what.into(), said: last(&output) }),
        }
    }

    /// Reads what the mirror has.
    pub fn update(&self) -> Result<(), DebianError> {
        self.run("read the lists of the mirror", &["update"]).map(drop)
    }

    /// Fetches packages, and what they depend on; gives their files.
    pub fn fetch(&self, packages: &[String], tell: &dyn Fn(&str)) -> Result<Vec<PathBuf>, DebianError> {
        let names: Vec<&str> = packages.iter().map(String::as_str).collect();
        let mut words = vec!["-s", "--no-install-recommends", "install"];
        words.extend(&names);
        let said = self.run("find the packages", &words)?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let files: BTreeSet<String> = said.lines().filter_map(file_of).collect();
        tell(&format!("{} packages", files.len()));
        words[0] = "--download-only";
        self.run("download the packages", &words)?;
        let files = files.into_iter().map(|name| self.folder.join("archives").join(name));
        let files: Vec<PathBuf> = files.collect();
        for file in &files {
            File::open(file).map_err(at(file))?;
        }
        Ok(files)
    }

    /// The package with the kernel that another one stands for.
    pub fn kernel(&self, name: &str) -> Option<String> {
        let said = self.run("find the kernel", &["-s", "--no-install-recommends", "install", name]).ok()?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let mut names = said.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        names.find(|found| found.starts_with("linux-image-") && *found != name).map(Into::into)
    }

    /// Fetches one package alone; gives its file.
    pub fn download(&self, name: &str) -> Result<PathBuf, DebianError> {
        let what = format!("download {name}");
        // Where the file is already, it would say nothing.
        let said = self.run_in("lists", &what, &["download", "--print-uris", name])?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        // 'URI' FILE SIZE HASH
        let file =
            said.lines().find_map(|line| line.strip_prefix('\'')?.split_once("' ")?.1.split(' ').next());
        let file = file.filter(|file| !file.contains('/'));
        let file =
            file.ok_or_else(|| DebianError::Apt { what: what.clone(), said: "it says no file".into() })?;
        self.run(&what, &["download", name])?;
        Ok(self.folder.join("archives").join(file))
    }
}

/// What apt has said last.
fn last(output: &Output) -> String {
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let errors: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("E: ")).take(SHOWN).collect();
    let lines = if errors.is_empty() { text.lines().rev().take(1).collect() } else { errors };
    lines.join("; ").escape_debug().to_string()
}

/// The file of a package that apt would install: `Inst NAME (VERSION WHERE [ARCHITECTURE])`.
fn file_of(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let (version, rest) = rest.split_once('(')?.1.split_once(' ')?;
    let architecture = rest.split_once('[')?.1.split_once(']')?.0;
    let name = name.split(':').next()?;
    Some(format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a")))
}

/// The sources of a suite: those of it that the user's apt has, with its updates, or else the mirror that it has. `None`
/// if it has none.
fn sources(suite: &str, targets: &str) -> Option<String> {
    let mut lines = Vec::new();
    let mut mirror = None;
    for line in targets.lines() {
        let mut words = line.split(' ');
        let (Some(uri), Some(release), Some(component)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let trusted = words.next().filter(|word| *word == "yes").map(|_| "trusted=yes".to_owned());
        let key = words.next().filter(|word| word.starts_with('/')).map(|key| format!("signed-by={key}"));
        let options: Vec<String> = trusted.into_iter().chain(key).collect();
        let options = if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) };
        let is_own =
            release == suite || release.strip_prefix(suite).is_some_and(|rest| rest.starts_with(['-', '/']));
        let source = format!("deb {options}{uri} {release} {component}\n");
        if is_own && !lines.contains(&source) {
            lines.push(source);
        }
        // Fixes alone are no mirror.
        if mirror.is_none() && !release.contains("security") {
            mirror = Some(format!("deb {options}{uri} {suite} main\n"));
        }
    }
    if lines.is_empty() { mirror } else { Some(lines.concat()) }
}

/// The same lines from what an apt would download: `'URI/dists/SUITE/COMPONENT/binary-ARCHITECTURE/Packages.xz' FILE SIZE`.
fn targets(uris: &str, has_keys: bool) -> String {
    let key = if has_keys { KEYS } else { "-" };
    let places = uris.lines().filter_map(|line| {
        let uri = line.strip_prefix('\'')?.split_once('\'')?.0;
        let (mirror, rest) = uri.rsplit_once("/dists/")?;
        let (place, file) = rest.split_once("/binary-")?;
        let (suite, component) = place.rsplit_once('/').filter(|_| file.contains("/Packages"))?;
        Some(format!("{mirror}/ {suite} {component} - {key}\n"))
    });
    places.collect()
}

/// Unpacks some files of a package to a folder.
pub fn unpack_some(package: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), DebianError> {
    let mut failed = None;
    unpack_package(package, |from| {
        let mut members = Members::new(io::BufReader::new(from));
        let written = (|| -> io::Result<()> {
            while let Some(member) = members.next().map_err(io::Error::other)? {
                let name = String::from_utf8_lossy(&member.path).into_owned();
                let Some(below) = inside(Path::new(&name)) else { continue };
                if !matches!(member.kind, Kind::File(_)) || !below.to_str().is_some_and(&wanted) {
                    continue;
                }
                let path = to.join(below);
                fs::create_dir_all(path.parent().unwrap_or(to))?;
                io::copy(&mut members, &mut File::create(&path)?)?;
            }
            Ok(())
        })();
        failed = written.err();
        Ok(())
    })?;
    failed.map_or(Ok(()), |error| Err(at(package)(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_a_file() {
        let of = |line: &str| file_of(line).unwrap();
        assert_eq!(of("Inst bash (5.2.15-2+b13 Debian:12.11/stable [i386])"), "bash_5.2.15-2+b13_i386.deb");
        assert_eq!(of("Inst x:i386 (1:2-3 D [all]) []"), "x_1%3a2-3_all.deb");
        assert!(file_of("Conf bash (5 D [i386])").is_none() && file_of("Inst bash").is_none());
    }

    #[test]
    fn the_suite_is_that_of_the_user_or_of_the_user_s_mirror() {
        let lines = "copy:/m/ bookworm main yes $(SIGNED_BY)\ncopy:/m/ bookworm main yes $(SIGNED_BY)\n\
                       copy:/m/ bookworm-updates main $(TRUSTED) /k.gpg\ncopy:/s/ bookworm-security main yes x\n\
                       copy:/m/ bookworms main yes x\n";
        assert_eq!(
            sources("bookworm", lines).unwrap(),
            "deb [trusted=yes] copy:/m/ bookworm main\ndeb [signed-by=/k.gpg] copy:/m/ bookworm-updates main\n\
             deb [trusted=yes] copy:/s/ bookworm-security main\n"
        );
        assert_eq!(sources("sid", lines).unwrap(), "deb [trusted=yes] copy:/m/ sid main\n");
        assert!(sources("sid", "copy:/s/ bookworm-security main yes x").is_none());
        let uris = "'copy:/m/dists/bookworm/InRelease' m_InRelease 0 \nReading lists\n'copy:/x' x 0\n\
                    'copy:/m/dists/bookworm/main/binary-i386/Packages.xz' m_Packages 0 \n\
                    'copy:/m/dists/bookworm/main/dep11/Components-all.yml.xz' m_dep11 0 \n";
        assert_eq!(targets(uris, false), "copy:/m/ bookworm main - -\n");
        let signed = format!("deb [signed-by={KEYS}] copy:/m/ bookworm main\n");
        assert_eq!(sources("bookworm", &targets(uris, true)).unwrap(), signed);
    }
}
