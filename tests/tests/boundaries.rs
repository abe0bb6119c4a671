//! The layout's rules, where the compiler does not enforce them: imports run one way, and nothing below
//! `host` knows an operating system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use env86_tests::workspace;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree};

/// A crate's folder, its name, and the crates of this workspace that it may use.
const LAYERS: [(&str, &str, &[&str]); 5] = [
    ("emu", "env86-emu", &[]),
    ("devices", "env86-devices", &["env86-emu"]),
    ("bios", "env86-bios", &["env86-emu"]),
    ("host/core", "env86-core", &["env86-emu", "env86-devices", "env86-bios", "env86-selftest"]),
    ("host/selftest", "env86-selftest", &[]),
];

/// Modules of the standard library that are an operating system's.
const FORBIDDEN_MODULES: [&str; 8] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::process",
    "std::env",
    "std::os",
];

/// Crates through which an operating system comes in.
const FORBIDDEN_CRATES: [&str; 12] = [
    "cpal",
    "crossbeam-channel",
    "getrandom",
    "libc",
    "memmap2",
    "mio",
    "nix",
    "rayon",
    "rustix",
    "socket2",
    "tokio",
    "winit",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a crate has a source folder") {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Files of tests run on a developer's machine and may use it.
fn is_test(file: &Path) -> bool {
    file.file_stem()
        .and_then(|stem| stem.to_str())
        .is_some_and(|stem| stem.ends_with("test") || stem == "tests")
}

#[test]
fn no_operating_system_in_the_sources_below_host() {
    let mut files = Vec::new();
    for (folder, ..) in LAYERS {
        sources(&workspace().join(folder).join("src"), &mut files);
    }
    assert!(files.len() > LAYERS.len());
    for file in files.into_iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(&file).expect("a source is text");
        let used = forbidden(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(used.is_empty(), "{} uses {}", file.display(), used.join(", "));
    }
}

/// The forbidden modules that a source names outside of its tests.
fn forbidden(source: &str) -> syn::Result<Vec<String>> {
    let mut names = Names::default();
    names.visit_file(&syn::parse_file(source)?);
    let is_forbidden = |name: &String| {
        let under = |module: &&str| name == *module || name.starts_with(&format!("{module}::"));
        FORBIDDEN_MODULES.iter().any(under)
    };
    Ok(names.0.into_iter().filter(is_forbidden).collect())
}

/// Every path that a source names, whole: `std::fs::read`.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    /// What a `use` brings in, each with the path before it.
    fn imports(&mut self, before: &str, tree: &UseTree) {
        let joined = |name: &dyn std::fmt::Display| {
            if before.is_empty() { name.to_string() } else { format!("{before}::{name}") }
        };
        match tree {
            UseTree::Path(path) => self.imports(&joined(&path.ident), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.imports(before, item)),
            UseTree::Name(name) => self.0.push(joined(&name.ident)),
            UseTree::Rename(rename) => self.0.push(joined(&rename.ident)),
            UseTree::Glob(_) => self.0.push(before.to_owned()),
        }
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item(&mut self, item: &'a Item) {
        // Tests run on a developer's machine.
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !attributes.iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.imports("", &item.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.0.push(path.segments.iter().map(|s| s.ident.to_string()).collect::<Vec<_>>().join("::"));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'a syn::Macro) {
        // What is in a macro's call has no structure yet but its tokens.
        let tokens = mac.tokens.to_string().replace(' ', "");
        let found = FORBIDDEN_MODULES.iter().filter(|module| tokens.contains(**module));
        self.0.extend(found.map(|module| (*module).to_owned()));
        visit::visit_macro(self, mac);
    }
}

/// `#[cfg(test)]`
fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
}

#[test]
fn what_stands_behind_tests_is_read() {
    let tests = "#[cfg(test)] mod tests { use std::fs; }";
    let code = "use std::{io, net::{self, TcpStream}}; fn f() { let _ = std::env::var(\"A\"); }";
    assert_eq!(forbidden(tests).unwrap(), Vec::<String>::new());
    assert_eq!(
        forbidden(&format!("{tests} {code}")).unwrap(),
        ["std::net::self", "std::net::TcpStream", "std::env::var"]
    );
    assert_eq!(forbidden("fn f() { println!(\"{:?}\", std::process::id()); }").unwrap(), ["std::process"]);
    assert_eq!(forbidden("/// std::fs\nfn f() { std::format!(\"\"); }").unwrap(), Vec::<String>::new());
}

/// What only one operating system has.
const ONE_SYSTEMS: [&str; 4] = ["std::os", "rustix", "windows_sys", "libc"];

#[test]
fn what_differs_between_operating_systems_is_in_one_module_of_host() {
    let source = workspace().join("host/src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let (inside, outside): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.starts_with(source.join("os")));
    let named = |file: &PathBuf| {
        let mut names = Names::default();
        let text = fs::read_to_string(file).expect("a source is text");
        names.visit_file(
            &syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        );
        let is_one = |name: &String| ONE_SYSTEMS.iter().any(|system| name.starts_with(system));
        names.0.into_iter().find(is_one)
    };
    assert!(inside.iter().any(|file| named(file).is_some()));
    for file in outside.into_iter().filter(|file| !is_test(file)) {
        assert_eq!(named(&file), None, "{} is for one operating system", file.display());
    }
}

/// The files of tests are modules of one program: one that it does not name would never be compiled.
#[test]
fn every_file_of_tests_is_in_its_program() {
    for folder in ["host/tests", "tests/tests"].map(|folder| workspace().join(folder)) {
        let program = fs::read_to_string(folder.join("main.rs")).expect("the folder has a program");
        for entry in fs::read_dir(&folder).expect("a folder can be listed") {
            let name =
                entry.expect("a folder can be listed").file_name().into_string().expect("a name in ASCII");
            let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") else { continue };
            assert!(
                program.contains(&format!("mod {module};")),
                "{}/main.rs lacks {module}",
                folder.display()
            );
        }
    }
}

#[test]
fn imports_run_one_way() {
    for (_, name, allowed) in LAYERS {
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "-p",
                name,
                "-e",
                "normal",
                "--prefix",
                "none",
                "--format",
                "{lib}",
            ])
            .args(["--target", "wasm32-unknown-unknown"])
            .current_dir(workspace())
            .output()
            .expect("cargo runs");
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        // Behind the name, cargo marks what it has shown before.
        let names = String::from_utf8_lossy(&tree.stdout).into_owned();
        let names = names.lines().filter_map(|line| line.split_whitespace().next());
        for import in names.map(|name| name.replace('_', "-")) {
            let ours = import.starts_with("env86") && import != name;
            assert!(!ours || allowed.contains(&import.as_str()), "{name} may not use {import}");
            assert!(!FORBIDDEN_CRATES.contains(&import.as_str()), "{name} brings {import} in");
        }
    }
}
