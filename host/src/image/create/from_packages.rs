//! Making an image from Debian packages. They are unpacked and not installed: no program of theirs is run, and what their
//! scripts would have done is done here as far as a shell needs it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::from_tar::{Manner, Reading, SHELL};
use super::{CreateError, Layer, Made, Options, Summary, fill};
use crate::image::ImageConfig;

/// What only people at a desk read.
const LEFT_OUT: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
];
/// Folders that are links in a system whose programs and libraries are all below `/usr`, as packages expect it.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];
/// Folders of every system.
const FOLDERS: [(&str, u32); 11] = [
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("run", 0o755),
    ("mnt", 0o755),
    ("home", 0o755),
    ("var/log", 0o755),
    ("etc", 0o755),
    ("root", 0o700),
    ("tmp", 0o1777),
    ("var/tmp", 0o1777),
];
/// Files that packages have elsewhere, and what they are where no package has them.
const COPIES: [(&str, &str, &str); 3] = [
    ("etc/passwd", "usr/share/base-passwd/passwd.master", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "usr/share/base-passwd/group.master", "root:x:0:\n"),
    ("etc/nsswitch.conf", "usr/share/libc-bin/nsswitch.conf", ""),
];
/// Links that scripts make, where what they lead to is there. The first that is there counts.
const LINKS: [(&str, &str, &str); 4] = [
    ("usr/bin/sh", "dash", "usr/bin/dash"),
    ("usr/bin/sh", "bash", "usr/bin/bash"),
    ("usr/bin/sh", "busybox", "usr/bin/busybox"),
    ("usr/bin/awk", "mawk", "usr/bin/mawk"),
];
/// Links that lead to what there is in a machine that runs.
const SYSTEM_LINKS: [(&str, &str); 3] =
    [("etc/mtab", "../proc/self/mounts"), ("var/run", "/run"), ("var/lock", "/run/lock")];

/// Makes what is in the folder of an image, of packages in these files.
pub fn fill_with_packages(
    packages: &[PathBuf],
    folder: &Path,
    config: ImageConfig,
    options: &Options,
) -> Result<Summary, CreateError> {
    fill(folder, config, |dir| {
        let mut reading = Reading::new(dir, options, Manner::Packages);
        for name in MERGED {
            reading.directory(&format!("usr/{name}"), 0o755)?;
            reading.link(name, &format!("usr/{name}"))?;
        }
        reading.left_out = LEFT_OUT;
        for package in packages {
            unpack(package, |from| {
                let what = format!("The package `{}`", package.display());
                reading.archive(Layer { from, what, sum: None })
            })?;
            options.progress.advance(package.metadata().map_or(0, |meta| meta.len()));
        }
        settle(&mut reading)?;
        reading.modules()?;
        let has_init = reading.tree.has_init();
        let guest = options.guest.filter(|guest| guest.is_always() || !has_init && !reading.tree.has_guest());
        let put = guest.map(|guest| reading.put(guest)).transpose()?;
        let init = put.or_else(|| (!has_init).then_some(SHELL));
        Ok(Made { init, has_guest: put.is_some(), ..reading.tree.made(&reading.copier)? })
    })
}

/// Has a package unpacked into a tar stream, which `take` reads.
pub fn unpack(
    package: &Path,
    take: impl FnOnce(&mut dyn Read) -> Result<(), CreateError>,
) -> Result<(), CreateError> {
    let failed = || CreateError::read(package);
    let mut command = Command::new("dpkg-deb");
    command
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed())?;
    let taken = match &mut child.stdout {
        // Behind the archive's end there is more, which has to be read for the program to end well.
        Some(out) => take(out).and_then(|()| io::copy(out, &mut io::sink()).map(drop).map_err(failed())),
        None => Ok(()),
    };
    if taken.is_err() {
        // It may have more to say than anyone reads.
        let _ = child.kill();
    }
    let output = child.wait_with_output().map_err(failed())?;
    match taken {
        Ok(()) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed()(io::Error::other(format!("dpkg-deb says: {}", said.trim().escape_debug()))))
        }
        taken => taken,
    }
}

/// Does what the packages' scripts would have done.
fn settle(reading: &mut Reading) -> Result<(), CreateError> {
    for (path, mode) in FOLDERS {
        reading.directory(path, mode)?;
    }
    for (path, from, text) in COPIES {
        if !reading.tree.is_there(path) {
            reading.copy_of(path, from, 0o644)?;
        }
        if !text.is_empty() && !reading.tree.is_there(path) {
            reading.file(path, 0o644, text.as_bytes())?;
        }
    }
    for (path, target, needed) in LINKS {
        if !reading.tree.is_there(path) && reading.tree.is_there(needed) {
            reading.link(path, target)?;
        }
    }
    for (path, target) in SYSTEM_LINKS {
        if !reading.tree.is_there(path) {
            reading.link(path, target)?;
        }
    }
    Ok(())
}
