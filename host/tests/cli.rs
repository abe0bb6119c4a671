//! The command line as a contract: spelling, exit statuses, and where output goes.

use std::process::{Command, Output};

fn env86(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_env86")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_goes_to_stderr_and_succeeds() {
    for args in [&[][..], &["-h"], &["-help"], &["--help"], &["create", "-help"]] {
        let out = env86(args);
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        assert!(out.stdout.is_empty() && stderr(&out).contains("Usage: env86"), "{args:?}");
    }
}

#[test]
fn the_version_goes_to_stdout() {
    for args in [["-v"], ["-version"]] {
        let out = env86(&args);
        assert_eq!(out.status.code(), Some(0));
        assert_eq!(String::from_utf8(out.stdout).unwrap(), concat!(env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[test]
fn wrong_arguments_fail_with_1() {
    for args in [&["frobnicate"][..], &["create"], &["create", "-x", "img"], &["create", "img"]] {
        let out = env86(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(stderr(&out).starts_with("env86: "), "{args:?}: {}", stderr(&out));
    }
}
