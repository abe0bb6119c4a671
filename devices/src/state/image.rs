//! Which image a machine's file system comes from.

use super::StateError;
use super::chip::{Chip, Moment, State, Writer};
use crate::pc::Pc;
use serde_json::{Value as Json, json};
use xxhash_rust::xxh3::xxh3_64;

/// The image that holds the contents of the files that the guest has not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// Where it was: an absolute path on the host that the machine was started on.
    pub path: String,
    /// XXH3 of its index, the bytes of `fs.json`.
    pub index: u64,
}

/// Longer paths are not believed.
const MAX_PATH: usize = 4096;

impl ImageSource {
    /// An image by its path and the bytes of its index.
    pub fn new(path: impl Into<String>, index: &[u8]) -> Self {
        Self { path: path.into(), index: xxh3_64(index) }
    }

    /// Whether this is the image's index: the files are the ones that the machine began with.
    pub fn has_index(&self, index: &[u8]) -> bool {
        self.index == xxh3_64(index)
    }

    fn read(saved: &Json) -> Option<Self> {
        let path = saved["path"].as_str().filter(|path| !path.is_empty() && path.len() <= MAX_PATH)?;
        let index = u64::from_str_radix(saved["index"].as_str()?, 16).ok()?;
        Some(Self { path: path.into(), index })
    }
}

/// The image of a state that says it.
pub(super) type Saved = Option<ImageSource>;

const KEY: &str = "image";

impl Chip for Saved {
    fn read(state: &State) -> Result<Self, StateError> {
        Ok(ImageSource::read(state.ours(KEY)))
    }

    fn apply(self, machine: &mut Pc, _: &Moment) {
        machine.passengers.image = self;
    }

    fn write(machine: &Pc, writer: &mut Writer) -> Result<(), StateError> {
        if let Some(image) = &machine.passengers.image {
            writer.add(KEY, json!({ "path": image.path, "index": format!("{:016x}", image.index) }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod suite {
    use super::super::suite::{Field, Random, Suite, any, fields};
    use super::*;

    impl Suite for Saved {
        fn fields() -> Vec<Field> {
            fields!(m:
                m.passengers.image => |r: &mut Random| {
                    Some(ImageSource { path: any::<u32>(r).to_string(), index: any(r) })
                },
            )
        }

        fn show(m: &mut Pc) -> String {
            format!("{:#?}", m.passengers.image)
        }
    }
}
