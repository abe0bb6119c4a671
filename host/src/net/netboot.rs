//! Guests that start from the network: which file they are to start.

use std::path::{Path, PathBuf};

/// What iPXE starts: a script.
const SCRIPTS: [&str; 2] = ["boot.ipxe", "autoexec.ipxe"];
/// What the firmware of a card starts, and iPXE where there is no script.
const LOADERS: [&str; 4] = ["pxelinux.0", "lpxelinux.0", "undionly.kpxe", "ipxe.pxe"];
/// What only leads to iPXE, which would begin again with it.
const IPXE: [&str; 2] = ["undionly.kpxe", "ipxe.pxe"];

/// A directory that guests start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netboot {
    /// The directory. Nothing outside of it is read.
    pub directory: PathBuf,
    /// The file in it that they start; else one that is known by its name.
    pub file: Option<String>,
}

impl Netboot {
    /// The file for a guest, whose firmware is iPXE or another.
    pub fn file(&self, ipxe: bool) -> Option<&str> {
        let there = |name: &&str| self.directory.join(Path::new(name)).is_file();
        let script = || SCRIPTS.into_iter().filter(|_| ipxe).find(there);
        let loader = || LOADERS.into_iter().filter(|name| !(ipxe && IPXE.contains(name))).find(there);
        let named = self.file.as_deref().filter(|name| !(ipxe && IPXE.contains(name)));
        named.or_else(script).or_else(loader)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn firmware_leads_to_ipxe_and_ipxe_to_a_script() {
        let dir = tempfile::tempdir().unwrap();
        let boot =
            |file: Option<&str>| Netboot { directory: dir.path().into(), file: file.map(str::to_owned) };
        let add = |name| fs::write(dir.path().join(name), "").unwrap();
        assert_eq!([true, false].map(|ipxe| boot(None).file(ipxe).map(str::to_owned)), [None, None]);
        add("undionly.kpxe");
        assert_eq!((boot(None).file(true), boot(None).file(false)), (None, Some("undionly.kpxe")));
        add("boot.ipxe");
        assert_eq!(
            (boot(None).file(true), boot(None).file(false)),
            (Some("boot.ipxe"), Some("undionly.kpxe"))
        );
        assert_eq!(boot(Some("undionly.kpxe")).file(true), Some("boot.ipxe"));
        assert_eq!((boot(Some("a")).file(true), boot(Some("a")).file(false)), (Some("a"), Some("a")));
    }
}
