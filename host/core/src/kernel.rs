//! Finding the kernel and its initial RAM disk inside an image's own file system.
//!
//! The rule is v86's: names that contain `vmlinuz` or `bzimage`, and `initrd` or `initramfs`, in
//! `/` and then in `/boot`; the last one counts, and one whose path says `old` or `fallback` only
//! if there is no other.

/// The folder below the root that is searched too.
pub const BOOT_DIR: &str = "boot";

/// The paths of what a Linux guest is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelPaths {
    /// The kernel.
    pub kernel: Option<String>,
    /// The initial RAM disk.
    pub initrd: Option<String>,
}

/// Picks the kernel and the initial RAM disk from the names in `/` and in `/boot`.
pub fn find_kernel<'a>(
    root: impl IntoIterator<Item = &'a str>,
    boot: impl IntoIterator<Item = &'a str>,
) -> KernelPaths {
    let root = root.into_iter().map(|name| (format!("/{name}"), name));
    let boot = boot.into_iter().map(|name| (format!("/{BOOT_DIR}/{name}"), name));
    let mut found = KernelPaths::default();
    for (path, name) in root.chain(boot) {
        let avoid = contains_any(name, &["old", "fallback"]);
        for (slot, wanted) in [(&mut found.kernel, is_kernel(name)), (&mut found.initrd, is_initrd(name))] {
            if wanted && (slot.is_none() || !avoid) {
                *slot = Some(path.clone());
            }
        }
    }
    found
}

/// The name of a Linux kernel.
pub fn is_kernel(name: &str) -> bool {
    contains_any(name, &["vmlinuz", "bzimage"])
}

/// The name of an initial RAM disk.
pub fn is_initrd(name: &str) -> bool {
    contains_any(name, &["initrd", "initramfs"])
}

fn contains_any(name: &str, words: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    words.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kernel: Option<&str>, initrd: Option<&str>) -> KernelPaths {
        KernelPaths { kernel: kernel.map(Into::into), initrd: initrd.map(Into::into) }
    }

    #[test]
    fn boot_comes_after_the_root() {
        let got = find_kernel(["bin", "vmlinuz"], ["initrd.img-6.1", "vmlinuz-6.1", "config-6.1"]);
        assert_eq!(got, found(Some("/boot/vmlinuz-6.1"), Some("/boot/initrd.img-6.1")));
    }

    #[test]
    fn old_ones_are_a_last_resort() {
        let names = ["initramfs-linux-fallback.img", "initramfs-linux.img", "vmlinuz.old"];
        assert_eq!(
            find_kernel([], names),
            found(Some("/boot/vmlinuz.old"), Some("/boot/initramfs-linux.img"))
        );
        let got = find_kernel(["vmlinuz", "vmlinuz.old"], []);
        assert_eq!(got, found(Some("/vmlinuz"), None));
    }

    #[test]
    fn an_image_without_a_kernel_has_none() {
        assert_eq!(find_kernel(["bin", "etc"], []), KernelPaths::default());
    }
}
