//! Kernel modules for images that get a kernel: some of those that belong to it, with all that they need.
//!
//! They are below `lib/modules/VERSION`, of a folder here or of an image. What a module needs is said by `modules.dep`
//! there, or, where that was not made yet, by the modules.
//!
//! Source: modules.dep(5), depmod(8); "MODULE_INFO" in Linux's include/linux/module.h.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use env86_devices::fs::{Content, Filesystem, FsJsonError, Ino};
use thiserror::Error;

use super::{BLOB_DIR, Image, ImageError};

/// Where modules are in a system, and the older place.
const FOLDERS: [&str; 2] = ["lib/modules", "usr/lib/modules"];
/// What the names of modules end with; the first is that of one as it is.
const ENDS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];
/// Says what each module needs.
const NEEDS: &str = "modules.dep";
/// Says which module the name of a device or a symbol means.
const ALIASES: [&str; 2] = ["modules.alias", "modules.symbols"];
/// Modules that are in the kernel itself.
const BUILTIN: &str = "modules.builtin";
/// Tables that stay as they are.
const KEPT: [&str; 2] = [BUILTIN, "modules.builtin.modinfo"];
const ORDER: &str = "modules.order";
/// Folders in one another.
const MAX_DEPTH: usize = 32;

/// Why there are no modules.
#[derive(Debug, Error)]
pub enum ModulesError {
    /// A file.
    #[error("Cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There are none.
    #[error("There are no kernel modules in `{}`; name a folder lib/modules/VERSION, or one that has a single VERSION in lib/modules", .0.display())]
    None(PathBuf),
    /// An image with them.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The files of an image.
    #[error("The image `{}` is damaged", path.display())]
    Index {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        source: FsJsonError,
    },
    /// There is no such module.
    #[error(
        "There is no kernel module `{name}` for {version}; give its name, or a pattern of its path such as net/9p/*"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The kernel's version.
        version: String,
    },
    /// One needs what is not there.
    #[error("The kernel module `{module}` needs `{needed}`, which is not there")]
    Needed {
        /// The module.
        module: String,
        /// What it needs.
        needed: String,
    },
    /// They belong to another kernel.
    #[error("The kernel is {kernel}, and the modules are for {modules}; take both from one place")]
    Version {
        /// The kernel's version.
        kernel: String,
        /// That of the modules.
        modules: String,
    },
}

/// The modules of a kernel.
#[derive(Clone, Debug)]
pub struct Modules {
    /// The kernel's version.
    pub version: String,
    /// The files, by their paths below `lib/modules/VERSION`.
    files: BTreeMap<String, PathBuf>,
}

