//! The program for newer processors, which stands beside this one in an archive.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

/// What a shell that is started in place of the program does, and a program says is no command of its.
fn run(program: &Path) -> Output {
    Command::new(program).args(["-c", "echo newer"]).output().unwrap()
}

#[test]
fn the_program_for_newer_processors_is_taken_where_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (program, newer) = (folder.path().join("env86"), folder.path().join("env86-x86-64-v3"));
    let built = Path::new(env!("CARGO_BIN_EXE_env86"));
    fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
    let by_itself = run(&program);
    assert_eq!(by_itself.status.code(), Some(1));

    // A file that is no program, and none at all: it goes on by itself.
    fs::write(&newer, "").unwrap();
    assert_eq!(run(&program), by_itself);
    fs::remove_file(&newer).unwrap();
    symlink("nowhere", &newer).unwrap();
    assert_eq!(run(&program), by_itself);
    fs::remove_file(&newer).unwrap();

    symlink("/bin/sh", &newer).unwrap();
    // This program may be the one for newer processors itself, as it is when it is built for a new one at hand.
    #[cfg(target_arch = "x86_64")]
    if !cfg!(target_feature = "avx2") && is_x86_feature_detected!("avx2") {
        assert_eq!(String::from_utf8(run(&program).stdout).unwrap(), "newer\n");
        return;
    }
    assert_eq!(run(&program), by_itself);
}
