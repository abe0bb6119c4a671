//! One machine that travels between env86 and the npm package v86 as a saved state, there and back and
//! there again: its shell, its files over 9p, its screen, its serial line and its clocks go on at each hop,
//! and the load that it is under skips nothing.
//!
//! Needs Node with the package and SeaBIOS, which `make peers` puts below the target folder.

#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use env86_tests::media::{disc, hard_disk, noise};
use env86_tests::{
    Failure, PROMPT, QUIET, Result, V86, bound_to_us, image, image_root, md5_of, only_file, program, skipped,
};
use serde_json::{Value, json};

/// Of the longest journey.
const HOPS: usize = 10;
const MEMORY_MB: u32 = 128;
/// For one of them to do its part of a journey. It catches hangs: on two busy cores a part takes a quarter of it.
const LIMIT: Duration = Duration::from_secs(240);
/// How often v86 may try: on a busy host it sometimes hangs by itself.
const TRIES: usize = 2;
/// The exit status of tests/peers/v86/machine.mjs when its time is up.
const TIMED_OUT: i32 = 3;
/// With ACPI, Linux unplugs what stands in slots that v86's chips do not say to be occupied.
const ACPI_CMDLINE: &str = "acpiphp.disable=1";
/// What the shell does and says at each hop; `BASE` are files of the image for it to read. A state of v86's
/// loses what the guest has asked of its 9p file system and has no answer to yet, and the process that asked
/// waits for ever. So the load that runs while a state is saved has its program and its log in memory.
const HOP: &str = r#"
n=0; lines=0; base='BASE'
say() { echo "= $*"; }
complaints() { dmesg | grep -E 'BUG|Oops|WARNING|rcu.*stall|lockup|hung'; }
ticks() { awk '/timer|LOC/ { n += $2 } END { print n }' /proc/interrupts; }
hop() {
    n=$((n + 1)); echo "hop$n" > "/root/hop$n"
    say files $(cat /root/hop*)
    say seen $(md5sum < /dev/vcs1)
    echo "This is hop $n on the screen." > /dev/tty1
    say drawn $(md5sum < /dev/vcs1)
    say rtc $(cat /sys/class/rtc/rtc0/since_epoch)
    file=${base%% *}; base=${base#* }
    say base $(md5sum "$file")
    before=$(ticks); sleep 1; say ticks $(($(ticks) - before))
    until [ "$(wc -l < /load/log)" -gt "$lines" ]; do sleep 1; done; lines=$(wc -l < /load/log)
    say log $(awk '$1 != NR { bad++ } END { print NR, bad + 0 }' /load/log)
    say complaints $(complaints | tail -n +$old)
    echo "done $n."
}
mkdir /load; mount -t tmpfs load /load; cp /bin/busybox /load; : > /load/log
cat > /load/run << 'END'
cd /load; i=0; while :; do i=$((i + 1)); echo $i >> log; ./busybox md5sum busybox > sum; done
END
nice /load/busybox sh /load/run &
until [ "$(wc -l < /load/log)" -gt 1 ]; do sleep 1; done; old=$(($(complaints | wc -l) + 1)); echo "read""y"
"#;

/// Disks of a machine: their names, and whether v86 fetches them piece by piece. With states of such a
/// disk travels only what was written to it.
const DISKS: [(&str, bool); 3] = [("hda", false), ("hdb", true), ("cdrom", false)];
/// The first steps with disks, and what is done to them at each hop. What was written the hop before is in
/// the guest's memory in part, and read back from the disk. Which hard disk Linux names first is chance, so they are
/// found by their place on the cable.
const DISK_HOP: &str = r#"
n=0
say() { echo "= $*"; }
complaints() { dmesg | grep -iE 'BUG|Oops|ata[0-9].*(error|exception|failed|reset|timeout)|I/O error|EXT4-fs error'; }
hop() {
    n=$((n + 1)); for disk in a b; do
        cd /mnt/$disk; sync; echo 3 > /proc/sys/vm/drop_caches
        say bad$disk $(md5sum -c sums | grep -vc OK)
        head -c 300000 /dev/urandom > file$n; md5sum file$n >> sums
    done
    cd /; say files $(wc -l < /mnt/a/sums) $(wc -l < /mnt/b/sums)
    say disc $(md5sum < /mnt/c/noise.bin)
    say complaints $(complaints | tail -n +$old)
    echo "done $n."
}
at() { ls /sys/bus/scsi/devices/$1/block 2> /dev/null; }
modprobe -a ata_piix sd_mod sr_mod isofs ext4
until a=$(at 0:0:0:0) b=$(at 0:0:1:0) c=$(at 1:0:0:0); [ -b /dev/${a}2 -a -b /dev/$b -a -b /dev/$c ]
do sleep 1; done
mkdir -p /mnt/a /mnt/b /mnt/c; mke2fs /dev/${a}2; mke2fs /dev/$b
mount -t ext4 /dev/${a}2 /mnt/a; mount -t ext4 /dev/$b /mnt/b; mount -t iso9660 -o ro /dev/$c /mnt/c
for disk in a b; do (cd /mnt/$disk; cp /bin/busybox first; md5sum first > sums); done
old=$(($(complaints | wc -l) + 1)); echo "read""y"
"#;

/// Where the machine travels, and between whom.
struct Road {
    /// The test's.
    name: String,
    dir: PathBuf,
    v86: V86,
    acpi: bool,
    /// There are disks: those of [`DISKS`], in files of these names.
    disks: bool,
}

impl Road {
    /// `None`, and a word that cannot be overlooked, where there is no peer.
    fn new(name: &str, acpi: bool) -> Result<Option<Self>> {
        let Some(v86) = V86::for_test(name) else { return Ok(None) };
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&dir)?;
        Ok(Some(Self { name: name.to_owned(), dir, v86, acpi, disks: false }))
    }

    /// Runs v86 by a plan; gives what it says on stdout and stderr. `None`, and a word that cannot be overlooked,
    /// if it fails from power-on, where it has met nothing of ours yet: what is wrong then is its own.
    fn node(&self, plan: Value) -> Result<Option<(String, String)>> {
        let mut plan = self.v86.plan(plan);
        plan["timeout_s"] = json!(LIMIT.as_secs());
        let path = self.dir.join("plan.json");
        fs::write(&path, plan.to_string())?;
        let script = env86_tests::workspace().join("tests/peers/v86/machine.mjs");
        let mut tries = 0;
        let out = loop {
            tries += 1;
            let out = bound_to_us("node").arg(&script).arg(&path).stdin(Stdio::null()).output()?;
            if out.status.success() || out.status.code() != Some(TIMED_OUT) || tries == TRIES {
                break out;
            }
            println!("v86 hangs and is tried again. It said: {}", text(&out.stdout));
        };
        let (said, told) = (text(&out.stdout), text(&out.stderr));
        if !out.status.success() && plan["state"].is_null() {
            skipped(&self.name, &format!("v86 fails by itself, before it has met env86: {told}\n{said}"));
            return Ok(None);
        }
        assert!(out.status.success(), "v86, given a state of ours: {told}\n{said}");
        Ok(Some((said, told)))
    }

    /// Runs v86 to the end of `steps`, from a state or from power-on; gives what COM1 and the screen say.
    fn v86(&self, from: Option<&Path>, to: &Path, steps: &Value) -> Result<Option<(String, String)>> {
        let (image, root) = (image()?, image_root()?);
        let config: Value = serde_json::from_slice(&fs::read(image.join("image.json"))?)
            .map_err(|error| Failure::from(std::io::Error::from(error)))?;
        let boot = |prefix| only_file(&root.join("boot"), prefix);
        let told = self.node(json!({
            "kernel": boot("vmlinuz")?,
            "initrd": boot("initramfs")?,
            "cmdline": format!("{} {}", config["cmdline"].as_str().unwrap_or_default(),
                if self.acpi { ACPI_CMDLINE } else { "" }),
            "memory_mb": MEMORY_MB,
            "acpi": self.acpi,
            "options": self.options(&image)?,
            "state": from,
            "save": to,
            "steps": steps,
            "screen": true,
        }))?;
        Ok(told.map(|(said, told)| {
            let screen = told.lines().find_map(|line| line.strip_prefix("@ screen ")).unwrap_or_default();
            (said, screen.to_owned())
        }))
    }

    /// v86's options for the image and the disks.
    fn options(&self, image: &Path) -> Result<Value> {
        let mut options = json!({ "filesystem": {
            "basefs": image.join("fs.json"),
            "baseurl": format!("{}/", image.join("fs").display()),
        } });
        for (name, lazy) in DISKS.into_iter().filter(|_| self.disks) {
            let path = self.dir.join(name);
            options[name] = json!({ "url": path, "async": lazy, "size": fs::metadata(path)?.len() });
        }
        Ok(options)
    }

    /// An image with the demo image's files, and the disks.
    fn image_with_disks(&self) -> Result<PathBuf> {
        let (demo, own) = (image()?, self.dir.join("image"));
        _ = fs::remove_dir_all(&own); // of a run that failed
        fs::create_dir_all(&own)?;
        let text = fs::read(demo.join("image.json"))?;
        let mut config: Value = serde_json::from_slice(&text).map_err(std::io::Error::from)?;
        for (name, lazy) in DISKS {
            config[name] = json!({ "url": format!("./{name}"), "async": lazy });
            symlink(self.dir.join(name), own.join(name))?;
        }
        fs::write(own.join("image.json"), config.to_string())?;
        ["fs", "fs.json"].into_iter().try_for_each(|name| symlink(demo.join(name), own.join(name)))?;
        Ok(own)
    }

    /// Runs env86 from a state, or from power-on, until COM1 has said `mark`.
    fn env86(&self, from: Option<&Path>, to: &Path, input: &str, mark: &str) -> Result<String> {
        let mut command = bound_to_us("timeout");
        command.arg(LIMIT.as_secs().to_string()).arg(program()?);
        command.args(["boot", "--ttyS0", "--no-console", "--exit-on", mark, "--save-state"]).arg(to);
        match from {
            Some(from) => command.arg("--state").arg(from),
            None => command.args(["--memory", &format!("{MEMORY_MB}M")]),
        };
        let with_disks = self.disks && from.is_none();
        let image = if with_disks { self.image_with_disks()? } else { image()? };
        // The others are in the state.
        for (name, _) in DISKS.into_iter().filter(|(_, lazy)| self.disks && !with_disks && *lazy) {
            command.arg(format!("--{name}")).arg(self.dir.join(name));
        }
        let mut child =
            command.arg(image).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            stdin.write_all(input.as_bytes())?;
        }
        let out = child.wait_with_output()?;
        drop(stdin);
        assert!(out.status.success(), "env86: {}\n{}", text(&out.stderr), text(&out.stdout));
        Ok(text(&out.stdout))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Programs of the image, as paths in the guest, that no hop has read yet.
fn base_files() -> Result<Vec<String>> {
    const SIZES: std::ops::Range<u64> = 10_000..200_000;
    let mut names = Vec::new();
    for entry in fs::read_dir(image_root()?.join("usr/bin"))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_file() && SIZES.contains(&meta.len()) {
            names.push(format!("/usr/bin/{}", text(entry.file_name().as_encoded_bytes())));
        }
    }
    names.sort();
    assert!(names.len() >= HOPS);
    Ok(names)
}