/// Modules that were chosen.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The kernel's version.
    pub version: String,
    /// The modules, by their paths below `lib/modules/VERSION`.
    pub files: BTreeMap<String, PathBuf>,
    /// What `modprobe` reads, by their names there.
    pub tables: BTreeMap<String, Vec<u8>>,
    /// For each module those that it needs, the nearest first.
    pub needs: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Those in a folder `lib/modules/VERSION`, or in one that has such a folder.
    pub fn within(folder: &Path) -> Result<Self, ModulesError> {
        let none = || ModulesError::None(folder.into());
        let own = match folder.join("kernel").is_dir() {
            true => folder.to_owned(),
            false => {
                let places = FOLDERS.iter().map(|below| folder.join(below)).chain([folder.into()]);
                let versions = places.flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
                let mut versions =
                    versions.map(|entry| entry.path()).filter(|path| path.join("kernel").is_dir());
                match (versions.next(), versions.next()) {
                    (Some(only), None) => only,
                    _ => return Err(none()),
                }
            }
        };
        // `.` has no name.
        let whole = fs::canonicalize(&own).map_err(read(&own))?;
        let version = whole.file_name().and_then(|name| name.to_str()).ok_or_else(none)?.to_owned();
        let mut modules = Self { version, files: BTreeMap::new() };
        modules.add(&whole, "", 0)?;
        Ok(modules)
    }

    fn add(&mut self, folder: &Path, below: &str, depth: usize) -> Result<(), ModulesError> {
        for entry in fs::read_dir(folder).map_err(read(folder))? {
            let entry = entry.map_err(read(folder))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type().map_err(read(&entry.path()))?;
            if kind.is_dir() && depth < MAX_DEPTH {
                self.add(&entry.path(), &format!("{below}{name}/"), depth + 1)?;
            } else if kind.is_file() {
                self.files.insert(format!("{below}{name}"), entry.path());
            }
        }
        Ok(())
    }

    /// Those of an image.
    pub fn of(image: &Image) -> Result<Self, ModulesError> {
        let none = || ModulesError::None(image.path().into());
        let files = Filesystem::from_json(&image.read_index()?)
            .map_err(|source| ModulesError::Index { path: image.path().into(), source })?;
        let versions = FOLDERS.iter().find_map(|folder| {
            let dir = folder
                .split('/')
                .try_fold(env86_devices::fs::ROOT, |dir, name| files.lookup(dir, name.as_bytes()).ok())?;
            let names = files.directory(dir).ok()?;
            let mut versions = names.entries().filter(|entry| files.lookup(entry.ino, b"kernel").is_ok());
            match (versions.next(), versions.next()) {
                (Some(only), None) => Some((String::from_utf8_lossy(&only.name).into_owned(), only.ino)),
                _ => None,
            }
        });
        let (version, dir) = versions.ok_or_else(none)?;
        let mut modules = Self { version, files: BTreeMap::new() };
        modules.add_of(&files, &image.dir().join(BLOB_DIR), dir, "", 0);
        Ok(modules)
    }

    fn add_of(&mut self, files: &Filesystem, blobs: &Path, dir: Ino, below: &str, depth: usize) {
        let Ok(directory) = files.directory(dir) else { return };
        for entry in directory.entries() {
            let Ok(inode) = files.inode(entry.ino) else { continue };
            let path = format!("{below}{}", String::from_utf8_lossy(&entry.name));
            match &inode.content {
                Content::Directory(_) if depth < MAX_DEPTH => {
                    self.add_of(files, blobs, entry.ino, &format!("{path}/"), depth + 1);
                }
                Content::File(data) => {
                    // What an image names is a file of its folder, and nothing else.
                    let base = data.base().map(|base| base.blob.to_string());
                    let inside =
                        base.filter(|name| Path::new(name).file_name().is_some_and(|own| own == &**name));
                    self.files.extend(inside.map(|name| (path, blobs.join(name))));
                }
                _ => {}
            }
        }
    }

    /// An error if they belong to another kernel than this one, as far as that says which it is.
    pub fn check(&self, kernel: &[u8]) -> Result<(), ModulesError> {
        match version_of(kernel) {
            Some(version) if version != self.version => {
                Err(ModulesError::Version { kernel: version, modules: self.version.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Those with these names, or whose paths below `kernel` have these patterns, with all that they need; all without a
    /// list. What is in the kernel itself needs no module.
    pub fn choose(&self, list: Option<&[String]>) -> Result<Chosen, ModulesError> {
        let all: BTreeMap<String, &str> =
            self.files.keys().filter_map(|path| Some((name_of(path)?, path.as_str()))).collect();
        let builtin = self.text(BUILTIN)?.unwrap_or_default();
        let builtin: BTreeSet<String> = builtin.lines().filter_map(name_of).collect();
        let mut open: Vec<String> = match list {
            None => all.values().map(|path| (*path).to_owned()).collect(),
            Some(list) => {
                let mut found = Vec::new();
                for wanted in list {
                    let before = found.len();
                    found.extend(
                        all.iter()
                            .filter(|(name, path)| fits(wanted, name, path))
                            .map(|(_, path)| (*path).to_owned()),
                    );
                    if found.len() == before
                        && !builtin.contains(&plain(wanted.rsplit('/').next().unwrap_or(wanted)))
                    {
                        let version = self.version.clone();
                        return Err(ModulesError::Unknown { name: wanted.clone(), version });
                    }
                }
                found
            }
        };
        let known = self.text(NEEDS)?.map(|text| table(&text));
        let mut direct: BTreeMap<String, Vec<String>> = BTreeMap::new();
        while let Some(path) = open.pop() {
            if direct.contains_key(&path) {
                continue;
            }
            let needs = match known.as_ref().and_then(|known| known.get(&path)) {
                Some(needs) => needs.clone(),
                None => self.needs(&path, &all, &builtin)?,
            };
            if let Some(missing) = needs.iter().find(|need| !self.files.contains_key(*need)) {
                return Err(ModulesError::Needed { module: path, needed: missing.clone() });
            }
            open.extend(needs.iter().cloned());
            direct.insert(path, needs);
        }
        let needs: BTreeMap<String, Vec<String>> =
            direct.keys().map(|path| (path.clone(), behind(path, &direct))).collect();
        let files = direct.keys().map(|path| (path.clone(), self.files[path].clone())).collect();
        let tables = self.tables(&needs)?;
        Ok(Chosen { version: self.version.clone(), files, tables, needs })
    }

    /// What a module says that it needs.
    fn needs(
        &self,
        path: &str,
        all: &BTreeMap<String, &str>,
        builtin: &BTreeSet<String>,
    ) -> Result<Vec<String>, ModulesError> {
        let names = self.said(path, "depends=")?;
        let names = names.iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
        let mut needs = Vec::new();
        for name in names.map(plain) {
            match all.get(&name) {
                Some(path) => needs.push((*path).to_owned()),
                None if builtin.contains(&name) => {}
                None => return Err(ModulesError::Needed { module: path.into(), needed: name }),
            }
        }
        Ok(needs)
    }

    /// What a module says under a key. Of one that is packed nothing is known.
    fn said(&self, path: &str, key: &str) -> Result<Vec<String>, ModulesError> {
        if !path.ends_with(ENDS[0]) {
            return Ok(Vec::new());
        }
        let file = &self.files[path];
        let bytes = fs::read(file).map_err(read(file))?;
        let texts = bytes.split(|byte| *byte == 0).filter_map(|text| text.strip_prefix(key.as_bytes()));
        Ok(texts.filter_map(|text| String::from_utf8(text.to_vec()).ok()).collect())
    }

    fn text(&self, name: &str) -> Result<Option<String>, ModulesError> {
        let Some(path) = self.files.get(name) else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(&fs::read(path).map_err(read(path))?).into_owned()))
    }

    /// The tables of some of the modules.
    fn tables(
        &self,
        needs: &BTreeMap<String, Vec<String>>,
    ) -> Result<BTreeMap<String, Vec<u8>>, ModulesError> {
        let mut tables = BTreeMap::new();
        let lines = needs.iter().map(|(path, needs)| {
            format!("{path}:{}\n", needs.iter().map(|need| format!(" {need}")).collect::<String>())
        });
        tables.insert(NEEDS.to_owned(), lines.collect::<String>().into_bytes());
        let names: BTreeSet<String> = needs.keys().filter_map(|path| name_of(path)).collect();
        for name in ALIASES {
            let known = self.text(name)?;
            let text = match known {
                Some(text) => {
                    let is_kept =
                        |line: &&str| line.rsplit(' ').next().is_some_and(|name| names.contains(name));
                    text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
                }
                // The symbols are for other modules only, which are here, too.
                None if name == ALIASES[0] => self.aliases(needs)?,
                None => String::new(),
            };
            tables.insert(name.to_owned(), text.into_bytes());
        }
        if let Some(order) = self.text(ORDER)? {
            let kept = order.lines().filter(|path| needs.contains_key(*path));
            tables
                .insert(ORDER.into(), kept.map(|line| format!("{line}\n")).collect::<String>().into_bytes());
        }
        for name in KEPT {
            if let Some(path) = self.files.get(name) {
                tables.insert(name.into(), fs::read(path).map_err(read(path))?);
            }
        }
        Ok(tables)
    }

    fn aliases(&self, needs: &BTreeMap<String, Vec<String>>) -> Result<String, ModulesError> {
        let mut text = String::new();
        for path in needs.keys() {
            let name = name_of(path).unwrap_or_default();
            for alias in self.said(path, "alias=")? {
                text += &format!("alias {alias} {name}\n");
            }
        }
        Ok(text)
    }
}

impl Chosen {
    /// The paths of a module and of all that it needs, each behind those that it needs.
    pub fn with_needs(&self, name: &str) -> Vec<String> {
        let Some((path, needs)) = self.needs.iter().find(|(path, _)| name_of(path).as_deref() == Some(name))
        else {
            return Vec::new();
        };
        needs.iter().rev().chain([path]).cloned().collect()
    }
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> ModulesError {
    move |source| ModulesError::Read { path: path.into(), source }
}

/// A module's name, as the kernel writes it.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The name of the module in a file.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    ENDS.iter().find_map(|end| file.strip_suffix(end)).map(plain)
}

/// A module is wanted, by its name, or by a pattern of its path below `kernel`.
fn fits(wanted: &str, name: &str, path: &str) -> bool {
    if !wanted.contains('/') {
        return matches(plain(wanted).as_bytes(), name.as_bytes());
    }
    let Some(path) = path.strip_prefix("kernel/") else { return false };
    let path = ENDS.iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path);
    let (wanted, path): (Vec<_>, Vec<_>) = (wanted.split('/').collect(), path.split('/').collect());
    wanted.len() == path.len()
        && wanted.iter().zip(&path).all(|(wanted, part)| matches(wanted.as_bytes(), part.as_bytes()))
}

/// A text fits a pattern, in which `*` is any text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = (0..=rest.len()).find(|at| rest[*at..].starts_with(part)) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// The lines of `modules.dep`.
fn table(text: &str) -> BTreeMap<String, Vec<String>> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(path, needs)| (path.into(), needs.split_whitespace().map(Into::into).collect())).collect()
}

