//! `env86 build` with RUN: commands in machines of the demo image, and of a container with its kernel, whose files are in the
//! image afterwards.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use env86_tests::{Result, bound_to_us, image, program};
use serde_json::Value;

use crate::containers::{layout, scratch, tree};

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

/// Builds an image of a Dockerfile, with what is in `context`, all of it in this folder; gives what was said.
fn build(folder: &Path, image: &str, flags: &[&str], dockerfile: &str) -> Result<(Output, String)> {
    fs::write(folder.join("context/Dockerfile"), dockerfile)?;
    let mut env86 = bound_to_us(program()?);
    env86.current_dir(folder).args(["build", "-t", &format!("./{image}")]).args(flags).arg("context");
    let output = env86.env("XDG_CACHE_HOME", folder.join("cache")).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output, text))
}

/// A scratch folder of this name whose context has a file `x`.
fn context(name: &str, x: &str) -> Result<PathBuf> {
    let folder = scratch(name)?;
    fs::create_dir_all(folder.join("context"))?;
    fs::write(folder.join("context/x"), x)?;
    Ok(folder)
}

#[test]
fn commands_of_a_dockerfile_run_in_a_machine() -> Result<()> {
    let dir = context("build", "two\n")?;
    let base = fs::canonicalize(image()?)?;
    let dockerfile = |last: &str| {
        format!(
            "FROM {}\nARG who=you\nENV A=1\nWORKDIR /srv/app\nCOPY x .\n\
             RUN echo \"hello $who $A\" > out; cat x >> out; ln out hard; mkdir d; chown nobody d; pwd\n\
             RUN <<E\nset -e\necho three >> out\nrm x\nchmod 4755 out\nE\n{last}\n",
            base.display()
        )
    };
    let (output, text) = build(&dir, "one", &[], &dockerfile("LABEL a=b"))?;
    assert!(output.status.success() && text.contains("\n#4 /srv/app\n"), "{text}");
    let found = entries(&dir.join("one"))?;
    let (out, hard) = (&found["/srv/app/out"], &found["/srv/app/hard"]);
    assert_eq!((out[3].as_u64(), &out[6], &out[7]), (Some(0o104_755), &hard[6], &hard[7]));
    assert!(out[7].is_number() && !found.contains_key("/srv/app/x"));
    let content = fs::read_to_string(dir.join("one/fs").join(out[6].as_str().unwrap_or_default()))?;
    assert_eq!(content, "hello you 1\ntwo\nthree\n");
    assert!(found["/srv/app/d"][4].as_u64() != Some(0));
    // The network's file is none of the image's.
    assert_eq!(found["/etc/resolv.conf"], entries(&base)?["/etc/resolv.conf"]);
    // What was run once is not run again, and a command that fails leaves no image.
    let last = "USER nobody\nRUN --network=none touch d/mine && exit 3";
    let (output, text) = build(&dir, "two", &[], &dockerfile(last))?;
    assert!(!output.status.success() && !dir.join("two").exists(), "{text}");
    assert_eq!(text.matches(" CACHED").count(), 4, "{text}");
    assert!(text.contains("line 14: `/bin/sh` has ended with status 3"), "{text}");
    Ok(())
}

#[test]
fn of_ten_steps_only_the_last_is_done_again_when_it_changes() -> Result<()> {
    let folder = context("build-ten", "of the context\n")?;
    let base = fs::canonicalize(image()?)?;
    let built = |image: &str, last: &str| -> Result<String> {
        let copies: String = (1..=8).map(|n| format!("COPY x /srv/{n}\n")).collect();
        let text = format!("FROM {}\n{copies}RUN echo 9 > /srv/9\nRUN {last}\n", base.display());
        let (output, text) = build(&folder, image, &[], &text)?;
        assert!(output.status.success(), "{text}");
        Ok(text)
    };
    let text = built("one", "cat /srv/9")?;
    assert_eq!((text.matches(" CACHED").count(), text.contains("\n#11 9\n")), (0, true), "{text}");
    let text = built("two", "cat /srv/8 /srv/9")?;
    let ran = text.contains("\n#11 of the context\n#11 9\n");
    assert_eq!((text.matches(" CACHED").count(), ran), (9, true), "{text}");
    Ok(())
}

