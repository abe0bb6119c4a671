//! The kernel that a machine starts instead of its image's, and the image that it may be in.

use std::path::{Path, PathBuf};

use clap::Args;
use env86::image::kernel::{Kernel, KernelError};
use env86::image::{Image, find, global_root};
use env86::machine::MachineBuilder;

use super::CliError;

/// Flags for the kernel of a machine.
#[derive(Args, Debug)]
pub struct KernelFlags {
    /// A Linux or Multiboot kernel, instead of the image's; or an image, whose kernel it is
    #[arg(long, value_name = "FILE|IMAGE")]
    pub kernel: Option<PathBuf>,

    /// The initial RAM disk, instead of the image's
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
}

impl KernelFlags {
    /// Gives it to a machine.
    pub fn add_to(&self, mut builder: MachineBuilder) -> Result<MachineBuilder, CliError> {
        if let Some(arg) = &self.kernel {
            builder = match arg.to_str().and_then(image_of) {
                Some(path) => builder.kernel_of(read_kernel(path)?),
                None => builder.kernel(arg),
            };
        }
        Ok(self.initrd.iter().fold(builder, MachineBuilder::initrd))
    }
}

/// The image that an argument means, rather than a kernel's file.
pub fn image_of(arg: &str) -> Option<PathBuf> {
    let path = Path::new(arg);
    let is_image = path.is_dir() || is_archive(arg) || !path.exists();
    is_image.then(|| find(arg, global_root().as_deref()).ok()).flatten()
}

/// A file is an image's archive rather than a kernel.
fn is_archive(path: &str) -> bool {
    path.ends_with(".tgz") || path.ends_with(".tar.gz")
}

fn read_kernel(path: PathBuf) -> Result<Kernel, CliError> {
    Ok(Kernel::of(&Image::open(path).map_err(KernelError::from)?)?)
}

/// The kernel in a file or an image, for an image that is made.
pub fn find_kernel(arg: &str, initrd: Option<&Path>) -> Result<Kernel, CliError> {
    if Path::new(arg).is_file() && (initrd.is_some() || !is_archive(arg)) {
        return Ok(Kernel::from_files(Path::new(arg), initrd)?);
    }
    if initrd.is_some() {
        return Err(format!("`{arg}` is no file; an image has its initial RAM disk itself").into());
    }
    read_kernel(find(arg, global_root().as_deref()).map_err(KernelError::from)?)
}