/// All that a module needs: backwards, each comes behind those that it needs.
fn behind(path: &str, direct: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let (mut done, mut seen) = (Vec::new(), BTreeSet::from([path]));
    let of = |path: &str| direct.get(path).map(Vec::as_slice).unwrap_or_default();
    // With each one how many of those that it needs are still to be looked at: the last one first, which in a table is the one
    // that the others need.
    let mut open = vec![(path, of(path).len())];
    while let Some((at, left)) = open.pop() {
        if left > 0 {
            open.push((at, left - 1));
            let need = &of(at)[left - 1];
            if seen.insert(need) {
                open.push((need, of(need).len()));
            }
        } else if at != path {
            done.push(at.to_owned());
        }
    }
    done.reverse();
    done
}

/// The version of a Linux kernel. Source: "The Linux/x86 Boot Protocol", `kernel_version`.
pub fn version_of(kernel: &[u8]) -> Option<String> {
    const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
    const PLACE: usize = 0x20e;
    const FROM: usize = 0x200;
    if kernel.get(MAGIC.0..)?.get(..MAGIC.1.len())? != MAGIC.1 {
        return None;
    }
    let place = kernel.get(PLACE..PLACE + 2)?;
    let at = usize::from(u16::from_le_bytes([place[0], place[1]]));
    let text = kernel.get(FROM + at..).filter(|_| at > 0)?;
    let text: Vec<u8> = text.iter().take(256).take_while(|byte| byte.is_ascii_graphic()).copied().collect();
    String::from_utf8(text).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with modules that say what they need.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("lib/modules/6.1.0");
        for (path, needs, alias) in [
            ("net/9p/9pnet", "", "x"),
            ("net/9p/9pnet_virtio", "9pnet,virtio", "virtio:d9"),
            ("drivers/virtio/virtio", "", "y"),
            ("fs/9p/9p", "9pnet,fscache", "fs-9p"),
            ("fs/fscache/fscache", "netfs", "z"),
            ("drivers/net/ne2k-pci", "8390", "pci:x"),
            ("drivers/net/8390", "", "n"),
        ] {
            let file = own.join("kernel").join(format!("{path}.ko"));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("\u{7f}ELF\0depends={needs}\0alias={alias}\0")).unwrap();
        }
        fs::write(own.join(BUILTIN), "kernel/fs/netfs/netfs.ko\n").unwrap();
        dir
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn what_is_chosen_comes_with_what_it_needs() {
        let dir = folder();
        let modules = Modules::within(dir.path()).unwrap();
        assert_eq!(modules.version, "6.1.0");
        let chosen = modules.choose(Some(&list(&["9p", "net/9p/*virtio", "netfs", "ne2k_pci"]))).unwrap();
        let names: Vec<_> = chosen.files.keys().map(|path| name_of(path).unwrap()).collect();
        assert_eq!(names, ["8390", "ne2k_pci", "virtio", "9p", "fscache", "9pnet", "9pnet_virtio"]);
        assert_eq!(
            chosen.with_needs("9p"),
            ["kernel/fs/fscache/fscache.ko", "kernel/net/9p/9pnet.ko", "kernel/fs/9p/9p.ko"]
        );
        let needs = String::from_utf8(chosen.tables[NEEDS].clone()).unwrap();
        assert!(needs.contains("kernel/drivers/net/ne2k-pci.ko: kernel/drivers/net/8390.ko\n"), "{needs}");
        let aliases = String::from_utf8(chosen.tables[ALIASES[0]].clone()).unwrap();
        assert!(
            aliases.contains("alias fs-9p 9p\n") && aliases.contains("alias pci:x ne2k_pci\n"),
            "{aliases}"
        );
        // The tables say the same, once they are there.
        let own = dir.path().join("lib/modules/6.1.0");
        for (name, text) in &chosen.tables {
            fs::write(own.join(name), text).unwrap();
        }
        let again = Modules::within(&own).unwrap().choose(Some(&list(&["9p"]))).unwrap();
        assert_eq!(again.with_needs("9p"), chosen.with_needs("9p"));
        assert_eq!(again.tables[ALIASES[0]], b"alias fs-9p 9p\nalias z fscache\nalias x 9pnet\n");
        assert_eq!(modules.choose(None).unwrap().files.len(), 7);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = folder();
        let modules = Modules::within(dir.path()).unwrap();
        let wrong = |name: &str| modules.choose(Some(&list(&[name]))).unwrap_err().to_string();
        assert!(wrong("9p9").contains("no kernel module `9p9` for 6.1.0"));
        assert!(wrong("net/*").contains("`net/*`"));
        fs::remove_file(dir.path().join("lib/modules/6.1.0/kernel/net/9p/9pnet.ko")).unwrap();
        let modules = Modules::within(dir.path()).unwrap();
        assert!(modules.choose(Some(&list(&["9p"]))).unwrap_err().to_string().contains("needs `9pnet`"));
        assert!(matches!(
            Modules::within(&dir.path().join("lib/modules/6.1.0/kernel")),
            Err(ModulesError::None(_))
        ));
        let mut kernel = vec![0; 0x300];
        assert!(modules.check(&kernel).is_ok());
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20e..0x210].copy_from_slice(&[0x80, 0]);
        kernel[0x280..0x28a].copy_from_slice(b"6.2.0 (x@y");
        assert!(matches!(modules.check(&kernel), Err(ModulesError::Version { .. })));
        kernel[0x282] = b'1';
        assert!(modules.check(&kernel).is_ok());
    }

    #[test]
    fn patterns_have_stars() {
        for (pattern, text) in
            [("a", "a"), ("*", ""), ("a*", "abc"), ("*c", "abc"), ("a*c*e", "abcde"), ("**", "x")]
        {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*b", "ac"), ("*a", "ab"), ("ab*b", "ab")] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }
}