/// What one hop has said.
struct Hop(BTreeMap<String, String>);

impl Hop {
    fn new(said: &str) -> Self {
        let lines = said.lines().filter_map(|line| line.trim().strip_prefix("= ")?.split_once(' '));
        Self(lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str) -> u64 {
        self.get(key).split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(u64::MAX)
    }
}

fn travels(name: &str, acpi: bool, hops: usize) -> Result<()> {
    let Some(road) = Road::new(name, acpi)? else { return Ok(()) };
    let start = Instant::now();
    let base = base_files()?;
    let mut state = road.dir.join("0.state");
    let script = HOP.replace("BASE", &base[..HOPS].join(" "));
    let steps = json!([[null, PROMPT], [QUIET, "quiet-shell"], [script, "ready"]]);
    let Some(_) = road.v86(None, &state, &steps)? else { return Ok(()) };
    println!("booted after {:.1} s", start.elapsed().as_secs_f32());
    let (mut drawn, mut logged) = (String::new(), 0);
    for n in 1..=hops {
        let (next, mark) = (road.dir.join(format!("{n}.state")), format!("done {n}."));
        let before = seconds_since_1970();
        let said = if n % 2 == 1 {
            road.env86(Some(&state), &next, "hop\n", &mark)?
        } else {
            let Some((said, screen)) = road.v86(Some(&state), &next, &json!([["hop\n", mark]]))? else {
                return Ok(());
            };
            for line in n - 1..=n {
                assert!(screen.contains(&format!("This is hop {line} on the screen.")), "hop {n}: {screen}");
            }
            said
        };
        let after = seconds_since_1970();
        let hop = Hop::new(&said);
        let files: BTreeSet<_> = hop.get("files").split(' ').map(str::to_owned).collect();
        assert_eq!(files, (1..=n).map(|i| format!("hop{i}")).collect(), "the files of hop {n}: {said}");
        assert!(n == 1 || hop.get("seen") == drawn, "the screen changed on the way to hop {n}: {said}");
        drawn = hop.get("drawn").to_owned();
        assert_ne!(drawn, hop.get("seen"), "nothing can be drawn in hop {n}: {said}");
        let rtc = hop.number("rtc");
        assert!((before - 1..=after + 1).contains(&rtc), "RTC {rtc} in hop {n}, from {before} to {after}");
        let file = &base[n - 1];
        let sum = md5_of(&image_root()?.join(&file[1..]))?;
        assert_eq!(hop.get("base"), format!("{sum} {file}"), "hop {n}: {said}");
        assert!((20..2000).contains(&hop.number("ticks")), "timers in hop {n}: {said}");
        let lines = hop.number("log");
        assert!(lines > logged && hop.get("log").ends_with(" 0"), "hop {n}, after line {logged}: {said}");
        logged = lines;
        assert_eq!(hop.get("complaints"), "", "hop {n}: {said}");
        fs::remove_file(&state)?;
        state = next;
        println!("hop {n} after {:.1} s, {logged} lines of log", start.elapsed().as_secs_f32());
    }
    Ok(fs::remove_dir_all(&road.dir)?)
}

#[test]
fn a_machine_travels_between_v86_and_env86() -> Result<()> {
    travels("v86", false, HOPS)
}

#[test]
fn a_machine_with_acpi_travels_between_v86_and_env86() -> Result<()> {
    travels("v86-acpi", true, 4)
}

/// A machine with disks, in v86's memory and not, travels with what was written to them.
fn disks_travel(name: &str, begun_by_env86: bool) -> Result<()> {
    const HOPS: usize = 4;
    let Some(mut road) = Road::new(name, false)? else { return Ok(()) };
    road.disks = true;
    let noise = noise(400_001);
    fs::write(road.dir.join("hda"), hard_disk(20_000, &[64, 19_000]))?;
    fs::write(road.dir.join("hdb"), vec![0; 8 << 20])?;
    fs::write(road.dir.join("cdrom"), disc(&[("NOISE.BIN", &noise)]))?;
    fs::write(road.dir.join("noise"), noise)?;
    let sum = md5_of(&road.dir.join("noise"))?;
    let images = || DISKS.map(|(name, _)| md5_of(&road.dir.join(name)).unwrap_or_default());
    let before = images();
    let mut state = road.dir.join("0.state");
    if begun_by_env86 {
        road.env86(None, &state, &[QUIET, DISK_HOP].concat(), "ready")?;
    } else {
        let steps = json!([[null, PROMPT], [QUIET, "quiet-shell"], [DISK_HOP, "ready"]]);
        let Some(_) = road.v86(None, &state, &steps)? else { return Ok(()) };
    }
    for n in 1..=HOPS {
        let (next, mark) = (road.dir.join(format!("{n}.state")), format!("done {n}."));
        let said = if (n % 2 == 0) == begun_by_env86 {
            road.env86(Some(&state), &next, "hop\n", &mark)?
        } else {
            let Some((said, _)) = road.v86(Some(&state), &next, &json!([["hop\n", mark]]))? else {
                return Ok(());
            };
            said
        };
        let hop = Hop::new(&said);
        assert_eq!((hop.get("bada"), hop.get("badb")), ("0", "0"), "hop {n}: {said}");
        assert_eq!(hop.get("files"), format!("{0} {0}", n + 1), "hop {n}: {said}");
        assert_eq!(hop.get("disc"), format!("{sum} -"), "hop {n}: {said}");
        assert_eq!(hop.get("complaints"), "", "hop {n}: {said}");
        fs::remove_file(&state)?;
        state = next;
    }
    assert_eq!(images(), before, "an image has been written to");
    Ok(fs::remove_dir_all(&road.dir)?)
}

#[test]
fn disks_travel_from_v86() -> Result<()> {
    disks_travel("v86-disks", false)
}

#[test]
fn disks_travel_from_env86() -> Result<()> {
    disks_travel("env86-disks", true)
}

/// v86's machines with whatever can be fitted, as its BIOS leaves them: env86 resumes and saves each, and
/// v86 resumes that.
#[test]
fn every_machine_of_v86_is_read() -> Result<()> {
    const NAME: &str = "v86-machines";
    let Some(road) = Road::new(NAME, false)? else { return Ok(()) };
    const FLOPPY: u32 = 1_474_560;
    let machines = [
        json!({ "memory_mb": 32, "options": { "filesystem": null, "net_device": { "type": "none" }, "uart1": false } }),
        json!({ "memory_mb": 64, "blank": { "cdrom": 1 << 20, "fda": FLOPPY, "fdb": FLOPPY } }),
        json!({ "memory_mb": 32, "blank": { "hda": 1 << 20, "hdb": 3 << 20, "cdrom": 1 << 20 } }),
        json!({ "memory_mb": 48, "acpi": true, "options": {
            "virtio_console": true, "virtio_balloon": true, "net_device": { "type": "virtio" },
            "uart2": true, "uart3": true, "vga_memory_size": 16 << 20,
        } }),
    ];
    let path = |name: &str| road.dir.join(name);
    let resume = |from: &Path, to: &Path| -> Result<std::process::Output> {
        let mut child = bound_to_us(program()?)
            .args(["boot", "--ttyS0", "--no-console", "--save-state"])
            .arg(to)
            .arg("--state")
            .arg(from)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(500));
        // It may have ended with a message.
        _ = child.stdin.take().map(|mut stdin| stdin.write_all(&[4]));
        Ok(child.wait_with_output()?)
    };
    for (number, machine) in machines.into_iter().enumerate() {
        let (first, second) = (path("first"), path(if number == 0 { "second.zst" } else { "second" }));
        let run = |from: Option<&Path>, to: &Path| {
            let mut plan = machine.clone();
            plan["state"] = json!(from);
            plan["save"] = json!(to);
            plan["wait_ms"] = json!(2000);
            road.node(plan)
        };
        let Some(_) = run(None, &first)? else { return Ok(()) };
        let out = resume(&first, &second)?;
        assert!(out.status.success(), "machine {number}: {}", text(&out.stderr));
        run(Some(&second), &path("third"))?;
    }
    Ok(fs::remove_dir_all(road.dir)?)
}
