//! Images as one file, for elsewhere: a gzipped tar archive whose root is the image's directory.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::global::{GlobalError, GlobalImages, GlobalName};
use super::watch::Watch;
use super::{Image, archive};
use crate::replace::replace;

/// Writes an image as an archive. The same image always gives the same bytes.
pub fn export(image: &Image, to: impl Write, watch: &Watch) -> io::Result<()> {
    archive::pack(image.dir(), to, watch)
}

/// Writes an image as a file, whole or not at all; what was there is replaced. Gives its size in bytes.
pub fn export_to(image: &Image, path: &Path, watch: &Watch) -> io::Result<u64> {
    replace(path, |to| export(image, to, watch))
}

/// Makes a global image of an archive, whose files may have so many bytes; `what` is what an error calls it.
/// The image is checked, and is there as a whole or not at all.
pub fn import(
    images: &GlobalImages,
    name: &GlobalName,
    force: bool,
    (what, from): (&str, impl Read),
    limit: u64,
    watch: &Watch,
) -> Result<PathBuf, GlobalError> {
    images.add(name, force, watch, |dir| {
        archive::unpack(from, dir, limit, watch)
            .map_err(|source| GlobalError::Unpack { what: what.into(), source })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::create;
    use super::*;

    #[test]
    fn an_image_comes_back_as_it_was_and_bad_archives_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, image) = (dir.path().join("tree"), dir.path().join("image"));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), "hello").unwrap();
        create::from_dir(&tree, &image, &Default::default()).unwrap();
        let watch = Watch::default();
        let mut bytes = Vec::new();
        export(&Image::open(&image).unwrap(), &mut bytes, &watch).unwrap();

        let images = GlobalImages::within(dir.path().join("root"));
        let name = GlobalName::new("a@1").unwrap();
        let import = |name, bytes: &[u8], limit| import(&images, name, false, ("`x`", bytes), limit, &watch);
        let path = import(&name, &bytes, 1 << 20).unwrap();
        let mut again = Vec::new();
        export(&Image::open(path).unwrap(), &mut again, &watch).unwrap();
        assert!(again == bytes);

        let other = GlobalName::new("b").unwrap();
        for bad in [&bytes[..bytes.len() / 2], &bytes[..20], b"", b"no gzip"] {
            let imported = import(&other, bad, 1 << 20);
            assert!(imported.is_err(), "{imported:?}");
        }
        assert!(matches!(import(&other, &bytes, 10), Err(GlobalError::Unpack { .. })));
        assert_eq!(fs::read_dir(images.root()).unwrap().count(), 1);
    }
}
