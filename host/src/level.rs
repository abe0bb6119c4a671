//! The same program for newer processors, beside this one.
//!
//! An archive for any computer (`make archive`) has the program twice: `env86` is built for x86-64-v2, which all PCs of the
//! last fifteen years have, and the other for x86-64-v3 (AVX2, BMI, FMA and others, since about 2013). People start the
//! first, which goes on as the second where the processor has all that this was built for. Without the second beside it,
//! it is a program as any other. docs/PERFORMANCE.md says what it brings on which processor.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::os;

/// The name of the program for x86-64-v3.
const NEWER: &str = "env86-x86-64-v3";

/// Goes on as the program for newer processors, if that is better here: as the same process, with the same arguments and
/// environment. Comes back if it is not, or cannot be started. To be called before anything else is done.
pub fn take_newer() {
    if built_for_newer() {
        return;
    }
    // The files first: where there is one only, that is all that is looked at.
    if let Some(newer) = env::current_exe().ok().and_then(|program| beside(&program))
        && processor_is_newer()
    {
        os::go_on_as(&newer);
    }
}

/// The program for newer processors beside this one. It is never this one itself, by whatever name: that would start itself
/// again and again.
fn beside(program: &Path) -> Option<PathBuf> {
    let program = fs::canonicalize(program).ok()?;
    let newer = fs::canonicalize(program.with_file_name(NEWER)).ok()?;
    (newer != program && newer.is_file()).then_some(newer)
}

/// Whether this program itself needs what newer processors have.
fn built_for_newer() -> bool {
    cfg!(target_feature = "avx2")
}

/// Whether the processor, and the system for it, has all of x86-64-v3 that v2, which this program runs on, does not have.
#[cfg(target_arch = "x86_64")]
fn processor_is_newer() -> bool {
    is_x86_feature_detected!("avx")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe")
}

/// There are no levels of other processors.
#[cfg(not(target_arch = "x86_64"))]
fn processor_is_newer() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_newer_program_is_found_beside_this_one_and_never_itself() {
        let folder = tempfile::tempdir().unwrap();
        let folder = fs::canonicalize(folder.path()).unwrap();
        let (program, newer) = (folder.join("env86"), folder.join(NEWER));
        fs::write(&program, "").unwrap();
        assert_eq!(beside(&program), None);
        symlink(&program, &newer).unwrap();
        assert_eq!(beside(&program), None);
        fs::remove_file(&newer).unwrap();
        fs::write(&newer, "").unwrap();
        assert_eq!(beside(&program), Some(newer.clone()));
        assert_eq!(beside(&newer), None);
        // As it is called from a folder of programs.
        fs::create_dir(folder.join("bin")).unwrap();
        symlink(&program, folder.join("bin/env86")).unwrap();
        assert_eq!(beside(&folder.join("bin/env86")), Some(newer));
    }

    #[test]
    fn what_was_built_for_newer_processors_runs_on_one() {
        assert!(!built_for_newer() || processor_is_newer());
    }
}
