//! `env86 prepare --single-file`: a prepared folder as one file, which a browser opens from a disk.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;

use super::{CliError, offline, page};

/// The page's modules in one script.
const SCRIPT: &str = "page.js";
/// How the page names its script, and its styles.
const MODULE: &str = r#"<script type="module" src="page.mjs"></script>"#;
const PRELOAD: &str = r#"<link rel="modulepreload" href="env86.mjs">"#;
const STYLES: [&str; 2] = ["xterm.css", "page.css"];
/// What the scripts fetch beside the image.
const PROGRAMS: [&str; 2] = ["env86.wasm.zst", "unpack.wasm.gz"];

/// Bytes in which a file of ours is known.
const LOOKED_AT: u64 = 256 << 10;

/// Writes the file of a folder that `prepare` has made.
pub fn write(folder: &Path, to: &Path) -> Result<(), CliError> {
    let text = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|error| page::told("read", &path, &error))
    };
    let mut html = text(page::INDEX)?.replace(PRELOAD, "");
    for name in STYLES {
        let style = format!("<style>\n{}</style>", text(name)?);
        html = html.replace(&format!(r#"<link rel="stylesheet" href="{name}">"#), &style);
    }
    let Some((before, after)) = html.split_once(MODULE) else {
        return Err(format!(
            "The page's files do not belong together: {} does not name page.mjs as expected; make them anew by `make web`",
            page::INDEX
        )
        .into());
    };
    let failed = |error| page::told("write", to, &error);
    let mut out = BufWriter::new(File::create(to).map_err(failed)?);
    out.write_all(before.as_bytes()).map_err(failed)?;
    let mut files: Vec<_> = PROGRAMS.map(str::to_owned).into();
    files.extend(
        offline::needed(&folder.join(page::IMAGE))?.into_iter().map(|name| format!("{}/{name}", page::IMAGE)),
    );
    for name in files {
        let path = folder.join(&name);
        let mut file = File::open(&path).map_err(|error| page::told("read", &path, &error))?;
        writeln!(out, r#"<script type="application/octet-stream" data-name="{}">"#, quoted(&name))
            .map_err(failed)?;
        base64(&mut file, &mut out).map_err(failed)?;
        out.write_all(b"</script>\n").map_err(failed)?;
    }
    write!(out, "<script>{}</script>{after}", text(SCRIPT)?).map_err(failed)?;
    out.flush().map_err(failed)
}

/// A name as the value of an attribute.
fn quoted(name: &str) -> String {
    name.replace('&', "&amp;").replace('"', "&quot;")
}

/// Writes what is read in base 64 (RFC 4648).
fn base64(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut encoder = EncoderWriter::new(to, &STANDARD);
    io::copy(from, &mut encoder)?;
    encoder.finish()?;
    Ok(())
}

/// Whether a file is one that `write` has made.
pub fn is_ours(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut start));
    let mark = format!(r#" data-name="{}""#, PROGRAMS[0]);
    read.is_ok() && start.windows(mark.len()).any(|text| text == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64() {
        let encoded = |text: &str| {
            let mut out = Vec::new();
            base64(&mut text.as_bytes(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        // RFC 4648, 10.
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, coded) in pairs {
            assert_eq!(encoded(plain), coded);
        }
        // More than is coded at once.
        let count = 48 << 10;
        assert_eq!(encoded(&"abc".repeat(count)), "YWJj".repeat(count));
    }
}
