//! The kernel modules that an image gets, and where they are.

use std::path::Path;

use clap::Args;
use env86::image::Image;
use env86::image::kernel::Kernel;
use env86::image::modules::{Chosen, Modules};

use super::CliError;
use super::kernel::image_of;

/// The flag for them.
#[derive(Args, Debug)]
pub struct ModulesFlag {
    /// Kernel modules that the image gets, with all that they need: the names of some, or patterns of their paths, such as
    /// tun,net/netfilter/xt_*, which are taken from the image of --kernel; with a folder lib/modules/VERSION before a colon, from
    /// there; or only the folder, for all
    #[arg(long, value_name = "LIST|DIR[:LIST]")]
    modules: Option<String>,
}

impl ModulesFlag {
    /// The modules, for a kernel that was given like this.
    pub fn choose(&self, kernel: Option<(&str, &Kernel)>) -> Result<Option<Chosen>, CliError> {
        let Some(text) = &self.modules else { return Ok(None) };
        let (folder, list) = match text.split_once(':') {
            _ if Path::new(text).is_dir() => (Some(text.as_str()), None),
            Some((folder, list)) => (Some(folder), Some(list)),
            None => (None, Some(text.as_str())),
        };
        let modules = match (folder, kernel.and_then(|(arg, _)| image_of(arg))) {
            (Some(folder), _) => Modules::within(Path::new(folder))?,
            (None, Some(image)) => Modules::of(&Image::open(image)?)?,
            (None, None) => {
                return Err(format!(
                    "Where are the kernel modules {text}? Name an image with --kernel, or their folder: --modules lib/modules/VERSION:{text}"
                )
                .into());
            }
        };
        if let Some((_, kernel)) = kernel {
            modules.check(kernel.bytes())?;
        }
        Ok(Some(modules.choose(list.map(names).as_deref())?))
    }

    /// The names in a list, which is no folder's.
    pub fn list(&self) -> Result<Option<Vec<String>>, CliError> {
        match &self.modules {
            Some(text) if text.contains(':') || Path::new(text).is_dir() => {
                Err(format!("The kernel is Debian's, and so are its modules: give only names in --modules, and not `{text}`; or another kernel with --kernel").into())
            }
            text => Ok(text.as_deref().map(names)),
        }
    }

    /// They are asked for.
    pub fn is_given(&self) -> bool {
        self.modules.is_some()
    }
}

fn names(list: &str) -> Vec<String> {
    list.split([',', ' ']).filter(|name| !name.is_empty()).map(Into::into).collect()
}
