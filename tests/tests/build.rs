//! `env86 build` with RUN: commands in machines of the demo image, whose files are in the image afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use env86_tests::{Result, bound_to_us, image, program};
use serde_json::Value;

/// The entries of an image, by their paths.
fn entries(image: &Path) -> Result<BTreeMap<String, Value>> {
    fn add(below: &str, entries: &Value, found: &mut BTreeMap<String, Value>) {
        for entry in entries.as_array().into_iter().flatten() {
            let path = format!("{below}/{}", entry[0].as_str().unwrap_or_default());
            add(&path, &entry[6], found);
            found.insert(path, entry.clone());
        }
    }
    let text = fs::read(image.join("fs.json"))?;
    let index: Value = serde_json::from_slice(&text).map_err(std::io::Error::other)?;
    let mut found = BTreeMap::new();
    add("", &index["fsroot"], &mut found);
    Ok(found)
}

#[test]
fn commands_of_a_dockerfile_run_in_a_machine() -> Result<()> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(dir.join("context"))?;
    fs::write(dir.join("context/x"), "two\n")?;
    let base = fs::canonicalize(image()?)?;
    let build = |image: &str, last: &str| -> Result<(Output, String)> {
        let text = format!(
            "FROM {}\nARG who=you\nENV A=1\nWORKDIR /srv/app\nCOPY x .\n\
             RUN echo \"hello $who $A\" > out; cat x >> out; ln out hard; mkdir d; chown nobody d; pwd\n\
             RUN <<E\nset -e\necho three >> out\nrm x\nchmod 4755 out\nE\n{last}\n",
            base.display()
        );
        fs::write(dir.join("context/Dockerfile"), text)?;
        let output = bound_to_us(program()?)
            .args(["build", "-t"])
            .arg(dir.join(image))
            .arg(dir.join("context"))
            .env("XDG_CACHE_HOME", dir.join("cache"))
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output, text))
    };
    let (output, text) = build("one", "LABEL a=b")?;
    assert!(output.status.success() && text.contains("\n#4 /srv/app\n"), "{text}");
    let found = entries(&dir.join("one"))?;
    let (out, hard) = (&found["/srv/app/out"], &found["/srv/app/hard"]);
    assert_eq!((out[3].as_u64(), &out[6], &out[7]), (Some(0o104_755), &hard[6], &hard[7]));
    assert!(out[7].is_number() && !found.contains_key("/srv/app/x"));
    let content = fs::read_to_string(dir.join("one/fs").join(out[6].as_str().unwrap_or_default()))?;
    assert_eq!(content, "hello you 1\ntwo\nthree\n");
    assert!(found["/srv/app/d"][4].as_u64() != Some(0));
    // What was run once is not run again, and a command that fails leaves no image.
    let (output, text) = build("two", "USER nobody\nRUN --network=none touch d/mine && exit 3")?;
    assert!(!output.status.success() && !dir.join("two").exists(), "{text}");
    assert_eq!(text.matches(" CACHED").count(), 4, "{text}");
    assert!(text.contains("line 14: `/bin/sh` has ended with status 3"), "{text}");
    Ok(())
}
