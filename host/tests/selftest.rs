//! The guest that tests the machine it runs on: what `env86 boot` does with nothing to start.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use env86::machine::{NetDevice, Recording};
use env86::{Com, Ending, Machine, MachineBuilder};

/// Far more than it needs, on any machine.
const LIMIT: Duration = Duration::from_secs(240);
const ESCAPE: &[u8] = b"\x1b";
/// The summary ends with this word.
const SUMMARY: &str = " absent";

type Result = std::result::Result<(), Box<dyn Error>>;

/// Runs the tests; gives the machine, which waits for Esc, and what it has sent.
fn tested(builder: MachineBuilder) -> std::result::Result<(Machine, String), Box<dyn Error>> {
    let machine = builder.self_test().start()?;
    let lines = machine.serial(Com::One).expect(SUMMARY, LIMIT)?;
    Ok((machine, lines))
}

/// The verdict of a line, and its detail, without the colours.
#[track_caller]
fn line<'a>(lines: &'a str, name: &str) -> (&'a str, &'a str) {
    let start = format!("\x1b[1m{name} ");
    let line = lines.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("no {name} in {lines}"));
    let (verdict, detail) = line[start.len()..].trim_start().split_once(' ').expect("a verdict and a detail");
    let verdict = verdict.split_once('m').expect("a colour").1;
    let detail = detail.trim_start().trim_end_matches("\x1b[0m");
    (verdict, detail.strip_prefix("\x1b[0m").unwrap_or(detail))
}

#[test]
fn all_of_a_plain_machine_works() -> Result {
    let (machine, lines) = tested(Machine::builder())?;
    assert!(lines.contains("self-test: 11 ok, 0 failed, 1 absent"), "{lines}");
    assert_eq!(line(&lines, "processor"), ("OK", "GenuineIntel, family 6, model 7"));
    assert!(line(&lines, "memory").1.starts_with("512 MB, "), "{lines}");
    assert_eq!(line(&lines, "disk"), ("none", "hdc CD-ROM drive, no hard disk"));
    assert!(line(&lines, "network").1.ends_with("; the network is off"), "{lines}");
    let controls = machine.controls();
    let screen = controls.wait_screen("Esc switches the machine off", LIMIT)?.to_string();
    assert!(screen.contains("self-test: 11 ok, 0 failed, 1 absent"), "{screen}");
    controls.keys("esc")?;
    assert_eq!(machine.wait()?.ending, Ending::DebugExit(0));
    Ok(())
}

#[cfg(feature = "net")]
#[test]
fn a_disk_is_read_and_an_address_is_offered() -> Result {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    fs::write(&disk, vec![0; 3 << 20])?;
    let (machine, lines) = tested(Machine::builder().hda(&disk).network(env86::net::Config::default()))?;
    assert!(lines.contains("self-test: 12 ok, 0 failed, 0 absent"), "{lines}");
    assert_eq!(line(&lines, "disk"), ("OK", "hda 3 MB, sector 0 read, hdc CD-ROM drive"));
    assert!(line(&lines, "network").1.contains(", DHCP offers 192.168.127."), "{lines}");
    machine.serial(Com::One).write_all(ESCAPE)?;
    assert_eq!(machine.wait()?.ending, Ending::DebugExit(0));
    Ok(())
}

#[test]
fn what_is_not_there_has_not_failed() -> Result {
    let (_machine, lines) =
        tested(Machine::builder().net_device(NetDevice::None).memory(2 << 20).acpi(true))?;
    assert!(lines.contains("self-test: 10 ok, 0 failed, 2 absent"), "{lines}");
    assert_eq!(line(&lines, "network"), ("none", "no card"));
    assert_eq!(line(&lines, "disk").0, "none");
    Ok(())
}

/// Every machine has a sound card at 220h: a copy of the guest looks for it at 240h.
#[test]
fn a_sound_card_that_is_not_there_has_not_failed() -> Result {
    /// mov dx, 02xxh
    const LOADS_PORT: [u8; 2] = [0x66, 0xba];
    let mut kernel = env86_selftest::KERNEL.to_vec();
    let is_card = |code: &[u8]| code[..2] == LOADS_PORT && code[2] & 0xf0 == 0x20 && code[3] == 0x02;
    let places: Vec<_> = (0..kernel.len() - 4).filter(|&at| is_card(&kernel[at..at + 4])).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| kernel[at + 2] += 0x20);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("kernel");
    fs::write(&file, kernel)?;
    let machine = Machine::builder().kernel(&file).memory(4 << 20).start()?;
    let lines = machine.serial(Com::One).expect(SUMMARY, LIMIT)?;
    assert_eq!(line(&lines, "sound card"), ("none", "no card at 220h"));
    assert!(lines.contains(" 0 failed, 2 absent"), "{lines}");
    Ok(())
}

#[test]
fn a_virtio_card_is_named() -> Result {
    let (_machine, lines) = tested(Machine::builder().net_device(NetDevice::Virtio).memory(4 << 20))?;
    assert_eq!(line(&lines, "network"), ("OK", "a virtio card, which is not tried"));
    Ok(())
}

#[test]
fn it_repeats() -> Result {
    let run = || -> std::result::Result<_, Box<dyn Error>> {
        let recording = Recording::typed(ESCAPE, None);
        let machine = Machine::builder().self_test().memory(16 << 20).recording(recording).start()?;
        let report = machine.wait()?;
        assert_eq!(report.ending, Ending::DebugExit(0));
        Ok((report.cpu.instructions, report.digest.expect("a digest")))
    };
    assert_eq!(run()?, run()?);
    Ok(())
}

/// `env86 boot` with a few flags more, and with Esc typed at COM1.
fn boot(flags: &[&str]) -> std::io::Result<Output> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_env86"))
        .args(["boot", "--ttyS0", "--no-console"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    process.stdin.take().expect("it is piped").write_all(ESCAPE)?;
    process.wait_with_output()
}

#[test]
fn the_program_boots_it_with_nothing_to_start() -> Result {
    let output = boot(&[])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("self-test: 11 ok, 0 failed, 1 absent"), "{text}");
    assert_eq!(output.status.code(), Some(0), "{text}");
    Ok(())
}

#[test]
fn a_failure_is_the_program_s_status() -> Result {
    // It is told of a network that is not there.
    let output = boot(&["--self-test", "--append", "network"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(line(&text, "network").1.ends_with("no DHCP server offers an address"), "{text}");
    assert!(text.contains("self-test: 10 ok, 1 failed, 1 absent"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
    Ok(())
}
