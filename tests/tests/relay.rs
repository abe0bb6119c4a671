//! The npm package v86 on a network of ours, which it joins by its option `network_relay_url`, by Ethernet frames or by
//! the wisp protocol: its guest gets an address and reaches a server on the host's loopback.
//!
//! Needs Node with the package and SeaBIOS, which `make peers` puts below the target folder. v86's boot takes
//! a minute or two, so this runs by `make v86-network` and not with the other tests.

#![cfg(unix)]

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use env86::net::{Config, Door, Limits, Relay, Rules};
use env86_tests::{
    Failure, PROMPT, Result, V86, bound_to_us, image, image_root, only_file, serve_http, workspace,
};
use serde_json::{Value, json};

/// For v86 to boot and to do its part. It catches hangs.
const LIMIT_S: u64 = 300;
/// What the server says.
const BODY: &str = "hello-from-the-host";

fn failed(error: impl std::error::Error) -> Failure {
    Failure::from(io::Error::other(error.to_string()))
}

#[test]
#[ignore = "v86 takes a minute or two to boot; make v86-network"]
fn v86_joins() -> Result<()> {
    joins("v86_joins", "ws", "net", "192.168.127", "host.env86.internal")
}

/// The page has a network of its own then, without our names.
#[test]
#[ignore = "v86 takes a minute or two to boot; make v86-network"]
fn v86_joins_by_wisp() -> Result<()> {
    joins("v86_joins_by_wisp", "wisp", "wisp/", "192.168.86", "192.168.127.254")
}

fn joins(test: &str, scheme: &str, path: &str, network: &str, host: &str) -> Result<()> {
    let Some(v86) = V86::for_test(test) else { return Ok(()) };
    let http = serve_http(BODY.into())?;
    let door = Door {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        token: Some("secret".into()),
        origins: Vec::new(),
        limits: Limits::default(),
        wisp: true,
    };
    let rules = Rules { host_ports: vec![http], ..Rules::default() };
    let relay = Relay::start(Config { rules, ..Config::default() }, door).map_err(failed)?;

    let (image, boot) = (image()?, image_root()?.join("boot"));
    let config: Value = serde_json::from_slice(&fs::read(image.join("image.json"))?).map_err(failed)?;
    // The quotes keep the echo of the line from being the end.
    let command = format!(
        "until ip -4 address | grep {network}; do sleep 1; done; \
         wget -q -O - http://{host}:{http}/; echo en''d-of-it\n"
    );
    let plan = v86.plan(json!({
        "kernel": only_file(&boot, "vmlinuz")?,
        "initrd": only_file(&boot, "initramfs")?,
        "cmdline": config["cmdline"],
        "memory_mb": 128,
        "options": {
            "filesystem": {
                "basefs": image.join("fs.json"),
                "baseurl": format!("{}/", image.join("fs").display()),
            },
            "network_relay_url": format!("{scheme}://{}/{path}?token=secret", relay.address()),
        },
        "steps": [[null, PROMPT], [command, "end-of-it"]],
        "timeout_s": LIMIT_S,
    }));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("plan.json"), plan.to_string())?;
    let script = workspace().join("tests/peers/v86/machine.mjs");
    // Node has WebSockets without the flag since its version 22.
    let out = bound_to_us("node")
        .arg("--experimental-websocket")
        .arg(script)
        .arg(dir.join("plan.json"))
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}\n{said}", String::from_utf8_lossy(&out.stderr));
    assert!(said.contains(BODY), "{said}");
    Ok(())
}
