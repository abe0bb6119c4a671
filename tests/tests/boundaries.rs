//! The layout's rules, where the compiler does not enforce them: imports run one way, and nothing below
//! `host` knows an operating system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use env86_tests::workspace;

/// A crate's folder, its name, and the crates of this workspace that it may use.
const LAYERS: [(&str, &str, &[&str]); 3] = [
    ("emu", "env86-emu", &[]),
    ("devices", "env86-devices", &["env86-emu"]),
    ("bios", "env86-bios", &["env86-emu"]),
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

#[test]
fn no_operating_system_in_the_sources_below_host() {
    let mut files = Vec::new();
    for (folder, ..) in LAYERS {
        sources(&workspace().join(folder).join("src"), &mut files);
    }
    assert!(files.len() > LAYERS.len());
    // Files of tests run on a developer's machine and may use it.
    let is_test = |file: &PathBuf| {
        file.file_stem()
            .and_then(|stem| stem.to_str())
            .is_some_and(|stem| stem.ends_with("test") || stem == "tests")
    };
    for file in files.into_iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(&file).expect("a source is text");
        // And so do tests at the foot of a file.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for module in FORBIDDEN_MODULES {
            let used = code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(module));
            assert!(!used, "{} uses {module}", file.display());
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
        for import in String::from_utf8_lossy(&tree.stdout).lines().map(|line| line.trim().replace('_', "-"))
        {
            let ours = import.starts_with("env86") && import != name;
            assert!(!ours || allowed.contains(&import.as_str()), "{name} may not use {import}");
            assert!(!FORBIDDEN_CRATES.contains(&import.as_str()), "{name} brings {import} in");
        }
    }
}
