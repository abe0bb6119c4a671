//! The kernel that an image gets which has none of its own, such as one made of a container image.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use env86_bios::BootSource;
use env86_core::{Choice, DEFAULT_MEMORY, NamedFile, PowerOnError, choose};
use env86_devices::fs::{Filesystem, FsJsonError};
use thiserror::Error;

use super::{FileRef, Image, ImageConfig, ImageError};
use crate::machine::Blobs;

/// What the files are called in the image.
const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd.img";
/// The word of a command line that names the program that is started first.
const INIT: &str = "init=";

/// Why there is no kernel.
#[derive(Debug, Error)]
pub enum KernelError {
    /// A file.
    #[error("Cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The image that has it.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The files of the image that has it.
    #[error("The image `{}` is damaged", path.display())]
    Index {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        source: FsJsonError,
    },
    /// There is none in the image.
    #[error("Cannot take a kernel from `{}`", path.display())]
    None {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: PowerOnError,
    },
    /// The image that is to get it is a whole one.
    #[error("The image has its own kernel, and gets no other")]
    HasOwn,
    /// The image starts something else.
    #[error("The image `{}` starts no Linux kernel", .0.display())]
    NotLinux(PathBuf),
}

/// A Linux kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    kernel: Vec<u8>,
    initrd: Option<Vec<u8>>,
    /// Its command line, if it has one that is known to do.
    cmdline: Option<String>,
}

impl Kernel {
    /// A kernel and its initial RAM disk in files.
    pub fn from_files(kernel: &Path, initrd: Option<&Path>) -> Result<Self, KernelError> {
        let read =
            |path: &Path| fs::read(path).map_err(|source| KernelError::File { path: path.into(), source });
        Ok(Self { kernel: read(kernel)?, initrd: initrd.map(read).transpose()?, cmdline: None })
    }

    /// A kernel with an initial RAM disk, and a command line that both are known to do with.
    pub fn new(kernel: Vec<u8>, initrd: Vec<u8>, cmdline: &str) -> Self {
        Self { kernel, initrd: Some(initrd), cmdline: Some(cmdline.into()) }
    }

    /// The kernel itself.
    pub fn bytes(&self) -> &[u8] {
        &self.kernel
    }

    /// The kernel that another image is started with, with its initial RAM disk and its command line.
    pub fn of(image: &Image) -> Result<Self, KernelError> {
        let path = || image.path().to_owned();
        let files = match image.read_index() {
            Err(ImageError::Missing(_)) => Filesystem::default(),
            text => {
                Filesystem::from_json(&text?).map_err(|source| KernelError::Index { path: path(), source })?
            }
        };
        let mut blobs = Blobs::new(image.blobs());
        let mut file = |key, file: &FileRef| {
            let name = file.url.clone().unwrap_or_default();
            Ok(NamedFile { name, data: image.read_ref(key, file)? })
        };
        let chosen =
            choose(Choice::default(), &image.config, (&files, &mut blobs), &mut file, DEFAULT_MEMORY);
        match chosen.map_err(|source| KernelError::None { path: path(), source })?.0 {
            BootSource::Linux { kernel, initrd, cmdline, .. } => {
                // What that image starts first is its own affair.
                let cmdline = words(&cmdline, |word| !word.starts_with(INIT));
                Ok(Self { kernel, initrd, cmdline: Some(cmdline) })
            }
            _ => Err(KernelError::NotLinux(path())),
        }
    }

    /// The command line that it is started with for an image that has this one: its own, with what the image says of
    /// the program that is started first.
    fn cmdline_for(&self, image: Option<&str>) -> Option<String> {
        let Some(own) = &self.cmdline else { return image.map(Into::into) };
        let init = words(image.unwrap_or_default(), |word| word.starts_with(INIT));
        Some(format!("{own} {init}").trim_end().into())
    }

    /// The kernel, and its initial RAM disk, for a machine of an image with this configuration, which is changed so that
    /// they fit it.
    pub(crate) fn start(&self, config: &mut ImageConfig) -> (Vec<u8>, Option<Vec<u8>>) {
        config.cmdline = self.cmdline_for(config.cmdline.as_deref());
        (self.kernel.clone(), self.initrd.clone())
    }

    /// Puts it into the folder of an image, and says so in its configuration.
    pub fn put(&self, folder: &Path, config: &mut ImageConfig) -> Result<(), KernelError> {
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(|source| KernelError::File { path, source })?;
            Ok::<_, KernelError>(FileRef { url: Some(format!("./{name}")), ..FileRef::default() })
        };
        config.bzimage = Some(write(KERNEL, &self.kernel)?);
        config.initrd = self.initrd.as_ref().map(|bytes| write(INITRD, bytes)).transpose()?;
        if self.cmdline.is_some() {
            config.cmdline.clone_from(&self.cmdline);
        }
        Ok(())
    }
}

/// Some of a command line's words.
fn words(cmdline: &str, wanted: impl Fn(&&str) -> bool) -> String {
    cmdline.split_whitespace().filter(wanted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_keeps_its_command_line_and_the_image_its_first_program() {
        let kernel = |cmdline: Option<&str>| Kernel {
            kernel: Vec::new(),
            initrd: None,
            cmdline: cmdline.map(Into::into),
        };
        let known = kernel(Some("rw root=a"));
        assert_eq!(known.cmdline_for(Some("ro init=/bin/sh")).as_deref(), Some("rw root=a init=/bin/sh"));
        assert_eq!(known.cmdline_for(None).as_deref(), Some("rw root=a"));
        assert_eq!(kernel(None).cmdline_for(Some("ro")).as_deref(), Some("ro"));
        assert_eq!(words("a  init=/x b", |word| !word.starts_with(INIT)), "a b");
    }
}
