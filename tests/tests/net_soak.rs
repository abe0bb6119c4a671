//! Mixed traffic for a long time, with saves and restores in between: `make net-soak`.
//!
//! The guest fetches from the host and hashes what it gets, in a loop that goes on over the restores; clients of the
//! host's fetch from the guest's web server. Each save happens while both are at it. Nothing that arrives may be
//! wrong, all has to go on after each restore, and the process must not have more open files or much more
//! memory in the end than after the first of them.

#![cfg(target_os = "linux")]

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use env86::net::Faults;
use env86_tests::{Result, media, serve_http};
use sha2::{Digest, Sha256};

use crate::net::{LIMIT, failed};
use crate::net_programs::{HOST, HTTP, PAGE, Ready, hex, transfers};

/// Saves and restores.
const RESTORES: u32 = 10;
/// Clients of the host's at once.
const CLIENTS: usize = 8;
/// Bytes of each of the guest's fetches.
const FETCHED: usize = 2 << 20;
/// Memory that the process may have more in the end, in KiB: what its allocator keeps.
const MEMORY: u64 = 48 << 10;

fn minutes() -> u64 {
    env::var("ENV86_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// Open files of this process, and its memory that is not a file's, in KiB.
fn resources() -> Result<(usize, u64)> {
    let files = fs::read_dir("/proc/self/fd")?.count();
    let status = fs::read_to_string("/proc/self/status")?;
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok());
    Ok((files, memory.unwrap_or_default()))
}

/// Fetches the guest's page. An error means that the connection ended early, as those of a machine that is
/// saved do.
fn fetch(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    assert!(answer.ends_with(&format!("\r\n\r\n{PAGE}\n")), "{answer}");
    Ok(())
}

#[test]
#[ignore = "takes an hour; make net-soak"]
fn mixed_traffic() -> Result<()> {
    let ready = Ready::get()?;
    let body = media::noise(FETCHED);
    let sum = hex(&Sha256::digest(&body));
    let port = serve_http(body)?;
    let part = Duration::from_secs(minutes() * 60) / (RESTORES + 1) * 9 / 10;
    let state = ready.path("soak");
    fs::copy(ready.path("state"), &state)?;
    let mut first = None;
    let (mut fetched, mut last) = (0, (0, 0));
    for round in 0..=RESTORES {
        let (mut guest, forward) = Ready::resume_from(&state, &[port], HTTP, None)?;
        if round == 0 {
            guest.does(&format!(
                "(while :; do for n in 1 2 3; do curl -s http://{HOST}:{port}/ | sha256sum >> /tmp/sums; done; \
                 nslookup {HOST} 192.168.127.1 >> /tmp/names; ping -c 1 192.168.127.1 >> /tmp/pings; done) \
                 > /dev/null 2>&1 &"
            ))?;
        }
        let (over, served) = (AtomicBool::new(false), AtomicU32::new(0));
        let until = Instant::now() + part;
        thread::scope(|scope| -> Result<()> {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        match fetch(forward) {
                            Ok(()) => _ = served.fetch_add(1, Ordering::Relaxed),
                            // The machine is being replaced.
                            Err(_) if over.load(Ordering::Relaxed) => {}
                            Err(error) => panic!("round {round}: {error}"),
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                });
            }
            while Instant::now() < until {
                thread::sleep(Duration::from_secs(1));
            }
            let before: usize = guest.line("wc -l < /tmp/sums")?.parse().unwrap_or_default();
            assert!(before > fetched, "round {round}: the guest has fetched {before}, and {fetched} before");
            fetched = before;
            // What was under way at a save ends early, and its sum is another one: one for each restore.
            let wrong: u32 =
                guest.line(&format!("grep -cv {sum} /tmp/sums || true"))?.parse().unwrap_or(u32::MAX);
            assert!(wrong <= round, "{wrong} of {fetched} are wrong after {round} restores");
            let answers = guest.line("grep -c 'ttl=' /tmp/pings")?;
            assert!(answers.parse().is_ok_and(|answers: u32| answers > round), "{answers} pings");
            let saved = guest.machine.save(&state).map_err(failed);
            over.store(true, Ordering::Relaxed);
            saved.map(drop)
        })?;
        guest.machine.stop().map_err(failed)?;
        last = resources()?;
        let baseline = *first.get_or_insert(last);
        println!(
            "round {round}: {} pages served, {fetched} fetched in all, {} open files, {} KiB (first {}, {})",
            served.load(Ordering::Relaxed),
            last.0,
            last.1,
            baseline.0,
            baseline.1
        );
    }
    let first = first.unwrap_or_default();
    assert!(last.0 <= first.0, "{} open files, {} in the beginning", last.0, first.0);
    assert!(last.1 <= first.1 + MEMORY, "{} KiB of memory, {} in the beginning", last.1, first.1);

    // A gibibyte in each direction over a bad cable in an hour, and less of it in less.
    let late_by = Duration::from_millis(2);
    let faults = Faults { lost: 1, late: 5, late_by, seed: 11, ..Faults::default() };
    transfers((1024 * minutes() as usize).div_ceil(60), faults)
}
