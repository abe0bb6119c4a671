//! Which file systems are below a folder.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// File systems of this machine's own disks and memory. Others may wait for a network or a program.
const LOCAL: [&[u8]; 14] = [
    b"btrfs",
    b"cgroup2",
    b"devpts",
    b"devtmpfs",
    b"ext2",
    b"ext3",
    b"ext4",
    b"f2fs",
    b"overlay",
    b"proc",
    b"sysfs",
    b"tmpfs",
    b"xfs",
    b"zfs",
];

/// Whether everything in a folder is on disks of this machine's own or in its memory, as far as is known: on systems
/// other than Linux it is not.
pub fn is_local(folder: &Path) -> bool {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    fs::canonicalize(folder).is_ok_and(|folder| all_local(&mounts, &folder))
}

/// The same by the kernel's list of mounts (proc(5)).
fn all_local(mounts: &[u8], folder: &Path) -> bool {
    let mounts: Vec<_> = mounts.split(|byte| *byte == b'\n').filter_map(mount).collect();
    // Of several at one place, the last is seen.
    let own =
        mounts.iter().filter(|(at, _)| folder.starts_with(at)).max_by_key(|(at, _)| at.as_os_str().len());
    let below = mounts.iter().filter(|(at, _)| at.starts_with(folder));
    own.is_some() && own.into_iter().chain(below).all(|(_, kind)| LOCAL.contains(kind))
}

/// Where a file system is mounted, and its type.
fn mount(line: &[u8]) -> Option<(PathBuf, &[u8])> {
    let mut words = line.split(|byte| *byte == b' ');
    let at = words.nth(4)?;
    let kind = words.skip_while(|word| *word != b"-").nth(1)?;
    Some((PathBuf::from(OsStr::from_bytes(&unescaped(at))), kind))
}

/// What would end a word stands in the list as three octal digits.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), word);
    while let [first, more @ ..] = rest {
        let digits = more.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[3..] } else { more };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_local_with_all_that_is_mounted_in_it() {
        let mounts = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /net rw shared:7 - nfs4 host:/ rw\n\
            3 1 0:6 / /work/a\\040b/c rw,nosuid - tmpfs none rw\n4 1 0:7 / /home/me/far rw - fuse.sshfs x rw\n";
        for folder in ["/work", "/work/a b/c/d", "/network", "/home/me/near"] {
            assert!(all_local(mounts, Path::new(folder)), "{folder}");
        }
        for folder in ["/", "/net", "/net/x/y", "/home/me", "/home/me/far"] {
            assert!(!all_local(mounts, Path::new(folder)), "{folder}");
        }
        let hidden = [&mounts[..], b"5 1 0:9 / /work/a\\040b rw - nfs x rw\n"].concat();
        assert!(!all_local(&hidden, Path::new("/work")) && !all_local(&hidden, Path::new("/work/a b")));
        assert!(!all_local(b"", Path::new("/")) && !all_local(b"noise\n- -", Path::new("/")));
    }
}