/// A Dockerfile upon a container image, whose files belong to a user with a home of its own, and whose last step is this.
fn upon_container(last: &str) -> String {
    format!(
        "FROM ./layout AS made\nENV A=1 B=\"two words\"\nWORKDIR /srv/app\nCOPY x .\n\
         RUN echo \"$FROM $A $B\" > out; cat x >> out; pwd; id -u; ls /sbin\n\
         RUN cat /etc/resolv.conf; grep -c : /proc/net/dev\n\
         FROM ./layout\nCOPY --from=made /srv/app/out /out\nENV A=3\nUSER app\nWORKDIR /home/app\n\
         RUN [\"sh\", \"-c\", \"id -u > mine; cat /out\"]\n\
         ENTRYPOINT [\"sh\", \"-c\", \"echo $0 $A $FROM; id -u; pwd; cat mine /out; exit 7\"]\nCMD [\"by-default\"]\n{last}\n"
    )
}

#[test]
fn a_container_is_built_upon_with_another_image_s_kernel() -> Result<()> {
    let folder = context("build-container", "of the context\n")?;
    let root = folder.join("tree");
    tree(&root)?;
    for applet in ["ls", "cp", "rm", "udhcpc"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n")?;
    layout(&root, &folder.join("layout"))?;
    let kernel = fs::canonicalize(image()?)?;
    // There is nothing to run it on.
    let (output, text) = build(&folder, "none", &[], &upon_container(""))?;
    assert!(!output.status.success() && text.contains("line 5: there is no kernel"), "{text}");
    let kernel = ["--kernel", kernel.to_str().unwrap_or_default()];
    let (output, text) = build(&folder, "one", &kernel, &upon_container(""))?;
    assert!(output.status.success(), "{text}");
    // guest86 is lent to commands, and is in what was built.
    assert!(text.contains("/srv/app\n") && text.contains(" 0\n") && text.contains(" guest86\n"), "{text}");
    assert!(text.contains("nameserver "), "{text}");
    let found = entries(&folder.join("one"))?;
    assert!(found.contains_key("/sbin/guest86") && found.contains_key("/home/app/mine"));
    assert!(!found.contains_key("/etc/resolv.conf"));
    assert_eq!((&found["/home/app/mine"][4], &found["/home/app/mine"][5]), (&7.into(), &8.into()));
    // Only what has changed is done again.
    let (output, text) = build(&folder, "two", &kernel, &upon_container("RUN echo more > more"))?;
    assert!(output.status.success() && text.matches(" CACHED").count() == 7, "{text}");
    assert!(entries(&folder.join("two"))?.contains_key("/home/app/more"));

    let image = folder.join("one");
    let env86 = |words: &[&str], image: Option<&Path>, command: &[&str]| -> Result<(Option<i32>, String)> {
        let mut env86 = bound_to_us(program()?);
        env86.args(words).args(image).args(command).env("XDG_RUNTIME_DIR", folder.join("runtime"));
        let output = env86.output()?;
        let said = [output.stdout, if output.status.success() { Vec::new() } else { output.stderr }].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (status, said) = env86(&["run"], Some(&image), &[])?;
    let own = "by-default 3 layout\n7\n/home/app\n7\nlayout 1 two words\nof the context\n";
    assert!(status == Some(7) && said.starts_with(own), "{status:?} {said}");
    // A machine that stays, and another command.
    fs::create_dir_all(folder.join("runtime"))?;
    assert_eq!(env86(&["start", "--name", "work"], Some(&image), &[])?, (Some(0), "work\n".into()));
    let (status, said) =
        env86(&["exec", "-e", "A=4", "work"], None, &["sh", "-c", "echo $A $FROM; id -u; pwd"])?;
    let ended = env86(&["rm", "-f", "work"], None, &[])?;
    assert_eq!((status, &*said, ended.0), (Some(0), "4 layout\n7\n/home/app\n", Some(0)));
    Ok(())
}
